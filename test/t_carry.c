/* Calls that block: each sentence of coir_block_enter and its relatives in coir.h. */
#include "parked.h"

#include <dirent.h>
#include <sys/syscall.h>

static int tid(void) { return (int)syscall(SYS_gettid); }

static int threads(void) {
  DIR *dir = opendir("/proc/self/task");
  int n = -2; /* . and .. */
  CHECK(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static uint64_t handoffs(void) {
  struct coir_stats stats;
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  return stats.handoffs;
}

/* A pipe in blocking mode, which only read(2) and write(2) know. */
struct pipe_pair {
  int fds[2];
};

static void pipe_open(struct pipe_pair *p) { CHECK_EQ(pipe(p->fds), 0); }

static void pipe_close(struct pipe_pair *p) {
  close(p->fds[0]);
  close(p->fds[1]);
}

static void take_byte(struct pipe_pair *p) {
  char c;
  CHECK_EQ(read(p->fds[0], &c, 1), 1);
}

static void give_byte(struct pipe_pair *p) { CHECK_EQ(write(p->fds[1], "x", 1), 1); }

/* ---- The others go on ------------------------------------------------------------------------------------------ */

static int give_later(void *p) {
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0); /* a timer of the worker that the other one had */
  give_byte(p);
  return 0;
}

/* On one worker this would stand still for ever. */
ON_FIBER(others_go_on) {
  for (int i = 0; i < 20; i++) {
    struct pipe_pair p;
    pipe_open(&p);
    struct coir_fiber *f = spawn(give_later, &p);
    CHECK_EQ(coir_block_enter(), 0);
    take_byte(&p);
    coir_block_leave();
    CHECK_EQ(join(f), 0);
    pipe_close(&p);
  }
#ifdef COIR_HARD /* there the worker is taken for nothing, too */
  CHECK(handoffs() >= 20);
#else
  CHECK_EQ(handoffs(), 20);
#endif
}

static int block_on(void *p) {
  CHECK_EQ(coir_block_enter(), 0);
  take_byte(p);
  coir_block_leave();
  return 7;
}

#define CROWD 40

/* Many at once: each needs a thread, and all come back. */
ON_FIBER(a_crowd_blocks) {
  struct pipe_pair p;
  struct coir_fiber *fibers[CROWD];
  pipe_open(&p);
  for (int i = 0; i < CROWD; i++) fibers[i] = spawn(block_on, &p);
  WAIT_FOR(handoffs() == CROWD);
  CHECK(threads() >= CROWD);
  for (int i = 0; i < CROWD; i++) give_byte(&p);
  for (int i = 0; i < CROWD; i++) CHECK_EQ(join(fibers[i]), 7);
  WAIT_FOR(threads() < CROWD); /* those that nobody needs go */
  pipe_close(&p);
}

/* ---- What the fiber is meanwhile ------------------------------------------------------------------------------- */

static _Thread_local int mark;

static __attribute__((noinline)) void mark_set(int v) {
  __asm__ volatile("");
  mark = v;
}
static __attribute__((noinline)) int mark_get(void) {
  __asm__ volatile("");
  return mark;
}

ON_FIBER(stays_on_its_thread) {
  for (int i = 1; i <= 100; i++) {
    int before = tid();
    CHECK_EQ(coir_block_enter(), 0);
    mark_set(i);
    CHECK_EQ(tid(), before);
    usleep(50);
    CHECK_EQ(mark_get(), i);
    CHECK_EQ(tid(), before);
    coir_block_leave();
    coir_yield();
  }
}

static __attribute__((noinline)) void errno_set(int v) {
  __asm__ volatile("");
  errno = v;
}
static __attribute__((noinline)) int errno_get(void) {
  __asm__ volatile("");
  return errno;
}

ON_FIBER(keeps_errno) {
  CHECK_EQ(coir_block_enter(), 0);
  errno_set(EXDEV);
  coir_block_leave();
  CHECK_EQ(errno_get(), EXDEV);
}

static int receive_here(void *c) {
  int v = 0;
  CHECK_EQ(coir_block_enter(), 0);
  CHECK_EQ(coir_chan_recv(c, &v, COIR_NEVER), 0);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  coir_yield();
  coir_block_leave();
  return v;
}

ON_FIBER(is_like_a_plain_thread) {
  struct coir_fiber *self = coir_current();
  CHECK_EQ(coir_block_enter(), 0);
  CHECK(coir_current() == NULL);
  CHECK_EQ(coir_worker_index(), -1);
  CHECK(coir_runtime_current() == NULL);
  coir_block_leave();
  CHECK(coir_current() == self);
  CHECK(coir_worker_index() >= 0);
  struct coir_chan *c = coir_chan_create(sizeof(int), 0);
  struct coir_fiber *f = spawn(receive_here, c);
  CHECK_EQ(coir_chan_send(c, &(int){42}, COIR_NEVER), 0);
  CHECK_EQ(join(f), 42);
  coir_chan_unref(c);
}

ON_FIBER(pairs_are_nested) {
  struct pipe_pair p;
  pipe_open(&p);
  struct coir_fiber *f = spawn(give_later, &p);
  CHECK_EQ(coir_block_enter(), 0);
  CHECK_EQ(coir_block_enter(), 0);
  coir_block_leave();
  CHECK(coir_current() == NULL);
  take_byte(&p);
  coir_block_leave();
  CHECK(coir_current() != NULL);
  CHECK_EQ(handoffs(), 1);
  CHECK_EQ(join(f), 0);
  pipe_close(&p);
}

static void count_call(void *n) { ++*(int *)n; }

static void plain_threads_do_nothing(void **state) {
  (void)state;
  int n = 0;
  CHECK_EQ(coir_block_enter(), 0);
  coir_block_leave();
  CHECK_EQ(coir_block(count_call, &n), 0);
  CHECK_EQ(n, 1);
  coir_block_leave(); /* one too many */
}

static void call_take(void *p) {
  CHECK(coir_current() == NULL);
  take_byte(p);
}

ON_FIBER(runs_a_function) {
  struct pipe_pair p;
  pipe_open(&p);
  struct coir_fiber *f = spawn(give_later, &p);
  CHECK_EQ(coir_block(call_take, &p), 0);
  CHECK_EQ(join(f), 0);
  pipe_close(&p);
}

ON_FIBER(is_listed_as_a_blocking_call) {
  struct pipe_pair p;
  struct coir_fiber_info list[2];
  pipe_open(&p);
  struct coir_fiber *f = spawn(block_on, &p);
  WAIT_FOR(handoffs() == 1);
  CHECK_EQ(coir_runtime_list(coir_runtime_current(), list, 2), 2);
  struct coir_fiber_info *info = &list[list[0].id != coir_fiber_id(f)];
  CHECK_EQ(info->state, COIR_FIBER_WAITING);
  CHECK(!strcmp(info->waits_for, "blocking call"));
  CHECK(info->since > 0 && info->since <= coir_now());
  give_byte(&p);
  CHECK_EQ(join(f), 7);
  pipe_close(&p);
}

static int adds(void *n) {
  atomic_fetch_add((_Atomic(int) *)n, 1);
  CHECK(coir_runtime_current() != coir_runtime_default());
  return 0;
}

/* The runtime is that of the fiber, which is not the default one. */
ON_FIBER(makes_things_for_its_runtime) {
  struct coir_runtime *rt = coir_runtime_current(), *other;
  struct coir_scope *scope;
  struct coir_timer *timer;
  _Atomic(int) n = 0;
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  CHECK_EQ(coir_block_enter(), 0);
  CHECK_EQ(coir_runtime_run(rt, adds, &n, NULL), -EBUSY);
  CHECK_EQ(coir_run(adds, &n), -EBUSY);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), -EDEADLK);
  CHECK_EQ(coir_go(adds, &n), 0);
  CHECK_EQ(coir_scope_spawn(scope, adds, &n, NULL, NULL), 0);
  CHECK_EQ(coir_timer_create(&timer, adds, &n), 0);
  CHECK_EQ(coir_timer_start(timer, 0, 0), 0);
  CHECK_EQ(coir_runtime_create(&other, NULL), 0); /* other runtimes may be started and stopped */
  CHECK_EQ(coir_runtime_start(other), 0);
  CHECK_EQ(coir_runtime_spawn(other, adds, &n, NULL, NULL), 0);
  CHECK_EQ(coir_runtime_stop(other, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(other), 0);
  WAIT_FOR(atomic_load(&n) == 4);
  coir_timer_destroy(timer);
  coir_block_leave();
  CHECK_EQ(coir_scope_close(scope), 0);
}

