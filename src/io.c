/* Calls on descriptors: try, and wait only where the kernel says EAGAIN.
 *
 * Every call is the same loop (transfer) around one system call; poll.c has the protocol that loses no readiness, and
 * os/linux_io.c the system calls. What differs is by kind of descriptor: sockets are told per call not to block; what
 * else can be polled is switched to O_NONBLOCK; pipes are kept from raising SIGPIPE; files go to the pool of block.c.
 * What a descriptor is we know for good only where it is adopted. Otherwise reads and writes guess that a number that
 * was a socket last time still is one (the kernel says ENOTSOCK if not), and look in every other case.
 *
 * A call belongs to one life of its number (poll.c), from its first look at the record to its end: what it has found
 * out in one life it never applies to the next.
 *
 * A wait transfers nothing, so a deadline or a cancellation loses no data. A cancellation that is pending when a call
 * begins is noticed when the call would wait.
 *
 * Where no event will ever come we look again now and then (io_pause): for room in the backlog of a unix socket that we
 * connect to, for room at the receiver of a datagram that names it, and for the odd device that cannot be polled. */
#include <string.h>

#include "coir_io.h"
#include "internal.h"

#define IOV_MAX_COUNT 1024
#define PAUSE_MIN COIR_MS(1)
#define PAUSE_MAX COIR_MS(20)
#define CACHED_MAX ((size_t)256 << 10)

/* One call; its arguments, for whichever system call it is. */
struct io {
  int fd;
  int flags;
  void *buf;
  size_t bytes;
  size_t drains; /* a TCP socket that transfers less than this is dry now; 0: says nothing */
  struct sockaddr *addr;
  socklen_t *addr_bytes;
  union {
    struct msghdr *msg;
    const struct iovec *iov;
  };
  int iov_count;
  bool is_unix_dgram; /* no event tells of room at the receiver */
  bool is_read;       /* into `buf`: what the page cache has of a file is taken at once */
  off_t offset;       /* in a file; -1: where the descriptor stands */
};

typedef ssize_t (*io_try)(struct io *io);

/* The fiber that calls, or NULL. Its address stays when it moves to another worker. */
static inline struct coir_fiber *self(void) {
  return coir__me();
}

static inline bool has_passed(int64_t deadline) { return deadline != COIR_NEVER && deadline <= coir__os_now(); }

/* Sleeps for a step, which grows. 0, -ETIMEDOUT, -ECANCELED. */
static int io_pause(int64_t *step, int64_t deadline) {
  int64_t now = coir__os_now();
  if (deadline <= now) return -ETIMEDOUT;
  *step = *step < PAUSE_MIN ? PAUSE_MIN : *step < PAUSE_MAX / 2 ? *step * 2 : PAUSE_MAX;
  return coir_sleep_until(deadline - now < *step ? deadline : now + *step);
}

/* In a simulated runtime: a signal ends the system call to come. */
static inline bool is_interrupted(void) { return COIR_UNLIKELY(coir__os_is_simulated()) && coir__sim_interrupts(); }

/* Tries until it succeeds, fails, or may not wait any more. `seen`: the record's word as the call began. `event`:
 * COIR__POLL_IN or _OUT. */
