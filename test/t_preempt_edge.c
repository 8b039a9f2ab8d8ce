/* Preemption where the process takes part: signals that the program uses itself, stops, forks, several runtimes, a
 * debugger. Each case is a process of its own; with its name as argument the program runs it alone. */
#include "hogs.h"

#include <spawn.h>
#include <sys/resource.h>
#include <sys/time.h>

extern char **environ;

/* ---- Signals of the program ------------------------------------------------------------------------------------ */

static _Atomic(bool) stop;
static _Atomic(int) alarms, queued, foreign;
static struct hog hogs[8];

static void on_alarm(int signo) {
  (void)signo;
  atomic_fetch_add(&alarms, 1);
}

static void alarm_every(int us) {
  struct itimerval every = {.it_interval.tv_usec = us, .it_value.tv_usec = us};
  CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void set_handler(int signo, void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(signo, &action, NULL), 0);
}

/* Four hogs, which hand the worker to one another, for so long. Returns how many pauses there were. */
static int hogs_for(void *ms) {
  struct coir_fiber *fibers[4];
  uint64_t before = stats_here().preemptions;
  hogs_spawn(hogs, fibers, 4, &stop);
  CHECK_EQ(coir_sleep(COIR_MS((intptr_t)ms)), 0);
  for (int i = 0; i < 4; i++) WAIT_FOR(atomic_load(&hogs[i].turns) > 0);
  int preemptions = (int)(stats_here().preemptions - before);
  hogs_join(fibers, 4, &stop);
  return preemptions;
}

/* Both get what is theirs: the pauses come, and alarms are neither lost nor made up. An alarm that comes while the last
 * one has not been taken is one with it, so a busy machine makes fewer. */
static void the_programs_alarms_come(void) {
  struct coir_config config = PREEMPTIVE(1, 1000);
  config.preempt_signal = SIGALRM;
  int best = 0;
  for (int i = 0; i < 5 && best < 75; i++) {
    set_handler(SIGALRM, on_alarm);
    struct coir_runtime *rt = make_runtime(config);
    int pauses = 0;
    atomic_store(&alarms, 0);
    int64_t begin = coir_now();
    alarm_every(5000);
    CHECK_EQ(coir_runtime_run(rt, hogs_for, (void *)500, &pauses), 0);
    int64_t ticks = (coir_now() - begin) / COIR_MS(5);
    alarm_every(0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    int percent = (int)(atomic_load(&alarms) * 100 / ticks);
    CHECK(pauses > 5);
    CHECK(percent <= 110);
    if (percent > best) best = percent;
  }
  printf("%d %% of the alarms\n", best);
  CHECK(best > 40);
}

static void on_queued(int signo, siginfo_t *info, void *context) {
  if (info->si_code == SI_QUEUE && info->si_value.sival_int == 77 && signo == SIGURG && context) queued++;
  else foreign++;
}

/* What the handler is told is about the program's own signals, and it is not told of others. */
static void the_handler_gets_its_own_only(void) {
  struct sigaction action = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO | SA_RESTART};
  CHECK_EQ(sigaction(SIGURG, &action, NULL), 0);
  struct coir_runtime *rt = make_runtime((struct coir_config)PREEMPTIVE(1, 500));
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_fiber *fiber;
  CHECK_EQ(coir_runtime_spawn(rt, hogs_for, (void *)200, NULL, &fiber), 0);
  for (int i = 1; i <= 20; i++) {
    CHECK_EQ(sigqueue(getpid(), SIGURG, (union sigval){.sival_int = 77}), 0);
    WAIT_FOR(atomic_load(&queued) == i);
  }
  CHECK(join(fiber) > 5);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(atomic_load(&queued), 20);
  CHECK_EQ(atomic_load(&foreign), 0);
}

static int replace_and_go_on(void *handler) {
  set_handler(SIGURG, (void (*)(int))handler);
  uint64_t before = stats_here().handoffs;
  (void)hogs_for((void *)100);
  return stats_here().handoffs > before;
}

/* Then nothing need pause, but hogs are handed off, and come back to the queue when they wait. */
static void the_program_takes_the_signal_away(void) {
  struct coir_config config = PREEMPTIVE(1, 500);
  config.busy_us = 5000;
  CHECK_EQ(run_with(config, replace_and_go_on, (void *)on_alarm), 1);
  CHECK_EQ(run_with(config, replace_and_go_on, (void *)SIG_IGN), 1);
}

static int alarmed(void *unused) {
  (void)unused;
  alarm_every(20000);
  return hogs_for((void *)15000);
}

static void end_by_alarm(void) {
  struct coir_config config = PREEMPTIVE(1, 500);
  config.preempt_signal = SIGALRM;
  set_handler(SIGALRM, SIG_DFL);
  (void)run_with(config, alarmed, NULL);
}

