/* channel.h: each sentence, for fibers, plain threads, and both. */
#include "lib_test.h"

static GoChannel *make(size_t capacity) {
  GoChannel *c = go_channel_create(capacity);
  CHECK(c);
  return c;
}

/* One call on a fiber or a thread of its own. */
struct op {
  GoChannel *chan;
  GoContext *context;
  void *value;
  int rc, error;
  _Atomic(int) done;
};

static void op_send(void *arg) {
  struct op *op = arg;
  op->rc = op->context ? go_channel_send_with_context(op->chan, op->value, op->context)
                       : go_channel_send(op->chan, op->value);
  op->error = errno;
  atomic_store(&op->done, 1);
}

static void op_receive(void *arg) {
  struct op *op = arg;
  op->rc = op->context ? go_channel_receive_with_context(op->chan, &op->value, op->context)
                       : go_channel_receive(op->chan, &op->value);
  op->error = errno;
  atomic_store(&op->done, 1);
}

/* Starts it, and waits until it waits, as far as that can be known. */
static void start_op(struct op *op, bool on_thread, void (*fn)(void *)) {
  start(on_thread, fn, op);
  pause_ms(5);
  CHECK_EQ(op->done, 0);
}

static void op_failed(struct op *op, int error) {
  WAIT_FOR(op->done);
  CHECK_EQ(op->rc, -1);
  CHECK_EQ(op->error, error);
}

/* ---- One party ------------------------------------------------------------------------------------------------- */

ON_BOTH(capacity_is_exact) {
  static const size_t capacities[] = {0, 1, 2, 3, 5, 7, 100, 1000};
  for (size_t k = 0; k < sizeof capacities / sizeof *capacities; k++) {
    size_t capacity = capacities[k];
    GoChannel *c = make(capacity);
    void *v = number(-1);
    for (size_t i = 0; i < capacity; i++) {
      CHECK_EQ(go_channel_get_depth(c), i);
      CHECK(go_channel_has_space(c));
      CHECK_EQ(go_channel_has_data(c), i > 0);
      CHECK_EQ(go_channel_try_send(c, number((intptr_t)i)), 0);
    }
    FAILS(go_channel_try_send(c, NULL), EAGAIN);
    CHECK(!go_channel_has_space(c));
    CHECK_EQ(go_channel_get_depth(c), capacity);
    for (size_t i = 0; i < capacity; i++) {
      CHECK_EQ(go_channel_try_receive(c, &v), 0);
      CHECK_EQ((intptr_t)v, i);
    }
    v = number(-1);
    FAILS(go_channel_try_receive(c, &v), EAGAIN);
    CHECK(v == NULL && !go_channel_has_data(c));
    CHECK_EQ(go_channel_has_space(c), capacity > 0);
    go_channel_free(c);
  }
}

ON_BOTH(no_channel) {
  void *v = number(7);
  FAILS(go_channel_send(NULL, v), EINVAL);
  FAILS(go_channel_try_send(NULL, v), EINVAL);
  FAILS(go_channel_send_with_context(NULL, v, go_context_background()), EINVAL);
  FAILS(go_channel_receive(NULL, &v), EINVAL);
  CHECK(v == NULL);
  FAILS(go_channel_try_receive(NULL, NULL), EINVAL);
  FAILS(go_channel_receive_with_context(NULL, &v, go_context_background()), EINVAL);
  CHECK(go_channel_is_closed(NULL));
  CHECK(!go_channel_has_data(NULL) && !go_channel_has_space(NULL) && go_channel_get_depth(NULL) == 0);
  CHECK(go_channel_ref(NULL) == NULL);
  go_channel_unref(NULL);
  go_channel_free(NULL);
  go_channel_close(NULL);
}

static void too_large(void **state) {
  (void)state;
  errno = 0;
  CHECK(go_channel_create(SIZE_MAX) == NULL);
  CHECK_EQ(errno, ENOMEM);
}

