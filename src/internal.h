/* Every function that one file of the core calls in another, by file, lowest layer first. A lower file never names a
 * higher one: it calls back through what it was handed. */
#ifndef COIR_SRC_INTERNAL_H
#define COIR_SRC_INTERNAL_H

#include <errno.h> /* the codes, never errno itself */

#include "ctx.h"
#include "list.h"
#include "os.h"
#include "poller.h"
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

/* Exceptions of C++ that a thread is in the middle of. Who leaves a stack takes them, and leaves none to who goes on
 * there; who comes back gives them to the thread that it is on by then. Where nothing ever throws, no word is written:
 * threads share it. */
static inline bool coir__is_throwing(const struct coir__thrown *t) { return ((uintptr_t)t->caught | t->uncaught) != 0; }
static inline struct coir__thrown coir__thrown_take(struct coir__thrown *t) {
  struct coir__thrown taken = *t;
  if (COIR_UNLIKELY(coir__is_throwing(&taken))) *t = (struct coir__thrown){0};
  return taken;
}
static inline void coir__thrown_give(struct coir__thrown *t, const struct coir__thrown *taken) {
  if (COIR_UNLIKELY(coir__is_throwing(taken))) *t = *taken;
}

static inline struct coir_fiber *coir__waiter_fiber(struct coir__waiter *w) { return (struct coir_fiber *)w; }
static inline struct coir__thread *coir__waiter_thread(struct coir__waiter *w) { return (struct coir__thread *)w; }

void coir__name_copy(const struct coir_fiber *f, char *out); /* any thread, at any time; room for COIR__NAME_MAX */

static inline const char *coir__name_of(const struct coir_fiber *f) {
  return f->b.flags & COIR__FIBER_NAMED ? f->name : "";
}

/* Lists and backtraces are made while the fibers go on. Their owners write plain words, for the sake of speed; a look
 * at one reads it once and whole, so that each is true at some moment. Sanitizers are told not to mind: functions that
 * look are marked PEEKS. */
#define PEEK(x) (*(const volatile __typeof__(x) *)&(x))
#if defined(COIR_TSAN)
#define PEEKS __attribute__((no_sanitize("thread"), noinline))
#elif defined(COIR_ASAN)
#define PEEKS __attribute__((no_sanitize("address"), noinline))
#else
#define PEEKS
#endif

/* ---- Memory of a runtime (runtime.c): the allocator hook of its configuration ---------------------------------- */
/* rt NULL: the C library's. */
void *coir__alloc(struct coir_runtime *rt, size_t bytes); /* zeroed; NULL when there is none */
void coir__free(struct coir_runtime *rt, void *memory, size_t bytes);

/* The first line in it, of an allocation with COIR__LINE bytes to spare: allocators give 16 bytes of alignment. */
static inline void *coir__line_up(void *memory) {
  return (void *)(((uintptr_t)memory + COIR__LINE - 1) & ~(uintptr_t)(COIR__LINE - 1));
}

/* ---- stack.c --------------------------------------------------------------------------------------------------- */
#define COIR__STACK_MIN ((size_t)16 << 10)
#define COIR__STACK_MAX ((size_t)1 << 30)
int coir__depot_create(struct coir_runtime *rt);   /* sets rt->depot; probes the guard mode */
void coir__depot_destroy(struct coir_runtime *rt); /* unmaps every region */
/* One for so many workers; rt NULL: it is of no runtime, and stays for good. NULL: memory is short. */
struct coir__depot *coir__depot_make(struct coir_runtime *rt, const struct coir_config *config, uint64_t workers);
int coir__stack_class(size_t bytes);               /* 0..COIR__STACK_CLASSES-1; -EINVAL out of range */
size_t coir__stack_class_bytes(int size_class);    /* usable bytes */
struct coir__stack *coir__stack_take(struct coir__worker *w,
                                     int size_class);                 /* the hottest; NULL when memory is short */
void coir__stack_give(struct coir__worker *w, struct coir__stack *s); /* never the one that it runs on */
/* The same for who needs no worker: straight from the depot, and to it. Any thread. */
struct coir__stack *coir__stack_take_from(struct coir__depot *d, int size_class);
void coir__stack_give_to(struct coir__depot *d, struct coir__stack *s);
void coir__stack_forget(struct coir__stack *s); /* nobody will go on on what is on it */
void coir__stack_forgive(struct coir__stack *s); /* before that: tells those who wait for functions on it to return */
void coir__stack_check(const struct coir__stack *s,
                       const void *sp);         /* canary, where there is no guard: fatal when broken */
void coir__stack_flush(struct coir__worker *w); /* all of its cached stacks to the depot */
/* By workers, now and then: discards some of what the depot has kept warm for long, if it is time. False: nothing. */
bool coir__stack_cool(struct coir_runtime *rt, int64_t now);
bool coir__stack_has_surplus(const struct coir_runtime *rt); /* some of it may have to be discarded */
size_t coir__stack_used(const struct coir__stack *s, const void *sp);
enum coir_guard coir__stack_guard(const struct coir_runtime *rt);
void coir__stack_fork_prepare(void); /* fork: before it, and after it in both processes */
void coir__stack_fork_done(void);
void coir__stack_stats(struct coir_runtime *rt, struct coir_stats *out); /* fills the stacks_* fields and guard */
void *coir__alt_stack_make(void); /* memory for an alternate signal stack; NULL: there is none */
void coir__alt_stack_free(void *memory);
void coir__overflow_arm_thread(struct coir__thread *t, void *memory); /* takes that over; and once the handlers */
void coir__overflow_disarm_thread(struct coir__thread *t);

/* ---- bias.c: locks that lean towards one worker ----------------------------------------------------------------- */
void coir__bias_attach(struct coir__worker *w); /* gives a new worker a word of its own */
void coir__bias_detach(struct coir__worker *w);
void coir__bias_fork_child(void);
void coir__bias_lock_slow(struct coir__worker *w, struct coir__bias *l);

/* Locks if the lock leans to `w`, and leaves what was locked so: for paths that give up otherwise. */
COIR_INLINE bool coir__bias_enter(struct coir__worker *w, struct coir__bias *l) {
  if (COIR_UNLIKELY(atm_load_rlx(&l->owner) != w->bias)) return false;
  COIR_DCHECK(!atm_load_rlx(w->inside), "no two such locks are held at once");
  /* Release: whoever finds that we are inside something else by now sees what we did in the former. */
  atm_store_rel(w->inside, l);
  /* Our word before the look at the name; pairs with the heavy fence in evict(). A light fence: where those are real
   * ones, no lock leans. */
  atomic_signal_fence(memory_order_seq_cst);
  if (COIR_LIKELY(atm_load_rlx(&l->owner) == w->bias)) return true;
  atm_store_rel(w->inside, NULL);
  return false;
}
static inline void coir__bias_leave(struct coir__worker *w) {
  atm_store_rel(w->inside, NULL); /* as in coir__bias_unlock */
}