static ssize_t transfer_in(struct coir__fd *d, uint64_t seen, struct io *io, io_try try, uint32_t event,
                           int64_t deadline) {
  struct coir_fiber *f = self();
  enum coir__reason reason = event == COIR__POLL_IN ? COIR__REASON_READ : COIR__REASON_WRITE;
  int rc;
  int64_t step = 0;
  uint64_t life = seen & COIR__FD_LIFE;
  if (COIR_UNLIKELY(seen & COIR__FD_KEPT) && event == COIR__POLL_IN && (rc = coir__fd_take_kept(d)) < 0) return rc;
  /* An adopted descriptor that is dry would say EAGAIN. With no time left we ask: the poller may be late. */
  bool skip = (seen & COIR__FD_ADOPTED) && (seen & event) && !has_passed(deadline);
  for (;;) {
    if (!skip) {
      seen = coir__fd_enter(d);
      ssize_t n = COIR_UNLIKELY((seen ^ life) & COIR__FD_LIFE) ? -EBADF : is_interrupted() ? -EINTR : try(io);
      bool is_dry =
          n == -EAGAIN || (n > 0 && (size_t)n < io->drains && (seen & (COIR__FD_TCP | COIR__FD_HUP)) == COIR__FD_TCP);
      coir__fd_leave(d, seen, is_dry ? event : 0);
      if (n == -EINTR) continue;
      if (n != -EAGAIN) return n;
      if (has_passed(deadline)) return -ETIMEDOUT;
    }
    skip = false;
    rc = COIR_UNLIKELY(io->is_unix_dgram) ? -EPERM : coir__fd_wait(d, io->fd, life, event, reason, deadline);
    if (rc == -EPERM) rc = io_pause(&step, deadline);
    if (rc < 0) return rc;
    if (f) f->b.streak = 0;
  }
}

/* In a simulated runtime a call may transfer less, take longer, or fail with `error`. */
static int __attribute__((cold)) meet_simulation(struct io *io, int error, int64_t deadline) {
  size_t bytes = io->bytes;
  int rc = coir__sim_transfer(io->fd, io->buf ? &io->bytes : NULL, error, deadline);
  if (io->bytes != bytes && io->drains) io->drains = io->bytes;
  return rc;
}

/* As a call begins: others may run first. 0, or an error. */
COIR_INLINE int io_begin(struct io *io, int error, int64_t deadline) {
  coir__breathe(coir__self());
  return COIR_UNLIKELY(coir__os_is_simulated()) ? meet_simulation(io, error, deadline) : 0;
}

static ssize_t transfer(struct io *io, io_try try, uint32_t event, int64_t deadline) {
  int rc;
  struct coir__fd *d = coir__fd_find(io->fd, &rc);
  if (COIR_UNLIKELY(!d)) return rc;
  rc = io_begin(io, -ECONNRESET, deadline);
  if (COIR_UNLIKELY(rc)) return rc;
  return transfer_in(d, coir__fd_begin(d), io, try, event, deadline);
}

/* Switches it to O_NONBLOCK, unless that life is over. */
static int make_nonblock(struct coir__fd *d, int fd, uint64_t life) {
  uint64_t seen = coir__fd_enter(d);
  int rc = (seen ^ life) & COIR__FD_LIFE ? -EBADF : coir__sys_set_nonblock(fd);
  coir__fd_leave(d, seen, 0);
  return rc;
}

static ssize_t try_recv(struct io *io) {
  return coir__sys_recv(io->fd, io->buf, io->bytes, io->flags, io->addr, io->addr_bytes);
}
static ssize_t try_send(struct io *io) {
  return coir__sys_send(io->fd, io->buf, io->bytes, io->flags, io->addr, io->addr ? *io->addr_bytes : 0);
}
static ssize_t try_recvmsg(struct io *io) { return coir__sys_recvmsg(io->fd, io->msg, io->flags); }
static ssize_t try_sendmsg(struct io *io) { return coir__sys_sendmsg(io->fd, io->msg, io->flags); }
static ssize_t try_read(struct io *io) { return coir__sys_read(io->fd, io->buf, io->bytes); }
static ssize_t try_write(struct io *io) { return coir__sys_write(io->fd, io->buf, io->bytes); }
static ssize_t try_readv(struct io *io) { return coir__sys_readv(io->fd, io->iov, io->iov_count); }
static ssize_t try_writev(struct io *io) { return coir__sys_writev(io->fd, io->iov, io->iov_count); }
static ssize_t try_pipe_writev(struct io *io) { return coir__sys_pipe_writev(io->fd, io->iov, io->iov_count); }
static ssize_t try_pipe_write(struct io *io) {
  struct iovec iov = {.iov_base = io->buf, .iov_len = io->bytes};
  return coir__sys_pipe_writev(io->fd, &iov, 1);
}
static ssize_t try_accept(struct io *io) {
  for (;;) {
    int fd = coir__sys_accept(io->fd, io->addr, io->addr_bytes);
    switch (fd) {
    case -EINTR:
    case -ECONNABORTED:
    case -EPROTO:
    /* Linux reports here what is pending on the connection that it gives up (accept(2)). */
    case -ENETDOWN:
    case -ENOPROTOOPT:
    case -EHOSTDOWN:
    case -ENONET:
    case -EHOSTUNREACH:
    case -ENETUNREACH: continue;
    default: return fd;
    }
  }
}

