/* Preemption of goroutines, as LIBCSP_PREEMPT asks for it: those that compute are paused when others are ready, and
 * notice nothing of it; and what happens without it. */
#include "csp_process.h"
#include "hogs.h"

#include <math.h>
#include <sys/time.h>

static struct coir_stats stats_now(void) { return stats_of(csp_runtime()); }

static void preempt_every(int us) {
  set_env("LIBCSP_PREEMPT", "1");
  set_env_number("COIR_QUANTUM_US", us);
  set_env("COIR_BUSY_US", "1000000"); /* so that it is preemption that helps */
}

static void one_worker(void) { set_env("LIBCSP_PRODUCTION", "0"); }

/* Calls fn(arg) in `n` goroutines at once, and waits for all. */
static void in_all(int n, void (*fn)(void *arg), void *arg) {
  csp_call_t calls[64];
  CHECK(n <= 64);
  for (int i = 0; i < n; i++) calls[i] = (csp_call_t){fn, arg};
  csp_sync_all(calls, (size_t)n);
}

/* fn() in a process of its own, which ends well. What it says on stderr goes to `text`. */
static void ends_well(void (*fn)(void), char *text, size_t bytes) {
  int status = in_child_process(fn, text, bytes);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
}

/* ---- One that never waits -------------------------------------------------------------------------------------- */

static _Atomic(bool) flag; /* read without order: what a compiler makes of it is what it makes of a volatile */

static void spins_on_flag(void *done) {
  while (!atomic_load_explicit(&flag, memory_order_relaxed)) {}
  csp_sync_waitgroup_done(done);
}

static void sets_flag(void *done) {
  atomic_store(&flag, true);
  csp_sync_waitgroup_done(done);
}

/* The first never gives way, and only the second could end it. */
static void spinner_and_setter(void) {
  csp_sync_waitgroup_t done = {{0}};
  atomic_store(&flag, false);
  csp_sync_waitgroup_add(&done, 2);
  go(spins_on_flag, &done);
  go(sets_flag, &done);
  csp_sync_waitgroup_wait(&done);
}

static int64_t time_of_spinner(void) {
  int64_t before = csp_timer_now();
  spinner_and_setter();
  return csp_timer_now() - before;
}

/* Two quanta are 20 ms, but a busy machine may take its time. */
static void a_spinner_gives_way(void) {
  int64_t best = COIR_NEVER;
  one_worker();
  preempt_every(10000);
  for (int i = 0; i < 5 && best > COIR_MS(100); i++) {
    int64_t ns = time_of_spinner();
    if (ns < best) best = ns;
  }
  printf("after %lld us\n", (long long)best / 1000);
  CHECK(best < COIR_MS(500)); /* by COIR_BUSY_US alone it would be a second */
  CHECK(stats_now().preemptions > 0);
}

static void without_preemption_it_is_handed_off(void) {
  one_worker();
  unsetenv("LIBCSP_PREEMPT");
  spinner_and_setter();
  CHECK_EQ(stats_now().preemptions, 0);
  CHECK(stats_now().handoffs > 0);
}

static void beside_a_goroutine(void *done) {
  spinner_and_setter();
  csp_sync_waitgroup_done(done);
}

/* Whoever asks for it: main above, a goroutine here. */
static void hogs_of_a_goroutine(void) {
  csp_sync_waitgroup_t done = {{0}};
  one_worker();
  preempt_every(1000);
  csp_sync_waitgroup_add(&done, 1);
  go(beside_a_goroutine, &done);
  csp_sync_waitgroup_wait(&done);
  CHECK(stats_now().preemptions > 0);
}

/* ---- The environment ------------------------------------------------------------------------------------------- */

