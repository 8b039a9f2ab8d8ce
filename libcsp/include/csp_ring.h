/* csp_ring.h: channels of any type in a ring of fixed size, for one or many producers and consumers.
 *
 *     csp_chan_declare(sm, struct job, jobs);          // one producer, many consumers; in a header, or a source
 *     csp_chan_define(sm, struct job, jobs);           // in one source
 *
 *     csp_chan_t(jobs) *c = csp_chan_new(jobs)(6);     // room for 2^6 jobs
 *     csp_chan_push(c, job);                           // by the producer
 *     csp_chan_pop(c, &job);                           // by a consumer
 *     csp_chan_destroy(c);
 *
 * They are for much traffic between few: an item costs a few nanoseconds, and a compare-and-swap more on each side that
 * is shared, which a batch pays once; no call takes a lock or parks anybody. Who waits tries again and again, and gives
 * way in between (csp_sched_yield): it keeps its worker busy. Where waits are long, a select or a close is needed, or
 * single items go between goroutines of one worker over shared sides, the channels of chan.h are better.
 *
 * Guarantee. Goroutines and plain threads may make all calls; at most one of them at a time on a side that is single.
 * The calls that succeed are linearisable: each takes effect at one moment between its begin and its end, and items
 * leave in the order in which they came; so those of one producer arrive in its order, and those of one call of _pushm
 * side by side. What a producer wrote before it pushed is visible to whoever pops the item. A try that fails says less:
 * that there was no room, or no item, which it could have had without waiting for a call that is under way on another
 * thread. Such a call has reserved cells and not yet finished with them. Should its thread be stopped just there,
 * nothing behind these cells can be taken, and the others fail, or wait, until it goes on: this is not lock-free. A
 * goroutine does not give way there, so only the operating system can stop it, and only for a while.
 *
 * How. The ring is that of D. Vyukov's bounded queue for many producers and consumers (1024cores.net, 2010), with the
 * items beside a state in cells, extended to several cells at once. Indices only grow, and wrap at 2^64; index i is
 * that of cell i modulo the capacity, whose state is
 *
 *     2 i                 free, for the item with the index i
 *     2 i + 1             holds that item
 *     2 (i + capacity)    it has been taken: free for the next one
 *
 * Who pushes n items looks whether the cells tail, ..., tail + n - 1 are free, moves tail by n, which reserves them,
 * and stores into each the item and then the state. Popping is the same at the head. Where a side is shared tail or
 * head is moved by a compare-and-swap, whose success says that what was seen of the cells still holds: they could only
 * have been taken by moving it. A single side just stores. States come back after 2^63 items only, so nobody takes an
 * old one for a new one. The state is twice the index so that with a capacity of one "holds item i" and "free for item
 * i + 1" differ; in Vyukov's queue, where it is i and i + 1, they are the same.
 *
 * Rejected. A ring with head and tail alone (L. Lamport, 1983; in batches: DPDK's rte_ring): with several producers
 * each has to wait until those before it have finished, in what is called a try. A linked queue (Michael and Scott,
 * 1996): allocates, and must know when to free. Segments by fetch-and-add (LCRQ, Morrison and Afek, 2013; SCQ,
 * Nikolaev, 2019): scale to more cores, but have neither all-or-nothing pushes nor items of any size in the cells.
 * Pointers to functions in each channel, which is how the calls could find out its type: an indirect call costs as much
 * as the rest. */
#ifndef CSP_RING_H
#define CSP_RING_H

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#ifdef __cplusplus
#include <type_traits>
#endif

#include "csp_api.h"
#include "csp_sched.h"

/* ---- Types ------------------------------------------------------------------------------------------------------- */

/* csp_chan_declare(K, T, I): declares the channels named I, of items of the type T. Declared once in a source file, be
 * it by a header; at file scope (in C++: outside namespaces).
 *
 * K is one of     producers   consumers
 *           ss    one         one
 *           sm    one         many
 *           ms    many        one
 *           mm    many        many
 *
 * T is any type that can be assigned, in C++ one that is trivially copyable; `T name` must declare one (so a pointer to
 * a function needs a typedef). I is an identifier. C and C++ sources may share channels.
 *
 *     csp_chan_declare(mm, double, samples);
 */
#define csp_chan_declare(K, T, I)                                                                               \
  struct csp_ring_cell_of_##I {                                                                                 \
    uint64_t state;                                                                                             \
    T item;                                                                                                     \
  };                                                                                                            \
  union csp_ring_of_##I {                                                                                       \
    struct csp_ring ring; /* all that there is. The others are for sizeof, by which the calls know the type: */ \
    T *item;                                                                                                    \
    struct csp_ring_cell_of_##I *cell;                                                                          \
    char (*kind)[csp_ring_kind_##K];                                                                            \
    char (*at)[__alignof__(T) > sizeof(uint64_t) ? __alignof__(T) : sizeof(uint64_t)];                          \
  };                                                                                                            \
  CSP_RING_CHECK_TYPE(T)                                                                                        \
  CSP_RING_EXTERN union csp_ring_of_##I *csp_ring_new_of_##I(size_t exp);                                       \
  __extension__ /* so that a semicolon may follow, and need not */