/* ---- Reads and writes on anything ------------------------------------------------------------------------------ */

/* A read or write that blocks, on its way to the pool. */
struct blocking {
  struct io *io;
  io_try try;
  struct coir__fd *d;
  uint64_t life;
  ssize_t result;
};

/* It may have been queued for long: the number may have been closed meanwhile. Once it sleeps in the system call
 * coir_close does not wait for it, since that may last. */
static void run_blocking(void *arg) {
  struct blocking *b = arg;
  struct coir__fd_blocker here;
  coir__fd_block_begin(b->d, &here);
  do b->result = coir__fd_lives(b->d, b->life) ? b->try(b->io) : -EBADF;
  while (b->result == -EINTR);
  coir__fd_block_end(&here);
}

static ssize_t transfer_by_pool(struct coir__fd *d, uint64_t life, struct io *io, io_try try) {
  struct blocking b = {.io = io, .try = try, .d = d, .life = life};
  int rc = coir__block_call(run_blocking, &b, (uint64_t)io->fd);
  return rc ? rc : b.result;
}

/* It is about the rest from now on. */
static inline void io_advance(struct io *io, size_t done) {
  io->buf = (char *)io->buf + done;
  io->bytes -= done;
  if (io->offset >= 0) io->offset += (off_t)done;
}

/* What of a file the page cache has, up to the end of the file: nothing waits for a disk. Returns how much; -EAGAIN:
 * that was not all, and `io` is about the rest. A long copy would hold the worker up. Not from the descriptor's own
 * position: whoever reads from there holds the kernel's lock, for as long as the disk takes, and what several fibers
 * read would be torn into what each of two calls got. */
static ssize_t read_cached(struct coir__fd *d, uint64_t life, struct io *io) {
  size_t bytes = io->bytes;
  ssize_t n;
  if (bytes > CACHED_MAX) return -EAGAIN;
  do {
    uint64_t seen = coir__fd_enter(d);
    n = COIR_LIKELY(!((seen ^ life) & COIR__FD_LIFE)) ? coir__sys_read_cached(io->fd, io->buf, io->bytes, io->offset)
                                                      : -EBADF;
    coir__fd_leave(d, seen, 0);
    if (n > 0) io_advance(io, (size_t)n);
  } while (n > 0 && io->bytes > 0);
  return n == -EAGAIN || (n < 0 && io->bytes == bytes) ? n : (ssize_t)(bytes - io->bytes);
}

/* At a place in a file. The ring may transfer less than the system call would, and is asked again until there is no
 * more: so not for devices, which may have more later. */
static ssize_t transfer_at(struct coir__fd *d, uint64_t life, struct io *io, io_try try) {
  size_t bytes = io->bytes;
  ssize_t n;
  uint64_t word = atm_load_acq(&d->word); /* acquire: as in coir__fd_begin */
  int kind = word & COIR__FD_FILE ? COIR__KIND_FILE : coir__sys_kind(io->fd);
  if (kind < 0) return kind;
  if (kind == COIR__KIND_SOCKET || kind == COIR__KIND_PIPE) return -ESPIPE;
  if (kind == COIR__KIND_OTHER) return transfer_by_pool(d, life, io, try);
  do {
    struct coir__uring_op op = {
        .fd = io->fd, .is_write = !io->is_read, .buf = io->buf, .bytes = io->bytes, .offset = io->offset};
    n = coir__file_transfer(d, life, &op);
    if (n == COIR__FILE_REFUSED) {
      n = transfer_by_pool(d, life, io, try);
      if (n > 0) io_advance(io, (size_t)n);
      break;
    }
    if (n > 0) io_advance(io, (size_t)n);
  } while (n > 0 && io->bytes > 0);
  return n < 0 && io->bytes == bytes ? n : (ssize_t)(bytes - io->bytes);
}

