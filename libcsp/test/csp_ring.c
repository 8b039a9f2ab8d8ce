/* Typed rings: every call on every kind and on items of odd sizes, wrap-around of the indices, waiting; under load that
 * nothing is lost, doubled or out of order. */
#include "harness.h"

#include "chan.h"
#include "scheduler.h"
#include "sync.h"

/* ---- All the channels, behind functions -------------------------------------------------------------------------- */

struct bytes1 {
  unsigned char b[1];
};
struct bytes3 {
  unsigned char b[3];
};
struct bytes24 {
  uint64_t a, b;
  unsigned char c;
};
struct word {
  uint64_t value;
};
struct wide {
  _Alignas(128) unsigned char b[130];
};

struct ops {
  const char *name;
  bool many_producers, many_consumers;
  size_t item_bytes, cell_bytes;
  void *(*create)(size_t exp);
  void (*destroy)(void *c);
  bool (*try_push)(void *c, const void *item);
  void (*push)(void *c, const void *item);
  bool (*try_pushm)(void *c, const void *items, size_t n);
  void (*pushm)(void *c, const void *items, size_t n);
  bool (*try_pop)(void *c, void *item);
  void (*pop)(void *c, void *item);
  size_t (*try_popm)(void *c, void *items, size_t n);
  void (*popm)(void *c, void *items, size_t n);
};

#define CHANNEL(K, T, I)                                                                                          \
  csp_chan_declare(K, struct T, I);                                                                               \
  csp_chan_define(K, struct T, I);                                                                                \
  static void *I##_create(size_t exp) { return csp_chan_new(I)(exp); }                                            \
  static void I##_destroy(void *c) { csp_chan_destroy((csp_chan_t(I) *)c); }                                      \
  static bool I##_try_push(void *c, const void *item) {                                                           \
    return csp_chan_try_push((csp_chan_t(I) *)c, *(const struct T *)item);                                        \
  }                                                                                                               \
  static void I##_push(void *c, const void *item) { csp_chan_push((csp_chan_t(I) *)c, *(const struct T *)item); } \
  static bool I##_try_pushm(void *c, const void *items, size_t n) {                                               \
    return csp_chan_try_pushm((csp_chan_t(I) *)c, (const struct T *)items, n);                                    \
  }                                                                                                               \
  static void I##_pushm(void *c, const void *items, size_t n) {                                                   \
    csp_chan_pushm((csp_chan_t(I) *)c, (const struct T *)items, n);                                               \
  }                                                                                                               \
  static bool I##_try_pop(void *c, void *item) { return csp_chan_try_pop((csp_chan_t(I) *)c, (struct T *)item); } \
  static void I##_pop(void *c, void *item) { csp_chan_pop((csp_chan_t(I) *)c, (struct T *)item); }                \
  static size_t I##_try_popm(void *c, void *items, size_t n) {                                                    \
    return csp_chan_try_popm((csp_chan_t(I) *)c, (struct T *)items, n);                                           \
  }                                                                                                               \
  static void I##_popm(void *c, void *items, size_t n) { csp_chan_popm((csp_chan_t(I) *)c, (struct T *)items, n); }
#define CHANNELS(T) CHANNEL(ss, T, ss_##T) CHANNEL(sm, T, sm_##T) CHANNEL(ms, T, ms_##T) CHANNEL(mm, T, mm_##T)
CHANNELS(word)
CHANNELS(bytes1)
CHANNELS(bytes3)
CHANNELS(bytes24)
CHANNELS(wide)

#define OPS(T, I, producers, consumers)                                                                       \
  {                                                                                                           \
#I, producers, consumers, sizeof(struct T), sizeof(struct csp_ring_cell_of_##I), I##_create, I##_destroy, \
        I##_try_push, I##_push, I##_try_pushm, I##_pushm, I##_try_pop, I##_pop, I##_try_popm, I##_popm        \
  }
