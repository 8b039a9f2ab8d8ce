/* Scopes: what coir.h says of them, sentence by sentence; then large trees, and I/O that is cancelled. */
#include <limits.h>
#include <sys/socket.h>

#include "coir_io.h"
#include "parked.h"

#define FOREVER COIR_SEC(1000)

static struct coir_scope *open_scope(unsigned flags, int64_t deadline) {
  struct coir_scope *s = NULL;
  CHECK_EQ(coir_scope_open(&s, flags, deadline), 0);
  CHECK(s != NULL && coir_scope_current() == s);
  return s;
}

static struct coir_fiber *spawn_into(struct coir_scope *s, coir_fn fn, void *arg) {
  struct coir_fiber *f = NULL;
  CHECK_EQ(coir_scope_spawn(s, fn, arg, NULL, &f), 0);
  CHECK(f != NULL);
  return f;
}

static void go_into(struct coir_scope *s, coir_fn fn, void *arg) {
  CHECK_EQ(coir_scope_spawn(s, fn, arg, NULL, NULL), 0);
}

/* What sleeps until it is cancelled. */
static int sleeps(void *count) {
  int rc = coir_sleep(FOREVER);
  CHECK_EQ(rc, -ECANCELED);
  if (count) atomic_fetch_add((_Atomic(int) *)count, 1);
  return rc;
}

static int ends_with(void *status) { return (int)(intptr_t)status; }
#define STATUS(n) ((void *)(intptr_t)(n))

static int naps_then_ends_with(void *status) {
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return (int)(intptr_t)status;
}

/* ---- Closing --------------------------------------------------------------------------------------------------- */

static int counts_late(void *count) {
  coir_sleep(COIR_US(300));
  coir_yield();
  atomic_fetch_add((_Atomic(int) *)count, 1);
  return 0;
}

/* Spawns siblings, and siblings of those. */
static int multiplies(void *count) {
  static _Atomic(int) generations;
  if (atomic_fetch_add(&generations, 1) % 7 < 3)
    for (int i = 0; i < 2; i++) go_into(NULL, multiplies, count);
  atomic_fetch_add((_Atomic(int) *)count, 1000);
  return counts_late(count);
}

ON_BOTH(closing_waits_for_all) {
  _Atomic(int) count = 0;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 50; i++) go_into(s, counts_late, &count);
  go_into(NULL, multiplies, &count);
  CHECK_EQ(coir_scope_close(s), 0);
  CHECK_EQ(count / 1000, count % 1000 - 50);
  CHECK(count / 1000 > 0);
}

ON_BOTH(an_empty_scope_closes_at_once) {
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_scope_close(open_scope(0, COIR_NEVER)), 0);
  struct coir_scope *s = open_scope(COIR_SCOPE_KEEP_GOING, coir_after(FOREVER));
  CHECK_EQ(coir_scope_reason(s), 0);
  CHECK_EQ(coir_scope_close(s), 0);
}

ON_BOTH(handles_outlive_the_scope) {
  for (int round = 0; round < rounds(200); round++) {
    struct coir_fiber *f[8];
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    for (int i = 0; i < 8; i++) f[i] = spawn_into(s, round % 2 ? ends_with : naps_then_ends_with, STATUS(i));
    CHECK_EQ(coir_scope_close(s), 0);
    for (int i = 0; i < 8; i++) {
      struct coir_result r = {.status = -1};
      CHECK_EQ(coir_cancel(f[i]), -ESRCH); /* each of them has ended altogether */
      if (i % 4 == 3) coir_detach(f[i]);
      else CHECK_EQ(coir_join(f[i], &r, 0), 0);
      if (i % 4 != 3) CHECK_EQ(r.status, i);
    }
  }
}

static int is_named(void *out) {
  CHECK(strcmp(coir_name(NULL), "inner") == 0);
  *(int *)out = 1;
  return 0;
}

ON_BOTH(spawning_into_a_scope_is_spawning) {
  int ran = 0;
  struct coir_attr attr = {.name = "inner", .stack_bytes = (size_t)64 << 10, .priority = COIR_PRIORITY_HIGH};
  struct coir_fiber *f = (struct coir_fiber *)&ran;
  CHECK_EQ(coir_scope_spawn(NULL, is_named, &ran, NULL, &f), -EINVAL); /* there is no scope */
  CHECK(f == NULL);
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  CHECK_EQ(coir_scope_spawn(s, NULL, &ran, NULL, NULL), -EINVAL);
  f = (struct coir_fiber *)&ran;
  CHECK_EQ(coir_scope_spawn(s, is_named, &ran, &(struct coir_attr){.priority = 7}, &f), -EINVAL);
  CHECK(f == NULL);
  CHECK_EQ(coir_scope_spawn(s, is_named, &ran, &(struct coir_attr){.worker = COIR_WORKER(500)}, NULL), -EINVAL);
  CHECK_EQ(coir_scope_spawn(s, is_named, &ran, &attr, NULL), 0);
  CHECK_EQ(coir_scope_close(s), 0);
  CHECK_EQ(ran, 1);
}

ON_BOTH(what_cannot_be_opened) {
  struct coir_scope *s = (struct coir_scope *)&s;
  CHECK_EQ(coir_scope_open(&s, 2, COIR_NEVER), -EINVAL);
  CHECK(s == NULL);
  CHECK_EQ(coir_scope_open(&s, ~0u, COIR_NEVER), -EINVAL);
  CHECK_EQ(coir_scope_open(NULL, 0, COIR_NEVER), -EINVAL);
  CHECK(coir_scope_current() == NULL);
}

static int is_in(void *scope) {
  CHECK(coir_scope_current() == scope);
  return 0;
}

static int opens_its_own(void *scope) {
  is_in(scope);
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(NULL, is_in, s);
  go_into(scope, is_in, scope);
  struct coir_fiber *f = spawn(is_in, NULL); /* without a scope */
  CHECK_EQ(join(f), 0);
  CHECK_EQ(coir_scope_close(s), 0);
  return is_in(scope);
}

ON_BOTH(the_current_scope) {
  CHECK(coir_scope_current() == NULL);
  struct coir_scope *a = open_scope(0, COIR_NEVER);
  go_into(a, opens_its_own, a);
  struct coir_scope *b = open_scope(0, COIR_NEVER);
  go_into(NULL, opens_its_own, b);
  go_into(a, opens_its_own, a); /* an outer one, that is known to be open */
  CHECK_EQ(coir_scope_close(b), 0);
  CHECK(coir_scope_current() == a);
  CHECK_EQ(coir_scope_close(a), 0);
  CHECK(coir_scope_current() == NULL);
}

static int runs_on(void *rt) { return coir_runtime_current() == rt ? 0 : -EIO; }

static int spawns_from_elsewhere(void *scope) {
  CHECK(coir_scope_current() == NULL);
  go_into(scope, runs_on, coir_runtime_current());
  return 0;
}

ON_FIBER(fibers_of_two_runtimes_in_one_scope) {
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < rounds(50); i++) {
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    struct coir_fiber *f = NULL;
    go_into(s, runs_on, coir_runtime_current());
    CHECK_EQ(coir_runtime_spawn(rt, spawns_from_elsewhere, s, NULL, &f), 0);
    CHECK_EQ(join(f), 0);
    CHECK_EQ(coir_scope_close(s), 0);
  }
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- Failures -------------------------------------------------------------------------------------------------- */

static int fails_when_cancelled(void *status) {
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  return (int)(intptr_t)status;
}

static int exits_with(void *status) { coir_exit((int)(intptr_t)status, NULL); }

