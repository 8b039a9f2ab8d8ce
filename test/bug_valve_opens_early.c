/* A valve lets all paused fibers go at once, a thousand, it may be: until the last one has been paused again everybody
 * else waits for a processor, for seconds. It was opened without need.
 *
 * - A worker whose fiber slept inside the library, or in a section in which nobody may pause it, for a moment longer
 *   than blocked_us counted as one that waits for a paused fiber: after a wait of 50 us for a lock.
 * - So did one with a pinned fiber that slept, for as long as it slept, though other workers gave the paused turns.
 * - Where all threads were in use one worker's wish for a further one looked to another as if it was on its way; and
 *   one that does not come means that who is to make it waits for a paused fiber. */
#include "hogs.h"

#define HOGS 24
#define SECTIONS 50

static struct hog hogs[HOGS];
static _Atomic(bool) stop;

static int runnable_hogs(void) {
  int n = 0;
  for (int i = 0; i < HOGS; i++) n += hog_is_runnable(atomic_load(&hogs[i].tid));
  return n;
}

static bool all_have_begun(void) {
  for (int i = 0; i < HOGS; i++)
    if (atomic_load(&hogs[i].turns) == 0) return false;
  return true;
}

static int sleep_in_sections(void *most) {
  struct coir_fiber *fibers[HOGS];
  hogs_spawn(hogs, fibers, HOGS, &stop);
  WAIT_FOR(all_have_begun());
  for (int i = 0; i < SECTIONS; i++) {
    coir_hold_begin();
    usleep(4000);
    int n = runnable_hogs();
    coir_hold_end();
    if (n > *(int *)most) *(int *)most = n;
    CHECK_EQ(coir_sleep(COIR_MS(10)), 0);
  }
  hogs_join(fibers, HOGS, &stop);
  return 0;
}

static void let_nobody_go(struct coir_config config, coir_fn fn, int limit) {
  int most = 0;
  if (!PAUSES_ARE_SURE) skip();
  CHECK_EQ(run_with(config, fn, &most), 0);
  if (most > limit) fail_msg("%d of %d hogs ran at a time", most, HOGS);
}

/* Meanwhile no hog's thread runs but that of the other worker, and those that are just being paused. */
static void a_short_wait_lets_nobody_go(void **state) {
  (void)state;
  struct coir_config config = PREEMPTIVE(2, 2000);
  config.blocked_us = 50;
  config.spares_max = HOGS + 16;
  let_nobody_go(config, sleep_in_sections, HOGS / 3);
}

/* How many there are at a time, time and again. */
static void *sample(void *most) {
  for (int i = 0; i < 50; i++) {
    usleep(10000);
    int n = runnable_hogs();
    if (n > *(int *)most) *(int *)most = n;
  }
  return NULL;
}

static int sleep_pinned(void *unused) {
  WAIT_FOR(all_have_begun());
  usleep(600000);
  return unused != NULL;
}

/* They have their turns on the other worker: where pinned fibers are nobody is paused who has begun there. */
static int pinned_beside_hogs(void *most) {
  struct coir_fiber *fibers[HOGS];
  struct coir_attr pinned = {.worker = COIR_WORKER(0), .pinned = true}, beside = {.worker = COIR_WORKER(1)};
  pthread_t thread;
  atomic_store(&stop, false);
  struct coir_fiber *sleeper = spawn_with(pinned, sleep_pinned, NULL);
  for (int i = 0; i < HOGS; i++) {
    hogs[i] = (struct hog){.stop = &stop};
    fibers[i] = spawn_with(beside, hog_run, &hogs[i]);
  }
  WAIT_FOR(all_have_begun());
  CHECK_EQ(pthread_create(&thread, NULL, sample, most), 0);
  CHECK_EQ(join(sleeper), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  hogs_join(fibers, HOGS, &stop);
  return 0;
}

static void a_pinned_one_lets_nobody_go(void **state) {
  (void)state;
  struct coir_config config = PREEMPTIVE(2, 2000);
  config.blocked_us = 1000;
  config.spares_max = HOGS + 16;
  let_nobody_go(config, pinned_beside_hogs, HOGS / 3);
}

static void *sample_and_end(void *most) {
  usleep(200000);
  sample(most);
  atomic_store(&stop, true);
  return NULL;
}

/* Those that run go on then, and those that have no thread wait until there is one: fibers that sleep, too. */
static int more_hogs_than_threads(void *most) {
  struct coir_fiber *fibers[HOGS];
  pthread_t thread;
  hogs_spawn(hogs, fibers, HOGS, &stop);
  CHECK_EQ(pthread_create(&thread, NULL, sample_and_end, most), 0);
  for (int i = 0; i < HOGS; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 0;
}

static void a_lack_of_threads_lets_nobody_go(void **state) {
  (void)state;
  struct coir_config config = PREEMPTIVE(2, 2000);
  config.spares_max = 8;
  let_nobody_go(config, more_hogs_than_threads, 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_short_wait_lets_nobody_go),
                                     cmocka_unit_test(a_pinned_one_lets_nobody_go),
                                     cmocka_unit_test(a_lack_of_threads_lets_nobody_go)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
