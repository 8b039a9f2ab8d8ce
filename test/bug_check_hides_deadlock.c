/* Once somebody had waited for a descriptor that is not adopted, the keeper looked at such descriptors for some seconds
 * more. Had that counted as an alarm, a deadlock in that time would not have been noticed; nor later, since workers
 * look for it once, as they go to sleep. Nor may the program be accused while a fiber waits for a descriptor. */
#include <sys/socket.h>

#include "harness.h"

#include "coir_io.h"

static int fds[2];
static _Atomic(int) accused;

static bool release_all(struct coir_runtime *rt, void *chan) {
  (void)rt;
  accused++;
  coir_chan_close(chan);
  return true;
}

static int wait_then_stand_still(void *chan) {
  char c;
  CHECK_EQ(coir_read(fds[0], &c, 1, coir_after(COIR_MS(100))), -ETIMEDOUT);
  CHECK_EQ(accused, 0);
  CHECK_EQ(coir_chan_recv(chan, NULL, COIR_NEVER), -EPIPE);
  return 0;
}

static void a_deadlock_after_a_wait_is_seen(void **state) {
  (void)state;
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  struct coir_chan *chan = coir_chan_create(0, 0);
  struct coir_config config = {.workers = 1, .on_deadlock = release_all, .on_deadlock_arg = chan};
  CHECK_EQ(run_with(config, wait_then_stand_still, chan), 0);
  CHECK_EQ(accused, 1);
  coir_chan_unref(chan);
  close(fds[0]);
  close(fds[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_deadlock_after_a_wait_is_seen)};
  alarm(60);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
