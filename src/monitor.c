/* The monitor: a thread that sees to it that no fiber holds a worker up.
 *
 * Goal: what is ready runs soon, whatever other fibers do to their threads; and where all is well this costs nothing
 * that could be measured, on a machine that is idle nothing at all.
 *
 * Design. It naps, and looks at all workers each time. A worker that has dispatched nothing since the last look is
 * stuck in a fiber: since it looked around last, or since the monitor saw it otherwise, whichever is later. Whether
 * that one is blocked or computes tells the processor time of its thread, which stands still or not; a thread that
 * only waits for a processor counts as one that computes. When the bound for the one or the other has passed, and
 * there is something that the worker could do instead, the worker is taken away (carry.c), or the fiber is paused
 * (preempt.c). So a worker with nothing else to do stays.
 *
 * It naps for a millisecond while somebody runs, and so long as a bound still lasts when it is shorter. When all are
 * idle it naps for longer, and when nobody has run anything for a while it rests until a worker that goes to work
 * wakes it. A worker that serves a request now and then so pays for that seldom.
 *
 * The monitor itself must not wait for anything that a stuck or paused fiber might hold, memory's locks above all. So
 * it makes no threads, and calls nobody: a helper does, which it asks. There is always one spare thread ahead, as far
 * as that goes.
 *
 * Rejected: to look at the state of every thread in /proc each time (10 us a look, where the clock is 0.3); a timer
 * and a signal per worker (signals end sleeps of the program).
 *
 * Sources: the monitor of Go's runtime (sysmon, Vyukov, 2012); seastar's detector of stalls tells, but cannot help. */
#include "internal.h"

#define MONITOR_NAP COIR_MS(1)
#define MONITOR_NAP_MAX COIR_MS(2) /* while all are idle, and have not been so for long */
#define MONITOR_QUIET 8            /* such naps, in which nobody runs anything, before it rests */
#define MONITOR_PAUSE COIR_MS(10)  /* between looks for a deadlock while it rests: doubled each time */
#define MONITOR_PAUSE_MAX COIR_SEC(3) /* then it looks no more */
#define MONITOR_AGAIN COIR_US(100) /* it was inside, or its clock has to be read once more */
#define MONITOR_TRIES 16
#define LOOK_LATE COIR_US(500)     /* since a worker that runs fibers has looked around */
#define STILL_PARTS 8 /* blocked: has used less than this part of the time */

#define ASKS_MAX 50     /* looks at which a stuck worker cannot be had, or no thread for it, before that is told */
#define JAMMED_NS COIR_MS(20) /* what should be over in a moment is not: who is paused may hold what it waits for */
#define JAMS 16               /* and so many looks: the monitor may have been late itself */
#define JAM_RUNS COIR_US(100) /* who waits does not run for so long */
#define TURN_LATE (3 * JAMMED_NS) /* one that has not noticed its turn by then loses it */
#define PARK_NS COIR_MS(1)
#define STALLS_KEPT 64 /* that nobody has been told of yet; further ones are only counted */

/* What somebody is to be told. */
struct told {
  struct coir_stall stall; /* but for the name, and the frames */
  char name[COIR__NAME_MAX];
  const struct coir_fiber *fiber;
  struct coir__thread *thread; /* on which it is, or was */
};

struct coir__stalls {
  struct coir__backtrace *backtrace; /* the helper's */
  struct coir__lock lock;
  uint32_t first, last; /* (l) */
  struct told told[STALLS_KEPT]; /* (l) */
};

#ifdef COIR_HARD
#define TAKES_ALWAYS true
#else
#define TAKES_ALWAYS false
#endif

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t bound(int us) { return COIR_US(TAKES_ALWAYS ? at_most(us, 50) : us); }

/* What a look found. */
struct monitor_look {
  struct coir_runtime *rt;
  int64_t now, nap; /* until the next look */
  bool is_busy;     /* somebody runs */
  bool is_helpless; /* a worker is blocked, and cannot be taken away */
  bool is_stuck;    /* a worker that has something to run does not come to it */
};

static void note_length(struct coir_runtime *rt, int64_t ns) {
  if (ns > atm_load_rlx(&rt->longest_stall_ns)) atm_store_rlx(&rt->longest_stall_ns, ns);
}

