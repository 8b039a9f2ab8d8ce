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

/* ---- Runtimes in the background, and plain threads ------------------------------------------------------------- */

static struct coir_runtime *rt;
static struct coir_chan *answers;

static int count_of(const struct outcome *out, const char *what) {
  int n = 0;
  for (const char *at = out->text; (at = strstr(at, what)) != NULL; at++) n++;
  return n;
}

static void outside(int64_t ns) {
  struct timespec pause = {.tv_sec = ns / COIR_SEC(1), .tv_nsec = ns % COIR_SEC(1)};
  nanosleep(&pause, NULL);
}

static int start(enum coir_deadlock policy, coir_deadlock_fn hook) {
  struct coir_config c = {.deadlock = policy, .on_deadlock = hook};
  chan = coir_chan_create(1, 0);
  answers = coir_chan_create(1, 0);
  return coir_runtime_create(&rt, &c) || coir_runtime_start(rt);
}

static bool spawns(coir_fn fn) { return coir_runtime_spawn(rt, fn, chan, NULL, NULL) == 0; }

static bool stops(enum coir_stop how) {
  return coir_runtime_stop(rt, how, COIR_NEVER) == 0 && coir_runtime_destroy(rt) == 0;
}

static int waits_and_tells(void *c) {
  int rc = waits_on(c);
  coir_chan_close(answers);
  return rc;
}

static int stays(void *arg) {
  (void)arg;
  return coir_sleep(COIR_US(10));
}

/* Fibers that are spawned before the last one has ended are cancelled as well. */
static bool becomes_as_new(void) {
  int64_t end = coir_after(COIR_SEC(SECONDS_MAX));
  for (struct coir_result result = {.status = -1}; result.status != 0;) {
    struct coir_fiber *f;
    if (coir_now() > end || coir_runtime_spawn(rt, stays, NULL, NULL, &f)) return false;
    if (coir_join(f, &result, COIR_NEVER)) return false;
  }
  return true;
}

static int case_started(void) {
  char byte;
  if (start(COIR_DEADLOCK_REPORT, NULL)) return 1;
  for (int i = 0; i < 2; i++) {
    answers = coir_chan_create(1, 0);
    if (!spawns(waits_and_tells) || !spawns(waits_on)) return 2;
    if (coir_chan_recv(answers, &byte, COIR_NEVER) != -EPIPE) return 3;
    if (!becomes_as_new()) return 4;
  }
  return stops(COIR_STOP_DRAIN) ? 0 : 5;
}

static void test_started_and_main_waits(void **state) {
  (void)state;
  struct outcome out = run_case(case_started);
  expect_exit(&out, 0);
  assert_int_equal(count_of(&out, "deadlock: 2 fibers and 1 threads"), 2);
  assert_int_equal(count_of(&out, "deadlock"), 2);
  assert_int_equal(count_of(&out, "thread "), 2);
  assert_int_equal(count_of(&out, "waits for receive"), 6);
}

/* All workers sleep by then, so it is the thread that looks. */
static int case_main_comes_last(void) {
  char byte;
  if (start(COIR_DEADLOCK_REPORT, NULL) || !spawns(waits_and_tells)) return 1;
  outside(COIR_MS(150));
  if (coir_chan_recv(answers, &byte, COIR_NEVER) != -EPIPE) return 2;
  return stops(COIR_STOP_DRAIN) ? 0 : 3;
}

static void test_started_and_main_comes_last(void **state) {
  (void)state;
  struct outcome out = run_case(case_main_comes_last);
  expect_exit(&out, 0);
  assert_int_equal(count_of(&out, "deadlock: 1 fibers and 1 threads"), 1);
}

static bool closes_answers(struct coir_runtime *runtime, void *arg) {
  (void)arg;
  told++;
  if (coir_runtime_current() || runtime != rt) told = 100; /* it is on no fiber */
  coir_chan_close(answers);
  return true;
}

