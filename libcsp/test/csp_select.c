/* Select of libcsp (chan.h): each operation ready at once and later, the default, closed and missing channels, a select
 * that must not meet itself, one to a million cases, the macros, fairness, and that nothing is lost or doubled among
 * thousands of goroutines that select. */
#include "csp_places.h"

#include <signal.h>
#include <sys/resource.h>

#define UNTOUCHED ((void *)(uintptr_t)0xdeadbeef)

static csp_gochan_t *make(size_t cap) {
  csp_gochan_t *ch = csp_gochan_new(cap);
  CHECK(ch != NULL);
  return ch;
}

static csp_gochan_t *make_closed(void) {
  csp_gochan_t *ch = make(1);
  csp_gochan_close(ch);
  return ch;
}

static csp_select_case_t receives(csp_gochan_t *ch, void **where) {
  return (csp_select_case_t){.ch = ch, .op = CSP_RECV, .val = where};
}

static csp_select_case_t sends(csp_gochan_t *ch, uintptr_t n) {
  return (csp_select_case_t){.ch = ch, .op = CSP_SEND, .val = (void **)n};
}

static const csp_select_case_t or_else = {.op = CSP_DEFAULT};

/* Selects in either form; the channel that it finds is closed or not as `open` says. */
static int select_of(csp_select_case_t *cases, int n, bool open) {
  static _Atomic(int) turn;
  bool ok = !open;
  if (atomic_fetch_add(&turn, 1) % 3 == 0) return csp_select(cases, n);
  int i = csp_select_ok(cases, n, &ok);
  CHECK_EQ(ok, open);
  return i;
}

/* There is a value at once, and it is `n`. */
static void expect(csp_gochan_t *ch, uintptr_t n) {
  void *v = UNTOUCHED;
  bool ok = false;
  CHECK(csp_gochan_try_recv(ch, &v, &ok));
  CHECK(ok);
  CHECK_EQ((uintptr_t)v, n);
}

/* ---- Ready at once --------------------------------------------------------------------------------------------- */

EVERYWHERE(the_case_that_is_ready_is_done) {
  csp_gochan_t *a = make(1), *b = make(1);
  void *va = UNTOUCHED, *vb = UNTOUCHED;
  csp_select_case_t cases[4] = {receives(a, &va), receives(b, &vb), sends(a, 1), sends(b, 2)};
  CHECK_EQ(select_of(&cases[2], 1, true), 0);
  CHECK_EQ(csp_gochan_len(a), 1);
  CHECK_EQ(select_of(&cases[2], 2, true), 1); /* the other is full */
  CHECK_EQ(csp_gochan_len(b), 1);
  CHECK_EQ(select_of(&cases[1], 2, true), 0);
  CHECK(vb == number(2) && va == UNTOUCHED);
  CHECK_EQ(select_of(&cases[0], 2, true), 0);
  CHECK(va == number(1));
  va = vb = UNTOUCHED;
  cases[3] = sends(b, 0); /* NULL */
  CHECK_EQ(select_of(&cases[3], 1, true), 0);
  CHECK_EQ(select_of(cases, 2, true), 1);
  CHECK(vb == NULL && va == UNTOUCHED);
  csp_gochan_free(a);
  csp_gochan_free(b);
}

EVERYWHERE(what_is_left_out_is_null) {
  csp_gochan_t *ch = make(2);
  csp_select_case_t drop = {.ch = ch, .op = CSP_RECV}, shorter = {.ch = ch}, null = {.ch = ch, .op = CSP_SEND};
  csp_select_case_t nothing[2] = {{0}, {.op = CSP_DEFAULT}};
  CHECK(csp_gochan_send(ch, number(1)));
  CHECK(csp_gochan_send(ch, number(2)));
  CHECK_EQ(select_of(&drop, 1, true), 0);
  CHECK_EQ(csp_gochan_len(ch), 1);
  CHECK_EQ(select_of(&shorter, 1, true), 0);
  CHECK_EQ(csp_gochan_len(ch), 0);
  CHECK_EQ(select_of(&null, 1, true), 0);
  expect(ch, 0);
  CHECK_EQ(select_of(nothing, 2, true), 1);
  csp_gochan_close(ch);
  CHECK_EQ(select_of(&drop, 1, false), 0);
  CHECK_EQ(csp_select_ok(&drop, 1, NULL), 0);
  csp_gochan_free(ch);
}

