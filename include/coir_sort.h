/* coir_sort.h: sorting on all workers, by a comparison that the compiler sees.
 *
 * A macro makes the sort of a type: the comparison is compiled into its loops. What it makes is quicksort, unstable,
 * in place, in O(n log n) whatever the input; what is sorted already, upwards or downwards, takes one pass, and few
 * different values take few passes. Parts are sorted at the same time as far as there are workers without work.
 *
 *     #define BY_PRICE(a, b) ((a)->price < (b)->price)
 *     COIR_SORT_DEFINE(sort_by_price, struct offer, BY_PRICE)
 *     ...
 *     sort_by_price(NULL, offers, count);
 *
 * Where elements that compare equal must keep their order, or the comparison is known at run time only, there is
 * coir_parallel_sort (coir_job.h), which is slower. */
#ifndef COIR_SORT_H
#define COIR_SORT_H

#include <string.h>

#include "coir_job.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Defines
 *
 *     static int name(struct coir_job_system *system, type *base, size_t count);
 *
 * which sorts the `count` elements at `base`. `less` is a function, best a static one, or a macro: less(a, b) gets two
 * pointers to const `type`, and says whether *a comes before *b. It runs on several workers at once, at any time on
 * copies of elements; it may fail (coir_job_fail). It should be a strict weak order; if it is not, as with < on numbers
 * of which some are NaN, nothing but the order suffers: the elements are still the same. `type` is one that memcpy
 * copies, and the line stands outside of functions. The sort keeps up to three elements on the stack.
 *
 * `system`, NULL among them, where it runs, and how it waits: as coir_parallel_for. It takes no memory of the heap, but
 * as that does from outside.
 *
 * Returns 0; -EINVAL for NULL with a count; from outside -ENOMEM and -ESHUTDOWN, and then nothing was done; -ECANCELED
 * when `less` failed: the elements are then in any order, and one may be there twice in place of another. */
