/* Every structure of the core, with who may touch which field when.
 *
 * Locking key: (c) constant after creation   (o) the owning worker only   (l) this->lock   (a) atomic, see the text
 *              (f) the fiber itself, or whoever runs it   (s) only while the runtime does not run */
#ifndef COIR_SRC_TYPES_H
#define COIR_SRC_TYPES_H

#include <pthread.h>

#include "atomic.h"
#include "coir.h"
#if defined(COIR_TRACE)
#include "coir_trace.h"
#endif

#define COIR__LINE 64 /* bytes of a cache line */

#if defined(COIR_HARD) && !defined(COIR_EXPLORE)
#define COIR__ROUGH 1 /* hard mode is more than tiny limits (hard.c) */
#endif
#define COIR__WORKERS_MAX 64
#define COIR__NAME_MAX 24

struct coir__worker;
struct coir__thread;
struct coir__extra;
struct coir__post;
struct coir__waiter;
struct coir__stack;
struct coir__stalls;
struct coir__sim;

/* A structure that lies in memory which a public header declares as plain words. */
#define COIR__OVERLAY __attribute__((may_alias))

/* Registers by DWARF's numbers, as far as unwinding needs them, and where it goes on. */
#if defined(__x86_64__)
#define COIR__CTX_REGISTERS 17 /* 16: the return address */
#define COIR__CTX_SP 7
#elif defined(__aarch64__)
#define COIR__CTX_REGISTERS 32
#define COIR__CTX_SP 31
#else
#define COIR__CTX_REGISTERS 1
#define COIR__CTX_SP 0
#endif
struct coir__ctx_registers {
  uintptr_t pc;
  uintptr_t r[COIR__CTX_REGISTERS];
};

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

/* The claim word of a waiter: a number of the wait in the upper 44 bits, a code in the lower 20. It lives in the
 * fiber's descriptor (or the thread's record), whose memory never goes back, so a late party may always look: its
 * compare-and-swap from the open word of *its* wait fails when that wait is over. */
#define COIR__CODE_BITS 20
#define COIR__CODE_MASK ((UINT64_C(1) << COIR__CODE_BITS) - 1)
enum coir__code {
  COIR__CODE_IDLE = 0, /* does not wait */
  COIR__CODE_OPEN,     /* waits; anybody may claim it, cancellation too */
  COIR__CODE_RELAY,    /* waits; cancellation claims it to say that it is pending, and the waiter passes it on */
  COIR__CODE_SHIELDED, /* waits; cancellation may not claim it */
  COIR__CODE_BOUND,    /* waits for a thread that works on its frame: nobody else may claim it, or drop the fiber */
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
  _Atomic(uint32_t) cancel; /* (a) COIR__CANCEL_* */
  uint8_t is_thread;        /* (c) a struct coir__thread holds it; otherwise a struct coir_fiber */
  uint8_t holds;            /* (f) how many times it holds its worker (carry.c) */
  uint16_t shield;          /* (f) how many shields are up: waits are begun shielded */
};
#define COIR__CANCEL_ONCE 1u   /* asked for and not yet delivered */
#define COIR__CANCEL_ALWAYS 2u /* the runtime stops with COIR_STOP_CANCEL: delivered at every wait */
/* In the bits above: asked for and not yet delivered because a scope was cancelled that the waiter itself has opened;
 * which one of those, counted from 1, outermost first. Of several the outermost. It is over when that one closes. */
#define COIR__CANCEL_BODY(depth) ((uint32_t)(depth) << 8)
#define COIR__CANCEL_DEPTH_MAX 0xffffff

/* Why it waits, for dumps. One entry per kind of wait; do not reuse entries, add new ones. */
enum coir__reason {
  COIR__REASON_NONE = 0,
  COIR__REASON_SLEEP,
  COIR__REASON_JOIN,
  COIR__REASON_READ,
  COIR__REASON_WRITE,
  COIR__REASON_POLL,
  COIR__REASON_BLOCK,
  COIR__REASON_SEND,
  COIR__REASON_RECV,
  COIR__REASON_SELECT,
  COIR__REASON_SELECT_IO, /* a select with a descriptor among its arms */
  COIR__REASON_MUTEX,
  COIR__REASON_RWLOCK,
  COIR__REASON_COND,
  COIR__REASON_SEM,
  COIR__REASON_WAIT_GROUP,
  COIR__REASON_EVENT,
  COIR__REASON_ONCE,
  COIR__REASON_BARRIER,
  COIR__REASON_FLIGHT,
  COIR__REASON_SCOPE,
  COIR__REASON_RESUME, /* a generator's next value */
  COIR__REASON_YIELD,  /* a generator: to be resumed */
  COIR__REASON_AWAY,   /* for nothing: its worker was taken away, and it runs on a thread of its own */
  COIR__REASON_COUNTER,
  COIR__REASON_FORK,   /* the other side, which another worker has taken */
  COIR__REASON_STOP,   /* coir_runtime_stop: the end of all fibers */
  COIR__REASON_MAX,
};

