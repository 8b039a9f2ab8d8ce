/* The part of cmocka's interface that the tests use, for C libraries and machines that Debian has no cmocka for
 * (machines.sh puts this folder before cmocka's). What fails ends the program. */
#ifndef COIR_TEST_MACHINES_CMOCKA_H
#define COIR_TEST_MACHINES_CMOCKA_H

#include <fnmatch.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
  const char *name;
  void (*test)(void **state);
  int (*setup)(void **state), (*teardown)(void **state);
  void *initial_state;
};

#define cmocka_unit_test_setup_teardown(fn, setup, teardown) \
  { #fn, fn, setup, teardown, NULL }
#define cmocka_unit_test_setup(fn, setup) cmocka_unit_test_setup_teardown(fn, setup, NULL)
#define cmocka_unit_test(fn) cmocka_unit_test_setup_teardown(fn, NULL, NULL)

static const char *stand_in_filter;
static jmp_buf stand_in_skipped;

static inline void cmocka_set_test_filter(const char *pattern) { stand_in_filter = pattern; }

static inline void stand_in_case(const struct CMUnitTest *t) {
  void *state = t->initial_state;
  fprintf(stderr, "[ RUN      ] %s\n", t->name);
  if (t->setup && t->setup(&state)) abort();
  t->test(&state);
  if (t->teardown && t->teardown(&state)) abort();
}

static inline int _cmocka_run_group_tests(const char *group, const struct CMUnitTest *tests, size_t count,
                                          int (*setup)(void **state), int (*teardown)(void **state)) {
  static size_t i, ran;
  void *state = NULL;
  if (setup && setup(&state)) abort();
  for (i = ran = 0; i < count; i++) {
    if (stand_in_filter && fnmatch(stand_in_filter, tests[i].name, 0)) continue;
    if (setjmp(stand_in_skipped) == 0) stand_in_case(&tests[i]);
    ran++;
  }
  if (teardown && teardown(&state)) abort();
  fprintf(stderr, "[  PASSED  ] %s: %zu tests, by the stand-in for cmocka\n", group, ran);
  return 0;
}

#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
  _cmocka_run_group_tests(name, tests, sizeof(tests) / sizeof *(tests), setup, teardown)
#define cmocka_run_group_tests(tests, setup, teardown) cmocka_run_group_tests_name(#tests, tests, setup, teardown)
#define skip() (fprintf(stderr, "skipped\n"), longjmp(stand_in_skipped, 1))

#define print_message(...) printf(__VA_ARGS__)
#define print_error(...) fprintf(stderr, __VA_ARGS__)
#define fail_msg(...) (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__), abort())
#define fail() fail_msg("failed\n")
#define stand_in_check(x, text) ((x) ? (void)0 : (void)fail_msg("not true: %s\n", text))
#define assert_true(x) stand_in_check((uintptr_t)(x), #x)
#define assert_false(x) stand_in_check(!(uintptr_t)(x), "not " #x)
#define assert_non_null(x) stand_in_check((x) != NULL, #x)
#define assert_null(x) stand_in_check((x) == NULL, #x " is NULL")
#define assert_int_equal(a, b) stand_in_check((uintmax_t)(a) == (uintmax_t)(b), #a " equals " #b)
#define assert_ptr_equal(a, b) stand_in_check((const void *)(a) == (const void *)(b), #a " equals " #b)
#define assert_ptr_not_equal(a, b) stand_in_check((const void *)(a) != (const void *)(b), #a " differs from " #b)
#define assert_string_equal(a, b) stand_in_check(strcmp(a, b) == 0, #a " equals " #b)
#define assert_in_range(x, low, high) stand_in_check(stand_in_is_between(x, low, high), #x " is in range")

static inline int stand_in_is_between(uintmax_t x, uintmax_t low, uintmax_t high) { return low <= x && x <= high; }

#endif
