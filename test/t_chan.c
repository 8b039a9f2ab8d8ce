/* Channels: each sentence of their contract in coir.h, on fibers and on plain threads. */
#include "parked.h"

#define UNTOUCHED UINT64_C(0xdeadbeefdeadbeef)

static struct coir_chan *make(size_t capacity) {
  struct coir_chan *c = coir_chan_create(sizeof(uint64_t), capacity);
  CHECK(c != NULL);
  return c;
}

static int send_value(struct coir_chan *c, uint64_t value, int64_t deadline) {
  return coir_chan_send(c, &value, deadline);
}

/* What is received, or a negative error: the tests of this file send small numbers. */
static int64_t recv_value(struct coir_chan *c, int64_t deadline) {
  uint64_t value = UNTOUCHED;
  int rc = coir_chan_recv(c, &value, deadline);
  if (rc) CHECK_EQ(value, UNTOUCHED);
  return rc ? rc : (int64_t)value;
}

/* One call on a fiber or a thread of its own. */
struct op {
  struct coir_chan *chan;
  uint64_t value; /* to be sent, or received */
  int64_t deadline;
  _Atomic(int) done;
  int rc;
};

static int op_send(void *arg) {
  struct op *op = arg;
  op->rc = send_value(op->chan, op->value, op->deadline);
  poison_stack();
  atomic_store(&op->done, 1);
  return op->rc;
}

static int op_recv(void *arg) {
  struct op *op = arg;
  op->value = UNTOUCHED;
  op->rc = coir_chan_recv(op->chan, &op->value, op->deadline);
  poison_stack();
  atomic_store(&op->done, 1);
  return op->rc;
}

static void *thread_send(void *op) { return op_send(op), NULL; }
static void *thread_recv(void *op) { return op_recv(op), NULL; }

/* Starts ops one after the other, each when the one before waits. `first`: how many wait already. */
static void park(coir_fn fn, struct coir_chan *c, struct op *ops, struct coir_fiber **fibers, int n, int first) {
  for (int i = 0; i < n; i++) {
    ops[i] = (struct op){.chan = c, .value = (uint64_t)i, .deadline = COIR_NEVER};
    fibers[i] = spawn(fn, &ops[i]);
    until_parked(first + i + 1);
  }
}

static pthread_t start_thread(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, fn, arg), 0);
  return thread;
}

/* ---- Capacity, sizes, the state that can be asked -------------------------------------------------------------- */

static void fill(unsigned char *p, size_t bytes, size_t number) {
  for (size_t i = 0; i < bytes; i++) p[i] = (unsigned char)(number * 31 + i * 7 + (i >> 8));
}

static void send_numbered(struct coir_chan *c, size_t elem_bytes, size_t number, int expected) {
  unsigned char value[4096];
  fill(value, elem_bytes, number);
  CHECK_EQ(coir_chan_send(c, value, 0), expected);
  memset(value, 0xee, sizeof value); /* it was copied, or will not be */
}

static void recv_numbered(struct coir_chan *c, size_t elem_bytes, size_t number) {
  unsigned char value[4096 + 16], expected[4096];
  memset(value, 0x5a, sizeof value);
  fill(expected, elem_bytes, number);
  CHECK_EQ(coir_chan_recv(c, value + 8, 0), 0);
  CHECK(memcmp(value + 8, expected, elem_bytes) == 0);
  for (size_t i = 0; i < 8; i++) CHECK(value[i] == 0x5a && value[8 + elem_bytes + i] == 0x5a);
}

static void fill_and_drain(size_t elem_bytes, size_t capacity) {
  struct coir_chan *c = coir_chan_create(elem_bytes, capacity);
  CHECK(c != NULL);
  size_t sent = 0, received = 0;
  for (size_t turn = 0; turn < 4; turn++) {
    for (size_t i = 0; i < turn * capacity / 3; i++) { /* so that it fills from another place each time */
      send_numbered(c, elem_bytes, sent++, 0);
      recv_numbered(c, elem_bytes, received++);
    }
    for (size_t i = 0; i < capacity; i++) {
      CHECK_EQ(coir_chan_length(c), i);
      send_numbered(c, elem_bytes, sent++, 0);
    }
    CHECK_EQ(coir_chan_length(c), capacity);
    CHECK_EQ(coir_chan_capacity(c), capacity);
    send_numbered(c, elem_bytes, 999999, -ETIMEDOUT);
    CHECK_EQ(coir_chan_length(c), capacity);
    for (size_t i = 0; i < capacity; i++) {
      recv_numbered(c, elem_bytes, received++);
      CHECK_EQ(coir_chan_length(c), capacity - 1 - i);
    }
    CHECK_EQ(coir_chan_recv(c, NULL, 0), -ETIMEDOUT);
    CHECK_EQ(coir_chan_length(c), 0);
    CHECK(!coir_chan_is_closed(c));
  }
  coir_chan_unref(c);
}

ON_BOTH(capacity_and_size_are_exact) {
  static const size_t elem_bytes[] = {0, 1, 2, 3, 7, 8, 24, 4096}, capacities[] = {0, 1, 2, 3, 7, 8, 64, 1000};
  for (size_t i = 0; i < sizeof elem_bytes / sizeof *elem_bytes; i++)
    for (size_t j = 0; j < sizeof capacities / sizeof *capacities; j++) fill_and_drain(elem_bytes[i], capacities[j]);
}

struct big {
  unsigned char bytes[4096];
};

static int sends_big(void *arg) {
  struct big value;
  for (size_t i = 0; i < 50; i++) {
    fill(value.bytes, sizeof value.bytes, i);
    CHECK_EQ(coir_chan_send(arg, &value, COIR_NEVER), 0);
    memset(&value, 0xee, sizeof value);
  }
  return 0;
}

ON_FIBER(big_values_go_from_hand_to_hand) {
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = coir_chan_create(sizeof(struct big), capacity);
    struct coir_fiber *f = spawn(sends_big, c);
    for (size_t i = 0; i < 50; i++) {
      struct big value, expected;
      fill(expected.bytes, sizeof expected.bytes, i);
      memset(&value, 0, sizeof value);
      CHECK_EQ(coir_chan_recv(c, &value, COIR_NEVER), 0);
      CHECK(memcmp(&value, &expected, sizeof value) == 0);
    }
    join(f);
    coir_chan_unref(c);
  }
}

