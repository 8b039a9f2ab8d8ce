/* A trace that was exported to a path whose opening takes time, when a signal came meanwhile, was not written: -EINTR.
 * Nothing else in Coir returns that. */
#include "jobs.h"

#include <fcntl.h>

static _Atomic(int) left; /* calls that are interrupted */

/* The linker sends the library's calls here (--wrap). */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...) {
  if (!(flags & O_CREAT) || atomic_fetch_sub(&left, 1) <= 0) return __real_open(path, flags, 0666);
  errno = EINTR;
  return -1;
}

static void it_is_written_all_the_same(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.trace = COIR_ON});
  char path[64];
  snprintf(path, sizeof path, "/tmp/bug_interrupted_export-%d", (int)getpid());
  left = 2;
  CHECK_EQ(coir_job_system_export_trace(jobs, path), 0);
  CHECK(left <= 0);
  CHECK_EQ(unlink(path), 0);
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(it_is_written_all_the_same)};
  return RUN_CASES(argc, argv, cases);
}
