/* Fork and join: two functions, possibly at the same time, with nothing but the caller's stack.
 *
 * Goal: what a call of coir_fork2 costs when nobody takes the other side is a few loads and stores.
 *
 * The caller puts the second side into its worker's deque, as a pointer to a record in its frame, and runs the first.
 * If the record is still the newest of the deque then, it takes it out, and runs the second side as a plain call;
 * that is the whole of the common case, and needs neither a locked instruction nor a fiber. Others take the oldest of
 * the deque, which is the largest piece of work that there is. Who has taken a record runs it on a fiber of its own,
 * and says so in record.state, as its last touch. The caller waits for that like any fiber: its worker goes on, with
 * what is newest in its own deque first, on other stacks. So nothing unrelated runs on top of a wait, and depth stays
 * what the program made it.
 *
 * A record never leaves the deque but by being taken. So when the caller comes back on another worker, or newer work
 * lies on top of it, it waits all the same: whoever gets there will run it.
 *
 * Failures (coir_job_fail) leave frames behind. The records in them may be in a deque, or with somebody else; so they
 * are chained per stack (struct coir__nest), and who fails takes them back, or waits for them, one by one.
 *
 * Sources: work first, and the deque: Frigo, Leiserson, Randall, "The Implementation of the Cilk-5 Multithreaded
 * Language", PLDI 1998. Waiting by suspension where Cilk has continuations: Lea, "A Java Fork/Join Framework", 2000,
 * names the alternatives. */
#include "job.h"

#define DONE ((uintptr_t)1)
#define THIEF_SPINS 1000 /* about as long as a thief is inside */
#define BREATH_NS COIR_US(100) /* how long a loop keeps its worker from other things */

static struct coir_fiber *side_entry(struct coir__fork *r) {
  return (struct coir_fiber *)((uintptr_t)r | COIR__LEAN_FORK);
}

struct coir__nest **coir__nest_here(void) {
  struct coir_fiber *f = coir__me();
  struct coir__thread *t = f ? NULL : coir__thread_get();
  COIR_CHECK(f || t, "no memory for the record of a thread");
  return f ? &f->stack->nest : &t->nest;
}

/* ---- A boundary: where failures end ---------------------------------------------------------------------------- */

/* What has been taken since, and will not be given back by those who failed. */
static void nest_let_go(const struct coir__nest *nest) {
  while (nest->fiber->waiter.shield > nest->shield) coir_shield_end();
  while (nest->fiber->waiter.holds > nest->holds) coir_hold_end();
}

int coir__guarded(coir_task_fn fn, void *arg) {
  jmp_buf jump;
  uint32_t was = coir__go_in();
  struct coir__nest nest = {.boundary = &jump, .here = coir__nest_here()};
  nest.owes = *coir__owes_here(coir__caller_on(NULL));
  struct coir__thrown thrown = *coir__thread_peek()->thrown;
  coir__go_out(&was);
  nest.outer = *nest.here;
  *nest.here = &nest;
  nest.fiber = coir_current();
  if (nest.fiber) {
    nest.shield = nest.fiber->waiter.shield;
    nest.holds = nest.fiber->waiter.holds;
  }
  int rc = -ECANCELED;
  if (_setjmp(jump) == 0) {
    fn(arg);
    rc = 0;
  } else {
    if (nest.fiber) nest_let_go(&nest);
    struct coir__thread *t = coir__thread_peek();
    (void)coir__thrown_take(t->thrown); /* whose handlers have been left */
    coir__thrown_give(t->thrown, &thrown);
  }
  *nest.here = nest.outer;
  return rc;
}

/* ---- The side that was taken ----------------------------------------------------------------------------------- */

/* The last touch of the record, which is gone when the caller sees it. */
static void side_done(struct coir__fork *r) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  /* Acquire: the clause. Release: what the side did. Pairs with both ends in fork_wait(). */
  const struct coir__clause *c = (const struct coir__clause *)atm_xchg_ar(&r->state, DONE);
  if (c && coir__claim(c)) coir__wake_on(w, c->waiter);
}

static int side_main(void *record) {
  struct coir__fork *r = record;
  r->has_failed = coir__guarded(r->fn, r->arg) != 0;
  side_done(r);
  return 0;
}

