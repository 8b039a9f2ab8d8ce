/* Tests of coir_io.h: what each call promises, on every kind of descriptor, on fibers and on plain threads.
 *
 * The bodies run on fibers, where cmocka's assertions must not jump; so they use CHECK, which prints and aborts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "coir.h"
#include "coir_io.h"
#include "sanitizers.h"

#define CHECK(x) \
  do { \
    if (!(x)) { \
      fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #x); \
      abort(); \
    } \
  } while (0)

/* Both are integers; prints them when they differ. */
#define CHECK_EQ(a, b) \
  do { \
    long long a_ = (long long)(a), b_ = (long long)(b); \
    if (a_ != b_) { \
      fprintf(stderr, "%s:%d: CHECK_EQ(%s, %s): %lld, %lld\n", __FILE__, __LINE__, #a, #b, a_, b_); \
      abort(); \
    } \
  } while (0)

#define SLOW (IS_SANITIZED ? 10 : 1)

#define LONG coir_after(COIR_SEC(20)) /* a limit that is not met unless something hangs */

/* ---- Helpers --------------------------------------------------------------------------------------------------- */

static struct coir_fiber *start(coir_fn fn, void *arg) {
  struct coir_fiber *f;
  CHECK_EQ(coir_spawn(fn, arg, NULL, &f), 0);
  return f;
}

static int finish(struct coir_fiber *f) {
  struct coir_result result;
  CHECK_EQ(coir_join(f, &result, LONG), 0);
  return result.status;
}

static void make_pair(int fds[2], bool adopt) {
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  for (int i = 0; adopt && i < 2; i++) CHECK_EQ(coir_adopt(fds[i]), 0);
}

/* A listener on the loopback, with its address. */
static int make_listener(struct sockaddr_in *addr, int backlog) {
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof *addr;
  CHECK_EQ(bind(fd, (struct sockaddr *)addr, sizeof *addr), 0);
  CHECK_EQ(listen(fd, backlog), 0);
  CHECK_EQ(getsockname(fd, (struct sockaddr *)addr, &bytes), 0);
  return fd;
}

/* A connected pair of TCP sockets, both adopted. */
static void make_tcp(int fds[2]) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 1);
  CHECK((fds[0] = coir_socket(AF_INET, SOCK_STREAM, 0)) >= 0);
  CHECK_EQ(coir_connect(fds[0], (struct sockaddr *)&addr, sizeof addr, LONG), 0);
  CHECK((fds[1] = coir_accept(listener, NULL, NULL, LONG)) >= 0);
  CHECK_EQ(coir_close(listener), 0);
}

static void close_pair(int fds[2]) {
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_close(fds[i]), 0);
}

static int open_count(void) {
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir);
  int n = -1; /* itself */
  for (struct dirent *e; (e = readdir(dir)) != NULL;) n += e->d_name[0] != '.';
  closedir(dir);
  return n;
}

/* One read or write on a fiber of its own, which waits. */
struct task {
  int fd;
  int64_t deadline;
  char buf[64];
  _Atomic(ssize_t) result;
  _Atomic(int) tid; /* of the plain thread that does it */
};

static int task_read(void *arg) {
  struct task *t = arg;
  t->result = coir_read(t->fd, t->buf, sizeof t->buf, t->deadline);
  return 0;
}

/* Writes until it fails. */
static int task_write(void *arg) {
  struct task *t = arg;
  static const char block[4096];
  ssize_t n;
  while ((n = coir_write(t->fd, block, sizeof block, t->deadline)) > 0) {}
  t->result = n;
  return 0;
}

/* Until the fiber, of this runtime, waits. */
static void until_waits(struct coir_fiber *f) {
  struct coir_fiber_info info[64];
  for (int64_t limit = LONG; coir_now() < limit; coir_sleep(COIR_MS(1))) {
    size_t n = coir_runtime_list(coir_runtime_current(), info, 64);
    for (size_t i = 0; i < n && i < 64; i++)
      if (info[i].id == coir_fiber_id(f) && info[i].state == COIR_FIBER_WAITING) return;
  }
  CHECK(!"it waits");
}

static void let_them_wait(void) { CHECK_EQ(coir_sleep(COIR_MS(5)), 0); }

/* Runs a body on a fiber of the default runtime. */
#define FIBER_TEST(name) \
  static int body_##name(void *unused); \
  static void name(void **state) { \
    (void)state; \
    int before = open_count(); \
    assert_int_equal(coir_run(body_##name, NULL), 0); \
    assert_int_equal(open_count(), before); \
  } \
  static int body_##name(void *unused __attribute__((unused)))

/* ---- Transfers ------------------------------------------------------------------------------------------------- */

static void ping_pong(int a, int b) {
  char buf[16];
  struct task t = {.fd = b, .deadline = LONG};
  struct coir_fiber *f = start(task_read, &t);
  let_them_wait();
  CHECK_EQ(coir_write(a, "hello", 5, LONG), 5);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(t.result, 5);
  CHECK_EQ(memcmp(t.buf, "hello", 5), 0);
  CHECK_EQ(coir_read(b, buf, sizeof buf, 0), -ETIMEDOUT);
  CHECK_EQ(coir_write(a, "again", 5, 0), 5);
  CHECK_EQ(coir_read_full(b, buf, 5, LONG), 5);
  CHECK_EQ(memcmp(buf, "again", 5), 0);
}

FIBER_TEST(socketpair_transfers) {
  for (int adopt = 0; adopt < 2; adopt++) {
    int fds[2];
    make_pair(fds, adopt);
    ping_pong(fds[0], fds[1]);
    ping_pong(fds[1], fds[0]);
    CHECK_EQ(coir_read(fds[0], NULL, 0, COIR_NEVER), 0);
    CHECK_EQ(shutdown(fds[0], SHUT_WR), 0);
    CHECK_EQ(coir_read(fds[1], (char[4]){0}, 4, LONG), 0);
    close_pair(fds);
  }
  return 0;
}

FIBER_TEST(pipe_transfers) {
  for (int adopt = 0; adopt < 2; adopt++) {
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    for (int i = 0; adopt && i < 2; i++) CHECK_EQ(coir_adopt(fds[i]), 0);
    ping_pong(fds[1], fds[0]);
    struct task t = {.fd = fds[1], .deadline = coir_after(COIR_MS(20))};
    CHECK_EQ(finish(start(task_write, &t)), 0);
    CHECK_EQ(t.result, -ETIMEDOUT);
    CHECK_EQ(coir_close(fds[1]), 0);
    ssize_t n, sum = 0;
    for (char buf[4096]; (n = coir_read(fds[0], buf, sizeof buf, LONG)) > 0; sum += n) {}
    CHECK_EQ(n, 0);
    CHECK(sum >= 4096);
    CHECK_EQ(coir_close(fds[0]), 0);
  }
  return 0;
}

static int echo_server(void *arg) {
  int listener = *(int *)arg;
  struct sockaddr_in peer;
  socklen_t bytes = sizeof peer;
  int fd = coir_accept(listener, (struct sockaddr *)&peer, &bytes, LONG);
  CHECK(fd >= 0);
  CHECK_EQ(peer.sin_family, AF_INET);
  CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
  CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  char buf[1000];
  ssize_t n;
  while ((n = coir_recv(fd, buf, sizeof buf, 0, LONG)) > 0) CHECK_EQ(coir_write_full(fd, buf, (size_t)n, LONG), n);
  CHECK_EQ(n, 0);
  CHECK_EQ(coir_close(fd), 0);
  return 0;
}

FIBER_TEST(tcp_transfers) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 8);
  struct coir_fiber *server = start(echo_server, &listener);
  let_them_wait();
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG), 0);
  for (int i = 0; i < 2000 / SLOW; i++) {
    char out[700], in[700];
    size_t bytes = (size_t)(i % 700) + 1;
    memset(out, i, bytes);
    CHECK_EQ(coir_send(fd, out, bytes, 0, LONG), bytes);
    CHECK_EQ(coir_read_full(fd, in, bytes, LONG), bytes);
    CHECK_EQ(memcmp(in, out, bytes), 0);
  }
  int again = coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG);
  CHECK(again == 0 || again == -EISCONN); /* the kernel says 0 once more after a connection that took its time */
  CHECK_EQ(coir_close(fd), 0);
  CHECK_EQ(finish(server), 0);
  CHECK_EQ(coir_close(listener), 0);
  return 0;
}

/* A blocking socket that was not made by Coir serves as well, and a blocking listener too. */
FIBER_TEST(foreign_sockets) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof addr;
  int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
  CHECK_EQ(listen(listener, 8), 0);
  CHECK_EQ(getsockname(listener, (struct sockaddr *)&addr, &bytes), 0);
  CHECK_EQ(coir_accept(listener, NULL, NULL, coir_after(COIR_MS(2))), -ETIMEDOUT);
  struct coir_fiber *server = start(echo_server, &listener);
  let_them_wait();
  CHECK_EQ(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG), 0);
  char buf[8];
  CHECK_EQ(coir_write(fd, "abc", 3, LONG), 3);
  CHECK_EQ(coir_read_full(fd, buf, 3, LONG), 3);
  CHECK_EQ(coir_read(fd, buf, sizeof buf, coir_after(COIR_MS(2))), -ETIMEDOUT);
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(finish(server), 0);
  CHECK_EQ(coir_close(listener), 0);
  return 0;
}

