/* What a fiber finds after a pause is what it left: its thread, what belongs to that, its registers, its sections. */
#include "hogs.h"

#include <fenv.h>
#include <poll.h>

#include "registers.h"

static _Atomic(bool) stop;
static _Atomic(int) steps;

static int step_now_and_then(void *unused) {
  (void)unused;
  while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
    atomic_fetch_add_explicit(&steps, 1, memory_order_relaxed);
    CHECK_EQ(coir_sleep(COIR_US(300)), 0);
  }
  return 0;
}

/* Computes until the one above, which has no other worker to run on, has made some steps. */
static void be_paused(void) {
  int before = atomic_load_explicit(&steps, memory_order_relaxed);
  SPIN_UNTIL(atomic_load_explicit(&steps, memory_order_relaxed) >= before + 3);
}

/* ---- Sections ---------------------------------------------------------------------------------------------------- */

#define SLOTS 8
#define HOLDERS 8
#define HOLDS 20000

static volatile int64_t slots[SLOTS];
static _Atomic(int) holds_left;

/* An addition that takes long, so that it would be met in the middle. */
static int add_under_holds(void *unused) {
  (void)unused;
  int added = 0;
  while (atomic_fetch_sub(&holds_left, 1) > 0) {
    coir_hold_begin();
    if (added % 8 == 0) coir_hold_begin();
    int mine = coir_worker_index();
    CHECK(mine >= 0 && mine < SLOTS);
    int64_t was = slots[mine];
    hog_compute(20000);
    slots[mine] = was + 1;
    CHECK_EQ(coir_worker_index(), mine);
    if (added % 8 == 0) coir_hold_end();
    coir_hold_end();
    added++;
    hog_compute(20000);
  }
  return added;
}

static int hold(void *unused) {
  struct coir_fiber *fibers[HOLDERS];
  int64_t added = 0, sum = 0;
  atomic_store(&holds_left, HOLDS);
  for (int i = 0; i < SLOTS; i++) slots[i] = 0;
  for (int i = 0; i < HOLDERS; i++) fibers[i] = spawn(add_under_holds, unused);
  for (int i = 0; i < HOLDERS; i++) added += join(fibers[i]);
  for (int i = 0; i < SLOTS; i++) sum += slots[i];
  CHECK_EQ(added, HOLDS);
  CHECK_EQ(sum, added);
  CHECK(stats_here().preemptions > 0);
  return 0;
}

static void holds_are_not_interrupted(void **state) {
  (void)state;
  for (int workers = 1; workers <= 4; workers *= 2)
    CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(workers, 100), hold, NULL), 0);
}

/* ---- What belongs to the thread -------------------------------------------------------------------------------- */

static __attribute__((noinline)) void errno_set(int v) {
  __asm__ volatile("" ::: "memory");
  errno = v;
}

static __attribute__((noinline)) int errno_get(void) {
  __asm__ volatile("" ::: "memory");
  return errno;
}

static _Thread_local int mark;

static __attribute__((noinline)) void mark_set(int v) {
  __asm__ volatile("" ::: "memory");
  mark = v;
}

static __attribute__((noinline)) int mark_get(void) {
  __asm__ volatile("" ::: "memory");
  return mark;
}

static volatile double one = 1, three = 3;

static int notices_nothing(void *arg) {
  static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  int number = (int)(intptr_t)arg, mode = modes[number % 4];
  struct coir_fiber *self = coir_current();
  CHECK_EQ(fesetround(mode), 0);
  double third = one / three;
  for (int i = 0; i < 10; i++) {
    int tid = hog_tid();
    pthread_t thread = pthread_self();
    errno_set(number + i);
    mark_set(number + i);
    be_paused();
    CHECK_EQ(errno_get(), number + i);
    CHECK_EQ(mark_get(), number + i);
    CHECK_EQ(hog_tid(), tid);
    CHECK(pthread_equal(pthread_self(), thread));
    CHECK_EQ(fegetround(), mode);
    CHECK(one / three == third);
    CHECK(coir_current() == self);
    mark_set(0);
    coir_yield();
    CHECK_EQ(errno_get(), number + i);
    CHECK_EQ(fegetround(), mode);
    CHECK_EQ(mark_get(), 0);
  }
  return 0;
}

static int several_notice_nothing(void *unused) {
  struct coir_fiber *fibers[4];
  atomic_store(&stop, false);
  struct coir_fiber *other = spawn(step_now_and_then, unused);
  for (intptr_t i = 0; i < 4; i++) fibers[i] = spawn(notices_nothing, (void *)(1000 + 11 * i));
  for (int i = 0; i < 4; i++) CHECK_EQ(join(fibers[i]), 0);
  atomic_store(&stop, true);
  CHECK_EQ(join(other), 0);
  CHECK(stats_here().preemptions > 0);
  return 0;
}

static void a_fiber_notices_nothing(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 500), several_notice_nothing, NULL), 0);
}

static uint64_t expected[REGISTERS_KINDS];

static int keeps_registers(void *kind) {
  int n = 0;
  for (; !atomic_load_explicit(&stop, memory_order_relaxed); n++)
    CHECK(registers_run((int)(intptr_t)kind, 42, 20000) == expected[(intptr_t)kind]);
  return n;
}

