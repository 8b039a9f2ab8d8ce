/* Counters: who waits is woken once, when it is zero and not before, whatever comes at the same moment. */
#include "jobs.h"

/* ---- What a counter says ----------------------------------------------------------------------------------------- */

static void counts_up_and_down(void) {
  struct coir_counter c;
  coir_counter_init(&c, 2);
  CHECK_EQ(coir_counter_value(&c), 2);
  CHECK(!coir_counter_is_complete(&c));
  CHECK(!coir_counter_done(&c));
  coir_counter_add(&c, 3);
  CHECK_EQ(coir_counter_value(&c), 4);
  for (int i = 0; i < 3; i++) CHECK(!coir_counter_done(&c));
  CHECK(coir_counter_done(&c));
  CHECK(coir_counter_is_complete(&c));
  CHECK_EQ(coir_counter_value(&c), 0);
  CHECK_EQ(coir_counter_wait(&c, 0), 0);
  coir_counter_add(&c, 0);
  CHECK(coir_counter_is_complete(&c));
  coir_counter_add(&c, UINT64_C(1) << 39);
  CHECK_EQ(coir_counter_value(&c), UINT64_C(1) << 39);
}

static void is_complete_from_the_start(void) {
  struct coir_counter *c = coir_counter_create(0), on_stack;
  CHECK(coir_counter_is_complete(c));
  CHECK_EQ(coir_counter_wait(c, COIR_NEVER), 0);
  CHECK_EQ(coir_counter_wait(c, 0), 0);
  coir_counter_unref(c);
  memset(&on_stack, 0xff, sizeof on_stack);
  coir_counter_init(&on_stack, 0);
  CHECK_EQ(coir_counter_wait(&on_stack, 0), 0);
  CHECK_EQ(coir_counter_failures(&on_stack), 0);
}

static void is_reset(void) {
  struct coir_counter *c = coir_counter_create(5);
  coir_counter_reset(c, 1);
  CHECK_EQ(coir_counter_value(c), 1);
  CHECK(coir_counter_done(c));
  coir_counter_reset(c, 2);
  CHECK_EQ(coir_counter_wait(c, coir_after(COIR_US(100))), -ETIMEDOUT);
  CHECK(!coir_counter_done(c));
  CHECK(coir_counter_done(c));
  coir_counter_unref(c);
}

static void references_are_counted(void) {
  struct coir_counter *c = coir_counter_create(1);
  CHECK(coir_counter_ref(c) == c);
  CHECK(coir_counter_ref(c) == c);
  coir_counter_unref(c);
  coir_counter_unref(c);
  CHECK(coir_counter_done(c));
  coir_counter_unref(c);
  CHECK(coir_counter_ref(NULL) == NULL);
  coir_counter_unref(NULL);
  CHECK_EQ(coir_counter_wait(NULL, 0), -EINVAL);
}

static void dies_on_a_thread(void) {
  struct coir_counter c;
  coir_counter_init(&c, 1);
  (void)coir_counter_done(&c);
  (void)coir_counter_done(&c);
}

static int dies(void *arg) {
  dies_on_a_thread();
  return arg != NULL;
}

static void dies_on_a_fiber(void) { (void)coir_run(dies, NULL); }

static void below_zero_is_fatal(void) {
  void (*const deaths[])(void) = {dies_on_a_thread, dies_on_a_fiber};
  for (int i = 0; i < 2; i++) {
    char text[4000];
    int status = in_child_process(deaths[i], text, sizeof text);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(text, "coir: ") && strstr(text, "counter"));
  }
}

/* ---- Many who wait ----------------------------------------------------------------------------------------------- */

enum { FIBERS = 64, THREADS = 8 };

static struct many {
  struct coir_counter *counter;
  tally begun, woken, opened;
} many;

static int one_of_many(void *arg) {
  (void)arg;
  atomic_fetch_add(&many.begun, 1);
  CHECK_EQ(coir_counter_wait(many.counter, COIR_NEVER), 0);
  CHECK(many.opened);
  atomic_fetch_add(&many.woken, 1);
  return 0;
}

static void *one_of_many_threads(void *arg) { return one_of_many(arg), NULL; }

