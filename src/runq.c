/* Run queues.
 *
 * Goal: the owner of a queue pushes and pops without a locked instruction; thieves can still take fibers at any time,
 * also from an owner that computes and does not look at its queues. Why it is hard: owner and thief must not take the
 * same fiber, and agreeing on that costs each side a full fence. The owner pops every few nanoseconds, a thief comes
 * now and then.
 *
 * Design. Each worker has
 *   next   a slot for the fiber just woken: it runs next, at most NEXT_RUNS_MAX times in a row
 *   ring   first in, first out, for spawned, yielded and woken fibers; [head, tail)
 *   deque  last in, first out for the owner, first in first out for thieves (Chase and Lev, "Dynamic circular
 *   work-stealing
 *          deque", 2005; orders after Le, Pop, Cohen, Zappa Nardelli, 2013): fork-join work; [top, bottom)
 * and, touched by nobody else, a list of fibers bound to it.
 *
 * Ring and slot have two modes. While q.thieves is 0 the owner pops with plain loads and stores, between busy = 1 and
 * busy = 0. A thief first raises q.thieves, executes a heavy fence, and waits for busy == 0: from then on every pop
 * of the owner sees q.thieves != 0 and goes by compare-and-swap on head (exchange on next), as the thief does, so
 * that neither waits for the other. When the last thief has left, the owner is back to plain pops. A thief that finds
 * the owner inside for too long (it was preempted there) gives up.
 *
 * The deque goes by Chase and Lev where a thief takes one. Jobs are taken many at a time, which is more than that
 * allows: the owner may be popping what lies between. So thieves come inside for it as above, and meanwhile the owner
 * takes at their end, by compare-and-swap of top, too.
 *
 * The oldest stays. A thief takes what stands behind it (runq.h: the gap), so that the owner goes on with what it was
 * about to run, and what was spawned first starts first. Where lone fibers may be taken at all (steal_min_victim 1),
 * the oldest is taken from an owner that is stuck: which has run nothing since the last theft, or since idle.c's last
 * look.
 *
 * Rejected: a compare-and-swap per pop (Go, Tokio: 5 ns each); taking batches by one compare-and-swap (what was taken
 * is out of thieves' reach, stuck behind a fiber that computes); a lock that makes the owner wait for a preempted
 * thief.
 *
 * I1: a fiber is in at most one slot of all queues between head and tail (top and bottom).
 * I2: only the owner writes tail, bottom and slots; slots in [head, tail) do not change.
 * I3: head and top only grow, modulo 2^64, so a stale compare-and-swap fails. The gap of head is 0 unless the oldest
 *     is there.
 * I4: with q.thieves == 0 seen by the owner after busy = 1, no thief changes head or next until busy = 0.
 * Bounds: RING_MAX fibers per ring, beyond that they go to the runtime's lane; STEAL_MAX fibers per steal. */
#include <string.h>

#include "runq.h"

#ifdef COIR_HARD /* rings grow, overflow and are stolen from in small pieces all the time */
#define RING_MIN 2
#if defined(COIR__ROUGH)
#define RING_MAX UINT64_C(32)
#define STEAL_MAX 1
#define LANE_BATCH_MAX 1
#else /* the explorer's cases: many at a time */
#define RING_MAX UINT64_C(32768)
#define STEAL_MAX 2
#define LANE_BATCH_MAX 2
#endif
#else
#define RING_MIN 256
#define RING_MAX (UINT64_C(1) << 20)
#define STEAL_MAX 1024
#define LANE_BATCH_MAX 64
#endif
#define STEAL_SPINS 256
#define DEQUE_MAX (UINT64_C(1) << 32)
#define JOBS_WORTH 4   /* so many in a deque, and more than one of them is taken */
#define JOBS_MAX STEAL_MAX
_Static_assert(RING_MAX <= COIR__RING_ONE, "the gap of a ring fits its bits");

static struct coir__ring *ring_new(struct coir_runtime *rt, uint64_t slots, struct coir__ring *older) {
  struct coir__ring *r = coir__alloc(rt, sizeof *r + slots * sizeof r->slots[0]);
  if (!r) return NULL;
  r->mask = slots - 1;
  r->bytes = r->mask * sizeof r->slots[0];
  r->older = older;
  return r;
}

