/* Raw fibers: a function on a stack of its own, which stops in the middle and goes on when it is resumed; and pools of
 * them.
 *
 * Goal: resuming one costs two switches of stacks and hardly anything else: no queue, no wait, no allocation.
 *
 * What runs on a raw fiber's stack is still the Coir fiber that resumed it, with its identity, its waits, and its
 * worker. So all of that knows of it only by coir_fiber.stack, which is, while it runs, the raw fiber's: bounds, canary
 * and sanitizers' contexts are looked up there at each switch, failures end at the boundary that hangs on it, and who
 * waits stops on it, wherever it goes on. Who resumed it is at rest meanwhile, on the stack below (`outer`). Raw fibers
 * may resume others: a chain, of which the last runs.
 *
 * A raw fiber that has ended is not begun anew. Its bottom is a loop, which calls the next function when it is resumed:
 * so there is one way in and one out. Where a function returns without having yielded every return is predicted, since
 * the switches are jumps (ctx_x86_64.S).
 *
 * Both switches are made inside (COIR_INSIDE_TO_WAIT), and with the worker: so it is not taken away while the stack
 * changes, and a fiber from which it was taken before queues for another one first.
 *
 * Stacks come from a depot of the process, since a raw fiber belongs to no runtime. That one stays for good: who looks
 * at a fiber from outside may look at its stack a moment too late.
 *
 * When a Coir fiber is dropped on such a stack, each of the chain is free again, like one that is destroyed or put back
 * in the middle: its frames are forgotten, and the next function begins at the top.
 *
 * I1: state is BUSY from a resume to its return; who has made it so owns all other fields.
 * I2: fiber->stack is the stack of the last of its chain, and that chain's end is the fiber's own.
 * I3: who leaves the stack (yields, ends, fails) has the shields, the holds and the scope that the fiber had when it
 *     came: so they are the fiber's, and the next one may be another. */
#include "job.h"

#if defined(COIR_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

#define RAW_STACK_BYTES ((size_t)64 << 10)

enum raw_state { RAW_FREE = 0, RAW_YIELDED, RAW_BUSY };

struct coir_raw_fiber {
  struct coir__raw raw;      /* (c) first, so that a stack's is one of these */
  _Atomic(uint32_t) state;   /* (a) enum raw_state */
  int result;                /* why it was left: COIR_RAW_* */
  struct coir__stack *stack; /* (c) */
  void *outer_sp; /* where who resumed it stopped */
  void *sp;                  /* where it has stopped; NULL: it begins at the top */
  coir_task_fn fn;
  void *arg;
  uint32_t was;    /* whether who resumed it was inside: as coir__go_in returns it */
  uint16_t shield; /* what the fiber had taken then */
  uint8_t holds;
  struct coir_scope *scope;
  struct coir__nest nest; /* (c) the boundary: failures come back to its bottom */
  jmp_buf jump;
  struct coir_raw_fiber *next; /* (l) of a pool */
};

/* ---- Switching ------------------------------------------------------------------------------------------------- */

#if defined(COIR_SANITIZED)
COIR_INLINE void raw_announce(const struct coir__stack *to, void **fake) {
  (void)to, (void)fake;
#if defined(COIR_ASAN)
  __sanitizer_start_switch_fiber(fake, to->low, (size_t)(to->top - to->low));
#endif
#if defined(COIR_TSAN)
  coir__os_tsan_switch(to->tsan);
#endif
}
static void raw_arrived(void *fake) {
  (void)fake;
#if defined(COIR_ASAN)
  __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}
#else
static inline void raw_announce(const struct coir__stack *to, void **fake) { (void)to, (void)fake; }
static inline void raw_arrived(void *fake) { (void)fake; }
#endif

static inline struct coir_scope *scope_of(const struct coir_fiber *f) { return coir__has_kin(f) ? f->scope : NULL; }

/* The fiber stands on that stack from now on. */
static inline void raw_stand_on(struct coir_fiber *f, struct coir__stack *from, struct coir__stack *to) {
  atm_show(&f->stack, to);
  if (COIR_LIKELY(from->is_guarded == to->is_guarded)) return;
  if (to->is_guarded) f->b.flags &= (uint8_t)~COIR__FIBER_CANARY;
  else f->b.flags |= COIR__FIBER_CANARY;
}

