/* Mutexes, condition variables, and locks for many readers or one writer.
 *
 * Each is a few words under the lock of its own queue of waiters, and waits as everything does (wait.c). That inner
 * lock leans towards one worker (bias.c), so an object which one worker's fibers use costs no locked instruction.
 *
 * Mutex: goal. Cheap for those who come and find it free; no waiter is passed over for long.
 * Why it is hard: who is handed a mutex as it is unlocked does not run yet, and everybody who comes until it does has
 * to wait as well: a switch for each unlock, for ever. Who is not handed it may find it locked again each time, or may
 * be queued behind somebody who computes.
 *
 * Design. Unlocking frees the mutex and wakes the first waiter, one at a time, to try like everybody else (woken);
 * whoever comes in between has it. A woken waiter that finds it locked goes back to the front, and when its patience is
 * over since it first came, it asks for fairness (is_fair): from then on unlocking makes the first waiter the owner
 * while that one still sleeps, so nobody gets in between. That ends when the first waiter has come lately. One that was
 * woken and does not come to run is made the owner, too, when its patience is over; that is looked at when it has been
 * passed over once, twice more, four times more, and so on. So the clock is read only by those who have to wait, or
 * have made somebody wait.
 *
 * Who finds it locked by somebody who runs just now, on another worker, looks on for a moment before it parks: parking
 * costs both of them more than most sections take. Who parks leaves its worker, and is woken to the worker of the one
 * that unlocks. So those who want it all the time gather on one worker, where it is never found locked by somebody who
 * runs, and its lock leans; and those who want it seldom stay apart.
 *
 * Rejected: handing over always (a switch for each unlock); looking on for longer (60 to 200 rounds gained nothing);
 * not looking on at all (fibers that compute a microsecond between their sections gather on one worker all the same,
 * and on two workers take half as long again).
 *
 * Condition: a waiter is in the condition's queue before it unlocks the mutex. Locking again cannot be cancelled.
 *
 * Read-write lock: strictly in order of arrival; neighbouring readers go together. Who lets others in makes them
 * holders before they run. A waiter that gives up lets those behind it in, for it may have been what kept them out.
 *
 * Whoever unlocks gives back the inner lock as its last touch of the object, and wakes after that; whoever is let in
 * may free the object.
 *
 * I1: owner (writer, readers) changes only under the inner lock.   I2: at most one woken waiter is on its way.
 * I3: while is_fair, nobody is on its way, and a mutex with waiters is not freed.
 * Bounds: LOOKS_MAX, PASSES_MAX. */
#include "internal.h"

/* ---- Mutexes --------------------------------------------------------------------------------------------------- */

#ifdef COIR_HARD
#define PATIENCE_US 1
#define PASSES_MAX 3
#else
#define PATIENCE_US 1000
#define PASSES_MAX 255 /* a power of two less one */
#endif
#define LOOKS_MAX 30 /* 0.4 to 1.4 us, by the processor */

/* Values of mutex.at that are no worker's index. */
#define AT_THREAD 254
#define AT_NOWHERE 255
_Static_assert(COIR__WORKERS_MAX < AT_THREAD, "a worker's index is a worker's");

struct COIR__OVERLAY mutex {
  struct coir__waitq q;
  _Atomic(struct coir__waiter *) owner; /* (a) written under q.lock; so who reads itself there knows */
  struct coir__waiter *woken;           /* (l) has been woken to try, and has not yet; or NULL. Only ever compared */
  uint32_t woken_since;                 /* (l) when that one came first, in us */
  uint8_t passes;                       /* (l) times that it was passed over since that was looked at */
  uint8_t passes_max;                   /* (l) when to look again: doubles, up to PASSES_MAX */
  uint8_t at;                           /* (l) where the owner locked it: index of its worker, or AT_* */
  bool is_fair;                         /* (l) unlocking hands over */
};
_Static_assert(sizeof(struct mutex) <= sizeof(struct coir_mutex), "a mutex fits");
_Static_assert(_Alignof(struct mutex) <= _Alignof(struct coir_mutex), "a mutex is aligned");

