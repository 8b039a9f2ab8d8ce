/* Permits to go on.
 *
 * Everybody who asks has a slot, in memory that is never given back: whatever number is passed to
 * go_fiber_make_runnable, there is something to look at. A slot is used again, with another life; the number is the
 * slot's and the life's, so a late one meets a life that is not its own, and does nothing.
 *
 * Who gives the permit sets the slot's event after it. That may come late, when the permit is taken already, or even in
 * the slot's next life: so the event is only a hint to look for the permit again. It is reset before the look, so no
 * permit that is given meanwhile is missed.
 *
 * Nothing here is locked, so nothing is left locked in the child of a fork. */
#include "fiber_hooks.h"

#include "internal.h"

#define PERMIT UINT64_C(1)
#define FIRST_BITS 6
#define CHUNKS_MAX (32 - FIRST_BITS)
#define NOBODY UINT32_MAX

struct slot {
  _Atomic(uint64_t) word; /* (a) atomic: the life << 32 | PERMIT */
  _Atomic(uint32_t) next; /* (a) in the list of free ones: an index, or NOBODY */
  struct coir_event event;
};

/* Chunk k has 64 << k slots. */
static _Atomic(struct slot *) chunks[CHUNKS_MAX];
static _Atomic(uint32_t) made;                /* slots that have been given out */
static _Atomic(uint64_t) free_slots = NOBODY; /* changes << 32 | the first's index */
static _Atomic(int) key = -1;                 /* of coir.h: the number, as a pointer */

_Static_assert(sizeof(uintptr_t) == sizeof(uint64_t), "a slot and a life fit into a pointer");

/* ---- Slots ----------------------------------------------------------------------------------------------------- */

static int chunk_of(uint32_t index, uint64_t *offset) {
  uint64_t n = (uint64_t)index + (1 << FIRST_BITS);
  int k = 63 - __builtin_clzll(n) - FIRST_BITS;
  *offset = n - (UINT64_C(1) << (k + FIRST_BITS));
  return k;
}

/* NULL: there never was one. */
static struct slot *slot_at(uint32_t index) {
  uint64_t offset;
  int k = chunk_of(index, &offset);
  /* Acquire: pairs with the release in slot_make. */
  struct slot *chunk = k < CHUNKS_MAX ? atomic_load_explicit(&chunks[k], memory_order_acquire) : NULL;
  return chunk ? &chunk[offset] : NULL;
}

static struct slot *slot_make(uint32_t *index) {
  uint64_t offset;
  *index = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
  int k = chunk_of(*index, &offset);
  struct slot *s = slot_at(*index);
  if (s || k >= CHUNKS_MAX) return s;
  struct slot *chunk = calloc((size_t)1 << (k + FIRST_BITS), sizeof *chunk), *none = NULL;
  if (!chunk) return NULL;
  for (size_t i = 0; i < (size_t)1 << (k + FIRST_BITS); i++) atomic_init(&chunk[i].word, UINT64_C(1) << 32);
  /* Release: pairs with the acquire in slot_at. */
  if (!atomic_compare_exchange_strong_explicit(&chunks[k], &none, chunk, memory_order_acq_rel, memory_order_acquire))
    free(chunk);
  return slot_at(*index);
}

/* The count of changes in the head keeps one that has come back in between from being taken for unchanged. */
static struct slot *slot_take(uint32_t *index) {
  /* Acquire: pairs with the release in slot_give. */
  uint64_t head = atomic_load_explicit(&free_slots, memory_order_acquire);
  while ((uint32_t)head != NOBODY) {
    struct slot *s = slot_at((uint32_t)head);
    *index = (uint32_t)head;
    uint64_t next = atomic_load_explicit(&s->next, memory_order_relaxed) | ((head >> 32) + 1) << 32;
    if (atomic_compare_exchange_weak_explicit(&free_slots, &head, next, memory_order_acquire, memory_order_acquire))
      return s;
  }
  return slot_make(index);
}

