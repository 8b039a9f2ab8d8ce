/* The rebalancer: now and then a worker that has far more to do than another gives some away.
 *
 * Stealing moves work to workers that have none. This evens out queues where all are busy, or where stealing is off.
 * It is the giver who acts, from its own loop, so that nothing is taken from anybody. */
#include "runq.h"

#define GIVE_MAX 64

void coir__balance(struct coir__worker *w, int64_t now) {
  struct coir_runtime *rt = w->rt;
  int64_t due = atm_load_rlx(&rt->rebalance_at);
  if (now < due) return;
  struct coir__worker *least = w;
  uint64_t mine = coir__runq_length(w), fewest = mine;
  for (int i = 0; i < rt->worker_count; i++) {
    uint64_t n = coir__runq_length(rt->workers[i]);
    if (n < fewest) fewest = n, least = rt->workers[i];
  }
  if (mine - fewest < (uint64_t)atm_load_rlx(&rt->tuned.rebalance_threshold)) return;
  int64_t next = now + COIR_MS(atm_load_rlx(&rt->tuned.rebalance_interval_ms));
  if (!atm_cas_ar(&rt->rebalance_at, &due, next)) return; /* another one does it this time */
  atm_bump(&w->counts.rebalances_attempted, 1);
  uint64_t give = (mine - fewest) / 2, given = 0;
  if (give > GIVE_MAX) give = GIVE_MAX;
  struct coir__list bound = w->bound; /* these may not leave: put them aside */
  w->bound = (struct coir__list){0};
  for (struct coir_fiber *f; given < give && (f = coir__runq_pop(w)); given++) coir__inbox_send(least, f);
  w->bound = bound;
  if (bound.head) w->extra = 1;
  if (given) {
    atm_bump(&w->counts.rebalance_hits, 1);
    coir__idle_wake(least);
  }
  atm_bump(&w->counts.rebalanced, given);
}
