/* monitor_cost: what the monitor costs those whom it watches.
 *
 * The same work in turns, A B B A ..., on a runtime with the monitor and on one without it; each is made and started
 * for its turn. yield: 2 fibers per worker yield to each other, as in yield_2. echo: 8 pairs of fibers per worker send
 * 64 bytes to and fro over two pipes, so that each wait goes through the poller.
 *
 * The median of (time of a turn with the monitor / time of the turn without it). Some five thousandths of one run are
 * noise, which the median of several runs halves. */
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"
#include "coir_io.h"

#define TURNS 300 /* of each kind; even */
#define YIELDS 500000L
#define PAIRS 8
#define ROUND_TRIPS 500L
#define BYTES 64

enum { YIELD, ECHO, RATIOS };

struct work {
  int workers;
  _Atomic(long) arrived;
  _Atomic(bool) is_open;
  int64_t elapsed_ns;
};

/* A pair's pipes; [0] is for reading, [1] for writing. */
struct pipes {
  int there[2], back[2];
};

/* ---- The work -------------------------------------------------------------------------------------------------- */

static int yielder(void *arg) {
  struct work *work = arg;
  atomic_fetch_add(&work->arrived, 1);
  while (!atomic_load(&work->is_open)) coir_yield();
  for (long i = YIELDS; i > 0; i--) coir_yield();
  return 0;
}

static int yields(void *arg) {
  struct work *work = arg;
  int count = 2 * work->workers;
  struct coir_fiber *fibers[2 * 64];
  for (int i = 0; i < count; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % work->workers)};
    fibers[i] = bench_spawn(yielder, work, &attr);
  }
  while (atomic_load(&work->arrived) < count) coir_yield();
  int64_t start_ns = coir_now();
  atomic_store(&work->is_open, true);
  for (int i = 0; i < count; i++) bench_join(fibers[i]);
  work->elapsed_ns = coir_now() - start_ns;
  return 0;
}

static void must_transfer(ssize_t got) {
  if (got != BYTES) bench_die("pipe: %ld bytes, not %d", (long)got, BYTES);
}

static int answer(void *arg) {
  const struct pipes *p = arg;
  char bytes[BYTES];
  for (long i = ROUND_TRIPS; i > 0; i--) {
    must_transfer(coir_read_full(p->there[0], bytes, BYTES, COIR_NEVER));
    must_transfer(coir_write_full(p->back[1], bytes, BYTES, COIR_NEVER));
  }
  return 0;
}

static int ask(void *arg) {
  const struct pipes *p = arg;
  char bytes[BYTES] = {0};
  for (long i = ROUND_TRIPS; i > 0; i--) {
    must_transfer(coir_write_full(p->there[1], bytes, BYTES, COIR_NEVER));
    must_transfer(coir_read_full(p->back[0], bytes, BYTES, COIR_NEVER));
  }
  return 0;
}

static void open_pipe(int ends[2]) {
  if (pipe(ends) != 0) bench_die("pipe failed");
  for (int i = 0; i < 2; i++) bench_check("coir_adopt", coir_adopt(ends[i]));
}

static void close_pipe(const int ends[2]) {
  for (int i = 0; i < 2; i++) bench_check("coir_close", coir_close(ends[i]));
}

static int echoes(void *arg) {
  struct work *work = arg;
  int count = PAIRS * work->workers;
  struct coir_fiber *askers[PAIRS * 64], *answerers[PAIRS * 64];
  struct pipes *pipes = bench_alloc(count * sizeof pipes[0]);
  for (int i = 0; i < count; i++) open_pipe(pipes[i].there), open_pipe(pipes[i].back);
  int64_t start_ns = coir_now();
  for (int i = 0; i < count; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % work->workers)};
    answerers[i] = bench_spawn(answer, &pipes[i], &attr);
    askers[i] = bench_spawn(ask, &pipes[i], &attr);
  }
  for (int i = 0; i < count; i++) bench_join(askers[i]), bench_join(answerers[i]);
  work->elapsed_ns = coir_now() - start_ns;
  for (int i = 0; i < count; i++) close_pipe(pipes[i].there), close_pipe(pipes[i].back);
  free(pipes);
  return 0;
}

static const coir_fn works[RATIOS] = {[YIELD] = yields, [ECHO] = echoes};

/* ---- Turns ----------------------------------------------------------------------------------------------------- */

/* The runtimes of all turns are made alike, most likely in the same memory: none has the luck of a better place. */
static double time_of(const struct bench *b, coir_fn fn, int monitor) {
  struct work work = {.workers = b->workers};
  struct coir_config config = {.size = sizeof config, .workers = b->workers, .monitor = monitor};
  struct coir_runtime *rt;
  struct coir_fiber *fiber;
  bench_check("coir_runtime_create", coir_runtime_create(&rt, &config));
  bench_check("coir_runtime_start", coir_runtime_start(rt));
  bench_check("coir_runtime_spawn", coir_runtime_spawn(rt, fn, &work, NULL, &fiber));
  bench_join(fiber);
  bench_check("coir_runtime_stop", coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER));
  bench_check("coir_runtime_destroy", coir_runtime_destroy(rt));
  return (double)work.elapsed_ns;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void run(const struct bench *b, double *values) {
  long turns = bench_count(b, TURNS);
  double ratios[TURNS];
  for (int r = 0; r < RATIOS; r++) {
    for (long t = 0; t < turns; t++) {
      bool is_first = t % 2; /* the one with the monitor */
      double one_ns = time_of(b, works[r], is_first ? COIR_ON : COIR_OFF);
      double other_ns = time_of(b, works[r], is_first ? COIR_OFF : COIR_ON);
      ratios[t] = is_first ? one_ns / other_ns : other_ns / one_ns;
    }
    qsort(ratios, turns, sizeof ratios[0], compare);
    values[r] = ratios[turns / 2];
  }
}

int main(int argc, char **argv) {
  struct bench b = {.question = "monitor_cost",
                    .metrics = {{"yield", "x", "lower"}, {"echo", "x", "lower"}},
                    .run = run,
                    .is_fresh = true};
  setenv("COIR_MONITOR", "0", 1); /* of the runtime that only waits */
  return bench_main(argc, argv, &b);
}
