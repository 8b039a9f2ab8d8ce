/* What "Where unused stacks rest" in docs/stacks.md says of bursts: one that returns finds its stacks warm, and when
 * there has been nothing to do for a while their memory has gone back. */
#include <sys/resource.h>

#include "harness.h"

#define FIBERS 6000
#define PAGES 4
#define PAGE 4096

static struct coir_event gate;
static _Atomic(int) here;

static long resident_pages(void) {
  long all = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  CHECK(f && fscanf(f, "%ld %ld", &all, &resident) == 2);
  fclose(f);
  return resident;
}

static long faults(void) {
  struct rusage used;
  CHECK_EQ(getrusage(RUSAGE_SELF, &used), 0);
  return used.ru_minflt;
}

static int uses_its_stack(void *arg) {
  volatile char pages[(PAGES - 1) * PAGE];
  (void)arg;
  for (int i = 0; i < PAGES - 1; i++) pages[i * PAGE] = 1;
  atomic_fetch_add(&here, 1);
  CHECK_EQ(coir_event_wait(&gate, COIR_NEVER), 0);
  return pages[0];
}

static void burst(void) {
  static struct coir_fiber *fibers[FIBERS];
  atomic_store(&here, 0);
  coir_event_reset(&gate);
  for (int i = 0; i < FIBERS; i++) CHECK_EQ(coir_spawn(uses_its_stack, NULL, NULL, &fibers[i]), 0);
  while (atomic_load(&here) < FIBERS) coir_yield();
  coir_event_set(&gate);
  for (int i = 0; i < FIBERS; i++) CHECK_EQ(coir_join(fibers[i], NULL, COIR_NEVER), 0);
}

static int test(void *arg) {
  (void)arg;
  long before = resident_pages();
  burst();
  CHECK(resident_pages() - before > FIBERS * PAGES / 2); /* they are still warm */
  bool is_warm = false; /* once of several times: on a machine that is busy they may cool down in between */
  for (int i = 0; i < 10 && !is_warm; i++) {
    long faults_before = faults();
    burst();
    is_warm = faults() - faults_before < FIBERS;
  }
  CHECK(is_warm);
  int64_t end = coir_after(COIR_SEC(20));
  while (resident_pages() - before > FIBERS && coir_now() < end) CHECK_EQ(coir_sleep(COIR_MS(100)), 0);
  CHECK(resident_pages() - before <= FIBERS);
  return 0;
}

static void bursts_find_warm_stacks_which_go_back_later(void **state) {
  (void)state;
#if defined(COIR_HARD)
  skip(); /* hardly any are kept there */
#endif
  if (IS_SANITIZED) skip(); /* their own memory is in what is counted */
  CHECK_EQ(coir_run(test, NULL), 0);
}

int main(void) {
  const struct CMUnitTest cases[] = {cmocka_unit_test(bursts_find_warm_stacks_which_go_back_later)};
  return cmocka_run_group_tests(cases, NULL, NULL);
}
