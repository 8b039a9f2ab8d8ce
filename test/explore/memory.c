/* The memory that threads see. See explore.h.
 *
 * Each word that is accessed atomically has its history: what was stored, oldest first, each with what its thread
 * knew when it released it. A thread knows of each word the oldest store that it may still read; what it reads or
 * learns only makes that newer. An acquire takes over what was released with the store that it reads; a relaxed load
 * keeps it for an acquire fence that may follow. Read-modify-writes read the newest, and hand on what that one had
 * released. What is sequentially consistent goes by one more such knowledge, of all: its fences exchange theirs with
 * it, its stores enter themselves, its loads read nothing older. So what C11 allows is allowed, but for loads that
 * see stores of the future, and stores that slip in before others in a history.
 *
 * What a fence of everybody (membarrier) does: each thread, one after the other, executes a full one; its caller the
 * first and the last.
 *
 * Ordinary accesses are not steps: each byte has who wrote it last and who has read it since, by the clocks of the
 * threads; one that is not ordered after what it conflicts with is a race, and fails the case. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "inside.h"

#define STORES_MAX 400 /* to one word, in one run */
#define VIEWS_MAX 8192
#define SLOTS 4096     /* of the tables; powers of two */
#define SHADOWS 16384
#define SHARED_MAX 4096

struct store {
  uint64_t value;
  struct view *released; /* NULL: nothing */
};

struct location {
  uintptr_t word;
  int bytes, index, count;
  uint32_t users; /* which threads have used it */
  uint32_t run;
  struct store stores[STORES_MAX];
};

/* Eight bytes of ordinary memory. */
struct shadow {
  uintptr_t address;
  uint32_t run;
  uint8_t writer[8];                     /* thread + 1; 0: setup */
  uint32_t written[8];                   /* its clock */
  uint32_t read[EX_THREADS_MAX][8];      /* clocks; 0: not since */
  uint32_t atomic[EX_THREADS_MAX][8];    /* clocks of their last atomic accesses */
  uint32_t changed[EX_THREADS_MAX][8];   /* of those that wrote */
};

static struct memory {
  int threads;
  uint32_t run;
  struct view known[EX_THREADS_MAX];    /* by each thread */
  struct view deferred[EX_THREADS_MAX]; /* read relaxed: for an acquire fence */
  struct view fenced[EX_THREADS_MAX];   /* at its last release fence */
  bool is_fenced[EX_THREADS_MAX];
  struct view all; /* sequentially consistent */
  struct location locations[LOCATIONS_MAX];
  int location_count;
  uint16_t slots[SLOTS]; /* location + 1 */
  uint32_t slot_runs[SLOTS];
  struct view views[VIEWS_MAX];
  int view_count;
  struct shadow shadows[SHADOWS];
  uintptr_t shared[SLOTS], found[SHARED_MAX];
  int shared_count, found_count;
} *m;

/* ---- Views ----------------------------------------------------------------------------------------------------- */

static void join(struct view *to, const struct view *from) {
  for (int i = 0; i < m->location_count; i++)
    if (to->at[i] < from->at[i]) to->at[i] = from->at[i];
  for (int i = 0; i < m->threads; i++)
    if (to->clock[i] < from->clock[i]) to->clock[i] = from->clock[i];
}

/* Without the clocks: it orders nothing that is not atomic. */
static void join_words(struct view *to, const struct view *from) {
  for (int i = 0; i < m->location_count; i++)
    if (to->at[i] < from->at[i]) to->at[i] = from->at[i];
}

struct view *memory_view(void) {
  if (m->view_count == VIEWS_MAX) ex_fail("explore: more than %d releases", VIEWS_MAX);
  struct view *v = &m->views[m->view_count++];
  memset(v, 0, sizeof *v);
  return v;
}

void memory_hand(struct view *to) {
  int me = ex_me();
  join(to, &m->known[me]);
  m->known[me].clock[me]++;
}

void memory_learn(const struct view *from) { join(&m->known[ex_me()], from); }

