/* A thread that goes on with a worker calls the program first (coir_config.on_thread, and the hooks of tracing) and was
 * not seen by the monitor meanwhile. If it waited there for a lock that a paused fiber held, nobody let that fiber go,
 * and the worker stood still for ever.
 *
 * So did a worker that told of the turn of the very fiber which held the lock: as when a hook writes to a stream, and
 * the fiber has been paused in a call that does. That one had left the queue of those whom the monitor lets go. */
#include "hogs.h"

#include "coir_trace.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(bool) is_held, is_wanted, is_released;
static _Atomic(uint64_t) holder;

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

static void on_turn(uint64_t from, uint64_t to, void *unused) {
  (void)from, (void)unused;
  if (to && to == atomic_load(&holder)) want_lock();
}

static int be_next(void *unused) {
  (void)unused;
  CHECK(atomic_load(&is_released));
  return 0;
}

static int end_at_once(void *unused) {
  (void)unused;
  return 0;
}

/* It computes on for some quanta, so it is paused for sure. */
static int hold_lock_beside(coir_fn fn) {
  coir_hold_begin(); /* the worker does not go on before the lock is held */
  struct coir_fiber *next = spawn(fn, NULL);
  CHECK_EQ(pthread_mutex_lock(&lock), 0);
  atomic_store(&is_held, true);
  atomic_store(&holder, coir_fiber_id(coir_current()));
  coir_hold_end();
  SPIN_UNTIL(atomic_load(&is_wanted));
  for (int64_t end = hog_cpu_ns() + COIR_MS(50); hog_cpu_ns() < end;) continue;
  atomic_store(&is_held, false);
  atomic_store(&is_released, true);
  CHECK_EQ(pthread_mutex_unlock(&lock), 0);
  return join(next);
}

static int hold_lock(void *unused) {
  (void)unused;
  return hold_lock_beside(be_next);
}

/* The next one runs meanwhile, and then it is its turn. */
static int hold_lock_for_a_turn(void *unused) {
  (void)unused;
  return hold_lock_beside(end_at_once);
}

/* All threads are the runtime's own: of others nobody is told. */
static void hold_it(struct coir_config config, coir_fn fn) {
  struct coir_fiber *f = NULL;
  config.blocked_us = 1000;
  struct coir_runtime *rt = make_runtime(config);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, fn, NULL, NULL, &f), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void the_program_is_told(void) {
  struct coir_config config = PREEMPTIVE(1, 2000);
  config.on_thread = on_thread;
  hold_it(config, hold_lock);
}

static void trace(void (*hook)(uint64_t from, uint64_t to, void *arg), coir_fn fn) {
  struct coir_trace_hooks hooks = {.on_switch = hook};
  if (coir_trace_set_hooks(&hooks) == 0) hold_it((struct coir_config)PREEMPTIVE(1, 2000), fn);
}

static void a_switch_is_told(void) { trace(on_switch, hold_lock); }

static void a_turn_is_told(void) { trace(on_turn, hold_lock_for_a_turn); }

/* When the monitor is dismissed while the hook waits. That is a race, but who is told comes first most times. */
static void a_turn_is_told_at_the_end(void) {
  struct coir_config config = PREEMPTIVE(1, 2000);
  struct coir_trace_hooks hooks = {.on_switch = on_turn};
  if (coir_trace_set_hooks(&hooks) != 0) return;
  struct coir_runtime *rt = make_runtime(config);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, hold_lock_for_a_turn, NULL, NULL, NULL), 0);
  while (!atomic_load(&is_wanted)) continue;
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(the_program_is_told), CASE(a_switch_is_told), CASE(a_turn_is_told),
                                     CASE(a_turn_is_told_at_the_end)};
  return RUN_CASES(argc, argv, cases);
}
