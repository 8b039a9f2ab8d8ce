/* Mutex, condition, rwlock, semaphore, barrier, once and counter, with deadlines, cancellation and shields, beside a
 * sequential model.
 *
 * A conductor reads the input. It tells actors, which are fibers, to make a call, one at a time, and lets everybody run
 * until nobody can; between two such turns it does what does not wait itself, several in a row if the input says so.
 * All of these are first come, first served. The mutex alone may be had by who comes in between: so who has it is noted
 * when a call returns; but nobody may be passed over by one who waited less long, and it is not left free while
 * somebody waits for it. */
#include "fuzz.h"

#include "coir_job.h"

enum { ACTORS = 6, PARTIES = 3, PERMITS_MAX = 3, NOBODY = -1, CONDUCTOR = -2 };

enum job {
  REST,
  LOCK,
  UNLOCK,
  COND_WAIT,
  READ,
  WRITE,
  GIVE_BACK, /* what it has of the rwlock */
  ACQUIRE,
  ARRIVE, /* at the barrier */
  ONCE,
  COUNT, /* waits for the counter */
  QUIT
};

enum state {
  IDLE,   /* its call, if it is in one, has been decided */
  WAITS,  /* until somebody, its deadline or a cancellation ends that */
  RELOCKS /* the mutex, after a condition: nothing ends that but having it */
};

static struct actor {
  struct coir_fiber *fiber;
  enum job job;
  int64_t deadline, permits;
  bool is_shielded;
  enum state state;
  uint64_t since; /* WAITS: its turn among those that wait */
  bool is_canceled;
  bool is_noticing; /* RELOCKS: it has not run yet; until then a cancellation is the same as the one that woke it */
  int decided;
  bool reads, writes; /* has the rwlock */
  bool runs_once;     /* is in the function */
} actors[ACTORS];

static struct coir_mutex mutex;
static struct coir_cond cond;
static struct coir_rwlock rwlock;
static struct coir_sem sem;
static struct coir_barrier barrier;
static struct coir_once once;
static struct coir_event once_may_end;
static struct coir_counter counter;

static int owner;              /* of the mutex */
static int64_t permits, count; /* of the semaphore, of the counter */
static bool is_once_done, may_once_end;
static bool is_dirty;     /* somebody has given up, and has not left yet */
static bool is_passed_on; /* the mutex was unlocked, and one who waited for it has been woken, but has not run yet */
static bool is_late;      /* the clock has moved, and nobody has looked at it since */
static uint64_t turns;

/* ---- The model ------------------------------------------------------------------------------------------------- */

static void decide(struct actor *a, int rc) {
  a->state = a->job == COND_WAIT ? RELOCKS : IDLE;
  a->decided = rc;
}

static bool waits_for(const struct actor *a, enum job job) {
  return a->state == WAITS && a->job == job && !a->runs_once;
}

static bool wants_mutex(const struct actor *a) { return a->state == RELOCKS || waits_for(a, LOCK); }

/* Who waits longest with one of two jobs; NULL: nobody. */
static struct actor *first_of(enum job job, enum job or_job) {
  struct actor *first = NULL;
  for (int i = 0; i < ACTORS; i++) {
    struct actor *a = &actors[i];
    if ((waits_for(a, job) || waits_for(a, or_job)) && (!first || a->since < first->since)) first = a;
  }
  return first;
}

static void decide_all(enum job job) {
  for (struct actor *a; (a = first_of(job, job)) != NULL;) decide(a, 0);
}

static int holders(bool writing) {
  int n = 0;
  for (int i = 0; i < ACTORS; i++) n += writing ? actors[i].writes : actors[i].reads;
  return n;
}

static void admit_rwlock(void) {
  for (struct actor *a; (a = first_of(READ, WRITE)) != NULL && !holders(true);) {
    if (a->job == WRITE && holders(false)) return;
    *(a->job == WRITE ? &a->writes : &a->reads) = true;
    decide(a, 0);
  }
}

static void admit_sem(void) {
  for (struct actor *a; (a = first_of(ACQUIRE, ACQUIRE)) != NULL && a->permits <= permits;) {
    permits -= a->permits;
    decide(a, 0);
  }
}

/* It ends its wait. Where it may have kept others out, these come when it runs. */
static void give_up(struct actor *a, int rc) {
  decide(a, rc);
  is_dirty = true;
}

static void model_cancel(struct actor *a) {
  a->is_canceled = true;
  if (a->state == WAITS && !a->is_shielded) give_up(a, -ECANCELED);
}