static void be_left_by_alarm(void) {
  struct coir_config config = PREEMPTIVE(1, 500);
  config.preempt_signal = SIGALRM;
  set_handler(SIGALRM, SIG_IGN);
  alarm_every(1000);
  CHECK(run_with(config, hogs_for, (void *)100) > 5);
}

/* Without a handler the signal does what it is set to. */
static void the_default_holds(void) {
  char text[256];
  int status = in_child_process(end_by_alarm, text, sizeof text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
  status = in_child_process(be_left_by_alarm, text, sizeof text);
  if (!WIFEXITED(status) || WEXITSTATUS(status)) fputs(text, stderr);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- Several runtimes ------------------------------------------------------------------------------------------ */

static int hogs_of_one(void *stopped) {
  struct coir_fiber *fibers[4];
  struct hog mine[4];
  int64_t sum = 0;
  hogs_spawn(mine, fibers, 4, stopped);
  WAIT_FOR(stats_here().preemptions >= 20);
  hogs_join(fibers, 4, stopped);
  for (int i = 0; i < 4; i++) sum += (int64_t)atomic_load(&mine[i].turns);
  return sum > 0;
}

static void two_runtimes_with_signals_of_their_own(void) {
  static _Atomic(bool) stops[2];
  struct coir_runtime *rts[2];
  struct coir_fiber *fibers[2];
  for (int i = 0; i < 2; i++) {
    struct coir_config config = PREEMPTIVE(1, 1000);
    config.preempt_signal = i ? SIGUSR2 : SIGRTMIN + 3;
    rts[i] = make_runtime(config);
    CHECK_EQ(coir_runtime_start(rts[i]), 0);
  }
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_runtime_spawn(rts[i], hogs_of_one, &stops[i], NULL, &fibers[i]), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(join(fibers[i]), 1);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(coir_runtime_stop(rts[i], COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(coir_runtime_destroy(rts[i]), 0);
  }
}

/* Again and again, so that handlers are set and found set. */
static void runtimes_come_and_go(void) {
  for (int i = 0; i < rounds(20); i++) {
    static const int signals[] = {0, SIGUSR1, SIGURG, SIGALRM};
    struct coir_config config = PREEMPTIVE(1 + i % 2, 200);
    config.preempt_signal = signals[i % 4];
    _Atomic(bool) stopped = false;
    if (i % 3 == 0) set_handler(config.preempt_signal ? config.preempt_signal : SIGURG, on_alarm);
    CHECK_EQ(run_with(config, hogs_of_one, &stopped), 1);
  }
}

/* ---- Stops ----------------------------------------------------------------------------------------------------- */

static _Atomic(bool) go_on;
static _Atomic(int) reached, slept, canceled;

static int compute_then_wait(void *ns) {
  SPIN_UNTIL(atomic_load_explicit(&go_on, memory_order_relaxed));
  reached++;
  int rc = coir_sleep((intptr_t)ns);
  if (rc == 0) slept++;
  if (rc == -ECANCELED) canceled++;
  return 0;
}

static void *let_go_on(void *unused) {
  usleep(20000);
  atomic_store(&go_on, true);
  return unused;
}

static int thread_count(void) {
  DIR *dir = opendir("/proc/self/task");
  int n = -2; /* . and .. */
  CHECK(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

enum { STOP_HALT = 100 };

static void stop_with_paused(int how) {
  pthread_t thread;
  struct coir_runtime *rt = make_runtime((struct coir_config)PREEMPTIVE(1, 500));
  atomic_store(&go_on, false);
  reached = slept = canceled = 0;
  void *ns = (void *)(intptr_t)(how == COIR_STOP_DRAIN ? COIR_MS(1) : COIR_SEC(20));
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(coir_runtime_spawn(rt, compute_then_wait, ns, NULL, NULL), 0);
  WAIT_FOR(stats_of(rt).preemptions >= 6); /* so some are paused just now */
  CHECK_EQ(pthread_create(&thread, NULL, let_go_on, NULL), 0);
  if (how == COIR_STOP_DRAIN) CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, coir_after(COIR_MS(2))), -ETIMEDOUT);
  if (how == STOP_HALT) CHECK_EQ(coir_runtime_halt(rt), 0);
  CHECK_EQ(coir_runtime_stop(rt, how == STOP_HALT ? COIR_STOP_ABANDON : (enum coir_stop)how, COIR_NEVER), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_list(rt, NULL, 0), 0);
  CHECK_EQ(slept, how == COIR_STOP_DRAIN ? 4 : 0);
  CHECK_EQ(canceled, how == COIR_STOP_CANCEL ? 4 : 0);
  if (how == COIR_STOP_DRAIN || how == COIR_STOP_CANCEL) CHECK_EQ(reached, 4);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void stop_in_all_ways(void) {
  stop_with_paused(COIR_STOP_DRAIN);
  stop_with_paused(COIR_STOP_CANCEL);
  stop_with_paused(COIR_STOP_ABANDON);
  stop_with_paused(STOP_HALT);
}

static void stops_find_paused_fibers(void) {
  stop_in_all_ways(); /* brings threads that stay */
  int before = thread_count();
  for (int i = 0; i < rounds(10); i++) stop_in_all_ways();
  WAIT_FOR(thread_count() <= before);
}

/* ---- Children -------------------------------------------------------------------------------------------------- */

static void wait_for_child(pid_t pid, int expected) {
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), expected);
}

static int makes_children(void *number) {
  char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"exit 3", NULL};
  for (int i = 0; i < 10; i++) {
    pid_t pid;
    hog_compute(100000);
    if (i % 2) {
      CHECK_EQ(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
      wait_for_child(pid, 3);
      continue;
    }
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0 && (intptr_t)number % 2) execv("/bin/sh", argv);
    if (pid == 0) { /* nobody is left to pause it, or to go on with it */
      hog_compute(1000000);
      int rc = coir_sleep(0);
      _exit((intptr_t)number % 2 == 0 && (rc == 0 || rc == -ENOTSUP) ? 3 : 4);
    }
    wait_for_child(pid, 3);
  }
  return 0;
}

static int hogs_with_children(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[4];
  struct hog hog = {.stop = &stop};
  atomic_store(&stop, false);
  struct coir_fiber *other = spawn(hog_run, &hog);
  for (intptr_t i = 0; i < 4; i++) fibers[i] = spawn(makes_children, (void *)i);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(fibers[i]), 0);
  atomic_store(&stop, true);
  CHECK_EQ(join(other), 0);
  CHECK(stats_here().preemptions > 0);
  return 0;
}

