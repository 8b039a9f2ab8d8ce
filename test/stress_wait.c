/* Three parties end the same wait within nanoseconds: the fiber that is joined, the deadline, and a cancellation.
 *
 * usage: stress_wait [seed] [seconds]
 *
 * In each round exactly one of them wins, none is lost, none comes twice. The frame in which the wait lay is
 * overwritten as soon as the call returns, so that a party that comes late finds garbage there. */
#include "harness.h"

#include <sched.h>

#define POISON_BYTES 2048

static struct coir_fiber *_Atomic victim; /* whom to cancel */
static _Atomic(int64_t) cancel_at;        /* when; 0: nothing to do */
static _Atomic(int) over;
static uint64_t sent;

static void __attribute__((noinline)) poison(void) {
  volatile char frame[POISON_BYTES];
  for (int i = 0; i < POISON_BYTES; i++) frame[i] = (char)0xa5;
  CHECK_EQ((unsigned char)frame[POISON_BYTES / 2], 0xa5);
}

static void *canceller(void *arg) {
  (void)arg;
  while (!atomic_load(&over)) {
    int64_t at = atomic_load(&cancel_at);
    if (!at) {
      sched_yield();
      continue;
    }
    while (coir_now() < at) {}
    CHECK_EQ(coir_cancel(atomic_load(&victim)), 0);
    sent++;
    atomic_store(&cancel_at, 0);
  }
  return NULL;
}

static int ends_at(void *at) {
  int64_t when = *(int64_t *)at;
  while (coir_now() < when) {}
  return 7;
}

static int sleeps_until(void *at) {
  (void)coir_sleep_until(*(int64_t *)at);
  return 7;
}

struct tally {
  uint64_t joined, timed_out, cancelled;
};

/* Joins until it succeeds. */
static void finish(struct coir_fiber *f, int64_t deadline, struct tally *t) {
  for (;;) {
    struct coir_result r = {0};
    int rc = coir_join(f, &r, deadline);
    poison();
    if (rc == 0) {
      t->joined++;
      CHECK_EQ(r.status, 7);
      return;
    }
    if (rc == -ETIMEDOUT) {
      CHECK(deadline != COIR_NEVER && coir_now() >= deadline);
      t->timed_out++;
      deadline = COIR_NEVER;
    } else {
      CHECK_EQ(rc, -ECANCELED);
      t->cancelled++;
    }
  }
}

static uint64_t seed;
static int64_t until;

static int fiber_rounds(void *arg) {
  (void)arg;
  uint64_t rng = rng_seed(seed), i = 0;
  struct tally t = {0};
  atomic_store(&victim, coir_current());
  for (; coir_now() < until; i++) {
    int64_t base = coir_now() + 2000, end = base + (int64_t)(rng_next(&rng) % 2000);
    int64_t deadline = base + (int64_t)(rng_next(&rng) % 2000);
    bool cancels = rng_next(&rng) % 4 != 0;
    struct coir_fiber *f = spawn(rng_next(&rng) % 4 ? ends_at : sleeps_until, &end);
    if (cancels) atomic_store(&cancel_at, base + (int64_t)(rng_next(&rng) % 2000));
    finish(f, deadline, &t);
    while (atomic_load(&cancel_at)) coir_yield();
    while (t.cancelled < sent) { /* it came when nobody waited: the next wait has it */
      CHECK_EQ(coir_sleep(rng_next(&rng) % 2 ? 0 : COIR_SEC(100)), -ECANCELED);
      poison();
      t.cancelled++;
    }
    CHECK_EQ(t.cancelled, sent);
    if (i % 16 == 0) CHECK_EQ(coir_sleep(0), 0); /* and no second time */
  }
  CHECK_EQ(t.joined, i);
  fprintf(stderr, "fiber: %llu rounds, %llu deadlines, %llu cancellations\n", (unsigned long long)t.joined,
          (unsigned long long)t.timed_out, (unsigned long long)t.cancelled);
  return 0;
}

/* The same with a plain thread that joins; nobody can cancel it. */
static void thread_rounds(struct coir_runtime *rt) {
  uint64_t rng = rng_seed(seed), i = 0;
  struct tally t = {0};
  for (; coir_now() < until; i++) {
    int64_t end = coir_now() + 2000 + (int64_t)(rng_next(&rng) % 60000);
    struct coir_fiber *f;
    CHECK_EQ(coir_runtime_spawn(rt, rng_next(&rng) % 2 ? ends_at : sleeps_until, &end, NULL, &f), 0);
    finish(f, end + (int64_t)(rng_next(&rng) % 20000) - 5000, &t);
  }
  CHECK_EQ(t.joined, i);
  CHECK_EQ(t.cancelled, 0);
  fprintf(stderr, "thread: %llu rounds, %llu deadlines\n", (unsigned long long)t.joined,
          (unsigned long long)t.timed_out);
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  int64_t ns = (int64_t)((argc > 2 ? strtod(argv[2], NULL) : 2) * 1e9);
  fprintf(stderr, "stress_wait %llu %g\n", (unsigned long long)seed, (double)ns / 1e9);
  until = coir_after(ns / 4 * 3);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, canceller, NULL), 0);
  CHECK_EQ(run(fiber_rounds, NULL), 0);
  atomic_store(&over, 1);
  pthread_join(thread, NULL);
  until = coir_after(ns / 4);
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  thread_rounds(rt);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return 0;
}
