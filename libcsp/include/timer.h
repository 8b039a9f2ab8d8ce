/* timer.h: time, channels that tell when it has come, and calls at a time.
 *
 * The clock is the monotonic one (CLOCK_MONOTONIC): it is no date, and only goes forward. None of these counts as a
 * goroutine while it waits. Between csp_scheduler_stop and the next call that starts the workers nothing of this comes,
 * except what plain threads have asked csp_time_after and csp_ticker_new for. */
#ifndef CSP_TIMER_H
#define CSP_TIMER_H

#include "chan.h"
#include "csp_api.h"

CSP_BEGIN_DECLS

typedef int64_t csp_timer_time_t;     /* a time of csp_timer_now */
typedef int64_t csp_timer_duration_t; /* nanoseconds */

#define csp_timer_nanosecond ((csp_timer_duration_t)1)
#define csp_timer_microsecond ((csp_timer_duration_t)1000)
#define csp_timer_millisecond ((csp_timer_duration_t)1000000)
#define csp_timer_second ((csp_timer_duration_t)1000000000)
#define csp_timer_minute ((csp_timer_duration_t)60 * csp_timer_second)
#define csp_timer_hour ((csp_timer_duration_t)60 * csp_timer_minute)

/* Returns the time now. */
CSP_API csp_timer_time_t csp_timer_now(void);

/* Returns a channel with room for one, on which the time is sent, as an integer in a pointer (never NULL), when `ns`
 * nanoseconds have passed; at once for 0 and less. The caller frees it by csp_gochan_free, before or after. NULL:
 * memory is short (errno ENOMEM). */
CSP_API csp_gochan_t *csp_time_after(csp_timer_duration_t ns);

/* Sends the time on `ch`, likewise, every so often. Ticks that nobody has taken are dropped, all but one. */
typedef struct csp_ticker {
  csp_gochan_t *ch;
  void *reserved;
} csp_ticker_t;

/* Makes a ticker that runs at once, the first tick after `ns`. NULL with errno EINVAL when `ns` is less than 1, or
 * ENOMEM. */
CSP_API csp_ticker_t *csp_ticker_new(csp_timer_duration_t ns);

/* No tick is sent from now on; one that has been sent may still be received. Does not close the channel: whoever
 * receives from it then waits for ever. NULL does nothing. */
CSP_API void csp_ticker_stop(csp_ticker_t *ticker);

/* Stops it and frees it with its channel, which nobody may use any more. NULL does nothing. */
CSP_API void csp_ticker_free(csp_ticker_t *ticker);

/* ---- Calls at a time ------------------------------------------------------------------------------------------- */

typedef struct csp_timer csp_timer_t; /* a call that is to come; opaque */

/* Runs fn(arg) in a goroutine of its own at the time `when`, or in `ns` nanoseconds; at once when that has passed. The
 * caller frees the timer by csp_timer_free. NULL with errno EINVAL (`fn` is NULL), ENOMEM, EAGAIN (no workers). */
CSP_API csp_timer_t *csp_timer_call_at(csp_timer_time_t when, void (*fn)(void *arg), void *arg);
CSP_API csp_timer_t *csp_timer_call_after(csp_timer_duration_t ns, void (*fn)(void *arg), void *arg);

/* Calls it off. True: it will not come. False: it has come, or is about to, or was called off before. NULL: false. */
CSP_API bool csp_timer_cancel(csp_timer_t *timer);

/* Calls it off and frees it. NULL does nothing. */
CSP_API void csp_timer_free(csp_timer_t *timer);

CSP_END_DECLS
#endif
