/* go.h: libgo, in the manner of Go: channels, select, contexts, wait groups, tickers and the rest, for the fibers of
 * libgo/fiber.h and for plain threads, mixed as they come. This header includes all the others.
 *
 *     static void worker(void *c) { go_channel_send(c, "done"); }
 *     int main(void) {
 *       void *text;
 *       GoChannel *c = go_channel_create(0);
 *       gof_start_background(0);
 *       go_fiber_default(worker, c);
 *       go_channel_receive(c, &text);       a plain thread and a fiber meet
 *       puts(text);
 *       go_channel_free(c);
 *       return gof_join_background();
 *     }
 *
 * Conventions, the same in every header of libgo:
 *
 *   - Calls that can fail return -1 or NULL and set errno; 0 is success. Fibers have an errno of their own: include
 *     libgo/fiber.h, which says why, where fibers look at it.
 *   - Every call may be made on any thread and on any fiber, also on those that coir.h starts. One that waits says so;
 *     it suspends the fiber, or blocks the plain thread. None may be made in a signal handler.
 *   - A call that waits fails with ECANCELED when somebody asked its fiber to stop with coir_cancel or by closing a
 *     scope (coir.h). Programs that use neither never see that.
 *   - What is counted by references is freed by whoever gives up the last. `_ref` takes one more and returns its
 *     argument; `_free` and `_unref` give up one. NULL does nothing there.
 *   - Fibers that gof_join_background abandons never go on, and what they hold, references too, stays held.
 *   - In the child of a fork() nothing that was made before may be used; new things may be made. */
#ifndef LIBGO_GO_H
#define LIBGO_GO_H

#include <stddef.h>

#include "blocking_executor.h"
#include "channel.h"
#include "context.h"
#include "counter.h"
#include "error.h"
#include "fiber_hooks.h"
#include "select.h"
#include "ticker.h"
#include "wait_group.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs fn(arg) on a new thread of the system, detached; what it returns is dropped. Returns 0; -1 and errno: EINVAL (fn
 * is NULL), ENOMEM, EAGAIN. Does not wait. */
int go(void *(*fn)(void *), void *arg);

/* Runs fn(arg) on a new fiber, as gof_spawn does, with a stack of at least `stack_bytes` bytes (0: the default).
 * Returns 0; -1 and errno: EINVAL (fn is NULL, or stack_bytes above 1 GiB), ENOMEM. Does not wait. */
int go_fiber(void (*fn)(void *), void *arg, size_t stack_bytes);

/* The same with the default stack. */
int go_fiber_default(void (*fn)(void *), void *arg);

/* For what may be either: called on a fiber as go_fiber_default, called on a plain thread as go. */
int go_fiber_compat(void *(*fn)(void *), void *arg);

/* How many functions that the calls above started have not ended yet. One that leaves by coir_exit, or is
 * abandoned with its fiber, counts for ever. */
int go_get_active_count(void);

#ifdef __cplusplus
}
#endif
#endif
