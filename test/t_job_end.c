/* The ends of jobs and of systems: failures, shutdown, several systems at once. */
#include "jobs.h"

static void answers(struct coir_job *job, void *out) {
  CHECK(job);
  *(int *)out = 42;
}

static void counts_index(size_t i, void *n) {
  (void)i;
  atomic_fetch_add((tally *)n, 1);
}

/* ---- Failures ---------------------------------------------------------------------------------------------------- */

static void __attribute__((noinline)) fails_deep(int depth) {
  volatile char frame[64];
  frame[0] = (char)depth;
  if (depth > 0) fails_deep(depth - 1);
  if (frame[0] == 0) coir_job_fail("out of %s %d", "luck", 7);
}

static void fails(struct coir_job *job, void *arg) {
  if ((intptr_t)arg == 1) coir_job_yield(job);
  if ((intptr_t)arg == 2) (void)coir_sleep(COIR_US(100));
  fails_deep(20);
}

static void a_failed_job_counts_down(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  for (intptr_t how = 0; how < 3; how++) {
    struct coir_counter *failed = coir_job_run(jobs, fails, (void *)how);
    CHECK_EQ(coir_counter_wait(failed, coir_after(COIR_SEC(10))), 1);
    finish_failed(failed, 1);
  }
  end_jobs(jobs, 3);
}

static void the_worker_goes_on_after_a_failure(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 1});
  for (intptr_t i = 0; i < 100; i++) {
    tally n = 0;
    struct coir_counter *failed = coir_job_run(jobs, fails, (void *)(i % 3));
    struct coir_counter *next = coir_job_run(jobs, counts, &n);
    CHECK_EQ(coir_counter_wait(next, coir_after(COIR_SEC(10))), 0);
    coir_counter_unref(next);
    finish_failed(failed, 1);
  }
  end_jobs(jobs, 100);
}

static void failures_among_many_are_counted(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  tally n = 0;
  struct coir_job_desc list[60];
  for (intptr_t i = 0; i < 60; i++)
    list[i] = i % 3 ? (struct coir_job_desc){.fn = counts, .arg = &n}
                    : (struct coir_job_desc){.fn = fails, .arg = (void *)(i % 9 / 3)};
  finish_failed(coir_job_run_many(jobs, list, 60), 20);
  CHECK_EQ(n, 40);
  CHECK_EQ(coir_job_submit(jobs, &(struct coir_job_desc){.fn = fails}, 1, NULL), 0); /* that nobody waits for */
  end_jobs(jobs, 21);
}

static void waits_for_one_that_fails(struct coir_job *job, void *out) {
  struct coir_counter *failed = coir_job_spawn(job, fails, (void *)2);
  CHECK_EQ(coir_job_wait(job, failed), 1);
  CHECK_EQ(coir_job_wait_yielding(job, failed), 1);
  finish_failed(failed, 1);
  answers(job, out);
}

static void who_waits_is_told_of_failures(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  int value = 0;
  finish(coir_job_run(jobs, waits_for_one_that_fails, &value));
  CHECK_EQ(value, 42);
  end_jobs(jobs, 1);
}

static void fails_in_a_child(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  finish_failed(coir_job_run(jobs, fails, NULL), 1);
  end_jobs(jobs, 1);
}

static void a_failure_is_written_to_stderr(void) {
  char text[1000];
  int status = in_child_process(fails_in_a_child, text, sizeof text);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(strstr(text, "coir: job failed: out of luck 7\n"));
}

static void fails_on_a_thread(void) { coir_job_fail("nowhere"); }

static int fails_on_fiber(void *arg) {
  (void)arg;
  coir_job_fail("nowhere");
}

static void fails_on_a_fiber(void) { (void)coir_run(fails_on_fiber, NULL); }

static void destroys_its_own(struct coir_job *job, void *arg) {
  (void)arg;
  coir_job_system_destroy(coir_job_system_of(job));
}

static void destroys_in_a_job(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  finish(coir_job_run(jobs, destroys_its_own, NULL));
}

static void exits(struct coir_job *job, void *arg) {
  (void)job;
  (void)arg;
  coir_exit(0, NULL);
}

/* A job ends by returning or failing: its fiber may have others to run. */
static void exits_in_a_job(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  finish(coir_job_run(jobs, exits, NULL));
}

static void what_is_fatal_aborts(void) {
  void (*const fatal[])(void) = {fails_on_a_thread, fails_on_a_fiber, destroys_in_a_job, exits_in_a_job};
  for (int i = 0; i < 4; i++) {
    char text[4000];
    int status = in_child_process(fatal[i], text, sizeof text);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(text, "coir: "));
  }
}

