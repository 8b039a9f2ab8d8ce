/* A worker whose fiber blocked was taken away only if something was queued on it. One that had nothing of its own
 * stayed with the fiber, though another one had a long queue, of which an idle worker would have taken its share: a
 * part of the machine stood still for as long as the call blocked. */
#include "stuck.h"

#define JOBS 8

static struct pipe_pair never_yet;
static flag is_blocking, is_shared;

static int block(void *unused) {
  (void)unused;
  raise_flag(&is_blocking);
  take_byte(&never_yet);
  return 0;
}

/* Gives way all the time, so that this worker itself is never stuck. */
static int work_until_shared(void *unused) {
  (void)unused;
  int64_t give_up = coir_after(COIR_SEC(20));
  while (!is_up(&is_shared)) {
    CHECK(coir_now() < give_up);
    for (int64_t end = coir_now() + COIR_US(50); coir_now() < end;) {}
    coir_yield();
    if (coir_worker_index() == 1) raise_flag(&is_shared);
  }
  return 0;
}

ON_FIBER_OF(the_other_queue_is_shared, .workers = 2) {
  struct coir_fiber *jobs[JOBS], *blocked = NULL;
  pipe_open(&never_yet);
  blocked = spawn_with((struct coir_attr){.worker = COIR_WORKER(1)}, block, NULL);
  SPIN_UNTIL(is_up(&is_blocking));
  for (int i = 0; i < JOBS; i++)
    jobs[i] = spawn_with((struct coir_attr){.worker = COIR_WORKER(0)}, work_until_shared, NULL);
  for (int i = 0; i < JOBS; i++) join(jobs[i]);
  give_byte(&never_yet);
  join(blocked);
  pipe_close(&never_yet);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_other_queue_is_shared)};
  return RUN_CASES(argc, argv, cases);
}
