/* Descriptors that are closed by close(2) while somebody waits on them, and numbers that stand for something new at
 * once.
 *
 * Who waits gets EBADF within three seconds, whatever it waits for and whoever closes; who waits on another descriptor
 * goes on waiting; and nobody gets what was meant for the next one under the number. */
#include "gof_io_common.h"

#include <sys/eventfd.h>

#define LIMIT_MS 3000
#define QUIET_MS 3500 /* then everybody must have been told */

static char big[16 << 20]; /* more than any buffer grows to */

/* ---- Everything that one can wait for ---------------------------------------------------------------------------- */

enum what {
  READ_SOCKETPAIR,
  READ_PIPE,
  READ_TCP,
  READ_ACCEPTED, /* made by gof_accept */
  READ_EVENTFD,
  WRITE_SOCKETPAIR,
  WRITE_PIPE,
  WRITE_TCP,
  WRITE_ACCEPTED,
  ACCEPT,
  ACCEPT_LIMITED, /* with a timeout that is far away */
  ACCEPT_UNIX,
  CONNECT,
  CONNECT_UNIX,
  WHATS
};

/* Somebody who waits on an object. */
struct waiter {
  struct object *o;
  _Atomic(uint64_t) id; /* of the fiber that it is; 0 of a thread */
  int64_t result, ended;
  int error;
  struct task task;
};

/* What they wait on, which is `fd`, and what belongs to it. */
struct object {
  enum what what;
  int fd, other;  /* the other end, or the listener, or -1 */
  int spare;      /* the same file under another number, or -1 */
  int timeout_ms; /* of the calls that have one */
  size_t bytes;   /* of a write */
  struct sockaddr_in addr;
  struct sockaddr_un name;
  socklen_t name_bytes;
  int queue[BACKLOG_MAX], queued; /* what fills the backlog */
  int is_closed, waiters;
  struct waiter waiter[2];
};

static void make_accepted(int fds[2]) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 1);
  fds[1] = tcp_socket();
  CHECK_EQ(gof_connect(fds[1], (struct sockaddr *)&addr, sizeof addr, -1), 0);
  CHECK((fds[0] = gof_accept(listener, NULL, NULL, -1)) >= 0);
  close_fd(listener);
}

/* Makes something to connect to whose backlog is full, and a socket that is to connect to it. */
static void make_full(struct object *o) {
  int is_tcp = o->what == CONNECT;
  o->other = is_tcp ? make_listener(&o->addr, 0) : make_unix_listener(&o->name, &o->name_bytes, 0);
  o->queued = is_tcp ? fill_backlog((struct sockaddr *)&o->addr, sizeof o->addr, o->queue)
                     : fill_backlog((struct sockaddr *)&o->name, o->name_bytes, o->queue);
  o->fd = make_socket(is_tcp ? AF_INET : AF_UNIX);
}

static void make_object(struct object *o, enum what what) {
  int fds[2] = {-1, -1}, end = what >= WRITE_SOCKETPAIR && what <= WRITE_TCP;
  *o = (struct object){.what = what, .spare = -1, .timeout_ms = what == ACCEPT_LIMITED ? 60000 : -1};
  o->bytes = what == WRITE_TCP || what == WRITE_ACCEPTED ? sizeof big : 1 << 20;
  switch (what) {
  case READ_SOCKETPAIR:
  case WRITE_SOCKETPAIR: make_pair(SOCKETPAIR, fds); break;
  case READ_PIPE:
  case WRITE_PIPE: make_pair(PIPE, fds); break;
  case READ_TCP:
  case WRITE_TCP: make_pair(TCP, fds); break;
  case READ_ACCEPTED:
  case WRITE_ACCEPTED: make_accepted(fds); break;
  case READ_EVENTFD: fds[0] = eventfd(0, EFD_CLOEXEC); break;
  case ACCEPT:
  case ACCEPT_LIMITED: fds[0] = make_listener(&o->addr, 4); break;
  case ACCEPT_UNIX: fds[0] = make_unix_listener(&o->name, &o->name_bytes, 4); break;
  default: make_full(o); return;
  }
  o->fd = fds[end];
  o->other = fds[!end];
}

static void destroy_object(struct object *o) {
  if (!o->is_closed) close_fd(o->fd);
  if (o->spare >= 0) close_fd(o->spare); /* first, so that nobody is told of what happens to the other end */
  if (o->other >= 0) close_fd(o->other);
  for (int i = 0; i < o->queued; i++) close_fd(o->queue[i]);
}

