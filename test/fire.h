/* What the fire programs share. fire_c and fire_cxx run many fibers that compute, in all the ways of ordinary programs,
 * with a quantum so short that each is paused thousands of times a second: in the middle of malloc, of printf, of an
 * exception that unwinds, with locks held and registers full. Whatever they compute is checked.
 *
 *     usage: fire_c [SECONDS]       COIR_FIRE_SECONDS, default 10; COIR_WORKERS; FIRE_SEED, FIRE_HOGS
 *
 * A program has a list of things to do. Each hog chooses from it at random, until the time is over. When none gets
 * anything done for a minute the program says what each is at, and aborts. For C and C++. */
#ifndef COIR_TEST_FIRE_H
#define COIR_TEST_FIRE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"
#include "sanitizers.h"

#define FIRE_CHECK(x)                                                   \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      abort();                                                          \
    }                                                                   \
  } while (0)

#define FIRE_HOGS_MAX 256
#define FIRE_ACTS_MAX 32
#define FIRE_STUCK_SECONDS 60

struct fire_hog {
  uint64_t rng;
  int number;
  const char *act; /* what it is at */
  uint64_t turns[FIRE_ACTS_MAX];
};

/* One thing that hogs do: in a millisecond or so, and without an end that depends on others. */
struct fire_act {
  const char *name;
  void (*fn)(struct fire_hog *hog);
};

static struct {
  const struct fire_act *acts;
  int act_count, hog_count, seconds;
  uint64_t seed;
  int64_t end;
  struct fire_hog hogs[FIRE_HOGS_MAX];
  unsigned begun;
  int is_over;
} fire;

static inline uint64_t fire_random(struct fire_hog *hog) {
  uint64_t x = hog->rng;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return hog->rng = x;
}

static inline void fire_compute(int turns) {
  for (int i = 0; i < turns; i++) __asm__ volatile("" ::: "memory");
}

static int fire_be_a_hog(void *arg) {
  struct fire_hog *hog = (struct fire_hog *)arg;
  for (;;) {
    /* Each act once, however slow this machine is. */
    unsigned choice = __atomic_fetch_add(&fire.begun, 1, __ATOMIC_RELAXED);
    if (choice >= (unsigned)fire.act_count) {
      if (coir_now() >= fire.end) break;
      choice = (unsigned)(fire_random(hog) % (uint64_t)fire.act_count);
    }
    __atomic_store_n(&hog->act, fire.acts[choice].name, __ATOMIC_RELAXED);
    fire.acts[choice].fn(hog);
    __atomic_store_n(&hog->turns[choice], hog->turns[choice] + 1, __ATOMIC_RELAXED);
  }
  __atomic_store_n(&hog->act, (const char *)"nothing more", __ATOMIC_RELAXED);
  return 0;
}

static inline uint64_t fire_turns(int act) {
  uint64_t n = 0;
  for (int i = 0; i < fire.hog_count; i++) n += __atomic_load_n(&fire.hogs[i].turns[act], __ATOMIC_RELAXED);
  return n;
}

/* On a thread of its own: looks whether anything goes on. */
static void *fire_watch(void *unused) {
  uint64_t last = UINT64_MAX;
  int since = 0;
  while (!__atomic_load_n(&fire.is_over, __ATOMIC_ACQUIRE)) {
    uint64_t sum = 0;
    usleep(100000);
    for (int i = 0; i < fire.act_count; i++) sum += fire_turns(i);
    since = sum == last ? since + 1 : 0;
    last = sum;
    if (since < FIRE_STUCK_SECONDS * 10) continue;
    fprintf(stderr, "fire: nobody has got anything done for %d s; they are at:\n", FIRE_STUCK_SECONDS);
    for (int i = 0; i < fire.hog_count; i++)
      fprintf(stderr, " %d %s\n", i, __atomic_load_n(&fire.hogs[i].act, __ATOMIC_RELAXED));
    abort();
  }
  return unused;
}

static inline int fire_number(const char *text, int otherwise) {
  int n = text ? atoi(text) : 0;
  return n > 0 ? n : otherwise;
}

/* The first fiber. */
static int fire_burn(void *unused) {
  static struct coir_fiber *fibers[FIRE_HOGS_MAX];
  (void)unused;
  fire.end = coir_after(COIR_SEC(fire.seconds));
  for (int i = 0; i < fire.hog_count; i++) {
    fire.hogs[i].number = i;
    fire.hogs[i].act = "nothing yet";
    fire.hogs[i].rng = (fire.seed + (uint64_t)i + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    FIRE_CHECK(coir_spawn(fire_be_a_hog, &fire.hogs[i], NULL, &fibers[i]) == 0);
  }
  for (int i = 0; i < fire.hog_count; i++) FIRE_CHECK(coir_join(fibers[i], NULL, COIR_NEVER) == 0);
  return 0;
}

/* Runs the hogs; afterwards every act has been done, and hogs have been paused. */
static int fire_main(int argc, char **argv, const struct fire_act *acts, int act_count) {
  struct coir_runtime *rt = NULL;
  struct coir_config config;
  struct coir_stats stats;
  pthread_t watcher;
  int status = -1;
  memset(&config, 0, sizeof config);
  config.size = sizeof config;
  config.preempt = COIR_ON;
  config.quantum_us = 100;
  fire.acts = acts;
  fire.act_count = act_count;
  fire.seconds = fire_number(argc > 1 ? argv[1] : getenv("COIR_FIRE_SECONDS"), 10);
  fire.hog_count = fire_number(getenv("FIRE_HOGS"), IS_SANITIZED ? 16 : 32);
  fire.seed = (uint64_t)fire_number(getenv("FIRE_SEED"), (int)(coir_now() / 1000 % 1000000) + 1);
  FIRE_CHECK(act_count <= FIRE_ACTS_MAX && fire.hog_count <= FIRE_HOGS_MAX);
  printf("%d hogs for %d s, seed %llu\n", fire.hog_count, fire.seconds, (unsigned long long)fire.seed);
  fflush(stdout);
  FIRE_CHECK(coir_runtime_create(&rt, &config) == 0);
  FIRE_CHECK(pthread_create(&watcher, NULL, fire_watch, NULL) == 0);
  FIRE_CHECK(coir_runtime_run(rt, fire_burn, NULL, &status) == 0 && status == 0);
  __atomic_store_n(&fire.is_over, 1, __ATOMIC_RELEASE);
  FIRE_CHECK(pthread_join(watcher, NULL) == 0);
  coir_runtime_get_stats(rt, &stats);
  FIRE_CHECK(coir_runtime_destroy(rt) == 0);
  for (int i = 0; i < act_count; i++) printf("%12llu %s\n", (unsigned long long)fire_turns(i), acts[i].name);
  printf("%d workers, %llu preemptions, %llu hand-offs\n", stats.workers, (unsigned long long)stats.preemptions,
         (unsigned long long)stats.handoffs);
  for (int i = 0; i < act_count; i++) FIRE_CHECK(fire_turns(i) > 0);
  FIRE_CHECK(stats.preemptions > 0);
  return 0;
}

#endif
