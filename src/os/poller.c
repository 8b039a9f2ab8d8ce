/* poller.h: what it is on every system. How the system is asked, and told to ring, is behind queue.h.
 *
 * Wakes. `woken` says that a wake is due, `waiting` that somebody sleeps or is about to. The sleeper sets waiting, then
 * looks at woken; the waker sets woken, then looks at waiting: with sequentially consistent accesses at least one of
 * them sees the other, so a wake is never lost, and one that finds nobody asleep makes no system call. To ring is an
 * edge, whoever takes it. A thread that only polls may take it away from the one that sleeps; it rings again then. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <poll.h>

#include "os.h"
#include "queue.h"

static _Atomic(uint32_t) forks; /* (a) of this process and its forebears */

int coir__poller_create(struct coir__poller **out, struct coir_runtime *rt) {
  (void)rt; /* a poller takes a page of its own: no other cache line beside the words that others write */
  *out = NULL;
  struct coir__poller *p = coir__os_reserve(coir__os_page(), 0, false);
  if (!p) return -ENOMEM;
  p->fork = atm_load_rlx(&forks);
  int rc = coir__queue_open(p);
  if (rc < 0) coir__os_release(p, coir__os_page());
  else *out = p;
  return rc < 0 ? rc : 0;
}

void coir__poller_destroy(struct coir__poller *p) {
  if (!p) return;
  coir__poll_forget(p);
  while (atm_load_acq(&p->pins)) coir__os_thread_yield(); /* acquire: pairs with the release in coir__poller_unpin */
  coir__queue_shut(p);
  coir__os_release(p, coir__os_page());
}

bool coir__poller_is_foreign(const struct coir__poller *p) { return p->fork != atm_load_rlx(&forks); }

int coir__poller_rewatch(struct coir__poller *p, int fd, uint64_t tag) {
  return coir__poller_is_foreign(p) ? -ENOTSUP : coir__queue_rewatch(p, fd, tag);
}

int coir__poller_watch(struct coir__poller *p, int fd, uint64_t tag) {
  return coir__poller_is_foreign(p) ? -ENOTSUP : coir__queue_watch(p, fd, tag);
}

void coir__poller_unwatch(struct coir__poller *p, int fd) {
  if (!coir__poller_is_foreign(p) && coir__queue_unwatch(p, fd)) atm_sub_rel(&p->watched, 1);
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
  int count = coir__queue_take(p, ready, ns, &was_rung);
  if (is_sleeper) {
    atm_store_sc(&p->waiting, 0);
    /* Acquire: what the waker did before; pairs with the exchange in coir__poller_wake. */
    if (atm_load_rlx(&p->woken)) atm_xchg_sc(&p->woken, 0);
  } else if (was_rung && atm_load_sc(&p->waiting)) {
    coir__queue_ring(p);
  }
  coir__poll_events(ready, count);
  return count;
}

COIR_LEAF bool coir__poller_is_ready(const struct coir__poller *p) {
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
  if (atm_xchg_sc(&p->woken, 1) == 0 && atm_load_sc(&p->waiting)) coir__queue_ring(p);
}

void coir__poller_fork_child(void) { atm_add_rlx(&forks, 1); }
