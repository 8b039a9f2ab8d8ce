/* fiber_hooks.h. */
#include "lib_test.h"

static uint64_t in_ms(int ms) { return (uint64_t)coir_after(COIR_MS(ms)); }

ON_BOTH(one_permit) {
  GoFiber *me = go_fiber_current();
  CHECK(me && me == go_fiber_current());
  FAILS(go_fiber_block_until(0), ETIMEDOUT);
  for (int i = 0; i < 3; i++) CHECK_EQ(go_fiber_make_runnable(me), 0);
  CHECK_EQ(go_fiber_block(), 0);
  FAILS(go_fiber_block_until(0), ETIMEDOUT);
  CHECK_EQ(go_fiber_make_runnable(me), 0);
  CHECK_EQ(go_fiber_block_until(0), 0); /* also without waiting */
  CHECK_EQ(go_fiber_make_runnable(me), 0);
  CHECK_EQ(go_fiber_block_until(UINT64_MAX), 0);
  FAILS(go_fiber_make_runnable(NULL), EINVAL);
}

ON_BOTH(block_until_a_time) {
  for (int ms = 0; ms < 30; ms += 11) {
    int64_t begin = coir_now();
    FAILS(go_fiber_block_until(in_ms(ms)), ETIMEDOUT);
    int64_t took = coir_now() - begin;
    CHECK(took >= COIR_MS(ms) - COIR_US(1) && took < LATE + COIR_MS(ms));
  }
}

/* ---- Two ------------------------------------------------------------------------------------------------------- */

struct pair {
  GoFiber *_Atomic first, *_Atomic second;
  _Atomic(int) turn;
  int rounds, count; /* count: not atomic, the permits order it */
};

static void answers(void *arg) {
  struct pair *p = arg;
  p->second = go_fiber_current();
  CHECK_EQ(go_fiber_make_runnable(p->first), 0);
  for (int i = 0; i < p->rounds; i++) {
    while (p->turn != 1) CHECK_EQ(go_fiber_block(), 0);
    p->count++;
    p->turn = 0;
    CHECK_EQ(go_fiber_make_runnable(p->first), 0);
  }
}

ON_BOTH(to_and_fro) {
  for (int on_thread = 0; on_thread < 2; on_thread++) {
    struct pair p = {.first = go_fiber_current(), .rounds = rounds(5000)};
    start(on_thread, answers, &p);
    while (!p.second) CHECK_EQ(go_fiber_block(), 0);
    for (int i = 0; i < p.rounds; i++) {
      CHECK_EQ(p.count, i);
      p.turn = 1;
      int rc = go_fiber_make_runnable(p.second);
      CHECK(rc == 0 || i == p.rounds - 1); /* the last time it may have seen its turn, and be gone */
      while (p.turn != 0) CHECK_EQ(go_fiber_block_until(in_ms(100000)), 0);
    }
    CHECK_EQ(p.count, p.rounds);
    until_idle();
    WAIT_FOR(go_fiber_make_runnable(p.second) == -1); /* it ends a little after its function */
    CHECK_EQ(errno, ESRCH);
  }
}

/* ---- The end --------------------------------------------------------------------------------------------------- */

static GoFiber *_Atomic left_behind;

static void leaves_its_number(void *unused) {
  (void)unused;
  left_behind = go_fiber_current();
}

/* Whoever gets the slot next must not get the permit. */
static void is_not_disturbed(void *old) {
  GoFiber *me = go_fiber_current();
  CHECK(me != (GoFiber *)old);
  FAILS(go_fiber_make_runnable((GoFiber *)old), ESRCH);
  FAILS(go_fiber_block_until(0), ETIMEDOUT);
  left_behind = me;
}

ON_BOTH(numbers_of_the_ended_do_nothing) {
  for (int i = 0; i < 40; i++) {
    bool on_thread = i % 4 == 0;
    left_behind = NULL;
    start(on_thread, leaves_its_number, NULL);
    WAIT_FOR(left_behind);
    GoFiber *old = left_behind;
    WAIT_FOR(go_fiber_make_runnable(old) == -1);
    CHECK_EQ(errno, ESRCH);
    start(on_thread, is_not_disturbed, old);
    WAIT_FOR(left_behind != old);
    until_idle();
  }
}