static void one_of_many_jobs(struct coir_job *job, void *arg) {
  (void)arg;
  atomic_fetch_add(&many.begun, 1);
  CHECK_EQ(coir_job_wait(job, many.counter), 0);
  CHECK(many.opened);
  atomic_fetch_add(&many.woken, 1);
}

static void completes(struct coir_job *job, void *n) {
  (void)job;
  for (int left = (int)(intptr_t)n; left > 0; left--) {
    CHECK_EQ(many.woken, 0);
    if (left == 1) atomic_store(&many.opened, 1);
    CHECK_EQ(coir_counter_done(many.counter), left == 1);
  }
}

/* Fibers, jobs and threads at once; each goes on, once. */
WITH_JOBS(all_who_wait_are_woken_once) {
  for (int round = 0; round < 10; round++) {
    pthread_t threads[THREADS];
    struct coir_fiber *fibers[FIBERS];
    struct coir_job_desc list[FIBERS];
    memset(&many, 0, sizeof many);
    many.counter = coir_counter_create(3);
    for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, one_of_many_threads, NULL), 0);
    for (int i = 0; i < FIBERS; i++) {
      list[i] = (struct coir_job_desc){.fn = one_of_many_jobs};
      CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), one_of_many, NULL, NULL, &fibers[i]), 0);
    }
    struct coir_counter *waiting = coir_job_run_many(jobs, list, FIBERS);
    if (round % 2) WAIT_FOR(many.begun == 2 * FIBERS + THREADS);
    CHECK_EQ(many.woken, 0);
    finish(coir_job_run(jobs, completes, (void *)3));
    for (int i = 0; i < FIBERS; i++) join(fibers[i]);
    for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    finish(waiting);
    CHECK_EQ(many.woken, 2 * FIBERS + THREADS);
    coir_counter_unref(many.counter);
  }
}

/* ---- A counter in the frame of who waits ------------------------------------------------------------------------- */

static void takes_down(struct coir_job *job, void *counter) {
  (void)job;
  (void)coir_counter_done(counter);
}

/* Overwritten as soon as the wait is over: who is still at it would find 0xa5 in place of what it expects. */
static void __attribute__((noinline)) waits_in_its_frame(struct coir_job *job, int kids) {
  struct coir_counter in_frame;
  coir_counter_init(&in_frame, (uint64_t)kids);
  for (int i = 0; i < kids; i++) CHECK_EQ(coir_job_spawn_detached(job, takes_down, &in_frame), 0);
  CHECK_EQ(coir_job_wait(job, &in_frame), 0);
  memset(&in_frame, 0xa5, sizeof in_frame);
  __asm__ volatile("" : : "r"(&in_frame) : "memory");
}

static void __attribute__((noinline)) lends_its_frame(struct coir_job *job, int kids, tally *n) {
  struct coir_counter in_frame;
  coir_counter_init(&in_frame, 0);
  for (int i = 0; i < kids; i++) CHECK_EQ(coir_job_spawn_with(job, &in_frame, counts, n), 0);
  CHECK_EQ(coir_job_wait(job, &in_frame), 0);
  CHECK_EQ(coir_counter_failures(&in_frame), 0);
  memset(&in_frame, 0xa5, sizeof in_frame);
  __asm__ volatile("" : : "r"(&in_frame) : "memory");
}

static void frames_come_and_go(struct coir_job *job, void *arg) {
  tally *n = arg, mine = 0;
  int times = rounds(2000), all = 0;
  for (int i = 0; i < times; i++) {
    int kids = 1 + i % 3;
    waits_in_its_frame(job, kids);
    lends_its_frame(job, kids, &mine);
    CHECK_EQ(mine, all += kids);
  }
  atomic_fetch_add(n, 1);
}

WITH_JOBS(a_frame_is_free_when_the_wait_is_over) {
  tally n = 0;
  struct coir_job_desc list[4];
  for (int i = 0; i < 4; i++) list[i] = (struct coir_job_desc){.fn = frames_come_and_go, .arg = &n};
  finish(coir_job_run_many(jobs, list, 4));
  CHECK_EQ(n, 4);
}

