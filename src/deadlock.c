/* Deadlocks: every fiber and thread waits for another one, and nobody is left who could wake any.
 *
 * Goal: such a program is told so, with what everybody waits for, instead of standing still; and a program that only
 * waits for the world outside is never accused.
 *
 * Why it is hard: a plain thread may at any time send, unlock or set something, and need not have told us that it
 * exists. So what we know of our own fibers proves nothing while the process has any thread that we know nothing of.
 * The system knows how many threads there are, and we how many are ours. Besides, all of them move while we look.
 *
 * Design. A plain thread that is going to wait until others wake it (no deadline, no descriptor) is a sleeper: it is
 * counted in as the last thing before, counted out as the first thing after, and does nothing in between. It is a
 * deadlock when, at one moment S,
 *   - all workers of the only runtime that is not off sleep without limit, and no timer is armed;
 *   - every thread of the process is Coir's, a sleeper, or the caller of coir_runtime_run, which is a worker;
 *   - every fiber and every sleeper is parked on something that only another one can bring about, unclaimed.
 * S is when the system counts the threads. The counts of sleepers and of workers' sleeps are read before it and after
 * everything, and must not have changed: each goes up with every sleep that begins. So from S on nobody who could
 * move anything was awake, and what is looked at after S, one after the other, is as it was at S. Who had been woken,
 * and had not noticed yet, shows by its claim word: a claim comes before its maker sleeps, or ends.
 *
 * Who looks: the last step into a deadlock is that a worker or a plain thread goes to sleep. The last worker that
 * goes to sleep without limit looks (idle.c; by then nothing has happened for about 10 ms). A plain thread looks as
 * well when it has slept for about as long, if all workers sleep so, and has a worker look again and act. Both count
 * themselves before they look at the other, so one of them sees both. The delay saves most looks.
 *
 * Neither sees a thread end that Coir knows nothing of, and the system goes on counting one that has been joined, for
 * as long as it likes on a busy machine. So when a look has failed by the threads alone, the monitor looks again before
 * it rests, and then later and later, for some seconds (monitor.c). A thread that ends after that, as the last step, is
 * not noticed until somebody goes to sleep again.
 *
 * Then the runtime's policy decides. After a report all fibers are cancelled, at every wait from then on, so that
 * their clean-up runs; those that stand still even then, behind a shield, are dropped where they are, if the runtime
 * was to end with its last fiber: in coir_runtime_run, and when somebody waits in coir_runtime_stop. Plain threads
 * wait on. */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

#define TEXT_MAX 160
#define REPORT_MAX 1000 /* fibers, and threads, that are listed one by one */

/* What a look found. */
struct scene {
  uint64_t sleepers, deep_begun; /* as it began */
  uint64_t sum;                  /* of the numbers of the fibers' waits */
  uint64_t fibers, threads;      /* how many wait */
  uint64_t stoppers;             /* of those threads: in coir_runtime_stop */
  bool can_go_on;                /* one of them is not parked, or waits for the outside */
  bool fails_by_threads;         /* the runtime stands still; there are threads that may do something, or end */
};

static bool is_open(uint64_t code) { return code >= COIR__CODE_OPEN && code <= COIR__CODE_SHIELDED; }

static void look_at_fiber(struct coir_fiber *f, struct scene *s) {
  uint64_t word = atm_load_acq(&f->waiter.word);
  enum coir__reason reason = (enum coir__reason)(atm_load_acq(&f->waits_on) & 0xff);
  bool is_parked = is_open(word & COIR__CODE_MASK) && atm_load_acq(&f->waiter.parked) == (word & ~COIR__CODE_MASK);
  s->sum += word;
  s->fibers += reason != COIR__REASON_YIELD;
  if (!is_parked || !coir__reason_is_others(reason)) s->can_go_on = true;
}

static void look_at_fibers(struct coir_runtime *rt, struct scene *s) {
  for (struct coir__slab *slab = atm_load_acq(&rt->slabs); slab && !s->can_go_on; slab = slab->next)
    for (uint32_t i = 0; i < slab->count && !s->can_go_on; i++) {
      struct coir_fiber *f = &slab->fibers[i];
      if (atm_load_acq(&f->entry) && !(atm_load_acq(&f->ended) & COIR__ENDED)) look_at_fiber(f, s);
    }
}

