// work_stealing: tasks of which each tenth is a hundred times longer than the others; as b_work_stealing.c.
#include "bench.hpp"

static double measure_jobs(const peer *p, long jobs) {
  std::vector<uint64_t> results(jobs);
  long times = peer_times(p, 500000, jobs);
  int64_t start = peer_now();
  for (long t = 0; t < times; t++) {
    tbb::task_group group;
    for (long i = 0; i < jobs; i++) group.run([&results, i] { results[i] = steal_job(i); });
    group.wait();
  }
  double value = peer_each(start, times * jobs);
  uint64_t sum = 0, expected = 0;
  for (long i = 0; i < jobs; i++) sum += results[i], expected += steal_job(i);
  peer_check("sum", sum, expected);
  return value;
}

static void run(const peer *p, double *values) {
  Threads threads(p);
  for (long jobs : {100000, 10000, 1000}) *values++ = measure_jobs(p, jobs);
}

int main(int argc, char **argv) {
  return measure(argc, argv, "work_stealing", {{"", "ns"}, {"10k", "ns"}, {"1k", "ns"}}, run);
}
