// mutex_8: 8 fibers lock one fibers::mutex, count, and unlock it; as b_mutex_8.c.
#include "bench.hpp"

static constexpr long fiber_count = 8, pairs_per_fiber = 500000;

static Values run(const Bench &b) {
  long n = b.count(pairs_per_fiber), counter = 0;
  fibers::mutex mutex;
  Gate gate(fiber_count);
  std::vector<fibers::fiber> all;
  for (long i = 0; i < fiber_count; i++) {
    all.emplace_back([&] {
      gate.pass();
      for (long j = 0; j < n; j++) {
        std::unique_lock<fibers::mutex> lock(mutex);
        counter++;
      }
    });
  }
  Stopwatch watch = gate.open();
  for (auto &fiber : all) fiber.join();
  check("counter", counter, n * fiber_count);
  return {watch.each(n * fiber_count)};
}

int main(int argc, char **argv) { return Bench{"mutex_8", {{"", "ns"}}, run}.main(argc, argv); }
