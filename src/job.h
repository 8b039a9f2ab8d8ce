/* What the files of the job layer know of each other: job.c, fork.c, raw.c, parallel.c, counter.c, job_system.c,
 * frame.c, topology.c, job_trace.c. The public contract is coir_job.h. */
#ifndef COIR_SRC_JOB_H
#define COIR_SRC_JOB_H

#include <setjmp.h>

#include "coir_job.h"
#include "runq.h"
#include "topology.h"
#include "wait.h"

/* ---- counter.c ------------------------------------------------------------------------------------------------- */

#define COIR__COUNTER_WAITED UINT64_C(1) /* somebody is linked in q */
#define COIR__COUNTER_ONE UINT64_C(2)
struct COIR__OVERLAY coir__counter {
  _Atomic(uint64_t) word;     /* (a) references, value * ONE, and WAITED (counter.c) */
  _Atomic(uint64_t) failures; /* (a) */
  struct coir__waitq q;
};
/* Takes n away, of which `failures` have failed. The caller is inside; w: what its thread carries, or NULL. */
bool coir__counter_sub(struct coir__worker *w, struct coir_counter *counter, uint64_t n, uint64_t failures);
/* Waits until it is zero, whatever happens to the fiber: others work on its frame. */
void coir__counter_wait_bound(struct coir_counter *counter);

/* ---- job.c: records ------------------------------------------------------------------------------------------- */

/* A job that is queued, or runs: one cache line, without a fiber until a worker comes to it. */
struct coir__job {
  _Alignas(COIR__LINE) struct coir__lean lean; /* (c) for all its lives */
  coir_job_fn fn;                              /* (c) */
  void *arg;                      /* (c) */
  struct coir_counter *counter;   /* (c) or NULL */
  const char *name;               /* (c) or NULL */
  void *copy;                     /* (c) memory that goes with the job, or NULL */
  _Alignas(16) uint64_t payload[2]; /* (c) a copy that is as small as that */
};
_Static_assert(sizeof(struct coir__job) == COIR__LINE, "a job is one line");

/* The innermost of what coir_job_fail has to see to on this stack, from the innermost outwards: stack.c's record of the
 * stack has the first (struct coir__stack.nest). */
struct coir__nest {
  struct coir__nest *outer;
  struct coir__nest **here; /* of a boundary: where the first of its stack is */
  jmp_buf *boundary;        /* where failures end; NULL: this is a fork (fork.c) */
  struct coir__debt *owes;  /* of a boundary: what its stack did then (coir__owes_here) */
  /* of a boundary that is no job's: what its fiber, if it is one, had taken then */
  struct coir_fiber *fiber;
  uint32_t shield, holds;
};

/* Free records, as an array: looking ahead in it touches none of them. 512 bytes. */
#ifdef COIR_HARD
#define COIR__JOB_MAGAZINE 1
#else
#define COIR__JOB_MAGAZINE 62
#endif
struct coir__job_magazine {
  struct coir__job_magazine *next; /* (l) of the depot */
  uint64_t count;
  struct coir__job *jobs[COIR__JOB_MAGAZINE];
};

/* A worker's store of free records, and its numbers; on lines of its own. Index: the worker's. */
struct coir__job_books {
  _Alignas(COIR__LINE) struct coir__job_magazine *loaded, *other; /* (o) free records; or NULL */
  _Atomic(uint64_t) completed, failed;         /* (a) written by the owner */
  _Atomic(uint64_t) pushes, pops;              /* (a) written by the owner: of its own queue */
  struct coir_paged_frame *frame;              /* (o) coir_job_frame_alloc; made on first use */
  struct coir__job_extra *extras;              /* (o) what that took from the heap */
  struct coir__job_events *events;             /* (o) job_trace.c; NULL: none yet */
};

