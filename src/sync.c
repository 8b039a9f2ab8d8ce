/* Semaphores, wait groups, events, once, barriers, single flight.
 *
 * Each is a few words under the lock of its queue of waiters; waiting is wait.c's affair. What they have in common:
 * who lets others go on claims them under that lock, gives it back as its last touch of the object, and wakes them
 * after that. So who was let go may free the object; and who finds without waiting that it need not wait has looked
 * under the lock, or has seen that nobody is inside.
 *
 * A waiter that gives up is still linked for a moment, until it takes the lock and leaves. Where it may have kept
 * others out (semaphore) or been counted on (barrier) it sets that right then; and so does who drops it. What it had
 * been given and will never use is given back, if the object cannot have been freed since.
 *
 * What others wait for has to return (once, single flight): calls that leave frames behind would leave them waiting for
 * ever. So each stack has a list of the functions on it that are such, and those calls look at it. When the stack goes,
 * because its fiber is dropped, the others are told. */
#include <string.h>

#include "internal.h"

/* ---- Semaphores ------------------------------------------------------------------------------------------------ */

struct COIR__OVERLAY sem {
  struct coir__waitq q;
  int64_t permits; /* (l) */
};
_Static_assert(sizeof(struct sem) <= sizeof(struct coir_sem), "a semaphore fits");
_Static_assert(_Alignof(struct sem) <= _Alignof(struct coir_sem), "a semaphore is aligned");

/* In the waiter's frame. */
struct sem_waiter {
  struct coir__clause clause; /* first: what the queue links */
  int64_t permits;            /* (c) that it wants */
};

/* Gives the first in the queue what they want for as far as it lasts, gives the lock back, and wakes them. One that
 * has given up and wants more than there is keeps the others out until it leaves, and calls this then. */
static void sem_admit(struct coir__worker *w, struct sem *s) {
  struct coir__clause *admitted = NULL, **end = &admitted;
  for (struct coir__clause *c; (c = s->q.list.first) != NULL;) {
    int64_t wanted = ((struct sem_waiter *)c)->permits;
    if (wanted > s->permits) break;
    coir__clause_unlink(c);
    if (!coir__claim(c)) continue;
    s->permits -= wanted;
    c->next = NULL;
    *end = c;
    end = &c->next;
  }
  coir__bias_unlock(w, &s->q.lock);
  coir__wake_all(w, admitted);
}

void coir_sem_init(struct coir_sem *sem, int64_t permits) {
  if (permits < 0) coir__fatal("coir_sem_init: negative number of permits");
  memset(sem, 0, sizeof *sem);
  ((struct sem *)sem)->permits = permits;
}

/* For it may have been what kept others out. */
static void sem_leave(struct coir__waitq *q, struct coir__clause *c, bool given) {
  struct sem *s = (struct sem *)q;
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &s->q.lock);
  if (given) s->permits += ((struct sem_waiter *)c)->permits;
  sem_admit(w, s);
}

int coir_sem_acquire(struct coir_sem *sem, int64_t permits, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct sem *s = (struct sem *)sem;
  if (permits < 0) return -EINVAL;
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &s->q.lock);
  if (COIR_LIKELY(!s->q.list.first && permits <= s->permits)) {
    s->permits -= permits;
    coir__bias_unlock(w, &s->q.lock);
    return 0;
  }
  struct sem_waiter me = {.permits = permits};
  return coir__waitq_wait(w, &s->q, &me.clause, COIR__REASON_SEM, deadline, sem_leave);
}

void coir_sem_release(struct coir_sem *sem, int64_t permits) {
  COIR_INSIDE;
  struct sem *s = (struct sem *)sem;
  if (permits < 0) coir__fatal("coir_sem_release: negative number of permits");
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &s->q.lock);
  if (COIR_UNLIKELY(permits > INT64_MAX - s->permits)) {
    coir__bias_unlock(w, &s->q.lock);
    coir__fatal("coir_sem_release: more permits than can be counted");
  }
  s->permits += permits;
  sem_admit(w, s);
}

