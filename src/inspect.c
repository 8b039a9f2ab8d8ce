/* Looking inside: statistics, the list of fibers, messages. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define WALK_TRIES_MAX 3

const char *coir_version(void) { return COIR_VERSION; }

void coir__fatal(const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  int n = snprintf(text, sizeof text, "coir: ");
  n += vsnprintf(text + n, sizeof text - (size_t)n, format, args);
  va_end(args);
  if (n > (int)sizeof text - 64) n = (int)sizeof text - 64;
  struct coir_fiber *f = coir_current();
  if (f)
    n += snprintf(text + n, sizeof text - (size_t)n, " [fiber %llu \"%s\"]", (unsigned long long)f->id, coir_name(f));
  text[n++] = '\n';
  coir__os_complain(text, (size_t)n);
  coir__hard_tell_seed();
  abort();
}

void coir_runtime_get_stats(struct coir_runtime *runtime, struct coir_stats *out) {
  if (!runtime || !out) return;
  struct coir_stats s = {.workers = runtime->worker_count, .pollers = runtime->poller_count};
  s.workers_idle = __builtin_popcountll(atm_load_rlx(&runtime->idle_mask));
  s.fibers_live = coir__fibers_left(runtime);
  s.fibers_spawned = atm_load_rlx(&runtime->spawned_outside);
  for (int i = 0; i < runtime->worker_count; i++) {
    const struct coir__counts *c = &runtime->workers[i]->counts;
    s.fibers_spawned += atm_load_rlx(&c->spawned);
    s.switches += atm_load_rlx(&c->switches);
    s.parks += atm_load_rlx(&c->parks);
    s.wakes += atm_load_rlx(&c->wakes);
    s.steals_attempted += atm_load_rlx(&c->steals_attempted);
    s.steal_hits += atm_load_rlx(&c->steal_hits);
    s.steals += atm_load_rlx(&c->steals);
    s.rebalances_attempted += atm_load_rlx(&c->rebalances_attempted);
    s.rebalance_hits += atm_load_rlx(&c->rebalance_hits);
    s.rebalanced += atm_load_rlx(&c->rebalanced);
    s.sleeps += atm_load_rlx(&c->sleeps);
    s.polls += atm_load_rlx(&c->polls);
    s.io_events += atm_load_rlx(&c->io_events);
    s.timers_fired += atm_load_rlx(&c->timers_fired);
    s.handoffs += atm_load_rlx(&c->handoffs);
  }
  s.wakes += atm_load_rlx(&runtime->wakes_outside);
  s.fibers_dropped = atm_load_rlx(&runtime->dropped);
  s.injected = atm_load_rlx(&runtime->injected);
  s.injected_taken = atm_load_rlx(&runtime->injected_taken);
  s.polls += atm_load_rlx(&runtime->polls);
  s.io_events += atm_load_rlx(&runtime->io_events);
  coir__stack_stats(runtime, &s);
  s.preemptions = atm_load_rlx(&runtime->preemptions);
  s.stalls = atm_load_rlx(&runtime->stalls);
  s.longest_stall_ns = atm_load_rlx(&runtime->longest_stall_ns);
  s.spares = (uint64_t)atm_load_rlx(&runtime->extra_count);
  *out = s;
}

PEEKS void coir__name_copy(const struct coir_fiber *f, char *out) {
  bool is_named = __atomic_load_n(&f->b.flags, __ATOMIC_ACQUIRE) & COIR__FIBER_NAMED;
  for (int i = 0; i < COIR__NAME_MAX; i++) out[i] = is_named ? PEEK(f->name[i]) : 0;
  out[COIR__NAME_MAX - 1] = 0;
}

/* The worker that runs the fiber just now, or -1. */
static PEEKS int running_on(struct coir_runtime *rt, const struct coir_fiber *f) {
  for (int i = 0; i < rt->worker_count; i++)
    if (PEEK(rt->workers[i]->current) == f) return i;
  return -1;
}

/* The state of a fiber that does not run, as it looks from outside; it may be another one a moment later. */
static PEEKS enum coir_fiber_state state_of(const struct coir_fiber *f) {
  if (atm_load_acq(&f->ended) & COIR__ENDED) return COIR_FIBER_ENDED;
  uint8_t more = __atomic_load_n(&f->b.more, __ATOMIC_RELAXED);
  if (more & COIR__MORE_AWAY) { /* on a thread of its own */
    if ((atm_load_rlx(&f->waits_on) & 0xff) == COIR__REASON_BLOCK) return COIR_FIBER_WAITING;
    return more & COIR__MORE_PAUSED ? COIR_FIBER_READY : COIR_FIBER_RUNNING;
  }
  uint64_t word = atm_load_acq(&f->waiter.word), code = word & COIR__CODE_MASK;
  bool waits = code >= COIR__CODE_OPEN && code <= COIR__CODE_BOUND;
  return waits && atm_load_acq(&f->waiter.parked) == (word & ~COIR__CODE_MASK) ? COIR_FIBER_WAITING : COIR_FIBER_READY;
}

/* When the fiber was dispatched last, of which it keeps the lower bits: the latest such time that is past, or that is
 * before it began to wait. */
