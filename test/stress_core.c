/* Random mixes of everything that the core offers, with every fiber accounted for exactly once.
 *
 * usage: stress_core [seed] [seconds]
 *
 * Runtime a is run by the main thread, runtime b serves in the background, short-lived ones come and go. Fibers of a
 * and b, and plain threads, spawn nodes in both, and join, detach or cancel them. A node is freed by the later of
 * its fiber and whoever made it; each of the two checks what the other must have done. */
#include "harness.h"

static struct coir_runtime *runtimes[2];
static _Atomic(uint64_t) made, ended, released, joined, cancels;
static _Atomic(int) threads_left;
static uint64_t seed;
static int64_t until;

struct node {
  _Atomic(int) refs, runs, ends;
  uint32_t depth;
  uint64_t rng;
};

static void node_release(struct node *n, bool ends) {
  if (ends) CHECK_EQ(atomic_fetch_add(&n->ends, 1), 0);
  if (atomic_fetch_sub(&n->refs, 1) != 1) return;
  CHECK_EQ(n->runs, 1);
  CHECK_EQ(n->ends, 1);
  atomic_fetch_add(&released, 1);
  free(n);
}

static int status_of(const struct node *n) { return (int)((uintptr_t)n >> 4 & 0x7fffffff); }
static int node_run(void *node);

static struct coir_attr random_attr(uint64_t *rng) {
  struct coir_attr attr = {0};
  uint64_t x = rng_next(rng);
  attr.order = (enum coir_order)(x % 8 == 0);
  if (x / 8 % 16 == 0) attr.priority = (enum coir_priority)(x / 128 % 3 - 1);
  attr.pinned = x / 512 % 16 == 0;
  if (x / 8192 % 16 == 0) attr.worker = COIR_WORKER(0);
  if (x / 131072 % 32 == 0) attr.stack_bytes = (size_t)128 << 10;
  return attr;
}

static struct coir_fiber *node_make(uint64_t *rng, uint32_t depth, struct node **out) {
  struct node *n = calloc(1, sizeof *n);
  CHECK(n);
  n->refs = 2;
  n->depth = depth;
  n->rng = rng_seed(rng_next(rng));
  struct coir_fiber *f = NULL;
  struct coir_attr attr = random_attr(rng);
  struct coir_runtime *rt = runtimes[rng_next(rng) % 4 == 0];
  atomic_fetch_add(&made, 1);
  if (coir_runtime_current() == rt && rng_next(rng) % 2) CHECK_EQ(coir_spawn(node_run, n, &attr, &f), 0);
  else CHECK_EQ(coir_runtime_spawn(rt, node_run, n, &attr, &f), 0);
  *out = n;
  return f;
}

/* Gives up the handle of `f` in one way or another. */
static void node_finish(uint64_t *rng, struct coir_fiber *f, struct node *n) {
  uint64_t how = rng_next(rng);
  if (how % 4 == 0) {
    int rc = coir_cancel(f);
    CHECK(rc == 0 || rc == -ESRCH);
    atomic_fetch_add(&cancels, 1);
  }
  if (how / 4 % 4 == 0) {
    coir_detach(f);
    node_release(n, false);
    return;
  }
  struct coir_result r = {0};
  int64_t deadline = how / 16 % 2 ? COIR_NEVER : coir_now() + (int64_t)(how / 32 % 20000);
  int rc;
  while ((rc = coir_join(f, &r, deadline)) != 0) {
    CHECK(rc == -ETIMEDOUT || rc == -ECANCELED);
    if (rc == -ETIMEDOUT) {
      CHECK(deadline != COIR_NEVER && coir_now() >= deadline);
      deadline = COIR_NEVER;
    }
  }
  CHECK_EQ(r.status, status_of(n));
  CHECK(r.value == n);
  atomic_fetch_add(&joined, 1);
  node_release(n, false);
}

static void nap(uint64_t *rng) {
  int64_t deadline = coir_now() + (int64_t)(rng_next(rng) % 100000);
  int rc = coir_sleep_until(deadline);
  CHECK(rc == 0 || rc == -ECANCELED);
  if (rc == 0) CHECK(coir_now() >= deadline);
}

static int node_run(void *arg) {
  struct node *n = arg;
  CHECK_EQ(atomic_fetch_add(&n->runs, 1), 0);
  coir_set_value(n);
  struct coir_fiber *self = coir_current();
  uint64_t id = coir_fiber_id(NULL);
  for (uint64_t steps = rng_next(&n->rng) % 8; steps; steps--) {
    uint64_t what = rng_next(&n->rng) % 16;
    if (what < 6) {
      coir_yield();
    } else if (what < 10) {
      nap(&n->rng);
    } else if (what < 11) {
      CHECK_EQ(coir_cancel(self), 0);
      CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
    } else if (n->depth < 3) {
      struct node *child;
      struct coir_fiber *f = node_make(&n->rng, n->depth + 1, &child);
      if (what < 13) coir_yield();
      node_finish(&n->rng, f, child);
    }
    CHECK(coir_current() == self && coir_fiber_id(NULL) == id);
  }
  int status = status_of(n);
  atomic_fetch_add(&ended, 1);
  node_release(n, true);
  return status;
}

