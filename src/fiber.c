/* Fibers: spawning, switching, ending, joining.
 *
 * Switching. The fiber that gives up its worker picks the next one and switches straight to it; the thread's own
 * stack runs only when there is nothing to pick, or when it is time to look around (worker.c). What must happen to
 * the former fiber once it is off its stack (queue it, commit its wait, recycle its stack) is noted in worker.prev
 * and worker.after, and done by whoever arrives. The worker travels in a register with the switch, so that arriving
 * asks no thread-local.
 *
 * Ending. A stack is bound when a fiber first runs. A fiber that ends hands its stack, still warm, to the next new
 * fiber: the stack is restarted in place and nothing is switched. So fibers that never wait share one stack.
 * And it hands the worker to the fiber that waited for its end, unless others are to run first.
 *
 * Counting. Each worker counts the fibers that were spawned and that ended on it; nobody adds up until somebody must
 * know. coir__live reads all the ended counts first and the spawned counts after: a fiber is counted as spawned
 * before it can be counted as ended, and both only grow, so if the sums are equal no fiber lived at the moment
 * between the two readings. With nobody left to spawn, none lives after it. A generator that yields counts as ended
 * meanwhile, and as spawned when it is resumed, in counts of their own.
 *
 * Who frees a descriptor: the end of the fiber if it is detached, else whoever joins or detaches it. `ended` is
 * written under exit.lock, and giving that lock back is the last that the end of a fiber does to the descriptor; so
 * who wants to free it takes care that the lock is free (coir_join). */
#include <string.h>

#include "wait.h"

#define STUCK_TICKS 16 /* of COIR__LOOK_SHIFT: 1 ms */
#define VAIN_MAX 128
#define NAP_NS COIR_US(500)

#if defined(COIR_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- Switching ------------------------------------------------------------------------------------------------- */

/* What a switch goes to: a fiber that stopped, a fiber that is new, or the thread's own stack (fiber NULL). In
 * sanitizer builds every switch is announced; their state travels with the stack that stops. */
#if defined(COIR_SANITIZED)
COIR_INLINE void announce(const struct coir__thread *t, struct coir_fiber *to, bool dying, void **fake) {
  (void)t, (void)to, (void)dying, (void)fake;
#if defined(COIR_ASAN)
  const void *low = to ? to->stack->low : t->asan_low;
  size_t bytes = to ? (size_t)(to->stack->top - to->stack->low) : t->asan_bytes;
  __sanitizer_start_switch_fiber(dying ? NULL : fake, low, bytes);
#endif
#if defined(COIR_TSAN)
  coir__os_tsan_switch(to ? to->stack->tsan : t->tsan);
#endif
}
#define ANNOUNCE(t, to, dying, fake) announce(t, to, dying, fake)
#if defined(COIR_ASAN)
#define ARRIVED(fake) __sanitizer_finish_switch_fiber(fake, NULL, NULL)
#else
#define ARRIVED(fake) ((void)(fake))
#endif
#else
#define ANNOUNCE(t, to, dying, fake) ((void)0)
#define ARRIVED(fake) ((void)0)
#endif

void coir__switch_prepare_thread(struct coir__thread *t) {
  (void)t;
#if defined(COIR_ASAN)
  coir__os_stack_bounds(&t->asan_low, &t->asan_bytes);
#endif
#if defined(COIR_TSAN)
  t->tsan = __tsan_get_current_fiber();
#endif
}

static void fiber_main(void *worker);

static void ready_elsewhere(struct coir__worker *to, struct coir_fiber *f) {
  coir__inbox_send(to, f);
  coir__idle_wake(to);
}

/* Queues a fiber that is ready behind the others of its kind. */
static void requeue_special(struct coir__worker *w, struct coir_fiber *f) {
  struct coir_runtime *rt = w->rt;
  uint8_t flags = f->b.flags;
  int8_t priority = f->b.priority; /* once it is queued elsewhere, it may run and be gone */
  if (flags & (COIR__FIBER_BOUND | COIR__FIBER_TARGETED)) {
    coir__runq_push_bound(w, f);
  } else if (flags & COIR__FIBER_LANED) {
    coir__lane_put(rt, f);
    if (priority > 0) coir__idle_attention(rt);
    coir__idle_notify(w, true);
  } else {
    ready_elsewhere(rt->workers[(w->index + 1) % (uint32_t)rt->worker_count], f); /* COIR__FIBER_MIGRATE */
  }
}

static inline void requeue(struct coir__worker *w, struct coir_fiber *f) {
  if (!(f->b.flags & COIR__FIBER_SPECIAL) && coir__hard_migrates(w)) coir__hard_migrate(w, f);
  else if (COIR_LIKELY(!(f->b.flags & COIR__FIBER_SPECIAL))) coir__runq_push(w, f);
  else requeue_special(w, f);
}

/* There is no stack for this new fiber. Other workers may have some: so it goes where they can take it, and out of the
 * way of those that are ready here and have theirs. */
static void __attribute__((noinline)) shelve(struct coir__worker *w, struct coir_fiber *f) {
  if (f->b.flags & COIR__FIBER_SPECIAL) requeue_special(w, f);
  else coir__lane_put(w->rt, f);
  w->in_vain++;
}

/* A worker that gets nothing else for a while leaves the processor to others, for a moment. By the loop: a fiber that
 * is being left has to be off its stack, and queued or parked, before. */
static void nap_if_in_vain(struct coir__worker *w) {
  _Atomic(uint32_t) never = 0;
  if (w->in_vain < VAIN_MAX || atm_load_acq(&w->attention)) return;
  w->in_vain = 0;
  coir__idle_notify(w, true);
  coir__os_futex_wait(&never, 0, coir__os_now() + NAP_NS);
}

#if defined(COIR_TSAN)
/* A context takes ThreadSanitizer about half a millisecond. So the next fibers have it, too; but not for ever, since
 * the calls that a fiber does not return from, such as that of its end, stay in it. */
#define TSAN_LIVES_MAX 500

static void tsan_give_context(struct coir__worker *w, struct coir__stack *s) {
  bool is_kept = w->tsan_kept_count > 0;
  if (is_kept) w->tsan_kept_count--;
  s->tsan = is_kept ? w->tsan_kept[w->tsan_kept_count].context : coir__os_tsan_create();
  s->tsan_lives = is_kept ? w->tsan_kept[w->tsan_kept_count].lives : 0;
}

static void tsan_keep_context(struct coir__worker *w, struct coir__stack *s) {
  if (++s->tsan_lives < TSAN_LIVES_MAX && w->tsan_kept_count < (int)(sizeof w->tsan_kept / sizeof *w->tsan_kept)) {
    w->tsan_kept[w->tsan_kept_count].context = s->tsan;
    w->tsan_kept[w->tsan_kept_count++].lives = s->tsan_lives;
  } else {
    coir__os_tsan_destroy(s->tsan);
  }
  s->tsan = NULL;
}
#endif

