/* sync.h: a mutex and a wait group that suspend goroutines instead of blocking their threads. Both are plain memory of
 * the caller's, which stays in place while somebody uses them; filled with zeros they are ready for use, too. */
#ifndef CSP_SYNC_H
#define CSP_SYNC_H

#include "csp_api.h"

CSP_BEGIN_DECLS

/* A mutex. It is handed over in the order of arrival. Another one than who locked it may unlock it. */
typedef struct {
  uint64_t reserved[5];
} csp_sync_mutex_t;

CSP_API void csp_sync_mutex_init(csp_sync_mutex_t *mu);
CSP_API void csp_sync_mutex_lock(csp_sync_mutex_t *mu);
CSP_API bool csp_sync_mutex_try_lock(csp_sync_mutex_t *mu); /* true: locked. Does not wait */

/* Unlocks, and hands over to who has waited longest. Aborts when it is not locked. May be the last touch: whoever is
 * let go may free the mutex. Does not wait. */
CSP_API void csp_sync_mutex_unlock(csp_sync_mutex_t *mu);

/* A wait group: a counter on which any number may wait for zero. */
typedef struct {
  uint64_t reserved[4];
} csp_sync_waitgroup_t;

CSP_API void csp_sync_waitgroup_init(csp_sync_waitgroup_t *wg);

/* Adds `delta`, which may be negative. At zero all who wait are let go, and may free the group. A counter below zero
 * prints a message that says "negative WaitGroup counter" on stderr and aborts. Does not wait. */
CSP_API void csp_sync_waitgroup_add(csp_sync_waitgroup_t *wg, int delta);
CSP_API void csp_sync_waitgroup_done(csp_sync_waitgroup_t *wg); /* add -1 */

/* Waits until the counter is, or was, zero. */
CSP_API void csp_sync_waitgroup_wait(csp_sync_waitgroup_t *wg);

CSP_END_DECLS
#endif
