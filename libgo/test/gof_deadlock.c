/* When all fibers wait for each other that is told once, with a dump of them, and the program goes on waiting; with
 * GOF_DEADLOCK=abort it aborts. */
#include "gof_test.h"

static gof_chan_t *chan;

static void waits_for_ever(void *name) {
  gof_set_name(name);
  gof_chan_recv(chan, NULL);
}

static char text[1 << 16];

/* Runs fn() in a process of its own, and returns the signal that ended it. */
static int signal_of(void (*fn)(void)) {
  int status = in_child_process(fn, text, sizeof text);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static int count_of(const char *what) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, what)) != NULL; at++) n++;
  return n;
}

static void deadlock(void) {
  alarm(IS_SANITIZED ? 3 : 1);
  chan = gof_chan_make(0);
  go(waits_for_ever, "this one");
  go(waits_for_ever, "that one");
  gof_run();
}

static void a_deadlock_is_told_once(void) {
  if (IS_TSAN) return; /* it has a thread of its own, which might wake one */
  CHECK_EQ(signal_of(deadlock), SIGALRM);
  CHECK_EQ(count_of("deadlock"), 1);
  CHECK_EQ(count_of("=== Total: 2 fibers ==="), 1);
  CHECK(count_of("name=this one ") == 1 && count_of("name=that one ") == 1);
}

static void it_can_abort(void) {
  if (IS_TSAN) return;
  set_env("GOF_DEADLOCK", "abort");
  CHECK_EQ(signal_of(deadlock), SIGABRT);
  CHECK_EQ(count_of("=== Total: 2 fibers ==="), 1);
}

/* The environment is read when the runtime is made. */
static void sets_variable_too_late(void) {
  gof_init(0);
  set_env("GOF_DEADLOCK", "abort");
  deadlock();
}

static void the_variable_is_read_at_the_beginning(void) {
  if (IS_TSAN) return;
  CHECK_EQ(signal_of(sets_variable_too_late), SIGALRM);
}

/* Somebody is there who may wake them, and does. */
static void *wakes_both(void *arg) {
  (void)coir_sleep(COIR_MS(200));
  gof_chan_close(chan);
  return arg;
}

static void waits_for_a_thread(void) {
  pthread_t t;
  chan = gof_chan_make(0);
  CHECK_EQ(pthread_create(&t, NULL, wakes_both, NULL), 0);
  go(waits_for_ever, "this one");
  go(waits_for_ever, "that one");
  gof_run();
  pthread_join(t, NULL);
}

static void who_waits_for_a_thread_is_in_no_deadlock(void) {
  CHECK_EQ(signal_of(waits_for_a_thread), 0);
  CHECK_EQ(count_of("deadlock"), 0);
}

static void waits_in_the_background(void) {
  chan = gof_chan_make(0);
  CHECK_EQ(gof_start_background(0), 0);
  go(waits_for_ever, "this one");
  WAIT_FOR(blocked_count() == 1);
  (void)coir_sleep(COIR_MS(200));
  gof_chan_close(chan);
  CHECK_EQ(gof_join_background(), 0);
}

static void nor_is_who_waits_in_the_background(void) {
  CHECK_EQ(signal_of(waits_in_the_background), 0);
  CHECK_EQ(count_of("deadlock"), 0);
}

static unsigned limit_s = IS_SANITIZED ? 3 : 1; /* when it is told, and that is all */

static void deadlock_in_the_background(void) {
  alarm(limit_s);
  chan = gof_chan_make(0);
  CHECK_EQ(gof_start_background(0), 0);
  go(waits_for_ever, "this one");
  gof_chan_recv(chan, NULL);
}

/* The fibers and the main thread wait for each other. */
static void a_deadlock_in_the_background_is_told_once(void) {
  if (IS_TSAN) return;
  CHECK_EQ(signal_of(deadlock_in_the_background), SIGALRM);
  CHECK_EQ(count_of("deadlock"), 1);
  CHECK_EQ(count_of("=== Total: 1 fibers ==="), 1);
  CHECK_EQ(count_of("name=this one "), 1);
}

static void and_it_can_abort_there(void) {
  if (IS_TSAN) return;
  set_env("GOF_DEADLOCK", "abort");
  limit_s = 60;
  CHECK_EQ(signal_of(deadlock_in_the_background), SIGABRT);
}

static void joins_for_ever(void) {
  alarm(IS_SANITIZED ? 3 : 1);
  chan = gof_chan_make(0);
  CHECK_EQ(gof_start_background(0), 0);
  go(waits_for_ever, "this one");
  gof_join_background();
}

static void who_joins_for_ever_is_told(void) {
  if (IS_TSAN) return;
  CHECK_EQ(signal_of(joins_for_ever), SIGALRM);
  CHECK_EQ(count_of("deadlock"), 1);
}

static void sleeps_and_wakes(void *arg) {
  (void)arg;
  gof_sleep_ms(200);
  gof_chan_close(chan);
}

static void waits_for_a_sleeper(void) {
  chan = gof_chan_make(0);
  go(waits_for_ever, "this one");
  go(sleeps_and_wakes, NULL);
  gof_run();
}

static void nor_is_who_waits_for_a_sleeper(void) {
  CHECK_EQ(signal_of(waits_for_a_sleeper), 0);
  CHECK_EQ(count_of("deadlock"), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(a_deadlock_is_told_once),
      CASE(it_can_abort),
      CASE(the_variable_is_read_at_the_beginning),
      CASE(who_waits_for_a_thread_is_in_no_deadlock),
      CASE(nor_is_who_waits_in_the_background),
      CASE(nor_is_who_waits_for_a_sleeper),
      CASE(a_deadlock_in_the_background_is_told_once),
      CASE(and_it_can_abort_there),
      CASE(who_joins_for_ever_is_told),
  };
  return RUN_CASES(argc, argv, cases);
}