/* In the waiter's frame. */
struct mutex_waiter {
  struct coir__clause clause; /* first: what the queue links */
  uint32_t since;             /* (c) when it found the mutex locked, in us */
};

/* Where the caller is. */
static inline uint8_t place_of(const struct coir__worker *w) { return w && w->current ? (uint8_t)w->index : AT_THREAD; }

static inline struct mutex *mutex_of(struct coir_mutex *mutex) { return (struct mutex *)mutex; }

static inline uint32_t us_of(int64_t now) { return (uint32_t)(now / 1000); } /* differences only: it comes round */

static inline bool is_late(uint32_t now, uint32_t since) { return now - since >= PATIENCE_US; }

static void clause_to_front(struct coir__clause *c) {
  struct coir__waitlist *list = c->list;
  if (list->first == c) return;
  coir__clause_unlink(c);
  c->linked = 1;
  c->prev = NULL;
  c->next = list->first;
  if (c->next) c->next->prev = c;
  else list->last = c;
  list->first = c;
}

/* Makes `self`, which calls on `at`, the owner if there is none. The lock is held. */
static inline bool mutex_take(struct mutex *m, struct coir__waiter *self, uint8_t at) {
  if (atm_load_rlx(&m->owner)) return false;
  atm_store_rlx(&m->owner, self); /* relaxed, as always: the lock orders it */
  m->at = at;
  return true;
}

/* Whether to expect that the owner, of whom no more than its address is looked at, runs elsewhere just now. The lock is
 * held. */
static bool is_owner_running(struct coir__worker *w, struct mutex *m) {
  if (m->at >= AT_THREAD || !w) return m->at != AT_NOWHERE;
  struct coir_runtime *rt = w->rt;
  if (m->at >= rt->worker_count) return false;
  /* Relaxed: a hint. */
  return (void *)__atomic_load_n(&rt->workers[m->at]->current, __ATOMIC_RELAXED) == (void *)atm_load_rlx(&m->owner);
}

static void mutex_pass_on(struct coir__worker *w, struct mutex *m);

/* A waiter is dropped that had been woken to try, or made the owner: somebody else is to be. */
static void mutex_leave(struct coir__waitq *q, struct coir__clause *c, bool given) {
  struct mutex *m = (struct mutex *)q;
  struct coir__worker *w = coir__carried();
  if (!given) return; /* its owner will wake the next */
  coir__bias_lock(w, &m->q.lock);
  struct coir__waiter *owner = atm_load_rlx(&m->owner);
  if (m->woken == c->waiter) m->woken = NULL;
  if (!owner || owner == c->waiter) mutex_pass_on(w, m);
  else coir__bias_unlock(w, &m->q.lock);
}

/* Waits until the mutex is ours. Its lock is held, and given back. */
static int mutex_wait(struct coir__worker *w, struct mutex *m, struct coir__waiter *self, int64_t deadline) {
  int64_t now = coir__os_now();
  struct mutex_waiter me = {.since = us_of(now)};
  if (!m->q.list.first) m->is_fair = false;
  for (bool is_back = false; deadline > now; is_back = true) {
    struct coir__wait wait;
    coir__wait_begin_on(w && w->current ? w : NULL, &wait, COIR__REASON_MUTEX, (uint64_t)(uintptr_t)m, deadline);
    coir__wait_add(&wait, &me.clause, &m->q);
    if (is_back) clause_to_front(&me.clause);
    coir__wait_leaves(&wait, mutex_leave);
    coir__bias_unlock(w, &m->q.lock);
    uint32_t code = coir__wait(&wait);
    if (code < COIR__CODE_CLAUSE) return coir__wait_result(code);
    w = coir__carried();
    coir__bias_lock(w, &m->q.lock);
    COIR_DCHECK(m->woken == self || atm_load_rlx(&m->owner) == self, "I2: who was claimed is on its way, or has it");
    if (m->woken == self) m->woken = NULL;
    bool is_ours = atm_load_rlx(&m->owner) == self || mutex_take(m, self, AT_NOWHERE);
    if (is_ours) {
      m->at = place_of(w);
      coir__bias_unlock(w, &m->q.lock);
      return 0;
    }
    now = coir__os_now();
    if (is_late(us_of(now), me.since)) m->is_fair = true;
  }
  coir__bias_unlock(w, &m->q.lock); /* its owner will wake the next */
  return -ETIMEDOUT;
}