static void hogs_make_children(void) {
  struct coir_config config = PREEMPTIVE(1, 500);
  config.blocked_us = 0;
  CHECK_EQ(run_with(config, hogs_with_children, NULL), 0);
}

/* ---- A debugger ------------------------------------------------------------------------------------------------ */

#define STEPS 30

void debugger_stops_here(void);
__attribute__((noinline)) void debugger_stops_here(void) { __asm__ volatile("" ::: "memory"); }

static int computes_in_steps(void *unused) {
  (void)unused;
  for (int i = 0; i < STEPS; i++) {
    hog_compute(1000000);
    if (i % 10 == 9) debugger_stops_here();
  }
  return STEPS;
}

static int compute_in_steps(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[3];
  int sum = 0;
  for (int i = 0; i < 3; i++) fibers[i] = spawn(computes_in_steps, NULL);
  for (int i = 0; i < 3; i++) sum += join(fibers[i]);
  printf("steps: %d, pauses: %s\n", sum, stats_here().preemptions ? "some" : "none");
  return 0;
}

/* What the debugger runs. */
static void steps_for_the_debugger(void) {
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(2, 200), compute_in_steps, NULL), 0);
}

static size_t output_of(const char *command, char *text, size_t bytes) {
  FILE *pipe_end = popen(command, "r");
  CHECK(pipe_end);
  size_t n = fread(text, 1, bytes - 1, pipe_end);
  text[n] = 0;
  pclose(pipe_end);
  return n;
}

static int count_of(const char *text, const char *what) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) n++;
  return n;
}

#define LOOK_3 " -ex bt -ex c -ex bt -ex c -ex bt -ex c"

/* Stops at every tenth step, nine times, with a backtrace. */
static void a_debugger_is_attached(void) {
  static char text[1 << 20];
  char self[512], command[2048];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  CHECK(n > 0);
  self[n] = 0;
  if (IS_SANITIZED || system("command -v gdb > /dev/null")) {
    puts("skipped: there is no gdb, or a sanitizer is in its way");
    return;
  }
  snprintf(
      command, sizeof command,
      "timeout 60 gdb -nx -q -batch -ex 'set debuginfod enabled off' -ex 'break debugger_stops_here' -ex run" LOOK_3
          LOOK_3 LOOK_3 " --args '%s' steps_for_the_debugger < /dev/null 2>&1",
      self);
  output_of(command, text, sizeof text);
  if (strstr(text, "ptrace") || strstr(text, "not permitted") || strstr(text, "Exec format")) {
    puts("skipped: gdb may not trace here, or does not know this processor");
    return;
  }
  bool is_right = strstr(text, "steps: 90, pauses: some") && count_of(text, "computes_in_steps") >= 9;
  if (!is_right) fputs(text, stderr);
  CHECK(is_right);
}

int main(int argc, char **argv) {
  static const struct CMUnitTest cases[] = {
      CASE(the_programs_alarms_come),
      CASE(the_handler_gets_its_own_only),
      CASE(the_program_takes_the_signal_away),
      CASE(the_default_holds),
      CASE(two_runtimes_with_signals_of_their_own),
      CASE(runtimes_come_and_go),
      CASE(stops_find_paused_fibers),
      CASE(hogs_make_children),
      CASE(steps_for_the_debugger),
      CASE(a_debugger_is_attached),
  };
  return RUN_CASES(argc, argv, cases);
}
