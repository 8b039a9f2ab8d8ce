/* Windows that are open for a few nanoseconds as a rule, held open or met very often.
 *
 * usage: stress_chan_windows [seed] [seconds]
 *
 *   - Two parties that only have each other meet again and again, by plain calls and by selects, each just when the
 *     other one comes: if one of them misses the other, both wait for ever.
 *   - A select of very many arms is long on its way between its look at the last one and its wait. In this time that
 *     one becomes ready, or the fiber is cancelled, or both.
 *   - A worker that has a channel to itself takes no lock for it, until somebody else comes, who must not come in
 *     while it is inside. */
#include "harness.h"

#include <sched.h>

#include "coir_io.h"

#define PATIENCE COIR_SEC(20) /* a wait that takes so long has been forgotten */

static uint64_t seed;
static int64_t phase_ns;

static struct coir_chan *make(size_t capacity) {
  struct coir_chan *c = coir_chan_create(sizeof(uint64_t), capacity);
  CHECK(c);
  return c;
}

static void spin_for(int64_t ns) {
  for (int64_t end = coir_now() + ns; coir_now() < end;) {}
}

/* ---- Meetings -------------------------------------------------------------------------------------------------- */

struct meeting {
  struct coir_chan *there, *back, *idle[3];
  uint64_t plan; /* which both sides draw from */
  _Atomic(int) over;
  uint64_t rounds;
};

struct side {
  struct meeting *m;
  bool is_second;
  uint64_t plan, own;
};

/* One exchange: sends `number` on `to`, or receives from `from`, or whichever comes first. Returns whether it sent. */
static bool meet(struct side *s, struct coir_chan *to, struct coir_chan *from, uint64_t number) {
  uint64_t x = rng_next(&s->own), in = number, out = 0;
  int64_t deadline = coir_after(PATIENCE);
  if (x % 4 == 0) spin_for((int64_t)(x / 64 % 512));
  if (!(to && from) && x / 4 % 2) {
    CHECK_EQ(to ? coir_chan_send(to, &in, deadline) : coir_chan_recv(from, &out, deadline), 0);
    if (from) CHECK_EQ(out, number);
    return to;
  }
  struct coir_arm arms[6];
  size_t n = 0, idle = x / 8 % 4;
  for (size_t i = 0; i < idle; i++) arms[n++] = coir_arm_recv(s->m->idle[i], &out);
  if (x / 32 % 2) arms[n++] = coir_arm_send(to, &in);
  arms[n++] = coir_arm_recv(from, &out);
  if (!(x / 32 % 2)) arms[n++] = coir_arm_send(to, &in);
  int chosen = coir_select(arms, n, deadline);
  CHECK(chosen >= (int)idle);
  CHECK_EQ(arms[chosen].result, 0);
  if (arms[chosen].kind == COIR_ARM_SEND) return true;
  CHECK_EQ(out, number);
  return false;
}

static int meets(void *arg) {
  struct side *s = arg;
  struct meeting *m = s->m;
  int64_t until = coir_after(phase_ns);
  for (uint64_t number = 1;; number++) {
    uint64_t how = rng_next(&s->plan) % 3;
    /* The first side says when it is enough, in a round that both know to be such. */
    if (number % 64 == 0) {
      uint64_t last = coir_now() > until;
      CHECK_EQ(s->is_second ? coir_chan_recv(m->there, &last, COIR_NEVER) : coir_chan_send(m->there, &last, COIR_NEVER),
               0);
      if (last) break;
      continue;
    }
    struct coir_chan *there = how != 1 ? m->there : NULL, *back = how != 0 ? m->back : NULL;
    meet(s, s->is_second ? back : there, s->is_second ? there : back, number);
    if (!s->is_second) m->rounds++;
  }
  return 0;
}

static void *meets_on_thread(void *s) { return meets(s), NULL; }

