/* Mutex, read-write lock, condition, semaphore, wait group, event, once, barrier and single flight: each sentence of
 * their contracts in coir.h, on fibers and on plain threads. */
#include "parked.h"

#include <signal.h>

#define SOME_MS COIR_MS(3)

/* One of each, every one ready when zeroed. */
struct objects {
  struct coir_mutex mutex;
  struct coir_rwlock rwlock;
  struct coir_cond cond;
  struct coir_sem sem;
  struct coir_wait_group group;
  struct coir_event event;
  struct coir_once once;
  struct coir_barrier barrier;
  struct coir_flight flight;
  /* for the tests themselves */
  struct coir_event go;  /* lets the one that is at it end */
  struct coir_fiber *at; /* who is at it */
  _Atomic(int) runs;
};

/* ---- What they have in common: a table of the kinds ------------------------------------------------------------ */

static void lock(struct coir_mutex *m) { CHECK_EQ(coir_mutex_lock(m, COIR_NEVER), 0); }

/* `block` makes `call` wait, `unblock` lets one call that waits go on, `undo` is what follows a call that succeeded. */
static void mutex_block(struct objects *o) { lock(&o->mutex); }
static void mutex_unblock(struct objects *o) { coir_mutex_unlock(&o->mutex); }
static int mutex_call(struct objects *o, int64_t deadline) { return coir_mutex_lock(&o->mutex, deadline); }

static void read_block(struct objects *o) { CHECK_EQ(coir_rwlock_write(&o->rwlock, COIR_NEVER), 0); }
static void read_unblock(struct objects *o) { coir_rwlock_write_unlock(&o->rwlock); }
static int read_call(struct objects *o, int64_t deadline) { return coir_rwlock_read(&o->rwlock, deadline); }
static void read_undo(struct objects *o) { coir_rwlock_read_unlock(&o->rwlock); }

static void write_block(struct objects *o) { CHECK_EQ(coir_rwlock_read(&o->rwlock, COIR_NEVER), 0); }
static int write_call(struct objects *o, int64_t deadline) { return coir_rwlock_write(&o->rwlock, deadline); }

static void nothing(struct objects *o) { (void)o; }

static void cond_unblock(struct objects *o) { coir_cond_signal(&o->cond); }
static int cond_call(struct objects *o, int64_t deadline) {
  lock(&o->mutex);
  int rc = coir_cond_wait(&o->cond, &o->mutex, deadline);
  CHECK_EQ(coir_mutex_lock(&o->mutex, 0), -EDEADLK); /* it is locked, however it ended */
  coir_mutex_unlock(&o->mutex);
  return rc;
}

static void sem_unblock(struct objects *o) { coir_sem_release(&o->sem, 2); }
static int sem_call(struct objects *o, int64_t deadline) { return coir_sem_acquire(&o->sem, 2, deadline); }

static void group_block(struct objects *o) { coir_wait_group_add(&o->group, 1); }
static void group_unblock(struct objects *o) { coir_wait_group_done(&o->group); }
static int group_call(struct objects *o, int64_t deadline) { return coir_wait_group_wait(&o->group, deadline); }

static void event_unblock(struct objects *o) { coir_event_set(&o->event); }
static int event_call(struct objects *o, int64_t deadline) { return coir_event_wait(&o->event, deadline); }
static void event_undo(struct objects *o) { coir_event_reset(&o->event); }

static void barrier_block(struct objects *o) { coir_barrier_init(&o->barrier, 2); }
static void barrier_unblock(struct objects *o) { CHECK_EQ(coir_barrier_wait(&o->barrier, COIR_NEVER), 1); }
static int barrier_call(struct objects *o, int64_t deadline) { return coir_barrier_wait(&o->barrier, deadline); }

static void once_work(void *arg) {
  struct objects *o = arg;
  atomic_fetch_add(&o->runs, 1);
  CHECK_EQ(coir_event_wait(&o->go, COIR_NEVER), 0);
}
static int once_runner(void *arg) {
  struct objects *o = arg;
  return coir_once_do(&o->once, once_work, o, 0); /* who runs it does so whatever the deadline */
}
static void once_block(struct objects *o) {
  memset(&o->once, 0, sizeof o->once);
  coir_event_reset(&o->go);
  atomic_store(&o->runs, 0);
  o->at = spawn(once_runner, o);
  WAIT_FOR(atomic_load(&o->runs) == 1);
}
static void once_unblock(struct objects *o) {
  coir_event_set(&o->go);
  CHECK_EQ(join(o->at), 0);
}
static int once_call(struct objects *o, int64_t deadline) { return coir_once_do(&o->once, once_work, o, deadline); }
static void once_undo(struct objects *o) { CHECK_EQ(atomic_load(&o->runs), 1); }

static int flight_work(void *arg, void **value) {
  once_work(arg);
  *value = arg;
  return 42;
}
static int flight_leader(void *arg) {
  struct objects *o = arg;
  struct coir_result result = {0};
  int rc = coir_flight_do(&o->flight, "key", 3, flight_work, o, &result, 0);
  CHECK_EQ(result.status, 42);
  CHECK(result.value == o);
  return rc;
}
static void flight_block(struct objects *o) {
  coir_event_reset(&o->go);
  atomic_store(&o->runs, 0);
  o->at = spawn(flight_leader, o);
  WAIT_FOR(atomic_load(&o->runs) == 1);
}
static void flight_unblock(struct objects *o) {
  coir_event_set(&o->go);
  CHECK_EQ(join(o->at), 1);
}
static int flight_call(struct objects *o, int64_t deadline) {
  char key[4] = "key";
  struct coir_result result = {.status = -7, .value = key};
  int rc = coir_flight_do(&o->flight, key, 3, flight_work, o, &result, deadline);
  CHECK_EQ(result.status, rc ? -7 : 42); /* untouched by a call that failed */
  CHECK(result.value == (rc ? (void *)key : (void *)o));
  return rc;
}

enum { MUTEX, READ, WRITE, COND, SEM, GROUP, EVENT, BARRIER, ONCE, FLIGHT };
static const struct kind {
  const char *waits_for;
  void (*block)(struct objects *o);
  void (*unblock)(struct objects *o);
  int (*call)(struct objects *o, int64_t deadline);
  void (*undo)(struct objects *o);
  size_t offset; /* of what a list says that it waits on */
} kinds[] = {
    [MUTEX] = {"mutex", mutex_block, mutex_unblock, mutex_call, mutex_unblock, offsetof(struct objects, mutex)},
    [READ] = {"rwlock", read_block, read_unblock, read_call, read_undo, offsetof(struct objects, rwlock)},
    [WRITE] = {"rwlock", write_block, read_undo, write_call, read_unblock, offsetof(struct objects, rwlock)},
    [COND] = {"condition", nothing, cond_unblock, cond_call, nothing, offsetof(struct objects, cond)},
    [SEM] = {"semaphore", nothing, sem_unblock, sem_call, nothing, offsetof(struct objects, sem)},
    [GROUP] = {"wait group", group_block, group_unblock, group_call, nothing, offsetof(struct objects, group)},
    [EVENT] = {"event", nothing, event_unblock, event_call, event_undo, offsetof(struct objects, event)},
    [BARRIER] = {"barrier", barrier_block, barrier_unblock, barrier_call, nothing, offsetof(struct objects, barrier)},
    [ONCE] = {"once", once_block, once_unblock, once_call, once_undo, offsetof(struct objects, once)},
    [FLIGHT] = {"single flight", flight_block, flight_unblock, flight_call, once_undo,
                offsetof(struct objects, flight)},
};
#define EACH_KIND(k) for (const struct kind *k = kinds; k < kinds + sizeof kinds / sizeof *kinds; k++)

