/* Fiber descriptors: carved from slabs that are never given back while their runtime lives, so that a late look at a
 * descriptor finds a descriptor (wait.c relies on it). Each worker keeps free ones at hand; they move to and from the shared
 * depot in batches.
 *
 * Slabs double from 64 KiB to 4 MiB; the large ones ask for huge pages, so that a burst of a million fibers is not a million
 * page faults. */
#include "internal.h"

#define SLAB_MIN ((size_t)64 << 10)
#define SLAB_MAX ((size_t)4 << 20)
#define KEEP_MAX 512
#define BATCH 128
#define ID_BLOCK 256

static _Atomic(uint64_t) next_id = 1;

/* Makes one more slab; slab_lock is held. Its descriptors go to the depot. */
static bool slab_add(struct coir_runtime *rt) {
  struct coir__slab *newest = atm_load_rlx(&rt->slabs);
  size_t bytes = newest ? newest->bytes * 2 : SLAB_MIN;
  if (bytes > SLAB_MAX) bytes = SLAB_MAX;
  struct coir__slab *slab = coir__os_reserve(bytes, bytes, bytes >= (size_t)2 << 20);
  if (!slab) return false;
  slab->bytes = bytes;
  slab->count = (uint32_t)((bytes - sizeof *slab) / sizeof slab->fibers[0]);
  rt->fresh = slab->fibers;
  rt->fresh_end = slab->fibers + slab->count;
  slab->next = newest;
  /* Release: its header. Pairs with the acquire of whoever walks the slabs (inspect.c). */
  atm_store_rel(&rt->slabs, slab);
  return true;
}

/* One descriptor from the depot, or a fresh one; slab_lock is held. */
static struct coir_fiber *depot_take(struct coir_runtime *rt) {
  struct coir_fiber *f = rt->free_fibers;
  if (f) {
    rt->free_fibers = f->next;
    return f;
  }
  if (rt->fresh == rt->fresh_end && !slab_add(rt)) return NULL;
  f = rt->fresh++;
  f->rt = rt; /* once for all its lives */
  return f;
}

static void refill(struct coir_runtime *rt, struct coir__worker *w) {
  coir__lock(&rt->slab_lock);
  struct coir_fiber **end = &w->free_fibers;
  for (int i = 0; i < BATCH; i++) {
    struct coir_fiber *f = depot_take(rt);
    if (!f) break;
    *end = f; /* in the order of their addresses: kind to the prefetcher */
    end = &f->next;
    w->free_fibers_count++;
  }
  *end = NULL;
  coir__unlock(&rt->slab_lock);
}

struct coir_fiber *coir__fiber_take(struct coir_runtime *rt, struct coir__worker *w) {
  struct coir_fiber *f;
  if (COIR_UNLIKELY(!w)) {
    coir__lock(&rt->slab_lock);
    f = depot_take(rt);
    coir__unlock(&rt->slab_lock);
    if (f) f->id = atm_add_rlx(&next_id, 1);
    return f;
  }
  if (COIR_UNLIKELY(!w->free_fibers)) refill(rt, w);
  f = w->free_fibers;
  if (COIR_UNLIKELY(!f)) return NULL;
  w->free_fibers = f->next;
  w->free_fibers_count--;
  if (COIR_UNLIKELY(w->id_next == w->id_end)) {
    w->id_next = atm_add_rlx(&next_id, ID_BLOCK);
    w->id_end = w->id_next + ID_BLOCK;
  }
  f->id = w->id_next++;
  return f;
}

/* Moves half of what the worker keeps to the depot. */
static void spill(struct coir_runtime *rt, struct coir__worker *w) {
  struct coir_fiber *first = w->free_fibers, *last = first;
  for (int i = 1; i < KEEP_MAX / 2; i++) last = last->next;
  w->free_fibers = last->next;
  w->free_fibers_count -= KEEP_MAX / 2;
  coir__lock(&rt->slab_lock);
  last->next = rt->free_fibers;
  rt->free_fibers = first;
  coir__unlock(&rt->slab_lock);
}

void coir__fiber_give(struct coir_runtime *rt, struct coir__worker *w, struct coir_fiber *f) {
  /* Relaxed: a list that is being made may still show it, as it would have a moment ago. */
  atm_store_rlx(&f->entry, NULL);
  if (COIR_UNLIKELY(!w)) {
    coir__lock(&rt->slab_lock);
    f->next = rt->free_fibers;
    rt->free_fibers = f;
    coir__unlock(&rt->slab_lock);
    return;
  }
  f->next = w->free_fibers;
  w->free_fibers = f;
  if (COIR_UNLIKELY(++w->free_fibers_count >= KEEP_MAX)) spill(rt, w);
}

void coir__slabs_destroy(struct coir_runtime *rt) {
  for (struct coir__slab *next, *slab = atm_load_rlx(&rt->slabs); slab; slab = next) {
    next = slab->next;
    coir__os_release(slab, slab->bytes);
  }
  atm_store_rlx(&rt->slabs, NULL);
}