/* Whether anybody may be inside. What an owner does inside shows here before it shows outside. */
bool coir__bias_is_held(struct coir__bias *l);

/* `w`: the worker that the calling thread carries, or NULL; the same for both. */
static inline void coir__bias_lock(struct coir__worker *w, struct coir__bias *l) {
  if (COIR_LIKELY(w && atm_load_rlx(&l->owner) == w->bias)) {
    COIR_DCHECK(!atm_load_rlx(w->inside), "no two such locks are held at once");
    /* Release: whoever finds that we are inside something else by now sees what we did in the former. */
    atm_store_rel(w->inside, l);
    /* Our word before the look at the name; pairs with the heavy fence in evict(). This is a light fence: where those
     * are real ones, nobody owns a lock. */
    atomic_signal_fence(memory_order_seq_cst);
    if (COIR_LIKELY(atm_load_rlx(&l->owner) == w->bias)) return;
    atm_store_rel(w->inside, NULL);
  }
  coir__bias_lock_slow(w, l);
}

COIR_INLINE void coir__bias_unlock(struct coir__worker *w, struct coir__bias *l) {
  /* Release: pairs with the acquire in evict(). Afterwards the lock's memory may be gone. */
  if (COIR_LIKELY(w && atm_load_rlx(w->inside) == l)) atm_store_rel(w->inside, NULL);
  else coir__unlock(&l->lock);
}

/* ---- runq.c ---------------------------------------------------------------------------------------------------- */
int coir__runq_init(struct coir__worker *w);
void coir__runq_fini(struct coir__worker *w);
/* pop, push, and the next slot, inline: runq.h */
void coir__runq_push_lifo(struct coir__worker *w, struct coir_fiber *f); /* owner: newest of the deque */
/* Owner: what depth-first work may pass over for ever: the oldest of the ring, or of the deque. */
struct coir_fiber *coir__runq_pop_aged(struct coir__worker *w, bool deepest);
uint64_t coir__runq_length(const struct coir__worker *w);                /* any thread: ring and deque, roughly */
bool coir__runq_has_next(const struct coir__worker *w);                  /* any thread */
bool coir__runq_has_lean(const struct coir__worker *w); /* owner: the newest of the deque has no fiber yet */
/* Takes half of what stands behind the oldest of the victim's ring, or one of its deque; with `lone` also a single
 * fiber, or the one in its next slot.
 * Returns one to run; the others are in the thief's ring. NULL: nothing, or the victim was busy. */
struct coir_fiber *coir__runq_steal(struct coir__worker *thief, struct coir__worker *victim, bool lone);
void coir__inbox_send(struct coir__worker *w, struct coir_fiber *f); /* any thread; then wake it */
bool coir__inbox_take(struct coir__worker *w);                       /* owner: to bound list and ring */
void coir__lane_put(struct coir_runtime *rt, struct coir_fiber *f);  /* any thread: by its priority */
/* `first`: before all others there. */
void coir__lane_put_in(struct coir_runtime *rt, struct coir_fiber *f, int lane, bool first);
bool coir__lane_remove(struct coir_runtime *rt, struct coir_fiber *f, int lane); /* any thread. False: not there */
struct coir_fiber *coir__lane_get(struct coir__worker *w, int lane); /* one to run; more to the ring */
void coir__lane_to_ring(struct coir__worker *w); /* all of the normal lane; no other worker runs */
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
int coir__idle_runtimes(void);                               /* how many there are whose workers all sleep deeply */
void coir__idle_fork_child(void);                            /* fork, in the child: none */
/* By the monitor, now and then: wakes who has missed an announcement, for want of the heavy fence; and the watcher,
 * where a worker that is stuck has something. */
void coir__idle_remind(struct coir_runtime *rt, bool is_stuck);
void coir__idle_quit(struct coir__worker *w);                /* it leaves the loop for good */
void coir__idle_mind(struct coir__post *post);               /* what the thread of a shared poller does, until HALT */
void coir__idle_dismiss(struct coir__post *post);            /* any thread, once the phase is HALT: ends that */
int coir__idle_poll(struct coir__worker *w, struct coir__poller *p, int64_t deadline); /* delivers, counts */
void coir__idle_end(struct coir__worker *w);                 /* it found something to run */
void coir__idle_sleep(struct coir__worker *w);               /* until there may be something to do */
struct coir_fiber *coir__idle_steal(struct coir__worker *w); /* from random victims */

/* ---- timer.c --------------------------------------------------------------------------------------------------- */
void coir__timers_init(struct coir__timers *ts, int64_t now);
void coir__timers_fini(struct coir__timers *ts); /* what is left will never come, but may still be cancelled */
void coir__timer_arm(struct coir__timers *ts, struct coir__timer *t); /* deadline, fire are set; any thread */
bool coir__timer_cancel(
    struct coir__timer *t); /* true: it had not fired. On return nobody touches the timer. Any thread */
/* Fires timers whose time has come, earliest first, and stores whom to wake; at most `max` are fired per call. Alarms
 * are put on ts->alarms, for coir__alarms_run. */
int coir__timers_fire(struct coir__timers *ts, int64_t now, struct coir__waiter **wake, int max, int *fired);
/* The same for alarms; `run` is set. Arming wakes the worker if need be; it does nothing where that is the parent's. */
void coir__alarm_arm(struct coir__worker *w, struct coir__alarm *alarm, int64_t deadline); /* any thread */
/* The same without waking anybody. */
void coir__alarm_arm_in(struct coir__timers *ts, struct coir__alarm *alarm, int64_t deadline);
/* Returns true: it was armed, and will not come. False: it was not, or has come. On return nobody touches it. Any
 * thread, but not from its `run`. */
bool coir__alarm_cancel(struct coir__alarm *alarm);
void coir__alarms_run(struct coir__timers *ts, struct coir__worker *w, int64_t now);
void coir__alarms_fork_child(void); /* fork, in the child: those that were armed or running are not so here */

/* ---- keeper.c: alarms that belong to no worker ----------------------------------------------------------------- */
int coir__keeper_start(void); /* once it has returned 0, alarms can be armed. -ENOMEM, -EAGAIN */
void coir__keeper_fork_child(void); /* repeatedly */
void coir__keeper_arm(struct coir__alarm *alarm, int64_t deadline); /* like coir__alarm_arm; `run` gets no worker */
bool coir__keeper_is_idle(void); /* it has no alarm that might wake anybody */
/* Has the keeper, which has started, call run(now) at `at`, and again whenever that says, until it says COIR_NEVER;
 * only then it may be asked again. There is one such chore. It is no alarm, since it wakes nobody but who waits for a
 * descriptor. */
typedef int64_t (*coir__chore)(int64_t now);
void coir__keeper_chore(coir__chore run, int64_t at);

