/* Generators: each sentence of their contract in coir.h. */
#include "parked.h"

#include <sys/resource.h>

static struct coir_gen *make_with(struct coir_attr attr, coir_fn fn, void *arg) {
  struct coir_gen *gen = NULL;
  CHECK_EQ(coir_gen_create(&gen, fn, arg, &attr), 0);
  CHECK(gen != NULL);
  return gen;
}

static struct coir_gen *make(coir_fn fn, void *arg) { return make_with((struct coir_attr){0}, fn, arg); }

/* What is yielded, which must be something. */
static intptr_t next(struct coir_gen *gen) {
  void *value = (void *)(intptr_t)-12345;
  CHECK_EQ(coir_gen_resume(gen, NULL, &value), 0);
  return (intptr_t)value;
}

static intptr_t yield(intptr_t value) {
  void *in = NULL;
  CHECK_EQ(coir_gen_yield((void *)value, &in), 0);
  return (intptr_t)in;
}

static int last_status(struct coir_gen *gen) {
  struct coir_result result = {.status = -1};
  CHECK_EQ(coir_gen_result(gen, &result), 0);
  return result.status;
}

static uint64_t live(struct coir_runtime *rt) {
  struct coir_stats stats;
  coir_runtime_get_stats(rt, &stats);
  return stats.fibers_live;
}

static int count_to(void *n) {
  for (intptr_t i = 0; i < (intptr_t)n; i++) yield(i);
  return 0;
}

static int count_forever(void *unused) {
  (void)unused;
  for (intptr_t i = 0; coir_gen_yield((void *)i, NULL) == 0; i++) {}
  return -ECANCELED;
}

/* ---- Values, states, ends -------------------------------------------------------------------------------------- */

static int echo(void *arg) {
  CHECK_EQ((intptr_t)arg, 7);
  void *in = NULL;
  CHECK_EQ(coir_gen_yield((void *)100, &in), 0);
  CHECK_EQ((intptr_t)in, 1);
  CHECK_EQ(coir_gen_yield((void *)200, NULL), 0);
  CHECK_EQ(coir_gen_yield((void *)300, &in), 0);
  CHECK_EQ((intptr_t)in, 3);
  coir_set_value((void *)400);
  return 42;
}

ON_FIBER(values_go_both_ways) {
  struct coir_gen *gen = make(echo, (void *)7);
  struct coir_result result = {.status = 5, .value = gen};
  void *value = NULL;
  CHECK_EQ(coir_gen_state(gen), COIR_GEN_NEW);
  CHECK_EQ(coir_gen_result(gen, &result), -EBUSY);
  CHECK_EQ(coir_gen_resume(gen, (void *)99, &value), 0); /* what the first one gives is for nobody */
  CHECK_EQ((intptr_t)value, 100);
  CHECK_EQ(coir_gen_state(gen), COIR_GEN_YIELDED);
  CHECK_EQ(coir_gen_resume(gen, (void *)1, &value), 0);
  CHECK_EQ((intptr_t)value, 200);
  CHECK_EQ(coir_gen_resume(gen, (void *)2, NULL), 0);
  CHECK_EQ(coir_gen_result(gen, &result), -EBUSY);
  CHECK_EQ(result.status, 5);
  CHECK_EQ(coir_gen_resume(gen, (void *)3, &value), 1);
  CHECK_EQ((intptr_t)value, 400);
  CHECK_EQ(coir_gen_state(gen), COIR_GEN_FINISHED);
  CHECK_EQ(coir_gen_result(gen, &result), 0);
  CHECK_EQ(result.status, 42);
  CHECK_EQ((intptr_t)result.value, 400);
  CHECK_EQ(coir_gen_result(gen, NULL), 0);
  value = gen;
  CHECK_EQ(coir_gen_resume(gen, NULL, &value), -ESRCH);
  CHECK(value == gen);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

static int ends_at_once(void *unused) {
  (void)unused;
  return -7;
}

static void deep_exit(void) { coir_exit(-9, (void *)11); }

static int exits(void *unused) {
  (void)unused;
  yield(1);
  deep_exit();
  return 0;
}

ON_FIBER(it_may_end_in_any_way) {
  struct coir_gen *gen = make(ends_at_once, NULL);
  void *value = gen;
  CHECK_EQ(coir_gen_resume(gen, NULL, &value), 1);
  CHECK(value == NULL);
  CHECK_EQ(last_status(gen), -7);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  gen = make(exits, NULL);
  CHECK_EQ(next(gen), 1);
  CHECK_EQ(coir_gen_resume(gen, NULL, &value), 1);
  CHECK_EQ((intptr_t)value, 11);
  CHECK_EQ(last_status(gen), -9);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

static int knows_itself(void *gen) {
  CHECK_EQ(coir_gen_state(*(struct coir_gen **)gen), COIR_GEN_RUNNING);
  CHECK(strcmp(coir_name(NULL), "a name that is too long") == 0);
  CHECK_EQ(coir_worker_index(), 0);
  yield(0);
  return coir_worker_index();
}

ON_FIBER(attributes_are_copied_and_count) {
  char name[] = "a name that is too long to be kept";
  struct coir_attr attr = {.name = name, .stack_bytes = 64 << 10, .worker = COIR_WORKER(0), .pinned = true};
  struct coir_gen *gen = make_with(attr, knows_itself, &gen);
  memset(name, 'x', sizeof name - 1);
  CHECK_EQ(next(gen), 0);
  struct coir_fiber_info info[8];
  size_t n = coir_runtime_list(coir_runtime_current(), info, 8), found = 0;
  for (size_t i = 0; i < n && i < 8; i++) {
    if (info[i].entry != knows_itself) continue;
    found++;
    CHECK_EQ(info[i].state, COIR_FIBER_WAITING);
    CHECK(strcmp(info[i].waits_for, "resume") == 0);
    CHECK(info[i].stack_bytes >= 64 << 10 && info[i].stack_bytes < 128 << 10);
  }
  CHECK_EQ(found, 1);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 1);
  CHECK_EQ(last_status(gen), 0);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  static const enum coir_priority priorities[] = {COIR_PRIORITY_LOW, COIR_PRIORITY_HIGH};
  for (int i = 0; i < 2; i++) {
    gen = make_with((struct coir_attr){.priority = priorities[i]}, count_to, (void *)100);
    for (intptr_t k = 0; k < 100; k++) CHECK_EQ(next(gen), k);
    CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 1);
    CHECK_EQ(coir_gen_destroy(gen), 0);
  }
}

