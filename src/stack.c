/* Stacks: where they come from, where they rest, how they are guarded, and what is said when one overflows.
 *
 * Goal: a fiber that starts gets, without a system call or a locked instruction, the stack that was used last on its
 * worker; a million stacks need few mappings; what a burst has committed goes back; an overflow ends the process with
 * a sentence.
 *
 * Layout. A class is a size, 16 KiB << class. A region is one reservation of address space, cut into equal slots of
 * one class, and committed by the kernel page by page. Regions of a class double in size, from 16 slots up to 1 GiB:
 *
 *     | guard page | usable bytes ........ top | colour | guard page | usable bytes ... |
 *       slot 0       low                                  slot 1
 *
 * The records (struct coir__stack) are an array apart, so that stacks which never ran touch no page. Fibers start at
 * `top`: the high end less a colour, 0 to 15 lines, given in turn. Without it the busy ends of all stacks would fall
 * into the same few sets of the first-level cache. It is chosen anew only when a stack comes out of the depot: a
 * stack that is reused at once keeps its top, and with it the lines that are in the cache.
 *
 * Where a stack rests. In its worker's pool, last in first out, at most config.stack_cache_max. What exceeds that
 * goes, the colder half at a time (a magazine: a list by `next`), to the depot that the workers share; an empty pool
 * takes a whole magazine. So the lock of the depot is held for a few instructions, once for many stacks (Bonwick and
 * Adams, "Magazines and Vmem", 2001).
 *
 * What goes back to the system. A pool keeps what its stacks have committed. A magazine on its way to the depot is
 * looked at: one of its stacks in turn is asked (mincore) whether it was used deeper than config.stack_keep_bytes. If
 * so all of them are cut back to that line; if not nothing is done, for most fibers are shallow and a call for each
 * would cost more than the fiber. A magazine for which the depot has no room among the warm ones is discarded
 * altogether and becomes a cold one. There is room for WARM_MAX, so that bursts which return find them warm; but what
 * nobody has wanted for COOL_PERIOD, beyond a few, workers discard when they look around or are idle, a magazine at a
 * time. A worker that empties its pool for good (coir__stack_flush) cuts every stack back. Rejected: a marker word at
 * the keep line, which commits a page of every shallow stack in order to learn that it is shallow.
 *
 * Guards, in the order in which they are tried, stack by stack, when a slot is first handed out: MADV_GUARD_INSTALL,
 * which costs no mapping; mprotect, which costs two, so config.guards_max bounds it for the whole process; else only
 * the canary. Guards are never removed, and survive MADV_DONTNEED. The canary is a pattern at the low end: it commits
 * a page of each stack, and what it finds it finds late, so it is the last resort.
 *
 * Overflow reports. The handler of SIGSEGV and SIGBUS runs on an alternate stack and looks the address up among all
 * regions of the process, without a lock: their descriptions are never freed, only used again, and a sequence number
 * tells a reader that one changed under it.
 *
 * I1: a stack is in at most one of: a pool, a magazine of the depot, a fiber.
 * I2: a magazine is not empty, and has its number of stacks counted in shelf.cached, and in warm_count if it is warm.
 * I3: a stack that was ever handed out has its guard installed, or is counted as unguarded.
 * Locks: shelf.lock and regions_lock; both only around a fork, in that order. No other system call under them. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#ifdef COIR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#include <stdlib.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

#define COLOURS 16
#define REGION_BYTES_MAX ((size_t)1 << 30)
#define CANARY_WORDS 8
#define CANARY UINT64_C(0x5afe57ac4cab1e5e)
#define COOL_PERIOD COIR_MS(100)
#define COOL_NS COIR_MS(2) /* between two magazines: each takes some 0.1 ms */
#define MARGIN 256 /* bytes at the low end that a suspended fiber may not have reached */
#define ALT_STACK_BYTES ((size_t)64 << 10)

#ifdef COIR_HARD
#define REGION_SLOTS 1 /* slots of the first region of a class */
#define WARM_MIN 2 /* stacks of a class that the depot keeps warm for good, at least */
#define WARM_MAX 8 /* and for a while */
#else
#define REGION_SLOTS 16
#define WARM_MIN 128
#define WARM_MAX 8192
#endif

/* A region. (s) here: changes only while `seq` is even. */
struct coir__region {
  struct coir__region *next; /* (c) all descriptions of the process */
  _Atomic(uint32_t) seq;     /* (a) odd: describes a region */
  _Atomic(char *) base;      /* (s) of slot 0 */
  _Atomic(size_t) slot_bytes;
  _Atomic(size_t) bytes;
  _Atomic(struct coir__stack *) stacks; /* (s) a record for each slot */

  struct coir__region *older; /* (c) regions of its shelf */
  struct coir__region *open;  /* (l) of its shelf: regions with slots left */
  uint32_t count;             /* (c) slots */
  uint32_t used;              /* (l) of its shelf: slots handed out at least once, the first ones */
  _Atomic(uint32_t) protects; /* (a) guards by mprotect */
};

