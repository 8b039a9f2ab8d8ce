/* Timers, tickers and channels that tell the time: each sentence of their contract in coir.h. */
#include "parked.h"

#define UNTOUCHED INT64_C(-77)

/* What a channel of times has, or a negative error. */
static int64_t take(COIR_CHAN(int64_t) chan, int64_t deadline) {
  int64_t value = UNTOUCHED;
  int rc = COIR_RECV(chan, &value, deadline);
  if (rc) CHECK_EQ(value, UNTOUCHED);
  return rc ? rc : value;
}

static void drop(COIR_CHAN(int64_t) chan) { coir_chan_unref(COIR_CHAN_RAW(chan)); }

static void spin(int64_t ns) {
  for (int64_t end = coir_now() + ns; coir_now() < end;) {}
}

/* What a timer calls: counts, and remembers when. */
struct tally {
  _Atomic(int64_t) fired, last, early;
  int64_t deadline; /* no firing before it */
};

static int fires(void *arg) {
  struct tally *t = arg;
  int64_t now = coir_now();
  CHECK(coir_current() != NULL);
  if (now < t->deadline) atomic_fetch_add(&t->early, 1);
  atomic_store(&t->last, now);
  atomic_fetch_add(&t->fired, 1);
  return 0;
}

static struct coir_timer *make(coir_fn fn, void *arg) {
  struct coir_timer *timer = NULL;
  CHECK_EQ(coir_timer_create(&timer, fn, arg), 0);
  CHECK(timer != NULL);
  return timer;
}

static struct coir_ticker *make_ticker(int64_t period) {
  struct coir_ticker *ticker = NULL;
  CHECK_EQ(coir_ticker_create(&ticker, period), 0);
  CHECK(ticker != NULL);
  return ticker;
}

/* Waits until the functions that were spawned before have ended; the caller is the only other fiber. */
static void settle(void) {
  struct coir_stats stats;
  do {
    (void)coir_sleep(COIR_US(100));
    coir_runtime_get_stats(coir_runtime_current(), &stats);
  } while (stats.fibers_live > 1);
}

/* How many fire from now on. */
static int64_t fires_within(struct tally *t, int64_t ns) {
  int64_t before = atomic_load(&t->fired);
  (void)coir_sleep(ns);
  return atomic_load(&t->fired) - before;
}

ON_BOTH(bad_arguments_are_refused) {
  struct coir_timer *timer = (struct coir_timer *)1;
  struct coir_ticker *ticker = (struct coir_ticker *)1;
  CHECK_EQ(coir_timer_create(NULL, fires, NULL), -EINVAL);
  CHECK_EQ(coir_timer_create(&timer, NULL, NULL), -EINVAL);
  CHECK(timer == NULL);
  CHECK_EQ(coir_timer_start(NULL, 0, 0), -EINVAL);
  CHECK_EQ(coir_timer_stop(NULL), -EINVAL);
  timer = make(fires, NULL);
  CHECK_EQ(coir_timer_start(timer, COIR_NEVER, -1), -EINVAL);
  CHECK_EQ(coir_timer_stop(timer), 0);
  coir_timer_destroy(timer);
  coir_timer_destroy(NULL);
  CHECK_EQ(coir_ticker_create(NULL, 1), -EINVAL);
  CHECK_EQ(coir_ticker_create(&ticker, 0), -EINVAL);
  CHECK(ticker == NULL);
  CHECK_EQ(coir_ticker_reset(NULL, 1), -EINVAL);
  ticker = make_ticker(COIR_SEC(100));
  CHECK_EQ(coir_ticker_reset(ticker, 0), -EINVAL);
  CHECK(coir_ticker_chan(NULL) == NULL);
  coir_ticker_stop(NULL);
  coir_ticker_destroy(ticker);
  coir_ticker_destroy(NULL);
}

/* ---- Channels that tell the time ------------------------------------------------------------------------------- */

ON_BOTH(the_time_comes_once) {
  for (int64_t ns = 1; ns < COIR_MS(20); ns *= 7) {
    int64_t deadline = coir_after(ns);
    COIR_CHAN(int64_t) chan = coir_timer_chan(deadline);
    CHECK_EQ(coir_chan_capacity(COIR_CHAN_RAW(chan)), 1);
    int64_t time = take(chan, COIR_NEVER);
    CHECK(time >= deadline && time <= coir_now());
    CHECK_EQ(take(chan, coir_after(COIR_MS(1))), -ETIMEDOUT);
    drop(chan);
  }
}

