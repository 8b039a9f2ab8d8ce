/* coir.h: fibers, time and runtimes.
 *
 * Coir runs many fibers on few threads. A fiber is a function with a stack of its own; it runs until it waits, and
 * while it waits its thread runs others. Everything in this header that waits says so; nothing else does.
 *
 *     static int hello(void *name) { printf("hello, %s\n", (const char *)name); return 0; }
 *     int main(void) { return coir_run(hello, "world"); }
 *
 * Conventions, the same in every header of Coir:
 *
 *   - Errors are returned as negative errno codes (-EINVAL, -ETIMEDOUT, ...), never through errno. 0 or more is
 *     success.
 *   - A deadline is the last argument: an absolute time in nanoseconds on the clock of coir_now(). 0, or any time
 *     that has passed, means "try once, do not wait"; COIR_NEVER means "no limit". coir_after(COIR_MS(50)) is 50 ms
 *     from now.
 *   - Waiting calls work on fibers and on plain threads alike. On a fiber they suspend the fiber; on a plain thread
 *     they block the thread. A waiting call returns -ECANCELED once when its fiber has been cancelled (coir_cancel).
 *   - A fiber may go on on another thread after any waiting call. Do not keep the address of a thread-local, a locked
 *     pthread mutex, or what pthread_self() said across one (docs/tls.md). errno itself is kept per fiber:
 *     the fiber finds its own again after waiting. But compilers keep errno's address, too, within one function: read
 *     it before waiting, or in a function of its own.
 *   - Nothing here may be called from a signal handler.
 *   - Strings that a call takes are copied. Pointers that a call returns say how long they live. */
#ifndef COIR_H
#define COIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COIR_VERSION_MAJOR 0
#define COIR_VERSION_MINOR 1
#define COIR_VERSION_PATCH 0
#define COIR_VERSION "0.1.0"

/* Marks what the shared library exports. */
#if defined(__GNUC__)
#define COIR_API __attribute__((visibility("default")))
#else
#define COIR_API
#endif

struct coir_fiber;   /* a fiber; opaque */
struct coir_runtime; /* workers, their queues, pollers and stacks; opaque */

/* Returns the version of the library that is linked, as "major.minor.patch"; a static string. */
COIR_API const char *coir_version(void);

/* ---- Time ------------------------------------------------------------------------------------------------------ */

#define COIR_NEVER INT64_MAX
#define COIR_US(n) (INT64_C(1000) * (int64_t)(n))
#define COIR_MS(n) (INT64_C(1000000) * (int64_t)(n))
#define COIR_SEC(n) (INT64_C(1000000000) * (int64_t)(n))

/* Returns the monotonic clock (CLOCK_MONOTONIC) in nanoseconds. Does not wait. Any thread. */
COIR_API int64_t coir_now(void);

/* Returns the absolute time that lies `ns` nanoseconds ahead; COIR_NEVER when that cannot be represented (so
 * coir_after(COIR_NEVER) is COIR_NEVER). `ns` <= 0 gives a time that has passed. Any thread. */
COIR_API int64_t coir_after(int64_t ns);

/* Waits until `deadline`. A deadline that has passed makes the fiber yield once.
 *
 * Returns 0 when the time has come, never before it; -ECANCELED when the fiber was cancelled. On a plain thread the
 * thread sleeps. */
COIR_API int coir_sleep_until(int64_t deadline);

/* Waits for `ns` nanoseconds: coir_sleep_until(coir_after(ns)). */
COIR_API int coir_sleep(int64_t ns);

/* ---- Fibers ---------------------------------------------------------------------------------------------------- */

/* What a fiber runs. The return value is the fiber's status: 0 for success, by convention a negative errno code for
 * failure; coir_join hands it to whoever joins. */
typedef int (*coir_fn)(void *arg);

enum coir_priority { COIR_PRIORITY_LOW = -1, COIR_PRIORITY_NORMAL = 0, COIR_PRIORITY_HIGH = 1 };

