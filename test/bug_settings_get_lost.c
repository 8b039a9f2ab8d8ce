/* What the program had set was overridden, or came too late: a thread's scheduling policy, which the monitor has from
 * it, was made the usual one, and its nice value zero; a shorter rebalance_interval_ms counted only when the former one
 * was over; COIR_OFF switched on what it was given for. */
#include "harness.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "internal.h"

static void *prompt_batch(void *arg) {
  struct sched_param none = {0};
  CHECK_EQ(sched_setscheduler(0, SCHED_BATCH, &none), 0);
  coir__os_thread_prompt();
  CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
  return arg;
}

static void *prompt_nice(void *arg) {
  id_t self = (id_t)syscall(SYS_gettid);
  CHECK_EQ(setpriority(PRIO_PROCESS, self, 5), 0);
  coir__os_thread_prompt();
  CHECK_EQ(getpriority(PRIO_PROCESS, self), 5);
  return arg;
}

static void in_thread(void *(*fn)(void *)) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, fn, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void policy_and_nice_value_stay(void **state) {
  (void)state;
  in_thread(prompt_batch);
  in_thread(prompt_nice);
}

static void a_new_interval_counts_at_once(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1, .rebalance_interval_ms = 1000000});
  struct coir_tuning tuning;
  coir_runtime_get_tuning(rt, &tuning);
  atm_store_rlx(&rt->rebalance_at, coir_after(COIR_SEC(1000)));
  coir_runtime_set_tuning(rt, &tuning);
  CHECK(atm_load_rlx(&rt->rebalance_at) > coir_now());
  tuning.rebalance_interval_ms = 1;
  coir_runtime_set_tuning(rt, &tuning);
  CHECK(atm_load_rlx(&rt->rebalance_at) <= coir_now());
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void off_is_off(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  struct coir_tuning tuning = {.steal = COIR_OFF, .affinity = COIR_OFF, .rebalance = COIR_OFF};
  coir_runtime_set_tuning(rt, &tuning);
  coir_runtime_get_tuning(rt, &tuning);
  CHECK(tuning.steal == 0 && tuning.affinity == 0 && tuning.rebalance == 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(policy_and_nice_value_stay),
      cmocka_unit_test(a_new_interval_counts_at_once),
      cmocka_unit_test(off_is_off),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
