/* The run queue (runq.c) under thieves: every fiber comes out exactly once.
 *
 * usage: stress_runq [rounds] [seed]
 *
 * One thread plays the owner and pushes into next slot, ring and deque, in bursts that make them grow, and pops;
 * three others steal from it and from each other. The fibers are descriptors that never run. COIR_NO_MEMBARRIER=1
 * tests the fences' fallback. */
#include "harness.h"
#include "runq.h"

#define FIBERS 20000
#define PLAYERS 4
#define BURST_MAX 1500

static struct coir_runtime *rt;
static struct coir_fiber *fibers;
static _Atomic(uint8_t) *seen;
static _Atomic(int) taken;
static pthread_barrier_t barrier;
static uint64_t seed, rounds_wanted;

static void came_out(struct coir_fiber *f) {
  CHECK(f >= fibers && f < fibers + FIBERS);
  CHECK_EQ(atomic_fetch_add(&seen[f - fibers], 1), 0);
  atomic_fetch_add(&taken, 1);
}

static uint64_t stolen(void) {
  uint64_t sum = 0;
  for (int i = 0; i < PLAYERS; i++) sum += rt->workers[i]->counts.steals;
  return sum;
}

static void owner_round(struct coir__worker *w, uint64_t *rng) {
  int pushed = 0;
  /* Otherwise the round may be over before the thieves have begun. */
  for (uint64_t before = stolen(); pushed < 100; pushed++) {
    coir__runq_push(w, &fibers[pushed]);
    while (pushed == 99 && stolen() == before) coir__os_thread_yield();
  }
  while (pushed < FIBERS) {
    if (rng_next(rng) % 64 == 0) coir__os_thread_yield();
    int burst = (int)(rng_next(rng) % (rng_next(rng) % 8 ? 8 : BURST_MAX));
    for (; burst > 0 && pushed < FIBERS; burst--) {
      struct coir_fiber *f = &fibers[pushed++];
      uint64_t how = rng_next(rng) % 8;
      if (how < 4) coir__runq_push(w, f);
      else if (how < 6) coir__runq_push_lifo(w, f);
      else coir__runq_push_next(w, f);
    }
    int pops = (int)(rng_next(rng) % (rng_next(rng) % 8 ? 8 : BURST_MAX));
    for (struct coir_fiber *f; pops > 0 && (f = coir__runq_pop(w)); pops--) came_out(f);
  }
}

static void *player(void *arg) {
  int me = (int)(intptr_t)arg;
  struct coir__worker *w = rt->workers[me];
  uint64_t rng = rng_seed(seed * PLAYERS + (uint64_t)me);
  for (uint64_t round = 0; round < rounds_wanted; round++) {
    pthread_barrier_wait(&barrier);
    if (me == 0) owner_round(w, &rng);
    while (atomic_load(&taken) < FIBERS) {
      struct coir_fiber *f = coir__runq_pop(w);
      int victim = (int)(rng_next(&rng) % 4 ? 0 : rng_next(&rng) % PLAYERS);
      if (!f && victim != me) f = coir__runq_steal(w, rt->workers[victim], rng_next(&rng) % 2);
      if (!f) f = coir__lane_get(w, 1); /* what was too much for a ring */
      if (f) came_out(f);
      else if (rng_next(&rng) % 4 == 0) coir__os_thread_yield();
    }
    pthread_barrier_wait(&barrier);
    CHECK(!coir__runq_pop(w));
    CHECK_EQ(coir__runq_length(w), 0);
    if (me) continue;
    for (int i = 0; i < FIBERS; i++) {
      CHECK_EQ(seen[i], 1);
      seen[i] = 0;
    }
    taken = 0;
  }
  return NULL;
}

int main(int argc, char **argv) {
  rounds_wanted = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)rounds(200);
  seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  fprintf(stderr, "stress_runq %llu %llu\n", (unsigned long long)rounds_wanted, (unsigned long long)seed);
  rt = make_runtime((struct coir_config){.workers = PLAYERS});
  if (getenv("COIR_NO_MEMBARRIER")) CHECK(!coir__fence_asymmetric);
  fibers = aligned_alloc(_Alignof(struct coir_fiber), FIBERS * sizeof *fibers);
  seen = calloc(FIBERS, sizeof *seen);
  CHECK(fibers && seen);
  memset(fibers, 0, FIBERS * sizeof *fibers);
  pthread_barrier_init(&barrier, NULL, PLAYERS);
  pthread_t threads[PLAYERS];
  for (intptr_t i = 0; i < PLAYERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, player, (void *)i), 0);
  for (int i = 0; i < PLAYERS; i++) pthread_join(threads[i], NULL);
  fprintf(stderr, "%llu stolen\n", (unsigned long long)stolen());
  pthread_barrier_destroy(&barrier);
  free(fibers);
  free(seen);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return 0;
}
