/* A loop without a grain runs as many indices at a time as took 10 us lately. When the first ones were light, that was
 * soon all of the rest: in one call, out of the reach of other workers, however heavy it was. And who took a part of
 * it began with as many at once. */
#include "jobs.h"

#define LENGTH 1000000
#define LIGHT 2000

/* ---- How much of the rest one call gets -------------------------------------------------------------------------- */

static tally calls, greedy;

static void light(size_t lo, size_t hi, void *arg) {
  (void)arg;
  atomic_fetch_add(&calls, 1);
  if (hi - lo > (LENGTH - lo) / 4 + 1) atomic_fetch_add(&greedy, 1);
}

static void sum_lightly(size_t lo, size_t hi, void *value, void *arg) {
  light(lo, hi, arg);
  *(size_t *)value += hi - lo;
}

static void add(void *left, const void *right, void *arg) {
  (void)arg;
  *(size_t *)left += *(const size_t *)right;
}

static void none_gets_most_of_the_rest(void) {
  static const size_t zero;
  const struct coir_monoid monoid = {sizeof zero, &zero, sum_lightly, add};
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  size_t sum = 0;
  CHECK_EQ(coir_parallel_range(jobs, 0, LENGTH, 0, light, NULL), 0);
  CHECK_EQ(coir_parallel_reduce(jobs, 0, LENGTH, 0, &monoid, NULL, &sum), 0);
  CHECK_EQ(sum, LENGTH);
  CHECK_EQ(greedy, 0);
  CHECK(calls > 2 * 8);
  end_jobs(jobs, 0);
}

/* ---- How much who takes a part begins with ----------------------------------------------------------------------- */

static _Atomic(struct coir_fiber *) owner;
static tally taken;
static size_t end_of_last, largest_first;

/* The first fiber goes on until it has come to heavy ones; then it waits until the other worker has taken two parts:
 * one half, and what is left of the other. */
static void held_when_heavy(size_t lo, size_t hi, void *arg) {
  struct coir_fiber *nobody = NULL, *me = coir_current();
  (void)arg;
  if (atomic_compare_exchange_strong(&owner, &nobody, me) || nobody == me) {
    if (lo >= LIGHT) SPIN_UNTIL(atomic_load(&taken) == 2);
    return;
  }
  if (atomic_load(&taken) == 2) return;
  bool begins = lo != end_of_last;
  end_of_last = hi;
  if (begins && hi - lo > largest_first) largest_first = hi - lo;
  if (begins) atomic_fetch_add(&taken, 1);
}

static void who_takes_a_part_begins_anew(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 2, .monitor = COIR_OFF});
  for (int round = 0; round < 20; round++) {
    atomic_store(&owner, NULL);
    atomic_store(&taken, 0);
    end_of_last = 0;
    CHECK_EQ(coir_parallel_range(jobs, 0, LENGTH, 0, held_when_heavy, NULL), 0);
    CHECK_EQ(taken, 2);
  }
  CHECK(largest_first <= 4);
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(none_gets_most_of_the_rest), CASE(who_takes_a_part_begins_anew)};
  return RUN_CASES(argc, argv, cases);
}
