/* Threads carry workers. A fiber that blocks its thread, or computes for long, stays behind with its thread, and the
 * worker goes on on another one.
 *
 * Goal: while a fiber holds its thread up, all else that its worker has to do goes on: queues, timers, poller, inbox.
 * And the fiber goes on on the thread on which it runs, with the thread-locals and locks that are its own there, as
 * ordinary code expects. A worker is not its thread (types.h), and depends on nothing that is its thread's.
 *
 * Why it is hard: the fiber may come into the library at the very moment at which the worker is being taken, and what
 * it does there with the worker, it does as the only one. It cannot afford a fence, or a locked instruction, each
 * time that it comes and goes: that would be as dear as all else that a call does.
 *
 * Design. Each thread has a word, `in`, that says whether it is inside the library (COIR_INSIDE). It is set before
 * the thread looks for its worker, and goes back to what it was when all is done with that. Who takes the worker away
 * clears thread.worker, executes a heavy fence, and then looks at the word. Coming in is a store and a load with a
 * light fence between them, and the two fences are a pair: the thread finds that it has no worker, or the taker finds
 * it inside, or both. If it is inside the worker is given back. If it is not, then it has left the worker alone
 * since, and will find none.
 *
 *   the taker finds   the thread finds        and so
 *   outside           no worker, later on     it is taken: the thread is away
 *   inside            its worker              it was put back, or had not been touched yet
 *   inside            no worker               waits for the verdict (`owner`), and finds the worker put back
 *   outside           its worker              cannot be: the thread looked before the fence, so its word shows
 *
 *   a thread       has                                          becomes
 *   carries        worker                                       away (coir_block_enter; is taken from), over (HALT)
 *   is away        no worker, `away`: its stack is the fiber's  spare (a call that waits, coir_block_leave)
 *   is paused      the same, and the fiber is queued            carries (its turn has come: preempt.c), away (HALT)
 *   is spare       none of these; in rt->spares                 carries (an heir was wanted), over (HALT; long unused)
 *
 * thread.worker changes under the thread's lock `owner`, so there is one who takes or gives at a time, and a thread
 * that finds no worker waits until that one is through. Nobody is inside while the thread is in the program's own
 * code, on a fiber's stack; the loop on the thread's own stack, and every switch, is inside.
 *
 * There are two ways to be away. After coir_block_enter the fiber is a plain thread in the eyes of the library. A
 * fiber from which the worker was taken knows nothing of it, and remains who it is (coir__me): calls that do not wait
 * work as from outside, on the same thread. In a call that may wait it first leaves the thread for good, as if it
 * yielded (coir__go_home): it goes to the thread's own stack, where the worker's loop finds that it has lost the
 * worker, queues the fiber from outside, and becomes a spare. So a fiber changes its thread in calls that may wait,
 * and in no other.
 *
 * Every worker is carried by exactly one thread while its runtime runs, or it is in the hands of who takes it: it is
 * handed on under its heir's `heir_to`, by release and acquire. So at the end each is put to rest by one thread,
 * whichever that is, and all threads are joined: those that were made for the workers, and the extra ones, which are
 * in a list. The thread that called coir_runtime_run has no other way: when it has lost worker 0 it waits as a spare
 * until the end.
 *
 * Pinned fibers count on their thread. So a worker that has ever been given one keeps its thread.
 *
 * Rejected: a pool of threads that makes the call (it has other thread-locals, and the fiber's frames are used by two
 * threads); a signal to look where the thread stands (it ends sleeps of the program with EINTR); a compare-and-swap
 * in and out (10 ns per call); taking the worker back when the call was short (a race for what a queue does as well).
 *
 * Sources: handing off the processor of a blocked goroutine, as Go's monitor does (Vyukov, 2012); the pair of fences:
 * Dice, Huang, Yang, "Asymmetric Dekker Synchronization", 2001. */
#include "internal.h"

#define SPARE_KEEPS COIR_SEC(1) /* an extra thread that nobody needed for so long goes */

/* An extra thread. When it is ready (it has what it needs, and will not ask for memory again) it waits for its gate to
 * open: with a worker, or to be a spare. Freed by itself when it goes, else by who joins it. */
