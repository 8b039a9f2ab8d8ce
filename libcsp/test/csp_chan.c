/* Channels of libcsp (chan.h): every call on goroutines and plain threads, who waits for whom and in which order, what
 * closing does, channels that are not there, and that nothing is lost or doubled among thousands of goroutines. */
#include "csp_places.h"

#include "libgo/fiber_chan.h"

#define UNTOUCHED ((void *)(uintptr_t)0xdeadbeef)

static csp_gochan_t *make(size_t cap) {
  csp_gochan_t *ch = csp_gochan_new(cap);
  CHECK(ch != NULL);
  CHECK_EQ(csp_gochan_cap(ch), cap);
  CHECK_EQ(csp_gochan_len(ch), 0);
  return ch;
}

/* There is a value, and it is `n`. */
static void expect(csp_gochan_t *ch, uintptr_t n) {
  bool ok = false;
  void *v = csp_gochan_recv(ch, &ok);
  CHECK(ok);
  CHECK_EQ((uintptr_t)v, n);
}

/* It is closed and empty. */
static void expect_end(csp_gochan_t *ch) {
  for (int i = 0; i < 2; i++) {
    bool ok = true, tried = true;
    void *v = UNTOUCHED;
    CHECK(csp_gochan_recv(ch, &ok) == NULL);
    CHECK(!ok);
    CHECK(csp_gochan_recv(ch, NULL) == NULL);
    CHECK(csp_gochan_try_recv(ch, &v, &tried));
    CHECK(v == NULL && !tried);
    CHECK(csp_gochan_try_recv(ch, NULL, NULL));
    CHECK(!csp_gochan_send(ch, number(1)));
    CHECK(!csp_gochan_try_send(ch, number(1)));
    CHECK_EQ(csp_gochan_len(ch), 0);
  }
}

/* ---- Without waiting ------------------------------------------------------------------------------------------- */

EVERYWHERE(what_cannot_be_made_is_no_memory) {
  static const size_t caps[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / sizeof(void *), SIZE_MAX / sizeof(void *) - 1};
  for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
    errno = 0;
    CHECK(csp_gochan_new(caps[i]) == NULL);
    CHECK_EQ(errno, ENOMEM);
  }
}

EVERYWHERE(values_leave_in_the_order_they_came) {
  for (size_t cap = 1; cap < 6; cap++) {
    csp_gochan_t *ch = make(cap);
    uintptr_t in = 1, out = 1;
    for (int round = 0; round < 20; round++) {
      while (in - out < cap) {
        CHECK(in % 2 ? csp_gochan_send(ch, number(in)) : csp_gochan_try_send(ch, number(in)));
        CHECK_EQ(csp_gochan_len(ch), ++in - out);
      }
      CHECK(!csp_gochan_try_send(ch, number(99)));
      CHECK_EQ(csp_gochan_len(ch), cap);
      for (size_t left = (size_t)round % cap; in - out > left;) {
        expect(ch, out);
        CHECK_EQ(csp_gochan_len(ch), in - ++out);
      }
    }
    CHECK_EQ(csp_gochan_cap(ch), cap);
    csp_gochan_free(ch); /* with what it buffers */
  }
}

EVERYWHERE(any_pointer_is_a_value) {
  csp_gochan_t *ch = make(4);
  bool ok = false;
  void *v = UNTOUCHED;
  CHECK(csp_gochan_send(ch, NULL));
  CHECK(csp_gochan_try_send(ch, NULL));
  CHECK(csp_gochan_send(ch, number(UINTPTR_MAX)));
  CHECK(csp_gochan_send(ch, ch));
  CHECK_EQ(csp_gochan_len(ch), 4);
  CHECK(csp_gochan_recv(ch, &ok) == NULL);
  CHECK(ok); /* this is no closed channel */
  ok = false;
  CHECK(csp_gochan_try_recv(ch, &v, &ok));
  CHECK(v == NULL && ok);
  expect(ch, UINTPTR_MAX);
  CHECK(csp_gochan_recv(ch, NULL) == ch);
  csp_gochan_free(ch);
}

