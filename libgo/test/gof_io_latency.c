/* How soon a fiber goes on when its descriptor is ready, and what waiting costs.
 *
 * Latency. A wake by the event takes some ten microseconds. A runtime that looks every 2 ms instead would show waits
 * that are spread evenly over these 2 ms; so half of them must take less than HALF_WITHIN, which it could not meet. A
 * machine that is busy with other things may spoil a series, but not all of several: the best one counts.
 *
 * Cost. What is measured is the time that the process computes and how often its threads go to sleep, neither of which
 * other processes add to. */
#include "gof_io_common.h"

#include <limits.h>
#include <sys/eventfd.h>

#define HALF_WITHIN COIR_US(300)
#define SERIES_MAX 8

/* ---- Latency ----------------------------------------------------------------------------------------------------- */

enum { WAKES = IS_SANITIZED ? 40 : 100 };

/* One who reads times and notes how old they are, and one who writes them at odd moments. */
struct latency {
  int fds[2];
  int64_t took[WAKES];
};

static _Atomic(int) is_over;
static int events[50], event_count; /* for others who wait until it is over */

static void task_read_times(void *arg) {
  struct latency *l = arg;
  for (int i = 0; i < WAKES; i++) {
    int64_t sent;
    CHECK_EQ(gof_read(l->fds[0], &sent, sizeof sent), sizeof sent);
    l->took[i] = coir_now() - sent;
  }
  atomic_store(&is_over, 1);
  for (int i = 0; i < event_count; i++) CHECK_EQ(gof_write(events[i], &(uint64_t){1}, 8), 8);
}

static void *write_times(void *arg) {
  struct latency *l = arg;
  static uint64_t seed;
  uint64_t rng = rng_seed(++seed);
  for (int i = 0; i < WAKES; i++) {
    usleep(4000 + (useconds_t)(rng_next(&rng) % 4000)); /* after whoever was awake has gone to sleep */
    int64_t now = coir_now();
    CHECK_EQ(write(l->fds[1], &now, sizeof now), sizeof now);
  }
  return NULL;
}

