/* What a fiber is that blocks its thread or computes until the monitor takes the worker away: itself, on its thread,
 * until it waits ("Calls that block" in coir.h). */
#include "stuck.h"

/* ---- What the fiber is meanwhile ------------------------------------------------------------------------------- */

struct things {
  struct coir_chan *chan;
  struct coir_event event;
  struct coir_mutex mutex;
  struct coir_rwlock rwlock;
  struct coir_sem sem;
  struct coir_wait_group group;
  struct coir_scope *scope;
  flag spawned;
  int key;
};

static int wait_for_event(void *arg) {
  struct things *t = arg;
  CHECK_EQ(coir_event_wait(&t->event, COIR_NEVER), 0);
  return 0;
}

static int wait_for_lock(void *arg) {
  struct things *t = arg;
  CHECK_EQ(coir_mutex_lock(&t->mutex, COIR_NEVER), 0);
  coir_mutex_unlock(&t->mutex);
  return 0;
}

static int wait_to_be_canceled(void *unused) {
  (void)unused;
  return coir_sleep(COIR_SEC(20));
}

static int count_up(void *n) {
  atomic_fetch_add((flag *)n, 1);
  return 0;
}

/* None of these calls waits. */
static void call_what_does_not_wait(struct things *t, struct coir_fiber *self, struct coir_fiber *other) {
  struct coir_timer *timer;
  int v = 5;
  CHECK(coir_current() == self);
  CHECK_EQ(coir_fiber_id(NULL), coir_fiber_id(self));
  CHECK(!strcmp(coir_name(NULL), "stuck"));
  coir_set_name("still stuck");
  CHECK(!strcmp(coir_name(self), "still stuck"));
  coir_set_name("stuck");
  CHECK(coir_runtime_current() != NULL && coir_runtime_current() != coir_runtime_default());
  CHECK(coir_local_get(t->key) == t);
  CHECK_EQ(coir_chan_send(t->chan, &v, 0), 0);
  CHECK_EQ(coir_chan_send(t->chan, &v, 0), -ETIMEDOUT);
  v = 0;
  CHECK_EQ(coir_chan_recv(t->chan, &v, 0), 0);
  CHECK_EQ(v, 5);
  CHECK_EQ(coir_chan_recv(t->chan, &v, 0), -ETIMEDOUT);
  struct coir_arm arms[] = {coir_arm_recv(t->chan, &v), coir_arm_event(&t->event)};
  CHECK_EQ(coir_select(arms, 2, 0), -ETIMEDOUT);
  coir_event_set(&t->event);
  CHECK_EQ(coir_select(arms, 2, 0), 1);
  CHECK_EQ(coir_mutex_lock(&t->mutex, 0), -EDEADLK); /* it is known who holds it */
  coir_mutex_unlock(&t->mutex);
  CHECK_EQ(coir_rwlock_read(&t->rwlock, 0), -EDEADLK);
  coir_rwlock_write_unlock(&t->rwlock);
  coir_sem_release(&t->sem, 2);
  CHECK_EQ(coir_sem_acquire(&t->sem, 2, 0), 0);
  coir_wait_group_add(&t->group, 1);
  coir_wait_group_done(&t->group);
  CHECK_EQ(coir_join(self, NULL, 0), -EDEADLK);
  CHECK_EQ(coir_join(other, NULL, 0), -ETIMEDOUT);
  CHECK_EQ(coir_cancel(other), 0);
  CHECK(coir_scope_current() == t->scope);
  CHECK(coir_scope_get(&t->key) == t);
  CHECK_EQ(coir_spawn(count_up, &t->spawned, &(struct coir_attr){.detached = true}, NULL), 0);
  CHECK_EQ(coir_scope_spawn(t->scope, count_up, &t->spawned, NULL, NULL), 0);
  CHECK_EQ(coir_timer_create(&timer, count_up, &t->spawned), 0);
  CHECK_EQ(coir_timer_start(timer, COIR_NEVER, 0), 0);
  CHECK_EQ(coir_timer_stop(timer), 1);
  coir_timer_destroy(timer);
}

