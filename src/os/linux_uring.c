/* os.h for Linux: one io_uring, by its system calls.
 *
 * The ring is two arrays, shared with the kernel: what is asked for, and what has become of it. Each has a head and a
 * tail, one of which the kernel moves. Where the kernel can be told that it is always the same thread that asks
 * (Linux 6.0) it is, and also that answers need not interrupt that thread while it computes (5.19). It is not told to
 * keep them back until it is asked for them (IORING_SETUP_DEFER_TASKRUN): then nothing could be learned of what is
 * under way, should the process give up its right to ask.
 *
 * The kernel is asked for no more than Linux 5.6 has, and how much of a batch it has taken is read from its own head,
 * since an error of the system call does not say. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os.h"

#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif

#define BELL_TAG 0

struct coir__uring {
  int fd, bell;
  bool is_listening; /* a read of the bell is under way, or has been pushed */
  uint64_t rung;     /* what that reads */
  uint32_t tail;     /* of what is asked for: ours, shown to the kernel when it is asked to look */
  uint32_t sq_mask, cq_mask;
  _Atomic(uint32_t) *sq_head, *sq_tail, *cq_head, *cq_tail; /* (a) heads and tails are moved by one side each */
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  void *rings;
  size_t rings_bytes, sqes_bytes;
};

/* ---- System calls ---------------------------------------------------------------------------------------------- */

