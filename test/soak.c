/* soak [PLANT]: everything at once, for SOAK_SECONDS (default 60), on all workers.
 *
 * Round after round, each of a second at most, fibers of every kind below do what they do, until they are told that
 * the round is over. Each kind counts what it hands to others: each token, byte, permit, firing and result must have
 * come to its end exactly once when the round is over, and only then are memory, descriptors and threads looked at,
 * while nothing runs. After a warm-up of a quarter of the rounds none of these may grow.
 *
 * PLANT is a fault of the soak's own, to show that it finds some: `token` is lost once, `fd` is leaked once, a `page`
 * is leaked for each fiber that is joined. SOAK_SEED sets the seed, which is printed. */
#include "processes.h"

#include <fcntl.h>
#include <math.h>
#include <sys/socket.h>

#include "coir_io.h"
#include "coir_job.h"

#define RSS_SLACK ((int64_t)16 << 20) /* of a single round */
#define RSS_GROWTH ((int64_t)4 << 20) /* of the later half against the earlier */
#define THREADS_SLACK 16              /* spares, which go after a second without use */
#define ROUND_SECONDS 100             /* a round that takes so much longer than it should hangs */
#define LOST_SECONDS 30               /* a token that has not come by then is lost */

static enum plant { PLANT_NOTHING, PLANT_TOKEN, PLANT_FD, PLANT_PAGE } plant;
static _Atomic(bool) is_warm, is_planted, is_over;
static struct coir_job_system *jobs;

/* A fiber of the soak, for one round. Returns how many operations it has made. */
struct kind {
  const char *name;
  uint64_t (*run)(uint64_t *rng);
  int count; /* so many at a time */
};

static bool goes_on(void) { return !atomic_load_explicit(&is_over, memory_order_relaxed); }

/* Once in the whole soak, after the warm-up. */
static bool plants(enum plant what) { return plant == what && is_warm && !atomic_exchange(&is_planted, true); }

static int64_t soon(uint64_t *rng) { return coir_after((int64_t)(rng_next(rng) % 60000)); }

static void lose(const char *what, uint64_t is, uint64_t should_be) {
  if (is == should_be) return;
  fprintf(stderr, "soak: %s: %llu instead of %llu\n", what, (unsigned long long)is, (unsigned long long)should_be);
  _exit(1);
}

/* ---- Channels ---------------------------------------------------------------------------------------------------- */

#define NODES 8
#define TOKENS 3

/* Tokens go round until the round is over; then each is taken out where it is. */
struct ring {
  struct coir_chan *chans[NODES];
  struct coir_event is_done;
  _Atomic(uint64_t) hops, counted, taken, taken_sum;
};
struct node {
  struct ring *ring;
  int index;
};
struct token {
  uint64_t id, hops;
};

static int ring_node(void *arg) {
  const struct node *node = arg;
  struct ring *ring = node->ring;
  struct token token;
  uint64_t hops = 0;
  while (coir_chan_recv(ring->chans[node->index], &token, COIR_NEVER) == 0) {
    if (goes_on()) {
      token.hops++;
      hops++;
      CHECK_EQ(coir_chan_send(ring->chans[(node->index + 1) % NODES], &token, COIR_NEVER), 0);
      continue;
    }
    atomic_fetch_add(&ring->counted, token.hops);
    atomic_fetch_add(&ring->taken_sum, token.id);
    if (atomic_fetch_add(&ring->taken, 1) + 1 == TOKENS) coir_event_set(&ring->is_done);
  }
  atomic_fetch_add(&ring->hops, hops);
  return 0;
}

