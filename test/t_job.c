/* Jobs: what they run, how they wait, yield and spawn; what is submitted and what is refused; what else a system has,
 * seen from outside. */
#include "jobs.h"

#include <sched.h>

#include "coir_io.h"

/* ---- One job, many jobs ------------------------------------------------------------------------------------------ */

static void answers(struct coir_job *job, void *out) {
  CHECK(job);
  *(int *)out = 42;
}

WITH_JOBS(a_job_runs) {
  int value = 0;
  struct coir_counter *done = coir_job_run(jobs, answers, &value);
  CHECK_EQ(coir_counter_wait(done, COIR_NEVER), 0);
  CHECK_EQ(value, 42);
  CHECK_EQ(coir_counter_value(done), 0);
  coir_counter_unref(done);
}

static tally sum;

static void adds(struct coir_job *job, void *n) {
  (void)job;
  atomic_fetch_add(&sum, (int)(intptr_t)n);
}

static struct coir_counter *run_sum(struct coir_job_system *jobs, int n) {
  struct coir_job_desc list[100] = {0};
  for (int i = 0; i < n; i++) list[i] = (struct coir_job_desc){.fn = adds, .arg = (void *)(intptr_t)i};
  atomic_store(&sum, 0);
  return coir_job_run_many(jobs, list, (size_t)n);
}

WITH_JOBS(many_jobs_run) {
  finish(run_sum(jobs, 100));
  CHECK_EQ(sum, 4950);
  finish(run_sum(jobs, 50));
  CHECK_EQ(sum, 1225);
  struct coir_counter *of_none = coir_job_run_many(jobs, NULL, 0);
  finish(of_none);
}

static void spawns_two(struct coir_job *job, void *n) {
  counts(job, n);
  finish(coir_job_spawn(job, counts, n));
}

WITH_JOBS(jobs_that_use_their_job_and_others_mix) {
  tally n = 0;
  struct coir_job_desc list[] = {{.fn = spawns_two, .arg = &n}, {.fn = counts, .arg = &n}};
  finish(coir_job_run_many(jobs, list, 2));
  CHECK_EQ(n, 3);
}

static void sleeps_and_takes_down(struct coir_job *job, void *counter) {
  (void)job;
  (void)coir_sleep(COIR_MS(10));
  (void)coir_counter_done(counter);
}

WITH_JOBS(jobs_take_a_shared_counter_down) {
  struct coir_counter *shared = coir_counter_create(10), *done[10];
  for (int i = 0; i < 10; i++) done[i] = coir_job_run(jobs, sleeps_and_takes_down, shared);
  finish(shared);
  for (int i = 0; i < 10; i++) finish(done[i]);
}

WITH_JOBS(a_thousand_jobs_on_eight_workers, .threads = 8) {
  tally n = 0;
  struct coir_counter *done[1000];
  CHECK_EQ(coir_job_system_workers(jobs), 8);
  for (int i = 0; i < 1000; i++) done[i] = coir_job_run(jobs, counts, &n);
  for (int i = 0; i < 1000; i++) finish(done[i]);
  CHECK_EQ(n, 1000);
}

/* ---- Yielding and waiting ---------------------------------------------------------------------------------------- */

static int order[64];
static tally order_count;

static void note(int what) { order[atomic_fetch_add(&order_count, 1)] = what; }

static void notes_and_yields(struct coir_job *job, void *me) {
  for (int i = 0; i < 5; i++) {
    note((int)(intptr_t)me);
    coir_job_yield(job);
  }
}

static void run_two_that_yield(struct coir_job_system *jobs) {
  struct gate gate = {0};
  struct coir_counter *held = hold(jobs, &gate);
  struct coir_counter *a = coir_job_run(jobs, notes_and_yields, (void *)0);
  struct coir_counter *b = coir_job_run(jobs, notes_and_yields, (void *)1);
  let_go(&gate, held);
  finish(a);
  finish(b);
  CHECK_EQ(order_count, 10);
}

WITH_JOBS(two_that_yield_both_end, .monitor = COIR_OFF) { run_two_that_yield(jobs); }

WITH_JOBS(two_that_yield_on_one_worker_alternate, .threads = 1, .monitor = COIR_OFF) {
  for (int round = 0; round < 50; round++) {
    atomic_store(&order_count, 0);
    run_two_that_yield(jobs);
    for (int i = 0; i < 10; i++) CHECK_EQ(order[i], i % 2);
  }
}

static void yields_often(struct coir_job *job, void *n) {
  for (int i = 0; i < 1000; i++) {
    counts(job, n);
    coir_job_yield_now();
  }
}

WITH_JOBS(yields_between_increments) {
  tally n = 0;
  finish(coir_job_run(jobs, yields_often, &n));
  CHECK_EQ(n, 1000);
}

static void yields_now_and_then(struct coir_job *job, void *n) {
  for (int i = 0; i < 100; i++) {
    counts(job, n);
    if (i % 10 == 9) coir_job_yield(job);
  }
}

WITH_JOBS(a_second_job_runs_beside_one_that_yields, .threads = 1) {
  tally n = 0, second = 0;
  struct coir_counter *a = coir_job_run(jobs, yields_now_and_then, &n), *b = coir_job_run(jobs, counts, &second);
  finish(a);
  finish(b);
  CHECK_EQ(n, 100);
  CHECK_EQ(second, 1);
}

static void sets_around_a_yield(struct coir_job *job, void *arg) {
  tally *flags = arg;
  atomic_store(&flags[0], 1);
  coir_job_yield(job);
  atomic_store(&flags[1], 1);
}

WITH_JOBS(a_job_goes_on_after_a_yield) {
  tally flags[2] = {0};
  finish(coir_job_run(jobs, sets_around_a_yield, flags));
  CHECK(flags[0] && flags[1]);
}

struct awaited {
  struct coir_counter *counter;
  tally slow_has_ended, waiter_waits, waiter_has_ended, other_has_run;
};

static void takes_50_ms(struct coir_job *job, void *arg) {
  struct awaited *a = arg;
  (void)job;
  (void)coir_sleep(COIR_MS(50));
  WAIT_FOR(a->other_has_run);
  atomic_store(&a->slow_has_ended, 1);
}