/* ---- Errors ---------------------------------------------------------------------------------------------------- */

ON_BOTH(bad_arguments_are_refused) {
  struct coir_gen *gen = (struct coir_gen *)1;
  CHECK_EQ(coir_gen_create(NULL, count_to, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_gen_create(&gen, NULL, NULL, NULL), -EINVAL);
  CHECK(gen == NULL);
  struct coir_attr bad[] = {
      {.priority = (enum coir_priority)2}, {.stack_bytes = SIZE_MAX}, {.worker = COIR_WORKER(99)}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    gen = (struct coir_gen *)1;
    CHECK_EQ(coir_gen_create(&gen, count_to, NULL, &bad[i]), -EINVAL);
    CHECK(gen == NULL);
  }
  CHECK_EQ(coir_gen_resume(NULL, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_gen_result(NULL, NULL), -EINVAL);
  CHECK_EQ(coir_gen_state(NULL), COIR_GEN_FINISHED);
  CHECK_EQ(coir_gen_destroy(NULL), 0);
  CHECK_EQ(coir_gen_yield(NULL, NULL), -EPERM);
  CHECK_EQ(coir_gen_create(&gen, count_to, NULL, NULL), 0);
  CHECK_EQ(coir_gen_destroy(gen), 0); /* it never began */
}

/* A chain in which each resumes the next. */
#define LEVELS 4
static struct coir_gen *levels[LEVELS];

static int resumes_all_above(void *level) {
  intptr_t i = (intptr_t)level;
  for (intptr_t above = 0; above <= i; above++) {
    CHECK_EQ(coir_gen_resume(levels[above], NULL, NULL), -EDEADLK);
    CHECK_EQ(coir_gen_destroy(levels[above]), -EDEADLK);
  }
  if (i + 1 < LEVELS) CHECK_EQ(coir_gen_resume(levels[i + 1], NULL, NULL), 0);
  yield(i);
  return 0;
}

ON_FIBER(who_is_resumed_by_it_cannot_resume_it) {
  for (intptr_t i = 0; i < LEVELS; i++) levels[i] = make(resumes_all_above, (void *)i);
  CHECK_EQ(next(levels[0]), 0);
  for (intptr_t i = 0; i < LEVELS; i++) CHECK_EQ(coir_gen_state(levels[i]), COIR_GEN_YIELDED);
  for (intptr_t i = 0; i < LEVELS; i++) CHECK_EQ(coir_gen_resume(levels[i], NULL, NULL), 1);
  for (intptr_t i = 0; i < LEVELS; i++) CHECK_EQ(coir_gen_destroy(levels[i]), 0);
}

static int receives(void *chan) {
  intptr_t value = 0;
  while (coir_chan_recv(chan, &value, COIR_NEVER) == 0)
    if (coir_gen_yield((void *)value, NULL)) return -ECANCELED;
  return 0;
}

static int resumes_once(void *gen) { return (int)next(gen); }

ON_FIBER(one_resumes_it_at_a_time) {
  struct coir_chan *chan = coir_chan_create(sizeof(intptr_t), 0);
  struct coir_gen *gen = make(receives, chan);
  struct coir_fiber *other = spawn(resumes_once, gen);
  until_parked(2);
  CHECK_EQ(coir_gen_state(gen), COIR_GEN_RUNNING);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), -EBUSY);
  CHECK_EQ(coir_gen_destroy(gen), -EBUSY);
  struct coir_gen *bystander = make(resumes_once, gen); /* a generator, but not one above it */
  CHECK_EQ(coir_gen_destroy(bystander), 0);
  intptr_t value = 33;
  CHECK_EQ(coir_chan_send(chan, &value, COIR_NEVER), 0);
  CHECK_EQ(join(other), 33);
  coir_chan_close(chan);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 1);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  coir_chan_unref(chan);
}

/* ---- Chains, and generators that wait -------------------------------------------------------------------------- */

#define DEEP (IS_SANITIZED ? 200 : 1000)

/* Adds one to what the rest of the chain yields. */
static int adds_one(void *rest) {
  struct coir_gen *gen = NULL;
  intptr_t left = (intptr_t)rest;
  if (left > 0) gen = make_with((struct coir_attr){.stack_bytes = 16 << 10}, adds_one, (void *)(left - 1));
  void *in = NULL, *value = NULL;
  for (;;) {
    if (gen) CHECK_EQ(coir_gen_resume(gen, in, &value), 0);
    else value = in;
    if (coir_gen_yield((void *)((intptr_t)value + 1), &in) == 0) continue;
    CHECK_EQ(coir_gen_destroy(gen), 0); /* and so does that one with the next */
    return 0;
  }
}

