/* Files: reads and writes that wait for a disk, by the kernel: neither the worker nor a thread of the pool does.
 *
 * Goal: what a disk can do is reached by as many fibers as it takes, and not limited by threads that are woken and put
 * to sleep for each operation.
 * Why it is hard: the kernel writes where the fiber has told it to, which must stay until it is through. Of io_uring it
 * tells the thread that has asked: that one is interrupted, in whatever it does. And it may refuse, at once (sandboxes,
 * old kernels, limits) or later on.
 *
 * Design. A fiber describes what it wants in a record in its frame, and waits. The wait is bound: neither cancellation
 * nor a deadline ends it, only the thread that takes the kernel's answer. There are two ways:
 *
 * Reads with O_DIRECT: aio. The fiber itself asks the kernel, on whatever thread it is, since nobody is interrupted by
 * the answer. (Not writes: where a file may not grow the kernel sends SIGXFSZ to the thread that asks.)
 * One thread of the process, coir-direct, takes the answers, and wakes. What would wait for more than the disk
 * (metadata that is not in memory, room in a queue) is refused, and goes the other way.
 *
 * Else: io_uring. One ring for the process, and one thread that uses it, coir-file, so no other one is interrupted, and
 * workers may move from thread to thread as they like. A fiber puts its record on a list; the thread takes all that is
 * on the list, asks the kernel for all of it by one system call, and wakes those whose operations are done.
 *
 *   fiber    put the record on the list; then, if the thread sleeps, take that mark from it and ring
 *   thread   mark that it sleeps; then look at the list; if that is empty, wait for the kernel, or the bell, which the
 *            ring reads like a file
 *
 * So at least one of the two sees the other. Whoever is woken soon puts its next record on the list, while the thread
 * is busy or about to sleep. So before it asks, the thread lingers for as long as the list grows: that halves what it
 * costs, and how often the disk is told.
 *
 * Closing. The number of a descriptor is looked up by the kernel when it is asked. For that moment whoever asks counts
 * itself in as a user of the number, and looks at its life (poll.c). So an operation that has been put on the list, and
 * not been asked for when coir_close comes, ends with -EBADF, and never meets the next file.
 *
 * Refusal. The list is closed until the thread has a ring, and again when that fails. Who finds it closed uses the pool
 * of block.c, and so does a fiber whose record was handed back. The first who needs the ring has the thread started and
 * does not wait for it. What was refused to be made is not tried again.
 *
 * Rejected: a ring per worker, to which its thread submits (the kernel interrupts the thread that has submitted, by
 * EINTR if it sits in a system call of the program's by then; and a worker changes its thread, which a ring for one
 * issuer does not); SQPOLL (a thread of the kernel's that spins); aio without O_DIRECT (it blocks who asks).
 *
 * I1: a record on the list, or in flight, is that of a fiber in a bound wait; nobody touches it after its wake.
 * I2: at most IN_FLIGHT_MAX are in the ring, fewer than there is room for answers: none are lost.
 * I3: while the list is open its thread runs. */
#include "internal.h"

#define IN_FLIGHT_MAX 128
#define RING_ENTRIES 256 /* there is room for what is in flight and the bell, and twice that for answers */
#define RETRY_NS COIR_MS(1)
#define DIRECT_MAX 128
#define LINGER_MAX 16 /* times, of about a microsecond */
#define LINGER_SPINS 20

struct file_call {
  struct coir__uring_op op; /* first, so that an answer is a call */
  struct file_call *next;
  struct coir__fd *d;
  uint64_t life;
  struct coir__clause clause;
};

static struct file_call list_closed; /* on the list: it takes nothing */
static struct {
  _Alignas(COIR__LINE) _Atomic(struct file_call *) list; /* (a) newest first; or &list_closed */
  _Atomic(uint32_t) sleeps;     /* (a) the thread sleeps, or is about to, and has not been rung for */
  _Atomic(uint32_t) is_started; /* (a) somebody has had the thread started */
  struct coir__uring *ring;     /* (c) from before the list is opened on */
  /* the thread's */
  struct file_call *first, **end; /* taken from the list, and not asked for; oldest first */
  uint32_t in_flight;
} files = {.list = &list_closed, .end = &files.first};

