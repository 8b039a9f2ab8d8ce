/* What the core needs of a poller: a thing to sleep in that descriptors, a deadline and other threads can end.
 * os/poller.c implements it, with a file for each system. A poller is waited on by at most one thread at a time, and
 * polled (timeout 0) by any number; the other calls come from any thread. */
#ifndef COIR_SRC_POLLER_H
#define COIR_SRC_POLLER_H

#include "types.h"

struct coir__poller;
struct coir__wait;

#define COIR__POLL_BATCH 128 /* events taken per look */

/* Makes a poller; 0 or a negative errno code. `rt` NULL: one of no runtime. Frees it: NULL does nothing. */
int coir__poller_create(struct coir__poller **out, struct coir_runtime *rt);
void coir__poller_destroy(struct coir__poller *p);

/* Watches `fd` for input, output and hang-up, edge-triggered, from now on. `tag` comes back with every event. If it is
 * watched already, the kernel reports anew what is ready now. Returns 0; -EPERM when this kind of descriptor is always
 * ready; -EBADF, -ENOMEM, -ENOSPC; -ENOTSUP when the poller was made before a fork. */
int coir__poller_watch(struct coir__poller *p, int fd, uint64_t tag);
int coir__poller_rewatch(struct coir__poller *p, int fd, uint64_t tag); /* the same, but -ENOENT if it is not watched */
void coir__poller_unwatch(struct coir__poller *p, int fd);

/* While it is pinned coir__poller_destroy does not return. For a moment only. */
void coir__poller_pin(struct coir__poller *p);
void coir__poller_unpin(struct coir__poller *p);

/* Whether anything is watched at all (a relaxed look; to save the system call of an idle poll). */
bool coir__poller_is_used(const struct coir__poller *p);

/* Whether there are events to take just now. Any thread. */
bool coir__poller_is_ready(const struct coir__poller *p);

/* Takes events and hands them to coir__poll_events (poll.c). Sleeps until there is one, until `deadline` (absolute; 0:
 * do not sleep), or until coir__poller_wake; now and then it returns earlier. Returns how many it handed on. */
int coir__poller_wait(struct coir__poller *p, int64_t deadline);

/* Ends the sleep of whoever waits, or else the next one that begins. Callable from any thread. */
void coir__poller_wake(struct coir__poller *p);

/* fork, in the child: pollers that exist are the parent's, and refuse to watch anything. */
void coir__poller_fork_child(void);

/* ---- poll.c: descriptors --------------------------------------------------------------------------------------- */

/* Bits of events, and of what is waited for. */
#define COIR__POLL_IN 1u
#define COIR__POLL_OUT 2u
#define COIR__POLL_HUP 4u /* the peer is gone, an error is pending, or out-of-band data came: distrust short reads */

/* Events for descriptors: makes them ready and wakes whom they concern. Called by pollers. */
struct coir__poll_ready {
  uint64_t tag;
  uint32_t events;
};
void coir__poll_events(const struct coir__poll_ready *ready, int count);

/* The same for a descriptor that has a record, of which the kernel has told nothing: whoever waits tries again. */
void coir__poll_in_vain(int fd);

/* This poller is about to go: no record may name it any more. Called by coir__poller_destroy. */
void coir__poll_forget(struct coir__poller *p);

/* fork, in the child: every poller's descriptors are the parent's, and nobody waits. */
void coir__poll_fork_child(void);

/* The word of a record, from the low end:
 *    0  1   dry: a call found nothing to read, no room to write. Zero means "try", so a zeroed record is a fresh one.
 *    2      the peer hung up, an error or out-of-band data came, at some time of this life
 *    3      adopted
 *    4      adopted, and TCP: a transfer shorter than asked leaves it dry (epoll(7))
 *    5  6   a socket, a file. Not adopted, the former is a guess and the latter is never set
 *    7      an error is kept for the next reader
 *    8      its life is over, and close(2) has not returned yet
 *    9      adopted, and a pipe
 *   10..22  how many threads are inside a system call on this number right now
 *   23..43  counts events
 *   44..63  counts lives: differs when the number was closed and may stand for something else */