ON_FIBER(chains_may_be_deep) {
  struct coir_gen *gen = make_with((struct coir_attr){.stack_bytes = 16 << 10}, adds_one, (void *)(DEEP - 1));
  void *value = NULL;
  CHECK_EQ(coir_gen_resume(gen, NULL, &value), 0);
  CHECK_EQ((intptr_t)value, DEEP);
  for (intptr_t i = 0; i < 20; i++) {
    CHECK_EQ(coir_gen_resume(gen, (void *)i, &value), 0);
    CHECK_EQ((intptr_t)value, i + DEEP);
  }
  CHECK_EQ(coir_gen_destroy(gen), 0);
  CHECK_EQ(live(coir_runtime_current()), 1);
}

static int waits_in_all_ways(void *chan) {
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0);
  yield(1);
  struct coir_fiber *child = spawn(ends_at_once, NULL);
  CHECK_EQ(join(child), -7);
  yield(2);
  intptr_t value = 0;
  CHECK_EQ(coir_chan_recv(chan, &value, COIR_NEVER), 0);
  yield(value);
  coir_yield();
  return 0;
}

static int passes_through(void *inner) {
  void *value = NULL;
  while (coir_gen_resume(inner, NULL, &value) == 0)
    if (coir_gen_yield(value, NULL)) return -ECANCELED;
  return 0;
}

static int ticks(void *over) {
  int n = 0;
  for (; !atomic_load((_Atomic(int) *)over); n++) coir_yield();
  return n;
}

ON_FIBER(a_generator_that_waits_parks_its_chain) {
  struct coir_chan *chan = coir_chan_create(sizeof(intptr_t), 0);
  struct coir_gen *inner = make(waits_in_all_ways, chan), *outer = make(passes_through, inner);
  _Atomic(int) over = 0;
  struct coir_fiber *other = spawn(ticks, &over);
  int64_t start = coir_now();
  CHECK_EQ(next(outer), 1);
  CHECK(coir_now() - start >= COIR_MS(2));
  CHECK_EQ(next(outer), 2);
  struct coir_fiber *resumer = spawn(resumes_once, outer);
  until_parked(3); /* the resumer, and both generators */
  struct coir_fiber_info info[8];
  size_t n = coir_runtime_list(coir_runtime_current(), info, 8), resumers = 0;
  for (size_t i = 0; i < n && i < 8; i++)
    resumers += info[i].state == COIR_FIBER_WAITING && strcmp(info[i].waits_for, "generator") == 0;
  CHECK_EQ(resumers, 2);
  intptr_t value = 77;
  CHECK_EQ(coir_chan_send(chan, &value, COIR_NEVER), 0);
  CHECK_EQ(join(resumer), 77);
  atomic_store(&over, 1);
  CHECK(join(other) > 0); /* others ran meanwhile */
  CHECK_EQ(coir_gen_resume(outer, NULL, NULL), 1);
  CHECK_EQ(coir_gen_destroy(outer), 0);
  CHECK_EQ(coir_gen_destroy(inner), 0);
  coir_chan_unref(chan);
}

/* ---- From anywhere --------------------------------------------------------------------------------------------- */

static struct coir_chan *baton; /* whose turn it is: the next value that is expected */

static int takes_turns(void *gen) {
  intptr_t expected;
  while (coir_chan_recv(baton, &expected, COIR_NEVER) == 0) {
    CHECK_EQ(next(gen), expected);
    expected++;
    if (expected == 2000) coir_chan_close(baton);
    else (void)coir_chan_send(baton, &expected, COIR_NEVER);
  }
  return 0;
}

static void *takes_turns_too(void *gen) { return takes_turns(gen), NULL; }

static void take_turns_with(struct coir_gen *gen, int fibers, int threads) {
  struct coir_stats stats;
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  struct coir_fiber *f[8];
  pthread_t t[4];
  intptr_t first = 0;
  baton = coir_chan_create(sizeof(intptr_t), 1);
  CHECK_EQ(coir_chan_send(baton, &first, 0), 0);
  for (int i = 0; i < fibers; i++)
    f[i] = spawn_with((struct coir_attr){.worker = COIR_WORKER(i % stats.workers), .pinned = i % 2}, takes_turns, gen);
  for (int i = 0; i < threads; i++) CHECK_EQ(pthread_create(&t[i], NULL, takes_turns_too, gen), 0);
  for (int i = 0; i < fibers; i++) CHECK_EQ(join(f[i]), 0);
  for (int i = 0; i < threads; i++) CHECK_EQ(pthread_join(t[i], NULL), 0);
  coir_chan_unref(baton);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

ON_FIBER(any_worker_may_resume_it) { take_turns_with(make(count_forever, NULL), 8, 0); }

ON_FIBER(plain_threads_may_resume_it) { take_turns_with(make(count_forever, NULL), 2, 3); }

ON_FIBER(a_pinned_one_stays_where_it_is) {
  take_turns_with(make_with((struct coir_attr){.worker = COIR_WORKER(0), .pinned = true}, count_forever, NULL), 4, 2);
}

static int uses_a_generator(void *unused) {
  (void)unused;
  struct coir_gen *gen = make(count_to, (void *)100);
  for (intptr_t i = 0; i < 100; i++) CHECK_EQ(next(gen), i);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 1);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  return 0;
}

static void unusual_configurations_will_do(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.migrate = COIR_ON, .workers = 3}, uses_a_generator, NULL), 0);
  CHECK_EQ(run_with((struct coir_config){.affinity = COIR_ON, .workers = 2}, uses_a_generator, NULL), 0);
  CHECK_EQ(run_with((struct coir_config){.pollers = 1, .workers = 2}, uses_a_generator, NULL), 0);
  CHECK_EQ(run_with((struct coir_config){.guard = COIR_GUARD_CANARY}, uses_a_generator, NULL), 0);
}

