/* csp.h: all of libcsp. Goroutines for C, and for what can call C.
 *
 *     static void hello(void *ch) { csp_gochan_send((csp_gochan_t *)ch, (void *)42); }
 *
 *     int main(void) {
 *       csp_gochan_t *ch = csp_gochan_new(0);
 *       csp_proc_create(0, hello, ch);
 *       printf("%d\n", (int)(intptr_t)csp_gochan_recv(ch, NULL));
 *     }
 *
 * Short names (chan_new, wg_add, time_after, ...) come with it, unless CSP_NO_ALIASES is defined before. With
 * csp_without_prefix defined before, they are those of typed rings, spin locks and the scheduler instead (below). */
#ifndef CSP_H
#define CSP_H

/* Programs count on these. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#ifdef __cplusplus
#include <atomic>
#else
#include <stdatomic.h>
#include <stdbool.h>
#endif

#include "chan.h"
#include "context.h"
#include "core.h"
#include "csp_api.h"
#include "csp_ring.h"
#include "csp_sched.h"
#include "mutex.h"
#include "netpoll.h"
#include "runtime.h"
#include "scheduler.h"
#include "sync.h"
#include "timer.h"

/* Adds `v` to the atomic `*p`; the value before it. Beside it there are the generics of <stdatomic.h>. */
#ifndef atomic_add
#define atomic_add(p, v) atomic_fetch_add((p), (v))
#endif

#ifdef csp_without_prefix

#define async csp_async
#define block csp_block
#define yield csp_yield
#define hangup csp_hangup

#define chan_declare csp_chan_declare
#define chan_define csp_chan_define
#define chan_t csp_chan_t
#define chan_new csp_chan_new
#define chan_destroy csp_chan_destroy
#define chan_try_push csp_chan_try_push
#define chan_push csp_chan_push
#define chan_try_pop csp_chan_try_pop
#define chan_pop csp_chan_pop
#define chan_try_pushm csp_chan_try_pushm
#define chan_pushm csp_chan_pushm
#define chan_try_popm csp_chan_try_popm
#define chan_popm csp_chan_popm

#define mutex_t csp_mutex_t
#define mutex_init csp_mutex_init
#define mutex_try_lock csp_mutex_try_lock
#define mutex_lock csp_mutex_lock
#define mutex_unlock csp_mutex_unlock

#define timer_now csp_timer_now
#define timer_time_t csp_timer_time_t
#define timer_duration_t csp_timer_duration_t
#define timer_nanosecond csp_timer_nanosecond
#define timer_microsecond csp_timer_microsecond
#define timer_millisecond csp_timer_millisecond
#define timer_second csp_timer_second
#define timer_minute csp_timer_minute
#define timer_hour csp_timer_hour
#define timer_call_at csp_timer_call_at
#define timer_call_after csp_timer_call_after
#define timer_cancel csp_timer_cancel
#define timer_free csp_timer_free

#define netpoll_register csp_netpoll_register
#define netpoll_unregister csp_netpoll_unregister
#define netpoll_wait_read csp_netpoll_wait_read
#define netpoll_wait_write csp_netpoll_wait_write
#define netpoll_avail csp_netpoll_avail
#define netpoll_timeout csp_netpoll_timeout

#elif !defined(CSP_NO_ALIASES)

typedef csp_gochan_t chan_t;
#define chan_new csp_gochan_new
#define chan_send csp_gochan_send
#define chan_recv csp_gochan_recv
#define chan_close csp_gochan_close

#define time_after csp_time_after
#define ticker_new csp_ticker_new
#define ticker_stop csp_ticker_stop

typedef csp_sync_mutex_t mutex_t;
#define mutex_init csp_sync_mutex_init
#define mutex_lock csp_sync_mutex_lock
#define mutex_unlock csp_sync_mutex_unlock

typedef csp_sync_waitgroup_t waitgroup_t;
#define wg_init csp_sync_waitgroup_init
#define wg_add csp_sync_waitgroup_add
#define wg_done csp_sync_waitgroup_done
#define wg_wait csp_sync_waitgroup_wait

#endif
#endif