static int meetings(void *with_thread) {
  struct coir_stats stats;
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  struct meeting m = {.there = make(0), .back = make(0)};
  for (int i = 0; i < 3; i++) m.idle[i] = make(0);
  struct side sides[2] = {{&m, false, rng_seed(seed), rng_seed(seed + 1)},
                          {&m, true, rng_seed(seed), rng_seed(seed + 2)}};
  pthread_t thread;
  struct coir_fiber *f[2];
  for (int i = 0; i < 2; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % stats.workers), .pinned = true};
    if (i && with_thread) CHECK_EQ(pthread_create(&thread, NULL, meets_on_thread, &sides[1]), 0);
    else f[i] = spawn_with(attr, meets, &sides[i]);
  }
  join(f[0]);
  if (with_thread) pthread_join(thread, NULL);
  else join(f[1]);
  fprintf(stderr, "%llu meetings\n", (unsigned long long)m.rounds);
  coir_chan_unref(m.there), coir_chan_unref(m.back);
  for (int i = 0; i < 3; i++) coir_chan_unref(m.idle[i]);
  return 0;
}

/* ---- Wide selects ---------------------------------------------------------------------------------------------- */

#define WIDE 2000

/* What the last arm is, and how the other side makes it ready. */
enum last { LAST_BUFFER, LAST_RENDEZVOUS, LAST_EVENT, LAST_GROUP, LAST_FD, LASTS };

struct wide {
  struct coir_fiber *fiber;
  struct coir_chan *buffer, *rendezvous;
  struct coir_event event;
  struct coir_wait_group group;
  int fds[2];
  enum last last;
  bool cancels, cancels_first;
  int64_t delay; /* from the beginning of the select until the other side acts */
  _Atomic(uint64_t) round, acted;
  _Atomic(int) over;
};

static void make_ready(struct wide *w, uint64_t round) {
  switch (w->last) {
  case LAST_BUFFER: CHECK_EQ(coir_chan_send(w->buffer, &round, 0), 0); return;
  case LAST_RENDEZVOUS: CHECK_EQ(coir_chan_send(w->rendezvous, &round, coir_after(PATIENCE)), 0); return;
  case LAST_EVENT: coir_event_set(&w->event); return;
  case LAST_GROUP: coir_wait_group_done(&w->group); return;
  default: CHECK_EQ(write(w->fds[1], "x", 1), 1);
  }
}

/* The other side, a plain thread, so that it is about its work while one worker alone is about the select. */
static void *acts(void *arg) {
  struct wide *w = arg;
  for (uint64_t round = 1;; round++) {
    while (atomic_load(&w->round) < round) {
      if (atomic_load(&w->over)) return NULL;
      sched_yield();
    }
    spin_for(w->delay);
    if (w->cancels && w->cancels_first) CHECK_EQ(coir_cancel(w->fiber), 0);
    /* A rendezvous with somebody who has been cancelled comes later, when that one asks for it. */
    make_ready(w, round);
    if (w->cancels && !w->cancels_first) CHECK_EQ(coir_cancel(w->fiber), 0);
    atomic_store(&w->acted, round);
  }
}

/* Waits for the other side with its whole thread, so that it takes no notice of a cancellation yet. */
static void wait_until_acted(struct wide *w, uint64_t round) {
  for (int i = 0; atomic_load(&w->acted) < round; i++) {
    if (i < 100) sched_yield();
    else usleep(20);
  }
}

/* Takes what has been made ready, if the select has not. */
static void take_rest(struct wide *w, uint64_t round, bool selected, uint64_t got) {
  struct coir_chan *c = w->last == LAST_BUFFER ? w->buffer : w->last == LAST_RENDEZVOUS ? w->rendezvous : NULL;
  if (c && !selected) {
    int rc = coir_chan_recv(c, &got, coir_after(PATIENCE));
    CHECK_EQ(rc, 0); /* and is not cancelled again */
  }
  if (c) CHECK_EQ(got, round);
  wait_until_acted(w, round);
  if (w->last == LAST_EVENT) coir_event_reset(&w->event);
  if (w->last == LAST_GROUP) CHECK_EQ(coir_wait_group_count(&w->group), 0);
  char x;
  if (w->last == LAST_FD) CHECK_EQ(coir_read(w->fds[0], &x, 1, 0), 1);
}