static int signals(void *arg) {
  char nothing = 1;
  for (int i = 0; i < 1000; i++) CHECK_EQ(coir_chan_send(arg, &nothing, COIR_NEVER), 0);
  coir_chan_close(arg);
  return 0;
}

ON_FIBER(values_of_no_bytes_are_counted) {
  for (size_t capacity = 0; capacity < 4; capacity++) {
    struct coir_chan *c = coir_chan_create(0, capacity);
    struct coir_fiber *f = spawn(signals, c);
    int n = 0;
    char untouched = 77;
    while (coir_chan_recv(c, n % 2 ? NULL : &untouched, COIR_NEVER) == 0) n++;
    CHECK_EQ(n, 1000);
    CHECK_EQ(untouched, 77);
    join(f);
    coir_chan_unref(c);
  }
}

ON_BOTH(null_arguments) {
  struct coir_chan *c = make(1);
  uint64_t value = 5;
  CHECK_EQ(coir_chan_send(NULL, &value, 0), -EINVAL);
  CHECK_EQ(coir_chan_send(NULL, &value, COIR_NEVER), -EINVAL);
  CHECK_EQ(coir_chan_send(c, NULL, 0), -EINVAL);
  CHECK_EQ(coir_chan_send(c, NULL, COIR_NEVER), -EINVAL);
  CHECK_EQ(coir_chan_recv(NULL, &value, 0), -EINVAL);
  CHECK_EQ(coir_chan_recv(NULL, &value, COIR_NEVER), -EINVAL);
  CHECK_EQ(coir_chan_recv(NULL, NULL, 0), -EINVAL);
  CHECK_EQ(value, 5);
  CHECK_EQ(coir_chan_length(c), 0);
  CHECK_EQ(coir_chan_length(NULL), 0);
  CHECK_EQ(coir_chan_capacity(NULL), 0);
  CHECK(!coir_chan_is_closed(NULL));
  CHECK(coir_chan_ref(NULL) == NULL);
  coir_chan_unref(NULL);
  coir_chan_close(NULL);
  coir_chan_unref(c);
  c = coir_chan_create(0, 1); /* where there are no bytes, there need not be an address */
  CHECK_EQ(coir_chan_send(c, NULL, 0), 0);
  CHECK_EQ(coir_chan_send(c, NULL, 0), -ETIMEDOUT);
  CHECK_EQ(coir_chan_recv(c, NULL, 0), 0);
  coir_chan_unref(c);
}

ON_BOTH(sizes_that_cannot_be) {
  static const struct {
    size_t elem_bytes, capacity;
  } sizes[] = {{8, SIZE_MAX},         {SIZE_MAX, 2},           {SIZE_MAX / 2 + 1, 2}, {SIZE_MAX, SIZE_MAX},
               {SIZE_MAX / 8 + 1, 8}, {24, SIZE_MAX / 24 + 1}, {4, SIZE_MAX / 4},     {1, SIZE_MAX},
               {1, SIZE_MAX - 1},     {SIZE_MAX, 1},           {SIZE_MAX - 63, 1},    {1, SIZE_MAX - 200}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (!IS_SANITIZED || sizes[i].elem_bytes > SIZE_MAX / sizes[i].capacity) /* they abort on a huge allocation */
      CHECK(coir_chan_create(sizes[i].elem_bytes, sizes[i].capacity) == NULL);
  struct coir_chan *c = coir_chan_create(0, SIZE_MAX); /* needs no memory, so it may exist */
  if (c) CHECK(coir_chan_capacity(c) == SIZE_MAX);
  coir_chan_unref(c);
}

/* ---- Rendezvous and direct hand-over --------------------------------------------------------------------------- */

ON_FIBER(a_rendezvous_needs_a_receiver_that_waits) {
  struct coir_chan *c = make(0);
  CHECK_EQ(send_value(c, 1, 0), -ETIMEDOUT);
  CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
  CHECK_EQ(send_value(c, 1, coir_after(COIR_MS(1))), -ETIMEDOUT);
  CHECK_EQ(recv_value(c, coir_after(COIR_MS(1))), -ETIMEDOUT);
  struct op op;
  struct coir_fiber *f;
  park(op_recv, c, &op, &f, 1, 0);
  CHECK_EQ(coir_chan_length(c), 0);
  CHECK_EQ(send_value(c, 7, 0), 0);
  CHECK_EQ(send_value(c, 8, 0), -ETIMEDOUT); /* there was one receiver */
  CHECK_EQ(coir_chan_length(c), 0);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(op.value, 7);

  park(op_send, c, &op, &f, 1, 0);
  CHECK_EQ(coir_chan_length(c), 0);
  CHECK(!atomic_load(&op.done)); /* nobody has taken it yet */
  CHECK_EQ(coir_join(f, NULL, coir_after(COIR_MS(1))), -ETIMEDOUT);
  CHECK_EQ(send_value(c, 8, 0), -ETIMEDOUT); /* senders are not receivers */
  CHECK_EQ(recv_value(c, 0), 0);
  CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
  CHECK_EQ(join(f), 0);
  coir_chan_unref(c);
}

ON_FIBER(what_is_handed_over_belongs_to_who_waited) {
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    struct op op[2];
    struct coir_fiber *f[2];
    park(op_recv, c, op, f, 2, 0);
    CHECK_EQ(send_value(c, 4, 0), 0);
    CHECK_EQ(coir_chan_length(c), 0);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT); /* even before the one that has it has run */
    CHECK_EQ(send_value(c, 5, 0), 0);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
    CHECK_EQ(join(f[0]), 0);
    CHECK_EQ(join(f[1]), 0);
    CHECK_EQ(op[0].value, 4);
    CHECK_EQ(op[1].value, 5);
    coir_chan_unref(c);
  }
}