EVERYWHERE(the_default_is_for_when_nothing_is_ready) {
  csp_gochan_t *ch = make(1), *none = make(0);
  for (int at = 0; at < 3; at++) { /* the place of the first default */
    void *v = UNTOUCHED;
    csp_select_case_t cases[5] = {receives(ch, &v), receives(none, &v), receives(NULL, &v), or_else, or_else};
    csp_select_case_t moved = cases[at];
    cases[at] = or_else;
    cases[3] = moved;
    CHECK_EQ(select_of(cases, 5, true), at);
    CHECK_EQ(select_of(cases, at + 1, true), at);
    CHECK(v == UNTOUCHED);
    CHECK(csp_gochan_send(ch, number(6)));
    CHECK_EQ(select_of(cases, 5, true), at ? 0 : 3);
    CHECK(v == number(6));
    CHECK_EQ(select_of(cases, 5, true), at);
  }
  csp_select_case_t full[2] = {or_else, sends(none, 1)}, alone = or_else;
  CHECK_EQ(select_of(full, 2, true), 0);
  CHECK_EQ(select_of(&alone, 1, true), 0);
  void *v = UNTOUCHED; /* its other fields do not count */
  csp_select_case_t filled = {.ch = ch, .op = CSP_DEFAULT, .val = &v};
  CHECK(csp_gochan_send(ch, number(6)));
  CHECK_EQ(select_of(&filled, 1, true), 0);
  csp_gochan_close(ch);
  CHECK_EQ(select_of(&filled, 1, true), 0);
  CHECK_EQ(csp_gochan_len(ch), 1);
  CHECK(v == UNTOUCHED);
  csp_gochan_free(ch);
  csp_gochan_free(none);
}

EVERYWHERE(a_closed_channel_is_ready) {
  csp_gochan_t *ch = make(2), *none = make(0);
  void *v = UNTOUCHED;
  csp_select_case_t in[3] = {receives(none, &v), receives(ch, &v), or_else},
                    out[3] = {sends(none, 1), sends(ch, 2), or_else};
  CHECK(csp_gochan_send(ch, number(4)));
  csp_gochan_close(ch);
  CHECK_EQ(select_of(out, 3, false), 1);
  CHECK_EQ(select_of(out, 2, false), 1);
  CHECK_EQ(csp_gochan_len(ch), 1); /* nothing was sent */
  CHECK_EQ(select_of(in, 3, true), 1);
  CHECK(v == number(4));
  for (int n = 2; n <= 3; n++) {
    v = UNTOUCHED;
    CHECK_EQ(select_of(in, n, false), 1);
    CHECK(v == NULL);
  }
  csp_gochan_free(ch);
  csp_gochan_free(none);
}

/* ---- Refused --------------------------------------------------------------------------------------------------- */

static void refused(csp_select_case_t *cases, int n, int code) {
  bool ok = false;
  errno = 0;
  CHECK_EQ(csp_select(cases, n), -1);
  CHECK_EQ(errno, code);
  errno = 0;
  CHECK_EQ(csp_select_ok(cases, n, &ok), -1);
  CHECK_EQ(errno, code);
  CHECK(ok); /* no channel was found closed */
}

EVERYWHERE(what_makes_no_sense_has_no_effect) {
  static const int ops[] = {3, 4, -1, INT32_MAX, INT32_MIN};
  csp_gochan_t *ch = make(2);
  void *v = UNTOUCHED;
  CHECK(csp_gochan_send(ch, number(1)));
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    for (int at = 0; at < 3; at++) {
      csp_select_case_t cases[40] = {receives(ch, &v), sends(ch, 2), receives(ch, &v), or_else};
      int op = ops[i];
      memcpy(&cases[at].op, &op, sizeof op);
      refused(cases, 3, EINVAL);
      refused(cases, 4, EINVAL);
      refused(cases, 40, EINVAL);
    }
  }
  csp_select_case_t good = receives(ch, &v);
  refused(&good, -1, EINVAL);
  refused(&good, INT32_MIN, EINVAL);
  refused(&good, 1000001, EINVAL);
  refused(&good, INT32_MAX, EINVAL);
  refused(NULL, -1, EINVAL);
  CHECK(v == UNTOUCHED);
  CHECK_EQ(csp_gochan_len(ch), 1);
  expect(ch, 1);
  csp_gochan_free(ch);
}

static void a_default_leaves_errno(void **state) {
  csp_select_case_t alone = or_else;
  (void)state;
  errno = 77;
  CHECK_EQ(csp_select(&alone, 1), 0);
  CHECK_EQ(errno, 77);
}

/* ---- Two parties ----------------------------------------------------------------------------------------------- */

/* A select, and what came of it. */
struct sel {
  csp_select_case_t *cases;
  int n;
  int chosen;
  bool ok;
  _Atomic(int) done;
};

static void sel_run(void *arg) {
  struct sel *s = arg;
  s->chosen = csp_select_ok(s->cases, s->n, &s->ok);
  atomic_store(&s->done, 1);
}

/* What the other party does. */
struct op {
  csp_gochan_t *ch;
  void *value;
  bool ok;
};

static void op_send(void *arg) {
  struct op *o = arg;
  o->ok = csp_gochan_send(o->ch, o->value);
}

static void op_recv(void *arg) {
  struct op *o = arg;
  o->value = csp_gochan_recv(o->ch, &o->ok);
}

static void op_close(void *arg) { csp_gochan_close(((struct op *)arg)->ch); }

