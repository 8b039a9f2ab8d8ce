/* When all goroutines, and all threads, wait for each other that is told once, with a dump of the goroutines, and the
 * program goes on waiting; with LIBCSP_DEADLOCK=abort it aborts. */
#include "csp_process.h"

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

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(it_is_told_once),
      CASE(it_can_abort),
      CASE(who_may_be_woken_is_in_no_deadlock),
  };
  return RUN_CASES(argc, argv, cases);
}