ON_FIBER(a_waiting_sender_comes_before_a_new_one) {
  for (size_t capacity = 1; capacity < 4; capacity++) {
    struct coir_chan *c = make(capacity);
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(send_value(c, 100 + i, 0), 0);
    struct op op[3];
    struct coir_fiber *f[3];
    park(op_send, c, op, f, 3, 0);
    CHECK_EQ(coir_chan_length(c), capacity);
    CHECK_EQ(recv_value(c, 0), 100);
    CHECK_EQ(coir_chan_length(c), capacity);   /* the first that waited has filled the gap */
    CHECK_EQ(send_value(c, 9, 0), -ETIMEDOUT); /* so nobody else can */
    CHECK_EQ(join(f[0]), 0);
    for (size_t i = 1; i < capacity; i++) CHECK_EQ(recv_value(c, 0), 100 + (int64_t)i);
    for (int i = 0; i < 3; i++) CHECK_EQ(recv_value(c, 0), i);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
    for (int i = 1; i < 3; i++) CHECK_EQ(join(f[i]), 0);
    CHECK_EQ(coir_chan_length(c), 0);
    coir_chan_unref(c);
  }
}

/* ---- Order ----------------------------------------------------------------------------------------------------- */

ON_FIBER(senders_are_served_in_turn) {
  enum { N = 40 };
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(send_value(c, 1000 + i, 0), 0);
    struct op ops[N];
    struct coir_fiber *f[N];
    park(op_send, c, ops, f, N, 0);
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(recv_value(c, COIR_NEVER), 1000 + (int64_t)i);
    for (int i = 0; i < N; i++) CHECK_EQ(recv_value(c, COIR_NEVER), i);
    for (int i = 0; i < N; i++) CHECK_EQ(join(f[i]), 0);
    coir_chan_unref(c);
  }
}

ON_FIBER(receivers_are_served_in_turn) {
  enum { N = 40 };
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    struct op ops[N];
    struct coir_fiber *f[N];
    park(op_recv, c, ops, f, N, 0);
    for (uint64_t i = 0; i < N; i++) CHECK_EQ(send_value(c, i, 0), 0);
    for (int i = 0; i < N; i++) {
      CHECK_EQ(join(f[i]), 0);
      CHECK_EQ(ops[i].value, i);
    }
    coir_chan_unref(c);
  }
}

/* Who leaves the queue does not disturb the order of the others. */
ON_FIBER(those_that_leave_lose_nobodys_turn) {
  enum { N = 30 };
  for (int sends = 0; sends < 2; sends++) {
    struct coir_chan *c = make(0);
    struct op ops[N];
    struct coir_fiber *f[N];
    park(sends ? op_send : op_recv, c, ops, f, N, 0);
    for (int i = 0; i < N; i += 3) {
      CHECK_EQ(coir_cancel(f[i]), 0);
      CHECK_EQ(join(f[i]), -ECANCELED);
    }
    for (int i = 0; i < N; i++) {
      if (i % 3 == 0) continue;
      if (sends) CHECK_EQ(recv_value(c, 0), i);
      else CHECK_EQ(send_value(c, (uint64_t)i, 0), 0);
    }
    CHECK_EQ(sends ? recv_value(c, 0) : send_value(c, 1, 0), -ETIMEDOUT);
    for (int i = 0; i < N; i++) {
      if (i % 3 == 0) continue;
      CHECK_EQ(join(f[i]), 0);
      CHECK_EQ(ops[i].value, i);
    }
    coir_chan_unref(c);
  }
}

ON_FIBER(thousands_wait_and_half_of_them_leave) {
  const int n = rounds(4000);
  struct coir_chan *c = make(0);
  struct op *ops = calloc((size_t)n, sizeof *ops);
  struct coir_fiber **f = calloc((size_t)n, sizeof(void *));
  CHECK(ops && f);
  for (int i = 0; i < n; i++) {
    ops[i] = (struct op){.chan = c, .value = (uint64_t)i, .deadline = COIR_NEVER};
    f[i] = spawn(op_send, &ops[i]);
  }
  until_parked(n);
  for (int i = 0; i < n; i += 2) CHECK_EQ(coir_cancel(f[i]), 0);
  for (int i = 0; i < n / 2; i++) CHECK_EQ(recv_value(c, COIR_NEVER) % 2, 1);
  CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
  for (int i = 0; i < n; i++) CHECK_EQ(join(f[i]), i % 2 ? 0 : -ECANCELED);
  free(ops), free(f);
  coir_chan_unref(c);
}

/* ---- Close ----------------------------------------------------------------------------------------------------- */

ON_BOTH(buffered_values_survive_close) {
  for (size_t n = 0; n <= 5; n++) {
    struct coir_chan *c = make(5);
    for (size_t i = 0; i < n; i++) CHECK_EQ(send_value(c, i, 0), 0);
    CHECK(!coir_chan_is_closed(c));
    coir_chan_close(c);
    CHECK(coir_chan_is_closed(c));
    coir_chan_close(c); /* does nothing */
    CHECK(coir_chan_is_closed(c));
    CHECK_EQ(coir_chan_length(c), n);
    CHECK_EQ(coir_chan_capacity(c), 5);
    CHECK_EQ(send_value(c, 9, 0), -EPIPE); /* though there may be room */
    CHECK_EQ(send_value(c, 9, COIR_NEVER), -EPIPE);
    CHECK_EQ(send_value(c, 9, coir_after(COIR_SEC(100))), -EPIPE);
    CHECK_EQ(coir_chan_length(c), n);
    static const int64_t deadlines[] = {0, COIR_NEVER, -1};
    for (size_t i = 0; i < n; i++) CHECK_EQ(recv_value(c, deadlines[i % 3]), (int64_t)i);
    for (int i = 0; i < 3; i++) CHECK_EQ(recv_value(c, deadlines[i]), -EPIPE);
    CHECK_EQ(coir_chan_recv(c, NULL, COIR_NEVER), -EPIPE);
    coir_chan_close(c);
    CHECK_EQ(coir_chan_length(c), 0);
    coir_chan_unref(c);
  }
}

ON_FIBER(waiting_senders_keep_their_values_at_close) {
  enum { N = 20 };
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(send_value(c, 100 + i, 0), 0);
    struct op ops[N];
    struct coir_fiber *f[N];
    park(op_send, c, ops, f, N, 0);
    coir_chan_close(c);
    CHECK_EQ(coir_chan_length(c), capacity);
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(recv_value(c, 0), 100 + (int64_t)i);
    CHECK_EQ(recv_value(c, 0), -EPIPE); /* what the waiting ones had is not received by anybody */
    for (int i = 0; i < N; i++) CHECK_EQ(join(f[i]), -EPIPE);
    CHECK_EQ(recv_value(c, 0), -EPIPE);
    coir_chan_unref(c);
  }
}

