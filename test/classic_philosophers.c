/* classic_philosophers.c: five philosophers dine with five forks.
 *
 * A fork lies between each two of them, and to eat takes both. If each took the left one first, all could wait for
 * the right one for ever. Two cures are tried: everybody takes the fork with the lower number first, so that no circle
 * of waiting can close; or a waiter lets only four of them sit down at a time, so that one always finds two forks. */
#include "harness.h"

enum { SEATS = 5, MEALS = 2000 };

static struct {
  struct coir_mutex fork[SEATS];
  int held_by[SEATS]; /* philosopher + 1; each under its fork's mutex */
  int meals[SEATS];
  struct coir_sem chairs; /* the waiter's; unused where forks are taken in order */
} table;

static void pick_up(int fork, int me) {
  CHECK_EQ(coir_mutex_lock(&table.fork[fork], COIR_NEVER), 0);
  CHECK_EQ(table.held_by[fork], 0);
  table.held_by[fork] = me + 1;
}

static void put_down(int fork, int me) {
  CHECK_EQ(table.held_by[fork], me + 1);
  table.held_by[fork] = 0;
  coir_mutex_unlock(&table.fork[fork]);
}

/* Eats with both forks in hand, which are there all the while. Now and then a meal takes time. */
static void eat(int left, int right, int me) {
  if (table.meals[me]++ % 4 == 0) coir_yield();
  put_down(left, me);
  put_down(right, me);
}

static int orderly(void *arg) {
  int me = (int)(intptr_t)arg, left = me, right = (me + 1) % SEATS;
  for (int i = rounds(MEALS); i > 0; i--) {
    pick_up(left < right ? left : right, me);
    pick_up(left < right ? right : left, me);
    eat(left, right, me);
  }
  return 0;
}

static int seated(void *arg) {
  int me = (int)(intptr_t)arg, left = me, right = (me + 1) % SEATS;
  for (int i = rounds(MEALS); i > 0; i--) {
    CHECK_EQ(coir_sem_acquire(&table.chairs, 1, COIR_NEVER), 0);
    pick_up(left, me);
    pick_up(right, me);
    eat(left, right, me);
    coir_sem_release(&table.chairs, 1);
  }
  return 0;
}

static int dinner(void *arg) {
  coir_fn philosopher = *(coir_fn *)arg;
  struct coir_fiber *philosophers[SEATS];
  memset(&table, 0, sizeof table);
  coir_sem_init(&table.chairs, SEATS - 1);
  for (intptr_t i = 0; i < SEATS; i++) philosophers[i] = spawn(philosopher, (void *)i);
  for (int i = 0; i < SEATS; i++) CHECK_EQ(join(philosophers[i]), 0);
  for (int i = 0; i < SEATS; i++) CHECK_EQ(table.meals[i], rounds(MEALS));
  for (int i = 0; i < SEATS; i++) CHECK_EQ(table.held_by[i], 0);
  return 0;
}

static void test_order_of_forks(void **state) {
  coir_fn philosopher = orderly;
  (void)state;
  CHECK_EQ(run(dinner, &philosopher), 0);
}

static void test_waiter(void **state) {
  coir_fn philosopher = seated;
  (void)state;
  CHECK_EQ(run(dinner, &philosopher), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_of_forks), cmocka_unit_test(test_waiter)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