static void stuck_between_waits(void (*be_stuck)(void)) {
  struct coir_fiber *self = coir_current();
  struct things t = {.chan = coir_chan_create(sizeof(int), 1), .key = coir_key_create(NULL)};
  coir_set_name("stuck");
  CHECK_EQ(coir_local_set(t.key, &t), 0);
  CHECK_EQ(coir_mutex_lock(&t.mutex, 0), 0);
  CHECK_EQ(coir_rwlock_write(&t.rwlock, 0), 0);
  CHECK_EQ(coir_scope_open(&t.scope, 0, COIR_NEVER), 0);
  CHECK_EQ(coir_scope_set(t.scope, &t.key, &t), 0);
  struct coir_fiber *a = spawn(wait_for_event, &t), *b = spawn(wait_for_lock, &t);
  struct coir_fiber *c = spawn(wait_to_be_canceled, NULL);
  coir_yield();
  int here = tid();
  mark_set(here);
  be_stuck();
  CHECK_EQ(tid(), here);
  call_what_does_not_wait(&t, self, c);
  CHECK_EQ(tid(), here);
  CHECK_EQ(mark_get(), here);
  CHECK_EQ(coir_scope_close(t.scope), 0);
  CHECK_EQ(join(a), 0);
  CHECK_EQ(join(b), 0);
  CHECK_EQ(join(c), -ECANCELED);
  WAIT_FOR(atomic_load(&t.spawned) == 2);
  CHECK(coir_current() == self);
  WAIT_FOR(coir_worker_index() >= 0);
  CHECK(coir_local_get(t.key) == &t);
  CHECK_EQ(coir_key_delete(t.key), 0);
  coir_chan_unref(t.chan);
}

ON_FIBER_OF(stays_itself_while_it_blocks) {
  for (int i = 0; i < 5; i++) stuck_between_waits(block_until_taken);
}

ON_FIBER_OF(stays_itself_while_it_computes) {
  for (int i = 0; i < 5; i++) stuck_between_waits(compute_until_taken);
}

/* Locks of the thread are the fiber's until it waits. */
ON_FIBER_OF(holds_locks_of_its_thread) {
  pthread_mutexattr_t attr;
  pthread_mutex_t mutex;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_init(&mutex, &attr);
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(pthread_mutex_lock(&mutex), 0);
    (i % 2 ? block_until_taken : compute_until_taken)();
    CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
    coir_yield();
  }
  pthread_mutex_destroy(&mutex);
}

ON_FIBER_OF(keeps_errno) {
  for (int i = 0; i < 5; i++) {
    flag is_taken = 0;
    go_beside(raise_flag, &is_taken);
    errno_set(EXDEV);
    SPIN_UNTIL(is_up(&is_taken));
    CHECK_EQ(errno_get(), EXDEV);
    coir_yield();
    CHECK_EQ(errno_get(), EXDEV);
    CHECK_EQ(coir_sleep(COIR_US(10)), 0);
    CHECK_EQ(errno_get(), EXDEV);
  }
}

struct canceled {
  struct pipe_pair pipe;
  flag is_in;
};

static int canceled_meanwhile(void *arg) {
  struct canceled *c = arg;
  compute_until_taken();
  raise_flag(&c->is_in);
  take_byte(&c->pipe);
  int rc = coir_sleep(COIR_SEC(20));
  CHECK_EQ(coir_sleep(COIR_US(10)), 0); /* once */
  return rc;
}

ON_FIBER_OF(cancellation_comes_with_the_next_wait) {
  struct canceled c = {.is_in = 0};
  pipe_open(&c.pipe);
  struct coir_fiber *f = spawn(canceled_meanwhile, &c);
  WAIT_FOR(is_up(&c.is_in));
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(coir_join(f, NULL, coir_after(COIR_MS(5))), -ETIMEDOUT);
  give_byte(&c.pipe);
  CHECK_EQ(join(f), -ECANCELED);
  pipe_close(&c.pipe);
}

/* ---- Ways to go on afterwards ---------------------------------------------------------------------------------- */

static int return_at_once(void *unused) {
  (void)unused;
  compute_until_taken();
  return 17;
}

static int exit_at_once(void *value) {
  block_until_taken();
  coir_exit(18, value);
}

static _Atomic(int) destroyed;

static void destroy_and_compute(void *unused) {
  (void)unused;
  compute_until_taken();
  CHECK(coir_current() != NULL);
  atomic_fetch_add(&destroyed, 1);
}

static int end_with_value(void *key) {
  CHECK_EQ(coir_local_set(*(int *)key, key), 0);
  block_until_taken();
  return 19;
}

