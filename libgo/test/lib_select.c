/* select.h: go_select, go_select_timeout, and the flags that channels raise. */
#include "lib_test.h"

static GoChannel *make(size_t capacity) {
  GoChannel *c = go_channel_create(capacity);
  CHECK(c);
  return c;
}

static GoSelectCase sends(GoChannel *c, void *value) { return (GoSelectCase){GO_SELECT_SEND, c, value, NULL}; }
static GoSelectCase receives(GoChannel *c, void **out) { return (GoSelectCase){GO_SELECT_RECEIVE, c, NULL, out}; }

/* ---- Cases ----------------------------------------------------------------------------------------------------- */

ON_BOTH(nothing_to_select) {
  GoSelectCase cases[20] = {{0}};
  void *v;
  FAILS(go_select(NULL, 0), EINVAL);
  FAILS(go_select(cases, 0), EINVAL);
  FAILS(go_select(cases, 20), EINVAL);
  for (int i = 0; i < 20; i++) cases[i] = receives(NULL, &v);
  FAILS(go_select(cases, 20), EINVAL);
  FAILS(go_select(cases, SIZE_MAX), EINVAL);
  FAILS(go_select_timeout(cases, 20, 1).selected_case, EINVAL);
  CHECK(!go_select_timeout(cases, 20, UINT64_MAX).ok);
  GoChannel *c = make(1);
  cases[3] = sends(c, NULL);
  cases[3].op = (GoSelectOp)7;
  FAILS(go_select(cases, 20), EINVAL);
  go_channel_free(c);
}

ON_BOTH(other_cases_are_skipped) {
  GoChannel *c = make(1);
  void *v = NULL;
  for (size_t n = 1; n < 40; n += 3) {
    GoSelectCase cases[40] = {{0}};
    cases[n - 1] = sends(c, number((intptr_t)n));
    CHECK_EQ(go_select(cases, n), n - 1);
    cases[n - 1] = receives(c, &v);
    CHECK_EQ(go_select(cases, n), n - 1);
    CHECK_EQ((intptr_t)v, n);
  }
  GoSelectCase both[] = {sends(c, number(5)), receives(c, &v)}; /* of one channel */
  CHECK_EQ(go_select(both, 2), 0);
  CHECK_EQ(go_select(both, 2), 1);
  CHECK_EQ((intptr_t)v, 5);
  go_channel_free(c);
}

ON_BOTH(closed_channels_are_ready) {
  GoChannel *c = make(2);
  void *v = NULL;
  CHECK_EQ(go_channel_send(c, number(1)), 0);
  go_channel_close(c);
  GoSelectCase receive = receives(c, &v), drop = receives(c, NULL), send = sends(c, number(2));
  GoSelectResult r = go_select_timeout(&receive, 1, 1000);
  CHECK(r.selected_case == 0 && r.ok && v == number(1));
  r = go_select_timeout(&receive, 1, 1000);
  CHECK(r.selected_case == 0 && !r.ok && v == NULL);
  v = number(9);
  CHECK_EQ(go_select(&receive, 1), 0);
  CHECK(v == NULL);
  CHECK_EQ(go_select(&drop, 1), 0);
  CHECK_EQ(go_select(&send, 1), 0);
  r = go_select_timeout(&send, 1, 0);
  CHECK(r.selected_case == 0 && !r.ok);
  CHECK_EQ(go_channel_get_depth(c), 0);
  go_channel_free(c);
}

ON_BOTH(what_is_not_chosen_is_left_alone) {
  GoChannel *ready = make(1), *empty = make(1);
  void *a = number(1), *b = number(2);
  GoSelectCase cases[] = {receives(empty, &a), receives(ready, &b), sends(NULL, NULL)};
  CHECK_EQ(go_channel_send(ready, number(3)), 0);
  CHECK_EQ(go_select(cases, 3), 1);
  CHECK(a == number(1) && b == number(3));
  go_channel_free(ready);
  go_channel_free(empty);
}

ON_BOTH(each_ready_case_has_the_same_chance) {
  enum { N = 12, TURNS = 6000 };
  GoSelectCase cases[N];
  int chosen[N] = {0};
  for (int i = 0; i < N; i++) {
    GoChannel *c = make(1);
    if (i % 2) CHECK_EQ(go_channel_send(c, number(1)), 0);
    cases[i] = i % 2 ? receives(c, NULL) : sends(c, number(1));
  }
  for (int turn = 0; turn < TURNS; turn++) {
    int i = go_select(cases, N);
    CHECK(i >= 0 && i < N);
    chosen[i]++;
    if (i % 2) CHECK_EQ(go_channel_try_send(cases[i].chan, number(1)), 0);
    else CHECK_EQ(go_channel_try_receive(cases[i].chan, NULL), 0);
  }
  for (int i = 0; i < N; i++) { /* the deviation of one is 21 */
    CHECK(chosen[i] > TURNS / N - 200 && chosen[i] < TURNS / N + 200);
    go_channel_free(cases[i].chan);
  }
}

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

