/* The scheduler of libcsp: its runtime, goroutines, giving way.
 *
 * It is a runtime of Coir's of its own, not the default one: so the number of goroutines and of workers are true
 * whatever else of Coir the program uses. It is made and started by the first call that needs workers, never by loading
 * the library; so a program may set the environment inside main. What it is made of stays until the process ends:
 * exit() may be called by a goroutine, on one of the workers that would have to be waited for.
 *
 * A goroutine is a struct coir_fiber, whose handle is detached from the start. */
#define CSP_KEEP_ERRNO 1 /* this is where it is found */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core.h"
#include "csp_internal.h"
#include "csp_sched.h"
#include "netpoll.h"
#include "scheduler.h"

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan" /* it does not model fences; no data is published by one alone */
#endif

_Thread_local csp_core_t *csp_this_core;

static pthread_mutex_t stopping = PTHREAD_MUTEX_INITIALIZER; /* one stop at a time; before setup */
static pthread_mutex_t setup = PTHREAD_MUTEX_INITIALIZER;    /* never held across a wait of a fiber */
static _Atomic(struct coir_runtime *) running;               /* written under setup; NULL: to be started */
static _Atomic(struct coir_runtime *) made;                  /* written under setup; once made it stays */
static bool aborts;                                          /* LIBCSP_DEADLOCK=abort; under setup, before `made` */
static bool forks;                                           /* (c) forget_in_child is there */

/* ---- Messages -------------------------------------------------------------------------------------------------- */

/* Not inlined, so that errno is that of the thread that asks now. */
__attribute__((noinline)) int *csp_errno_location(void) {
  __asm__ volatile("");
  return &errno;
}

void csp__fail(int64_t rc) { *csp_errno_location() = (int)-rc; }

static void say(const char *format, va_list args) {
  char text[512] = "csp: ";
  size_t n = strlen(text);
  int more = vsnprintf(text + n, sizeof text - n - 1, format, args);
  n += more < 0 ? 0 : (size_t)more < sizeof text - n - 1 ? (size_t)more : sizeof text - n - 2;
  text[n++] = '\n';
  ssize_t written = write(STDERR_FILENO, text, n);
  (void)written; /* nobody is left to tell */
}

void csp__say(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say(format, args);
  va_end(args);
}

void csp__die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say(format, args);
  va_end(args);
  abort();
}

/* ---- The runtime ----------------------------------------------------------------------------------------------- */

/* Every goroutine waits for another one. Something may yet happen that only the program knows of, so it is told once,
 * and goes on waiting; unless LIBCSP_DEADLOCK=abort. */
static bool on_deadlock(struct coir_runtime *rt, void *told) {
  if (!atomic_exchange((_Atomic(bool) *)told, true)) {
    csp__say("deadlock: all goroutines wait for each other, and nobody else could wake them");
    size_t bytes = 0;
    char *text = csp__dump_text(rt, &bytes);
    ssize_t written = text ? write(STDERR_FILENO, text, bytes) : 0;
    (void)written;
    free(text);
  }
  return !aborts; /* or Coir does what config.deadlock says */
}

/* The child of a fork has no workers: what it inherited is of no use, and it may begin anew. */
static void forget_in_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  stopping = setup = fresh;
  atomic_store(&running, NULL);
  atomic_store(&made, NULL);
}

/* As the library is loaded: so that there is no moment at which a fork finds `setup` held, and no handler. */
static __attribute__((constructor)) void prepare(void) { forks = pthread_atfork(NULL, NULL, forget_in_child) == 0; }

static bool is_zero(const char *text) {
  char *end;
  return text && *text && strtol(text, &end, 10) == 0 && !*end;
}

/* Preemption as the environment wants it: the program's own SIGALRM, if it has one, is served as well. */
static void want_preemption(struct coir_config *config) {
  const char *wanted = getenv("LIBCSP_PREEMPT"), *signo = getenv("LIBCSP_PREEMPT_SIGNAL");
  if (!wanted || !*wanted) return;
  config->preempt = is_zero(wanted) ? COIR_OFF : COIR_ON;
  if (config->preempt == COIR_OFF) return;
  config->monitor = COIR_ON;
  config->preempt_signal = SIGALRM;
  if (!signo || !*signo) return;
  char *end;
  long n = strtol(signo, &end, 10);
  config->preempt_signal = n >= 1 && n <= 64 && !*end ? (int)n : -1; /* which coir_runtime_create does not take */
}

