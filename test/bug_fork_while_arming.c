/* A fork while another thread set the signal's handler, which each spawn of a fiber that may be preempted looks after:
 * in the child nobody was left to give back the lock, and its first runtime with preemption hung. */
#include "hogs.h"

int __real_sigaction(int signo, const struct sigaction *to, struct sigaction *from);
int __wrap_sigaction(int signo, const struct sigaction *to, struct sigaction *from);

static __thread bool is_arming;
static _Atomic(bool) has_stopped, has_forked;

int __wrap_sigaction(int signo, const struct sigaction *to, struct sigaction *from) {
  if (is_arming && !has_stopped) {
    has_stopped = true;
    SPIN_UNTIL(has_forked);
  }
  return __real_sigaction(signo, to, from);
}

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

static void *arms(void *arg) {
  is_arming = true;
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 1000), nothing, NULL), 0);
  return arg;
}

static void the_child_has_runtimes_that_preempt(void) {
  pthread_t thread;
  int status = -1;
  CHECK_EQ(run(nothing, NULL), 0);
  CHECK_EQ(pthread_create(&thread, NULL, arms, NULL), 0);
  SPIN_UNTIL(has_stopped);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(20);
    CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 1000), nothing, NULL), 0);
    _exit(0);
  }
  has_forked = true;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_child_has_runtimes_that_preempt)};
  return RUN_CASES(argc, argv, cases);
}