/* One call on a fiber or a thread of its own. */
struct op {
  const struct kind *kind;
  struct objects *objects;
  int64_t deadline;
  struct coir_fiber *fiber;
  pthread_t thread;
  _Atomic(pid_t) tid;
  _Atomic(int) done;
  int rc;
};

static int op_run(void *arg) {
  struct op *op = arg;
  op->rc = op->kind->call(op->objects, op->deadline);
  poison_stack();
  if (!op->rc) op->kind->undo(op->objects);
  atomic_store(&op->done, 1);
  return op->rc;
}
static void *op_thread(void *arg) {
  atomic_store(&((struct op *)arg)->tid, gettid());
  op_run(arg);
  return NULL;
}

static void op_start_thread(struct op *op, const struct kind *k, struct objects *o, int64_t deadline) {
  *op = (struct op){.kind = k, .objects = o, .deadline = deadline};
  CHECK_EQ(pthread_create(&op->thread, NULL, op_thread, op), 0);
}

static void op_start(struct op *op, const struct kind *k, struct objects *o, int64_t deadline) {
  *op = (struct op){.kind = k, .objects = o, .deadline = deadline};
  op->fiber = spawn(op_run, op);
}

/* Whether that fiber waits for something that is not time. */
static bool is_parked(struct coir_fiber *f) {
  static struct coir_fiber_info list[64];
  size_t n = coir_runtime_list(coir_runtime_current(), list, 64);
  for (size_t i = 0; i < n && i < 64; i++)
    if (list[i].id == coir_fiber_id(f))
      return list[i].state == COIR_FIBER_WAITING && strcmp(list[i].waits_for, "sleep") != 0;
  return false;
}

/* Starts it, and goes on when it waits, or has given up. */
static void op_park(struct op *op, const struct kind *k, struct objects *o, int64_t deadline) {
  op_start(op, k, o, deadline);
  WAIT_FOR(atomic_load(&op->done) || is_parked(op->fiber));
}

/* Whether a fiber of the caller's runtime waits for that object. */
static bool is_waited_for(const struct kind *k, struct objects *o) {
  static struct coir_fiber_info list[64];
  size_t n = coir_runtime_list(coir_runtime_current(), list, 64);
  for (size_t i = 0; i < n && i < 64; i++)
    if (list[i].state == COIR_FIBER_WAITING && list[i].waits_on == (uint64_t)(uintptr_t)o + k->offset) {
      CHECK_EQ(strcmp(list[i].waits_for, k->waits_for), 0);
      return true;
    }
  return false;
}

/* After all that may have happened: it blocks, and lets go. */
static void still_works(const struct kind *k, struct objects *o, bool is_blocked) {
  struct op op;
  if (!is_blocked) k->block(o);
  op_start(&op, k, o, COIR_NEVER);
  WAIT_FOR(is_waited_for(k, o));
  CHECK_EQ(atomic_load(&op.done), 0);
  k->unblock(o);
  CHECK_EQ(join(op.fiber), 0);
}

ON_FIBER(each_is_ready_when_zeroed_and_says_what_is_waited_for) {
  EACH_KIND(k) {
    struct objects o = {0};
    for (int i = 0; i < 3; i++) still_works(k, &o, false);
  }
}

ON_FIBER(a_deadline_that_has_passed_means_try_once) {
  EACH_KIND(k) {
    struct objects o = {0};
    k->block(&o);
    struct op op;
    int64_t passed[] = {0, -1, INT64_MIN, 1, coir_now()};
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
      op_start(&op, k, &o, passed[i]);
      CHECK_EQ(join(op.fiber), -ETIMEDOUT);
    }
    still_works(k, &o, true);
  }
}

ON_FIBER(a_deadline_ends_the_wait_and_leaves_no_trace) {
  EACH_KIND(k) {
    struct objects o = {0};
    k->block(&o);
    struct op op;
    int64_t deadline = coir_after(SOME_MS);
    op_start(&op, k, &o, deadline);
    CHECK_EQ(join(op.fiber), -ETIMEDOUT);
    CHECK(coir_now() >= deadline);
    op_start_thread(&op, k, &o, coir_after(SOME_MS));
    WAIT_FOR(atomic_load(&op.done));
    CHECK_EQ(pthread_join(op.thread, NULL), 0);
    CHECK_EQ(op.rc, -ETIMEDOUT);
    CHECK(coir_now() >= op.deadline);
    still_works(k, &o, true);
  }
}

ON_FIBER(cancelling_ends_the_wait_and_leaves_no_trace) {
  EACH_KIND(k) {
    struct objects o = {0};
    k->block(&o);
    struct op op;
    op_start(&op, k, &o, COIR_NEVER);
    WAIT_FOR(is_waited_for(k, &o));
    CHECK_EQ(coir_cancel(op.fiber), 0);
    CHECK_EQ(join(op.fiber), -ECANCELED);
    still_works(k, &o, true);
  }
}

static int cancelled_before(void *arg) {
  struct op *op = arg;
  CHECK_EQ(coir_cancel(coir_current()), 0);
  CHECK_EQ(op->kind->call(op->objects, COIR_NEVER), -ECANCELED);
  return op_run(op);
}

ON_FIBER(a_pending_cancellation_ends_the_next_wait_and_only_that) {
  EACH_KIND(k) {
    struct objects o = {0};
    k->block(&o);
    struct op op = {.kind = k, .objects = &o, .deadline = coir_after(SOME_MS)};
    CHECK_EQ(join(spawn(cancelled_before, &op)), -ETIMEDOUT);
    still_works(k, &o, true);
  }
}

ON_FIBER(threads_wait_like_fibers) {
  EACH_KIND(k) {
    struct objects o = {0};
    k->block(&o);
    struct op op;
    op_start_thread(&op, k, &o, COIR_NEVER);
    for (int i = 0; i < 3; i++) {
      WAIT_FOR(atomic_load(&op.tid) && thread_state(atomic_load(&op.tid)) == 'S');
      CHECK_EQ(coir_sleep(COIR_US(300)), 0);
    }
    CHECK_EQ(atomic_load(&op.done), 0);
    k->unblock(&o);
    WAIT_FOR(atomic_load(&op.done));
    CHECK_EQ(pthread_join(op.thread, NULL), 0);
    CHECK_EQ(op.rc, 0);
    still_works(k, &o, false);
  }
}

