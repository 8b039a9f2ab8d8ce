/* Sorting: each sort of coir_sort.h, and coir_parallel_sort, on inputs of all kinds and sizes, from everywhere. */
#include "jobs.h"

#include <math.h>

#include "coir_sort.h"

/* ---- What is sorted --------------------------------------------------------------------------------------------- */

struct three {
  uint8_t bytes[3];
};
struct wide {
  double key;
  char rest[49]; /* 64 bytes with what fills it up */
};
struct long_one {
  uint32_t rest[150], key;
};

#define LESS(a, b) (*(a) < *(b))
#define LESS_THREE(a, b) (memcmp((a)->bytes, (b)->bytes, 3) < 0)
#define LESS_KEY(a, b) ((a)->key < (b)->key)
COIR_SORT_DEFINE(sort_byte, uint8_t, LESS)
COIR_SORT_DEFINE(sort_three, struct three, LESS_THREE)
COIR_SORT_DEFINE(sort_wide, struct wide, LESS_KEY)
COIR_SORT_DEFINE(sort_long, struct long_one, LESS_KEY)
COIR_SORT_DEFINE(sort_double, double, LESS)

/* The order of the sorts of doubles and floats, said in other words. */
static bool is_before(double a, double b) {
  if (isnan(a) || isnan(b)) return isnan(a) && isnan(b) ? signbit(b) && !signbit(a) : isnan(b);
  return a < b || (a == b && signbit(a) && !signbit(b));
}

/* How elements of a type are made of a number, in its order as far as the type has room; compared; and sorted. */
struct type {
  size_t bytes;
  void (*make)(void *elem, uint64_t number);
  bool (*less)(const void *a, const void *b);
  int (*sort)(struct coir_job_system *system, void *base, size_t count);
};

#define TYPE(name, T, expression, order, call)                                        \
  static void name##_make(void *elem, uint64_t number) { *(T *)elem = (expression); } \
  static bool name##_less(const void *x, const void *y) {                             \
    const T *a = x, *b = y;                                                           \
    return (order);                                                                   \
  }                                                                                   \
  static int name##_sort(struct coir_job_system *system, void *base, size_t count) {  \
    return call(system, base, count);                                                 \
  }                                                                                   \
  static const struct type name = {sizeof(T), name##_make, name##_less, name##_sort};
TYPE(f64, double, (double)(int64_t)number / 3, is_before(*a, *b), coir_parallel_sort_f64)
TYPE(f32, float, (float)(int32_t)number / 3, is_before(*a, *b), coir_parallel_sort_f32)
TYPE(i64, int64_t, (int64_t)number, *a < *b, coir_parallel_sort_i64)
TYPE(u64, uint64_t, number, *a < *b, coir_parallel_sort_u64)
TYPE(i32, int32_t, (int32_t)number, *a < *b, coir_parallel_sort_i32)
TYPE(u32, uint32_t, (uint32_t)number, *a < *b, coir_parallel_sort_u32)
TYPE(u8, uint8_t, (uint8_t)number, *a < *b, sort_byte)
TYPE(three, struct three, ((struct three){{(uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number}}),
     memcmp(a->bytes, b->bytes, 3) < 0, sort_three)
TYPE(wide, struct wide, ((struct wide){.key = (double)number, .rest = {[40] = (char)(number * 3)}}), a->key < b->key,
     sort_wide)
TYPE(long_one, struct long_one, ((struct long_one){.key = (uint32_t)number, .rest = {[99] = (uint32_t)number * 3}}),
     a->key < b->key, sort_long)

static int compare_u64(const void *a, const void *b, void *arg) {
  (void)arg;
  return (LESS((const uint64_t *)b, (const uint64_t *)a)) - (LESS((const uint64_t *)a, (const uint64_t *)b));
}
#define STABLE_U64(system, base, count) coir_parallel_sort(system, base, count, 8, compare_u64, NULL)
TYPE(stable, uint64_t, number, *a < *b, STABLE_U64)

static int compare_wide(const void *a, const void *b, void *arg) {
  CHECK_EQ(*(int *)arg, 4711);
  return wide_less(b, a) - wide_less(a, b);
}
static int magic = 4711;
#define STABLE_WIDE(system, base, count) \
  coir_parallel_sort(system, base, count, sizeof(struct wide), compare_wide, &magic)
TYPE(stable_wide, struct wide, ((struct wide){.key = (double)number, .rest = {[48] = (char)(number * 3)}}),
     a->key < b->key, STABLE_WIDE)

static const struct type *const types[] = {&f64, &f32,   &i64,  &u64,      &i32,    &u32,
                                           &u8,  &three, &wide, &long_one, &stable, &stable_wide};
#define TYPES (sizeof types / sizeof types[0])

/* ---- Inputs ----------------------------------------------------------------------------------------------------- */

enum pattern { RANDOM, RISING, FALLING, EQUAL, FEW, PIPE, SAW, TEETH, TAIL, SWAPPED, PATTERNS };

static uint64_t number_of(enum pattern pattern, size_t i, size_t n, uint64_t *rng) {
  uint64_t random = rng_next(rng);
  switch (pattern) {
  case RISING: return i;
  case FALLING: return n - i;
  case EQUAL: return 7;
  case FEW: return random % 4;
  case PIPE: return i < n / 2 ? i : n - i;
  case SAW: return i % 17;
  case TEETH: return i % 2 ? i : n - i;
  case TAIL: return i < n - n / 50 ? i : random % (n + 1);
  case SWAPPED: return i == n / 3 ? n : i;
  default: return random;
  }
}

/* The same whatever the order of the elements. */
static uint64_t sum_of(const char *base, size_t count, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t k = 0; k < bytes; k++) hash = (hash ^ (uint8_t)base[i * bytes + k]) * UINT64_C(0x100000001b3);
    sum += hash;
  }
  return sum;
}