/* There is no time left for a read or write of it. What is wrong with the descriptor goes first. */
static int too_late(const struct io *io) {
  int kind = coir__sys_kind(io->fd);
  if (kind < 0) return kind;
  return io->offset >= 0 && (kind == COIR__KIND_SOCKET || kind == COIR__KIND_PIPE) ? -ESPIPE : -ETIMEDOUT;
}

/* A read or write of a file. An error after a part was transferred is for the next call to meet. */
static ssize_t transfer_file(struct coir__fd *d, uint64_t life, struct io *io, io_try try, int64_t deadline) {
  size_t bytes = io->bytes;
  ssize_t n = io->is_read && io->offset >= 0 ? read_cached(d, life, io) : -EAGAIN;
  if (n != -EAGAIN) return n;
  ssize_t done = (ssize_t)(bytes - io->bytes);
  if (has_passed(deadline)) n = too_late(io);
  else n = io->offset >= 0 ? transfer_at(d, life, io, try) : transfer_by_pool(d, life, io, try);
  return n < 0 && done ? done : n + done;
}

/* A guess for next time. What is adopted is known for good, and may just have become so. */
static void guess(struct coir__fd *d, uint64_t life, bool is_socket) {
  uint64_t old = atm_load_rlx(&d->word), next;
  do {
    if (((old ^ life) & COIR__FD_LIFE) || (old & COIR__FD_ADOPTED)) return;
    next = is_socket ? old | COIR__FD_SOCKET : old & ~COIR__FD_SOCKET;
  } while (!atm_cas_ar(&d->word, &old, next));
}

/* What a descriptor is, made ready to be tried: enum coir__kind, or an error. */
static int kind_of(struct coir__fd *d, int fd, uint64_t life) {
  uint64_t word = atm_load_acq(&d->word); /* acquire: as in coir__fd_begin */
  if (COIR_UNLIKELY((word ^ life) & COIR__FD_LIFE)) return -EBADF;
  if (word & COIR__FD_ADOPTED)
    return word & COIR__FD_SOCKET ? COIR__KIND_SOCKET
           : word & COIR__FD_PIPE ? COIR__KIND_PIPE
           : word & COIR__FD_FILE ? COIR__KIND_FILE
                                  : COIR__KIND_OTHER;
  int kind = coir__sys_kind(fd);
  if (kind < 0) return kind;
  if (kind == COIR__KIND_SOCKET) guess(d, life, true);
  int rc = kind == COIR__KIND_PIPE || kind == COIR__KIND_OTHER ? make_nonblock(d, fd, life) : 0;
  return rc < 0 ? rc : kind;
}

/* The kernel says that it is no socket. If that was a guess it is corrected, and if the number has been adopted since,
 * as what it is, all is well. If it was adopted as a socket, it was closed by close(2), against the promise, and that
 * is taken back: those who use what the number stands for now are none the worse for it, whatever they know of it. */
static void forget_socket(struct coir__fd *d, uint64_t life) {
  uint64_t word = atm_load_rlx(&d->word), both = COIR__FD_ADOPTED | COIR__FD_SOCKET;
  if (!((word ^ life) & COIR__FD_LIFE) && (word & both) == both) coir__fd_disown(d);
  guess(d, life, false);
}

/* The same transfer for each kind of descriptor. */
struct ways {
  io_try socket, pipe, other;
  uint32_t event;
};

