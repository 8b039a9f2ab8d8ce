/* How an attempt to connect has ended coir_connect asks the socket, once it is ready, and by that takes the error away
 * from it. It asked without looking whether the number still stood for its socket. When that had been closed by
 * coir_close just before, and the number was another socket's, it took that one's error, and the coir_connect of that
 * one returned 0 for a connection that was refused.
 *
 * To force it, getsockopt(2) is wrapped (--wrap): the first caller that asks for the error waits there until the second
 * one asks, too; or for a while, since it cannot come to that any more. */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "coir_io.h"

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *bytes);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *bytes);

enum role { NOBODY, FIRST, SECOND };

static _Thread_local enum role role;
static _Atomic(bool) first_asks, first_has_asked, second_asks;

static void wait_a_while_for(_Atomic(bool) *what) {
  for (int i = 0; i < 500 && !atomic_load(what); i++) usleep(1000);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *bytes) {
  bool is_other = level != SOL_SOCKET || name != SO_ERROR || role == NOBODY;
  if (is_other) return __real_getsockopt(fd, level, name, value, bytes);
  atomic_store(role == FIRST ? &first_asks : &second_asks, true);
  wait_a_while_for(role == FIRST ? &second_asks : &first_has_asked);
  int rc = __real_getsockopt(fd, level, name, value, bytes), saved = errno;
  if (role == FIRST) atomic_store(&first_has_asked, true);
  errno = saved;
  return rc;
}

static int make_listener(struct sockaddr_in *addr) {
  *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof *addr;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_EQ(bind(fd, (struct sockaddr *)addr, sizeof *addr), 0);
  CHECK_EQ(listen(fd, 1), 0);
  CHECK_EQ(getsockname(fd, (struct sockaddr *)addr, &bytes), 0);
  return fd;
}

struct second {
  int fd; /* of the first */
  struct sockaddr_in nobody;
  int result;
};

static void *connects_to_nobody(void *arg) {
  struct second *s = arg;
  role = SECOND;
  SPIN_UNTIL(atomic_load(&first_asks));
  CHECK_EQ(coir_close(s->fd), 0);
  CHECK_EQ(coir_socket(AF_INET, SOCK_STREAM, 0), s->fd);
  s->result = coir_connect(s->fd, (struct sockaddr *)&s->nobody, sizeof s->nobody, coir_after(COIR_SEC(20)));
  return NULL;
}

static void each_gets_its_own(void **state) {
  (void)state;
  struct sockaddr_in addr;
  struct second s;
  pthread_t thread;
  int closed = make_listener(&s.nobody), listener = make_listener(&addr);
  CHECK_EQ(close(closed), 0);
  s.fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK(s.fd >= 0);
  CHECK_EQ(pthread_create(&thread, NULL, connects_to_nobody, &s), 0);
  role = FIRST;
  int rc = coir_connect(s.fd, (struct sockaddr *)&addr, sizeof addr, coir_after(COIR_SEC(20)));
  role = NOBODY;
  CHECK(atomic_load(&first_asks));
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK(rc == 0 || rc == -EBADF);
  CHECK_EQ(s.result, -ECONNREFUSED);
  CHECK_EQ(coir_close(s.fd), 0);
  CHECK_EQ(close(listener), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(each_gets_its_own)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
