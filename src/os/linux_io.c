/* os.h for Linux: system calls on descriptors, made once each, with the error in the result.
 *
 * errno. Each call is a function of its own that is never inlined, remembers errno, and puts it back: so the fiber's
 * errno stays its own, and the address of errno, which libc lets compilers keep, is never kept across a switch.
 *
 * libc's recv, send and the like switch asynchronous cancellation of threads on and off around the system call, two
 * locked instructions each. Nobody cancels the threads of Coir, so the calls that matter for speed go through
 * syscall(2); except under sanitizers, whose interceptors want to see them.
 *
 * SIGPIPE. Sockets can be told not to raise it (MSG_NOSIGNAL), and from Linux 6.18 on pipes, too (RWF_NOSIGNAL). On
 * older ones the calling thread blocks the signal around the call, and takes back what the call has made pending. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "ctx.h"
#include "os.h"
#include "poller.h"

/* Descriptors beyond the first million are refused: their records would reserve too much. */
#define FD_LIMIT_MIN 1024
#define FD_LIMIT_MAX (1 << 20)

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100 /* Linux 6.18 */
#endif

/* The body of a leaf: the call's result, or its error as a negative code. */
#define RETURN_CALL(type, call) \
  do { \
    int saved_ = errno; \
    type result_ = (type)(call); \
    if (result_ < 0) { \
      result_ = -errno; \
      errno = saved_; \
    } \
    return result_; \
  } while (0)

COIR_LEAF ssize_t coir__sys_recv(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr,
                                 socklen_t *addr_bytes) {
  flags = (flags | MSG_DONTWAIT) & ~MSG_WAITALL;
#if defined(COIR_SANITIZED)
  RETURN_CALL(ssize_t, recvfrom(fd, buf, bytes, flags, addr, addr_bytes));
#else
  RETURN_CALL(ssize_t, syscall(SYS_recvfrom, fd, buf, bytes, flags, addr, addr_bytes));
#endif
}

COIR_LEAF ssize_t coir__sys_send(int fd, const void *buf, size_t bytes, int flags, const struct sockaddr *addr,
                            socklen_t addr_bytes) {
  flags |= MSG_DONTWAIT | MSG_NOSIGNAL;
#if defined(COIR_SANITIZED)
  RETURN_CALL(ssize_t, sendto(fd, buf, bytes, flags, addr, addr_bytes));
#else
  RETURN_CALL(ssize_t, syscall(SYS_sendto, fd, buf, bytes, flags, addr, addr_bytes));
#endif
}

COIR_LEAF ssize_t coir__sys_recvmsg(int fd, struct msghdr *msg, int flags) {
  RETURN_CALL(ssize_t, recvmsg(fd, msg, (flags | MSG_DONTWAIT) & ~MSG_WAITALL));
}

COIR_LEAF ssize_t coir__sys_sendmsg(int fd, const struct msghdr *msg, int flags) {
  RETURN_CALL(ssize_t, sendmsg(fd, msg, flags | MSG_DONTWAIT | MSG_NOSIGNAL));
}

COIR_LEAF ssize_t coir__sys_read(int fd, void *buf, size_t bytes) { RETURN_CALL(ssize_t, read(fd, buf, bytes)); }
COIR_LEAF ssize_t coir__sys_write(int fd, const void *buf, size_t bytes) {
  RETURN_CALL(ssize_t, write(fd, buf, bytes));
}
COIR_LEAF ssize_t coir__sys_readv(int fd, const struct iovec *iov, int iov_count) {
  RETURN_CALL(ssize_t, readv(fd, iov, iov_count));
}
COIR_LEAF ssize_t coir__sys_writev(int fd, const struct iovec *iov, int iov_count) {
  RETURN_CALL(ssize_t, writev(fd, iov, iov_count));
}

COIR_LEAF ssize_t coir__sys_pread(int fd, void *buf, size_t bytes, off_t offset) {
  RETURN_CALL(ssize_t, pread(fd, buf, bytes, offset));
}
COIR_LEAF ssize_t coir__sys_pwrite(int fd, const void *buf, size_t bytes, off_t offset) {
  RETURN_CALL(ssize_t, pwrite(fd, buf, bytes, offset));
}