struct coir__extra {
  struct coir__extra *next;
  struct coir_runtime *rt;
  pthread_t pthread;
  _Atomic(uint32_t) gate;      /* (a) enum gate, and futex word */
  struct coir__worker *worker; /* that it begins with; NULL: none. Set before the gate opens */
  void *alt_stack;             /* made before the thread, which takes it over */
};
enum gate { GATE_STARTING, GATE_READY, GATE_OPEN };

/* rt->spare_lock is held. False: somebody is about to join it. */
static bool extra_unlink(struct coir_runtime *rt, struct coir__extra *e) {
  struct coir__extra **at = &rt->extras;
  while (*at && *at != e) at = &(*at)->next;
  if (!*at) return false;
  *at = e->next;
  atm_add_rlx(&rt->extra_count, -1);
  return true;
}

/* ---- Spares ---------------------------------------------------------------------------------------------------- */

void coir__thread_wake(struct coir__thread *t) {
  atm_add_sc(&t->futex, 1);
  coir__os_futex_wake(&t->futex, 1);
}

static struct coir__thread *spare_take(struct coir_runtime *rt) {
  coir__lock(&rt->spare_lock);
  struct coir__thread *t = rt->spares;
  if (t) rt->spares = t->next_spare;
  coir__unlock(&rt->spare_lock);
  return t;
}

static void spare_put(struct coir_runtime *rt, struct coir__thread *t) {
  coir__lock(&rt->spare_lock);
  t->next_spare = rt->spares;
  rt->spares = t;
  coir__unlock(&rt->spare_lock);
}

/* Takes a thread out of the spares; an extra one that goes by itself takes care that nobody joins it. False: it is
 * being handed a worker. */
static bool spare_quit(struct coir_runtime *rt, struct coir__thread *t, struct coir__extra *goes) {
  coir__lock(&rt->spare_lock);
  struct coir__thread **at = &rt->spares;
  while (*at && *at != t) at = &(*at)->next_spare;
  bool found = *at != NULL, is_alone = false;
  if (found) *at = t->next_spare;
  if (found && goes) is_alone = extra_unlink(rt, goes);
  coir__unlock(&rt->spare_lock);
  if (is_alone) {
    pthread_detach(goes->pthread);
    coir__free(NULL, goes, sizeof *goes);
  }
  return found;
}

/* Waits for a worker. `self`: NULL unless it is an extra thread. NULL: it is over, and `self` may be gone. */
static struct coir__worker *spare_wait(struct coir_runtime *rt, struct coir__thread *t, struct coir__extra *self) {
  int64_t deadline = self ? coir__os_now() + SPARE_KEEPS : COIR_NEVER;
  struct coir__thread *wakes = t->wakes;
  atm_store_rlx(&t->heir_to, NULL);
  t->wakes = NULL;
  spare_put(rt, t);
  if (wakes) coir__thread_wake(wakes); /* it may take this processor at once, and who is to follow it must be there */
  for (bool is_late = false;;) {
    uint32_t seen = atm_load_acq(&t->futex);
    struct coir__worker *w = atm_load_acq(&t->heir_to);
    if (w) return w;
    /* The phase after we joined the spares; coir__carry_halt goes through them after it has changed. */
    bool is_over = atm_load_sc(&rt->phase) == COIR__PHASE_HALT;
    if ((is_over || is_late) && spare_quit(rt, t, is_over ? NULL : self)) return NULL;
    is_late = coir__os_futex_wait(&t->futex, seen, deadline) == -ETIMEDOUT;
  }
}

bool coir__carry_has_spare(struct coir_runtime *rt) {
  coir__lock(&rt->spare_lock);
  bool any = rt->spares != NULL;
  coir__unlock(&rt->spare_lock);
  return any;
}

bool coir__carry_may_grow(struct coir_runtime *rt) {
  return atm_load_rlx(&rt->extra_count) < rt->config.spares_max;
}

void coir__carry_halt(struct coir_runtime *rt) {
  coir__lock(&rt->spare_lock);
  for (struct coir__thread *t = rt->spares; t; t = t->next_spare) coir__thread_wake(t);
  coir__unlock(&rt->spare_lock);
  coir__preempt_halt(rt);
}

/* ---- Carrying -------------------------------------------------------------------------------------------------- */

