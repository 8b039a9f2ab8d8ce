/* Scenes of coir.h: runtimes, fibers, and how they wait for each other. */
#include "scenes.h"

#include <sys/wait.h>

#include "coir_io.h"

/* ---- Runtimes -------------------------------------------------------------------------------------------------- */

static int returns_5(void *arg) {
  (void)arg;
  return 5;
}

static int one_run(struct coir_config config) {
  int rc = play_on(config, returns_5, NULL);
  CHECK(rc < 0 || rc == 5);
  return rc < 0 ? rc : 0;
}

static int run_one(void) { return one_run((struct coir_config){.workers = 1}); }
static int run_two(void) { return one_run((struct coir_config){.workers = 2, .pollers = 1}); }

/* With as many workers as there are CPUs: that is looked up. */
static int run_default(void) {
  static const struct coir_config config = {.size = sizeof config, .io_uring = COIR_OFF};
  int rc = coir_configure(&config);
  CHECK(rc == 0 || rc == -EBUSY);
  struct coir_runtime *rt = coir_runtime_default();
  if (!rt) return MAY(-ENOMEM, -ENOMEM);
  rc = MAY(coir_run(returns_5, NULL), OF_START);
  CHECK(rc < 0 || rc == 5);
  return rc < 0 ? rc : 0;
}

static int sleeps(void *arg) {
  (void)arg;
  MUST(coir_yield());
  MUST(coir_sleep(COIR_US(20)));
  return 5;
}

static int sleeps_long(void *arg) {
  (void)arg;
  return coir_sleep(COIR_MS(25));
}

static int serve(struct coir_runtime *rt) {
  int rc = MAY(coir_runtime_start(rt), OF_START);
  if (rc < 0) return rc;
  struct coir_fiber *f = NULL;
  rc = MAY(coir_runtime_spawn(rt, sleeps, NULL, NULL, &f), -ENOMEM);
  if (f) coir_detach(f);
  MUST(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER));
  return rc;
}

/* Who stops waits for longer than it takes to think of a deadlock. */
static int serve_long(struct coir_runtime *rt) {
  int rc = MAY(coir_runtime_start(rt), OF_START);
  if (rc < 0) return rc;
  rc = MAY(coir_runtime_spawn(rt, sleeps_long, NULL, NULL, NULL), -ENOMEM);
  MUST(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER));
  return rc;
}

static int on_runtime(int (*fn)(struct coir_runtime *rt)) {
  struct coir_config config = {.size = sizeof config, .workers = 2};
  struct coir_runtime *rt;
  int rc = MAY(coir_runtime_create(&rt, &config), OF_CREATE);
  if (rc < 0) return rc;
  rc = fn(rt);
  if (rc == 0) rc = fn(rt);
  MUST(coir_runtime_destroy(rt));
  return rc;
}

static int start_stop(void) { return on_runtime(serve); }
static int stop_late(void) { return on_runtime(serve_long); }

/* ---- Fibers ---------------------------------------------------------------------------------------------------- */

static int spawns(void *arg) {
  enum { COUNT = 48 };
  struct coir_fiber *f[COUNT];
  int rc = 0;
  (void)arg;
  for (int i = 0; i < COUNT; i++) {
    struct coir_attr attr = {.name = "one of many", .pinned = i % 8 == 0, .order = (enum coir_order)(i % 2)};
    if (i % 6 == 1) attr.stack_bytes = (size_t)32 << 10 << (i / 6 % 4);
    if (i % 5 == 2) attr.worker = COIR_WORKER(0);
    rc = first_of(rc, MAY(coir_spawn(sleeps, NULL, &attr, &f[i]), -ENOMEM));
  }
  for (int i = 0; i < COUNT; i++) CHECK(!f[i] || join_soon(f[i]) == 5);
  return rc;
}

static int spawn_many(void) { return play_on((struct coir_config){.workers = 2}, spawns, NULL); }

static int spawn_guarded(void) {
  return play_on((struct coir_config){.workers = 1, .guard = COIR_GUARD_MPROTECT, .guards_max = 16}, spawns, NULL);
}

