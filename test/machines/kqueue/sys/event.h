/* A stand-in for kqueue on Linux, by epoll: as much of it as Coir uses, so that os/poll_kqueue.c can be compiled and
 * run here. It shows how BSD's is used, not how that behaves: both filters of a descriptor are one registration, so
 * their udata is the same, an edge of one reports the other as well when it is ready, and a duplicate keeps it. */
#ifndef COIR_TEST_SYS_EVENT_H
#define COIR_TEST_SYS_EVENT_H

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-11)
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_ERROR 0x4000
#define EV_EOF 0x8000
#define NOTE_TRIGGER 0x01000000

struct kevent {
  uintptr_t ident;
  int16_t filter;
  uint16_t flags;
  uint32_t fflags;
  int64_t data;
  void *udata;
};

#define EV_SET(event, id, which, how, notes, value, pointer)                                                 \
  (*(event) = (struct kevent){.ident = (id), .filter = (which), .flags = (uint16_t)(how), .fflags = (notes), \
                              .data = (value), .udata = (pointer)})

#define KQUEUES_MAX 1024 /* numbers of queues */
#define KQUEUE_BELL UINT64_MAX
static _Atomic(int) kqueue_bells[KQUEUES_MAX]; /* of each queue the eventfd that is its user event */

static inline int kqueue(void) {
  int queue = epoll_create1(EPOLL_CLOEXEC);
  if (queue < KQUEUES_MAX) return queue;
  close(queue);
  errno = EMFILE;
  return -1;
}

/* As epoll has it: one registration, made by the first of the two filters. */
static inline int kevent_register(int queue, const struct kevent *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
                              .data.u64 = (uint64_t)(uintptr_t)c->udata};
  int fd = (int)c->ident;
  if (c->flags & EV_DELETE) return epoll_ctl(queue, EPOLL_CTL_DEL, fd, NULL);
  int rc = epoll_ctl(queue, EPOLL_CTL_MOD, fd, &event);
  if (rc < 0 && errno == ENOENT && c->flags & EV_ADD) rc = epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event);
  return rc;
}

static inline int kevent_user(int queue, const struct kevent *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = KQUEUE_BELL};
  uint64_t one = 1;
  if (c->flags & EV_DELETE) return close(kqueue_bells[queue]);
  if (c->fflags & NOTE_TRIGGER) return write(kqueue_bells[queue], &one, sizeof one) < 0 ? -1 : 0;
  int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (bell < 0) return -1;
  kqueue_bells[queue] = bell;
  return epoll_ctl(queue, EPOLL_CTL_ADD, bell, &event);
}

static inline int kevent_expand(const struct epoll_event *from, struct kevent *to) {
  uint32_t in = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR, out = EPOLLOUT | EPOLLHUP | EPOLLERR;
  uint16_t eof = from->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI) ? EV_EOF : 0;
  void *udata = (void *)(uintptr_t)from->data.u64;
  int n = 0;
  if (from->data.u64 == KQUEUE_BELL) return EV_SET(&to[0], 0, EVFILT_USER, 0, 0, 0, NULL), 1;
  if (from->events & in) EV_SET(&to[n++], 0, EVFILT_READ, eof, 0, 0, udata);
  if (from->events & out) EV_SET(&to[n++], 0, EVFILT_WRITE, eof, 0, 0, udata);
  return n;
}

static inline int kevent(int queue, const struct kevent *changes, int changes_count, struct kevent *out, int room,
                         const struct timespec *limit) {
  struct epoll_event events[64];
  int n = 0;
  for (int i = 0; i < changes_count; i++) {
    const struct kevent *c = &changes[i];
    int rc = c->filter == EVFILT_USER ? kevent_user(queue, c) : kevent_register(queue, c);
    if (rc < 0 && !(c->flags & EV_RECEIPT)) return -1;
    if (c->flags & EV_RECEIPT) {
      out[n] = *c;
      out[n].flags = EV_ERROR;
      out[n++].data = rc < 0 ? errno : 0;
    }
  }
  if (n > 0 || room == 0) return n;
  int most = room / 2 < 64 ? room / 2 : 64;
  int taken = (int)syscall(SYS_epoll_pwait2, queue, events, most, limit, NULL, 0);
  if (taken < 0) return -1;
  for (int i = 0; i < taken; i++) n += kevent_expand(&events[i], &out[n]);
  return n;
}

#endif
