/* Raw fibers: what resuming one returns, which stacks the fiber stands on, and what happens when that fiber waits,
 * changes its thread, fails, or is dropped in the middle. */
#include "jobs.h"
#include "stuck.h"

#include <linux/filter.h>
#include <linux/seccomp.h>

static struct coir_raw_fiber *make_raw(size_t stack_bytes) {
  struct coir_raw_fiber *r = NULL;
  CHECK_EQ(coir_raw_fiber_create(&r, stack_bytes), 0);
  CHECK(r);
  return r;
}

static void adds_one(void *n) { atomic_fetch_add((tally *)n, 1); }

static void fails_deep(void *depth) {
  volatile char frame[256];
  memset((char *)frame, 1, sizeof frame);
  if ((intptr_t)depth) fails_deep((void *)((intptr_t)depth - 1));
  if (!(intptr_t)depth) coir_job_fail("on purpose");
  CHECK(frame[0] == 0); /* never comes back */
}

static void never(void *arg) {
  (void)arg;
  CHECK(!"never here");
}

/* ---- Results ---------------------------------------------------------------------------------------------------- */

static void yields_twice(void *arg) {
  int *step = arg;
  CHECK(coir_raw_fiber_current());
  *step = 1;
  coir_raw_fiber_yield();
  *step = 2;
  coir_raw_fiber_yield();
  *step = 3;
}

IN_JOB(each_result_in_turn) {
  struct coir_raw_fiber *r = make_raw(0);
  tally n = 0;
  (void)job;
  for (int i = 0; i < 100; i++) {
    int step = 0;
    CHECK_EQ(coir_raw_fiber_resume(r, adds_one, &n), COIR_RAW_COMPLETE);
    CHECK_EQ(n, i + 1);
    CHECK_EQ(coir_raw_fiber_resume(r, yields_twice, &step), COIR_RAW_YIELDED);
    CHECK_EQ(step, 1);
    CHECK(!coir_raw_fiber_current());
    CHECK_EQ(coir_raw_fiber_resume(r, never, NULL), COIR_RAW_YIELDED);
    CHECK_EQ(step, 2);
    CHECK_EQ(coir_raw_fiber_resume(r, NULL, NULL), COIR_RAW_COMPLETE);
    CHECK_EQ(step, 3);
    CHECK_EQ(coir_raw_fiber_resume(r, fails_deep, (void *)(intptr_t)(i % 8)), COIR_RAW_FAILED);
  }
  coir_raw_fiber_destroy(r);
}

static void resumes_itself(void *r) {
  CHECK(coir_raw_fiber_current() == r);
  CHECK_EQ(coir_raw_fiber_resume(r, never, NULL), -EBUSY);
}