/* The depot of one class. */
struct shelf {
  struct coir__lock lock;
  _Atomic(uint32_t) warm_count; /* (a) stacks in warm magazines; written under the lock */
  uint32_t low;                 /* (l) the least of it since low_since: so many were not wanted */
  uint32_t surplus;             /* (l) of those, how many are to be discarded */
  int64_t low_since;            /* (l) */
  struct coir__stack *warm;     /* (l) magazines whose stacks keep what they have committed, by `chain` */
  struct coir__stack *cold;     /* (l) magazines whose stacks have nothing committed */
  struct coir__region *open;    /* (l) */
  struct coir__region *regions; /* (l) */
  uint32_t slots_next;          /* (l) size of the next region */
  _Atomic(uint64_t) cached;     /* (a) stacks in all magazines */
};

struct coir__depot {
  struct coir_runtime *rt;    /* (c) NULL: of none */
  size_t page;                /* (c) */
  size_t keep;                /* (c) config.stack_keep_bytes in whole pages */
  uint32_t guards_max;        /* (c) config.guards_max */
  uint32_t warm_min, warm_max; /* (c) of each shelf: see WARM_MIN, WARM_MAX */
  enum coir_guard guard;      /* (c) the first guard that is tried */
  _Atomic(uint32_t) sample;   /* (a) turns, for choosing the stack that is asked */
  _Atomic(uint32_t) turn;     /* (a) next colour, of stacks that no worker takes */
  _Atomic(uint64_t) carved;   /* (a) slots handed out at least once */
  _Atomic(uint64_t) unguarded; /* (a) those of them without a guard */
  _Atomic(uint64_t) reserved; /* (a) bytes */
  struct shelf shelves[COIR__STACK_CLASSES];
};

/* ---- Regions of the process ------------------------------------------------------------------------------------ */

static struct coir__region first_regions[8];
static _Atomic(struct coir__region *) regions; /* (a) prepended under regions_lock, never shortened */
static struct coir__region *regions_free;      /* (l) regions_lock: by `older` */
static uint32_t regions_first_used;            /* (l) regions_lock */
static struct coir__lock regions_lock;
static _Atomic(struct coir__depot *) lasting_depot; /* (a) the one of no runtime, once it is made */
static struct coir__depot *locked_depot;            /* (l) regions_lock: by coir__stack_fork_prepare */
static _Atomic(uint32_t) protects; /* (a) guards by mprotect in this process */

static struct coir__region *region_pop_locked(void) {
  struct coir__region *r = regions_free;
  if (r) {
    regions_free = r->older;
    return r;
  }
  if (regions_first_used == sizeof first_regions / sizeof *first_regions) return NULL;
  r = &first_regions[regions_first_used++];
  r->next = atm_load_rlx(&regions);
  /* Release: whoever finds it there sees its `next`. Pairs with the acquire in stack_at(). */
  atm_store_rel(&regions, r);
  return r;
}

/* Adds a page of descriptions. */
static bool regions_grow(void) {
  size_t bytes = coir__os_page();
  struct coir__region *more = coir__os_reserve(bytes, 0, false);
  if (!more) return false;
  coir__lock(&regions_lock);
  for (size_t i = 0; i < bytes / sizeof *more; i++) {
    more[i].older = regions_free;
    regions_free = &more[i];
    more[i].next = atm_load_rlx(&regions);
    /* Release: as in region_pop_locked(). */
    atm_store_rel(&regions, &more[i]);
  }
  coir__unlock(&regions_lock);
  return true;
}

/* Returns a description that describes nothing; NULL when memory is short. */
static struct coir__region *region_take(void) {
  for (;;) {
    coir__lock(&regions_lock);
    struct coir__region *r = region_pop_locked();
    coir__unlock(&regions_lock);
    if (r || !regions_grow()) return r;
  }
}

static void region_give(struct coir__region *r) {
  coir__lock(&regions_lock);
  r->older = regions_free;
  regions_free = r;
  coir__unlock(&regions_lock);
}

static void region_publish(struct coir__region *r, char *base, size_t slot_bytes, uint32_t count,
                           struct coir__stack *stacks) {
  r->count = count;
  r->used = 0;
  atm_store_rlx(&r->protects, 0);
  /* Release: who sees one of these sees that the number was even before. Pairs with the acquires in stack_at(). */
  atm_store_rel(&r->base, base);
  atm_store_rel(&r->slot_bytes, slot_bytes);
  atm_store_rel(&r->bytes, slot_bytes * count);
  atm_store_rel(&r->stacks, stacks);
  /* Release: who sees the odd number sees the fields. Pairs with the acquire in stack_at(). */
  atm_store_rel(&r->seq, atm_load_rlx(&r->seq) + 1);
}

/* Relaxed: the releases of the next region_publish() keep the even number ahead of new fields. */
static void region_retire(struct coir__region *r) { atm_store_rlx(&r->seq, atm_load_rlx(&r->seq) + 1); }

