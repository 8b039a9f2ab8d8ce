/* What the tests of go_fiber's input and output share: cases that run on fibers and on plain threads alike, helpers
 * that act beside them, and descriptors of every kind. */
#ifndef GOF_IO_COMMON_H
#define GOF_IO_COMMON_H

#include "gof_test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

/* A call that is to fail with -1 and this errno. */
#define CHECK_FAILS(call, code)                                                                                     \
  do {                                                                                                              \
    errno = 0;                                                                                                      \
    long long check_result = (long long)(call);                                                                     \
    int check_errno = errno, check_code = (code);                                                                   \
    if (check_result != -1 || check_errno != check_code) {                                                          \
      fprintf(stderr, "%s:%d: %s gave %lld and errno %d, not -1 and %s\n", __FILE__, __LINE__, #call, check_result, \
              check_errno, #code);                                                                                  \
      abort();                                                                                                      \
    }                                                                                                               \
  } while (0)

/* What a transfer gave is to be more than nothing. */
#define CHECK_SOME(call)                                                                                          \
  do {                                                                                                            \
    long long check_result = (long long)(call);                                                                   \
    int check_errno = errno;                                                                                      \
    if (check_result <= 0) {                                                                                      \
      fprintf(stderr, "%s:%d: %s is %lld with errno %d\n", __FILE__, __LINE__, #call, check_result, check_errno); \
      abort();                                                                                                    \
    }                                                                                                             \
  } while (0)

static inline int64_t ms_since(int64_t start) { return (coir_now() - start) / COIR_MS(1); }

/* ThreadSanitizer takes it for a race to close what another thread waits on, and to open something else under its
 * number. It is one, and some tests are about it. So it is not told who opens a descriptor (bare system calls), and
 * only that, not by whom, it is closed. */
#if IS_TSAN
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#define UNSEEN(call) (AnnotateIgnoreWritesBegin(__FILE__, __LINE__), call, AnnotateIgnoreWritesEnd(__FILE__, __LINE__))
#else
#define UNSEEN(call) (call)
#endif

static inline void close_fd(int fd) {
  int rc;
  UNSEEN(rc = close(fd));
  CHECK_EQ(rc, 0);
}

static inline void close_pair(const int fds[2]) {
  close_fd(fds[0]);
  close_fd(fds[1]);
}

static inline int is_nonblocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

static inline void make_blocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  CHECK(flags >= 0);
  CHECK_EQ(fcntl(fd, F_SETFL, flags & ~O_NONBLOCK), 0);
}

/* ---- Descriptors ------------------------------------------------------------------------------------------------ */

enum kind { SOCKETPAIR, PIPE, TCP, KINDS };

static inline int make_socket(int domain) {
  int fd = (int)syscall(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  return fd;
}

static inline int tcp_socket(void) { return make_socket(AF_INET); }

/* A second number for the same file. */
static inline int duplicate(int fd) {
  int second = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
  CHECK(second >= 0);
  return second;
}

/* Makes `to` stand for what `from` stands for, and closes `from`. */
static inline void rename_fd(int from, int to) {
  CHECK_EQ(syscall(SYS_dup3, from, to, O_CLOEXEC), to);
  close_fd(from);
}

/* A listener on the loopback, with its address. */
static inline int make_listener(struct sockaddr_in *addr, int backlog) {
  int fd = tcp_socket();
  *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof *addr;
  CHECK_EQ(bind(fd, (struct sockaddr *)addr, sizeof *addr), 0);
  CHECK_EQ(listen(fd, backlog), 0);
  CHECK_EQ(getsockname(fd, (struct sockaddr *)addr, &bytes), 0);
  return fd;
}

/* The same among unix sockets, whose name the kernel chooses; `*bytes` is its length. */
static inline int make_unix_listener(struct sockaddr_un *addr, socklen_t *bytes, int backlog) {
  int fd = make_socket(AF_UNIX);
  *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
  CHECK_EQ(bind(fd, (struct sockaddr *)addr, sizeof(sa_family_t)), 0);
  CHECK_EQ(listen(fd, backlog), 0);
  *bytes = sizeof *addr;
  CHECK_EQ(getsockname(fd, (struct sockaddr *)addr, bytes), 0);
  return fd;
}

/* A socket that has an address and does not listen: who connects there is refused, and nobody else gets the port. */
static inline int make_refusing(struct sockaddr_in *addr) {
  int fd = tcp_socket();
  *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof *addr;
  CHECK_EQ(bind(fd, (struct sockaddr *)addr, sizeof *addr), 0);
  CHECK_EQ(getsockname(fd, (struct sockaddr *)addr, &bytes), 0);
  return fd;
}

static inline void make_tcp_pair(int fds[2]) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 4);
  fds[1] = tcp_socket();
  CHECK_EQ(connect(fds[1], (struct sockaddr *)&addr, sizeof addr), 0);
  fds[0] = (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);
  CHECK(fds[0] >= 0);
  close_fd(listener);
}