#define OPS_OF_KINDS(T) \
  OPS(T, ss_##T, false, false), OPS(T, sm_##T, false, true), OPS(T, ms_##T, true, false), OPS(T, mm_##T, true, true)
#define WORDS 4 /* the first ones have items that are a struct word */
static const struct ops all[] = {OPS_OF_KINDS(word), OPS_OF_KINDS(bytes1), OPS_OF_KINDS(bytes3), OPS_OF_KINDS(bytes24),
                                 OPS_OF_KINDS(wide)};
#define ALL (sizeof all / sizeof *all)

/* An array of `n` items, whose bytes tell their numbers: from `first` on, or all 0xee. */
struct items {
  struct wide room[24];
};

static unsigned char byte_of(uint64_t number, size_t at) {
  return (unsigned char)(number + at * 37 + (number >> 8) * 11);
}

static struct items items_from(const struct ops *o, uint64_t first, size_t n) {
  struct items list;
  CHECK(n * o->item_bytes <= sizeof list);
  memset(&list, 0xee, sizeof list);
  for (size_t i = 0; i < n * o->item_bytes; i++)
    ((unsigned char *)&list)[i] = byte_of(first + i / o->item_bytes, i % o->item_bytes);
  return list;
}

/* The first n items are those from `first` on, and behind them nothing was written. */
static void items_check(const struct ops *o, const struct items *list, uint64_t first, size_t n) {
  struct items expected = items_from(o, first, n);
  if (memcmp(list, &expected, sizeof *list) != 0) {
    fprintf(stderr, "%s: %zu items are not those from %llu on\n", o->name, n, (unsigned long long)first);
    abort();
  }
}

static void check_pop(const struct ops *o, void *c, uint64_t number) {
  struct items got = items_from(o, 0, 0);
  CHECK(o->try_pop(c, &got));
  items_check(o, &got, number, 1);
}

static bool try_push(const struct ops *o, void *c, uint64_t number) {
  struct items list = items_from(o, number, 1);
  return o->try_push(c, &list);
}

static bool try_pushm(const struct ops *o, void *c, uint64_t first, size_t n) {
  struct items list = items_from(o, first, n);
  return o->try_pushm(c, &list, n);
}

static size_t try_popm(const struct ops *o, void *c, uint64_t first, size_t n) {
  struct items got = items_from(o, 0, 0);
  size_t k = o->try_popm(c, &got, n);
  CHECK(k <= n);
  items_check(o, &got, first, k);
  return k;
}

/* As if `start` items had gone through the channel, which is empty. */
static void start_at(const struct ops *o, void *c, uint64_t start) {
  struct csp_ring *r = c;
  r->head = r->tail = start;
  for (uint64_t i = start; i != start + r->capacity; i++)
    memcpy(r->cells + (i & (r->capacity - 1)) * o->cell_bytes, &(uint64_t){2 * i}, sizeof(uint64_t));
}

/* Around which the indices are wide awake: where they wrap, where the states do, where 32 bits do. */
static const uint64_t starts[] = {0, UINT64_MAX - 4, (UINT64_C(1) << 63) - 5, (UINT64_C(1) << 32) - 3, UINT64_MAX};
#define STARTS (sizeof starts / sizeof *starts)

/* ---- On one thread ----------------------------------------------------------------------------------------------- */

static void all_calls_of(const struct ops *o, uint64_t start) {
  void *c = o->create(2);
  CHECK(c != NULL);
  start_at(o, c, start);
  struct items list = items_from(o, 0, 0), before = list;
  CHECK(!o->try_pop(c, &list));
  CHECK_EQ(o->try_popm(c, &list, 4), 0);
  CHECK(!memcmp(&list, &before, sizeof list));

  for (uint64_t i = 0; i < 4; i++) CHECK(try_push(o, c, i));
  CHECK(!try_push(o, c, 99));
  CHECK(!try_pushm(o, c, 99, 1));
  CHECK(o->try_pushm(c, NULL, 0));
  check_pop(o, c, 0);
  CHECK(!try_pushm(o, c, 99, 2)); /* room for one: nothing of it is pushed */
  CHECK(try_pushm(o, c, 4, 1));
  CHECK_EQ(try_popm(o, c, 1, 3), 3);
  CHECK_EQ(o->try_popm(c, NULL, 0), 0);
  CHECK_EQ(try_popm(o, c, 4, 9), 1); /* fewer than asked for */

  CHECK(!try_pushm(o, c, 99, 5)); /* above the capacity */
  CHECK(!try_pushm(o, c, 99, 9));
  CHECK(try_pushm(o, c, 5, 4));
  CHECK_EQ(try_popm(o, c, 5, 20), 4);

  list = items_from(o, 9, 1);
  o->push(c, &list);
  list = items_from(o, 10, 3);
  o->pushm(c, &list, 3);
  list = items_from(o, 0, 0);
  o->pop(c, &list);
  items_check(o, &list, 9, 1);
  list = items_from(o, 0, 0);
  o->popm(c, &list, 3);
  items_check(o, &list, 10, 3);
  o->pushm(c, NULL, 0);
  o->popm(c, NULL, 0);
  CHECK(!o->try_pop(c, &list));
  CHECK(try_push(o, c, 13)); /* left in it */
  o->destroy(c);
}

static void every_call_does_what_it_says(void **state) {
  (void)state;
  for (size_t i = 0; i < ALL; i++)
    for (size_t k = 0; k < STARTS; k++) all_calls_of(&all[i], starts[k]);
}

/* Batches of all sizes at all positions. */
static void wraps(const struct ops *o, size_t exp, uint64_t start) {
  void *c = o->create(exp);
  CHECK(c != NULL);
  start_at(o, c, start);
  size_t capacity = (size_t)1 << exp;
  uint64_t in = 0, out = 0, rng = rng_seed(start + exp);
  for (int i = 0; i < 60; i++) {
    size_t n = 1 + rng_next(&rng) % (capacity + 1), free_cells = capacity - (size_t)(in - out);
    bool fits = n <= free_cells;
    CHECK_EQ(n == 1 ? try_push(o, c, in) : try_pushm(o, c, in, n), fits);
    if (fits) in += n;
    n = rng_next(&rng) % (capacity + 2);
    size_t full = (size_t)(in - out), got = try_popm(o, c, out, n);
    CHECK_EQ(got, n < full ? n : full);
    out += got;
  }
  o->destroy(c);
}

static void indices_wrap(void **state) {
  (void)state;
  for (size_t i = 0; i < ALL; i++)
    for (size_t k = 0; k < STARTS; k++)
      for (size_t exp = 0; exp <= 3; exp++) wraps(&all[i], exp, starts[k] - 30);
}

static void with_room_for_one(void **state) {
  (void)state;
  for (size_t i = 0; i < ALL; i++) {
    const struct ops *o = &all[i];
    void *c = o->create(0);
    struct items none = items_from(o, 0, 0);
    for (uint64_t n = 0; n < 100; n++) {
      CHECK(!o->try_pop(c, &none));
      CHECK(try_push(o, c, n));
      CHECK(!try_push(o, c, 99));
      CHECK(!try_pushm(o, c, 99, 2));
      check_pop(o, c, n);
    }
    o->destroy(c);
  }
}

static void too_large_is_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < ALL; i++) {
    const size_t exps[] = {59, 60, 61, 62, 63, 64, 65, 128, SIZE_MAX - 1, SIZE_MAX};
    for (size_t k = 0; k < sizeof exps / sizeof *exps; k++) {
      errno = 0;
      CHECK(!all[i].create(exps[k]));
      CHECK_EQ(errno, ENOMEM);
    }
    all[i].destroy(NULL);
  }