static const struct setting {
  const char *preempt, *core, *signo; /* LIBCSP_PREEMPT, COIR_PREEMPT, LIBCSP_PREEMPT_SIGNAL */
  int used;                           /* the signal by which goroutines are paused; 0: they are not */
  bool is_told;                       /* that the signal cannot be used */
} settings[] = {
    {NULL, NULL, NULL, 0, false},       {"", NULL, NULL, 0, false},        {"0", NULL, NULL, 0, false},
    {"00", NULL, NULL, 0, false},       {"0", "1", NULL, 0, false},        {"", "1", NULL, SIGURG, false},
    {"1", NULL, NULL, SIGALRM, false},  {"1", "0", NULL, SIGALRM, false},  {"2", NULL, NULL, SIGALRM, false},
    {"on", NULL, NULL, SIGALRM, false}, {"0x", NULL, "", SIGALRM, false},  {"1", NULL, "10", 10, false},
    {"1", NULL, "40", 40, false},       {"1", NULL, "14", SIGALRM, false}, {"1", NULL, "9", SIGALRM, true},
    {"1", NULL, "0", SIGALRM, true},    {"1", NULL, "-1", SIGALRM, true},  {"1", NULL, "65", SIGALRM, true},
    {"1", NULL, "32", SIGALRM, true},   {"1", NULL, "11", SIGALRM, true},  {"1", NULL, "10 ", SIGALRM, true},
    {"1", NULL, "URG", SIGALRM, true},  {"0", NULL, "URG", 0, false},
};
static const struct setting *setting;

static void set_or_unset(const char *name, const char *value) {
  if (value) set_env(name, value);
  else unsetenv(name);
}

static bool is_handled(int signo) {
  struct sigaction now;
  CHECK_EQ(sigaction(signo, NULL, &now), 0);
  return now.sa_handler != SIG_DFL;
}

static void with_setting(void) {
  static const int signals[] = {SIGALRM, SIGURG, SIGUSR1, 40};
  one_worker();
  set_env("COIR_QUANTUM_US", "1000");
  set_env("COIR_BUSY_US", "20000");
  set_or_unset("LIBCSP_PREEMPT", setting->preempt);
  set_or_unset("COIR_PREEMPT", setting->core);
  set_or_unset("LIBCSP_PREEMPT_SIGNAL", setting->signo);
  spinner_and_setter();
  CHECK_EQ(stats_now().preemptions > 0, setting->used != 0);
  CHECK(stats_now().handoffs > 0);
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    CHECK_EQ(is_handled(signals[i]), signals[i] == setting->used);
}

static void what_the_environment_asks_for(void) {
  char text[4096];
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    setting = &settings[i];
    int status = in_child_process(with_setting, text, sizeof text);
    bool is_right = status == 0 && count_in(text, "\n") == setting->is_told &&
                    count_in(text, "csp: LIBCSP_PREEMPT_SIGNAL=") == setting->is_told;
    if (!is_right) fprintf(stderr, "setting %d: status 0x%x: %s\n", (int)i, (unsigned)status, text);
    CHECK(is_right);
  }
}

static void the_monitor_comes_with_it(void) {
  set_env("COIR_MONITOR", "0");
  one_worker();
  preempt_every(1000);
  spinner_and_setter();
  CHECK(stats_now().preemptions > 0);
}

/* ---- Who is paused --------------------------------------------------------------------------------------------- */

static int spins_as_fiber(void *done) { return spins_on_flag(done), 0; }
static int sets_as_fiber(void *done) { return sets_flag(done), 0; }

static int fibers_spin(void *done) {
  atomic_store(&flag, false);
  csp_sync_waitgroup_add(done, 2);
  struct coir_fiber *spinner = spawn(spins_as_fiber, done), *setter = spawn(sets_as_fiber, done);
  return join(spinner) + join(setter);
}

/* The fibers of other runtimes are not, neither of the default one, which other libraries use. */
static void goroutines_only(void) {
  csp_sync_waitgroup_t done = {{0}};
  one_worker();
  preempt_every(1000);
  spinner_and_setter();
  CHECK(stats_now().preemptions > 0);
  set_env("COIR_BUSY_US", "10000");
  set_workers(1);
  CHECK_EQ(coir_run(fibers_spin, &done), 0);
  CHECK_EQ(stats_of(coir_runtime_default()).preemptions, 0);
  CHECK(stats_of(coir_runtime_default()).handoffs > 0);
}

/* ---- Shares ---------------------------------------------------------------------------------------------------- */

#define HOGS_MAX 20

static _Atomic(bool) stop;
static struct hog hogs[HOGS_MAX];

