/* What the files of libgo share. */
#ifndef GO_INTERNAL_H
#define GO_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "coir.h"
#include "libgo/fiber.h"

#include "channel.h"
#include "select.h"

/* Sets errno and returns -1. */
static inline int go__fail(int error) {
  errno = error;
  return -1;
}

/* `ms` milliseconds in nanoseconds, or COIR_NEVER. */
static inline int64_t go__ms(uint64_t ms) { return ms > (uint64_t)COIR_NEVER / 1000000 ? COIR_NEVER : COIR_MS(ms); }

/* ---- channel.c, select_waiter.c -------------------------------------------------------------------------------- */

struct go__watch; /* that a waiter is registered with a channel; select_waiter.c */

struct GoChannel {
  struct coir_chan *chan;    /* (c) constant */
  bool is_rendezvous;        /* (c) its capacity is 0 */
  _Atomic(size_t) refs;      /* (a) atomic */
  _Atomic(int) senders;      /* (a) of a rendezvous: that are sending, or waiting for it */
  _Atomic(int) watchers;     /* (a) the length of `watches` */
  pthread_mutex_t lock;      /* never held across a wait */
  struct go__watch *watches; /* (l) guarded by lock */
};

/* Around sending: takes a reference and gives it up, and tells the waiters. `is_sent`: a value has been sent. */
void go__channel_begin_send(GoChannel *chan);
void go__channel_end_send(GoChannel *chan, bool is_sent);

/* Signals all waiters, after something that lets a receiver go on has been done to the channel. */
void go__channel_notify(GoChannel *chan);

/* Called when nobody uses the channel any more. */
void go__channel_drop_waiters(GoChannel *chan);

/* ---- context.c ------------------------------------------------------------------------------------------------- */

/* Why it was cancelled, ECANCELED or ETIMEDOUT; 0: it was not. */
int go__context_reason(const struct GoContext *context);

/* ---- clock.c --------------------------------------------------------------------------------------------------- */

/* The time by which the clock goes, in nanoseconds; and that `ns` later, or COIR_NEVER. */
int64_t go__clock_now(void);
int64_t go__clock_after(int64_t ns);

/* Something that is to be done at a time. Zeroed, it is not set. */
struct go__alarm {
  void (*fire)(struct go__alarm *alarm); /* on the clock's thread, with the clock locked: must not wait, set or unset */
  int64_t due;                           /* go__clock_now() */
  int64_t period;                        /* 0: once */
  bool is_set;                           /* the rest is the clock's */
  struct go__alarm *child, *next, *prev;
};

/* Sets an alarm whose fire, due and period are filled in, and which is not set. Returns 0; a negative errno when there
 * is no thread for the clock. Does not wait. */
int go__alarm_set(struct go__alarm *alarm);

/* It does not fire from now on, and is not firing. */
void go__alarm_unset(struct go__alarm *alarm);

#endif