/* The same for plain threads, and for memory that is given back to the system: a touch would be a fault. */
WITH_JOBS(a_thread_frees_the_counter_at_once) {
  for (int i = 0; i < rounds(2000); i++) {
    struct coir_counter *c = malloc(sizeof *c);
    CHECK(c);
    tally n = 0;
    coir_counter_init(c, 0);
    struct coir_job_desc list[2] = {{.fn = counts, .arg = &n}, {.fn = counts, .arg = &n}};
    CHECK_EQ(coir_job_submit(jobs, list, 2, &c), 0);
    CHECK_EQ(coir_counter_wait(c, COIR_NEVER), 0);
    memset(c, 0xa5, sizeof *c);
    free(c);
    CHECK_EQ(n, 2);
  }
}

/* ---- Deadlines and cancellation at the same moment --------------------------------------------------------------- */

struct race {
  struct coir_counter counter;
  tally is_down, starts;
};

static void downs_soon(struct coir_job *job, void *arg) {
  struct race *race = arg;
  (void)job;
  while (!race->starts) coir_job_yield(job);
  spin_for(20000);
  atomic_store(&race->is_down, 1);
  CHECK(coir_counter_done(&race->counter));
}

/* A wait that ended in time says so only after the counter was down; one that did not leaves it whole, for the next. */
static void races_deadline(struct coir_job *job, void *ns) {
  struct race *race = calloc(1, sizeof *race);
  CHECK(race);
  coir_counter_init(&race->counter, 1);
  struct coir_counter *downs = coir_job_spawn(job, downs_soon, race);
  atomic_store(&race->starts, 1);
  int64_t deadline = coir_after((intptr_t)ns);
  int rc = coir_counter_wait(&race->counter, deadline);
  CHECK(rc == 0 || rc == -ETIMEDOUT);
  if (rc) CHECK(coir_now() >= deadline);
  else CHECK(race->is_down);
  if (rc) CHECK_EQ(coir_counter_wait(&race->counter, COIR_NEVER), 0);
  CHECK(race->is_down);
  finish(downs);
  free(race);
}

WITH_JOBS(a_deadline_races_completion) {
  uint64_t rng = rng_seed(7);
  for (int round = 0; round < rounds(200); round++) {
    struct coir_job_desc list[4];
    for (int i = 0; i < 4; i++)
      list[i] = (struct coir_job_desc){.fn = races_deadline, .arg = (void *)(intptr_t)(rng_next(&rng) % 60000)};
    finish(coir_job_run_many(jobs, list, 4));
  }
}

WITH_JOBS(a_deadline_on_a_thread_races_completion) {
  uint64_t rng = rng_seed(8);
  for (int round = 0; round < rounds(300); round++) {
    struct race race = {.starts = 1};
    coir_counter_init(&race.counter, 1);
    struct coir_counter *downs = coir_job_run(jobs, downs_soon, &race);
    int64_t deadline = coir_after((int64_t)(rng_next(&rng) % 100000));
    int rc = coir_counter_wait(&race.counter, deadline);
    CHECK(rc == 0 || (rc == -ETIMEDOUT && coir_now() >= deadline));
    if (rc) CHECK_EQ(coir_counter_wait(&race.counter, COIR_NEVER), 0);
    CHECK(race.is_down);
    finish(downs);
  }
}

/* Also after somebody has given up; who sees it complete lets the memory go at once. */
WITH_JOBS(memory_is_free_when_it_looks_complete) {
  for (int i = 0; i < rounds(2000); i++) {
    struct coir_counter in_frame;
    coir_counter_init(&in_frame, 1);
    CHECK_EQ(coir_counter_wait(&in_frame, coir_after(COIR_US(20))), -ETIMEDOUT);
    CHECK_EQ(coir_job_submit(jobs, &(struct coir_job_desc){.fn = takes_down, .arg = &in_frame}, 1, NULL), 0);
    SPIN_UNTIL(coir_counter_is_complete(&in_frame));
    memset(&in_frame, 0xa5, sizeof in_frame);
    __asm__ volatile("" : : "r"(&in_frame) : "memory");
  }
}

static void a_deadline_that_passes_before(void) {
  struct coir_counter c;
  coir_counter_init(&c, 1);
  CHECK_EQ(coir_counter_wait(&c, 0), -ETIMEDOUT);
  int64_t begin = coir_now();
  CHECK_EQ(coir_counter_wait(&c, coir_after(COIR_MS(5))), -ETIMEDOUT);
  CHECK(coir_now() - begin >= COIR_MS(5));
  CHECK_EQ(coir_counter_value(&c), 1);
}