ON_BOTH(a_time_that_has_passed_is_there_at_once) {
  const int64_t passed[] = {INT64_MIN, -1, 0, 1, coir_now()};
  for (int i = 0; i < 5; i++) {
    int64_t before = coir_now();
    COIR_CHAN(int64_t) chan = coir_timer_chan(passed[i]);
    CHECK(take(chan, 0) >= before);
    CHECK_EQ(take(chan, 0), -ETIMEDOUT);
    drop(chan);
  }
}

ON_BOTH(it_may_be_given_up_before) {
  COIR_CHAN(int64_t) never = coir_timer_chan(COIR_NEVER);
  CHECK_EQ(take(never, coir_after(COIR_MS(1))), -ETIMEDOUT);
  drop(never);
  for (int i = 0; i < rounds(2000); i++) {
    COIR_CHAN(int64_t) chan = coir_timer_chan(coir_after(COIR_US(i % 50)));
    if (i % 3 == 0) (void)coir_sleep(COIR_US(i % 60));
    if (i % 3 == 1) (void)take(chan, coir_after(COIR_US(i % 40)));
    drop(chan);
  }
}

ON_FIBER(many_come_in_their_order) {
  enum { N = 200 };
  COIR_CHAN(int64_t) chans[N];
  int64_t deadlines[N];
  for (int i = 0; i < N; i++) chans[i] = coir_timer_chan(deadlines[i] = coir_after(COIR_US(50 * ((i * 7) % N))));
  for (int i = 0; i < N; i++) {
    CHECK(take(chans[i], COIR_NEVER) >= deadlines[i]);
    drop(chans[i]);
  }
}

/* ---- Tickers --------------------------------------------------------------------------------------------------- */

ON_BOTH(a_ticker_ticks) {
  int64_t start = coir_now(), before = 0;
  struct coir_ticker *ticker = make_ticker(COIR_MS(2));
  for (int i = 1; i <= 10; i++) {
    int64_t time = take(coir_ticker_chan(ticker), COIR_NEVER);
    CHECK(time >= start + i * COIR_MS(2) && time <= coir_now()); /* it does not run ahead */
    CHECK(time > before);
    before = time;
  }
  coir_ticker_destroy(ticker);
}

ON_BOTH(a_late_reader_misses_ticks) {
  struct coir_ticker *ticker = make_ticker(COIR_MS(1));
  struct coir_chan *raw = COIR_CHAN_RAW(coir_ticker_chan(ticker));
  CHECK_EQ(coir_chan_capacity(raw), 1);
  WAIT_FOR(coir_chan_length(raw) == 1);
  int64_t seen = coir_now();
  (void)coir_sleep(COIR_MS(10));
  CHECK(take(coir_ticker_chan(ticker), 0) <= seen); /* the first is kept, those after it are not */
  int64_t time = take(coir_ticker_chan(ticker), COIR_NEVER);
  CHECK(time > seen + COIR_MS(8));
  coir_ticker_destroy(ticker);
}

ON_BOTH(stopping_does_not_close) {
  struct coir_ticker *ticker = make_ticker(COIR_MS(1));
  COIR_CHAN(int64_t) chan = coir_ticker_chan(ticker);
  WAIT_FOR(coir_chan_length(COIR_CHAN_RAW(chan)) == 1);
  coir_ticker_stop(ticker);
  coir_ticker_stop(ticker);
  CHECK(take(chan, 0) > 0); /* what was there stays there */
  CHECK_EQ(take(chan, coir_after(COIR_MS(5))), -ETIMEDOUT);
  CHECK(!coir_chan_is_closed(COIR_CHAN_RAW(chan)));
  int64_t again = coir_now();
  CHECK_EQ(coir_ticker_reset(ticker, COIR_MS(3)), 0);
  CHECK(take(chan, COIR_NEVER) >= again + COIR_MS(3));
  CHECK(take(chan, COIR_NEVER) >= again + COIR_MS(6));
  again = coir_now();
  CHECK_EQ(coir_ticker_reset(ticker, COIR_MS(8)), 0); /* a whole new period */
  int64_t after = coir_now(), time = take(chan, COIR_NEVER);
  if (time <= after) time = take(chan, COIR_NEVER); /* a tick that had come before */
  CHECK(time >= again + COIR_MS(8));
  coir_ticker_destroy(ticker);
}

