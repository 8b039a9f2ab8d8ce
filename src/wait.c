/* The one way to wait.
 *
 * Goal: everything that blocks parks on clauses until exactly one party wins: an object, the deadline, or
 * cancellation. Why it is hard: (1) several parties may want to end the same wait at the same moment, on different
 * threads; (2) whoever ends it may come before the fiber has left its stack, and running it then would put two
 * threads on one stack; (3) a late party must not touch a frame that is gone.
 *
 * Design.
 * (1) One claim word per waiter: number of the wait, and a code. Everyone claims by one compare-and-swap from the
 *     open word of that wait to its own code. Who wins decides the outcome and, alone, wakes.
 * (2) A fiber that waits publishes its clauses, switches away, and the code that runs next on that worker commits the
 *     wait: parked = number. A waker that finds parked set queues the fiber. One that comes before leaves note =
 *     number, executes a heavy fence and looks again; the committer looks at note after a light fence. At least one
 *     of them sees the other's word, and if both do, a compare-and-swap on note picks one. So parking costs no locked
 *     instruction, and only the waker that comes within those nanoseconds pays for the fence.
 * (3) The words lie in the descriptor, whose memory is never given back, and carry the number of the wait: what
 *     belongs to an old wait fails. Clauses lie in the waiter's frame; they are touched under the lock of the queue
 *     that they are linked to, or by the winner before it wakes, and the waiter does not leave before they are
 *     unlinked.
 *
 * Cancellation is a pending bit, which nobody takes but the waiter itself: when it has claimed its own wait, or when it
 * is back from one that a canceller has claimed. A canceller claims the wait that it finds open while the bit is there;
 * if it cannot, it looks again. So it is delivered once, to the wait in progress or the next one. The waiter opens its
 * word and looks at the bit after a light fence; the canceller sets the bit and looks at the word after a heavy one.
 * What a scope asks of its own opener is a number instead of a bit, because it is void when that scope is closed
 * (coir__cancel_body_over). A waiter that may have to leave the cancellation to the next wait, whatever it was, keeps
 * it: then it does not take the bit (coir__cancel_keep).
 * Waits that begin behind a shield have another open word, which no canceller claims. So have those of a waiter that
 * passes its cancellations on, to the fiber that runs on its behalf: there the clauses stay linked when it has been
 * claimed to tell it (gen.c).
 *
 * A plain thread that waits is a waiter too; it sleeps on a futex until note carries its wait's number.
 *
 * Rejected: an "on its stack" flag that whoever runs the fiber spins on (it spins for a time slice when the parker
 * was preempted); a locked exchange on both sides (5 ns more per wait); a reference count per wait (two more).
 *
 * I1: from the claim to the wake only the winner touches the wait.   I2: a wait is woken exactly once, by its winner.
 * I3: a fiber is queued only after parked carries the number of its wait.
 * I4: when coir__wait returns, no clause of it is linked and its timer is not armed. */
#include "wait.h"

static const char *const reason_names[COIR__REASON_MAX] = {
    [COIR__REASON_NONE] = "",
    [COIR__REASON_SLEEP] = "sleep",
    [COIR__REASON_JOIN] = "join",
    [COIR__REASON_READ] = "read",
    [COIR__REASON_WRITE] = "write",
    [COIR__REASON_POLL] = "poll",
    [COIR__REASON_BLOCK] = "blocking call",
    [COIR__REASON_SEND] = "send",
    [COIR__REASON_RECV] = "receive",
    [COIR__REASON_SELECT] = "select",
    [COIR__REASON_SELECT_IO] = "select",
    [COIR__REASON_MUTEX] = "mutex",
    [COIR__REASON_RWLOCK] = "rwlock",
    [COIR__REASON_COND] = "condition",
    [COIR__REASON_SEM] = "semaphore",
    [COIR__REASON_WAIT_GROUP] = "wait group",
    [COIR__REASON_EVENT] = "event",
    [COIR__REASON_ONCE] = "once",
    [COIR__REASON_BARRIER] = "barrier",
    [COIR__REASON_FLIGHT] = "single flight",
    [COIR__REASON_SCOPE] = "scope",
    [COIR__REASON_RESUME] = "generator",
    [COIR__REASON_YIELD] = "resume",
    [COIR__REASON_AWAY] = "",
    [COIR__REASON_COUNTER] = "counter",
    [COIR__REASON_FORK] = "fork",
    [COIR__REASON_STOP] = "stop",
};

