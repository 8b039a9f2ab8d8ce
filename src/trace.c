/* Hooks: who asks to be told of every switch and every wait is called from here. include/coir_trace.h is the contract.
 *
 * Only in builds with COIR_TRACE, where everybody is called on the thread's own stack, between two fibers (fiber.c).
 * Who runs next is picked there as in any other build, by the fiber that gives up its worker, and at the same pace; it
 * is only handed to the loop, which switches to it, instead of being switched to.
 *
 * A fiber's on_wait is called before its wait is committed: until then nobody else can run it, so the on_resume of that
 * wait comes later, on whatever worker. What a fiber waits for is read from its frame, which stays as it is until it
 * runs again.
 *
 * Each worker begins with a copy of the hooks, taken under a lock. They are replaced under the same lock, and only if
 * no runtime runs: so no worker has those of before when coir_trace_set_hooks has returned 0, and none gets half of
 * each. */
#include "internal.h"

#include "coir_trace.h"

#if defined(COIR_TRACE)

static struct coir__lock trace_lock;
static struct coir_trace_hooks trace_hooks; /* (l) trace_lock */

int coir_trace_set_hooks(const struct coir_trace_hooks *hooks) {
  coir__lock(&trace_lock);
  bool busy = coir__runtimes_on() != 0;
  if (!busy) trace_hooks = hooks ? *hooks : (struct coir_trace_hooks){0};
  coir__unlock(&trace_lock);
  return busy ? -EBUSY : 0;
}

void coir__trace_fork_child(void) { trace_lock = (struct coir__lock){0}; }

void coir__trace_begin(struct coir__worker *w) {
  coir__lock(&trace_lock);
  w->hooks = trace_hooks;
  coir__unlock(&trace_lock);
  if (w->left) coir__trace_leave(w, w->left);
  w->left = 0;
}

/* Calls on_wait or on_resume. A wait for a descriptor has one clause (coir__fd_wait). */
static void trace_tell(const struct coir__worker *w, const struct coir_fiber *f,
                       void (*hook)(uint64_t id, int fd, int events, void *arg)) {
  uint64_t on = atm_load_rlx(&f->waits_on);
  uint32_t events = 0;
  switch ((enum coir__reason)(on & 0xff)) {
  case COIR__REASON_READ: events = COIR__POLL_IN; break;
  case COIR__REASON_WRITE: events = COIR__POLL_OUT; break;
  case COIR__REASON_POLL: events = ((const struct coir__fd_clause *)f->wait->clauses)->events; break;
  default: break;
  }
  /* The bits are those of coir_io.h. */
  hook(f->id, events ? (int)(on >> 8) : -1, (int)events, w->hooks.arg);
}

void coir__trace_wait(const struct coir__worker *w, const struct coir_fiber *f) {
  if (w->hooks.on_wait) trace_tell(w, f, w->hooks.on_wait);
}

void coir__trace_enter(const struct coir__worker *w, const struct coir_fiber *f) {
  if (f->wait && w->hooks.on_resume) trace_tell(w, f, w->hooks.on_resume);
  if (w->hooks.on_switch) w->hooks.on_switch(0, f->id, w->hooks.arg);
}

void coir__trace_leave(const struct coir__worker *w, uint64_t id) {
  if (w->hooks.on_switch) w->hooks.on_switch(id, 0, w->hooks.arg);
}

#else

int coir_trace_set_hooks(const struct coir_trace_hooks *hooks) {
  (void)hooks;
  return -ENOTSUP;
}

#endif
