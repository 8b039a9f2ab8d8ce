/* Select: each kind of arm alone and among others, ready at once and later, and that no arm but the chosen one has an
 * effect. */
#include "parked.h"

#include "coir_io.h"

#define UNTOUCHED UINT64_C(0xdeadbeefdeadbeef)
#define UNSET 12345 /* of a result */

static struct coir_chan *make(size_t capacity) {
  struct coir_chan *c = coir_chan_create(sizeof(uint64_t), capacity);
  CHECK(c != NULL);
  return c;
}

static int send_value(struct coir_chan *c, uint64_t value, int64_t deadline) {
  return coir_chan_send(c, &value, deadline);
}

static int64_t recv_value(struct coir_chan *c, int64_t deadline) {
  uint64_t value = UNTOUCHED;
  int rc = coir_chan_recv(c, &value, deadline);
  if (rc) CHECK_EQ(value, UNTOUCHED);
  return rc ? rc : (int64_t)value;
}

/* Selects, and checks that nothing but the chosen arm's result and the library's own words have changed. */
static int select_of(struct coir_arm *arms, size_t n, int64_t deadline) {
  struct coir_arm *before = malloc((n + 1) * sizeof *before);
  CHECK(before);
  for (size_t i = 0; i < n; i++) arms[i].result = UNSET;
  if (n) memcpy(before, arms, n * sizeof *arms);
  int rc = coir_select(arms, n, deadline);
  poison_stack();
  CHECK(rc < 0 || (size_t)rc < n);
  for (size_t i = 0; i < n; i++) {
    CHECK_EQ(arms[i].kind, before[i].kind);
    CHECK(arms[i].object == before[i].object && arms[i].value == before[i].value);
    CHECK(arms[i].deadline == before[i].deadline && arms[i].fd == before[i].fd && arms[i].events == before[i].events);
    if ((int)i == rc) CHECK(arms[i].result != UNSET);
  }
  free(before);
  return rc;
}

/* A select on a fiber or a thread of its own. */
struct sel {
  struct coir_arm *arms;
  size_t n;
  int64_t deadline;
  int rc;
  _Atomic(int) done;
};

static int sel_run(void *arg) {
  struct sel *s = arg;
  s->rc = select_of(s->arms, s->n, s->deadline);
  atomic_store(&s->done, 1);
  return s->rc;
}

static void *sel_thread(void *arg) { return sel_run(arg), NULL; }

static pthread_t start_thread(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, fn, arg), 0);
  return thread;
}

struct op {
  struct coir_chan *chan;
  uint64_t value;
};

static int op_send(void *arg) {
  struct op *op = arg;
  return send_value(op->chan, op->value, COIR_NEVER);
}

static int op_recv(void *arg) {
  struct op *op = arg;
  return coir_chan_recv(op->chan, &op->value, COIR_NEVER);
}

static int does_nothing(void *arg) { return (int)(intptr_t)arg; }

static int waits_for_event(void *event) { return coir_event_wait(event, COIR_NEVER); }

/* ---- No arm, arms that are never ready, the default ------------------------------------------------------------ */

ON_BOTH(without_an_arm_it_waits_for_the_deadline) {
  CHECK_EQ(coir_select(NULL, 0, 0), -ETIMEDOUT);
  CHECK_EQ(coir_select(NULL, 0, -1), -ETIMEDOUT);
  CHECK_EQ(coir_select(NULL, 0, INT64_MIN), -ETIMEDOUT);
  int64_t until = coir_after(COIR_MS(2));
  CHECK_EQ(coir_select(NULL, 0, until), -ETIMEDOUT);
  CHECK(coir_now() >= until);
  struct coir_arm none = {0};
  CHECK_EQ(coir_select(&none, 0, 0), -ETIMEDOUT);
}

static void arms_of_nothing(struct coir_arm arms[8]) {
  static uint64_t value;
  memset(arms, 0, 8 * sizeof *arms);
  arms[0] = coir_arm_send(NULL, &value);
  arms[1] = coir_arm_recv(NULL, &value);
  arms[2] = coir_arm_fiber(NULL);
  arms[3] = coir_arm_wait_group(NULL);
  arms[4] = coir_arm_event(NULL);
  arms[5] = coir_arm_scope(NULL);
  arms[6] = coir_arm_deadline(COIR_NEVER);
  arms[7].kind = COIR_ARM_NONE;
}

ON_BOTH(arms_of_nothing_are_never_ready) {
  struct coir_arm arms[9];
  arms_of_nothing(arms);
  CHECK_EQ(select_of(arms, 8, 0), -ETIMEDOUT);
  for (int i = 0; i < 8; i++) CHECK_EQ(select_of(&arms[i], 1, 0), -ETIMEDOUT);
  int64_t until = coir_after(COIR_MS(2));
  CHECK_EQ(select_of(arms, 8, until), -ETIMEDOUT);
  CHECK(coir_now() >= until);
  struct coir_chan *c = make(1);
  uint64_t value = 4;
  for (int i = 0; i < 8; i++) { /* among them one that is */
    arms_of_nothing(arms);
    arms[i] = i % 2 ? coir_arm_recv(c, &value) : coir_arm_send(c, &value);
    CHECK_EQ(select_of(arms, 8, i % 3 ? COIR_NEVER : 0), i);
    CHECK_EQ(arms[i].result, 0);
  }
  coir_chan_unref(c);
}

/* ---- Each kind, ready at once ---------------------------------------------------------------------------------- */

ON_BOTH(channels_that_are_ready) {
  struct coir_chan *c = make(2);
  uint64_t in = 5, out = UNTOUCHED;
  struct coir_arm arms[2] = {coir_arm_send(c, &in), coir_arm_recv(c, &out)};
  CHECK_EQ(select_of(arms, 1, 0), 0);
  CHECK_EQ(arms[0].result, 0);
  CHECK_EQ(coir_chan_length(c), 1);
  in = 6;
  CHECK_EQ(select_of(arms, 1, COIR_NEVER), 0);
  CHECK_EQ(coir_chan_length(c), 2);
  CHECK_EQ(select_of(arms, 1, 0), -ETIMEDOUT); /* full */
  CHECK_EQ(select_of(arms, 2, 0), 1);          /* so only the other one can */
  CHECK_EQ(arms[1].result, 0);
  CHECK_EQ(out, 5);
  CHECK_EQ(select_of(&arms[1], 1, COIR_NEVER), 0);
  CHECK_EQ(out, 6);
  out = UNTOUCHED;
  CHECK_EQ(select_of(&arms[1], 1, 0), -ETIMEDOUT);
  CHECK_EQ(out, UNTOUCHED);
  CHECK_EQ(select_of(arms, 2, 0), 0); /* empty */
  arms[1] = coir_arm_recv(c, NULL);
  CHECK_EQ(select_of(&arms[1], 1, 0), 0); /* drops it */
  CHECK_EQ(coir_chan_length(c), 0);
  coir_chan_unref(c);
}

ON_FIBER(a_rendezvous_that_is_ready) {
  struct coir_chan *c = make(0);
  uint64_t value = 8;
  struct op op = {c, 3};
  struct coir_arm arms[2] = {coir_arm_send(c, &value), coir_arm_recv(c, &value)};
  struct coir_fiber *f = spawn(op_recv, &op);
  until_parked(1);
  CHECK_EQ(select_of(arms, 2, 0), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(op.value, 8);
  CHECK_EQ(select_of(arms, 2, 0), -ETIMEDOUT);
  f = spawn(op_send, &op);
  until_parked(1);
  CHECK_EQ(select_of(arms, 2, 0), 1);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(value, 8);
  coir_chan_unref(c);
}

ON_BOTH(closed_channels_are_ready) {
  struct coir_chan *c = make(2);
  CHECK_EQ(send_value(c, 4, 0), 0);
  coir_chan_close(c);
  uint64_t in = 5, out = UNTOUCHED;
  struct coir_arm arms[2] = {coir_arm_send(c, &in), coir_arm_recv(c, &out)};
  static const int64_t deadlines[] = {0, COIR_NEVER};
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(select_of(arms, 1, deadlines[i]), 0);
    CHECK_EQ(arms[0].result, -EPIPE);
    CHECK_EQ(coir_chan_length(c), 1);
  }
  CHECK_EQ(select_of(&arms[1], 1, 0), 0); /* what it buffers comes first */
  CHECK_EQ(arms[1].result, 0);
  CHECK_EQ(out, 4);
  out = UNTOUCHED;
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(select_of(&arms[1], 1, deadlines[i]), 0);
    CHECK_EQ(arms[1].result, -EPIPE);
    CHECK_EQ(out, UNTOUCHED);
    CHECK(select_of(arms, 2, deadlines[i]) >= 0);
  }
  coir_chan_unref(c);
}

