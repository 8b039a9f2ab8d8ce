/* Who fails leaves its frames at once, and with them the calls that would have ended a shield or a hold: the fiber that
 * went on behind coir_fork2, or behind a loop, could not be cancelled any more, and kept its worker for ever. */
#include "jobs.h"

static void fails(void *arg) {
  (void)arg;
  coir_shield_begin();
  coir_shield_begin();
  coir_hold_begin();
  coir_job_fail("with a shield");
}

static void fails_at_once(size_t lo, size_t hi, void *arg) {
  (void)lo, (void)hi;
  fails(arg);
}

static void nothing(void *arg) { (void)arg; }

/* Has been cancelled. Behind a shield it would not be told so. */
static void is_told(int rc) { CHECK_EQ(rc, -ECANCELED); }

static int fails_in_a_side(void *arg) {
  CHECK_EQ(coir_fork2(fails, arg, nothing, arg), -ECANCELED);
  CHECK_EQ(coir_cancel(coir_current()), 0);
  is_told(coir_sleep(COIR_SEC(20)));
  return 0;
}

static int fails_in_a_loop(void *arg) {
  CHECK_EQ(coir_parallel_range(NULL, 0, 100, 0, fails_at_once, arg), -ECANCELED);
  CHECK_EQ(coir_cancel(coir_current()), 0);
  is_told(coir_sleep(COIR_SEC(20)));
  return 0;
}

/* What was taken outside stays. */
static int keeps_its_own(void *arg) {
  coir_shield_begin();
  coir_hold_begin();
  CHECK_EQ(coir_fork2(fails, arg, nothing, arg), -ECANCELED);
  CHECK_EQ(coir_cancel(coir_current()), 0);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  coir_hold_end(); /* would abort if it had been given back */
  coir_shield_end();
  is_told(coir_sleep(COIR_SEC(20)));
  return 0;
}

static void a_shield_ends_with_its_frame(void) {
  CHECK_EQ(run(fails_in_a_side, NULL), 0);
  CHECK_EQ(run(fails_in_a_loop, NULL), 0);
}

static void one_from_before_stays(void) { CHECK_EQ(run(keeps_its_own, NULL), 0); }

/* ---- Held -------------------------------------------------------------------------------------------------------- */

static _Atomic(bool) others_ran;

static int runs_beside(void *arg) {
  (void)arg;
  atomic_store(&others_ran, true);
  return 0;
}

/* One worker: the other fiber runs only when the monitor may take it away from this one. */
static int computes_after_a_failure(void *arg) {
  CHECK_EQ(coir_fork2(fails, arg, nothing, arg), -ECANCELED);
  struct coir_fiber *f = spawn(runs_beside, NULL);
  SPIN_UNTIL(atomic_load(&others_ran));
  return join(f);
}

static void a_hold_ends_with_its_frame(void) {
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .busy_us = 1000}, computes_after_a_failure, NULL), 0);
}

/* ---- In jobs ----------------------------------------------------------------------------------------------------- */

static void fails_as_a_job(struct coir_job *job, void *arg) {
  (void)job;
  fails(arg);
}

static int is_cancelled(void *arg) {
  (void)arg;
  CHECK_EQ(coir_cancel(coir_current()), 0);
  is_told(coir_sleep(COIR_SEC(20)));
  return 0;
}

/* Whatever runs next on the same worker has nothing of it. */
static void the_next_job_is_not_shielded(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 1});
  for (int i = 0; i < 20; i++) {
    struct coir_fiber *f;
    finish_failed(coir_job_run(jobs, fails_as_a_job, NULL), 1);
    CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), is_cancelled, NULL, NULL, &f), 0);
    CHECK_EQ(join(f), 0);
  }
  end_jobs(jobs, 20);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(a_shield_ends_with_its_frame), CASE(one_from_before_stays),
                                     CASE(a_hold_ends_with_its_frame), CASE(the_next_job_is_not_shielded)};
  return RUN_CASES(argc, argv, cases);
}