/* Everybody runs who can. */
static void model_run(void) {
  for (int i = 0; i < ACTORS && is_late; i++)
    if (actors[i].state == WAITS && actors[i].deadline <= fuzz_now) give_up(&actors[i], -ETIMEDOUT);
  is_late = is_dirty = is_passed_on = false;
  admit_rwlock();
  admit_sem();
  for (int i = 0; i < ACTORS; i++) {
    struct actor *a = &actors[i];
    if (a->state == RELOCKS && a->is_noticing && a->decided == -ECANCELED) a->is_canceled = false;
    if (a->state == RELOCKS) a->is_noticing = false;
  }
}

/* A call that cannot be done at once. */
static void model_wait(struct actor *a) {
  bool is_over = a->deadline <= fuzz_now, is_canceled = a->is_canceled && !a->is_shielded;
  if (is_over || is_canceled) decide(a, is_over ? -ETIMEDOUT : -ECANCELED);
  if (!is_over && is_canceled) a->is_canceled = false;
  if (is_over || is_canceled) return;
  a->state = WAITS;
  a->since = ++turns;
}

static bool is_once_running(void) {
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].runs_once) return true;
  return false;
}

/* How many have come to the barrier. */
static int arrived(void) {
  int n = 0;
  for (int i = 0; i < ACTORS; i++) n += waits_for(&actors[i], ARRIVE);
  return n;
}

/* Whether the call can be done at once; then it is. */
static bool model_try(struct actor *a) {
  switch (a->job) {
  case LOCK:
    if (owner == a - actors) a->decided = -EDEADLK;
    else if (owner == NOBODY) owner = (int)(a - actors);
    else return false;
    return true;
  case READ: return a->reads = !holders(true) && !first_of(READ, WRITE);
  case WRITE: return a->writes = !holders(true) && !holders(false) && !first_of(READ, WRITE);
  case ACQUIRE:
    if (first_of(ACQUIRE, ACQUIRE) || a->permits > permits) return false;
    permits -= a->permits;
    return true;
  case ARRIVE:
    if (arrived() + 1 < PARTIES) return false;
    decide_all(ARRIVE);
    a->decided = 1;
    return true;
  case ONCE: return !is_once_running();
  case COUNT: return count == 0;
  default: owner = NOBODY; return false;
  }
}

/* ---- Actors ---------------------------------------------------------------------------------------------------- */

/* A call has returned with the mutex, for which it had to wait. Those who lock it do so in turn. */
static void take_mutex(struct actor *a) {
  CHECK_EQ(owner, NOBODY);
  owner = (int)(a - actors);
  for (int i = 0; i < ACTORS; i++) CHECK(a->job != LOCK || !waits_for(&actors[i], LOCK) || actors[i].since >= a->since);
}

/* What is done once waits itself. */
static void run_once(void *arg) {
  struct actor *a = arg;
  a->runs_once = true;
  if (!may_once_end) model_wait(a);
  bool waits = a->state == WAITS;
  int rc = coir_event_wait(&once_may_end, a->deadline);
  CHECK_EQ(a->state, IDLE);
  CHECK_EQ(rc, a->decided);
  if (waits && rc == -ECANCELED) a->is_canceled = false;
  a->runs_once = false;
  is_once_done = true;
  decide_all(ONCE);
  a->decided = 0; /* of the call around it */
}

static int call(struct actor *a) {
  switch (a->job) {
  case LOCK: return coir_mutex_lock(&mutex, a->deadline);
  case COND_WAIT: return coir_cond_wait(&cond, &mutex, a->deadline);
  case READ: return coir_rwlock_read(&rwlock, a->deadline);
  case WRITE: return coir_rwlock_write(&rwlock, a->deadline);
  case ACQUIRE: return coir_sem_acquire(&sem, a->permits, a->deadline);
  case ARRIVE: return coir_barrier_wait(&barrier, a->deadline);
  case COUNT: return coir_counter_wait(&counter, a->deadline);
  default: return coir_once_do(&once, run_once, a, a->deadline);
  }
}

static void wait_for_something(struct actor *a) {
  a->decided = 0;
  if (!model_try(a)) model_wait(a);
  bool waits = a->state == WAITS;
  a->is_noticing = waits;
  if (a->is_shielded) coir_shield_begin();
  int rc = call(a);
  if (a->is_shielded) coir_shield_end();
  if (a->state == RELOCKS || (rc == 0 && waits_for(a, LOCK))) {
    take_mutex(a);
    if (a->state == WAITS) a->decided = 0;
    a->state = IDLE;
  }
  CHECK_EQ(a->state, IDLE);
  CHECK_EQ(rc, a->decided);
  if (waits && rc == -ECANCELED && a->job != COND_WAIT) a->is_canceled = false; /* what came meanwhile is the same */
}

