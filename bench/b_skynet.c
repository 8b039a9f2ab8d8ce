/* skynet: a tree of fibers, ten below each, down to 10^6 leaves, and the sum of the leaves' numbers comes up again.
 *
 * Every fiber that is no leaf makes an unbuffered channel, spawns its ten children, receives their sums and sends its
 * own up. The children are spawned depth first, as fork-join work should be, so few fibers have stacks at a time.
 * --quick does not make it smaller.
 *
 * Per operation: wall time / leaves. All in all 1.11 fibers and 0.11 channels. */
#include "bench.h"

#define CHILDREN 10
#define LEAVES 1000000L

struct node {
  struct coir_chan *to; /* the parent's, which gives it up when it has received all */
  long first, leaves;   /* its leaves have the numbers [first, first + leaves) */
};

static int node(void *arg);

static long sum_of_children(const struct node *self) {
  static const struct coir_attr depth_first = {.order = COIR_ORDER_LIFO};
  struct coir_chan *from = bench_chan(0);
  struct node children[CHILDREN]; /* what they know; each has copied it before its sum arrives */
  long leaves = self->leaves / CHILDREN, sum = 0;
  for (int i = 0; i < CHILDREN; i++) {
    children[i] = (struct node){.to = from, .first = self->first + i * leaves, .leaves = leaves};
    bench_check("coir_spawn", coir_spawn(node, &children[i], &depth_first, NULL));
  }
  for (int i = 0; i < CHILDREN; i++) sum += bench_recv(from);
  coir_chan_unref(from);
  return sum;
}

static int node(void *arg) {
  struct node self = *(const struct node *)arg;
  bench_send(self.to, self.leaves > 1 ? sum_of_children(&self) : self.first);
  return 0;
}

static void run(const struct bench *b, double *values) {
  (void)b;
  struct coir_chan *from = bench_chan(0);
  struct node root = {.to = from, .first = 0, .leaves = LEAVES};
  int64_t start_ns = coir_now();
  bench_check("coir_go", coir_go(node, &root));
  long sum = bench_recv(from);
  values[0] = (double)(coir_now() - start_ns) / (double)LEAVES;
  bench_equal("sum", sum, bench_sum(LEAVES - 1));
  coir_chan_unref(from);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "skynet", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