ON_FIBER_OF(ends) {
  struct coir_result result;
  int key = coir_key_create(destroy_and_compute);
  for (int i = 1; i <= 5; i++) {
    CHECK_EQ(join(spawn(return_at_once, NULL)), 17);
    CHECK_EQ(coir_join(spawn(exit_at_once, &key), &result, COIR_NEVER), 0);
    CHECK(result.status == 18 && result.value == &key);
    CHECK_EQ(join(spawn(end_with_value, &key)), 19);
    CHECK_EQ(atomic_load(&destroyed), i);
  }
  CHECK_EQ(coir_key_delete(key), 0);
}

static int generate(void *n) {
  for (intptr_t i = 0; i < (intptr_t)n; i++) {
    (i % 2 ? block_until_taken : compute_until_taken)();
    CHECK_EQ(coir_gen_yield((void *)i, NULL), 0);
  }
  return 0;
}

ON_FIBER_OF(generates) {
  struct coir_gen *gen;
  void *value;
  intptr_t expected = 0;
  CHECK_EQ(coir_gen_create(&gen, generate, (void *)6, NULL), 0);
  while (coir_gen_resume(gen, NULL, &value) == 0) {
    CHECK_EQ((intptr_t)value, expected++);
    if (expected % 2) compute_until_taken();
  }
  CHECK_EQ(expected, 6);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

static int receive_one(void *arg) {
  int v = 0;
  CHECK_EQ(coir_chan_recv(arg, &v, COIR_NEVER), 0);
  return v;
}

static int send_one(void *arg) { return coir_chan_send(arg, &(int){9}, COIR_NEVER); }

static int cannot_be(void *unused) {
  (void)unused;
  CHECK(!"it runs");
  return 0;
}

static void wait_on_channels(struct coir_chan *c) {
  int v = 0;
  struct coir_fiber *f = spawn(receive_one, c);
  compute_until_taken();
  CHECK_EQ(coir_chan_send(c, &(int){8}, COIR_NEVER), 0);
  CHECK_EQ(join(f), 8);
  f = spawn(send_one, c);
  compute_until_taken();
  CHECK_EQ(coir_chan_recv(c, &v, COIR_NEVER), 0);
  CHECK_EQ(v, 9);
  CHECK_EQ(join(f), 0);
  compute_until_taken();
  CHECK_EQ(coir_chan_recv(c, &v, coir_after(COIR_MS(1))), -ETIMEDOUT);
  struct coir_arm arms[] = {coir_arm_recv(c, &v), coir_arm_deadline(coir_after(COIR_MS(20)))};
  compute_until_taken();
  CHECK_EQ(coir_select(arms, 2, COIR_NEVER), 1);
}

static void wait_on_locks(void) {
  struct coir_mutex mutex = {0};
  struct coir_rwlock rwlock = {0};
  struct coir_cond cond = {0};
  struct coir_sem sem = {0};
  struct coir_event event = {0};
  struct coir_barrier barrier;
  CHECK_EQ(coir_mutex_lock(&mutex, COIR_NEVER), 0);
  compute_until_taken();
  CHECK_EQ(coir_cond_wait(&cond, &mutex, coir_after(COIR_MS(1))), -ETIMEDOUT);
  compute_until_taken();
  CHECK_EQ(coir_mutex_lock(&mutex, COIR_NEVER), -EDEADLK);
  coir_mutex_unlock(&mutex);
  compute_until_taken();
  CHECK_EQ(coir_rwlock_write(&rwlock, COIR_NEVER), 0);
  compute_until_taken();
  coir_rwlock_write_unlock(&rwlock);
  CHECK_EQ(coir_sem_acquire(&sem, 1, coir_after(COIR_MS(1))), -ETIMEDOUT);
  compute_until_taken();
  CHECK_EQ(coir_event_wait(&event, coir_after(COIR_MS(1))), -ETIMEDOUT);
  coir_barrier_init(&barrier, 1);
  compute_until_taken();
  CHECK_EQ(coir_barrier_wait(&barrier, COIR_NEVER), 1);
}

/* The first wait after the worker has been taken away is one like any other. */
ON_FIBER_OF(waits_for_anything, .busy_us = 500) {
  struct coir_chan *c = coir_chan_create(sizeof(int), 0);
  struct coir_fiber *self = coir_current();
  struct coir_scope *scope;
  for (int i = 0; i < 5; i++) {
    wait_on_channels(c);
    wait_on_locks();
    compute_until_taken();
    CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
    CHECK_EQ(coir_scope_spawn(scope, wait_to_be_canceled, NULL, NULL, NULL), 0);
    coir_scope_shorten(scope, coir_after(COIR_MS(1)));
    CHECK_EQ(coir_scope_close(scope), -ETIMEDOUT);
    CHECK(coir_current() == self);
  }
  coir_chan_unref(c);
}

ON_FIBER_OF(cannot_end_its_runtime) {
  struct coir_runtime *rt = coir_runtime_current();
  compute_until_taken();
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), -EDEADLK);
  coir_yield();
  compute_until_taken();
  CHECK_EQ(coir_runtime_run(rt, cannot_be, NULL, NULL), -EBUSY);
  CHECK_EQ(coir_run(cannot_be, NULL), -EBUSY);
}

