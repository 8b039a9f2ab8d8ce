/* Who sleeps in epoll_wait while nothing is watched does so without a limit. When another thread had the first
 * descriptor watched it slept on, and could keep a file that was closed by close(2) (bug_late_close.c): the other end
 * was told when something else happened, or never. So it was with the thread that serves plain threads, and with
 * workers that share a poller.
 *
 * To force it, the calls are wrapped (--wrap): the descriptor is watched only when that thread sleeps, which keeps a
 * duplicate of it until its call returns. */
#include "harness.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "coir_io.h"

int __real_epoll_wait(int epoll, struct epoll_event *events, int count, int ms);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int count, int ms);
int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

static _Atomic(int) to_keep = -1;
static _Atomic(bool) has_slept; /* without a limit */

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int count, int ms) {
  int fd = ms < 0 ? dup(atomic_load(&to_keep)) : -1;
  if (fd >= 0) atomic_store(&has_slept, true);
  int n = __real_epoll_wait(epoll, events, count, ms), saved = errno;
  if (fd >= 0) close(fd);
  errno = saved;
  return n;
}

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
  while (fd == atomic_load(&to_keep) && !atomic_load(&has_slept)) usleep(100);
  return __real_epoll_ctl(epoll, op, fd, event);
}

/* Who passes fewer has something there, too. */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_epoll_ctl) return __wrap_epoll_ctl((int)a, (int)b, (int)c, (struct epoll_event *)d);
  return __real_syscall(number, a, b, c, d, e, f);
}

static void the_other_end_is_told_in_time(void **state) {
  (void)state;
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  atomic_store(&to_keep, ends[0]);
  CHECK_EQ(coir_poll(ends[0], COIR_READABLE, coir_after(COIR_MS(10))), -ETIMEDOUT);
  CHECK(atomic_load(&has_slept));
  CHECK_EQ(close(ends[0]), 0);
  CHECK_EQ(poll(&(struct pollfd){.fd = ends[1], .events = POLLERR}, 1, 10000), 1);
  CHECK_EQ(close(ends[1]), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_other_end_is_told_in_time)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