/* Linux 5.9 and 5.10 may say 0 though it is not the end of the file (preadv2(2), BUGS). */
static COIR_LEAF bool knows_nowait(void) {
  static _Atomic(uint32_t) known; /* (a) 1: it does not; 2: it does */
  struct utsname names;
  if (atm_load_rlx(&known) == 0) { /* relaxed: who does not see it finds out the same */
    int major = 0, minor = 0;
    bool is_sound = uname(&names) == 0 && sscanf(names.release, "%d.%d", &major, &minor) == 2 &&
                    (major > 5 || (major == 5 && minor > 10));
    atm_store_rlx(&known, 1u + is_sound);
  }
  return atm_load_rlx(&known) == 2;
}

#ifndef RWF_NOWAIT /* musl 1.2.3 has neither */
#define RWF_NOWAIT 8
static ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
  return syscall(SYS_preadv2, fd, parts, (long)count, (long)offset, 0L, (long)flags);
}
#endif

/* With O_DIRECT the flag would mean to wait for the disk, and for nothing else. The offset takes one register on the
 * 64-bit systems that we know. */
static COIR_LEAF ssize_t read_nowait(int fd, void *buf, size_t bytes, off_t offset) {
  struct iovec iov = {.iov_base = buf, .iov_len = bytes};
  int saved = errno, flags = fcntl(fd, F_GETFL);
  ssize_t n = flags < 0 ? -1 : flags & O_DIRECT ? -EAGAIN : preadv2(fd, &iov, 1, offset, RWF_NOWAIT);
  if (n == -1) n = -errno;
  else if (n > 0) COIR_WRITTEN(buf, n);
  errno = saved;
  return n;
}

ssize_t coir__sys_read_cached(int fd, void *buf, size_t bytes, off_t offset) {
  if (!knows_nowait()) return -EAGAIN;
  ssize_t n = read_nowait(fd, buf, bytes, offset);
  bool is_unknown = n == -EOPNOTSUPP || n == -ENOSYS || n == -EPERM || n == -EINTR;
  return COIR_UNLIKELY(is_unknown) ? -EAGAIN : n;
}

/* Writes with SIGPIPE blocked for this thread. What a write raises is for the thread alone, and is not counted: if the
 * signal was pending before, nothing tells whether it was raised again, and it stays. */
static COIR_LEAF ssize_t write_blocking_sigpipe(int fd, const struct iovec *iov, int iov_count) {
  static const struct timespec no_time;
  int saved = errno;
  sigset_t sigpipe, old, pending;
  sigemptyset(&sigpipe);
  sigaddset(&sigpipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &sigpipe, &old);
  bool was_blocked = sigismember(&old, SIGPIPE) == 1;
  bool was_pending = was_blocked && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
  ssize_t n = writev(fd, iov, iov_count);
  if (n < 0) n = -errno;
  if (n == -EPIPE && !was_pending)
    while (sigtimedwait(&sigpipe, NULL, &no_time) < 0 && errno == EINTR) {}
  if (!was_blocked) pthread_sigmask(SIG_UNBLOCK, &sigpipe, NULL);
  errno = saved;
  return n;
}

#if defined(COIR_SANITIZED)
ssize_t coir__sys_pipe_writev(int fd, const struct iovec *iov, int iov_count) {
  return write_blocking_sigpipe(fd, iov, iov_count);
}
#else
static COIR_LEAF ssize_t write_nosignal(int fd, const struct iovec *iov, int iov_count) {
  RETURN_CALL(ssize_t, syscall(SYS_pwritev2, fd, iov, iov_count, -1L, -1L, RWF_NOSIGNAL));
}

ssize_t coir__sys_pipe_writev(int fd, const struct iovec *iov, int iov_count) {
  static _Atomic(bool) is_refused; /* (a) the kernel, or a sandbox, does not know the flag */
  if (!atm_load_rlx(&is_refused)) { /* relaxed: a late look costs one call more */
    ssize_t n = write_nosignal(fd, iov, iov_count);
    if (COIR_LIKELY(n != -EOPNOTSUPP && n != -ENOSYS && n != -EPERM)) return n;
    /* What is no pipe any more, because the number has changed its meaning, may refuse it for itself. */
    if (coir__sys_kind(fd) == COIR__KIND_PIPE) atm_store_rlx(&is_refused, true);
  }
  return write_blocking_sigpipe(fd, iov, iov_count);
}
#endif