/* setup is held. */
static int runtime_make(int workers) {
  static _Atomic(bool) told;
  struct coir_config config = {.size = sizeof config, .workers = workers, .deadlock = COIR_DEADLOCK_IGNORE};
  if (is_zero(getenv("LIBCSP_PRODUCTION"))) config.workers = 1;
  want_preemption(&config);
  const char *deadlock = getenv("LIBCSP_DEADLOCK");
  config.on_deadlock = on_deadlock;
  config.on_deadlock_arg = &told;
  aborts = deadlock && !strcmp(deadlock, "abort");
  if (aborts) config.deadlock = COIR_DEADLOCK_ABORT;
  atomic_store(&told, false);
  struct coir_runtime *rt = NULL;
  int rc = forks ? coir_runtime_create(&rt, &config) : -ENOMEM;
  if (rc == -EINVAL && config.preempt == COIR_ON && config.preempt_signal != SIGALRM) {
    csp__say("LIBCSP_PREEMPT_SIGNAL=%s: cannot be used, and SIGALRM is", getenv("LIBCSP_PREEMPT_SIGNAL"));
    config.preempt_signal = SIGALRM;
    rc = coir_runtime_create(&rt, &config);
  }
  if (rc == 0) atomic_store(&made, rt);
  return rc;
}

/* `workers` counts when there is none yet. */
static struct coir_runtime *runtime_start(int workers) {
  coir_hold_begin(); /* the caller may be a fiber of a simulated runtime: no other is to come in between */
  pthread_mutex_lock(&setup);
  struct coir_runtime *rt = atomic_load(&running);
  int rc = rt || atomic_load(&made) ? 0 : runtime_make(workers);
  if (rc == 0 && !rt) {
    rc = coir_runtime_start(atomic_load(&made));
    /* Release: whoever finds it finds it started; pairs with the acquire in csp__runtime. */
    if (rc == 0) atomic_store_explicit(&running, rt = atomic_load(&made), memory_order_release);
  }
  pthread_mutex_unlock(&setup);
  coir_hold_end();
  if (rc) csp__fail(rc);
  return rt;
}

struct coir_runtime *csp__runtime(void) {
  struct coir_runtime *rt = atomic_load_explicit(&running, memory_order_acquire);
  return __builtin_expect(rt != NULL, 1) ? rt : runtime_start(0);
}

struct coir_runtime *csp__runtime_or_null(void) {
  return atomic_load_explicit(&made, memory_order_acquire);
}

struct coir_runtime *csp_runtime(void) {
  return csp__runtime();
}

void csp_scheduler_init(int n) {
  if (!runtime_start(n < 0 ? 0 : n)) csp__say("csp_scheduler_init: the workers cannot be started: %s", strerror(errno));
}

/* Whether somebody is left of a runtime that does not run, be it in the midst of its function: all but generators that
 * nobody resumes. */
static bool has_goroutines(struct coir_runtime *rt) {
  struct coir_stats stats;
  coir_runtime_get_stats(rt, &stats); /* before the list: where a generator goes in between, one too many is found */
  if (stats.fibers_live == 0) return false;
  size_t max = coir_runtime_list(rt, NULL, 0), suspended = 0;
  struct coir_fiber_info *all = malloc((max ? max : 1) * sizeof *all);
  for (size_t i = 0, n = all ? coir_runtime_list(rt, all, max) : 0; i < n && i < max; i++)
    suspended += all[i].state == COIR_FIBER_WAITING && !strcmp(all[i].waits_for, "resume");
  free(all);
  return stats.fibers_live > suspended;
}

/* The runtime has just been stopped. False: others, who took it that it runs, have started goroutines since, and it
 * runs again, for them. */
static bool stay_stopped(struct coir_runtime *rt) {
  pthread_mutex_lock(&setup);
  atomic_store(&running, NULL);
  atomic_thread_fence(memory_order_seq_cst); /* pairs with the fence in see_it_run(): one of the two notices */
  bool again = has_goroutines(rt) && coir_runtime_start(rt) == 0;
  if (again) atomic_store(&running, rt);
  pthread_mutex_unlock(&setup);
  return !again;
}

/* A goroutine has been started from outside, where nothing keeps others from stopping the runtime. */
static void see_it_run(struct coir_runtime *rt) {
  atomic_thread_fence(memory_order_seq_cst); /* pairs with the fence in stay_stopped() */
  if (atomic_load(&running) != rt) runtime_start(0);
}

void csp_scheduler_stop(void) {
  struct coir_runtime *rt = csp__runtime_or_null();
  if (!rt) return;
  int rc = coir_runtime_current() == rt ? -EDEADLK : 0; /* before it waits for others that stop it */
  if (rc == 0) pthread_mutex_lock(&stopping);
  while (rc == 0 && (rc = coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER)) == 0 && !stay_stopped(rt)) {}
  if (rc == -EDEADLK) csp__die("csp_scheduler_stop: called by a goroutine, for which it would wait");
  pthread_mutex_unlock(&stopping);
}