/* Leaves the raw fiber, inside, for who resumed it. Returns, inside, when it is resumed. */
static inline __attribute__((always_inline)) struct coir__worker *raw_leave(struct coir__worker *w,
                                                                            struct coir_raw_fiber *r, int result) {
  struct coir_fiber *f = w->current;
  void *fake = NULL;
  COIR_CHECK(f->waiter.shield == r->shield && f->waiter.holds == r->holds && scope_of(f) == r->scope,
             "a raw fiber ends the scopes, shields and holds that it has begun before it yields or returns");
  if (COIR_UNLIKELY(!r->stack->is_guarded)) coir__stack_check(r->stack, __builtin_frame_address(0));
  r->result = result;
  raw_announce(r->raw.outer, &fake);
  w = coir__ctx_switch(&r->sp, r->outer_sp, w);
  raw_arrived(fake);
  return w;
}

/* In the middle of exceptions, which stay on its stack. */
static struct coir__worker *__attribute__((noinline))
raw_leave_throwing(struct coir__worker *w, struct coir_raw_fiber *r) {
  struct coir__thrown thrown = coir__thrown_take(w->thrown);
  w = raw_leave(w, r, COIR_RAW_YIELDED);
  coir__thrown_give(w->thrown, &thrown);
  return w;
}

/* What the bottom does, one function after the other. */
static void __attribute__((noinline, noreturn)) raw_serve(struct coir_raw_fiber *r, bool has_failed) {
  for (;;) {
    struct coir__worker *w;
    if (COIR_LIKELY(!has_failed)) r->fn(r->arg);
    (void)coir__go_in_to_wait_on(&w, COIR_NEVER);
    w = coir__self_of(w);
    COIR_CHECK(w, "a raw fiber ends where it ran: a child process must call exec or _exit, a blocking section be left");
    w = raw_leave(w, r, has_failed ? COIR_RAW_FAILED : COIR_RAW_COMPLETE);
    coir__go_out_on(w, r->was);
    has_failed = false;
  }
}

/* What has been taken since it was resumed, and will not be given back by those who failed. */
static void raw_let_go(const struct coir_raw_fiber *r) {
  const struct coir_fiber *f = coir_current();
  while (f && f->waiter.shield > r->shield) coir_shield_end();
  while (f && f->waiter.holds > r->holds) coir_hold_end();
  (void)coir__thrown_take(coir__thread_peek()->thrown);
}

/* The bottom of the stack. */
static void raw_main(void *worker) {
  struct coir__worker *w = worker;
  struct coir_raw_fiber *r = (struct coir_raw_fiber *)w->current->stack->raw;
  raw_arrived(NULL);
  coir__go_out_on(w, r->was);
  if (_setjmp(r->jump) == 0) raw_serve(r, false);
  r = (struct coir_raw_fiber *)coir_raw_fiber_current(); /* here again when one fails */
  raw_let_go(r);
  raw_serve(r, true);
}

/* ---- Resuming -------------------------------------------------------------------------------------------------- */

/* On a stack on which nothing is. */
static void __attribute__((noinline)) raw_begin(struct coir__worker *w, struct coir_raw_fiber *r) {
  struct coir__stack *s = r->stack;
  void *fake = NULL;
  r->nest = (struct coir__nest){.boundary = &r->jump, .here = &s->nest};
  s->nest = &r->nest;
  s->raw = &r->raw;
#if defined(COIR_TSAN)
  s->tsan = coir__os_tsan_create();
#endif
  raw_announce(s, &fake);
  coir__ctx_start(&r->outer_sp, s->top, raw_main, w);
  raw_arrived(fake);
}

/* The caller has made it BUSY. */
static inline void raw_run(struct coir__worker *w, struct coir_raw_fiber *r, uint32_t was) {
  struct coir_fiber *f = w->current;
  void *fake = NULL;
  r->raw.outer = f->stack;
  r->was = was;
  r->shield = f->waiter.shield;
  r->holds = f->waiter.holds;
  r->scope = scope_of(f);
  r->stack->fiber = f;
  raw_stand_on(f, r->raw.outer, r->stack);
  if (COIR_LIKELY(r->sp != NULL)) {
    raw_announce(r->stack, &fake);
    coir__ctx_switch(&r->outer_sp, r->sp, w);
    raw_arrived(fake);
  } else {
    raw_begin(w, r);
  }
  raw_stand_on(f, r->stack, r->raw.outer);
  r->stack->fiber = NULL;
}

/* By who is in the middle of exceptions. */
static void __attribute__((noinline)) raw_run_throwing(struct coir__worker *w, struct coir_raw_fiber *r, uint32_t was) {
  struct coir__thrown thrown = coir__thrown_take(w->thrown);
  raw_run(w, r, was);
  coir__thrown_give(coir__thread_peek()->thrown, &thrown);
}

