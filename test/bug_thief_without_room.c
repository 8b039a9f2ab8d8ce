/* A worker that takes many jobs from another one keeps all but the first in its deque. It took as many as fit there,
 * and one; so when there was no memory to run that one, there was no room to put it back, and the process was aborted.
 */
#include "harness.h"
#include "internal.h"
#include "runq.h"

#define JOBS 2000

static bool is_short;
static int put_back;

static void *alloc_hook(size_t bytes, void *arg) {
  (void)arg;
  return is_short ? NULL : malloc(bytes);
}

static void free_hook(void *memory, size_t bytes, void *arg) {
  (void)bytes, (void)arg;
  free(memory);
}

static struct coir_fiber *entry_of(struct coir__lean *lean) {
  return (struct coir_fiber *)((uintptr_t)lean | COIR__LEAN_JOB);
}

/* As jobs are that get no memory for a fiber. */
static struct coir_fiber *has_no_memory(struct coir__worker *w, struct coir__lean *lean) {
  CHECK(coir__runq_push_lean(w, entry_of(lean)));
  put_back++;
  return NULL;
}

/* No worker runs: this thread plays both. */
static void what_it_cannot_run_has_room(void **state) {
  static struct coir__lean jobs[JOBS];
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2, .alloc = alloc_hook, .free = free_hook});
  struct coir__worker *victim = rt->workers[0], *thief = rt->workers[1];
  for (int i = 0; i < JOBS; i++) {
    jobs[i].bind = has_no_memory;
    CHECK(coir__runq_push_lean(victim, entry_of(&jobs[i])));
  }
  is_short = true;
  for (int i = 1; i <= 3; i++) {
    CHECK(!coir__runq_steal(thief, victim, false));
    CHECK_EQ(coir__runq_length(thief) + coir__runq_length(victim), JOBS);
  }
  CHECK(put_back > 0);
  CHECK(coir__runq_length(thief) > 1);
  is_short = false;
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_it_cannot_run_has_room)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