static void task_wait(void *arg) {
  struct waiter *w = arg;
  struct object *o = w->o;
  char buf[8];
  atomic_store(&w->id, coir_fiber_id(NULL));
  if (o->what <= READ_EVENTFD) w->result = gof_read(o->fd, buf, sizeof buf);
  else if (o->what <= WRITE_ACCEPTED) w->result = gof_write(o->fd, big, o->bytes);
  else if (o->what <= ACCEPT_UNIX) w->result = gof_accept(o->fd, NULL, NULL, o->timeout_ms);
  else if (o->what == CONNECT)
    w->result = gof_connect(o->fd, (struct sockaddr *)&o->addr, sizeof o->addr, o->timeout_ms);
  else w->result = gof_connect(o->fd, (struct sockaddr *)&o->name, o->name_bytes, o->timeout_ms);
  w->error = errno;
  w->ended = coir_now();
}

/* Starts so many who wait for it, and who are fibers or threads. */
static void start_waiters(struct object *o, int count, enum place place) {
  o->waiters = count;
  for (int i = 0; i < count; i++) {
    o->waiter[i].o = o;
    start(&o->waiter[i].task, place, task_wait, &o->waiter[i]);
  }
}

/* ---- Closing all of them ----------------------------------------------------------------------------------------- */

enum { COPIES = 8, OBJECTS = WHATS * COPIES }; /* each by: fibers or threads; one number or two; closed or not */

struct crowd {
  struct object o[OBJECTS];
  _Atomic(int64_t) closed_at;
};

/* Who closes this one: a fiber and a thread share the work, for each kind of object and of waiter. */
static enum place closer_of(int i) { return ((i >> 1) ^ (i >> 2)) & 1 ? FIBER : THREAD; }

static void close_half(struct crowd *c, enum place place) {
  for (int i = 0; i < OBJECTS; i += 2) {
    if (closer_of(i) != place) continue;
    close_fd(c->o[i].fd);
    c->o[i].is_closed = 1;
  }
}

static void task_close_half(void *arg) { close_half(arg, gof_in_fiber() ? FIBER : THREAD); }

/* Whoever was closed under has EBADF, in time; the others wait. */
static void check_crowd(struct crowd *c) {
  for (int i = 0; i < OBJECTS; i++) {
    struct object *o = &c->o[i];
    for (int k = 0; k < o->waiters; k++) {
      struct waiter *w = &o->waiter[k];
      int is_done = atomic_load(&w->task.is_done), took = is_done ? (int)((w->ended - c->closed_at) / COIR_MS(1)) : -1;
      if (is_done != o->is_closed || (is_done && (w->result != -1 || w->error != EBADF || took > LIMIT_MS)))
        fprintf(stderr, "object %d of kind %d, waiter %d of %d: done %d, result %lld, errno %d, after %d ms\n", i,
                (int)o->what, k, o->waiters, is_done, (long long)w->result, w->error, took);
      CHECK_EQ(is_done, o->is_closed);
      if (!is_done) continue;
      CHECK_EQ(w->result, -1);
      CHECK_EQ(w->error, EBADF);
      CHECK(took <= LIMIT_MS);
    }
  }
}

static int done_count(struct object *o) {
  int n = 0;
  for (int i = 0; i < o->waiters; i++) n += atomic_load(&o->waiter[i].task.is_done);
  return n;
}

/* Lets one of those who wait for it go on. */
static void release_one(struct object *o) {
  uint64_t one = 1;
  int fd = -1;
  if (o->what == READ_EVENTFD) CHECK_EQ(gof_write(o->fd, &one, sizeof one), sizeof one);
  else if (o->what < READ_EVENTFD) CHECK_EQ(gof_write(o->other, "x", 1), 1);
  else if (o->what <= WRITE_ACCEPTED) {
    static char buf[1 << 16];
    size_t left = o->bytes;
    for (ssize_t n; left > 0; left -= (size_t)n) CHECK_SOME(n = gof_read(o->other, buf, sizeof buf));
  } else if (o->what <= ACCEPT_UNIX) {
    fd = make_socket(o->what == ACCEPT_UNIX ? AF_UNIX : AF_INET);
    if (o->what == ACCEPT_UNIX) CHECK_EQ(gof_connect(fd, (struct sockaddr *)&o->name, o->name_bytes, -1), 0);
    else CHECK_EQ(gof_connect(fd, (struct sockaddr *)&o->addr, sizeof o->addr, -1), 0);
    o->queue[o->queued++] = fd;
  }
}

