/* Generators: fibers that run only while somebody resumes them.
 *
 * A resume and a yield are the same exchange: give the other side what it waits for, and wait for one's own. Both sides
 * wait on the generator, in a list each, under one lock. Whoever comes takes the partner's clause, links its own, and
 * only then gives the lock back, wakes the partner and waits: a partner that is quick, on another worker, finds us
 * waiting. A woken fiber goes to the next slot of its waker, which then waits, so on one worker the two switch straight
 * to each other. They do so in one function, that the processor may guess where its calls return to (ctx_x86_64.S).
 *
 * While it runs, a generator is a fiber like any other, and its resumer one that waits: a generator that sleeps or
 * resumes others parks the whole chain above it without anybody doing anything about it.
 *
 * Cancellation. The resumer waits on behalf of the generator: what is asked of it belongs to whoever waits at the lower
 * end of the chain. Its wait is a relayed one (wait.c): it is told, takes the cancellation itself and asks it of the
 * generator's fiber, and goes on waiting; so it goes down the chain one step at a time, to the call that blocks. A
 * generator that yields or ends without having noticed did not wait in between: then it is taken back from it, and is
 * pending at the resumer again, as what it was (the bits `owed`; a scope's is void when that scope closes). Behind a
 * shield nobody is told, and nothing is passed on: it stays pending at the resumer. And where every wait is cancelled,
 * because the runtime stops, it is passed on once. The wait in coir_gen_yield is shielded: what is pending at a
 * generator then is for its next waiting call.
 *
 * Counting. One that has yielded must not keep its runtime running: it counts as ended until it is resumed
 * (coir__live). The end of a run leaves it where it is. Whoever destroys it finds that nobody would run it, and drops
 * it then and there, without its clean-up.
 *
 * The clause of the resumer is what stands for it, and it is linked until its turn is over. So a resumer that is
 * dropped with its runtime is simply gone, and what the generator yields to it is lost.
 *
 * Rejected: switching to the generator's stack without the queues (that has to solve again what the wait has solved:
 * other workers, other runtimes, plain threads, pinned fibers); two channels per generator (twice the locking, and
 * nobody to pass a cancellation on to).
 *
 * I1: a list holds one clause at most: that of the yielder only in state YIELDED, that of the resumer only in state
 *     RUNNING.
 * I2: what is above a fiber in the chain waits, and stays as it is while the fiber runs. */
#include <string.h>

#include "wait.h"

enum gen_side { GEN_RESUMER = 0, GEN_YIELDER = 1 };

struct coir_gen {
  struct coir__bias lock;         /* guards what says (l) */
  _Atomic(uint32_t) state;        /* (a) enum coir_gen_state, written under lock */
  struct coir__waitlist waits[2]; /* (l) struct gen_turn, by side */
  struct coir_fiber *fiber;       /* (l) while it has not ended */
  struct coir_fiber *fresh;       /* (l) the same while it has not been published */
  bool dying;                     /* (l) it is being destroyed; read by the generator as well, which that resumes */
  struct coir_runtime *rt;        /* (c) */
  coir_fn fn;                     /* (c) */
  void *arg;                      /* (c) */
  struct coir_result result;      /* (c) once FINISHED */
  struct coir_attr attr;          /* (c) */
  char name[COIR__NAME_MAX];      /* (c) attr.name */
};

/* One side's wait for the other, in its frame. The partner fills it in and unlinks the clause. */
struct gen_turn {
  struct coir__clause clause; /* first, so that a clause in a list is one of these */
  void *value;                /* what it gets */
  int rc;                     /* what its call returns */
  bool unnoticed;             /* of a resumer: what it has passed on is its own again */
  uint32_t owed;              /* (l) of a resumer: the bits of what it has passed on */
};

/* ---- The exchange ---------------------------------------------------------------------------------------------- */

/* Begins a wait; the lock is held. `code`: that of the resumer. */
static inline void gen_wait_begin(struct coir__worker *w, struct coir_gen *gen, enum gen_side side,
                                  struct coir__wait *wait, struct gen_turn *turn, enum coir__code code) {
  enum coir__reason reason = side == GEN_RESUMER ? COIR__REASON_RESUME : COIR__REASON_YIELD;
  uint64_t object = (uint64_t)(uintptr_t)gen; /* what both sides are known by in dumps */
  if (side == GEN_YIELDER) code = COIR__CODE_SHIELDED;
  if (COIR_LIKELY(w && w->current)) coir__wait_open(w, wait, reason, object, COIR_NEVER, code);
  else coir__wait_begin_as(NULL, wait, reason, object, code);
  coir__wait_add_to(wait, &turn->clause, &gen->waits[side], &gen->lock);
}

