/* timer.h, and csp_hangup: nothing comes early, nothing comes twice, and what is called off does not come. */
#include "timer.h"

#include "csp_waiting.h"

static int64_t take_time(csp_gochan_t *ch) {
  bool ok = false;
  void *val = csp_gochan_recv(ch, &ok);
  CHECK(ok && val);
  return (int64_t)(intptr_t)val;
}

static bool is_empty(csp_gochan_t *ch) { return !csp_gochan_try_recv(ch, NULL, NULL); }

static csp_gochan_t *after(int64_t ns) {
  csp_gochan_t *ch = csp_time_after(ns);
  CHECK(ch);
  return ch;
}

static int64_t below(uint64_t *seed, int64_t end) { return (int64_t)(rng_next(seed) >> 20) % end; }

/* ---- The clock ------------------------------------------------------------------------------------------------- */

ON_BOTH(the_clock_is_the_monotonic_one) {
  struct timespec t;
  int64_t first = csp_timer_now();
  CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &t), 0);
  int64_t then = t.tv_sec * csp_timer_second + t.tv_nsec * csp_timer_nanosecond, last = csp_timer_now();
  CHECK(0 < first && first <= then && then <= last);
  CHECK_EQ(csp_timer_microsecond, 1000);
  CHECK_EQ(csp_timer_millisecond, 1000000);
  CHECK_EQ(csp_timer_hour, INT64_C(3600) * 1000000000);
  CHECK_EQ(csp_timer_minute * 60, csp_timer_hour);
}

/* ---- Hanging up ------------------------------------------------------------------------------------------------ */

enum { SAMPLES = 51 };

