/* Workers and goroutines: when threads start and end, how many, stacks, order, giving way, blocking. */
#include "csp_process.h"

#include <sched.h>

/* ---- Starting -------------------------------------------------------------------------------------------------- */

static void nothing(void *arg) { (void)arg; }

/* Everything here can be done without a worker. */
static void use_without_workers(void) {
  csp_gochan_t *ch = csp_gochan_new(2);
  csp_sync_mutex_t mu;
  csp_sync_waitgroup_t wg;
  csp_select_case_t cases[] = {{.ch = ch, .op = CSP_RECV}, {.op = CSP_DEFAULT}};
  int idx = -1;
  void *v = NULL;
  CHECK(csp_gochan_send(ch, number(1)));
  CHECK(csp_gochan_try_recv(ch, &v, NULL) && v == number(1));
  CHECK_EQ(csp_select(cases, 2), 1);
  SELECT_START SEND_CASE(ch, number(2)) SELECT_END(idx) CHECK_EQ(idx, 0);
  csp_gochan_close(ch);
  csp_gochan_free(ch);
  csp_sync_mutex_init(&mu);
  csp_sync_mutex_lock(&mu);
  csp_sync_mutex_unlock(&mu);
  csp_sync_waitgroup_init(&wg);
  csp_sync_waitgroup_wait(&wg);
  csp_yield();
  csp_sched_yield();
  csp_hangup(1000);
  csp_block(usleep(1));
  csp_context_t *ctx = csp_context_with_cancel(csp_context_background());
  csp_context_cancel(ctx);
  csp_context_free(ctx);
  csp_sync_all(NULL, 0);
  runtime_trace_enable(false);
  CHECK_EQ(runtime_num_goroutines(), 0);
  CHECK(csp_this_core == NULL);
}

static void no_thread_before_it_is_needed(void) {
  int before = threads_now();
  use_without_workers();
  csp_scheduler_stop();
  CHECK_EQ(threads_now(), before);
  set_workers(3); /* main's own environment counts */
  go(nothing, NULL);
  CHECK(threads_now() >= before + 3);
  CHECK_EQ(runtime_num_workers(), 3);
  until_no_goroutine();
}

static void these_start_workers(void) {
  int before = threads_now();
  set_workers(2);
  CHECK_EQ(runtime_num_workers(), 2);
  CHECK(threads_now() >= before + 2);
  csp_scheduler_stop();
  WAIT_FOR(threads_now() == before);
  CHECK(csp_runtime() != NULL);
  CHECK(threads_now() >= before + 2);
  csp_scheduler_stop();
  WAIT_FOR(threads_now() == before);
  csp_scheduler_init(1);
  CHECK(threads_now() >= before + 2);
}

static void the_first_init_counts(void) {
  int before = threads_now();
  csp_scheduler_init(3);
  int started = threads_now();
  CHECK_EQ(started, before + 3 + 3); /* and the three that look after the workers */
  csp_scheduler_init(5);
  csp_scheduler_init(0);
  csp_scheduler_init(-1);
  CHECK_EQ(runtime_num_workers(), 3);
  CHECK_EQ(threads_now(), started);
}

static void an_init_that_is_late_does_nothing(void) {
  set_workers(2);
  go(nothing, NULL);
  csp_scheduler_init(5);
  CHECK_EQ(runtime_num_workers(), 2);
}

/* What a process sees that calls csp_scheduler_init(n) with these in its environment. */
static const struct start {
  const char *production, *workers;
  int n, seen; /* seen: 0 for as many as there are CPUs */
} starts[] = {
    {NULL, NULL, 0, 0},   {NULL, NULL, -7, 0},   {NULL, "5", 0, 5},  {NULL, "5", -1, 5}, {NULL, "5", 3, 3},
    {NULL, NULL, 64, 64}, {NULL, NULL, 65, 64},  {NULL, NULL, 1, 1}, {"0", NULL, 4, 1},  {"0", "5", 0, 1},
    {"1", NULL, 4, 4},    {"1", "5", 0, 5},      {"", "5", 0, 5},    {"yes", "2", 0, 2}, {"00", "2", 7, 1},
    {"0x", "2", 7, 7},    {NULL, "1000", 0, 64},
};
static const struct start *start;

