/* Who looks for work, and who sleeps.
 *
 * Goal: ready fibers and sleeping workers do not coexist for long; sleeping workers cost nothing; announcing work
 * costs a worker that is not alone a load, and a system call only when it helps.
 * Why it is hard: a worker that makes
 * a fiber ready must not miss one that is just going to sleep, yet cannot afford a fence per fiber; and one that
 * wakes a sleeper per fiber has a storm of sleepers that find nothing.
 *
 * Design. idle_mask has a bit for every worker that sleeps or is about to; searching counts those that look for work.
 *   announce  publish the fiber; light fence; if somebody sleeps and nobody searches: count one as searching on its
 *             behalf, take its bit, and wake it. While somebody searches nobody else is woken.
 *   search    try to steal from all others, twice. Who finds something and was the last to search looks whether there
 *             is more, and if so wakes the next: one wake begets the next.
 *   sleep     set the bit; stop searching; heavy fence; look at everything once more; if there is nothing, sleep in
 *             the poller.
 * The announcer publishes before it looks at the bit, the sleeper sets its bit before it looks at the queues, and the
 * two fences are a pair: at least one of them sees the other. An announcer that leaves it to a searcher relies on
 * that one's own last look, before it sleeps, or when it stops searching with something found.
 *
 * The heavy fence is dear where other threads of the process run: 0.7 us on some machines, 17 us on virtual ones that
 * have to leave the guest for an interrupt. So the first sleep after some work is brief and does without: what it
 * misses for want of the fence the monitor sees, each millisecond, or it finds it itself when its 5 ms are over. Only
 * who has found nothing then executes the fence, and sleeps deeply, without limit. On a busy server most sleeps end
 * before that. A brief sleep is not shorter than a tick of the system's clock, since then its timer has to be set in
 * the hardware: 8 us more for each sleep and wake on a virtual machine, where a wake is 2.
 *
 * Lone fibers. A fiber that is alone in a queue, or in a next slot, will mostly be run by its owner in no time:
 * moving it would cost more than it takes. So thieves leave it, unless the owner has not dispatched anything since
 * they last looked. (Work without a fiber is announced all the same, every 50 us.) One idle worker is the watcher: it
 * sleeps by the clock (5 ms, then 10), and looks each time, and when the monitor says that somebody is stuck. While
 * there is a watcher, lone fibers are not announced. When all were idle for the whole of its longest sleep it
 * retires, so an idle runtime does not wake at all. Who begins to run, finds no watcher, and knows somebody who
 * sleeps deeply, wakes one; who sleeps briefly will take the watch by itself.
 *
 * Paused fibers (preempt.c) wait in a lane from which workers with pinned fibers take nothing. So while there is one,
 * who is woken is somebody that may take it, if such a one sleeps; and who may not, and gives up searching, or ends it,
 * wakes such a one: whoever paused the fiber may have relied on that search.
 *
 * Spinning. To put a worker to sleep and to wake it costs microseconds, on virtual machines tens. Where two workers
 * send each other work all the time, that is all they do. So a worker whose last sleeps were ended soon by what
 * another sent to it (its inbox, not its poller) spins for a moment before the next one, without announcing that it
 * is idle; each time that nothing comes counts against doing so again. The same for what threads outside send (the
 * lane).
 *
 * Shared pollers. With coir_config.pollers there are fewer pollers than workers, and each has a thread of its own. To
 * have that thread sleep in the poller is the obvious way, and a slow one: every event costs a wake of the thread,
 * and then one of a worker, both across CPUs. So workers look at their poller as ever: awake, now and then; asleep,
 * one of them sits in it (the seat), and the others sleep on their futex. The thread stands in for them: it naps for
 * 1 to 10 ms, and looks at the poller only when nobody else has and nobody sits there, because all compute. When all
 * workers sleep it rests, until one has something to run.
 *
 * Rejected: a wake per ready fiber (storm); spinning before every sleep (takes the CPU from whoever will bring the
 * work, on small machines); announcing each use of the next slot (Tokio measured 30 % loss on message passing).
 *
 * I1: searching == workers with worker.searching set, plus those that were chosen and have not noticed yet.
 * I2: a bit of idle_mask is cleared by its worker, or by the one announcer that wakes it; who clears it knows.
 * I3: watching is 1 while exactly one worker is the watcher, awake or asleep; it looks at all queues at least every
 *     WATCH_MAX. It becomes 0 before that worker runs a fiber, and before the last look of one that retires.
 * I4: somebody watches, or nobody sleeps deeply, or nobody runs (but for moments in which one of them is on its way
 *     to change it).
 * Bounds: half of the busy workers search; STEAL_ROUNDS rounds; watch from 5 to 10 ms. */
