/* A list reads fibers while they go on, and a descriptor serves one fiber after the other. One that ended while it was
 * read, and was another one by the end of that, was listed as something of both: the one's function, and the other's
 * stack, or none. One that had just begun was listed without a stack as well: its size class, in whose place another
 * word is kept then, was gone before its stack was there. */
#include "stuck.h"

#define SMALL_BYTES ((size_t)16 << 10)
#define LARGE_BYTES ((size_t)64 << 10)
#define LIST_MAX 1024

enum { LOOKS = IS_SANITIZED ? 300000 : 3000000 }; /* at fibers that live shortly */

static flag is_over;

static int is_small(void *unused) {
  (void)unused;
  return 0;
}

static int is_large(void *unused) {
  (void)unused;
  return 1; /* else a compiler may make one function of the two */
}

static int spawn_both(void *unused) {
  (void)unused;
  while (!is_up(&is_over)) {
    for (int i = 0; i < 20; i++) {
      coir_detach(spawn_with((struct coir_attr){.stack_bytes = SMALL_BYTES}, is_small, NULL));
      coir_detach(spawn_with((struct coir_attr){.stack_bytes = LARGE_BYTES}, is_large, NULL));
    }
    coir_yield();
  }
  return 0;
}

/* Returns how many live shortly. */
static int check_list(struct coir_runtime *rt) {
  static struct coir_fiber_info list[LIST_MAX];
  size_t n = coir_runtime_list(rt, list, LIST_MAX);
  int count = 0;
  for (size_t i = 0; i < n && i < LIST_MAX; i++) {
    if (list[i].entry == spawn_both) continue;
    CHECK(list[i].entry == is_small || list[i].entry == is_large);
    CHECK_EQ(list[i].stack_bytes, list[i].entry == is_small ? SMALL_BYTES : LARGE_BYTES);
    count++;
  }
  return count;
}

static void each_is_one_fiber(void) {
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(coir_runtime_spawn(rt, spawn_both, NULL, NULL, NULL), 0);
  for (int looks = 0; looks < LOOKS;) looks += check_list(rt);
  raise_flag(&is_over);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(each_is_one_fiber)};
  return RUN_CASES(argc, argv, cases);
}
