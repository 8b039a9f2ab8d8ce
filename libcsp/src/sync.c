/* Mutex and wait group of libcsp.
 *
 * The mutex counts who holds it or wants it; all but the first wait for a permit of a semaphore, which is first come,
 * first served (the "benaphore" of B. Schillings and C. Cunningham, Be Inc., 1996). So it is handed over in order, and
 * costs one read-modify-write where nobody else wants it.
 *
 * Coir's own mutex is not used: it lets whoever comes first have it, and only its owner may unlock it.
 *
 * What asks a fiber to stop does not keep it from getting the mutex or from waiting: these calls cannot fail. */
#include "sync.h"

#include <string.h>

#include "csp_internal.h"

struct __attribute__((may_alias)) mutex { /* in the caller's memory, which has another type */
  struct coir_sem turns;                  /* for those who had to wait */
  int64_t count;                          /* (a) who holds it or wants it */
};
_Static_assert(sizeof(struct mutex) <= sizeof(csp_sync_mutex_t), "fits");
_Static_assert(sizeof(struct coir_wait_group) <= sizeof(csp_sync_waitgroup_t), "fits");

static struct mutex *inner(csp_sync_mutex_t *mu) { return (struct mutex *)mu; }
static struct coir_wait_group *group(csp_sync_waitgroup_t *wg) { return (struct coir_wait_group *)wg; }

void csp_sync_mutex_init(csp_sync_mutex_t *mu) { memset(mu, 0, sizeof *mu); }

static __attribute__((noinline)) void wait_for_turn(struct mutex *m) {
  coir_shield_begin();
  int rc = coir_sem_acquire(&m->turns, 1, COIR_NEVER);
  (void)rc; /* neither cancelled nor too late */
  coir_shield_end();
}

void csp_sync_mutex_lock(csp_sync_mutex_t *mu) {
  struct mutex *m = inner(mu);
  /* Acquire: pairs with the release in csp_sync_mutex_unlock. */
  if (__atomic_fetch_add(&m->count, 1, __ATOMIC_ACQUIRE) != 0) wait_for_turn(m);
}

bool csp_sync_mutex_try_lock(csp_sync_mutex_t *mu) {
  int64_t none = 0; /* acquire: as in csp_sync_mutex_lock */
  return __atomic_compare_exchange_n(&inner(mu)->count, &none, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

void csp_sync_mutex_unlock(csp_sync_mutex_t *mu) {
  struct mutex *m = inner(mu);
  int64_t count = __atomic_fetch_sub(&m->count, 1, __ATOMIC_RELEASE); /* pairs with the acquires above */
  if (count > 1) coir_sem_release(&m->turns, 1);
  else if (count < 1) csp__die("csp_sync_mutex_unlock: the mutex is not locked");
}

void csp_sync_waitgroup_init(csp_sync_waitgroup_t *wg) { memset(wg, 0, sizeof *wg); }

void csp_sync_waitgroup_add(csp_sync_waitgroup_t *wg, int delta) { coir_wait_group_add(group(wg), delta); }

void csp_sync_waitgroup_done(csp_sync_waitgroup_t *wg) { coir_wait_group_done(group(wg)); }

void csp_sync_waitgroup_wait(csp_sync_waitgroup_t *wg) {
  coir_shield_begin();
  coir_wait_group_wait(group(wg), COIR_NEVER);
  coir_shield_end();
}