/* ---- What it sees ---------------------------------------------------------------------------------------------- */

static void unjam(struct coir__watch *seen) {
  seen->jams = 0;
  seen->is_helpless = false;
}

/* Whether the worker stands where it stood at the last look. Owners write these as they like. */
static PEEKS bool is_same(struct coir__worker *w, int64_t now) {
  struct coir__watch *seen = &w->watch, is = *seen;
  is.current = PEEK(w->current);
  is.tick = PEEK(w->tick);
  is.looked_at = PEEK(w->looked_at);
  if (is.current == seen->current && is.tick == seen->tick && is.looked_at == seen->looked_at) return true;
  if (seen->is_told) note_length(w->rt, now - seen->since);
  is.since = at_most(at_least(is.looked_at, seen->at), now);
  is.is_told = false;
  is.asks = 0;
  unjam(&is);
  *seen = is;
  return false;
}

PEEKS bool coir__monitor_sees(const struct coir__worker *w) {
  const struct coir__watch *seen = &w->watch;
  return PEEK(w->current) == seen->current && PEEK(w->tick) == seen->tick && PEEK(w->looked_at) == seen->looked_at;
}

/* Reads the clock of the worker's thread, and finds out since when it stands still. One that is found in another fiber
 * than before is taken to have run until then: if it stands still, it is from when its clock says that it ran last. */
static void look_at_clock(struct coir__worker *w, struct coir__thread *t, bool same, int64_t now) {
  struct coir__watch *seen = &w->watch;
  int64_t cpu = coir__os_thread_cpu(atm_load_rlx(&t->tid)), used = cpu - seen->cpu;
  bool is_known = seen->cpu_thread == t && cpu >= 0 && seen->cpu >= 0;
  if (!is_known) seen->ran_until = now;
  else if (!same) seen->ran_until = at_most(at_least(seen->since, seen->cpu_at + used), now);
  else if (used * STILL_PARTS > now - seen->cpu_at) seen->ran_until = now;
  seen->is_still = is_known && same && seen->ran_until < now;
  seen->cpu_thread = t;
  seen->cpu = cpu;
  seen->cpu_at = now;
}

/* All others are at work, and one of them has more than it does just now. */
static bool could_steal(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  if (atm_load_rlx(&rt->idle_mask) || !atm_load_rlx(&rt->tuned.steal)) return false;
  for (int i = 0; i < rt->worker_count; i++)
    if (rt->workers[i] != w && coir__runq_length(rt->workers[i]) >= 2) return true;
  return false;
}

/* Whether the worker could do something else: now, or before the next look. */
static PEEKS bool has_prospects(struct coir__worker *w, int64_t now) {
  struct coir_runtime *rt = w->rt;
  if (TAKES_ALWAYS) return true;
  if (coir__runq_length(w) || coir__runq_has_next(w) || PEEK(w->bound.count) || atm_load_rlx(&w->inbox)) return true;
  for (int i = 0; i < COIR__LANES; i++)
    if (atm_load_rlx(&rt->lanes[i].count)) return true;
  return atm_load_rlx(&w->attention) == 1 || atm_load_rlx(&w->timers.next) <= now + MONITOR_NAP ||
         coir__poller_is_used(w->poller) || could_steal(w);
}

/* Whether it could do something else now, rather than soon, beside those that are paused. */
static PEEKS bool is_awaited(struct coir__worker *w, int64_t now) {
  const struct coir_runtime *rt = w->rt;
  if (coir__runq_length(w) || coir__runq_has_next(w) || PEEK(w->bound.count) || atm_load_rlx(&w->inbox)) return true;
  for (int i = 0; i < COIR__LANE_PAUSED; i++)
    if (atm_load_rlx(&rt->lanes[i].count)) return true;
  if (atm_load_rlx(&w->attention) == 1 || atm_load_rlx(&w->timers.next) <= now) return true;
  return coir__poller_is_used(w->poller) && coir__poller_is_ready(w->poller);
}

/* A worker that goes from fibers which are ready for a moment to one that computes, and back, gives that one a quantum
 * each time. So the latter runs up a debt, as long as it has more of the worker than the others; whoever has three
 * quarters of a quantum of it is paused at once when something else is ready. */