static uint64_t ring(uint64_t *rng) {
  struct ring ring = {.hops = 0};
  struct node nodes[NODES];
  struct coir_fiber *fibers[NODES];
  for (int i = 0; i < NODES; i++) CHECK(ring.chans[i] = coir_chan_create(sizeof(struct token), rng_next(rng) % 3));
  for (int i = 0; i < NODES; i++) {
    nodes[i] = (struct node){&ring, i};
    fibers[i] = spawn(ring_node, &nodes[i]);
  }
  for (uint64_t i = 0; i < TOKENS; i++) {
    struct token token = {.id = i + 1};
    CHECK_EQ(coir_chan_send(ring.chans[rng_next(rng) % NODES], &token, COIR_NEVER), 0);
  }
  while (goes_on()) (void)coir_sleep(COIR_MS(5));
  if (coir_event_wait(&ring.is_done, coir_after(COIR_SEC(LOST_SECONDS)))) lose("tokens of a ring", ring.taken, TOKENS);
  for (int i = 0; i < NODES; i++) coir_chan_close(ring.chans[i]);
  for (int i = 0; i < NODES; i++) CHECK_EQ(join(fibers[i]), 0);
  for (int i = 0; i < NODES; i++) coir_chan_unref(ring.chans[i]);
  lose("tokens of a ring", ring.taken, TOKENS);
  lose("names of tokens", ring.taken_sum, TOKENS * (TOKENS + 1) / 2);
  lose("hops of tokens", ring.counted, ring.hops);
  return ring.hops;
}

/* From many to many, through one channel; one of those who send is a plain thread. */
#define HANDS 4
struct fan {
  struct coir_chan *chan;
  _Atomic(uint64_t) seed, sent, sent_sum, received, received_sum;
};

static void fan_send(struct fan *fan, bool is_brief) {
  uint64_t rng = rng_seed(atomic_fetch_add(&fan->seed, 1)), n = 0, sum = 0;
  for (; goes_on(); n++) {
    uint64_t value = rng_next(&rng);
    CHECK_EQ(coir_chan_send(fan->chan, &value, COIR_NEVER), 0);
    sum += value;
    if (is_brief && n % 64 == 0) usleep(50);
  }
  atomic_fetch_add(&fan->sent, n);
  atomic_fetch_add(&fan->sent_sum, sum);
}
static int fan_sender(void *fan) { return fan_send(fan, false), 0; }
static void *fan_outsider(void *fan) { return fan_send(fan, true), NULL; }

static int fan_receiver(void *arg) {
  struct fan *fan = arg;
  uint64_t value, n = 0, sum = 0;
  while (coir_chan_recv(fan->chan, &value, COIR_NEVER) == 0) {
    if (plants(PLANT_TOKEN)) continue;
    n++;
    sum += value;
  }
  atomic_fetch_add(&fan->received, n);
  atomic_fetch_add(&fan->received_sum, sum);
  return 0;
}

static void join_thread(void *thread) { CHECK_EQ(pthread_join(*(pthread_t *)thread, NULL), 0); }

static uint64_t fan(uint64_t *rng) {
  struct fan fan = {.seed = rng_next(rng), .chan = coir_chan_create(sizeof(uint64_t), rng_next(rng) % 3 * 32)};
  struct coir_fiber *senders[HANDS], *receivers[HANDS];
  pthread_t thread;
  CHECK(fan.chan);
  CHECK_EQ(pthread_create(&thread, NULL, fan_outsider, &fan), 0);
  for (int i = 0; i < HANDS; i++) receivers[i] = spawn(fan_receiver, &fan);
  for (int i = 0; i < HANDS; i++) senders[i] = spawn(fan_sender, &fan);
  for (int i = 0; i < HANDS; i++) CHECK_EQ(join(senders[i]), 0);
  CHECK_EQ(coir_block(join_thread, &thread), 0);
  coir_chan_close(fan.chan);
  for (int i = 0; i < HANDS; i++) CHECK_EQ(join(receivers[i]), 0);
  coir_chan_unref(fan.chan);
  lose("values of a fan", fan.received, fan.sent);
  lose("sum of a fan", fan.received_sum, fan.sent_sum);
  return fan.sent;
}

/* Two channels, selects at both ends, and deadlines that often come first: what was not sent is kept. */
struct choice {
  struct coir_chan *chans[2];
  _Atomic(uint64_t) seed, sent_sum, received_sum, ops;
};

static int choice_sender(void *arg) {
  struct choice *c = arg;
  uint64_t rng = rng_seed(atomic_fetch_add(&c->seed, 1)), sum = 0, value = rng_next(&rng), ops = 0;
  for (; goes_on(); ops++) {
    struct coir_arm arms[] = {coir_arm_send(c->chans[0], &value), coir_arm_send(c->chans[1], &value)};
    int rc = coir_select(arms, 2, ops % 16 ? COIR_NEVER : soon(&rng));
    if (rc == -ETIMEDOUT) continue;
    CHECK(rc >= 0 && arms[rc].result == 0);
    sum += value;
    value = rng_next(&rng);
  }
  atomic_fetch_add(&c->sent_sum, sum);
  atomic_fetch_add(&c->ops, ops);
  return 0;
}