/* ---- Wait groups ----------------------------------------------------------------------------------------------- */

struct COIR__OVERLAY wait_group {
  struct coir__waitq q;
  int64_t count; /* (l) */
};
_Static_assert(sizeof(struct wait_group) <= sizeof(struct coir_wait_group), "a wait group fits");
_Static_assert(_Alignof(struct wait_group) <= _Alignof(struct coir_wait_group), "a wait group is aligned");

struct coir__waitq *coir__wait_group_queue(struct coir_wait_group *group) {
  return &((struct wait_group *)group)->q;
}

bool coir__wait_group_is_zero_locked(const struct coir_wait_group *group) {
  return ((const struct wait_group *)group)->count == 0;
}

void coir_wait_group_add(struct coir_wait_group *group, int64_t n) {
  COIR_INSIDE_ON(w);
  struct wait_group *g = (struct wait_group *)group;
  coir__bias_lock(w, &g->q.lock);
  bool is_over = __builtin_add_overflow(g->count, n, &g->count);
  if (COIR_UNLIKELY(is_over || g->count < 0)) {
    coir__bias_unlock(w, &g->q.lock);
    coir__fatal("%s",
                is_over && n > 0 ? "wait group counter beyond what can be counted" : "negative WaitGroup counter");
  }
  struct coir__clause *all = g->count || !g->q.list.first ? NULL : coir__waitlist_take_all(&g->q.list);
  coir__bias_unlock(w, &g->q.lock);
  coir__wake_all(w, all);
}

void coir_wait_group_done(struct coir_wait_group *group) { coir_wait_group_add(group, -1); }

int64_t coir_wait_group_count(const struct coir_wait_group *group) {
  COIR_INSIDE_ON(w);
  struct wait_group *g = (struct wait_group *)(uintptr_t)group; /* its lock is written */
  coir__bias_lock(w, &g->q.lock);
  int64_t count = g->count;
  coir__bias_unlock(w, &g->q.lock);
  return count;
}

int coir_wait_group_wait(struct coir_wait_group *group, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_ON(w, deadline);
  struct wait_group *g = (struct wait_group *)group;
  struct coir__clause clause;
  coir__bias_lock(w, &g->q.lock);
  if (g->count) return coir__waitq_wait(w, &g->q, &clause, COIR__REASON_WAIT_GROUP, deadline, NULL);
  coir__bias_unlock(w, &g->q.lock);
  return 0;
}

/* ---- Events ---------------------------------------------------------------------------------------------------- */

struct COIR__OVERLAY event {
  struct coir__waitq q;
  bool is_set; /* (l) */
};
_Static_assert(sizeof(struct event) <= sizeof(struct coir_event), "an event fits");
_Static_assert(_Alignof(struct event) <= _Alignof(struct coir_event), "an event is aligned");

struct coir__waitq *coir__event_queue(struct coir_event *event) {
  return &((struct event *)event)->q;
}

bool coir__event_is_set_locked(const struct coir_event *event) { return ((const struct event *)event)->is_set; }

void coir_event_set(struct coir_event *event) {
  COIR_INSIDE_ON(w);
  struct event *e = (struct event *)event;
  coir__bias_lock(w, &e->q.lock);
  e->is_set = true;
  struct coir__clause *all = coir__waitlist_take_all(&e->q.list);
  coir__bias_unlock(w, &e->q.lock);
  coir__wake_all(w, all);
}

void coir_event_reset(struct coir_event *event) {
  COIR_INSIDE_ON(w);
  struct event *e = (struct event *)event;
  coir__bias_lock(w, &e->q.lock);
  e->is_set = false;
  coir__bias_unlock(w, &e->q.lock);
}

bool coir_event_is_set(const struct coir_event *event) {
  COIR_INSIDE_ON(w);
  struct event *e = (struct event *)(uintptr_t)event; /* its lock is written */
  coir__bias_lock(w, &e->q.lock);
  bool is_set = e->is_set;
  coir__bias_unlock(w, &e->q.lock);
  return is_set;
}