/* Four channels: received from, sent on, with room for nothing; the third is full, the fourth is none. */
static void one_of_many_comes_later(void **state) {
  static void (*const others[])(void *) = {op_send, op_recv, op_close, op_close};
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    for (int kind = 0; kind < 4; kind++) {
      csp_gochan_t *in = make(0), *out = make(0), *full = make(1);
      void *v = UNTOUCHED, *unused = UNTOUCHED;
      csp_select_case_t cases[5] = {receives(NULL, &unused), sends(full, 1), receives(in, &v), sends(out, 9), {0}};
      struct sel s = {.cases = cases, .n = 5};
      struct op o = {.ch = kind % 2 ? out : in, .value = number(8)};
      struct task t;
      CHECK(csp_gochan_send(full, number(3)));
      start(&t, a, sel_run, &s);
      until_task_waits(&t);
      CHECK_EQ(s.done, 0);
      run_at(b, others[kind], &o);
      finish(&t);
      CHECK_EQ(s.chosen, kind % 2 ? 3 : 2);
      CHECK_EQ(s.ok, kind < 2);
      CHECK(v == (kind == 0 ? number(8) : kind == 2 ? NULL : UNTOUCHED) && unused == UNTOUCHED);
      CHECK(kind > 1 || o.ok);
      if (kind == 1) CHECK(o.value == number(9));
      /* The other cases have had no effect, and nobody waits any more. */
      CHECK(kind == 2 || !csp_gochan_try_send(in, NULL));
      CHECK(kind == 3 || !csp_gochan_try_recv(out, NULL, NULL));
      expect(full, 3);
      CHECK_EQ(csp_gochan_len(full), 0);
      csp_gochan_free(in);
      csp_gochan_free(out);
      csp_gochan_free(full);
    }
  }
}

static void a_default_meets_who_waits(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    csp_gochan_t *in = make(0), *out = make(0);
    void *v = UNTOUCHED;
    csp_select_case_t receive[2] = {or_else, receives(in, &v)}, send[2] = {or_else, sends(out, 5)};
    struct sel s = {.cases = receive, .n = 2};
    struct op o = {.ch = in, .value = number(4)};
    struct task t;
    start(&t, a, op_send, &o);
    do run_at(b, sel_run, &s);
    while (s.chosen == 0); /* a thread is on its way yet */
    finish(&t);
    CHECK(s.chosen == 1 && s.ok && v == number(4) && o.ok);
    o.ch = out;
    s.cases = send;
    start(&t, a, op_recv, &o);
    do run_at(b, sel_run, &s);
    while (s.chosen == 0);
    finish(&t);
    CHECK(s.chosen == 1 && s.ok && o.value == number(5) && o.ok);
    csp_gochan_free(in);
    csp_gochan_free(out);
  }
}

/* Somebody who tries for ever does not keep the others of its worker from running. */
static void tries_until_met(void *arg) {
  struct op *o = arg;
  csp_select_case_t cases[2] = {receives(o->ch, &o->value), or_else};
  while (csp_select_ok(cases, 2, &o->ok) == 1) {}
  while (!csp_gochan_try_send(o->ch, o->value)) {}
  while (!csp_gochan_try_recv(o->ch, &o->value, &o->ok)) {}
}

static void answers(void *ch) {
  CHECK(csp_gochan_send(ch, number(1)));
  CHECK(csp_gochan_recv(ch, NULL) == number(1));
  CHECK(csp_gochan_send(ch, number(2)));
}

static void who_tries_again_and_again_lets_others_run(void **state) {
  enum { TRIERS = 8 };
  struct task t[TRIERS][2];
  struct op ops[TRIERS];
  (void)state;
  for (int i = 0; i < TRIERS; i++) {
    ops[i] = (struct op){.ch = make(0)};
    start(&t[i][0], ON_GOROUTINE, tries_until_met, &ops[i]);
  }
  for (int i = 0; i < TRIERS; i++) start(&t[i][1], ON_GOROUTINE, answers, ops[i].ch);
  for (int i = 0; i < TRIERS; i++) {
    finish(&t[i][0]);
    finish(&t[i][1]);
    CHECK(ops[i].ok && ops[i].value == number(2));
    csp_gochan_free(ops[i].ch);
  }
}

/* ---- The same channel in several cases ------------------------------------------------------------------------- */

EVERYWHERE(a_select_does_not_meet_itself_at_once) {
  csp_gochan_t *ch = make(0);
  void *v = UNTOUCHED;
  csp_select_case_t cases[5] = {sends(ch, 1), receives(ch, &v), sends(ch, 2), receives(ch, &v), or_else};
  for (int i = 0; i < 100; i++) CHECK_EQ(select_of(cases, 5, true), 4);
  CHECK(v == UNTOUCHED);
  csp_gochan_free(ch);
}

static void a_select_does_not_meet_itself_later(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    for (int receive = 0; receive < 2; receive++) {
      csp_gochan_t *ch = make(0);
      void *v = UNTOUCHED;
      csp_select_case_t cases[2] = {sends(ch, 1), receives(ch, &v)};
      struct sel s = {.cases = cases, .n = 2};
      struct op o = {.ch = ch, .value = number(6)};
      struct task t;
      start(&t, a, sel_run, &s);
      until_task_waits(&t);
      CHECK_EQ(s.done, 0);
      run_at(b, receive ? op_recv : op_send, &o);
      finish(&t);
      CHECK(s.ok && o.ok);
      CHECK_EQ(s.chosen, receive ? 0 : 1);
      CHECK(v == (receive ? UNTOUCHED : number(6)) && o.value == number(receive ? 1 : 6));
      csp_gochan_free(ch);
    }
  }
}

