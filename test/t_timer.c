/* The timing wheel (timer.c), against a reference and under threads.
 *
 * The random cases run once with a fixed seed and once with a fresh one, which is printed; SEED=n repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

#define TICK ((int64_t)1 << COIR__WHEEL_SHIFT)
#define DAY ((int64_t)86400 * 1000000000)

static uint64_t rng_state;

static uint64_t rng(void) {
  rng_state ^= rng_state << 13;
  rng_state ^= rng_state >> 7;
  rng_state ^= rng_state << 17;
  return rng_state;
}

static uint64_t below(uint64_t n) { return rng() % n; }

static void rng_seed(uint64_t seed) { rng_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1; }

/* A duration whose order of magnitude is random, up to about `max`. */
static int64_t random_span(int64_t max) {
  int bits = 64 - __builtin_clzll((uint64_t)max);
  return (int64_t)(rng() >> (64 - bits + below((uint64_t)bits))) % max;
}

enum { FREE = 0, ARMED, FIRED };

struct item {
  struct coir__timer timer;
  struct coir__waiter waiter;
  int state;
  bool loses; /* its claim is lost: it fires, and wakes nobody */
};

static struct item *item_of(struct coir__timer *t) { return (struct item *)((char *)t - offsetof(struct item, timer)); }

static int64_t clock_now;  /* what the wheel is told */
static int64_t fired_last; /* deadline of the timer that fired last in this look */
static int64_t latest;     /* how late, by that clock, the latest one fired */

static struct coir__waiter *fire_item(struct coir__timer *t) {
  struct item *item = item_of(t);
  assert_true(t->deadline <= clock_now);  /* never early */
  assert_true(t->deadline >= fired_last); /* in order */
  assert_int_equal(item->state, ARMED);
  fired_last = t->deadline;
  if (clock_now - t->deadline > latest) latest = clock_now - t->deadline;
  item->state = FIRED;
  return item->loses ? NULL : &item->waiter;
}

static void arm(struct coir__timers *ts, struct item *item, int64_t deadline) {
  item->timer.deadline = deadline;
  item->timer.fire = fire_item;
  item->timer.link = NULL;
  item->state = ARMED;
  item->loses = below(8) == 0;
  coir__timer_arm(ts, &item->timer);
}

/* Looks until nothing is due any more; returns how many fired. */
static int fire_all(struct coir__timers *ts, int max) {
  struct coir__waiter *wake[256];
  int total = 0, looks = 0;
  fired_last = INT64_MIN;
  while (atm_load_rlx(&ts->next) <= clock_now) {
    int fired, woken = coir__timers_fire(ts, clock_now, wake, max, &fired);
    assert_in_range(fired, 0, max);
    assert_in_range(woken, 0, fired);
    total += fired;
    assert_true(++looks < 1000000);
  }
  return total;
}

/* ---- Small stories --------------------------------------------------------------------------------------------- */

static struct coir__timers wheel;

static void empty_wheel_never_fires(void **state) {
  (void)state;
  coir__timers_init(&wheel, 12345);
  struct coir__waiter *wake[1];
  int fired = 7;
  assert_int_equal(coir__timers_fire(&wheel, DAY, wake, 1, &fired), 0);
  assert_int_equal(fired, 0);
  assert_true(atm_load_rlx(&wheel.next) == COIR_NEVER);
}

static void one_timer_fires_at_its_nanosecond(void **state) {
  (void)state;
  static const int64_t spans[] = {
      0, 1, TICK - 1, TICK, 63 * TICK, 64 * TICK, 65 * TICK + 5, 3600 * COIR_SEC(1), 100 * DAY, 200 * 365 * DAY};
  for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
    for (int64_t start = 0; start < 3 * DAY; start += DAY + 12345678) {
      coir__timers_init(&wheel, start);
      struct item item = {.state = FREE};
      struct coir__waiter *wake[4];
      int fired;
      arm(&wheel, &item, start + spans[i]);
      item.loses = false;
      assert_true(atm_load_rlx(&wheel.next) == start + spans[i]);
      clock_now = start + spans[i] - 1;
      fired_last = INT64_MIN;
      assert_int_equal(coir__timers_fire(&wheel, clock_now, wake, 4, &fired), 0);
      assert_int_equal(fired, 0);
      clock_now++;
      /* Hard mode moves few timers per look. */
      for (int looks = 0; fired == 0 && looks < 10; looks++) {
        int woken = coir__timers_fire(&wheel, clock_now, wake, 4, &fired);
        assert_int_equal(woken, fired);
      }
      assert_int_equal(fired, 1);
      assert_ptr_equal(wake[0], &item.waiter);
      assert_false(coir__timer_cancel(&item.timer));
      assert_true(atm_load_rlx(&wheel.next) == COIR_NEVER);
    }
  }
}