int coir_event_wait(struct coir_event *event, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_ON(w, deadline);
  struct event *e = (struct event *)event;
  struct coir__clause clause;
  coir__bias_lock(w, &e->q.lock);
  if (!e->is_set) return coir__waitq_wait(w, &e->q, &clause, COIR__REASON_EVENT, deadline, NULL);
  coir__bias_unlock(w, &e->q.lock);
  return 0;
}

/* ---- What has to return ---------------------------------------------------------------------------------------- */

struct coir__debt **coir__owes_here(struct coir__waiter *self) {
  return self->is_thread ? &coir__waiter_thread(self)->owes : &coir__waiter_fiber(self)->stack->owes;
}

/* ---- Once ------------------------------------------------------------------------------------------------------ */

#define ONCE_DONE 1 /* no waiter's address */

struct COIR__OVERLAY once {
  struct coir__waitq q;
  _Atomic(uintptr_t) state; /* (a) written under q.lock: 0, the waiter who is at it, or ONCE_DONE */
};
_Static_assert(sizeof(struct once) <= sizeof(struct coir_once), "a once fits");
_Static_assert(_Alignof(struct once) <= _Alignof(struct coir_once), "a once is aligned");

/* In the waiter's frame. */
struct once_waiter {
  struct coir__clause clause; /* first: what the queue links */
  bool is_done;               /* by who woke it */
};

/* In the frame of who is at it. */
struct once_run {
  struct coir__debt debt;
  struct once *once;
};

/* state: ONCE_DONE; or 0, somebody else is to do it. */
static void once_finish(struct once *o, uintptr_t state) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &o->q.lock);
  /* Release: what the function did. Pairs with the acquire in coir_once_do. */
  atm_store_rel(&o->state, state);
  struct coir__clause *all = coir__waitlist_take_all(&o->q.list);
  for (struct coir__clause *c = all; c; c = c->next) ((struct once_waiter *)c)->is_done = state == ONCE_DONE;
  coir__bias_unlock(w, &o->q.lock);
  coir__wake_all(w, all);
}

static void once_forgive(struct coir__debt *debt) { once_finish(((struct once_run *)debt)->once, 0); }

static void once_run(struct once *o, struct coir__waiter *self, void (*fn)(void *arg), void *arg) {
  struct coir__debt **owes = coir__owes_here(self);
  struct once_run run = {.debt = {.outer = *owes, .forgive = once_forgive}, .once = o};
  *owes = &run.debt;
  COIR_OUTSIDE(fn(arg));
  *owes = run.debt.outer;
  once_finish(o, ONCE_DONE);
}

int coir_once_do(struct coir_once *once, void (*fn)(void *arg), void *arg, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct once *o = (struct once *)once;
  /* Acquire: pairs with the release in once_finish. Who did it may be about to give the lock back; we may free it. */
  if (COIR_LIKELY(atm_load_acq(&o->state) == ONCE_DONE) && !coir__bias_is_held(&o->q.lock)) return 0;
  struct once_waiter me = {.is_done = false};
  for (;;) {
    struct coir__worker *w = coir__carried();
    struct coir__waiter *self = coir__caller_on(w);
    coir__bias_lock(w, &o->q.lock);
    uintptr_t state = atm_load_rlx(&o->state); /* relaxed: the lock orders it */
    if (state && state != ONCE_DONE && state != (uintptr_t)self) {
      int rc = coir__waitq_wait(w, &o->q, &me.clause, COIR__REASON_ONCE, deadline, NULL);
      if (rc || me.is_done) return rc;
      continue;
    }
    if (!state) atm_store_rlx(&o->state, (uintptr_t)self);
    coir__bias_unlock(w, &o->q.lock);
    if (state) return state == ONCE_DONE ? 0 : -EDEADLK;
    once_run(o, self, fn, arg);
    coir__was = coir__rests_inside(); /* it may have begun to hold its worker, or ended that */
    return 0;
  }
}

/* ---- Barriers -------------------------------------------------------------------------------------------------- */

