/* Descriptors of libcsp: Coir's waits, with the results of this interface. */
#include "netpoll.h"

#include <fcntl.h>

#include "coir_io.h"
#include "csp_internal.h"

bool csp_netpoll_register(int fd) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
}

bool csp_netpoll_unregister(int fd) { return fcntl(fd, F_GETFD) >= 0; }

/* All that is not the end of the time is for the call that comes next to find out. */
static int wait_for(int fd, int events, int64_t timeout_ns) {
  int rc = coir_poll(fd, events, timeout_ns > 0 ? coir_after(timeout_ns) : COIR_NEVER);
  return rc == -ETIMEDOUT ? csp_netpoll_timeout : csp_netpoll_avail;
}

int csp_netpoll_wait_read(int fd, int64_t timeout_ns) { return wait_for(fd, COIR_READABLE, timeout_ns); }
int csp_netpoll_wait_write(int fd, int64_t timeout_ns) { return wait_for(fd, COIR_WRITABLE, timeout_ns); }

static ssize_t result(ssize_t rc) {
  if (rc >= 0) return rc;
  csp__fail(rc);
  return -1;
}

ssize_t csp_read(int fd, void *buf, size_t n) { return result(coir_read(fd, buf, n, COIR_NEVER)); }
ssize_t csp_write(int fd, const void *buf, size_t n) { return result(coir_write(fd, buf, n, COIR_NEVER)); }
