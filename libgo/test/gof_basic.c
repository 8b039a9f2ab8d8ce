/* Making the runtime, spawning, running, yielding, sleeping. */
#include "gof_test.h"

static _Atomic(int) count;

static void counts(void *arg) {
  (void)arg;
  atomic_fetch_add(&count, 1);
}

/* ---- Making it --------------------------------------------------------------------------------------------------- */

static _Atomic(size_t) stack_seen;

/* The size of its own stack. */
static void sees_stack(void *arg) {
  (void)arg;
  gof_info list[64];
  gof_set_name("sees stack");
  size_t n = gof_list(list, 64), found = 0;
  for (size_t i = 0; i < n; i++)
    if (list[i].name && !strcmp(list[i].name, "sees stack")) {
      stack_seen = list[i].stack_size;
      found++;
    }
  CHECK_EQ(found, 1);
}

static size_t stack_for(size_t bytes) {
  stack_seen = 0;
  CHECK(gof_spawn(sees_stack, NULL, bytes) != NULL);
  gof_run();
  return stack_seen;
}

static void only_the_first_init_counts(void) {
  gof_init(64 << 10);
  CHECK_EQ(stack_for(0), 64 << 10);
  gof_init(1 << 20);
  gof_init(0);
  CHECK_EQ(stack_for(0), 64 << 10);
}

static void inits(void *arg) {
  gof_init(1 << 20);
  CHECK(gof_spawn(sees_stack, arg, 0) != NULL);
}

static void init_on_a_fiber_does_nothing(void) {
  gof_init(128 << 10);
  go(inits, NULL);
  gof_run();
  CHECK_EQ(stack_seen, 128 << 10);
}

static void the_standard_stack_is_256_kib(void) {
  gof_init(0);
  CHECK_EQ(stack_for(0), 256 << 10);
}

static void small_stacks_are_16_kib(void) {
  gof_init(1);
  CHECK_EQ(stack_for(0), 16384);
  CHECK_EQ(stack_for(1), 16384);
  CHECK_EQ(stack_for(16383), 16384);
  CHECK_EQ(stack_for(16384), 16384);
}

static void stacks_are_as_large_as_asked(void) {
  static const size_t sizes[] = {16385, 20000, 65536, 100000, 1 << 20, (1 << 20) + 1, 64 << 20};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    size_t got = stack_for(sizes[i]);
    CHECK(got >= sizes[i]);
    CHECK_EQ(got % 4096, 0);
  }
  CHECK_EQ(stack_for(0), 256 << 10);
}

static void a_default_that_is_too_large_is_brought_down(void) {
  gof_init(SIZE_MAX);
  CHECK(stack_for(0) <= (size_t)1 << 30);
  CHECK_EQ(stack_for(32768), 32768);
}

/* Each of these calls makes the runtime, as gof_init(0) would. */
static void spawn_makes_the_runtime(void) { CHECK_EQ(stack_for(0), 256 << 10); }

static void run_makes_the_runtime(void) {
  gof_run();
  gof_init(1);
  CHECK_EQ(stack_for(0), 256 << 10);
}

static void stats_make_the_runtime(void) {
  CHECK(stats_now().nworkers >= 1);
  gof_init(1);
  CHECK_EQ(stack_for(0), 256 << 10);
}

static void parameters_make_the_runtime(void) {
  gof_steal_params p;
  gof_get_steal_params(&p);
  CHECK_EQ(p.steal_min_live, 4);
  gof_init(1);
  CHECK_EQ(stack_for(0), 256 << 10);
}

static void affinity_makes_the_runtime(void) {
  CHECK_EQ(gof_get_affinity_enabled(), 1);
  gof_init(1);
  CHECK_EQ(stack_for(0), 256 << 10);
}

static void list_makes_the_runtime(void) {
  CHECK_EQ(gof_list(NULL, 0), 0);
  gof_dump_stacks(-1);
  gof_init(1);
  CHECK_EQ(stack_for(0), 256 << 10);
}

/* These work without one. */
static void plain_calls_need_no_runtime(void) {
  CHECK(gof_current() == NULL);
  CHECK_EQ(gof_in_fiber(), 0);
  gof_yield();
  gof_sleep_ms(1);
  gof_set_name("nobody");
  gof_request_stop();
  CHECK_EQ(gof_get_npollers(), 1);
  gof_run();
  CHECK(gof_current() == NULL);
}

