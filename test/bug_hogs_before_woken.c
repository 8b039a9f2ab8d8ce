/* Paused fibers queued with all others, so one that was woken waited until each of those before it had had its quantum:
 * with a thousand of them for seconds. They have a queue of their own now, of which one runs each quantum. */
#include "hogs.h"

#define HOGS 40
#define WAKES 10

static _Atomic(bool) stop;
static struct hog hogs[HOGS];
static struct coir_event event;
static _Atomic(int) woken;
static _Atomic(uint64_t) pauses_when_woken;

static int be_woken(void *unused) {
  (void)unused;
  for (int i = 0; i < WAKES; i++) {
    CHECK_EQ(coir_event_wait(&event, COIR_NEVER), 0);
    coir_event_reset(&event);
    atomic_store(&pauses_when_woken, stats_here().preemptions);
    atomic_fetch_add(&woken, 1);
  }
  atomic_store(&stop, true);
  return 0;
}

static bool have_all_run(void) {
  for (int i = 0; i < HOGS; i++)
    if (!atomic_load(&hogs[i].turns)) return false;
  return true;
}

/* A plain thread. Its own delays can only make the sum smaller. */
static void *wake(void *runtime) {
  uint64_t sum = 0;
  SPIN_UNTIL(have_all_run());
  for (int i = 0; i < WAKES; i++) {
    (void)coir_sleep(COIR_MS(5));
    coir_event_set(&event);
    uint64_t before = stats_of(runtime).preemptions;
    WAIT_FOR(atomic_load(&woken) > i);
    uint64_t now = atomic_load(&pauses_when_woken);
    if (now > before) sum += now - before;
  }
  CHECK(sum < WAKES * HOGS / 4);
  return NULL;
}

static int wake_among_hogs(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[HOGS], *f = spawn(be_woken, NULL);
  pthread_t thread;
  coir_yield(); /* it waits now */
  hogs_spawn(hogs, fibers, HOGS, &stop);
  CHECK_EQ(pthread_create(&thread, NULL, wake, coir_runtime_current()), 0);
  for (int i = 0; i < HOGS; i++) join(fibers[i]);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return join(f);
}

static void the_woken_go_first(void) {
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 2000), wake_among_hogs, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_woken_go_first)};
  return RUN_CASES(argc, argv, cases);
}
