/* Every structure of the core, with who may touch which field when.
 *
 * Locking key: (c) constant after creation   (o) the owning worker only   (l) this->lock   (a) atomic, see the text
 *              (f) the fiber itself, or whoever runs it   (s) only while the runtime does not run */
#ifndef COIR_SRC_TYPES_H
#define COIR_SRC_TYPES_H

#include <pthread.h>

#include "atomic.h"
#include "coir.h"

#define COIR__LINE 64 /* bytes of a cache line */
#define COIR__WORKERS_MAX 64
#define COIR__NAME_MAX 24

struct coir__worker;
struct coir__thread;
struct coir__waiter;
struct coir__stack;

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

/* The claim word of a waiter: a number of the wait in the upper 44 bits, a code in the lower 20. It lives in the
 * fiber's descriptor (or the thread's record), whose memory never goes back, so a late party may always look: its
 * compare-and-swap from the open word of *its* wait fails when that wait is over. */
#define COIR__CODE_BITS 20
#define COIR__CODE_MASK ((UINT64_C(1) << COIR__CODE_BITS) - 1)
enum coir__code {
  COIR__CODE_IDLE = 0, /* does not wait */
  COIR__CODE_OPEN,     /* waits; anybody may claim it, cancellation too */
  COIR__CODE_SHIELDED, /* waits; cancellation may not claim it */
  COIR__CODE_TIMEOUT,  /* claimed by the deadline */
  COIR__CODE_CANCELED, /* claimed by cancellation */
  COIR__CODE_CLAUSE,   /* claimed by clause 0; clause i is COIR__CODE_CLAUSE + i */
};

/* Somebody who can wait: a fiber, or a plain thread. `word` decides who wakes it; `parked` and `note` see to it that
 * nobody runs it before it has left its stack (wait.c). */
struct coir__waiter {
  _Atomic(uint64_t) word;   /* (a) claim word */
  _Atomic(uint64_t) parked; /* (a) open word of the wait that it is parked for, written once it is off its stack */
  _Atomic(uint64_t) note;   /* (a) open word of the wait that was claimed before it was parked; who takes it wakes it */
  _Atomic(uint32_t) cancel; /* (a) bits: COIR__CANCEL_* */
  uint32_t is_thread;       /* (c) a struct coir__thread holds it; otherwise a struct coir_fiber */
};
#define COIR__CANCEL_ONCE 1u   /* asked for and not yet delivered */
#define COIR__CANCEL_ALWAYS 2u /* the runtime stops with COIR_STOP_CANCEL: delivered at every wait */

/* Why it waits, for dumps. One entry per kind of wait; do not reuse entries, add new ones. */
enum coir__reason {
  COIR__REASON_NONE = 0,
  COIR__REASON_SLEEP,
  COIR__REASON_JOIN,
  COIR__REASON_READ,
  COIR__REASON_WRITE,
  COIR__REASON_POLL,
  COIR__REASON_BLOCK,
  COIR__REASON_MAX,
};

/* Who waits on one object, in order of arrival. Part of the object; valid when zeroed. The lock may guard the rest of
 * the object too. */
struct coir__waitq {
  struct coir__lock lock;
  struct coir__clause *first, *last; /* (l) */
};

/* One thing that a wait waits for; in the waiter's frame, linked into the object's queue. Its memory may be touched
 * by others only under that queue's lock, and by the winner between its claim and its wake. */
struct coir__clause {
  struct coir__clause *next, *prev; /* (l) of q */
  struct coir__waitq *q;            /* (c) NULL: a timer's clause */
  struct coir__waiter *waiter;      /* (c) */
  uint64_t open;                    /* (c) the claim word to claim from */
  uint32_t code;                    /* (c) the code to claim with */
  uint32_t linked;                  /* (l) of q */
  struct coir__clause *sibling;     /* (f) next clause of the same wait */
};

/* A deadline. In the waiter's frame while it is armed. Timers are sorted into wheels, one per worker (timer.c). */
struct coir__timer {
  struct coir__timer *next, **link; /* (l) of home: list of its slot; link NULL when it is in none */
  int64_t deadline;                 /* (c) while armed */
  struct coir__timers *home;        /* (c) while armed */
  /* Called under the lock of home when the time has come. Claims, and returns the waiter to wake, or NULL. */
  struct coir__waiter *(*fire)(struct coir__timer *timer);
  struct coir__clause clause; /* what it claims; its list links are unused */
};