FIBER_TEST(udp_transfers) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, from;
  socklen_t bytes = sizeof addr;
  int a = coir_socket(AF_INET, SOCK_DGRAM, 0), b = coir_socket(AF_INET, SOCK_DGRAM, 0);
  CHECK_EQ(bind(a, (struct sockaddr *)&addr, sizeof addr), 0);
  CHECK_EQ(getsockname(a, (struct sockaddr *)&addr, &bytes), 0);
  char buf[32];
  CHECK_EQ(coir_recvfrom(a, buf, sizeof buf, 0, NULL, NULL, coir_after(COIR_MS(2))), -ETIMEDOUT);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(coir_sendto(b, "gram", (size_t)i + 1, 0, (struct sockaddr *)&addr, bytes, LONG), i + 1);
  for (int i = 0; i < 3; i++) {
    bytes = sizeof from;
    CHECK_EQ(coir_recvfrom(a, buf, sizeof buf, 0, (struct sockaddr *)&from, &bytes, LONG), i + 1);
    CHECK_EQ(bytes, sizeof from);
  }
  CHECK_EQ(coir_sendto(a, "back", 4, 0, (struct sockaddr *)&from, bytes, LONG), 4);
  CHECK_EQ(coir_recv(b, buf, sizeof buf, 0, LONG), 4);
  CHECK_EQ(coir_close(a), 0);
  CHECK_EQ(coir_close(b), 0);
  return 0;
}

/* The receiver's queue is full: the sender, who only named it, gets no event when there is room. */
static int drain_later(void *arg) {
  char buf[16];
  let_them_wait();
  while (coir_recv(*(int *)arg, buf, sizeof buf, 0, coir_after(COIR_MS(50))) > 0) {}
  return 0;
}

FIBER_TEST(unix_datagrams_wait_for_room) {
  struct sockaddr_un addr = {.sun_family = AF_UNIX};
  socklen_t bytes = sizeof(sa_family_t);
  int a = coir_socket(AF_UNIX, SOCK_DGRAM, 0), b = coir_socket(AF_UNIX, SOCK_DGRAM, 0);
  CHECK_EQ(bind(a, (struct sockaddr *)&addr, bytes), 0); /* the kernel chooses a name */
  bytes = sizeof addr;
  CHECK_EQ(getsockname(a, (struct sockaddr *)&addr, &bytes), 0);
  while (coir_sendto(b, "x", 1, 0, (struct sockaddr *)&addr, bytes, 0) == 1) {}
  CHECK_EQ(coir_sendto(b, "x", 1, 0, (struct sockaddr *)&addr, bytes, coir_after(COIR_MS(5))), -ETIMEDOUT);
  struct coir_fiber *f = start(drain_later, &a);
  CHECK_EQ(coir_sendto(b, "x", 1, 0, (struct sockaddr *)&addr, bytes, LONG), 1);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(coir_close(a), 0);
  CHECK_EQ(coir_close(b), 0);
  return 0;
}

FIBER_TEST(messages_pass_descriptors) {
  int fds[2], given[2], got = -1;
  make_pair(fds, true);
  CHECK_EQ(pipe(given), 0);
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {0};
  char byte = 'x';
  struct iovec iov = {.iov_base = &byte, .iov_len = 1};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &given[1], sizeof(int));
  CHECK_EQ(coir_sendmsg(fds[0], &msg, 0, LONG), 1);
  memset(&control, 0, sizeof control);
  CHECK_EQ(coir_recvmsg(fds[1], &msg, MSG_CMSG_CLOEXEC, LONG), 1);
  c = CMSG_FIRSTHDR(&msg);
  CHECK(c && c->cmsg_type == SCM_RIGHTS);
  memcpy(&got, CMSG_DATA(c), sizeof(int));
  CHECK_EQ(coir_write(got, "via", 3, LONG), 3);
  char buf[8];
  CHECK_EQ(coir_read(given[0], buf, sizeof buf, LONG), 3);
  CHECK_EQ(coir_recvmsg(fds[1], &msg, 0, coir_after(COIR_MS(1))), -ETIMEDOUT);
  CHECK_EQ(coir_close(got), 0);
  close_pair(given);
  close_pair(fds);
  return 0;
}

FIBER_TEST(vectors) {
  int tcp[2], pipes[2];
  make_tcp(tcp);
  CHECK_EQ(pipe(pipes), 0);
  int ends[2][2] = {{tcp[0], tcp[1]}, {pipes[0], pipes[1]}};
  for (int i = 0; i < 2; i++) {
    char a[3], b[4];
    struct iovec out[2] = {{.iov_base = (char[]){"abc"}, .iov_len = 3}, {.iov_base = (char[]){"defg"}, .iov_len = 4}};
    struct iovec in[2] = {{.iov_base = a, .iov_len = 3}, {.iov_base = b, .iov_len = 4}};
    CHECK_EQ(coir_writev(ends[i][1], out, 2, LONG), 7);
    CHECK_EQ(coir_poll(ends[i][0], COIR_READABLE, LONG), COIR_READABLE);
    CHECK_EQ(coir_readv(ends[i][0], in, 2, LONG), 7);
    CHECK(memcmp(a, "abc", 3) == 0 && memcmp(b, "defg", 4) == 0);
    CHECK_EQ(coir_readv(ends[i][0], in, 2, coir_after(COIR_MS(1))), -ETIMEDOUT);
    CHECK_EQ(coir_readv(ends[i][0], in, 0, LONG), 0);
    CHECK_EQ(coir_writev(ends[i][1], out, 0, LONG), 0);
    CHECK_EQ(coir_readv(ends[i][0], in, -1, LONG), -EINVAL);
    CHECK_EQ(coir_writev(ends[i][1], out, 1 << 20, LONG), -EINVAL);
  }
  close_pair(tcp);
  close_pair(pipes);
  return 0;
}