/* ---- Where it cannot be ---------------------------------------------------------------------------------------- */

static int enter_when_full(void *unused) {
  (void)unused;
  int rc = coir_block_enter();
  CHECK(coir_current() != NULL);
  coir_block_leave();
  return rc;
}

static int too_many(void *arg) {
  struct pipe_pair p;
  (void)arg;
  pipe_open(&p);
  struct coir_fiber *f = spawn(block_on, &p);
  WAIT_FOR(handoffs() == 1);
  CHECK_EQ(join(spawn(enter_when_full, NULL)), -EAGAIN);
  CHECK_EQ(handoffs(), 1);
  give_byte(&p);
  CHECK_EQ(join(f), 7);
  pipe_close(&p);
  return 0;
}

/* With one thread to spare, and one worker. */
static void threads_have_a_limit(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .spares_max = 1}, too_many, NULL), 0);
}

static int tid_of(void *unused) {
  (void)unused;
  return tid();
}

static int pinned_stay(void *unused) {
  (void)unused;
  CHECK_EQ(coir_block_enter(), 0);
  coir_block_leave();
  int before = join(spawn_with((struct coir_attr){.pinned = true, .worker = COIR_WORKER(0)}, tid_of, NULL));
  CHECK_EQ(coir_block_enter(), -EBUSY);
  CHECK(coir_current() != NULL);
  coir_block_leave();
  CHECK_EQ(join(spawn_with((struct coir_attr){.pinned = true, .worker = COIR_WORKER(0)}, tid_of, NULL)), before);
  return 0;
}