ON_BOTH(descriptors_that_are_ready) {
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  struct coir_arm arms[2] = {coir_arm_fd(fds[0], COIR_READABLE), coir_arm_fd(fds[1], COIR_WRITABLE)};
  CHECK_EQ(select_of(arms, 1, 0), -ETIMEDOUT);
  CHECK_EQ(select_of(arms, 2, 0), 1);
  CHECK_EQ(arms[1].result, COIR_WRITABLE);
  CHECK_EQ(write(fds[1], "x", 1), 1);
  CHECK_EQ(select_of(arms, 1, 0), 0);
  CHECK_EQ(arms[0].result, COIR_READABLE);
  CHECK_EQ(select_of(arms, 1, COIR_NEVER), 0);
  CHECK(select_of(arms, 2, COIR_NEVER) >= 0);
  char c;
  CHECK_EQ(coir_read(fds[0], &c, 1, 0), 1); /* it took nothing */
  CHECK_EQ(select_of(arms, 1, coir_after(COIR_MS(1))), -ETIMEDOUT);
  coir_close(fds[1]);
  CHECK_EQ(select_of(arms, 1, COIR_NEVER), 0); /* hang-up */
  CHECK_EQ(arms[0].result, COIR_READABLE);
  arms[0] = coir_arm_fd(fds[0], COIR_READABLE | COIR_WRITABLE);
  CHECK_EQ(select_of(arms, 1, COIR_NEVER), 0);
  CHECK_EQ(arms[0].result, coir_poll(fds[0], COIR_READABLE | COIR_WRITABLE, 0));
  coir_close(fds[0]);
  CHECK_EQ(select_of(arms, 1, COIR_NEVER), 0); /* not open */
  CHECK_EQ(arms[0].result, -EBADF);
  arms[0] = coir_arm_fd(-1, COIR_READABLE);
  CHECK_EQ(select_of(arms, 1, 0), 0);
  CHECK_EQ(arms[0].result, -EBADF);
}

ON_BOTH(regular_files_are_always_ready) {
  FILE *file = tmpfile();
  CHECK(file);
  struct coir_arm arm = coir_arm_fd(fileno(file), COIR_READABLE | COIR_WRITABLE);
  CHECK_EQ(select_of(&arm, 1, 0), 0);
  CHECK_EQ(arm.result, COIR_READABLE | COIR_WRITABLE);
  CHECK_EQ(select_of(&arm, 1, COIR_NEVER), 0);
  fclose(file);
}

ON_FIBER(fibers_that_have_ended) {
  struct coir_event go = {0};
  struct coir_fiber *f = spawn(waits_for_event, &go);
  struct coir_arm arm = coir_arm_fiber(f);
  CHECK_EQ(select_of(&arm, 1, 0), -ETIMEDOUT);
  CHECK_EQ(select_of(&arm, 1, coir_after(COIR_MS(1))), -ETIMEDOUT);
  coir_event_set(&go);
  CHECK_EQ(select_of(&arm, 1, COIR_NEVER), 0);
  CHECK_EQ(arm.result, 0);
  CHECK_EQ(select_of(&arm, 1, 0), 0); /* and so it stays */
  struct coir_result r = {.status = 9};
  CHECK_EQ(coir_join(f, &r, 0), 0); /* will not wait */
  CHECK_EQ(r.status, 0);
  f = spawn(does_nothing, (void *)-7);
  arm = coir_arm_fiber(f);
  CHECK_EQ(select_of(&arm, 1, COIR_NEVER), 0);
  CHECK_EQ(arm.result, 0); /* the status is join's to tell */
  CHECK_EQ(join(f), -7);
  arm = coir_arm_fiber(coir_current());
  CHECK_EQ(select_of(&arm, 1, coir_after(COIR_MS(1))), -ETIMEDOUT); /* it runs, and cannot have ended */
}

ON_BOTH(wait_groups_events_and_scopes_that_are_ready) {
  struct coir_wait_group group = {0};
  struct coir_event event = {0};
  struct coir_scope *scope = NULL;
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  struct coir_arm arms[3] = {coir_arm_event(&event), coir_arm_scope(scope), coir_arm_wait_group(&group)};
  CHECK_EQ(select_of(arms, 2, 0), -ETIMEDOUT);
  CHECK_EQ(select_of(arms, 3, 0), 2); /* zero from the start */
  CHECK_EQ(arms[2].result, 0);
  coir_wait_group_add(&group, 2);
  CHECK_EQ(select_of(arms, 3, 0), -ETIMEDOUT);
  CHECK_EQ(select_of(arms, 3, coir_after(COIR_MS(1))), -ETIMEDOUT);
  coir_event_set(&event);
  CHECK_EQ(select_of(arms, 3, COIR_NEVER), 0);
  CHECK_EQ(arms[0].result, 0);
  CHECK(coir_event_is_set(&event));
  coir_event_reset(&event);
  CHECK_EQ(select_of(arms, 3, 0), -ETIMEDOUT);
  coir_wait_group_done(&group);
  CHECK_EQ(select_of(arms, 3, 0), -ETIMEDOUT);
  coir_wait_group_done(&group);
  CHECK_EQ(select_of(arms, 3, 0), 2);
  coir_wait_group_add(&group, 1);
  coir_scope_cancel(scope, -EIO);
  coir_shield_begin(); /* the caller is inside, and would be cancelled itself */
  CHECK_EQ(select_of(arms, 3, COIR_NEVER), 1);
  CHECK_EQ(arms[1].result, 0);
  CHECK_EQ(select_of(arms, 3, 0), 1);
  coir_shield_end();
  CHECK_EQ(coir_scope_close(scope), -EIO);
}

ON_BOTH(deadline_arms) {
  struct coir_arm arms[4] = {coir_arm_deadline(COIR_NEVER), coir_arm_deadline(0), coir_arm_deadline(COIR_NEVER)};
  CHECK_EQ(select_of(arms, 3, COIR_NEVER), 1);
  CHECK_EQ(arms[1].result, 0);
  CHECK_EQ(select_of(arms, 3, 0), 1); /* an arm that is ready goes before the default */
  arms[1].deadline = coir_now();
  CHECK_EQ(select_of(arms, 3, 0), 1);
  arms[1].deadline = -5;
  CHECK_EQ(select_of(arms, 3, 0), 1);
  int64_t now = coir_now();
  arms[0] = coir_arm_deadline(now + COIR_SEC(50));
  arms[1] = coir_arm_deadline(now + COIR_SEC(100));
  arms[2] = coir_arm_deadline(now + COIR_MS(2));
  arms[3] = coir_arm_deadline(COIR_NEVER);
  CHECK_EQ(select_of(arms, 4, 0), -ETIMEDOUT);
  CHECK_EQ(select_of(arms, 4, COIR_NEVER), 2); /* the first that comes */
  CHECK_EQ(arms[2].result, 0);
  CHECK(coir_now() >= now + COIR_MS(2));
  int64_t until = coir_after(COIR_MS(1));
  CHECK_EQ(select_of(arms, 2, until), -ETIMEDOUT); /* the select's own is sooner */
  CHECK(coir_now() >= until);
  arms[1].deadline = coir_after(COIR_MS(1));
  CHECK_EQ(select_of(arms, 2, coir_after(COIR_SEC(50))), 1);
  CHECK(coir_now() >= arms[1].deadline);
  for (int i = 0; i < 4; i++) arms[i].deadline = coir_after(COIR_US(200) * (4 - i));
  for (int i = 0; i < 4; i++) CHECK(select_of(arms, 4, COIR_NEVER) >= 0);
}

/* ---- Each kind, ready later ------------------------------------------------------------------------------------ */

