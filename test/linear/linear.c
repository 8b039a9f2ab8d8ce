#include "linear.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX (1 << 24)
#define ALIGNMENT 16 /* of the state behind the bits */

/* The beginning or the end of a call, in a list in the order of their times. */
struct entry {
  struct entry *prev, *next;
  struct entry *end; /* of a beginning: its end; NULL: this is one */
  uint32_t op;
  int64_t at;
};

/* A call that was given its place, and the state before it. */
struct placed {
  struct entry *entry;
  unsigned char *state;
};

/* What was tried: sets of calls done, with the state after them, as one row of bytes. */
struct memory {
  unsigned char **slots;
  size_t mask, count, row_bytes;
};

struct search {
  const struct linear_object *object;
  const struct linear_op *ops;
  size_t count, bits_bytes;
  struct entry head;     /* of the list */
  struct entry *entries; /* 2 * count */
  struct placed *placed;
  size_t depth, deepest;
  uint32_t *best;                /* the longest order so far */
  unsigned char *row, *next_row; /* bits of the calls done, then the state */
  struct memory memory;
};

static void *must_have(void *p) {
  if (!p) abort();
  return p;
}

/* ---- What was tried -------------------------------------------------------------------------------------------- */

static uint64_t hash_of(const unsigned char *row, size_t bytes) {
  uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ row[i]) * UINT64_C(1099511628211);
  return hash ^ hash >> 29;
}

static unsigned char **slot_of(const struct memory *m, const unsigned char *row) {
  size_t i = hash_of(row, m->row_bytes) & m->mask;
  while (m->slots[i] && memcmp(m->slots[i], row, m->row_bytes) != 0) i = (i + 1) & m->mask;
  return &m->slots[i];
}

static void memory_grow(struct memory *m) {
  struct memory bigger = {.mask = m->mask * 2 + 1, .count = m->count, .row_bytes = m->row_bytes};
  bigger.slots = must_have(calloc(bigger.mask + 1, sizeof *bigger.slots));
  for (size_t i = 0; i <= m->mask; i++)
    if (m->slots[i]) *slot_of(&bigger, m->slots[i]) = m->slots[i];
  free(m->slots);
  *m = bigger;
}

/* False: it was there. */
static bool memory_add(struct memory *m, const unsigned char *row) {
  unsigned char **slot = slot_of(m, row);
  if (*slot) return false;
  *slot = must_have(malloc(m->row_bytes));
  memcpy(*slot, row, m->row_bytes);
  if (++m->count * 2 > m->mask) memory_grow(m);
  return true;
}

static void memory_free(struct memory *m) {
  for (size_t i = 0; i <= m->mask; i++) free(m->slots[i]);
  free(m->slots);
}

/* ---- The list -------------------------------------------------------------------------------------------------- */

/* What begins at the time at which another ends comes first: they overlap. */
static int by_time(const void *a, const void *b) {
  const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
  if (x->at != y->at) return x->at < y->at ? -1 : 1;
  return !x->end - !y->end;
}

static void list_make(struct search *s) {
  struct entry **order = must_have(malloc((2 * s->count + 1) * sizeof *order));
  for (uint32_t i = 0; i < s->count; i++) {
    struct entry *e = &s->entries[2 * i];
    e[0] = (struct entry){.end = &e[1], .op = i, .at = s->ops[i].began};
    e[1] = (struct entry){.op = i, .at = s->ops[i].ended};
    order[2 * i] = &e[0];
    order[2 * i + 1] = &e[1];
  }
  qsort(order, 2 * s->count, sizeof *order, by_time);
  struct entry *last = &s->head;
  for (size_t i = 0; i < 2 * s->count; i++) {
    order[i]->prev = last;
    last = last->next = order[i];
  }
  free(order);
}

static void entry_remove(struct entry *e) {
  e->prev->next = e->next;
  if (e->next) e->next->prev = e->prev;
}

static void entry_restore(struct entry *e) {
  e->prev->next = e;
  if (e->next) e->next->prev = e;
}

/* ---- The search ------------------------------------------------------------------------------------------------ */

static unsigned char *state_of(const struct search *s, unsigned char *row) { return row + s->bits_bytes; }

