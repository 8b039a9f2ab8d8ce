/* Timers: a hierarchical timing wheel per worker (Varghese and Lauck, 1987).
 *
 * Goal: arming and cancelling in O(1), because most deadlines are cancelled long before they come; firing in the
 * order of the deadlines and never early; an idle worker that sleeps through to the next deadline, however far it is;
 * and no stall, however many timers are about to come.
 *
 * Design. A tick is 2^16 ns (65.5 us), and `now` is the tick up to which the wheel has come. A slot of level k is 64^k
 * ticks long, and 64 of them, the first of which begins at a multiple of 64^(k + 1), are a page. A level has slots for
 * two pages: the one that `now` is in, and the next. A timer that is less than 64^(k + 1) ticks ahead is in one of the
 * two; it is armed at the lowest level of which that is true. Eight levels take every int64_t, so nothing is ever
 * clamped. When `now` comes to the beginning of a slot, the slot is taken apart ("settled"): the timers of a level
 * above the lowest find their place anew, each at a lower level (so at most seven times in its life), and those of the
 * lowest level become due: their tick has begun. What is due is held sorted, for a tick is long. Those whose deadline
 * lies in the part of the tick that is over fire; the others stay. Three things carry this:
 *
 * I1  In a settled wheel no slot that holds timers has begun. So a level's first slot is the lowest in the page of
 * `now`, or else the lowest in the next: two bit scans. Nor can a slot of level k begin before the next multiple of
 * 64^k. So the first of all levels is mostly found at the lowest.
 * I2  Moving `now` forward to any tick that is not past the beginning of the first slot changes the place of no timer.
 * So `now` skips empty time in one step.
 * I3  That slot of a level which follows the one that `now` is in is, one level below, the next page. So it may be
 * settled as long before it begins, and in pieces.
 *
 * To settle 10^5 timers takes 10 ms, and those that were to come first would have to wait for it. Hence I3: it begins
 * the earlier, the more timers are armed (a tick for LEAD_PER_TICK of them), and each look moves AHEAD_MAX. Where few
 * are armed, it is not done at all: a timer that is cancelled before its slot begins should not have been moved.
 *
 * The due timers are sorted lists, list i of at most 2^i timers, merged as a binary counter carries: an insertion
 * costs O(log n) amortized, taking the earliest looks at one head per list, and cancelling unlinks as everywhere
 * else. So 10^5 timers of one tick cost n log n in all, although they fire in batches while others are armed in
 * between.
 *
 * `next` is what an idle worker sleeps until. It is the exact minimum after an arm; after a look of coir__timers_fire
 * it is the exact minimum unless a slot is crowded, and then the time at which to begin with that slot at the latest,
 * where at least SCAN_MAX timers need settling anyway. A cancelled timer leaves it behind: one look too early, which
 * puts it right. Who arms a crowd moves that time forward: each REVIEW-th arm asks for a look, by a `next` of 0.
 *
 * Everything happens under the lock of the wheel. It is held for MOVES_MAX settlements (each O(1), amortized) and
 * `max` firings at most: a look that has more to do ends and leaves `next` in the past.
 *
 * Rejected: a binary heap (cancelling costs O(log n), and a cache miss per level of it); wheels that round deadlines
 * to the level's slot, as kernels do (up to 1/8 late); taking a list per slot apart in any order (deadlines within a
 * tick would fire out of order); shorter digits (whatever they are, before a boundary of a level all that comes after
 * it may lie in one slot); one page per level (as long as `now` is in it, there is no place for what lies behind). */
#include "internal.h"

#define DIGIT_BITS 6
#define RING 128                   /* slots of a level: two pages */
#define DUE (COIR__WHEEL_ROWS - 1) /* the row of `used` and `slots` that the sorted lists of due timers have */
#define DUE_LAST 63                /* the last of them takes any number */

#ifdef COIR_HARD
#define MOVES_MAX 3
#define AHEAD_MAX 2
#define SCAN_MAX 1
#define LEAD_PER_TICK 2
#define REVIEW 4
#else
#define MOVES_MAX 1024    /* timers settled per look */
#define AHEAD_MAX 256     /* of them ahead of time: some 25 us of the 100 us between two looks of a busy worker */
#define SCAN_MAX 32       /* timers of a slot that are looked at for the exact minimum */
#define LEAD_PER_TICK 128 /* 0.5 us for each: so long does AHEAD_MAX per look take at most */
#define REVIEW 1024       /* arms until a look is asked for */
#endif

static inline size_t index_of(int64_t tick, uint32_t level) {
  return (size_t)level * RING + ((size_t)(tick >> (DIGIT_BITS * level)) & (RING - 1));
}

static inline int64_t tick_of(int64_t deadline) { return deadline >> COIR__WHEEL_SHIFT; }

/* The tick at which that slot of a level begins that follows the one that `now` is in. */
static inline int64_t following(const struct coir__timers *ts, uint32_t level) {
  uint32_t shift = DIGIT_BITS * level;
  return ((ts->now >> shift) + 1) << shift;
}