static int choice_receiver(void *arg) {
  struct choice *c = arg;
  uint64_t rng = rng_seed(atomic_fetch_add(&c->seed, 1)), sum = 0, ops = 0, values[2];
  for (int open = 3; open; ops++) {
    struct coir_arm arms[] = {coir_arm_recv(open & 1 ? c->chans[0] : NULL, &values[0]),
                              coir_arm_recv(open & 2 ? c->chans[1] : NULL, &values[1])};
    int rc = coir_select(arms, 2, ops % 16 ? COIR_NEVER : soon(&rng));
    if (rc == -ETIMEDOUT) continue;
    CHECK(rc >= 0);
    if (arms[rc].result) open &= ~(1 << rc);
    else sum += values[rc];
  }
  atomic_fetch_add(&c->received_sum, sum);
  atomic_fetch_add(&c->ops, ops);
  return 0;
}

static uint64_t choice(uint64_t *rng) {
  struct choice c = {.seed = rng_next(rng)};
  struct coir_fiber *senders[HANDS], *receivers[HANDS];
  for (int i = 0; i < 2; i++) CHECK(c.chans[i] = coir_chan_create(sizeof(uint64_t), rng_next(rng) % 4));
  for (int i = 0; i < HANDS; i++) receivers[i] = spawn(choice_receiver, &c);
  for (int i = 0; i < HANDS; i++) senders[i] = spawn(choice_sender, &c);
  for (int i = 0; i < HANDS; i++) CHECK_EQ(join(senders[i]), 0);
  for (int i = 0; i < 2; i++) coir_chan_close(c.chans[i]);
  for (int i = 0; i < HANDS; i++) CHECK_EQ(join(receivers[i]), 0);
  for (int i = 0; i < 2; i++) coir_chan_unref(c.chans[i]);
  lose("sum of selects", c.received_sum, c.sent_sum);
  return c.ops;
}

/* ---- Locks ------------------------------------------------------------------------------------------------------- */

#define PERMITS 3
struct locks {
  struct coir_mutex mutex;
  struct coir_rwlock rwlock;
  struct coir_sem sem;
  uint64_t under_mutex, written[2];
  _Atomic(uint64_t) seed, inside, expected, expected_writes, ops;
};

static int locker(void *arg) {
  struct locks *l = arg;
  uint64_t rng = rng_seed(atomic_fetch_add(&l->seed, 1)), counted = 0, writes = 0, ops = 0;
  for (; goes_on(); ops++) {
    if (coir_mutex_lock(&l->mutex, ops % 64 ? COIR_NEVER : soon(&rng)) == 0) {
      l->under_mutex++;
      counted++;
      if (ops % 512 == 0) coir_yield();
      coir_mutex_unlock(&l->mutex);
    }
    if (ops % 8 == 0) {
      CHECK_EQ(coir_rwlock_write(&l->rwlock, COIR_NEVER), 0);
      l->written[0]++;
      if (ops % 512 == 0) coir_yield();
      l->written[1]++;
      writes++;
      coir_rwlock_write_unlock(&l->rwlock);
    } else if (coir_rwlock_read(&l->rwlock, COIR_NEVER) == 0) {
      CHECK_EQ(l->written[0], l->written[1]);
      coir_rwlock_read_unlock(&l->rwlock);
    }
    if (coir_sem_acquire(&l->sem, 1, ops % 64 ? COIR_NEVER : soon(&rng)) == 0) {
      CHECK(atomic_fetch_add(&l->inside, 1) < PERMITS);
      if (ops % 256 == 0) coir_yield();
      atomic_fetch_sub(&l->inside, 1);
      coir_sem_release(&l->sem, 1);
    }
  }
  atomic_fetch_add(&l->expected, counted);
  atomic_fetch_add(&l->expected_writes, writes);
  atomic_fetch_add(&l->ops, 3 * ops);
  return 0;
}

