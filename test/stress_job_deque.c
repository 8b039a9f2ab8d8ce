/* The deque of a worker (runq.c, runq.h) with work that has no fiber yet: every record comes out exactly once.
 *
 * usage: stress_job_deque [rounds] [seed]
 *
 * One thread plays the owner: it pushes records of jobs and of forks in bursts that make the deque grow, takes back
 * forks as who forks does, runs jobs as a carrier does, and pops. Three others steal from it and from each other, many
 * jobs at a time. Now and then there is no memory for a fiber, and the record goes back. COIR_NO_MEMBARRIER=1 tests the
 * fences' fallback. */
#include "harness.h"
#include "runq.h"

#define RECORDS 20000
#define PLAYERS 4
#define BURST_MAX 3000

/* Stands for a job, or for the side of a fork. */
struct record {
  _Alignas(COIR__LINE) struct coir__lean lean;
  uintptr_t tag;
  _Atomic(int) taken;
};

static struct coir_runtime *rt;
static struct record *records;
static struct coir_fiber *fibers; /* one for each record; they never run */
static _Atomic(int) taken, put_back;
static pthread_barrier_t barrier;
static uint64_t seed, rounds_wanted;

static struct coir_fiber *entry_of(const struct record *r) { return (struct coir_fiber *)((uintptr_t)r | r->tag); }

static void came_out(struct record *r) {
  CHECK(r >= records && r < records + RECORDS);
  CHECK_EQ(atomic_fetch_add(&r->taken, 1), 0);
  atomic_fetch_add(&taken, 1);
}

static struct coir_fiber *binds(struct coir__worker *w, struct coir__lean *lean) {
  struct record *r = (struct record *)lean;
  static _Atomic(uint32_t) calls;
  if (atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) % 256 != 255) return &fibers[r - records];
  atomic_fetch_add(&put_back, 1);
  CHECK(coir__runq_push_lean(w, entry_of(r)));
  return NULL;
}

static void came_out_bound(struct coir_fiber *f) { came_out(&records[f - fibers]); }

static uint64_t stolen(void) {
  uint64_t sum = 0;
  for (int i = 0; i < PLAYERS; i++) sum += rt->workers[i]->counts.steals;
  return sum;
}

static void push(struct coir__worker *w, int i, bool is_fork) {
  records[i].tag = is_fork ? COIR__LEAN_FORK : COIR__LEAN_JOB;
  CHECK(coir__runq_push_lean(w, entry_of(&records[i])));
}

/* Forks a few deep, and takes back what is still the newest, innermost first. */
static int fork_and_join(struct coir__worker *w, int pushed, int depth) {
  int from = pushed;
  for (int i = 0; i < depth && pushed < RECORDS; i++) push(w, pushed++, true);
  for (int i = pushed; i-- > from;)
    if (coir__runq_take_lean(w, entry_of(&records[i]))) came_out(&records[i]);
  return pushed;
}

static void run_jobs(struct coir__worker *w, int n) {
  w->tick = n;
  for (struct coir__lean *lean; n > 0 && (lean = coir__runq_pop_job(w)); n--) came_out((struct record *)lean);
}

/* A few jobs that the owner takes back at once, while thieves are about to take half of them. */
static int push_a_few(struct coir__worker *w, int pushed, uint64_t *rng) {
  for (int left = 4 + (int)(rng_next(rng) % 6); left > 0 && pushed < RECORDS; left--) push(w, pushed++, false);
  for (int spins = (int)(rng_next(rng) % 512); spins > 0; spins--) coir__pause();
  run_jobs(w, RECORDS);
  return pushed;
}

/* One or two forks at a time, so that owner and thief meet at the last. */
static int fork_a_few(struct coir__worker *w, int pushed, uint64_t *rng) {
  for (int times = 16; times > 0; times--) {
    int from = pushed;
    for (int left = 1 + (int)(rng_next(rng) % 2); left > 0 && pushed < RECORDS; left--) push(w, pushed++, true);
    for (int spins = (int)(rng_next(rng) % 64); spins > 0; spins--) coir__pause();
    for (int i = pushed; i-- > from;)
      if (coir__runq_take_lean(w, entry_of(&records[i]))) came_out(&records[i]);
  }
  return pushed;
}

static int push_a_burst(struct coir__worker *w, int pushed, uint64_t *rng) {
  int burst = (int)(rng_next(rng) % (rng_next(rng) % 8 ? 8 : BURST_MAX));
  int pops = (int)(rng_next(rng) % (rng_next(rng) % 8 ? 8 : BURST_MAX));
  bool is_mixed = rng_next(rng) % 2;
  for (; burst > 0 && pushed < RECORDS; burst--) push(w, pushed++, is_mixed && rng_next(rng) % 8 == 0);
  if (rng_next(rng) % 2) pushed = fork_and_join(w, pushed, (int)(rng_next(rng) % 8));
  if (rng_next(rng) % 2) run_jobs(w, pops);
  for (struct coir_fiber *f; pops > 0 && (f = coir__runq_pop(w)); pops--) came_out_bound(f);
  return pushed;
}