ON_FIBER_OF(bad_arguments_are_refused, .size = 0) {
  struct coir_raw_fiber *r = make_raw(0), *none = r;
  CHECK_EQ(coir_raw_fiber_create(NULL, 0), -EINVAL);
  CHECK_EQ(coir_raw_fiber_create(&none, 1), -EINVAL);
  CHECK(!none);
  CHECK_EQ(coir_raw_fiber_create(&none, SIZE_MAX), -EINVAL);
  CHECK_EQ(coir_raw_fiber_resume(NULL, never, NULL), -EINVAL);
  CHECK_EQ(coir_raw_fiber_resume(r, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_raw_fiber_resume(r, resumes_itself, r), COIR_RAW_COMPLETE);
  coir_raw_fiber_destroy(r);
  coir_raw_fiber_destroy(NULL);
}

static void not_on_a_plain_thread(void) {
  struct coir_raw_fiber *r = make_raw(16 << 10);
  CHECK_EQ(coir_raw_fiber_resume(r, never, NULL), -ENOTSUP);
  CHECK(!coir_raw_fiber_current());
  coir_raw_fiber_destroy(r);
}

/* ---- Chains ------------------------------------------------------------------------------------------------------ */

#define LEVELS 5
struct level {
  struct coir_raw_fiber *raw;
  struct level *inner, *outer;
  int runs;
};

/* Yields after each resume of the inner one, which so does the same. */
static void goes_deeper(void *arg) {
  struct level *l = arg;
  for (int i = 0; i < 3; i++) {
    CHECK(coir_raw_fiber_current() == l->raw);
    for (struct level *o = l; o; o = o->outer) CHECK_EQ(coir_raw_fiber_resume(o->raw, never, NULL), -EBUSY);
    if (l->inner) CHECK_EQ(coir_raw_fiber_resume(l->inner->raw, goes_deeper, l->inner), COIR_RAW_YIELDED);
    else CHECK_EQ(coir_sleep(COIR_US(50)), 0);
    CHECK(coir_raw_fiber_current() == l->raw);
    l->runs++;
    coir_raw_fiber_yield();
  }
}

IN_JOB(raw_fibers_resume_others) {
  struct level levels[LEVELS] = {{0}};
  (void)job;
  for (int i = 0; i < LEVELS; i++) {
    levels[i].raw = make_raw((size_t)16 << 10 << i % 2);
    if (i) levels[i].outer = &levels[i - 1], levels[i - 1].inner = &levels[i];
  }
  for (int i = 1; i <= 3; i++) {
    CHECK_EQ(coir_raw_fiber_resume(levels[0].raw, goes_deeper, &levels[0]), COIR_RAW_YIELDED);
    for (int k = 0; k < LEVELS; k++) CHECK_EQ(levels[k].runs, i);
  }
  for (int i = 0; i < LEVELS; i++) CHECK_EQ(coir_raw_fiber_resume(levels[i].raw, NULL, NULL), COIR_RAW_COMPLETE);
  for (int i = 0; i < LEVELS; i++) coir_raw_fiber_destroy(levels[i].raw);
}

/* ---- Generators -------------------------------------------------------------------------------------------------- */

#define GENERATORS 200
struct generator {
  struct coir_raw_fiber *raw;
  uint64_t value;
  int limit;
};

/* The values of a generator of numbers, one for each resume. */
static void generates(void *arg) {
  struct generator *g = arg;
  uint64_t state = rng_seed((uint64_t)(uintptr_t)g);
  for (int i = 0; i < g->limit; i++) {
    g->value = rng_next(&state);
    coir_raw_fiber_yield();
  }
}

IN_JOB(many_are_interleaved) {
  static struct generator all[GENERATORS];
  static uint64_t states[GENERATORS];
  int left = GENERATORS;
  (void)job;
  for (int i = 0; i < GENERATORS; i++) {
    all[i] = (struct generator){.raw = make_raw(16 << 10), .limit = i % 17};
    states[i] = rng_seed((uint64_t)(uintptr_t)&all[i]);
  }
  for (int round = 0; left; round++)
    for (int i = 0; i < GENERATORS; i++) {
      if (!all[i].raw) continue;
      int rc = coir_raw_fiber_resume(all[i].raw, generates, &all[i]);
      CHECK_EQ(rc, round < all[i].limit ? COIR_RAW_YIELDED : COIR_RAW_COMPLETE);
      if (rc == COIR_RAW_YIELDED) {
        CHECK(all[i].value == rng_next(&states[i]));
        continue;
      }
      coir_raw_fiber_destroy(all[i].raw);
      all[i].raw = NULL;
      left--;
    }
}

/* ---- Waits ------------------------------------------------------------------------------------------------------- */

static void adds_in_a_job(struct coir_job *job, void *n) {
  (void)job;
  adds_one(n);
}

struct worker {
  uint64_t seed;
  tally *sum;
  tally threads_changed;
};

/* Waits in every way there is, and yields to its resumer at times. */
static void waits(void *arg) {
  struct worker *w = arg;
  uint64_t state = w->seed;
  tally own = 0;
  int count = rounds(100), on = coir_worker_index();
  for (int i = 0; i < count; i++) {
    struct coir_raw_fiber *self = coir_raw_fiber_current();
    uint64_t what = rng_next(&state) % 5;
    if (what == 0) CHECK_EQ(coir_yield(), 0);
    if (what == 1) CHECK_EQ(coir_sleep(COIR_US(20)), 0);
    if (what == 2) finish(coir_job_run(coir_job_system_current(), adds_in_a_job, &own));
    if (what == 3) CHECK_EQ(coir_fork2(adds_one, &own, adds_one, &own), 0);
    if (what == 4) coir_raw_fiber_yield();
    if (coir_worker_index() != on) atomic_fetch_add(&w->threads_changed, 1);
    on = coir_worker_index();
    CHECK(coir_raw_fiber_current() == self);
  }
  state = w->seed;
  int expected = 0;
  for (int i = 0; i < count; i++) {
    uint64_t what = rng_next(&state) % 5;
    expected += what == 2 ? 1 : what == 3 ? 2 : 0;
  }
  CHECK_EQ(own, expected);
  atomic_fetch_add(w->sum, 1);
}

static void resumes_until_complete(struct coir_job *job, void *arg) {
  struct coir_raw_fiber *r = make_raw(0);
  int rc = COIR_RAW_YIELDED;
  (void)job;
  while (rc == COIR_RAW_YIELDED) rc = coir_raw_fiber_resume(r, waits, arg);
  CHECK_EQ(rc, COIR_RAW_COMPLETE);
  coir_raw_fiber_destroy(r);
}

WITH_JOBS(waits_inside_suspend_the_job) {
  enum { JOBS = 50 };
  static struct worker all[JOBS];
  tally sum = 0;
  struct coir_counter done;
  struct coir_counter *counter = &done;
  coir_counter_init(&done, 0);
  for (int i = 0; i < JOBS; i++) {
    all[i] = (struct worker){.seed = rng_seed((uint64_t)i + 1), .sum = &sum};
    struct coir_job_desc desc = {.fn = resumes_until_complete, .arg = &all[i]};
    CHECK_EQ(coir_job_submit(jobs, &desc, 1, &counter), 0);
  }
  CHECK_EQ(coir_counter_wait(&done, COIR_NEVER), 0);
  CHECK_EQ(sum, JOBS);
}

/* Comes to every worker in turn. */
static void sees_all_workers(void *arg) {
  int count = workers(), *left = arg;
  bool seen[64] = {false};
  for (*left = count; *left;) {
    int on = coir_worker_index();
    if (!seen[on]) seen[on] = true, --*left;
    else CHECK_EQ(coir_sleep(COIR_US(10)), 0);
    coir_raw_fiber_yield();
  }
}

static int resumes_once(void *r) { return coir_raw_fiber_resume(r, never, NULL); }

/* One coroutine, which fibers of all workers resume in turn. */
ON_FIBER_OF(any_fiber_resumes_what_has_yielded, .size = 0) {
  struct coir_raw_fiber *r = make_raw(0);
  int left, count = workers(), rc = COIR_RAW_YIELDED;
  CHECK_EQ(coir_raw_fiber_resume(r, sees_all_workers, &left), COIR_RAW_YIELDED);
  for (int i = 0; rc == COIR_RAW_YIELDED; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % count), .pinned = true};
    rc = join(spawn_with(attr, resumes_once, r));
  }
  CHECK_EQ(rc, COIR_RAW_COMPLETE);
  CHECK_EQ(left, 0);
  coir_raw_fiber_destroy(r);
}

