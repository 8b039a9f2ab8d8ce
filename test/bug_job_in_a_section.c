/* What a job calls between coir_block_enter and coir_block_leave: it has no worker there. Spawning was taken for a call
 * from outside, and refused while the system shut down, which jobs are not; and with trace, waiting was a fault. */
#include "jobs.h"

static struct coir_job_system *jobs;
static tally is_inside, is_open, ran;

static void body(size_t i, void *arg) {
  (void)i;
  counts(NULL, arg);
}

/* The system shuts down meanwhile. */
static void spawns_all(void *job) {
  struct coir_job_desc three[] = {{.fn = counts, .arg = &ran},
                                  {.fn = counts, .arg = &ran},
                                  {.fn = counts, .arg = &ran, .priority = COIR_PRIORITY_HIGH}};
  struct coir_counter with;
  coir_counter_init(&with, 0);
  atomic_store(&is_inside, 1);
  WAIT_FOR(atomic_load(&is_open));
  CHECK_EQ(coir_job_spawn_detached(job, counts, &ran), 0);
  CHECK_EQ(coir_job_spawn_with(job, &with, counts, &ran), 0);
  CHECK_EQ(coir_counter_wait(&with, COIR_NEVER), 0);
  finish(coir_job_spawn(job, counts, &ran));
  finish(coir_job_spawn_many(job, three, 3));
  finish(coir_job_run(jobs, counts, &ran));
  CHECK_EQ(coir_job_submit(jobs, three, 3, NULL), 0);
  finish(coir_job_parallel_for(jobs, 0, 10, 1, body, &ran));
}

static void in_a_call(struct coir_job *job, void *arg) {
  (void)arg;
  CHECK_EQ(coir_block(spawns_all, job), 0);
}

static void between(struct coir_job *job, void *arg) {
  (void)arg;
  CHECK_EQ(coir_block_enter(), 0);
  spawns_all(job);
  coir_block_leave();
}

static void spawn_while_it_shuts_down(coir_job_fn fn) {
  jobs = make_jobs((struct coir_job_config){0});
  struct coir_counter *held = coir_job_run(jobs, fn, NULL);
  WAIT_FOR(atomic_load(&is_inside));
  CHECK_EQ(coir_job_system_shutdown(jobs, coir_after(COIR_MS(5))), -ETIMEDOUT);
  CHECK(!coir_job_run(jobs, counts, &ran)); /* it is shut */
  atomic_store(&is_open, 1);
  finish(held);
  end_jobs(jobs, 0);
  CHECK_EQ(ran, 1 + 1 + 1 + 3 + 1 + 3 + 10);
}

static void a_job_may_spawn_in_a_call_that_blocks(void) { spawn_while_it_shuts_down(in_a_call); }
static void a_job_may_spawn_in_a_section(void) { spawn_while_it_shuts_down(between); }

static void waits_in_a_call(void *job) {
  struct coir_counter *counter = coir_job_spawn(job, counts, &ran);
  coir_job_yield(job);
  CHECK_EQ(coir_job_wait(job, counter), 0);
  CHECK_EQ(coir_job_wait_yielding(job, counter), 0);
  coir_counter_unref(counter);
}

static void traced(struct coir_job *job, void *arg) {
  (void)arg;
  CHECK_EQ(coir_block(waits_in_a_call, job), 0);
  waits_in_a_call(job);
}

static void a_traced_job_may_wait_in_a_section(void) {
  jobs = make_jobs((struct coir_job_config){.trace = COIR_ON});
  finish(coir_job_run(jobs, traced, NULL));
  end_jobs(jobs, 0);
  CHECK_EQ(ran, 2);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(a_job_may_spawn_in_a_call_that_blocks), CASE(a_job_may_spawn_in_a_section),
                                     CASE(a_traced_job_may_wait_in_a_section)};
  return RUN_CASES(argc, argv, cases);
}
