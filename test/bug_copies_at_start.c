/* The thread that reads /proc for the monitor has copies of the process's descriptors while it leaves their table
 * (os/linux_look.c). The runtime's fibers began meanwhile: what they closed by close(2) was not closed yet, and they
 * could write to a pipe that had no reader any more.
 *
 * To force it, the system call is wrapped (--wrap): between copying the descriptors and closing the copies it waits. */
#include "harness.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define WAITS_MS 200 /* at most, and where nobody runs meanwhile */

static _Atomic(bool) has_copies, is_over;

/* Who passes fewer has something there, too. */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_close_range) {
    CHECK_EQ(unshare(CLONE_FILES), 0);
    atomic_store(&has_copies, true);
    for (int i = 0; i < WAITS_MS && !atomic_load(&is_over); i++) usleep(1000);
  }
  return __real_syscall(number, a, b, c, d, e, f);
}

static int closes_and_writes(void *arg) {
  int *ends = arg;
  char c = 'x';
  WAIT_FOR(atomic_load(&has_copies));
  CHECK_EQ(close(ends[0]), 0);
  ssize_t n = write(ends[1], &c, 1);
  int error = errno;
  atomic_store(&is_over, true);
  CHECK_EQ(n, -1);
  CHECK_EQ(error, EPIPE);
  CHECK_EQ(close(ends[1]), 0);
  return 0;
}

static void what_a_fiber_closes_is_closed(void **state) {
  (void)state;
  int ends[2];
  CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .monitor = COIR_ON}, closes_and_writes, ends), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_a_fiber_closes_is_closed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