static void ring_free(struct coir_runtime *rt, struct coir__ring *r) {
  while (r) {
    struct coir__ring *older = r->older;
    coir__free(rt, r, sizeof *r + (r->mask + 1) * sizeof r->slots[0]);
    r = older;
  }
}

int coir__runq_init(struct coir__worker *w) {
  struct coir__ring *ring = ring_new(w->rt, RING_MIN, NULL);
  struct coir__ring *deque = ring_new(w->rt, RING_MIN, NULL);
  atm_store_rlx(&w->q.ring, ring);
  atm_store_rlx(&w->q.deque, deque);
  w->extra = !coir__fence_asymmetric;
  return ring && deque ? 0 : -ENOMEM;
}

void coir__runq_fini(struct coir__worker *w) {
  ring_free(w->rt, atm_load_rlx(&w->q.ring));
  ring_free(w->rt, atm_load_rlx(&w->q.deque));
}

/* Doubles the storage, which is full; `from` is the oldest. Returns the new one, or NULL when it is as large as it
 * gets or memory is short. */
static struct coir__ring *ring_grow(struct coir__worker *w, _Atomic(struct coir__ring *) *where, uint64_t from,
                                    uint64_t max) {
  struct coir__ring *r = atm_load_rlx(where);
  if (r->mask + 1 >= max) return NULL;
  struct coir__ring *bigger = ring_new(w->rt, (r->mask + 1) * 2, r);
  if (!bigger) return NULL;
  for (uint64_t i = 0; i <= r->mask; i++) coir__ring_set(bigger, from + i, coir__ring_get(r, from + i));
  /* Release: the copies before the pointer. Pairs with the acquire of a thief. */
  atm_store_rel(where, bigger);
  return bigger;
}

/* The ring is full: makes it larger, or leaves the fiber to the runtime's lane. */
void coir__runq_push_full(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__runq *q = &w->q;
  uint64_t tail = atm_load_rlx(&q->tail);
  uint64_t head = atm_load_acq(&q->head);
  struct coir__ring *r = ring_grow(w, &q->ring, head >> COIR__RING_SHIFT, RING_MAX);
  if (!r) {
    coir__lane_put(w->rt, f);
    return;
  }
  coir__ring_set(r, tail >> COIR__RING_SHIFT, f);
  atm_store_rel(&q->tail, tail + COIR__RING_ONE); /* as in coir__runq_push */
}

/* The slot is taken, and a thief may be at it: exchange. */
void coir__runq_push_next_taken(struct coir__worker *w, struct coir_fiber *f) {
  struct coir_fiber *former = atm_xchg_ar(&w->q.next, f);
  if (former) coir__runq_push(w, former);
}

void coir__runq_push_lifo(struct coir__worker *w, struct coir_fiber *f) {
  struct coir__runq *q = &w->q;
  uint64_t bottom = atm_load_rlx(&q->bottom);
  uint64_t top = atm_load_acq(&q->top);
  struct coir__ring *r = atm_load_rlx(&q->deque);
  if (COIR_UNLIKELY(bottom - top > r->mask)) {
    r = ring_grow(w, &q->deque, top, DEQUE_MAX);
    if (!r) {
      coir__lane_put(w->rt, f);
      return;
    }
  }
  coir__ring_set(r, bottom, f);
  /* Release: pairs with the acquire of bottom in deque_steal. */
  atm_store_rel(&q->bottom, bottom + 1);
  w->extra = 1;
}

bool coir__runq_deque_grow(struct coir__worker *w) {
  return ring_grow(w, &w->q.deque, atm_load_acq(&w->q.top), DEQUE_MAX) != NULL;
}

/* What was taken out of a deque, as a fiber; NULL: memory is short. */
static struct coir_fiber *whole(struct coir__worker *w, struct coir_fiber *entry) {
  struct coir__lean *lean = (struct coir__lean *)((uintptr_t)entry & ~(uintptr_t)COIR__LEAN_MASK);
  return (uintptr_t)entry & COIR__LEAN_MASK ? lean->bind(w, lean) : entry;
}