static int spawn_old(void) {
  fault_age(true);
  int rc = spawn_many();
  fault_age(false);
  return rc;
}

/* More than the queues begin with, and than a slab has. */
static int spawns_more(void *arg) {
  enum { COUNT = 1500 };
  int rc = 0;
  (void)arg;
  struct coir_fiber **f = calloc(COUNT, sizeof *f);
  CHECK(f);
  for (int i = 0; i < COUNT; i++)
    rc = first_of(
        rc, MAY(coir_spawn(returns_5, NULL, &(struct coir_attr){.order = (enum coir_order)(i % 2)}, &f[i]), -ENOMEM));
  for (int i = 0; i < COUNT; i++) CHECK(!f[i] || join_soon(f[i]) == 5);
  free(f);
  return rc;
}

static int spawn_more(void) { return play_on((struct coir_config){.workers = 2}, spawns_more, NULL); }

static int uses_locals(void *arg) {
  int key = *(int *)arg, rc = MAY(coir_local_set(key, arg), -ENOMEM);
  CHECK(coir_local_get(key) == (rc ? NULL : arg));
  return rc;
}

static int locals(void) {
  int key = MAY(coir_key_create(NULL), -EAGAIN),
      rc = first_of(play_on((struct coir_config){.workers = 1}, uses_locals, &key), uses_locals(&key));
  MUST(coir_key_delete(key));
  return rc;
}

/* ---- Scopes ---------------------------------------------------------------------------------------------------- */

static int uses_scopes(void *arg) {
  static const char key = 0;
  struct coir_scope *outer, *inner;
  int rc = MAY(coir_scope_open(&outer, 0, SOON), -ENOMEM);
  if (rc < 0) return rc;
  rc = MAY(coir_scope_set(outer, &key, arg), -ENOMEM);
  int opened = MAY(coir_scope_open(&inner, 0, SOON), -ENOMEM);
  if (opened == 0) {
    struct coir_fiber *f = NULL;
    rc = first_of(rc, MAY(coir_scope_spawn(inner, sleeps, NULL, NULL, &f), -ENOMEM));
    if (f) CHECK(join_soon(f) == 5);
    coir_scope_shorten(inner, coir_after(COIR_MS(1)));
    int slept = coir_sleep(COIR_SEC(10));
    CHECK(slept == -ECANCELED || slept == -ETIMEDOUT);
    CHECK(coir_scope_close(inner) == -ETIMEDOUT);
  }
  MUST(coir_scope_close(outer));
  return first_of(rc, opened);
}

static int scopes(void) { return play_on((struct coir_config){.workers = 2}, uses_scopes, NULL); }

/* ---- Channels, select, timers ---------------------------------------------------------------------------------- */

static int sends_ten(void *chan) {
  for (int i = 0; i < 10; i++) MUST(coir_chan_send(chan, &i, SOON));
  coir_chan_close(chan);
  return 0;
}

static int uses_channels(void *arg) {
  (void)arg;
  struct coir_chan *c = coir_chan_create(sizeof(int), 3), *d = coir_chan_create(sizeof(int), 0);
  struct coir_fiber *f = NULL;
  int rc = c && d ? 0 : MAY(-ENOMEM, -ENOMEM), sum = 0, value;
  if (rc == 0) rc = MAY(coir_spawn(sends_ten, c, NULL, &f), -ENOMEM);
  while (rc == 0 && coir_chan_recv(c, &value, SOON) == 0) sum += value;
  CHECK(rc < 0 || sum == 45);
  (void)join_soon(f);
  f = NULL;
  if (rc == 0) rc = MAY(coir_spawn(sends_ten, d, NULL, &f), -ENOMEM);
  while (rc == 0) {
    struct coir_arm arms[2] = {coir_arm_recv(d, &value), coir_arm_deadline(SOON)};
    MUST(coir_select(arms, 2, COIR_NEVER));
    if (arms[0].result == -EPIPE) break;
  }
  (void)join_soon(f);
  coir_chan_unref(c);
  coir_chan_unref(d);
  return rc;
}

