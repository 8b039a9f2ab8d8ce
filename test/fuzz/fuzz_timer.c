/* Timers, tickers, channels that tell the time, and sleepers, beside a list of what is to come.
 *
 * The conductor is a fiber that starts, changes and stops them, and moves the clock: by a nanosecond or by a year, to
 * what comes next, or past many at once. What they do is written down, and compared with the list: each comes once for
 * every look at the clock that finds it due, never early, in the order of the times; what was stopped does not come;
 * and every start and stop says exactly whether it has prevented something. */
#include "fuzz.h"

enum { TIMERS = 6, TICKERS = 3, CHANS = 3, SLEEPERS = 4, LOG_MAX = 4 * TIMERS };

struct due {
  bool is_armed;
  int64_t at, period;
};

static struct {
  struct coir_timer *real;
  struct due due;
} timers[TIMERS];

/* A ticker, or a channel that tells the time. */
static struct {
  struct coir_ticker *real;
  struct coir_chan *chan;
  struct due due;
  int64_t tick; /* that waits in the channel; 0: none */
} tickers[TICKERS + CHANS];

static struct {
  struct coir_fiber *fiber;
  bool is_told, quits;
  int64_t deadline, woken_at;
} sleepers[SLEEPERS];

static int ran[LOG_MAX], ran_count; /* timers, in the order in which their functions ran */
static bool is_late;                /* the clock has moved, or something was started that is due already */

/* ---- What is to come ------------------------------------------------------------------------------------------- */

/* Returns whether that has prevented something. */
static bool arm(struct due *d, int64_t at, int64_t period) {
  bool was_armed = d->is_armed;
  if (period && at < fuzz_now) at = fuzz_now;
  *d = (struct due){.is_armed = true, .at = sooner_of(at, COIR_NEVER - 1), .period = period};
  is_late |= d->at <= fuzz_now;
  return was_armed;
}

static bool disarm(struct due *d) {
  bool was_armed = d->is_armed;
  d->is_armed = false;
  return was_armed;
}

/* Somebody looks at the clock. Returns whether it has come. Times that nobody had time for are left out. */
static bool come(struct due *d) {
  if (!d->is_armed || d->at > fuzz_now) return false;
  d->is_armed = d->period > 0;
  if (!d->period) return true;
  int64_t over = (fuzz_now - d->at) / d->period * d->period;
  d->at += over;
  d->at = d->at > COIR_NEVER - 1 - d->period ? COIR_NEVER - 1 : d->at + d->period;
  return true;
}

static int64_t next_of_all(void) {
  int64_t next = COIR_NEVER;
  for (int i = 0; i < TIMERS; i++)
    if (timers[i].due.is_armed) next = sooner_of(next, timers[i].due.at);
  for (int i = 0; i < TICKERS + CHANS; i++)
    if (tickers[i].due.is_armed) next = sooner_of(next, tickers[i].due.at);
  for (int i = 0; i < SLEEPERS; i++)
    if (sleepers[i].is_told) next = sooner_of(next, sleepers[i].deadline);
  return next;
}

/* ---- What comes ------------------------------------------------------------------------------------------------ */

static int run_timer(void *arg) {
  CHECK(ran_count < LOG_MAX);
  ran[ran_count++] = (int)(intptr_t)arg;
  return 0;
}

static int run_sleeper(void *arg) {
  int i = (int)(intptr_t)arg;
  for (;;) {
    while (!sleepers[i].is_told && !sleepers[i].quits) coir_yield();
    if (!sleepers[i].is_told) return 0;
    CHECK_EQ(coir_sleep_until(sleepers[i].deadline), 0);
    sleepers[i].woken_at = fuzz_now;
    sleepers[i].is_told = false;
  }
}

static bool has_slept(int expected) {
  int count = 0;
  for (int i = 0; i < SLEEPERS; i++) count += sleepers[i].is_told;
  return count == expected;
}

