/* Channels of go_fiber: those of Coir, with a pointer as value. A gof_chan_t is a struct coir_chan. */
#include "libgo/fiber_chan.h"

#include "gof_internal.h"

static struct coir_chan *raw(gof_chan_t *c) { return (struct coir_chan *)c; }

gof_chan_t *gof_chan_make(size_t capacity) {
  struct coir_chan *c = coir_chan_create(sizeof(void *), capacity);
  if (!c) gof__fail(-ENOMEM);
  return (gof_chan_t *)c;
}

void gof_chan_free(gof_chan_t *c) { coir_chan_unref(raw(c)); }

void gof_chan_close(gof_chan_t *c) { coir_chan_close(raw(c)); }

int gof_chan_send(gof_chan_t *c, void *value) {
  int rc = coir_chan_send(raw(c), &value, COIR_NEVER);
  return __builtin_expect(rc == 0, 1) ? 0 : gof__fail(rc);
}

int gof_chan_recv(gof_chan_t *c, void **out) {
  int rc = coir_chan_recv(raw(c), out, COIR_NEVER);
  return __builtin_expect(rc == 0, 1) ? 0 : gof__fail(rc);
}

/* What a call without waiting has come to. */
static int tried(int rc) { return rc == 0 ? 1 : rc == -ETIMEDOUT ? 0 : gof__fail(rc); }

int gof_chan_try_send(gof_chan_t *c, void *value) { return tried(coir_chan_send(raw(c), &value, 0)); }

int gof_chan_try_recv(gof_chan_t *c, void **out) { return tried(coir_chan_recv(raw(c), out, 0)); }