static ssize_t transfer_any(struct io *io, const struct ways *ways, int64_t deadline) {
  int rc;
  struct coir__fd *d = coir__fd_find(io->fd, &rc);
  if (!d) return rc;
  rc = io_begin(io, -EIO, deadline);
  if (COIR_UNLIKELY(rc)) return rc;
  uint64_t seen = coir__fd_begin(d), life = seen & COIR__FD_LIFE;
  if (COIR_LIKELY(seen & COIR__FD_SOCKET)) {
    ssize_t n = transfer_in(d, seen, io, ways->socket, ways->event, deadline);
    if (COIR_LIKELY(n != -ENOTSOCK)) return n;
    forget_socket(d, life);
    seen = life; /* the rest may be about a file that is gone */
  }
  int kind = kind_of(d, io->fd, life);
  if (kind < 0) return kind;
  if (kind == COIR__KIND_FILE) return transfer_file(d, life, io, ways->other, deadline);
  io_try try = kind == COIR__KIND_SOCKET ? ways->socket : kind == COIR__KIND_PIPE ? ways->pipe : ways->other;
  return transfer_in(d, seen, io, try, ways->event, deadline);
}

ssize_t coir_read(int fd, void *buf, size_t bytes, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  static const struct ways ways = {.socket = try_recv, .pipe = try_read, .other = try_read, .event = COIR__POLL_IN};
  struct io io = {.fd = fd, .buf = buf, .bytes = bytes, .drains = bytes, .is_read = true, .offset = -1};
  if (COIR_UNLIKELY(bytes == 0)) return coir__sys_read(fd, buf, 0); /* recv would wait for data; read does not */
  return transfer_any(&io, &ways, deadline);
}

ssize_t coir_write(int fd, const void *buf, size_t bytes, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  static const struct ways ways = {
      .socket = try_send, .pipe = try_pipe_write, .other = try_write, .event = COIR__POLL_OUT};
  struct io io = {.fd = fd, .buf = (void *)(uintptr_t)buf, .bytes = bytes, .drains = bytes, .offset = -1};
  return transfer_any(&io, &ways, deadline);
}

/* coir_pread and coir_pwrite. */
static ssize_t transfer_there(struct io *io, io_try try, int64_t deadline) {
  int rc;
  if (io->offset < 0) return -EINVAL;
  struct coir__fd *d = coir__fd_find(io->fd, &rc);
  if (!d) return rc;
  coir__breathe(coir__self());
  uint64_t life = coir__fd_begin(d) & COIR__FD_LIFE;
  return COIR_LIKELY(io->bytes) ? transfer_file(d, life, io, try, deadline) : try(io);
}

static ssize_t try_pread(struct io *io) { return coir__sys_pread(io->fd, io->buf, io->bytes, io->offset); }
static ssize_t try_pwrite(struct io *io) { return coir__sys_pwrite(io->fd, io->buf, io->bytes, io->offset); }

ssize_t coir_pread(int fd, void *buf, size_t bytes, off_t offset, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct io io = {.fd = fd, .buf = buf, .bytes = bytes, .is_read = true, .offset = offset};
  return transfer_there(&io, try_pread, deadline);
}

ssize_t coir_pwrite(int fd, const void *buf, size_t bytes, off_t offset, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct io io = {.fd = fd, .buf = (void *)(uintptr_t)buf, .bytes = bytes, .offset = offset};
  return transfer_there(&io, try_pwrite, deadline);
}

/* How much a vector asks for; SIZE_MAX when that overflows, which the kernel will refuse. */
static size_t iov_bytes(const struct iovec *iov, size_t count) {
  size_t sum = 0;
  for (size_t i = 0; i < count; i++)
    if (__builtin_add_overflow(sum, iov[i].iov_len, &sum)) return SIZE_MAX;
  return sum;
}

static ssize_t try_recv_iov(struct io *io) {
  struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)io->iov, .msg_iovlen = (size_t)io->iov_count};
  return coir__sys_recvmsg(io->fd, &msg, 0);
}

static ssize_t try_send_iov(struct io *io) {
  struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)io->iov, .msg_iovlen = (size_t)io->iov_count};
  return coir__sys_sendmsg(io->fd, &msg, 0);
}