/* Who waits for it goes on as it should. */
static void release_all(struct object *o) {
  for (int i = 0; i < o->waiters; i++) {
    release_one(o);
    WAIT_FOR(done_count(o) > i);
  }
  for (int i = 0; i < o->waiters; i++) {
    struct waiter *w = &o->waiter[i];
    if (o->what <= READ_EVENTFD) CHECK_EQ(w->result, o->what == READ_EVENTFD ? 8 : 1);
    else if (o->what <= WRITE_ACCEPTED) CHECK_EQ(w->result, o->bytes);
    else if (o->what <= ACCEPT_UNIX) {
      CHECK(w->result >= 0);
      close_fd((int)w->result);
    } else CHECK(w->result == -1 && w->error == ETIMEDOUT);
  }
}

static void crowd_body(void *arg) {
  (void)arg;
  static struct crowd c;
  struct task closer[2];
  allow_descriptors(4096);
  for (int i = 0; i < OBJECTS; i++) {
    struct object *o = &c.o[i];
    make_object(o, (enum what)(i / COPIES));
    if (i & 2) o->spare = duplicate(o->fd);
    int is_single = o->what >= CONNECT || (o->what >= WRITE_SOCKETPAIR && o->what <= WRITE_ACCEPTED);
    if (o->what >= CONNECT && (i & 1)) o->timeout_ms = QUIET_MS + 2000; /* nobody will let them in */
    start_waiters(o, is_single ? 1 : 2, i & 4 ? FIBER : THREAD);
  }
  gof_sleep_ms(200); /* all wait */
  atomic_store(&c.closed_at, coir_now());
  for (int i = 0; i < 2; i++) start(&closer[i], i ? FIBER : THREAD, task_close_half, &c);
  for (int i = 0; i < 2; i++) finish(&closer[i]);
  gof_sleep_ms(QUIET_MS);
  check_crowd(&c);
  for (int i = 0; i < OBJECTS; i++) {
    struct object *o = &c.o[i];
    if (!o->is_closed) release_all(o);
    for (int k = 0; k < o->waiters; k++) finish(&o->waiter[k].task);
    destroy_object(o);
  }
}

static void everybody_is_told(void) { run_fibers(crowd_body, NULL); }

/* ---- Closing with nothing else going on -------------------------------------------------------------------------- */

struct closing {
  int fd, after_ms;
  _Atomic(int64_t) closed_at;
};

static void task_close(void *arg) {
  struct closing *c = arg;
  gof_sleep_ms((uint64_t)c->after_ms);
  atomic_store(&c->closed_at, coir_now());
  close_fd(c->fd);
}

static void check_ended(const struct read_task *r, const struct closing *c) {
  CHECK_EQ(r->result, -1);
  CHECK_EQ(r->error, EBADF);
  CHECK(r->ended - c->closed_at <= COIR_MS(LIMIT_MS));
}

/* The only fiber waits, and all workers sleep. */
static void a_run_ends_when_its_last_descriptor_is_closed(void) {
  int fds[2];
  struct task reader, closer;
  make_pair(SOCKETPAIR, fds);
  struct read_task r = {.fd = fds[0]};
  struct closing c = {.fd = fds[0], .after_ms = 50};
  start(&reader, FIBER, task_read, &r);
  start(&closer, THREAD, task_close, &c);
  gof_run();
  CHECK(atomic_load(&reader.is_done));
  check_ended(&r, &c);
  finish(&closer);
  close_fd(fds[1]);
}

/* There is no fiber at all, nor a worker. */
static void a_thread_is_told_without_a_run(void) {
  int fds[2];
  struct task closer;
  make_pair(PIPE, fds);
  struct read_task r = {.fd = fds[0]};
  struct closing c = {.fd = fds[0], .after_ms = 50};
  start(&closer, THREAD, task_close, &c);
  task_read(&r);
  finish(&closer);
  check_ended(&r, &c);
  close_fd(fds[1]);
}

static void a_fiber_in_the_background_is_told(void) {
  int fds[2];
  struct task reader;
  make_pair(TCP, fds);
  struct read_task r = {.fd = fds[0]};
  struct closing c = {.fd = fds[0], .after_ms = 50};
  CHECK_EQ(gof_start_background(0), 0);
  start(&reader, FIBER, task_read, &r);
  task_close(&c);
  CHECK_EQ(gof_join_background(), 0);
  finish(&reader);
  check_ended(&r, &c);
  close_fd(fds[1]);
}

