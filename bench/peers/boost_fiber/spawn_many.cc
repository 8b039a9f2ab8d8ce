// spawn_many: start 500 000 fibers that do nothing, then wait for all of them; as b_spawn_many.c. Each runs at once
// (launch::dispatch): queued, they would all have stacks at the same time, which takes twenty times as long.
#include "bench.hpp"

static constexpr long fiber_count = 500000;

static Values run(const Bench &) {
  std::atomic<long> left{fiber_count};
  fibers::promise<void> ended;
  Stopwatch watch;
  for (long i = 0; i < fiber_count; i++) {
    fibers::fiber(fibers::launch::dispatch, [&] {
      if (--left == 0) ended.set_value();
    }).detach();
  }
  ended.get_future().wait();
  return {watch.each(fiber_count)};
}

int main(int argc, char **argv) { return Bench{"spawn_many", {{"", "ns"}}, run}.main(argc, argv); }