static void waits_for_slow(struct coir_job *job, void *arg) {
  struct awaited *a = arg;
  atomic_store(&a->waiter_waits, 1);
  CHECK_EQ(coir_job_wait(job, a->counter), 0);
  CHECK(a->slow_has_ended);
  atomic_store(&a->waiter_has_ended, 1);
}

static void looks_at_waiter(struct coir_job *job, void *arg) {
  struct awaited *a = arg;
  while (!a->waiter_waits) coir_job_yield(job);
  CHECK(!a->waiter_has_ended && !a->slow_has_ended);
  atomic_store(&a->other_has_run, 1);
}

WITH_JOBS(a_wait_lets_the_worker_go_on, .threads = 1, .monitor = COIR_OFF) {
  struct awaited a = {0};
  a.counter = coir_job_run(jobs, takes_50_ms, &a);
  struct coir_counter *waiter = coir_job_run(jobs, waits_for_slow, &a);
  struct coir_counter *other = coir_job_run(jobs, looks_at_waiter, &a);
  finish(waiter);
  finish(other);
  CHECK(a.waiter_has_ended);
  coir_counter_unref(a.counter);
}

static void waits_yielding(struct coir_job *job, void *arg) {
  struct awaited *a = arg;
  CHECK_EQ(coir_job_wait_yielding(job, a->counter), 0);
  CHECK(a->slow_has_ended);
  atomic_store(&a->waiter_has_ended, 1);
}

WITH_JOBS(a_wait_by_yielding, .threads = 1, .monitor = COIR_OFF) {
  struct awaited a = {.other_has_run = 1};
  a.counter = coir_job_run(jobs, takes_50_ms, &a);
  finish(coir_job_run(jobs, waits_yielding, &a));
  CHECK(a.waiter_has_ended);
  finish(a.counter);
}

static void yields_10000_times(struct coir_job *job, void *arg) {
  int64_t begin = coir_now();
  (void)arg;
  for (int i = 0; i < 10000; i++) coir_job_yield(job);
  CHECK(coir_now() - begin < COIR_MS(IS_SANITIZED ? 4000 : 200));
}

WITH_JOBS(ten_thousand_yields_are_quick, .threads = 1) { finish(coir_job_run(jobs, yields_10000_times, NULL)); }

static void keeps_locals(struct coir_job *job, void *arg) {
  volatile int local = (int)(intptr_t)arg;
  char frame[4096];
  memset(frame, local, sizeof frame);
  for (int i = 0; i < 20; i++) {
    if (i % 4) coir_job_yield(job);
    else (void)coir_sleep(COIR_US(50));
    CHECK_EQ(local, (intptr_t)arg);
    for (size_t at = 0; at < sizeof frame; at += 512) CHECK_EQ(frame[at], (char)(intptr_t)arg);
  }
}

WITH_JOBS(locals_survive_a_yield) {
  struct coir_job_desc list[40] = {0};
  for (intptr_t i = 0; i < 40; i++) list[i] = (struct coir_job_desc){.fn = keeps_locals, .arg = (void *)(i + 1)};
  finish(coir_job_run_many(jobs, list, 40));
}

/* With yielding off nothing runs inside a job that yields; waits suspend all the same. */
static void yields_as_the_only_one(struct coir_job *job, void *inside) {
  CHECK_EQ(atomic_fetch_add((tally *)inside, 1), 0);
  for (int i = 0; i < 100; i++) {
    coir_job_yield(job);
    coir_job_yield_now();
    CHECK_EQ(*(tally *)inside, 1);
  }
  atomic_fetch_sub((tally *)inside, 1);
  (void)coir_sleep(COIR_MS(1));
}

WITH_JOBS(with_yielding_off_a_yield_is_the_threads, .threads = 1, .enable_yielding = COIR_OFF, .monitor = COIR_OFF) {
  tally inside = 0;
  struct coir_job_desc list[10];
  for (int i = 0; i < 10; i++) list[i] = (struct coir_job_desc){.fn = yields_as_the_only_one, .arg = &inside};
  finish(coir_job_run_many(jobs, list, 10));
}

static void yields_on_a_thread(void) {
  coir_job_yield_now();
  CHECK(coir_job_system_current() == NULL);
}

/* ---- Trees of jobs ----------------------------------------------------------------------------------------------- */

static tally units;

static void leaf(struct coir_job *job, void *arg) {
  (void)arg;
  counts(job, &units);
}

static void branch(struct coir_job *job, void *arg) {
  leaf(job, arg);
  struct coir_job_desc list[2] = {{.fn = leaf}, {.fn = leaf}};
  finish(coir_job_spawn_many(job, list, 2));
}

static void root(struct coir_job *job, void *arg) {
  struct coir_counter *done[3];
  for (int i = 0; i < 3; i++) done[i] = coir_job_spawn(job, branch, arg);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(coir_job_wait(job, done[i]), 0);
    coir_counter_unref(done[i]);
  }
  CHECK_EQ(units, 9);
}

WITH_JOBS(a_tree_of_jobs) {
  finish(coir_job_run(jobs, root, NULL));
  CHECK_EQ(units, 9);
}

struct part {
  int lo, hi, sum;
};

static void sums_part(struct coir_job *job, void *arg) {
  struct part *part = arg;
  (void)job;
  for (int i = part->lo; i < part->hi; i++) part->sum += i;
}

IN_JOB(a_job_divides_its_work) {
  struct part parts[4];
  struct coir_job_desc list[4] = {0};
  for (int i = 0; i < 4; i++) {
    parts[i] = (struct part){i * 25, i * 25 + 25, 0};
    list[i] = (struct coir_job_desc){.fn = sums_part, .arg = &parts[i]};
  }
  finish(coir_job_spawn_many(job, list, 4));
  CHECK_EQ(parts[0].sum + parts[1].sum + parts[2].sum + parts[3].sum, 4950);
}

static float particles[100];

static void moves_particles(struct coir_job *job, void *arg) {
  struct part *part = arg;
  (void)job;
  for (int i = part->lo; i < part->hi; i++) particles[i] += (float)i;
}

