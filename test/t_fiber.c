/* Fibers: spawn, join, detach, cancel, exit, names, numbers, values, attributes, bad input. COIR_WORKERS sets how many
 * workers the runtimes have. */
#include "harness.h"

#include <signal.h>

static _Atomic(int) counter;

static int count(void *arg) {
  atomic_fetch_add(&counter, arg ? *(int *)arg : 1);
  return 0;
}

static int answer(void *arg) { return (int)(intptr_t)arg; }

static int wait_for_flag(void *flag) {
  WAIT_FOR(atomic_load((_Atomic(int) *)flag));
  return 0;
}

/* Sleeps until it is cancelled, and returns what the sleep returned. */
static int sleep_for_ever(void *started) {
  if (started) atomic_store((_Atomic(int) *)started, 1);
  return coir_sleep(COIR_NEVER);
}

/* ---- Spawn and join -------------------------------------------------------------------------------------------- */

static int status_and_value(void *arg) {
  coir_set_value(arg);
  return -EPIPE;
}

static int join_delivers(void *arg) {
  (void)arg;
  int x;
  struct coir_result r = {0};
  CHECK_EQ(coir_join(spawn(status_and_value, &x), &r, COIR_NEVER), 0);
  CHECK_EQ(r.status, -EPIPE);
  CHECK(r.value == &x);
  CHECK_EQ(coir_join(spawn(answer, (void *)7), &r, COIR_NEVER), 0);
  CHECK_EQ(r.status, 7);
  CHECK(r.value == NULL);
  CHECK_EQ(coir_join(spawn(answer, (void *)8), NULL, COIR_NEVER), 0);
  return 42;
}

static void join_delivers_status_and_value(void **state) {
  (void)state;
  CHECK_EQ(run(join_delivers, NULL), 42);
}

static int written;
static int writes(void *arg) {
  written = (int)(intptr_t)arg;
  return 0;
}

static int sees_writes(void *arg) {
  (void)arg;
  for (int i = 1; i <= rounds(2000); i++) {
    CHECK_EQ(join(spawn(writes, (void *)(intptr_t)i)), 0);
    CHECK_EQ(written, i);
  }
  return 0;
}

static void what_a_fiber_wrote_is_visible_after_join(void **state) {
  (void)state;
  run(sees_writes, NULL);
}

static int many(void *arg) {
  int n = *(int *)arg;
  struct coir_fiber **f = calloc((size_t)n, sizeof *f);
  for (int i = 0; i < n; i++) f[i] = spawn(answer, (void *)(intptr_t)i);
  for (int i = 0; i < n; i++) CHECK_EQ(join(f[i]), i);
  free(f);
  return 0;
}

static void many_fibers_join_in_order(void **state) {
  (void)state;
  int n = rounds(20000);
  run(many, &n);
}

static int tree(void *depth) {
  intptr_t d = (intptr_t)depth;
  if (d == 0) return 1;
  struct coir_attr lifo = {.order = COIR_ORDER_LIFO};
  struct coir_fiber *l = spawn_with(lifo, tree, (void *)(d - 1)), *r = spawn(tree, (void *)(d - 1));
  return join(l) + join(r);
}

static void fork_join_tree(void **state) {
  (void)state;
  CHECK_EQ(run(tree, (void *)10), 1024);
}

static int parent_of_orphans(void *arg) {
  (void)arg;
  for (int i = 0; i < 1000; i++) CHECK_EQ(coir_go(count, NULL), 0);
  return 5;
}

static void run_waits_for_detached_fibers(void **state) {
  (void)state;
  counter = 0;
  CHECK_EQ(run(parent_of_orphans, NULL), 5);
  CHECK_EQ(counter, 1000);
}

static int detach_early_and_late(void *arg) {
  (void)arg;
  _Atomic(int) flag = 0;
  struct coir_fiber *early = spawn(wait_for_flag, &flag);
  coir_detach(early);
  struct coir_fiber *late = spawn(count, NULL);
  WAIT_FOR(atomic_load(&counter) == 1);
  coir_sleep(COIR_MS(1));
  coir_detach(late);
  coir_detach(NULL);
  atomic_store(&flag, 1);
  struct coir_stats s;
  WAIT_FOR((coir_runtime_get_stats(coir_runtime_current(), &s), s.fibers_live == 1));
  return 0;
}

static void detach_before_and_after_the_end(void **state) {
  (void)state;
  counter = 0;
  run(detach_early_and_late, NULL);
}