static void is_hog(void *hog) { CHECK_EQ(hog_run(hog), 0); }

static void hogs_begin(int n) {
  CHECK(n <= HOGS_MAX);
  atomic_store(&stop, false);
  for (int i = 0; i < n; i++) {
    hogs[i] = (struct hog){.stop = &stop};
    go(is_hog, &hogs[i]);
  }
}

static void hogs_end(void) {
  atomic_store(&stop, true);
  until_no_goroutine();
}

static bool all_have_run(int n) {
  for (int i = 0; i < n; i++)
    if (atomic_load_explicit(&hogs[i].turns, memory_order_relaxed) == 0) return false;
  return true;
}

static double cpu_seconds(int n) {
  int64_t ns = 0;
  for (int i = 0; i < n; i++) ns += atomic_load_explicit(&hogs[i].cpu_ns, memory_order_relaxed);
  return (double)ns / 1e9;
}

/* The machine has other things to do, too: so the best of some tries. */
static void four_hogs_have_equal_shares(void) {
  double best = 0, least = 100;
  one_worker();
  preempt_every(4000);
  for (int i = 0; i < 4 && (best < 0.95 || least > 1.1); i++) {
    int64_t begin = csp_timer_now();
    hogs_begin(4);
    csp_hangup((uint64_t)COIR_MS(800));
    double share = jain(hogs, 4), cpus = cpu_seconds(4) * 1e9 / (double)(csp_timer_now() - begin);
    if (share > best) best = share;
    if (cpus < least) least = cpus;
    hogs_end();
  }
  printf("Jain's index %.3f, %.2f CPUs\n", best, least);
  CHECK(best > (PAUSES_ARE_SURE ? 0.9 : 0.5));
  if (PAUSES_ARE_SURE) CHECK(least < 1.15); /* of one worker */
  CHECK(stats_now().preemptions > 20);
}

/* ---- The others beside hogs ------------------------------------------------------------------------------------ */

static int64_t lateness; /* the least of some */

static void waits_with_limit(void) {
  csp_gochan_t *never = csp_gochan_new(0), *later = csp_time_after(COIR_MS(5));
  void *v = NULL;
  csp_select_case_t cases[] = {{.ch = never, .op = CSP_RECV, .val = &v}, {.ch = later, .op = CSP_RECV, .val = &v}};
  int64_t due = csp_timer_now() + COIR_MS(5);
  CHECK_EQ(csp_select(cases, 2), 1);
  int64_t late = csp_timer_now() - due;
  if (late < lateness) lateness = late;
  csp_gochan_free(never);
  csp_gochan_free(later);
}

static void is_awaited(void *wg) {
  csp_yield();
  csp_sync_waitgroup_done(wg);
}

static void waits_for_a_group(void) {
  csp_sync_waitgroup_t group = {{0}};
  int64_t before = csp_timer_now();
  csp_sync_waitgroup_add(&group, 3);
  for (int i = 0; i < 3; i++) go(is_awaited, &group);
  csp_sync_waitgroup_wait(&group);
  int64_t took = csp_timer_now() - before;
  if (took < lateness) lateness = took;
}

static void waits_for_a_context(void) {
  csp_context_t *ctx = csp_context_with_timeout(NULL, COIR_MS(5));
  int64_t due = csp_timer_now() + COIR_MS(5);
  csp_gochan_recv(csp_context_done(ctx), NULL);
  int64_t late = csp_timer_now() - due;
  if (late < lateness) lateness = late;
  csp_context_free(ctx);
}

static void (*const waits[])(void) = {waits_with_limit, waits_for_a_group, waits_for_a_context};

static void waits_again_and_again(void *done) {
  for (size_t k = 0; k < sizeof waits / sizeof *waits; k++) {
    lateness = COIR_NEVER;
    for (int i = 0; i < 10; i++) waits[k]();
    printf("wait %d: %lld us\n", (int)k, (long long)lateness / 1000);
    CHECK(lateness < COIR_MS(300));
  }
  csp_sync_waitgroup_done(done);
}