/* Where a freshly spawned fiber queues on the worker that spawns it. */
enum coir_order {
  COIR_ORDER_FIFO = 0, /* behind everything that is ready */
  COIR_ORDER_LIFO = 1, /* next to run of its kind: depth first, for fork-join work; thieves take the oldest */
};

/* coir_attr.worker: no choice, or worker `i` (from 0). */
#define COIR_WORKER_ANY 0
#define COIR_WORKER(i) ((uint32_t)(i) + 1)

/* How to spawn. All zero is the default of every field; pass NULL for all defaults. */
struct coir_attr {
  const char *name;   /* shown in dumps and reports; copied, cut to 23 bytes; NULL: none */
  size_t stack_bytes; /* 0: the runtime's stack_bytes; rounded up to 16 KiB times a power of two; at most 1 GiB */
  enum coir_priority priority; /* high runs before normal before low; none starves */
  enum coir_order order;       /* ignored when `worker` is given or the priority is not normal */
  uint32_t worker;             /* COIR_WORKER(i): start on worker i and nowhere else */
  bool pinned;                 /* never leave the worker it starts on (for legacy code that keeps thread-locals) */
};

/* Starts a fiber that runs fn(arg).
 *
 * `attr` may be NULL. With `out` the fiber's handle is stored there, and it must be given up by exactly one coir_join
 * or coir_detach; with `out` NULL the fiber is detached from the start. From a fiber the new one belongs to the same
 * runtime; from a plain thread to the default runtime, whose workers pick it up when they run (it may be spawned
 * before).
 *
 * Returns 0; -EINVAL for a NULL `fn`, a stack size out of range, a priority or order that does not exist, or a worker
 * that the runtime does not have; -ENOMEM. On error nothing was started and `*out` is NULL. Does not wait; the fiber
 * does not run inside the call. What the caller wrote before is visible to the fiber. */
COIR_API int coir_spawn(coir_fn fn, void *arg, const struct coir_attr *attr, struct coir_fiber **out);

/* Starts a detached fiber with all defaults: coir_spawn(fn, arg, NULL, NULL). */
COIR_API int coir_go(coir_fn fn, void *arg);

/* How a fiber ended. */
struct coir_result {
  int status;  /* what its function returned, or gave to coir_exit */
  void *value; /* what it gave to coir_set_value or coir_exit; else NULL */
};

/* Waits until `fiber` has ended, and gives up its handle.
 *
 * `out` may be NULL; otherwise it receives how the fiber ended. At most one thread or fiber may join a fiber.
 *
 * Returns 0, and the handle is gone; -ETIMEDOUT or -ECANCELED (the caller was cancelled), and the handle is still the
 * caller's; -EDEADLK when a fiber joins itself; -EINVAL for NULL. What the fiber wrote is visible afterwards. */
COIR_API int coir_join(struct coir_fiber *fiber, struct coir_result *out, int64_t deadline);

/* Gives up the handle of a fiber that nobody will join; the fiber runs on. NULL does nothing. Does not wait. */
COIR_API void coir_detach(struct coir_fiber *fiber);

/* Asks `fiber` to stop what it waits for: the waiting call that it is in, or else the next one that it makes, returns
 * -ECANCELED, once. What it does then is its own affair; later calls wait as usual. Cancelling twice before the fiber
 * noticed is the same as cancelling once. The caller holds the fiber's handle, or is the fiber.
 *
 * Returns 0; -ESRCH when it has ended; -EINVAL for NULL. Does not wait. Any thread. */
COIR_API int coir_cancel(struct coir_fiber *fiber);

/* Lets every other ready fiber of this worker run first. Returns 0. On a plain thread: sched_yield. Is no point of
 * cancellation. */
COIR_API int coir_yield(void);

/* Ends the calling fiber with `status` and `value`, from any depth of calls. Nothing is unwound: what the frames hold
 * is not released. Called on a plain thread it prints a message and aborts. */
COIR_API void coir_exit(int status, void *value) __attribute__((noreturn));

/* Sets the value that coir_join will deliver for the calling fiber. Does nothing on a plain thread. */
COIR_API void coir_set_value(void *value);