/* Hierarchical timing wheel (Varghese and Lauck, 1987): level k has 64 slots of 2^(16 + 6k) ns. Behind the levels one
 * more row holds what is due, sorted (timer.c). */
#define COIR__WHEEL_LEVELS 8
#define COIR__WHEEL_SHIFT 16
struct coir__timers {
  struct coir__lock lock;
  uint32_t count;                        /* (l) armed timers */
  _Atomic(int64_t) next;                 /* (a) written under lock: no timer fires before; COIR_NEVER: none armed */
  int64_t now;                           /* (l) ticks (deadline >> SHIFT) up to which slots are emptied */
  uint64_t used[COIR__WHEEL_LEVELS + 1]; /* (l) bit i: slot i holds timers */
  struct coir__timer *slots[(COIR__WHEEL_LEVELS + 1) * 64]; /* (l) */
};

/* ---- Fibers and stacks ----------------------------------------------------------------------------------------- */

/* A stack. The record is apart from the memory, so that unused stacks touch no page. */
struct coir__stack {
  struct coir__stack *next;    /* (o) link in a pool */
  char *low;                   /* (c) lowest usable byte */
  char *top;                   /* (a) by owner: where a fiber starts: high end less the colour; 16-byte aligned */
  size_t bytes;                /* (c) usable size: what coir_fiber_info.stack_bytes says */
  struct coir__region *region; /* (c) */
  struct coir_fiber *fiber;    /* (f) who runs on it; NULL while unused. For overflow reports. */
  uint8_t size_class;          /* (c) */
  uint8_t is_guarded;          /* (c) has a guard page; else only a canary */
  uint8_t is_used;             /* (o) has been run on since it was last trimmed */
  void *tsan;                  /* (f) ThreadSanitizer's context of the fiber on it */
  unsigned valgrind_id;        /* (c) */
  struct coir__stack *chain;   /* (l) of the depot: next magazine, in the first stack of one */
};

/* Bits of coir_fiber.b.flags. */
enum coir__fiber_flag {
  COIR__FIBER_BOUND = 1,     /* (c) runs on worker `home` only */
  COIR__FIBER_TARGETED = 2,  /* (f) first run on worker `home`; cleared then */
  COIR__FIBER_LANED = 4,     /* (c) high or low priority: queues in a lane of the runtime */
  COIR__FIBER_MIGRATE = 8,   /* (c) test aid: goes to another worker each time */
  COIR__FIBER_CANARY = 16,   /* (f) its stack has no guard page: check the canary when it is left */
  COIR__FIBER_NAMED = 32,    /* (f) name is set */
  COIR__FIBER_VALUED = 64,   /* (f) value is set */
  COIR__FIBER_DROPPED = 128, /* (s) coir__fibers_drop has it */
  /* does not simply queue in the ring */
  COIR__FIBER_SPECIAL = COIR__FIBER_BOUND | COIR__FIBER_TARGETED | COIR__FIBER_LANED | COIR__FIBER_MIGRATE,
  /* nor yields the short way */
  COIR__FIBER_SLOW = COIR__FIBER_SPECIAL | COIR__FIBER_CANARY
};

/* A fiber-local value, with the life of the key in which it was stored (local.c). */
struct coir__local {
  void *value;
  uint32_t life;
};

/* Bits of coir_fiber.ended. */
#define COIR__ENDED 1u    /* status and value are final */
#define COIR__DETACHED 2u /* nobody holds the handle */

/* A fiber. Three cache lines; the first two are what spawning and switching touch.
 *
 * Where a fiber is, and who owns it then:
 *   free        on a list of its slab owner                                entry is NULL
 *   new, ready  on exactly one of: next slot, ring, deque, bound list, inbox, injector    whoever takes it
 *   running     worker->current of one worker                              that worker
 *   parking     it published its wait and is still on its stack            its worker, until it has set waiter.parked
 *   waiting     waiter.parked == its open word                             who wins the claim word
 *   ended       ended has COIR__ENDED                                      the holder of the handle; detached: free */
struct coir_fiber {
  /* what a switch touches */
  _Alignas(COIR__LINE) struct coir__waiter waiter; /* first, so that a waiter that is no thread is a fiber */
  void *sp;                                        /* (f) where it stopped; NULL before it first runs */
  struct coir__fiber_bits {                        /* copied as a whole when a fiber is made */
    uint8_t flags;                                 /* (f) enum coir__fiber_flag */
    int8_t priority;                               /* (c) */
    uint16_t home;                                 /* (c) worker that it is bound to or targeted at */
    int16_t worker;                                /* (f) worker that it was suspended or begun on last; -1 none */
    uint16_t io_streak;                            /* (f) calls in a row that found their descriptor ready */
  } b;
  struct coir__stack *stack; /* (f) NULL before it first runs: the stack is bound then */
  int err;                   /* (f) errno while it is suspended */
  uint32_t stack_class;      /* (c) size class of the stack to bind */