EVERYWHERE(trying_does_not_wait) {
  csp_gochan_t *none = make(0), *one = make(1);
  void *v = UNTOUCHED;
  bool ok = true, not_ok = false;
  CHECK(!csp_gochan_try_send(none, number(1)));
  CHECK(!csp_gochan_try_recv(none, &v, &ok));
  CHECK(!csp_gochan_try_recv(one, &v, &not_ok));
  CHECK(!csp_gochan_try_recv(one, NULL, NULL));
  CHECK(v == UNTOUCHED && ok && !not_ok); /* nothing was stored */
  CHECK(csp_gochan_try_send(one, number(2)));
  CHECK(!csp_gochan_try_send(one, number(3)));
  ok = false;
  CHECK(csp_gochan_try_recv(one, &v, &ok));
  CHECK(v == number(2) && ok);
  for (int wants = 0; wants < 4; wants++) { /* each result may be left out */
    v = UNTOUCHED;
    ok = false;
    CHECK(csp_gochan_try_send(one, number(4)));
    CHECK(csp_gochan_try_recv(one, wants & 1 ? &v : NULL, wants & 2 ? &ok : NULL));
    CHECK(v == (wants & 1 ? number(4) : UNTOUCHED) && ok == (wants >= 2));
    CHECK_EQ(csp_gochan_len(one), 0);
  }
  csp_gochan_free(none);
  csp_gochan_free(one);
}

EVERYWHERE(closing_keeps_what_is_buffered) {
  csp_gochan_t *ch = make(100);
  for (uintptr_t i = 0; i < 60; i++) CHECK(csp_gochan_send(ch, number(i)));
  csp_gochan_close(ch);
  CHECK(!csp_gochan_send(ch, number(99)));
  csp_gochan_close(ch);
  CHECK(!csp_gochan_try_send(ch, number(99)));
  CHECK_EQ(csp_gochan_len(ch), 60);
  for (uintptr_t i = 0; i < 60; i++) {
    if (i % 2) {
      void *v = UNTOUCHED;
      bool ok = false;
      CHECK(csp_gochan_try_recv(ch, &v, &ok));
      CHECK(v == number(i) && ok);
    } else {
      expect(ch, i);
    }
  }
  expect_end(ch);
  csp_gochan_close(ch);
  expect_end(ch);
  CHECK_EQ(csp_gochan_cap(ch), 100);
  csp_gochan_free(ch);
  ch = make(0);
  csp_gochan_close(ch);
  csp_gochan_close(ch);
  expect_end(ch);
  csp_gochan_free(ch);
}

EVERYWHERE(null_is_no_channel) {
  void *v = UNTOUCHED;
  bool ok = true;
  csp_gochan_close(NULL);
  csp_gochan_free(NULL);
  CHECK(!csp_gochan_try_send(NULL, number(1)));
  CHECK(!csp_gochan_try_recv(NULL, &v, &ok));
  CHECK(!csp_gochan_try_recv(NULL, NULL, NULL));
  CHECK(v == UNTOUCHED && ok);
  CHECK_EQ(csp_gochan_len(NULL), 0);
  CHECK_EQ(csp_gochan_cap(NULL), 0);
}

/* As programs that are not C, or not optimised, call it. */
EVERYWHERE(the_functions_of_the_library_do_the_same) {
  static bool (*volatile send)(csp_gochan_t *, void *) = csp_gochan_send;
  static void *(*volatile recv)(csp_gochan_t *, bool *) = csp_gochan_recv;
  static bool (*volatile try_send)(csp_gochan_t *, void *) = csp_gochan_try_send;
  static bool (*volatile try_recv)(csp_gochan_t *, void **, bool *) = csp_gochan_try_recv;
  csp_gochan_t *ch = make(2);
  void *v = UNTOUCHED;
  bool ok = true;
  CHECK(!try_recv(ch, &v, &ok));
  CHECK(!try_send(NULL, ch) && !try_recv(NULL, &v, &ok));
  CHECK(v == UNTOUCHED && ok);
  CHECK(send(ch, number(1)) && try_send(ch, number(2)) && !try_send(ch, number(3)));
  ok = false;
  CHECK(recv(ch, &ok) == number(1) && ok);
  ok = false;
  CHECK(try_recv(ch, &v, &ok));
  CHECK(v == number(2) && ok);
  CHECK(send(ch, number(3)) && send(ch, number(4)));
  csp_gochan_close(ch);
  CHECK(recv(ch, NULL) == number(3) && try_recv(ch, NULL, NULL));
  CHECK(!send(ch, number(5)) && !try_send(ch, number(5)));
  CHECK(recv(ch, &ok) == NULL && !ok);
  ok = true;
  CHECK(try_recv(ch, &v, &ok));
  CHECK(v == NULL && !ok);
  CHECK(recv(ch, NULL) == NULL && try_recv(ch, NULL, NULL));
  csp_gochan_free(ch);
}

