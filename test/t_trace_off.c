/* The hooks of coir_trace.h, on a core that was built without COIR_TRACE: there are none. */
#include "harness.h"

#include "coir_trace.h"

static void is_never_called(uint64_t from, uint64_t to, void *arg) {
  (void)from, (void)to, (void)arg;
  CHECK(false);
}

static int yields(void *unused) {
  (void)unused;
  CHECK_EQ(coir_trace_set_hooks(NULL), -ENOTSUP);
  for (int i = 0; i < 10; i++) coir_yield();
  return coir_sleep(COIR_US(10));
}

static void there_are_none(void **state) {
  (void)state;
  const struct coir_trace_hooks hooks = {.on_switch = is_never_called};
  CHECK_EQ(coir_trace_set_hooks(&hooks), -ENOTSUP);
  CHECK_EQ(coir_trace_set_hooks(NULL), -ENOTSUP);
  CHECK_EQ(run(yields, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(there_are_none)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