/* The fiber has left this thread: it may go on wherever there is time for it. */
static void queue_away(struct coir__thread *t) {
  struct coir_fiber *f = t->away;
  if (!f) return; /* the thread gave its worker to one that was paused */
  coir__lock(&t->owner);
  t->away = NULL;
  coir__unlock(&t->owner);
  f->sp = t->away_sp;
  struct coir_runtime *simulated = f->rt->sim ? f->rt : NULL;
  coir__requeue(NULL, f);
  if (COIR_UNLIKELY(simulated != NULL)) coir__sim_away(simulated, -1); /* it waits for us before each step */
}

static struct coir__worker *extra_wait(struct coir__extra *e) {
  atm_store_rel(&e->gate, GATE_READY);
  coir__os_futex_wake(&e->gate, 1);
  while (atm_load_acq(&e->gate) != GATE_OPEN) coir__os_futex_wait(&e->gate, GATE_READY, COIR_NEVER);
  return e->worker;
}

/* The thread is outside meanwhile, unless it carries the worker already. */
void coir__carry_tell(const struct coir__worker *w, const struct coir__thread *t) {
  const struct coir_config *c = &w->rt->config;
  if (t->tells) COIR_OUTSIDE_STAYING(c->on_thread((int)w->index, c->on_thread_arg));
}

/* With a worker, or as an extra thread. `is_ours`: Coir has started the thread for that. */
static void carry(struct coir_runtime *rt, struct coir__worker *w, struct coir__extra *self, bool is_ours) {
  struct coir__thread *t = coir__thread_get();
  COIR_CHECK(t, "no memory for the record of a thread");
  long slack = coir__os_timer_slack(1); /* deadlines are met as well as the clock allows, and not 50 us later */
  void **alt_stack = self ? &self->alt_stack : &w->alt_stack;
  coir__overflow_arm_thread(t, *alt_stack); /* the signal that pauses it uses it, too */
  *alt_stack = NULL;
  coir__switch_prepare_thread(t);
  coir__preempt_arm_thread(rt, t);
  t->tells = is_ours && rt->config.on_thread;
  atm_store_rlx(&t->carries, 1);
  struct coir__thrown thrown = coir__thrown_take(t->thrown); /* a handler may have called coir_run */
  uint32_t was = coir__go_in();
  if (self) w = extra_wait(self);
  if (!w) w = spare_wait(rt, t, self);
  while (w && !coir__worker_loop(w, t)) {
    queue_away(t);
    w = spare_wait(rt, t, self);
  }
  coir__go_out(&was);
  coir__thrown_give(t->thrown, &thrown);
  atm_store_rlx(&t->carries, 0);
  coir__preempt_disarm_thread(t); /* the runtime may be gone, if it was an extra thread that went by itself */
  coir__overflow_disarm_thread(t);
  coir__os_timer_slack(slack);
}

void coir__carry(struct coir__worker *w, bool is_ours) { carry(w->rt, w, NULL, is_ours); }

void coir__carry_begin(struct coir__worker *w, struct coir__thread *t) {
  w->errno_location = t->errno_location;
  w->thrown = t->thrown;
  atm_store_rel(&w->thread, t);
  atm_store_rel(&t->worker, w); /* last: from here on it may be taken, unless the thread is inside */
}

void coir__carry_end(struct coir__worker *w, struct coir__thread *t) {
  coir__lock(&t->owner);
  t->away = NULL;
  atm_store_rlx(&t->worker, NULL);
  atm_store_rlx(&w->thread, NULL);
  coir__unlock(&t->owner);
}

/* Not inlined: pthread_self() has no place in a function that goes on to run fibers (docs/tls.md). */
static __attribute__((noinline)) void extra_link(struct coir_runtime *rt, struct coir__extra *e) {
  e->pthread = pthread_self();
  coir__lock(&rt->spare_lock);
  e->next = rt->extras;
  rt->extras = e;
  coir__unlock(&rt->spare_lock);
}

static void *extra_main(void *extra) {
  struct coir__extra *e = extra;
  extra_link(e->rt, e);
  carry(e->rt, NULL, e, true);
  return NULL;
}

