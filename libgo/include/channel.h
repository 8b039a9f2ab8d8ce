/* channel.h: channels of pointers, counted by references. Conventions: go.h.
 *
 * Values, waiting senders and waiting receivers are served first come, first served. NULL is a value like any other. A
 * channel holds up to `capacity` values; with capacity 0 a send completes when a receiver takes the value.
 *
 * Whoever makes a call holds a reference to the channel; a call that has begun has one of its own until it returns. So
 * whoever received the last value may give up the last reference, though its sender may still be in go_channel_send. */
#ifndef LIBGO_CHANNEL_H
#define LIBGO_CHANNEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct GoChannel GoChannel; /* opaque */
struct GoContext;                   /* context.h */

/* Makes a channel with room for exactly `capacity` values. Returns it with one reference; NULL and errno ENOMEM. */
GoChannel *go_channel_create(size_t capacity);

GoChannel *go_channel_ref(GoChannel *chan);
void go_channel_unref(GoChannel *chan);

/* The same as go_channel_unref. The last reference frees the channel; what values that it still buffers point to is not
 * its affair. */
void go_channel_free(GoChannel *chan);

/* Closes the channel: sends fail from now on, also those that wait; what is buffered can still be received, and then
 * receives fail. Closing again does nothing, nor does NULL. */
void go_channel_close(GoChannel *chan);

/* Sends `value`. Waits until the buffer or a receiver has it. Returns 0; -1 and errno, and nothing was sent: EPIPE (it
 * is closed, or was while the call waited), EINVAL (NULL channel), ECANCELED. What the sender wrote before is visible
 * to the receiver. */
int go_channel_send(GoChannel *chan, void *value);

/* Receives the oldest value into `*out`; `out` may be NULL, which drops it. Waits until there is one. Returns 0; -1 and
 * errno, with `*out` NULL: EPIPE (it is closed and drained), EINVAL (NULL channel), ECANCELED. */
int go_channel_receive(GoChannel *chan, void **out);

/* The same without waiting: where they would have to, they fail with EAGAIN. */
int go_channel_try_send(GoChannel *chan, void *value);
int go_channel_try_receive(GoChannel *chan, void **out);

/* As go_channel_send and go_channel_receive, but waits no longer than until `context` is cancelled: -1 and errno
 * ECANCELED then, or ETIMEDOUT when that was its deadline; also when it was cancelled before the call, whatever the
 * channel has. NULL is no context: nothing cancels it. */
int go_channel_send_with_context(GoChannel *chan, void *value, struct GoContext *context);
int go_channel_receive_with_context(GoChannel *chan, void **out, struct GoContext *context);

/* Whether it has been closed, whatever it still buffers; 1 for NULL. */
int go_channel_is_closed(const GoChannel *chan);

/* How many values are buffered just now; 0 for NULL. */
size_t go_channel_get_depth(const GoChannel *chan);

/* Whether anything is buffered just now, so that the next receive need not wait; and whether there is room in the
 * buffer of a channel that is not closed. Both are 0 for capacity 0, which has no buffer, and for NULL. */
int go_channel_has_data(const GoChannel *chan);
int go_channel_has_space(const GoChannel *chan);

#ifdef __cplusplus
}
#endif
#endif
