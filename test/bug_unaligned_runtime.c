/* A runtime has members that are aligned to cache lines, but lay where malloc or the configuration's allocator had put
 * it. With AVX-512 the compiler relies on the alignment: the program ended with SIGSEGV. */
#include "harness.h"

#define HEAD 64
#define UNALIGNED 16 /* what malloc promises, and no more */

static int live;

/* An address that is a multiple of 16, but not of 32. */
static void *alloc(size_t bytes, void *arg) {
  (void)arg;
  char *block = aligned_alloc(HEAD, (HEAD + bytes + HEAD) & ~(size_t)(HEAD - 1));
  if (!block) return NULL;
  live++;
  return block + UNALIGNED;
}

static void give_back(void *memory, size_t bytes, void *arg) {
  (void)arg, (void)bytes;
  free((char *)memory - UNALIGNED);
  live--;
}

static int nothing(void *arg) {
  (void)arg;
  return coir_yield();
}

static void a_runtime_is_aligned(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.alloc = alloc, .free = give_back});
  CHECK_EQ((uintptr_t)rt % 64, 0);
  CHECK_EQ(coir_runtime_run(rt, nothing, NULL, NULL), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(live, 0);
}

int main(void) {
  const struct CMUnitTest cases[] = {cmocka_unit_test(a_runtime_is_aligned)};
  return cmocka_run_group_tests(cases, NULL, NULL);
}
