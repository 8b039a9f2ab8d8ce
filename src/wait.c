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
 * Cancellation is a pending bit. Who takes the bit owes the delivery: the waiter by claiming its own wait, the
 * canceller by claiming the wait that it finds open; who cannot claim puts the bit back, and a canceller then looks
 * again. So it is delivered once, to the wait in progress or the next one. The waiter opens its word and looks at the
 * bit after a light fence; the canceller sets the bit and looks at the word after a heavy one.
 *
 * A plain thread that waits is a waiter too; it sleeps on a futex until note carries its wait's number.
 *
 * Rejected: an "on its stack" flag that whoever runs the fiber spins on (it spins for a time slice when the parker
 * was preempted); a locked exchange on both sides (5 ns more per wait); a reference count per wait (two more).
 *
 * I1: from the claim to the wake only the winner touches the wait.   I2: a wait is woken exactly once, by its winner.
 * I3: a fiber is queued only after parked carries the number of its wait.
 * I4: when coir__wait returns, no clause of it is linked and its timer is not armed. */
#include "internal.h"

static const char *const reason_names[COIR__REASON_MAX] = {
    [COIR__REASON_NONE] = "",
    [COIR__REASON_SLEEP] = "sleep",
    [COIR__REASON_JOIN] = "join",
    [COIR__REASON_READ] = "read",
    [COIR__REASON_WRITE] = "write",
    [COIR__REASON_POLL] = "poll",
    [COIR__REASON_BLOCK] = "blocking call",
};

const char *coir__reason_name(enum coir__reason reason) {
  return (unsigned)reason < COIR__REASON_MAX ? reason_names[reason] : "";
}

static inline uint64_t number_of(uint64_t word) { return word & ~COIR__CODE_MASK; }

/* Called under the lock of the wheel. The waiter cannot leave before the lock is free (coir__timer_cancel). */
static struct coir__waiter *deadline_came(struct coir__timer *t) {
  return coir__claim(&t->clause) ? t->clause.waiter : NULL;
}

static inline void begin(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         enum coir__code code) {
  wait->worker = w;
  if (w) {
    struct coir_fiber *f = w->current;
    wait->self = &f->waiter;
    atm_store_rlx(&f->waits_on, object << 8 | reason);
  } else {
    struct coir__thread *t = coir__thread_get();
    COIR_CHECK(t, "no memory for the record of a thread");
    wait->self = &t->waiter;
    atm_store_rlx(&t->waits_on, object << 8 | reason);
  }
  uint64_t number = number_of(atm_load_rlx(&wait->self->word)) + COIR__CODE_MASK + 1;
  if (COIR_UNLIKELY(number == 0)) number = COIR__CODE_MASK + 1; /* 0 is what note says when it says nothing */
  wait->open = number | code;
  wait->clauses = NULL;
  wait->count = 0;
  wait->timed = 0;
  /* Relaxed: a clause publishes it, by the lock of its queue; cancellation looks after a heavy fence. */
  atm_store_rlx(&wait->self->word, wait->open);
}

void coir__wait_begin_on(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason, uint64_t object,
                         int64_t deadline) {
  begin(w, wait, reason, object, COIR__CODE_OPEN);
  wait->timer.deadline = deadline;
  wait->timed = deadline != COIR_NEVER;
}

void coir__wait_begin(struct coir__wait *wait, enum coir__reason reason, uint64_t object, int64_t deadline) {
  coir__wait_begin_on(coir__self(), wait, reason, object, deadline);
}

void coir__wait_begin_shielded(struct coir__wait *wait, enum coir__reason reason, uint64_t object) {
  begin(coir__self(), wait, reason, object, COIR__CODE_SHIELDED);
}

void coir__wait_add(struct coir__wait *wait, struct coir__clause *c, struct coir__waitq *q) {
  c->waiter = wait->self;
  c->open = wait->open;
  c->code = COIR__CODE_CLAUSE + wait->count++;
  c->sibling = wait->clauses;
  wait->clauses = c;
  c->q = q;
  c->linked = 1;
  c->next = NULL;
  c->prev = q->last;
  if (q->last) q->last->next = c;
  else q->first = c;
  q->last = c;
}

void coir__waitq_unlink(struct coir__waitq *q, struct coir__clause *c) {
  COIR_DCHECK(c->linked && c->q == q, "a clause is unlinked from the queue that it is in");
  if (c->prev) c->prev->next = c->next;
  else q->first = c->next;
  if (c->next) c->next->prev = c->prev;
  else q->last = c->prev;
  c->linked = 0;
}

