/* Two fibers that woke each other kept the next slot of their worker for ever. Where each turn took some microseconds,
 * the bound on runs from the slot was reset, at every look around, before it was reached, and the ring starved; and a
 * deque of LIFO fibers starved however long a turn took, because the bound was not asked there at all. */
#include "harness.h"

#define TURNS_MAX 100000 /* a fair turn comes within a hundred */

static struct coir_fiber *players[2];
static bool over;
static int64_t due;       /* from when on the third fiber is ready */
static int64_t work_ns;   /* what each turn takes */
static int turns_overdue; /* one worker, so nothing here is shared between threads */
static int turns_max;

static int plays(void *arg) {
  int me = (int)(intptr_t)arg;
  while (!over) {
    int64_t now = coir_now();
    if (now >= due) CHECK(++turns_overdue <= turns_max);
    while (coir_now() < now + work_ns) {}
    coir_cancel(players[!me]);
    (void)coir_sleep(COIR_SEC(100));
  }
  return 0;
}

static int notes(void *arg) {
  *(bool *)arg = true;
  return 0;
}

static void play(int64_t ns) {
  over = false;
  due = COIR_NEVER;
  turns_overdue = 0;
  work_ns = ns;
  turns_max = ns ? TURNS_MAX / 10 : TURNS_MAX;
  for (int i = 0; i < 2; i++) players[i] = spawn(plays, (void *)(intptr_t)i);
}

static void stop_playing(void) {
  over = true;
  for (int i = 0; i < 2; i++) (void)coir_cancel(players[i]);
  for (int i = 0; i < 2; i++) join(players[i]);
}

/* The timer fires within the worker's next look; from there on the main fiber is in the ring. */
static int ring(void *work) {
  play(*(int64_t *)work);
  for (int i = 0; i < 3; i++) {
    turns_overdue = 0;
    due = coir_after(COIR_MS(5));
    CHECK_EQ(coir_sleep_until(due), 0);
    due = COIR_NEVER;
  }
  stop_playing();
  return 0;
}

static int deque(void *work) {
  play(*(int64_t *)work);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0); /* they have begun */
  for (int i = 0; i < 3; i++) {
    bool ran = false;
    struct coir_fiber *f = spawn_with((struct coir_attr){.order = COIR_ORDER_LIFO}, notes, &ran);
    turns_overdue = 0;
    due = 0;
    join(f);
    due = COIR_NEVER;
    CHECK(ran);
  }
  stop_playing();
  return 0;
}

static void run_each(coir_fn fn) {
  int64_t work[] = {0, COIR_US(2), COIR_US(10)};
  for (size_t i = 0; i < sizeof work / sizeof work[0]; i++)
    CHECK_EQ(run_with((struct coir_config){.workers = 1}, fn, &work[i]), 0);
}

static void the_ring_gets_its_turn(void **state) {
  (void)state;
  run_each(ring);
}

static void the_deque_gets_its_turn(void **state) {
  (void)state;
  run_each(deque);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_ring_gets_its_turn),
      cmocka_unit_test(the_deque_gets_its_turn),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
