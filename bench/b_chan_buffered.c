/* chan_buffered: one producer sends to one consumer over a channel with room for 128 values.
 *
 * Per operation: wall time / values. */
#include "bench.h"

#define CAPACITY 128
#define ITEMS 5000000L

struct flow {
  struct coir_chan *chan;
  long items;
};

static int produce(void *arg) {
  const struct flow *flow = arg;
  for (long i = 1; i <= flow->items; i++) bench_send(flow->chan, i);
  return 0;
}

static void run(const struct bench *b, double *values) {
  struct flow flow = {.chan = bench_chan(CAPACITY), .items = bench_count(b, ITEMS)};
  long sum = 0;
  int64_t start_ns = coir_now();
  struct coir_fiber *producer = bench_spawn(produce, &flow, NULL);
  for (long i = 0; i < flow.items; i++) sum += bench_recv(flow.chan);
  values[0] = (double)(coir_now() - start_ns) / (double)flow.items;
  bench_equal("sum", sum, bench_sum(flow.items));
  bench_join(producer);
  coir_chan_unref(flow.chan);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "chan_buffered", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