IN_JOB(a_counter_of_its_own_for_chunks) {
  struct coir_counter *done = coir_counter_create(0);
  struct part chunks[4];
  for (int i = 0; i < 4; i++) {
    chunks[i] = (struct part){i * 25, i * 25 + 25, 0};
    CHECK_EQ(coir_job_spawn_with(job, done, moves_particles, &chunks[i]), 0);
  }
  CHECK_EQ(coir_job_wait(job, done), 0);
  for (int i = 0; i < 100; i++) CHECK(particles[i] == (float)i);
  coir_counter_unref(done);
}

struct belt {
  struct coir_chan *items;
  tally produced, consumed;
};

static void produces(struct coir_job *job, void *arg) {
  struct belt *belt = arg;
  (void)job;
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(coir_chan_send(belt->items, &i, COIR_NEVER), 0);
    atomic_fetch_add(&belt->produced, 1);
  }
}

static void consumes(struct coir_job *job, void *arg) {
  struct belt *belt = arg;
  (void)job;
  for (int i = 0, v; i < 10; i++) {
    CHECK_EQ(coir_chan_recv(belt->items, &v, COIR_NEVER), 0);
    atomic_fetch_add(&belt->consumed, 1);
  }
}

WITH_JOBS(producers_and_consumers) {
  struct belt belt = {.items = coir_chan_create(sizeof(int), 3)};
  struct coir_job_desc list[] = {{.fn = consumes, .arg = &belt},
                                 {.fn = produces, .arg = &belt},
                                 {.fn = consumes, .arg = &belt},
                                 {.fn = produces, .arg = &belt}};
  finish(coir_job_run_many(jobs, list, 4));
  CHECK_EQ(belt.produced, 20);
  CHECK_EQ(belt.consumed, 20);
  coir_chan_unref(belt.items);
}

static void follows(struct coir_job *job, void *left) {
  if ((intptr_t)left == 0) return;
  finish(coir_job_spawn(job, follows, (void *)((intptr_t)left - 1)));
}

/* Each waits for the next: so many are suspended at once. */
WITH_JOBS(waits_ten_thousand_deep, .stack_bytes = IS_SANITIZED ? 64 << 10 : 16 << 10) {
  finish(coir_job_run(jobs, follows, (void *)(intptr_t)(IS_SANITIZED ? 1000 : 10000)));
}

/* ---- Loops of jobs ----------------------------------------------------------------------------------------------- */

static tally seen[10000];

static void sees(size_t i, void *arg) {
  (void)arg;
  CHECK(i < 10000);
  atomic_fetch_add(&seen[i], 1);
}

static void check_seen(size_t n) {
  for (size_t i = 0; i < 10000; i++) {
    CHECK_EQ(seen[i], i < n);
    atomic_store(&seen[i], 0);
  }
}

WITH_JOBS(loops_see_each_index_once) {
  finish(coir_job_parallel_for(jobs, 0, 1000, 100, sees, NULL));
  check_seen(1000);
  finish(coir_job_parallel_for_auto(jobs, 0, 10000, sees, NULL));
  check_seen(10000);
  finish(coir_job_parallel_for(jobs, 0, 105, 10, sees, NULL));
  check_seen(105);
  finish(coir_job_parallel_for(jobs, 0, 300, 0, sees, NULL));
  check_seen(300);
  for (int grain = COIR_GRAIN_TRIVIAL; grain <= (int)COIR_GRAIN_HEAVY; grain++) {
    finish(coir_job_parallel_for_with_hint(jobs, 0, 7777, (enum coir_grain)grain, sees, NULL));
    check_seen(7777);
  }
  finish(coir_job_parallel_for_partitioned(jobs, 0, 1000, 0, sees, NULL));
  check_seen(1000);
  finish(coir_job_parallel_for_partitioned(jobs, 0, 1000, 7, sees, NULL));
  check_seen(1000);
}

static tally chunk_count, short_chunks;

static void sees_range(size_t lo, size_t hi, void *batch) {
  CHECK(lo < hi);
  CHECK(hi - lo <= (size_t)(intptr_t)batch);
  atomic_fetch_add(&chunk_count, 1);
  if (hi - lo < (size_t)(intptr_t)batch) atomic_fetch_add(&short_chunks, 1);
  for (size_t i = lo; i < hi; i++) sees(i, NULL);
}

WITH_JOBS(chunks_are_of_the_batch_but_the_last) {
  finish(coir_job_parallel_for_chunked(jobs, 0, 105, 10, sees_range, (void *)10));
  check_seen(105);
  CHECK_EQ(chunk_count, 11);
  CHECK_EQ(short_chunks, 1);
  atomic_store(&chunk_count, 0);
  finish(coir_job_parallel_for_chunked(jobs, 0, 100, 10, sees_range, (void *)10));
  check_seen(100);
  CHECK_EQ(chunk_count, 10);
  CHECK_EQ(short_chunks, 1);
  intptr_t batch = (intptr_t)coir_job_batch(jobs, 9999, COIR_GRAIN_MODERATE);
  finish(coir_job_parallel_for_chunked_auto(jobs, 0, 9999, sees_range, (void *)batch));
  check_seen(9999);
  batch = (intptr_t)coir_job_batch(jobs, 9999, COIR_GRAIN_HEAVY);
  finish(coir_job_parallel_for_chunked_with_hint(jobs, 0, 9999, COIR_GRAIN_HEAVY, sees_range, (void *)batch));
  check_seen(9999);
}

WITH_JOBS(empty_loops_are_complete) {
  struct coir_counter *empty[] = {coir_job_parallel_for(jobs, 5, 5, 10, sees, NULL),
                                  coir_job_parallel_for(jobs, 0, 0, 10, sees, NULL),
                                  coir_job_parallel_for_chunked(jobs, 0, 0, 0, sees_range, NULL),
                                  coir_job_parallel_for_auto(jobs, 7, 7, sees, NULL)};
  for (int i = 0; i < 4; i++) {
    CHECK(empty[i] && coir_counter_is_complete(empty[i]));
    CHECK_EQ(coir_counter_wait(empty[i], 0), 0);
    coir_counter_unref(empty[i]);
  }
  check_seen(0);
}

