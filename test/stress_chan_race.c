/* Sending, receiving, closing, cancelling and deadlines meet on one channel within nanoseconds, round after round.
 *
 * usage: stress_chan_race [seed] [seconds]
 *
 * In each round a few operators make one call each on a fresh channel, mostly a rendezvous, plainly or by a select,
 * while somebody cancels one of them and somebody closes the channel, all at about the same time: by the clock, or, so
 * that one worker alone races as well, after a few yields. Then the outcomes must agree: a value was received exactly
 * if its sender was told so, and nobody was told of a deadline, a close or a cancellation that had not come. What the
 * calls used, their frames, arms and buffers, is overwritten as soon as they return, so that a party that comes late
 * reads or leaves a trace that does not belong there. */
#include "harness.h"

#include <sched.h>

#define OPERATORS 4
#define SPINS_MAX 200
#define WORDS_MAX 32 /* of a value */
#define ROUNDS_MAX (IS_SANITIZED ? 100000 : 1000000)
#define ROUNDS_MIN (IS_SANITIZED ? 100 : 500) /* of each arena, however slow the machine */
#define ARENAS_MAX 8

enum call { CALL_SEND, CALL_RECV, CALL_SELECT_SEND, CALL_SELECT_RECV, CALL_SELECT_BOTH, CALL_NONE, CALLS };

/* What one operator is to do, and what came of it. Written by one side while the other one waits. */
struct party {
  struct arena *arena;
  struct coir_fiber *fiber; /* NULL: a plain thread */
  int index;
  enum call call;
  int yields;
  int64_t begin, deadline;
  bool asked;    /* is to be cancelled in this round */
  bool owes;     /* was so in the last one, and had not noticed when that was over */
  bool taken;    /* has noticed a cancellation while it waited for this round */
  bool early;    /* and that was this round's */
  bool in_place; /* its buffer lies here, and not in its frame */
  bool is_new;   /* has made no call yet */
  int rc;
  bool sent, received;
  uint64_t got;
  uint64_t buffer[WORDS_MAX];
  uint64_t outcomes[5]; /* 0, EPIPE, ETIMEDOUT, ECANCELED, afterwards */
};

/* A place where rounds are played. */
struct arena {
  struct coir_chan *chan, *idle; /* nobody uses the idle one, but selects wait on it as well */
  size_t words;
  _Atomic(uint64_t) round; /* the one that has begun */
  _Atomic(int) done;       /* how many are done with it */
  _Atomic(int) closing;    /* the channel may be closed */
  struct party operators[OPERATORS];
  struct coir_fiber *canceller;
  int victim; /* or -1 */
  int cancel_yields;
  int64_t cancel_at;
  uint64_t rng;
};

static struct arena arenas[ARENAS_MAX];
static _Atomic(uint64_t) rounds_played;
static _Atomic(int) over;
static uint64_t seed;
static int64_t until;
static int workers;

/* ---- One call -------------------------------------------------------------------------------------------------- */

/* Where the frames of a call were that has returned: filled with a pattern, or looked at. */
static void __attribute__((noinline)) ghosts(bool look) {
  volatile char frame[2048];
  if (!look) memset((char *)frame, 0xa5, sizeof frame);
  for (size_t i = 0; i < sizeof frame; i += 8) CHECK(*(volatile uint64_t *)&frame[i] == UINT64_C(0xa5a5a5a5a5a5a5a5));
}

/* Comes to the start: at its time on the clock, or after its number of yields. */
static void get_set(int yields, int64_t at) {
  if (at) {
    while (coir_now() < at) {}
  } else {
    for (int i = 0; i < yields; i++) coir_yield();
  }
}

static uint64_t value_of(const struct party *o) {
  return atomic_load(&o->arena->round) * OPERATORS + (uint64_t)o->index;
}

static void fill_value(uint64_t *buffer, size_t words, uint64_t value) {
  for (size_t i = 0; i < words; i++) buffer[i] = value ^ i << 56;
}

