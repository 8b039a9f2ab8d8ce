/* The environment: each variable with good, extreme and meaningless values; the number of pollers. */
#include "gof_test.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>

static const char *const variables[] = {
    "GOF_NWORKERS",       "GOF_WORKSTEAL", "GOF_STEAL_MIN_LIVE", "GOF_STEAL_MIN_VICTIM",    "GOF_NPOLLERS",
    "GOF_POLL_PARTITION", "GOF_AFFINITY",  "GOF_REBALANCE",      "GOF_REBALANCE_THRESHOLD", "GOF_REBALANCE_INTERVAL_MS",
};

static void clear_environment(void) {
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) unsetenv(variables[i]);
}

/* What each variable is seen as, in the order of the list above. */
static int seen(int variable) {
  gof_sched_stats s = stats_now();
  const int values[] = {
      s.nworkers, s.enable_steal,    s.steal_min_live,   s.steal_min_victim,    gof_get_npollers(),
      -1,         s.affinity_enable, s.rebalance_enable, s.rebalance_threshold, s.rebalance_interval_ms,
  };
  return values[variable];
}

enum { NWORKERS, WORKSTEAL, MIN_LIVE, MIN_VICTIM, NPOLLERS, PARTITION, AFFINITY, REBALANCE, THRESHOLD, INTERVAL };

#define ANY (-2)
static const int standards[] = {ANY, 1, 4, 3, 1, -1, 1, 0, 4, 10};

static const struct value {
  int variable;
  const char *text;
  int seen;
} values[] = {
    {NWORKERS, "1", 1},     {NWORKERS, "3", 3},        {NWORKERS, "64", 64},
    {NWORKERS, "65", 64},   {NWORKERS, "1000000", 64}, {NWORKERS, "99999999999999999999999", 64},
    {NWORKERS, "0", 1},     {NWORKERS, "-1", 1},       {NWORKERS, "-99999999999999999999999", 1},
    {NWORKERS, "", ANY},    {NWORKERS, "many", ANY},   {WORKSTEAL, "0", 0},
    {WORKSTEAL, "1", 1},    {WORKSTEAL, "2", 1},       {WORKSTEAL, "4294967296", 1},
    {WORKSTEAL, "", 1},     {WORKSTEAL, "yes", 1},     {MIN_LIVE, "0", 0},
    {MIN_LIVE, "17", 17},   {MIN_LIVE, "-1", 4},       {MIN_LIVE, "-4000000000", 4},
    {MIN_LIVE, "few", 4},   {MIN_VICTIM, "2", 2},      {MIN_VICTIM, "17", 17},
    {MIN_VICTIM, "1", 2},   {MIN_VICTIM, "0", 2},      {MIN_VICTIM, "-5", 2},
    {MIN_VICTIM, "few", 3}, {AFFINITY, "0", 0},        {AFFINITY, "1", 1},
    {AFFINITY, "9", 1},     {AFFINITY, "", 1},         {AFFINITY, "no", 1},
    {REBALANCE, "0", 0},    {REBALANCE, "1", 1},       {REBALANCE, "7", 1},
    {REBALANCE, "", 0},     {REBALANCE, "now", 0},     {THRESHOLD, "9", 9},
    {THRESHOLD, "1", 1},    {THRESHOLD, "0", 1},       {THRESHOLD, "-9", 1},
    {THRESHOLD, "low", 4},  {INTERVAL, "25", 25},      {INTERVAL, "1", 1},
    {INTERVAL, "0", 1},     {INTERVAL, "-9", 1},       {INTERVAL, "often", 10},
    {NPOLLERS, "0", 1},     {NPOLLERS, "-3", 1},       {NPOLLERS, "none", 1},
};

static _Atomic(int) count;

static void counts(void *arg) {
  (void)arg;
  gof_yield();
  gof_sleep_ms(1);
  atomic_fetch_add(&count, 1);
}

/* A few fibers run to their end, whatever the settings. */
static void works(void) {
  for (int i = 0; i < 20; i++) go(counts, NULL);
  gof_run();
  CHECK_EQ(count, 20);
}

static const struct value *value;

static void one_value(void) {
  set_env(variables[value->variable], value->text);
  for (int i = NWORKERS; i <= INTERVAL; i++) {
    int want = i == value->variable ? value->seen : standards[i], got = seen(i);
    if (want != ANY && got != want) {
      fprintf(stderr, "%s=%s: %s is %d, not %d\n", variables[value->variable], value->text, variables[i], got, want);
      abort();
    }
    if (i == NWORKERS) CHECK(got >= 1 && got <= 64);
  }
  works();
}

