/* fiber.h: go_fiber, an M:N fiber runtime for C, on Coir.
 *
 *     static void hello(void *arg) { (void)arg; printf("hello from fiber!\n"); }
 *     int main(void) {
 *       gof_init(0);
 *       gof_spawn(hello, NULL, 0);
 *       gof_run();
 *     }
 *
 * Fibers are spawned, and run on a few worker threads, until none is left. A fiber that reads, writes, sleeps,
 * yields, or waits on a channel (libgo/fiber_chan.h) gives its worker to the next one.
 *
 * Conventions: calls that can fail return -1 or NULL and set errno. Every call may be made on any thread and on any
 * fiber, unless it says otherwise; on a plain thread, calls that wait block the thread. None may be made in a signal
 * handler. A fiber may go on on another thread after any call that waits, so it must not keep addresses of
 * thread-locals across one. This header sees to errno, see the end.
 *
 * There is one runtime of this kind in a process. It is made by gof_init, or by the first call that needs it. */
#ifndef LIBGO_FIBER_H
#define LIBGO_FIBER_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Lifecycle ------------------------------------------------------------------------------------------------- */

typedef void (*gof_fn)(void *arg);

/* A fiber. A token: it may be compared, and is of no other use, so it need not be given back. */
typedef struct gof_fiber gof_fiber_t;

/* Makes the runtime, with a default stack of `default_stack_bytes` (0: 256 KiB) for its fibers, and reads the
 * environment (libgo/README.md has the table). Only the first call counts; every other call that needs the runtime
 * makes it, if it is not there yet, as gof_init(0) would. When memory is short it says so on stderr and aborts. */
void gof_init(size_t default_stack_bytes);

/* Starts a fiber that runs fn(arg) on a stack of at least `stack_bytes` bytes (0: the default; fewer than 16 KiB are
 * taken as 16 KiB). Before gof_run it waits for that, and such fibers start on worker 0 in the order in which they were
 * spawned. From a fiber it goes to the end of the queue of that fiber's worker, from any other thread to the queue that
 * all workers share.
 *
 * Returns the fiber; NULL and errno: EINVAL (fn is NULL, or stack_bytes above 1 GiB), ENOMEM. Does not wait. */
gof_fiber_t *gof_spawn(gof_fn fn, void *arg, size_t stack_bytes);

/* Runs all fibers, with the calling thread as worker 0, and returns when none is left. At once when there is none;
 * may be called again. Does nothing on a fiber, while another thread is in it, and in background mode. When the
 * threads of the other workers cannot be made it says so on stderr and returns with the fibers not run. */
void gof_run(void);

/* Lets every other ready fiber of this worker run first. Does nothing else than sched_yield on a plain thread. */
void gof_yield(void);

/* Waits for at least `ms` milliseconds of the monotonic clock; 0 yields. */
void gof_sleep_ms(uint64_t ms);

/* Returns the calling fiber: what gof_spawn returned for it. NULL, and 0, on a plain thread. */
gof_fiber_t *gof_current(void);
int gof_in_fiber(void);

/* ---- Background mode ------------------------------------------------------------------------------------------- */

/* Makes the runtime as gof_init(default_stack_bytes), and starts all workers as threads; the caller goes on. They stay,
 * idle or not. Returns 0; -1 and errno: EBUSY (it runs already), EAGAIN, ENOMEM (nothing is left running). */
int gof_start_background(size_t default_stack_bytes);

/* Asks the workers to stop. Does not wait; any thread, and any fiber. Running fibers go on to their next suspension. */
void gof_request_stop(void);

/* Waits until the workers have been asked to stop, or no fiber is left, and then until their threads have ended. Fibers
 * that are left then are abandoned: their stacks are reclaimed, what they hold is not released, and a line on stderr
 * says how many they were. Returns 0; -1 and errno EINVAL: not in background mode; EDEADLK: called by a fiber.
 * gof_start_background may follow. */
int gof_join_background(void);

/* ---- Input and output ------------------------------------------------------------------------------------------ */

/* The descriptor may be closed by close(2) at any time, by anyone: who waits on it gets EBADF, within 3 s at worst.
 * Each call makes it non-blocking (O_NONBLOCK) and leaves it so. */

/* Reads up to `n` bytes. Waits until there are some. Returns how many; 0 at the end; -1 and errno. */
ssize_t gof_read(int fd, void *buf, size_t n);

/* Writes all `n` bytes, waiting as needed. Returns n; -1 and errno, also when part of it had been written. EPIPE when
 * the reader of a socket or pipe is gone; no SIGPIPE then, and its disposition stays as the program set it. */
ssize_t gof_write(int fd, const void *buf, size_t n);

/* Connects `fd`, within `timeout_ms` milliseconds; negative: no limit; 0: what needs no waiting. Returns 0; -1 and
 * errno: ETIMEDOUT, ECONNREFUSED and the like. */
int gof_connect(int fd, const struct sockaddr *sa, socklen_t slen, int timeout_ms);

/* Accepts a connection; `sa` and `slen` may be NULL, timeout_ms as above. Returns the new descriptor, which is
 * non-blocking; -1 and errno: ETIMEDOUT, EMFILE and the like. */
int gof_accept(int fd, struct sockaddr *sa, socklen_t *slen, int timeout_ms);

/* ---- Introspection --------------------------------------------------------------------------------------------- */

