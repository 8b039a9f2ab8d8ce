/* gof_read, gof_write, gof_connect and gof_accept: what each promises, on every kind of descriptor, on fibers and on
 * plain threads, with fibers and with plain threads at the other end. */
#include "gof_io_common.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

static void reads_what_is_there(enum place helper) {
  (void)helper;
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    char buf[16];
    make_pair((enum kind)kind, fds);
    CHECK_EQ(write(fds[1], "hello", 5), 5);
    CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 5);
    CHECK_EQ(memcmp(buf, "hello", 5), 0);
    CHECK(is_nonblocking(fds[0]));
    CHECK_EQ(write(fds[1], "again", 5), 5);
    CHECK_EQ(gof_read(fds[0], buf, 3), 3);
    CHECK_EQ(gof_read(fds[0], buf + 3, 3), 2);
    CHECK_EQ(memcmp(buf, "again", 5), 0);
    CHECK_EQ(gof_read(fds[0], NULL, 0), 0); /* as read(2): no wait for data */
    close_pair(fds);
  }
}

static void a_read_waits_for_data(enum place helper) {
  for (int kind = 0; kind < KINDS; kind++) {
    for (int round = 0; round < 3; round++) {
      int fds[2];
      struct task t;
      char buf[16];
      make_pair((enum kind)kind, fds);
      struct write_task w = {.fd = fds[1], .data = "late", .bytes = 4, .after_ms = round * 3};
      start(&t, helper, task_write, &w);
      CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 4);
      CHECK_EQ(memcmp(buf, "late", 4), 0);
      finish(&t);
      CHECK_EQ(w.result, 4);
      close_pair(fds);
    }
  }
}

struct close_task {
  int fd, after_ms, by_shutdown;
};

static void task_close(void *arg) {
  struct close_task *t = arg;
  if (t->after_ms) gof_sleep_ms((uint64_t)t->after_ms);
  if (t->by_shutdown) CHECK_EQ(shutdown(t->fd, SHUT_WR), 0);
  else close_fd(t->fd);
}

static void the_end_of_a_stream_reads_as_0(enum place helper) {
  for (int kind = 0; kind < KINDS; kind++) {
    for (int how = 0; how < 4; how++) {
      int fds[2], by_shutdown = how % 2 && kind != PIPE;
      struct task t;
      char buf[4];
      make_pair((enum kind)kind, fds);
      CHECK_EQ(write(fds[1], "end", 3), 3);
      struct close_task c = {.fd = fds[1], .after_ms = how / 2 * 5, .by_shutdown = by_shutdown};
      start(&t, helper, task_close, &c);
      CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 3);
      CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 0);
      CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 0);
      finish(&t);
      close_fd(fds[0]);
      if (by_shutdown) close_fd(fds[1]);
    }
  }
}