static struct coir_gen *foreign;

static int makes_foreign(void *chan) {
  foreign = make(receives, chan);
  return 0;
}

static int resumes_foreign(void *chan) {
  intptr_t value = 5;
  CHECK_EQ(coir_chan_send(chan, &value, COIR_NEVER), 0);
  CHECK_EQ(next(foreign), 5);
  coir_chan_close(chan);
  CHECK_EQ(coir_gen_resume(foreign, NULL, NULL), 1);
  CHECK_EQ(coir_gen_destroy(foreign), 0);
  return 0;
}

static void another_runtime_may_resume_it(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct coir_chan *chan = coir_chan_create(sizeof(intptr_t), 1);
  CHECK_EQ(coir_runtime_run(rt, makes_foreign, chan, NULL), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(run(resumes_foreign, chan), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  coir_chan_unref(chan);
}

/* ---- Cancellation ---------------------------------------------------------------------------------------------- */

/* Yields what its sleeps return. */
static int sleeps(void *unused) {
  (void)unused;
  for (;;) {
    int rc = coir_sleep(COIR_SEC(100));
    if (coir_gen_yield((void *)(intptr_t)rc, NULL)) return 0;
  }
}

static int resumes_then_sleeps(void *gen) {
  CHECK_EQ(next(gen), -ECANCELED);
  return coir_sleep(COIR_MS(1)); /* it has been delivered */
}

ON_FIBER(it_is_the_generator_whose_call_is_cancelled) {
  struct coir_gen *gen = make(sleeps, NULL);
  for (int i = 0; i < 20; i++) {
    struct coir_fiber *f = spawn(resumes_then_sleeps, gen);
    until_parked(1);
    CHECK_EQ(coir_cancel(f), 0);
    CHECK_EQ(join(f), 0);
    f = spawn(resumes_then_sleeps, gen);
    CHECK_EQ(coir_cancel(f), 0); /* perhaps before it resumes */
    CHECK_EQ(join(f), 0);
  }
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

ON_FIBER(it_goes_down_the_whole_chain) {
  struct coir_gen *chain[50];
  chain[0] = make(sleeps, NULL);
  for (int i = 1; i < 50; i++) chain[i] = make(passes_through, chain[i - 1]);
  for (int i = 0; i < 5; i++) {
    struct coir_fiber *f = spawn(resumes_then_sleeps, chain[49]);
    until_parked(50);
    CHECK_EQ(coir_cancel(f), 0);
    CHECK_EQ(join(f), 0);
  }
  for (int i = 49; i > 0; i--) CHECK_EQ(coir_gen_destroy(chain[i]), -0);
  CHECK_EQ(coir_gen_destroy(chain[0]), 0);
}

static int notices_two(void *chan) {
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_chan_recv(chan, NULL, COIR_NEVER), -ECANCELED); /* the clean-up waits, and is cancelled too */
  return coir_gen_yield((void *)2, NULL);
}

static int resumes_two(void *gen) {
  CHECK_EQ(next(gen), 2);
  return coir_sleep(COIR_MS(1));
}

ON_FIBER(each_cancellation_is_handed_on) {
  struct coir_chan *chan = coir_chan_create(0, 0);
  struct coir_gen *inner = make(notices_two, chan), *outer = make(passes_through, inner);
  struct coir_fiber *f = spawn(resumes_two, outer);
  until_parked(2);
  CHECK_EQ(coir_cancel(f), 0);
  until_parked(3);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(coir_gen_destroy(outer), 0);
  CHECK_EQ(coir_gen_destroy(inner), 0);
  coir_chan_unref(chan);
}

static _Atomic(int) go_on;

static int spins_then(void *ends) {
  for (;;) {
    SPIN_UNTIL(atomic_load(&go_on));
    atomic_store(&go_on, 0);
    if (ends) return 0;
    if (coir_gen_yield(NULL, NULL)) return 0;
  }
}

static int resumes_then_is_cancelled(void *gen) {
  int rc = coir_gen_resume(gen, NULL, NULL);
  CHECK(rc == 0 || rc == 1);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return 0;
}

/* Cancels a fiber that resumes a generator which computes, and lets that come to an end. */
static void cancel_while_it_computes(struct coir_gen *gen) {
  struct coir_fiber *f = spawn(resumes_then_is_cancelled, gen);
  coir_cancel(f); /* on one worker before it resumes; else at any time */
  atomic_store(&go_on, 1);
  CHECK_EQ(join(f), 0);
}

ON_FIBER(what_the_generator_has_not_noticed_is_the_resumers_again) {
  struct coir_gen *inner = make(spins_then, NULL), *outer = make(passes_through, inner);
  for (int i = 0; i < 20; i++) cancel_while_it_computes(inner);
  for (int i = 0; i < 20; i++) cancel_while_it_computes(outer);
  CHECK_EQ(coir_gen_destroy(outer), 0);
  CHECK_EQ(coir_gen_destroy(inner), 0);
  inner = make(spins_then, inner);
  cancel_while_it_computes(inner);
  CHECK_EQ(coir_gen_destroy(inner), 0);
}

static int resumes_behind_a_shield(void *gen) {
  coir_shield_begin();
  CHECK_EQ(next(gen), 0); /* not told of it */
  coir_shield_end();
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  return coir_sleep(COIR_MS(1));
}

static int sleeps_shortly(void *unused) {
  (void)unused;
  for (;;)
    if (coir_gen_yield((void *)(intptr_t)coir_sleep(COIR_MS(30)), NULL)) return 0;
}

static int is_shielded_itself(void *unused) {
  (void)unused;
  coir_shield_begin();
  int rc = coir_sleep(COIR_MS(30));
  coir_shield_end();
  return coir_gen_yield((void *)(intptr_t)rc, NULL);
}

static int resumes_a_shielded_one(void *gen) {
  CHECK_EQ(next(gen), 0);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  return coir_sleep(COIR_MS(1));
}

ON_FIBER(nothing_passes_a_shield) {
  struct coir_gen *gen = make(sleeps_shortly, NULL);
  for (int i = 0; i < 3; i++) {
    struct coir_fiber *f = spawn(resumes_behind_a_shield, gen);
    if (i) until_parked(1);
    CHECK_EQ(coir_cancel(f), 0);
    CHECK_EQ(join(f), 0);
  }
  CHECK_EQ(coir_gen_destroy(gen), 0);
  gen = make(is_shielded_itself, NULL);
  struct coir_fiber *f = spawn(resumes_a_shielded_one, gen);
  until_parked(1);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

static int cancels_itself(void *unused) {
  (void)unused;
  CHECK_EQ(coir_cancel(coir_current()), 0);
  yield(1); /* is no point of cancellation */
  yield(2);
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  return 0;
}

ON_FIBER(yielding_is_not_cancelled) {
  struct coir_gen *gen = make(cancels_itself, NULL);
  CHECK_EQ(next(gen), 1);
  CHECK_EQ(coir_sleep(COIR_US(10)), 0); /* and it does not come to the resumer, who did not hand it on */
  CHECK_EQ(next(gen), 2);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 1);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

static int computes(void *unused) {
  (void)unused;
  for (;;) {
    int64_t end = coir_now() + COIR_MS(1);
    while (coir_now() < end) {}
    if (coir_gen_yield(NULL, NULL)) return 0;
  }
}

ON_FIBER(a_scopes_cancellation_is_over_with_it) {
  struct coir_scope *scope;
  struct coir_chan *chan = coir_chan_create(0, 0);
  struct coir_gen *gen = make(computes, NULL);
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  coir_scope_cancel(scope, 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 0); /* nobody notices */
  CHECK_EQ(coir_scope_close(scope), -ECANCELED);
  CHECK_EQ(coir_chan_recv(chan, NULL, coir_after(COIR_MS(1))), -ETIMEDOUT);
  CHECK_EQ(coir_scope_open(&scope, 0, coir_after(COIR_MS(2))), 0);
  do CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 0); /* the deadline comes meanwhile */
  while (!coir_scope_reason(scope));
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 0);
  CHECK_EQ(coir_scope_close(scope), -ETIMEDOUT);
  CHECK_EQ(coir_chan_recv(chan, NULL, coir_after(COIR_MS(1))), -ETIMEDOUT);
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  coir_scope_cancel(scope, 0);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 0);
  CHECK_EQ(coir_chan_recv(chan, NULL, COIR_NEVER), -ECANCELED); /* noticed before it closes */
  CHECK_EQ(coir_scope_close(scope), -ECANCELED);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  coir_chan_unref(chan);
}

