/* A loop that lost its worker between two bodies offered what was left to nobody while the next one ran. Bodies that
 * waited for each other hung. The moment is that of a few instructions; here a fork begins in it, as the loop's do. */
#include "harness.h"

#include "coir_job.h"
#include "job.h"

static _Atomic(bool) is_taken;
static int ran;

static int takes_turn(void *unused) {
  (void)unused;
  atomic_store(&is_taken, true);
  return 0;
}

static void counts(void *unused) {
  (void)unused;
  ran++;
}

static void forks_without_worker(void *unused) {
  (void)unused;
  struct coir_fiber *other;
  struct coir__fork rest;
  atomic_store(&is_taken, false);
  CHECK_EQ(coir_spawn(takes_turn, NULL, NULL, &other), 0);
  while (!atomic_load(&is_taken)) usleep(1000); /* there is one worker: now this fiber has none */
  bool is_offered = coir__fork_begin(&rest, counts, NULL);
  CHECK(is_offered);
  if (coir__fork_end(&rest)) counts(NULL);
  CHECK_EQ(coir_join(other, NULL, COIR_NEVER), 0);
}

static int loops(void *unused) {
  (void)unused;
  for (int i = 0; i < 5; i++) CHECK_EQ(coir_fork2(forks_without_worker, NULL, counts, NULL), 0);
  return 0;
}

static void the_rest_is_on_offer(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .monitor = COIR_ON}, loops, NULL), 0);
  CHECK_EQ(ran, 10);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_rest_is_on_offer)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
