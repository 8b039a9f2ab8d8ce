/* Tests of child processes (coir_io.h): what a child gets, how its end is learned of, and that nothing is left. */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "coir_io.h"

/* Runs fn on a runtime of its own; afterwards there are as many descriptors as before, and no child. */
static void run_tidily(coir_fn fn) {
  int fds = fd_count();
  CHECK_EQ(run(fn, NULL), 5);
  CHECK_EQ(fd_count(), fds);
  CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
  CHECK_EQ(errno, ECHILD);
}

/* `sh -c script`, with what else `options` says. */
static struct coir_process *shell(const char *script, struct coir_process_options options) {
  char *argv[] = {(char *)"sh", (char *)"-c", (char *)(uintptr_t)script, NULL};
  struct coir_process *p = NULL;
  options.path = "/bin/sh";
  options.argv = argv;
  CHECK_EQ(coir_process_spawn(&p, &options), 0);
  CHECK(p && coir_process_pid(p) > 0 && coir_process_pidfd(p) >= 0);
  return p;
}

static struct coir_process *plain_shell(const char *script) {
  return shell(script, (struct coir_process_options){.path = NULL});
}

static int end_of(struct coir_process *p) {
  int status = -1;
  CHECK_EQ(coir_process_wait(p, &status, coir_after(COIR_SEC(20))), 0);
  return status;
}

/* What it writes to `which`, until it closes that, as a string. */
static void output_of(struct coir_process *p, int which, char *text, size_t bytes) {
  ssize_t n = coir_read_full(coir_process_fd(p, which), text, bytes - 1, coir_after(COIR_SEC(20)));
  CHECK(n >= 0);
  text[n] = 0;
}

static void expect_output(struct coir_process *p, int which, const char *expected) {
  char text[256];
  output_of(p, which, text, sizeof text);
  if (strcmp(text, expected) == 0) return;
  fprintf(stderr, "descriptor %d: '%s', not '%s'\n", which, text, expected);
  abort();
}

/* ---- Ends ------------------------------------------------------------------------------------------------------ */

static int ends(void *arg) {
  (void)arg;
  struct coir_process *p = plain_shell("exit 7");
  int status = end_of(p);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  CHECK_EQ(end_of(p), status); /* kept */
  CHECK_EQ(coir_process_wait(p, NULL, 0), 0);
  CHECK_EQ(coir_process_kill(p, SIGTERM), -ESRCH);
  CHECK_EQ(coir_process_fd(p, 0), -EBADF);
  CHECK_EQ(coir_process_close_fd(p, 1), -EBADF);
  CHECK_EQ(coir_process_fd(p, 3), -EINVAL);
  coir_process_destroy(p);

  p = plain_shell("kill -KILL $$");
  status = end_of(p);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  coir_process_destroy(p);
  coir_process_destroy(NULL);
  return 5;
}

static int kills(void *arg) {
  (void)arg;
  struct coir_process *p = plain_shell("exec sleep 100");
  CHECK_EQ(coir_process_wait(p, NULL, 0), -ETIMEDOUT);
  CHECK_EQ(coir_process_wait(p, NULL, coir_after(COIR_MS(5))), -ETIMEDOUT);
  CHECK_EQ(coir_process_kill(p, 0), 0);
  CHECK_EQ(coir_process_kill(p, 9999), -EINVAL);
  CHECK_EQ(coir_process_kill(p, SIGKILL), 0);
  int status = end_of(p);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  coir_process_destroy(p);

  /* A group: what the child has started goes with it, so its end of the pipe is closed. */
  p = shell("sleep 100 & echo ready; wait",
            (struct coir_process_options){.io[1].kind = COIR_STDIO_PIPE, .flags = COIR_PROCESS_GROUP});
  char text[6];
  CHECK_EQ(coir_read_full(coir_process_fd(p, 1), text, sizeof text, coir_after(COIR_SEC(20))), 6);
  CHECK_EQ(coir_process_kill(p, SIGTERM), 0);
  expect_output(p, 1, "");
  status = end_of(p);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  CHECK_EQ(coir_process_kill(p, SIGTERM), -ESRCH);
  coir_process_destroy(p);
  return 5;
}