/* ---- The end of a system ----------------------------------------------------------------------------------------- */

WITH_JOBS(shutdown_waits_for_what_runs) {
  tally n = 0;
  for (int i = 0; i < 10; i++) coir_counter_unref(coir_job_run(jobs, takes_10_ms, &n));
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(n, 10);
}

/* Jobs that nobody waits for spawn others while the system ends: all run, and only jobs may still submit. */
WITH_JOBS(shutdown_waits_for_all_that_comes_of_it) {
  tally left = 500, n = 0;
  coir_counter_unref(coir_job_run(jobs, goes_on, &left));
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(left, -1);
  CHECK_EQ(coir_job_submit(jobs, &(struct coir_job_desc){.fn = counts, .arg = &n}, 1, NULL), -ESHUTDOWN);
  CHECK(coir_job_run(jobs, counts, &n) == NULL);
  CHECK(coir_job_parallel_for(jobs, 0, 10, 1, counts_index, &n) == NULL);
  CHECK_EQ(coir_parallel_for(jobs, 0, 10, counts_index, &n), -ESHUTDOWN);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(coir_job_system_shutdown(jobs, 0), 0);
  CHECK_EQ(n, 0);
}

static void waits_for_gate(struct coir_job *job, void *arg) {
  struct gate *gate = arg;
  (void)job;
  atomic_store(&gate->is_held, 1);
  WAIT_FOR(gate->is_open);
}

static void submits_when_let(struct coir_job *job, void *arg) {
  tally *n = ((void **)arg)[1];
  waits_for_gate(job, ((void **)arg)[0]);
  CHECK_EQ(coir_job_submit(coir_job_system_of(job), &(struct coir_job_desc){.fn = counts, .arg = n}, 1, NULL), 0);
  finish(coir_job_run(coir_job_system_of(job), counts, n));
  CHECK_EQ(coir_parallel_for(coir_job_system_of(job), 0, 100, counts_index, n), 0);
}

WITH_JOBS(shutdown_may_time_out_and_be_asked_again) {
  struct gate gate = {0};
  tally n = 0;
  struct coir_counter *held = coir_job_run(jobs, submits_when_let, (void *[]){&gate, &n});
  WAIT_FOR(gate.is_held);
  CHECK_EQ(coir_job_system_shutdown(jobs, 0), -ETIMEDOUT);
  CHECK_EQ(coir_job_system_shutdown(jobs, coir_after(COIR_MS(5))), -ETIMEDOUT);
  CHECK(coir_job_run(jobs, counts, &n) == NULL); /* it goes on to stop */
  atomic_store(&gate.is_open, 1);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(n, 102);
  finish(held);
}

/* Submitters race with the end: what was taken runs, and what was refused does not. */
struct submitter {
  struct coir_job_system *jobs;
  int kind;
  int taken;
  tally ran;
};

static void ran_index(size_t i, void *s) {
  (void)i;
  atomic_fetch_add(&((struct submitter *)s)->ran, 1);
}

static void ran_job(struct coir_job *job, void *s) {
  ran_index(0, s);
  if (((struct submitter *)s)->kind % 2) coir_job_yield(job);
}

static void *submits_until_refused(void *arg) {
  struct submitter *s = arg;
  struct coir_job_desc list[3] = {{.fn = ran_job, .arg = s}, {.fn = ran_job, .arg = s}, {.fn = ran_job, .arg = s}};
  for (int rc = 0, n = 0; rc == 0; s->taken += rc ? 0 : n) {
    struct coir_counter *counter = NULL;
    switch (s->kind) {
    case 0:
    case 1: rc = coir_job_submit(s->jobs, list, (size_t)(n = 1 + s->taken % 3), NULL); break;
    case 2: rc = coir_parallel_for(s->jobs, 0, (size_t)(n = 20), ran_index, s); break;
    default:
      n = 20;
      counter = coir_job_parallel_for(s->jobs, 0, 20, 3, ran_index, s);
      rc = counter ? 0 : -ESHUTDOWN;
      coir_counter_unref(counter);
    }
    CHECK(rc == 0 || rc == -ESHUTDOWN);
  }
  return NULL;
}

static void *shuts_down(void *jobs) {
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  return NULL;
}