/* Returns the stack in whose guard page `address` lies, or NULL. Any thread, in signal handlers too. */
static struct coir__stack *stack_at(uintptr_t address) {
  size_t page = coir__os_page();
  /* Acquire: pairs with the release in region_pop_locked() and regions_grow(). */
  for (struct coir__region *r = atm_load_acq(&regions); r; r = r->next) {
    /* Acquire: the fields are no older than the number. Pairs with the release in region_publish(). */
    uint32_t seq = atm_load_acq(&r->seq);
    if (!(seq & 1)) continue;
    /* Acquire: if a field is newer than the number, the second look at the number shows it. Pairs with the releases in
     * region_publish(). */
    uintptr_t base = (uintptr_t)atm_load_acq(&r->base);
    size_t slot_bytes = atm_load_acq(&r->slot_bytes), bytes = atm_load_acq(&r->bytes);
    struct coir__stack *stacks = atm_load_acq(&r->stacks);
    if (atm_load_rlx(&r->seq) != seq || address - base >= bytes) continue;
    return (address - base) % slot_bytes < page ? &stacks[(address - base) / slot_bytes] : NULL;
  }
  return NULL;
}

/* ---- Regions of a depot ---------------------------------------------------------------------------------------- */

int coir__stack_class(size_t bytes) {
  if (bytes < COIR__STACK_MIN || bytes > COIR__STACK_MAX) return -EINVAL;
  int size_class = 0;
  while (COIR__STACK_MIN << size_class < bytes) size_class++;
  return size_class;
}

/* Whole pages, also where a page is larger than the smallest class. */
size_t coir__stack_class_bytes(int size_class) {
  size_t page = coir__os_page();
  return ((COIR__STACK_MIN << size_class) + page - 1) & ~(page - 1);
}

/* Reserves a region of up to `count` slots and describes it. NULL when memory is short. */
static struct coir__region *region_create(struct coir__depot *d, int size_class, uint32_t count) {
  size_t slot_bytes = coir__stack_class_bytes(size_class) + d->page;
  struct coir__region *r = region_take();
  if (!r) return NULL;
  char *base = coir__os_reserve(slot_bytes * count, 0, false);
  /* A process with a limit of address space may still have room for fewer. */
  while (!base && count > 1) {
    count /= 2;
    base = coir__os_reserve(slot_bytes * count, 0, false);
  }
  struct coir__stack *stacks = base ? coir__alloc(d->rt, count * sizeof *stacks) : NULL;
  if (!stacks) {
    if (base) coir__os_release(base, slot_bytes * count);
    region_give(r);
    return NULL;
  }
  atm_add_rlx(&d->reserved, slot_bytes * count);
  region_publish(r, base, slot_bytes, count, stacks);
  return r;
}

static void region_destroy(struct coir__depot *d, struct coir__region *r) {
  struct coir__stack *stacks = atm_load_rlx(&r->stacks);
  char *base = atm_load_rlx(&r->base);
  size_t bytes = atm_load_rlx(&r->bytes);
  region_retire(r);
#ifdef VALGRIND_STACK_DEREGISTER
  for (uint32_t i = 0; i < r->used; i++) VALGRIND_STACK_DEREGISTER(stacks[i].valgrind_id);
#endif
#ifdef COIR_ASAN
  /* The addresses may be used by others next. */
  ASAN_UNPOISON_MEMORY_REGION(base, bytes);
#endif
  coir__os_release(base, bytes);
  coir__free(d->rt, stacks, r->count * sizeof *stacks);
  /* Relaxed: a count; nothing is read by it. */
  atm_add_rlx(&protects, 0u - atm_load_rlx(&r->protects));
  region_give(r);
}

/* Takes a slot that was never used. NULL: no region has one. */
static struct coir__stack *slot_take(struct shelf *shelf) {
  struct coir__stack *s = NULL;
  coir__lock(&shelf->lock);
  struct coir__region *r = shelf->open;
  if (r) {
    s = &atm_load_rlx(&r->stacks)[r->used];
    s->region = r;
    if (++r->used == r->count) shelf->open = r->open;
  }
  coir__unlock(&shelf->lock);
  return s;
}

/* Adds a region. Several workers may come here at once; then each adds one, and all are used. */
static bool shelf_grow(struct coir__depot *d, int size_class) {
  struct shelf *shelf = &d->shelves[size_class];
  size_t most = REGION_BYTES_MAX / (coir__stack_class_bytes(size_class) + d->page);
  coir__lock(&shelf->lock);
  uint32_t count = shelf->slots_next;
  coir__unlock(&shelf->lock);
  if (count > most) count = most ? (uint32_t)most : 1;
  struct coir__region *r = region_create(d, size_class, count);
  if (!r) return false;
  coir__lock(&shelf->lock);
  r->older = shelf->regions;
  shelf->regions = r;
  r->open = shelf->open;
  shelf->open = r;
  if (count == shelf->slots_next) shelf->slots_next = count * 2;
  coir__unlock(&shelf->lock);
  return true;
}