static int select_call(struct party *o, uint64_t *in, uint64_t *out) {
  struct arena *a = o->arena;
  struct coir_arm arms[5];
  size_t n = 0;
  bool both = o->call == CALL_SELECT_BOTH, reversed = o->got % 2;
  arms[n++] = coir_arm_recv(a->idle, out);
  if (both && reversed) arms[n++] = coir_arm_recv(a->chan, out);
  if (o->call != CALL_SELECT_RECV) arms[n++] = coir_arm_send(a->chan, in);
  if (o->call == CALL_SELECT_RECV || (both && !reversed)) arms[n++] = coir_arm_recv(a->chan, out);
  arms[n++] = coir_arm_send(NULL, in);
  int i = coir_select(arms, n, o->deadline);
  CHECK(i < (int)n - 1 && i != 0);
  int rc = i < 0 ? i : arms[i].result;
  o->sent = rc == 0 && arms[i].kind == COIR_ARM_SEND;
  o->received = rc == 0 && arms[i].kind == COIR_ARM_RECV;
  memset(arms, 0xa5, sizeof arms);
  return rc;
}

static void call(struct party *o, uint64_t *in, uint64_t *out) {
  struct arena *a = o->arena;
  o->sent = o->received = false;
  switch (o->call) {
  case CALL_SEND:
    o->rc = coir_chan_send(a->chan, in, o->deadline);
    o->sent = o->rc == 0;
    break;
  case CALL_RECV:
    o->rc = coir_chan_recv(a->chan, out, o->deadline);
    o->received = o->rc == 0;
    break;
  case CALL_NONE: o->rc = -ETIMEDOUT; break;
  default: o->rc = select_call(o, in, out);
  }
}

/* Calls from so deep a frame that nothing else comes there until the next round: a party that touches the wait of the
 * last one, however late, has left its trace. (Where frames are instrumented they do not lie where they lay.) */
static void __attribute__((noinline)) call_deep(struct party *o, uint64_t *in, uint64_t *out) {
  volatile char depth[16384];
  depth[0] = 0;
  if (!o->is_new && !IS_SANITIZED) ghosts(true);
  o->is_new = false;
  get_set(o->yields, o->begin);
  call(o, in, out);
  ghosts(false);
  depth[1] = depth[0];
}

static void make_call(struct party *o, uint64_t *in, uint64_t *out) {
  struct arena *a = o->arena;
  size_t bytes = a->words * sizeof(uint64_t);
  fill_value(in, a->words, value_of(o));
  memset(out, 0x5a, bytes);
  call_deep(o, in, out);
  memset(in, 0xee, bytes); /* who still reads it finds no value */
  o->got = out[0];
  for (size_t i = 0; i < a->words; i++) CHECK_EQ(out[i], o->received ? o->got ^ i << 56 : UINT64_C(0x5a5a5a5a5a5a5a5a));
  memset(out, 0xa5, bytes);
  if (o->call == CALL_NONE) return;
  if (o->rc == -EPIPE) CHECK(atomic_load(&a->closing));
  else if (o->rc == -ETIMEDOUT) CHECK(o->deadline != COIR_NEVER && coir_now() >= o->deadline);
  else if (o->rc == -ECANCELED) CHECK(o->asked && !o->early);
  else CHECK_EQ(o->rc, 0);
}

static void operator_plays(struct party *o) {
  if (o->owes && !o->taken) CHECK_EQ(coir_sleep(COIR_SEC(1000)), -ECANCELED);
  o->early = !o->owes && o->taken;
  o->taken = false;
  if (o->early) CHECK(o->asked);
  if (o->in_place) {
    uint64_t in[WORDS_MAX];
    make_call(o, in, o->buffer);
  } else {
    uint64_t out[WORDS_MAX];
    make_call(o, o->buffer, out);
    for (size_t i = 0; i < o->arena->words; i++) CHECK_EQ(out[i], UINT64_C(0xa5a5a5a5a5a5a5a5));
  }
}

/* ---- Rounds ---------------------------------------------------------------------------------------------------- */

/* Waits for the next round after `last`, briefly awake. 0: there is none. `canceled` is set when a cancellation comes
 * meanwhile, which may happen once. */
static uint64_t next_round(struct arena *a, uint64_t last, bool *canceled) {
  for (int i = 0;; i++) {
    uint64_t round = atomic_load(&a->round);
    if (round > last) return round;
    if (atomic_load(&over)) return 0;
    if (i < SPINS_MAX) {
      coir_yield();
    } else if (coir_sleep(COIR_US(20))) {
      CHECK(!*canceled);
      *canceled = true;
    }
  }
}

static int operator_fiber(void *arg) {
  struct party *o = arg;
  for (uint64_t round = 0; (round = next_round(o->arena, round, &o->taken));) {
    /* Nobody has come late to the last round's buffer. */
    for (size_t i = 0; i < WORDS_MAX; i++) CHECK(o->buffer[i] == UINT64_C(0xa5a5a5a5a5a5a5a5));
    operator_plays(o);
    memset(o->buffer, 0xa5, sizeof o->buffer);
    atomic_fetch_add(&o->arena->done, 1);
  }
  return 0;
}

