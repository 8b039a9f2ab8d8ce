/* A thread that goes on with a worker calls the program first (coir_config.on_thread, and the hooks of tracing) and was
 * not seen by the monitor meanwhile. If it waited there for a lock that a paused fiber held, nobody let that fiber go,
 * and the worker stood still for ever. */
#include "hogs.h"

#include "coir_trace.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(bool) is_held, is_wanted, is_released;

static void want_lock(void) {
  if (atomic_load(&is_held)) atomic_store(&is_wanted, true);
  CHECK_EQ(pthread_mutex_lock(&lock), 0);
  CHECK_EQ(pthread_mutex_unlock(&lock), 0);
}

static void on_thread(int worker, void *unused) {
  (void)worker, (void)unused;
  want_lock();
}

static void on_switch(uint64_t from, uint64_t to, void *unused) {
  (void)from, (void)to, (void)unused;
  want_lock();
}

static int be_next(void *unused) {
  (void)unused;
  CHECK(atomic_load(&is_released));
  return 0;
}

/* It computes on for some quanta, so it is paused for sure. */
static int hold_lock(void *unused) {
  (void)unused;
  coir_hold_begin(); /* the worker does not go on before the lock is held */
  struct coir_fiber *next = spawn(be_next, NULL);
  CHECK_EQ(pthread_mutex_lock(&lock), 0);
  atomic_store(&is_held, true);
  coir_hold_end();
  SPIN_UNTIL(atomic_load(&is_wanted));
  for (int64_t end = hog_cpu_ns() + COIR_MS(50); hog_cpu_ns() < end;) continue;
  atomic_store(&is_held, false);
  atomic_store(&is_released, true);
  CHECK_EQ(pthread_mutex_unlock(&lock), 0);
  return join(next);
}

/* All threads are the runtime's own: of others nobody is told. */
static void hold_it(struct coir_config config) {
  struct coir_fiber *f = NULL;
  config.blocked_us = 1000;
  struct coir_runtime *rt = make_runtime(config);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, hold_lock, NULL, NULL, &f), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void the_program_is_told(void) {
  struct coir_config config = PREEMPTIVE(1, 2000);
  config.on_thread = on_thread;
  hold_it(config);
}

static void a_switch_is_told(void) {
  struct coir_trace_hooks hooks = {.on_switch = on_switch};
  if (coir_trace_set_hooks(&hooks) == 0) hold_it((struct coir_config)PREEMPTIVE(1, 2000));
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_program_is_told), CASE(a_switch_is_told)};
  return RUN_CASES(argc, argv, cases);
}
