/* select.h: wait for the first of several channels. Conventions: go.h.
 *
 *     void *v;
 *     GoSelectCase cases[] = {{GO_SELECT_RECEIVE, in, NULL, &v}, {GO_SELECT_SEND, out, "hello", NULL}};
 *     switch (go_select(cases, 2)) ... */
#ifndef LIBGO_SELECT_H
#define LIBGO_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum GoSelectOp { GO_SELECT_SEND = 0, GO_SELECT_RECEIVE = 1 } GoSelectOp;

typedef struct GoSelectCase {
  GoSelectOp op;
  GoChannel *chan; /* NULL: this case is never ready */
  void *value;     /* to be sent */
  void **recv_buf; /* where to receive; NULL drops the value */
} GoSelectCase;

typedef struct GoSelectResult {
  int selected_case; /* an index, or -1 */
  bool ok;           /* a value was sent or received; false for a closed channel, and with -1 */
} GoSelectResult;

/* Waits until one of `n` cases is ready, does it, and returns its index. Exactly one takes effect; of several that are
 * ready each has the same chance. A channel may stand in several cases.
 *
 * A closed channel is ready: receiving from it, when it is drained, stores NULL in `*recv_buf`; sending to it sends
 * nothing. (go_select_timeout tells that by `ok`.)
 *
 * Returns -1 and errno: EINVAL (n is 0 or above 1000000, or no case has a channel and an operation that exists),
 * ENOMEM, ECANCELED. */
int go_select(GoSelectCase *cases, size_t n);

/* The same, and waits for at most `timeout_ms` milliseconds (0: does not wait); then `selected_case` is -1 and errno
 * ETIMEDOUT. */
GoSelectResult go_select_timeout(GoSelectCase *cases, size_t n, uint64_t timeout_ms);

/* ---- Flags that channels raise --------------------------------------------------------------------------------- */

/* A flag for who looks at channels now and then, and does not wait. Channels that it is registered with set `signaled`
 * to 1 when there may be something to receive: when a value was put into the buffer, when a sender comes to a channel
 * without buffer (just before it waits), and at the close. They never clear it. Another receiver may have been
 * faster. */
typedef struct GoSelectWaiter {
#ifdef __cplusplus
  int signaled; /* atomic: use __atomic_load_n and the like */
#else
  _Atomic(int) signaled;
#endif
} GoSelectWaiter;

/* Makes one, not signaled, with one reference. Returns NULL and errno ENOMEM. */
GoSelectWaiter *go_select_waiter_create(void);
GoSelectWaiter *go_select_waiter_ref(GoSelectWaiter *waiter);
void go_select_waiter_unref(GoSelectWaiter *waiter);

/* Registers the waiter, to which the channel takes a reference. Signals it at once when the channel is closed, or there
 * is something to receive. Registering it again only does the latter. Returns 0; -1 and errno: EINVAL (NULL),
 * ENOMEM. */
int go_channel_register_select_waiter(GoChannel *chan, GoSelectWaiter *waiter);

/* Ends that; the channel does not touch the waiter any more. Returns 0; -1 and errno: EINVAL (NULL), ENOENT (it was not
 * registered). A channel that is freed does so by itself. */
int go_channel_unregister_select_waiter(GoChannel *chan, GoSelectWaiter *waiter);

#ifdef __cplusplus
}
#endif
#endif