#include "internal.h"

#define STEAL_ROUNDS 2
#define FUTILE_MAX 2
#define BRIEF COIR_MS(5)
#define ANNOUNCE_NS COIR_US(50)
#define SHORTLY COIR_US(50)
#define SPIN_NS COIR_US(20)
#define SPIN_SOON COIR_US(200) /* a sleep that ended sooner should have been a spin */
#define CREDIT_SPINS 2          /* from this much credit on a worker spins */
#define CREDIT_MAX 8
#define CREDIT_LOSS 2
#define COOL_SLEEP COIR_MS(2) /* while stacks are warm that nobody may want: the loop sees to them in between */
#define FENCE_FROM COIR_MS(6) /* shorter sleeps do without the heavy fence */
#define WATCH_MIN COIR_MS(5)
#define WATCH_MAX COIR_MS(10)
#define NAP_MIN COIR_MS(1)
#define NAP_MAX COIR_MS(10)

static inline int64_t sooner(int64_t a, int64_t b) { return a < b ? a : b; }

static inline uint64_t bit_of(const struct coir__worker *w) { return UINT64_C(1) << w->index; }

static inline uint64_t everybody(const struct coir_runtime *rt) {
  return rt->worker_count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << rt->worker_count) - 1;
}

/* Ends the sleep of this worker, or its next one. */
static void rouse(struct coir__worker *w) {
  if (w->rt->poller_count == 0) {
    coir__poller_wake(w->poller);
    return;
  }
  switch (atm_xchg_sc(&w->sleeping, COIR__SLEEPING_ROUSED)) {
  case COIR__SLEEPING_FUTEX: coir__os_futex_wake(&w->sleeping, 1); break;
  /* Relaxed: written before what the exchange has read. If it sits elsewhere by now, it has woken since. */
  case COIR__SLEEPING_SEAT: coir__poller_wake(atm_load_rlx(&w->seat)->poller); break;
  default: break;
  }
}

/* While there is something in the paused lane: the bit of one of them that may take it (worker.c). Else 0. */
static uint64_t taker_of(struct coir_runtime *rt, uint64_t mask) {
  if (COIR_LIKELY(!atm_load_rlx(&rt->lanes[COIR__LANE_PAUSED].count))) return 0;
  while (mask && atm_load_rlx(&rt->workers[__builtin_ctzll(mask)]->has_pinned)) mask &= mask - 1;
  return mask & -mask;
}

/* Wakes one sleeper to search, unless somebody searches. Not one of `except`: the caller, whose own bit is still set
 * while it delivers the events that ended its sleep. */
static void wake_one(struct coir_runtime *rt, uint64_t except) {
  for (;;) {
    uint32_t none = 0;
    if (atm_load_sc(&rt->searching) != 0 || !atm_cas_sc(&rt->searching, &none, 1)) return;
    for (uint64_t mask; (mask = atm_load_sc(&rt->idle_mask) & ~except) != 0;) {
      uint64_t taker = taker_of(rt, mask), bit = taker ? taker : mask & -mask;
      if (!(atm_and_sc(&rt->idle_mask, ~bit) & bit)) continue; /* it woke by itself */
      rouse(rt->workers[__builtin_ctzll(bit)]);
      return;
    }
    /* Nobody to wake. Meanwhile another announcer may have relied on our count, for a worker that went to sleep. */
    atm_sub_sc(&rt->searching, 1);
    if ((atm_load_sc(&rt->idle_mask) & ~except) == 0) return;
  }
}

static bool steal_is_on(struct coir_runtime *rt) {
  if (!atm_load_rlx(&rt->tuned.steal)) return false;
  uint64_t least = (uint64_t)atm_load_rlx(&rt->tuned.steal_min_live);
  return least == 0 || coir__live(rt) >= least;
}

/* Whether taking half of what this worker has is likely to save more time than the heavy fence costs, at the pace of
 * its last round. Jobs are: the oldest is mostly the root of many. */
