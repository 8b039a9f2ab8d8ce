/* stall_spin, stall_block: who is held up by a fiber that keeps its thread for a second.
 *
 * stall_spin: it computes. stall_block: it sits in nanosleep(2), which blocks the thread. It calls nothing of Coir
 * meanwhile and is marked in no way. During that second 100 pairs of other fibers make 100 round trips each, by a
 * timetable (paced.h): 10 000 in all, one every 100 us.
 *
 * Figures, in us: the 99th percentile of the round trips; the longest; "after", the 99th percentile of those that were
 * due when there has been time to take notice of the stall: 2 ms, and 10 ms more for a fiber that computes, so much is
 * granted to everybody; and "calm", the 99th percentile of the same round trips when nobody stalls. Twice: with the
 * default configuration, and, as "coir preempt" and without "calm", for a fiber that may be preempted.
 *
 * One that computes takes a core from the others, whoever it is. So there is "change": "after", divided by what it is
 * when a plain thread keeps a thread for that second instead of a fiber.
 *
 * Every run has a process of its own, so the thread that takes over has to be made. */
#include <pthread.h>
#include <time.h>

#include "paced.h"

#define PAIRS 100
#define ROUNDS 100
#define PERIOD_NS COIR_MS(10)
#define STALL_NS COIR_SEC(1)
#define START_NS COIR_MS(50) /* until the pairs and whoever stalls them are there */

#if STALL_BLOCKS
#define QUESTION "stall_block"
#define GRACE_NS COIR_MS(2)
#else
#define QUESTION "stall_spin"
#define GRACE_NS COIR_MS(12)
#endif

enum staller { NOBODY, THREAD, FIBER, PREEMPTED };

static int64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * COIR_SEC(1) + now.tv_nsec;
}

static void hold_thread(int64_t end_ns) {
#if STALL_BLOCKS
  struct timespec left;
  for (int64_t ns; (ns = end_ns - clock_ns()) > 0;) { /* a signal may end it early */
    left = (struct timespec){.tv_sec = ns / COIR_SEC(1), .tv_nsec = ns % COIR_SEC(1)};
    nanosleep(&left, NULL);
  }
#else
  volatile long sum = 0;
  while (clock_ns() < end_ns) {
    for (int i = 0; i < 1000; i++) sum = sum + i;
  }
#endif
}

static int stall(void *arg) {
  const struct paced *others = arg;
  bench_check("coir_sleep_until", coir_sleep_until(others->start_ns));
  hold_thread(others->start_ns + STALL_NS);
  return 0;
}

static void *stall_thread(void *arg) {
  stall(arg);
  return NULL;
}

/* How long the round trips took, in us: the p99, the longest, and the p99 after the grace. */
struct trips {
  double p99, max, after;
};

static struct trips measure(enum staller who) {
  struct paced others = {.pairs = PAIRS, .rounds = ROUNDS, .period_ns = PERIOD_NS, .start_ns = coir_after(START_NS)};
  struct coir_attr attr = {.name = "stall", .preempt = who == PREEMPTED ? COIR_ON : COIR_OFF};
  struct coir_fiber *fiber = NULL;
  pthread_t thread;
  if (who >= FIBER) fiber = bench_spawn(stall, &others, &attr);
  if (who == THREAD) bench_check("pthread_create", -pthread_create(&thread, NULL, stall_thread, &others));
  paced_start(&others);
  paced_join(&others);
  if (fiber) bench_join(fiber);
  if (who == THREAD) bench_check("pthread_join", -pthread_join(thread, NULL));
  struct trips trips = {.p99 = paced_percentile(&others, 0, 0.99) / 1e3,
                        .max = paced_percentile(&others, 0, 1) / 1e3,
                        .after = paced_percentile(&others, GRACE_NS, 0.99) / 1e3};
  paced_fini(&others);
  return trips;
}

static void run(const struct bench *b, double *values) {
  (void)b;
  struct trips calm = measure(NOBODY), thread = measure(THREAD), fiber = measure(FIBER);
  struct trips preempted = measure(PREEMPTED);
  values[0] = fiber.p99;
  values[1] = fiber.max;
  values[2] = fiber.after;
  values[3] = calm.p99;
  values[4] = fiber.after / thread.after;
  values[5] = preempted.p99;
  values[6] = preempted.max;
  values[7] = preempted.after;
}

int main(int argc, char **argv) {
  struct bench b = {.question = QUESTION,
                    .metrics = {{NULL, "us", "lower"},
                                {"max", "us", "lower"},
                                {"after", "us", "lower"},
                                {"calm", "us", "lower"},
                                {"change", "x", "lower"},
                                {NULL, "us", "lower"},
                                {"max", "us", "lower"},
                                {"after", "us", "lower"}},
                    .impls = {[5] = "coir preempt", "coir preempt", "coir preempt"},
                    .run = run,
                    .is_fresh = true};
  return bench_main(argc, argv, &b);
}