const char *coir__reason_name(enum coir__reason reason) {
  return (unsigned)reason < COIR__REASON_MAX ? reason_names[reason] : "";
}

/* Generators that nobody resumes wait for nobody's sake. */
bool coir__reason_is_others(enum coir__reason reason) {
  switch (reason) {
  case COIR__REASON_SLEEP:
  case COIR__REASON_READ:
  case COIR__REASON_WRITE:
  case COIR__REASON_POLL:
  case COIR__REASON_BLOCK:
  case COIR__REASON_AWAY:
  case COIR__REASON_SELECT_IO: return false;
  default: return true;
  }
}

static inline uint64_t number_of(uint64_t word) { return word & ~COIR__CODE_MASK; }

/* Called under the lock of the wheel. The waiter cannot leave before the lock is free (coir__timer_cancel). */
static struct coir__waiter *deadline_came(struct coir__timer *t) {
  uint64_t open = t->open;
  return atm_cas_ar(&t->waiter->word, &open, number_of(open) | COIR__CODE_TIMEOUT) ? t->waiter : NULL;
}

struct coir__waiter *coir__waiter_self(void) {
  struct coir_fiber *f = coir__me();
  if (f) return &f->waiter;
  struct coir__thread *t = coir__thread_get();
  return t ? &t->waiter : NULL;
}

/* For a plain thread; else coir__wait_open. */
static void thread_begin(struct coir__wait *wait, enum coir__reason reason, uint64_t object, int64_t deadline,
                         enum coir__code code) {
  struct coir__thread *t = coir__thread_get();
  COIR_CHECK(t, "no memory for the record of a thread");
  COIR_CHECK(!atm_load_rlx(&t->worker),
             "waiting calls are made by fibers, not by what runs between them on a worker");
  COIR_DCHECK(!t->away || !t->is_taken, "a fiber has a worker when it waits");
  atm_store_rlx(&t->waits_on, object << 8 | reason);
  coir__wait_fill(wait, NULL, &t->waiter, deadline, code);
}

static inline void begin(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         int64_t deadline, enum coir__code code) {
  if (COIR_LIKELY(w != NULL)) coir__wait_open(w, wait, reason, object, deadline, code);
  else thread_begin(wait, reason, object, deadline, code);
}

void coir__wait_begin_on(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         int64_t deadline) {
  begin(w, wait, reason, object, deadline, COIR__CODE_OPEN);
}

void coir__wait_begin(struct coir__wait *wait, enum coir__reason reason, uint64_t object, int64_t deadline) {
  begin(coir__self(), wait, reason, object, deadline, COIR__CODE_OPEN);
}

void coir__wait_begin_as(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         enum coir__code code) {
  begin(w, wait, reason, object, COIR_NEVER, code);
}

void coir__wait_begin_bound(struct coir__wait *wait, enum coir__reason reason, uint64_t object) {
  begin(coir__self(), wait, reason, object, COIR_NEVER, COIR__CODE_BOUND);
}

static inline bool is_timed(const struct coir__wait *wait) { return wait->has & COIR__WAIT_TIMER; }

/* Unlinks every clause but that of the winner, which its waker has unlinked. */
static void unlink_all(struct coir__wait *wait, uint32_t winner) {
  struct coir__worker *w = coir__carried(); /* not wait->worker: the waiter may have moved */
  for (struct coir__clause *c = wait->clauses; c; c = c->sibling) {
    if (c->code == winner) continue;
    coir__bias_lock(w, c->lock);
    if (c->linked) coir__clause_unlink(c);
    coir__bias_unlock(w, c->lock);
  }
}

struct coir__clause *coir__waitlist_take_all(struct coir__waitlist *list) {
  struct coir__clause *taken = NULL, **end = &taken;
  for (struct coir__clause *c; (c = coir__waitlist_take(list)) != NULL; end = &c->next) {
    *end = c;
    c->next = NULL;
  }
  return taken;
}

void coir__wake_all(struct coir__worker *w, struct coir__clause *taken) {
  while (taken) {
    struct coir__clause *next = taken->next;
    coir__wake_on(w, taken->waiter); /* the clause is gone from here on */
    taken = next;
  }
}

/* Whether every wait of this waiter ends, because its runtime stops with COIR_STOP_CANCEL. A bit that was left when the
 * stop was over is cleared: the fiber was spawned too late for it, and goes on in the next life of its runtime. */