/* One arm of each kind, and what makes each of them ready. */
enum {
  K_SEND,
  K_RECV,
  K_READ,
  K_WRITE,
  K_FIBER,
  K_GROUP,
  K_EVENT,
  K_SCOPE,
  K_DEADLINE,
  K_CLOSED_SEND,
  K_CLOSED_RECV,
  KINDS
};

struct zoo {
  struct coir_chan *to, *from, *to_close, *from_close;
  int readable[2], writable[2];
  struct coir_event fiber_goes, event, scope_goes;
  struct coir_wait_group group;
  struct coir_fiber *fiber, *scope_holder;
  struct coir_scope *scope;
  _Atomic(int) scope_is_open;
  uint64_t in, out;
  struct coir_arm arms[KINDS];
};

/* The scope is another fiber's, so that its cancellation does not reach the one that selects. */
static int holds_scope(void *arg) {
  struct zoo *z = arg;
  CHECK_EQ(coir_scope_open(&z->scope, 0, COIR_NEVER), 0);
  atomic_store(&z->scope_is_open, 1);
  coir_shield_begin();
  CHECK_EQ(coir_event_wait(&z->scope_goes, COIR_NEVER), 0);
  coir_shield_end();
  (void)coir_scope_close(z->scope);
  return 0;
}

static void zoo_open(struct zoo *z) {
  memset(z, 0, sizeof *z);
  z->to = make(0), z->from = make(0), z->to_close = make(0), z->from_close = make(0);
  CHECK_EQ(pipe(z->readable), 0);
  CHECK_EQ(pipe(z->writable), 0);
  char block[4096];
  memset(block, 0, sizeof block);
  while (coir_write(z->writable[1], block, sizeof block, 0) > 0) {}
  while (coir_write(z->writable[1], block, 1, 0) > 0) {}
  coir_wait_group_add(&z->group, 1);
  z->fiber = spawn(waits_for_event, &z->fiber_goes);
  z->scope_holder = spawn(holds_scope, z);
  WAIT_FOR(atomic_load(&z->scope_is_open));
  z->in = 11, z->out = UNTOUCHED;
  z->arms[K_SEND] = coir_arm_send(z->to, &z->in);
  z->arms[K_RECV] = coir_arm_recv(z->from, &z->out);
  z->arms[K_READ] = coir_arm_fd(z->readable[0], COIR_READABLE);
  z->arms[K_WRITE] = coir_arm_fd(z->writable[1], COIR_WRITABLE);
  z->arms[K_FIBER] = coir_arm_fiber(z->fiber);
  z->arms[K_GROUP] = coir_arm_wait_group(&z->group);
  z->arms[K_EVENT] = coir_arm_event(&z->event);
  z->arms[K_SCOPE] = coir_arm_scope(z->scope);
  z->arms[K_DEADLINE] = coir_arm_deadline(COIR_NEVER);
  z->arms[K_CLOSED_SEND] = coir_arm_send(z->to_close, &z->in);
  z->arms[K_CLOSED_RECV] = coir_arm_recv(z->from_close, &z->out);
}

/* Makes one of the arms ready, now that somebody waits for them. */
static void zoo_wake(struct zoo *z, int kind) {
  char block[65536];
  switch (kind) {
  case K_SEND: CHECK_EQ(recv_value(z->to, 0), 11); return;
  case K_RECV: CHECK_EQ(send_value(z->from, 12, 0), 0); return;
  case K_READ: CHECK_EQ(coir_write(z->readable[1], "x", 1, 0), 1); return;
  case K_WRITE: CHECK(coir_read(z->writable[0], block, sizeof block, 0) > 0); return;
  case K_FIBER: coir_event_set(&z->fiber_goes); return;
  case K_GROUP: coir_wait_group_done(&z->group); return;
  case K_EVENT: coir_event_set(&z->event); return;
  case K_SCOPE: coir_scope_cancel(z->scope, 0); return;
  case K_CLOSED_SEND: coir_chan_close(z->to_close); return;
  case K_CLOSED_RECV: coir_chan_close(z->from_close); return;
  }
}

static int zoo_result(int kind) {
  if (kind == K_CLOSED_SEND || kind == K_CLOSED_RECV) return -EPIPE;
  return kind == K_READ ? COIR_READABLE : kind == K_WRITE ? COIR_WRITABLE : 0;
}

/* Whoever selected has left no trace: nobody waits in any of the channels. */
static void zoo_close(struct zoo *z, int chosen) {
  CHECK_EQ(recv_value(z->to, 0), -ETIMEDOUT);
  CHECK_EQ(send_value(z->from, 1, 0), -ETIMEDOUT);
  CHECK_EQ(recv_value(z->to_close, 0), chosen == K_CLOSED_SEND ? -EPIPE : -ETIMEDOUT);
  CHECK_EQ(send_value(z->from_close, 1, 0), chosen == K_CLOSED_RECV ? -EPIPE : -ETIMEDOUT);
  CHECK_EQ(z->out, chosen == K_RECV ? 12 : UNTOUCHED);
  /* Nor does anything happen when the others become ready now. */
  coir_event_set(&z->event);
  if (chosen != K_GROUP) coir_wait_group_done(&z->group);
  coir_event_set(&z->fiber_goes);
  CHECK_EQ(join(z->fiber), 0);
  coir_scope_cancel(z->scope, 0);
  coir_event_set(&z->scope_goes);
  CHECK_EQ(join(z->scope_holder), 0);
  for (int i = 0; i < 2; i++) coir_close(z->readable[i]), coir_close(z->writable[i]);
  coir_chan_close(z->to), coir_chan_close(z->from);
  coir_chan_unref(z->to), coir_chan_unref(z->from), coir_chan_unref(z->to_close), coir_chan_unref(z->from_close);
}

/* The fiber that the zoo's fiber arm waits for, and the holder of the scope, are parked as well. */
#define ZOO_PARKED 2

static void wake_alone_and_among_all(int kind) {
  for (int all = 0; all < 2; all++) {
    struct zoo z;
    zoo_open(&z);
    if (kind == K_DEADLINE) z.arms[K_DEADLINE].deadline = coir_after(COIR_MS(3));
    struct sel s = {all ? z.arms : &z.arms[kind], all ? KINDS : 1, COIR_NEVER, UNSET, 0};
    if (kind % 2) s.deadline = coir_after(COIR_SEC(100));
    struct coir_fiber *f = spawn(sel_run, &s);
    if (kind != K_DEADLINE) until_parked(ZOO_PARKED + 1);
    zoo_wake(&z, kind);
    CHECK_EQ(join(f), all ? kind : 0);
    CHECK_EQ(z.arms[kind].result, zoo_result(kind));
    if (kind == K_DEADLINE) CHECK(coir_now() >= z.arms[K_DEADLINE].deadline);
    zoo_close(&z, kind);
  }
}

ON_FIBER(each_kind_wakes_one_that_waits) {
  for (int kind = 0; kind < KINDS; kind++) wake_alone_and_among_all(kind);
}

struct waker {
  struct zoo *z;
  int kind;
};

static void *thread_wakes(void *arg) {
  struct waker *w = arg;
  coir_sleep(COIR_MS(1));
  if (w->kind == K_SEND) CHECK_EQ(recv_value(w->z->to, COIR_NEVER), 11);
  else if (w->kind == K_RECV) CHECK_EQ(send_value(w->z->from, 12, COIR_NEVER), 0);
  else zoo_wake(w->z, w->kind);
  return NULL;
}

/* A thread selects and a fiber wakes it; a fiber selects and a thread wakes it. */
ON_FIBER(threads_select_and_wake) {
  for (int kind = 0; kind < KINDS; kind++) {
    struct zoo z;
    zoo_open(&z);
    if (kind == K_DEADLINE) z.arms[K_DEADLINE].deadline = coir_after(COIR_MS(3));
    struct sel s = {z.arms, KINDS, COIR_NEVER, UNSET, 0};
    struct waker w = {&z, kind};
    pthread_t thread = start_thread(sel_thread, &s);
    thread_wakes(&w);
    WAIT_FOR(atomic_load(&s.done)); /* lets others run, which it may wait for */
    pthread_join(thread, NULL);
    CHECK_EQ(s.rc, kind);
    CHECK_EQ(z.arms[kind].result, zoo_result(kind));
    zoo_close(&z, kind);

    zoo_open(&z);
    if (kind == K_DEADLINE) z.arms[K_DEADLINE].deadline = coir_after(COIR_MS(3));
    thread = start_thread(thread_wakes, &w);
    CHECK_EQ(select_of(z.arms, KINDS, COIR_NEVER), kind);
    CHECK_EQ(z.arms[kind].result, zoo_result(kind));
    pthread_join(thread, NULL);
    zoo_close(&z, kind);
  }
}

