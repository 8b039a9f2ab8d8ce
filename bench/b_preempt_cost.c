/* preempt_cost: the time that is lost by pausing one fiber and going on with another, on one worker.
 *
 * Two hogs do a fixed amount of computing, 100 ms each. In turns, A B C C B A ...: one after the other, without monitor
 * and preemption; preempted each 1 ms; preempted each 10 ms. What is lost goes for the signal, for parking one thread
 * and waking another, and for the moment in which neither computes. Hogs that live in registers lose nothing by cold
 * caches; a program may. A runtime is started for each turn and stopped after it, and only the hogs' own time counts.
 *
 * Figures, medians of the turns: what the work takes longer at 1 ms than without, divided by how often fibers were
 * paused, in us; "gap", at 10 ms, how long neither hog computes when one takes over from the other, as they see it by
 * the clock, divided likewise; "lost", the part of all time that these gaps are, in %; and "cpu", the processor time of
 * all threads, the monitor's too, that a preemption at 1 ms takes, in us. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "bench.h"

#define TURNS 20
#define LAPS 140000L
#define LAP_STEPS 400 /* some microsecond */
#define GAP_MIN_NS 4000

enum { PLAIN, MS1, MS10, KINDS };

struct turn {
  int64_t elapsed_ns, gaps_ns;
  uint64_t preemptions;
  double cpu_us; /* of the process */
};

/* Who computed last, and when. */
static _Atomic(int) last_hog;
static _Atomic(int64_t) last_ns;

struct hog {
  int number;
  int64_t gaps_ns;
  uint64_t result;
};

static uint64_t mix(uint64_t x) {
  for (int i = 0; i < LAP_STEPS; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

static int64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * COIR_SEC(1) + now.tv_nsec;
}

/* Notes the time, and how long nobody did. */
static void note(struct hog *hog) {
  int64_t now = clock_ns(), gap = now - atomic_load_explicit(&last_ns, memory_order_relaxed);
  if (atomic_load_explicit(&last_hog, memory_order_relaxed) != hog->number) {
    if (gap > GAP_MIN_NS) hog->gaps_ns += gap;
    atomic_store_explicit(&last_hog, hog->number, memory_order_relaxed);
  }
  atomic_store_explicit(&last_ns, now, memory_order_relaxed);
}

static int compute(void *arg) {
  struct hog *hog = arg;
  hog->result = 1;
  for (long i = 0; i < LAPS; i++) {
    hog->result = mix(hog->result);
    note(hog);
  }
  return 0;
}

static int race(void *arg) {
  struct turn *turn = arg;
  struct hog hogs[2] = {{.number = 1}, {.number = 2}};
  int64_t start_ns = clock_ns();
  atomic_store(&last_ns, start_ns);
  struct coir_fiber *a = bench_spawn(compute, &hogs[0], NULL), *b = bench_spawn(compute, &hogs[1], NULL);
  bench_join(a);
  bench_join(b);
  turn->elapsed_ns = clock_ns() - start_ns;
  turn->gaps_ns = hogs[0].gaps_ns + hogs[1].gaps_ns;
  bench_equal("results alike", hogs[0].result == hogs[1].result, true);
  return 0;
}

static double cpu_us(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 +
         (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static struct turn play(struct coir_runtime *rt) {
  struct turn turn;
  struct coir_stats before, after;
  struct coir_fiber *racer;
  coir_runtime_get_stats(rt, &before);
  double before_us = cpu_us();
  bench_check("coir_runtime_start", coir_runtime_start(rt));
  bench_check("coir_runtime_spawn", coir_runtime_spawn(rt, race, &turn, NULL, &racer));
  bench_join(racer);
  bench_check("coir_runtime_stop", coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER));
  coir_runtime_get_stats(rt, &after);
  turn.cpu_us = cpu_us() - before_us;
  turn.preemptions = after.preemptions - before.preemptions;
  return turn;
}

static struct coir_runtime *make(int preempt, int quantum_us) {
  struct coir_runtime *rt;
  struct coir_config config = {
      .size = sizeof config, .workers = 1, .monitor = preempt, .preempt = preempt, .quantum_us = quantum_us};
  bench_check("coir_runtime_create", coir_runtime_create(&rt, &config));
  return rt;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double middle(double *values, long count) {
  qsort(values, count, sizeof values[0], compare);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void measure(struct coir_runtime *const rts[KINDS], long count, double *values) {
  double wall[TURNS], gap[TURNS], lost[TURNS], cpu[TURNS];
  for (long t = 0; t < count; t++) {
    struct turn turns[KINDS];
    for (int k = 0; k < KINDS; k++) {
      int kind = t % 2 ? KINDS - 1 - k : k;
      turns[kind] = play(rts[kind]);
    }
    const struct turn *plain = &turns[PLAIN], *often = &turns[MS1], *seldom = &turns[MS10];
    if (!often->preemptions || !seldom->preemptions) bench_die("nothing was preempted");
    wall[t] = (double)(often->elapsed_ns - plain->elapsed_ns) / (double)often->preemptions / 1e3;
    gap[t] = (double)seldom->gaps_ns / (double)seldom->preemptions / 1e3;
    lost[t] = 100 * (double)seldom->gaps_ns / (double)seldom->elapsed_ns;
    cpu[t] = (often->cpu_us - plain->cpu_us) / (double)often->preemptions;
  }
  values[0] = middle(wall, count);
  values[1] = middle(gap, count);
  values[2] = middle(lost, count);
  values[3] = middle(cpu, count);
}

static void run(const struct bench *b, double *values) {
  struct coir_runtime *rts[KINDS] = {[PLAIN] = make(COIR_OFF, 0), [MS1] = make(COIR_ON, 1000)};
  rts[MS10] = make(COIR_ON, 10000);
  for (int i = 0; i < 4; i++) values[i] = NAN;
  if (b->workers == 1) measure(rts, bench_count(b, TURNS), values);
  for (int k = 0; k < KINDS; k++) bench_check("coir_runtime_destroy", coir_runtime_destroy(rts[k]));
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "preempt_cost",
      .metrics = {{NULL, "us", "lower"}, {"gap", "us", "lower"}, {"lost", "%", "lower"}, {"cpu", "us", "lower"}},
      .run = run,
      .is_fresh = true};
  setenv("COIR_MONITOR", "0", 1); /* of the runtime that only waits */
  return bench_main(argc, argv, &b);
}