/* Wakers that are always late, of fibers that come and go. */
struct sleeper {
  GoFiber *_Atomic fiber;
  _Atomic(int) is_woken;
};

enum { SLEEPERS = 8 };
static struct sleeper sleepers[SLEEPERS];
static _Atomic(int) stop_waking;

static void sleeps(void *arg) {
  struct sleeper *s = arg;
  s->fiber = go_fiber_current();
  while (!s->is_woken)
    if (go_fiber_block_until(in_ms(1)) != 0) CHECK_EQ(errno, ETIMEDOUT);
  s->is_woken = 0;
}

static void wakes(void *arg) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)arg);
  GoFiber *before = NULL;
  while (!stop_waking) {
    struct sleeper *s = &sleepers[rng_next(&rng) % SLEEPERS];
    GoFiber *f = s->fiber;
    if (before) (void)go_fiber_make_runnable(before);
    if (f) {
      s->is_woken = 1;
      (void)go_fiber_make_runnable(f);
    }
    before = f;
    coir_yield();
  }
}

ON_BOTH(late_wakers) {
  stop_waking = 0;
  for (int i = 0; i < 3; i++) start(i % 2, wakes, number(i + 1));
  for (int turn = 0; turn < rounds(100); turn++) {
    for (int i = 0; i < SLEEPERS; i++) start(i == 0, sleeps, &sleepers[i]);
    WAIT_FOR(go_get_active_count() == 3);
  }
  stop_waking = 1;
  until_idle();
}

/* No permit is lost: each is given once, and waited for without a limit. */
static void is_told(void *arg) {
  struct pair *p = arg;
  p->second = go_fiber_current();
  while (!p->turn) CHECK_EQ(go_fiber_block(), 0);
  p->count++;
}

ON_BOTH(no_permit_is_lost) {
  for (int i = 0; i < rounds(1000); i++) {
    struct pair p = {.turn = 0};
    start(i % 4 == 0, is_told, &p);
    WAIT_FOR(p.second);
    for (volatile int spin = 0; spin < i % 200; spin++) {}
    p.turn = 1;
    (void)go_fiber_make_runnable(p.second); /* it may have seen the turn, and be gone */
    until_idle();
    CHECK_EQ(p.count, 1);
  }
}

/* ---- Many ------------------------------------------------------------------------------------------------------ */

enum { MANY = 300 };
static GoFiber *_Atomic many[MANY];
static _Atomic(int) told;

static void is_one_of_many(void *arg) {
  intptr_t i = (intptr_t)arg;
  many[i] = go_fiber_current();
  while (!told) CHECK_EQ(go_fiber_block(), 0);
}

ON_BOTH(numbers_differ) {
  told = 0;
  for (int i = 0; i < MANY; i++) many[i] = NULL;
  for (int i = 0; i < MANY; i++) start(i % 30 == 0, is_one_of_many, number(i));
  for (int i = 0; i < MANY; i++) WAIT_FOR(many[i]);
  for (int i = 0; i < MANY; i++)
    for (int j = 0; j < i; j++) CHECK(many[i] != many[j]);
  told = 1;
  for (int i = 0; i < MANY; i++) (void)go_fiber_make_runnable(many[i]); /* some have gone on: they saw it */
  until_idle();
}

static int blocks_until_canceled(void *permit_kept) {
  FAILS(go_fiber_block(), ECANCELED);
  CHECK_EQ(go_fiber_make_runnable(go_fiber_current()), 0);
  CHECK_EQ(go_fiber_block(), 0);
  atomic_store((_Atomic(int) *)permit_kept, 1);
  return 0;
}

ON_BOTH(coir_cancel_ends_a_wait) {
  _Atomic(int) permit_kept = 0;
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), blocks_until_canceled, &permit_kept, NULL, &f), 0);
  pause_ms(5);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(permit_kept, 1);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_permit),     cmocka_unit_test(block_until_a_time),
      cmocka_unit_test(to_and_fro),     cmocka_unit_test(numbers_of_the_ended_do_nothing),
      cmocka_unit_test(late_wakers),    cmocka_unit_test(no_permit_is_lost),
      cmocka_unit_test(numbers_differ), cmocka_unit_test(coir_cancel_ends_a_wait),
  };
  return RUN_TESTS(argc, argv, tests);
}