static bool is_always_canceled(struct coir__waiter *self, uint32_t pending) {
  if (!(pending & COIR__CANCEL_ALWAYS)) return false;
  if (atm_load_acq(&coir__waiter_fiber(self)->rt->cancel_all)) return true;
  atm_and_sc(&self->cancel, ~COIR__CANCEL_ALWAYS);
  return false;
}

#define BODY_MASK (~(COIR__CANCEL_BODY(1) - 1)) /* what is not a flag */

uint32_t coir__cancel_merge(uint32_t old, uint32_t what) {
  uint32_t a = old & BODY_MASK, b = what & BODY_MASK;
  return ((old | what) & ~BODY_MASK) | (a && (!b || a < b) ? a : b);
}

void coir__cancel_ask(struct coir__waiter *waiter, uint32_t what) {
  uint32_t old = atm_load_rlx(&waiter->cancel);
  while (!atm_cas_sc(&waiter->cancel, &old, coir__cancel_merge(old, what))) {}
}

void coir__cancel_body_over(struct coir__waiter *waiter, uint32_t depth) {
  uint32_t old = atm_load_acq(&waiter->cancel);
  while ((old & BODY_MASK) >= COIR__CANCEL_BODY(depth) && !atm_cas_sc(&waiter->cancel, &old, old & ~BODY_MASK)) {}
}

/* Takes what is to be delivered once. Who gets something owes the delivery. */
static inline uint32_t take_once(struct coir__waiter *waiter) {
  return atm_and_sc(&waiter->cancel, COIR__CANCEL_ALWAYS) & ~COIR__CANCEL_ALWAYS;
}

/* Whether what `what` asked for is still there: what others have asked for may be over at any moment. Of the wait whose
 * open word the caller has seen: so it must not read what was there before the waiter took it, as a load may. */
static bool is_asked(struct coir__waiter *waiter, uint32_t what) {
  uint32_t pending = atm_or_sc(&waiter->cancel, 0);
  return (pending & what & COIR__CANCEL_ONCE) || ((what & BODY_MASK) && !((pending ^ what) & BODY_MASK));
}

static bool is_keeping(struct coir__waiter *self) {
  if (self->is_thread) return coir__waiter_thread(self)->keeps_cancel;
  return __atomic_load_n(&coir__waiter_fiber(self)->b.more, __ATOMIC_RELAXED) & COIR__MORE_KEEPS;
}

void coir__cancel_keep(bool keeps) {
  struct coir_fiber *f = coir__me();
  struct coir__thread *t = f ? NULL : keeps ? coir__thread_get() : coir__thread_peek();
  if (f && keeps) __atomic_fetch_or(&f->b.more, COIR__MORE_KEEPS, __ATOMIC_RELAXED);
  else if (f) __atomic_fetch_and(&f->b.more, (uint8_t)~COIR__MORE_KEEPS, __ATOMIC_RELAXED);
  else if (t) t->keeps_cancel = keeps; /* without memory for a record it has not waited */
}

uint32_t coir__cancel_take_once(struct coir__waiter *waiter) { return take_once(waiter); }

static inline bool is_relay(const struct coir__wait *wait) {
  return (wait->open & COIR__CODE_MASK) == COIR__CODE_RELAY;
}

/* Claims the wait for a pending cancellation. False: none, or the wait was claimed already. */
static bool cancel_self(struct coir__wait *wait) {
  struct coir__waiter *self = wait->self;
  uint32_t pending = atm_load_acq(&self->cancel);
  if (COIR_LIKELY(!pending) || (wait->open & COIR__CODE_MASK) >= COIR__CODE_SHIELDED) return false;
  if (!is_always_canceled(self, pending) && !(pending & ~COIR__CANCEL_ALWAYS)) return false;
  uint64_t open = wait->open;
  return atm_cas_ar(&self->word, &open, number_of(open) | COIR__CODE_CANCELED);
}

/* What was asked for once more before the waiter noticed is the same cancellation. */
static void cancel_noticed(struct coir__waiter *self) {
  if (!is_keeping(self)) take_once(self);
}

/* See COIR__WAIT_LEAVE. The lock is the first member of the queue. */
static void leave(struct coir__wait *wait, bool given) {
  if (wait->has & COIR__WAIT_LEAVE) wait->leave((struct coir__waitq *)wait->clauses->lock, wait->clauses, given);
}

