/* Job systems: configuration, several at once, pools, pinning, shutting down by whom and how, how many are at work,
 * metrics, frames, and the file of the trace, which a JSON parser reads back (python3; without it that part is left
 * out). */
#include "jobs.h"

#include <sched.h>
#include <sys/stat.h>

/* ---- Configuration ----------------------------------------------------------------------------------------------- */

static void bad_fields_are_refused(void) {
  const struct coir_job_config bad[] = {
      {.size = sizeof(struct coir_job_config) + 8},
      {.size = sizeof(size_t)},
      {.threads = -1},
      {.threads = 65},
      {.stack_bytes = (16 << 10) - 1},
      {.stack_bytes = ((size_t)1 << 30) + 1},
      {.enable_yielding = 2},
      {.enable_yielding = -2},
      {.max_pooled_fibers = SIZE_MAX},
      {.initial_pool_size = SIZE_MAX},
      {.target_pool_size = SIZE_MAX},
      {.frame_bytes = SIZE_MAX},
      {.prefetch_pages = 2},
      {.pinning = (enum coir_pinning)5},
      {.pinning = (enum coir_pinning) - 1},
      {.metrics = 2},
      {.trace = -2},
      {.monitor = 7},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct coir_job_system *jobs = (struct coir_job_system *)&jobs;
    CHECK_EQ(coir_job_system_create(&jobs, &bad[i]), -EINVAL);
    CHECK(!jobs);
  }
}

/* A program that was compiled when there was less to configure. */
static void an_older_configuration_is_taken(void) {
  struct coir_job_config config = {.size = offsetof(struct coir_job_config, stack_bytes), .threads = 2};
  config.stack_bytes = 1; /* beyond its size: not looked at */
  config.pinning = (enum coir_pinning)99;
  struct coir_job_system *jobs = NULL;
  tally n = 0;
  CHECK_EQ(coir_job_system_create(&jobs, &config), 0);
  CHECK_EQ(coir_job_system_workers(jobs), 2);
  finish(coir_job_run(jobs, counts, &n));
  end_jobs(jobs, 0);
}

static void threads_count_before_the_environment(void) {
  struct coir_job_system *jobs = NULL;
  set_env("COIR_WORKERS", "5");
  CHECK_EQ(coir_job_system_create(&jobs, &(struct coir_job_config){.threads = 3}), 0);
  CHECK_EQ(coir_job_system_workers(jobs), 3);
  end_jobs(jobs, 0);
}

static size_t stack_bytes_of_current(void) {
  struct coir_fiber_info list[64];
  size_t n = coir_runtime_list(coir_runtime_current(), list, 64);
  for (size_t i = 0; i < n && i < 64; i++)
    if (list[i].id == coir_fiber_id(NULL)) return list[i].stack_bytes;
  return 0;
}

static void tells_its_stack(struct coir_job *job, void *out) {
  (void)job;
  *(size_t *)out = stack_bytes_of_current();
}

static void stacks_are_of_the_size_asked_for(void) {
  const struct { size_t asked, got; } cases[] = {{0, 64 << 10}, {32 << 10, 32 << 10}, {100000, 128 << 10}};
  set_env("COIR_STACK_BYTES", "1048576"); /* of runtimes */
  for (size_t i = 0; i < 3; i++) {
    size_t bytes = 0;
    struct coir_job_system *jobs = make_jobs((struct coir_job_config){.stack_bytes = cases[i].asked});
    finish(coir_job_run(jobs, tells_its_stack, &bytes));
    CHECK_EQ(bytes, cases[i].got);
    end_jobs(jobs, 0);
  }
}

static void presets_leave_the_rest_alone(void) {
  for (int i = COIR_JOBS_GAMING; i <= COIR_JOBS_STRICT_TOPOLOGY; i++) {
    struct coir_job_config config;
    memset(&config, 0xa5, sizeof config);
    CHECK_EQ(coir_job_config_preset(&config, (enum coir_job_preset)i), 0);
    CHECK_EQ(config.size, 0);
    CHECK_EQ(config.threads, 0);
    CHECK_EQ(config.max_pooled_fibers, 0);
    CHECK(!config.enable_yielding && !config.prefetch_pages && !config.metrics && !config.trace && !config.monitor);
  }
}

/* ---- Without memory ---------------------------------------------------------------------------------------------- */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

static _Atomic(int) countdown; /* the allocation that fails, of those of `short_thread` */
static pthread_t short_thread;

static bool fails_now(void) {
  if (atomic_load(&countdown) <= 0 || !pthread_equal(pthread_self(), short_thread)) return false;
  return atomic_fetch_sub(&countdown, 1) == 1;
}