static int case_started_callback(void) {
  char byte;
  if (start(COIR_DEADLOCK_IGNORE, closes_answers) || !spawns(waits_on)) return 1;
  if (coir_chan_recv(answers, &byte, COIR_NEVER) != -EPIPE || told != 1) return 2;
  outside(COIR_MS(100));
  return told == 1 && stops(COIR_STOP_ABANDON) ? 0 : 3;
}

static void test_callback_may_wake_a_thread(void **state) {
  (void)state;
  struct outcome out = run_case(case_started_callback);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int case_started_abort(void) {
  char byte;
  if (start(COIR_DEADLOCK_ABORT, NULL) || !spawns(waits_on)) return 1;
  return coir_chan_recv(answers, &byte, COIR_NEVER);
}

static void test_started_abort(void **state) {
  (void)state;
  struct outcome out = run_case(case_started_abort);
  assert_true(WIFSIGNALED(out.status) && WTERMSIG(out.status) == SIGABRT);
  assert_non_null(strstr(out.text, "deadlock: 1 fibers and 1 threads"));
}

/* ---- What a plain thread may wait for -------------------------------------------------------------------------- */

static struct coir_mutex mutex;
static struct coir_event event;
static struct coir_wait_group group;
static struct coir_sem sem;
static struct coir_fiber *joined;
static int kind;

static int holds_mutex(void *c) {
  if (coir_mutex_lock(&mutex, COIR_NEVER)) return 1;
  coir_wait_group_add(&group, 1);
  coir_event_set(&event);
  int rc = waits_on(c);
  coir_mutex_unlock(&mutex);
  coir_wait_group_done(&group);
  coir_sem_release(&sem, 1);
  coir_chan_close(answers);
  return rc;
}

static int yields_never(void *c) { return waits_on(c); }

/* On the main thread: everything ends once the fiber has been cancelled. */
static int main_waits(void) {
  char byte;
  void *value;
  struct coir_gen *gen;
  struct coir_arm arms[2] = {coir_arm_recv(answers, &byte), coir_arm_fiber(joined)};
  switch (kind) {
  case 0: return coir_mutex_lock(&mutex, COIR_NEVER);
  case 1: return coir_wait_group_wait(&group, COIR_NEVER);
  case 2: return coir_sem_acquire(&sem, 1, COIR_NEVER);
  case 3: return coir_join(joined, NULL, COIR_NEVER);
  case 4: return coir_select(arms, 2, COIR_NEVER) < 0;
  case 5: return coir_chan_send(answers, &byte, COIR_NEVER) != -EPIPE;
  default: return coir_gen_create(&gen, yields_never, chan, NULL) || coir_gen_resume(gen, NULL, &value) != 1;
  }
}
#define KINDS 7

static int case_kinds(void) {
  struct coir_config c = {.size = sizeof c};
  chan = coir_chan_create(1, 0);
  answers = coir_chan_create(1, 0);
  rt = coir_configure(&c) ? NULL : coir_runtime_default(); /* the one of generators that threads make */
  if (!rt || coir_runtime_start(rt)) return 1;
  coir_sem_init(&sem, 0);
  if (coir_runtime_spawn(rt, holds_mutex, chan, NULL, &joined)) return 2;
  coir_event_wait(&event, COIR_NEVER);
  if (main_waits()) return 3;
  return coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER) ? 4 : 0;
}

static void test_whatever_a_thread_waits_for(void **state) {
  (void)state;
  for (kind = 0; kind < KINDS; kind++) {
    struct outcome out = run_case(case_kinds);
    expect_exit(&out, 0);
    if (count_of(&out, "deadlock:") != 1) fail_msg("kind %d: %s", kind, out.text);
  }
}

/* ---- Waiting for the end of all fibers ------------------------------------------------------------------------- */

static int case_drain(void) {
  if (start(COIR_DEADLOCK_REPORT, NULL) || !spawns(waits_on)) return 1;
  return stops(COIR_STOP_DRAIN) ? 0 : 2;
}

