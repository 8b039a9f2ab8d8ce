/* Timeouts of gof_accept and gof_connect, on fibers and on plain threads: none early, none much too late, and no call
 * that ran out of time is taken for a success.
 *
 * A machine that is busy with other things makes any single call late, but not every one of several; so it is the best
 * of some attempts that must be in time, and each must end before PATIENCE. */
#include "gof_io_common.h"

#define PATIENCE_MS 10000
#define ATTEMPTS 8

/* What one call with a timeout took, in milliseconds; checks that it was not early. */
static int64_t timed_accept(int listener, int timeout_ms) {
  int64_t began = coir_now();
  CHECK_FAILS(gof_accept(listener, NULL, NULL, timeout_ms), ETIMEDOUT);
  int64_t took = coir_now() - began;
  CHECK(took >= COIR_MS(timeout_ms));
  CHECK(took < COIR_MS(PATIENCE_MS));
  return took / COIR_MS(1);
}

static void an_accept_times_out(enum place helper) {
  (void)helper;
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 4);
  static const int timeouts[] = {0, 1, 5, 50};
  for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
    int64_t best = PATIENCE_MS;
    for (int k = 0; k < ATTEMPTS && best > timeouts[i] + 20; k++) {
      int64_t took = timed_accept(listener, timeouts[i]);
      if (took < best) best = took;
    }
    CHECK(best <= timeouts[i] + 20);
  }
  close_fd(listener);
}

/* One that may not wait takes what is there. */
static void an_accept_with_0_takes_what_is_there(enum place helper) {
  (void)helper;
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 4);
  for (int i = 0; i < 20; i++) {
    if (i % 2) CHECK_FAILS(gof_accept(listener, NULL, NULL, 0), ETIMEDOUT); /* it is known to be empty */
    int fd = tcp_socket(), peer;
    CHECK_EQ(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    CHECK((peer = gof_accept(listener, NULL, NULL, 0)) >= 0);
    CHECK_FAILS(gof_accept(listener, NULL, NULL, 0), ETIMEDOUT);
    close_fd(peer);
    close_fd(fd);
  }
  close_fd(listener);
}

/* A negative timeout is no limit: it outlasts those of others on the same socket, and gets the connection. */
static void timeouts_are_each_callers_own(enum place helper) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 4);
  for (int i = 0; i < 2; i++) {
    struct task patient, brief[3];
    struct accept_task a = {.fd = listener, .timeout_ms = i ? INT32_MIN : -1}, b[3];
    start(&patient, helper, task_accept, &a);
    for (int k = 0; k < 3; k++) {
      b[k] = (struct accept_task){.fd = listener, .timeout_ms = 5 + 10 * k};
      start(&brief[k], helper, task_accept, &b[k]);
    }
    CHECK_FAILS(gof_accept(listener, NULL, NULL, 10), ETIMEDOUT);
    for (int k = 0; k < 3; k++) {
      finish(&brief[k]);
      CHECK_EQ(b[k].result, -1);
      CHECK_EQ(b[k].error, ETIMEDOUT);
    }
    CHECK(!atomic_load(&patient.is_done));
    int fd = tcp_socket();
    CHECK_EQ(gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, -1), 0);
    finish(&patient);
    CHECK(a.result >= 0);
    close_fd(a.result);
    close_fd(fd);
  }
  close_fd(listener);
}

/* ---- Connecting -------------------------------------------------------------------------------------------------- */

static void close_all(const int *fds, int n) {
  for (int i = 0; i < n; i++) close_fd(fds[i]);
}

static int64_t timed_connect(const struct sockaddr *addr, socklen_t bytes, int timeout_ms) {
  int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  int64_t began = coir_now();
  CHECK_FAILS(gof_connect(fd, addr, bytes, timeout_ms), ETIMEDOUT);
  int64_t took = coir_now() - began;
  CHECK(took >= COIR_MS(timeout_ms));
  CHECK(took < COIR_MS(PATIENCE_MS));
  close_fd(fd);
  return took / COIR_MS(1);
}

static void times_out_in_time(const struct sockaddr *addr, socklen_t bytes) {
  static const int timeouts[] = {0, 1, 50};
  for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
    int64_t best = PATIENCE_MS, limit = timeouts[i] == 50 ? 200 : timeouts[i] + 50;
    for (int k = 0; k < ATTEMPTS && best > limit; k++) {
      int64_t took = timed_connect(addr, bytes, timeouts[i]);
      if (took < best) best = took;
    }
    CHECK(best <= limit);
  }
}

