/* The runtime of go_fiber, its fibers and its parameters.
 *
 * It is a runtime of Coir's of its own, not the default one: so its statistics, its number of workers and what
 * gof_join_background abandons concern these fibers alone, whatever else of Coir the program uses. A gof_fiber_t is a
 * struct coir_fiber, and its handle is detached from the start. */
#include "gof_internal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STACK_MIN ((size_t)16 << 10)
#define STACK_MAX ((size_t)1 << 30)
#define STACK_STANDARD ((size_t)256 << 10)
#define WORKERS_MAX 64
#define STEAL_MIN_LIVE 4
#define STEAL_MIN_VICTIM 3

static pthread_mutex_t setup = PTHREAD_MUTEX_INITIALIZER;   /* never held across a wait */
static _Atomic(struct coir_runtime *) the_runtime;          /* written under setup */
static int npollers_wanted;                                 /* under setup: by gof_set_npollers; 0 none */
static struct coir_mutex tuning_lock;                       /* get, change and set are one step */
static bool forks;                                          /* constant: forget_in_child is there */

/* ---- errno and messages ---------------------------------------------------------------------------------------- */

/* Not inlined, so that the address of errno is of the thread that asks now. */
__attribute__((noinline)) int gof__fail(int64_t rc) {
  __asm__ volatile("");
  errno = (int)-rc;
  return -1;
}

/* The asm keeps the compiler from seeing that this is the same for one thread, where it looks across files. */
__attribute__((noinline)) int *gof_errno_location(void) {
  __asm__ volatile("");
  return &errno;
}

void gof__say(const char *format, ...) {
  char text[512] = "gof: ";
  size_t n = strlen(text);
  va_list args;
  va_start(args, format);
  int more = vsnprintf(text + n, sizeof text - n - 1, format, args);
  va_end(args);
  n += more < 0 ? 0 : (size_t)more < sizeof text - n - 1 ? (size_t)more : sizeof text - n - 2;
  text[n++] = '\n';
  ssize_t written = write(STDERR_FILENO, text, n);
  (void)written; /* nobody is left to tell */
}

/* ---- The environment ------------------------------------------------------------------------------------------- */

/* A variable's number, brought into range; `standard` where it is not set, empty, or no number. */
static int from_environment(const char *name, int standard, int min, int max) {
  const char *text = getenv(name);
  if (!text || !*text) return standard;
  char *end;
  long long v = strtoll(text, &end, 10);
  if (*end) {
    gof__say("%s=%s is not a number, and ignored", name, text);
    return standard;
  }
  return v < min ? min : v > max ? max : (int)v;
}

static int switch_from_environment(const char *name, int standard) {
  return from_environment(name, standard, -1, 1) != 0; /* anything but 0 is on */
}

static void tuning_from_environment(struct coir_tuning *t) {
  t->steal = switch_from_environment("GOF_WORKSTEAL", 1);
  t->steal_min_live = from_environment("GOF_STEAL_MIN_LIVE", STEAL_MIN_LIVE, -1, 1 << 30);
  if (t->steal_min_live < 0) t->steal_min_live = STEAL_MIN_LIVE;
  t->steal_min_victim = from_environment("GOF_STEAL_MIN_VICTIM", STEAL_MIN_VICTIM, 2, 1 << 30);
  t->affinity = switch_from_environment("GOF_AFFINITY", 1);
  t->rebalance = switch_from_environment("GOF_REBALANCE", 0);
  t->rebalance_threshold = from_environment("GOF_REBALANCE_THRESHOLD", 4, 1, 1 << 30);
  t->rebalance_interval_ms = from_environment("GOF_REBALANCE_INTERVAL_MS", 10, 1, 1 << 30);
}

/* ---- The runtime ----------------------------------------------------------------------------------------------- */

static bool aborts; /* GOF_DEADLOCK=abort; under setup, before there is a runtime */

/* Every fiber waits for another one. A program of this interface may count on some thread yet to come, so it is told
 * once, and goes on waiting; unless GOF_DEADLOCK=abort. */
static bool on_deadlock(struct coir_runtime *rt, void *told) {
  if (!atomic_exchange((_Atomic(bool) *)told, true)) {
    gof__say("deadlock: all fibers wait for each other, and nobody else could wake them");
    size_t bytes = 0;
    char *text = gof__dump_text(rt, &bytes);
    ssize_t written = text ? write(STDERR_FILENO, text, bytes) : 0;
    (void)written;
    free(text);
  }
  return !aborts; /* or Coir does what config.deadlock says */
}

static size_t stack_in_range(size_t bytes) {
  return bytes < STACK_MIN ? STACK_MIN : bytes > STACK_MAX ? STACK_MAX : bytes;
}

/* The child of a fork has no workers: what it inherited is of no use, and it may begin anew. */
static void forget_in_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  setup = fresh;
  tuning_lock = (struct coir_mutex){0};
  gof__turns_fork_child();
  atomic_store(&the_runtime, NULL);
}

