/* Locks that lean towards the worker that uses them.
 *
 * Goal: a channel, mutex or queue whose users all run on one worker at the time, as most do, is locked and unlocked
 * without a locked instruction, 5 to 6 ns each on current processors; and nothing is lost for those that move about.
 *
 * Why it is hard: the worker must learn that another thread wants the lock without a fence of its own.
 *
 * Design. An ordinary lock, and the name of a worker that owns it. The owner enters by writing which lock it is inside
 * of into a word of its own (coir__worker.inside) and then looking, after a light fence, whether it still owns the
 * lock; it leaves by clearing the word. Everybody else takes the ordinary lock; whoever then finds an owner takes the
 * ownership away, executes a heavy fence, and waits until the owner's word does not show this lock. After that the
 * owner finds itself to be nobody special. The word and the name are each written before the other is read, and the
 * fences are a pair.
 *
 * Whoever has used the ordinary lock GRANT_USES times in a row, with nobody else in between, becomes its owner. So the
 * heavy fence is paid only for what has saved about as much before (the rule for renting or buying: Karlin, Manasse,
 * Rudolph, Sleator, "Competitive Snoopy Caching", 1988), and never for objects that live shortly.
 *
 * A worker is inside one such lock at a time, so one word suffices. The words lie in a table that stays, so that a
 * runtime may go while a lock still names a worker of it. A worker that finds the table full owns nothing.
 *
 * Rejected: the word in the lock itself (a former owner that was preempted before it wrote the word would write it
 * for its successor); ownership by thread (a worker may leave its thread). The idea of biased locks: Kawachiya,
 * Koseki, Onodera, "Lock Reservation", 2002; taking one away by a system-wide fence: Russell and Detlefs, 2006.
 *
 * I1: owner changes only under the ordinary lock.   I2: only the worker that it names enters without that lock.
 * I3: who takes the ordinary lock from an owner goes on only after that owner is not inside, and cannot come in. */
#include "internal.h"

#define BIAS_SLOTS 512
#define SPINS_MAX 64
#ifdef COIR_HARD
#define GRANT_USES 2
#else
#define GRANT_USES 1024
#endif

static struct bias_slot {
  _Alignas(COIR__LINE) _Atomic(struct coir__bias *) inside;
  _Atomic(uint32_t) taken; /* (a) a worker has it */
} bias_slots[BIAS_SLOTS];  /* the first is nobody's: that of plain threads and of workers that found no other */

_Static_assert(BIAS_SLOTS <= COIR__BIAS_OWNED, "a slot's number fits beside the mark");

void coir__bias_attach(struct coir__worker *w) {
  uint32_t i = 1;
  for (uint32_t none = 0; i < BIAS_SLOTS && !atm_cas_ar(&bias_slots[i].taken, &none, 1); i++) none = 0;
  if (i == BIAS_SLOTS) i = 0;
  w->inside = &bias_slots[i].inside;
  w->bias_slot = i;
  w->bias = i ? i | COIR__BIAS_OWNED : COIR__BIAS_NOBODY;
}

void coir__bias_detach(struct coir__worker *w) {
  if (w->bias_slot) atm_store_rel(&bias_slots[w->bias_slot].taken, 0); /* pairs with coir__bias_attach */
}

/* Waits until the owner is not inside; the ordinary lock is held, and the owner's name is gone. */
static void evict(struct coir__bias *l, uint32_t owner) {
  coir__fence_heavy(); /* pairs with the light fence in coir__bias_lock */
  /* Acquire: what the owner did inside. Pairs with the release in coir__bias_unlock. */
  for (int spins = 0; atm_load_acq(&bias_slots[owner & ~COIR__BIAS_OWNED].inside) == l; spins++) {
    if (spins < SPINS_MAX) coir__pause();
    else coir__os_thread_yield();
  }
}

void coir__bias_lock_slow(struct coir__worker *w, struct coir__bias *l) {
  coir__lock(&l->lock);
  uint32_t owner = atm_load_rlx(&l->owner), me = w ? w->bias_slot : 0;
  if (owner == me) {
    if (++l->uses < GRANT_USES) return;
    l->uses = 0;
    if (me && coir__fence_asymmetric) atm_store_rlx(&l->owner, (uint16_t)(me | COIR__BIAS_OWNED));
    return;
  }
  atm_store_rlx(&l->owner, (uint16_t)me);
  l->uses = 0;
  if (owner & COIR__BIAS_OWNED) evict(l, owner);
}

bool coir__bias_is_held(struct coir__bias *l) {
  if (atm_load_acq(&l->lock.held)) return true;
  uint32_t owner = atm_load_acq(&l->owner);
  return (owner & COIR__BIAS_OWNED) && atm_load_acq(&bias_slots[owner & ~COIR__BIAS_OWNED].inside) == l;
}

void coir__bias_fork_child(void) {
  /* Who was inside is not in this process. */
  for (int i = 0; i < BIAS_SLOTS; i++) atm_store_rlx(&bias_slots[i].inside, NULL);
}