ON_FIBER(waiting_receivers_return_at_close) {
  enum { N = 20 };
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    struct op ops[N];
    struct coir_fiber *f[N];
    park(op_recv, c, ops, f, N, 0);
    coir_chan_close(c);
    coir_chan_close(c);
    for (int i = 0; i < N; i++) {
      CHECK_EQ(join(f[i]), -EPIPE);
      CHECK_EQ(ops[i].value, UNTOUCHED);
    }
    coir_chan_unref(c);
  }
}

/* ---- Deadlines ------------------------------------------------------------------------------------------------- */

ON_BOTH(a_deadline_that_has_passed_means_try_once) {
  const int64_t past[] = {0, -1, 1, INT64_MIN, coir_now(), coir_now() - COIR_SEC(1)};
  for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
    struct coir_chan *c = make(1);
    CHECK_EQ(recv_value(c, past[i]), -ETIMEDOUT);
    CHECK_EQ(send_value(c, 1, past[i]), 0);
    CHECK_EQ(send_value(c, 2, past[i]), -ETIMEDOUT);
    CHECK_EQ(recv_value(c, past[i]), 1);
    CHECK_EQ(recv_value(c, past[i]), -ETIMEDOUT);
    coir_chan_unref(c);
    c = make(0);
    CHECK_EQ(recv_value(c, past[i]), -ETIMEDOUT);
    CHECK_EQ(send_value(c, 2, past[i]), -ETIMEDOUT);
    coir_chan_unref(c);
  }
}

ON_BOTH(deadlines_end_the_wait_and_leave_no_trace) {
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    for (int i = 0; i < 5; i++) {
      int64_t until = coir_after(COIR_US(50 << (2 * i)));
      CHECK_EQ(recv_value(c, until), -ETIMEDOUT);
      CHECK(coir_now() >= until);
      poison_stack();
    }
    CHECK_EQ(send_value(c, 1, 0), capacity ? 0 : -ETIMEDOUT); /* nobody waits any more */
    CHECK_EQ(coir_chan_length(c), capacity ? 1 : 0);
    for (size_t i = 1; i < capacity; i++) CHECK_EQ(send_value(c, 1, 0), 0);
    for (int i = 0; i < 5; i++) {
      int64_t until = coir_after(COIR_US(50 << (2 * i)));
      CHECK_EQ(send_value(c, 2, until), -ETIMEDOUT);
      CHECK(coir_now() >= until);
      poison_stack();
    }
    CHECK_EQ(coir_chan_length(c), capacity);
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(recv_value(c, 0), 1);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
    coir_chan_unref(c);
  }
}

ON_FIBER(a_wait_that_succeeds_forgets_its_deadline) {
  struct coir_chan *c = make(0);
  for (int i = 0; i < 50; i++) {
    struct op op = {.chan = c, .value = 3, .deadline = coir_after(COIR_SEC(100))};
    struct coir_fiber *f = spawn(i % 2 ? op_send : op_recv, &op);
    until_parked(1);
    if (i % 2) CHECK_EQ(recv_value(c, coir_after(COIR_SEC(100))), 3);
    else CHECK_EQ(send_value(c, 3, coir_after(COIR_SEC(100))), 0);
    CHECK_EQ(join(f), 0);
    CHECK_EQ(op.value, 3);
  }
  coir_chan_unref(c);
}

/* ---- Cancellation ---------------------------------------------------------------------------------------------- */

ON_FIBER(cancelling_a_waiting_call_loses_and_takes_nothing) {
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    struct op op;
    struct coir_fiber *f;
    park(op_recv, c, &op, &f, 1, 0);
    CHECK_EQ(coir_cancel(f), 0);
    if (capacity) CHECK_EQ(send_value(c, 6, 0), 0);
    else CHECK_EQ(send_value(c, 6, 0), -ETIMEDOUT);
    CHECK_EQ(join(f), -ECANCELED);
    CHECK_EQ(op.value, UNTOUCHED);
    CHECK_EQ(coir_chan_length(c), capacity ? 1 : 0);
    for (size_t i = 1; i < capacity; i++) CHECK_EQ(send_value(c, 6, 0), 0);
    park(op_send, c, &op, &f, 1, 0);
    CHECK_EQ(coir_cancel(f), 0);
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(recv_value(c, 0), 6);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT); /* its value went nowhere */
    CHECK_EQ(join(f), -ECANCELED);
    CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
    coir_chan_unref(c);
  }
}

static int cancelled_then_waits_again(void *arg) {
  struct coir_chan **c = arg;
  CHECK_EQ(recv_value(c[0], COIR_NEVER), -ECANCELED);
  CHECK_EQ(send_value(c[0], 1, COIR_NEVER), 0); /* once: later calls wait as usual */
  CHECK_EQ(recv_value(c[1], COIR_NEVER), 8);
  return 0;
}

ON_FIBER(a_cancellation_is_delivered_once) {
  struct coir_chan *c[2] = {make(0), make(0)};
  struct coir_fiber *f = spawn(cancelled_then_waits_again, c);
  until_parked(1);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(recv_value(c[0], COIR_NEVER), 1);
  until_parked(1);
  CHECK_EQ(send_value(c[1], 8, COIR_NEVER), 0);
  CHECK_EQ(join(f), 0);
  coir_chan_unref(c[0]), coir_chan_unref(c[1]);
}

ON_FIBER(a_pending_cancellation_ends_the_next_wait) {
  struct coir_chan *c = make(1);
  coir_cancel(coir_current());
  CHECK_EQ(recv_value(c, COIR_NEVER), -ECANCELED);
  CHECK_EQ(recv_value(c, coir_after(COIR_US(200))), -ETIMEDOUT);
  CHECK_EQ(send_value(c, 1, 0), 0);
  coir_cancel(coir_current());
  CHECK_EQ(send_value(c, 2, COIR_NEVER), -ECANCELED);
  CHECK_EQ(send_value(c, 2, coir_after(COIR_US(200))), -ETIMEDOUT);
  CHECK_EQ(recv_value(c, 0), 1);
  CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
  coir_chan_unref(c);
}