void coir__switch_flush(struct coir__worker *w) {
  (void)w;
#if defined(COIR_TSAN) /* which waits at the end of a process for those that it has */
  while (w->tsan_kept_count > 0) coir__os_tsan_destroy(w->tsan_kept[--w->tsan_kept_count].context);
#endif
}

static void recycle(struct coir__worker *w) {
  struct coir__stack *s = w->dead;
#if defined(COIR_TSAN)
  tsan_keep_context(w, s);
#endif
  coir__stack_give(w, s);
}

/* By a fiber that ends on `s`, and leaves it now for good: where the stack rests. In w->spare already now, since nobody
 * but this worker takes it from there, and not before it runs somebody else. Returns what is left to do. */
COIR_INLINE enum coir__after leave_stack(struct coir__worker *w, struct coir__stack *s) {
#if !defined(COIR_SANITIZED) /* a sanitizer is told when it is left */
  bool goes_back = coir__hard_chance(atm_load_rlx(&w->thread), 2);
  if (COIR_LIKELY(!w->spare && !goes_back && s->size_class == w->rt->stack_class)) {
    w->spare = s;
    return COIR__AFTER_NOTHING;
  }
#endif
  w->dead = s;
  return COIR__AFTER_EXIT;
}

/* First thing on every arrival: what is left to do for the fiber that was switched away from. */
COIR_INLINE void arrive(struct coir__worker *w) {
  switch (w->after) {
  case COIR__AFTER_YIELD: requeue(w, w->prev); break;
  case COIR__AFTER_ROTATE: coir__runq_push_after_take(w, w->prev); break;
  case COIR__AFTER_PARK:
#if defined(COIR_TRACE)
    coir__trace_wait(w, w->prev); /* before somebody else can run it */
#endif
    coir__wait_commit(w, w->prev);
    break;
  case COIR__AFTER_EXIT: recycle(w); break;
  default: break;
  }
}

/* Takes what runs next. NULL: nothing, or it is time to look around. */
COIR_INLINE struct coir_fiber *pick(struct coir__worker *w) {
  if (COIR_UNLIKELY(w->tick == 0 || atm_load_rlx(&w->attention))) return NULL;
  struct coir_fiber *f = coir__runq_pop(w);
  if (f) w->tick--;
  return f;
}

/* Binds a stack to a new fiber. False: memory is short. */
COIR_INLINE bool bind_stack(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__stack *s = w->spare;
  if (COIR_LIKELY(s && f->stack_class == s->size_class)) w->spare = NULL;
  else s = coir__stack_take(w, (int)f->stack_class);
  if (COIR_UNLIKELY(!s)) return false;
  atm_show(&f->stack, s);
  /* Release: who finds the class gone finds the stack (inspect.c). */
  atm_show_rel(&f->ran_at, atm_load_rlx(&w->look_tick));
  atm_show(&f->b.worker, (int16_t)w->index);
  s->fiber = f;
  if (!s->is_guarded) f->b.flags |= COIR__FIBER_CANARY;
#if defined(COIR_TSAN)
  tsan_give_context(w, s);
#endif
  return true;
}

/* The loop runs it; and counts it there, which its tick must not do as well. */
static inline void hand_to_loop(struct coir__worker *w, struct coir_fiber *f) {
  w->handed = f;
  if (f) w->empty_yields++;
}

/* Leaves the calling stack, whose context goes to *save, for `f`, or for the thread's own stack when it is NULL.
 * Returns the worker on which the caller goes on. Inlined, as end() is: a dying fiber must not leave by a call. */
COIR_INLINE struct coir__worker *go(struct coir__worker *w, void **save, struct coir_fiber *f, bool dying) {
  void *fake = NULL;
  (void)fake, (void)dying;
#if defined(COIR_TRACE)
  hand_to_loop(w, f);
  f = NULL;
#endif
  if (COIR_LIKELY(f && f->sp)) {
    atm_show(&w->current, f);
    atm_show(&f->ran_at, atm_load_rlx(&w->look_tick));
    ANNOUNCE(atm_load_rlx(&w->thread), f, dying, &fake);
    w = coir__ctx_switch(save, f->sp, w);
  } else if (f && !f->stack && bind_stack(w, f)) {
    atm_show(&w->current, f);
    ANNOUNCE(atm_load_rlx(&w->thread), f, dying, &fake);
    w = coir__ctx_start(save, f->stack->top, fiber_main, w);
  } else {
    if (f && f->stack) hand_to_loop(w, f); /* it is paused */
    else if (f) shelve(w, f);
    atm_show(&w->current, NULL);
    ANNOUNCE(atm_load_rlx(&w->thread), NULL, dying, &fake);
    w = coir__ctx_switch(save, atm_load_rlx(&w->thread)->idle_sp, w);
  }
  ARRIVED(fake);
  return w;
}

COIR_INLINE struct coir__worker *suspend_plain(struct coir__worker *w, struct coir_fiber *next,
                                               enum coir__after after) {
  struct coir_fiber *self = w->current;
  if (COIR_UNLIKELY(self->b.flags & COIR__FIBER_CANARY)) coir__stack_check(self->stack, __builtin_frame_address(0));
  atm_show(&self->b.worker, (int16_t)w->index);
  self->err = *w->errno_location;
  w->prev = self;
  w->after = after;
  w = go(w, &self->sp, next, false);
  arrive(w);
  *w->errno_location = self->err;
  return w;
}

static struct coir__worker *__attribute__((noinline))
suspend_throwing(struct coir__worker *w, struct coir_fiber *next, enum coir__after after) {
  struct coir__thrown thrown = coir__thrown_take(w->thrown);
  w = suspend_plain(w, next, after);
  coir__thrown_give(w->thrown, &thrown);
  return w;
}

/* Suspends the calling fiber in favour of `next`. Returns the worker on which it goes on.
 *
 * Exceptions of C++ go with it: it keeps them on its stack. So nobody who arrives anywhere has to look for others'. */
COIR_INLINE struct coir__worker *suspend(struct coir__worker *w, struct coir_fiber *next, enum coir__after after) {
  if (COIR_UNLIKELY(coir__is_throwing(w->thrown))) return suspend_throwing(w, next, after);
  return suspend_plain(w, next, after);
}

void coir__switch_away(struct coir__worker *w, enum coir__after after) { suspend(w, pick(w), after); }

static int __attribute__((noinline)) yield_slowly(struct coir__worker *w) {
  if (COIR_UNLIKELY(!w)) {
    coir__os_thread_yield();
    return 0;
  }
  struct coir_fiber *next = pick(w);
  if (!next && w->tick && !atm_load_rlx(&w->attention) && !(w->current->b.flags & COIR__FIBER_MIGRATE)) {
    w->tick--; /* who yields alone comes to look around too; that is no dispatch */
    w->empty_yields++;
    return 0;
  }
  suspend(w, next, COIR__AFTER_YIELD);
  return 0;
}