static bool is_job(const struct coir_fiber *entry) { return ((uintptr_t)entry & COIR__LEAN_MASK) == COIR__LEAN_JOB; }

/* The oldest, by the owner or by a thief; `b` is a bottom that was read after a fence. NULL: somebody was quicker. */
static struct coir_fiber *deque_take_oldest(struct coir__runq *q, uint64_t t, uint64_t b) {
  if ((int64_t)(b - t) <= 0) return NULL;
  struct coir_fiber *f = coir__ring_get(atm_load_acq(&q->deque), t);
  return atm_cas_sc(&q->top, &t, t + 1) ? f : NULL;
}

/* Owner's end of the deque; while thieves are inside it takes at their end, as they do. */
static struct coir_fiber *deque_pop(struct coir__worker *w) {
  struct coir__runq *q = &w->q;
  for (;;) {
    uint64_t b = atm_load_rlx(&q->bottom), t = atm_load_acq(&q->top);
    if (b == t) return NULL;
    struct coir_fiber *f = coir__ring_get(atm_load_rlx(&q->deque), b - 1);
    if (!coir__deque_take_newest(q, b - 1)) f = atm_load_rlx(&q->thieves) ? deque_take_oldest(q, t, b) : NULL;
    if (f) return whole(w, f);
  }
}

static struct coir_fiber *deque_steal(struct coir__runq *q) {
  uint64_t t = atm_load_acq(&q->top);
  coir__fence_heavy(); /* pairs with the light fence in coir__deque_take_newest */
  return deque_take_oldest(q, t, atm_load_acq(&q->bottom));
}

struct coir_fiber *coir__runq_pop_shared(struct coir__worker *w) {
  struct coir__runq *q = &w->q;
  struct coir_fiber *f = NULL;
  if (atm_load_rlx(&q->next) && q->next_runs < COIR__NEXT_RUNS_MAX) f = atm_xchg_ar(&q->next, NULL);
  if (f) {
    q->next_runs++;
    return f;
  }
  uint64_t head = atm_load_acq(&q->head);
  while (head != atm_load_rlx(&q->tail)) {
    f = coir__ring_get(atm_load_rlx(&q->ring), head >> COIR__RING_SHIFT);
    if (!atm_cas_ar(&q->head, &head, coir__head_next(head))) continue;
    q->next_runs = 0;
    return f;
  }
  return atm_load_rlx(&q->next) ? atm_xchg_ar(&q->next, NULL) : NULL;
}

struct coir_fiber *coir__runq_pop_extra(struct coir__worker *w) {
  struct coir__runq *q = &w->q;
  /* Depth first, but not for ever: what yielded, or is bound, must get its turn. A woken fiber goes before all. */
  struct coir_fiber *f = NULL;
  uint32_t turn = w->turn++;
  bool next_first = atm_load_rlx(&q->next) && q->next_runs < COIR__NEXT_RUNS_MAX;
  if (turn % 2 == 0) f = coir__list_pop(&w->bound);
  if (w->fifo_turns) w->fifo_turns--, next_first = true;
  if (!f && (next_first || turn % 16 == 1)) f = coir__runq_pop_fifo(w);
  if (!f && (f = deque_pop(w))) q->next_runs = 0;
  if (!f) f = coir__runq_pop_fifo(w);
  if (!f) f = coir__list_pop(&w->bound);
  w->extra = w->bound.head || atm_load_rlx(&q->bottom) != atm_load_rlx(&q->top) || !coir__fence_asymmetric;
  return f;
}

struct coir_fiber *coir__runq_pop_aged(struct coir__worker *w, bool deepest) {
  struct coir__runq *q = &w->q;
  if (deepest) {
    uint64_t t = atm_load_acq(&q->top);
    if ((int64_t)(atm_load_rlx(&q->bottom) - t) <= 0) return NULL; /* ours: it does not move meanwhile */
    struct coir_fiber *f = deque_take_oldest(q, t, atm_load_rlx(&q->bottom));
    return f ? whole(w, f) : NULL;
  }
  q->next_runs = COIR__NEXT_RUNS_MAX; /* so the next slot has had its turn */
  return coir__runq_pop_fifo(w);
}

