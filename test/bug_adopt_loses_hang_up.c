/* Whoever adopts a descriptor that is watched already has it watched again, so the kernel tells anew that the peer has
 * hung up. When another thread had taken notice of that before the adoption was written down, this cleared the mark
 * that forbids to trust short reads. So a read of what was left left the TCP socket "dry", and the next one waited for
 * an event that had come and gone, instead of returning 0.
 *
 * To force it, epoll_ctl(2) is wrapped (--wrap; syscall(2) as well, which is called instead under ThreadSanitizer): who
 * adopts is held up after the call. */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "coir_io.h"

int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

static _Atomic(bool) is_armed;

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
  int rc = __real_epoll_ctl(epoll, op, fd, event), saved = errno;
  if (op == EPOLL_CTL_MOD && atomic_exchange(&is_armed, false)) usleep(50000);
  errno = saved;
  return rc;
}

/* Who passes fewer has something there, too. */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_epoll_ctl) return __wrap_epoll_ctl((int)a, (int)b, (int)c, (struct epoll_event *)d);
  return __real_syscall(number, a, b, c, d, e, f);
}

/* Two ends of a connection; neither is adopted. */
static void make_tcp(int fds[2]) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof addr;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_EQ(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
  CHECK_EQ(listen(listener, 1), 0);
  CHECK_EQ(getsockname(listener, (struct sockaddr *)&addr, &bytes), 0);
  fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_EQ(connect(fds[1], (struct sockaddr *)&addr, sizeof addr), 0);
  fds[0] = accept(listener, NULL, NULL);
  CHECK(fds[0] >= 0);
  CHECK_EQ(close(listener), 0);
}

static void the_end_is_read(void **state) {
  (void)state;
  int fds[2];
  char buf[100] = {0};
  make_tcp(fds);
  CHECK_EQ(coir_poll(fds[0], COIR_READABLE, coir_after(COIR_MS(10))), -ETIMEDOUT); /* it is watched from now on */
  CHECK_EQ(write(fds[1], buf, 50), 50);
  CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
  CHECK_EQ(coir_poll(fds[0], COIR_READABLE, coir_after(COIR_SEC(20))), COIR_READABLE);
  atomic_store(&is_armed, true);
  CHECK_EQ(coir_adopt(fds[0]), 0);
  CHECK(!atomic_load(&is_armed));
  CHECK_EQ(coir_read(fds[0], buf, sizeof buf, coir_after(COIR_SEC(20))), 50);
  CHECK_EQ(coir_read(fds[0], buf, sizeof buf, coir_after(COIR_SEC(2))), 0);
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(close(fds[1]), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_end_is_read)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
