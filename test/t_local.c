/* Fiber-local values. */
#include "harness.h"

static _Atomic(int) destroyed;
static int key_a, key_b;

static void count_destroyed(void *value) {
  CHECK(value != NULL);
  atomic_fetch_add(&destroyed, 1);
}

/* ---- Keys ------------------------------------------------------------------------------------------------------ */

static void keys_are_bounded(void **state) {
  (void)state;
  int keys[COIR_KEYS_MAX];
  for (int i = 0; i < COIR_KEYS_MAX; i++) {
    keys[i] = coir_key_create(NULL);
    CHECK(keys[i] >= 0);
    for (int j = 0; j < i; j++) CHECK(keys[i] != keys[j]);
  }
  CHECK_EQ(coir_key_create(NULL), -EAGAIN);
  for (int i = 0; i < COIR_KEYS_MAX; i++) CHECK_EQ(coir_key_delete(keys[i]), 0);
  CHECK_EQ(coir_key_delete(keys[0]), -EINVAL);
  int key = coir_key_create(NULL);
  CHECK(key >= 0);
  CHECK_EQ(coir_key_delete(key), 0);
}

static void bad_keys(void **state) {
  (void)state;
  static const int bad[] = {-1, COIR_KEYS_MAX, INT32_MAX, INT32_MIN, 0};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_EQ(coir_local_set(bad[i], &key_a), -EINVAL);
    CHECK(coir_local_get(bad[i]) == NULL);
    CHECK_EQ(coir_key_delete(bad[i]), -EINVAL);
  }
}

/* ---- Values ---------------------------------------------------------------------------------------------------- */

static int keeps_its_own(void *arg) {
  CHECK(coir_local_get(key_a) == NULL); /* not what the descriptor's former life left */
  CHECK_EQ(coir_local_set(key_a, arg), 0);
  for (int i = 0; i < 20; i++) {
    if (i % 5) coir_yield();
    else coir_sleep(COIR_US(20));
    CHECK(coir_local_get(key_a) == arg);
    CHECK(coir_local_get(key_b) == NULL);
  }
  CHECK_EQ(coir_local_set(key_b, arg), 0);
  return 0;
}

static int many_keep(void *arg) {
  (void)arg;
  static int values[500];
  CHECK_EQ(coir_local_set(key_a, &destroyed), 0);
  struct coir_fiber *f[500];
  for (int i = 0; i < 500; i++) f[i] = spawn(keeps_its_own, &values[i]);
  for (int i = 0; i < 500; i++) join(f[i]);
  CHECK(coir_local_get(key_a) == &destroyed);
  CHECK_EQ(coir_local_set(key_a, NULL), 0); /* NULL is not destroyed */
  CHECK(coir_local_get(key_a) == NULL);
  return 0;
}

static void every_fiber_keeps_its_own(void **state) {
  (void)state;
  destroyed = 0;
  key_a = coir_key_create(count_destroyed);
  key_b = coir_key_create(NULL);
  run(many_keep, NULL);
  CHECK_EQ(destroyed, 500);
  CHECK_EQ(coir_key_delete(key_a), 0);
  CHECK_EQ(coir_key_delete(key_b), 0);
}

/* ---- Destructors ----------------------------------------------------------------------------------------------- */

static void waits_and_stores_again(void *value) {
  struct coir_fiber *self = coir_current();
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  coir_yield();
  CHECK(self && coir_current() == self);
  if (atomic_fetch_add(&destroyed, 1) < 2) CHECK_EQ(coir_local_set(key_a, value), 0);
}

static int stores(void *value) {
  CHECK_EQ(coir_local_set(key_a, value), 0);
  return 9;
}

static int exits_with_value(void *value) {
  CHECK_EQ(coir_local_set(key_a, value), 0);
  coir_exit(10, NULL);
}

static int one_stores(void *arg) {
  CHECK_EQ(join(spawn(stores, arg)), 9);
  CHECK_EQ(destroyed, 3);
  CHECK_EQ(join(spawn(exits_with_value, arg)), 10);
  CHECK_EQ(destroyed, 4);
  return 0;
}