static PEEKS bool is_in_debt(struct coir__worker *w, bool same, int64_t now) {
  struct coir__watch *seen = &w->watch;
  int64_t quantum = COIR_US(w->rt->config.quantum_us), took = now - seen->at;
  bool hogs = same && seen->current && (PEEK(seen->current->b.more) & COIR__MORE_PREEMPT);
  seen->debt = at_least(at_most(hogs ? seen->debt + took : seen->debt - took, quantum), 0);
  return hogs && seen->debt >= quantum / 4 * 3 && is_awaited(w, now);
}

/* ---- What it does ---------------------------------------------------------------------------------------------- */

/* Asks the helper for something. */
static void ask(struct coir_runtime *rt) {
  atm_add_sc(&rt->helper_bell, 1);
  coir__os_futex_wake(&rt->helper_bell, 1);
}

static void want_spare(struct coir_runtime *rt) {
  if (atm_load_rlx(&rt->spare_wanted)) return;
  atm_store_sc(&rt->spare_wanted, 1);
  ask(rt);
}

/* Once when the worker is found to be stuck; and once more when it is taken away later. The fiber may have ended
 * meanwhile, but its descriptor stays. */
static void report_stall(struct coir__worker *w, const struct coir_fiber *f, struct told *told) {
  struct coir_runtime *rt = w->rt;
  struct coir__stalls *s = rt->stall_ring;
  bool is_over = told->stall.is_handed_off, was_told = w->watch.is_told;
  if (was_told && !is_over) return;
  w->watch.is_told = !is_over;
  if (!was_told) atm_bump(&rt->stalls, 1);
  note_length(rt, told->stall.ns);
  if (!s) return;
  coir__name_copy(f, told->name);
  coir__lock(&s->lock);
  if (s->last - s->first < STALLS_KEPT) s->told[s->last++ % STALLS_KEPT] = *told;
  coir__unlock(&s->lock);
  ask(rt);
}

/* Each time costs a fence, and waking the spare: not when the worker has gone on meanwhile. */
static enum coir__taken try_to_take(struct coir__worker *w, bool pauses, int64_t now) {
  enum coir__taken taken = COIR__TAKEN_INSIDE;
  for (int i = 0; i < MONITOR_TRIES && taken == COIR__TAKEN_INSIDE && coir__monitor_sees(w); i++)
    taken = coir__carry_take(w, pauses, now);
  return taken;
}

/* Whether those that are paused get their turns: some worker that may take them is not stuck itself. */
static bool has_moving_taker(const struct coir_runtime *rt, int64_t now) {
  int64_t limit = bound(rt->config.quantum_us) + JAMMED_NS;
  for (int i = 0; i < rt->worker_count; i++) {
    const struct coir__worker *w = rt->workers[i];
    bool is_idle = atm_load_rlx(&rt->idle_mask) >> i & 1;
    bool moves = is_idle || !coir__monitor_sees(w) || now - w->watch.since <= limit; /* its look may be still to come */
    if (moves && !atm_load_rlx(&w->has_pinned)) return true;
  }
  return false;
}

/* It is stuck, and cannot be taken away. It may be that what it waits for is held by one that is paused and has no
 * turns. On a busy machine each may wait for a moment without that; and a monitor that was late has seen nothing in
 * between. `waits`: it waits, and so does not run. True: the valve has been opened for it. */
static bool jam(struct coir__worker *w, bool waits, int64_t now) {
  struct coir__watch *seen = &w->watch;
  if (seen->is_unsure) return false;
  if (waits && seen->cpu - seen->jam_cpu > JAM_RUNS) unjam(seen);
  if (seen->jams == 0) {
    seen->jam_since = now;
    seen->jam_cpu = seen->cpu;
  }
  if (++seen->jams < JAMS || now - seen->jam_since < JAMMED_NS || has_moving_taker(w->rt, now)) return false;
  seen->is_helpless = true;
  return coir__preempt_open(w->rt);
}