static int spawned_does_not_run_inside(void *arg) {
  (void)arg;
  CHECK_EQ(coir_spawn(writes, (void *)99, NULL, NULL), 0);
  CHECK(written != 99);
  coir_yield();
  CHECK_EQ(written, 99);
  return 0;
}

static void spawn_does_not_run_the_fiber(void **state) {
  (void)state;
  written = 0;
  run_with((struct coir_config){.workers = 1}, spawned_does_not_run_inside, NULL);
}

/* ---- Bad input ------------------------------------------------------------------------------------------------- */

static int join_self(void *arg) {
  (void)arg;
  CHECK_EQ(coir_join(coir_current(), NULL, COIR_NEVER), -EDEADLK);
  CHECK_EQ(coir_join(coir_current(), NULL, 0), -EDEADLK);
  return 0;
}

static int bad_input(void *arg) {
  (void)arg;
  struct coir_fiber *f = (void *)&counter;
  CHECK_EQ(coir_spawn(NULL, NULL, NULL, &f), -EINVAL);
  CHECK(f == NULL);
  struct coir_attr bad[] = {
      {.stack_bytes = 1},
      {.stack_bytes = (16 << 10) - 1},
      {.stack_bytes = ((size_t)1 << 30) + 1},
      {.stack_bytes = SIZE_MAX},
      {.priority = (enum coir_priority)2},
      {.priority = (enum coir_priority) - 2},
      {.order = (enum coir_order)2},
      {.order = (enum coir_order) - 1},
      {.worker = COIR_WORKER(64)},
      {.worker = UINT32_MAX},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    f = (void *)&counter;
    CHECK_EQ(coir_spawn(count, NULL, &bad[i], &f), -EINVAL);
    CHECK(f == NULL);
    CHECK_EQ(coir_spawn(count, NULL, &bad[i], NULL), -EINVAL);
  }
  struct coir_stats s;
  coir_runtime_get_stats(coir_runtime_current(), &s);
  struct coir_attr beyond = {.worker = COIR_WORKER(s.workers)}, last = {.worker = COIR_WORKER(s.workers - 1)};
  CHECK_EQ(coir_spawn(count, NULL, &beyond, NULL), -EINVAL);
  CHECK_EQ(join(spawn_with(last, count, NULL)), 0);
  CHECK_EQ(coir_join(NULL, NULL, 0), -EINVAL);
  CHECK_EQ(coir_cancel(NULL), -EINVAL);
  return join(spawn(join_self, NULL));
}

static void bad_input_is_refused(void **state) {
  (void)state;
  counter = 0;
  CHECK_EQ(run(bad_input, NULL), 0);
  CHECK_EQ(counter, 1);
  CHECK_EQ(coir_spawn(NULL, NULL, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_go(NULL, NULL), -EINVAL);
  CHECK_EQ(coir_run(NULL, NULL), -EINVAL);
}

/* ---- Cancellation ---------------------------------------------------------------------------------------------- */

static int cancelled_in_sleep(void *arg) {
  (void)arg;
  _Atomic(int) started = 0;
  struct coir_fiber *f = spawn(sleep_for_ever, &started);
  WAIT_FOR(atomic_load(&started));
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), -ECANCELED);
  f = spawn(sleep_for_ever, NULL); /* before it has run */
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), -ECANCELED);
  return 0;
}

static void cancel_ends_a_sleep(void **state) {
  (void)state;
  run(cancelled_in_sleep, NULL);
}

static int cancelled_once(void *arg) {
  (void)arg;
  CHECK_EQ(coir_cancel(coir_current()), 0);
  CHECK_EQ(coir_cancel(coir_current()), 0);
  CHECK_EQ(coir_yield(), 0); /* no point of cancellation */
  int64_t t = coir_now();
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0);
  CHECK(coir_now() - t >= COIR_MS(2));
  return 0;
}

static void cancel_is_delivered_once(void **state) {
  (void)state;
  run(cancelled_once, NULL);
}

static int cancelled_past_sleep(void *arg) {
  (void)arg;
  CHECK_EQ(coir_cancel(coir_current()), 0);
  CHECK_EQ(coir_sleep(0), -ECANCELED); /* waits no time, and is a waiting call all the same */
  CHECK_EQ(coir_sleep(-1), 0);
  return 0;
}

static void cancel_is_seen_by_a_sleep_of_no_time(void **state) {
  (void)state;
  run(cancelled_past_sleep, NULL);
}

