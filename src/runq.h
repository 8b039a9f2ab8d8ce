/* The owner's ends of its queues, inline: every switch goes through here. runq.c explains the protocol (I1 to I4). */
#ifndef COIR_SRC_RUNQ_H
#define COIR_SRC_RUNQ_H

#include "internal.h"

#ifdef COIR_HARD
#define COIR__NEXT_RUNS_MAX 2
#else
#define COIR__NEXT_RUNS_MAX 32 /* dispatches from the next slot in a row while others wait */
#endif
#define COIR__AHEAD 4

void coir__runq_push_full(struct coir__worker *w, struct coir_fiber *f);
struct coir_fiber *coir__runq_pop_shared(struct coir__worker *w); /* while a thief is inside: by compare-and-swap */
struct coir_fiber *coir__runq_pop_extra(struct coir__worker *w);  /* with the deque and the bound list in turn */

/* Head and tail of the ring count in units of RING_ONE. The lower bits of head are the gap: how many fibers right
 * behind the oldest thieves have taken. They leave the oldest, which the owner is about to run; with it the gap goes.
 */
#define COIR__RING_SHIFT 20 /* the gap fits: what is in it counts as taken */
#define COIR__RING_ONE (UINT64_C(1) << COIR__RING_SHIFT)
#define COIR__RING_GAP (COIR__RING_ONE - 1)

/* The head after the oldest is gone. */
static inline uint64_t coir__head_next(uint64_t head) {
  uint64_t gap = head & COIR__RING_GAP;
  return COIR_LIKELY(!gap) ? head + COIR__RING_ONE : head - gap + (gap << COIR__RING_SHIFT) + COIR__RING_ONE;
}

/* Relaxed: index and slot are ordered by tail (bottom), and a thief's value counts only if its compare-and-swap
 * succeeds. */
static inline struct coir_fiber *coir__ring_get(struct coir__ring *r, uint64_t i) {
  return atm_load_rlx(&r->slots[i & r->mask]);
}

static inline void coir__ring_set(struct coir__ring *r, uint64_t i, struct coir_fiber *f) {
  atm_store_rlx(&r->slots[i & r->mask], f);
}

/* The slot of a head or tail: the same, by fewer instructions. */
static inline _Atomic(struct coir_fiber *) *coir__ring_at(struct coir__ring *r, uint64_t at) {
  _Static_assert(sizeof r->slots[0] == 8, "the shift below");
  return (void *)((char *)r->slots + (at >> (COIR__RING_SHIFT - 3) & r->bytes));
}

/* Behind everything; false if the ring is full. */
static inline bool coir__runq_try_push(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__runq *q = &w->q;
  uint64_t tail = atm_load_rlx(&q->tail);
  struct coir__ring *r = atm_load_rlx(&q->ring);
  /* Acquire: the slot that is written was last read by a thief whose compare-and-swap this head includes. Slots of the
   * gap count as taken. */
  if (COIR_UNLIKELY(tail - atm_load_acq(&q->head) > r->mask << COIR__RING_SHIFT)) return false;
  coir__ring_set(r, tail >> COIR__RING_SHIFT, f);
  /* Release: the fiber and its slot before the index. Pairs with the acquire of tail in take_half. */
  atm_store_rel(&q->tail, tail + COIR__RING_ONE);
  return true;
}

static inline void coir__runq_push(struct coir__worker *w, struct coir_fiber *f) {
  if (COIR_UNLIKELY(!coir__runq_try_push(w, f))) coir__runq_push_full(w, f);
}

static inline void coir__runq_push_bound(struct coir__worker *w, struct coir_fiber *f) {
  /* Who spawned it has said so, but maybe before the runtime was started, which forgets what it knew. */
  if (f->b.flags & COIR__FIBER_BOUND) atm_store_rlx(&w->has_pinned, 1);
  coir__list_push(&w->bound, f);
  w->extra = 1;
}

void coir__runq_push_next_taken(struct coir__worker *w, struct coir_fiber *f);

