/* Histories of a worker's queues (src/runq.h) under thieves are linearizable: the deque with forks, which are taken one
 * at a time, and with jobs, which are taken many at a time, and the ring of fibers.
 *
 * usage: linear_runq [rounds] [seed]
 *
 * One thread plays the owner, two steal from it, each into queues of its own, from which nobody steals: so what it
 * finds there is what it took with that one call. COIR_NO_MEMBARRIER=1 tests the fences' fallback. */
#define OPS_MAX 4000
#include "history.h"
#include "runq.h"

enum { PLAYERS = 3, ITEMS = 1500, LENGTH_MAX = 14 };

enum what { PUSH, POP, POP_NEWEST, TAKE, STEAL };
enum { NOTHING = 0 };

static const char *name(int what) {
  static const char *const names[] = {"push", "pop", "pop newest", "take back", "steal"};
  return names[what];
}

/* ---- The queues, one call after the other ---------------------------------------------------------------------- */

struct state {
  int64_t count,
      values[LENGTH_MAX + (PLAYERS - 1) * LINEAR_VALUES_MAX]; /* the oldest first; with what is being stolen */
  int64_t has_gap; /* of the ring: thieves have taken what stood behind the oldest */
};

static bool cut(struct state *s, int64_t from, const int64_t *values, int64_t n) {
  if (from + n > s->count || memcmp(s->values + from, values, (size_t)n * sizeof *values) != 0) return false;
  memmove(s->values + from, s->values + from + n, (size_t)(s->count - from - n) * sizeof *values);
  s->count -= n;
  memset(s->values + s->count, 0, (size_t)n * sizeof *values);
  return true;
}

static int64_t values_of(const struct linear_op *op) {
  int64_t n = 0;
  while (n < LINEAR_VALUES_MAX && op->values[n]) n++;
  return n;
}

static bool step_push(struct state *s, const struct linear_op *op) {
  s->values[s->count++] = op->arg;
  return true;
}

/* A thief that comes to nothing may have met another, or have nothing to gain. */
static bool step_deque(void *state, const struct linear_op *op) {
  struct state *s = state;
  int64_t newest = s->count ? s->values[s->count - 1] : NOTHING;
  switch (op->what) {
  case PUSH: return step_push(s, op);
  case TAKE: return op->result ? cut(s, s->count - 1, &op->arg, s->count > 0) && s->count >= 0 : newest != op->arg;
  case POP_NEWEST: return op->result == NOTHING || (newest == op->result && cut(s, s->count - 1, &newest, 1));
  case POP: /* while thieves are inside the owner takes at their end */
    if (op->result == NOTHING) return s->count == 0;
    return newest == op->result ? cut(s, s->count - 1, &newest, 1) : cut(s, 0, &op->result, 1);
  default: return cut(s, 0, op->values, values_of(op));
  }
}

/* Thieves take what stands behind the oldest. That as well if they are told so, or if it is still there since another
 * theft: then its owner is stuck. */
static bool step_ring(void *state, const struct linear_op *op) {
  struct state *s = state;
  int64_t n = values_of(op);
  if (op->what == PUSH) return step_push(s, op);
  bool takes_oldest = op->what == POP || op->values[0] == s->values[0], may = op->what == POP || op->arg || s->has_gap;
  if (op->what == POP && op->result == NOTHING) return s->count == 0;
  s->has_gap = !takes_oldest;
  if (op->what == POP) return cut(s, 0, &op->result, 1);
  return takes_oldest ? may && cut(s, 0, op->values, n) : cut(s, 1, op->values, n);
}

/* ---- The players ----------------------------------------------------------------------------------------------- */

struct item {
  _Alignas(COIR__LINE) struct coir__lean lean;
};

static struct coir_runtime *rt;
static struct item *items;        /* a job or a fork: item i is the value i + 1 */
static struct coir_fiber *fibers; /* the same, for the ring; and for what comes out of the deque bound */
static struct client clients[PLAYERS];
static pthread_barrier_t barrier;
static uint64_t rounds_wanted, seed, seen[5];
static _Atomic(bool) is_over;

static const struct kind {
  uintptr_t tag; /* 0: the ring */
  bool (*step)(void *state, const struct linear_op *op);
} kinds[] = {{COIR__LEAN_FORK, step_deque}, {COIR__LEAN_JOB, step_deque}, {0, step_ring}};
static const struct kind *kind;

static struct coir_fiber *binds(struct coir__worker *w, struct coir__lean *lean) {
  (void)w;
  return &fibers[(struct item *)lean - items];
}

static struct coir_fiber *entry_of(int i) { return (struct coir_fiber *)((uintptr_t)&items[i] | kind->tag); }
static int64_t value_of(const struct coir_fiber *f) { return f ? f - fibers + 1 : NOTHING; }