void *__wrap_malloc(size_t bytes) { return fails_now() ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails_now() ? NULL : __real_calloc(count, bytes); }

static void fail_at(int n) {
  short_thread = pthread_self();
  atomic_store(&countdown, n);
}

/* Whichever allocation fails, nothing is left behind. (Leaks are found by the sanitizer.) */
static void what_cannot_be_made_is_undone(void) {
  struct coir_job_config config = {.threads = 2, .initial_pool_size = 3, .pinning = COIR_PIN_LINEAR};
  int failed = 0, n = 0;
  for (bool is_over = false; !is_over;) {
    struct coir_job_system *jobs = NULL;
    tally ran = 0;
    fail_at(++n);
    int rc = coir_job_system_create(&jobs, &config);
    is_over = atomic_exchange(&countdown, 0) > 0; /* there are no more than that */
    if (rc) {
      CHECK(rc == -ENOMEM || rc == -EAGAIN);
      CHECK(!jobs);
      failed++;
    } else {
      finish(coir_job_run(jobs, counts, &ran));
      end_jobs(jobs, 0);
    }
  }
  CHECK(failed > 10);
}

/* ---- Pools ------------------------------------------------------------------------------------------------------- */

static struct coir_stats stats_of(struct coir_job_system *jobs) {
  struct coir_stats stats;
  coir_runtime_get_stats(coir_job_system_runtime(jobs), &stats);
  return stats;
}

static void initial_stacks_are_there_at_once(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 3, .initial_pool_size = 20});
  CHECK_EQ(stats_of(jobs).stacks_cached, 60);
  end_jobs(jobs, 0);
  jobs = make_jobs((struct coir_job_config){.threads = 1, .initial_pool_size = 100}); /* more than a worker keeps */
  CHECK_EQ(stats_of(jobs).stacks_cached, 100);
  end_jobs(jobs, 0);
}

static long resident_kib(void) {
  long pages = 0, rest = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  CHECK(f && fscanf(f, "%ld %ld", &rest, &pages) == 2);
  fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* How much memory a system with 2000 stacks comes to at once. */
static long grown_by(int prefetch) {
  long before = resident_kib();
  struct coir_job_config config = {.threads = 1, .initial_pool_size = 2000, .max_pooled_fibers = 2000};
  config.prefetch_pages = prefetch;
  struct coir_job_system *jobs = make_jobs(config);
  long grown = resident_kib() - before;
  end_jobs(jobs, 0);
  return grown;
}

static void initial_stacks_are_touched_on_request(void) {
  (void)grown_by(COIR_OFF); /* what only the first one needs */
  long page_kib = sysconf(_SC_PAGESIZE) / 1024, without = grown_by(COIR_OFF), with = grown_by(COIR_ON);
#ifdef COIR_HARD
  without = 0; /* all of them are: what is given back is overwritten */
#endif
  CHECK(with - without > 1500 * page_kib);
}

static void waits_for_gate(struct coir_job *job, void *arg) {
  struct gate *gate = arg;
  (void)job;
  atomic_fetch_add(&gate->is_held, 1);
  WAIT_FOR(atomic_load(&gate->is_open));
}

/* So many jobs that wait at a time need as many stacks; what is kept of them is what was asked for. */
static void unused_stacks_are_kept(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 1, .target_pool_size = 48});
  struct gate gate = {0};
  struct coir_job_desc list[40];
  for (int i = 0; i < 40; i++) list[i] = (struct coir_job_desc){.fn = waits_for_gate, .arg = &gate};
  struct coir_counter *done = coir_job_run_many(jobs, list, 40);
  WAIT_FOR(atomic_load(&gate.is_held) == 40);
  CHECK(stats_of(jobs).stacks_live >= 40);
  atomic_store(&gate.is_open, 1);
  finish(done);
  WAIT_FOR(stats_of(jobs).fibers_live == 0);
  CHECK(stats_of(jobs).stacks_cached >= 39); /* one may be the worker's own spare */
  end_jobs(jobs, 0);
}

/* Blocks its thread until it is told to let go, so that its worker is taken away when there is something else to do. */
static void blocks(struct coir_job *job, void *arg) {
  struct gate *gate = arg;
  int64_t end = coir_after(COIR_SEC(20));
  (void)job;
  atomic_store(&gate->is_held, 1);
  while (!atomic_load(&gate->is_open)) {
    CHECK(coir_now() < end);
    usleep(2000);
  }
}

/* ---- Several systems --------------------------------------------------------------------------------------------- */

