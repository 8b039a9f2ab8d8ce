/* The checker itself: histories written by hand, and objects with planted faults, which it has to refuse. */
#include "history.h"

enum { WRITE, READ, ADD, PUT, GET };

static const char *name(int what) {
  static const char *const names[] = {"write", "read", "add", "put", "get"};
  return names[what];
}

/* ---- Objects --------------------------------------------------------------------------------------------------- */

/* A number: write(v), read() = v, add() = what it was before. */
static bool step_number(void *state, const struct linear_op *op) {
  int64_t *v = state;
  if (op->what == READ) return op->result == *v;
  if (op->what == ADD) return op->result == (*v)++;
  *v = op->arg;
  return true;
}
static const struct linear_object number = {sizeof(int64_t), NULL, step_number, name};

/* A queue: put(v), get() = the oldest, or 0. */
struct queue {
  int64_t count, values[CLIENTS_MAX * OPS_MAX];
};
static bool step_queue(void *state, const struct linear_op *op) {
  struct queue *q = state;
  if (op->what == PUT) {
    q->values[q->count++] = op->arg;
    return true;
  }
  if (op->result != (q->count ? q->values[0] : 0)) return false;
  if (q->count) memmove(q->values, q->values + 1, (size_t)--q->count * sizeof *q->values);
  q->values[q->count] = 0; /* so that the same queue is the same bytes */
  return true;
}
static const struct linear_object queue = {sizeof(struct queue), NULL, step_queue, name};

/* ---- Histories ------------------------------------------------------------------------------------------------- */

#define OP(from, to, w, a, r) \
  { .began = (from), .ended = (to), .what = (w), .arg = (a), .result = (r) }

static const struct story {
  const struct linear_object *object;
  enum linear_verdict verdict;
  struct linear_op ops[8];
} stories[] = {
    {&number, LINEAR_YES, {OP(1, 2, WRITE, 5, 0), OP(3, 4, READ, 0, 5)}},
    /* what was written before is read */
    {&number, LINEAR_NO, {OP(1, 2, WRITE, 5, 0), OP(3, 4, READ, 0, 0)}},
    /* who overlaps may see either, */
    {&number, LINEAR_YES, {OP(1, 9, WRITE, 5, 0), OP(2, 3, READ, 0, 0), OP(4, 5, READ, 0, 5)}},
    /* but nobody sees the old one after the new one */
    {&number, LINEAR_NO, {OP(1, 9, WRITE, 5, 0), OP(2, 3, READ, 0, 5), OP(4, 5, READ, 0, 0)}},
    /* ends at the time at which the other begins: overlaps */
    {&number, LINEAR_YES, {OP(1, 2, WRITE, 5, 0), OP(2, 4, READ, 0, 0)}},
    /* an update that is lost */
    {&number, LINEAR_YES, {OP(1, 4, ADD, 0, 1), OP(2, 3, ADD, 0, 0), OP(5, 6, READ, 0, 2)}},
    {&number, LINEAR_NO, {OP(1, 4, ADD, 0, 0), OP(2, 3, ADD, 0, 0), OP(5, 6, READ, 0, 1)}},
    {&queue, LINEAR_YES, {OP(1, 2, PUT, 1, 0), OP(3, 4, PUT, 2, 0), OP(5, 6, GET, 0, 1), OP(7, 8, GET, 0, 2)}},
    /* out of turn */
    {&queue, LINEAR_NO, {OP(1, 2, PUT, 1, 0), OP(3, 4, PUT, 2, 0), OP(5, 6, GET, 0, 2), OP(7, 8, GET, 0, 1)}},
    {&queue, LINEAR_YES, {OP(1, 4, PUT, 1, 0), OP(2, 3, PUT, 2, 0), OP(5, 6, GET, 0, 2), OP(7, 8, GET, 0, 1)}},
    /* twice; never put; empty although it was not */
    {&queue, LINEAR_NO, {OP(1, 2, PUT, 1, 0), OP(3, 6, GET, 0, 1), OP(4, 5, GET, 0, 1)}},
    {&queue, LINEAR_NO, {OP(1, 2, PUT, 1, 0), OP(3, 4, GET, 0, 7)}},
    {&queue, LINEAR_NO, {OP(1, 2, PUT, 1, 0), OP(3, 4, GET, 0, 0), OP(5, 6, GET, 0, 1)}},
    /* Herlihy and Wing's own: x and y are put side by side, and a third sees that y was first; then x must be next */
    {&queue,
     LINEAR_YES,
     {OP(1, 3, PUT, 1, 0), OP(2, 4, PUT, 2, 0), OP(5, 7, GET, 0, 2), OP(6, 8, GET, 0, 1), OP(9, 10, GET, 0, 0)}},
    {&queue,
     LINEAR_NO,
     {OP(1, 3, PUT, 1, 0), OP(2, 4, PUT, 2, 0), OP(5, 7, GET, 0, 2), OP(8, 9, PUT, 3, 0), OP(10, 11, GET, 0, 3)}},
    /* found only after a first choice was taken back: 2 has to be put before 1, and is got before it is known */
    {&queue, LINEAR_YES, {OP(1, 9, PUT, 1, 0), OP(1, 9, PUT, 2, 0), OP(1, 9, GET, 0, 2), OP(10, 11, GET, 0, 1)}},
};