/* Those that are due have run, each once, in the order of their times. */
static void check_timers(const int64_t *due_at, int due_count) {
  CHECK_EQ(ran_count, due_count);
  int64_t last = INT64_MIN;
  bool has_run[TIMERS] = {false};
  for (int i = 0; i < ran_count; i++) {
    int t = ran[i];
    CHECK(!has_run[t] && due_at[t] != COIR_NEVER && due_at[t] >= last);
    has_run[t] = true;
    last = due_at[t];
  }
}

static void settle(void) {
  int64_t due_at[TIMERS];
  int due_count = 0, asleep = 0;
  for (int i = 0; i < TIMERS; i++) {
    int64_t at = timers[i].due.at;
    bool comes = come(&timers[i].due);
    due_at[i] = comes ? at : COIR_NEVER;
    due_count += comes;
  }
  for (int i = 0; i < TICKERS + CHANS; i++)
    if (come(&tickers[i].due) && !tickers[i].tick) tickers[i].tick = fuzz_now;
  for (int i = 0; i < SLEEPERS; i++) asleep += sleepers[i].is_told && sleepers[i].deadline > fuzz_now;
  ran_count = 0;
  /* The worker looks at the clock every 64 dispatches at the latest; with much to be moved it takes several looks. */
  for (int i = 0; i < 20000 && (i < 80 || ran_count < due_count || !has_slept(asleep)); i++) coir_yield();
  check_timers(due_at, due_count);
  CHECK(has_slept(asleep));
  for (int i = 0; i < SLEEPERS; i++) CHECK(sleepers[i].is_told || sleepers[i].woken_at >= sleepers[i].deadline);
  for (int i = 0; i < TICKERS + CHANS; i++) {
    if (!tickers[i].chan) continue;
    for (int k = 0; k < 20000 && coir_chan_length(tickers[i].chan) != (tickers[i].tick != 0); k++) coir_yield();
    CHECK_EQ(coir_chan_length(tickers[i].chan), tickers[i].tick != 0);
  }
  is_late = false;
}

/* ---- The conductor --------------------------------------------------------------------------------------------- */

/* From a nanosecond to years. */
static int64_t take_span(struct input *in) {
  uint32_t b = take(in);
  return (int64_t)(b % 16 + 1) << (b / 16 + below(in, 38));
}

static int64_t take_time(struct input *in) {
  uint32_t b = take(in);
  if (b % 8 == 0) return b & 8 ? COIR_NEVER : 0;
  if (b % 8 == 1) return fuzz_now - take_span(in);
  if (b % 8 == 2) return fuzz_now;
  return fuzz_now + take_span(in);
}

static void change_timer(struct input *in, int i) {
  uint32_t b = take(in);
  if (b % 4 == 0) {
    CHECK_EQ(coir_timer_stop(timers[i].real), disarm(&timers[i].due));
  } else if (b % 16 == 1) {
    coir_timer_destroy(timers[i].real);
    disarm(&timers[i].due);
    CHECK_EQ(coir_timer_create(&timers[i].real, run_timer, (void *)(intptr_t)i), 0);
  } else {
    int64_t at = take_time(in), period = b % 4 == 2 ? take_span(in) : 0;
    bool prevents = arm(&timers[i].due, at, period);
    CHECK_EQ(coir_timer_start(timers[i].real, at, period), prevents);
  }
}

static void change_ticker(struct input *in, int i) {
  uint32_t b = take(in);
  int64_t period = take_span(in);
  if (!tickers[i].real) {
    CHECK_EQ(coir_ticker_create(&tickers[i].real, period), 0);
    tickers[i].chan = COIR_CHAN_RAW(coir_ticker_chan(tickers[i].real));
    tickers[i].tick = 0;
    arm(&tickers[i].due, coir_after(period), period);
  } else if (b % 4 == 0) {
    coir_ticker_stop(tickers[i].real);
    disarm(&tickers[i].due);
  } else if (b % 16 == 1) {
    coir_ticker_destroy(tickers[i].real);
    tickers[i].real = NULL;
    tickers[i].chan = NULL;
    disarm(&tickers[i].due);
  } else {
    CHECK_EQ(coir_ticker_reset(tickers[i].real, period), 0);
    arm(&tickers[i].due, coir_after(period), period);
  }
}

