/* Thieves leave the oldest fiber of a queue, and count in a few bits how many behind it they have taken. Once, when
 * those were used up, nothing could be taken any more from a worker that computes: 4095 of these fibers ran, and no
 * more. */
#include "harness.h"

#define FIBERS (IS_SANITIZED ? 6000 : 20000) /* the gap had room for 4095 */

static _Atomic(int) done;

static int adds(void *arg) {
  (void)arg;
  atomic_fetch_add(&done, 1);
  return 0;
}

/* Others take what stands behind the oldest, and after a while, where lone fibers may be taken, the oldest as well. */
static int spawns_and_computes(void *least) {
  for (int i = 0; i < FIBERS; i++) CHECK_EQ(coir_go(adds, NULL), 0);
  SPIN_UNTIL(atomic_load(&done) >= (int)(intptr_t)least);
  return 0;
}

static void all_are_taken(void **state) {
  (void)state;
  atomic_store(&done, 0);
  CHECK_EQ(run_with((struct coir_config){.workers = 2}, spawns_and_computes, (void *)(intptr_t)FIBERS), 0);
}

static void all_but_the_oldest(void **state) {
  (void)state;
  atomic_store(&done, 0);
  struct coir_config config = {.workers = 2, .steal_min_victim = 2};
  CHECK_EQ(run_with(config, spawns_and_computes, (void *)(intptr_t)(FIBERS - 1)), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(all_are_taken), cmocka_unit_test(all_but_the_oldest)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
