/* See stand.h. The parts of the core that are under test are linked as they are; these functions take the place of
 * those of src/os, of fiber.c that switch stacks, and of what cases do not want. */
#include "stand.h"

struct coir_runtime stand_runtime;
struct coir__worker stand_workers[STAND_WORKERS];
struct coir_fiber stand_fibers[STAND_FIBERS];
struct coir__thread stand_threads[EX_THREADS_MAX];
struct ex_event stand_ready[STAND_FIBERS];
struct ex_event *stand_left[STAND_FIBERS];
int stand_parks[STAND_FIBERS];
bool stand_is_off[STAND_FIBERS];

static struct coir__worker *workers[STAND_WORKERS];
static struct coir__poller {
  _Atomic(uint32_t) bell;
} pollers[STAND_WORKERS];
static struct coir__poller *poller_list[STAND_WORKERS];
static int errnos[EX_THREADS_MAX];

void stand_setup(int count) {
  struct coir_runtime *rt = &stand_runtime;
  coir__fence_asymmetric = true;
  rt->worker_count = count;
  rt->workers = workers;
  rt->pollers = poller_list;
  atm_store_rlx(&rt->tuned.steal, 1);
  atm_store_rlx(&rt->phase, COIR__PHASE_SERVE);
  for (int i = 0; i < count; i++) {
    struct coir__worker *w = workers[i] = &stand_workers[i];
    w->index = (uint32_t)i;
    w->rt = rt;
    w->rng = 1;
    w->poller = poller_list[i] = &pollers[i];
    w->tick = w->tick_limit = 100;
    coir__timers_init(&w->timers, ex_now());
    coir__bias_attach(w);
    EX_CHECK(coir__runq_init(w) == 0);
  }
  for (int i = 0; i < STAND_FIBERS; i++) {
    stand_fibers[i].rt = rt;
    stand_fibers[i].id = (uint64_t)i + 1;
    stand_fibers[i].b.worker = -1;
  }
  for (int i = 0; i < EX_THREADS_MAX; i++) {
    stand_threads[i].waiter.is_thread = 1;
    stand_threads[i].errno_location = &errnos[i];
    stand_threads[i].is_own = true; /* nobody looks for deadlocks */
    stand_threads[i].next = i + 1 < EX_THREADS_MAX ? &stand_threads[i + 1] : NULL;
  }
}

void stand_carry(int thread, int worker, struct coir_fiber *fiber) {
  struct coir__thread *t = &stand_threads[thread];
  struct coir__worker *w = &stand_workers[worker];
  atm_store_rlx(&t->worker, w);
  atm_store_rlx(&w->thread, t);
  w->errno_location = t->errno_location;
  atm_store_rlx(&t->in, 1);
  w->current = fiber;
  if (!fiber) return;
  fiber->b.worker = (int16_t)worker;
  fiber->b.flags |= COIR__FIBER_BOUND; /* it is made ready by coir__ready, and not by way of a queue */
}

int stand_index(const struct coir_fiber *fiber) { return (int)(fiber - stand_fibers); }

/* ---- The system ------------------------------------------------------------------------------------------------ */

bool coir__fence_asymmetric;
void coir__fence_heavy(void) { ex_fence_all(); }
int64_t coir__os_now(void) { return ex_now(); }
void coir__os_thread_yield(void) { ex_spin(); }
void coir__pause(void) { ex_spin(); }

void coir__lock_slow(struct coir__lock *lock) {
  while (!coir__lock_try(lock)) ex_spin();
}

int coir__os_futex_wait(_Atomic(uint32_t) *word, uint32_t value, int64_t deadline) {
  return ex_sleep(word, value, deadline) ? 0 : -ETIMEDOUT;
}
void coir__os_futex_wake(_Atomic(uint32_t) *word, int count) { ex_wake(word, count); }

struct coir__thread *coir__thread_peek(void) { return ex_me() < 0 ? NULL : &stand_threads[ex_me()]; }
struct coir__thread *coir__thread_get(void) { return coir__thread_peek(); }
struct coir__thread *coir__thread_first(void) { return &stand_threads[0]; }
void coir__thread_sleep_begin(struct coir__thread *t, uint64_t what) { (void)t, (void)what; }
void coir__thread_sleep_end(struct coir__thread *t) { (void)t; }

void *coir__alloc(struct coir_runtime *rt, size_t bytes) {
  (void)rt;
  return ex_alloc(bytes);
}
void coir__free(struct coir_runtime *rt, void *memory, size_t bytes) { (void)rt, (void)memory, (void)bytes; }

/* A wake is kept until somebody waits. */
int coir__poller_wait(struct coir__poller *p, int64_t deadline) {
  while (atm_xchg_sc(&p->bell, 0) == 0 && deadline > 0)
    if (!ex_sleep(&p->bell, 0, deadline)) break;
  return 0;
}
void coir__poller_wake(struct coir__poller *p) {
  if (atm_xchg_sc(&p->bell, 1) == 0) ex_wake(&p->bell, 1);
}
bool coir__poller_is_used(const struct coir__poller *p) {
  (void)p;
  return false;
}

void coir__runtime_thread_sleeps(void) {}
bool coir__runtime_idle(struct coir_runtime *rt, bool deep) { return (void)rt, (void)deep, false; }
bool coir__stack_has_surplus(const struct coir_runtime *rt) { return (void)rt, false; }
void coir__os_pause_signal_send(int tid, int signo) { (void)tid, (void)signo; } /* a case plays the handler */

/* ---- Fibers: each goes on where it is, on a thread of the case -------------------------------------------------- */

void coir__ready(struct coir__worker *w, struct coir_fiber *f) {
  (void)w;
  EX_CHECK(stand_is_off[stand_index(f)]); /* or two threads would be on one stack */
  ex_post(&stand_ready[stand_index(f)]);
}

/* Suspends: it is committed by who runs next on that worker, and goes on when it is made ready. */
void coir__switch_away(struct coir__worker *w, enum coir__after after) {
  struct coir_fiber *f = w->current;
  EX_CHECK(after == COIR__AFTER_PARK);
  stand_parks[stand_index(f)]++;
  stand_is_off[stand_index(f)] = true;
  if (stand_left[stand_index(f)]) ex_post(stand_left[stand_index(f)]);
  else coir__wait_commit(w, f);
  ex_await(&stand_ready[stand_index(f)]);
  stand_is_off[stand_index(f)] = false;
}

int coir_yield(void) {
  ex_spin();
  return 0;
}
