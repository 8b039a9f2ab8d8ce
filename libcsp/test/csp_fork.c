/* Children that are forked beside goroutines, by main and by goroutines; and alarms that the program has set. */
#include "csp_process.h"

#include <sys/time.h>

static _Atomic(int) count;

static void adds_one(void *arg) {
  (void)arg;
  atomic_fetch_add(&count, 1);
}

static void nothing(void *arg) { (void)arg; }

static void starts_ten(void *arg) {
  adds_one(arg);
  for (int i = 0; i < 10; i++) go(adds_one, NULL);
}

static _Atomic(bool) enough;

/* ---- fork ------------------------------------------------------------------------------------------------------ */

static void until_child_ends(pid_t pid, int code) {
  int status = -1;
  CHECK(pid > 0);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), code);
}

static void busy(void *arg) {
  for (csp_gochan_t *ch = arg; csp_gochan_send(ch, NULL);) csp_yield();
}

static void drains(void *arg) {
  for (bool ok = true; ok;) csp_gochan_recv(arg, &ok);
}

/* The child of a fork starts from nothing. */
static void child_lives(void) {
  if (IS_SANITIZED) return; /* their own locks do not survive a fork beside other threads */
  csp_gochan_t *ch = csp_gochan_new(0);
  CHECK_EQ(threads_now(), 1);
  CHECK_EQ(runtime_num_goroutines(), 0);
  csp_scheduler_stop();
  CHECK_EQ(threads_now(), 1);
  atomic_store(&count, 0);
  for (int i = 0; i < 20; i++) go(starts_ten, NULL);
  go((void (*)(void *))csp_gochan_close, ch);
  csp_gochan_recv(ch, NULL);
  csp_scheduler_stop();
  CHECK_EQ(count, 220);
  csp_gochan_free(ch);
}

static void fork_by_main(void) {
  csp_gochan_t *ch = csp_gochan_new(1);
  need_workers(2);
  for (int i = 0; i < 4; i++) go(busy, ch), go(drains, ch);
  for (int i = 0; i < rounds(20); i++) {
    pid_t pid = fork();
    if (pid == 0) {
      alarm(20);
      if (i % 2) child_lives();
      _exit(i);
    }
    until_child_ends(pid, i);
  }
  CHECK_EQ(runtime_num_goroutines(), 8);
  csp_gochan_close(ch);
  csp_scheduler_stop();
  csp_gochan_free(ch);
}

static void forks_in_goroutine(void *arg) {
  (void)arg;
  for (int i = 0; i < rounds(20); i++) {
    pid_t pid = fork();
    if (pid == 0) {
      alarm(20);
      if (i % 2) child_lives();
      _exit(i);
    }
    csp_block(until_child_ends(pid, i));
    csp_yield();
  }
}

static void fork_by_goroutines(void) {
  csp_gochan_t *ch = csp_gochan_new(1);
  need_workers(2);
  for (int i = 0; i < 2; i++) go(busy, ch), go(drains, ch);
  csp_call_t calls[] = {{forks_in_goroutine, NULL}, {forks_in_goroutine, NULL}};
  csp_sync_all(calls, 2);
  csp_gochan_close(ch);
  csp_scheduler_stop();
  csp_gochan_free(ch);
}

/* Another thread is in the midst of starting or stopping, whatever it holds. */
static void *starts_and_stops(void *arg) {
  while (!atomic_load(&enough)) {
    go(nothing, NULL);
    csp_scheduler_stop();
  }
  return arg;
}

static void fork_during_start_and_stop(void) {
  pthread_t thread;
  if (IS_SANITIZED) return; /* as above */
  set_workers(2);
  CHECK_EQ(pthread_create(&thread, NULL, starts_and_stops, NULL), 0);
  for (int i = 0; i < rounds(100); i++) {
    pid_t pid = fork();
    if (pid == 0) {
      alarm(20);
      go(adds_one, NULL);
      csp_scheduler_stop();
      _exit(count == 1 ? i : 255);
    }
    until_child_ends(pid, i);
  }
  atomic_store(&enough, true);
  pthread_join(thread, NULL);
}

/* ---- Signals of the program ------------------------------------------------------------------------------------ */

static _Atomic(int) alarms;

static void on_alarm(int signo) {
  (void)signo;
  atomic_fetch_add(&alarms, 1);
}

static void reads_all(void *fds) {
  char c;
  int n = 0;
  for (ssize_t got; (got = csp_read(((int *)fds)[0], &c, 1)) != 0; n++) CHECK_EQ(got, 1);
  CHECK_EQ(n, 100);
}

static void writes_slowly(void *fds) {
  for (int i = 0; i < 100; i++) {
    int64_t before = csp_timer_now();
    csp_hangup((uint64_t)COIR_US(500));
    CHECK(csp_timer_now() - before >= COIR_US(500));
    CHECK_EQ(csp_write(((int *)fds)[1], "x", 1), 1);
  }
  close(((int *)fds)[1]);
}

/* The program's own timer, every millisecond, while goroutines and main sleep, read and write. */
static void the_program_has_sigalrm(void) {
  struct sigaction act = {.sa_handler = on_alarm};
  struct itimerval every = {.it_interval = {.tv_usec = 1000}, .it_value = {.tv_usec = 1000}}, never = {{0, 0}, {0, 0}};
  int fds[4][2];
  csp_call_t calls[6];
  for (int i = 0; i < 4; i++) CHECK_EQ(pipe(fds[i]), 0);
  CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0); /* without SA_RESTART */
  CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
  for (int i = 0; i < 3; i++) {
    calls[2 * i] = (csp_call_t){reads_all, fds[i]};
    calls[2 * i + 1] = (csp_call_t){writes_slowly, fds[i]};
  }
  csp_go(writes_slowly, fds[3]);
  reads_all(fds[3]);
  csp_sync_all(calls, 6);
  for (int i = 0; i < 20; i++) csp_hangup((uint64_t)COIR_MS(2));
  CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
  CHECK(alarms > 10);
  CHECK_EQ(sigaction(SIGALRM, NULL, &act), 0);
  CHECK(act.sa_handler == on_alarm);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(fork_by_main),
      CASE(fork_by_goroutines),
      CASE(fork_during_start_and_stop),
      CASE(the_program_has_sigalrm),
  };
  return RUN_CASES(argc, argv, cases);
}