/* What it is part of is gone afterwards (I1). */
static void wait_over(struct coir__clause *clause) {
  struct coir__waiter *waiter = clause->waiter;
  bool is_claimed = coir__claim(clause);
  COIR_CHECK(is_claimed, "only its thread ends a bound wait");
  coir__wake(waiter);
}

static void call_over(struct file_call *call, ssize_t result) {
  call->op.result = result;
  wait_over(&call->clause);
}

/* Moves what is on the list to the queue, and leaves `instead` there. */
static void take_list(struct file_call *instead) {
  /* Acquire: what the fibers have written; pairs with the compare-and-swap in call_put(). */
  struct file_call *call = atm_xchg_sc(&files.list, instead), *oldest = NULL, *newest = call;
  while (call && call != &list_closed) {
    struct file_call *next = call->next;
    call->next = oldest;
    oldest = call;
    call = next;
  }
  if (!oldest) return;
  *files.end = oldest;
  files.end = &newest->next;
}

/* Takes the oldest of the queue. */
static struct file_call *take_first(void) {
  struct file_call *call = files.first;
  files.first = call->next;
  if (!files.first) files.end = &files.first;
  return call;
}

/* Some errors pass. */
static int file_lasting(int rc) { return rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM ? 0 : rc; }

/* Asks the kernel for what there is room for; what it does not take is handed back. Returns 0 or an error. */
static int file_ask(struct coir__uring *ring) {
  struct file_call *batch[IN_FLIGHT_MAX];
  uint32_t count = 0, left;
  while (files.first && files.in_flight + count < IN_FLIGHT_MAX) {
    struct file_call *call = take_first();
    uint64_t seen = coir__fd_enter(call->d);
    if (COIR_LIKELY(!((seen ^ call->life) & COIR__FD_LIFE))) {
      coir__uring_push(ring, &call->op);
      batch[count++] = call;
    } else {
      coir__fd_leave(call->d, seen, 0);
      call_over(call, -EBADF);
    }
  }
  if (count == 0) return 0;
  int rc = coir__uring_submit(ring, &left);
  for (uint32_t i = 0; i < count; i++) coir__fd_leave(batch[i]->d, 0, 0);
  for (uint32_t i = count - left; i < count; i++) call_over(batch[i], COIR__FILE_REFUSED);
  files.in_flight += count - left;
  return file_lasting(rc);
}

/* Wakes those whose operations are done. False: there are none. */
static bool file_answer(struct coir__uring *ring) {
  bool any = false;
  for (struct coir__uring_op *op; (op = coir__uring_take(ring)) != NULL; any = true) {
    files.in_flight--;
    call_over((struct file_call *)op, op->result);
  }
  return any;
}

/* The kernel does not let us ask it any more. It will still answer: that needs no call (os/linux_uring.c). */
static void file_give_up(struct coir__uring *ring) {
  _Atomic(uint32_t) never = 0;
  take_list(&list_closed);
  while (files.first) call_over(take_first(), COIR__FILE_REFUSED);
  while (files.in_flight)
    if (!file_answer(ring)) coir__os_futex_wait(&never, 0, coir__os_now() + RETRY_NS);
}

/* While fibers go on putting calls on the list: it is cheaper to ask for all of them at once, for the kernel and for
 * the disk. Where there is no processor to spare this lets them do it. */
static void file_linger(void) {
  for (int i = 0; i < LINGER_MAX; i++) {
    const struct file_call *seen = atm_load_rlx(&files.list); /* relaxed: it is taken afterwards */
    if (!seen) return;
    coir__os_thread_yield();
    for (int j = 0; j < LINGER_SPINS; j++) coir__pause();
    if (seen == atm_load_rlx(&files.list)) return;
  }
}

