/* ticker.h. */
#include "lib_test.h"

static Ticker *make(size_t ms) {
  Ticker *t = create_ticker(ms);
  CHECK(t && t->c);
  return t;
}

ON_BOTH(ticks_come_at_their_time) {
  int64_t begin = coir_now();
  Ticker *t = make(5);
  void *v = number(1);
  for (int i = 1; i <= 10; i++) {
    CHECK_EQ(go_channel_receive(t->c, &v), 0);
    CHECK(v == NULL);
    CHECK(coir_now() - begin >= COIR_MS(5) * i); /* never early; a reader that is late may find fewer */
  }
  CHECK(coir_now() - begin < COIR_MS(50) + LATE);
  stop_ticker(t);
}

/* How many of the ticks came within one millisecond of the period: the same one for all of them. */
static int in_step(int64_t *phases, int n) {
  int most = 0;
  for (int i = 0; i < n; i++) {
    int count = 0;
    for (int j = 0; j < n; j++) count += phases[j] >= phases[i] && phases[j] < phases[i] + COIR_MS(1);
    if (count > most) most = count;
  }
  return most;
}

ON_BOTH(ticks_do_not_drift) {
  enum { N = 60 };
  int64_t phases[N];
  int most = 0;
  for (int turn = 0; turn < 20 && most < N * 2 / 3; turn++) { /* a busy machine is late, too, but not each time */
    int64_t begin = coir_now();
    Ticker *t = make(5);
    for (int i = 0; i < N; i++) {
      CHECK_EQ(go_channel_receive(t->c, NULL), 0);
      phases[i] = (coir_now() - begin) % COIR_MS(5);
    }
    stop_ticker(t);
    most = in_step(phases, N);
  }
  CHECK(most >= N * 2 / 3);
}

ON_BOTH(ticks_are_dropped_when_nobody_reads) {
  Ticker *t = make(1);
  WAIT_FOR(go_channel_get_depth(t->c) > 0);
  pause_ms(20);
  CHECK_EQ(go_channel_get_depth(t->c), 1);
  CHECK_EQ(go_channel_try_receive(t->c, NULL), 0);
  CHECK_EQ(go_channel_receive(t->c, NULL), 0); /* it goes on */
  stop_ticker(t);
}

ON_BOTH(several_tickers) {
  Ticker *fast = make(2), *slow = make(20), *never = make(SIZE_MAX);
  int fast_ticks = 0, slow_ticks = 0;
  GoSelectCase cases[] = {{GO_SELECT_RECEIVE, fast->c, NULL, NULL},
                          {GO_SELECT_RECEIVE, slow->c, NULL, NULL},
                          {GO_SELECT_RECEIVE, never->c, NULL, NULL}};
  while (slow_ticks < 3 || fast_ticks < 10) {
    int i = go_select(cases, 3);
    CHECK(i == 0 || i == 1);
    fast_ticks += i == 0;
    slow_ticks += i == 1;
  }
  stop_ticker(slow);
  stop_ticker(fast);
  stop_ticker(never);
}

static void no_ticker(void **state) {
  (void)state;
  errno = 0;
  CHECK(create_ticker(0) == NULL);
  CHECK_EQ(errno, EINVAL);
  stop_ticker(NULL);
}

/* ---- The stop -------------------------------------------------------------------------------------------------- */

static void reads_to_the_end(void *chan) {
  while (go_channel_receive(chan, NULL) == 0) {}
  CHECK_EQ(errno, EPIPE);
  go_channel_unref(chan);
}

ON_BOTH(the_stop_releases_readers) {
  Ticker *often = make(1), *never = make(100000);
  for (int i = 0; i < 4; i++) start(i % 2, reads_to_the_end, go_channel_ref(i < 2 ? often->c : never->c));
  pause_ms(10);
  CHECK_EQ(go_get_active_count(), 4);
  stop_ticker(often);
  stop_ticker(never);
  until_idle();
}

static void makes_and_stops(void *arg) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)arg);
  for (int i = 0; i < rounds(100); i++) {
    Ticker *t = make(1 + rng_next(&rng) % 3);
    GoChannel *c = go_channel_ref(t->c);
    coir_sleep((int64_t)(rng_next(&rng) % (uint64_t)COIR_MS(3)));
    if (i % 4 == 0) start(i % 8 == 0, reads_to_the_end, go_channel_ref(c));
    stop_ticker(t);
    size_t depth = go_channel_get_depth(c);
    CHECK(go_channel_is_closed(c) && depth <= 1);
    if (i % 4) { /* nobody else reads */
      CHECK_EQ(go_channel_try_receive(c, NULL), depth ? 0 : -1);
      FAILS(go_channel_try_receive(c, NULL), EPIPE);
    }
    go_channel_unref(c);
  }
}

ON_BOTH(stops_race_with_ticks) {
  for (int i = 0; i < 6; i++) start(i % 2, makes_and_stops, number(i + 1));
  until_idle();
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ticks_come_at_their_time),
      cmocka_unit_test(ticks_do_not_drift),
      cmocka_unit_test(ticks_are_dropped_when_nobody_reads),
      cmocka_unit_test(several_tickers),
      cmocka_unit_test(no_ticker),
      cmocka_unit_test(the_stop_releases_readers),
      cmocka_unit_test(stops_race_with_ticks),
  };
  return RUN_TESTS(argc, argv, tests);
}