static void give_back(struct actor *a) {
  if (a->writes) coir_rwlock_write_unlock(&rwlock);
  else coir_rwlock_read_unlock(&rwlock);
  a->reads = a->writes = false;
  admit_rwlock();
}

static void unlock(void) {
  owner = NOBODY;
  coir_mutex_unlock(&mutex);
}

static int run_actor(void *arg) {
  struct actor *a = arg;
  for (;;) {
    while (a->job == REST) coir_yield();
    if (a->job == QUIT) return 0;
    if (a->job == UNLOCK) unlock();
    else if (a->job == GIVE_BACK) give_back(a);
    else wait_for_something(a);
    a->job = REST;
  }
}

/* ---- The conductor --------------------------------------------------------------------------------------------- */

static bool all_are_as_modelled(void) {
  for (int i = 0; i < ACTORS; i++)
    if ((actors[i].job != REST) != (actors[i].state != IDLE) || (owner == NOBODY && wants_mutex(&actors[i])))
      return false;
  return true;
}

/* The worker looks at the clock every 64 dispatches at the latest. Who then asks for the mutex may still wait. */
static void settle(void) {
  int more = is_late ? 200 : 3;
  model_run();
  for (int i = 0; !all_are_as_modelled(); i++) {
    CHECK(i < 20000);
    coir_yield();
  }
  for (int i = 0; i < more; i++) coir_yield();
  CHECK(all_are_as_modelled());
  CHECK_EQ(coir_counter_value(&counter), count);
}

/* Who has a lock does not ask for it again, where that is forbidden. */
static bool can(const struct actor *a, enum job job) {
  bool is_owner = owner == a - actors, has_rwlock = a->reads || a->writes;
  if (job == UNLOCK || job == COND_WAIT) return is_owner;
  if (job == GIVE_BACK) return has_rwlock;
  if (job == READ || job == WRITE) return !has_rwlock;
  return job != ONCE || !is_once_done || !is_once_running();
}

static void tell(struct actor *a, enum job job) {
  settle();
  if (a->job != REST || !can(a, job)) return;
  a->job = job;
  settle();
}

/* Who gives up may let others in. */
static bool lets_others_in(enum job job) { return job == READ || job == WRITE || job == ACQUIRE || job == ONCE; }

static void take_job(struct input *in) {
  static const enum job jobs[] = {LOCK,  LOCK,      UNLOCK,    UNLOCK,  COND_WAIT, COND_WAIT, READ, READ,
                                  WRITE, GIVE_BACK, GIVE_BACK, ACQUIRE, ACQUIRE,   ARRIVE,    ONCE, COUNT};
  struct actor *a = &actors[below(in, ACTORS)];
  enum job job = jobs[below(in, sizeof jobs / sizeof *jobs)];
  if (a->job != REST) return;
  a->permits = below(in, PERMITS_MAX + 1);
  a->deadline = take_deadline(in);
  a->is_shielded = one_in(in, 5);
  if (a->is_shielded) a->deadline = sooner_of(a->deadline, fuzz_now + COIR_MS(200));
#ifdef COIR_HARD
  /* There a few timers at a time are looked at: the first to give up might let in another, whose time is over, too. */
  if (lets_others_in(job)) a->is_shielded = false;
  if (lets_others_in(job) && a->deadline > fuzz_now) a->deadline = COIR_NEVER;
#endif
  tell(a, job);
}

static void use_mutex(void) {
  if (is_late) settle(); /* else who is woken may find its time over */
  if (owner == CONDUCTOR) {
    unlock();
    is_passed_on = true;
    return;
  }
  bool is_wanted = false;
  for (int i = 0; i < ACTORS; i++) is_wanted |= wants_mutex(&actors[i]);
  int rc = coir_mutex_lock(&mutex, 0);
  CHECK(rc == 0 ? owner == NOBODY : rc == -ETIMEDOUT && (owner != NOBODY || is_wanted));
  if (rc == 0) owner = CONDUCTOR;
}

static void signal_cond(bool all) {
  if (all) decide_all(COND_WAIT);
  struct actor *first = all ? NULL : first_of(COND_WAIT, COND_WAIT);
  if (first) decide(first, 0);
  if (all) coir_cond_broadcast(&cond);
  else coir_cond_signal(&cond);
}