static int by_time(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* The median of a series; fibers that were started before run along. */
static int64_t series(enum kind kind, enum place reader_place) {
  static struct latency l;
  struct task reader;
  pthread_t writer;
  atomic_store(&is_over, 0);
  make_pair(kind, l.fds);
  start(&reader, reader_place, task_read_times, &l);
  CHECK_EQ(pthread_create(&writer, NULL, write_times, &l), 0);
  gof_run();
  CHECK_EQ(pthread_join(writer, NULL), 0);
  finish(&reader);
  close_pair(l.fds);
  qsort(l.took, WAKES, sizeof *l.took, by_time);
  return l.took[WAKES / 2];
}

/* The best median of several series, each with some others. */
static void check_latency(enum kind kind, enum place reader, void (*start_others)(void), int64_t half_within) {
  int64_t best = COIR_SEC(1);
  for (int i = 0; i < SERIES_MAX && best > half_within; i++) {
    if (start_others) start_others();
    int64_t median = series(kind, reader);
    if (median < best) best = median;
  }
  if (best > half_within) fprintf(stderr, "half of the wakes take more than %lld us\n", (long long)best / 1000);
  CHECK(best <= half_within);
}

/* Nobody sleeps here: no timer can be what wakes them. */
static void fibers_wake_by_events(void) {
  for (int kind = 0; kind < KINDS; kind++) check_latency((enum kind)kind, FIBER, NULL, HALF_WITHIN);
}

static void fibers_wake_by_events_of_any_poller(void) {
  set_env_number("GOF_NPOLLERS", 4);
  check_latency(SOCKETPAIR, FIBER, NULL, HALF_WITHIN);
}

static void threads_wake_by_events(void) {
  for (int kind = 0; kind < KINDS; kind++) check_latency((enum kind)kind, THREAD, NULL, HALF_WITHIN);
}

static void read_event(void *arg) {
  uint64_t value;
  CHECK_EQ(gof_read(*(int *)arg, &value, sizeof value), sizeof value);
}

static void sleep_long(void *arg) {
  (void)arg;
  while (!atomic_load(&is_over)) gof_sleep_ms(200);
}

static void start_waiting_others(void) {
  for (int i = 0; i < event_count; i++) CHECK(gof_spawn(read_event, &events[i], 0) != NULL);
  CHECK(gof_spawn(sleep_long, NULL, 0) != NULL);
}

/* With others that wait for descriptors and for times. */
static void others_who_wait_do_not_matter(void) {
  event_count = 50;
  for (int i = 0; i < event_count; i++) CHECK((events[i] = eventfd(0, EFD_CLOEXEC)) >= 0);
  check_latency(SOCKETPAIR, FIBER, start_waiting_others, HALF_WITHIN);
}

static void yield_on(void *arg) {
  (void)arg;
  while (!atomic_load(&is_over)) gof_yield();
}

static void start_yielders(void) {
  for (int i = 0; i < 20; i++) CHECK(gof_spawn(yield_on, NULL, 0) != NULL);
}

/* Workers that always have something to run look for events all the same. They and the writer share the CPUs, so this
 * takes as long as the system lets it. */
static void yielders_do_not_keep_events_waiting(void) { check_latency(SOCKETPAIR, FIBER, start_yielders, COIR_MS(20)); }

/* ---- What waiting costs ------------------------------------------------------------------------------------------ */

struct cost {
  int64_t cpu_ns, wall_ns;
  long sleeps; /* of threads: each is a wake, too */
};

static struct cost cost_now(void) {
  struct rusage u;
  CHECK_EQ(getrusage(RUSAGE_SELF, &u), 0);
  return (struct cost){.cpu_ns = COIR_SEC(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                                 COIR_US(u.ru_utime.tv_usec + u.ru_stime.tv_usec),
                       .wall_ns = coir_now(),
                       .sleeps = u.ru_nvcsw};
}

/* So many sleeps in a second are in order: nobody goes to bed at once. Who looked every 2 ms would have 500. */
#define SLEEPS_MAX 80
#define NIGHTS_MAX 6 /* other processes may keep a thread from going to bed, but not each time */

/* Waits for a second, several times: the process must use less than 2 % of a CPU each time, and at least once its
 * threads must sleep through. Under a sanitizer, which makes all of it dearer, once is enough for both. */
static void check_idle(void) {
  /* A sanitizer's own thread looks around, and ThreadSanitizer has all wake for signals. */
  long best_sleeps = LONG_MAX, limit = IS_TSAN ? LONG_MAX : SLEEPS_MAX + (IS_SANITIZED ? 20 : 0);
  int64_t best = INT64_MAX, worst = 0;
  for (int i = 0; i < NIGHTS_MAX && (best_sleeps > limit || best > COIR_MS(20)); i++) {
    struct cost before = cost_now();
    gof_sleep_ms(1000);
    struct cost after = cost_now();
    int64_t cpu = (after.cpu_ns - before.cpu_ns) * COIR_SEC(1) / (after.wall_ns - before.wall_ns);
    if (cpu < best) best = cpu;
    if (cpu > worst) worst = cpu;
    if (after.sleeps - before.sleeps < best_sleeps) best_sleeps = after.sleeps - before.sleeps;
  }
  if (worst >= COIR_MS(20) || best_sleeps > limit)
    fprintf(stderr, "%lld to %lld us of CPU and %ld sleeps in a second\n", (long long)best / 1000,
            (long long)worst / 1000, best_sleeps);
  CHECK((IS_SANITIZED ? best : worst) < COIR_MS(20));
  CHECK(best_sleeps <= limit);
}

enum { PARKED = 1000 };

/* A second after they began to wait each is watched again (src/poll.c), once. In hard mode, where a lock leans towards
 * its user at once, each lock has to be taken away for it, with an interrupt on every CPU: 10 to 45 ms for all, by what
 * the machine makes of interrupts. There we measure after it. */
#ifdef COIR_HARD
#define PARKED_SINCE_MS 1500
#else
#define PARKED_SINCE_MS 100
#endif

static void task_read_one(void *arg) {
  char c;
  CHECK_EQ(gof_read(*(int *)arg, &c, 1), 1);
}

static void parked_body(void *and_afterwards) {
  static int fds[PARKED];
  static struct task t[PARKED];
  allow_descriptors(2 * PARKED);
  for (int i = 0; i < PARKED; i += 2) make_pair(SOCKETPAIR, &fds[i]);
  for (int i = 0; i < PARKED; i++) start(&t[i], FIBER, task_read_one, &fds[i]);
  gof_sleep_ms(PARKED_SINCE_MS);
  check_idle();
  for (int i = 0; i < PARKED; i++) CHECK_EQ(gof_write(fds[i], "x", 1), 1);
  for (int i = 0; i < PARKED; i++) finish(&t[i]);
  for (int i = 0; i < PARKED; i++) close_fd(fds[i]);
  /* Nobody waits for a descriptor any more, so soon nobody looks after them. */
  if (!and_afterwards) return;
  gof_sleep_ms(2500);
  check_idle();
}

static void waiting_for_sockets_costs_nothing(void) { run_fibers(parked_body, (void *)1); }

static void waiting_for_sockets_costs_nothing_with_pollers(void) {
  set_env_number("GOF_NPOLLERS", 4);
  run_fibers(parked_body, NULL);
}

static void task_check_idle(void *arg) {
  (void)arg;
  check_idle();
}

static void one_sleeper_does_not_spin(void) { run_fibers(task_check_idle, NULL); }

/* Background mode without any fiber, seen by a plain thread. */
static void nothing_costs_nothing(void) {
  CHECK_EQ(gof_start_background(0), 0);
  gof_sleep_ms(100);
  check_idle();
  gof_request_stop();
  CHECK_EQ(gof_join_background(), 0);
}

/* Plain threads that wait for descriptors; with ThreadSanitizer each wakes 50 times a second, for some 25 us. */
static void waiting_threads_cost_nothing(void) {
  enum { N = IS_TSAN ? 4 : 20 };
  int fds[N][2];
  struct task t[N];
  for (int i = 0; i < N; i++) {
    make_pair((enum kind)(i % KINDS), fds[i]);
    start(&t[i], THREAD, task_read_one, &fds[i][0]);
  }
  gof_sleep_ms(200);
  check_idle();
  for (int i = 0; i < N; i++) {
    CHECK_EQ(gof_write(fds[i][1], "x", 1), 1);
    finish(&t[i]);
    close_pair(fds[i]);
  }
}

/* ---- Sleeping outside of fibers ---------------------------------------------------------------------------------- */

static void main_really_sleeps(void) {
  static const int times[] = {1, 20, 50};
  for (int k = 0; k < 2; k++) {
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
      int64_t began = coir_now();
      gof_sleep_ms((uint64_t)times[i]);
      CHECK(coir_now() - began >= COIR_MS(times[i]));
    }
    gof_sleep_ms(0);
    gof_init(0); /* before it is there, and after */
  }
  run_fibers(read_event, &(int){eventfd(1, EFD_CLOEXEC)}); /* and after a run */
  int64_t began = coir_now();
  gof_sleep_ms(30);
  CHECK(coir_now() - began >= COIR_MS(30));
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(fibers_wake_by_events),
      CASE(fibers_wake_by_events_of_any_poller),
      CASE(threads_wake_by_events),
      CASE(others_who_wait_do_not_matter),
      CASE(yielders_do_not_keep_events_waiting),
      CASE(waiting_for_sockets_costs_nothing),
      CASE(waiting_for_sockets_costs_nothing_with_pollers),
      CASE(one_sleeper_does_not_spin),
      CASE(nothing_costs_nothing),
      CASE(waiting_threads_cost_nothing),
      CASE(main_really_sleeps),
  };
  return RUN_CASES(argc, argv, cases);
}
