/* Sorting: what COIR_SORT_DEFINE makes (coir_sort.h), the sorts of numbers, and the stable one of coir_job.h.
 *
 * The unstable sort is quicksort, in the manner of Peters ("Pattern-defeating Quicksort", 2021). The header has the
 * loops that compare, compiled for each type; here is what they have in common. Three things keep the worst case at n
 * log n: pivots are medians of places that no regular input knows; elements that are equal to a pivot are divided off,
 * all of them, as soon as a second one of them is chosen; and after 2 log n divisions that went badly what is left is
 * sorted by a heap.
 *
 * In parallel, the two sides of a division are a fork. That alone leaves the first divisions to one worker, and with it
 * half of its time even on an unlimited number of workers. So a large division is itself shared when others are out of
 * work: each block is divided for itself, by the same pivot; then the front of the whole is known, and what is on the
 * wrong side of it is exchanged, both lists of it in order, in equal shares. That costs a quarter of the elements a
 * second move, and is not done when everybody has work: on one worker never, on two once.
 *
 * Measured and rejected: sorting 64-bit numbers by their digits (11 bits at a time; takes 1.7 times as long for 10^7,
 * as each pass misses the TLB, and needs as much memory again); small parts by merging from both ends (4 % less, but
 * more code than the rest, and a second copy to fall back on where a comparison contradicts itself).
 *
 * The stable sort is a merge sort between the array and as much memory again. A large merge is cut in two at the middle
 * of its longer side, and its halves are a fork as well. */
#include <string.h>

#include "coir_sort.h"
#include "internal.h"
#include "job.h"

#define SORT_FORK_MIN 1024               /* elements; fewer are sorted by one worker */
#define SORT_SHARE_MIN ((size_t)1 << 17) /* elements; fewer are divided by one worker */
#define SORT_FORKS_DEEP 40               /* forks in one another; below them it goes on without, for the stack's sake */

static void sort_swap(char *a, char *b, size_t bytes) {
  char t[256];
  for (size_t part; bytes > 0; a += part, b += part, bytes -= part) {
    part = bytes < sizeof t ? bytes : sizeof t;
    memcpy(t, a, part), memcpy(a, b, part), memcpy(b, t, part);
  }
}

/* ---- Unstable: on one worker ------------------------------------------------------------------------------------ */

/* A division: v[0] to v[left - 1] are to be sorted, then come some that are in their places, one at least; v[right] to
 * the end are to be sorted. */
struct sort_cut {
  size_t left, right;
};

static void sort_sift(const struct coir__sort_kind *kind, char *v, size_t i, size_t n) {
  size_t bytes = kind->bytes;
  for (size_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && kind->less(v + child * bytes, v + (child + 1) * bytes)) child++;
    if (!kind->less(v + i * bytes, v + child * bytes)) return;
    sort_swap(v + i * bytes, v + child * bytes, bytes);
  }
}

static void sort_by_heap(const struct coir__sort_kind *kind, char *v, size_t n) {
  for (size_t i = n / 2; i-- > 0;) sort_sift(kind, v, i, n);
  for (size_t i = n; --i > 0;) {
    sort_swap(v, v + i * kind->bytes, kind->bytes);
    sort_sift(kind, v, 0, i);
  }
}

/* The pivot is v[0]; `front` of the others have been brought to the front. */
static struct sort_cut sort_cut_at(const struct coir__sort_kind *kind, char *v, size_t front, bool equal) {
  if (equal) return (struct sort_cut){0, front + 1};
  sort_swap(v, v + front * kind->bytes, kind->bytes);
  return (struct sort_cut){front, front + 1};
}

static bool sort_is_bad(struct sort_cut cut, size_t n) { return cut.left > n - n / 8 || n - cut.right > n - n / 8; }

static unsigned sort_limit(size_t n) {
  unsigned limit = 0;
  for (; n > 0; n >>= 1) limit += 2;
  return limit;
}