#if !IS_SANITIZED /* there malloc does not fail */
  errno = 0;
  CHECK(!csp_chan_new(mm_word)(57));
  CHECK_EQ(errno, ENOMEM);
#endif
}

csp_chan_declare(mm, int, numbers);
csp_chan_define(mm, int, numbers);
/* Semicolons may be missing. */
/* clang-format off */
csp_chan_declare(sm, const char *, texts)
csp_chan_define(sm, const char *, texts)
    /* clang-format on */

    static int asked;

static csp_chan_t(numbers) * ask(csp_chan_t(numbers) * c) {
  asked++;
  return c;
}

static void arguments_are_evaluated_once_and_converted(void **state) {
  (void)state;
  csp_chan_t(numbers) *c = csp_chan_new(numbers)(3);
  int n = 10, list[4] = {0};
  const int more[2] = {20, 21};
  CHECK(csp_chan_try_push(ask(c), n++));
  csp_chan_push(ask(c), n++);
  CHECK(csp_chan_try_pushm(ask(c), more, (size_t)(n++ - 10)));
  csp_chan_pushm(ask(c), &more[1], 1);
  CHECK_EQ(asked, 4);
  CHECK_EQ(n, 13);
  int *at = list;
  CHECK(csp_chan_try_pop(ask(c), at++));
  csp_chan_pop(ask(c), at++);
  CHECK_EQ(csp_chan_try_popm(ask(c), at++, 1), 1);
  csp_chan_popm(ask(c), at, 1);
  CHECK_EQ(asked, 8);
  CHECK(list[0] == 10 && list[1] == 11 && list[2] == 20 && list[3] == 21);
  CHECK(csp_chan_try_push(c, (char)7) && csp_chan_try_push(c, 8L));
  csp_chan_popm(c, list, 3);
  CHECK(list[0] == 21 && list[1] == 7 && list[2] == 8);
  csp_chan_destroy(ask(c));
  CHECK_EQ(asked, 9);

  csp_chan_t(texts) *t = csp_chan_new(texts)(1);
  const char *text = NULL;
  csp_chan_push(t, "one");
  csp_chan_push(t, NULL);
  csp_chan_pop(t, &text);
  CHECK(!strcmp(text, "one"));
  csp_chan_pop(t, &text);
  CHECK(!text);
  csp_chan_destroy(t);

  csp_chan_t(mm_bytes24) *s = csp_chan_new(mm_bytes24)(0);
  struct bytes24 item = {0, 0, 0};
  csp_chan_push(s, (struct bytes24){.a = 1, .c = 3});
  csp_chan_pop(s, &item);
  CHECK(item.a == 1 && item.b == 0 && item.c == 3);
  csp_chan_destroy(s);
}