/* Blocks the thread until the winner has woken it. The deadline is its own affair. */
static void thread_sleep(struct coir__thread *t, struct coir__wait *wait, int64_t deadline) {
  uint64_t number = number_of(wait->open);
  for (;;) {
    uint32_t seen = atm_load_acq(&t->futex);
    if (atm_load_acq(&t->waiter.note) == number) return;
    if (coir__os_futex_wait(&t->futex, seen, deadline) != -ETIMEDOUT) continue;
    deadline = COIR_NEVER;
    uint64_t open = wait->open;
    if (!is_timed(wait)) coir__runtime_thread_sleeps();
    else if (atm_cas_ar(&t->waiter.word, &open, number | COIR__CODE_TIMEOUT)) return;
    /* else somebody has claimed it, and will wake us in a moment */
  }
}

/* Where only others can end the wait it may be the last step into a deadlock: that is looked for when nothing has come
 * for a while. */
static void thread_park(struct coir__wait *wait) {
  struct coir__thread *t = coir__waiter_thread(wait->self);
  enum coir__reason reason = (enum coir__reason)(atm_load_rlx(&t->waits_on) & 0xff);
  bool needs_others = !is_timed(wait) && !t->is_own && coir__reason_is_others(reason);
  if (!needs_others) {
    thread_sleep(t, wait, is_timed(wait) ? wait->timer.deadline : COIR_NEVER);
    return;
  }
  coir__thread_sleep_begin(t, number_of(wait->open));
  thread_sleep(t, wait, coir__os_now() + COIR__SLEEPER_LOOKS);
  coir__thread_sleep_end(t);
}

static void arm_deadline(struct coir__worker *w, struct coir__wait *wait) {
  wait->timer.fire = deadline_came;
  wait->timer.waiter = wait->self;
  wait->timer.open = wait->open;
  coir__timer_arm(&w->timers, &wait->timer);
}

static inline void fiber_park(struct coir__wait *wait) {
  struct coir__worker *w = wait->worker; /* nothing has suspended since it began */
  w->current->wait = wait;
  if (is_timed(wait)) arm_deadline(w, wait);
  atm_bump(&w->counts.parks, 1);
  coir__switch_away(w, COIR__AFTER_PARK);
}

/* What is left to do when a wait has ended that was not simply claimed by its last clause. */
void coir__wait_tidy_up(struct coir__wait *wait, uint32_t code) {
  if (code == COIR__CODE_CANCELED && is_relay(wait)) return;
  if (code == COIR__CODE_CANCELED) cancel_noticed(wait->self);
  if (is_timed(wait) && !wait->self->is_thread && code != COIR__CODE_TIMEOUT) coir__timer_cancel(&wait->timer);
  unlink_all(wait, code);
  if (code < COIR__CODE_CLAUSE) leave(wait, false);
}

/* Suspends until the winner has woken it; then nothing of the wait is left. */
static inline uint32_t await(struct coir__wait *wait) {
  struct coir__waiter *self = wait->self;
  if (COIR_UNLIKELY(self->is_thread)) thread_park(wait);
  else fiber_park(wait);
  /* Relaxed: whoever woke us has ordered its claim before (queues, or the note of a thread). */
  uint32_t code = (uint32_t)(atm_load_rlx(&self->word) & COIR__CODE_MASK);
  COIR_DCHECK(code >= COIR__CODE_TIMEOUT, "a woken waiter's wait has been claimed");
  const struct coir__clause *last = wait->clauses;
  bool is_plain = last && last->code == code && !last->sibling && !is_timed(wait);
  if (COIR_UNLIKELY(!is_plain)) coir__wait_tidy_up(wait, code);
  if (!self->is_thread) coir__waiter_fiber(self)->wait = NULL;
  return code;
}

/* A cancellation that is pending has ended the wait before it began. */
static uint32_t __attribute__((noinline)) end_canceled(struct coir__wait *wait) {
  if (is_relay(wait)) return COIR__CODE_CANCELED;
  unlink_all(wait, COIR__CODE_CANCELED);
  cancel_noticed(wait->self);
  leave(wait, false);
  coir_yield(); /* a loop around a wait that always ends at once must not keep its worker */
  return COIR__CODE_CANCELED;
}

uint32_t coir__wait(struct coir__wait *wait) {
  coir__fence_light(); /* the open word before the look at the bit; pairs with the heavy fence in cancel_claim() */
  if (COIR_UNLIKELY(atm_load_acq(&wait->self->cancel) != 0) && cancel_self(wait)) return end_canceled(wait);
  return await(wait);
}