static int __attribute__((noinline)) mutex_lock_slowly(struct mutex *m, int64_t deadline) {
  struct coir__worker *w = coir__carried();
  struct coir__waiter *self = coir__caller_on(w);
  coir__bias_lock(w, &m->q.lock);
  bool is_mine = atm_load_rlx(&m->owner) == self, is_taken = mutex_take(m, self, place_of(w));
  if (!is_mine && !is_taken && deadline > 0 && !m->is_fair && is_owner_running(w, m)) {
    coir__bias_unlock(w, &m->q.lock);
    for (int i = 0; i < LOOKS_MAX && atm_load_rlx(&m->owner); i++) coir__pause();
    coir__bias_lock(w, &m->q.lock);
    is_taken = mutex_take(m, self, place_of(w));
  }
  if (!is_mine && !is_taken && deadline > 0) return mutex_wait(w, m, self, deadline);
  coir__bias_unlock(w, &m->q.lock);
  return is_mine ? -EDEADLK : is_taken ? 0 : -ETIMEDOUT;
}

/* The usual case written out: a fiber locks a free mutex whose lock leans to its worker. About 25 instructions. */
int coir_mutex_lock(struct coir_mutex *mutex, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_INLINED_ON(w, deadline);
  struct mutex *m = mutex_of(mutex);
  if (COIR_LIKELY(w && w->current && coir__bias_enter(w, &m->q.lock))) {
    bool is_taken = mutex_take(m, &w->current->waiter, (uint8_t)w->index);
    coir__bias_leave(w);
    if (COIR_LIKELY(is_taken)) return 0;
  }
  return mutex_lock_slowly(m, deadline);
}

/* Frees the mutex, unless there may be somebody to see to. Its lock is held. */
static inline bool mutex_release(struct mutex *m) {
  if (COIR_UNLIKELY(m->woken != NULL)) {
    if (m->passes == m->passes_max) return false;
    m->passes++;
  } else if (COIR_UNLIKELY(m->q.list.first != NULL)) {
    return false;
  }
  atm_store_rlx(&m->owner, NULL);
  return true;
}

/* Makes a waiter the owner, or nobody. The lock is held. */
static void mutex_hand_to(struct mutex *m, struct coir__waiter *heir) {
  struct mutex_waiter *first = (struct mutex_waiter *)m->q.list.first;
  atm_store_rlx(&m->owner, heir);
  m->at = AT_NOWHERE;
  m->is_fair = first && is_late(us_of(coir__os_now()), first->since);
}

/* Unlocks a mutex for which others wait. Its lock is held, and given back. */
static void mutex_pass_on(struct coir__worker *w, struct mutex *m) {
  struct coir__waiter *waiter = NULL, *woken = m->woken;
  COIR_DCHECK(!woken || !m->is_fair, "I3: nobody is on its way while unlocking hands over");
  m->passes = 0;
  if (!woken) m->passes_max = 0;
  else if (m->passes_max < PASSES_MAX) m->passes_max = (uint8_t)(2 * m->passes_max + 1);
  if (woken && is_late(us_of(coir__os_now()), m->woken_since)) {
    m->woken = NULL;
    mutex_hand_to(m, woken);
  } else if (woken) {
    atm_store_rlx(&m->owner, NULL);
  } else {
    struct mutex_waiter *next = (struct mutex_waiter *)coir__waitlist_take(&m->q.list);
    waiter = next ? next->clause.waiter : NULL;
    if (m->is_fair) {
      mutex_hand_to(m, waiter);
    } else {
      atm_store_rlx(&m->owner, NULL);
      m->woken = waiter;
      m->woken_since = next ? next->since : 0;
    }
  }
  coir__bias_unlock(w, &m->q.lock);
  if (waiter) coir__wake_on(w, waiter);
}

static void __attribute__((noinline, noreturn)) mutex_is_not_callers(const char *call) {
  coir__fatal("%s: the caller does not hold the mutex", call);
}