static void two_selects_meet_each_other(void **state) {
  (void)state;
  FOR_ALL_PAIRS(a, b) {
    csp_gochan_t *ch = make(0);
    void *v[2] = {UNTOUCHED, UNTOUCHED};
    csp_select_case_t cases[2][2] = {{sends(ch, 10), receives(ch, &v[0])}, {sends(ch, 11), receives(ch, &v[1])}};
    struct sel s[2] = {{.cases = cases[0], .n = 2}, {.cases = cases[1], .n = 2}};
    struct task t;
    start(&t, a, sel_run, &s[0]);
    run_at(b, sel_run, &s[1]);
    finish(&t);
    CHECK(s[0].ok && s[1].ok);
    CHECK_EQ(s[0].chosen + s[1].chosen, 1); /* one sent, one received */
    int to = s[0].chosen == 1 ? 0 : 1;
    CHECK(v[to] == number(11 - (uintptr_t)to) && v[!to] == UNTOUCHED);
    csp_gochan_free(ch);
  }
}

EVERYWHERE(with_room_a_select_may_send_and_receive) {
  csp_gochan_t *ch = make(2);
  void *v = UNTOUCHED;
  csp_select_case_t cases[2] = {sends(ch, 7), receives(ch, &v)};
  int did[2] = {0};
  for (int i = 0; i < 1000; i++) did[select_of(cases, 2, true)]++;
  CHECK_EQ(did[0] - did[1], csp_gochan_len(ch));
  CHECK(did[0] > 300 && did[1] > 300 && v == number(7));
  csp_gochan_free(ch);
}

/* ---- Nothing to wait for --------------------------------------------------------------------------------------- */

/* Not inlined: the goroutine may have gone on on another thread, whose errno is elsewhere. */
static __attribute__((noinline)) int errno_now(void) {
  __asm__ volatile("");
  return errno;
}

static csp_select_case_t nobody[40]; /* all of them without a channel; half of them send */
static _Atomic(int) came_to_wait, came_back;

static void selects_nobody(void *n) {
  atomic_fetch_add(&came_to_wait, 1);
  CHECK_EQ(csp_select(n ? nobody : NULL, (int)(intptr_t)n), -1);
  CHECK_EQ(errno_now(), ECANCELED);
  atomic_fetch_add(&came_back, 1);
}

static void *thread_selects_nobody(void *n) { return selects_nobody(n), NULL; }