#if defined(COIR_SLOW_SWITCH)
int coir_yield(void) {
  COIR_INSIDE_TO_WAIT(COIR_NEVER);
  return yield_slowly(coir__self());
}
#else
/* The usual case of arrive(), so that the fast path below keeps nothing in registers across a call. */
static struct coir__worker *__attribute__((noinline)) arrive_slowly(struct coir__worker *w) {
  arrive(w);
  return w;
}

/* Where nothing can be taken for granted: also whether light fences are light. */
static int __attribute__((noinline)) yield_anyhow(void) {
  COIR_INSIDE_TO_WAIT(COIR_NEVER);
  return yield_slowly(coir__self());
}

/* The same as yield_slowly, for the case that there is an oldest fiber in the ring and nothing else to see to:
 * written out, because every other call of a program may be this one. About 90 instructions. */
int coir_yield(void) {
  struct coir__thread *t = coir__thread_peek();
  if (COIR_UNLIKELY(!t)) return yield_slowly(NULL);
  uint32_t was = atm_load_rlx(&t->in);
  atm_store_rlx(&t->in, 1);
  atomic_signal_fence(memory_order_seq_cst); /* as in coir__go_in; where fences are real ones `extra` is set */
  struct coir__worker *w = atm_load_acq(&t->worker);
  if (COIR_UNLIKELY(!w || w->extra)) goto slowly; /* leaves the worker as it is, which may not be ours any more */
  uint64_t head;
  uint32_t tick = w->tick;
  struct coir_fiber *self = w->current, *next = coir__runq_oldest(w, &head);
  void *sp;
  if (COIR_UNLIKELY(!next || !tick || !(sp = next->sp) || (self->b.flags & COIR__FIBER_SLOW) ||
                    coir__is_throwing(w->thrown)) ||
      coir__hard_chance(t, 2)) {
    coir__runq_leave(w);
    goto slowly;
  }
  coir__runq_take_oldest(w, head);
  w->tick = tick - 1;
  self->err = *w->errno_location;
  w->prev = self;
  w->after = COIR__AFTER_ROTATE;
  atm_show(&w->current, next);
  atm_show(&next->ran_at, atm_load_rlx(&w->look_tick));
  w = coir__ctx_switch(&self->sp, sp, w);
  if (COIR_LIKELY(w->after == COIR__AFTER_ROTATE)) coir__runq_push_after_take(w, w->prev);
  else w = arrive_slowly(w);
  *w->errno_location = self->err;
  coir__go_out_on(w, was);
  return 0;
slowly:
  coir__go_out(&was);
  return yield_anyhow();
}
#endif

void coir__breathe_now(struct coir_fiber *f) {
  f->b.streak = 0;
  yield_slowly(coir__self());
}

struct coir__worker *coir__run_fiber(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__thread *t = atm_load_rlx(&w->thread);
  void *fake = NULL;
  (void)fake;
  w->prev = NULL;
  w->after = COIR__AFTER_NOTHING;
  if (COIR_UNLIKELY(coir__is_paused(f))) {
    coir__preempt_resume(&w, f);
    return w;
  }
  if (!f->sp && !bind_stack(w, f)) {
    shelve(w, f);
    nap_if_in_vain(w);
    return w;
  }
  w->in_vain = 0;
  atm_bump(&w->counts.switches, 1);
#if defined(COIR_TRACE)
  uint64_t id = f->id; /* when it is back, it may have ended and be gone */
  coir__trace_enter(w, f);
#endif
  atm_show(&w->current, f);
  atm_show(&f->ran_at, atm_load_rlx(&w->look_tick));
  ANNOUNCE(t, f, false, &fake);
  if (f->sp) w = coir__ctx_switch(&t->idle_sp, f->sp, w);
  else w = coir__ctx_start(&t->idle_sp, f->stack->top, fiber_main, w);
  ARRIVED(fake);
  if (COIR_UNLIKELY(!w)) return NULL;
#if defined(COIR_TRACE)
  coir__trace_leave(w, id);
#endif
  arrive(w);
  return w;
}

struct coir__worker *coir__switch_home(struct coir__thread *t, struct coir_fiber *f) {
  void *fake = NULL;
  (void)fake;
  if (COIR_UNLIKELY(f->b.flags & COIR__FIBER_CANARY)) coir__stack_check(f->stack, __builtin_frame_address(0));
  f->err = *t->errno_location;
  struct coir__thrown thrown = coir__thrown_take(t->thrown);
  ANNOUNCE(t, NULL, false, &fake);
  struct coir__worker *w = coir__ctx_switch(&t->away_sp, t->idle_sp, NULL);
  ARRIVED(fake);
  arrive(w);
  *w->errno_location = f->err;
  coir__thrown_give(w->thrown, &thrown);
  return w;
}

/* ---- Ready ----------------------------------------------------------------------------------------------------- */

/* Two workers of the same poller, or all pollers are open to all. */
static inline bool is_same_partition(const struct coir_runtime *rt, int a, int b) {
  return !rt->poller_count || !rt->is_partitioned || a % rt->poller_count == b % rt->poller_count;
}

/* Whether a worker has been at one fiber for a while: nobody can take from its inbox what it does not look at. */
static bool is_stuck(const struct coir_runtime *rt, int worker, uint32_t tick) {
  const struct coir__worker *w = rt->workers[worker];
  if (atm_load_rlx(&rt->idle_mask) >> worker & 1) return false;
  int32_t ago = (int32_t)(tick - atm_load_rlx(&w->look_tick)); /* relaxed: a guess */
  return ago > STUCK_TICKS;
}

/* Where a fiber that is woken from outside is to queue; -1: it does not matter. What the thread of a poller wakes stays
 * in that one's partition. */
static int preferred_worker(const struct coir_runtime *rt, const struct coir_fiber *f) {
  struct coir__thread *t = coir__thread_peek();
  const struct coir__post *post = t ? t->post : NULL;
  int worker = atm_load_rlx(&rt->tuned.affinity) ? f->b.worker : -1;
  if (COIR_UNLIKELY(post && post->rt == rt && rt->is_partitioned)) {
    worker = f->b.worker;
    if (worker < 0 || !is_same_partition(rt, worker, post->index)) worker = post->index;
  }
  uint32_t tick = worker < 0 ? 0 : (uint32_t)(coir__os_now() >> COIR__LOOK_SHIFT);
  return worker >= 0 && is_stuck(rt, worker, tick) ? -1 : worker;
}

/* From a thread that carries no worker of its runtime. As soon as the fiber is queued, it may run, end, and let its
 * runtime be destroyed: so we are counted as visitors until we are done with the runtime. */
