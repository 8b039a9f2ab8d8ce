/* Failures in forks and loops: at every place, taken by others or not. What is said of them: the job of who called
 * fails once, or the outermost call of what is no job returns -ECANCELED; by then nothing of it runs any more, so
 * frames may go; the others go on. */
#include "jobs.h"
#include "stuck.h"

/* What runs of a fork or loop now; nothing may when it is over. */
static tally running;

static void begins(void) { atomic_fetch_add(&running, 1); }
static void ends(void) { atomic_fetch_sub(&running, 1); }

static void fails(void *arg) {
  (void)arg;
  coir_job_fail("on purpose");
}

static void sleeps(void *arg) {
  begins();
  (void)coir_sleep(COIR_US(300));
  ends();
  if (arg) atomic_fetch_add((tally *)arg, 1);
}

/* ---- Sides ------------------------------------------------------------------------------------------------------- */

/* The sides of a fork, by name. The frame of the caller goes as soon as the call is over. */
struct story {
  const char *name;
  coir_task_fn a, b;
  int a_ends, b_ends; /* how often that must be; -1: it may be either */
  int workers_min;
};

struct frame {
  tally a_begun, b_begun, a_ended, b_ended;
};

static struct frame *in_use; /* the frame of the story that runs; stories run one at a time */

static void a_fails_at_once(void *arg) {
  struct frame *f = arg;
  atomic_store(&f->a_begun, 1);
  coir_job_fail("a");
}

static void a_fails_when_b_has_begun(void *arg) {
  struct frame *f = arg;
  SPIN_UNTIL(f->b_begun);
  coir_job_fail("a, later than b began");
}

static void a_waits_for_b_and_fails(void *arg) {
  struct frame *f = arg;
  WAIT_FOR(f->b_begun);
  coir_job_fail("a, after a wait");
}

static void a_is_well(void *arg) {
  struct frame *f = arg;
  begins();
  coir_yield();
  ends();
  atomic_store(&f->a_ended, 1);
}

static void a_is_well_when_b_has_begun(void *arg) {
  struct frame *f = arg;
  SPIN_UNTIL(f->b_begun);
  begins();
  (void)coir_sleep(COIR_MS(1));
  ends();
  atomic_store(&f->a_ended, 1);
}

static void a_sleeps_and_fails(void *arg) {
  (void)arg;
  (void)coir_sleep(COIR_US(500));
  coir_job_fail("a, after sleep");
}

static void b_fails(void *arg) {
  struct frame *f = arg;
  atomic_store(&f->b_begun, 1);
  coir_job_fail("b");
}

static void b_sleeps_and_fails(void *arg) {
  struct frame *f = arg;
  atomic_store(&f->b_begun, 1);
  (void)coir_sleep(COIR_US(500));
  coir_job_fail("b, after sleep");
}

static void b_is_slow(void *arg) {
  struct frame *f = arg;
  begins();
  atomic_store(&f->b_begun, 1);
  (void)coir_sleep(COIR_MS(2));
  atomic_store(&f->b_ended, 1);
  ends();
}

static void both_fail_below(void *arg) {
  (void)arg;
  (void)coir_fork2(fails, NULL, fails, NULL);
  CHECK(!"never here");
}

static void fails_below_others(void *arg) {
  struct frame *f = arg;
  atomic_store(&f->b_begun, 1);
  (void)coir_fork2(sleeps, NULL, both_fail_below, NULL);
  CHECK(!"never here");
}