#define COIR__FD_DRY UINT64_C(3)
#define COIR__FD_HUP UINT64_C(4)
#define COIR__FD_ADOPTED UINT64_C(8)
#define COIR__FD_TCP UINT64_C(16)
#define COIR__FD_SOCKET UINT64_C(32)
#define COIR__FD_FILE UINT64_C(64)
#define COIR__FD_KEPT UINT64_C(128)
#define COIR__FD_CLOSING UINT64_C(256)
#define COIR__FD_PIPE UINT64_C(512)
#define COIR__FD_USER UINT64_C(1024)
#define COIR__FD_USERS (UINT64_C(0x1fff) << 10)
#define COIR__FD_EVENT (UINT64_C(1) << 23)
#define COIR__FD_EVENTS (UINT64_C(0x1fffff) << 23)
#define COIR__FD_LIFE (~UINT64_C(0) << 44)
#define COIR__FD_LIFE_ONE (UINT64_C(1) << 44)

/* The record of a descriptor's number. Its memory is never given back. */
struct coir__fd {
  _Alignas(COIR__LINE) _Atomic(uint64_t) word; /* (a) see above; its life changes under q.lock only */
  struct coir__waitq q;                        /* who waits: struct coir__fd_clause */
  struct coir__poller *poller;                 /* (l) q.lock: which poller is to watch it; NULL none yet */
  struct coir_runtime *rt;                     /* (l) q.lock: whose poller that is; NULL: the plain threads' */
  uint32_t generation;                         /* (l) q.lock: upper half of the tag that counts */
  int kept;                                    /* (l) q.lock: the error that COIR__FD_KEPT announces */
  bool is_watched;                             /* (l) q.lock: poller does watch it */
  _Atomic(bool) is_checked;                    /* (a) the check has looked since the last one began to wait */
  _Atomic(uint32_t) file;                      /* (a) written under q.lock: coir__sys_socket_id of what is watched; 0 */
};

extern struct coir__fd *coir__fds;       /* (c) once coir__fd_count is set */
extern _Atomic(uint32_t) coir__fd_count; /* (a) 0 until the table exists */
struct coir__fd *coir__fd_find_slow(int fd, int *error);

/* The record of `fd`, or NULL and why: -EBADF, -ENOMEM. */
static inline struct coir__fd *coir__fd_find(int fd, int *error) {
  /* Acquire: the table's address. Pairs with the release in table_init(). */
  if (COIR_LIKELY((uint32_t)fd < atm_load_acq(&coir__fd_count))) return &coir__fds[fd];
  return coir__fd_find_slow(fd, error);
}

uint64_t coir__fd_settle(struct coir__fd *d);

/* The word as a call begins: its life is what the call belongs to. */
static inline uint64_t coir__fd_begin(struct coir__fd *d) {
  /* Acquire: what the poller knew when it counted an event; pairs with its compare-and-swap. */
  uint64_t word = atm_load_acq(&d->word);
  return COIR_LIKELY(!(word & COIR__FD_CLOSING)) ? word : coir__fd_settle(d);
}

/* Around every system call on the number that must not meet the next file. Acquire: what the poller knew when it
 * counted an event; pairs with its compare-and-swap. Returns the word as it was. */
static inline uint64_t coir__fd_enter(struct coir__fd *d) { return atm_add_sc(&d->word, COIR__FD_USER); }

/* `seen` is what coir__fd_enter returned. With `dry` not 0 the call found that direction dry: so it is, unless an event
 * came meanwhile. */
static inline void coir__fd_leave(struct coir__fd *d, uint64_t seen, uint64_t dry) {
  if (!dry) {
    atm_sub_rel(&d->word, COIR__FD_USER); /* release: the system call is over; pairs with the acquire in quiesce() */
    return;
  }
  uint64_t old = atm_load_rlx(&d->word), next;
  do {
    next = old - COIR__FD_USER;
    if (COIR_LIKELY(!((old ^ seen) & (COIR__FD_EVENTS | COIR__FD_LIFE)))) next |= dry;
  } while (!atm_cas_ar(&d->word, &old, next)); /* release as above */
}

