/* A fiber that goes on beside the workers has no worker that names it, and all that have none were listed as waiting
 * for somebody to run them. But it runs; and only one that is paused is ready, and one in a section that may block
 * waits. */
#include "stuck.h"

static flag is_listed;
static enum coir_fiber_state state;

static int list(void *unused) {
  (void)unused;
  struct coir_fiber_info infos[8];
  size_t count = coir_runtime_list(coir_runtime_current(), infos, 8);
  int seen = 0;
  CHECK(count <= 8);
  for (size_t i = 0; i < count; i++) {
    if (strcmp(infos[i].name, "looked at") != 0) continue;
    state = infos[i].state;
    seen++;
  }
  CHECK_EQ(seen, 1);
  return raise_flag(&is_listed);
}

/* On the only worker: when the other one runs, it has been taken away. */
static void be_listed(int preempt) {
  coir_set_name("looked at");
  coir_detach(spawn_with((struct coir_attr){.preempt = preempt}, list, NULL));
}

ON_FIBER_OF(one_that_computes_is_running, .workers = 1, .preempt = COIR_OFF) {
  be_listed(COIR_OFF);
  SPIN_UNTIL(is_up(&is_listed));
  CHECK_EQ(state, COIR_FIBER_RUNNING);
}

ON_FIBER_OF(one_that_is_paused_is_ready, .workers = 1, .preempt = COIR_ON, .quantum_us = 2000, .busy_us = 1000000) {
  be_listed(COIR_OFF);
  SPIN_UNTIL(is_up(&is_listed));
  CHECK_EQ(state, COIR_FIBER_READY);
}

ON_FIBER_OF(one_in_a_section_waits, .workers = 1) {
  be_listed(COIR_OFF);
  CHECK_EQ(coir_block_enter(), 0);
  SPIN_UNTIL(is_up(&is_listed));
  coir_block_leave();
  CHECK_EQ(state, COIR_FIBER_WAITING);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(one_that_computes_is_running),
      CASE(one_that_is_paused_is_ready),
      CASE(one_in_a_section_waits),
  };
  return RUN_CASES(argc, argv, cases);
}