static void test_a_drain_that_cannot_end(void **state) {
  (void)state;
  struct outcome out = run_case(case_drain);
  expect_exit(&out, 0);
  assert_int_equal(count_of(&out, "deadlock: 1 fibers and 1 threads"), 1);
  assert_int_equal(count_of(&out, "waits for stop"), 1);
}

static int case_drain_shielded(void) {
  struct coir_stats stats;
  if (start(COIR_DEADLOCK_REPORT, NULL) || !spawns(shielded)) return 1;
  if (coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER)) return 2;
  coir_runtime_get_stats(rt, &stats);
  return stats.fibers_dropped == 1 && coir_runtime_destroy(rt) == 0 ? 0 : 3;
}

static void test_a_drain_drops_what_is_behind_a_shield(void **state) {
  (void)state;
  struct outcome out = run_case(case_drain_shielded);
  expect_exit(&out, 0);
  assert_int_equal(count_of(&out, "deadlock:"), 1);
}

static int case_drain_with_a_deadline(void) {
  if (start(COIR_DEADLOCK_ABORT, NULL) || !spawns(waits_on)) return 1;
  if (coir_runtime_stop(rt, COIR_STOP_DRAIN, coir_after(COIR_MS(150))) != -ETIMEDOUT) return 2;
  return stops(COIR_STOP_ABANDON) ? 0 : 3;
}