static void deadline_in_the_past_fires_at_the_next_look(void **state) {
  (void)state;
  coir__timers_init(&wheel, DAY);
  struct item items[3] = {{.state = FREE}};
  arm(&wheel, &items[0], DAY - 5);
  arm(&wheel, &items[1], -1);
  arm(&wheel, &items[2], 0);
  clock_now = DAY;
  assert_int_equal(fire_all(&wheel, 2), 3);
}

static void canceled_timer_does_not_fire(void **state) {
  (void)state;
  coir__timers_init(&wheel, 0);
  struct item a = {.state = FREE}, b = {.state = FREE};
  arm(&wheel, &a, 1000 * TICK);
  arm(&wheel, &b, 1000 * TICK);
  assert_true(coir__timer_cancel(&a.timer));
  assert_false(coir__timer_cancel(&a.timer));
  assert_int_equal(wheel.count, 1);
  clock_now = 2000 * TICK;
  assert_int_equal(fire_all(&wheel, 8), 1);
  assert_int_equal(a.state, ARMED);
  assert_int_equal(b.state, FIRED);
  assert_int_equal(wheel.count, 0);
}

/* Within one tick: only what is due, the rest stays, whatever is armed in between. */
static void tick_that_has_begun_fires_in_parts(void **state) {
  (void)state;
  coir__timers_init(&wheel, 0);
  enum { N = 100 };
  static struct item items[N];
  for (int i = 0; i < N; i++) arm(&wheel, &items[i], 10 * TICK + (i * 37 % N) * 100);
  int total = 0;
  for (int step = 0; step < N; step++) {
    clock_now = 10 * TICK + step * 100;
    int fired = fire_all(&wheel, 4);
    assert_int_equal(fired, 1);
    total += fired;
    if (step + 1 < N) assert_true(atm_load_rlx(&wheel.next) <= clock_now + 100);
  }
  assert_int_equal(total, N);
}

static void batch_is_bounded_and_goes_on(void **state) {
  (void)state;
  coir__timers_init(&wheel, 0);
  enum { N = 1000, MAX = 16 };
  static struct item items[N];
  for (int i = 0; i < N; i++) arm(&wheel, &items[i], (int64_t)below(5 * TICK));
  clock_now = 5 * TICK;
  assert_int_equal(fire_all(&wheel, MAX), N);
}

