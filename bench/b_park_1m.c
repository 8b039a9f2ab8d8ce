/* park_1m: a million parked fibers: how long it takes to have them, and what the process weighs then.
 *
 * The time runs from the first spawn until the last fiber parks; the weight is the resident memory of the whole
 * process. Then all are cancelled and joined. One process per run. --quick does not make it smaller. */
#include "parked.h"

#define FIBERS 1000000L

static void run(const struct bench *b, double *values) {
  (void)b;
  struct crowd crowd;
  crowd_init(&crowd, FIBERS);
  int64_t start_ns = coir_now();
  crowd_park(&crowd);
  values[0] = (double)(coir_now() - start_ns) / 1e9;
  values[1] = bench_rss_bytes() / 1e9;
  crowd_fini(&crowd);
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "park_1m", .metrics = {{NULL, "s", "lower"}, {"rss", "GB", "lower"}}, .run = run, .is_fresh = true};
  return bench_main(argc, argv, &b);
}
