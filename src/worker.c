/* The worker's loop: what it does on the thread's own stack, between fibers.
 *
 * Fibers switch to each other without coming here. They come back when there is nothing to pick, when somebody asked
 * for attention, or after tick_limit dispatches: chosen so that the loop looks at clock, poller, inbox and lanes
 * about every LOOK_NS, whatever the fibers do, and reads the clock only then. When they get slower in the middle of a
 * round, the monitor asks for attention. */
#include "runq.h"

#define LOOK_NS COIR_US(100)
#define POLL_NS COIR_US(50)
#define POLL_LATE_NS COIR_MS(1) /* with POLL_ENOUGH in the ring */
#define POLL_ENOUGH 64
#define AGE_NS COIR_MS(10)
#ifdef COIR_HARD
#define TICKS_MAX 3
#define TICKS_MAX_ALONE 3
#else
#define TICKS_MAX 256
#define TICKS_MAX_ALONE 64 /* where no monitor sees that a round lasts longer than it should */
#endif
#define WAKE_BATCH 64

/* From the allocator, not from the system, so that leak checkers see what a worker holds. */
int coir__worker_create(struct coir_runtime *rt, int index) {
  void *memory = coir__alloc(rt, sizeof(struct coir__worker) + COIR__LINE);
  if (!memory) return -ENOMEM;
  struct coir__worker *w = coir__line_up(memory);
  w->memory = memory;
  rt->workers[index] = w;
  w->index = (uint32_t)index;
  w->rt = rt;
  w->rng = 2463534242u + (uint32_t)index * 2654435761u;
  w->tick = w->tick_limit = TICKS_MAX_ALONE;
  coir__timers_init(&w->timers, coir__os_now());
  w->outside = rt->config.sim_seed ? COIR__IN_SIMULATED : 0;
  coir__bias_attach(w);
  return coir__runq_init(w);
}

void coir__worker_destroy(struct coir__worker *w) {
  if (!w) return;
  coir__runq_fini(w);
  coir__timers_fini(&w->timers);
  coir__bias_detach(w);
  coir__free(w->rt, w->memory, sizeof *w + COIR__LINE);
}

void coir__worker_looked(struct coir__worker *w, int64_t now) {
  w->looked_at = now;
  atm_store_rlx(&w->look_tick, (uint32_t)(now >> COIR__LOOK_SHIFT));
}

/* Fibers that take long are looked after sooner: so many dispatches as fit LOOK_NS at the pace of the last round. */
static void set_pace(struct coir__worker *w, int64_t now) {
  int64_t done = (int64_t)w->tick_limit - w->tick, took = now - w->looked_at;
  coir__worker_looked(w, now);
  atm_bump(&w->counts.switches, (uint64_t)done - w->empty_yields);
  w->empty_yields = 0;
  if (done > 0) {
    int64_t pace = took / done;
    atm_store_rlx(&w->pace_ns, pace < COIR_MS(1) ? (uint32_t)pace : (uint32_t)COIR_MS(1));
    int64_t max = w->rt->config.monitor ? TICKS_MAX : TICKS_MAX_ALONE, fit = took > 0 ? LOOK_NS * done / took : max;
    w->tick_limit = (uint32_t)(fit < 1 ? 1 : fit > max ? max : fit);
  }
  w->tick = w->tick_limit;
}

void coir__worker_fire(struct coir__worker *w, int64_t now) {
  struct coir__waiter *wake[WAKE_BATCH];
  int n, fired;
  do {
    n = coir__timers_fire(&w->timers, now, wake, WAKE_BATCH, &fired);
    for (int i = 0; i < n; i++) coir__wake_on(w, wake[i]);
    atm_bump(&w->counts.timers_fired, (uint64_t)fired);
    if (COIR_UNLIKELY(w->timers.alarms != NULL)) coir__alarms_run(&w->timers, w, now); /* only this loop fires them */
  } while (fired == WAKE_BATCH);
}

/* Which poller to look at: its own, that of its partition, or where those are open to all, one after the other. */
static uint32_t poller_of(const struct coir__worker *w) {
  const struct coir_runtime *rt = w->rt;
  if (COIR_LIKELY(rt->poller_count == 0)) return w->index;
  return (rt->is_partitioned ? w->index : w->looks) % (uint32_t)rt->poller_count;
}

/* With much in the ring, what is ready stays with the kernel for a while. Who is fetched early comes to the end of a
 * long queue, and socket, descriptor and stack have left the caches by the time it runs (docs/decisions/014). */
static bool is_poll_due(const struct coir__worker *w, int64_t now) {
  return now - w->polled_at >= (coir__runq_length(w) < POLL_ENOUGH ? POLL_NS : POLL_LATE_NS);
}

static void look_at_poller(struct coir__worker *w, uint32_t i, int64_t now) {
  w->polled_at = now;
  w->looks++;
  atm_store_rlx(&w->rt->posts[i].looked_at, now); /* relaxed: saves the thread of a shared poller a look */
  coir__idle_poll(w, w->rt->pollers[i], 0);
}

/* Fork-join work makes more of itself, and runs depth first: as long as it does, the ring, and what lies at the deque's
 * other end, need a turn of their own. The latter is the root of much, each time with a stack of its own: so seldom. */
