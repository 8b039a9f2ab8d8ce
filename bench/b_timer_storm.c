/* timer_storm: 10^6 timers, each with a function to run, that all come within a second.
 *
 * They are made and started, and their deadlines lie at random in a second that begins when there has been time enough
 * to start all of them. Each one's fiber notes how late it is. Then they are destroyed. The main figure is the CPU time
 * of the process for all that, per timer: the wall time is given by the deadlines. With --quick there are a fifth of
 * the timers in a fifth of the time.
 *   late, late p99, late max  from a timer's deadline until its function runs
 *   cancel                    as many timers, an hour ahead, are started and stopped in random order: wall time per
 *                             timer of both together
 *
 * One fiber starts and stops, whatever the number of workers. It checks that each timer has come, once and not too
 * early, and that each stop was in time. One process per run. */
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "bench.h"
#include "hdr.h"

#define TIMERS 1000000L
#define LEAD_NS 2000 /* per timer, until the first comes */
#define RATE_NS 1000 /* one timer in so many ns, on average */
#define SLACK_NS COIR_SEC(30)
#define STEP 736338717L /* without a factor in common with any of the counts: multiples of it meet each index once */

struct due {
  struct coir_timer *timer;
  int64_t deadline, late_ns;
  int comes;
};

static _Atomic(long) come;

static int comes(void *arg) {
  struct due *due = arg;
  due->late_ns = coir_now() - due->deadline;
  due->comes++;
  atomic_fetch_add_explicit(&come, 1, memory_order_release); /* pairs with the acquire in storm */
  return 0;
}

static double cpu_ns(void) {
  struct timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return (double)used.tv_sec * 1e9 + (double)used.tv_nsec;
}

static uint64_t random_next(void) {
  static uint64_t state = 88172645463325252u;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

static void make(struct due *dues, long count) {
  for (long i = 0; i < count; i++) bench_check("coir_timer_create", coir_timer_create(&dues[i].timer, comes, &dues[i]));
}

static double storm(struct due *dues, long count, struct hdr *late) {
  atomic_store(&come, 0);
  double start_ns = cpu_ns();
  int64_t begins = coir_after(count * LEAD_NS);
  make(dues, count);
  for (long i = 0; i < count; i++) {
    dues[i].deadline = begins + (int64_t)(random_next() % (uint64_t)(count * RATE_NS));
    dues[i].comes = 0;
    bench_check("coir_timer_start", coir_timer_start(dues[i].timer, dues[i].deadline, 0));
  }
  if (coir_now() > begins) bench_die("the machine is too busy: the first timers came before all were started");
  coir_sleep_until(begins + count * RATE_NS);
  while (atomic_load_explicit(&come, memory_order_acquire) < count) {
    if (coir_now() > begins + SLACK_NS) bench_die("%ld of %ld timers have not come", count - come, count);
    coir_sleep(COIR_MS(1));
  }
  for (long i = 0; i < count; i++) coir_timer_destroy(dues[i].timer);
  double used_ns = cpu_ns() - start_ns;
  for (long i = 0; i < count; i++) {
    bench_equal("how often a timer has come", dues[i].comes, 1);
    if (dues[i].late_ns < 0) bench_die("a timer has come too early");
    hdr_record(late, (uint64_t)dues[i].late_ns);
  }
  return used_ns / (double)count;
}

static double start_and_stop(struct due *dues, long count) {
  make(dues, count);
  int64_t start_ns = coir_now(), hour = start_ns + COIR_SEC(3600);
  for (long i = 0; i < count; i++) coir_timer_start(dues[i].timer, hour + (int64_t)(random_next() % COIR_SEC(3600)), 0);
  long stopped = 0;
  for (long i = 0; i < count; i++) stopped += coir_timer_stop(dues[i * STEP % count].timer);
  int64_t took_ns = coir_now() - start_ns;
  bench_equal("timers stopped in time", stopped, count);
  for (long i = 0; i < count; i++) coir_timer_destroy(dues[i].timer);
  return (double)took_ns / (double)count;
}

static void run(const struct bench *b, double *values) {
  static struct hdr late;
  long count = bench_count(b, TIMERS);
  struct due *dues = bench_alloc((size_t)count * sizeof *dues);
  hdr_init(&late);
  values[0] = storm(dues, count, &late);
  values[1] = (double)hdr_percentile(&late, 50) / 1e3;
  values[2] = (double)hdr_percentile(&late, 99) / 1e3;
  values[3] = (double)late.max / 1e3;
  values[4] = start_and_stop(dues, count);
  free(dues);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "timer_storm",
                    .metrics = {{NULL, "ns", "lower"},
                                {"late", "us", "lower"},
                                {"late p99", "us", "lower"},
                                {"late max", "us", "lower"},
                                {"cancel", "ns", "lower"}},
                    .run = run,
                    .is_fresh = true};
  return bench_main(argc, argv, &b);
}