/* ---- Shutting down ----------------------------------------------------------------------------------------------- */

/* By shutdown(2) who waits is told at once, and the number stays. */
static void shutdown_body(void *helper) {
  for (int kind = 0; kind < KINDS; kind += TCP) {
    int fds[2];
    struct task t[2];
    make_pair((enum kind)kind, fds);
    fill(fds[0]);
    struct read_task r = {.fd = fds[0]};
    struct write_task w = {.fd = fds[0], .data = big, .bytes = sizeof big};
    start(&t[0], (enum place)(intptr_t)helper, task_read, &r);
    start(&t[1], (enum place)(intptr_t)helper, task_write, &w);
    let_them_wait();
    CHECK_EQ(shutdown(fds[0], SHUT_RDWR), 0);
    for (int i = 0; i < 2; i++) finish(&t[i]);
    CHECK_EQ(r.result, 0);
    CHECK_EQ(w.result, -1);
    CHECK_EQ(w.error, EPIPE);
    close_pair(fds);
  }
  struct sockaddr_in addr;
  struct accept_task a = {.fd = make_listener(&addr, 4), .timeout_ms = -1};
  struct task t;
  start(&t, (enum place)(intptr_t)helper, task_accept, &a);
  let_them_wait();
  CHECK_EQ(shutdown(a.fd, SHUT_RDWR), 0);
  finish(&t);
  CHECK_EQ(a.result, -1);
  CHECK_EQ(a.error, EINVAL); /* it listens no more */
  close_fd(a.fd);
}

static void shutting_down_ends_waits(void) {
  run_fibers(shutdown_body, (void *)FIBER);
  run_fibers(shutdown_body, (void *)THREAD);
}

/* ---- Numbers that are used again --------------------------------------------------------------------------------- */

/* Makes `fd` stand for one end of a new socketpair, at once, and returns the other end. */
static int replace(int fd, int by_dup) {
  int fds[2];
  if (by_dup) make_pair(SOCKETPAIR, fds);
  else {
    close_fd(fd);
    make_pair(SOCKETPAIR, fds);
    if (fds[0] == fd) return fds[1];
    if (fds[1] == fd) return fds[0];
  }
  rename_fd(fds[0], fd);
  return fds[1];
}

enum { REUSES = 64 };

/* The number has a new meaning before the waiter knows, and nobody waits on that. The old one's waiter gets EBADF all
 * the same, and leaves alone what the new one brings; also when the old file lives on elsewhere, and, if `is_stirred`,
 * is written to. */
static void reuse_body(void *is_stirred) {
  static struct object o[REUSES];
  static int next[REUSES];
  for (int i = 0; i < REUSES; i++) {
    make_object(&o[i], i % 4 < 2 ? READ_SOCKETPAIR : READ_ACCEPTED);
    if (i & 4) o[i].spare = duplicate(o[i].fd);
    start_waiters(&o[i], 1, i & 8 ? FIBER : THREAD);
  }
  gof_sleep_ms(50);
  int64_t replaced_at = coir_now();
  for (int i = 0; i < REUSES; i++) {
    next[i] = replace(o[i].fd, i & 1);
    CHECK_EQ(write(next[i], "new", 3), 3);
    if (is_stirred && o[i].spare >= 0) CHECK_EQ(write(o[i].other, "stale", 5), 5);
  }
  gof_sleep_ms(QUIET_MS);
  for (int i = 0; i < REUSES; i++) {
    struct waiter *w = &o[i].waiter[0];
    char buf[8];
    int is_done = atomic_load(&w->task.is_done);
    if (!is_done || w->result != -1 || w->error != EBADF)
      fprintf(stderr, "number %d: done %d, result %lld, errno %d\n", i, is_done, (long long)w->result, w->error);
    CHECK(is_done);
    CHECK_EQ(w->result, -1);
    CHECK_EQ(w->error, EBADF);
    CHECK(w->ended - replaced_at <= COIR_MS(LIMIT_MS));
    finish(&w->task);
    CHECK_EQ(recv(o[i].fd, buf, sizeof buf, MSG_DONTWAIT), 3);
    CHECK_EQ(memcmp(buf, "new", 3), 0);
    close_fd(next[i]);
    destroy_object(&o[i]);
  }
}