ON_BOTH(what_is_buffered_survives_the_close) {
  GoChannel *c = make(3);
  void *v = NULL;
  CHECK_EQ(go_channel_send(c, number(1)), 0);
  CHECK_EQ(go_channel_send(c, NULL), 0); /* a value like any other */
  CHECK_EQ(go_channel_send(c, number(3)), 0);
  CHECK(!go_channel_is_closed(c));
  go_channel_close(c);
  go_channel_close(c);
  CHECK(go_channel_is_closed(c) && go_channel_has_data(c) && !go_channel_has_space(c));
  FAILS(go_channel_send(c, number(4)), EPIPE);
  FAILS(go_channel_try_send(c, number(4)), EPIPE);
  CHECK_EQ(go_channel_receive(c, &v), 0);
  CHECK_EQ((intptr_t)v, 1);
  CHECK_EQ(go_channel_receive(c, &v), 0);
  CHECK(v == NULL);
  CHECK(!go_channel_has_space(c));
  CHECK_EQ(go_channel_try_receive(c, NULL), 0); /* drops it */
  v = number(5);
  FAILS(go_channel_receive(c, &v), EPIPE);
  CHECK(v == NULL);
  FAILS(go_channel_try_receive(c, &v), EPIPE);
  go_channel_free(c);
}

/* ---- Two parties ----------------------------------------------------------------------------------------------- */

ON_BOTH(a_rendezvous_completes_when_it_is_taken) {
  for (int on_thread = 0; on_thread < 2; on_thread++) {
    GoChannel *c = make(0);
    void *v = NULL;
    struct op op = {.chan = c, .value = number(42)};
    start_op(&op, on_thread, op_send);
    CHECK(!go_channel_has_data(c) && go_channel_get_depth(c) == 0);
    WAIT_FOR(go_channel_try_receive(c, &v) == 0);
    CHECK_EQ((intptr_t)v, 42);
    WAIT_FOR(op.done);
    CHECK_EQ(op.rc, 0);
    op = (struct op){.chan = c};
    start_op(&op, on_thread, op_receive);
    WAIT_FOR(go_channel_try_send(c, number(43)) == 0);
    WAIT_FOR(op.done);
    CHECK_EQ(op.rc, 0);
    CHECK_EQ((intptr_t)op.value, 43);
    go_channel_free(c);
  }
}

ON_BOTH(waiting_senders_are_served_in_order) {
  GoChannel *c = make(1);
  struct op ops[4];
  void *v;
  CHECK_EQ(go_channel_send(c, number(100)), 0);
  for (int i = 0; i < 4; i++) {
    ops[i] = (struct op){.chan = c, .value = number(i)};
    CHECK_EQ(go_fiber_default(op_send, &ops[i]), 0);
    WAIT_FOR(waiting_for("send") == i + 1);
  }
  for (int i = -1; i < 4; i++) {
    CHECK_EQ(go_channel_receive(c, &v), 0);
    if (i >= 0) CHECK_EQ((intptr_t)v, i);
  }
  until_idle();
  go_channel_free(c);
}

ON_BOTH(the_close_ends_all_waits) {
  for (int sending = 0; sending < 2; sending++) {
    GoChannel *c = make(sending);
    struct op ops[6];
    if (sending) CHECK_EQ(go_channel_send(c, number(7)), 0);
    for (int i = 0; i < 6; i++) {
      ops[i] = (struct op){.chan = c, .value = number(8)};
      start_op(&ops[i], i % 2, sending ? op_send : op_receive);
    }
    go_channel_close(c);
    for (int i = 0; i < 6; i++) {
      op_failed(&ops[i], EPIPE);
      if (!sending) CHECK(ops[i].value == NULL);
    }
    void *v;
    if (sending) CHECK_EQ(go_channel_receive(c, &v), 0);
    if (sending) CHECK_EQ((intptr_t)v, 7);
    FAILS(go_channel_receive(c, &v), EPIPE);
    go_channel_free(c);
  }
}

