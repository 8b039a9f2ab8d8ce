/* counter.h: a sum to which many threads add at once, without getting in each other's way. Conventions: go.h. Nothing
 * here waits.
 *
 * It is spread over several cells, each in a cache line of its own, and each thread adds to one of them. Adding is
 * cheap, asking for the sum is not. */
#ifndef LIBGO_COUNTER_H
#define LIBGO_COUNTER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct LongAdder LongAdder; /* opaque */

/* Makes one, at zero; the caller frees it by go_long_adder_destroy. Returns NULL and errno ENOMEM. */
LongAdder *go_long_adder_create(void);

/* Add `n`, or 1. Beyond what 64 bits hold it wraps around. */
void go_long_adder_add(LongAdder *adder, int64_t n);
void go_long_adder_increment(LongAdder *adder);

/* The sum of everything that was added before the call; of what is being added meanwhile it may have some. */
int64_t go_long_adder_sum(const LongAdder *adder);

/* Sets it to zero. What is being added meanwhile may be lost or not. */
void go_long_adder_reset(LongAdder *adder);

/* NULL does nothing. */
void go_long_adder_destroy(LongAdder *adder);

#ifdef __cplusplus
}
#endif
#endif