static void reuse_ends_old_waits(void) { run_fibers(reuse_body, NULL); }

static void old_events_do_not_reach_the_next_file(void) { run_fibers(reuse_body, (void *)1); }

/* Whether a fiber waits for a descriptor. */
static int is_waiting(struct waiter *w) {
  struct coir_fiber_info info[512];
  size_t n = coir_runtime_list(gof_runtime(), info, 512);
  for (size_t i = 0; i < n && i < 512; i++)
    if (info[i].id == w->id) return info[i].waits_for && info[i].waits_on == (uint64_t)w->o->fd;
  return 0;
}

enum { SUCCESSIONS = 150 };

/* The same with somebody new who waits at once, and with numbers that change hands again before those of former times
 * have been told: what comes for the new one reaches the new one only. */
/* None of the first `n` has been given anything. */
static void check_not_taken(struct object *o, int n) {
  for (int i = 0; i < n; i++) {
    struct waiter *w = &o[i].waiter[0];
    if (!atomic_load(&w->task.is_done) || w->result < 0) continue;
    fprintf(stderr, "waiter %d took what waiter %d should have\n", i, n - 1);
    abort();
  }
}

static void succession_body(void *is_stirred) {
  static struct object o[SUCCESSIONS];
  static int64_t replaced_at[SUCCESSIONS];
  int n = rounds(SUCCESSIONS);
  for (int i = 0; i < n; i++) {
    struct task t;
    make_object(&o[i], i % 3 ? READ_SOCKETPAIR : READ_ACCEPTED);
    if (i & 4) o[i].spare = duplicate(o[i].fd);
    int fd = o[i].fd;
    start_waiters(&o[i], 1, FIBER);
    WAIT_FOR(is_waiting(&o[i].waiter[0]));
    int next = replace(fd, i & 1);
    replaced_at[i] = coir_now();
    struct read_task r = {.fd = fd};
    start(&t, i & 8 ? FIBER : THREAD, task_read, &r);
    gof_sleep_ms(i % 5 == 0);
    if (is_stirred && o[i].spare >= 0) CHECK_EQ(write(o[i].other, "stale", 5), 5);
    if (i % 2) gof_yield();
    CHECK_EQ(gof_write(next, "new!", 4), 4);
    for (int k = 0; k < 5 && coir_event_wait(&t.ended, coir_after(COIR_SEC(1))) != 0; k++) check_not_taken(o, i + 1);
    finish(&t);
    CHECK_EQ(r.result, 4);
    CHECK_EQ(memcmp(r.buf, "new!", 4), 0);
    close_fd(next);
    destroy_object(&o[i]);
  }
  for (int i = 0; i < n; i++) {
    struct waiter *w = &o[i].waiter[0];
    finish(&w->task);
    if (w->result != -1) fprintf(stderr, "waiter %d got %lld bytes\n", i, (long long)w->result);
    CHECK_EQ(w->result, -1);
    CHECK_EQ(w->error, EBADF);
    CHECK(w->ended - replaced_at[i] <= COIR_MS(LIMIT_MS));
  }
}

static void new_waiters_take_over(void) { run_fibers(succession_body, NULL); }

static void old_events_do_not_reach_new_waiters(void) { run_fibers(succession_body, (void *)1); }

/* A number that was waited on before, and means something else now, of the same kind or another one. */
static void no_waiters_body(void *arg) {
  (void)arg;
  for (int i = 0; i < rounds(600); i++) {
    int old[2], new[2], spare = -1;
    struct task t;
    make_pair((enum kind)(i % KINDS), old);
    struct read_task r = {.fd = old[0]};
    start(&t, i % 4 ? FIBER : THREAD, task_read, &r);
    gof_yield();
    CHECK_EQ(gof_write(old[1], "old", 3), 3);
    finish(&t);
    CHECK_EQ(r.result, 3);
    if (i % 2) spare = duplicate(old[0]); /* keeps the file, and what watches it, alive */
    make_pair((enum kind)(i / KINDS % KINDS), new);
    rename_fd(new[0], old[0]);
    start(&t, i % 5 ? FIBER : THREAD, task_read, &r);
    if (i % 7) gof_yield();
    if (spare >= 0) CHECK_EQ(gof_write(old[1], "stale", 5), 5);
    CHECK_EQ(gof_write(new[1], "new!", 4), 4);
    finish(&t);
    CHECK_EQ(r.result, 4);
    CHECK_EQ(memcmp(r.buf, "new!", 4), 0);
    if (spare >= 0) close_fd(spare);
    close_pair(old);
    close_fd(new[1]);
  }
}