static void three_systems_go_on_beside_each_other(void) {
  struct coir_job_system *jobs[3];
  struct coir_counter *done[3];
  tally n[3] = {0};
  for (int i = 0; i < 3; i++) jobs[i] = make_jobs((struct coir_job_config){.threads = i + 1});
  for (int i = 0; i < 3; i++) {
    struct coir_job_desc list[200];
    for (int j = 0; j < 200; j++) list[j] = (struct coir_job_desc){.fn = counts, .arg = &n[i]};
    done[i] = coir_job_run_many(jobs[i], list, 200);
  }
  end_jobs(jobs[1], 0);
  CHECK_EQ(n[1], 200);
  for (int i = 0; i < 3; i++) finish(done[i]);
  finish(coir_job_run(jobs[0], counts, &n[0])); /* they do not mind */
  finish(coir_job_run(jobs[2], counts, &n[2]));
  end_jobs(jobs[2], 0);
  end_jobs(jobs[0], 0);
  CHECK_EQ(n[0] + n[2], 402);
}

static void systems_come_and_go(void) {
  tally n = 0;
  for (int i = 0; i < rounds(100); i++) {
    struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 1 + i % 4});
    if (i % 3) finish(coir_job_run(jobs, counts, &n));
    else coir_counter_unref(coir_job_run(jobs, counts, &n));
    coir_job_system_destroy(jobs);
    CHECK_EQ(n, i + 1);
  }
}

/* ---- Pinning ----------------------------------------------------------------------------------------------------- */

struct place {
  enum coir_pinning pinning;
  struct coir_topology *topology;
};

/* Pinned to worker w: its thread may run where the topology says. */
static void is_in_its_place(struct coir_job *job, void *arg) {
  const struct place *place = arg;
  cpu_set_t set;
  (void)job;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  int i = coir_topology_place(place->topology, place->pinning, coir_worker_index(), NULL);
  CHECK_EQ(CPU_COUNT(&set), 1);
  CHECK(CPU_ISSET((size_t)coir_topology_cpu(place->topology, i), &set));
}

static void pin_workers(enum coir_pinning pinning, int threads) {
  struct place place = {pinning, coir_topology_detect()};
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = threads, .pinning = pinning});
  struct coir_job_desc list[64];
  for (int i = 0; i < threads; i++) {
    list[i] = (struct coir_job_desc){.fn = is_in_its_place, .arg = &place, .worker = COIR_WORKER(i), .pinned = true};
  }
  CHECK(place.topology);
  finish(coir_job_run_many(jobs, list, (size_t)threads));
  end_jobs(jobs, 0);
  coir_topology_destroy(place.topology);
}

static void workers_are_where_the_strategy_says(void) {
  pin_workers(COIR_PIN_LINEAR, 10);
  pin_workers(COIR_PIN_AVOID_SMT, 10);
  pin_workers(COIR_PIN_CCD_ISOLATION, 10);
  pin_workers(COIR_PIN_TIERED_SPILLOVER, 32);
}

static void is_anywhere(struct coir_job *job, void *arg) {
  cpu_set_t set;
  (void)job;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  CHECK(CPU_EQUAL(&set, (cpu_set_t *)arg));
}

static void without_pinning_workers_are_anywhere(void) {
  cpu_set_t set;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 2});
  finish(coir_job_run(jobs, is_anywhere, &set));
  end_jobs(jobs, 0);
}

/* ---- Shutting down ----------------------------------------------------------------------------------------------- */

static void *ends_it(void *jobs) {
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  return NULL;
}

static int ends_it_on_a_fiber(void *jobs) {
  ends_it(jobs);
  return 0;
}

static void many_shut_down_at_once(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 2});
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2});
  struct coir_fiber *fibers[4];
  pthread_t threads[4];
  tally n = 0;
  for (int i = 0; i < 20; i++) coir_counter_unref(coir_job_run(jobs, takes_10_ms, &n));
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, ends_it, jobs), 0);
    CHECK_EQ(coir_runtime_spawn(rt, ends_it_on_a_fiber, jobs, NULL, &fibers[i]), 0);
  }
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(n, 20);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(coir_job_system_shutdown(jobs, 0), 0); /* and again */
  CHECK(coir_job_run(jobs, counts, &n) == NULL);
  coir_job_system_destroy(jobs);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

struct ending {
  struct coir_job_system *jobs;
  struct gate gate;
  struct coir_counter *held;
  int64_t deadline;
};

static struct ending begin_ending(void) {
  return (struct ending){.jobs = make_jobs((struct coir_job_config){.threads = 1})};
}

static int opens_the_gate(void *arg) {
  struct ending *e = arg;
  CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
  atomic_store(&e->gate.is_open, 1);
  return 0;
}