static const struct story stories[] = {
    {"a fails, b has not begun", a_fails_at_once, b_is_slow, 0, -1, 1},
    {"a fails while b runs elsewhere", a_fails_when_b_has_begun, b_is_slow, 0, 1, 2},
    {"a waits and fails while b runs", a_waits_for_b_and_fails, b_is_slow, 0, 1, 1},
    {"b fails in the caller", a_is_well, b_fails, 1, 0, 1},
    {"b fails elsewhere while a runs", a_is_well_when_b_has_begun, b_fails, 1, 0, 2},
    {"b sleeps and fails elsewhere", a_is_well_when_b_has_begun, b_sleeps_and_fails, 1, 0, 2},
    {"b sleeps and fails", a_is_well, b_sleeps_and_fails, 1, 0, 1},
    {"both fail", a_sleeps_and_fails, b_sleeps_and_fails, 0, 0, 1},
    {"both fail elsewhere", a_fails_when_b_has_begun, b_sleeps_and_fails, 0, 0, 2},
    {"a fails two levels down", fails_below_others, b_is_slow, 0, -1, 1},
    {"b fails two levels down", a_is_well, fails_below_others, 1, 0, 1},
    {"both fail two levels down", fails_below_others, fails_below_others, 0, 0, 1},
};
enum { STORIES = sizeof stories / sizeof *stories };

static void tells(void *arg) {
  const struct story *s = arg;
  (void)coir_fork2(s->a, in_use, s->b, in_use);
  CHECK(!"never here");
}

static void tells_in_a_job(struct coir_job *job, void *arg) {
  (void)job;
  tells(arg);
}

static void nothing(void *arg) { (void)arg; }

/* By another fork, as one of its sides. */
static void tells_deeper(struct coir_job *job, void *arg) {
  (void)job;
  (void)coir_fork2(tells, arg, nothing, NULL);
  CHECK(!"never here");
}

static void check_story(const struct story *s) {
  CHECK_EQ(running, 0);
  if (s->a_ends >= 0) CHECK_EQ(in_use->a_ended, s->a_ends);
  if (s->b_ends >= 0) CHECK_EQ(in_use->b_ended, s->b_ends);
  CHECK(!in_use->b_begun || s->b != b_is_slow || in_use->b_ended);
  memset(in_use, 0x55, sizeof *in_use);
  free(in_use);
}

static void new_frame(void) {
  in_use = calloc(1, sizeof *in_use);
  CHECK(in_use);
}

static void sides_fail_in_jobs(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.monitor = COIR_OFF});
  int failed = 0;
  for (int i = 0; i < 3 * STORIES; i++) {
    const struct story *s = &stories[i % STORIES];
    if (s->workers_min > thread_count()) continue;
    tally n = 0;
    new_frame();
    finish_failed(coir_job_run(jobs, i / STORIES % 2 ? tells_deeper : tells_in_a_job, (void *)(uintptr_t)s), 1);
    check_story(s);
    finish(coir_job_run(jobs, counts, &n)); /* the workers live */
    CHECK_EQ(n, 1);
    failed++;
  }
  end_jobs(jobs, failed);
}

/* On a fiber that is no job: the outermost call returns, and the fiber goes on. */
static int tells_on_a_fiber(void *arg) {
  for (int i = 0; i < STORIES; i++) {
    const struct story *s = &stories[i];
    if (s->workers_min > (int)(intptr_t)arg) continue;
    new_frame();
    CHECK_EQ(coir_fork2(s->a, in_use, s->b, in_use), -ECANCELED);
    check_story(s);
    new_frame();
    CHECK_EQ(coir_fork2(nothing, NULL, tells, (void *)(uintptr_t)s), -ECANCELED);
    check_story(s);
    CHECK_EQ(coir_fork2(nothing, NULL, nothing, NULL), 0);
    CHECK_EQ(coir_sleep(COIR_US(1)), 0);
  }
  return 7;
}

static void sides_fail_on_fibers(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.monitor = COIR_OFF});
  struct coir_fiber *f = NULL;
  CHECK_EQ(
      coir_runtime_spawn(coir_job_system_runtime(jobs), tells_on_a_fiber, (void *)(intptr_t)thread_count(), NULL, &f),
      0);
  CHECK_EQ(join(f), 7);
  end_jobs(jobs, 0);
  CHECK_EQ(run_with((struct coir_config){.workers = thread_count(), .monitor = COIR_OFF}, tells_on_a_fiber,
                    (void *)(intptr_t)thread_count()),
           7);
}