ON_BOTH(timeouts) {
  GoChannel *c = make(0);
  void *v = number(1);
  GoSelectCase cases[] = {receives(c, &v), sends(c, v), {0}};
  for (uint64_t ms = 0; ms < 40; ms += 13) {
    int64_t begin = coir_now();
    FAILS(go_select_timeout(cases, 3, ms).selected_case, ETIMEDOUT);
    int64_t took = coir_now() - begin;
    CHECK(took >= COIR_MS((int64_t)ms) && took < LATE);
  }
  CHECK(!go_select_timeout(cases, 2, 0).ok);
  CHECK(v == number(1));
  go_channel_free(c);
}

static void sends_soon(void *chan) {
  pause_ms(5);
  CHECK_EQ(go_channel_send(chan, number(77)), 0);
}

static void receives_soon(void *chan) {
  void *v;
  pause_ms(5);
  CHECK_EQ(go_channel_receive(chan, &v), 0);
  CHECK(v == number(78));
}

static void closes_soon(void *chan) {
  pause_ms(5);
  go_channel_close(chan);
}

ON_BOTH(whoever_comes_ends_the_wait) {
  for (int on_thread = 0; on_thread < 2; on_thread++) {
    for (size_t capacity = 0; capacity < 2; capacity++) {
      GoChannel *a = make(capacity), *b = make(0), *full = make(capacity);
      void *v = NULL;
      GoSelectCase cases[] = {receives(b, NULL), receives(a, &v), sends(full, number(78)), {0}};
      if (capacity) CHECK_EQ(go_channel_send(full, number(78)), 0);
      start(on_thread, sends_soon, a);
      CHECK_EQ(go_select(cases, 4), 1);
      CHECK(v == number(77));
      start(on_thread, receives_soon, full);
      GoSelectResult r = go_select_timeout(cases, 4, UINT64_MAX);
      CHECK(r.selected_case == 2 && r.ok);
      start(on_thread, closes_soon, b);
      r = go_select_timeout(cases, 4, 60000);
      CHECK(r.selected_case == 0 && !r.ok);
      until_idle();
      go_channel_free(a);
      go_channel_free(b);
      go_channel_free(full);
    }
  }
}

static int selects_until_canceled(void *chan) {
  GoSelectCase receive = receives(chan, NULL);
  FAILS(go_select(&receive, 1), ECANCELED);
  return 0;
}

ON_BOTH(coir_cancel_ends_a_wait) {
  GoChannel *c = make(0);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), selects_until_canceled, c, NULL, &f), 0);
  pause_ms(5);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
  go_channel_free(c);
}

/* ---- Many ------------------------------------------------------------------------------------------------------ */

enum { CHANNELS = 10, PARTIES = 4 };

struct market {
  GoChannel *chans[CHANNELS], *stop;
  int per_party;
  _Atomic(int64_t) sent, received, count;
  _Atomic(int) next;
};

static void sells(void *arg) {
  struct market *m = arg;
  GoSelectCase cases[CHANNELS];
  int me = atomic_fetch_add(&m->next, 1);
  for (int i = 0; i < m->per_party; i++) {
    intptr_t value = (intptr_t)me * m->per_party + i;
    for (int k = 0; k < CHANNELS; k++) cases[k] = sends(m->chans[k], number(value));
    CHECK(go_select(cases, CHANNELS) >= 0);
    atomic_fetch_add(&m->sent, value);
  }
}

static void buys(void *arg) {
  struct market *m = arg;
  GoSelectCase cases[CHANNELS + 1];
  void *v;
  for (int k = 0; k < CHANNELS; k++) cases[k] = receives(m->chans[k], &v);
  cases[CHANNELS] = receives(m->stop, NULL);
  while (go_select(cases, CHANNELS + 1) < CHANNELS) {
    atomic_fetch_add(&m->received, (intptr_t)v);
    atomic_fetch_add(&m->count, 1);
  }
}

ON_BOTH(select_meets_select) {
  struct market m = {.stop = make(0), .per_party = rounds(1500)};
  for (int k = 0; k < CHANNELS; k++) m.chans[k] = make((size_t)k % 3);
  for (int i = 0; i < PARTIES; i++) {
    start(i % 2, buys, &m);
    start(i % 2, sells, &m);
  }
  WAIT_FOR(m.count == (int64_t)PARTIES * m.per_party);
  go_channel_close(m.stop);
  until_idle();
  CHECK_EQ(m.sent, m.received);
  for (int k = 0; k < CHANNELS; k++) go_channel_free(m.chans[k]);
  go_channel_free(m.stop);
}