static void one_start(void) {
  cpu_set_t cpus;
  if (start->production) set_env("LIBCSP_PRODUCTION", start->production);
  else unsetenv("LIBCSP_PRODUCTION");
  if (start->workers) set_env("COIR_WORKERS", start->workers);
  else unsetenv("COIR_WORKERS");
  csp_scheduler_init(start->n);
  if (start->seen) CHECK_EQ(runtime_num_workers(), start->seen);
  CHECK_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
  if (!start->seen) CHECK(runtime_num_workers() >= 1 && runtime_num_workers() <= CPU_COUNT(&cpus));
  go(nothing, NULL);
  until_no_goroutine();
}

static void how_many_workers(void) {
  char text[1024];
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
    start = &starts[i];
    int status = in_child_process(one_start, text, sizeof text);
    if (status) fprintf(stderr, "start %zu: %s\n", i, text);
    CHECK_EQ(status, 0);
  }
}

static void one_cpu_is_one_worker(void) {
  cpu_set_t cpus, one;
  int cpu = 0;
  unsetenv("COIR_WORKERS");
  CHECK_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
  while (!CPU_ISSET(cpu, &cpus)) cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  go(nothing, NULL);
  CHECK_EQ(runtime_num_workers(), 1);
  until_no_goroutine();
}

/* ---- Stopping -------------------------------------------------------------------------------------------------- */

static _Atomic(int) count;

static void adds_one(void *arg) {
  (void)arg;
  atomic_fetch_add(&count, 1);
}

static void sleeps_and_starts_another(void *arg) {
  csp_hangup((uint64_t)COIR_MS(5));
  go(adds_one, NULL);
  csp_yield();
  adds_one(arg);
}

static void stop_drains_and_joins(void) {
  int before = threads_now();
  csp_scheduler_init(3);
  for (int round = 1; round <= 5; round++) {
    for (int i = 0; i < 100; i++) go(sleeps_and_starts_another, NULL);
    csp_scheduler_stop();
    CHECK_EQ(count, 200 * round);
    CHECK_EQ(runtime_num_goroutines(), 0);
    WAIT_FOR(threads_now() == before);
    csp_scheduler_stop();
    CHECK_EQ(threads_now(), before);
    set_workers(5); /* not read again */
    CHECK_EQ(runtime_num_workers(), 3);
  }
}

static int yields_once(void *unused) {
  (void)unused;
  coir_gen_yield(NULL, NULL);
  return 0;
}

static void leaves_a_generator(void *gen) {
  CHECK_EQ(coir_gen_create(gen, yields_once, NULL, NULL), 0);
  CHECK_EQ(coir_gen_resume(*(struct coir_gen **)gen, NULL, NULL), 0);
}

/* Nobody resumes it, so it is nothing to wait for. */
static void stop_leaves_generators(void) {
  struct coir_gen *gen;
  go(leaves_a_generator, &gen);
  csp_scheduler_stop();
  go(adds_one, NULL);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  csp_scheduler_stop();
  CHECK_EQ(count, 1);
}

static void stop_without_start(void) {
  int before = threads_now();
  csp_scheduler_stop();
  csp_scheduler_stop();
  CHECK_EQ(threads_now(), before);
  go(adds_one, NULL);
  csp_scheduler_stop();
  CHECK_EQ(count, 1);
}

static void stops(void *arg) {
  (void)arg;
  csp_scheduler_stop();
}

static void a_goroutine_stops(void) {
  go(stops, NULL);
  for (;;) sleep(1);
}