struct COIR__OVERLAY barrier {
  struct coir__waitq q;
  int32_t parties;  /* (c) 0 counts as 1 */
  uint32_t waiting; /* (l) have come in this round, and have not left again */
  uint64_t round;   /* (l) how often the queue has been emptied */
};
_Static_assert(sizeof(struct barrier) <= sizeof(struct coir_barrier), "a barrier fits");
_Static_assert(_Alignof(struct barrier) <= _Alignof(struct coir_barrier), "a barrier is aligned");

/* In the waiter's frame. */
struct barrier_waiter {
  struct coir__clause clause; /* first: what the queue links */
  bool is_complete;           /* by who woke it: the round is */
  uint64_t round;             /* in which it has come */
};

void coir_barrier_init(struct coir_barrier *barrier, int parties) {
  if (parties < 1) coir__fatal("coir_barrier_init: fewer than one party");
  memset(barrier, 0, sizeof *barrier);
  ((struct barrier *)barrier)->parties = parties;
}

/* The caller is the last, as far as the count says. The lock is held, and given back. A waiter that is giving up counts
 * until it has left, but cannot be claimed; then the round lacks it, and those that were claimed, and the caller, come
 * once more. Returns whether the round is complete. */
static bool barrier_release(struct coir__worker *w, struct barrier *b) {
  uint32_t others = 0, waiting = b->waiting;
  struct coir__clause *all = coir__waitlist_take_all(&b->q.list);
  for (struct coir__clause *c = all; c; c = c->next) others++;
  for (struct coir__clause *c = all; c; c = c->next) ((struct barrier_waiter *)c)->is_complete = others == waiting;
  b->waiting = 0;
  b->round++;
  coir__bias_unlock(w, &b->q.lock);
  coir__wake_all(w, all);
  return others == waiting;
}

static void barrier_leave(struct coir__waitq *q, struct coir__clause *c, bool given) {
  struct barrier *b = (struct barrier *)q;
  struct coir__worker *w = coir__carried();
  if (given) return;
  coir__bias_lock(w, &b->q.lock);
  if (b->round == ((struct barrier_waiter *)c)->round) b->waiting--;
  coir__bias_unlock(w, &b->q.lock);
}

int coir_barrier_wait(struct coir_barrier *barrier, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct barrier *b = (struct barrier *)barrier;
  struct barrier_waiter me = {.is_complete = false};
  while (!me.is_complete) {
    struct coir__worker *w = coir__carried();
    coir__bias_lock(w, &b->q.lock);
    if ((int64_t)b->waiting + 1 >= b->parties) {
      if (barrier_release(w, b)) return 1;
      continue;
    }
    b->waiting++;
    me.round = b->round;
    int rc = coir__waitq_wait(w, &b->q, &me.clause, COIR__REASON_BARRIER, deadline, barrier_leave);
    if (rc) return rc;
  }
  return 0;
}

/* ---- Single flight --------------------------------------------------------------------------------------------- */

#define FLIGHT_BUCKETS 32

/* What is being done for one key; in the frame of who does it. */
struct flight_entry {
  struct coir__debt debt;
  struct flight *flight;
  struct flight_entry *next;       /* (l) of its bucket */
  uint64_t hash;                   /* (c) */
  const void *key;                 /* (c) */
  size_t key_bytes;                /* (c) */
  struct coir__waiter *leader;     /* (c) who does it */
  struct coir__waitlist followers; /* (l) of the flight */
};

/* In a follower's frame. */
struct flight_follower {
  struct coir__clause clause; /* first: what the list links */
  struct coir_result result;  /* by the leader, before it wakes us */
};

struct COIR__OVERLAY flight {
  struct coir__bias lock;
  struct flight_entry *buckets[FLIGHT_BUCKETS]; /* (l) */
};
_Static_assert(sizeof(struct flight) <= sizeof(struct coir_flight), "a flight fits");
_Static_assert(_Alignof(struct flight) <= _Alignof(struct coir_flight), "a flight is aligned");

