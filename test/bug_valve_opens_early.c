/* A worker whose fiber slept inside the library, or in a section in which nobody may pause it, for a moment longer than
 * blocked_us counted as one that waits for a paused fiber. So all of those were let go at once, a thousand, it may be;
 * and until the last one had been paused again everybody else waited for a processor: seconds, after a wait of 50 us
 * for a lock. */
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
  for (int i = 0; i < HOGS; i++) {
    hogs[i] = (struct hog){.stop = &stop};
    fibers[i] = spawn(hog_run, &hogs[i]);
  }
  WAIT_FOR(all_have_begun());
  for (int i = 0; i < SECTIONS; i++) {
    coir_hold_begin();
    usleep(4000);
    int n = runnable_hogs();
    coir_hold_end();
    if (n > *(int *)most) *(int *)most = n;
    CHECK_EQ(coir_sleep(COIR_MS(10)), 0);
  }
  atomic_store(&stop, true);
  for (int i = 0; i < HOGS; i++) CHECK_EQ(join(fibers[i]), 0);
  return 0;
}

/* Meanwhile no hog's thread runs but that of the other worker, and those that are just being paused. */
static void a_short_wait_lets_nobody_go(void **state) {
  (void)state;
  if (!PAUSES_ARE_SURE) skip();
  int most = 0;
  struct coir_config config = PREEMPTIVE(2, 2000);
  config.blocked_us = 50;
  config.spares_max = HOGS + 16;
  CHECK_EQ(run_with(config, sleep_in_sections, &most), 0);
  if (most > HOGS / 3) fail_msg("%d of %d hogs ran at a time", most, HOGS);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_short_wait_lets_nobody_go)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
