/* A fiber that stopped another runtime, and waited for its end, did so inside the library, where a worker cannot be
 * taken away. So the fibers beside it stood still until the other runtime was through; and if that one had still to be
 * told something by one of them, both waited for ever. */
#include "stuck.h"

static struct coir_runtime *other;
static flag is_stopping, is_told;

static int wait_to_be_told(void *unused) {
  (void)unused;
  WAIT_FOR(is_up(&is_told));
  return 0;
}

static int tell(void *unused) {
  (void)unused;
  SPIN_UNTIL(is_up(&is_stopping));
  for (int i = 0; i < 10; i++) CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return raise_flag(&is_told);
}

static int stop_the_other(void *unused) {
  (void)unused;
  struct coir_fiber *f = beside(tell, NULL);
  CHECK_EQ(coir_runtime_spawn(other, wait_to_be_told, NULL, NULL, NULL), 0);
  raise_flag(&is_stopping);
  CHECK_EQ(coir_runtime_stop(other, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK(is_up(&is_told));
  return join(f);
}

static void others_go_on_while_one_stops_a_runtime(void) {
  other = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(other), 0);
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, stop_the_other, NULL), 0);
  CHECK_EQ(coir_runtime_destroy(other), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(others_go_on_while_one_stops_a_runtime)};
  return RUN_CASES(argc, argv, cases);
}
