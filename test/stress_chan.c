/* Random mixes of all that channels and select offer, with every value accounted for exactly once.
 *
 * usage: stress_chan [seed] [seconds]
 *
 * Fibers and plain threads send, receive and select at random on a few channels, with all kinds of deadlines, while
 * random fibers are cancelled and random channels closed and replaced. Each value carries a number that no other has.
 * At the end each was either received once, and its sender was told so; or its sender got an error, and nobody has it.
 * Whoever receives two values of one sender from one channel receives them in the order in which they were sent. */
#include "harness.h"

#include <sched.h>

#include "coir_io.h"

#define FIBERS 24
#define THREADS 3
#define ACTORS (FIBERS + THREADS)
#define SLOTS 6
#define ARMS 8
#define VALUES_MAX (IS_SANITIZED ? 1 << 15 : 1 << 19) /* of one actor */
#define OPS_MIN 200                                   /* that each actor does, however slow the machine */

/* What became of a value. */
#define SENT 1
#define RECEIVED 2
#define KEPT 4

/* ---- Values ---------------------------------------------------------------------------------------------------- */

/* The first words of a value; the rest, up to the size of the channel's values, is a pattern. */
struct value {
  uint64_t actor, number;
  uint64_t life; /* of the slot's channel */
  uint64_t pattern[29];
};

static const size_t slot_bytes[SLOTS] = {24, 32, 24, 256, 64, 24};

struct actor {
  int index;
  uint64_t rng, used; /* numbers of values */
  _Atomic(uint8_t) *fates;
  uint64_t sent, received, kept, timeouts, cancelled, closed, selects;
  struct value out[ARMS]; /* being sent */
  struct {
    uint64_t life, number;
  } last[ACTORS][SLOTS]; /* what came last from whom, and when */
};

static struct actor *actors;
static struct coir_fiber *fibers[FIBERS];
static _Atomic(uint64_t) cancels_asked[FIBERS];
static _Atomic(int) begun, over, finished;
static uint64_t seed;
static int64_t until;
static int never_readable[2];
static struct coir_event never_set;

static void value_make(struct actor *a, struct value *v, size_t bytes, uint64_t life) {
  *v = (struct value){.actor = (uint64_t)a->index, .number = a->used++, .life = life};
  for (size_t i = 0; i < bytes / 8 - 3; i++) v->pattern[i] = v->number * 31 + v->actor + i;
}

static void fate(struct actor *sender, uint64_t number, uint8_t bit, uint8_t forbidden) {
  uint8_t old = atomic_fetch_or(&sender->fates[number], bit);
  if (!(old & (bit | forbidden))) return;
  fprintf(stderr, "stress_chan %llu: value %llu of actor %d was %d, is now %d too\n", (unsigned long long)seed,
          (unsigned long long)number, sender->index, old, bit);
  abort();
}

static void value_sent(struct actor *a, const struct value *v) { fate(a, v->number, SENT, KEPT), a->sent++; }

static void value_kept(struct actor *a, const struct value *v) { fate(a, v->number, KEPT, SENT | RECEIVED), a->kept++; }

static void value_received(struct actor *a, const struct value *v, int slot) {
  CHECK(v->actor < ACTORS && v->number < VALUES_MAX);
  for (size_t i = 0; i < slot_bytes[slot] / 8 - 3; i++) CHECK(v->pattern[i] == v->number * 31 + v->actor + i);
  fate(&actors[v->actor], v->number, RECEIVED, KEPT);
  a->received++;
  uint64_t life = a->last[v->actor][slot].life, number = a->last[v->actor][slot].number;
  CHECK(life <= v->life);
  CHECK(life != v->life || number <= v->number);
  a->last[v->actor][slot].life = v->life;
  a->last[v->actor][slot].number = v->number + 1;
}

/* ---- Slots: where the channels are, one after another ---------------------------------------------------------- */

static struct slot {
  _Atomic(int) lock;
  struct coir_chan *chan;
  uint64_t life;
} slots[SLOTS];

static void slot_lock(struct slot *s) {
  while (atomic_exchange(&s->lock, 1)) sched_yield(); /* held for a few instructions */
}

static void slot_unlock(struct slot *s) { atomic_store(&s->lock, 0); }

/* The slot's channel, with a reference for the caller. */
static struct coir_chan *slot_get(int i, uint64_t *life) {
  slot_lock(&slots[i]);
  struct coir_chan *c = coir_chan_ref(slots[i].chan);
  *life = slots[i].life;
  slot_unlock(&slots[i]);
  return c;
}