/* ---- trace.c: hooks -------------------------------------------------------------------------------------------- */
#if defined(COIR_TRACE)
void coir__trace_begin(struct coir__worker *w); /* before its first fiber; its runtime counts as running */
void coir__trace_fork_child(void);
void coir__trace_enter(const struct coir__worker *w, const struct coir_fiber *f); /* f is about to run */
void coir__trace_leave(const struct coir__worker *w, uint64_t id); /* it is back; what it left behind is not seen to */
void coir__trace_wait(const struct coir__worker *w, const struct coir_fiber *f); /* its wait is about to be committed */
#endif

/* ---- sim.c: simulated runtimes --------------------------------------------------------------------------------- */
int coir__sim_create(struct coir_runtime *rt); /* once it has its workers: sets rt->sim. -ENOMEM */
void coir__sim_destroy(struct coir_runtime *rt);
/* On a fiber that comes into the library or leaves it, where nothing is locked: others may run first. */
void coir__sim_pass(void);
struct coir_fiber *coir__sim_next(struct coir__worker *w); /* instead of the loop's look around: what runs; or NULL */
void coir__sim_rest(struct coir__worker *w);               /* instead of sleeping: its time goes on */
void coir__sim_away(struct coir_runtime *rt, int change);  /* so many fibers more block beside its worker */
void coir__sim_over(struct coir__worker *w);               /* its loop ends */
bool coir__sim_fails(void);                               /* whether a call of the calling fiber is to fail now */
/* What is on the way into a call on a descriptor. `bytes`: what a stream is to transfer, which may become less; NULL:
 * this one transfers all or nothing. `error`: how it may fail. 0, that, or as coir_sleep. */
int coir__sim_transfer(int fd, size_t *bytes, int error, int64_t deadline);
bool coir__sim_interrupts(void); /* whether a signal ends the system call that the calling fiber is about to make */
void coir__sim_waits(int fd);    /* the calling fiber is about to wait for it: an event may come that tells nothing */

/* ---- hard.c: builds with COIR_HARD ----------------------------------------------------------------------------- */
#if defined(COIR__ROUGH)
void coir__hard_tell_seed(void);
bool coir__hard_chance(struct coir__thread *t, uint32_t one_in); /* t: the calling thread */
void coir__hard_left(struct coir__thread *t);                    /* the calling thread has just left the library */
void coir__hard_leave_waiting(const bool *may_switch);           /* and might have waited there */
bool coir__hard_migrates(const struct coir__worker *w); /* who stops there, and belongs nowhere, goes to another */
void coir__hard_migrate(struct coir__worker *w, struct coir_fiber *f);
/* What w has taken from the lane. NULL: it was put back, for another one. */
struct coir_fiber *coir__hard_pass_over(struct coir__worker *w, struct coir_fiber *f);
void coir__hard_poison_stack(struct coir__stack *s);
void coir__hard_check_stack(struct coir__stack *s);
void coir__hard_poison_fiber(struct coir_fiber *f);
void coir__hard_check_fiber(struct coir_fiber *f);
#define COIR__LEFT(t, was) ((was) ? (void)0 : coir__hard_left(t))
#define COIR__MAY_SWITCH(deadline) \
  bool coir__may_switch __attribute__((cleanup(coir__hard_leave_waiting), unused)) = (deadline) > 0
#else
#define coir__hard_tell_seed() ((void)0)
#define coir__hard_chance(t, one_in) false
#define coir__hard_migrates(w) false
#define coir__hard_migrate(w, f) ((void)0)
#define coir__hard_pass_over(w, f) (f)
#define coir__hard_poison_stack(s) ((void)0)
#define coir__hard_check_stack(s) ((void)0)
#define coir__hard_poison_fiber(f) ((void)0)
#define coir__hard_check_fiber(f) ((void)0)
#define COIR__LEFT(t, was) ((void)0)
#define COIR__MAY_SWITCH(deadline) ((void)0)
#endif

/* ---- fiber.c --------------------------------------------------------------------------------------------------- */
/* Every call of the library that asks who calls begins with one of these two, and so is inside to its end: the worker
 * that its thread carries cannot be taken away meanwhile, but it may have been before (carry.c). What suspends comes
 * back inside, on whatever thread. Where the library calls the program it is outside: COIR_OUTSIDE.
 *
 * COIR_INSIDE: a call that does not wait. Where the worker has been taken away it finds none, like one from a plain
 * thread; coir__me() still tells who calls. COIR_INSIDE_TO_WAIT: one that may wait, unless `deadline` is past: there a
 * fiber whose worker has been taken away first queues for another one, and goes on on that one's thread. With _ON they
 * declare `w`, which is what coir__carried() would return. */
#define COIR_INSIDE COIR_INSIDE_ON(coir__unused_worker)
#define COIR_INSIDE_TO_WAIT(deadline) COIR_INSIDE_TO_WAIT_ON(coir__unused_worker, deadline)
#define COIR_INSIDE_ON(w)                                    \
  struct coir__worker *w __attribute__((unused));            \
  uint32_t coir__was COIR__LEAVES = coir__go_in_on(&w, true)
#define COIR_INSIDE_TO_WAIT_ON(w, deadline)                          \
  struct coir__worker *w __attribute__((unused));                    \
  COIR__MAY_SWITCH(deadline);                                        \
  uint32_t coir__was COIR__LEAVES = coir__go_in_to_wait_on(&w, deadline)
/* The same, inlined: for the few calls of which a program makes millions a second. */
#define COIR_INSIDE_INLINED_ON(w)                         \
  struct coir__worker *w __attribute__((unused));         \
  uint32_t coir__was COIR__LEAVES = coir__look_inside(&w); \
  if (COIR_UNLIKELY(!w)) w = coir__carried_late()
#define COIR_INSIDE_TO_WAIT_INLINED_ON(w, deadline)       \
  struct coir__worker *w __attribute__((unused));         \
  COIR__MAY_SWITCH(deadline);                             \
  uint32_t coir__was COIR__LEAVES = coir__look_inside(&w); \
  if (COIR_UNLIKELY(!w)) w = coir__go_home(coir__thread_peek(), deadline)
#define COIR__LEAVES __attribute__((cleanup(coir__go_out), unused))
struct coir__worker *coir__go_home(struct coir__thread *t, int64_t deadline);
/* The thread has seen that it carries no worker; waits for the verdict of who may be taking it. And, when it is paused,
 * for its turn: so it is asked first thing in a call, while nothing is locked. */
struct coir__worker *coir__carried_after(struct coir__thread *t);

/* As carried_after, for a thread that Coir may not know. */
static inline struct coir__worker *coir__carried_late(void) {
  struct coir__thread *t = coir__thread_peek();
  return t ? coir__carried_after(t) : NULL;
}

struct coir__worker *coir__come_in_slowly(void) __attribute__((cold)); /* to a simulated runtime */
void coir__go_out_slowly(uint32_t was) __attribute__((cold)); /* from one, or by a thread that had no record */

