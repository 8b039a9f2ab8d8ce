/* Calls that block, on a pool of threads, so that the worker goes on meanwhile.
 *
 * One pool for the process: the calls wait for disks, not for runtimes. A call is a record in the frame of the fiber
 * that waits for it, which is safe because the wait is bound: neither cancellation nor a deadline ends it, only the
 * thread that has run the call. Threads are made while there are more calls than threads that are free, up to a limit;
 * beyond it calls queue, first come first served. A thread that had nothing to do for some seconds ends.
 *
 * An errand is a call whose waiter may leave: its record lies on the heap and has two owners, the waiter and the pool;
 * under the lock of its queue the first of them that is through says so, and the other one disposes of it. Errands may
 * take very long, since nobody waits for those that were left. So they have a line of their own, and only so many run
 * at a time; for other calls there is always a thread.
 *
 * The pool is never joined: at the end of the process its threads end with it, as every thread does.
 *
 * errno of a pool thread is nobody's; what a call has to say it stores where `arg` points.
 *
 * I1: while calls are queued the pool has a thread. */
#include <time.h>

#include "internal.h"

#define THREADS_MAX 64
#define ERRANDS_MAX 16
#define IDLE_NS COIR_SEC(10)

struct call {
  struct coir__pooled pooled;
  void (*fn)(void *arg);
  void *arg;
  struct coir__waitq q; /* its only clause is that of the fiber whose frame this is */
  struct coir__clause clause;
};

/* What nobody runs yet. */
struct line {
  struct coir__pooled *first, *last;
  int count;
};

static struct {
  pthread_mutex_t mutex; /* never held across a wait of a fiber */
  pthread_cond_t more;
  bool is_ready;              /* `more` is initialized */
  struct line calls, errands; /* an errand waits while ERRANDS_MAX run */
  int errands_running;
  int threads, idle; /* how many threads there are; how many of them wait for a call */
  _Atomic(int) open; /* (a) calls and errands that have been submitted, and not run to their end */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};
static _Atomic(uint32_t) pool_forks; /* coir__os_at_fork */

static struct coir__pooled *line_take(struct line *line) {
  struct coir__pooled *first = line->first;
  line->first = first->next;
  if (!line->first) line->last = NULL;
  line->count--;
  return first;
}

/* How many of those that are queued may begin now; the mutex is held. */
static int startable(void) {
  int free = ERRANDS_MAX - pool.errands_running;
  return pool.calls.count + (pool.errands.count < free ? pool.errands.count : free);
}

/* Waits for a call; the mutex is held. NULL: none came for long. */
static struct coir__pooled *next_call(void) {
  int64_t at = coir__os_now() + IDLE_NS;
  struct timespec limit = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
  pool.idle++;
  int rc = 0;
  while (startable() == 0 && rc == 0) rc = pthread_cond_timedwait(&pool.more, &pool.mutex, &limit);
  pool.idle--;
  if (startable() == 0) return NULL;
  if (pool.calls.count) return line_take(&pool.calls);
  pool.errands_running++;
  return line_take(&pool.errands);
}

static void run_call(struct coir__pooled *pooled) {
  struct call *call = (struct call *)pooled;
  call->fn(call->arg);
  coir__bias_lock(NULL, &call->q.lock);
  struct coir__waiter *waiter = call->clause.waiter;
  bool claimed = coir__claim(&call->clause);
  COIR_CHECK(claimed, "only its thread ends a bound wait");
  coir__clause_unlink(&call->clause);
  coir__bias_unlock(NULL, &call->q.lock);
  coir__wake(waiter); /* the call is gone from here on */
}

static void *pool_thread(void *unused) {
  pthread_mutex_lock(&pool.mutex);
  for (struct coir__pooled *pooled; (pooled = next_call()) != NULL;) {
    bool is_errand = pooled->is_errand;
    pthread_mutex_unlock(&pool.mutex);
    pooled->run(pooled); /* and it is gone */
    atm_sub_rel(&pool.open, 1); /* after the wake: pairs with the acquire in coir__block_open */
    pthread_mutex_lock(&pool.mutex);
    if (!is_errand) continue;
    pool.errands_running--;
    if (pool.errands.count) pthread_cond_signal(&pool.more); /* we may find a call first */
  }
  pool.threads--;
  pthread_mutex_unlock(&pool.mutex);
  return unused;
}