/* Ends the turn of `side`; the lock is held. Returns the clause whose waiter is to be woken when that has been given
 * back. NULL when it does not sleep: a resumer that was told of a cancellation; or does not wait: one that was dropped,
 * or the yielder before its first resume. */
static inline struct coir__clause *gen_turn_end(struct coir_gen *gen, enum gen_side side, void *value, int rc) {
  struct gen_turn *turn = (struct gen_turn *)atm_load_rlx(&gen->waits[side].first);
  if (COIR_UNLIKELY(!turn)) return NULL;
  coir__clause_unlink(&turn->clause);
  turn->value = value;
  turn->rc = rc;
  if (COIR_UNLIKELY(turn->owed)) {
    uint32_t was = atm_and_sc(&gen->fiber->waiter.cancel, ~COIR__CANCEL_ONCE);
    turn->unnoticed = was & COIR__CANCEL_ONCE;
  }
  return coir__claim(&turn->clause) ? &turn->clause : NULL;
}

/* Passes on to the generator's fiber what is pending at the caller; the lock is held. Returns whom to wake, or NULL. */
static struct coir__waiter *gen_pass_on(struct coir_gen *gen, struct gen_turn *turn, struct coir__waiter *self) {
  struct coir__waiter *to = &gen->fiber->waiter;
  uint32_t taken = coir__cancel_take_once(self);
  if (!taken && !(atm_load_acq(&self->cancel) & COIR__CANCEL_ALWAYS)) return NULL;
  bool noticed = !(atm_load_acq(&to->cancel) & COIR__CANCEL_ONCE); /* the former one, if there was one */
  turn->owed = noticed ? taken : coir__cancel_merge(turn->owed, taken);
  coir__cancel_ask(to, COIR__CANCEL_ONCE);
  return coir__cancel_claim_alone(to, COIR__CANCEL_ONCE) ? to : NULL;
}

/* The resumer was told of a cancellation. Begins its wait anew; false: its turn is over, and the cancellation still
 * pending at the caller. */
static bool __attribute__((noinline)) gen_told(struct coir_gen *gen, struct coir__wait *wait, struct gen_turn *turn) {
  struct coir__worker *w = coir__carried();
  struct coir__waiter *told = NULL, *self = wait->self;
  coir__bias_lock(w, &gen->lock);
  bool goes_on = turn->clause.linked;
  if (goes_on) {
    told = gen_pass_on(gen, turn, self);
    coir__clause_unlink(&turn->clause);
    /* Whose every wait is cancelled would be told at once, again and again. */
    bool always = atm_load_acq(&self->cancel) & COIR__CANCEL_ALWAYS;
    gen_wait_begin(w, gen, GEN_RESUMER, wait, turn, always ? COIR__CODE_SHIELDED : COIR__CODE_RELAY);
  }
  coir__bias_unlock(w, &gen->lock);
  if (told) coir__wake_on(w, told);
  return goes_on;
}

/* Gives `value` to the other side, and waits for what that gives, which goes to *out (may be NULL). The state is as it
 * will be; the lock is held, and given back. Returns what both calls return. */
static int __attribute__((noinline))
gen_exchange(struct coir__worker *w, struct coir_gen *gen, enum gen_side side, void *value, void **out) {
  struct coir__wait wait;
  struct gen_turn turn;
  struct coir_fiber *fresh = NULL;
  /* The claim comes first: a locked instruction waits for all that was stored before. */
  struct coir__clause *partner = gen_turn_end(gen, (enum gen_side) !side, value, gen->dying ? -ECANCELED : 0);
  turn.owed = 0;
  turn.unnoticed = false;
  gen_wait_begin(w, gen, side, &wait, &turn, COIR__CODE_RELAY);
  if (COIR_UNLIKELY(!partner)) {
    fresh = gen->fresh;
    gen->fresh = NULL;
  }
  coir__bias_unlock(w, &gen->lock);
  if (COIR_LIKELY(partner != NULL)) coir__wake_quick(w, partner->waiter, partner->open);
  else if (fresh) coir__fiber_publish_next(w, fresh);
  uint32_t code = COIR_LIKELY(w && w->current) ? coir__wait_quick(w, &wait) : coir__wait(&wait);
  while (COIR_UNLIKELY(code < COIR__CODE_CLAUSE) && gen_told(gen, &wait, &turn)) code = coir__wait(&wait);
  if (COIR_UNLIKELY(turn.unnoticed)) coir__cancel_ask(wait.self, turn.owed);
  if (out && turn.rc >= 0) *out = turn.value;
  return turn.rc;
}

