/* Who was woken looks whether its descriptor still stands for the file that it waited for, since an event of a file
 * that lives on elsewhere must not lead it to the next file under the number. It did so by EPOLL_CTL_ADD, which fails
 * where the file is watched. Where it was not it was watched then, and taken out again. Who began to wait for the new
 * file between the two lost its events. Who had begun to wait for it just before made the look say that all was as
 * before: the one that was woken went on, and took what was meant for the other.
 *
 * To force it, epoll_ctl(2) is wrapped (--wrap; syscall(2) as well, which is called instead under ThreadSanitizer): the
 * thread that was woken is held up before or after its first such call, until the other one waits. */
#include "harness.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "coir_io.h"

int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);

enum kind { SOCKETS, PIPES };
enum hold { BEFORE, AFTER };

struct reader {
  int fd;
  bool may_be_held_up;
  ssize_t result;
  char buf[16];
  _Atomic(int) calls; /* of epoll_ctl that it has made */
  _Atomic(int) tid;
  _Atomic(bool) is_over;
  pthread_t thread;
};

static enum hold hold;
static _Thread_local struct reader *self;
static _Atomic(bool) is_armed, is_held, may_go; /* armed: its next call is to be held up */

static void hold_up(enum hold now) {
  if (now != hold || !self->may_be_held_up || !atomic_load(&is_armed)) return;
  atomic_store(&is_armed, false);
  atomic_store(&is_held, true);
  SPIN_UNTIL(atomic_load(&may_go));
}

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
  if (!self) return __real_epoll_ctl(epoll, op, fd, event);
  hold_up(BEFORE);
  int rc = __real_epoll_ctl(epoll, op, fd, event), saved = errno;
  hold_up(AFTER);
  atomic_fetch_add(&self->calls, 1);
  errno = saved;
  return rc;
}

/* Who passes fewer has something there, too. */
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_epoll_ctl) return __wrap_epoll_ctl((int)a, (int)b, (int)c, (struct epoll_event *)d);
  return __real_syscall(number, a, b, c, d, e, f);
}

static void *reads(void *arg) {
  struct reader *r = self = arg;
  atomic_store(&r->tid, gettid());
  r->result = coir_read(r->fd, r->buf, sizeof r->buf, coir_after(COIR_SEC(10)));
  atomic_store(&r->is_over, true);
  return NULL;
}

/* On its way it may sleep for a moment, too. */
static bool sleeps_on(int tid) {
  for (int i = 0; i < 10; i++) {
    if (thread_state(tid) != 'S') return false;
    usleep(1000);
  }
  return true;
}

/* The last thing that it does before it sleeps is to have the descriptor watched. */
static void start_reader(struct reader *r, int fd, bool may_be_held_up) {
  *r = (struct reader){.fd = fd, .may_be_held_up = may_be_held_up};
  CHECK_EQ(pthread_create(&r->thread, NULL, reads, r), 0);
  WAIT_FOR(atomic_load(&r->calls) > 0 && sleeps_on(atomic_load(&r->tid)));
}

static void make_pair(enum kind kind, int fds[2]) {
  CHECK_EQ(kind == PIPES ? pipe(fds) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

static void change_under(enum kind kind, enum hold when) {
  int old[2], new[2];
  struct reader stale, fresh;
  make_pair(kind, old);
  make_pair(kind, new);
  int fd = old[0], spare = dup(fd);
  hold = when;
  atomic_store(&is_held, false);
  atomic_store(&may_go, false);
  start_reader(&stale, fd, true);
  CHECK_EQ(dup2(new[0], fd), fd);
  CHECK_EQ(close(new[0]), 0);
  atomic_store(&is_armed, true);
  CHECK_EQ(write(old[1], "stale", 5), 5);
  /* The check, once a second, may tell it first: then nothing is held up this time. */
  SPIN_UNTIL(atomic_load(&is_held) || atomic_load(&stale.is_over));
  start_reader(&fresh, fd, false);
  atomic_store(&may_go, true);
  CHECK_EQ(pthread_join(stale.thread, NULL), 0);
  CHECK_EQ(stale.result, -EBADF);
  CHECK_EQ(write(new[1], "new!", 4), 4);
  CHECK_EQ(pthread_join(fresh.thread, NULL), 0);
  CHECK_EQ(fresh.result, 4);
  CHECK_EQ(memcmp(fresh.buf, "new!", 4), 0);
  CHECK(close(fd) == 0 && close(spare) == 0 && close(old[1]) == 0 && close(new[1]) == 0);
}

static void sockets_stay_watched(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) change_under(SOCKETS, AFTER);
}

static void pipes_stay_watched(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) change_under(PIPES, AFTER);
}

static void nobody_reads_from_the_next_socket(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) change_under(SOCKETS, BEFORE);
}

static void nobody_reads_from_the_next_pipe(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) change_under(PIPES, BEFORE);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sockets_stay_watched),
      cmocka_unit_test(pipes_stay_watched),
      cmocka_unit_test(nobody_reads_from_the_next_socket),
      cmocka_unit_test(nobody_reads_from_the_next_pipe),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