ON_BOTH(the_first_failure_cancels_the_others) {
  for (int how = 0; how < 3; how++) {
    coir_fn fails = how == 0 ? ends_with : how == 1 ? naps_then_ends_with : exits_with;
    _Atomic(int) cancelled = 0;
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    for (int i = 0; i < 20; i++) go_into(s, sleeps, &cancelled);
    go_into(s, fails_when_cancelled, STATUS(-ENOENT));
    go_into(s, ends_with, STATUS(5));
    go_into(s, fails, STATUS(-EIO));
    CHECK_EQ(coir_scope_close(s), -EIO);
    CHECK_EQ(cancelled, 20);
  }
}

static int sends(struct coir_chan *c) {
  int v = 1;
  return coir_chan_send(c, &v, COIR_NEVER);
}

/* One waiting call of each kind, none of which ends by itself. */
enum {
  W_SLEEP,
  W_RECV,
  W_SEND,
  W_JOIN,
  W_READ,
  W_POLL,
  W_SELECT,
  W_MUTEX,
  W_SEM,
  W_EVENT,
  W_GROUP,
  W_RESUME,
  W_CLOSE,
  W_COUNT
};
struct waits {
  struct coir_chan *empty, *full;
  struct coir_mutex *mutex;
  struct coir_fiber *sleeper;
  int fds[2];
};

static int locks_and_sleeps(void *mutex) {
  CHECK_EQ(coir_mutex_lock(mutex, COIR_NEVER), 0);
  (void)coir_sleep(FOREVER);
  coir_mutex_unlock(mutex);
  return 0;
}

static void waits_init(struct waits *w) {
  w->empty = coir_chan_create(sizeof(int), 0);
  w->full = coir_chan_create(sizeof(int), 1);
  w->mutex = calloc(1, sizeof *w->mutex);
  CHECK(w->empty && w->full && w->mutex);
  CHECK_EQ(sends(w->full), 0);
  CHECK_EQ(pipe(w->fds), 0);
  w->sleeper = spawn(locks_and_sleeps, w->mutex);
  while (coir_mutex_lock(w->mutex, 0) == 0) {
    coir_mutex_unlock(w->mutex);
    coir_sleep(COIR_US(50));
  }
}

static void waits_fini(struct waits *w) {
  CHECK_EQ(coir_cancel(w->sleeper), 0);
  CHECK_EQ(join(w->sleeper), 0);
  coir_chan_unref(w->empty);
  coir_chan_unref(w->full);
  coir_close(w->fds[0]);
  coir_close(w->fds[1]);
  free(w->mutex);
}

static int wait_in_join(void) {
  struct coir_fiber *f = spawn(sleeps, NULL);
  int rc = coir_join(f, NULL, COIR_NEVER);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), -ECANCELED);
  return rc;
}

static int wait_in_resume(void) {
  struct coir_gen *gen;
  struct coir_result r = {0};
  CHECK_EQ(coir_gen_create(&gen, sleeps, NULL, NULL), 0);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 1);
  CHECK_EQ(coir_gen_result(gen, &r), 0);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  return r.status;
}

static int wait_in_close(void) {
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, sleeps, NULL);
  return coir_scope_close(s);
}

static int wait_by(struct waits *w, int kind) {
  char c;
  struct coir_arm arm = coir_arm_recv(w->empty, NULL);
  struct coir_sem sem = {0};
  struct coir_event event = {0};
  struct coir_wait_group group = {0};
  coir_wait_group_add(&group, 1);
  switch (kind) {
  case W_SLEEP: return coir_sleep(FOREVER);
  case W_RECV: return coir_chan_recv(w->empty, NULL, COIR_NEVER);
  case W_SEND: return sends(w->full);
  case W_JOIN: return wait_in_join();
  case W_READ: return (int)coir_read(w->fds[0], &c, 1, COIR_NEVER);
  case W_POLL: return coir_poll(w->fds[0], COIR_READABLE, coir_after(FOREVER));
  case W_SELECT: return coir_select(&arm, 1, COIR_NEVER);
  case W_MUTEX: return coir_mutex_lock(w->mutex, COIR_NEVER);
  case W_SEM: return coir_sem_acquire(&sem, 1, COIR_NEVER);
  case W_EVENT: return coir_event_wait(&event, COIR_NEVER);
  case W_GROUP: return coir_wait_group_wait(&group, COIR_NEVER);
  case W_RESUME: return wait_in_resume();
  default: return wait_in_close();
  }
}

struct case_of_wait {
  struct waits *waits;
  int kind;
  _Atomic(int) done;
};

static int waits_then_cleans_up(void *arg) {
  struct case_of_wait *c = arg;
  CHECK_EQ(wait_by(c->waits, c->kind), -ECANCELED);
  /* Once. What cleans up may wait as usual, and have fibers do it. */
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  CHECK_EQ(coir_scope_reason(NULL), 0);
  go_into(s, naps_then_ends_with, STATUS(0));
  struct coir_fiber *f = spawn(naps_then_ends_with, STATUS(3));
  CHECK_EQ(coir_scope_close(s), 0);
  CHECK_EQ(join(f), 3);
  atomic_fetch_add(&c->done, 1);
  return -ECANCELED;
}

ON_BOTH(every_wait_inside_is_cancelled_once_and_may_clean_up) {
  struct waits w;
  waits_init(&w);
  for (int kind = 0; kind < W_COUNT; kind++)
    for (int parked = 0; parked < 2; parked++) {
      struct case_of_wait c = {.waits = &w, .kind = kind};
      struct coir_scope *s = open_scope(0, COIR_NEVER);
      for (int i = 0; i < 3; i++) go_into(s, waits_then_cleans_up, &c);
      if (parked) coir_sleep(COIR_MS(1)); /* else it is pending when they begin */
      coir_scope_cancel(s, -EDOM);
      CHECK_EQ(coir_scope_close(s), -EDOM);
      CHECK_EQ(c.done, 3);
    }
  waits_fini(&w);
}

ON_BOTH(a_failure_cancels_the_body_once) {
  struct waits w;
  waits_init(&w);
  for (int kind = 0; kind < W_COUNT; kind++)
    for (int parked = 0; parked < 2; parked++) {
      struct coir_scope *s = open_scope(0, COIR_NEVER);
      struct coir_fiber *f = spawn_into(s, parked ? naps_then_ends_with : ends_with, STATUS(-EIO));
      if (!parked) { /* it is pending when the call begins */
        coir_shield_begin();
        WAIT_FOR(coir_cancel(f) == -ESRCH);
        coir_shield_end();
      }
      CHECK_EQ(wait_by(&w, kind), -ECANCELED);
      CHECK_EQ(coir_scope_reason(s), -EIO);
      CHECK_EQ(coir_sleep(COIR_US(100)), 0);
      CHECK_EQ(join(f), -EIO);
      CHECK_EQ(coir_scope_close(s), -EIO);
      CHECK_EQ(coir_sleep(COIR_US(10)), 0);
    }
  waits_fini(&w);
}

ON_BOTH(one_that_keeps_going) {
  _Atomic(int) count = 0;
  struct coir_scope *s = open_scope(COIR_SCOPE_KEEP_GOING, COIR_NEVER);
  struct coir_fiber *f = spawn_into(s, ends_with, STATUS(-EIO));
  CHECK_EQ(join(f), -EIO);
  go_into(s, ends_with, STATUS(-ENOENT));
  for (int i = 0; i < 10; i++) go_into(s, counts_late, &count);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  CHECK_EQ(coir_scope_reason(s), 0);
  CHECK_EQ(coir_scope_close(s), -EIO);
  CHECK_EQ(count, 10);
}

ON_BOTH(one_that_keeps_going_until_it_is_cancelled) {
  struct coir_scope *s = open_scope(COIR_SCOPE_KEEP_GOING, COIR_NEVER);
  CHECK_EQ(join(spawn_into(s, ends_with, STATUS(-EIO))), -EIO);
  go_into(s, fails_when_cancelled, STATUS(-ENOENT));
  coir_scope_cancel(s, -EDOM);
  CHECK_EQ(coir_scope_close(s), -EDOM);
}