static pthread_barrier_t barrier;

static void *uses_first(void *arg) {
  pthread_barrier_wait(&barrier);
  switch ((intptr_t)arg % 4) {
  case 0: gof_init(32 << 10); break;
  case 1: go(counts, NULL); break;
  case 2: CHECK(stats_now().nworkers >= 1); break;
  default: CHECK(gof_runtime() != NULL); break;
  }
  return gof_runtime();
}

static void threads_make_one_runtime(void) {
  pthread_t t[8];
  pthread_barrier_init(&barrier, NULL, 8);
  for (intptr_t i = 0; i < 8; i++) CHECK_EQ(pthread_create(&t[i], NULL, uses_first, number(i)), 0);
  for (int i = 0; i < 8; i++) {
    void *rt = NULL;
    pthread_join(t[i], &rt);
    CHECK(rt == gof_runtime());
  }
  gof_run();
  CHECK_EQ(count, 2);
  size_t bytes = stack_for(0);
  CHECK(bytes == 32 << 10 || bytes == 256 << 10);
}

/* ---- Spawning ---------------------------------------------------------------------------------------------------- */

static void adds(void *arg) { atomic_fetch_add(&count, (int)(intptr_t)arg); }

static void each_fiber_gets_its_argument(void) {
  for (intptr_t i = 1; i <= 1000; i++) go(adds, number(i));
  CHECK_EQ(count, 0);
  CHECK_EQ(gof_list(NULL, 0), 1000);
  gof_run();
  CHECK_EQ(count, 500500);
  CHECK_EQ(gof_list(NULL, 0), 0);
}

static void spawns_badly(void *arg) {
  (void)arg;
  errno = 0;
  CHECK(gof_spawn(NULL, NULL, 0) == NULL);
  CHECK_EQ(errno, EINVAL);
  errno = 0;
  CHECK(gof_spawn(counts, NULL, ((size_t)1 << 30) + 1) == NULL);
  CHECK_EQ(errno, EINVAL);
  errno = 0;
  CHECK(gof_spawn(counts, NULL, SIZE_MAX) == NULL);
  CHECK_EQ(errno, EINVAL);
}

static void bad_spawns_are_refused(void) {
  spawns_badly(NULL);
  CHECK_EQ(gof_list(NULL, 0), 0);
  gof_run();
  go(spawns_badly, NULL);
  gof_run();
  CHECK_EQ(count, 0);
  CHECK_EQ(stats_now().live_fibers, 0);
}

static void has_three_children(void *depth) {
  atomic_fetch_add(&count, 1);
  for (int i = 0; i < 3 && depth; i++) go(has_three_children, number((intptr_t)depth - 1));
}

static void run_waits_for_all_descendants(void) {
  int nodes = 0;
  for (int i = 0, level = 1; i <= 7; i++, level *= 3) nodes += level;
  go(has_three_children, number(7));
  gof_run();
  CHECK_EQ(count, nodes);
}

static char order[16];
static _Atomic(int) order_length;

static void notes(void *letter) { order[atomic_fetch_add(&order_length, 1)] = (char)(intptr_t)letter; }

static void notes_and_spawns(void *arg) {
  (void)arg;
  notes(number('a'));
  go(notes, number('c'));
  notes(number('A'));
}

/* A fiber's child goes behind what is ready on its worker. With three alive nobody steals. */
static void a_child_goes_to_the_tail(void) {
  go(notes_and_spawns, NULL);
  go(notes, number('b'));
  gof_run();
  CHECK(!strcmp(order, "aAbc"));
}

static void sleeps_until_told(void *stop) {
  while (!atomic_load((_Atomic(int) *)stop)) gof_sleep_ms(1);
}

struct latency {
  int64_t spawned;
  _Atomic(int64_t) started;
};

static void notes_start(void *arg) { atomic_store(&((struct latency *)arg)->started, coir_now()); }

static struct latency latencies[100];
static _Atomic(int) stop;

