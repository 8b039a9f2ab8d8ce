/* queue.h for BSD and macOS: kqueue (Lemon, 2001), with a user event for wakes.
 *
 * A descriptor has two filters, for input and for output, both with EV_CLEAR, which is an edge; what has only one
 * direction may refuse the other. EV_ADD makes a filter; EV_ENABLE changes one that is there, and is ENOENT where there
 * is none. Both report anew what is ready. A close(2) takes a number's filters away, whatever else refers to the file.
 *
 * A child of fork does not have the queue at all: its number may be another file's there, and is not closed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#if defined(COIR_KQUEUE)

#include <errno.h>
#include <sys/event.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "os.h"
#include "queue.h"

#define WAKE_IDENT 0

/* Of two changes: 0 when one of them was made, else the first one's error. Takes no events: EV_RECEIPT. */
static COIR_LEAF int change_both(int queue, int fd, uint16_t flags, uint64_t tag) {
  static const int16_t filters[] = {EVFILT_READ, EVFILT_WRITE};
  int saved = errno, errors[2];
  for (int i = 0; i < 2; i++) {
    struct kevent change, receipt;
    struct timespec at_once = {0};
    EV_SET(&change, (uintptr_t)fd, filters[i], flags | EV_RECEIPT, 0, 0, (void *)(uintptr_t)tag);
    int n = kevent(queue, &change, 1, &receipt, 1, &at_once);
    errors[i] = n < 0 ? -errno : n == 1 && receipt.flags & EV_ERROR ? -(int)receipt.data : 0;
  }
  errno = saved;
  return errors[0] == 0 || errors[1] == 0 ? 0 : errors[0];
}

static COIR_LEAF int change_bell(int queue, uint16_t flags, uint32_t notes) {
  int saved = errno;
  struct kevent change;
  EV_SET(&change, WAKE_IDENT, EVFILT_USER, flags, notes, 0, NULL);
  int rc = kevent(queue, &change, 1, NULL, 0, NULL) < 0 ? -errno : 0;
  errno = saved;
  return rc;
}

static COIR_LEAF int queue_make(void) {
  int saved = errno, rc = kqueue();
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

/* Files and directories have filters, too; but they never wait. */
static COIR_LEAF bool is_always_ready(int fd) {
  int saved = errno;
  struct stat st;
  bool is = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode));
  errno = saved;
  return is;
}

/* `ns` < 0: no limit. */
static COIR_LEAF int take(int queue, struct kevent *events, int64_t ns) {
  int saved = errno;
  struct timespec limit = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  int rc = kevent(queue, NULL, 0, events, COIR__POLL_BATCH, ns < 0 ? NULL : &limit);
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

void coir__queue_ring(struct coir__poller *p) { change_bell(p->queue, 0, NOTE_TRIGGER); }

void coir__queue_shut(struct coir__poller *p) {
  if (coir__poller_is_foreign(p)) return;
  change_bell(p->queue, EV_DELETE, 0);
  coir__sys_close(p->queue);
}

int coir__queue_open(struct coir__poller *p) {
  p->bell = -1;
  int rc = p->queue = queue_make();
  if (rc >= 0) rc = change_bell(p->queue, EV_ADD | EV_CLEAR, 0);
  if (rc < 0 && p->queue >= 0) coir__queue_shut(p);
  return rc;
}

int coir__queue_rewatch(struct coir__poller *p, int fd, uint64_t tag) {
  return change_both(p->queue, fd, EV_ENABLE | EV_CLEAR, tag);
}

int coir__queue_watch(struct coir__poller *p, int fd, uint64_t tag) {
  if (is_always_ready(fd)) return -EPERM;
  int rc = coir__queue_rewatch(p, fd, tag);
  if (rc != -ENOENT) return rc;
  rc = change_both(p->queue, fd, EV_ADD | EV_CLEAR, tag);
  if (rc == 0) atm_add_rlx(&p->watched, 1); /* relaxed: a count, read as a hint */
  return rc;
}

bool coir__queue_unwatch(struct coir__poller *p, int fd) { return change_both(p->queue, fd, EV_DELETE, 0) == 0; }

static inline uint32_t meaning(const struct kevent *event) {
  uint32_t bits = event->filter == EVFILT_READ ? COIR__POLL_IN : COIR__POLL_OUT;
  if (event->flags & EV_ERROR) bits = COIR__POLL_IN | COIR__POLL_OUT | COIR__POLL_HUP;
  if (event->flags & EV_EOF) bits |= COIR__POLL_HUP;
  return bits;
}

int coir__queue_take(struct coir__poller *p, struct coir__poll_ready *ready, int64_t ns, bool *was_rung) {
  struct kevent events[COIR__POLL_BATCH];
  int n = take(p->queue, events, ns), count = 0;
  for (int i = 0; i < n; i++) {
    if (events[i].filter == EVFILT_USER) *was_rung = true;
    else
      ready[count++] =
          (struct coir__poll_ready){.tag = (uint64_t)(uintptr_t)events[i].udata, .events = meaning(&events[i])};
  }
  return count;
}

#endif