/* A producer that stops after it has reserved cells, and before it has filled them. */
static void nothing_overtakes_a_push_under_way(void **state) {
  (void)state;
  csp_chan_t(mm_word) *c = csp_chan_new(mm_word)(2);
  struct word got = {0};
  uint64_t first = 99;
  csp_chan_push(c, (struct word){1});
  CHECK_EQ(csp_ring_reserve(&c->ring, CSP_RING_SHAPE(c), &c->ring.tail, true, 0, 1, 1, &first), 1);
  CHECK_EQ(first, 1);
  CHECK(csp_chan_try_push(c, (struct word){3}));
  CHECK(csp_chan_try_pop(c, &got) && got.value == 1);
  CHECK(!csp_chan_try_pop(c, &got));
  CHECK_EQ(csp_chan_try_popm(c, &got, 1), 0);
  CHECK(csp_chan_try_push(c, (struct word){4}));
  CHECK(csp_chan_try_push(c, (struct word){5}));
  CHECK(!csp_chan_try_push(c, (struct word){6}));
  struct csp_ring_cell_of_mm_word *cell = (void *)csp_ring_cell(&c->ring, CSP_RING_SHAPE(c), first);
  cell->item.value = 2;
  __atomic_store_n(&cell->state, 3, __ATOMIC_RELEASE); /* as csp_ring_try_push() does */
  struct word list[4];
  CHECK_EQ(csp_chan_try_popm(c, list, 4), 4);
  for (uint64_t i = 0; i < 4; i++) CHECK_EQ(list[i].value, i + 2);
  csp_chan_destroy(c);
}