static void count_when_taken(void *n) {
  (*(int *)n % 2 ? block_until_taken : compute_until_taken)();
  ++*(int *)n;
}

static int work_when_taken(void *n, void **value) {
  count_when_taken(n);
  *value = n;
  return 23;
}

static void see_when_taken(const struct coir_fiber_info *info, void *const *frames, size_t count, void *n) {
  CHECK(info->id && (frames || !count));
  count_when_taken(n);
}

/* What the library calls back is the program's own code as well. */
ON_FIBER_OF(computes_in_callbacks) {
  struct coir_once once = {0};
  struct coir_flight flight = {0};
  struct coir_result result;
  int n = 0;
  CHECK_EQ(coir_once_do(&once, count_when_taken, &n, COIR_NEVER), 0);
  CHECK_EQ(n, 1);
  CHECK_EQ(coir_flight_do(&flight, "key", 3, work_when_taken, &n, &result, COIR_NEVER), 1);
  CHECK(result.status == 23 && result.value == &n);
  CHECK_EQ(n, 2);
  CHECK(coir_runtime_walk(coir_runtime_current(), see_when_taken, &n) >= 1);
  CHECK(n >= 3);
}

ON_FIBER_OF(blocks_in_the_open_too) {
  struct coir_fiber *self = coir_current();
  for (int i = 0; i < 5; i++) {
    compute_until_taken();
    CHECK_EQ(coir_block_enter(), 0);
    CHECK(coir_current() == NULL);
    usleep(100);
    coir_block_leave();
    CHECK(coir_current() == self);
  }
}

/* ---- Holding on to the worker ---------------------------------------------------------------------------------- */

static void compute_for(int64_t ns) {
  int64_t end = coir_now() + ns;
  SPIN_UNTIL(coir_now() >= end);
}

ON_FIBER_OF(holds_keep_the_worker, .busy_us = 2000) {
  flag is_taken = 0, others_ran = 0;
  coir_hold_begin();
  int here = coir_worker_index();
  uint64_t before = handoffs();
  go_beside(raise_flag, &is_taken);
  compute_for(COIR_MS(50));
  usleep(10000);
  coir_hold_begin(); /* nested */
  coir_hold_end();
  compute_for(COIR_MS(30));
  CHECK(!is_up(&is_taken));
  CHECK_EQ(handoffs(), before);
  CHECK_EQ(coir_worker_index(), here);
  coir_hold_end();
  SPIN_UNTIL(is_up(&is_taken));

  coir_hold_begin(); /* after it was taken away */
  CHECK(coir_worker_index() >= 0);
  go_beside(raise_flag, &others_ran);
  WAIT_FOR(is_up(&others_ran)); /* it may wait */
  atomic_store(&is_taken, 0);
  before = handoffs();
  go_beside(raise_flag, &is_taken);
  compute_for(COIR_MS(30));
  CHECK(!is_up(&is_taken));
  CHECK_EQ(handoffs(), before);
  coir_hold_end();
  SPIN_UNTIL(is_up(&is_taken));
}

static int end_in_hold(void *unused) {
  (void)unused;
  coir_hold_begin();
  return 0;
}

