/* Input and output of go_fiber. What is different from Coir's own: results by errno, limits in milliseconds from now,
 * whole writes, and descriptors that stay the program's to close. */
#include "gof_internal.h"

#include <fcntl.h>

#include "coir_io.h"

/* Coir does not need it, or sees to it by itself: it is for programs that make system calls of their own on these
 * descriptors. Each time, since a number may have come to stand for something else. */
static void make_nonblock(int fd) {
  int saved = errno, flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  errno = saved;
}

static int64_t deadline_of(int timeout_ms) {
  return timeout_ms < 0 ? COIR_NEVER : timeout_ms == 0 ? 0 : coir_after(COIR_MS(timeout_ms));
}

ssize_t gof_read(int fd, void *buf, size_t n) {
  make_nonblock(fd);
  ssize_t rc = coir_read(fd, buf, n, COIR_NEVER);
  return rc < 0 ? gof__fail(rc) : rc;
}

ssize_t gof_write(int fd, const void *buf, size_t n) {
  make_nonblock(fd);
  for (size_t done = 0; done < n;) {
    ssize_t rc = coir_write(fd, (const char *)buf + done, n - done, COIR_NEVER);
    if (rc < 0) return gof__fail(rc);
    done += (size_t)rc;
  }
  return (ssize_t)n;
}

int gof_connect(int fd, const struct sockaddr *sa, socklen_t slen, int timeout_ms) {
  make_nonblock(fd);
  int rc = coir_connect(fd, sa, slen, deadline_of(timeout_ms));
  return rc < 0 ? gof__fail(rc) : 0;
}

int gof_accept(int fd, struct sockaddr *sa, socklen_t *slen, int timeout_ms) {
  make_nonblock(fd);
  int peer = coir_accept(fd, sa, slen, deadline_of(timeout_ms));
  if (peer < 0) return gof__fail(peer);
  coir_disown(peer); /* it is the program's to close, by close(2) */
  fcntl(peer, F_SETFD, 0); /* as accept(2) makes them */
  return peer;
}