static int wait_for(void *process) {
  int status = -1, rc = coir_process_wait(process, &status, coir_after(COIR_SEC(20)));
  return rc < 0 ? rc : WTERMSIG(status);
}

static int waits(void *arg) {
  (void)arg;
  struct coir_process *p = plain_shell("exec sleep 100");
  struct coir_fiber *f[5];
  for (int i = 0; i < 5; i++) f[i] = spawn(wait_for, p);
  coir_sleep(COIR_MS(2));
  CHECK_EQ(coir_cancel(f[0]), 0);
  CHECK_EQ(join(f[0]), -ECANCELED);
  CHECK_EQ(coir_process_wait(p, NULL, 0), -ETIMEDOUT);
  CHECK_EQ(coir_process_kill(p, SIGTERM), 0);
  for (int i = 1; i < 5; i++) CHECK_EQ(join(f[i]), SIGTERM);
  coir_process_destroy(p);
  return 5;
}

static int selects(void *arg) {
  (void)arg;
  struct coir_process *p = shell("read line", (struct coir_process_options){.io[0].kind = COIR_STDIO_PIPE});
  COIR_CHAN(int) chan = COIR_CHAN_CREATE(int, 1);
  int v = 0;
  struct coir_arm arms[] = {coir_arm_process(p), coir_arm_recv(COIR_CHAN_RAW(chan), &v)};
  CHECK_EQ(coir_select(arms, 2, coir_after(COIR_MS(5))), -ETIMEDOUT);
  v = 3;
  CHECK_EQ(COIR_SEND(chan, &v, 0), 0);
  CHECK_EQ(coir_select(arms, 2, COIR_NEVER), 1);
  CHECK_EQ(coir_write(coir_process_fd(p, 0), "x\n", 2, COIR_NEVER), 2);
  CHECK_EQ(coir_select(arms, 2, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(arms[0].result, COIR_READABLE);
  int status = -1;
  CHECK_EQ(coir_process_wait(p, &status, 0), 0); /* ready: it does not wait */
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK_EQ(coir_select(arms, 1, 0), 0); /* and stays so */
  coir_process_destroy(p);
  coir_chan_unref(COIR_CHAN_RAW(chan));
  return 5;
}

static void a_child_ends(void **state) {
  (void)state;
  run_tidily(ends);
  run_tidily(kills);
  run_tidily(waits);
  run_tidily(selects);
}

/* ---- What it gets ---------------------------------------------------------------------------------------------- */

static int gets(void *arg) {
  (void)arg;
  char *argv[] = {(char *)"zero", (char *)"-c", (char *)"echo \"$0 $A $PWD\" && pwd", (char *)"one", NULL};
  char *envp[] = {(char *)"A=b c", (char *)"PATH=/bin:/usr/bin", NULL};
  struct coir_process_options options = {
      .path = "sh", .argv = argv, .envp = envp, .dir = "/proc/self", .io[1].kind = COIR_STDIO_PIPE};
  struct coir_process *p;
  CHECK_EQ(coir_process_spawn(&p, &options), 0);
  char expected[64];
  snprintf(expected, sizeof expected, "one b c /proc/%d\n/proc/%d\n", coir_process_pid(p), coir_process_pid(p));
  expect_output(p, 1, expected);
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);

  options = (struct coir_process_options){.path = "true"}; /* by PATH, with no arguments */
  CHECK_EQ(coir_process_spawn(&p, &options), 0);
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);
  return 5;
}