static void ready_from_outside(struct coir_fiber *f) {
  struct coir_runtime *rt = f->rt;
  atm_add_sc(&rt->visitors, 1);
  int8_t priority = f->b.priority;
  int worker = -1;
  if (f->b.flags & (COIR__FIBER_BOUND | COIR__FIBER_TARGETED)) worker = f->b.home;
  else if (!(f->b.flags & COIR__FIBER_LANED)) worker = preferred_worker(rt, f);
  if (worker >= 0) {
    ready_elsewhere(rt->workers[worker], f);
  } else {
    coir__lane_put(rt, f);
    if (priority > 0) coir__idle_attention(rt);
    coir__idle_notify_outside(rt);
  }
  atm_sub_rel(&rt->visitors, 1); /* pairs with the acquire in release() (runtime.c) */
}

void coir__requeue(struct coir__worker *w, struct coir_fiber *f) {
  if (w) requeue(w, f);
  else ready_from_outside(f);
}

/* A fiber that does not simply go to the ring or the next slot of this worker. */
static void ready_special(struct coir__worker *w, struct coir_fiber *f) {
  if ((f->b.flags & (COIR__FIBER_BOUND | COIR__FIBER_TARGETED)) && f->b.home != w->index)
    ready_elsewhere(w->rt->workers[f->b.home], f);
  else requeue_special(w, f);
}

void coir__ready(struct coir__worker *w, struct coir_fiber *f) {
  if (COIR_UNLIKELY(!w || w->rt != f->rt)) {
    atm_add_rlx(&f->rt->wakes_outside, 1);
    ready_from_outside(f);
    return;
  }
  atm_bump(&w->counts.wakes, 1);
  if (COIR_UNLIKELY(f->b.flags & COIR__FIBER_SPECIAL)) {
    ready_special(w, f);
    return;
  }
  if (COIR_UNLIKELY(atm_load_rlx(&w->rt->tuned.affinity)) && f->b.worker >= 0 && f->b.worker != (int)w->index &&
      (!w->polling || is_same_partition(w->rt, f->b.worker, (int)w->index)) &&
      !is_stuck(w->rt, f->b.worker, atm_load_rlx(&w->look_tick))) {
    ready_elsewhere(w->rt->workers[f->b.worker], f);
    return;
  }
  if (coir__hard_migrates(w)) {
    coir__hard_migrate(w, f);
    return;
  }
  if (w->current) {
    /* The slot is not announced: the fiber in it runs as soon as the current one waits (idle.c on lone fibers). */
    bool taken = coir__runq_has_next(w);
    coir__runq_push_next(w, f);
    if (!taken) return;
  } else {
    coir__runq_push(w, f); /* woken by the loop itself (timers, poller): in their order */
  }
  coir__idle_notify(w, false);
}

/* ---- Ending ---------------------------------------------------------------------------------------------------- */

void coir__fiber_free(struct coir__worker *w, struct coir_fiber *f) {
  struct coir_runtime *rt = f->rt;
  if (w && w->rt != rt) w = NULL;
  if (f->b.more & COIR__MORE_LOCALS) {
    coir__locals_free(rt, f->locals);
    f->locals = NULL;
  }
  coir__fiber_give(rt, w, f);
}

/* The same inline, for the usual case. */
COIR_INLINE void free_quickly(struct coir__worker *w, struct coir_fiber *f) {
  bool is_usual = w && w->rt == f->rt && !(f->b.more & COIR__MORE_LOCALS);
  if (COIR_UNLIKELY(!is_usual || !coir__fiber_give_quickly(w, f))) coir__fiber_free(w, f);
}

/* Whether who has been claimed out of the wait `open` would run next, if it were woken now: then it need not queue. */
COIR_INLINE bool is_next(const struct coir__worker *w, struct coir__waiter *waiter, uint64_t open) {
  const struct coir_fiber *f = coir__waiter_fiber(waiter);
  /* Acquire: as in coir__wake_quick, which asks the same; and then pick() does. */
  if (atm_load_acq(&waiter->parked) != (open & ~COIR__CODE_MASK)) return false;
  if (w->rt != f->rt || (f->b.flags & COIR__FIBER_SPECIAL) || atm_load_rlx(&w->q.next)) return false;
  if (coir__hard_migrates(w)) return false;
  if (f->b.worker != (int16_t)w->index && atm_load_rlx(&w->rt->tuned.affinity)) return false;
  return w->tick && !(atm_load_rlx(&w->attention) | w->extra) && w->q.next_runs < COIR__NEXT_RUNS_MAX;
}

/* The status is final: wakes who waits for the end. The descriptor is gone, or another's, afterwards. Returns NULL; or,
 * where `w` is about to run somebody else, who that is to be. */
COIR_INLINE struct coir_fiber *complete_on(struct coir__worker *w, struct coir_fiber *f, bool is_over) {
  struct coir__waitq *q = &f->exit;
  struct coir__clause *woken = NULL, *others = NULL;
  struct coir_fiber *next = NULL;
  if (COIR_UNLIKELY(!w || !coir__bias_enter(w, &q->lock))) coir__bias_lock_slow(w, &q->lock);
  if (!coir__waitlist_is_empty(&q->list)) woken = coir__waitlist_take(&q->list);
  if (COIR_UNLIKELY(!coir__waitlist_is_empty(&q->list))) others = coir__waitlist_take_all(&q->list);
  uint32_t detached = atm_load_rlx(&f->ended) & COIR__DETACHED;
  /* Release: status and value. Pairs with the acquire in coir_join. */
  atm_store_rel(&f->ended, detached | COIR__ENDED);
  coir__bias_unlock(w, &q->lock);
  if (woken && is_over && !others && is_next(w, woken->waiter, woken->open)) {
    next = coir__waiter_fiber(woken->waiter);
    w->tick--;
    w->q.next_runs++;
    atm_bump(&w->counts.wakes, 1);
  } else if (woken) {
    coir__wake_on(w, woken->waiter);
  }
  if (COIR_UNLIKELY(others != NULL)) coir__wake_all(w, others);
  if (detached) free_quickly(w, f);
  return next;
}

static void __attribute__((noinline)) complete(struct coir__worker *w, struct coir_fiber *f) {
  complete_on(w, f, false);
}

/* The same for one that belongs to somebody. */
static void __attribute__((noinline)) complete_kin(struct coir__worker *w, struct coir_fiber *f) {
  void (*on_ended)(void *) = f->on_ended;
  void *kin = f->kin;
  complete(w, f);
  if (on_ended) on_ended(kin);
}

/* Tells those whom the fiber belongs to. */
static struct coir__worker *__attribute__((noinline)) end_kin(struct coir_fiber *f) {
  if (f->on_end) f->on_end(f);
  return coir__self();
}

/* Ends the calling fiber, whose result is set, and never returns. Inlined, because a call that does not return leaves
 * the processor's prediction of returns one off for whoever runs next. */