/* A generator has a scope open while it has yielded. */
static int generates(void *scope) {
  void *in = NULL;
  CHECK(coir_scope_current() == NULL);
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(NULL, naps_then_ends_with, NULL);
  int rc = coir_gen_yield(s, &in);
  CHECK(coir_scope_current() == s && (rc != 0 || in == scope));
  CHECK_EQ(coir_scope_close(s), 0);
  return rc;
}

ON_BOTH(a_generator_has_scopes_of_its_own) {
  for (int finishes = 0; finishes < 2; finishes++) {
    struct coir_gen *gen;
    void *inner = NULL;
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    CHECK_EQ(coir_gen_create(&gen, generates, s, NULL), 0);
    CHECK_EQ(coir_gen_resume(gen, NULL, &inner), 0);
    CHECK(inner != NULL && inner != s && coir_scope_current() == s);
    if (finishes) CHECK_EQ(coir_gen_resume(gen, s, NULL), 1);
    CHECK_EQ(coir_gen_destroy(gen), 0);
    CHECK_EQ(coir_scope_close(s), 0);
  }
}

/* ---- Cancelling ------------------------------------------------------------------------------------------------ */

ON_BOTH(the_first_cause_counts) {
  static const struct { int given, expected; } cases[] = {{-EDOM, -EDOM}, {0, -ECANCELED}, {7, -ECANCELED}};
  for (int i = 0; i < 3; i++) {
    struct coir_scope *s = open_scope(0, coir_after(COIR_MS(3)));
    coir_scope_cancel(s, cases[i].given);
    coir_scope_cancel(s, -EIO);
    CHECK_EQ(coir_scope_reason(s), cases[i].expected);
    CHECK_EQ(coir_scope_reason(NULL), cases[i].expected);
    CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
    CHECK_EQ(coir_sleep(COIR_MS(4)), 0); /* the deadline comes, and changes nothing */
    CHECK_EQ(coir_scope_close(s), cases[i].expected);
  }
  CHECK_EQ(coir_scope_reason(NULL), 0);
  coir_scope_cancel(NULL, 0);
}

static int waits_then_ends(void *event) {
  CHECK_EQ(coir_event_wait(event, COIR_NEVER), 0);
  return 4;
}

ON_BOTH(a_cancelled_scope_takes_no_more_fibers) {
  struct coir_event may_end = {0};
  struct coir_fiber *f = (struct coir_fiber *)&f;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  coir_scope_cancel(s, -EIO);
  CHECK_EQ(coir_scope_spawn(s, ends_with, NULL, NULL, &f), -ECANCELED);
  CHECK(f == NULL);
  CHECK_EQ(coir_scope_spawn(NULL, ends_with, NULL, NULL, NULL), -ECANCELED);
  struct coir_scope *inner = open_scope(0, COIR_NEVER); /* is not cancelled */
  CHECK_EQ(coir_scope_reason(inner), 0);
  f = spawn_into(inner, waits_then_ends, &may_end);
  CHECK_EQ(coir_join(f, NULL, COIR_NEVER), -ECANCELED); /* this one's body is still told of the outer one */
  coir_event_set(&may_end);
  CHECK_EQ(join(f), 4);
  CHECK_EQ(coir_scope_close(inner), 0);
  CHECK_EQ(coir_scope_close(s), -EIO);
}

ON_BOTH(what_the_body_has_not_noticed_is_void_after_close) {
  for (int i = 0; i < 3; i++) {
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    if (i == 1) go_into(s, sleeps, NULL);
    if (i == 2) CHECK_EQ(coir_scope_close(open_scope(0, COIR_NEVER)), 0);
    coir_scope_cancel(s, 0);
    CHECK_EQ(coir_scope_close(s), -ECANCELED);
    CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  }
}

ON_BOTH(the_outer_body_notices_what_the_inner_did_not) {
  struct coir_scope *a = open_scope(0, COIR_NEVER), *b = open_scope(0, COIR_NEVER), *c = open_scope(0, COIR_NEVER);
  coir_scope_cancel(b, -EIO);
  coir_scope_cancel(c, -EDOM); /* has happened */
  CHECK_EQ(coir_scope_reason(c), -ECANCELED);
  CHECK_EQ(coir_scope_reason(a), 0);
  CHECK_EQ(coir_scope_close(c), -ECANCELED); /* by which b's body is told */
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  CHECK_EQ(coir_scope_close(b), -EIO);
  c = open_scope(0, COIR_NEVER);
  coir_scope_cancel(c, -EDOM);
  coir_scope_cancel(a, -EIO);
  CHECK_EQ(coir_scope_close(c), -EDOM); /* that is not about a */
  CHECK_EQ(coir_sleep(COIR_US(100)), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  CHECK_EQ(coir_scope_close(a), -EIO);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
}

struct family {
  _Atomic(int) open, cancelled, done;
  struct coir_scope *_Atomic scope;
};

static int parent_of_two(void *arg) {
  struct family *f = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, sleeps, &f->cancelled);
  go_into(s, sleeps, &f->cancelled);
  f->scope = s;
  atomic_fetch_add(&f->open, 1);
  int rc = coir_scope_close(s);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0); /* that was it */
  atomic_fetch_add(&f->done, 1);
  return rc;
}

ON_BOTH(scopes_inside_are_cancelled_as_well) {
  struct family family = {0};
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  struct coir_fiber *f[5];
  for (int i = 0; i < 5; i++) f[i] = spawn_into(s, parent_of_two, &family);
  WAIT_FOR(atomic_load(&family.open) == 5);
  coir_scope_cancel(s, -EIO);
  CHECK_EQ(coir_scope_close(s), -EIO);
  CHECK_EQ(family.cancelled, 10);
  CHECK_EQ(family.done, 5);
  for (int i = 0; i < 5; i++) CHECK_EQ(join(f[i]), -ECANCELED);
}

ON_BOTH(a_cancelled_scope_leaves_those_around_it_alone) {
  struct family inner = {0}, other = {0};
  struct coir_scope *s = open_scope(COIR_SCOPE_KEEP_GOING, COIR_NEVER);
  struct coir_fiber *f = spawn_into(s, parent_of_two, &inner), *g = spawn_into(s, parent_of_two, &other);
  WAIT_FOR(atomic_load(&inner.open) && atomic_load(&other.open));
  coir_scope_cancel(inner.scope, -EIO);
  CHECK_EQ(join(f), -EIO);
  CHECK_EQ(inner.cancelled, 2);
  CHECK_EQ(coir_join(g, NULL, coir_after(COIR_MS(2))), -ETIMEDOUT);
  CHECK_EQ(other.cancelled, 0);
  CHECK_EQ(coir_scope_reason(s), 0);
  coir_scope_cancel(other.scope, -EDOM);
  CHECK_EQ(join(g), -EDOM);
  CHECK_EQ(coir_scope_close(s), -EIO);
}

struct cleaner {
  _Atomic(int) step, open;
};

static int cleans_up_for_long(void *arg) {
  struct cleaner *c = arg;
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  atomic_fetch_add(&c->step, 1);
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED); /* of another cause */
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, naps_then_ends_with, NULL);
  CHECK_EQ(coir_scope_close(s), 0);
  return 0;
}

/* Its scope fails; while it cleans up the scope around it is cancelled. */
static int owner_of_cleaners(void *arg) {
  struct cleaner *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 3; i++) go_into(s, cleans_up_for_long, c);
  coir_scope_cancel(s, -EIO);
  CHECK_EQ(coir_scope_close(s), -EIO);       /* the first cause */
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED); /* the second is for the next wait */
  CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  return 0;
}

static int cleans_up_in_a_scope(void *arg) {
  struct cleaner *c = arg;
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, sleeps, &c->step);
  atomic_fetch_add(&c->open, 1);
  CHECK_EQ(coir_scope_close(s), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_US(10)), 0);
  return 0;
}