/* An extra thread that waits at its gate; NULL: there are enough, or none could be made. */
static struct coir__extra *extra_make(struct coir_runtime *rt) {
  struct coir__extra *e = coir__alloc(NULL, sizeof *e);
  if (!e) return NULL;
  e->rt = rt;
  e->alt_stack = coir__alt_stack_make();
  coir__lock(&rt->spare_lock);
  bool is_room = e->alt_stack && atm_load_rlx(&rt->extra_count) < rt->config.spares_max;
  if (is_room) atm_add_rlx(&rt->extra_count, 1);
  coir__unlock(&rt->spare_lock);
  pthread_t unused;
  if (!is_room || coir__os_thread_start(&unused, "coir-spare", extra_main, e) != 0) {
    if (is_room) atm_add_rlx(&rt->extra_count, -1);
    coir__alt_stack_free(e->alt_stack);
    coir__free(NULL, e, sizeof *e);
    return NULL;
  }
  while (atm_load_acq(&e->gate) == GATE_STARTING) coir__os_futex_wait(&e->gate, GATE_STARTING, COIR_NEVER);
  return e;
}

static void extra_open(struct coir__extra *e, struct coir__worker *w) {
  e->worker = w;
  atm_store_rel(&e->gate, GATE_OPEN); /* pairs with the acquire in extra_wait() */
  coir__os_futex_wake(&e->gate, 1);   /* it may be gone by now; the system does not mind */
}

bool coir__carry_spare(struct coir_runtime *rt) {
  struct coir__extra *e = extra_make(rt);
  if (e) extra_open(e, NULL);
  return e != NULL;
}

/* One that was counted may not be in the list yet. */
void coir__carry_join(struct coir_runtime *rt) {
  for (;;) {
    coir__lock(&rt->spare_lock);
    int count = atm_load_rlx(&rt->extra_count);
    struct coir__extra *e = rt->extras;
    if (e) extra_unlink(rt, e);
    coir__unlock(&rt->spare_lock);
    if (count == 0) return;
    if (!e) coir__os_thread_yield();
    else {
      pthread_join(e->pthread, NULL);
      coir__free(NULL, e, sizeof *e);
    }
  }
}

/* ---- Heirs ----------------------------------------------------------------------------------------------------- */

/* A thread that can carry on with a worker, found before the worker is given up. */
struct heir {
  struct coir__thread *spare;
  struct coir__extra *extra;
};

static bool heir_find(struct coir_runtime *rt, struct heir *h, bool may_make) {
  *h = (struct heir){.spare = spare_take(rt)};
  if (!h->spare && may_make) h->extra = extra_make(rt);
  return h->spare || h->extra;
}

/* w: NULL, it is not needed after all. */
static void heir_give(struct coir_runtime *rt, const struct heir *h, struct coir__worker *w) {
  if (h->extra) {
    extra_open(h->extra, w);
    return;
  }
  if (w) atm_store_rel(&h->spare->heir_to, w); /* all that was done with it; pairs with the acquire in spare_wait() */
  else spare_put(rt, h->spare);
  coir__thread_wake(h->spare); /* also if it stays: the phase may have become HALT */
}

/* ---- Being away ------------------------------------------------------------------------------------------------ */

/* As the owner: between two attempts to take it a worker may be back for a moment. */
struct coir__worker *coir__carried_after(struct coir__thread *t) {
  if (!atm_load_rlx(&t->carries)) return NULL;
  for (;;) {
    coir__lock(&t->owner);
    struct coir__worker *w = atm_load_rlx(&t->worker);
    bool is_paused = atm_load_rlx(&t->paused);
    coir__unlock(&t->owner);
    if (!is_paused) return w;
    coir__preempt_sleep(t);
  }
}

struct coir_fiber *coir__me(void) {
  struct coir__thread *t = coir__thread_peek();
  if (!t) return NULL;
  struct coir__worker *w = coir__carried();
  return w ? w->current : t->is_taken ? t->away : NULL;
}

struct coir_runtime *coir__away_from(void) {
  struct coir__thread *t = coir__thread_peek();
  struct coir_runtime *rt = t && !coir__carried() && t->away ? t->away->rt : NULL;
  return rt && !atm_load_acq(&rt->forked) ? rt : NULL;
}