/* ---- Memory is free as soon as a waiter was let go ------------------------------------------------------------- */

struct parting {
  const struct kind *kind;
  struct objects *_Atomic next; /* what to unblock, or NULL */
  _Atomic(int) over;
  uint64_t rng, unblocker_rng;
};

static void jitter(uint64_t *rng) {
  for (uint64_t n = rng_next(rng) % 200; n > 0; n--) __asm__ volatile("");
}

/* Unblocks what the other side waits for, which may free it at once. */
static int unblocker(void *arg) {
  struct parting *p = arg;
  while (!atomic_load(&p->over)) {
    struct objects *o = atomic_load(&p->next);
    if (!o) {
      coir_yield();
      continue;
    }
    atomic_store(&p->next, NULL);
    jitter(&p->unblocker_rng);
    if (p->kind->block == mutex_block) lock(&o->mutex);
    else if (p->kind->call == read_call) CHECK_EQ(coir_rwlock_write(&o->rwlock, COIR_NEVER), 0);
    else if (p->kind->call == write_call) CHECK_EQ(coir_rwlock_read(&o->rwlock, COIR_NEVER), 0);
    atomic_fetch_add(&o->runs, 1);
    jitter(&p->unblocker_rng);
    if (p->kind->call == cond_call) {
      lock(&o->mutex);
      coir_cond_signal(&o->cond);
      coir_mutex_unlock(&o->mutex);
    } else {
      p->kind->unblock(o);
    }
  }
  return 0;
}
static void *unblocker_thread(void *arg) { return unblocker(arg), NULL; }

static void part(struct parting *p, const struct kind *k) {
  struct objects *o = calloc(1, sizeof *o);
  CHECK(o);
  if (k->block == group_block || k->block == barrier_block) k->block(o);
  if (k->call == cond_call) lock(&o->mutex);
  atomic_store(&p->next, o);
  bool holds = k->undo == mutex_unblock || k->call == read_call || k->call == write_call;
  while (holds && !atomic_load(&o->runs)) coir_yield(); /* until it is locked */
  jitter(&p->rng);
  if (k->call == cond_call) {
    CHECK_EQ(coir_cond_wait(&o->cond, &o->mutex, COIR_NEVER), 0);
    coir_mutex_unlock(&o->mutex);
  } else {
    int rc = k->call(o, COIR_NEVER);
    if (k->call == barrier_call && rc == 1) { /* we came last, and the other may be about to free: leave it to it */
      return;
    }
    CHECK_EQ(rc, 0);
    if (holds) k->undo(o);
  }
  memset((void *)o, 0xa5, sizeof *o);
  free(o);
}

/* A barrier's other side is let go by us as often as not; whoever is let go frees. */
static void barrier_unblock_and_free(struct objects *o) {
  if (coir_barrier_wait(&o->barrier, COIR_NEVER)) return;
  memset((void *)o, 0xa5, sizeof *o);
  free(o);
}

static void part_often(const struct kind *k, bool from_thread) {
  struct kind kind = *k;
  if (k->call == barrier_call) kind.unblock = barrier_unblock_and_free;
  struct parting p = {.kind = &kind, .rng = rng_seed(7), .unblocker_rng = rng_seed(8)};
  pthread_t thread;
  struct coir_fiber *f = NULL;
  if (from_thread) CHECK_EQ(pthread_create(&thread, NULL, unblocker_thread, &p), 0);
  else f = spawn(unblocker, &p);
  for (int i = 0; i < (from_thread ? 200 : 1000); i++) part(&p, &kind);
  atomic_store(&p.over, 1);
  if (f) CHECK_EQ(join(f), 0);
  else CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void part_all(bool from_thread) {
  EACH_KIND(k) {
    if (k->call != once_call && k->call != flight_call) part_often(k, from_thread);
  }
}

ON_FIBER(who_is_let_go_may_free_the_object) { part_all(false); }
ON_FIBER(who_is_let_go_by_a_thread_may_free_the_object) { part_all(true); }

static void quick_work(void *arg) { atomic_fetch_add((_Atomic(int) *)arg, 1); }
static int quick_flight(void *arg, void **value) {
  (void)value;
  coir_yield();
  return atomic_fetch_add((_Atomic(int) *)arg, 1);
}

/* Both do the same once; the object is freed by the second that is through. */
struct sharing {
  struct objects *_Atomic next;
  _Atomic(int) over;
  bool is_flight;
};
static void share(struct sharing *s, struct objects *o) {
  struct coir_result result;
  int rc = s->is_flight ? coir_flight_do(&o->flight, "k", 1, quick_flight, &o->runs, &result, COIR_NEVER)
                        : coir_once_do(&o->once, quick_work, &o->runs, COIR_NEVER);
  CHECK(rc == 0 || rc == 1);
  if (!s->is_flight) CHECK_EQ(atomic_load(&o->runs), 1);
}
static int sharer(void *arg) {
  struct sharing *s = arg;
  while (!atomic_load(&s->over)) {
    struct objects *o = atomic_load(&s->next);
    if (o) {
      share(s, o);
      atomic_store(&s->next, NULL);
    }
    coir_yield();
  }
  return 0;
}

ON_FIBER(a_once_or_flight_may_be_freed_when_all_have_returned) {
  for (int is_flight = 0; is_flight < 2; is_flight++) {
    struct sharing s = {.is_flight = is_flight};
    struct coir_fiber *f = spawn(sharer, &s);
    for (int i = 0; i < rounds(2000); i++) {
      struct objects *o = calloc(1, sizeof *o);
      CHECK(o);
      atomic_store(&s.next, o);
      share(&s, o);
      while (atomic_load(&s.next)) coir_yield();
      memset((void *)o, 0xa5, sizeof *o);
      free(o);
    }
    atomic_store(&s.over, 1);
    CHECK_EQ(join(f), 0);
  }
}

/* ---- Mutex ----------------------------------------------------------------------------------------------------- */

struct tally {
  struct coir_mutex mutex;
  long plain;          /* under the mutex */
  _Atomic(int) inside; /* how many believe to hold it */
  int rounds;
};

static int counts(void *arg) {
  struct tally *t = arg;
  for (int i = 0; i < t->rounds; i++) {
    lock(&t->mutex);
    CHECK_EQ(atomic_fetch_add(&t->inside, 1), 0);
    t->plain++;
    if (i % 16 == 0) coir_yield();
    CHECK_EQ(atomic_fetch_sub(&t->inside, 1), 1);
    coir_mutex_unlock(&t->mutex);
  }
  return 0;
}
static void *counts_thread(void *arg) { return counts(arg), NULL; }

ON_FIBER(a_mutex_excludes_fibers_and_threads) {
  struct tally t = {.rounds = rounds(5000)};
  pthread_t threads[2];
  struct coir_fiber *fibers[8];
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, counts_thread, &t), 0);
  for (int i = 0; i < 8; i++) fibers[i] = spawn(counts, &t);
  for (int i = 0; i < 8; i++) CHECK_EQ(join(fibers[i]), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(t.plain, 10L * t.rounds);
}