/* ---- Goroutines ------------------------------------------------------------------------------------------------ */

#define STACK_IDS 4
#define STACK_BYTES_MIN ((size_t)64 << 10)
#define CALLS_FEW 32

static csp_proc_t *proc_start(const struct coir_attr *attr, void (*fn)(void *arg), void *arg) {
  struct coir_runtime *rt = csp__runtime();
  if (__builtin_expect(!rt, 0)) return NULL;
  coir_fn run = (coir_fn)(void (*)(void))fn; /* through a type without parameters: so compilers see that it is meant */
  if (__builtin_expect(atomic_load_explicit(&csp__traces, memory_order_relaxed), 0) && fn) {
    run = csp__trace_wrap(fn, arg, &arg);
    if (!run) return NULL;
  }
  struct coir_fiber *f;
  int rc = coir_runtime_spawn(rt, run, arg, attr, &f);
  if (__builtin_expect(rc != 0, 0)) {
    if ((void (*)(void))run != (void (*)(void))fn) free(arg); /* what csp__trace_wrap made */
    csp__fail(rc);
    return NULL;
  }
  if (coir_runtime_current() != rt) see_it_run(rt);
  return (csp_proc_t *)f;
}

csp_proc_t *csp_proc_create(int stack_id, void (*fn)(void *arg), void *arg) {
  static const struct coir_attr attrs[STACK_IDS] = {
      {.stack_bytes = STACK_BYTES_MIN, .detached = true, .is_void = true},
      {.stack_bytes = (size_t)128 << 10, .detached = true, .is_void = true},
      {.stack_bytes = (size_t)256 << 10, .detached = true, .is_void = true},
      {.stack_bytes = (size_t)1 << 20, .detached = true, .is_void = true},
  };
  return proc_start(&attrs[stack_id < 0 ? 0 : stack_id >= STACK_IDS ? STACK_IDS - 1 : stack_id], fn, arg);
}

struct csp_proc *csp_go(void (*fn)(void *arg), void *arg) {
  return csp_proc_create(0, fn, arg);
}

struct call {
  const csp_call_t *call;
  struct coir_wait_group *group;
};

static void call_run(void *arg) {
  struct call *c = arg;
  c->call->fn(c->call->arg);
  coir_wait_group_done(c->group);
}

void csp_sync_all(const csp_call_t *calls, size_t n) {
  /* Few are often fork-join work: calls that make such calls in turn. They run depth first; else all callers of one
   * level of the tree would wait at a time, each with a stack, before the next level begins. Many go to the ring, from
   * which thieves take more than one at a time. */
  static const struct coir_attr depth_first = {
      .stack_bytes = STACK_BYTES_MIN, .order = COIR_ORDER_LIFO, .detached = true, .is_void = true};
  static const struct coir_attr in_order = {.stack_bytes = STACK_BYTES_MIN, .detached = true, .is_void = true};
  struct coir_wait_group group = {{0}};
  struct call few[CALLS_FEW], *list = n <= CALLS_FEW ? few : malloc(n * sizeof *list);
  coir_wait_group_add(&group, (int64_t)n);
  for (size_t k = 0; k < n; k++) {
    size_t i = list == few ? n - 1 - k : k; /* either way the first runs first */
    struct call here = {&calls[i], &group}, *c = list ? &list[i] : &here;
    *c = here;
    if (!list || !proc_start(list == few ? &depth_first : &in_order, call_run, c)) call_run(c);
  }
  coir_shield_begin(); /* they use what is the caller's: this has to wait for them */
  coir_wait_group_wait(&group, COIR_NEVER);
  coir_shield_end();
  if (list != few) free(list);
}

/* ---- Giving way ------------------------------------------------------------------------------------------------ */

void csp_sched_yield(void) { coir_yield(); }
void csp_yield(void) { coir_yield(); }

void csp_sched_hangup(uint64_t ns) {
  if (ns == 0) return;
  coir_shield_begin(); /* what asks a fiber to stop does not make this shorter */
  coir_sleep(ns < COIR_NEVER ? (int64_t)ns : COIR_NEVER);
  coir_shield_end();
}

void csp_hangup(uint64_t ns) { csp_sched_hangup(ns); }

void csp_block_enter(void) {
  int rc = coir_block_enter();
  (void)rc; /* where there is no thread to spare, it holds up its worker */
}

void csp_block_leave(void) { coir_block_leave(); }

void *csp_core_run(void *data) {
  (void)data;
  if (!csp__runtime()) csp__die("csp_core_run: the workers cannot be started: %s", strerror(errno));
  coir_shield_begin();
  for (;;) coir_select(NULL, 0, COIR_NEVER);
}