static void never_is_refused(void **state) {
  (void)state;
  coir__timers_init(&wheel, 0);
  struct coir__timer t = {.deadline = COIR_NEVER - 1, .fire = fire_item};
  coir__timer_arm(&wheel, &t);
  assert_true(coir__timer_cancel(&t));
  t.deadline = COIR_NEVER;
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the next test */
    close(STDERR_FILENO);     /* the message is expected */
    coir__timer_arm(&wheel, &t);
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- Against a reference --------------------------------------------------------------------------------------- */

#define ITEMS 2000
static struct item items[ITEMS];

/* Everything that the reference knows: each armed item's deadline. */
static int64_t reference_earliest(void) {
  int64_t least = COIR_NEVER;
  for (int i = 0; i < ITEMS; i++) {
    if (items[i].state == ARMED && items[i].timer.deadline < least) least = items[i].timer.deadline;
  }
  return least;
}

static int reference_due(void) {
  int due = 0;
  for (int i = 0; i < ITEMS; i++) due += items[i].state == ARMED && items[i].timer.deadline <= clock_now;
  return due;
}

static void run_against_reference(uint64_t seed, int steps) {
  rng_seed(seed);
  memset(items, 0, sizeof items);
  clock_now = (int64_t)below(30 * DAY);
  coir__timers_init(&wheel, clock_now);
  int64_t spans = (int64_t[]){100 * TICK, COIR_SEC(10), 100 * DAY}[below(3)];
  uint32_t armed = 0;
  for (int step = 0; step < steps; step++) {
    struct item *item = &items[below(ITEMS)];
    uint64_t what = below(100);
    if (item->state == ARMED && what < 45) {
      assert_true(coir__timer_cancel(&item->timer));
      item->state = FREE;
      armed--;
    } else if (item->state != ARMED && what < 97) {
      if (item->state == FIRED) assert_false(coir__timer_cancel(&item->timer));
      int64_t span = random_span(spans);
      arm(&wheel, item, clock_now + (below(20) == 0 ? -span : span));
      armed++;
    } else if (what >= 97) {
      int64_t next = atm_load_rlx(&wheel.next);
      bool to_next = next != COIR_NEVER && next > clock_now && below(2) == 0;
      clock_now = to_next ? next : clock_now + random_span(spans);
      int due = reference_due();
      assert_int_equal(fire_all(&wheel, 1 + (int)below(256)), due);
      assert_int_equal(reference_due(), 0);
      armed -= (uint32_t)due;
    }
    assert_int_equal(wheel.count, armed);
    if (what >= 90) assert_true(atm_load_rlx(&wheel.next) <= reference_earliest());
  }
  for (int i = 0; i < ITEMS; i++) {
    if (items[i].state == ARMED) assert_true(coir__timer_cancel(&items[i].timer));
  }
  for (int row = 0; row < COIR__WHEEL_ROWS; row++) assert_true(wheel.used[row] == 0);
}

static uint64_t fresh_seed(void) {
  const char *given = getenv("SEED");
  uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)coir__os_now() % 1000000007;
  print_message("SEED=%llu\n", (unsigned long long)seed);
  return seed;
}

static void random_operations_match_the_reference(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 12; seed++) run_against_reference(seed, 20000);
  uint64_t seed = fresh_seed();
  for (uint64_t i = 0; i < 12; i++) run_against_reference(seed + i, 20000);
}

/* An idle worker that always sleeps until `next` wakes at most a few times per timer: the levels that it passes, once a
 * slot is crowded, and not once per tick. */
static void idle_worker_wakes_seldom(void **state) {
  (void)state;
  for (int count = 1; count <= 1000; count *= 10) {
    rng_seed((uint64_t)count);
    clock_now = DAY;
    coir__timers_init(&wheel, clock_now);
    memset(items, 0, sizeof items);
    for (int i = 0; i < count; i++) arm(&wheel, &items[i], clock_now + 1 + (int64_t)below(DAY));
    int looks = 0, total = 0;
    while (total < count) {
      int64_t next = atm_load_rlx(&wheel.next);
      assert_true(next <= reference_earliest());
      if (next > clock_now) clock_now = next;
      struct coir__waiter *wake[256];
      int fired;
      fired_last = INT64_MIN;
      coir__timers_fire(&wheel, clock_now, wake, 256, &fired);
      total += fired;
      looks++;
    }
    assert_true(looks <= 8 * count + 8);
#ifndef COIR_HARD
    assert_true(looks <= count + count / 16 + 1); /* exact but for crowded slots */
#endif
  }
}

/* Cancelled deadlines cost one early look each time that `next` is stale, and none after it. */
static void stale_bound_is_put_right_once(void **state) {
  (void)state;
  coir__timers_init(&wheel, 0);
  struct item near = {.state = FREE}, far = {.state = FREE};
  arm(&wheel, &near, COIR_SEC(1));
  arm(&wheel, &far, COIR_SEC(3600));
  assert_true(coir__timer_cancel(&near.timer));
  clock_now = COIR_SEC(1);
  assert_int_equal(fire_all(&wheel, 4), 0);
  assert_true(atm_load_rlx(&wheel.next) > COIR_SEC(1000));
  assert_true(atm_load_rlx(&wheel.next) <= COIR_SEC(3600));
  assert_true(coir__timer_cancel(&far.timer));
  assert_true(atm_load_rlx(&wheel.next) == COIR_NEVER);
}

/* ---- Many ------------------------------------------------------------------------------------------------------ */

#if defined(COIR_SANITIZED) || defined(COIR_HARD)
#define STORM 100000
#else
#define STORM 1000000
#endif

