/* References of a counter that were more than its word can hold began again at none, so giving one up freed it, with
 * eight million others still to be given up. */
#include "jobs.h"

#define MOST ((1 << 23) - 1)

static void take_one_too_many(void) {
  struct coir_counter *counter = coir_counter_create(1);
  for (int i = 1; i <= MOST; i++) coir_counter_ref(counter);
}

static void it_is_fatal(void **state) {
  char text[1024];
  (void)state;
  int status = in_child_process(take_one_too_many, text, sizeof text);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGABRT);
  CHECK(strstr(text, "coir_counter_ref: more references than can be counted"));
}

static void as_many_as_can_be_counted_are_right(void **state) {
  (void)state;
  struct coir_counter *counter = coir_counter_create(1);
  for (int i = 1; i < MOST; i++) CHECK(coir_counter_ref(counter) == counter);
  CHECK_EQ(coir_counter_value(counter), 1);
  for (int i = 1; i < MOST; i++) coir_counter_unref(counter);
  CHECK_EQ(coir_counter_value(counter), 1);
  CHECK(coir_counter_done(counter));
  CHECK(coir_counter_is_complete(counter));
  coir_counter_unref(counter);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(it_is_fatal),
                                     cmocka_unit_test(as_many_as_can_be_counted_are_right)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
