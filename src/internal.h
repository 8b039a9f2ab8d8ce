/* Every function that one file of the core calls in another, by file, lowest layer first. A lower file never names a
 * higher one: it calls back through what it was handed. */
#ifndef COIR_SRC_INTERNAL_H
#define COIR_SRC_INTERNAL_H

#include <errno.h> /* the codes, never errno itself */

#include "ctx.h"
#include "list.h"
#include "os.h"
#include "poll.h"
#include "types.h"

/* ---- Checks: broken invariants end the process with a sentence ------------------------------------------------- */

/* Prints "coir: <message> [fiber 7 \"name\"]" and aborts. */
void coir__fatal(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#define COIR_CHECK(x, message)                                                               \
  do {                                                                                       \
    if (COIR_UNLIKELY(!(x))) coir__fatal("%s:%d: %s (%s)", __FILE__, __LINE__, message, #x); \
  } while (0)
#ifdef COIR_DEBUG
#define COIR_DCHECK(x, message) COIR_CHECK(x, message)
#else
#define COIR_DCHECK(x, message) ((void)0)
#endif

static inline struct coir_fiber *coir__waiter_fiber(struct coir__waiter *w) { return (struct coir_fiber *)w; }
static inline struct coir__thread *coir__waiter_thread(struct coir__waiter *w) { return (struct coir__thread *)w; }

static inline const char *coir__name_of(const struct coir_fiber *f) {
  return f->b.flags & COIR__FIBER_NAMED ? f->name : "";
}

/* ---- Memory of a runtime (runtime.c): the allocator hook of its configuration ---------------------------------- */
/* rt NULL: the C library's. */
void *coir__alloc(struct coir_runtime *rt, size_t bytes); /* zeroed; NULL when there is none */
void coir__free(struct coir_runtime *rt, void *memory, size_t bytes);

/* ---- stack.c --------------------------------------------------------------------------------------------------- */
#define COIR__STACK_MIN ((size_t)16 << 10)
#define COIR__STACK_MAX ((size_t)1 << 30)
int coir__depot_create(struct coir_runtime *rt);   /* sets rt->depot; probes the guard mode */
void coir__depot_destroy(struct coir_runtime *rt); /* unmaps every region */
int coir__stack_class(size_t bytes);               /* 0..COIR__STACK_CLASSES-1; -EINVAL out of range */
size_t coir__stack_class_bytes(int size_class);    /* usable bytes */
struct coir__stack *coir__stack_take(struct coir__worker *w,
                                     int size_class);                 /* the hottest; NULL when memory is short */
void coir__stack_give(struct coir__worker *w, struct coir__stack *s); /* never the one that it runs on */
void coir__stack_check(const struct coir__stack *s,
                       const void *sp);         /* canary, where there is no guard: fatal when broken */
void coir__stack_flush(struct coir__worker *w); /* all of its cached stacks to the depot */
size_t coir__stack_used(const struct coir__stack *s, const void *sp);
enum coir_guard coir__stack_guard(const struct coir_runtime *rt);
void coir__stack_stats(struct coir_runtime *rt, struct coir_stats *out); /* fills the stacks_* fields and guard */
int coir__overflow_arm_thread(struct coir__thread *t); /* alternate signal stack, and once the handlers */
void coir__overflow_disarm_thread(struct coir__thread *t);

/* ---- runq.c ---------------------------------------------------------------------------------------------------- */
int coir__runq_init(struct coir__worker *w);
void coir__runq_fini(struct coir__worker *w);
/* pop and push, inline: runq.h */
void coir__runq_push_next(struct coir__worker *w, struct coir_fiber *f); /* owner: runs next, a former one queues */
void coir__runq_push_lifo(struct coir__worker *w, struct coir_fiber *f); /* owner: newest of the deque */
uint64_t coir__runq_length(const struct coir__worker *w);                /* any thread: ring and deque, roughly */
bool coir__runq_has_next(const struct coir__worker *w);                  /* any thread */
/* Takes half of the victim's ring, or one of its deque; with `lone` also a single fiber, or the one in its next slot.
 * Returns one to run; the others are in the thief's ring. NULL: nothing, or the victim was busy. */
struct coir_fiber *coir__runq_steal(struct coir__worker *thief, struct coir__worker *victim, bool lone);
void coir__inbox_send(struct coir__worker *w, struct coir_fiber *f); /* any thread; then wake it */
bool coir__inbox_take(struct coir__worker *w);                       /* owner: to bound list and ring */
void coir__lane_put(struct coir_runtime *rt, struct coir_fiber *f);  /* any thread */
struct coir_fiber *coir__lane_get(struct coir__worker *w, int lane); /* one to run; more to the ring */
static inline int coir__lane_of(const struct coir_fiber *f) { return 1 - f->b.priority; }

/* ---- idle.c ---------------------------------------------------------------------------------------------------- */
void coir__idle_notify_slow(struct coir__worker *w, bool spawned);
/* Work was published in this worker's queues, or in a lane: see that somebody looks. Fibers that were woken are
 * announced only when they are worth it (idle.c). */
static inline void coir__idle_notify(struct coir__worker *w, bool spawned) {
  coir__fence_light(); /* pairs with the heavy fence in coir__idle_sleep: published before the look at who sleeps */
  if (COIR_UNLIKELY(atm_load_rlx(&w->rt->idle_mask) != 0)) coir__idle_notify_slow(w, spawned);
}
void coir__idle_notify_outside(struct coir_runtime *rt);     /* the same from a thread that carries no worker of it */
void coir__idle_wake(struct coir__worker *w);                /* make this worker look at its inbox and phase */
void coir__idle_attention(struct coir_runtime *rt);          /* the same for all of them */
bool coir__idle_search_begin(struct coir__worker *w);        /* may it search? */
void coir__idle_quit(struct coir__worker *w);                /* it leaves the loop for good */
void coir__idle_end(struct coir__worker *w);                 /* it found something to run */
void coir__idle_sleep(struct coir__worker *w);               /* until there may be something to do */
struct coir_fiber *coir__idle_steal(struct coir__worker *w); /* from random victims */

/* ---- timer.c --------------------------------------------------------------------------------------------------- */
void coir__timers_init(struct coir__timers *ts, int64_t now);
void coir__timer_arm(struct coir__timers *ts, struct coir__timer *t); /* deadline, fire are set; any thread */
bool coir__timer_cancel(
    struct coir__timer *t); /* true: it had not fired. On return nobody touches the timer. Any thread */
/* Fires timers whose time has come, earliest first, and stores whom to wake; at most `max` are fired per call. */
int coir__timers_fire(struct coir__timers *ts, int64_t now, struct coir__waiter **wake, int max, int *fired);

/* ---- fiber.c --------------------------------------------------------------------------------------------------- */
/* The worker that the calling thread carries, if any: be it on a fiber, or on the thread's own stack. */
static inline struct coir__worker *coir__carried(void) {
  struct coir__thread *t = coir__thread_peek();
  return t ? t->worker : NULL;
}
/* The worker whose fiber calls; NULL on a plain thread. Ask anew after everything that can suspend. */
static inline struct coir__worker *coir__self(void) {
  struct coir__worker *w = coir__carried();
  return w && w->current ? w : NULL;
}
void coir__switch_prepare_thread(struct coir__thread *t); /* before a thread runs its first fiber */
/* A waiting fiber's wait is over: queue it. `w`: the worker that the calling thread carries, or NULL. */
void coir__ready(struct coir__worker *w, struct coir_fiber *f);
void coir__switch_away(struct coir__worker *w, enum coir__after after); /* next fiber, or the thread's own stack */
void coir__run_fiber(struct coir__worker *w, struct coir_fiber *f);     /* from the thread's own stack; returns there */
void coir__fiber_free(struct coir__worker *w, struct coir_fiber *f);    /* ended, and nobody holds it */
void coir__fibers_drop(struct coir_runtime *rt); /* not running: forgets every fiber that is left */
uint64_t coir__live(struct coir_runtime *rt);    /* spawned and not ended; 0 is reliable (fiber.c says why) */

/* ---- wait.c: the one way to wait ------------------------------------------------------------------------------- */
/* A wait in progress, in the waiter's frame. Use:
 *
 *   struct coir__wait wait;  struct coir__clause clause;
 *   coir__wait_begin(&wait, COIR__REASON_READ, fd, deadline);
 *   coir__lock(&object->q.lock);
 *   if (it is ready after all) { coir__unlock(&object->q.lock); coir__wait_abandon(&wait); done }
 *   coir__wait_add(&wait, &clause, &object->q);          links it
 *   coir__unlock(&object->q.lock);
 *   code = coir__wait(&wait);                            suspends; then unlinks every clause that is still linked
 *
 * Several clauses on several objects may be added, each under its object's lock.
 *
 * Whoever wakes, with the object's lock held: if (coir__claim(clause)) { coir__waitq_unlink(q, clause); hand results
 * over to the waiter's frame } and, the lock given back, coir__wake(waiter). A clause whose claim fails belongs to a
 * waiter that was woken otherwise and will unlink it itself. */
struct coir__wait {
  struct coir__waiter *self;
  struct coir__worker *worker;  /* coir__self() of the waiter as it began; NULL: a plain thread */
  struct coir__clause *clauses; /* all that were added */
  uint64_t open;
  uint32_t count;
  uint32_t timed; /* timer is in use */
  struct coir__timer timer;
};
void coir__wait_begin(struct coir__wait *wait, enum coir__reason reason, uint64_t object, int64_t deadline);
/* The same for who knows coir__self() already. */
void coir__wait_begin_on(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         int64_t deadline);
/* Like it, without deadline, and cancellation does not end it: for what must run to its end. */
void coir__wait_begin_shielded(struct coir__wait *wait, enum coir__reason reason, uint64_t object);
void coir__wait_add(struct coir__wait *wait, struct coir__clause *c, struct coir__waitq *q); /* q->lock is held */
void coir__waitq_unlink(struct coir__waitq *q, struct coir__clause *c);                      /* q->lock is held */
uint32_t coir__wait(struct coir__wait *wait);     /* suspends; returns the code of the claim */
void coir__wait_abandon(struct coir__wait *wait); /* instead of coir__wait: unlinks what was added, too */
void coir__wait_drop(struct coir__wait *wait);    /* the waiter will never run again: unlinks all. Not while it runs */
/* -ETIMEDOUT, -ECANCELED, or the index of the clause. */
static inline int coir__wait_result(uint32_t code) {
  return code == COIR__CODE_TIMEOUT    ? -ETIMEDOUT
         : code == COIR__CODE_CANCELED ? -ECANCELED
                                       : (int)(code - COIR__CODE_CLAUSE);
}
static inline bool coir__claim(const struct coir__clause *c) {
  uint64_t open = c->open;
  /* Acquire and release: who loses sees nothing; who wins orders its results before the wake. */
  return atm_cas_ar(&c->waiter->word, &open, (open & ~COIR__CODE_MASK) | c->code);
}
void coir__wake(struct coir__waiter *waiter); /* by the winner of the claim, once */
void coir__wake_on(struct coir__worker *w,
                   struct coir__waiter *waiter); /* the same; w: what the thread carries, or NULL */
void coir__wait_commit(struct coir__worker *w,
                       struct coir_fiber *f);   /* it is off its stack now: by the code that runs next */
bool coir__cancel_take(struct coir__waiter *w); /* is a cancellation pending? takes it */
void coir__cancel_always(struct coir_fiber *f); /* every wait that it makes from now on ends with -ECANCELED */
const char *coir__reason_name(enum coir__reason reason);

/* ---- block.c: a bounded pool of threads for calls that block --------------------------------------------------- */
/* Runs fn(arg) on a pool thread while the fiber waits; on a plain thread runs it at once. Always runs it to its end:
 * not cancelled, no deadline. `object` is for dumps. Returns 0, or -EAGAIN when not one thread could be made. */
int coir__block_call(void (*fn)(void *arg), void *arg, uint64_t object);
void coir__block_fork_child(void); /* fork, in the child: the pool's threads are the parent's */

/* ---- worker.c -------------------------------------------------------------------------------------------------- */
int coir__worker_create(struct coir_runtime *rt, int index);
void coir__worker_destroy(struct coir__worker *w);
void coir__worker_loop(struct coir__worker *w);  /* until the phase is HALT; the calling thread carries it */
void coir__worker_halt(struct coir_runtime *rt); /* any thread: everyone leaves the loop */

/* ---- balance.c ------------------------------------------------------------------------------------------------- */
void coir__balance(struct coir__worker *w, int64_t now); /* give some away if it has far more than another */

/* ---- slab.c: descriptors --------------------------------------------------------------------------------------- */
struct coir_fiber *coir__fiber_take(struct coir_runtime *rt,
                                    struct coir__worker *w); /* w may be NULL. NULL: no memory */
void coir__fiber_give(struct coir_runtime *rt, struct coir__worker *w, struct coir_fiber *f); /* w may be NULL */
void coir__slabs_destroy(struct coir_runtime *rt);

/* ---- local.c: fiber-local values ------------------------------------------------------------------------------- */
void coir__locals_destroy(struct coir__local *locals); /* calls the destructors, on the caller; they may wait */
void coir__locals_free(struct coir_runtime *rt, struct coir__local *locals); /* NULL does nothing */
void coir__locals_thread_ended(struct coir__thread *t);

/* ---- config.c -------------------------------------------------------------------------------------------------- */
int coir__config_fill(struct coir_config *out, const struct coir_config *in); /* every default filled in; or -EINVAL */

/* ---- runtime.c ------------------------------------------------------------------------------------------------- */
void coir__runtime_idle(struct coir_runtime *rt); /* by a worker that found nothing to do: is it the end? */

#endif