WITH_JOBS(batches_by_hint) {
  size_t n = (size_t)coir_job_system_workers(jobs);
  CHECK_EQ(coir_job_batch(jobs, 160000, COIR_GRAIN_TRIVIAL), 160000 / (2 * n));
  CHECK_EQ(coir_job_batch(jobs, 160000, COIR_GRAIN_LIGHT), 160000 / (4 * n));
  CHECK_EQ(coir_job_batch(jobs, 160000, COIR_GRAIN_MODERATE), 160000 / (8 * n));
  CHECK_EQ(coir_job_batch(jobs, 160000, COIR_GRAIN_HEAVY), 160000 / (16 * n));
  CHECK_EQ(coir_job_batch(jobs, 1, COIR_GRAIN_TRIVIAL), 1);
  CHECK_EQ(coir_job_batch(jobs, 0, COIR_GRAIN_HEAVY), 1);
  CHECK_EQ(coir_job_batch_of(jobs, 100, 4), 25);
  CHECK_EQ(coir_job_batch_of(jobs, 101, 4), 26);
  CHECK_EQ(coir_job_batch_of(jobs, 3, 10), 1);
}

static void times_ten(void *elem, void *total) {
  atomic_fetch_add((tally *)total, *(int *)elem);
  *(int *)elem *= 10;
}

WITH_JOBS(each_element_of_an_array) {
  int array[] = {1, 2, 3, 4, 5};
  tally total = 0;
  CHECK_EQ(coir_parallel_each(jobs, array, 5, sizeof array[0], times_ten, &total), 0);
  for (int i = 0; i < 5; i++) CHECK_EQ(array[i], 10 * (i + 1));
  CHECK_EQ(total, 15);
}

/* ---- What is submitted, and what is refused ---------------------------------------------------------------------- */

IN_JOB(a_job_knows_its_system) {
  struct coir_job_system *system = coir_job_system_of(job);
  CHECK(system && coir_job_system_current() == system);
  CHECK(coir_runtime_current() == coir_job_system_runtime(system));
  (void)coir_sleep(COIR_US(100));
  CHECK(coir_job_system_of(job) == system && coir_job_system_current() == system);
}

static int finds_system(void *expected) {
  CHECK(coir_job_system_current() == expected);
  return 0;
}

WITH_JOBS(a_fiber_knows_its_system) {
  struct coir_fiber *f = NULL;
  CHECK(coir_job_system_current() == NULL);
  CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), finds_system, jobs, NULL, &f), 0);
  CHECK_EQ(join(f), 0);
  run(finds_system, NULL);
}

WITH_JOBS(a_counter_is_new_or_given_or_none) {
  tally n = 0;
  struct coir_job_desc list[3] = {{.fn = counts, .arg = &n}, {.fn = counts, .arg = &n}, {.fn = counts, .arg = &n}};
  struct coir_counter *counter = NULL, *given = coir_counter_create(1), on_stack, *stacked = &on_stack;
  CHECK_EQ(coir_job_submit(jobs, list, 3, &counter), 0);
  finish(counter);
  CHECK_EQ(coir_job_submit(jobs, list, 3, &given), 0);
  WAIT_FOR(n == 6);
  CHECK_EQ(coir_counter_wait(given, 0), -ETIMEDOUT);
  WAIT_FOR(coir_counter_value(given) == 1);
  CHECK(coir_counter_done(given));
  finish(given);
  coir_counter_init(&on_stack, 0);
  CHECK_EQ(coir_job_submit(jobs, list, 3, &stacked), 0);
  CHECK_EQ(coir_counter_wait(&on_stack, COIR_NEVER), 0);
  CHECK_EQ(n, 9);
  CHECK_EQ(coir_job_submit(jobs, list, 3, NULL), 0);
  WAIT_FOR(n == 12);
}

WITH_JOBS(what_is_wrong_is_refused_and_nothing_is_queued) {
  tally n = 0;
  const struct coir_job_desc good = {.fn = counts, .arg = &n};
  struct coir_job_desc bad[] = {{.arg = &n},
                                {.fn = counts, .arg = &n, .priority = (enum coir_priority)2},
                                {.fn = counts, .arg = &n, .priority = (enum coir_priority) - 2},
                                {.fn = counts, .arg = &n, .worker = COIR_WORKER(coir_job_system_workers(jobs))},
                                {.fn = counts, .arg = NULL, .copy_bytes = 8}};
  struct coir_counter *given = coir_counter_create(0);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct coir_job_desc list[] = {good, good, bad[i], good};
    struct coir_counter *counter = NULL;
    CHECK_EQ(coir_job_submit(jobs, list, 4, &counter), -EINVAL);
    CHECK(counter == NULL);
    CHECK_EQ(coir_job_submit(jobs, list, 4, &given), -EINVAL);
    CHECK(coir_counter_is_complete(given));
    CHECK(coir_job_run_many(jobs, list, 4) == NULL);
  }
  CHECK_EQ(coir_job_submit(NULL, &good, 1, NULL), -EINVAL);
  CHECK_EQ(coir_job_submit(jobs, NULL, 1, NULL), -EINVAL);
  CHECK(coir_job_run(NULL, counts, &n) == NULL);
  CHECK(coir_job_run(jobs, NULL, &n) == NULL);
  CHECK(coir_job_run_priority(jobs, (enum coir_priority)7, counts, &n) == NULL);
  CHECK(coir_job_parallel_for(jobs, 0, 10, 1, NULL, NULL) == NULL);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(n, 0);
  coir_counter_unref(given);
}

static void spawns_the_wrong(struct coir_job *job, void *n) {
  struct coir_counter *counter = coir_counter_create(0);
  CHECK(coir_job_spawn(job, NULL, n) == NULL);
  CHECK_EQ(coir_job_spawn_detached(job, NULL, n), -EINVAL);
  CHECK_EQ(coir_job_spawn_with(job, counter, NULL, n), -EINVAL);
  CHECK_EQ(coir_job_spawn_with(job, NULL, counts, n), -EINVAL);
  CHECK(coir_counter_is_complete(counter));
  coir_counter_unref(counter);
  CHECK_EQ(coir_job_spawn_detached(job, counts, n), 0);
  WAIT_FOR(*(tally *)n == 1);
}