/* Runs next; a former one queues. */
static inline void coir__runq_push_next(struct coir__worker *w, struct coir_fiber *f) {
  /* Release: pairs with the exchange of a thief. Only the owner turns NULL into something, so a store is enough. */
  if (COIR_LIKELY(!atm_load_rlx(&w->q.next))) atm_store_rel(&w->q.next, f);
  else coir__runq_push_next_taken(w, f);
}

/* Fetches what will be dispatched a few steps from now: fibers that were queued long ago are not in the cache. The
 * slot may be past the tail and hold anything that was a fiber once: fetching is harmless. */
static inline void coir__ring_fetch_ahead(struct coir__ring *r, uint64_t head) {
  struct coir_fiber *soon = coir__ring_get(r, (head >> COIR__RING_SHIFT) + COIR__AHEAD);
  __builtin_prefetch(soon, 1);
  __builtin_prefetch((void *)((uintptr_t)soon + COIR__LINE), 1); /* as a number: it may be NULL */
}

/* ---- The deque, for work without a fiber ----------------------------------------------------------------------- */

bool coir__runq_deque_grow(struct coir__worker *w); /* to double its size. False: memory is short */

/* Newest of the deque. `entry`: a struct coir__lean with its tag. False: there is no room, and no memory for more. Who
 * wants others to know calls coir__idle_notify. */
static inline bool coir__runq_push_lean(struct coir__worker *w, struct coir_fiber *entry) {
  struct coir__runq *q = &w->q;
  uint64_t bottom = atm_load_rlx(&q->bottom);
  /* Acquire: as in coir__runq_try_push. */
  uint64_t length = bottom - atm_load_acq(&q->top);
  if (COIR_UNLIKELY(length > atm_load_rlx(&q->deque)->mask) && !coir__runq_deque_grow(w)) return false;
  coir__ring_set(atm_load_rlx(&q->deque), bottom, entry);
  /* Release: the record before the index. Pairs with the acquire of bottom in thieves. */
  atm_store_rel(&q->bottom, bottom + 1);
  w->extra = 1;
  return true;
}

/* Owner: takes the newest, whose index is `at`, bottom less one; it is there, or thieves have taken it. False: they
 * have, or are inside, and then nobody takes at this end. Le, Pop, Cohen, Zappa Nardelli, "Correct and Efficient
 * Work-Stealing for Weak Memory Models", PPoPP 2013, with `thieves` for those that take many. They need not wait for an
 * owner that is inside, as at the ring: it has lowered bottom before it looked, and they read that after they came. */
static inline bool coir__deque_take_newest(struct coir__runq *q, uint64_t at) {
  atm_store_rlx(&q->bottom, at);
  coir__fence_light(); /* pairs with the heavy fences in deque_steal and steal_lifo */
  bool is_ours = false, is_last = false;
  if (COIR_LIKELY(atm_load_acq(&q->thieves) == 0)) {
    uint64_t top = atm_load_rlx(&q->top);
    is_last = at == top;
    is_ours = (int64_t)(at - top) > 0 || (is_last && atm_cas_sc(&q->top, &top, top + 1)); /* who moves top has it */
  }
  if (COIR_UNLIKELY(!is_ours || is_last)) atm_store_rlx(&q->bottom, at + 1);
  return is_ours;
}

/* Owner: takes the newest if that is what it is, and not waiting for thieves. */
static inline bool coir__runq_take_lean(struct coir__worker *w, const struct coir_fiber *entry) {
  struct coir__runq *q = &w->q;
  uint64_t at = atm_load_rlx(&q->bottom) - 1;
  return coir__ring_get(atm_load_rlx(&q->deque), at) == entry && coir__deque_take_newest(q, at);
}