static void read_errors(enum place helper) {
  (void)helper;
  char buf[4];
  int closed = eventfd(0, 0), bad[] = {-1, INT32_MIN, closed, 1 << 19, INT32_MAX}, fds[2];
  close_fd(closed);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_FAILS(gof_read(bad[i], buf, sizeof buf), EBADF);
  make_pair(PIPE, fds);
  CHECK_FAILS(gof_read(fds[1], buf, sizeof buf), EBADF); /* not open for reading */
  close_pair(fds);
  int fd = tcp_socket();
  CHECK_FAILS(gof_read(fd, buf, sizeof buf), ENOTCONN);
  close_fd(fd);
  CHECK((fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
  CHECK_FAILS(gof_read(fd, buf, sizeof buf), EISDIR);
  close_fd(fd);
  make_pair(SOCKETPAIR, fds);
  CHECK_EQ(write(fds[1], "x", 1), 1);
  CHECK_FAILS(gof_read(fds[0], (void *)(uintptr_t)1, 1), EFAULT);
  close_pair(fds);
}

static void task_reset(void *arg) {
  let_them_wait();
  close_reset(*(int *)arg);
}

static void a_waiting_read_is_told_of_a_reset(enum place helper) {
  int fds[2];
  struct task t;
  char buf[4];
  make_pair(TCP, fds);
  start(&t, helper, task_reset, &fds[1]);
  CHECK_FAILS(gof_read(fds[0], buf, sizeof buf), ECONNRESET);
  finish(&t);
  close_fd(fds[0]);
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

#define BULK_BYTES ((size_t)(IS_SANITIZED ? 300001 : 3000001))

static unsigned char bulk_byte(size_t i) { return (unsigned char)(i * 7 + i / 251); }

/* Reads a stream slowly at first, and checks that it is the bulk, whole. */
static void task_drain_bulk(void *arg) {
  int fd = *(int *)arg;
  unsigned char buf[5000];
  size_t sum = 0;
  let_them_wait();
  for (ssize_t n; (n = gof_read(fd, buf, sizeof buf)) != 0; sum += (size_t)n) {
    CHECK_SOME(n);
    for (ssize_t i = 0; i < n; i++) CHECK(buf[i] == bulk_byte(sum + (size_t)i));
    if (sum < 50000) gof_sleep_ms(1);
  }
  CHECK_EQ(sum, BULK_BYTES);
}

static void a_write_writes_all(enum place helper) {
  unsigned char *data = malloc(BULK_BYTES);
  CHECK(data != NULL);
  for (size_t i = 0; i < BULK_BYTES; i++) data[i] = bulk_byte(i);
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    struct task t;
    make_pair((enum kind)kind, fds);
    start(&t, helper, task_drain_bulk, &fds[0]);
    CHECK_EQ(gof_write(fds[1], data, BULK_BYTES), BULK_BYTES);
    CHECK(is_nonblocking(fds[1]));
    close_fd(fds[1]);
    finish(&t);
    close_fd(fds[0]);
  }
  free(data);
}

static void a_write_of_nothing_is_0(enum place helper) {
  (void)helper;
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    make_pair((enum kind)kind, fds);
    CHECK_EQ(gof_write(fds[1], "", 0), 0);
    CHECK_EQ(gof_write(fds[1], NULL, 0), 0);
    fill(fds[1]);
    CHECK_EQ(gof_write(fds[1], "", 0), 0); /* nor does it wait for room */
    close_pair(fds);
  }
}

/* Reads a part of what somebody writes, and goes away. */
struct deserter {
  int fd;
  enum kind kind;
  size_t got;
};

static void task_desert(void *arg) {
  struct deserter *d = arg;
  char buf[1000];
  for (int i = 0; i < 10; i++) {
    ssize_t n = gof_read(d->fd, buf, sizeof buf);
    CHECK_SOME(n);
    d->got += (size_t)n;
  }
  let_them_wait();
  /* Both ways: of SHUT_RD alone the kernel does not tell who polls for room. */
  if (d->kind == SOCKETPAIR) CHECK_EQ(shutdown(d->fd, SHUT_RDWR), 0);
  else close_fd(d->fd);
}

static void a_partial_write_ends_in_the_error(enum place helper) {
  static char data[16 << 20]; /* more than any buffer grows to */
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    struct task t;
    make_pair((enum kind)kind, fds);
    struct deserter d = {.fd = fds[0], .kind = (enum kind)kind};
    start(&t, helper, task_desert, &d);
    /* A connection that is closed with data unread is reset, and that is what its peer hears of first. */
    CHECK_FAILS(gof_write(fds[1], data, sizeof data), kind == TCP ? ECONNRESET : EPIPE);
    CHECK_FAILS(gof_write(fds[1], data, 1), EPIPE);
    finish(&t);
    CHECK(d.got > 0 && d.got <= 10000);
    close_fd(fds[1]);
    if (kind == SOCKETPAIR) close_fd(fds[0]);
  }
}

static void write_errors(enum place helper) {
  (void)helper;
  int closed = eventfd(0, 0), bad[] = {-1, INT32_MIN, closed, 1 << 19, INT32_MAX}, fds[2];
  close_fd(closed);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_FAILS(gof_write(bad[i], "x", 1), EBADF);
  make_pair(PIPE, fds);
  CHECK_FAILS(gof_write(fds[0], "x", 1), EBADF); /* not open for writing */
  close_fd(fds[0]);
  CHECK_FAILS(gof_write(fds[1], "x", 1), EPIPE);
  close_fd(fds[1]);
  for (int kind = 0; kind < KINDS; kind += TCP) {
    make_pair((enum kind)kind, fds);
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    CHECK_FAILS(gof_write(fds[1], "x", 1), EPIPE);
    close_pair(fds);
  }
  int fd = tcp_socket();
  CHECK_FAILS(gof_write(fd, "x", 1), EPIPE); /* what Linux says of a socket that was never connected */
  close_fd(fd);
  CHECK((fd = open("/dev/full", O_WRONLY | O_CLOEXEC)) >= 0);
  CHECK_FAILS(gof_write(fd, "x", 1), ENOSPC);
  close_fd(fd);
  make_pair(SOCKETPAIR, fds);
  CHECK_FAILS(gof_write(fds[1], (void *)(uintptr_t)1, 1), EFAULT);
  close_pair(fds);
}