ssize_t coir_readv(int fd, const struct iovec *iov, int iov_count, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  static const struct ways ways = {
      .socket = try_recv_iov, .pipe = try_readv, .other = try_readv, .event = COIR__POLL_IN};
  if (iov_count < 0 || iov_count > IOV_MAX_COUNT) return -EINVAL;
  struct io io = {
      .fd = fd, .iov = iov, .iov_count = iov_count, .drains = iov_bytes(iov, (size_t)iov_count), .offset = -1};
  if (io.drains == 0) return coir__sys_readv(fd, iov, iov_count);
  return transfer_any(&io, &ways, deadline);
}

ssize_t coir_writev(int fd, const struct iovec *iov, int iov_count, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  static const struct ways ways = {
      .socket = try_send_iov, .pipe = try_pipe_writev, .other = try_writev, .event = COIR__POLL_OUT};
  if (iov_count < 0 || iov_count > IOV_MAX_COUNT) return -EINVAL;
  struct io io = {
      .fd = fd, .iov = iov, .iov_count = iov_count, .drains = iov_bytes(iov, (size_t)iov_count), .offset = -1};
  if (io.drains == 0) return coir__sys_writev(fd, iov, iov_count);
  return transfer_any(&io, &ways, deadline);
}

/* An error that came after some bytes is for the next call. Deadlines, closed descriptors and bad memory meet it by
 * themselves, and so do errors of writes; cancellations are kept. This is for what is left, of reads. */
static void put_back(int fd, uint64_t life, int error) {
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (d && error != -ECANCELED && error != -ETIMEDOUT && error != -EBADF && error != -EFAULT)
    coir__fd_keep(d, life, error);
}

static uint64_t life_of(int fd) {
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  return d ? coir__fd_begin(d) & COIR__FD_LIFE : 0;
}

ssize_t coir_read_full(int fd, void *buf, size_t bytes, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  uint64_t life = life_of(fd);
  size_t done = 0;
  ssize_t n;
  while ((n = coir_read(fd, (char *)buf + done, bytes - done, deadline)) > 0 && (done += (size_t)n) < bytes)
    coir__cancel_keep(true);
  coir__cancel_keep(false);
  if (n < 0 && done == 0) return n;
  if (n < 0) put_back(fd, life, (int)n);
  return (ssize_t)done;
}

ssize_t coir_write_full(int fd, const void *buf, size_t bytes, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  size_t done = 0;
  ssize_t n;
  while ((n = coir_write(fd, (const char *)buf + done, bytes - done, deadline)) > 0 && (done += (size_t)n) < bytes)
    coir__cancel_keep(true);
  coir__cancel_keep(false);
  return n < 0 && done == 0 ? n : (ssize_t)done;
}

/* ---- Sockets --------------------------------------------------------------------------------------------------- */

/* With other flags (a peek, urgent data, the queue of errors) a short result says nothing about what is left. */
#define PLAIN_RECV_FLAGS (MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC)
#define PLAIN_SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)

ssize_t coir_recvfrom(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes,
                      int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct io io = {.fd = fd, .flags = flags, .buf = buf, .bytes = bytes, .addr = addr, .addr_bytes = addr_bytes};
  if (!(flags & ~PLAIN_RECV_FLAGS)) io.drains = bytes;
  return transfer(&io, try_recv, COIR__POLL_IN, deadline);
}

ssize_t coir_recv(int fd, void *buf, size_t bytes, int flags, int64_t deadline) {
  return coir_recvfrom(fd, buf, bytes, flags, NULL, NULL, deadline);
}

/* With room for control data no short result is trusted: who asks for it may be told of something between the bytes,
 * such as records of kernel TLS. */
ssize_t coir_recvmsg(int fd, struct msghdr *msg, int flags, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct io io = {.fd = fd, .flags = flags, .msg = msg};
  if (!(flags & ~PLAIN_RECV_FLAGS) && !msg->msg_control) io.drains = iov_bytes(msg->msg_iov, msg->msg_iovlen);
  return transfer(&io, try_recvmsg, COIR__POLL_IN, deadline);
}