static int signals_of_child(void *arg) {
  (void)arg;
  struct coir_process *p =
      shell("grep -E '^Sig(Blk|Ign)' /proc/self/status", (struct coir_process_options){.io[1].kind = COIR_STDIO_PIPE});
  unsigned long long blocked, ignored;
  char text[256];
  output_of(p, 1, text, sizeof text);
  CHECK_EQ(sscanf(text, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
  CHECK_EQ(blocked, 0);
  CHECK_EQ(ignored & ~(3ull << 31), 0); /* but for the two that the C library keeps to itself */
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);
  return 5;
}

static int stdio(void *arg) {
  (void)arg;
  /* /dev/null, a pipe, and the same pipe again */
  struct coir_process *p =
      shell("cat; echo out; echo err >&2",
            (struct coir_process_options){.io = {{COIR_STDIO_NULL, 0}, {COIR_STDIO_PIPE, 0}, {COIR_STDIO_STDOUT, 0}}});
  expect_output(p, 1, "out\nerr\n");
  CHECK_EQ(coir_process_fd(p, 2), -EBADF);
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);

  /* Two pipes; one is closed early. */
  p = shell("cat; echo err >&2",
            (struct coir_process_options){.io = {{COIR_STDIO_PIPE, 0}, {COIR_STDIO_PIPE, 0}, {COIR_STDIO_PIPE, 0}}});
  CHECK_EQ(coir_write_full(coir_process_fd(p, 0), "hello", 5, COIR_NEVER), 5);
  CHECK_EQ(coir_process_close_fd(p, 0), 0);
  CHECK_EQ(coir_process_close_fd(p, 0), -EBADF);
  expect_output(p, 1, "hello");
  expect_output(p, 2, "err\n");
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);

  /* The caller's descriptors, those from 0 to 2 crosswise. */
  int fds[2], saved[3];
  CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
  for (int i = 0; i < 3; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
  dup2(fds[0], 1); /* our 1 is the reading end, our 0 the writing one */
  dup2(fds[1], 0);
  p = shell("echo swapped; read line; test \"$line\" = swapped",
            (struct coir_process_options){.io = {{COIR_STDIO_FD, 1}, {COIR_STDIO_FD, 0}, {COIR_STDIO_FD, 2}}});
  for (int i = 0; i < 3; i++) dup2(saved[i], i), close(saved[i]);
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);

  /* Numbers below 3 are free: what is made meanwhile must not get in the way. */
  for (int i = 0; i < 2; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10), close(i);
  p = shell("cat",
            (struct coir_process_options){.io = {{COIR_STDIO_FD, fds[0]}, {COIR_STDIO_PIPE, 0}, {COIR_STDIO_NULL, 0}}});
  CHECK_EQ(write(fds[1], "low", 3), 3);
  close(fds[0]);
  close(fds[1]);
  expect_output(p, 1, "low");
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);
  for (int i = 0; i < 2; i++) dup2(saved[i], i), close(saved[i]);
  return 5;
}