/* Returns whether this process may have one more guard by mprotect, and counts it. */
static bool protects_take(const struct coir__depot *d) {
  /* Relaxed: a count; nothing is read by it. */
  if (atm_add_rlx(&protects, 1) < d->guards_max) return true;
  atm_add_rlx(&protects, -1u);
  return false;
}

/* Makes `page` inaccessible by the first means that works. Returns whether one did. */
static bool guard_install(struct coir__depot *d, struct coir__region *r, char *page) {
  if (d->guard == COIR_GUARD_MADVISE && coir__os_guard_install(page) == 0) return true;
  if (d->guard == COIR_GUARD_CANARY || !protects_take(d)) return false;
  if (coir__os_guard_protect(page) == 0) {
    atm_add_rlx(&r->protects, 1);
    return true;
  }
  atm_add_rlx(&protects, -1u);
  return false;
}

static void canary_put(struct coir__stack *s) {
  uint64_t *word = (uint64_t *)s->low;
  for (int i = 0; i < CANARY_WORDS; i++) word[i] = CANARY ^ (uintptr_t)&word[i];
}

static bool canary_is_whole(const struct coir__stack *s) {
  const uint64_t *word = (const uint64_t *)s->low;
  uint64_t broken = 0;
  for (int i = 0; i < CANARY_WORDS; i++) broken |= word[i] ^ CANARY ^ (uintptr_t)&word[i];
  return !broken;
}

static void colour(uint32_t turn, struct coir__stack *s) {
  s->top = s->low + s->bytes - turn % COLOURS * COIR__LINE;
}

/* A stack that was never used. NULL when memory is short. */
static struct coir__stack *stack_carve(struct coir__depot *d, int size_class, uint32_t turn) {
  struct coir__stack *s;
  while (!(s = slot_take(&d->shelves[size_class]))) {
    if (!shelf_grow(d, size_class)) return NULL;
  }
  struct coir__region *r = s->region;
  char *slot = atm_load_rlx(&r->base) + (size_t)(s - atm_load_rlx(&r->stacks)) * atm_load_rlx(&r->slot_bytes);
  s->low = slot + d->page;
  s->bytes = atm_load_rlx(&r->slot_bytes) - d->page;
  s->size_class = (uint8_t)size_class;
  s->is_guarded = guard_install(d, r, slot);
  if (!s->is_guarded) {
    canary_put(s);
    atm_add_rlx(&d->unguarded, 1);
  }
#ifdef VALGRIND_STACK_REGISTER
  s->valgrind_id = VALGRIND_STACK_REGISTER(s->low, s->low + s->bytes);
#endif
  colour(turn, s);
  atm_add_rlx(&d->carved, 1);
  return s;
}

/* ---- Magazines ------------------------------------------------------------------------------------------------- */

/* Gives back what lies deeper than the keep line. */
static void stack_trim(const struct coir__depot *d, struct coir__stack *s) {
  if (s->is_used && s->bytes > d->keep) coir__os_discard(s->low, s->bytes - d->keep);
  s->is_used = 0;
}

/* Has it been used deeper than the keep line? Looks at one page only: use grows downwards, page by page. */
static bool stack_is_deep(const struct coir__depot *d, const struct coir__stack *s) {
  unsigned char resident = 0;
  if (s->bytes <= d->keep) return false;
  return mincore(s->low + s->bytes - d->keep - d->page, d->page, &resident) == 0 && (resident & 1);
}

static void magazine_trim(const struct coir__depot *d, struct coir__stack *magazine) {
  for (struct coir__stack *s = magazine; s; s = s->next) stack_trim(d, s);
}

/* Trims a magazine if one of its stacks, each in turn, turns out to be deep. */
static void magazine_sample(struct coir__depot *d, struct coir__stack *magazine, uint32_t count) {
  uint32_t turn = atm_add_rlx(&d->sample, 1) % count;
  struct coir__stack *s = magazine;
  while (turn--) s = s->next;
  if (s->is_used && stack_is_deep(d, s)) magazine_trim(d, magazine);
}

/* Discards a magazine of `count` stacks, and puts it among the cold ones. */
static void shelf_give_cold(struct shelf *shelf, struct coir__stack *magazine, uint32_t count) {
  for (struct coir__stack *s = magazine; s; s = s->next) {
    coir__os_discard(s->low, s->bytes);
    s->is_used = 0;
  }
  coir__lock(&shelf->lock);
  magazine->chain = shelf->cold;
  shelf->cold = magazine;
  atm_bump(&shelf->cached, count);
  coir__unlock(&shelf->lock);
}

/* Puts a magazine of `count` stacks into the depot. */
static void depot_give(struct coir__depot *d, int size_class, struct coir__stack *magazine, uint32_t count) {
  struct shelf *shelf = &d->shelves[size_class];
  coir__lock(&shelf->lock);
  bool is_warm = atm_load_rlx(&shelf->warm_count) + count <= d->warm_max;
  if (is_warm) {
    atm_bump(&shelf->warm_count, count);
    magazine->chain = shelf->warm;
    shelf->warm = magazine;
    atm_bump(&shelf->cached, count);
  }
  coir__unlock(&shelf->lock);
  if (!is_warm) shelf_give_cold(shelf, magazine, count);
}