/* Around system calls on the number that may block for long; in the caller's frame. It looks at the life before each of
 * them, and the number is its first argument. Who ends that life waits until this is over, or sleeps in such a call. */
struct coir__fd_blocker {
  struct coir__fd_blocker *next; /* poll.c's, under its lock */
  struct coir__fd *d;
  int tid;
  bool is_asleep; /* as somebody who closes the number has found */
};
void coir__fd_block_begin(struct coir__fd *d, struct coir__fd_blocker *b);
void coir__fd_block_end(struct coir__fd_blocker *b);

/* Whether that life goes on. Sequentially consistent: after coir__fd_block_begin. */
static inline bool coir__fd_lives(const struct coir__fd *d, uint64_t life) {
  return !((atm_load_sc(&d->word) ^ life) & COIR__FD_LIFE);
}

/* Waits until one of `events` may hold. `life` is COIR__FD_LIFE of the word when the call began. Returns 0: try again;
 * -EBADF: it was closed; -ETIMEDOUT, -ECANCELED; -EPERM: no event will ever come; -ENOMEM, -ENOSPC, -EMFILE, -ENFILE,
 * -ENOTSUP. May return 0 without having suspended. */
int coir__fd_wait(struct coir__fd *d, int fd, uint64_t life, uint32_t events, enum coir__reason reason,
                  int64_t deadline);

/* The steps of that, for a wait on several things. Look: returns the events that it is ready for, 0 and the directions
 * are dry, or an error. Watch: has a poller of the caller's runtime watch it; 0, or an error as above. Hold: takes the
 * record's lock and returns COIR__FD_HELD when one may wait; else gives it back: 0: not dry after all;
 * COIR__FD_UNARMED, only with `armed` false: watch it first; -EBADF. Link: adds the clause to a wait that has begun,
 * and gives back the lock. */
enum { COIR__FD_UNARMED = 1, COIR__FD_HELD = 2 };
int coir__fd_look(struct coir__fd *d, int fd, uint64_t life, uint32_t events);
int coir__fd_watch(struct coir__fd *d, int fd, uint64_t life);
int coir__fd_hold(struct coir__worker *w, struct coir__fd *d, uint64_t life, uint32_t events, bool armed);
void coir__fd_link(struct coir__worker *w, struct coir__fd *d, struct coir__wait *wait, struct coir__fd_clause *fc,
                   uint32_t events);

/* By who has waited, in a record whose generation was that when it linked its clause: whether the number still stands
 * for the file that it waited for: 0 or -EBADF. And whether, as far as is known, a clause may be linked on: the lock is
 * held. Of what is adopted both are true: who adopted it has looked. */
int coir__fd_still_same(struct coir__fd *d, int fd, uint32_t generation);
bool coir__fd_may_go_on(const struct coir__fd *d, uint32_t generation);

/* Begins a new life: who still waits for the former one gets -EBADF. `bits`: COIR__FD_ADOPTED, _TCP, _SOCKET, _PIPE,
 * _FILE. */
void coir__fd_renew(struct coir__fd *d, uint64_t bits);

/* Adopts it in the midst of its life; and takes that back. */
void coir__fd_adopt(struct coir__fd *d, int fd, uint64_t bits);
void coir__fd_disown(struct coir__fd *d);

/* Ends a life, of which it tells those who waited: on return nobody will look the number up for a system call any more,
 * until coir__fd_retired, which is called when it is closed, with the life that the former has returned. */
uint64_t coir__fd_retire(struct coir__fd *d, int fd);
void coir__fd_retired(struct coir__fd *d, uint64_t life);

/* Keeps an error for the next reader of an adopted descriptor. Takes it: negative, or 0. */
void coir__fd_keep(struct coir__fd *d, uint64_t life, int error);
int coir__fd_take_kept(struct coir__fd *d);

#endif