/* The threads wait until the process ends. The fibers are asked to stop: else nothing would end this. */
static void with_nothing_to_wait_for_it_waits_for_ever(void **state) {
  static const uintptr_t counts[] = {0, 1, 2, 40};
  struct coir_fiber *fibers[4];
  pthread_t threads[4];
  (void)state;
  for (int i = 0; i < 40; i++) nobody[i] = i % 2 ? sends(NULL, 1) : receives(NULL, NULL);
  for (int i = 0; i < 4; i++) {
    fibers[i] = spawn_beside(selects_nobody, number(counts[i]));
    CHECK_EQ(pthread_create(&threads[i], NULL, thread_selects_nobody, number(counts[i])), 0);
    CHECK_EQ(pthread_detach(threads[i]), 0);
  }
  WAIT_FOR(atomic_load(&came_to_wait) == 8);
  until_waiting(4);
  CHECK_EQ(coir_sleep(COIR_MS(30)), 0);
  CHECK_EQ(came_back, 0);
  until_waiting(4);
  for (int i = 0; i < 4; i++) CHECK_EQ(coir_cancel(fibers[i]), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(came_back, 4);
}

static void selects_and_is_canceled(void *arg) {
  csp_gochan_t **chans = arg;
  void *v = UNTOUCHED;
  csp_select_case_t cases[2] = {sends(chans[0], 1), receives(chans[1], &v)};
  CHECK_EQ(csp_select(cases, 2), -1);
  CHECK_EQ(errno_now(), ECANCELED);
  CHECK(v == UNTOUCHED);
}

static void who_is_canceled_has_done_nothing(void **state) {
  csp_gochan_t *chans[2] = {make(0), make(0)};
  struct coir_fiber *f = spawn_beside(selects_and_is_canceled, chans);
  (void)state;
  until_waiting(1);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
  CHECK(!csp_gochan_try_recv(chans[0], NULL, NULL) && !csp_gochan_try_send(chans[1], NULL));
  csp_gochan_free(chans[0]);
  csp_gochan_free(chans[1]);
}

/* ---- Many cases ------------------------------------------------------------------------------------------------ */

/* Around where the arms are kept elsewhere, and far beyond. */
static const int sizes[] = {1, 7, 8, 9, 10, 31, 32, 33, 34, 40, 5000};
enum { SIZES = sizeof sizes / sizeof *sizes, MANY = 5000 };

static csp_gochan_t *many_chans[MANY];
static void *many_values[MANY];
static csp_select_case_t many[MANY];

static void make_many(int n, bool send) {
  for (int i = 0; i < n; i++) {
    many_chans[i] = make(0);
    many_values[i] = UNTOUCHED;
    many[i] = send ? sends(many_chans[i], (uintptr_t)i) : receives(many_chans[i], &many_values[i]);
  }
}

static void free_many(int n) {
  for (int i = 0; i < n; i++) csp_gochan_free(many_chans[i]);
}

static void any_of_many_can_be_chosen(enum place place, int n, int at) {
  struct sel s = {.cases = many, .n = n};
  struct op o = {.ch = many_chans[at], .value = number(1 + (uintptr_t)at)};
  struct task t;
  start(&t, place, sel_run, &s);
  until_task_waits(&t);
  CHECK_EQ(s.done, 0);
  op_send(&o);
  finish(&t);
  CHECK(o.ok && s.ok);
  CHECK_EQ(s.chosen, at);
  for (int i = 0; i < n; i++) CHECK(many_values[i] == (i == at ? number(1 + (uintptr_t)at) : UNTOUCHED));
  many_values[at] = UNTOUCHED;
}

static void many_cases_may_be_received_from(void **state) {
  (void)state;
  for (int k = 0; k < SIZES; k++) {
    int n = sizes[k], at[] = {0, n / 2, n - 1};
    make_many(n, false);
    for (int i = 0; i < 3; i++) any_of_many_can_be_chosen(i % 2 ? ON_THREAD : ON_GOROUTINE, n, at[i]);
    struct sel s = {.cases = many, .n = n};
    csp_gochan_close(many_chans[n - 1]);
    run_at(ON_GOROUTINE, sel_run, &s);
    CHECK(s.chosen == n - 1 && !s.ok && many_values[n - 1] == NULL);
    free_many(n);
  }
}

static void many_cases_may_be_sent_on(void **state) {
  (void)state;
  for (int k = 0; k < SIZES; k++) {
    int n = sizes[k];
    make_many(n, true);
    for (int at = n - 1; at >= 0; at -= (n + 2) / 3) {
      struct sel s = {.cases = many, .n = n};
      struct op o = {.ch = many_chans[at]};
      struct task t;
      start(&t, k % 2 ? ON_THREAD : ON_GOROUTINE, sel_run, &s);
      run_at(ON_MAIN, op_recv, &o);
      finish(&t);
      CHECK(s.chosen == at && s.ok && o.ok && o.value == number((uintptr_t)at));
      CHECK(!csp_gochan_try_recv(many_chans[at], NULL, NULL)); /* nobody waits there now */
    }
    free_many(n);
  }
}

static void many_cases_may_have_a_default(void **state) {
  (void)state;
  for (int k = 0; k < SIZES; k++) {
    int n = sizes[k];
    make_many(n, k % 2);
    csp_gochan_free(many_chans[n / 2]);
    many_chans[n / 2] = NULL;
    many[n / 2] = or_else;
    CHECK_EQ(select_of(many, n, true), n / 2);
    free_many(n);
  }
}

/* The largest: 1 000 000 cases. With a sanitizer that takes long. */
enum { MOST = 1000000 };

static void a_million_cases(void **state) {
  (void)state;
  int n = IS_SANITIZED ? MOST / 10 : MOST;
  csp_gochan_t *never = make(0), *ch = make(1);
  csp_select_case_t *cases = malloc((size_t)n * sizeof *cases);
  void *v = UNTOUCHED;
  CHECK(cases != NULL);
  for (int i = 0; i < n; i++) cases[i] = i % 3 ? receives(never, NULL) : receives(NULL, NULL);
  cases[n - 1] = receives(ch, &v);
  CHECK(csp_gochan_send(ch, number(4)));
  CHECK_EQ(csp_select(cases, n), n - 1);
  CHECK(v == number(4));
  free(cases);
  csp_gochan_free(never);
  csp_gochan_free(ch);
}

/* ---- The macros ------------------------------------------------------------------------------------------------ */

/* clang-format off */

EVERYWHERE(the_macros_make_a_select) {
  csp_gochan_t *in = make(1), *out = make(1);
  void *v = UNTOUCHED;
  int idx = -2, evaluated = 0;
  SELECT_START
  RECV_CASE(in, &v)
  SEND_CASE(out, (evaluated++, 17))
  DEFAULT_CASE
  SELECT_END(idx)
  CHECK_EQ(idx, 1);
  CHECK_EQ(evaluated, 1);
  SELECT_START;
  RECV_CASE(in, &v);
  SEND_CASE(out, out);
  DEFAULT_CASE;
  SELECT_END(idx);
  CHECK_EQ(idx, 2);
  CHECK(v == UNTOUCHED);
  expect(out, 17);
  CHECK(csp_gochan_send(in, in));
  if (idx == 2)
    SELECT_START RECV_CASE(NULL, NULL) RECV_CASE(in, &v) SELECT_END(idx)
  else
    idx = -1;
  CHECK_EQ(idx, 1);
  CHECK(v == in);
  SELECT_START DEFAULT_CASE SELECT_END(idx)
  CHECK_EQ(idx, 0);
  SELECT_START SEND_CASE(NULL, NULL) DEFAULT_CASE DEFAULT_CASE SELECT_END(idx)
  CHECK_EQ(idx, 1);
  csp_gochan_free(in);
  csp_gochan_free(out);
}

#define TIMES_8(what) what what what what what what what what

EVERYWHERE(the_macros_take_32_cases) {
  csp_gochan_t *ch = make(1);
  int idx = -2;
  SELECT_START
  TIMES_8(RECV_CASE(NULL, NULL) RECV_CASE(NULL, NULL) SEND_CASE(NULL, 3)) /* 24 of them */
  RECV_CASE(NULL, NULL) RECV_CASE(NULL, NULL) RECV_CASE(NULL, NULL) RECV_CASE(NULL, NULL) RECV_CASE(NULL, NULL)
  RECV_CASE(NULL, NULL) RECV_CASE(NULL, NULL) SEND_CASE(ch, 9)
  SELECT_END(idx)
  CHECK_EQ(idx, 31);
  expect(ch, 9);
  csp_gochan_free(ch);
}

static void thirty_three_cases(void) {
  int idx;
  SELECT_START
  TIMES_8(RECV_CASE(NULL, NULL) RECV_CASE(NULL, NULL) SEND_CASE(NULL, 3) RECV_CASE(NULL, NULL))
  DEFAULT_CASE
  SELECT_END(idx)
  _exit(idx ? 1 : 0);
}

/* clang-format on */

/* Runs first: the child is to begin without a runtime. */
static void the_macros_abort_at_33_cases(void **state) {
  char text[4096];
  int status = in_child_process(thirty_three_cases, text, sizeof text);
  (void)state;
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGABRT);
  CHECK(strncmp(text, "csp: ", 5) == 0 && strstr(text, "32") && strchr(text, '\n') == text + strlen(text) - 1);
}

