/* mem_parked: resident memory of one parked fiber with a shallow stack, in all: descriptor, stack, and its share of
 * tables.
 *
 * 100 000 fibers call coir_sleep_until(COIR_NEVER) as the first thing that they do. The figure is the growth of the
 * process divided by the fibers; the array of handles is touched before. Page tables do not count as resident; they
 * are the second figure. One process per run. --quick does not make it smaller. */
#include "parked.h"

#define FIBERS 100000L

static void run(const struct bench *b, double *values) {
  (void)b;
  struct crowd first, crowd;
  crowd_init(&first, 1); /* what the runtime makes once, it makes now */
  crowd_park(&first);
  crowd_fini(&first);
  crowd_init(&crowd, FIBERS);
  double rss = bench_rss_bytes(), tables = bench_page_table_bytes();
  crowd_park(&crowd);
  values[0] = (bench_rss_bytes() - rss) / (double)crowd.count;
  values[1] = (bench_page_table_bytes() - tables) / (double)crowd.count;
  crowd_fini(&crowd);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "mem_parked",
                    .metrics = {{NULL, "B", "lower"}, {"page_tables", "B", "lower"}},
                    .run = run,
                    .is_fresh = true};
  return bench_main(argc, argv, &b);
}
