/* Timers: a hierarchical timing wheel per worker (Varghese and Lauck, 1987).
 *
 * Goal: arming and cancelling in O(1), because most deadlines are cancelled long before they come; firing in the
 * order of the deadlines and never early; and an idle worker that sleeps through to the next deadline, however far it
 * is.
 *
 * Design. A tick is 2^16 ns (65.5 us). A tick number is eight digits of six bits, and `now` is the tick up to which
 * the wheel has come. A timer lies at the level of the highest digit in which its tick differs from `now`, in the
 * slot that this digit names. Eight levels take every int64_t, so nothing is ever clamped. Two things follow, and
 * carry the rest:
 *
 * I1  All timers of one level come before all timers of the next, and those of one slot before those of a slot to the
 * right. So the lowest level in use, and in it the lowest slot, holds the earliest: two bit scans. I2  Moving `now`
 * forward to any tick that is not past the beginning of that slot changes the place of no timer. So `now` skips empty
 * time in one step.
 *
 * When `now` comes to the beginning of a slot, the slot is taken apart ("settled"): the timers of a level above the
 * lowest find their place anew, each at a lower level (so at most seven times in its life), and those of the lowest
 * level become due: their tick has begun. What is due is held sorted, for a tick is long. Those whose deadline lies
 * in the part of the tick that is over fire; the others stay.
 *
 * The due timers are sorted lists, list i of at most 2^i timers, merged as a binary counter carries: an insertion
 * costs O(log n) amortized, taking the earliest looks at one head per list, and cancelling unlinks as everywhere
 * else. So 10^5 timers of one tick cost n log n in all, although they fire in batches while others are armed in
 * between.
 *
 * `next` is what an idle worker sleeps until. It is the exact minimum after an arm; after a look of coir__timers_fire
 * it is the exact minimum unless the first slot is crowded, and then the beginning of that slot, where at least
 * SCAN_MAX timers need settling anyway. A cancelled timer leaves it behind: one look too early, which puts it right.
 *
 * Everything happens under the lock of the wheel. It is held for MOVES_MAX settlements (each O(1), amortized) and
 * `max` firings at most: a look that has more to do ends and leaves `next` in the past.
 *
 * Rejected: a binary heap (cancelling costs O(log n), and a cache miss per level of it); wheels that round deadlines
 * to the level's slot, as kernels do (up to 1/8 late); taking a list per slot apart in any order (deadlines within a
 * tick would fire out of order). */
#include "internal.h"

/* Digits of a tick number. */
#define DIGIT_BITS 6
#define DIGIT_MASK 63
#define DUE COIR__WHEEL_LEVELS /* the row of `used` and `slots` that the sorted lists of due timers have */
#define DUE_LAST 63            /* the last of them takes any number */

#ifdef COIR_HARD
#define MOVES_MAX 3
#define SCAN_MAX 1
#else
#define MOVES_MAX 1024 /* timers settled per look */
#define SCAN_MAX 32    /* timers of a slot that are looked at for the exact minimum */
#endif

static inline uint32_t digit(int64_t tick, int level) { return (uint32_t)(tick >> (DIGIT_BITS * level)) & DIGIT_MASK; }

static inline int64_t tick_of(int64_t deadline) { return deadline >> COIR__WHEEL_SHIFT; }

/* ---- Lists ----------------------------------------------------------------------------------------------------- */

static inline void push(struct coir__timers *ts, int row, uint32_t slot, struct coir__timer *t) {
  struct coir__timer **head = &ts->slots[row * 64 + slot];
  t->next = *head;
  if (t->next) t->next->link = &t->next;
  t->link = head;
  *head = t;
  ts->used[row] |= UINT64_C(1) << slot;
}

static inline void unlink_timer(struct coir__timers *ts, struct coir__timer *t) {
  struct coir__timer *next = t->next, **link = t->link;
  *link = next;
  t->link = NULL;
  if (next) {
    next->link = link;
    return;
  }
  /* It was the last of its list, and the only one if `link` is the head. */
  uintptr_t offset = (uintptr_t)link - (uintptr_t)ts->slots;
  if (offset < sizeof ts->slots) {
    size_t index = (size_t)(link - ts->slots);
    ts->used[index / 64] &= ~(UINT64_C(1) << index % 64);
  }
}

/* Merges two sorted lists; of equal deadlines those of `a` come first. The head's link is left to the caller. */
static struct coir__timer *merge(struct coir__timer *a, struct coir__timer *b) {
  struct coir__timer *head, **tail = &head;
  while (a && b) {
    struct coir__timer **from = b->deadline < a->deadline ? &b : &a, *t = *from;
    *from = t->next;
    *tail = t;
    t->link = tail;
    tail = &t->next;
  }
  *tail = a ? a : b;
  if (*tail) (*tail)->link = tail;
  return head;
}

