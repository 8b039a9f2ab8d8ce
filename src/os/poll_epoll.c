/* poller.h for Linux: epoll, and an eventfd for wakes.
 *
 * Wakes. `woken` says that a wake is due, `waiting` that somebody sleeps or is about to. The sleeper sets waiting, then
 * looks at woken; the waker sets woken, then looks at waiting: with sequentially consistent accesses at least one of
 * them sees the other, so a wake is never lost, and one that finds nobody asleep makes no system call. The eventfd is
 * watched by edges and never read: every write to it is an edge, and its counter would take centuries to fill. A thread
 * that only polls may take the edge away from the one that sleeps; it rings again then.
 *
 * Timeouts are in nanoseconds where the kernel has epoll_pwait2 (Linux 5.11), else in milliseconds, rounded up.
 * Sandboxes that do not know the call say EPERM instead of ENOSYS.
 *
 * errno is as it was before: each system call is made by a function of its own, which puts it back. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "poller.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441 /* the same number on every architecture */
#endif

#define WAKE_TAG UINT64_MAX
#define WATCHED (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

struct coir__poller {
  int epoll, bell;
  uint32_t fork;                                  /* (c) number of forks before it was made */
  _Alignas(COIR__LINE) _Atomic(uint32_t) woken;   /* (a) a wake is due */
  _Atomic(uint32_t) waiting;                      /* (a) somebody sleeps, or is about to */
  _Alignas(COIR__LINE) _Atomic(uint32_t) watched; /* (a) descriptors added and not taken out by us */
  _Atomic(uint32_t) pins;                         /* (a) */
};

static _Atomic(uint32_t) forks; /* (a) of this process and its forebears */
static _Atomic(bool) no_pwait2; /* (a) the kernel refused epoll_pwait2 once */

/* ---- System calls ---------------------------------------------------------------------------------------------- */

/* Not inlined, so that the address of errno does not live longer than the call. */
#define LEAF __attribute__((noinline))