static void loses_its_worker(void *arg) {
  (void)arg;
  compute_until_taken();
  coir_raw_fiber_yield(); /* on another thread, where the fiber goes on */
  compute_until_taken();
  CHECK(coir_raw_fiber_current());
  compute_until_taken();
}

ON_FIBER_OF(the_worker_is_taken_inside, .workers = 1) {
  struct coir_raw_fiber *r = make_raw(0);
  uint64_t before = handoffs();
  compute_until_taken();
  CHECK_EQ(coir_raw_fiber_resume(r, loses_its_worker, NULL), COIR_RAW_YIELDED);
  compute_until_taken();
  CHECK_EQ(coir_raw_fiber_resume(r, NULL, NULL), COIR_RAW_COMPLETE);
  CHECK(handoffs() >= before + 3);
  coir_raw_fiber_destroy(r);
}

static void holds_still(void *arg) {
  (void)arg;
  errno_set(7);
  coir_raw_fiber_yield();
  compute_until_taken(); /* who goes on with it does not hold its worker */
  coir_hold_begin();
  coir_shield_begin();
  CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  coir_shield_end();
  coir_hold_end();
}

ON_FIBER_OF(holds_are_those_of_the_fiber, .size = 0) {
  struct coir_raw_fiber *r = make_raw(0);
  coir_hold_begin();
  int on = tid();
  CHECK_EQ(coir_raw_fiber_resume(r, holds_still, NULL), COIR_RAW_YIELDED);
  CHECK_EQ(tid(), on);
  CHECK_EQ(errno_get(), 7);
  coir_hold_end();
  CHECK_EQ(coir_raw_fiber_resume(r, NULL, NULL), COIR_RAW_COMPLETE);
  coir_raw_fiber_destroy(r);
}

