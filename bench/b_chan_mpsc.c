/* chan_mpsc: 8 producers send to one consumer over one channel.
 *
 * The main figure is with room for 128 values in the channel, the second one, "unbuffered", without any.
 *
 * Per operation: wall time / values. */
#include "bench.h"

#define CAPACITY 128
#define PRODUCERS 8
#define ITEMS_PER_PRODUCER 500000L

struct flow {
  struct coir_chan *chan;
  long items; /* of each producer */
};

static int produce(void *arg) {
  const struct flow *flow = arg;
  for (long i = 1; i <= flow->items; i++) bench_send(flow->chan, i);
  return 0;
}

static double pass(long items, size_t capacity) {
  struct flow flow = {.chan = bench_chan(capacity), .items = items};
  struct coir_fiber *producers[PRODUCERS];
  long sum = 0;
  int64_t start_ns = coir_now();
  for (int i = 0; i < PRODUCERS; i++) producers[i] = bench_spawn(produce, &flow, NULL);
  for (long i = 0; i < items * PRODUCERS; i++) sum += bench_recv(flow.chan);
  double elapsed_ns = (double)(coir_now() - start_ns);
  bench_equal("sum", sum, PRODUCERS * bench_sum(items));
  for (int i = 0; i < PRODUCERS; i++) bench_join(producers[i]);
  coir_chan_unref(flow.chan);
  return elapsed_ns / ((double)items * PRODUCERS);
}

static void run(const struct bench *b, double *values) {
  long items = bench_count(b, ITEMS_PER_PRODUCER);
  values[0] = pass(items, CAPACITY);
  values[1] = pass(items, 0);
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "chan_mpsc", .metrics = {{NULL, "ns", "lower"}, {"unbuffered", "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