ON_BOTH(a_mutex_is_not_locked_twice) {
  struct coir_mutex m = {0};
  lock(&m);
  CHECK_EQ(coir_mutex_lock(&m, 0), -EDEADLK);
  CHECK_EQ(coir_mutex_lock(&m, COIR_NEVER), -EDEADLK);
  coir_mutex_unlock(&m);
  lock(&m);
  coir_mutex_unlock(&m);
}

ON_FIBER(a_lock_that_need_not_wait_does_not_notice_a_cancellation) {
  struct coir_mutex m = {0};
  CHECK_EQ(coir_cancel(coir_current()), 0);
  lock(&m);
  coir_mutex_unlock(&m);
  CHECK_EQ(coir_sleep(COIR_SEC(1)), -ECANCELED);
}

ON_FIBER(waiters_that_leave_lose_nobodys_turn) {
  struct objects o = {0};
  struct op ops[6];
  mutex_block(&o);
  for (int i = 0; i < 6; i++) {
    op_park(&ops[i], &kinds[MUTEX], &o, i % 3 == 1 ? coir_after(SOME_MS) : COIR_NEVER);
  }
  for (int i = 0; i < 6; i += 3) CHECK_EQ(coir_cancel(ops[i].fiber), 0);
  for (int i = 0; i < 6; i += 3) CHECK_EQ(join(ops[i].fiber), -ECANCELED);
  for (int i = 1; i < 6; i += 3) CHECK_EQ(join(ops[i].fiber), -ETIMEDOUT);
  mutex_unblock(&o);
  for (int i = 2; i < 6; i += 3) CHECK_EQ(join(ops[i].fiber), 0);
}

/* Eight that keep the mutex nearly all the time, and one that wants it now and then. */
struct crowd {
  struct coir_mutex mutex;
  _Atomic(int) over;
  _Atomic(long) passes;
  int yields;
};

static int barges(void *arg) {
  struct crowd *c = arg;
  while (!atomic_load(&c->over)) {
    lock(&c->mutex);
    atomic_fetch_add(&c->passes, 1);
    int64_t end = coir_after(COIR_US(20));
    while (coir_now() < end) {}
    if (c->yields) coir_yield();
    coir_mutex_unlock(&c->mutex);
    if (!c->yields) coir_yield();
  }
  return 0;
}

static void no_waiter_starves(int yields) {
  struct crowd c = {.yields = yields};
  struct coir_fiber *fibers[8];
  for (int i = 0; i < 8; i++) fibers[i] = spawn(barges, &c);
  for (int i = 0; i < rounds(20); i++) {
    int64_t begin = coir_now();
    lock(&c.mutex);
    CHECK(coir_now() - begin < COIR_SEC(5)); /* a millisecond and a few sections, were we alone on this machine */
    coir_mutex_unlock(&c.mutex);
    coir_yield();
  }
  atomic_store(&c.over, 1);
  for (int i = 0; i < 8; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK(atomic_load(&c.passes) > 0);
}

ON_FIBER(no_waiter_starves_while_others_barge) { no_waiter_starves(0); }
ON_FIBER(no_waiter_starves_while_others_barge_and_suspend_inside) { no_waiter_starves(1); }

static int wants_it_once(void *arg) {
  struct crowd *c = arg;
  lock(&c->mutex);
  atomic_store(&c->over, 1);
  coir_mutex_unlock(&c->mutex);
  return 0;
}

/* The one that is woken never comes to run by itself where there is one worker: the mutex must be kept for it, be the
 * sections short or long. */
ON_FIBER(who_never_gives_way_cannot_keep_a_mutex) {
  for (int i = 0; i < 3; i++) {
    struct crowd c = {0};
    int64_t section = i == 2 ? COIR_MS(10) : 0, passes = 0;
    lock(&c.mutex);
    struct coir_fiber *f = spawn(wants_it_once, &c);
    until_parked(1);
    int64_t end = coir_after(COIR_SEC(20));
    coir_mutex_unlock(&c.mutex);
    while (!atomic_load(&c.over)) {
      lock(&c.mutex);
      int64_t now = coir_now();
      CHECK(now < end);
      while (coir_now() < now + section) {}
      passes++;
      coir_mutex_unlock(&c.mutex);
    }
    if (section) CHECK(passes <= 3);
    CHECK_EQ(join(f), 0);
  }
}

/* ---- Misuse ---------------------------------------------------------------------------------------------------- */

static struct objects misused;

static void unlock_unlocked(void) { coir_mutex_unlock(&misused.mutex); }
static void *locks_thread(void *arg) { return lock(arg), NULL; }
static void unlock_anothers(void) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, locks_thread, &misused.mutex), 0);
  lock(&(struct coir_mutex){0}); /* so that our record is not the other's */
  pthread_join(thread, NULL);
  coir_mutex_unlock(&misused.mutex);
}
static int unlocks_mutex(void *arg) {
  coir_mutex_unlock(arg);
  return 0;
}
static int locks_and_joins(void *arg) {
  lock(arg);
  return join(spawn(unlocks_mutex, arg));
}
static void unlock_anothers_on_fiber(void) { run(locks_and_joins, &misused.mutex); }
static void wait_without_mutex(void) { (void)coir_cond_wait(&misused.cond, &misused.mutex, 0); }
static void read_unlock_unread(void) { coir_rwlock_read_unlock(&misused.rwlock); }
static void read_unlock_written(void) {
  CHECK_EQ(coir_rwlock_write(&misused.rwlock, 0), 0);
  coir_rwlock_read_unlock(&misused.rwlock);
}
static void write_unlock_unwritten(void) { coir_rwlock_write_unlock(&misused.rwlock); }
static void write_unlock_read(void) {
  CHECK_EQ(coir_rwlock_read(&misused.rwlock, 0), 0);
  coir_rwlock_write_unlock(&misused.rwlock);
}
static void sem_init_negative(void) { coir_sem_init(&misused.sem, -1); }
static void sem_release_negative(void) { coir_sem_release(&misused.sem, -1); }
static void sem_release_too_many(void) {
  coir_sem_init(&misused.sem, INT64_MAX);
  coir_sem_release(&misused.sem, 0);
  coir_sem_release(&misused.sem, 1);
}
static void group_negative(void) {
  coir_wait_group_add(&misused.group, 2);
  coir_wait_group_add(&misused.group, -3);
}
static void group_done_twice(void) {
  coir_wait_group_add(&misused.group, 1);
  coir_wait_group_done(&misused.group);
  coir_wait_group_done(&misused.group);
}
static void group_too_many(void) {
  coir_wait_group_add(&misused.group, INT64_MAX);
  coir_wait_group_add(&misused.group, 1);
}
static void barrier_of_nobody(void) { coir_barrier_init(&misused.barrier, 0); }