/* How many ticks before a slot begins the crowd in it is seen to. */
static inline int64_t lead_of(const struct coir__timers *ts) { return ts->count / LEAD_PER_TICK; }

/* ---- Lists ----------------------------------------------------------------------------------------------------- */

static inline void push(struct coir__timers *ts, size_t index, struct coir__timer *t) {
  struct coir__timer **head = &ts->slots[index];
  t->next = *head;
  if (t->next) t->next->link = &t->next;
  t->link = head;
  *head = t;
  ts->used[index / 64] |= UINT64_C(1) << index % 64;
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

/* The lowest level that takes a timer so many ticks ahead of `now`. */
static inline uint32_t level_of(int64_t ahead) {
  uint32_t bit = 63 - (uint32_t)__builtin_clzll((uint64_t)ahead | 1);
  return bit * 43 >> 8; /* bit / DIGIT_BITS, for bit < 64 */
}

/* A timer whose tick has begun goes to the slot of `now` on the lowest level, which settling makes due. */
static inline void place(struct coir__timers *ts, struct coir__timer *t) {
  int64_t tick = tick_of(t->deadline);
  if (tick < ts->now) tick = ts->now;
  push(ts, index_of(tick, level_of(tick - ts->now)), t);
}

/* Takes apart the slots that `now` stands at the beginning of. Returns false when `*moves` did not suffice. */
static bool settle(struct coir__timers *ts, int *moves) {
  for (uint32_t level = COIR__WHEEL_LEVELS; level-- > 0;) {
    size_t index = index_of(ts->now, level);
    if (COIR_LIKELY(!(ts->used[index / 64] >> index % 64 & 1))) continue;
    for (struct coir__timer *t; (t = ts->slots[index]); --*moves) {
      if (*moves == 0) return false;
      unlink_timer(ts, t);
      if (level > 0) place(ts, t);
      else due_insert(ts, t);
    }
  }
  return true;
}

/* I3. The lowest level is settled first: its slot begins no later than those above. */
static void settle_ahead(struct coir__timers *ts, int moves) {
  int64_t lead = lead_of(ts), begins;
  for (uint32_t level = 1; level < COIR__WHEEL_LEVELS; level++) {
    if ((begins = following(ts, level)) - ts->now > lead) return;
    for (struct coir__timer *t; (t = ts->slots[index_of(begins, level)]); moves--) {
      if (moves == 0) return;
      int64_t tick = tick_of(t->deadline);
      uint32_t lowest = level_of(tick - ts->now);
      unlink_timer(ts, t);
      push(ts, index_of(tick, lowest < level ? lowest : level - 1), t);
    }
  }
}

/* Finds the first slot of a level of a settled wheel (I1), and the tick at which it begins. Returns its index; -1 when
 * all are empty. */
static inline int first_slot(const struct coir__timers *ts, uint32_t level, int64_t *begins) {
  uint32_t shift = DIGIT_BITS * level;
  int64_t page = ts->now >> shift >> DIGIT_BITS;
  uint32_t row = 2 * level + (page & 1);
  if (!ts->used[row]) {
    row ^= 1;
    if (!ts->used[row]) return -1;
    page++;
  }
  int slot = __builtin_ctzll(ts->used[row]);
  *begins = (page << DIGIT_BITS | slot) << shift;
  COIR_DCHECK(*begins > ts->now, "I1: a slot of a settled wheel begins after now");
  return (int)row * 64 + slot;
}

/* Moves a settled wheel, in which nothing is due, to the beginning of its first slot, at most to `tick` (I2). Returns
 * whether there is something to settle now. */
static bool advance(struct coir__timers *ts, int64_t tick) {
  int64_t least = INT64_MAX, begins;
  for (uint32_t level = 0; level < COIR__WHEEL_LEVELS && following(ts, level) < least; level++)
    if (first_slot(ts, level, &begins) >= 0 && begins < least) least = begins;
  if (least <= tick) ts->now = least;
  else if (tick > ts->now) ts->now = tick;
  return least <= tick;
}

/* The earliest deadline in a slot; `crowded` where it holds too many to look at. */
static int64_t earliest(const struct coir__timer *t, int64_t crowded) {
  int64_t least = COIR_NEVER;
  for (int seen = 0; t; t = t->next) {
    if (seen++ == SCAN_MAX) return crowded;
    if (t->deadline < least) least = t->deadline;
  }
  return least;
}

/* A time before which a settled wheel has nothing to do. */
static int64_t next_bound(const struct coir__timers *ts) {
  int64_t least = ts->used[DUE] ? due_first(ts)->deadline : COIR_NEVER, lead = lead_of(ts), begins;
  for (uint32_t level = 0; level < COIR__WHEEL_LEVELS; level++) {
    int index = first_slot(ts, level, &begins);
    if (index < 0) continue;
    int64_t longest = level > 0 ? INT64_C(1) << DIGIT_BITS * level : 0; /* I3 */
    int64_t bound = (begins - (lead < longest ? lead : longest)) << COIR__WHEEL_SHIFT;
    if (bound >= least) continue;
    int64_t found = earliest(ts->slots[index], bound);
    if (found < least) least = found;
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

/* Somebody arms many: `next` may have to be sooner than the first deadline. */
static __attribute__((noinline)) void ask_for_look(struct coir__timers *ts) {
  ts->review = REVIEW - 1;
  if (lead_of(ts) > 0 && atm_load_rlx(&ts->next) > 0) atm_store_rlx(&ts->next, 0);
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
  if (COIR_UNLIKELY(--ts->review < 0)) ask_for_look(ts);
  coir__bias_unlock(w, &ts->lock);
}

/* Takes it out of its wheel, if it is armed. The lock is held. */
static inline bool take_out(struct coir__timers *ts, struct coir__timer *t) {
  if (!t->link) return false;
  unlink_timer(ts, t);
  if (--ts->count == 0) atm_store_rlx(&ts->next, COIR_NEVER);
  return true;
}

bool coir__timer_cancel(struct coir__timer *t) {
  struct coir__timers *ts = atm_load_rlx(&t->home);
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &ts->lock);
  bool was_armed = take_out(ts, t);
  coir__bias_unlock(w, &ts->lock);
  return was_armed;
}

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
  if (is_settled && *fired < max) settle_ahead(ts, moves < AHEAD_MAX ? moves : AHEAD_MAX);
  atm_store_rlx(&ts->next, is_settled ? next_bound(ts) : 0);
  coir__bias_unlock(w, &ts->lock);
  return woken;
}

/* ---- Alarms ---------------------------------------------------------------------------------------------------- */

/* Which life of the process this is: in the child of a fork another number than before. What was armed, or was running,
 * in another life is so in the parent. Here nobody runs it, and its wheel is not to be touched: the lock may be that of
 * a thread of the parent's, and the lists half done. Written in the child alone, by its only thread. */
static uint64_t alarms_life = 1;

void coir__alarms_fork_child(void) { alarms_life++; }

/* Called under the lock of the wheel. */
static struct coir__waiter *alarm_came(struct coir__timer *t) {
  struct coir__alarm *alarm = (struct coir__alarm *)t;
  struct coir__timers *ts = atm_load_rlx(&t->home);
  atm_store_rlx(&alarm->running, alarms_life);
  t->next = ts->alarms;
  ts->alarms = t;
  return NULL;
}

void coir__alarm_arm_in(struct coir__timers *ts, struct coir__alarm *alarm, int64_t deadline) {
  alarm->timer.deadline = deadline;
  alarm->timer.fire = alarm_came;
  atm_store_rlx(&alarm->life, alarms_life); /* relaxed: of interest only to another process */
  coir__timer_arm(ts, &alarm->timer);
}

void coir__alarm_arm(struct coir__worker *w, struct coir__alarm *alarm, int64_t deadline) {
  bool is_mine = w == coir__carried();
  if (!is_mine && atm_load_acq(&w->rt->forked)) return; /* its wheel is the parent's, as above: it never comes */
  coir__alarm_arm_in(&w->timers, alarm, deadline);
  if (!is_mine) coir__idle_wake(w); /* it may sleep past it */
}

/* Takes it out of its wheel, if it is armed. `was_running`: its function ran then, or was about to, and may arm it
 * again. */
static bool alarm_take_out(struct coir__timers *ts, struct coir__alarm *alarm, bool *was_running) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &ts->lock);
  bool was_armed = take_out(ts, &alarm->timer);
  /* Relaxed: what was cleared before this lock was taken is seen. */
  *was_running = atm_load_rlx(&alarm->running) == alarms_life;
  coir__bias_unlock(w, &ts->lock);
  return was_armed;
}