/* The only worker goes on with the one fiber that can end the wait. */
static int ends_suspended(void *arg) {
  struct ending *e = arg;
  struct coir_fiber *f = spawn(opens_the_gate, e);
  CHECK_EQ(coir_job_system_shutdown(e->jobs, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&e->gate.is_open), 1);
  return join(f);
}

static void a_fiber_is_suspended_meanwhile(void) {
  struct ending e = begin_ending();
  e.held = hold(e.jobs, &e.gate);
  run_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, ends_suspended, &e);
  finish(e.held);
  coir_job_system_destroy(e.jobs);
}

/* Its worker is taken away first. */
static int ends_away(void *arg) {
  struct ending *e = arg;
  struct coir_fiber *f = spawn(opens_the_gate, e);
  struct coir_job_metrics m;
  blocks(NULL, &e->gate);
  CHECK_EQ(coir_job_system_active(e->jobs), 0);
  CHECK_EQ(coir_job_system_metrics(e->jobs, &m), -ENOTSUP);
  coir_job_system_start_frame(e->jobs);
  finish(coir_job_run(e->jobs, takes_10_ms, &e->gate.is_held));
  CHECK_EQ(coir_job_system_shutdown(e->jobs, COIR_NEVER), 0);
  coir_job_system_destroy(e->jobs);
  return join(f);
}

static void a_fiber_without_a_worker_may_do_it(void) {
  struct ending e = begin_ending();
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, ends_away, &e), 0);
}

static int ends_until(void *arg) {
  struct ending *e = arg;
  return coir_job_system_shutdown(e->jobs, e->deadline);
}

static void a_fiber_may_run_out_of_time(void) {
  struct ending e = begin_ending();
  e.held = hold(e.jobs, &e.gate);
  e.deadline = 0;
  CHECK_EQ(run(ends_until, &e), -ETIMEDOUT);
  e.deadline = coir_after(COIR_MS(5));
  CHECK_EQ(run(ends_until, &e), -ETIMEDOUT);
  atomic_store(&e.gate.is_open, 1);
  e.deadline = coir_after(COIR_SEC(60));
  CHECK_EQ(run(ends_until, &e), 0);
  e.deadline = 0;
  CHECK_EQ(run(ends_until, &e), 0);
  finish(e.held);
  coir_job_system_destroy(e.jobs);
}

static int cancels_who_ends(void *arg) {
  struct ending *e = arg;
  e->deadline = COIR_NEVER;
  struct coir_fiber *f = spawn(ends_until, e);
  CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
  CHECK_EQ(coir_cancel(f), 0);
  return join(f);
}

static int destroys_in_spite_of_it(void *arg) {
  struct ending *e = arg;
  CHECK_EQ(coir_cancel(coir_current()), 0);
  coir_job_system_destroy(e->jobs);
  CHECK_EQ(coir_sleep(0), -ECANCELED); /* it is still to come */
  return 0;
}

/* It goes on to stop; and nothing keeps it from being destroyed. */
static void a_fiber_may_be_cancelled(void) {
  struct ending e = begin_ending();
  e.held = hold(e.jobs, &e.gate);
  CHECK_EQ(run(cancels_who_ends, &e), -ECANCELED);
  CHECK(coir_job_run(e.jobs, counts, NULL) == NULL);
  let_go(&e.gate, e.held);
  CHECK_EQ(run(destroys_in_spite_of_it, &e), 0);
}

static void fails(struct coir_job *job, void *arg) {
  (void)job, (void)arg;
  coir_job_fail("on purpose");
}

static void failures_are_told_each_time(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){0});
  char text[64];
  for (int i = 0; i < 3; i++) coir_counter_unref(coir_job_run(jobs, fails, NULL));
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 3);
  CHECK(!strcmp(coir_job_shutdown_message(3, text, sizeof text), "3 worker thread(s) panicked"));
  CHECK(coir_job_shutdown_message(3, text, 0) == text && text[0] == '3');
  CHECK(coir_job_shutdown_message(3, NULL, 5) == NULL);
  coir_job_system_destroy(jobs);
}

static struct coir_job_system *of_the_parent;

static void uses_what_is_the_parents(void) {
  CHECK_EQ(coir_job_system_shutdown(of_the_parent, COIR_NEVER), -ENOTSUP);
  coir_job_system_destroy(of_the_parent);
  if (IS_SANITIZED) return; /* the sanitizers' own threads do not survive a fork, and new ones cannot be made */
  struct coir_job_system *own = make_jobs((struct coir_job_config){0});
  tally n = 0;
  finish(coir_job_run(own, counts, &n));
  end_jobs(own, 0);
}