/* ---- Several at once --------------------------------------------------------------------------------------------- */

static void waits_for_it(void *up) { WAIT_FOR(is_up(up)); }

struct contest {
  struct coir_raw_fiber *raw;
  flag go;
  tally steps, done;
  int made, limit; /* by the raw fiber alone */
};

static int runs_until_go(void *arg) {
  struct contest *c = arg;
  int rc;
  while ((rc = coir_raw_fiber_resume(c->raw, waits_for_it, &c->go)) == -EBUSY) (void)coir_yield();
  return rc;
}

ON_FIBER_OF(one_that_runs_is_busy, .size = 0) {
  struct contest c = {.raw = make_raw(0)};
  struct coir_fiber *f = spawn(runs_until_go, &c);
  while (coir_raw_fiber_resume(c.raw, adds_one, &c.done) == COIR_RAW_COMPLETE) CHECK_EQ(coir_sleep(COIR_US(50)), 0);
  CHECK_EQ(coir_raw_fiber_resume(c.raw, never, NULL), -EBUSY);
  raise_flag(&c.go);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(coir_raw_fiber_resume(c.raw, adds_one, &c.done), COIR_RAW_COMPLETE);
  coir_raw_fiber_destroy(c.raw);
}

static void counts_alone(void *arg) {
  struct contest *c = arg;
  while (c->made < c->limit) {
    c->made++;
    if (c->made % 8 == 0) (void)coir_yield();
    coir_raw_fiber_yield();
  }
}

static int contends(void *arg) {
  struct contest *c = arg;
  while (!atomic_load(&c->done)) {
    int rc = coir_raw_fiber_resume(c->raw, counts_alone, c);
    if (rc == -EBUSY) (void)coir_yield(); /* mostly somebody is, but not surely: one_that_runs_is_busy */
    else if (rc == COIR_RAW_YIELDED) atomic_fetch_add(&c->steps, 1);
    else atomic_store(&c->done, 1 + rc);
  }
  return 0;
}

ON_FIBER_OF(of_those_who_contend_one_wins, .size = 0) {
  struct contest c = {.raw = make_raw(0), .limit = rounds(20000)};
  struct coir_fiber *all[8];
  for (int i = 0; i < 8; i++) all[i] = spawn(contends, &c);
  for (int i = 0; i < 8; i++) CHECK_EQ(join(all[i]), 0);
  CHECK_EQ(c.done, 1 + COIR_RAW_COMPLETE);
  CHECK_EQ(c.steps, c.limit); /* one more begun afterwards would find nothing left to do */
  CHECK_EQ(c.made, c.limit);
  coir_raw_fiber_destroy(c.raw);
}

/* ---- Failures ---------------------------------------------------------------------------------------------------- */

static void sleeps_and_adds(void *n) {
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  adds_one(n);
}