/* Exactly as large as it is said, so that AddressSanitizer sees the first byte too many. */
static char *make_input(const struct type *type, enum pattern pattern, size_t n, uint64_t seed) {
  uint64_t rng = rng_seed(seed);
  char *base = malloc(n * type->bytes + !n);
  CHECK(base);
  memset(base, 0, n * type->bytes); /* what fills elements up is compared too */
  for (size_t i = 0; i < n; i++) type->make(base + i * type->bytes, number_of(pattern, i, n, &rng));
  return base;
}

static void check_order(const struct type *type, const char *base, size_t n) {
  for (size_t i = 1; i < n; i++) CHECK(!type->less(base + i * type->bytes, base + (i - 1) * type->bytes));
}

static void sort_and_check(struct coir_job_system *system, const struct type *type, enum pattern pattern, size_t n) {
  char *base = make_input(type, pattern, n, n * 31 + pattern);
  uint64_t sum = sum_of(base, n, type->bytes);
  CHECK_EQ(type->sort(system, base, n), 0);
  check_order(type, base, n);
  CHECK_EQ(sum_of(base, n, type->bytes), sum);
  free(base);
}

/* Large enough for a division by several workers; smaller where elements are large. */
static size_t large(const struct type *type) {
  size_t n = IS_SANITIZED ? 150000 : 400000;
  return type->bytes > 100 ? 20000 : n;
}

/* ---- From where ------------------------------------------------------------------------------------------------- */

typedef void (*body_fn)(struct coir_job_system *system);

struct where {
  body_fn body;
  struct coir_job_system *system;
};
static int on_fiber(void *arg) {
  const struct where *where = arg;
  where->body(where->system);
  return 0;
}
static void in_job(struct coir_job *job, void *arg) {
  (void)job;
  on_fiber(arg);
}