/* How many stand between head and tail. Not atomic, so it may be less than nothing. */
static int64_t ring_length(uint64_t head, uint64_t tail) {
  uint64_t gap = head & COIR__RING_GAP;
  return ((int64_t)(tail - (head - gap)) >> COIR__RING_SHIFT) - (int64_t)gap;
}

uint64_t coir__runq_length(const struct coir__worker *w) {
  const struct coir__runq *q = &w->q;
  int64_t ring = ring_length(atm_load_rlx(&q->head), atm_load_rlx(&q->tail));
  int64_t deque = (int64_t)(atm_load_rlx(&q->bottom) - atm_load_rlx(&q->top));
  return (uint64_t)(ring > 0 ? ring : 0) + (uint64_t)(deque > 0 ? deque : 0);
}

bool coir__runq_has_lean(const struct coir__worker *w) {
  const struct coir__runq *q = &w->q;
  uint64_t b = atm_load_rlx(&q->bottom);
  return b != atm_load_rlx(&q->top) && (uintptr_t)coir__ring_get(atm_load_rlx(&q->deque), b - 1) & COIR__LEAN_MASK;
}

bool coir__runq_has_next(const struct coir__worker *w) { return atm_load_rlx(&w->q.next) != NULL; }

/* Executes the heavy fence, and keeps count of what it costs (idle.c asks). */
static void thief_fence(struct coir_runtime *rt) {
  int64_t start = coir__os_now();
  coir__fence_heavy();
  int64_t took = coir__os_now() - start, mean = atm_load_rlx(&rt->fence_ns);
  if (took > COIR_US(100)) took = COIR_US(100); /* it was preempted */
  atm_store_rlx(&rt->fence_ns, (uint32_t)(mean + (took - mean) / 8));
}

/* From the return of true to thief_leave the owner pops by compare-and-swap (I4). */
static bool thief_enter(struct coir_runtime *rt, struct coir__runq *q) {
  atm_add_sc(&q->thieves, 1);
  thief_fence(rt); /* pairs with the light fence in coir__runq_pop_fifo */
  for (int i = 0; i < STEAL_SPINS; i++) {
    if (atm_load_acq(&q->busy) == 0) return true;
    coir__pause();
  }
  atm_sub_rel(&q->thieves, 1);
  return false;
}

static void thief_leave(struct coir__runq *q) { atm_sub_rel(&q->thieves, 1); }

/* How many to take out of `length`, the oldest not among them, for a thief with `room` in its ring. */
static uint64_t share(int64_t length, uint64_t room) {
  uint64_t n = length < 2 ? 0 : (uint64_t)length / 2;
  if (n > STEAL_MAX) n = STEAL_MAX;
  return n > room + 1 ? room + 1 : n;
}

/* Takes the older half of what stands behind the oldest in the ring, while inside. Appends all but the first to the
 * thief's ring. `oldest`: that one may be taken, too, which is done if the owner is stuck; `lone` says that it is. */
static struct coir_fiber *take_half(struct coir__worker *thief, struct coir__runq *q, bool lone, bool oldest) {
  struct coir__runq *mine = &thief->q;
  struct coir__ring *ring = atm_load_rlx(&mine->ring);
  uint64_t tail = atm_load_rlx(&mine->tail), end = tail >> COIR__RING_SHIFT;
  /* Acquire: as in coir__runq_try_push. The gap lies within. */
  uint64_t begin = atm_load_acq(&mine->head) >> COIR__RING_SHIFT;
  uint64_t wanted = share(ring_length(atm_load_rlx(&q->head), atm_load_rlx(&q->tail)), STEAL_MAX) + end - begin;
  while (ring->mask + 1 < wanted) {
    struct coir__ring *bigger = ring_grow(thief, &mine->ring, begin, RING_MAX);
    if (!bigger) break;
    ring = bigger;
  }
  uint64_t room = ring->mask + 1 - (end - begin);
  for (;;) {
    uint64_t head = atm_load_acq(&q->head), gap = head & COIR__RING_GAP;
    int64_t length = ring_length(head, atm_load_acq(&q->tail));
    uint64_t n = share(length, room), from = (head >> COIR__RING_SHIFT) + 1 + gap, at = from, next = head + n;
    if (oldest && length > 0 && (lone || (gap && n))) {
      if (n == 0) n = 1;
      at = head >> COIR__RING_SHIFT, from--;
      next = coir__head_next(head) + ((n - 1) << COIR__RING_SHIFT);
    }
    if (n == 0) return NULL;
    /* Acquire, after tail: at least as new as the ring into which the slots below that tail were written. */
    struct coir__ring *theirs = atm_load_acq(&q->ring);
    struct coir_fiber *first = coir__ring_get(theirs, at);
    for (uint64_t i = 1; i < n; i++) coir__ring_set(ring, end + i - 1, coir__ring_get(theirs, from + i));
    if (!atm_cas_ar(&q->head, &head, next)) continue;
    atm_store_rel(&mine->tail, tail + ((n - 1) << COIR__RING_SHIFT));
    atm_bump(&thief->counts.steals, n);
    return first;
  }
}