/* There is address space for the cases, but not for the arms. */
static void select_without_memory(void) {
  csp_select_case_t *cases = calloc(MOST, sizeof *cases);
  CHECK(cases != NULL);
  cases[0] = or_else;
  struct rlimit tight = {(rlim_t)96 << 20, (rlim_t)96 << 20};
  CHECK_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  refused(cases, MOST, ENOMEM);
  CHECK_EQ(csp_select(cases, CSP_SELECT_MAX), 0); /* these need none */
  free(cases);
  _exit(0);
}

static void memory_may_be_short(void **state) {
  char text[4096];
  (void)state;
  if (IS_SANITIZED) skip(); /* these reserve more than that */
  int status = in_child_process(select_without_memory, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
}

/* ---- Fairness -------------------------------------------------------------------------------------------------- */

/* Of `n` cases, each of which was to be drawn with the same probability. By chance alone the sum exceeds the bound in
 * less than one of 10^15 runs (31 degrees of freedom at most). */
static void expect_even(const int *drawn, int n, int draws) {
  double mean = (double)draws / n, chi_square = 0;
  for (int i = 0; i < n; i++) chi_square += (drawn[i] - mean) * (drawn[i] - mean) / mean;
  if (chi_square < 160) return;
  for (int i = 0; i < n; i++) fprintf(stderr, "case %d: %d of %d\n", i, drawn[i], draws);
  CHECK(chi_square < 160);
}

enum { FAIR_MAX = 32, DRAWS = 8000 };

/* Closed channels to receive from and to send on, one that is full, and one with room, in turns. */
static void draw(int n, bool with_default) {
  int drawn[FAIR_MAX + 1] = {0};
  csp_gochan_t *closed = make_closed(), *full = make(1), *roomy = make(DRAWS + 1);
  for (int i = 0; i < DRAWS; i++) {
    csp_select_case_t cases[FAIR_MAX + 1];
    const csp_select_case_t kinds[] = {receives(closed, NULL), sends(closed, 1), receives(full, NULL), sends(roomy, 1)};
    for (int k = 0; k < n; k++) cases[k] = kinds[k % 4];
    cases[n] = or_else;
    csp_gochan_try_send(full, number(1));
    drawn[csp_select(cases, n + with_default)]++;
  }
  CHECK_EQ(drawn[n], 0);
  expect_even(drawn, n, DRAWS);
  csp_gochan_free(closed);
  csp_gochan_free(full);
  csp_gochan_free(roomy);
}

EVERYWHERE(each_of_several_that_are_ready_is_chosen_as_often) {
  static const int counts[] = {2, 3, 5, 8, 9, 32};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) draw(counts[i], i % 2);
}

static void sends_for_ever(void *ch) {
  while (csp_gochan_send(ch, ch)) {}
}