WITH_JOBS(a_job_spawns_or_is_refused) {
  tally n = 0;
  finish(coir_job_run(jobs, spawns_the_wrong, &n));
}

/* ---- Payloads ---------------------------------------------------------------------------------------------------- */

static const size_t payload_bytes[] = {1, 8, 15, 16, 17, 32, 100, 4096, 70000, 1000000};
enum { PAYLOADS = sizeof payload_bytes / sizeof *payload_bytes };

static void reads_payload(struct coir_job *job, void *payload) {
  const unsigned char *bytes = payload;
  size_t which = bytes[0];
  CHECK(which < PAYLOADS);
  CHECK_EQ((uintptr_t)payload % 16, 0);
  if (which % 2) coir_job_yield(job);
  if (which % 3 == 1) (void)coir_sleep(COIR_US(100));
  for (size_t i = 1; i < payload_bytes[which]; i++) CHECK_EQ(bytes[i], (unsigned char)(i * 7));
  memset(payload, 0xee, payload_bytes[which]); /* it is the job's */
  atomic_fetch_add(&sum, 1);
}

static void fill_payload(unsigned char *bytes, size_t which) {
  for (size_t i = 0; i < payload_bytes[which]; i++) bytes[i] = (unsigned char)(i * 7);
  bytes[0] = (unsigned char)which;
}

WITH_JOBS(payloads_are_copied) {
  unsigned char *bytes = malloc(payload_bytes[PAYLOADS - 1]);
  struct coir_counter *done[3 * PAYLOADS];
  CHECK(bytes);
  for (size_t i = 0; i < 3 * PAYLOADS; i++) {
    fill_payload(bytes, i % PAYLOADS);
    done[i] = coir_job_run_copy(jobs, reads_payload, bytes, payload_bytes[i % PAYLOADS]);
    memset(bytes, 0xff, payload_bytes[i % PAYLOADS]);
  }
  free(bytes);
  for (size_t i = 0; i < 3 * PAYLOADS; i++) finish(done[i]);
  CHECK_EQ(sum, 3 * PAYLOADS);
}

IN_JOB(payloads_of_many_in_one_call) {
  struct coir_job_desc list[PAYLOADS] = {0};
  for (size_t i = 0; i < PAYLOADS; i++) {
    list[i] = (struct coir_job_desc){.fn = reads_payload, .copy_bytes = payload_bytes[i]};
    CHECK((list[i].arg = malloc(payload_bytes[i])));
    fill_payload(list[i].arg, i);
  }
  struct coir_counter *done = coir_job_spawn_many(job, list, PAYLOADS);
  for (size_t i = 0; i < PAYLOADS; i++) free(list[i].arg);
  finish(done);
  CHECK_EQ(sum, PAYLOADS);
}

/* ---- Jobs are fibers like any other ------------------------------------------------------------------------------ */

static int key;

static void leaves_things_behind(struct coir_job *job, void *arg) {
  (void)job;
  CHECK(coir_local_get(key) == NULL);
  CHECK_EQ(coir_local_set(key, arg), 0);
  CHECK(!strcmp(coir_name(NULL), ""));
  coir_set_name("leaves");
  CHECK_EQ(coir_cancel(coir_current()), 0); /* which nothing notices */
}

static void finds_nothing(struct coir_job *job, void *arg) {
  (void)job;
  (void)arg;
  CHECK(coir_local_get(key) == NULL);
  CHECK(!strcmp(coir_name(NULL), ""));
  CHECK_EQ(coir_sleep(COIR_US(1)), 0);
}

/* What one job leaves behind is not the next one's. */
WITH_JOBS(jobs_do_not_inherit, .threads = 1) {
  key = coir_key_create(NULL);
  for (int i = 0; i < 20; i++) {
    struct coir_job_desc list[] = {{.fn = leaves_things_behind, .arg = &key}, {.fn = finds_nothing}};
    finish(coir_job_run_many(jobs, list, 2));
  }
  CHECK_EQ(coir_key_delete(key), 0);
}

static tally destroyed;

static void destroys(void *value) {
  CHECK(value == &destroyed);
  (void)coir_sleep(COIR_US(10));
  atomic_fetch_add(&destroyed, 1);
}

static void sets_local(struct coir_job *job, void *arg) {
  (void)arg;
  CHECK_EQ(coir_local_set(key, &destroyed), 0);
  if (rand() % 2) coir_job_yield(job);
}

WITH_JOBS(locals_end_with_their_job) {
  struct coir_job_desc list[20];
  key = coir_key_create(destroys);
  for (int i = 0; i < 20; i++) list[i] = (struct coir_job_desc){.fn = sets_local};
  finish(coir_job_run_many(jobs, list, 20));
  WAIT_FOR(destroyed == 20);
  CHECK_EQ(coir_key_delete(key), 0);
}

static struct coir_fiber *_Atomic waiting_fiber;

static void is_cancelled(struct coir_job *job, void *arg) {
  (void)job;
  (void)arg;
  atomic_store(&waiting_fiber, coir_current());
  CHECK_EQ(coir_sleep(COIR_SEC(1000)), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_US(1)), 0);
}

static void cancels(struct coir_job *job, void *arg) {
  (void)job;
  (void)arg;
  WAIT_FOR(waiting_fiber);
  CHECK_EQ(coir_cancel(waiting_fiber), 0);
}

WITH_JOBS(a_waiting_job_is_cancelled) {
  struct coir_job_desc list[] = {{.fn = is_cancelled}, {.fn = cancels}};
  finish(coir_job_run_many(jobs, list, 2));
}

static void cancelled_by_scope(struct coir_job *job, void *n) {
  (void)job;
  CHECK_EQ(coir_sleep(COIR_SEC(1000)), -ECANCELED);
  atomic_fetch_add((tally *)n, 1);
}

static void waits_in_scope(struct coir_job *job, void *n) {
  struct coir_counter *never = coir_counter_create(1);
  CHECK_EQ(coir_job_wait(job, never), -ECANCELED);
  CHECK(coir_counter_done(never));
  coir_counter_unref(never);
  atomic_fetch_add((tally *)n, 1);
}