static void fills(chan_send_only(int) out, int *what) {
  CHECK(csp_gochan_send(out, what));
  csp_gochan_close(out);
}

static int *drains(chan_recv_only(int) in) { return csp_gochan_recv(in, NULL); }

EVERYWHERE(directions_are_channels) {
  int what = 3;
  chan_send_only(int) out = make(1);
  chan_recv_only(int) in = out;
  fills(out, &what);
  CHECK_EQ(*drains(in), 3);
  CHECK(drains(in) == NULL);
  csp_gochan_free(in);
}

/* ---- Two parties ----------------------------------------------------------------------------------------------- */

/* One call, and what came of it. */
struct call {
  csp_gochan_t *ch;
  void *value; /* to send; was received */
  bool ok;
  _Atomic(int) done;
  int order; /* this one was the nth to be done */
};

static _Atomic(int) calls_done;

static void call_ended(struct call *c) {
  c->order = atomic_fetch_add(&calls_done, 1);
  atomic_store(&c->done, 1);
}

static void call_send(void *arg) {
  struct call *c = arg;
  c->ok = csp_gochan_send(c->ch, c->value);
  call_ended(c);
}

static void call_recv(void *arg) {
  struct call *c = arg;
  c->value = csp_gochan_recv(c->ch, &c->ok);
  call_ended(c);
}

static void call_recv_blindly(void *arg) {
  struct call *c = arg;
  c->ok = false;
  c->value = csp_gochan_recv(c->ch, NULL);
  call_ended(c);
}

static void call_try_send(void *arg) {
  struct call *c = arg;
  WAIT_FOR(csp_gochan_try_send(c->ch, c->value));
  c->ok = true;
  call_ended(c);
}

static void call_try_recv(void *arg) {
  struct call *c = arg;
  WAIT_FOR(csp_gochan_try_recv(c->ch, &c->value, &c->ok));
  call_ended(c);
}

static void call_close(void *arg) {
  struct call *c = arg;
  csp_gochan_close(c->ch);
  call_ended(c);
}

static void without_room_a_send_ends_when_taken(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    for (int tries = 0; tries < 2; tries++) {
      csp_gochan_t *ch = make(0);
      int written = 0;
      struct task sender;
      struct call send = {.ch = ch, .value = &written}, recv = {.ch = ch};
      written = 7; /* the receiver sees this */
      start(&sender, a, call_send, &send);
      until_task_waits(&sender);
      CHECK_EQ(send.done, 0);
      CHECK_EQ(csp_gochan_len(ch), 0);
      run_at(b, tries ? call_try_recv : call_recv, &recv);
      finish(&sender);
      CHECK(send.ok && recv.ok && recv.value == &written);
      CHECK_EQ(*(int *)recv.value, 7);
      csp_gochan_free(ch);
    }
  }
}

static void a_receiver_waits_for_a_value(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    for (int kind = 0; kind < 4; kind++) {
      csp_gochan_t *ch = make(kind & 1 ? 2 : 0);
      struct task receiver;
      struct call recv = {.ch = ch, .value = UNTOUCHED}, send = {.ch = ch, .value = kind ? number(5) : NULL};
      start(&receiver, a, kind == 3 ? call_recv_blindly : call_recv, &recv);
      until_task_waits(&receiver);
      CHECK_EQ(recv.done, 0);
      run_at(b, kind & 2 ? call_try_send : call_send, &send);
      finish(&receiver);
      CHECK(recv.value == send.value && send.ok && recv.ok == (kind != 3));
      CHECK_EQ(csp_gochan_len(ch), 0); /* it did not stay in the buffer, too */
      csp_gochan_free(ch);
    }
  }
}

static void a_full_channel_makes_room_in_order(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    csp_gochan_t *ch = make(2);
    struct task sender;
    struct call send = {.ch = ch, .value = number(3)}, recv = {.ch = ch};
    CHECK(csp_gochan_send(ch, number(1)));
    CHECK(csp_gochan_send(ch, number(2)));
    start(&sender, a, call_send, &send);
    until_task_waits(&sender);
    CHECK_EQ(send.done, 0);
    run_at(b, call_recv, &recv);
    CHECK(recv.ok && recv.value == number(1));
    finish(&sender);
    CHECK(send.ok);
    CHECK_EQ(csp_gochan_len(ch), 2);
    expect(ch, 2);
    expect(ch, 3);
    csp_gochan_free(ch);
  }
}