static int owner_of_scopes(void *arg) {
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 3; i++) go_into(s, cleans_up_in_a_scope, arg);
  coir_scope_cancel(s, -EIO);
  CHECK_EQ(coir_scope_close(s), -EIO);
  return 0;
}

ON_BOTH(each_cancellation_is_delivered) {
  struct cleaner c = {0};
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, owner_of_cleaners, &c);
  WAIT_FOR(atomic_load(&c.step) == 3);
  coir_scope_cancel(s, 0);
  CHECK_EQ(coir_scope_close(s), -ECANCELED);
  CHECK_EQ(c.step, 3);
  s = open_scope(0, COIR_NEVER); /* a scope that was opened to clean up is inside, too */
  go_into(s, owner_of_scopes, &c);
  WAIT_FOR(atomic_load(&c.open) == 3);
  coir_scope_cancel(s, 0);
  CHECK_EQ(coir_scope_close(s), -ECANCELED);
  CHECK_EQ(c.step, 6);
}

/* Cleans up in a scope of its own when it is cancelled, which is left alone. */
static void clean_up(void) {
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 2; i++) go_into(s, naps_then_ends_with, NULL);
  CHECK_EQ(coir_sleep(COIR_US(50)), 0);
  CHECK_EQ(coir_scope_close(s), 0);
}

struct cleaners {
  _Atomic(int) ready, cancelled;
};

static int sleeps_and_cleans_up(void *arg) {
  struct cleaners *c = arg;
  sleeps(&c->cancelled);
  clean_up();
  return 0;
}

static int cleans_up_in_its_body(void *arg) {
  struct cleaners *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 10; i++) go_into(s, sleeps_and_cleans_up, c);
  atomic_fetch_add(&c->ready, 1);
  sleeps(&c->cancelled);
  clean_up();
  CHECK_EQ(coir_scope_close(s), -ECANCELED);
  clean_up();
  return 0;
}

static int cleans_up_behind(void *arg) {
  struct cleaners *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 10; i++) go_into(s, sleeps_and_cleans_up, c);
  atomic_fetch_add(&c->ready, 1);
  CHECK_EQ(coir_scope_close(s), -ECANCELED);
  clean_up();
  return 0;
}

/* Those who have been told open scopes while others are still to be told. */
ON_BOTH(cleaning_up_is_not_cancelled) {
  const int owners = IS_SANITIZED ? 6 : 20;
  for (int round = 0; round < rounds(30); round++) {
    struct cleaners c = {0};
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    for (int i = 0; i < owners; i++) go_into(s, i % 2 ? cleans_up_in_its_body : cleans_up_behind, &c);
    WAIT_FOR(atomic_load(&c.ready) == owners);
    coir_scope_cancel(s, 0);
    CHECK_EQ(coir_scope_close(s), -ECANCELED);
    CHECK_EQ(c.cancelled, owners * 10 + owners / 2);
    clean_up();
  }
}

static int cancels(void *scope) {
  coir_scope_cancel(scope, -EDOM);
  return 0;
}

static int cancels_own(void *scope) {
  coir_scope_cancel(NULL, 0); /* nothing */
  CHECK(coir_scope_current() == scope);
  coir_scope_cancel(scope, -EDOM);
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED); /* it is inside */
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  return -EIO; /* no failure any more */
}

static void *cancels_from_thread(void *scope) {
  cancels(scope);
  return NULL;
}

ON_BOTH(anybody_may_cancel) {
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int how = 0; how < 5; how++) {
    _Atomic(int) count = 0;
    pthread_t thread;
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    for (int i = 0; i < 100; i++) go_into(s, sleeps, &count);
    switch (how) {
    case 0: cancels(s); break;
    case 1: go_into(s, cancels_own, s); break;
    case 2: CHECK_EQ(coir_go(cancels, s), 0); break;
    case 3: CHECK_EQ(coir_runtime_spawn(rt, cancels, s, NULL, NULL), 0); break;
    default: CHECK_EQ(pthread_create(&thread, NULL, cancels_from_thread, s), 0); pthread_join(thread, NULL);
    }
    if (how == 2 || how == 3) /* these know it to be open because it is */
      CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
    CHECK_EQ(coir_scope_close(s), -EDOM);
    CHECK_EQ(count, 100);
  }
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- The opener is cancelled while it closes ------------------------------------------------------------------- */

struct closing {
  int before, result, next;
  _Atomic(int) cancelled, closing;
  struct coir_event go_on;
};

static int closes(void *arg) {
  struct closing *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 10; i++) go_into(s, sleeps, &c->cancelled);
  atomic_store(&c->closing, 1);
  c->result = coir_scope_close(s);
  c->next = coir_sleep(COIR_US(100));
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  return 0;
}

ON_FIBER(cancelling_who_closes_cancels_the_scope) {
  for (int i = 0; i < 2; i++) {
    struct closing c = {0};
    struct coir_fiber *f = spawn(closes, &c);
    if (i == 0) WAIT_FOR(atomic_load(&c.closing)); /* else it is pending when that begins */
    CHECK_EQ(coir_cancel(f), 0);
    CHECK_EQ(join(f), 0);
    CHECK_EQ(c.result, -ECANCELED);
    CHECK_EQ(c.cancelled, 10);
    CHECK_EQ(c.next, 0);
  }
}

static int ends_when_told(void *arg) {
  struct closing *c = arg;
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  atomic_store(&c->cancelled, 1);
  CHECK_EQ(coir_event_wait(&c->go_on, COIR_NEVER), 0);
  return 0;
}

static int closes_cancelled(void *arg) {
  struct closing *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, ends_when_told, c);
  if (c->before) coir_scope_cancel(s, c->before);
  else go_into(s, naps_then_ends_with, STATUS(-EIO));
  c->result = coir_scope_close(s);
  c->next = coir_sleep(COIR_US(100));
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  return 0;
}

ON_FIBER(who_closes_a_cancelled_scope_is_cancelled_later) {
  for (int i = 0; i < 2; i++) {
    struct closing c = {.before = i ? -EDOM : 0};
    struct coir_fiber *f = spawn(closes_cancelled, &c);
    WAIT_FOR(atomic_load(&c.cancelled));
    CHECK_EQ(coir_cancel(f), 0);
    coir_event_set(&c.go_on);
    CHECK_EQ(join(f), 0);
    CHECK_EQ(c.result, i ? -EDOM : -EIO);
    CHECK_EQ(c.next, -ECANCELED); /* not swallowed */
  }
}

static int fails_soon(void *arg) {
  coir_sleep(COIR_US(200) + (int64_t)(intptr_t)arg);
  return -EIO;
}

static int closes_in_a_race(void *arg) {
  struct closing *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, fails_soon, NULL);
  go_into(s, sleeps, NULL);
  c->result = coir_scope_close(s);
  c->next = coir_sleep(c->result == -EIO ? FOREVER : 0); /* if it was lost, for ever */
  return 0;
}

/* The opener is cancelled at the moment at which the scope fails. Whichever is first, it learns of its own. */
ON_FIBER(cancelling_who_closes_is_never_lost) {
  for (int i = 0; i < rounds(400); i++) {
    struct closing c = {0};
    struct coir_fiber *f = spawn(closes_in_a_race, &c);
    coir_sleep(COIR_US(190) + i % 40 * 1000);
    CHECK_EQ(coir_cancel(f), 0);
    CHECK_EQ(join(f), 0);
    CHECK(c.result == -ECANCELED || c.result == -EIO);
    CHECK_EQ(c.next, c.result == -EIO ? -ECANCELED : 0);
  }
}

static int fails_when_told(void *arg) {
  struct closing *c = arg;
  int rc = coir_event_wait(&c->go_on, COIR_NEVER);
  return rc == 0 ? -EIO : rc;
}