/* If each wait took its turn behind all hogs, it would be twenty quanta, 400 ms, at the least. */
static void waits_beside_hogs_are_timely(void) {
  csp_sync_waitgroup_t done = {{0}};
  one_worker();
  preempt_every(20000);
  hogs_begin(20);
  WAIT_FOR(all_have_run(20));
  csp_sync_waitgroup_add(&done, 1);
  go(waits_again_and_again, &done);
  csp_sync_waitgroup_wait(&done);
  hogs_end();
}

/* ---- What hogs may do ------------------------------------------------------------------------------------------ */

#define MEMBERS 6

static void fills_memory(uint64_t *rng) {
  size_t bytes = 1 + rng_next(rng) % 3000, more = bytes + rng_next(rng) % 3000;
  unsigned char mark = (unsigned char)rng_next(rng), *p = malloc(bytes);
  CHECK(p);
  memset(p, mark, bytes);
  p = realloc(p, more);
  CHECK(p);
  for (size_t i = 0; i < bytes; i++) CHECK_EQ(p[i], mark);
  free(p);
}

static __attribute__((noinline)) double series(double x) {
  double sum = 0;
  for (int i = 1; i < 200; i++) sum += sin(x / i) * sqrt(x + i) / (1 + x * i);
  return sum;
}

static FILE *book; /* that all write to */
static double expected[8];
static _Atomic(int) members;

static void does_it_all(void *lines) {
  int id = atomic_fetch_add(&members, 1);
  uint64_t rng = rng_seed((uint64_t)id + 1);
  for (int i = 0; i < (int)(intptr_t)lines; i++) {
    for (int k = 0; k < 20; k++) fills_memory(&rng);
    int k = i % 8;
    double got = series(k + 0.5);
    CHECK(got == expected[k]);
    CHECK(fprintf(book, "%d %d %.17g end\n", id, i, got) > 0);
  }
}

/* Every line is there, whole and in the order of who wrote it. */
static void check_book(int lines) {
  int next[MEMBERS] = {0}, total = 0, id, i;
  char line[128], end[8];
  double value;
  rewind(book);
  for (; fgets(line, sizeof line, book); total++) {
    CHECK_EQ(sscanf(line, "%d %d %lg %7s", &id, &i, &value, end), 4);
    CHECK(id >= 0 && id < MEMBERS && i == next[id]++);
    CHECK(value == expected[i % 8] && !strcmp(end, "end"));
  }
  CHECK_EQ(total, MEMBERS * lines);
}

static void hogs_full_of_malloc_printf_and_floats(void) {
  int lines = 0;
  preempt_every(200);
  for (int k = 0; k < 8; k++) expected[k] = series(k + 0.5);
  for (int round = 0; round == 0 || (stats_now().preemptions < 50 && round < 50); round++) {
    lines = rounds(300);
    book = tmpfile();
    CHECK(book);
    atomic_store(&members, 0);
    in_all(MEMBERS, does_it_all, number(lines));
    check_book(lines);
    fclose(book);
  }
  CHECK(stats_now().preemptions > 0 || runtime_num_workers() > 1);
}

static void computes_for(int64_t us) {
  for (int64_t end = csp_timer_now() + COIR_US(us); csp_timer_now() < end;) hog_compute(100);
}

static csp_gochan_t *chan;
static _Atomic(uint64_t) sent_sum, received_sum;
static _Atomic(int) senders_left, received;

static void sends_and_computes(void *n) {
  for (intptr_t i = 1; i <= (intptr_t)n; i++) {
    computes_for(i % 4 ? 20 : 700);
    CHECK(csp_gochan_send(chan, number(i)));
    atomic_fetch_add(&sent_sum, (uint64_t)i);
  }
  if (atomic_fetch_sub(&senders_left, 1) == 1) csp_gochan_close(chan);
}

static void receives_and_computes(void *arg) {
  (void)arg;
  for (;;) {
    bool ok;
    intptr_t v = (intptr_t)csp_gochan_recv(chan, &ok);
    if (!ok) return;
    atomic_fetch_add(&received_sum, (uint64_t)v);
    atomic_fetch_add(&received, 1);
    computes_for(v % 4 ? 20 : 700);
  }
}