static bool is_worth_it(const struct coir__worker *victim) {
  if (atm_load_rlx(&victim->q.bottom) != atm_load_rlx(&victim->q.top)) return true;
  uint64_t saved_ns = coir__runq_length(victim) / 2 * atm_load_rlx(&victim->pace_ns);
  return saved_ns >= 2 * (uint64_t)atm_load_rlx(&victim->rt->fence_ns);
}

/* A job or a side of a fork that is alone in the deque is mostly run by its owner, as a lone fiber is; but it may
 * also be half of all that there is to do. So one is announced now and then. */
static bool is_lone_announced(struct coir__worker *w) {
  if (!coir__runq_has_lean(w)) return false;
  int64_t now = coir__os_now();
  if (now - w->announced_at < ANNOUNCE_NS) return false;
  w->announced_at = now;
  return true;
}

void coir__idle_notify_slow(struct coir__worker *w, bool spawned) {
  struct coir_runtime *rt = w->rt;
  if (!atm_load_rlx(&rt->lanes[1].count) && !atm_load_rlx(&rt->lanes[2].count) &&
      !taker_of(rt, atm_load_rlx(&rt->idle_mask) & ~bit_of(w))) { /* so it is a matter of stealing */
    uint64_t least = (uint64_t)atm_load_rlx(&rt->tuned.steal_min_victim);
    bool few = coir__runq_length(w) < (least < 2 ? 2 : least) || (!spawned && !is_worth_it(w));
    if (few && (least > 1 || atm_load_acq(&rt->watching)) && !is_lone_announced(w)) return;
    if (!steal_is_on(rt)) return;
  }
  wake_one(rt, bit_of(w));
}

/* Often while all sleep, and briefly, without a heavy fence: then nobody sees to what is missed. So the fence is real,
 * as sequentially consistent as the sleeper's store of its bit. */
void coir__idle_notify_outside(struct coir_runtime *rt) {
  atm_fence_sc();
  if (atm_load_rlx(&rt->idle_mask) != 0) wake_one(rt, 0);
}

void coir__idle_wake(struct coir__worker *w) {
  /* Sequentially consistent: attention before the look at the bit; the sleeper sets its bit and then looks at
   * attention. */
  atm_store_sc(&w->attention, 1);
  if (atm_load_sc(&w->rt->idle_mask) & bit_of(w)) rouse(w);
}

void coir__idle_attention(struct coir_runtime *rt) {
  for (int i = 0; i < rt->worker_count; i++) coir__idle_wake(rt->workers[i]);
}

bool coir__idle_search_begin(struct coir__worker *w) {
  if (w->searching) return true;
  struct coir_runtime *rt = w->rt;
  if (rt->worker_count == 1) return false;
  int busy = rt->worker_count - __builtin_popcountll(atm_load_rlx(&rt->idle_mask));
  if ((int)atm_load_rlx(&rt->searching) * 2 >= busy) return false;
  atm_add_sc(&rt->searching, 1);
  w->searching = 1;
  return true;
}

/* May this worker take from that one now? `eager`: also what is hardly worth it. `lone`: also a single fiber. */
static bool may_steal(struct coir__worker *w, struct coir__worker *victim, bool eager, bool lone) {
  struct coir_runtime *rt = w->rt;
  if (COIR_UNLIKELY(atm_load_rlx(&victim->is_unstarted))) return false; /* for a moment: the first is to start first */
  uint64_t least = (uint64_t)atm_load_rlx(&rt->tuned.steal_min_victim);
  uint64_t length = coir__runq_length(victim);
  if (least < 2 && !lone) least = 2;
  if (length >= least) return eager || is_worth_it(victim);
  return lone && least < 2 && coir__runq_has_next(victim);
}

static uint32_t random_next(struct coir__worker *w) {
  uint32_t x = w->rng;
  x ^= x << 13, x ^= x >> 17, x ^= x << 5; /* xorshift32 (Marsaglia, 2003) */
  return w->rng = x;
}

/* One look at everybody, from a random start. With `stale`, lone fibers of workers that have not moved since last
 * time count. */
