/* Locks and friends under everything at once: fibers and plain threads, random deadlines, random cancellations.
 *
 * usage: stress_sync [seed] [seconds]
 *
 * Every kind has a few actors, which use it as its contract says and check what it promises. Another fiber cancels
 * them at random. What is checked: exclusion; that permits and tokens neither get lost nor come twice; that a signal
 * which somebody has got is not reported as anything else; that nobody passes a barrier before all have come; that
 * what is to be done once is. Somebody who waits for ever shows as a timeout of the test. */
#include "harness.h"

#define ACTORS_MAX 64

static uint64_t seed;
static _Atomic(int) over;

struct actor {
  int (*act)(struct actor *a); /* goes round until `over`; each kind has its own */
  struct coir_fiber *fiber;
  pthread_t thread;
  uint64_t rng;
  int number; /* among those of its kind */
  uint64_t done, timed_out, cancelled;
};

static uint64_t random_below(struct actor *a, uint64_t n) { return rng_next(&a->rng) % n; }

/* Spends a moment, in one way or another. */
static void dawdle(struct actor *a) {
  uint64_t how = random_below(a, 16);
  if (how < 8) return;
  if (how < 12)
    for (uint64_t n = random_below(a, 300); n > 0; n--) __asm__ volatile("");
  else if (how < 15) coir_yield();
  else (void)coir_sleep(COIR_US(random_below(a, 20)));
}

/* From none to some, and sometimes no limit. */
static int64_t some_deadline(struct actor *a) {
  uint64_t how = random_below(a, 8);
  if (how == 0) return 0;
  if (how < 4) return coir_after((int64_t)random_below(a, 3000));
  if (how < 6) return coir_after(COIR_US(random_below(a, 200)));
  return COIR_NEVER;
}

/* Counts how a call ended. Returns whether it succeeded. */
static bool succeeded(struct actor *a, int rc, int64_t deadline) {
  if (rc == -ETIMEDOUT) {
    CHECK(deadline != COIR_NEVER && coir_now() >= deadline);
    a->timed_out++;
  } else if (rc == -ECANCELED) {
    CHECK(a->fiber);
    a->cancelled++;
  } else {
    CHECK(rc == 0 || rc == 1);
    a->done++;
  }
  return rc >= 0;
}

static void lock(struct coir_mutex *m) { /* however often we are cancelled */
  while (coir_mutex_lock(m, COIR_NEVER)) {}
}

/* ---- Mutexes --------------------------------------------------------------------------------------------------- */

static struct {
  struct coir_mutex mutex;
  uint64_t plain; /* under the mutex */
  _Atomic(uint64_t) count;
  _Atomic(struct actor *) holder;
} mutexes[3];

static int acts_mutex(struct actor *a) {
  while (!atomic_load(&over)) {
    __typeof__(&mutexes[0]) m = &mutexes[random_below(a, 3)];
    int64_t deadline = some_deadline(a);
    struct actor *nobody = NULL;
    if (succeeded(a, coir_mutex_lock(&m->mutex, deadline), deadline)) {
      CHECK(atomic_compare_exchange_strong(&m->holder, &nobody, a));
      m->plain++;
      dawdle(a);
      CHECK(atomic_exchange(&m->holder, NULL) == a);
      coir_mutex_unlock(&m->mutex);
      atomic_fetch_add(&m->count, 1);
    }
    dawdle(a);
  }
  return 0;
}

/* ---- Read-write lock ------------------------------------------------------------------------------------------- */

static struct {
  struct coir_rwlock lock;
  _Atomic(int) readers, writers;
} rw;

static int acts_rwlock(struct actor *a) {
  while (!atomic_load(&over)) {
    int64_t deadline = some_deadline(a);
    bool writes = random_below(a, 4) == 0;
    int rc = writes ? coir_rwlock_write(&rw.lock, deadline) : coir_rwlock_read(&rw.lock, deadline);
    if (succeeded(a, rc, deadline)) {
      if (writes) CHECK_EQ(atomic_fetch_add(&rw.writers, 1), 0);
      else atomic_fetch_add(&rw.readers, 1);
      CHECK_EQ(writes ? atomic_load(&rw.readers) : atomic_load(&rw.writers), 0);
      dawdle(a);
      CHECK_EQ(writes ? atomic_load(&rw.readers) : atomic_load(&rw.writers), 0);
      if (writes) atomic_fetch_sub(&rw.writers, 1);
      else atomic_fetch_sub(&rw.readers, 1);
      if (writes) coir_rwlock_write_unlock(&rw.lock);
      else coir_rwlock_read_unlock(&rw.lock);
    }
    dawdle(a);
  }
  return 0;
}

