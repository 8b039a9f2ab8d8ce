/* Simulated runtimes: the same seed is the same run, others are others; time, points, transfers, faults. */
#include <fcntl.h>
#include <sys/socket.h>

#include "coir_io.h"
#include "coir_job.h"
#include "harness.h"

#define SEEDS 200
#define FEW_SEEDS 24 /* where a run takes a tenth of a second: the kernel is given time to bring something */

/* A run of `fn`, which returns what it did as a number. */
static int simulate_with(struct coir_config config, coir_fn fn, void *arg) {
  struct coir_runtime *rt;
  int status = -1;
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK_EQ(coir_runtime_run(rt, fn, arg, &status), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return status;
}

static int simulate(int seed, coir_fn fn, void *arg) {
  return simulate_with((struct coir_config){.sim_seed = seed}, fn, arg);
}

/* In how many of the first SEEDS seeds `fn` returns something else than 0. */
static int count_seeds(coir_fn fn) {
  int count = 0;
  for (int seed = 1; seed <= SEEDS; seed++) count += simulate(seed, fn, NULL) != 0;
  return count;
}

static struct coir_fiber *go(coir_fn fn, void *arg) {
  struct coir_fiber *f;
  CHECK_EQ(coir_spawn(fn, arg, NULL, &f), 0);
  return f;
}

static int end_of(struct coir_fiber *f) {
  struct coir_result r;
  CHECK_EQ(coir_join(f, &r, COIR_NEVER), 0);
  return r.status;
}

/* ---- The same again -------------------------------------------------------------------------------------------- */

#define ACTORS 6
#define STEPS 12

/* What happened, as one number, into which every event goes with its time. */
struct story {
  uint64_t sum;
  struct coir_chan *chan;
  struct coir_mutex mutex;
  int pipe[2];
  _Atomic(int) blocked;
};

static void tell(struct story *s, int what) {
  s->sum = (s->sum ^ (uint64_t)what ^ (uint64_t)coir_now() << 8) * UINT64_C(0x100000001b3);
}

static void blocks(void *arg) {
  struct story *s = arg;
  usleep(200);
  atomic_fetch_add(&s->blocked, 1);
}

struct actor {
  struct story *story;
  int number;
};

static void act(struct story *s, int number, int step) {
  char c = (char)step;
  int value = step;
  switch ((number + step) % 6) {
  case 0: tell(s, coir_chan_send(s->chan, &value, coir_after(COIR_US(50)))); break;
  case 1: tell(s, coir_chan_recv(s->chan, &value, coir_after(COIR_US(80)))); break;
  case 2:
    CHECK_EQ(coir_mutex_lock(&s->mutex, COIR_NEVER), 0);
    tell(s, number);
    coir_mutex_unlock(&s->mutex);
    break;
  case 3: CHECK_EQ(coir_sleep(COIR_US(step * 17)), 0); break;
  case 4:
    CHECK_EQ(coir_write(s->pipe[1], &c, 1, COIR_NEVER), 1);
    CHECK_EQ(coir_read(s->pipe[0], &c, 1, COIR_NEVER), 1);
    tell(s, c);
    break;
  default: CHECK_EQ(coir_block(blocks, s), 0);
  }
}

static int acts(void *arg) {
  struct actor *a = arg;
  for (int step = 0; step < STEPS; step++) {
    act(a->story, a->number, step);
    tell(a->story, a->number);
  }
  return 0;
}

static int tells_a_story(void *arg) {
  struct story *s = arg;
  struct actor actors[ACTORS];
  struct coir_fiber *f[ACTORS];
  CHECK_EQ(pipe(s->pipe), 0);
  CHECK((s->chan = coir_chan_create(sizeof(int), 1)) != NULL);
  for (int i = 0; i < ACTORS; i++) {
    actors[i] = (struct actor){s, i};
    f[i] = go(acts, &actors[i]);
  }
  for (int i = 0; i < ACTORS; i++) CHECK_EQ(end_of(f[i]), 0);
  coir_chan_unref(s->chan);
  CHECK_EQ(coir_close(s->pipe[0]), 0);
  CHECK_EQ(coir_close(s->pipe[1]), 0);
  tell(s, s->blocked);
  return 0;
}

static uint64_t story_of(int seed) {
  struct story s = {0};
  CHECK_EQ(simulate(seed, tells_a_story, &s), 0);
  return s.sum;
}

static void the_same_seed_is_the_same_run(void **state) {
  (void)state;
  uint64_t first = 0;
  int others = 0;
  for (int seed = 1; seed <= 40; seed++) {
    uint64_t sum = story_of(seed);
    for (int again = 0; again < 3; again++) CHECK_EQ(story_of(seed), sum);
    if (seed == 1) first = sum;
    others += sum != first;
  }
  CHECK_EQ(others, 39);
}

/* ---- Time ------------------------------------------------------------------------------------------------------ */

static int sleeps_long(void *hours) {
  int64_t until = coir_after((int64_t)(intptr_t)hours * COIR_SEC(3600));
  CHECK_EQ(coir_sleep_until(until), 0);
  CHECK(coir_now() >= until && coir_now() - until < COIR_MS(20));
  return 0;
}

static int a_day_passes(void *arg) {
  (void)arg;
  int64_t start = coir_now();
  struct coir_fiber *f[24];
  for (intptr_t i = 0; i < 24; i++) f[i] = go(sleeps_long, (void *)(24 - i));
  for (int i = 0; i < 24; i++) CHECK_EQ(end_of(f[i]), 0);
  CHECK(coir_now() - start >= 24 * COIR_SEC(3600) && coir_now() - start < 25 * COIR_SEC(3600));
  return 0;
}

static void a_day_takes_no_time(void **state) {
  (void)state;
  int64_t start = coir_now();
  for (int seed = 1; seed <= 20; seed++) CHECK_EQ(simulate(seed, a_day_passes, NULL), 0);
  CHECK(coir_now() - start < COIR_SEC(20));
}

static int looks_at_the_clock(void *arg) {
  (void)arg;
  int64_t end = coir_after(COIR_MS(20));
  while (coir_now() < end) {}
  return 0;
}

static void who_looks_at_the_clock_gets_through(void **state) {
  (void)state;
  CHECK_EQ(simulate(3, looks_at_the_clock, NULL), 0);
}

/* ---- Points ---------------------------------------------------------------------------------------------------- */

static int shared;

static int adds_beside_a_call(void *arg) {
  (void)arg;
  int seen = shared;
  (void)coir_worker_index(); /* does not wait */
  shared = seen + 1;
  return 0;
}

static int adds_beside_a_point(void *arg) {
  (void)arg;
  int seen = shared;
  coir_sim_point();
  shared = seen + 1;
  return 0;
}

static int two_of(coir_fn fn) {
  shared = 0;
  struct coir_fiber *a = go(fn, NULL), *b = go(fn, NULL);
  CHECK_EQ(end_of(a), 0);
  CHECK_EQ(end_of(b), 0);
  return shared != 2;
}

static int loses_beside_a_call(void *arg) {
  (void)arg;
  return two_of(adds_beside_a_call);
}

static int loses_beside_a_point(void *arg) {
  (void)arg;
  return two_of(adds_beside_a_point);
}

static void every_call_is_a_point(void **state) {
  (void)state;
  int lost = count_seeds(loses_beside_a_call);
  CHECK(lost > 0 && lost < SEEDS);
  lost = count_seeds(loses_beside_a_point);
  CHECK(lost > 0 && lost < SEEDS);
}

static struct coir_event done;
static int result;

static int tells_too_early(void *arg) {
  (void)arg;
  coir_event_set(&done); /* lets others run as it is left */
  result = 1;
  return 0;
}

static int relies_on_it(void *arg) {
  (void)arg;
  done = (struct coir_event){0};
  result = 0;
  struct coir_fiber *f = go(tells_too_early, NULL);
  CHECK_EQ(coir_event_wait(&done, COIR_NEVER), 0);
  int seen = result;
  CHECK_EQ(end_of(f), 0);
  return seen == 0;
}

static bool is_ready;

static int rings_once(void *arg) {
  (void)arg;
  is_ready = true;
  coir_event_set(&done); /* wakes who waits by now; who looked before and waits from now on is late */
  coir_event_reset(&done);
  return 0;
}

static int looks_and_waits(void *arg) {
  (void)arg;
  done = (struct coir_event){0};
  is_ready = false;
  struct coir_fiber *f = go(rings_once, NULL);
  int rc = is_ready ? 0 : coir_event_wait(&done, coir_after(COIR_SEC(5))); /* others run as it is come to */
  CHECK_EQ(end_of(f), 0);
  return rc;
}

/* Before the call and after it, each finds what the other cannot. */
static void calls_are_points_on_both_sides(void **state) {
  (void)state;
  int found = count_seeds(relies_on_it);
  CHECK(found > 0 && found < SEEDS);
  found = count_seeds(looks_and_waits);
  CHECK(found > 0 && found < SEEDS);
}

static int holds(void *arg) {
  (void)arg;
  coir_hold_begin();
  int seen = shared;
  for (int i = 0; i < 5; i++) coir_sim_point();
  shared = seen + 1;
  coir_hold_end();
  return 0;
}

static int two_hold(void *arg) {
  (void)arg;
  return two_of(holds);
}

static void who_holds_its_worker_is_not_interrupted(void **state) {
  (void)state;
  CHECK_EQ(count_seeds(two_hold), 0);
}

static int of_the_seed(void *seed) {
  coir_sim_point();
  return coir_sim_seed() != (uint64_t)(uintptr_t)seed;
}

static void the_seed_can_be_asked_for(void **state) {
  (void)state;
  CHECK_EQ(simulate(17, of_the_seed, (void *)17), 0);
  CHECK_EQ(simulate_with((struct coir_config){.workers = 2}, of_the_seed, NULL), getenv("COIR_SIM_SEED") != NULL);
  CHECK_EQ(coir_sim_seed(), 0);
  coir_sim_point();
}

/* ---- Transfers, calls on the pool ------------------------------------------------------------------------------ */

#define BYTES 4000

static int writes_all(void *fds) {
  char data[BYTES];
  memset(data, 'x', sizeof data);
  CHECK_EQ(coir_write_full(((int *)fds)[1], data, sizeof data, COIR_NEVER), BYTES);
  return 0;
}

/* Returns how many reads brought less than was asked for and was there. */
static int reads_all(void *type) {
  int fds[2], parts = 0;
  char data[BYTES];
  CHECK_EQ(socketpair(AF_UNIX, (int)(intptr_t)type, 0, fds), 0);
  struct coir_fiber *f = go(writes_all, fds);
  for (size_t got = 0; got < BYTES;) {
    ssize_t n = coir_read(fds[0], data, sizeof data, COIR_NEVER);
    CHECK(n > 0);
    got += (size_t)n;
    parts++;
  }
  CHECK_EQ(end_of(f), 0);
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  return parts - 1;
}

static void streams_come_in_parts_and_messages_do_not(void **state) {
  (void)state;
  int streams = 0;
  for (int seed = 1; seed <= SEEDS; seed++) {
    streams += simulate(seed, reads_all, (void *)(intptr_t)SOCK_STREAM);
    CHECK_EQ(simulate(seed, reads_all, (void *)(intptr_t)SOCK_SEQPACKET), 0);
  }
  CHECK(streams > SEEDS / 4);
}

/* ---- Disturbances ---------------------------------------------------------------------------------------------- */

static int writes_late(void *fds) {
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  CHECK_EQ(coir_write(((int *)fds)[1], "x", 1, COIR_NEVER), 1);
  return 0;
}

/* Reads before there is anything: once in vain, and then until it comes. */
static int waits_for_others(void *fds) {
  char c = 0;
  int *ends = fds, kind = ends[0];
  CHECK_EQ(kind == SOCK_STREAM ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends), 0);
  int64_t limit = coir_after(COIR_MS(3));
  CHECK_EQ(coir_read(ends[0], &c, 1, limit), -ETIMEDOUT);
  CHECK(coir_now() >= limit);
  struct coir_fiber *f = go(writes_late, ends);
  CHECK_EQ(coir_read(ends[0], &c, 1, COIR_NEVER), 1);
  CHECK_EQ(c, 'x');
  CHECK_EQ(end_of(f), 0);
  CHECK_EQ(coir_close(ends[0]), 0);
  CHECK_EQ(coir_close(ends[1]), 0);
  return 0;
}

