/* Tests of signals as a channel (coir_io.h): whoever asks for a signal gets it, whatever threads block; what was set
 * before comes back; nothing is left behind. */
#include "harness.h"

#include <signal.h>

#include "coir_io.h"

/* ThreadSanitizer holds a signal back until the thread that got it calls a function that it knows, which a worker that
 * sleeps does not do for long. There the main thread blocks all, and others do not. */
#define HOLDS_BACK IS_TSAN
#define OPENERS_MAX 64
#define ROOM 64

static sigset_t set_of(int a, int b) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, a);
  if (b) sigaddset(&set, b);
  return set;
}

static struct coir_signals *open_for(int a, int b) {
  sigset_t set = set_of(a, b);
  struct coir_signals *s = NULL;
  CHECK_EQ(coir_signals_open(&s, &set), 0);
  CHECK(s && coir_signals_chan(s));
  return s;
}

static struct coir_siginfo receive(struct coir_signals *s) {
  struct coir_siginfo info;
  memset(&info, 0x77, sizeof info);
  CHECK_EQ(COIR_RECV(coir_signals_chan(s), &info, coir_after(COIR_SEC(20))), 0);
  return info;
}

static int length_of(struct coir_signals *s) { return (int)coir_chan_length(COIR_CHAN_RAW(coir_signals_chan(s))); }

static void send_value(int signo, int value) {
  union sigval v = {.sival_int = value};
  CHECK_EQ(sigqueue(getpid(), signo, v), 0);
}

/* ---- What arrives ---------------------------------------------------------------------------------------------- */

static int receives(void *arg) {
  (void)arg;
  struct coir_signals *s = open_for(SIGUSR1, SIGUSR2);
  kill(getpid(), SIGUSR1);
  struct coir_siginfo info = receive(s);
  CHECK_EQ(info.signo, SIGUSR1);
  CHECK_EQ(info.code, SI_USER);
  CHECK_EQ(info.pid, getpid());
  CHECK_EQ(info.uid, getuid());
  CHECK_EQ(info.status, 0);
  CHECK(info.value == NULL);
  send_value(SIGUSR2, 4711);
  info = receive(s);
  CHECK_EQ(info.signo, SIGUSR2);
  CHECK_EQ(info.code, SI_QUEUE);
  CHECK_EQ((int)(intptr_t)info.value, 4711);
  CHECK_EQ(COIR_RECV(coir_signals_chan(s), &info, 0), -ETIMEDOUT);
  CHECK_EQ(coir_signals_dropped(s), 0);
  coir_signals_close(s);
  return 5;
}

/* The same on the ways that a signal may take: a thread of the program does not block it; only worker 0 does not; all
 * block it. */
static void *sleep_unblocked(void *stop) {
  sigset_t set = set_of(SIGUSR1, SIGUSR2);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  while (!atomic_load((_Atomic(int) *)stop)) usleep(1000);
  return NULL;
}

static void it_receives(void **state) {
  (void)state;
  int fds = fd_count();
  sigset_t set = set_of(SIGUSR1, SIGUSR2), old;
  CHECK_EQ(run(receives, NULL), 5);
  CHECK_EQ(fd_count(), fds);
  pthread_sigmask(SIG_BLOCK, &set, &old);
  CHECK_EQ(run(receives, NULL), 5);
  _Atomic(int) stop = 0;
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, sleep_unblocked, &stop), 0);
  CHECK_EQ(run(receives, NULL), 5);
  stop = 1;
  pthread_join(thread, NULL);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  CHECK_EQ(fd_count(), fds);
}

static int pending_before(void *arg) {
  (void)arg;
  kill(getpid(), SIGUSR1); /* every thread blocks it: it stays pending */
  coir_sleep(COIR_MS(5));
  struct coir_signals *s = open_for(SIGUSR1, 0);
  CHECK_EQ(receive(s).signo, SIGUSR1);
  coir_signals_close(s);
  return 5;
}