/* ---- The generator's side -------------------------------------------------------------------------------------- */

int coir_gen_yield(void *value, void **in) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  w = coir__self_of(w);
  struct coir_gen *gen = w && coir__has_kin(w->current) ? w->current->gen : NULL;
  if (COIR_UNLIKELY(!gen)) return -EPERM;
  if (COIR_UNLIKELY(gen->dying)) {
    coir_yield(); /* a loop around it must not keep its worker */
    return -ECANCELED;
  }
  coir__bias_lock(w, &gen->lock);
  atm_store_rlx(&gen->state, COIR_GEN_YIELDED);
  coir__count_suspended(w);
  return gen_exchange(w, gen, GEN_YIELDER, value, in);
}

/* The fiber's on_end: on the fiber, or by who drops it. */
static void gen_ended(struct coir_fiber *f) {
  struct coir_gen *gen = f->kin;
  struct coir__worker *w = coir__carried();
  coir__scope_opener_ended(f);
  gen->result.status = f->status;
  gen->result.value = f->b.flags & COIR__FIBER_VALUED ? f->value : NULL;
  coir__bias_lock(w, &gen->lock);
  /* Dropped where it was: that will be counted as an end, so it must not count as suspended any more. */
  if (atm_load_rlx(&gen->state) == COIR_GEN_YIELDED) coir__count_resumed(f->rt, NULL);
  atm_store_rel(&gen->state, COIR_GEN_FINISHED); /* the result; pairs with the acquire in coir_gen_result */
  struct coir__clause *resumer = gen_turn_end(gen, GEN_RESUMER, gen->result.value, 1);
  gen->fiber = NULL;
  coir__bias_unlock(w, &gen->lock);
  if (resumer) coir__wake_on(w, resumer->waiter); /* the generator may be gone from here on */
}

/* ---- The resumer's side ---------------------------------------------------------------------------------------- */

static inline struct coir__worker *gen_worker(struct coir__worker *w, const struct coir_gen *gen) {
  return COIR_LIKELY(w && w->rt == gen->rt) ? w : NULL;
}

/* Whether the fiber of `w` is the generator, or is being resumed by it (I2). */
static bool gen_is_above(const struct coir_gen *gen, struct coir__worker *w) {
  const struct coir_fiber *f = w ? w->current : NULL;
  while (f && coir__has_kin(f) && f->gen && f->gen != gen) {
    struct coir_gen *below = f->gen;
    coir__bias_lock(w, &below->lock);
    const struct coir__clause *c = atm_load_rlx(&below->waits[GEN_RESUMER].first);
    f = c && !c->waiter->is_thread ? coir__waiter_fiber(c->waiter) : NULL;
    coir__bias_unlock(w, &below->lock);
  }
  return f && coir__has_kin(f) && f->gen == gen;
}

/* Why a generator cannot be resumed that is neither new nor has yielded; the lock is held, and given back. */
static int gen_refuse(struct coir__worker *w, struct coir_gen *gen) {
  uint32_t state = atm_load_rlx(&gen->state);
  coir__bias_unlock(w, &gen->lock);
  if (state == COIR_GEN_FINISHED) return -ESRCH;
  return gen_is_above(gen, w) ? -EDEADLK : -EBUSY;
}

/* Whether its runtime is that of the process that has forked this one: nobody would run it. */
static bool gen_is_forked(struct coir__worker *w, const struct coir_gen *gen) {
  return COIR_UNLIKELY(!gen_worker(w, gen)) && atm_load_acq(&gen->rt->forked);
}

static int __attribute__((noinline)) gen_forked(struct coir__worker *w, struct coir_gen *gen) {
  coir__bias_unlock(w, &gen->lock);
  return -ENOTSUP;
}

