/* Timers that run a function, tickers, and channels that tell the time: all that comes by itself.
 *
 * Each of them is an alarm in the wheel of one worker (timer.c), whose loop calls back when it has come: a timer spawns
 * a fiber, a ticker sends without waiting. None of that is a fiber, so none keeps the runtime running; and while it
 * does not run nothing comes. What plain threads make that needs no fiber is with the keeper (keeper.c), and always
 * comes.
 *
 * What came and what was prevented is decided under the lock of the wheel, where an alarm is taken out by one party
 * only: its worker, or coir__alarm_cancel. Who starts or stops one holds a lock of its own, since an alarm is armed and
 * cancelled by one thread at a time; the worker's call back does not take that lock, so it may be held while the
 * canceller waits for the call back to return. One that comes again has armed itself by then, and is taken out. So the
 * answer is exact: of all firings that were started, each came or was prevented.
 *
 * The next time of a periodic one is counted from the last one, not from when that was noticed, so it does not drift;
 * times that nobody had time for are left out.
 *
 * Rejected: a fiber that sleeps and works (it would count as a fiber, and cancelling it takes time); arming anew only
 * when the old time comes (cheaper restarts, but no exact answer). */
#include "internal.h"

#define AGAIN COIR_MS(1)        /* when memory for a fiber is short */
#define LATEST (COIR_NEVER - 1) /* as late as an alarm can be: 292 years after the clock's zero */

/* What all of them are: something that comes at a time, once or periodically. */
struct tick {
  struct coir__alarm alarm; /* first */
  struct coir__lock lock;   /* held by who starts or stops it */
  struct coir_runtime *rt;  /* (c) whose workers carry it; NULL: the keeper does */
  int64_t due;              /* (l) when it comes, or came last; while it is started its worker's */
  int64_t period;           /* likewise; 0: once */
  bool (*act)(struct tick *t, struct coir__worker *w, int64_t now); /* (c) false: memory is short */
};

static int64_t tick_run(struct coir__alarm *alarm, struct coir__worker *w, int64_t now) {
  struct tick *t = (struct tick *)alarm;
  if (!t->act(t, w, now)) return now + AGAIN;
  if (!t->period) return COIR_NEVER;
  t->due += (now - t->due) / t->period * t->period; /* the last one that is over */
  t->due = t->due > LATEST - t->period ? LATEST : t->due + t->period;
  return t->due;
}

static void tick_init(struct tick *t, struct coir_runtime *rt,
                      bool (*act)(struct tick *t, struct coir__worker *w, int64_t now)) {
  t->rt = rt;
  t->act = act;
  t->alarm.run = tick_run;
}

static void tick_arm(struct tick *t, int64_t deadline) {
  struct coir__worker *w = coir__carried();
  if (!t->rt) coir__keeper_arm(&t->alarm, deadline);
  else coir__alarm_arm(w && w->rt == t->rt ? w : t->rt->workers[0], &t->alarm, deadline);
}

/* Returns 1 when it was started and will not come for that; else 0. */
static int tick_start(struct tick *t, int64_t deadline, int64_t period) {
  if (deadline > LATEST) deadline = LATEST;
  if (period) { /* the first of a row is not in the past */
    int64_t now = coir__os_now();
    if (deadline < now) deadline = now;
  }
  coir__lock(&t->lock);
  bool prevented = coir__alarm_cancel(&t->alarm);
  t->due = deadline;
  t->period = period;
  tick_arm(t, deadline);
  coir__unlock(&t->lock);
  return prevented;
}

static int tick_stop(struct tick *t) {
  coir__lock(&t->lock);
  bool prevented = coir__alarm_cancel(&t->alarm);
  coir__unlock(&t->lock);
  return prevented;
}

/* ---- Timers ---------------------------------------------------------------------------------------------------- */

struct coir_timer {
  struct tick tick; /* first */
  coir_fn fn;       /* (c) */
  void *arg;        /* (c) */
};

static bool timer_act(struct tick *t, struct coir__worker *w, int64_t now) {
  const struct coir_timer *timer = (const struct coir_timer *)t;
  struct coir_fiber *f;
  (void)now;
  if (coir__fiber_prepare(t->rt, w, timer->fn, timer->arg, NULL, &f, true)) return false;
  coir__fiber_publish(w, f, NULL);
  return true;
}

int coir_timer_create(struct coir_timer **out, coir_fn fn, void *arg) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  return coir_runtime_timer_create(coir__caller_runtime(w), out, fn, arg);
}