static struct coir_chan *chan_make(int slot, uint64_t *rng) {
  static const size_t capacities[] = {0, 0, 0, 1, 2, 7, 64};
  struct coir_chan *c = coir_chan_create(slot_bytes[slot], capacities[rng_next(rng) % 7]);
  CHECK(c);
  return c;
}

/* Closes the slot's channel, mostly puts a new one in its place, and takes out what it buffers. */
static void slot_close(struct actor *a, int i) {
  uint64_t life;
  struct coir_chan *c = slot_get(i, &life);
  coir_chan_close(c);
  CHECK(coir_chan_is_closed(c));
  bool mine = false;
  slot_lock(&slots[i]);
  if (!atomic_load(&over) && slots[i].chan == c && rng_next(&a->rng) % 8) {
    slots[i].chan = chan_make(i, &a->rng);
    slots[i].life++;
    mine = true;
  }
  slot_unlock(&slots[i]);
  struct value v;
  while (mine || rng_next(&a->rng) % 2) {
    int rc = coir_chan_recv(c, &v, COIR_NEVER);
    if (rc == -ECANCELED) {
      a->cancelled++;
      continue;
    }
    if (rc == -EPIPE) break;
    CHECK_EQ(rc, 0);
    value_received(a, &v, i);
  }
  if (mine) CHECK_EQ(coir_chan_length(c), 0);
  coir_chan_unref(c);
  if (mine) coir_chan_unref(c); /* the slot's own */
}

/* ---- What an actor does ---------------------------------------------------------------------------------------- */

static int64_t random_deadline(struct actor *a) {
  uint64_t x = rng_next(&a->rng);
  if (x % 4 == 0) return 0;
  if (x % 16 == 1) return COIR_NEVER;
  return coir_now() + (int64_t)(x / 16 % 50000);
}

static bool is_fiber(const struct actor *a) { return a->index < FIBERS; }

static void count_error(struct actor *a, int rc, int64_t deadline, bool is_closed) {
  if (rc == -ETIMEDOUT) {
    CHECK(deadline != COIR_NEVER && coir_now() >= deadline);
    a->timeouts++;
  } else if (rc == -EPIPE) {
    CHECK(is_closed);
    a->closed++;
  } else {
    CHECK_EQ(rc, -ECANCELED);
    CHECK(is_fiber(a));
    a->cancelled++;
  }
}

/* Overwrites the frames of the calls that have just returned. */
static void __attribute__((noinline)) poison(void) {
  volatile char frame[1024];
  for (size_t i = 0; i < sizeof frame; i++) frame[i] = (char)0xa5;
  CHECK_EQ((unsigned char)frame[sizeof frame / 2], 0xa5);
}

static void do_send(struct actor *a) {
  int i = (int)(rng_next(&a->rng) % SLOTS);
  if (a->used + ARMS > VALUES_MAX) return;
  uint64_t life;
  struct coir_chan *c = slot_get(i, &life);
  struct value *v = &a->out[0];
  value_make(a, v, slot_bytes[i], life);
  int64_t deadline = random_deadline(a);
  int rc = coir_chan_send(c, v, deadline);
  poison();
  if (rc == 0) value_sent(a, v);
  else value_kept(a, v), count_error(a, rc, deadline, coir_chan_is_closed(c));
  memset(v, 0xee, sizeof *v);
  coir_chan_unref(c);
}

static void do_recv(struct actor *a) {
  int i = (int)(rng_next(&a->rng) % SLOTS);
  uint64_t life;
  struct coir_chan *c = slot_get(i, &life);
  struct value v;
  memset(&v, 0xee, sizeof v);
  int64_t deadline = random_deadline(a);
  int rc = coir_chan_recv(c, &v, deadline);
  poison();
  if (rc == 0) {
    CHECK_EQ(v.life, life);
    value_received(a, &v, i);
  } else {
    CHECK(v.actor == UINT64_C(0xeeeeeeeeeeeeeeee) && v.number == v.actor);
    count_error(a, rc, deadline, coir_chan_is_closed(c));
  }
  coir_chan_unref(c);
}

/* One or both directions of a few channels, some more than once, and arms that only get in the way. */
struct menu {
  struct coir_arm arms[ARMS];
  struct coir_chan *held[ARMS];
  struct value in[ARMS];
  int slots[ARMS], n;
};

