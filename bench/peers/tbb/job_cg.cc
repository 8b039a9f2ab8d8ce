// job_cg: for each element the sum of five, added to one number that all share; as b_job_cg.c.
#include "bench.hpp"

static double measure_size(const peer *p, long n) {
  std::vector<double> v(n, 1.0);
  long times = peer_times(p, 5000000, n);
  int64_t start = peer_now();
  for (long t = 0; t < times; t++) {
    long total = 0;
    tbb::parallel_for(tbb::blocked_range<size_t>(0, n),
                      [&](const auto &range) { cg_range(v.data(), n, range.begin(), range.end(), &total); });
    peer_check("total", uint64_t(total), uint64_t(5 * n - 10));
  }
  return peer_each(start, times * n);
}

static void run(const peer *p, double *values) {
  Threads threads(p);
  for (long n : {100000, 10000, 1000}) *values++ = measure_size(p, n);
}

int main(int argc, char **argv) {
  return measure(argc, argv, "job_cg", {{"", "ns"}, {"10k", "ns"}, {"1k", "ns"}}, run);
}
