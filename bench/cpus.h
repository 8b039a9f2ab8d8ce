/* Puts threads on processors, for questions that are about crossing from one to another. Needs _GNU_SOURCE. */
#ifndef BENCH_CPUS_H
#define BENCH_CPUS_H

#include <sched.h>

/* The calling thread stays on the `n`-th of the first `count` processors, from 0, that this process may use (n < 0: on
 * any of these). With fewer processors it stays where it is. */
static inline void stay_on_cpu(int n, int count) {
  cpu_set_t all, mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE && seen < count; cpu++) {
    if (!CPU_ISSET(cpu, &all)) continue;
    if (n < 0 || n == seen) CPU_SET(cpu, &mine);
    seen++;
  }
  if (CPU_COUNT(&mine) > 0) sched_setaffinity(0, sizeof mine, &mine);
}

#endif