/* On a plain thread both sides run in turn, if at all. */
static void sides_fail_on_threads(void) {
  tally n = 0;
  CHECK_EQ(coir_fork2(sleeps, &n, fails, NULL), -ECANCELED);
  CHECK_EQ(n, 1);
  CHECK_EQ(coir_fork2(fails, NULL, sleeps, &n), -ECANCELED);
  CHECK_EQ(coir_fork2(nothing, NULL, nothing, NULL), 0);
  CHECK_EQ(running, 0);
}

/* ---- Loops ------------------------------------------------------------------------------------------------------- */

enum { INDICES = 2000 };
static tally seen[INDICES];

struct failing {
  size_t first, step; /* the indices that fail: first, first + step, ... */
  bool is_slow;
};

static void body(size_t i, void *arg) {
  const struct failing *how = arg;
  CHECK_EQ(atomic_fetch_add(&seen[i], 1), 0);
  if (how->is_slow && i % 50 == 3) sleeps(NULL);
  if (i >= how->first && (i - how->first) % how->step == 0) {
    if (how->is_slow) (void)coir_sleep(COIR_US(i % 100));
    coir_job_fail("at %zu", i);
  }
}

static void range_body(size_t lo, size_t hi, void *arg) {
  for (size_t i = lo; i < hi; i++) body(i, arg);
}

/* Each index was seen once at most; and is not seen later. Returns how many were. */
static int seen_so_far(void) {
  int sum = 0;
  CHECK_EQ(running, 0);
  for (int i = 0; i < INDICES; i++) {
    CHECK(seen[i] <= 1);
    sum += seen[i];
    atomic_store(&seen[i], 0);
  }
  return sum;
}

static void sums_and_fails(size_t lo, size_t hi, void *value, void *arg) {
  (void)value;
  range_body(lo, hi, arg);
}

static void combines(void *left, const void *right, void *arg) {
  (void)right;
  (void)arg;
  ++*(int *)left;
}

static void applies(size_t lo, size_t hi, const void *before, void *arg) {
  (void)before;
  range_body(lo, hi, arg);
}

static void sums_nothing(size_t lo, size_t hi, void *value, void *arg) {
  (void)arg;
  *(int *)value += (int)(hi - lo);
}

static void doubles(void *elem, void *arg) { body((size_t)((tally *)elem - seen), arg); }

/* All loops that wait, by number. */
static int loop_of_kind(struct coir_job_system *system, int kind, struct failing *how) {
  static const int zero = 0;
  const struct coir_monoid failing = {sizeof zero, &zero, sums_and_fails, combines};
  const struct coir_monoid well = {sizeof zero, &zero, sums_nothing, combines};
  struct coir_phase phases[] = {{0, INDICES / 2, 0, range_body, how}, {INDICES / 2, INDICES, 10, range_body, how}};
  int out = 5;
  switch (kind) {
  case 0: return coir_parallel_for(system, 0, INDICES, body, how);
  case 1: return coir_parallel_range(system, 0, INDICES, 0, range_body, how);
  case 2: return coir_parallel_range(system, 0, INDICES, 16, range_body, how);
  case 3: return coir_parallel_reduce(system, 0, INDICES, 0, &failing, how, &out);
  case 4: return coir_parallel_reduce(system, 0, INDICES, 16, &failing, how, &out);
  case 5: return coir_parallel_scan(system, 0, INDICES, &well, applies, how, NULL);
  case 6: return coir_parallel_phases(system, phases, 2);
  default: return coir_parallel_each(system, seen, INDICES, sizeof seen[0], doubles, how);
  }
}
enum { LOOPS = 8 };

static struct failing failings[] = {{0, INDICES, false},      {INDICES - 1, 1, false}, {777, INDICES, true},
                                    {5, 100, true},           {0, 1, false},           {1, 2, true},
                                    {INDICES / 2, 333, false}};
