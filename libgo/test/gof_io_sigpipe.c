/* Nobody dies of SIGPIPE by gof_write, and the signal stays the program's: what it does, who blocks it, and what was
 * pending. On fibers, on plain threads, for sockets and for pipes. */
#include "gof_io_common.h"

/* ---- One write to somebody who is gone --------------------------------------------------------------------------- */

static _Atomic(int) signals_seen;

static void on_sigpipe(int number) {
  (void)number;
  atomic_fetch_add(&signals_seen, 1);
}

static void set_disposition(void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler};
  CHECK_EQ(sigaction(SIGPIPE, &action, NULL), 0);
}

static void (*disposition(void))(int) {
  struct sigaction action;
  CHECK_EQ(sigaction(SIGPIPE, NULL, &action), 0);
  return action.sa_handler;
}

static int is_blocked(void) {
  sigset_t set;
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
  return sigismember(&set, SIGPIPE);
}

static int is_pending(void) {
  sigset_t set;
  CHECK_EQ(sigpending(&set), 0);
  return sigismember(&set, SIGPIPE);
}

static void set_blocked(int blocked) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  CHECK_EQ(pthread_sigmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL), 0);
}

static int is_hung_up(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  CHECK(poll(&p, 1, 0) >= 0);
  return (p.revents & (POLLHUP | POLLERR)) != 0;
}

static void take_away_the_reader(enum kind kind, int fds[2]) {
  close_fd(fds[0]);
  if (kind != TCP) return;
  CHECK_EQ(gof_write(fds[1], "x", 1), 1); /* this one meets a peer that is only half closed, and resets */
  WAIT_FOR(is_hung_up(fds[1]));
}

/* One write to somebody who is gone. The thread's signals are as they were, unless the fiber is on another one now. */
static void break_pipe(int fd) {
  int blocked = is_blocked(), pending = is_pending(), worker = coir_worker_index();
  CHECK_FAILS(gof_write(fd, "xyz", 3), EPIPE);
  if (coir_worker_index() != worker) return;
  CHECK_EQ(is_blocked(), blocked);
  CHECK_EQ(is_pending(), pending);
}

/* Writes to pipes and sockets whose readers are gone. */
static void break_pipes(void) {
  for (int kind = 0; kind < KINDS; kind++) {
    for (int i = 0; i < 10; i++) {
      int fds[2];
      make_pair((enum kind)kind, fds);
      take_away_the_reader((enum kind)kind, fds);
      for (int k = 0; k < 3; k++) break_pipe(fds[1]);
      close_fd(fds[1]);
    }
  }
  int fds[2];
  make_pair(SOCKETPAIR, fds);
  CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
  CHECK_FAILS(gof_write(fds[1], "x", 1), EPIPE);
  CHECK_EQ(shutdown(fds[0], SHUT_RDWR), 0);
  CHECK_FAILS(gof_write(fds[0], "x", 1), EPIPE);
  close_pair(fds);
}

static void task_break_pipes(void *arg) {
  (void)arg;
  break_pipes();
}

/* Fibers on all workers, fibers in background mode, the main thread and another one. */
static void break_pipes_everywhere(void) {
  enum { N = 8 };
  struct task t[N], thread;
  for (int i = 0; i < N; i++) start(&t[i], FIBER, task_break_pipes, NULL);
  start(&thread, THREAD, task_break_pipes, NULL);
  gof_run();
  for (int i = 0; i < N; i++) finish(&t[i]);
  finish(&thread);
  break_pipes();
  CHECK_EQ(gof_start_background(0), 0);
  for (int i = 0; i < N; i++) start(&t[i], FIBER, task_break_pipes, NULL);
  break_pipes();
  CHECK_EQ(gof_join_background(), 0);
  for (int i = 0; i < N; i++) finish(&t[i]);
}

/* The default would end the process. */
static void the_default_survives(void) {
  set_disposition(SIG_DFL);
  set_blocked(0);
  break_pipes_everywhere();
  CHECK(disposition() == SIG_DFL);
  CHECK(!is_blocked() && !is_pending());
}

static void a_handler_is_not_called(void) {
  int fds[2];
  set_disposition(on_sigpipe);
  set_blocked(0);
  break_pipes_everywhere();
  CHECK_EQ(signals_seen, 0);
  CHECK(disposition() == on_sigpipe);
  /* The program's own writes still raise it. */
  make_pair(PIPE, fds);
  close_fd(fds[0]);
  CHECK_FAILS(gof_write(fds[1], "x", 1), EPIPE);
  CHECK_EQ(signals_seen, 0);
  make_blocking(fds[1]);
  CHECK_FAILS(write(fds[1], "x", 1), EPIPE);
  WAIT_FOR(atomic_load(&signals_seen) == 1);
  CHECK_FAILS(gof_write(fds[1], "x", 1), EPIPE);
  CHECK_EQ(signals_seen, 1);
  close_fd(fds[1]);
}

static void who_ignores_it_goes_on_ignoring(void) {
  set_disposition(SIG_IGN);
  set_blocked(0);
  break_pipes_everywhere();
  CHECK(disposition() == SIG_IGN);
}