static void test_a_drain_with_a_deadline_ends(void **state) {
  (void)state;
  struct outcome out = run_case(case_drain_with_a_deadline);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

/* ---- Threads alone --------------------------------------------------------------------------------------------- */

static void *waits_for_ever(void *c) {
  char byte;
  coir_chan_recv(c, &byte, COIR_NEVER);
  return c;
}

static int case_threads_alone(void) {
  pthread_t thread;
  if (start(COIR_DEADLOCK_REPORT, NULL)) return 1;
  if (pthread_create(&thread, NULL, waits_for_ever, chan)) return 2;
  alarm(2); /* nobody can wake them */
  return waits_for_ever(answers) == NULL;
}

static void test_threads_alone_are_told_once(void **state) {
  (void)state;
  struct outcome out = run_case(case_threads_alone);
  assert_true(WIFSIGNALED(out.status) && WTERMSIG(out.status) == SIGALRM);
  assert_int_equal(count_of(&out, "deadlock: 0 fibers and 2 threads"), 1);
  assert_int_equal(count_of(&out, "deadlock"), 1);
}

/* The fibers of coir_run and a thread wait for each other. */
static int case_run_with_a_thread(void) {
  pthread_t thread;
  chan = coir_chan_create(1, 0);
  if (pthread_create(&thread, NULL, waits_for_ever, chan)) return 1;
  if (coir_run(two_wait, NULL) != -EDEADLK) return 2;
  coir_chan_close(chan);
  return pthread_join(thread, NULL);
}

static void test_a_thread_that_waits_cannot_come(void **state) {
  (void)state;
  struct outcome out = run_case(case_run_with_a_thread);
  expect_exit(&out, 0);
  assert_int_equal(count_of(&out, "deadlock: 2 fibers and 1 threads"), 1);
}

/* ---- Started, and no deadlocks --------------------------------------------------------------------------------- */

static int case_main_has_a_deadline(void) {
  char byte;
  if (start(COIR_DEADLOCK_ABORT, NULL) || !spawns(waits_on)) return 1;
  if (coir_chan_recv(answers, &byte, coir_after(COIR_MS(150))) != -ETIMEDOUT) return 2;
  if (coir_sleep(COIR_MS(100))) return 3;
  return stops(COIR_STOP_CANCEL) ? 0 : 4;
}

static void test_main_has_a_deadline_or_sleeps(void **state) {
  (void)state;
  struct outcome out = run_case(case_main_has_a_deadline);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int passes_on(void *c) {
  char byte;
  int rc = coir_chan_recv(c, &byte, COIR_NEVER);
  return rc ? rc : coir_chan_send(answers, &byte, COIR_NEVER);
}

static bool main_gets_one(void) {
  char byte = 0;
  return coir_chan_recv(answers, &byte, COIR_NEVER) == 0 && byte == 1 && stops(COIR_STOP_DRAIN);
}

static int case_a_thread_outside(void) {
  pthread_t thread;
  if (start(COIR_DEADLOCK_ABORT, NULL) || !spawns(passes_on)) return 1;
  if (pthread_create(&thread, NULL, sends_later, chan)) return 2;
  return main_gets_one() && pthread_join(thread, NULL) == 0 ? 0 : 3;
}

static void test_a_thread_outside_may_come(void **state) {
  (void)state;
  struct outcome out = run_case(case_a_thread_outside);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static int case_a_fiber_sleeps(void) {
  if (start(COIR_DEADLOCK_ABORT, NULL) || !spawns(passes_on) || !spawns(sends_after_sleep)) return 1;
  return main_gets_one() ? 0 : 2;
}

static int reads_then_answers(void *arg) {
  (void)arg;
  return reads_then_sends(answers);
}

static int case_a_fiber_reads(void) {
  if (pipe(fds) || start(COIR_DEADLOCK_ABORT, NULL) || !spawns(waits_on) || !spawns(reads_then_answers)) return 1;
  pid_t writer = fork();
  if (writer == 0) {
    outside(COIR_MS(150));
    _exit(write(fds[1], "\1", 1) == 1 ? 0 : 1);
  }
  char byte = 0;
  if (coir_chan_recv(answers, &byte, COIR_NEVER) || byte != 1) return 2;
  waitpid(writer, NULL, 0);
  return stops(COIR_STOP_CANCEL) ? 0 : 3;
}

static void test_a_fiber_may_come(void **state) {
  (void)state;
  int (*const cases[])(void) = {case_a_fiber_sleeps, case_a_fiber_reads};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct outcome out = run_case(cases[i]);
    expect_exit(&out, 0);
    assert_string_equal(out.text, "");
  }
}

/* ---- One token, handed round ----------------------------------------------------------------------------------- */

/* Whoever does not have it waits without limit. So there would be a deadlock at every moment but for the one who has
 * it: a fiber, a thread, or a thread that was just made for it. In some rounds they keep it for about as long as a
 * thread sleeps before it looks (and workers before they sleep without limit), so that who looks finds somebody who was
 * handed it and has not noticed yet. */
#define HOLDERS 6
#define FIBERS_FROM 4
#define ROUNDS_MIN 30
#define ROUNDS_NS COIR_SEC(2)
#define KEEP_MIN COIR_US(9800)
#define KEEP_RANGE COIR_US(300)

static struct coir_chan *tokens[HOLDERS];
static _Atomic(unsigned) passes;
static int64_t rounds_end;

static void pause_outside(unsigned *seed) {
  unsigned r = (unsigned)rand_r(seed) >> 4;
  if (passes % 3 == 0) outside(KEEP_MIN + r % KEEP_RANGE);
  else if (r % 4 == 0) outside(r % COIR_US(100));
  else if (r % 4 == 1)
    for (int64_t end = coir_now() + r % COIR_US(50); coir_now() < end;) {}
}

static int pause_inside(unsigned *seed) {
  unsigned r = (unsigned)rand_r(seed) >> 4;
  if (passes % 3 == 1 && r % 4 == 0) return coir_sleep(KEEP_MIN + r % KEEP_RANGE);
  return r % 4 == 0 ? coir_sleep(r % COIR_US(100)) : 0;
}

static bool is_over(void) { return passes >= ROUNDS_MIN && coir_now() > rounds_end; }

static int pass(int i) {
  char byte = 1;
  return coir_chan_send(tokens[(i + 1) % HOLDERS], &byte, COIR_NEVER);
}

/* Ends with -EPIPE when the one before has ended. */
static int holds_by_turns(int i, void (*as_thread)(unsigned *)) {
  unsigned seed = (unsigned)i + 1;
  char byte;
  int rc;
  while ((rc = coir_chan_recv(tokens[i], &byte, COIR_NEVER)) == 0) {
    if (as_thread) as_thread(&seed);
    else if ((rc = pause_inside(&seed))) break;
    if ((rc = pass(i))) break;
  }
  coir_chan_close(tokens[(i + 1) % HOLDERS]);
  return rc;
}

static int holder_fiber(void *i) { return holds_by_turns((int)(intptr_t)i, NULL) == -EPIPE ? 0 : 1; }

static void *holder_thread(void *i) { return (void *)(intptr_t)holds_by_turns((int)(intptr_t)i, pause_outside); }

static void *passes_once(void *arg) {
  unsigned seed = (unsigned)(uintptr_t)arg;
  pause_outside(&seed);
  return (void *)(intptr_t)pass(0);
}

/* Has others pass it on, who end then. */
static int main_holds(void) {
  char byte;
  pthread_t thread;
  for (bool is_made = false;; is_made = true) {
    if (coir_chan_recv(tokens[0], &byte, COIR_NEVER)) return 1;
    void *rc;
    if (is_made && (pthread_join(thread, &rc) || rc)) return 2;
    if (++passes && is_over()) break;
    if (pthread_create(&thread, NULL, passes_once, (void *)(intptr_t)passes)) return 3;
  }
  return 0;
}

/* Nobody may be accused; and as a proof that somebody looked all the time, the end of it is one. */
static int case_token(void) {
  pthread_t threads[FIBERS_FROM];
  if (start(COIR_DEADLOCK_IGNORE, closes_answers)) return 1;
  for (int i = 0; i < HOLDERS; i++) tokens[i] = coir_chan_create(1, (i + 1) % 2);
  rounds_end = coir_after(ROUNDS_NS);
  for (int i = 1; i < FIBERS_FROM; i++)
    if (pthread_create(&threads[i], NULL, holder_thread, (void *)(intptr_t)i)) return 2;
  for (int i = FIBERS_FROM; i < HOLDERS; i++)
    if (coir_runtime_spawn(rt, holder_fiber, (void *)(intptr_t)i, NULL, NULL)) return 3;
  if (pass(HOLDERS - 1)) return 4;
  if (main_holds() || told) return 5;
  waits_for_ever(answers);
  if (told != 1) return 6;
  coir_chan_close(tokens[1]);
  for (int i = 1; i < FIBERS_FROM; i++)
    if (pthread_join(threads[i], NULL)) return 7;
  return stops(COIR_STOP_DRAIN) ? 0 : 8;
}

static void test_a_token_that_goes_round(void **state) {
  (void)state;
  struct outcome out = run_case(case_token);
  expect_exit(&out, 0);
  assert_string_equal(out.text, "");
}

static void *ends(void *arg) { return arg; }

int main(void) {
  /* With the first thread of a program comes one of ThreadSanitizer's own, and one more in a child that was forked
   * before; only the former can be told from the program's. */
  pthread_t first;
  if (pthread_create(&first, NULL, ends, NULL) || pthread_join(first, NULL)) return 1;
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
      cmocka_unit_test(test_started_and_main_waits),
      cmocka_unit_test(test_started_and_main_comes_last),
      cmocka_unit_test(test_callback_may_wake_a_thread),
      cmocka_unit_test(test_started_abort),
      cmocka_unit_test(test_whatever_a_thread_waits_for),
      cmocka_unit_test(test_a_drain_that_cannot_end),
      cmocka_unit_test(test_a_drain_drops_what_is_behind_a_shield),
      cmocka_unit_test(test_a_drain_with_a_deadline_ends),
      cmocka_unit_test(test_threads_alone_are_told_once),
      cmocka_unit_test(test_a_thread_that_waits_cannot_come),
      cmocka_unit_test(test_main_has_a_deadline_or_sleeps),
      cmocka_unit_test(test_a_thread_outside_may_come),
      cmocka_unit_test(test_a_fiber_may_come),
      cmocka_unit_test(test_a_token_that_goes_round),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
