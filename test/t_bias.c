/* The locks that lean towards a worker (bias.c): exclusion between owners, other workers and plain threads; who becomes
 * the owner, and who takes it away; the table of the owners' words; and what is left in the child of a fork. With
 * COIR_NO_MEMBARRIER=1 in the environment nobody may ever be the owner. */
#include "harness.h"

#include <sched.h>

#include "internal.h"

#define USES_MAX 5000 /* more than it takes to become the owner */
#define SLOTS 512

static bool may_own(void) { return coir__fence_asymmetric; }

static uint32_t owner_of(struct coir__bias *l) { return atm_load_acq(&l->owner); }
static bool is_owned(struct coir__bias *l) { return owner_of(l) & COIR__BIAS_OWNED; }

static void use(struct coir__bias *l, int times) {
  COIR_INSIDE;
  struct coir__worker *w = coir__carried();
  for (int i = 0; i < times; i++) {
    coir__bias_lock(w, l);
    coir__bias_unlock(w, l);
  }
}

/* The calling fiber's worker uses the lock until it owns it. Returns how often. */
static int use_until_owned(struct coir__bias *l) {
  COIR_INSIDE;
  struct coir__worker *w = coir__carried();
  int n = 0;
  for (; n < USES_MAX && owner_of(l) != w->bias; n++) use(l, 1);
  CHECK(!may_own() || owner_of(l) == w->bias);
  CHECK(may_own() || n == USES_MAX);
  return n;
}

static void *use_once(void *lock) {
  use(lock, 1);
  return NULL;
}

static void *use_often(void *lock) {
  use(lock, USES_MAX);
  return NULL;
}

/* On a thread of its own, for which the caller waits without giving way. */
static void on_thread(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, fn, arg), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static int run_one(coir_fn fn, void *arg) { return run_with((struct coir_config){.workers = 1}, fn, arg); }

/* ---- Owners ---------------------------------------------------------------------------------------------------- */

static int owns_and_loses(void *arg) {
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  struct coir__bias lock = {0};
  (void)arg;
  CHECK(w->bias_slot != 0);
  CHECK(!coir__bias_enter(w, &lock));
  int first = use_until_owned(&lock);
  CHECK(first > 1);
  if (!may_own()) return 0;
  CHECK(coir__bias_enter(w, &lock));
  CHECK(coir__bias_is_held(&lock));
  CHECK_EQ(atm_load_rlx(&lock.lock.held), 0);
  coir__bias_leave(w);
  CHECK(!coir__bias_is_held(&lock));
  on_thread(use_once, &lock); /* once is enough to lose it */
  CHECK(!is_owned(&lock));
  CHECK(!coir__bias_enter(w, &lock));
  use(&lock, 1);
  CHECK(!is_owned(&lock)); /* and not to get it back */
  CHECK(use_until_owned(&lock) >= first - 2);
  use(&lock, 10);
  CHECK_EQ(owner_of(&lock), w->bias);
  on_thread(use_once, &lock);
  use(&lock, first / 2); /* does not count once somebody else was there */
  on_thread(use_once, &lock);
  CHECK(use_until_owned(&lock) >= first - 2);
  return 0;
}

static void a_worker_comes_to_own_what_it_uses(void **state) {
  (void)state;
  run_one(owns_and_loses, NULL);
}

static void a_plain_thread_owns_nothing(void **state) {
  (void)state;
  struct coir__bias lock = {0};
  use(&lock, USES_MAX);
  CHECK_EQ(owner_of(&lock), 0);
  on_thread(use_often, &lock);
  CHECK_EQ(owner_of(&lock), 0);
}

static int owns(void *lock) {
  use_until_owned(lock);
  COIR_INSIDE;
  return (int)coir__self()->bias;
}

static void *owns_in_another_runtime(void *lock) {
  uint32_t before = owner_of(lock);
  int bias = run_one(owns, lock);
  CHECK(!may_own() || ((uint32_t)bias == owner_of(lock) && owner_of(lock) != before));
  return NULL;
}

static int owns_and_another_runtime_too(void *lock) {
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  use_until_owned(lock);
  on_thread(owns_in_another_runtime, lock);
  CHECK(!coir__bias_enter(w, lock));
  use_until_owned(lock);
  return 0;
}