/* ---- Other kinds of descriptors --------------------------------------------------------------------------------- */

static void regular_files(enum place helper) {
  (void)helper;
  char buf[16];
  int fd = memfd_create("gof_io", MFD_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(gof_read(fd, buf, sizeof buf), 0);
  CHECK_EQ(gof_write(fd, "contents", 8), 8);
  CHECK(is_nonblocking(fd));
  CHECK_EQ(gof_read(fd, buf, sizeof buf), 0);
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  CHECK_EQ(gof_read(fd, buf, 3), 3);
  CHECK_EQ(gof_read(fd, buf + 3, sizeof buf - 3), 5);
  CHECK_EQ(memcmp(buf, "contents", 8), 0);
  CHECK_EQ(gof_write(fd, NULL, 0), 0);
  CHECK_FAILS(gof_accept(fd, NULL, NULL, 0), ENOTSOCK);
  close_fd(fd);
  CHECK((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0);
  CHECK_EQ(gof_read(fd, buf, sizeof buf), 0);
  CHECK_EQ(gof_write(fd, buf, sizeof buf), sizeof buf);
  close_fd(fd);
  CHECK((fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)) >= 0);
  CHECK_EQ(gof_read(fd, buf, 4), 4);
  CHECK_EQ(memcmp(buf, "\177ELF", 4), 0);
  CHECK_FAILS(gof_write(fd, "x", 1), EBADF);
  close_fd(fd);
}

static void large_files_are_written_whole(enum place helper) {
  (void)helper;
  int fd = memfd_create("gof_io", MFD_CLOEXEC);
  unsigned char *data = malloc(BULK_BYTES), buf[5000];
  CHECK(fd >= 0 && data != NULL);
  for (size_t i = 0; i < BULK_BYTES; i++) data[i] = bulk_byte(i);
  CHECK_EQ(gof_write(fd, data, BULK_BYTES), BULK_BYTES);
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  size_t sum = 0;
  for (ssize_t n; (n = gof_read(fd, buf, sizeof buf)) != 0; sum += (size_t)n) {
    CHECK_SOME(n);
    CHECK_EQ(memcmp(buf, data + sum, (size_t)n), 0);
  }
  CHECK_EQ(sum, BULK_BYTES);
  free(data);
  close_fd(fd);
}

static void events_and_messages(enum place helper) {
  int fd = eventfd(0, EFD_CLOEXEC), fds[2];
  struct task t;
  uint64_t seven = 7, value = 0;
  struct write_task w = {.fd = fd, .data = &seven, .bytes = sizeof seven, .after_ms = 5};
  CHECK(fd >= 0);
  start(&t, helper, task_write, &w);
  CHECK_EQ(gof_read(fd, &value, sizeof value), sizeof value);
  finish(&t);
  CHECK_EQ(value, 7);
  CHECK_EQ(w.result, sizeof seven);
  close_fd(fd);

  /* The bounds of messages are kept. */
  int types[] = {SOCK_SEQPACKET, SOCK_DGRAM};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    char buf[16];
    CHECK_EQ(socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(gof_write(fds[1], "one", 3), 3);
    CHECK_EQ(gof_write(fds[1], "three", 5), 5);
    CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 3);
    CHECK_EQ(gof_read(fds[0], buf, 2), 2); /* the rest of it is dropped, as by read(2) */
    w = (struct write_task){.fd = fds[1], .data = "last", .bytes = 4, .after_ms = 5};
    start(&t, helper, task_write, &w);
    CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 4);
    finish(&t);
    close_pair(fds);
  }
}

/* ---- O_NONBLOCK -------------------------------------------------------------------------------------------------- */