static uint64_t sleepers_of(const struct scene *s) { return s->sleepers & COIR__SLEEPERS_MASK; }

static void look_at_threads(struct scene *s) {
  s->threads = s->stoppers = 0;
  if (sleepers_of(s) == 0) return;
  for (struct coir__thread *t = coir__thread_first(); t; t = t->next) {
    /* Acquire: pairs with the release in coir__thread_sleep_begin; the word is that of this sleep, or a later one. */
    uint64_t asleep = atm_load_acq(&t->asleep), word = atm_load_acq(&t->waiter.word);
    if (!asleep) continue;
    s->threads++;
    if (asleep == COIR__ASLEEP_STOP) s->stoppers++;
    else if (asleep != (word & ~COIR__CODE_MASK) || !is_open(word & COIR__CODE_MASK)) s->can_go_on = true;
  }
  if (s->threads != sleepers_of(s)) s->can_go_on = true;
}

static bool all_sleep(struct coir_runtime *rt) {
  if (atm_load_sc(&rt->deep) != (uint32_t)rt->worker_count) return false;
  for (int i = 0; i < rt->worker_count; i++)
    if (atm_load_acq(&rt->workers[i]->timers.next) != COIR_NEVER || atm_load_acq(&rt->workers[i]->inbox)) return false;
  return true;
}

/* Nobody else is there. This is the moment S. */
static bool are_alone(struct coir_runtime *rt, const struct scene *s) {
  uint64_t known = sleepers_of(s) + atm_load_rlx(&rt->hosts);
  return known > 0 && coir__os_other_threads() == (int)known && coir__runtimes_on() == 1;
}

static bool is_deadlock(struct coir_runtime *rt, struct scene *s) {
  *s = (struct scene){.sleepers = coir__thread_sleepers(), .deep_begun = atm_load_sc(&rt->deep_begun)};
  if (!all_sleep(rt) || !coir__keeper_is_idle()) return false;
  look_at_threads(s); /* mostly the end of it, and cheap */
  s->fails_by_threads = s->can_go_on || !are_alone(rt, s);
  if (s->fails_by_threads) return false;
  look_at_threads(s);
  look_at_fibers(rt, s);
  if (s->fibers == 0 && (s->stoppers > 0 || s->threads == 0)) return false; /* it is about to stop */
  return !s->can_go_on && all_sleep(rt) && coir__keeper_is_idle() && s->sleepers == coir__thread_sleepers() &&
         s->deep_begun == atm_load_sc(&rt->deep_begun);
}

static bool is_wanted(const struct coir_runtime *rt) {
  return rt->config.deadlock != COIR_DEADLOCK_IGNORE || rt->config.on_deadlock;
}

/* The one that was dealt with, and nothing has moved since; or it has left threads behind that still wait. */
static bool is_known(struct coir_runtime *rt, const struct scene *s) {
  return atm_load_rlx(&rt->deadlock_threads) == s->sleepers &&
         (atm_load_rlx(&rt->deadlock_sum) == s->sum || s->fibers == 0);
}

/* Nothing that the runtime does by itself can end it: it is up to the threads. */
static bool stands_still(struct coir_runtime *rt, struct scene *s) {
  if (sleepers_of(s) + atm_load_rlx(&rt->hosts) == 0 || coir__runtimes_on() != 1) return false;
  s->can_go_on = false;
  look_at_fibers(rt, s);
  return !s->can_go_on;
}