static void the_worker_of_another_runtime_takes_it_away(void **state) {
  (void)state;
  struct coir__bias lock = {0};
  run_one(owns_and_another_runtime_too, &lock);
}

static struct coir__bias contended;
static _Atomic(bool) came_in;

static void *comes_in(void *arg) {
  use(&contended, 1);
  atomic_store(&came_in, true);
  return arg;
}

static int is_inside(void *arg) {
  pthread_t thread;
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  (void)arg;
  use_until_owned(&contended);
  coir__bias_lock(w, &contended);
  CHECK(coir__bias_is_held(&contended));
  CHECK_EQ(pthread_create(&thread, NULL, comes_in, NULL), 0);
  if (may_own()) SPIN_UNTIL(!is_owned(&contended)); /* it has been taken from us while we are inside */
  for (int64_t end = coir_after(COIR_MS(5)); coir_now() < end;) CHECK(!atomic_load(&came_in));
  coir__bias_unlock(w, &contended);
  SPIN_UNTIL(atomic_load(&came_in));
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 0;
}

static void nobody_comes_in_while_the_owner_is_inside(void **state) {
  (void)state;
  run_one(is_inside, NULL);
}

/* ---- Exclusion ------------------------------------------------------------------------------------------------- */

#define LOCKS 4
#define THREADS_MAX 8

struct guarded {
  _Alignas(COIR__LINE) struct coir__bias lock;
  uint32_t inside;
  uint64_t count, copy; /* plain: lost updates show */
};

static struct guarded guarded[LOCKS];
static _Atomic(bool) is_over;
static _Atomic(uint64_t) entered, grants;

static void enter(struct coir__worker *w, struct guarded *g) {
  coir__bias_lock(w, &g->lock);
  CHECK_EQ(g->inside++, 0);
  CHECK_EQ(g->count, g->copy);
  g->count++;
  g->copy++;
  CHECK_EQ(--g->inside, 0);
  coir__bias_unlock(w, &g->lock);
}

/* In bursts, some of which are long enough to become the owner. */
static int pounds(void *number) {
  uint64_t seed = rng_seed((uint64_t)(uintptr_t)number);
  while (!atomic_load(&is_over)) {
    struct guarded *g = &guarded[rng_next(&seed) % LOCKS];
    COIR_INSIDE;
    struct coir__worker *w = coir__carried();
    int burst = rng_next(&seed) % 4 ? (int)(rng_next(&seed) % 16) : 1500;
    for (int i = 0; i < burst; i++) enter(w, g);
    atomic_fetch_add(&entered, (uint64_t)burst);
    atomic_fetch_add(&grants, w && owner_of(&g->lock) == w->bias);
    coir_yield();
  }
  return 0;
}

static void *pounds_on_a_thread(void *number) {
  pounds(number);
  return NULL;
}

static int spawns_pounders(void *number) {
  uintptr_t first = (uintptr_t)number;
  struct coir_fiber *fibers[2 * THREADS_MAX];
  int n = 2 * coir_runtime_current()->worker_count;
  for (int i = 0; i < n; i++) fibers[i] = spawn(pounds, (void *)(first + (uintptr_t)i));
  for (int i = 0; i < n; i++) CHECK_EQ(join(fibers[i]), 0);
  return 0;
}

