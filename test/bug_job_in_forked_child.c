/* In the child of a fork there are no workers. Jobs were queued there all the same, and who waited for them waited for
 * ever; and a job that returned there, or ended in a section that it had not left, died of a fault where Coir says
 * elsewhere what is wrong. */
#include "jobs.h"

static struct coir_job_system *jobs;

static void body(size_t i, void *arg) { (void)i, (void)arg; }
static void range(size_t lo, size_t hi, void *arg) { (void)lo, (void)hi, (void)arg; }

static void is_refused(void) {
  tally n = 0;
  struct coir_counter *counter = NULL;
  struct coir_job_desc two[] = {{.fn = counts, .arg = &n}, {.fn = counts, .arg = &n}};
  CHECK_EQ(coir_job_submit(jobs, two, 1, &counter), -ENOTSUP);
  CHECK_EQ(coir_job_submit(jobs, two, 2, NULL), -ENOTSUP);
  CHECK(!counter);
  CHECK(!coir_job_run(jobs, counts, &n));
  CHECK(!coir_job_run_priority(jobs, COIR_PRIORITY_HIGH, counts, &n));
  CHECK(!coir_job_run_many(jobs, two, 2));
  CHECK(!coir_job_parallel_for(jobs, 0, 10, 1, body, NULL));
  CHECK_EQ(coir_parallel_for(jobs, 0, 10, body, NULL), -ENOTSUP);
  CHECK_EQ(coir_parallel_range(jobs, 0, 10, 1, range, NULL), -ENOTSUP);
  CHECK_EQ(n, 0);
}

static int in_child(void (*fn)(void)) {
  int status = 0;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(10);
    fn();
    _exit(0);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

static void a_child_of_a_thread_is_refused(void) {
  jobs = make_jobs((struct coir_job_config){0});
  CHECK_EQ(in_child(is_refused), 0);
  end_jobs(jobs, 0);
}

static void a_child_of_a_job_is_refused_job(struct coir_job *job, void *arg) {
  (void)job, (void)arg;
  CHECK_EQ(in_child(is_refused), 0);
}

static void a_child_of_a_job_is_refused(void) {
  jobs = make_jobs((struct coir_job_config){0});
  finish(coir_job_run(jobs, a_child_of_a_job_is_refused_job, NULL));
  end_jobs(jobs, 0);
}

/* ---- What must not be, and is said ------------------------------------------------------------------------------- */

static void forks_and_returns(struct coir_job *job, void *status) {
  (void)job;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid) CHECK_EQ(waitpid(pid, status, 0), pid);
}

static void fork_in_a_job(void) {
  int status = 0;
  jobs = make_jobs((struct coir_job_config){0});
  finish(coir_job_run(jobs, forks_and_returns, &status));
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGABRT);
  end_jobs(jobs, 0);
}

static void says(void (*fn)(void), int signo, const char *what) {
  char text[4096];
  int status = in_child_process(fn, text, sizeof text);
  bool is_right = signo ? WIFSIGNALED(status) && WTERMSIG(status) == signo : status == 0;
  if (!is_right || !strstr(text, what)) fprintf(stderr, "status %#x: %s\n", (unsigned)status, text);
  CHECK(is_right);
  CHECK(strstr(text, what));
}

static void a_job_that_returns_in_a_child_is_told(void) {
  says(fork_in_a_job, 0, "the child of a fork must call exec");
}

static void enters(void *arg) {
  (void)arg;
  CHECK_EQ(coir_block_enter(), 0);
}

static void enters_for_ever(struct coir_job *job, void *arg) {
  (void)job;
  enters(arg);
}

static void end_in_a_section(void) {
  jobs = make_jobs((struct coir_job_config){0});
  finish(coir_job_run(jobs, enters_for_ever, NULL));
}

static void nothing(void *arg) { (void)arg; }

static void forks_with_a_section(struct coir_job *job, void *arg) {
  (void)job;
  coir_fork2(enters, arg, nothing, arg);
}

static void join_in_a_section(void) {
  jobs = make_jobs((struct coir_job_config){0});
  finish(coir_job_run(jobs, forks_with_a_section, NULL));
}

static void a_section_is_to_be_left(void) {
  says(end_in_a_section, SIGABRT, "a blocking section be left");
  says(join_in_a_section, SIGABRT, "a blocking section be left");
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(a_child_of_a_thread_is_refused), CASE(a_child_of_a_job_is_refused),
                                     CASE(a_job_that_returns_in_a_child_is_told), CASE(a_section_is_to_be_left)};
  return RUN_CASES(argc, argv, cases);
}