static int keep_registers(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[2 * REGISTERS_KINDS];
  atomic_store(&stop, false);
  for (intptr_t i = 0; i < 2 * REGISTERS_KINDS; i++) fibers[i] = spawn(keeps_registers, (void *)(i % REGISTERS_KINDS));
  CHECK_EQ(coir_sleep(COIR_MS(500)), 0);
  WAIT_FOR(stats_here().preemptions > 100);
  atomic_store(&stop, true);
  for (int i = 0; i < 2 * REGISTERS_KINDS; i++) CHECK(join(fibers[i]) > 0);
  return 0;
}

static void registers_are_kept(void **state) {
  (void)state;
  for (int i = 0; i < REGISTERS_KINDS; i++) expected[i] = registers_run(i, 42, 20000);
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 200), keep_registers, NULL), 0);
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(2, 200), keep_registers, NULL), 0);
}

/* ---- Calls into the kernel ------------------------------------------------------------------------------------- */

static int interrupted;

static int sleep_in_the_kernel(void *fd) {
  int hits = 0;
  char c;
  for (int i = 0; i < 8; i++) {
    hits += nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL) && errno == EINTR;
    hits += poll(NULL, 0, 20) < 0 && errno == EINTR;
    hits += read((int)(intptr_t)fd, &c, 1) != 1;
  }
  return hits;
}

static int feed(void *fd) {
  for (int i = 0; i < 32; i++) {
    CHECK_EQ(coir_sleep(COIR_MS(15)), 0);
    CHECK_EQ(write((int)(intptr_t)fd, "x", 1), 1);
  }
  return 0;
}

static int sleepers(void *unused) {
  int fds[2];
  struct coir_fiber *fibers[4];
  CHECK_EQ(pipe(fds), 0);
  atomic_store(&stop, false);
  struct coir_fiber *other = spawn(step_now_and_then, unused), *feeder = spawn(feed, (void *)(intptr_t)fds[1]);
  for (int i = 0; i < 4; i++) fibers[i] = spawn(sleep_in_the_kernel, (void *)(intptr_t)fds[0]);
  for (int i = 0; i < 4; i++) interrupted += join(fibers[i]);
  CHECK_EQ(join(feeder), 0);
  atomic_store(&stop, true);
  CHECK_EQ(join(other), 0);
  CHECK(stats_here().handoffs > 0);
  close(fds[0]);
  close(fds[1]);
  return 0;
}

/* Who is in the kernel is handed off without a signal. */
static void the_blocked_are_not_interrupted(void **state) {
  (void)state;
  interrupted = 0;
  struct coir_config config = PREEMPTIVE(1, 5000);
  config.blocked_us = 1000;
  CHECK_EQ(run_with(config, sleepers, NULL), 0);
  CHECK_EQ(interrupted, 0);
}

/* ---- Together with waits --------------------------------------------------------------------------------------- */

#define PASSERS 8

static struct coir_chan *here, *there;
static struct coir_mutex mutex;
static int64_t guarded;

/* Half of them take tokens there, and the others back. */
static int pass_tokens(void *number) {
  uint64_t rng = rng_seed((uint64_t)(intptr_t)number);
  bool is_back = (intptr_t)number % 2;
  int64_t token;
  int passed = 0;
  for (; passed < rounds(200); passed++) {
    CHECK_EQ(coir_chan_recv(is_back ? there : here, &token, COIR_NEVER), 0);
    hog_compute((int)(rng_next(&rng) % 1000000));
    CHECK_EQ(coir_mutex_lock(&mutex, COIR_NEVER), 0);
    int64_t was = guarded;
    hog_compute((int)(rng_next(&rng) % 100000));
    guarded = was + 1;
    coir_mutex_unlock(&mutex);
    CHECK_EQ(coir_chan_send(is_back ? here : there, &token, COIR_NEVER), 0);
  }
  return passed;
}

static int circulate(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[PASSERS];
  int64_t sum = 0, token, passed = 0;
  mutex = (struct coir_mutex){0};
  guarded = 0;
  here = coir_chan_create(sizeof token, 4);
  there = coir_chan_create(sizeof token, 1);
  for (token = 1; token <= 4; token++) CHECK_EQ(coir_chan_send(here, &token, 0), 0);
  for (intptr_t i = 0; i < PASSERS; i++) fibers[i] = spawn(pass_tokens, (void *)i);
  for (int i = 0; i < PASSERS; i++) passed += join(fibers[i]);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(coir_chan_recv(here, &token, 0), 0);
    sum += token;
  }
  CHECK_EQ(sum, 1 + 2 + 3 + 4);
  CHECK_EQ(coir_chan_recv(here, &token, 0), -ETIMEDOUT);
  CHECK_EQ(coir_chan_recv(there, &token, 0), -ETIMEDOUT);
  CHECK_EQ(guarded, passed);
  CHECK(stats_here().preemptions > 0);
  coir_chan_unref(here);
  coir_chan_unref(there);
  return 0;
}

static void nothing_is_lost_or_doubled(void **state) {
  (void)state;
  for (int workers = 1; workers <= 4; workers *= 2)
    CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(workers, 100), circulate, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(holds_are_not_interrupted),  cmocka_unit_test(a_fiber_notices_nothing),
      cmocka_unit_test(registers_are_kept),         cmocka_unit_test(the_blocked_are_not_interrupted),
      cmocka_unit_test(nothing_is_lost_or_doubled),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