static int waits_to_be_cancelled(void *arg) {
  struct race *race = arg;
  atomic_store(&race->starts, 1);
  int rc = coir_counter_wait(&race->counter, COIR_NEVER);
  CHECK(rc == 0 || rc == -ECANCELED);
  if (rc) {
    CHECK_EQ(coir_counter_wait(&race->counter, COIR_NEVER), 0); /* it comes once */
  } else {
    CHECK(race->is_down);
    rc = coir_sleep(COIR_US(1)); /* what came too late for the wait is for the next */
    CHECK(rc == 0 || rc == -ECANCELED);
  }
  CHECK(race->is_down);
  return rc == -ECANCELED;
}

/* The cancellation is noticed exactly once, and nobody misses the completion. */
static void races_cancellation(struct coir_job *job, void *spin) {
  struct race *race = calloc(1, sizeof *race);
  CHECK(race);
  coir_counter_init(&race->counter, 1);
  struct coir_fiber *f = spawn(waits_to_be_cancelled, race);
  struct coir_counter *downs = coir_job_spawn(job, downs_soon, race);
  while (!race->starts) coir_job_yield(job);
  spin_for((intptr_t)spin);
  bool is_asked = coir_cancel(f) == 0;
  int status = join(f);
  CHECK(is_asked || !status);
  CHECK(race->is_down);
  finish(downs);
  free(race);
}

WITH_JOBS(a_cancellation_races_completion) {
  uint64_t rng = rng_seed(9);
  for (int round = 0; round < rounds(200); round++) {
    struct coir_job_desc list[4];
    for (int i = 0; i < 4; i++)
      list[i] = (struct coir_job_desc){.fn = races_cancellation, .arg = (void *)(intptr_t)(rng_next(&rng) % 40000)};
    finish(coir_job_run_many(jobs, list, 4));
  }
}

/* ---- Used again -------------------------------------------------------------------------------------------------- */

IN_JOB(is_used_again) {
  struct coir_counter *c = coir_counter_create(0);
  tally n = 0;
  for (int round = 1; round <= rounds(1000); round++) {
    for (int i = 0; i < 3; i++) CHECK_EQ(coir_job_spawn_with(job, c, counts, &n), 0);
    CHECK_EQ(coir_job_wait(job, c), 0);
    CHECK_EQ(n, 3 * round);
    CHECK(coir_counter_is_complete(c));
  }
  coir_counter_unref(c);
}

static void waits_for_the_former(struct coir_job *job, void *former) { CHECK_EQ(coir_job_wait(job, former), 0); }

/* A job counts down when it ends, also where the next, of another counter, runs on without a break and waits for it. */
static void spawns_one_that_waits_for_the_other(struct coir_job *job, void *n) {
  struct coir_counter *former = coir_counter_create(0), *latter = coir_counter_create(0);
  CHECK_EQ(coir_job_spawn_with(job, latter, waits_for_the_former, former), 0);
  CHECK_EQ(coir_job_spawn_with(job, former, counts, n), 0); /* the newest runs first */
  CHECK_EQ(coir_job_wait(job, latter), 0);
  CHECK(coir_counter_is_complete(former));
  coir_counter_unref(former);
  coir_counter_unref(latter);
}

WITH_JOBS(a_job_counts_before_the_next_runs, .threads = 1) {
  tally n = 0;
  for (int i = 0; i < 20; i++) finish(coir_job_run(jobs, spawns_one_that_waits_for_the_other, &n));
  CHECK_EQ(n, 20);
}

static void adds_more(struct coir_job *job, void *arg) {
  struct many *m = arg;
  if (atomic_fetch_add(&m->begun, 1) < 500) {
    CHECK_EQ(coir_job_spawn_with(job, m->counter, adds_more, m), 0);
    CHECK_EQ(coir_job_spawn_with(job, m->counter, counts, &m->woken), 0);
  }
}

/* What is added by a job that it counts cannot come too late. */
WITH_JOBS(grows_while_it_is_waited_for) {
  struct many m = {.counter = coir_counter_create(0)};
  CHECK_EQ(coir_job_submit(jobs, &(struct coir_job_desc){.fn = adds_more, .arg = &m}, 1, &m.counter), 0);
  CHECK_EQ(coir_counter_wait(m.counter, COIR_NEVER), 0);
  CHECK_EQ(m.begun, 501);
  CHECK_EQ(m.woken, 500);
  coir_counter_unref(m.counter);
}

