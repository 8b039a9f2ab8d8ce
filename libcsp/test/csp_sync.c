/* sync.h: the mutex and the wait group, sentence by sentence. */
#include "sync.h"

#include <limits.h>

#include "csp_waiting.h"

/* ---- Misuse ---------------------------------------------------------------------------------------------------- */

static csp_sync_mutex_t zeroed_mutex;
static csp_sync_waitgroup_t zeroed_group;

static void unlocks_zeroed(void) { csp_sync_mutex_unlock(&zeroed_mutex); }

static void unlocks_fresh(void) {
  csp_sync_mutex_t mu;
  memset(&mu, 0xee, sizeof mu);
  csp_sync_mutex_init(&mu);
  csp_sync_mutex_unlock(&mu);
}

static void unlocks_twice(void) {
  csp_sync_mutex_lock(&zeroed_mutex);
  csp_sync_mutex_unlock(&zeroed_mutex);
  CHECK(csp_sync_mutex_try_lock(&zeroed_mutex));
  csp_sync_mutex_unlock(&zeroed_mutex);
  csp_sync_mutex_unlock(&zeroed_mutex);
}

static void goes_below_zero(void) { csp_sync_waitgroup_done(&zeroed_group); }

static void adds_too_little(void) {
  csp_sync_waitgroup_init(&zeroed_group);
  csp_sync_waitgroup_add(&zeroed_group, 3);
  csp_sync_waitgroup_add(&zeroed_group, INT_MIN);
}

static void done_too_often(void) {
  csp_sync_waitgroup_add(&zeroed_group, 1);
  csp_sync_waitgroup_done(&zeroed_group);
  csp_sync_waitgroup_wait(&zeroed_group);
  csp_sync_waitgroup_done(&zeroed_group);
}

static void calls(void *fn) { (*(void (**)(void))fn)(); }

/* The same in a goroutine. */
static void (*misuse)(void);
static void in_goroutine(void) {
  go(calls, &misuse);
  pause_ns(LATE);
}