/* Returns the calling fiber, valid until it ends (this does not take a handle); NULL on a plain thread. */
COIR_API struct coir_fiber *coir_current(void);

/* Returns a number that no other fiber of this process has had; from 1. `fiber` NULL: the calling fiber's; 0 on a plain
 * thread. The caller holds the handle, or is the fiber. */
COIR_API uint64_t coir_fiber_id(const struct coir_fiber *fiber);

/* Names the calling fiber; copied, cut to 23 bytes; NULL removes the name. Does nothing on a plain thread. */
COIR_API void coir_set_name(const char *name);

/* Returns the name of `fiber` (NULL: the calling one), "" when it has none. Valid while the fiber lives and until its
 * next coir_set_name. */
COIR_API const char *coir_name(const struct coir_fiber *fiber);

/* Returns the number of the worker that runs the calling fiber, from 0; -1 on a plain thread. May change at every wait
 * unless the fiber is pinned. */
COIR_API int coir_worker_index(void);

/* Returns the runtime of the calling fiber; on a plain thread NULL. */
COIR_API struct coir_runtime *coir_runtime_current(void);

/* ---- Fiber-local values ---------------------------------------------------------------------------------------- */

/* At most this many keys exist at a time, in the whole process. */
#define COIR_KEYS_MAX 64

/* Makes a key under which every fiber, and every plain thread, keeps a value of its own; NULL at first.
 *
 * `destroy` (may be NULL) runs at a fiber's end, on the fiber, for each value that is not NULL; it may wait. At a plain
 * thread's end it runs on that thread.
 *
 * Returns the key, >= 0; -EAGAIN when COIR_KEYS_MAX exist. Does not wait. Any thread. */
COIR_API int coir_key_create(void (*destroy)(void *value));

/* Removes a key. Values under it are forgotten, not destroyed. Returns 0; -EINVAL when there is no such key. */
COIR_API int coir_key_delete(int key);

/* Sets the calling fiber's (or plain thread's) value. Returns 0; -EINVAL when there is no such key; -ENOMEM. */
COIR_API int coir_local_set(int key, void *value);

/* Returns the calling fiber's (or plain thread's) value, NULL when it has none or there is no such key. */
COIR_API void *coir_local_get(int key);

/* ---- Runtimes -------------------------------------------------------------------------------------------------- */

/* Three-valued switches of the configuration: 0 leaves the default. */
enum coir_switch { COIR_DEFAULT = 0, COIR_ON = 1, COIR_OFF = -1 };

/* How stacks are guarded against overflow. The modes further down cost less or work on older kernels. */
enum coir_guard {
  COIR_GUARD_AUTO = 0, /* the first of the following that works here */
  COIR_GUARD_MADVISE,  /* MADV_GUARD_INSTALL, Linux 6.13: a guard page for every stack, one mapping for all */
  COIR_GUARD_MPROTECT, /* a guard page for every stack while guards_max lasts, a canary beyond */
  COIR_GUARD_CANARY,   /* a pattern at the low end, checked when a fiber leaves its stack */
};

/* Configuration of a runtime. Zero in a field is its default. Each field is also read from an environment variable,
 * which counts where the field is zero: COIR_ and the field's name in capitals (COIR_WORKERS=4). Switches read 1 and
 * 0. A variable that does not parse is reported on stderr and ignored. Values outside their range are brought to the
 * nearest end, except in these fields themselves: a negative number, a stack_bytes or a guard out of range is
 * -EINVAL. */