static void misuse_aborts_with_a_message(void **state) {
  (void)state;
  static const struct {
    void (*fn)(void);
    const char *says;
  } cases[] = {
      {unlock_unlocked, "coir_mutex_unlock: the caller does not hold the mutex"},
      {unlock_anothers, "coir_mutex_unlock: the caller does not hold the mutex"},
      {unlock_anothers_on_fiber, "coir_mutex_unlock: the caller does not hold the mutex"},
      {wait_without_mutex, "coir_cond_wait: the caller does not hold the mutex"},
      {read_unlock_unread, "coir_rwlock_read_unlock: nobody holds the lock for reading"},
      {read_unlock_written, "coir_rwlock_read_unlock: nobody holds the lock for reading"},
      {write_unlock_unwritten, "coir_rwlock_write_unlock: the caller does not hold the lock for writing"},
      {write_unlock_read, "coir_rwlock_write_unlock: the caller does not hold the lock for writing"},
      {sem_init_negative, "coir_sem_init: negative number of permits"},
      {sem_release_negative, "coir_sem_release: negative number of permits"},
      {sem_release_too_many, "coir_sem_release: more permits than can be counted"},
      {group_negative, "negative WaitGroup counter"},
      {group_done_twice, "negative WaitGroup counter"},
      {group_too_many, "wait group counter beyond what can be counted"},
      {barrier_of_nobody, "coir_barrier_init: fewer than one party"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[1024];
    int status = in_child_process(cases[i].fn, text, sizeof text);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(text, cases[i].says));
  }
}

/* ---- Condition ------------------------------------------------------------------------------------------------- */

struct turn {
  struct objects *objects;
  _Atomic(int) *order;
  int place;
};

static int cond_waits(void *arg) {
  struct turn *t = arg;
  lock(&t->objects->mutex);
  CHECK_EQ(coir_cond_wait(&t->objects->cond, &t->objects->mutex, COIR_NEVER), 0);
  t->place = atomic_fetch_add(t->order, 1);
  coir_mutex_unlock(&t->objects->mutex);
  return 0;
}