  /* what its beginning and its end touch */
  _Atomic(coir_fn) entry;  /* (a) NULL in a free descriptor; set last when one is made */
  void *arg;               /* (c) */
  struct coir__waitq exit; /* who waits for its end */
  _Atomic(uint32_t) ended; /* (a) bits COIR__ENDED, COIR__DETACHED; written under exit.lock */
  int status;              /* (f) */
  uint64_t id;             /* (c) */
  struct coir_runtime *rt; /* (c) for all its lives */

  /* the rest; name and value count only with their flags */
  struct coir_fiber *next;    /* (l) of the list that it is on: inbox, lane, bound list */
  struct coir__local *locals; /* (f) COIR_KEYS_MAX values, or NULL */
  struct coir__wait *wait;    /* (f) the wait it is in, else NULL; for dropping it where it is */
  _Atomic(uint64_t) waits_on; /* (a) object << 8 | enum coir__reason, for dumps */
  void *value;                /* (f) */
  char name[COIR__NAME_MAX];  /* (f) written by the fiber, read by dumps */
};

/* An OS thread that Coir knows: it carries a worker, or waits on Coir's objects. Records are never freed; a thread
 * that ends gives its record back for the next. */
struct coir__thread {
  struct coir__waiter waiter;  /* for waits of the plain thread */
  struct coir__worker *worker; /* the worker that it carries, or NULL */
  void *idle_sp;               /* where its own stack stopped while it runs fibers */
  int *errno_location;         /* (c) of this thread */
  _Atomic(uint32_t) futex;     /* (a) what it sleeps on as a plain waiter */
  _Atomic(uint64_t) waits_on;  /* (a) as in a fiber */
  struct coir__local *locals;  /* values of a plain thread */
  void *tsan;                  /* ThreadSanitizer's context of the thread itself */
  const void *asan_low;        /* bounds of the thread's own stack, for AddressSanitizer */
  size_t asan_bytes;
  void *alt_stack; /* alternate signal stack, for overflow reports */
  struct coir__thread *next_free;
};

/* ---- Queues ---------------------------------------------------------------------------------------------------- */

/* Storage of a ring or deque: a power of two of slots. Grown by its owner; old ones stay until the runtime does not
 * run, so that a thief may still read them. */
struct coir__ring {
  uint64_t mask;            /* (c) */
  struct coir__ring *older; /* (c) the one that this replaced */
  _Atomic(struct coir_fiber *) slots[];
};

/* What a worker has ready. Written by its owner without any locked instruction; runq.c says how thieves get in. */
struct coir__runq {
  /* the owner's line */
  _Atomic(uint32_t) busy;             /* (a) the owner is inside a plain pop */
  uint32_t next_runs;                 /* (o) dispatches from the next slot in a row */
  _Atomic(struct coir_fiber *) next;  /* (a) just woken: runs next */
  _Atomic(uint64_t) head;             /* (a) oldest in ring */
  _Atomic(uint64_t) tail;             /* (a) written by the owner */
  _Atomic(struct coir__ring *) ring;  /* (a) written by the owner */
  _Atomic(uint64_t) bottom;           /* (a) deque: written by the owner */
  _Atomic(struct coir__ring *) deque; /* (a) written by the owner */
  /* the thieves' line */
  _Alignas(
      COIR__LINE) _Atomic(uint32_t) thieves; /* (a) thieves inside; while not 0 the owner pops by compare-and-swap */
  _Atomic(uint64_t) top;                     /* (a) deque: oldest */
};

/* A first-in-first-out list by coir_fiber.next. */
struct coir__list {
  struct coir_fiber *head, *tail;
  uint64_t count;
};

/* What comes from outside the workers, and what overflows: one lane per priority, in the order high, normal, low. */
#define COIR__LANES 3
struct coir__lane {
  struct coir__lock lock;
  struct coir__list list;  /* (l) */
  _Atomic(uint64_t) count; /* (a) written under lock: list.count */
};

/* ---- Worker, runtime ------------------------------------------------------------------------------------------- */

/* What is left to do for the fiber that was switched away from, by whoever runs next on that worker. */
enum coir__after { COIR__AFTER_NOTHING = 0, COIR__AFTER_YIELD, COIR__AFTER_PARK, COIR__AFTER_EXIT };

