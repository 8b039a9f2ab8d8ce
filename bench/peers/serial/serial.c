/* The work of the job system's questions (--as) in plain C, by one thread without any jobs: what the overhead and the
 * gain of the others are measured against. Each question is as its program bench/b_<question>.c says. */
#include "../../job_work.h"
#include "../../sand.h"
#include "../frame.h"

/* ---- Trees and lists of small work ---- */

static long fib(long n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static void forkjoin_fib(const struct peer *peer, double *values) {
  long times = peer_count(peer, 50);
  int64_t start_ns = peer_now();
  for (long i = 0; i < times; i++) {
    long n = FIB_N;
    __asm__("" : "+r"(n)); /* it is not known beforehand */
    peer_check("fib", (uint64_t)fib(n), FIB_OF_N);
  }
  values[0] = peer_each(start_ns, times * FIB_CALLS);
}

static double steal(const struct peer *peer, long jobs) {
  long times = peer_times(peer, 500000, jobs);
  uint64_t *results = calloc((size_t)jobs, sizeof *results), sum = 0;
  if (!results) peer_die("out of memory");
  int64_t start_ns = peer_now();
  for (long t = 0; t < times; t++) {
    for (long i = 0; i < jobs; i++) results[i] = steal_job((size_t)i);
  }
  double value = peer_each(start_ns, times * jobs);
  for (long i = 0; i < jobs; i++) sum += results[i] - steal_job((size_t)i);
  peer_check("results", sum, 0);
  free(results);
  return value;
}

static void work_stealing(const struct peer *peer, double *values) {
  for (int i = 0; i < 3; i++) values[i] = steal(peer, (long[]){100000, 10000, 1000}[i]);
}

/* A ring that grows would do; an array that has room for all is faster still. */
static double produce_consume(const struct peer *peer, long items) {
  long times = peer_times(peer, 1000000, items);
  long *queue = malloc((size_t)items * sizeof *queue);
  if (!queue) peer_die("out of memory");
  int64_t start_ns = peer_now();
  for (long t = 0; t < times; t++) {
    long sum = 0;
    for (long i = 0; i < items; i++) queue[i] = i;
    __asm__("" : : "r"(queue) : "memory");
    for (long i = 0; i < items; i++) sum += queue[i];
    peer_check("sum", (uint64_t)sum, (uint64_t)(items * (items - 1) / 2));
  }
  free(queue);
  return peer_each(start_ns, times * items);
}

static void job_producer_consumer(const struct peer *peer, double *values) {
  for (int i = 0; i < 3; i++) values[i] = produce_consume(peer, (long[]){500000, 100000, 10000}[i]);
}

struct object {
  struct object *next;
  long number;
  void *rest[6];
};

/* malloc instead of a frame allocator, and free outside of the time. */
static double allocate(const struct peer *peer, long objects) {
  long times = peer_times(peer, 1000000, objects);
  int64_t taken_ns = 0;
  for (long t = 0; t < times; t++) {
    struct object *last = NULL;
    long sum = 0;
    int64_t start_ns = peer_now();
    for (long i = 0; i < objects; i++) {
      struct object *object = malloc(sizeof *object);
      if (!object) peer_die("out of memory");
      *object = (struct object){.next = last, .number = i};
      last = object;
    }
    taken_ns += peer_now() - start_ns;
    for (struct object *next; last; last = next) {
      next = last->next;
      sum += last->number;
      free(last);
    }
    peer_check("sum", (uint64_t)sum, (uint64_t)(objects * (objects - 1) / 2));
  }
  return (double)taken_ns / (double)(times * objects);
}

static void job_frame_alloc(const struct peer *peer, double *values) {
  for (int i = 0; i < 4; i++) values[i] = allocate(peer, (long[]){1000000, 100000, 10000, 1000}[i]);
}

/* ---- Loops ---- */

static double ep(const struct peer *peer, long n) {
  long times = peer_times(peer, 3000000, n);
  uint64_t first = ep_range(0, (size_t)n);
  int64_t start_ns = peer_now();
  for (long t = 0; t < times; t++) peer_check("sum", ep_range(0, (size_t)n), first);
  return peer_each(start_ns, times * n);
}

static void job_ep(const struct peer *peer, double *values) {
  for (int i = 0; i < 3; i++) values[i] = ep(peer, (long[]){1000000, 100000, 10000}[i]);
}

static double mg(const struct peer *peer, const double *v, size_t n) {
  long times = peer_times(peer, 80000000, (long)n);
  uint64_t first = mg_range(v, n, 0, n);
  int64_t start_ns = peer_now();
  for (long t = 0; t < times; t++) peer_check("sum", mg_range(v, n, 0, n), first);
  return peer_each(start_ns, times * (long)n);
}

static void job_mg(const struct peer *peer, double *values) {
  static double *v;
  if (!v) {
    v = malloc(256 * 256 * 256 * sizeof *v);
    if (!v) peer_die("out of memory");
    mg_fill(v, 256 * 256 * 256);
  }
  for (int i = 0; i < 3; i++) {
    size_t side = (size_t[]){256, 128, 64}[i];
    values[i] = mg(peer, v, side * side * side);
  }
}

/* Adds to a number that nobody else has. */
static double cg(const struct peer *peer, long n) {
  static double v[100000];
  long times = peer_times(peer, 5000000, n);
  for (long i = 0; i < n; i++) v[i] = 1;
  int64_t start_ns = peer_now();
  for (long t = 0; t < times; t++) {
    long total = 0;
    for (long i = 0; i < n; i++) {
      double sum = 0;
      for (long j = i; j < i + 5 && j < n; j++) sum += v[j];
      total += (long)sum;
    }
    peer_check("total", (uint64_t)total, (uint64_t)(5 * n - 10));
  }
  return peer_each(start_ns, times * n);
}

static void job_cg(const struct peer *peer, double *values) {
  for (int i = 0; i < 3; i++) values[i] = cg(peer, (long[]){100000, 10000, 1000}[i]);
}

static double transform(const struct peer *peer, int depth, size_t branch) {
  static struct transform nodes[400];
  struct transforms tree = {.nodes = nodes};
  transforms_shape(&tree, depth, branch);
  long times = peer_count(peer, 2000);
  int64_t start_ns = peer_now();
  for (long t = 0; t < times; t++) {
    for (int level = 1; level < depth; level++) {
      for (size_t i = tree.first[level]; i < tree.first[level + 1]; i++) transform_update(&tree, level, i);
    }
    __asm__("" : : "r"(nodes) : "memory");
  }
  double value = peer_each(start_ns, times) / 1e3;
  peer_check("sum", (uint64_t)transforms_sum(&tree), (uint64_t)transforms_expected(&tree));
  return value;
}

static void job_transform(const struct peer *peer, double *values) {
  values[0] = transform(peer, 8, 2);
  values[1] = transform(peer, 6, 3);
  values[2] = transform(peer, 4, 4);
}

/* ---- Sand ---- */

static void falling_sand(const struct peer *peer, double *values) {
  const struct sand_kind *kind = sand_kind_of(peer->question);
  static uint64_t expected;
  struct sand sand;
  values[0] = NAN;
  if (kind->is_long && peer->quick) return;
  if (!expected) expected = sand_expected(kind);
  if (!sand_init(&sand, kind)) peer_die("out of memory");
  int64_t start_ns = peer_now();
  for (int i = 0; i < kind->steps; i++) sand_step_serial(&sand);
  values[0] = peer_each(start_ns, 1) / 1e6;
  peer_check("grains", sand_checksum(&sand), expected);
  sand_free(&sand);
}

static const struct peer questions[] = {
    {.question = "forkjoin_fib", .metrics = {{"", "ns"}}, .run = forkjoin_fib},
    {.question = "work_stealing", .metrics = {{"", "ns"}, {"10k", "ns"}, {"1k", "ns"}}, .run = work_stealing},
    {.question = "job_producer_consumer",
     .metrics = {{"", "ns"}, {"100k", "ns"}, {"10k", "ns"}},
     .run = job_producer_consumer},
    {.question = "job_frame_alloc",
     .metrics = {{"", "ns"}, {"100k", "ns"}, {"10k", "ns"}, {"1k", "ns"}},
     .run = job_frame_alloc},
    {.question = "job_ep", .metrics = {{"", "ns"}, {"100k", "ns"}, {"10k", "ns"}}, .run = job_ep},
    {.question = "job_mg", .metrics = {{"", "ns"}, {"128", "ns"}, {"64", "ns"}}, .run = job_mg},
    {.question = "job_cg", .metrics = {{"", "ns"}, {"10k", "ns"}, {"1k", "ns"}}, .run = job_cg},
    {.question = "job_transform", .metrics = {{"", "us"}, {"6x3", "us"}, {"4x4", "us"}}, .run = job_transform},
    {.question = "sand_100k", .metrics = {{"", "ms"}}, .run = falling_sand},
    {.question = "sand_1m", .metrics = {{"", "ms"}}, .run = falling_sand},
    {.question = "sand_heavy", .metrics = {{"", "ms"}}, .run = falling_sand},
    {.question = "sand_heavy_1m", .metrics = {{"", "ms"}}, .run = falling_sand},
};

int main(int argc, char **argv) {
  const char *name = peer_option(&argc, argv, "--as");
  for (size_t i = 0; name && i < sizeof questions / sizeof questions[0]; i++) {
    struct peer peer = questions[i];
    peer.impl = "serial";
    if (strcmp(peer.question, name) == 0) return peer_main(argc, argv, &peer);
  }
  peer_die("--as QUESTION is needed");
}