static int channels(void) { return play_on((struct coir_config){.workers = 2}, uses_channels, NULL); }

static int counts_up(void *n) {
  atomic_fetch_add((_Atomic(int) *)n, 1);
  return 0;
}

static int uses_timers(void *arg) {
  (void)arg;
  static _Atomic(int) fired;
  struct coir_timer *timer = NULL;
  struct coir_ticker *ticker = NULL;
  int64_t at;
  fired = 0;
  int rc = MAY(coir_timer_create(&timer, counts_up, &fired), -ENOMEM);
  if (rc == 0) {
    MUST(coir_timer_start(timer, coir_after(COIR_US(50)), COIR_US(300)));
    for (int64_t end = SOON; fired < 3;) {
      CHECK(coir_now() < end);
      MUST(coir_sleep(COIR_US(100)));
    }
    coir_timer_destroy(timer);
  }
  int made = MAY(coir_ticker_create(&ticker, COIR_US(200)), -ENOMEM);
  if (made == 0) {
    for (int i = 0; i < 3; i++) MUST(COIR_RECV(coir_ticker_chan(ticker), &at, SOON));
    coir_ticker_destroy(ticker);
  }
  COIR_CHAN(int64_t) c = coir_timer_chan(coir_after(COIR_US(100)));
  if (c) MUST(COIR_RECV(c, &at, SOON));
  COIR_CHAN_UNREF(c);
  return first_of(first_of(rc, made), c ? 0 : MAY(-ENOMEM, -ENOMEM));
}

static int timers(void) { return play_on((struct coir_config){.workers = 2}, uses_timers, NULL); }

/* ---- Locks and the like ---------------------------------------------------------------------------------------- */

enum { PARTIES = 4 };

static struct {
  struct coir_mutex mutex;
  struct coir_rwlock rwlock;
  struct coir_cond cond;
  struct coir_sem sem;
  struct coir_event event;
  struct coir_once once;
  struct coir_barrier barrier;
  struct coir_flight flight;
  int count;
} locked;

static void once_counts(void *arg) { ++*(int *)arg; }

static int flies(void *arg, void **out) {
  *out = arg;
  return coir_sleep(COIR_US(50));
}

static int uses_locks(void *arg) {
  struct coir_result shared;
  (void)arg;
  MUST(coir_barrier_wait(&locked.barrier, SOON));
  for (int i = 0; i < 5; i++) {
    MUST(coir_mutex_lock(&locked.mutex, SOON));
    locked.count++;
    MUST(coir_sleep(COIR_US(10)));
    coir_mutex_unlock(&locked.mutex);
    MUST(i % 2 ? coir_rwlock_write(&locked.rwlock, SOON) : coir_rwlock_read(&locked.rwlock, SOON));
    MUST(coir_yield());
    if (i % 2) coir_rwlock_write_unlock(&locked.rwlock);
    else coir_rwlock_read_unlock(&locked.rwlock);
    MUST(coir_sem_acquire(&locked.sem, 1, SOON));
    MUST(coir_yield());
    coir_sem_release(&locked.sem, 1);
  }
  MUST(coir_once_do(&locked.once, once_counts, &locked.count, SOON));
  int rc = MAY(coir_flight_do(&locked.flight, "key", 3, flies, &locked, &shared, SOON), -ENOMEM);
  MUST(coir_mutex_lock(&locked.mutex, SOON));
  coir_cond_broadcast(&locked.cond);
  coir_mutex_unlock(&locked.mutex);
  MUST(coir_event_wait(&locked.event, SOON));
  return rc;
}

static void prepare_locks(void) {
  memset(&locked, 0, sizeof locked);
  coir_sem_init(&locked.sem, 2);
  coir_barrier_init(&locked.barrier, PARTIES);
}

