/* The end of the process, in every way that programs choose: exit() by a goroutine under either way of keeping main
 * waiting, main's return, _exit. The exit status is exact, handlers run once, what was printed is there, and nothing
 * hangs, whatever other goroutines are doing.
 *
 * Each run is this program again, with the name of a scene as argument. */
#include "csp_process.h"

#include <poll.h>
#include <spawn.h>

/* ---- What the scenes are made of ------------------------------------------------------------------------------- */

static void says(const char *text) { CHECK_EQ(write(STDOUT_FILENO, text, strlen(text)), strlen(text)); }

static void at_exit_first(void) { says("[first]"); }
static void at_exit_second(void) { says("[second]"); }

static bool on_stage;

/* As a C++ object of static storage would. */
static __attribute__((destructor)) void destructor(void) {
  if (on_stage) says("[destructor]");
}

static csp_gochan_t *crowd;

static void computes(void *arg) {
  for (volatile uint64_t *n = arg;; csp_yield())
    for (int i = 0; i < 1000; i++) ++*n;
}

static void sends(void *arg) {
  while (csp_gochan_send(crowd, arg)) {}
}

static void receives(void *arg) {
  for (bool ok = true; ok;) csp_gochan_recv(crowd, &ok);
  (void)arg;
}

static void sleeps(void *arg) {
  (void)arg;
  for (;;) csp_hangup((uint64_t)COIR_US(50));
}

static void waits_for_time(void *arg) {
  (void)arg;
  for (;;) {
    csp_gochan_t *ch = csp_time_after(COIR_US(20));
    csp_gochan_recv(ch, NULL);
    csp_gochan_free(ch);
  }
}

static void is_in_a_call(void *arg) {
  (void)arg;
  for (struct timespec t = {.tv_nsec = 200000};;) csp_block(nanosleep(&t, NULL));
}

static void never_goes_on(void *arg) {
  (void)arg;
  csp_gochan_recv(NULL, NULL);
}

/* Goroutines that do something of everything. */
static void make_crowd(void) {
  static uint64_t numbers[2];
  crowd = csp_gochan_new(1);
  for (int i = 0; i < 2; i++) {
    go(computes, &numbers[i]);
    go(sends, NULL);
    go(receives, NULL);
    go(sleeps, NULL);
    go(waits_for_time, NULL);
    go(never_goes_on, NULL);
  }
  go(is_in_a_call, NULL);
}

/* ---- Scenes ---------------------------------------------------------------------------------------------------- */

static int code; /* what the process is to exit with */

static void real_main(void *arg) {
  (void)arg;
  make_crowd();
  csp_hangup((uint64_t)COIR_US(300));
  printf("[main]");
  exit(code);
}

static int sleeping_main(void) {
  csp_proc_create(0, real_main, NULL);
  while (1) sleep(1);
  return 99;
}

static int core_main(void) {
  extern _Thread_local csp_core_t *csp_this_core;
  extern void *csp_core_run(void *data);
  csp_proc_create(0, real_main, NULL);
  csp_core_run(csp_this_core);
  return 99;
}

/* The workers are started by it, if by nobody else. */
static void *creates_later(void *arg) {
  usleep(1000);
  csp_proc_create(3, real_main, arg);
  return NULL;
}

static int core_first(void) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, creates_later, NULL), 0);
  CHECK_EQ(pthread_detach(thread), 0);
  csp_core_run(NULL);
  return 99;
}

static int main_returns(void) {
  make_crowd();
  csp_hangup((uint64_t)COIR_US(300));
  printf("[main]");
  return code;
}

static void exits_now(void *arg) {
  (void)arg;
  printf("[main]");
  exit(code);
}

static int exit_at_once(void) {
  csp_proc_create(0, exits_now, NULL);
  while (1) sleep(1);
  return 99;
}

/* Each handler makes calls that wait, and so may move the goroutine. */
static void adds_one(void *n) { atomic_fetch_add((_Atomic(int) *)n, 1); }

static void at_exit_works(void) {
  _Atomic(int) n = 0;
  csp_call_t calls[10];
  for (int i = 0; i < 10; i++) calls[i] = (csp_call_t){adds_one, (void *)&n};
  csp_sync_all(calls, 10);
  csp_yield();
  csp_hangup(10000);
  CHECK_EQ(n, 10);
  says("[worked]");
}

static int handlers_work(void) {
  atexit(at_exit_works);
  return sleeping_main();
}

static void leaves_at_once(void *arg) {
  (void)arg;
  make_crowd();
  printf("[main]");
  fflush(stdout);
  _exit(code);
}