static void stop_by_a_goroutine_aborts(void) {
  char text[1024];
  int status = in_child_process(a_goroutine_stops, text, sizeof text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(!strncmp(text, "csp: ", 5) && strstr(text, "csp_scheduler_stop"));
}

/* Nobody comes back from a stop before the last goroutine has ended, and somebody else's stop is as good. */
static _Atomic(int) slow_ends;

static void ends_late(void *arg) {
  csp_hangup((uint64_t)COIR_MS(50));
  atomic_store((_Atomic(int) *)arg, 1);
}

static void *stops_and_looks(void *arg) {
  (void)arg;
  csp_scheduler_stop();
  CHECK_EQ(slow_ends, 1);
  return NULL;
}

static void several_stop_at_once(void) {
  pthread_t threads[4];
  int before = threads_now();
  for (int round = 0; round < 3; round++) {
    atomic_store(&slow_ends, 0);
    go(ends_late, &slow_ends);
    for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&threads[i], NULL, stops_and_looks, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    WAIT_FOR(threads_now() == before);
  }
}

/* A thread that starts goroutines and waits for each, while others stop the scheduler over and over: all are run,
 * though nobody makes another call that would start the workers. */
static _Atomic(bool) enough;

static void *stops_again_and_again(void *stopped) {
  for (; !atomic_load(&enough); ++*(int *)stopped) csp_scheduler_stop();
  return NULL;
}

static void starts_among_stops(int n, void (*closes)(void *ch)) {
  pthread_t threads[2];
  int before = threads_now(), stopped[2] = {0};
  csp_scheduler_init(2);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, stops_again_and_again, &stopped[i]), 0);
  for (int i = 0; i < n; i++) {
    csp_gochan_t *ch = csp_gochan_new(0);
    go(closes, ch);
    csp_gochan_recv(ch, NULL);
    csp_gochan_free(ch);
  }
  atomic_store(&enough, true);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  csp_scheduler_stop();
  CHECK(stopped[0] > 0 && stopped[1] > 0);
  CHECK_EQ(runtime_num_goroutines(), 0);
  WAIT_FOR(threads_now() == before);
}

static void stops_among_starts(void) { starts_among_stops(rounds(20000), (void (*)(void *))csp_gochan_close); }

/* Coir's stop gives up when it has found another one several times; this one may be in the midst of its function. */
static void closes_after_a_while(void *ch) {
  static _Atomic(int) calls;
  csp_hangup((uint64_t)COIR_US(50) * (uint64_t)(1 + atomic_fetch_add(&calls, 1) % 4));
  csp_gochan_close(ch);
}

static void stops_leave_nobody_who_waits(void) { starts_among_stops(rounds(5000), closes_after_a_while); }

/* ---- Creating -------------------------------------------------------------------------------------------------- */

static void starts_ten(void *arg) {
  adds_one(arg);
  for (int i = 0; i < 10; i++) go(adds_one, NULL);
}

static void *starts_tens(void *arg) {
  for (int i = 0; i < 100; i++) go(starts_ten, NULL);
  return arg;
}

static void goroutines_from_everywhere(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&threads[i], NULL, starts_tens, NULL), 0);
  starts_tens(NULL);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  until_no_goroutine();
  CHECK_EQ(count, 5 * 100 * 11);
}

static void what_cannot_be_started(void) {
  for (int id = -1; id <= 4; id++) {
    errno = 0;
    CHECK(csp_proc_create(id, NULL, &count) == NULL);
    CHECK_EQ(errno, EINVAL);
  }
  errno = 0;
  CHECK(csp_go(NULL, NULL) == NULL);
  CHECK_EQ(errno, EINVAL);
  runtime_trace_enable(true);
  CHECK(csp_proc_create(0, NULL, NULL) == NULL);
  CHECK_EQ(errno, EINVAL);
  CHECK_EQ(runtime_num_goroutines(), 0);
}

static void gets_its_argument(void *arg) {
  int *given = arg;
  CHECK_EQ(*given, 4711);
  *given = 1147;
}

static void parks(void *ch) { csp_gochan_recv(ch, NULL); }

static void handles_differ(void) {
  csp_gochan_t *gate = csp_gochan_new(0);
  csp_proc_t *procs[50];
  for (int i = 0; i < 50; i++) {
    procs[i] = csp_proc_create(i % 4, parks, gate);
    for (int k = 0; k < i; k++) CHECK(procs[k] != procs[i]);
    CHECK(procs[i] != NULL);
  }
  csp_gochan_close(gate);
  csp_scheduler_stop();
  csp_gochan_free(gate);
}

