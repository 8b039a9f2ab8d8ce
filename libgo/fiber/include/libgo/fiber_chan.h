/* fiber_chan.h: channels of pointers, for the fibers of libgo/fiber.h and for plain threads, mixed as they come.
 *
 * Values, waiting senders and waiting receivers are served first come, first served. NULL is a value like any other. */
#ifndef LIBGO_FIBER_CHAN_H
#define LIBGO_FIBER_CHAN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gof_chan gof_chan_t;

/* Makes a channel with room for `capacity` values; with 0 a send completes when the value has been received. Returns
 * NULL and errno ENOMEM. */
gof_chan_t *gof_chan_make(size_t capacity);

/* Frees it, with what it holds. Nobody may use it any more, or wait on it. NULL does nothing. */
void gof_chan_free(gof_chan_t *c);

/* Closes it: who waits fails, sends fail, what is buffered can still be received. Closing again does nothing, nor does
 * NULL. */
void gof_chan_close(gof_chan_t *c);

/* Waits until the value is sent. Returns 0; -1 when the channel is closed (errno EPIPE), or NULL (EINVAL). */
int gof_chan_send(gof_chan_t *c, void *value);

/* Waits until there is a value. `out` NULL drops it. Returns 0; -1 when the channel is closed and drained, or NULL. */
int gof_chan_recv(gof_chan_t *c, void **out);

/* The same without waiting. Return 1: done; 0: it would have to wait; -1: as above. */
int gof_chan_try_send(gof_chan_t *c, void *value);
int gof_chan_try_recv(gof_chan_t *c, void **out);

#ifdef __cplusplus
}
#endif
#endif
