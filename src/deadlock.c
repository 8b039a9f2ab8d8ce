/* Deadlocks: every fiber waits for another one, and nobody is left who could wake any.
 *
 * Goal: such a program is told so, with what everybody waits for, instead of standing still; and a program that only
 * waits for the outside world is never accused.
 *
 * Why it is hard: a plain thread may at any time send, unlock or set something, and need not have told us that it
 * exists. So what we know of our own fibers proves nothing while the process has any thread that is not Coir's. The
 * system knows how many threads there are, and we how many are ours.
 *
 * Design. The last worker that goes to sleep without limit looks (idle.c; by then nothing has happened for about 10
 * ms). It is a deadlock when all workers sleep so, no timer is armed, every fiber is parked on something that only
 * another fiber can bring about, no other runtime runs, and all threads of the process are Coir's, beside the one that
 * called coir_runtime_run and is a worker. That no fiber ran while we looked is seen by looking twice: each wait of a
 * fiber has a greater number than the one before, so if the sums agree all were parked at one moment, with nobody to
 * move them.
 *
 * Then the runtime's policy decides. After a report all fibers are cancelled, at every wait from then on, so that their
 * clean-up runs; those that stand still even then, behind a shield, are dropped where they are. */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

#define TEXT_MAX 160
#define REPORT_MAX 1000 /* fibers that are listed one by one */

/* What a look at all fibers found. */
struct snapshot {
  uint64_t sum;   /* of the numbers of their waits */
  uint64_t count; /* how many wait */
  bool can_go_on; /* one of them is not parked, or waits for the outside */
};

/* Generators that nobody resumes wait for nobody's sake. */
static bool is_for_others(enum coir__reason reason) {
  switch (reason) {
  case COIR__REASON_SLEEP:
  case COIR__REASON_READ:
  case COIR__REASON_WRITE:
  case COIR__REASON_POLL:
  case COIR__REASON_BLOCK:
  case COIR__REASON_SELECT_IO: return false;
  default: return true;
  }
}

static void look_at_fiber(struct coir_fiber *f, struct snapshot *s) {
  uint64_t word = atm_load_acq(&f->waiter.word), code = word & COIR__CODE_MASK;
  enum coir__reason reason = (enum coir__reason)(atm_load_acq(&f->waits_on) & 0xff);
  bool is_parked = code >= COIR__CODE_OPEN && code <= COIR__CODE_SHIELDED &&
                   atm_load_acq(&f->waiter.parked) == (word & ~COIR__CODE_MASK);
  s->sum += word;
  s->count += reason != COIR__REASON_YIELD;
  if (!is_parked || !is_for_others(reason)) s->can_go_on = true;
}

static struct snapshot look_at_fibers(struct coir_runtime *rt) {
  struct snapshot s = {0};
  for (struct coir__slab *slab = atm_load_acq(&rt->slabs); slab && !s.can_go_on; slab = slab->next)
    for (uint32_t i = 0; i < slab->count && !s.can_go_on; i++) {
      struct coir_fiber *f = &slab->fibers[i];
      if (atm_load_acq(&f->entry) && !(atm_load_acq(&f->ended) & COIR__ENDED)) look_at_fiber(f, &s);
    }
  return s;
}

static bool all_sleep(struct coir_runtime *rt) {
  if (atm_load_sc(&rt->deep) != (uint32_t)rt->worker_count) return false;
  for (int i = 0; i < rt->worker_count; i++)
    if (atm_load_acq(&rt->workers[i]->timers.next) != COIR_NEVER || atm_load_acq(&rt->workers[i]->inbox)) return false;
  return true;
}

/* `sum` tells one deadlock from the next. */
static bool is_deadlock(struct coir_runtime *rt, uint64_t *sum) {
  if (!all_sleep(rt)) return false;
  struct snapshot first = look_at_fibers(rt);
  if (first.can_go_on || first.count == 0) return false;
  if (coir__os_other_threads() != 1 || coir__runtime_others_run(rt) || !coir__keeper_is_idle()) return false;
  struct snapshot second = look_at_fibers(rt);
  *sum = second.sum;
  return !second.can_go_on && first.sum == second.sum && first.count == second.count && all_sleep(rt) &&
         coir__keeper_is_idle();
}

/* ---- Telling --------------------------------------------------------------------------------------------------- */

static void say(const char *text, int bytes) {
  coir__os_complain(text, bytes < TEXT_MAX ? (size_t)bytes : TEXT_MAX - 1);
}

static void say_fiber(const struct coir_fiber_info *info, int64_t now) {
  char text[TEXT_MAX];
  double ms = info->since > 0 && info->since < now ? (double)(now - info->since) / 1e6 : 0;
  int n = snprintf(text, sizeof text, "  fiber %llu \"%s\": waits for %s 0x%llx for %.0f ms, worker %d\n",
                   (unsigned long long)info->id, info->name, info->waits_for, (unsigned long long)info->waits_on, ms,
                   info->worker);
  say(text, n);
}

static void report(struct coir_runtime *rt) {
  char text[TEXT_MAX];
  size_t live = coir_runtime_list(rt, NULL, 0), max = live < REPORT_MAX ? live : REPORT_MAX;
  say(text, snprintf(text, sizeof text,
                     "coir: deadlock: %zu fibers wait for each other, and nobody else could wake them\n", live));
  struct coir_fiber_info *list = coir__alloc(NULL, (max ? max : 1) * sizeof *list);
  size_t n = list ? coir_runtime_list(rt, list, max) : 0;
  for (size_t i = 0; i < n && i < max; i++) say_fiber(&list[i], coir__os_now());
  coir__free(NULL, list, 0);
  if (live > max) say(text, snprintf(text, sizeof text, "  and %zu more\n", live - max));
}

static bool look_and_act(struct coir_runtime *rt) {
  const struct coir_config *c = &rt->config;
  uint64_t sum;
  if (!is_deadlock(rt, &sum) || (rt->deadlock_sum == sum && !rt->deadlocked)) return false;
  rt->deadlock_sum = sum;
  if (rt->deadlocked) { /* cancelled already, and still: all that is left is behind shields */
    coir__worker_halt(rt);
    return true;
  }
  if (c->on_deadlock && c->on_deadlock(rt, c->on_deadlock_arg)) return true;
  if (c->deadlock == COIR_DEADLOCK_IGNORE) return false;
  report(rt);
  if (c->deadlock == COIR_DEADLOCK_ABORT) abort();
  rt->deadlocked = true;
  coir__runtime_cancel_all(rt);
  return true;
}

bool coir__deadlock_look(struct coir_runtime *rt) {
  if (rt->config.deadlock == COIR_DEADLOCK_IGNORE && !rt->config.on_deadlock) return false;
  if (!coir__lock_try(&rt->deadlock_lock)) return false; /* another worker is at it */
  bool acted = look_and_act(rt);
  coir__unlock(&rt->deadlock_lock);
  return acted;
}