/* Each call sets it, again where it was taken away, and leaves the other flags as they are. */
static void calls_leave_nonblock_set(enum place helper) {
  char buf[4];
  int fds[2];
  for (int kind = 0; kind < KINDS; kind++) {
    make_pair((enum kind)kind, fds);
    for (int round = 0; round < 3; round++) {
      struct task t;
      struct write_task w = {.fd = fds[1], .data = "x", .bytes = 1, .after_ms = 2};
      make_blocking(fds[0]);
      make_blocking(fds[1]);
      start(&t, helper, task_write, &w);
      CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 1);
      finish(&t);
      CHECK(is_nonblocking(fds[0]) && is_nonblocking(fds[1]));
    }
    make_blocking(fds[0]);
    close_fd(fds[1]);
    CHECK_EQ(gof_read(fds[0], buf, sizeof buf), 0);
    CHECK(is_nonblocking(fds[0]));
    close_fd(fds[0]);
  }
  make_pair(PIPE, fds);
  int flags = fcntl(fds[1], F_GETFL) | O_APPEND;
  CHECK_EQ(fcntl(fds[1], F_SETFL, flags), 0);
  CHECK_EQ(gof_write(fds[1], "x", 1), 1);
  CHECK_EQ(fcntl(fds[1], F_GETFL), flags | O_NONBLOCK);
  close_pair(fds);

  struct sockaddr_in addr;
  int listener = make_listener(&addr, 4), fd = tcp_socket();
  CHECK_EQ(gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, 5000), 0);
  CHECK(is_nonblocking(fd));
  int peer = gof_accept(listener, NULL, NULL, 5000);
  CHECK(peer >= 0);
  CHECK(is_nonblocking(listener) && is_nonblocking(peer));
  make_blocking(listener);
  CHECK_FAILS(gof_accept(listener, NULL, NULL, 0), ETIMEDOUT);
  CHECK(is_nonblocking(listener));
  close_fd(fd);
  close_fd(peer);
  close_fd(listener);
}

/* ---- Connections ------------------------------------------------------------------------------------------------- */

static void connections(enum place helper) {
  struct sockaddr_in addr, from, own;
  int listener = make_listener(&addr, 8);
  static const int timeouts[] = {-1, INT32_MIN, 5000, INT32_MAX};
  for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
    struct task t;
    struct connect_task c = {
        .addr = &addr, .bytes = sizeof addr, .timeout_ms = timeouts[i], .after_ms = (int)i % 2 * 5};
    socklen_t bytes = sizeof from, own_bytes = sizeof own;
    start(&t, helper, task_connect, &c);
    int fd = gof_accept(listener, (struct sockaddr *)&from, &bytes, timeouts[i]);
    CHECK(fd >= 0);
    finish(&t);
    CHECK_EQ(c.result, 0);
    CHECK_EQ(bytes, sizeof from);
    CHECK_EQ(getsockname(c.fd, (struct sockaddr *)&own, &own_bytes), 0);
    CHECK_EQ(memcmp(&from, &own, sizeof own), 0);
    char buf[8];
    CHECK_EQ(gof_write(c.fd, "there", 5), 5);
    CHECK_EQ(gof_read(fd, buf, sizeof buf), 5);
    CHECK_EQ(gof_write(fd, "back", 4), 4);
    CHECK_EQ(gof_read(c.fd, buf, sizeof buf), 4);
    CHECK_EQ(memcmp(buf, "back", 4), 0);
    close_fd(fd);
    close_fd(c.fd);
  }
  close_fd(listener);
}

/* The address may be left out, with and without a place for its length. */
static void accept_without_an_address(enum place helper) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 8);
  for (int i = 0; i < 4; i++) {
    struct task t;
    struct connect_task c = {.addr = &addr, .bytes = sizeof addr, .timeout_ms = 5000, .after_ms = i / 2 * 5};
    socklen_t bytes = 0;
    start(&t, helper, task_connect, &c);
    int fd = gof_accept(listener, NULL, i % 2 ? &bytes : NULL, -1);
    CHECK(fd >= 0);
    finish(&t);
    CHECK_EQ(c.result, 0);
    close_fd(fd);
    close_fd(c.fd);
  }
  close_fd(listener);
}

static void unix_connections(enum place helper) {
  struct sockaddr_un addr;
  socklen_t bytes;
  int listener = make_unix_listener(&addr, &bytes, 4);
  for (int i = 0; i < 2; i++) {
    struct task t;
    struct connect_task c = {.addr = &addr, .bytes = bytes, .timeout_ms = i ? 0 : -1}; /* nothing to wait for */
    start(&t, helper, task_connect, &c);
    int fd = gof_accept(listener, NULL, NULL, -1);
    CHECK(fd >= 0);
    finish(&t);
    CHECK_EQ(c.result, 0);
    close_fd(fd);
    close_fd(c.fd);
  }
  close_fd(listener);
}