static COIR_LEAF int uring_setup(uint32_t entries, struct io_uring_params *params) {
  int saved = errno, rc = (int)syscall(SYS_io_uring_setup, entries, params);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

static COIR_LEAF int uring_enter(int fd, uint32_t submits, uint32_t awaits) {
  int saved = errno;
  int rc = (int)syscall(SYS_io_uring_enter, fd, submits, awaits, awaits ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

/* A forked child must not see the ring, which would be the parent's. */
static COIR_LEAF void *uring_map(int fd, size_t bytes, off_t what) {
  int saved = errno;
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
  if (memory != MAP_FAILED) madvise(memory, bytes, MADV_DONTFORK);
  errno = saved;
  return memory == MAP_FAILED ? NULL : memory;
}

static COIR_LEAF int uring_bell(void) {
  int saved = errno, rc = eventfd(0, EFD_CLOEXEC);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

COIR_LEAF void coir__uring_ring(struct coir__uring *u) {
  int saved = errno;
  uint64_t one = 1;
  ssize_t n = write(u->bell, &one, sizeof one);
  (void)n; /* it cannot be full */
  errno = saved;
}

static COIR_LEAF void uring_free(struct coir__uring *u, bool is_mapped) {
  int saved = errno;
  if (is_mapped && u->rings) munmap(u->rings, u->rings_bytes);
  if (is_mapped && u->sqes) munmap(u->sqes, u->sqes_bytes);
  if (u->bell >= 0) close(u->bell);
  if (u->fd >= 0) close(u->fd);
  free(u);
  errno = saved;
}

/* ---- The contract ---------------------------------------------------------------------------------------------- */

static _Atomic(uint32_t) *word_at(struct coir__uring *u, uint32_t offset) {
  return (_Atomic(uint32_t) *)(void *)((char *)u->rings + offset);
}

static int uring_init(struct coir__uring *u, uint32_t entries) {
  struct io_uring_params params = {.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER};
  if ((u->fd = uring_setup(entries, &params)) == -EINVAL) {
    params = (struct io_uring_params){.flags = 0};
    u->fd = uring_setup(entries, &params);
  }
  if (u->fd < 0) return u->fd;
  if (!(params.features & IORING_FEAT_SINGLE_MMAP) || !(params.features & IORING_FEAT_NODROP)) return -ENOSYS;
  if ((u->bell = uring_bell()) < 0) return u->bell;
  size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  u->rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
  u->sqes_bytes = params.sq_entries * sizeof(struct io_uring_sqe);
  u->rings = uring_map(u->fd, u->rings_bytes, IORING_OFF_SQ_RING);
  u->sqes = uring_map(u->fd, u->sqes_bytes, IORING_OFF_SQES);
  if (!u->rings || !u->sqes) return -ENOMEM;
  u->sq_mask = params.sq_entries - 1;
  u->cq_mask = params.cq_entries - 1;
  u->sq_head = word_at(u, params.sq_off.head);
  u->sq_tail = word_at(u, params.sq_off.tail);
  u->cq_head = word_at(u, params.cq_off.head);
  u->cq_tail = word_at(u, params.cq_off.tail);
  u->cqes = (struct io_uring_cqe *)(void *)word_at(u, params.cq_off.cqes);
  uint32_t *indices = (uint32_t *)(void *)word_at(u, params.sq_off.array);
  for (uint32_t i = 0; i < params.sq_entries; i++) indices[i] = i;
  return 0;
}

static _Atomic(bool) is_used; /* (a) there has been a ring */

bool coir__uring_is_used(void) { return atm_load_acq(&is_used); }

int coir__uring_create(struct coir__uring **out, uint32_t entries) {
  atm_store_rel(&is_used, true);
  struct coir__uring *u = calloc(1, sizeof *u);
  if (!u) return -ENOMEM;
  u->fd = u->bell = -1;
  int rc = uring_init(u, entries);
  if (rc < 0) uring_free(u, true);
  else *out = u;
  return rc;
}

void coir__uring_fork_child(struct coir__uring *u) { uring_free(u, false); }

static void entry_push(struct coir__uring *u, uint8_t opcode, const struct coir__uring_op *op, uint64_t tag) {
  struct io_uring_sqe *sqe = &u->sqes[u->tail++ & u->sq_mask];
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = opcode;
  sqe->fd = op->fd;
  sqe->off = (uint64_t)op->offset;
  sqe->addr = (uintptr_t)op->buf;
  sqe->len = op->bytes < COIR__URING_BYTES_MAX ? (uint32_t)op->bytes : COIR__URING_BYTES_MAX;
  sqe->user_data = tag;
}

void coir__uring_push(struct coir__uring *u, struct coir__uring_op *op) {
  entry_push(u, op->is_write ? IORING_OP_WRITE : IORING_OP_READ, op, (uintptr_t)op);
}

/* Has the kernel look at what was pushed, and wait. What it does not take is as if it had not been pushed: the kernel
 * looks only when it is asked to, by this thread. Returns 0 or an error. */
static int uring_show(struct coir__uring *u, uint32_t awaits, uint32_t *left) {
  int rc;
  atm_store_rel(u->sq_tail, u->tail); /* the entries; pairs with the kernel's acquire */
  do {
    rc = uring_enter(u->fd, u->tail - atm_load_acq(u->sq_head), awaits);
    *left = u->tail - atm_load_acq(u->sq_head); /* acquire: pairs with the kernel's release, when it has read them */
  } while (*left > 0 && (rc >= 0 || rc == -EINTR));
  u->tail -= *left;
  atm_store_rel(u->sq_tail, u->tail);
  return rc < 0 && rc != -EINTR ? rc : 0;
}

int coir__uring_submit(struct coir__uring *u, uint32_t *left) { return uring_show(u, 0, left); }

int coir__uring_wait(struct coir__uring *u) {
  uint32_t left;
  if (!u->is_listening) {
    struct coir__uring_op bell = {.fd = u->bell, .buf = &u->rung, .bytes = sizeof u->rung};
    entry_push(u, IORING_OP_READ, &bell, BELL_TAG);
  }
  int rc = uring_show(u, 1, &left);
  if (left == 0) u->is_listening = true;
  return rc;
}

struct coir__uring_op *coir__uring_take(struct coir__uring *u) {
  for (;;) {
    uint32_t head = atm_load_rlx(u->cq_head);          /* relaxed: only we move it */
    if (head == atm_load_acq(u->cq_tail)) return NULL; /* acquire: the entry; pairs with the kernel's release */
    const struct io_uring_cqe *cqe = &u->cqes[head & u->cq_mask];
    uint64_t tag = cqe->user_data;
    int32_t result = cqe->res;
    atm_store_rel(u->cq_head, head + 1); /* we have read it; pairs with the kernel's acquire */
    if (tag != BELL_TAG) {
      struct coir__uring_op *op = (struct coir__uring_op *)(uintptr_t)tag;
      op->result = result;
      return op;
    }
    u->is_listening = false;
  }
}