/* How many have not been wanted for a while, beyond those that stay: asked once in COOL_PERIOD. The lock is held. */
static uint32_t shelf_surplus(const struct coir__depot *d, struct shelf *shelf, int64_t now) {
  if (now - shelf->low_since >= COOL_PERIOD) {
    shelf->surplus = shelf->low > d->warm_min ? shelf->low - d->warm_min : 0;
    shelf->low = atm_load_rlx(&shelf->warm_count);
    shelf->low_since = now;
  }
  return shelf->surplus;
}

/* Discards a magazine of what is too much. False: nothing is. */
static bool shelf_cool(const struct coir__depot *d, struct shelf *shelf, int64_t now) {
  uint32_t count = 0;
  coir__lock(&shelf->lock);
  struct coir__stack *magazine = shelf_surplus(d, shelf, now) ? shelf->warm : NULL;
  if (magazine) shelf->warm = magazine->chain;
  else shelf->surplus = 0;
  for (struct coir__stack *s = magazine; s; s = s->next) count++;
  shelf->surplus -= count < shelf->surplus ? count : shelf->surplus;
  shelf->low -= count < shelf->low ? count : shelf->low;
  atm_bump(&shelf->warm_count, -count);
  atm_bump(&shelf->cached, -(uint64_t)count);
  coir__unlock(&shelf->lock);
  if (magazine) shelf_give_cold(shelf, magazine, count);
  return magazine != NULL;
}

bool coir__stack_cool(struct coir_runtime *rt, int64_t now) {
  struct coir__depot *d = rt->depot;
  int64_t at = atm_load_rlx(&rt->cool_at);
  if (now < at || !atm_cas_ar(&rt->cool_at, &at, now + COOL_NS)) return false;
  for (int i = 0; i < COIR__STACK_CLASSES; i++)
    if (atm_load_rlx(&d->shelves[i].warm_count) > d->warm_min && shelf_cool(d, &d->shelves[i], now)) return true;
  return false;
}

bool coir__stack_has_surplus(const struct coir_runtime *rt) {
  for (int i = 0; i < COIR__STACK_CLASSES; i++)
    if (atm_load_rlx(&rt->depot->shelves[i].warm_count) > rt->depot->warm_min) return true;
  return false;
}

/* A magazine of the depot, warm if there is one; or NULL. */
static struct coir__stack *shelf_pop(struct shelf *shelf, bool *is_warm) {
  coir__lock(&shelf->lock);
  *is_warm = shelf->warm != NULL;
  struct coir__stack **list = *is_warm ? &shelf->warm : &shelf->cold, *magazine = *list;
  if (magazine) *list = magazine->chain;
  coir__unlock(&shelf->lock);
  return magazine;
}

/* Its `count` stacks are no longer the depot's. */
static void shelf_count_out(struct shelf *shelf, bool is_warm, uint32_t count) {
  coir__lock(&shelf->lock);
  if (is_warm) atm_bump(&shelf->warm_count, -count);
  uint32_t warm = atm_load_rlx(&shelf->warm_count);
  if (warm < shelf->low) shelf->low = warm;
  atm_bump(&shelf->cached, -(uint64_t)count);
  coir__unlock(&shelf->lock);
}

/* Fills an empty pool from the depot. Returns whether there was anything. */
static bool depot_take(struct coir__worker *w, int size_class) {
  struct shelf *shelf = &w->rt->depot->shelves[size_class];
  struct coir__stack_pool *pool = &w->stacks[size_class];
  bool is_warm;
  struct coir__stack *magazine = shelf_pop(shelf, &is_warm);
  if (!magazine) return false;
  uint32_t count = 0;
  for (struct coir__stack *s = magazine; s; s = s->next, count++) {
    colour(w->colour++, s);
    if (!s->is_guarded) canary_put(s); /* trimming has wiped it */
  }
  shelf_count_out(shelf, is_warm, count);
  pool->hot = magazine;
  atm_store_rlx(&pool->count, count);
  return true;
}

void coir__stack_forgive(struct coir__stack *s) {
  for (struct coir__debt *debt; (debt = s->owes) != NULL;) {
    s->owes = debt->outer;
    debt->forgive(debt);
  }
}

void coir__stack_forget(struct coir__stack *s) {
#ifdef COIR_ASAN
  /* Who was on it ended without unwinding: the red zones of its last frames are still poisoned. */
  ASAN_UNPOISON_MEMORY_REGION(s->low, s->bytes);
#endif
  coir__hard_poison_stack(s);
  s->fiber = NULL;
}