static void due_insert(struct coir__timers *ts, struct coir__timer *t) {
  struct coir__timer **lists = ts->slots + (size_t)DUE * 64;
  uint32_t i = 0;
  t->next = NULL;
  for (; i < DUE_LAST && lists[i]; i++) {
    t = merge(lists[i], t);
    lists[i] = NULL;
    ts->used[DUE] &= ~(UINT64_C(1) << i);
  }
  if (lists[i]) t = merge(lists[i], t);
  lists[i] = t;
  t->link = &lists[i];
  ts->used[DUE] |= UINT64_C(1) << i;
}

/* The earliest of the due timers, of which there is at least one. */
static struct coir__timer *due_first(const struct coir__timers *ts) {
  struct coir__timer *first = NULL;
  for (uint64_t rest = ts->used[DUE]; rest; rest &= rest - 1) {
    struct coir__timer *t = ts->slots[DUE * 64 + __builtin_ctzll(rest)];
    if (!first || t->deadline < first->deadline) first = t;
  }
  return first;
}

/* ---- The wheel ------------------------------------------------------------------------------------------------- */

/* I1. A timer whose tick has begun goes to the slot of `now` on the lowest level, which settling makes due. */
static inline void place(struct coir__timers *ts, struct coir__timer *t) {
  int64_t tick = tick_of(t->deadline);
  if (tick < ts->now) tick = ts->now;
  uint64_t differs = (uint64_t)(tick ^ ts->now);
  int level = differs ? (63 - __builtin_clzll(differs)) / DIGIT_BITS : 0;
  push(ts, level, digit(tick, level), t);
}

/* Takes apart the slots that `now` stands at the beginning of. Returns false when `*moves` did not suffice. */
static bool settle(struct coir__timers *ts, int *moves) {
  for (int level = COIR__WHEEL_LEVELS - 1; level >= 0; level--) {
    uint32_t slot = digit(ts->now, level);
    if (COIR_LIKELY(!(ts->used[level] >> slot & 1))) continue;
    for (struct coir__timer *t; (t = ts->slots[level * 64 + slot]); --*moves) {
      if (*moves == 0) return false;
      unlink_timer(ts, t);
      if (level > 0) place(ts, t);
      else due_insert(ts, t);
    }
  }
  return true;
}

/* Finds the first slot (I1) of a settled wheel, and the tick at which it begins. Returns its index; -1 when all are
 * empty. */
static int first_slot(const struct coir__timers *ts, int64_t *begins) {
  for (int level = 0; level < COIR__WHEEL_LEVELS; level++) {
    if (!ts->used[level]) continue;
    int slot = __builtin_ctzll(ts->used[level]), shift = DIGIT_BITS * level;
    int64_t above = ts->now >> shift >> DIGIT_BITS << DIGIT_BITS;
    *begins = (above | slot) << shift;
    COIR_DCHECK(*begins > ts->now, "I1: a slot of a settled wheel begins after now");
    return level * 64 + slot;
  }
  return -1;
}

/* Moves a settled wheel, in which nothing is due, to the beginning of its first slot, at most to `tick` (I2). Returns
 * whether there is something to settle now. */
static bool advance(struct coir__timers *ts, int64_t tick) {
  int64_t begins;
  bool found = first_slot(ts, &begins) >= 0 && begins <= tick;
  if (found) ts->now = begins;
  else if (tick > ts->now) ts->now = tick;
  return found;
}

/* A time before which no timer of a settled wheel fires. */
static int64_t next_bound(const struct coir__timers *ts) {
  if (ts->used[DUE]) return due_first(ts)->deadline;
  int64_t begins, least = COIR_NEVER;
  int index = first_slot(ts, &begins), seen = 0;
  if (index < 0) return COIR_NEVER;
  for (const struct coir__timer *t = ts->slots[index]; t; t = t->next) {
    if (seen++ == SCAN_MAX) return begins << COIR__WHEEL_SHIFT;
    if (t->deadline < least) least = t->deadline;
  }
  return least;
}

/* ---- The interface --------------------------------------------------------------------------------------------- */

void coir__timers_init(struct coir__timers *ts, int64_t now) {
  *ts = (struct coir__timers){.now = now < 0 ? 0 : tick_of(now)};
  atm_store_rlx(&ts->next, COIR_NEVER);
}

void coir__timers_fini(struct coir__timers *ts) {
  for (size_t i = 0; i < sizeof ts->slots / sizeof ts->slots[0]; i++)
    for (struct coir__timer *t = ts->slots[i]; t; t = t->next) atm_store_rlx(&t->home, NULL);
}

