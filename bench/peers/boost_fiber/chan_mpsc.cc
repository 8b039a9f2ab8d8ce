// chan_mpsc: 8 producers, one consumer, one channel, of 128 slots and unbuffered; as b_chan_mpsc.c.
#include "bench.hpp"

static constexpr long capacity = 128, producers = 8, items_per_producer = 250000;

template <class Channel> static double pass(long n, Channel &channel) {
  std::vector<fibers::fiber> all;
  long sum = 0;
  Stopwatch watch;
  for (long i = 0; i < producers; i++) {
    all.emplace_back([&] {
      for (long j = 1; j <= n; j++) channel.push(j);
    });
  }
  for (long i = 0; i < n * producers; i++) sum += channel.value_pop();
  double value = watch.each(n * producers);
  check("sum", sum, producers * (n * (n + 1) / 2));
  for (auto &fiber : all) fiber.join();
  return value;
}

static Values run(const Bench &b) {
  fibers::buffered_channel<long> buffered(capacity);
  fibers::unbuffered_channel<long> unbuffered;
  long n = b.count(items_per_producer);
  double value = pass(n, buffered);
  return {value, pass(n, unbuffered)};
}

int main(int argc, char **argv) { return Bench{"chan_mpsc", {{"", "ns"}, {"unbuffered", "ns"}}, run}.main(argc, argv); }