static void *ring_thread(void *unused) {
  struct coir__uring *ring;
  int rc = coir__uring_create(&ring, RING_ENTRIES);
  if (rc < 0) return unused;
  files.ring = ring;
  atm_store_rel(&files.list, NULL); /* the ring; pairs with the acquire in call_put() */
  do {
    file_linger();
    take_list(NULL);
    rc = file_ask(ring);
    /* What did not fit into a batch that was handed back is asked for at once, since no answer will remind of it. */
    if (file_answer(ring) || rc < 0 || (files.first && files.in_flight < IN_FLIGHT_MAX)) continue;
    /* Sequentially consistent: the mark before the look at the list; call_put() does it the other way round. */
    atm_store_sc(&files.sleeps, 1);
    if (atm_load_sc(&files.list) == NULL) rc = file_lasting(coir__uring_wait(ring));
    atm_store_rlx(&files.sleeps, 0); /* relaxed: who sees it late rings in vain */
  } while (rc == 0);
  file_give_up(ring);
  return unused;
}

/* ---- Fibers ---------------------------------------------------------------------------------------------------- */

static void file_fork_child(void) {
  if (files.ring) coir__uring_fork_child(files.ring);
  files.ring = NULL;
  files.first = NULL;
  files.end = &files.first;
  files.in_flight = 0;
  atm_store_rlx(&files.sleeps, 0);
  atm_store_rlx(&files.list, &list_closed);
  atm_store_rlx(&files.is_started, 0);
}

/* Once. What fails is not tried again. */
static void thread_start(void) {
  static _Atomic(uint32_t) file_forks; /* coir__os_at_fork */
  pthread_t thread;
  if (atm_load_rlx(&files.is_started) || atm_xchg_ar(&files.is_started, 1)) return;
  if (coir__os_at_fork(&file_forks, file_fork_child) != 0) return;
  if (coir__os_thread_start(&thread, "coir-file", ring_thread, NULL) == 0) pthread_detach(thread);
}

/* False: the list is closed. Otherwise the call may be over by now. */
static bool call_put(struct file_call *call) {
  struct file_call *first = atm_load_acq(&files.list);
  do {
    if (first == &list_closed) return false;
    call->next = first;
  } while (!atm_cas_sc(&files.list, &first, call));
  /* Sequentially consistent: the list before the look at the mark; pairs with ring_thread(). */
  if (atm_load_sc(&files.sleeps) && atm_xchg_sc(&files.sleeps, 0)) coir__uring_ring(files.ring);
  return true;
}

static ssize_t transfer_by_ring(struct coir__fd *d, uint64_t life, const struct coir__uring_op *op) {
  if (COIR_UNLIKELY(atm_load_acq(&files.list) == &list_closed)) {
    thread_start();
    return COIR__FILE_REFUSED;
  }
  struct file_call call = {.op = *op, .d = d, .life = life};
  struct coir__wait wait;
  coir__wait_begin_bound(&wait, COIR__REASON_BLOCK, (uint64_t)op->fd);
  coir__wait_add_alone(&wait, &call.clause);
  if (!call_put(&call)) {
    coir__wait_retract(&wait);
    return COIR__FILE_REFUSED;
  }
  coir__wait(&wait);
  return call.op.result;
}

/* ---- O_DIRECT -------------------------------------------------------------------------------------------------- */

struct direct_call {
  struct coir__aio_op op;    /* first, so that an answer is a call */
  _Atomic(uint32_t) is_made; /* (a) 1: the kernel is told of it next */
  ssize_t result;
  struct coir__clause clause;
};

enum { DIRECT_UNTRIED = 0, DIRECT_STARTS, DIRECT_REFUSED, DIRECT_RUNS };
static struct {
  _Atomic(uint32_t) state; /* (a) one of these */
  struct coir__aio aio;    /* (c) from DIRECT_RUNS on */
} direct;