static struct coir_fiber *side_bind(struct coir__worker *w, struct coir__lean *lean) {
  struct coir__fork *r = (struct coir__fork *)lean;
  struct coir_fiber *f;
  if (coir__fiber_prepare(w->rt, w, side_main, r, NULL, &f, true) == 0) {
    f->stack_class = r->stack->size_class; /* the same as in the caller */
    atm_bump(&w->counts.spawned, 1);
    return f;
  }
  bool is_back = coir__runq_push_lean(w, side_entry(r)); /* there is room: it has just been taken out */
  COIR_CHECK(is_back, "no memory for a fiber");
  return NULL;
}

/* ---- Who forks ------------------------------------------------------------------------------------------------- */

/* Takes it out of the deque, if it is the newest there. Thieves that are inside are gone in a moment. */
static bool side_take_back(struct coir__worker *w, struct coir__fork *r) {
  for (int i = 0; i < THIEF_SPINS; i++) {
    if (coir__runq_take_lean(w, side_entry(r))) return true;
    if (!atm_load_acq(&w->q.thieves)) return false;
    coir__pause();
  }
  return false;
}

static void fork_wait(struct coir__worker *w, struct coir__fork *r) {
  struct coir__wait wait;
  struct coir__clause clause;
  uintptr_t none = 0;
  coir__wait_begin_as(w, &wait, COIR__REASON_FORK, (uint64_t)(uintptr_t)r, COIR__CODE_SHIELDED);
  coir__wait_add_alone(&wait, &clause);
  if (atm_cas_ar(&r->state, &none, (uintptr_t)&clause)) coir__wait(&wait);
  else coir__wait_retract(&wait);
}

/* Returns true when it has been taken back, and has not begun; false when it is done. */
static bool fork_join(struct coir__worker *w, struct coir__fork *r) {
  if (side_take_back(w, r)) return true;
  while (atm_load_acq(&r->state) != DONE) fork_wait(w, r); /* pairs with the exchange in side_done() */
  return false;
}

/* The second side is not where it was put, or not the newest any more. */
static bool __attribute__((noinline)) join_slowly(struct coir__fork *r) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  COIR_CHECK(w, "a fork is joined where it began: a child process must call exec or _exit, a blocking section be left");
  return fork_join(w, r);
}

void coir__fork_abandon(struct coir__nest *nest) {
  join_slowly((struct coir__fork *)((char *)nest - offsetof(struct coir__fork, nest)));
}

/* Both sides, for the outermost fork, where failures end. */
struct pair {
  coir_task_fn a, b;
  void *a_arg, *b_arg;
};
static void run_pair(void *pair) {
  struct pair *p = pair;
  coir_fork2(p->a, p->a_arg, p->b, p->b_arg);
}
static int __attribute__((noinline)) fork_outermost(coir_task_fn a, void *a_arg, coir_task_fn b, void *b_arg) {
  return coir__guarded(run_pair, &(struct pair){a, b, a_arg, b_arg});
}

/* Offers fn(arg) to others. False: there is no worker that could, or no boundary for failures, or no memory. */
static inline bool fork_begin(struct coir__fork *r, coir_task_fn fn, void *arg) {
  struct coir__thread *t = coir__thread_peek();
  if (COIR_UNLIKELY(!t)) return false;
  uint32_t was = atm_load_rlx(&t->in);
  atm_store_rlx(&t->in, 1);
  coir__fence_light(); /* as in coir__go_in_on */
  struct coir__worker *w = atm_load_acq(&t->worker);
  bool is_offered = false;
  if (COIR_UNLIKELY(!w)) { /* taken away: what nobody is offered would wait for what waits next here */
    w = coir__go_home(t, COIR_NEVER);
    t = coir__thread_peek();
  }
  if (COIR_LIKELY(coir__self_of(w) != NULL)) {
    struct coir__stack *s = r->stack = w->current->stack;
    r->lean.bind = side_bind;
    r->nest.outer = s->nest;
    r->nest.boundary = NULL;
    r->fn = fn;
    r->arg = arg;
    atm_store_rlx(&r->state, 0);
    r->has_failed = false;
    is_offered = COIR_LIKELY(s->nest != NULL) && COIR_LIKELY(coir__runq_push_lean(w, side_entry(r)));
    if (is_offered) {
      s->nest = &r->nest;
      coir__idle_notify(w, true);
    }
  }
  atm_store_rel(&t->in, was); /* as coir__go_out */
  COIR__LEFT(t, was);
  return is_offered;
}