static void *spawns_from_outside(void *one_by_one) {
  WAIT_FOR(blocked_count() == 1); /* the run has begun */
  CHECK(!gof_in_fiber());
  for (int i = 0; i < 100; i++) {
    latencies[i].spawned = coir_now();
    go(notes_start, &latencies[i]);
    if (one_by_one) WAIT_FOR(atomic_load(&latencies[i].started) != 0);
    if (one_by_one && i % 10 == 0) (void)coir_sleep(COIR_MS(3)); /* time to go to sleep deeply */
  }
  atomic_store(&stop, 1);
  return NULL;
}

static int compare(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* A fiber that sleeps for long at a time: so workers are asleep, too, when a plain thread spawns. */
static void sleeps_long_until_told(void *told) {
  while (!atomic_load((_Atomic(int) *)told)) gof_sleep_ms(100);
}

static void a_foreign_spawn_starts_soon(void) {
  pthread_t t;
  gof_sched_stats before = stats_now();
  go(sleeps_long_until_told, &stop);
  CHECK_EQ(pthread_create(&t, NULL, spawns_from_outside, number(1)), 0);
  gof_run();
  pthread_join(t, NULL);
  gof_sched_stats after = stats_now();
  CHECK(after.inject_enqueues >= before.inject_enqueues + 100);
  CHECK_EQ(after.inject_enqueues, after.inject_drains);
  int64_t took[100];
  for (int i = 0; i < 100; i++) {
    took[i] = latencies[i].started - latencies[i].spawned;
    CHECK(took[i] >= 0);
  }
  qsort(took, 100, sizeof *took, compare);
  print_message("foreign spawn to start: p50 %lld us, p99 %lld us\n", (long long)took[50] / 1000,
                (long long)took[98] / 1000);
  CHECK(took[50] < COIR_MS(5));
  CHECK(took[98] < COIR_SEC(1));
}

static void foreign_spawns_in_a_burst(void) {
  pthread_t t;
  go(sleeps_until_told, &stop);
  CHECK_EQ(pthread_create(&t, NULL, spawns_from_outside, NULL), 0);
  gof_run();
  pthread_join(t, NULL);
  for (int i = 0; i < 100; i++) CHECK(latencies[i].started != 0);
  CHECK_EQ(stats_now().inject_enqueues, stats_now().inject_drains);
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

static void an_empty_run_returns_at_once(void) {
  int64_t begin = coir_now(), cpu = cpu_now();
  for (int i = 0; i < 1000; i++) gof_run();
  CHECK(coir_now() - begin < COIR_SEC(2));
  CHECK(cpu_now() - cpu < COIR_MS(500));
}

static void runs_can_be_repeated(void) {
  for (int i = 0; i < 50; i++) {
    for (int n = 0; n < 20; n++) go(counts, NULL);
    CHECK_EQ(stats_now().live_fibers, 20);
    gof_run();
    CHECK_EQ(count, (i + 1) * 20);
    CHECK_EQ(stats_now().live_fibers, 0);
    gof_run();
  }
}

static void runs_again(void *arg) {
  (void)arg;
  go(counts, NULL);
  gof_run();
  CHECK_EQ(count, 0); /* nobody steals it, and this fiber did not wait */
  gof_yield();
  CHECK_EQ(count, 1);
}

static void run_on_a_fiber_does_nothing(void) {
  go(runs_again, NULL);
  gof_run();
  CHECK_EQ(count, 1);
}

static _Atomic(int) second_returned;

static void *runs_too(void *arg) {
  (void)arg;
  WAIT_FOR(blocked_count() == 1);
  gof_run();
  atomic_store(&second_returned, 1);
  return NULL;
}

static void waits_for_second(void *arg) {
  (void)arg;
  while (!atomic_load(&second_returned)) gof_sleep_ms(1);
}

static void a_second_run_at_a_time_does_nothing(void) {
  pthread_t t;
  go(waits_for_second, NULL);
  CHECK_EQ(pthread_create(&t, NULL, runs_too, NULL), 0);
  gof_run();
  CHECK_EQ(second_returned, 1);
  pthread_join(t, NULL);
}

static void sleeps_50(void *arg) {
  int64_t begin = coir_now();
  gof_sleep_ms(50);
  CHECK(coir_now() - begin >= COIR_MS(50));
  counts(arg);
}

static void run_waits_for_a_lone_sleeper(void) {
  int64_t begin = coir_now();
  go(sleeps_50, NULL);
  gof_run();
  CHECK(coir_now() - begin >= COIR_MS(50));
  CHECK_EQ(count, 1);
}

static void yields_and_sleeps(void *arg) {
  gof_yield();
  gof_sleep_ms(1);
  counts(arg);
}

static void runs_leave_no_threads_and_descriptors(void) {
  long before = threads_now();
  for (int n = 0; n < 10; n++) go(yields_and_sleeps, NULL);
  gof_run();
  WAIT_FOR(threads_now() <= before + 1); /* at most one helper for the whole process stays */
  long threads = threads_now();
  int descriptors = descriptors_now();
  for (int i = 0; i < 40; i++) {
    for (int n = 0; n < 10; n++) go(yields_and_sleeps, NULL);
    gof_run();
  }
  CHECK_EQ(count, 410);
  WAIT_FOR(threads_now() <= threads);
  CHECK_EQ(descriptors_now(), descriptors);
}

static pthread_t ran_on;

static void notes_thread(void *arg) {
  (void)arg;
  ran_on = pthread_self();
}

static void *runs_one(void *arg) {
  (void)arg;
  go(notes_thread, NULL);
  gof_run();
  CHECK(pthread_equal(ran_on, pthread_self()));
  return NULL;
}

static void any_thread_may_run(void) {
  for (int i = 0; i < 10; i++) {
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, runs_one, NULL), 0);
    pthread_join(t, NULL);
    runs_one(NULL);
  }
}