static void *direct_thread(void *unused) {
  for (;;) {
    struct coir__aio_op *op;
    ssize_t result;
    coir__aio_wait(&direct.aio);
    while ((op = coir__aio_take(&direct.aio, &result)) != NULL) {
      struct direct_call *call = (struct direct_call *)op;
      /* Acquire: pairs with the release before it was submitted. The kernel lies between the two. */
      bool is_made = atm_load_acq(&call->is_made) == 1;
      COIR_CHECK(is_made, "the kernel answers what it was asked");
      call->result = result;
      wait_over(&call->clause); /* and it is gone */
    }
  }
  return unused;
}

static void direct_fork_child(void) {
  if (atm_load_rlx(&direct.state) == DIRECT_RUNS) coir__aio_fork_child(&direct.aio);
  atm_store_rlx(&direct.state, DIRECT_UNTRIED);
}

/* Once. What fails is not tried again. */
static bool direct_start(void) {
  static _Atomic(uint32_t) direct_forks; /* coir__os_at_fork */
  pthread_t thread;
  uint32_t state = DIRECT_UNTRIED;
  if (!atm_cas_ar(&direct.state, &state, DIRECT_STARTS)) return state == DIRECT_RUNS;
  state = DIRECT_REFUSED;
  bool is_told = coir__os_at_fork(&direct_forks, direct_fork_child) == 0;
  if (is_told && coir__aio_create(&direct.aio, DIRECT_MAX) == 0) {
    if (coir__os_thread_start(&thread, "coir-direct", direct_thread, NULL) == 0) {
      pthread_detach(thread);
      state = DIRECT_RUNS;
    }
  }
  atm_store_rel(&direct.state, state); /* what was made; pairs with the acquire in transfer_directly() */
  return state == DIRECT_RUNS;
}

static ssize_t transfer_directly(struct coir__fd *d, uint64_t life, const struct coir__uring_op *op) {
  if (COIR_UNLIKELY(atm_load_acq(&direct.state) != DIRECT_RUNS) && !direct_start()) return COIR__FILE_REFUSED;
  struct direct_call call;
  struct coir__wait wait;
  coir__wait_begin_bound(&wait, COIR__REASON_BLOCK, (uint64_t)op->fd);
  coir__wait_add_alone(&wait, &call.clause);
  atm_store_rel(&call.is_made, 1); /* pairs with the acquire in direct_thread() */
  uint64_t seen = coir__fd_enter(d);
  int rc = (seen ^ life) & COIR__FD_LIFE ? -EBADF : coir__aio_submit(&direct.aio, &call.op, op);
  coir__fd_leave(d, seen, 0);
  if (rc == 0) coir__wait(&wait);
  else coir__wait_retract(&wait);
  return rc == -EBADF ? rc : rc ? COIR__FILE_REFUSED : call.result;
}

/* ---- Either ---------------------------------------------------------------------------------------------------- */

/* Of these somebody else may know better. */
static bool is_refusal(ssize_t n) {
  return n == COIR__FILE_REFUSED || n == -EINTR || n == -ECANCELED || n == -EOPNOTSUPP || n == -EINVAL;
}

ssize_t coir__file_transfer(struct coir__fd *d, uint64_t life, const struct coir__uring_op *op) {
  struct coir__worker *w = coir__self();
  if (!w || !w->rt->config.io_uring) return COIR__FILE_REFUSED;
  ssize_t n = COIR__FILE_REFUSED;
  if (!op->is_write && coir__sys_is_direct(op->fd)) n = transfer_directly(d, life, op);
  if (is_refusal(n)) n = transfer_by_ring(d, life, op);
  if (n > 0 && !op->is_write) COIR_WRITTEN(op->buf, n);
  return is_refusal(n) ? COIR__FILE_REFUSED : n;
}