/* ---- With a context -------------------------------------------------------------------------------------------- */

ON_BOTH(a_context_that_was_cancelled_before) {
  CancelContextResult r = go_context_with_cancel(NULL);
  GoChannel *c = make(2);
  void *v;
  CHECK_EQ(go_channel_send_with_context(c, number(1), r.context), 0);
  CHECK_EQ(go_channel_send_with_context(c, number(2), NULL), 0);
  CHECK_EQ(go_channel_receive_with_context(c, &v, r.context), 0);
  CHECK_EQ((intptr_t)v, 1);
  r.cancel(r.context);
  for (int i = 0; i < 50; i++) { /* each time, though the channel is ready */
    v = number(9);
    FAILS(go_channel_receive_with_context(c, &v, r.context), ECANCELED);
    CHECK(v == NULL);
    FAILS(go_channel_send_with_context(c, number(3), r.context), ECANCELED);
  }
  CHECK_EQ(go_channel_get_depth(c), 1);
  CHECK_EQ(go_channel_receive_with_context(c, &v, NULL), 0);
  CHECK_EQ((intptr_t)v, 2);
  go_channel_close(c);
  FAILS(go_channel_receive_with_context(c, &v, go_context_background()), EPIPE);
  FAILS(go_channel_send_with_context(c, v, go_context_background()), EPIPE);
  go_context_free(r.context);
  go_channel_free(c);
}

ON_BOTH(a_context_ends_waits) {
  CancelContextResult r = go_context_with_cancel(NULL);
  GoChannel *empty = make(0), *full = make(1);
  struct op ops[4];
  CHECK_EQ(go_channel_send(full, number(1)), 0);
  for (int i = 0; i < 4; i++) {
    ops[i] = (struct op){.chan = i < 2 ? empty : full, .context = r.context};
    start_op(&ops[i], i % 2, i < 2 ? op_receive : op_send);
  }
  r.cancel(r.context);
  for (int i = 0; i < 4; i++) op_failed(&ops[i], ECANCELED);
  CHECK_EQ(go_channel_get_depth(full), 1);
  CHECK(!go_channel_is_closed(full));
  go_context_free(r.context);
  int64_t begin = coir_now();
  GoContext *soon = go_with_deadline(NULL, real_time_after(COIR_MS(20)));
  FAILS(go_channel_receive_with_context(empty, NULL, soon), ETIMEDOUT);
  FAILS(go_channel_send_with_context(full, NULL, soon), ETIMEDOUT);
  int64_t took = coir_now() - begin;
  CHECK(took > COIR_MS(15) && took < LATE);
  go_context_free(soon);
  go_channel_free(empty);
  go_channel_free(full);
}

ON_BOTH(with_a_context_as_without) {
  CancelContextResult r = go_context_with_cancel(NULL);
  for (int i = 0; i < 4; i++) {
    GoChannel *c = make(0);
    struct op op = {.chan = c, .context = r.context, .value = number(5)};
    start_op(&op, i % 2, i < 2 ? op_send : op_receive);
    void *v = number(5);
    CHECK_EQ(i < 2 ? go_channel_receive_with_context(c, &v, r.context) : go_channel_send(c, v), 0);
    CHECK_EQ((intptr_t)v, 5);
    WAIT_FOR(op.done);
    CHECK_EQ(op.rc, 0);
    CHECK_EQ((intptr_t)op.value, 5);
    go_channel_free(c);
  }
  go_context_free(r.context);
}

/* ---- Many parties ---------------------------------------------------------------------------------------------- */

enum { PRODUCERS = 6, CONSUMERS = 4 };

struct crowd {
  GoChannel *chan;
  int per_producer;
  _Atomic(int) next_producer;
  _Atomic(int64_t) sum, count;
};