ON_FIBER(all_kinds_end_by_the_deadline_or_cancelled) {
  for (int how = 0; how < 3; how++) {
    struct zoo z;
    zoo_open(&z);
    if (how == 0) {
      int64_t until = coir_after(COIR_MS(2));
      CHECK_EQ(select_of(z.arms, KINDS, until), -ETIMEDOUT);
      CHECK(coir_now() >= until);
    } else if (how == 1) {
      CHECK_EQ(select_of(z.arms, KINDS, 0), -ETIMEDOUT);
    } else {
      struct sel s = {z.arms, KINDS, COIR_NEVER, UNSET, 0};
      struct coir_fiber *f = spawn(sel_run, &s);
      until_parked(ZOO_PARKED + 1);
      CHECK_EQ(coir_cancel(f), 0);
      CHECK_EQ(join(f), -ECANCELED);
    }
    zoo_close(&z, -1);
  }
}

static void *closes_fd(void *fd) {
  coir_sleep(COIR_MS(2));
  CHECK_EQ(coir_close(*(int *)fd), 0);
  return NULL;
}

ON_BOTH(a_descriptor_that_is_closed_meanwhile) {
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  struct coir_chan *c = make(0);
  struct coir_arm arms[2] = {coir_arm_recv(c, NULL), coir_arm_fd(fds[0], COIR_READABLE)};
  pthread_t thread = start_thread(closes_fd, &fds[0]);
  CHECK_EQ(select_of(arms, 2, COIR_NEVER), 1);
  CHECK_EQ(arms[1].result, -EBADF);
  pthread_join(thread, NULL);
  coir_close(fds[1]);
  coir_chan_unref(c);
}

static int opens_short_scope(void *arg) {
  struct coir_scope **out = arg;
  CHECK_EQ(coir_scope_open(out, 0, coir_after(COIR_MS(2))), 0);
  struct coir_arm arm = coir_arm_scope(*out);
  coir_shield_begin();
  int rc = select_of(&arm, 1, COIR_NEVER); /* wakes when the scope's deadline comes */
  coir_shield_end();
  CHECK_EQ(rc, 0);
  CHECK_EQ(coir_scope_close(*out), -ETIMEDOUT);
  return 0;
}

ON_FIBER(a_scope_whose_deadline_comes) {
  struct coir_scope *scope;
  CHECK_EQ(join(spawn(opens_short_scope, &scope)), 0);
}

/* ---- The same object in several arms; a select does not meet itself -------------------------------------------- */

ON_BOTH(a_select_never_meets_itself) {
  struct coir_chan *c = make(0);
  uint64_t in = 1, out = UNTOUCHED;
  struct coir_arm arms[6] = {coir_arm_send(c, &in),  coir_arm_recv(c, &out), coir_arm_send(c, &in),
                             coir_arm_recv(c, NULL), coir_arm_recv(c, &out), coir_arm_send(c, &in)};
  for (size_t n = 1; n <= 6; n++) {
    CHECK_EQ(select_of(arms, n, 0), -ETIMEDOUT);
    int64_t until = coir_after(COIR_US(300));
    CHECK_EQ(select_of(arms, n, until), -ETIMEDOUT);
    CHECK(coir_now() >= until);
  }
  CHECK_EQ(out, UNTOUCHED);
  CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
  CHECK_EQ(send_value(c, 1, 0), -ETIMEDOUT);
  coir_chan_unref(c);
}

ON_FIBER(both_directions_of_one_channel_meet_others) {
  struct coir_chan *c = make(0);
  uint64_t in = 1, out = UNTOUCHED;
  struct coir_arm arms[4] = {coir_arm_send(c, &in), coir_arm_recv(c, &out), coir_arm_recv(c, &out),
                             coir_arm_send(c, &in)};
  for (int i = 0; i < 40; i++) {
    struct op op = {c, 50 + (uint64_t)i};
    struct sel s = {arms, 4, COIR_NEVER, UNSET, 0};
    bool sends = i % 2;
    struct coir_fiber *f;
    if (i / 2 % 2) { /* the select waits */
      f = spawn(sel_run, &s);
      until_parked(1);
      if (sends) CHECK_EQ(send_value(c, op.value, 0), 0);
      else CHECK_EQ(op.value = (uint64_t)recv_value(c, 0), 1);
      CHECK(join(f) >= 0);
    } else { /* or comes */
      f = spawn(sends ? op_send : op_recv, &op);
      until_parked(1);
      CHECK(sel_run(&s) >= 0);
      CHECK_EQ(join(f), 0);
    }
    CHECK_EQ(s.rc == 1 || s.rc == 2, sends);
    CHECK_EQ(arms[s.rc].result, 0);
    if (sends) CHECK_EQ(out, op.value);
    else CHECK_EQ(op.value, 1);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
    CHECK_EQ(send_value(c, 1, 0), -ETIMEDOUT);
  }
  coir_chan_close(c);
  CHECK(select_of(arms, 4, COIR_NEVER) >= 0);
  coir_chan_unref(c);
}

ON_FIBER(one_object_in_several_arms) {
  for (int kind = 0; kind < KINDS; kind++) {
    if (kind == K_DEADLINE) continue;
    struct zoo z;
    zoo_open(&z);
    struct coir_arm arms[3] = {z.arms[kind], z.arms[kind], z.arms[kind]};
    struct sel s = {arms, 3, COIR_NEVER, UNSET, 0};
    struct coir_fiber *f = spawn(sel_run, &s);
    until_parked(ZOO_PARKED + 1);
    zoo_wake(&z, kind);
    int chosen = join(f);
    CHECK(chosen >= 0);
    CHECK_EQ(arms[chosen].result, zoo_result(kind));
    zoo_close(&z, kind);
  }
}

ON_FIBER(the_same_arm_of_several_selects) {
  enum { N = 8 };
  for (int kind = 0; kind < KINDS; kind++) {
    bool wakes_one = kind == K_SEND || kind == K_RECV;
    if (kind == K_DEADLINE || kind == K_FIBER) continue; /* at most one waits for a fiber */
    struct zoo z;
    zoo_open(&z);
    struct coir_arm arms[N];
    struct sel s[N];
    struct coir_fiber *f[N];
    for (int i = 0; i < N; i++) {
      arms[i] = z.arms[kind];
      s[i] = (struct sel){&arms[i], 1, COIR_NEVER, UNSET, 0};
      f[i] = spawn(sel_run, &s[i]);
      until_parked(ZOO_PARKED + 1 + i);
    }
    zoo_wake(&z, kind);
    for (int i = 0; i < N; i++) {
      if (wakes_one && i) CHECK_EQ(coir_cancel(f[i]), 0); /* the one that came first has it */
      CHECK_EQ(join(f[i]), wakes_one && i ? -ECANCELED : 0);
    }
    zoo_close(&z, kind);
  }
}

/* ---- Exactly one arm takes effect ------------------------------------------------------------------------------ */

