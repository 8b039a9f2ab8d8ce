/* A scope whose opener was dropped with its runtime stays until the last fiber inside has ended, which may be one of
 * another runtime. It was given back to the allocator of the opener's runtime, and its values were asked from that,
 * when that runtime was gone. Here the memory of a runtime is made inaccessible when it is given back, and nothing may
 * be asked or given back after its end. */
#include "harness.h"

#include <sys/mman.h>

static _Atomic(bool) is_gone; /* the runtime whose allocator this is */

static void *alloc_hook(size_t bytes, void *arg) {
  (void)arg;
  CHECK(!is_gone);
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

static void free_hook(void *memory, size_t bytes, void *arg) {
  (void)arg;
  CHECK(!is_gone);
  CHECK_EQ(mprotect(memory, bytes, PROT_NONE), 0);
}

static struct coir_scope *_Atomic outer, *_Atomic inner;
static struct coir_event go_on;
static _Atomic(int) waiting, ended;
static const char keys[3];

/* Of the runtime that goes. */
static int opens(void *arg) {
  struct coir_scope *s;
  CHECK_EQ(coir_scope_open(&s, 0, coir_after(COIR_SEC(1000))), 0);
  CHECK_EQ(coir_scope_set(s, &keys[0], arg), 0);
  atomic_store(&outer, s);
  CHECK_EQ(coir_scope_open(&s, 0, COIR_NEVER), 0);
  CHECK_EQ(coir_scope_set(s, &keys[1], arg), 0);
  atomic_store(&inner, s);
  (void)coir_sleep(COIR_SEC(1000));
  CHECK(!"never here");
  return 0;
}

/* Inside, but of the other runtime. */
static int stays(void *arg) {
  coir_shield_begin();
  atomic_fetch_add(&waiting, 1);
  CHECK_EQ(coir_event_wait(&go_on, COIR_NEVER), 0);
  CHECK(coir_scope_get(&keys[0]) == arg);
  CHECK_EQ(coir_scope_set(coir_scope_current(), &keys[2], arg), 0);
  CHECK(coir_scope_get(&keys[2]) == arg);
  CHECK(coir_scope_reason(NULL) == -ECANCELED);
  coir_shield_end();
  atomic_fetch_add(&ended, 1);
  return 0;
}

static int goes_in(void *arg) {
  CHECK_EQ(coir_scope_spawn(outer, stays, arg, NULL, NULL), 0);
  CHECK_EQ(coir_scope_spawn(inner, stays, arg, NULL, NULL), 0);
  return 0;
}

static void others_may_still_be_inside(void **state) {
  struct coir_runtime *gone = make_runtime((struct coir_config){.alloc = alloc_hook, .free = free_hook});
  struct coir_runtime *other = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(gone), 0);
  CHECK_EQ(coir_runtime_start(other), 0);
  CHECK_EQ(coir_runtime_spawn(gone, opens, state, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&inner) != NULL);
  CHECK_EQ(coir_runtime_spawn(other, goes_in, state, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&waiting) == 2);
  CHECK_EQ(coir_runtime_stop(gone, COIR_STOP_ABANDON, 0), 0);
  CHECK_EQ(coir_runtime_destroy(gone), 0);
  atomic_store(&is_gone, true);
  coir_event_set(&go_on);
  CHECK_EQ(coir_runtime_stop(other, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(other), 0);
  CHECK_EQ(ended, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(others_may_still_be_inside)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