/* Before main: so that there is no moment at which a fork finds `setup` held, and no handler. */
static __attribute__((constructor)) void prepare_for_forks(void) {
  forks = pthread_atfork(NULL, NULL, forget_in_child) == 0;
}

static int runtime_make(size_t default_stack_bytes, struct coir_runtime **out) {
  static _Atomic(bool) told;
  struct coir_config config = {.size = sizeof config, .deadlock = COIR_DEADLOCK_IGNORE};
  config.workers = from_environment("GOF_NWORKERS", 0, 1, WORKERS_MAX);
  config.stack_bytes = default_stack_bytes ? stack_in_range(default_stack_bytes) : STACK_STANDARD;
  config.pollers = npollers_wanted ? npollers_wanted : from_environment("GOF_NPOLLERS", 1, 1, WORKERS_MAX);
  config.poll_partition = switch_from_environment("GOF_POLL_PARTITION", 1) ? COIR_ON : COIR_OFF;
  /* With one worker programs count on one fiber running at a time, and on the caller's thread. */
  if (!getenv("COIR_MONITOR")) config.monitor = COIR_OFF;
  config.on_deadlock = on_deadlock;
  config.on_deadlock_arg = &told;
  const char *deadlock = getenv("GOF_DEADLOCK");
  aborts = deadlock && !strcmp(deadlock, "abort");
  if (aborts) config.deadlock = COIR_DEADLOCK_ABORT;
  struct coir_tuning tuning;
  tuning_from_environment(&tuning);
  int rc = forks ? coir_runtime_create(out, &config) : -ENOMEM;
  if (rc == 0) coir_runtime_set_tuning(*out, &tuning);
  return rc;
}

struct coir_runtime *gof__runtime(size_t default_stack_bytes) {
  struct coir_runtime *rt = atomic_load_explicit(&the_runtime, memory_order_acquire);
  if (__builtin_expect(rt != NULL, 1)) return rt;
  coir_hold_begin(); /* the caller may be a fiber of a simulated runtime: no other is to come in between */
  pthread_mutex_lock(&setup);
  rt = atomic_load(&the_runtime);
  int rc = 0;
  if (!rt) {
    gof__trace_begin();
    rc = runtime_make(default_stack_bytes, &rt);
    if (rc == 0) atomic_store_explicit(&the_runtime, rt, memory_order_release); /* pairs with the acquire above */
  }
  pthread_mutex_unlock(&setup);
  coir_hold_end();
  if (rc == 0) return rt;
  gof__say("the runtime cannot be made: %s", strerror(-rc));
  abort();
}

void gof_init(size_t default_stack_bytes) {
  gof__runtime(default_stack_bytes);
#ifdef GOF_DEBUG
  gof_sched_stats s;
  gof_get_stats(&s);
  gof__say("init: %d workers, %d pollers, steal %d (live %d, victim %d), affinity %d, rebalance %d (%d, %d ms)",
           s.nworkers, gof_get_npollers(), s.enable_steal, s.steal_min_live, s.steal_min_victim, s.affinity_enable,
           s.rebalance_enable, s.rebalance_threshold, s.rebalance_interval_ms);
#endif
}

struct coir_runtime *gof_runtime(void) { return gof__runtime(0); }

/* ---- Fibers ---------------------------------------------------------------------------------------------------- */

gof_fiber_t *gof_spawn(gof_fn fn, void *arg, size_t stack_bytes) {
  static const struct coir_attr standard = {.detached = true, .is_void = true};
  struct coir_attr other;
  const struct coir_attr *attr = &standard;
  struct coir_fiber *f;
  if (__builtin_expect(stack_bytes != 0, 0)) {
    other = standard;
    other.stack_bytes = stack_bytes < STACK_MIN ? STACK_MIN : stack_bytes;
    attr = &other;
  }
  struct coir_runtime *rt = atomic_load_explicit(&the_runtime, memory_order_acquire); /* as in gof__runtime */
  if (__builtin_expect(!rt, 0)) rt = gof__runtime(0);
  /* Through a type without parameters: so compilers see that it is meant. */
  int rc = coir_runtime_spawn(rt, (coir_fn)(void (*)(void))fn, arg, attr, &f);
  if (__builtin_expect(rc != 0, 0)) {
    gof__fail(rc);
    return NULL;
  }
  GOF_LOG("spawn: fiber %p", (void *)f);
  return (gof_fiber_t *)f;
}

void gof_yield(void) { coir_yield(); }

void gof_sleep_ms(uint64_t ms) {
  if (ms == 0) coir_yield();
  else coir_sleep(ms > (uint64_t)(COIR_NEVER / COIR_MS(1)) ? COIR_NEVER : COIR_MS(ms));
}

gof_fiber_t *gof_current(void) { return (gof_fiber_t *)coir_current(); }