/* ---- Goroutines and threads -------------------------------------------------------------------------------------- */

/* Who takes part, as goroutines and as plain threads; all have ended when parties_wait returns. */
struct parties {
  csp_sync_waitgroup_t group;
  pthread_t threads[4];
  int thread_count;
};

struct party {
  struct parties *parties;
  void (*fn)(void *arg);
  void *arg;
};

static void party_run(void *arg) {
  struct party p = *(struct party *)arg;
  free(arg);
  p.fn(p.arg);
  csp_sync_waitgroup_done(&p.parties->group);
}

static void *party_thread(void *arg) {
  party_run(arg);
  return NULL;
}

static void party_add(struct parties *parties, bool is_thread, void (*fn)(void *arg), void *arg) {
  struct party *p = malloc(sizeof *p);
  CHECK(p != NULL);
  *p = (struct party){parties, fn, arg};
  csp_sync_waitgroup_add(&parties->group, 1);
  if (!is_thread) {
    CHECK(csp_proc_create(0, party_run, p) != NULL);
    return;
  }
  CHECK_EQ(pthread_create(&parties->threads[parties->thread_count++], NULL, party_thread, p), 0);
}

static void parties_wait(struct parties *parties) {
  csp_sync_waitgroup_wait(&parties->group);
  for (int i = 0; i < parties->thread_count; i++) CHECK_EQ(pthread_join(parties->threads[i], NULL), 0);
}

/* A side of a channel: three goroutines and a thread where many may use it. Else a goroutine, or a thread. */
static int side_add(struct parties *parties, bool many, bool is_thread, void (*fn)(void *arg), void *arg) {
  if (!many) {
    party_add(parties, is_thread, fn, arg);
    return 1;
  }
  for (int i = 0; i < 4; i++) party_add(parties, i == 3, fn, arg);
  return 4;
}

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

#define TRANSFER 70

struct transfer {
  const struct ops *ops;
  void *c;
  size_t n, piece;
};

static void pushes_all_at_once(void *arg) {
  struct transfer *t = arg;
  struct word list[TRANSFER];
  for (size_t i = 0; i < t->n; i++) list[i].value = i;
  for (size_t i = 0; i < t->n; i += t->piece) t->ops->pushm(t->c, list + i, t->n - i < t->piece ? t->n - i : t->piece);
}

static void pops_all_at_once(void *arg) {
  struct transfer *t = arg;
  struct word list[TRANSFER];
  t->ops->popm(t->c, list, t->n);
  for (size_t i = 0; i < t->n; i++) CHECK_EQ(list[i].value, i);
}

static void pops_one_by_one(void *arg) {
  struct transfer *t = arg;
  struct word item;
  for (size_t i = 0; i < t->n; i++) {
    t->ops->pop(t->c, &item);
    CHECK_EQ(item.value, i);
  }
}

/* More than the capacity, too. */
static void calls_that_wait_go_on(void **state) {
  (void)state;
  for (int i = 0; i < WORDS; i++)
    for (size_t exp = 0; exp <= 4; exp += 2)
      for (int way = 0; way < 4; way++) {
        struct transfer t = {&all[i], all[i].create(exp), TRANSFER, way & 1 ? TRANSFER : 3};
        struct parties parties = {.thread_count = 0};
        start_at(t.ops, t.c, starts[way]);
        party_add(&parties, exp == 2, way & 2 ? pops_all_at_once : pops_one_by_one, &t);
        party_add(&parties, false, pushes_all_at_once, &t);
        parties_wait(&parties);
        t.ops->destroy(t.c);
      }
}