static int compare(const void *a, const void *b) {
  const int64_t *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

static void nanosleeps(uint64_t ns) {
  struct timespec t = {0, (long)ns};
  CHECK_EQ(nanosleep(&t, NULL), 0);
}

/* How late it is, as a rule. */
static int64_t lateness(void (*sleeps)(uint64_t ns), int64_t ns) {
  int64_t late[SAMPLES];
  for (int i = 0; i < SAMPLES; i++) {
    int64_t begin = csp_timer_now();
    sleeps((uint64_t)ns);
    late[i] = csp_timer_now() - begin - ns;
    CHECK(late[i] >= 0);
  }
  qsort(late, SAMPLES, sizeof *late, compare);
  return late[SAMPLES / 2];
}

/* Compared with what the kernel gives a thread on this machine, with its load. */
ON_BOTH(hanging_up_is_never_short_and_not_long) {
  int64_t usual = lateness(nanosleeps, COIR_MS(1));
  CHECK(lateness(csp_hangup, COIR_MS(1)) < 5 * usual + COIR_MS(20));
  CHECK(lateness(csp_sched_hangup, COIR_US(50)) < 5 * usual + COIR_MS(20));
  for (uint64_t ns = 1; ns < 50000000; ns *= 5) {
    int64_t begin = csp_timer_now();
    csp_hangup(ns);
    CHECK(csp_timer_now() - begin >= (int64_t)ns);
  }
}

static void does_nothing(void *unused) { (void)unused; }

static void hangs_up(void *ns) { csp_hangup(*(uint64_t *)ns); }

/* Without giving way even once: with one worker the goroutine does not run in between. */
static void hangs_up_for_nothing(void *gone) {
  go(does_nothing, NULL);
  int before = runtime_num_goroutines();
  csp_hangup(0);
  atomic_store((_Atomic(bool) *)gone, runtime_num_goroutines() < before);
}

static void for_ever_and_not_at_all(void) {
  static uint64_t ever[] = {UINT64_MAX, (uint64_t)INT64_MAX + 1, INT64_MAX};
  static _Atomic(bool) gone;
  set_workers(1);
  start(false, hangs_up_for_nothing, &gone);
  until_idle();
  CHECK(!atomic_load(&gone));
  until_no_goroutine();
  for (int i = 0; i < 3; i++) go(hangs_up, &ever[i]);
  WAIT_FOR(waiting_for("sleep") == 3);
  pause_ns(COIR_MS(3));
  CHECK_EQ(waiting_for("sleep"), 3);
}

/* ---- csp_time_after -------------------------------------------------------------------------------------------- */

static void a_thread_needs_no_workers(void) {
  int64_t begin = csp_timer_now();
  csp_gochan_t *ch = after(COIR_MS(2));
  CHECK(take_time(ch) >= begin + COIR_MS(2));
  csp_gochan_free(ch);
  csp_ticker_t *t = csp_ticker_new(COIR_MS(1));
  CHECK(t);
  take_time(t->ch);
  csp_ticker_free(t);
  if (!IS_TSAN) CHECK_EQ(threads_now(), 2); /* itself, and the one that keeps the time */
  CHECK_EQ(runtime_num_goroutines(), 0);
}

ON_BOTH(the_time_comes_once) {
  for (int64_t ns = 1; ns < COIR_MS(20); ns *= 7) {
    int64_t begin = csp_timer_now();
    csp_gochan_t *ch = after(ns);
    CHECK_EQ(csp_gochan_cap(ch), 1);
    int64_t time = take_time(ch), now = csp_timer_now();
    CHECK(time >= begin + ns && time <= now && now < begin + ns + LATE);
    CHECK(is_empty(ch));
    csp_gochan_free(ch);
  }
}

ON_BOTH(a_time_that_has_passed_is_there_at_once) {
  static const int64_t ns[] = {0, -1, -COIR_SEC(1), INT64_MIN};
  for (int i = 0; i < 4; i++) {
    int64_t begin = csp_timer_now();
    csp_gochan_t *ch = after(ns[i]);
    void *val = NULL;
    bool ok = false;
    CHECK(csp_gochan_try_recv(ch, &val, &ok) && ok);
    CHECK((int64_t)(intptr_t)val >= begin && (int64_t)(intptr_t)val <= csp_timer_now());
    CHECK(is_empty(ch));
    csp_gochan_free(ch);
  }
}

ON_BOTH(it_may_be_freed_at_any_time) {
  uint64_t seed = rng_seed(3);
  for (int i = 0; i < rounds(2000); i++) {
    int64_t ns = below(&seed, 40000);
    csp_gochan_t *ch = after(i % 8 ? ns : INT64_MAX);
    if (i % 4) stroll(below(&seed, 80000));
    csp_gochan_free(ch);
  }
}

ON_BOTH(many_come_and_none_early) {
  enum { N = 200 };
  csp_gochan_t *chans[N];
  int64_t least[N];
  for (int i = 0; i < N; i++) {
    int64_t ns = COIR_MS(2) + (int64_t)(i * 37 % N) * COIR_US(50);
    least[i] = csp_timer_now() + ns;
    chans[i] = after(ns);
  }
  CHECK_EQ(runtime_num_goroutines(), coir_current() != NULL);
  for (int left = N; left > 0; left--) {
    csp_select_case_t cases[N];
    void *val = NULL;
    for (int i = 0; i < N; i++) cases[i] = (csp_select_case_t){chans[i], CSP_RECV, &val};
    int i = csp_select(cases, N);
    CHECK(i >= 0 && i < N && chans[i]);
    CHECK((int64_t)(intptr_t)val >= least[i]);
    csp_gochan_free(chans[i]);
    chans[i] = NULL;
  }
}

/* ---- Tickers --------------------------------------------------------------------------------------------------- */

static csp_ticker_t *ticker(int64_t ns) {
  csp_ticker_t *t = csp_ticker_new(ns);
  CHECK(t && t->ch);
  return t;
}

ON_BOTH(a_period_is_at_least_one) {
  static const int64_t ns[] = {0, -1, INT64_MIN};
  for (int i = 0; i < 3; i++) {
    errno = 0;
    CHECK(!csp_ticker_new(ns[i]));
    CHECK_EQ(errno, EINVAL);
  }
  csp_ticker_stop(NULL);
  csp_ticker_free(NULL);
}

ON_BOTH(a_ticker_ticks) {
  int64_t begin = csp_timer_now(), last = 0;
  csp_ticker_t *t = ticker(COIR_MS(1));
  for (int i = 1; i <= 20; i++) {
    int64_t time = take_time(t->ch);
    CHECK(time >= begin + COIR_MS(i) && time <= csp_timer_now() && time > last);
    last = time;
  }
  csp_ticker_free(t);
}

/* It does not wait for who is late, and keeps one tick for it: the oldest. */
ON_BOTH(what_nobody_takes_is_dropped_but_one) {
  int64_t begin = csp_timer_now();
  csp_ticker_t *t = ticker(COIR_MS(1));
  CHECK_EQ(csp_gochan_cap(t->ch), 1);
  WAIT_FOR(csp_gochan_len(t->ch) == 1);
  int64_t seen = csp_timer_now();
  pause_ns(COIR_MS(30));
  CHECK_EQ(csp_gochan_len(t->ch), 1);
  int64_t asked = csp_timer_now(), time = take_time(t->ch);
  CHECK(time >= begin + COIR_MS(1) && time <= seen);
  take_time(t->ch); /* may have been on its way */
  CHECK(take_time(t->ch) >= asked);
  csp_ticker_free(t);
}

ON_BOTH(a_huge_period_does_not_come) {
  csp_ticker_t *t = ticker(INT64_MAX);
  pause_ns(COIR_MS(3));
  CHECK(is_empty(t->ch));
  csp_ticker_free(t);
}

static void receives_a_value(void *ticker) {
  bool ok = false;
  CHECK(csp_gochan_recv(((csp_ticker_t *)ticker)->ch, &ok) == number(42));
  CHECK(ok);
}

/* And whoever waits goes on waiting, until somebody else sends. */
ON_BOTH(stopping_does_not_close) {
  for (int i = 0; i < 2; i++) {
    csp_ticker_t *t = ticker(i ? COIR_SEC(100) : COIR_MS(1));
    if (i == 0) take_time(t->ch);
    if (i == 1) start(false, receives_a_value, t);
    if (i == 1) WAIT_FOR(waiting_for("receive") == 1);
    csp_ticker_stop(t);
    csp_ticker_stop(t);
    if (i == 0 && !is_empty(t->ch)) CHECK(is_empty(t->ch)); /* at most the one that had been sent */
    if (i == 0) start(false, receives_a_value, t);
    WAIT_FOR(waiting_for("receive") == 1);
    pause_ns(COIR_MS(10));
    CHECK_EQ(waiting_for("receive"), 1);
    CHECK(csp_gochan_send(t->ch, number(42)));
    until_idle();
    csp_ticker_free(t);
  }
}

ON_BOTH(freed_as_it_ticks) {
  uint64_t seed = rng_seed(4);
  for (int i = 0; i < rounds(1000); i++) {
    csp_ticker_t *t = ticker(1 + below(&seed, 20000));
    stroll(below(&seed, 80000));
    if (i % 2) csp_ticker_stop(t);
    csp_ticker_free(t);
  }
}

static void takes_three(void *ticker) {
  for (int i = 0; i < 3; i++) take_time(((csp_ticker_t *)ticker)->ch);
}

ON_BOTH(a_hundred_tickers) {
  enum { N = 100 };
  csp_ticker_t *all[N];
  for (int i = 0; i < N; i++) all[i] = ticker(COIR_US(500) + i * COIR_US(20));
  CHECK_EQ(runtime_num_goroutines(), coir_current() != NULL);
  for (int i = 0; i < N; i++) start(i % 20 == 0, takes_three, all[i]);
  until_idle();
  for (int i = 0; i < N; i++) csp_ticker_free(all[i]);
}

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

struct called {
  csp_timer_t *timer;
  int64_t when; /* not before */
  _Atomic(int) runs, prevented;
};

static void is_called(void *arg) {
  struct called *c = arg;
  CHECK(csp_timer_now() >= c->when);
  CHECK(coir_current() && coir_runtime_current() == csp_runtime());
  CHECK(runtime_num_goroutines() >= 1);
  atomic_fetch_add(&c->runs, 1);
}

static void call_after(struct called *c, int64_t ns) {
  c->when = coir_after(ns);
  c->timer = csp_timer_call_after(ns, is_called, c);
  CHECK(c->timer);
}

ON_BOTH(a_call_comes_once) {
  static const int64_t ns[] = {INT64_MIN, -1, 0, 1, COIR_US(100), COIR_MS(1), COIR_MS(8)};
  struct called c[2][7] = {0};
  for (int i = 0; i < 7; i++) {
    call_after(&c[0][i], ns[i]);
    c[1][i].when = ns[i] == INT64_MIN ? INT64_MIN : csp_timer_now() + ns[i];
    CHECK((c[1][i].timer = csp_timer_call_at(c[1][i].when, is_called, &c[1][i])));
  }
  for (int i = 0; i < 14; i++) WAIT_FOR(atomic_load(&c[i / 7][i % 7].runs) == 1);
  pause_ns(COIR_MS(2));
  for (int i = 0; i < 14; i++) {
    struct called *one = &c[i / 7][i % 7];
    CHECK_EQ(atomic_load(&one->runs), 1);
    CHECK(!csp_timer_cancel(one->timer));
    csp_timer_free(one->timer);
  }
}

ON_BOTH(no_function_and_no_timer) {
  errno = 0;
  CHECK(!csp_timer_call_at(0, NULL, NULL));
  CHECK_EQ(errno, EINVAL);
  errno = 0;
  CHECK(!csp_timer_call_after(COIR_SEC(1), NULL, NULL));
  CHECK_EQ(errno, EINVAL);
  CHECK(!csp_timer_cancel(NULL));
  csp_timer_free(NULL);
}

ON_BOTH(what_is_called_off_does_not_come) {
  struct called c[3] = {0};
  call_after(&c[0], COIR_MS(20));
  call_after(&c[1], COIR_MS(20));
  call_after(&c[2], INT64_MAX);
  CHECK_EQ(runtime_num_goroutines(), coir_current() != NULL);
  bool is_prevented = csp_timer_cancel(c[0].timer);
  CHECK(is_prevented || csp_timer_now() >= c[0].when);
  CHECK(!csp_timer_cancel(c[0].timer));
  csp_timer_free(c[1].timer);
  bool is_early = csp_timer_now() < c[1].when;
  WAIT_FOR(csp_timer_now() > c[1].when + COIR_MS(5));
  CHECK(csp_timer_cancel(c[2].timer));
  WAIT_FOR(runtime_num_goroutines() == (coir_current() != NULL));
  CHECK_EQ(atomic_load(&c[0].runs), !is_prevented);
  CHECK(!is_early || atomic_load(&c[1].runs) == 0);
  CHECK_EQ(atomic_load(&c[2].runs), 0);
  csp_timer_free(c[0].timer);
  csp_timer_free(c[2].timer);
}

static void calls_off(void *arg) {
  struct called *c = arg;
  if (csp_timer_cancel(c->timer)) atomic_fetch_add(&c->prevented, 1);
}

/* Each comes, or one who calls it off is told that it will not. */
ON_BOTH(called_off_as_it_comes) {
  enum { N = 1000 };
  struct called *all = calloc(N, sizeof *all);
  uint64_t seed = rng_seed(5);
  int n = rounds(N), runs = 0;
  CHECK(all);
  for (int i = 0; i < n; i++) {
    call_after(&all[i], below(&seed, 60000));
    if (i % 8 == 0) start(i % 32 == 0, calls_off, &all[i]);
    stroll(below(&seed, 60000));
    if (i % 3) calls_off(&all[i]);
  }
  until_idle();
  for (int i = 0; i < n; i++) {
    WAIT_FOR(atomic_load(&all[i].runs) + atomic_load(&all[i].prevented) >= 1);
    csp_timer_free(all[i].timer);
  }
  pause_ns(COIR_MS(2));
  for (int i = 0; i < n; i++) {
    CHECK_EQ(atomic_load(&all[i].runs) + atomic_load(&all[i].prevented), 1);
    runs += atomic_load(&all[i].runs);
  }
  CHECK(runs > 0 && runs < n);
  free(all);
}

struct own {
  _Atomic(csp_timer_t *) timer;
  csp_sync_waitgroup_t *group;
};

static void frees_its_own(void *arg) {
  struct own *own = arg;
  csp_timer_t *t;
  while (!(t = atomic_load(&own->timer))) csp_yield();
  CHECK(!csp_timer_cancel(t));
  csp_timer_free(t);
  csp_sync_waitgroup_done(own->group);
}

ON_BOTH(a_call_may_free_its_timer) {
  enum { N = 200 };
  struct own own[N];
  csp_sync_waitgroup_t group = {{0}};
  csp_sync_waitgroup_add(&group, N);
  for (int i = 0; i < N; i++) {
    own[i] = (struct own){.group = &group};
    csp_timer_t *t = csp_timer_call_after(i % 3 ? i * 100 : 0, frees_its_own, &own[i]);
    CHECK(t);
    atomic_store(&own[i].timer, t);
  }
  csp_sync_waitgroup_wait(&group);
}

/* ---- Without workers ------------------------------------------------------------------------------------------- */

static void makes_one(void *chan) { *(csp_gochan_t **)chan = after(COIR_MS(50)); }

static void between_a_stop_and_a_start(void) {
  static csp_gochan_t *goroutines;
  static struct called c;
  call_after(&c, COIR_MS(50));
  start(false, makes_one, &goroutines);
  csp_scheduler_stop();
  if (csp_timer_now() > c.when) return;  /* this machine is busy */
  csp_gochan_t *ch = after(COIR_MS(70)); /* a thread's */
  take_time(ch);
  CHECK_EQ(atomic_load(&c.runs), 0);
  CHECK(is_empty(goroutines));
  CHECK(runtime_num_workers() > 0); /* starts them */
  take_time(goroutines);
  WAIT_FOR(atomic_load(&c.runs) == 1);
  csp_scheduler_stop();
  csp_timer_free(c.timer);
  csp_gochan_free(goroutines);
  csp_gochan_free(ch);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(the_clock_is_the_monotonic_one),
      CASE(hanging_up_is_never_short_and_not_long),
      CASE(for_ever_and_not_at_all),
      CASE(a_thread_needs_no_workers),
      CASE(the_time_comes_once),
      CASE(a_time_that_has_passed_is_there_at_once),
      CASE(it_may_be_freed_at_any_time),
      CASE(many_come_and_none_early),
      CASE(a_period_is_at_least_one),
      CASE(a_ticker_ticks),
      CASE(what_nobody_takes_is_dropped_but_one),
      CASE(a_huge_period_does_not_come),
      CASE(stopping_does_not_close),
      CASE(freed_as_it_ticks),
      CASE(a_hundred_tickers),
      CASE(a_call_comes_once),
      CASE(no_function_and_no_timer),
      CASE(what_is_called_off_does_not_come),
      CASE(called_off_as_it_comes),
      CASE(a_call_may_free_its_timer),
      CASE(between_a_stop_and_a_start),
  };
  return RUN_CASES(argc, argv, cases);
}
