/* job_switch: what it takes to get from one job to another, on one worker.
 *
 * Figures: two jobs yield to each other; wall time / yields, in ns. "resume": a generator with a stack of 128 KiB,
 * resumed with a function that does nothing, which it calls and yields: two switches, in ns; "resume 42": with one that
 * returns a number. "run": submit an empty job from outside and wait for it, one after the other, in us. "raw" and
 * "raw 42": the same with a raw fiber, which calls the function and is free again; "raw yield": which yields in it. */
#include <math.h>
#include <stdatomic.h>

#include "jobs.h"

#define YIELDS 5000000L
#define RESUMES 5000000L
#define RUNS 10000L
#define STACK_BYTES (128 << 10)

struct race {
  _Atomic(int) arrived, left;
  long yields; /* of each job */
  int64_t start_ns, end_ns;
};

static void racer(struct coir_job *job, void *arg) {
  struct race *race = arg;
  atomic_fetch_add(&race->arrived, 1);
  while (atomic_load(&race->arrived) < 2) coir_job_yield(job);
  if (!race->start_ns) race->start_ns = coir_now();
  for (long i = race->yields; i > 0; i--) coir_job_yield(job);
  if (atomic_fetch_sub(&race->left, 1) == 1) race->end_ns = coir_now();
}

static double measure_yield(const struct bench *b, struct coir_job_system *jobs) {
  struct race race = {.left = 2, .yields = bench_count(b, YIELDS)};
  struct coir_job_desc both[2] = {{.fn = racer, .arg = &race}, {.fn = racer, .arg = &race}};
  bench_finish(coir_job_run_many(jobs, both, 2));
  return (double)(race.end_ns - race.start_ns) / (2 * (double)race.yields);
}

typedef void *(*work_fn)(void);
static void *no_work(void) { return NULL; }
static void *answer(void) { return (void *)42; }

/* Runs what it is resumed with, until that is NULL. */
static int worker(void *arg) {
  (void)arg;
  void *work = (void *)no_work;
  while (work) bench_check("coir_gen_yield", coir_gen_yield(((work_fn)work)(), &work));
  return 0;
}

static double measure_resume(const struct bench *b, work_fn work, long result) {
  static const struct coir_attr attr = {.stack_bytes = STACK_BYTES};
  long resumes = bench_count(b, RESUMES), sum = 0;
  struct coir_gen *gen;
  void *out;
  bench_check("coir_gen_create", coir_gen_create(&gen, worker, NULL, &attr));
  bench_check("coir_gen_resume", coir_gen_resume(gen, NULL, &out)); /* so that it has its stack */
  int64_t start_ns = coir_now();
  for (long i = 0; i < resumes; i++) {
    int rc = coir_gen_resume(gen, (void *)work, &out);
    if (rc != 0) bench_die("coir_gen_resume: %d", rc);
    sum += (long)out;
  }
  double value = bench_each(start_ns, resumes);
  bench_equal("sum", sum, result * resumes);
  bench_equal("coir_gen_resume", coir_gen_resume(gen, NULL, &out), 1);
  bench_check("coir_gen_destroy", coir_gen_destroy(gen));
  return value;
}

/* Resumes a raw fiber with `work`. */
struct raw_task {
  coir_task_fn work;
  long resumes, sum;
  double ns; /* of each */
};

static void raw_nothing(void *sum) { (void)sum; }
static void raw_answer(void *sum) { *(long *)sum += 42; }
static void raw_yields(void *sum) {
  for (;;) {
    ++*(long *)sum;
    coir_raw_fiber_yield();
  }
}

static void raw_resume(struct coir_job *job, void *arg) {
  struct raw_task *task = arg;
  int expected = task->work == raw_yields ? COIR_RAW_YIELDED : COIR_RAW_COMPLETE;
  struct coir_raw_fiber *raw;
  long unused = 0;
  (void)job;
  bench_check("coir_raw_fiber_create", coir_raw_fiber_create(&raw, STACK_BYTES));
  bench_check("coir_raw_fiber_resume", coir_raw_fiber_resume(raw, raw_nothing, &unused)); /* so that it has begun */
  int64_t start_ns = coir_now();
  for (long i = task->resumes; i > 0; i--) {
    int rc = coir_raw_fiber_resume(raw, task->work, &task->sum);
    if (rc != expected) bench_die("coir_raw_fiber_resume: %d", rc);
  }
  task->ns = bench_each(start_ns, task->resumes);
  coir_raw_fiber_destroy(raw);
}

static double measure_raw(const struct bench *b, struct coir_job_system *jobs, coir_task_fn work, long step) {
  struct raw_task task = {.work = work, .resumes = bench_count(b, RESUMES)};
  bench_job(jobs, raw_resume, &task);
  bench_equal("sum", task.sum, step * task.resumes);
  return task.ns;
}

static void count(struct coir_job *job, void *arg) {
  (void)job;
  ++*(long *)arg;
}

static double measure_run(const struct bench *b, struct coir_job_system *jobs) {
  long runs = bench_count(b, RUNS), ran = 0;
  int64_t start_ns = coir_now();
  for (long i = 0; i < runs; i++) bench_job(jobs, count, &ran);
  double value = bench_each(start_ns, runs) / 1e3;
  bench_equal("jobs", ran, runs);
  return value;
}

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  for (int i = 0; i < 7; i++) values[i] = NAN;
  if (b->workers > 1) return; /* the others would take one of the two */
  if (!jobs) jobs = bench_jobs(b, NULL);
  values[0] = measure_yield(b, jobs);
  values[1] = measure_resume(b, no_work, 0);
  values[2] = measure_resume(b, answer, 42);
  values[3] = measure_run(b, jobs);
  values[4] = measure_raw(b, jobs, raw_nothing, 0);
  values[5] = measure_raw(b, jobs, raw_answer, 42);
  values[6] = measure_raw(b, jobs, raw_yields, 1);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_switch",
                    .metrics = {{NULL, "ns", "lower"},
                                {"resume", "ns", "lower"},
                                {"resume 42", "ns", "lower"},
                                {"run", "us", "lower"},
                                {"raw", "ns", "lower"},
                                {"raw 42", "ns", "lower"},
                                {"raw yield", "ns", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
