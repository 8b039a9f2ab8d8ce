/* Bump allocators: each sentence that coir_job.h has about them. */
#include "harness.h"

#include "coir_job.h"

#define KIB ((size_t)1024)
#define HUGE_ALIGN ((size_t)4096)

static bool is_aligned(const void *p, size_t align) { return p && ((uintptr_t)p & (align - 1)) == 0; }

/* ---- One block ------------------------------------------------------------------------------------------------- */

static void gives_what_it_has(void **state) {
  (void)state;
  struct coir_frame *frame = coir_frame_create(256);
  CHECK(frame);
  CHECK_EQ(coir_frame_capacity(frame), 256);
  CHECK_EQ(coir_frame_used(frame), 0);
  char *first = coir_frame_alloc(frame, 100, 0), *second = coir_frame_alloc(frame, 144, 0);
  CHECK(first && second == first + 112); /* behind it, at the next multiple of 16 */
  memset(first, 1, 100);
  memset(second, 2, 144);
  CHECK_EQ(first[99], 1);
  CHECK_EQ(coir_frame_used(frame), 256);
  CHECK(coir_frame_alloc(frame, 1, 1) == NULL);
  CHECK(coir_frame_alloc(frame, 0, 1) != NULL);
  coir_frame_reset(frame);
  CHECK_EQ(coir_frame_used(frame), 0);
  CHECK(coir_frame_alloc(frame, 256, 0) == first);
  coir_frame_destroy(frame);
}

static void failing_takes_nothing(void **state) {
  (void)state;
  struct coir_frame *frame = coir_frame_create(64);
  CHECK(coir_frame_alloc(frame, 10, 1));
  const size_t sizes[] = {55, 64, 65, SIZE_MAX, SIZE_MAX - 10, SIZE_MAX - 63, SIZE_MAX / 2};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    CHECK(coir_frame_alloc(frame, sizes[i], 1) == NULL);
    CHECK(coir_frame_alloc(frame, sizes[i], HUGE_ALIGN) == NULL);
    CHECK_EQ(coir_frame_used(frame), 10);
  }
  CHECK(coir_frame_alloc(frame, 0, 128) == NULL); /* the next multiple lies behind the end */
  CHECK(coir_frame_alloc(frame, 54, 1));
  coir_frame_destroy(frame);
}

static void aligns(void **state) {
  (void)state;
  struct coir_frame *frame = coir_frame_create(64 * KIB);
  for (size_t align = 1; align <= HUGE_ALIGN; align *= 2) {
    CHECK(coir_frame_alloc(frame, 1, 1));
    size_t before = coir_frame_used(frame);
    CHECK(is_aligned(coir_frame_alloc(frame, 3, align), align));
    CHECK_EQ(coir_frame_used(frame), ((before + align - 1) & ~(align - 1)) + 3);
  }
  CHECK(coir_frame_alloc(frame, 1, 1));
  CHECK(is_aligned(coir_frame_alloc(frame, 1, 0), 16));
  size_t used = coir_frame_used(frame);
  const size_t wrong[] = {3, 24, 8192, SIZE_MAX, SIZE_MAX / 2 + 1};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) CHECK(coir_frame_alloc(frame, 1, wrong[i]) == NULL);
  CHECK_EQ(coir_frame_used(frame), used);
  coir_frame_destroy(frame);
}

static void sizes_have_limits(void **state) {
  (void)state;
  CHECK(coir_frame_create(SIZE_MAX) == NULL);
  CHECK(coir_frame_create(SIZE_MAX - 4096) == NULL);
  CHECK(coir_frame_create((size_t)PTRDIFF_MAX) == NULL);
  CHECK(coir_paged_frame_create(SIZE_MAX) == NULL);
  struct coir_frame *empty = coir_frame_create(0);
  CHECK(empty);
  CHECK(coir_frame_alloc(empty, 1, 0) == NULL);
  coir_frame_destroy(empty);
  coir_frame_destroy(NULL);
  coir_paged_frame_destroy(NULL);
}

/* ---- Pages ----------------------------------------------------------------------------------------------------- */

