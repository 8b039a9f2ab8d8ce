/* A parallel loop did not leave its worker until it was over: fibers that had been woken, timers, what came from
 * outside, even with high priority, and the poller had to wait for all of it, however short its bodies were. */
#include "jobs.h"

#include "coir_io.h"

#define TIMES 20

static struct coir_job_system *jobs;
static tally times;

/* Light, but for as long as the others have not had their turns; after that the loop, which is endless otherwise, is
 * over in a moment. */
static void until_all_have_run(size_t lo, size_t hi, void *end) {
  (void)lo, (void)hi;
  if (atomic_load(&times) < TIMES) spin_for(COIR_US(20));
  CHECK(coir_now() < *(const int64_t *)end); /* nobody had one */
}

static void sum_until_all_have_run(size_t lo, size_t hi, void *value, void *end) {
  (void)value;
  until_all_have_run(lo, hi, end);
}

static void combine_nothing(void *left, const void *right, void *arg) { (void)left, (void)right, (void)arg; }

static const char nothing;
static const struct coir_monoid monoid = {1, &nothing, sum_until_all_have_run, combine_nothing};

static void loops(struct coir_job *job, void *kind) {
  int64_t end = coir_now() + COIR_SEC(20);
  char sum;
  (void)job;
  if (kind) CHECK_EQ(coir_parallel_reduce(NULL, 0, (size_t)1 << 40, 0, &monoid, &end, &sum), 0);
  else CHECK_EQ(coir_parallel_range(NULL, 0, (size_t)1 << 40, 0, until_all_have_run, &end), 0);
}

/* One worker, which runs the loop, and `beside`. */
static void beside_loops(coir_job_fn beside) {
  for (intptr_t kind = 0; kind < 2; kind++) {
    jobs = make_jobs((struct coir_job_config){.threads = 1, .monitor = COIR_OFF});
    atomic_store(&times, 0);
    struct coir_counter *other = beside ? coir_job_run(jobs, beside, NULL) : NULL;
    struct coir_counter *loop = coir_job_run(jobs, loops, (void *)kind);
    while (!beside && atomic_load(&times) < TIMES) {
      struct coir_counter *high = coir_job_run_priority(jobs, COIR_PRIORITY_HIGH, counts, &times);
      finish(high);
    }
    finish(loop);
    if (other) finish(other);
    end_jobs(jobs, 0);
  }
}

static void naps(struct coir_job *job, void *arg) {
  (void)job, (void)arg;
  while (atomic_load(&times) < TIMES) {
    CHECK_EQ(coir_sleep(COIR_US(200)), 0);
    atomic_fetch_add(&times, 1);
  }
}

static void yields(struct coir_job *job, void *arg) {
  (void)arg;
  while (atomic_load(&times) < TIMES) {
    coir_job_yield(job);
    atomic_fetch_add(&times, 1);
  }
}

static int writes(void *fd) {
  char c = 0;
  while (atomic_load(&times) < TIMES) {
    if (write(*(int *)fd, &c, 1) != 1) break;
    (void)coir_sleep(COIR_MS(1));
  }
  return 0;
}

static void *writer(void *fd) { return (void *)(intptr_t)writes(fd); }

static void reads(struct coir_job *job, void *arg) {
  int fds[2];
  pthread_t thread;
  char c;
  (void)job, (void)arg;
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(pthread_create(&thread, NULL, writer, &fds[1]), 0);
  while (atomic_load(&times) < TIMES) {
    CHECK_EQ(coir_read(fds[0], &c, 1, COIR_NEVER), 1);
    atomic_fetch_add(&times, 1);
  }
  CHECK_EQ(pthread_join(thread, NULL), 0);
  close(fds[0]);
  close(fds[1]);
}

static void who_sleeps_is_woken(void) { beside_loops(naps); }
static void who_yields_goes_on(void) { beside_loops(yields); }
static void who_reads_is_told(void) { beside_loops(reads); }
static void high_priority_begins(void) { beside_loops(NULL); }

/* ---- And does not become many fibers by that --------------------------------------------------------------------- */

static _Atomic(uint64_t) most;

/* Each turn of its worker that the loop gave up was one more fiber, with a stack, for the half that it had on offer. */
static void look_now_and_then(size_t i, void *arg) {
  struct coir_stats stats;
  (void)arg;
  if (i % 65536) return;
  coir_runtime_get_stats(coir_job_system_runtime(jobs), &stats);
  if (stats.fibers_live > atomic_load(&most)) atomic_store(&most, stats.fibers_live);
}

static void long_loop(struct coir_job *job, void *arg) {
  (void)job;
  CHECK_EQ(coir_parallel_for(NULL, 0, (size_t)1 << (IS_SANITIZED ? 22 : 26), look_now_and_then, arg), 0);
  atomic_store(&times, TIMES);
}

static void naps_for_long(struct coir_job *job, void *arg) {
  (void)job, (void)arg;
  while (atomic_load(&times) < TIMES) CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
}

static void a_loop_remains_few_fibers(void) {
  jobs = make_jobs((struct coir_job_config){.threads = 2, .monitor = COIR_OFF});
  struct coir_counter *other = coir_job_run(jobs, naps_for_long, NULL);
  finish(coir_job_run(jobs, long_loop, NULL));
  finish(other);
  end_jobs(jobs, 0);
  CHECK(atomic_load(&most) < 200);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(who_sleeps_is_woken), CASE(who_yields_goes_on), CASE(who_reads_is_told),
                                     CASE(high_priority_begins), CASE(a_loop_remains_few_fibers)};
  return RUN_CASES(argc, argv, cases);
}