/* Recurses for the smaller side, so the stack is never deeper than log n. */
static void sort_alone(const struct coir__sort_kind *kind, char *v, size_t n, bool follows, unsigned limit) {
  while (n > COIR__SORT_FEW) {
    if (limit == 0) {
      sort_by_heap(kind, v, n);
      return;
    }
    bool equal = kind->pick(v, n, follows);
    size_t front = kind->divide(v + kind->bytes, n - 1, v, equal);
    struct sort_cut cut = sort_cut_at(kind, v, front, equal);
    limit -= sort_is_bad(cut, n);
    char *right = v + cut.right * kind->bytes;
    if (cut.left < n - cut.right) {
      sort_alone(kind, v, cut.left, follows, limit);
      v = right, n -= cut.right, follows = true;
    } else {
      sort_alone(kind, right, n - cut.right, true, limit);
      n = cut.left;
    }
  }
  kind->few(v, n);
}

/* ---- A division by several workers ------------------------------------------------------------------------------ */

#define SORT_BLOCKS 64

/* Elements that stand together, on the wrong side. */
struct sort_run {
  size_t at, n;
};

struct sort_share {
  const struct coir__sort_kind *kind;
  char *v;
  const char *pivot;
  bool equal;
  size_t block;                                        /* elements in each but the last */
  size_t front[SORT_BLOCKS];                           /* of each block: how many were brought to its front */
  struct sort_run low[SORT_BLOCKS], high[SORT_BLOCKS]; /* the runs before the whole's front, and after it */
};

static void sort_divide_block(size_t lo, size_t hi, void *arg) {
  struct sort_share *s = arg;
  s->front[lo / s->block] = s->kind->divide(s->v + lo * s->kind->bytes, hi - lo, s->pivot, s->equal);
}

/* The k-th element of all runs: which run; *k becomes its number there. */
static const struct sort_run *sort_find(const struct sort_run *run, size_t *k) {
  for (; *k >= run->n; run++) *k -= run->n;
  return run;
}

/* Exchanges the lo-th to (hi-1)-th of both lists. */
static void sort_exchange(size_t lo, size_t hi, void *arg) {
  struct sort_share *s = arg;
  size_t bytes = s->kind->bytes, i = lo, j = lo;
  const struct sort_run *a = sort_find(s->low, &i), *b = sort_find(s->high, &j);
  for (size_t n = hi - lo, part; n > 0; n -= part, i += part, j += part) {
    if (i == a->n) a++, i = 0;
    if (j == b->n) b++, j = 0;
    part = n;
    if (part > a->n - i) part = a->n - i;
    if (part > b->n - j) part = b->n - j;
    sort_swap(s->v + (a->at + i) * bytes, s->v + (b->at + j) * bytes, part * bytes);
  }
}

/* Lists what is on the wrong side, and returns how many those are on each. No run is empty. */
static size_t sort_list_wrong(struct sort_share *s, size_t n, size_t front) {
  size_t lows = 0, highs = 0, wrong = 0;
  for (size_t k = 0, lo = 0; lo < n; k++, lo += s->block) {
    size_t hi = n - lo < s->block ? n : lo + s->block, middle = lo + s->front[k];
    size_t end = hi < front ? hi : front, begin = lo > front ? lo : front;
    if (middle < end) {
      s->low[lows++] = (struct sort_run){middle, end - middle};
      wrong += end - middle;
    }
    if (begin < middle) s->high[highs++] = (struct sort_run){begin, middle - begin};
  }
  return wrong;
}

/* As the kind's divide. */
static size_t sort_divide_shared(const struct coir__sort_kind *kind, char *v, size_t n, const char *pivot, bool equal) {
  struct sort_share s = {
      .kind = kind, .v = v, .pivot = pivot, .equal = equal, .block = (n + SORT_BLOCKS - 1) / SORT_BLOCKS};
  coir_parallel_range(NULL, 0, n, s.block, sort_divide_block, &s);
  size_t front = 0;
  for (size_t k = 0; k < SORT_BLOCKS; k++) front += s.front[k];
  size_t wrong = sort_list_wrong(&s, n, front);
  coir_parallel_range(NULL, 0, wrong, wrong / SORT_BLOCKS + 1, sort_exchange, &s);
  return front;
}

/* ---- Unstable: on all workers ----------------------------------------------------------------------------------- */

struct sort_part {
  const struct coir__sort_kind *kind;
  char *v;
  size_t n;
  bool follows; /* see coir__sort_pick */
  unsigned limit, depth;
};