/* Unlinks every clause but that of the winner, which its waker has unlinked. */
static void unlink_all(struct coir__wait *wait, uint32_t winner) {
  for (struct coir__clause *c = wait->clauses; c; c = c->sibling) {
    if (c->code == winner) continue;
    coir__lock(&c->q->lock);
    if (c->linked) coir__waitq_unlink(c->q, c);
    coir__unlock(&c->q->lock);
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

/* Takes a pending cancellation, and claims the wait with it. False: none, or the wait was claimed already. */
static bool cancel_self(struct coir__wait *wait) {
  struct coir__waiter *self = wait->self;
  uint32_t pending = atm_load_acq(&self->cancel);
  if (COIR_LIKELY(!pending) || (wait->open & COIR__CODE_MASK) != COIR__CODE_OPEN) return false;
  bool always = is_always_canceled(self, pending);
  if (!always && !(atm_and_sc(&self->cancel, ~COIR__CANCEL_ONCE) & COIR__CANCEL_ONCE)) return false;
  uint64_t open = wait->open;
  if (atm_cas_ar(&self->word, &open, number_of(open) | COIR__CODE_CANCELED)) return true;
  if (!always) atm_or_sc(&self->cancel, COIR__CANCEL_ONCE);
  return false;
}

/* What was asked for once more before the fiber noticed is the same cancellation. */
static void cancel_noticed(struct coir__waiter *self) { atm_and_sc(&self->cancel, ~COIR__CANCEL_ONCE); }

/* Blocks the thread until the winner has woken it. The deadline is its own affair. */
static void thread_park(struct coir__wait *wait) {
  struct coir__thread *t = coir__waiter_thread(wait->self);
  uint64_t number = number_of(wait->open);
  int64_t deadline = wait->timed ? wait->timer.deadline : COIR_NEVER;
  for (;;) {
    uint32_t seen = atm_load_acq(&t->futex);
    if (atm_load_acq(&t->waiter.note) == number) return;
    if (coir__os_futex_wait(&t->futex, seen, deadline) != -ETIMEDOUT) continue;
    uint64_t open = wait->open;
    if (atm_cas_ar(&t->waiter.word, &open, number | COIR__CODE_TIMEOUT)) return;
    deadline = COIR_NEVER; /* somebody has claimed it, and will wake us in a moment */
  }
}

static void fiber_park(struct coir__wait *wait) {
  struct coir__worker *w = wait->worker; /* nothing has suspended since it began */
  w->current->wait = wait;
  if (wait->timed) {
    wait->timer.fire = deadline_came;
    wait->timer.clause = (struct coir__clause){.waiter = wait->self, .open = wait->open, .code = COIR__CODE_TIMEOUT};
    coir__timer_arm(&w->timers, &wait->timer);
  }
  atm_bump(&w->counts.parks, 1);
  coir__switch_away(w, COIR__AFTER_PARK);
}

static inline void park_waiter(struct coir__wait *wait) {
  if (COIR_UNLIKELY(wait->self->is_thread)) thread_park(wait);
  else fiber_park(wait);
}

uint32_t coir__wait(struct coir__wait *wait) {
  struct coir__waiter *self = wait->self;
  coir__fence_light(); /* the open word before the look at the bit; pairs with the heavy fence in cancel() */
  if (COIR_UNLIKELY(cancel_self(wait))) {
    unlink_all(wait, COIR__CODE_CANCELED);
    cancel_noticed(self);
    coir_yield(); /* a loop around a wait that always ends at once must not keep its worker */
    return COIR__CODE_CANCELED;
  }
  park_waiter(wait);
  /* Relaxed: whoever woke us has ordered its claim before (queues, or the note of a thread). */
  uint32_t code = (uint32_t)(atm_load_rlx(&self->word) & COIR__CODE_MASK);
  COIR_DCHECK(code >= COIR__CODE_TIMEOUT, "a woken waiter's wait has been claimed");
  if (COIR_UNLIKELY(code == COIR__CODE_CANCELED)) cancel_noticed(self);
  if (wait->timed && !self->is_thread && code != COIR__CODE_TIMEOUT) coir__timer_cancel(&wait->timer);
  struct coir__clause *last = wait->clauses;
  if (last && (last->sibling || last->code != code)) unlink_all(wait, code);
  if (!self->is_thread) coir__waiter_fiber(self)->wait = NULL;
  return code;
}

void coir__wait_abandon(struct coir__wait *wait) {
  uint64_t open = wait->open;
  if (COIR_LIKELY(atm_cas_ar(&wait->self->word, &open, number_of(open) | COIR__CODE_TIMEOUT))) {
    if (wait->clauses) unlink_all(wait, COIR__CODE_TIMEOUT);
    return;
  }
  /* Claimed: its winner will wake us, so be parked for it. A cancellation that it delivered is pending again. */
  wait->timed = 0;
  park_waiter(wait);
  uint32_t code = (uint32_t)(atm_load_rlx(&wait->self->word) & COIR__CODE_MASK);
  if (code == COIR__CODE_CANCELED) atm_or_sc(&wait->self->cancel, COIR__CANCEL_ONCE);
  unlink_all(wait, code);
  if (!wait->self->is_thread) coir__waiter_fiber(wait->self)->wait = NULL;
}

void coir__wait_drop(struct coir__wait *wait) {
  if (wait->timed) coir__timer_cancel(&wait->timer);
  unlink_all(wait, COIR__CODE_IDLE);
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

void coir__wake_on(struct coir__worker *w, struct coir__waiter *waiter) {
  uint64_t number = number_of(atm_load_rlx(&waiter->word));
  if (COIR_UNLIKELY(waiter->is_thread)) {
    wake_thread(coir__waiter_thread(waiter), number);
    return;
  }
  struct coir_fiber *f = coir__waiter_fiber(waiter);
  if (COIR_LIKELY(atm_load_acq(&waiter->parked) == number)) {
    coir__ready(w, f);
    return;
  }
  /* It is still on its stack, or was a moment ago. Once the note is there its committer may queue it, it may end, and
   * its runtime go: so we are counted as visitors. Release: what the winner handed over; pairs with the acquire in
   * coir__wait_commit. */
  struct coir_runtime *rt = f->rt;
  atm_add_sc(&rt->visitors, 1);
  atm_store_rel(&waiter->note, number);
  coir__fence_heavy();
  uint64_t note = number;
  if (atm_load_acq(&waiter->parked) == number && atm_cas_ar(&waiter->note, &note, 0)) coir__ready(w, f);
  atm_sub_rel(&rt->visitors, 1); /* pairs with the acquire in release() (runtime.c) */
}

void coir__wake(struct coir__waiter *waiter) { coir__wake_on(coir__carried(), waiter); }

/* Delivers what `bit` asks for to the wait in progress, if there is one. See the head of this file. */
static void cancel(struct coir__waiter *waiter, uint32_t bit) {
  atm_or_sc(&waiter->cancel, bit);
  /* Who is parked has looked at the bit before, and will not again: no need for the fence. Acquire: parked goes
   * first, so that the word is at least as new. */
  uint64_t parked = atm_load_acq(&waiter->parked), word = atm_load_acq(&waiter->word);
  bool is_parked = number_of(word) == parked;
  for (;; is_parked = false) {
    if (!is_parked) {
      coir__fence_heavy(); /* the bit before the look at the word; pairs with the light fence in coir__wait */
      word = atm_load_acq(&waiter->word);
    }
    if ((word & COIR__CODE_MASK) != COIR__CODE_OPEN) {
      if (!is_parked) return;
      continue; /* it was woken a moment ago, and may begin to wait again at any time */
    }
    if (bit == COIR__CANCEL_ONCE && !(atm_and_sc(&waiter->cancel, ~bit) & bit)) return;
    if (atm_cas_ar(&waiter->word, &word, number_of(word) | COIR__CODE_CANCELED)) {
      coir__wake(waiter);
      return;
    }
    if (bit == COIR__CANCEL_ONCE) atm_or_sc(&waiter->cancel, bit);
  }
}

int coir_cancel(struct coir_fiber *fiber) {
  if (!fiber) return -EINVAL;
  if (atm_load_acq(&fiber->ended) & COIR__ENDED) return -ESRCH;
  cancel(&fiber->waiter, COIR__CANCEL_ONCE);
  return 0;
}

void coir__cancel_always(struct coir_fiber *f) { cancel(&f->waiter, COIR__CANCEL_ALWAYS); }

bool coir__cancel_take(struct coir__waiter *w) {
  uint32_t pending = atm_load_acq(&w->cancel);
  if (COIR_LIKELY(!pending)) return false;
  if (is_always_canceled(w, pending)) return true;
  return atm_and_sc(&w->cancel, ~COIR__CANCEL_ONCE) & COIR__CANCEL_ONCE;
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
