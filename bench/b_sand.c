/* sand_100k, sand_1m, sand_heavy, sand_heavy_1m: grains of sand fall and pile up; sand.h says how. SAND_KIND chooses:
 *
 * - 0: from none up to 100 000 grains, 120 steps;
 * - 1: 1 000 000 grains from the start, 10 steps;
 * - 2: from none, 10 steps, and 200 sines and cosines for each grain in each step;
 * - 3: the same for 1 000 000 grains, one step, as that takes seconds; not for --quick.
 *
 * All steps are one job, and a step is three loops, one after the other. The outcome is that of a serial run, bit by
 * bit. Figure: wall time for all steps, in ms. */
#include "sand.h"

#include "jobs.h"

static const struct sand_kind *kind = &sand_kinds[SAND_KIND];

static void clear(size_t lo, size_t hi, void *sand) { sand_clear(sand, lo, hi); }
static void mark(size_t lo, size_t hi, void *sand) { sand_mark(sand, lo, hi); }
static void move(size_t lo, size_t hi, void *sand) { sand_move(sand, lo, hi); }

static void simulate(struct coir_job *job, void *arg) {
  struct sand *sand = arg;
  for (int i = 0; i < kind->steps; i++) {
    sand_spawn(sand, SAND_SPAWNED);
    struct coir_phase phases[] = {{.hi = SAND_CELLS, .body = clear, .arg = sand},
                                  {.hi = sand->count, .body = mark, .arg = sand},
                                  {.hi = sand->count, .body = move, .arg = sand}};
    bench_check("coir_parallel_phases", coir_parallel_phases(coir_job_system_of(job), phases, 3));
  }
}

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  static uint64_t expected;
  struct sand sand;
  values[0] = NAN;
  if (kind->is_long && b->quick) return;
  if (!jobs) {
    jobs = bench_jobs(b, NULL);
    expected = sand_expected(kind);
  }
  if (!sand_init(&sand, kind)) bench_die("out of memory");
  int64_t start_ns = coir_now();
  bench_job(jobs, simulate, &sand);
  values[0] = bench_each(start_ns, 1) / 1e6;
  bench_equal("grains", (long)sand_checksum(&sand), (long)expected);
  sand_free(&sand);
}

int main(int argc, char **argv) {
  struct bench b = {.question = kind->question, .metrics = {{NULL, "ms", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