enum { FAILINGS = sizeof failings / sizeof *failings };

/* All loops with all failures; fewer of these where a sanitizer makes each one slow. */
enum { STEP = IS_SANITIZED ? 5 : 1, PAIRS = LOOPS * FAILINGS };

static struct coir_job_system *_Atomic whose;
static tally kind_now;

static void loops_in_a_job(struct coir_job *job, void *how) {
  (void)job;
  (void)loop_of_kind(whose, kind_now, how);
  CHECK(!"never here");
}

static void loops_fail_in_jobs(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  int failed = 0;
  for (int i = 0; i < PAIRS; i += STEP, failed++) {
    atomic_store(&kind_now, i % LOOPS);
    atomic_store(&whose, i % 3 ? NULL : jobs);
    finish_failed(coir_job_run(jobs, loops_in_a_job, &failings[i / LOOPS]), 1);
    CHECK(seen_so_far() >= 1);
  }
  end_jobs(jobs, failed);
}

static int loops_on_a_fiber(void *system) {
  for (int i = 0; i < PAIRS; i += STEP) {
    CHECK_EQ(loop_of_kind(system, i % LOOPS, &failings[i / LOOPS]), -ECANCELED);
    CHECK(seen_so_far() >= 1);
    struct failing none = {INDICES, 1, false};
    CHECK_EQ(loop_of_kind(system, i % LOOPS, &none), 0);
    CHECK_EQ(seen_so_far(), INDICES);
  }
  return 7;
}

/* Outside of jobs the call returns; the loop of a system that it calls into is no job of that which fails. */
static void loops_fail_for_callers_outside(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  struct coir_fiber *f = NULL;
  CHECK_EQ(run(loops_on_a_fiber, NULL), 7);
  CHECK_EQ(run(loops_on_a_fiber, jobs), 7);
  CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), loops_on_a_fiber, NULL, NULL, &f), 0);
  CHECK_EQ(join(f), 7);
  CHECK_EQ(loops_on_a_fiber(jobs), 7); /* a plain thread */
  CHECK_EQ(loops_on_a_fiber(NULL), 7);
  end_jobs(jobs, 0);
}

/* A job whose loop runs in another system fails when a body does. */
static void loops_fail_in_another_system(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  struct coir_job_system *other = make_jobs((struct coir_job_config){.threads = 2});
  atomic_store(&whose, other);
  for (int i = 0; i < LOOPS; i++) {
    atomic_store(&kind_now, i);
    finish_failed(coir_job_run(jobs, loops_in_a_job, &failings[i % FAILINGS]), 1);
    CHECK(seen_so_far() >= 1);
  }
  end_jobs(jobs, LOOPS);
  end_jobs(other, 0);
}

/* ---- Loops of jobs, and jobs of loops ---------------------------------------------------------------------------- */

/* Each batch is a job: those in which a body fails count, the others run to their end. */
static void batches_fail_one_by_one(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  int failed = 0;
  for (int i = 0; i < FAILINGS; i++) {
    struct failing *how = &failings[i];
    int batches_failed = 0, expected = 0;
    for (size_t lo = 0; lo < INDICES; lo += 30) {
      size_t at = lo, hi = lo + 30 < INDICES ? lo + 30 : INDICES;
      while (at < hi && !(at >= how->first && (at - how->first) % how->step == 0)) at++;
      batches_failed += at < hi;
      expected += (int)(at < hi ? at + 1 - lo : hi - lo); /* a batch goes on to where it fails */
    }
    finish_failed(i % 2 ? coir_job_parallel_for(jobs, 0, INDICES, 30, body, how)
                        : coir_job_parallel_for_chunked(jobs, 0, INDICES, 30, range_body, how),
                  batches_failed);
    CHECK_EQ(seen_so_far(), expected);
    failed += batches_failed;
  }
  end_jobs(jobs, failed);
}

static void fails_as_a_job(struct coir_job *job, void *n) {
  counts(job, n);
  coir_job_fail("a job of a body");
}

