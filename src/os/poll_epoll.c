/* queue.h for Linux: epoll, and an eventfd for wakes, which is watched by edges and never read: every write to it is
 * an edge, and its counter would take centuries to fill.
 *
 * Timeouts are in nanoseconds where the kernel has epoll_pwait2 (Linux 5.11), else in milliseconds, rounded up.
 * Sandboxes that do not know the call say EPERM instead of ENOSYS. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#if !defined(COIR_KQUEUE)

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os.h"
#include "queue.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441 /* the same number on every architecture */
#endif

#define WAKE_TAG UINT64_MAX
#define WATCHED (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)
#define SLICE 1000000000 /* ns: see take_in_slices */

static _Atomic(bool) no_pwait2; /* (a) the kernel refused epoll_pwait2 once */

static COIR_LEAF int epoll_make(void) {
  int saved = errno, rc = epoll_create1(EPOLL_CLOEXEC);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

static COIR_LEAF int bell_make(void) {
  int saved = errno, rc = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

COIR_LEAF void coir__queue_ring(struct coir__poller *p) {
  int saved = errno;
  uint64_t one = 1;
  ssize_t n = write(p->bell, &one, sizeof one);
  (void)n; /* it cannot be full */
  errno = saved;
}

static COIR_LEAF int control(int epoll, int op, int fd, uint64_t tag, uint32_t events) {
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
static COIR_LEAF int take(int epoll, struct epoll_event *events, int64_t ns) {
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

void coir__queue_shut(struct coir__poller *p) {
  if (p->bell >= 0) coir__sys_close(p->bell);
  if (p->queue >= 0) coir__sys_close(p->queue);
}

int coir__queue_open(struct coir__poller *p) {
  p->bell = -1;
  int rc = p->queue = epoll_make();
  if (rc >= 0) rc = p->bell = bell_make();
  if (rc >= 0) rc = control(p->queue, EPOLL_CTL_ADD, p->bell, WAKE_TAG, EPOLLIN | EPOLLET);
  if (rc < 0) coir__queue_shut(p);
  return rc;
}

int coir__queue_rewatch(struct coir__poller *p, int fd, uint64_t tag) {
  return control(p->queue, EPOLL_CTL_MOD, fd, tag, WATCHED);
}

/* One more is watched. Who sleeps may have begun to when nothing was, without a limit, and is rung: see take_in_slices.
 * Sequentially consistent: the count before the look at who sleeps, who does it the other way round. */
static void count_watched(struct coir__poller *p) {
  if (atm_add_sc(&p->watched, 1) == 0 && atm_load_sc(&p->waiting)) coir__queue_ring(p);
}

int coir__queue_watch(struct coir__poller *p, int fd, uint64_t tag) {
  int rc;
  do {
    rc = control(p->queue, EPOLL_CTL_ADD, fd, tag, WATCHED);
    if (rc == 0) count_watched(p);
    if (rc == -EEXIST) rc = coir__queue_rewatch(p, fd, tag);
  } while (rc == -ENOENT); /* the file that was there a moment ago is gone: the number stands for another one */
  return rc;
}

bool coir__queue_unwatch(struct coir__poller *p, int fd) { return control(p->queue, EPOLL_CTL_DEL, fd, 0, 0) == 0; }

/* What an event means for who waits: hang-up and errors are for both directions, since calls of both return at once. */
static inline uint32_t meaning(uint32_t events) {
  uint32_t bits = 0;
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR)) bits |= COIR__POLL_IN;
  if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) bits |= COIR__POLL_OUT;
  if (events & (EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR)) bits |= COIR__POLL_HUP;
  return bits;
}

/* As `take`, but while anything is watched no call sleeps for longer than a slice, and one that began before returns
 * (count_watched). Since Linux 6.10 a thread in epoll_wait keeps a reference to a file while it looks at it, and where
 * another thread calls close(2) in that moment the last reference, if what was looked at was not ready, is put back
 * only when epoll_wait returns: till then the other end is not told. */
static int take_in_slices(struct coir__poller *p, struct epoll_event *events, int64_t ns) {
  int64_t begin = ns > SLICE ? coir__os_real_now() : 0, left = ns;
  while ((left < 0 || left > SLICE) && atm_load_sc(&p->watched)) {
    int n = take(p->queue, events, SLICE);
    if (n != 0) return n;
    if (begin) left = ns - (coir__os_real_now() - begin); /* by the clock, since every slice ends a little late */
    if (begin && left < 0) left = 0;
  }
  return take(p->queue, events, left);
}

int coir__queue_take(struct coir__poller *p, struct coir__poll_ready *ready, int64_t ns, bool *was_rung) {
  struct epoll_event events[COIR__POLL_BATCH];
  int n = take_in_slices(p, events, ns), count = 0;
  for (int i = 0; i < n; i++) {
    uint64_t tag = events[i].data.u64;
    if (tag == WAKE_TAG) *was_rung = true;
    else ready[count++] = (struct coir__poll_ready){.tag = tag, .events = meaning(events[i].events)};
  }
  return count;
}

#endif
