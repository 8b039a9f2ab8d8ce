/* mutex.h: a spin lock for sections of a few instructions. Who does not get it gives way (csp_sched_yield) in between.
 * For all else there is sync.h. In C11 and C++. */
#ifndef CSP_MUTEX_H
#define CSP_MUTEX_H

#include <sched.h>

#include "csp_api.h"
#include "csp_sched.h"

CSP_BEGIN_DECLS

/* Ready for use when zeroed. Not to be held across a call that waits. */
typedef struct {
  uint32_t locked;
} csp_mutex_t;

static inline void csp_mutex_init(csp_mutex_t *mutex) { __atomic_store_n(&mutex->locked, 0, __ATOMIC_RELAXED); }

/* True: locked. */
static inline bool csp_mutex_try_lock(csp_mutex_t *mutex) {
  /* Acquire: pairs with the release in csp_mutex_unlock. */
  return !__atomic_load_n(&mutex->locked, __ATOMIC_RELAXED) &&
         !__atomic_exchange_n(&mutex->locked, 1, __ATOMIC_ACQUIRE);
}

static inline void csp_mutex_lock(csp_mutex_t *mutex) {
  for (unsigned tries = 1; !csp_mutex_try_lock(mutex); tries++) {
    if (tries % 64 == 0) csp_sched_yield();
    if (tries % 1024 == 0) sched_yield(); /* who holds it may be on a thread that has no CPU */
  }
}

static inline void csp_mutex_unlock(csp_mutex_t *mutex) {
  /* Release: what was done under it is seen by the next holder. Pairs with the acquire in csp_mutex_try_lock. */
  __atomic_store_n(&mutex->locked, 0, __ATOMIC_RELEASE);
}

CSP_END_DECLS
#endif
