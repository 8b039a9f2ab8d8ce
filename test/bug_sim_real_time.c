/* Simulated runtimes, and what goes by real time:
 *
 * - The keeper has descriptors that somebody waits for looked at once a second, and the kernel tells then of what is
 *   ready, be it for nobody. That ended a simulated runtime's rest before its time, and the run was another one than
 *   the last time.
 * - Sleeps in the poller come in slices of a second. How much of them was left went by the simulated clock, which
 *   does not go on meanwhile: in a runtime in the background a wait for a descriptor that was to last longer never
 *   ended. */
#include <sys/socket.h>

#include "coir_io.h"
#include "harness.h"

#define RUNS 20 /* of a tenth of a second each: the keeper looks in two of them */

/* Tells when it was over. */
static int waits_in_vain(void *end) {
  int fds[2];
  char c;
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  CHECK_EQ(coir_read(fds[0], &c, 1, coir_after(COIR_MS(3))), -ETIMEDOUT);
  *(int64_t *)end = coir_now();
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  return 0;
}

static void looks_of_the_keeper_do_not_count(void **state) {
  (void)state;
  int64_t first, end;
  CHECK_EQ(run_with((struct coir_config){.sim_seed = 7}, waits_in_vain, &first), 0);
  for (int i = 1; i < RUNS; i++) {
    CHECK_EQ(run_with((struct coir_config){.sim_seed = 7}, waits_in_vain, &end), 0);
    CHECK_EQ(end, first);
  }
}

static int waits_for_long(void *fds) {
  char c;
  return (int)coir_read(*(int *)fds, &c, 1, coir_after(COIR_MS(1200)));
}

static void long_waits_in_the_background_end(void **state) {
  (void)state;
  int fds[2];
  struct coir_fiber *f;
  struct coir_result end;
  struct coir_runtime *rt = make_runtime((struct coir_config){.sim_seed = 7});
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, waits_for_long, fds, NULL, &f), 0);
  CHECK_EQ(coir_join(f, &end, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(end.status, -ETIMEDOUT);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  close(fds[0]);
  close(fds[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(looks_of_the_keeper_do_not_count),
      cmocka_unit_test(long_waits_in_the_background_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