/* Cancelling a scope cancels what its jobs wait for; those that it catches before they began run, and are cancelled at
 * their first wait. */
WITH_JOBS(a_scope_full_of_jobs_is_cancelled) {
  tally n = 0;
  struct coir_scope *scope;
  struct coir_counter *counter = NULL;
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  for (int i = 0; i < 200; i++) {
    struct coir_job_desc one = {.fn = i % 2 ? cancelled_by_scope : waits_in_scope, .arg = &n, .scope = scope};
    CHECK_EQ(coir_job_submit(jobs, &one, 1, &counter), 0);
  }
  (void)coir_sleep(COIR_MS(2));
  CHECK_EQ(coir_counter_wait(counter, 0), -ETIMEDOUT);
  coir_scope_cancel(scope, -EINTR);
  CHECK_EQ(coir_scope_close(scope), -EINTR);
  CHECK_EQ(n, 200);
  finish(counter);
}

WITH_JOBS(a_scope_waits_for_its_jobs) {
  tally n = 0;
  struct coir_scope *scope;
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  struct coir_job_desc list[] = {{.fn = yields_now_and_then, .arg = &n, .scope = scope},
                                 {.fn = yields_often, .arg = &n, .scope = scope}};
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_job_submit(jobs, &list[i], 1, NULL), 0);
  CHECK_EQ(coir_scope_close(scope), 0);
  CHECK_EQ(n, 1100);
}

WITH_JOBS(a_cancelled_scope_takes_no_jobs) {
  tally n = 0;
  struct coir_scope *scope;
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  coir_scope_cancel(scope, 0);
  struct coir_job_desc one = {.fn = counts, .arg = &n, .scope = scope};
  struct coir_counter *counter = NULL;
  int rc = coir_job_submit(jobs, &one, 1, &counter);
  CHECK(rc == -EPIPE || rc == -ECANCELED);
  CHECK(counter == NULL);
  CHECK_EQ(coir_scope_close(scope), -ECANCELED);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(n, 0);
}

static void uses_deep_stack(struct coir_job *job, void *bytes) {
  volatile char frame[1024];
  memset((char *)frame, 1, sizeof frame);
  if ((intptr_t)bytes > (intptr_t)sizeof frame)
    uses_deep_stack(job, (void *)((intptr_t)bytes - (intptr_t)sizeof frame));
  CHECK_EQ(frame[0] + frame[sizeof frame - 1], 2);
}

/* Most of a small stack is the job's; and a large one is really as large. */
static void stacks_are_as_large_as_asked_for(void) {
  const int kib[] = {32, 64, 256, 4096};
  for (int i = 0; i < 4; i++) {
    struct coir_job_system *jobs = make_jobs((struct coir_job_config){.stack_bytes = (size_t)kib[i] << 10});
    intptr_t use = ((intptr_t)kib[i] << 10) / (IS_SANITIZED ? 4 : 2);
    finish(coir_job_run(jobs, uses_deep_stack, (void *)use));
    end_jobs(jobs, 0);
  }
}

static void reads_a_pipe(struct coir_job *job, void *fd) {
  char c = 0;
  (void)job;
  CHECK_EQ(coir_read((int)(intptr_t)fd, &c, 1, COIR_NEVER), 1);
  CHECK_EQ(c, 'x');
}

WITH_JOBS(a_job_waits_for_input, .threads = 1) {
  int fds[2];
  tally n = 0;
  CHECK_EQ(pipe(fds), 0);
  struct coir_counter *reader = coir_job_run(jobs, reads_a_pipe, (void *)(intptr_t)fds[0]);
  finish(coir_job_run(jobs, counts, &n));
  CHECK(!coir_counter_is_complete(reader));
  CHECK_EQ(write(fds[1], "x", 1), 1);
  finish(reader);
  close(fds[0]);
  close(fds[1]);
}

/* ---- Making a system --------------------------------------------------------------------------------------------- */

static int cpus_allowed(void) {
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct coir_stats stats;
  coir_runtime_get_stats(rt, &stats);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return stats.workers;
}

static void as_many_workers_as_cpus_or_as_asked_for(void) {
  struct coir_job_system *jobs = NULL;
  CHECK_EQ(unsetenv("COIR_WORKERS"), 0);
  int cpus = cpus_allowed();
  CHECK_EQ(coir_job_system_create(&jobs, NULL), 0);
  CHECK_EQ(coir_job_system_workers(jobs), cpus);
  end_jobs(jobs, 0);
  JobSystem *named = JobSystem_Create(0);
  CHECK_EQ(coir_job_system_workers(named), cpus);
  JobSystem_Destroy(named);
  named = JobSystem_Create(3);
  CHECK_EQ(coir_job_system_workers(named), 3);
  finish(run_sum(named, 50));
  JobSystem_Destroy(named);
  JobSystem_Destroy(NULL);
  CHECK(JobSystem_Create(100000) == NULL);
}

