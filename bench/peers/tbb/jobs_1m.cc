// jobs_1m: one thread starts 10^6 tasks that do next to nothing, and waits for them; as b_jobs_1m.c.
#include "bench.hpp"

static constexpr long jobs = 1000000;

static void run(const peer *p, double *values) {
  Threads threads(p);
  std::vector<unsigned char> slots(jobs, 1);
  int64_t start = peer_now();
  tbb::task_group group;
  for (auto &slot : slots) group.run([&slot] { slot++; });
  group.wait();
  values[0] = peer_each(start, jobs);
  uint64_t sum = 0;
  for (auto slot : slots) sum += slot;
  peer_check("slots", sum, 2 * jobs);
}

int main(int argc, char **argv) { return measure(argc, argv, "jobs_1m", {{"", "ns"}}, run); }
