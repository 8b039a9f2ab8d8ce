/* Who forks holds a lock of the threads' records meanwhile, but it did not say that it was inside the library. So it
 * could be paused between, in a handler of the program's for fork(2), and as long as it was no thread could be made,
 * not even the one that was wanted for its own turn to come. And a fiber that forked just after it had been marked as
 * paused left the mark to its child, where nobody is who would take it away: the child slept for ever in its next
 * call. */
#include "hogs.h"

#include <signal.h>

static _Atomic(bool) forks, has_run, is_forked;

static int note(void *unused) {
  (void)unused;
  atomic_store(&has_run, true);
  return 0;
}

/* The one worker runs another fiber only if it is taken away from the one that forks. */
static void be_long(void) {
  if (!atomic_load(&forks)) return;
  coir_detach(spawn(note, NULL));
  int64_t end = hog_cpu_ns() + COIR_MS(50);
  while (hog_cpu_ns() < end) hog_compute(1000);
  CHECK(!atomic_load(&has_run));
}

static void wait_for_child(pid_t pid) {
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
}

static int fork_slowly(void *unused) {
  (void)unused;
  atomic_store(&forks, true);
  pid_t pid = fork();
  if (pid == 0) _exit(0);
  atomic_store(&forks, false);
  CHECK(pid > 0);
  wait_for_child(pid);
  SPIN_UNTIL(atomic_load(&has_run)); /* and now it is taken */
  return 0;
}

/* Who asks before the runtime does is called while that still has its locks. */
static void who_forks_is_not_paused(void) {
  CHECK_EQ(pthread_atfork(NULL, be_long, NULL), 0);
  struct coir_runtime *rt = make_runtime((struct coir_config)PREEMPTIVE(1, 2000));
  int status = -1;
  CHECK_EQ(coir_runtime_run(rt, fork_slowly, NULL, &status), 0);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int keep_the_worker(void *unused) {
  (void)unused;
  atomic_store(&has_run, true);
  SPIN_UNTIL(atomic_load(&is_forked));
  return 0;
}

/* With the signal blocked the fiber goes on, marked as it is. */
static int fork_when_marked(void *unused) {
  (void)unused;
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, &old), 0);
  coir_detach(spawn_with((struct coir_attr){.preempt = COIR_OFF}, keep_the_worker, NULL));
  SPIN_UNTIL(atomic_load(&has_run));
  pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    coir_yield();
    CHECK(coir_current() == NULL);
    _exit(0);
  }
  atomic_store(&is_forked, true);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
  CHECK(pid > 0);
  wait_for_child(pid);
  return 0;
}

static void the_child_is_not_paused(void) {
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 2000), fork_when_marked, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(who_forks_is_not_paused),
      CASE(the_child_is_not_paused),
  };
  return RUN_CASES(argc, argv, cases);
}