/* A lock that comes to lean towards the one worker that uses it, and then costs that worker no locked instruction
 * (bias.c). Valid when zeroed. Never held across a switch, a system call that can block, a call of user code, or
 * another lock of this kind. */
#define COIR__BIAS_OWNED 0x8000u  /* of owner: the worker with the slot in the other bits has it */
#define COIR__BIAS_NOBODY 0xffffu /* never in owner: what a worker without a slot looks for */
struct coir__bias {
  struct coir__lock lock;
  _Atomic(uint16_t) owner; /* (a) written under lock: who used it last, or has it (COIR__BIAS_OWNED) */
  uint16_t uses;           /* (l) of who used it last, in a row */
};

/* Those who wait on one object, in order of arrival. */
struct coir__waitlist {
  _Atomic(struct coir__clause *) first; /* (a) written under the lock of the object */
  struct coir__clause *last;            /* (l) */
};

/* The same with its lock, which may guard the rest of the object too. Part of the object; valid when zeroed. */
struct coir__waitq {
  struct coir__bias lock;
  struct coir__waitlist list; /* (l) */
};

/* One thing that a wait waits for; in the waiter's frame, linked into the object's queue. Its memory may be touched
 * by others only under that object's lock, and by the winner between its claim and its wake. */
struct coir__clause {
  struct coir__clause *next, *prev; /* (l) */
  struct coir__waitlist *list;      /* (c) where it is linked */
  struct coir__bias *lock;          /* (c) guards that list: (l) */
  struct coir__waiter *waiter;      /* (c) */
  uint64_t open;                    /* (c) the claim word to claim from */
  uint32_t code;                    /* (c) the code to claim with */
  uint32_t linked;                  /* (l) */
  struct coir__clause *sibling;     /* (f) next clause of the same wait */
};

/* The clause of somebody who waits to send or receive (chan.c, select.c). Filled in by the winner before it wakes. */
struct coir__chan_clause {
  struct coir__clause clause;
  void *slot; /* (c) the value to send; where to receive to, or NULL */
  int result; /* what the call returns */
};

/* The clause of somebody who waits for a descriptor (poll.c, select.c). */
struct coir__fd_clause {
  struct coir__clause clause;
  uint32_t events; /* (c) what it waits for */
  uint32_t closed; /* by the winner: its life is over */
};

/* A deadline. In the waiter's frame while it is armed. Timers are sorted into wheels, one per worker (timer.c). */
struct coir__timer {
  struct coir__timer *next, **link; /* (l) of home: list of its slot; link NULL when it is in none */
  int64_t deadline;                 /* (c) while armed */
  _Atomic(struct coir__timers *) home; /* (a) the wheel; of an alarm NULL when it is neither armed nor running */
  /* Called under the lock of home when the time has come. Claims, and returns the waiter to wake, or NULL. */
  struct coir__waiter *(*fire)(struct coir__timer *timer);
  struct coir__waiter *waiter; /* (c) whose wait `fire` claims, from which word */
  uint64_t open;
};

/* A timer that does more than wake a waiter: `run` is called by the worker whose wheel it is in, on the thread's own
 * stack with no lock held; it returns when it is to come again, or COIR_NEVER, and must not wait. Its owner sees to it
 * that no two threads arm or cancel it at once. */
struct coir__alarm {
  struct coir__timer timer;
  int64_t (*run)(struct coir__alarm *alarm, struct coir__worker *w, int64_t now); /* (c) */
  _Atomic(uint64_t) life;    /* (a) of the process in which it was armed last (timer.c); 0: never */
  _Atomic(uint64_t) running; /* (a) not 0: set under the lock of home when it comes; cleared when `run` has
                                returned, and it is armed again, if it is to come again */
};

/* Hierarchical timing wheel (Varghese and Lauck, 1987): level k has two rows of 64 slots of 2^(16 + 6k) ns.
 * Behind the levels one more row holds what is due, sorted (timer.c). */
#define COIR__WHEEL_LEVELS 8
#define COIR__WHEEL_ROWS (2 * COIR__WHEEL_LEVELS + 1)
#define COIR__WHEEL_SHIFT 16
struct coir__timers {
  struct coir__bias lock;
  struct coir__timer *alarms;      /* (l) that have come and have not been run, by next, latest first */
  uint32_t count;                  /* (l) armed timers */
  int32_t review;                  /* (l) so many more arms, and the next one asks for a look */
  _Atomic(int64_t) next;           /* (a) written under lock: nothing to do before; COIR_NEVER: none armed */
  int64_t now;                     /* (l) ticks (deadline >> SHIFT) up to which slots are emptied */
  uint64_t used[COIR__WHEEL_ROWS]; /* (l) bit i: slot i holds timers */
  struct coir__timer *slots[COIR__WHEEL_ROWS * 64]; /* (l) */
};