static void spawns_what_fails(size_t i, void *n) {
  (void)i;
  struct coir_counter *failed = coir_job_run(coir_job_system_current(), fails_as_a_job, n);
  finish_failed(failed, 1);
}

/* A failing job that a body has spawned is no failure of the body. */
static void jobs_of_bodies_fail_alone(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  tally n = 0;
  CHECK_EQ(coir_parallel_for(jobs, 0, 50, spawns_what_fails, &n), 0);
  CHECK_EQ(n, 50);
  end_jobs(jobs, 50);
}

/* ---- Elsewhere --------------------------------------------------------------------------------------------------- */

static void fails_beside_all_workers(struct coir_job *job, void *how) {
  (void)job;
  if (how) block_until_taken();
  else compute_until_taken();
  coir_job_fail("beside all workers");
}

static void fails_beside_in_a_loop(size_t i, void *arg) {
  begins();
  if (i == 20) block_until_taken();
  ends();
  if (i == 20) coir_job_fail("beside all workers, in a loop");
  (void)arg;
}

static void loops_and_fails_beside(struct coir_job *job, void *arg) {
  (void)job;
  (void)coir_parallel_for(NULL, 0, 40, fails_beside_in_a_loop, arg);
  CHECK(!"never here");
}

/* By a job whose worker has been taken away. */
static void failures_beside_the_workers(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  tally n = 0;
  for (intptr_t i = 0; i < 4; i++) {
    finish_failed(coir_job_run(jobs, fails_beside_all_workers, (void *)i), 1);
    finish_failed(coir_job_run(jobs, loops_and_fails_beside, NULL), 1);
    CHECK_EQ(running, 0);
    finish(coir_job_run(jobs, counts, &n));
  }
  end_jobs(jobs, 8);
}

/* A tree of forks, of which some leaves fail: the job fails if and only if one of them did. */
struct tree {
  uint64_t seed;
  int depth;
  tally *failed;
};

static void grows(void *arg) {
  const struct tree *t = arg;
  uint64_t rng = t->seed;
  uint64_t how = rng_next(&rng) % 16;
  begins();
  if (how == 0) coir_yield();
  if (how == 1) (void)coir_sleep(COIR_US(20));
  ends();
  if (t->depth == 0) {
    if (rng_next(&rng) % 400 == 0) {
      atomic_fetch_add(t->failed, 1);
      coir_job_fail("a leaf");
    }
    return;
  }
  struct tree a = {rng_next(&rng), t->depth - 1, t->failed}, b = {rng_next(&rng), t->depth - 1, t->failed};
  CHECK_EQ(coir_fork2(grows, &a, grows, &b), 0);
}

static void grows_in_a_job(struct coir_job *job, void *arg) {
  (void)job;
  grows(arg);
}

static void trees_fail_if_a_leaf_does(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.stack_bytes = 256 << 10});
  int failed = 0;
  for (int i = 0; i < rounds(200); i++) {
    tally leaves = 0;
    struct tree t = {rng_seed((uint64_t)i + 1), 8, &leaves};
    struct coir_counter *done = coir_job_run(jobs, grows_in_a_job, &t);
    CHECK_EQ(coir_counter_wait(done, COIR_NEVER), leaves > 0);
    CHECK_EQ(running, 0);
    coir_counter_unref(done);
    failed += leaves > 0;
  }
  CHECK(failed > 0 && failed < rounds(200));
  end_jobs(jobs, failed);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(sides_fail_in_jobs),        CASE(sides_fail_on_fibers),           CASE(sides_fail_on_threads),
      CASE(loops_fail_in_jobs),        CASE(loops_fail_for_callers_outside), CASE(loops_fail_in_another_system),
      CASE(batches_fail_one_by_one),   CASE(jobs_of_bodies_fail_alone),      CASE(failures_beside_the_workers),
      CASE(trees_fail_if_a_leaf_does),
  };
  return RUN_CASES(argc, argv, cases);
}