/* The body on a plain thread and a fiber, alone and with a system, and in a job of that. */
static void everywhere(body_fn body) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  body(NULL);
  run(on_fiber, &(struct where){body, NULL});
  body(jobs);
  run(on_fiber, &(struct where){body, jobs});
  finish(coir_job_run(jobs, in_job, &(struct where){body, NULL}));
  finish(coir_job_run(jobs, in_job, &(struct where){body, jobs}));
  end_jobs(jobs, 0);
}
#define EVERYWHERE(name)                                   \
  static void name##_body(struct coir_job_system *system); \
  static void name(void) { everywhere(name##_body); }      \
  static void name##_body(struct coir_job_system *system)
#define ON_A_FIBER(name)                                                        \
  static void name##_body(struct coir_job_system *system);                      \
  static void name(void) { run(on_fiber, &(struct where){name##_body, NULL}); } \
  static void name##_body(struct coir_job_system *system)

/* ---- Order ------------------------------------------------------------------------------------------------------ */

ON_A_FIBER(all_small_sizes) {
  size_t step = IS_SANITIZED ? 13 : 1;
  for (size_t t = 0; t < TYPES; t++) {
    for (size_t n = 0; n <= 1000; n += n < 70 ? 1 : step) {
      enum pattern pattern = (enum pattern)(n % PATTERNS);
      sort_and_check(system, types[t], RANDOM, n);
      if (n < 300) sort_and_check(system, types[t], pattern, n);
    }
  }
}

EVERYWHERE(all_patterns) {
  for (int pattern = 0; pattern < PATTERNS; pattern++) {
    sort_and_check(system, &u64, (enum pattern)pattern, 3000);
    sort_and_check(system, &stable, (enum pattern)pattern, 12000);
  }
}

ON_A_FIBER(all_patterns_large) {
  for (int pattern = 0; pattern < PATTERNS; pattern++) {
    sort_and_check(system, &f64, (enum pattern)pattern, large(&f64));
    sort_and_check(system, &stable, (enum pattern)pattern, large(&stable) / 4);
  }
}

EVERYWHERE(all_types_large) {
  for (size_t t = 0; t < TYPES; t++) sort_and_check(system, types[t], RANDOM, large(types[t]) / (IS_SANITIZED ? 8 : 1));
}

/* A large one, again and again, so that others are at its divisions at all kinds of moments. */
WITH_JOBS(large_ones_in_a_row) {
  for (int i = 0; i < rounds(30); i++) sort_and_check(jobs, &u32, i % 3 ? RANDOM : FEW, 150000 + (size_t)i * 777);
}

static void sorts_its_own(struct coir_job *job, void *number) {
  enum pattern pattern = (enum pattern)((uintptr_t)number % PATTERNS);
  (void)job;
  sort_and_check(NULL, types[(uintptr_t)number % TYPES], pattern, 5000);
}

WITH_JOBS(many_at_the_same_time) {
  struct coir_job_desc list[60];
  for (uintptr_t i = 0; i < 60; i++) list[i] = (struct coir_job_desc){.fn = sorts_its_own, .arg = (void *)i};
  finish(coir_job_run_many(jobs, list, 60));
}

/* ---- Floating-point numbers ------------------------------------------------------------------------------------- */

EVERYWHERE(nans_come_last_and_minus_zero_first) {
  static const double special[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1.5, -1.5, 5e-324, -5e-324, 1.7e308, -1.7e308};
  enum { N = 5000, KINDS = sizeof special / sizeof special[0] };
  double *d = malloc(N * sizeof *d);
  float *f = malloc(N * sizeof *f);
  CHECK(d && f);
  uint64_t rng = rng_seed(5);
  for (int i = 0; i < N; i++) {
    uint64_t random = rng_next(&rng);
    d[i] = random % 3 ? special[random / 3 % KINDS] : (double)(int64_t)random;
    if (random >> 60 == 0) d[i] = copysign(NAN, -1);
    f[i] = random % 5 ? (float)d[i] : (random & 64 ? 1e-45f : -1e-45f);
  }
  uint64_t sum_d = sum_of((char *)d, N, sizeof *d), sum_f = sum_of((char *)f, N, sizeof *f);
  CHECK_EQ(coir_parallel_sort_f64(system, d, N), 0);
  CHECK_EQ(coir_parallel_sort_f32(system, f, N), 0);
  check_order(&f64, (char *)d, N);
  check_order(&f32, (char *)f, N);
  CHECK_EQ(sum_of((char *)d, N, sizeof *d), sum_d);
  CHECK_EQ(sum_of((char *)f, N, sizeof *f), sum_f);
  CHECK(d[0] == -INFINITY && isnan(d[N - 1]) && signbit(d[N - 1]) && isnan(f[N - 1]));
  free(d);
  free(f);
}

/* ---- Stability -------------------------------------------------------------------------------------------------- */

struct card {
  uint32_t key, place;
};
static int compare_cards(const void *a, const void *b, void *arg) {
  (void)arg;
  const struct card *x = a, *y = b;
  return (x->key > y->key) - (x->key < y->key);
}

static void check_stable(struct coir_job_system *system, uint32_t n, uint32_t keys) {
  struct card *cards = malloc(n * sizeof *cards);
  CHECK(cards);
  uint64_t rng = rng_seed(n);
  for (uint32_t i = 0; i < n; i++) cards[i] = (struct card){(uint32_t)(rng_next(&rng) % keys), i};
  CHECK_EQ(coir_parallel_sort(system, cards, n, sizeof *cards, compare_cards, NULL), 0);
  for (uint32_t i = 1; i < n; i++) {
    CHECK(cards[i - 1].key <= cards[i].key);
    CHECK(cards[i - 1].key < cards[i].key || cards[i - 1].place < cards[i].place);
  }
  free(cards);
}

EVERYWHERE(equal_ones_keep_their_order) {
  for (uint32_t n = 1; n < 100; n++) check_stable(system, n, 1 + n / 4);
  check_stable(system, 30000, 3);
  check_stable(system, 30000, 200);
  check_stable(system, 60000, 1);
}

/* ---- Comparisons that contradict themselves --------------------------------------------------------------------- */

static _Atomic(uint32_t) dice;
static bool is_less_by_chance(const uint64_t *a, const uint64_t *b) {
  (void)a, (void)b;
  uint32_t n = atomic_fetch_add(&dice, 0x9e3779b9);
  return (n ^ n >> 15) * 0x2c1b3c6d >> 31;
}
#define ALWAYS(a, b) ((void)(a), (void)(b), true)
#define NEVER(a, b) ((void)(a), (void)(b), false)
#define OR_EQUAL(a, b) (*(a) <= *(b))
#define UNEQUAL(a, b) (*(a) != *(b))
#define IN_A_RING(a, b) ((*(b) - *(a)) % 3 == 1)
COIR_SORT_DEFINE(sort_by_chance, uint64_t, is_less_by_chance)
COIR_SORT_DEFINE(sort_always, uint64_t, ALWAYS)
COIR_SORT_DEFINE(sort_never, uint64_t, NEVER)
COIR_SORT_DEFINE(sort_or_equal, uint64_t, OR_EQUAL)
COIR_SORT_DEFINE(sort_unequal, uint64_t, UNEQUAL)
COIR_SORT_DEFINE(sort_ring, uint64_t, IN_A_RING)

static int compare_by_chance(const void *a, const void *b, void *arg) {
  (void)arg;
  return is_less_by_chance(a, b) ? -1 : is_less_by_chance(b, a);
}
static int compare_always(const void *a, const void *b, void *arg) {
  (void)a, (void)b, (void)arg;
  return -1;
}
static int stable_by_chance(struct coir_job_system *system, uint64_t *base, size_t count) {
  return coir_parallel_sort(system, base, count, sizeof *base, compare_by_chance, NULL);
}
static int stable_always(struct coir_job_system *system, uint64_t *base, size_t count) {
  return coir_parallel_sort(system, base, count, sizeof *base, compare_always, NULL);
}

static int (*const contrary[])(struct coir_job_system *, uint64_t *, size_t) = {
    sort_by_chance, sort_always, sort_never, sort_or_equal, sort_unequal, sort_ring, stable_by_chance, stable_always};
#define CONTRARY (sizeof contrary / sizeof contrary[0])

static void sort_contrarily(struct coir_job_system *system, size_t n, enum pattern pattern) {
  for (size_t i = 0; i < CONTRARY; i++) {
    char *base = make_input(&u64, pattern, n, n);
    uint64_t sum = sum_of(base, n, 8);
    CHECK_EQ(contrary[i](system, (uint64_t *)base, n), 0);
    CHECK_EQ(sum_of(base, n, 8), sum);
    free(base);
  }
}

ON_A_FIBER(a_contradiction_only_spoils_the_order) {
  for (size_t n = 0; n < 200; n++) sort_contrarily(system, n, (enum pattern)(n % PATTERNS));
  sort_contrarily(system, 5000, FEW);
  sort_contrarily(system, 150000, RANDOM);
}

EVERYWHERE(nans_only_spoil_the_order) {
  enum { N = 20000 };
  double *d = malloc(N * sizeof *d);
  CHECK(d);
  uint64_t rng = rng_seed(11);
  for (int i = 0; i < N; i++) d[i] = rng_next(&rng) % 3 ? (double)(int32_t)rng : NAN;
  uint64_t sum = sum_of((char *)d, N, sizeof *d);
  CHECK_EQ(sort_double(system, d, N), 0);
  CHECK_EQ(sum_of((char *)d, N, sizeof *d), sum);
  free(d);
}

/* ---- How much work it is ---------------------------------------------------------------------------------------- */

static long compared;
static bool counts_and_compares(const uint64_t *a, const uint64_t *b) {
  compared++;
  return *a < *b;
}
COIR_SORT_DEFINE(sort_counting, uint64_t, counts_and_compares)

/* How many comparisons for each element, by one thread. */
static double comparisons(enum pattern pattern, size_t n) {
  char *base = make_input(&u64, pattern, n, 1);
  compared = 0;
  CHECK_EQ(sort_counting(NULL, (uint64_t *)base, n), 0);
  check_order(&u64, base, n);
  free(base);
  return (double)compared / (double)n;
}

static void easy_inputs_are_quick(void) {
  size_t n = 100000; /* 16.6 binary digits */
  CHECK(comparisons(RISING, n) < 1.01);
  CHECK(comparisons(FALLING, n) < 1.01);
  CHECK(comparisons(EQUAL, n) < 1.01);
  CHECK(comparisons(FEW, n) < 9);
  CHECK(comparisons(SAW, n) < 14);
  for (int pattern = 0; pattern < PATTERNS; pattern++) CHECK(comparisons((enum pattern)pattern, n) < 30);
}

/* An adversary that decides how elements compare only when it is asked, always so that the pivot turns out to be among
 * the least (McIlroy, "A Killer Adversary for Quicksort", 1999). An undecided one is more than all that are decided. */
enum { VICTIMS = 30000 };
static uint32_t rank[VICTIMS];
static uint32_t decided, candidate;

static bool adversary(const uint32_t *a, const uint32_t *b) {
  compared++;
  if (!rank[*a] && !rank[*b]) rank[*a == candidate ? *a : *b] = ++decided;
  if (!rank[*a]) candidate = *a;
  else if (!rank[*b]) candidate = *b;
  uint32_t rank_a = rank[*a] ? rank[*a] : UINT32_MAX, rank_b = rank[*b] ? rank[*b] : UINT32_MAX;
  return rank_a < rank_b;
}
COIR_SORT_DEFINE(sort_against, uint32_t, adversary)

static void no_input_is_slow(void) {
  uint32_t *victims = malloc(VICTIMS * sizeof *victims);
  CHECK(victims);
  for (uint32_t i = 0; i < VICTIMS; i++) victims[i] = i;
  rank[0] = 2, rank[1] = 1, decided = 2; /* so that it does not say that all are in order, if it is asked that first */
  compared = 0;
  CHECK_EQ(sort_against(NULL, victims, VICTIMS), 0);
  for (int i = 1; i < VICTIMS; i++) CHECK(rank[victims[i - 1]] < rank[victims[i]] || !rank[victims[i]]);
  CHECK(compared > 15L * VICTIMS); /* it is one: random input takes about 18 */
  CHECK(compared < 120L * VICTIMS);
  free(victims);
}

/* ---- Failures --------------------------------------------------------------------------------------------------- */

static tally until_it_fails;
static bool fails_one_day(const uint64_t *a, const uint64_t *b) {
  if (atomic_fetch_sub(&until_it_fails, 1) == 0) coir_job_fail("no order in %d", 42);
  return *a < *b;
}
COIR_SORT_DEFINE(sort_failing, uint64_t, fails_one_day)
static int compare_failing(const void *a, const void *b, void *arg) {
  (void)arg;
  return fails_one_day(b, a) - fails_one_day(a, b);
}

static int sort_until_failure(struct coir_job_system *system, int comparisons_left, bool stable_one) {
  enum { N = 20000 };
  static char *base;
  free(base); /* the last one's: a job that fails leaves it */
  base = make_input(&u64, RANDOM, N, 3);
  atomic_store(&until_it_fails, comparisons_left);
  return stable_one ? coir_parallel_sort(system, base, N, 8, compare_failing, NULL)
                    : sort_failing(system, (uint64_t *)base, N);
}

static void a_comparison_fails_body(struct coir_job_system *system) {
  for (int i = 0; i < 8; i++) CHECK_EQ(sort_until_failure(system, i * 3000, i % 2), -ECANCELED);
  CHECK_EQ(sort_until_failure(system, -1, true), 0);
  CHECK_EQ(sort_until_failure(system, -1, false), 0);
}

static void a_comparison_fails(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  a_comparison_fails_body(NULL);
  run(on_fiber, &(struct where){a_comparison_fails_body, NULL});
  a_comparison_fails_body(jobs);
  end_jobs(jobs, 0);
}

static void fails_by_sorting(struct coir_job *job, void *stable_one) {
  (void)job;
  sort_until_failure(NULL, 10000, stable_one != NULL);
  CHECK(!"reached");
}

static void a_job_fails_by_it(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  finish_failed(coir_job_run(jobs, fails_by_sorting, NULL), 1);
  finish_failed(coir_job_run(jobs, fails_by_sorting, jobs), 1);
  end_jobs(jobs, 2);
}

static void what_is_refused(void) {
  double d[3] = {3, 2, 1};
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  CHECK_EQ(sort_double(NULL, NULL, 2), -EINVAL);
  CHECK_EQ(sort_double(NULL, NULL, 0), 0);
  CHECK_EQ(coir_parallel_sort_f64(jobs, NULL, 1), -EINVAL);
  CHECK_EQ(coir_parallel_sort_i32(jobs, NULL, 5), -EINVAL);
  CHECK_EQ(coir_parallel_sort(jobs, NULL, 1, 8, compare_u64, NULL), -EINVAL);
  CHECK_EQ(coir_parallel_sort(jobs, d, 3, 0, compare_u64, NULL), -EINVAL);
  CHECK_EQ(coir_parallel_sort(jobs, d, 3, 8, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_parallel_sort(jobs, d, SIZE_MAX / 4, 8, compare_u64, NULL), -EINVAL);
  CHECK_EQ(coir_parallel_sort(jobs, NULL, 0, 8, compare_u64, NULL), 0);
#if !IS_SANITIZED /* those end the program for that */
  CHECK_EQ(coir_parallel_sort(jobs, d, SIZE_MAX / 16, 8, compare_u64, NULL), -ENOMEM);
#endif
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(coir_parallel_sort_f64(jobs, d, 3), -ESHUTDOWN);
  CHECK_EQ(sort_double(jobs, d, 3), -ESHUTDOWN);
  CHECK(d[0] == 3 && d[1] == 2 && d[2] == 1);
  CHECK_EQ(coir_parallel_sort_f64(NULL, d, 3), 0);
  CHECK(d[0] == 1 && d[1] == 2 && d[2] == 3);
  coir_job_system_destroy(jobs);
}

int main(int argc, char **argv) {
  static const struct CMUnitTest cases[] = {
      CASE(all_small_sizes),
      CASE(all_patterns),
      CASE(all_patterns_large),
      CASE(all_types_large),
      CASE(large_ones_in_a_row),
      CASE(many_at_the_same_time),
      CASE(nans_come_last_and_minus_zero_first),
      CASE(equal_ones_keep_their_order),
      CASE(a_contradiction_only_spoils_the_order),
      CASE(nans_only_spoil_the_order),
      CASE(easy_inputs_are_quick),
      CASE(no_input_is_slow),
      CASE(a_comparison_fails),
      CASE(a_job_fails_by_it),
      CASE(what_is_refused),
  };
  return RUN_CASES(argc, argv, cases);
}