/* Without a worker a magazine is one stack. */
struct coir__stack *coir__stack_take_from(struct coir__depot *d, int size_class) {
  struct shelf *shelf = &d->shelves[size_class];
  bool is_warm;
  struct coir__stack *s = shelf_pop(shelf, &is_warm);
  if (s) {
    shelf_count_out(shelf, is_warm, 1);
    if (!s->is_guarded) canary_put(s); /* trimming has wiped it */
  } else {
    s = stack_carve(d, size_class, atm_add_rlx(&d->turn, 1)); /* relaxed: any turn will do */
  }
  if (!s) return NULL;
  coir__hard_check_stack(s);
  s->is_used = 1;
  return s;
}

void coir__stack_give_to(struct coir__depot *d, struct coir__stack *s) {
  coir__stack_forget(s);
  s->next = NULL;
  magazine_sample(d, s, 1);
  depot_give(d, s->size_class, s, 1);
}

struct coir__stack *coir__stack_take(struct coir__worker *w, int size_class) {
  struct coir__stack_pool *pool = &w->stacks[size_class];
  if (COIR_UNLIKELY(!pool->hot) && !depot_take(w, size_class)) {
    struct coir__stack *fresh = stack_carve(w->rt->depot, size_class, w->colour++);
    if (fresh) fresh->is_used = 1;
    return fresh;
  }
  struct coir__stack *s = pool->hot;
  pool->hot = s->next;
  atm_bump(&pool->count, -1u);
  coir__hard_check_stack(s);
  s->is_used = 1;
  return s;
}

/* Moves the colder half of a pool that is too full to the depot. */
static void pool_spill(struct coir__worker *w, struct coir__stack_pool *pool, int size_class) {
  uint32_t count = atm_load_rlx(&pool->count), kept = (count + 1) / 2;
  struct coir__stack *last = pool->hot;
  for (uint32_t i = 1; i < kept; i++) last = last->next;
  struct coir__stack *magazine = last->next;
  last->next = NULL;
  atm_store_rlx(&pool->count, kept);
  magazine_sample(w->rt->depot, magazine, count - kept);
  depot_give(w->rt->depot, size_class, magazine, count - kept);
}

void coir__stack_give(struct coir__worker *w, struct coir__stack *s) {
  struct coir__stack_pool *pool = &w->stacks[s->size_class];
  coir__stack_forget(s);
  s->next = pool->hot;
  pool->hot = s;
  atm_bump(&pool->count, 1);
  if (COIR_UNLIKELY(atm_load_rlx(&pool->count) > (uint32_t)w->rt->config.stack_cache_max)) {
    pool_spill(w, pool, s->size_class);
  }
}

void coir__stack_flush(struct coir__worker *w) {
  for (int i = 0; i < COIR__STACK_CLASSES; i++) {
    struct coir__stack_pool *pool = &w->stacks[i];
    struct coir__stack *magazine = pool->hot;
    uint32_t count = atm_load_rlx(&pool->count);
    pool->hot = NULL;
    atm_store_rlx(&pool->count, 0);
    if (!magazine) continue;
    magazine_trim(w->rt->depot, magazine);
    depot_give(w->rt->depot, i, magazine, count);
  }
}

/* ---- The depot ------------------------------------------------------------------------------------------------- */

/* The first guard that works here, from the one that is asked for downwards. */
static enum coir_guard guard_probe(enum coir_guard asked) {
  if (asked == COIR_GUARD_MPROTECT || asked == COIR_GUARD_CANARY) return asked;
  size_t page = coir__os_page();
  char *memory = coir__os_reserve(page, 0, false);
  if (!memory) return COIR_GUARD_MPROTECT;
  bool works = coir__os_guard_install(memory) == 0;
  coir__os_release(memory, page);
  return works ? COIR_GUARD_MADVISE : COIR_GUARD_MPROTECT;
}

#ifdef COIR_ASAN
/* LeakSanitizer knows the stacks of threads. What those who wait when the program ends have on theirs is no leak. */
static void stacks_show(void) {
  /* Acquire: as in stack_at(). */
  for (struct coir__region *r = atm_load_acq(&regions); r; r = r->next) {
    if (!(atm_load_acq(&r->seq) & 1)) continue;
    struct coir__stack *stacks = atm_load_acq(&r->stacks);
    for (uint32_t i = 0; i < r->used; i++)
      if (stacks[i].fiber) __lsan_register_root_region(stacks[i].low, stacks[i].bytes);
  }
}

/* At the first depot, so it is run before LeakSanitizer looks, which asked to be run before anybody. */
static void stacks_show_at_exit(void) {
  static _Atomic(uint32_t) is_asked; /* (a) */
  if (!atm_xchg_sc(&is_asked, 1)) atexit(stacks_show);
}
#endif

