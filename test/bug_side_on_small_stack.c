/* A side of a fork that another worker took ran on a stack of the runtime's usual size, not of the caller's. So what
 * was right as long as nobody took it overflowed when somebody did. */
#include "jobs.h"

#define ROOM (128 << 10)

static tally is_taken;

static __attribute__((noinline)) void use_much(void) {
  volatile char room[ROOM];
  for (int i = 0; i < ROOM; i += 1024) room[i] = 1;
  CHECK_EQ(room[ROOM - 1024], 1);
}

static void uses_much(void *arg) {
  (void)arg;
  use_much();
  atomic_store(&is_taken, 1);
}

static void waits_for_a_thief(void *arg) {
  (void)arg;
  SPIN_UNTIL(atomic_load(&is_taken));
}

static void forks(void *arg) {
  atomic_store(&is_taken, 0);
  CHECK_EQ(coir_fork2(waits_for_a_thief, arg, uses_much, arg), 0);
}

/* What a side that was taken forks has as much. */
static void forks_in_a_side(void *arg) {
  atomic_store(&is_taken, 0);
  CHECK_EQ(coir_fork2(waits_for_a_thief, arg, forks, arg), 0);
}

static void one_of_two(size_t lo, size_t hi, void *arg) {
  CHECK_EQ(hi, lo + 1);
  if (lo == 0) waits_for_a_thief(arg);
  else uses_much(arg);
}

static int on_a_large_stack(void *arg) {
  (void)arg;
  for (int i = 0; i < 10; i++) {
    forks(NULL);
    forks_in_a_side(NULL);
    atomic_store(&is_taken, 0);
    CHECK_EQ(coir_parallel_range(NULL, 0, 2, 1, one_of_two, NULL), 0);
  }
  return 0;
}

static int begins(void *arg) {
  return join(spawn_with((struct coir_attr){.stack_bytes = 4 * ROOM}, on_a_large_stack, arg));
}

static void a_side_has_as_much_as_its_caller(void) {
  CHECK_EQ(run_with((struct coir_config){.workers = 3, .stack_bytes = 16 << 10}, begins, NULL), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(a_side_has_as_much_as_its_caller)};
  return RUN_CASES(argc, argv, cases);
}
