/* os.h for Linux: aio, the kernel's older interface for asynchronous reads and writes, by its system calls
 * (io_submit(2); not the C library's aio). It is asynchronous for O_DIRECT only, but there any thread may ask, and
 * nobody is interrupted by the answer: the kernel puts it into a ring in our memory, and adds to an eventfd.
 *
 * What it says is read from that ring, as libaio does to see whether it is empty, and others to save the system call
 * io_getevents: here, so that answers come even if the process is not allowed to ask any more. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

#define AIO_MAGIC 0xa10a10a1u

/* At the address that the kernel gives as the context. */
struct aio_ring {
  uint32_t id, count;
  _Atomic(uint32_t) head, tail; /* (a) the head is ours */
  uint32_t magic, compatible, incompatible, header_bytes;
  struct io_event events[];
};

_Static_assert(sizeof(struct iocb) <= sizeof((struct coir__aio_op *)0)->block, "there is room for it");

COIR_LEAF bool coir__sys_is_direct(int fd) {
  int saved = errno, flags = fcntl(fd, F_GETFL);
  errno = saved;
  return flags >= 0 && (flags & O_DIRECT);
}

COIR_LEAF int coir__aio_create(struct coir__aio *out, uint32_t count) {
  int saved = errno, rc = 0;
  aio_context_t context = 0;
  int bell = eventfd(0, EFD_CLOEXEC);
  if (bell < 0 || syscall(SYS_io_setup, (unsigned long)count, &context) < 0) rc = -errno;
  else if (((struct aio_ring *)(uintptr_t)context)->magic != AIO_MAGIC) rc = -ENOSYS;
  if (rc < 0 && context) syscall(SYS_io_destroy, context);
  if (rc < 0 && bell >= 0) close(bell);
  else if (rc == 0) *out = (struct coir__aio){.context = context, .bell = bell};
  errno = saved;
  return rc;
}

COIR_LEAF int coir__aio_submit(const struct coir__aio *a, struct coir__aio_op *op, const struct coir__uring_op *what) {
  int saved = errno;
  struct iocb block = {.aio_data = (uintptr_t)op,
                       .aio_lio_opcode = IOCB_CMD_PREAD,
                       .aio_fildes = (uint32_t)what->fd,
                       .aio_buf = (uintptr_t)what->buf,
                       .aio_nbytes = what->bytes,
                       .aio_offset = what->offset,
                       .aio_rw_flags = RWF_NOWAIT, /* rather -EAGAIN than to wait for metadata, or for room */
                       .aio_flags = IOCB_FLAG_RESFD,
                       .aio_resfd = (uint32_t)a->bell};
  memcpy(op->block, &block, sizeof block);
  struct iocb *at = (struct iocb *)(void *)op->block;
  int rc = (int)syscall(SYS_io_submit, (aio_context_t)a->context, 1L, &at);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc == 1 ? 0 : rc < 0 ? rc : -EAGAIN;
}

COIR_LEAF void coir__aio_wait(const struct coir__aio *a) {
  int saved = errno;
  uint64_t rung;
  ssize_t n = read(a->bell, &rung, sizeof rung);
  (void)n; /* interrupted: the caller looks, and comes again */
  errno = saved;
}

struct coir__aio_op *coir__aio_take(const struct coir__aio *a, ssize_t *result) {
  struct aio_ring *ring = (struct aio_ring *)(uintptr_t)a->context;
  uint32_t head = atm_load_rlx(&ring->head);          /* relaxed: only we move it */
  if (head == atm_load_acq(&ring->tail)) return NULL; /* acquire: the event; pairs with the kernel's barrier */
  struct coir__aio_op *op = (struct coir__aio_op *)(uintptr_t)ring->events[head].data;
  *result = (ssize_t)ring->events[head].res;
  atm_store_rel(&ring->head, (head + 1) % ring->count); /* we have read it */
  return op;
}

COIR_LEAF void coir__aio_fork_child(const struct coir__aio *a) {
  int saved = errno;
  close(a->bell); /* the context has not come along: only what is left of its ring in memory */
  errno = saved;
}
