/* A worker whose sleep was ended by an event announced the fibers of that event while its own idle bit was still set,
 * and picked itself as the one to wake. Everybody relied on that search, which never looked at the worker's own queue:
 * the fibers ran one after the other on one worker while the others slept. */
#include "harness.h"

#include "coir_io.h"

#define READERS 5

static int fds[2];
static _Atomic(int) waiting, begun;

/* Computes until another one has begun, too: so there must be a second worker. */
static int reads(void *arg) {
  (void)arg;
  atomic_fetch_add(&waiting, 1);
  CHECK_EQ(coir_poll(fds[0], COIR_READABLE, COIR_NEVER), COIR_READABLE);
  atomic_fetch_add(&begun, 1);
  SPIN_UNTIL(atomic_load(&begun) >= 2);
  return 0;
}

static int idle_workers(struct coir_runtime *rt) {
  struct coir_stats s;
  coir_runtime_get_stats(rt, &s);
  return s.workers_idle;
}

/* All of them wait by the poller of worker `worker`. */
static void one_event_for_many(int worker) {
  CHECK_EQ(pipe(fds), 0);
  atomic_store(&waiting, 0);
  atomic_store(&begun, 0);
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_attr attr = {.worker = COIR_WORKER(worker)};
  struct coir_fiber *f[READERS];
  for (int i = 0; i < READERS; i++) CHECK_EQ(coir_runtime_spawn(rt, reads, NULL, &attr, &f[i]), 0);
  WAIT_FOR(atomic_load(&waiting) == READERS && idle_workers(rt) == 2);
  CHECK_EQ(coir_sleep(COIR_MS(200)), 0); /* until nobody watches any more */
  CHECK_EQ(write(fds[1], "x", 1), 1);
  for (int i = 0; i < READERS; i++) CHECK_EQ(join(f[i]), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  close(fds[0]);
  close(fds[1]);
}

static void an_event_of_the_first_worker_reaches_both(void **state) {
  (void)state;
  one_event_for_many(0);
}

static void an_event_of_the_last_worker_reaches_both(void **state) {
  (void)state;
  one_event_for_many(1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_event_of_the_first_worker_reaches_both),
      cmocka_unit_test(an_event_of_the_last_worker_reaches_both),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