static void __attribute__((noinline)) mutex_unlock_slowly(struct mutex *m) {
  struct coir__worker *w = coir__carried();
  if (COIR_UNLIKELY(atm_load_rlx(&m->owner) != coir__caller_on(w))) mutex_is_not_callers("coir_mutex_unlock");
  coir__bias_lock(w, &m->q.lock);
  if (!mutex_release(m)) mutex_pass_on(w, m);
  else coir__bias_unlock(w, &m->q.lock);
}

/* As in coir_mutex_lock. */
void coir_mutex_unlock(struct coir_mutex *mutex) {
  COIR_INSIDE_INLINED_ON(w);
  struct mutex *m = mutex_of(mutex);
  if (COIR_LIKELY(w && w->current && coir__bias_enter(w, &m->q.lock))) {
    bool is_done = atm_load_rlx(&m->owner) == &w->current->waiter && mutex_release(m);
    coir__bias_leave(w);
    if (COIR_LIKELY(is_done)) return;
  }
  mutex_unlock_slowly(m);
}

/* ---- Condition variables --------------------------------------------------------------------------------------- */

struct COIR__OVERLAY cond {
  struct coir__waitq q;
};
_Static_assert(sizeof(struct cond) <= sizeof(struct coir_cond), "a condition fits");
_Static_assert(_Alignof(struct cond) <= _Alignof(struct coir_cond), "a condition is aligned");

static void mutex_lock_again(struct coir_mutex *mutex) {
  coir_shield_begin();
  int rc = coir_mutex_lock(mutex, COIR_NEVER);
  coir_shield_end();
  COIR_CHECK(!rc, "behind a shield and without a deadline a mutex is always got");
}

int coir_cond_wait(struct coir_cond *cond, struct coir_mutex *mutex, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  struct cond *c = (struct cond *)cond;
  if (COIR_UNLIKELY(atm_load_rlx(&mutex_of(mutex)->owner) != coir__caller_on(w)))
    mutex_is_not_callers("coir_cond_wait");
  uint32_t code = COIR__CODE_TIMEOUT;
  if (deadline == COIR_NEVER || (deadline > 0 && deadline > coir__os_now())) {
    struct coir__wait wait;
    struct coir__clause clause;
    coir__wait_begin_on(w && w->current ? w : NULL, &wait, COIR__REASON_COND, (uint64_t)(uintptr_t)c, deadline);
    coir__bias_lock(w, &c->q.lock);
    coir__wait_add(&wait, &clause, &c->q);
    coir__bias_unlock(w, &c->q.lock);
    coir_mutex_unlock(mutex);
    code = coir__wait(&wait);
  } else {
    coir_mutex_unlock(mutex);
  }
  mutex_lock_again(mutex);
  return code >= COIR__CODE_CLAUSE ? 0 : coir__wait_result(code);
}

void coir_cond_signal(struct coir_cond *cond) {
  COIR_INSIDE_ON(w);
  struct cond *c = (struct cond *)cond;
  coir__bias_lock(w, &c->q.lock);
  struct coir__clause *first = coir__waitlist_take(&c->q.list);
  coir__bias_unlock(w, &c->q.lock);
  if (first) coir__wake_on(w, first->waiter);
}

void coir_cond_broadcast(struct coir_cond *cond) {
  COIR_INSIDE_ON(w);
  struct cond *c = (struct cond *)cond;
  coir__bias_lock(w, &c->q.lock);
  struct coir__clause *all = coir__waitlist_take_all(&c->q.list);
  coir__bias_unlock(w, &c->q.lock);
  coir__wake_all(w, all);
}

/* ---- Many readers or one writer -------------------------------------------------------------------------------- */

struct COIR__OVERLAY rwlock {
  struct coir__waitq q;
  _Atomic(struct coir__waiter *) writer; /* (a) written under q.lock, as in a mutex */
  uint64_t readers;                      /* (l) that have it */
};
_Static_assert(sizeof(struct rwlock) <= sizeof(struct coir_rwlock), "a read-write lock fits");
_Static_assert(_Alignof(struct rwlock) <= _Alignof(struct coir_rwlock), "a read-write lock is aligned");