/* Numbers that only one worker writes. */
struct coir__counts {
  _Atomic(uint64_t) spawned, ended, switches, parks, wakes, steals_attempted, steals, rebalances_attempted, rebalanced,
      sleeps, polls, io_events, timers_fired;
};

/* Free stacks of one size. */
struct coir__stack_pool {
  struct coir__stack *hot; /* (o) most recently used first */
  _Atomic(uint32_t) count; /* (a) written by the owner */
};
#define COIR__STACK_CLASSES 18 /* 16 KiB << class, up to 1 GiB with room */

/* The scheduling half of a running thread: queues, poller, timers, caches. It is not its thread: another thread may
 * come to carry it while its fiber holds the first one up. So nothing here may depend on who runs it, and code on a
 * fiber must ask for its worker anew after everything that can suspend. */
struct coir__worker {
  /* the dispatch line */
  struct coir__thread *thread; /* (o) who carries it */
  int *errno_location;         /* (o) that thread's */
  struct coir_fiber *current;  /* (o) what it runs; NULL: the thread's own stack */
  struct coir__stack *dead;    /* (o) the stack of the fiber that just ended */
  struct coir_fiber *prev;     /* (o) the fiber just switched away from */
  uint32_t after;              /* (o) enum coir__after, for prev */
  uint32_t tick;               /* (o) dispatches left until the loop looks around; counts down to 0 */
  _Atomic(uint32_t) attention; /* (a) others ask for a look at the inbox, the lanes, or the phase */
  uint32_t extra;              /* (o) deque or bound list may hold something, or fences are real: no short cuts */
  uint32_t index;              /* (c) */
  struct coir_runtime *rt;     /* (c) */

  _Alignas(COIR__LINE) struct coir__runq q;

  _Alignas(COIR__LINE) struct coir__list bound;  /* (o) ready fibers that may not leave this worker */
  struct coir__magazine *fibers, *fibers_before; /* (o) descriptors at hand: the loaded magazine, and the one before */
  struct coir__stack *spare;                     /* (o) of the standard class: the stack that was used last, or NULL */
  uint32_t rng;                                  /* (o) xorshift state */
  uint32_t searching;                            /* (o) it is counted in rt->searching */
  uint32_t futile;                               /* (o) rounds in a row that saw work and got none */
  uint32_t rounds;                               /* (o) times that the loop looked around */
  uint32_t empty_yields;                         /* (o) ticks since the last look that dispatched nothing */
  uint32_t turn;                                 /* (o) whose turn it is in coir__runq_pop_extra */
  uint32_t tick_limit;                           /* (o) what tick starts from: see worker.c */
  int64_t looked_at;                             /* (o) when the loop last looked around */
  int64_t polled_at;                             /* (o) when it last looked at its poller */
  uint64_t id_next, id_end;                      /* (o) numbers reserved for fibers spawned here */
  struct coir__counts counts;
  struct coir__stack_pool stacks[COIR__STACK_CLASSES]; /* (o) */
  uint32_t colour;                                     /* (o) next stack colour */
  int64_t watch_ns;                                    /* (o) sleep of the watcher, doubling (idle.c) */
  _Atomic(uint32_t) pace_ns;                 /* (a) written by the owner: time per dispatch in its last round */
  bool slept;                                /* (o) since it last ran a fiber */
  bool was_brief;                            /* (o) it has slept briefly since it last ran a fiber */
  bool summoned;                             /* (o) an announcer woke it to search */
  bool retired;                              /* (o) it was the watcher, and all is quiet since */
  uint64_t seen_total;                       /* (o) switches of all workers when the watcher looked last */
  bool is_watcher;                           /* (o) */
  bool stale;                                /* (o) the watcher slept: lone fibers may be taken now */
  uint64_t seen_switches[COIR__WORKERS_MAX]; /* (o) what the watcher saw of each worker last time */
  void *memory;                              /* (c) the allocation that it lies in */
  pthread_t pthread;                         /* (s) */

  _Alignas(COIR__LINE) _Atomic(struct coir_fiber *) inbox; /* (a) what others send, newest first */
  _Atomic(uint32_t) sleeping;                              /* (a) futex word where it has no poller of its own */

  struct coir__poller *poller; /* (c) its own, or that of its partition */
  struct coir__timers timers;
};

enum coir__phase { COIR__PHASE_OFF = 0, COIR__PHASE_STARTING, COIR__PHASE_RUN, COIR__PHASE_SERVE, COIR__PHASE_HALT };