struct coir_config {
  size_t size;             /* sizeof(struct coir_config); 0 is taken as this header's */
  int workers;             /* 1..64; default: CPUs that this process may use (affinity mask, cgroup quota) */
  size_t stack_bytes;      /* of a fiber; default 256 KiB, committed page by page as it is used; 16 KiB..1 GiB */
  int stack_cache_max;     /* finished stacks kept per worker before they go to the shared depot; default 64 */
  size_t stack_keep_bytes; /* what an unused stack may keep committed; deeper use is returned; default 64 KiB */
  enum coir_guard guard;   /* default AUTO; the variable takes auto, madvise, mprotect, canary */
  int guards_max;          /* guard mappings that COIR_GUARD_MPROTECT may use; default 16384 */
  int pollers;             /* 0: each worker polls for itself (default); 1..64: that many threads do nothing else */
  int poll_partition;      /* switch; with pollers: worker w belongs to poller w % pollers; default on */
  int steal;               /* switch; default on */
  int steal_min_live;      /* no stealing while fewer fibers live; default 0 */
  int steal_min_victim;    /* only from workers with this many queued; default 1: even a single one, once it is stuck */
  int affinity;            /* switch; a woken fiber goes back to the worker that it ran on last; default off */
  int rebalance;           /* switch; a periodic move from the longest queue to the shortest; default off */
  int rebalance_threshold; /* difference of lengths that starts a move; default 4 */
  int rebalance_interval_ms; /* default 10 */
  int migrate;               /* switch; test aid: send every woken or yielding fiber to another worker; default off */
  void *(*alloc)(size_t bytes, void *arg); /* NULL: malloc; no variable. Both or neither. Any thread. */
  void (*free)(void *memory, size_t bytes, void *arg);
  void *alloc_arg;
};

/* Runs fn(arg) as the first fiber of the default runtime, with the calling thread as worker 0, and returns when that
 * fiber and every other fiber of the runtime has ended.
 *
 * Returns what `fn` returned (so an error of the runtime itself, listed next, and one of `fn` look alike: use
 * coir_runtime_run to tell them apart); -EINVAL for NULL; -EBUSY when the default runtime is running already or the
 * caller is a fiber; -ENOMEM, -EAGAIN when threads or memory are short. May be called again afterwards. */
COIR_API int coir_run(coir_fn fn, void *arg);

/* Sets the configuration of the default runtime, which is made by its first use. Returns 0; -EBUSY when it exists
 * already; -EINVAL. `config` is copied. */
COIR_API int coir_configure(const struct coir_config *config);

/* Returns the default runtime, made on first use; NULL when memory is short. It lives until the process ends. */
COIR_API struct coir_runtime *coir_runtime_default(void);

/* Makes a runtime. Its workers do not run yet. `config` may be NULL and is copied.
 *
 * Returns 0 and the runtime in `*out`; -EINVAL for a bad field; -ENOMEM; -EMFILE, -ENFILE when descriptors are short.
 * Several runtimes may exist and run at once; fibers of one may join, cancel and wake fibers of another. */
COIR_API int coir_runtime_create(struct coir_runtime **out, const struct coir_config *config);

/* Runs fn(arg) as a fiber of `runtime`, the calling thread being worker 0, until it and every other fiber has ended.
 *
 * `status` (may be NULL) receives what `fn` returned. `fn` may be NULL: then this runs what was spawned before, and
 * returns at once when that is nothing. Returns 0; -EINVAL; -EBUSY when the runtime runs already or the caller is a
 * fiber; -EAGAIN when a thread cannot be made; -ENOMEM. On error no fiber has run. May be repeated. */
COIR_API int coir_runtime_run(struct coir_runtime *runtime, coir_fn fn, void *arg, int *status);

/* Starts the workers as threads in the background; the caller goes on. They stay, idle or not, until coir_runtime_stop.
 * Returns 0; -EBUSY when it runs already; -EAGAIN, -ENOMEM (nothing is left running); -EINVAL. */
COIR_API int coir_runtime_start(struct coir_runtime *runtime);

enum coir_stop {
  COIR_STOP_DRAIN = 0, /* wait until every fiber has ended by itself */
  COIR_STOP_CANCEL,    /* cancel every fiber, at every wait that it makes from now on, and wait until all have ended */
  COIR_STOP_ABANDON,   /* let running fibers reach their next suspension, and calls on pool threads their end, then
                          drop all fibers where they are: their memory is reclaimed, their clean-up code does not run,
                          joiners get the status -ECANCELED. The deadline has no meaning. */
};