/* What a sender that is let go wanted to send is not in the channel, neither then nor later. */
static void closing_refuses_a_sender_that_waits(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    for (size_t cap = 0; cap < 3; cap++) {
      csp_gochan_t *ch = make(cap);
      struct task sender;
      struct call send = {.ch = ch, .value = number(9), .ok = true}, close = {.ch = ch};
      for (uintptr_t i = 0; i < cap; i++) CHECK(csp_gochan_send(ch, number(i)));
      start(&sender, a, call_send, &send);
      until_task_waits(&sender);
      CHECK_EQ(send.done, 0);
      run_at(b, call_close, &close);
      finish(&sender);
      CHECK(!send.ok);
      CHECK_EQ(csp_gochan_len(ch), cap);
      for (uintptr_t i = 0; i < cap; i++) expect(ch, i);
      expect_end(ch);
      csp_gochan_free(ch);
    }
  }
}

static void closing_lets_a_receiver_go(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    for (int kind = 0; kind < 4; kind++) {
      csp_gochan_t *ch = make(kind & 1 ? 2 : 0);
      struct task receiver;
      struct call recv = {.ch = ch, .value = UNTOUCHED, .ok = true}, close = {.ch = ch};
      start(&receiver, a, kind & 2 ? call_recv_blindly : call_recv, &recv);
      until_task_waits(&receiver);
      CHECK_EQ(recv.done, 0);
      run_at(b, call_close, &close);
      finish(&receiver);
      CHECK(recv.value == NULL && !recv.ok);
      expect_end(ch);
      csp_gochan_free(ch);
    }
  }
}

/* ---- Many that wait -------------------------------------------------------------------------------------------- */

enum { CROWD = 30 };

static struct task crowd[CROWD];
static struct call calls[CROWD];

/* Goroutines of which each waits before the next begins. */
static void queue_up(csp_gochan_t *ch, void (*fn)(void *)) {
  atomic_store(&calls_done, 0);
  for (uintptr_t i = 0; i < CROWD; i++) {
    calls[i] = (struct call){.ch = ch, .value = number(100 + i)};
    start(&crowd[i], ON_GOROUTINE, fn, &calls[i]);
    until_waiting((int)i + 1);
  }
}

static void finish_crowd(void) {
  for (int i = 0; i < CROWD; i++) finish(&crowd[i]);
}

static void who_sends_first_is_served_first(void **state) {
  (void)state;
  for (size_t cap = 0; cap < 4; cap++) {
    csp_gochan_t *ch = make(cap);
    for (uintptr_t i = 0; i < cap; i++) CHECK(csp_gochan_send(ch, number(i)));
    queue_up(ch, call_send);
    for (uintptr_t i = 0; i < cap; i++) expect(ch, i);
    for (int i = 0; i < CROWD; i++) {
      WAIT_FOR(atomic_load(&calls_done) == (i + (int)cap < CROWD ? i + (int)cap : CROWD));
      expect(ch, 100 + (uintptr_t)i);
    }
    finish_crowd();
    for (int i = 0; i < CROWD; i++) CHECK(calls[i].ok);
    csp_gochan_free(ch);
  }
}

static void who_receives_first_is_served_first(void **state) {
  (void)state;
  for (size_t cap = 0; cap < 4; cap += 3) {
    csp_gochan_t *ch = make(cap);
    queue_up(ch, call_recv);
    for (int i = 0; i < CROWD; i++) {
      CHECK(i % 2 ? csp_gochan_send(ch, number((uintptr_t)i)) : csp_gochan_try_send(ch, number((uintptr_t)i)));
      WAIT_FOR(atomic_load(&calls_done) == i + 1);
    }
    finish_crowd();
    for (int i = 0; i < CROWD; i++) {
      CHECK(calls[i].ok && calls[i].value == number((uintptr_t)i));
      CHECK_EQ(calls[i].order, i);
    }
    csp_gochan_free(ch);
  }
}