COIR_LEAF int coir__sys_socket(int domain, int type, int protocol) {
  RETURN_CALL(int, socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}

COIR_LEAF int coir__sys_accept(int fd, struct sockaddr *addr, socklen_t *addr_bytes) {
  RETURN_CALL(int, accept4(fd, addr, addr_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

COIR_LEAF int coir__sys_connect(int fd, const struct sockaddr *addr, socklen_t addr_bytes) {
  RETURN_CALL(int, connect(fd, addr, addr_bytes));
}

COIR_LEAF int coir__sys_create(const char *path) {
  int saved = errno, fd;
  do fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  while (fd < 0 && errno == EINTR); /* of a pipe nobody reads yet, or a file elsewhere */
  if (fd < 0) fd = -errno;
  errno = saved;
  return fd;
}

COIR_LEAF int coir__sys_close(int fd) {
  int saved = errno, rc = close(fd);
  if (rc < 0) rc = errno == EINTR ? 0 : -errno;
  errno = saved;
  return rc;
}

COIR_LEAF int coir__sys_kind(int fd) {
  int saved = errno;
  struct stat st;
  int rc = fstat(fd, &st) == 0 ? 0 : -errno; /* a file may lie on another machine, which does not answer */
  errno = saved;
  if (rc < 0) return rc;
  if (S_ISSOCK(st.st_mode)) return COIR__KIND_SOCKET;
  if (S_ISFIFO(st.st_mode)) return COIR__KIND_PIPE;
  return S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode) ? COIR__KIND_FILE : COIR__KIND_OTHER;
}

/* A socket's option that is an int, or -1. */
static COIR_LEAF int option(int fd, int name) {
  int saved = errno, value = -1;
  socklen_t bytes = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, name, &value, &bytes) < 0) value = -1;
  errno = saved;
  return value;
}

int coir__sys_is_tcp(int fd) {
  int domain = option(fd, SO_DOMAIN);
  if (domain != AF_INET && domain != AF_INET6) return 0;
  return option(fd, SO_TYPE) == SOCK_STREAM && option(fd, SO_PROTOCOL) == IPPROTO_TCP;
}

int coir__sys_is_stream(int fd) { return option(fd, SO_TYPE) == SOCK_STREAM || coir__sys_kind(fd) == COIR__KIND_PIPE; }

/* The kernel counts sockets; of the count the lower half will do. */
COIR_LEAF uint32_t coir__sys_socket_id(int fd) {
  int saved = errno;
  uint64_t cookie = 0;
  socklen_t bytes = sizeof cookie;
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &bytes) < 0) cookie = 0;
  errno = saved;
  return (uint32_t)cookie;
}

COIR_LEAF int coir__sys_set_nonblock(int fd) {
  int saved = errno, flags = fcntl(fd, F_GETFL), rc = flags < 0 ? -1 : 0;
  if (rc == 0 && !(flags & O_NONBLOCK)) rc = fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

int coir__sys_pending_error(int fd) {
  int error = option(fd, SO_ERROR);
  return error < 0 ? -EBADF : -error;
}

COIR_LEAF int coir__sys_ready(int fd, uint32_t events) {
  int saved = errno, rc = 0;
  struct pollfd p = {.fd = fd};
  if (events & COIR__POLL_IN) p.events |= POLLIN;
  if (events & COIR__POLL_OUT) p.events |= POLLOUT;
  while (poll(&p, 1, 0) < 0 && (rc = -errno) == -EINTR) rc = 0; /* it cannot wait, yet a signal may end it */
  errno = saved;
  if (rc < 0) return rc;
  if (p.revents & POLLNVAL) return -EBADF;
  if (p.revents & (POLLHUP | POLLERR)) return (int)events;
  if (p.revents & POLLIN) rc |= COIR__POLL_IN;
  if (p.revents & POLLOUT) rc |= COIR__POLL_OUT;
  return rc;
}

COIR_LEAF int coir__sys_fd_limit(void) {
  int saved = errno, limit = FD_LIMIT_MAX, fd = open("/proc/sys/fs/nr_open", O_RDONLY | O_CLOEXEC);
  char text[24];
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (n > 0) {
    long long value = 0;
    for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9' && value < FD_LIMIT_MAX; i++)
      value = value * 10 + (text[i] - '0');
    limit = value > FD_LIMIT_MAX ? FD_LIMIT_MAX : value < FD_LIMIT_MIN ? FD_LIMIT_MIN : (int)value;
  }
  errno = saved;
  return limit;
}