static void channels_between_hogs_conserve_values(void) {
  static const size_t capacities[] = {0, 1, 16};
  preempt_every(200);
  for (int k = 0; k < 3; k++) {
    csp_call_t calls[8];
    int n = rounds(200);
    chan = csp_gochan_new(capacities[k]);
    sent_sum = received_sum = 0;
    received = 0;
    senders_left = 4;
    for (int i = 0; i < 8; i++)
      calls[i] = i % 2 ? (csp_call_t){sends_and_computes, number(n)} : (csp_call_t){receives_and_computes, NULL};
    csp_sync_all(calls, 8);
    CHECK_EQ(received, 4 * n);
    CHECK_EQ(received_sum, sent_sum);
    csp_gochan_free(chan);
  }
  CHECK(stats_now().preemptions > 0 || runtime_num_workers() > 1);
}

static csp_mutex_t spin_lock;
static csp_sync_mutex_t queue_lock;
static pthread_mutex_t thread_lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t spin_count, queue_count, thread_count; /* each under its lock */

/* Some of them are paused while they hold one, whichever it is. */
static void locks_and_computes(void *n) {
  for (int i = 0; i < (int)(intptr_t)n; i++) {
    int64_t us = i % 16 ? 5 : 400;
    csp_mutex_lock(&spin_lock);
    int64_t seen = spin_count;
    computes_for(us);
    spin_count = seen + 1;
    csp_mutex_unlock(&spin_lock);
    csp_sync_mutex_lock(&queue_lock);
    seen = queue_count;
    computes_for(us);
    queue_count = seen + 1;
    csp_sync_mutex_unlock(&queue_lock);
    CHECK_EQ(pthread_mutex_lock(&thread_lock), 0);
    seen = thread_count;
    computes_for(us);
    thread_count = seen + 1;
    CHECK_EQ(pthread_mutex_unlock(&thread_lock), 0);
  }
}

static void hogs_hold_locks(void) {
  int n = rounds(100);
  preempt_every(200);
  csp_sync_mutex_init(&queue_lock);
  in_all(MEMBERS, locks_and_computes, number(n));
  CHECK_EQ(spin_count, MEMBERS * n);
  CHECK_EQ(queue_count, MEMBERS * n);
  CHECK_EQ(thread_count, MEMBERS * n);
  CHECK(stats_now().preemptions > 0 || runtime_num_workers() > 1);
}

static _Atomic(int) blocks;

/* What is inside the block stays on its thread. */
static void blocks_and_computes(void *n) {
  struct timespec brief = {.tv_nsec = 200000};
  for (int i = 0; i < (int)(intptr_t)n; i++) {
    int before = 0, after = 0, saved = 0;
    computes_for(300);
    csp_block(before = hog_tid(); errno = 0; computes_for(300); nanosleep(&brief, NULL); saved = errno;
              after = hog_tid());
    CHECK(before == after && before > 0);
    CHECK_EQ(saved, 0);
    computes_for(300);
    atomic_fetch_add(&blocks, 1);
  }
}

static void hogs_block(void) {
  int n = rounds(60);
  preempt_every(200);
  in_all(MEMBERS, blocks_and_computes, number(n));
  CHECK_EQ(blocks, MEMBERS * n);
  CHECK(stats_now().handoffs >= (uint64_t)(MEMBERS * n));
}

/* ---- SIGALRM of the program ------------------------------------------------------------------------------------ */

static _Atomic(int) alarms;

static void on_alarm(int signo) {
  CHECK_EQ(signo, SIGALRM);
  atomic_fetch_add(&alarms, 1);
}

static void alarm_every(int us) {
  struct itimerval every = {.it_interval = {.tv_usec = us}, .it_value = {.tv_usec = us}};
  CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
}

/* An alarm that comes while the last one has not been taken is one with it, so a busy machine makes fewer; but none is
 * made up. So many pauses, each by a SIGALRM, would be three times as many. */