/* A call that need not wait may take notice of it or leave it to the next one; either way it comes exactly once, and
 * the call has done all of its work or none. */
ON_FIBER(a_pending_cancellation_meets_a_call_that_need_not_wait) {
  static const int64_t deadlines[] = {COIR_NEVER, 0};
  for (int i = 0; i < 2; i++) {
    struct coir_chan *c = make(1);
    coir_cancel(coir_current());
    int sent = send_value(c, 4, deadlines[i]);
    CHECK(sent == 0 || sent == -ECANCELED);
    CHECK_EQ(coir_chan_length(c), sent ? 0 : 1);
    CHECK_EQ(coir_sleep(sent ? 0 : COIR_SEC(100)), sent ? 0 : -ECANCELED);
    if (sent) CHECK_EQ(send_value(c, 4, 0), 0);
    coir_cancel(coir_current());
    int64_t got = recv_value(c, deadlines[i]);
    CHECK(got == 4 || got == -ECANCELED);
    CHECK_EQ(coir_chan_length(c), got == 4 ? 0 : 1);
    CHECK_EQ(coir_sleep(got == 4 ? COIR_SEC(100) : 0), got == 4 ? -ECANCELED : 0);
    coir_chan_unref(c);
  }
}

static int recv_until_over(void *arg) {
  struct op *op = arg;
  int rc = op_recv(op);
  coir_chan_unref(op->chan);
  return rc;
}