/* True: it has not begun, and will not: it is the caller's to run. False: it is done. */
static inline bool fork_end(struct coir__fork *r) {
  struct coir__thread *t = coir__thread_peek(); /* it may be another one than at the beginning */
  uint32_t was = atm_load_rlx(&t->in);
  atm_store_rlx(&t->in, 1);
  coir__fence_light();
  struct coir__worker *w = atm_load_acq(&t->worker);
  bool is_ours = COIR_LIKELY(w != NULL) && COIR_LIKELY(coir__runq_take_lean(w, side_entry(r)));
  atm_store_rel(&t->in, was);
  COIR__LEFT(t, was);
  if (COIR_UNLIKELY(!is_ours)) is_ours = join_slowly(r);
  r->stack->nest = r->nest.outer;
  if (COIR_UNLIKELY(!is_ours && r->has_failed)) coir__nest_fail();
  return is_ours;
}

bool coir__fork_begin(struct coir__fork *r, coir_task_fn fn, void *arg) { return fork_begin(r, fn, arg); }
bool coir__fork_end(struct coir__fork *r) { return fork_end(r); }

/* On a plain thread, by a fiber whose worker has been taken away, outermost, or when there is no memory for the
 * deque. */
static int __attribute__((noinline)) fork_slowly(coir_task_fn a, void *a_arg, coir_task_fn b, void *b_arg) {
  struct coir__fork r;
  uint32_t was = coir__go_in_to_wait(COIR_NEVER); /* so there is a worker now, if it is a fiber */
  bool is_outermost = !*coir__nest_here();
  coir__go_out(&was);
  if (is_outermost) return fork_outermost(a, a_arg, b, b_arg);
  bool is_offered = fork_begin(&r, b, b_arg);
  a(a_arg);
  if (!is_offered || fork_end(&r)) b(b_arg);
  return 0;
}

int coir_fork2(coir_task_fn a, void *a_arg, coir_task_fn b, void *b_arg) {
  struct coir__fork r;
  if (COIR_UNLIKELY(!a || !b)) return -EINVAL;
  if (COIR_UNLIKELY(!fork_begin(&r, b, b_arg))) return fork_slowly(a, a_arg, b, b_arg);
  a(a_arg);
  if (COIR_LIKELY(fork_end(&r))) b(b_arg);
  return 0;
}

/* Whether the worker has anything to see to but the deque. */
static bool is_due_elsewhere(const struct coir__worker *w, int64_t now) {
  if (atm_load_rlx(&w->attention)) return true;
  if (now - w->looked_at < BREATH_NS) return false;
  if (coir__runq_has_next(w) || w->bound.head || atm_load_rlx(&w->inbox)) return true;
  for (int i = 0; i < COIR__LANE_PAUSED; i++)
    if (atm_load_rlx(&w->rt->lanes[i].count)) return true;
  return atm_load_rlx(&w->q.head) != atm_load_rlx(&w->q.tail) || atm_load_rlx(&w->timers.next) <= now ||
         coir__poller_is_used(w->poller);
}

/* By the worker's loop, which looks around. The fiber is back when those that are ready now have had their turn; not
 * when all that lies in the deque has: that is the rest of what it does, and would come to be many fibers. */
void coir__fork_breathe(int64_t now) {
  uint32_t was = coir__go_in();
  struct coir__worker *w = coir__self();
  bool yields = w && is_due_elsewhere(w, now);
  if (w && atm_load_rlx(&w->q.bottom) != atm_load_rlx(&w->q.top)) coir__idle_notify(w, true);
  if (yields) {
    w->fifo_turns = coir__runq_length(w) + 1; /* too many: with the deque */
    w->empty_yields += w->tick; /* they are no dispatches */
    w->tick = 0;
  }
  coir__go_out(&was);
  if (yields) coir_yield();
}

bool coir__fork_is_wanted(void) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  return w && w->rt->worker_count > 1 && atm_load_rlx(&w->q.bottom) == atm_load_rlx(&w->q.top);
}