static void configurations_that_cannot_be(void) {
  struct coir_job_system *jobs = (struct coir_job_system *)&jobs;
  struct coir_job_config bad[] = {{.threads = -1}, {.threads = 65}, {.pinning = (enum coir_pinning)99}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_EQ(coir_job_system_create(&jobs, &bad[i]), -EINVAL);
  CHECK_EQ(coir_job_system_create(NULL, NULL), -EINVAL);
  CHECK_EQ(coir_job_config_preset(NULL, COIR_JOBS_GAMING), -EINVAL);
  CHECK_EQ(coir_job_config_preset(&bad[0], (enum coir_job_preset)5), -EINVAL);
  CHECK_EQ(coir_job_config_preset(&bad[0], (enum coir_job_preset) - 1), -EINVAL);
}

static const struct {
  size_t stack, initial, target, frame;
  enum coir_pinning pinning;
} presets[] = {
    [COIR_JOBS_GAMING] = {256, 64, 512, 2048, COIR_PIN_AVOID_SMT},
    [COIR_JOBS_THROUGHPUT] = {512, 32, 256, 1024, COIR_PIN_NONE},
    [COIR_JOBS_DATA_PROCESSING] = {512, 32, 256, 1024, COIR_PIN_TIERED_SPILLOVER},
    [COIR_JOBS_LOW_LATENCY] = {128, 8, 64, 512, COIR_PIN_AVOID_SMT},
    [COIR_JOBS_STRICT_TOPOLOGY] = {512, 16, 128, 1024, COIR_PIN_LINEAR},
};

static void presets_make_systems_that_work(void) {
  for (int i = 0; i < 5; i++) {
    struct coir_job_config config;
    memset(&config, 0xff, sizeof config);
    CHECK_EQ(coir_job_config_preset(&config, (enum coir_job_preset)i), 0);
    CHECK_EQ(config.stack_bytes, presets[i].stack << 10);
    CHECK_EQ(config.initial_pool_size, presets[i].initial);
    CHECK_EQ(config.target_pool_size, presets[i].target);
    CHECK_EQ(config.frame_bytes, presets[i].frame << 10);
    CHECK_EQ(config.pinning, presets[i].pinning);
    CHECK_EQ(config.threads, 0);
    struct coir_job_system *jobs = make_jobs(config);
    finish(run_sum(jobs, 100));
    CHECK_EQ(sum, 4950);
    finish(coir_job_run(jobs, uses_deep_stack, (void *)(intptr_t)(presets[i].stack << 8)));
    end_jobs(jobs, 0);
  }
}

static void pools_of_all_sizes(void) {
  const struct coir_job_config configs[] = {{0},
                                            {.max_pooled_fibers = 1},
                                            {.initial_pool_size = 4, .target_pool_size = 8},
                                            {.initial_pool_size = 16, .prefetch_pages = COIR_ON},
                                            {.initial_pool_size = 2, .target_pool_size = 64, .stack_bytes = 128 << 10}};
  for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
    struct coir_job_system *jobs = make_jobs(configs[i]);
    tally n = 0;
    struct coir_job_desc list[20];
    for (int j = 0; j < 20; j++) list[j] = (struct coir_job_desc){.fn = takes_10_ms, .arg = &n};
    finish(coir_job_run_many(jobs, list, 20));
    CHECK_EQ(n, 20);
    end_jobs(jobs, 0);
  }
}

static void all_ways_of_pinning(void) {
  const enum coir_pinning ways[] = {COIR_PIN_NONE, COIR_PIN_LINEAR, COIR_PIN_AVOID_SMT, COIR_PIN_CCD_ISOLATION,
                                    COIR_PIN_TIERED_SPILLOVER};
  for (int i = 0; i < 5; i++) {
    struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = i < 4 ? 10 : 32, .pinning = ways[i]});
    finish(run_sum(jobs, 100));
    CHECK_EQ(sum, 4950);
    end_jobs(jobs, 0);
  }
}

/* ---- Frames ------------------------------------------------------------------------------------------------------ */

struct frame_work {
  int number;
  size_t bytes;
  tally total;
};

static void adds_by_frame(struct coir_job *job, void *arg) {
  struct frame_work *work = arg;
  int *p = coir_job_frame_alloc(job, sizeof *p, 0);
  CHECK(p && (uintptr_t)p % 16 == 0);
  *p = work->number;
  atomic_fetch_add(&work->total, *p);
}

WITH_JOBS(frames_begin_anew) {
  struct frame_work work = {.number = 1};
  finish(coir_job_run(jobs, adds_by_frame, &work));
  CHECK_EQ(work.total, 1);
  coir_job_system_start_frame(jobs);
  work.number = 10;
  finish(coir_job_run(jobs, adds_by_frame, &work));
  CHECK_EQ(work.total, 11);
}

static void fills_by_frame(struct coir_job *job, void *arg) {
  struct frame_work *work = arg;
  char *p = coir_job_frame_alloc(job, work->bytes, 64), *q = coir_job_frame_alloc(job, 1, 4096);
  CHECK(p && q && (uintptr_t)p % 64 == 0 && (uintptr_t)q % 4096 == 0);
  memset(p, work->number, work->bytes);
  *q = 1;
  coir_job_yield(job);
  for (size_t i = 0; i < work->bytes; i++) CHECK_EQ(p[i], work->number);
  atomic_fetch_add(&work->total, (int)work->bytes);
}

/* Also what is larger than a page, and more than there is in one. */
WITH_JOBS(frames_never_run_out, .frame_bytes = 64 << 10) {
  struct frame_work small = {1, 100, 0}, large = {2, 200000, 0};
  for (int frame = 0; frame < 3; frame++) {
    struct coir_job_desc list[110];
    for (int i = 0; i < 110; i++)
      list[i] = (struct coir_job_desc){.fn = fills_by_frame, .arg = i % 11 ? &small : &large};
    finish(coir_job_run_many(jobs, list, 110));
    CHECK_EQ(small.total, 10000 * (frame + 1));
    CHECK_EQ(large.total, 2000000 * (frame + 1));
    coir_job_system_start_frame(jobs);
  }
}

static void a_frame_is_used_up(void) {
  struct coir_frame *frame = coir_frame_create(1024);
  size_t bytes = 0;
  while (coir_frame_alloc(frame, 100, 0)) bytes += 100;
  CHECK(bytes > 800 && bytes <= 1024);
  CHECK_EQ(coir_frame_capacity(frame), 1024);
  CHECK(coir_frame_used(frame) >= bytes && coir_frame_used(frame) <= 1024);
  coir_frame_reset(frame);
  CHECK_EQ(coir_frame_used(frame), 0);
  CHECK(coir_frame_alloc(frame, 1024, 1) != NULL);
  coir_frame_destroy(frame);
}

/* ---- Looking at a system ----------------------------------------------------------------------------------------- */