/* What such a run says at its end of the disturbances that it had. */
static void ask_disturbances(int seed, int *calls, int *events, char line[256]) {
  int ends[2] = {seed % 2 ? SOCK_STREAM : 0, 0}, old = dup(STDERR_FILENO);
  FILE *said = tmpfile();
  CHECK(said && old >= 0 && dup2(fileno(said), STDERR_FILENO) == STDERR_FILENO);
  CHECK_EQ(simulate_with((struct coir_config){.sim_seed = seed, .sim_log = 1}, waits_for_others, ends), 0);
  CHECK_EQ(dup2(old, STDERR_FILENO), STDERR_FILENO);
  close(old);
  rewind(said);
  CHECK(fgets(line, 256, said) != NULL);
  const char *counts = strstr(line, "calls interrupted: ");
  CHECK(counts && sscanf(counts, "calls interrupted: %d, events in vain: %d,", calls, events) == 2);
  CHECK_EQ(fclose(said), 0);
}

static void calls_are_disturbed_and_go_on(void **state) {
  (void)state;
  int quiet = 0, interrupted = 0, in_vain = 0;
  for (int seed = 1; seed <= FEW_SEEDS; seed++) {
    int calls, events;
    char line[256], again[256];
    ask_disturbances(seed, &calls, &events, line);
    quiet += calls == 0 && events == 0;
    interrupted += calls > 1;
    in_vain += events > 0;
    ask_disturbances(seed, &calls, &events, again);
    CHECK(strcmp(line, again) == 0);
  }
  CHECK(quiet >= FEW_SEEDS / 4 && interrupted >= FEW_SEEDS / 8 && in_vain >= FEW_SEEDS / 8);
}