/* ---- Fibers and stacks ----------------------------------------------------------------------------------------- */

/* Who has a stack of his own within a fiber (raw.c). */
struct coir__raw {
  struct coir__stack *outer;           /* the one below it */
  void (*drop)(struct coir__raw *raw); /* the fiber is dropped, and was on that stack, which is free afterwards */
};

/* That others wait for a function to return; in the frame of who calls it. */
struct coir__debt {
  struct coir__debt *outer;                 /* the next one on the same stack */
  void (*forgive)(struct coir__debt *debt); /* it will never return */
};

/* A stack. The record is apart from the memory, so that unused stacks touch no page. */
struct coir__stack {
  struct coir__stack *next;    /* (o) link in a pool */
  char *low;                   /* (c) lowest usable byte */
  char *top;                   /* (a) by owner: where a fiber starts: high end less the colour; 16-byte aligned */
  size_t bytes;                /* (c) usable size: what coir_fiber_info.stack_bytes says */
  struct coir__region *region; /* (c) */
  struct coir_fiber *fiber;    /* (f) who runs on it; NULL while unused. For overflow reports. */
  struct coir__thread *thread; /* (f) of a fiber that is paused: where it goes on */
  uint8_t size_class;          /* (c) */
  uint8_t is_guarded;          /* (c) has a guard page; else only a canary */
  uint8_t is_used;             /* (o) has been run on since it was last trimmed */
  struct coir__debt *owes;     /* (f) functions on it that others wait for, by coir_once_do and coir_flight_do */
  struct coir__nest *nest;     /* (f) forks and job boundaries of the fiber on it, innermost first (job.h); or NULL */
  struct coir__raw *raw;       /* (c) while it is used: whose it is, within the fiber; NULL: the fiber's own */
  void *tsan;                  /* (f) ThreadSanitizer's context of the fiber on it */
  uint32_t tsan_lives;         /* (f) how many fibers have had that */
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

/* Bits of coir_fiber.b.more. */
#define COIR__MORE_KIN 1u    /* (f) the fourth line counts */
#define COIR__MORE_LOCALS 2u /* (f) locals is not NULL: so that an end need not touch the third line to know */
#define COIR__MORE_VOID 4u   /* (c) entry is a void (*)(void *) */
#define COIR__MORE_AWAY 8u   /* (f) on a thread that carries no worker (carry.c) */
#define COIR__MORE_PREEMPT 16u /* (c) it may be paused (preempt.c) */
#define COIR__MORE_PAUSED 32u /* (f) it is, for dumps */
#define COIR__MORE_KEEPS 64u /* (f) its waits leave cancellations pending (coir__cancel_keep) */

/* A fiber. Four cache lines; the first two are what spawning and switching touch.
 *
 * Where a fiber is, and who owns it then:
 *   free        on a list of its slab owner                                entry is NULL
 *   new, ready  on exactly one of: next slot, ring, deque, bound list, inbox, injector    whoever takes it
 *   running     worker->current of one worker                              that worker
 *   parking     it published its wait and is still on its stack            its worker, until it has set waiter.parked
 *   waiting     waiter.parked == its open word                             who wins the claim word
 *   away        thread->away of a thread that carries no worker            that thread (carry.c)
 *   paused      away, and ready: sp is NULL, stack is not                  that thread; its turn: whoever takes it
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
    uint8_t streak;                                /* (f) calls in a row that did not have to wait */
    uint8_t more;                                  /* (f) COIR__MORE_* */
  } b;
  struct coir__stack *stack; /* (f) NULL before it first runs: it is bound then. Where it stands: its own, or raw.c's */
  int err;                   /* (f) errno while it is suspended */
  union {
    uint32_t stack_class; /* (c) size class of the stack to bind; once it is bound: */
    uint32_t ran_at;      /* (f) when it was dispatched last: its worker's look_tick */
  };

  /* what its beginning and its end touch */
  _Atomic(coir_fn) entry;  /* (a) NULL in a free descriptor; set last when one is made */
  void *arg;               /* (c) */
  struct coir__waitq exit; /* who waits for its end */
  _Atomic(uint32_t) ended; /* (a) bits COIR__ENDED, COIR__DETACHED; written under exit.lock */
  int status;              /* (f) */
  uint64_t id;             /* (c) */
  struct coir_runtime *rt; /* (c) for all its lives */

  /* the rest; the name counts only with its flag */
  struct coir_fiber *next;    /* (l) of the list that it is on: inbox, lane, bound list */
  struct coir__local *locals; /* (f) COIR_KEYS_MAX values, or NULL */
  struct coir__wait *wait;    /* (f) the wait it is in, else NULL; for dropping it where it is */
  _Atomic(uint64_t) waits_on; /* (a) object << 8 | enum coir__reason, for dumps */
  _Atomic(int64_t) since;     /* (a) since when, for dumps: the clock as its worker read it last */
  char name[COIR__NAME_MAX];  /* (f) written by the fiber, read by dumps */

  /* whom it belongs to: counts only with COIR__MORE_KIN; value only with its flag */
  void (*on_end)(struct coir_fiber *f);          /* (c) called at its end, by the fiber or by who drops it; or NULL */
  void *kin;                                     /* (c) for on_end: its scope, its generator */
  struct coir_scope *scope;                      /* (f) innermost scope that it is in, or NULL */
  struct coir_fiber *sibling_next, *sibling_prev; /* (l) of its scope: the scope's fibers */
  struct coir_gen *gen;                          /* (c) the generator that it is, or NULL */
  void *value;                                   /* (f) */
  void (*on_ended)(void *kin); /* (c) called with `kin` when the fiber has ended altogether, and is gone; or NULL */
};