/* Whether other workers have no work, and this one nothing that they could take. */
static bool sort_has_helpers(void) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  /* Relaxed: a hint. */
  return w && (atm_load_rlx(&w->rt->idle_mask) || atm_load_rlx(&w->rt->searching)) && coir__fork_is_wanted();
}

static struct sort_cut sort_cut_shared(const struct sort_part *p) {
  bool equal = p->kind->pick(p->v, p->n, p->follows);
  char *rest = p->v + p->kind->bytes;
  bool is_shared = p->n >= SORT_SHARE_MIN && sort_has_helpers();
  size_t front = is_shared ? sort_divide_shared(p->kind, rest, p->n - 1, p->v, equal)
                           : p->kind->divide(rest, p->n - 1, p->v, equal);
  return sort_cut_at(p->kind, p->v, front, equal);
}

static void sort_part(void *arg) {
  struct sort_part p = *(const struct sort_part *)arg;
  while (p.n > SORT_FORK_MIN && p.limit > 0 && p.depth < SORT_FORKS_DEEP) {
    struct sort_cut cut = sort_cut_shared(&p);
    p.limit -= sort_is_bad(cut, p.n);
    struct sort_part right = p;
    right.v += cut.right * p.kind->bytes, right.n -= cut.right, right.follows = true;
    if (cut.left == 0) {
      p = right;
      continue;
    }
    p.n = cut.left, right.depth = ++p.depth;
    coir_fork2(sort_part, &p, sort_part, &right);
    return;
  }
  sort_alone(p.kind, p.v, p.n, p.follows, p.limit);
}

static void sort_whole(void *arg) {
  struct sort_part *p = arg;
  if (!p->kind->ordered(p->v, p->n)) sort_part(p);
}

int coir__sort(struct coir_job_system *system, void *base, size_t count, const struct coir__sort_kind *kind) {
  if (count == 0) return 0;
  if (!base) return -EINVAL;
  if (count == 1) return 0;
  struct sort_part p = {.kind = kind, .v = base, .n = count, .limit = sort_limit(count)};
  return coir__job_call(system, sort_whole, &p);
}

/* ---- Numbers ---------------------------------------------------------------------------------------------------- */

/* Read by memcpy, because floating-point numbers are sorted as integers. */
#define SORT_NUMBERS(name, type)                                                                       \
  static inline type name##_at(const type *p) {                                                        \
    type value;                                                                                        \
    memcpy(&value, p, sizeof value);                                                                   \
    return value;                                                                                      \
  }                                                                                                    \
  static inline bool name##_less(const type *a, const type *b) { return name##_at(a) < name##_at(b); } \
  COIR_SORT_DEFINE(name, type, name##_less)
SORT_NUMBERS(sort_i64, int64_t)
SORT_NUMBERS(sort_u64, uint64_t)
SORT_NUMBERS(sort_i32, int32_t)
SORT_NUMBERS(sort_u32, uint32_t)

int coir_parallel_sort_i64(struct coir_job_system *system, int64_t *base, size_t count) {
  return sort_i64(system, base, count);
}
int coir_parallel_sort_u64(struct coir_job_system *system, uint64_t *base, size_t count) {
  return sort_u64(system, base, count);
}
int coir_parallel_sort_i32(struct coir_job_system *system, int32_t *base, size_t count) {
  return sort_i32(system, base, count);
}
int coir_parallel_sort_u32(struct coir_job_system *system, uint32_t *base, size_t count) {
  return sort_u32(system, base, count);
}

/* Floating-point numbers become integers of the same order, are sorted as those, which is quicker, and come back: those
 * with the sign bit are complemented, the others get it. NaNs with the sign bit would be lowest then, so all are moved
 * down by as many as there are of them, which takes these round to the top. */
#define SORT_FLOATS(name, type, bits, below)                                           \
  static void name##_to_keys(size_t lo, size_t hi, void *arg) {                        \
    for (char *at = (char *)arg + lo * sizeof(type); lo < hi; lo++) {                  \
      type key;                                                                        \
      memcpy(&key, at, sizeof key);                                                    \
      key = (key ^ (((type)0 - (key >> (bits - 1))) | (type)1 << (bits - 1))) - below; \
      memcpy(at, &key, sizeof key);                                                    \
      at += sizeof key;                                                                \
    }                                                                                  \
  }                                                                                    \
  static void name##_from_keys(size_t lo, size_t hi, void *arg) {                      \
    for (char *at = (char *)arg + lo * sizeof(type); lo < hi; lo++) {                  \
      type key;                                                                        \
      memcpy(&key, at, sizeof key);                                                    \
      key += below;                                                                    \
      key ^= ((key >> (bits - 1)) - 1) | (type)1 << (bits - 1);                        \
      memcpy(at, &key, sizeof key);                                                    \
      at += sizeof key;                                                                \
    }                                                                                  \
  }
