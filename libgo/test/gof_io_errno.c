/* errno right after calls that fail, on fibers that go on on another thread each time.
 *
 * libc lets compilers keep the address of errno for as long as a function runs. In these loops, which they would gladly
 * do that in, each wait is followed by a look at errno; a stale address shows what the thread before says. */
#include "gof_io_common.h"

#include <sys/eventfd.h>

/* In gof_io_errno_libc.c, where errno is libc's own. */
int libc_errno_of_read(int fd);
int libc_errno_of_accept(int fd, int timeout_ms);

enum { FIBERS = 8 };

static _Atomic(int) moves;

/* What a fiber of these tests has. */
struct ends {
  int listener, refusing; /* nobody connects there, and nobody can */
  struct sockaddr_in addr, refused;
};

static void make_ends(struct ends *e) {
  e->refusing = make_refusing(&e->refused);
  e->listener = make_listener(&e->addr, 16);
}

/* Puts something into the errno of whichever thread this is. */
static __attribute__((noinline)) void spoil(int value) {
  __asm__ volatile("" ::: "memory");
  errno = value;
}

/* Waits end in errors, and calls between them fail at once. */
static void fail_in_a_loop(void *arg) {
  struct ends e;
  int number = (int)(intptr_t)arg, worker = coir_worker_index();
  make_ends(&e);
  for (int i = 0; i < rounds(150); i++) {
    char c;
    errno = 3000 + number;
    if (gof_accept(e.listener, NULL, NULL, 1) != -1 || errno != ETIMEDOUT) CHECK_EQ(errno, ETIMEDOUT);
    moves += coir_worker_index() != worker;
    worker = coir_worker_index();
    if (gof_read(-1, &c, 1) != -1 || errno != EBADF) CHECK_EQ(errno, EBADF);
    spoil(4000 + number);
    gof_yield();
    if (gof_write(e.listener, &c, 1) != -1 || errno != EPIPE) CHECK_EQ(errno, EPIPE);
    if (gof_accept(-1, NULL, NULL, 0) != -1 || errno != EBADF) CHECK_EQ(errno, EBADF);
    int fd = tcp_socket();
    if (gof_connect(fd, (struct sockaddr *)&e.refused, sizeof e.refused, -1) != -1 || errno != ECONNREFUSED)
      CHECK_EQ(errno, ECONNREFUSED);
    close_fd(fd);
    errno = 0;
    gof_sleep_ms(i % 10 == 0);
    CHECK_EQ(errno, 0);
  }
  close_fd(e.listener);
  close_fd(e.refusing);
}

static void task_leave(void *arg) {
  gof_yield();
  gof_yield();
  close_fd(*(int *)arg);
}

static void task_reset(void *arg) {
  gof_yield();
  gof_yield();
  close_reset(*(int *)arg);
}

/* Waits that end in the error of a peer that goes away. */
static void fail_by_peers(void *arg) {
  static char data[1 << 20];
  int number = (int)(intptr_t)arg;
  for (int i = 0; i < rounds(100); i++) {
    int fds[2];
    char c;
    struct task t;
    make_pair(PIPE, fds);
    fill(fds[1]);
    start(&t, FIBER, task_leave, &fds[0]);
    errno = 5000 + number;
    if (gof_write(fds[1], data, sizeof data) != -1 || errno != EPIPE) CHECK_EQ(errno, EPIPE);
    finish(&t);
    close_fd(fds[1]);
    make_pair(TCP, fds);
    start(&t, FIBER, task_reset, &fds[1]);
    errno = 5000 + number;
    if (gof_read(fds[0], &c, 1) != -1 || errno != ECONNRESET) CHECK_EQ(errno, ECONNRESET);
    finish(&t);
    close_fd(fds[0]);
  }
}

/* What a fiber has stored stays its own across waits that succeed. */
static void keep_in_a_loop(void *arg) {
  int fd = eventfd(0, EFD_CLOEXEC), number = (int)(intptr_t)arg;
  CHECK(fd >= 0);
  for (int i = 0; i < rounds(300); i++) {
    uint64_t one = 1, value;
    struct task t;
    struct write_task w = {.fd = fd, .data = &one, .bytes = sizeof one};
    errno = 6000 + number * 1000 + i;
    gof_yield();
    CHECK_EQ(errno, 6000 + number * 1000 + i);
    start(&t, FIBER, task_write, &w);
    CHECK_EQ(gof_read(fd, &value, sizeof value), sizeof value);
    CHECK_EQ(errno, 6000 + number * 1000 + i);
    finish(&t);
    gof_sleep_ms(i % 20 == 0);
    CHECK_EQ(errno, 6000 + number * 1000 + i);
  }
  close_fd(fd);
}

/* In functions that look at libc's errno, once, after the call. */
static void fail_for_libc(void *arg) {
  struct ends e;
  make_ends(&e);
  for (int i = 0; i < rounds(150); i++) {
    spoil(7000 + (int)(intptr_t)arg);
    CHECK_EQ(libc_errno_of_accept(e.listener, 1), ETIMEDOUT);
    spoil(7000 + (int)(intptr_t)arg);
    CHECK_EQ(libc_errno_of_read(-1), EBADF);
    CHECK_EQ(libc_errno_of_read(e.listener), ENOTCONN);
  }
  close_fd(e.listener);
  close_fd(e.refusing);
}

static void (*const loops[])(void *) = {fail_in_a_loop, fail_by_peers, keep_in_a_loop, fail_for_libc};
enum { LOOPS = sizeof loops / sizeof *loops };

/* One kind of loop alone, or all kinds mixed. */
static void run_loops(int which) {
  struct task t[FIBERS];
  for (int i = 0; i < FIBERS; i++) start(&t[i], FIBER, loops[which < LOOPS ? which : i % LOOPS], (void *)(intptr_t)i);
  gof_run();
  for (int i = 0; i < FIBERS; i++) finish(&t[i]);
}

static void errno_under_migration(void) {
  set_env("COIR_MIGRATE", "1");
  for (int i = 0; i <= LOOPS; i++) run_loops(i);
  if (worker_count() > 1) CHECK(moves > rounds(150)); /* else it was no test */
}

static void errno_without_migration(void) {
  for (int i = 0; i <= LOOPS; i++) run_loops(i);
}

/* On plain threads, beside fibers. */
static void errno_on_threads(void) {
  struct task t[LOOPS], fiber;
  start(&fiber, FIBER, fail_in_a_loop, (void *)FIBERS);
  start(&t[0], THREAD, fail_in_a_loop, (void *)1);
  start(&t[1], THREAD, fail_for_libc, (void *)2);
  gof_run();
  for (int i = 0; i < 2; i++) finish(&t[i]);
  finish(&fiber);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(errno_under_migration),
      CASE(errno_without_migration),
      CASE(errno_on_threads),
  };
  return RUN_CASES(argc, argv, cases);
}