/* The older half of the jobs that a deque begins with, while inside: so nobody takes at the bottom. Appends all but the
 * first to the thief's deque, which is empty or nearly so. */
static struct coir_fiber *take_jobs(struct coir__worker *thief, struct coir__runq *q) {
  struct coir__runq *mine = &thief->q;
  uint64_t t = atm_load_acq(&q->top), left = atm_load_acq(&q->bottom) - t, n = 0;
  uint64_t length = atm_load_rlx(&mine->bottom) - atm_load_acq(&mine->top);
  struct coir_fiber *batch[JOBS_MAX];
  if ((int64_t)left <= 0) return NULL;
  uint64_t most = left < JOBS_MAX ? left : JOBS_MAX, room = atm_load_rlx(&mine->deque)->mask + 1 - length;
  if (room < most / 2 && coir__runq_deque_grow(thief)) room = atm_load_rlx(&mine->deque)->mask + 1 - length;
  if (most > room) most = room; /* with the one to run, which may have to be put back */
  struct coir__ring *r = atm_load_acq(&q->deque); /* after bottom: at least as new */
  while (n < (left + 1) / 2 && n < most && is_job(batch[n] = coir__ring_get(r, t + n))) n++;
  if (n == 0 || !atm_cas_sc(&q->top, &t, t + n)) return NULL;
  for (uint64_t i = n - 1; i > 0; i--) (void)coir__runq_push_lean(thief, batch[i]); /* the oldest is to run first */
  atm_bump(&thief->counts.steals, n);
  return batch[0];
}

/* One fiber or fork, or many jobs: those are small, and each theft costs a heavy fence. `lost`: others were quicker. */
static struct coir_fiber *steal_lifo(struct coir__worker *thief, struct coir__runq *q, bool *lost) {
  uint64_t t = atm_load_acq(&q->top), left = atm_load_acq(&q->bottom) - t;
  struct coir_fiber *f;
  if ((int64_t)left <= 0) return NULL; /* the fence is dear: look first */
  if (left >= JOBS_WORTH && is_job(coir__ring_get(atm_load_acq(&q->deque), t))) {
    atm_add_sc(&q->thieves, 1);
    thief_fence(thief->rt); /* pairs with the light fence in coir__deque_take_newest */
    f = take_jobs(thief, q);
    thief_leave(q);
  } else if ((f = deque_steal(q)) != NULL) {
    atm_bump(&thief->counts.steals, 1);
  }
  *lost = !f;
  return f ? whole(thief, f) : NULL;
}

static struct coir_fiber *steal_fifo(struct coir__worker *thief, struct coir__runq *q, bool lone) {
  bool oldest = atm_load_rlx(&thief->rt->tuned.steal_min_victim) < 2;
  if (!oldest) lone = false; /* it may have become so since the caller looked */
  if (ring_length(atm_load_rlx(&q->head), atm_load_rlx(&q->tail)) < 2 && !lone) return NULL;
  if (!thief_enter(thief->rt, q)) return NULL;
  struct coir_fiber *f = take_half(thief, q, lone, oldest);
  if (!f && lone && atm_load_rlx(&q->next)) {
    f = atm_xchg_ar(&q->next, NULL);
    if (f) atm_bump(&thief->counts.steals, 1);
  }
  thief_leave(q);
  return f;
}

