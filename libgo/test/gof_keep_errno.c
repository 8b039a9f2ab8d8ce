/* A program that keeps libc's errno. */
#define GOF_KEEP_ERRNO
#include "gof_test.h"

static void fails(void *arg) {
  (void)arg;
  errno = 0;
  CHECK(&errno == __errno_location());
  CHECK(gof_spawn(NULL, NULL, 0) == NULL);
  CHECK_EQ(errno, EINVAL);
}

static void errno_is_that_of_libc(void) {
  fails(NULL);
  go(fails, NULL);
  gof_run();
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(errno_is_that_of_libc)};
  return RUN_CASES(argc, argv, cases);
}