ON_BOTH(of_many_ready_arms_one_takes_effect) {
  enum { N = 10 };
  struct coir_chan *in[N], *out[N];
  struct coir_arm arms[2 * N];
  uint64_t values[N], got[N];
  for (uint64_t i = 0; i < N; i++) {
    in[i] = make(2), out[i] = make(2);
    values[i] = 100 + i;
    arms[2 * i] = coir_arm_send(in[i], &values[i]);
    arms[2 * i + 1] = coir_arm_recv(out[i], &got[i]);
  }
  int sends = 0;
  for (int round = 0; round < 1000; round++) {
    for (uint64_t i = 0; i < N; i++) {
      if (coir_chan_length(out[i]) == 0) CHECK_EQ(send_value(out[i], 200 + i, 0), 0);
      if (coir_chan_length(in[i]) == 2) CHECK_EQ(coir_chan_recv(in[i], NULL, 0), 0);
      got[i] = UNTOUCHED;
    }
    size_t in_before[N], out_before[N];
    for (int i = 0; i < N; i++) in_before[i] = coir_chan_length(in[i]), out_before[i] = coir_chan_length(out[i]);
    int chosen = select_of(arms, 2 * N, round % 2 ? 0 : COIR_NEVER);
    CHECK(chosen >= 0);
    CHECK_EQ(arms[chosen].result, 0);
    sends += chosen % 2 == 0;
    for (int i = 0; i < N; i++) {
      CHECK_EQ(coir_chan_length(in[i]), in_before[i] + (chosen == 2 * i));
      CHECK_EQ(coir_chan_length(out[i]), out_before[i] - (chosen == 2 * i + 1));
      CHECK_EQ(got[i], chosen == 2 * i + 1 ? (uint64_t)(200 + i) : UNTOUCHED);
    }
  }
  CHECK(sends > 300 && sends < 700);
  for (int i = 0; i < N; i++) {
    while (coir_chan_length(in[i])) CHECK_EQ(recv_value(in[i], 0), 100 + i);
    coir_chan_unref(in[i]), coir_chan_unref(out[i]);
  }
}

ON_FIBER(after_waiting_one_arm_has_taken_effect) {
  enum { N = 10 };
  struct coir_chan *c[N];
  uint64_t values[N];
  struct coir_arm arms[N];
  for (uint64_t i = 0; i < N; i++) {
    c[i] = make(i < 5 ? 0 : i % 3); /* some of them with a full buffer, or an empty one */
    values[i] = i % 2 ? 300 + i : UNTOUCHED;
    arms[i] = i % 2 ? coir_arm_send(c[i], &values[i]) : coir_arm_recv(c[i], &values[i]);
    if (i % 2)
      while (send_value(c[i], 400 + i, 0) == 0) {}
  }
  for (int i = 0; i < N; i++) {
    size_t length = coir_chan_length(c[i]);
    struct sel s = {arms, N, COIR_NEVER, UNSET, 0};
    struct coir_fiber *f = spawn(sel_run, &s);
    until_parked(1);
    if (i % 2) CHECK_EQ(recv_value(c[i], 0), (length ? 400 : 300) + i);
    else CHECK_EQ(send_value(c[i], 77, 0), 0);
    CHECK_EQ(join(f), i);
    CHECK_EQ(coir_chan_length(c[i]), length);
    for (int j = 0; j < N; j++) {
      if (j % 2) {
        size_t n = coir_chan_capacity(c[j]);
        CHECK_EQ(coir_chan_length(c[j]), n);
        for (size_t k = 0; k < n; k++) CHECK_EQ(recv_value(c[j], 0), (i == j && k + 1 == n ? 300 : 400) + j);
        CHECK_EQ(recv_value(c[j], 0), -ETIMEDOUT); /* no sender waits */
        while (send_value(c[j], (uint64_t)(400 + j), 0) == 0) {}
      } else {
        CHECK_EQ(values[j], i == j ? 77 : UNTOUCHED);
        values[j] = UNTOUCHED;
        if (coir_chan_capacity(c[j]) == 0) CHECK_EQ(send_value(c[j], 1, 0), -ETIMEDOUT);
      }
    }
  }
  for (int i = 0; i < N; i++) coir_chan_unref(c[i]);
}

/* Who has been cancelled, or whose deadline has come, is no partner any more, even if it has not run since. */
ON_FIBER(those_that_have_left_are_no_partners) {
  struct coir_chan *c = make(0), *never = make(0);
  uint64_t value = 1, out = UNTOUCHED;
  for (int i = 0; i < 40; i++) {
    struct coir_arm theirs[2] = {i % 2 ? coir_arm_recv(c, &out) : coir_arm_send(c, &value), coir_arm_recv(never, NULL)};
    struct coir_arm ours[2] = {coir_arm_recv(never, NULL), i % 2 ? coir_arm_send(c, &value) : coir_arm_recv(c, &out)};
    struct sel s = {theirs, 2, i % 4 < 2 ? COIR_NEVER : coir_after(COIR_MS(1)), UNSET, 0};
    struct coir_fiber *f = spawn(sel_run, &s);
    if (i % 4 < 2) {
      until_parked(1);
      CHECK_EQ(coir_cancel(f), 0);
    } else {
      SPIN_UNTIL(coir_now() > s.deadline);
    }
    int rc = select_of(ours, 2, i % 8 < 4 ? 0 : coir_after(COIR_US(100)));
    int theirs_rc = join(f);
    if (i % 4 < 2) CHECK_EQ(rc, -ETIMEDOUT);
    CHECK_EQ(theirs_rc, rc == 1 ? 0 : i % 4 < 2 ? -ECANCELED : -ETIMEDOUT); /* both have met, or neither */
    out = UNTOUCHED;
  }
  coir_chan_unref(c), coir_chan_unref(never);
}

ON_BOTH(an_error_has_no_effect) {
  struct coir_chan *full = make(1), *room = make(1);
  CHECK_EQ(send_value(full, 3, 0), 0);
  uint64_t value = 9, out = UNTOUCHED;
  static const int kinds[] = {9, 10, 1000, -1};
  static const int events[] = {0, 4, 8 | COIR_READABLE, -1};
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  for (int bad = 0; bad < 8; bad++)
    for (int at = 0; at < 3; at++)
      for (int wait = 0; wait < 2; wait++) {
        struct coir_arm arms[3] = {coir_arm_recv(full, &out), coir_arm_send(room, &value), coir_arm_deadline(0)};
        if (bad < 4) {
          memset(&arms[at], 0, sizeof arms[at]);
          memcpy(&arms[at].kind, &kinds[bad], sizeof kinds[bad]);
        } else {
          arms[at] = coir_arm_fd(fds[1], events[bad - 4]);
        }
        CHECK_EQ(coir_select(arms, 3, wait ? COIR_NEVER : 0), -EINVAL);
        CHECK_EQ(out, UNTOUCHED);
        CHECK_EQ(coir_chan_length(full), 1);
        CHECK_EQ(coir_chan_length(room), 0);
      }
  coir_close(fds[0]), coir_close(fds[1]);
  for (int wait = 0; wait < 2; wait++) { /* nothing to send */
    struct coir_arm arms[3] = {coir_arm_recv(full, &out), coir_arm_send(room, NULL), coir_arm_deadline(0)};
    CHECK_EQ(coir_select(arms, 3, wait ? COIR_NEVER : 0), -EINVAL);
    CHECK_EQ(coir_chan_length(full), 1);
    CHECK_EQ(coir_chan_length(room), 0);
  }
  coir_chan_unref(full), coir_chan_unref(room);
}

ON_BOTH(how_many_arms_there_may_be) {
  struct coir_arm *arms = calloc((size_t)COIR_ARMS_MAX + 1, sizeof *arms);
  CHECK(arms);
  CHECK_EQ(coir_select(arms, (size_t)COIR_ARMS_MAX + 1, 0), -EINVAL);
  CHECK_EQ(coir_select(arms, SIZE_MAX, 0), -EINVAL);
  CHECK_EQ(coir_select(arms, (size_t)1 << 32, COIR_NEVER), -EINVAL);
  if (!IS_SANITIZED) {
    arms[COIR_ARMS_MAX - 1] = coir_arm_deadline(0);
    CHECK_EQ(coir_select(arms, COIR_ARMS_MAX, COIR_NEVER), COIR_ARMS_MAX - 1);
  }
  free(arms);
}

/* ---- Thousands of arms ----------------------------------------------------------------------------------------- */

#define MANY 5000