/* The worker is stuck, for longer than it may be. Returns when to look again. */
static PEEKS int64_t relieve(struct coir__worker *w, bool is_blocked, bool pauses, int64_t now) {
  struct coir__watch *seen = &w->watch;
  const struct coir_fiber *f = seen->current;
  struct told told = {.stall = {.runtime = w->rt, .worker = (int)w->index, .ns = now - seen->since}};
  told.fiber = f;
  told.thread = atm_load_acq(&w->thread);
  told.stall.id = PEEK(f->id);
  told.stall.kind = is_blocked ? COIR_STALL_BLOCKED : COIR_STALL_BUSY;
  enum coir__taken taken = try_to_take(w, pauses, now);
  bool is_coming = coir__carry_may_grow(w->rt) || atm_load_acq(&w->rt->spare_wanted);
  bool is_short = taken == COIR__TAKEN_NOT && !atm_load_rlx(&w->has_pinned) && is_coming;
  /* The next one is ready when it is wanted. */
  if (taken != COIR__TAKEN_INSIDE && coir__carry_may_grow(w->rt)) want_spare(w->rt);
  if (taken != COIR__TAKEN && (is_blocked || is_short) && jam(w, is_blocked, now)) return MONITOR_AGAIN;
  if ((taken == COIR__TAKEN_INSIDE || is_short) && seen->asks++ < ASKS_MAX) return MONITOR_AGAIN;
  told.stall.is_handed_off = taken == COIR__TAKEN;
  told.stall.is_preempted = told.stall.is_handed_off && pauses;
  report_stall(w, f, &told);
  if (told.stall.is_handed_off && !pauses) atm_store_sc(&w->rt->monitor_follows, 1);
  return MONITOR_NAP;
}

/* Its thread has been given a worker, and has not run since: for want of a processor, or because who is to wake it has
 * none. If the worker were taken away now, the fiber would lose a turn that it has not had. */
static PEEKS bool is_turn_unnoticed(struct coir__watch *seen, struct coir__thread *t, int64_t now) {
  bool is_where_it_was = seen->cpu >= 0 && seen->cpu == PEEK(t->cpu_seen);
  if (now - seen->looked_at > TURN_LATE || !(atm_load_acq(&t->is_parked) || is_where_it_was)) return false;
  seen->since = now; /* its quantum begins when it runs */
  coir__thread_wake(t);
  return true;
}

/* How the worker, which is stuck, is to be dealt with. Returns when to look again. */
static PEEKS int64_t look_at_stuck(struct coir__worker *w, struct coir__thread *t, bool is_short, int64_t now) {
  const struct coir_config *c = &w->rt->config;
  struct coir__watch *seen = &w->watch;
  if (is_turn_unnoticed(seen, t, now)) return MONITOR_NAP;
  bool pauses = seen->current && (PEEK(seen->current->b.more) & COIR__MORE_PREEMPT);
  int64_t may = pauses ? at_most(coir__preempt_left(t, seen->current), bound(c->quantum_us)) : bound(c->busy_us);
  int64_t busy_left = is_short ? 0 : may - (now - seen->since);
  int64_t still_left = seen->is_still ? bound(c->blocked_us) - (now - seen->ran_until) : busy_left;
  if (busy_left > 0 && still_left > 0) return at_most(busy_left, still_left);
  if (!has_prospects(w, now)) return MONITOR_NAP;
  int waits = seen->is_still ? coir__os_thread_waits(atm_load_rlx(&t->tid)) : 0; /* and not only for a processor */
  seen->is_unsure = waits < 0;
  if (seen->is_unsure && now - seen->ran_until < bound(c->blocked_us) + JAMMED_NS) return MONITOR_AGAIN;
  bool blocked = waits; /* if nobody can say: a signal may end what it waits for */
  if (blocked ? still_left > 0 : busy_left > 0) return at_most(MONITOR_NAP, blocked ? still_left : busy_left);
  if (!seen->current) {
    if (waits > 0) jam(w, true, now); /* the library itself waits: for memory, it may be */
    return MONITOR_NAP;
  }
  pauses = pauses && !blocked && coir__os_pause_signal_is_ours(c->preempt_signal);
  return relieve(w, blocked, pauses, now);
}

/* A worker that was seen in a fiber for the first time may be stuck there already. */
static int64_t first_nap(const struct coir__worker *w, int64_t now) {
  int64_t left = w->watch.ran_until + bound(w->rt->config.blocked_us) - now;
  return left > MONITOR_AGAIN ? left : MONITOR_AGAIN;
}

