/* Who goes to sleep in a poller says so, and looks whether a wake is due; who wakes it does it the other way round. On
 * ARM a store and a load did for that (stlr, ldar). But in qemu's user emulation of it (7.2, on x86-64) the load may
 * come before the store: the wake was lost, and with it now and then a whole program. It is to be seen there only. */
#include "harness.h"
#include "poller.h"

#define ROUNDS 200000
#define LOST COIR_SEC(10) /* a sleep that long was not woken */

static struct coir__poller *poller;
static _Atomic(int) arrived;

/* Both leave at the same moment, where there are two CPUs for them. */
static void meet(int round) {
  atomic_fetch_add(&arrived, 1);
  for (int i = 0; atomic_load(&arrived) < 2 * (round + 1); i++)
    if (i > 1000) sched_yield();
}

static void *wakes(void *unused) {
  uint64_t rng = rng_seed(1);
  for (int i = 0; i < rounds(ROUNDS); i++) {
    meet(2 * i);
    for (uint64_t n = rng_next(&rng) % 256; n > 0; n--) atomic_signal_fence(memory_order_seq_cst);
    coir__poller_wake(poller);
    meet(2 * i + 1);
  }
  return unused;
}

static void each_wake_is_seen(void **state) {
  pthread_t thread;
  (void)state;
  CHECK_EQ(coir__poller_create(&poller, NULL), 0);
  CHECK_EQ(pthread_create(&thread, NULL, wakes, NULL), 0);
  for (int i = 0; i < rounds(ROUNDS); i++) {
    meet(2 * i);
    int64_t begin = coir_now();
    coir__poller_wait(poller, begin + LOST);
    CHECK(coir_now() - begin < LOST);
    meet(2 * i + 1);
  }
  CHECK_EQ(pthread_join(thread, NULL), 0);
  coir__poller_destroy(poller);
}

int main(void) {
  const struct CMUnitTest cases[] = {cmocka_unit_test(each_wake_is_seen)};
  return cmocka_run_group_tests(cases, NULL, NULL);
}