/* Threads that spawn at any time, also as a run ends: each fiber is run by that one or the next. */
static _Atomic(int) spawners;

static void *spawns_at_any_time(void *seed) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)seed);
  for (int i = 0; i < 200; i++) {
    go(counts, NULL);
    if (rng_next(&rng) % 4 == 0) spin_for((int64_t)(rng_next(&rng) % 50000));
  }
  atomic_fetch_sub(&spawners, 1);
  return NULL;
}

static void nothing_is_lost_at_the_end_of_a_run(void) {
  pthread_t t[3];
  atomic_store(&spawners, 3);
  for (intptr_t i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, spawns_at_any_time, number(i + 1)), 0);
  while (atomic_load(&spawners)) gof_run();
  gof_run();
  CHECK_EQ(count, 600);
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  CHECK_EQ(stats_now().inject_enqueues, stats_now().inject_drains);
}

static int counts_for_coir(void *arg) {
  CHECK(coir_runtime_current() == gof_runtime());
  counts(arg);
  return 0;
}

static void coirs_calls_work_on_it(void) {
  CHECK(gof_runtime() != NULL);
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), counts_for_coir, NULL, NULL, NULL), 0);
  CHECK_EQ(gof_list(NULL, 0), 1);
  gof_run();
  CHECK_EQ(count, 1);
}

/* A child has none of its parent's fibers, and begins anew. */
static void works_in_the_child(void) {
  gof_init(32 << 10);
  CHECK_EQ(gof_list(NULL, 0), 0);
  CHECK_EQ(stack_for(0), 32 << 10);
  go(sleeps_50, NULL);
  gof_run();
  CHECK_EQ(gof_start_background(0), 0);
  go(counts, NULL);
  CHECK_EQ(gof_join_background(), 0);
}

static void a_child_begins_anew(void) {
  char text[4096];
  gof_init(0);
  go(yields_and_sleeps, NULL);
  gof_run();
  go(counts, NULL); /* not yet run */
  int status = in_child_process(works_in_the_child, text, sizeof text);
  if (status) fprintf(stderr, "%s\n", text);
  CHECK_EQ(status, 0);
  CHECK_EQ(count, 1);
  gof_run();
  CHECK_EQ(count, 2);
}

/* ---- Who it is --------------------------------------------------------------------------------------------------- */

static gof_fiber_t *_Atomic handles[200];

static void knows_itself(void *place) {
  gof_fiber_t *_Atomic *mine = place;
  while (!atomic_load(mine)) gof_yield(); /* who spawned it has not stored it yet */
  for (int i = 0; i < 20; i++) {
    CHECK(gof_current() == atomic_load(mine));
    CHECK_EQ(gof_in_fiber(), 1);
    if (i % 5) gof_yield();
    else gof_sleep_ms(1);
  }
  counts(NULL);
}

static void spawns_who_know_themselves(void *arg) {
  (void)arg;
  for (int i = 0; i < 100; i++) atomic_store(&handles[i], go(knows_itself, &handles[i]));
}

