// yield_2, yield_1000: this_fiber::yield among --fibers fibers per worker; as b_yield.c.
#include "bench.hpp"

static constexpr long yields_per_worker = 5000000;

static Values run(const Bench &b) {
  long count = b.fibers * b.workers, yields = b.count(yields_per_worker) / b.fibers;
  Gate gate(count);
  std::vector<fibers::fiber> all;
  for (long i = 0; i < count; i++) {
    all.emplace_back([&] {
      gate.pass();
      for (long j = 0; j < yields; j++) boost::this_fiber::yield();
    });
  }
  Stopwatch watch = gate.open();
  for (auto &fiber : all) fiber.join();
  return {watch.each(count * yields) * b.workers};
}

int main(int argc, char **argv) {
  Bench b{"yield_", {{"", "ns"}}, run, true};
  b.fibers = 2;
  return b.main(argc, argv);
}
