/* Histories of fibers, or threads, that call one object at the same time.
 *
 * Each client notes its calls in an array of its own. Their clock is one number that each call counts up twice: so a
 * call that has ended happened before one that begins later, also in the eyes of the memory model. */
#ifndef COIR_TEST_HISTORY_H
#define COIR_TEST_HISTORY_H

#include "harness.h"
#include "linear.h"

#ifndef OPS_MAX
#define OPS_MAX 32 /* of a client */
#endif
#define CLIENTS_MAX 8

struct client {
  int number;
  uint64_t rng;
  size_t count;
  struct linear_op ops[OPS_MAX];
  struct coir_fiber *fiber;
  void *arg;
};

static _Atomic(int64_t) history_clock;

static inline int64_t history_tick(void) { return atomic_fetch_add(&history_clock, 1); }

/* What began at `began` has ended. Returns it, for more to be noted. */
static inline struct linear_op *note(struct client *c, int64_t began, int what, int64_t arg, int64_t result) {
  CHECK(c->count < OPS_MAX);
  struct linear_op *op = &c->ops[c->count++];
  *op = (struct linear_op){
      .began = began, .ended = history_tick(), .client = c->number, .what = what, .arg = arg, .result = result};
  return op;
}

static inline uint64_t draw(struct client *c, uint64_t n) { return rng_next(&c->rng) % n; }

/* Mostly a short while ahead, or 0, or none. */
static inline int64_t draw_deadline(struct client *c) {
  uint64_t how = draw(c, 4);
  return how == 0 ? 0 : how == 1 ? coir_after(COIR_US(draw(c, 200))) : COIR_NEVER;
}

/* Now and then, so that calls overlap also where there is one worker. */
static inline void dawdle(struct client *c) {
  uint64_t how = draw(c, 16);
  if (how < 4) coir_yield();
  else if (how == 4) (void)coir_sleep(COIR_US(20));
}

/* Checks what the clients have noted of the calls for which belongs() is true (NULL: all). */
static inline enum linear_verdict history_check(const struct linear_object *object, const struct client *clients,
                                                int count, bool (*belongs)(const struct linear_op *op, int which),
                                                int which, FILE *out) {
  static struct linear_op all[CLIENTS_MAX * OPS_MAX];
  size_t n = 0;
  for (int i = 0; i < count; i++)
    for (size_t k = 0; k < clients[i].count; k++)
      if (!belongs || belongs(&clients[i].ops[k], which)) all[n++] = clients[i].ops[k];
  return linear_check(object, all, n, out);
}

static inline void clients_init(struct client *clients, int count, uint64_t seed, void *arg) {
  for (int i = 0; i < count; i++) {
    clients[i] = (struct client){.number = i, .arg = arg};
    clients[i].rng = rng_seed(seed * CLIENTS_MAX + (uint64_t)i);
  }
}

/* Where clients wait for each other, so that their calls overlap: threads take longer to wake up than a round takes.
 * With more threads than CPUs those that wait have to let the others run. */
struct gate {
  _Atomic(int) missing;
};

static inline void gate_init(struct gate *gate, int clients) { atomic_store(&gate->missing, clients); }

static inline void meet(struct gate *gate) {
  atomic_fetch_sub(&gate->missing, 1);
  for (int i = 1; atomic_load(&gate->missing) > 0; i++)
    if (i % 64) coir_yield();
    else (void)coir_sleep(COIR_US(50));
}

/* Runs fn(client) on a fiber, which begins on one of the workers in turn. */
static inline void start(struct client *client, coir_fn fn) {
  struct coir_stats stats;
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  struct coir_attr attr = {.worker = COIR_WORKER((uint32_t)client->number % (uint32_t)stats.workers)};
  client->fiber = spawn_with(attr, fn, client);
}

static inline void finish(struct client *clients, int count) {
  for (int i = 0; i < count; i++) CHECK_EQ(join(clients[i].fiber), 0);
}

/* usage: program [rounds] [seed] */
static inline void read_arguments(int argc, char **argv, uint64_t *rounds_wanted, uint64_t *seed) {
  if (argc > 1) *rounds_wanted = strtoull(argv[1], NULL, 0);
  *seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  fprintf(stderr, "%s %llu %llu\n", argv[0], (unsigned long long)*rounds_wanted, (unsigned long long)*seed);
}

#endif