/* The receiver may give up the channel as soon as it has the value. */
static void selects_to_send(void *chan) {
  GoSelectCase cases[] = {{0}, sends(chan, number(1))};
  CHECK_EQ(go_select(cases, 2), 1);
}

ON_BOTH(the_receiver_may_free_it) {
  for (int i = 0; i < rounds(1000); i++) {
    GoChannel *c = make((size_t)i % 2);
    start(i % 4 == 0, selects_to_send, c);
    GoSelectCase receive = receives(c, NULL);
    CHECK_EQ(go_select(&receive, 1), 0);
    go_channel_free(c);
  }
}

/* ---- Flags ----------------------------------------------------------------------------------------------------- */

static int take_flag(GoSelectWaiter *w) { return atomic_exchange(&w->signaled, 0); }

ON_BOTH(flags_follow_channels) {
  GoSelectWaiter *w = go_select_waiter_create();
  GoChannel *c = make(2), *other = make(1);
  CHECK(w && atomic_load(&w->signaled) == 0);
  CHECK_EQ(go_channel_register_select_waiter(c, w), 0);
  CHECK_EQ(go_channel_register_select_waiter(other, w), 0);
  CHECK_EQ(take_flag(w), 0);
  CHECK_EQ(go_channel_send(c, NULL), 0);
  CHECK_EQ(take_flag(w), 1);
  CHECK_EQ(take_flag(w), 0);
  CHECK_EQ(go_channel_try_send(c, NULL), 0);
  CHECK_EQ(take_flag(w), 1);
  CHECK_EQ(go_channel_try_send(c, NULL), -1);
  CHECK_EQ(take_flag(w), 0);
  GoSelectCase send = sends(other, NULL);
  CHECK_EQ(go_select(&send, 1), 0);
  CHECK_EQ(take_flag(w), 1);
  CHECK_EQ(go_channel_receive(other, NULL), 0);
  CHECK_EQ(take_flag(w), 0);
  CHECK_EQ(go_channel_unregister_select_waiter(c, w), 0);
  FAILS(go_channel_unregister_select_waiter(c, w), ENOENT);
  go_channel_close(c);
  CHECK_EQ(take_flag(w), 0);
  CHECK_EQ(go_channel_send_with_context(other, NULL, go_context_background()), 0);
  CHECK_EQ(take_flag(w), 1);
  go_channel_close(other);
  CHECK_EQ(take_flag(w), 1);
  go_channel_free(c);
  go_channel_free(other); /* with the waiter */
  CHECK_EQ(take_flag(w), 0);
  go_select_waiter_unref(w);
}

ON_BOTH(registering_looks_at_once) {
  GoSelectWaiter *w = go_select_waiter_create();
  GoChannel *c = make(1);
  CHECK_EQ(go_channel_send(c, NULL), 0);
  CHECK_EQ(go_channel_register_select_waiter(c, w), 0);
  CHECK_EQ(take_flag(w), 1);
  CHECK_EQ(go_channel_register_select_waiter(c, w), 0); /* again: only the look */
  CHECK_EQ(take_flag(w), 1);
  CHECK_EQ(go_channel_receive(c, NULL), 0);
  CHECK_EQ(go_channel_register_select_waiter(c, w), 0);
  CHECK_EQ(take_flag(w), 0);
  CHECK_EQ(go_channel_unregister_select_waiter(c, w), 0);
  FAILS(go_channel_unregister_select_waiter(c, w), ENOENT);
  go_channel_close(c);
  CHECK_EQ(go_channel_register_select_waiter(c, w), 0);
  CHECK_EQ(atomic_load(&w->signaled), 1);
  FAILS(go_channel_register_select_waiter(NULL, w), EINVAL);
  FAILS(go_channel_register_select_waiter(c, NULL), EINVAL);
  FAILS(go_channel_unregister_select_waiter(NULL, w), EINVAL);
  FAILS(go_channel_unregister_select_waiter(c, NULL), EINVAL);
  CHECK(go_select_waiter_ref(w) == w && go_select_waiter_ref(NULL) == NULL);
  go_select_waiter_unref(w);
  go_select_waiter_unref(w); /* the channel has one */
  go_select_waiter_unref(NULL);
  go_channel_free(c);
}

static void sends_to(void *chan) { CHECK_EQ(go_channel_send(chan, NULL), 0); }

