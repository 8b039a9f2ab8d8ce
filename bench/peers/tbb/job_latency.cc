// job_latency: how soon tasks begin, alone after a pause, and in batches from one; as b_job_latency.c.
#include "bench.hpp"

#include <atomic>
#include <future>
#include <thread>

struct alignas(64) Shard {
  std::atomic<uint64_t> sum{0}, count{0};
};

// Handed to other threads than this one, which sleeps.
static void measure_cold(const peer *p, double *values) {
  tbb::task_arena arena(std::max(1, p->workers - 1), 0);
  std::vector<double> us(peer_count(p, 200));
  for (double &latency : us) {
    std::promise<int64_t> began;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    int64_t start = peer_now();
    arena.enqueue([&] { began.set_value(peer_now()); });
    latency = double(began.get_future().get() - start) / 1e3;
  }
  values[0] = peer_quantile(us.data(), long(us.size()), 0.5);
  values[1] = peer_quantile(us.data(), long(us.size()), 0.99);
}

static void once(std::vector<Shard> &shards, long jobs) {
  int64_t start = peer_now();
  tbb::task_group group;
  for (long i = 0; i < jobs; i++) {
    group.run([&shards, start] {
      uint64_t latency = uint64_t(peer_now() - start);
      Shard &shard = shards[latency % shards.size()];
      shard.sum.fetch_add(latency, std::memory_order_relaxed);
      shard.count.fetch_add(1, std::memory_order_relaxed);
    });
  }
  group.wait();
}

// Wall time for each task, in ns; `mean`: how long after the start of their batch they began on average, in us.
static double measure_batches(const peer *p, long jobs, double *mean) {
  long times = std::min(1000L, peer_times(p, 1000000, jobs));
  std::vector<Shard> shards(p->workers);
  int64_t start = peer_now();
  for (long t = 0; t < times; t++) once(shards, jobs);
  double value = peer_each(start, times * jobs);
  uint64_t sum = 0, count = 0;
  for (auto &shard : shards) sum += shard.sum, count += shard.count;
  peer_check("tasks", count, uint64_t(times * jobs));
  *mean = double(sum) / double(count) / 1e3;
  return value;
}

static void run(const peer *p, double *values) {
  Threads threads(p);
  double means[5];
  measure_cold(p, values);
  for (long i = 0, jobs = 100; i < 5; i++, jobs *= 10) values[2 + i] = measure_batches(p, jobs, &means[i]);
  values[7] = means[3];
}

int main(int argc, char **argv) {
  return measure(argc, argv, "job_latency",
                 {{"", "us"},
                  {"p99", "us"},
                  {"batch 100", "ns"},
                  {"batch 1k", "ns"},
                  {"batch 10k", "ns"},
                  {"batch 100k", "ns"},
                  {"batch 1m", "ns"},
                  {"mean 100k", "us"}},
                 run);
}
