/* two_runtimes.c: two runtimes in one process, which exchange work.
 *
 * "back" runs in the background, with one worker, as a library inside a bigger program would; "front" is run by the
 * main thread. Fibers of one runtime never run on the workers of the other. They meet in two ways:
 *   - a fiber of front spawns fibers into back and joins them: joining works across runtimes;
 *   - a pipe: reading it suspends a fiber of back, writing it a fiber of front. */
#include <stdio.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"

enum { JOBS = 100, NUMBERS = 1000 };

static struct coir_runtime *back;
static int pipe_ends[2];

/* Runs in back. Says by its status whether it did. */
static int square(void *arg) {
  long *n = arg;
  *n *= *n;
  return coir_runtime_current() == back ? 0 : 1;
}

/* Runs in back: adds up the numbers that come through the pipe, until its end. */
static int add_up(void *arg) {
  long *sum = arg, number;
  while (coir_read_full(pipe_ends[0], &number, sizeof number, COIR_NEVER) == sizeof number) *sum += number;
  return coir_runtime_current() == back ? 0 : 1;
}

/* Runs in front: back squares numbers for it. Returns their sum. */
static long squares_by_join(int *wrong) {
  struct coir_fiber *fibers[JOBS];
  long numbers[JOBS], sum = 0;
  for (long i = 0; i < JOBS; i++) {
    numbers[i] = i;
    if (coir_runtime_spawn(back, square, &numbers[i], NULL, &fibers[i]) != 0) (*wrong)++;
  }
  for (int i = 0; i < JOBS; i++) {
    struct coir_result result = {.status = 1};
    coir_join(fibers[i], &result, COIR_NEVER); /* suspends this fiber; front's workers go on */
    *wrong += result.status != 0;
    sum += numbers[i];
  }
  return sum;
}

/* Runs in front: sends numbers through the pipe. Returns what back made of them. */
static long sum_by_pipe(int *wrong) {
  struct coir_fiber *adder = NULL;
  struct coir_result result = {.status = 1};
  long sum = 0;
  if (coir_runtime_spawn(back, add_up, &sum, NULL, &adder) != 0) (*wrong)++;
  for (long i = 1; i <= NUMBERS; i++) coir_write_full(pipe_ends[1], &i, sizeof i, COIR_NEVER);
  coir_close(pipe_ends[1]); /* the reader finds the end of the stream */
  coir_join(adder, &result, COIR_NEVER);
  *wrong += result.status != 0;
  return sum;
}

static int front_main(void *arg) {
  int wrong = coir_runtime_current() == back;
  (void)arg;
  long squares = squares_by_join(&wrong), sum = sum_by_pipe(&wrong);
  printf("squares of 0..%d, by join: %ld\n", JOBS - 1, squares);
  printf("sum of 1..%d, by pipe: %ld\n", NUMBERS, sum);
  printf("went wrong: %d\n", wrong);
  return wrong != 0 || squares != 328350 || sum != 500500;
}

int main(void) {
  struct coir_config small = {.size = sizeof small, .workers = 1};
  struct coir_runtime *front = NULL;
  int status = 1;
  if (pipe(pipe_ends) != 0 || coir_runtime_create(&back, &small) != 0 || coir_runtime_create(&front, NULL) != 0)
    return 1;
  if (coir_runtime_start(back) != 0) return 1;
  int rc = coir_runtime_run(front, front_main, NULL, &status); /* returns when every fiber of front has ended */
  coir_runtime_stop(back, COIR_STOP_DRAIN, COIR_NEVER);
  coir_runtime_destroy(front);
  coir_runtime_destroy(back);
  coir_close(pipe_ends[0]);
  return rc != 0 || status != 0;
}