static void it_receives_what_was_pending(void **state) {
  (void)state;
  sigset_t set = set_of(SIGUSR1, 0), old;
  pthread_sigmask(SIG_BLOCK, &set, &old);
  CHECK_EQ(run(pending_before, NULL), 5);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static int many(void *arg) {
  (void)arg;
  enum { N = 50 };
  struct coir_signals *s = open_for(SIGRTMIN, SIGRTMIN + 1);
  int sum = 0;
  for (int i = 1; i <= N; i++) send_value(SIGRTMIN + i % 2, i);
  for (int i = 1; i <= N; i++) sum += (int)(intptr_t)receive(s).value;
  CHECK_EQ(sum, N * (N + 1) / 2);
  coir_signals_close(s);
  return 5;
}

static void real_time_signals_are_each_told(void **state) {
  (void)state;
  CHECK_EQ(run(many, NULL), 5);
}

/* They come in their order only where every thread blocks the signal. */
static int late(void *is_blocked) {
  enum { N = ROOM + 36 };
  struct coir_signals *s = open_for(SIGRTMIN, 0);
  bool seen[N] = {false};
  for (int i = 0; i < N; i++) send_value(SIGRTMIN, i);
  WAIT_FOR(length_of(s) + coir_signals_dropped(s) == N);
  CHECK_EQ(coir_signals_dropped(s), N - ROOM);
  for (int i = 0; i < ROOM; i++) {
    int value = (int)(intptr_t)receive(s).value;
    CHECK(value >= 0 && value < N && !seen[value]);
    if (is_blocked) CHECK_EQ(value, i);
    seen[value] = true;
  }
  send_value(SIGRTMIN, 7);
  CHECK_EQ((int)(intptr_t)receive(s).value, 7);
  coir_signals_close(s);
  return 5;
}

static void a_late_reader_loses_some(void **state) {
  (void)state;
  sigset_t set = set_of(SIGRTMIN, 0), old;
  CHECK_EQ(run(late, NULL), 5);
  pthread_sigmask(SIG_BLOCK, &set, &old);
  CHECK_EQ(run(late, &set), 5);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void *send_in_order(void *arg) {
  for (int i = 0; i < 20; i++) send_value(SIGRTMIN, i);
  return arg;
}

static int in_order(void *arg) {
  (void)arg;
  pthread_t thread;
  struct coir_signals *s = open_for(SIGRTMIN, 0);
  CHECK_EQ(pthread_create(&thread, NULL, send_in_order, NULL), 0);
  for (int i = 0; i < 20; i++) CHECK_EQ((int)(intptr_t)receive(s).value, i);
  pthread_join(thread, NULL);
  coir_signals_close(s);
  return 5;
}

static void blocked_by_all_they_keep_their_order(void **state) {
  (void)state;
  sigset_t set = set_of(SIGRTMIN, 0), old;
  pthread_sigmask(SIG_BLOCK, &set, &old);
  for (int i = 0; i < 20; i++) CHECK_EQ(run(in_order, NULL), 5);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static int tells_of_child(void *arg) {
  (void)arg;
  struct coir_signals *s = open_for(SIGCHLD, 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) _exit(42);
  struct coir_siginfo info = receive(s);
  CHECK_EQ(info.signo, SIGCHLD);
  CHECK_EQ(info.code, CLD_EXITED);
  CHECK_EQ(info.pid, pid);
  CHECK_EQ(info.status, 42);
  CHECK_EQ(waitpid(pid, NULL, 0), pid);
  coir_signals_close(s);
  return 5;
}

static void sigchld_says_who_and_how(void **state) {
  (void)state;
  CHECK_EQ(run(tells_of_child, NULL), 5);
}

/* ---- Several openers, and what was set before ------------------------------------------------------------------ */

static int copies(void *arg) {
  (void)arg;
  struct coir_signals *a = open_for(SIGUSR1, 0), *b = open_for(SIGUSR1, SIGUSR2);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(receive(a).signo, SIGUSR1);
  CHECK_EQ(receive(b).signo, SIGUSR1);
  kill(getpid(), SIGUSR2);
  CHECK_EQ(receive(b).signo, SIGUSR2);
  CHECK_EQ(length_of(a), 0);
  coir_signals_close(a);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(receive(b).signo, SIGUSR1);
  coir_signals_close(b);
  coir_signals_close(NULL);
  return 5;
}

static void each_opener_gets_a_copy(void **state) {
  (void)state;
  int fds = fd_count();
  CHECK_EQ(run(copies, NULL), 5);
  CHECK_EQ(fd_count(), fds);
}

static _Atomic(int) old_came, new_came;
static void old_handler(int signo) { (void)signo, atomic_fetch_add(&old_came, 1); }
static void new_handler(int signo) { (void)signo, atomic_fetch_add(&new_came, 1); }

static int restores(void *arg) {
  (void)arg;
  struct sigaction now;
  struct coir_signals *a = open_for(SIGUSR1, SIGUSR2), *b = open_for(SIGUSR1, SIGUSR2);
  kill(getpid(), SIGUSR1);
  receive(a), receive(b);
  CHECK_EQ(old_came, 0);
  signal(SIGUSR2, new_handler); /* somebody else's, while ours is set */
  coir_signals_close(a);
  coir_signals_close(b);
  CHECK_EQ(sigaction(SIGUSR1, NULL, &now), 0);
  CHECK(now.sa_handler == old_handler);
  CHECK_EQ(sigaction(SIGUSR2, NULL, &now), 0);
  CHECK(now.sa_handler == new_handler);
  return 5;
}

static void what_was_set_before_comes_back(void **state) {
  (void)state;
  struct sigaction now;
  signal(SIGUSR1, old_handler);
  signal(SIGUSR2, SIG_IGN);
  CHECK_EQ(run(restores, NULL), 5);
  if (!HOLDS_BACK) {
    raise(SIGUSR1);
    CHECK_EQ(old_came, 1);
  }
  signal(SIGUSR2, SIG_IGN);
  CHECK_EQ(run(copies, NULL), 5); /* ignored before: received, and ignored again */
  CHECK_EQ(sigaction(SIGUSR2, NULL, &now), 0);
  CHECK(now.sa_handler == SIG_IGN);
  signal(SIGUSR1, SIG_DFL);
  signal(SIGUSR2, SIG_DFL);
}

static int refuses(void *arg) {
  (void)arg;
  static const int bad[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
  struct coir_signals *s;
  sigset_t set;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    set = set_of(SIGUSR1, bad[i]);
    s = (struct coir_signals *)1;
    CHECK_EQ(coir_signals_open(&s, &set), -EINVAL);
    CHECK(s == NULL);
  }
  sigemptyset(&set);
  CHECK_EQ(coir_signals_open(&s, &set), -EINVAL);
  CHECK_EQ(coir_signals_open(&s, NULL), -EINVAL);
  CHECK_EQ(coir_signals_open(NULL, &set), -EINVAL);
  CHECK(coir_signals_chan(NULL) == NULL);
  CHECK_EQ(coir_signals_dropped(NULL), 0);
  return 5;
}

static int fills(void *arg) {
  (void)arg;
  struct coir_signals *s[OPENERS_MAX], *more;
  sigset_t set = set_of(SIGUSR1, 0);
  for (int i = 0; i < OPENERS_MAX; i++) s[i] = open_for(SIGUSR1, 0);
  CHECK_EQ(coir_signals_open(&more, &set), -EAGAIN);
  kill(getpid(), SIGUSR1);
  for (int i = 0; i < OPENERS_MAX; i++) CHECK_EQ(receive(s[i]).signo, SIGUSR1);
  for (int i = 0; i < OPENERS_MAX; i++) coir_signals_close(s[i]);
  return 5;
}

static void there_are_limits(void **state) {
  (void)state;
  int fds = fd_count();
  CHECK_EQ(run(refuses, NULL), 5);
  CHECK_EQ(run(fills, NULL), 5);
  CHECK_EQ(fd_count(), fds);
}

/* ---- Closing, stopping, selecting ------------------------------------------------------------------------------ */

static int read_until_closed(void *chan) {
  struct coir_siginfo info;
  int rc = coir_chan_recv(chan, &info, COIR_NEVER);
  coir_chan_unref(chan);
  return rc;
}

static void *read_on_thread(void *chan) { return (void *)(intptr_t)read_until_closed(chan); }

static int closes(void *arg) {
  (void)arg;
  struct coir_signals *s = open_for(SIGUSR1, 0);
  struct coir_chan *chan = COIR_CHAN_RAW(coir_signals_chan(s));
  pthread_t thread;
  struct coir_fiber *f = spawn(read_until_closed, coir_chan_ref(chan));
  CHECK_EQ(pthread_create(&thread, NULL, read_on_thread, coir_chan_ref(chan)), 0);
  coir_sleep(COIR_MS(2));
  coir_signals_close(s);
  CHECK_EQ(join(f), -EPIPE);
  void *rc;
  CHECK_EQ(pthread_join(thread, &rc), 0);
  CHECK_EQ((intptr_t)rc, -EPIPE);
  return 5;
}

static void closing_wakes_readers(void **state) {
  (void)state;
  CHECK_EQ(run(closes, NULL), 5);
}

static int selects(void *arg) {
  (void)arg;
  struct coir_signals *s = open_for(SIGUSR1, 0);
  COIR_CHAN(int) other = COIR_CHAN_CREATE(int, 1);
  struct coir_siginfo info = {.signo = 0};
  int v = 0;
  struct coir_arm arms[] = {coir_arm_recv(COIR_CHAN_RAW(other), &v),
                            coir_arm_recv(COIR_CHAN_RAW(coir_signals_chan(s)), &info)};
  CHECK_EQ(coir_select(arms, 2, coir_after(COIR_MS(5))), -ETIMEDOUT);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(coir_select(arms, 2, coir_after(COIR_SEC(20))), 1);
  CHECK_EQ(arms[1].result, 0);
  CHECK_EQ(info.signo, SIGUSR1);
  v = 9;
  CHECK_EQ(COIR_SEND(other, &v, 0), 0);
  v = 0;
  CHECK_EQ(coir_select(arms, 2, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(v, 9);
  coir_signals_close(s);
  coir_chan_unref(COIR_CHAN_RAW(other));
  return 5;
}

static void it_can_be_selected(void **state) {
  (void)state;
  CHECK_EQ(run(selects, NULL), 5);
}

static int open_on_fiber(void *arg) {
  *(struct coir_signals **)arg = open_for(SIGUSR1, 0);
  return 0;
}

/* A runtime in the background that ends with signals open. */
static void stop_while_open(enum coir_stop how) {
  int fds = fd_count();
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct coir_signals *s = NULL;
  struct coir_fiber *f;
  struct coir_siginfo info;
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, open_on_fiber, &s, NULL, &f), 0);
  CHECK_EQ(join(f), 0);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(receive(s).signo, SIGUSR1);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, coir_after(COIR_MS(5))), -ETIMEDOUT); /* it keeps it running */
  CHECK_EQ(coir_runtime_stop(rt, how, COIR_NEVER), 0);
  CHECK_EQ(COIR_RECV(coir_signals_chan(s), &info, 0), how == COIR_STOP_CANCEL ? -EPIPE : -ETIMEDOUT);
  if (how == COIR_STOP_ABANDON) CHECK_EQ(coir_runtime_destroy(rt), 0);
  coir_signals_close(s);
  if (how != COIR_STOP_ABANDON) CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(fd_count(), fds);
}

static void it_outlives_its_runtime(void **state) {
  (void)state;
  stop_while_open(COIR_STOP_CANCEL);
  stop_while_open(COIR_STOP_ABANDON);
  stop_while_open(COIR_STOP_CANCEL); /* in the slot of one whose fibers were dropped */
}

static int receive_and_close(void *arg) {
  CHECK_EQ(receive(arg).signo, SIGUSR1);
  coir_signals_close(arg);
  return 5;
}

static void a_plain_thread_may_open(void **state) {
  (void)state;
  int fds = fd_count();
  struct coir_signals *s = open_for(SIGUSR1, 0);
  coir_signals_close(s); /* before the runtime ever ran */
  s = open_for(SIGUSR1, 0);
  kill(getpid(), SIGUSR1); /* kept, until it runs */
  CHECK_EQ(coir_run(receive_and_close, s), 5);
  CHECK(fd_count() >= fds); /* the default runtime has its own, for good */
  fds = fd_count();
  s = open_for(SIGUSR1, 0);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(coir_run(receive_and_close, s), 5);
  CHECK_EQ(fd_count(), fds);
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

static int forks(void *arg) {
  (void)arg;
  struct coir_signals *s = open_for(SIGTERM, 0);
  int status = 0;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    kill(getpid(), SIGTERM); /* for the child, which has not asked for it */
    for (;;) pause();
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  pid = vfork();
  if (pid == 0) {
    kill(getpid(), SIGTERM);
    _exit(0);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  CHECK_EQ(length_of(s), 0);
  kill(getpid(), SIGTERM);
  CHECK_EQ(receive(s).pid, getpid());
  coir_signals_close(s);
  return 5;
}

static void in_child(void) {
  alarm(20);
  CHECK_EQ(run(receives, NULL), 5);
}

static void a_forked_child_is_on_its_own(void **state) {
  (void)state;
  sigset_t set = set_of(SIGTERM, 0), old;
  pthread_sigmask(SIG_UNBLOCK, &set, &old);
  if (!HOLDS_BACK) CHECK_EQ(run_with((struct coir_config){.workers = 1}, forks, NULL), 5); /* on this thread */
  struct coir_signals *s = open_for(SIGUSR1, 0);
  int status = in_child_process(in_child, NULL, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  coir_signals_close(s);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_receives),
      cmocka_unit_test(it_receives_what_was_pending),
      cmocka_unit_test(real_time_signals_are_each_told),
      cmocka_unit_test(a_late_reader_loses_some),
      cmocka_unit_test(blocked_by_all_they_keep_their_order),
      cmocka_unit_test(sigchld_says_who_and_how),
      cmocka_unit_test(each_opener_gets_a_copy),
      cmocka_unit_test(what_was_set_before_comes_back),
      cmocka_unit_test(there_are_limits),
      cmocka_unit_test(closing_wakes_readers),
      cmocka_unit_test(it_can_be_selected),
      cmocka_unit_test(it_outlives_its_runtime),
      cmocka_unit_test(a_plain_thread_may_open),
      cmocka_unit_test(a_forked_child_is_on_its_own),
  };
  sigset_t set = set_of(SIGUSR1, SIGUSR2);
  sigaddset(&set, SIGRTMIN);
  sigaddset(&set, SIGRTMIN + 1);
  sigaddset(&set, SIGCHLD);
  if (HOLDS_BACK) pthread_sigmask(SIG_BLOCK, &set, NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