/* What holds is the fiber, and not its worker or thread. */
ON_FIBER_OF(holds_are_the_fibers_own, .workers = 1, .busy_us = 1000) {
  CHECK_EQ(join(spawn(end_in_hold, NULL)), 0);
  compute_until_taken();
  CHECK_EQ(join(spawn(return_at_once, NULL)), 17);
  coir_hold_begin();
  CHECK_EQ(join(spawn(return_at_once, NULL)), 17); /* another one computes while this one waits */
  uint64_t before = handoffs();
  flag is_taken = 0;
  go_beside(raise_flag, &is_taken);
  compute_for(COIR_MS(20));
  CHECK(!is_up(&is_taken));
  CHECK_EQ(handoffs(), before);
  CHECK_EQ(coir_block_enter(), 0); /* unless it says so itself */
  SPIN_UNTIL(is_up(&is_taken));
  coir_block_leave();
  coir_hold_end();
  compute_until_taken();
}

/* ---- All at once ----------------------------------------------------------------------------------------------- */

#define MIXERS 16

struct mix {
  struct coir_chan *chan;
  struct coir_mutex mutex;
  int64_t guarded;
  int rounds;
};

static void mix_once(struct mix *m, uint64_t *rng, int64_t *locked) {
  uint64_t what = rng_next(rng) % 8;
  int mine = (int)*rng, here = tid();
  if (what < 3) {
    mark_set(mine);
    if (what == 0) usleep((useconds_t)(rng_next(rng) % 500));
    else compute_for((int64_t)(rng_next(rng) % 300000));
    CHECK_EQ(mark_get(), mine);
    CHECK_EQ(tid(), here);
  } else if (what < 6) {
    CHECK_EQ(coir_mutex_lock(&m->mutex, COIR_NEVER), 0);
    here = tid();
    ++*locked;
    m->guarded++;
    if (what == 3) compute_for(COIR_US(100));
    CHECK_EQ(tid(), here);
    coir_mutex_unlock(&m->mutex);
    CHECK_EQ(tid(), here);
  } else if (what == 6) {
    CHECK_EQ(coir_sleep(COIR_US(rng_next(rng) % 100)), 0);
  } else {
    coir_yield();
  }
}

static int mixer(void *arg) {
  struct mix *m = arg;
  struct coir_fiber *self = coir_current();
  uint64_t rng = rng_seed(coir_fiber_id(NULL));
  int64_t sum = 0, locked = 0, v;
  for (int i = 0; i < m->rounds; i++) {
    mix_once(m, &rng, &locked);
    v = (int64_t)(rng_next(&rng) % 1000);
    if (coir_chan_send(m->chan, &v, 0) == 0) sum += v;
    if (coir_chan_recv(m->chan, &v, 0) == 0) sum -= v;
    CHECK(coir_current() == self);
  }
  CHECK_EQ(coir_mutex_lock(&m->mutex, COIR_NEVER), 0);
  m->guarded -= locked;
  coir_mutex_unlock(&m->mutex);
  return (int)sum;
}

/* With bounds so short that every fiber loses its worker again and again. */
ON_FIBER_OF(everything_at_once, .blocked_us = 50, .busy_us = 50) {
  struct mix m = {.chan = coir_chan_create(sizeof(int64_t), 64), .rounds = rounds(400)};
  struct coir_fiber *fibers[MIXERS];
  int64_t sum = 0, v;
  for (int i = 0; i < MIXERS; i++) fibers[i] = spawn(mixer, &m);
  for (int i = 0; i < MIXERS; i++) sum += join(fibers[i]);
  while (coir_chan_recv(m.chan, &v, 0) == 0) sum -= v;
  CHECK_EQ(sum, 0);
  CHECK_EQ(m.guarded, 0);
  CHECK(handoffs() > 0);
  coir_chan_unref(m.chan);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(stays_itself_while_it_blocks),
      CASE(stays_itself_while_it_computes),
      CASE(holds_locks_of_its_thread),
      CASE(keeps_errno),
      CASE(cancellation_comes_with_the_next_wait),
      CASE(ends),
      CASE(generates),
      CASE(waits_for_anything),
      CASE(cannot_end_its_runtime),
      CASE(computes_in_callbacks),
      CASE(blocks_in_the_open_too),
      CASE(holds_keep_the_worker),
      CASE(holds_are_the_fibers_own),
      CASE(everything_at_once),
  };
  return RUN_CASES(argc, argv, cases);
}