/* ---- Signals that are pending anyway ----------------------------------------------------------------------------- */

static void who_blocks_it_goes_on_blocking(void) {
  set_disposition(on_sigpipe);
  set_blocked(1);
  break_pipes_everywhere();
  CHECK(is_blocked() && !is_pending());
  set_blocked(0);
  CHECK_EQ(signals_seen, 0);
}

/* What was raised before is not taken away. Nor does it come twice; except that, where the kernel cannot keep a pipe
 * from raising the signal (before Linux 6.18, and under a sanitizer), one for the whole process cannot be told from the
 * thread's own, which stays then. */
static void what_is_pending_stays_pending(void) {
  set_disposition(on_sigpipe);
  for (int to_process = 0; to_process < 2; to_process++) {
    atomic_store(&signals_seen, 0);
    set_blocked(1);
    CHECK_EQ(to_process ? kill(getpid(), SIGPIPE) : raise(SIGPIPE), 0);
    CHECK(is_pending());
    break_pipes();
    CHECK(is_pending());
    CHECK_EQ(signals_seen, 0);
    set_blocked(0);
    WAIT_FOR(atomic_load(&signals_seen) > 0);
    let_them_wait();
    CHECK(signals_seen == 1 || (to_process && signals_seen == 2));
  }
}

/* Sends the signal to the process, each time when the last one was seen. */
static void task_send_signals(void *arg) {
  (void)arg;
  set_blocked(1); /* so that somebody else has to take it */
  for (int i = 0; i < rounds(300); i++) {
    CHECK_EQ(kill(getpid(), SIGPIPE), 0);
    SPIN_UNTIL(atomic_load(&signals_seen) > i);
  }
}

/* A signal that somebody sends while calls keep theirs back arrives. */
static void signals_from_elsewhere_arrive(void) {
  struct task sender;
  int fds[2];
  set_disposition(on_sigpipe);
  set_blocked(0);
  make_pair(PIPE, fds);
  close_fd(fds[0]);
  start(&sender, THREAD, task_send_signals, NULL);
  while (!atomic_load(&sender.is_done)) CHECK_FAILS(gof_write(fds[1], "x", 1), EPIPE);
  finish(&sender);
  CHECK_EQ(signals_seen, rounds(300));
  close_fd(fds[1]);
}

/* ---- Writers that wait ------------------------------------------------------------------------------------------- */

enum { WRITERS = 48 };

/* Pairs with a writer each that waits since its reader does not read. */
struct blocked {
  int fds[WRITERS][2];
  struct write_task w[WRITERS];
  struct task t[WRITERS];
};

static void take_readers_away(void *arg) {
  struct blocked *b = arg;
  gof_sleep_ms(20);
  for (int i = 0; i < WRITERS; i++) CHECK(!atomic_load(&b->t[i].is_done));
  for (int i = 0; i < WRITERS; i++) {
    int kind = i % KINDS, is_own = i % 2;
    if (kind == PIPE || (kind == TCP && !is_own)) {
      close_fd(b->fds[i][0]);
      b->fds[i][0] = -1;
    } else CHECK_EQ(shutdown(b->fds[i][is_own], SHUT_RDWR), 0);
  }
}

/* Shutting sockets down and closing pipes under writers that wait, some of them plain threads. */
static void waiting_writers_survive(void) {
  static char data[16 << 20]; /* more than any buffer grows to */
  static struct blocked b;
  set_disposition(SIG_DFL);
  set_blocked(0);
  for (int round = 0; round < 5; round++) {
    struct task breaker;
    for (int i = 0; i < WRITERS; i++) {
      make_pair((enum kind)(i % KINDS), b.fds[i]);
      fill(b.fds[i][1]);
      b.w[i] = (struct write_task){.fd = b.fds[i][1], .data = data, .bytes = sizeof data};
      start(&b.t[i], i % 6 == round ? THREAD : FIBER, task_write, &b.w[i]);
    }
    start(&breaker, round % 2 ? THREAD : FIBER, take_readers_away, &b);
    gof_run();
    finish(&breaker);
    for (int i = 0; i < WRITERS; i++) {
      finish(&b.t[i]);
      CHECK_EQ(b.w[i].result, -1);
      /* A connection whose reader's side is closed with data unread is reset. */
      CHECK_EQ(b.w[i].error, i % KINDS == TCP && i % 2 == 0 ? ECONNRESET : EPIPE);
      if (b.fds[i][0] >= 0) close_fd(b.fds[i][0]);
      close_fd(b.fds[i][1]);
    }
  }
  CHECK(disposition() == SIG_DFL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(the_default_survives),           CASE(a_handler_is_not_called),       CASE(who_ignores_it_goes_on_ignoring),
      CASE(who_blocks_it_goes_on_blocking), CASE(what_is_pending_stays_pending), CASE(signals_from_elsewhere_arrive),
      CASE(waiting_writers_survive),
  };
  return RUN_CASES(argc, argv, cases);
}
