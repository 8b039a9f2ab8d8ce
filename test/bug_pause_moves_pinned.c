/* A worker keeps its thread once pinned fibers were started on it, for these count on that thread's locals. But it took
 * paused fibers from their queue like any other, and when the turn of one comes the worker is given to the thread on
 * which that one stands. So the pinned fibers went on on a thread that was not theirs, and, because such a worker is
 * never taken away, not before the other one had come to its end. Where all workers keep their threads nobody takes
 * those that were paused before: then they have to go on without a worker. */
#include "hogs.h"

#define PAUSES 20

static _Atomic(bool) is_pinned, is_over;
static _Atomic(int) hogs_left;
static int64_t give_up;

static int be_pinned(void *unused) {
  (void)unused;
  int tid = hog_tid(), thread_changes = 0;
  atomic_store(&is_pinned, true);
  while (atomic_load(&hogs_left)) {
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    thread_changes += hog_tid() != tid;
  }
  return thread_changes;
}

static int hog_until_all_were_paused(void *unused) {
  (void)unused;
  while (stats_here().preemptions < PAUSES && coir_now() < give_up) hog_compute(10000);
  atomic_fetch_sub(&hogs_left, 1);
  return 0;
}

static int hogs_beside_a_pinned_fiber(void *unused) {
  (void)unused;
  struct coir_fiber *hogs[4];
  atomic_store(&hogs_left, 4);
  give_up = coir_after(COIR_SEC(20));
  struct coir_fiber *pinned =
      spawn_with((struct coir_attr){.worker = COIR_WORKER(0), .pinned = true}, be_pinned, NULL);
  WAIT_FOR(atomic_load(&is_pinned));
  for (int i = 0; i < 4; i++)
    hogs[i] = spawn_with((struct coir_attr){.worker = COIR_WORKER(1)}, hog_until_all_were_paused, NULL);
  for (int i = 0; i < 4; i++) join(hogs[i]);
  CHECK_EQ(join(pinned), 0);
  CHECK(stats_here().preemptions >= PAUSES);
  return 0;
}

static void the_pinned_keep_their_thread(void) {
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(2, 2000), hogs_beside_a_pinned_fiber, NULL), 0);
}

static int hog_until_over(void *unused) {
  (void)unused;
  SPIN_UNTIL(atomic_load(&is_over));
  return 0;
}

static int pin_the_only_worker(void *unused) {
  (void)unused;
  struct coir_fiber *hogs[3];
  for (int i = 0; i < 3; i++) hogs[i] = spawn(hog_until_over, NULL);
  SPIN_UNTIL(stats_here().preemptions >= 4); /* so one of the others is paused when this one runs */
  atomic_store(&hogs_left, 0);
  struct coir_fiber *pinned = spawn_with((struct coir_attr){.pinned = true}, be_pinned, NULL);
  atomic_store(&is_over, true);
  for (int i = 0; i < 3; i++) join(hogs[i]);
  return join(pinned);
}

static void the_paused_are_not_left_behind(void) {
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 2000), pin_the_only_worker, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(the_pinned_keep_their_thread),
      CASE(the_paused_are_not_left_behind),
  };
  return RUN_CASES(argc, argv, cases);
}