COIR_INLINE uint32_t coir__look_inside(struct coir__worker **out) {
  struct coir__thread *t = coir__thread_peek();
  *out = NULL;
  if (COIR_UNLIKELY(!t)) return COIR__IN_UNKNOWN;
  uint32_t was = atm_load_rlx(&t->in);
  if (COIR_UNLIKELY(was > 1)) {
    *out = coir__come_in_slowly();
    return was;
  }
  atm_store_rlx(&t->in, 1);
  coir__fence_light(); /* the word before the look at the worker; pairs with the heavy fence in coir__carry_take */
  *out = atm_load_acq(&t->worker); /* what who gave it did with it */
  return was;
}
COIR_INLINE uint32_t coir__go_in_on(struct coir__worker **out, bool stays) {
  uint32_t was = coir__look_inside(out);
  if (COIR_UNLIKELY(!*out) && stays) *out = coir__carried_late();
  return was;
}
static inline uint32_t coir__go_in_to_wait_on(struct coir__worker **out, int64_t deadline) {
  uint32_t was = coir__look_inside(out);
  if (COIR_UNLIKELY(!*out)) *out = coir__go_home(coir__thread_peek(), deadline);
  return was;
}
static inline uint32_t coir__go_in(void) {
  struct coir__worker *w;
  return coir__go_in_on(&w, true);
}
static inline uint32_t coir__go_in_to_wait(int64_t deadline) {
  struct coir__worker *w;
  return coir__go_in_to_wait_on(&w, deadline);
}
/* As it was before: a call may be made from inside. */
static inline void coir__go_out(const uint32_t *was) {
  if (COIR_LIKELY(*was <= 1)) {
    struct coir__thread *t = coir__thread_peek();
    atm_store_rel(&t->in, *was); /* what it did with the worker; see coir__carry_take */
    COIR__LEFT(t, *was);
  } else coir__go_out_slowly(*was);
}
/* The same for who knows its worker, and that the thread which carries that is the calling one. */
static inline void coir__go_out_on(struct coir__worker *w, uint32_t was) {
  struct coir__thread *t = atm_load_rlx(&w->thread);
  atm_store_rel(&t->in, was);
  COIR__LEFT(t, was);
}
/* Whether the caller is inside even in code of its own: it holds its worker, or is no fiber and carries one. */
uint32_t coir__rests_inside(void);
/* Around a call of what the program brought, which may do anything; on a fiber. */
void coir__go_outside(void);
void coir__go_outside_staying(void);
#define COIR_OUTSIDE(call)                 \
  do {                                     \
    coir__go_outside();                    \
    call;                                  \
    (void)coir__go_in_to_wait(COIR_NEVER); \
  } while (0)

/* Around what blocks the thread in the library, on a fiber or a plain thread; it stays on its thread, and may have
 * locked something. */
#define COIR_OUTSIDE_STAYING(call) \
  do {                             \
    coir__go_outside_staying();    \
    call;                          \
    (void)coir__go_in();           \
  } while (0)

/* The worker that the calling thread carries, if any: be it on a fiber, or on the thread's own stack. */
static inline struct coir__worker *coir__carried(void) {
  struct coir__thread *t = coir__thread_peek();
  struct coir__worker *w = t ? atm_load_acq(&t->worker) : NULL;
  if (COIR_UNLIKELY(!w)) return t ? coir__carried_after(t) : NULL;
  COIR_DCHECK(atm_load_rlx(&t->in), "who looks at its worker is inside");
  return w;
}
/* The worker whose fiber calls; NULL on a plain thread. Ask anew after everything that can suspend. */
static inline struct coir__worker *coir__self_of(struct coir__worker *carried) {
  return carried && carried->current ? carried : NULL;
}
static inline struct coir__worker *coir__self(void) { return coir__self_of(coir__carried()); }
/* The calling fiber, also when its worker has been taken away; NULL: a plain thread. */
struct coir_fiber *coir__me(void);
/* A call that did not have to wait, and may be made in a loop: every so often others run first. May suspend. */
#define COIR__STREAK_MAX 64
void coir__breathe_now(struct coir_fiber *f);
static inline void coir__breathe(struct coir__worker *w) {
  if (w && w->current && ++w->current->b.streak >= COIR__STREAK_MAX) coir__breathe_now(w->current);
}
/* f is ready, as before: queues it behind the others. w: of its runtime, and the caller's to use; or NULL. */
void coir__requeue(struct coir__worker *w, struct coir_fiber *f);
void coir__switch_prepare_thread(struct coir__thread *t); /* before a thread runs its first fiber */
void coir__switch_flush(struct coir__worker *w);          /* when a worker has run its last fiber */
/* A waiting fiber's wait is over: queue it. `w`: the worker that the calling thread carries, or NULL. */
void coir__ready(struct coir__worker *w, struct coir_fiber *f);
void coir__switch_away(struct coir__worker *w, enum coir__after after); /* next fiber, or the thread's own stack */
/* From the thread's own stack; returns there, and which worker the thread carries by then: NULL, none. */
struct coir__worker *coir__run_fiber(struct coir__worker *w, struct coir_fiber *f);
/* From a fiber whose thread carries no worker, to the thread's own stack, where coir__run_fiber returns false. Returns
 * when somebody else runs the fiber, and on which worker. */
struct coir__worker *coir__switch_home(struct coir__thread *t, struct coir_fiber *f);
void coir__fiber_free(struct coir__worker *w, struct coir_fiber *f);    /* ended, and nobody holds it */
void coir__fibers_drop(struct coir_runtime *rt); /* not running: forgets every fiber that is left */
/* Spawned and not ended; suspended generators do not count. 0 is reliable (fiber.c says why). */
uint64_t coir__live(struct coir_runtime *rt);
uint64_t coir__fibers_left(struct coir_runtime *rt); /* the same with suspended generators */
/* A generator of the runtime stops counting as live, on its worker; and counts again. w: as in coir__fiber_prepare. */
static inline void coir__count_suspended(struct coir__worker *w) {
  /* Release: what this worker spawned and resumed was counted before. Pairs with the acquire in coir__live. */
  atm_store_rel(&w->counts.suspended, atm_load_rlx(&w->counts.suspended) + 1);
}
static inline void coir__count_resumed(struct coir_runtime *rt, struct coir__worker *w) {
  if (COIR_LIKELY(w != NULL)) atm_bump(&w->counts.resumed, 1);
  else atm_add_sc(&rt->resumed_outside, 1);
}
/* coir_spawn in two steps, for those who have more to set down in the fiber before it may run. The first returns as
 * coir_runtime_spawn does; a fiber that is not published is given back by coir__fiber_free. w: coir__self(), if it is
 * of that runtime, or NULL. */
int coir__fiber_prepare(struct coir_runtime *rt, struct coir__worker *w, coir_fn fn, void *arg,
                        const struct coir_attr *attr, struct coir_fiber **out, bool detached);