ON_FIBER(a_signal_wakes_the_one_that_has_waited_longest) {
  struct objects o = {0};
  _Atomic(int) order = 0;
  struct turn turns[6];
  struct coir_fiber *fibers[6];
  coir_cond_signal(&o.cond); /* for nobody: lost */
  coir_cond_broadcast(&o.cond);
  for (int i = 0; i < 6; i++) {
    turns[i] = (struct turn){&o, &order, -1};
    fibers[i] = spawn(cond_waits, &turns[i]);
    until_parked(i + 1);
  }
  for (int i = 0; i < 3; i++) {
    if (i) lock(&o.mutex);
    coir_cond_signal(&o.cond); /* with and without the mutex */
    if (i) coir_mutex_unlock(&o.mutex);
    CHECK_EQ(join(fibers[i]), 0);
    CHECK_EQ(turns[i].place, i);
    until_parked(5 - i);
  }
  coir_cond_broadcast(&o.cond);
  for (int i = 3; i < 6; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(atomic_load(&order), 6);
}

static int waits_then_sleeps(void *arg) {
  struct objects *o = arg;
  int rc = cond_call(o, COIR_NEVER);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  return rc;
}

/* It has its signal and waits for the mutex only: a cancellation is the next call's. */
ON_FIBER(locking_again_after_a_signal_is_not_cancelled) {
  struct objects o = {0};
  struct coir_fiber *f = spawn(waits_then_sleeps, &o);
  until_parked(1);
  lock(&o.mutex);
  coir_cond_signal(&o.cond);
  WAIT_FOR(is_waited_for(&kinds[MUTEX], &o));
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(coir_sleep(COIR_US(200)), 0);
  coir_mutex_unlock(&o.mutex);
  CHECK_EQ(join(f), 0);
}

ON_FIBER(a_signal_is_not_for_one_that_has_left) {
  struct objects o = {0};
  struct op leaves, waits;
  op_park(&leaves, &kinds[COND], &o, COIR_NEVER);
  op_park(&waits, &kinds[COND], &o, COIR_NEVER);
  lock(&o.mutex);
  CHECK_EQ(coir_cancel(leaves.fiber), 0);
  WAIT_FOR(is_waited_for(&kinds[MUTEX], &o)); /* it has left the condition, and waits for the mutex */
  coir_cond_signal(&o.cond);
  coir_mutex_unlock(&o.mutex);
  CHECK_EQ(join(leaves.fiber), -ECANCELED);
  CHECK_EQ(join(waits.fiber), 0);
}

/* ---- Read-write lock ------------------------------------------------------------------------------------------- */

ON_BOTH(readers_share_and_a_writer_is_alone) {
  struct coir_rwlock l = {0};
  for (int i = 0; i < 100; i++) CHECK_EQ(coir_rwlock_read(&l, 0), 0);
  CHECK_EQ(coir_rwlock_write(&l, 0), -ETIMEDOUT);
  for (int i = 0; i < 100; i++) coir_rwlock_read_unlock(&l);
  CHECK_EQ(coir_rwlock_write(&l, 0), 0);
  CHECK_EQ(coir_rwlock_write(&l, COIR_NEVER), -EDEADLK);
  CHECK_EQ(coir_rwlock_read(&l, COIR_NEVER), -EDEADLK);
  coir_rwlock_write_unlock(&l);
  CHECK_EQ(coir_rwlock_read(&l, 0), 0);
  coir_rwlock_read_unlock(&l);
}

/* Holds the lock until it is told to go on. */
struct holder {
  struct coir_rwlock *lock;
  bool writes;
  _Atomic(int) has;
  struct coir_event go;
};
static int holds(void *arg) {
  struct holder *h = arg;
  CHECK_EQ(h->writes ? coir_rwlock_write(h->lock, COIR_NEVER) : coir_rwlock_read(h->lock, COIR_NEVER), 0);
  atomic_store(&h->has, 1);
  CHECK_EQ(coir_event_wait(&h->go, COIR_NEVER), 0);
  if (h->writes) coir_rwlock_write_unlock(h->lock);
  else coir_rwlock_read_unlock(h->lock);
  return 0;
}

ON_FIBER(readers_and_writers_go_in_order_of_arrival) {
  static const bool writes[] = {false, false, true, false, false, true, true, false};
  static const int group[] = {0, 0, 1, 2, 2, 3, 4, 5}; /* who has it together */
  struct coir_rwlock l = {0};
  struct holder h[8] = {0};
  struct coir_fiber *fibers[8];
  for (int i = 0; i < 8; i++) {
    h[i].lock = &l;
    h[i].writes = writes[i];
    fibers[i] = spawn(holds, &h[i]);
    until_parked(i + 1);
  }
  for (int g = 0; g < 6; g++) {
    for (int i = 0; i < 8; i++)
      if (group[i] == g) WAIT_FOR(atomic_load(&h[i].has));
    for (int i = 0; i < 8; i++) CHECK_EQ(atomic_load(&h[i].has), group[i] <= g);
    for (int i = 0; i < 8; i++)
      if (group[i] == g) coir_event_set(&h[i].go);
    for (int i = 0; i < 8; i++)
      if (group[i] == g) CHECK_EQ(join(fibers[i]), 0);
  }
}

ON_FIBER(a_writer_that_leaves_lets_those_behind_it_in) {
  for (int cancels = 0; cancels < 2; cancels++) {
    struct objects o = {0};
    struct op writer, readers[3];
    CHECK_EQ(coir_rwlock_read(&o.rwlock, 0), 0);
    op_park(&writer, &kinds[WRITE], &o, cancels ? COIR_NEVER : coir_after(SOME_MS));
    if (cancels) CHECK_EQ(coir_rwlock_read(&o.rwlock, 0), -ETIMEDOUT); /* behind the writer */
    for (int i = 0; i < 3; i++) op_start(&readers[i], &kinds[READ], &o, COIR_NEVER);
    if (cancels) until_parked(4);
    if (cancels) CHECK_EQ(coir_cancel(writer.fiber), 0);
    CHECK_EQ(join(writer.fiber), cancels ? -ECANCELED : -ETIMEDOUT);
    for (int i = 0; i < 3; i++) CHECK_EQ(join(readers[i].fiber), 0); /* while we read */
    coir_rwlock_read_unlock(&o.rwlock);
    CHECK_EQ(coir_rwlock_write(&o.rwlock, 0), 0);
    coir_rwlock_write_unlock(&o.rwlock);
  }
}

/* ---- Semaphore ------------------------------------------------------------------------------------------------- */

ON_BOTH(permits_are_counted) {
  struct coir_sem s = {0};
  CHECK_EQ(coir_sem_acquire(&s, 1, 0), -ETIMEDOUT);
  CHECK_EQ(coir_sem_acquire(&s, 0, 0), 0);
  CHECK_EQ(coir_sem_acquire(&s, -1, 0), -EINVAL);
  CHECK_EQ(coir_sem_acquire(&s, INT64_MIN, COIR_NEVER), -EINVAL);
  coir_sem_release(&s, 3);
  CHECK_EQ(coir_sem_acquire(&s, 4, 0), -ETIMEDOUT);
  CHECK_EQ(coir_sem_acquire(&s, 2, 0), 0);
  CHECK_EQ(coir_sem_acquire(&s, 2, 0), -ETIMEDOUT);
  CHECK_EQ(coir_sem_acquire(&s, 1, 0), 0);
  coir_sem_init(&s, INT64_MAX);
  CHECK_EQ(coir_sem_acquire(&s, INT64_MAX, 0), 0);
  CHECK_EQ(coir_sem_acquire(&s, 1, 0), -ETIMEDOUT);
  coir_sem_release(&s, INT64_MAX);
  coir_sem_release(&s, 0);
}

struct wish {
  struct coir_sem *sem;
  int64_t permits, deadline;
  _Atomic(int) done;
};
static int wishes(void *arg) {
  struct wish *wish = arg;
  int rc = coir_sem_acquire(wish->sem, wish->permits, wish->deadline);
  atomic_store(&wish->done, 1);
  return rc;
}

ON_FIBER(first_come_first_served_whatever_the_numbers) {
  static const int64_t wanted[] = {5, 1, 0, 2};
  struct coir_sem s = {0};
  struct wish w[4];
  struct coir_fiber *fibers[4];
  coir_sem_init(&s, 3);
  for (int i = 0; i < 4; i++) {
    w[i] = (struct wish){&s, wanted[i], COIR_NEVER, 0};
    fibers[i] = spawn(wishes, &w[i]);
    until_parked(i + 1);
  }
  CHECK_EQ(coir_sem_acquire(&s, 1, 0), -ETIMEDOUT); /* there are three, but others were here before */
  coir_sem_release(&s, 1);
  CHECK_EQ(coir_sleep(COIR_US(500)), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(atomic_load(&w[i].done), 0);
  coir_sem_release(&s, 2); /* 6: the first has five, the second one, the third none */
  for (int i = 0; i < 3; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(atomic_load(&w[3].done), 0);
  coir_sem_release(&s, 3);
  CHECK_EQ(join(fibers[3]), 0);
  CHECK_EQ(coir_sem_acquire(&s, 1, 0), 0);
  CHECK_EQ(coir_sem_acquire(&s, 1, 0), -ETIMEDOUT);
}

ON_FIBER(one_that_leaves_the_head_lets_the_next_in) {
  for (int cancels = 0; cancels < 2; cancels++) {
    struct coir_sem s = {0};
    coir_sem_init(&s, 3);
    struct wish w[3] = {
        {&s, 5, cancels ? COIR_NEVER : coir_after(SOME_MS), 0}, {&s, 1, COIR_NEVER, 0}, {&s, 2, COIR_NEVER, 0}};
    struct coir_fiber *fibers[3];
    for (int i = 0; i < 3; i++) {
      fibers[i] = spawn(wishes, &w[i]);
      WAIT_FOR(atomic_load(&w[i].done) || is_parked(fibers[i]));
    }
    if (cancels) CHECK_EQ(coir_cancel(fibers[0]), 0);
    CHECK_EQ(join(fibers[0]), cancels ? -ECANCELED : -ETIMEDOUT);
    for (int i = 1; i < 3; i++) CHECK_EQ(join(fibers[i]), 0);
  }
}

/* ---- Wait group ------------------------------------------------------------------------------------------------ */

ON_BOTH(a_wait_group_counts) {
  struct coir_wait_group g = {0};
  CHECK_EQ(coir_wait_group_count(&g), 0);
  CHECK_EQ(coir_wait_group_wait(&g, 0), 0);
  coir_wait_group_add(&g, 5);
  coir_wait_group_add(&g, -3);
  coir_wait_group_add(&g, 0);
  coir_wait_group_done(&g);
  CHECK_EQ(coir_wait_group_count(&g), 1);
  CHECK_EQ(coir_wait_group_wait(&g, 0), -ETIMEDOUT);
  coir_wait_group_done(&g);
  CHECK_EQ(coir_wait_group_wait(&g, COIR_NEVER), 0);
  coir_wait_group_add(&g, INT64_MAX);
  CHECK_EQ(coir_wait_group_count(&g), INT64_MAX);
}

ON_FIBER(what_is_added_after_zero_holds_nobody_back) {
  struct objects o = {0};
  struct op ops[4], late;
  coir_wait_group_add(&o.group, 1);
  for (int i = 0; i < 4; i++) op_park(&ops[i], &kinds[GROUP], &o, COIR_NEVER);
  coir_wait_group_add(&o.group, 1); /* while they wait: counts */
  coir_wait_group_done(&o.group);
  CHECK_EQ(coir_sleep(COIR_US(500)), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(atomic_load(&ops[i].done), 0);
  coir_wait_group_done(&o.group);
  coir_wait_group_add(&o.group, 1); /* before any of them runs: too late for them */
  op_start(&late, &kinds[GROUP], &o, COIR_NEVER);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(ops[i].fiber), 0);
  until_parked(1);
  CHECK_EQ(atomic_load(&late.done), 0);
  coir_wait_group_done(&o.group);
  CHECK_EQ(join(late.fiber), 0);
}

/* ---- Event ----------------------------------------------------------------------------------------------------- */

ON_BOTH(an_event_is_set_until_it_is_reset) {
  struct coir_event e = {0};
  CHECK(!coir_event_is_set(&e));
  CHECK_EQ(coir_event_wait(&e, 0), -ETIMEDOUT);
  for (int i = 0; i < 2; i++) coir_event_set(&e);
  CHECK(coir_event_is_set(&e));
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_event_wait(&e, 0), 0);
  for (int i = 0; i < 2; i++) coir_event_reset(&e);
  CHECK(!coir_event_is_set(&e));
  CHECK_EQ(coir_event_wait(&e, 0), -ETIMEDOUT);
}

static int event_waits(void *arg) { return coir_event_wait(arg, COIR_NEVER); }

ON_FIBER(setting_releases_all_who_wait_even_if_it_is_reset_at_once) {
  struct coir_event e = {0};
  struct coir_fiber *fibers[5];
  for (int i = 0; i < 5; i++) fibers[i] = spawn(event_waits, &e);
  until_parked(5);
  coir_event_set(&e);
  coir_event_reset(&e);
  for (int i = 0; i < 5; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(coir_event_wait(&e, 0), -ETIMEDOUT);
}

static int group_waits(void *arg) { return coir_wait_group_wait(arg, COIR_NEVER); }
static int sem_waits(void *arg) { return coir_sem_acquire(arg, 1, COIR_NEVER); }
static int mutex_waits(void *arg) {
  int rc = coir_mutex_lock(arg, COIR_NEVER);
  if (!rc) coir_mutex_unlock(arg);
  return rc;
}

ON_FIBER(ten_thousand_wait) {
  enum { N = 10000 };
  static struct coir_fiber *fibers[N];
  struct objects o = {0};
  struct coir_attr small = {.stack_bytes = 16 << 10};
  coir_wait_group_add(&o.group, 1);
  lock(&o.mutex);
  int n = rounds(N);
  const struct {
    coir_fn fn;
    void *object;
  } waits[] = {{event_waits, &o.event}, {group_waits, &o.group}, {sem_waits, &o.sem}, {mutex_waits, &o.mutex}};
  for (int k = 0; k < 4; k++) {
    for (int i = 0; i < n; i++) fibers[i] = spawn_with(small, waits[k].fn, waits[k].object);
    until_parked(n);
    int left = 0;
    for (int i = 0; i < n; i += 2) left += coir_cancel(fibers[i]) == 0;
    for (int i = 0; i < n; i += 2) CHECK_EQ(join(fibers[i]), -ECANCELED);
    CHECK_EQ(left, (n + 1) / 2);
    if (k == 0) coir_event_set(&o.event);
    else if (k == 1) coir_wait_group_done(&o.group);
    else if (k == 2) coir_sem_release(&o.sem, n / 2);
    else coir_mutex_unlock(&o.mutex);
    for (int i = 1; i < n; i += 2) CHECK_EQ(join(fibers[i]), 0);
  }
}

/* ---- Once ------------------------------------------------------------------------------------------------------ */

struct once_story {
  struct coir_once once;
  int runs;
  bool is_through;
};

static void once_slow(void *arg) {
  struct once_story *s = arg;
  s->runs++;
  CHECK_EQ(coir_once_do(&s->once, once_slow, s, COIR_NEVER), -EDEADLK);
  CHECK_EQ(coir_sleep(COIR_US(300)), 0);
  s->is_through = true;
}
static int once_caller(void *arg) {
  struct once_story *s = arg;
  int rc = coir_once_do(&s->once, once_slow, s, COIR_NEVER);
  CHECK(s->is_through);
  CHECK_EQ(s->runs, 1);
  return rc;
}
static void *once_thread(void *arg) {
  CHECK_EQ(once_caller(arg), 0);
  return NULL;
}

ON_FIBER(once_is_once_and_nobody_goes_on_before_it_is_done) {
  for (int i = 0; i < rounds(30); i++) {
    struct once_story s = {0};
    struct coir_fiber *fibers[6];
    pthread_t thread;
    for (int k = 0; k < 6; k++) fibers[k] = spawn(once_caller, &s);
    CHECK_EQ(pthread_create(&thread, NULL, once_thread, &s), 0);
    for (int k = 0; k < 6; k++) CHECK_EQ(join(fibers[k]), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(coir_once_do(&s.once, once_slow, &s, 0), 0);
    CHECK_EQ(s.runs, 1);
  }
}

ON_BOTH(the_caller_that_runs_it_returns_0) {
  _Atomic(int) runs = 0;
  struct coir_once once = {0};
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_once_do(&once, quick_work, (void *)&runs, 0), 0);
  CHECK_EQ(atomic_load(&runs), 1);
}

/* ---- Barrier --------------------------------------------------------------------------------------------------- */

ON_BOTH(a_barrier_for_one_stops_nobody) {
  struct coir_barrier zeroed = {0}, one;
  coir_barrier_init(&one, 1);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(coir_barrier_wait(&zeroed, 0), 1);
    CHECK_EQ(coir_barrier_wait(&one, COIR_NEVER), 1);
  }
}

#define PARTIES 5
#define ROUNDS_MAX 2000
struct meeting {
  struct coir_barrier barrier;
  _Atomic(int) came[ROUNDS_MAX], last[ROUNDS_MAX];
};
static int meets(void *arg) {
  struct meeting *m = arg;
  for (int i = 0; i < rounds(ROUNDS_MAX); i++) {
    atomic_fetch_add(&m->came[i], 1);
    int rc = coir_barrier_wait(&m->barrier, COIR_NEVER);
    CHECK(rc == 0 || rc == 1);
    CHECK_EQ(atomic_load(&m->came[i]), PARTIES);
    atomic_fetch_add(&m->last[i], rc);
  }
  return 0;
}
static void *meets_thread(void *arg) { return meets(arg), NULL; }

ON_FIBER(nobody_passes_a_barrier_before_all_have_come) {
  static struct meeting m;
  memset((void *)&m, 0, sizeof m);
  coir_barrier_init(&m.barrier, PARTIES);
  struct coir_fiber *fibers[PARTIES - 1];
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, meets_thread, &m), 0);
  for (int i = 0; i < PARTIES - 1; i++) fibers[i] = spawn(meets, &m);
  for (int i = 0; i < PARTIES - 1; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  for (int i = 0; i < rounds(ROUNDS_MAX); i++) CHECK_EQ(atomic_load(&m.last[i]), 1);
}

ON_FIBER(who_leaves_a_barrier_has_not_come) {
  for (int cancels = 0; cancels < 2; cancels++) {
    struct objects o = {0};
    struct op ops[3];
    coir_barrier_init(&o.barrier, 3);
    op_park(&ops[0], &kinds[BARRIER], &o, COIR_NEVER);
    op_park(&ops[1], &kinds[BARRIER], &o, cancels ? COIR_NEVER : coir_after(SOME_MS));
    if (cancels) CHECK_EQ(coir_cancel(ops[1].fiber), 0);
    CHECK_EQ(join(ops[1].fiber), cancels ? -ECANCELED : -ETIMEDOUT);
    op_park(&ops[2], &kinds[BARRIER], &o, COIR_NEVER); /* the second that has come */
    CHECK_EQ(atomic_load(&ops[0].done) + atomic_load(&ops[2].done), 0);
    CHECK_EQ(coir_barrier_wait(&o.barrier, 0), 1);
    CHECK_EQ(join(ops[0].fiber), 0);
    CHECK_EQ(join(ops[2].fiber), 0);
    CHECK_EQ(coir_barrier_wait(&o.barrier, 0), -ETIMEDOUT); /* the next round */
  }
}

/* ---- Single flight --------------------------------------------------------------------------------------------- */

struct ask {
  struct coir_flight *flight;
  const void *key;
  size_t key_bytes;
  struct coir_event *go;
  _Atomic(int) *runs;
  struct coir_result result;
};

static int ask_work(void *arg, void **value) {
  struct ask *a = arg;
  CHECK(*value == NULL);
  atomic_fetch_add(a->runs, 1);
  struct coir_result result = {0};
  CHECK_EQ(coir_flight_do(a->flight, a->key, a->key_bytes, ask_work, a, &result, COIR_NEVER), -EDEADLK);
  if (a->go) CHECK_EQ(coir_event_wait(a->go, COIR_NEVER), 0);
  *value = a;
  return -(int)a->key_bytes;
}
static int asks(void *arg) {
  struct ask *a = arg;
  return coir_flight_do(a->flight, a->key, a->key_bytes, ask_work, a, &a->result, COIR_NEVER);
}

ON_FIBER(one_does_the_work_for_all_who_ask_meanwhile) {
  struct coir_flight flight = {0};
  struct coir_event go = {0};
  _Atomic(int) runs = 0;
  struct ask a[8];
  struct coir_fiber *fibers[8];
  char copies[8][4];
  for (int i = 0; i < 8; i++) {
    memcpy(copies[i], "abcd", 4); /* the same key at different addresses */
    a[i] = (struct ask){&flight, copies[i], 4, &go, &runs, {1, NULL}};
    fibers[i] = spawn(asks, &a[i]);
    until_parked(i + 1);
  }
  CHECK_EQ(atomic_load(&runs), 1);
  coir_event_set(&go);
  int leaders = 0;
  for (int i = 0; i < 8; i++) {
    leaders += join(fibers[i]);
    CHECK_EQ(a[i].result.status, -4);
    CHECK(a[i].result.value == &a[0]);
  }
  CHECK_EQ(leaders, 1);
  CHECK_EQ(asks(&a[5]), 1); /* anew */
  CHECK(a[5].result.value == &a[5]);
  CHECK_EQ(atomic_load(&runs), 2);
}

ON_FIBER(different_keys_do_not_meet) {
  enum { N = 500 };
  static struct ask a[N];
  static struct coir_fiber *fibers[N];
  struct coir_flight flight = {0};
  struct coir_event go = {0};
  _Atomic(int) runs = 0;
  int n = rounds(N);
  for (int i = 0; i < n; i++) { /* of different lengths, one the beginning of the other; the first is empty */
    a[i] = (struct ask){&flight, i ? (void *)a : NULL, (size_t)i, &go, &runs, {1, NULL}};
    fibers[i] = spawn(asks, &a[i]);
  }
  /* The key is memory that does not change meanwhile: the entries further up have been written. */
  until_parked(n);
  CHECK_EQ(atomic_load(&runs), n);
  coir_event_set(&go);
  for (int i = 0; i < n; i++) {
    CHECK_EQ(join(fibers[i]), 1);
    CHECK(a[i].result.value == &a[i]);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_is_ready_when_zeroed_and_says_what_is_waited_for),
      cmocka_unit_test(a_deadline_that_has_passed_means_try_once),
      cmocka_unit_test(a_deadline_ends_the_wait_and_leaves_no_trace),
      cmocka_unit_test(cancelling_ends_the_wait_and_leaves_no_trace),
      cmocka_unit_test(a_pending_cancellation_ends_the_next_wait_and_only_that),
      cmocka_unit_test(threads_wait_like_fibers),
      cmocka_unit_test(who_is_let_go_may_free_the_object),
      cmocka_unit_test(who_is_let_go_by_a_thread_may_free_the_object),
      cmocka_unit_test(a_once_or_flight_may_be_freed_when_all_have_returned),
      cmocka_unit_test(a_mutex_excludes_fibers_and_threads),
      cmocka_unit_test(a_mutex_is_not_locked_twice),
      cmocka_unit_test(a_lock_that_need_not_wait_does_not_notice_a_cancellation),
      cmocka_unit_test(waiters_that_leave_lose_nobodys_turn),
      cmocka_unit_test(no_waiter_starves_while_others_barge),
      cmocka_unit_test(no_waiter_starves_while_others_barge_and_suspend_inside),
      cmocka_unit_test(who_never_gives_way_cannot_keep_a_mutex),
      cmocka_unit_test(misuse_aborts_with_a_message),
      cmocka_unit_test(a_signal_wakes_the_one_that_has_waited_longest),
      cmocka_unit_test(locking_again_after_a_signal_is_not_cancelled),
      cmocka_unit_test(a_signal_is_not_for_one_that_has_left),
      cmocka_unit_test(readers_share_and_a_writer_is_alone),
      cmocka_unit_test(readers_and_writers_go_in_order_of_arrival),
      cmocka_unit_test(a_writer_that_leaves_lets_those_behind_it_in),
      cmocka_unit_test(permits_are_counted),
      cmocka_unit_test(first_come_first_served_whatever_the_numbers),
      cmocka_unit_test(one_that_leaves_the_head_lets_the_next_in),
      cmocka_unit_test(a_wait_group_counts),
      cmocka_unit_test(what_is_added_after_zero_holds_nobody_back),
      cmocka_unit_test(an_event_is_set_until_it_is_reset),
      cmocka_unit_test(setting_releases_all_who_wait_even_if_it_is_reset_at_once),
      cmocka_unit_test(ten_thousand_wait),
      cmocka_unit_test(once_is_once_and_nobody_goes_on_before_it_is_done),
      cmocka_unit_test(the_caller_that_runs_it_returns_0),
      cmocka_unit_test(a_barrier_for_one_stops_nobody),
      cmocka_unit_test(nobody_passes_a_barrier_before_all_have_come),
      cmocka_unit_test(who_leaves_a_barrier_has_not_come),
      cmocka_unit_test(one_does_the_work_for_all_who_ask_meanwhile),
      cmocka_unit_test(different_keys_do_not_meet),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
