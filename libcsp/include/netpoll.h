/* netpoll.h: waiting for descriptors, and reading and writing that suspends the goroutine. Any descriptor may be used,
 * registered or not; on a plain thread the thread blocks. coir_io.h has more (accept, connect, deadlines), and may be
 * used along with this. */
#ifndef CSP_NETPOLL_H
#define CSP_NETPOLL_H

#include <errno.h>
#include <sys/types.h>

#include "csp_api.h"

CSP_BEGIN_DECLS

/* What csp_netpoll_wait_read and _write return. */
enum {
  csp_netpoll_avail = 2,   /* a call on it will not block, be it that it fails: an error or a hang-up counts, too */
  csp_netpoll_timeout = 3, /* the time is over */
};

/* Makes `fd` non-blocking. False, with errno set, when it is no open descriptor. Need not be called. */
CSP_API bool csp_netpoll_register(int fd);

/* Ends what csp_netpoll_register began; the descriptor stays non-blocking. Need not be called. Nobody should wait for a
 * descriptor when it is closed by close(2): who does learns of it within 3 s. False, with errno set, when it is no open
 * descriptor. */
CSP_API bool csp_netpoll_unregister(int fd);

/* Wait until `fd` can be read or written, for at most `timeout_ns` nanoseconds; without limit for 0 and less. */
CSP_API int csp_netpoll_wait_read(int fd, int64_t timeout_ns);
CSP_API int csp_netpoll_wait_write(int fd, int64_t timeout_ns);

/* As read(2) and write(2): one that succeeds, of up to `n` bytes; while it would block, the goroutine waits. EINTR
 * never comes. -1 with errno set on failure; EPIPE comes without a signal. */
CSP_API ssize_t csp_read(int fd, void *buf, size_t n);
CSP_API ssize_t csp_write(int fd, const void *buf, size_t n);

/* ---- errno ----------------------------------------------------------------------------------------------------- */

/* Each goroutine has an errno of its own. But compilers may keep its address, which libc lets them, and after a wait
 * the goroutine may be on another thread. So where this header is included errno is found anew each time. A program
 * that defines CSP_KEEP_ERRNO keeps libc's own. */
CSP_API int *csp_errno_location(void);
#ifndef CSP_KEEP_ERRNO
#undef errno
#define errno (*csp_errno_location())
#endif

CSP_END_DECLS
#endif