static void a_child_gets_what_was_asked_for(void **state) {
  (void)state;
  run_tidily(gets);
  run_tidily(stdio);
  sigset_t all, old;
  sigfillset(&all);
  signal(SIGUSR1, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  pthread_sigmask(SIG_BLOCK, &all, &old);
  run_tidily(signals_of_child);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  signal(SIGUSR1, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
}

/* ---- Much of it ------------------------------------------------------------------------------------------------ */

enum { FLOOD = 1 << 20 };

static int feed(void *process) {
  char block[4096];
  for (int done = 0; done < FLOOD; done += (int)sizeof block) {
    memset(block, done / (int)sizeof block, sizeof block);
    CHECK_EQ(coir_write_full(coir_process_fd(process, 0), block, sizeof block, COIR_NEVER), (ssize_t)sizeof block);
  }
  return coir_process_close_fd(process, 0);
}

static int floods(void *arg) {
  (void)arg;
  struct coir_process_options options = {.path = "cat", .io = {{COIR_STDIO_PIPE, 0}, {COIR_STDIO_PIPE, 0}}};
  struct coir_process *p;
  CHECK_EQ(coir_process_spawn(&p, &options), 0);
  struct coir_fiber *f = spawn(feed, p);
  char block[4096];
  for (int done = 0; done < FLOOD; done += (int)sizeof block) {
    CHECK_EQ(coir_read_full(coir_process_fd(p, 1), block, sizeof block, COIR_NEVER), (ssize_t)sizeof block);
    CHECK_EQ(block[0], (char)(done / (int)sizeof block));
    CHECK_EQ(block[4095], block[0]);
  }
  CHECK_EQ(coir_read(coir_process_fd(p, 1), block, sizeof block, COIR_NEVER), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);
  return 5;
}

static int one_of_many(void *arg) {
  int n = (int)(intptr_t)arg;
  char script[64], expected[16];
  snprintf(script, sizeof script, "echo %d; exit %d", n, n);
  snprintf(expected, sizeof expected, "%d\n", n);
  struct coir_process *p = shell(script, (struct coir_process_options){.io[1].kind = COIR_STDIO_PIPE});
  expect_output(p, 1, expected);
  int status = end_of(p);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == n);
  coir_process_destroy(p);
  return n;
}

static int many(void *arg) {
  (void)arg;
  enum { N = 50 };
  struct coir_fiber *f[N];
  for (int i = 0; i < N; i++) f[i] = spawn(one_of_many, (void *)(intptr_t)i);
  for (int i = 0; i < N; i++) CHECK_EQ(join(f[i]), i);
  return 5;
}

static void many_children_and_much_output(void **state) {
  (void)state;
  run_tidily(floods);
  run_tidily(many);
}

/* ---- What goes wrong ------------------------------------------------------------------------------------------- */

static int fail_with(struct coir_process_options options) {
  struct coir_process *p = (struct coir_process *)1;
  int rc = coir_process_spawn(&p, &options);
  CHECK(rc < 0 && p == NULL);
  return rc;
}

static int fails(void *arg) {
  (void)arg;
  const struct coir_stdio pipe_end = {COIR_STDIO_PIPE, 0};
  struct coir_process *p;
  CHECK_EQ(fail_with((struct coir_process_options){.path = "/no/such/program", .io = {pipe_end, pipe_end, pipe_end}}),
           -ENOENT);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "no-such-program-anywhere"}), -ENOENT);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "/bin/true", .dir = "/no/such/place"}), -ENOENT);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "/dev/null"}), -EACCES);
  CHECK_EQ(fail_with((struct coir_process_options){.path = NULL}), -EINVAL);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "true", .flags = 8}), -EINVAL);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "true", .io[0] = {(enum coir_stdio_kind)9, 0}}), -EINVAL);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "true", .io[0].kind = COIR_STDIO_STDOUT}), -EINVAL);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "true", .io = {pipe_end, {COIR_STDIO_FD, -1}}}), -EBADF);
  CHECK_EQ(fail_with((struct coir_process_options){.path = "true", .io = {pipe_end, {COIR_STDIO_FD, 999}}}), -EBADF);
  CHECK_EQ(coir_process_spawn(NULL, NULL), -EINVAL);
  CHECK_EQ(coir_process_spawn(&p, NULL), -EINVAL);
  CHECK_EQ(coir_process_wait(NULL, NULL, 0), -EINVAL);
  CHECK_EQ(coir_process_kill(NULL, 0), -EINVAL);
  CHECK_EQ(coir_process_fd(NULL, 0), -EINVAL);
  CHECK_EQ(coir_process_close_fd(NULL, 0), -EINVAL);
  return 5;
}

