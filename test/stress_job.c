/* Jobs under everything at once, and very many of them.
 *
 * usage: stress_job [seed] [seconds] [jobs]
 *
 * First, for some seconds: jobs, fibers and plain threads submit jobs of all kinds to two systems, wait for them or do
 * not, loop, fork, fail, block, and are cancelled. What is checked: every job that was taken ran once; counters say how
 * many have failed, and no more; loops and forks have done all of their work when they return; and the systems report
 * every failure in the end. Somebody who waits for ever shows as a timeout of the test.
 *
 * Then so many jobs, from inside and from outside (10^7 unless it is given; `make soak` runs 10^8): all run, and the
 * process does not grow once it has warmed up. */
#include "jobs.h"

#define SYSTEMS 2
#define ACTORS 6 /* of each kind */

static struct coir_job_system *systems[SYSTEMS];
static uint64_t seed;
static tally over;

/* Conservation: what was submitted, what ran, and what said that it fails. */
static _Atomic(uint64_t) submitted, ran, failed;
static _Atomic(uint64_t) acts;

struct actor {
  uint64_t rng;
  int number;
};

static uint64_t below(struct actor *a, uint64_t n) { return rng_next(&a->rng) % n; }
static struct coir_job_system *some_system(struct actor *a) { return systems[below(a, SYSTEMS)]; }
static struct coir_job_system *here_or(struct actor *a) {
  struct coir_job_system *here = coir_job_system_current();
  return here ? here : some_system(a);
}

/* ---- Jobs that do this and that ---------------------------------------------------------------------------------- */

/* What a job is to do, in its argument: how much, and how. */
static void one_job(struct coir_job *job, void *arg) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)arg), how = rng_next(&rng) % 32;
  atomic_fetch_add(&ran, 1);
  if (how == 0) (void)coir_sleep(COIR_US(rng_next(&rng) % 100));
  else if (how < 3) coir_job_yield(job);
  else if (how < 6) spin_for((int64_t)(rng_next(&rng) % 5000));
  else if (how == 6 && rng_next(&rng) % 16 == 0) usleep(2000); /* blocks its worker */
  if (how != 7 || rng_next(&rng) % 32) return;                 /* each failure is a line on stderr */
  atomic_fetch_add(&failed, 1);
  if (rng_next(&rng) % 2) coir_job_yield(job);
  coir_job_fail("stress");
}

static struct coir_job_desc some_job(struct actor *a, const struct coir_job_system *system) {
  struct coir_job_desc d = {.fn = one_job, .arg = (void *)(uintptr_t)rng_next(&a->rng)};
  uint64_t how = below(a, 12);
  if (how < 2) d.priority = (enum coir_priority)((int)below(a, 3) - 1);
  if (how == 2) d.worker = COIR_WORKER(below(a, (uint64_t)coir_job_system_workers(system)));
  if (how == 3) d.name = "stressed";
  return d;
}

static void submits_with_counter(struct actor *a) {
  struct coir_job_system *system = some_system(a);
  struct coir_job_desc list[64];
  struct coir_counter *counter = NULL;
  size_t n = 1 + below(a, below(a, 4) ? 4 : 64);
  for (size_t i = 0; i < n; i++) list[i] = some_job(a, system);
  CHECK_EQ(coir_job_submit(system, list, n, &counter), 0);
  atomic_fetch_add(&submitted, n);
  if (below(a, 4)) {
    int rc = -ETIMEDOUT;
    while (rc == -ETIMEDOUT || rc == -ECANCELED)
      rc = coir_counter_wait(counter, below(a, 2) ? COIR_NEVER : coir_after(COIR_US(below(a, 100))));
    CHECK(rc >= 0 && (size_t)rc <= n);
    CHECK_EQ(coir_counter_failures(counter), rc);
  }
  coir_counter_unref(counter);
}

static void submits_detached(struct actor *a) {
  struct coir_job_system *system = some_system(a);
  for (uint64_t n = below(a, 20); n > 0; n--) {
    struct coir_job_desc one = some_job(a, system);
    CHECK_EQ(coir_job_submit(system, &one, 1, NULL), 0);
    atomic_fetch_add(&submitted, 1);
  }
}

