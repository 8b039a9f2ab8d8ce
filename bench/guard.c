/* guard_paths PATH: does what one hot path of Coir does, for bench/guard, which has valgrind count its instructions.
 *
 * Times differ from run to run; how many instructions a path takes does not, if nothing around it does. So there is one
 * worker and no monitor. Time stands still (by the linker's --wrap=clock_gettime), since the worker's loop looks around
 * the more often the longer fibers take. And only Coir's instructions count: not those of the C library, which has
 * another memcpy for each processor, and not those of the functions here, which are called guard_... to be told apart.
 *
 * A path runs three times in one process, each time between guard_begin and guard_end, where valgrind takes its counts:
 * 2N operations as a warm-up, in which all that is made once is made; N; and 2N. What an operation costs is the
 * difference of the last two, over N: what a run does once is in both. (`timer` does N in either, and N of the last run
 * have what the others have not.)
 *
 * guard_paths --list prints the compiler, and why budgets would not fit this build, or nothing; and then each path's
 * name, N, and what one operation is. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"
#include "coir_job.h"

#define BATCH 128 /* N of those paths that have a fiber for each operation */
#define MANY 4096 /* N of the others: a multiple of how often a worker switches between two looks around */

struct path {
  const char *name;
  long n;
  void (*run)(long n, long more); /* n + more operations */
  bool in_job;
  const char *what;
};

/* ---- Common ---------------------------------------------------------------------------------------------------- */

/* Where the counting begins and ends: bench/guard tells valgrind these names. Not the same inside, or a compiler would
 * make one of them. */
void guard_begin(void);
void guard_end(void);
static volatile bool is_counting;
void __attribute__((noinline)) guard_begin(void) { is_counting = true; }
void __attribute__((noinline)) guard_end(void) { is_counting = false; }

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

/* What Coir reads. Not zero, which deadlines have a meaning for. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
  if (clock != CLOCK_MONOTONIC) return __real_clock_gettime(clock, now);
  *now = (struct timespec){.tv_sec = 1000};
  return 0;
}

/* The result of a call that must be this one. */
static void guard_expect(const char *call, long result, long expected) {
  if (result == expected) return;
  fprintf(stderr, "guard: %s: %ld, not %ld\n", call, result, expected);
  _exit(1);
}

static struct coir_fiber *guard_spawn(coir_fn fn, void *arg) {
  struct coir_fiber *fiber;
  guard_expect("coir_spawn", coir_spawn(fn, arg, NULL, &fiber), 0);
  return fiber;
}

static void guard_join(struct coir_fiber *fiber) { guard_expect("coir_join", coir_join(fiber, NULL, COIR_NEVER), 0); }

static struct coir_chan *guard_chan(size_t capacity) {
  struct coir_chan *chan = coir_chan_create(sizeof(long), capacity);
  guard_expect("coir_chan_create", chan != NULL, true);
  return chan;
}

static int guard_nothing(void *arg) {
  (void)arg;
  return 0;
}

/* ---- Fibers ---------------------------------------------------------------------------------------------------- */

static void guard_raw_fiber(void *arg) {
  (void)arg;
  for (;;) coir_raw_fiber_yield();
}

static void guard_switch(long n, long more) {
  struct coir_raw_fiber *raw;
  guard_expect("coir_raw_fiber_create", coir_raw_fiber_create(&raw, 64 << 10), 0);
  guard_begin();
  for (long i = 0; i < (n + more) / 2; i++) coir_raw_fiber_resume(raw, guard_raw_fiber, NULL);
  guard_end();
  coir_raw_fiber_destroy(raw);
}

static int guard_yielder(void *is_over) {
  while (!*(const bool *)is_over) coir_yield();
  return 0;
}

static void guard_yield(long n, long more) {
  bool is_over = false;
  struct coir_fiber *other = guard_spawn(guard_yielder, &is_over);
  guard_begin();
  for (long i = 0; i < (n + more) / 2; i++) coir_yield();
  guard_end();
  is_over = true;
  guard_join(other);
}

static int guard_event_waiter(void *event) { return coir_event_wait(event, COIR_NEVER); }