static void owner_round(struct coir__worker *w, uint64_t *rng) {
  int pushed = 0;
  /* Otherwise the round may be over before the thieves have begun. */
  for (uint64_t before = stolen(); pushed < 100; pushed++) {
    push(w, pushed, false);
    while (pushed == 99 && stolen() == before) coir__os_thread_yield();
  }
  while (pushed < RECORDS) {
    if (rng_next(rng) % 256 == 0) coir__os_thread_yield();
    uint64_t how = rng_next(rng) % 16;
    if (how == 0) pushed = push_a_burst(w, pushed, rng);
    else if (how < 8) pushed = push_a_few(w, pushed, rng);
    else pushed = fork_a_few(w, pushed, rng);
  }
}

static void *player(void *arg) {
  int me = (int)(intptr_t)arg;
  struct coir__worker *w = rt->workers[me];
  uint64_t rng = rng_seed(seed * PLAYERS + (uint64_t)me);
  for (uint64_t round = 0; round < rounds_wanted; round++) {
    pthread_barrier_wait(&barrier);
    if (me == 0) owner_round(w, &rng);
    while (atomic_load(&taken) < RECORDS) {
      run_jobs(w, (int)(rng_next(&rng) % 4));
      struct coir_fiber *f = coir__runq_pop(w);
      int victim = (int)(rng_next(&rng) % 4 ? 0 : rng_next(&rng) % PLAYERS);
      if (!f && victim != me) f = coir__runq_steal(w, rt->workers[victim], rng_next(&rng) % 2);
      if (f) came_out_bound(f);
      else if (rng_next(&rng) % 4 == 0) coir__os_thread_yield();
    }
    pthread_barrier_wait(&barrier);
    CHECK(!coir__runq_pop(w));
    CHECK_EQ(coir__runq_length(w), 0);
    if (me) continue;
    for (int i = 0; i < RECORDS; i++) {
      CHECK_EQ(records[i].taken, 1);
      records[i].taken = 0;
    }
    taken = 0;
  }
  return NULL;
}

/* Without thieves: the newest comes out first for the owner, and the oldest for who steals. */
static void check_order(void) {
  struct coir__worker *w = rt->workers[0], *thief = rt->workers[1];
  for (int i = 0; i < 10; i++) push(w, i, true);
  CHECK(!coir__runq_take_lean(w, entry_of(&records[8])));
  CHECK(coir__runq_take_lean(w, entry_of(&records[9])));
  CHECK(!coir__runq_take_lean(w, entry_of(&records[9])));
  CHECK(coir__runq_steal(thief, w, false) == &fibers[0]);
  CHECK(coir__runq_steal(thief, w, false) == &fibers[1]);
  CHECK(coir__runq_pop(w) == &fibers[8]);
  for (int i = 7; i >= 2; i--) CHECK(coir__runq_pop(w) == &fibers[i]);
  CHECK(!coir__runq_pop(w));
  for (int i = 0; i < 10; i++) push(w, i, false);
  CHECK(coir__runq_steal(thief, w, false) == &fibers[0]);
  CHECK_EQ(coir__runq_length(w) + coir__runq_length(thief), 9);
#ifndef COIR_HARD /* there one is */
  CHECK(coir__runq_length(thief) > 0); /* jobs are taken many at a time, and the oldest runs first */
#endif
  for (int i = 1; coir__runq_length(thief) > 0; i++) CHECK(coir__runq_pop(thief) == &fibers[i]);
  for (int i = 9; coir__runq_length(w) > 0; i--) CHECK(coir__runq_pop(w) == &fibers[i]);
}

int main(int argc, char **argv) {
  rounds_wanted = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)rounds(500);
  seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  fprintf(stderr, "stress_job_deque %llu %llu\n", (unsigned long long)rounds_wanted, (unsigned long long)seed);
  rt = make_runtime((struct coir_config){.workers = PLAYERS});
  if (getenv("COIR_NO_MEMBARRIER")) CHECK(!coir__fence_asymmetric);
  fibers = aligned_alloc(_Alignof(struct coir_fiber), RECORDS * sizeof *fibers);
  records = aligned_alloc(_Alignof(struct record), RECORDS * sizeof *records);
  CHECK(fibers && records);
  memset(fibers, 0, RECORDS * sizeof *fibers);
  for (int i = 0; i < RECORDS; i++) records[i] = (struct record){.lean = {binds}};
  check_order();
  pthread_barrier_init(&barrier, NULL, PLAYERS);
  pthread_t threads[PLAYERS];
  for (intptr_t i = 0; i < PLAYERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, player, (void *)i), 0);
  for (int i = 0; i < PLAYERS; i++) pthread_join(threads[i], NULL);
  fprintf(stderr, "%llu stolen, %d put back\n", (unsigned long long)stolen(), put_back);
  pthread_barrier_destroy(&barrier);
  free(fibers);
  free(records);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return 0;
}