void coir__fiber_publish(struct coir__worker *w, struct coir_fiber *f, const struct coir_attr *attr);
/* The same by who is about to wait for it: it runs next. w: coir__self(), of any runtime, or NULL. */
void coir__fiber_publish_next(struct coir__worker *w, struct coir_fiber *f);
int coir__attr_check(const struct coir_runtime *rt, const struct coir_attr *attr); /* -EINVAL, or 0 and more */
void coir__fiber_drop(struct coir_fiber *f); /* its runtime does not run; f waits, and nobody wakes it: forgets it */
/* The fourth line of a fiber that is being prepared, or of the calling one: made valid. */
void coir__fiber_kin(struct coir_fiber *f);
static inline bool coir__has_kin(const struct coir_fiber *f) { return f->b.more & COIR__MORE_KIN; }

/* ---- wait.c: the one way to wait ------------------------------------------------------------------------------- */
/* A wait in progress, in the waiter's frame. Use:
 *
 *   struct coir__wait wait;  struct coir__clause clause;
 *   coir__bias_lock(w, &object->q.lock);
 *   if (it is ready) { coir__bias_unlock(w, &object->q.lock); done }
 *   coir__wait_begin(&wait, COIR__REASON_READ, fd, deadline);
 *   coir__wait_add(&wait, &clause, &object->q);          links it
 *   coir__bias_unlock(w, &object->q.lock);
 *   code = coir__wait(&wait);                            suspends; then unlinks every clause that is still linked
 *
 * Several clauses on several objects may be added, each under its object's lock; then coir__wait_retract takes back a
 * wait that has begun.
 *
 * Where there is one object and one clause, coir__waitq_wait does all of this.
 *
 * Whoever wakes, with the object's lock held: if (coir__claim(clause)) { coir__clause_unlink(clause); hand results over
 * to the waiter's frame } and, the lock given back, coir__wake(waiter). A clause whose claim fails belongs to a waiter
 * that was woken otherwise and will unlink it itself, unless it finds it unlinked. coir__waitq_take and _take_all do
 * this for the first, and for all. */
struct coir__wait {
  struct coir__waiter *self;
  struct coir__worker *worker;  /* coir__self() of the waiter as it began; NULL: a plain thread */
  struct coir__clause *clauses; /* all that were added */
  uint64_t open;
  uint32_t count;
  uint32_t has; /* COIR__WAIT_* */
  struct coir__timer timer;
  void (*leave)(struct coir__waitq *q, struct coir__clause *c, bool given);
};
#define COIR__WAIT_TIMER 1u /* timer is in use */
#define COIR__WAIT_LEAVE 2u /* leave(q, its only clause, false) is called when the waiter has given up and is not linked
                               any more, by itself. By who drops it, too, and with true if it had been claimed */
void coir__wait_begin(struct coir__wait *wait, enum coir__reason reason, uint64_t object, int64_t deadline);
/* The same for who knows coir__self() already. */
void coir__wait_begin_on(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         int64_t deadline);
/* Like it, without deadline, from another open word. COIR__CODE_SHIELDED: cancellation does not end it;
 * COIR__CODE_RELAY: coir__wait returns COIR__CODE_CANCELED to say that a cancellation is pending, which it neither
 * takes nor ends the wait with: the clauses are still linked. w: as coir__wait_begin_on. */
void coir__wait_begin_as(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         enum coir__code code);
/* Like that, and the fiber cannot be dropped meanwhile: another thread works on its frame. */
void coir__wait_begin_bound(struct coir__wait *wait, enum coir__reason reason, uint64_t object);
/* `lock` guards `list` and is held. */
COIR_INLINE void coir__wait_add_to(struct coir__wait *wait, struct coir__clause *c, struct coir__waitlist *list,
                                   struct coir__bias *lock) {
  c->waiter = wait->self;
  c->open = wait->open;
  c->code = COIR__CODE_CLAUSE + wait->count++;
  c->sibling = wait->clauses;
  wait->clauses = c;
  c->list = list;
  c->lock = lock;
  c->linked = 1;
  c->next = NULL;
  c->prev = list->last;
  if (list->last) list->last->next = c;
  else atm_store_rlx(&list->first, c);
  list->last = c;
}
static inline void coir__wait_add(struct coir__wait *wait, struct coir__clause *c, struct coir__waitq *q) {
  coir__wait_add_to(wait, c, &q->list, &q->lock);
}
/* The only clause of a wait, on no list: it is known to one party, who claims it and wakes. */
static inline void coir__wait_add_alone(struct coir__wait *wait, struct coir__clause *c) {
  c->waiter = wait->self;
  c->open = wait->open;
  c->code = COIR__CODE_CLAUSE;
  c->linked = 0;
  wait->count = 1;
}
static inline void coir__clause_unlink(struct coir__clause *c) { /* its lock is held */
  COIR_DCHECK(c->linked, "a clause is unlinked once");
  if (c->prev) c->prev->next = c->next;
  else atm_store_rlx(&c->list->first, c->next);
  if (c->next) c->next->prev = c->prev;
  else c->list->last = c->prev;
  c->linked = 0;
}
static inline void coir__wait_leaves(struct coir__wait *wait,
                                     void (*leave)(struct coir__waitq *q, struct coir__clause *c, bool given)) {
  wait->leave = leave;
  if (leave) wait->has |= COIR__WAIT_LEAVE;
}
/* Waits in q, whose lock is held and given back, until the clause is claimed. Returns 0; -ETIMEDOUT, without having
 * suspended when the deadline has passed; -ECANCELED. `leave`: as COIR__WAIT_LEAVE says, also where it has not
 * suspended; or NULL. */
int coir__waitq_wait(struct coir__worker *w, struct coir__waitq *q, struct coir__clause *c, enum coir__reason reason,
                     int64_t deadline, void (*leave)(struct coir__waitq *q, struct coir__clause *c, bool given));
/* Relaxed: without the lock a hint. */
static inline bool coir__waitlist_is_empty(struct coir__waitlist *list) { return !atm_load_rlx(&list->first); }
/* The same for all: returns them by next, in their order, for coir__wake_all. */
struct coir__clause *coir__waitlist_take_all(struct coir__waitlist *list);
void coir__wake_all(struct coir__worker *w, struct coir__clause *taken); /* the clauses are gone afterwards */
uint32_t coir__wait(struct coir__wait *wait);     /* suspends; returns the code of the claim */
/* Instead of coir__wait, when the wait is not to be after all. Returns COIR__CODE_IDLE; or, if somebody has claimed it
 * by then, as coir__wait does, and that counts. */
