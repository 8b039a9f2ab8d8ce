/* The hot half of wait.c, inline: every exchange between two fibers goes through here. wait.c explains it. */
#ifndef COIR_SRC_WAIT_H
#define COIR_SRC_WAIT_H

#include "runq.h"

COIR_INLINE void coir__wait_fill(struct coir__wait *wait, struct coir__worker *w, struct coir__waiter *self,
                                 int64_t deadline, enum coir__code code) {
  uint64_t number = (atm_load_rlx(&self->word) & ~COIR__CODE_MASK) + COIR__CODE_MASK + 1;
  if (COIR_UNLIKELY(number == 0)) number = COIR__CODE_MASK + 1; /* 0 is what note says when it says nothing */
  if (COIR_UNLIKELY(self->shield) && code < COIR__CODE_SHIELDED) code = COIR__CODE_SHIELDED;
  wait->self = self;
  wait->worker = w;
  wait->clauses = NULL;
  wait->open = number | code;
  wait->count = 0;
  wait->has = deadline != COIR_NEVER; /* COIR__WAIT_TIMER */
  wait->timer.deadline = deadline;
  /* Relaxed: a clause publishes it, by the lock of its queue; cancellation looks after a heavy fence. */
  atm_store_rlx(&self->word, number | code);
}

/* Begins a wait of the fiber that w runs. */
COIR_INLINE void coir__wait_open(struct coir__worker *w, struct coir__wait *wait, enum coir__reason reason,
                                 uint64_t object, int64_t deadline, enum coir__code code) {
  struct coir_fiber *f = w->current;
  atm_store_rlx(&f->waits_on, object << 8 | reason);
  atm_store_rlx(&f->since, w->looked_at);
  coir__wait_fill(wait, w, &f->waiter, deadline, code);
}

/* coir__wake_on, for who has claimed a clause of the wait `open`, whose number it carries. The usual case: a fiber of
 * the caller's runtime is parked that may go on here, and nothing is in the next slot. */
static inline void coir__wake_quick(struct coir__worker *w, struct coir__waiter *waiter, uint64_t open) {
  struct coir_fiber *f = coir__waiter_fiber(waiter);
  /* Acquire: it has left its stack. Pairs with the release in coir__wait_commit. A thread is never parked. */
  bool is_parked = atm_load_acq(&waiter->parked) == (open & ~COIR__CODE_MASK);
  if (COIR_LIKELY(is_parked && w && w->rt == f->rt && w->current && !(f->b.flags & COIR__FIBER_SPECIAL) &&
                  !atm_load_rlx(&w->q.next) &&
                  (f->b.worker == (int16_t)w->index || !atm_load_rlx(&w->rt->tuned.affinity)))) {
    atm_bump(&w->counts.wakes, 1);
    atm_store_rel(&w->q.next, f); /* as coir__runq_push_next; not announced: see coir__ready */
    return;
  }
  coir__wake_slow(w, waiter);
}

/* coir__wait for the fiber that w runs, when it waits for one thing and without a deadline. */
static inline uint32_t coir__wait_quick(struct coir__worker *w, struct coir__wait *wait) {
  struct coir_fiber *f = w->current;
  coir__fence_light(); /* as in coir__wait */
  if (COIR_UNLIKELY(atm_load_acq(&f->waiter.cancel) != 0)) return coir__wait(wait);
  f->wait = wait;
  atm_bump(&w->counts.parks, 1);
  coir__switch_away(w, COIR__AFTER_PARK);
  uint32_t code = (uint32_t)(atm_load_rlx(&f->waiter.word) & COIR__CODE_MASK); /* relaxed: as in coir__wait */
  if (COIR_UNLIKELY(code != COIR__CODE_CLAUSE)) coir__wait_tidy_up(wait, code);
  f->wait = NULL;
  return code;
}

#endif