static void fails_in_a_fork(void *n) {
  coir_shield_begin();
  coir_hold_begin();
  (void)coir_fork2(fails_deep, (void *)3, sleeps_and_adds, n);
  CHECK(!"never here");
}

static void fails_after_a_yield(void *arg) {
  (void)arg;
  coir_raw_fiber_yield();
  coir_shield_begin();
  fails_deep((void *)2);
}

static int resumes_shielded(void *r) {
  int rc;
  coir_shield_begin();
  rc = coir_raw_fiber_resume(r, NULL, NULL);
  coir_shield_end(); /* aborts unless there is just one */
  return rc;
}

static int is_cancelled(void *arg) {
  (void)arg;
  return coir_sleep(COIR_SEC(20));
}

static void adds_index(size_t i, void *sum) { atomic_fetch_add((tally *)sum, (int)i); }
static void loops(void *sum) { CHECK_EQ(coir_parallel_for(NULL, 0, 100, adds_index, sum), 0); }

IN_JOB(failures_end_here) {
  struct coir_raw_fiber *r = make_raw(0);
  tally n = 0;
  (void)job;
  for (int i = 0; i < 20; i++) CHECK_EQ(coir_raw_fiber_resume(r, fails_in_a_fork, &n), COIR_RAW_FAILED);
  CHECK_EQ(coir_raw_fiber_resume(r, fails_after_a_yield, NULL), COIR_RAW_YIELDED);
  CHECK_EQ(join(spawn(resumes_shielded, r)), COIR_RAW_FAILED);
  atomic_store(&n, 0);
  CHECK_EQ(coir_raw_fiber_resume(r, loops, &n), COIR_RAW_COMPLETE);
  CHECK_EQ(n, 4950);
  struct coir_fiber *f = spawn(is_cancelled, NULL); /* no shield is left up here, nor inherited by anybody */
  coir_cancel(f);
  CHECK_EQ(join(f), -ECANCELED);
  coir_raw_fiber_destroy(r);
}

/* ---- What has yielded is dropped --------------------------------------------------------------------------------- */

static void yields_for_ever(void *n) {
  for (;;) {
    adds_one(n);
    coir_raw_fiber_yield();
  }
}

IN_JOB(what_has_yielded_may_be_destroyed) {
  tally n = 0;
  (void)job;
  for (int i = 0; i < 100; i++) {
    struct coir_raw_fiber *r = make_raw(0);
    for (int k = 0; k < i % 3; k++) CHECK_EQ(coir_raw_fiber_resume(r, yields_for_ever, &n), COIR_RAW_YIELDED);
    coir_raw_fiber_destroy(r);
  }
  CHECK_EQ(n, 99); /* 33 of each kind, and one that never ran */
}

struct chain {
  struct coir_raw_fiber *raws[2];
  flag is_there;
};

static void sleeps_for_ever(void *arg) {
  struct chain *c = arg;
  raise_flag(&c->is_there);
  for (;;) (void)coir_sleep(COIR_SEC(60));
}

static void resumes_the_second(void *arg) {
  struct chain *c = arg;
  (void)coir_raw_fiber_resume(c->raws[1], sleeps_for_ever, c);
  CHECK(!"never here");
}

static int resumes_the_first(void *arg) {
  struct chain *c = arg;
  return coir_raw_fiber_resume(c->raws[0], resumes_the_second, c);
}

static int both_are_free(void *arg) {
  struct chain *c = arg;
  tally n = 0;
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_raw_fiber_resume(c->raws[i], adds_one, &n), COIR_RAW_COMPLETE);
  CHECK_EQ(n, 2);
  return 0;
}

