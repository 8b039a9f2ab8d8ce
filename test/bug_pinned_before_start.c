/* A pinned fiber that was spawned just before its runtime was started: the worker had been told that it has one, but
 * the start, which saw no fiber yet, made it forget that. So the worker was taken away like any other when a fiber on
 * it blocked, and the pinned one went on on another thread. */
#include "hogs.h"

char *__real_strncpy(char *to, const char *from, size_t bytes);
char *__wrap_strncpy(char *to, const char *from, size_t bytes);

static __thread bool is_spawner;
static _Atomic(bool) is_spawning, is_started, is_pinned, is_over;
static struct coir_runtime *rt;
static struct coir_fiber *pinned;

/* Its name is copied after the worker has been told, and before it is counted. */
char *__wrap_strncpy(char *to, const char *from, size_t bytes) {
  if (is_spawner && !is_spawning) {
    is_spawning = true;
    SPIN_UNTIL(is_started);
  }
  return __real_strncpy(to, from, bytes);
}

static int be_pinned(void *arg) {
  int tid = hog_tid(), changes = 0;
  (void)arg;
  is_pinned = true;
  while (!is_over) {
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    changes += hog_tid() != tid;
  }
  return changes;
}

static void *spawns(void *arg) {
  is_spawner = true;
  CHECK_EQ(coir_runtime_spawn(rt, be_pinned, NULL, &(struct coir_attr){.pinned = true, .name = "pinned"}, &pinned), 0);
  return arg;
}

static int blocks(void *arg) {
  (void)arg;
  usleep(50000);
  return 0;
}

static void the_worker_keeps_its_thread(void) {
  pthread_t thread;
  rt = make_runtime((struct coir_config){.workers = 1, .monitor = COIR_ON, .blocked_us = 500});
  CHECK_EQ(pthread_create(&thread, NULL, spawns, NULL), 0);
  SPIN_UNTIL(is_spawning);
  CHECK_EQ(coir_runtime_start(rt), 0);
  is_started = true;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  WAIT_FOR(is_pinned);
  for (int i = 0; i < 4; i++) {
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_spawn(rt, blocks, NULL, NULL, &f), 0);
    CHECK_EQ(join(f), 0);
  }
  is_over = true;
  CHECK_EQ(join(pinned), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_worker_keeps_its_thread)};
  return RUN_CASES(argc, argv, cases);
}
