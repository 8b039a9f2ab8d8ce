/* Whether a paused fiber may hold something that the library wants was asked only when a worker was blocked. But it may
 * be what is needed to make one more thread, the loader's lock, or memory's. Then that thread did not come, the worker
 * met one more fiber that computes, which could not be paused for want of a thread and so computed on, and the turn of
 * the one that was paused never came.
 *
 * calloc(3), by which the library gets its memory, is wrapped (--wrap): it has a lock that a fiber can hold. */
#include "hogs.h"

#include <link.h>

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

static pthread_mutex_t memory = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(bool) holds, has_begun, is_over;

void *__wrap_calloc(size_t count, size_t bytes) {
  pthread_mutex_lock(&memory);
  void *p = __real_calloc(count, bytes);
  pthread_mutex_unlock(&memory);
  return p;
}

/* On one worker others begin only when this one is paused. */
static void hold_until_paused(void) {
  atomic_store(&holds, true);
  SPIN_UNTIL(atomic_load(&has_begun));
}

static int in_callback(struct dl_phdr_info *info, size_t bytes, void *unused) {
  (void)info, (void)bytes, (void)unused;
  hold_until_paused();
  return 1;
}

static int hold_loader(void *unused) {
  (void)unused;
  SPIN_UNTIL(stats_here().preemptions > 4); /* there are as many threads as it takes so far */
  dl_iterate_phdr(in_callback, NULL);
  atomic_store(&is_over, true);
  return 0;
}

static int hold_memory(void *unused) {
  (void)unused;
  SPIN_UNTIL(stats_here().preemptions > 4);
  CHECK_EQ(pthread_mutex_lock(&memory), 0);
  hold_until_paused();
  CHECK_EQ(pthread_mutex_unlock(&memory), 0);
  atomic_store(&is_over, true);
  return 0;
}

static int hog_until_over(void *unused) {
  (void)unused;
  atomic_store(&has_begun, true);
  SPIN_UNTIL(atomic_load(&is_over));
  return 0;
}

static int more_hogs_than_threads(void *unused) {
  (void)unused;
  SPIN_UNTIL(atomic_load(&holds));
  for (int i = 0; i < 3; i++) coir_detach(spawn(hog_until_over, NULL));
  SPIN_UNTIL(atomic_load(&is_over));
  return 0;
}

static int hold_against_hogs(void *hold) {
#ifdef COIR_HARD /* each spawn needs memory there: who spawns would wait for who waits for what it spawns */
  if (*(coir_fn *)hold == hold_memory) return 0;
#endif
  struct coir_fiber *holder = spawn(*(coir_fn *)hold, NULL);
  struct coir_fiber *spawner = spawn(more_hogs_than_threads, NULL);
  join(holder);
  return join(spawner);
}

static void hold(coir_fn fn) {
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 2000), hold_against_hogs, &fn), 0);
}

static void the_loader(void) { hold(hold_loader); }
static void the_memory(void) { hold(hold_memory); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_loader), CASE(the_memory)};
  return RUN_CASES(argc, argv, cases);
}