ON_BOTH(its_channel_may_outlive_it) {
  struct coir_ticker *ticker = make_ticker(COIR_MS(1));
  struct coir_chan *chan = coir_chan_ref(COIR_CHAN_RAW(coir_ticker_chan(ticker)));
  WAIT_FOR(coir_chan_length(chan) == 1);
  coir_ticker_destroy(ticker);
  int64_t time = 0;
  CHECK_EQ(coir_chan_recv(chan, &time, 0), 0);
  CHECK_EQ(coir_chan_recv(chan, &time, coir_after(COIR_MS(3))), -ETIMEDOUT);
  coir_chan_unref(chan);
  ticker = make_ticker(COIR_US(100));
  coir_chan_close(COIR_CHAN_RAW(coir_ticker_chan(ticker))); /* then nobody hears it */
  (void)coir_sleep(COIR_MS(2));
  coir_ticker_destroy(ticker);
}

/* ---- Timers ---------------------------------------------------------------------------------------------------- */

ON_FIBER(a_timer_runs_its_function) {
  struct tally t = {.deadline = coir_after(COIR_MS(3))};
  struct coir_timer *timer = make(fires, &t);
  CHECK_EQ(fires_within(&t, COIR_MS(2)), 0); /* not started */
  CHECK_EQ(coir_timer_stop(timer), 0);
  t.deadline = coir_after(COIR_MS(3));
  CHECK_EQ(coir_timer_start(timer, t.deadline, 0), 0);
  WAIT_FOR(atomic_load(&t.fired) == 1);
  CHECK_EQ(fires_within(&t, COIR_MS(5)), 0); /* once */
  CHECK_EQ(coir_timer_stop(timer), 0);
  CHECK_EQ(coir_timer_start(timer, 0, 0), 0); /* again, and at once */
  WAIT_FOR(atomic_load(&t.fired) == 2);
  CHECK_EQ(coir_timer_start(timer, INT64_MIN, 0), 0);
  WAIT_FOR(atomic_load(&t.fired) == 3);
  CHECK_EQ(atomic_load(&t.early), 0);
  coir_timer_destroy(timer);
}

ON_FIBER(what_is_stopped_does_not_come) {
  struct tally t = {0};
  struct coir_timer *timer = make(fires, &t);
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_MS(20)), 0), 0);
  CHECK_EQ(coir_timer_stop(timer), 1);
  CHECK_EQ(coir_timer_stop(timer), 0);
  CHECK_EQ(fires_within(&t, COIR_MS(25)), 0);
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_MS(20)), 0), 0);
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_MS(500)), 0), 1); /* instead of the former */
  CHECK_EQ(fires_within(&t, COIR_MS(25)), 0);
  CHECK_EQ(coir_timer_start(timer, COIR_NEVER, 0), 1);
  CHECK_EQ(coir_timer_start(timer, COIR_NEVER, COIR_NEVER), 1);
  CHECK_EQ(coir_timer_stop(timer), 1); /* it was started, though it would have taken its time */
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_MS(20)), 0), 0);
  coir_timer_destroy(timer); /* stops it */
  CHECK_EQ(fires_within(&t, COIR_MS(25)), 0);
  CHECK_EQ(atomic_load(&t.fired), 0);
}

ON_FIBER(a_periodic_one_keeps_time) {
  int64_t start = coir_now();
  struct tally t = {.deadline = start + COIR_MS(4)};
  struct coir_timer *timer = make(fires, &t);
  CHECK_EQ(coir_timer_start(timer, t.deadline, COIR_MS(2)), 0);
  while (atomic_load(&t.fired) < 20) {
    int64_t n = atomic_load(&t.fired);
    CHECK(n == 0 || (coir_now() - start) / COIR_MS(2) >= n + 1); /* no more than there were periods */
    (void)coir_sleep(COIR_US(500));
  }
  CHECK(coir_now() >= start + COIR_MS(2 * 21));
  CHECK_EQ(atomic_load(&t.early), 0);
  CHECK_EQ(coir_timer_stop(timer), 1); /* though it has fired: it would have again */
  CHECK_EQ(coir_timer_stop(timer), 0);
  settle();
  CHECK_EQ(fires_within(&t, COIR_MS(6)), 0);
  CHECK_EQ(coir_timer_start(timer, 0, COIR_MS(2)), 0); /* at once, and from then on */
  int64_t before = atomic_load(&t.fired);
  WAIT_FOR(atomic_load(&t.fired) >= before + 2);
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_SEC(100)), 0), 1); /* no longer periodic */
  settle();
  CHECK_EQ(fires_within(&t, COIR_MS(6)), 0);
  coir_timer_destroy(timer);
}