/* What the C++ runtime knows of a thread: the exceptions whose handlers it is in, innermost first, and how many are on
 * their way to theirs. The layout is that of the Itanium C++ ABI, "Exception Handling", 2.2.2. It belongs to the fiber
 * that runs there: see suspend() (fiber.c). */
struct coir__thrown {
  void *caught;
  unsigned uncaught;
#if defined(__ARM_EABI__)
  void *propagating;
#endif
};

/* Which handler of a signal, of the program's, is being called on a thread (os/linux_pause.c). Counts only in the midst
 * of that: a handler may leave by longjmp. */
struct coir__pause_chain {
  const void *now;
  int signo;
};

/* An OS thread that Coir knows: it carries a worker, or waits on Coir's objects. Records are never freed; a thread
 * that ends gives its record back for the next. */
struct coir__thread {
  struct coir__waiter waiter;  /* for waits of the plain thread */
  _Atomic(struct coir__worker *) worker; /* (a) the worker that it carries, or NULL; changed under `owner` (carry.c) */
  void *idle_sp;               /* where its own stack stopped while it runs fibers */
  int *errno_location;         /* (c) of this thread */
  struct coir__thrown *thrown; /* (c) of this thread; of what never throws: always zero */
  _Atomic(uint32_t) in;        /* (a) written by the thread: it is inside the library, and may be using its worker; or
                                  COIR__IN_SIMULATED */
  struct coir__lock owner;     /* held by who takes the worker away, gives one, or by the thread that gives it up */
  _Atomic(uint32_t) futex;     /* (a) what it sleeps on as a plain waiter */
  _Atomic(uint64_t) waits_on;  /* (a) as in a fiber */
  struct coir__local *locals;  /* values of a plain thread */
  struct coir_scope *scope;    /* innermost scope that the plain thread is in, or NULL */
  bool keeps_cancel;           /* waits of the plain thread leave cancellations pending (coir__cancel_keep) */
  uint32_t rng;                /* xorshift state for selects of the plain thread */
  struct coir__nest *nest;     /* the same for the plain thread */
  struct coir__debt *owes;     /* likewise */
  void *tsan;                  /* ThreadSanitizer's context of the thread itself */
  const void *asan_low;        /* bounds of the thread's own stack, for AddressSanitizer */
  size_t asan_bytes;
  void *alt_stack; /* alternate signal stack, for overflow reports */
  struct coir_fiber *away; /* the fiber that runs here alone, its worker being gone; or NULL. Means something only while
                              worker is NULL (carry.c) */
  void *away_sp;           /* where it stopped, once it has left */
  bool is_taken;           /* of those: its worker was taken away; it has not given it */
  uint32_t away_depth;     /* how many more times it entered coir_block_enter */
  _Atomic(uint32_t) paused; /* (a) written under owner: enum coir__paused */
  _Atomic(uint32_t) is_parked; /* (a) and it waits for its turn */
  _Atomic(uint32_t) asked;     /* (a) enum coir__asked: where it stands; and futex word */
  struct coir__ctx_registers stands; /* where the signal met it, by its handler; while it is parked, or ASKED_STANDS */
  int64_t cpu_seen;            /* its processor time when the monitor first saw it alone; 0: not yet. Or when its turn
                                  came, once it has a worker again */
  struct coir__thread *wakes;  /* (o) whom it has given its worker, and is to wake when it has become a spare */
  int64_t turn_ns;             /* the monitor's: what the fiber `turn_of` had of its quantum when it was paused early */
  uint64_t turn_of;
  _Atomic(uint32_t) carries;   /* (a) written by the thread: it is in coir__carry, now and then it has a worker */
  _Atomic(int64_t) sent_at;    /* (a) when a signal was sent to it that has not come yet; 0: none */
  int opened_signal;           /* by which it is paused, if it was blocked before it came to carry workers; else 0 */
  struct coir__pause_chain pause_chain;
  _Atomic(struct coir__worker *) heir_to; /* (a) of a spare: what it is to carry */
  struct coir__thread *next_spare; /* (l) of the runtime's spare_lock */
  struct coir__post *post; /* (c) of the thread of a poller: the one that it looks after; else NULL */
  _Atomic(uint64_t) asleep; /* (a) while it sleeps until others wake it: the number of its wait, or COIR__ASLEEP_STOP;
                               else 0. Changed by coir__thread_sleep_begin and _end */
  _Atomic(int64_t) since;   /* (a) since when, for dumps */
  _Atomic(int) tid;         /* (a) what the system calls it, for dumps */
  bool is_own;              /* (c) by its thread, at its beginning: Coir has started that */
  bool tells;               /* of one that is in coir__carry: the program is told which worker it carries */
  struct coir__thread *next; /* (c) of all records */
  struct coir__thread *next_free;
#if defined(COIR__ROUGH)
  uint32_t hard; /* (o) state of its chances; 0: none was drawn (hard.c) */
#endif
};