static void each_value_is_understood(void) {
  char text[4096];
  clear_environment();
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    value = &values[i];
    int status = in_child_process(one_value, text, sizeof text);
    if (status) fprintf(stderr, "%s=%s: %s\n", variables[value->variable], value->text, text);
    CHECK_EQ(status, 0);
  }
}

static void without_variables_the_defaults_count(void) {
  clear_environment();
  for (int i = WORKSTEAL; i <= INTERVAL; i++) CHECK_EQ(seen(i), standards[i]);
  works();
}

/* At most as many workers as CPUs that the process may use. */
static void the_number_of_workers_is_chosen(void) {
  cpu_set_t cpus;
  clear_environment();
  CHECK_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
  CHECK(worker_count() >= 1 && worker_count() <= CPU_COUNT(&cpus));
}

static void all_variables_at_once(void) {
  static const char *const texts[] = {"4", "0", "6", "7", "2", "0", "0", "1", "8", "9"};
  static const int wants[] = {4, 0, 6, 7, 2, -1, 0, 1, 8, 9};
  for (int i = NWORKERS; i <= INTERVAL; i++) set_env(variables[i], texts[i]);
  for (int i = NWORKERS; i <= INTERVAL; i++) CHECK_EQ(seen(i), wants[i]);
  works();
}

/* It is read when the runtime is made, and never again. */
static void the_environment_is_read_once(void) {
  clear_environment();
  set_env("GOF_NWORKERS", "3");
  set_env("GOF_STEAL_MIN_LIVE", "11");
  gof_init(0);
  set_env("GOF_NWORKERS", "5");
  set_env("GOF_STEAL_MIN_LIVE", "12");
  set_env("GOF_AFFINITY", "0");
  gof_init(0);
  CHECK_EQ(seen(NWORKERS), 3);
  CHECK_EQ(seen(MIN_LIVE), 11);
  CHECK_EQ(seen(AFFINITY), 1);
  works();
  CHECK_EQ(seen(NWORKERS), 3);
}

static void a_call_counts_after_the_environment(void) {
  clear_environment();
  set_env("GOF_WORKSTEAL", "0");
  set_env("GOF_AFFINITY", "0");
  set_env("GOF_REBALANCE", "1");
  gof_set_steal_params(&(gof_steal_params){1, 2, 3});
  gof_set_affinity_enabled(1);
  gof_set_rebalance_params(&(gof_rebalance_params){0, 2, 3});
  CHECK_EQ(seen(WORKSTEAL), 1);
  CHECK_EQ(seen(AFFINITY), 1);
  CHECK_EQ(seen(REBALANCE), 0);
  works();
}

/* ---- Pollers ----------------------------------------------------------------------------------------------------- */

static void refuse_preset(int n, int code) {
  errno = 0;
  CHECK_EQ(gof_set_npollers(n), -1);
  CHECK_EQ(errno, code);
}

static void pollers_can_be_preset(void) {
  clear_environment();
  set_workers(8);
  CHECK_EQ(gof_get_npollers(), 1);
  refuse_preset(0, EINVAL);
  refuse_preset(-1, EINVAL);
  refuse_preset(INT_MIN, EINVAL);
  CHECK_EQ(gof_get_npollers(), 1);
  CHECK_EQ(gof_set_npollers(5), 0);
  CHECK_EQ(gof_get_npollers(), 5);
  refuse_preset(0, EINVAL);
  CHECK_EQ(gof_set_npollers(3), 0);
  CHECK_EQ(gof_get_npollers(), 3);
  gof_init(0);
  CHECK_EQ(gof_get_npollers(), 3);
  refuse_preset(2, EBUSY);
  refuse_preset(3, EBUSY);
  refuse_preset(0, EINVAL);
  CHECK_EQ(gof_get_npollers(), 3);
  works();
  refuse_preset(2, EBUSY);
  CHECK_EQ(gof_get_npollers(), 3);
}

static void the_preset_counts_before_the_environment(void) {
  clear_environment();
  set_workers(8);
  set_env("GOF_NPOLLERS", "6");
  CHECK_EQ(gof_set_npollers(2), 0);
  works();
  CHECK_EQ(gof_get_npollers(), 2);
}

static void a_preset_of_one_counts_too(void) {
  clear_environment();
  set_workers(8);
  set_env("GOF_NPOLLERS", "6");
  CHECK_EQ(gof_set_npollers(1), 0);
  works();
  CHECK_EQ(gof_get_npollers(), 1);
}

static void the_environment_sets_pollers(void) {
  clear_environment();
  set_workers(8);
  set_env("GOF_NPOLLERS", "6");
  CHECK_EQ(gof_get_npollers(), 1); /* not yet read */
  gof_init(0);
  CHECK_EQ(gof_get_npollers(), 6);
  works();
}