static void shutdown_races_with_submitters(void) {
  for (int round = 0; round < rounds(100); round++) {
    struct submitter s[4] = {{0}};
    pthread_t threads[5];
    struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
    for (int i = 0; i < 4; i++) {
      s[i] = (struct submitter){.jobs = jobs, .kind = i};
      CHECK_EQ(pthread_create(&threads[i], NULL, submits_until_refused, &s[i]), 0);
    }
    (void)coir_sleep(COIR_US(round % 10 * 50));
    CHECK_EQ(pthread_create(&threads[4], NULL, shuts_down, jobs), 0);
    shuts_down(jobs);
    for (int i = 0; i < 5; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 4; i++) CHECK_EQ(s[i].ran, s[i].taken);
    coir_job_system_destroy(jobs);
  }
}

static int cannot_end_it(void *jobs) {
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), -EDEADLK);
  return 0;
}

static void cannot_end_its_own(struct coir_job *job, void *arg) {
  (void)arg;
  CHECK_EQ(coir_job_system_shutdown(coir_job_system_of(job), COIR_NEVER), -EDEADLK);
  CHECK_EQ(coir_job_system_shutdown(coir_job_system_of(job), 0), -EDEADLK);
}

WITH_JOBS(a_system_is_not_ended_from_inside) {
  struct coir_fiber *f = NULL;
  tally n = 0;
  finish(coir_job_run(jobs, cannot_end_its_own, NULL));
  CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), cannot_end_it, jobs, NULL, &f), 0);
  join(f);
  finish(coir_job_run(jobs, counts, &n)); /* and was not shut down by that */
  CHECK_EQ(n, 1);
  CHECK_EQ(coir_job_system_shutdown(NULL, 0), -EINVAL);
  coir_job_system_destroy(NULL);
}

static void uses_another_system(struct coir_job *job, void *arg) {
  struct coir_job_system *other = make_jobs((struct coir_job_config){.threads = 2});
  tally n = 0;
  CHECK(coir_job_system_of(job) != other);
  struct coir_counter *there = coir_job_run(other, takes_10_ms, &n);
  CHECK_EQ(coir_job_wait(job, there), 0);
  finish(there);
  CHECK_EQ(n, 1);
  end_jobs(other, 0);
  answers(job, arg);
}

WITH_JOBS(a_job_makes_uses_and_ends_another_system) {
  int value = 0;
  finish(coir_job_run(jobs, uses_another_system, &value));
  CHECK_EQ(value, 42);
}

static int uses_a_system(void *arg) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  tally n = 0;
  finish(coir_job_run(jobs, counts, &n));
  end_jobs(jobs, 0);
  CHECK_EQ(n, 1);
  return (int)(intptr_t)arg;
}

static void a_fiber_makes_uses_and_ends_a_system(void) { CHECK_EQ(run(uses_a_system, (void *)3), 3); }

static void counters_may_go_at_once(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  tally n = 0;
  for (int i = 0; i < 1000; i++) coir_counter_unref(coir_job_run(jobs, counts, &n));
  coir_job_system_destroy(jobs);
  CHECK_EQ(n, 1000);
}

static void messages_of_shutdown(void) {
  char text[64];
  CHECK(!strcmp(coir_job_shutdown_message(0, text, sizeof text), "ok"));
  CHECK(!strcmp(coir_job_shutdown_message(3, text, sizeof text), "3 worker thread(s) panicked"));
  CHECK(!strcmp(coir_job_shutdown_message(-ETIMEDOUT, text, sizeof text), "shutdown timed out"));
  CHECK(!strcmp(coir_job_shutdown_message(-EINVAL, text, sizeof text), strerror(EINVAL)));
  memset(text, 'x', sizeof text);
  CHECK(coir_job_shutdown_message(-ETIMEDOUT, text, 5) == text);
  CHECK(!strcmp(text, "shut") && text[5] == 'x');
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(a_failed_job_counts_down),
      CASE(the_worker_goes_on_after_a_failure),
      CASE(failures_among_many_are_counted),
      CASE(who_waits_is_told_of_failures),
      CASE(a_failure_is_written_to_stderr),
      CASE(what_is_fatal_aborts),
      CASE(shutdown_waits_for_what_runs),
      CASE(shutdown_waits_for_all_that_comes_of_it),
      CASE(shutdown_may_time_out_and_be_asked_again),
      CASE(shutdown_races_with_submitters),
      CASE(a_system_is_not_ended_from_inside),
      CASE(a_job_makes_uses_and_ends_another_system),
      CASE(a_fiber_makes_uses_and_ends_a_system),
      CASE(counters_may_go_at_once),
      CASE(messages_of_shutdown),
  };
  return RUN_CASES(argc, argv, cases);
}
