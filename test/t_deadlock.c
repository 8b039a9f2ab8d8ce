/* Deadlocks: found when there is one, in every policy; never when somebody else could still wake a fiber. Each case
 * runs in a process of its own, because a deadlock is only one when no other thread exists. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coir_io.h"
#include "harness.h"

#define SECONDS_MAX 20

/* What a case printed on stderr, and how its process ended. */
struct outcome {
  char text[8192];
  int status;
};

static struct outcome run_case(int (*fn)(void)) {
  struct outcome out = {.status = -1};
  int fds[2];
  assert_int_equal(pipe(fds), 0);
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    alarm(SECONDS_MAX);
    dup2(fds[1], STDERR_FILENO);
    close(fds[0]);
    close(fds[1]);
    _exit(fn());
  }
  close(fds[1]);
  size_t n = 0;
  for (ssize_t got; (got = read(fds[0], out.text + n, sizeof out.text - 1 - n)) > 0;) n += (size_t)got;
  close(fds[0]);
  waitpid(pid, &out.status, 0);
  return out;
}

static void expect_exit(const struct outcome *out, int code) {
  if (!WIFEXITED(out->status) || WEXITSTATUS(out->status) != code)
    fail_msg("status %x instead of exit %d; stderr: %s", (unsigned)out->status, code, out->text);
}

static int waits_on(void *chan) {
  char byte;
  return coir_chan_recv(chan, &byte, COIR_NEVER) == -ECANCELED ? 0 : 1;
}

static struct coir_chan *chan;

static int two_wait(void *arg) {
  (void)arg;
  struct coir_fiber *other;
  coir_set_name("root");
  if (coir_spawn(waits_on, chan, &(struct coir_attr){.name = "other"}, &other)) return 2;
  coir_sleep(COIR_MS(2));
  if (coir_join(other, NULL, COIR_NEVER) != -ECANCELED) return 3;
  coir_detach(other);
  return 4; /* not what coir_run returns */
}

/* ---- The report ------------------------------------------------------------------------------------------------ */

static int case_report(void) {
  chan = coir_chan_create(1, 0);
  if (coir_run(two_wait, NULL) != -EDEADLK) return 1;
  if (coir_run(two_wait, NULL) != -EDEADLK) return 2; /* and the runtime is as good as new */
  coir_chan_unref(chan);
  return 0;
}

static void test_report_names_everybody_and_cancels(void **state) {
  (void)state;
  struct outcome out = run_case(case_report);
  expect_exit(&out, 0);
  assert_non_null(strstr(out.text, "deadlock: 2 fibers"));
  assert_non_null(strstr(out.text, "\"root\": waits for join"));
  assert_non_null(strstr(out.text, "\"other\": waits for receive"));
}

static int shielded(void *arg) {
  char byte;
  coir_shield_begin();
  return coir_chan_recv(arg, &byte, COIR_NEVER);
}

static int case_shielded(void) {
  chan = coir_chan_create(1, 0);
  return coir_run(shielded, chan) == -EDEADLK ? 0 : 1;
}

static void test_fibers_behind_a_shield_are_dropped(void **state) {
  (void)state;
  struct outcome out = run_case(case_shielded);
  expect_exit(&out, 0);
}

/* ---- The other policies ---------------------------------------------------------------------------------------- */

static int case_abort(void) {
  struct coir_config c = {.deadlock = COIR_DEADLOCK_ABORT};
  chan = coir_chan_create(1, 0);
  if (coir_configure(&c)) return 1;
  return coir_run(two_wait, NULL);
}

static void test_abort(void **state) {
  (void)state;
  struct outcome out = run_case(case_abort);
  assert_true(WIFSIGNALED(out.status) && WTERMSIG(out.status) == SIGABRT);
  assert_non_null(strstr(out.text, "\"other\": waits for receive"));
}

static _Atomic int told;

static bool closes_the_channel(struct coir_runtime *rt, void *arg) {
  (void)rt;
  told++;
  coir_chan_close(arg);
  return true;
}

static int gets_closed(void *c) {
  char byte;
  return coir_chan_recv(c, &byte, COIR_NEVER) == -EPIPE ? 7 : 1;
}

static int case_callback(void) {
  chan = coir_chan_create(1, 0);
  struct coir_config c = {.on_deadlock = closes_the_channel, .on_deadlock_arg = chan};
  if (coir_configure(&c)) return 1;
  return coir_run(gets_closed, chan) == 7 && told == 1 ? 0 : 2;
}