uint32_t coir__wait_retract(struct coir__wait *wait);
void coir__wait_tidy_up(struct coir__wait *wait, uint32_t code); /* wait.h */
void coir__wait_drop(struct coir__wait *wait);    /* the waiter will never run again: unlinks all. Not while it runs */
/* -ETIMEDOUT, -ECANCELED, or the index of the clause. */
static inline int coir__wait_result(uint32_t code) {
  return code == COIR__CODE_TIMEOUT    ? -ETIMEDOUT
         : code == COIR__CODE_CANCELED ? -ECANCELED
                                       : (int)(code - COIR__CODE_CLAUSE);
}
COIR_INLINE bool coir__claim(const struct coir__clause *c) {
  uint64_t open = c->open;
  /* Acquire and release: who loses sees nothing; who wins orders its results before the wake. */
  return atm_cas_ar(&c->waiter->word, &open, (open & ~COIR__CODE_MASK) | c->code);
}
/* Claims the first clause that can be claimed; the lock is held. It is unlinked, and so are those that could not.
 * NULL: nobody waits. The caller wakes its waiter when it has given the lock back. */
COIR_INLINE struct coir__clause *coir__waitlist_take(struct coir__waitlist *list) {
  for (struct coir__clause *c; (c = atm_load_rlx(&list->first)) != NULL;) {
    struct coir__clause *next = c->next;
    atm_store_rlx(&list->first, next);
    if (COIR_UNLIKELY(next != NULL)) next->prev = NULL;
    else list->last = NULL;
    c->linked = 0;
    if (COIR_LIKELY(coir__claim(c))) return c;
  }
  return NULL;
}
void coir__wake(struct coir__waiter *waiter); /* by the winner of the claim, once */
void coir__wake_slow(struct coir__worker *w, struct coir__waiter *waiter);
void coir__wake_on(struct coir__worker *w,
                   struct coir__waiter *waiter); /* the same; w: what the thread carries, or NULL */
void coir__wait_commit(struct coir__worker *w,
                       struct coir_fiber *f);   /* it is off its stack now: by the code that runs next */
bool coir__cancel_take(struct coir__waiter *w); /* is a cancellation pending? takes it */
/* What is pending, but for COIR__CANCEL_ALWAYS; for who is in a relayed wait, or keeps it. Takes it. */
uint32_t coir__cancel_take_once(struct coir__waiter *waiter);
/* From now on the caller's waits end by a cancellation as always, and leave it pending; or, again, take it. */
void coir__cancel_keep(bool keeps);
uint32_t coir__cancel_merge(uint32_t old, uint32_t what); /* of two scopes the outer one stays */
/* Asks for what COIR__CANCEL_* say, and delivers it to the wait in progress, if there is one. */
void coir__cancel(struct coir__waiter *waiter, uint32_t what);
/* The same in two steps, for many at once: ask all of them, execute a heavy fence, then claim each. Where that returns
 * true, wake the waiter. */
void coir__cancel_ask(struct coir__waiter *waiter, uint32_t what);
bool coir__cancel_claim(struct coir__waiter *waiter, uint32_t what);
/* The second step without the fence, which it executes itself unless the waiter is parked. */
bool coir__cancel_claim_alone(struct coir__waiter *waiter, uint32_t what);
static inline bool coir__waiter_is_parked(struct coir__waiter *waiter) {
  uint64_t parked = atm_load_acq(&waiter->parked); /* before the word; pairs with the release in coir__wait_commit */
  return parked == (atm_load_acq(&waiter->word) & ~COIR__CODE_MASK);
}
/* The waiter closes the scope that is its `depth`th: what was asked for on behalf of that one is over. */
void coir__cancel_body_over(struct coir__waiter *waiter, uint32_t depth);
struct coir__waiter *coir__waiter_self(void); /* that of the calling fiber or plain thread; NULL: no memory for it */
const char *coir__reason_name(enum coir__reason reason);
bool coir__reason_is_others(enum coir__reason reason); /* only a fiber or a thread ends such a wait */

/* ---- block.c: a bounded pool of threads for calls that block --------------------------------------------------- */
/* Runs fn(arg) on a pool thread while the fiber waits; on a plain thread runs it at once. Always runs it to its end:
 * not cancelled, no deadline. `object` is for dumps. Returns 0, or -EAGAIN when not one thread could be made. */
int coir__block_call(void (*fn)(void *arg), void *arg, uint64_t object);
/* What the pool runs; the first member of what it is about. */
struct coir__pooled {
  struct coir__pooled *next;
  void (*run)(struct coir__pooled *pooled);
  bool is_errand;
};
/* A call that may outlive its waiter, at the head of a record on the heap; `fn` and `dispose` are set, the rest is
 * zero. */
struct coir__errand {
  struct coir__pooled pooled;
  struct coir__waitq q;  /* its waiter, if it waits */
  bool is_done, is_left; /* (l) of q: the pool is through with it; the waiter is */
  void (*fn)(struct coir__errand *e);
  void (*dispose)(struct coir__errand *e);
};
/* Runs e->fn(e) on a pool thread while the fiber, or the thread, waits. Returns 0: it has run, and the record is the
 * caller's. -ETIMEDOUT, -ECANCELED, -EAGAIN: it is not: e->dispose(e) has been called or will be, whether e->fn has
 * run or not. */
int coir__block_errand(struct coir__errand *e, int64_t deadline);
int coir__block_open(void);        /* how many calls and errands are not over; any thread */
void coir__block_fork_child(void); /* fork, in the child: the pool's threads are the parent's */

/* ---- file.c: files by io_uring --------------------------------------------------------------------------------- */
/* Does it while the fiber waits; not cancelled, no deadline. `life` is COIR__FD_LIFE of the word when the call began:
 * in another one it is -EBADF. Returns how much was transferred, which may be less than pread(2) would say, or an
 * error; COIR__FILE_REFUSED: nothing was done, and it is to be tried otherwise. */
#define COIR__FILE_REFUSED (-EAGAIN)
ssize_t coir__file_transfer(struct coir__fd *d, uint64_t life, const struct coir__uring_op *op);

/* ---- mutex.c, sync.c ------------------------------------------------------------------------------------------- */
/* Who calls; w: the worker that the calling thread carries, or NULL. */
static inline struct coir__waiter *coir__caller_on(struct coir__worker *w) {
  if (COIR_LIKELY(w && w->current)) return &w->current->waiter;
  struct coir__waiter *self = coir__waiter_self();
  COIR_CHECK(self, "no memory for the record of a thread");
  return self;
}
/* The functions on the caller's stack that others wait for to return: coir_once_do, coir_flight_do. */
struct coir__debt **coir__owes_here(struct coir__waiter *self);
/* Where clauses of a select are linked, under the queue's lock, unless what they wait for is so already. All of them
 * are claimed when it comes to be so. */
struct coir__waitq *coir__wait_group_queue(struct coir_wait_group *group);
bool coir__wait_group_is_zero_locked(const struct coir_wait_group *group);
struct coir__waitq *coir__event_queue(struct coir_event *event);
bool coir__event_is_set_locked(const struct coir_event *event);

