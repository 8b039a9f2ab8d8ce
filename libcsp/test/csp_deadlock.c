/* When all goroutines, and all threads, wait for each other that is told once, with a dump of the goroutines, and the
 * program goes on waiting; with LIBCSP_DEADLOCK=abort it aborts. */
#include "csp_process.h"

#include <poll.h>

static csp_gochan_t *chan;
static char text[1 << 16];
static unsigned seconds; /* after which a scene that waits is over; a deadlock is told after some 30 ms */

/* Runs fn() in a process of its own, and returns the signal that ended it. */
static int signal_of(void (*fn)(void)) {
  int status = in_child_process(fn, text, sizeof text);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static bool says(const char *what) { return strstr(text, what) != NULL; }

static void waits_for_ever(void *arg) {
  (void)arg;
  csp_gochan_recv(chan, NULL);
}

static void begin(void) {
  alarm(seconds);
  chan = csp_gochan_new(0);
  go(waits_for_ever, NULL);
  go(waits_for_ever, NULL);
}

static void main_receives(void) {
  begin();
  csp_gochan_recv(chan, NULL);
}

static void main_runs_the_core(void) {
  begin();
  csp_core_run(csp_this_core);
}

static void main_selects_nothing(void) {
  csp_select_case_t none = {.op = CSP_RECV};
  begin();
  csp_select(&none, 1);
}

static void main_drains(void) {
  begin();
  csp_scheduler_stop();
}

static void main_sleeps(void) {
  begin();
  for (;;) sleep(1);
}

static void main_has_a_limit(void) {
  void *v;
  begin();
  csp_gochan_t *later = csp_time_after(600 * csp_timer_millisecond);
  csp_select_case_t cases[2] = {{.ch = chan, .op = CSP_RECV, .val = &v}, {.ch = later, .op = CSP_RECV, .val = &v}};
  CHECK_EQ(csp_select(cases, 2), 1);
  exit(0);
}

static void reads(void *fd) { CHECK_EQ(csp_read((int)(intptr_t)fd, text, 1), 1); }

static void somebody_reads(void) {
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  go(reads, number(fds[0]));
  main_receives();
}

static void *sends_late(void *unused) {
  usleep(600000);
  for (int i = 0; i < 3; i++) CHECK(csp_gochan_send(chan, NULL));
  return unused;
}

static void a_thread_sends(void) {
  pthread_t thread;
  begin();
  CHECK_EQ(pthread_create(&thread, NULL, sends_late, NULL), 0);
  csp_gochan_recv(chan, NULL);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  csp_scheduler_stop();
}

/* ---- Told ------------------------------------------------------------------------------------------------------ */

static void it_is_told_once(void) {
  if (IS_TSAN) return; /* it has a thread of its own, which might wake one */
  seconds = 3;
  CHECK_EQ(signal_of(main_receives), SIGALRM);
  const char *told = strstr(text, "csp: deadlock: all goroutines wait for each other");
  CHECK(told && !strstr(told + 1, "csp: deadlock"));
  CHECK(says("Goroutines: 2\n") && says("waits for receive"));
}

static void it_can_abort(void) {
  if (IS_TSAN) return;
  void (*const scenes[])(void) = {main_receives, main_runs_the_core, main_selects_nothing, main_drains};
  set_env("LIBCSP_DEADLOCK", "abort");
  seconds = 20;
  for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
    CHECK_EQ(signal_of(scenes[i]), SIGABRT);
    CHECK(says("csp: deadlock") && says("Goroutines: 2\n"));
  }
}

/* ---- Not told -------------------------------------------------------------------------------------------------- */

static void who_may_be_woken_is_in_no_deadlock(void) {
  set_env("LIBCSP_DEADLOCK", "abort");
  seconds = 1;
  CHECK_EQ(signal_of(main_sleeps), SIGALRM);
  CHECK_EQ(signal_of(somebody_reads), SIGALRM);
  seconds = 20;
  CHECK_EQ(signal_of(main_has_a_limit), 0);
  CHECK_EQ(signal_of(a_thread_sends), 0);
}

/* ---- Scenes with an end ---------------------------------------------------------------------------------------- */

static void parks(void *ch) { csp_gochan_recv(ch, NULL); }

static csp_gochan_t *silence; /* nobody sends */

static void deadlocks(void) {
  silence = csp_gochan_new(0);
  go(parks, silence);
  go(parks, silence);
  csp_gochan_recv(silence, NULL);
}

static void deadlocks_in_core_run(void) {
  go((void (*)(void *))deadlocks, NULL);
  csp_core_run(csp_this_core);
}