static struct coir_fiber *steal_round(struct coir__worker *w, bool stale) {
  struct coir_runtime *rt = w->rt;
  uint32_t n = (uint32_t)rt->worker_count, start = random_next(w) % n;
  for (uint32_t i = 0; i < n; i++) {
    struct coir__worker *victim = rt->workers[(start + i) % n];
    if (victim == w) continue;
    uint64_t switches = atm_load_rlx(&victim->counts.switches);
    bool lone = stale && w->seen_switches[victim->index] == switches;
    if (stale) w->seen_switches[victim->index] = switches;
    if (!may_steal(w, victim, stale || w->summoned, lone)) continue;
    atm_bump(&w->counts.steals_attempted, 1);
    struct coir_fiber *f = coir__runq_steal(w, victim, lone);
    if (!f) continue;
    atm_bump(&w->counts.steal_hits, 1);
    return f;
  }
  return NULL;
}

struct coir_fiber *coir__idle_steal(struct coir__worker *w) {
  if (!steal_is_on(w->rt)) return NULL;
  if (w->stale) {
    w->stale = false;
    return steal_round(w, true);
  }
  for (int i = 0; i < STEAL_ROUNDS; i++) {
    struct coir_fiber *f = steal_round(w, false);
    if (f) return f;
  }
  return NULL;
}

enum sight { NOTHING, LONE, WORK };

/* What there is to do for this worker, seen from outside. */
static enum sight look(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  if (atm_load_acq(&w->attention) || atm_load_acq(&rt->phase) == COIR__PHASE_HALT) return WORK;
  int lanes = atm_load_rlx(&w->has_pinned) ? COIR__LANE_PAUSED : COIR__LANES;
  for (int i = 0; i < lanes; i++)
    if (atm_load_acq(&rt->lanes[i].count)) return WORK;
  enum sight sight = NOTHING;
  if (!steal_is_on(rt)) return NOTHING;
  for (int i = 0; i < rt->worker_count; i++) {
    struct coir__worker *victim = rt->workers[i];
    if (victim == w) continue;
    if (may_steal(w, victim, false, false)) return WORK;
    if (may_steal(w, victim, true, true)) sight = LONE;
  }
  return sight;
}

PEEKS void coir__idle_remind(struct coir_runtime *rt, bool is_stuck) {
  uint64_t mask = atm_load_rlx(&rt->idle_mask), taker = taker_of(rt, mask);
  if (!mask || (mask == everybody(rt) && !taker) || atm_load_rlx(&rt->searching)) return;
  enum sight sight = look(rt->workers[__builtin_ctzll(taker ? taker : mask)]);
  if (sight == WORK) wake_one(rt, 0);
  for (; is_stuck && sight != NOTHING && mask; mask &= mask - 1) {
    struct coir__worker *w = rt->workers[__builtin_ctzll(mask)];
    if (PEEK(w->is_watcher)) rouse(w);
  }
}

/* Whether there is something paused that this worker may not take, and does not see when it looks, but a sleeper. */
static bool leaves_paused(struct coir__worker *w) {
  return atm_load_rlx(&w->has_pinned) && taker_of(w->rt, atm_load_sc(&w->rt->idle_mask));
}

/* I4. Sequentially consistent: we have cleared watching, or our bit, and look at deep; who is about to sleep deeply has
 * counted itself, and looks at watching. */
static bool owes_watcher(struct coir_runtime *rt) {
  return !atm_load_sc(&rt->watching) && atm_load_sc(&rt->deep) && atm_load_rlx(&rt->tuned.steal);
}

/* The last one that searched looks whether there is more, and owes a watcher (I4): others may have relied on the
 * search. */
static void search_end(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  w->searching = 0;
  if (atm_sub_sc(&rt->searching, 1) != 1 || atm_load_sc(&rt->idle_mask) == 0) return;
  coir__fence_heavy(); /* pairs with the light fence in coir__idle_notify: who saw us search has published */
  if (owes_watcher(rt) || look(w) == WORK || leaves_paused(w)) wake_one(rt, bit_of(w));
}

static void stop_watching(struct coir__worker *w) {
  w->is_watcher = false;
  atm_store_sc(&w->rt->watching, 0);
}

/* A worker was counted as idle, and has something to run: the threads of shared pollers do not rest any more. */
static void wake_posts(struct coir_runtime *rt) {
  for (int i = 0; i < rt->poller_count; i++) {
    uint32_t bell = COIR__BELL_RESTS;
    struct coir__post *post = &rt->posts[i];
    if (atm_load_sc(&post->bell) == COIR__BELL_RESTS && atm_cas_sc(&post->bell, &bell, COIR__BELL_NAPS))
      coir__os_futex_wake(&post->bell, 1);
  }
}