int coir_raw_fiber_resume(struct coir_raw_fiber *fiber, coir_task_fn fn, void *arg) {
  if (COIR_UNLIKELY(!fiber)) return -EINVAL;
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  w = coir__self_of(w);
  if (COIR_UNLIKELY(!w)) return -ENOTSUP;
  uint32_t state = atm_load_rlx(&fiber->state);
  if (COIR_UNLIKELY(state == RAW_BUSY)) return -EBUSY;
  if (COIR_UNLIKELY(state == RAW_FREE && !fn)) return -EINVAL;
  /* Acquire: what was done on it before. Pairs with the release below. */
  if (COIR_UNLIKELY(!atm_cas_ar(&fiber->state, &state, RAW_BUSY))) return -EBUSY;
  if (state == RAW_FREE) {
    fiber->fn = fn;
    fiber->arg = arg;
  }
  if (COIR_UNLIKELY(coir__is_throwing(w->thrown))) raw_run_throwing(w, fiber, coir__was);
  else raw_run(w, fiber, coir__was);
  int result = fiber->result;
  /* Release: it is off its stack. Pairs with the acquire above, and those of who forgets what has yielded. */
  atm_store_rel(&fiber->state, result == COIR_RAW_YIELDED ? RAW_YIELDED : RAW_FREE);
  return result;
}

void coir_raw_fiber_yield(void) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  w = coir__self_of(w);
  struct coir__stack *s = w ? w->current->stack : NULL;
  struct coir_raw_fiber *r = s ? (struct coir_raw_fiber *)s->raw : NULL;
  COIR_CHECK(r, "coir_raw_fiber_yield is called on a raw fiber");
  COIR_CHECK(s->nest == &r->nest, "a raw fiber does not yield in a fork or a parallel loop that it has begun");
  COIR_CHECK(!s->owes, "a raw fiber does not yield in coir_once_do or coir_flight_do");
  if (COIR_UNLIKELY(coir__is_throwing(w->thrown))) raw_leave_throwing(w, r);
  else raw_leave(w, r, COIR_RAW_YIELDED);
  coir__was = r->was; /* of who has resumed it now */
}

struct coir_raw_fiber *coir_raw_fiber_current(void) {
  COIR_INSIDE;
  const struct coir_fiber *me = coir__me();
  return me ? (struct coir_raw_fiber *)me->stack->raw : NULL;
}

/* ---- Making them ----------------------------------------------------------------------------------------------- */

static pthread_mutex_t raw_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(struct coir__depot *) raw_stacks; /* (a) of all raw fibers; made under raw_lock, once */

void coir__raw_fork_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  raw_lock = fresh; /* whoever held it, to make the depot, is not in this process */
}

/* Where the stacks come from. NULL: memory is short. */
static struct coir__depot *raw_depot(void) {
  struct coir__depot *d = atm_load_acq(&raw_stacks); /* what is in it; pairs with the release below */
  struct coir_config config;
  if (COIR_LIKELY(d != NULL)) return d;
  if (coir__forks_init() != 0) return NULL;
  pthread_mutex_lock(&raw_lock);
  d = atm_load_rlx(&raw_stacks);
  if (!d && coir__config_fill(&config, NULL) == 0) d = coir__depot_make(NULL, &config, 1);
  atm_store_rel(&raw_stacks, d);
  pthread_mutex_unlock(&raw_lock);
  return d;
}

/* Forgets what is on its stack. */
static void raw_forget(struct coir_raw_fiber *r) {
  struct coir__stack *s = r->stack;
#if defined(COIR_TSAN)
  if (s->tsan) coir__os_tsan_destroy(s->tsan);
  s->tsan = NULL;
#endif
  coir__stack_forget(s);
  s->nest = NULL;
  r->sp = NULL;
}

static void raw_drop(struct coir__raw *raw) {
  struct coir_raw_fiber *r = (struct coir_raw_fiber *)raw;
  raw_forget(r);
  atm_store_rel(&r->state, RAW_FREE); /* as in coir_raw_fiber_resume */
}

static int raw_create(struct coir_raw_fiber **out, int stack_class) {
  struct coir__depot *d = raw_depot();
  struct coir_raw_fiber *r = d ? coir__alloc(NULL, sizeof *r) : NULL;
  *out = NULL;
  if (!r) return -ENOMEM;
  r->stack = coir__stack_take_from(d, stack_class);
  if (!r->stack) {
    coir__free(NULL, r, sizeof *r);
    return -ENOMEM;
  }
  r->raw.drop = raw_drop;
  *out = r;
  return 0;
}

