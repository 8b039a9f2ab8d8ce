/* A worker with pinned fibers takes nobody who is paused. But when somebody was paused it was woken like any other that
 * slept, found nothing, and slept on, and those that may take the fiber slept beside it. It went on when something else
 * woke one of those: late, or never. */
#include "hogs.h"
#include "internal.h"

#define ALONE 16 /* turns that two fibers take without a pause: they run on two workers */

static struct coir_event event;
static struct coir_runtime *rt;

static int wait_pinned(void *unused) {
  (void)unused;
  return coir_event_wait(&event, COIR_NEVER);
}

static void spawn_on(int worker, bool pinned, coir_fn fn, void *arg) {
  struct coir_attr attr = {.worker = COIR_WORKER(worker), .pinned = pinned};
  CHECK_EQ(coir_runtime_spawn(rt, fn, arg, &attr, NULL), 0);
}

/* Worker 0 is woken before all others; and nobody does who is not meant to. */
static void start_with_pinned(struct coir_config config) {
  rt = make_runtime(config);
  CHECK_EQ(coir_runtime_start(rt), 0);
  spawn_on(0, true, wait_pinned, NULL);
  WAIT_FOR(atm_load_rlx(&rt->deep) == (uint32_t)rt->worker_count);
}

static void end(void) {
  coir_event_set(&event);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- All sleep ------------------------------------------------------------------------------------------------- */

static int fds[2];
static _Atomic(bool) is_going_to_block, is_next_over, is_over;

static int block_and_compute(void *unused) {
  char c;
  (void)unused;
  atomic_store(&is_going_to_block, true);
  CHECK_EQ(read(fds[0], &c, 1), 1);
  for (int64_t end_ns = hog_cpu_ns() + COIR_MS(100); hog_cpu_ns() < end_ns;) continue;
  atomic_store(&is_over, true);
  return 0;
}

static int be_next(void *unused) {
  (void)unused;
  atomic_store(&is_next_over, true);
  return 0;
}

/* The fiber has lost its worker while it was blocked, and is paused when it computes beside the workers. */
static void one_that_was_blocked_goes_on(void) {
  struct coir_config config = PREEMPTIVE(2, 2000);
  config.blocked_us = 1000;
  CHECK_EQ(pipe(fds), 0);
  start_with_pinned(config);
  spawn_on(1, false, block_and_compute, NULL);
  WAIT_FOR(atomic_load(&is_going_to_block));
  spawn_on(1, false, be_next, NULL);
  WAIT_FOR(atomic_load(&is_next_over));
  WAIT_FOR(atm_load_rlx(&rt->deep) == 2);
  CHECK_EQ(write(fds[1], "x", 1), 1);
  WAIT_FOR(atomic_load(&is_over));
  end();
}

/* ---- One is busy ----------------------------------------------------------------------------------------------- */

static _Atomic(bool) stop;
static _Atomic(uint64_t) turn;

/* Two of these wait for each other. */
static int take_turns(void *number) {
  while (!atomic_load(&stop))
    if (atomic_load(&turn) % 2 == (uint64_t)(uintptr_t)number) atomic_fetch_add(&turn, 1);
  return 0;
}

static bool both_run(void) {
  uint64_t pauses = stats_of(rt).preemptions, first = atomic_load(&turn);
  (void)coir_sleep(COIR_MS(1));
  WAIT_FOR(atomic_load(&turn) - first >= ALONE);
  return stats_of(rt).preemptions == pauses;
}

/* One of them is paused, and a worker that may take it is idle. */
static void one_beside_a_busy_worker_goes_on(void) {
  start_with_pinned((struct coir_config)PREEMPTIVE(3, 2000));
  for (uintptr_t i = 0; i < 2; i++) spawn_on(1, false, take_turns, (void *)i);
  WAIT_FOR(both_run());
  atomic_store(&stop, true);
  end();
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(one_that_was_blocked_goes_on), CASE(one_beside_a_busy_worker_goes_on)};
  return RUN_CASES(argc, argv, cases);
}
