/* job_latency: how soon jobs begin.
 *
 * Alone: from outside, after a pause of 2 ms in which everybody falls asleep, one job is submitted, and takes the time.
 * Figures, in us: the median, and the 99th percentile, "p99".
 *
 * In batches: a job spawns 100 to 10^6 jobs, and each takes the time since before the first was spawned, which it adds
 * to one of as many shards as there are workers. Figures: wall time / jobs, in ns, and how long after the start they
 * began on average, in batches of 100 000, "mean 100k", in us. */
#include <stdatomic.h>
#include <stdlib.h>

#include "jobs.h"

#define SHARDS_MAX 64
#define SAMPLES 200
#define PAUSE_NS COIR_MS(2)
#define MEAN_BATCH 3 /* 100 * 10^3 */

struct batch {
  int64_t start_ns;
  long jobs;
  uint64_t shard_count;
  struct coir_counter counter;
  struct {
    _Alignas(64) _Atomic(uint64_t) sum;
    _Atomic(uint64_t) count;
  } shards[SHARDS_MAX];
};

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void take_time(struct coir_job *job, void *arg) {
  (void)job;
  *(int64_t *)arg = coir_now();
}

/* `values`: the median and the 99th percentile. */
static void measure_cold(const struct bench *b, struct coir_job_system *jobs, double *values) {
  double us[SAMPLES];
  long samples = bench_count(b, SAMPLES);
  for (long i = 0; i < samples; i++) {
    int64_t began_ns = 0;
    coir_sleep(PAUSE_NS);
    int64_t start_ns = coir_now();
    bench_job(jobs, take_time, &began_ns);
    us[i] = (double)(began_ns - start_ns) / 1e3;
  }
  qsort(us, samples, sizeof us[0], compare);
  values[0] = us[samples / 2];
  values[1] = us[samples * 99 / 100];
}

static void note(struct coir_job *job, void *arg) {
  (void)job;
  struct batch *batch = arg;
  uint64_t latency = coir_now() - batch->start_ns, shard = latency % batch->shard_count;
  atomic_fetch_add_explicit(&batch->shards[shard].sum, latency, memory_order_relaxed);
  atomic_fetch_add_explicit(&batch->shards[shard].count, 1, memory_order_relaxed);
}

static void spawn_batch(struct coir_job *job, void *arg) {
  struct batch *batch = arg;
  batch->start_ns = coir_now();
  for (long i = 0; i < batch->jobs; i++) {
    int rc = coir_job_spawn_with(job, &batch->counter, note, batch);
    if (rc < 0) bench_die("coir_job_spawn_with: %s", strerror(-rc));
  }
}

/* Returns wall time per job; `mean`: of the latencies, in us. */
static double measure_batch(const struct bench *b, struct coir_job_system *jobs, long size, double *mean) {
  struct batch batch = {.jobs = size, .shard_count = b->workers};
  long times = bench_times(b, 1000000, size);
  if (times > 1000) times = 1000;
  coir_counter_init(&batch.counter, 0);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) {
    bench_job(jobs, spawn_batch, &batch);
    bench_equal("coir_counter_wait", coir_counter_wait(&batch.counter, COIR_NEVER), 0);
  }
  double value = bench_each(start_ns, times * size), sum = 0;
  long count = 0;
  for (int i = 0; i < b->workers; i++) {
    sum += (double)batch.shards[i].sum;
    count += (long)batch.shards[i].count;
  }
  bench_equal("jobs", count, times * size);
  *mean = sum / (double)count / 1e3;
  return value;
}

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  double means[5];
  if (!jobs) jobs = bench_jobs(b, NULL);
  measure_cold(b, jobs, values);
  for (long i = 0, size = 100; i < 5; i++, size *= 10) values[2 + i] = measure_batch(b, jobs, size, &means[i]);
  values[7] = means[MEAN_BATCH];
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_latency",
                    .metrics = {{NULL, "us", "lower"},
                                {"p99", "us", "lower"},
                                {"batch 100", "ns", "lower"},
                                {"batch 1k", "ns", "lower"},
                                {"batch 10k", "ns", "lower"},
                                {"batch 100k", "ns", "lower"},
                                {"batch 1m", "ns", "lower"},
                                {"mean 100k", "us", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
