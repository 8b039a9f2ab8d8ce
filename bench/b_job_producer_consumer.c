/* job_producer_consumer: jobs, half as many as workers, but at least one, put 10^4 to 5 * 10^5 numbers into a queue
 * without bounds; as many take them out, until all are, and give their thread away with sched_yield when there is
 * none. The queue is a channel that has room for all.
 *
 * Per operation: wall time / numbers. On one worker the producer comes first: jobs from outside run in their order. */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

#include "jobs.h"

#define PAIRS_MAX 32

struct exchange {
  struct coir_chan *queue;
  long items;
  _Atomic(long) consumed, sum;
};

struct share {
  struct exchange *exchange;
  long from, to;
};

static void produce(struct coir_job *job, void *arg) {
  (void)job;
  const struct share *share = arg;
  for (long i = share->from; i < share->to; i++) {
    int rc = coir_chan_send(share->exchange->queue, &i, 0);
    if (rc < 0) bench_die("coir_chan_send: %s", strerror(-rc));
  }
}

static void consume(struct coir_job *job, void *arg) {
  (void)job;
  struct exchange *exchange = arg;
  long item;
  while (atomic_load_explicit(&exchange->consumed, memory_order_relaxed) < exchange->items) {
    int rc = coir_chan_recv(exchange->queue, &item, 0);
    if (rc == -ETIMEDOUT) {
      sched_yield();
      continue;
    }
    if (rc < 0) bench_die("coir_chan_recv: %s", strerror(-rc));
    atomic_fetch_add_explicit(&exchange->sum, item, memory_order_relaxed);
    atomic_fetch_add_explicit(&exchange->consumed, 1, memory_order_relaxed);
  }
}

static void exchange_all(struct coir_job_system *jobs, struct coir_chan *queue, int pairs, long items) {
  struct exchange exchange = {.queue = queue, .items = items};
  struct share shares[PAIRS_MAX];
  struct coir_job_desc descs[2 * PAIRS_MAX];
  for (int i = 0; i < pairs; i++) {
    long share = items / pairs;
    shares[i] = (struct share){&exchange, i * share, i + 1 == pairs ? items : (i + 1) * share};
    descs[i] = (struct coir_job_desc){.fn = produce, .arg = &shares[i]};
    descs[pairs + i] = (struct coir_job_desc){.fn = consume, .arg = &exchange};
  }
  bench_finish(coir_job_run_many(jobs, descs, 2 * pairs));
  bench_equal("sum", exchange.sum, bench_sum(items - 1));
}

static double measure(const struct bench *b, struct coir_job_system *jobs, long items) {
  struct coir_chan *queue = bench_chan(items);
  long times = bench_times(b, 1000000, items);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) exchange_all(jobs, queue, b->workers > 1 ? b->workers / 2 : 1, items);
  double value = bench_each(start_ns, times * items);
  coir_chan_unref(queue);
  return value;
}

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  if (!jobs) jobs = bench_jobs(b, NULL);
  values[0] = measure(b, jobs, 500000);
  values[1] = measure(b, jobs, 100000);
  values[2] = measure(b, jobs, 10000);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_producer_consumer",
                    .metrics = {{NULL, "ns", "lower"}, {"100k", "ns", "lower"}, {"10k", "ns", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