static int closes_in_order(void *arg) {
  struct closing *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, fails_when_told, c);
  c->result = coir_scope_close(s);
  c->next = coir_sleep(c->result == -EIO ? FOREVER : 0);
  return 0;
}

/* The same in order: who is woken last on a worker runs first. */
static int both_come(void *arg) {
  (void)arg;
  for (int fails_first = 0; fails_first < 2; fails_first++) {
    struct closing c = {0};
    struct coir_fiber *f = spawn(closes_in_order, &c);
    coir_sleep(COIR_MS(2));
    if (!fails_first) coir_event_set(&c.go_on);
    CHECK_EQ(coir_cancel(f), 0);
    if (fails_first) coir_event_set(&c.go_on);
    CHECK_EQ(join(f), 0);
    CHECK(c.result == -ECANCELED || c.result == -EIO);
    CHECK_EQ(c.next, c.result == -EIO ? -ECANCELED : 0);
  }
  return 0;
}

static void cancelling_who_is_about_to_learn_of_a_failure(void **state) {
  (void)state;
  for (int i = 0; i < 5; i++) run_with((struct coir_config){.workers = 1}, both_come, NULL);
}

static int closes_behind_a_shield(void *arg) {
  struct closing *c = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, sleeps, NULL);
  coir_shield_begin();
  atomic_store(&c->closing, 1);
  c->result = coir_scope_close(s);
  coir_shield_end();
  c->next = coir_sleep(FOREVER);
  return 0;
}

ON_FIBER(an_outer_cancellation_waits_for_the_shield_of_the_closer) {
  struct closing c = {0};
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  struct coir_fiber *f = spawn_into(s, closes_behind_a_shield, &c);
  WAIT_FOR(atomic_load(&c.closing));
  coir_scope_cancel(s, 0);
  CHECK_EQ(coir_scope_close(s), -ECANCELED);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(c.result, -ECANCELED);
  CHECK_EQ(c.next, -ECANCELED);
}

/* ---- Shields --------------------------------------------------------------------------------------------------- */

static int works_behind_shields(void *arg) {
  (void)arg;
  coir_shield_begin();
  coir_shield_begin();
  while (!coir_scope_reason(NULL)) CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  coir_shield_end();
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, naps_then_ends_with, NULL);
  CHECK_EQ(coir_scope_close(s), 0);
  coir_shield_end();
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  return 0;
}

ON_BOTH(shields) {
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 10; i++) go_into(s, works_behind_shields, NULL);
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  coir_shield_begin();
  coir_scope_cancel(s, 0);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  coir_shield_end();
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  CHECK_EQ(coir_scope_close(s), -ECANCELED);
}

/* ---- Deadlines ------------------------------------------------------------------------------------------------- */

/* Spawns so many as sleep until the deadline; fewer if it has come already. Returns their number. */
static int sleep_until_the_deadline(struct coir_scope *s, int n, _Atomic(int) *count) {
  for (int i = 0; i < n; i++) {
    int rc = coir_scope_spawn(s, sleeps, count, NULL, NULL);
    if (rc != 0) CHECK(rc == -ECANCELED && coir_now() >= coir_scope_deadline(s));
    if (rc != 0) return i;
  }
  return n;
}

ON_BOTH(the_deadline_cancels) {
  _Atomic(int) count = 0;
  int64_t deadline = coir_after(COIR_MS(5));
  struct coir_scope *s = open_scope(0, deadline);
  CHECK_EQ(coir_scope_deadline(s), deadline);
  CHECK_EQ(coir_scope_deadline(NULL), deadline);
  int n = sleep_until_the_deadline(s, 10, &count);
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  CHECK(coir_now() >= deadline);
  CHECK_EQ(coir_scope_reason(s), -ETIMEDOUT);
  CHECK_EQ(coir_scope_close(s), -ETIMEDOUT);
  CHECK_EQ(count, n);
  CHECK_EQ(coir_scope_deadline(NULL), COIR_NEVER);
  s = open_scope(0, coir_after(COIR_MS(3))); /* while it closes */
  n += sleep_until_the_deadline(s, 10, &count);
  CHECK_EQ(coir_scope_close(s), -ETIMEDOUT);
  CHECK_EQ(count, n);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
}

ON_BOTH(a_deadline_that_has_passed_cancels_at_once) {
  int64_t past[] = {0, -1, INT64_MIN, coir_now()};
  for (int i = 0; i < 4; i++) {
    struct coir_scope *s = open_scope(0, past[i]);
    CHECK_EQ(coir_scope_reason(s), -ETIMEDOUT);
    CHECK_EQ(coir_scope_spawn(s, ends_with, NULL, NULL, NULL), -ECANCELED);
    CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
    CHECK_EQ(coir_scope_close(s), -ETIMEDOUT);
  }
}

ON_BOTH(an_outer_deadline_counts_inside) {
  int64_t soon = coir_after(COIR_MS(4)), late = coir_after(FOREVER);
  struct coir_scope *a = open_scope(0, soon), *b = open_scope(0, late), *c = open_scope(0, COIR_NEVER);
  CHECK_EQ(coir_scope_deadline(c), soon);
  CHECK_EQ(coir_scope_deadline(b), soon);
  sleep_until_the_deadline(c, 3, NULL);
  CHECK_EQ(coir_scope_close(c), -ECANCELED); /* it is a's deadline */
  CHECK(coir_now() >= soon);
  CHECK_EQ(coir_scope_close(b), -ECANCELED);
  CHECK_EQ(coir_scope_close(a), -ETIMEDOUT);
  a = open_scope(0, late);
  b = open_scope(0, coir_after(COIR_MS(2)));
  CHECK(coir_scope_deadline(a) == late && coir_scope_deadline(b) < late);
  CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  CHECK_EQ(coir_scope_close(b), -ETIMEDOUT);
  CHECK_EQ(coir_sleep(COIR_US(100)), 0);
  CHECK_EQ(coir_scope_close(a), 0);
}

ON_BOTH(a_deadline_can_only_be_brought_forward) {
  int64_t first = coir_after(COIR_SEC(100)), second = coir_after(COIR_MS(3));
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  coir_scope_shorten(s, COIR_NEVER);
  CHECK_EQ(coir_scope_deadline(s), COIR_NEVER);
  coir_scope_shorten(s, first);
  CHECK_EQ(coir_scope_deadline(s), first);
  coir_scope_shorten(s, second);
  coir_scope_shorten(s, first);
  coir_scope_shorten(s, COIR_NEVER);
  CHECK_EQ(coir_scope_deadline(s), second);
  sleep_until_the_deadline(s, 3, NULL);
  CHECK_EQ(coir_scope_close(s), -ETIMEDOUT);
  CHECK(coir_now() >= second);
  s = open_scope(0, coir_after(COIR_SEC(100)));
  coir_scope_shorten(s, 0);
  CHECK_EQ(coir_scope_reason(s), -ETIMEDOUT);
  CHECK_EQ(coir_scope_close(s), -ETIMEDOUT);
  s = open_scope(0, COIR_NEVER);
  coir_scope_cancel(s, -EIO);
  coir_scope_shorten(s, second);
  coir_scope_shorten(s, coir_after(FOREVER));
  CHECK_EQ(coir_scope_close(s), -EIO);
}

static int64_t shorten_base;

static int shortens(void *scope) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)&scope);
  for (int i = 0; i < 20; i++) {
    coir_scope_shorten(scope, shorten_base + (int64_t)(rng_next(&rng) % (uint64_t)COIR_SEC(5)));
    if (i % 4 == 0) coir_yield();
  }
  coir_scope_shorten(scope, shorten_base);
  return 0;
}

static void *shortens_on_thread(void *scope) {
  shortens(scope);
  return NULL;
}