/* FNV-1a, 64 bits (Fowler, Noll, Vo). */
static uint64_t flight_hash(const unsigned char *key, size_t bytes) {
  uint64_t hash = UINT64_C(14695981039346656037);
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ key[i]) * UINT64_C(1099511628211);
  return hash;
}

static struct flight_entry **flight_bucket(struct flight *f, uint64_t hash) {
  return &f->buckets[(hash ^ hash >> 32) % FLIGHT_BUCKETS];
}

/* The lock is held. */
static struct flight_entry *flight_find(struct flight *f, const struct flight_entry *like) {
  struct flight_entry *e = *flight_bucket(f, like->hash);
  while (e && !(e->hash == like->hash && e->key_bytes == like->key_bytes &&
                (e->key_bytes == 0 || memcmp(e->key, like->key, e->key_bytes) == 0)))
    e = e->next;
  return e;
}

/* Waits for another's result. The lock is held, and given back. */
static int flight_follow(struct coir__worker *w, struct flight *f, struct flight_entry *e, struct coir_result *result,
                         int64_t deadline) {
  bool is_late = deadline <= 0 || (deadline != COIR_NEVER && deadline <= coir__os_now());
  if (is_late || e->leader == coir__caller_on(w)) {
    int rc = e->leader == coir__caller_on(w) ? -EDEADLK : -ETIMEDOUT;
    coir__bias_unlock(w, &f->lock);
    return rc;
  }
  struct coir__wait wait;
  struct flight_follower me;
  coir__wait_begin_on(w && w->current ? w : NULL, &wait, COIR__REASON_FLIGHT, (uint64_t)(uintptr_t)f, deadline);
  coir__wait_add_to(&wait, &me.clause, &e->followers, &f->lock);
  coir__bias_unlock(w, &f->lock);
  uint32_t code = coir__wait(&wait);
  if (code < COIR__CODE_CLAUSE) return coir__wait_result(code);
  *result = me.result;
  return 0;
}

/* The entry is over. Hands the result to the followers, and wakes them. */
static void flight_land(struct flight *f, struct flight_entry *e, const struct coir_result *result) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &f->lock);
  struct flight_entry **link = flight_bucket(f, e->hash);
  while (*link != e) link = &(*link)->next;
  *link = e->next;
  struct coir__clause *all = coir__waitlist_take_all(&e->followers);
  for (struct coir__clause *c = all; c; c = c->next) ((struct flight_follower *)c)->result = *result;
  coir__bias_unlock(w, &f->lock);
  coir__wake_all(w, all);
}

static void flight_forgive(struct coir__debt *debt) {
  struct flight_entry *e = (struct flight_entry *)debt;
  flight_land(e->flight, e, &(struct coir_result){.status = -ECANCELED});
}

int coir_flight_do(struct coir_flight *flight, const void *key, size_t key_bytes, int (*fn)(void *arg, void **value),
                   void *arg, struct coir_result *result, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct flight *f = (struct flight *)flight;
  struct flight_entry me = {.flight = f, .hash = flight_hash(key, key_bytes), .key = key, .key_bytes = key_bytes};
  struct coir__worker *w = coir__carried();
  me.leader = coir__caller_on(w);
  struct flight_entry **bucket = flight_bucket(f, me.hash);
  coir__bias_lock(w, &f->lock);
  struct flight_entry *e = flight_find(f, &me);
  if (e) return flight_follow(w, f, e, result, deadline);
  me.next = *bucket;
  *bucket = &me;
  coir__bias_unlock(w, &f->lock);
  struct coir_result mine = {.status = 0, .value = NULL};
  struct coir__debt **owes = coir__owes_here(me.leader);
  me.debt = (struct coir__debt){.outer = *owes, .forgive = flight_forgive};
  *owes = &me.debt;
  COIR_OUTSIDE(mine.status = fn(arg, &mine.value));
  *owes = me.debt.outer;
  coir__was = coir__rests_inside(); /* as in coir_once_do */
  flight_land(f, &me, &mine);
  *result = mine;
  return 1;
}