static PEEKS int64_t last_run(const struct coir_fiber *f, int64_t since) {
  uint64_t end = (uint64_t)(since ? since : coir__os_now()) >> COIR__LOOK_SHIFT;
  uint32_t ran_at = PEEK(f->ran_at), ago = (uint32_t)end - ran_at;
  if (ran_at < COIR__STACK_CLASSES) return 0; /* still its size class: it has its stack, and has not run on it */
  if (ago >> 31) ago = 0; /* it was dispatched again meanwhile */
  return (int64_t)(end - ago) << COIR__LOOK_SHIFT;
}

/* What its words say now. */
static PEEKS void describe_words(struct coir_runtime *rt, const struct coir_fiber *f, struct coir_fiber_info *out) {
  int worker = running_on(rt, f);
  out->state = worker >= 0 ? COIR_FIBER_RUNNING : state_of(f);
  out->worker = worker >= 0 ? worker : PEEK(f->b.worker);
  out->waits_for = "";
  if (out->state == COIR_FIBER_WAITING) {
    uint64_t on = atm_load_rlx(&f->waits_on);
    out->waits_for = coir__reason_name((enum coir__reason)(on & 0xff));
    out->waits_on = on >> 8;
    out->since = atm_load_rlx(&f->since);
  }
  coir__name_copy(f, out->name);
  /* Before the stack, with which it goes; acquire: pairs with the release in bind_stack() (fiber.c). */
  uint32_t size_class = __atomic_load_n(&f->stack_class, __ATOMIC_ACQUIRE);
  const struct coir__stack *s = PEEK(f->stack);
  const void *sp = PEEK(f->sp);
  if (!s && size_class < COIR__STACK_CLASSES) out->stack_bytes = coir__stack_class_bytes((int)size_class);
  if (!s) return;
  out->ran_at = last_run(f, out->since);
  out->stack_bytes = PEEK(s->bytes);
  uintptr_t at = (uintptr_t)sp, low = (uintptr_t)PEEK(s->low), top = (uintptr_t)PEEK(s->top);
  out->stack_used = at >= low && at < top ? top - at : 0;
  if (out->stack_used < coir__os_page()) out->stack_used = coir__os_page(); /* it has been run on */
}

/* Everything is read while the fiber may go on: relaxed reads of words, each true at some moment. Acquire, of those
 * that are written at its end: who no longer finds it listed finds what it has done. False: it has ended; maybe while
 * we looked, and the descriptor may be another fiber's by now: its entry is cleared before anything of the next one is
 * written, whose entry comes last. */
static PEEKS bool describe(struct coir_runtime *rt, const struct coir_fiber *f, struct coir_fiber_info *out) {
  memset(out, 0, sizeof *out);
  out->id = __atomic_load_n(&f->id, __ATOMIC_ACQUIRE); /* before the entry: that of a later one would be found there */
  out->entry = atm_load_acq(&f->entry);
  if (!out->entry || (atm_load_acq(&f->ended) & COIR__ENDED)) return false;
  describe_words(rt, f, out);
  atm_fence_sc(); /* the words before the second look; pairs with the fence where a descriptor is freed */
  return atm_load_acq(&f->entry) == out->entry && PEEK(f->id) == out->id;
}

size_t coir_runtime_list(struct coir_runtime *runtime, struct coir_fiber_info *out, size_t max) {
  size_t n = 0, live = 0;
  if (!runtime) return 0;
  for (struct coir__slab *slab = atm_load_acq(&runtime->slabs); slab; slab = slab->next)
    for (uint32_t i = 0; i < slab->count; i++) {
      const struct coir_fiber *f = &slab->fibers[i];
      if (!atm_load_acq(&f->entry) || (atm_load_acq(&f->ended) & COIR__ENDED)) continue;
      if (out && n < max && !describe(runtime, f, &out[n++])) n--;
      else live++;
    }
  return live;
}

/* With its backtrace, unless it does not wait, or never stands still long enough. Returns 0 if it has ended. */
static int visit_fiber(struct coir_runtime *rt, const struct coir_fiber *f, struct coir__backtrace *b,
                        coir_visit_fn visit, void *arg) {
  struct coir_fiber_info info;
  void *const *frames = NULL;
  size_t count = 0;
  for (int tries = 0; tries < WALK_TRIES_MAX && !count; tries++) {
    uint64_t wait = coir__backtrace_begin(f);
    if (!describe(rt, f, &info)) return 0;
    if (info.state != COIR_FIBER_WAITING) break;
    if (wait && coir__backtrace_copy(b, f, wait)) count = coir__backtrace_unwind(b, &frames);
  }
  visit(&info, frames, count, arg);
  return 1;
}

int64_t coir_runtime_walk(struct coir_runtime *runtime, coir_visit_fn visit, void *arg) {
  if (!runtime || !visit) return -EINVAL;
  struct coir__backtrace *b = coir__backtrace_create();
  if (!b) return -ENOMEM;
  int64_t visited = 0;
  for (struct coir__slab *slab = atm_load_acq(&runtime->slabs); slab; slab = slab->next)
    for (uint32_t i = 0; i < slab->count; i++) {
      const struct coir_fiber *f = &slab->fibers[i];
      if (!atm_load_acq(&f->entry) || (atm_load_acq(&f->ended) & COIR__ENDED)) continue;
      visited += visit_fiber(runtime, f, b, visit, arg);
    }
  coir__backtrace_destroy(b);
  return visited;
}