static void stories_are_told_apart(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof stories / sizeof *stories; i++) {
    const struct story *s = &stories[i];
    size_t n = 0;
    while (n < 8 && s->ops[n].ended) n++;
    if (linear_check(s->object, s->ops, n, NULL) != s->verdict) {
      fprintf(stderr, "story %zu is not told apart\n", i);
      abort();
    }
  }
}

static void nothing_is_linearizable(void **state) {
  (void)state;
  CHECK_EQ(linear_check(&number, NULL, 0, NULL), LINEAR_YES);
}

/* 12 calls at the same time have 12! orders, but there are only 2^12 sets of what is done. */
static void what_was_tried_is_remembered(void **state) {
  (void)state;
  enum { N = 12 };
  struct linear_op ops[N];
  for (int i = 0; i < N; i++) ops[i] = (struct linear_op)OP(1, 100, ADD, 0, i);
  CHECK_EQ(linear_check(&number, ops, N, NULL), LINEAR_YES);
  ops[N - 1].result = N - 2; /* two have got the same */
  CHECK_EQ(linear_check(&number, ops, N, NULL), LINEAR_NO);
  for (int i = 0; i < N; i++) ops[i] = (struct linear_op)OP(1, 100, WRITE, 1, 0);
  ops[N - 1] = (struct linear_op)OP(1, 100, READ, 0, 2);
  CHECK_EQ(linear_check(&number, ops, N, NULL), LINEAR_NO);
}

static void what_was_refused_is_printed(void **state) {
  (void)state;
  char text[512] = "";
  FILE *out = fmemopen(text, sizeof text, "w");
  CHECK_EQ(linear_check(&number, stories[1].ops, 2, out), LINEAR_NO);
  fclose(out);
  CHECK(strstr(text, "write(5) = 0\nand what is left:\n  3..4 client 0: read(0) = 0\n"));
}

/* ---- Objects with faults --------------------------------------------------------------------------------------- */

/* Between looking and doing others may come: as with a lock that keeps nobody out. `is_whole`: they may not. */
struct broken {
  bool is_whole;
  int64_t number;
  struct queue queue;
};

static int adds(void *arg) {
  struct client *c = arg;
  struct broken *b = c->arg;
  for (int i = 0; i < 4; i++) {
    int64_t began = history_tick(), was = b->number;
    if (!b->is_whole) coir_yield();
    b->number = was + 1;
    note(c, began, ADD, 0, was);
    coir_yield();
  }
  return 0;
}

static int puts_and_gets(void *arg) {
  struct client *c = arg;
  struct broken *b = c->arg;
  struct queue *q = &b->queue;
  for (int i = 0; i < 4; i++) {
    int64_t began = history_tick(), value = c->number * 100 + i + 1;
    q->values[q->count] = value;
    if (!b->is_whole) coir_yield();
    q->count++;
    note(c, began, PUT, value, 0);
    coir_yield();
    began = history_tick();
    int64_t got = q->count ? q->values[0] : 0;
    if (q->count) memmove(q->values, q->values + 1, (size_t)--q->count * sizeof *q->values);
    note(c, began, GET, 0, got);
  }
  return 0;
}

struct trial {
  coir_fn fn;
  const struct linear_object *object;
  bool is_whole;
};

static int try_it(void *arg) {
  const struct trial *t = arg;
  static struct broken b;
  static struct client clients[3];
  b = (struct broken){.is_whole = t->is_whole};
  clients_init(clients, 3, 1, &b);
  for (int i = 0; i < 3; i++) start(&clients[i], t->fn);
  finish(clients, 3);
  return (int)history_check(t->object, clients, 3, NULL, 0, NULL);
}

/* On one worker, so that they fail every time. */
static void broken_objects_are_refused(void **state) {
  (void)state;
  for (int i = 0; i < 4; i++) {
    bool is_queue = i / 2, is_whole = i % 2;
    struct trial t = {is_queue ? puts_and_gets : adds, is_queue ? &queue : &number, is_whole};
    int verdict = run_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, try_it, &t);
    CHECK_EQ(verdict, is_whole ? LINEAR_YES : LINEAR_NO);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stories_are_told_apart),       cmocka_unit_test(nothing_is_linearizable),
      cmocka_unit_test(what_was_tried_is_remembered), cmocka_unit_test(what_was_refused_is_printed),
      cmocka_unit_test(broken_objects_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