int coir_runtime_timer_create(struct coir_runtime *rt, struct coir_timer **out, coir_fn fn, void *arg) {
  COIR_INSIDE;
  if (!out) return -EINVAL;
  *out = NULL;
  if (!fn) return -EINVAL;
  if (!rt) rt = coir_runtime_default();
  struct coir_timer *timer = rt ? coir__alloc(NULL, sizeof *timer) : NULL; /* it may outlive its runtime */
  if (!timer) return -ENOMEM;
  tick_init(&timer->tick, rt, timer_act);
  timer->fn = fn;
  timer->arg = arg;
  *out = timer;
  return 0;
}

int coir_timer_start(struct coir_timer *timer, int64_t deadline, int64_t period) {
  COIR_INSIDE;
  return timer && period >= 0 ? tick_start(&timer->tick, deadline, period) : -EINVAL;
}

int coir_timer_stop(struct coir_timer *timer) {
  COIR_INSIDE;
  return timer ? tick_stop(&timer->tick) : -EINVAL;
}

void coir_timer_destroy(struct coir_timer *timer) {
  COIR_INSIDE;
  if (!timer) return;
  tick_stop(&timer->tick);
  coir__free(NULL, timer, sizeof *timer);
}

/* ---- Tickers, and channels that tell the time ------------------------------------------------------------------ */

struct coir_ticker {
  struct tick tick;       /* first */
  struct coir_chan *chan; /* (c) */
};

static bool ticker_act(struct tick *t, struct coir__worker *w, int64_t now) {
  coir__chan_try_send(w, ((struct coir_ticker *)t)->chan, &now); /* a full channel keeps what it has */
  return true;
}

/* Makes one with its channel, not started. NULL: memory is short. */
static struct coir_ticker *ticker_make(void) {
  struct coir__worker *w = coir__self();
  if (!w && coir__keeper_start() != 0) return NULL;
  struct coir_ticker *ticker = coir__alloc(NULL, sizeof *ticker);
  if (!ticker) return NULL;
  ticker->chan = coir_chan_create(sizeof(int64_t), 1);
  if (!ticker->chan) {
    coir__free(NULL, ticker, sizeof *ticker);
    return NULL;
  }
  tick_init(&ticker->tick, w ? w->rt : NULL, ticker_act);
  return ticker;
}

static void ticker_free(struct coir_ticker *ticker) {
  tick_stop(&ticker->tick);
  coir__free(NULL, ticker, sizeof *ticker);
}

static COIR_CHAN(int64_t) ticker_chan(const struct coir_ticker *ticker) {
  return (COIR_CHAN(int64_t))(void *)ticker->chan;
}

int coir_ticker_create(struct coir_ticker **out, int64_t period) {
  COIR_INSIDE;
  if (!out) return -EINVAL;
  *out = NULL;
  if (period < 1) return -EINVAL;
  struct coir_ticker *ticker = ticker_make();
  if (!ticker) return -ENOMEM;
  tick_start(&ticker->tick, coir_after(period), period);
  *out = ticker;
  return 0;
}

COIR_CHAN(int64_t) coir_ticker_chan(const struct coir_ticker *ticker) { return ticker ? ticker_chan(ticker) : NULL; }

int coir_ticker_reset(struct coir_ticker *ticker, int64_t period) {
  COIR_INSIDE;
  if (!ticker || period < 1) return -EINVAL;
  tick_start(&ticker->tick, coir_after(period), period);
  return 0;
}

void coir_ticker_stop(struct coir_ticker *ticker) {
  COIR_INSIDE;
  if (ticker) tick_stop(&ticker->tick);
}

void coir_ticker_destroy(struct coir_ticker *ticker) {
  COIR_INSIDE;
  if (!ticker) return;
  struct coir_chan *chan = ticker->chan;
  ticker_free(ticker);
  coir_chan_unref(chan);
}

/* Nobody can send or receive any more, but the alarm may be sending just now: ticker_free waits for it. */
static void timer_chan_over(struct coir_chan *c, void *ticker) {
  (void)c;
  ticker_free(ticker);
}

COIR_CHAN(int64_t) coir_timer_chan(int64_t deadline) {
  COIR_INSIDE;
  struct coir_ticker *ticker = ticker_make();
  if (!ticker) return NULL;
  int64_t now = coir_now();
  coir__chan_set_fini(ticker->chan, timer_chan_over, ticker);
  if (deadline <= now) coir_chan_send(ticker->chan, &now, 0);
  else tick_start(&ticker->tick, deadline, 0);
  return ticker_chan(ticker);
}