static void test_callback_may_wake_fibers(void **state) {
  (void)state;
  struct outcome out = run_case(case_callback);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static bool knows_nothing(struct coir_runtime *rt, void *arg) {
  (void)rt, (void)arg;
  told++;
  return false;
}

static int case_callback_declines(void) {
  chan = coir_chan_create(1, 0);
  struct coir_config c = {.on_deadlock = knows_nothing};
  if (coir_configure(&c)) return 1;
  return coir_run(waits_on, chan) == -EDEADLK && told == 1 ? 0 : 2;
}

static void test_callback_may_decline(void **state) {
  (void)state;
  struct outcome out = run_case(case_callback_declines);
  expect_exit(&out, 0);
  assert_non_null(strstr(out.text, "deadlock: 1 fibers"));
}

/* ---- No deadlocks ---------------------------------------------------------------------------------------------- */

static void *sends_later(void *c) {
  char byte = 1;
  struct timespec pause = {.tv_nsec = 150000000};
  nanosleep(&pause, NULL);
  return coir_chan_send(c, &byte, COIR_NEVER) ? c : NULL;
}

static int gets_one(void *c) {
  char byte = 0;
  return coir_chan_recv(c, &byte, COIR_NEVER) == 0 && byte == 1 ? 9 : 1;
}

static int case_thread(void) {
  pthread_t thread;
  chan = coir_chan_create(1, 0);
  if (pthread_create(&thread, NULL, sends_later, chan)) return 1;
  int rc = coir_run(gets_one, chan);
  pthread_join(thread, NULL);
  return rc == 9 ? 0 : 2;
}

static void test_a_thread_may_come(void **state) {
  (void)state;
  struct outcome out = run_case(case_thread);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int sends_after_sleep(void *c) {
  char byte = 1;
  coir_sleep(COIR_MS(120));
  return coir_chan_send(c, &byte, COIR_NEVER);
}

static int waits_for_sleeper(void *c) {
  coir_go(sends_after_sleep, c);
  return gets_one(c);
}

static int case_sleeper(void) {
  chan = coir_chan_create(1, 0);
  return coir_run(waits_for_sleeper, chan) == 9 ? 0 : 2;
}

static void test_a_deadline_is_pending(void **state) {
  (void)state;
  struct outcome out = run_case(case_sleeper);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int fds[2];

static int reads_then_sends(void *c) {
  char byte;
  if (coir_read(fds[0], &byte, 1, COIR_NEVER) != 1) return 1;
  return coir_chan_send(c, &byte, COIR_NEVER);
}

static int waits_for_reader(void *c) {
  coir_go(reads_then_sends, c);
  return gets_one(c);
}

/* Runs fn(chan) while another process writes a byte to the pipe after a while. */
static int with_late_writer(coir_fn fn) {
  if (pipe(fds)) return 1;
  pid_t writer = fork();
  if (writer == 0) {
    struct timespec pause = {.tv_nsec = 150000000};
    nanosleep(&pause, NULL);
    _exit(write(fds[1], "\1", 1) == 1 ? 0 : 1);
  }
  chan = coir_chan_create(1, 0);
  int rc = coir_run(fn, chan);
  waitpid(writer, NULL, 0);
  return rc == 9 ? 0 : 2;
}

static int case_reader(void) { return with_late_writer(waits_for_reader); }

static void test_a_descriptor_may_become_ready(void **state) {
  (void)state;
  struct outcome out = run_case(case_reader);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int selects(void *c) {
  char byte = 0;
  struct coir_arm arms[2] = {coir_arm_recv(c, &byte), coir_arm_fd(fds[0], COIR_READABLE)};
  return coir_select(arms, 2, COIR_NEVER) == 1 && arms[1].result == COIR_READABLE ? 9 : 1;
}

static int case_select(void) { return with_late_writer(selects); }

static void test_a_select_may_wait_for_a_descriptor(void **state) {
  (void)state;
  struct outcome out = run_case(case_select);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int case_other_runtime(void) {
  struct coir_runtime *other;
  chan = coir_chan_create(1, 0);
  if (coir_runtime_create(&other, NULL) || coir_runtime_start(other)) return 1;
  if (coir_runtime_spawn(other, sends_after_sleep, chan, NULL, NULL)) return 2;
  if (coir_run(gets_one, chan) != 9) return 3;
  return coir_runtime_stop(other, COIR_STOP_DRAIN, COIR_NEVER) || coir_runtime_destroy(other) ? 4 : 0;
}

static void test_another_runtime_may_come(void **state) {
  (void)state;
  struct outcome out = run_case(case_other_runtime);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int case_ignore(void) {
  struct coir_config c = {.deadlock = COIR_DEADLOCK_IGNORE};
  chan = coir_chan_create(1, 0);
  if (coir_configure(&c)) return 1;
  alarm(1); /* it waits for ever, and that is how we know */
  coir_run(waits_on, chan);
  return 2;
}

static void test_ignore(void **state) {
  (void)state;
  struct outcome out = run_case(case_ignore);
  assert_true(WIFSIGNALED(out.status) && WTERMSIG(out.status) == SIGALRM);
  assert_string_equal(out.text, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_report_names_everybody_and_cancels),
      cmocka_unit_test(test_fibers_behind_a_shield_are_dropped),
      cmocka_unit_test(test_abort),
      cmocka_unit_test(test_callback_may_wake_fibers),
      cmocka_unit_test(test_callback_may_decline),
      cmocka_unit_test(test_a_thread_may_come),
      cmocka_unit_test(test_a_deadline_is_pending),
      cmocka_unit_test(test_a_descriptor_may_become_ready),
      cmocka_unit_test(test_a_select_may_wait_for_a_descriptor),
      cmocka_unit_test(test_another_runtime_may_come),
      cmocka_unit_test(test_ignore),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
