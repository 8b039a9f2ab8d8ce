/* Fiber descriptors: carved from slabs that are never given back while their runtime lives, so that a late look at a
 * descriptor finds a descriptor (wait.c relies on it).
 *
 * Each worker keeps free ones in two magazines, and exchanges whole magazines with the depot of the runtime (Bonwick
 * and Adams, "Magazines and Vmem", 2001). A magazine is an array, so that nothing here touches a descriptor that is
 * not about to be used, and the ones that are next can be fetched ahead.
 *
 * Slabs double from 64 KiB to 4 MiB; the large ones ask for huge pages, so that a burst of a million fibers is not a
 * million page faults. */
#include "internal.h"

#ifdef COIR_HARD
#define SLAB_MIN ((size_t)4 << 10)
#define SLAB_MAX ((size_t)64 << 10)
#define ID_BLOCK 2
#else
#define SLAB_MIN ((size_t)64 << 10)
#define SLAB_MAX ((size_t)4 << 20)
#define ID_BLOCK 256
#endif
#define SLAB_HUGE ((size_t)2 << 20)

static _Atomic(uint64_t) next_id = 1;

/* Makes one more slab. slab_lock is held, but not while the system is asked. */
static bool slab_add(struct coir_runtime *rt) {
  struct coir__slab *newest = atm_load_rlx(&rt->slabs);
  size_t bytes = newest ? newest->bytes * 2 : SLAB_MIN;
  if (bytes > SLAB_MAX) bytes = SLAB_MAX;
  coir__unlock(&rt->slab_lock);
  struct coir__slab *slab = coir__os_reserve(bytes, bytes, bytes >= SLAB_HUGE);
  coir__lock(&rt->slab_lock);
  if (rt->fresh != rt->fresh_end) { /* somebody else was faster */
    if (slab) coir__os_release(slab, bytes);
    return true;
  }
  if (!slab) return false;
  slab->bytes = bytes;
  slab->count = (uint32_t)((bytes - sizeof *slab) / sizeof slab->fibers[0]);
  rt->fresh = slab->fibers;
  rt->fresh_end = slab->fibers + slab->count;
  slab->next = atm_load_rlx(&rt->slabs);
  /* Release: its header. Pairs with the acquire of whoever walks the slabs (inspect.c). */
  atm_store_rel(&rt->slabs, slab);
  return true;
}

static struct coir_fiber *fresh_one(struct coir_runtime *rt) {
  if (rt->fresh == rt->fresh_end && !slab_add(rt)) return NULL;
  struct coir_fiber *f = rt->fresh++;
  f->rt = rt; /* once for all its lives */
  return f;
}

/* Fills an empty magazine with fresh descriptors, so that they are taken in the order of their addresses. */
static void fill(struct coir_runtime *rt, struct coir__magazine *m) {
  coir__lock(&rt->slab_lock);
  while (m->count < COIR__MAGAZINE_MAX) {
    struct coir_fiber *f = fresh_one(rt);
    if (!f) break;
    m->fibers[m->count++] = f;
  }
  coir__unlock(&rt->slab_lock);
  for (uint64_t i = 0, n = m->count; i < n / 2; i++) {
    struct coir_fiber *f = m->fibers[i];
    m->fibers[i] = m->fibers[n - 1 - i];
    m->fibers[n - 1 - i] = f;
  }
}

/* One magazine from a list of the depot, in exchange for `other` (may be NULL), which goes to the other list. */
static struct coir__magazine *exchange(struct coir_runtime *rt, struct coir__magazine **from,
                                       struct coir__magazine **to, struct coir__magazine *other) {
  coir__lock(&rt->slab_lock);
  struct coir__magazine *m = *from;
  if (m) {
    *from = m->next;
    if (other) {
      other->next = *to;
      *to = other;
    }
  }
  coir__unlock(&rt->slab_lock);
  return m;
}