static int makes_sleeping(void *gen) {
  *(struct coir_gen **)gen = make(sleeps, NULL);
  return 0;
}

static int cancels_scope(void *scope) {
  (void)coir_sleep(COIR_MS(1));
  coir_scope_cancel(scope, 0);
  return 0;
}

/* The scope is a plain thread's. */
static void a_threads_cancellation_is_handed_on_too(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct coir_gen *gen = NULL;
  struct coir_scope *scope;
  CHECK_EQ(coir_runtime_run(rt, makes_sleeping, &gen, NULL), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(coir_scope_open(&scope, 0, i % 2 ? coir_after(COIR_MS(2)) : COIR_NEVER), 0);
    if (i % 2 == 0) CHECK_EQ(coir_runtime_spawn(rt, cancels_scope, scope, NULL, NULL), 0);
    CHECK_EQ(next(gen), -ECANCELED);
    CHECK_EQ(coir_sleep(COIR_US(10)), 0);
    CHECK_EQ(coir_scope_close(scope), i % 2 ? -ETIMEDOUT : -ECANCELED);
  }
  CHECK_EQ(coir_gen_destroy(gen), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int resumes_until_the_end(void *gen) {
  while (coir_gen_resume(gen, NULL, NULL) == 0) {}
  return last_status(gen);
}

static int sleeps_until_cancelled(void *unused) {
  (void)unused;
  while (coir_sleep(COIR_SEC(100)) == 0) {}
  CHECK_EQ(coir_sleep(COIR_SEC(100)), -ECANCELED); /* every wait is */
  return -ECANCELED;
}

static int spawns_resumer(void *inner) {
  struct coir_gen *gen = make(sleeps_until_cancelled, NULL);
  *(struct coir_gen **)inner = gen;
  return coir_go(resumes_until_the_end, gen);
}

static void stopping_a_runtime_cancels_both(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct coir_gen *gen = NULL;
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, spawns_resumer, &gen, NULL, NULL), 0);
  until_parked_in(rt, 1);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
  CHECK_EQ(last_status(gen), -ECANCELED);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int sleeps_once(void *unused) {
  (void)unused;
  return coir_sleep(COIR_SEC(100));
}

static int makes_sleeper(void *gen) {
  *(struct coir_gen **)gen = make(sleeps_once, NULL);
  return 0;
}

/* The resumer's runtime stops, that of the generator does not. */
static void stopping_reaches_another_runtimes_generator(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0}), *its = make_runtime((struct coir_config){0});
  struct coir_gen *gen = NULL;
  CHECK_EQ(coir_runtime_run(its, makes_sleeper, &gen, NULL), 0);
  CHECK_EQ(coir_runtime_start(its), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, resumes_until_the_end, gen, NULL, NULL), 0);
  until_parked_in(rt, 1);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
  CHECK_EQ(last_status(gen), -ECANCELED);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  CHECK_EQ(coir_runtime_stop(its, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(coir_runtime_destroy(its), 0);
}

/* ---- Destroying ------------------------------------------------------------------------------------------------ */

static int cleans_up(void *cleaned) {
  CHECK_EQ(coir_gen_yield((void *)1, NULL), 0);
  void *in = cleaned;
  CHECK_EQ(coir_gen_yield((void *)2, &in), -ECANCELED);
  CHECK(in == cleaned);
  CHECK_EQ(coir_gen_yield((void *)3, NULL), -ECANCELED); /* ever after, and at once */
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0);                   /* other calls wait as ever */
  *(int *)cleaned = 1;
  return 0;
}

