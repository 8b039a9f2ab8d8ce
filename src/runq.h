/* The owner's ends of its queues, inline: every switch goes through here. runq.c explains the protocol (I1 to I4). */
#ifndef COIR_SRC_RUNQ_H
#define COIR_SRC_RUNQ_H

#include "internal.h"

#define COIR__NEXT_RUNS_MAX 32

void coir__runq_push_full(struct coir__worker *w, struct coir_fiber *f);
struct coir_fiber *coir__runq_pop_shared(struct coir__worker *w); /* while a thief is inside: by compare-and-swap */
struct coir_fiber *coir__runq_pop_extra(struct coir__worker *w);  /* with the deque and the bound list in turn */

/* Relaxed: index and slot are ordered by tail (bottom), and a thief's value counts only if its compare-and-swap succeeds. */
static inline struct coir_fiber *coir__ring_get(struct coir__ring *r, uint64_t i) {
  return atm_load_rlx(&r->slots[i & r->mask]);
}

static inline void coir__ring_set(struct coir__ring *r, uint64_t i, struct coir_fiber *f) {
  atm_store_rlx(&r->slots[i & r->mask], f);
}

/* Behind everything. */
static inline void coir__runq_push(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__runq *q = &w->q;
  uint64_t tail = atm_load_rlx(&q->tail);
  struct coir__ring *r = atm_load_rlx(&q->ring);
  /* Acquire: the slot that is written was last read by a thief whose compare-and-swap this head includes. */
  if (COIR_UNLIKELY(tail - atm_load_acq(&q->head) > r->mask)) {
    coir__runq_push_full(w, f);
    return;
  }
  coir__ring_set(r, tail, f);
  /* Release: the fiber and its slot before the index. Pairs with the acquire of tail in take_half. */
  atm_store_rel(&q->tail, tail + 1);
}

static inline void coir__runq_push_bound(struct coir__worker *w, struct coir_fiber *f) {
  coir__list_push(&w->bound, f);
  w->extra = 1;
}

/* Next slot, then ring. */
static inline struct coir_fiber *coir__runq_pop_fifo(struct coir__worker *w) {
  struct coir__runq *q = &w->q;
  struct coir_fiber *f;
  atm_store_rlx(&q->busy, 1);
  coir__fence_light(); /* busy before the look at thieves; pairs with the heavy fence in thief_enter */
  /* Acquire: a thief that has left has left head as it is now. Pairs with its release of q.thieves. */
  if (COIR_UNLIKELY(atm_load_acq(&q->thieves) != 0)) {
    f = coir__runq_pop_shared(w);
    goto out;
  }
  f = atm_load_rlx(&q->next);
  if (f && q->next_runs < COIR__NEXT_RUNS_MAX) {
    q->next_runs++;
    atm_store_rlx(&q->next, NULL);
    goto out;
  }
  q->next_runs = 0;
  uint64_t head = atm_load_rlx(&q->head);
  if (head != atm_load_rlx(&q->tail)) {
    f = coir__ring_get(atm_load_rlx(&q->ring), head);
    atm_store_rlx(&q->head, head + 1);
  } else if (f) {
    atm_store_rlx(&q->next, NULL);
  }
out:
  atm_store_rel(&q->busy, 0); /* I4: head and next before it. Pairs with the acquire in thief_enter */
  return f;
}

/* What runs next; NULL: nothing. */
static inline struct coir_fiber *coir__runq_pop(struct coir__worker *w) {
  return COIR_LIKELY(!w->extra) ? coir__runq_pop_fifo(w) : coir__runq_pop_extra(w);
}

#endif