static void stop_cancels_those_that_wait(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  struct coir_chan *c = make(0);
  struct op ops[10];
  struct coir_fiber *f[10];
  for (int i = 0; i < 10; i++) {
    ops[i] = (struct op){.chan = coir_chan_ref(c), .deadline = COIR_NEVER};
    CHECK_EQ(coir_runtime_spawn(rt, recv_until_over, &ops[i], NULL, &f[i]), 0);
  }
  until_parked_in(rt, 10);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
  for (int i = 0; i < 10; i++) CHECK_EQ(join(f[i]), -ECANCELED);
  CHECK_EQ(send_value(c, 1, 0), -ETIMEDOUT);
  coir_chan_unref(c);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* Fibers that are dropped where they wait are gone from the channel's queues as well. */
static void dropped_fibers_wait_no_more(void **state) {
  (void)state;
  for (int sends = 0; sends < 2; sends++) {
    struct coir_runtime *rt = make_runtime((struct coir_config){0});
    CHECK_EQ(coir_runtime_start(rt), 0);
    struct coir_chan *c = make(0), *full = make(1);
    CHECK_EQ(send_value(full, 1, 0), 0);
    struct op ops[20];
    for (int i = 0; i < 20; i++) {
      ops[i] = (struct op){.chan = sends && i % 2 ? full : c, .value = 9, .deadline = COIR_NEVER};
      if (i % 4 == 0) ops[i].deadline = coir_after(COIR_SEC(1000));
      CHECK_EQ(coir_runtime_spawn(rt, sends ? op_send : op_recv, &ops[i], NULL, NULL), 0);
    }
    until_parked_in(rt, 20);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    if (sends) CHECK_EQ(recv_value(c, 0), -ETIMEDOUT);
    else CHECK_EQ(send_value(c, 9, 0), -ETIMEDOUT);
    CHECK_EQ(recv_value(full, 0), 1);
    CHECK_EQ(recv_value(full, 0), -ETIMEDOUT);
    coir_chan_close(c);
    coir_chan_unref(c), coir_chan_unref(full);
  }
}

/* ---- References ------------------------------------------------------------------------------------------------ */

ON_BOTH(the_last_reference_frees) {
  struct coir_chan *c = make(2);
  CHECK(coir_chan_ref(c) == c);
  CHECK(coir_chan_ref(c) == c);
  coir_chan_unref(c);
  coir_chan_unref(c);
  CHECK_EQ(send_value(c, 1, 0), 0); /* one is left */
  CHECK_EQ(coir_chan_length(c), 1);
  coir_chan_unref(c); /* with what it buffers */
  for (int i = 0; i < 50; i++) {
    c = make((size_t)(i % 3));
    if (i % 2) coir_chan_close(c);
    coir_chan_unref(c);
  }
}

static long resident_kib(void) {
  FILE *f = fopen("/proc/self/statm", "r");
  long pages = 0;
  if (!f) return 0;
  CHECK_EQ(fscanf(f, "%*d %ld", &pages), 1);
  fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Half a gigabyte goes through, a quarter of a megabyte at a time. */
ON_BOTH(memory_comes_back) {
  if (IS_SANITIZED) return; /* they tell what is not freed, and keep what is */
  long before = resident_kib();
  unsigned char value[4096];
  memset(value, 1, sizeof value);
  for (int i = 0; i < 2000; i++) {
    struct coir_chan *c = coir_chan_create(sizeof value, 64);
    CHECK(c != NULL);
    for (int j = 0; j < 64; j++) CHECK_EQ(coir_chan_send(c, value, 0), 0);
    coir_chan_unref(c);
  }
  CHECK(resident_kib() - before < 100 * 1024);
}

static int refs_and_unrefs(void *c) {
  for (int i = 0; i < 500; i++) {
    coir_chan_ref(c);
    if (i % 16 == 0) coir_yield();
    (void)send_value(c, 1, 0);
    (void)recv_value(c, 0);
    coir_chan_unref(c);
  }
  coir_chan_unref(c);
  return 0;
}

static void *refs_on_a_thread(void *c) { return refs_and_unrefs(c), NULL; }

ON_FIBER(references_are_counted_by_all) {
  struct coir_chan *c = make(3);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) threads[i] = start_thread(refs_on_a_thread, coir_chan_ref(c));
  for (int i = 0; i < 30; i++) CHECK_EQ(coir_go(refs_and_unrefs, coir_chan_ref(c)), 0);
  coir_chan_unref(c); /* the others' references keep it */
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static int hands_over_and_lets_go(void *arg) {
  uint64_t value = 5;
  CHECK_EQ(coir_chan_send(arg, &value, COIR_NEVER), 0);
  coir_chan_unref(arg);
  return 0;
}

struct sender {
  struct coir_chan *chan;
  _Atomic(int) done;
};

static int sends_without_reference(void *arg) {
  struct sender *s = arg;
  struct coir_chan *c = s->chan;
  for (uint64_t i = 0; i < 3; i++) CHECK_EQ(coir_chan_send(c, &i, COIR_NEVER), 0);
  atomic_store(&s->done, 1);
  return 0;
}

static void *thread_sends_without_reference(void *s) { return sends_without_reference(s), NULL; }

/* Whoever receives the last value may give up the last reference, though the sender has not returned yet. */
ON_FIBER(a_sender_needs_no_reference_once_it_is_received) {
  for (int i = 0; i < rounds(6000); i++) {
    struct sender s = {.chan = make((size_t)(i % 4))};
    pthread_t thread;
    struct coir_fiber *f = NULL;
    bool on_thread = i % 64 == 63;
    if (on_thread) thread = start_thread(thread_sends_without_reference, &s);
    else f = spawn(sends_without_reference, &s);
    for (int j = 0; j < 3; j++) CHECK_EQ(recv_value(s.chan, i % 3 ? COIR_NEVER : coir_after(COIR_SEC(100))), j);
    coir_chan_unref(s.chan);
    if (on_thread) pthread_join(thread, NULL);
    else join(f);
    CHECK(atomic_load(&s.done));
  }
}

/* Either side may be the last, and be it while the other one has hardly left its call. */
ON_FIBER(each_side_lets_go_as_soon_as_it_has_met_the_other) {
  for (int i = 0; i < rounds(5000); i++) {
    struct coir_chan *c = make(0);
    CHECK_EQ(coir_go(hands_over_and_lets_go, coir_chan_ref(c)), 0);
    CHECK_EQ(recv_value(c, COIR_NEVER), 5);
    coir_chan_unref(c);
  }
}

/* ---- Many to many; fibers, runtimes and threads ---------------------------------------------------------------- */

#define PARTIES_MAX 16

struct traffic {
  struct coir_chan *chan;
  int values; /* per sender */
  _Atomic(int) senders;
  _Atomic(uint64_t) received, sum;
};

struct party {
  struct traffic *t;
  uint64_t index;
};

/* What a message points at is written before it is sent, without any other protection. */
struct message {
  uint64_t sender, number;
};

static int party_sends(void *arg) {
  struct party *p = arg;
  for (int i = 0; i < p->t->values; i++) {
    struct message *m = malloc(sizeof *m);
    CHECK(m);
    *m = (struct message){p->index, (uint64_t)i};
    CHECK_EQ(coir_chan_send(p->t->chan, &m, COIR_NEVER), 0);
  }
  if (atomic_fetch_sub(&p->t->senders, 1) == 1) coir_chan_close(p->t->chan);
  return 0;
}

static int party_receives(void *arg) {
  struct party *p = arg;
  struct message *m;
  uint64_t next[PARTIES_MAX] = {0}, n = 0, sum = 0;
  int rc;
  while ((rc = coir_chan_recv(p->t->chan, &m, COIR_NEVER)) == 0) {
    CHECK(m->sender < PARTIES_MAX && m->number >= next[m->sender]); /* one sender's come in order */
    next[m->sender] = m->number + 1;
    n++;
    sum += m->sender * 1000003 + m->number;
    free(m);
  }
  CHECK_EQ(rc, -EPIPE);
  atomic_fetch_add(&p->t->received, n);
  atomic_fetch_add(&p->t->sum, sum);
  return 0;
}

static void *thread_sends(void *arg) { return party_sends(arg), NULL; }
static void *thread_receives(void *arg) { return party_receives(arg), NULL; }

static const struct mix {
  size_t capacity;
  int fibers_send, threads_send, fibers_receive, threads_receive, values;
} mixes[] = {
    {0, 1, 0, 1, 0, 2000},  {1, 1, 0, 1, 0, 2000}, {7, 1, 0, 1, 0, 5000},   {0, 8, 0, 1, 0, 500},
    {0, 1, 0, 8, 0, 3000},  {0, 6, 0, 6, 0, 500},  {3, 6, 0, 6, 0, 1000},   {128, 8, 0, 8, 0, 1000},
    {0, 0, 1, 1, 0, 500},   {0, 1, 0, 0, 1, 500},  {0, 0, 1, 0, 1, 300},    {1, 0, 1, 0, 1, 500},
    {0, 3, 2, 3, 2, 200},   {2, 3, 2, 3, 2, 300},  {64, 4, 3, 4, 3, 1000},  {0, 0, 3, 3, 0, 300},
    {16, 3, 0, 0, 3, 1000}, {1, 0, 4, 0, 4, 300},  {1000, 4, 4, 4, 4, 500},
};

/* The parties take turns among the runtimes (NULL: the caller's). */
static void run_mix(const struct mix *mix, struct coir_runtime *a, struct coir_runtime *b) {
  struct traffic t = {.chan = coir_chan_create(sizeof(void *), mix->capacity), .values = rounds(mix->values)};
  struct party parties[PARTIES_MAX];
  struct coir_fiber *fibers[PARTIES_MAX];
  pthread_t threads[PARTIES_MAX];
  int n = 0, nf = 0, nt = 0;
  t.senders = mix->fibers_send + mix->threads_send;
  for (int i = 0; i < mix->threads_receive; i++, n++, nt++) {
    parties[n] = (struct party){&t, (uint64_t)n};
    threads[nt] = start_thread(thread_receives, &parties[n]);
  }
  for (int i = 0; i < mix->fibers_receive; i++, n++, nf++) {
    parties[n] = (struct party){&t, (uint64_t)n};
    if (a) CHECK_EQ(coir_runtime_spawn(i % 2 ? a : b, party_receives, &parties[n], NULL, &fibers[nf]), 0);
    else fibers[nf] = spawn(party_receives, &parties[n]);
  }
  uint64_t sum = 0, values = (uint64_t)t.values;
  for (int i = 0; i < mix->fibers_send + mix->threads_send; i++, n++) {
    parties[n] = (struct party){&t, (uint64_t)n};
    sum += values * (uint64_t)n * 1000003 + values * (values - 1) / 2;
    if (i >= mix->fibers_send) threads[nt++] = start_thread(thread_sends, &parties[n]);
    else if (a) CHECK_EQ(coir_runtime_spawn(i % 2 ? b : a, party_sends, &parties[n], NULL, &fibers[nf++]), 0);
    else fibers[nf++] = spawn(party_sends, &parties[n]);
  }
  while (nf) CHECK_EQ(join(fibers[--nf]), 0);
  while (nt) pthread_join(threads[--nt], NULL);
  CHECK_EQ(t.received, values * (uint64_t)(mix->fibers_send + mix->threads_send));
  CHECK_EQ(t.sum, sum);
  CHECK_EQ(coir_chan_length(t.chan), 0);
  coir_chan_unref(t.chan);
}

ON_FIBER(many_to_many) {
  for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) run_mix(&mixes[i], NULL, NULL);
}

static void between_runtimes(void **state) {
  (void)state;
  struct coir_runtime *a = make_runtime((struct coir_config){0}), *b = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(a), 0);
  CHECK_EQ(coir_runtime_start(b), 0);
  for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) run_mix(&mixes[i], a, b);
  CHECK_EQ(coir_runtime_stop(a, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_stop(b, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(a), 0);
  CHECK_EQ(coir_runtime_destroy(b), 0);
}

struct pair {
  struct coir_chan *there, *back;
  int n;
};

static int echoes(void *arg) {
  struct pair *p = arg;
  for (int i = 0; i < p->n; i++)
    CHECK_EQ(send_value(p->back, (uint64_t)recv_value(p->there, COIR_NEVER), COIR_NEVER), 0);
  return 0;
}

static void *thread_echoes(void *arg) { return echoes(arg), NULL; }

static void ping(struct pair *p) {
  for (int i = 0; i < p->n; i++) {
    CHECK_EQ(send_value(p->there, (uint64_t)i, COIR_NEVER), 0);
    CHECK_EQ(recv_value(p->back, COIR_NEVER), i);
  }
}

ON_BOTH(ping_pong_with_a_thread) {
  for (size_t capacity = 0; capacity < 2; capacity++) {
    struct pair p = {make(capacity), make(capacity), rounds(1000)};
    pthread_t thread = start_thread(thread_echoes, &p);
    ping(&p);
    pthread_join(thread, NULL);
    coir_chan_unref(p.there), coir_chan_unref(p.back);
  }
}

ON_FIBER(ping_pong_with_a_fiber) {
  for (size_t capacity = 0; capacity < 2; capacity++) {
    struct pair p = {make(capacity), make(capacity), rounds(20000)};
    struct coir_fiber *f = spawn(echoes, &p);
    ping(&p);
    join(f);
    coir_chan_unref(p.there), coir_chan_unref(p.back);
  }
}

/* Threads that wait when the channel is closed, or until their deadline. */
ON_FIBER(threads_wait_like_fibers) {
  for (size_t capacity = 0; capacity < 2; capacity++) {
    struct coir_chan *c = make(capacity);
    if (capacity) CHECK_EQ(send_value(c, 77, 0), 0);
    struct op ops[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
      int64_t deadline = i % 2 ? COIR_NEVER : coir_after(COIR_MS(2));
      ops[i] = (struct op){.chan = c, .value = (uint64_t)i, .deadline = deadline};
      threads[i] = start_thread(thread_send, &ops[i]);
    }
    for (int i = 0; i < 4; i += 2) {
      pthread_join(threads[i], NULL);
      CHECK_EQ(ops[i].rc, -ETIMEDOUT);
      CHECK(coir_now() >= ops[i].deadline);
    }
    coir_sleep(COIR_MS(1));
    coir_chan_close(c);
    for (int i = 1; i < 4; i += 2) {
      pthread_join(threads[i], NULL);
      CHECK_EQ(ops[i].rc, -EPIPE);
    }
    CHECK_EQ(recv_value(c, 0), capacity ? 77 : -EPIPE);
    CHECK_EQ(recv_value(c, 0), -EPIPE);
    coir_chan_unref(c);
    c = make(0);
    for (int i = 0; i < 4; i++) {
      int64_t deadline = i % 2 ? COIR_NEVER : coir_after(COIR_MS(2));
      ops[i] = (struct op){.chan = c, .deadline = deadline};
      threads[i] = start_thread(thread_recv, &ops[i]);
    }
    coir_sleep(COIR_MS(3));
    coir_chan_close(c);
    for (int i = 0; i < 4; i++) {
      pthread_join(threads[i], NULL);
      CHECK(ops[i].rc == -EPIPE || (i % 2 == 0 && ops[i].rc == -ETIMEDOUT));
      CHECK_EQ(ops[i].value, UNTOUCHED);
    }
    coir_chan_unref(c);
  }
}

/* One worker uses a channel for long and alone; then others come, from other workers and from outside. */
static int sends_a_hundred(void *c) {
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(send_value(c, 3, COIR_NEVER), 0);
    if (i % 10 == 9) coir_yield();
  }
  return 0;
}