static void change_chan(struct input *in, int i) {
  if (tickers[i].chan) {
    coir_chan_unref(tickers[i].chan);
    tickers[i].chan = NULL;
    disarm(&tickers[i].due);
    return;
  }
  int64_t at = take_time(in);
  tickers[i].chan = COIR_CHAN_RAW(coir_timer_chan(at));
  CHECK(tickers[i].chan);
  tickers[i].tick = at <= fuzz_now ? fuzz_now : 0;
  if (at > fuzz_now) arm(&tickers[i].due, at, 0);
}

static void receive(int i) {
  int64_t value = 0;
  if (!tickers[i].chan) return;
  if (!tickers[i].tick && is_late) settle(); /* one that fails may give way to others */
  CHECK_EQ(coir_chan_recv(tickers[i].chan, &value, 0), tickers[i].tick ? 0 : -ETIMEDOUT);
  CHECK_EQ(value, tickers[i].tick);
  tickers[i].tick = 0;
}

static void send_to_sleep(struct input *in, int i) {
  if (sleepers[i].is_told) return;
  if (is_late) settle(); /* else it might begin before the clock is looked at, or after */
  sleepers[i].deadline = sooner_of(take_time(in), fuzz_now + COIR_SEC(3600));
  sleepers[i].is_told = true;
  is_late = true;
}

static void move_clock(int64_t to) {
  settle();
  if (to <= fuzz_now || to > INT64_C(1) << 60) return;
  fuzz_now = to;
  is_late = true;
}

static void step(struct input *in) {
  uint32_t b = take(in);
  switch (b % 16) {
  case 0:
  case 1: move_clock(next_of_all()); break;
  case 2: move_clock(fuzz_now + take_span(in)); break;
  case 3: move_clock(next_of_all() - 1); break;
  case 4: settle(); break;
  case 5:
  case 6: change_ticker(in, (int)below(in, TICKERS)); break;
  case 7: change_chan(in, TICKERS + (int)below(in, CHANS)); break;
  case 8:
  case 9: receive((int)below(in, TICKERS + CHANS)); break;
  case 10: send_to_sleep(in, (int)below(in, SLEEPERS)); break;
  default: change_timer(in, (int)below(in, TIMERS)); break;
  }
}

static void tear_down(void) {
  settle();
  for (int i = 0; i < SLEEPERS; i++) sleepers[i].quits = true;
  move_clock(fuzz_now + COIR_SEC(3601));
  settle();
  for (int i = 0; i < TIMERS; i++) coir_timer_destroy(timers[i].real);
  for (int i = 0; i < TICKERS; i++) coir_ticker_destroy(tickers[i].real);
  for (int i = TICKERS; i < TICKERS + CHANS; i++) coir_chan_unref(tickers[i].chan);
  for (int i = 0; i < SLEEPERS; i++) CHECK_EQ(coir_join(sleepers[i].fiber, NULL, COIR_NEVER), 0);
}

static int conduct(void *arg) {
  struct input *in = arg;
  memset(timers, 0, sizeof timers);
  memset(tickers, 0, sizeof tickers);
  memset(sleepers, 0, sizeof sleepers);
  for (int i = 0; i < TIMERS; i++) CHECK_EQ(coir_timer_create(&timers[i].real, run_timer, (void *)(intptr_t)i), 0);
  for (int i = 0; i < SLEEPERS; i++)
    CHECK_EQ(coir_spawn(run_sleeper, (void *)(intptr_t)i, NULL, &sleepers[i].fiber), 0);
  while (!is_over(in)) step(in);
  tear_down();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  struct input in = {data, data + bytes};
  run_alone(conduct, &in);
  return 0;
}