/* A child of fork leaves its parent's systems alone, and may have its own. */
static void the_child_of_a_fork_has_none(void) {
  of_the_parent = make_jobs((struct coir_job_config){0});
  char text[4096];
  tally n = 0;
  finish(coir_job_run(of_the_parent, counts, &n));
  int status = in_child_process(uses_what_is_the_parents, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
  finish(coir_job_run(of_the_parent, counts, &n));
  end_jobs(of_the_parent, 0);
}

/* ---- Who is at work ---------------------------------------------------------------------------------------------- */

static int holds_on_a_fiber(void *arg) {
  holds(NULL, arg);
  return 0;
}

static void holds_in_a_fork(void *arg) { holds(NULL, arg); }
static void nothing(void *arg) { (void)arg; }

static void forks_in_a_job(struct coir_job *job, void *arg) {
  (void)job;
  CHECK_EQ(coir_fork2(holds_in_a_fork, arg, nothing, NULL), 0);
}

static void only_jobs_are_active(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 2, .monitor = COIR_OFF});
  struct gate plain = {0}, gate = {0};
  struct coir_fiber *f;
  CHECK_EQ(coir_job_system_active(jobs), 0);
  CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), holds_on_a_fiber, &plain, NULL, &f), 0);
  WAIT_FOR(atomic_load(&plain.is_held));
  CHECK_EQ(coir_job_system_active(jobs), 0); /* a fiber of the runtime is no job */
  atomic_store(&plain.is_open, 1);
  join(f);
  struct coir_counter *done = coir_job_run(jobs, forks_in_a_job, &gate);
  WAIT_FOR(atomic_load(&gate.is_held));
  WAIT_FOR(coir_job_system_active(jobs) == 1); /* once the other side, which somebody may have taken, is done */
  let_go(&gate, done);
  WAIT_FOR(coir_job_system_active(jobs) == 0);
  end_jobs(jobs, 0);
}

static void jobs_that_wait_are_not_active(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 2});
  struct gate gate = {0};
  struct coir_counter *done = coir_job_run(jobs, waits_for_gate, &gate);
  WAIT_FOR(atomic_load(&gate.is_held));
  WAIT_FOR(coir_job_system_active(jobs) == 0);
  atomic_store(&gate.is_open, 1);
  finish(done);
  end_jobs(jobs, 0);
}

/* Jobs whose workers are taken away count, too. */
static void jobs_without_a_worker_are_active(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 1});
  struct gate gates[3] = {0};
  struct coir_counter *held[3];
  for (int i = 0; i < 3; i++) { /* for the next one there would be no worker */
    held[i] = coir_job_run(jobs, blocks, &gates[i]);
    WAIT_FOR(atomic_load(&gates[i].is_held));
  }
  CHECK_EQ(coir_job_system_active(jobs), 3);
  for (int i = 0; i < 3; i++) let_go(&gates[i], held[i]);
  WAIT_FOR(coir_job_system_active(jobs) == 0);
  end_jobs(jobs, 0);
}

/* ---- Metrics ----------------------------------------------------------------------------------------------------- */

static void spawns_many(struct coir_job *job, void *n) {
  struct coir_job_desc list[500];
  for (int i = 0; i < 500; i++) list[i] = (struct coir_job_desc){.fn = counts, .arg = n};
  struct coir_counter *done = coir_job_spawn_many(job, list, 500);
  CHECK_EQ(coir_job_wait(job, done), 0);
  coir_counter_unref(done);
}

static void metrics_add_up(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.metrics = COIR_ON});
  struct coir_job_metrics m;
  tally n = 0;
  for (int i = 0; i < 10; i++) finish(coir_job_run(jobs, spawns_many, &n));
  finish_failed(coir_job_run(jobs, fails, NULL), 1);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 1);
  CHECK_EQ(coir_job_system_metrics(jobs, &m), 0); /* a system that has stopped still knows */
  CHECK_EQ(m.jobs_failed, 1);
  CHECK_EQ(m.jobs_completed, 5011);
  CHECK_EQ(m.local_queue_pushes, 5000);
  CHECK_EQ(m.local_queue_depth, 0);
  CHECK(m.global_injector_pushes >= 11);
  CHECK_EQ(m.global_queue_depth, 0);
  CHECK((m.jobs_stolen == 0) == (m.worker_steals_success == 0));
  CHECK(m.worker_steals_retry <= m.worker_steals_failed);
  CHECK(m.elapsed_seconds > 0);
  CHECK(m.jobs_per_second > 0 && m.jobs_per_second * m.elapsed_seconds < 5012);
  CHECK_EQ(coir_job_system_metrics(NULL, &m), -EINVAL);
  coir_job_system_destroy(jobs);
}

/* ---- Frames ------------------------------------------------------------------------------------------------------ */