static void connect_errors(enum place helper) {
  (void)helper;
  struct sockaddr_in addr;
  struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/gof_io"};
  static const int timeouts[] = {-1, 5000};
  int refusing = make_refusing(&addr);
  for (int i = 0; i < 20; i++) {
    int fd = tcp_socket();
    CHECK_FAILS(gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, timeouts[i % 2]), ECONNREFUSED);
    close_fd(fd);
  }
  close_fd(refusing);
  int fd = tcp_socket();
  CHECK_FAILS(gof_connect(fd, (struct sockaddr *)&name, sizeof name, -1), EAFNOSUPPORT);
  CHECK_FAILS(gof_connect(fd, (struct sockaddr *)&addr, 1, -1), EINVAL);
  CHECK_FAILS(gof_connect(fd, NULL, sizeof addr, -1), EFAULT);
  close_fd(fd);
  CHECK((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
  CHECK_FAILS(gof_connect(fd, (struct sockaddr *)&name, sizeof name, -1), ENOENT);
  close_fd(fd);
  int closed = eventfd(0, 0), bad[] = {-1, INT32_MIN, closed, 1 << 19, INT32_MAX};
  close_fd(closed);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK_FAILS(gof_connect(bad[i], (struct sockaddr *)&addr, sizeof addr, -1), EBADF);
  CHECK((fd = eventfd(0, EFD_CLOEXEC)) >= 0);
  CHECK_FAILS(gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, -1), ENOTSOCK);
  close_fd(fd);
}

static void accept_errors(enum place helper) {
  (void)helper;
  int closed = eventfd(0, 0), bad[] = {-1, INT32_MIN, closed, 1 << 19, INT32_MAX}, fds[2];
  close_fd(closed);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_FAILS(gof_accept(bad[i], NULL, NULL, -1), EBADF);
  int fd = tcp_socket();
  CHECK_FAILS(gof_accept(fd, NULL, NULL, -1), EINVAL); /* it does not listen */
  close_fd(fd);
  make_pair(PIPE, fds);
  CHECK_FAILS(gof_accept(fds[0], NULL, NULL, -1), ENOTSOCK);
  close_pair(fds);
  CHECK((fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) >= 0);
  CHECK_FAILS(gof_accept(fd, NULL, NULL, -1), EOPNOTSUPP);
  close_fd(fd);
}

/* A connection for which there is no descriptor stays in the backlog. */
static void accept_runs_out_of_descriptors(enum place helper) {
  (void)helper;
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 4), fd = tcp_socket();
  CHECK_EQ(gof_connect(fd, (struct sockaddr *)&addr, sizeof addr, 5000), 0);
  struct rlimit old;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  int next = dup(0);
  close_fd(next);
  struct rlimit low = {.rlim_cur = (rlim_t)next, .rlim_max = old.rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  CHECK_FAILS(gof_accept(listener, NULL, NULL, 5000), EMFILE);
  CHECK_FAILS(gof_accept(listener, NULL, NULL, -1), EMFILE);
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  int peer = gof_accept(listener, NULL, NULL, 5000);
  CHECK(peer >= 0);
  close_fd(peer);
  close_fd(fd);
  close_fd(listener);
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

static void on_signal(int number) { (void)number; }

/* Signals every thread that takes them while others wait. */
struct pest {
  pthread_t victim;
  _Atomic(int) stop;
};

static void task_pester(void *arg) {
  struct pest *p = arg;
  while (!atomic_load(&p->stop)) {
    CHECK_EQ(pthread_kill(p->victim, SIGUSR1), 0);
    usleep(200);
  }
}

/* An interrupted call says EINTR or goes on; it loses nothing. */
static void signals_lose_no_data(enum place helper) {
  int fds[2];
  struct task t, pester;
  struct pest p = {.victim = pthread_self()};
  struct sigaction action = {.sa_handler = on_signal}, old;
  CHECK_EQ(sigaction(SIGUSR1, &action, &old), 0);
  make_pair(SOCKETPAIR, fds);
  start(&pester, THREAD, task_pester, &p);
  for (int i = 0; i < 50; i++) {
    char c;
    ssize_t n;
    struct write_task w = {.fd = fds[1], .data = &"abcde"[i % 5], .bytes = 1, .after_ms = 1};
    start(&t, helper, task_write, &w);
    while ((n = gof_read(fds[0], &c, 1)) == -1) CHECK_EQ(errno, EINTR);
    CHECK_EQ(n, 1);
    CHECK_EQ(c, "abcde"[i % 5]);
    finish(&t);
    CHECK_EQ(w.result, 1);
  }
  atomic_store(&p.stop, 1);
  finish(&pester);
  close_pair(fds);
  CHECK_EQ(sigaction(SIGUSR1, &old, NULL), 0);
}

/* ---- The runtime around it --------------------------------------------------------------------------------------- */

/* Bytes go to and fro; each side waits every time. */
static void task_echo(void *arg) {
  int fd = *(int *)arg;
  char buf[100];
  for (ssize_t n; (n = gof_read(fd, buf, sizeof buf)) != 0;) {
    CHECK_SOME(n);
    CHECK_EQ(gof_write(fd, buf, (size_t)n), n);
  }
}

static void echoes(enum place helper) {
  for (int kind = 0; kind < KINDS; kind += TCP) {
    int fds[2];
    struct task t;
    make_pair((enum kind)kind, fds);
    start(&t, helper, task_echo, &fds[1]);
    for (int i = 0; i < rounds(3000); i++) {
      char out[100], in[100];
      size_t bytes = (size_t)(i % 100) + 1, got = 0;
      memset(out, i, bytes);
      CHECK_EQ(gof_write(fds[0], out, bytes), bytes);
      for (ssize_t n; got < bytes; got += (size_t)n) CHECK_SOME(n = gof_read(fds[0], in + got, bytes - got));
      CHECK_EQ(memcmp(in, out, bytes), 0);
    }
    CHECK_EQ(shutdown(fds[0], SHUT_WR), 0);
    finish(&t);
    close_pair(fds);
  }
}

/* A run lasts as long as somebody waits for a descriptor, though nothing else is left. */
static void a_run_lasts_while_a_descriptor_is_waited_for(void **state) {
  (void)state;
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    struct task reader, writer;
    make_pair((enum kind)kind, fds);
    struct read_task r = {.fd = fds[0]};
    struct write_task w = {.fd = fds[1], .data = "x", .bytes = 1, .after_ms = 100};
    start(&reader, FIBER, task_read, &r);
    int64_t began = coir_now();
    start(&writer, THREAD, task_write, &w);
    gof_run();
    CHECK(ms_since(began) >= 100);
    CHECK(atomic_load(&reader.is_done));
    CHECK_EQ(r.result, 1);
    finish(&writer);
    close_pair(fds);
  }
}

