/* coir_io.h: input and output that suspends the fiber, not the thread.
 *
 * Each call does what the system call of the same name does, on any kind of descriptor, with three differences: it
 * returns a negative errno code instead of setting errno; where the system call would block, the fiber waits and its
 * worker goes on with others; and it takes a deadline (coir.h says how deadlines read). On a plain thread the thread
 * blocks instead. EINTR is never returned: the call goes on.
 *
 * Every call tries first and waits only when the descriptor is not ready, so a call that finds data does not suspend.
 * To keep such a fiber from holding its worker for ever, every 64th call in a row that found data lets others run.
 *
 * Errors that every call knows, beside those of the system call itself:
 *   -EBADF      the descriptor is negative, not open, or was closed (coir_close) while the call waited
 *   -ETIMEDOUT  the deadline passed; with a deadline of 0: it would have had to wait
 *   -ECANCELED  the fiber was cancelled. Nothing was transferred, except where a call below says otherwise. A
 *               cancellation that is pending when the call begins is noticed when the call would have to wait.
 *   -ENOMEM     no memory to watch the descriptor; -ENOSPC, the kernel's limit of watched descriptors is reached;
 *               -EMFILE, -ENFILE: no descriptor for the first wait of a plain thread; -EAGAIN: no thread for a file
 *   -ENOTSUP    it would have to wait on a runtime that is the parent's (fork)
 *
 * Blocking mode. Sockets are used without regard to it. Pipes, terminals and other pollable descriptors are switched to
 * O_NONBLOCK on first use and stay so, and so are the sockets that coir_accept and coir_connect are called on, and
 * whatever is adopted. Regular files, block devices and directories are never "not ready": such calls run on a small
 * pool of threads while the fiber waits; a deadline is checked only before they start (so with 0 it is always
 * -ETIMEDOUT), and a cancellation does not end them.
 *
 * Closing. Close what a fiber or a thread may be waiting on with coir_close: waiters then get -EBADF at once, and no
 * call that began before reaches what gets the number next. After a plain close(2) of a descriptor that nobody waits
 * on, its number can be used again at once, too. A waiter of a descriptor that was closed by plain close(2) under it
 * waits until its deadline, or until somebody waits on what got the number next: then it gets -EBADF.
 *
 * SIGPIPE. Writing to a socket whose peer is gone returns -EPIPE without the signal. Pipes keep the signal's
 * disposition. */
#ifndef COIR_IO_H
#define COIR_IO_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "coir.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads up to `bytes` bytes. Returns how many, 0 at the end of the stream, or an error. */
COIR_API ssize_t coir_read(int fd, void *buf, size_t bytes, int64_t deadline);
COIR_API ssize_t coir_readv(int fd, const struct iovec *iov, int iov_count, int64_t deadline);

/* Writes up to `bytes` bytes, at least one. Returns how many, or an error. */
COIR_API ssize_t coir_write(int fd, const void *buf, size_t bytes, int64_t deadline);
COIR_API ssize_t coir_writev(int fd, const struct iovec *iov, int iov_count, int64_t deadline);

/* Reads exactly `bytes` bytes. Returns `bytes`; less at the end of the stream; an error when nothing was read before
 * it. An error after some bytes is not lost: they are counted now, and the next call meets the error again. (Where the
 * descriptor is not adopted, the reset of a connection reads as the end of the stream then, as the kernel has it.) */
COIR_API ssize_t coir_read_full(int fd, void *buf, size_t bytes, int64_t deadline);

/* Writes all `bytes` bytes. Returns `bytes`; fewer when an error or the deadline came after a part was written (the
 * next call meets the error again); the error when nothing was written. */
COIR_API ssize_t coir_write_full(int fd, const void *buf, size_t bytes, int64_t deadline);

/* Like recv, recvfrom, recvmsg, send, sendto, sendmsg. MSG_DONTWAIT in `flags` has no meaning (use deadline 0);
 * MSG_WAITALL is not honoured (use coir_read_full). -ENOTSOCK on what is not a socket. */
COIR_API ssize_t coir_recv(int fd, void *buf, size_t bytes, int flags, int64_t deadline);
COIR_API ssize_t coir_recvfrom(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes,
                               int64_t deadline);
COIR_API ssize_t coir_recvmsg(int fd, struct msghdr *msg, int flags, int64_t deadline);
COIR_API ssize_t coir_send(int fd, const void *buf, size_t bytes, int flags, int64_t deadline);
COIR_API ssize_t coir_sendto(int fd, const void *buf, size_t bytes, int flags, const struct sockaddr *addr,
                             socklen_t addr_bytes, int64_t deadline);
COIR_API ssize_t coir_sendmsg(int fd, const struct msghdr *msg, int flags, int64_t deadline);

/* Makes a socket that is non-blocking, close-on-exec and adopted (see coir_adopt). Returns the descriptor or an
 * error. */
COIR_API int coir_socket(int domain, int type, int protocol);

/* Accepts a connection; `addr` and `addr_bytes` may be NULL. The new socket is non-blocking, close-on-exec and adopted.
 * A connection that was reset before it was accepted is skipped. Returns the descriptor or an error (-EMFILE and
 * -ENFILE among them: the connection stays in the backlog). */
COIR_API int coir_accept(int fd, struct sockaddr *addr, socklen_t *addr_bytes, int64_t deadline);

/* Connects `fd`. Returns 0, or an error: -ECONNREFUSED and the like from the network. After -ETIMEDOUT or -ECANCELED
 * the attempt may still be under way in the kernel: close the socket. Where the backlog of a unix socket is full it
 * tries again every few milliseconds, and so do datagrams to a unix socket that are sent by name. */
COIR_API int coir_connect(int fd, const struct sockaddr *addr, socklen_t addr_bytes, int64_t deadline);

/* Events of coir_poll. */
#define COIR_READABLE 1
#define COIR_WRITABLE 2

/* Waits until `fd` is readable or writable, as `events` asks; hang-up and error count as both.
 * Returns the events that hold (a subset of `events`, not 0), or an error; -EINVAL when `events` is 0 or has other
 * bits. Regular files are always ready. */
COIR_API int coir_poll(int fd, int events, int64_t deadline);

/* Closes `fd`. Whoever waits on it gets -EBADF. Does not wait for the kernel's own work on it. Returns 0, -EBADF, or
 * what close(2) reported (the descriptor is gone all the same). */
COIR_API int coir_close(int fd);

/* Promises that `fd` will be closed by coir_close and by nothing else. In return its waits cost one system call less.
 * coir_socket and coir_accept have promised for what they return. Returns 0 or -EBADF, -ENOMEM.
 *
 * A TCP socket that is adopted is taken to be empty after a read that returned less than it asked for. That holds for
 * bytes; with kernel TLS, whose records of other types end a read early, use coir_recvmsg with room for control
 * data. */
COIR_API int coir_adopt(int fd);

#ifdef __cplusplus
}
#endif
#endif