static void the_programs_alarms_come(void) {
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  int best = 0;
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  one_worker();
  preempt_every(1000);
  for (int i = 0; i < 5 && best < 75; i++) {
    csp_scheduler_init(0);
    uint64_t before = stats_now().preemptions;
    atomic_store(&alarms, 0);
    int64_t begin = csp_timer_now();
    alarm_every(5000);
    hogs_begin(4);
    csp_hangup((uint64_t)COIR_MS(400));
    int ticks = (int)((csp_timer_now() - begin) / COIR_MS(5)), seen = atomic_load(&alarms);
    alarm_every(0);
    hogs_end();
    CHECK(stats_now().preemptions > before);
    CHECK(seen <= ticks + 2);
    if (seen * 100 / ticks > best) best = seen * 100 / ticks;
  }
  printf("%d %% of the alarms\n", best);
  CHECK(best > 40);
}

static void is_ended_by_alarm(void) {
  CHECK(signal(SIGALRM, SIG_DFL) != SIG_ERR);
  one_worker();
  preempt_every(500);
  csp_scheduler_init(0);
  alarm_every(30000);
  hogs_begin(4);
  for (;;) csp_hangup((uint64_t)COIR_SEC(1));
}

static void ignores_alarms(void) {
  CHECK(signal(SIGALRM, SIG_IGN) != SIG_ERR);
  one_worker();
  preempt_every(500);
  csp_scheduler_init(0);
  alarm_every(1000);
  hogs_begin(4);
  csp_hangup((uint64_t)COIR_MS(50));
  WAIT_FOR(stats_now().preemptions > 5);
  alarm_every(0);
  hogs_end();
}

static void without_a_handler_an_alarm_does_what_it_did(void) {
  char text[4096];
  int status = in_child_process(is_ended_by_alarm, text, sizeof text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
  ends_well(ignores_alarms, text, sizeof text);
}

/* A program that takes the signal for itself later on: hogs are handed off, and the alarms are the program's. */
static void the_program_takes_the_signal(void) {
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  one_worker();
  preempt_every(1000);
  set_env("COIR_BUSY_US", "5000");
  csp_scheduler_init(0);
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  spinner_and_setter();
  CHECK_EQ(stats_now().preemptions, 0);
  CHECK(stats_now().handoffs > 0);
  CHECK_EQ(alarms, 0);
  CHECK_EQ(kill(getpid(), SIGALRM), 0);
  WAIT_FOR(atomic_load(&alarms) == 1);
}

/* ---- The end, and forks ---------------------------------------------------------------------------------------- */

static void ends_in_time(void *arg) {
  computes_for(20000);
  atomic_fetch_add((_Atomic(int) *)arg, 1);
}

/* Some are paused when the stop comes. */
static void a_stop_waits_for_paused_ones(void) {
  _Atomic(int) ended = 0;
  preempt_every(1000);
  int before = threads_now();
  for (int round = 1; round <= 3; round++) {
    for (int i = 0; i < 10; i++) go(ends_in_time, (void *)&ended);
    csp_scheduler_stop();
    CHECK_EQ(ended, 10 * round);
    WAIT_FOR(threads_now() == before);
  }
}

static void until_some_are_paused(void) {
  preempt_every(500);
  one_worker();
  hogs_begin(5);
  WAIT_FOR(stats_now().preemptions > 10);
}

static void main_exits(void) {
  until_some_are_paused();
  exit(0);
}

static void exits(void *arg) {
  (void)arg;
  exit(0);
}

static void a_goroutine_exits(void) {
  until_some_are_paused();
  go(exits, NULL);
  for (;;) sleep(1);
}

static void a_process_ends_beside_paused_ones(void) {
  char text[4096];
  ends_well(main_exits, text, sizeof text);
  ends_well(a_goroutine_exits, text, sizeof text);
}

/* It has neither hogs nor monitor of its parent's, and begins anew. */
static void fork_a_child(void) {
  int status = -1;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(20);
    spinner_and_setter();
    _exit(stats_now().preemptions > 0 ? 7 : 1);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 7);
}

static void forks(void *arg) {
  (void)arg;
  for (int i = 0; i < 5; i++) {
    computes_for(300);
    fork_a_child();
  }
}

static void children_preempt_their_own(void) {
  if (IS_SANITIZED) return; /* their own locks do not survive a fork beside other threads */
  until_some_are_paused();
  for (int i = 0; i < 10; i++) fork_a_child();
  in_all(3, forks, NULL);
  hogs_end();
}

/* ---- Threads, and what the dump says of all this --------------------------------------------------------------- */

