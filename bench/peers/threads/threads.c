/* Coir's questions (--as) with a thread of the system where it has a fiber: what one does without a runtime. Each
 * question is as its program bench/b_<question>.c says, with fewer repetitions. All threads share as many processors as
 * there are workers. */
#include <pthread.h>
#include <stdatomic.h>

#include "../../cpus.h"
#include "../frame.h"

/* Many threads of small stacks, as a program that wants many would ask for. */
static pthread_t start(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 64 * 1024);
  int rc = pthread_create(&thread, &attr, fn, arg);
  pthread_attr_destroy(&attr);
  if (rc != 0) peer_die("pthread_create failed: more threads than the system allows");
  return thread;
}

static void *nothing(void *arg) { return arg; }

static double spawn_join(const struct peer *peer) {
  long pairs = peer_count(peer, 20000);
  int64_t start_ns = peer_now();
  for (long i = 0; i < pairs; i++) pthread_join(start(nothing, NULL), NULL);
  return peer_each(start_ns, pairs);
}

#define MANY 5000L

static double spawn_many(const struct peer *peer) {
  static pthread_t threads[MANY];
  (void)peer;
  int64_t start_ns = peer_now();
  for (long i = 0; i < MANY; i++) threads[i] = start(nothing, NULL);
  for (long i = 0; i < MANY; i++) pthread_join(threads[i], NULL);
  return peer_each(start_ns, MANY);
}

/* ---- Threads that begin together ---- */

#define RACERS_MAX 8

struct race {
  pthread_barrier_t line;
  void (*run)(struct race *race);
  long times; /* of each */
  pthread_mutex_t mutex;
  long counter; /* under mutex */
};

static void *racer(void *arg) {
  struct race *race = arg;
  pthread_barrier_wait(&race->line);
  race->run(race);
  return NULL;
}

/* Returns the wall time for each of all repetitions. */
static double run_race(struct race *race, int racers) {
  pthread_t threads[RACERS_MAX];
  pthread_mutex_init(&race->mutex, NULL);
  pthread_barrier_init(&race->line, NULL, (unsigned)racers + 1);
  for (int i = 0; i < racers; i++) threads[i] = start(racer, race);
  pthread_barrier_wait(&race->line);
  int64_t start_ns = peer_now();
  for (int i = 0; i < racers; i++) pthread_join(threads[i], NULL);
  double each = peer_each(start_ns, race->times * racers);
  pthread_barrier_destroy(&race->line);
  return each;
}

static void yield_all(struct race *race) {
  for (long i = 0; i < race->times; i++) sched_yield();
}

static double yield_2(const struct peer *peer) {
  struct race race = {.run = yield_all, .times = peer_count(peer, 300000)};
  return run_race(&race, 2 * peer->workers) * peer->workers;
}

static void lock_all(struct race *race) {
  for (long i = 0; i < race->times; i++) {
    pthread_mutex_lock(&race->mutex);
    race->counter++;
    pthread_mutex_unlock(&race->mutex);
  }
}

static double mutex_8(const struct peer *peer) {
  struct race race = {.run = lock_all, .times = peer_count(peer, 500000)};
  double each = run_race(&race, 8);
  peer_check("counter", (uint64_t)race.counter, (uint64_t)race.times * 8);
  return each;
}

/* ---- A channel without room: a value, a lock and a condition ---- */

struct chan {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool is_full;
  long value;
};

static void chan_set(struct chan *chan, bool is_full, long *value) {
  pthread_mutex_lock(&chan->mutex);
  while (chan->is_full == is_full) pthread_cond_wait(&chan->changed, &chan->mutex);
  if (is_full) chan->value = *value;
  else *value = chan->value;
  chan->is_full = is_full;
  pthread_mutex_unlock(&chan->mutex);
  pthread_cond_signal(&chan->changed);
}

struct game {
  struct chan ping, pong;
  long round_trips;
};

static void *answer(void *arg) {
  struct game *game = arg;
  for (long i = 0; i < game->round_trips; i++) {
    long value;
    chan_set(&game->ping, false, &value);
    value++;
    chan_set(&game->pong, true, &value);
  }
  return NULL;
}

static double chan_pingpong(const struct peer *peer) {
  struct game game = {.round_trips = peer_count(peer, 50000)};
  long sum = 0;
  pthread_mutex_init(&game.ping.mutex, NULL);
  pthread_mutex_init(&game.pong.mutex, NULL);
  pthread_cond_init(&game.ping.changed, NULL);
  pthread_cond_init(&game.pong.changed, NULL);
  pthread_t answerer = start(answer, &game);
  int64_t start_ns = peer_now();
  for (long i = 0, value; i < game.round_trips; i++) {
    value = i;
    chan_set(&game.ping, true, &value);
    chan_set(&game.pong, false, &value);
    sum += value;
  }
  double each = peer_each(start_ns, game.round_trips);
  pthread_join(answerer, NULL);
  peer_check("sum", (uint64_t)sum, (uint64_t)game.round_trips * (uint64_t)(game.round_trips + 1) / 2);
  return each;
}

/* ---- Memory ---- */

#define PARKED 2000L

static _Atomic(long) parked;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *park(void *arg) {
  atomic_fetch_add(&parked, 1);
  pthread_mutex_lock(&gate);
  pthread_mutex_unlock(&gate);
  return arg;
}

static double rss_bytes(void) {
  char line[256];
  double kilobytes = -1;
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  while (file && fgets(line, sizeof line, file) && sscanf(line, "Rss: %lf", &kilobytes) != 1) {}
  if (!file || kilobytes < 0) peer_die("/proc/self/smaps_rollup has no Rss");
  fclose(file);
  return kilobytes * 1024;
}

/* What the process has of it; the kernel's share, a stack of 16 KiB and its records, comes on top. Once: the stacks of
 * threads that have ended stay in use. */
static double mem_parked(const struct peer *peer) {
  static pthread_t threads[PARKED];
  static double result;
  (void)peer;
  if (result > 0) return result;
  double before = rss_bytes();
  pthread_mutex_lock(&gate);
  for (long i = 0; i < PARKED; i++) threads[i] = start(park, NULL);
  while (atomic_load(&parked) < PARKED) sched_yield();
  result = (rss_bytes() - before) / PARKED;
  pthread_mutex_unlock(&gate);
  for (long i = 0; i < PARKED; i++) pthread_join(threads[i], NULL);
  return result;
}

static const struct {
  const char *question, *unit;
  double (*run)(const struct peer *peer);
} questions[] = {{"spawn_join", "ns", spawn_join}, {"spawn_many", "ns", spawn_many},
                 {"yield_2", "ns", yield_2},       {"chan_pingpong", "ns", chan_pingpong},
                 {"mutex_8", "ns", mutex_8},       {"mem_parked", "B", mem_parked}};

static int chosen;

static void run(const struct peer *peer, double *values) {
  stay_on_cpu(-1, peer->workers);
  values[0] = questions[chosen].run(peer);
}

int main(int argc, char **argv) {
  const int count = sizeof questions / sizeof questions[0];
  const char *question = peer_option(&argc, argv, "--as");
  while (chosen < count && (!question || strcmp(question, questions[chosen].question) != 0)) chosen++;
  if (chosen == count) peer_die("--as QUESTION: which one?");
  struct peer peer = {.impl = "threads", .question = question, .metrics = {{"", questions[chosen].unit}}, .run = run};
  return peer_main(argc, argv, &peer);
}