static uint64_t locks(uint64_t *rng) {
  struct locks l = {.seed = rng_next(rng)};
  struct coir_fiber *fibers[2 * HANDS];
  coir_sem_init(&l.sem, PERMITS);
  for (int i = 0; i < 2 * HANDS; i++) fibers[i] = spawn(locker, &l);
  for (int i = 0; i < 2 * HANDS; i++) CHECK_EQ(join(fibers[i]), 0);
  lose("counts under a mutex", l.under_mutex, l.expected);
  lose("counts under a rwlock", l.written[1], l.expected_writes);
  lose("permits that could be had", (uint64_t)coir_sem_acquire(&l.sem, PERMITS, 0), 0);
  return l.ops;
}

/* ---- Fibers: beginnings, ends, cancellation ---------------------------------------------------------------------- */

static int returns_it(void *arg) { return (int)(intptr_t)arg; }

static void leak_a_page(void) {
  char *page = malloc(4096);
  CHECK(page);
  memset(page, 1, 4096);
  __asm__ volatile("" : : "r"(page) : "memory");
}

static uint64_t spawns(uint64_t *rng) {
  struct coir_fiber *fibers[64];
  uint64_t ops = 0;
  while (goes_on()) {
    int n = 1 + (int)(rng_next(rng) % 64), sum = 0;
    for (int i = 0; i < n; i++) fibers[i] = spawn(returns_it, (void *)(intptr_t)i);
    for (int i = 0; i < n; i++) {
      sum += join(fibers[i]);
      if (plant == PLANT_PAGE) leak_a_page();
    }
    lose("sum of results", (uint64_t)sum, (uint64_t)(n * (n - 1) / 2));
    ops += (uint64_t)n;
  }
  return ops;
}

struct storm {
  struct coir_chan *empty;
  _Atomic(uint64_t) begun, ended, canceled;
};

static int waits_for_the_end(void *arg) {
  struct storm *s = arg;
  char nothing;
  int rc = 0;
  uint64_t turn = atomic_fetch_add(&s->begun, 1);
  if (turn % 3 == 0) rc = coir_sleep(COIR_SEC(1000));
  else if (turn % 3 == 1) rc = coir_chan_recv(s->empty, &nothing, COIR_NEVER);
  else
    while (!(rc = coir_sleep(0)) && !(rc = coir_sleep(COIR_US(10)))) coir_yield();
  atomic_fetch_add(&s->canceled, rc == -ECANCELED);
  atomic_fetch_add(&s->ended, 1);
  return 0;
}

static uint64_t cancels(uint64_t *rng) {
  struct storm s = {.empty = coir_chan_create(1, 0)};
  uint64_t spawned = 0;
  CHECK(s.empty);
  while (goes_on()) {
    struct coir_scope *outer, *inner;
    CHECK_EQ(coir_scope_open(&outer, 0, rng_next(rng) % 2 ? soon(rng) : COIR_NEVER), 0);
    CHECK_EQ(coir_scope_open(&inner, 0, COIR_NEVER), 0);
    for (uint64_t n = rng_next(rng) % 16; n > 0; n--) {
      int rc = coir_scope_spawn(n % 2 ? outer : inner, waits_for_the_end, &s, NULL, NULL);
      CHECK(rc == 0 || rc == -ECANCELED);
      spawned += rc == 0;
    }
    for (uint64_t n = rng_next(rng) % 3; n > 0; n--) coir_yield();
    coir_scope_cancel(outer, 0);
    (void)coir_scope_close(inner);
    (void)coir_scope_close(outer);
    lose("fibers of a scope that have ended", s.ended, s.begun);
  }
  coir_chan_unref(s.empty);
  lose("fibers of scopes", s.ended, spawned);
  lose("cancellations", s.canceled, spawned);
  return spawned;
}

static uint64_t yields(uint64_t *rng) {
  uint64_t ops = 0;
  (void)rng;
  for (; goes_on(); ops += 1000)
    for (int i = 0; i < 1000; i++) coir_yield();
  return ops;
}