ON_FIBER(destroying_lets_it_clean_up) {
  int cleaned = 0;
  struct coir_gen *gen = make(cleans_up, &cleaned);
  CHECK_EQ(next(gen), 1);
  CHECK_EQ(next(gen), 2);
  CHECK_EQ(live(coir_runtime_current()), 2); /* one that has yielded is still a fiber */
  CHECK_EQ(coir_gen_destroy(gen), 0);
  CHECK_EQ(cleaned, 1);
}

static int destroys(void *gen) { return coir_gen_destroy(gen); }

ON_FIBER(cancelling_who_destroys_is_handed_on_too) {
  struct coir_gen *gen = make(sleeps_shortly, NULL);
  next(gen);
  struct coir_fiber *f = spawn(destroys, gen);
  coir_cancel(f);
  CHECK_EQ(join(f), 0);
}

static int never_gives_up(void *n) {
  for (int i = 0; i < *(int *)n; i++) coir_gen_yield(NULL, NULL);
  return 0;
}

ON_FIBER(one_that_ignores_it_does_not_hold_its_worker) {
  int n = rounds(100000);
  _Atomic(int) over = 0;
  struct coir_gen *gen = make(never_gives_up, &n);
  next(gen);
  struct coir_fiber *other = spawn(ticks, &over);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  atomic_store(&over, 1);
  CHECK(join(other) > 0);
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

static long peak_kib(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

ON_FIBER(resuming_takes_no_memory) {
  struct coir_gen *gen = make(count_forever, NULL);
  intptr_t n = IS_SANITIZED ? 20000 : 1000000, i = 0;
  for (; i < n / 10; i++) CHECK_EQ(next(gen), i);
  long before = peak_kib();
  for (; i < n; i++) CHECK_EQ(next(gen), i);
  if (!IS_SANITIZED) CHECK(peak_kib() - before < 256);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

ON_FIBER(what_is_destroyed_is_used_again) {
  struct coir_stats stats;
  for (int i = 0; i < rounds(20000); i++) {
    struct coir_gen *gen = make(count_forever, NULL);
    if (i % 3) CHECK_EQ(next(gen), 0);
    CHECK_EQ(coir_gen_destroy(gen), 0);
  }
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  CHECK_EQ(stats.fibers_live, 1);
  CHECK(stats.stacks_live + stats.stacks_cached < 1000);
}

/* Fails for what descriptors of fibers are kept in, and for nothing else. */
static void *all_but_1_kib(size_t bytes, void *arg) {
  bool fails = bytes == 1024 && atomic_load((_Atomic(int) *)arg);
  return fails ? NULL : malloc(bytes);
}

static void give(void *memory, size_t bytes, void *arg) {
  (void)bytes, (void)arg;
  free(memory);
}

static int runs_short(void *is_short) {
  struct coir_gen *gens[1000];
  int n = 0, rc = 0;
  atomic_store((_Atomic(int) *)is_short, 1);
  while (!rc && n < 1000) {
    gens[n] = make(count_to, (void *)1);
    rc = coir_gen_resume(gens[n++], NULL, NULL);
  }
  CHECK_EQ(rc, -ENOMEM);
  CHECK_EQ(coir_gen_state(gens[n - 1]), COIR_GEN_NEW);
  atomic_store((_Atomic(int) *)is_short, 0);
  CHECK_EQ(next(gens[n - 1]), 0);
  for (int i = 0; i < n; i++) {
    CHECK_EQ(coir_gen_resume(gens[i], NULL, NULL), 1);
    CHECK_EQ(coir_gen_destroy(gens[i]), 0);
  }
  return 0;
}

static void without_memory_it_stays_new(void **state) {
  (void)state;
  _Atomic(int) is_short = 0;
  struct coir_config config = {.alloc = all_but_1_kib, .free = give, .alloc_arg = &is_short};
  CHECK_EQ(run_with(config, runs_short, &is_short), 0);
}

/* ---- The end of a run, and of a runtime ------------------------------------------------------------------------ */

static struct coir_gen *kept[3];

static int leaves_them(void *unused) {
  (void)unused;
  for (int i = 0; i < 3; i++) {
    kept[i] = make(cleans_up, NULL);
    if (i < 2) CHECK_EQ(next(kept[i]), 1);
  }
  return 0;
}

static int goes_on(void *cleaned) {
  for (int i = 0; i < 2; i++) CHECK_EQ(coir_gen_state(kept[i]), COIR_GEN_YIELDED);
  CHECK_EQ(coir_gen_state(kept[2]), COIR_GEN_NEW);
  CHECK_EQ(next(kept[0]), 2);
  (void)cleaned;
  return 0;
}

static void a_run_ends_without_them(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_run(rt, leaves_them, NULL, NULL), 0);
  CHECK_EQ(live(rt), 2);
  CHECK_EQ(coir_runtime_run(rt, goes_on, NULL, NULL), 0); /* they go on in the next */
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(live(rt), 2);
  CHECK_EQ(coir_runtime_run(rt, NULL, NULL, NULL), 0);
  CHECK_EQ(coir_gen_destroy(kept[0]), 0); /* nobody runs it: dropped where it is */
  CHECK_EQ(coir_gen_destroy(kept[2]), 0);
  CHECK_EQ(live(rt), 1);
  CHECK_EQ(coir_runtime_destroy(rt), 0); /* drops the other one */
  CHECK_EQ(coir_gen_state(kept[1]), COIR_GEN_FINISHED);
  CHECK_EQ(last_status(kept[1]), -ECANCELED);
  CHECK_EQ(coir_gen_resume(kept[1], NULL, NULL), -ESRCH);
  CHECK_EQ(coir_gen_destroy(kept[1]), 0);
}

static struct coir_gen *rounded[8];

static int makes_more(void *round) {
  intptr_t i = (intptr_t)round;
  for (intptr_t k = 0; k < i; k++) CHECK_EQ(next(rounded[k]), i - k);
  rounded[i] = make(count_forever, NULL);
  CHECK_EQ(next(rounded[i]), 0);
  return 0;
}

static void many_runs(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  for (intptr_t i = 0; i < 8; i++) CHECK_EQ(coir_runtime_run(rt, makes_more, (void *)i, NULL), 0);
  CHECK_EQ(live(rt), 8);
  for (int i = 0; i < 8; i += 2) CHECK_EQ(coir_gen_destroy(rounded[i]), 0);
  CHECK_EQ(live(rt), 4);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  for (int i = 1; i < 8; i += 2) CHECK_EQ(coir_gen_destroy(rounded[i]), 0);
}

struct resumption {
  struct coir_gen *gen;
  int rc;
  void *value;
};

static void *resumes_on_a_thread(void *arg) {
  struct resumption *r = arg;
  r->value = r;
  r->rc = coir_gen_resume(r->gen, NULL, &r->value);
  return NULL;
}

/* Its runtime is abandoned while a thread waits for it. */
static void abandoning_ends_it(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct coir_gen *gen = NULL;
  pthread_t thread;
  CHECK_EQ(coir_runtime_run(rt, makes_sleeper, &gen, NULL), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct resumption r = {.gen = gen};
  CHECK_EQ(pthread_create(&thread, NULL, resumes_on_a_thread, &r), 0);
  WAIT_FOR(live(rt) == 1);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(r.rc, 1);
  CHECK(r.value == NULL);
  CHECK_EQ(last_status(gen), -ECANCELED);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* The resumer's runtime is abandoned; its generator is another one's, and is free again once it yields. */
static void an_abandoned_resumer_leaves_it_behind(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0}), *its = make_runtime((struct coir_config){0});
  struct coir_chan *chan = coir_chan_create(sizeof(intptr_t), 1);
  CHECK_EQ(coir_runtime_run(its, makes_foreign, chan, NULL), 0);
  CHECK_EQ(coir_runtime_start(its), 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, resumes_once, foreign, NULL, NULL), 0);
  until_parked_in(rt, 1);
  until_parked_in(its, 1);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(coir_gen_resume(foreign, NULL, NULL), -EBUSY);
  intptr_t value = 5;
  CHECK_EQ(coir_chan_send(chan, &value, COIR_NEVER), 0);
  WAIT_FOR(coir_gen_state(foreign) == COIR_GEN_YIELDED);
  value = 6;
  CHECK_EQ(coir_chan_send(chan, &value, COIR_NEVER), 0);
  CHECK_EQ(next(foreign), 6);
  CHECK_EQ(coir_gen_destroy(foreign), 0);
  CHECK_EQ(coir_runtime_stop(its, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(its), 0);
  coir_chan_unref(chan);
}

/* ---- Stress ---------------------------------------------------------------------------------------------------- */

#define GENS 24
#define RESUMERS 6

static struct {
  struct coir_gen *gens[GENS];
  _Atomic(int64_t) got[GENS]; /* how many values */
  _Atomic(int64_t) sum[GENS];
  _Atomic(int) busy;
  int64_t each;
} stress;

/* Yields 0, 1, 2, ..., and now and then waits before it does. */
static int yields_and_waits(void *seed) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)seed);
  for (intptr_t i = 0; coir_gen_yield((void *)i, NULL) == 0; i++) {
    switch (rng_next(&rng) % 64) {
    case 0: (void)coir_sleep(COIR_US(1)); break;
    case 1: coir_yield(); break;
    case 2: CHECK_EQ(join(spawn(ends_at_once, NULL)), -7); break;
    default: break;
    }
  }
  return 0;
}