static struct coir_arm last_arm(struct wide *w, uint64_t *got) {
  switch (w->last) {
  case LAST_BUFFER: return coir_arm_recv(w->buffer, got);
  case LAST_RENDEZVOUS: return coir_arm_recv(w->rendezvous, got);
  case LAST_EVENT: return coir_arm_event(&w->event);
  case LAST_GROUP: return coir_arm_wait_group(&w->group);
  default: return coir_arm_fd(w->fds[0], COIR_READABLE);
  }
}

static void wide_round(struct wide *w, struct coir_arm *arms, uint64_t round, uint64_t *rng, int64_t width) {
  uint64_t x = rng_next(rng), got = 0;
  w->last = (enum last)(x % LASTS);
  w->cancels = x / 8 % 2, w->cancels_first = x / 16 % 2;
  w->delay = (int64_t)(x / 64 % (uint64_t)(10 * width));
  if (w->last == LAST_GROUP) coir_wait_group_add(&w->group, 1);
  size_t at = x / 32 % 2 ? WIDE : (size_t)(rng_next(rng) % (WIDE + 1)); /* mostly at the end */
  struct coir_arm kept = arms[at];
  arms[at] = last_arm(w, &got);
  atomic_store(&w->round, round);
  int rc = coir_select(arms, WIDE + 1, coir_after(PATIENCE));
  arms[at] = kept;
  if (rc == -ECANCELED) {
    CHECK(w->cancels);
    take_rest(w, round, false, got);
  } else {
    CHECK_EQ(rc, at);
    if (w->last == LAST_RENDEZVOUS || w->last == LAST_BUFFER) CHECK_EQ(got, round);
    wait_until_acted(w, round);
    if (w->cancels) CHECK_EQ(coir_sleep(PATIENCE), -ECANCELED); /* it has come too late for the select */
    take_rest(w, round, true, got);
  }
  CHECK_EQ(coir_sleep(0), 0);
}

static int wide_selects(void *arg) {
  (void)arg;
  static struct wide w;
  struct coir_chan *idle[8];
  struct coir_arm *arms = calloc(WIDE + 1, sizeof *arms);
  CHECK(arms);
  for (int i = 0; i < 8; i++) idle[i] = make(0);
  uint64_t value = 0, rng = rng_seed(seed), round = 0;
  for (size_t i = 0; i <= WIDE; i++)
    arms[i] = i / 8 % 2 ? coir_arm_recv(idle[i % 4], NULL) : coir_arm_send(idle[4 + i % 4], &value);
  w.fiber = coir_current();
  w.buffer = make(1), w.rendezvous = make(0);
  CHECK_EQ(pipe(w.fds), 0);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, acts, &w), 0);
  int64_t width = COIR_SEC(1);
  for (int i = 0; i < 10; i++) { /* how long it takes to look and to link */
    int64_t from = coir_now();
    CHECK_EQ(coir_select(arms, WIDE, from + 1), -ETIMEDOUT);
    if (coir_now() - from < width) width = coir_now() - from;
  }
  for (int64_t until = coir_after(phase_ns); round < 50 || coir_now() < until;)
    wide_round(&w, arms, ++round, &rng, width + 1000);
  for (int i = 0; i < 4; i++) { /* no trace is left */
    CHECK_EQ(coir_chan_send(idle[i], &value, 0), -ETIMEDOUT);
    CHECK_EQ(coir_chan_recv(idle[4 + i], &value, 0), -ETIMEDOUT);
  }
  atomic_store(&w.over, 1);
  pthread_join(thread, NULL);
  fprintf(stderr, "%llu wide selects\n", (unsigned long long)round);
  for (int i = 0; i < 8; i++) coir_chan_unref(idle[i]);
  coir_chan_unref(w.buffer), coir_chan_unref(w.rendezvous);
  coir_close(w.fds[0]), coir_close(w.fds[1]);
  free(arms);
  return 0;
}