/* Makes one more thread if the free ones do not suffice for what is queued; the mutex is held. False: there is none at
 * all. */
static bool staff(void) {
  if (startable() <= pool.idle || pool.threads >= THREADS_MAX) return true;
  pthread_t thread;
  if (coir__os_thread_start(&thread, "coir-block", pool_thread, NULL) == 0) {
    pthread_detach(thread);
    pool.threads++;
  }
  return pool.threads > 0;
}

/* The clock of timed waits is the one of coir__os_now. */
static void pool_init(void) {
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&pool.more, &attr);
  pthread_condattr_destroy(&attr);
  pool.is_ready = true;
}

static int submit(struct coir__pooled *pooled) {
  if (coir__os_at_fork(&pool_forks, coir__block_fork_child) != 0) return -EAGAIN;
  pthread_mutex_lock(&pool.mutex);
  if (!pool.is_ready) pool_init();
  struct line *line = pooled->is_errand ? &pool.errands : &pool.calls;
  if (line->last) line->last->next = pooled;
  else line->first = pooled;
  line->last = pooled;
  line->count++;
  atm_add_rlx(&pool.open, 1);
  bool has_thread = staff();
  if (!has_thread) atm_sub_rel(&pool.open, 1);
  if (has_thread) pthread_cond_signal(&pool.more);
  else *line = (struct line){.first = NULL}; /* it was the only one (I1) */
  pthread_mutex_unlock(&pool.mutex);
  return has_thread ? 0 : -EAGAIN;
}

int coir__block_call(void (*fn)(void *arg), void *arg, uint64_t object) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  w = coir__self_of(w);
  if (!w) {
    fn(arg);
    return 0;
  }
  struct call call = {.pooled.run = run_call, .fn = fn, .arg = arg};
  struct coir__wait wait;
  coir__wait_begin_bound(&wait, COIR__REASON_BLOCK, object);
  coir__bias_lock(w, &call.q.lock);
  coir__wait_add(&wait, &call.clause, &call.q);
  coir__bias_unlock(w, &call.q.lock);
  int rc = submit(&call.pooled);
  if (rc) coir__wait_retract(&wait);
  else coir__wait(&wait);
  return rc;
}

static void run_errand(struct coir__pooled *pooled) {
  struct coir__errand *e = (struct coir__errand *)pooled;
  coir__bias_lock(NULL, &e->q.lock);
  bool is_left = e->is_left;
  coir__bias_unlock(NULL, &e->q.lock);
  if (!is_left) e->fn(e);
  coir__bias_lock(NULL, &e->q.lock);
  struct coir__clause *taken = coir__waitlist_take(&e->q.list);
  is_left = e->is_left;
  e->is_done = true;
  coir__bias_unlock(NULL, &e->q.lock); /* the errand is gone from here on, unless it was left to us */
  if (taken) coir__wake(taken->waiter);
  else if (is_left) e->dispose(e);
}

/* Its waiter is not to have it, or has been dropped. */
static void errand_leave(struct coir__waitq *q, struct coir__clause *unused, bool given) {
  struct coir__errand *e = (struct coir__errand *)((char *)q - offsetof(struct coir__errand, q));
  struct coir__worker *w = coir__carried();
  (void)unused, (void)given;
  coir__bias_lock(w, &e->q.lock);
  bool is_done = e->is_done;
  e->is_left = true;
  coir__bias_unlock(w, &e->q.lock);
  if (is_done) e->dispose(e);
}

int coir__block_errand(struct coir__errand *e, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  e->pooled.run = run_errand;
  e->pooled.is_errand = true;
  int rc = submit(&e->pooled);
  if (rc) {
    e->dispose(e);
    return rc;
  }
  struct coir__worker *w = coir__carried();
  struct coir__clause clause;
  coir__bias_lock(w, &e->q.lock);
  if (!e->is_done) return coir__waitq_wait(w, &e->q, &clause, COIR__REASON_BLOCK, deadline, errand_leave);
  coir__bias_unlock(w, &e->q.lock);
  return 0;
}

int coir__block_open(void) { return atm_load_acq(&pool.open); }

void coir__block_fork_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  pool.mutex = fresh; /* whoever held it is not in this process */
  pool.is_ready = false;
  pool.calls = pool.errands = (struct line){.first = NULL};
  pool.errands_running = pool.threads = pool.idle = 0;
  atm_store_rlx(&pool.open, 0);
}