/* Outside, and each call of the library is a point at which others may run (sim.c). */
#define COIR__IN_SIMULATED 2u
#define COIR__IN_UNKNOWN 3u /* never in it: what a thread without a record has been */

/* COIR__PAUSED: the fiber has been preempted, and is in the lane, or has just been taken out for its turn (preempt.c).
 * COIR__PAUSED_LET_ON: the latter, and it runs on up to its next call, since who took it takes long. */
enum coir__paused { COIR__PAUSED = 1, COIR__PAUSED_LET_ON };

enum coir__asked { COIR__ASKED_NOT = 0, COIR__ASKED_WHERE, COIR__ASKED_STANDS };
#define COIR__ASLEEP_STOP 1 /* in coir_runtime_stop, for the end of all fibers */

/* ---- Queues ---------------------------------------------------------------------------------------------------- */

/* Work that has no fiber before somebody comes to run it: jobs, and the sides of forks. It queues in the deque as a
 * tagged pointer. `bind` is called by the worker that has taken it, and returns the fiber that is to run it; NULL when
 * memory is short: then it has been put back. */
#define COIR__LEAN_JOB 1u  /* the tag of a job */
#define COIR__LEAN_FORK 2u /* the tag of a fork */
#define COIR__LEAN_MASK 3u
struct coir__lean {
  struct coir_fiber *(*bind)(struct coir__worker *w, struct coir__lean *lean); /* (c) */
};

/* Storage of a ring or deque: a power of two of slots. Grown by its owner; old ones stay until the runtime does not
 * run, so that a thief may still read them. */
struct coir__ring {
  uint64_t mask;            /* (c) */
  uint64_t bytes;           /* (c) the mask of where a slot lies */
  struct coir__ring *older; /* (c) the one that this replaced */
  _Atomic(struct coir_fiber *) slots[];
};