enum coir__deadlock_chance coir__deadlock_chance(struct coir_runtime *rt) {
  struct scene s;
  if (!is_wanted(rt)) return COIR__DEADLOCK_NONE;
  if (is_deadlock(rt, &s))
    return atm_load_acq(&rt->deadlocked) || !is_known(rt, &s) ? COIR__DEADLOCK_NEAR : COIR__DEADLOCK_NONE;
  return s.fails_by_threads && stands_still(rt, &s) ? COIR__DEADLOCK_LATER : COIR__DEADLOCK_NONE;
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

static void say_thread(struct coir__thread *t, int64_t now) {
  char text[TEXT_MAX];
  uint64_t on = atm_load_rlx(&t->waits_on);
  int64_t since = atm_load_rlx(&t->since);
  say(text, snprintf(text, sizeof text, "  thread %d: waits for %s 0x%llx for %.0f ms\n", atm_load_rlx(&t->tid),
                     coir__reason_name((enum coir__reason)(on & 0xff)), (unsigned long long)(on >> 8),
                     since < now ? (double)(now - since) / 1e6 : 0));
}

static void say_fibers(struct coir_runtime *rt, size_t live, int64_t now) {
  char text[TEXT_MAX];
  size_t max = live < REPORT_MAX ? live : REPORT_MAX;
  struct coir_fiber_info *list = coir__alloc(NULL, (max ? max : 1) * sizeof *list);
  size_t n = list ? coir_runtime_list(rt, list, max) : 0;
  for (size_t i = 0; i < n && i < max; i++) say_fiber(&list[i], now);
  coir__free(NULL, list, 0);
  if (live > max) say(text, snprintf(text, sizeof text, "  and %zu more\n", live - max));
}

static void report(struct coir_runtime *rt, const struct scene *s) {
  char text[TEXT_MAX], threads[TEXT_MAX / 2] = "";
  size_t live = coir_runtime_list(rt, NULL, 0), listed = 0;
  int64_t now = coir__os_now();
  if (s->threads) snprintf(threads, sizeof threads, " and %llu threads", (unsigned long long)s->threads);
  say(text,
      snprintf(text, sizeof text, "coir: deadlock: %zu fibers%s wait for each other, and nobody else could wake them\n",
               live, threads));
  say_fibers(rt, live, now);
  for (struct coir__thread *t = coir__thread_first(); t && listed < REPORT_MAX; t = t->next)
    if (atm_load_acq(&t->asleep)) {
      say_thread(t, now);
      listed++;
    }
  if (s->threads > listed)
    say(text, snprintf(text, sizeof text, "  and %llu more threads\n", (unsigned long long)s->threads - listed));
}

/* All fibers were cancelled, and those that are left stand still: behind shields. Where they are all that is waited
 * for, they are dropped. */
static bool give_up(struct coir_runtime *rt, const struct scene *s) {
  if (atm_load_acq(&rt->phase) == COIR__PHASE_RUN) coir__worker_halt(rt);
  else if (s->stoppers) coir_runtime_halt(rt);
  else return false;
  return true;
}

static bool look_and_act(struct coir_runtime *rt) {
  const struct coir_config *c = &rt->config;
  struct scene s;
  if (!is_deadlock(rt, &s)) {
    if (s.fails_by_threads) coir__monitor_rouse(rt);
    return false;
  }
  if (atm_load_acq(&rt->deadlocked)) return give_up(rt, &s);
  if (is_known(rt, &s)) return false;
  atm_store_rlx(&rt->deadlock_sum, s.sum);
  atm_store_rlx(&rt->deadlock_threads, s.sleepers);
  if (c->on_deadlock && c->on_deadlock(rt, c->on_deadlock_arg)) return true;
  if (c->deadlock == COIR_DEADLOCK_IGNORE) return c->on_deadlock != NULL; /* whom it may have woken is looked for */
  report(rt, &s);
  if (c->deadlock == COIR_DEADLOCK_ABORT) abort();
  if (s.fibers == 0) return false;
  atm_store_rel(&rt->deadlocked, 1);
  coir__runtime_cancel_all(rt);
  return true;
}

bool coir__deadlock_look(struct coir_runtime *rt) {
  if (!is_wanted(rt)) return false;
  bool acted = false;
  atm_store_rlx(&rt->deadlock_asked, 1);
  while (!acted) {
    /* Whoever cannot have the lock has asked before; whoever gives it back looks then whether somebody has. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!atm_load_rlx(&rt->deadlock_asked) || !coir__lock_try(&rt->deadlock_lock)) break;
    atm_store_rlx(&rt->deadlock_asked, 0);
    acted = look_and_act(rt);
    coir__unlock(&rt->deadlock_lock);
  }
  return acted;
}