FIBER_TEST(regular_files) {
  char buf[16];
  int fd = memfd_create("t_io", MFD_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(coir_write(fd, "contents", 8, LONG), 8);
  CHECK_EQ(coir_read(fd, buf, sizeof buf, LONG), 0);
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  CHECK_EQ(coir_read_full(fd, buf, sizeof buf, LONG), 8);
  CHECK_EQ(memcmp(buf, "contents", 8), 0);
  CHECK_EQ(coir_read(fd, buf, sizeof buf, coir_now()), -ETIMEDOUT); /* would have to wait for the pool */
  CHECK_EQ(coir_poll(fd, COIR_READABLE | COIR_WRITABLE, 0), COIR_READABLE | COIR_WRITABLE);
  CHECK_EQ(coir_recv(fd, buf, sizeof buf, 0, LONG), -ENOTSOCK);
  CHECK_EQ(coir_adopt(fd), 0);
  CHECK_EQ(coir_write(fd, "more", 4, LONG), 4);
  CHECK_EQ(coir_close(fd), 0);
  fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK_EQ(coir_read(fd, buf, sizeof buf, LONG), -EISDIR);
  CHECK_EQ(coir_close(fd), 0);
  fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  CHECK_EQ(coir_read(fd, buf, sizeof buf, LONG), 0);
  CHECK_EQ(coir_write(fd, buf, sizeof buf, LONG), sizeof buf);
  CHECK_EQ(coir_close(fd), 0);
  return 0;
}

/* Many calls at once: more than the pool has threads. */
static int file_reader(void *arg) {
  char buf[1];
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  for (int i = 0; i < 20; i++) CHECK_EQ(coir_read(fd, buf, 1, LONG), 1);
  CHECK_EQ(coir_close(fd), 0);
  ++*(_Atomic(int) *)arg;
  return 0;
}

FIBER_TEST(many_files) {
  enum { N = 150 };
  struct coir_fiber *f[N];
  _Atomic(int) done = 0;
  for (int i = 0; i < N; i++) f[i] = start(file_reader, &done);
  for (int i = 0; i < N; i++) CHECK_EQ(finish(f[i]), 0);
  CHECK_EQ(done, N);
  return 0;
}

FIBER_TEST(eventfds) {
  int fd = eventfd(0, EFD_CLOEXEC);
  uint64_t value = 7;
  struct task t = {.fd = fd, .deadline = LONG};
  CHECK_EQ(coir_read(fd, &value, sizeof value, 0), -ETIMEDOUT);
  struct coir_fiber *f = start(task_read, &t);
  let_them_wait();
  CHECK_EQ(coir_write(fd, &value, sizeof value, LONG), sizeof value);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(t.result, sizeof value);
  CHECK_EQ(t.buf[0], 7);
  CHECK_EQ(coir_close(fd), 0);
  return 0;
}

/* ---- Deadlines and cancellation -------------------------------------------------------------------------------- */

FIBER_TEST(deadlines_are_never_early) {
  int fds[2];
  make_tcp(fds);
  char buf[4];
  for (int i = 0; i < 20; i++) {
    int64_t deadline = coir_after(COIR_US(100) * (i + 1));
    CHECK_EQ(i % 2 ? coir_read(fds[0], buf, 4, deadline) : coir_poll(fds[0], COIR_READABLE, deadline), -ETIMEDOUT);
    CHECK(coir_now() >= deadline);
  }
  CHECK_EQ(coir_read(fds[0], buf, 4, 0), -ETIMEDOUT);
  CHECK_EQ(coir_read(fds[0], buf, 4, -5), -ETIMEDOUT);
  /* Data that the poller has not been asked about is found by a call that may not wait. */
  CHECK_EQ(send(fds[1], "now", 3, 0), 3);
  CHECK_EQ(coir_read(fds[0], buf, 4, 0), 3);
  close_pair(fds);
  return 0;
}

FIBER_TEST(poll_reports_what_holds) {
  for (int adopt = 0; adopt < 2; adopt++) {
    int fds[2];
    make_pair(fds, adopt);
    CHECK_EQ(coir_poll(fds[0], COIR_READABLE | COIR_WRITABLE, LONG), COIR_WRITABLE);
    CHECK_EQ(coir_poll(fds[0], COIR_READABLE, 0), -ETIMEDOUT);
    CHECK_EQ(coir_poll(fds[0], 0, 0), -EINVAL);
    CHECK_EQ(coir_poll(fds[0], 4, 0), -EINVAL);
    CHECK_EQ(send(fds[1], "x", 1, 0), 1);
    CHECK_EQ(coir_poll(fds[0], COIR_READABLE | COIR_WRITABLE, LONG), COIR_READABLE | COIR_WRITABLE);
    CHECK_EQ(coir_poll(fds[0], COIR_READABLE, LONG), COIR_READABLE);
    CHECK_EQ(coir_close(fds[1]), 0);
    CHECK_EQ(coir_poll(fds[0], COIR_WRITABLE, LONG), COIR_WRITABLE);
    CHECK_EQ(coir_close(fds[0]), 0);
  }
  return 0;
}

/* Reads a stream of consecutive bytes, again and again cancelled. */
static int counting_reader(void *arg) {
  int fd = *(int *)arg, canceled = 0;
  unsigned char next = 0, buf[100];
  for (ssize_t n; (n = coir_read(fd, buf, sizeof buf, LONG)) != 0;) {
    if (n == -ECANCELED) canceled++;
    else CHECK(n > 0);
    for (ssize_t i = 0; i < n; i++) CHECK_EQ(buf[i], next++);
  }
  CHECK_EQ(next, 30000 / SLOW % 256);
  return canceled;
}

FIBER_TEST(cancellation_loses_no_data) {
  for (int tcp = 0; tcp < 2; tcp++) {
    int fds[2];
    if (tcp) make_tcp(fds);
    else make_pair(fds, false);
    struct coir_fiber *f = start(counting_reader, &fds[1]);
    unsigned char bytes[3], next = 0;
    for (int i = 0; i < 10000 / SLOW; i++) {
      for (int k = 0; k < 3; k++) bytes[k] = next++;
      CHECK_EQ(coir_write_full(fds[0], bytes, 3, LONG), 3);
      if (i % 2) coir_cancel(f);
      if (i % 3 == 0) coir_yield();
    }
    let_them_wait();
    CHECK_EQ(coir_cancel(f), 0);
    let_them_wait();
    CHECK_EQ(coir_close(fds[0]), 0);
    CHECK(finish(f) >= 1);
    CHECK_EQ(coir_close(fds[1]), 0);
  }
  return 0;
}

static int read_ten(void *arg) {
  struct task *t = arg;
  t->result = coir_read_full(t->fd, t->buf, 10, t->deadline);
  CHECK_EQ(t->result, 4);
  return (int)coir_read_full(t->fd, t->buf, 10, t->deadline);
}

FIBER_TEST(partial_reads_keep_the_error) {
  int fds[2];
  make_tcp(fds);
  struct task t = {.fd = fds[0], .deadline = LONG};
  struct coir_fiber *f = start(read_ten, &t);
  CHECK_EQ(coir_write(fds[1], "four", 4, LONG), 4);
  let_them_wait();
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(finish(f), -ECANCELED);

  f = start(read_ten, &t);
  CHECK_EQ(coir_write(fds[1], "four", 4, LONG), 4);
  let_them_wait();
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  CHECK_EQ(finish(f), -ECONNRESET);
  CHECK_EQ(coir_close(fds[0]), 0);
  return 0;
}

/* ---- Closing --------------------------------------------------------------------------------------------------- */

FIBER_TEST(close_wakes_readers_and_writers) {
  for (int adopt = 0; adopt < 2; adopt++) {
    int fds[2];
    make_pair(fds, adopt);
    struct task r[2] = {{.fd = fds[0], .deadline = COIR_NEVER}, {.fd = fds[0], .deadline = LONG}};
    struct task w = {.fd = fds[0], .deadline = COIR_NEVER};
    struct coir_fiber *f[3] = {start(task_read, &r[0]), start(task_read, &r[1]), start(task_write, &w)};
    let_them_wait();
    CHECK_EQ(coir_close(fds[0]), 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(finish(f[i]), 0);
    CHECK(r[0].result == -EBADF && r[1].result == -EBADF && w.result == -EBADF);
    CHECK_EQ(coir_close(fds[0]), -EBADF);
    CHECK_EQ(coir_close(fds[1]), 0);
  }
  return 0;
}

/* Readers that are closed under, while the number is taken again at once: none may read from its next life. */
static int read_until_closed(void *arg) {
  char c;
  ssize_t n;
  while ((n = coir_read(*(int *)arg, &c, 1, LONG)) == 1) CHECK_EQ(c, 'a');
  CHECK_EQ(n, -EBADF);
  return 0;
}

FIBER_TEST(close_against_readers) {
  for (int i = 0; i < 1000 / SLOW; i++) {
    int fds[2], next[2];
    make_pair(fds, true);
    struct coir_fiber *f = start(read_until_closed, &fds[0]);
    CHECK_EQ(coir_write(fds[1], "aaaa", 4, LONG), 4);
    if (i % 2) coir_yield();
    CHECK_EQ(coir_close(fds[0]), 0);
    CHECK_EQ(finish(f), 0);
    make_pair(next, true);
    CHECK_EQ(next[0], fds[0]);
    CHECK_EQ(coir_write(next[1], "b", 1, LONG), 1);
    char c;
    CHECK(coir_read(next[0], &c, 1, LONG) == 1 && c == 'b');
    close_pair(next);
    CHECK_EQ(coir_close(fds[1]), 0);
  }
  return 0;
}

/* Writes to a socket whose other end was closed. The kernel itself may have that for a moment longer, on another CPU:
 * in epoll_wait, where it looks at what is watched. */
static ssize_t write_stale(int fd) {
  ssize_t n = 5;
  for (int64_t end = LONG; n == 5 && coir_now() < end; coir_yield()) n = coir_write(fd, "stale", 5, LONG);
  return n;
}

FIBER_TEST(numbers_are_reused) {
  for (int i = 0; i < 300; i++) {
    int fds[2], spare = -1, by_close = i % 3;
    make_pair(fds, by_close != 0);
    struct task t = {.fd = fds[0], .deadline = LONG};
    struct coir_fiber *f = start(task_read, &t);
    coir_yield();
    CHECK_EQ(coir_write(fds[1], "old", 3, LONG), 3);
    CHECK_EQ(finish(f), 0);
    CHECK_EQ(t.result, 3);
    if (i % 2) spare = dup(fds[0]); /* keeps the file, and what watches it, alive */
    CHECK_EQ(by_close ? coir_close(fds[0]) : close(fds[0]), 0);
    int next[2];
    CHECK_EQ(i % 5 ? socketpair(AF_UNIX, SOCK_STREAM, 0, next) : pipe(next), 0);
    CHECK_EQ(next[0], fds[0]);
    CHECK_EQ(coir_read(next[0], t.buf, 1, 0), -ETIMEDOUT);
    f = start(task_read, &t);
    if (i % 7) coir_yield();
    CHECK_EQ(spare >= 0 ? coir_write(fds[1], "stale", 5, LONG) : write_stale(fds[1]), spare >= 0 ? 5 : -EPIPE);
    CHECK_EQ(coir_write(next[1], "new!", 4, LONG), 4);
    CHECK_EQ(finish(f), 0);
    CHECK_EQ(t.result, 4);
    if (spare >= 0) CHECK_EQ(coir_close(spare), 0);
    CHECK_EQ(coir_close(fds[1]), 0);
    if (i % 5) close_pair(next);
    else CHECK(close(next[0]) == 0 && close(next[1]) == 0);
  }
  return 0;
}

/* To ThreadSanitizer it is a race to close what another thread waits on, and to take its number again. It is one, and
 * to be tested; so it is not to know. */
static int plain_close(int fd) { return (int)syscall(SYS_close, fd); }
static int plain_pair(int fds[2]) { return (int)syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds); }
static int plain_pipe(int fds[2]) { return (int)syscall(SYS_pipe2, fds, O_CLOEXEC); }

/* A descriptor that was closed by close(2) under its reader, and whose number now is another one's. */
FIBER_TEST(reuse_ends_a_stale_wait) {
  int fds[2], next[2];
  CHECK_EQ(plain_pair(fds), 0);
  struct task stale = {.fd = fds[0], .deadline = LONG}, t = {.fd = fds[0], .deadline = LONG};
  struct coir_fiber *f = start(task_read, &stale);
  until_waits(f);
  CHECK_EQ(plain_close(fds[0]), 0);
  CHECK_EQ(plain_pair(next), 0);
  CHECK_EQ(next[0], fds[0]);
  struct coir_fiber *g = start(task_read, &t);
  let_them_wait();
  CHECK_EQ(coir_write(next[1], "new", 3, LONG), 3);
  CHECK_EQ(finish(g), 0);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(t.result, 3);
  CHECK_EQ(stale.result, -EBADF);
  close_pair(next);
  CHECK_EQ(coir_close(fds[1]), 0);
  return 0;
}

/* ---- Closing by close(2) --------------------------------------------------------------------------------------- */

#define PROMISED (COIR_SEC(3) * (SLOW > 1 ? 2 : 1))

static int task_accept(void *arg) {
  struct task *t = arg;
  t->result = coir_accept(t->fd, NULL, NULL, t->deadline);
  return 0;
}

static int task_poll(void *arg) {
  struct task *t = arg;
  t->result = coir_poll(t->fd, COIR_READABLE, t->deadline);
  return 0;
}

static int task_select(void *arg) {
  struct task *t = arg;
  struct coir_arm arm = {.kind = COIR_ARM_FD, .fd = t->fd, .events = COIR_READABLE};
  CHECK_EQ(coir_select(&arm, 1, t->deadline), 0);
  t->result = arm.result;
  return 0;
}

static void *thread_task_read(void *arg) {
  ((struct task *)arg)->tid = gettid();
  task_read(arg);
  return NULL;
}

/* Until the thread sleeps, and goes on sleeping. */
static void until_thread_waits(struct task *t) {
  int sleeps = 0;
  for (int64_t limit = LONG; sleeps < 5; coir_sleep(COIR_MS(2))) {
    char path[64], state = 0;
    CHECK(coir_now() < limit);
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", t->tid);
    FILE *file = t->tid ? fopen(path, "r") : NULL;
    if (file && fscanf(file, "%*d %*s %c", &state) != 1) state = 0;
    if (file) fclose(file);
    sleeps = state == 'S' ? sleeps + 1 : 0;
  }
}

/* A listener that nobody has adopted. */
static int foreign_listener(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_EQ(bind(fd, &(struct sockaddr){.sa_family = AF_UNIX}, sizeof(sa_family_t)), 0);
  CHECK_EQ(listen(fd, 8), 0);
  return fd;
}

/* Everybody is told, but for who waits on what is adopted: that is not looked at. */
FIBER_TEST(plain_close_ends_waits) {
  enum { N = 7 };
  const coir_fn fns[N] = {task_read, task_write, task_accept, task_poll, task_select, task_read, task_poll};
  struct task t[N], on_thread, adopted;
  struct coir_fiber *f[N], *stays;
  int fds[6], pipes[2];
  pthread_t thread;
  CHECK_EQ(plain_pair(fds), 0);
  CHECK_EQ(plain_pair(fds + 2), 0);
  CHECK_EQ(plain_pair(fds + 4), 0);
  CHECK_EQ(plain_pipe(pipes), 0);
  int all[N] = {fds[0], fds[0], foreign_listener(), fds[2], pipes[0], eventfd(0, 0), fds[0]};
  for (int i = 0; i < N; i++) {
    t[i] = (struct task){.fd = all[i], .deadline = LONG};
    f[i] = start(fns[i], &t[i]);
  }
  on_thread = (struct task){.fd = fds[4], .deadline = LONG};
  CHECK_EQ(pthread_create(&thread, NULL, thread_task_read, &on_thread), 0);
  adopted = (struct task){.fd = eventfd(0, 0), .deadline = LONG, .result = 1};
  CHECK_EQ(coir_adopt(adopted.fd), 0);
  stays = start(task_read, &adopted);
  for (int i = 0; i < N; i++) until_waits(f[i]);
  until_waits(stays);
  until_thread_waits(&on_thread);

  int64_t closed_at = coir_now();
  CHECK(plain_close(fds[0]) == 0 && plain_close(all[2]) == 0 && plain_close(fds[2]) == 0 && plain_close(pipes[0]) == 0);
  CHECK(plain_close(all[5]) == 0 && plain_close(fds[4]) == 0 && plain_close(adopted.fd) == 0);
  for (int i = 0; i < N; i++) {
    CHECK_EQ(finish(f[i]), 0);
    CHECK_EQ(t[i].result, -EBADF);
  }
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(on_thread.result, -EBADF);
  CHECK(coir_now() - closed_at < PROMISED);
  CHECK_EQ(adopted.result, 1);
  CHECK_EQ(coir_cancel(stays), 0);
  CHECK_EQ(finish(stays), 0);
  CHECK_EQ(coir_close(adopted.fd), -EBADF); /* its life ends */
  CHECK(plain_close(fds[1]) == 0 && plain_close(fds[3]) == 0 && plain_close(fds[5]) == 0 && plain_close(pipes[1]) == 0);
  return 0;
}

/* The number is another file's at once, for which somebody waits or nobody. The old waiter reads nothing of it. */
FIBER_TEST(plain_close_and_reuse) {
  enum { KINDS = 5 };
  struct task stale[KINDS], t = {.deadline = LONG};
  struct coir_fiber *f[KINDS], *g;
  int fds[KINDS][2], next[KINDS][2], dups[KINDS];
  for (int i = 0; i < KINDS; i++) {
    CHECK_EQ(plain_pair(fds[i]), 0);
    stale[i] = (struct task){.fd = fds[i][0], .deadline = LONG};
    f[i] = start(task_read, &stale[i]);
  }
  for (int i = 0; i < KINDS; i++) until_waits(f[i]);
  int64_t closed_at = coir_now();
  for (int i = 0; i < KINDS; i++) {
    dups[i] = i % 2 ? dup(fds[i][0]) : -1; /* keeps the file, and what watches it, alive */
    CHECK_EQ(plain_close(fds[i][0]), 0);
    if (i == 2) next[i][0] = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/exe", O_RDONLY | O_CLOEXEC);
    else CHECK_EQ(i ? plain_pair(next[i]) : plain_pipe(next[i]), 0);
    CHECK_EQ(next[i][0], fds[i][0]);
    if (i != 2) CHECK_EQ(write(next[i][1], "new", 3), 3);
    if (i == 4) CHECK_EQ(coir_adopt(next[i][0]), 0);
  }
  t.fd = next[3][0];
  g = start(task_read, &t);
  CHECK_EQ(finish(g), 0);
  CHECK_EQ(t.result, 3);
  for (int i = 0; i < KINDS; i++) {
    CHECK_EQ(finish(f[i]), 0);
    CHECK_EQ(stale[i].result, -EBADF);
  }
  CHECK(coir_now() - closed_at < PROMISED);
  for (int i = 0; i < KINDS; i++) {
    char buf[8];
    if (i < 2 || i == 4) CHECK_EQ(coir_read(next[i][0], buf, 8, LONG), 3);
    CHECK_EQ(coir_read(next[i][0], buf, 8, coir_after(COIR_MS(2))), i == 2 ? 8 : -ETIMEDOUT);
    CHECK_EQ(coir_disown(next[i][0]), 0);
    CHECK_EQ(plain_close(next[i][0]), 0);
    CHECK_EQ(plain_close(fds[i][1]), 0);
    if (i != 2) CHECK_EQ(plain_close(next[i][1]), 0);
    if (dups[i] >= 0) CHECK_EQ(plain_close(dups[i]), 0);
  }
  return 0;
}

/* The file lives on under another number, and there goes on working. */
FIBER_TEST(plain_close_of_a_duplicate) {
  int fds[2];
  CHECK_EQ(plain_pair(fds), 0);
  struct task t = {.fd = dup(fds[0]), .deadline = LONG}, other = {.fd = fds[0], .deadline = LONG};
  struct coir_fiber *f = start(task_read, &t), *g = start(task_read, &other);
  until_waits(f);
  until_waits(g);
  CHECK_EQ(plain_close(t.fd), 0);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(t.result, -EBADF);
  CHECK_EQ(coir_write(fds[1], "data", 4, LONG), 4);
  CHECK_EQ(finish(g), 0);
  CHECK_EQ(other.result, 4);
  close_pair(fds);
  return 0;
}

/* A fiber and a plain thread wait for the same one, each watched by its own poller; the number is taken again. */
FIBER_TEST(plain_close_reaches_other_runtimes) {
  for (int i = 0; i < 2; i++) {
    int fds[2], next[2];
    pthread_t threads[2];
    CHECK_EQ(plain_pair(fds), 0);
    struct task a = {.fd = fds[0], .deadline = LONG}, b = a, c = a, d = a;
    struct coir_fiber *f = NULL, *g;
    if (i) until_waits(f = start(task_read, &a));
    CHECK_EQ(pthread_create(&threads[0], NULL, thread_task_read, &b), 0);
    until_thread_waits(&b);
    if (!i) until_waits(f = start(task_read, &a));
    CHECK_EQ(plain_close(fds[0]), 0);
    CHECK_EQ(plain_pair(next), 0);
    CHECK_EQ(next[0], fds[0]);
    CHECK_EQ(pthread_create(&threads[1], NULL, thread_task_read, &c), 0);
    until_thread_waits(&c);
    until_waits(g = start(task_read, &d));
    CHECK_EQ(finish(f), 0);
    CHECK_EQ(pthread_join(threads[0], NULL), 0);
    CHECK_EQ(a.result, -EBADF);
    CHECK_EQ(b.result, -EBADF);
    CHECK_EQ(coir_write(next[1], "1", 1, LONG), 1);
    while (c.result + d.result == 0) coir_sleep(COIR_MS(1));
    CHECK_EQ(coir_write(next[1], "2", 1, LONG), 1);
    CHECK_EQ(finish(g), 0);
    CHECK_EQ(pthread_join(threads[1], NULL), 0);
    CHECK_EQ(c.result, 1);
    CHECK_EQ(d.result, 1);
    close_pair(next);
    CHECK_EQ(coir_close(fds[1]), 0);
  }
  return 0;
}

/* The runtime that a descriptor was watched by first goes, while a thread waits for it. */
static void plain_close_after_a_runtime(void **state) {
  (void)state;
  int fds[2];
  CHECK_EQ(plain_pair(fds), 0);
  struct coir_runtime *rt;
  struct coir_fiber *f;
  pthread_t thread;
  struct task first = {.fd = fds[0], .deadline = coir_after(COIR_MS(2))}, t = {.fd = fds[0], .deadline = LONG};
  CHECK_EQ(coir_runtime_create(&rt, &(struct coir_config){.workers = 1}), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, task_read, &first, NULL, &f), 0);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(first.result, -ETIMEDOUT);
  CHECK_EQ(pthread_create(&thread, NULL, thread_task_read, &t), 0);
  until_thread_waits(&t);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, LONG), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  until_thread_waits(&t);
  CHECK_EQ(plain_close(fds[0]), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(t.result, -EBADF);
  CHECK_EQ(plain_close(fds[1]), 0);
}

