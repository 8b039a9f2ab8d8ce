/* A fault that is no overflow goes on to the handler that was there before ours, but that was called without what it
 * had been set with. With SA_RESETHAND the next fault is to end the process: instead a handler that returned was called
 * for ever. With SA_NODEFER it may leave by longjmp, and a later fault reach it again: that killed the process. */
#include "processes.h"

#include <sys/mman.h>

static int calls;
static int *nowhere; /* of a page that nobody may touch: what UBSan knows to be wrong it would report itself */
static sigjmp_buf back;

static void set(void (*handler)(int signo), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
}

static int writes_nowhere(void *arg) {
  (void)arg;
  if (!nowhere) nowhere = mmap(NULL, sizeof *nowhere, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(nowhere != MAP_FAILED);
  *(volatile int *)nowhere = 1;
  return 0;
}

static void counts(int signo) {
  (void)signo;
  if (++calls > 1) _exit(3);
}

static void a_handler_for_one_fault(void) {
  int status = -1;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(20);
    set(counts, (int)SA_RESETHAND);
    run(writes_nowhere, NULL);
    _exit(4);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void leaves(int signo) {
  (void)signo;
  calls++;
  siglongjmp(back, 1);
}

static int is_caught_again_and_again(void *arg) {
  for (volatile int i = 0; i < 3; i++)
    if (sigsetjmp(back, 0) == 0) writes_nowhere(arg);
  return calls;
}

static void a_handler_that_does_not_return(void) {
  set(leaves, SA_NODEFER);
  CHECK_EQ(run(is_caught_again_and_again, NULL), 3);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(a_handler_for_one_fault),
      CASE(a_handler_that_does_not_return),
  };
  return RUN_CASES(argc, argv, cases);
}
