/* The clock of the fuzz programs: linked with --wrap=clock_gettime, it stands still until somebody moves it. */
#include <time.h>

#include "fuzz.h"

int64_t fuzz_now = FUZZ_BEGINS;

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts) {
  (void)clock;
  *ts = (struct timespec){.tv_sec = fuzz_now / COIR_SEC(1), .tv_nsec = fuzz_now % COIR_SEC(1)};
  return 0;
}