static void a_fiber_that_is_dropped_leaves_them_free(void) {
  struct chain c = {.raws = {make_raw(0), make_raw(16 << 10)}};
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  for (int i = 0; i < 3; i++) {
    atomic_store(&c.is_there, 0);
    CHECK_EQ(coir_runtime_start(rt), 0);
    CHECK_EQ(coir_runtime_spawn(rt, resumes_the_first, &c, NULL, NULL), 0);
    SPIN_UNTIL(is_up(&c.is_there));
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
    CHECK_EQ(stats_of(rt).fibers_live, 0);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(run(both_are_free, &c), 0);
  for (int i = 0; i < 2; i++) coir_raw_fiber_destroy(c.raws[i]);
}

/* ---- Pools ------------------------------------------------------------------------------------------------------- */

IN_JOB(a_pool_keeps_them) {
  struct coir_fiber_pool *pool = NULL;
  tally n = 0;
  (void)job;
  CHECK_EQ(coir_fiber_pool_create(&pool, 4, 0), 0);
  CHECK_EQ(coir_fiber_pool_length(pool), 4);
  CHECK_EQ(coir_fiber_pool_grow(pool, 3), 0);
  CHECK_EQ(coir_fiber_pool_length(pool), 7);
  struct coir_raw_fiber *all[10];
  for (int i = 0; i < 10; i++) {
    all[i] = coir_fiber_pool_get(pool); /* three more than there are */
    CHECK(all[i]);
    for (int k = 0; k < i; k++) CHECK(all[i] != all[k]);
    CHECK_EQ(coir_fiber_pool_is_empty(pool), i >= 6);
    CHECK_EQ(coir_raw_fiber_resume(all[i], i % 2 ? adds_one : yields_for_ever, &n), i % 2 ? 0 : COIR_RAW_YIELDED);
  }
  for (int i = 0; i < 10; i++) coir_fiber_pool_put(pool, all[i]);
  CHECK_EQ(coir_fiber_pool_length(pool), 10);
  CHECK(coir_fiber_pool_get(pool) == all[9]);
  coir_fiber_pool_put(pool, make_raw(256 << 10)); /* is no good there */
  CHECK_EQ(coir_fiber_pool_length(pool), 9);
  coir_fiber_pool_put(pool, all[9]);
  for (int i = 9; i >= 0; i--) CHECK_EQ(coir_raw_fiber_resume(coir_fiber_pool_get(pool), adds_one, &n), 0);
  CHECK_EQ(n, 20);
  CHECK(coir_fiber_pool_is_empty(pool));
  for (int i = 0; i < 10; i++) coir_fiber_pool_put(pool, all[i]);
  coir_fiber_pool_destroy(pool);
}

static void a_pool_refuses(void) {
  struct coir_fiber_pool *pool = (struct coir_fiber_pool *)1;
  CHECK_EQ(coir_fiber_pool_create(NULL, 1, 0), -EINVAL);
  CHECK_EQ(coir_fiber_pool_create(&pool, 1, 3), -EINVAL);
  CHECK(!pool);
  CHECK_EQ(coir_fiber_pool_grow(NULL, 1), -EINVAL);
  CHECK(!coir_fiber_pool_get(NULL));
  CHECK_EQ(coir_fiber_pool_length(NULL), 0);
  CHECK(coir_fiber_pool_is_empty(NULL));
  coir_fiber_pool_put(NULL, NULL);
  coir_fiber_pool_destroy(NULL);
}

static struct coir_fiber_pool *shared_pool;

static void takes_and_gives(struct coir_job *job, void *n) {
  (void)job;
  for (int i = 0; i < 20; i++) {
    struct coir_raw_fiber *r = coir_fiber_pool_get(shared_pool);
    CHECK(r);
    CHECK_EQ(coir_raw_fiber_resume(r, i % 4 ? adds_one : yields_for_ever, n), i % 4 ? 0 : COIR_RAW_YIELDED);
    (void)coir_yield();
    coir_fiber_pool_put(shared_pool, r);
  }
}

WITH_JOBS(all_workers_share_a_pool) {
  enum { JOBS = 100 };
  tally n = 0;
  struct coir_counter *done = NULL;
  struct coir_job_desc all[JOBS];
  CHECK_EQ(coir_fiber_pool_create(&shared_pool, 0, 16 << 10), 0);
  for (int i = 0; i < JOBS; i++) all[i] = (struct coir_job_desc){.fn = takes_and_gives, .arg = &n};
  CHECK_EQ(coir_job_submit(jobs, all, JOBS, &done), 0);
  finish(done);
  CHECK_EQ(n, JOBS * 20);
  CHECK(coir_fiber_pool_length(shared_pool) <= JOBS && !coir_fiber_pool_is_empty(shared_pool));
  coir_fiber_pool_destroy(shared_pool);
}

/* ---- Stacks ------------------------------------------------------------------------------------------------------ */

static void sees_its_stack(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg) {
  (void)frames;
  if (info->state != COIR_FIBER_WAITING || strcmp(info->name, "deep") != 0) return;
  CHECK_EQ(info->stack_bytes, 256 << 10);
  CHECK(info->stack_used > 0 && info->stack_used < 256 << 10);
#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__)) && !defined(COIR_CONTEXT_UCONTEXT)
  CHECK(count > 0);
#endif
  (void)count;
  ++*(int *)arg;
}

static int waits_on_a_large_one(void *up) {
  struct coir_raw_fiber *r = make_raw(256 << 10);
  int rc = coir_raw_fiber_resume(r, waits_for_it, up);
  coir_raw_fiber_destroy(r);
  return rc;
}

ON_FIBER_OF(dumps_show_where_it_stands, .size = 0) {
  flag up = 0;
  int seen = 0;
  struct coir_fiber *f = spawn_with((struct coir_attr){.name = "deep"}, waits_on_a_large_one, &up);
  int64_t limit = coir_after(COIR_SEC(20));
  while (!seen && coir_now() < limit) {
    CHECK(coir_runtime_walk(coir_runtime_current(), sees_its_stack, &seen) >= 0);
    (void)coir_yield();
  }
  CHECK_EQ(seen, 1);
  raise_flag(&up);
  CHECK_EQ(join(f), 0);
}

static bool waits_there = true, waits_after;

/* Goes so many bytes below `begin`. */
static void __attribute__((noinline)) goes_down(uintptr_t begin, size_t bytes) {
  volatile char frame[256];
  memset((char *)frame, 1, sizeof frame);
  if (begin - (uintptr_t)frame < bytes) goes_down(begin, bytes);
  else if (waits_there) CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  CHECK(frame[0]);
}

static void uses(void *bytes) {
  volatile char frame = 0;
  goes_down((uintptr_t)&frame, (size_t)(uintptr_t)bytes);
  if (!waits_after) return;
  CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  _exit(0);
}

static int uses_its_stack(void *bytes) {
  struct coir_raw_fiber *r = make_raw(16 << 10);
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_raw_fiber_resume(r, uses, bytes), COIR_RAW_COMPLETE);
  (void)coir_yield();
  coir_raw_fiber_destroy(r);
  return 0;
}