static void slot_give(struct slot *s, uint32_t index) {
  uint64_t head = atomic_load_explicit(&free_slots, memory_order_relaxed);
  for (;;) {
    atomic_store_explicit(&s->next, (uint32_t)head, memory_order_relaxed); /* published by what follows */
    uint64_t mine = index | ((head >> 32) + 1) << 32;
    /* Release: pairs with the acquire in slot_take. */
    if (atomic_compare_exchange_weak_explicit(&free_slots, &head, mine, memory_order_release, memory_order_relaxed))
      return;
  }
}

/* ---- Who is who ------------------------------------------------------------------------------------------------ */

/* The number: the life, from 1, and the slot. */
static GoFiber *number_of(uint64_t life, uint32_t index) { return (GoFiber *)(uintptr_t)(life << 32 | index); }
static uint32_t index_of(const GoFiber *fiber) { return (uint32_t)(uintptr_t)fiber; }
static uint64_t life_of(const GoFiber *fiber) { return (uint64_t)(uintptr_t)fiber >> 32; }

/* Its fiber or thread ends. */
static void end_life(void *number) {
  struct slot *s = slot_at(index_of(number));
  uint64_t life = (uint32_t)(life_of(number) + 1);
  /* A plain store: who gives the permit only changes the word of his own life. */
  atomic_store_explicit(&s->word, (life ? life : 1) << 32, memory_order_relaxed);
  slot_give(s, index_of(number));
}

/* Returns the key, made by the first who asks; or a negative errno. */
static int key_get(void) {
  int k = atomic_load_explicit(&key, memory_order_relaxed), none = -1; /* the key needs nothing else */
  if (k >= 0) return k;
  k = coir_key_create(end_life);
  if (k < 0 || atomic_compare_exchange_strong(&key, &none, k)) return k;
  coir_key_delete(k);
  return none;
}

GoFiber *go_fiber_current(void) {
  int k = key_get(), rc = k;
  uint32_t index;
  GoFiber *self = k >= 0 ? coir_local_get(k) : NULL;
  if (self) return self;
  struct slot *s = k >= 0 ? slot_take(&index) : NULL;
  if (s) {
    self = number_of(atomic_load_explicit(&s->word, memory_order_relaxed) >> 32, index); /* the slot is ours */
    rc = coir_local_set(k, self);
    if (rc == 0) return self;
    slot_give(s, index);
  }
  errno = rc < 0 ? -rc : ENOMEM;
  return NULL;
}

/* ---- Permits --------------------------------------------------------------------------------------------------- */

static bool take_permit(struct slot *s) {
  /* Acquire: pairs with the release in go_fiber_make_runnable. */
  return atomic_fetch_and_explicit(&s->word, ~PERMIT, memory_order_acquire) & PERMIT;
}

static int block(int64_t deadline) {
  const GoFiber *self = go_fiber_current();
  struct slot *s = self ? slot_at(index_of(self)) : NULL;
  while (s) {
    if (take_permit(s)) return 0;
    int rc = coir_event_wait(&s->event, deadline);
    if (rc) return go__fail(-rc); /* a permit that is given just now is for the next time */
    coir_event_reset(&s->event);
  }
  return -1;
}

int go_fiber_block(void) { return block(COIR_NEVER); }

int go_fiber_block_until(uint64_t deadline_ns) {
  return block(deadline_ns > (uint64_t)COIR_NEVER ? COIR_NEVER : (int64_t)deadline_ns);
}

int go_fiber_make_runnable(GoFiber *fiber) {
  struct slot *s = slot_at(index_of(fiber));
  if (!fiber || !s) return go__fail(EINVAL);
  uint64_t word = atomic_load_explicit(&s->word, memory_order_relaxed);
  /* Also when the permit is there. Release: what the caller did is visible to who takes it. Pairs with take_permit. */
  do {
    if (word >> 32 != life_of(fiber)) return go__fail(ESRCH);
  } while (!atomic_compare_exchange_weak_explicit(&s->word, &word, word | PERMIT, memory_order_release,
                                                  memory_order_relaxed));
  coir_event_set(&s->event);
  return 0;
}
