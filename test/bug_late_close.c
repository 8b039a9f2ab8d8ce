/* A thread in epoll_wait keeps a file for as long as it looks at it, and where the file is closed by close(2) in that
 * moment, until the call returns (os/poll_epoll.c). Workers slept in it without a limit: the other end of a socket was
 * not told that it was closed, until something else happened. About one close(2) in 10 000 of sockets that were busy.
 *
 * To force it, the calls are wrapped (--wrap): one of them keeps a duplicate of the socket until it returns. */
#include "harness.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "coir_io.h"

int __real_epoll_wait(int epoll, struct epoll_event *events, int count, int ms);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int count, int ms);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

static _Atomic(int) to_keep = -1;
static _Atomic(int) keepers; /* calls that sleep and keep it */

/* Not for a moment's sleep, in hope of work. */
static int begin(int64_t ns) {
  int fd = atomic_load(&to_keep);
  if (fd < 0 || (ns >= 0 && ns < COIR_MS(500))) return -1;
  fd = dup(fd);
  if (fd >= 0) atomic_fetch_add(&keepers, 1);
  return fd;
}

static void end(int fd) {
  int saved = errno;
  if (fd >= 0) {
    atomic_fetch_sub(&keepers, 1);
    close(fd);
  }
  errno = saved;
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int count, int ms) {
  int fd = begin(ms < 0 ? -1 : COIR_MS((int64_t)ms));
  int n = __real_epoll_wait(epoll, events, count, ms);
  end(fd);
  return n;
}

/* Who passes fewer has something there, too. */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number != SYS_epoll_pwait2) return __real_syscall(number, a, b, c, d, e, f);
  const struct timespec *time = (const struct timespec *)d;
  int fd = begin(time ? COIR_SEC((int64_t)time->tv_sec) + time->tv_nsec : -1);
  long n = __real_syscall(number, a, b, c, d, e, f);
  end(fd);
  return n;
}

static int read_one(void *arg) {
  int fd = *(const int *)arg;
  char c;
  atomic_store(&to_keep, fd); /* when the only worker sleeps next it is watched */
  return (int)coir_read(fd, &c, 1, COIR_NEVER);
}

static void the_other_end_is_told_in_time(void **state) {
  (void)state;
  int ends[2];
  char c = 'x';
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, read_one, &ends[0], NULL, NULL), 0);
  WAIT_FOR(atomic_load(&keepers));
  CHECK_EQ(write(ends[1], &c, 1), 1);
  WAIT_FOR(coir_runtime_list(rt, NULL, 0) == 0 && atomic_load(&keepers));
  CHECK_EQ(close(ends[0]), 0);
  CHECK_EQ(poll(&(struct pollfd){.fd = ends[1], .events = POLLIN}, 1, 10000), 1);
  CHECK_EQ(read(ends[1], &c, 1), 0);
  CHECK_EQ(close(ends[1]), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_other_end_is_told_in_time)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