static void work(uint64_t rng) {
  while (coir_now() < until) {
    struct coir_fiber *f[16];
    struct node *n[16];
    uint64_t count = 1 + rng_next(&rng) % 16;
    for (uint64_t i = 0; i < count; i++) f[i] = node_make(&rng, 0, &n[i]);
    for (uint64_t i = 0; i < count; i++) node_finish(&rng, f[i], n[i]);
  }
}

static int worker_fiber(void *arg) {
  work(rng_seed(seed + (uint64_t)(intptr_t)arg));
  return 0;
}

static void *worker_thread(void *arg) {
  work(rng_seed(seed + (uint64_t)(intptr_t)arg));
  atomic_fetch_sub(&threads_left, 1);
  return NULL;
}

/* A runtime that is destroyed the moment its only fiber has joined one of runtime b. */
static int visit(void *rng) {
  struct node *n;
  struct coir_fiber *f = node_make(rng, 2, &n);
  node_finish(rng, f, n);
  return 0;
}

static int lingers(void *arg) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)arg + 1);
  for (;;) {
    if (rng_next(&rng) % 2) coir_yield();
    else if (coir_sleep((int64_t)(rng_next(&rng) % 300000)) != 0 && rng_next(&rng) % 2) return 1;
    struct coir_fiber *f;
    if (rng_next(&rng) % 16 == 0 && coir_spawn(lingers, (void *)(uintptr_t)rng, NULL, &f) == 0) {
      if (coir_join(f, NULL, coir_after(COIR_US(100))) != 0) coir_detach(f);
      return 0;
    }
  }
}

static void *short_lived(void *arg) {
  uint64_t rng = rng_seed(seed + (uint64_t)(intptr_t)arg);
  while (coir_now() < until) {
    CHECK_EQ(run_with((struct coir_config){.workers = 1 + (int)(rng_next(&rng) % 2)}, visit, &rng), 0);
    if (rng_next(&rng) % 4) continue;
    struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1 + (int)(rng_next(&rng) % 3)});
    for (int i = 0; i < 2; i++) {
      CHECK_EQ(coir_runtime_start(rt), 0);
      for (int j = 0; j < 10; j++)
        CHECK_EQ(coir_runtime_spawn(rt, lingers, (void *)(uintptr_t)rng_next(&rng), NULL, NULL), 0);
      coir_sleep((int64_t)(rng_next(&rng) % 500000));
      CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
    }
    CHECK_EQ(coir_runtime_destroy(rt), 0);
  }
  atomic_fetch_sub(&threads_left, 1);
  return NULL;
}

static int everything(void *arg) {
  (void)arg;
  struct coir_fiber *f[8];
  for (intptr_t i = 0; i < 8; i++) f[i] = spawn(worker_fiber, (void *)(i + 10));
  for (int i = 0; i < 8; i++) CHECK_EQ(join(f[i]), 0);
  WAIT_FOR(atomic_load(&threads_left) == 0); /* they spawn here */
  return 0;
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
  fprintf(stderr, "stress_core %llu %g\n", (unsigned long long)seed, seconds);
  until = coir_after((int64_t)(seconds * 1e9));
  struct coir_config config = {.migrate = seed % 8 == 1 ? COIR_ON : COIR_DEFAULT,
                               .affinity = seed % 8 == 2 ? COIR_ON : COIR_DEFAULT,
                               .rebalance = seed % 8 == 3 ? COIR_ON : COIR_DEFAULT,
                               .guard = seed % 8 == 4 ? COIR_GUARD_CANARY : COIR_GUARD_AUTO,
                               .pollers = seed % 8 == 5,
                               .steal = seed % 8 == 6 ? COIR_OFF : COIR_DEFAULT};
  runtimes[0] = make_runtime(config);
  runtimes[1] = make_runtime(config);
  CHECK_EQ(coir_runtime_start(runtimes[1]), 0);
  pthread_t threads[3];
  threads_left = 3;
  for (intptr_t i = 0; i < 3; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, i < 2 ? worker_thread : short_lived, (void *)(i + 100)), 0);
  int status = -1;
  CHECK_EQ(coir_runtime_run(runtimes[0], everything, NULL, &status), 0);
  CHECK_EQ(status, 0);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  /* Detached nodes of b may still wait for fibers of a, and the other way round. */
  while (atomic_load(&made) != atomic_load(&ended)) CHECK_EQ(coir_runtime_run(runtimes[0], NULL, NULL, NULL), 0);
  CHECK_EQ(coir_runtime_stop(runtimes[1], COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_run(runtimes[0], NULL, NULL, NULL), 0);
  for (int i = 0; i < 2; i++) {
    struct coir_stats s;
    coir_runtime_get_stats(runtimes[i], &s);
    CHECK_EQ(s.fibers_live, 0);
    CHECK_EQ(s.injected, s.injected_taken);
    CHECK_EQ(s.parks, s.wakes);
    CHECK_EQ(coir_runtime_destroy(runtimes[i]), 0);
  }
  fprintf(stderr, "%llu fibers, %llu joined, %llu cancelled\n", (unsigned long long)made, (unsigned long long)joined,
          (unsigned long long)cancels);
  CHECK_EQ(made, ended);
  CHECK_EQ(made, released);
  return 0;
}