/* How often the keeper has gone to sleep; 0: there is none. */
static long keeper_sleeps(void) {
  long sleeps = 0;
  DIR *dir = opendir("/proc/self/task");
  CHECK(dir);
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    char path[300], line[200];
    bool is_keeper = false;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
    FILE *file = e->d_name[0] == '.' ? NULL : fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
      if (strcmp(line, "Name:\tcoir-keeper\n") == 0) is_keeper = true;
      if (is_keeper) sscanf(line, "voluntary_ctxt_switches: %ld", &sleeps);
    }
    if (file) fclose(file);
  }
  closedir(dir);
  return sleeps;
}

/* Descriptors are looked at while somebody waits, and soon nobody does. */
FIBER_TEST(the_check_ends) {
  int fds[2];
  CHECK_EQ(plain_pair(fds), 0);
  struct task t = {.fd = fds[0], .deadline = LONG};
  struct coir_fiber *f = start(task_read, &t);
  let_them_wait();
  long before = keeper_sleeps();
  CHECK(before > 0);
  for (int i = 0; i < 100 && keeper_sleeps() == before; i++) CHECK_EQ(coir_sleep(COIR_MS(50)), 0);
  CHECK(keeper_sleeps() > before);
  CHECK_EQ(coir_write(fds[1], "x", 1, LONG), 1);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(t.result, 1);
  close_pair(fds);
  if (IS_TSAN) return 0; /* with it they wake for signals */
  for (int i = 0, quiet = 0; quiet < 5; i++) { /* five times 300 ms without a look */
    CHECK(i < 60);
    before = keeper_sleeps();
    CHECK_EQ(coir_sleep(COIR_MS(300)), 0);
    quiet = keeper_sleeps() == before ? quiet + 1 : 0;
  }
  return 0;
}

