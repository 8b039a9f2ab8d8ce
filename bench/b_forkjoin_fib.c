/* forkjoin_fib: fib(27) by its definition, each call a coir_fork2 of two.
 *
 * Per operation: wall time / calls of fib. The whole tree is one job, and is waited for from outside. */
#include "job_work.h"
#include "jobs.h"

struct call {
  long n, value;
};

static void fib(void *arg) {
  struct call *call = arg;
  if (call->n < 2) {
    call->value = call->n;
    return;
  }
  struct call a = {.n = call->n - 1}, b = {.n = call->n - 2};
  coir_fork2(fib, &a, fib, &b);
  call->value = a.value + b.value;
}

static void root(struct coir_job *job, void *arg) {
  (void)job;
  fib(arg);
}

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  if (!jobs) jobs = bench_jobs(b, NULL);
  long times = bench_count(b, 50);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) {
    struct call call = {.n = FIB_N};
    bench_job(jobs, root, &call);
    bench_equal("fib", call.value, FIB_OF_N);
  }
  values[0] = bench_each(start_ns, times * FIB_CALLS);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "forkjoin_fib", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