static void what_was_written_is_seen(void) {
  int value = 4711;
  go(gets_its_argument, &value);
  csp_scheduler_stop();
  CHECK_EQ(value, 1147);
}

/* ---- Stacks ---------------------------------------------------------------------------------------------------- */

#define KIB ((size_t)1024)

/* Writes each page of `bytes` of stack, and waits while they are in use. */
static __attribute__((noinline)) void uses_stack(size_t bytes) {
  volatile unsigned char *frame = __builtin_alloca(bytes);
  for (size_t i = 0; i < bytes; i += 256) frame[i] = (unsigned char)(i >> 8);
  csp_yield();
  csp_hangup((uint64_t)COIR_US(100));
  for (size_t i = 0; i < bytes; i += 256) CHECK_EQ(frame[i], (unsigned char)(i >> 8));
}

static const struct stack {
  int id;
  size_t bytes, used;
} stacks[] = {
    {0, 64 * KIB, 48 * KIB},    {1, 128 * KIB, 100 * KIB},     {2, 256 * KIB, 200 * KIB},
    {3, 1024 * KIB, 900 * KIB}, {-1, 64 * KIB, 48 * KIB},      {INT32_MIN, 64 * KIB, 48 * KIB},
    {4, 1024 * KIB, 900 * KIB}, {1000, 1024 * KIB, 900 * KIB}, {INT32_MAX, 1024 * KIB, 900 * KIB},
};
enum { STACKS = sizeof stacks / sizeof *stacks };

static void uses_its_stack(void *stack) {
  const struct stack *s = stack;
  uses_stack(IS_SANITIZED ? s->used / 2 : s->used); /* a sanitizer's frames are larger */
  adds_one(NULL);
}

static void stacks_can_be_used(void) {
  int n = rounds(20);
  for (int round = 0; round < n; round++)
    for (int i = 0; i < STACKS; i++) CHECK(csp_proc_create(stacks[i].id, uses_its_stack, (void *)&stacks[i]));
  csp_scheduler_stop();
  CHECK_EQ(count, n * STACKS);
}

static void stacks_are_as_large_as_said(void) {
  for (int i = 0; i < STACKS; i++) {
    struct coir_fiber_info info = {0};
    csp_gochan_t *gate = csp_gochan_new(0);
    CHECK(csp_proc_create(stacks[i].id, parks, gate));
    WAIT_FOR(coir_runtime_list(csp_runtime(), &info, 1) == 1 && info.state == COIR_FIBER_WAITING);
    CHECK(info.stack_bytes > stacks[i].used && info.stack_bytes <= stacks[i].bytes);
    csp_gochan_close(gate);
    csp_scheduler_stop();
    csp_gochan_free(gate);
  }
}

/* ---- Order ----------------------------------------------------------------------------------------------------- */

#define ORDER_MAX 64
static int order[ORDER_MAX], ordered; /* one worker: no two at once */

static void notes(void *id) {
  CHECK(ordered < ORDER_MAX);
  order[ordered++] = (int)(intptr_t)id;
}

static void notes_and_yields(void *id) {
  for (int i = 0; i < 5; i++) {
    notes(id);
    if (i % 2) csp_yield();
    else csp_sched_yield();
  }
}

static void checks_order(void *done) {
  for (intptr_t id = 0; id < 4; id++) go(notes_and_yields, number(id));
  CHECK_EQ(ordered, 0); /* they are behind, and do not run inside the call */
  while (ordered < 20) csp_yield();
  for (int i = 0; i < 20; i++) CHECK_EQ(order[i], i % 4);
  ordered = 0;
  for (intptr_t id = 0; id < 30; id++) csp_proc_create((int)id % 4, notes, number(id));
  CHECK_EQ(ordered, 0);
  csp_yield(); /* every other one that is ready runs first */
  CHECK_EQ(ordered, 30);
  for (int i = 0; i < 30; i++) CHECK_EQ(order[i], i);
  csp_sync_waitgroup_done(done);
}

