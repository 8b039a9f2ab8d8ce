/* A worker looks at its timers each so many dispatches, as fit 100 us at the pace of the last round. When fibers that
 * had been quick became slow, the dispatches that were left of that round took them: a timer came so much later. */
#include "harness.h"

#define ROUNDS 8
#define QUICK 5000
#define SLICES_MAX 1000

static _Atomic(int) slices; /* of 1 ms, since the timer was due */
static _Atomic(bool) is_awake;

static int quick_then_slow(void *arg) {
  int64_t due = *(int64_t *)arg;
  while (coir_now() < due - COIR_MS(1)) {
    for (int i = 0; i < QUICK; i++) coir_yield();
  }
  while (!atomic_load(&is_awake) && atomic_load(&slices) < SLICES_MAX) {
    int64_t end = coir_after(COIR_MS(1));
    while (coir_now() < end) continue;
    if (end > due) atomic_fetch_add(&slices, 1);
    coir_yield();
  }
  return 0;
}

static int test(void *arg) {
  (void)arg;
  int all = 0;
  for (int i = 0; i < ROUNDS; i++) {
    struct coir_fiber *pair[2];
    int64_t due = coir_after(COIR_MS(5));
    atomic_store(&slices, 0);
    atomic_store(&is_awake, false);
    for (int k = 0; k < 2; k++) CHECK_EQ(coir_spawn(quick_then_slow, &due, NULL, &pair[k]), 0);
    CHECK_EQ(coir_sleep_until(due), 0);
    atomic_store(&is_awake, true);
    all += atomic_load(&slices);
    for (int k = 0; k < 2; k++) CHECK_EQ(coir_join(pair[k], NULL, COIR_NEVER), 0);
  }
  CHECK(all < ROUNDS * 40); /* a look of the monitor away; without it half a round, 128 */
  return 0;
}

static void a_timer_comes_when_fibers_become_slow(void **state) {
  (void)state;
  struct coir_config config = {.size = sizeof config, .workers = 1};
  CHECK_EQ(coir_configure(&config), 0);
  CHECK_EQ(coir_run(test, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {cmocka_unit_test(a_timer_comes_when_fibers_become_slow)};
  (void)argc, (void)argv;
  return cmocka_run_group_tests(cases, NULL, NULL);
}