enum { GOF_STATE_RUNNABLE = 0, GOF_STATE_BLOCKED = 1, GOF_STATE_FINISHED = 2 }; /* running counts as runnable */

typedef struct gof_info {
  uint64_t id;          /* from 1, increasing */
  const char *name;     /* NULL when it has none; valid until the caller calls gof_list again, or ends */
  size_t stack_size;    /* usable bytes; before it first runs those of the default stack */
  size_t stack_used;    /* as it was suspended last, a page at least; 0 before it first runs */
  int state;            /* GOF_STATE_* */
  uint64_t last_run_ns; /* CLOCK_MONOTONIC when it was dispatched last, to a millisecond or so; 0 before */
} gof_info;

/* Stores up to `max` living fibers in `out`, in no order, and returns how many. With `out` NULL: how many live.
 * Fibers go on meanwhile. */
size_t gof_list(gof_info *out, size_t max);

/* Writes all living fibers to `fd` as text, with a backtrace of each that waits: addresses, and names where the dynamic
 * symbol table has them. What several callers write is not mixed, unless the writing of one is held up for more than
 * 3 s: then the others go on without it. Fibers go on meanwhile. */
void gof_dump_stacks(int fd);

/* Names the calling fiber. Copied, cut to 23 bytes; NULL or "" removes the name. Does nothing on a plain thread. */
void gof_set_name(const char *name);

/* ---- Statistics ------------------------------------------------------------------------------------------------ */

typedef struct gof_sched_stats {
  int nworkers;
  int enable_steal;
  int affinity_enable;
  int steal_min_live;
  int steal_min_victim;
  uint64_t live_fibers;      /* spawned and not finished */
  uint64_t steals_attempted; /* tries to steal one fiber that passed the thresholds */
  uint64_t steals_success;   /* fibers stolen */
  uint64_t inject_enqueues;  /* fibers put into the shared queue by threads that are not workers */
  uint64_t inject_drains;    /* of those, taken from it by workers; all, after a complete run */
  int rebalance_enable;
  int rebalance_threshold;
  int rebalance_interval_ms;
  uint64_t rebalances_attempted; /* tries to move one fiber, while the imbalance was at least the threshold */
  uint64_t rebalances_migrated;  /* fibers moved */
} gof_sched_stats;

/* NULL does nothing. */
void gof_get_stats(gof_sched_stats *out);

/* What the scheduler has done since the runtime was made. */
typedef struct gof_counters {
  uint64_t switches; /* fibers dispatched */
  uint64_t parks;    /* waits that suspended a fiber */
  uint64_t unparks;  /* fibers made ready after a wait */
} gof_counters;
void gof_get_counters(gof_counters *out);

/* ---- Parameters that may be changed at any time ---------------------------------------------------------------- */

/* NULL is ignored, here and below. Values are brought into range as the comments say. */
typedef struct {
  int enable_steal;     /* 0 or 1 */
  int steal_min_live;   /* >= 0: no stealing while fewer fibers live */
  int steal_min_victim; /* >= 2: only from workers with at least so many queued */
} gof_steal_params;
void gof_set_steal_params(const gof_steal_params *p);
void gof_get_steal_params(gof_steal_params *out);

typedef struct {
  int enable;      /* 0 or 1 */
  int threshold;   /* >= 1: difference of lengths between the longest queue and the shortest that starts a move */
  int interval_ms; /* >= 1: at most one move in so many milliseconds */
} gof_rebalance_params;
void gof_set_rebalance_params(const gof_rebalance_params *p);
void gof_get_rebalance_params(gof_rebalance_params *out);

/* Whether a woken fiber goes back to the worker that it ran on last. */
void gof_set_affinity_enabled(int enable);
int gof_get_affinity_enabled(void);

/* How many pollers there are to be. Before gof_init only. Counts before GOF_NPOLLERS. Returns 0; -1 and errno: EINVAL
 * (n < 1), EBUSY (the runtime exists). */
int gof_set_npollers(int n);

/* The number in force, at most the number of workers; before gof_init what was set, or 1. */
int gof_get_npollers(void);

/* ---- Trace hooks ----------------------------------------------------------------------------------------------- */

/* Called in builds with the CMake option GOF_ENABLE_TRACING only. A program that defines them gets its own called. They
 * run on the worker's own stack and must not wait. Switch: by fiber ids, 0 is the scheduler. Block, unblock: a fiber
 * begins to wait, and goes on; ev is 1 for reading, 2 for writing; fd -1 and ev 0 when it waits for anything else. */
void gof_trace_on_switch(uint64_t old_id, uint64_t new_id);
void gof_trace_on_block(int fd, int ev);
void gof_trace_on_unblock(int fd, int ev);

/* ---- Moving on to Coir ----------------------------------------------------------------------------------------- */

struct coir_runtime;

/* The runtime that the fibers of this interface run on: coir_runtime_spawn and the rest of coir.h work on it. Any of
 * Coir's calls may be made by these fibers. */
struct coir_runtime *gof_runtime(void);

/* ---- errno ----------------------------------------------------------------------------------------------------- */

/* Each fiber has an errno of its own. But compilers may keep its address, which libc lets them, and after a wait the
 * fiber may be on another thread. So where this header is included errno is found anew each time. A program that
 * defines GOF_KEEP_ERRNO keeps libc's own. */
int *gof_errno_location(void);
#ifndef GOF_KEEP_ERRNO
#undef errno
#define errno (*gof_errno_location())
#endif

#ifdef __cplusplus
}
#endif
#endif