void coir__idle_end(struct coir__worker *w) {
  bool owes = w->slept || w->is_watcher;
  if (COIR_LIKELY(!owes && !w->searching)) return;
  if (w->rt->poller_count) wake_posts(w->rt);
  coir__monitor_rouse(w->rt);
  w->futile = 0;
  w->slept = w->was_brief = w->was_long = w->retired = w->summoned = false;
  if (w->is_watcher) stop_watching(w);
  if (w->searching) search_end(w);
  if (owes && owes_watcher(w->rt)) wake_one(w->rt, bit_of(w));
}

void coir__idle_quit(struct coir__worker *w) {
  if (w->is_watcher) stop_watching(w);
  if (w->searching) atm_sub_sc(&w->rt->searching, 1);
  w->slept = w->was_brief = w->was_long = w->retired = false;
  w->searching = 0;
}

int coir__idle_poll(struct coir__worker *w, struct coir__poller *p, int64_t deadline) {
  w->polling = true;
  int events = coir__poller_wait(p, deadline);
  w->polling = false;
  atm_bump(&w->counts.polls, 1);
  if (events > 0) atm_bump(&w->counts.io_events, (uint64_t)events);
  return events;
}

static bool take_seat(struct coir__post *post) {
  uint32_t nobody = 0;
  return !atm_load_rlx(&post->is_taken) && atm_cas_sc(&post->is_taken, &nobody, 1);
}

static void leave_seat(struct coir__post *post) {
  atm_store_rlx(&post->looked_at, coir__os_now());
  atm_store_rel(&post->is_taken, 0); /* pairs with the compare-and-swap above: one at a time waits in a poller */
}

/* A shared poller for this worker to sleep in; NULL: others sleep in all that are for it. */
static struct coir__post *find_seat(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  uint32_t n = (uint32_t)rt->poller_count;
  for (uint32_t i = 0; i < (rt->is_partitioned ? 1 : n); i++) {
    struct coir__post *post = &rt->posts[(w->index + i) % n];
    if (take_seat(post)) return post;
  }
  return NULL;
}

/* Sleeps where it can be roused, at most until `deadline`. */
static void sleep_until(struct coir__worker *w, int64_t deadline) {
  atm_bump(&w->counts.sleeps, 1);
  if (w->rt->poller_count == 0) {
    coir__idle_poll(w, w->poller, deadline);
    return;
  }
  struct coir__post *post = find_seat(w);
  uint32_t awake = COIR__SLEEPING_NOT, how = post ? COIR__SLEEPING_SEAT : COIR__SLEEPING_FUTEX;
  if (post) atm_store_rlx(&w->seat, post); /* never NULL again: rouse() may be late */
  if (!atm_cas_sc(&w->sleeping, &awake, how)) how = COIR__SLEEPING_ROUSED; /* before it fell asleep */
  if (how == COIR__SLEEPING_SEAT) coir__idle_poll(w, post->poller, deadline);
  while (how == COIR__SLEEPING_FUTEX && atm_load_acq(&w->sleeping) == how)
    if (coir__os_futex_wait(&w->sleeping, how, deadline) == -ETIMEDOUT) break;
  atm_xchg_sc(&w->sleeping, COIR__SLEEPING_NOT);
  if (post) leave_seat(post);
}

/* ---- The threads of shared pollers ----------------------------------------------------------------------------- */

/* Until a worker runs something. */
static void rest(struct coir__post *post) {
  struct coir_runtime *rt = post->rt;
  uint32_t bell = COIR__BELL_NAPS;
  if (!atm_cas_sc(&post->bell, &bell, COIR__BELL_RESTS)) return;
  /* Sequentially consistent: the bell before the look. A worker clears its bit and then looks at the bell
   * (wake_posts). */
  if (atm_load_sc(&rt->idle_mask) == everybody(rt) && atm_load_rlx(&post->is_taken))
    while (atm_load_acq(&post->bell) == COIR__BELL_RESTS)
      coir__os_futex_wait(&post->bell, COIR__BELL_RESTS, COIR_NEVER);
  bell = COIR__BELL_RESTS;
  atm_cas_sc(&post->bell, &bell, COIR__BELL_NAPS);
}

void coir__idle_dismiss(struct coir__post *post) {
  atm_store_sc(&post->bell, COIR__BELL_HALT);
  coir__os_futex_wake(&post->bell, 1);
}

