/* csp_spawn_100k: create 100 000 goroutines of libcsp that only tell a wait group that they have ended, and wait for
 * all.
 *
 * A goroutine creates them, as Go's main does. The second figure, "outside", is that of a plain thread, such as main is
 * for libcsp: what it creates goes through a queue that all workers share, and they begin meanwhile. The rounds share
 * one process, and the first is a warm-up: the figure is that of a program that has created as many before.
 *
 * Per operation: wall time / goroutines. */
#include <pthread.h>

#include "goroutine.h"

#define GOROUTINES 100000
#define ROUNDS 20L /* of a run */

/* One creator's work. */
struct creation {
  long rounds;
  bool is_outside; /* the creator is no goroutine */
  int64_t elapsed_ns;
};

static void tell(void *ended) { csp_sync_waitgroup_done(ended); }

static void create(void *arg) {
  struct creation *c = arg;
  long before = goroutines_started();
  c->elapsed_ns = 0;
  for (long round = 0; round < c->rounds; round++) {
    csp_sync_waitgroup_t ended;
    int64_t start_ns = coir_now();
    csp_sync_waitgroup_init(&ended);
    csp_sync_waitgroup_add(&ended, GOROUTINES);
    for (long i = 0; i < GOROUTINES; i++) goroutine_create(tell, &ended);
    csp_sync_waitgroup_wait(&ended);
    c->elapsed_ns += coir_now() - start_ns;
    /* Who waits goes on when all have told it; on every worker one may not have returned yet. */
    int left = runtime_num_goroutines() - !c->is_outside;
    if (left > runtime_num_workers()) bench_die("%d goroutines are left", left);
  }
  bench_equal("goroutines started", goroutines_started() - before, c->rounds * GOROUTINES);
}

static void *create_outside(void *creation) {
  create(creation);
  return NULL;
}

static void run(const struct bench *b, double *values) {
  struct creation c = {.rounds = bench_count(b, ROUNDS)};
  pthread_t thread;
  goroutines_start(b);
  goroutine_run(create, &c);
  values[0] = (double)c.elapsed_ns / (double)(c.rounds * GOROUTINES);

  c.is_outside = true;
  bench_check("pthread_create", -pthread_create(&thread, NULL, create_outside, &c));
  bench_check("pthread_join", -pthread_join(thread, NULL));
  values[1] = (double)c.elapsed_ns / (double)(c.rounds * GOROUTINES);
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "csp_spawn_100k", .metrics = {{NULL, "ns", "lower"}, {"outside", "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