ON_FIBER(a_channel_that_one_worker_had_for_itself) {
  struct coir_chan *c = make(2000);
  size_t length = 0;
  for (int i = 0; i < rounds(100); i++) {
    for (int j = 0; j < i % 5 * 1000; j++) { /* alone */
      CHECK_EQ(send_value(c, 3, 0), 0);
      CHECK_EQ(recv_value(c, 0), 3);
    }
    struct coir_fiber *f[4];
    for (int j = 0; j < 4; j++) f[j] = spawn(sends_a_hundred, c);
    struct op op = {.chan = c, .value = 3, .deadline = COIR_NEVER};
    pthread_t thread;
    if (i % 4 == 0) thread = start_thread(thread_send, &op);
    for (int j = 0; j < 200; j++) CHECK_EQ(recv_value(c, COIR_NEVER), 3);
    for (int j = 0; j < 4; j++) join(f[j]);
    if (i % 4 == 0) pthread_join(thread, NULL);
    length += 200 + (i % 4 == 0);
    CHECK_EQ(coir_chan_length(c), length);
    if (length < 1500) continue;
    for (; length; length--) CHECK_EQ(recv_value(c, 0), 3);
  }
  coir_chan_unref(c);
}

/* ---- Dropping values; typed channels --------------------------------------------------------------------------- */

