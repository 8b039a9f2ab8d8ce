// job_ep: a sine and a cosine for each element, "embarrassingly parallel"; as b_job_ep.c.
#include "bench.hpp"

static uint64_t sum_of(size_t n) {
  return tbb::parallel_reduce(
      tbb::blocked_range<size_t>(0, n), uint64_t(0),
      [](const auto &range, uint64_t sum) { return sum + ep_range(range.begin(), range.end()); }, std::plus<>());
}

static double measure_size(const peer *p, long n) {
  long times = peer_times(p, 3000000, n);
  uint64_t expected = ep_range(0, n);
  int64_t start = peer_now();
  for (long t = 0; t < times; t++) peer_check("sum", sum_of(n), expected);
  return peer_each(start, times * n);
}

static void run(const peer *p, double *values) {
  Threads threads(p);
  for (long n : {1000000, 100000, 10000}) *values++ = measure_size(p, n);
}

int main(int argc, char **argv) {
  return measure(argc, argv, "job_ep", {{"", "ns"}, {"100k", "ns"}, {"10k", "ns"}}, run);
}
