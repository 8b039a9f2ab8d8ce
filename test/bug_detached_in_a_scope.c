/* A fiber that was spawned into a scope detached, but with `out`, for a handle to compare, was not detached: its
 * descriptor waited for somebody who would join it, and was never used again. */
#include "harness.h"

#include "internal.h"

#define FIBERS 1000

static int ends(void *arg) { return arg != NULL; }

/* How many fibers have ended whose descriptors wait for somebody to join them. */
static int unjoined(void) {
  int n = 0;
  for (struct coir__slab *slab = atm_load_acq(&coir_runtime_current()->slabs); slab; slab = slab->next)
    for (uint32_t i = 0; i < slab->count; i++) {
      const struct coir_fiber *f = &slab->fibers[i];
      n += atm_load_acq(&f->entry) && (atm_load_acq(&f->ended) & COIR__ENDED);
    }
  return n;
}

static struct coir_fiber *spawn_into(struct coir_scope *s, const struct coir_attr *attr) {
  struct coir_fiber *f = NULL;
  CHECK_EQ(coir_scope_spawn(s, ends, NULL, attr, &f), 0);
  CHECK(f && f != coir_current());
  return f;
}

static int spawns(void *arg) {
  (void)arg;
  struct coir_scope *s;
  CHECK_EQ(coir_scope_open(&s, 0, COIR_NEVER), 0);
  for (int i = 0; i < FIBERS; i++) (void)spawn_into(s, &(struct coir_attr){.detached = true});
  struct coir_fiber *f = spawn_into(s, &(struct coir_attr){.name = "joined"});
  CHECK_EQ(coir_scope_close(s), 0);
  CHECK_EQ(unjoined(), 1);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(unjoined(), 0);
  return 0;
}

static void nothing_is_kept_of_it(void **state) {
  (void)state;
  CHECK_EQ(run(spawns, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_kept_of_it)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
