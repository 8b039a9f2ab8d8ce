/* For gof_io_errno.c: functions that look at libc's errno, as code does that defines GOF_KEEP_ERRNO. */
#define GOF_KEEP_ERRNO 1
#include "libgo/fiber.h"

int libc_errno_of_read(int fd);
int libc_errno_of_accept(int fd, int timeout_ms);

int libc_errno_of_read(int fd) {
  char c;
  return gof_read(fd, &c, 1) == -1 ? errno : 0;
}

int libc_errno_of_accept(int fd, int timeout_ms) { return gof_accept(fd, 0, 0, timeout_ms) == -1 ? errno : 0; }