ON_BOTH(many_bring_it_forward_at_once) {
  for (int i = 0; i < rounds(50); i++) {
    pthread_t thread;
    struct coir_scope *s = open_scope(0, COIR_NEVER);
    shorten_base = coir_after(COIR_US(100) * (i % 8));
    go_into(s, sleeps, NULL);
    CHECK_EQ(pthread_create(&thread, NULL, shortens_on_thread, s), 0);
    for (int j = 0; j < 4 && coir_scope_spawn(s, shortens, s, NULL, NULL) == 0; j++) {}
    pthread_join(thread, NULL);
    CHECK_EQ(coir_scope_deadline(s), shorten_base);
    CHECK_EQ(coir_scope_close(s), -ETIMEDOUT);
    CHECK(coir_now() >= shorten_base);
  }
}

static int sleeps_for(void *ns) {
  int rc = coir_sleep((int64_t)(intptr_t)ns);
  CHECK(rc == 0 || rc == -ECANCELED);
  return rc ? rc : 1;
}

ON_BOTH(closing_at_the_deadline) {
  int late = 0, in_time = 0;
  for (int i = 0; i < rounds(300); i++) {
    struct coir_fiber *f = NULL;
    struct coir_scope *s = open_scope(0, coir_after(COIR_US(150) + i % 50 * 1000));
    int rc = coir_scope_spawn(s, sleeps_for, STATUS(COIR_US(150)), NULL, &f);
    CHECK(rc == 0 || rc == -ECANCELED); /* a slow machine */
    rc = coir_scope_close(s);
    int status = f ? join(f) : -ECANCELED;
    if (rc == 0) CHECK_EQ(status, 1);
    else CHECK_EQ(rc, -ETIMEDOUT);
    *(rc ? &late : &in_time) += 1;
  }
  CHECK_EQ(late + in_time, rounds(300));
}

/* ---- Values ---------------------------------------------------------------------------------------------------- */

static const char key_a, key_b, key_c;

static int sees_values(void *arg) {
  CHECK(coir_scope_get(&key_a) == arg);
  CHECK(strcmp(coir_scope_get(&key_b), "outer b") == 0);
  CHECK(coir_scope_get(&key_c) == NULL);
  return 0;
}

static int sees_nothing(void *arg) {
  (void)arg;
  CHECK(!coir_scope_get(&key_a) && !coir_scope_get(&key_b));
  return 0;
}

ON_BOTH(values_are_seen_inside) {
  char outer_a[] = "outer a", outer_b[] = "outer b", inner_a[] = "inner a";
  CHECK(coir_scope_get(&key_a) == NULL);
  CHECK_EQ(coir_scope_set(NULL, &key_a, outer_a), -EINVAL);
  struct coir_scope *a = open_scope(0, COIR_NEVER);
  CHECK_EQ(coir_scope_set(a, NULL, outer_a), -EINVAL);
  CHECK_EQ(coir_scope_set(a, &key_a, inner_a), 0);
  CHECK_EQ(coir_scope_set(a, &key_a, outer_a), 0); /* anew */
  CHECK_EQ(coir_scope_set(a, &key_b, outer_b), 0);
  go_into(a, sees_values, outer_a);
  struct coir_scope *b = open_scope(0, COIR_NEVER);
  sees_values(outer_a);
  CHECK_EQ(coir_scope_set(b, &key_a, inner_a), 0);
  sees_values(inner_a);
  CHECK_EQ(join(spawn_into(b, sees_values, inner_a)), 0);
  go_into(a, sees_values, outer_a);
  CHECK_EQ(join(spawn(sees_nothing, NULL)), 0); /* it is in no scope */
  CHECK_EQ(coir_scope_set(b, &key_a, NULL), 0);
  sees_values(NULL);
  CHECK_EQ(coir_scope_close(b), 0);
  sees_values(outer_a);
  CHECK_EQ(coir_scope_close(a), 0);
  sees_nothing(NULL);
}

static int sets_values(void *scope) {
  static const char keys[32];
  for (int i = 0; i < 32; i++) {
    CHECK_EQ(coir_scope_set(scope, &keys[i], (void *)(uintptr_t)&keys[31 - i]), 0);
    CHECK(coir_scope_get(&keys[i]) == &keys[31 - i]);
    coir_yield();
  }
  return 0;
}

ON_BOTH(anybody_may_set_values) {
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  for (int i = 0; i < 8; i++) go_into(s, sets_values, s);
  CHECK_EQ(coir_scope_close(s), 0);
}

/* ---- Misuse ---------------------------------------------------------------------------------------------------- */

static int closes_outer(void *arg) {
  (void)arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  open_scope(0, COIR_NEVER);
  return coir_scope_close(s);
}
static int closes_its_parents(void *scope) { return coir_scope_close(scope); }
static int has_it_closed_by_a_child(void *arg) {
  (void)arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, closes_its_parents, s);
  return coir_scope_close(s);
}
static int closes_nothing(void *arg) {
  (void)arg;
  return coir_scope_close(NULL);
}
static int ends_with_one_open(void *arg) {
  (void)arg;
  open_scope(0, COIR_NEVER);
  return 0;
}
static int has_a_child_that_ends_with_one_open(void *arg) {
  (void)arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, ends_with_one_open, NULL);
  return coir_scope_close(s);
}
static int has_a_generator_that_ends_with_one_open(void *arg) {
  struct coir_gen *gen;
  CHECK_EQ(coir_gen_create(&gen, ends_with_one_open, arg, NULL), 0);
  return coir_gen_resume(gen, NULL, NULL);
}
static int ends_a_shield(void *arg) {
  (void)arg;
  coir_shield_end();
  return 0;
}
static void *on_a_thread(void *arg) {
  ends_with_one_open(arg);
  return NULL;
}
static int has_a_thread_that_ends_with_one_open(void *arg) {
  pthread_t thread;
  pthread_create(&thread, NULL, on_a_thread, arg);
  pthread_join(thread, NULL);
  return 0;
}

static coir_fn misuse;
static void misuse_it(void) { run(misuse, NULL); }

static void misuse_aborts(void **state) {
  (void)state;
  static const struct {
    coir_fn fn;
    const char *says;
  } cases[] = {
      {closes_outer, "innermost"},
      {has_it_closed_by_a_child, "innermost"},
      {closes_nothing, "innermost"},
      {ends_with_one_open, "a fiber ends with a scope open"},
      {has_a_child_that_ends_with_one_open, "a fiber ends with a scope open"},
      {has_a_generator_that_ends_with_one_open, "a fiber ends with a scope open"},
      {has_a_thread_that_ends_with_one_open, "a thread ends with a scope open"},
      {ends_a_shield, "coir_shield_end"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[512];
    misuse = cases[i].fn;
    int status = in_child_process(misuse_it, text, sizeof text);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(text, cases[i].says))
      fprintf(stderr, "case %zu: status %x, %s\n", i, (unsigned)status, text);
    CHECK(strstr(text, cases[i].says) != NULL);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  }
}

/* ---- A runtime that stops -------------------------------------------------------------------------------------- */

struct shop {
  _Atomic(int) open, spawned, ended, closed;
};

static void sleeps_in(struct coir_scope *s, struct shop *shop) {
  int rc = coir_scope_spawn(s, sleeps, &shop->ended, NULL, NULL);
  CHECK(rc == 0 || rc == -ECANCELED); /* when a fiber of it has been cancelled already */
  atomic_fetch_add(&shop->spawned, rc == 0);
}

/* Scopes in scopes, with sleepers in each. */
static int nests(void *arg) {
  struct shop *shop = arg;
  static _Atomic(int) made;
  struct coir_scope *a = open_scope(0, coir_after(FOREVER)), *b = open_scope(COIR_SCOPE_KEEP_GOING, COIR_NEVER);
  sleeps_in(a, shop);
  if (atomic_fetch_add(&made, 1) % 4) (void)coir_scope_spawn(b, nests, shop, NULL, NULL);
  sleeps_in(b, shop);
  coir_scope_set(a, shop, shop);
  atomic_fetch_add(&shop->open, 1);
  CHECK_EQ(coir_scope_close(b), -ECANCELED);
  CHECK_EQ(coir_scope_close(a), -ECANCELED);
  atomic_fetch_add(&shop->closed, 1);
  return -ECANCELED;
}