/* What a worker has ready. Written by its owner without any locked instruction; runq.c says how thieves get in. */
struct coir__runq {
  /* the owner's line */
  _Atomic(uint32_t) busy;             /* (a) the owner is inside a plain pop */
  uint32_t next_runs;                 /* (o) dispatches from the next slot in a row */
  _Atomic(struct coir_fiber *) next;  /* (a) just woken: runs next */
  _Atomic(uint64_t) head;             /* (a) oldest in ring, in COIR__RING_ONE, and the gap behind it (runq.h) */
  _Atomic(uint64_t) tail;             /* (a) written by the owner; in COIR__RING_ONE */
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

/* What comes from outside the workers, and what overflows: one lane per priority, in the order high, normal, low. And
 * one for those that have been preempted. */
#define COIR__LANES 4
#define COIR__LANE_PAUSED 3
struct coir__lane {
  struct coir__lock lock;
  struct coir__list list;  /* (l) */
  _Atomic(uint64_t) count; /* (a) written under lock: list.count */
};

/* ---- Worker, runtime ------------------------------------------------------------------------------------------- */

#define COIR__LOOK_SHIFT 16 /* 65 us: 31 bits of it last for 39 hours */

/* What is left to do for the fiber that was switched away from, by whoever runs next on that worker. */
enum coir__after {
  COIR__AFTER_NOTHING = 0,
  COIR__AFTER_YIELD,
  COIR__AFTER_ROTATE, /* it has yielded to the oldest of the ring, and has nothing special about it */
  COIR__AFTER_PARK,
  COIR__AFTER_EXIT
};

/* Numbers that only one worker writes. */
struct coir__counts {
  _Atomic(uint64_t) spawned, ended;
  _Atomic(uint64_t) suspended, resumed; /* generators: see coir__live */
  _Atomic(uint64_t) switches, parks, wakes, steals_attempted, steal_hits, steals, rebalances_attempted, rebalance_hits,
      rebalanced, steals_lost, sleeps, polls, io_events, timers_fired, handoffs;
};

/* Free stacks of one size. */
struct coir__stack_pool {
  struct coir__stack *hot; /* (o) most recently used first */
  _Atomic(uint32_t) count; /* (a) written by the owner */
};
#define COIR__STACK_CLASSES 18 /* 16 KiB << class, up to 1 GiB with room */

/* What the monitor saw of a worker when it looked last (monitor.c). */
struct coir__watch {
  const struct coir_fiber *current;
  int64_t looked_at;
  uint32_t tick;
  bool is_helpless; /* it is jammed, and the valve is open for it */
  bool is_unsure;   /* nobody could say whether it waits */
  uint32_t jams;    /* looks in a row at which it was stuck, and could not be taken away; */
  int64_t jam_since, jam_cpu; /* time, and its clock, at the first of them */
  int asks;        /* looks since which a thread is awaited */
  bool is_told;    /* this stall has been counted, and told of; the worker is still in it */
  int64_t at;      /* when that was */
  int64_t since;   /* it has been so since then */
  struct coir__thread *cpu_thread; /* whose clock was `cpu` at `cpu_at` */
  int64_t cpu, cpu_at;
  int64_t ran_until; /* by that clock */
  bool is_still;     /* and has not run since */
  int64_t debt;      /* what fibers that are preempted have had of the worker more than others, lately */
};

/* The scheduling half of a running thread: queues, poller, timers, caches. It is not its thread: another thread may
 * come to carry it while its fiber holds the first one up. So nothing here may depend on who runs it, and code on a
 * fiber must ask for its worker anew after everything that can suspend. */
struct coir__worker {
  /* the dispatch line */
  _Atomic(struct coir__thread *) thread; /* (a) who carries it, or is about to; NULL for moments */
  int *errno_location;         /* (o) that thread's */
  struct coir_fiber *current;  /* (o) what it runs; NULL: the thread's own stack */
  struct coir__thrown *thrown; /* (o) that thread's */
  struct coir_fiber *prev;     /* (o) the fiber just switched away from */
  uint32_t after;              /* (o) enum coir__after, for prev */
  uint32_t tick;               /* (o) dispatches left until the loop looks around; counts down to 0 */
  _Atomic(uint32_t) attention; /* (a) 1: others ask for a look at the inbox, the lanes, or the phase; 2: it is time
                                  for one, says the monitor */
  uint32_t extra;              /* (o) deque or bound list may hold something, or fences are real: no short cuts */
  uint32_t index;              /* (c) */
  _Atomic(uint32_t) look_tick; /* (a) written by the owner: looked_at >> COIR__LOOK_SHIFT */
  struct coir_runtime *rt;     /* (c) */
  struct coir__stack *dead;    /* (o) the stack of the fiber that just ended */
  _Atomic(struct coir__bias *) *inside; /* (c) what the worker is inside of, of the locks that lean towards it */
  uint32_t bias;                        /* (c) what stands in their owner */
  uint32_t bias_slot;                   /* (c) its number; 0: it owns none */
  uint32_t outside;                     /* (c) what `in` of its thread is outside: 0, or COIR__IN_SIMULATED */

  _Alignas(COIR__LINE) struct coir__runq q;

  _Alignas(COIR__LINE) struct coir__list bound;  /* (o) ready fibers that may not leave this worker */
  struct coir__magazine *fibers, *fibers_before; /* (o) descriptors at hand: the loaded magazine, and the one before */
  struct coir__stack *spare;                     /* (o) of the standard class: the stack that was used last, or NULL */
  uint32_t rng;                                  /* (o) xorshift state */
  uint32_t searching;                            /* (o) it is counted in rt->searching */
  uint32_t futile;                               /* (o) rounds in a row that saw work and got none */
  uint32_t rounds;                               /* (o) times that the loop looked around */
  uint32_t in_vain;                              /* (o) fibers in a row for which there was no stack */
  uint32_t empty_yields;                         /* (o) ticks since the last look that dispatched nothing */
  uint32_t turn;                                 /* (o) whose turn it is in coir__runq_pop_extra */
  uint64_t fifo_turns;                           /* (o) for so many of them it is not the deque's */
  uint32_t tick_limit;                           /* (o) what tick starts from: see worker.c */
  int64_t looked_at;                             /* (o) when the loop last looked around */
  int64_t polled_at;                             /* (o) when it last looked at its poller */
  int64_t hog_at;                                /* (o) when it last ran one that had been preempted: see choose() */
  bool runs_hog;                                 /* (o) it has taken one, and has not been taken from any since */
  int64_t aged_at;                               /* (o) when it last took the oldest of its deque */
  uint64_t id_next, id_end;                      /* (o) numbers reserved for fibers spawned here */
  struct coir__counts counts;
  struct coir__stack_pool stacks[COIR__STACK_CLASSES]; /* (o) */
  uint32_t colour;                                     /* (o) next stack colour */
  int64_t watch_ns;                                    /* (o) sleep of the watcher, doubling (idle.c) */
  _Atomic(uint32_t) pace_ns;                 /* (a) written by the owner: time per dispatch in its last round */
  bool slept;                                /* (o) since it last ran a fiber */
  bool was_brief;                            /* (o) it has slept briefly since it last ran a fiber */
  uint8_t credit;                            /* (o) what speaks for spinning before its next sleep */
  bool was_fed;                              /* (o) its last sleep was ended by what came from outside */
  int64_t announced_at;                      /* (o) when it last announced work that was alone: see idle.c */
  bool was_long;                             /* (o) and longer, without being the watcher */
  bool summoned;                             /* (o) an announcer woke it to search */
  bool retired;                              /* (o) it was the watcher, and all is quiet since */
  uint64_t seen_total;                       /* (o) switches of all workers when the watcher looked last */
  bool is_watcher;                           /* (o) */
  _Atomic(uint32_t) is_unstarted;            /* (a) what was spawned before the run is in its ring, and the first of it
                                                has not been dispatched yet */
  _Atomic(uint32_t) has_pinned;              /* (a) pinned fibers were given to it: it keeps its thread */
  uint32_t looks;                            /* (o) at pollers */
  bool polling;                              /* (o) it delivers the events of a poller */
  bool stale;                                /* (o) the watcher slept: lone fibers may be taken now */
  uint64_t seen_switches[COIR__WORKERS_MAX]; /* (o) what the watcher saw of each worker last time */
  struct coir_fiber *handed;                 /* (o) whom the fiber that was left has picked, for the loop; or NULL */
  struct coir__watch watch;                  /* the monitor's only */
#if defined(COIR_TRACE)
  struct coir_trace_hooks hooks; /* (o) as they were when it began */
  uint64_t left;                 /* (o) the number of the fiber that gave it away, whose leaving is still to be told */
  _Atomic(struct coir__thread *) tells_of; /* (a) changed under its owner: the program is being told of its turn */
#endif
  void *memory;                              /* (c) the allocation that it lies in */
  pthread_t pthread;                         /* (s) */
  void *alt_stack; /* (s) for the thread that begins with it: made before, so that the thread cannot lack it */

