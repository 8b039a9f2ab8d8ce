/* scheduler.h: goroutines, and the workers that run them.
 *
 * Nothing has to be started. Worker threads come to life with the first call that needs them, and the environment is
 * read then:
 *
 *   LIBCSP_PRODUCTION   0: one worker, whatever else says. Anything else, or unset: M:N, as many as there are CPUs
 *   LIBCSP_PREEMPT      1, or anything but 0: goroutines that compute for 10 ms (COIR_QUANTUM_US) while others are
 *                       ready are paused, and go on when it is their turn again. 0, empty, or unset: they are not
 *   LIBCSP_PREEMPT_SIGNAL  the number of the signal that pauses; SIGALRM if unset. One that cannot be used is told on
 *                       stderr, and SIGALRM is used
 *   LIBCSP_DEADLOCK     abort: a deadlock aborts the program. Else it is told once on stderr, and waited on
 *   COIR_...            as for every runtime of Coir (coir.h): COIR_WORKERS, COIR_STEAL, COIR_GUARD, ...
 *
 * A goroutine that blocks its thread, or computes for long, does not stop the others, preemption or not: the worker
 * goes on on another thread. Without preemption what computes runs on beside the workers; with it no more goroutines
 * run at a time than there are workers, and each gets its share. A paused goroutine sleeps on its thread, wherever in
 * its own code it stands, but never inside a call of this library; it keeps the thread, its locks and its memory, and
 * goes on there. Set a SIGALRM handler of the program's own before the workers are started: it goes on to be called for
 * the program's own alarms, on any thread, and system calls that are under way then are restarted. When it is set later
 * it replaces the one that pauses, and nothing is paused any more.
 *
 * main is an ordinary thread, no goroutine. When it returns, or anybody calls exit(), the process ends, whatever
 * goroutines are doing. The child of a fork has no goroutine but starts from nothing; what it inherited must not be
 * waited for. A child that a goroutine forked ends by _exit or exec: the goroutine's function does not return there. */
#ifndef CSP_SCHEDULER_H
#define CSP_SCHEDULER_H

#include "csp_api.h"

CSP_BEGIN_DECLS

typedef struct csp_proc csp_proc_t; /* a goroutine; opaque */

/* Starts the workers: `n` of them, 1 to 64; 0 or less: as many as this process may use CPUs. The first call counts,
 * unless something has started them already; later ones do nothing. Need not be called. Does not wait. When they cannot
 * be started it says so on stderr, and the next call that needs them tries again. */
CSP_API void csp_scheduler_init(int n);

/* Waits until every goroutine has ended, and ends the worker threads. Goroutines that others create meanwhile are
 * waited for, too, or start the workers again. So does the next call that needs them, as many as before. Aborts when
 * called by a goroutine. Does nothing when nothing was started. */
CSP_API void csp_scheduler_stop(void);

/* Starts a goroutine that runs fn(arg), behind all that are ready. It ends when `fn` returns.
 *
 * `stack_id` says how large its stack is: 0: 64 KiB, 1: 128 KiB, 2: 256 KiB, 3: 1 MiB; less is taken as 0, more as 3.
 * Memory is used page by page as the stack is.
 *
 * Returns its handle, of which nobody has to take care: it may be compared, and is not valid when the goroutine has
 * ended. NULL when it could not be started: errno is EINVAL (`fn` is NULL), ENOMEM, or EAGAIN (no threads). Does not
 * wait. What the caller wrote before is visible to the goroutine. */
CSP_API csp_proc_t *csp_proc_create(int stack_id, void (*fn)(void *arg), void *arg);

/* The runtime of Coir that runs the goroutines, for coir.h's calls on it (counters, lists); started if it was not. NULL
 * with errno set as above. Lives until the process ends. */
struct coir_runtime;
CSP_API struct coir_runtime *csp_runtime(void);

CSP_END_DECLS
#endif
