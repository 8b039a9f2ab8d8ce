/* Hard mode (hard.c) does what it is there for: fibers change their workers, lose them at calls, and what is written to
 * a fiber that has ended is seen. Built in hard mode only. */
#include "harness.h"
#include "internal.h"
#include "processes.h"

static int naps(void *moves) {
  int was = coir_worker_index();
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(coir_sleep(COIR_US(20)), 0);
    atomic_fetch_add((_Atomic(int) *)moves, coir_worker_index() != was);
    was = coir_worker_index();
  }
  return 0;
}

static int many_nap(void *moves) {
  struct coir_fiber *f[8];
  for (int i = 0; i < 8; i++) f[i] = spawn(naps, moves);
  for (int i = 0; i < 8; i++) CHECK_EQ(join(f[i]), 0);
  return 0;
}

static void who_is_woken_goes_elsewhere(void) {
  _Atomic(int) moves = 0;
  CHECK_EQ(run_with((struct coir_config){.workers = 4, .monitor = COIR_OFF}, many_nap, &moves), 0);
  CHECK(moves > 600); /* of 800 */
}

static uint64_t handoffs(void) {
  struct coir_stats s;
  coir_runtime_get_stats(coir_runtime_current(), &s);
  return s.handoffs;
}

static int calls_until_taken(void *unused) {
  (void)unused;
  int64_t end = coir_after(COIR_SEC(20));
  while (handoffs() == 0 && coir_now() < end) CHECK_EQ(coir_yield(), 0);
  return handoffs() > 0;
}

static void workers_are_lost_at_calls(void) {
  struct coir_config config = {.workers = 1, .busy_us = 1000000, .blocked_us = 1000000};
  CHECK_EQ(run_with(config, calls_until_taken, NULL), 1);
}

/* ---- Poison: what follows ends the process ---------------------------------------------------------------------- */

static int returns(void *arg) { return (void)arg, 0; }

static int keeps_its_frame(void *frame) {
  *(int *volatile *)frame = __builtin_frame_address(0);
  return 0;
}

/* Until the stack, or the descriptor, is wanted again. */
static void spawn_many(void) {
  struct coir_fiber *f[100];
  for (int i = 0; i < 100; i++) f[i] = spawn(returns, NULL);
  for (int i = 0; i < 100; i++) join(f[i]);
}

static int writes_to_stack(void *unused) {
  (void)unused;
  for (int i = 0; i < 100; i++) { /* a stack that is used again at once is not looked at */
    int *volatile frame = NULL;
    join(spawn(keeps_its_frame, (void *)&frame));
    *frame = 7;
    spawn_many();
  }
  return 0;
}

static int writes_to_descriptor(void *unused) {
  (void)unused;
  struct coir_fiber *f = spawn(returns, NULL);
  join(f);
  f->next = f;
  spawn_many();
  return 0;
}

static void dies(coir_fn fn, const char *says) {
  int pipes[2], status;
  char text[1024] = "";
  CHECK_EQ(pipe(pipes), 0);
  pid_t child = fork();
  if (child == 0) {
    signal(SIGABRT, SIG_DFL); /* cmocka's own would turn it into a failure */
    dup2(pipes[1], 2);
    coir_run(fn, NULL);
    _exit(0);
  }
  close(pipes[1]);
  size_t used = 0;
  for (ssize_t n; (n = read(pipes[0], text + used, sizeof text - 1 - used)) > 0;) used += (size_t)n;
  close(pipes[0]);
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(text, says));
  CHECK(strstr(text, "coir: COIR_HARD_SEED="));
}

static void a_write_to_an_old_stack_is_seen(void) { dies(writes_to_stack, "the stack of a fiber that has ended"); }
static void a_write_to_an_old_descriptor_is_seen(void) {
  dies(writes_to_descriptor, "the descriptor of a fiber that has ended");
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(who_is_woken_goes_elsewhere), CASE(workers_are_lost_at_calls),
                                     CASE(a_write_to_an_old_stack_is_seen), CASE(a_write_to_an_old_descriptor_is_seen)};
  return RUN_CASES(argc, argv, cases);
}