/* Owner: the newest if that is a job, and nothing else wants a turn; else NULL. */
static inline struct coir__lean *coir__runq_pop_job(struct coir__worker *w) {
  struct coir__runq *q = &w->q;
  uint64_t at = atm_load_rlx(&q->bottom) - 1;
  if (at + 1 == atm_load_rlx(&q->top) || !w->tick || atm_load_rlx(&w->attention) || w->bound.head) return NULL;
  if (atm_load_rlx(&q->next) || atm_load_rlx(&q->head) != atm_load_rlx(&q->tail)) return NULL;
  struct coir__ring *r = atm_load_rlx(&q->deque);
  uintptr_t entry = (uintptr_t)coir__ring_get(r, at);
  __builtin_prefetch(coir__ring_get(r, at - COIR__AHEAD)); /* as in coir__ring_fetch_ahead; the tag does not matter */
  if ((entry & COIR__LEAN_MASK) != COIR__LEAN_JOB || !coir__deque_take_newest(q, at)) return NULL;
  w->tick--;
  return (struct coir__lean *)(entry & ~(uintptr_t)COIR__LEAN_MASK);
}

/* ---- The plain pop, in three steps, for the fast path of coir_yield -------------------------------------------- */

/* Enters, and returns the oldest of the ring, which stays there. NULL: there is none, or something needs a closer
 * look (a thief inside, the next slot, attention). Whatever it returns, take it or leave. `extra` is not set. */
static inline struct coir_fiber *coir__runq_oldest(struct coir__worker *w, uint64_t *head) {
  struct coir__runq *q = &w->q;
  atm_store_rlx(&q->busy, 1);
  /* busy before the look at thieves; pairs with the heavy fence in thief_enter. This is a light fence: where those
   * are real ones, `extra` is always set. */
  atomic_signal_fence(memory_order_seq_cst);
  /* Acquire: a thief that has left has left head as it is now. Pairs with its release of q.thieves. */
  uint64_t unusual = atm_load_acq(&q->thieves) | atm_load_rlx(&w->attention);
  if (COIR_UNLIKELY(unusual | (uintptr_t)atm_load_rlx(&q->next))) return NULL;
  *head = atm_load_acq(&q->head); /* acquire: coir__runq_push_after_take relies on it, as in coir__runq_try_push */
  if (COIR_UNLIKELY(*head == atm_load_rlx(&q->tail))) return NULL; /* a gap has an oldest before it */
  return atm_load_rlx(coir__ring_at(atm_load_rlx(&q->ring), *head));
}

static inline void coir__runq_leave(struct coir__worker *w) {
  atm_store_rel(&w->q.busy, 0); /* I4: head and next before it. Pairs with the acquire in thief_enter */
}

static inline void coir__runq_take_oldest(struct coir__worker *w, uint64_t head) {
  atm_store_rlx(&w->q.head, coir__head_next(head));
  coir__runq_leave(w);
}

/* Behind everything, by who has just taken the oldest, and pushed nothing since: so there is room. */
static inline void coir__runq_push_after_take(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__runq *q = &w->q;
  uint64_t tail = atm_load_rlx(&q->tail);
  atm_store_rlx(coir__ring_at(atm_load_rlx(&q->ring), tail), f);
  atm_store_rel(&q->tail, tail + COIR__RING_ONE); /* as in coir__runq_try_push */
}

/* ---- The pop --------------------------------------------------------------------------------------------------- */

/* Next slot, then ring. */
static inline struct coir_fiber *coir__runq_pop_fifo(struct coir__worker *w) {
  struct coir__runq *q = &w->q;
  struct coir_fiber *f;
  atm_store_rlx(&q->busy, 1);
  coir__fence_light(); /* as above; here it may be a real one */
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
  uint64_t head = atm_load_rlx(&q->head);
  if (head != atm_load_rlx(&q->tail)) {
    struct coir__ring *r = atm_load_rlx(&q->ring);
    f = coir__ring_get(r, head >> COIR__RING_SHIFT);
    coir__ring_fetch_ahead(r, head);
    atm_store_rlx(&q->head, coir__head_next(head));
    q->next_runs = 0;
  } else if (f) {
    atm_store_rlx(&q->next, NULL);
  }
out:
  coir__runq_leave(w);
  return f;
}

/* What runs next; NULL: nothing. */
static inline struct coir_fiber *coir__runq_pop(struct coir__worker *w) {
  return COIR_LIKELY(!w->extra) ? coir__runq_pop_fifo(w) : coir__runq_pop_extra(w);
}

#endif