static void at_most_one_poller_for_a_worker(void) {
  clear_environment();
  set_workers(3);
  CHECK_EQ(gof_set_npollers(INT_MAX), 0);
  gof_init(0);
  CHECK_EQ(gof_get_npollers(), 3);
  works();
}

static void that_holds_for_the_environment_too(void) {
  clear_environment();
  set_workers(2);
  set_env("GOF_NPOLLERS", "1000");
  gof_init(0);
  CHECK_EQ(gof_get_npollers(), 2);
  works();
}

/* ---- Any settings together --------------------------------------------------------------------------------------- */

static int combination;

static void one_combination(void) {
  static const char *const workers[] = {"1", "2", "5"}, *const pollers[] = {"1", "2", "4"};
  int c = combination;
  clear_environment();
  set_env("GOF_NWORKERS", workers[c % 3]);
  c /= 3;
  set_env("GOF_NPOLLERS", pollers[c % 3]);
  c /= 3;
  set_env_number("GOF_POLL_PARTITION", c & 1);
  set_env_number("GOF_AFFINITY", c >> 1 & 1);
  set_env_number("GOF_WORKSTEAL", c >> 2 & 1);
  set_env_number("GOF_REBALANCE", c >> 2 & 1);
  set_env("GOF_REBALANCE_INTERVAL_MS", "1");
  set_env("GOF_STEAL_MIN_LIVE", "0");
  for (int i = 0; i < 3; i++) {
    atomic_store(&count, 0);
    works();
  }
}

static void nothing_hangs_with_any_settings(void) {
  char text[4096];
  for (combination = 0; combination < 3 * 3 * 8; combination++) {
    int status = in_child_process(one_combination, text, sizeof text);
    if (status) fprintf(stderr, "combination %d: %s\n", combination, text);
    CHECK_EQ(status, 0);
  }
}

/* ---- While it is read -------------------------------------------------------------------------------------------- */

static _Atomic(pid_t) initializer;

static void *inits(void *arg) {
  atomic_store(&initializer, gettid());
  gof_init(0);
  return arg;
}

static bool is_asleep(pid_t tid) {
  char path[64], line[512] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
  FILE *f = fopen(path, "r");
  CHECK(f && fgets(line, sizeof line, f));
  fclose(f);
  const char *state = strrchr(line, ')');
  return state && state[1] && state[2] == 'S';
}

static void begins_anew(void) {
  unsetenv("GOF_NWORKERS");
  works();
}

/* A thread is in the midst of making the runtime, and the child of a fork makes one of its own. Here the thread says
 * that a value is no number, and nobody reads that. */
static void a_fork_meanwhile(void) {
  static char much[4096];
  char text[4096];
  pthread_t thread;
  int fds[2], before = dup(STDERR_FILENO);
  if (IS_SANITIZED) return; /* their own locks do not survive a fork beside other threads */
  clear_environment();
  set_env("GOF_NWORKERS", "abc");
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
  while (write(fds[1], much, sizeof much) > 0) {}
  CHECK_EQ(fcntl(fds[1], F_SETFL, 0), 0);
  CHECK_EQ(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
  CHECK_EQ(pthread_create(&thread, NULL, inits, NULL), 0);
  WAIT_FOR(initializer && is_asleep(initializer));
  int status = in_child_process(begins_anew, text, sizeof text);
  CHECK_EQ(dup2(before, STDERR_FILENO), STDERR_FILENO);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
  CHECK_EQ(read(fds[0], much, sizeof much), sizeof much);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  works();
}

/* ---- Where another runtime is simulated ------------------------------------------------------------------------ */

static int uses_it(void *unused) {
  (void)unused;
  return gof_runtime() ? 0 : 1;
}

static void the_first_use_in_a_simulation(void) { in_simulations(uses_it); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(each_value_is_understood),        CASE(without_variables_the_defaults_count),
      CASE(the_number_of_workers_is_chosen), CASE(all_variables_at_once),
      CASE(the_environment_is_read_once),    CASE(a_call_counts_after_the_environment),
      CASE(pollers_can_be_preset),           CASE(the_preset_counts_before_the_environment),
      CASE(a_preset_of_one_counts_too),      CASE(the_environment_sets_pollers),
      CASE(at_most_one_poller_for_a_worker), CASE(that_holds_for_the_environment_too),
      CASE(nothing_hangs_with_any_settings), CASE(a_fork_meanwhile),
      CASE(the_first_use_in_a_simulation),
  };
  return RUN_CASES(argc, argv, cases);
}