/* ---- chan.c ---------------------------------------------------------------------------------------------------- */
/* Send and receive without waiting: 0, -EPIPE, or -EAGAIN when the call would have to wait. `w`: the worker that the
 * calling thread carries, be it on a fiber or in its loop; or NULL. */
int coir__chan_try_send(struct coir__worker *w, struct coir_chan *c, const void *value);
int coir__chan_try_recv(struct coir__worker *w, struct coir_chan *c, void *value);
size_t coir__chan_elem_bytes(const struct coir_chan *c);
bool coir__chan_may_be_ready(struct coir_chan *c, bool sends); /* a hint; false is true of some moment in the call */
/* Links the clause, unless it need not wait: then returns false. */
bool coir__chan_link(struct coir__worker *w, struct coir_chan *c, struct coir__wait *wait,
                     struct coir__chan_clause *clause, bool sends);
/* `fini` is called when the last reference was given up, before the memory goes. Set before others know the channel. */
void coir__chan_set_fini(struct coir_chan *c, void (*fini)(struct coir_chan *c, void *arg), void *arg);

/* ---- scope.c --------------------------------------------------------------------------------------------------- */
/* Where clauses of a select are linked, as for an event. */
struct coir__waitq *coir__scope_canceled_queue(struct coir_scope *scope);
bool coir__scope_is_canceled_locked(const struct coir_scope *scope);
/* coir_scope_spawn in a runtime. w: coir__self(), if it is of that one, or NULL. The caller is inside. */
int coir__scope_spawn(struct coir_runtime *rt, struct coir__worker *w, struct coir_scope *scope, coir_fn fn, void *arg,
                      const struct coir_attr *attr, struct coir_fiber **out);
/* By the on_end of every fiber that may have opened a scope: it is fatal to end with one that is open; those of a fiber
 * that is dropped are cancelled. It stands for on_end where there is no other. */
void coir__scope_opener_ended(struct coir_fiber *f);

/* ---- worker.c -------------------------------------------------------------------------------------------------- */
int coir__worker_create(struct coir_runtime *rt, int index);
void coir__worker_looked(struct coir__worker *w, int64_t now); /* owner: it begins something new */
void coir__worker_fire(struct coir__worker *w, int64_t now);   /* owner: its timers whose time has come */
void coir__worker_destroy(struct coir__worker *w);
/* The calling thread carries the worker until the phase is HALT: returns true; or loses it: returns false (carry.c). */
bool coir__worker_loop(struct coir__worker *w, struct coir__thread *t);
void coir__worker_halt(struct coir_runtime *rt); /* any thread: everyone leaves the loop */

/* ---- carry.c --------------------------------------------------------------------------------------------------- */
/* The runtime of the fiber that the caller is, between coir_block_enter and coir_block_leave; else NULL. */
struct coir_runtime *coir__away_from(void);
/* Where what the caller makes belongs, when it carries `w`, or NULL: to its runtime, or the default one; NULL: no
 * memory. */
struct coir_runtime *coir__caller_runtime(struct coir__worker *w);
void coir__thread_wake(struct coir__thread *t); /* from a sleep on its futex */
/* The worker gets to be carried by t, which does not carry any; t is inside, or being waited for. And no longer. */
void coir__carry_begin(struct coir__worker *w, struct coir__thread *t);
void coir__carry_end(struct coir__worker *w, struct coir__thread *t);
bool coir__carry_has_spare(struct coir_runtime *rt);
bool coir__carry_may_grow(struct coir_runtime *rt); /* there is room for one more extra thread */
bool coir__carry_spare(struct coir_runtime *rt); /* makes one more thread that can carry; blocks. False: no more */
/* Takes the worker away from the fiber that it runs, and has another thread carry it. `pauses`: and has the fiber wait
 * for its turn. By the monitor. INSIDE: not now; NOT: not at all, since no thread is to be had, or the worker keeps its
 * own. */
enum coir__taken { COIR__TAKEN, COIR__TAKEN_INSIDE, COIR__TAKEN_NOT };
#if defined(COIR__ROUGH)
void coir__carry_lose(struct coir__thread *t); /* the same to its own fiber by the calling thread; or nothing */
#endif
enum coir__taken coir__carry_take(struct coir__worker *w, bool pauses, int64_t now); /* in what w->watch saw it */
/* The calling thread carries it, and later others, until the phase is HALT. `is_ours`: it was started for that. */
void coir__carry(struct coir__worker *w, bool is_ours);
/* By thread t, before it runs fibers with w: tells the program (coir_config.on_thread), if it wants to know. */
void coir__carry_tell(const struct coir__worker *w, const struct coir__thread *t);
void coir__carry_halt(struct coir_runtime *rt); /* the phase is HALT: wakes the threads that carry nothing */
void coir__carry_join(struct coir_runtime *rt); /* waits for the extra threads, when all others have ended */

/* ---- preempt.c ------------------------------------------------------------------------------------------------- */
/* Some of its fibers may be paused. 0; -EINVAL: not by the signal that its configuration names. */
int coir__preempt_want(const struct coir_runtime *rt);
void coir__preempt_arm_thread(struct coir_runtime *rt, struct coir__thread *t); /* the calling one, that carries */
void coir__preempt_disarm_thread(const struct coir__thread *t);
/* The fiber that is away with t, whose owner the caller is, queues for its turn, and the thread sleeps. By the
 * monitor: `ns`, for how long it has run on. */
void coir__preempt_pause(struct coir__thread *t, int64_t ns);
PEEKS int64_t coir__preempt_left(const struct coir__thread *t, const struct coir_fiber *f); /* of f's quantum, in ns */
void coir__preempt_sleep(struct coir__thread *t); /* the calling one, which is away and paused: until it is its turn */
/* f is paused, and its turn has come: its thread goes on with *w, and the calling one carries none any more: *w is NULL
 * then. It is not when the runtime halts. */
void coir__preempt_resume(struct coir__worker **w, struct coir_fiber *f);
#if defined(COIR_TRACE)
/* If the worker tells the program of a turn, for a while already: it may wait for what that fiber holds, which so runs
 * on meanwhile, up to its next call. By the monitor. */
void coir__preempt_let_on(struct coir__worker *w);
#endif
static inline bool coir__is_paused(const struct coir_fiber *f) { return !f->sp && f->stack; }
void coir__preempt_halt(struct coir_runtime *rt); /* the phase is HALT: its threads that are paused go on */
bool coir__preempt_has_takers(struct coir_runtime *rt); /* workers that may take from the lane */
/* For a while nobody sleeps in the signal's handler. By the monitor. False: it was so, or nobody is paused. */
bool coir__preempt_open(struct coir_runtime *rt);
void coir__preempt_close(struct coir_runtime *rt);
/* Fibers of the runtime that are away, and have computed for long, are paused. By the monitor. False: none is away that
 * might come to it. */