/* csp_chan_define(K, T, I): defines what the declaration promised. It stands behind it, in one source file.
 *
 *     csp_chan_define(mm, double, samples);
 */
#define csp_chan_define(K, T, I)                                                                          \
  union csp_ring_of_##I *csp_ring_new_of_##I(size_t exp) {                                                \
    size_t align = __alignof__(struct csp_ring_cell_of_##I), bytes = sizeof(struct csp_ring_cell_of_##I); \
    return (union csp_ring_of_##I *)csp_ring_new(exp, bytes, align);                                      \
  }                                                                                                       \
  __extension__

/* csp_chan_t(I): the type of the channels named I. They are used through pointers.
 *
 *     static csp_chan_t(samples) *incoming;
 */
#define csp_chan_t(I) union csp_ring_of_##I

/* csp_chan_new(I)(exp): makes a channel with room for 2^exp items. The caller frees it by csp_chan_destroy. NULL with
 * errno ENOMEM: memory is short, or `exp` (a size_t) too large.
 *
 *     incoming = csp_chan_new(samples)(10);
 */
#define csp_chan_new(I) csp_ring_new_of_##I

/* csp_chan_destroy(c): frees a channel, which nobody may use any more, and the items that are left in it. NULL does
 * nothing.
 *
 *     csp_chan_destroy(incoming);
 */
#define csp_chan_destroy(c) csp_ring_free(0 ? (void *)&(c)->ring : (void *)(c))

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

/* For all of them: `c` is a pointer to a channel of any name, evaluated once. Items are copied. `items` points to the
 * first of `n`. */

/* bool csp_chan_try_push(c, item): pushes one item, which may be any expression that a T can be initialised with.
 * False: the channel is full.
 *
 *     if (!csp_chan_try_push(incoming, 0.5)) dropped++;
 */
#define csp_chan_try_push(c, ...) csp_ring_try_push(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEM(c, __VA_ARGS__), 1)

/* void csp_chan_push(c, item): pushes one item, and waits while the channel is full.
 *
 *     csp_chan_push(jobs, (struct job){.id = 1, .text = "one"});
 */
#define csp_chan_push(c, ...) csp_ring_push(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEM(c, __VA_ARGS__), 1)

/* bool csp_chan_try_pop(c, &item): pops the oldest item. False: the channel is empty; `item` stays as it is.
 *
 *     while (csp_chan_try_pop(incoming, &sample)) sum += sample;
 */
#define csp_chan_try_pop(c, item) (csp_ring_try_pop(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEMS(c, item), 1) != 0)

/* void csp_chan_pop(c, &item): pops the oldest item, and waits while the channel is empty.
 *
 *     csp_chan_pop(incoming, &sample);
 */
#define csp_chan_pop(c, item) csp_ring_pop(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEMS(c, item), 1)

/* bool csp_chan_try_pushm(c, items, n): pushes `n` items, with none of others in between; or none of them: false, there
 * is no room for all, which for `n` above the capacity there never is.
 *
 *     double pair[2] = {x, y};
 *     if (!csp_chan_try_pushm(incoming, pair, 2)) dropped += 2;
 */
#define csp_chan_try_pushm(c, items, n) csp_ring_try_push(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEMS(c, items), (n))

/* void csp_chan_pushm(c, items, n): pushes `n` items, and waits while there is no room for all of them. They come out
 * side by side, unless there are more than the capacity: then they are pushed in pieces, between which those of others
 * may come. Needs that room all at once: when others push single items without pause, pieces should be small beside the
 * capacity.
 *
 *     csp_chan_pushm(incoming, pair, 2);
 */
#define csp_chan_pushm(c, items, n) csp_ring_push_pieces(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEMS(c, items), (n))

/* size_t csp_chan_try_popm(c, items, n): pops the oldest items, up to `n`, into `items`. Returns how many: 0 when the
 * channel is empty.
 *
 *     double batch[32];
 *     for (size_t got; (got = csp_chan_try_popm(incoming, batch, 32)) > 0;) write_all(batch, got);
 */
#define csp_chan_try_popm(c, items, n) csp_ring_try_pop(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEMS(c, items), (n))

/* void csp_chan_popm(c, items, n): pops exactly `n` items, and waits for them. It takes them as they come: other
 * consumers may get some in between.
 *
 *     csp_chan_popm(incoming, pair, 2);
 */
#define csp_chan_popm(c, items, n) csp_ring_pop(&(c)->ring, CSP_RING_SHAPE(c), CSP_RING_ITEMS(c, items), (n))

/* ---- What the calls are made of: not for programs ---------------------------------------------------------------- */

#define CSP_RING_LINE 64   /* bytes of a cache line */
#define CSP_RING_SPINS 8   /* tries of a call that waits before it gives way for the first time */
#define CSP_RING_YIELDS 16 /* tries of such a call between two at which its thread gives way, too */

/* Inlined even without optimisation: so that sizes and kinds are constants, and no copy is a loop over bytes. */
#define CSP_RING_INLINE static inline __attribute__((always_inline, unused))

struct csp_ring {
  unsigned char *cells;                                  /* constant */
  uint64_t capacity;                                     /* constant; a power of two */
  uint64_t tail __attribute__((aligned(CSP_RING_LINE))); /* the producers': index of the next item to be pushed */
  uint64_t head __attribute__((aligned(CSP_RING_LINE))); /* the consumers': index of the next item to be popped */
};

/* As sizes of an array, none is 0. */
enum { csp_ring_kind_ss = 1, csp_ring_kind_sm = 2, csp_ring_kind_ms = 3, csp_ring_kind_mm = 4 };

/* What is constant for a type of channels. */
struct csp_ring_shape {
  bool many_producers, many_consumers;
  size_t cell_bytes, item_at, item_bytes; /* item_at: where in the cell it is */
};

CSP_RING_INLINE struct csp_ring_shape csp_ring_shape_of(size_t kind, size_t cell_bytes, size_t at, size_t item_bytes) {
  struct csp_ring_shape s = {kind >= csp_ring_kind_ms, kind == csp_ring_kind_sm || kind == csp_ring_kind_mm, cell_bytes,
                             at, item_bytes};
  return s;
}

#define CSP_RING_SHAPE(c) csp_ring_shape_of(sizeof *(c)->kind, sizeof *(c)->cell, sizeof *(c)->at, sizeof *(c)->item)

/* `items`, of which the compiler shall see that they are of the channel's type. */
#define CSP_RING_ITEMS(c, items) (0 ? (c)->item : (items))

/* The address of an item given by its value. */
#ifdef __cplusplus
template <class T> CSP_RING_INLINE const T *csp_ring_item(const T &item) { return &item; }
#define CSP_RING_ITEM(c, ...) csp_ring_item<typename std::remove_reference<decltype(*(c)->item)>::type>(__VA_ARGS__)
#define CSP_RING_CHECK_TYPE(T) static_assert(std::is_trivially_copyable<T>::value, "items are copied byte by byte");
#define CSP_RING_EXTERN extern "C"
#else
#define CSP_RING_ITEM(c, ...) ((__typeof__(*(c)->item)[1]){__VA_ARGS__})
#define CSP_RING_CHECK_TYPE(T)
#define CSP_RING_EXTERN
#endif

static inline void *csp_ring_new(size_t exp, size_t cell_bytes, size_t align) {
  if (align < CSP_RING_LINE) align = CSP_RING_LINE;
  size_t head_bytes = (sizeof(struct csp_ring) + align - 1) & ~(align - 1);
  struct csp_ring *r = NULL;
  /* The limit leaves room for the head and for rounding up. */
  if (exp < 8 * sizeof(size_t) - 2 && cell_bytes <= (SIZE_MAX / 4) >> exp && align <= SIZE_MAX / 8)
    r = (struct csp_ring *)aligned_alloc(align, head_bytes + (((cell_bytes << exp) + align - 1) & ~(align - 1)));
  if (!r) {
    errno = ENOMEM;
    return NULL;
  }
  r->cells = (unsigned char *)r + head_bytes;
  r->capacity = (uint64_t)1 << exp;
  r->tail = r->head = 0;
  for (uint64_t i = 0; i < r->capacity; i++) *(uint64_t *)(void *)(r->cells + i * cell_bytes) = 2 * i;
  return r;
}

static inline void csp_ring_free(void *ring) { free(ring); }

CSP_RING_INLINE unsigned char *csp_ring_cell(struct csp_ring *r, struct csp_ring_shape s, uint64_t index) {
  return r->cells + (index & (r->capacity - 1)) * s.cell_bytes;
}

/* Reserves for the caller, at `end` (tail or head), up to `n` cells in a row whose state is 2 * index + full; `least`
 * at least. `*first` becomes the first index. Returns how many; 0 when there are fewer than `least`. It need not look
 * at the capacity: the cell of index i + capacity is that of i, and so in another state than wanted. */
CSP_RING_INLINE size_t csp_ring_reserve(struct csp_ring *r, struct csp_ring_shape s, uint64_t *end, bool is_shared,
                                        unsigned full, size_t least, size_t n, uint64_t *first) {
  /* Not atomic on a single side: a second user, a fault of the program's, is then seen by a race detector. Relaxed on a
   * shared one: an old value is found out below, by the states or the exchange. */
  uint64_t i = is_shared ? __atomic_load_n(end, __ATOMIC_RELAXED) : *end;
  for (;;) {
    size_t k = 0;
    int64_t ahead = 0; /* of cell i + k: 0 as wanted, below 0 not there yet, above 0 taken by another one */
    for (; k < n; k++) {
      /* Acquire: the item is there, or has been copied out. Pairs with the releases in csp_ring_try_push() and
       * csp_ring_try_pop(). */
      uint64_t state = __atomic_load_n((uint64_t *)(void *)csp_ring_cell(r, s, i + k), __ATOMIC_ACQUIRE);
      ahead = (int64_t)(state - (2 * (i + k) + full));
      if (ahead) break;
    }
    if (is_shared && ahead > 0) {
      i = __atomic_load_n(end, __ATOMIC_RELAXED); /* who took it moved `end` before it changed the state */
      continue;
    }
    if (k < least) return 0;
    *first = i;
    if (!is_shared) {
      *end = i + k;
      return k;
    }
    /* Relaxed: it orders the users of this side among each other only; items and cells are passed on by the states. */
    if (__atomic_compare_exchange_n(end, &i, i + k, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return k;
  }
}

CSP_RING_INLINE bool csp_ring_try_push(struct csp_ring *r, struct csp_ring_shape s, const void *items, size_t n) {
  uint64_t i = 0;
  if (n == 0) return true;
  if (csp_ring_reserve(r, s, &r->tail, s.many_producers, 0, n, n, &i) == 0) return false;
  for (size_t k = 0; k < n; k++) {
    unsigned char *cell = csp_ring_cell(r, s, i + k);
    memcpy(cell + s.item_at, (const unsigned char *)items + k * s.item_bytes, s.item_bytes);
    /* Release: publishes the item. Pairs with the acquire in csp_ring_reserve(). */
    __atomic_store_n((uint64_t *)(void *)cell, 2 * (i + k) + 1, __ATOMIC_RELEASE);
  }
  return true;
}

CSP_RING_INLINE size_t csp_ring_try_pop(struct csp_ring *r, struct csp_ring_shape s, void *items, size_t n) {
  uint64_t i = 0;
  if (n == 0) return 0;
  n = csp_ring_reserve(r, s, &r->head, s.many_consumers, 1, 1, n, &i);
  for (size_t k = 0; k < n; k++) {
    unsigned char *cell = csp_ring_cell(r, s, i + k);
    memcpy((unsigned char *)items + k * s.item_bytes, cell + s.item_at, s.item_bytes);
    /* Release: the item has been read. Pairs with the acquire in csp_ring_reserve(). */
    __atomic_store_n((uint64_t *)(void *)cell, 2 * (i + k + r->capacity), __ATOMIC_RELEASE);
  }
  return n;
}

/* Between two tries of a call that waits. At first the other side may just be busy on another CPU; then this worker's
 * other goroutines shall run; and now and then other threads, of which the other side may be one that has no CPU. */
CSP_RING_INLINE void csp_ring_wait(unsigned tries) {
  if (tries >= CSP_RING_SPINS) {
    if (tries % CSP_RING_YIELDS == 0) sched_yield();
    csp_sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* `n` is at most the capacity. */
CSP_RING_INLINE void csp_ring_push(struct csp_ring *r, struct csp_ring_shape s, const void *items, size_t n) {
  for (unsigned tries = 0; !csp_ring_try_push(r, s, items, n); tries++) csp_ring_wait(tries);
}

CSP_RING_INLINE void csp_ring_push_pieces(struct csp_ring *r, struct csp_ring_shape s, const void *items, size_t n) {
  /* Of half the capacity: so that one is pushed while another is popped. */
  size_t piece = n <= r->capacity ? n : (size_t)(r->capacity + 1) / 2;
  for (size_t at = 0; at < n; at += piece) {
    if (piece > n - at) piece = n - at;
    csp_ring_push(r, s, (const unsigned char *)items + at * s.item_bytes, piece);
  }
}

CSP_RING_INLINE void csp_ring_pop(struct csp_ring *r, struct csp_ring_shape s, void *items, size_t n) {
  unsigned tries = 0;
  for (size_t at = 0; at < n;) {
    size_t got = csp_ring_try_pop(r, s, (unsigned char *)items + at * s.item_bytes, n - at);
    at += got;
    if (got) tries = 0;
    else csp_ring_wait(tries++);
  }
}

#endif
