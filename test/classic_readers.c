/* classic_readers.c: readers and writers of one record.
 *
 * The record is whole only outside of a writer's turn: its two halves add up to zero. Writers break that rule, wait,
 * and mend it; readers look twice with a wait in between. Nobody may see it broken, nor see it change while reading. */
#include "harness.h"

enum { READERS = 8, WRITERS = 3, TURNS = 400 };

static struct {
  struct coir_rwlock lock;
  int64_t half, other;           /* under `lock` */
  _Atomic(int) reading, writing; /* who is inside; to check the lock by */
} record;

static int64_t read_once(bool waits) {
  CHECK_EQ(coir_rwlock_read(&record.lock, COIR_NEVER), 0);
  atomic_fetch_add(&record.reading, 1);
  CHECK_EQ(atomic_load(&record.writing), 0);
  int64_t value = record.half;
  CHECK_EQ(value + record.other, 0);
  if (waits) coir_yield();
  CHECK_EQ(record.half, value);
  atomic_fetch_sub(&record.reading, 1);
  coir_rwlock_read_unlock(&record.lock);
  return value;
}

static int reader(void *arg) {
  int64_t before = 0;
  (void)arg;
  for (int i = 0; i < rounds(TURNS); i++) {
    int64_t value = read_once(i % 4 == 0);
    CHECK(value >= before); /* what was seen once is not taken back */
    before = value;
  }
  return 0;
}

static int writer(void *arg) {
  (void)arg;
  for (int i = 0; i < rounds(TURNS); i++) {
    CHECK_EQ(coir_rwlock_write(&record.lock, COIR_NEVER), 0);
    CHECK_EQ(atomic_fetch_add(&record.writing, 1), 0);
    CHECK_EQ(atomic_load(&record.reading), 0);
    record.half++;
    if (i % 4 == 0) coir_yield();
    record.other--;
    atomic_fetch_sub(&record.writing, 1);
    coir_rwlock_write_unlock(&record.lock);
    if (i % 16 == 0) coir_yield();
  }
  return 0;
}

static int library(void *arg) {
  struct coir_fiber *fibers[READERS + WRITERS];
  (void)arg;
  for (int i = 0; i < READERS + WRITERS; i++) fibers[i] = spawn(i < READERS ? reader : writer, NULL);
  for (int i = 0; i < READERS + WRITERS; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(read_once(false), (int64_t)WRITERS * rounds(TURNS));
  return 0;
}

static void test_readers_and_writers(void **state) {
  (void)state;
  CHECK_EQ(run(library, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_readers_and_writers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
