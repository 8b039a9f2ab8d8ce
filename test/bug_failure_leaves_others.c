/* A job that failed in what coir_flight_do had called left its frame in the flight's table: whoever asked for the same
 * key next read what lay there by then. In coir_once_do, of which only that was known to be wrong, it left all others
 * waiting for ever; and so did coir_exit. Now each of them says so, and aborts. */
#include "jobs.h"

static struct coir_once once;
static struct coir_flight flight;
static struct coir_result result;

static void nothing(void *arg) { (void)arg; }
static void fails(void *arg) {
  (void)arg;
  coir_job_fail("on purpose");
}
static void exits(void *arg) {
  (void)arg;
  coir_exit(1, NULL);
}
static void fails_in_a_fork(void *arg) { (void)coir_fork2(fails, arg, nothing, arg); }

/* ---- What aborts ------------------------------------------------------------------------------------------------- */

static void (*what)(void *arg);

static int flight_work(void *arg, void **value) {
  what(arg);
  return value == NULL;
}
static void in_flight(void *arg) { (void)coir_flight_do(&flight, "key", 3, flight_work, arg, &result, COIR_NEVER); }
static void in_once(void *arg) { (void)coir_once_do(&once, what, arg, COIR_NEVER); }

static void (*call)(void *arg); /* one of these two */

static void is_job(struct coir_job *job, void *arg) {
  (void)job;
  call(arg);
}
static void in_a_job(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  (void)coir_counter_wait(coir_job_run(jobs, is_job, NULL), COIR_NEVER);
}

static int is_side(void *arg) { return coir_fork2(nothing, arg, call, arg); }
static void in_a_fork(void) { (void)run(is_side, NULL); }
static void in_a_fork_on_a_thread(void) { (void)is_side(NULL); }

static int is_raw(void *arg) {
  struct coir_raw_fiber *raw;
  CHECK_EQ(coir_raw_fiber_create(&raw, 0), 0);
  return coir_raw_fiber_resume(raw, call, arg);
}
static void on_a_raw_fiber(void) { (void)run(is_raw, NULL); }

static int is_fiber(void *arg) {
  call(arg);
  return 0;
}
static void on_a_fiber(void) { (void)run(is_fiber, NULL); }

static void who_leaves_others_aborts(void) {
  static const struct {
    void (*where)(void);
    void (*what)(void *arg);
  } deaths[] = {{in_a_job, fails},       {in_a_job, fails_in_a_fork},    {in_a_fork, fails},
                {on_a_raw_fiber, fails}, {in_a_fork_on_a_thread, fails}, {on_a_fiber, exits}};
  for (size_t i = 0; i < 2 * sizeof deaths / sizeof *deaths; i++) {
    char text[4000];
    what = deaths[i / 2].what;
    call = i % 2 ? in_once : in_flight;
    int status = in_child_process(deaths[i / 2].where, text, sizeof text);
    if (!WIFSIGNALED(status)) fprintf(stderr, "death %zu: status %x, %s\n", i, (unsigned)status, text);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(text, "coir_once_do or coir_flight_do") != NULL);
  }
}

/* ---- What does not ----------------------------------------------------------------------------------------------- */

static tally has_begun;

/* A failure that ends inside leaves nobody. */
static int is_well(void *arg, void **value) {
  atomic_store(&has_begun, 1);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  CHECK_EQ(coir_fork2(fails, arg, nothing, arg), -ECANCELED);
  CHECK_EQ(coir_fork2(nothing, arg, fails_in_a_fork, arg), -ECANCELED);
  *value = arg;
  return 7;
}

static int asks(void *arg) {
  struct coir_result answer;
  int rc = coir_flight_do(&flight, "key", 3, is_well, arg, &answer, COIR_NEVER);
  CHECK(answer.status == 7 && answer.value == arg);
  return rc;
}

static int leads(void *arg) {
  struct coir_fiber *leader = spawn(asks, arg);
  WAIT_FOR(has_begun);
  int rc = asks(arg); /* in time, or not */
  CHECK(rc == 0 || rc == 1);
  CHECK_EQ(join(leader), 1);
  return asks(arg);
}

static void failures_may_end_inside(void) { CHECK_EQ(run(leads, &flight), 1); }

static void stays(void *arg) {
  atomic_store(&has_begun, 1);
  (void)coir_sleep(COIR_SEC(1000));
  CHECK(!"never here");
  (void)arg;
}
static int stays_in_once(void *arg) { return coir_once_do(&once, stays, arg, COIR_NEVER); }
static int is_over(void *arg) {
  exits(arg);
  CHECK(!"never here");
  return 0;
}

/* Its stack is another fiber's afterwards. */
static void one_that_is_dropped_leaves_no_trace(void) {
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, stays_in_once, NULL, NULL, NULL), 0);
  WAIT_FOR(has_begun);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 100; i++) CHECK_EQ(coir_runtime_spawn(rt, is_over, NULL, NULL, NULL), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void yields(void *arg) {
  (void)arg;
  coir_raw_fiber_yield();
}
static void yields_in_once(void *arg) { (void)coir_once_do(&once, yields, arg, COIR_NEVER); }

/* Who has yielded may be destroyed, or never be resumed. */
static int yields_within(void *arg) {
  struct coir_raw_fiber *raw;
  CHECK_EQ(coir_raw_fiber_create(&raw, 0), 0);
  return coir_raw_fiber_resume(raw, yields_in_once, arg);
}
static void dies_yielding(void) { (void)run(yields_within, NULL); }
static void nobody_yields_in_once(void) {
  char text[4000];
  int status = in_child_process(dies_yielding, text, sizeof text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(text, "coir_once_do or coir_flight_do") != NULL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(who_leaves_others_aborts), CASE(failures_may_end_inside),
                                     CASE(one_that_is_dropped_leaves_no_trace),
                                     CASE(nobody_yields_in_once)};
  return RUN_CASES(argc, argv, cases);
}