/* Guards cost mappings, as on Linux before 6.13, and of raw fibers only one has one: the others have a canary. */
static void run_short_of_guards(void) {
  const unsigned advice = offsetof(struct seccomp_data, args[2]), guard_install = 102;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, advice),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, guard_install, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
  set_env("COIR_GUARDS_MAX", "1");
}

static void guarded_fiber_on_others(void) {
  run_short_of_guards();
  CHECK_EQ(run_with((struct coir_config){.guards_max = 1000}, uses_its_stack, (void *)(4 << 10)), 0);
}

static void other_fiber_on_guarded(void) {
  CHECK_EQ(run_with((struct coir_config){.guard = COIR_GUARD_CANARY}, uses_its_stack, (void *)(4 << 10)), 0);
}

static void overflows(void) { (void)run(uses_its_stack, (void *)(17 << 10)); }
static void overflows_without_guard(void) { /* over the canary, and back to where there is room to say so */
  run_short_of_guards();
  waits_there = false;
  (void)run_with((struct coir_config){.guards_max = 1000}, uses_its_stack, (void *)(16 << 10));
}

static void overflows_and_waits(void) {
  waits_after = true;
  overflows_without_guard();
}

static void an_overflow_is_reported(void) {
  if (IS_SANITIZED) return; /* they find it first, and their frames are larger */
  void (*const ways[])(void) = {overflows, overflows_without_guard, overflows_and_waits};
  for (int i = 0; i < 3; i++) {
    char text[4000];
    int status = in_child_process(ways[i], text, sizeof text);
    CHECK(WIFSIGNALED(status));
    CHECK(strstr(text, "coir: stack overflow in fiber "));
    CHECK(strstr(text, "stack 16384 bytes"));
  }
}