void memory_begin(int threads) {
  if (!m) {
    m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) abort();
  }
  m->run++;
  m->threads = threads;
  m->location_count = m->view_count = m->found_count = 0;
  memset(&m->all, 0, sizeof m->all);
  for (int i = 0; i < threads; i++) {
    memset(&m->known[i], 0, sizeof m->known[i]);
    memset(&m->deferred[i], 0, sizeof m->deferred[i]);
    m->is_fenced[i] = false;
    m->known[i].clock[i] = 1;
  }
}

/* ---- Which words are shared ------------------------------------------------------------------------------------ */

static uint32_t hash(uintptr_t word) { return (uint32_t)((word >> 2) * UINT64_C(0x9e3779b97f4a7c15) >> 40); }

static uintptr_t *shared_slot(uintptr_t word) {
  uint32_t i = hash(word) % SLOTS;
  while (m->shared[i] && m->shared[i] != word) i = (i + 1) % SLOTS;
  return &m->shared[i];
}

bool memory_is_shared(const void *word) { return *shared_slot((uintptr_t)word) != 0; }

void memory_forget_shared(void) {
  memset(m->shared, 0, sizeof m->shared);
  m->shared_count = m->found_count = 0;
}

bool memory_found_shared(void) {
  for (int i = 0; i < m->found_count; i++) {
    *shared_slot(m->found[i]) = m->found[i];
    if (++m->shared_count > SLOTS / 2) abort();
  }
  bool any = m->found_count > 0;
  m->found_count = 0;
  return any;
}

static void note_user(struct location *l) {
  uint32_t bit = 1u << ex_me();
  if (!(l->users & bit) && l->users && !memory_is_shared((void *)l->word) && m->found_count < SHARED_MAX) {
    bool known = false;
    for (int i = 0; i < m->found_count; i++) known |= m->found[i] == l->word;
    if (!known) m->found[m->found_count++] = l->word;
  }
  l->users |= bit;
}

/* ---- Ordinary memory ------------------------------------------------------------------------------------------- */

static struct shadow *shadow_of(uintptr_t address) {
  for (uint32_t i = hash(address) % SHADOWS, n = 0; n < SHADOWS; i = (i + 1) % SHADOWS, n++) {
    struct shadow *s = &m->shadows[i];
    if (s->run == m->run && s->address == address) return s;
    if (s->run == m->run) continue;
    memset(s, 0, sizeof *s);
    s->run = m->run;
    s->address = address;
    return s;
  }
  ex_fail("explore: too much memory is used");
}

static void race(const char *what, uintptr_t byte, int other) {
  ex_trace(what, (void *)byte, 0, 0, "RACE");
  ex_fail("a race at %#zx: %s that is not ordered after what T%d did there", (size_t)byte, what, other);
}

static void plain_byte(struct shadow *s, int i, bool is_write) {
  int me = ex_me();
  const uint32_t *mine = m->known[me].clock;
  const char *what = is_write ? "a write" : "a read";
  int writer = s->writer[i] - 1;
  if (writer >= 0 && writer != me && mine[writer] < s->written[i]) race(what, s->address + (uintptr_t)i, writer);
  for (int t = 0; t < m->threads; t++) {
    if (t == me) continue;
    if (mine[t] < s->changed[t][i]) race(what, s->address + (uintptr_t)i, t);
    if (is_write && (mine[t] < s->read[t][i] || mine[t] < s->atomic[t][i])) race(what, s->address + (uintptr_t)i, t);
  }
  if (!is_write) {
    s->read[me][i] = mine[me];
    return;
  }
  s->writer[i] = (uint8_t)(me + 1);
  s->written[i] = mine[me];
}

void memory_plain(const void *from, size_t bytes, bool is_write) {
  uintptr_t at = (uintptr_t)from, end = at + bytes;
  for (struct shadow *s = NULL; at < end; at++) {
    if (!s || at % 8 == 0) s = shadow_of(at & ~(uintptr_t)7);
    plain_byte(s, (int)(at % 8), is_write);
  }
}

