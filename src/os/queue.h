/* What poller.c needs of a system: a queue of events that descriptors make, and a bell. os/poll_epoll.c or
 * os/poll_kqueue.c, which is compiled in the other's place with COIR_KQUEUE. All of it leaves errno alone. */
#ifndef COIR_SRC_OS_QUEUE_H
#define COIR_SRC_OS_QUEUE_H

#include "poller.h"

struct coir__poller {
  int queue, bell;                                /* (c) the system's; -1: it has none */
  uint32_t fork;                                  /* (c) number of forks before it was made */
  _Alignas(COIR__LINE) _Atomic(uint32_t) woken;   /* (a) a wake is due */
  _Atomic(uint32_t) waiting;                      /* (a) somebody sleeps, or is about to */
  _Alignas(COIR__LINE) _Atomic(uint32_t) watched; /* (a) descriptors added and not taken out by us */
  _Atomic(uint32_t) pins;                         /* (a) */
};

/* In a forked child the queue is the parent's: what the child adds, the parent would be told about. */
bool coir__poller_is_foreign(const struct coir__poller *p);

/* Makes queue and bell: 0; or an error, and none of them is left. Shuts them. */
int coir__queue_open(struct coir__poller *p);
void coir__queue_shut(struct coir__poller *p);

/* As coir__poller_watch, which counts in `watched`, and the like. Unwatch returns whether it was watched. */
int coir__queue_watch(struct coir__poller *p, int fd, uint64_t tag);
int coir__queue_rewatch(struct coir__poller *p, int fd, uint64_t tag);
bool coir__queue_unwatch(struct coir__poller *p, int fd);

/* Takes up to COIR__POLL_BATCH events, for which it sleeps for `ns`; < 0: without limit. Sets *was_rung when the bell
 * was. Returns how many descriptors it tells of. To ring is an edge: who takes it has it. */
int coir__queue_take(struct coir__poller *p, struct coir__poll_ready *ready, int64_t ns, bool *was_rung);
void coir__queue_ring(struct coir__poller *p);

#endif