static void pinned_fibers_keep_their_thread(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, pinned_stay, NULL), 0);
}

/* ---- Together with the rest ------------------------------------------------------------------------------------ */

static _Atomic(int) is_in;

static int canceled_meanwhile(void *p) {
  CHECK_EQ(coir_block_enter(), 0);
  atomic_store(&is_in, 1);
  take_byte(p);
  coir_block_leave();
  return coir_sleep(COIR_SEC(20));
}

ON_FIBER(cancellation_waits) {
  struct pipe_pair p;
  pipe_open(&p);
  atomic_store(&is_in, 0);
  struct coir_fiber *f = spawn(canceled_meanwhile, &p);
  WAIT_FOR(atomic_load(&is_in));
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(coir_join(f, NULL, coir_after(COIR_MS(5))), -ETIMEDOUT);
  give_byte(&p);
  CHECK_EQ(join(f), -ECANCELED);
  pipe_close(&p);
}

static int block_only(void *unused) {
  (void)unused;
  CHECK_EQ(coir_block_enter(), 0);
  usleep(2000);
  coir_block_leave();
  return 5;
}

/* The thread that called coir_runtime_run loses worker 0, and returns all the same. */
static void a_run_ends(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  for (int i = 0; i < rounds(100); i++) {
    int status = 0, before = tid();
    CHECK_EQ(coir_runtime_run(rt, block_only, NULL, &status), 0);
    CHECK_EQ(status, 5);
    CHECK_EQ(tid(), before);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static _Atomic(int) came_back;

static int block_and_return(void *p) {
  CHECK_EQ(coir_block_enter(), 0);
  atomic_store(&is_in, 1);
  take_byte(p);
  coir_block_leave();
  atomic_store(&came_back, 1);
  return 0;
}

static void *give_soon(void *p) {
  usleep(20000);
  give_byte(p);
  return NULL;
}

static void stop_while_blocked(enum coir_stop how, int expected) {
  struct pipe_pair p;
  pthread_t thread;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  pipe_open(&p);
  atomic_store(&is_in, 0);
  atomic_store(&came_back, 0);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, block_and_return, &p, NULL, NULL), 0);
  WAIT_FOR(atomic_load(&is_in));
  CHECK_EQ(pthread_create(&thread, NULL, give_soon, &p), 0);
  CHECK_EQ(coir_runtime_stop(rt, how, COIR_NEVER), 0);
  CHECK_EQ(atomic_load(&came_back), expected);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(coir_runtime_list(rt, NULL, 0), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  pipe_close(&p);
}

static void a_stop_waits(void **state) {
  (void)state;
  int before = threads();
  for (int i = 0; i < 5; i++) {
    stop_while_blocked(COIR_STOP_DRAIN, 1);
    stop_while_blocked(COIR_STOP_CANCEL, 1);
    stop_while_blocked(COIR_STOP_ABANDON, 0); /* leaving is a suspension: it goes no further */
  }
  WAIT_FOR(threads() <= before); /* who was joined may still be listed for a moment, then and now */
}

static int fork_inside(void *unused) {
  (void)unused;
  int status = -1;
  CHECK_EQ(coir_block_enter(), 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    coir_block_leave();
    _exit(coir_current() == NULL ? 9 : 8);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  coir_block_leave();
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
  return 0;
}

ON_FIBER(a_child_stays_where_it_is) {
  for (int i = 0; i < 5; i++) CHECK_EQ(join(spawn(fork_inside, NULL)), 0);
}

static int wait_for_value(void *c) {
  int v = 0;
  CHECK_EQ(coir_chan_recv(c, &v, COIR_NEVER), 0);
  return v;
}

/* All others wait for this one, which is in the kernel: no deadlock. */
ON_FIBER(is_no_deadlock) {
  struct coir_chan *c = coir_chan_create(sizeof(int), 0);
  struct coir_fiber *f = spawn(wait_for_value, c);
  CHECK_EQ(coir_block_enter(), 0);
  usleep(100000);
  coir_block_leave();
  CHECK_EQ(coir_chan_send(c, &(int){3}, COIR_NEVER), 0);
  CHECK_EQ(join(f), 3);
  coir_chan_unref(c);
}

static int generate(void *n) {
  for (intptr_t i = 0; i < (intptr_t)n; i++) {
    CHECK_EQ(coir_block_enter(), 0);
    usleep(100);
    coir_block_leave();
    CHECK_EQ(coir_gen_yield((void *)i, NULL), 0);
  }
  return 0;
}

ON_FIBER(a_generator_blocks) {
  struct coir_gen *gen;
  void *value;
  intptr_t expected = 0;
  CHECK_EQ(coir_gen_create(&gen, generate, (void *)20, NULL), 0);
  while (coir_gen_resume(gen, NULL, &value) == 0) CHECK_EQ((intptr_t)value, expected++);
  CHECK_EQ(expected, 20);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

/* ---- All at once ----------------------------------------------------------------------------------------------- */

#define MIXERS 24

struct mix {
  struct coir_chan *chan;
  struct coir_mutex mutex;
  int64_t guarded;
  int rounds;
};

static void mix_once(struct mix *m, uint64_t *rng) {
  uint64_t what = rng_next(rng) % 8;
  if (what < 3) {
    int rc = coir_block_enter();
    CHECK(rc == 0 || rc == -EAGAIN);
    int mine = (int)*rng;
    mark_set(mine);
    if (what == 0) usleep((useconds_t)(rng_next(rng) % 200));
    CHECK_EQ(mark_get(), mine);
    coir_block_leave();
  } else if (what < 5) {
    CHECK_EQ(coir_mutex_lock(&m->mutex, COIR_NEVER), 0);
    m->guarded++;
    coir_mutex_unlock(&m->mutex);
  } else if (what == 5) {
    CHECK_EQ(coir_sleep(COIR_US(rng_next(rng) % 100)), 0);
  } else {
    coir_yield();
  }
}

static int mixer(void *arg) {
  struct mix *m = arg;
  uint64_t rng = rng_seed(coir_fiber_id(NULL));
  int64_t sum = 0, v;
  for (int i = 0; i < m->rounds; i++) {
    mix_once(m, &rng);
    v = (int64_t)(rng_next(&rng) % 1000);
    if (coir_chan_send(m->chan, &v, 0) == 0) sum += v;
    if (coir_chan_recv(m->chan, &v, 0) == 0) sum -= v;
  }
  return (int)sum;
}

ON_FIBER(everything_at_once) {
  struct mix m = {.chan = coir_chan_create(sizeof(int64_t), 64), .rounds = rounds(400)};
  struct coir_fiber *fibers[MIXERS];
  int64_t sum = 0, v;
  for (int i = 0; i < MIXERS; i++) fibers[i] = spawn(mixer, &m);
  for (int i = 0; i < MIXERS; i++) sum += join(fibers[i]);
  while (coir_chan_recv(m.chan, &v, 0) == 0) sum -= v;
  CHECK_EQ(sum, 0);
  coir_chan_unref(m.chan);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(others_go_on),
      cmocka_unit_test(a_crowd_blocks),
      cmocka_unit_test(stays_on_its_thread),
      cmocka_unit_test(keeps_errno),
      cmocka_unit_test(is_like_a_plain_thread),
      cmocka_unit_test(pairs_are_nested),
      cmocka_unit_test(plain_threads_do_nothing),
      cmocka_unit_test(runs_a_function),
      cmocka_unit_test(is_listed_as_a_blocking_call),
      cmocka_unit_test(makes_things_for_its_runtime),
      cmocka_unit_test(threads_have_a_limit),
      cmocka_unit_test(pinned_fibers_keep_their_thread),
      cmocka_unit_test(cancellation_waits),
      cmocka_unit_test(a_run_ends),
      cmocka_unit_test(a_stop_waits),
      cmocka_unit_test(a_child_stays_where_it_is),
      cmocka_unit_test(is_no_deadlock),
      cmocka_unit_test(a_generator_blocks),
      cmocka_unit_test(everything_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