static void pages_are_added(void **state) {
  (void)state;
  struct coir_paged_frame *frame = coir_paged_frame_create(1);
  char *blocks[8], *again;
  CHECK(frame);
  CHECK_EQ(coir_paged_frame_capacity(frame), 64 * KIB);
  for (int i = 0; i < 8; i++) { /* 40 KiB: one to a page */
    blocks[i] = coir_paged_frame_alloc(frame, 40 * KIB, HUGE_ALIGN);
    CHECK(is_aligned(blocks[i], HUGE_ALIGN));
    memset(blocks[i], i, 40 * KIB);
  }
  for (int i = 0; i < 8; i++) CHECK(blocks[i][0] == i && blocks[i][40 * KIB - 1] == i);
  CHECK_EQ(coir_paged_frame_capacity(frame), 8 * 64 * KIB);
  CHECK_EQ(coir_paged_frame_used(frame), 8 * 40 * KIB);
  coir_paged_frame_reset(frame);
  CHECK_EQ(coir_paged_frame_used(frame), 0);
  for (int i = 0; i < 8; i++) { /* the same memory again */
    again = coir_paged_frame_alloc(frame, 40 * KIB, 0);
    CHECK(again == blocks[i]);
  }
  CHECK_EQ(coir_paged_frame_capacity(frame), 8 * 64 * KIB);
  coir_paged_frame_destroy(frame);
}

static void pages_have_limits(void **state) {
  (void)state;
  struct coir_paged_frame *frame = coir_paged_frame_create(100000);
  CHECK_EQ(coir_paged_frame_capacity(frame), 100000);
  CHECK(coir_paged_frame_alloc(frame, 100000, HUGE_ALIGN));
  CHECK(coir_paged_frame_alloc(frame, 100000, HUGE_ALIGN)); /* a whole page, which begins at a multiple of that */
  size_t used = coir_paged_frame_used(frame);
  CHECK_EQ(used, 200000);
  const size_t sizes[] = {100001, SIZE_MAX, SIZE_MAX - 4095, SIZE_MAX / 2};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    CHECK(coir_paged_frame_alloc(frame, sizes[i], 0) == NULL);
    CHECK(coir_paged_frame_alloc(frame, sizes[i], HUGE_ALIGN) == NULL);
  }
  CHECK(coir_paged_frame_alloc(frame, 1, 48) == NULL);
  CHECK(coir_paged_frame_alloc(frame, 1, 8192) == NULL);
  CHECK_EQ(coir_paged_frame_used(frame), used);
  CHECK_EQ(coir_paged_frame_capacity(frame), 200000);
  coir_paged_frame_destroy(frame);
}

/* Nothing overlaps, is out of bounds, or loses its alignment, over some frames of random sizes. */
static void random_frames(void **state) {
  (void)state;
  enum { COUNT = 400 };
  struct coir_paged_frame *frame = coir_paged_frame_create(64 * KIB);
  unsigned char *blocks[COUNT];
  size_t sizes[COUNT], capacity = 0;
  uint64_t rng = rng_seed(7);
  for (int round = 0; round < 5; round++) {
    for (int i = 0; i < COUNT; i++) {
      size_t align = (size_t)1 << rng_next(&rng) % 13;
      sizes[i] = rng_next(&rng) % (i % 50 == 0 ? 60 * KIB : 500);
      blocks[i] = coir_paged_frame_alloc(frame, sizes[i], align);
      CHECK(is_aligned(blocks[i], align));
      memset(blocks[i], i, sizes[i]);
    }
    for (int i = 0; i < COUNT; i++)
      for (size_t j = 0; j < sizes[i]; j++) CHECK_EQ(blocks[i][j], i & 255);
    CHECK(coir_paged_frame_used(frame) <= coir_paged_frame_capacity(frame));
    if (round == 0) capacity = coir_paged_frame_capacity(frame);
    if (round < 4) coir_paged_frame_reset(frame);
  }
  CHECK(coir_paged_frame_capacity(frame) <= 2 * capacity); /* pages are kept, so they do not pile up */
  coir_paged_frame_destroy(frame);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gives_what_it_has), cmocka_unit_test(failing_takes_nothing), cmocka_unit_test(aligns),
      cmocka_unit_test(sizes_have_limits), cmocka_unit_test(pages_are_added),       cmocka_unit_test(pages_have_limits),
      cmocka_unit_test(random_frames),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