static void menu_fill(struct actor *a, struct menu *m) {
  m->n = 1 + (int)(rng_next(&a->rng) % ARMS);
  for (int i = 0; i < m->n; i++) {
    uint64_t x = rng_next(&a->rng), life;
    m->held[i] = NULL;
    m->slots[i] = (int)(x / 64 % SLOTS);
    if (x % 64 < 24) {
      m->held[i] = slot_get(m->slots[i], &life);
      value_make(a, &a->out[i], slot_bytes[m->slots[i]], life);
      m->arms[i] = coir_arm_send(m->held[i], &a->out[i]);
    } else if (x % 64 < 54) {
      m->held[i] = slot_get(m->slots[i], &life);
      memset(&m->in[i], 0xee, sizeof m->in[i]);
      m->arms[i] = coir_arm_recv(m->held[i], &m->in[i]);
    } else if (x % 64 < 57) {
      m->arms[i] = coir_arm_deadline(random_deadline(a));
    } else if (x % 64 < 59) {
      m->arms[i] = coir_arm_event(&never_set);
    } else if (x % 64 < 60) {
      m->arms[i] = coir_arm_fd(never_readable[0], COIR_READABLE);
    } else {
      m->arms[i] = coir_arm_recv(NULL, &m->in[i]);
    }
  }
}

static void menu_settle(struct actor *a, struct menu *m, int chosen, int64_t deadline) {
  if (chosen < 0) count_error(a, chosen, deadline, false);
  else if (m->arms[chosen].kind == COIR_ARM_DEADLINE) CHECK(coir_now() >= m->arms[chosen].deadline);
  else CHECK(m->held[chosen]);
  for (int i = 0; i < m->n; i++) {
    struct coir_arm *arm = &m->arms[i];
    bool done = i == chosen && arm->result == 0;
    if (i == chosen && arm->result) {
      CHECK_EQ(arm->result, -EPIPE);
      count_error(a, -EPIPE, deadline, coir_chan_is_closed(m->held[i]));
    }
    if (m->held[i] && arm->kind == COIR_ARM_SEND) {
      if (done) value_sent(a, &a->out[i]);
      else value_kept(a, &a->out[i]);
      memset(&a->out[i], 0xee, sizeof a->out[i]);
    } else if (m->held[i] && done) {
      value_received(a, &m->in[i], m->slots[i]);
    } else if (m->held[i]) {
      CHECK(m->in[i].actor == UINT64_C(0xeeeeeeeeeeeeeeee));
    }
    coir_chan_unref(m->held[i]);
  }
}

static void do_select(struct actor *a) {
  if (a->used + ARMS > VALUES_MAX) return;
  struct menu m;
  menu_fill(a, &m);
  int64_t deadline = random_deadline(a);
  bool ends = false;
  for (int i = 0; i < m.n; i++) ends |= m.held[i] != NULL;
  if (!ends && deadline == COIR_NEVER) deadline = coir_after(COIR_US(10)); /* else nobody would free it at the end */
  int chosen = coir_select(m.arms, (size_t)m.n, deadline);
  poison();
  a->selects++;
  CHECK(chosen < m.n);
  menu_settle(a, &m, chosen, deadline);
  memset(&m, 0xee, sizeof m);
}

/* A run of calls that need not wait, so that a channel is used by one worker alone for a while. */
static void do_burst(struct actor *a) {
  int i = (int)(rng_next(&a->rng) % SLOTS);
  uint64_t life;
  struct coir_chan *c = slot_get(i, &life);
  size_t capacity = coir_chan_capacity(c);
  for (int n = (int)(rng_next(&a->rng) % 60); n > 0 && a->used < VALUES_MAX; n--) {
    struct value v;
    if (rng_next(&a->rng) % 2) {
      value_make(a, &v, slot_bytes[i], life);
      int rc = coir_chan_send(c, &v, 0);
      if (rc == 0) value_sent(a, &v);
      else value_kept(a, &v), count_error(a, rc, 0, coir_chan_is_closed(c));
    } else {
      int rc = coir_chan_recv(c, &v, 0);
      if (rc == 0) value_received(a, &v, i);
      else count_error(a, rc, 0, coir_chan_is_closed(c));
    }
    CHECK(coir_chan_length(c) <= capacity);
  }
  coir_chan_unref(c);
}

static void do_cancel(struct actor *a) {
  uint64_t i = rng_next(&a->rng) % FIBERS;
  atomic_fetch_add(&cancels_asked[i], 1);
  int rc = coir_cancel(fibers[i]);
  CHECK(rc == 0 || rc == -ESRCH);
}