static void ready_ones_take_turns(void) {
  csp_sync_waitgroup_t done = {{0}};
#ifdef COIR_HARD /* where they go to other workers, out of turn */
  return;
#endif
  set_env("LIBCSP_PRODUCTION", "0");
  csp_sync_waitgroup_add(&done, 1);
  go(checks_order, &done);
  csp_sync_waitgroup_wait(&done);
}

/* ---- Sleeping -------------------------------------------------------------------------------------------------- */

ON_BOTH(hangup_is_never_short) {
  static const uint64_t times[] = {1, 1000, 100000, 3000000};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++)
    for (int k = 0; k < 5; k++) {
      int64_t before = csp_timer_now();
      if (k % 2) csp_hangup(times[i]);
      else csp_sched_hangup(times[i]);
      CHECK(csp_timer_now() - before >= (int64_t)times[i]);
    }
}

static void sleeps_for_ever(void *started) {
  csp_sync_waitgroup_done(started);
  csp_hangup(UINT64_MAX);
  CHECK(!"awake");
}

static void hangup_has_no_upper_end(void) {
  csp_sync_waitgroup_t started = {{0}};
  csp_sync_waitgroup_add(&started, 2);
  go(sleeps_for_ever, &started);
  go(sleeps_for_ever, &started);
  csp_sync_waitgroup_wait(&started);
  csp_hangup((uint64_t)COIR_MS(20));
  CHECK_EQ(runtime_num_goroutines(), 2);
}

/* hangup(0) comes back at once: it does not even give way. */
static void does_not_give_way(void *done) {
  go(adds_one, NULL);
  for (int i = 0; i < 100; i++) csp_hangup(0);
  CHECK_EQ(count, 0);
  csp_hangup(1);
  CHECK_EQ(count, 1);
  csp_sync_waitgroup_done(done);
}

static void hangup_of_nothing(void) {
  csp_sync_waitgroup_t done = {{0}};
  set_env("LIBCSP_PRODUCTION", "0");
  csp_sync_waitgroup_add(&done, 1);
  go(does_not_give_way, &done);
  csp_sync_waitgroup_wait(&done);
}

/* ---- Side by side ---------------------------------------------------------------------------------------------- */

#define CALLS_MAX 1000
static _Atomic(int) called[CALLS_MAX];

static void is_called(void *cell) {
  if ((uintptr_t)cell / sizeof(int) % 3 == 0) csp_hangup(1000);
  if ((uintptr_t)cell / sizeof(int) % 3 == 1) csp_yield();
  atomic_fetch_add((_Atomic(int) *)cell, 1);
}

ON_BOTH(sync_all_calls_each_once) {
  static const size_t sizes[] = {0, 1, 2, 33, CALLS_MAX};
  csp_call_t *calls = calloc(CALLS_MAX, sizeof *calls);
  for (size_t i = 0; i < CALLS_MAX; i++) calls[i] = (csp_call_t){is_called, &called[i]};
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    memset(called, 0, sizeof called);
    csp_sync_all(calls, sizes[k]);
    for (size_t i = 0; i < CALLS_MAX; i++) CHECK_EQ(called[i], i < sizes[k]);
  }
  free(calls);
}

static csp_gochan_t *meeting;

static void gives(void *arg) {
  (void)arg;
  for (intptr_t i = 0; i < 100; i++) CHECK(csp_gochan_send(meeting, number(i)));
}

static void takes(void *arg) {
  (void)arg;
  for (intptr_t i = 0; i < 100; i++) CHECK(csp_gochan_recv(meeting, NULL) == number(i));
}

/* Neither could end without the other. */
ON_BOTH(sync_all_is_side_by_side) {
  csp_call_t calls[] = {{takes, NULL}, {gives, NULL}};
  meeting = csp_gochan_new(0);
  csp_sync_all(calls, 2);
  csp_gochan_free(meeting);
}

static void branches(void *depth) {
  intptr_t d = (intptr_t)depth;
  csp_call_t calls[] = {{branches, number(d - 1)}, {branches, number(d - 1)}, {branches, number(d - 1)}};
  if (d > 0) csp_sync_all(calls, 3);
  else adds_one(NULL);
}