static LEAF int epoll_make(void) {
  int saved = errno, rc = epoll_create1(EPOLL_CLOEXEC);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

static LEAF int bell_make(void) {
  int saved = errno, rc = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

static LEAF void bell_ring(int bell) {
  int saved = errno;
  uint64_t one = 1;
  ssize_t n = write(bell, &one, sizeof one);
  (void)n; /* it cannot be full */
  errno = saved;
}

static LEAF int control(int epoll, int op, int fd, uint64_t tag, uint32_t events) {
  int saved = errno;
  struct epoll_event event = {.events = events, .data.u64 = tag};
#if defined(COIR_TSAN) /* its model of descriptors does not know that one may be closed while it is watched */
  int rc = (int)syscall(SYS_epoll_ctl, epoll, op, fd, &event);
#else
  int rc = epoll_ctl(epoll, op, fd, &event);
#endif
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

/* `ns` < 0: no limit. */
static LEAF int take(int epoll, struct epoll_event *events, int64_t ns) {
  int saved = errno, rc = -1;
  if (ns > 0 && !atm_load_rlx(&no_pwait2)) { /* relaxed: a late look costs one call more */
    struct timespec limit = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    rc = (int)syscall(SYS_epoll_pwait2, epoll, events, COIR__POLL_BATCH, &limit, NULL, 0);
    if (rc < 0 && (errno == ENOSYS || errno == EPERM)) atm_store_rlx(&no_pwait2, true);
    else ns = -2;
  }
  if (ns != -2) {
    int64_t ms = ns < 0 ? -1 : ns / 1000000 + (ns % 1000000 != 0);
    rc = epoll_wait(epoll, events, COIR__POLL_BATCH, ms > INT_MAX ? INT_MAX : (int)ms);
  }
  if (rc < 0) rc = -errno;
  else COIR_WRITTEN(events, (size_t)rc * sizeof *events);
  errno = saved;
  return rc;
}

static LEAF void shut(int fd) {
  int saved = errno;
  if (fd >= 0) close(fd);
  errno = saved;
}

/* ---- The contract ---------------------------------------------------------------------------------------------- */

int coir__poller_create(struct coir__poller **out, struct coir_runtime *rt) {
  (void)rt; /* a poller takes a page of its own: no other cache line beside the words that others write */
  *out = NULL;
  struct coir__poller *p = coir__os_reserve(coir__os_page(), 0, false);
  if (!p) return -ENOMEM;
  p->fork = atm_load_rlx(&forks);
  p->bell = -1;
  int rc = p->epoll = epoll_make();
  if (rc >= 0) rc = p->bell = bell_make();
  if (rc >= 0) rc = control(p->epoll, EPOLL_CTL_ADD, p->bell, WAKE_TAG, EPOLLIN | EPOLLET);
  if (rc < 0) {
    shut(p->bell);
    shut(p->epoll);
    coir__os_release(p, coir__os_page());
    return rc;
  }
  *out = p;
  return 0;
}

void coir__poller_destroy(struct coir__poller *p) {
  if (!p) return;
  coir__poll_forget(p);
  while (atm_load_acq(&p->pins)) coir__os_thread_yield(); /* acquire: pairs with the release in coir__poller_unpin */
  shut(p->bell);
  shut(p->epoll);
  coir__os_release(p, coir__os_page());
}

/* In a forked child the epoll instance is the parent's: what the child adds, the parent would be told about. */
static inline bool is_foreign(const struct coir__poller *p) { return p->fork != atm_load_rlx(&forks); }

int coir__poller_rewatch(struct coir__poller *p, int fd, uint64_t tag) {
  return is_foreign(p) ? -ENOTSUP : control(p->epoll, EPOLL_CTL_MOD, fd, tag, WATCHED);
}

int coir__poller_watch(struct coir__poller *p, int fd, uint64_t tag) {
  if (is_foreign(p)) return -ENOTSUP;
  int rc;
  do {
    rc = control(p->epoll, EPOLL_CTL_ADD, fd, tag, WATCHED);
    if (rc == 0) atm_add_rlx(&p->watched, 1); /* relaxed: a count, read as a hint */
    if (rc == -EEXIST) rc = control(p->epoll, EPOLL_CTL_MOD, fd, tag, WATCHED);
  } while (rc == -ENOENT); /* the file that was there a moment ago is gone: the number stands for another one */
  return rc;
}

void coir__poller_unwatch(struct coir__poller *p, int fd) {
  if (!is_foreign(p) && control(p->epoll, EPOLL_CTL_DEL, fd, 0, 0) == 0) atm_sub_rel(&p->watched, 1);
}

void coir__poller_pin(struct coir__poller *p) { atm_add_rlx(&p->pins, 1); }

void coir__poller_unpin(struct coir__poller *p) {
  atm_sub_rel(&p->pins, 1); /* release: we are done with it; pairs with the acquire in coir__poller_destroy */
}

bool coir__poller_is_used(const struct coir__poller *p) { return atm_load_rlx(&p->watched) != 0; }

/* What an event means for who waits: hang-up and errors are for both directions, since calls of both return at once. */
static inline uint32_t meaning(uint32_t events) {
  uint32_t bits = 0;
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR)) bits |= COIR__POLL_IN;
  if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) bits |= COIR__POLL_OUT;
  if (events & (EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR)) bits |= COIR__POLL_HUP;
  return bits;
}

/* Hands on up to a batch. `is_sleeper`: wakes are for the caller. */
static int deliver(struct coir__poller *p, int64_t ns, bool is_sleeper) {
  struct epoll_event events[COIR__POLL_BATCH];
  struct coir__poll_ready ready[COIR__POLL_BATCH];
  int n = take(p->epoll, events, ns), count = 0;
  if (is_sleeper) {
    atm_store_sc(&p->waiting, 0);
    /* Acquire: what the waker did before; pairs with the exchange in coir__poller_wake. */
    if (atm_load_rlx(&p->woken)) atm_xchg_sc(&p->woken, 0);
  }
  for (int i = 0; i < n; i++) {
    uint64_t tag = events[i].data.u64;
    if (tag != WAKE_TAG) ready[count++] = (struct coir__poll_ready){.tag = tag, .events = meaning(events[i].events)};
    else if (!is_sleeper && atm_load_sc(&p->waiting)) bell_ring(p->bell);
  }
  coir__poll_events(ready, count);
  return count;
}

LEAF bool coir__poller_is_ready(const struct coir__poller *p) {
  int saved = errno;
  struct pollfd look = {.fd = p->epoll, .events = POLLIN};
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
  if (atm_xchg_sc(&p->woken, 1) == 0 && atm_load_sc(&p->waiting)) bell_ring(p->bell);
}

void coir__poller_fork_child(void) { atm_add_rlx(&forks, 1); }