struct told {
  int goroutines, workers, threads;
  unsigned long long spares, handoffs, preempted, stalls;
  long long longest_us;
};

static struct told read_dump(void) {
  char text[4096] = "";
  struct told t;
  FILE *file = tmpfile();
  CHECK(file);
  fflush(stdout);
  int saved = dup(STDOUT_FILENO);
  CHECK(saved >= 0 && dup2(fileno(file), STDOUT_FILENO) >= 0);
  runtime_dump();
  CHECK(pread(fileno(file), text, sizeof text - 1, 0) > 0 && dup2(saved, STDOUT_FILENO) >= 0);
  close(saved);
  fclose(file);
  CHECK_EQ(sscanf(text,
                  "Runtime Stats:\n  Goroutines: %d\n  Workers:    %d\n  Threads:    %d\n  Spares:     %llu\n"
                  "  Hand-offs:  %llu\n  Preempted:  %llu\n  Stalls:     %llu, longest %lld us\n",
                  &t.goroutines, &t.workers, &t.threads, &t.spares, &t.handoffs, &t.preempted, &t.stalls,
                  &t.longest_us),
           8);
  return t;
}

static void the_dump_tells_of_preemption(void) {
  one_worker();
  preempt_every(1000);
  csp_scheduler_init(0);
  struct coir_stats before = stats_now(), after;
  struct told told = read_dump();
  CHECK(told.preempted == 0 && told.handoffs == 0 && told.longest_us == 0);
  hogs_begin(5);
  WAIT_FOR(all_have_run(5) && stats_now().preemptions > before.preemptions + 10);
  before = stats_now();
  told = read_dump();
  after = stats_now();
  CHECK_EQ(told.goroutines, 5);
  CHECK(told.preempted >= before.preemptions && told.preempted <= after.preemptions);
  CHECK(told.handoffs >= before.handoffs && told.handoffs <= after.handoffs);
  CHECK(told.stalls >= before.stalls && told.stalls <= after.stalls);
#ifndef COIR_HARD /* where the monitor has much shorter bounds */
  CHECK(told.longest_us >= 1000);
#endif
  CHECK(told.longest_us > 0 && told.longest_us <= after.longest_stall_ns / 1000);
  CHECK(told.spares >= 4 && told.threads >= 6); /* each is on a thread of its own, and main */
  hogs_end();
}

/* Hogs beyond the bound run longer at a stretch, and all come to their turn. */
static void threads_are_bounded(void) {
  _Atomic(int) ended = 0;
  one_worker();
  preempt_every(500);
  set_env("COIR_BUSY_US", "2000");
  set_env("COIR_SPARES_MAX", "4");
  int before = threads_now();
  csp_scheduler_init(0);
  int started = threads_now();
  CHECK(started > before);
  for (int i = 0; i < 20; i++) go(ends_in_time, (void *)&ended);
  for (; runtime_num_goroutines() > 0; csp_hangup((uint64_t)COIR_MS(1))) {
    struct told told = read_dump();
    CHECK(told.spares <= 4);
    CHECK(told.threads <= started + 4);
  }
  CHECK_EQ(ended, 20);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(a_spinner_gives_way),
      CASE(without_preemption_it_is_handed_off),
      CASE(hogs_of_a_goroutine),
      CASE(what_the_environment_asks_for),
      CASE(the_monitor_comes_with_it),
      CASE(goroutines_only),
      CASE(four_hogs_have_equal_shares),
      CASE(waits_beside_hogs_are_timely),
      CASE(hogs_full_of_malloc_printf_and_floats),
      CASE(channels_between_hogs_conserve_values),
      CASE(hogs_hold_locks),
      CASE(hogs_block),
      CASE(the_programs_alarms_come),
      CASE(without_a_handler_an_alarm_does_what_it_did),
      CASE(the_program_takes_the_signal),
      CASE(a_stop_waits_for_paused_ones),
      CASE(a_process_ends_beside_paused_ones),
      CASE(children_preempt_their_own),
      CASE(the_dump_tells_of_preemption),
      CASE(threads_are_bounded),
  };
  return RUN_CASES(argc, argv, cases);
}