struct coir__depot *coir__depot_make(struct coir_runtime *rt, const struct coir_config *config, uint64_t workers) {
  struct coir__depot *d = coir__alloc(rt, sizeof *d);
  if (!d) return NULL;
#ifdef COIR_ASAN
  stacks_show_at_exit();
#endif
  d->rt = rt;
  d->page = coir__os_page();
  d->keep = (config->stack_keep_bytes + d->page - 1) & ~(d->page - 1);
  d->guards_max = (uint32_t)config->guards_max;
  d->guard = guard_probe(config->guard);
  uint64_t warm_min = 2 * (uint64_t)config->stack_cache_max * workers;
  d->warm_min = warm_min < WARM_MIN ? WARM_MIN : warm_min > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)warm_min;
  d->warm_max = rt && d->warm_min < WARM_MAX ? WARM_MAX : d->warm_min; /* without a runtime nobody cools it */
  for (int i = 0; i < COIR__STACK_CLASSES; i++) d->shelves[i].slots_next = REGION_SLOTS;
  if (!rt) atm_store_rel(&lasting_depot, d); /* all of it; pairs with the acquire in coir__stack_fork_prepare */
  return d;
}

/* What outlives runtimes must be whole in the child, and nobody in it: locks that nobody else takes two of. */
void coir__stack_fork_prepare(void) {
  struct coir__depot *d = atm_load_acq(&lasting_depot);
  for (int i = 0; d && i < COIR__STACK_CLASSES; i++) coir__lock(&d->shelves[i].lock);
  coir__lock(&regions_lock);
  locked_depot = d;
}

void coir__stack_fork_done(void) {
  struct coir__depot *d = locked_depot;
  coir__unlock(&regions_lock);
  for (int i = 0; d && i < COIR__STACK_CLASSES; i++) coir__unlock(&d->shelves[i].lock);
}

int coir__depot_create(struct coir_runtime *rt) {
  rt->depot = coir__depot_make(rt, &rt->config, rt->worker_count > 0 ? (uint64_t)rt->worker_count : 1);
  return rt->depot ? 0 : -ENOMEM;
}

void coir__depot_destroy(struct coir_runtime *rt) {
  struct coir__depot *d = rt->depot;
  if (!d) return;
  for (int i = 0; i < COIR__STACK_CLASSES; i++) {
    for (struct coir__region *r = d->shelves[i].regions, *older; r; r = older) {
      older = r->older;
      region_destroy(d, r);
    }
  }
  rt->depot = NULL;
  coir__free(rt, d, sizeof *d);
}

enum coir_guard coir__stack_guard(const struct coir_runtime *rt) { return rt->depot->guard; }

void coir__stack_stats(struct coir_runtime *rt, struct coir_stats *out) {
  struct coir__depot *d = rt->depot;
  uint64_t cached = 0;
  /* Relaxed: each number is right by itself; together they may be of slightly different times. */
  for (int i = 0; i < COIR__STACK_CLASSES; i++) {
    cached += atm_load_rlx(&d->shelves[i].cached);
    for (int k = 0; rt->workers && k < rt->worker_count; k++) {
      if (rt->workers[k]) cached += atm_load_rlx(&rt->workers[k]->stacks[i].count);
    }
  }
  uint64_t carved = atm_load_rlx(&d->carved);
  out->guard = d->guard;
  out->stacks_cached = cached;
  out->stacks_live = carved > cached ? carved - cached : 0;
  out->stack_bytes_reserved = atm_load_rlx(&d->reserved);
  out->stacks_unguarded = atm_load_rlx(&d->unguarded);
}

size_t coir__stack_used(const struct coir__stack *s, const void *sp) {
  uintptr_t at = (uintptr_t)sp;
  return at >= (uintptr_t)s->low && at < (uintptr_t)s->top ? (uintptr_t)s->top - at : 0;
}

static void __attribute__((noinline, noreturn, cold)) overflowed(const struct coir__stack *s) {
  const struct coir_fiber *f = s->fiber;
  if (!f) coir__fatal("stack overflow (stack %zu bytes): give it a larger stack_bytes", s->bytes);
  coir__fatal("stack overflow in fiber %llu \"%s\" (entry %p, stack %zu bytes): give it a larger stack_bytes",
              (unsigned long long)f->id, coir__name_of(f), (void *)(uintptr_t)f->entry, s->bytes);
}

void coir__stack_check(const struct coir__stack *s, const void *sp) {
  /* At most one stack's size below: farther away it is another stack, which the program brought. */
  if (COIR_UNLIKELY((uintptr_t)s->low + MARGIN - 1 - (uintptr_t)sp < s->bytes)) overflowed(s);
  if (COIR_UNLIKELY(!s->is_guarded) && !canary_is_whole(s)) overflowed(s);
}

/* ---- Overflow reports ------------------------------------------------------------------------------------------ */

static const int fault_signals[] = {SIGSEGV, SIGBUS};
static struct sigaction fault_previous[2]; /* (c) set once, before the handler can run */
static pthread_once_t fault_once = PTHREAD_ONCE_INIT;

/* Text that grows by functions which are safe in signal handlers. */
struct text {
  char bytes[256];
  size_t used;
};

static void put(struct text *t, const char *string, size_t max) {
  for (size_t i = 0; i < max && string[i] && t->used < sizeof t->bytes; i++) t->bytes[t->used++] = string[i];
}

static void put_number(struct text *t, uint64_t number, unsigned base) {
  char digits[20];
  size_t n = sizeof digits;
  do digits[--n] = "0123456789abcdef"[number % base];
  while ((number /= base) != 0);
  put(t, digits + n, sizeof digits - n);
}

