/* parallel_sort: 10^7 random doubles in [0, 1).
 *
 * Three ways: by <, with the sort that COIR_SORT_DEFINE makes; "total": in the total order, by coir_parallel_sort_f64;
 * "stable": by a function whose address coir_parallel_sort gets. Each result is checked: whether it is in order, and by
 * a sum whether it is made of the same numbers. --quick does not make it smaller.
 *
 * Per sort: wall time, the copy of the input left out. */
#include <stdint.h>

#include "bench.h"
#include "coir_sort.h"

#define COUNT ((size_t)10000000)

#define BY_VALUE(a, b) (*(a) < *(b))
COIR_SORT_DEFINE(sort_doubles, double, BY_VALUE)

static int compare(const void *a, const void *b, void *arg) {
  (void)arg;
  const double *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

static int sort_stably(struct coir_job_system *system, double *base, size_t count) {
  return coir_parallel_sort(system, base, count, sizeof *base, compare, NULL);
}

/* Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014. */
static double next_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

/* The same whatever the order. */
static uint64_t sum_of(const double *numbers) {
  uint64_t sum = 0;
  for (size_t i = 0; i < COUNT; i++) {
    uint64_t bits;
    memcpy(&bits, &numbers[i], sizeof bits);
    sum += bits * (bits >> 7 | 1);
  }
  return sum;
}

static double measure(int (*sort)(struct coir_job_system *, double *, size_t), const double *input, double *numbers) {
  memcpy(numbers, input, COUNT * sizeof *numbers);
  int64_t start_ns = coir_now();
  bench_check("sort", sort(NULL, numbers, COUNT));
  double ms = (double)(coir_now() - start_ns) / 1e6;
  for (size_t i = 1; i < COUNT; i++)
    if (!(numbers[i - 1] <= numbers[i])) bench_die("%zu is not in its place", i);
  if (sum_of(numbers) != sum_of(input)) bench_die("the numbers are not the same");
  return ms;
}

static void run(const struct bench *b, double *values) {
  (void)b;
  static double *input, *numbers;
  if (!input) {
    uint64_t state = 1;
    input = bench_alloc(COUNT * sizeof *input);
    numbers = bench_alloc(COUNT * sizeof *numbers);
    for (size_t i = 0; i < COUNT; i++) input[i] = next_random(&state);
  }
  values[0] = measure(sort_doubles, input, numbers);
  values[1] = measure(coir_parallel_sort_f64, input, numbers);
  values[2] = measure(sort_stably, input, numbers);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "parallel_sort",
                    .metrics = {{NULL, "ms", "lower"}, {"total", "ms", "lower"}, {"stable", "ms", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
