/* A read of a number that was a socket last time tries it as one, and is told when it is none any more. When somebody
 * adopted what it is now at just that moment, the read took it for an adopted socket that had been closed by close(2):
 * the adoption was forgotten, and all who waited got EBADF.
 *
 * To force it, recvfrom(2) is wrapped (--wrap; as itself under sanitizers, else as syscall(2)): the first reader is
 * held up in it. */
#include "harness.h"

#include <sys/socket.h>
#include <sys/syscall.h>

#include "coir_io.h"

ssize_t __real_recvfrom(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes);
ssize_t __wrap_recvfrom(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

struct reader {
  int fd;
  ssize_t result;
  char buf[16];
  _Atomic(bool) is_inside;
  pthread_t thread;
};

static _Atomic(int) over;
static _Atomic(bool) is_armed, is_held, may_go;

static void hold_up(void) {
  int saved = errno;
  bool was_armed = true;
  if (atomic_compare_exchange_strong(&is_armed, &was_armed, false)) {
    atomic_store(&is_held, true);
    SPIN_UNTIL(atomic_load(&may_go));
  }
  errno = saved;
}

ssize_t __wrap_recvfrom(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes) {
  ssize_t n = __real_recvfrom(fd, buf, bytes, flags, addr, addr_bytes);
  hold_up();
  return n;
}

/* Who passes fewer has something there, too. */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  long rc = __real_syscall(number, a, b, c, d, e, f);
  if (number == SYS_recvfrom) hold_up();
  return rc;
}

static void *reads(void *arg) {
  struct reader *r = arg;
  atomic_store(&r->is_inside, true);
  r->result = coir_read(r->fd, r->buf, 1, coir_after(COIR_SEC(20)));
  atomic_fetch_add(&over, 1);
  return NULL;
}

static void start_reader(struct reader *r, int fd) {
  *r = (struct reader){.fd = fd};
  CHECK_EQ(pthread_create(&r->thread, NULL, reads, r), 0);
  WAIT_FOR(atomic_load(&r->is_inside));
}

static void others_go_on_waiting(void **state) {
  (void)state;
  int old[2], new[2];
  char buf[4];
  struct reader held, other;
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, old), 0);
  CHECK_EQ(pipe(new), 0);
  CHECK_EQ(coir_write(old[1], "x", 1, COIR_NEVER), 1);
  CHECK_EQ(coir_read(old[0], buf, sizeof buf, COIR_NEVER), 1); /* it is a socket */
  int fd = old[0];
  CHECK_EQ(dup2(new[0], fd), fd);
  CHECK_EQ(close(new[0]), 0);
  atomic_store(&is_armed, true);
  start_reader(&held, fd);
  WAIT_FOR(atomic_load(&is_held));
  CHECK_EQ(coir_adopt(fd), 0);
  start_reader(&other, fd);
  CHECK_EQ(coir_sleep(COIR_MS(30)), 0); /* it most likely waits then; if not, the fault is not forced */
  atomic_store(&may_go, true);
  for (int i = 1; i <= 2; i++) {
    CHECK_EQ(write(new[1], "y", 1), 1);
    WAIT_FOR(atomic_load(&over) >= i);
  }
  CHECK_EQ(pthread_join(held.thread, NULL), 0);
  CHECK_EQ(pthread_join(other.thread, NULL), 0);
  CHECK_EQ(held.result, 1);
  CHECK_EQ(other.result, 1);
  CHECK_EQ(coir_close(fd), 0);
  CHECK(close(old[1]) == 0 && close(new[1]) == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(others_go_on_waiting)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