/* A counter in the frame, which goes with it. */
static void submits_to_frame(struct actor *a) {
  struct coir_counter in_frame, *counter = &in_frame;
  struct coir_job_system *system = some_system(a);
  coir_counter_init(counter, 0);
  for (uint64_t n = 1 + below(a, 5); n > 0; n--) {
    struct coir_job_desc one = some_job(a, system);
    CHECK_EQ(coir_job_submit(system, &one, 1, &counter), 0);
    atomic_fetch_add(&submitted, 1);
  }
  while (coir_counter_wait(counter, COIR_NEVER) < 0) {}
  memset(&in_frame, 0x5a, sizeof in_frame);
  __asm__ volatile("" : : "r"(&in_frame) : "memory");
}

struct payload {
  uint64_t check[20];
};

static void reads_payload(struct coir_job *job, void *payload) {
  struct payload *p = payload;
  if (p->check[0] % 4 == 0) coir_job_yield(job);
  for (int i = 0; i < 20; i++) CHECK_EQ(p->check[i], p->check[0] + (uint64_t)i);
  atomic_fetch_add(&ran, 1);
}

static void submits_payload(struct actor *a) {
  struct payload p = {{below(a, 1000)}};
  for (uint64_t i = 1; i < 20; i++) p.check[i] = p.check[0] + i;
  struct coir_counter *counter = coir_job_run_copy(some_system(a), reads_payload, &p, sizeof p);
  memset(&p, 0, sizeof p);
  CHECK(counter);
  atomic_fetch_add(&submitted, 1);
  coir_counter_unref(counter);
}

/* ---- Loops and forks --------------------------------------------------------------------------------------------- */

struct loop {
  tally count;
  uint64_t seed;
};

static void loop_body(size_t i, void *arg) {
  struct loop *loop = arg;
  uint64_t rng = rng_seed(loop->seed + i), how = rng_next(&rng) % 256;
  if (how < 2) coir_yield();
  else if (how == 2) (void)coir_sleep(COIR_US(rng_next(&rng) % 50));
  else if (how == 3 && rng_next(&rng) % 8 == 0) CHECK_EQ(coir_parallel_for(NULL, 0, 10, loop_body, arg), 0);
  atomic_fetch_add(&loop->count, 1);
  if (how == 3) atomic_fetch_add(&loop->count, 0);
}

static int loop_size(uint64_t loop_seed, size_t n) {
  int count = (int)n;
  for (size_t i = 0; i < n; i++) {
    uint64_t rng = rng_seed(loop_seed + i);
    if (rng_next(&rng) % 256 == 3 && rng_next(&rng) % 8 == 0) count += i < 10 ? 1 << 20 : loop_size(loop_seed, 10);
  }
  return count;
}

static void loops(struct actor *a) {
  struct loop loop = {.seed = rng_next(&a->rng)};
  size_t n = below(a, 500);
  while (loop_size(loop.seed, 10) != 10) loop.seed++; /* the first ten call no loops, so those of the others end */
  CHECK_EQ(coir_parallel_for(below(a, 2) ? here_or(a) : some_system(a), 0, n, loop_body, &loop), 0);
  CHECK_EQ(loop.count, loop_size(loop.seed, n));
}

struct tree {
  uint64_t seed;
  int depth;
  tally *leaves;
  bool may_fail;
};

static void grows(void *arg) {
  const struct tree *t = arg;
  uint64_t rng = t->seed, how = rng_next(&rng) % 128;
  if (how == 0) coir_yield();
  if (how == 1) (void)coir_sleep(COIR_US(20));
  if (how == 2 && t->may_fail) coir_job_fail("a tree");
  if (t->depth == 0) return (void)atomic_fetch_add(t->leaves, 1);
  struct tree left = {rng_next(&rng), t->depth - 1, t->leaves, t->may_fail};
  struct tree right = {rng_next(&rng), t->depth - 1, t->leaves, t->may_fail};
  (void)coir_fork2(grows, &left, grows, &right);
}

static void grows_job(struct coir_job *job, void *arg) {
  (void)job;
  grows(arg);
}

static void forks(struct actor *a) {
  tally leaves = 0;
  struct tree tree = {rng_next(&a->rng), 6, &leaves, below(a, 64) == 0};
  if (below(a, 2)) {
    struct coir_counter *done = coir_job_run(some_system(a), grows_job, &tree);
    int rc = -ECANCELED;
    while (rc < 0) rc = coir_counter_wait(done, COIR_NEVER);
    CHECK(rc == 0 ? leaves == 64 : rc == 1 && tree.may_fail);
    atomic_fetch_add(&failed, (uint64_t)rc);
    coir_counter_unref(done);
  } else {
    tree.may_fail = false;
    CHECK_EQ(coir_fork2(grows, &tree, grows, &tree), 0);
    CHECK_EQ(leaves, 128);
  }
}

