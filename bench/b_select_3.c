/* select_3: three producers, each on an unbuffered channel of its own, and one consumer in a select over the three that
 * waits.
 *
 * Per operation: wall time / values received. */
#include "bench.h"

#define PRODUCERS 3
#define ITEMS_PER_PRODUCER 500000L

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
  long items = bench_count(b, ITEMS_PER_PRODUCER), value, sum = 0;
  struct flow flows[PRODUCERS];
  struct coir_arm arms[PRODUCERS];
  struct coir_fiber *producers[PRODUCERS];
  int64_t start_ns = coir_now();
  for (int i = 0; i < PRODUCERS; i++) {
    flows[i] = (struct flow){.chan = bench_chan(0), .items = items};
    arms[i] = coir_arm_recv(flows[i].chan, &value);
    producers[i] = bench_spawn(produce, &flows[i], NULL);
  }
  for (long i = 0; i < items * PRODUCERS; i++) {
    bench_check("coir_select", coir_select(arms, PRODUCERS, COIR_NEVER));
    sum += value;
  }
  values[0] = (double)(coir_now() - start_ns) / ((double)items * PRODUCERS);
  bench_equal("sum", sum, PRODUCERS * bench_sum(items));
  for (int i = 0; i < PRODUCERS; i++) {
    bench_join(producers[i]);
    coir_chan_unref(flows[i].chan);
  }
}

int main(int argc, char **argv) {
  struct bench b = {.question = "select_3", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
