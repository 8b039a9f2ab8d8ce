/* error.h. */
#include "lib_test.h"

ON_BOTH(errors_carry_a_code_and_a_message) {
  char longest[5000];
  Error *e = new_error(42, "cannot open %s: %d of %d", "it", 3, 7);
  CHECK(e && is_error(e));
  CHECK_EQ(e->code, 42);
  CHECK(!strcmp(e->message, "cannot open it: 3 of 7"));
  free_error(e);
  memset(longest, 'x', sizeof longest - 1);
  longest[sizeof longest - 1] = 0;
  e = new_error(-1, "%s", longest);
  CHECK(e && e->code == -1 && !strcmp(e->message, longest));
  free_error(e);
  e = new_error(0, "%s", "");
  CHECK(is_error(e) && e->code == 0 && !*e->message);
  free_error(e);
}

static void no_error(void **state) {
  const char *volatile no_format = NULL;
  (void)state;
  CHECK(!is_error(NULL));
  free_error(NULL);
  print_error(NULL);
  errno = 0;
  CHECK(new_error(1, no_format, 1) == NULL);
  CHECK_EQ(errno, EINVAL);
}

static void prints(void) {
  Error *e = new_error(-7, "%s is missing", "the key");
  print_error(NULL);
  print_error(e);
  free_error(e);
}

static void errors_are_printed(void **state) {
  char text[256];
  (void)state;
  CHECK_EQ(in_child_process(prints, text, sizeof text), 0);
  CHECK(!strcmp(text, "Error [-7]: the key is missing\n"));
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_are_printed), /* first: a fork before there are threads */
      cmocka_unit_test(no_error),
      cmocka_unit_test(errors_carry_a_code_and_a_message),
  };
  return RUN_TESTS(argc, argv, tests);
}