#define COIR_SORT_DEFINE(name, type, less)                                                                         \
  static inline bool name##__less(const void *a, const void *b) { return less((const type *)a, (const type *)b); } \
  static bool name##__ordered(char *v, size_t n) {                                                                 \
    type t;                                                                                                        \
    return coir__sort_ordered(v, n, sizeof(type), name##__less, (char *)&t);                                       \
  }                                                                                                                \
  static void name##__few(char *v, size_t n) {                                                                     \
    type t;                                                                                                        \
    coir__sort_few(v, n, sizeof(type), name##__less, (char *)&t);                                                  \
  }                                                                                                                \
  static bool name##__pick(char *v, size_t n, bool follows) {                                                      \
    type t;                                                                                                        \
    return coir__sort_pick(v, n, sizeof(type), name##__less, follows, (char *)&t);                                 \
  }                                                                                                                \
  static size_t name##__divide(char *v, size_t n, const char *pivot, bool equal) {                                 \
    type p, t;                                                                                                     \
    return coir__sort_divide(v, n, sizeof(type), name##__less, pivot, equal, (char *)&p, (char *)&t);              \
  }                                                                                                                \
  __attribute__((unused)) static int name(struct coir_job_system *system, type *base, size_t count) {              \
    static const struct coir__sort_kind kind = {sizeof(type), name##__less, name##__ordered,                       \
                                                name##__few,  name##__pick, name##__divide};                       \
    return coir__sort(system, (void *)base, count, &kind);                                                         \
  }

/* The sorts of numbers. Those of float and double are total: -0 comes before 0, and all NaNs come last, those
 * with the sign bit set at the very end. */
COIR_API int coir_parallel_sort_f64(struct coir_job_system *system, double *base, size_t count);
COIR_API int coir_parallel_sort_f32(struct coir_job_system *system, float *base, size_t count);
COIR_API int coir_parallel_sort_i64(struct coir_job_system *system, int64_t *base, size_t count);
COIR_API int coir_parallel_sort_u64(struct coir_job_system *system, uint64_t *base, size_t count);
COIR_API int coir_parallel_sort_i32(struct coir_job_system *system, int32_t *base, size_t count);
COIR_API int coir_parallel_sort_u32(struct coir_job_system *system, uint32_t *base, size_t count);

/* ---- What COIR_SORT_DEFINE is made of; not for programs --------------------------------------------------------- */

/* The steps whose loops compare. They are written once, for elements of `bytes` bytes, and compiled for each type: they
 * are inlined where `bytes` and `less` are constants, so moves become a register's and calls disappear. `t` and `p` are
 * room for one element, in the frame of their caller because only that knows its type. Every loop ends by counting, so
 * a comparison that contradicts itself leads none of them astray; and elements are only ever exchanged. */
typedef bool (*coir__sort_less)(const void *a, const void *b);
#define COIR__SORT_STEP static inline __attribute__((always_inline))
#define COIR__SORT_FEW 16

/* Whether they are in order; they are put in order when it was the reverse one. */
COIR__SORT_STEP bool coir__sort_ordered(char *v, size_t n, size_t bytes, coir__sort_less less, char *t) {
  size_t i = 1;
  bool falls = less(v + bytes, v);
  while (i < n && less(v + i * bytes, v + (i - 1) * bytes) == falls) i++;
  if (i < n) return false;
  for (char *lo = v, *hi = v + (n - 1) * bytes; falls && lo < hi; lo += bytes, hi -= bytes) {
    memcpy(t, lo, bytes), memcpy(lo, hi, bytes), memcpy(hi, t, bytes);
  }
  return true;
}

/* Puts v[i] and v[j] in order; without a branch, which would be guessed wrong half of the time. */
COIR__SORT_STEP void coir__sort_two(char *v, size_t i, size_t j, size_t bytes, coir__sort_less less, char *t) {
  char *a = v + i * bytes, *b = v + j * bytes;
  size_t shift = (size_t)less(b, a) * (size_t)(b - a);
  memcpy(t, b - shift, bytes), memcpy(a, a + shift, bytes), memcpy(b, t, bytes);
}

/* Sorts a few: eight by a network (Batcher, "Sorting Networks and Their Applications", 1968), what is left by
 * insertion. */
COIR__SORT_STEP void coir__sort_few(char *v, size_t n, size_t bytes, coir__sort_less less, char *t) {
  size_t i = 1;
  if (n >= 8) {
#define COIR__SORT_TWO(i, j) coir__sort_two(v, i, j, bytes, less, t)
    COIR__SORT_TWO(0, 1), COIR__SORT_TWO(2, 3), COIR__SORT_TWO(4, 5), COIR__SORT_TWO(6, 7);
    COIR__SORT_TWO(0, 2), COIR__SORT_TWO(1, 3), COIR__SORT_TWO(4, 6), COIR__SORT_TWO(5, 7);
    COIR__SORT_TWO(1, 2), COIR__SORT_TWO(5, 6);
    COIR__SORT_TWO(0, 4), COIR__SORT_TWO(1, 5), COIR__SORT_TWO(2, 6), COIR__SORT_TWO(3, 7);
    COIR__SORT_TWO(2, 4), COIR__SORT_TWO(3, 5);
    COIR__SORT_TWO(1, 2), COIR__SORT_TWO(3, 4), COIR__SORT_TWO(5, 6);
#undef COIR__SORT_TWO
    i = 8;
  }
  for (; i < n; i++) {
    char *at = v + i * bytes;
    if (!less(at, at - bytes)) continue;
    memcpy(t, at, bytes);
    do {
      memcpy(at, at - bytes, bytes);
      at -= bytes;
    } while (at > v && less(t, at - bytes));
    memcpy(at, t, bytes);
  }
}

/* Somewhere in part i of `parts`: not at a regular place, where a regular input could have prepared something. */
COIR__SORT_STEP char *coir__sort_spot(char *v, size_t n, size_t bytes, unsigned i, unsigned parts) {
  uint64_t step = n / parts, mixed = (uint32_t)((uint32_t)n + i) * (uint64_t)0x9e3779b1;
  return v + (i * step + ((uint32_t)mixed * step >> 32)) * bytes;
}

COIR__SORT_STEP char *coir__sort_median(char *a, char *b, char *c, coir__sort_less less) {
  bool a_b = less(a, b), a_c = less(a, c);
  if (a_b != a_c) return a;
  return less(b, c) == a_b ? b : c;
}

/* Swaps a pivot to v[0], of at least nine. `follows`: v[-1] is an element, and was the pivot when these were divided
 * from what is before it. Returns whether the new pivot is no more than that: then there are several of them, which
 * are to be divided from what is more. */
COIR__SORT_STEP bool coir__sort_pick(char *v, size_t n, size_t bytes, coir__sort_less less, bool follows, char *t) {
  char *spots[9];
  unsigned parts = n < 64 ? 3 : 9;
  for (unsigned i = 0; i < parts; i++) spots[i] = coir__sort_spot(v, n, bytes, i, parts);
  for (; parts > 1; parts /= 3) {
    for (unsigned i = 0; i < parts / 3; i++)
      spots[i] = coir__sort_median(spots[3 * i], spots[3 * i + 1], spots[3 * i + 2], less);
  }
  memcpy(t, v, bytes), memcpy(v, spots[0], bytes), memcpy(spots[0], t, bytes);
  return follows && !less(v - bytes, v);
}

/* The loop of all: brings to the front what comes before the pivot, or with `equal` what does not come after it, and
 * returns how many those are. There are n > 0.
 *
 * It is Lomuto's partition without a branch (Edelkamp and Weiss, "BlockQuicksort", ESA 2016, showed what guesses cost,
 * and that Hoare's can do without, with buffers of offsets; this one is shorter, and faster for small elements). The
 * first element is taken out, so there is a gap, which follows the reader: what stood at `front` moves into the gap,
 * what was read moves to `front`, and `front` goes on by one, or by none. */
COIR__SORT_STEP size_t coir__sort_divide_by(char *v, size_t n, size_t bytes, coir__sort_less less, bool equal,
                                            const char *pivot, char *t) {
  char *gap = v, *at = v + bytes, *end = v + n * bytes, *front = v;
  memcpy(t, v, bytes);
#define COIR__SORT_MOVE(from)                                         \
  do {                                                                \
    size_t is_front = equal ? !less(pivot, from) : less(from, pivot); \
    memcpy(gap, front, bytes), memcpy(front, from, bytes);            \
    front += is_front * bytes;                                        \
  } while (0)
  while ((size_t)(end - at) >= 2 * bytes) {
    COIR__SORT_MOVE(at);
    gap = at;
    COIR__SORT_MOVE(at + bytes);
    gap = at + bytes;
    at += 2 * bytes;
  }
  if (at < end) {
    COIR__SORT_MOVE(at);
    gap = at;
  }
  COIR__SORT_MOVE(t);
#undef COIR__SORT_MOVE
  return (size_t)(front - v) / bytes;
}

COIR__SORT_STEP size_t coir__sort_divide(char *v, size_t n, size_t bytes, coir__sort_less less, const char *pivot,
                                         bool equal, char *p, char *t) {
  memcpy(p, pivot, bytes);
  return equal ? coir__sort_divide_by(v, n, bytes, less, true, p, t)
               : coir__sort_divide_by(v, n, bytes, less, false, p, t);
}

/* A type's steps, and the sort that is made of them (src/sort.c). */
struct coir__sort_kind {
  size_t bytes;
  coir__sort_less less;
  bool (*ordered)(char *v, size_t n); /* n > 1 */
  void (*few)(char *v, size_t n);
  bool (*pick)(char *v, size_t n, bool follows);
  size_t (*divide)(char *v, size_t n, const char *pivot, bool equal);
};
COIR_API int coir__sort(struct coir_job_system *system, void *base, size_t count, const struct coir__sort_kind *kind);

#ifdef __cplusplus
}
#endif
#endif