struct coir_fiber *coir__runq_steal(struct coir__worker *thief, struct coir__worker *victim, bool lone) {
  bool lost = false;
  struct coir_fiber *f = steal_lifo(thief, &victim->q, &lost);
  if (!f) f = steal_fifo(thief, &victim->q, lone);
  if (!f && lost) atm_bump(&thief->counts.steals_lost, 1);
  return f;
}

/* ---- Inbox: others send, the owner takes ----------------------------------------------------------------------- */

void coir__inbox_send(struct coir__worker *w, struct coir_fiber *f) {
  struct coir_fiber *head = atm_load_rlx(&w->inbox);
  do f->next = head;
  while (!atm_cas_ar(&w->inbox, &head, f)); /* pairs with the exchange in coir__inbox_take */
}

bool coir__inbox_take(struct coir__worker *w) {
  if (!atm_load_rlx(&w->inbox)) return false;
  struct coir_fiber *newest = atm_xchg_ar(&w->inbox, NULL), *f = NULL;
  while (newest) { /* newest first: turn it round */
    struct coir_fiber *older = newest->next;
    newest->next = f;
    f = newest;
    newest = older;
  }
  while (f) {
    struct coir_fiber *next = f->next;
    if (f->b.flags & (COIR__FIBER_BOUND | COIR__FIBER_TARGETED)) coir__runq_push_bound(w, f);
    else coir__runq_push(w, f);
    f = next;
  }
  return true;
}

/* ---- Lanes: from outside, by priority, and what overflowed ----------------------------------------------------- */

void coir__lane_put(struct coir_runtime *rt, struct coir_fiber *f) {
  coir__lane_put_in(rt, f, coir__lane_of(f), false);
}

void coir__lane_put_in(struct coir_runtime *rt, struct coir_fiber *f, int index, bool first) {
  struct coir__lane *lane = &rt->lanes[index];
  coir__lock(&lane->lock);
  if (first) coir__list_push_first(&lane->list, f);
  else coir__list_push(&lane->list, f);
  atm_store_rlx(&lane->count, lane->list.count);
  atm_add_rlx(&rt->injected, 1);
  coir__unlock(&lane->lock);
}

bool coir__lane_remove(struct coir_runtime *rt, struct coir_fiber *f, int index) {
  struct coir__lane *lane = &rt->lanes[index];
  coir__lock(&lane->lock);
  bool found = coir__list_remove(&lane->list, f);
  atm_store_rlx(&lane->count, lane->list.count);
  coir__unlock(&lane->lock);
  if (found) atm_add_rlx(&rt->injected_taken, 1);
  return found;
}

struct coir_fiber *coir__lane_get(struct coir__worker *w, int index) {
  struct coir__lane *lane = &w->rt->lanes[index];
  if (atm_load_rlx(&lane->count) == 0) return NULL;
  coir__lock(&lane->lock);
  struct coir_fiber *first = coir__list_pop(&lane->list);
  uint64_t more = 0;
  if (index == 1 && !coir__hard_migrates(w)) { /* a fair share goes to the ring; priorities are taken one by one */
    more = lane->list.count / (uint64_t)w->rt->worker_count;
    if (more > LANE_BATCH_MAX) more = LANE_BATCH_MAX;
  }
  struct coir__list batch = {0};
  for (uint64_t i = 0; i < more; i++) coir__list_push(&batch, coir__list_pop(&lane->list));
  atm_store_rlx(&lane->count, lane->list.count);
  coir__unlock(&lane->lock);
  if (!first) return NULL;
  atm_add_rlx(&w->rt->injected_taken, more + 1);
  for (struct coir_fiber *f; (f = coir__list_pop(&batch));) coir__runq_push(w, f);
  return first;
}

void coir__lane_to_ring(struct coir__worker *w) {
  struct coir__lane *lane = &w->rt->lanes[1];
  coir__lock(&lane->lock);
  struct coir__list all = lane->list;
  lane->list = (struct coir__list){0};
  atm_store_rlx(&lane->count, 0);
  coir__unlock(&lane->lock);
  atm_add_rlx(&w->rt->injected_taken, all.count);
  for (struct coir_fiber *f; (f = coir__list_pop(&all));) coir__runq_push(w, f); /* what is too much goes back */
}