ON_BOTH(flags_without_a_buffer) {
  GoSelectWaiter *early = go_select_waiter_create(), *late = go_select_waiter_create();
  GoChannel *c = make(0);
  CHECK_EQ(go_channel_register_select_waiter(c, early), 0);
  CHECK_EQ(take_flag(early), 0);
  start(false, sends_to, c);
  WAIT_FOR(take_flag(early));
  CHECK_EQ(go_channel_register_select_waiter(c, late), 0);
  CHECK_EQ(take_flag(late), 1);
  CHECK_EQ(go_channel_receive(c, NULL), 0);
  until_idle();
  CHECK_EQ(go_channel_register_select_waiter(c, late), 0);
  CHECK_EQ(take_flag(late), 0);
  go_channel_free(c);
  go_select_waiter_unref(early);
  go_select_waiter_unref(late);
}

ON_BOTH(contexts_and_tickers_raise_flags) {
  GoSelectWaiter *w = go_select_waiter_create();
  GoContext *soon = go_with_deadline(NULL, real_time_after(COIR_MS(20)));
  CHECK_EQ(go_channel_register_select_waiter(soon->done, w), 0);
  CHECK_EQ(go_channel_unregister_select_waiter(soon->done, w), 0);
  atomic_store(&w->signaled, 0);
  CHECK_EQ(go_channel_register_select_waiter(soon->done, w), 0);
  WAIT_FOR(take_flag(w));
  CHECK(go_context_is_canceled(soon));
  go_context_free(soon);
  Ticker *t = create_ticker(2);
  CHECK_EQ(go_channel_register_select_waiter(t->c, w), 0);
  for (int i = 0; i < 3; i++) {
    WAIT_FOR(take_flag(w));
    CHECK_EQ(go_channel_try_receive(t->c, NULL), 0);
  }
  stop_ticker(t);
  go_select_waiter_unref(w);
}

/* One registers while the other sends: the flag is up afterwards, whoever came first. */
struct meeting {
  GoChannel *chan;
  int kind;
  _Atomic(int) ready, done;
};

static void sends_at_once(void *arg) {
  struct meeting *m = arg;
  atomic_fetch_add(&m->ready, 1);
  SPIN_UNTIL(m->ready == 2);
  GoSelectCase send = sends(m->chan, NULL);
  if (m->kind == 0) go_channel_send(m->chan, NULL);
  else if (m->kind == 1) go_channel_close(m->chan);
  else if (m->kind == 2) go_channel_try_send(m->chan, NULL);
  else go_select(&send, 1);
  atomic_store(&m->done, 1);
}

static void no_flag_is_missed(void **state) {
  (void)state;
  for (int i = 0; i < rounds(1000); i++) {
    struct meeting m = {.chan = make(1), .kind = i % 4};
    GoSelectWaiter *w = go_select_waiter_create();
    start(true, sends_at_once, &m);
    WAIT_FOR(m.ready == 1);
    atomic_fetch_add(&m.ready, 1);
    for (volatile int spin = 0; spin < i % 300; spin++) {}
    CHECK_EQ(go_channel_register_select_waiter(m.chan, w), 0);
    WAIT_FOR(m.done);
    CHECK_EQ(take_flag(w), 1);
    go_channel_free(m.chan);
    go_select_waiter_unref(w);
    until_idle();
  }
}

static _Atomic(int) stop_churning;

static void churns(void *chan) {
  GoSelectWaiter *w = go_select_waiter_create();
  while (!stop_churning) {
    CHECK_EQ(go_channel_register_select_waiter(chan, w), 0);
    CHECK_EQ(go_channel_unregister_select_waiter(chan, w), 0);
    coir_yield();
  }
  go_select_waiter_unref(w);
}

ON_BOTH(registering_races_with_sending) {
  GoChannel *c = make(1);
  stop_churning = 0;
  for (int i = 0; i < 4; i++) start(i % 2, churns, c);
  for (int i = 0; i < rounds(5000); i++) {
    CHECK_EQ(go_channel_send(c, NULL), 0);
    CHECK_EQ(go_channel_receive(c, NULL), 0);
    if (i % 64 == 0) coir_yield();
  }
  stop_churning = 1;
  until_idle();
  go_channel_free(c);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_to_select),
      cmocka_unit_test(other_cases_are_skipped),
      cmocka_unit_test(closed_channels_are_ready),
      cmocka_unit_test(what_is_not_chosen_is_left_alone),
      cmocka_unit_test(each_ready_case_has_the_same_chance),
      cmocka_unit_test(timeouts),
      cmocka_unit_test(whoever_comes_ends_the_wait),
      cmocka_unit_test(coir_cancel_ends_a_wait),
      cmocka_unit_test(select_meets_select),
      cmocka_unit_test(the_receiver_may_free_it),
      cmocka_unit_test(flags_follow_channels),
      cmocka_unit_test(registering_looks_at_once),
      cmocka_unit_test(flags_without_a_buffer),
      cmocka_unit_test(contexts_and_tickers_raise_flags),
      cmocka_unit_test(no_flag_is_missed),
      cmocka_unit_test(registering_races_with_sending),
  };
  return RUN_TESTS(argc, argv, tests);
}