static void guard_wake_local(long n, long more) {
  struct coir_event events[2 * BATCH];
  struct coir_fiber *fibers[2 * BATCH];
  memset(events, 0, sizeof events);
  for (long i = 0; i < n + more; i++) fibers[i] = guard_spawn(guard_event_waiter, &events[i]);
  coir_yield(); /* they all run, and wait */
  guard_begin();
  for (long i = 0; i < n + more; i++) coir_event_set(&events[i]);
  guard_end();
  for (long i = 0; i < n + more; i++) guard_join(fibers[i]);
}

/* A fiber's life in three parts; `part` is the one that counts. */
enum part { PART_SPAWN, PART_EXIT, PART_JOIN };

static void guard_life(long count, enum part part) {
  struct coir_fiber *fibers[2 * BATCH];
  if (part == PART_SPAWN) guard_begin();
  for (long i = 0; i < count; i++) coir_spawn(guard_nothing, NULL, NULL, &fibers[i]);
  if (part == PART_SPAWN) guard_end();
  if (part == PART_EXIT) guard_begin();
  coir_yield(); /* each runs, and ends */
  if (part == PART_EXIT) guard_end();
  if (part == PART_JOIN) guard_begin();
  for (long i = 0; i < count; i++) coir_join(fibers[i], NULL, COIR_NEVER);
  if (part == PART_JOIN) guard_end();
}

static void guard_life_spawn(long n, long more) { guard_life(n + more, PART_SPAWN); }
static void guard_life_exit(long n, long more) { guard_life(n + more, PART_EXIT); }
static void guard_life_join(long n, long more) { guard_life(n + more, PART_JOIN); }

static void guard_spawn_join(long n, long more) {
  guard_begin();
  for (long i = 0; i < n + more; i++) guard_join(guard_spawn(guard_nothing, NULL));
  guard_end();
}

/* ---- Channels and select --------------------------------------------------------------------------------------- */

static void guard_chan_ready(long n, long more) {
  struct coir_chan *chan = guard_chan(16);
  long value = 0;
  guard_begin();
  for (long i = 0; i < n + more; i++) {
    coir_chan_send(chan, &i, COIR_NEVER);
    coir_chan_recv(chan, &value, COIR_NEVER);
  }
  guard_end();
  guard_expect("the last value", value, n + more - 1);
  coir_chan_unref(chan);
}

struct flow {
  struct coir_chan *chan;
  long values;
};

static int guard_producer(void *arg) {
  const struct flow *flow = arg;
  for (long i = 0; i < flow->values; i++) coir_chan_send(flow->chan, &i, COIR_NEVER);
  return 0;
}

/* `producers` fibers send to one channel, and this one receives. */
static void guard_flow(long count, long producers, size_t capacity) {
  struct flow flow = {.chan = guard_chan(capacity), .values = count / producers};
  struct coir_fiber *fibers[8];
  long value = 0;
  for (long i = 0; i < producers; i++) fibers[i] = guard_spawn(guard_producer, &flow);
  guard_begin();
  for (long i = 0; i < count; i++) coir_chan_recv(flow.chan, &value, COIR_NEVER);
  guard_end();
  guard_expect("the last value", value, flow.values - 1);
  for (long i = 0; i < producers; i++) guard_join(fibers[i]);
  coir_chan_unref(flow.chan);
}

static void guard_chan_blocking(long n, long more) { guard_flow(n + more, 1, 0); }
static void guard_chan_mpsc(long n, long more) { guard_flow(n + more, 8, 128); }

static void guard_select_3(long n, long more) {
  struct flow flows[3];
  struct coir_arm arms[3];
  struct coir_fiber *fibers[3];
  long value = 0, each = (n + more) / 3, sum = 0;
  for (int i = 0; i < 3; i++) {
    flows[i] = (struct flow){.chan = guard_chan(0), .values = each};
    arms[i] = coir_arm_recv(flows[i].chan, &value);
    fibers[i] = guard_spawn(guard_producer, &flows[i]);
  }
  guard_begin();
  for (long i = 0; i < 3 * each; i++) {
    coir_select(arms, 3, COIR_NEVER);
    sum += value;
  }
  guard_end();
  guard_expect("the sum", sum, 3 * (each * (each - 1) / 2));
  for (int i = 0; i < 3; i++) {
    guard_join(fibers[i]);
    coir_chan_unref(flows[i].chan);
  }
}

/* ---- Locks, time, descriptors ---------------------------------------------------------------------------------- */