/* In the waiter's frame. */
struct rwlock_waiter {
  struct coir__clause clause; /* first: what the queue links */
  bool is_writer;             /* (c) */
};

/* Makes holders of the first in the queue for as far as they get along, gives the lock back, and wakes them. One that
 * cannot be claimed has given up and is passed over; if it cannot be let in yet, it will see to those behind it. */
static void rwlock_admit(struct coir__worker *w, struct rwlock *l) {
  struct coir__clause *admitted = NULL, **end = &admitted;
  for (struct coir__clause *c; (c = l->q.list.first) && !atm_load_rlx(&l->writer);) {
    bool is_writer = ((struct rwlock_waiter *)c)->is_writer;
    if (is_writer && l->readers) break;
    coir__clause_unlink(c);
    if (!coir__claim(c)) continue;
    if (is_writer) atm_store_rlx(&l->writer, c->waiter);
    else l->readers++;
    c->next = NULL;
    *end = c;
    end = &c->next;
  }
  coir__bias_unlock(w, &l->q.lock);
  coir__wake_all(w, admitted);
}

/* For it may have been what kept others out. */
static void rwlock_leave(struct coir__waitq *q, struct coir__clause *c, bool given) {
  struct rwlock *l = (struct rwlock *)q;
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &l->q.lock);
  if (given && ((struct rwlock_waiter *)c)->is_writer) atm_store_rlx(&l->writer, NULL);
  else if (given) l->readers--;
  rwlock_admit(w, l);
}

/* Waits for admission. The lock is held, and given back. */
static int __attribute__((noinline))
rwlock_wait(struct coir__worker *w, struct rwlock *l, bool is_writer, int64_t deadline) {
  if (atm_load_rlx(&l->writer) == coir__caller_on(w)) {
    coir__bias_unlock(w, &l->q.lock);
    return -EDEADLK;
  }
  struct rwlock_waiter me = {.is_writer = is_writer};
  return coir__waitq_wait(w, &l->q, &me.clause, COIR__REASON_RWLOCK, deadline, rwlock_leave);
}

int coir_rwlock_read(struct coir_rwlock *lock, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_ON(w, deadline);
  struct rwlock *l = (struct rwlock *)lock;
  coir__bias_lock(w, &l->q.lock);
  if (COIR_UNLIKELY(atm_load_rlx(&l->writer) || l->q.list.first)) return rwlock_wait(w, l, false, deadline);
  l->readers++;
  coir__bias_unlock(w, &l->q.lock);
  return 0;
}

int coir_rwlock_write(struct coir_rwlock *lock, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_ON(w, deadline);
  struct rwlock *l = (struct rwlock *)lock;
  coir__bias_lock(w, &l->q.lock);
  if (COIR_UNLIKELY(atm_load_rlx(&l->writer) || l->readers || l->q.list.first))
    return rwlock_wait(w, l, true, deadline);
  atm_store_rlx(&l->writer, coir__caller_on(w));
  coir__bias_unlock(w, &l->q.lock);
  return 0;
}

void coir_rwlock_read_unlock(struct coir_rwlock *lock) {
  COIR_INSIDE_ON(w);
  struct rwlock *l = (struct rwlock *)lock;
  coir__bias_lock(w, &l->q.lock);
  if (COIR_UNLIKELY(!l->readers)) {
    coir__bias_unlock(w, &l->q.lock);
    coir__fatal("coir_rwlock_read_unlock: nobody holds the lock for reading");
  }
  l->readers--;
  rwlock_admit(w, l);
}

void coir_rwlock_write_unlock(struct coir_rwlock *lock) {
  COIR_INSIDE_ON(w);
  struct rwlock *l = (struct rwlock *)lock;
  if (COIR_UNLIKELY(atm_load_rlx(&l->writer) != coir__caller_on(w)))
    coir__fatal("coir_rwlock_write_unlock: the caller does not hold the lock for writing");
  coir__bias_lock(w, &l->q.lock);
  atm_store_rlx(&l->writer, NULL);
  rwlock_admit(w, l);
}
