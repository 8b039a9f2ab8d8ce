/* job_switch: what it takes to get from one job to another, on one worker.
 *
 * Figures: two jobs yield to each other; wall time / yields, in ns. "resume": a fiber with a stack of 128 KiB, resumed
 * with a function that does nothing, which it calls and yields: two switches, in ns; "resume 42": with one that returns
 * a number. "run": submit an empty job from outside and wait for it, one after the other, in us. */
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
  for (int i = 0; i < 4; i++) values[i] = NAN;
  if (b->workers > 1) return; /* the others would take one of the two */
  if (!jobs) jobs = bench_jobs(b, NULL);
  values[0] = measure_yield(b, jobs);
  values[1] = measure_resume(b, no_work, 0);
  values[2] = measure_resume(b, answer, 42);
  values[3] = measure_run(b, jobs);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_switch",
                    .metrics = {{NULL, "ns", "lower"},
                                {"resume", "ns", "lower"},
                                {"resume 42", "ns", "lower"},
                                {"run", "us", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