/* A datagram to a unix socket by name waits for room there, of which the sending socket gets no event. */
static bool names_unix(const struct sockaddr *addr, socklen_t addr_bytes) {
  return addr && addr_bytes >= sizeof addr->sa_family && addr->sa_family == AF_UNIX;
}

ssize_t coir_sendto(int fd, const void *buf, size_t bytes, int flags, const struct sockaddr *addr, socklen_t addr_bytes,
                    int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct io io = {.fd = fd,
                  .flags = flags,
                  .buf = (void *)(uintptr_t)buf,
                  .bytes = bytes,
                  .addr = (struct sockaddr *)(uintptr_t)addr,
                  .addr_bytes = &addr_bytes,
                  .is_unix_dgram = names_unix(addr, addr_bytes)};
  if (!(flags & ~PLAIN_SEND_FLAGS)) io.drains = bytes;
  return transfer(&io, try_send, COIR__POLL_OUT, deadline);
}

ssize_t coir_send(int fd, const void *buf, size_t bytes, int flags, int64_t deadline) {
  return coir_sendto(fd, buf, bytes, flags, NULL, 0, deadline);
}

ssize_t coir_sendmsg(int fd, const struct msghdr *msg, int flags, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct io io = {.fd = fd,
                  .flags = flags,
                  .msg = (struct msghdr *)(uintptr_t)msg,
                  .is_unix_dgram = names_unix(msg->msg_name, msg->msg_namelen)};
  if (!(flags & ~PLAIN_SEND_FLAGS)) io.drains = iov_bytes(msg->msg_iov, msg->msg_iovlen);
  return transfer(&io, try_sendmsg, COIR__POLL_OUT, deadline);
}

/* A descriptor that we have just been given begins its life adopted. Returns it, or an error, and it is closed. */
static int born(int fd, uint64_t bits) {
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (!d) {
    coir__sys_close(fd);
    return -ENOMEM;
  }
  coir__fd_renew(d, bits | COIR__FD_ADOPTED | COIR__FD_SOCKET);
  return fd;
}

int coir_socket(int domain, int type, int protocol) {
  COIR_INSIDE;
  int fd = coir__sys_socket(domain, type, protocol);
  if (fd < 0) return fd;
  bool is_tcp = (domain == AF_INET || domain == AF_INET6) && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM;
  return born(fd, is_tcp && coir__sys_is_tcp(fd) ? COIR__FD_TCP : 0);
}

int coir_accept(int fd, struct sockaddr *addr, socklen_t *addr_bytes, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (!d) return rc;
  struct io io = {.fd = fd, .addr = addr, .addr_bytes = addr_bytes};
  rc = io_begin(&io, -EMFILE, deadline);
  if (COIR_UNLIKELY(rc)) return rc;
  uint64_t word = coir__fd_begin(d), life = word & COIR__FD_LIFE;
  if (!(word & COIR__FD_ADOPTED) && (rc = make_nonblock(d, fd, life)) < 0) return rc;
  int peer = (int)transfer_in(d, word, &io, try_accept, COIR__POLL_IN, deadline);
  if (peer < 0) return peer;
  /* A connection is of its listener's kind, which we know where that is adopted. */
  bool is_tcp = word & COIR__FD_ADOPTED ? (word & COIR__FD_TCP) != 0 : coir__sys_is_tcp(peer) != 0;
  return born(peer, is_tcp ? COIR__FD_TCP : 0);
}

/* Waits until `fd` is ready for one of `events`; returns those that are. */
static int wait_ready(struct coir__fd *d, int fd, uint64_t life, uint32_t events, enum coir__reason reason,
                      int64_t deadline) {
  for (int64_t step = 0;;) {
    int ready = coir__fd_look(d, fd, life, events);
    if (ready) return ready;
    if (has_passed(deadline)) return -ETIMEDOUT;
    int rc = coir__fd_wait(d, fd, life, events, reason, deadline);
    if (rc == -EPERM) rc = io_pause(&step, deadline);
    if (rc < 0) return rc;
  }
}