/* An atomic access conflicts with ordinary ones, and not with its like. */
static void note_atomic(uintptr_t word, int bytes, bool is_write) {
  int me = ex_me();
  const uint32_t *mine = m->known[me].clock;
  struct shadow *s = shadow_of(word & ~(uintptr_t)7);
  for (int i = (int)(word % 8), end = i + bytes; i < end; i++) {
    int writer = s->writer[i] - 1;
    if (writer >= 0 && writer != me && mine[writer] < s->written[i]) race("an atomic access", word, writer);
    for (int t = 0; t < m->threads && is_write; t++)
      if (t != me && mine[t] < s->read[t][i]) race("an atomic write", word, t);
    s->atomic[me][i] = mine[me];
    if (is_write) s->changed[me][i] = mine[me];
  }
}

/* ---- Atomic accesses ------------------------------------------------------------------------------------------- */

static uint64_t raw_load(const void *word, int bytes) {
  switch (bytes) {
  case 1: return *(const volatile uint8_t *)word;
  case 2: return *(const volatile uint16_t *)word;
  case 4: return *(const volatile uint32_t *)word;
  default: return *(const volatile uint64_t *)word;
  }
}

static void raw_store(void *word, int bytes, uint64_t value) {
  switch (bytes) {
  case 1: *(volatile uint8_t *)word = (uint8_t)value; break;
  case 2: *(volatile uint16_t *)word = (uint16_t)value; break;
  case 4: *(volatile uint32_t *)word = (uint32_t)value; break;
  default: *(volatile uint64_t *)word = value; break;
  }
}

uint64_t memory_latest(const void *word, int bytes) { return raw_load(word, bytes); }

static void append(struct location *l, uint64_t value, struct view *released) {
  if (l->count == STORES_MAX) ex_fail("explore: more than %d stores to a word", STORES_MAX);
  l->stores[l->count++] = (struct store){.value = value, .released = released};
}

static struct location *location_new(uintptr_t word, int bytes) {
  if (m->location_count == LOCATIONS_MAX) ex_fail("explore: more than %d words", LOCATIONS_MAX);
  struct location *l = &m->locations[m->location_count];
  l->word = word;
  l->bytes = bytes;
  l->users = 0;
  l->count = 0;
  l->index = m->location_count++;
  append(l, raw_load((void *)word, bytes), NULL);
  for (int i = 0; i < m->threads; i++) {
    m->known[i].at[l->index] = m->deferred[i].at[l->index] = m->fenced[i].at[l->index] = 0;
  }
  m->all.at[l->index] = 0;
  return l;
}

static struct location *location_of(void *word, int bytes) {
  uint32_t i = (hash((uintptr_t)word) + (uint32_t)bytes) % SLOTS;
  for (; m->slot_runs[i] == m->run; i = (i + 1) % SLOTS) {
    struct location *l = &m->locations[m->slots[i]];
    if (l->word == (uintptr_t)word && l->bytes == bytes) return l;
  }
  m->slot_runs[i] = m->run;
  m->slots[i] = (uint16_t)m->location_count;
  return location_new((uintptr_t)word, bytes);
}

/* Before every access: others may go first. What was written by an ordinary store, or as a part of something larger,
 * is the newest value then. */
static struct location *come_to(void *word, int bytes, bool is_write) {
  ex_step(word);
  struct location *l = location_of(word, bytes);
  note_user(l);
  note_atomic((uintptr_t)word, bytes, is_write);
  uint64_t now = raw_load(word, bytes);
  if (l->stores[l->count - 1].value == now) return l;
  append(l, now, NULL);
  m->known[ex_me()].at[l->index] = (uint16_t)(l->count - 1);
  return l;
}

static bool acquires(enum order order) { return order == ACQUIRE || order == CONSUME || order >= ACQ_REL; }
static bool releases(enum order order) { return order == RELEASE || order >= ACQ_REL; }

static void read_from(const struct store *s, enum order order) {
  int me = ex_me();
  if (!s->released) return;
  join(acquires(order) ? &m->known[me] : &m->deferred[me], s->released);
}