static void produces(void *arg) {
  struct crowd *m = arg;
  int me = atomic_fetch_add(&m->next_producer, 1);
  for (int i = 0; i < m->per_producer; i++)
    CHECK_EQ(go_channel_send(m->chan, number((intptr_t)me * m->per_producer + i)), 0);
}

static void consumes(void *arg) {
  struct crowd *m = arg;
  intptr_t last[PRODUCERS];
  void *v;
  for (int i = 0; i < PRODUCERS; i++) last[i] = -1;
  while (go_channel_receive(m->chan, &v) == 0) {
    intptr_t *l = &last[(intptr_t)v / m->per_producer];
    CHECK(*l < (intptr_t)v); /* of each producer in order */
    *l = (intptr_t)v;
    atomic_fetch_add(&m->sum, (intptr_t)v);
    atomic_fetch_add(&m->count, 1);
  }
  CHECK_EQ(errno, EPIPE);
}

ON_BOTH(many_to_many) {
  for (size_t capacity = 0; capacity < 5; capacity += 2) {
    struct crowd m = {.chan = make(capacity), .per_producer = rounds(2000)};
    int64_t n = (int64_t)PRODUCERS * m.per_producer;
    for (int i = 0; i < CONSUMERS; i++) start(i % 2, consumes, &m);
    for (int i = 0; i < PRODUCERS; i++) start(i % 2, produces, &m);
    WAIT_FOR(m.count == n);
    go_channel_close(m.chan);
    until_idle();
    CHECK_EQ(m.sum, n * (n - 1) / 2);
    go_channel_free(m.chan);
  }
}

/* ---- References ------------------------------------------------------------------------------------------------ */

static void sends_last(void *chan) { CHECK_EQ(go_channel_send(chan, number(1)), 0); }

ON_BOTH(the_receiver_may_free_it) {
  for (int i = 0; i < rounds(2000); i++) {
    GoChannel *c = make((size_t)i % 3);
    void *v;
    start(i % 4 == 0, sends_last, c);
    CHECK_EQ(go_channel_receive(c, &v), 0);
    go_channel_free(c);
  }
}

static void closes(void *chan) {
  go_channel_close(chan);
  go_channel_free(chan);
}

ON_BOTH(the_last_of_two_frees_it) {
  for (int i = 0; i < rounds(1000); i++) {
    GoChannel *c = make(1);
    CHECK(go_channel_ref(c) == c);
    start(i % 4 == 0, closes, c);
    FAILS(go_channel_receive(c, NULL), EPIPE);
    go_channel_unref(c);
  }
}

/* ---- Being asked to stop --------------------------------------------------------------------------------------- */

static int waits_to_be_canceled(void *chan) {
  void *v = number(1);
  FAILS(go_channel_receive(chan, &v), ECANCELED);
  CHECK(v == NULL);
  return 0;
}

ON_BOTH(coir_cancel_ends_a_wait) {
  GoChannel *c = make(0);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), waits_to_be_canceled, c, NULL, &f), 0);
  pause_ms(5);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
  go_channel_free(c);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(capacity_is_exact),
      cmocka_unit_test(no_channel),
      cmocka_unit_test(too_large),
      cmocka_unit_test(what_is_buffered_survives_the_close),
      cmocka_unit_test(a_rendezvous_completes_when_it_is_taken),
      cmocka_unit_test(waiting_senders_are_served_in_order),
      cmocka_unit_test(the_close_ends_all_waits),
      cmocka_unit_test(a_context_that_was_cancelled_before),
      cmocka_unit_test(a_context_ends_waits),
      cmocka_unit_test(with_a_context_as_without),
      cmocka_unit_test(many_to_many),
      cmocka_unit_test(the_receiver_may_free_it),
      cmocka_unit_test(the_last_of_two_frees_it),
      cmocka_unit_test(coir_cancel_ends_a_wait),
  };
  return RUN_TESTS(argc, argv, tests);
}