ON_FIBER(received_into_nothing) {
  for (size_t capacity = 0; capacity < 3; capacity++) {
    struct coir_chan *c = make(capacity);
    struct op ops[3];
    struct coir_fiber *f[3];
    for (size_t i = 0; i < capacity; i++) CHECK_EQ(send_value(c, i, 0), 0);
    park(op_send, c, ops, f, 3, 0);
    for (size_t i = 0; i < capacity + 2; i++) CHECK_EQ(coir_chan_recv(c, NULL, 0), 0);
    CHECK_EQ(recv_value(c, 0), 2);
    for (int i = 0; i < 3; i++) CHECK_EQ(join(f[i]), 0);
    coir_chan_unref(c);
  }
}

static int drops_one(void *c) { return coir_chan_recv(c, NULL, COIR_NEVER); }

ON_FIBER(handed_over_into_nothing) {
  struct coir_chan *c = make(0);
  struct coir_fiber *f = spawn(drops_one, c);
  until_parked(1);
  CHECK_EQ(send_value(c, 1, 0), 0);
  CHECK_EQ(join(f), 0);
  coir_chan_unref(c);
}

struct point {
  double x, y;
};

struct server {
  COIR_CHAN(struct point) points;
  COIR_CHAN(const char *) names;
};

static int sends_points(void *arg) {
  struct server *s = arg;
  for (int i = 0; i < 3; i++) {
    const struct point p = {i, -i};
    CHECK_EQ(COIR_SEND(s->points, &p, COIR_NEVER), 0);
  }
  const char *name = "done";
  CHECK_EQ(COIR_SEND(s->names, &name, COIR_NEVER), 0);
  return 0;
}

static int evaluated;
static COIR_CHAN(int) once_chan(COIR_CHAN(int) c) { return evaluated += 1, c; }
static int *once_value(int *value) { return evaluated += 10, value; }
static int64_t once_deadline(void) { return evaluated += 100, 0; }

ON_FIBER(typed_channels) {
  struct server s = {COIR_CHAN_CREATE(struct point, 0), COIR_CHAN_CREATE(const char *, 1)};
  struct coir_fiber *f = spawn(sends_points, &s);
  for (int i = 0; i < 3; i++) {
    struct point p;
    CHECK_EQ(COIR_RECV(s.points, &p, COIR_NEVER), 0);
    CHECK(p.x == i && p.y == -i);
  }
  const char *name = NULL;
  CHECK_EQ(COIR_RECV(s.names, &name, COIR_NEVER), 0);
  CHECK(strcmp(name, "done") == 0);
  join(f);
  CHECK_EQ(coir_chan_capacity(COIR_CHAN_RAW(s.names)), 1);
  coir_chan_unref(COIR_CHAN_RAW(s.points)), coir_chan_unref(COIR_CHAN_RAW(s.names));

  COIR_CHAN(int) c = COIR_CHAN_CREATE(int, 1);
  CHECK(sizeof c == sizeof(void *));
  int v = 42;
  CHECK_EQ(COIR_SEND(once_chan(c), once_value(&v), once_deadline()), 0);
  CHECK_EQ(evaluated, 111);
  v = 0;
  CHECK_EQ(COIR_RECV(once_chan(c), once_value(&v), once_deadline()), 0);
  CHECK_EQ(evaluated, 222);
  CHECK_EQ(v, 42);
  CHECK_EQ(coir_chan_length(COIR_CHAN_RAW(once_chan(c))), 0);
  CHECK_EQ(evaluated, 223);
  evaluated = 0;
  coir_chan_close(COIR_CHAN_RAW(c));
  CHECK_EQ(COIR_SEND(c, &v, 0), -EPIPE);
  CHECK_EQ(COIR_RECV(c, &v, 0), -EPIPE);
  coir_chan_unref(COIR_CHAN_RAW(c));
  c = NULL; /* no channel */
  CHECK_EQ(COIR_SEND(c, &v, 0), -EINVAL);
  CHECK_EQ(COIR_RECV(c, &v, 0), -EINVAL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(capacity_and_size_are_exact),
      cmocka_unit_test(big_values_go_from_hand_to_hand),
      cmocka_unit_test(values_of_no_bytes_are_counted),
      cmocka_unit_test(null_arguments),
      cmocka_unit_test(sizes_that_cannot_be),
      cmocka_unit_test(a_rendezvous_needs_a_receiver_that_waits),
      cmocka_unit_test(what_is_handed_over_belongs_to_who_waited),
      cmocka_unit_test(a_waiting_sender_comes_before_a_new_one),
      cmocka_unit_test(senders_are_served_in_turn),
      cmocka_unit_test(receivers_are_served_in_turn),
      cmocka_unit_test(those_that_leave_lose_nobodys_turn),
      cmocka_unit_test(thousands_wait_and_half_of_them_leave),
      cmocka_unit_test(buffered_values_survive_close),
      cmocka_unit_test(waiting_senders_keep_their_values_at_close),
      cmocka_unit_test(waiting_receivers_return_at_close),
      cmocka_unit_test(a_deadline_that_has_passed_means_try_once),
      cmocka_unit_test(deadlines_end_the_wait_and_leave_no_trace),
      cmocka_unit_test(a_wait_that_succeeds_forgets_its_deadline),
      cmocka_unit_test(cancelling_a_waiting_call_loses_and_takes_nothing),
      cmocka_unit_test(a_cancellation_is_delivered_once),
      cmocka_unit_test(a_pending_cancellation_ends_the_next_wait),
      cmocka_unit_test(a_pending_cancellation_meets_a_call_that_need_not_wait),
      cmocka_unit_test(stop_cancels_those_that_wait),
      cmocka_unit_test(dropped_fibers_wait_no_more),
      cmocka_unit_test(the_last_reference_frees),
      cmocka_unit_test(memory_comes_back),
      cmocka_unit_test(references_are_counted_by_all),
      cmocka_unit_test(a_sender_needs_no_reference_once_it_is_received),
      cmocka_unit_test(each_side_lets_go_as_soon_as_it_has_met_the_other),
      cmocka_unit_test(many_to_many),
      cmocka_unit_test(between_runtimes),
      cmocka_unit_test(ping_pong_with_a_thread),
      cmocka_unit_test(ping_pong_with_a_fiber),
      cmocka_unit_test(threads_wait_like_fibers),
      cmocka_unit_test(a_channel_that_one_worker_had_for_itself),
      cmocka_unit_test(received_into_nothing),
      cmocka_unit_test(handed_over_into_nothing),
      cmocka_unit_test(typed_channels),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
