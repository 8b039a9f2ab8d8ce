// spawn_join: start one fiber, wait until it has ended; as b_spawn_join.c. It runs at once (launch::dispatch), which is
// faster than to queue it.
#include "bench.hpp"

static constexpr long pairs = 1000000;

static Values run(const Bench &b) {
  long n = b.count(pairs);
  Stopwatch watch;
  for (long i = 0; i < n; i++) fibers::fiber(fibers::launch::dispatch, [] {}).join();
  return {watch.each(n)};
}

int main(int argc, char **argv) { return Bench{"spawn_join", {{"", "ns"}}, run}.main(argc, argv); }