/* Stops a runtime that coir_runtime_start started, and waits for its threads. It can be started again. Fibers that
 * other threads spawn while it stops may have to wait for that.
 *
 * Returns 0; -ETIMEDOUT when fibers were left at `deadline` (it then runs on, except that cancellation stays asked
 * for); -EINVAL when it was not started by coir_runtime_start; -EDEADLK when called by one of its own fibers. */
COIR_API int coir_runtime_stop(struct coir_runtime *runtime, enum coir_stop how, int64_t deadline);

/* Frees a runtime that does not run, with everything that it holds; fibers that never ran to their end are dropped.
 * NULL does nothing. Returns 0; -EBUSY while it runs; -EINVAL for the default runtime. No handle of its fibers may be
 * used afterwards, and no call on one may be under way. */
COIR_API int coir_runtime_destroy(struct coir_runtime *runtime);

/* Like coir_spawn, into `runtime` (NULL: the default one), from any thread or any fiber. */
COIR_API int coir_runtime_spawn(struct coir_runtime *runtime, coir_fn fn, void *arg, const struct coir_attr *attr,
                                struct coir_fiber **out);

/* What can be changed while a runtime runs. Values are brought into range as coir_config says; a switch is 0 or 1. */
struct coir_tuning {
  int steal, steal_min_live, steal_min_victim;
  int affinity;
  int rebalance, rebalance_threshold, rebalance_interval_ms;
};
COIR_API void coir_runtime_get_tuning(const struct coir_runtime *runtime, struct coir_tuning *out);
COIR_API void coir_runtime_set_tuning(struct coir_runtime *runtime, const struct coir_tuning *tuning);

/* Counters since the runtime was made. Each is exact for what its worker has finished and may lag for what is going
 * on. */
struct coir_stats {
  int workers, workers_idle, pollers;
  enum coir_guard guard; /* the mode in force */
  uint64_t fibers_live;  /* spawned and not ended */
  uint64_t fibers_spawned;
  uint64_t switches;                         /* fibers dispatched */
  uint64_t parks;                            /* waits that suspended a fiber */
  uint64_t wakes;                            /* fibers made ready after a wait */
  uint64_t steals_attempted, steals;         /* tries that passed the thresholds; fibers moved */
  uint64_t injected, injected_taken;         /* fibers queued in the shared lanes (from outside, by
                                        priority, by overflow); taken from there */
  uint64_t rebalances_attempted, rebalanced; /* imbalances found; fibers moved */
  uint64_t sleeps;                           /* times that a worker went to sleep */
  uint64_t polls, io_events;                 /* looks at a poller; events they brought */
  uint64_t timers_fired;
  uint64_t stacks_live, stacks_cached, stack_bytes_reserved;
  uint64_t stacks_unguarded; /* live or cached stacks that only have a canary */
};
COIR_API void coir_runtime_get_stats(struct coir_runtime *runtime, struct coir_stats *out);

enum coir_fiber_state { COIR_FIBER_READY = 0, COIR_FIBER_RUNNING, COIR_FIBER_WAITING, COIR_FIBER_ENDED };

/* One fiber as coir_runtime_list saw it. */
struct coir_fiber_info {
  uint64_t id;
  enum coir_fiber_state state;
  char name[32];
  const char *waits_for; /* "sleep", "join", "read", ...; "" unless WAITING; a static string */
  uint64_t waits_on;     /* what: a descriptor's number, another fiber's id; 0 where there is nothing to tell */
  int worker;            /* the worker that it ran on last; -1 when it has not run */
  size_t stack_bytes;    /* 0 before it first runs */
  size_t stack_used;     /* as it was suspended last; 0 before it first runs */
  coir_fn entry;
};

/* Stores up to `max` living fibers in `out` and returns how many live in all; `out` may be NULL when `max` is 0. The
 * list is a snapshot: fibers go on meanwhile. Does not wait, does not stop anybody. Any thread. */
COIR_API size_t coir_runtime_list(struct coir_runtime *runtime, struct coir_fiber_info *out, size_t max);

#ifdef __cplusplus
}
#endif
#endif
