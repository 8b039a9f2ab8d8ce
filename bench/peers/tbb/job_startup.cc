// job_startup: start the threads, run a loop on them, end them; as b_job_startup.c. Threads start when there is work
// for them, and the first one is the caller; so there is nothing to measure with one worker.
#define TBB_PREVIEW_WAITING_FOR_WORKERS 1
#include "bench.hpp"

static void once(int workers) {
  tbb::task_scheduler_handle scheduler{tbb::attach{}};
  long total = 0;
  tbb::parallel_for(0, workers, [&](int i) { __atomic_fetch_add(&total, i + 1, __ATOMIC_RELAXED); });
  peer_check("total", uint64_t(total), uint64_t(workers) * (workers + 1) / 2);
  tbb::finalize(scheduler);
}

static void run(const peer *p, double *values) {
  values[0] = NAN;
  if (p->workers == 1) return;
  Threads threads(p);
  long times = peer_count(p, 200);
  int64_t start = peer_now();
  for (long i = 0; i < times; i++) once(p->workers);
  values[0] = peer_each(start, times) / 1e6;
}

int main(int argc, char **argv) { return measure(argc, argv, "job_startup", {{"", "ms"}}, run); }