static int without_handlers(void) {
  csp_proc_create(0, leaves_at_once, NULL);
  csp_core_run(csp_this_core);
  return 99;
}

/* While another thread waits for the last goroutine to end. */
static void *waits_for_end(void *arg) {
  csp_scheduler_stop();
  return arg;
}

static int during_stop(void) {
  pthread_t thread;
  csp_proc_create(0, real_main, NULL);
  CHECK_EQ(pthread_create(&thread, NULL, waits_for_end, NULL), 0);
  CHECK_EQ(pthread_detach(thread), 0);
  while (1) sleep(1);
  return 99;
}

static int stopped_before(void) {
  csp_proc_create(0, (void (*)(void *))csp_gochan_close, NULL);
  csp_scheduler_stop();
  printf("[main]");
  return code;
}

/* stdout is a pipe, so what was printed comes at the very end. */
#define ENDED "[second][first][destructor][main]"

static const struct scene {
  const char *name;
  int (*run)(void);
  const char *text;
} scenes[] = {
    {"sleeping_main", sleeping_main, ENDED},
    {"core_main", core_main, ENDED},
    {"core_first", core_first, ENDED},
    {"main_returns", main_returns, ENDED},
    {"exit_at_once", exit_at_once, ENDED},
    {"handlers_work", handlers_work, "[worked]" ENDED},
    {"without_handlers", without_handlers, "[main]"},
    {"during_stop", during_stop, ENDED},
    {"stopped_before", stopped_before, ENDED},
};
enum { SCENES = sizeof scenes / sizeof *scenes };

static int play(const char *name, const char *code_text) {
  on_stage = true;
  code = atoi(code_text);
  atexit(at_exit_first);
  atexit(at_exit_second);
  for (int i = 0; i < SCENES; i++)
    if (!strcmp(name, scenes[i].name)) return scenes[i].run();
  return 98;
}

/* ---- Looking on ------------------------------------------------------------------------------------------------ */

#define HANG_MS 30000

/* All that comes from `fd` until its end, as a string; false when the end does not come. */
static bool read_all(int fd, char *text, size_t bytes) {
  size_t n = 0;
  for (;;) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc = poll(&p, 1, HANG_MS);
    CHECK(rc >= 0 && n + 1 < bytes);
    ssize_t got = rc ? read(fd, text + n, bytes - n - 1) : 0;
    CHECK(got >= 0);
    text[n += (size_t)got] = 0;
    if (got == 0) return rc != 0;
  }
}

static void run_once(const struct scene *scene, int want) {
  extern char **environ;
  char number_text[16], text[256], *argv[] = {(char *)"csp_exit", (char *)scene->name, number_text, NULL};
  int fds[2], status = 0;
  pid_t pid;
  posix_spawn_file_actions_t actions;
  snprintf(number_text, sizeof number_text, "%d", want);
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(posix_spawn_file_actions_init(&actions), 0);
  CHECK_EQ(posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO), 0);
  CHECK_EQ(posix_spawn_file_actions_addclose(&actions, fds[0]), 0);
  CHECK_EQ(posix_spawn_file_actions_addclose(&actions, fds[1]), 0);
  CHECK_EQ(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  bool ended = read_all(fds[0], text, sizeof text);
  close(fds[0]);
  if (!ended) kill(pid, SIGABRT);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  if (!ended || !WIFEXITED(status) || WEXITSTATUS(status) != want || strcmp(text, scene->text) != 0) {
    fprintf(stderr, "%s %d: %s, status 0x%x, \"%s\"\n", scene->name, want, ended ? "ended" : "hangs", status, text);
    abort();
  }
}

static void scene_ends_well(void **state) {
  static const int codes[] = {0, 1, 2, 42, 127, 128, 200, 255};
  for (int i = 0; i < rounds(24); i++) run_once(*state, codes[i % 8]);
}

/* Scenes end in the midst of things, and what goroutines hold then is not lost. */
static void look_for_no_leaks(void) {
  char text[512];
  const char *options = getenv("ASAN_OPTIONS");
  snprintf(text, sizeof text, "%s:detect_leaks=0", options ? options : "");
  set_env("ASAN_OPTIONS", text);
}

int main(int argc, char **argv) {
  struct CMUnitTest tests[SCENES] = {0};
  if (argc == 3) return play(argv[1], argv[2]);
  for (int i = 0; i < SCENES; i++)
    tests[i] = (struct CMUnitTest){scenes[i].name, scene_ends_well, NULL, NULL, (void *)&scenes[i]};
  look_for_no_leaks();
  return _cmocka_run_group_tests("csp_exit", tests, SCENES, NULL, NULL);
}
