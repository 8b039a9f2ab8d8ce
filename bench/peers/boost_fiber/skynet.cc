// skynet: a tree of fibers down to 10^6 leaves whose numbers are summed up over channels; as b_skynet.c. Fibers run at
// once (launch::dispatch), on stacks of 16 KiB, and the channels have room for all children: without these it takes up
// to four times as long and ten times the memory.
#include <memory>

#include "bench.hpp"

static constexpr long children = 10, leaf_count = 1000000, slots = 16; // slots: a power of two

using Channel = fibers::buffered_channel<long>;

static void node(std::shared_ptr<Channel> to, long first, long leaves) {
  long sum = first;
  if (leaves > 1) {
    auto from = std::make_shared<Channel>(slots);
    fibers::fixedsize_stack small(16 * 1024);
    for (long i = 0; i < children; i++) {
      fibers::fiber(fibers::launch::dispatch, std::allocator_arg, small, node, from, first + i * (leaves / children),
                    leaves / children)
          .detach();
    }
    sum = 0;
    for (long i = 0; i < children; i++) sum += from->value_pop();
  }
  to->push(sum);
}

static Values run(const Bench &) {
  auto from = std::make_shared<Channel>(slots);
  Stopwatch watch;
  fibers::fiber(node, from, 0, leaf_count).detach();
  long sum = from->value_pop();
  double value = watch.each(leaf_count);
  check("sum", sum, leaf_count * (leaf_count - 1) / 2);
  return {value};
}

int main(int argc, char **argv) { return Bench{"skynet", {{"", "ns"}}, run, true}.main(argc, argv); }