static void numbers_change_their_meaning(void) { run_fibers(no_waiters_body, NULL); }

/* A number becomes a file, a listener and a socket again. */
static void kinds_body(void *arg) {
  (void)arg;
  for (int i = 0; i < 50; i++) {
    struct object o;
    struct task t;
    char buf[8];
    make_object(&o, READ_ACCEPTED);
    struct read_task r = {.fd = o.fd};
    start(&t, FIBER, task_read, &r);
    gof_yield();
    CHECK_EQ(gof_write(o.other, "x", 1), 1);
    finish(&t);
    rename_fd(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), o.fd);
    CHECK_EQ(gof_read(o.fd, buf, 4), 4);
    CHECK_EQ(memcmp(buf, "\177ELF", 4), 0);
    rename_fd(make_listener(&o.addr, 4), o.fd);
    CHECK_FAILS(gof_accept(o.fd, NULL, NULL, 1), ETIMEDOUT);
    CHECK_FAILS(gof_read(o.fd, buf, 4), ENOTCONN);
    int next = replace(o.fd, i & 1);
    start(&t, FIBER, task_read, &r);
    gof_yield();
    CHECK_EQ(gof_write(next, "yz", 2), 2);
    finish(&t);
    CHECK_EQ(r.result, 2);
    close_fd(next);
    destroy_object(&o);
  }
}

static void numbers_change_their_kind(void) { run_fibers(kinds_body, NULL); }

/* ---- All at once ------------------------------------------------------------------------------------------------- */

static void task_echo(void *arg) {
  int fd = *(int *)arg;
  char buf[64];
  for (ssize_t n; (n = gof_read(fd, buf, sizeof buf)) != 0;) {
    CHECK_SOME(n);
    CHECK_EQ(gof_write(fd, buf, (size_t)n), n);
  }
}

/* Opens, talks and closes, while others get the numbers that it gives up. Each hears its own words only. */
static void task_churn(void *arg) {
  char out[16], in[64];
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)arg + 1);
  for (int i = 0; i < rounds(100); i++) {
    int fds[2];
    struct task t;
    make_pair(rng_next(&rng) % 4 ? SOCKETPAIR : TCP, fds);
    start(&t, rng_next(&rng) % 8 ? FIBER : THREAD, task_echo, &fds[1]);
    for (int k = 0; k < 3; k++) {
      int bytes = snprintf(out, sizeof out, "%d.%d.%d", (int)(intptr_t)arg, i, k), got = 0;
      if (rng_next(&rng) % 4 == 0) gof_yield();
      CHECK_EQ(gof_write(fds[0], out, (size_t)bytes), bytes);
      for (ssize_t n; got < bytes; got += (int)n) CHECK_SOME(n = gof_read(fds[0], in + got, sizeof in - (size_t)got));
      CHECK_EQ(got, bytes);
      CHECK_EQ(memcmp(in, out, (size_t)bytes), 0);
    }
    if (rng_next(&rng) % 2) CHECK_EQ(shutdown(fds[0], SHUT_WR), 0); /* nobody reads here: it may be closed */
    close_fd(fds[0]);
    finish(&t);
    close_fd(fds[1]);
  }
}

static void many_open_and_close(void) {
  enum { N = 16 };
  static struct task t[N];
  CHECK_EQ(gof_start_background(0), 0);
  for (int i = 0; i < N; i++) start(&t[i], i % 8 ? FIBER : THREAD, task_churn, (void *)(intptr_t)i);
  for (int i = 0; i < N; i++) finish(&t[i]);
  CHECK_EQ(gof_join_background(), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(everybody_is_told),
      CASE(a_run_ends_when_its_last_descriptor_is_closed),
      CASE(a_thread_is_told_without_a_run),
      CASE(a_fiber_in_the_background_is_told),
      CASE(shutting_down_ends_waits),
      CASE(reuse_ends_old_waits),
      CASE(old_events_do_not_reach_the_next_file),
      CASE(new_waiters_take_over),
      CASE(old_events_do_not_reach_new_waiters),
      CASE(numbers_change_their_meaning),
      CASE(numbers_change_their_kind),
      CASE(many_open_and_close),
  };
  return RUN_CASES(argc, argv, cases);
}