uint64_t memory_load(void *word, int bytes, enum order order) {
  struct location *l = come_to(word, bytes, false);
  int me = ex_me(), oldest = m->known[me].at[l->index], newest = l->count - 1, old = 0;
  if (order == SEQ_CST && oldest < m->all.at[l->index]) oldest = m->all.at[l->index];
  if (newest > oldest && memory_is_shared(word) && ex_may_be_old()) old = ex_choose(newest - oldest + 1, "which value");
  if (old) ex_was_old();
  const struct store *s = &l->stores[newest - old];
  m->known[me].at[l->index] = (uint16_t)(newest - old);
  read_from(s, order);
  ex_trace("loads", word, bytes, s->value, old ? "which is OLD" : "");
  return s->value;
}

/* What a store hands on. */
static struct view *released_by(enum order order) {
  int me = ex_me();
  const struct view *from = releases(order) ? &m->known[me] : m->is_fenced[me] ? &m->fenced[me] : NULL;
  if (!from) return NULL;
  struct view *v = memory_view();
  join(v, from);
  return v;
}

static void enter(struct location *l, uint64_t value, struct view *released, enum order order) {
  int me = ex_me();
  append(l, value, released);
  m->known[me].at[l->index] = (uint16_t)(l->count - 1);
  if (released) released->at[l->index] = (uint16_t)(l->count - 1);
  if (releases(order)) m->known[me].clock[me]++;
  if (order == SEQ_CST) m->all.at[l->index] = (uint16_t)(l->count - 1);
  raw_store((void *)l->word, l->bytes, value);
  ex_stored();
}

void memory_store(void *word, int bytes, uint64_t value, enum order order) {
  struct location *l = come_to(word, bytes, true);
  enter(l, value, released_by(order), order);
  ex_trace("stores", word, bytes, value, "");
}

/* A read-modify-write goes on with what the store that it has read had released. */
static void rewrite(struct location *l, const struct store *former, uint64_t value, enum order order) {
  struct view *released = released_by(order), *before = former->released;
  if (before && !released) released = memory_view();
  if (before) join(released, before);
  enter(l, value, released, order);
}

static uint64_t cut(uint64_t value, int bytes) {
  return bytes == 8 ? value : value & ((UINT64_C(1) << 8 * bytes) - 1);
}

uint64_t memory_update(void *word, int bytes, update_fn update, uint64_t operand, enum order order) {
  struct location *l = come_to(word, bytes, true);
  const struct store *former = &l->stores[l->count - 1];
  uint64_t old = former->value;
  read_from(former, order);
  rewrite(l, former, cut(update(old, operand), bytes), order);
  ex_trace("updates", word, bytes, cut(update(old, operand), bytes), "");
  return old;
}

uint64_t memory_swap(void *word, int bytes, uint64_t expected, uint64_t desired, enum order order, enum order failed) {
  struct location *l = come_to(word, bytes, true);
  const struct store *former = &l->stores[l->count - 1];
  uint64_t old = former->value;
  bool swaps = old == expected;
  read_from(former, swaps ? order : failed);
  m->known[ex_me()].at[l->index] = (uint16_t)(l->count - 1);
  if (swaps) rewrite(l, former, desired, order);
  ex_trace(swaps ? "swaps" : "no swap", word, bytes, swaps ? desired : old, "");
  return old;
}

/* ---- Fences ---------------------------------------------------------------------------------------------------- */

static void fence_of(int thread, enum order order) {
  struct view *known = &m->known[thread];
  if (acquires(order)) join(known, &m->deferred[thread]);
  if (order == SEQ_CST) {
    join_words(&m->all, known);
    join_words(known, &m->all);
  }
  if (!releases(order)) return;
  m->fenced[thread] = *known;
  m->is_fenced[thread] = true;
  known->clock[thread]++;
}

void memory_fence(enum order order) { fence_of(ex_me(), order); }

void memory_fence_all(void) {
  int me = ex_me();
  fence_of(me, SEQ_CST);
  for (int i = 0; i < m->threads; i++)
    if (i != me) fence_of(i, SEQ_CST);
  fence_of(me, SEQ_CST);
}