/* Gives the call that begins at `e` the next place, if that is possible and was not tried. */
static bool place(struct search *s, struct entry *e) {
  memcpy(s->next_row, s->row, s->memory.row_bytes);
  s->next_row[e->op / 8] |= (unsigned char)(1u << e->op % 8);
  if (!s->object->step(state_of(s, s->next_row), &s->ops[e->op]) || !memory_add(&s->memory, s->next_row)) return false;
  struct placed *p = &s->placed[s->depth++];
  p->entry = e;
  memcpy(p->state, state_of(s, s->row), s->object->state_bytes);
  memcpy(s->row, s->next_row, s->memory.row_bytes);
  entry_remove(e);
  entry_remove(e->end);
  if (s->depth > s->deepest) {
    s->deepest = s->depth;
    for (size_t i = 0; i < s->depth; i++) s->best[i] = s->placed[i].entry->op;
  }
  return true;
}

/* Takes the last place back. Returns its call. */
static struct entry *take_back(struct search *s) {
  struct placed *p = &s->placed[--s->depth];
  struct entry *e = p->entry;
  memcpy(state_of(s, s->row), p->state, s->object->state_bytes);
  s->row[e->op / 8] &= (unsigned char)~(1u << e->op % 8);
  entry_restore(e->end);
  entry_restore(e);
  return e;
}

static enum linear_verdict search_run(struct search *s) {
  struct entry *e = s->head.next;
  for (long steps = 0; s->head.next; steps++) {
    if (steps == STEPS_MAX) return LINEAR_TOO_LONG;
    if (e->end) e = place(s, e) ? s->head.next : e->next;
    else if (s->depth) e = take_back(s)->next; /* a call has ended before it was placed */
    else return LINEAR_NO;
  }
  return LINEAR_YES;
}

static void print_op(FILE *out, const struct linear_object *object, const struct linear_op *op) {
  fprintf(out, "  %lld..%lld client %d: %s(%lld) = %lld", (long long)op->began, (long long)op->ended, op->client,
          object->name(op->what), (long long)op->arg, (long long)op->result);
  for (int i = 0; i < LINEAR_VALUES_MAX && op->values[i]; i++) fprintf(out, " %lld", (long long)op->values[i]);
  fputc('\n', out);
}

static void print(const struct search *s, FILE *out) {
  fprintf(out, "not linearizable; the order that comes farthest:\n");
  bool *is_done = must_have(calloc(s->count + 1, sizeof *is_done));
  for (size_t i = 0; i < s->deepest; i++) {
    is_done[s->best[i]] = true;
    print_op(out, s->object, &s->ops[s->best[i]]);
  }
  fprintf(out, "and what is left:\n");
  for (size_t i = 0; i < s->count; i++)
    if (!is_done[i]) print_op(out, s->object, &s->ops[i]);
  free(is_done);
}

static void search_make(struct search *s) {
  size_t n = s->count + 1, state_bytes = s->object->state_bytes;
  s->bits_bytes = (n / 8 / ALIGNMENT + 1) * ALIGNMENT;
  s->memory = (struct memory){.mask = 1023, .row_bytes = s->bits_bytes + state_bytes};
  s->memory.slots = must_have(calloc(s->memory.mask + 1, sizeof *s->memory.slots));
  s->entries = must_have(malloc(2 * n * sizeof *s->entries));
  s->placed = must_have(malloc(n * sizeof *s->placed));
  s->placed[0].state = must_have(malloc(n * state_bytes));
  for (size_t i = 1; i < n; i++) s->placed[i].state = s->placed[0].state + i * state_bytes;
  s->best = must_have(malloc(n * sizeof *s->best));
  s->row = must_have(calloc(1, s->memory.row_bytes));
  s->next_row = must_have(calloc(1, s->memory.row_bytes));
  if (s->object->initial) memcpy(state_of(s, s->row), s->object->initial, state_bytes);
  list_make(s);
}

static void search_free(struct search *s) {
  memory_free(&s->memory);
  free(s->entries);
  free(s->placed[0].state);
  free(s->placed);
  free(s->best);
  free(s->row);
  free(s->next_row);
}

enum linear_verdict linear_check(const struct linear_object *object, const struct linear_op *ops, size_t count,
                                 FILE *out) {
  struct search s = {.object = object, .ops = ops, .count = count};
  search_make(&s);
  enum linear_verdict verdict = search_run(&s);
  if (verdict == LINEAR_NO && out) print(&s, out);
  search_free(&s);
  return verdict;
}