/* ---- Disowning ------------------------------------------------------------------------------------------------- */

/* Who waits goes on waiting, be it a fiber or a thread, and gets what comes. */
FIBER_TEST(disowned_waits_go_on) {
  for (int i = 0; i < 2; i++) {
    int fds[2];
    pthread_t thread;
    make_pair(fds, true);
    struct task t = {.fd = fds[0], .deadline = LONG, .result = -1}, u = t;
    struct coir_fiber *f = start(task_read, &t);
    CHECK_EQ(pthread_create(&thread, NULL, thread_task_read, &u), 0);
    until_waits(f);
    until_thread_waits(&u);
    CHECK_EQ(coir_disown(fds[0]), 0);
    CHECK_EQ(coir_disown(fds[0]), 0);
    let_them_wait();
    CHECK(t.result == -1 && u.result == -1);
    if (i == 0) {
      CHECK_EQ(coir_write(fds[1], "1", 1, LONG), 1);
      while (t.result < 0 && u.result < 0) coir_sleep(COIR_MS(1));
      CHECK_EQ(coir_write(fds[1], "2", 1, LONG), 1);
    } else {
      int next[2];
      int64_t closed_at = coir_now();
      CHECK_EQ(plain_close(fds[0]), 0);
      CHECK_EQ(plain_pair(next), 0);
      CHECK_EQ(next[0], fds[0]);
      CHECK_EQ(write(next[1], "new", 3), 3);
      CHECK_EQ(finish(f), 0);
      f = NULL;
      CHECK(coir_now() - closed_at < PROMISED);
      CHECK_EQ(coir_read(next[0], (char[4]){0}, 4, LONG), 3);
      close_pair(next);
    }
    if (f) CHECK_EQ(finish(f), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(t.result, i ? -EBADF : 1);
    CHECK_EQ(u.result, i ? -EBADF : 1);
    if (i == 0) CHECK_EQ(plain_close(fds[0]), 0);
    CHECK_EQ(coir_close(fds[1]), 0);
  }
  return 0;
}

static int task_read_full(void *arg) {
  struct task *t = arg;
  t->result = coir_read_full(t->fd, t->buf, sizeof t->buf, t->deadline);
  return 0;
}

/* Nothing that was known of the descriptor is believed of what gets its number. */
FIBER_TEST(disowned_numbers_are_reused) {
  for (int i = 0; i < 30; i++) {
    int fds[2], next[2];
    make_tcp(fds);
    struct task t = {.fd = fds[0], .deadline = LONG};
    if (i % 3 == 0) { /* an error is kept */
      struct coir_fiber *f = start(task_read_full, &t);
      CHECK_EQ(coir_write(fds[1], "four", 4, LONG), 4);
      let_them_wait();
      struct linger reset = {.l_onoff = 1, .l_linger = 0};
      CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
      CHECK_EQ(coir_close(fds[1]), 0);
      CHECK_EQ(finish(f), 0);
      CHECK_EQ(t.result, 4);
    } else { /* it is dry */
      CHECK_EQ(coir_read(fds[0], t.buf, 4, coir_after(COIR_US(100))), -ETIMEDOUT);
      CHECK_EQ(coir_close(fds[1]), 0);
    }
    CHECK_EQ(coir_disown(fds[0]), 0);
    CHECK_EQ(plain_close(fds[0]), 0);
    CHECK_EQ(i % 2 ? plain_pipe(next) : plain_pair(next), 0);
    CHECK(next[0] == fds[0] || next[1] == fds[0]);
    CHECK_EQ(write(next[1], "new data", 8), 8);
    CHECK_EQ(coir_read(next[0], t.buf, 3, LONG), 3);
    CHECK_EQ(coir_read(next[0], t.buf, 10, LONG), 5);
    CHECK_EQ(coir_read(next[0], t.buf, 10, coir_after(COIR_US(100))), -ETIMEDOUT);
    CHECK_EQ(write(next[1], "more", 4), 4);
    CHECK_EQ(coir_read(next[0], t.buf, 10, LONG), 4);
    CHECK(plain_close(next[0]) == 0 && plain_close(next[1]) == 0);
  }
  return 0;
}

FIBER_TEST(disowned_and_adopted_again) {
  int fds[2];
  make_pair(fds, true);
  for (int i = 0; i < 60; i++) {
    CHECK_EQ(i % 3 ? coir_disown(fds[i % 2]) : coir_adopt(fds[i % 2]), 0);
    ping_pong(fds[0], fds[1]);
    ping_pong(fds[1], fds[0]);
  }
  close_pair(fds);
  CHECK_EQ(coir_disown(fds[0]), -EBADF);
  CHECK_EQ(coir_disown(-1), -EBADF);
  int pipes[2];
  CHECK_EQ(plain_pipe(pipes), 0);
  CHECK_EQ(coir_disown(pipes[0]), 0); /* it was not adopted */
  close_pair(pipes);
  return 0;
}

static int read_bytes(void *arg) {
  char c;
  int n = 0;
  while (coir_read(*(int *)arg, &c, 1, LONG) == 1) n++;
  return n;
}

/* Adopting and disowning under those who read: nobody is forgotten. */
struct turner {
  int fd;
  _Atomic(bool) is_over;
};

static int adopt_and_disown(void *arg) {
  struct turner *t = arg;
  while (!t->is_over) {
    CHECK_EQ(coir_adopt(t->fd), 0);
    CHECK_EQ(coir_sleep(COIR_US(30)), 0);
    CHECK_EQ(coir_disown(t->fd), 0);
    coir_yield();
  }
  return 0;
}

FIBER_TEST(adopting_and_disowning_under_readers) {
  int fds[2];
  make_tcp(fds);
  struct turner t = {.fd = fds[0]};
  struct coir_fiber *f[2] = {start(read_bytes, &fds[0]), start(read_bytes, &fds[0])};
  struct coir_fiber *turner = start(adopt_and_disown, &t);
  for (int i = 0; i < 3000 / SLOW; i++) {
    CHECK_EQ(coir_write(fds[1], "abc", 3, LONG), 3);
    if (i % 10 == 0) CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  }
  CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
  int first = finish(f[0]), second = finish(f[1]);
  CHECK_EQ(first + second, 3 * (3000 / SLOW));
  t.is_over = true;
  CHECK_EQ(finish(turner), 0);
  close_pair(fds);
  return 0;
}

/* ---- Directions ------------------------------------------------------------------------------------------------- */

FIBER_TEST(both_directions_at_once) {
  int fds[2];
  make_tcp(fds);
  struct task r = {.fd = fds[0], .deadline = LONG}, w = {.fd = fds[0], .deadline = coir_after(COIR_SEC(1))};
  struct coir_fiber *writer = start(task_write, &w), *reader = start(task_read, &r);
  let_them_wait();
  CHECK_EQ(coir_write(fds[1], "in", 2, LONG), 2); /* wakes the reader, and not the writer */
  CHECK_EQ(finish(reader), 0);
  CHECK_EQ(r.result, 2);
  static char buf[1 << 16];
  for (int i = 0; i < 100; i++) CHECK(coir_read(fds[1], buf, sizeof buf, LONG) > 0); /* makes room again and again */
  CHECK_EQ(coir_close(fds[1]), 0);
  CHECK_EQ(finish(writer), 0);
  CHECK(w.result == -EPIPE || w.result == -ECONNRESET);
  CHECK_EQ(coir_close(fds[0]), 0);
  return 0;
}

FIBER_TEST(two_readers_share_a_stream) {
  int fds[2];
  make_tcp(fds);
  struct coir_fiber *f[2] = {start(read_bytes, &fds[0]), start(read_bytes, &fds[0])};
  for (int i = 0; i < 1000 / SLOW; i++) {
    CHECK_EQ(coir_write(fds[1], "abc", 3, LONG), 3);
    if (i % 10 == 0) coir_yield();
  }
  CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
  int first = finish(f[0]), second = finish(f[1]);
  CHECK_EQ(first + second, 3000 / SLOW);
  close_pair(fds);
  return 0;
}

/* ---- Connections ----------------------------------------------------------------------------------------------- */

FIBER_TEST(connect_refused) {
  struct sockaddr_in addr;
  CHECK_EQ(coir_close(make_listener(&addr, 1)), 0);
  for (int adopt = 0; adopt < 2; adopt++) {
    int fd = adopt ? coir_socket(AF_INET, SOCK_STREAM, 0) : socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG), -ECONNREFUSED);
    CHECK_EQ(coir_close(fd), 0);
  }
  return 0;
}

