/* wake_latency: how long it takes from waking a thread that waits for a condition variable until it runs; as
 * bench/b_wake_latency.c. There is no "free": a thread needs nobody to take it. */
#include <pthread.h>
#include <stdatomic.h>

#include "../../cpus.h"
#include "../frame.h"

#define SLEEPING_WAKES 2000L
#define SPINNING_WAKES 100000L
#define CALM_NS 2000000
#define WAKES_MAX SPINNING_WAKES

struct pair {
  bool is_spinning;
  long wakes;
  pthread_mutex_t mutex;
  pthread_cond_t gate;
  long sent;       /* under mutex */
  int64_t sent_ns; /* under mutex */
  _Atomic(long) done;
  double us[WAKES_MAX];
};

static void *sleeper(void *arg) {
  struct pair *pair = arg;
  stay_on_cpu(1, 2);
  for (long i = 1; i <= pair->wakes; i++) {
    pthread_mutex_lock(&pair->mutex);
    while (pair->sent < i) pthread_cond_wait(&pair->gate, &pair->mutex);
    int64_t sent_ns = pair->sent_ns;
    pthread_mutex_unlock(&pair->mutex);
    pair->us[i - 1] = (double)(peer_now() - sent_ns) / 1e3;
    atomic_store(&pair->done, i);
  }
  return NULL;
}

static void *waker(void *arg) {
  struct pair *pair = arg;
  const struct timespec calm = {.tv_nsec = CALM_NS};
  stay_on_cpu(0, 2);
  for (long i = 1; i <= pair->wakes; i++) {
    int64_t until_ns = peer_now() + 1000 * (2 + (i * 7) % 9);
    if (pair->is_spinning)
      while (peer_now() < until_ns) {}
    else nanosleep(&calm, NULL);
    pthread_mutex_lock(&pair->mutex);
    pair->sent_ns = peer_now();
    pair->sent = i;
    pthread_mutex_unlock(&pair->mutex);
    pthread_cond_signal(&pair->gate);
    while (atomic_load(&pair->done) < i) {}
  }
  return NULL;
}

static double *measure(bool is_spinning, long wakes) {
  static struct pair pair;
  pair = (struct pair){.is_spinning = is_spinning, .wakes = wakes};
  pthread_mutex_init(&pair.mutex, NULL);
  pthread_cond_init(&pair.gate, NULL);
  pthread_t threads[2];
  if (pthread_create(&threads[0], NULL, sleeper, &pair) != 0 || pthread_create(&threads[1], NULL, waker, &pair) != 0)
    peer_die("pthread_create failed");
  pthread_join(threads[0], NULL);
  pthread_join(threads[1], NULL);
  peer_check("wakes", (uint64_t)pair.done, (uint64_t)wakes);
  return pair.us;
}

static void run(const struct peer *peer, double *values) {
  static const double sleeping[] = {.5, .9, .99, .999}, spinning[] = {.5, .9, .99, .999, .9999};
  if (peer->workers == 1) {
    for (int i = 0; i < PEER_METRICS_MAX; i++) values[i] = NAN;
    return;
  }
  long wakes = peer_count(peer, SLEEPING_WAKES);
  double *us = measure(false, wakes);
  for (int i = 0; i < 4; i++) values[i] = peer_quantile(us, wakes, sleeping[i]);
  values[4] = us[wakes - 1];
  for (long i = 0; i < wakes; i++) hdr_record(peer->histogram, (uint64_t)(us[i] * 1e3));
  wakes = peer_count(peer, SPINNING_WAKES);
  us = measure(true, wakes);
  for (int i = 0; i < 5; i++) values[5 + i] = peer_quantile(us, wakes, spinning[i]);
}

int main(int argc, char **argv) {
  static struct hdr histogram;
  struct peer peer = {.impl = "threads",
                      .question = "wake_latency",
                      .metrics = {{"", "us"},
                                  {"p90", "us"},
                                  {"p99", "us"},
                                  {"p99.9", "us"},
                                  {"max", "us"},
                                  {"spinning", "us"},
                                  {"spinning p90", "us"},
                                  {"spinning p99", "us"},
                                  {"spinning p99.9", "us"},
                                  {"spinning p99.99", "us"}},
                      .run = run,
                      .histogram = &histogram};
  return peer_main(argc, argv, &peer);
}
