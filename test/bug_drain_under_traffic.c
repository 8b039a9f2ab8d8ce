/* Who waited for the last fiber of a runtime was woken when there was none, and looked again: if another thread had
 * spawned the next one by then it waited on, and so for ever, as long as that thread had good luck. */
#include "harness.h"

#include <semaphore.h>

static struct coir_runtime *rt;
static sem_t told, spawned;
static _Atomic(bool) is_busy;
static _Atomic(int) begun, ended;

int __real_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);

/* The worker tells that no fiber is left: there is another one before anybody hears it. */
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond) {
  if (atomic_load(&is_busy)) {
    sem_post(&told);
    while (sem_wait(&spawned)) {}
  }
  return __real_pthread_cond_broadcast(cond);
}

static int lasts(void *arg) {
  (void)arg;
  (void)coir_sleep(COIR_MS(2)); /* until who waits has looked */
  atomic_fetch_add(&ended, 1);
  return 0;
}

static void spawn_one(void) {
  atomic_fetch_add(&begun, 1);
  CHECK_EQ(coir_runtime_spawn(rt, lasts, NULL, NULL, NULL), 0);
}

static void *spawner(void *arg) {
  while (sem_wait(&told) || atomic_load(&is_busy)) {
    spawn_one();
    sem_post(&spawned);
  }
  return arg;
}

static void stop_in_traffic(enum coir_stop how) {
  rt = make_runtime((struct coir_config){.workers = 1});
  atomic_store(&is_busy, true);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, spawner, NULL), 0);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(coir_runtime_start(rt), 0);
    spawn_one();
    CHECK_EQ(coir_runtime_stop(rt, how, coir_after(COIR_SEC(2))), 0);
  }
  atomic_store(&is_busy, false);
  sem_post(&told);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_stop(rt, how, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&ended), atomic_load(&begun));
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void drain(void **state) {
  (void)state;
  stop_in_traffic(COIR_STOP_DRAIN);
}

static void cancel(void **state) {
  (void)state;
  stop_in_traffic(COIR_STOP_CANCEL);
}

int main(void) {
  CHECK_EQ(sem_init(&told, 0, 0), 0);
  CHECK_EQ(sem_init(&spawned, 0, 0), 0);
  const struct CMUnitTest tests[] = {cmocka_unit_test(drain), cmocka_unit_test(cancel)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