static void check_current(void) {
  for (int i = 100; i < 200; i++) atomic_store(&handles[i], go(knows_itself, &handles[i]));
  go(spawns_who_know_themselves, NULL);
  gof_run();
  CHECK_EQ(count, 200);
  CHECK(gof_current() == NULL);
  CHECK_EQ(gof_in_fiber(), 0);
}

static void current_is_what_spawn_returned(void) { check_current(); }

static void current_is_so_on_any_worker(void) {
  migrate();
  check_current();
}

/* ---- Yielding and sleeping --------------------------------------------------------------------------------------- */

static void yields_or_sleeps_0(void *letter) {
  for (int i = 0; i < 4; i++) {
    notes(letter);
    if ((intptr_t)letter == 'a') gof_yield();
    else gof_sleep_ms(0);
  }
}

static void sleeping_0_ms_yields(void) {
  go(yields_or_sleeps_0, number('a'));
  go(yields_or_sleeps_0, number('b'));
  gof_run();
  CHECK(!strcmp(order, "abababab"));
}

static void a_plain_thread_really_sleeps(void) {
  for (int i = 0; i < 2; i++) {
    int64_t begin = coir_now(), cpu = cpu_now();
    gof_sleep_ms(30);
    CHECK(coir_now() - begin >= COIR_MS(30));
    CHECK(cpu_now() - cpu < COIR_MS(20));
    gof_sleep_ms(0);
    gof_yield();
    gof_init(0);
  }
}

static void sleeps_too_long(void *ms) {
  gof_sleep_ms(*(uint64_t *)ms);
  counts(NULL);
}

/* Lengths that cannot be told in nanoseconds last for ever; they do not wrap around. */
static void the_longest_sleeps_do_not_end(void) {
  static uint64_t lengths[] = {
      UINT64_MAX,          UINT64_MAX / 2,          UINT64_MAX / 1000000, UINT64_MAX / 1000000 + 1,
      INT64_MAX / 1000000, INT64_MAX / 1000000 + 1, (uint64_t)1 << 32,    1000000000};
  CHECK_EQ(gof_start_background(0), 0);
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) go(sleeps_too_long, &lengths[i]);
  WAIT_FOR(blocked_count() == 8);
  gof_sleep_ms(30);
  CHECK_EQ(count, 0);
  CHECK_EQ(blocked_count(), 8);
  gof_request_stop();
  CHECK_EQ(gof_join_background(), 0);
  CHECK_EQ(count, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(only_the_first_init_counts),
      CASE(init_on_a_fiber_does_nothing),
      CASE(the_standard_stack_is_256_kib),
      CASE(small_stacks_are_16_kib),
      CASE(stacks_are_as_large_as_asked),
      CASE(a_default_that_is_too_large_is_brought_down),
      CASE(spawn_makes_the_runtime),
      CASE(run_makes_the_runtime),
      CASE(stats_make_the_runtime),
      CASE(parameters_make_the_runtime),
      CASE(affinity_makes_the_runtime),
      CASE(list_makes_the_runtime),
      CASE(plain_calls_need_no_runtime),
      CASE(threads_make_one_runtime),
      CASE(each_fiber_gets_its_argument),
      CASE(bad_spawns_are_refused),
      CASE(run_waits_for_all_descendants),
      CASE(a_child_goes_to_the_tail),
      CASE(a_foreign_spawn_starts_soon),
      CASE(foreign_spawns_in_a_burst),
      CASE(an_empty_run_returns_at_once),
      CASE(runs_can_be_repeated),
      CASE(run_on_a_fiber_does_nothing),
      CASE(a_second_run_at_a_time_does_nothing),
      CASE(run_waits_for_a_lone_sleeper),
      CASE(runs_leave_no_threads_and_descriptors),
      CASE(any_thread_may_run),
      CASE(nothing_is_lost_at_the_end_of_a_run),
      CASE(coirs_calls_work_on_it),
      CASE(a_child_begins_anew),
      CASE(current_is_what_spawn_returned),
      CASE(current_is_so_on_any_worker),
      CASE(sleeping_0_ms_yields),
      CASE(a_plain_thread_really_sleeps),
      CASE(the_longest_sleeps_do_not_end),
  };
  return RUN_CASES(argc, argv, cases);
}