/* ---- What aborts ------------------------------------------------------------------------------------------------- */

static void exits(void *arg) { coir_exit(0, arg); }
static void destroys_itself(void *r) { coir_raw_fiber_destroy(r); }
static void puts_itself_back(void *r) {
  struct coir_fiber_pool *pool;
  CHECK_EQ(coir_fiber_pool_create(&pool, 0, 0), 0);
  coir_fiber_pool_put(pool, r);
}
static void yields_shielded(void *arg) {
  (void)arg;
  coir_shield_begin();
  coir_raw_fiber_yield();
}
static void returns_holding(void *arg) {
  (void)arg;
  coir_hold_begin();
}
static void yields_in_a_scope(void *arg) {
  struct coir_scope *scope;
  (void)arg;
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  coir_raw_fiber_yield();
}
static void yields_now(void *arg) {
  (void)arg;
  coir_raw_fiber_yield();
}
static void yields_in_a_fork(void *arg) { (void)coir_fork2(yields_now, arg, sleeps_and_adds, arg); }
static void returns_blocking(void *arg) {
  (void)arg;
  CHECK_EQ(coir_block_enter(), 0);
}

static coir_task_fn misdeed; /* NULL: yields on no raw fiber */
static int misbehaves(void *arg) {
  struct coir_raw_fiber *r = make_raw(0);
  (void)arg;
  if (misdeed) (void)coir_raw_fiber_resume(r, misdeed, r);
  else coir_raw_fiber_yield();
  return 0;
}
static void does_it(void) { (void)run(misbehaves, NULL); }

static void misuse_is_fatal(void) {
  static const struct {
    coir_task_fn what;
    const char *said;
  } all[] = {{NULL, "is called on a raw fiber"},
             {exits, "coir_exit is not called"},
             {destroys_itself, "not destroyed while it runs"},
             {puts_itself_back, "not put back while it runs"},
             {yields_shielded, "scopes, shields and holds"},
             {returns_holding, "scopes, shields and holds"},
             {yields_in_a_scope, "scopes, shields and holds"},
             {yields_in_a_fork, "does not yield in a fork"},
             {returns_blocking, "a raw fiber ends where it ran"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char text[4000];
    misdeed = all[i].what;
    int status = in_child_process(does_it, text, sizeof text);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    if (!strstr(text, all[i].said)) fprintf(stderr, "not \"%s\" but: %s\n", all[i].said, text);
    CHECK(strstr(text, all[i].said));
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(each_result_in_turn),
      CASE(bad_arguments_are_refused),
      CASE(not_on_a_plain_thread),
      CASE(raw_fibers_resume_others),
      CASE(many_are_interleaved),
      CASE(waits_inside_suspend_the_job),
      CASE(any_fiber_resumes_what_has_yielded),
      CASE(the_worker_is_taken_inside),
      CASE(holds_are_those_of_the_fiber),
      CASE(one_that_runs_is_busy),
      CASE(of_those_who_contend_one_wins),
      CASE(failures_end_here),
      CASE(what_has_yielded_may_be_destroyed),
      CASE(a_fiber_that_is_dropped_leaves_them_free),
      CASE(a_pool_keeps_them),
      CASE(a_pool_refuses),
      CASE(all_workers_share_a_pool),
      CASE(dumps_show_where_it_stands),
      CASE(guarded_fiber_on_others),
      CASE(other_fiber_on_guarded),
      CASE(an_overflow_is_reported),
      CASE(misuse_is_fatal),
  };
  return RUN_CASES(argc, argv, cases);
}