static void guard_mutex(long n, long more) {
  struct coir_mutex mutex = {{0}};
  guard_begin();
  for (long i = 0; i < n + more; i++) {
    if (coir_mutex_lock(&mutex, COIR_NEVER) == 0) coir_mutex_unlock(&mutex);
  }
  guard_end();
}

struct contest {
  struct coir_mutex mutex;
  long turns;
};

/* Yields with the mutex locked, so that the other always finds it so, and waits. */
static int guard_rival(void *arg) {
  struct contest *contest = arg;
  for (long i = 0; i < contest->turns; i++) {
    guard_expect("coir_mutex_lock", coir_mutex_lock(&contest->mutex, COIR_NEVER), 0);
    coir_yield();
    coir_mutex_unlock(&contest->mutex);
  }
  return 0;
}

static void guard_mutex_contended(long n, long more) {
  struct contest contest = {.turns = (n + more) / 2};
  guard_begin();
  struct coir_fiber *other = guard_spawn(guard_rival, &contest);
  guard_rival(&contest);
  guard_join(other);
  guard_end();
}

/* Waits that are cancelled: first `plain` ones, which have no deadline, and then `timed` ones. */
struct waits {
  long plain, timed;
};

static int guard_sleeper(void *arg) {
  const struct waits *waits = arg;
  int64_t soon = coir_after(COIR_SEC(1));
  for (long i = 0; i < waits->plain; i++) guard_expect("coir_sleep_until", coir_sleep_until(COIR_NEVER), -ECANCELED);
  for (long i = 0; i < waits->timed; i++) {
    int64_t spread = (int64_t)((uint64_t)i * 2654435761u % 65536) * 1000000;
    guard_expect("coir_sleep_until", coir_sleep_until(soon + spread), -ECANCELED);
  }
  return 0;
}

static void guard_timer(long n, long more) {
  struct waits waits = {.plain = n - more, .timed = more};
  struct coir_fiber *sleeper = guard_spawn(guard_sleeper, &waits);
  coir_yield();
  guard_begin();
  for (long i = 0; i < n; i++) {
    coir_cancel(sleeper);
    coir_yield();
  }
  guard_end();
  guard_join(sleeper);
}

static void guard_read_ready(long n, long more) {
  int ends[2];
  char byte = 0;
  guard_expect("pipe", pipe(ends), 0);
  guard_begin();
  for (long i = 0; i < n + more; i++) {
    guard_expect("write", write(ends[1], "x", 1), 1);
    guard_expect("coir_read", coir_read(ends[0], &byte, 1, COIR_NEVER), 1);
  }
  guard_end();
  guard_expect("coir_close", coir_close(ends[0]), 0);
  close(ends[1]);
}

/* ---- Jobs ------------------------------------------------------------------------------------------------------ */

static void guard_side(void *arg) { (void)arg; }

static void guard_fork_join(long n, long more) {
  guard_begin();
  for (long i = 0; i < n + more; i++) coir_fork2(guard_side, NULL, guard_side, NULL);
  guard_end();
}

static void guard_job(struct coir_job *job, void *arg) {
  (void)job;
  (void)arg;
}

static struct coir_job *this_job;

/* Spawns them all, and waits until they have run. The one path whose count may differ by some ten instructions in a
 * million: how often the worker has looked around before its first job depends on how the threads start, and every
 * 16th and 64th time it looks at more. */
static void guard_job_spawn(long n, long more) {
  struct coir_counter counter;
  coir_counter_init(&counter, 0);
  guard_begin();
  for (long i = 0; i < n + more; i++) coir_job_spawn_with(this_job, &counter, guard_job, NULL);
  guard_expect("coir_job_wait", coir_job_wait(this_job, &counter), 0);
  guard_end();
}

/* ---- All of them ----------------------------------------------------------------------------------------------- */