struct frame {
  void *memory;
  size_t bytes, align;
};

static void allocates(struct coir_job *job, void *arg) {
  struct frame *frame = arg;
  frame->memory = coir_job_frame_alloc(job, frame->bytes, frame->align);
  if (frame->memory) memset(frame->memory, 0x5a, frame->bytes);
}

static void *allocate(struct coir_job_system *jobs, size_t bytes, size_t align) {
  struct frame frame = {NULL, bytes, align};
  finish(coir_job_run(jobs, allocates, &frame));
  CHECK(!frame.memory || (uintptr_t)frame.memory % (align ? align : 16) == 0);
  return frame.memory;
}

WITH_JOBS(a_frame_is_used_again, .threads = 1, .monitor = COIR_OFF) {
  void *first = allocate(jobs, 100, 0), *second = allocate(jobs, 100, 256);
  CHECK(first && second && first != second);
  coir_job_system_start_frame(jobs);
  CHECK(allocate(jobs, 100, 0) == first);
  coir_job_system_start_frame(NULL);
}

WITH_JOBS(alignments_that_are_none_are_refused) {
  CHECK(!allocate(jobs, 8, 3));
  CHECK(!allocate(jobs, 8, 8192));
  CHECK(!allocate(jobs, SIZE_MAX - 64, 4096));
  for (size_t align = 1; align <= 4096; align *= 2) CHECK(allocate(jobs, 3, align));
}

/* A page is too small: from the heap, and given back with the frame. (Leaks are found by the sanitizer.) */
WITH_JOBS(what_is_large_comes_from_the_heap, .frame_bytes = 64 << 10) {
  long before = resident_kib();
  for (int frame = 0; frame < 40; frame++) {
    for (int i = 0; i < 4; i++) CHECK(allocate(jobs, 1 << 20, 4096));
    coir_job_system_start_frame(jobs);
  }
  if (!IS_SANITIZED) CHECK(resident_kib() - before < 80 << 10); /* of 160 MiB */
}

struct frame_away {
  struct gate gate;
  void *memory[3];
};

static void allocates_away(struct coir_job *job, void *arg) {
  struct frame_away *f = arg;
  blocks(job, &f->gate); /* until the worker is gone */
  for (size_t i = 0; i < 3; i++) {
    f->memory[i] = coir_job_frame_alloc(job, 100 * (i + 1), 64);
    CHECK(f->memory[i] && (uintptr_t)f->memory[i] % 64 == 0);
    memset(f->memory[i], 1, 100 * (i + 1));
  }
}

/* A job whose worker was taken away has its memory, too. */
WITH_JOBS(frames_without_a_worker, .threads = 1) {
  struct frame_away f[2] = {{.gate = {0}}};
  struct coir_counter *done[2];
  tally n = 0;
  for (int i = 0; i < 2; i++) {
    done[i] = coir_job_run(jobs, allocates_away, &f[i]);
    WAIT_FOR(atomic_load(&f[i].gate.is_held));
  }
  finish(coir_job_run(jobs, counts, &n)); /* so somebody else has the worker */
  for (int i = 0; i < 2; i++) let_go(&f[i].gate, done[i]);
  CHECK(f[0].memory[0] != f[1].memory[0]);
  coir_job_system_start_frame(jobs);
}

static void allocates_in_need(struct coir_job *job, void *arg) {
  (void)arg;
  fail_at(1); /* the worker's pages */
  CHECK(coir_job_frame_alloc(job, 100, 0));
  CHECK(coir_job_frame_alloc(job, 100, 0)); /* there are some now */
  fail_at(1);
  CHECK(!coir_job_frame_alloc(job, 1 << 20, 0));
  CHECK(coir_job_frame_alloc(job, 1 << 20, 0));
}

WITH_JOBS(frames_when_memory_is_short, .monitor = COIR_OFF) { finish(coir_job_run(jobs, allocates_in_need, NULL)); }

/* ---- Trace ------------------------------------------------------------------------------------------------------- */

/* Of this process alone: tests of one program run beside each other. */
static char trace_file[64], checker_file[64];

static struct coir_job_system *make_traced(int threads) {
  snprintf(trace_file, sizeof trace_file, "t_job_system_%d.json", (int)getpid());
  snprintf(checker_file, sizeof checker_file, "t_job_system_%d.py", (int)getpid());
  return make_jobs((struct coir_job_config){.threads = threads, .trace = COIR_ON});
}

static void remove_files(void) {
  unlink(trace_file);
  unlink(checker_file);
}