static void actor_runs(struct actor *a) {
  while (!atomic_load(&begun)) coir_sleep(COIR_US(50)); /* until every fiber can be cancelled */
  for (int i = 0; i < OPS_MIN || !atomic_load(&over); i++) {
    uint64_t x = rng_next(&a->rng) % 256;
    if (x < 80) do_send(a);
    else if (x < 160) do_recv(a);
    else if (x < 226) do_select(a);
    else if (x < 234) do_burst(a);
    else if (x < 248) do_cancel(a);
    else if (x < 250) slot_close(a, (int)(rng_next(&a->rng) % SLOTS));
    else coir_yield();
  }
  atomic_fetch_add(&finished, 1);
}

static int actor_fiber(void *a) { return actor_runs(a), 0; }
static void *actor_thread(void *a) { return actor_runs(a), NULL; }

/* ---- The whole ------------------------------------------------------------------------------------------------- */

static void settle(void) {
  struct actor total = {0};
  uint64_t used = 0;
  for (int i = 0; i < ACTORS; i++) {
    struct actor *a = &actors[i];
    for (uint64_t n = 0; n < a->used; n++) {
      uint8_t f = atomic_load(&a->fates[n]);
      if (f == (SENT | RECEIVED) || f == KEPT) continue;
      fprintf(stderr, "stress_chan %llu: value %llu of actor %d ends as %d\n", (unsigned long long)seed,
              (unsigned long long)n, i, f);
      abort();
    }
    if (i < FIBERS) CHECK(a->cancelled <= atomic_load(&cancels_asked[i]));
    used += a->used;
    total.sent += a->sent, total.received += a->received, total.kept += a->kept, total.timeouts += a->timeouts;
    total.cancelled += a->cancelled, total.closed += a->closed, total.selects += a->selects;
  }
  fprintf(stderr, "%llu values sent, %llu kept; %llu selects, %llu deadlines, %llu cancelled, %llu closed\n",
          (unsigned long long)total.sent, (unsigned long long)total.kept, (unsigned long long)total.selects,
          (unsigned long long)total.timeouts, (unsigned long long)total.cancelled, (unsigned long long)total.closed);
  CHECK_EQ(total.sent + total.kept, used);
  CHECK(total.received <= total.sent);
  CHECK(total.sent && total.kept && total.selects && total.timeouts && total.cancelled && total.closed);
}

/* Nobody replaces a channel any more, so closing them all frees everybody who waits. */
static void drain(void) {
  struct actor *last = calloc(1, sizeof *last);
  CHECK(last);
  for (int i = 0; i < SLOTS; i++) {
    struct value v;
    int rc;
    while ((rc = coir_chan_recv(slots[i].chan, &v, 0)) == 0) value_received(last, &v, i);
    CHECK_EQ(rc, -EPIPE);
    coir_chan_unref(slots[i].chan);
  }
  free(last);
}

static int everything(void *arg) {
  (void)arg;
  pthread_t threads[THREADS];
  for (int i = 0; i < FIBERS; i++) fibers[i] = spawn(actor_fiber, &actors[i]);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, actor_thread, &actors[FIBERS + i]), 0);
  atomic_store(&begun, 1);
  coir_sleep_until(until);
  for (int i = 0; i < SLOTS; i++) slot_lock(&slots[i]);
  atomic_store(&over, 1);
  for (int i = 0; i < SLOTS; i++) slot_unlock(&slots[i]);
  for (int i = 0; i < SLOTS; i++) coir_chan_close(slots[i].chan);
  WAIT_FOR(atomic_load(&finished) == ACTORS); /* nobody cancels any more, so the handles may go */
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < FIBERS; i++) join(fibers[i]);
  return 0;
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  int64_t ns = (int64_t)((argc > 2 ? strtod(argv[2], NULL) : 3) * 1e9);
  fprintf(stderr, "stress_chan %llu %g\n", (unsigned long long)seed, (double)ns / 1e9);
  CHECK_EQ(pipe(never_readable), 0);
  actors = calloc(ACTORS, sizeof *actors);
  CHECK(actors);
  uint64_t rng = rng_seed(seed);
  for (int i = 0; i < SLOTS; i++) slots[i].chan = chan_make(i, &rng), slots[i].life = 1;
  for (int i = 0; i < ACTORS; i++) {
    actors[i].index = i;
    actors[i].rng = rng_seed(rng_next(&rng));
    actors[i].fates = calloc(VALUES_MAX, 1);
    CHECK(actors[i].fates);
  }
  until = coir_after(ns);
  CHECK_EQ(run(everything, NULL), 0);
  drain();
  settle();
  for (int i = 0; i < ACTORS; i++) free(actors[i].fates);
  free(actors);
  coir_close(never_readable[0]), coir_close(never_readable[1]);
  return 0;
}