static void destructors_run_on_the_fiber_and_may_wait(void **state) {
  (void)state;
  destroyed = 0;
  key_a = coir_key_create(waits_and_stores_again);
  run(one_stores, &key_a);
  CHECK_EQ(coir_key_delete(key_a), 0);
}

static void always_stores_again(void *value) {
  atomic_fetch_add(&destroyed, 1);
  CHECK_EQ(coir_local_set(key_a, value), 0);
}

static void a_destructor_that_never_gives_up_is_bounded(void **state) {
  (void)state;
  destroyed = 0;
  key_a = coir_key_create(always_stores_again);
  CHECK_EQ(run(stores, &key_a), 9);
  CHECK(destroyed >= 1 && destroyed <= 16);
  CHECK_EQ(coir_key_delete(key_a), 0);
}

static int deletes_its_key(void *arg) {
  CHECK_EQ(coir_local_set(key_a, arg), 0);
  CHECK_EQ(coir_key_delete(key_a), 0);
  CHECK(coir_local_get(key_a) == NULL);
  int again = coir_key_create(count_destroyed); /* the same number, another life */
  CHECK_EQ(again, key_a);
  CHECK(coir_local_get(again) == NULL);
  return 0;
}

static void a_deleted_key_forgets_its_values(void **state) {
  (void)state;
  destroyed = 0;
  key_a = coir_key_create(count_destroyed);
  run(deletes_its_key, &key_a);
  CHECK_EQ(destroyed, 0);
  CHECK_EQ(coir_key_delete(key_a), 0);
}

/* ---- Plain threads --------------------------------------------------------------------------------------------- */

static void *thread_stores(void *arg) {
  CHECK(coir_local_get(key_a) == NULL);
  CHECK_EQ(coir_local_set(key_a, arg), 0);
  coir_sleep(COIR_US(100));
  CHECK(coir_local_get(key_a) == arg);
  return NULL;
}

static void threads_keep_values_and_destroy_them(void **state) {
  (void)state;
  destroyed = 0;
  key_a = coir_key_create(count_destroyed);
  for (int i = 0; i < 10; i++) {
    pthread_t t[3];
    for (int j = 0; j < 3; j++) CHECK_EQ(pthread_create(&t[j], NULL, thread_stores, &key_a), 0);
    for (int j = 0; j < 3; j++) pthread_join(t[j], NULL);
    CHECK_EQ(destroyed, 3 * (i + 1));
  }
  CHECK_EQ(coir_key_delete(key_a), 0);
}

static int sees_none(void *arg) {
  (void)arg;
  CHECK(coir_local_get(key_a) == NULL);
  return 0;
}

static void a_worker_threads_value_is_not_its_fibers(void **state) {
  (void)state;
  key_a = coir_key_create(NULL);
  CHECK_EQ(coir_local_set(key_a, &key_a), 0);
  run(sees_none, NULL);
  CHECK(coir_local_get(key_a) == &key_a);
  CHECK_EQ(coir_key_delete(key_a), 0);
}

static void *churns_keys(void *arg) {
  for (int i = 0; i < rounds(20000); i++) {
    int key = coir_key_create(NULL);
    if (key == -EAGAIN) continue;
    CHECK(coir_local_get(key) == NULL);
    CHECK_EQ(coir_local_set(key, arg), 0);
    CHECK(coir_local_get(key) == arg);
    CHECK_EQ(coir_key_delete(key), 0);
  }
  return NULL;
}

static void threads_make_and_delete_keys_at_once(void **state) {
  (void)state;
  pthread_t t[4];
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, churns_keys, &key_a), 0);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  keys_are_bounded(NULL); /* none got lost */
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keys_are_bounded),
      cmocka_unit_test(bad_keys),
      cmocka_unit_test(every_fiber_keeps_its_own),
      cmocka_unit_test(destructors_run_on_the_fiber_and_may_wait),
      cmocka_unit_test(a_destructor_that_never_gives_up_is_bounded),
      cmocka_unit_test(a_deleted_key_forgets_its_values),
      cmocka_unit_test(threads_keep_values_and_destroy_them),
      cmocka_unit_test(a_worker_threads_value_is_not_its_fibers),
      cmocka_unit_test(threads_make_and_delete_keys_at_once),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