  _Alignas(COIR__LINE) _Atomic(struct coir_fiber *) inbox; /* (a) what others send, newest first */
  _Atomic(uint32_t) sleeping;       /* (a) with shared pollers: enum coir__sleeping, and futex word */
  _Atomic(struct coir__post *) seat; /* (a) in whose poller it sleeps; written by the owner before sleeping */

  struct coir__poller *poller; /* (c) its own; shared: what its fibers' descriptors are watched by, in a partition */
  struct coir__timers timers;
#if defined(COIR_TSAN)
  struct {
    void *context;
    uint32_t lives;
  } tsan_kept[16]; /* (o) of fibers that ended, for the next ones */
  int tsan_kept_count;
#endif
};

/* Where a worker sleeps. ROUSED: it is awake, or is to wake. */
enum coir__sleeping { COIR__SLEEPING_NOT = 0, COIR__SLEEPING_FUTEX, COIR__SLEEPING_SEAT, COIR__SLEEPING_ROUSED };

enum coir__phase { COIR__PHASE_OFF = 0, COIR__PHASE_STARTING, COIR__PHASE_RUN, COIR__PHASE_SERVE, COIR__PHASE_HALT };

/* With coir_config.pollers: a poller that workers share, and the thread that stands in for them (idle.c). */
struct coir__post {
  _Atomic(uint32_t) is_taken; /* (a) somebody sleeps in the poller, or is about to */
  _Atomic(uint32_t) bell;     /* (a) enum coir__bell: what the thread naps on */
  _Atomic(int64_t) looked_at; /* (a) when somebody last looked at the poller */
  struct coir__poller *poller; /* (c) */
  struct coir_runtime *rt;     /* (c) */
  int index;                   /* (c) */
  pthread_t pthread;           /* (s) */
  char apart[COIR__LINE];      /* from the next one */
};
enum coir__bell { COIR__BELL_NAPS = 0, COIR__BELL_RESTS, COIR__BELL_HALT };

/* Free descriptors, as an array: looking ahead in it touches none of them. 1 KiB. */
#define COIR__MAGAZINE_ROOM 126
#ifdef COIR_HARD
#define COIR__MAGAZINE_MAX 1
#else
#define COIR__MAGAZINE_MAX COIR__MAGAZINE_ROOM
#endif
struct coir__magazine {
  struct coir__magazine *next; /* (l) of the depot */
  uint64_t count;
  struct coir_fiber *fibers[COIR__MAGAZINE_ROOM];
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
  int poller_count;                   /* (c) pollers that workers share; 0: one poller per worker */
  bool is_partitioned;                /* (c) of those: worker w has w % poller_count */
  struct coir__worker **workers;      /* (c) */
  struct coir__poller **pollers;      /* (c) */

