/* Fibers that compute until they are told to stop, and what the tests of preemption look at. */
#ifndef COIR_TEST_HOGS_H
#define COIR_TEST_HOGS_H

#include "processes.h"

#include <sys/syscall.h>

/* The pause of a thread is a signal, whose handler ThreadSanitizer puts off until the thread makes a call that it
 * knows. So fibers are handed off there, and queue, but their threads do not stop. */
#define PAUSES_ARE_SURE (!IS_TSAN)

/* With a quantum of `us`, and nothing but preemption to help in the first second. */
#define PREEMPTIVE(n, us) \
  { .workers = (n), .preempt = COIR_ON, .quantum_us = (us), .busy_us = 1000000, .blocked_us = 1000000 }

static inline int hog_tid(void) { return (int)syscall(SYS_gettid); }

static inline int64_t hog_cpu_ns(void) {
  struct timespec t;
  CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
  return COIR_SEC(t.tv_sec) + t.tv_nsec;
}

static inline struct coir_stats stats_of(struct coir_runtime *rt) {
  struct coir_stats stats;
  coir_runtime_get_stats(rt, &stats);
  return stats;
}

static inline struct coir_stats stats_here(void) { return stats_of(coir_runtime_current()); }

/* Computes for some turns of a loop. */
static inline void hog_compute(int turns) {
  for (int i = 0; i < turns; i++) __asm__ volatile("" ::: "memory");
}

struct hog {
  const _Atomic(bool) *stop;
  _Atomic(uint64_t) turns;
  _Atomic(int64_t) cpu_ns;
  _Atomic(int) tid;
};

/* `h`: a struct hog. */
static inline int hog_run(void *h) {
  struct hog *hog = h;
  int64_t before = hog_cpu_ns();
  int tid = hog_tid();
  atomic_store_explicit(&hog->tid, tid, memory_order_relaxed);
  while (!atomic_load_explicit(hog->stop, memory_order_relaxed)) {
    hog_compute(5000);
    atomic_fetch_add_explicit(&hog->turns, 1, memory_order_relaxed);
    atomic_store_explicit(&hog->cpu_ns, hog_cpu_ns() - before, memory_order_relaxed);
  }
  CHECK_EQ(hog_tid(), tid);
  return 0;
}

/* So many of them, until hogs_join(). */
static inline void hogs_spawn(struct hog *hogs, struct coir_fiber **fibers, int n, _Atomic(bool) *stop) {
  atomic_store(stop, false);
  for (int i = 0; i < n; i++) {
    hogs[i] = (struct hog){.stop = stop};
    fibers[i] = spawn(hog_run, &hogs[i]);
  }
}

static inline void hogs_join(struct coir_fiber **fibers, int n, _Atomic(bool) *stop) {
  atomic_store(stop, true);
  for (int i = 0; i < n; i++) CHECK_EQ(join(fibers[i]), 0);
}

/* Whether the thread has a processor, or wants one. A paused one does not. */
static inline bool hog_is_runnable(int tid) { return thread_state(tid) == 'R'; }

/* How equal the shares are: 1 when all are the same, 1/n when one has it all (Jain, Chiu and Hawe, 1984). */
static inline double jain(const struct hog *hogs, int n) {
  double sum = 0, squares = 0;
  for (int i = 0; i < n; i++) {
    double x = (double)atomic_load_explicit(&hogs[i].turns, memory_order_relaxed);
    sum += x, squares += x * x;
  }
  return squares > 0 ? sum * sum / (n * squares) : 0;
}

#endif
