/* ticker.h: a channel that gets a value every so many milliseconds. Conventions: go.h. */
#ifndef LIBGO_TICKER_H
#define LIBGO_TICKER_H

#include <stddef.h>

#include "channel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Made by create_ticker only; there is more behind this member. */
typedef struct Ticker {
  GoChannel *c; /* the ticks, each a NULL; with room for one. A tick that finds it full is dropped */
} Ticker;

/* Makes a ticker; the first tick comes after `ms` milliseconds. Ticks do not drift: they keep to multiples of that, and
 * those that nobody had time for are left out. Returns NULL and errno: EINVAL (ms is 0), ENOMEM, EAGAIN (no thread to
 * keep the time). Does not wait. */
Ticker *create_ticker(size_t ms);

/* Stops and frees it; no tick is sent once this has returned. Closes its channel, so that whoever waits there fails,
 * and gives it up: who wants the channel for longer takes a reference before. NULL does nothing. Does not wait. */
void stop_ticker(Ticker *ticker);

#ifdef __cplusplus
}
#endif
#endif