/* Nobody uses it any more. */
static void raw_destroy(struct coir_raw_fiber *r) {
  /* Acquire: what was done on it. Pairs with the releases in coir_raw_fiber_resume and raw_drop(). */
  COIR_CHECK(atm_load_acq(&r->state) != RAW_BUSY, "a raw fiber is not destroyed while it runs");
  raw_forget(r);
  coir__stack_give_to(raw_depot(), r->stack);
  coir__free(NULL, r, sizeof *r);
}

static int raw_class(size_t stack_bytes) { return coir__stack_class(stack_bytes ? stack_bytes : RAW_STACK_BYTES); }

int coir_raw_fiber_create(struct coir_raw_fiber **out, size_t stack_bytes) {
  COIR_INSIDE;
  int stack_class = raw_class(stack_bytes);
  if (!out) return -EINVAL;
  *out = NULL;
  return stack_class < 0 ? stack_class : raw_create(out, stack_class);
}

void coir_raw_fiber_destroy(struct coir_raw_fiber *fiber) {
  COIR_INSIDE;
  if (fiber) raw_destroy(fiber);
}

/* ---- Pools ----------------------------------------------------------------------------------------------------- */

struct coir_fiber_pool {
  struct coir__lock lock;
  int stack_class;             /* (c) */
  struct coir_raw_fiber *free; /* (l) the one that was put back last first */
  _Atomic(size_t) length;      /* (a) written under lock */
};

static void raw_push(struct coir_fiber_pool *fibers, struct coir_raw_fiber *r) {
  coir__lock(&fibers->lock);
  r->next = fibers->free;
  fibers->free = r;
  atm_bump(&fibers->length, 1);
  coir__unlock(&fibers->lock);
}

static struct coir_raw_fiber *raw_pop(struct coir_fiber_pool *fibers) {
  coir__lock(&fibers->lock);
  struct coir_raw_fiber *r = fibers->free;
  if (r) {
    fibers->free = r->next;
    atm_bump(&fibers->length, (size_t)-1);
  }
  coir__unlock(&fibers->lock);
  return r;
}

int coir_fiber_pool_create(struct coir_fiber_pool **out, size_t count, size_t stack_bytes) {
  COIR_INSIDE;
  int stack_class = raw_class(stack_bytes);
  if (!out) return -EINVAL;
  *out = NULL;
  if (stack_class < 0) return stack_class;
  struct coir_fiber_pool *fibers = coir__alloc(NULL, sizeof *fibers);
  if (!fibers) return -ENOMEM;
  fibers->stack_class = stack_class;
  int rc = coir_fiber_pool_grow(fibers, count);
  if (rc == 0) *out = fibers;
  else coir_fiber_pool_destroy(fibers);
  return rc;
}

int coir_fiber_pool_grow(struct coir_fiber_pool *fibers, size_t n) {
  COIR_INSIDE;
  if (!fibers) return -EINVAL;
  for (; n; n--) {
    struct coir_raw_fiber *r;
    if (raw_create(&r, fibers->stack_class) != 0) return -ENOMEM;
    raw_push(fibers, r);
  }
  return 0;
}

struct coir_raw_fiber *coir_fiber_pool_get(struct coir_fiber_pool *fibers) {
  COIR_INSIDE;
  if (!fibers) return NULL;
  struct coir_raw_fiber *r = raw_pop(fibers);
  if (!r) (void)raw_create(&r, fibers->stack_class);
  return r;
}

void coir_fiber_pool_put(struct coir_fiber_pool *fibers, struct coir_raw_fiber *fiber) {
  COIR_INSIDE;
  if (!fibers || !fiber) return;
  if (fiber->stack->size_class != fibers->stack_class) {
    raw_destroy(fiber);
    return;
  }
  /* Acquire: as in raw_destroy(). */
  uint32_t state = atm_load_acq(&fiber->state);
  COIR_CHECK(state != RAW_BUSY, "a raw fiber is not put back while it runs");
  if (state == RAW_YIELDED) {
    raw_forget(fiber);
    atm_store_rlx(&fiber->state, RAW_FREE); /* relaxed: who gets it has the lock of the pool in between */
  }
  raw_push(fibers, fiber);
}

size_t coir_fiber_pool_length(struct coir_fiber_pool *fibers) { return fibers ? atm_load_rlx(&fibers->length) : 0; }

bool coir_fiber_pool_is_empty(struct coir_fiber_pool *fibers) { return coir_fiber_pool_length(fibers) == 0; }

void coir_fiber_pool_destroy(struct coir_fiber_pool *fibers) {
  COIR_INSIDE;
  if (!fibers) return;
  for (struct coir_raw_fiber *r; (r = raw_pop(fibers)) != NULL;) raw_destroy(r);
  coir__free(NULL, fibers, sizeof *fibers);
}