ON_FIBER(thousands_of_arms) {
  struct coir_arm *arms = calloc(MANY, sizeof *arms);
  struct coir_chan **c = calloc(MANY, sizeof *c);
  uint64_t *values = calloc(MANY, sizeof *values), rng = rng_seed(5);
  CHECK(arms && c && values);
  for (int i = 0; i < MANY; i++) {
    c[i] = make(0);
    arms[i] = i % 2 ? coir_arm_send(c[i], &values[i]) : coir_arm_recv(c[i], &values[i]);
  }
  CHECK_EQ(select_of(arms, MANY, 0), -ETIMEDOUT);
  CHECK_EQ(select_of(arms, MANY, coir_after(COIR_MS(3))), -ETIMEDOUT);
  for (int round = 0; round < 30; round++) { /* one of them becomes ready */
    int at = round == 0 ? 0 : round == 1 ? MANY - 1 : (int)(rng_next(&rng) % MANY);
    struct sel s = {arms, MANY, COIR_NEVER, UNSET, 0};
    struct coir_fiber *f = spawn(sel_run, &s);
    until_parked(1);
    if (round % 10 == 9) {
      CHECK_EQ(coir_cancel(f), 0);
      CHECK_EQ(join(f), -ECANCELED);
      continue;
    }
    if (at % 2) CHECK_EQ(recv_value(c[at], 0), 0);
    else CHECK_EQ(send_value(c[at], 0, 0), 0);
    CHECK_EQ(join(f), at);
  }
  for (int i = 0; i < MANY; i++) CHECK_EQ(i % 2 ? recv_value(c[i], 0) : send_value(c[i], 0, 0), -ETIMEDOUT);
  for (int i = 0; i < MANY; i++) coir_chan_close(c[i]); /* all are ready */
  int low = 0;
  for (int i = 0; i < 200; i++) {
    int chosen = select_of(arms, MANY, COIR_NEVER);
    CHECK(chosen >= 0);
    CHECK_EQ(arms[chosen].result, -EPIPE);
    low += chosen < MANY / 2;
  }
  CHECK(low > 40 && low < 160); /* 100 give or take 7: eight and a half times that happens once in 10^16 */
  for (int i = 0; i < MANY; i++) coir_chan_unref(c[i]);
  free(arms), free(c), free(values);
}

ON_FIBER(one_channel_in_thousands_of_arms) {
  struct coir_arm *arms = calloc(MANY, sizeof *arms);
  struct coir_chan *c = make(0);
  uint64_t in = 3, out = 0;
  CHECK(arms);
  for (int i = 0; i < MANY; i++) arms[i] = i % 2 ? coir_arm_send(c, &in) : coir_arm_recv(c, &out);
  for (int round = 0; round < 10; round++) {
    struct sel s = {arms, MANY, COIR_NEVER, UNSET, 0};
    struct coir_fiber *f = spawn(sel_run, &s);
    until_parked(1);
    if (round % 2) CHECK_EQ(recv_value(c, 0), 3);
    else CHECK_EQ(send_value(c, 8, 0), 0);
    int chosen = join(f);
    CHECK_EQ(chosen % 2, round % 2);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
    CHECK_EQ(send_value(c, 8, 0), -ETIMEDOUT);
  }
  CHECK_EQ(out, 8);
  coir_chan_unref(c);
  free(arms);
}

/* ---- Selects that meet selects --------------------------------------------------------------------------------- */

/* Each of them offers to send on one channel and to receive from another; both wait before anything can happen, or
 * come at the same time. */
struct side {
  struct coir_chan *to, *from;
  uint64_t in, out;
  int rc;
};

static int side_selects(void *arg) {
  struct side *s = arg;
  struct coir_arm arms[2] = {coir_arm_send(s->to, &s->in), coir_arm_recv(s->from, &s->out)};
  s->out = UNTOUCHED;
  s->rc = select_of(arms, 2, COIR_NEVER);
  CHECK(s->rc >= 0);
  CHECK_EQ(arms[s->rc].result, 0);
  return s->rc;
}

static void check_met(const struct side *a, const struct side *b) {
  CHECK_EQ(a->rc + b->rc, 1); /* one has sent, the other one has received */
  const struct side *s = a->rc ? b : a, *r = a->rc ? a : b;
  CHECK_EQ(r->out, s->in);
  CHECK_EQ(s->out, UNTOUCHED);
}

ON_FIBER(two_selects_meet) {
  struct coir_chan *x = make(0), *y = make(0);
  for (int i = 0; i < rounds(3000); i++) {
    struct side a = {x, y, 1, 0, 0}, b = {y, x, 2, 0, 0};
    struct coir_fiber *f = spawn(side_selects, &a);
    if (i % 16 == 0) until_parked(1);
    struct coir_fiber *g = spawn(side_selects, &b);
    join(f), join(g);
    check_met(&a, &b);
    if (i % 64) continue;
    CHECK_EQ(recv_value(x, 0), -ETIMEDOUT);
    CHECK_EQ(recv_value(y, 0), -ETIMEDOUT);
    CHECK_EQ(send_value(x, 0, 0), -ETIMEDOUT);
    CHECK_EQ(send_value(y, 0, 0), -ETIMEDOUT);
  }
  coir_chan_unref(x), coir_chan_unref(y);
}

ON_FIBER(a_fiber_and_a_thread_select_and_meet) {
  struct coir_chan *x = make(0), *y = make(0);
  for (int i = 0; i < rounds(300); i++) {
    struct side a = {x, y, 1, 0, 0}, b = {y, x, 2, 0, 0};
    struct coir_arm arms[2] = {coir_arm_send(a.to, &a.in), coir_arm_recv(a.from, &a.out)};
    a.out = UNTOUCHED;
    struct sel s = {arms, 2, COIR_NEVER, UNSET, 0};
    pthread_t thread = start_thread(sel_thread, &s);
    side_selects(&b);
    pthread_join(thread, NULL);
    a.rc = s.rc;
    check_met(&a, &b);
  }
  coir_chan_unref(x), coir_chan_unref(y);
}

struct crowd {
  struct coir_chan **c;
  int channels;
  _Atomic(uint64_t) sent, received, sum_in, sum_out;
};

struct member {
  struct crowd *crowd;
  int index;
};

/* Offers both directions of every channel, in an order of its own. */
static int member_selects(void *arg) {
  struct member *m = arg;
  struct crowd *crowd = m->crowd;
  uint64_t in = (uint64_t)m->index + 1, out = 0;
  struct coir_arm arms[8];
  int n = crowd->channels;
  for (int i = 0; i < n; i++) {
    struct coir_chan *c = crowd->c[(m->index + i) % n];
    arms[2 * i + m->index / 2 % 2] = coir_arm_send(c, &in);
    arms[2 * i + 1 - m->index / 2 % 2] = coir_arm_recv(c, &out);
  }
  int rc = coir_select(arms, 2 * (size_t)n, COIR_NEVER);
  CHECK(rc >= 0);
  CHECK_EQ(arms[rc].result, 0);
  bool sent = arms[rc].kind == COIR_ARM_SEND;
  atomic_fetch_add(sent ? &crowd->sent : &crowd->received, 1);
  atomic_fetch_add(sent ? &crowd->sum_in : &crowd->sum_out, sent ? in : out);
  return 0;
}

/* Everybody in an even crowd finds a partner, whatever the order of arms: no deadlock, nobody left alone. */
ON_FIBER(a_crowd_pairs_off) {
  enum { N = 200 };
  for (int channels = 1; channels <= 4; channels++)
    for (int round = 0; round < rounds(50); round++) {
      struct coir_chan *c[4];
      for (int i = 0; i < channels; i++) c[i] = make(0);
      struct crowd crowd = {.c = c, .channels = channels};
      struct member members[N];
      struct coir_fiber *f[N];
      for (int i = 0; i < N; i++) {
        members[i] = (struct member){&crowd, i};
        f[i] = spawn(member_selects, &members[i]);
      }
      for (int i = 0; i < N; i++) join(f[i]);
      CHECK_EQ(crowd.sent, N / 2);
      CHECK_EQ(crowd.received, N / 2);
      CHECK_EQ(crowd.sum_in, crowd.sum_out);
      for (int i = 0; i < channels; i++) coir_chan_unref(c[i]);
    }
}

