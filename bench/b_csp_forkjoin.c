/* csp_forkjoin: the sum of the numbers from 0 to 10^7, by goroutines of libcsp. Each has a range, halves it down to
 * single numbers, and has a goroutine for either half by csp_sync_all, which waits for both; they leave their sums in
 * its frame.
 *
 * All in all 2 * 10^7 + 1 goroutines. One process per run. With --quick 10^6 and 2 * 10^6 + 1.
 *
 * Per operation: wall time / goroutines. The second figure, "run", is the wall time of all of it, not with --quick; the
 * third, "peak", the greatest resident memory of the process. It tells the order in which goroutines are run: level by
 * level, 10^7 of them would wait at a time, each with a stack. */
#include <errno.h>
#include <math.h>
#include <sys/resource.h>

#include "csp_sched.h"
#include "goroutine.h"

#define LAST 10000000L
#define LAST_QUICK 1000000L
#define PEAK_MAX_MB 8000 /* more has no place on small machines: better this program ends than another */

/* The numbers from `first` to `last`. */
struct range {
  long first, last, sum;
};

static void sum_up(void *arg) {
  struct range *self = arg;
  if (self->first == self->last) {
    self->sum = self->first;
    return;
  }
  long middle = self->first + (self->last - self->first) / 2;
  struct range low = {.first = self->first, .last = middle}, high = {.first = middle + 1, .last = self->last};
  csp_sync_all((csp_call_t[]){{sum_up, &low}, {sum_up, &high}}, 2);
  self->sum = low.sum + high.sum;
}

struct task {
  long last;
  int64_t elapsed_ns;
};

static void measure(void *arg) {
  struct task *task = arg;
  struct range all = {.last = task->last};
  csp_call_t root = {sum_up, &all};
  long before = goroutines_started();
  int64_t start_ns = coir_now();
  csp_sync_all(&root, 1);
  task->elapsed_ns = coir_now() - start_ns;
  bench_equal("sum", all.sum, bench_sum(task->last));
  bench_equal("goroutines started", goroutines_started() - before, 2 * task->last + 1);
}

static double peak_mb(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)usage.ru_maxrss * 1024 / 1e6;
}

/* A fiber of the default runtime: looks after the memory until `is_over`. */
static int watch(void *is_over) {
  while (coir_event_wait(is_over, coir_after(COIR_MS(50))) == -ETIMEDOUT) {
    if (peak_mb() > PEAK_MAX_MB) bench_die("more than %d MB are in use", PEAK_MAX_MB);
  }
  return 0;
}

static void run(const struct bench *b, double *values) {
  struct task task = {.last = b->quick ? LAST_QUICK : LAST};
  struct coir_event is_over = {{0}};
  struct coir_fiber *watcher = bench_spawn(watch, &is_over, NULL);
  goroutines_start(b);
  goroutine_run(measure, &task);
  coir_event_set(&is_over);
  bench_join(watcher);
  values[0] = (double)task.elapsed_ns / (double)(2 * task.last + 1);
  values[1] = b->quick ? NAN : (double)task.elapsed_ns / 1e9;
  values[2] = peak_mb();
}

int main(int argc, char **argv) {
  struct bench b = {.question = "csp_forkjoin",
                    .metrics = {{NULL, "ns", "lower"}, {"run", "s", "lower"}, {"peak", "MB", "lower"}},
                    .run = run,
                    .is_fresh = true};
  return bench_main(argc, argv, &b);
}
