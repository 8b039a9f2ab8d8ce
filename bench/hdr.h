/* A histogram of times with three significant digits, whatever their size.
 *
 * The idea is Gil Tene's HdrHistogram: a value falls into a bucket by its highest bit and, within that power of two,
 * by its next ten bits. So a bucket is never wider than a thousandth of what it holds, recording is a count of leading
 * zeros and an addition, and the whole has a fixed size: for values below 2^40, eighteen minutes in nanoseconds, it
 * is a quarter of a MiB. Greater values are counted as if they were 2^40 - 1; `max` is exact all the same.
 *
 * A struct hdr belongs to one thread; hdr_merge adds those of several threads up when they are done. */
#ifndef BENCH_HDR_H
#define BENCH_HDR_H

#include <stdint.h>
#include <string.h>

#define HDR_BITS 10 /* of a value, after its highest */
#define HDR_VALUE_BITS 40
#define HDR_STEPS (UINT64_C(1) << HDR_BITS)
/* Values below 2 * HDR_STEPS have a bucket each; from there on there are HDR_STEPS to a power of two. */
#define HDR_BUCKETS ((size_t)(HDR_VALUE_BITS - HDR_BITS + 1) << HDR_BITS)

struct hdr {
  uint64_t count; /* of all values */
  uint64_t min, max;
  uint64_t counts[HDR_BUCKETS];
};

static inline void hdr_init(struct hdr *h) {
  memset(h, 0, sizeof *h);
  h->min = UINT64_MAX;
}

/* How many low bits the bucket of `value` does not tell apart. */
static inline unsigned hdr_shift(uint64_t value) {
  return 63 - HDR_BITS - (unsigned)__builtin_clzll(value | HDR_STEPS);
}

static inline size_t hdr_bucket(uint64_t value) {
  if (value >> HDR_VALUE_BITS != 0) value = (UINT64_C(1) << HDR_VALUE_BITS) - 1;
  unsigned shift = hdr_shift(value);
  return ((size_t)shift << HDR_BITS) + (size_t)(value >> shift);
}

/* The greatest value that falls into a bucket. */
static inline uint64_t hdr_highest(size_t bucket) {
  unsigned shift = bucket < 2 * HDR_STEPS ? 0 : (unsigned)(bucket >> HDR_BITS) - 1;
  return ((uint64_t)bucket - ((uint64_t)shift << HDR_BITS) + 1) * (UINT64_C(1) << shift) - 1;
}

static inline void hdr_record(struct hdr *h, uint64_t value) {
  h->counts[hdr_bucket(value)]++;
  h->count++;
  if (value < h->min) h->min = value;
  if (value > h->max) h->max = value;
}

/* The least value that `percent` of all values do not exceed, to three digits; 0 when there are none. */
static inline uint64_t hdr_percentile(const struct hdr *h, double percent) {
  double wanted = percent / 100 * (double)h->count;
  uint64_t rank = (uint64_t)wanted, seen = 0;
  if ((double)rank < wanted || rank == 0) rank++;
  if (h->count == 0) return 0;
  for (size_t i = 0; i < HDR_BUCKETS; i++) {
    seen += h->counts[i];
    if (seen >= rank && hdr_highest(i) < h->max) return hdr_highest(i);
    if (seen >= rank) break;
  }
  return h->max;
}

/* Adds the values of `other`. */
static inline void hdr_merge(struct hdr *h, const struct hdr *other) {
  for (size_t i = 0; i < HDR_BUCKETS; i++) h->counts[i] += other->counts[i];
  h->count += other->count;
  if (other->min < h->min) h->min = other->min;
  if (other->max > h->max) h->max = other->max;
}

#endif