FIBER_TEST(connect_times_out) {
  enum { MAX = 16 };
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 0), fds[MAX], n = 0, rc = 0;
  while (n < MAX && rc == 0) {
    fds[n] = coir_socket(AF_INET, SOCK_STREAM, 0);
    int64_t deadline = coir_after(COIR_MS(30));
    rc = coir_connect(fds[n++], (struct sockaddr *)&addr, sizeof addr, deadline);
    if (rc) CHECK(rc == -ETIMEDOUT && coir_now() >= deadline);
  }
  CHECK_EQ(rc, -ETIMEDOUT);
  while (n > 0) CHECK_EQ(coir_close(fds[--n]), 0);
  CHECK_EQ(coir_close(listener), 0);
  return 0;
}

static int accept_one(void *arg) {
  let_them_wait();
  int fd = coir_accept(*(int *)arg, NULL, NULL, LONG);
  CHECK(fd >= 0);
  return coir_close(fd);
}

FIBER_TEST(unix_backlog_is_waited_for) {
  enum { MAX = 16 };
  struct sockaddr_un addr = {.sun_family = AF_UNIX};
  socklen_t bytes = sizeof(sa_family_t);
  int listener = coir_socket(AF_UNIX, SOCK_STREAM, 0), fds[MAX], n = 0, rc = 0;
  CHECK_EQ(bind(listener, (struct sockaddr *)&addr, bytes), 0);
  CHECK_EQ(listen(listener, 0), 0);
  bytes = sizeof addr;
  CHECK_EQ(getsockname(listener, (struct sockaddr *)&addr, &bytes), 0);
  while (n < MAX && rc == 0) {
    fds[n] = coir_socket(AF_UNIX, SOCK_STREAM, 0);
    rc = coir_connect(fds[n++], (struct sockaddr *)&addr, bytes, coir_after(COIR_MS(10)));
  }
  CHECK_EQ(rc, -ETIMEDOUT);
  struct coir_fiber *f = start(accept_one, &listener);
  CHECK_EQ(coir_connect(fds[n - 1], (struct sockaddr *)&addr, bytes, LONG), 0);
  CHECK_EQ(finish(f), 0);
  while (n > 0) CHECK_EQ(coir_close(fds[--n]), 0);
  CHECK_EQ(coir_close(listener), 0);
  return 0;
}

/* Accepts with deadlines of a millisecond, and serves each connection: it sends some bytes and closes. */
struct acceptor {
  int fd;
  _Atomic(int) accepted;
};

static int impatient_acceptor(void *arg) {
  struct acceptor *a = arg;
  while (a->accepted < 300) {
    int fd = coir_accept(a->fd, NULL, NULL, coir_after(COIR_MS(1)));
    if (fd == -ETIMEDOUT) continue;
    CHECK(fd >= 0);
    a->accepted++;
    CHECK_EQ(coir_close(fd), 0);
  }
  return 0;
}

FIBER_TEST(accept_deadlines_lose_no_connection) {
  struct sockaddr_in addr;
  struct acceptor a = {.fd = make_listener(&addr, 128)};
  int before = open_count();
  struct coir_fiber *f[2] = {start(impatient_acceptor, &a), start(impatient_acceptor, &a)};
  for (int i = 0; i < 300; i++) {
    if (i % 3 == 0) CHECK_EQ(coir_sleep(COIR_US(990)), 0); /* about when a deadline comes */
    int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG), 0);
    CHECK_EQ(coir_close(fd), 0);
  }
  for (int i = 0; i < 2; i++) CHECK_EQ(finish(f[i]), 0);
  CHECK_EQ(a.accepted, 300);
  CHECK_EQ(coir_accept(a.fd, NULL, NULL, 0), -ETIMEDOUT);
  CHECK_EQ(open_count(), before);
  CHECK_EQ(coir_close(a.fd), 0);
  return 0;
}

/* Data and the end of the stream race with the reader's wait: each round a connection. */
static int brief_server(void *arg) {
  struct acceptor *a = arg;
  for (int i = 0; i < 10000 / SLOW; i++) {
    int fd = coir_accept(a->fd, NULL, NULL, LONG);
    CHECK(fd >= 0);
    CHECK_EQ(coir_send(fd, "0123456789", 1 + (size_t)(i % 10), 0, LONG), 1 + i % 10);
    if (i % 4 == 0) coir_yield();
    CHECK_EQ(coir_close(fd), 0);
  }
  return 0;
}

FIBER_TEST(end_of_stream_races_with_reads) {
  struct sockaddr_in addr;
  struct acceptor a = {.fd = make_listener(&addr, 128)};
  struct coir_fiber *f = start(brief_server, &a);
  for (int i = 0; i < 10000 / SLOW; i++) {
    int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG), 0);
    char buf[64];
    CHECK_EQ(coir_read_full(fd, buf, sizeof buf, LONG), 1 + i % 10);
    CHECK_EQ(coir_read(fd, buf, sizeof buf, LONG), 0);
    CHECK_EQ(coir_close(fd), 0);
  }
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(coir_close(a.fd), 0);
  return 0;
}

/* ---- Errors ---------------------------------------------------------------------------------------------------- */

FIBER_TEST(bad_descriptors) {
  int closed = eventfd(0, 0);
  CHECK_EQ(close(closed), 0);
  int bad[] = {-1, INT32_MIN, closed, 1000000, INT32_MAX};
  char buf[4];
  struct iovec iov = {.iov_base = buf, .iov_len = 4};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  struct sockaddr_in addr = {.sin_family = AF_INET};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int fd = bad[i];
    CHECK_EQ(coir_read(fd, buf, 4, LONG), -EBADF);
    CHECK_EQ(coir_write(fd, buf, 4, LONG), -EBADF);
    CHECK_EQ(coir_readv(fd, &iov, 1, LONG), -EBADF);
    CHECK_EQ(coir_writev(fd, &iov, 1, LONG), -EBADF);
    CHECK_EQ(coir_read_full(fd, buf, 4, LONG), -EBADF);
    CHECK_EQ(coir_write_full(fd, buf, 4, LONG), -EBADF);
    CHECK_EQ(coir_recv(fd, buf, 4, 0, LONG), -EBADF);
    CHECK_EQ(coir_recvmsg(fd, &msg, 0, LONG), -EBADF);
    CHECK_EQ(coir_send(fd, buf, 4, 0, LONG), -EBADF);
    CHECK_EQ(coir_sendmsg(fd, &msg, 0, LONG), -EBADF);
    CHECK_EQ(coir_accept(fd, NULL, NULL, LONG), -EBADF);
    CHECK_EQ(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG), -EBADF);
    CHECK_EQ(coir_poll(fd, COIR_READABLE, LONG), -EBADF);
    CHECK_EQ(coir_adopt(fd), -EBADF);
    CHECK_EQ(coir_close(fd), -EBADF);
  }
  CHECK_EQ(coir_socket(AF_INET, 999, 0), -EINVAL);
  return 0;
}

FIBER_TEST(out_of_descriptors) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 8), fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, LONG), 0);
  struct rlimit old, low;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  int next = dup(0);
  CHECK_EQ(close(next), 0);
  low = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = old.rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  CHECK_EQ(coir_accept(listener, NULL, NULL, LONG), -EMFILE);
  CHECK_EQ(coir_accept(listener, NULL, NULL, LONG), -EMFILE);
  CHECK_EQ(coir_socket(AF_INET, SOCK_STREAM, 0), -EMFILE);
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  int peer = coir_accept(listener, NULL, NULL, LONG); /* it stayed in the backlog */
  CHECK(peer >= 0);
  ping_pong(fd, peer);
  CHECK_EQ(coir_close(fd), 0);
  CHECK_EQ(coir_close(peer), 0);
  CHECK_EQ(coir_close(listener), 0);
  return 0;
}

/* ---- SIGPIPE --------------------------------------------------------------------------------------------------- */

static _Atomic(int) pipes_broken;
static void on_sigpipe(int number) {
  (void)number;
  pipes_broken++;
}

static bool is_sigpipe_pending(void) {
  sigset_t set;
  CHECK_EQ(sigpending(&set), 0);
  return sigismember(&set, SIGPIPE) == 1;
}

/* Writes, on whatever thread this is, to a descriptor without a reader, which goes. */
static void write_to_nobody(int fd, bool adopt) {
  struct iovec iov = {.iov_base = (char[]){"x"}, .iov_len = 1};
  if (adopt) CHECK_EQ(coir_adopt(fd), 0);
  CHECK_EQ(coir_write(fd, "x", 1, 0), -EPIPE);
  CHECK_EQ(coir_writev(fd, &iov, 1, 0), -EPIPE);
  CHECK_EQ(coir_write_full(fd, "x", 1, 0), -EPIPE);
  CHECK(!is_sigpipe_pending());
  CHECK_EQ(coir_close(fd), 0);
}

/* With the signal blocked or not. Too few calls for a fiber to be moved to another thread meanwhile. */
static int break_pipes(void *unused) {
  sigset_t sigpipe, old, now;
  sigemptyset(&sigpipe);
  sigaddset(&sigpipe, SIGPIPE);
  for (int i = 0; i < 4; i++) {
    int fds[2], is_blocked = i / 2;
    CHECK_EQ(pthread_sigmask(is_blocked ? SIG_BLOCK : SIG_UNBLOCK, &sigpipe, &old), 0);
    CHECK_EQ(pipe(fds), 0);
    CHECK_EQ(close(fds[0]), 0);
    write_to_nobody(fds[1], i % 2);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    CHECK_EQ(close(fds[1]), 0);
    write_to_nobody(fds[0], i % 2);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, &now), 0);
    CHECK_EQ(sigismember(&now, SIGPIPE), is_blocked);
  }
  return unused != NULL;
}