/* One that by a look under the lock is neither armed nor running stays so: it begins to run under the lock, and does
 * not cease before it has been armed again, under the lock, or has no home any more. Two looks would not do: between
 * them it may be armed again, and cease to run. */
bool coir__alarm_cancel(struct coir__alarm *alarm) {
  bool was_armed, was_running;
  if (atm_load_rlx(&alarm->life) != alarms_life) return false;
  do {
    /* Once: it becomes NULL when the alarm is through. Acquire: then its last run is known here; pairs with the release
     * in coir__alarms_run. */
    struct coir__timers *ts = atm_load_acq(&alarm->timer.home);
    was_armed = was_running = false;
    if (ts) was_armed = alarm_take_out(ts, alarm, &was_running);
    /* Acquire: what `run` did. Pairs with the release in coir__alarms_run. */
    for (; atm_load_acq(&alarm->running) == alarms_life; was_running = true) coir__os_thread_yield();
  } while (!was_armed && was_running);                    /* it may have armed itself again before it returned */
  if (was_armed) atm_store_rlx(&alarm->timer.home, NULL); /* its runtime may go before it is armed again */
  return was_armed;
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
    else atm_store_rel(&alarm->timer.home, NULL); /* who reads it sees that it runs, and waits for the next store */
    atm_store_rel(&alarm->running, 0);            /* the alarm is its owner's from here on */
  }
}