uint32_t coir__wait_retract(struct coir__wait *wait) {
  uint64_t open = wait->open;
  if (COIR_LIKELY(atm_cas_ar(&wait->self->word, &open, number_of(open) | COIR__CODE_IDLE))) {
    unlink_all(wait, COIR__CODE_IDLE);
    return COIR__CODE_IDLE;
  }
  wait->has &= ~COIR__WAIT_TIMER; /* claimed: its winner will wake us, so be parked for it */
  return await(wait);
}

void coir__wait_drop(struct coir__wait *wait) {
  uint64_t code = atm_load_rlx(&wait->self->word) & COIR__CODE_MASK;
  if (is_timed(wait)) coir__timer_cancel(&wait->timer);
  unlink_all(wait, (uint32_t)code); /* what has let it go may be gone */
  leave(wait, code >= COIR__CODE_CLAUSE);
}

void coir__wait_commit(struct coir__worker *w, struct coir_fiber *f) {
  uint64_t number = number_of(atm_load_rlx(&f->waiter.word));
  /* Release: all that the fiber did, and its stack pointer. Pairs with the acquire of parked in coir__wake. */
  atm_store_rel(&f->waiter.parked, number);
  coir__fence_light(); /* pairs with the heavy fence in coir__wake */
  if (COIR_LIKELY(atm_load_acq(&f->waiter.note) != number)) return;
  if (atm_cas_ar(&f->waiter.note, &number, 0)) coir__ready(w, f);
}

static void wake_thread(struct coir__thread *t, uint64_t number) {
  /* Release: the claim and what the winner handed over. Pairs with the acquire in thread_park. Afterwards the wait
   * may be gone, but the record is not; at worst the futex call is one too many. */
  atm_store_rel(&t->waiter.note, number);
  atm_add_sc(&t->futex, 1);
  coir__os_futex_wake(&t->futex, 1);
}

/* It is still on its stack, or was a moment ago. Once the note is there its committer may queue it, it may end, and its
 * runtime go: so we are counted as visitors. Release: what the winner handed over; pairs with the acquire in
 * coir__wait_commit. */
static void wake_early(struct coir__worker *w, struct coir_fiber *f, uint64_t number) {
  struct coir_runtime *rt = f->rt;
  atm_add_sc(&rt->visitors, 1);
  atm_store_rel(&f->waiter.note, number);
  coir__fence_heavy();
  uint64_t note = number;
  if (atm_load_acq(&f->waiter.parked) == number && atm_cas_ar(&f->waiter.note, &note, 0)) coir__ready(w, f);
  atm_sub_rel(&rt->visitors, 1); /* pairs with the acquire in release() (runtime.c) */
}

void coir__wake_slow(struct coir__worker *w, struct coir__waiter *waiter) {
  uint64_t number = number_of(atm_load_rlx(&waiter->word));
  if (waiter->is_thread) wake_thread(coir__waiter_thread(waiter), number);
  else if (atm_load_acq(&waiter->parked) == number) coir__ready(w, coir__waiter_fiber(waiter));
  else wake_early(w, coir__waiter_fiber(waiter), number);
}

void coir__wake_on(struct coir__worker *w, struct coir__waiter *waiter) {
  coir__wake_quick(w, waiter, atm_load_rlx(&waiter->word));
}

void coir__wake(struct coir__waiter *waiter) { coir__wake_on(coir__carried(), waiter); }

/* See the head of this file. Asked for before; `is_fenced`: and a heavy fence executed since. */
static bool cancel_claim(struct coir__waiter *waiter, uint32_t what, bool is_fenced) {
  /* Who is parked has looked at the bit before, and will not again: no need for the fence. Acquire: parked goes
   * first, so that the word is at least as new. */
  uint64_t parked = atm_load_acq(&waiter->parked), word = atm_load_acq(&waiter->word);
  bool is_sure = is_fenced || number_of(word) == parked;
  for (;; is_sure = false) {
    if (!is_sure) {
      coir__fence_heavy(); /* the bit before the look at the word; pairs with the light fence in coir__wait */
      word = atm_load_acq(&waiter->word);
      is_fenced = true;
    }
    uint64_t code = word & COIR__CODE_MASK;
    if (code != COIR__CODE_OPEN && code != COIR__CODE_RELAY) {
      if (is_fenced) return false;
      continue; /* it was woken a moment ago, and may begin to wait again at any time */
    }
    bool is_any = code == COIR__CODE_RELAY || (what & COIR__CANCEL_ALWAYS);
    if (is_any ? !atm_load_acq(&waiter->cancel) : !is_asked(waiter, what)) return false;
    if (atm_cas_ar(&waiter->word, &word, number_of(word) | COIR__CODE_CANCELED)) return true;
    is_fenced = false;
  }
}

