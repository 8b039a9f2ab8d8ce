/* The child of a fork inherited the count of the threads that Coir had started in its parent. A thread of the child's
 * own was taken for one of those, and so a fiber that this thread was about to wake, for one in a deadlock. */
#include "processes.h"

static struct coir_chan *chan;

static void *sends_later(void *arg) {
  char byte = 1;
  struct timespec pause = {.tv_nsec = 150000000};
  nanosleep(&pause, NULL);
  CHECK_EQ(coir_chan_send(chan, &byte, COIR_NEVER), 0);
  return arg;
}

static int receives(void *arg) {
  (void)arg;
  char byte = 0;
  return coir_chan_recv(chan, &byte, COIR_NEVER);
}

static int ends(void *arg) { return arg ? 1 : 0; }

static void child(void) {
  pthread_t thread;
  chan = coir_chan_create(1, 0);
  CHECK_EQ(pthread_create(&thread, NULL, sends_later, NULL), 0);
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, receives, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  coir_chan_unref(chan);
}

static void a_child_counts_its_own_threads(void **state) {
  (void)state;
  char text[4096];
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *f; /* when it has ended, the thread of the worker has begun */
  CHECK_EQ(coir_runtime_spawn(rt, ends, NULL, NULL, &f), 0);
  CHECK_EQ(coir_join(f, NULL, COIR_NEVER), 0);
  int status = in_child_process(child, text, sizeof text);
  if (status) fail_msg("status %x; stderr: %s", (unsigned)status, text);
  CHECK_EQ(text[0], 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  if (IS_TSAN) return 77; /* it still counts the parent's threads, and ends a child with another one in their place */
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_child_counts_its_own_threads)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