/* Many pairs, all of whose first halves wait before the second halves come. */
ON_FIBER(many_pairs_of_selects) {
  enum { N = 100 };
  struct coir_chan *c[2 * N];
  struct side a[N], b[N];
  struct coir_fiber *f[N], *g[N];
  for (int i = 0; i < 2 * N; i++) c[i] = make(0);
  for (uint64_t i = 0; i < N; i++) {
    a[i] = (struct side){c[2 * i], c[2 * i + 1], 2 * i, 0, 0};
    b[i] = (struct side){c[2 * i + 1], c[2 * i], 2 * i + 1, 0, 0};
    f[i] = spawn(side_selects, &a[i]);
  }
  until_parked(N);
  for (int i = 0; i < N; i++) g[i] = spawn(side_selects, &b[i]);
  for (int i = 0; i < N; i++) join(f[i]), join(g[i]), check_met(&a[i], &b[i]);
  for (int i = 0; i < 2 * N; i++) coir_chan_unref(c[i]);
}

/* ---- Arms used again; order among selects and plain calls ------------------------------------------------------ */

static int serves(void *arg) {
  struct coir_chan **c = arg;
  for (uint64_t i = 0; i < 2000; i++) CHECK_EQ(send_value(c[i % 3], i, COIR_NEVER), 0);
  for (int i = 0; i < 3; i++) coir_chan_close(c[i]);
  return 0;
}

ON_FIBER(an_array_is_used_again_and_again) {
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c[3] = {make(capacity), make(capacity), make(capacity)};
    uint64_t values[3], sum = 0, n = 0;
    struct coir_arm arms[4];
    for (int i = 0; i < 3; i++) arms[i] = coir_arm_recv(c[i], &values[i]);
    arms[3] = coir_arm_deadline(COIR_NEVER);
    struct coir_fiber *f = spawn(serves, c);
    int open = 3;
    while (open) {
      int i = coir_select(arms, 4, COIR_NEVER);
      CHECK(i >= 0 && i < 3);
      if (arms[i].result == 0) sum += values[i], n++;
      if (arms[i].result == 0) continue;
      CHECK_EQ(arms[i].result, -EPIPE);
      arms[i] = (struct coir_arm){0}; /* never ready from now on */
      open--;
    }
    CHECK_EQ(n, 2000);
    CHECK_EQ(sum, 1999 * 1000);
    CHECK_EQ(select_of(arms, 4, 0), -ETIMEDOUT);
    join(f);
    for (int i = 0; i < 3; i++) coir_chan_unref(c[i]);
  }
}

ON_FIBER(selects_and_plain_calls_wait_in_one_queue) {
  enum { N = 20 };
  for (int sends = 0; sends < 2; sends++) {
    struct coir_chan *c = make(0), *never = make(0);
    struct op ops[N];
    struct coir_arm arms[N][2];
    struct sel s[N];
    struct coir_fiber *f[N];
    for (int i = 0; i < N; i++) {
      ops[i] = (struct op){c, (uint64_t)i};
      arms[i][0] = coir_arm_recv(never, NULL);
      arms[i][1] = sends ? coir_arm_send(c, &ops[i].value) : coir_arm_recv(c, &ops[i].value);
      s[i] = (struct sel){arms[i], 2, COIR_NEVER, UNSET, 0};
      if (i % 2) f[i] = spawn(sel_run, &s[i]);
      else f[i] = spawn(sends ? op_send : op_recv, &ops[i]);
      until_parked(i + 1);
    }
    for (int i = 0; i < N; i++) {
      if (sends) CHECK_EQ(recv_value(c, 0), i);
      else CHECK_EQ(send_value(c, (uint64_t)i + 50, 0), 0);
    }
    for (int i = 0; i < N; i++) {
      CHECK_EQ(join(f[i]), i % 2);
      CHECK_EQ(ops[i].value, sends ? i : i + 50);
    }
    coir_chan_unref(c), coir_chan_unref(never);
  }
}

ON_FIBER(a_pending_cancellation_ends_the_next_select) {
  struct coir_chan *c = make(1);
  uint64_t value = 1;
  struct coir_arm recv = coir_arm_recv(c, &value), send = coir_arm_send(c, &value);
  coir_cancel(coir_current());
  CHECK_EQ(select_of(&recv, 1, COIR_NEVER), -ECANCELED);
  CHECK_EQ(select_of(&recv, 1, coir_after(COIR_US(200))), -ETIMEDOUT); /* once */
  coir_cancel(coir_current());
  CHECK_EQ(select_of(NULL, 0, COIR_NEVER), -ECANCELED);
  CHECK_EQ(coir_sleep(0), 0);
  /* Where it need not wait, it may take notice of it or leave it to the next one. */
  coir_cancel(coir_current());
  int rc = select_of(&send, 1, COIR_NEVER);
  CHECK(rc == 0 || rc == -ECANCELED);
  CHECK_EQ(coir_chan_length(c), rc ? 0 : 1);
  CHECK_EQ(coir_sleep(rc ? 0 : COIR_SEC(100)), rc ? 0 : -ECANCELED);
  coir_chan_unref(c);
}

static int sel_and_hold_nothing(void *arg) {
  struct sel *s = arg;
  return coir_select(s->arms, s->n, s->deadline);
}

static void dropped_selects_wait_no_more(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_chan *x = make(0), *y = make(0);
  uint64_t value = 1;
  struct coir_event event = {0};
  struct coir_arm arms[10][4];
  struct sel s[10];
  for (int i = 0; i < 10; i++) {
    arms[i][0] = coir_arm_recv(x, NULL);
    arms[i][1] = coir_arm_send(y, &value);
    arms[i][2] = coir_arm_event(&event);
    arms[i][3] = coir_arm_deadline(i % 2 ? COIR_NEVER : coir_after(COIR_SEC(1000)));
    s[i] = (struct sel){arms[i], 4, COIR_NEVER, UNSET, 0};
    CHECK_EQ(coir_runtime_spawn(rt, sel_and_hold_nothing, &s[i], NULL, NULL), 0);
  }
  until_parked_in(rt, 10);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(send_value(x, 1, 0), -ETIMEDOUT);
  CHECK_EQ(recv_value(y, 0), -ETIMEDOUT);
  coir_event_set(&event);
  coir_chan_close(x), coir_chan_close(y);
  coir_chan_unref(x), coir_chan_unref(y);
}

/* ---- Fairness -------------------------------------------------------------------------------------------------- */

/* Pearson's chi-square of how often each of `k` ready arms was chosen, and of the k * k pairs of one choice and the
 * next (of disjoint pairs, so that they are independent). If every choice is fair and has nothing to do with the one
 * before, the statistics follow the chi-square distribution with k - 1 and k * k - 1 degrees of freedom. The bounds:
 * P(chi2(1) > 70) = 6e-17, P(chi2(2) > 70) = 6e-16, P(chi2(6) > 70) = 4e-13; of pairs, P(chi2(3) > 150) = 3e-32,
 * P(chi2(8) > 150) = 2e-28, P(chi2(48) > 170) = 2e-15. All runs of this file together, at four worker counts, make
 * about a hundred such tests: it is less than 1e-10 that one of them raises a false alarm.
 *
 * No starvation: with n <= 10^6 choices, a given arm is passed over 47 * k times in a row somewhere with a probability
 * of at most n * k * (1 - 1/k)^(47 k), which is less than 1e-14 for k <= 7. */
#define READY_MAX 7

struct tally {
  int k;
  uint64_t n, counts[READY_MAX], pairs[READY_MAX * READY_MAX], last_seen[READY_MAX];
  int previous;
};

static void tally_add(struct tally *t, int chosen) {
  t->counts[chosen]++;
  for (int i = 0; i < t->k; i++) CHECK(i == chosen || t->n - t->last_seen[i] < 47 * (uint64_t)t->k);
  t->last_seen[chosen] = t->n;
  if (t->n++ % 2) t->pairs[t->previous * t->k + chosen]++;
  t->previous = chosen;
}

static double chi_square(const uint64_t *counts, int cells) {
  double n = 0, sum = 0;
  for (int i = 0; i < cells; i++) n += (double)counts[i];
  double expected = n / cells;
  for (int i = 0; i < cells; i++) sum += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
  return sum;
}