struct coir_runtime *coir__caller_runtime(struct coir__worker *w) {
  struct coir_runtime *away = w ? NULL : coir__away_from();
  return w ? w->rt : away ? away : coir_runtime_default();
}

/* The fiber leaves its thread, and goes on when somebody else runs it: on the worker that is returned. */
static struct coir__worker *leave_thread(struct coir__thread *t) {
  struct coir_fiber *f = t->away;
  __atomic_fetch_and(&f->b.more, (uint8_t)~(COIR__MORE_AWAY | COIR__MORE_PAUSED), __ATOMIC_RELAXED);
  return coir__switch_home(t, f);
}

struct coir__worker *coir__go_home(struct coir__thread *t, int64_t deadline) {
  struct coir__worker *w = t ? coir__carried_after(t) : NULL;
  if (w || !t || !t->away || !t->is_taken || deadline <= 0) return w;
  if (!atm_load_acq(&t->away->rt->forked)) return leave_thread(t);
  t->away = NULL; /* nobody is left to go on with */
  return NULL;
}

uint32_t coir__rests_inside(void) {
  const struct coir__worker *w = coir__carried();
  const struct coir_fiber *f = coir__me();
  if (!f || f->waiter.holds) return f || w;
  return w ? w->outside : 0;
}

struct coir__worker *coir__come_in_slowly(void) {
  coir__sim_pass();
  struct coir__thread *t = coir__thread_peek();
  atm_store_rlx(&t->in, 1);
  coir__fence_light(); /* as in coir__look_inside */
  return atm_load_acq(&t->worker);
}

void coir__go_out_slowly(uint32_t was) {
  if (was == COIR__IN_SIMULATED) coir__sim_pass();
  struct coir__thread *t = coir__thread_peek();
  if (t) atm_store_rel(&t->in, was == COIR__IN_UNKNOWN ? 0 : was); /* as coir__go_out */
}

void coir__go_outside(void) {
  struct coir__thread *t = coir__thread_peek();
  if (!t) return;
  uint32_t rests = coir__rests_inside();
  atm_store_rel(&t->in, rests); /* as coir__go_out */
  COIR__LEFT(t, rests);
}

void coir__go_outside_staying(void) {
  struct coir__thread *t = coir__thread_peek();
  if (!t) return;
  uint32_t rests = coir__rests_inside() & 1;
  atm_store_rel(&t->in, rests); /* as coir__go_out */
  COIR__LEFT(t, rests);
}

/* ---- Giving and taking ----------------------------------------------------------------------------------------- */

/* The fiber that w runs stays behind with its thread t, whose owner the caller is; nobody carries w now. */
static void separate(struct coir__worker *w, struct coir__thread *t, enum coir__reason reason, int64_t now) {
  struct coir_fiber *f = w->current;
  atm_store_rlx(&f->waits_on, (uint64_t)reason);
  atm_store_rlx(&f->since, now);
  __atomic_fetch_or(&f->b.more, COIR__MORE_AWAY, __ATOMIC_RELAXED);
  atm_show(&f->b.worker, (int16_t)w->index);
  atm_show(&t->away, f);
  t->away_depth = 0;
  t->cpu_seen = 0;
  t->is_taken = reason == COIR__REASON_AWAY;
  if (COIR_UNLIKELY(w->rt->sim != NULL)) coir__sim_away(w->rt, 1);
  atm_store_rlx(&t->worker, NULL);
  atm_store_rlx(&w->thread, NULL);
#if defined(COIR_TRACE)
  w->left = f->id;
#endif
  atm_show(&w->current, NULL);
  atm_bump(&w->counts.handoffs, 1);
}