static void release(int64_t n) {
  if (is_dirty) settle(); /* who has given up may keep others out until it runs */
  if (permits + n > 4 * PERMITS_MAX) return;
  permits += n;
  admit_sem();
  coir_sem_release(&sem, n);
}

static void try_to_acquire(int64_t n) {
  if (is_dirty) settle();
  bool expected = !first_of(ACQUIRE, ACQUIRE) && n <= permits;
  if (expected) permits -= n;
  CHECK_EQ(coir_sem_acquire(&sem, n, 0), expected ? 0 : -ETIMEDOUT);
}

/* One that is complete may be used again when nobody waits for it. */
static void use_counter(bool adds) {
  if (!adds && count == 0) return;
  if (adds && count == 0) settle();
  count += adds ? 1 : -1;
  if (count == 0) decide_all(COUNT);
  if (adds) coir_counter_add(&counter, 1);
  else CHECK_EQ(coir_counter_done(&counter), count == 0);
  CHECK_EQ(coir_counter_is_complete(&counter), count == 0);
}

/* Lets the function go on, or has it done anew. */
static void use_once(void) {
  settle();
  if (is_once_done) {
    memset(&once, 0, sizeof once);
    is_once_done = may_once_end = false;
    coir_event_reset(&once_may_end);
    return;
  }
  may_once_end = true;
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].runs_once && actors[i].state == WAITS) decide(&actors[i], 0);
  coir_event_set(&once_may_end);
}

static void cancel(struct actor *a) {
  if (is_passed_on) settle();                      /* who has been woken is not cancelled any more */
  if (is_late && lets_others_in(a->job)) settle(); /* else those others might find their time over, or not */
  model_cancel(a);
  CHECK_EQ(coir_cancel(a->fiber), 0);
}

/* What comes next finds the clock changed, and nobody told. */
static void advance(int64_t ns) {
  settle();
  fuzz_now += ns;
  is_late = true;
}

static void step(struct input *in) {
  uint32_t b = take(in);
  switch (b % 16) {
  case 0: use_mutex(); break;
  case 1: signal_cond(b & 16); break;
  case 2: release(below(in, PERMITS_MAX + 1)); break;
  case 3: try_to_acquire(below(in, PERMITS_MAX + 1)); break;
  case 4: use_counter(b & 16); break;
  case 5: use_once(); break;
  case 6:
  case 7: cancel(&actors[below(in, ACTORS)]); break;
  case 8: advance(b & 16 ? COIR_MS(below(in, 64)) : COIR_US(take(in))); break;
  case 9: settle(); break;
  default: take_job(in); break;
  }
}

/* Everybody gives back what it has, and comes to an end. */
static void tear_down(void) {
  for (int i = 0; i < ACTORS; i++) cancel(&actors[i]);
  advance(COIR_SEC(1));
  settle();
  if (owner == CONDUCTOR) unlock();
  for (int left = ACTORS; left > 0; left--) {
    settle();
    if (owner >= 0) tell(&actors[owner], UNLOCK);
    for (int i = 0; i < ACTORS; i++) tell(&actors[i], GIVE_BACK);
  }
  settle();
  for (int i = 0; i < ACTORS; i++) {
    CHECK_EQ(actors[i].job, REST);
    actors[i].job = QUIT;
    CHECK_EQ(coir_join(actors[i].fiber, NULL, COIR_NEVER), 0);
  }
}

static int conduct(void *arg) {
  struct input *in = arg;
  memset(actors, 0, sizeof actors);
  memset(&mutex, 0, sizeof mutex);
  memset(&cond, 0, sizeof cond);
  memset(&rwlock, 0, sizeof rwlock);
  memset(&once, 0, sizeof once);
  memset(&once_may_end, 0, sizeof once_may_end);
  permits = below(in, PERMITS_MAX + 1);
  count = below(in, 3);
  owner = NOBODY;
  is_once_done = may_once_end = false;
  coir_sem_init(&sem, permits);
  coir_barrier_init(&barrier, PARTIES);
  coir_counter_init(&counter, (uint64_t)count);
  for (int i = 0; i < ACTORS; i++) CHECK_EQ(coir_spawn(run_actor, &actors[i], NULL, &actors[i].fiber), 0);
  while (!is_over(in)) step(in);
  tear_down();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  struct input in = {data, data + bytes};
  run_alone(conduct, &in);
  return 0;
}
