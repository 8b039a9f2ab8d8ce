/* A thread of the pool looks whether the number still stands for the file that it is to write to, and then makes its
 * system call. When the number was closed by coir_close between the two, and became another file's, it wrote into that
 * one. And so it did when its call was interrupted, for which it did not look again.
 *
 * To force it, write(2) is wrapped (--wrap). The first thread that writes to the file is held up before the call, until
 * the number is another file's, or for a while, since it cannot come to that any more. Or it sleeps in the kernel, in
 * a call on that number, until the number is another file's, and is interrupted. */
#include "harness.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "coir_io.h"

ssize_t __real_write(int fd, const void *buf, size_t bytes);
ssize_t __wrap_write(int fd, const void *buf, size_t bytes);

enum hold { BEFORE, INSIDE };

static enum hold hold;
static _Atomic(int) to_hold = -1;
static _Atomic(bool) is_held, is_replaced;

static ssize_t held_up(int fd, const void *buf, size_t bytes) {
  atomic_store(&is_held, true);
  if (hold == BEFORE) {
    for (int i = 0; i < 500 && !atomic_load(&is_replaced); i++) usleep(1000);
    return __real_write(fd, buf, bytes);
  }
  CHECK_EQ(flock(fd, LOCK_EX), 0);
  CHECK(atomic_load(&is_replaced));
  errno = EINTR;
  return -1;
}

ssize_t __wrap_write(int fd, const void *buf, size_t bytes) {
  int held = fd;
  if (fd >= 0 && atomic_compare_exchange_strong(&to_hold, &held, -1)) return held_up(fd, buf, bytes);
  return __real_write(fd, buf, bytes);
}

/* One without a name, and another number for it, by which it is open once more. */
static int make_file(int *again) {
  char name[300], path[64];
  const char *folder = getenv("TMPDIR");
  snprintf(name, sizeof name, "%s/bug_pool-%d", folder ? folder : "/var/tmp", (int)getpid());
  int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(unlink(name), 0);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  *again = open(path, O_RDWR | O_CLOEXEC);
  CHECK(*again >= 0);
  return fd;
}

static off_t size_of(int fd) {
  struct stat st;
  CHECK_EQ(fstat(fd, &st), 0);
  return st.st_size;
}

struct writer {
  int fd;
  ssize_t result;
};

static int writes(void *arg) {
  struct writer *w = arg;
  w->result = coir_write(w->fd, "old", 3, COIR_NEVER);
  return 0;
}

/* Returns the result of the write. */
static ssize_t close_under(enum hold when) {
  int again, next_again, fd = make_file(&again), next = make_file(&next_again);
  hold = when;
  atomic_store(&is_held, false);
  atomic_store(&is_replaced, false);
  CHECK_EQ(flock(again, LOCK_EX), 0);
  struct writer w = {.fd = fd};
  atomic_store(&to_hold, fd);
  struct coir_fiber *f = spawn(writes, &w);
  WAIT_FOR(atomic_load(&is_held));
  CHECK_EQ(coir_close(fd), 0);
  CHECK_EQ(dup2(next, fd), fd);
  atomic_store(&is_replaced, true);
  CHECK_EQ(flock(again, LOCK_UN), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(size_of(next), 0);
  CHECK_EQ(size_of(again), w.result > 0 ? w.result : 0);
  CHECK(close(again) == 0 && close(next) == 0 && close(next_again) == 0);
  CHECK_EQ(coir_close(fd), 0);
  return w.result;
}

static int before_its_call(void *unused) {
  (void)unused;
  ssize_t n = close_under(BEFORE);
  CHECK(n == 3 || n == -EBADF);
  return 0;
}

/* The call may last for as long as the disk takes: nobody who closes waits for it. */
static int inside_its_call(void *unused) {
  (void)unused;
  CHECK_EQ(close_under(INSIDE), -EBADF);
  return 0;
}

static void a_thread_that_is_about_to_write(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) run(before_its_call, NULL);
}

static void a_thread_that_was_interrupted(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) run(inside_its_call, NULL);
  run_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, inside_its_call, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_thread_that_is_about_to_write),
      cmocka_unit_test(a_thread_that_was_interrupted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