/* Makes the loaded magazine one that is not empty (or, with `wants_room`, not full). False: memory is short. */
static bool reload(struct coir_runtime *rt, struct coir__worker *w, bool wants_room) {
  struct coir__magazine *before = w->fibers_before;
  w->fibers_before = w->fibers;
  w->fibers = before;
  if (before && (wants_room ? before->count < COIR__MAGAZINE_MAX : before->count > 0)) return true;
  struct coir__magazine **full = &rt->full, **empty = &rt->empty;
  struct coir__magazine *m = wants_room ? exchange(rt, empty, full, before) : exchange(rt, full, empty, before);
  if (!m && !wants_room && before) { /* the depot has none: fill the empty one */
    fill(rt, before);
    return before->count > 0;
  }
  if (!m) {
    m = coir__alloc(rt, sizeof *m);
    if (!m) return false;
    if (!wants_room) fill(rt, m);
    else if (before) exchange(rt, &(struct coir__magazine *){m}, full, before);
  }
  w->fibers = m;
  return wants_room || m->count > 0;
}

/* For a thread without a worker: from a full magazine of the depot, or fresh. */
static struct coir_fiber *take_outside(struct coir_runtime *rt) {
  coir__lock(&rt->slab_lock);
  struct coir__magazine *m = rt->full;
  struct coir_fiber *f = m ? m->fibers[--m->count] : fresh_one(rt);
  if (m && m->count == 0) {
    rt->full = m->next;
    m->next = rt->empty;
    rt->empty = m;
  }
  coir__unlock(&rt->slab_lock);
  if (!f) return NULL;
  f->id = atm_add_rlx(&next_id, 1);
  coir__hard_check_fiber(f);
  return f;
}

struct coir_fiber *coir__fiber_take(struct coir_runtime *rt, struct coir__worker *w) {
  if (COIR_UNLIKELY(!w)) return take_outside(rt);
  if ((!w->fibers || w->fibers->count == 0) && !reload(rt, w, false)) return NULL;
  if (w->id_next == w->id_end) {
    w->id_next = atm_add_rlx(&next_id, ID_BLOCK);
    w->id_end = w->id_next + ID_BLOCK;
  }
  return coir__fiber_take_quickly(w);
}

/* A magazine of the depot with room, or NULL; slab_lock is held. */
static struct coir__magazine *with_room(struct coir_runtime *rt) {
  struct coir__magazine *m = rt->full;
  if (m && m->count < COIR__MAGAZINE_MAX) return m;
  m = rt->empty;
  if (!m) return NULL;
  rt->empty = m->next;
  m->next = rt->full;
  return rt->full = m;
}

/* For a thread without a worker. A descriptor for which no magazine can be made is lost until the runtime is
 * destroyed. */
static void give_outside(struct coir_runtime *rt, struct coir_fiber *f) {
  coir__lock(&rt->slab_lock);
  struct coir__magazine *m = with_room(rt);
  if (!m) {
    coir__unlock(&rt->slab_lock);
    struct coir__magazine *fresh = coir__alloc(rt, sizeof *fresh);
    coir__lock(&rt->slab_lock);
    if (fresh) {
      fresh->next = rt->empty;
      rt->empty = fresh;
    }
    m = with_room(rt);
  }
  if (m) m->fibers[m->count++] = f;
  coir__unlock(&rt->slab_lock);
}

void coir__fiber_give(struct coir_runtime *rt, struct coir__worker *w, struct coir_fiber *f) {
  if (w && coir__fiber_give_quickly(w, f)) return;
  if (w && reload(rt, w, true) && coir__fiber_give_quickly(w, f)) return;
  atm_store_rlx(&f->entry, NULL); /* as there */
  atomic_thread_fence(memory_order_release);
  coir__hard_poison_fiber(f);
  give_outside(rt, f);
}

static void magazines_free(struct coir_runtime *rt, struct coir__magazine *m) {
  while (m) {
    struct coir__magazine *next = m->next;
    coir__free(rt, m, sizeof *m);
    m = next;
  }
}

void coir__slabs_destroy(struct coir_runtime *rt) {
  for (int i = 0; rt->workers && i < rt->worker_count; i++) {
    struct coir__worker *w = rt->workers[i];
    if (!w) continue;
    coir__free(rt, w->fibers, sizeof *w->fibers);
    coir__free(rt, w->fibers_before, sizeof *w->fibers);
  }
  magazines_free(rt, rt->full);
  magazines_free(rt, rt->empty);
  for (struct coir__slab *next, *slab = atm_load_rlx(&rt->slabs); slab; slab = next) {
    next = slab->next;
    coir__os_release(slab, slab->bytes);
  }
  atm_store_rlx(&rt->slabs, NULL);
}