static struct coir_fiber *choose_aged(struct coir__worker *w) {
  if (COIR_LIKELY(!w->extra) || w->rounds % 16) return NULL; /* in these rounds high priority waits */
  bool is_due = w->looked_at - w->aged_at >= AGE_NS;
  if (is_due) w->aged_at = w->looked_at;
  return coir__runq_pop_aged(w, is_due);
}

/* High before own work before low before those that have been preempted; nobody starves: of these one runs each
 * quantum, every 8th round passes over high, every other round (and every other of those) takes one of the normal
 * lane before own work, and every 64th takes one of low first. */
static struct coir_fiber *choose(struct coir__worker *w) {
  struct coir_fiber *f = NULL;
  uint32_t round = ++w->rounds;
  bool high_last = round % 8 == 0;
  bool may_take_hog = !atm_load_rlx(&w->has_pinned); /* it would get their thread */
  bool is_hogs_turn = may_take_hog && w->looked_at - w->hog_at >= COIR_US(w->rt->config.quantum_us);
  if (is_hogs_turn) f = coir__lane_get(w, COIR__LANE_PAUSED);
  if (!f && round % 64 == 0) f = coir__lane_get(w, 2);
  if (!f && !high_last) f = coir__lane_get(w, 0);
  /* More of high: come back after this one. Relaxed: for ourselves. */
  if (atm_load_rlx(&w->rt->lanes[0].count)) atm_store_rlx(&w->attention, 1);
  if (!f && (round % 2 || round % 16 == 8)) f = coir__hard_pass_over(w, coir__lane_get(w, 1));
  if (!f) f = choose_aged(w);
  if (!f) f = coir__runq_pop(w);
  for (int i = 0; !f && i < COIR__LANE_PAUSED; i++) {
    int lane = i < 2 ? i ^ high_last : i;
    f = coir__lane_get(w, lane);
    if (lane == 1) f = coir__hard_pass_over(w, f);
  }
  return f || !may_take_hog ? f : coir__lane_get(w, COIR__LANE_PAUSED);
}

static struct coir_fiber *look_around(struct coir__worker *w) {
  int64_t now = coir__os_now();
  set_pace(w, now);
  coir__inbox_take(w);
  if (atm_load_rlx(&w->timers.next) <= now) coir__worker_fire(w, now);
  uint32_t poller = poller_of(w);
  bool polls = coir__poller_is_used(w->rt->pollers[poller]);
  if (polls && is_poll_due(w, now)) look_at_poller(w, poller, now);
  if (COIR_UNLIKELY(now >= atm_load_rlx(&w->rt->cool_at))) coir__stack_cool(w->rt, now);
  if (COIR_UNLIKELY(atm_load_rlx(&w->rt->tuned.rebalance))) coir__balance(w, now);
  struct coir_fiber *f = choose(w);
  if (!f && polls && w->polled_at != now) {
    look_at_poller(w, poller, now);
    f = choose(w);
  }
  return f;
}

/* The monitor sees the thread from the first: in what it calls here it may wait for what a paused fiber holds. */
static void adopt_thread(struct coir__worker *w, struct coir__thread *t) {
  coir__worker_looked(w, coir__os_now());
  atm_store_rel(&w->thread, t);
#if defined(COIR_TRACE)
  coir__trace_begin(w);
#endif
  coir__carry_tell(w, t);
  coir__carry_begin(w, t);
}

bool coir__worker_loop(struct coir__worker *w, struct coir__thread *t) {
  struct coir_runtime *rt = w->rt;
  const struct coir__worker *told = w;
  adopt_thread(w, t);
  coir__worker_looked(w, coir__os_now()); /* again: the first round begins here */
  for (;;) {
    if (COIR_UNLIKELY(w != told)) coir__carry_tell(told = w, t); /* a fiber was paused, and has brought another one */
    /* Exchange: what was done before attention was set is seen below, and the phase first of all: with attention gone,
     * nothing else would keep a round of fibers from running. Pairs with coir__idle_wake. */
    if (atm_load_rlx(&w->attention)) atm_xchg_sc(&w->attention, 0);
    if (atm_load_acq(&rt->phase) == COIR__PHASE_HALT) break;
    struct coir_fiber *f = COIR_LIKELY(!rt->sim) ? look_around(w) : coir__sim_next(w);
    /* With something in its own deque there is no memory for fibers, and none for what others have. */
    if (!f && !coir__runq_length(w) && coir__idle_search_begin(w)) f = coir__idle_steal(w);
    if (!f) {
      coir__idle_sleep(w);
      continue;
    }
    coir__idle_end(w);
    do {
      w->handed = NULL;
      w = coir__run_fiber(w, f);
    } while (w && (f = w->handed) != NULL);
    if (!w) return false;
  }
  coir__idle_quit(w);
  if (rt->sim) coir__sim_over(w);
  if (w->spare) coir__stack_give(w, w->spare);
  w->spare = NULL;
  coir__stack_flush(w);
  coir__switch_flush(w);
  coir__carry_end(w, t);
  return true;
}

void coir__worker_halt(struct coir_runtime *rt) {
  atm_store_sc(&rt->phase, COIR__PHASE_HALT);
  coir__idle_attention(rt);
  coir__carry_halt(rt);
  coir__monitor_dismiss(rt);
  for (int i = 0; i < rt->poller_count; i++) coir__idle_dismiss(&rt->posts[i]);
}