struct coir_job_system {
  struct coir_runtime *rt;         /* (c) */
  struct coir_job_config config;   /* (c) with every default filled in */
  struct coir_topology *topology;  /* (c) or NULL */
  struct coir__job_books *books;   /* (c) one per worker, and one more for threads that carry none, under `lock` */
  int64_t created_at;              /* (c) */
  _Atomic(uint32_t) is_shut;       /* (a) no jobs are taken from outside */
  _Atomic(uint32_t) entering;      /* (a) threads outside that have seen is_shut 0 and are about to queue something */
  void *books_memory;              /* (c) the allocation that they lie in */
  struct coir__lock lock;
  struct coir__lock shared_lock;   /* of the shared books; before `lock` */
  struct coir__job_magazine *full, *empty; /* (l) the depot */
  struct coir__job_slab *slabs;    /* (l) where they come from */
  struct coir__job *fresh, *fresh_end; /* (l) never used yet, of the newest slab */
  _Atomic(struct coir__job_events *) events; /* (a) written under `lock`: all that there are (job_trace.c) */
  struct coir_mutex control;       /* shutdown: one at a time */
  bool is_stopped;                 /* (l) control */
  _Atomic(uint32_t) visitors;      /* (a) shutdowns under way that outlive who asked for them */
};

/* Of the calling thread's worker, when that is the system's; else the shared one. The caller is inside. */
struct coir__job_books *coir__job_books_of(struct coir_job_system *system, struct coir__worker *w);
static inline bool coir__job_books_are_shared(const struct coir_job_system *system,
                                              const struct coir__job_books *books) {
  return books == &system->books[system->config.threads];
}

void coir__job_records_fini(struct coir_job_system *system); /* of one that was zeroed at first */
/* No jobs are taken from outside any more; on return all that were are queued. */
void coir__job_gate_close(struct coir_job_system *system);

/* Runs fn(arg) on a fiber of the system, with a boundary for failures, and waits for its end. In the caller itself when
 * `system` is NULL, or the caller's own. Returns 0; -ECANCELED: it failed; -ENOMEM, -ESHUTDOWN. Not interrupted. */
int coir__job_call(struct coir_job_system *system, coir_task_fn fn, void *arg);

/* Jobs that are parts of something, and know which by a number. The first is queued as by coir_job_submit; it may split
 * others off, which have its function, argument and counter, and have been counted there before. 0, -ENOMEM, and what
 * coir_job_submit returns. */
int coir__job_submit_part(struct coir_job_system *system, coir_job_fn fn, void *arg, uint64_t payload,
                          struct coir_counter *counter);
int coir__job_split(struct coir_job *job, uint64_t payload);
uint64_t coir__job_payload(const struct coir_job *job);
/* Counts a part down that has been run otherwise. */
void coir__job_count_down(struct coir_job *job, bool has_failed);

/* ---- fork.c ---------------------------------------------------------------------------------------------------- */

/* A side of a fork, in the frame of who forks. */
struct coir__fork {
  struct coir__lean lean;
  struct coir__nest nest;
  struct coir__stack *stack; /* (c) of who forks */
  coir_task_fn fn;           /* (c) */
  void *arg;                 /* (c) */
  _Atomic(uintptr_t) state;  /* (a) 0; the clause of who waits for it; 1: it is done */
  bool has_failed;           /* (o) of who runs it, until it is done */
};
/* Offers fn(arg) to others. False: nobody could take it, and nothing was done; on a plain thread always. Otherwise
 * coir__fork_end follows, on the same stack: true: it has not begun, and is the caller's to run; false: it is done. It
 * fails if that has failed. */
bool coir__fork_begin(struct coir__fork *r, coir_task_fn fn, void *arg);
bool coir__fork_end(struct coir__fork *r);
/* Whether others could take more than the caller's worker has in its deque: nothing. False on plain threads. */
bool coir__fork_is_wanted(void);
/* Every so often in a long computation: tells others of what lies in the worker's deque, if they sleep, and lets the
 * worker look after the rest of what it has to do, if it is due. */
void coir__fork_breathe(int64_t now);
struct coir__nest **coir__nest_here(void); /* of the calling fiber, or thread. The caller is inside */
int coir__guarded(coir_task_fn fn, void *arg); /* runs fn(arg): 0; -ECANCELED: it failed */
void coir__fork_abandon(struct coir__nest *nest); /* a fork: takes it back, or waits until it is done */
/* Fails, as coir_job_fail does, without a word. */
void coir__nest_fail(void) __attribute__((noreturn));

/* ---- job_trace.c ----------------------------------------------------------------------------------------------- */

/* By a worker, or a thread without: a job of that name has run from `begin` to `end` on worker `index`. Does nothing
 * when memory is short. The caller is inside. */
void coir__job_trace_add(struct coir_job_system *system, struct coir__worker *w, const char *name, int index,
                         int64_t begin, int64_t end);
void coir__job_trace_fini(struct coir_job_system *system); /* frees all events; the workers have stopped */

#endif
