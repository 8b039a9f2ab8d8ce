/* Who has waited for a counter in its own memory may let that go. Of several who waited each looked once more, when it
 * was its turn, how many jobs had failed: after the first of them had let the counter go. */
#include "jobs.h"

#define WAITERS 8

static struct coir_counter *counter;
static tally waiting;

/* The first one overwrites it. */
static int waits_and_lets_go(void *arg) {
  (void)arg;
  atomic_fetch_add(&waiting, 1);
  int rc = coir_counter_wait(counter, COIR_NEVER);
  if (counter) memset(counter, 0x55, sizeof *counter);
  free(counter);
  counter = NULL;
  return rc;
}

static int several_wait(void *arg) {
  struct coir_fiber *f[WAITERS];
  (void)arg;
  counter = malloc(sizeof *counter);
  CHECK(counter);
  coir_counter_init(counter, 1);
  for (int i = 0; i < WAITERS; i++) f[i] = spawn(waits_and_lets_go, NULL);
  WAIT_FOR(atomic_load(&waiting) == WAITERS);
  CHECK(coir_counter_done(counter));
  for (int i = 0; i < WAITERS; i++) CHECK_EQ(join(f[i]), 0);
  return 0;
}

static void nobody_reads_it_any_more(void) {
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, several_wait, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(nobody_reads_it_any_more)};
  return RUN_CASES(argc, argv, cases);
}
