// job_mg: each element with its two neighbours, over memory that does not fit into caches; as b_job_mg.c.
#include "bench.hpp"

static uint64_t sum_of(const double *v, size_t n) {
  return tbb::parallel_reduce(
      tbb::blocked_range<size_t>(0, n), uint64_t(0),
      [=](const auto &range, uint64_t sum) { return sum + mg_range(v, n, range.begin(), range.end()); }, std::plus<>());
}

static double measure_size(const peer *p, const double *v, long n) {
  long times = peer_times(p, 80000000, n);
  uint64_t expected = mg_range(v, n, 0, n);
  int64_t start = peer_now();
  for (long t = 0; t < times; t++) peer_check("sum", sum_of(v, n), expected);
  return peer_each(start, times * n);
}

static void run(const peer *p, double *values) {
  static std::vector<double> v;
  if (v.empty()) {
    v.resize(256 * 256 * 256);
    mg_fill(v.data(), v.size());
  }
  Threads threads(p);
  for (long side : {256, 128, 64}) *values++ = measure_size(p, v.data(), side * side * side);
}

int main(int argc, char **argv) {
  return measure(argc, argv, "job_mg", {{"", "ns"}, {"128", "ns"}, {"64", "ns"}}, run);
}