static int join_that(void *f) {
  int rc = coir_join(f, NULL, COIR_NEVER);
  if (rc) CHECK_EQ(coir_join(f, NULL, COIR_NEVER), 0); /* the handle is still ours */
  return rc;
}

static int cancelled_join(void *arg) {
  (void)arg;
  _Atomic(int) started = 0;
  struct coir_fiber *sleeper = spawn(sleep_for_ever, &started);
  struct coir_fiber *joiner = spawn(join_that, sleeper);
  struct coir_fiber_info info[8];
  uint64_t id = coir_fiber_id(joiner);
  bool waits = false;
  while (!waits) {
    size_t n = coir_runtime_list(coir_runtime_current(), info, 8);
    for (size_t i = 0; i < n && i < 8; i++)
      if (info[i].id == id && !strcmp(info[i].waits_for, "join")) waits = true;
    coir_sleep(COIR_US(50));
  }
  CHECK_EQ(coir_cancel(joiner), 0);
  coir_sleep(COIR_MS(1));
  CHECK_EQ(coir_cancel(sleeper), 0);
  CHECK_EQ(join(joiner), -ECANCELED);
  return 0;
}

static void cancelled_join_keeps_the_handle(void **state) {
  (void)state;
  run(cancelled_join, NULL);
}

static int cancel_ended(void *arg) {
  (void)arg;
  struct coir_fiber *f = spawn(answer, (void *)3);
  struct coir_stats s;
  WAIT_FOR((coir_runtime_get_stats(coir_runtime_current(), &s), s.fibers_live == 1));
  WAIT_FOR(coir_cancel(f) == -ESRCH);
  CHECK_EQ(join(f), 3);
  return 0;
}

static void cancel_of_an_ended_fiber(void **state) {
  (void)state;
  run(cancel_ended, NULL);
}

static int never_waits(void *arg) {
  WAIT_FOR(atomic_load((_Atomic(int) *)arg) || 1);
  return 11;
}

static int cancel_unnoticed(void *arg) {
  (void)arg;
  _Atomic(int) flag = 1;
  struct coir_fiber *f = spawn(never_waits, &flag);
  int rc = coir_cancel(f);
  CHECK(rc == 0 || rc == -ESRCH);
  CHECK_EQ(join(f), 11);
  /* The descriptor's next life must not inherit it. */
  for (int i = 0; i < 200; i++) {
    struct coir_fiber *g = spawn(cancelled_once, NULL);
    CHECK_EQ(join(g), 0);
  }
  return 0;
}

static void an_unnoticed_cancel_dies_with_its_fiber(void **state) {
  (void)state;
  run(cancel_unnoticed, NULL);
}

/* ---- Exit, values, names, numbers ------------------------------------------------------------------------------ */

static int __attribute__((noinline)) leave(int depth, void *value) {
  volatile int frame[32];
  frame[0] = depth;
  if (depth == 0) coir_exit(-77, value);
  return depth > 100 ? depth : leave(depth - 1, value) + frame[0];
}

static int exits(void *arg) { return leave(20, arg); }

static int exit_in_depth(void *arg) {
  struct coir_result r;
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(coir_join(spawn(exits, arg), &r, COIR_NEVER), 0);
    CHECK_EQ(r.status, -77);
    CHECK(r.value == arg);
  }
  coir_exit(-78, NULL);
}

static void exit_from_any_depth(void **state) {
  (void)state;
  int x;
  run(exit_in_depth, &x); /* what `fn` returned is not told: it did not return */
}

static int exit_with_value(void *arg) {
  coir_set_value(&counter);
  coir_exit(1, arg);
}

static int exit_replaces(void *arg) {
  struct coir_result r;
  CHECK_EQ(coir_join(spawn(exit_with_value, arg), &r, COIR_NEVER), 0);
  CHECK(r.value == arg);
  return 0;
}

static void exit_replaces_the_value(void **state) {
  (void)state;
  int x;
  run(exit_replaces, &x);
}

static void exit_on_thread(void) { coir_exit(0, NULL); }

static void exit_on_a_plain_thread_aborts(void **state) {
  (void)state;
  char text[512];
  int status = in_child_process(exit_on_thread, text, sizeof text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(text, "coir: ") && strstr(text, "coir_exit"));
}

