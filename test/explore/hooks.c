/* What the compiler's instrumentation for ThreadSanitizer calls. Outside of a run an access is what it says. */
#include "inside.h"

#define HOOK __attribute__((visibility("default")))
#define IS_RUNNING() ex_access(__builtin_return_address(0))

/* By the compiler, not in any header. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

HOOK void __tsan_init(void) {}
HOOK void __tsan_func_entry(void *caller) { (void)caller; }
HOOK void __tsan_func_exit(void) {}
HOOK void __tsan_vptr_update(void **to, void *value) { (void)to, (void)value; }

/* No stack is switched in a case. */
HOOK void *__tsan_create_fiber(unsigned flags) { return (void)flags, NULL; }
HOOK void *__tsan_get_current_fiber(void) { return NULL; }
HOOK void __tsan_destroy_fiber(void *fiber) { (void)fiber; }
HOOK void __tsan_switch_to_fiber(void *fiber, unsigned flags) { (void)fiber, (void)flags; }

#define PLAIN(name, bytes)                                                       \
  HOOK void __tsan_read##name(void *from) {                                      \
    if (!IS_RUNNING()) return;                                                   \
    memory_plain(from, bytes, false);                                            \
  }                                                                              \
  HOOK void __tsan_write##name(void *to) {                                       \
    if (!IS_RUNNING()) return;                                                   \
    memory_plain(to, bytes, true);                                               \
  }                                                                              \
  HOOK void __tsan_unaligned_read##name(void *from) { __tsan_read##name(from); } \
  HOOK void __tsan_unaligned_write##name(void *to) { __tsan_write##name(to); }
PLAIN(1, 1)
PLAIN(2, 2)
PLAIN(4, 4)
PLAIN(8, 8)
PLAIN(16, 16)

HOOK void __tsan_read_range(void *from, size_t bytes) {
  if (!IS_RUNNING()) return;
  memory_plain(from, bytes, false);
}

HOOK void __tsan_write_range(void *to, size_t bytes) {
  if (!IS_RUNNING()) return;
  memory_plain(to, bytes, true);
}

static uint64_t replace(uint64_t old, uint64_t operand) {
  (void)old;
  return operand;
}
static uint64_t add(uint64_t old, uint64_t operand) { return old + operand; }
static uint64_t subtract(uint64_t old, uint64_t operand) { return old - operand; }
static uint64_t and(uint64_t old, uint64_t operand) { return old & operand; }
static uint64_t or(uint64_t old, uint64_t operand) { return old | operand; }
static uint64_t xor(uint64_t old, uint64_t operand) { return old ^ operand; }

#define UPDATE(bits, name, fn, plain)                                                                   \
  HOOK uint##bits##_t __tsan_atomic##bits##_##name(uint##bits##_t *word, uint##bits##_t v, int order) { \
    if (!IS_RUNNING()) return plain;                                                                    \
    return (uint##bits##_t)memory_update(word, bits / 8, fn, v, (enum order)order);                     \
  }

#define SWAP(bits, name)                                                                                  \
  HOOK int __tsan_atomic##bits##_compare_exchange_##name(uint##bits##_t *word, uint##bits##_t *expected,  \
                                                         uint##bits##_t desired, int order, int failed) { \
    uint##bits##_t wanted = *expected;                                                                    \
    if (!IS_RUNNING()) return __atomic_compare_exchange_n(word, expected, desired, 0, 5, 5);              \
    uint64_t was = memory_swap(word, bits / 8, wanted, desired, (enum order)order, (enum order)failed);   \
    *expected = (uint##bits##_t)was;                                                                      \
    return was == wanted;                                                                                 \
  }

#define ATOMIC(bits)                                                                          \
  HOOK uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *word, int order) {     \
    if (!IS_RUNNING()) return __atomic_load_n(word, 5);                                       \
    return (uint##bits##_t)memory_load((void *)(uintptr_t)word, bits / 8, (enum order)order); \
  }                                                                                           \
  HOOK void __tsan_atomic##bits##_store(uint##bits##_t *word, uint##bits##_t v, int order) {  \
    if (!IS_RUNNING()) {                                                                      \
      __atomic_store_n(word, v, 5);                                                           \
      return;                                                                                 \
    }                                                                                         \
    memory_store(word, bits / 8, v, (enum order)order);                                       \
  }                                                                                           \
  UPDATE(bits, exchange, replace, __atomic_exchange_n(word, v, 5))                            \
  UPDATE(bits, fetch_add, add, __atomic_fetch_add(word, v, 5))                                \
  UPDATE(bits, fetch_sub, subtract, __atomic_fetch_sub(word, v, 5))                           \
  UPDATE(bits, fetch_and, and, __atomic_fetch_and(word, v, 5))                                \
  UPDATE(bits, fetch_or, or, __atomic_fetch_or(word, v, 5))                                   \
  UPDATE(bits, fetch_xor, xor, __atomic_fetch_xor(word, v, 5))                                \
  SWAP(bits, strong)                                                                          \
  SWAP(bits, weak)
ATOMIC(8)
ATOMIC(16)
ATOMIC(32)
ATOMIC(64)

HOOK void __tsan_atomic_thread_fence(int order) {
  if (!IS_RUNNING()) return;
  memory_fence((enum order)order);
}

/* For the compiler only: the light half of an asymmetric pair. */
HOOK void __tsan_atomic_signal_fence(int order) { (void)order; }