/* ---- Semaphore ------------------------------------------------------------------------------------------------- */

#define PERMITS 7
static struct coir_sem sem;
static _Atomic(int64_t) granted;

static int acts_sem(struct actor *a) {
  while (!atomic_load(&over)) {
    int64_t deadline = some_deadline(a), n = (int64_t)random_below(a, PERMITS + 1);
    if (succeeded(a, coir_sem_acquire(&sem, n, deadline), deadline)) {
      CHECK(atomic_fetch_add(&granted, n) + n <= PERMITS);
      dawdle(a);
      atomic_fetch_sub(&granted, n);
      while (n) { /* in parts */
        int64_t part = 1 + (int64_t)random_below(a, (uint64_t)n);
        coir_sem_release(&sem, part);
        n -= part;
      }
    }
    dawdle(a);
  }
  return 0;
}

/* ---- Condition ------------------------------------------------------------------------------------------------- */

/* For each token there is one signal. Some wait for as long as it takes, and take a token; others give up soon, and
 * touch a token only when they have got the signal for it. So a signal that went to one that gave up would leave a
 * token behind, and those that could take it asleep. */
static struct {
  struct coir_mutex mutex;
  struct coir_cond cond;
  uint64_t tokens, taken; /* under the mutex */
  bool is_over;
} tokens;

static int acts_token_maker(struct actor *a) {
  uint64_t made = 0;
  while (!atomic_load(&over)) {
    lock(&tokens.mutex);
    tokens.tokens++;
    made++;
    bool inside = random_below(a, 2);
    if (inside) coir_cond_signal(&tokens.cond);
    coir_mutex_unlock(&tokens.mutex);
    if (!inside) coir_cond_signal(&tokens.cond);
    int64_t end = coir_after(COIR_SEC(20));
    for (uint64_t left = 1; left;) { /* the next one when this one is taken */
      coir_yield();
      lock(&tokens.mutex);
      left = tokens.tokens;
      coir_mutex_unlock(&tokens.mutex);
      CHECK(coir_now() < end);
    }
    dawdle(a);
  }
  lock(&tokens.mutex);
  CHECK_EQ(tokens.taken, made);
  tokens.is_over = true;
  coir_cond_broadcast(&tokens.cond);
  coir_mutex_unlock(&tokens.mutex);
  return 0;
}

static int acts_token_taker(struct actor *a) {
  lock(&tokens.mutex);
  while (!tokens.is_over) {
    if (tokens.tokens) {
      tokens.tokens--;
      tokens.taken++;
      a->done++;
    } else {
      CHECK_EQ(coir_cond_wait(&tokens.cond, &tokens.mutex, COIR_NEVER), 0); /* nobody cancels these */
    }
  }
  coir_mutex_unlock(&tokens.mutex);
  return 0;
}

static int acts_token_doubter(struct actor *a) {
  while (!atomic_load(&over)) {
    lock(&tokens.mutex);
    int64_t deadline = coir_after((int64_t)random_below(a, 8000));
    if (!tokens.is_over && succeeded(a, coir_cond_wait(&tokens.cond, &tokens.mutex, deadline), deadline)) {
      if (tokens.tokens) {
        tokens.tokens--;
        tokens.taken++;
      }
    }
    CHECK_EQ(coir_mutex_lock(&tokens.mutex, 0), -EDEADLK);
    coir_mutex_unlock(&tokens.mutex);
    dawdle(a);
  }
  return 0;
}

/* ---- Barrier --------------------------------------------------------------------------------------------------- */

#define PARTIES 4
static struct {
  struct coir_barrier barrier;
  _Atomic(uint64_t) round[PARTIES]; /* that each of them wants to pass */
  _Atomic(uint64_t) last;           /* the round after which all leave, or 0 */
  _Atomic(uint64_t) firsts;         /* how often somebody was told to be the last that came */
} meeting;

static int acts_barrier(struct actor *a) {
  for (uint64_t round = 1;; round++) {
    int rc;
    int64_t deadline;
    atomic_store(&meeting.round[a->number], round);
    do {
      dawdle(a);
      deadline = some_deadline(a);
      rc = coir_barrier_wait(&meeting.barrier, deadline);
    } while (!succeeded(a, rc, deadline));
    for (int i = 0; i < PARTIES; i++) {
      uint64_t other = atomic_load(&meeting.round[i]);
      CHECK(other == round || other == round + 1);
    }
    if (rc) atomic_fetch_add(&meeting.firsts, 1);
    if (rc && atomic_load(&over) && !atomic_load(&meeting.last)) atomic_store(&meeting.last, round + 1);
    if (atomic_load(&meeting.last) == round) return 0;
  }
}