  /* idle.c */
  _Alignas(COIR__LINE) _Atomic(uint64_t) idle_mask; /* (a) bit i: worker i sleeps or is about to */
  _Atomic(uint32_t) searching;                      /* (a) workers that look for work */
  _Atomic(uint32_t) deep;                           /* (a) workers that sleep without limit, or are about to */
  _Atomic(uint64_t) deep_begun;                     /* (a) how many times one was about to; written before deep */
  _Atomic(uint32_t) watching;                       /* (a) an idle worker looks now and then after lone fibers */
  _Atomic(uint32_t) phase;                          /* (a) enum coir__phase */
  _Atomic(uint32_t) cancel_all;                     /* (a) COIR_STOP_CANCEL was asked for */

  _Alignas(COIR__LINE) struct coir__lane lanes[COIR__LANES];
  _Atomic(uint64_t) spawned_outside;          /* (a) fibers spawned by plain threads */
  _Atomic(uint64_t) resumed_outside;          /* (a) generators resumed by others than workers of this runtime */
  _Atomic(uint64_t) dropped;                  /* (a) fibers that coir__fibers_drop ended */
  _Atomic(uint64_t) injected, injected_taken; /* (a) fibers put into lanes, and taken from them */
  _Atomic(uint64_t) polls, io_events;         /* (a) of the poller threads */
  _Atomic(uint64_t) wakes_outside; /* (a) fibers made ready by threads that carry no worker of this runtime */
  _Atomic(uint32_t) visitors;      /* (a) such threads that are at it; the runtime is not freed before it is 0 */
  _Atomic(int64_t) cool_at;        /* (a) when warm stacks are to be looked at next (stack.c) */
  _Atomic(uint32_t) fence_ns;      /* (a) what a heavy fence costs a thief: a moving average */
  _Atomic(uint32_t) forked;        /* (a) in the child of a fork: dead */
  _Atomic(int64_t) rebalance_at;   /* (a) when the next look at the balance is due */

  /* carry.c */
  struct coir__lock spare_lock;
  struct coir__thread *spares; /* (l) spare_lock: threads that carry nothing, the last to come first */
  struct coir__extra *extras;  /* (l) spare_lock: threads beside those that were made for the workers */
  _Atomic(int) extra_count;    /* (a) written under spare_lock: those, and those that are about to be in the list */

  /* monitor.c */
  pthread_t monitor;                 /* (s) */
  pthread_t helper;                  /* (s) */
  _Atomic(uint32_t) helper_bell;     /* (a) what it sleeps on: counts what it is asked for */
  _Atomic(uint32_t) helper_over;     /* (a) the monitor has ended */
  _Atomic(uint32_t) spare_wanted;    /* (a) by the monitor: a thread that can carry a worker */
  struct coir__stalls *stall_ring;   /* (c) what is to be told of stalls; NULL: nobody wants to know */
  int monitor_reminds;               /* the monitor's: somebody was paused who may not have heard of it; 2: just now */
  _Atomic(uint32_t) monitor_follows; /* (a) somebody is away who ought to be paused when it computes */
  _Atomic(uint32_t) valve;           /* (a) written by the monitor: who is paused runs on, all the same (preempt.c) */
  _Atomic(uint32_t) monitor_bell;    /* (a) enum coir__bell: what it naps on */
  _Atomic(uint64_t) stalls;          /* (a) written by the monitor */
  _Atomic(uint64_t) preemptions;     /* (a) the same */
  _Atomic(int64_t) longest_stall_ns; /* (a) the same */

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
  bool drained;                               /* (l) control: no fiber was left at a moment while it was watched */
  bool serving;                               /* (l) control: coir_runtime_start started it */
  bool halted;                                /* (l) control: coir_runtime_halt was called since */
  struct coir__lock deadlock_lock;            /* held by the one worker that looks */
  _Atomic(uint32_t) deadlock_asked;           /* (a) somebody wants it to be looked for */
  _Atomic(uint32_t) deadlocked;               /* (a) its fibers have been cancelled because of one */
  _Atomic(uint64_t) deadlock_sum, deadlock_threads; /* (a) of the last one that was dealt with; by who holds the lock */
  _Atomic(uint32_t) hosts;                    /* (a) how many workers run on threads that Coir has not started */
  _Atomic(uint32_t) watched;                  /* (a) coir_runtime_stop wants to know when no fiber is left */
  struct coir__post *posts;                   /* (c) poller_count of them */
  struct coir_runtime *next;                  /* (l) runtimes_lock: all of them, for fork */
  void *memory;                               /* (c) the allocation that it lies in */
  struct coir_job_system *jobs;               /* (c) that it is part of; or NULL */
  struct coir__sim *sim;                      /* (c) NULL: it is not simulated */
};

_Static_assert(offsetof(struct coir_fiber, entry) == COIR__LINE, "a switch touches one line of a fiber");
_Static_assert(sizeof(struct coir_fiber) == 4 * COIR__LINE, "a fiber descriptor is small");
_Static_assert(offsetof(struct coir_fiber, on_end) == 3 * COIR__LINE, "the fourth line is for few");

#endif