static void a_connect_to_a_full_backlog_times_out(enum place helper) {
  (void)helper;
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 0), fds[BACKLOG_MAX];
  int n = fill_backlog((struct sockaddr *)&addr, sizeof addr, fds);
  times_out_in_time((struct sockaddr *)&addr, sizeof addr);
  close_all(fds, n);
  close_fd(listener);
}

static void a_connect_to_a_full_unix_backlog_times_out(enum place helper) {
  (void)helper;
  struct sockaddr_un addr;
  socklen_t bytes;
  int listener = make_unix_listener(&addr, &bytes, 0), fds[BACKLOG_MAX];
  int n = fill_backlog((struct sockaddr *)&addr, bytes, fds);
  times_out_in_time((struct sockaddr *)&addr, bytes);
  close_all(fds, n);
  close_fd(listener);
}

static int is_connected(int fd) {
  struct sockaddr_in peer;
  socklen_t bytes = sizeof peer;
  return getpeername(fd, (struct sockaddr *)&peer, &bytes) == 0;
}

/* After a timeout the attempt goes on in the kernel. Who asks again may hear that it is under way (EALREADY), but not
 * that it is connected before it is. */
static void a_timeout_is_never_a_success(enum place helper) {
  (void)helper;
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 0), fds[BACKLOG_MAX], fd = tcp_socket();
  int n = fill_backlog((struct sockaddr *)&addr, sizeof addr, fds);
  close_fd(fds[--n]); /* it would take the room that we are going to make */
  CHECK_FAILS(gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, 1), ETIMEDOUT);
  CHECK(!is_connected(fd));
  static const int timeouts[] = {0, 5, 20, 0, 0, 1};
  for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
    CHECK_EQ(gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, timeouts[i]), -1);
    CHECK(errno == ETIMEDOUT || errno == EALREADY);
    CHECK(!is_connected(fd));
  }
  /* With room again it comes about, when the kernel tries the next time. */
  for (int i = 0; i < n; i++) close_fd(gof_accept(listener, NULL, NULL, -1));
  int rc;
  while ((rc = gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, 20)) == -1) {
    int error = errno;
    if (error == EISCONN) break;
    CHECK(error == ETIMEDOUT || error == EALREADY);
    gof_sleep_ms(1);
  }
  CHECK(is_connected(fd));
  close_fd(fd);
  close_all(fds, n);
  close_fd(listener);
}

/* With 0 a connect over the loopback may or may not be there at once. It must say which it is. */
static void a_connect_with_0_says_what_is(enum place helper) {
  (void)helper;
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 64);
  for (int i = 0; i < 20; i++) {
    int fd = tcp_socket();
    errno = 0;
    int rc = gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, 0), error = errno;
    CHECK(rc == 0 ? is_connected(fd) : rc == -1 && error == ETIMEDOUT);
    close_fd(gof_accept(listener, NULL, NULL, -1));
    close_fd(fd);
  }
  close_fd(listener);
}

/* Room in the backlog of a unix socket is waited for, too. */
static void a_unix_connect_waits_for_room(enum place helper) {
  struct sockaddr_un addr;
  socklen_t bytes;
  struct task t;
  int listener = make_unix_listener(&addr, &bytes, 0), fds[BACKLOG_MAX];
  int n = fill_backlog((struct sockaddr *)&addr, bytes, fds);
  struct connect_task c = {.addr = &addr, .bytes = bytes, .timeout_ms = -1};
  start(&t, helper, task_connect, &c);
  let_them_wait();
  CHECK(!atomic_load(&t.is_done));
  for (int i = 0; i < n; i++) close_fd(gof_accept(listener, NULL, NULL, -1)); /* all that were queued, and this one */
  finish(&t);
  CHECK_EQ(c.result, 0);
  close_fd(c.fd);
  close_all(fds, n);
  close_fd(listener);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ALONE(an_accept_times_out),
      ALONE(an_accept_with_0_takes_what_is_there),
      EVERYWHERE(timeouts_are_each_callers_own),
      ALONE(a_connect_to_a_full_backlog_times_out),
      ALONE(a_connect_to_a_full_unix_backlog_times_out),
      ALONE(a_timeout_is_never_a_success),
      ALONE(a_connect_with_0_says_what_is),
      EVERYWHERE(a_unix_connect_waits_for_room),
  };
  return cmocka_run_group_tests(tests, warm_up, NULL);
}
