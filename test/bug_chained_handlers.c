/* A handler that the program sets over ours passes what is not its own on to what it has found, as handlers do. When
 * the next runtime with preemption set ours over that one, the two passed a signal of the program's on to each other
 * until the stack was full. */
#include "hogs.h"

static _Atomic(int) oldest_calls, newer_calls;
static struct sigaction found;
static sigjmp_buf *leave_to;

static void oldest(int signo, siginfo_t *info, void *context) {
  (void)signo, (void)info, (void)context;
  oldest_calls++;
}

static void newer(int signo, siginfo_t *info, void *context) {
  newer_calls++;
  if (leave_to) siglongjmp(*leave_to, 1);
  found.sa_sigaction(signo, info, context);
}

static void set(void (*handler)(int signo, siginfo_t *info, void *context), struct sigaction *before) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  CHECK_EQ(sigaction(SIGUSR1, &action, before), 0);
}

static int yields(void *arg) {
  (void)arg;
  coir_yield();
  return 0;
}

static void set_ours(void) {
  struct coir_config config = PREEMPTIVE(1, 1000);
  config.preempt_signal = SIGUSR1;
  CHECK_EQ(run_with(config, yields, NULL), 0);
}

static void send_and_expect(int newer_more, int oldest_more) {
  int newer_before = newer_calls, oldest_before = oldest_calls;
  CHECK_EQ(raise(SIGUSR1), 0);
  CHECK_EQ(newer_calls - newer_before, newer_more);
  CHECK_EQ(oldest_calls - oldest_before, oldest_more);
}

static void each_is_called_once(void) {
  set(oldest, NULL);
  set_ours();
  send_and_expect(0, 1);
  set(newer, &found);
  send_and_expect(1, 1); /* it is called first, and passes it on to us */
  set_ours();
  for (int i = 0; i < 3; i++) send_and_expect(1, 1);
}

/* A handler need not return. ThreadSanitizer calls handlers itself, which then look as if they had been passed on. */
static void it_may_leave(void) {
  sigjmp_buf here;
  each_is_called_once();
  for (volatile int i = 0; i < 3 && !IS_TSAN; i++) {
    leave_to = &here;
    if (sigsetjmp(here, 1) == 0) {
      raise(SIGUSR1);
      CHECK(false);
    }
    leave_to = NULL;
    send_and_expect(1, 1);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(each_is_called_once),
      CASE(it_may_leave),
  };
  return RUN_CASES(argc, argv, cases);
}
