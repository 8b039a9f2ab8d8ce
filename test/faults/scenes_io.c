/* Scenes of coir_io.h: descriptors, files, names, signals, child processes. */
#include "scenes.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "coir_io.h"

#define OF_PEER -EPIPE, -ECONNRESET /* it has closed, since it has failed */
#define MESSAGE 200000              /* bytes: more than a socket or a pipe holds */

/* ---- Sockets --------------------------------------------------------------------------------------------------- */

/* Sends a message, and waits for the end of the stream. */
static int talks(void *arg) {
  int fd = (int)(intptr_t)arg, rc = 0;
  char *message = calloc(1, MESSAGE);
  CHECK(message);
  size_t sent = 0;
  while (rc >= 0 && sent < MESSAGE) {
    rc = MAY((int)coir_write(fd, message + sent, MESSAGE - sent, SOON), OF_WAIT_FD, OF_PEER, OF_CALL);
    if (rc > 0) sent += (size_t)rc;
  }
  if (rc > 0 && shutdown(fd, SHUT_WR) == 0)
    rc = MAY((int)coir_recv(fd, message, MESSAGE, 0, SOON), OF_WAIT_FD, OF_PEER, OF_CALL);
  free(message);
  if (rc < 0) (void)shutdown(fd, SHUT_WR); /* who reads hears of it */
  return rc < 0 ? rc : 0;
}

static int listens(void *arg) {
  (void)arg;
  char *buf = malloc(MESSAGE);
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof addr;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), fd = -1, served = -1, rc = 0;
  CHECK(buf && listener >= 0 && bind(listener, (struct sockaddr *)&addr, sizeof addr) == 0);
  CHECK(listen(listener, 8) == 0 && getsockname(listener, (struct sockaddr *)&addr, &bytes) == 0);
  fd = rc = MAY(coir_socket(AF_INET, SOCK_STREAM, 0), OF_WAIT_FD, OF_CALL);
  if (rc >= 0) rc = MAY(coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, SOON), OF_WAIT_FD, OF_CALL);
  if (rc >= 0) served = rc = MAY(coir_accept(listener, NULL, NULL, SOON), OF_WAIT_FD, OF_CALL);
  struct coir_fiber *f = NULL;
  if (rc >= 0) rc = MAY(coir_spawn(talks, (void *)(intptr_t)fd, NULL, &f), -ENOMEM);
  long got = 0;
  while (rc >= 0 && (rc = MAY((int)coir_read(served, buf, MESSAGE, SOON), OF_WAIT_FD, OF_CALL)) > 0) got += rc;
  if (served >= 0) (void)coir_close(served);
  if (f) {
    int said = join_soon(f);
    CHECK(said == 0 || said == -EPIPE || said == -ECONNRESET || fault_has_come());
    CHECK(rc < 0 || said < 0 || got == MESSAGE);
    if (rc >= 0) rc = said;
  }
  if (fd >= 0) (void)coir_close(fd);
  (void)coir_close(listener);
  free(buf);
  return rc < 0 ? rc : 0;
}

static int sockets(void) { return play_on((struct coir_config){.workers = 2}, listens, NULL); }
static int sockets_shared(void) { return play_on((struct coir_config){.workers = 2, .pollers = 1}, listens, NULL); }

/* Datagrams and messages between two ends. */
static int exchanges(void *arg) {
  (void)arg;
  int fds[2], rc = 0;
  char text[64] = "";
  CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
  struct iovec iov = {.iov_base = text, .iov_len = sizeof text};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  for (int i = 0; i < 3 && rc >= 0; i++) {
    rc = MAY((int)coir_sendmsg(fds[0], &msg, 0, SOON), OF_WAIT_FD, OF_CALL);
    if (rc >= 0) rc = MAY((int)coir_recvmsg(fds[1], &msg, 0, SOON), OF_WAIT_FD, OF_CALL);
    if (rc >= 0) rc = MAY((int)coir_send(fds[1], text, 1, 0, SOON), OF_WAIT_FD, OF_CALL);
    if (rc >= 0) rc = MAY(coir_poll(fds[0], COIR_READABLE, SOON), OF_WAIT_FD);
    if (rc >= 0) rc = MAY((int)coir_recv(fds[0], text, sizeof text, 0, SOON), OF_WAIT_FD, OF_CALL);
  }
  (void)coir_close(fds[0]);
  (void)coir_close(fds[1]);
  return rc < 0 ? rc : 0;
}

static int messages(void) { return play_on((struct coir_config){.workers = 1}, exchanges, NULL); }

/* ---- Pipes ----------------------------------------------------------------------------------------------------- */

