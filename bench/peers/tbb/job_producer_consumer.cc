// job_producer_consumer: tasks that put numbers into a queue without bounds, and tasks that take them out; as
// b_job_producer_consumer.c. Producers are started last: a thread takes its own newest task first.
#include "bench.hpp"

#include <atomic>
#include <thread>

struct Exchange {
  tbb::concurrent_queue<long> queue;
  std::atomic<long> consumed{0}, sum{0};
  long items;
};

static void consume(Exchange &exchange) {
  while (exchange.consumed.load(std::memory_order_relaxed) < exchange.items) {
    long item = 0;
    if (!exchange.queue.try_pop(item)) {
      std::this_thread::yield();
      continue;
    }
    exchange.sum.fetch_add(item, std::memory_order_relaxed);
    exchange.consumed.fetch_add(1, std::memory_order_relaxed);
  }
}

static void once(const peer *p, long items) {
  long each_side = std::max(1, p->workers / 2), share = items / each_side;
  Exchange exchange;
  exchange.items = items;
  tbb::task_group group;
  for (long i = 0; i < each_side; i++) group.run([&] { consume(exchange); });
  for (long i = 0; i < each_side; i++) {
    long to = i + 1 == each_side ? items : (i + 1) * share;
    group.run([&exchange, from = i * share, to] {
      for (long item = from; item < to; item++) exchange.queue.push(item);
    });
  }
  group.wait();
  peer_check("sum", uint64_t(exchange.sum), uint64_t(items * (items - 1) / 2));
}

static double measure_items(const peer *p, long items) {
  long times = peer_times(p, 1000000, items);
  int64_t start = peer_now();
  for (long t = 0; t < times; t++) once(p, items);
  return peer_each(start, times * items);
}

static void run(const peer *p, double *values) {
  Threads threads(p);
  for (long items : {500000, 100000, 10000}) *values++ = measure_items(p, items);
}

int main(int argc, char **argv) {
  return measure(argc, argv, "job_producer_consumer", {{"", "ns"}, {"100k", "ns"}, {"10k", "ns"}}, run);
}