/* A thread that does nothing but wait in a poller. */
struct coir__poller_thread {
  pthread_t pthread;
  struct coir_runtime *rt;
  struct coir__poller *poller;
};

/* Free descriptors, as an array: looking ahead in it touches none of them. 1 KiB. */
#define COIR__MAGAZINE_MAX 126
struct coir__magazine {
  struct coir__magazine *next; /* (l) of the depot */
  uint64_t count;
  struct coir_fiber *fibers[COIR__MAGAZINE_MAX];
};

/* A slab of fiber descriptors. */
struct coir__slab {
  struct coir__slab *next;
  size_t bytes;   /* of the mapping */
  uint32_t count; /* descriptors in it */
  struct coir_fiber fibers[];
};

/* coir_tuning, in words that may change at any time; read relaxed, one by one. */
struct coir__tuned {
  _Atomic(int) steal, steal_min_live, steal_min_victim, affinity, rebalance, rebalance_threshold, rebalance_interval_ms;
};

struct coir_runtime {
  struct coir_config config;          /* (c) with every default filled in */
  struct coir__tuned tuned;           /* (a) what may change while it runs */
  int stack_class;                    /* (c) of config.stack_bytes */
  struct coir__fiber_bits fiber_bits; /* (c) what every fiber starts with */
  int worker_count;                   /* (c) */
  int poller_count;                   /* (c) dedicated poller threads; 0: one poller per worker */
  struct coir__worker **workers;      /* (c) */
  struct coir__poller **pollers;      /* (c) */

  /* idle.c */
  _Alignas(COIR__LINE) _Atomic(uint64_t) idle_mask; /* (a) bit i: worker i sleeps or is about to */
  _Atomic(uint32_t) searching;                      /* (a) workers that look for work */
  _Atomic(uint32_t) deep;                           /* (a) workers that sleep without limit, or are about to */
  _Atomic(uint32_t) watching;                       /* (a) an idle worker looks now and then after lone fibers */
  _Atomic(uint32_t) phase;                          /* (a) enum coir__phase */
  _Atomic(uint32_t) cancel_all;                     /* (a) COIR_STOP_CANCEL was asked for */

  _Alignas(COIR__LINE) struct coir__lane lanes[COIR__LANES];
  _Atomic(uint64_t) spawned_outside;          /* (a) fibers spawned by plain threads */
  _Atomic(uint64_t) dropped;                  /* (a) fibers that coir__fibers_drop ended */
  _Atomic(uint64_t) injected, injected_taken; /* (a) fibers put into lanes, and taken from them */
  _Atomic(uint64_t) polls, io_events;         /* (a) of the poller threads */
  _Atomic(uint64_t) wakes_outside; /* (a) fibers made ready by threads that carry no worker of this runtime */
  _Atomic(uint32_t) visitors;      /* (a) such threads that are at it; the runtime is not freed before it is 0 */
  _Atomic(uint32_t) fence_ns;      /* (a) what a heavy fence costs a thief: a moving average */
  _Atomic(uint32_t) forked;        /* (a) in the child of a fork: dead */
  _Atomic(int64_t) rebalance_at;   /* (a) when the next look at the balance is due */

  /* slab.c */
  struct coir__lock slab_lock;
  _Atomic(struct coir__slab *) slabs;   /* (a) only ever prepended, under slab_lock */
  struct coir__magazine *full, *empty;  /* (l) slab_lock: the depot */
  struct coir_fiber *fresh, *fresh_end; /* (l) slab_lock: never used yet, of the newest slab */

  /* stack.c */
  struct coir__depot *depot;

  pthread_mutex_t control;                    /* start, stop, run, destroy; not taken by workers, but for `ended` */
  pthread_cond_t ended;                       /* with control: somebody waits in coir_runtime_stop for the last fiber */
  bool stopping;                              /* (l) control */
  bool serving;                               /* (l) control: coir_runtime_start started it */
  _Atomic(uint32_t) watched;                  /* (a) coir_runtime_stop wants to know when no fiber is left */
  struct coir__poller_thread *poller_threads; /* (s) */
  struct coir_runtime *next;                  /* (l) runtimes_lock: all of them, for fork */
};

_Static_assert(offsetof(struct coir_fiber, entry) == COIR__LINE, "a switch touches one line of a fiber");
_Static_assert(sizeof(struct coir_fiber) == 3 * COIR__LINE, "a fiber descriptor is small");

#endif