static inline void __attribute__((always_inline, noreturn)) end(struct coir__worker *w) {
  COIR_CHECK(w, "a fiber ends where it ran: the child of a fork must call exec or _exit");
  struct coir_fiber *f = w->current;
  struct coir__stack *s = f->stack;
  uint8_t canary = f->b.flags & COIR__FIBER_CANARY;
  if (COIR_UNLIKELY(f->b.more & COIR__MORE_LOCALS)) {
    coir__locals_destroy(f->locals);
    w = coir__self(); /* the destructors may have waited */
  }
  if (COIR_UNLIKELY(f->b.more & COIR__MORE_KIN)) w = end_kin(f);
  if (COIR_UNLIKELY(canary)) coir__stack_check(s, __builtin_frame_address(0));
  /* Release: what this worker spawned was counted before. Pairs with the acquire in coir__live. */
  atm_store_rel(&w->counts.ended, atm_load_rlx(&w->counts.ended) + 1);
  s->fiber = NULL;
  struct coir_fiber *next = NULL;
  if (COIR_LIKELY(!coir__has_kin(f))) next = complete_on(w, f, true);
  else complete_kin(w, f);
  if (!next) next = pick(w);
  w->prev = NULL;
#if !defined(COIR_SLOW_SWITCH)
  bool restarts = !coir__hard_chance(atm_load_rlx(&w->thread), 2);
  if (COIR_LIKELY(restarts) && next && !next->stack && next->stack_class == s->size_class) {
    atm_show(&next->stack, s);
    atm_show_rel(&next->ran_at, atm_load_rlx(&w->look_tick)); /* as in bind_stack() */
    atm_show(&next->b.worker, (int16_t)w->index);
    s->fiber = next;
    next->b.flags |= canary;
    atm_show(&w->current, next);
    w->after = COIR__AFTER_NOTHING;
    coir__ctx_restart(s->top, fiber_main, w);
  }
#endif
  w->after = leave_stack(w, s);
  void *nowhere;
  go(w, &nowhere, next, true);
  __builtin_unreachable();
}

/* The cast is the one of coir_attr.is_void, taken back. */
static void run_void(struct coir_fiber *f, coir_fn entry) {
  ((void (*)(void *))(void (*)(void))entry)(f->arg);
  f->status = 0;
}

/* The bottom of every fiber's stack. */
static void fiber_main(void *worker) {
  struct coir__worker *w = worker;
  ARRIVED(NULL);
  arrive(w);
  struct coir_fiber *f = w->current;
  f->b.flags &= (uint8_t)~COIR__FIBER_TARGETED;
  *w->errno_location = 0;
  if (COIR_UNLIKELY(atm_load_rlx(&w->is_unstarted))) atm_store_rlx(&w->is_unstarted, 0); /* now others may begin */
  coir_fn entry = atm_load_rlx(&f->entry);
  bool is_void = f->b.more & COIR__MORE_VOID;
  atm_store_rel(&atm_load_rlx(&w->thread)->in, w->outside); /* as coir__go_out_on, but it ends no call */
  if (COIR_LIKELY(!is_void)) f->status = entry(f->arg);
  else run_void(f, entry);
  struct coir__thread *t = coir__thread_peek();
  atm_store_rlx(&t->in, 1);
  coir__fence_light(); /* as in coir__go_in_on */
  w = atm_load_acq(&t->worker);
  if (COIR_UNLIKELY(!w)) w = coir__go_home(t, COIR_NEVER);
  end(w);
}

void coir_exit(int status, void *value) {
  struct coir__worker *w;
  (void)coir__go_in_to_wait_on(&w, COIR_NEVER); /* the end is not left */
  COIR_CHECK(coir__self_of(w), "coir_exit is called on a fiber");
  COIR_CHECK(!w->current->stack->nest, "coir_exit is not called in a job, a fork, a parallel loop or a raw fiber");
  COIR_CHECK(!w->current->stack->owes, "coir_exit is not called in coir_once_do or coir_flight_do");
  w->current->status = status;
  (void)coir__thrown_take(w->thrown); /* their handlers do not go on */
#if defined(COIR_TSAN)
  w->current->stack->tsan_lives = TSAN_LIVES_MAX; /* nobody returns from the calls that it is in */
#endif
  coir_set_value(value);
  end(w);
}

/* ---- Spawning -------------------------------------------------------------------------------------------------- */

/* Checks `attr` against `rt`. Returns the size class of the stack, or an error. */
int coir__attr_check(const struct coir_runtime *rt, const struct coir_attr *attr) {
  if (attr->priority < COIR_PRIORITY_LOW || attr->priority > COIR_PRIORITY_HIGH) return -EINVAL;
  if ((unsigned)attr->order > COIR_ORDER_LIFO) return -EINVAL;
  if (attr->preempt < COIR_OFF || attr->preempt > COIR_ON) return -EINVAL;
  if (attr->preempt == COIR_ON && !rt->sim && coir__preempt_want(rt)) return -ENOTSUP;
  if (attr->worker > (uint32_t)rt->config.workers) return -EINVAL;
  return attr->stack_bytes ? coir__stack_class(attr->stack_bytes) : rt->stack_class;
}

/* Whether it says anything about where and when to run: not, in most. */
static inline bool attr_places(const struct coir_attr *attr) {
  uint32_t when = (uint32_t)attr->priority | (uint32_t)attr->order | (uint32_t)attr->preempt;
  return (when | attr->worker | attr->pinned) != 0;
}

/* Says nothing that coir_spawn would have to look up, or set down. */
static inline bool attr_is_plain(const struct coir_attr *attr) {
  uint32_t when = (uint32_t)attr->priority | (uint32_t)attr->preempt | attr->worker | attr->pinned | attr->is_void;
  return !(when | ((uint32_t)attr->order & ~(uint32_t)COIR_ORDER_LIFO)) && !attr->stack_bytes && !attr->name;
}

static void attr_apply(struct coir_fiber *f, const struct coir_attr *attr, const struct coir__worker *w) {
  if (attr->preempt == COIR_ON) f->b.more |= COIR__MORE_PREEMPT;
  if (attr->preempt == COIR_OFF) f->b.more &= (uint8_t)~COIR__MORE_PREEMPT;
  f->b.priority = (int8_t)attr->priority;
  if (attr->priority != COIR_PRIORITY_NORMAL) f->b.flags |= COIR__FIBER_LANED;
  if (attr->worker != COIR_WORKER_ANY) {
    f->b.home = (uint16_t)((attr->worker - 1) % (uint32_t)f->rt->worker_count);
    f->b.flags |= COIR__FIBER_TARGETED;
  } else if (attr->pinned) {
    f->b.home = (uint16_t)(w ? w->index : 0);
  }
  if (attr->pinned) {
    f->b.flags |= COIR__FIBER_BOUND;
    atm_store_rlx(&f->rt->workers[f->b.home]->has_pinned, 1); /* relaxed: it is queued there by release and acquire */
  }
  if (attr->name) {
    strncpy(f->name, attr->name, COIR__NAME_MAX - 1);
    f->name[COIR__NAME_MAX - 1] = 0;
    f->b.flags |= COIR__FIBER_NAMED;
  }
}