/* What is left waiting when background mode stops is gone, and takes nothing away from those who come later. */
static void stopping_forgets_who_waits(void **state) {
  (void)state;
  int fds[2];
  make_pair(SOCKETPAIR, fds);
  for (int i = 0; i < 3; i++) {
    static struct task t[4];
    static struct read_task r[4];
    CHECK_EQ(gof_start_background(0), 0);
    for (int k = 0; k < 4; k++) {
      r[k] = (struct read_task){.fd = fds[0], .result = -5};
      start(&t[k], FIBER, task_read, &r[k]);
    }
    let_them_wait();
    gof_request_stop();
    CHECK_EQ(gof_join_background(), 0);
    CHECK_EQ(gof_list(NULL, 0), 0);
    for (int k = 0; k < 4; k++) CHECK_EQ(r[k].result, -5);
    CHECK_EQ(gof_write(fds[1], "x", 1), 1);
    char c;
    CHECK_EQ(gof_read(fds[0], &c, 1), 1);
  }
  close_pair(fds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ALONE(reads_what_is_there),
      EVERYWHERE(a_read_waits_for_data),
      EVERYWHERE(the_end_of_a_stream_reads_as_0),
      ALONE(read_errors),
      EVERYWHERE(a_waiting_read_is_told_of_a_reset),
      EVERYWHERE(a_write_writes_all),
      ALONE(a_write_of_nothing_is_0),
      EVERYWHERE(a_partial_write_ends_in_the_error),
      ALONE(write_errors),
      ALONE(regular_files),
      ALONE(large_files_are_written_whole),
      EVERYWHERE(events_and_messages),
      EVERYWHERE(calls_leave_nonblock_set),
      EVERYWHERE(connections),
      EVERYWHERE(accept_without_an_address),
      EVERYWHERE(unix_connections),
      ALONE(connect_errors),
      ALONE(accept_errors),
      ALONE(accept_runs_out_of_descriptors),
      EVERYWHERE(signals_lose_no_data),
      EVERYWHERE(echoes),
      cmocka_unit_test(a_run_lasts_while_a_descriptor_is_waited_for),
      cmocka_unit_test(stopping_forgets_who_waits),
  };
  return cmocka_run_group_tests(tests, warm_up, NULL);
}
