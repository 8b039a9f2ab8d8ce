/* The executor: a queue of jobs and a few threads that take from it.
 *
 * A job is allocated and has two owners, the fiber that waits for it and the thread that runs it, and goes with the
 * second of them: the fiber may be abandoned meanwhile (gof_join_background), and its stack with it.
 *
 * The threads wait as Coir's calls do, so that they do not look as if they might wake somebody when all fibers wait for
 * each other (docs/deadlocks.md): there is a permit for each job, and at the end one for each thread. Who gets a permit
 * and finds no job left ends. So each permit is taken once, whoever comes in between.
 *
 * Who shuts it down may be abandoned while it waits for the threads: so it holds no lock meanwhile, and whoever comes
 * next brings it to its end. */
#include "blocking_executor.h"

#include "internal.h"

#define THREADS_STANDARD 4
#define THREADS_MAX 256

struct job {
  struct job *next;
  void *(*fn)(void *);
  void *arg, *result;
  struct coir_event done;
  _Atomic(int) owners;
};

enum state { NEVER_STARTED, RUNNING, SHUT_DOWN };

static struct executor {
  pthread_mutex_t lock;        /* never held across a call of Coir. Guards what says (l) */
  struct coir_sem work;        /* for the threads: there is a job, or the end has come */
  enum state state;            /* (l) */
  struct job *first, **end;    /* (l) */
  int active, pending;         /* (l) */
  int threads;                 /* of `ids`; under setup */
  pthread_t ids[THREADS_MAX];  /* under setup */
  int left;                    /* of them, that have not ended; under setup */
  struct coir_cond ended;      /* the last has; with setup */
  struct coir_mutex setup;     /* held by who starts or ends the threads, and taken before `lock` */
} executor = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool forks; /* constant: forget_in_child is there */

static void job_unref(struct job *job) {
  /* Acquire and release: all uses come before the end. */
  if (atomic_fetch_sub_explicit(&job->owners, 1, memory_order_acq_rel) == 1) free(job);
}

/* ---- The threads ----------------------------------------------------------------------------------------------- */

/* Waits for a job, and takes it. NULL: there is none left, nor will there be. */
static struct job *job_take(void) {
  int rc = coir_sem_acquire(&executor.work, 1, COIR_NEVER);
  (void)rc; /* nobody cancels a plain thread */
  pthread_mutex_lock(&executor.lock);
  struct job *job = executor.first;
  if (job) {
    executor.first = job->next;
    executor.pending--;
    executor.active++;
  }
  pthread_mutex_unlock(&executor.lock);
  return job;
}

static void job_run(struct job *job) {
  job->result = job->fn(job->arg);
  pthread_mutex_lock(&executor.lock);
  executor.active--;
  pthread_mutex_unlock(&executor.lock);
  coir_event_set(&job->done);
  job_unref(job);
}

/* A cancelled fiber does this to the end as well. */
static void setup_begin(void) {
  coir_shield_begin();
  int rc = coir_mutex_lock(&executor.setup, COIR_NEVER);
  (void)rc; /* behind a shield it is always got */
}

static void setup_end(void) {
  coir_mutex_unlock(&executor.setup);
  coir_shield_end();
}

static void *executor_thread(void *unused) {
  for (struct job *job; (job = job_take()) != NULL;) job_run(job);
  setup_begin();
  if (--executor.left == 0) coir_cond_broadcast(&executor.ended);
  setup_end();
  return unused;
}

/* ---- Starting and ending --------------------------------------------------------------------------------------- */

/* The child of a fork has none of the threads. */
static void forget_in_child(void) { executor = (struct executor){.lock = PTHREAD_MUTEX_INITIALIZER}; }

/* Before main: so that there is no moment at which a fork finds the lock held, and no handler. */
static __attribute__((constructor)) void prepare_for_forks(void) {
  forks = pthread_atfork(NULL, NULL, forget_in_child) == 0;
}

static void set_state(enum state state) {
  pthread_mutex_lock(&executor.lock);
  executor.state = state;
  pthread_mutex_unlock(&executor.lock);
}

/* Setup is held. Returns 0 or an error number. */
static int start(int threads) {
  int rc = forks ? 0 : ENOMEM;
  while (executor.threads < threads && rc == 0) {
    rc = pthread_create(&executor.ids[executor.threads], NULL, executor_thread, NULL);
    if (rc == 0) executor.threads++;
  }
  executor.left = executor.threads;
  if (executor.threads) set_state(RUNNING);
  return executor.threads ? 0 : rc;
}

static bool is_in(enum state state) {
  pthread_mutex_lock(&executor.lock);
  bool is = executor.state == state;
  pthread_mutex_unlock(&executor.lock);
  return is;
}

/* Setup is held, but not while it waits: others may have joined the threads by then, and have started new ones. */
static void finish_shutdown(void) {
  while (executor.left && is_in(SHUT_DOWN)) { /* so that a fiber does not wait in pthread_join */
    int rc = coir_cond_wait(&executor.ended, &executor.setup, COIR_NEVER);
    (void)rc; /* behind a shield it is always waited for */
  }
  while (executor.threads && is_in(SHUT_DOWN)) pthread_join(executor.ids[--executor.threads], NULL);
}

int go_blocking_executor_init(int threads) {
  if (threads <= 0) threads = THREADS_STANDARD;
  if (threads > THREADS_MAX) threads = THREADS_MAX;
  setup_begin();
  finish_shutdown();
  int rc = executor.threads ? 0 : start(threads);
  setup_end();
  return rc ? go__fail(rc) : 0;
}

void go_blocking_executor_shutdown(void) {
  setup_begin();
  if (is_in(RUNNING)) {
    set_state(SHUT_DOWN);
    coir_sem_release(&executor.work, executor.threads);
  }
  finish_shutdown();
  setup_end();
}

/* ---- Submitting ------------------------------------------------------------------------------------------------ */

/* Returns the job with the caller as one of its owners; NULL when nobody will run it. */
static struct job *submit(void *(*fn)(void *), void *arg) {
  if (is_in(NEVER_STARTED) && go_blocking_executor_init(0) != 0) return NULL;
  struct job *job = calloc(1, sizeof *job);
  if (!job) return NULL;
  job->fn = fn;
  job->arg = arg;
  atomic_init(&job->owners, 2);
  coir_hold_begin(); /* nobody is abandoned between a job and its permit */
  pthread_mutex_lock(&executor.lock);
  bool is_taken = executor.state == RUNNING;
  if (is_taken) {
    if (!executor.first) executor.end = &executor.first;
    *executor.end = job;
    executor.end = &job->next;
    executor.pending++;
  }
  pthread_mutex_unlock(&executor.lock);
  if (is_taken) coir_sem_release(&executor.work, 1);
  coir_hold_end();
  if (is_taken) return job;
  free(job);
  return NULL;
}

void *go_blocking_submit(void *(*fn)(void *), void *arg) {
  if (!fn) {
    errno = EINVAL;
    return NULL;
  }
  struct job *job = coir_current() ? submit(fn, arg) : NULL;
  if (!job) return fn(arg);
  coir_shield_begin();
  int rc = coir_event_wait(&job->done, COIR_NEVER);
  (void)rc; /* behind a shield it is always waited for */
  coir_shield_end();
  void *result = job->result;
  job_unref(job);
  return result;
}

static int count(const int *what) {
  pthread_mutex_lock(&executor.lock);
  int n = *what;
  pthread_mutex_unlock(&executor.lock);
  return n;
}

int go_blocking_executor_active_count(void) { return count(&executor.active); }
int go_blocking_executor_pending_count(void) { return count(&executor.pending); }
