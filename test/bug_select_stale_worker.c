/* A select with a descriptor that is being closed waits for the close to end, and may go on with another worker. It
 * went on with the one that it had begun on, and so did to that worker what only its own thread may do.
 *
 * Here it begins on worker 0 and goes on on worker 1, while worker 0 computes. The channel that the select then finds
 * ready has a receiver. It was put where worker 0 keeps what it runs next, and nobody else may take it from there. */
#include "parked.h"

#include <fcntl.h>

#include "coir_io.h"
#include "internal.h"

static struct coir_chan *chan;
static int fd;
static _Atomic(bool) has_begun, has_received;

static int receives(void *arg) {
  (void)arg;
  int value = 0;
  CHECK_EQ(coir_chan_recv(chan, &value, COIR_NEVER), 0);
  CHECK_EQ(value, 7);
  atomic_store(&has_received, true);
  return 0;
}

static int selects(void *arg) {
  (void)arg;
  int value = 7;
  struct coir_arm arms[] = {{.kind = COIR_ARM_FD, .fd = fd, .events = COIR_READABLE},
                            {.kind = COIR_ARM_SEND, .object = chan, .value = &value}};
  CHECK_EQ(coir_worker_index(), 0);
  atomic_store(&has_begun, true);
  CHECK_EQ(coir_select(arms, 2, COIR_NEVER), 1);
#ifndef COIR_HARD /* where it may go on elsewhere once more, by now */
  CHECK_EQ(coir_worker_index(), 1);
#endif
  CHECK_EQ(arms[1].result, 0);
  return 0;
}

/* On worker 0, which it keeps until all is over. */
static int closes(void *arg) {
  (void)arg;
  int rc;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  struct coir_fiber *receiver = spawn(receives, NULL);
  until_parked(1);
  uint32_t was = coir__go_in();
  uint64_t life = coir__fd_retire(d, fd);
  coir__go_out(&was);
  struct coir_fiber *selector = spawn_with((struct coir_attr){.worker = COIR_WORKER(0)}, selects, NULL);
  while (!atomic_load(&has_begun)) coir_yield();
  SPIN_UNTIL(__atomic_load_n(&selector->b.worker, __ATOMIC_RELAXED) == 1); /* worker 1 has taken it away */
  struct coir_tuning tuning;
  coir_runtime_get_tuning(coir_runtime_current(), &tuning);
  tuning.steal = 0;
  coir_runtime_set_tuning(coir_runtime_current(), &tuning);
  was = coir__go_in();
  coir__fd_retired(d, life);
  coir__go_out(&was);
  int64_t end = coir_after(COIR_SEC(2));
  while (!atomic_load(&has_received) && coir_now() < end) {}
  CHECK(atomic_load(&has_received));
  CHECK_EQ(join(selector), 0);
  CHECK_EQ(join(receiver), 0);
  return 0;
}

static void a_select_goes_on_with_its_new_worker(void **state) {
  (void)state;
  int ends[2];
  CHECK_EQ(pipe2(ends, O_NONBLOCK), 0);
  fd = ends[0];
  chan = coir_chan_create(sizeof(int), 0);
  CHECK(chan);
  run_with((struct coir_config){.workers = 2}, closes, NULL);
  coir_chan_unref(chan);
  close(ends[0]);
  close(ends[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_select_goes_on_with_its_new_worker)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