static void *break_pipes_on_thread(void *unused) {
  CHECK_EQ(break_pipes(unused), 0);
  return NULL;
}

static void no_sigpipe(void **state) {
  (void)state;
  void (*const handlers[])(int) = {SIG_DFL, SIG_IGN, on_sigpipe};
  for (int i = 0; i < 3; i++) {
    struct sigaction action = {.sa_handler = handlers[i]}, old, after;
    struct coir_runtime *rt;
    struct coir_fiber *f;
    pthread_t thread;
    CHECK_EQ(sigaction(SIGPIPE, &action, &old), 0);
    CHECK_EQ(coir_run(break_pipes, NULL), 0);
    CHECK_EQ(coir_runtime_create(&rt, &(struct coir_config){.workers = 2}), 0);
    CHECK_EQ(coir_runtime_start(rt), 0);
    struct coir_attr on_1 = {.worker = COIR_WORKER(1), .pinned = true};
    CHECK_EQ(coir_runtime_spawn(rt, break_pipes, NULL, &on_1, &f), 0);
    CHECK_EQ(finish(f), 0);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, LONG), 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    CHECK_EQ(pthread_create(&thread, NULL, break_pipes_on_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(sigaction(SIGPIPE, &old, &after), 0);
    CHECK(after.sa_handler == handlers[i]);
  }
  CHECK_EQ(pipes_broken, 0);
}

/* One that was pending is not ours to take. */
static void a_pending_sigpipe_stays(void **state) {
  (void)state;
  int fds[2];
  sigset_t sigpipe, old;
  sigemptyset(&sigpipe);
  sigaddset(&sigpipe, SIGPIPE);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &sigpipe, &old), 0);
  CHECK_EQ(raise(SIGPIPE), 0);
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(close(fds[0]), 0);
  CHECK_EQ(coir_write(fds[1], "x", 1, 0), -EPIPE);
  CHECK(is_sigpipe_pending());
  CHECK_EQ(sigtimedwait(&sigpipe, NULL, &(struct timespec){0}), SIGPIPE);
  CHECK(!is_sigpipe_pending());
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
}

/* ---- Other manners --------------------------------------------------------------------------------------------- */

/* The address of errno is asked for anew: the fiber may have moved to another thread. */
static __attribute__((noinline)) int errno_of(int set) {
  __asm__ volatile("" ::: "memory");
  if (set) errno = set;
  return errno;
}

FIBER_TEST(errno_is_left_alone) {
  int fds[2];
  make_tcp(fds);
  char buf[4];
  errno_of(4242);
  CHECK_EQ(coir_read(fds[0], buf, 4, coir_after(COIR_MS(2))), -ETIMEDOUT);
  CHECK_EQ(coir_read(-1, buf, 4, 0), -EBADF);
  CHECK_EQ(coir_recv(0, buf, 4, 0, 0), -ENOTSOCK);
  CHECK_EQ(coir_close(999999), -EBADF);
  CHECK_EQ(coir_poll(fds[0], COIR_READABLE, coir_after(COIR_MS(2))), -ETIMEDOUT);
  CHECK_EQ(errno_of(0), 4242);
  close_pair(fds);
  CHECK_EQ(errno_of(0), 4242);
  return 0;
}

FIBER_TEST(dumps_name_the_descriptor) {
  int fds[2];
  make_pair(fds, true);
  struct task t = {.fd = fds[0], .deadline = LONG};
  struct coir_fiber *f = start(task_read, &t);
  let_them_wait();
  struct coir_fiber_info info[64];
  size_t n = coir_runtime_list(coir_runtime_current(), info, 64), found = 0;
  for (size_t i = 0; i < n && i < 64; i++) {
    if (info[i].id != coir_fiber_id(f)) continue;
    found++;
    CHECK_EQ(strcmp(info[i].waits_for, "read"), 0);
    CHECK_EQ(info[i].waits_on, fds[0]);
  }
  CHECK_EQ(found, 1);
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(finish(f), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  return 0;
}

/* ---- Plain threads and other runtimes -------------------------------------------------------------------------- */

static void plain_threads(void **state) {
  (void)state;
  int fds[2];
  char buf[8];
  pthread_t thread;
  for (int adopt = 0; adopt < 2; adopt++) {
    make_pair(fds, adopt);
    struct task t = {.fd = fds[0], .deadline = LONG};
    int64_t deadline = coir_after(COIR_MS(5));
    CHECK_EQ(coir_read(fds[0], buf, 8, deadline), -ETIMEDOUT);
    CHECK(coir_now() >= deadline);
    CHECK_EQ(coir_read(fds[0], buf, 8, 0), -ETIMEDOUT);
    CHECK_EQ(pthread_create(&thread, NULL, thread_task_read, &t), 0);
    coir_sleep(COIR_MS(5));
    CHECK_EQ(coir_write(fds[1], "thread", 6, LONG), 6);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(t.result, 6);
    CHECK_EQ(pthread_create(&thread, NULL, thread_task_read, &t), 0);
    coir_sleep(COIR_MS(5));
    CHECK_EQ(coir_close(fds[0]), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(t.result, -EBADF);
    CHECK_EQ(coir_close(fds[1]), 0);
  }
  make_tcp(fds);
  CHECK_EQ(coir_write_full(fds[0], "tcp", 3, LONG), 3);
  CHECK_EQ(coir_read_full(fds[1], buf, 3, LONG), 3);
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK_EQ(coir_read(fd, buf, 4, LONG), 4);
  CHECK_EQ(coir_close(fd), 0);
  close_pair(fds);
}

/* A thread and a fiber wait for the same socket, in both directions of time. */
FIBER_TEST(threads_and_fibers_share) {
  int fds[2];
  make_tcp(fds);
  for (int i = 0; i < 20; i++) {
    struct task a = {.fd = fds[0], .deadline = LONG}, b = {.fd = fds[0], .deadline = LONG};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, thread_task_read, &a), 0);
    if (i % 2) CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    struct coir_fiber *f = start(task_read, &b);
    coir_sleep(COIR_MS(1));
    CHECK_EQ(coir_write(fds[1], "1", 1, LONG), 1);
    while (coir_sleep(COIR_MS(1)) == 0 && recv(fds[0], (char[1]){0}, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {}
    CHECK_EQ(coir_write(fds[1], "2", 1, LONG), 1);
    CHECK_EQ(finish(f), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(a.result == 1 && b.result == 1);
  }
  close_pair(fds);
  return 0;
}

static _Atomic(int) timeouts;

static int read_and_wait(void *arg) {
  struct task *t = arg;
  char buf[8];
  CHECK_EQ(coir_read(t->fd, buf, 8, coir_after(COIR_MS(2))), -ETIMEDOUT);
  timeouts++;
  return task_read(t);
}

/* A descriptor outlives the runtime that watched it, and one that has stopped. */
static void runtimes_come_and_go(void **state) {
  (void)state;
  int fds[2];
  make_tcp(fds);
  struct coir_config config = {.workers = 2};
  struct coir_runtime *rt[2];
  CHECK_EQ(coir_runtime_create(&rt[1], &config), 0);
  for (int i = 0; i < 10; i++) {
    struct task t = {.fd = fds[0], .deadline = LONG};
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_create(&rt[0], &config), 0);
    for (int k = 0; k < 2; k++) {
      CHECK_EQ(coir_runtime_start(rt[k]), 0);
      CHECK_EQ(coir_runtime_spawn(rt[k], read_and_wait, &t, NULL, &f), 0);
      while (timeouts != 2 * i + k + 1) coir_sleep(COIR_MS(1));
      if (i % 2) coir_sleep(COIR_MS(2));
      CHECK_EQ(coir_write(fds[1], "xyz", 3, LONG), 3);
      CHECK_EQ(finish(f), 0);
      CHECK_EQ(t.result, 3);
      CHECK_EQ(coir_runtime_stop(rt[k], COIR_STOP_DRAIN, LONG), 0);
    }
    CHECK_EQ(coir_runtime_destroy(rt[0]), 0);
    CHECK_EQ(coir_read(fds[0], t.buf, 1, coir_after(COIR_MS(1))), -ETIMEDOUT);
  }
  CHECK_EQ(coir_runtime_destroy(rt[1]), 0);
  close_pair(fds);
}

/* Fibers that are dropped while they wait leave nothing behind in the descriptor. */
static void dropped_readers(void **state) {
  (void)state;
  int fds[2];
  make_pair(fds, true);
  struct task t = {.fd = fds[0], .deadline = COIR_NEVER};
  struct coir_runtime *rt;
  CHECK_EQ(coir_runtime_create(&rt, &(struct coir_config){.workers = 2}), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_runtime_spawn(rt, task_read, &t, NULL, NULL), 0);
  coir_sleep(COIR_MS(5));
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, LONG), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(coir_write(fds[1], "x", 1, LONG), 1);
  CHECK_EQ(coir_read(fds[0], t.buf, 4, LONG), 1);
  close_pair(fds);
}

/* In a forked child nothing is left of the parent's pollers: plain threads wait anew. */
static void forked_child(void **state) {
  (void)state;
  int fds[2];
  char buf[4];
  make_pair(fds, true);
  CHECK_EQ(coir_read(fds[0], buf, 4, coir_after(COIR_MS(1))), -ETIMEDOUT);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    struct task t = {.fd = fds[0], .deadline = LONG};
    pthread_t thread;
    CHECK_EQ(coir_read(fds[0], buf, 4, coir_after(COIR_MS(1))), -ETIMEDOUT);
    CHECK_EQ(pthread_create(&thread, NULL, thread_task_read, &t), 0);
    coir_sleep(COIR_MS(2));
    CHECK_EQ(coir_write(fds[1], "kid", 3, LONG), 3);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(t.result, 3);
    _exit(0);
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_read(fds[0], buf, 4, coir_after(COIR_MS(1))), -ETIMEDOUT);
  CHECK_EQ(coir_write(fds[1], "dad", 3, LONG), 3);
  CHECK_EQ(coir_read(fds[0], buf, 4, LONG), 3);
  close_pair(fds);
}