static int pours(void *arg) {
  int fd = (int)(intptr_t)arg;
  char *message = calloc(1, MESSAGE);
  CHECK(message);
  struct iovec iov[2] = {{message, 10}, {message, 20}};
  int rc = MAY((int)coir_writev(fd, iov, 2, SOON), OF_WAIT_FD, -EPIPE, OF_CALL);
  if (rc >= 0) rc = MAY((int)coir_write_full(fd, message, MESSAGE, SOON), OF_WAIT_FD, -EPIPE, OF_CALL);
  (void)coir_close(fd);
  free(message);
  return rc < 0 ? rc : 0;
}

static int drains(void *arg) {
  (void)arg;
  int fds[2], rc;
  char *buf = malloc(MESSAGE);
  CHECK(buf && pipe(fds) == 0);
  struct coir_fiber *f = NULL;
  rc = MAY(coir_spawn(pours, (void *)(intptr_t)fds[1], NULL, &f), -ENOMEM);
  if (rc < 0) (void)coir_close(fds[1]);
  struct iovec iov[2] = {{buf, 100}, {buf, MESSAGE}};
  while (rc >= 0 && (rc = MAY((int)coir_readv(fds[0], iov, 2, SOON), OF_WAIT_FD, OF_CALL)) > 0) {}
  (void)coir_close(fds[0]);
  int said = join_soon(f);
  CHECK(said == 0 || said == -EPIPE || fault_has_come());
  free(buf);
  return first_of(rc, said);
}

/* Nobody reads, and no signal comes. */
static int breaks(void *arg) {
  int fds[2];
  CHECK(pipe(fds) == 0);
  close(fds[0]);
  int rc = (int)coir_write(fds[1], "x", 1, SOON);
  CHECK(rc == -EPIPE || fault_has_come());
  (void)coir_close(fds[1]);
  rc = rc == -EPIPE ? 0 : MAY(rc, OF_WAIT_FD, OF_CALL);
  return first_of(rc, drains(arg));
}

static int pipes(void) { return play_on((struct coir_config){.workers = 2}, breaks, NULL); }

static int pipes_old(void) {
  fault_age(true);
  int rc = pipes();
  fault_age(false);
  return rc;
}

/* ---- Files ----------------------------------------------------------------------------------------------------- */

enum { BLOCK = 4096 };

/* What the pages hold is dropped, so that the disk is waited for. */
static int uses_file(void *arg) {
  int fd = file_without_name(), flags = fcntl(fd, F_GETFL), rc = 0;
  char *block = NULL;
  CHECK(ftruncate(fd, 64L * BLOCK) == 0);
  CHECK(posix_memalign((void **)&block, BLOCK, BLOCK) == 0);
  for (int i = 0; i < 8 && rc >= 0; i++) {
    memset(block, i, BLOCK);
    rc = MAY((int)coir_pwrite(fd, block, BLOCK, (off_t)i * BLOCK, SOON), -EAGAIN, -ENOMEM, OF_CALL);
  }
  if (arg) {
    (void)fsync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)fcntl(fd, F_SETFL, flags | O_DIRECT); /* not everywhere */
  }
  for (int i = 0; i < 8 && rc >= 0; i++) {
    rc = MAY((int)coir_pread(fd, block, BLOCK, (off_t)i * BLOCK, SOON), -EAGAIN, -ENOMEM, OF_CALL);
    CHECK(rc < 0 || (rc > 0 && block[0] == i));
  }
  if (rc >= 0) rc = MAY((int)coir_read(fd, block, BLOCK, SOON), -EAGAIN, -ENOMEM, OF_CALL);
  if (rc >= 0) rc = MAY((int)coir_write(fd, block, BLOCK, SOON), -EAGAIN, -ENOMEM, OF_CALL);
  int closed = MAY(coir_close(fd), OF_CALL);
  free(block);
  return first_of(rc, closed);
}

static int files(void) { return play_on((struct coir_config){.workers = 1}, uses_file, NULL); }
static int files_direct(void) { return play_on((struct coir_config){.workers = 1}, uses_file, ""); }
static int files_by_pool(void) {
  return play_on((struct coir_config){.workers = 1, .io_uring = COIR_OFF}, uses_file, "");
}

/* ---- Names ----------------------------------------------------------------------------------------------------- */

#define OF_NAMES -ENOENT, -EAGAIN, -EIO, -ENOMEM, OF_CALL

static int looks_up(void *arg) {
  (void)arg;
  const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  struct addrinfo *list = NULL;
  int rc = MAY(coir_getaddrinfo("localhost", "80", &hints, &list, SOON), OF_NAMES);
  CHECK((rc == 0) == (list != NULL));
  if (list) freeaddrinfo(list);
  return rc;
}

static int names(void) {
  int rc = play_on((struct coir_config){.workers = 1}, looks_up, NULL);
  if (rc == 0) rc = record_make();
  return rc < 0 ? rc : looks_up(NULL);
}

/* ---- Signals --------------------------------------------------------------------------------------------------- */