static void *operator_thread(void *o) { return operator_fiber(o), NULL; }

static int canceller_fiber(void *arg) {
  struct arena *a = arg;
  bool canceled = false;
  for (uint64_t round = 0; (round = next_round(a, round, &canceled));) {
    if (a->victim >= 0) {
      get_set(a->cancel_yields, a->cancel_at);
      CHECK_EQ(coir_cancel(a->operators[a->victim].fiber), 0);
    }
    atomic_fetch_add(&a->done, 1);
  }
  CHECK(!canceled);
  return 0;
}

/* Times within a few microseconds of each other, or a few yields. */
static void plan(struct arena *a, int64_t *close_at, int *close_yields) {
  uint64_t *rng = &a->rng;
  static const size_t words[] = {1, 1, 1, 3, WORDS_MAX};
  a->words = words[rng_next(rng) % 5];
  a->chan = coir_chan_create(a->words * sizeof(uint64_t), rng_next(rng) % 8 == 0);
  CHECK(a->chan);
  bool by_clock = workers > 1 && rng_next(rng) % 2;
  int64_t base = coir_now(), lead = base + 600, spread = rng_next(rng) % 4 ? 400 : 3000;
  static const enum call calls[] = {CALL_SEND, CALL_RECV, CALL_SELECT_SEND, CALL_SELECT_RECV, CALL_SELECT_BOTH};
  for (int i = 0; i < OPERATORS; i++) {
    struct party *o = &a->operators[i];
    uint64_t x = rng_next(rng);
    /* Two that match, as a rule, and others in half of the rounds. */
    o->call = i < 2 && x % 4 ? (enum call)(x / 4 % 2 * 2 + (uint64_t)i) : calls[x / 8 % 5];
    if (i >= 2 && x / 64 % 2) o->call = CALL_NONE;
    o->in_place = x / 128 % 2;
    o->yields = (int)(x / 256 % 4);
    o->begin = by_clock ? lead + (int64_t)(x / 1024 % (uint64_t)spread) : 0;
    uint64_t y = rng_next(rng);
    o->deadline = COIR_NEVER;
    if (y % 3 == 0) o->deadline = lead + (int64_t)(y / 4 % (uint64_t)(2 * spread));
    if (y % 16 == 1) o->deadline = 0;
    o->owes = o->asked && !o->early && o->rc != -ECANCELED;
    o->asked = false;
  }
  uint64_t z = rng_next(rng);
  a->victim = z % 2 ? (int)(z / 2 % OPERATORS) : -1;
  if (a->victim >= 0) {
    const struct party *v = &a->operators[a->victim]; /* no second cancellation: it might count as the first */
    if (!v->fiber || v->owes || v->call == CALL_NONE) a->victim = -1;
  }
  if (a->victim >= 0) a->operators[a->victim].asked = true;
  a->cancel_yields = (int)(z / 8 % 4);
  a->cancel_at = by_clock ? lead + (int64_t)(z / 32 % (uint64_t)spread) : 0;
  *close_yields = (int)(z / 1048576 % (z % 3 ? 16 : 4));
  *close_at = by_clock ? lead + (int64_t)(z / 65536 % (uint64_t)(2 * spread)) : 0;
}

/* Values that were received or are buffered are those that were sent; each once. */
static void judge(struct arena *a) {
  uint64_t sent = 0, received = 0, first = atomic_load(&a->round) * OPERATORS, buffer[WORDS_MAX];
  for (int i = 0; i < OPERATORS; i++) {
    struct party *o = &a->operators[i];
    if (o->call == CALL_NONE) continue;
    o->outcomes[o->rc == 0 ? 0 : o->rc == -EPIPE ? 1 : o->rc == -ETIMEDOUT ? 2 : 3]++;
    if (o->asked && !o->early && o->rc != -ECANCELED) o->outcomes[4]++;
    if (o->sent) sent |= UINT64_C(1) << i;
    if (!o->received) continue;
    CHECK(o->got >= first && o->got < first + OPERATORS);
    CHECK(o->got != first + (uint64_t)i); /* no select meets itself */
    CHECK(!(received & UINT64_C(1) << (o->got - first)));
    received |= UINT64_C(1) << (o->got - first);
  }
  int rc;
  while ((rc = coir_chan_recv(a->chan, buffer, 0)) == 0) {
    CHECK(coir_chan_capacity(a->chan) == 1);
    CHECK(buffer[0] >= first && buffer[0] < first + OPERATORS);
    CHECK(!(received & UINT64_C(1) << (buffer[0] - first)));
    received |= UINT64_C(1) << (buffer[0] - first);
  }
  CHECK_EQ(rc, -EPIPE);
  CHECK_EQ(sent, received);
}