static void stopping_with_cancel(void **state) {
  (void)state;
  for (int i = 0; i < rounds(20); i++) {
    struct shop shop = {0};
    struct coir_runtime *rt = make_runtime((struct coir_config){0});
    CHECK_EQ(coir_runtime_start(rt), 0);
    for (int j = 0; j < 5; j++) CHECK_EQ(coir_runtime_spawn(rt, nests, &shop, NULL, NULL), 0);
    WAIT_FOR(atomic_load(&shop.open) >= 5);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
    CHECK_EQ(shop.closed, shop.open);
    CHECK_EQ(shop.ended, shop.spawned);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
  }
}

static _Atomic(int64_t) allocated;

static void *counts_alloc(size_t bytes, void *arg) {
  (void)arg;
  atomic_fetch_add(&allocated, (int64_t)bytes);
  return malloc(bytes);
}
static void counts_free(void *memory, size_t bytes, void *arg) {
  (void)arg;
  atomic_fetch_sub(&allocated, (int64_t)bytes);
  free(memory);
}

static void stopping_where_they_are(void **state) {
  (void)state;
  for (int i = 0; i < rounds(20); i++) {
    struct shop shop = {0};
    allocated = 0;
    struct coir_runtime *rt = make_runtime((struct coir_config){.alloc = counts_alloc, .free = counts_free});
    CHECK_EQ(coir_runtime_start(rt), 0);
    for (int j = 0; j < 5; j++) CHECK_EQ(coir_runtime_spawn(rt, nests, &shop, NULL, NULL), 0);
    if (i % 4) WAIT_FOR(atomic_load(&shop.open) >= 5);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
    CHECK_EQ(shop.ended, 0);
    CHECK_EQ(shop.closed, 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    CHECK_EQ(allocated, 0); /* that their scopes are gone, too, is for AddressSanitizer to see */
  }
}

/* The opener, or the fibers, are those of another runtime, which goes on. */
static int opens_for_others(void *arg) {
  struct family *f = arg;
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, sleeps, NULL);
  f->scope = s;
  atomic_store(&f->open, 1);
  f->done = coir_scope_close(s);
  return 0;
}

static struct family others;

static int joins_them(void *arg) {
  struct family *f = arg;
  for (int i = 0; i < 3; i++) go_into(f->scope, parent_of_two, &others);
  atomic_fetch_add(&f->open, 1);
  return 0;
}