static void storm_takes_linear_time(void **state) {
  (void)state;
  rng_seed(42);
  struct item *storm = calloc(STORM, sizeof *storm);
  assert_non_null(storm);
  clock_now = DAY;
  coir__timers_init(&wheel, clock_now);
  int64_t begin = coir__os_now();
  for (int i = 0; i < STORM; i++) arm(&wheel, &storm[i], clock_now + (int64_t)below(COIR_SEC(3600)));
  int64_t armed = coir__os_now();
  int left = STORM;
  for (int i = 0; i < STORM; i += 2, left--) assert_true(coir__timer_cancel(&storm[i].timer));
  int64_t canceled = coir__os_now();
  while (left > 0) {
    clock_now += COIR_MS(50);
    left -= fire_all(&wheel, 256);
  }
  int64_t fired = coir__os_now();
  assert_int_equal(wheel.count, 0);
  print_message("%d timers within 1 h: arm %.0f ns, cancel %.0f ns, fire %.0f ns each\n", STORM,
                (double)(armed - begin) / STORM, (double)(canceled - armed) / (STORM / 2.0),
                (double)(fired - canceled) / (STORM / 2.0));
  assert_true(fired - begin < COIR_SEC(30)); /* a quadratic wheel takes minutes */
  free(storm);
}

/* 10^5 timers of one tick, others armed while they fire: n log n, not n^2. */
static void crowded_tick_fires_in_order(void **state) {
  (void)state;
  enum { N = 100000 };
  rng_seed(7);
  struct item *crowd = calloc(2 * N, sizeof *crowd);
  assert_non_null(crowd);
  coir__timers_init(&wheel, 0);
  for (int i = 0; i < N; i++) arm(&wheel, &crowd[i], 1000 * TICK + (int64_t)below(TICK));
  clock_now = 1001 * TICK;
  int64_t begin = coir__os_now();
  int total = 0, late = N;
  struct coir__waiter *wake[64];
  while (wheel.count > 0) {
    int fired;
    fired_last = INT64_MIN; /* what is armed meanwhile may be earlier */
    coir__timers_fire(&wheel, clock_now, wake, 64, &fired);
    total += fired;
    if (fired > 0 && late < 2 * N) arm(&wheel, &crowd[late++], 1000 * TICK + (int64_t)below(TICK));
  }
  int64_t spent = coir__os_now() - begin;
  assert_int_equal(total, late);
  print_message("%d timers of one tick: %.0f ns each\n", total, (double)spent / total);
  assert_true(spent < COIR_SEC(20));
  free(crowd);
}

#define LOOK_SPAN COIR_US(100)
#ifdef COIR_HARD
#define CROWD 300 /* it moves 2 timers per look ahead of time, not 256 */
#else
#define CROWD 200000
#endif

/* A look every 100 us, as of a worker that is busy, or as soon after that as there is something to do: before the first
 * timer of a slot that holds a quarter of all may fire, all of these are moved. It must have been begun in time. */
static void expect_prompt_crowd(bool is_idle) {
  struct item *crowd = calloc(CROWD, sizeof *crowd);
  assert_non_null(crowd);
  clock_now = DAY + COIR_MS(100);
  coir__timers_init(&wheel, clock_now);
  for (int i = 0; i < CROWD; i++) arm(&wheel, &crowd[i], clock_now + COIR_MS(300) + (int64_t)below(COIR_SEC(1)));
  latest = 0;
  int looks = 0;
  for (; wheel.count > 0; looks++) {
    int64_t next = atm_load_rlx(&wheel.next);
    if (is_idle && next > clock_now) clock_now = next;
    struct coir__waiter *wake[64];
    int fired;
    fired_last = INT64_MIN;
    do coir__timers_fire(&wheel, clock_now, wake, 64, &fired);
    while (fired == 64);
    clock_now += LOOK_SPAN;
  }
  print_message("%d timers, %d looks: at most %lld us late\n", CROWD, looks, (long long)latest / 1000);
  assert_true(latest <= 10 * LOOK_SPAN);
  free(crowd);
}

static void crowded_slot_holds_nobody_up(void **state) {
  (void)state;
  rng_seed(11);
  expect_prompt_crowd(false);
  expect_prompt_crowd(true);
}

