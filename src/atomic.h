/* Every atomic access of the core, the order in its name, so that one file can be audited, searched, or replaced by a
 * model.
 *
 * Orders: rlx (relaxed), acq, rel, ar (acquire and release), sc (sequentially consistent).
 *
 * The asymmetric fence. Two parties that each write one word and then read the other's must not both miss: that takes
 * a full fence on both sides. Where one side is hot and the other rare, the hot side uses coir__fence_light, which
 * costs nothing, and the rare side coir__fence_heavy, which makes every running thread of the process execute a full
 * fence (membarrier(2), PRIVATE_EXPEDITED). Where the kernel has no membarrier, both are ordinary full fences. A
 * light fence pairs only with a heavy one, never with another light one. (The idea: Dice, Huang, Yang, "Asymmetric
 * Dekker Synchronization", 2001; C++ proposal P1202, 2018.) */
#ifndef COIR_SRC_ATOMIC_H
#define COIR_SRC_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#define COIR_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define COIR_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(COIR_ASAN)
#define COIR_ASAN 1
#endif
#if __has_feature(thread_sanitizer) && !defined(COIR_TSAN)
#define COIR_TSAN 1
#endif
#if __has_feature(memory_sanitizer)
#define COIR_MSAN 1
#include <sanitizer/msan_interface.h>
#endif
#endif
/* What the kernel, or assembly, has written where MemorySanitizer did not see it. */
#if defined(COIR_MSAN)
#define COIR_WRITTEN(p, bytes) __msan_unpoison((p), (size_t)(bytes))
#else
#define COIR_WRITTEN(p, bytes) ((void)0)
#endif
#if defined(COIR_ASAN) || defined(COIR_TSAN) || defined(COIR_MSAN)
#define COIR_SANITIZED 1
#endif
#if defined(COIR_SANITIZED) || defined(COIR_TRACE)
#define COIR_SLOW_SWITCH 1 /* somebody is told of every switch: no short cuts there */
#endif

/* Relaxed accesses are volatile ones where no sanitizer looks on: one move for every word of ours, as for the atomic
 * built-ins, but compilers need not assume that it touches other memory, too, and keep that in registers. */
#if defined(COIR_TSAN)
#define atm_load_rlx(p) atomic_load_explicit((p), memory_order_relaxed)
#define atm_store_rlx(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#else
#define ATM_PLAIN(p) __typeof__((void)0, *(p))
#define atm_load_rlx(p) (*(const volatile ATM_PLAIN(p) *)(p))
#define atm_store_rlx(p, v) ((void)(*(volatile ATM_PLAIN(p) *)(p) = (v)))
#endif
#define atm_load_acq(p) atomic_load_explicit((p), memory_order_acquire)
#define atm_load_sc(p) atomic_load_explicit((p), memory_order_seq_cst)
#define atm_store_rel(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define atm_xchg_ar(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define atm_xchg_sc(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
/* An exchange, as it is one on x86-64 anyway: qemu 7.2 does not keep the order of ARM's plain store and a load after it
 * (bug_wake_in_emulator). */
#define atm_store_sc(p, v) ((void)atm_xchg_sc(p, v))
#define atm_add_rlx(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define atm_add_sc(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define atm_sub_rlx(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_relaxed)
#define atm_sub_sc(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
#define atm_sub_rel(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_release)
#define atm_sub_ar(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_acq_rel)
#define atm_and_ar(p, v) atomic_fetch_and_explicit((p), (v), memory_order_acq_rel)
#define atm_or_sc(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define atm_and_sc(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
/* Strong compare-and-swap; on failure *expected holds what was found. */
#define atm_cas_ar(p, expected, v) \
  atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)
#define atm_cas_sc(p, expected, v) \
  atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst, memory_order_seq_cst)

/* A counter with one writer: a plain increment that others may read. */
#define atm_bump(p, n) atm_store_rlx((p), atm_load_rlx(p) + (n))

/* A store to an ordinary word of its owner's that somebody may look at for a dump. One aligned store, which no
 * compiler here splits; spelled atomically only for ThreadSanitizer, because gcc optimises less around atomics, and
 * this is on the path of every switch. */
#if defined(COIR_TSAN)
#define atm_show(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#else
#define atm_show(p, v) ((void)(*(p) = (v)))
#endif
#define atm_show_rel(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

#define COIR_LIKELY(x) __builtin_expect(!!(x), 1)
#define COIR_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define atm_fence_sc() atomic_thread_fence(memory_order_seq_cst)

/* For what is on the path of every spawn, end, switch and wait: gcc weighs size only. */
#define COIR_INLINE static inline __attribute__((always_inline))

/* True once membarrier is registered for this process; constant after the first runtime exists. Set in os/linux.c. */
extern bool coir__fence_asymmetric;

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan" /* it does not model fences; no data of ours is published by one alone */
#endif

static inline void coir__fence_light(void) {
  if (COIR_LIKELY(coir__fence_asymmetric)) atomic_signal_fence(memory_order_seq_cst);
  else atomic_thread_fence(memory_order_seq_cst);
}

/* Pairs with every coir__fence_light of this process that guards the same words. Costs a system call: 0.3 to 2 us. */
void coir__fence_heavy(void);

#if defined(COIR_EXPLORE)
void coir__pause(void); /* test/explore: others go on first */
#else
static inline void coir__pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
#endif

/* A lock for a few instructions. Never held across a switch, a system call that can block, or a call of user code. */
struct coir__lock {
  _Atomic(uint32_t) held;
};

void coir__lock_slow(struct coir__lock *lock);

static inline bool coir__lock_try(struct coir__lock *lock) {
  uint32_t free = 0;
  return atm_cas_ar(&lock->held, &free, 1);
}

static inline void coir__lock(struct coir__lock *lock) {
  if (COIR_UNLIKELY(!coir__lock_try(lock))) coir__lock_slow(lock);
}

static inline bool coir__lock_is_held(struct coir__lock *lock) { return atm_load_acq(&lock->held); }

static inline void coir__unlock(struct coir__lock *lock) { atm_store_rel(&lock->held, 0); }

#endif