bool coir__cancel_claim(struct coir__waiter *waiter, uint32_t what) { return cancel_claim(waiter, what, true); }
bool coir__cancel_claim_alone(struct coir__waiter *waiter, uint32_t what) { return cancel_claim(waiter, what, false); }

void coir__cancel(struct coir__waiter *waiter, uint32_t what) {
  coir__cancel_ask(waiter, what);
  if (cancel_claim(waiter, what, false)) coir__wake(waiter);
}

int coir_cancel(struct coir_fiber *fiber) {
  COIR_INSIDE;
  if (!fiber) return -EINVAL;
  if (atm_load_acq(&fiber->ended) & COIR__ENDED) return -ESRCH;
  coir__cancel(&fiber->waiter, COIR__CANCEL_ONCE);
  return 0;
}

bool coir__cancel_take(struct coir__waiter *w) {
  uint32_t pending = atm_load_acq(&w->cancel);
  if (COIR_LIKELY(!pending) || w->shield) return false;
  if (is_always_canceled(w, pending)) return true;
  return is_keeping(w) ? (pending & ~COIR__CANCEL_ALWAYS) != 0 : take_once(w) != 0;
}

void coir_shield_begin(void) {
  COIR_INSIDE;
  struct coir__waiter *self = coir__waiter_self();
  COIR_CHECK(self, "no memory for the record of a thread");
  COIR_CHECK(self->shield < UINT16_MAX, "shields are nested too deeply");
  self->shield++;
}

void coir_shield_end(void) {
  COIR_INSIDE;
  struct coir__waiter *self = coir__waiter_self();
  COIR_CHECK(self && self->shield > 0, "coir_shield_end follows a coir_shield_begin of the same fiber");
  self->shield--;
}

/* ---- The usual wait: one clause on one object ------------------------------------------------------------------ */

int coir__waitq_wait(struct coir__worker *w, struct coir__waitq *q, struct coir__clause *c, enum coir__reason reason,
                     int64_t deadline, void (*leave_with)(struct coir__waitq *q, struct coir__clause *c, bool given)) {
  if (deadline <= 0 || (deadline != COIR_NEVER && deadline <= coir__os_now())) {
    coir__bias_unlock(w, &q->lock);
    if (leave_with) leave_with(q, c, false);
    return -ETIMEDOUT;
  }
  struct coir__wait wait;
  coir__wait_begin_on(w && w->current ? w : NULL, &wait, reason, (uint64_t)(uintptr_t)q, deadline);
  coir__wait_add(&wait, c, q);
  coir__wait_leaves(&wait, leave_with);
  coir__bias_unlock(w, &q->lock);
  uint32_t code = coir__wait(&wait);
  return COIR_LIKELY(code >= COIR__CODE_CLAUSE) ? 0 : coir__wait_result(code);
}

/* ---- Time: a wait without clauses ------------------------------------------------------------------------------ */

int64_t coir_now(void) { return coir__os_now(); }

int64_t coir_after(int64_t ns) {
  if (ns == COIR_NEVER) return COIR_NEVER;
  int64_t now = coir__os_now();
  if (ns <= 0) return now;
  return ns > COIR_NEVER - now ? COIR_NEVER : now + ns;
}

int coir_sleep_until(int64_t deadline) {
  COIR_INSIDE_TO_WAIT(COIR_NEVER);
  if (deadline <= 0 || (deadline != COIR_NEVER && deadline <= coir__os_now())) {
    struct coir__worker *w = coir__self();
    int rc = w && coir__cancel_take(&w->current->waiter) ? -ECANCELED : 0;
    coir_yield(); /* with a cancellation as well: see coir__wait */
    return rc;
  }
  struct coir__wait wait;
  coir__wait_begin(&wait, COIR__REASON_SLEEP, 0, deadline);
  return coir__wait(&wait) == COIR__CODE_TIMEOUT ? 0 : -ECANCELED;
}

int coir_sleep(int64_t ns) { return coir_sleep_until(coir_after(ns)); }