static void push(struct client *c, struct coir__worker *w, int i) {
  int64_t began = history_tick();
  if (kind->tag) CHECK(coir__runq_push_lean(w, entry_of(i)));
  else coir__runq_push(w, &fibers[i]);
  note(c, began, PUSH, i + 1, 0);
}

static void pop(struct client *c, struct coir__worker *w) {
  int64_t began = history_tick();
  note(c, began, POP, 0, value_of(coir__runq_pop(w)));
}

static void pop_newest(struct client *c, struct coir__worker *w) {
  w->tick = 1;
  int64_t began = history_tick();
  struct coir__lean *lean = coir__runq_pop_job(w);
  note(c, began, POP_NEWEST, 0, lean ? (struct item *)lean - items + 1 : NOTHING);
}

static void take_back(struct client *c, struct coir__worker *w, int i) {
  int64_t began = history_tick();
  note(c, began, TAKE, i + 1, coir__runq_take_lean(w, entry_of(i)));
}

static void steal(struct client *c, struct coir__worker *w) {
  bool lone = !kind->tag && draw(c, 4) == 0;
  int64_t began = history_tick();
  struct coir_fiber *f = coir__runq_steal(w, rt->workers[0], lone);
  if (!f) return;
  struct linear_op *op = note(c, began, STEAL, lone, 0);
  for (int n = 0; f; f = coir__runq_pop(w)) {
    CHECK(n < LINEAR_VALUES_MAX);
    op->values[n++] = value_of(f);
  }
}

/* So that both come to the point at the same moment, sooner or later. */
static void pause_for(uint64_t spins) {
  for (; spins > 0; spins--) coir__pause();
}

/* Pushes every item, and takes what thieves have left. */
static void own(struct client *c, struct coir__worker *w) {
  for (int i = 0; i < ITEMS && c->count < OPS_MAX;) {
    uint64_t how = draw(c, 8), length = coir__runq_length(w);
    if (length < 2 || (how < 4 && length < LENGTH_MAX)) push(c, w, i++);
    else if (how < 6 || !kind->tag) pop(c, w);
    else if (kind->tag == COIR__LEAN_JOB) pop_newest(c, w);
    else take_back(c, w, i - 1);
    pause_for(draw(c, 64));
  }
}

static void *player(void *arg) {
  struct client *c = arg;
  struct coir__worker *w = rt->workers[c->number];
  for (uint64_t round = 0; round < rounds_wanted; round++) {
    pthread_barrier_wait(&barrier);
    if (c->number == 0) {
      own(c, w);
      atomic_store(&is_over, true);
    }
    while (c->number && !atomic_load(&is_over) && c->count < OPS_MAX) {
      steal(c, w);
      pause_for(draw(c, 64));
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); /* the referee empties the queues */
  }
  return NULL;
}

/* What is left comes out, each once; and all that came out is judged. */
static void referee(uint64_t round) {
  kind = &kinds[round % 3];
  atomic_store(&is_over, false);
  for (int i = 0; i < PLAYERS; i++) clients[i].count = 0;
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  struct linear_object object = {sizeof(struct state), NULL, kind->step, name};
  CHECK_EQ(history_check(&object, clients, PLAYERS, NULL, 0, stderr), LINEAR_YES);
  for (int i = 0; i < PLAYERS; i++)
    for (size_t k = 0; k < clients[i].count; k++) seen[clients[i].ops[k].what]++;
  while (coir__runq_pop(rt->workers[0])) {}
  pthread_barrier_wait(&barrier);
}

int main(int argc, char **argv) {
  rounds_wanted = (uint64_t)rounds(30);
  read_arguments(argc, argv, &rounds_wanted, &seed);
  rt = make_runtime((struct coir_config){.workers = PLAYERS});
  if (getenv("COIR_NO_MEMBARRIER")) CHECK(!coir__fence_asymmetric);
  fibers = aligned_alloc(_Alignof(struct coir_fiber), ITEMS * sizeof *fibers);
  items = aligned_alloc(_Alignof(struct item), ITEMS * sizeof *items);
  CHECK(fibers && items);
  memset(fibers, 0, ITEMS * sizeof *fibers);
  for (int i = 0; i < ITEMS; i++) items[i].lean.bind = binds;
  pthread_barrier_init(&barrier, NULL, PLAYERS + 1);
  clients_init(clients, PLAYERS, seed, NULL);
  pthread_t threads[PLAYERS];
  for (int i = 0; i < PLAYERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, player, &clients[i]), 0);
  for (uint64_t round = 0; round < rounds_wanted; round++) referee(round);
  for (int i = 0; i < PLAYERS; i++) pthread_join(threads[i], NULL);
  printf("%llu pushed, %llu popped, %llu thefts\n", (unsigned long long)seen[PUSH],
         (unsigned long long)(seen[POP] + seen[POP_NEWEST] + seen[TAKE]), (unsigned long long)seen[STEAL]);
  pthread_barrier_destroy(&barrier);
  free(fibers);
  free(items);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  return 0;
}