static void a_runtime_is_abandoned_and_another_goes_on(void **state) {
  (void)state;
  for (int i = 0; i < rounds(20); i++) {
    struct family family = {0};
    struct coir_runtime *rt[2] = {make_runtime((struct coir_config){0}), make_runtime((struct coir_config){0})};
    for (int j = 0; j < 2; j++) CHECK_EQ(coir_runtime_start(rt[j]), 0);
    CHECK_EQ(coir_runtime_spawn(rt[0], opens_for_others, &family, NULL, NULL), 0);
    WAIT_FOR(atomic_load(&family.open) == 1);
    CHECK_EQ(coir_runtime_spawn(rt[1], joins_them, &family, NULL, NULL), 0);
    WAIT_FOR(atomic_load(&family.open) == 2);
    WAIT_FOR(atomic_load(&others.open) == 3 * (i + 1)); /* nobody spawns any more */
    /* Either way the scope is cancelled, and nothing of the other runtime's stays. */
    CHECK_EQ(coir_runtime_stop(rt[i % 2], COIR_STOP_ABANDON, 0), 0);
    CHECK_EQ(coir_runtime_stop(rt[1 - i % 2], COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(family.done, i % 2 ? -ECANCELED : 0);
    for (int j = 0; j < 2; j++) CHECK_EQ(coir_runtime_destroy(rt[j]), 0);
  }
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

/* The linker sends the library's calls here (--wrap). So many of this thread succeed. */
static _Thread_local int callocs_left = INT_MAX;
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes) {
  bool fails = callocs_left != INT_MAX && callocs_left-- <= 0;
  return fails ? NULL : __real_calloc(n, bytes);
}

/* On a plain thread, which stays the same. */
static void opens_without_memory(void **state) {
  (void)state;
  struct coir_scope *s = NULL;
  int value = 0;
  CHECK_EQ(coir_scope_close(open_scope(0, coir_after(FOREVER))), 0);
  callocs_left = 0;
  CHECK_EQ(coir_scope_open(&s, 0, coir_after(FOREVER)), -ENOMEM);
  CHECK(s == NULL && coir_scope_current() == NULL);
  callocs_left = 1;
  s = open_scope(0, coir_after(FOREVER));
  CHECK_EQ(coir_scope_set(s, &value, &value), -ENOMEM);
  CHECK(coir_scope_get(&value) == NULL);
  callocs_left = 1;
  CHECK_EQ(coir_scope_set(s, &value, &value), 0);
  CHECK_EQ(coir_scope_set(s, &value, NULL), 0); /* is there */
  CHECK_EQ(callocs_left, 0);
  callocs_left = INT_MAX;
  CHECK_EQ(coir_scope_close(s), 0);
}

static int spawns_and_closes(void *arg) {
  (void)arg;
  for (int i = 0; i < 2; i++) { /* the first time warms up */
    int64_t before = allocated;
    struct coir_scope *s = open_scope(0, coir_after(FOREVER));
    for (int j = 0; j < 20; j++) go_into(s, ends_with, NULL);
    CHECK_EQ(coir_scope_close(s), 0);
    if (i) CHECK_EQ(allocated, before);
  }
  return 0;
}

static void spawns_without_allocating(void **state) {
  (void)state;
  allocated = 0;
  run_with((struct coir_config){.alloc = counts_alloc, .free = counts_free, .workers = 1}, spawns_and_closes, NULL);
  CHECK_EQ(allocated, 0);
}

/* ---- Large trees ----------------------------------------------------------------------------------------------- */

#define DEEP (IS_SANITIZED ? 200 : 10000)
#define WIDE (IS_SANITIZED ? 500 : 100000)

struct tree {
  int depth, width;
  int64_t deadline;
  _Atomic(int) open, ended;
};

struct branch {
  struct tree *tree;
  int level;
};

static int grows(void *arg) {
  struct branch b = *(struct branch *)arg, next = {b.tree, b.level + 1};
  if (b.level == b.tree->depth) {
    atomic_fetch_add(&b.tree->open, 1);
    CHECK_EQ(coir_sleep(FOREVER), -ECANCELED);
  } else {
    struct coir_scope *s = open_scope(0, b.tree->deadline);
    for (int i = 0; i < b.tree->width; i++) go_into(s, grows, &next);
    CHECK_EQ(coir_scope_close(s), -ECANCELED);
  }
  CHECK_EQ(coir_sleep(0), 0); /* once */
  atomic_fetch_add(&b.tree->ended, 1);
  return -ECANCELED;
}

/* Cancels a tree. Returns how long that took, in ns, without the ends of its fibers. */
static int64_t fell(struct tree *tree, int leaves, int nodes) {
  struct branch root = {tree, 0};
  struct coir_scope *s = open_scope(0, COIR_NEVER);
  go_into(s, grows, &root);
  WAIT_FOR(atomic_load(&tree->open) == leaves);
  coir_sleep(COIR_MS(1));
  int64_t from = coir_now();
  coir_scope_cancel(s, -EIO);
  int64_t told = coir_now();
  CHECK_EQ(coir_scope_close(s), -EIO);
  int64_t ended = coir_now();
  CHECK_EQ(tree->ended, nodes);
  if (getenv("T_SCOPE_TIMES"))
    fprintf(stderr, "depth %d, width %d: %.1f ms to tell, %.1f ms to end\n", tree->depth, tree->width,
            (double)(told - from) / 1e6, (double)(ended - told) / 1e6);
  return told - from;
}

ON_FIBER(a_deep_tree) {
  struct tree tree = {.depth = DEEP, .width = 1, .deadline = COIR_NEVER};
  int64_t ns = fell(&tree, 1, DEEP + 1);
  CHECK(IS_SANITIZED || ns < COIR_SEC(1));
  struct tree dated = {.depth = DEEP, .width = 1, .deadline = coir_after(FOREVER)};
  fell(&dated, 1, DEEP + 1);
}

ON_FIBER(a_wide_tree) {
  struct tree tree = {.depth = 1, .width = WIDE, .deadline = COIR_NEVER};
  int64_t ns = fell(&tree, WIDE, WIDE + 1);
  CHECK(IS_SANITIZED || ns < COIR_SEC(1));
}

ON_FIBER(a_bushy_tree) {
  struct tree tree = {.depth = 4, .width = IS_SANITIZED ? 3 : 10, .deadline = COIR_NEVER};
  int leaves = 1, nodes = 1;
  for (int i = 0; i < tree.depth; i++) nodes += leaves *= tree.width;
  fell(&tree, leaves, nodes);
}

/* ---- I/O that is cancelled loses nothing ----------------------------------------------------------------------- */

struct stream {
  int fd, received;
  uint8_t next;
};

/* Reads until it is cancelled; what it has read is as it was written, and nothing is missing in between. */
static int reads(void *arg) {
  struct stream *s = arg;
  for (;;) {
    uint8_t bytes[37];
    ssize_t n = coir_read(s->fd, bytes, sizeof bytes, COIR_NEVER);
    if (n <= 0) return (int)n;
    for (ssize_t i = 0; i < n; i++) CHECK_EQ(bytes[i], s->next++);
    s->received += (int)n;
  }
}

struct source {
  int fd, bytes;
};

static int writes(void *arg) {
  struct source *s = arg;
  uint8_t next = 0;
  uint64_t rng = rng_seed(5);
  for (int sent = 0; sent < s->bytes;) {
    uint8_t bytes[64];
    int n = 1 + (int)(rng_next(&rng) % sizeof bytes);
    if (n > s->bytes - sent) n = s->bytes - sent;
    for (int i = 0; i < n; i++) bytes[i] = next++;
    CHECK_EQ(coir_write_full(s->fd, bytes, (size_t)n, COIR_NEVER), n);
    sent += n;
    if (rng_next(&rng) % 2) coir_sleep((int64_t)(rng_next(&rng) % 60000));
  }
  CHECK_EQ(coir_close(s->fd), 0);
  return 0;
}

static void read_by_many_cancelled_readers(int fds[2]) {
  struct source source = {fds[1], rounds(20000)};
  struct stream stream = {fds[0], 0, 0};
  struct coir_fiber *writer = spawn(writes, &source);
  uint64_t rng = rng_seed(9);
  int rc, cancelled = 0;
  do {
    struct coir_scope *s = open_scope(0, coir_after((int64_t)(rng_next(&rng) % 150000)));
    struct coir_fiber *f = NULL;
    rc = coir_scope_spawn(s, reads, &stream, NULL, &f);
    if (rc == 0 && rng_next(&rng) % 2) {
      (void)coir_sleep((int64_t)(rng_next(&rng) % 100000));
      coir_scope_cancel(s, 0);
    }
    (void)coir_scope_close(s);
    if (f) rc = join(f);
    CHECK(rc == 0 || rc == -ECANCELED);
    cancelled += rc != 0;
  } while (rc != 0);
  CHECK_EQ(join(writer), 0);
  CHECK_EQ(stream.received, source.bytes);
  CHECK(cancelled > 0);
  coir_close(fds[0]);
}

ON_FIBER(a_cancelled_reader_of_a_pipe_loses_nothing) {
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  read_by_many_cancelled_readers(fds);
}

ON_FIBER(a_cancelled_reader_of_a_socket_loses_nothing) {
  int fds[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  CHECK_EQ(coir_adopt(fds[0]), 0);
  CHECK_EQ(coir_adopt(fds[1]), 0);
  read_by_many_cancelled_readers(fds);
}

/* ---------------------------------------------------------------------------------------------------------------- */

/* Plain threads spawn into the default runtime. */
static int serve_default(void **state) {
  (void)state;
  return coir_runtime_start(coir_runtime_default());
}
static int stop_default(void **state) {
  (void)state;
  return coir_runtime_stop(coir_runtime_default(), COIR_STOP_DRAIN, COIR_NEVER);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(closing_waits_for_all),
      cmocka_unit_test(an_empty_scope_closes_at_once),
      cmocka_unit_test(handles_outlive_the_scope),
      cmocka_unit_test(spawning_into_a_scope_is_spawning),
      cmocka_unit_test(what_cannot_be_opened),
      cmocka_unit_test(the_current_scope),
      cmocka_unit_test(fibers_of_two_runtimes_in_one_scope),
      cmocka_unit_test(the_first_failure_cancels_the_others),
      cmocka_unit_test(every_wait_inside_is_cancelled_once_and_may_clean_up),
      cmocka_unit_test(a_failure_cancels_the_body_once),
      cmocka_unit_test(one_that_keeps_going),
      cmocka_unit_test(one_that_keeps_going_until_it_is_cancelled),
      cmocka_unit_test(a_generator_has_scopes_of_its_own),
      cmocka_unit_test(the_first_cause_counts),
      cmocka_unit_test(a_cancelled_scope_takes_no_more_fibers),
      cmocka_unit_test(what_the_body_has_not_noticed_is_void_after_close),
      cmocka_unit_test(the_outer_body_notices_what_the_inner_did_not),
      cmocka_unit_test(scopes_inside_are_cancelled_as_well),
      cmocka_unit_test(a_cancelled_scope_leaves_those_around_it_alone),
      cmocka_unit_test(each_cancellation_is_delivered),
      cmocka_unit_test(cleaning_up_is_not_cancelled),
      cmocka_unit_test(anybody_may_cancel),
      cmocka_unit_test(cancelling_who_closes_cancels_the_scope),
      cmocka_unit_test(who_closes_a_cancelled_scope_is_cancelled_later),
      cmocka_unit_test(cancelling_who_closes_is_never_lost),
      cmocka_unit_test(cancelling_who_is_about_to_learn_of_a_failure),
      cmocka_unit_test(an_outer_cancellation_waits_for_the_shield_of_the_closer),
      cmocka_unit_test(shields),
      cmocka_unit_test(the_deadline_cancels),
      cmocka_unit_test(a_deadline_that_has_passed_cancels_at_once),
      cmocka_unit_test(an_outer_deadline_counts_inside),
      cmocka_unit_test(a_deadline_can_only_be_brought_forward),
      cmocka_unit_test(many_bring_it_forward_at_once),
      cmocka_unit_test(closing_at_the_deadline),
      cmocka_unit_test(values_are_seen_inside),
      cmocka_unit_test(anybody_may_set_values),
      cmocka_unit_test(misuse_aborts),
      cmocka_unit_test(stopping_with_cancel),
      cmocka_unit_test(stopping_where_they_are),
      cmocka_unit_test(a_runtime_is_abandoned_and_another_goes_on),
      cmocka_unit_test(opens_without_memory),
      cmocka_unit_test(spawns_without_allocating),
      cmocka_unit_test(a_deep_tree),
      cmocka_unit_test(a_wide_tree),
      cmocka_unit_test(a_bushy_tree),
      cmocka_unit_test(a_cancelled_reader_of_a_pipe_loses_nothing),
      cmocka_unit_test(a_cancelled_reader_of_a_socket_loses_nothing),
  };
  return cmocka_run_group_tests(tests, serve_default, stop_default);
}