static int keeps_its_worker(void *arg) {
  struct tally *t = arg;
  struct coir_timer *timer = make(fires, t);
  CHECK_EQ(coir_timer_start(timer, coir_now(), COIR_MS(1)), 0);
  WAIT_FOR(atomic_load(&t->fired) > 0);
  int64_t before = atomic_load(&t->fired);
  spin(COIR_MS(20));
  int64_t end = coir_now();
  CHECK_EQ(atomic_load(&t->fired), before);
  (void)coir_sleep(1);
  CHECK(atomic_load(&t->fired) <= before + 2 + (coir_now() - end) / COIR_MS(1)); /* no burst */
  WAIT_FOR(atomic_load(&t->fired) > before + 2);
  coir_timer_destroy(timer);
  return 0;
}

static void periods_without_time_are_left_out(void **state) {
  (void)state;
  struct tally t = {0};
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, keeps_its_worker, &t), 0);
}

struct again {
  struct coir_timer *timer;
  _Atomic(int) left;
};

static int starts_itself(void *arg) {
  struct again *a = arg;
  if (atomic_fetch_sub(&a->left, 1) > 1) CHECK_EQ(coir_timer_start(a->timer, coir_after(COIR_US(100)), 0), 0);
  return 0;
}

ON_FIBER(a_timer_may_start_itself) {
  struct again a = {.left = 20};
  a.timer = make(starts_itself, &a);
  CHECK_EQ(coir_timer_start(a.timer, 0, 0), 0);
  WAIT_FOR(atomic_load(&a.left) == 0);
  CHECK_EQ(coir_timer_stop(a.timer), 0);
  coir_timer_destroy(a.timer);
}

ON_FIBER(nothing_comes_early) {
  enum { N = 500 };
  static struct tally tallies[N];
  static struct coir_timer *timers[N];
  uint64_t rng = rng_seed(3);
  memset(tallies, 0, sizeof tallies);
  for (int i = 0; i < N; i++) {
    timers[i] = make(fires, &tallies[i]);
    tallies[i].deadline = coir_after((int64_t)(rng_next(&rng) % (uint64_t)COIR_MS(30)));
    CHECK_EQ(coir_timer_start(timers[i], tallies[i].deadline, 0), 0);
  }
  for (int i = 0; i < N; i++) WAIT_FOR(atomic_load(&tallies[i].fired));
  for (int i = 0; i < N; i++) {
    CHECK_EQ(atomic_load(&tallies[i].fired), 1);
    CHECK_EQ(atomic_load(&tallies[i].early), 0);
    coir_timer_destroy(timers[i]);
  }
}

/* ---- Who started and stopped what ------------------------------------------------------------------------------ */

/* Firings that were started, and those that were prevented. What is left has come. */
struct account {
  struct coir_timer *timer;
  struct tally tally;
  _Atomic(int64_t) started, prevented;
  _Atomic(uint64_t) seeds;
  int64_t period;
  int n;
};

static int starts_and_stops(void *arg) {
  struct account *a = arg;
  uint64_t rng = rng_seed(atomic_fetch_add(&a->seeds, 1) + 17);
  for (int i = 0; i < a->n; i++) {
    uint64_t dice = rng_next(&rng);
    int64_t ahead = (int64_t)(dice >> 8 & 0xff) * 100; /* up to 25 us */
    if (dice % 2) {
      int rc = coir_timer_start(a->timer, coir_now() + ahead, a->period);
      CHECK(rc == 0 || rc == 1);
      atomic_fetch_add(&a->started, 1);
      atomic_fetch_add(&a->prevented, rc);
    } else {
      atomic_fetch_add(&a->prevented, coir_timer_stop(a->timer));
    }
    if (dice % 16 == 3) coir_yield();
    if (dice % 64 == 4) (void)coir_sleep(COIR_US(5));
    if (dice % 16 == 5) spin(ahead);
  }
  return 0;
}

