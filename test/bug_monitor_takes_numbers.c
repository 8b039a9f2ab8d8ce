/* To see whether a thread waits the monitor opened a file of /proc, in the program's own table of descriptors, and so
 * took the lowest number that was free. A program that closed a descriptor, and put another one in its place, got the
 * monitor's file between the two: dup3(2) failed, or it replaced that file, and was closed by the monitor.
 *
 * Since then it has a thread with another table for that. ThreadSanitizer knows of one table only: it took a number in
 * that one for the program's, and reported a race with who used its own. */
#include "stuck.h"

#include <fcntl.h>
#include <semaphore.h>

#define HANDOFFS 500

static flag is_begun, is_over;
static sem_t posted;

static int post(void *unused) {
  (void)unused;
  CHECK_EQ(sem_post(&posted), 0);
  return 0;
}

/* Nothing here uses a descriptor. */
static int block_often(void *unused) {
  (void)unused;
  int64_t end = coir_after(COIR_SEC(2));
  uint64_t before = handoffs();
  while (handoffs() - before < HANDOFFS && coir_now() < end) {
    go_beside(post, NULL);
    CHECK_EQ(sem_wait(&posted), 0);
    CHECK_EQ(coir_sleep(0), 0);
    if (handoffs() > before) raise_flag(&is_begun); /* a runtime that starts opens what it keeps */
  }
  CHECK(handoffs() > before);
  return raise_flag(&is_over);
}

static void *replace_often(void *unused) {
  int file = open("/dev/null", O_RDONLY | O_CLOEXEC), number = dup(file);
  CHECK(file >= 0 && number >= 0); /* in any order: AddressSanitizer opens and closes one meanwhile */
  while (!is_up(&is_begun) && !is_up(&is_over)) usleep(100);
  while (!is_up(&is_over)) {
    CHECK_EQ(close(number), 0);
    for (int i = 0; i < 100; i++) __asm__ volatile("");
    CHECK_EQ(dup3(file, number, O_CLOEXEC), number);
    for (int i = 0; i < 100; i++) __asm__ volatile("");
  }
  CHECK_EQ(close(number), 0);
  CHECK_EQ(close(file), 0);
  return unused;
}

/* 0 is what a file gets that is opened in an empty table. In other builds than ThreadSanitizer's this cannot fail. */
static void *use_zero(void *unused) {
  int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  char c;
  CHECK(file >= 0 && dup2(file, 0) == 0);
  for (; !is_up(&is_over); usleep(100)) CHECK_EQ(read(0, &c, 1), 0);
  return unused;
}

static void beside_looks(void *(*thread_main)(void *)) {
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1, .blocked_us = 50});
  pthread_t thread;
  int status = -1;
  CHECK_EQ(sem_init(&posted, 0, 0), 0);
  CHECK_EQ(pthread_create(&thread, NULL, thread_main, NULL), 0);
  CHECK_EQ(coir_runtime_run(rt, block_often, NULL, &status), 0);
  CHECK_EQ(status, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void numbers_are_the_programs(void) { beside_looks(replace_often); }
static void numbers_seem_the_programs(void) { beside_looks(use_zero); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(numbers_are_the_programs), CASE(numbers_seem_the_programs)};
  return RUN_CASES(argc, argv, cases);
}