static void look_at_worker(struct monitor_look *look, struct coir__worker *w) {
  bool same = is_same(w, look->now);
  struct coir__thread *t = atm_load_acq(&w->thread);
  bool is_short = is_in_debt(w, same, look->now);
  uint32_t jams = w->watch.jams;
  w->watch.at = look->now;
  w->watch.is_unsure = false;
  bool is_idle = atm_load_rlx(&w->rt->idle_mask) >> w->index & 1;
  if (is_idle) unjam(&w->watch);
  if (!t || is_idle) return;
  look->is_busy = true;
#if defined(COIR_TRACE)
  if (same) coir__preempt_let_on(w);
#endif
  /* Its fibers have become slower: it does not count down to its next look at the pace of the last round. */
  uint32_t none = 0;
  if (!same && look->now - w->watch.looked_at > LOOK_LATE) atm_cas_ar(&w->attention, &none, 2);
  look->is_stuck |= same && (coir__runq_length(w) || coir__runq_has_next(w));
  look_at_clock(w, t, same, look->now);
  int64_t nap = same ? look_at_stuck(w, t, is_short, look->now) : first_nap(w, look->now);
  if (w->watch.jams == jams && !w->watch.is_unsure) unjam(&w->watch);
  look->is_helpless |= w->watch.is_helpless && !has_moving_taker(w->rt, look->now);
  look->nap = at_most(look->nap, nap);
}

/* ---- When it looks --------------------------------------------------------------------------------------------- */

/* The shortest time after which something may have to be done. */
static int64_t least_bound(const struct coir_config *c) {
  return at_most(at_most(bound(c->blocked_us), bound(c->busy_us)), bound(c->quantum_us));
}

static uint64_t total_switches(struct coir_runtime *rt) {
  uint64_t total = 0;
  for (int i = 0; i < rt->worker_count; i++) total += atm_load_rlx(&rt->workers[i]->counts.switches);
  return total;
}

static bool all_idle(struct coir_runtime *rt) {
  uint64_t all = rt->worker_count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << rt->worker_count) - 1;
  return atm_load_sc(&rt->idle_mask) == all;
}

struct monitor_quiet {
  uint64_t total; /* switches of all workers */
  int looks;      /* at which that was the same */
};

/* Who looked for a deadlock when the last one went to sleep may have been misled by a thread that was about to end.
 * Returns until when to rest; `pause` grows. */
static int64_t look_for_deadlock(struct coir_runtime *rt, int64_t *pause) {
  enum coir__deadlock_chance chance = *pause > MONITOR_PAUSE_MAX ? COIR__DEADLOCK_NONE : coir__deadlock_chance(rt);
  if (chance == COIR__DEADLOCK_NEAR) coir__idle_wake(rt->workers[0]);
  if (chance != COIR__DEADLOCK_LATER) return COIR_NEVER;
  int64_t until = coir__os_now() + *pause;
  *pause *= 2;
  return until;
}

/* Until a worker goes to work. */
static void monitor_rest(struct coir_runtime *rt) {
  uint32_t bell = COIR__BELL_NAPS;
  if (!atm_cas_sc(&rt->monitor_bell, &bell, COIR__BELL_RESTS)) return;
  int64_t pause = MONITOR_PAUSE, until = look_for_deadlock(rt, &pause);
  /* Sequentially consistent: the bell before the look. A worker clears its bit and then looks at the bell. */
  while (all_idle(rt) && atm_load_acq(&rt->monitor_bell) == COIR__BELL_RESTS)
    if (coir__os_futex_wait(&rt->monitor_bell, COIR__BELL_RESTS, until) == -ETIMEDOUT)
      until = look_for_deadlock(rt, &pause);
  bell = COIR__BELL_RESTS;
  atm_cas_sc(&rt->monitor_bell, &bell, COIR__BELL_NAPS);
}

void coir__monitor_rouse(struct coir_runtime *rt) {
  uint32_t bell = COIR__BELL_RESTS;
  if (atm_load_sc(&rt->monitor_bell) == COIR__BELL_RESTS && atm_cas_sc(&rt->monitor_bell, &bell, COIR__BELL_NAPS))
    coir__os_futex_wake(&rt->monitor_bell, 1);
}