void coir__timer_arm(struct coir__timers *ts, struct coir__timer *t) {
  struct coir__worker *w = coir__carried();
  COIR_CHECK(t->deadline != COIR_NEVER, "a timer has a deadline");
  atm_store_rlx(&t->home, ts); /* relaxed: who cancels it knows otherwise that it was armed */
  coir__bias_lock(w, &ts->lock);
  place(ts, t);
  ts->count++;
  /* Relaxed: a hint for the worker's sleep; who arms for another worker wakes it as for any other work. */
  if (t->deadline < atm_load_rlx(&ts->next)) atm_store_rlx(&ts->next, t->deadline);
  coir__bias_unlock(w, &ts->lock);
}

static bool cancel_in(struct coir__timers *ts, struct coir__timer *t) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &ts->lock);
  bool is_armed = t->link != NULL;
  if (is_armed) {
    unlink_timer(ts, t);
    if (--ts->count == 0) atm_store_rlx(&ts->next, COIR_NEVER);
  }
  coir__bias_unlock(w, &ts->lock);
  return is_armed;
}

bool coir__timer_cancel(struct coir__timer *t) { return cancel_in(atm_load_rlx(&t->home), t); }

int coir__timers_fire(struct coir__timers *ts, int64_t now, struct coir__waiter **wake, int max, int *fired) {
  struct coir__worker *w = coir__carried();
  int woken = 0, moves = MOVES_MAX;
  *fired = 0;
  /* Relaxed: a timer that another thread arms at this moment might as well have come after the look. */
  if (COIR_LIKELY(atm_load_rlx(&ts->next) > now)) return 0;
  coir__bias_lock(w, &ts->lock);
  bool is_settled, goes_on;
  do {
    is_settled = settle(ts, &moves);
    while (is_settled && *fired < max && ts->used[DUE]) {
      struct coir__timer *t = due_first(ts);
      if (t->deadline > now) break;
      unlink_timer(ts, t);
      ts->count--;
      ++*fired;
      struct coir__waiter *waiter = t->fire(t);
      if (waiter) wake[woken++] = waiter;
    }
    goes_on = is_settled && *fired < max && !ts->used[DUE];
  } while (goes_on && advance(ts, tick_of(now)));
  atm_store_rlx(&ts->next, is_settled ? next_bound(ts) : 0);
  coir__bias_unlock(w, &ts->lock);
  return woken;
}

/* ---- Alarms ---------------------------------------------------------------------------------------------------- */

/* Called under the lock of the wheel. */
static struct coir__waiter *alarm_came(struct coir__timer *t) {
  struct coir__alarm *alarm = (struct coir__alarm *)t;
  struct coir__timers *ts = atm_load_rlx(&t->home);
  atm_store_rlx(&alarm->running, 1);
  t->next = ts->alarms;
  ts->alarms = t;
  return NULL;
}

void coir__alarm_arm_in(struct coir__timers *ts, struct coir__alarm *alarm, int64_t deadline) {
  alarm->timer.deadline = deadline;
  alarm->timer.fire = alarm_came;
  coir__timer_arm(ts, &alarm->timer);
}

void coir__alarm_arm(struct coir__worker *w, struct coir__alarm *alarm, int64_t deadline) {
  coir__alarm_arm_in(&w->timers, alarm, deadline);
  if (w != coir__carried()) coir__idle_wake(w); /* it may sleep past it */
}

bool coir__alarm_cancel(struct coir__alarm *alarm) {
  for (;;) {
    struct coir__timers *ts = atm_load_rlx(&alarm->timer.home); /* once: it becomes NULL when the alarm is through */
    bool was_running = false, was_armed = ts && cancel_in(ts, &alarm->timer);
    /* Acquire: what `run` did. Pairs with the release in coir__alarms_run. */
    for (; atm_load_acq(&alarm->running); was_running = true) coir__os_thread_yield();
    if (was_armed) atm_store_rlx(&alarm->timer.home, NULL); /* its runtime may go before it is armed again */
    if (was_armed || !was_running) return was_armed;
  } /* it may have armed itself again before it returned */
}

/* In the order in which they came. */
void coir__alarms_run(struct coir__timers *ts, struct coir__worker *w, int64_t now) {
  coir__bias_lock(w, &ts->lock);
  struct coir__timer *latest = ts->alarms, *come = NULL;
  ts->alarms = NULL;
  coir__bias_unlock(w, &ts->lock);
  while (latest) {
    struct coir__timer *t = latest;
    latest = t->next;
    t->next = come;
    come = t;
  }
  while (come) {
    struct coir__alarm *alarm = (struct coir__alarm *)come;
    come = come->next;
    int64_t again = alarm->run(alarm, w, now);
    if (again != COIR_NEVER) coir__alarm_arm_in(ts, alarm, again);
    else atm_store_rlx(&alarm->timer.home, NULL); /* relaxed: ordered by the release that follows */
    atm_store_rel(&alarm->running, 0);            /* the alarm is its owner's from here on */
  }
}