ON_BOTH(sync_all_within_sync_all) {
  atomic_store(&count, 0);
  branches(number(6));
  CHECK_EQ(count, 729);
}

/* ---- Blocking -------------------------------------------------------------------------------------------------- */

static _Atomic(bool) blocked, released;

static void blocks_until_released(void *arg) {
  struct timespec ms = {.tv_nsec = 1000000};
  int64_t end = csp_timer_now() + COIR_SEC(20);
  (void)arg;
  for (int i = 0; i < 100; i++) go(adds_one, NULL); /* ready on this worker */
  csp_block(atomic_store(&blocked, true);
            while (!atomic_load(&released) && csp_timer_now() < end) nanosleep(&ms, NULL));
  CHECK(atomic_load(&released));
}

static void sleeps_then_adds(void *arg) {
  csp_hangup(2000000);
  adds_one(arg);
}

/* With any number of workers: what is ready, what comes from outside, and what is woken by a timer of that worker. */
static void others_go_on_while_one_blocks(void) {
  for (int i = 0; i < 20; i++) go(sleeps_then_adds, NULL);
  go(blocks_until_released, NULL);
  WAIT_FOR(atomic_load(&blocked) && count == 120);
  for (int i = 0; i < 100; i++) go(adds_one, NULL); /* from outside */
  WAIT_FOR(count == 220);
  atomic_store(&released, true);
  csp_scheduler_stop();
}

static void keeps_errno_for_the_block(void *arg) {
  struct timespec ms = {.tv_nsec = 1000000};
  int rc = -1, saved = -1;
  (void)arg;
  errno = 0;
  csp_block(rc = nanosleep(&ms, NULL); saved = errno);
  CHECK(rc == 0 && saved == 0);
  atomic_store(&released, true);
}

static void a_block_ends_before_a_stop(void) {
  go(keeps_errno_for_the_block, NULL);
  csp_scheduler_stop();
  CHECK(released);
}

/* The macro is one statement, with any number of statements and commas in it. */
ON_BOTH(block_is_a_statement) {
  int a[3] = {0}, i = 0;
  if (i) csp_block(a[0] = 9);
  else csp_block(a[1] = 1, a[2] = 2);
  csp_sched_block(for (i = 0; i < 3; i++) a[i] *= 2; i++);
  CHECK(a[0] == 0 && a[1] == 2 && a[2] == 4 && i == 4);
}

/* ---- Where another runtime is simulated ------------------------------------------------------------------------ */

static int uses_it(void *unused) {
  (void)unused;
  return csp_runtime() ? 0 : 1;
}

static void the_first_use_in_a_simulation(void) { in_simulations(uses_it); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(no_thread_before_it_is_needed),
      CASE(these_start_workers),
      CASE(the_first_init_counts),
      CASE(an_init_that_is_late_does_nothing),
      CASE(how_many_workers),
      CASE(one_cpu_is_one_worker),
      CASE(stop_drains_and_joins),
      CASE(stop_leaves_generators),
      CASE(stop_without_start),
      CASE(stop_by_a_goroutine_aborts),
      CASE(several_stop_at_once),
      CASE(stops_among_starts),
      CASE(stops_leave_nobody_who_waits),
      CASE(goroutines_from_everywhere),
      CASE(what_cannot_be_started),
      CASE(handles_differ),
      CASE(what_was_written_is_seen),
      CASE(stacks_can_be_used),
      CASE(stacks_are_as_large_as_said),
      CASE(ready_ones_take_turns),
      CASE(hangup_is_never_short),
      CASE(hangup_has_no_upper_end),
      CASE(hangup_of_nothing),
      CASE(sync_all_calls_each_once),
      CASE(sync_all_is_side_by_side),
      CASE(sync_all_within_sync_all),
      CASE(others_go_on_while_one_blocks),
      CASE(a_block_ends_before_a_stop),
      CASE(block_is_a_statement),
      CASE(the_first_use_in_a_simulation),
  };
  return RUN_CASES(argc, argv, cases);
}