/* All of them are needed: what cannot be spawned is tried again. */
static int contends(void *arg) {
  struct coir_fiber *f[PARTIES] = {NULL};
  int rc = 0;
  (void)arg;
  prepare_locks();
  for (int i = 0; i < PARTIES; i++)
    for (int again = 1; again;) {
      again = MAY(coir_spawn(uses_locks, NULL, NULL, &f[i]), -ENOMEM);
      rc = first_of(rc, again);
    }
  MUST(coir_mutex_lock(&locked.mutex, SOON));
  MUST(coir_cond_wait(&locked.cond, &locked.mutex, SOON));
  coir_mutex_unlock(&locked.mutex);
  coir_event_set(&locked.event);
  for (int i = 0; i < PARTIES; i++) rc = first_of(rc, join_soon(f[i]));
  CHECK(locked.count == PARTIES * 5 + 1);
  return rc;
}

static int locks(void) { return play_on((struct coir_config){.workers = 2}, contends, NULL); }

static int waits_for_event(void *event) {
  MUST(coir_event_wait(event, COIR_NEVER));
  return 0;
}

/* ---- Plain threads --------------------------------------------------------------------------------------------- */

static void *thread_waits(void *arg) {
  struct coir_chan *c = arg;
  int value, sum = 0, rc = record_make();
  while (rc == 0 && coir_chan_recv(c, &value, SOON) == 0) sum += value;
  return (void *)(intptr_t)sum;
}

static int uses_descriptors(const int fds[2]) {
  char c = 'x';
  CHECK(coir_read(fds[0], &c, 1, coir_after(COIR_US(200))) == -ETIMEDOUT || fault_has_come());
  if (write(fds[1], &c, 1) != 1) abort();
  return MAY(coir_read(fds[0], &c, 1, SOON), OF_WAIT_FD);
}

static int uses_keeper(void) {
  struct coir_scope *scope;
  int rc = MAY(coir_scope_open(&scope, 0, coir_after(COIR_MS(1))), -ENOMEM);
  if (rc < 0) return rc;
  int slept = coir_sleep(COIR_SEC(10));
  CHECK(slept == -ECANCELED);
  CHECK(coir_scope_close(scope) == -ETIMEDOUT);
  return 0;
}

/* When one of the two threads cannot wait the other one receives everything. */
static int threads(void) {
  int fds[2], rc = record_make(), value = 7, sums = 0;
  if (rc < 0) return rc;
  struct coir_chan *c = coir_chan_create(sizeof(int), 1);
  if (!c) return MAY(-ENOMEM, -ENOMEM);
  CHECK(pipe(fds) == 0);
  pthread_t other[2] = {thread_start(thread_waits, c), thread_start(thread_waits, c)};
  for (int i = 0; i < 4; i++) MUST(coir_chan_send(c, &value, SOON));
  coir_chan_close(c);
  for (int i = 0; i < 2; i++) {
    void *sum = NULL;
    pthread_join(other[i], &sum);
    sums += (int)(intptr_t)sum;
  }
  CHECK(sums == 28);
  coir_chan_unref(c);
  rc = first_of(uses_descriptors(fds), uses_keeper());
  close(fds[0]);
  close(fds[1]);
  return rc;
}

/* ---- Looking inside -------------------------------------------------------------------------------------------- */

static void visits(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg) {
  (void)frames;
  if (info->state == COIR_FIBER_WAITING) *(size_t *)arg += count;
}

static int looks(void *arg) {
  struct coir_fiber *f = NULL;
  struct coir_stats stats;
  size_t frames = 0;
  (void)arg;
  struct coir_event never = {0};
  int rc = MAY(coir_spawn(waits_for_event, &never, NULL, &f), -ENOMEM);
  for (int64_t end = SOON; rc == 0 && frames == 0;) {
    CHECK(coir_now() < end);
    rc = MAY((int)coir_runtime_walk(coir_runtime_current(), visits, &frames), -ENOMEM);
    if (rc > 0) rc = 0;
    MUST(coir_sleep(COIR_US(50)));
  }
  CHECK(coir_runtime_list(coir_runtime_current(), NULL, 0) >= 1);
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  coir_event_set(&never);
  (void)join_soon(f);
  return rc;
}

static int inspect(void) { return play_on((struct coir_config){.workers = 2}, looks, NULL); }

/* ---- Deadlocks ------------------------------------------------------------------------------------------------- */