/* Makes a descriptor run fn(arg); everything that a former life may have left is reset. */
COIR_INLINE void fiber_init(struct coir_runtime *rt, struct coir_fiber *f, coir_fn fn, void *arg, uint32_t ended,
                            uint32_t stack_class) {
  f->sp = NULL;
  f->stack = NULL;
  f->arg = arg;
  f->b = rt->fiber_bits;
  f->stack_class = stack_class;
  f->waiter.shield = 0;
  f->waiter.holds = 0;
  atm_store_rlx(&f->waiter.cancel, 0);
  atm_store_rlx(&f->ended, ended);
  atm_store_rel(&f->entry, fn); /* last: from here on who walks the slabs finds it */
  coir__fence_light();          /* pairs with the heavy fence in cancel_all() (runtime.c) */
  if (COIR_UNLIKELY(atm_load_rlx(&rt->cancel_all))) atm_or_sc(&f->waiter.cancel, COIR__CANCEL_ALWAYS);
}

/* Counts and queues a new fiber. */
static inline void publish(struct coir_runtime *rt, struct coir__worker *w, struct coir_fiber *f,
                           enum coir_order order) {
  if (COIR_UNLIKELY(!w)) {
    atm_add_sc(&rt->spawned_outside, 1);
    ready_from_outside(f);
    return;
  }
  atm_bump(&w->counts.spawned, 1);
  if (COIR_UNLIKELY(f->b.flags & COIR__FIBER_SPECIAL)) {
    ready_special(w, f);
    return;
  }
  if (order == COIR_ORDER_LIFO) coir__runq_push_lifo(w, f);
  else coir__runq_push(w, f);
  coir__idle_notify(w, true);
}

static inline int prepare(struct coir_runtime *rt, struct coir__worker *w, coir_fn fn, void *arg,
                          const struct coir_attr *attr, struct coir_fiber **out, bool detached) {
  if (COIR_UNLIKELY(!fn)) return -EINVAL;
  if (COIR_UNLIKELY(!rt)) return -ENOMEM;
  int size_class = rt->stack_class;
  if (attr && (attr_places(attr) || attr->stack_bytes)) size_class = coir__attr_check(rt, attr);
  if (COIR_UNLIKELY(size_class < 0)) return size_class;
  struct coir_fiber *f = coir__fiber_take(rt, w);
  if (COIR_UNLIKELY(!f)) return -ENOMEM;
  fiber_init(rt, f, fn, arg, detached ? COIR__DETACHED : 0, (uint32_t)size_class);
  if (attr && attr->is_void) f->b.more |= COIR__MORE_VOID;
  if (attr && (attr_places(attr) || attr->name)) attr_apply(f, attr, w);
  *out = f;
  return 0;
}

static inline int spawn(struct coir_runtime *rt, struct coir__worker *w, coir_fn fn, void *arg,
                        const struct coir_attr *attr, struct coir_fiber **out) {
  struct coir_fiber *f = NULL;
  int rc = prepare(rt, w, fn, arg, attr, &f, !out || (attr && attr->detached));
  if (out) *out = f;
  if (COIR_LIKELY(!rc)) publish(rt, w, f, attr ? attr->order : COIR_ORDER_FIFO);
  return rc;
}

int coir__fiber_prepare(struct coir_runtime *rt, struct coir__worker *w, coir_fn fn, void *arg,
                        const struct coir_attr *attr, struct coir_fiber **out, bool detached) {
  *out = NULL;
  return prepare(rt, w, fn, arg, attr, out, detached);
}

void coir__fiber_publish(struct coir__worker *w, struct coir_fiber *f, const struct coir_attr *attr) {
  publish(f->rt, w, f, attr ? attr->order : COIR_ORDER_FIFO);
}

void coir__fiber_publish_next(struct coir__worker *w, struct coir_fiber *f) {
  if (!w || w->rt != f->rt || (f->b.flags & COIR__FIBER_SPECIAL)) {
    publish(f->rt, w && w->rt == f->rt ? w : NULL, f, COIR_ORDER_FIFO);
    return;
  }
  atm_bump(&w->counts.spawned, 1);
  bool taken = coir__runq_has_next(w);
  coir__runq_push_next(w, f);
  if (taken) coir__idle_notify(w, true);
}

void coir__fiber_kin(struct coir_fiber *f) {
  if (coir__has_kin(f)) return;
  f->on_end = NULL;
  f->on_ended = NULL;
  f->kin = NULL;
  f->scope = NULL;
  f->gen = NULL;
  f->b.more |= COIR__MORE_KIN;
}

static int __attribute__((noinline)) spawn_anyhow(coir_fn fn, void *arg, const struct coir_attr *attr,
                                                  struct coir_fiber **out) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  return spawn(coir__caller_runtime(w), w, fn, arg, attr, out);
}

/* The same as spawn_anyhow, for a fiber that spawns one without attributes (but for detached, and the order) and has a
 * descriptor at hand: written out, as coir_yield is. */
int coir_spawn(coir_fn fn, void *arg, const struct coir_attr *attr, struct coir_fiber **out) {
  struct coir__thread *t = coir__thread_peek();
  if (COIR_UNLIKELY(!t || !fn || (attr && !attr_is_plain(attr)))) return spawn_anyhow(fn, arg, attr, out);
  uint32_t was = atm_load_rlx(&t->in);
  atm_store_rlx(&t->in, 1);
  coir__fence_light(); /* as in coir__go_in_on */
  struct coir__worker *w = atm_load_acq(&t->worker);
  struct coir_fiber *f = COIR_LIKELY(w && w->current && !was) ? coir__fiber_take_quickly(w) : NULL;
  if (COIR_UNLIKELY(!f)) {
    atm_store_rel(&t->in, was); /* as in coir__go_out */
    return spawn_anyhow(fn, arg, attr, out);
  }
  struct coir_runtime *rt = w->rt;
  fiber_init(rt, f, fn, arg, !out || (attr && attr->detached) ? COIR__DETACHED : 0, (uint32_t)rt->stack_class);
  if (out) *out = f;
  publish(rt, w, f, attr ? attr->order : COIR_ORDER_FIFO);
  atm_store_rel(&t->in, was);
  COIR__LEFT(t, was);
  return 0;
}

int coir_go(coir_fn fn, void *arg) { return coir_spawn(fn, arg, NULL, NULL); }

int coir_runtime_spawn(struct coir_runtime *runtime, coir_fn fn, void *arg, const struct coir_attr *attr,
                       struct coir_fiber **out) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  if (!runtime) runtime = coir_runtime_default();
  if (runtime && atm_load_acq(&runtime->forked)) {
    if (out) *out = NULL;
    return -ENOTSUP;
  }
  return spawn(runtime, w && w->rt == runtime ? w : NULL, fn, arg, attr, out);
}