/* Its first resume. The lock is held, and given back. */
static int __attribute__((noinline)) gen_start(struct coir__worker *w, struct coir_gen *gen, void **out) {
  struct coir_fiber *f;
  if (gen_is_forked(w, gen)) return gen_forked(w, gen);
  atm_store_rlx(&gen->state, COIR_GEN_RUNNING); /* others keep away meanwhile */
  coir__bias_unlock(w, &gen->lock);
  int rc = coir__fiber_prepare(gen->rt, gen_worker(w, gen), gen->fn, gen->arg, &gen->attr, &f, true);
  coir__bias_lock(w, &gen->lock);
  if (rc) {
    atm_store_rlx(&gen->state, COIR_GEN_NEW);
    coir__bias_unlock(w, &gen->lock);
    return rc;
  }
  coir__fiber_kin(f);
  f->on_end = gen_ended;
  f->kin = f->gen = gen;
  gen->fiber = gen->fresh = f;
  return gen_exchange(w, gen, GEN_RESUMER, NULL, out);
}

int coir_gen_resume(struct coir_gen *gen, void *in, void **out) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  if (COIR_UNLIKELY(!gen)) return -EINVAL;
  coir__bias_lock(w, &gen->lock);
  if (COIR_UNLIKELY(atm_load_rlx(&gen->state) != COIR_GEN_YIELDED))
    return atm_load_rlx(&gen->state) == COIR_GEN_NEW ? gen_start(w, gen, out) : gen_refuse(w, gen);
  if (gen_is_forked(w, gen)) return gen_forked(w, gen);
  atm_store_rlx(&gen->state, COIR_GEN_RUNNING);
  coir__count_resumed(gen->rt, gen_worker(w, gen));
  return gen_exchange(w, gen, GEN_RESUMER, in, out);
}

/* ---- Making, asking, destroying -------------------------------------------------------------------------------- */

int coir_gen_create(struct coir_gen **out, coir_fn fn, void *arg, const struct coir_attr *attr) {
  COIR_INSIDE;
  if (!out) return -EINVAL;
  *out = NULL;
  if (!fn) return -EINVAL;
  struct coir__worker *w = coir__self();
  struct coir_runtime *rt = coir__caller_runtime(w);
  if (!rt) return -ENOMEM;
  int rc = attr ? coir__attr_check(rt, attr) : 0;
  if (rc < 0) return rc;
  struct coir_gen *gen = coir__alloc(NULL, sizeof *gen); /* it may outlive its runtime */
  if (!gen) return -ENOMEM;
  gen->rt = rt;
  gen->fn = fn;
  gen->arg = arg;
  if (attr) gen->attr = *attr;
  if (gen->attr.name) gen->attr.name = strncpy(gen->name, attr->name, sizeof gen->name - 1);
  *out = gen;
  return 0;
}

enum coir_gen_state coir_gen_state(const struct coir_gen *gen) {
  return gen ? (enum coir_gen_state)atm_load_acq(&gen->state) : COIR_GEN_FINISHED;
}

int coir_gen_result(const struct coir_gen *gen, struct coir_result *out) {
  if (!gen) return -EINVAL;
  if (atm_load_acq(&gen->state) != COIR_GEN_FINISHED) return -EBUSY;
  if (out) *out = gen->result;
  return 0;
}

/* Ends a generator that has yielded. The lock is held, and given back. */
static void gen_kill(struct coir__worker *w, struct coir_gen *gen) {
  atm_store_rlx(&gen->state, COIR_GEN_RUNNING);
  gen->dying = true;
  coir__count_resumed(gen->rt, gen_worker(w, gen));
  coir__bias_unlock(w, &gen->lock);
  bool is_held = coir__runtime_hold(gen->rt); /* then nobody would run it */
  coir__bias_lock(w, &gen->lock);
  struct coir_fiber *f = gen->fiber; /* NULL: its runtime has just dropped it */
  if (f && !is_held) {
    gen_exchange(w, gen, GEN_RESUMER, NULL, NULL);
    return;
  }
  coir__bias_unlock(w, &gen->lock);
  if (f) coir__fiber_drop(f);
  if (is_held) coir__runtime_let_go(gen->rt);
}

int coir_gen_destroy(struct coir_gen *gen) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  if (!gen) return 0;
  coir__bias_lock(w, &gen->lock); /* the end of its fiber may not be through with it */
  uint32_t state = atm_load_rlx(&gen->state);
  if (state == COIR_GEN_RUNNING) return gen_refuse(w, gen);
  if (state == COIR_GEN_YIELDED && !gen_is_forked(w, gen)) gen_kill(w, gen);
  else coir__bias_unlock(w, &gen->lock);
  coir__free(NULL, gen, sizeof *gen);
  return 0;
}