SORT_FLOATS(sort_f64, uint64_t, 64, UINT64_C(0x000fffffffffffff))
SORT_FLOATS(sort_f32, uint32_t, 32, UINT32_C(0x007fffff))

struct sort_floats {
  void *base;
  size_t n;
};

static void sort_f64(void *arg) {
  struct sort_floats *s = arg;
  coir_parallel_range(NULL, 0, s->n, 0, sort_f64_to_keys, s->base);
  sort_u64(NULL, s->base, s->n);
  coir_parallel_range(NULL, 0, s->n, 0, sort_f64_from_keys, s->base);
}

static void sort_f32(void *arg) {
  struct sort_floats *s = arg;
  coir_parallel_range(NULL, 0, s->n, 0, sort_f32_to_keys, s->base);
  sort_u32(NULL, s->base, s->n);
  coir_parallel_range(NULL, 0, s->n, 0, sort_f32_from_keys, s->base);
}

/* All of it in one call of the system, which may refuse: not with the numbers half way. */
static int sort_floats(struct coir_job_system *system, coir_task_fn fn, void *base, size_t count) {
  if (count == 0) return 0;
  if (!base) return -EINVAL;
  return coir__job_call(system, fn, &(struct sort_floats){base, count});
}

int coir_parallel_sort_f64(struct coir_job_system *system, double *base, size_t count) {
  return sort_floats(system, sort_f64, base, count);
}
int coir_parallel_sort_f32(struct coir_job_system *system, float *base, size_t count) {
  return sort_floats(system, sort_f32, base, count);
}

/* ---- Stable ----------------------------------------------------------------------------------------------------- */

#define STABLE_FEW 12
#define STABLE_MERGE_MIN 8192 /* elements; fewer are merged by one worker */

struct stable_kind {
  size_t bytes;
  int (*compare)(const void *a, const void *b, void *arg);
  void *arg;
};

static inline bool stable_less(const struct stable_kind *kind, const char *a, const char *b) {
  return kind->compare(a, b, kind->arg) < 0;
}

/* Two runs in order, `a` before `b` where they are equal. */
struct stable_merge {
  const struct stable_kind *kind;
  const char *a, *b;
  size_t a_n, b_n;
  char *out;
};

/* Inlined for the usual sizes: then a move is a load and a store. */
static inline __attribute__((always_inline)) void stable_merge_of(const struct stable_merge *m, size_t bytes) {
  const char *a = m->a, *b = m->b, *a_end = a + m->a_n * bytes, *b_end = b + m->b_n * bytes;
  char *out = m->out;
  for (; a < a_end && b < b_end; out += bytes) {
    size_t is_b = stable_less(m->kind, b, a);
    memcpy(out, is_b ? b : a, bytes);
    b += is_b * bytes, a += (1 - is_b) * bytes;
  }
  memcpy(out, a, (size_t)(a_end - a));
  memcpy(out + (a_end - a), b, (size_t)(b_end - b));
}

static void stable_merge_alone(const struct stable_merge *m) {
  switch (m->kind->bytes) {
  case 4: stable_merge_of(m, 4); break;
  case 8: stable_merge_of(m, 8); break;
  case 16: stable_merge_of(m, 16); break;
  default: stable_merge_of(m, m->kind->bytes);
  }
}

/* How many of the run at `v` go before x: those that are less, and those that are equal if `with_equal`. */
static size_t stable_before(const struct stable_kind *kind, const char *v, size_t n, const char *x, bool with_equal) {
  size_t from = 0;
  while (from < n) {
    size_t middle = from + (n - from) / 2;
    const char *at = v + middle * kind->bytes;
    if (with_equal ? !stable_less(kind, x, at) : stable_less(kind, at, x)) from = middle + 1;
    else n = middle;
  }
  return from;
}

