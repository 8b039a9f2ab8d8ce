// chan_buffered: one producer, one consumer, a channel of 128 slots, one of which Boost keeps empty; as
// b_chan_buffered.c.
#include "bench.hpp"

static constexpr long capacity = 128, items = 2000000;

static Values run(const Bench &b) {
  fibers::buffered_channel<long> channel(capacity);
  long n = b.count(items), sum = 0;
  Stopwatch watch;
  fibers::fiber producer([&] {
    for (long i = 1; i <= n; i++) channel.push(i);
  });
  for (long i = 0; i < n; i++) sum += channel.value_pop();
  double value = watch.each(n);
  check("sum", sum, n * (n + 1) / 2);
  producer.join();
  return {value};
}

int main(int argc, char **argv) { return Bench{"chan_buffered", {{"", "ns"}}, run}.main(argc, argv); }