/* With ever more descriptors at its disposal, it fails cleanly until it succeeds. */
static int runs_short(void *arg) {
  (void)arg;
  const struct coir_stdio pipe_end = {COIR_STDIO_PIPE, 0};
  struct coir_process_options options = {.path = "true", .io = {pipe_end, pipe_end, pipe_end}};
  struct coir_process *p;
  struct rlimit old, limit;
  int lowest = dup(0), failures = 0, rc;
  CHECK(lowest > 2);
  close(lowest);
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  for (int room = 0;; room++) {
    limit = (struct rlimit){.rlim_cur = (rlim_t)(lowest + room), .rlim_max = old.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    rc = coir_process_spawn(&p, &options);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    if (rc == 0) break;
    CHECK_EQ(rc, -EMFILE);
    failures++;
  }
  CHECK(failures >= 6); /* six ends of pipes, at least */
  CHECK_EQ(end_of(p), 0);
  coir_process_destroy(p);
  return 5;
}

static int ignores_sigchld(void *arg) {
  (void)arg;
  struct coir_process_options options = {.path = "true"};
  struct coir_process *p;
  int rc = coir_process_spawn(&p, &options); /* it may be gone already, or not */
  if (rc == 0) {
    CHECK_EQ(coir_process_wait(p, NULL, coir_after(COIR_SEC(20))), -ECHILD);
    CHECK_EQ(coir_process_wait(p, NULL, 0), -ECHILD);
    coir_process_destroy(p);
  } else CHECK_EQ(rc, -ECHILD);
  return 5;
}

static void failures_leave_nothing(void **state) {
  (void)state;
  run_tidily(fails);
  run_tidily(runs_short);
  signal(SIGCHLD, SIG_IGN);
  run_tidily(ignores_sigchld);
  signal(SIGCHLD, SIG_DFL);
}

/* ---- Destroying, plain threads --------------------------------------------------------------------------------- */

static int forgets(void *arg) {
  (void)arg;
  int fds = fd_count();
  struct coir_process *p = shell("read line", (struct coir_process_options){.io[0].kind = COIR_STDIO_PIPE});
  struct coir_process *q = shell("exec sleep 100", (struct coir_process_options){.path = NULL});
  pid_t pid = coir_process_pid(p), other = coir_process_pid(q);
  coir_process_destroy(p); /* it reads the end of the file, and ends */
  coir_process_destroy(q); /* it goes on */
  WAIT_FOR((coir_process_destroy(plain_shell("exit 0")), kill(pid, 0) != 0)); /* a zombie could still be signalled */
  CHECK_EQ(kill(other, SIGKILL), 0);
  WAIT_FOR((coir_process_destroy(plain_shell("exit 0")), kill(other, 0) != 0));
  WAIT_FOR((end_of(p = plain_shell("exit 0")), coir_process_destroy(p), fd_count() == fds));
  return 5;
}

static void *on_thread(void *arg) {
  CHECK_EQ(ends(NULL), 5);
  CHECK_EQ(stdio(NULL), 5);
  return arg;
}

static void what_is_forgotten_is_reaped(void **state) {
  (void)state;
  run_tidily(forgets);
}

static void plain_threads_may_do_all_this(void **state) {
  (void)state;
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, on_thread, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  int fds = fd_count(); /* with the poller of plain threads */
  struct coir_process *p = plain_shell("exec sleep 100");
  CHECK_EQ(coir_process_wait(p, NULL, coir_after(COIR_MS(5))), -ETIMEDOUT);
  CHECK_EQ(coir_process_kill(p, SIGKILL), 0);
  CHECK_EQ(WTERMSIG(end_of(p)), SIGKILL);
  coir_process_destroy(p);
  CHECK_EQ(fd_count(), fds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_child_ends),
      cmocka_unit_test(a_child_gets_what_was_asked_for),
      cmocka_unit_test(many_children_and_much_output),
      cmocka_unit_test(failures_leave_nothing),
      cmocka_unit_test(what_is_forgotten_is_reaped),
      cmocka_unit_test(plain_threads_may_do_all_this),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