/* A blocking pair: what is written to fds[1] is read from fds[0]. */
static inline void make_pair(enum kind kind, int fds[2]) {
  if (kind == TCP) return make_tcp_pair(fds);
  if (kind == PIPE) CHECK_EQ(syscall(SYS_pipe2, fds, O_CLOEXEC), 0);
  else CHECK_EQ(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

/* Fills a descriptor until it takes no more, and leaves it as it was. Returns how many bytes that took. */
static inline size_t fill(int fd) {
  static const char block[4096];
  int flags = fcntl(fd, F_GETFL);
  size_t sum = 0;
  CHECK(flags >= 0);
  CHECK_EQ(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
  for (ssize_t n; (n = write(fd, block, sizeof block)) > 0;) sum += (size_t)n;
  for (ssize_t n; (n = write(fd, block, 1)) > 0;) sum += (size_t)n;
  CHECK_EQ(fcntl(fd, F_SETFL, flags), 0);
  return sum;
}

/* Resets the connection when it is closed, so that loops do not use up the ports. */
static inline void close_reset(int fd) {
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
  close_fd(fd);
}

#define BACKLOG_MAX 16

/* Connects to a listener until its backlog is full: the last of the returned number is still under way. */
static inline int fill_backlog(const struct sockaddr *addr, socklen_t bytes, int fds[BACKLOG_MAX]) {
  for (int n = 0; n < BACKLOG_MAX; n++) {
    fds[n] = make_socket(addr->sa_family);
    CHECK_EQ(fcntl(fds[n], F_SETFL, O_RDWR | O_NONBLOCK), 0);
    int rc = connect(fds[n], addr, bytes), error = rc ? errno : 0;
    if (error == EAGAIN) return n + 1; /* a unix socket */
    CHECK(error == 0 || error == EINPROGRESS);
    struct pollfd p = {.fd = fds[n], .events = POLLOUT};
    if (poll(&p, 1, 100) == 0) return n + 1;
  }
  CHECK(!"the backlog is never full");
  return 0;
}

/* ---- Cases and their helpers ------------------------------------------------------------------------------------- */

enum place { FIBER, THREAD };

/* Something that runs beside a case. */
struct task {
  void (*fn)(void *arg);
  void *arg;
  enum place place;
  pthread_t thread;
  _Atomic(int) is_done;
  struct coir_event ended;
};

static inline void task_run(void *task) {
  struct task *t = task;
  t->fn(t->arg);
  atomic_store(&t->is_done, 1);
  coir_event_set(&t->ended);
}

static inline void *task_thread(void *task) {
  task_run(task);
  return NULL;
}

static inline void start(struct task *t, enum place place, void (*fn)(void *arg), void *arg) {
  t->fn = fn;
  t->arg = arg;
  t->place = place;
  atomic_store(&t->is_done, 0);
  t->ended = (struct coir_event){0};
  if (place == FIBER) CHECK(gof_spawn(task_run, t, 0) != NULL);
  else CHECK_EQ(pthread_create(&t->thread, NULL, task_thread, t), 0);
}

/* Waits for its end; aborts when that does not come. It does not look now and then, which could bring about what it
 * waits for. */
static inline void finish(struct task *t) {
  if (coir_event_wait(&t->ended, coir_after(COIR_SEC(20))) != 0) {
    fprintf(stderr, "somebody does not come to an end\n");
    if (gof_list(NULL, 0)) gof_dump_stacks(STDERR_FILENO);
    abort();
  }
  if (t->place == THREAD) CHECK_EQ(pthread_join(t->thread, NULL), 0);
}

/* Long enough for whoever is about to wait to be waiting. Nothing but which path is taken depends on it. */
static inline void let_them_wait(void) { (void)coir_sleep(COIR_MS(5)); }

/* One gof_read, with what came of it. */
struct read_task {
  int fd;
  size_t bytes;
  char buf[64];
  ssize_t result;
  int error;
  int64_t ended;
};

static inline void task_read(void *arg) {
  struct read_task *t = arg;
  t->result = gof_read(t->fd, t->buf, t->bytes ? t->bytes : sizeof t->buf);
  t->error = errno;
  t->ended = coir_now();
}

/* One gof_write of `bytes` bytes, with what came of it. */
struct write_task {
  int fd;
  const void *data;
  size_t bytes;
  int after_ms;
  ssize_t result;
  int error;
};

static inline void task_write(void *arg) {
  struct write_task *t = arg;
  if (t->after_ms) gof_sleep_ms((uint64_t)t->after_ms);
  t->result = gof_write(t->fd, t->data, t->bytes);
  t->error = errno;
}

/* One gof_connect on a new socket. */
struct connect_task {
  const void *addr;
  socklen_t bytes;
  int timeout_ms, after_ms;
  int fd, result, error;
};

static inline void task_connect(void *arg) {
  struct connect_task *t = arg;
  if (t->after_ms) gof_sleep_ms((uint64_t)t->after_ms);
  t->fd = make_socket(((const struct sockaddr *)t->addr)->sa_family);
  t->result = gof_connect(t->fd, t->addr, t->bytes, t->timeout_ms);
  t->error = errno;
}

/* One gof_accept. */
struct accept_task {
  int fd, timeout_ms;
  int result, error;
  int64_t ended;
};

static inline void task_accept(void *arg) {
  struct accept_task *t = arg;
  t->result = gof_accept(t->fd, NULL, NULL, t->timeout_ms);
  t->error = errno;
  t->ended = coir_now();
}

/* Where a case runs, and where its helpers do. */
struct scene {
  void (*body)(enum place helper);
  enum place place, helper;
};

static inline void scene_fiber(void *scene) {
  const struct scene *s = scene;
  s->body(s->helper);
}

/* A fiber runs in gof_run; a plain thread has helpers that are fibers while background mode is on. No case may leave a
 * descriptor open. */
static inline void scene_play(struct scene *s) {
  if (s->place == FIBER) {
    struct task t;
    start(&t, FIBER, scene_fiber, s);
    gof_run();
    finish(&t);
  } else {
    if (s->helper == FIBER) CHECK_EQ(gof_start_background(0), 0);
    s->body(s->helper);
    if (s->helper == FIBER) CHECK_EQ(gof_join_background(), 0);
  }
}

static inline void scene_test(void **state) {
  int before = descriptors_now();
  scene_play(*state);
  CHECK_EQ(descriptors_now(), before);
}

#define SCENE(fn, where, helper) SCENE_NAMED(#fn " on " where##_TEXT ", helped by " helper##_TEXT, fn, where, helper)
#define SCENE_NAMED(text, ...)                                                              \
  {                                                                                         \
    .name = text, .test_func = scene_test, .initial_state = &(struct scene) { __VA_ARGS__ } \
  }
#define FIBER_TEXT "a fiber"
#define THREAD_TEXT "a thread"

/* The four ways to run a case with helpers, and the two of one that does without. */
#define EVERYWHERE(name) \
  SCENE(name, FIBER, FIBER), SCENE(name, FIBER, THREAD), SCENE(name, THREAD, FIBER), SCENE(name, THREAD, THREAD)
#define ALONE(name) SCENE(name, FIBER, FIBER), SCENE(name, THREAD, THREAD)

static inline void warm_up_body(enum place helper) {
  int fds[2];
  struct task t;
  make_pair(SOCKETPAIR, fds);
  struct write_task w = {.fd = fds[1], .data = "x", .bytes = 1, .after_ms = 2};
  start(&t, helper, task_write, &w);
  char c;
  CHECK_EQ(gof_read(fds[0], &c, 1), 1);
  finish(&t);
  close_pair(fds);
}

/* Has everything made that is made on first use and then kept, its descriptors among it. */
static inline int warm_up(void **state) {
  (void)state;
  for (int i = 0; i < 4; i++) scene_play(&(struct scene){warm_up_body, (enum place)(i / 2), (enum place)(i % 2)});
  return 0;
}

/* Runs body(arg) as the first fiber, and returns when all have ended. */
static inline void run_fibers(void (*body)(void *), void *arg) {
  struct task t;
  start(&t, FIBER, body, arg);
  gof_run();
  finish(&t);
}

/* More descriptors than the usual limit of 1024, where that is allowed. */
static inline void allow_descriptors(rlim_t count) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur >= count) return;
  limit.rlim_cur = limit.rlim_max < count ? limit.rlim_max : count;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

#endif