/* Those that can go on because somebody waits there. */
static void who_waits_longer_is_not_preferred(void **state) {
  enum { CHANS = 4 };
  csp_gochan_t *chans[CHANS];
  struct task senders[CHANS];
  int drawn[CHANS] = {0}, draws = rounds(4000);
  (void)state;
  for (int k = 0; k < CHANS; k++) {
    chans[k] = make(0);
    start(&senders[k], ON_GOROUTINE, sends_for_ever, chans[k]);
  }
  for (int i = 0; i < draws; i++) {
    csp_select_case_t cases[CHANS];
    until_waiting(CHANS); /* so that each is ready */
    for (int k = 0; k < CHANS; k++) cases[k] = receives(chans[k], NULL);
    drawn[csp_select(cases, CHANS)]++;
  }
  expect_even(drawn, CHANS, draws);
  for (int k = 0; k < CHANS; k++) {
    csp_gochan_close(chans[k]);
    finish(&senders[k]);
    csp_gochan_free(chans[k]);
  }
}

/* ---- Closing while others select ------------------------------------------------------------------------------- */

enum { HERD = 16, PAIR = 2 };
static csp_gochan_t *pair[PAIR];
static _Atomic(long) sent_sum, sent_count, received_sum, received_count;

/* Receives from both, in one select, until both are closed. */
static void selects_to_receive(void *arg) {
  void *v;
  csp_select_case_t cases[PAIR] = {receives(pair[0], &v), receives(pair[1], &v)};
  (void)arg;
  for (int open = PAIR; open > 0;) {
    bool ok;
    int i = csp_select_ok(cases, PAIR, &ok);
    CHECK(i == 0 || i == 1);
    CHECK(cases[i].ch != NULL);
    if (ok) {
      atomic_fetch_add(&received_sum, (long)(intptr_t)v);
      atomic_fetch_add(&received_count, 1);
    } else {
      CHECK(v == NULL);
      cases[i].ch = NULL;
      open--;
    }
  }
}

/* Sends on both until both are closed. */
static void selects_to_send(void *arg) {
  csp_select_case_t cases[PAIR];
  uintptr_t value = 1 + (uintptr_t)arg % 1000;
  csp_gochan_t *left[PAIR] = {pair[0], pair[1]};
  while (left[0] || left[1]) {
    bool ok;
    value = value * 31 % 1009;
    for (int i = 0; i < PAIR; i++) cases[i] = sends(left[i], value + (uintptr_t)i);
    int i = csp_select_ok(cases, PAIR, &ok);
    CHECK(i == 0 || i == 1);
    if (ok) {
      atomic_fetch_add(&sent_sum, (long)value + i);
      atomic_fetch_add(&sent_count, 1);
    } else {
      CHECK(left[i] != NULL);
      left[i] = NULL;
    }
  }
}

static void closing_while_others_select_loses_nothing(void **state) {
  (void)state;
  for (int round = 0; round < rounds(60); round++) {
    struct task herd[HERD];
    sent_sum = sent_count = received_sum = received_count = 0;
    for (int i = 0; i < PAIR; i++) pair[i] = make((size_t)(round >> i) % 2 * 3);
    for (int i = 0; i < HERD; i++)
      start(&herd[i], i / 2 % 4 == 3 ? ON_THREAD : ON_GOROUTINE, i % 2 ? selects_to_send : selects_to_receive,
            number((uintptr_t)i));
    WAIT_FOR(atomic_load(&received_count) > 5 * round);
    csp_gochan_close(pair[round % 2]);
    long before = atomic_load(&received_count);
    WAIT_FOR(atomic_load(&received_count) > before); /* the other goes on */
    csp_gochan_close(pair[!(round % 2)]);
    for (int i = 0; i < HERD; i++) finish(&herd[i]);
    CHECK_EQ(received_count, sent_count);
    CHECK_EQ(received_sum, sent_sum);
    for (int i = 0; i < PAIR; i++) {
      CHECK_EQ(csp_gochan_len(pair[i]), 0);
      csp_gochan_free(pair[i]);
    }
  }
}

/* ---- Conservation ---------------------------------------------------------------------------------------------- */

/* Thousands of goroutines over a hundred channels, half of which have no room. Each producer sends tokens, by send, by
 * trying, or by a select of two channels; each consumer receives by the same means until its channels are closed. */
enum { CHANS = 100, TOKENS = 6 };

static csp_gochan_t *chans[CHANS];
static _Atomic(int) producers_left, consumers_left;

/* Draws two different channels. */
static void two_channels(uint64_t *rng, csp_gochan_t **a, csp_gochan_t **b) {
  size_t i = rng_next(rng) % CHANS, k = (i + 1 + rng_next(rng) % (CHANS - 1)) % CHANS;
  *a = chans[i];
  *b = chans[k];
}

static bool token_sent(uint64_t *rng, uintptr_t token) {
  csp_gochan_t *a, *b;
  bool ok = false;
  two_channels(rng, &a, &b);
  switch (rng_next(rng) % 4) {
  case 0: return csp_gochan_send(a, number(token));
  case 1: return csp_gochan_try_send(a, number(token)) || csp_gochan_send(b, number(token));
  case 2: {
    csp_select_case_t cases[2] = {sends(a, token), sends(b, token)};
    CHECK(csp_select_ok(cases, 2, &ok) >= 0);
    return ok;
  }
  default: {
    csp_select_case_t cases[3] = {sends(a, token), sends(b, token), or_else};
    return csp_select_ok(cases, 3, &ok) == 2 ? csp_gochan_send(a, number(token)) : ok;
  }
  }
}