static int coordinator_fiber(void *arg) {
  struct arena *a = arg;
  for (uint64_t n = 0;; n++) {
    bool enough = atomic_fetch_add(&rounds_played, 1) >= ROUNDS_MAX || coir_now() > until;
    if (n >= ROUNDS_MIN && enough) break;
    int64_t close_at;
    int close_yields;
    plan(a, &close_at, &close_yields);
    atomic_store(&a->closing, 0);
    atomic_store(&a->done, 0);
    atomic_fetch_add(&a->round, 1);
    bool late = rng_next(&a->rng) % 2 == 0;
    if (late) {
      for (int i = 0; i < 20 && atomic_load(&a->done) <= OPERATORS; i++) coir_yield();
    } else {
      get_set(close_yields, close_at);
    }
    atomic_store(&a->closing, 1);
    coir_chan_close(a->chan);
    for (int i = 0; atomic_load(&a->done) <= OPERATORS; i++) {
      if (i < SPINS_MAX) coir_yield();
      else coir_sleep(COIR_US(20));
    }
    judge(a);
    coir_chan_unref(a->chan);
  }
  return 0;
}

/* ---- The whole ------------------------------------------------------------------------------------------------- */

static void report(int n) {
  static const char *const names[] = {"done", "closed", "deadline", "cancelled", "cancelled too late"};
  uint64_t sums[5] = {0};
  for (int i = 0; i < n; i++)
    for (int j = 0; j < OPERATORS; j++)
      for (int k = 0; k < 5; k++) sums[k] += arenas[i].operators[j].outcomes[k];
  fprintf(stderr, "%llu rounds:", (unsigned long long)atomic_load(&rounds_played));
  for (int k = 0; k < 5; k++) fprintf(stderr, " %s %llu", names[k], (unsigned long long)sums[k]);
  fprintf(stderr, "\n");
  for (int k = 0; k < 5; k++) CHECK(sums[k] > 0 || atomic_load(&rounds_played) < 5000); /* all of them are tried */
}

static int everything(void *arg) {
  (void)arg;
  struct coir_stats stats;
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  workers = stats.workers;
  int n = workers > 1 ? 8 : 4; /* so that no worker is idle while one of them is behind */
  struct coir_fiber *coordinators[ARENAS_MAX];
  pthread_t threads[ARENAS_MAX];
  uint64_t rng = rng_seed(seed);
  for (int i = 0; i < n; i++) {
    struct arena *a = &arenas[i];
    a->rng = rng_seed(rng_next(&rng));
    a->idle = coir_chan_create(WORDS_MAX * sizeof(uint64_t), 0);
    for (int j = 0; j < OPERATORS; j++) {
      struct party *o = &a->operators[j];
      o->arena = a, o->index = j, o->is_new = true;
      memset(o->buffer, 0xa5, sizeof o->buffer);
      if (i == 1 && j == 1) CHECK_EQ(pthread_create(&threads[i], NULL, operator_thread, o), 0);
      else o->fiber = spawn(operator_fiber, o);
    }
    a->canceller = spawn(canceller_fiber, a);
    coordinators[i] = spawn(coordinator_fiber, a);
  }
  for (int i = 0; i < n; i++) join(coordinators[i]);
  atomic_store(&over, 1);
  for (int i = 0; i < n; i++) {
    for (int j = 0; j < OPERATORS; j++)
      if (arenas[i].operators[j].fiber) join(arenas[i].operators[j].fiber);
    join(arenas[i].canceller);
    if (i == 1) pthread_join(threads[i], NULL);
    coir_chan_unref(arenas[i].idle);
  }
  report(n);
  return 0;
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  int64_t ns = (int64_t)((argc > 2 ? strtod(argv[2], NULL) : 4) * 1e9);
  fprintf(stderr, "stress_chan_race %llu %g\n", (unsigned long long)seed, (double)ns / 1e9);
  until = coir_after(ns);
  return run(everything, NULL);
}