int gof_in_fiber(void) { return coir_current() != NULL; }

/* ---- Running --------------------------------------------------------------------------------------------------- */

void gof_run(void) {
  struct coir_runtime *rt = gof__runtime(0);
  if (coir_runtime_list(rt, NULL, 0) == 0) return;
  GOF_LOG("run: begins");
  int rc = coir_runtime_run(rt, NULL, NULL, NULL);
  if (rc && rc != -EBUSY) gof__say("gof_run: the workers cannot be started: %s", strerror(-rc));
  GOF_LOG("run: %s", rc ? strerror(-rc) : "no fiber is left");
}

int gof_start_background(size_t default_stack_bytes) {
  int rc = coir_runtime_start(gof__runtime(default_stack_bytes));
  GOF_LOG("background: %s", rc ? strerror(-rc) : "begins");
  return rc ? gof__fail(rc) : 0;
}

void gof_request_stop(void) {
  int rc = coir_runtime_halt(gof__runtime(0));
  (void)rc; /* it does not run: nothing to stop */
  GOF_LOG("background: stop requested");
}

int gof_join_background(void) {
  struct coir_runtime *rt = gof__runtime(0);
  struct coir_stats before, after;
  coir_runtime_get_stats(rt, &before);
  int rc = coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER);
  if (rc) return gof__fail(rc);
  coir_runtime_get_stats(rt, &after);
  uint64_t dropped = after.fibers_dropped - before.fibers_dropped;
  if (dropped) gof__say("%llu fibers were left at the stop, and are abandoned", (unsigned long long)dropped);
  return 0;
}

/* ---- Parameters ------------------------------------------------------------------------------------------------ */

static int at_least(int v, int min) { return v < min ? min : v; }

static struct coir_runtime *tuning_begin(struct coir_tuning *t) {
  struct coir_runtime *rt = gof__runtime(0);
  while (coir_mutex_lock(&tuning_lock, COIR_NEVER) != 0) {} /* what asks a fiber to stop does not stop this */
  coir_runtime_get_tuning(rt, t);
  return rt;
}

static void tuning_end(struct coir_runtime *rt, const struct coir_tuning *t) {
  coir_runtime_set_tuning(rt, t);
  coir_mutex_unlock(&tuning_lock);
}

void gof_set_steal_params(const gof_steal_params *p) {
  if (!p) return;
  struct coir_tuning t;
  struct coir_runtime *rt = tuning_begin(&t);
  t.steal = p->enable_steal != 0;
  t.steal_min_live = at_least(p->steal_min_live, 0);
  t.steal_min_victim = at_least(p->steal_min_victim, 2);
  tuning_end(rt, &t);
}

void gof_get_steal_params(gof_steal_params *out) {
  if (!out) return;
  struct coir_tuning t;
  coir_runtime_get_tuning(gof__runtime(0), &t);
  *out = (gof_steal_params){t.steal, t.steal_min_live, t.steal_min_victim};
}

void gof_set_rebalance_params(const gof_rebalance_params *p) {
  if (!p) return;
  struct coir_tuning t;
  struct coir_runtime *rt = tuning_begin(&t);
  t.rebalance = p->enable != 0;
  t.rebalance_threshold = at_least(p->threshold, 1);
  t.rebalance_interval_ms = at_least(p->interval_ms, 1);
  tuning_end(rt, &t);
}

void gof_get_rebalance_params(gof_rebalance_params *out) {
  if (!out) return;
  struct coir_tuning t;
  coir_runtime_get_tuning(gof__runtime(0), &t);
  *out = (gof_rebalance_params){t.rebalance, t.rebalance_threshold, t.rebalance_interval_ms};
}

void gof_set_affinity_enabled(int enable) {
  struct coir_tuning t;
  struct coir_runtime *rt = tuning_begin(&t);
  t.affinity = enable != 0;
  tuning_end(rt, &t);
}

int gof_get_affinity_enabled(void) {
  struct coir_tuning t;
  coir_runtime_get_tuning(gof__runtime(0), &t);
  return t.affinity;
}

int gof_set_npollers(int n) {
  if (n < 1) return gof__fail(-EINVAL);
  pthread_mutex_lock(&setup);
  int rc = atomic_load(&the_runtime) ? -EBUSY : 0;
  if (!rc) npollers_wanted = n > WORKERS_MAX ? WORKERS_MAX : n;
  pthread_mutex_unlock(&setup);
  return rc ? gof__fail(rc) : 0;
}

int gof_get_npollers(void) {
  struct coir_stats s;
  pthread_mutex_lock(&setup);
  struct coir_runtime *rt = atomic_load(&the_runtime);
  int n = npollers_wanted ? npollers_wanted : 1;
  pthread_mutex_unlock(&setup);
  if (!rt) return n;
  coir_runtime_get_stats(rt, &s);
  return s.pollers;
}