/* Is paused in the middle of it. */
static uint64_t hogs(uint64_t *rng) {
  uint64_t ops = 0;
  (void)rng;
  for (; goes_on(); ops++) {
    double x = 1;
    for (int i = 0; i < 20000000 && goes_on(); i++) x = sqrt(x * 4 + 0) / 2 * sqrt(x); /* stays 1 */
    CHECK(x == 1);
    coir_yield();
  }
  return ops;
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

static int counts_firing(void *arg) {
  atomic_fetch_add((_Atomic(uint64_t) *)arg, 1);
  return 0;
}

static uint64_t timers(uint64_t *rng) {
  struct coir_timer *timer;
  struct coir_ticker *ticker;
  static _Atomic(uint64_t) fired; /* of all; a firing may come when its timer is gone */
  uint64_t armed = 0, stopped = 0, before = fired;
  CHECK_EQ(coir_timer_create(&timer, counts_firing, &fired), 0);
  CHECK_EQ(coir_ticker_create(&ticker, COIR_US(200)), 0);
  while (goes_on()) {
    stopped += coir_timer_start(timer, soon(rng), 0) == 1;
    armed++;
    if (rng_next(rng) % 4 == 0) (void)coir_sleep_until(soon(rng));
    if (rng_next(rng) % 64 == 0) {
      int64_t tick;
      CHECK_EQ(COIR_RECV(coir_ticker_chan(ticker), &tick, COIR_NEVER), 0);
      CHECK(tick <= coir_now());
    }
    coir_yield();
  }
  stopped += coir_timer_stop(timer) == 1;
  WAIT_FOR(fired - before >= armed - stopped);
  (void)coir_sleep(COIR_MS(1)); /* one that is too many */
  lose("firings of a timer", fired - before, armed - stopped);
  coir_timer_destroy(timer);
  coir_ticker_destroy(ticker);
  return armed;
}

/* ---- Descriptors, files, calls that block ------------------------------------------------------------------------ */

struct echo {
  int in, out;
};

static int echoes(void *arg) {
  const struct echo *e = arg;
  char bytes[512];
  ssize_t n;
  while ((n = coir_read(e->in, bytes, sizeof bytes, COIR_NEVER)) > 0)
    CHECK_EQ(coir_write_full(e->out, bytes, (size_t)n, COIR_NEVER), n);
  CHECK_EQ(n, 0);
  CHECK_EQ(coir_close(e->out), 0);
  if (e->in != e->out) CHECK_EQ(coir_close(e->in), 0);
  return 0;
}

/* in and out: of the caller, who gets back what he sends. */
static uint64_t talk(uint64_t *rng, int in, int out, struct echo echo) {
  struct coir_fiber *f = spawn(echoes, &echo);
  uint64_t ops = 0, sent[64], got[64];
  CHECK_EQ(coir_adopt(in), 0);
  if (in != out) CHECK_EQ(coir_adopt(out), 0);
  for (; goes_on(); ops++) {
    size_t bytes = 8 + rng_next(rng) % 504;
    for (int i = 0; i < 64; i++) sent[i] = rng_next(rng);
    CHECK_EQ(coir_write_full(out, sent, bytes, COIR_NEVER), (ssize_t)bytes);
    CHECK_EQ(coir_read_full(in, got, bytes, COIR_NEVER), (ssize_t)bytes);
    lose("bytes that differ", (uint64_t)memcmp(sent, got, bytes), 0);
  }
  if (plants(PLANT_FD)) CHECK(dup(0) >= 0);
  CHECK_EQ(coir_close(out), 0);
  CHECK_EQ(join(f), 0);
  if (in != out) CHECK_EQ(coir_close(in), 0);
  return ops;
}

static uint64_t sockets(uint64_t *rng) {
  int fds[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  return talk(rng, fds[0], fds[0], (struct echo){fds[1], fds[1]});
}

static uint64_t pipes(uint64_t *rng) {
  int there[2], back[2];
  CHECK_EQ(pipe(there), 0);
  CHECK_EQ(pipe(back), 0);
  return talk(rng, back[0], there[1], (struct echo){there[0], back[1]});
}

static uint64_t files(uint64_t *rng) {
  char name[64], sent[4096], got[4096];
  snprintf(name, sizeof name, "/tmp/coir_soak_%d", (int)getpid());
  int fd = open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  uint64_t ops = 0;
  CHECK(fd >= 0);
  CHECK_EQ(unlink(name), 0);
  for (; goes_on(); ops += 2) {
    off_t at = (off_t)(rng_next(rng) % 64) * (off_t)sizeof sent;
    memset(sent, (int)rng_next(rng), sizeof sent);
    CHECK_EQ(coir_pwrite(fd, sent, sizeof sent, at, COIR_NEVER), sizeof sent);
    CHECK_EQ(coir_pread(fd, got, sizeof got, at, COIR_NEVER), sizeof got);
    lose("bytes of a file that differ", (uint64_t)memcmp(sent, got, sizeof sent), 0);
    if (ops % 64 == 0) (void)coir_sleep(COIR_US(100));
  }
  CHECK_EQ(coir_close(fd), 0);
  return ops;
}

static void naps(void *arg) { usleep((useconds_t)(intptr_t)arg); }

static uint64_t blocks(uint64_t *rng) {
  uint64_t ops = 0;
  for (; goes_on(); ops++) {
    intptr_t us = (intptr_t)(rng_next(rng) % 100);
    int rc = coir_block(naps, (void *)us);
    CHECK(rc == 0 || rc == -EAGAIN);
    if (ops % 64 == 0) usleep(2000); /* without a word: its worker is taken away */
    coir_yield();
  }
  return ops;
}

/* ThreadSanitizer holds a signal back until its thread calls something that it knows: a spare may never. */
#define SIGNALS (IS_TSAN ? 0 : 1)

static uint64_t signals(uint64_t *rng) {
  struct coir_signals *s;
  struct coir_siginfo info;
  sigset_t set;
  uint64_t ops = 0;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  CHECK_EQ(coir_signals_open(&s, &set), 0);
  for (; goes_on(); ops++) {
    CHECK_EQ(kill(getpid(), SIGUSR1), 0);
    CHECK_EQ(COIR_RECV(coir_signals_chan(s), &info, coir_after(COIR_SEC(LOST_SECONDS))), 0);
    if (rng_next(rng) % 4 == 0) (void)coir_sleep_until(soon(rng));
  }
  lose("signals that were dropped", coir_signals_dropped(s), 0);
  coir_signals_close(s);
  return ops;
}

/* ---- Jobs, loops, generators, raw fibers ------------------------------------------------------------------------- */

static void adds_one(struct coir_job *job, void *sum) {
  (void)job;
  atomic_fetch_add_explicit((_Atomic(uint64_t) *)sum, 1, memory_order_relaxed);
}

static uint64_t submits(uint64_t *rng) {
  struct coir_job_desc list[256];
  _Atomic(uint64_t) ran = 0;
  uint64_t ops = 0;
  for (int i = 0; i < 256; i++) list[i] = (struct coir_job_desc){.fn = adds_one, .arg = (void *)&ran};
  while (goes_on()) {
    size_t n = 1 + rng_next(rng) % 256;
    struct coir_counter *counter = NULL;
    CHECK_EQ(coir_job_submit(jobs, list, n, &counter), 0);
    CHECK_EQ(coir_counter_wait(counter, COIR_NEVER), 0);
    coir_counter_unref(counter);
    ops += n;
    lose("jobs that ran", ran, ops);
  }
  return ops;
}

struct tree {
  uint64_t depth, leaves;
};

static void grow(void *arg) {
  struct tree *t = arg, a, b;
  t->leaves = 1;
  if (t->depth == 0) return;
  a.depth = b.depth = t->depth - 1;
  CHECK_EQ(coir_fork2(grow, &a, grow, &b), 0);
  t->leaves = a.leaves + b.leaves;
}

static uint64_t forks(uint64_t *rng) {
  uint64_t ops = 0;
  while (goes_on()) {
    struct tree t = {.depth = 8 + rng_next(rng) % 4};
    grow(&t);
    lose("leaves of a tree", t.leaves, UINT64_C(1) << t.depth);
    ops += t.leaves;
    coir_yield();
  }
  return ops;
}

#define SLOTS 4096
static void increments(size_t i, void *slots) { ((uint32_t *)slots)[i]++; }

/* A loop counts as one operation. */
static uint64_t loops(uint64_t *rng) {
  uint32_t *slots = calloc(SLOTS, sizeof *slots);
  uint64_t ops = 0;
  (void)rng;
  CHECK(slots);
  for (; goes_on(); ops++) {
    CHECK_EQ(coir_parallel_for(NULL, 0, SLOTS, increments, slots), 0);
    coir_yield();
  }
  for (int i = 0; i < SLOTS; i++) lose("turns of a loop", slots[i], (uint32_t)ops);
  free(slots);
  return ops;
}

static int generator(void *arg) {
  for (intptr_t i = 0; i < (intptr_t)arg; i++)
    if (coir_gen_yield((void *)i, NULL)) return -1;
  return 0;
}

static uint64_t generators(uint64_t *rng) {
  uint64_t ops = 0;
  while (goes_on()) {
    struct coir_gen *gen;
    uint64_t n = 1 + rng_next(rng) % 500, stops = rng_next(rng) % 4 ? n + 1 : rng_next(rng) % n, sum = 0, got = 0;
    void *value;
    CHECK_EQ(coir_gen_create(&gen, generator, (void *)(intptr_t)n, NULL), 0);
    for (; got < stops && coir_gen_resume(gen, NULL, &value) == 0; got++) sum += (uintptr_t)value;
    CHECK_EQ(coir_gen_destroy(gen), 0);
    lose("values of a generator", got, stops < n ? stops : n);
    if (got) lose("sum of a generator", sum, got * (got - 1) / 2);
    ops += got;
  }
  return ops;
}

static void raw_counts(void *count) {
  for (;; coir_raw_fiber_yield()) ++*(uint64_t *)count;
}

static uint64_t raws(uint64_t *rng) {
  struct coir_fiber_pool *fibers;
  uint64_t ops = 0, counted = 0;
  CHECK_EQ(coir_fiber_pool_create(&fibers, 2, 0), 0);
  while (goes_on()) {
    struct coir_raw_fiber *raw = coir_fiber_pool_get(fibers);
    CHECK(raw);
    for (uint64_t n = rng_next(rng) % 1000; n > 0; n--, ops++)
      CHECK_EQ(coir_raw_fiber_resume(raw, raw_counts, &counted), COIR_RAW_YIELDED);
    coir_fiber_pool_put(fibers, raw);
    lose("turns of raw fibers", counted, ops);
    coir_yield();
  }
  coir_fiber_pool_destroy(fibers);
  return ops;
}

/* ---- Rounds ------------------------------------------------------------------------------------------------------ */

static const struct kind kinds[] = {
    {"ring", ring, 2},
    {"fan", fan, 2},
    {"choice", choice, 1},
    {"locks", locks, 1},
    {"spawns", spawns, 2},
    {"cancels", cancels, 2},
    {"yields", yields, 8},
    {"timers", timers, 1},
    {"sockets", sockets, 2},
    {"pipes", pipes, 1},
    {"files", files, 1},
    {"blocks", blocks, 2},
    {"signals", signals, SIGNALS},
    {"submits", submits, 1},
    {"forks", forks, 2},
    {"loops", loops, 1},
    {"raws", raws, 4},
    {"generators", generators, 2},
    {"hogs", hogs, 2},
};
#define KINDS (sizeof kinds / sizeof *kinds)
#define PARTS_MAX 64

static uint64_t done[KINDS];
static _Atomic(int) running[KINDS];

struct part {
  size_t kind;
  uint64_t rng, ops;
  struct coir_fiber *fiber;
};

static int run_part(void *arg) {
  struct part *p = arg;
  p->ops = kinds[p->kind].run(&p->rng);
  atomic_fetch_sub(&running[p->kind], 1);
  return 0;
}

/* By SIGALRM. */
static void hangs(int signo) {
  (void)signo;
  for (size_t i = 0; i < KINDS; i++)
    if (running[i]) dprintf(2, "soak: a round does not end: %d of %s\n", running[i], kinds[i].name);
  abort();
}

static void round_of_all(uint64_t *rng, int64_t ns) {
  static struct part parts[PARTS_MAX];
  size_t n = 0;
  alarm(ROUND_SECONDS);
  is_over = false;
  for (size_t k = 0; k < KINDS; k++)
    for (int i = 0; i < kinds[k].count; i++, n++) {
      CHECK(n < PARTS_MAX);
      atomic_fetch_add(&running[k], 1);
      parts[n] = (struct part){.kind = k, .rng = rng_seed(rng_next(rng))};
      parts[n].fiber =
          spawn_with((struct coir_attr){.preempt = kinds[k].run == hogs ? COIR_ON : 0}, run_part, &parts[n]);
    }
  (void)coir_sleep(ns);
  is_over = true;
  for (size_t i = 0; i < n; i++) {
    CHECK_EQ(join(parts[i].fiber), 0);
    done[parts[i].kind] += parts[i].ops;
  }
}

/* ---- What must not grow ------------------------------------------------------------------------------------------ */

struct sample {
  int64_t rss, fds, threads;
};

static int64_t entries(const char *path) {
  DIR *folder = opendir(path);
  int64_t n = 0;
  CHECK(folder);
  while (readdir(folder)) n++;
  closedir(folder);
  return n;
}

static struct sample look(void) {
  long long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file && fscanf(file, "%*d %lld", &pages) == 1);
  fclose(file);
  return (struct sample){.rss = pages * sysconf(_SC_PAGESIZE), entries("/proc/self/fd"), entries("/proc/self/task")};
}

static struct sample most; /* of the warm-up */
static int64_t rss_sum[2]; /* of both halves of what comes after it */
static int rss_count[2];

static void not_more(const char *what, int64_t is, int64_t most_allowed) {
  if (is <= most_allowed) return;
  fprintf(stderr, "soak: %s: %lld, and %lld was the most\n", what, (long long)is, (long long)most_allowed);
  _exit(1);
}

static void judge(int round, int rounds_in_all) {
  struct sample now = look();
  int warm = rounds_in_all / 4;
  is_warm = round + 1 >= warm;
  if (round < warm) {
    if (now.rss > most.rss) most.rss = now.rss;
    if (now.fds > most.fds) most.fds = now.fds;
    if (now.threads > most.threads) most.threads = now.threads;
    return;
  }
  not_more("descriptors", now.fds, most.fds);
  not_more("threads", now.threads, most.threads + THREADS_SLACK);
  if (IS_SANITIZED) return; /* they keep what is freed */
  not_more("memory", now.rss, most.rss + RSS_SLACK);
  int half = round - warm >= (rounds_in_all - warm) / 2;
  rss_sum[half] += now.rss;
  rss_count[half]++;
  if (round == rounds_in_all - 1)
    not_more("memory of the later half", rss_sum[1] / rss_count[1], rss_sum[0] / rss_count[0] + RSS_GROWTH);
}

static void report(double seconds) {
  uint64_t sum = 0;
  struct sample now = look();
  for (size_t k = 0; k < KINDS; k++) {
    printf("  %-12s %15llu\n", kinds[k].name, (unsigned long long)done[k]);
    lose("kinds without an operation", done[k] == 0, kinds[k].count == 0);
    sum += done[k];
  }
  printf("soak: %llu operations in %.1f s, %.1f million a second; %.1f MiB, %lld descriptors, %lld threads\n",
         (unsigned long long)sum, seconds, (double)sum / seconds / 1e6, (double)now.rss / (1 << 20), (long long)now.fds,
         (long long)now.threads);
}

struct soak {
  int64_t ns;
  uint64_t rng;
};

static int all(void *arg) {
  struct soak *s = arg;
  int64_t begun = coir_now(), each = s->ns / 16 < COIR_SEC(1) ? s->ns / 16 : COIR_SEC(1);
  int rounds_in_all = (int)(s->ns / each);
  for (int i = 0; i < rounds_in_all; i++) {
    round_of_all(&s->rng, each);
    judge(i, rounds_in_all);
  }
  report((double)(coir_now() - begun) / 1e9);
  return 0;
}

int main(int argc, char **argv) {
  static const char *const names[] = {"", "token", "fd", "page"};
  const char *text = getenv("SOAK_SECONDS"), *seed = getenv("SOAK_SEED");
  struct soak s = {.ns = COIR_SEC(text ? atoi(text) : 60),
                   .rng = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL)};
  for (int i = 1; argc > 1 && i < 4; i++)
    if (!strcmp(argv[1], names[i])) plant = (enum plant)i;
  if (s.ns <= 0 || (argc > 1 && !plant)) return fprintf(stderr, "usage: soak [token | fd | page]\n"), 2;
  printf("soak: SOAK_SEED=%llu\n", (unsigned long long)s.rng);
  fflush(stdout);
  s.rng = rng_seed(s.rng);
  signal(SIGALRM, hangs);
  CHECK_EQ(coir_job_system_create(&jobs, NULL), 0);
  CHECK_EQ(run(all, &s), 0);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  coir_job_system_destroy(jobs);
  return 0;
}