/* ---- Load -------------------------------------------------------------------------------------------------------- */

#define BATCH 12 /* above some of the capacities */
#define PRODUCERS_MAX 4

/* Items are the producer's number << 32 | how many it pushed before. */
struct load {
  const struct ops *ops;
  void *c;
  size_t capacity;
  uint32_t each; /* items of a producer */
  _Atomic(uint32_t) producers, consumers;
  _Atomic(int64_t) unclaimed; /* items that no consumer has set out to pop */
  _Atomic(uint64_t) sum;
  _Atomic(unsigned char) *seen;
};

static void produces(void *arg) {
  struct load *l = arg;
  uint64_t self = atomic_fetch_add(&l->producers, 1), rng = rng_seed(self + 1);
  for (uint32_t at = 0; at < l->each;) {
    struct word list[BATCH];
    size_t n = 1 + rng_next(&rng) % BATCH;
    if (n > l->each - at) n = l->each - at;
    for (size_t i = 0; i < n; i++) list[i].value = self << 32 | (at + i);
    bool pushed = true;
    switch (rng_next(&rng) >> 20 & 3) {
    case 0: pushed = l->ops->try_push(l->c, list), n = 1; break;
    case 1: l->ops->push(l->c, list), n = 1; break;
    case 2:
      if (n > l->capacity) n = l->capacity;
      pushed = l->ops->try_pushm(l->c, list, n);
      break;
    default: l->ops->pushm(l->c, list, n); break;
    }
    if (pushed) at += (uint32_t)n;
    else csp_sched_yield();
  }
}

static size_t takes(struct load *l, struct word *list, size_t n, uint64_t *rng) {
  size_t got = 1;
  switch (rng_next(rng) >> 20 & 3) {
  case 0: got = l->ops->try_pop(l->c, list); break;
  case 1: l->ops->pop(l->c, list); break;
  case 2: got = l->ops->try_popm(l->c, list, n); break;
  default: l->ops->popm(l->c, list, n), got = n; break;
  }
  if (!got) csp_sched_yield();
  return got;
}

static void consumes(void *arg) {
  struct load *l = arg;
  uint64_t rng = rng_seed(100 + atomic_fetch_add(&l->consumers, 1));
  uint32_t next[PRODUCERS_MAX] = {0};
  for (;;) {
    int64_t want = 1 + (int64_t)(rng_next(&rng) % BATCH), left = atomic_fetch_sub(&l->unclaimed, want);
    if (left <= 0) return;
    if (want > left) want = left;
    while (want > 0) {
      struct word list[BATCH];
      size_t got = takes(l, list, (size_t)want, &rng);
      want -= (int64_t)got;
      for (size_t i = 0; i < got; i++) {
        uint32_t producer = (uint32_t)(list[i].value >> 32), number = (uint32_t)list[i].value;
        CHECK(producer < PRODUCERS_MAX && number < l->each);
        CHECK(number >= next[producer]); /* in the order in which it pushed them */
        next[producer] = number + 1;
        CHECK_EQ(atomic_fetch_add(&l->seen[producer * l->each + number], 1), 0);
        atomic_fetch_add(&l->sum, list[i].value);
      }
    }
  }
}

static void loads(const struct ops *o, size_t exp, bool producer_is_thread, bool consumer_is_thread, uint32_t items) {
  uint32_t producers = o->many_producers ? 4 : 1, each = items / producers;
  struct load l = {.ops = o, .c = o->create(exp), .capacity = (size_t)1 << exp, .each = each};
  l.seen = calloc((size_t)producers * each, 1);
  CHECK(l.c != NULL && l.seen != NULL);
  l.unclaimed = (int64_t)producers * each;
  start_at(o, l.c, starts[exp % STARTS] - each / 2);
  struct parties parties = {.thread_count = 0};
  side_add(&parties, o->many_consumers, consumer_is_thread, consumes, &l);
  CHECK_EQ(side_add(&parties, o->many_producers, producer_is_thread, produces, &l), producers);
  parties_wait(&parties);
  uint64_t expected = 0;
  for (uint64_t p = 0; p < producers; p++)
    for (uint64_t i = 0; i < each; i++) {
      CHECK_EQ(l.seen[p * each + i], 1);
      expected += p << 32 | i;
    }
  CHECK_EQ(l.sum, expected);
  struct word item;
  CHECK(!o->try_pop(l.c, &item));
  o->destroy(l.c);
  free((void *)l.seen);
}