/* All are idle: how long it may nap. Rests before, when that has been so for a while, and it follows nobody. */
static int64_t idle_nap(struct coir_runtime *rt, int64_t nap, struct monitor_quiet *quiet) {
  uint64_t total = total_switches(rt);
  quiet->looks = total == quiet->total ? quiet->looks + 1 : 0;
  quiet->total = total;
  if (quiet->looks < MONITOR_QUIET || atm_load_rlx(&rt->monitor_follows)) return at_most(2 * nap, MONITOR_NAP_MAX);
  monitor_rest(rt);
  quiet->looks = 0;
  return 0;
}

static void monitor_run(struct coir_runtime *rt) {
  int64_t shortest = at_most(MONITOR_NAP, least_bound(&rt->config)), nap = shortest;
  struct monitor_quiet quiet = {.looks = 0};
  while (atm_load_acq(&rt->monitor_bell) != COIR__BELL_HALT) {
    struct monitor_look look = {.rt = rt, .now = coir__os_now(), .nap = shortest};
    for (int i = 0; i < rt->worker_count; i++) look_at_worker(&look, rt->workers[i]);
    coir__idle_remind(rt, look.is_stuck);
    look.is_helpless |= atm_load_rlx(&rt->lanes[COIR__LANE_PAUSED].count) && !coir__preempt_has_takers(rt);
    if (look.is_helpless) coir__preempt_open(rt);
    else coir__preempt_close(rt);
    if (atm_load_rlx(&rt->monitor_follows) && atm_xchg_sc(&rt->monitor_follows, 0) && coir__preempt_follow(rt))
      atm_store_sc(&rt->monitor_follows, 1);
    if (rt->monitor_reminds > 1) rt->monitor_reminds = 1; /* at the next look: give them the time to hear of it */
    else if (rt->monitor_reminds) rt->monitor_reminds = coir__preempt_remind(rt);
    bool is_busy = look.is_busy || rt->monitor_reminds;
    nap = is_busy ? look.nap : idle_nap(rt, at_least(nap, shortest), &quiet);
    coir__os_futex_wait(&rt->monitor_bell, COIR__BELL_NAPS, coir__os_now() + nap);
  }
}

/* ---- The helper ------------------------------------------------------------------------------------------------ */

/* Whether the thread is still in that fiber, as far as one can see. */
static PEEKS bool is_still_in(struct coir__thread *t, const struct told *told) {
  const struct coir__worker *w = atm_load_acq(&t->worker);
  const struct coir_fiber *f = w ? PEEK(w->current) : PEEK(t->away);
  return f == told->fiber && PEEK(f->id) == told->stall.id;
}

/* Copies the stack of the fiber, which stays where it is meanwhile: blocked, paused, or asked to. */
static bool copy_stalled(struct coir__backtrace *b, struct coir_runtime *rt, const struct told *told) {
  struct coir__thread *t = told->thread;
  int tid = atm_load_rlx(&t->tid);
  struct coir__ctx_registers at, then;
  if (!is_still_in(t, told)) return false;
  /* One that computed then may wait for something by now: it is not to be disturbed. */
  if (told->stall.kind == COIR_STALL_BLOCKED || (!told->stall.is_preempted && coir__os_thread_waits(tid) > 0)) {
    bool is_copied = coir__os_thread_where(tid, &at) && coir__backtrace_copy_at(b, told->fiber, &at);
    return is_copied && coir__os_thread_where(tid, &then) && at.pc == then.pc &&
           at.r[COIR__CTX_SP] == then.r[COIR__CTX_SP];
  }
  if (told->stall.is_preempted) {
    _Atomic(uint32_t) never = 0;
    coir__os_futex_wait(&never, 0, coir__os_now() + PARK_NS); /* until it has heard of it */
    if (atm_load_acq(&t->is_parked))
      return coir__backtrace_copy_at(b, told->fiber, &t->stands) && atm_load_acq(&t->is_parked);
  }
  if (coir__os_thread_waits(tid) || !coir__preempt_ask(t, rt->config.preempt_signal)) return false;
  bool is_copied = is_still_in(t, told) && coir__backtrace_copy_at(b, told->fiber, &t->stands);
  return coir__preempt_asked(t) && is_copied;
}

static void tell(struct coir_runtime *rt, struct told *told) {
  struct coir__backtrace *b = rt->stall_ring->backtrace;
  told->stall.name = told->name;
  if (told->thread && copy_stalled(b, rt, told))
    told->stall.frame_count = coir__backtrace_unwind(b, &told->stall.frames);
  rt->config.on_stall(&told->stall, rt->config.on_stall_arg);
}

