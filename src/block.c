/* Calls that block, on a pool of threads, so that the worker goes on meanwhile.
 *
 * One pool for the process: the calls wait for disks, not for runtimes. A call is a record in the frame of the fiber
 * that waits for it, which is safe because the wait is shielded: neither cancellation nor a deadline ends it, only the
 * thread that has run the call. Threads are made while there are more calls than threads that are free, up to a limit;
 * beyond it calls queue, first come first served. A thread that had nothing to do for some seconds ends.
 *
 * The pool is never joined: at the end of the process its threads end with it, as every thread does.
 *
 * errno of a pool thread is nobody's; what a call has to say it stores where `arg` points.
 *
 * I1: while calls are queued the pool has a thread. */
#include <time.h>

#include "internal.h"

#define THREADS_MAX 64
#define IDLE_NS COIR_SEC(10)

struct call {
  struct call *next; /* (l) pool.mutex */
  void (*fn)(void *arg);
  void *arg;
  struct coir__waitq q; /* its only clause is that of the fiber whose frame this is */
  struct coir__clause clause;
};

static struct {
  pthread_mutex_t mutex; /* never held across a wait of a fiber */
  pthread_cond_t more;
  bool is_ready;             /* `more` is initialized */
  struct call *first, *last; /* what nobody runs yet */
  int queued;                /* how many these are */
  int threads, idle;         /* how many threads there are; how many of them wait for a call */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Waits for a call; the mutex is held. NULL: none came for long. */
static struct call *next_call(void) {
  int64_t at = coir__os_now() + IDLE_NS;
  struct timespec limit = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
  pool.idle++;
  int rc = 0;
  while (!pool.first && rc == 0) rc = pthread_cond_timedwait(&pool.more, &pool.mutex, &limit);
  pool.idle--;
  struct call *call = pool.first;
  if (!call) return NULL;
  pool.first = call->next;
  if (!pool.first) pool.last = NULL;
  pool.queued--;
  return call;
}

static void run(struct call *call) {
  call->fn(call->arg);
  coir__lock(&call->q.lock);
  struct coir__waiter *waiter = call->clause.waiter;
  bool claimed = coir__claim(&call->clause);
  COIR_CHECK(claimed, "only its thread ends a shielded wait");
  coir__waitq_unlink(&call->q, &call->clause);
  coir__unlock(&call->q.lock);
  coir__wake(waiter); /* the call is gone from here on */
}

static void *pool_thread(void *unused) {
  pthread_mutex_lock(&pool.mutex);
  for (struct call *call; (call = next_call()) != NULL;) {
    pthread_mutex_unlock(&pool.mutex);
    run(call);
    pthread_mutex_lock(&pool.mutex);
  }
  pool.threads--;
  pthread_mutex_unlock(&pool.mutex);
  return unused;
}

/* Makes one more thread if the free ones do not suffice; the mutex is held. False: there is none at all. */
static bool staff(void) {
  if (pool.queued < pool.idle || pool.threads >= THREADS_MAX) return true;
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

static int submit(struct call *call) {
  pthread_mutex_lock(&pool.mutex);
  if (!pool.is_ready) pool_init();
  bool has_thread = staff();
  if (has_thread) {
    if (pool.last) pool.last->next = call;
    else pool.first = call;
    pool.last = call;
    pool.queued++;
    pthread_cond_signal(&pool.more);
  }
  pthread_mutex_unlock(&pool.mutex);
  return has_thread ? 0 : -EAGAIN;
}

int coir__block_call(void (*fn)(void *arg), void *arg, uint64_t object) {
  if (!coir__self()) {
    fn(arg);
    return 0;
  }
  struct call call = {.fn = fn, .arg = arg};
  struct coir__wait wait;
  coir__wait_begin_shielded(&wait, COIR__REASON_BLOCK, object);
  coir__lock(&call.q.lock);
  coir__wait_add(&wait, &call.clause, &call.q);
  coir__unlock(&call.q.lock);
  int rc = submit(&call);
  if (rc) coir__wait_abandon(&wait);
  else coir__wait(&wait);
  return rc;
}

void coir__block_fork_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  pool.mutex = fresh; /* whoever held it is not in this process */
  pool.is_ready = false;
  pool.first = pool.last = NULL;
  pool.queued = pool.threads = pool.idle = 0;
}
