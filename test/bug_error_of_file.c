/* A file on another machine that does not answer was taken for a descriptor that is not open: -EBADF, where a program
 * may conclude that somebody has closed it. */
#include "harness.h"

#include <sys/stat.h>

#include "coir_io.h"

static _Atomic(int) left; /* calls that fail */

/* The linker sends the library's calls here (--wrap). */
int __real_fstat(int fd, struct stat *out);
int __wrap_fstat(int fd, struct stat *out);

int __wrap_fstat(int fd, struct stat *out) {
  if (atomic_fetch_sub(&left, 1) <= 0) return __real_fstat(fd, out);
  errno = EIO;
  return -1;
}

static void an_error_is_what_it_is(void **state) {
  (void)state;
  char c = 'x';
  FILE *file = tmpfile();
  CHECK(file);
  left = 1;
  CHECK_EQ(coir_pwrite(fileno(file), &c, 1, 0, COIR_NEVER), -EIO);
  left = 1;
  CHECK_EQ(coir_adopt(fileno(file)), -EIO);
  left = 0;
  CHECK_EQ(coir_pwrite(fileno(file), &c, 1, 0, COIR_NEVER), 1);
  fclose(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(an_error_is_what_it_is)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
