/* fiber_hooks.h: block and go on, for those who build ways of waiting of their own. Conventions: go.h.
 *
 * Everybody, fiber or plain thread, has one permit, not given at first. go_fiber_make_runnable gives it; go_fiber_block
 * takes it, and waits while it is not given. So what is made runnable before it blocks does not block. A second permit
 * is dropped, so look at what you wait for in a loop:
 *
 *     w.fiber = go_fiber_current();
 *     enlist(&w);
 *     while (!atomic_load(&w.is_ready)) go_fiber_block();
 *
 * What was done before go_fiber_make_runnable is visible after the go_fiber_block that takes the permit. */
#ifndef LIBGO_FIBER_HOOKS_H
#define LIBGO_FIBER_HOOKS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Who is to be made runnable: a number in a pointer's clothes, that is not used again for another fiber or thread (not
 * within 2^32 of them). So it may be kept for any time, and need not be given back. */
typedef struct GoFiber GoFiber;

/* Returns the caller, fiber or plain thread. NULL and errno when it asks for the first time and cannot be given a
 * number: ENOMEM, EAGAIN (all COIR_KEYS_MAX keys of coir.h are taken). Does not wait. */
GoFiber *go_fiber_current(void);

/* Waits for the permit and takes it. Returns 0; -1 and errno: ECANCELED, and as go_fiber_current. */
int go_fiber_block(void);

/* Waits for it until CLOCK_MONOTONIC is at `deadline_ns` nanoseconds; one that has passed: does not wait. Returns 0; -1
 * and errno: ETIMEDOUT, ECANCELED, and as go_fiber_current. */
int go_fiber_block_until(uint64_t deadline_ns);

/* Gives `fiber` its permit. Returns 0; -1 and errno: ESRCH (it has ended, nothing was done), EINVAL (NULL). Does not
 * wait. */
int go_fiber_make_runnable(GoFiber *fiber);

#ifdef __cplusplus
}
#endif
#endif