static void index_body(size_t i, void *arg) {
  (void)i;
  atomic_fetch_add((tally *)arg, 1);
}

static void loops_of_jobs(struct actor *a) {
  tally count = 0;
  size_t n = below(a, 300);
  struct coir_counter *done = coir_job_parallel_for(some_system(a), 0, n, below(a, 40), index_body, &count);
  CHECK(done);
  while (coir_counter_wait(done, COIR_NEVER) < 0) {}
  CHECK_EQ(count, (int)n);
  coir_counter_unref(done);
}

static void sums(size_t lo, size_t hi, void *value, void *arg) {
  (void)arg;
  for (size_t i = lo; i < hi; i++) *(uint64_t *)value = *(uint64_t *)value * 31 + i;
  ((uint64_t *)value)[1] += hi - lo;
}

static uint64_t power(uint64_t n) {
  uint64_t p = 1, base = 31;
  for (; n; n /= 2, base *= base)
    if (n % 2) p *= base;
  return p;
}

static void appends(void *left, const void *right, void *arg) {
  uint64_t *l = left;
  const uint64_t *r = right;
  (void)arg;
  l[0] = l[0] * power(r[1]) + r[0];
  l[1] += r[1];
}

/* A hash by position: what is out of order shows. */
static void reduces(struct actor *a) {
  static const uint64_t nothing[2];
  const struct coir_monoid monoid = {sizeof nothing, nothing, sums, appends};
  uint64_t out[2], serial[2] = {0, 0};
  size_t n = below(a, 2000);
  CHECK_EQ(coir_parallel_reduce(here_or(a), 0, n, below(a, 2) * below(a, 50), &monoid, NULL, out), 0);
  sums(0, n, serial, NULL);
  CHECK(out[0] == serial[0] && out[1] == n);
}

/* ---- Scopes ------------------------------------------------------------------------------------------------------ */

static void waits_in_scope(struct coir_job *job, void *arg) {
  (void)job;
  (void)arg;
  int rc = coir_sleep(COIR_SEC(1000));
  CHECK_EQ(rc, -ECANCELED);
  atomic_fetch_add(&ran, 1);
}

static void cancels_a_scope(struct actor *a) {
  struct coir_scope *scope;
  uint64_t n = 1 + below(a, 10);
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  struct coir_job_desc one = {.fn = waits_in_scope, .scope = scope};
  for (uint64_t i = 0; i < n; i++) CHECK_EQ(coir_job_submit(some_system(a), &one, 1, NULL), 0);
  atomic_fetch_add(&submitted, n);
  if (below(a, 2)) (void)coir_sleep(COIR_US(below(a, 100)));
  coir_scope_cancel(scope, 0);
  CHECK_EQ(coir_scope_close(scope), -ECANCELED);
}

/* ---- Actors ------------------------------------------------------------------------------------------------------ */

static void act_once(struct actor *a) {
  static void (*const kinds[])(struct actor *) = {submits_with_counter,
                                                  submits_with_counter,
                                                  submits_detached,
                                                  submits_to_frame,
                                                  submits_payload,
                                                  loops,
                                                  forks,
                                                  loops_of_jobs,
                                                  reduces,
                                                  cancels_a_scope};
  kinds[below(a, sizeof kinds / sizeof *kinds)](a);
  atomic_fetch_add(&acts, 1);
}

static void acts_as_job(struct coir_job *job, void *arg) {
  (void)job;
  while (!over) act_once(arg);
}

static int acts_as_fiber(void *arg) {
  while (!over) act_once(arg);
  return 0;
}

static void *acts_as_thread(void *arg) {
  while (!over) act_once(arg);
  return NULL;
}

