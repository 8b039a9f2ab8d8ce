/* coir_config.on_thread: each sentence that coir.h has about it. */
#include "hogs.h"

#define WORKERS 3

/* What threads were told last; each has a number of its own. */
#define THREADS_MAX 4096
static _Atomic(int) told_to[THREADS_MAX], threads;
static _Atomic(int) times[THREADS_MAX][WORKERS]; /* how often each was told of each worker */
static _Thread_local int thread_number = -1;

static __attribute__((noinline)) int this_thread(void) {
  __asm__ volatile("");
  return thread_number;
}

/* -1: the thread was not told anything. */
static int told(void) {
  int number = this_thread();
  return number < 0 ? -1 : atomic_load(&told_to[number]);
}

static _Atomic(int) calls[WORKERS]; /* for each worker */
static _Atomic(int) moved;          /* threads that were told of another worker than before */
static _Atomic(int) on_fibers;      /* calls on something that was a fiber */

static void on_thread(int worker, void *arg) {
  CHECK(arg == calls);
  CHECK(worker >= 0 && worker < WORKERS);
  if (coir_current()) atomic_fetch_add(&on_fibers, 1);
  if (thread_number < 0) {
    thread_number = atomic_fetch_add(&threads, 1);
    CHECK(thread_number < THREADS_MAX);
  } else if (atomic_load(&told_to[thread_number]) != worker) {
    atomic_fetch_add(&moved, 1);
  }
  atomic_store(&told_to[thread_number], worker);
  atomic_fetch_add(&times[thread_number][worker], 1);
  atomic_fetch_add(&calls[worker], 1);
}

static struct coir_config config_of(int workers) {
  for (int i = 0; i < WORKERS; i++) atomic_store(&calls[i], 0);
  atomic_store(&moved, 0);
  atomic_store(&on_fibers, 0);
  return (struct coir_config){.workers = workers, .on_thread = on_thread, .on_thread_arg = calls};
}

static int check_where(void *worker) {
  CHECK_EQ(coir_worker_index(), (intptr_t)worker);
  CHECK_EQ(told(), (intptr_t)worker);
  return 0;
}

static void each_worker_is_told_of(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime(config_of(WORKERS));
  for (int round = 0; round < 2; round++) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    for (intptr_t i = 0; i < WORKERS; i++) {
      struct coir_fiber *f = NULL;
      struct coir_attr attr = {.worker = COIR_WORKER(i), .pinned = true};
      CHECK_EQ(coir_runtime_spawn(rt, check_where, (void *)i, &attr, &f), 0);
      CHECK_EQ(join(f), 0);
    }
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
    for (int i = 0; i < WORKERS; i++) CHECK_EQ(atomic_load(&calls[i]), round + 1);
  }
  CHECK_EQ(atomic_load(&on_fibers), 0);
  CHECK_EQ(told(), -1);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int block_and_yield(void *unused) {
  (void)unused;
  CHECK_EQ(coir_worker_index(), 0);
  CHECK_EQ(told(), -1);
  CHECK_EQ(coir_block_enter(), 0); /* now worker 0 is on another thread */
  WAIT_FOR(atomic_load(&calls[0]) == 1);
  coir_block_leave();
  CHECK_EQ(told(), 0);
  return 0;
}

static void the_callers_thread_is_not_told(void **state) {
  (void)state;
  struct coir_config config = config_of(1);
  config.monitor = COIR_OFF; /* it might give the worker away once more */
  run_with(config, block_and_yield, NULL);
  CHECK_EQ(atomic_load(&calls[0]), 1);
  CHECK_EQ(told(), -1);
}

/* ---- Workers that go on elsewhere ------------------------------------------------------------------------------ */

static _Atomic(bool) is_enough;

static int block_often(void *seed) {
  uint64_t rng = rng_seed((uint64_t)(intptr_t)seed);
  while (!atomic_load(&is_enough)) {
    CHECK_EQ(told(), coir_worker_index());
    CHECK_EQ(coir_block_enter(), 0);
    usleep((useconds_t)(rng_next(&rng) % 200));
    coir_block_leave();
    CHECK_EQ(told(), coir_worker_index());
    CHECK_EQ(coir_sleep(COIR_US(rng_next(&rng) % 200)), 0);
  }
  return 0;
}

/* A spare carries now one worker and now another, and is told each time, before fibers run there. */
static void spares_are_told(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime(config_of(WORKERS));
  struct coir_fiber *fibers[8];
  atomic_store(&is_enough, false);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (intptr_t i = 0; i < 8; i++) CHECK_EQ(coir_runtime_spawn(rt, block_often, (void *)i, NULL, &fibers[i]), 0);
  WAIT_FOR(atomic_load(&moved) >= 100);
  atomic_store(&is_enough, true);
  for (int i = 0; i < 8; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&on_fibers), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- Paused fibers --------------------------------------------------------------------------------------------- */

/* Computes until its thread has another worker than it was told of, and then waits: the thread is told. */
static int go_on_elsewhere(void *unused) {
  (void)unused;
  bool is_elsewhere = false;
  while (!is_elsewhere && !atomic_load(&is_enough)) {
    SPIN_UNTIL(told() != coir_worker_index() || atomic_load(&is_enough));
    coir_hold_begin(); /* from here on the worker stays */
    is_elsewhere = told() != coir_worker_index();
    if (!is_elsewhere) coir_hold_end();
  }
  if (!is_elsewhere) return 0;
  _Atomic(int) *here = &times[this_thread()][coir_worker_index()];
  int before = atomic_load(here);
  atomic_store(&is_enough, true);
  WAIT_FOR(atomic_load(here) > before);
  coir_hold_end();
  return 0;
}

/* Which worker takes up a paused fiber is a matter of chance, and of time. */
static void paused_fibers_bring_another_worker(void **state) {
  (void)state;
  struct coir_config config = config_of(2), preemptive = PREEMPTIVE(2, 1000);
  preemptive.on_thread = config.on_thread;
  preemptive.on_thread_arg = config.on_thread_arg;
  struct coir_runtime *rt = make_runtime(preemptive);
  struct coir_fiber *fibers[5];
  atomic_store(&is_enough, false);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 5; i++) CHECK_EQ(coir_runtime_spawn(rt, go_on_elsewhere, NULL, NULL, &fibers[i]), 0);
  for (int i = 0; i < 5; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK(atomic_load(&is_enough));
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&on_fibers), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_worker_is_told_of),
      cmocka_unit_test(the_callers_thread_is_not_told),
      cmocka_unit_test(spares_are_told),
      cmocka_unit_test(paused_fibers_bring_another_worker),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