static void misuse_aborts(void) {
  static const struct {
    void (*fn)(void);
    const char *message;
  } cases[] = {
      {unlocks_zeroed, "csp_sync_mutex_unlock: the mutex is not locked"},
      {unlocks_fresh, "csp_sync_mutex_unlock: the mutex is not locked"},
      {unlocks_twice, "csp_sync_mutex_unlock: the mutex is not locked"},
      {goes_below_zero, "negative WaitGroup counter"},
      {adds_too_little, "negative WaitGroup counter"},
      {done_too_often, "negative WaitGroup counter"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    aborts_saying(cases[i].fn, cases[i].message);
    misuse = cases[i].fn;
    aborts_saying(in_goroutine, cases[i].message);
  }
}

/* ---- Mutex ----------------------------------------------------------------------------------------------------- */

ON_BOTH(try_lock_takes_what_is_free) {
  csp_sync_mutex_t mu;
  memset(&mu, 0xee, sizeof mu);
  csp_sync_mutex_init(&mu);
  for (int i = 0; i < 3; i++) {
    CHECK(csp_sync_mutex_try_lock(&mu));
    CHECK(!csp_sync_mutex_try_lock(&mu));
    csp_sync_mutex_unlock(&mu);
    csp_sync_mutex_lock(&mu);
    CHECK(!csp_sync_mutex_try_lock(&mu));
    csp_sync_mutex_unlock(&mu);
  }
}

struct section {
  csp_sync_mutex_t *mu;
  int turns;
  long counter; /* under mu, and not atomic */
  bool inside;  /* likewise */
};

static void counts(void *arg) {
  struct section *s = arg;
  uint64_t seed = rng_seed((uint64_t)(uintptr_t)&seed);
  for (int i = 0; i < s->turns; i++) {
    uint64_t dice = rng_next(&seed) >> 20;
    if (dice % 4 || !csp_sync_mutex_try_lock(s->mu)) csp_sync_mutex_lock(s->mu);
    CHECK(!s->inside);
    s->inside = true;
    long before = s->counter;
    if (dice / 4 % 16 == 0) give_way();
    if (dice / 64 % 256 == 0) pause_ns(1000);
    CHECK_EQ(s->counter, before);
    s->counter++;
    s->inside = false;
    csp_sync_mutex_unlock(s->mu);
  }
}

ON_BOTH(one_at_a_time_of_goroutines_and_threads) {
  struct section s = {.mu = &zeroed_mutex, .turns = rounds(1000)};
  for (int i = 0; i < 12; i++) start(i % 4 == 0, counts, &s);
  counts(&s);
  until_idle();
  csp_sync_mutex_lock(s.mu);
  CHECK_EQ(s.counter, 13L * s.turns);
  csp_sync_mutex_unlock(s.mu);
}

/* Threads alone need no workers. */
static void threads_alone(void) {
  static csp_sync_mutex_t mu;
  struct section s = {.mu = &mu, .turns = rounds(1000)};
  for (int i = 0; i < 4; i++) start(true, counts, &s);
  counts(&s);
  until_idle();
  csp_sync_mutex_lock(&mu);
  CHECK_EQ(s.counter, 5L * s.turns);
  csp_sync_mutex_unlock(&mu);
  CHECK_EQ(runtime_num_goroutines(), 0);
}

enum { MANY = 100 };

struct line {
  csp_sync_mutex_t mu;
  int order[MANY + 1], served; /* under mu */
};

struct place {
  struct line *line;
  int number;
};

static void stands_in_line(void *arg) {
  struct place p = *(struct place *)arg;
  csp_sync_mutex_lock(&p.line->mu);
  p.line->order[p.line->served++] = p.number;
  if (p.number % 3 == 0) csp_yield();
  csp_sync_mutex_unlock(&p.line->mu);
}

/* They come one after the other. */
ON_BOTH(it_is_handed_over_in_the_order_of_arrival) {
  struct line line = {.served = 0};
  struct place places[MANY];
  csp_sync_mutex_lock(&line.mu);
  for (int i = 0; i < MANY; i++) {
    places[i] = (struct place){&line, i};
    start(false, stands_in_line, &places[i]);
    WAIT_FOR(waiting_for("semaphore") == i + 1);
  }
  CHECK_EQ(line.served, 0);
  csp_sync_mutex_unlock(&line.mu);
  until_idle();
  CHECK_EQ(line.served, MANY);
  for (int i = 0; i < MANY; i++) CHECK_EQ(line.order[i], i);
}

/* Who unlocks and locks again is behind all of them, however fast it is. */
ON_BOTH(nobody_comes_in_between) {
  struct line line = {.served = 0};
  struct place places[MANY];
  csp_sync_mutex_lock(&line.mu);
  for (int i = 0; i < MANY; i++) {
    places[i] = (struct place){&line, i};
    start(false, stands_in_line, &places[i]);
  }
  WAIT_FOR(waiting_for("semaphore") == MANY);
  csp_sync_mutex_unlock(&line.mu);
  csp_sync_mutex_lock(&line.mu);
  CHECK_EQ(line.served, MANY);
  csp_sync_mutex_unlock(&line.mu);
  until_idle();
}

/* A mutex for which somebody waits is never free, not even as it is handed over. */
ON_BOTH(try_lock_does_not_come_in_between) {
  struct line line = {.served = 0};
  struct place places[MANY];
  csp_sync_mutex_lock(&line.mu);
  for (int i = 0; i < MANY; i++) {
    places[i] = (struct place){&line, i};
    start(false, stands_in_line, &places[i]);
  }
  WAIT_FOR(waiting_for("semaphore") == MANY);
  csp_sync_mutex_unlock(&line.mu);
  while (!csp_sync_mutex_try_lock(&line.mu)) csp_yield();
  CHECK_EQ(line.served, MANY);
  csp_sync_mutex_unlock(&line.mu);
  until_idle();
}

struct relay {
  csp_sync_mutex_t first, second;
  int value; /* under both */
};

static void unlocks_anothers(void *arg) {
  struct relay *r = arg;
  csp_sync_mutex_lock(&r->first);
  r->value++;
  csp_sync_mutex_unlock(&r->second);
}

ON_BOTH(another_may_unlock_it) {
  for (int i = 0; i < rounds(500); i++) {
    struct relay r = {.value = 0};
    csp_sync_mutex_lock(&r.first);
    csp_sync_mutex_lock(&r.second);
    start(i % 8 == 0, unlocks_anothers, &r);
    r.value = 10;
    csp_sync_mutex_unlock(&r.first); /* whom it is handed to never unlocks it */
    csp_sync_mutex_lock(&r.second);  /* that was unlocked for us */
    CHECK_EQ(r.value, 11);
    csp_sync_mutex_unlock(&r.second);
    csp_sync_mutex_unlock(&r.first);
    until_idle();
  }
}

static void frees_it(void *mu) {
  csp_sync_mutex_lock(mu);
  memset(mu, 0xee, sizeof(csp_sync_mutex_t));
  free(mu);
}

/* Whoever is let go knows that nobody else wants it. In some rounds it waits when we unlock, in others it comes just
 * then. */
ON_BOTH(whoever_is_let_go_may_free_it) {
  for (int i = 0; i < rounds(1000); i++) {
    csp_sync_mutex_t *mu = malloc(sizeof *mu);
    CHECK(mu);
    csp_sync_mutex_init(mu);
    csp_sync_mutex_lock(mu);
    start(i % 16 == 0, frees_it, mu);
    for (int pauses = i % 4; pauses-- > 0;) give_way();
    csp_sync_mutex_unlock(mu);
    if (i % 64 == 0) until_idle();
  }
  until_idle();
}

/* What asks a fiber to stop does not get it past a lock or a wait. */
struct stubborn {
  csp_sync_mutex_t mu;
  csp_sync_waitgroup_t group;
  _Atomic(int) steps;
};

static int is_cancelled_meanwhile(void *arg) {
  struct stubborn *s = arg;
  csp_sync_mutex_lock(&s->mu);
  atomic_store(&s->steps, 1);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  csp_sync_waitgroup_wait(&s->group);
  atomic_store(&s->steps, 2);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  csp_sync_mutex_unlock(&s->mu);
  return 0;
}

ON_BOTH(cancelling_a_fiber_ends_no_wait) {
  struct stubborn s = {.steps = 0};
  struct coir_fiber *f;
  csp_sync_mutex_lock(&s.mu);
  csp_sync_waitgroup_add(&s.group, 1);
  CHECK_EQ(coir_runtime_spawn(csp_runtime(), is_cancelled_meanwhile, &s, NULL, &f), 0);
  WAIT_FOR(waiting_for("semaphore") == 1);
  CHECK_EQ(coir_cancel(f), 0);
  pause_ns(COIR_MS(2));
  CHECK_EQ(atomic_load(&s.steps), 0);
  csp_sync_mutex_unlock(&s.mu);
  WAIT_FOR(waiting_for("wait group") == 1);
  CHECK_EQ(atomic_load(&s.steps), 1);
  CHECK_EQ(coir_cancel(f), 0);
  pause_ns(COIR_MS(2));
  CHECK_EQ(atomic_load(&s.steps), 1);
  csp_sync_waitgroup_done(&s.group);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(atomic_load(&s.steps), 2);
  CHECK(csp_sync_mutex_try_lock(&s.mu));
}

/* ---- Wait group ------------------------------------------------------------------------------------------------ */

ON_BOTH(zero_is_not_waited_for) {
  csp_sync_waitgroup_t g;
  csp_sync_waitgroup_wait(&zeroed_group);
  memset(&g, 0xee, sizeof g);
  csp_sync_waitgroup_init(&g);
  csp_sync_waitgroup_wait(&g);
  for (int i = 0; i < 3; i++) {
    csp_sync_waitgroup_add(&g, 5);
    csp_sync_waitgroup_add(&g, -4);
    csp_sync_waitgroup_add(&g, 0);
    csp_sync_waitgroup_done(&g);
    csp_sync_waitgroup_wait(&g);
  }
  csp_sync_waitgroup_add(&g, INT_MAX);
  csp_sync_waitgroup_add(&g, INT_MAX);
  csp_sync_waitgroup_add(&g, -INT_MAX);
  csp_sync_waitgroup_add(&g, -INT_MAX);
  csp_sync_waitgroup_wait(&g);
}

enum { WORKS = 64 };

struct work {
  csp_sync_waitgroup_t group;
  int done[2 * WORKS]; /* not atomic: the group orders it */
  _Atomic(int) next, released;
};

static void works(void *arg) {
  struct work *w = arg;
  int i = atomic_fetch_add(&w->next, 1);
  if (i % 3 == 0) pause_ns(COIR_US(100));
  w->done[i] = 1;
  csp_sync_waitgroup_done(&w->group);
}

static void waits(void *arg) {
  struct work *w = arg;
  csp_sync_waitgroup_wait(&w->group);
  for (int i = 0; i < 2 * WORKS; i++) CHECK_EQ(w->done[i], 1);
  atomic_fetch_add(&w->released, 1);
}

/* Half of them are added while the others, and those who wait, are there. */
ON_BOTH(all_who_wait_wait_for_all) {
  for (int turn = 0; turn < rounds(30); turn++) {
    struct work w = {.next = 0};
    csp_sync_waitgroup_add(&w.group, WORKS + 1);
    for (int i = 0; i < WORKS; i++) start(i % 16 == 0, works, &w);
    for (int i = 0; i < 5; i++) start(i % 2 == 0, waits, &w);
    csp_sync_waitgroup_add(&w.group, WORKS - 1);
    for (int i = 0; i < WORKS; i++) start(i % 16 == 0, works, &w);
    waits(&w);
    WAIT_FOR(atomic_load(&w.released) == 6);
    until_idle();
  }
}

static void waits_once(void *group) { csp_sync_waitgroup_wait(group); }

/* It was zero, if only for a moment. */
ON_BOTH(who_waited_at_zero_is_let_go_whatever_is_added) {
  csp_sync_waitgroup_t g = {{0}};
  csp_sync_waitgroup_add(&g, 1);
  for (int i = 0; i < 5; i++) start(false, waits_once, &g);
  WAIT_FOR(waiting_for("wait group") == 5);
  csp_sync_waitgroup_done(&g);
  csp_sync_waitgroup_add(&g, 1);
  until_idle();
  csp_sync_waitgroup_done(&g);
}

static void does(void *group) { csp_sync_waitgroup_done(group); }

static __attribute__((noinline)) void waits_in_a_frame_that_ends(int i) {
  csp_sync_waitgroup_t g = {{0}};
  csp_sync_waitgroup_add(&g, 3);
  start(i % 16 == 0, does, &g);
  start(false, does, &g);
  for (int pauses = i % 3; pauses-- > 0;) give_way();
  csp_sync_waitgroup_done(&g);
  csp_sync_waitgroup_wait(&g);
}

/* What lies where the frame was has no bit changed by those who were late to leave. */
static __attribute__((noinline)) void looks_at_where_it_was(void) {
  unsigned char volatile bytes[512];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = 0xee;
  give_way();
  for (size_t i = 0; i < sizeof bytes; i++) CHECK_EQ(bytes[i], 0xee);
}

ON_BOTH(it_may_live_on_a_stack) {
  for (int i = 0; i < rounds(1000); i++) {
    waits_in_a_frame_that_ends(i);
    looks_at_where_it_was();
    if (i % 64 == 0) until_idle();
  }
  until_idle();
}

ON_BOTH(it_may_be_freed_after_the_wait) {
  for (int i = 0; i < rounds(1000); i++) {
    csp_sync_waitgroup_t *g = malloc(sizeof *g);
    CHECK(g);
    csp_sync_waitgroup_init(g);
    csp_sync_waitgroup_add(g, 2);
    start(i % 16 == 0, does, g);
    start(false, does, g);
    csp_sync_waitgroup_wait(g);
    memset(g, 0xee, sizeof *g);
    free(g);
    if (i % 64 == 0) until_idle();
  }
  until_idle();
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(misuse_aborts),
      CASE(try_lock_takes_what_is_free),
      CASE(one_at_a_time_of_goroutines_and_threads),
      CASE(threads_alone),
      CASE(it_is_handed_over_in_the_order_of_arrival),
      CASE(nobody_comes_in_between),
      CASE(try_lock_does_not_come_in_between),
      CASE(another_may_unlock_it),
      CASE(whoever_is_let_go_may_free_it),
      CASE(cancelling_a_fiber_ends_no_wait),
      CASE(zero_is_not_waited_for),
      CASE(all_who_wait_wait_for_all),
      CASE(who_waited_at_zero_is_let_go_whatever_is_added),
      CASE(it_may_live_on_a_stack),
      CASE(it_may_be_freed_after_the_wait),
  };
  return RUN_CASES(argc, argv, cases);
}