static void overflow_report(const struct coir__stack *s, const struct coir_fiber *f) {
  struct text t = {.used = 0};
  put(&t, "coir: stack overflow in fiber ", SIZE_MAX);
  put_number(&t, f->id, 10);
  put(&t, " \"", SIZE_MAX);
  put(&t, coir__name_of(f), sizeof f->name);
  put(&t, "\" (entry 0x", SIZE_MAX);
  put_number(&t, (uintptr_t)f->entry, 16);
  put(&t, ", stack ", SIZE_MAX);
  put_number(&t, s->bytes, 10);
  put(&t, " bytes): give it a larger stack_bytes\n", SIZE_MAX);
  coir__os_complain(t.bytes, t.used);
}

/* Lets the signal do what it does by default, when the handler has returned. A fault repeats by itself; a signal that
 * somebody sent has to be sent again. */
static void fault_default(int signal, const siginfo_t *info) {
  struct sigaction action = {.sa_handler = SIG_DFL};
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, NULL);
  if (info->si_code <= 0) raise(signal);
}

/* As the kernel calls one that has asked for that. The mask is as before when our handler has returned. */
static void fault_prepare(int signal, int flags) {
  struct sigaction action = {.sa_handler = SIG_DFL};
  sigset_t set;
  sigemptyset(&action.sa_mask);
  sigemptyset(&set);
  sigaddset(&set, signal);
  if (flags & SA_RESETHAND) sigaction(signal, &action, NULL);
  if (flags & SA_NODEFER) pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void fault_handler(int signal, siginfo_t *info, void *context) {
  struct coir__stack *s = info->si_code > 0 ? stack_at((uintptr_t)info->si_addr) : NULL;
  struct coir__thread *t = coir__thread_peek();
  struct coir__worker *w = t ? atm_load_rlx(&t->worker) : NULL; /* once: it may be taken away at any moment */
  struct coir_fiber *running = w ? w->current : t ? t->away : NULL;
  /* A stray pointer may hit the guard of a stack that others run on. That is no overflow. */
  if (s && s->is_guarded && s->fiber && (!running || s->fiber == running)) {
    overflow_report(s, s->fiber);
    fault_default(signal, info);
    return;
  }
  const struct sigaction *previous = &fault_previous[signal == fault_signals[1]];
  bool is_function = (previous->sa_flags & SA_SIGINFO) ||
                     (previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN);
  if (is_function) fault_prepare(signal, previous->sa_flags);
  if (previous->sa_flags & SA_SIGINFO) previous->sa_sigaction(signal, info, context);
  else if (is_function) previous->sa_handler(signal);
  /* The kernel lets nobody ignore a fault; what was only sent can be ignored. */
  else if (previous->sa_handler == SIG_DFL || info->si_code > 0) fault_default(signal, info);
}

static void fault_install(void) {
  for (int i = 0; i < 2; i++) {
    sigaction(fault_signals[i], NULL, &fault_previous[i]);
    struct sigaction action = {.sa_sigaction = fault_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    action.sa_flags |= fault_previous[i].sa_flags & SA_RESTART;
    action.sa_mask = fault_previous[i].sa_mask;
    sigaction(fault_signals[i], &action, NULL);
  }
}

/* Room for the registers that the kernel saves, which wide vectors make large, and for handlers that ours hands on
 * to. */
static size_t alt_stack_bytes(void) {
  size_t page = coir__os_page(), bytes = ALT_STACK_BYTES;
#ifdef _SC_MINSIGSTKSZ
  long frame = sysconf(_SC_MINSIGSTKSZ);
  if (frame > 0) bytes += (size_t)frame;
#endif
  return (bytes + page - 1) & ~(page - 1);
}

void *coir__alt_stack_make(void) { return coir__os_reserve(alt_stack_bytes(), 0, false); }

void coir__alt_stack_free(void *memory) {
  if (memory) coir__os_release(memory, alt_stack_bytes());
}

void coir__overflow_arm_thread(struct coir__thread *t, void *memory) {
  pthread_once(&fault_once, fault_install);
  stack_t current, alt = {.ss_sp = memory, .ss_size = alt_stack_bytes()};
  /* A program, or a sanitizer, that has set one up goes on with it. */
  bool has_one = t->alt_stack || (sigaltstack(NULL, &current) == 0 && !(current.ss_flags & SS_DISABLE));
  if (!has_one && sigaltstack(&alt, NULL) == 0) t->alt_stack = memory;
  else coir__alt_stack_free(memory);
}

void coir__overflow_disarm_thread(struct coir__thread *t) {
  stack_t current;
  if (!t->alt_stack) return;
  /* Only ours is taken down: the program may have set another one meanwhile. */
  if (sigaltstack(NULL, &current) == 0 && current.ss_sp == t->alt_stack) {
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
  }
  coir__alt_stack_free(t->alt_stack);
  t->alt_stack = NULL;
}