static void stable_merge_part(void *arg) {
  struct stable_merge m = *(const struct stable_merge *)arg, upper = m;
  if (m.a_n + m.b_n < STABLE_MERGE_MIN) {
    stable_merge_alone(&m);
    return;
  }
  size_t bytes = m.kind->bytes;
  if (m.a_n >= m.b_n) {
    upper.a_n -= m.a_n /= 2;
    m.b_n = stable_before(m.kind, m.b, m.b_n, m.a + m.a_n * bytes, false);
    upper.b_n -= m.b_n;
  } else {
    upper.b_n -= m.b_n /= 2;
    m.a_n = stable_before(m.kind, m.a, m.a_n, m.b + m.b_n * bytes, true);
    upper.a_n -= m.a_n;
  }
  upper.a += m.a_n * bytes, upper.b += m.b_n * bytes, upper.out += (m.a_n + m.b_n) * bytes;
  coir_fork2(stable_merge_part, &m, stable_merge_part, &upper);
}

/* What is to be sorted lies in `from`, and ends up there, or in `to`; the other one is room. */
struct stable_part {
  const struct stable_kind *kind;
  char *from, *to;
  size_t n;
  bool moves;
};

static void stable_few(const struct stable_part *p) {
  const struct stable_kind *kind = p->kind;
  size_t bytes = kind->bytes;
  char *from = p->from, *to = p->to;
  if (!p->moves) {
    memcpy(to, from, p->n * bytes);
    from = p->to, to = p->from;
  }
  for (size_t i = 0; i < p->n; i++, from += bytes) {
    size_t at = i;
    while (at > 0 && stable_less(kind, from, to + (at - 1) * bytes)) at--;
    memmove(to + (at + 1) * bytes, to + at * bytes, (i - at) * bytes);
    memcpy(to + at * bytes, from, bytes);
  }
}

static void stable_sort_part(void *arg) {
  const struct stable_part *p = arg;
  if (p->n <= STABLE_FEW) {
    stable_few(p);
    return;
  }
  size_t bytes = p->kind->bytes, half = p->n / 2;
  struct stable_part a = *p, b = *p;
  a.moves = b.moves = !p->moves;
  a.n = half, b.n -= half, b.from += half * bytes, b.to += half * bytes;
  if (p->n >= SORT_FORK_MIN) {
    coir_fork2(stable_sort_part, &a, stable_sort_part, &b);
  } else {
    stable_sort_part(&a);
    stable_sort_part(&b);
  }
  char *in = p->moves ? p->from : p->to, *out = p->moves ? p->to : p->from, *second = in + half * bytes;
  struct stable_merge m = {.kind = p->kind, .a = in, .b = second, .a_n = half, .b_n = b.n, .out = out};
  if (stable_less(p->kind, second, second - bytes)) stable_merge_part(&m);
  else memcpy(out, in, p->n * bytes);
}

struct stable_call {
  struct stable_part part;
  int rc;
};

static void stable_whole(void *arg) {
  struct stable_call *call = arg;
  struct stable_part *p = &call->part;
  struct coir_runtime *rt = coir_runtime_current();
  size_t total = p->n * p->kind->bytes;
  p->to = coir__alloc(rt, total);
  call->rc = p->to ? 0 : -ENOMEM;
  if (call->rc) return;
  bool has_failed = coir__guarded(stable_sort_part, p) != 0;
  coir__free(rt, p->to, total);
  if (has_failed) coir__nest_fail();
}

int coir_parallel_sort(struct coir_job_system *system, void *base, size_t count, size_t bytes,
                       int (*compare)(const void *a, const void *b, void *arg), void *arg) {
  if (!compare || bytes == 0 || (!base && count) || count > SIZE_MAX / bytes) return -EINVAL;
  if (count < 2) return 0;
  struct stable_kind kind = {bytes, compare, arg};
  struct stable_call call = {.part = {.kind = &kind, .from = base, .n = count}};
  int rc = coir__job_call(system, stable_whole, &call);
  return rc ? rc : call.rc;
}