bool coir__preempt_follow(struct coir_runtime *rt);
/* Those who are to be paused and have not heard of it are told again. False: none. */
bool coir__preempt_remind(struct coir_runtime *rt);

/* ---- monitor.c ------------------------------------------------------------------------------------------------- */
int coir__monitor_create(struct coir_runtime *rt);
void coir__monitor_destroy(struct coir_runtime *rt);
int coir__monitor_start(struct coir_runtime *rt); /* its threads, which wait for the phase; nothing if it is off */
void coir__monitor_dismiss(struct coir_runtime *rt); /* any thread, once the phase is HALT */
void coir__monitor_join(struct coir_runtime *rt);
bool coir__monitor_sees(const struct coir__worker *w); /* w, which nobody uses, is as it was when the monitor looked */
/* Asks the thread where it stands, by its signal, and has it wait there until that is over; whoever asks must say so.
 * False: it has not answered in time. */
bool coir__preempt_ask(struct coir__thread *t, int signo);
bool coir__preempt_asked(struct coir__thread *t); /* false: it has not waited that long */
/* A worker that was counted as idle has something to run. */
void coir__monitor_rouse(struct coir_runtime *rt);

/* ---- balance.c ------------------------------------------------------------------------------------------------- */
void coir__balance(struct coir__worker *w, int64_t now); /* give some away if it has far more than another */

/* ---- slab.c: descriptors --------------------------------------------------------------------------------------- */
struct coir_fiber *coir__fiber_take(struct coir_runtime *rt,
                                    struct coir__worker *w); /* w may be NULL. NULL: no memory */
#define COIR__FETCH_AHEAD 6 /* descriptors: about as many as are spawned while memory answers */
/* The same by a worker for itself, as long as it has all at hand. NULL: it has not. */
COIR_INLINE struct coir_fiber *coir__fiber_take_quickly(struct coir__worker *w) {
  struct coir__magazine *m = w->fibers;
  if (COIR_UNLIKELY(!m || m->count == 0 || w->id_next == w->id_end)) return NULL;
  uint64_t at = --m->count;
  struct coir_fiber *f = m->fibers[at];
  if (COIR_LIKELY(at >= COIR__FETCH_AHEAD)) {
    __builtin_prefetch(m->fibers[at - COIR__FETCH_AHEAD], 1);
    __builtin_prefetch((char *)m->fibers[at - COIR__FETCH_AHEAD] + COIR__LINE, 1);
  }
  f->id = w->id_next++;
  coir__hard_check_fiber(f);
  return f;
}
void coir__fiber_give(struct coir_runtime *rt, struct coir__worker *w, struct coir_fiber *f); /* w may be NULL */
/* The same by a worker of its runtime, as long as it has room at hand. False: it has not. */
COIR_INLINE bool coir__fiber_give_quickly(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__magazine *m = w->fibers;
  if (COIR_UNLIKELY(!m || m->count == COIR__MAGAZINE_MAX)) return false;
  /* Relaxed: a list that is being made may still show it, as it would have a moment ago. */
  atm_store_rlx(&f->entry, NULL);
  atomic_thread_fence(memory_order_release); /* before all of its next life; pairs with the fence in describe() */
  coir__hard_poison_fiber(f);
  m->fibers[m->count++] = f;
  return true;
}
void coir__slabs_destroy(struct coir_runtime *rt);

/* ---- local.c: fiber-local values ------------------------------------------------------------------------------- */
void coir__locals_destroy(struct coir__local *locals); /* calls the destructors, on the caller; they may wait */
void coir__locals_free(struct coir_runtime *rt, struct coir__local *locals); /* NULL does nothing */
void coir__locals_thread_ended(struct coir__thread *t);

/* ---- config.c -------------------------------------------------------------------------------------------------- */
int coir__config_fill(struct coir_config *out, const struct coir_config *in); /* every default filled in; or -EINVAL */

/* ---- backtrace.c ----------------------------------------------------------------------------------------------- */
/* Room for one backtrace; NULL: no memory. */
struct coir__backtrace;
struct coir__backtrace *coir__backtrace_create(void);
void coir__backtrace_destroy(struct coir__backtrace *b);
/* The wait that the fiber is parked in; 0: none. */
uint64_t coir__backtrace_begin(const struct coir_fiber *f);
/* Copies its stack. Returns whether it has been parked in that wait all the time since: then what was found out about
 * it meanwhile belongs together. */
bool coir__backtrace_copy(struct coir__backtrace *b, const struct coir_fiber *f, uint64_t wait);
/* Copies the stack of a fiber that stands at `at`, wherever that is. Whether it has stood there all the time is to be
 * seen to by the caller. False: it is not on its stack there. */
bool coir__backtrace_copy_at(struct coir__backtrace *b, const struct coir_fiber *f,
                             const struct coir__ctx_registers *at);
/* Of what was copied: how many frames, innermost first; they are valid until the next copy. */
size_t coir__backtrace_unwind(struct coir__backtrace *b, void *const **frames);

/* ---- runtime.c ------------------------------------------------------------------------------------------------- */
/* By a worker that found nothing to do: is it the end? `deep`: it goes to sleep without limit. True: it should not. */
bool coir__runtime_idle(struct coir_runtime *rt, bool deep);
void coir__raw_fork_child(void); /* raw.c: fork, in the child */
int coir__forks_init(void); /* any thread, repeatedly: from 0 on a fork is minded. -ENOMEM, -EAGAIN */
/* By a thread that is not Coir's, when it has slept for so long (coir__thread_sleep_begin). */
#define COIR__SLEEPER_LOOKS COIR_MS(10)
void coir__runtime_thread_sleeps(void);
void coir__runtime_cancel_all(struct coir_runtime *rt);
int coir__runtimes_on(void); /* how many are not off */
void coir__runtime_let_threads_end(struct coir_runtime *rt); /* it does not come to run: the phase is HALT */
void coir__runtime_wait_for_go(struct coir_runtime *rt); /* by a thread that was started for it: until it runs */

/* ---- deadlock.c ------------------------------------------------------------------------------------------------ */
/* By a worker that goes to sleep without limit. True: there was one, and something has been done about it. */
bool coir__deadlock_look(struct coir_runtime *rt);
/* Any thread; the runtime stays meanwhile. NEAR: there is one, and one of its workers should look. LATER: there may
 * come to be one though the runtime does nothing, when threads that Coir does not know end. */
enum coir__deadlock_chance { COIR__DEADLOCK_NONE = 0, COIR__DEADLOCK_NEAR, COIR__DEADLOCK_LATER };
enum coir__deadlock_chance coir__deadlock_chance(struct coir_runtime *rt);
/* Keeps a runtime that does not run from running, until it is let go. False: it runs. Hold it for moments only. */
bool coir__runtime_hold(struct coir_runtime *rt);
void coir__runtime_let_go(struct coir_runtime *rt);

#endif