/* ---- Wait group, event ----------------------------------------------------------------------------------------- */

#define JOBS 5
static struct {
  struct coir_wait_group group;
  struct coir_event begin[2]; /* of even and odd rounds; the other one's is reset before a round begins */
  _Atomic(uint64_t) round, done[JOBS];
  _Atomic(int) is_over;
} job;

/* Sets the others to work, round by round. */
static int acts_job_giver(struct actor *a) {
  for (uint64_t round = 1; !atomic_load(&job.is_over); round++) {
    bool last = atomic_load(&over);
    coir_wait_group_add(&job.group, JOBS);
    coir_event_reset(&job.begin[(round + 1) % 2]);
    atomic_store(&job.is_over, last);
    atomic_store(&job.round, round);
    coir_event_set(&job.begin[round % 2]);
    int64_t deadline;
    do deadline = some_deadline(a);
    while (!succeeded(a, coir_wait_group_wait(&job.group, deadline), deadline));
    for (int i = 0; i < JOBS; i++) CHECK_EQ(atomic_load(&job.done[i]), round);
    dawdle(a);
  }
  return 0;
}

static int acts_job_doer(struct actor *a) {
  for (uint64_t round = 1;; round++) {
    int64_t deadline;
    do deadline = some_deadline(a);
    while (!succeeded(a, coir_event_wait(&job.begin[round % 2], deadline), deadline));
    CHECK_EQ(atomic_load(&job.round), round);
    bool last = atomic_load(&job.is_over);
    dawdle(a);
    atomic_store(&job.done[a->number], round);
    coir_wait_group_done(&job.group);
    if (last) return 0;
  }
}

/* ---- Once, single flight --------------------------------------------------------------------------------------- */

/* Each cell is new when all who use it have moved on to the next: they meet at it in turn. */
#define CELLS 4096
static struct cell {
  struct coir_once once;
  _Atomic(int) runs;
  int value;
} cells[CELLS];

static void fill_cell(void *arg) {
  struct cell *c = arg;
  CHECK_EQ(atomic_fetch_add(&c->runs, 1), 0);
  if ((c - cells) % 3 == 0) coir_yield();
  c->value = (int)(c - cells);
}

static int acts_once(struct actor *a) {
  for (int i = 0; i < CELLS && !atomic_load(&over); i++) {
    int64_t deadline = some_deadline(a);
    if (succeeded(a, coir_once_do(&cells[i].once, fill_cell, &cells[i], deadline), deadline))
      CHECK_EQ(cells[i].value, i);
    if (random_below(a, 4) == 0) dawdle(a);
  }
  return 0;
}

#define KEYS 5
static struct coir_flight flight;
static _Atomic(int) flying[KEYS];

struct errand {
  struct actor *actor;
  int key;
};

static int flies(void *arg, void **value) {
  struct errand *e = arg;
  CHECK_EQ(atomic_fetch_add(&flying[e->key], 1), 0);
  dawdle(e->actor);
  CHECK_EQ(atomic_fetch_sub(&flying[e->key], 1), 1);
  *value = (void *)&flying[e->key];
  return -e->key;
}

static int acts_flight(struct actor *a) {
  while (!atomic_load(&over)) {
    struct errand e = {a, (int)random_below(a, KEYS)};
    struct coir_result result = {.status = 1};
    int64_t deadline = some_deadline(a);
    int rc = coir_flight_do(&flight, &e.key, sizeof e.key, flies, &e, &result, deadline);
    if (succeeded(a, rc, deadline)) {
      CHECK_EQ(result.status, -e.key);
      CHECK(result.value == (void *)&flying[e.key]);
    }
    dawdle(a);
  }
  return 0;
}

/* ---- All of them ----------------------------------------------------------------------------------------------- */

static const struct cast {
  const char *name;
  int (*act)(struct actor *a);
  int fibers, threads;
  bool can_be_cancelled;
} casts[] = {
    {"mutex", acts_mutex, 7, 1, true},
    {"rwlock", acts_rwlock, 6, 1, true},
    {"semaphore", acts_sem, 5, 1, true},
    {"token maker", acts_token_maker, 1, 0, false},
    {"token taker", acts_token_taker, 2, 1, false},
    {"token doubter", acts_token_doubter, 4, 1, true},
    {"barrier", acts_barrier, PARTIES - 1, 1, true},
    {"job giver", acts_job_giver, 1, 0, true},
    {"job doer", acts_job_doer, JOBS - 1, 1, true},
    {"once", acts_once, 4, 1, true},
    {"flight", acts_flight, 6, 1, true},
};
#define CASTS ((int)(sizeof casts / sizeof *casts))

