/* The part of CspSurfacesTest that is written for Coir itself: fibers of the default runtime. */
#include "csp_surfaces.h"

#include <stdlib.h>

#include "coir.h"

static void begin(void) {
  if (coir_runtime_start(coir_runtime_default()) != 0) abort();
}

static void end(void) {
  if (coir_runtime_stop(coir_runtime_default(), COIR_STOP_DRAIN, COIR_NEVER) != 0) abort();
}

static void start(void (*fn)(void *arg), void *arg) {
  struct coir_attr attr = {.is_void = true};
  if (coir_runtime_spawn(NULL, (coir_fn)(void (*)(void))fn, arg, &attr, NULL) != 0) abort();
}

static bool send_value(void *channel, void *value) { return coir_chan_send(channel, &value, COIR_NEVER) == 0; }

static bool recv_value(void *channel, void **value) { return coir_chan_recv(channel, value, COIR_NEVER) == 0; }

static void yield(void) { coir_yield(); }

const struct surface coir_surface = {"coir", begin, end, start, send_value, recv_value, yield};