static void closing_lets_all_go(void **state) {
  (void)state;
  for (int sends = 0; sends < 2; sends++) {
    for (size_t cap = 0; cap < 4; cap += 3) {
      csp_gochan_t *ch = make(cap);
      for (uintptr_t i = 0; sends && i < cap; i++) CHECK(csp_gochan_send(ch, number(i)));
      queue_up(ch, sends ? call_send : call_recv);
      csp_gochan_close(ch);
      finish_crowd();
      for (int i = 0; i < CROWD; i++) {
        CHECK(!calls[i].ok);
        CHECK(sends || calls[i].value == NULL);
      }
      for (uintptr_t i = 0; sends && i < cap; i++) expect(ch, i);
      expect_end(ch);
      csp_gochan_free(ch);
    }
  }
}

/* ---- No channel ------------------------------------------------------------------------------------------------ */

static _Atomic(int) came_to_wait, came_back;

static void sends_to_nobody(void *arg) {
  atomic_fetch_add(&came_to_wait, 1);
  CHECK(!csp_gochan_send(NULL, arg));
  atomic_fetch_add(&came_back, 1);
}

static void receives_from_nobody(void *arg) {
  bool ok = true;
  atomic_fetch_add(&came_to_wait, 1);
  CHECK(csp_gochan_recv(NULL, arg ? NULL : &ok) == NULL);
  CHECK(arg || !ok);
  atomic_fetch_add(&came_back, 1);
}

static void *thread_sends_to_nobody(void *arg) { return sends_to_nobody(arg), NULL; }
static void *thread_receives_from_nobody(void *arg) { return receives_from_nobody(arg), NULL; }

