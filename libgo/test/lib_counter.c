/* counter.h. */
#include "lib_test.h"

static LongAdder *adder;
static _Atomic(int) adding;

static void adds(void *arg) {
  int n = rounds(20000);
  for (int i = 0; i < n; i++) {
    if (i % 2) go_long_adder_increment(adder);
    else go_long_adder_add(adder, (intptr_t)arg);
    if (i % 1000 == 0) coir_yield(); /* may go on on another thread */
  }
  atomic_fetch_sub(&adding, 1);
}

ON_BOTH(nothing_is_lost) {
  adder = go_long_adder_create();
  CHECK(adder);
  CHECK_EQ(go_long_adder_sum(adder), 0);
  adding = 24;
  for (int i = 0; i < 24; i++) start(i % 2, adds, number(i - 3));
  while (adding) { /* any of it, and never too much */
    int64_t sum = go_long_adder_sum(adder);
    CHECK(sum >= -3 * 6 * rounds(20000) && sum <= (int64_t)24 * 21 * rounds(20000));
    coir_yield();
  }
  until_idle();
  int64_t each = rounds(20000) / 2, arguments = 24 * 23 / 2 - 3 * 24;
  CHECK_EQ(go_long_adder_sum(adder), each * 24 + each * arguments);
  go_long_adder_reset(adder);
  CHECK_EQ(go_long_adder_sum(adder), 0);
  go_long_adder_increment(adder);
  go_long_adder_add(adder, -11);
  CHECK_EQ(go_long_adder_sum(adder), -10);
  go_long_adder_destroy(adder);
}

ON_BOTH(it_wraps_around) {
  LongAdder *a = go_long_adder_create();
  go_long_adder_add(a, INT64_MAX);
  go_long_adder_increment(a);
  CHECK_EQ(go_long_adder_sum(a), INT64_MIN);
  go_long_adder_destroy(a);
  go_long_adder_destroy(NULL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_lost),
      cmocka_unit_test(it_wraps_around),
  };
  return RUN_TESTS(argc, argv, tests);
}