/* ---- A channel that one worker has to itself ------------------------------------------------------------------- */

#define ROOM 8

struct lone {
  struct coir_chan *chan;
  _Atomic(int) over;
  _Atomic(uint64_t) visits;
  uint64_t sent[2], received[2], last[2][2]; /* of the owner, and of who visits; the last that one got from another */
};

/* Sends or receives once, if that is possible. Each one's values come in order, and none comes twice. */
static void lone_step(struct lone *l, uint64_t who, bool sends) {
  if (sends) {
    uint64_t value = l->sent[who] * 2 + who + 2;
    int rc = coir_chan_send(l->chan, &value, 0);
    if (rc == 0) l->sent[who]++;
    else CHECK_EQ(rc, -ETIMEDOUT);
    return;
  }
  uint64_t value = 0;
  int rc = coir_chan_recv(l->chan, &value, 0);
  if (rc) {
    CHECK_EQ(rc, -ETIMEDOUT);
    return;
  }
  CHECK(value > l->last[who][value % 2]);
  l->last[who][value % 2] = value;
  l->received[who]++;
}

static void *visits(void *arg) {
  struct lone *l = arg;
  uint64_t rng = rng_seed(seed + 3);
  while (!atomic_load(&l->over)) {
    uint64_t x = rng_next(&rng);
    spin_for((int64_t)(x / 64 % 60000));
    for (uint64_t i = 0; i < 1 + x % 4; i++) lone_step(l, 1, x >> (8 + i) & 1);
    atomic_fetch_add(&l->visits, 1);
  }
  return NULL;
}

static int lone_owner(void *arg) {
  struct lone *l = arg;
  uint64_t rng = rng_seed(seed + 4);
  int64_t until = coir_after(phase_ns);
  for (uint64_t i = 0; i % 1024 || coir_now() < until; i++) {
    uint64_t x = rng_next(&rng);
    for (int j = 0; j < 16; j++) lone_step(l, 0, x >> j & 1);
    CHECK(coir_chan_length(l->chan) <= ROOM);
  }
  return 0;
}

static int lone_channels(void *arg) {
  (void)arg;
  static struct lone l;
  l.chan = make(ROOM);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, visits, &l), 0);
  join(spawn_with((struct coir_attr){.pinned = true}, lone_owner, &l));
  atomic_store(&l.over, 1);
  pthread_join(thread, NULL);
  CHECK_EQ(l.sent[0] + l.sent[1] - l.received[0] - l.received[1], coir_chan_length(l.chan));
  uint64_t value, last[2] = {0};
  while (coir_chan_recv(l.chan, &value, 0) == 0) {
    CHECK(value > last[value % 2] && value / 2 <= l.sent[value % 2]);
    last[value % 2] = value;
    l.received[0]++;
  }
  CHECK_EQ(l.sent[0] + l.sent[1], l.received[0] + l.received[1]);
  fprintf(stderr, "%llu values, %llu visits\n", (unsigned long long)(l.sent[0] + l.sent[1]),
          (unsigned long long)atomic_load(&l.visits));
  coir_chan_unref(l.chan);
  return 0;
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  phase_ns = (int64_t)((argc > 2 ? strtod(argv[2], NULL) : 4) * 1e9) / 4;
  fprintf(stderr, "stress_chan_windows %llu %g\n", (unsigned long long)seed, (double)phase_ns * 4 / 1e9);
  run(meetings, NULL);
  run(meetings, &seed);
  run(wide_selects, NULL);
  run(lone_channels, NULL);
  return 0;
}
