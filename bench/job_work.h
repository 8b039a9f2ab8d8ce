/* What the programs job_* have their jobs do, the same in Coir's, serial and oneTBB's: C that is C++, too.
 *
 * Results are bit patterns, added up modulo 2^64: so the sum does not depend on the order, no result can be left out,
 * and it equals that of a serial run exactly. */
#ifndef JOB_WORK_H
#define JOB_WORK_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- forkjoin_fib ---- */

#define FIB_N 27
#define FIB_OF_N 196418
#define FIB_CALLS 635621 /* of the function by its definition: 2 * fib(n + 1) - 1 */

/* ---- work_stealing: each tenth job is a hundred times longer ---- */

static inline uint64_t steal_job(size_t i) {
  long n = i % 10 == 0 ? 1000 : 10;
  uint64_t a = 0, b = 1;
  __asm__("" : "+r"(n)); /* it is not known beforehand */
  for (; n > 0; n--) {
    uint64_t next = a + b;
    a = b;
    b = next;
  }
  return a;
}

/* ---- job_ep, job_mg, job_cg ---- */

static inline uint64_t bits_of(double number) {
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  return bits;
}

static inline uint64_t ep_body(size_t i) {
  double x = sin((double)i * 1e-4), y = cos((double)i * 1e-4);
  return bits_of(x * x + y * y);
}

static inline uint64_t ep_range(size_t lo, size_t hi) {
  uint64_t sum = 0;
  for (size_t i = lo; i < hi; i++) sum += ep_body(i);
  return sum;
}

/* Small whole numbers, and not zeros, which would let a sum say nothing. */
static inline void mg_fill(double *v, size_t n) {
  for (size_t i = 0; i < n; i++) v[i] = (double)(i % 7);
}

static inline uint64_t mg_range(const double *v, size_t n, size_t lo, size_t hi) {
  uint64_t sum = 0;
  for (size_t i = lo; i < hi; i++) {
    double left = i > 0 ? v[i - 1] : 0, right = i + 1 < n ? v[i + 1] : 0;
    sum += bits_of(v[i] + left + right);
  }
  return sum;
}

/* Adds to what all share, once for each element: that is the point of it. */
static inline void cg_range(const double *v, size_t n, size_t lo, size_t hi, long *total) {
  for (size_t i = lo; i < hi; i++) {
    double sum = 0;
    for (size_t j = i; j < i + 5 && j < n; j++) sum += v[j];
    __atomic_fetch_add(total, (long)sum, __ATOMIC_RELAXED);
  }
}

/* ---- job_transform ---- */

struct transform {
  float pos[3], rot[4], scale[3];
} __attribute__((aligned(64)));

#define TRANSFORM_BATCH 64
#define TRANSFORM_DEPTH_MAX 8

/* A tree, level after level in one array. */
struct transforms {
  struct transform *nodes;
  size_t branch;
  size_t first[TRANSFORM_DEPTH_MAX + 1]; /* of each level, and the end */
  int depth;
};

/* Fills in all but the nodes; returns how many there are. */
static inline size_t transforms_shape(struct transforms *tree, int depth, size_t branch) {
  size_t size = 1;
  tree->depth = depth;
  tree->branch = branch;
  tree->first[0] = 0;
  for (int level = 0; level < depth; level++, size *= branch) tree->first[level + 1] = tree->first[level] + size;
  return tree->first[depth];
}

static inline void transform_update(const struct transforms *tree, int level, size_t i) {
  const struct transform *parent = &tree->nodes[tree->first[level - 1] + (i - tree->first[level]) / tree->branch];
  tree->nodes[i].pos[0] = parent->pos[0] + 1;
}

/* The sum of all positions: what it is, and what it should be. */
static inline long transforms_sum(const struct transforms *tree) {
  long sum = 0;
  for (size_t i = 0; i < tree->first[tree->depth]; i++) sum += (long)tree->nodes[i].pos[0];
  return sum;
}
static inline long transforms_expected(const struct transforms *tree) {
  long sum = 0;
  for (int level = 0; level < tree->depth; level++) {
    sum += level * (long)(tree->first[level + 1] - tree->first[level]);
  }
  return sum;
}

#endif