/* ---- References and failures ------------------------------------------------------------------------------------- */

static void sleeps_and_counts(struct coir_job *job, void *n) {
  (void)coir_sleep(COIR_MS(1));
  counts(job, n);
}

WITH_JOBS(jobs_hold_their_own_references) {
  tally n = 0;
  for (int i = 0; i < 200; i++) {
    struct coir_counter *c = coir_counter_create(0);
    struct coir_job_desc list[2] = {{.fn = sleeps_and_counts, .arg = &n}, {.fn = counts, .arg = &n}};
    CHECK_EQ(coir_job_submit(jobs, list, 2, &c), 0);
    coir_counter_unref(c);
  }
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(n, 400);
}

static void waits_for_counter(struct coir_job *job, void *arg) {
  struct many *m = arg;
  CHECK_EQ(coir_job_wait(job, m->counter), 0);
  atomic_fetch_add(&m->woken, 1);
}

WITH_JOBS(counters_of_another_system) {
  struct coir_job_system *other = make_jobs((struct coir_job_config){.threads = 2});
  struct many m = {0};
  m.counter = coir_job_run(other, sleeps_and_counts, &m.begun);
  struct coir_job_desc list[10];
  for (int i = 0; i < 10; i++) list[i] = (struct coir_job_desc){.fn = waits_for_counter, .arg = &m};
  finish(coir_job_run_many(jobs, list, 10));
  CHECK_EQ(m.woken, 10);
  CHECK_EQ(m.begun, 1);
  for (int i = 0; i < 10; i++) list[i] = (struct coir_job_desc){.fn = sleeps_and_counts, .arg = &m.begun};
  CHECK_EQ(coir_job_submit(jobs, list, 10, &m.counter), 0); /* jobs of both count on one */
  CHECK_EQ(coir_job_submit(other, list, 10, &m.counter), 0);
  finish(m.counter);
  CHECK_EQ(m.begun, 21);
  end_jobs(other, 0);
}

static void fails_or_not(struct coir_job *job, void *n) {
  counts(job, n);
  if (*(tally *)n % 2) coir_job_fail("as it should");
}

static void failures_are_remembered(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 1});
  tally n = 0;
  struct coir_job_desc list[10];
  struct coir_counter *c = coir_counter_create(1);
  for (int i = 0; i < 10; i++) list[i] = (struct coir_job_desc){.fn = fails_or_not, .arg = &n};
  CHECK_EQ(coir_job_submit(jobs, list, 10, &c), 0);
  CHECK_EQ(coir_counter_wait(c, coir_after(COIR_MS(1))), -ETIMEDOUT);
  (void)coir_counter_done(c);
  CHECK_EQ(coir_counter_wait(c, COIR_NEVER), 5);
  CHECK_EQ(coir_counter_wait(c, 0), 5);
  CHECK_EQ(coir_counter_failures(c), 5);
  coir_counter_reset(c, 0);
  CHECK_EQ(coir_counter_failures(c), 0);
  CHECK_EQ(coir_counter_wait(c, 0), 0);
  coir_counter_unref(c);
  end_jobs(jobs, 5);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(counts_up_and_down),
      CASE(is_complete_from_the_start),
      CASE(is_reset),
      CASE(references_are_counted),
      CASE(below_zero_is_fatal),
      CASE(all_who_wait_are_woken_once),
      CASE(a_frame_is_free_when_the_wait_is_over),
      CASE(a_thread_frees_the_counter_at_once),
      CASE(a_deadline_races_completion),
      CASE(a_deadline_on_a_thread_races_completion),
      CASE(memory_is_free_when_it_looks_complete),
      CASE(a_deadline_that_passes_before),
      CASE(a_cancellation_races_completion),
      CASE(is_used_again),
      CASE(a_job_counts_before_the_next_runs),
      CASE(grows_while_it_is_waited_for),
      CASE(jobs_hold_their_own_references),
      CASE(counters_of_another_system),
      CASE(failures_are_remembered),
  };
  return RUN_CASES(argc, argv, cases);
}