/* False: there is nothing to tell. */
static bool tell_next(struct coir_runtime *rt) {
  struct coir__stalls *s = rt->stall_ring;
  struct told told;
  coir__lock(&s->lock);
  bool any = s->first != s->last;
  if (any) told = s->told[s->first++ % STALLS_KEPT];
  coir__unlock(&s->lock);
  if (any) tell(rt, &told);
  return any;
}

/* If one is wanted. First of all, since a worker may be waiting for it. */
static void make_spare(struct coir_runtime *rt) {
  if (!atm_load_acq(&rt->spare_wanted)) return;
  if (!coir__carry_has_spare(rt)) coir__carry_spare(rt);
  atm_store_rel(&rt->spare_wanted, 0);
}

static void helper_run(struct coir_runtime *rt) {
  for (;;) {
    uint32_t seen = atm_load_sc(&rt->helper_bell);
    bool is_over = atm_load_acq(&rt->helper_over); /* before the last look */
    do make_spare(rt);
    while (rt->stall_ring && tell_next(rt));
    if (is_over) return;
    coir__os_futex_wait(&rt->helper_bell, seen, COIR_NEVER);
  }
}

static void *helper_thread(void *runtime) {
  struct coir_runtime *rt = runtime;
  coir__runtime_wait_for_go(rt);
  helper_run(rt);
  return NULL;
}

/* ---- Their threads --------------------------------------------------------------------------------------------- */

static void *monitor_thread(void *runtime) {
  struct coir_runtime *rt = runtime;
  coir__runtime_wait_for_go(rt);
  coir__os_thread_prompt();
  monitor_run(rt);
  return NULL;
}

static void end_helper(struct coir_runtime *rt) {
  atm_store_rel(&rt->helper_over, 1); /* nobody asks for anything any more; pairs with the acquire in helper_run() */
  ask(rt);
  pthread_join(rt->helper, NULL);
  coir__os_look_stop();
}

int coir__monitor_create(struct coir_runtime *rt) {
  if (!rt->config.on_stall) return 0;
  int rc = coir__preempt_want(rt); /* by that signal those that compute are asked where */
  if (rc) return rc;
  rt->stall_ring = coir__alloc(rt, sizeof *rt->stall_ring);
  if (rt->stall_ring) rt->stall_ring->backtrace = coir__backtrace_create();
  return rt->stall_ring && rt->stall_ring->backtrace ? 0 : -ENOMEM;
}

void coir__monitor_destroy(struct coir_runtime *rt) {
  if (!rt->stall_ring) return;
  coir__backtrace_destroy(rt->stall_ring->backtrace);
  coir__free(rt, rt->stall_ring, sizeof *rt->stall_ring);
}

int coir__monitor_start(struct coir_runtime *rt) {
  if (!rt->config.monitor) return 0;
  atm_store_rlx(&rt->monitor_bell, COIR__BELL_NAPS);
  atm_store_rlx(&rt->spare_wanted, 0);
  atm_store_rlx(&rt->helper_over, 0);
  rt->monitor_reminds = 0;
  atm_store_rlx(&rt->monitor_follows, 0);
  for (int i = 0; i < rt->worker_count; i++) rt->workers[i]->watch = (struct coir__watch){.current = NULL};
  int rc = coir__os_look_start();
  if (rc) return rc;
  rc = coir__os_thread_start(&rt->helper, "coir-helper", helper_thread, rt);
  if (rc) {
    coir__os_look_stop();
    return rc;
  }
  rc = coir__os_thread_start(&rt->monitor, "coir-monitor", monitor_thread, rt);
  if (!rc) return 0;
  coir__runtime_let_threads_end(rt);
  end_helper(rt);
  return rc;
}

void coir__monitor_dismiss(struct coir_runtime *rt) {
  atm_store_sc(&rt->monitor_bell, COIR__BELL_HALT);
  coir__os_futex_wake(&rt->monitor_bell, 1);
}

void coir__monitor_join(struct coir_runtime *rt) {
  if (!rt->config.monitor) return;
  pthread_join(rt->monitor, NULL);
  end_helper(rt);
}