static void *starts_and_stops_too(void *a) { return starts_and_stops(a), NULL; }

static void balance(struct account *a) {
  atomic_fetch_add(&a->prevented, coir_timer_stop(a->timer));
  WAIT_FOR(atomic_load(&a->tally.fired) == atomic_load(&a->started) - atomic_load(&a->prevented));
  CHECK_EQ(fires_within(&a->tally, COIR_MS(3)), 0);
  coir_timer_destroy(a->timer);
}

ON_FIBER(one_who_starts_and_stops_gets_it_right) {
  struct account a = {.n = rounds(100000)};
  a.timer = make(fires, &a.tally);
  starts_and_stops(&a);
  balance(&a);
}

ON_FIBER(many_who_start_and_stop_get_it_right) {
  struct account a = {.n = rounds(50000)};
  struct coir_fiber *f[3];
  pthread_t thread;
  a.timer = make(fires, &a.tally);
  for (int i = 0; i < 3; i++) f[i] = spawn(starts_and_stops, &a);
  CHECK_EQ(pthread_create(&thread, NULL, starts_and_stops_too, &a), 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(join(f[i]), 0);
  while (pthread_tryjoin_np(thread, NULL)) (void)coir_sleep(COIR_US(100));
  balance(&a);
}

/* Of a periodic one each start is prevented, by the next start or the last stop. */
ON_FIBER(periodic_ones_are_always_prevented) {
  struct account a = {.n = rounds(10000), .period = COIR_US(3)};
  struct coir_fiber *f[3];
  a.timer = make(fires, &a.tally);
  for (int i = 0; i < 3; i++) f[i] = spawn(starts_and_stops, &a);
  for (int i = 0; i < 3; i++) CHECK_EQ(join(f[i]), 0);
  atomic_fetch_add(&a.prevented, coir_timer_stop(a.timer));
  CHECK_EQ(atomic_load(&a.started), atomic_load(&a.prevented));
  settle();
  CHECK_EQ(fires_within(&a.tally, COIR_MS(3)), 0);
  coir_timer_destroy(a.timer);
}

static int destroys_under_fire(void *arg) {
  struct tally *t = arg;
  uint64_t rng = rng_seed((uint64_t)coir_fiber_id(NULL));
  for (int i = 0; i < rounds(3000); i++) {
    uint64_t dice = rng_next(&rng);
    struct coir_timer *timer = make(fires, t);
    struct coir_ticker *ticker = make_ticker(1 + (int64_t)(dice % 3000));
    COIR_CHAN(int64_t) chan = coir_timer_chan(coir_after((int64_t)(dice >> 8 & 0xfff)));
    CHECK_EQ(coir_timer_start(timer, coir_after((int64_t)(dice >> 20 & 0xfff)), dice % 8 ? 0 : COIR_US(20)), 0);
    if (dice % 4 == 0) spin((int64_t)(dice >> 32 & 0xfff));
    else if (dice % 4 == 1) (void)coir_sleep(COIR_US(3));
    else if (dice % 4 == 2) coir_yield();
    drop(chan);
    coir_ticker_destroy(ticker);
    coir_timer_destroy(timer);
  }
  return 0;
}

ON_FIBER(all_may_be_destroyed_under_fire) {
  struct tally t = {0};
  struct coir_fiber *f[4];
  for (int i = 0; i < 4; i++) f[i] = spawn(destroys_under_fire, &t);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(f[i]), 0);
  settle();
  CHECK_EQ(fires_within(&t, COIR_MS(3)), 0);
}

/* ---- Runtimes -------------------------------------------------------------------------------------------------- */

static struct coir_timer *left_timer;
static struct coir_ticker *left_ticker;
static struct coir_chan *left_chan;
static struct tally left_tally;

static int leaves_them_running(void *unused) {
  struct coir_stats stats;
  (void)unused;
  left_timer = make(fires, &left_tally);
  left_ticker = make_ticker(COIR_US(100));
  left_chan = COIR_CHAN_RAW(coir_timer_chan(coir_after(COIR_SEC(1000))));
  CHECK_EQ(coir_timer_start(left_timer, coir_after(COIR_MS(20)), COIR_MS(1)), 0);
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  CHECK_EQ(stats.fibers_live, 1);
  return 0;
}