/* One attempt to connect, on a number that may not change its meaning meanwhile. */
static int connect_once(struct coir__fd *d, int fd, uint64_t life, const struct sockaddr *addr, socklen_t addr_bytes) {
  uint64_t seen = coir__fd_enter(d);
  int rc = (seen ^ life) & COIR__FD_LIFE ? -EBADF : coir__sys_connect(fd, addr, addr_bytes);
  coir__fd_leave(d, seen, 0);
  return rc;
}

/* What has become of it, which is the kernel's to tell once: not of the next socket under the number. */
static int connect_outcome(struct coir__fd *d, int fd, uint64_t life) {
  uint64_t seen = coir__fd_enter(d);
  int rc = (seen ^ life) & COIR__FD_LIFE ? -EBADF : coir__sys_pending_error(fd);
  coir__fd_leave(d, seen, 0);
  return rc;
}

int coir_connect(int fd, const struct sockaddr *addr, socklen_t addr_bytes, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (!d) return rc;
  rc = io_begin(&(struct io){.fd = fd}, -ECONNREFUSED, deadline);
  if (COIR_UNLIKELY(rc)) return rc;
  uint64_t word = coir__fd_begin(d), life = word & COIR__FD_LIFE;
  if (!(word & COIR__FD_ADOPTED) && (rc = make_nonblock(d, fd, life)) < 0) return rc;
  for (int64_t step = 0; (rc = connect_once(d, fd, life, addr, addr_bytes)) == -EAGAIN && names_unix(addr, addr_bytes);)
    if ((rc = io_pause(&step, deadline)) < 0) return rc; /* the backlog is full */
  /* An interrupted attempt goes on, like one that is in progress. */
  if (rc != -EINPROGRESS && rc != -EINTR) return rc;
  rc = wait_ready(d, fd, life, COIR__POLL_OUT, COIR__REASON_WRITE, deadline);
  return rc < 0 ? rc : connect_outcome(d, fd, life);
}

/* ---- Descriptors ----------------------------------------------------------------------------------------------- */

int coir_poll(int fd, int events, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  _Static_assert(COIR_READABLE == COIR__POLL_IN && COIR_WRITABLE == COIR__POLL_OUT, "the same bits");
  if (events == 0 || (events & ~(COIR_READABLE | COIR_WRITABLE))) return -EINVAL;
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (!d) return rc;
  coir__breathe(coir__self());
  uint64_t word = coir__fd_begin(d);
  return wait_ready(d, fd, word & COIR__FD_LIFE, (uint32_t)events, COIR__REASON_POLL, deadline);
}

/* It may block: a socket that lingers (SO_LINGER), a file on another machine. */
static int close_outside(int fd) {
  int rc;
  COIR_OUTSIDE_STAYING(rc = coir__sys_close(fd));
  return rc;
}

int coir_close(int fd) {
  COIR_INSIDE;
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (!d) return rc == -ENOMEM ? close_outside(fd) : rc; /* -ENOMEM: open, but nobody can have waited for it */
  uint64_t life = coir__fd_retire(d, fd);
  rc = close_outside(fd);
  coir__fd_retired(d, life);
  return rc;
}

int coir_adopt(int fd) {
  COIR_INSIDE;
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (!d) return rc;
  int kind = coir__sys_kind(fd);
  if (kind < 0) return kind;
  uint64_t bits = COIR__FD_ADOPTED;
  if (kind == COIR__KIND_SOCKET) bits |= COIR__FD_SOCKET | (coir__sys_is_tcp(fd) ? COIR__FD_TCP : 0);
  if (kind == COIR__KIND_PIPE) bits |= COIR__FD_PIPE;
  if (kind == COIR__KIND_FILE) bits |= COIR__FD_FILE;
  else if ((rc = coir__sys_set_nonblock(fd)) < 0) return rc;
  coir__fd_adopt(d, fd, bits);
  return 0;
}

int coir_disown(int fd) {
  COIR_INSIDE;
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  if (!d) return rc;
  int kind = coir__sys_kind(fd);
  if (kind < 0) return kind;
  coir__fd_disown(d);
  return 0;
}