/* Acquire: what was counted before. Pairs with the releases in end() and coir__count_suspended. */
uint64_t coir__live(struct coir_runtime *rt) {
  uint64_t out = atm_load_acq(&rt->dropped), in = 0;
  for (int i = 0; i < rt->worker_count; i++) {
    const struct coir__counts *c = &rt->workers[i]->counts;
    out += atm_load_acq(&c->ended);
    out += atm_load_acq(&c->suspended);
  }
  for (int i = 0; i < rt->worker_count; i++) {
    const struct coir__counts *c = &rt->workers[i]->counts;
    in += atm_load_acq(&c->spawned);
    in += atm_load_acq(&c->resumed);
  }
  return in + atm_load_acq(&rt->spawned_outside) + atm_load_acq(&rt->resumed_outside) - out;
}

uint64_t coir__fibers_left(struct coir_runtime *rt) {
  uint64_t ended = atm_load_acq(&rt->dropped), spawned = 0;
  for (int i = 0; i < rt->worker_count; i++) ended += atm_load_acq(&rt->workers[i]->counts.ended);
  for (int i = 0; i < rt->worker_count; i++) spawned += atm_load_acq(&rt->workers[i]->counts.spawned);
  return spawned + atm_load_acq(&rt->spawned_outside) - ended;
}

/* ---- Joining --------------------------------------------------------------------------------------------------- */

/* Waits until the fiber has ended. */
static int wait_for_end(struct coir__worker *w, struct coir_fiber *f, int64_t deadline) {
  if (deadline != COIR_NEVER && (deadline <= 0 || deadline <= coir__os_now())) return -ETIMEDOUT;
  struct coir__wait wait;
  struct coir__clause clause;
  coir__bias_lock(w, &f->exit.lock);
  if (atm_load_rlx(&f->ended) & COIR__ENDED) {
    coir__bias_unlock(w, &f->exit.lock);
    return 0;
  }
  coir__wait_begin_on(w, &wait, COIR__REASON_JOIN, f->id, deadline);
  coir__wait_add(&wait, &clause, &f->exit);
  coir__bias_unlock(w, &f->exit.lock);
  uint32_t code = coir__wait(&wait);
  return code < COIR__CODE_CLAUSE ? coir__wait_result(code) : 0;
}

/* The same without a deadline, by the fiber that *w runs, which has room on its stack for it all: see coir__wait_quick.
 * Stores the worker on which it goes on. */
COIR_INLINE int wait_for_end_quickly(struct coir__worker **w, struct coir_fiber *f) {
  struct coir__wait wait;
  struct coir__clause clause;
  struct coir_fiber *self = (*w)->current;
  if (COIR_UNLIKELY(!coir__bias_enter(*w, &f->exit.lock))) coir__bias_lock_slow(*w, &f->exit.lock);
  if (COIR_UNLIKELY(atm_load_rlx(&f->ended) & COIR__ENDED)) {
    coir__bias_unlock(*w, &f->exit.lock);
    return 0;
  }
  coir__wait_open(*w, &wait, COIR__REASON_JOIN, f->id, COIR_NEVER, COIR__CODE_OPEN);
  coir__wait_add(&wait, &clause, &f->exit);
  coir__bias_unlock(*w, &f->exit.lock);
  coir__fence_light(); /* as in coir__wait */
  if (COIR_UNLIKELY(atm_load_acq(&self->waiter.cancel) != 0)) {
    uint32_t code = coir__wait(&wait);
    *w = coir__self();
    return code == COIR__CODE_CLAUSE ? 0 : coir__wait_result(code);
  }
  self->wait = &wait;
  atm_bump(&(*w)->counts.parks, 1);
  *w = suspend(*w, pick(*w), COIR__AFTER_PARK);
  uint32_t code = (uint32_t)(atm_load_rlx(&self->waiter.word) & COIR__CODE_MASK); /* relaxed: as in coir__wait */
  if (COIR_UNLIKELY(code != COIR__CODE_CLAUSE)) coir__wait_tidy_up(&wait, code);
  self->wait = NULL;
  return COIR_LIKELY(code == COIR__CODE_CLAUSE) ? 0 : coir__wait_result(code);
}

/* It has ended: takes what it left, and gives the descriptor back. */
COIR_INLINE void take_result(struct coir__worker *w, struct coir_fiber *f, struct coir_result *out) {
  struct coir__bias *l = &f->exit.lock;
  /* Acquire, in this order: as in coir__bias_is_held. It is we who would be inside what leans towards us. */
  bool is_free = !atm_load_acq(&l->lock.held);
  uint32_t owner = atm_load_acq(&l->owner);
  is_free = is_free && (!(owner & COIR__BIAS_OWNED) || (w && owner == w->bias));
  if (COIR_UNLIKELY(!is_free && coir__bias_is_held(l))) { /* complete() is about to let go of it */
    coir__bias_lock(w, l);
    coir__bias_unlock(w, l);
  }
  if (out) {
    out->status = f->status;
    out->value = f->b.flags & COIR__FIBER_VALUED ? f->value : NULL;
  }
  free_quickly(w, f);
}

static int __attribute__((noinline)) join_anyhow(struct coir_fiber *fiber, struct coir_result *out, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_ON(w, deadline);
  w = coir__self_of(w);
  if (!fiber) return -EINVAL;
  if (fiber == (w ? w->current : coir__me())) return -EDEADLK;
  if (!(atm_load_acq(&fiber->ended) & COIR__ENDED)) {
    int rc = wait_for_end(w, fiber, deadline);
    if (rc) return rc;
    w = coir__self();
  }
  take_result(w, fiber, out);
  return 0;
}

/* The same as join_anyhow, for a fiber that may wait for another one without limit: written out, as coir_yield is. */
int coir_join(struct coir_fiber *fiber, struct coir_result *out, int64_t deadline) {
  struct coir__thread *t = coir__thread_peek();
  if (COIR_UNLIKELY(!t || !fiber || deadline != COIR_NEVER)) return join_anyhow(fiber, out, deadline);
  uint32_t was = atm_load_rlx(&t->in);
  atm_store_rlx(&t->in, 1);
  coir__fence_light(); /* as in coir__go_in_on */
  struct coir__worker *w = atm_load_acq(&t->worker);
  if (COIR_UNLIKELY(!w || !w->current || w->current == fiber)) {
    atm_store_rel(&t->in, was); /* as in coir__go_out */
    return join_anyhow(fiber, out, deadline);
  }
  int rc = atm_load_acq(&fiber->ended) & COIR__ENDED ? 0 : wait_for_end_quickly(&w, fiber);
  if (COIR_LIKELY(!rc)) take_result(w, fiber, out);
  coir__go_out_on(w, was);
  return rc;
}