WITH_JOBS(metrics_of_a_system, .metrics = COIR_ON) {
  struct coir_job_metrics m;
  tally left = 99;
  memset(&m, 0xff, sizeof m);
  CHECK_EQ(coir_job_system_metrics(jobs, &m), 0);
  CHECK_EQ(m.jobs_completed + m.jobs_failed + m.local_queue_pushes + m.local_queue_pops, 0);
  CHECK_EQ(m.global_injector_pushes + m.global_injector_pops + m.jobs_stolen, 0);
  CHECK_EQ(m.local_queue_depth, 0);
  CHECK_EQ(m.global_queue_depth, 0);
  finish(run_sum(jobs, 100));
  finish(coir_job_run(jobs, goes_on, &left)); /* and then 99 by spawning */
  WAIT_FOR(left == -1);
  WAIT_FOR(coir_job_system_active(jobs) == 0 && !coir_job_system_metrics(jobs, &m) && m.jobs_completed == 200);
  CHECK_EQ(m.jobs_failed, 0);
  CHECK(m.global_injector_pushes >= 2 && m.global_injector_pushes == m.global_injector_pops);
  CHECK_EQ(m.local_queue_depth, 0);
  CHECK_EQ(m.global_queue_depth, 0);
  CHECK(m.local_queue_pushes >= 99 && m.local_queue_pushes == m.local_queue_pops);
  CHECK(m.elapsed_seconds > 0 && m.jobs_per_second > 0);
  CHECK_EQ(coir_job_system_metrics(jobs, NULL), -EINVAL);
}

WITH_JOBS(no_metrics_unless_asked_for) {
  struct coir_job_metrics m;
  CHECK_EQ(coir_job_system_metrics(jobs, &m), -ENOTSUP);
  CHECK_EQ(coir_job_system_export_trace(jobs, "/dev/null"), -ENOTSUP);
}

WITH_JOBS(active_workers_are_counted, .threads = 4, .monitor = COIR_OFF) {
  struct gate gates[4] = {0};
  struct coir_counter *held[4];
  WAIT_FOR(coir_job_system_active(jobs) == 0);
  for (int i = 0; i < 4; i++) {
    held[i] = hold(jobs, &gates[i]);
    int active = coir_job_system_active(jobs);
    CHECK(active >= i + 1 && active <= 4);
  }
  CHECK_EQ(coir_job_system_active(jobs), 4);
  for (int i = 0; i < 4; i++) let_go(&gates[i], held[i]);
  WAIT_FOR(coir_job_system_active(jobs) == 0);
}

static void the_machine(void) {
  struct coir_topology *t = coir_topology_detect();
  CHECK(t);
  int n = coir_topology_cpus(t), cores = coir_topology_cores(t), nodes = coir_topology_nodes(t);
  cpu_set_t set;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  CHECK_EQ(n, CPU_COUNT(&set));
  CHECK(cores >= 1 && cores <= n && nodes >= 1 && nodes <= cores);
  CHECK(coir_topology_usable(t) >= 1 && coir_topology_usable(t) <= n);
  for (int i = 0; i < n; i++) {
    int siblings[64], count = coir_topology_siblings(t, i, siblings, 64), self = 0;
    CHECK(CPU_ISSET((size_t)coir_topology_cpu(t, i), &set));
    CHECK(coir_topology_core_of(t, i) >= 0 && coir_topology_core_of(t, i) < cores);
    CHECK(coir_topology_node_of(t, i) >= 0 && coir_topology_cache_of(t, i) >= 0);
    CHECK(count >= 1);
    for (int j = 0; j < count && j < 64; j++) self += siblings[j] == i || siblings[j] == coir_topology_cpu(t, i);
    CHECK(self >= 1);
  }
  CHECK_EQ(coir_topology_cpu(t, n), -EINVAL);
  CHECK_EQ(coir_topology_cpu(t, -1), -EINVAL);
  coir_topology_destroy(t);
  coir_topology_destroy(NULL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(a_job_runs),
      CASE(many_jobs_run),
      CASE(jobs_that_use_their_job_and_others_mix),
      CASE(jobs_take_a_shared_counter_down),
      CASE(a_thousand_jobs_on_eight_workers),
      CASE(two_that_yield_both_end),
      CASE(two_that_yield_on_one_worker_alternate),
      CASE(yields_between_increments),
      CASE(a_second_job_runs_beside_one_that_yields),
      CASE(a_job_goes_on_after_a_yield),
      CASE(a_wait_lets_the_worker_go_on),
      CASE(a_wait_by_yielding),
      CASE(ten_thousand_yields_are_quick),
      CASE(locals_survive_a_yield),
      CASE(with_yielding_off_a_yield_is_the_threads),
      CASE(yields_on_a_thread),
      CASE(a_tree_of_jobs),
      CASE(a_job_divides_its_work),
      CASE(a_counter_of_its_own_for_chunks),
      CASE(producers_and_consumers),
      CASE(waits_ten_thousand_deep),
      CASE(loops_see_each_index_once),
      CASE(chunks_are_of_the_batch_but_the_last),
      CASE(empty_loops_are_complete),
      CASE(batches_by_hint),
      CASE(each_element_of_an_array),
      CASE(a_job_knows_its_system),
      CASE(a_fiber_knows_its_system),
      CASE(a_counter_is_new_or_given_or_none),
      CASE(what_is_wrong_is_refused_and_nothing_is_queued),
      CASE(a_job_spawns_or_is_refused),
      CASE(payloads_are_copied),
      CASE(payloads_of_many_in_one_call),
      CASE(jobs_do_not_inherit),
      CASE(locals_end_with_their_job),
      CASE(a_waiting_job_is_cancelled),
      CASE(a_scope_full_of_jobs_is_cancelled),
      CASE(a_scope_waits_for_its_jobs),
      CASE(a_cancelled_scope_takes_no_jobs),
      CASE(stacks_are_as_large_as_asked_for),
      CASE(a_job_waits_for_input),
      CASE(as_many_workers_as_cpus_or_as_asked_for),
      CASE(configurations_that_cannot_be),
      CASE(presets_make_systems_that_work),
      CASE(pools_of_all_sizes),
      CASE(all_ways_of_pinning),
      CASE(frames_begin_anew),
      CASE(frames_never_run_out),
      CASE(a_frame_is_used_up),
      CASE(metrics_of_a_system),
      CASE(no_metrics_unless_asked_for),
      CASE(active_workers_are_counted),
      CASE(the_machine),
  };
  return RUN_CASES(argc, argv, cases);
}