static int catches(void *arg) {
  (void)arg;
  struct coir_signals *s = NULL;
  struct coir_siginfo info;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  int rc = MAY(coir_signals_open(&s, &set), -EAGAIN, -EMFILE, -ENFILE, -ENOMEM);
  CHECK((rc == 0) == (s != NULL));
  if (rc < 0) return rc;
  for (int i = 0; i < 3; i++) {
    CHECK(kill(getpid(), SIGUSR1) == 0);
    MUST(COIR_RECV(coir_signals_chan(s), &info, SOON));
  }
  coir_signals_close(s);
  return 0;
}

static int catches_blocked(void *arg) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  int rc = catches(arg);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  return rc;
}

static int signals(void) { return play_on((struct coir_config){.workers = 1}, catches, NULL); }
static int signals_blocked(void) { return play_on((struct coir_config){.workers = 1}, catches_blocked, NULL); }

/* ---- Child processes ------------------------------------------------------------------------------------------- */

#define OF_SPAWN -EMFILE, -ENFILE, -EAGAIN, -ENOMEM

static int has_child(void *arg) {
  (void)arg;
  char *argv[] = {"cat", NULL}, text[8] = "abcdef";
  struct coir_process_options options = {.path = "cat",
                                         .argv = argv,
                                         .dir = "/",
                                         .io = {{COIR_STDIO_PIPE, 0}, {COIR_STDIO_PIPE, 0}, {COIR_STDIO_NULL, 0}}};
  struct coir_process *p = NULL;
  int rc = MAY(coir_process_spawn(&p, &options), OF_SPAWN, OF_CALL), status = -1;
  CHECK((rc == 0) == (p != NULL));
  if (rc < 0) return rc;
  rc = MAY((int)coir_write_full(coir_process_fd(p, 0), text, 6, SOON), OF_WAIT_FD, OF_CALL);
  int closed = MAY(coir_process_close_fd(p, 0), OF_CALL);
  if (rc > 0) rc = MAY((int)coir_read_full(coir_process_fd(p, 1), text, 7, SOON), OF_WAIT_FD, OF_CALL);
  CHECK(rc < 0 || rc == 6);
  int waited = MAY(coir_process_wait(p, &status, SOON), OF_WAIT_FD, -ECHILD);
  CHECK(waited < 0 || status == 0);
  coir_process_destroy(p);
  return first_of(first_of(rc, closed), waited);
}

static int is_killed(void *arg) {
  unsigned flags = *(unsigned *)arg;
  char *argv[] = {"sleep", "100", NULL};
  struct coir_process_options options = {.path = "sleep", .argv = argv, .flags = flags, .io = {{COIR_STDIO_PIPE, 0}}};
  struct coir_process *p = NULL;
  int rc = MAY(coir_process_spawn(&p, &options), OF_SPAWN, OF_CALL), status = -1;
  if (rc < 0) return rc;
  rc = MAY(coir_process_kill(p, SIGKILL), -EPERM, OF_CALL);
  if (rc < 0) MUST(coir_process_kill(p, SIGKILL));
  int waited = MAY(coir_process_wait(p, &status, SOON), OF_WAIT_FD, -ECHILD);
  CHECK(waited < 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
  coir_process_destroy(p);
  return first_of(rc, waited);
}

/* None is left, running or waiting to be waited for. */
static int childless(coir_fn fn, void *arg) {
  int rc = play_on((struct coir_config){.workers = 1}, fn, arg);
  for (int i = 0; i < 500; i++) {
    if (waitpid(-1, NULL, WNOHANG) == -1) return rc;
    coir_process_destroy(NULL);
    usleep(1000);
  }
  CHECK(waitpid(-1, NULL, WNOHANG) == -1);
  return rc;
}

static int process(void) { return childless(has_child, NULL); }

static int process_killed(void) {
  unsigned flags = 0;
  return childless(is_killed, &flags);
}

/* The number of its input is free, and becomes that of a pipe. */
static int is_killed_as_group(void *arg) {
  unsigned flags = COIR_PROCESS_GROUP;
  (void)arg;
  int input = dup(STDIN_FILENO);
  if (input >= 0) close(STDIN_FILENO);
  int rc = is_killed(&flags);
  if (input >= 0) CHECK(dup2(input, STDIN_FILENO) == STDIN_FILENO && close(input) == 0);
  return rc;
}

static int process_group(void) { return childless(is_killed_as_group, NULL); }

const struct fault_scene fault_scenes_io[] = {
    {"sockets", sockets},
    {"sockets_shared", sockets_shared},
    {"messages", messages},
    {"pipes", pipes},
    {"pipes_old", pipes_old},
    {"files", files},
    {"files_direct", files_direct},
    {"files_by_pool", files_by_pool},
    {"names", names},
    {"signals", signals},
    {"signals_blocked", signals_blocked},
    {"process", process},
    {"process_killed", process_killed},
    {"process_group", process_group},
    {NULL, NULL},
};