/* That many threads: of two runtimes, and about a third of them plain ones. */
static void exclude(int threads) {
  int plain = threads / 3, workers[2] = {(threads - plain + 1) / 2, (threads - plain) / 2};
  struct coir_runtime *rts[2] = {NULL, NULL};
  pthread_t ids[THREADS_MAX];
  memset(guarded, 0, sizeof guarded);
  atomic_store(&is_over, false);
  atomic_store(&entered, 0);
  atomic_store(&grants, 0);
  for (int i = 0; i < 2; i++) {
    if (workers[i] == 0) continue;
    rts[i] = make_runtime((struct coir_config){.workers = workers[i], .migrate = i});
    CHECK_EQ(coir_runtime_start(rts[i]), 0);
    CHECK_EQ(coir_runtime_spawn(rts[i], spawns_pounders, (void *)(uintptr_t)(100 * (i + 1)), NULL, NULL), 0);
  }
  for (int i = 0; i < plain; i++)
    CHECK_EQ(pthread_create(&ids[i], NULL, pounds_on_a_thread, (void *)(uintptr_t)(1 + i)), 0);
  coir_sleep(COIR_MS(120));
  WAIT_FOR(atomic_load(&entered) > 0 && (atomic_load(&grants) > 0 || !may_own()));
  atomic_store(&is_over, true);
  for (int i = 0; i < plain; i++) CHECK_EQ(pthread_join(ids[i], NULL), 0);
  for (int i = 0; i < 2; i++) {
    if (!rts[i]) continue;
    CHECK_EQ(coir_runtime_stop(rts[i], COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(coir_runtime_destroy(rts[i]), 0);
  }
  uint64_t sum = 0;
  for (int i = 0; i < LOCKS; i++) sum += guarded[i].count;
  CHECK_EQ(sum, atomic_load(&entered));
  CHECK(may_own() || atomic_load(&grants) == 0);
}

static void no_update_is_lost(void **state) {
  (void)state;
  for (int threads = 1; threads <= THREADS_MAX; threads++) exclude(threads);
}

/* ---- The table ------------------------------------------------------------------------------------------------- */

static int slot_of(void *arg) {
  (void)arg;
  COIR_INSIDE;
  return (int)coir__self()->bias_slot;
}

static int enters_what_the_former_owned(void *arg) {
  struct guarded *g = arg;
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  if (may_own()) CHECK_EQ(owner_of(&g->lock), w->bias);
  CHECK_EQ(coir__bias_enter(w, &g->lock), may_own());
  if (may_own()) coir__bias_leave(w);
  for (int i = 0; i < 1000; i++) enter(w, g);
  on_thread(use_once, &g->lock);
  CHECK(!is_owned(&g->lock));
  for (int i = 0; i < 1000; i++) enter(w, g);
  CHECK_EQ(g->count, 2000);
  return (int)w->bias_slot;
}

/* The lock outlives its owner's runtime. Whose worker gets that one's slot owns what it has left behind. */
static void a_slot_is_used_again(void **state) {
  (void)state;
  struct guarded g = {0};
  int bias = run_one(owns, &g.lock), slot = run_one(enters_what_the_former_owned, &g);
  CHECK_EQ(slot, bias & ~COIR__BIAS_OWNED);
  struct guarded left = {0};
  run_one(owns, &left.lock);
  enter(NULL, &left); /* nobody has the slot */
  CHECK_EQ(owner_of(&left.lock), 0);
}

#define CROWD 9 /* runtimes of 64 workers: more than there are slots */

static int owns_nothing(void *arg) {
  struct guarded *g = arg;
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  CHECK_EQ(w->bias_slot, 0);
  for (int i = 0; i < USES_MAX; i++) enter(w, g);
  CHECK_EQ(owner_of(&g->lock), 0);
  CHECK(!coir__bias_enter(w, &g->lock));
  return 0;
}

static int owns_among_them(void *arg) {
  struct guarded *g = arg;
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  use_until_owned(&g->lock);
  for (int i = 0; i < USES_MAX; i++) enter(w, g);
  return 0;
}

static void run_in(struct coir_runtime *rt, coir_fn fn, void *arg) {
  int status = -1;
  CHECK_EQ(coir_runtime_run(rt, fn, arg, &status), 0);
  CHECK_EQ(status, 0);
}

static void the_table_runs_full(void **state) {
  (void)state;
  struct coir_runtime *crowd[CROWD], *first = make_runtime((struct coir_config){.workers = 1}), *last;
  struct guarded g = {0};
  for (int i = 0; i < CROWD; i++) crowd[i] = make_runtime((struct coir_config){.workers = 64, .pollers = 1});
  last = make_runtime((struct coir_config){.workers = 1});
  bool is_taken[SLOTS] = {false};
  int without = 0;
  for (int i = 0; i < CROWD; i++)
    for (int k = 0; k < 64; k++) {
      uint32_t slot = crowd[i]->workers[k]->bias_slot;
      CHECK(slot < SLOTS && !is_taken[slot]);
      is_taken[slot] = slot != 0;
      without += slot == 0;
    }
  CHECK_EQ(without, CROWD * 64 - (SLOTS - 2)); /* the first slot is nobody's, and `first` has one */
  run_in(first, owns_among_them, &g);
  run_in(last, owns_nothing, &g);
  run_in(first, owns_among_them, &g);
  CHECK_EQ(g.count, 3 * USES_MAX);
  for (int i = 0; i < CROWD; i++) CHECK_EQ(coir_runtime_destroy(crowd[i]), 0);
  CHECK_EQ(coir_runtime_destroy(first), 0);
  CHECK_EQ(coir_runtime_destroy(last), 0);
  CHECK(run_one(slot_of, NULL) != 0);
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

struct shared {
  struct coir__bias lock;
  int users; /* guarded by it */
};

static struct shared *_Atomic offered;

/* Whoever leaves last frees it, right after the unlock. */
static void leave(struct coir__worker *w, struct shared *s) {
  coir__bias_lock(w, &s->lock);
  bool is_last = --s->users == 0;
  coir__bias_unlock(w, &s->lock);
  if (!is_last) return;
  memset(s, 0xa5, sizeof *s);
  free(s);
}

static void *leaves(void *arg) {
  for (int i = rounds(2000); i > 0; i--) {
    struct shared *s;
    while (!(s = atomic_exchange(&offered, NULL))) sched_yield();
    leave(NULL, s);
  }
  return arg;
}

static int offers(void *arg) {
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  uint64_t seed = rng_seed(3);
  pthread_t thread;
  (void)arg;
  CHECK_EQ(pthread_create(&thread, NULL, leaves, NULL), 0);
  for (int i = rounds(2000); i > 0; i--) {
    struct shared *s = calloc(1, sizeof *s);
    CHECK(s);
    s->users = 2;
    use_until_owned(&s->lock);
    atomic_store(&offered, s);
    while (atomic_load(&offered)) sched_yield();
    for (volatile int k = (int)(rng_next(&seed) % 2048); k > 0; k--) {}
    leave(w, s);
  }
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 0;
}

static void the_last_may_free_it(void **state) {
  (void)state;
  run_one(offers, NULL);
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

static struct guarded forked;
static _Atomic(bool) has_entered, may_leave;

static int stays_inside(void *arg) {
  COIR_INSIDE;
  struct coir__worker *w = coir__self();
  (void)arg;
  use_until_owned(&forked.lock);
  if (may_own()) coir__bias_lock(w, &forked.lock);
  atomic_store(&has_entered, true);
  SPIN_UNTIL(atomic_load(&may_leave));
  if (may_own()) coir__bias_unlock(w, &forked.lock);
  return 0;
}

/* The owner that was inside is not here. */
static void child(void) {
  alarm(5);
  enter(coir__carried(), &forked);
  CHECK_EQ(owner_of(&forked.lock), 0);
  CHECK(!coir__bias_is_held(&forked.lock));
  enter(coir__carried(), &forked);
}

static void the_child_of_a_fork_finds_nobody_inside(void **state) {
  (void)state;
  char report[1000];
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, stays_inside, NULL, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&has_entered));
  int status = in_child_process(child, report, sizeof report);
  fputs(report, stderr);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK_EQ(coir__bias_is_held(&forked.lock), may_own()); /* still, here */
  atomic_store(&may_leave, true);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int fence_is_as_asked_for(void **state) {
  (void)state;
  coir__os_fence_init();
  const char *off = getenv("COIR_NO_MEMBARRIER");
  if (off && strcmp(off, "1") == 0) CHECK(!may_own());
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_worker_comes_to_own_what_it_uses),
      cmocka_unit_test(a_plain_thread_owns_nothing),
      cmocka_unit_test(the_worker_of_another_runtime_takes_it_away),
      cmocka_unit_test(nobody_comes_in_while_the_owner_is_inside),
      cmocka_unit_test(no_update_is_lost),
      cmocka_unit_test(a_slot_is_used_again),
      cmocka_unit_test(the_table_runs_full),
      cmocka_unit_test(the_last_may_free_it),
      cmocka_unit_test(the_child_of_a_fork_finds_nobody_inside),
  };
  return cmocka_run_group_tests(tests, fence_is_as_asked_for, NULL);
}