static const struct path paths[] = {
    {"switch", MANY, guard_switch, false, "one of the two switches of a raw fiber that is resumed and yields"},
    {"yield", MANY, guard_yield, false, "coir_yield, two fibers"},
    {"wake_local", BATCH, guard_wake_local, false, "coir_event_set with a fiber of this worker that waits"},
    {"spawn", BATCH, guard_life_spawn, false, "coir_spawn with a handle"},
    {"exit", BATCH, guard_life_exit, false, "a fiber begins, does nothing, ends, and the next one runs"},
    {"join", BATCH, guard_life_join, false, "coir_join of a fiber that has ended"},
    {"spawn_join", MANY, guard_spawn_join, false, "coir_spawn, and coir_join, which waits"},
    {"chan_ready", MANY, guard_chan_ready, false, "coir_chan_send and coir_chan_recv, neither of which waits"},
    {"chan_blocking", MANY, guard_chan_blocking, false, "a value through an unbuffered channel: one of both waits"},
    {"chan_mpsc", MANY, guard_chan_mpsc, false, "a value through a channel of 128, from one of 8 fibers"},
    {"select_3", 3 * MANY, guard_select_3, false, "coir_select on three unbuffered channels, and the send"},
    {"mutex", MANY, guard_mutex, false, "coir_mutex_lock and coir_mutex_unlock, nobody else"},
    {"mutex_contended", MANY, guard_mutex_contended, false, "the same and a yield, another fiber waits"},
    {"timer", MANY, guard_timer, false, "a deadline for a wait that is cancelled: its timer armed and cancelled"},
    {"read_ready", MANY, guard_read_ready, false, "coir_read of a byte that is there"},
    {"fork_join", MANY, guard_fork_join, true, "coir_fork2 in a job"},
    {"job_spawn", MANY, guard_job_spawn, true, "coir_job_spawn_with, and the job, which does nothing"},
};
#define PATHS ((long)(sizeof paths / sizeof paths[0]))

static int guard_path(void *arg) {
  const struct path *path = arg;
  path->run(path->n, path->n);
  path->run(path->n, 0);
  path->run(path->n, path->n);
  return 0;
}

static void guard_path_as_job(struct coir_job *job, void *arg) {
  this_job = job;
  guard_path(arg);
}

static void guard_in_job(const struct path *path) {
  struct coir_job_config config = {.size = sizeof config, .threads = 1, .monitor = COIR_OFF};
  struct coir_job_system *jobs;
  guard_expect("coir_job_system_create", coir_job_system_create(&jobs, &config), 0);
  struct coir_counter *counter = coir_job_run(jobs, guard_path_as_job, (void *)path);
  guard_expect("coir_job_run", counter != NULL, true);
  guard_expect("coir_counter_wait", coir_counter_wait(counter, COIR_NEVER), 0);
  coir_counter_unref(counter);
  guard_expect("coir_job_system_shutdown", coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  coir_job_system_destroy(jobs);
}

static void guard_in_fiber(const struct path *path) {
  struct coir_config config = {.size = sizeof config, .workers = 1, .monitor = COIR_OFF};
  guard_expect("coir_configure", coir_configure(&config), 0);
  guard_expect("coir_run", coir_run(guard_path, (void *)path), 0);
}

/* The compiler, and why this build is not the one that budgets are for: what CMake says of it, else nothing. */
#if defined(__clang__)
#define COMPILER "clang-" TEXT(__clang_major__)
#else
#define COMPILER "gcc-" TEXT(__GNUC__)
#endif
#define TEXT(macro) TEXT_OF(macro)
#define TEXT_OF(token) #token
#if defined(__CET__) || defined(__SSP__) || defined(__SSP_STRONG__)
#define HARDENED " hardened" /* by default, in some distributions: these add instructions */
#else
#define HARDENED ""
#endif
#if defined(__x86_64__)
#define ARCHITECTURE "x86_64"
#elif defined(__aarch64__)
#define ARCHITECTURE "aarch64"
#else
#define ARCHITECTURE "other"
#endif

static void guard_list(void) {
  printf("%s\t%s\n", COMPILER " " ARCHITECTURE HARDENED, GUARD_WHY_NOT);
  for (long i = 0; i < PATHS; i++) printf("%s\t%ld\t%s\n", paths[i].name, paths[i].n, paths[i].what);
}

int main(int argc, char **argv) {
  const char *name = argc == 2 ? argv[1] : "";
  for (long i = 0; i < PATHS; i++) {
    if (strcmp(name, paths[i].name) != 0) continue;
    if (paths[i].in_job) guard_in_job(&paths[i]);
    else guard_in_fiber(&paths[i]);
    return 0;
  }
  if (strcmp(name, "--list") == 0) {
    guard_list();
    return 0;
  }
  fprintf(stderr, "usage: guard_paths --list | PATH\n");
  return 2;
}