static void (*scene)(void);

static void aborts_in_scene(void) {
  set_env("LIBCSP_DEADLOCK", "abort");
  scene();
}

static void a_deadlock_may_abort(void) {
  static void (*const scenes[])(void) = {deadlocks, deadlocks_in_core_run};
  for (int i = 0; i < 2; i++) {
    scene = scenes[i];
    int status = in_child_process(aborts_in_scene, text, sizeof text);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(!strncmp(text, "csp: deadlock: ", 15));
    CHECK_EQ(count_in(text, "  goroutine "), 2 + i);
  }
}

/* Reads text from `fd` until it has seen `lines` lines, and then for `ms` more. */
static void read_lines(int fd, int lines, int ms) {
  size_t n = 0;
  for (;;) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    bool is_enough = count_in(text, "\n") >= lines;
    int rc = poll(&p, 1, is_enough ? ms : 20000);
    CHECK(rc == 1 || is_enough);
    if (rc != 1) return;
    ssize_t got = read(fd, text + n, sizeof text - n - 1);
    CHECK(got > 0);
    text[n += (size_t)got] = 0;
  }
}

/* It is told, and then the program goes on waiting. */
static void a_deadlock_is_told_once(void) {
  int fds[2], status;
  unsetenv("LIBCSP_DEADLOCK");
  CHECK_EQ(pipe(fds), 0);
  pid_t parent = getpid(), pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dup2(fds[1], STDERR_FILENO);
    deadlocks();
    _exit(0);
  }
  close(fds[1]);
  read_lines(fds[0], DUMP_LINES + 1 + 2, 100);
  CHECK(!strncmp(text, "csp: deadlock: ", 15) && strstr(text, "\nRuntime Stats:\n  Goroutines: 2\n"));
  CHECK_EQ(count_in(text, "\n"), DUMP_LINES + 1 + 2);
  CHECK_EQ(count_in(text, "  goroutine "), 2);
  CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
  CHECK_EQ(kill(pid, SIGKILL), 0);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  close(fds[0]);
}

static void *closes_late(void *ch) {
  usleep(60000);
  csp_gochan_close(ch);
  return NULL;
}

static void reads_from(void *fd) {
  char c;
  CHECK_EQ(csp_read((int)(intptr_t)fd, &c, 1), 1);
  csp_gochan_close(silence);
}

static void closes_by_timer(void *ch) { csp_gochan_close(ch); }

/* Something can still happen, and does. */
static void main_has_other_things_to_do(void) {
  go(parks, silence);
  usleep(60000);
  csp_gochan_close(silence);
}

static void a_thread_has(void) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, closes_late, silence), 0);
  CHECK_EQ(pthread_detach(thread), 0);
  go(parks, silence);
  csp_gochan_recv(silence, NULL);
}

static void a_timer_has(void) {
  csp_timer_t *timer = csp_timer_call_after(COIR_MS(60), closes_by_timer, silence);
  go(parks, silence);
  csp_gochan_recv(silence, NULL);
  csp_timer_free(timer);
}

static void time_has(void) {
  csp_gochan_t *ch = csp_time_after(COIR_MS(60));
  go(parks, silence);
  csp_gochan_recv(ch, NULL);
  csp_gochan_free(ch);
  csp_gochan_close(silence);
}

static void another_process_has(void) {
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  pid_t pid = fork();
  if (pid == 0) {
    usleep(60000);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    _exit(0);
  }
  go(reads_from, number(fds[0]));
  csp_gochan_recv(silence, NULL);
  CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

static void is_no_deadlock(void) {
  set_env("LIBCSP_DEADLOCK", "abort");
  silence = csp_gochan_new(0);
  scene();
  csp_scheduler_stop();
  csp_gochan_free(silence);
}

static void waiting_for_something_is_none(void) {
  static void (*const scenes[])(void) = {main_has_other_things_to_do, a_thread_has, a_timer_has, time_has,
                                         another_process_has};
  for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
    scene = scenes[i];
    int status = in_child_process(is_no_deadlock, text, sizeof text);
    if (status || *text) fprintf(stderr, "scene %zu: status 0x%x: %s\n", i, status, text);
    CHECK(status == 0 && !*text);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(it_is_told_once),
      CASE(it_can_abort),
      CASE(who_may_be_woken_is_in_no_deadlock),
      CASE(a_deadlock_may_abort),
      CASE(a_deadlock_is_told_once),
      CASE(waiting_for_something_is_none),
  };
  return RUN_CASES(argc, argv, cases);
}