/* What is read back: how many events there are; what they must be like is checked there. */
static const char checker[] = "import collections, json, sys\n"
                              "events = json.load(open(sys.argv[1], encoding='utf-8'))\n"
                              "assert isinstance(events, list)\n"
                              "names = collections.Counter()\n"
                              "for e in events:\n"
                              "  assert set(e) == {'name', 'ph', 'ts', 'dur', 'pid', 'tid'}, e\n"
                              "  assert e['ph'] == 'X' and e['pid'] == 1 and 0 <= e['tid'] < int(sys.argv[2]), e\n"
                              "  assert 0 <= e['ts'] <= float(sys.argv[3]) and 0 <= e['dur'] <= float(sys.argv[3]), e\n"
                              "  names[e['name']] += 1\n"
                              "for expected in sys.argv[4:]:\n"
                              "  name, least = expected.rsplit('=', 1)\n"
                              "  name = name.encode('ascii').decode('unicode_escape')\n"
                              "  assert names[name] >= int(least), (name, names)\n";

static bool has_python(void) { return system("python3 -c pass > /dev/null 2>&1") == 0; }

/* Reads the file back. `expected`: "name=n", at least so many events of that name; quoted for the shell. */
static void read_back(struct coir_job_system *jobs, int64_t since, const char *expected) {
  char command[4096];
  double us = (double)(coir_now() - since) / 1000;
  if (!has_python()) {
    fprintf(stderr, "python3 is missing: the trace is not read back\n");
    return;
  }
  FILE *f = fopen(checker_file, "w");
  CHECK(f && fputs(checker, f) >= 0 && fclose(f) == 0);
  snprintf(command, sizeof command, "python3 %s %s %d %f %s", checker_file, trace_file, coir_job_system_workers(jobs),
           us, expected);
  CHECK_EQ(system(command), 0);
}

static struct coir_counter *run_named(struct coir_job_system *jobs, coir_job_fn fn, void *arg, const char *name) {
  struct coir_counter *done = NULL;
  CHECK_EQ(coir_job_submit(jobs, &(struct coir_job_desc){.fn = fn, .arg = arg, .name = name}, 1, &done), 0);
  return done;
}