static int names(void *arg) {
  (void)arg;
  CHECK(!strcmp(coir_name(NULL), ""));
  char buffer[8] = "abc";
  coir_set_name(buffer);
  memset(buffer, 'x', sizeof buffer);
  CHECK(!strcmp(coir_name(NULL), "abc"));
  CHECK(!strcmp(coir_name(coir_current()), "abc"));
  coir_set_name("0123456789012345678901234567890123456789");
  CHECK(!strcmp(coir_name(NULL), "01234567890123456789012"));
  coir_set_name(NULL);
  CHECK(!strcmp(coir_name(NULL), ""));
  _Atomic(int) flag = 0;
  char name[64];
  memset(name, 'n', sizeof name - 1);
  name[63] = 0;
  struct coir_fiber *f = spawn_with((struct coir_attr){.name = name}, wait_for_flag, &flag);
  memset(name, 'z', sizeof name);
  CHECK_EQ(strlen(coir_name(f)), 23);
  CHECK_EQ(coir_name(f)[22], 'n');
  atomic_store(&flag, 1);
  join(f);
  f = spawn(wait_for_flag, &flag);
  CHECK(!strcmp(coir_name(f), "")); /* not the name of the descriptor's former life */
  join(f);
  return 0;
}

static void names_are_copied_and_cut(void **state) {
  (void)state;
  run(names, NULL);
}

static int own_id(void *out) {
  *(uint64_t *)out = coir_fiber_id(NULL);
  CHECK_EQ(coir_fiber_id(coir_current()), *(uint64_t *)out);
  return 0;
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

enum { IDS = 3000 };
static uint64_t ids[2 * IDS];

static int collect_ids(void *arg) {
  uint64_t *out = arg;
  struct coir_fiber *f[100];
  for (int i = 0; i < IDS; i += 100) {
    for (int j = 0; j < 100; j++) f[j] = spawn(own_id, &out[i + j]);
    for (int j = 0; j < 100; j++) {
      uint64_t id = coir_fiber_id(f[j]);
      join(f[j]);
      CHECK_EQ(id, out[i + j]);
    }
  }
  return 0;
}

static void ids_are_never_used_again(void **state) {
  (void)state;
  run(collect_ids, ids);
  run(collect_ids, ids + IDS);
  qsort(ids, 2 * IDS, sizeof *ids, by_value);
  CHECK(ids[0] >= 1);
  for (int i = 1; i < 2 * IDS; i++) CHECK(ids[i] != ids[i - 1]);
}

static void plain_threads_know_that_they_are_no_fibers(void **state) {
  (void)state;
  CHECK(coir_current() == NULL);
  CHECK_EQ(coir_fiber_id(NULL), 0);
  CHECK(!strcmp(coir_name(NULL), ""));
  CHECK_EQ(coir_worker_index(), -1);
  CHECK(coir_runtime_current() == NULL);
  coir_set_name("nobody");
  coir_set_value(&counter);
  CHECK_EQ(coir_yield(), 0);
  CHECK(!strcmp(coir_name(NULL), ""));
  CHECK(!strcmp(coir_version(), COIR_VERSION));
}

static int is_handle(void *arg) {
  struct coir_fiber *_Atomic *self = arg;
  WAIT_FOR(atomic_load(self) != NULL);
  CHECK(coir_current() == atomic_load(self));
  coir_yield();
  coir_sleep(COIR_US(10));
  CHECK(coir_current() == atomic_load(self));
  CHECK(coir_worker_index() >= 0);
  return 0;
}

static int current_is_handle(void *arg) {
  (void)arg;
  struct coir_fiber *_Atomic self = NULL;
  struct coir_fiber *f = spawn(is_handle, &self);
  atomic_store(&self, f);
  return join(f);
}

static void current_is_what_spawn_returned(void **state) {
  (void)state;
  run(current_is_handle, NULL);
}

/* ---- Attributes ------------------------------------------------------------------------------------------------ */

static char *volatile sink;

static int __attribute__((noinline)) use_stack(void *bytes) {
  size_t n = (size_t)bytes;
  char *mem = __builtin_alloca(n);
  for (size_t i = 0; i < n; i += 1024) mem[i] = (char)i;
  sink = mem;
  coir_yield();
  for (size_t i = 0; i < n; i += 1024) CHECK(mem[i] == (char)i);
  return 0;
}

static size_t stack_bytes_of(struct coir_fiber *f) {
  struct coir_fiber_info info[16];
  for (;;) {
    size_t n = coir_runtime_list(coir_runtime_current(), info, 16);
    for (size_t i = 0; i < n && i < 16; i++)
      if (info[i].id == coir_fiber_id(f) && info[i].stack_bytes) {
        CHECK(info[i].stack_used <= info[i].stack_bytes);
        return info[i].stack_bytes;
      }
    coir_sleep(COIR_US(50));
  }
}

static int stack_sizes(void *arg) {
  (void)arg;
  static const size_t sizes[] = {16 << 10, 17 << 10, 64 << 10, 100000, 1 << 20, 8 << 20};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    _Atomic(int) flag = 0;
    struct coir_attr attr = {.stack_bytes = sizes[i]};
    struct coir_fiber *f = spawn_with(attr, wait_for_flag, &flag);
    CHECK(stack_bytes_of(f) >= sizes[i]);
    atomic_store(&flag, 1);
    join(f);
    if (IS_SANITIZED && sizes[i] < 64 << 10) continue;
    CHECK_EQ(join(spawn_with(attr, use_stack, (void *)(sizes[i] - (12 << 10)))), 0);
  }
  _Atomic(int) flag = 0;
  struct coir_fiber *f = spawn(wait_for_flag, &flag);
  CHECK(stack_bytes_of(f) >= 256 << 10);
  atomic_store(&flag, 1);
  join(f);
  return 0;
}