/* The threads wait until the process ends. The fibers are asked to stop: else nothing would end this. */
static void no_channel_is_waited_for_for_ever(void **state) {
  struct coir_fiber *fibers[3] = {spawn_beside(sends_to_nobody, NULL), spawn_beside(receives_from_nobody, NULL),
                                  spawn_beside(receives_from_nobody, fibers)};
  pthread_t threads[2];
  (void)state;
  CHECK_EQ(pthread_create(&threads[0], NULL, thread_sends_to_nobody, NULL), 0);
  CHECK_EQ(pthread_create(&threads[1], NULL, thread_receives_from_nobody, NULL), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_detach(threads[i]), 0);
  WAIT_FOR(atomic_load(&came_to_wait) == 5);
  until_waiting(3);
  CHECK_EQ(coir_sleep(COIR_MS(30)), 0);
  CHECK_EQ(came_back, 0);
  until_waiting(3);
  for (int i = 0; i < 3; i++) CHECK_EQ(coir_cancel(fibers[i]), 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(came_back, 3);
}

/* A fiber of Coir's that is asked to stop while it waits has sent, or received, nothing. */
static void who_is_canceled_has_done_nothing(void **state) {
  (void)state;
  for (int sends = 0; sends < 2; sends++) {
    csp_gochan_t *ch = make(0);
    struct call c = {.ch = ch, .value = number(3), .ok = true};
    struct coir_fiber *f = spawn_beside(sends ? call_send : call_recv, &c);
    until_waiting(1);
    CHECK_EQ(coir_cancel(f), 0);
    CHECK_EQ(join(f), 0);
    CHECK(!c.ok);
    CHECK(sends || c.value == NULL);
    CHECK(sends ? !csp_gochan_try_recv(ch, NULL, NULL) : !csp_gochan_try_send(ch, NULL));
    csp_gochan_free(ch);
  }
}

/* ---- Coir's calls, and go_fiber's, on the same channel --------------------------------------------------------- */

EVERYWHERE(other_calls_work_on_it) {
  csp_gochan_t *ch = make(3);
  struct coir_chan *c = (struct coir_chan *)ch;
  gof_chan_t *g = (gof_chan_t *)ch;
  void *v = number(1);
  CHECK_EQ(coir_chan_send(c, &v, COIR_NEVER), 0);
  CHECK(csp_gochan_send(ch, number(2)));
  CHECK_EQ(gof_chan_send(g, number(3)), 0);
  CHECK_EQ(coir_chan_length(c), 3);
  CHECK_EQ(coir_chan_capacity(c), 3);
  CHECK_EQ(coir_chan_send(c, &v, coir_after(COIR_MS(1))), -ETIMEDOUT);
  expect(ch, 1);
  CHECK_EQ(gof_chan_recv(g, &v), 0);
  CHECK(v == number(2));
  CHECK_EQ(coir_chan_recv(c, &v, COIR_NEVER), 0);
  CHECK(v == number(3));
  CHECK(!coir_chan_is_closed(c));
  coir_chan_ref(c);
  csp_gochan_free(ch); /* one reference less */
  csp_gochan_close(ch);
  CHECK(coir_chan_is_closed(c));
  CHECK_EQ(coir_chan_recv(c, &v, COIR_NEVER), -EPIPE);
  coir_chan_unref(c);

  c = coir_chan_create(sizeof(void *), 0);
  coir_chan_close(c);
  expect_end((csp_gochan_t *)c);
  csp_gochan_free((csp_gochan_t *)c);
}

/* One side on a fiber of the default runtime of Coir's, by Coir's calls. */
enum { MESSAGES = 200 };
static csp_gochan_t *to_coir, *from_coir;

static int coir_side(void *arg) {
  (void)arg;
  for (;;) {
    void *v;
    int rc = coir_chan_recv((struct coir_chan *)to_coir, &v, COIR_NEVER);
    if (rc == -EPIPE) break;
    CHECK_EQ(rc, 0);
    v = number((uintptr_t)v * 2);
    CHECK_EQ(coir_chan_send((struct coir_chan *)from_coir, &v, COIR_NEVER), 0);
  }
  coir_chan_close((struct coir_chan *)from_coir);
  return 0;
}

static void csp_side(void *arg) {
  (void)arg;
  for (uintptr_t i = 0; i < MESSAGES; i++) {
    CHECK(csp_gochan_send(to_coir, number(i)));
    expect(from_coir, 2 * i);
  }
  csp_gochan_close(to_coir);
  expect_end(from_coir);
}

static void another_runtime_may_be_at_the_other_end(void **state) {
  (void)state;
  for (enum place place = ON_MAIN; place < PLACES; place++) {
    struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
    to_coir = make(0);
    from_coir = make(1);
    CHECK_EQ(coir_runtime_start(rt), 0);
    CHECK_EQ(coir_runtime_spawn(rt, coir_side, NULL, NULL, NULL), 0);
    run_at(place, csp_side, NULL);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    csp_gochan_free(to_coir);
    csp_gochan_free(from_coir);
  }
}

/* ---- Many producers and consumers ------------------------------------------------------------------------------ */

enum { PRODUCERS = 8, CONSUMERS = 8 };

/* Each value is a struct message that its producer allocates and writes, and its consumer reads and frees. */
struct message {
  int from, count;
};

struct party {
  csp_gochan_t *ch;
  int me, count;
  int received[PRODUCERS]; /* of a consumer */
};

static void produces(void *arg) {
  struct party *p = arg;
  for (int i = 1; i <= p->count; i++) {
    struct message *m = malloc(sizeof *m);
    CHECK(m != NULL);
    *m = (struct message){p->me, i};
    if (i % 5 || !csp_gochan_try_send(p->ch, m)) CHECK(csp_gochan_send(p->ch, m));
  }
}

/* What one producer sends comes in order. */
static void consumes(void *arg) {
  struct party *p = arg;
  int last[PRODUCERS] = {0};
  for (int i = 0;; i++) {
    bool ok = false;
    void *v = NULL;
    if (i % 5 || !csp_gochan_try_recv(p->ch, &v, &ok)) v = csp_gochan_recv(p->ch, &ok);
    CHECK_EQ(ok, v != NULL);
    if (!ok) break;
    struct message m = *(struct message *)v;
    free(v);
    CHECK(m.count > last[m.from]);
    last[m.from] = m.count;
    p->received[m.from]++;
  }
}

static void goroutines_and_threads_share_a_channel(void **state) {
  static const size_t caps[] = {0, 1, 16};
  (void)state;
  for (size_t k = 0; k < sizeof caps / sizeof *caps; k++) {
    csp_gochan_t *ch = make(caps[k]);
    struct task tasks[PRODUCERS + CONSUMERS];
    struct party parties[PRODUCERS + CONSUMERS] = {{0}};
    int count = rounds(2000);
    for (int i = 0; i < PRODUCERS + CONSUMERS; i++) {
      bool is_producer = i < PRODUCERS;
      parties[i] = (struct party){.ch = ch, .me = i, .count = count};
      start(&tasks[i], i % 4 == 3 ? ON_THREAD : ON_GOROUTINE, is_producer ? produces : consumes, &parties[i]);
    }
    for (int i = 0; i < PRODUCERS; i++) finish(&tasks[i]);
    csp_gochan_close(ch);
    for (int i = PRODUCERS; i < PRODUCERS + CONSUMERS; i++) finish(&tasks[i]);
    for (int from = 0; from < PRODUCERS; from++) {
      int sum = 0;
      for (int i = PRODUCERS; i < PRODUCERS + CONSUMERS; i++) sum += parties[i].received[from];
      CHECK_EQ(sum, count);
    }
    csp_gochan_free(ch);
  }
}

/* Closing while all are at it: what was sent, and that alone, was received. */
enum { HERD = 12 };
static _Atomic(long) sent_sum, sent_count, received_sum, received_count;

static void sends_until_closed(void *arg) {
  long n = 0, sum = 0;
  uintptr_t value = 1;
  for (; csp_gochan_send(arg, number(value)); n++) sum += (long)value, value = value * 31 % 1009;
  atomic_fetch_add(&sent_count, n);
  atomic_fetch_add(&sent_sum, sum);
}

static void receives_until_closed(void *arg) {
  for (bool ok;;) {
    uintptr_t value = (uintptr_t)csp_gochan_recv(arg, &ok);
    if (!ok) break;
    atomic_fetch_add(&received_count, 1);
    atomic_fetch_add(&received_sum, (long)value);
  }
}

static void closing_in_the_middle_loses_nothing(void **state) {
  (void)state;
  for (int round = 0; round < rounds(60); round++) {
    csp_gochan_t *ch = make((size_t)round % 3);
    struct task herd[2 * HERD];
    sent_sum = sent_count = received_sum = received_count = 0;
    for (int i = 0; i < 2 * HERD; i++)
      start(&herd[i], i / 2 % 4 == 3 ? ON_THREAD : ON_GOROUTINE, i % 2 ? sends_until_closed : receives_until_closed,
            ch);
    long enough = 1 + 7 * (long)round;
    WAIT_FOR(atomic_load(&received_count) >= enough);
    csp_gochan_close(ch);
    for (int i = 0; i < 2 * HERD; i++) finish(&herd[i]);
    CHECK_EQ(received_count, sent_count);
    CHECK_EQ(received_sum, sent_sum);
    expect_end(ch);
    csp_gochan_free(ch);
  }
}

/* A channel may be freed as soon as its last value has come. */
static void sends_one(void *arg) { CHECK(csp_gochan_send(arg, arg)); }

static void who_has_the_last_value_may_free(void **state) {
  (void)state;
  for (int i = 0; i < rounds(2000); i++) {
    csp_gochan_t *ch = make(i & 1 ? 1 : 0);
    CHECK(csp_proc_create(0, sends_one, ch) != NULL);
    CHECK(csp_gochan_recv(ch, NULL) == ch);
    csp_gochan_free(ch);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_cannot_be_made_is_no_memory),
      cmocka_unit_test(values_leave_in_the_order_they_came),
      cmocka_unit_test(any_pointer_is_a_value),
      cmocka_unit_test(trying_does_not_wait),
      cmocka_unit_test(closing_keeps_what_is_buffered),
      cmocka_unit_test(null_is_no_channel),
      cmocka_unit_test(the_functions_of_the_library_do_the_same),
      cmocka_unit_test(directions_are_channels),
      cmocka_unit_test(without_room_a_send_ends_when_taken),
      cmocka_unit_test(a_receiver_waits_for_a_value),
      cmocka_unit_test(a_full_channel_makes_room_in_order),
      cmocka_unit_test(closing_refuses_a_sender_that_waits),
      cmocka_unit_test(closing_lets_a_receiver_go),
      cmocka_unit_test(who_sends_first_is_served_first),
      cmocka_unit_test(who_receives_first_is_served_first),
      cmocka_unit_test(closing_lets_all_go),
      cmocka_unit_test(no_channel_is_waited_for_for_ever),
      cmocka_unit_test(who_is_canceled_has_done_nothing),
      cmocka_unit_test(other_calls_work_on_it),
      cmocka_unit_test(another_runtime_may_be_at_the_other_end),
      cmocka_unit_test(goroutines_and_threads_share_a_channel),
      cmocka_unit_test(closing_in_the_middle_loses_nothing),
      cmocka_unit_test(who_has_the_last_value_may_free),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