/* ---- Load ------------------------------------------------------------------------------------------------------ */

#define BULK_BYTES ((size_t)(64 << 20) / SLOW)

static int bulk_writer(void *arg) {
  uint32_t x = 1;
  static unsigned char buf[20000]; /* one writer at a time */
  for (size_t done = 0; done < BULK_BYTES;) {
    size_t bytes = sizeof buf - x % 1000;
    if (bytes > BULK_BYTES - done) bytes = BULK_BYTES - done;
    for (size_t i = 0; i < bytes; i++) buf[i] = (unsigned char)((x = x * 1664525 + 1013904223) >> 24);
    CHECK_EQ(coir_write_full(*(int *)arg, buf, bytes, LONG), bytes);
    done += bytes;
  }
  return coir_close(*(int *)arg);
}

static int bulk(void *unused) {
  (void)unused;
  int fds[2], small = 16 << 10;
  make_tcp(fds);
  CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  struct coir_fiber *f = start(bulk_writer, &fds[0]);
  uint32_t x = 1;
  size_t sum = 0;
  static unsigned char buf[50000];
  for (ssize_t n; (n = coir_read(fds[1], buf, sizeof buf, LONG)) != 0; sum += (size_t)n) {
    CHECK(n > 0);
    for (ssize_t i = 0; i < n; i++) CHECK(buf[i] == (unsigned char)((x = x * 1664525 + 1013904223) >> 24));
  }
  CHECK_EQ(sum, BULK_BYTES);
  CHECK_EQ(finish(f), 0);
  return coir_close(fds[1]);
}

/* Runs `fn` on a runtime with so many workers. */
static void on_workers(coir_fn fn, int workers) {
  struct coir_runtime *rt;
  int status = -1;
  CHECK_EQ(coir_runtime_create(&rt, &(struct coir_config){.workers = workers}), 0);
  CHECK_EQ(coir_runtime_run(rt, fn, NULL, &status), 0);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void bulk_w1(void **state) { (void)state, on_workers(bulk, 1); }
static void bulk_w2(void **state) { (void)state, on_workers(bulk, 2); }
static void bulk_w4(void **state) { (void)state, on_workers(bulk, 4); }
static void bulk_w8(void **state) { (void)state, on_workers(bulk, 8); }

/* Clients and servers on connections of their own, which are closed and made anew. */
#define CLIENTS 16
#define REQUESTS (600 / SLOW)

static int answer(void *arg) {
  int fd = (int)(intptr_t)arg;
  char buf[256];
  ssize_t n;
  while ((n = coir_recv(fd, buf, sizeof buf, 0, LONG)) > 0) CHECK_EQ(coir_write_full(fd, buf, (size_t)n, LONG), n);
  CHECK_EQ(n, 0);
  return coir_close(fd);
}

static int serve_all(void *arg) {
  for (;;) {
    int fd = coir_accept(*(int *)arg, NULL, NULL, COIR_NEVER);
    if (fd == -EBADF) return 0;
    CHECK(fd >= 0);
    CHECK_EQ(coir_go(answer, (void *)(intptr_t)fd), 0);
  }
}

static int client(void *arg) {
  const struct sockaddr_in *addr = arg;
  uint32_t x = (uint32_t)coir_fiber_id(NULL);
  for (int i = 0, fd = -1; i < REQUESTS; i++) {
    char out[200], in[200];
    size_t bytes = (x = x * 1664525 + 1013904223) >> 8;
    bytes = bytes % sizeof out + 1;
    if (fd < 0) {
      fd = coir_socket(AF_INET, SOCK_STREAM, 0);
      CHECK_EQ(coir_connect(fd, (const struct sockaddr *)addr, sizeof *addr, LONG), 0);
    }
    memset(out, (int)x, bytes);
    CHECK_EQ(coir_write(fd, out, bytes, LONG), bytes);
    CHECK_EQ(coir_read_full(fd, in, bytes, LONG), bytes);
    CHECK_EQ(memcmp(in, out, bytes), 0);
    if (x >> 28 == 0 || i == REQUESTS - 1) {
      CHECK_EQ(coir_close(fd), 0);
      fd = -1;
    }
  }
  return 0;
}

FIBER_TEST(many_connections) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 128);
  struct coir_fiber *server[2] = {start(serve_all, &listener), start(serve_all, &listener)}, *f[CLIENTS];
  for (int i = 0; i < CLIENTS; i++) f[i] = start(client, &addr);
  for (int i = 0; i < CLIENTS; i++) CHECK_EQ(finish(f[i]), 0);
  let_them_wait();
  CHECK_EQ(coir_close(listener), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(finish(server[i]), 0);
  return 0;
}

/* Two pollers that do nothing else, with partitions and without. */
static void dedicated_pollers(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) {
    struct coir_config config = {.workers = 3, .pollers = 2, .poll_partition = i ? COIR_ON : COIR_OFF};
    struct coir_runtime *rt;
    int status = -1;
    CHECK_EQ(coir_runtime_create(&rt, &config), 0);
    CHECK_EQ(coir_runtime_run(rt, body_tcp_transfers, NULL, &status), 0);
    CHECK_EQ(status, 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
  }
}

/* A fiber whose descriptor is always ready does not keep the worker to itself. */
static int count_up(void *arg) {
  for (int i = 0; i < 100; i++) {
    ++*(_Atomic(int) *)arg;
    coir_yield();
  }
  return 0;
}

static int greedy(void *unused) {
  (void)unused;
  char buf[8];
  _Atomic(int) others = 0;
  int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), reads = 0;
  struct coir_fiber *f = start(count_up, &others);
  for (; others < 100 && reads < 100000; reads++) CHECK_EQ(coir_read(fd, buf, 8, LONG), 8);
  CHECK(reads <= 100 * 64 + 64);
  CHECK_EQ(finish(f), 0);
  return coir_close(fd);
}

static void ready_descriptors_are_shared_fairly(void **state) { (void)state, on_workers(greedy, 1); }

static int nothing(void *unused) {
  (void)unused;
  return 0;
}

/* The descriptors that Coir keeps for itself are opened here, so that each test can count its own. */
static int warm_up(void **state) {
  (void)state;
  int fds[2];
  make_pair(fds, true);
  CHECK_EQ(coir_read(fds[0], (char[1]){0}, 1, coir_after(COIR_MS(1))), -ETIMEDOUT);
  close_pair(fds);
  return coir_run(nothing, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(socketpair_transfers),
      cmocka_unit_test(pipe_transfers),
      cmocka_unit_test(tcp_transfers),
      cmocka_unit_test(foreign_sockets),
      cmocka_unit_test(udp_transfers),
      cmocka_unit_test(unix_datagrams_wait_for_room),
      cmocka_unit_test(messages_pass_descriptors),
      cmocka_unit_test(vectors),
      cmocka_unit_test(regular_files),
      cmocka_unit_test(many_files),
      cmocka_unit_test(eventfds),
      cmocka_unit_test(deadlines_are_never_early),
      cmocka_unit_test(poll_reports_what_holds),
      cmocka_unit_test(cancellation_loses_no_data),
      cmocka_unit_test(partial_reads_keep_the_error),
      cmocka_unit_test(close_wakes_readers_and_writers),
      cmocka_unit_test(close_against_readers),
      cmocka_unit_test(numbers_are_reused),
      cmocka_unit_test(reuse_ends_a_stale_wait),
      cmocka_unit_test(plain_close_ends_waits),
      cmocka_unit_test(plain_close_and_reuse),
      cmocka_unit_test(plain_close_of_a_duplicate),
      cmocka_unit_test(plain_close_reaches_other_runtimes),
      cmocka_unit_test(plain_close_after_a_runtime),
      cmocka_unit_test(the_check_ends),
      cmocka_unit_test(disowned_waits_go_on),
      cmocka_unit_test(disowned_numbers_are_reused),
      cmocka_unit_test(disowned_and_adopted_again),
      cmocka_unit_test(adopting_and_disowning_under_readers),
      cmocka_unit_test(both_directions_at_once),
      cmocka_unit_test(two_readers_share_a_stream),
      cmocka_unit_test(connect_refused),
      cmocka_unit_test(connect_times_out),
      cmocka_unit_test(unix_backlog_is_waited_for),
      cmocka_unit_test(accept_deadlines_lose_no_connection),
      cmocka_unit_test(end_of_stream_races_with_reads),
      cmocka_unit_test(bad_descriptors),
      cmocka_unit_test(out_of_descriptors),
      cmocka_unit_test(no_sigpipe),
      cmocka_unit_test(a_pending_sigpipe_stays),
      cmocka_unit_test(errno_is_left_alone),
      cmocka_unit_test(dumps_name_the_descriptor),
      cmocka_unit_test(plain_threads),
      cmocka_unit_test(threads_and_fibers_share),
      cmocka_unit_test(runtimes_come_and_go),
      cmocka_unit_test(dropped_readers),
      cmocka_unit_test(forked_child),
      cmocka_unit_test(many_connections),
      cmocka_unit_test(bulk_w1),
      cmocka_unit_test(bulk_w2),
      cmocka_unit_test(bulk_w4),
      cmocka_unit_test(bulk_w8),
      cmocka_unit_test(dedicated_pollers),
      cmocka_unit_test(ready_descriptors_are_shared_fairly),
  };
  return cmocka_run_group_tests(tests, warm_up, NULL);
}