static void stacks_are_as_large_as_asked(void **state) {
  (void)state;
  run(stack_sizes, NULL);
}

static int errno_is_fresh(void *arg) {
  (void)arg;
  int was = errno;
  errno = 99;
  return was;
}

static int errnos(void *arg) {
  (void)arg;
  for (int i = 0; i < 50; i++) {
    errno = 1000 + i;
    CHECK_EQ(join(spawn(errno_is_fresh, NULL)), 0);
    CHECK_EQ(errno, 1000 + i);
  }
  return 0;
}

static void errno_begins_at_zero_and_is_kept(void **state) {
  (void)state;
  run(errnos, NULL);
}

/* 10^6 short lives must not make the process grow. */
static int burn(void *n) {
  for (int i = 0; i < (int)(intptr_t)n; i++) {
    CHECK_EQ(coir_go(count, NULL), 0);
    if (i % 64 == 0) coir_yield();
  }
  struct coir_stats s;
  WAIT_FOR((coir_runtime_get_stats(coir_runtime_current(), &s), s.fibers_live == 1));
  return 0;
}

static long resident_pages(void) {
  long size = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  CHECK(f && fscanf(f, "%ld %ld", &size, &resident) == 2);
  fclose(f);
  return resident;
}

static int lives(void *arg) {
  (void)arg;
  burn((void *)(intptr_t)rounds(200000));
  long before = resident_pages();
  burn((void *)(intptr_t)rounds(600000));
  long grown = resident_pages() - before;
  if (!IS_SANITIZED) CHECK(grown < 4096);
  return 0;
}

static void a_million_lives_leave_nothing(void **state) {
  (void)state;
  run(lives, NULL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(join_delivers_status_and_value),
      cmocka_unit_test(what_a_fiber_wrote_is_visible_after_join),
      cmocka_unit_test(many_fibers_join_in_order),
      cmocka_unit_test(fork_join_tree),
      cmocka_unit_test(run_waits_for_detached_fibers),
      cmocka_unit_test(detach_before_and_after_the_end),
      cmocka_unit_test(spawn_does_not_run_the_fiber),
      cmocka_unit_test(bad_input_is_refused),
      cmocka_unit_test(cancel_ends_a_sleep),
      cmocka_unit_test(cancel_is_delivered_once),
      cmocka_unit_test(cancel_is_seen_by_a_sleep_of_no_time),
      cmocka_unit_test(cancelled_join_keeps_the_handle),
      cmocka_unit_test(cancel_of_an_ended_fiber),
      cmocka_unit_test(an_unnoticed_cancel_dies_with_its_fiber),
      cmocka_unit_test(exit_from_any_depth),
      cmocka_unit_test(exit_replaces_the_value),
      cmocka_unit_test(exit_on_a_plain_thread_aborts),
      cmocka_unit_test(names_are_copied_and_cut),
      cmocka_unit_test(ids_are_never_used_again),
      cmocka_unit_test(plain_threads_know_that_they_are_no_fibers),
      cmocka_unit_test(current_is_what_spawn_returned),
      cmocka_unit_test(stacks_are_as_large_as_asked),
      cmocka_unit_test(errno_begins_at_zero_and_is_kept),
      cmocka_unit_test(a_million_lives_leave_nothing),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