static void tally_check(const struct tally *t, const char *what) {
  double single = chi_square(t->counts, t->k), pairs = chi_square(t->pairs, t->k * t->k);
  double single_max = 70, pairs_max = t->k * t->k - 1 > 8 ? 170 : 150;
  if (single <= single_max && pairs <= pairs_max) return;
  fprintf(stderr, "%s: chi-square of %d arms is %.1f, of pairs %.1f; at most %.0f, %.0f. Counts:", what, t->k, single,
          pairs, single_max, pairs_max);
  for (int i = 0; i < t->k; i++) fprintf(stderr, " %llu", (unsigned long long)t->counts[i]);
  fprintf(stderr, "\n");
  abort();
}

/* 10^6 choices; as few as 10^5 where that would take more than 300 ms. */
static bool goes_on(uint64_t n, int64_t until) {
  return n < 100000 || (n < 1000000 && (n % 1024 != 0 || coir_now() < until));
}

static const struct {
  int k, n, at[READY_MAX]; /* which of the n arms are ready */
} layouts[] = {
    {2, 2, {0, 1}},
    {3, 3, {0, 1, 2}},
    {7, 7, {0, 1, 2, 3, 4, 5, 6}},
    {2, 12, {0, 11}},
    {2, 12, {4, 5}},
    {3, 10, {0, 5, 6}},
    {3, 10, {2, 3, 9}},
    {7, 20, {1, 2, 3, 8, 12, 18, 19}},
    {7, 40, {0, 20, 21, 22, 23, 24, 39}},
};

/* Closed channels stay ready whatever is chosen. */
static void try_layout(size_t l) {
  struct coir_chan *closed = make(0), *idle = make(0);
  coir_chan_close(closed);
  struct coir_arm arms[40];
  int index[40];
  struct tally t = {.k = layouts[l].k};
  for (int i = 0; i < layouts[l].n; i++) arms[i] = coir_arm_recv(idle, NULL), index[i] = -1;
  for (int i = 0; i < t.k; i++) {
    int at = layouts[l].at[i];
    arms[at] = coir_arm_recv(closed, NULL), index[at] = i;
  }
  for (int64_t until = coir_after(COIR_MS(300)); goes_on(t.n, until);) {
    int chosen = coir_select(arms, (size_t)layouts[l].n, COIR_NEVER);
    CHECK(chosen >= 0 && index[chosen] >= 0);
    tally_add(&t, index[chosen]);
  }
  char what[32];
  snprintf(what, sizeof what, "layout %d", (int)l);
  tally_check(&t, what);
  coir_chan_unref(closed), coir_chan_unref(idle);
}

ON_FIBER(every_ready_arm_is_as_likely) {
  for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++) try_layout(l);
}

static void and_so_on_a_thread(void **state) {
  (void)state;
  try_layout(5);
}

/* The same when the ready arms are of all kinds, and channels really carry values. */
ON_FIBER(kinds_are_as_likely) {
  struct coir_chan *in = make(4096), *out = make(4096), *closed = make(0), *idle = make(0);
  coir_chan_close(closed);
  struct coir_fiber *ended = spawn(does_nothing, NULL);
  struct coir_event event = {0};
  struct coir_wait_group group = {0};
  coir_event_set(&event);
  uint64_t value = 1;
  struct coir_arm arms[] = {
      coir_arm_send(in, &value),   coir_arm_recv(idle, NULL),     coir_arm_recv(out, &value), coir_arm_event(&event),
      coir_arm_send(idle, &value), coir_arm_wait_group(&group),   coir_arm_fiber(ended),      coir_arm_recv(NULL, NULL),
      coir_arm_deadline(1),        coir_arm_send(closed, &value),
  };
  const int index[] = {0, -1, 1, 2, -1, 3, 4, -1, 5, 6};
  struct coir_arm ends = coir_arm_fiber(ended);
  CHECK_EQ(coir_select(&ends, 1, COIR_NEVER), 0);
  struct tally t = {.k = 7};
  for (int64_t until = coir_after(COIR_MS(300)); goes_on(t.n, until);) {
    if (coir_chan_length(in) == 4096)
      while (coir_chan_recv(in, NULL, 0) == 0) {}
    if (coir_chan_length(out) == 0)
      while (coir_chan_send(out, &value, 0) == 0) {}
    int chosen = coir_select(arms, sizeof arms / sizeof *arms, 0);
    CHECK(chosen >= 0 && index[chosen] >= 0);
    tally_add(&t, index[chosen]);
  }
  tally_check(&t, "kinds");
  join(ended);
  coir_chan_unref(in), coir_chan_unref(out), coir_chan_unref(closed), coir_chan_unref(idle);
}

/* Two producers that are always ready: the consumer takes from both. */
struct flood {
  struct coir_chan *c;
  _Atomic(int) *over;
};

static int floods(void *arg) {
  struct flood *fl = arg;
  uint64_t value = 0;
  while (!atomic_load(fl->over) && coir_chan_send(fl->c, &value, COIR_NEVER) == 0) {}
  return 0;
}

ON_FIBER(a_flood_starves_nobody) {
  _Atomic(int) over = 0;
  struct flood fl[3];
  struct coir_arm arms[3];
  struct coir_fiber *f[3];
  uint64_t counts[3] = {0};
  int n = rounds(100000);
  for (int i = 0; i < 3; i++) {
    fl[i] = (struct flood){make((size_t)i * 8), &over};
    arms[i] = coir_arm_recv(fl[i].c, NULL);
    f[i] = spawn(floods, &fl[i]);
  }
  for (int i = 0; i < n; i++) {
    int chosen = coir_select(arms, 3, COIR_NEVER);
    CHECK(chosen >= 0);
    counts[chosen]++;
  }
  atomic_store(&over, 1);
  for (int i = 0; i < 3; i++) coir_chan_close(fl[i].c), join(f[i]), coir_chan_unref(fl[i].c);
  for (int i = 0; i < 3; i++) CHECK(counts[i] > (uint64_t)n / 1000); /* how fast each of them is, is another question */
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(without_an_arm_it_waits_for_the_deadline),
      cmocka_unit_test(arms_of_nothing_are_never_ready),
      cmocka_unit_test(channels_that_are_ready),
      cmocka_unit_test(a_rendezvous_that_is_ready),
      cmocka_unit_test(closed_channels_are_ready),
      cmocka_unit_test(descriptors_that_are_ready),
      cmocka_unit_test(regular_files_are_always_ready),
      cmocka_unit_test(fibers_that_have_ended),
      cmocka_unit_test(wait_groups_events_and_scopes_that_are_ready),
      cmocka_unit_test(deadline_arms),
      cmocka_unit_test(each_kind_wakes_one_that_waits),
      cmocka_unit_test(threads_select_and_wake),
      cmocka_unit_test(all_kinds_end_by_the_deadline_or_cancelled),
      cmocka_unit_test(a_descriptor_that_is_closed_meanwhile),
      cmocka_unit_test(a_scope_whose_deadline_comes),
      cmocka_unit_test(a_select_never_meets_itself),
      cmocka_unit_test(both_directions_of_one_channel_meet_others),
      cmocka_unit_test(one_object_in_several_arms),
      cmocka_unit_test(the_same_arm_of_several_selects),
      cmocka_unit_test(of_many_ready_arms_one_takes_effect),
      cmocka_unit_test(after_waiting_one_arm_has_taken_effect),
      cmocka_unit_test(those_that_have_left_are_no_partners),
      cmocka_unit_test(an_error_has_no_effect),
      cmocka_unit_test(how_many_arms_there_may_be),
      cmocka_unit_test(thousands_of_arms),
      cmocka_unit_test(one_channel_in_thousands_of_arms),
      cmocka_unit_test(two_selects_meet),
      cmocka_unit_test(a_fiber_and_a_thread_select_and_meet),
      cmocka_unit_test(a_crowd_pairs_off),
      cmocka_unit_test(many_pairs_of_selects),
      cmocka_unit_test(an_array_is_used_again_and_again),
      cmocka_unit_test(selects_and_plain_calls_wait_in_one_queue),
      cmocka_unit_test(a_pending_cancellation_ends_the_next_select),
      cmocka_unit_test(dropped_selects_wait_no_more),
      cmocka_unit_test(every_ready_arm_is_as_likely),
      cmocka_unit_test(and_so_on_a_thread),
      cmocka_unit_test(kinds_are_as_likely),
      cmocka_unit_test(a_flood_starves_nobody),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