static int waits_for_the_timer(void *unused) {
  (void)unused;
  WAIT_FOR(atomic_load(&left_tally.fired) > 0);
  CHECK(take(coir_ticker_chan(left_ticker), COIR_NEVER) > 0);
  return 0;
}

static void none_keeps_a_runtime_running(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  atomic_store(&left_tally.fired, 0);
  CHECK_EQ(coir_runtime_run(rt, leaves_them_running, NULL, NULL), 0);
  CHECK_EQ(fires_within(&left_tally, COIR_MS(25)), 0); /* fires only while it runs */
  CHECK_EQ(coir_runtime_run(rt, waits_for_the_timer, NULL, NULL), 0);
  CHECK_EQ(coir_timer_stop(left_timer), 1);
  CHECK_EQ(coir_timer_start(left_timer, coir_after(COIR_SEC(1000)), 0), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  coir_timer_destroy(left_timer); /* they may be given up after their runtime is gone */
  coir_ticker_stop(left_ticker);
  coir_ticker_destroy(left_ticker);
  coir_chan_unref(left_chan);
}

static int starts_anothers(void *timer) { return coir_timer_start(timer, coir_after(COIR_MS(1)), 0); }

static void another_runtime_may_start_it(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  atomic_store(&left_tally.fired, 0);
  CHECK_EQ(coir_runtime_run(rt, leaves_them_running, NULL, NULL), 0);
  CHECK_EQ(coir_timer_stop(left_timer), 1);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 1; i <= 3; i++) {
    CHECK_EQ(run(starts_anothers, left_timer), 0);
    WAIT_FOR(atomic_load(&left_tally.fired) == i);
  }
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  coir_timer_destroy(left_timer);
  coir_ticker_destroy(left_ticker);
  coir_chan_unref(left_chan);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* A timer of a runtime that is named. */
struct named {
  struct coir_runtime *owner, *asked; /* whose it is, and what it was asked for: NULL for the default one */
  struct coir_timer *timer;
  struct tally tally;
};

static int fires_at_home(void *arg) {
  struct named *n = arg;
  CHECK(coir_runtime_current() == n->owner);
  return fires(&n->tally);
}

static int starts_a_named_one(void *arg) {
  struct named *n = arg;
  CHECK_EQ(coir_runtime_timer_create(n->asked, &n->timer, fires_at_home, n), 0);
  n->tally.deadline = coir_after(COIR_MS(1));
  return coir_timer_start(n->timer, n->tally.deadline, 0);
}

static int waits_for_a_named_one(void *arg) {
  WAIT_FOR(atomic_load(&((struct named *)arg)->tally.fired) == 1);
  return 0;
}

static void a_timer_may_be_of_any_runtime(void **state) {
  (void)state;
  struct coir_timer *timer = (struct coir_timer *)1;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_timer_create(rt, NULL, fires, NULL), -EINVAL);
  CHECK_EQ(coir_runtime_timer_create(rt, &timer, NULL, NULL), -EINVAL);
  CHECK(timer == NULL);
  struct named n[4] = {{.owner = rt, .asked = rt}, {.owner = rt, .asked = rt}, {.owner = coir_runtime_default()}};
  n[3] = n[2];
  CHECK_EQ(starts_a_named_one(&n[0]), 0);
  CHECK_EQ(fires_within(&n[0].tally, COIR_MS(3)), 0); /* only while it runs */
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(run(starts_a_named_one, &n[1]), 0); /* on a fiber of another one */
  for (int i = 0; i < 2; i++) CHECK_EQ(waits_for_a_named_one(&n[i]), 0);
  CHECK_EQ(starts_a_named_one(&n[2]), 0);
  CHECK_EQ(run(starts_a_named_one, &n[3]), 0);
  for (int i = 2; i < 4; i++) CHECK_EQ(coir_run(waits_for_a_named_one, &n[i]), 0);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(atomic_load(&n[i].tally.early), 0);
    CHECK_EQ(coir_timer_stop(n[i].timer), 0);
    coir_timer_destroy(n[i].timer);
  }
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int waits_for_firings(void *arg) {
  struct tally *t = arg;
  WAIT_FOR(atomic_load(&t->fired) >= 5);
  return 0;
}