enum coir__taken coir__carry_take(struct coir__worker *w, bool pauses, int64_t now) {
  struct coir_runtime *rt = w->rt;
  struct coir__thread *t = atm_load_acq(&w->thread);
  struct heir heir;
  if (!t || atm_load_rlx(&t->in)) return COIR__TAKEN_INSIDE;
  /* Nobody is made here: whom that waits for, memory's lock, may be what is to be taken from (preempt.c). */
  if (atm_load_rlx(&w->has_pinned) || !heir_find(rt, &heir, false)) return COIR__TAKEN_NOT;
  bool is_taken = false, is_owner = coir__lock_try(&t->owner);
  if (is_owner && atm_load_rlx(&t->worker) == w) {
    atm_store_rlx(&t->worker, NULL);
    coir__fence_heavy(); /* pairs with the light fence in coir__go_in */
    /* Acquire: what the thread has done with the worker. Pairs with the release in coir__go_out. */
    is_taken = !atm_load_acq(&t->in) && coir__monitor_sees(w);
    if (!is_taken) atm_store_rel(&t->worker, w);
  }
  if (is_taken) {
    separate(w, t, COIR__REASON_AWAY, now);
    if (pauses) coir__preempt_pause(t, now - w->watch.since);
    if (w->runs_hog) w->hog_at = now; /* as long as a quantum the others go first */
    w->runs_hog = false;
  }
  if (is_owner) coir__unlock(&t->owner); /* first: the heir may want it at once, when it is the fiber's turn again */
  heir_give(rt, &heir, is_taken ? w : NULL);
  return is_taken ? COIR__TAKEN : COIR__TAKEN_INSIDE;
}

#if defined(COIR__ROUGH)
void coir__carry_lose(struct coir__thread *t) {
  struct coir__worker *w;
  struct heir heir;
  uint32_t was = coir__go_in_on(&w, true);
  int err = *t->errno_location;
  bool may = w && w->current && !atm_load_rlx(&w->has_pinned);
  if (may && !atm_load_acq(&w->rt->forked) && heir_find(w->rt, &heir, false)) {
    coir__lock(&t->owner);
    separate(w, t, COIR__REASON_AWAY, w->looked_at);
    coir__unlock(&t->owner);
    atm_store_sc(&w->rt->monitor_follows, 1); /* as the monitor, when it has taken one */
    heir_give(w->rt, &heir, w);
  }
  *t->errno_location = err;
  atm_store_rel(&t->in, was);
}
#endif

/* The worker was taken away before: the fiber is a plain thread to the end of the section. */
static void enter_away(struct coir__thread *t) {
  coir__lock(&t->owner); /* nobody is to pause it any more */
  atm_store_rlx(&t->away->waits_on, COIR__REASON_BLOCK);
  t->away_depth = 0;
  t->is_taken = false;
  coir__unlock(&t->owner);
}

int coir_block_enter(void) {
  COIR_INSIDE_ON(w);
  struct coir__thread *t = coir__thread_peek();
  struct heir heir;
  if (!w && t && t->away && !t->is_taken) t->away_depth++;
  else if (!w && t && t->away) enter_away(t);
  if (!w || !w->current) return 0;
  if (atm_load_rlx(&w->has_pinned)) return -EBUSY;
  if (!heir_find(w->rt, &heir, true)) return -EAGAIN;
  coir__lock(&t->owner);
  separate(w, t, COIR__REASON_BLOCK, w->looked_at);
  coir__unlock(&t->owner);
  heir_give(w->rt, &heir, w);
  return 0;
}

void coir_block_leave(void) {
  COIR_INSIDE;
  struct coir__thread *t = coir__thread_peek();
  if (!t || coir__carried() || !t->away || t->is_taken) return;
  if (t->away_depth) t->away_depth--;
  else if (atm_load_acq(&t->away->rt->forked)) t->away = NULL; /* nobody is left to go on with */
  else leave_thread(t);
}

int coir_block(void (*fn)(void *arg), void *arg) {
  int rc = coir_block_enter();
  fn(arg);
  coir_block_leave();
  return rc;
}

void coir_hold_begin(void) {
  COIR_INSIDE_TO_WAIT(COIR_NEVER);
  struct coir_fiber *f = coir__me();
  if (!f) return;
  COIR_CHECK(f->waiter.holds < UINT8_MAX, "holds are nested too deeply");
  f->waiter.holds++;
  coir__was = 1; /* and so it stays */
}

void coir_hold_end(void) {
  COIR_INSIDE;
  struct coir_fiber *f = coir__me();
  if (!f) return;
  COIR_CHECK(f->waiter.holds > 0, "coir_hold_end follows a coir_hold_begin of the same fiber");
  if (--f->waiter.holds == 0) coir__was = coir__rests_inside();
}