/* ---- Threads --------------------------------------------------------------------------------------------------- */

#define THREADS 4
#define PER_THREAD 64
#ifdef COIR_SANITIZED
#define ROUNDS 300
#else
#define ROUNDS 2000
#endif

/* A timer in its waiter's frame: `fired` is plain memory, so that a sanitizer sees any touch after a cancel. */
struct frame {
  struct coir__timer timer;
  int fired;
};

static struct coir__timers shared[2];
static _Atomic(uint64_t) sum_armed, sum_canceled, sum_fired;
static _Atomic(uint32_t) threads_left;

static struct coir__waiter *fire_frame(struct coir__timer *t) {
  struct frame *frame = (struct frame *)t;
  frame->fired++;
  return NULL;
}

/* Arms timers that are due about now on both wheels, while this and other threads fire; every second one is cancelled
 * at once, the others are waited for. */
static void *cancel_against_fire(void *arg) {
  struct frame frames[PER_THREAD];
  unsigned mine = (unsigned)(uintptr_t)arg;
  uint64_t canceled = 0, fired_seen = 0;
  for (int round = 0; round < ROUNDS; round++) {
    for (unsigned i = 0; i < PER_THREAD; i++) {
      frames[i] = (struct frame){.timer.fire = fire_frame, .timer.deadline = coir__os_now() + i * 500};
      coir__timer_arm(&shared[(i + mine) % 2], &frames[i].timer);
    }
    struct coir__waiter *wake[16];
    int fired;
    for (int i = 0; i < 4; i++) coir__timers_fire(&shared[i % 2], coir__os_now(), wake, 16, &fired);
    for (int i = 0; i < PER_THREAD; i++) {
      bool is_canceled = coir__timer_cancel(&frames[i].timer);
      /* Exactly one of the two, and the frame is its owner's again. */
      if (frames[i].fired != !is_canceled) abort();
      canceled += is_canceled;
      fired_seen += !is_canceled;
    }
    memset(frames, 0x55, sizeof frames);
  }
  atm_add_rlx(&sum_armed, (uint64_t)ROUNDS * PER_THREAD);
  atm_add_rlx(&sum_canceled, canceled);
  atm_add_rlx(&sum_fired, fired_seen);
  atm_sub_sc(&threads_left, 1);
  return NULL;
}

static void cancel_and_fire_race_to_one_outcome(void **state) {
  (void)state;
  pthread_t threads[THREADS];
  for (int i = 0; i < 2; i++) coir__timers_init(&shared[i], coir__os_now());
  atm_store_sc(&threads_left, THREADS);
  for (uintptr_t i = 0; i < THREADS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, cancel_against_fire, (void *)i), 0);
  }
  while (atm_load_sc(&threads_left) > 0) {
    struct coir__waiter *wake[16];
    int fired;
    for (int i = 0; i < 2; i++) coir__timers_fire(&shared[i], coir__os_now(), wake, 16, &fired);
    coir__os_thread_yield();
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  print_message("%llu canceled, %llu fired\n", (unsigned long long)sum_canceled, (unsigned long long)sum_fired);
  assert_true(sum_canceled + sum_fired == sum_armed);
  assert_true(sum_fired > 0 && sum_canceled > 0);
  for (int i = 0; i < 2; i++) assert_int_equal(shared[i].count, 0);
}

int main(void) {
  rng_seed(1);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(empty_wheel_never_fires),
      cmocka_unit_test(one_timer_fires_at_its_nanosecond),
      cmocka_unit_test(deadline_in_the_past_fires_at_the_next_look),
      cmocka_unit_test(canceled_timer_does_not_fire),
      cmocka_unit_test(tick_that_has_begun_fires_in_parts),
      cmocka_unit_test(batch_is_bounded_and_goes_on),
      cmocka_unit_test(never_is_refused),
      cmocka_unit_test(random_operations_match_the_reference),
      cmocka_unit_test(idle_worker_wakes_seldom),
      cmocka_unit_test(stale_bound_is_put_right_once),
      cmocka_unit_test(storm_takes_linear_time),
      cmocka_unit_test(crowded_tick_fires_in_order),
      cmocka_unit_test(crowded_slot_holds_nobody_up),
      cmocka_unit_test(cancel_and_fire_race_to_one_outcome),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