/* A thread's timer belongs to the default runtime. */
static void threads_have_timers_too(void **state) {
  (void)state;
  struct tally t = {.deadline = coir_after(COIR_MS(1))};
  struct coir_timer *timer = make(fires, &t);
  CHECK_EQ(coir_timer_start(timer, t.deadline, COIR_MS(1)), 0);
  CHECK_EQ(fires_within(&t, COIR_MS(3)), 0);
  CHECK_EQ(coir_run(waits_for_firings, &t), 0);
  CHECK_EQ(coir_timer_stop(timer), 1);
  CHECK_EQ(atomic_load(&t.early), 0);
  coir_timer_destroy(timer);
}

static int waits_for_a_tick(void *ticker) { return take(coir_ticker_chan(ticker), COIR_NEVER) > 0 ? 0 : 1; }

/* It comes from outside of the runtime: who waits for it is not in a deadlock. */
static void a_threads_ticker_can_be_waited_for(void **state) {
  (void)state;
  struct coir_ticker *ticker = make_ticker(COIR_MS(50));
  CHECK_EQ(run(waits_for_a_tick, ticker), 0);
  coir_ticker_destroy(ticker);
}

/* ---- Without memory -------------------------------------------------------------------------------------------- */

/* Fails for what descriptors of fibers are kept in, and for nothing else. */
static void *all_but_1_kib(size_t bytes, void *arg) {
  bool fails = bytes == 1024 && atomic_load((_Atomic(int) *)arg);
  return fails ? NULL : malloc(bytes);
}

static void give(void *memory, size_t bytes, void *arg) {
  (void)bytes, (void)arg;
  free(memory);
}

/* On a worker that has not spawned anything yet. */
static int fires_without_memory(void *is_short) {
  struct tally t = {0};
  struct coir_timer *timer = make(fires, &t);
  atomic_store((_Atomic(int) *)is_short, 1);
  CHECK_EQ(coir_go(fires, &t), -ENOMEM);
  CHECK_EQ(coir_timer_start(timer, 0, 0), 0);
  CHECK_EQ(fires_within(&t, COIR_MS(5)), 0);
  CHECK_EQ(coir_timer_stop(timer), 1); /* it has not fired */
  CHECK_EQ(coir_timer_start(timer, 0, 0), 0);
  CHECK_EQ(fires_within(&t, COIR_MS(5)), 0);
  atomic_store((_Atomic(int) *)is_short, 0);
  WAIT_FOR(atomic_load(&t.fired) == 1);
  CHECK_EQ(coir_timer_stop(timer), 0);
  coir_timer_destroy(timer);
  return 0;
}

static void without_memory_it_tries_again(void **state) {
  (void)state;
  _Atomic(int) is_short = 0;
  struct coir_config config = {.workers = 1, .alloc = all_but_1_kib, .free = give, .alloc_arg = &is_short};
  CHECK_EQ(run_with(config, fires_without_memory, &is_short), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bad_arguments_are_refused),
      cmocka_unit_test(the_time_comes_once),
      cmocka_unit_test(a_time_that_has_passed_is_there_at_once),
      cmocka_unit_test(it_may_be_given_up_before),
      cmocka_unit_test(many_come_in_their_order),
      cmocka_unit_test(a_ticker_ticks),
      cmocka_unit_test(a_late_reader_misses_ticks),
      cmocka_unit_test(stopping_does_not_close),
      cmocka_unit_test(its_channel_may_outlive_it),
      cmocka_unit_test(a_timer_runs_its_function),
      cmocka_unit_test(what_is_stopped_does_not_come),
      cmocka_unit_test(a_periodic_one_keeps_time),
      cmocka_unit_test(periods_without_time_are_left_out),
      cmocka_unit_test(a_timer_may_start_itself),
      cmocka_unit_test(nothing_comes_early),
      cmocka_unit_test(one_who_starts_and_stops_gets_it_right),
      cmocka_unit_test(many_who_start_and_stop_get_it_right),
      cmocka_unit_test(periodic_ones_are_always_prevented),
      cmocka_unit_test(all_may_be_destroyed_under_fire),
      cmocka_unit_test(none_keeps_a_runtime_running),
      cmocka_unit_test(another_runtime_may_start_it),
      cmocka_unit_test(a_timer_may_be_of_any_runtime),
      cmocka_unit_test(threads_have_timers_too),
      cmocka_unit_test(a_threads_ticker_can_be_waited_for),
      cmocka_unit_test(without_memory_it_tries_again),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
