/* blocking_executor.h: a few threads for functions that block, so that they do not block the fibers of a worker.
 * Conventions: go.h. There is one executor in a process. */
#ifndef LIBGO_BLOCKING_EXECUTOR_H
#define LIBGO_BLOCKING_EXECUTOR_H

#ifdef __cplusplus
extern "C" {
#endif

/* Starts `threads` threads (0 or less: 4; at most 256). Does nothing when they run already. When not all can be made it
 * does with fewer. Returns 0; -1 and errno: ENOMEM, EAGAIN (there is none). May wait for another call of this or of
 * go_blocking_executor_shutdown. */
int go_blocking_executor_init(int threads);

/* Runs fn(arg), which must return, and returns what it returned.
 *
 * On a fiber: it runs on a thread of the executor, in the order of submission, and the fiber waits meanwhile, to the
 * end, whoever asks it to stop. When the executor was never started this starts it, with 4 threads. On a plain thread,
 * after the shutdown, and when memory or threads are short, it runs within the call. `fn` NULL gives NULL and
 * EINVAL. */
void *go_blocking_submit(void *(*fn)(void *), void *arg);

/* Waits until everything that was submitted has run, and ends the threads. Does nothing when there are none. It may be
 * started again. Not to be called by a function that the executor runs: it would wait for itself. */
void go_blocking_executor_shutdown(void);

/* How many functions the threads run just now, and how many wait for a thread. */
int go_blocking_executor_active_count(void);
int go_blocking_executor_pending_count(void);

#ifdef __cplusplus
}
#endif
#endif
