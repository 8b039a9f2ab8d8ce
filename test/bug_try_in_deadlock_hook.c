/* The on_deadlock hook runs on a worker's thread and no fiber. A channel call there that would have had to wait, and
 * had no time to, was counted for the fiber that the worker runs: there is none, and the process crashed. The hook
 * makes such calls more often than a fiber may before it gives way. A call that does wait there ends the process with
 * a sentence, and not by chance. */
#include "harness.h"

#define TRIES 200

static struct coir_chan *full, *empty;
static struct coir_event dealt_with;
static int calls;

static bool hook(struct coir_runtime *rt, void *arg) {
  (void)rt, (void)arg;
  int value = 1;
  calls++;
  for (int i = 0; i < TRIES; i++) {
    CHECK_EQ(coir_chan_send(full, &value, 0), -ETIMEDOUT);
    CHECK_EQ(coir_chan_recv(empty, &value, 0), -ETIMEDOUT);
    struct coir_arm arms[] = {{.kind = COIR_ARM_SEND, .object = full, .value = &value},
                              {.kind = COIR_ARM_RECV, .object = empty, .value = &value}};
    CHECK_EQ(coir_select(arms, 2, 0), -ETIMEDOUT);
  }
  coir_event_set(&dealt_with);
  return true;
}

static int waits(void *arg) {
  (void)arg;
  int value = 0;
  CHECK_EQ(coir_chan_send(full, &value, 0), 0);
  return coir_event_wait(&dealt_with, COIR_NEVER);
}

static void the_hook_may_try_to_send_and_receive(void **state) {
  (void)state;
  full = coir_chan_create(sizeof(int), 1);
  empty = coir_chan_create(sizeof(int), 1);
  CHECK(full && empty);
  CHECK_EQ(run_with((struct coir_config){.on_deadlock = hook}, waits, NULL), 0);
  CHECK_EQ(calls, 1);
  coir_chan_unref(full);
  coir_chan_unref(empty);
}

static bool waiting_hook(struct coir_runtime *rt, void *arg) {
  (void)rt, (void)arg;
  int value = 1;
  coir_chan_send(full, &value, COIR_NEVER);
  return true;
}

static void child(void) {
  full = coir_chan_create(sizeof(int), 1);
  coir_event_reset(&dealt_with);
  run_with((struct coir_config){.on_deadlock = waiting_hook}, waits, NULL);
}

static void the_hook_may_not_wait(void **state) {
  (void)state;
  char report[4096];
  int status = in_child_process(child, report, sizeof report);
  CHECK(WIFSIGNALED(status) || WEXITSTATUS(status));
  CHECK(strstr(report, "waiting calls are made by fibers"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_hook_may_try_to_send_and_receive),
      cmocka_unit_test(the_hook_may_not_wait),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