static void token_producer(void *seed) {
  uint64_t rng = rng_seed((uintptr_t)seed);
  for (int i = 0; i < TOKENS; i++) {
    uintptr_t token = rng_next(&rng) % 1000;
    if (!token_sent(&rng, token)) continue;
    atomic_fetch_add(&sent_sum, (long)token);
    atomic_fetch_add(&sent_count, 1);
  }
  atomic_fetch_sub(&producers_left, 1);
}

/* Its first channel is fixed: so each has somebody who receives. */
static void token_consumer(void *number_of) {
  uint64_t rng = rng_seed((uintptr_t)number_of);
  csp_gochan_t *a, *b, *own = chans[(uintptr_t)number_of % CHANS];
  void *v = NULL;
  two_channels(&rng, &a, &b);
  if (a == own) a = b;
  csp_select_case_t cases[2] = {receives(own, &v), receives(rng_next(&rng) % 2 ? a : NULL, &v)};
  while (cases[0].ch || cases[1].ch) {
    int i = 0;
    bool ok = false;
    if (cases[1].ch) i = csp_select_ok(cases, 2, &ok);
    else if (rng_next(&rng) % 2 || !csp_gochan_try_recv(own, &v, &ok)) v = csp_gochan_recv(own, &ok);
    if (!ok) {
      cases[i].ch = NULL;
      if (!cases[0].ch) break;
      continue;
    }
    atomic_fetch_add(&received_sum, (long)(intptr_t)v);
    atomic_fetch_add(&received_count, 1);
  }
  atomic_fetch_sub(&consumers_left, 1);
}

/* Closes at the end, or in the middle. */
static void conserve(int goroutines, bool at_the_end) {
  sent_sum = sent_count = received_sum = received_count = 0;
  producers_left = consumers_left = goroutines / 2;
  for (int i = 0; i < CHANS; i++) chans[i] = make(i % 2 ? (size_t)i % 9 : 0);
  for (int i = 0; i < goroutines; i++)
    CHECK(csp_proc_create(0, i % 2 ? token_producer : token_consumer, number((uintptr_t)i / 2)) != NULL);
  if (at_the_end) WAIT_FOR(atomic_load(&producers_left) == 0);
  else WAIT_FOR(atomic_load(&received_count) > goroutines);
  for (int i = 0; i < CHANS; i++) csp_gochan_close(chans[i]);
  WAIT_FOR(atomic_load(&producers_left) == 0 && atomic_load(&consumers_left) == 0);
  CHECK_EQ(received_count, sent_count);
  CHECK_EQ(received_sum, sent_sum);
  if (at_the_end) CHECK_EQ(sent_count, (long)goroutines / 2 * TOKENS);
  for (int i = 0; i < CHANS; i++) {
    CHECK_EQ(csp_gochan_len(chans[i]), 0);
    csp_gochan_free(chans[i]);
  }
}

static void thousands_lose_nothing_until_the_end(void **state) {
  (void)state;
  conserve(rounds(10000), true);
}

static void thousands_lose_nothing_when_closed_early(void **state) {
  (void)state;
  conserve(rounds(10000), false);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_macros_abort_at_33_cases),
      cmocka_unit_test(memory_may_be_short),
      cmocka_unit_test(the_case_that_is_ready_is_done),
      cmocka_unit_test(what_is_left_out_is_null),
      cmocka_unit_test(the_default_is_for_when_nothing_is_ready),
      cmocka_unit_test(a_closed_channel_is_ready),
      cmocka_unit_test(what_makes_no_sense_has_no_effect),
      cmocka_unit_test(a_default_leaves_errno),
      cmocka_unit_test(one_of_many_comes_later),
      cmocka_unit_test(a_default_meets_who_waits),
      cmocka_unit_test(who_tries_again_and_again_lets_others_run),
      cmocka_unit_test(a_select_does_not_meet_itself_at_once),
      cmocka_unit_test(a_select_does_not_meet_itself_later),
      cmocka_unit_test(two_selects_meet_each_other),
      cmocka_unit_test(with_room_a_select_may_send_and_receive),
      cmocka_unit_test(with_nothing_to_wait_for_it_waits_for_ever),
      cmocka_unit_test(who_is_canceled_has_done_nothing),
      cmocka_unit_test(many_cases_may_be_received_from),
      cmocka_unit_test(many_cases_may_be_sent_on),
      cmocka_unit_test(many_cases_may_have_a_default),
      cmocka_unit_test(a_million_cases),
      cmocka_unit_test(the_macros_make_a_select),
      cmocka_unit_test(the_macros_take_32_cases),
      cmocka_unit_test(each_of_several_that_are_ready_is_chosen_as_often),
      cmocka_unit_test(who_waits_longer_is_not_preferred),
      cmocka_unit_test(closing_while_others_select_loses_nothing),
      cmocka_unit_test(thousands_lose_nothing_until_the_end),
      cmocka_unit_test(thousands_lose_nothing_when_closed_early),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
