/* The part of CspSurfacesTest that is written for go_fiber. */
#include "csp_surfaces.h"

#include <stdlib.h>

#include "libgo/fiber.h"
#include "libgo/fiber_chan.h"

static void begin(void) {
  if (gof_start_background(0) != 0) abort();
}

/* It stops where it is when it is asked to, so this waits for the last fiber. */
static void end(void) {
  while (gof_list(NULL, 0) > 0) gof_sleep_ms(1);
  gof_request_stop();
  if (gof_join_background() != 0) abort();
}

static void start(void (*fn)(void *arg), void *arg) {
  if (!gof_spawn(fn, arg, 0)) abort();
}

static bool send_value(void *channel, void *value) { return gof_chan_send(channel, value) == 0; }

static bool recv_value(void *channel, void **value) { return gof_chan_recv(channel, value) == 0; }

const struct surface gof_surface = {"go_fiber", begin, end, start, send_value, recv_value, gof_yield};