static void jobs_are_found_in_the_trace(void) {
  int64_t since = coir_now();
  struct coir_job_system *jobs = make_traced(0);
  tally n = 0;
  CHECK_EQ(coir_job_system_export_trace(jobs, trace_file), 0);
  read_back(jobs, since, "");
  for (int i = 0; i < 30; i++) finish(run_named(jobs, counts, &n, "plain"));
  finish(run_named(jobs, counts, &n, "a \"quoted\" \\ name\n\t\x01"));
  finish(run_named(jobs, counts, &n, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x9f"));
  finish(run_named(jobs, counts, &n, "\xff|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82")); /* no UTF-8 */
  finish(run_named(jobs, spawns_many, &n, "waits"));
  finish_failed(run_named(jobs, fails, NULL, "fails"), 1);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 1); /* all have been taken down by now */
  CHECK_EQ(coir_job_system_export_trace(jobs, trace_file), 0);
  read_back(jobs, since,
            "plain=30 waits=2 fails=1 job=500 'a \"quoted\" \\\\ name\\n\\t\\x01=1' "
            "'gr\\xfc\\xdf \\u20ac \\U0001f41f=1' "
            "'\\ufffd|\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd=1'");
  coir_job_system_destroy(jobs);
  remove_files();
}

static void spawns_on_and_on(struct coir_job *job, void *arg) {
  tally *is_over = arg;
  if (atomic_load(is_over)) return;
  (void)coir_sleep(COIR_US(20)); /* the file is not to become large */
  CHECK_EQ(coir_job_spawn_detached(job, counts, is_over + 1), 0);
  CHECK_EQ(coir_job_spawn_detached(job, spawns_on_and_on, arg), 0);
}

/* Each file is whole, whatever goes on meanwhile. */
static void a_trace_is_written_while_jobs_run(void) {
  int64_t since = coir_now();
  struct coir_job_system *jobs = make_traced(0);
  tally is_over[2] = {0};
  struct coir_counter *first = coir_job_run(jobs, spawns_on_and_on, is_over);
  for (int i = 0; i < 3; i++) {
    int before = atomic_load(&is_over[1]);
    WAIT_FOR(atomic_load(&is_over[1]) > before + 100);
    CHECK_EQ(coir_job_system_export_trace(jobs, trace_file), 0);
    read_back(jobs, since, "job=100");
  }
  atomic_store(&is_over[0], 1);
  finish(first);
  end_jobs(jobs, 0);
  remove_files();
}

static void what_ran_without_a_worker_is_in_the_trace(void) {
  int64_t since = coir_now();
  struct coir_job_system *jobs = make_traced(1);
  struct gate gates[2] = {0};
  struct coir_counter *held[2];
  for (int i = 0; i < 2; i++) {
    held[i] = run_named(jobs, blocks, &gates[i], "held");
    WAIT_FOR(atomic_load(&gates[i].is_held));
  }
  for (int i = 0; i < 2; i++) let_go(&gates[i], held[i]);
  CHECK_EQ(coir_job_system_shutdown(jobs, COIR_NEVER), 0);
  CHECK_EQ(coir_job_system_export_trace(jobs, trace_file), 0);
  read_back(jobs, since, "held=2");
  coir_job_system_destroy(jobs);
  remove_files();
}

static void a_file_that_cannot_be_written(void) {
  struct coir_job_system *jobs = make_traced(0);
  tally n = 0;
  finish(coir_job_run(jobs, counts, &n));
  CHECK_EQ(coir_job_system_export_trace(jobs, "/nowhere/at/all"), -ENOENT);
  CHECK_EQ(coir_job_system_export_trace(jobs, "/"), -EISDIR);
  CHECK_EQ(coir_job_system_export_trace(jobs, "/dev/full"), -ENOSPC);
  CHECK_EQ(coir_job_system_export_trace(jobs, NULL), -EINVAL);
  CHECK_EQ(coir_job_system_export_trace(NULL, trace_file), -EINVAL);
  fail_at(1);
  CHECK_EQ(coir_job_system_export_trace(jobs, trace_file), -ENOMEM);
  end_jobs(jobs, 0);
}

/* ---- Batches ----------------------------------------------------------------------------------------------------- */

static void batches_are_as_the_grain_says(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 3});
  CHECK_EQ(coir_job_batch(jobs, 6000, COIR_GRAIN_TRIVIAL), 1000);
  CHECK_EQ(coir_job_batch(jobs, 6000, COIR_GRAIN_LIGHT), 500);
  CHECK_EQ(coir_job_batch(jobs, 6000, COIR_GRAIN_MODERATE), 250);
  CHECK_EQ(coir_job_batch(jobs, 6000, COIR_GRAIN_HEAVY), 125);
  CHECK_EQ(coir_job_batch(jobs, 5, COIR_GRAIN_LIGHT), 1);
  CHECK_EQ(coir_job_batch(jobs, 0, COIR_GRAIN_LIGHT), 1);
  CHECK_EQ(coir_job_batch(jobs, SIZE_MAX, COIR_GRAIN_TRIVIAL), SIZE_MAX / 6);
  CHECK_EQ(coir_job_batch_of(jobs, 6000, 0), 500);
  CHECK_EQ(coir_job_batch_of(jobs, 10, 3), 4);
  CHECK_EQ(coir_job_batch_of(jobs, 2, 3), 1);
  CHECK_EQ(coir_job_batch_of(jobs, SIZE_MAX, 2), SIZE_MAX / 2 + 1);
  CHECK_EQ(coir_job_batch_of(jobs, 0, 1), 1);
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(bad_fields_are_refused),
      CASE(an_older_configuration_is_taken),
      CASE(threads_count_before_the_environment),
      CASE(stacks_are_of_the_size_asked_for),
      CASE(presets_leave_the_rest_alone),
      CASE(what_cannot_be_made_is_undone),
      CASE(initial_stacks_are_there_at_once),
      CASE(initial_stacks_are_touched_on_request),
      CASE(unused_stacks_are_kept),
      CASE(three_systems_go_on_beside_each_other),
      CASE(systems_come_and_go),
      CASE(workers_are_where_the_strategy_says),
      CASE(without_pinning_workers_are_anywhere),
      CASE(many_shut_down_at_once),
      CASE(a_fiber_is_suspended_meanwhile),
      CASE(a_fiber_without_a_worker_may_do_it),
      CASE(a_fiber_may_run_out_of_time),
      CASE(a_fiber_may_be_cancelled),
      CASE(failures_are_told_each_time),
      CASE(the_child_of_a_fork_has_none),
      CASE(only_jobs_are_active),
      CASE(jobs_that_wait_are_not_active),
      CASE(jobs_without_a_worker_are_active),
      CASE(metrics_add_up),
      CASE(a_frame_is_used_again),
      CASE(alignments_that_are_none_are_refused),
      CASE(what_is_large_comes_from_the_heap),
      CASE(frames_without_a_worker),
      CASE(frames_when_memory_is_short),
      CASE(jobs_are_found_in_the_trace),
      CASE(a_trace_is_written_while_jobs_run),
      CASE(what_ran_without_a_worker_is_in_the_trace),
      CASE(a_file_that_cannot_be_written),
      CASE(batches_are_as_the_grain_says),
  };
  return RUN_CASES(argc, argv, cases);
}