static int resumes_at_random(void *seed) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)seed);
  for (int64_t i = 0; i < stress.each;) {
    int k = (int)(rng_next(&rng) % GENS);
    void *value;
    int rc = coir_gen_resume(stress.gens[k], NULL, &value);
    if (rc == -EBUSY) {
      atomic_fetch_add(&stress.busy, 1);
      coir_yield();
      continue;
    }
    CHECK_EQ(rc, 0);
    atomic_fetch_add(&stress.got[k], 1);
    atomic_fetch_add(&stress.sum[k], (intptr_t)value);
    if (rng_next(&rng) % 16 == 0) coir_yield();
    i++;
  }
  return 0;
}

static void *resumes_at_random_too(void *seed) { return resumes_at_random(seed), NULL; }

/* Every value is received once, whoever resumes. */
ON_FIBER(nothing_is_lost_or_doubled) {
  struct coir_fiber *f[RESUMERS];
  pthread_t thread;
  memset(&stress, 0, sizeof stress);
  stress.each = rounds(20000);
  for (intptr_t i = 0; i < GENS; i++) stress.gens[i] = make(yields_and_waits, (void *)(i + 1));
  for (intptr_t i = 0; i < RESUMERS; i++) f[i] = spawn(resumes_at_random, (void *)(i + 100));
  CHECK_EQ(pthread_create(&thread, NULL, resumes_at_random_too, (void *)999), 0);
  for (int i = 0; i < RESUMERS; i++) CHECK_EQ(join(f[i]), 0);
  while (pthread_tryjoin_np(thread, NULL)) (void)coir_sleep(COIR_US(100));
  for (int i = 0; i < GENS; i++) {
    int64_t n = atomic_load(&stress.got[i]);
    CHECK_EQ(atomic_load(&stress.sum[i]), n * (n - 1) / 2);
    CHECK_EQ(coir_gen_destroy(stress.gens[i]), 0);
  }
}