static void every_item_arrives_once_and_in_order(void **state) {
  (void)state;
  for (int i = 0; i < WORDS; i++)
    for (size_t exp = 0; exp <= 6; exp += exp < 2 ? 1 : 2)
      for (int way = 0; way < 3; way++) loads(&all[i], exp, way == 1, way == 2, (uint32_t)rounds(exp < 2 ? 400 : 2400));
}

/* ---- What one call pushes stays together ------------------------------------------------------------------------- */

static void pushes_triples(void *arg) {
  struct load *l = arg;
  uint64_t self = atomic_fetch_add(&l->producers, 1);
  for (uint64_t i = 0; i < l->each; i++) {
    uint64_t value = self << 32 | i * 3;
    struct word list[3] = {{value}, {value + 1}, {value + 2}};
    if (i % 2) {
      l->ops->pushm(l->c, list, 3);
      continue;
    }
    while (!l->ops->try_pushm(l->c, list, 3)) csp_sched_yield();
  }
}

static void pops_triples(void *arg) {
  struct load *l = arg;
  for (int64_t left = l->unclaimed; left > 0; left--) {
    struct word item[3];
    l->ops->pop(l->c, &item[0]);
    l->ops->popm(l->c, &item[1], 2);
    CHECK_EQ((uint32_t)item[0].value % 3, 0);
    CHECK_EQ(item[1].value, item[0].value + 1);
    CHECK_EQ(item[2].value, item[0].value + 2);
  }
}

static void what_is_pushed_together_arrives_together(void **state) {
  (void)state;
  for (int i = 0; i < WORDS; i++)
    for (size_t exp = 2; exp <= 3; exp++) {
      const struct ops *o = &all[i];
      struct load l = {.ops = o, .c = o->create(exp), .each = (uint32_t)rounds(200)};
      l.unclaimed = (int64_t)(o->many_producers ? 4 : 1) * l.each;
      struct parties parties = {.thread_count = 0};
      side_add(&parties, o->many_producers, false, pushes_triples, &l);
      party_add(&parties, exp == 3, pops_triples, &l);
      parties_wait(&parties);
      o->destroy(l.c);
    }
}

/* ---- A try fails only for a reason ------------------------------------------------------------------------------- */

#define STOCK 4096 /* the capacity, and how many tries there are on a full or an empty channel */

static void pushes_by_tries(void *arg) {
  struct load *l = arg;
  while (atomic_fetch_sub(&l->unclaimed, 1) > 0) CHECK(l->ops->try_push(l->c, &(struct word){1}));
}

static void pops_by_tries(void *arg) {
  struct load *l = arg;
  struct word item;
  while (atomic_fetch_sub(&l->unclaimed, 1) > 0) CHECK(l->ops->try_pop(l->c, &item));
}

/* Where only one side is busy, there is room, or an item, for each of them; however they get into each other's way. */
static void tries_do_not_fail_for_others_of_their_side(void **state) {
  (void)state;
  for (int i = 0; i < WORDS; i++)
    for (int round = 0; round < rounds(10); round++) {
      struct load l = {.ops = &all[i], .c = all[i].create(12), .unclaimed = STOCK};
      struct parties pushing = {.thread_count = 0}, popping = {.thread_count = 0};
      side_add(&pushing, l.ops->many_producers, round % 2, pushes_by_tries, &l);
      parties_wait(&pushing);
      CHECK(!l.ops->try_push(l.c, &(struct word){1}));
      l.unclaimed = STOCK;
      side_add(&popping, l.ops->many_consumers, round % 2, pops_by_tries, &l);
      parties_wait(&popping);
      CHECK(!l.ops->try_pop(l.c, &(struct word){1}));
      l.ops->destroy(l.c);
    }
}