static void mix(int64_t seconds) {
  static struct actor actors[3][ACTORS];
  struct coir_counter *as_jobs[ACTORS];
  struct coir_fiber *as_fibers[ACTORS];
  pthread_t as_threads[ACTORS];
  for (int i = 0; i < SYSTEMS; i++)
    systems[i] = make_jobs((struct coir_job_config){.threads = i ? 2 : 0, .stack_bytes = 128 << 10});
  for (int i = 0; i < ACTORS; i++) {
    for (int kind = 0; kind < 3; kind++) actors[kind][i] = (struct actor){rng_seed(seed + (uint64_t)(i * 3 + kind)), i};
    CHECK((as_jobs[i] = coir_job_run(systems[i % SYSTEMS], acts_as_job, &actors[0][i])));
    CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(systems[i % SYSTEMS]), acts_as_fiber, &actors[1][i], NULL,
                                &as_fibers[i]),
             0);
    CHECK_EQ(pthread_create(&as_threads[i], NULL, acts_as_thread, &actors[2][i]), 0);
  }
  uint64_t rng = rng_seed(seed);
  for (int64_t end = coir_after(COIR_SEC(seconds)); coir_now() < end; (void)coir_sleep(COIR_US(rng_next(&rng) % 2000)))
    CHECK_EQ(coir_cancel(as_fibers[rng_next(&rng) % ACTORS]), 0);
  atomic_store(&over, 1);
  for (int i = 0; i < ACTORS; i++) {
    finish(as_jobs[i]);
    join(as_fibers[i]);
    CHECK_EQ(pthread_join(as_threads[i], NULL), 0);
  }
  int reported = 0;
  for (int i = 0; i < SYSTEMS; i++) {
    int rc = coir_job_system_shutdown(systems[i], COIR_NEVER);
    CHECK(rc >= 0);
    reported += rc;
    coir_job_system_destroy(systems[i]);
  }
  CHECK_EQ(ran, submitted);
  CHECK_EQ(reported, failed);
  fprintf(stderr, "%llu acts, %llu jobs, %llu failed\n", (unsigned long long)acts, (unsigned long long)ran,
          (unsigned long long)failed);
}

/* ---- Very many --------------------------------------------------------------------------------------------------- */

enum { WAVE = 20000 };

static long resident_kib(void) {
  long pages = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  CHECK(f && fscanf(f, "%ld %ld", &pages, &resident) == 2);
  fclose(f);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static _Atomic(uint64_t) done_by[64]; /* spread, so that they count without getting in each other's way */

static void is_one_of_many(struct coir_job *job, void *arg) {
  (void)job;
  if (((uintptr_t)arg & 4095) == 17) coir_yield();
  atomic_fetch_add_explicit(&done_by[(uintptr_t)arg & 63], 1, memory_order_relaxed);
}

static void makes_a_wave(struct coir_job *job, void *arg) {
  struct coir_counter all;
  (void)arg;
  coir_counter_init(&all, 0);
  for (uintptr_t i = 0; i < WAVE; i++) CHECK_EQ(coir_job_spawn_with(job, &all, is_one_of_many, (void *)i), 0);
  CHECK_EQ(coir_job_wait(job, &all), 0);
}

/* From outside, a few at a time. */
static void submit_a_wave(struct coir_job_system *jobs) {
  static struct coir_job_desc list[WAVE / 10];
  for (uintptr_t i = 0; i < WAVE / 10; i++) list[i] = (struct coir_job_desc){.fn = is_one_of_many, .arg = (void *)i};
  for (int i = 0; i < 10; i++) finish(coir_job_run_many(jobs, list, WAVE / 10));
}

static void very_many(uint64_t jobs_wanted) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  uint64_t waves = (jobs_wanted + WAVE - 1) / WAVE, sum = 0;
  long warm = 0;
  for (uint64_t i = 0; i < waves; i++) {
    if (i % 3 == 2) submit_a_wave(jobs);
    else finish(coir_job_run(jobs, makes_a_wave, NULL));
    if (i == waves / 5) warm = resident_kib();
  }
  long now = resident_kib();
  end_jobs(jobs, 0);
  for (int i = 0; i < 64; i++) sum += done_by[i];
  fprintf(stderr, "%llu jobs, %ld KiB resident when warm, %ld at the end\n", (unsigned long long)sum, warm, now);
  CHECK_EQ(sum, waves * WAVE);
  if (!IS_SANITIZED) CHECK(now - warm < 8192);
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  int64_t seconds = argc > 2 ? atoll(argv[2]) : 3;
  uint64_t jobs = argc > 3 ? strtoull(argv[3], NULL, 0) : IS_SANITIZED ? 100000 : 10000000;
  fprintf(stderr, "stress_job %llu %lld %llu\n", (unsigned long long)seed, (long long)seconds,
          (unsigned long long)jobs);
  mix(seconds);
  very_many(jobs);
  return 0;
}
