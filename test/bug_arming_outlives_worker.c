/* A runtime that dropped its fibers made orphans of their scopes while another thread was just bringing the deadline of
 * one forward. It left the alarm to that thread, went on, and was destroyed, it may be; and then the alarm was armed
 * with one of its workers. */
#include "harness.h"

#include "internal.h"

#define YIELDS 1000 /* more than anything else takes that it waits for */

static struct coir_runtime *rt;
static struct coir_event never;
static struct coir_scope *_Atomic(opened);
static _Atomic(int) is_stopped, yields;
static __thread bool is_stopper;

/* Who stops the runtime gives way to who arms. */
int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __wrap_sched_yield(void) {
  if (is_stopper) atomic_fetch_add(&yields, 1);
  return __real_sched_yield();
}

static int opens(void *unused) {
  struct coir_scope *scope;
  (void)unused;
  CHECK_EQ(coir_scope_open(&scope, 0, coir_after(COIR_SEC(1000))), 0);
  atomic_store(&opened, scope);
  return coir_event_wait(&never, COIR_NEVER);
}

static void *shortens(void *unused) {
  coir_scope_shorten(atomic_load(&opened), coir_after(COIR_SEC(500)));
  return unused;
}

static void *stops(void *unused) {
  is_stopper = true;
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  atomic_store(&is_stopped, 1);
  return unused;
}

static bool one_waits(void) {
  struct coir_fiber_info info = {.state = COIR_FIBER_READY};
  return coir_runtime_list(rt, &info, 1) == 1 && info.state == COIR_FIBER_WAITING;
}

static void the_runtime_stays_until_it_is_armed(void **state) {
  (void)state;
  pthread_t shortener, stopper;
  rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, opens, NULL, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&opened) && one_waits());
  struct coir__bias *lock = &rt->workers[0]->timers.lock;
  coir__bias_lock(NULL, lock); /* this is where it stops */
  int64_t before = coir_scope_deadline(atomic_load(&opened));
  CHECK_EQ(pthread_create(&shortener, NULL, shortens, NULL), 0);
  WAIT_FOR(coir_scope_deadline(atomic_load(&opened)) < before); /* by who arms from then on */
  CHECK_EQ(pthread_create(&stopper, NULL, stops, NULL), 0);
  WAIT_FOR(atomic_load(&yields) > YIELDS || atomic_load(&is_stopped));
  CHECK(!atomic_load(&is_stopped));
  coir__bias_unlock(NULL, lock);
  CHECK_EQ(pthread_join(shortener, NULL), 0);
  CHECK_EQ(pthread_join(stopper, NULL), 0);
  CHECK_EQ(rt->workers[0]->timers.count, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_runtime_stays_until_it_is_armed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