/* ---- Linearisable ------------------------------------------------------------------------------------------------ */

#define HISTORY 120

/* When each item's push and pop began and ended. */
struct history {
  const struct ops *ops;
  void *c;
  _Atomic(uint64_t) clock;
  _Atomic(uint32_t) producers;
  _Atomic(int64_t) unclaimed;
  uint32_t producer_count;
  struct stamps {
    uint64_t push_begin, push_end, pop_begin, pop_end;
  } stamps[HISTORY];
};

static void pushes_with_stamps(void *arg) {
  struct history *h = arg;
  for (uint64_t i = atomic_fetch_add(&h->producers, 1); i < HISTORY; i += h->producer_count) {
    h->stamps[i].push_begin = atomic_fetch_add(&h->clock, 1);
    h->ops->push(h->c, &(struct word){i});
    h->stamps[i].push_end = atomic_fetch_add(&h->clock, 1);
  }
}

static void pops_with_stamps(void *arg) {
  struct history *h = arg;
  while (atomic_fetch_sub(&h->unclaimed, 1) > 0) {
    struct word item = {HISTORY};
    uint64_t begin = atomic_fetch_add(&h->clock, 1);
    while (!h->ops->try_pop(h->c, &item)) {
      csp_sched_yield();
      begin = atomic_fetch_add(&h->clock, 1);
    }
    CHECK(item.value < HISTORY);
    struct stamps *s = &h->stamps[item.value];
    s->pop_end = atomic_fetch_add(&h->clock, 1);
    s->pop_begin = begin;
  }
}

/* A history in which all that was pushed was popped, once each, is one of a queue exactly if no pop ended before its
 * push began, and no two items were popped in one order, one pop after the other, and pushed in the other order. */
static void history_check(const struct history *h) {
  for (int x = 0; x < HISTORY; x++) {
    const struct stamps *a = &h->stamps[x];
    CHECK(a->push_begin < a->pop_end);
    for (int y = 0; y < HISTORY; y++) {
      const struct stamps *b = &h->stamps[y];
      CHECK(!(a->push_end < b->push_begin && b->pop_end < a->pop_begin));
    }
  }
}

static void histories_are_those_of_a_queue(void **state) {
  (void)state;
  for (int i = 0; i < WORDS; i++)
    for (int round = 0; round < rounds(8); round++) {
      struct history h = {.ops = &all[i], .unclaimed = HISTORY};
      h.c = h.ops->create((size_t)round % 4);
      h.producer_count = h.ops->many_producers ? 4 : 1;
      struct parties parties = {.thread_count = 0};
      side_add(&parties, h.ops->many_producers, round % 2, pushes_with_stamps, &h);
      side_add(&parties, h.ops->many_consumers, round % 2 == 0, pops_with_stamps, &h);
      parties_wait(&parties);
      history_check(&h);
      h.ops->destroy(h.c);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_call_does_what_it_says),
      cmocka_unit_test(indices_wrap),
      cmocka_unit_test(with_room_for_one),
      cmocka_unit_test(too_large_is_refused),
      cmocka_unit_test(arguments_are_evaluated_once_and_converted),
      cmocka_unit_test(nothing_overtakes_a_push_under_way),
      cmocka_unit_test(calls_that_wait_go_on),
      cmocka_unit_test(every_item_arrives_once_and_in_order),
      cmocka_unit_test(what_is_pushed_together_arrives_together),
      cmocka_unit_test(tries_do_not_fail_for_others_of_their_side),
      cmocka_unit_test(histories_are_those_of_a_queue),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