/* Cancellations at any moment: each is noticed exactly once, by the generator or by its resumer. */
static struct {
  struct coir_gen *gen;
  _Atomic(uint64_t) noticed;
  _Atomic(int) over;
} aim;

static int notices(void *seed) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)seed);
  for (;;) {
    uint64_t dice = rng_next(&rng);
    if (dice % 3 == 0 && coir_sleep(COIR_US(1 + dice % 20)) == -ECANCELED) atomic_fetch_add(&aim.noticed, 1);
    if (dice % 7 == 0) coir_yield();
    if (coir_gen_yield(NULL, NULL)) return 0;
  }
}

static int resumes_and_notices(void *unused) {
  (void)unused;
  for (int i = 0; !atomic_load(&aim.over); i++) {
    CHECK_EQ(coir_gen_resume(aim.gen, NULL, NULL), 0);
    poison_stack();
    if (i % 5 == 0 && coir_sleep(COIR_US(1)) == -ECANCELED) atomic_fetch_add(&aim.noticed, 1);
  }
  return 0;
}

ON_FIBER(a_cancellation_is_noticed_exactly_once) {
  uint64_t sent = 0, rng = rng_seed(4711);
  memset(&aim, 0, sizeof aim);
  struct coir_gen *inner = make(notices, (void *)5);
  aim.gen = make(passes_through, inner);
  struct coir_fiber *f = spawn(resumes_and_notices, NULL);
  for (int64_t end = coir_after(COIR_MS(400)); coir_now() < end;) {
    if (rng_next(&rng) % 2) (void)coir_sleep(COIR_US(rng_next(&rng) % 30));
    CHECK_EQ(coir_cancel(f), 0);
    sent++;
    WAIT_FOR(atomic_load(&aim.noticed) == sent);
  }
  atomic_store(&aim.over, 1);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(atomic_load(&aim.noticed), sent);
  CHECK(sent > 10);
  CHECK_EQ(coir_gen_destroy(aim.gen), 0);
  CHECK_EQ(coir_gen_destroy(inner), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values_go_both_ways),
      cmocka_unit_test(it_may_end_in_any_way),
      cmocka_unit_test(attributes_are_copied_and_count),
      cmocka_unit_test(bad_arguments_are_refused),
      cmocka_unit_test(who_is_resumed_by_it_cannot_resume_it),
      cmocka_unit_test(one_resumes_it_at_a_time),
      cmocka_unit_test(chains_may_be_deep),
      cmocka_unit_test(a_generator_that_waits_parks_its_chain),
      cmocka_unit_test(any_worker_may_resume_it),
      cmocka_unit_test(plain_threads_may_resume_it),
      cmocka_unit_test(a_pinned_one_stays_where_it_is),
      cmocka_unit_test(unusual_configurations_will_do),
      cmocka_unit_test(another_runtime_may_resume_it),
      cmocka_unit_test(it_is_the_generator_whose_call_is_cancelled),
      cmocka_unit_test(it_goes_down_the_whole_chain),
      cmocka_unit_test(each_cancellation_is_handed_on),
      cmocka_unit_test(what_the_generator_has_not_noticed_is_the_resumers_again),
      cmocka_unit_test(nothing_passes_a_shield),
      cmocka_unit_test(yielding_is_not_cancelled),
      cmocka_unit_test(a_scopes_cancellation_is_over_with_it),
      cmocka_unit_test(a_threads_cancellation_is_handed_on_too),
      cmocka_unit_test(stopping_a_runtime_cancels_both),
      cmocka_unit_test(stopping_reaches_another_runtimes_generator),
      cmocka_unit_test(destroying_lets_it_clean_up),
      cmocka_unit_test(cancelling_who_destroys_is_handed_on_too),
      cmocka_unit_test(one_that_ignores_it_does_not_hold_its_worker),
      cmocka_unit_test(resuming_takes_no_memory),
      cmocka_unit_test(what_is_destroyed_is_used_again),
      cmocka_unit_test(without_memory_it_stays_new),
      cmocka_unit_test(a_run_ends_without_them),
      cmocka_unit_test(many_runs),
      cmocka_unit_test(abandoning_ends_it),
      cmocka_unit_test(an_abandoned_resumer_leaves_it_behind),
      cmocka_unit_test(nothing_is_lost_or_doubled),
      cmocka_unit_test(a_cancellation_is_noticed_exactly_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