void coir_detach(struct coir_fiber *fiber) {
  COIR_INSIDE;
  if (!fiber) return;
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &fiber->exit.lock);
  uint32_t ended = atm_load_rlx(&fiber->ended);
  atm_store_rlx(&fiber->ended, ended | COIR__DETACHED);
  coir__bias_unlock(w, &fiber->exit.lock);
  if (ended & COIR__ENDED) coir__fiber_free(w, fiber);
}

/* ---- What a fiber knows of itself ------------------------------------------------------------------------------ */

struct coir_fiber *coir_current(void) {
  COIR_INSIDE;
  return coir__me();
}

void coir_set_value(void *value) {
  COIR_INSIDE;
  struct coir_fiber *f = coir_current();
  if (!f) return;
  f->value = value;
  f->b.flags |= COIR__FIBER_VALUED;
}

uint64_t coir_fiber_id(const struct coir_fiber *fiber) {
  if (!fiber) fiber = coir_current();
  return fiber ? fiber->id : 0;
}

void coir_set_name(const char *name) {
  COIR_INSIDE;
  struct coir_fiber *f = coir_current();
  if (!f) return;
  /* Byte by byte and relaxed: a dump may read it meanwhile, and must find an end. */
  size_t i = 0;
  for (; name && name[i] && i < COIR__NAME_MAX - 1; i++) __atomic_store_n(&f->name[i], name[i], __ATOMIC_RELAXED);
  __atomic_store_n(&f->name[i], 0, __ATOMIC_RELAXED);
  __atomic_fetch_or(&f->b.flags, COIR__FIBER_NAMED, __ATOMIC_RELEASE);
}

const char *coir_name(const struct coir_fiber *fiber) {
  if (!fiber) fiber = coir_current();
  return fiber ? coir__name_of(fiber) : "";
}

int coir_worker_index(void) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  const struct coir_fiber *f = w ? NULL : coir__me();
  return w ? (int)w->index : f ? f->b.worker : -1;
}

struct coir_runtime *coir_runtime_current(void) {
  COIR_INSIDE;
  const struct coir_fiber *f = coir__me();
  return f ? f->rt : NULL;
}

/* ---- Dropping what is left of a runtime that does not run ------------------------------------------------------ */

/* Others may wake or spawn fibers meanwhile, so it is a matter of several rounds: a fiber is marked when it is taken
 * from wherever it was, and dropped when the walk over the slabs meets it. What other fibers wait for may lie in its
 * frames; so the stacks stay until the last one has been dropped. */
struct dropping {
  struct coir_runtime *rt;
  uint64_t marked, done;
  int naps;
  struct coir__stack *stacks; /* by next: those on which they stood */
};

static void mark(struct dropping *d, struct coir_fiber *f) {
  f->b.flags |= COIR__FIBER_DROPPED;
  d->marked++;
}

static void empty_queues(struct dropping *d) {
  struct coir_runtime *rt = d->rt;
  struct coir_fiber *f;
  for (int i = 0; i < rt->worker_count; i++) {
    struct coir__worker *w = rt->workers[i];
    coir__inbox_take(w);
    while ((f = coir__runq_pop(w)) || (f = coir__list_pop(&w->bound))) mark(d, f);
  }
  for (int i = 0; i < COIR__LANES; i++) {
    while ((f = coir__lane_get(rt->workers[0], i))) mark(d, f);
    while ((f = coir__runq_pop(rt->workers[0]))) mark(d, f);
  }
}

/* Takes it from where it waits. False: somebody outside is about to queue it. That may take long where a thread works
 * on its frame (a bound wait), which may in turn wait for others that are dropped. */
static bool take_waiting(struct dropping *d, struct coir_fiber *f) {
  if (f->b.flags & COIR__FIBER_DROPPED) return true;
  uint64_t word = atm_load_acq(&f->waiter.word), code = word & COIR__CODE_MASK;
  if (code < COIR__CODE_OPEN || code > COIR__CODE_SHIELDED) return false;
  if (!atm_cas_ar(&f->waiter.word, &word, (word & ~COIR__CODE_MASK) | COIR__CODE_CANCELED)) return false;
  mark(d, f);
  return true;
}

static void drop_later(struct dropping *d) {
  _Atomic(uint32_t) never = 0;
  if (d->naps++ < 16) coir__os_thread_yield();
  else coir__os_futex_wait(&never, 0, coir__os_now() + COIR_US(100));
  empty_queues(d);
}

/* It has been taken. */
static void drop(struct dropping *d, struct coir_fiber *f) {
  if (f->stack && f->wait) coir__wait_drop(f->wait);
  f->wait = NULL;
  for (struct coir__stack *s = f->stack; s; s = s->raw ? s->raw->outer : NULL) coir__stack_forgive(s);
  if (f->stack) {
    f->stack->next = d->stacks;
    d->stacks = f->stack;
  }
  f->b.flags &= (uint8_t)~COIR__FIBER_DROPPED;
  f->status = -ECANCELED;
  if (coir__has_kin(f) && f->on_end) f->on_end(f);
  d->done++;
  atm_add_sc(&d->rt->dropped, 1);
  if (coir__has_kin(f)) complete_kin(NULL, f);
  else complete(NULL, f);
}

static void give_stacks(struct dropping *d) {
  for (struct coir__stack *s; (s = d->stacks) != NULL;) {
    d->stacks = s->next;
    for (struct coir__raw *raw; (raw = s->raw) != NULL;) {
      s = raw->outer;
      raw->drop(raw);
    }
#if defined(COIR_TSAN)
    coir__os_tsan_destroy(s->tsan);
    s->tsan = NULL;
#endif
    s->fiber = NULL;
    s->nest = NULL;
    coir__stack_give(d->rt->workers[0], s);
  }
}

void coir__fiber_drop(struct coir_fiber *f) {
  struct dropping d = {.rt = f->rt};
  while (!take_waiting(&d, f)) drop_later(&d);
  drop(&d, f);
  give_stacks(&d);
}

void coir__fibers_drop(struct coir_runtime *rt) {
  struct dropping d = {.rt = rt};
  if (coir__fibers_left(rt) == 0) return;
  bool is_last;
  do {
    is_last = true;
    empty_queues(&d);
    for (struct coir__slab *slab = atm_load_acq(&rt->slabs); slab; slab = slab->next)
      for (uint32_t i = 0; i < slab->count; i++) {
        struct coir_fiber *f = &slab->fibers[i];
        if (!atm_load_acq(&f->entry) || atm_load_acq(&f->ended) & COIR__ENDED) continue;
        if (take_waiting(&d, f)) drop(&d, f);
        else is_last = false;
      }
    if (!is_last) drop_later(&d);
  } while (!is_last || d.marked != d.done);
  give_stacks(&d);
}
