/* csp_select: select_3 by libcsp: three producers, each on an unbuffered channel of its own, and one consumer in a
 * csp_select over the three that waits.
 *
 * Per operation: wall time / values received. */
#include "goroutine.h"

#define PRODUCERS 3
#define ITEMS_PER_PRODUCER 500000L

struct flow {
  csp_gochan_t *chan;
  long items;
};

struct task {
  long items; /* of each producer */
  int64_t elapsed_ns;
};

static void produce(void *arg) {
  struct flow flow = *(const struct flow *)arg; /* the consumer may end as soon as it has the last */
  for (long i = 1; i <= flow.items; i++) goroutine_send(flow.chan, i);
}

static void consume(void *arg) {
  struct task *task = arg;
  struct flow flows[PRODUCERS];
  csp_select_case_t cases[PRODUCERS];
  void *value = NULL;
  long sum = 0;
  int64_t start_ns = coir_now();
  for (int i = 0; i < PRODUCERS; i++) {
    flows[i] = (struct flow){.chan = goroutine_chan(0), .items = task->items};
    cases[i] = (csp_select_case_t){.ch = flows[i].chan, .op = CSP_RECV, .val = &value};
    goroutine_create(produce, &flows[i]);
  }
  for (long i = 0; i < task->items * PRODUCERS; i++) {
    if (csp_select(cases, PRODUCERS) < 0) bench_die("csp_select failed");
    sum += (long)value;
  }
  task->elapsed_ns = coir_now() - start_ns;
  bench_equal("sum", sum, PRODUCERS * bench_sum(task->items));
  for (int i = 0; i < PRODUCERS; i++) csp_gochan_free(flows[i].chan);
}

static void run(const struct bench *b, double *values) {
  struct task task = {.items = bench_count(b, ITEMS_PER_PRODUCER)};
  goroutines_start(b);
  goroutine_run(consume, &task);
  values[0] = (double)task.elapsed_ns / ((double)task.items * PRODUCERS);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "csp_select", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