/* ---- Faults ---------------------------------------------------------------------------------------------------- */

static int makes_channels(void *arg) {
  int failed = 0;
  (void)arg;
  for (int i = 0; i < 100; i++) {
    struct coir_chan *chan = coir_chan_create(8, 4);
    failed += chan == NULL;
    coir_chan_unref(chan);
  }
  return failed;
}

static void calls_fail_when_they_are_to(void **state) {
  (void)state;
  int failed = 0;
  for (int seed = 1; seed <= 20; seed++) {
    CHECK_EQ(simulate(seed, makes_channels, NULL), 0);
    failed += simulate_with((struct coir_config){.sim_seed = seed, .sim_faults = 100}, makes_channels, NULL);
  }
  CHECK(failed > 100 && failed < 1000); /* a tenth of 2000 */
}

/* ---- What else there is ---------------------------------------------------------------------------------------- */

static int waits_for_ever(void *arg) {
  (void)arg;
  struct coir_event never = {0};
  return coir_event_wait(&never, COIR_NEVER);
}

static void deadlocks_are_found(void **state) {
  (void)state;
  struct coir_runtime *rt;
  struct coir_config config = {.sim_seed = 5};
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK_EQ(coir_runtime_run(rt, waits_for_ever, NULL, NULL), -EDEADLK);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int places_fibers(void *arg) {
  (void)arg;
  for (int i = 0; i < 4; i++) {
    struct coir_fiber *f;
    struct coir_attr attr = {.worker = COIR_WORKER(i), .pinned = true, .preempt = COIR_ON};
    CHECK_EQ(coir_spawn(adds_beside_a_call, NULL, &attr, &f), 0);
    CHECK_EQ(end_of(f), 0);
  }
  struct coir_attr beyond = {.worker = COIR_WORKER(4)};
  return coir_spawn(adds_beside_a_call, NULL, &beyond, NULL);
}

static void workers_can_be_named_that_are_not_there(void **state) {
  (void)state;
  CHECK_EQ(simulate_with((struct coir_config){.sim_seed = 1, .workers = 4}, places_fibers, NULL), -EINVAL);
}

static void adds_as_job(struct coir_job *job, void *sum) {
  (void)job;
  atomic_fetch_add((_Atomic(int) *)sum, 1);
}

/* Jobs that are placed on workers go to the one there is, as fibers do. */
static void jobs_name_workers_too(void **state) {
  (void)state;
  struct coir_job_system *system;
  struct coir_counter *counter = NULL;
  _Atomic(int) sum = 0;
  struct coir_job_config config = {.size = sizeof config, .threads = 4};
  CHECK_EQ(setenv("COIR_SIM_SEED", "1", 1), 0);
  CHECK_EQ(coir_job_system_create(&system, &config), 0);
  CHECK_EQ(unsetenv("COIR_SIM_SEED"), 0);
  struct coir_job_desc job = {.fn = adds_as_job, .arg = &sum, .worker = COIR_WORKER(3)};
  CHECK_EQ(coir_job_submit(system, &job, 1, &counter), 0);
  CHECK_EQ(coir_counter_wait(counter, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(atomic_load(&sum), 1);
  coir_counter_unref(counter);
  coir_job_system_destroy(system);
}

static int on_a_thread(void *sum) {
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  atomic_fetch_add((_Atomic(int) *)sum, 1);
  return 0;
}

/* Then it is as with others, but for the order: time goes on as it does for the thread. */
static void in_the_background_it_keeps_the_time(void **state) {
  (void)state;
  struct coir_runtime *rt;
  struct coir_config config = {.sim_seed = 5};
  _Atomic(int) sum = 0;
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  int64_t start = coir_now();
  for (int i = 0; i < 20; i++) {
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_spawn(rt, on_a_thread, &sum, NULL, &f), 0);
    CHECK_EQ(coir_join(f, NULL, coir_after(COIR_SEC(20))), 0);
  }
  CHECK(coir_now() - start >= COIR_MS(10)); /* steps of its own clock go before */
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(sum, 20);
}

static int never_ends(void *arg) {
  (void)arg;
  for (;;) CHECK_EQ(coir_yield(), 0);
}

/* Those that are ready then, too. */
static void what_is_abandoned_is_dropped(void **state) {
  (void)state;
  struct coir_runtime *rt;
  struct coir_config config = {.sim_seed = 5};
  struct coir_fiber *f[8];
  struct coir_result end;
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 8; i++) CHECK_EQ(coir_runtime_spawn(rt, never_ends, NULL, NULL, &f[i]), 0);
  CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
  for (int i = 0; i < 8; i++) {
    CHECK_EQ(coir_join(f[i], &end, COIR_NEVER), 0);
    CHECK_EQ(end.status, -ECANCELED);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_same_seed_is_the_same_run),
      cmocka_unit_test(a_day_takes_no_time),
      cmocka_unit_test(who_looks_at_the_clock_gets_through),
      cmocka_unit_test(every_call_is_a_point),
      cmocka_unit_test(calls_are_points_on_both_sides),
      cmocka_unit_test(who_holds_its_worker_is_not_interrupted),
      cmocka_unit_test(the_seed_can_be_asked_for),
      cmocka_unit_test(streams_come_in_parts_and_messages_do_not),
      cmocka_unit_test(calls_are_disturbed_and_go_on),
      cmocka_unit_test(calls_fail_when_they_are_to),
      cmocka_unit_test(deadlocks_are_found),
      cmocka_unit_test(workers_can_be_named_that_are_not_there),
      cmocka_unit_test(jobs_name_workers_too),
      cmocka_unit_test(in_the_background_it_keeps_the_time),
      cmocka_unit_test(what_is_abandoned_is_dropped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
