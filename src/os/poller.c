/* poller.h: what it is on every system. How the system is asked, and told to ring, is in the file that is included.
 *
 * Wakes. `woken` says that a wake is due, `waiting` that somebody sleeps or is about to. The sleeper sets waiting, then
 * looks at woken; the waker sets woken, then looks at waiting: with sequentially consistent accesses at least one of
 * them sees the other, so a wake is never lost, and one that finds nobody asleep makes no system call. To ring is an
 * edge, whoever takes it. A thread that only polls may take it away from the one that sleeps; it rings again then. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "poller.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "os.h"

struct coir__poller {
  int queue, bell;                                /* (c) the system's; -1: it has none */
  uint32_t fork;                                  /* (c) number of forks before it was made */
  _Alignas(COIR__LINE) _Atomic(uint32_t) woken;   /* (a) a wake is due */
  _Atomic(uint32_t) waiting;                      /* (a) somebody sleeps, or is about to */
  _Alignas(COIR__LINE) _Atomic(uint32_t) watched; /* (a) descriptors added and not taken out by us */
  _Atomic(uint32_t) pins;                         /* (a) */
};

static _Atomic(uint32_t) forks; /* (a) of this process and its forebears */

/* Not inlined, so that the address of errno does not live longer than the call. */
#define LEAF __attribute__((noinline))

static LEAF void shut(int fd) {
  int saved = errno;
  if (fd >= 0) close(fd);
  errno = saved;
}

/* What the included file has; all leave errno alone.
 *   int queue_open(struct coir__poller *p)   makes queue and bell: 0, or an error, and what it had made is shut
 *   int queue_watch(p, fd, tag)              as coir__poller_watch; counts in `watched`
 *   int queue_rewatch(p, fd, tag)
 *   bool queue_unwatch(p, fd)                whether it was watched
 *   int queue_take(p, ready, ns, was_rung)   up to a batch; sleeps for `ns`, < 0: without limit; or an error
 *   void queue_ring(p) */
#if defined(COIR_KQUEUE)
#include "poll_kqueue.c"
#else
#include "poll_epoll.c"
#endif

int coir__poller_create(struct coir__poller **out, struct coir_runtime *rt) {
  (void)rt; /* a poller takes a page of its own: no other cache line beside the words that others write */
  *out = NULL;
  struct coir__poller *p = coir__os_reserve(coir__os_page(), 0, false);
  if (!p) return -ENOMEM;
  p->fork = atm_load_rlx(&forks);
  int rc = queue_open(p);
  if (rc < 0) coir__os_release(p, coir__os_page());
  else *out = p;
  return rc < 0 ? rc : 0;
}

void coir__poller_destroy(struct coir__poller *p) {
  if (!p) return;
  coir__poll_forget(p);
  while (atm_load_acq(&p->pins)) coir__os_thread_yield(); /* acquire: pairs with the release in coir__poller_unpin */
  queue_shut(p);
  coir__os_release(p, coir__os_page());
}

/* In a forked child the queue is the parent's: what the child adds, the parent would be told about. */
static inline bool is_foreign(const struct coir__poller *p) { return p->fork != atm_load_rlx(&forks); }

int coir__poller_rewatch(struct coir__poller *p, int fd, uint64_t tag) {
  return is_foreign(p) ? -ENOTSUP : queue_rewatch(p, fd, tag);
}

int coir__poller_watch(struct coir__poller *p, int fd, uint64_t tag) {
  return is_foreign(p) ? -ENOTSUP : queue_watch(p, fd, tag);
}

void coir__poller_unwatch(struct coir__poller *p, int fd) {
  if (!is_foreign(p) && queue_unwatch(p, fd)) atm_sub_rel(&p->watched, 1);
}

void coir__poller_pin(struct coir__poller *p) { atm_add_rlx(&p->pins, 1); }

void coir__poller_unpin(struct coir__poller *p) {
  atm_sub_rel(&p->pins, 1); /* release: we are done with it; pairs with the acquire in coir__poller_destroy */
}

bool coir__poller_is_used(const struct coir__poller *p) { return atm_load_rlx(&p->watched) != 0; }

/* Hands on up to a batch. `is_sleeper`: wakes are for the caller. */
static int deliver(struct coir__poller *p, int64_t ns, bool is_sleeper) {
  struct coir__poll_ready ready[COIR__POLL_BATCH];
  bool was_rung = false;
  int count = queue_take(p, ready, ns, &was_rung);
  if (is_sleeper) {
    atm_store_sc(&p->waiting, 0);
    /* Acquire: what the waker did before; pairs with the exchange in coir__poller_wake. */
    if (atm_load_rlx(&p->woken)) atm_xchg_sc(&p->woken, 0);
  } else if (was_rung && atm_load_sc(&p->waiting)) {
    queue_ring(p);
  }
  coir__poll_events(ready, count);
  return count;
}

LEAF bool coir__poller_is_ready(const struct coir__poller *p) {
  int saved = errno;
  struct pollfd look = {.fd = p->queue, .events = POLLIN};
  bool is_ready = poll(&look, 1, 0) > 0;
  errno = saved;
  return is_ready;
}

int coir__poller_wait(struct coir__poller *p, int64_t deadline) {
  if (deadline <= 0) return deliver(p, 0, false);
  int64_t ns = -1;
  if (deadline != COIR_NEVER) {
    ns = deadline - coir__os_now();
    if (ns <= 0) ns = 0;
  }
  /* Sequentially consistent: waiting before the look at woken; coir__poller_wake does it the other way round. */
  atm_store_sc(&p->waiting, 1);
  if (atm_load_sc(&p->woken)) ns = 0;
  return deliver(p, ns, true);
}

void coir__poller_wake(struct coir__poller *p) {
  /* Somebody whose wake is still due has rung, or has found nobody asleep. */
  if (atm_xchg_sc(&p->woken, 1) == 0 && atm_load_sc(&p->waiting)) queue_ring(p);
}

void coir__poller_fork_child(void) { atm_add_rlx(&forks, 1); }