void coir__idle_mind(struct coir__post *post) {
  struct coir_runtime *rt = post->rt;
  struct coir__thread *t = coir__thread_get();
  COIR_CHECK(t, "no memory for the record of a thread");
  t->post = post;
  int64_t nap = NAP_MIN;
  while (atm_load_acq(&post->bell) != COIR__BELL_HALT) {
    if (nap >= NAP_MAX && atm_load_sc(&rt->idle_mask) == everybody(rt)) {
      rest(post);
      nap = NAP_MIN;
    }
    int64_t now = coir__os_now();
    coir__os_futex_wait(&post->bell, COIR__BELL_NAPS, now + nap);
    bool others = atm_load_rlx(&post->is_taken) || atm_load_rlx(&post->looked_at) > now;
    if (!others && coir__poller_is_used(post->poller)) {
      int events = coir__poller_wait(post->poller, 0);
      atm_add_rlx(&rt->polls, 1);
      if (events > 0) atm_add_rlx(&rt->io_events, (uint64_t)events);
    }
    nap = others ? sooner(2 * nap, NAP_MAX) : NAP_MIN;
  }
  t->post = NULL;
}

static bool can_watch(struct coir_runtime *rt) { return rt->worker_count > 1 && atm_load_rlx(&rt->tuned.steal); }

/* Whether all were idle for the whole of the watcher's last, longest sleep. */
static bool is_quiet(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  uint64_t total = 0, before = w->seen_total;
  for (int i = 0; i < rt->worker_count; i++) total += atm_load_rlx(&rt->workers[i]->counts.switches);
  w->seen_total = total;
  return total == before && w->watch_ns >= WATCH_MAX && atm_load_sc(&rt->idle_mask) == everybody(rt);
}

/* How long this worker may sleep: the watcher by the clock; others briefly the first time after some work, and then
 * without limit. */
static int64_t plan(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  if (COIR_UNLIKELY(rt->sim != NULL)) return atm_load_rlx(&w->timers.next) == COIR_NEVER ? COIR_NEVER : BRIEF;
  uint32_t nobody = 0;
  if (w->is_watcher) {
    if (!can_watch(rt) || (is_quiet(w) && !coir__stack_has_surplus(rt))) {
      stop_watching(w);
      w->retired = true;
      return COIR_NEVER;
    }
  } else if (can_watch(rt) && !w->retired && atm_cas_sc(&rt->watching, &nobody, 1)) {
    w->is_watcher = true;
    w->watch_ns = WATCH_MIN;
  } else if (coir__stack_has_surplus(rt)) {
    return COOL_SLEEP;
  } else {
    bool first = !w->was_brief, second = !w->was_long && !can_watch(rt);
    w->was_brief = true;
    if (first) return BRIEF;
    w->was_long = true;
    return second ? WATCH_MAX : COIR_NEVER; /* what is looked for before the last sleep (deadlock.c) is not looked for
                                               all the time */
  }
  int64_t span = w->watch_ns;
  w->watch_ns = sooner(2 * span, WATCH_MAX);
  return span;
}

/* The last look before a sleep of that length. True: there is something to do, or somebody to be. */
static bool last_look(struct coir__worker *w, int64_t *span) {
  struct coir_runtime *rt = w->rt;
  if (*span >= FENCE_FROM) coir__fence_heavy(); /* pairs with the light fence in coir__idle_notify */
  else atm_fence_sc(); /* the bit before the looks; pairs with coir__idle_notify_outside and coir__idle_wake */
  enum sight sight = look(w);
  if (atm_load_acq(&w->attention)) return true;
  if (COIR_UNLIKELY(leaves_paused(w))) wake_one(rt, 0); /* us, too: others may rely on our count meanwhile */
  if (sight == WORK) {
    if (w->futile++ < FUTILE_MAX) return true;
    *span = sooner(*span, SHORTLY); /* what we see and cannot get: again in a moment */
  }
  if (*span != COIR_NEVER || !can_watch(rt) || atm_load_sc(&rt->watching)) return false;
  /* Nobody watches, so it is up to us; also if we have just retired and somebody began to run at that moment: it may
   * have seen our watch, but has cleared its bit before (I4; sequentially consistent, as in owes_watcher). */
  if (sight == LONE || atm_load_sc(&rt->idle_mask) != everybody(rt)) w->retired = false;
  return !w->retired;
}