static struct actor actors[ACTORS_MAX];
static int actor_count, cancellable[ACTORS_MAX], cancellable_count;

static int actor_fiber(void *actor) { return ((struct actor *)actor)->act(actor); }
static void *actor_thread(void *actor) { return ((struct actor *)actor)->act(actor), NULL; }

static int cancels(void *arg) {
  uint64_t rng = rng_seed(seed ^ 77), sent = 0;
  (void)arg;
  while (!atomic_load(&over)) {
    int who = cancellable[rng_next(&rng) % (uint64_t)cancellable_count];
    sent += coir_cancel(actors[who].fiber) == 0;
    if (rng_next(&rng) % 4 == 0) (void)coir_sleep(COIR_US(rng_next(&rng) % 50));
    else coir_yield();
  }
  fprintf(stderr, "%llu cancellations\n", (unsigned long long)sent);
  return 0;
}

static void start(void) {
  for (int k = 0; k < CASTS; k++)
    for (int i = 0; i < casts[k].fibers + casts[k].threads; i++) {
      CHECK(actor_count < ACTORS_MAX);
      struct actor *a = &actors[actor_count];
      *a = (struct actor){.act = casts[k].act, .number = i, .rng = rng_seed(seed + (uint64_t)actor_count)};
      if (i < casts[k].fibers) {
        if (casts[k].can_be_cancelled) cancellable[cancellable_count++] = actor_count;
        a->fiber = (void *)1; /* not NULL before it runs */
        struct coir_fiber *f = spawn(actor_fiber, a);
        a->fiber = f;
      } else {
        CHECK_EQ(pthread_create(&a->thread, NULL, actor_thread, a), 0);
      }
      actor_count++;
    }
}

static void finish(void) {
  int n = 0;
  for (int k = 0; k < CASTS; k++) {
    uint64_t done = 0, timed_out = 0, cancelled = 0;
    for (int i = 0; i < casts[k].fibers + casts[k].threads; i++, n++) {
      if (actors[n].fiber) CHECK_EQ(join(actors[n].fiber), 0);
      else CHECK_EQ(pthread_join(actors[n].thread, NULL), 0);
      done += actors[n].done;
      timed_out += actors[n].timed_out;
      cancelled += actors[n].cancelled;
    }
    fprintf(stderr, "%-14s %8llu done, %7llu timed out, %6llu cancelled\n", casts[k].name, (unsigned long long)done,
            (unsigned long long)timed_out, (unsigned long long)cancelled);
  }
}

/* Everything is as it was before: nobody has it, nobody waits. */
static void check_end(void) {
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(coir_mutex_lock(&mutexes[i].mutex, 0), 0);
    CHECK_EQ(mutexes[i].plain, atomic_load(&mutexes[i].count));
  }
  CHECK_EQ(coir_rwlock_write(&rw.lock, 0), 0);
  CHECK_EQ(coir_sem_acquire(&sem, PERMITS, 0), 0);
  CHECK_EQ(coir_sem_acquire(&sem, 1, 0), -ETIMEDOUT);
  CHECK_EQ(tokens.tokens, 0);
  CHECK_EQ(atomic_load(&meeting.firsts), atomic_load(&meeting.last));
  CHECK_EQ(coir_barrier_wait(&meeting.barrier, 0), -ETIMEDOUT);
  CHECK_EQ(coir_wait_group_count(&job.group), 0);
}

static int stress(void *ns) {
  coir_sem_init(&sem, PERMITS);
  coir_barrier_init(&meeting.barrier, PARTIES);
  start();
  struct coir_fiber *canceller = spawn(cancels, NULL);
  CHECK_EQ(coir_sleep(*(int64_t *)ns), 0);
  atomic_store(&over, 1);
  CHECK_EQ(join(canceller), 0);
  finish();
  check_end();
  return 0;
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  int64_t ns = (int64_t)((argc > 2 ? strtod(argv[2], NULL) : 2) * 1e9);
  fprintf(stderr, "stress_sync %llu %g\n", (unsigned long long)seed, (double)ns / 1e9);
  return run(stress, &ns);
}