#if !IS_TSAN /* it has threads of its own in a process that was forked: nobody knows them */
static bool tells(struct coir_runtime *rt, void *event) {
  (void)rt;
  coir_event_set(event);
  return true;
}

static int deadlock(void) {
  struct coir_event event = {0};
  struct coir_config config = {.workers = 2, .on_deadlock = tells, .on_deadlock_arg = &event};
  return play_on(config, waits_for_event, &event);
}

/* Beside an io_uring there are threads of the kernel's in the process. */
static int writes_and_waits(void *event) {
  int fd = file_without_name(), rc = MAY((int)coir_pwrite(fd, "x", 1, 0, SOON), -EAGAIN, -ENOMEM, OF_CALL);
  (void)coir_close(fd);
  return rc < 0 ? rc : waits_for_event(event);
}

static int deadlock_uring(void) {
  struct coir_event event = {0};
  struct coir_config config = {.workers = 2, .on_deadlock = tells, .on_deadlock_arg = &event};
  return play_on(config, writes_and_waits, &event);
}
#endif

/* ---- Holding a worker up --------------------------------------------------------------------------------------- */

static _Atomic(int) stalls;

static void on_stall(const struct coir_stall *stall, void *arg) {
  (void)stall, (void)arg;
  atomic_fetch_add(&stalls, 1);
}

static void naps(void *ms) { usleep((unsigned)(intptr_t)ms * 1000); }

static int uses_blocking(void *arg) {
  int entered = coir_block_enter();
  CHECK(entered == 0 || entered == -EAGAIN);
  naps(arg);
  if (entered == 0) coir_block_leave();
  return MAY(coir_block(naps, arg), -EAGAIN);
}

static int holds_up(void *arg) {
  naps(arg);
  for (int64_t end = coir_after(COIR_MS(4)); coir_now() < end;) {}
  return 0;
}

static int with_others(void *arg) {
  struct coir_fiber *f[3] = {NULL};
  coir_fn fn = *(coir_fn *)arg;
  int rc = 0;
  for (int i = 0; i < 3; i++) rc = first_of(rc, MAY(coir_spawn(fn, (void *)(intptr_t)2, NULL, &f[i]), -ENOMEM));
  for (int i = 0; i < 3; i++) rc = first_of(rc, join_soon(f[i]));
  return rc;
}

static int blocking(void) {
  coir_fn fn = uses_blocking;
  return play_on((struct coir_config){.workers = 1}, with_others, &fn);
}

static int stalling(void) {
  coir_fn fn = holds_up;
  struct coir_config config = {.workers = 1, .on_stall = on_stall, .blocked_us = 300, .busy_us = 1000};
  return play_on(config, with_others, &fn);
}

static int preempting(void) {
  coir_fn fn = holds_up;
  struct coir_config config = {.workers = 1, .preempt = COIR_ON, .quantum_us = 500};
  return play_on(config, with_others, &fn);
}

/* ---- fork(2) --------------------------------------------------------------------------------------------------- */

static int forks(void) {
  int rc = one_run((struct coir_config){.workers = 2}), status = -1;
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(60);
    _exit(one_run((struct coir_config){.workers = 2}) < 0 ? 9 : 0);
  }
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(status == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 9 && fault_has_come()));
  return rc;
}

const struct fault_scene fault_scenes_core[] = {
    {"run_one", run_one},
    {"run_two", run_two},
    {"run_default", run_default},
    {"start_stop", start_stop},
    {"stop_late", stop_late},
    {"spawn", spawn_many},
    {"guarded", spawn_guarded},
    {"spawn_more", spawn_more},
    {"spawn_old", spawn_old},
    {"locals", locals},
    {"scopes", scopes},
    {"channels", channels},
    {"timers", timers},
    {"locks", locks},
    {"threads", threads},
    {"inspect", inspect},
    {"blocking", blocking},
    {"stalling", stalling},
    {"preempting", preempting},
    {"forks", forks},
#if !IS_TSAN
    {"deadlock", deadlock},
    {"deadlock_uring", deadlock_uring},
#endif
    {NULL, NULL},
};