/* Waits a moment for what others may send or leave to be taken. True: something came. It leaves the processor to
 * whoever else may need it for that: all the time where only threads outside are awake, else now and then. Not while
 * somebody wants to know whether a fiber is left, which is for who goes idle to tell. */
static bool spin(struct coir__worker *w) {
  bool outside = atm_load_rlx(&w->rt->idle_mask) == (everybody(w->rt) & ~bit_of(w));
  if (COIR_LIKELY(w->credit < CREDIT_SPINS) || (outside && !w->was_fed)) return false;
  if (atm_load_rlx(&w->rt->watched)) return false;
  int64_t end = coir__os_now() + SPIN_NS;
  do {
    for (int i = 0; i < 32 && !outside && !atm_load_acq(&w->attention); i++) coir__pause();
    if (look(w) == WORK) {
      w->credit = CREDIT_MAX;
      return true;
    }
    coir__os_thread_yield();
  } while (coir__os_now() < end);
  w->credit = w->credit > CREDIT_LOSS ? w->credit - CREDIT_LOSS : 0;
  return false;
}

/* Sleeps, and learns from how it ended: whether somebody has sent something, soon, or has announced it. */
static void sleep_and_learn(struct coir__worker *w, int64_t deadline) {
  int64_t start = coir__os_now();
  sleep_until(w, deadline);
  w->was_fed = atm_load_acq(&w->rt->lanes[1].count) != 0;
  bool is_wanted = w->was_fed || atm_load_acq(&w->attention) || !(atm_load_rlx(&w->rt->idle_mask) & bit_of(w));
  bool sent = is_wanted && coir__os_now() - start < SPIN_SOON;
  if (sent && w->credit < CREDIT_MAX) w->credit++;
  else if (!sent && w->credit > 0) w->credit--;
}

static _Atomic(int) runtimes_asleep; /* (a) whose workers all sleep without limit, or are about to */

int coir__idle_runtimes(void) { return atm_load_sc(&runtimes_asleep); }
void coir__idle_fork_child(void) { atm_store_rlx(&runtimes_asleep, 0); }

/* Sequentially consistent: counted before the look at threads that sleep; those do it the other way round (deadlock.c).
 */
static void deep_begin(struct coir_runtime *rt) {
  atm_add_sc(&rt->deep_begun, 1);
  if (atm_add_sc(&rt->deep, 1) + 1 == (uint32_t)rt->worker_count) atm_add_sc(&runtimes_asleep, 1);
}

static void deep_end(struct coir_runtime *rt) {
  if (atm_sub_sc(&rt->deep, 1) == (uint32_t)rt->worker_count) atm_sub_sc(&runtimes_asleep, 1);
}

void coir__idle_sleep(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  uint64_t bit = bit_of(w);
  if (COIR_UNLIKELY(coir__runq_length(w))) { /* work without a fiber, and no memory for one: later */
    _Atomic(uint32_t) never = 0;
    if (w->searching) search_end(w); /* others are not to rely on it */
    coir__os_futex_wait(&never, 0, coir__os_now() + SHORTLY * 10);
    return;
  }
  if (COIR_LIKELY(!rt->sim) && spin(w)) return;
  atm_or_sc(&rt->idle_mask, bit);
  w->summoned = false;
  if (w->searching) {
    w->searching = 0;
    atm_sub_sc(&rt->searching, 1);
  }
  int64_t span = plan(w);
  bool deep = span == COIR_NEVER;
  if (deep) deep_begin(rt);
  bool stay = last_look(w, &span) || coir__runtime_idle(rt, deep);
  if (!stay) {
    int64_t deadline = atm_load_acq(&w->timers.next);
    if (span != COIR_NEVER) deadline = sooner(deadline, coir__os_now() + span);
    if (COIR_LIKELY(!rt->sim)) sleep_and_learn(w, deadline);
    else coir__sim_rest(w);
    w->slept = true;
    w->stale = w->is_watcher;
  }
  if (deep) deep_end(rt);
  if (stay) { /* announcers that saw us search may have relied on us: search on, and end it properly */
    atm_add_sc(&rt->searching, 1);
    w->searching = 1;
  }
  if (!(atm_and_sc(&rt->idle_mask, ~bit) & bit)) { /* I2: an announcer took the bit and counts us as searching */
    if (w->searching) atm_sub_sc(&rt->searching, 1);
    w->searching = 1;
    w->summoned = true;
    w->retired = false;
  }
}
