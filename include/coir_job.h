/* coir_job.h: jobs, counters, and data-parallel loops.
 *
 * A job is a short function that runs to its end on some worker, as in the job systems of games (Gyrling,
 * "Parallelizing the Naughty Dog Engine Using Fibers", GDC 2015). A counter counts jobs down: who waits for it goes on
 * when it is zero. On Coir a job that waits, for a counter, a channel, or a socket, is a fiber like any other: its
 * worker goes on with other jobs meanwhile. A job that never waits costs no stack and no fiber of its own.
 *
 *     static void square(struct coir_job *job, void *n) { *(int *)n *= *(int *)n; }
 *     ...
 *     struct coir_job_system *jobs;
 *     coir_job_system_create(&jobs, NULL);                         as many workers as CPUs
 *     struct coir_counter *done = coir_job_run(jobs, square, &n);
 *     coir_counter_wait(done, COIR_NEVER);                         on a fiber, a job, or a plain thread
 *     coir_counter_unref(done);
 *     coir_job_system_destroy(jobs);
 *
 * The conventions are those of coir.h. In addition: a function that makes a counter returns it, with one reference that
 * the caller gives up by coir_counter_unref; NULL says that memory is short, an argument is bad, or the system has been
 * shut down, and then nothing was queued. coir_job_submit is the one call behind them all, and tells these apart. */
#ifndef COIR_JOB_H
#define COIR_JOB_H

#include "coir.h"

#ifdef __cplusplus
extern "C" {
#endif

struct coir_job_system; /* workers for jobs; opaque */
struct coir_job;        /* the job that runs; valid in its function only; opaque */

/* What a job runs; `job` is for the calls below that want it. It ends by returning, or by coir_job_fail: not by
 * coir_exit, which aborts here. C++: an exception must not leave it. */
typedef void (*coir_job_fn)(struct coir_job *job, void *arg);

/* ---- Counters -------------------------------------------------------------------------------------------------- */

/* Counts down to zero, and is waited for by any number of fibers and threads, each of which is woken once. It may lie
 * in the caller's own memory (coir_counter_init), for example in the frame of who waits; when it is complete nobody
 * touches it any more, so who has waited may let that memory go. Or it is made, and counted by references, by
 * coir_counter_create and by the calls that start jobs; jobs hold references of their own.
 *
 * What a job did before its end is visible to who has waited. */
struct coir_counter {
  uint64_t opaque[9];
};

/* Makes a counter in the caller's memory. */
COIR_API void coir_counter_init(struct coir_counter *counter, uint64_t n);

/* Makes a counter with one reference; NULL when memory is short. */
COIR_API struct coir_counter *coir_counter_create(uint64_t n);

/* Takes one more reference, and returns `counter`; more than 2^23 - 1 are fatal. NULL does nothing. Not for one in the
 * caller's memory. */
COIR_API struct coir_counter *coir_counter_ref(struct coir_counter *counter);

/* Gives up a reference; with the last one, and once it is zero, the counter goes. Jobs that count on it go on. NULL
 * does nothing. */
COIR_API void coir_counter_unref(struct coir_counter *counter);

/* Adds `n`; more than 2^40 - 1 in all is fatal. Does not wait. A counter that is complete may be used again, when no
 * waiter is left; who has given up is none. */
COIR_API void coir_counter_add(struct coir_counter *counter, uint64_t n);

/* Takes 1 away, and wakes all who wait when that makes it zero. Returns whether it did; afterwards the counter may be
 * gone. Below zero is fatal. Does not wait. */
COIR_API bool coir_counter_done(struct coir_counter *counter);

/* Returns the value. Jobs that have ended may still be in it as long as another of the same counter runs on their
 * worker; zero is exact. */
COIR_API uint64_t coir_counter_value(const struct coir_counter *counter);

/* Whether it is zero, so that a wait would return at once. */
COIR_API bool coir_counter_is_complete(const struct coir_counter *counter);

/* Returns how many of the jobs that it counted have failed (coir_job_fail). */
COIR_API uint64_t coir_counter_failures(const struct coir_counter *counter);

/* Sets the value, and the failures to 0. For tests: nobody may wait or count meanwhile. */
COIR_API void coir_counter_reset(struct coir_counter *counter, uint64_t n);

/* Waits until the counter is zero. A fiber or a job is suspended; a plain thread sleeps.
 *
 * Returns 0, or the number of its jobs that have failed; -ETIMEDOUT; -ECANCELED; -EINVAL for NULL. */
COIR_API int coir_counter_wait(struct coir_counter *counter, int64_t deadline);

/* ---- Job systems ----------------------------------------------------------------------------------------------- */

/* Which CPUs the threads of workers run on, worker 0 first; among those that the process may use. Where there are fewer
 * CPUs than workers they start again from the first; what the machine does not tell is taken to be one core per CPU,
 * and one cache for all. A thread that a job makes by pthread_create inherits its worker's CPU. */
enum coir_pinning {
  COIR_PIN_NONE = 0,      /* wherever the system puts them */
  COIR_PIN_LINEAR,        /* worker i on the i-th CPU */
  COIR_PIN_AVOID_SMT,     /* one CPU of each core first, siblings after */
  COIR_PIN_CCD_ISOLATION, /* only CPUs that share the first CPU's last-level cache, one of each core first */
  COIR_PIN_TIERED_SPILLOVER, /* cores of the first cache, then all other cores, then siblings; idle workers are woken in
                                that order, so a later tier works only when the former is busy */
};

/* Zero is the default of every field. */
struct coir_job_config {
  size_t size;              /* sizeof(struct coir_job_config); 0 is taken as this header's */
  int threads;              /* workers, each a thread; 1..64; default: CPUs that this process may use */
  size_t stack_bytes;       /* of a job that waits; default 64 KiB */
  int enable_yielding;      /* enum coir_switch; off: coir_job_yield is sched_yield, so nothing runs inside a job that
                               only yields; waits suspend all the same. Default on */
  size_t max_pooled_fibers; /* stacks kept per worker when they are unused; default 32 */
  size_t initial_pool_size; /* of those made by coir_job_system_create; default 0 */
  size_t target_pool_size;  /* where it is larger than max_pooled_fibers it counts instead of that */
  size_t frame_bytes;       /* page of each worker's frame allocator (coir_job_frame_alloc); 64 KiB at least; default
                               64 KiB */
  int prefetch_pages;       /* enum coir_switch; the initial stacks' first page is touched at once; default off */
  enum coir_pinning pinning;
  int metrics; /* enum coir_switch; coir_job_system_metrics has something to say; default off */
  int trace;   /* enum coir_switch; coir_job_system_export_trace has something to write; default off: each job costs two
                  looks at the clock and 32 bytes */
  int monitor; /* enum coir_switch; as coir_config.monitor: workers leave jobs that block their thread at once, and jobs
                  that compute after a second. Default on */
};

/* Settings for kinds of programs: stack, initial and target pool, frame, pinning. */
enum coir_job_preset {
  COIR_JOBS_GAMING = 0,      /* 256 KiB, 64, 512, 2 MiB, AVOID_SMT */
  COIR_JOBS_THROUGHPUT,      /* 512 KiB, 32, 256, 1 MiB, NONE */
  COIR_JOBS_DATA_PROCESSING, /* 512 KiB, 32, 256, 1 MiB, TIERED_SPILLOVER */
  COIR_JOBS_LOW_LATENCY,     /* 128 KiB, 8, 64, 512 KiB, AVOID_SMT */
  COIR_JOBS_STRICT_TOPOLOGY, /* 512 KiB, 16, 128, 1 MiB, LINEAR */
};

/* Fills `out`, the rest of it with zero. Returns 0; -EINVAL for a preset that does not exist, or NULL. */
COIR_API int coir_job_config_preset(struct coir_job_config *out, enum coir_job_preset preset);

/* Makes a system, and starts its workers. `config` may be NULL and is copied. Several systems may exist at once. The
 * caller is no worker.
 *
 * Returns 0 and the system in `*out`; -EINVAL; -ENOMEM; -EAGAIN when a thread cannot be made; -EMFILE, -ENFILE,
 * -ENOSPC as coir_runtime_create. */
COIR_API int coir_job_system_create(struct coir_job_system **out, const struct coir_job_config *config);

/* Finishes what is queued, and all that comes of it, and stops the workers. New jobs are refused from outside; jobs may
 * go on to spawn others. Waits; from a plain thread or a fiber of another runtime. May be repeated.
 *
 * Returns 0; a positive number: so many jobs have failed in all; -ETIMEDOUT: the system takes no more jobs, and this is
 * to be called again; -ECANCELED; -EDEADLK when the caller is one of its own jobs or fibers; -EINVAL for NULL. */
COIR_API int coir_job_system_shutdown(struct coir_job_system *system, int64_t deadline);

/* Says what coir_job_system_shutdown has returned: "ok", "3 worker thread(s) panicked", "shutdown timed out", or what
 * strerror says. Writes at most `bytes` with the end, and returns `out`. */
COIR_API char *coir_job_shutdown_message(int result, char *out, size_t bytes);

/* Shuts down, without a deadline, unless that has been done, and frees the system. NULL does nothing. Called by one of
 * its own jobs it prints a message and aborts. */
COIR_API void coir_job_system_destroy(struct coir_job_system *system);

/* The runtime behind it: for coir_runtime_spawn, coir_runtime_get_stats and the rest. It lives as long as the system,
 * which alone starts and stops it. */
COIR_API struct coir_runtime *coir_job_system_runtime(struct coir_job_system *system);

/* The system whose job, or other fiber of its runtime, the caller is; NULL on anything else. */
COIR_API struct coir_job_system *coir_job_system_current(void);

/* How many workers there are; and how many are executing a job just now: 0 when all are idle. */
COIR_API int coir_job_system_workers(const struct coir_job_system *system);
COIR_API int coir_job_system_active(struct coir_job_system *system);

/* Names that older programs use: 0 threads are as many as CPUs. NULL when it cannot be made. */
typedef struct coir_job_system JobSystem;
COIR_API JobSystem *JobSystem_Create(size_t threads);
COIR_API void JobSystem_Destroy(JobSystem *system);

/* ---- Starting jobs --------------------------------------------------------------------------------------------- */

/* One job. Zero is the default of every field but `fn`. */
struct coir_job_desc {
  coir_job_fn fn;
  void *arg;
  size_t copy_bytes; /* not 0: so many bytes at `arg` are copied, and the job gets the address of the copy, which is
                        aligned to 16 and lives until its end */
  enum coir_priority priority; /* high runs before normal before low; none starves */
  uint32_t worker;             /* COIR_WORKER(i): starts on worker i and nowhere else */
  bool pinned;                 /* never leaves the worker that it starts on */
  struct coir_scope *scope;    /* it is a fiber of that scope, which lives until it has ended; cancelling that scope
                                  cancels what the job waits for; only for one at a time; else NULL */
  const char *name;            /* shown in traces and dumps: a string that lives as long as the system; or NULL */
};

/* Queues `n` jobs. From a job of the system they go to its worker's own queue, newest first; others take the oldest.
 * From anywhere else they are queued first come, first served; those of one call together, and the first runs first,
 * but for one in 10 ms.
 *
 * `counter` NULL: nobody waits for them. *counter NULL: a new counter for all of them is stored there. Else they are
 * added to that one, which must stay until they have ended, or counts references.
 *
 * Returns 0; -EINVAL; -ENOMEM; -ESHUTDOWN when the system has been shut down (from a job of it: when it has stopped);
 * -ECANCELED when the scope has been cancelled; -ENOTSUP in the child of a fork. On error nothing was queued. Does
 * not wait. Any thread. */
COIR_API int coir_job_submit(struct coir_job_system *system, const struct coir_job_desc *jobs, size_t n,
                             struct coir_counter **counter);

/* One job; the same by priority; one whose argument is copied; many, with one counter. Any thread. */
COIR_API struct coir_counter *coir_job_run(struct coir_job_system *system, coir_job_fn fn, void *arg);
COIR_API struct coir_counter *coir_job_run_priority(struct coir_job_system *system, enum coir_priority priority,
                                                    coir_job_fn fn, void *arg);
COIR_API struct coir_counter *coir_job_run_copy(struct coir_job_system *system, coir_job_fn fn, const void *payload,
                                                size_t bytes);
COIR_API struct coir_counter *coir_job_run_many(struct coir_job_system *system, const struct coir_job_desc *jobs,
                                                size_t n);

/* The same from a job, in its system. spawn_detached: nobody waits; spawn_with: added to `counter`. These two return 0;
 * -EINVAL; -ENOMEM. They do not wait: the job that spawns goes on. */
COIR_API struct coir_counter *coir_job_spawn(struct coir_job *job, coir_job_fn fn, void *arg);
COIR_API struct coir_counter *coir_job_spawn_many(struct coir_job *job, const struct coir_job_desc *jobs, size_t n);
COIR_API int coir_job_spawn_detached(struct coir_job *job, coir_job_fn fn, void *arg);
COIR_API int coir_job_spawn_with(struct coir_job *job, struct coir_counter *counter, coir_job_fn fn, void *arg);

/* ---- In a job -------------------------------------------------------------------------------------------------- */

/* The system that the job runs in. */
COIR_API struct coir_job_system *coir_job_system_of(const struct coir_job *job);

/* Waits until the counter is zero; the worker runs other jobs meanwhile. Returns as coir_counter_wait without a
 * deadline. */
COIR_API int coir_job_wait(struct coir_job *job, struct coir_counter *counter);

/* The same by yielding until it is zero: for waits that are known to be very short. */
COIR_API int coir_job_wait_yielding(struct coir_job *job, struct coir_counter *counter);

/* Lets others run first: the job goes behind the fibers and jobs that are ready, but for a turn in 16, in which it may
 * come before jobs of its worker's own queue. */
COIR_API void coir_job_yield(struct coir_job *job);

/* The same without a job at hand; on a plain thread sched_yield. */
COIR_API void coir_job_yield_now(void);

/* Ends the job as failed, from any depth of calls. Its counter goes down, which remembers the failure, and so does
 * its system; the worker goes on. `format` and what follows, as for printf, are written to stderr, after "coir: job
 * failed: ". Frames are left as by longjmp: what they hold is not released, and C++ destructors do not run.
 *
 * In coir_fork2 or a parallel loop what has been begun elsewhere is waited for first; then the caller of the loop
 * fails in the same way, up to the job, or up to the outermost such call, which returns -ECANCELED there. Shields and
 * holds are let go of. Anywhere else it prints a message and aborts; so it does when a scope has been opened on the
 * way, and when it would leave what coir_once_do or coir_flight_do runs, whose end others wait for. What runs in
 * coir_block must not fail. */
COIR_API void coir_job_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- Memory for a frame ---------------------------------------------------------------------------------------- */

/* Returns `bytes` bytes, aligned to `align` (a power of two, up to 4096; 0: 16), from the allocator of the worker; not
 * cleared, and valid until the next coir_job_system_start_frame. What is larger than a page, or finds no page, comes
 * from the heap, with the same life. NULL when memory is short. Does not wait. */
COIR_API void *coir_job_frame_alloc(struct coir_job *job, size_t bytes, size_t align);

/* Forgets everything that coir_job_frame_alloc has given, and keeps the pages. The caller sees to it that no job uses
 * any of it, or asks for more meanwhile. */
COIR_API void coir_job_system_start_frame(struct coir_job_system *system);

/* A bump allocator over one block of memory. Not for several threads at once. */
struct coir_frame; /* opaque */
COIR_API struct coir_frame *coir_frame_create(size_t capacity); /* NULL: memory is short */
COIR_API void coir_frame_destroy(struct coir_frame *frame);     /* NULL does nothing */
COIR_API void *coir_frame_alloc(struct coir_frame *frame, size_t bytes, size_t align); /* NULL: it is used up */
COIR_API void coir_frame_reset(struct coir_frame *frame);                              /* all of it is free again */
COIR_API size_t coir_frame_used(const struct coir_frame *frame);     /* bytes, with those lost by alignment */
COIR_API size_t coir_frame_capacity(const struct coir_frame *frame); /* bytes */

/* The same over as many pages as it takes. `page_bytes` is 64 KiB at least. alloc returns NULL for what is larger than
 * a page, and when memory is short. reset keeps the pages; capacity is that of the pages that there are. */
struct coir_paged_frame; /* opaque */
COIR_API struct coir_paged_frame *coir_paged_frame_create(size_t page_bytes);
COIR_API void coir_paged_frame_destroy(struct coir_paged_frame *frame);
COIR_API void *coir_paged_frame_alloc(struct coir_paged_frame *frame, size_t bytes, size_t align);
COIR_API void coir_paged_frame_reset(struct coir_paged_frame *frame);
COIR_API size_t coir_paged_frame_used(const struct coir_paged_frame *frame);
COIR_API size_t coir_paged_frame_capacity(const struct coir_paged_frame *frame);

/* ---- Fork and join, and loops ---------------------------------------------------------------------------------- */

/* All of these return when everything is done. They run on the workers of `system`. NULL: on those of the calling
 * fiber's or job's runtime, whichever it is; on a plain thread, which has none, in the caller alone. From a fiber of
 * another runtime, or a plain thread, the call waits meanwhile.
 *
 * They need no memory of the heap, but for what comes from outside: then one job is queued. They return 0; -EINVAL;
 * -ENOMEM and -ESHUTDOWN (from outside; nothing was begun); -ECANCELED when a body failed (see coir_job_fail). They are
 * not interrupted by cancellation. A range with lo > hi is -EINVAL, and one with lo == hi nothing to do.
 *
 * Bodies may call these again, and may wait; those that wait for I/O wait at the same time. The two sides of coir_fork2
 * may wait for each other, and so may ranges of a grain of 1; otherwise a body must not wait for another of its loop,
 * which may be meant to run after it. */

typedef void (*coir_task_fn)(void *arg);
typedef void (*coir_index_fn)(size_t i, void *arg);
typedef void (*coir_range_fn)(size_t lo, size_t hi, void *arg); /* lo <= i < hi; lo < hi */
typedef void (*coir_elem_fn)(void *elem, void *arg);

/* Runs a(a_arg) and b(b_arg), possibly at the same time: the caller runs `a`, and then `b`, unless another worker has
 * taken that. Nothing is allocated, and unless it is taken no locked instruction is executed. Who waits for one that
 * was taken is suspended, and its worker goes on with other work, on other stacks; so nothing unrelated runs on top
 * of it. A side that was taken runs on a fiber of its own, with a stack of the same size, but without the caller's
 * innermost scope, local values and shields.
 *
 * Returns 0, or -ECANCELED when the outermost call of a plain fiber had a side that failed. */
COIR_API int coir_fork2(coir_task_fn a, void *a_arg, coir_task_fn b, void *b_arg);

/* body(i, arg) for each lo <= i < hi. How many go at once is found out meanwhile: a worker splits what it has left only
 * when others are out of work (Tzannes, Caragea, Barua, Vishkin, "Lazy Binary-Splitting", PPoPP 2010), and looks
 * whether they are about every 10 us. */
COIR_API int coir_parallel_for(struct coir_job_system *system, size_t lo, size_t hi, coir_index_fn body, void *arg);

/* The same over ranges: body(from, to, arg). `grain` 0: as above; else each range but the last is of `grain` exactly,
 * at lo + k * grain. */
COIR_API int coir_parallel_range(struct coir_job_system *system, size_t lo, size_t hi, size_t grain,
                                 coir_range_fn body, void *arg);

/* body(element, arg) for each of `count` elements of `elem_bytes` bytes at `base`. */
COIR_API int coir_parallel_each(struct coir_job_system *system, void *base, size_t count, size_t elem_bytes,
                                coir_elem_fn body, void *arg);

/* What reduce and scan are made of: values of `bytes` bytes (at most 256, aligned to 16 at most), in which what lies in
 * a range is summed up. */
struct coir_monoid {
  size_t bytes;
  const void *identity;                                            /* the value of nothing */
  void (*sum)(size_t lo, size_t hi, void *value, void *arg);       /* value = value + what is in the range */
  void (*combine)(void *left, const void *right, void *arg);       /* left = left + right; associative */
};

/* Sums up lo <= i < hi into `*out`, in order, from left to right. `grain` as in coir_parallel_range; which ranges there
 * are may differ from call to call when it is 0, and with it how floating-point numbers are rounded; with a grain they
 * are the same in each call, and so is the tree of `combine`. */
COIR_API int coir_parallel_reduce(struct coir_job_system *system, size_t lo, size_t hi, size_t grain,
                                  const struct coir_monoid *monoid, void *arg, void *out);

/* Calls apply(from, to, before, arg) for ranges that make up lo <= i < hi, where `before` is the sum of all that lies
 * before `from`. Two passes over the data: sums of blocks first (Blelloch, "Prefix Sums and Their Applications", 1990).
 * `out`, unless NULL, receives the sum of all. */
COIR_API int coir_parallel_scan(struct coir_job_system *system, size_t lo, size_t hi, const struct coir_monoid *monoid,
                                void (*apply)(size_t lo, size_t hi, const void *before, void *arg), void *arg,
                                void *out);

/* One loop of several. */
struct coir_phase {
  size_t lo, hi, grain; /* as in coir_parallel_range */
  coir_range_fn body;
  void *arg;
};

/* Runs loops one after the other: each begins when the former has ended, and sees what that did. */
COIR_API int coir_parallel_phases(struct coir_job_system *system, const struct coir_phase *phases, size_t n);

/* Sorts `count` elements of `bytes` bytes; stable. `compare` returns less than, equal to, or more than 0. Needs memory
 * for as many elements: -ENOMEM. Sorting by a function of the program's that the compiler can see: coir_sort.h. */
COIR_API int coir_parallel_sort(struct coir_job_system *system, void *base, size_t count, size_t bytes,
                                int (*compare)(const void *a, const void *b, void *arg), void *arg);

/* ---- Loops as jobs --------------------------------------------------------------------------------------------- */

/* The same without waiting: ceil((hi - lo) / batch) jobs, of which the last may be short, and a counter for them. A
 * batch of 0 is 1; an empty range gives a counter that is complete. NULL also when lo > hi, or with more than 2^32 - 1
 * jobs. Any thread. */
COIR_API struct coir_counter *coir_job_parallel_for(struct coir_job_system *system, size_t lo, size_t hi, size_t batch,
                                                    coir_index_fn body, void *arg);
COIR_API struct coir_counter *coir_job_parallel_for_chunked(struct coir_job_system *system, size_t lo, size_t hi,
                                                            size_t batch, coir_range_fn body, void *arg);

/* How much a body does: 2, 4, 8, 16 batches for each worker. */
enum coir_grain { COIR_GRAIN_TRIVIAL = 0, COIR_GRAIN_LIGHT, COIR_GRAIN_MODERATE, COIR_GRAIN_HEAVY };

/* The batch for a range of `length`: length / (workers * batches for each), and not less than 1. */
COIR_API size_t coir_job_batch(const struct coir_job_system *system, size_t length, enum coir_grain grain);

/* The batch that makes `parts` batches of it; 0: 4 for each worker. */
COIR_API size_t coir_job_batch_of(const struct coir_job_system *system, size_t length, size_t parts);

static inline struct coir_counter *coir_job_parallel_for_auto(struct coir_job_system *system, size_t lo, size_t hi,
                                                              coir_index_fn body, void *arg) {
  size_t batch = lo < hi ? coir_job_batch(system, hi - lo, COIR_GRAIN_LIGHT) : 1;
  return coir_job_parallel_for(system, lo, hi, batch, body, arg);
}
static inline struct coir_counter *coir_job_parallel_for_with_hint(struct coir_job_system *system, size_t lo,
                                                                   size_t hi, enum coir_grain grain,
                                                                   coir_index_fn body, void *arg) {
  size_t batch = lo < hi ? coir_job_batch(system, hi - lo, grain) : 1;
  return coir_job_parallel_for(system, lo, hi, batch, body, arg);
}
static inline struct coir_counter *coir_job_parallel_for_chunked_auto(struct coir_job_system *system, size_t lo,
                                                                      size_t hi, coir_range_fn body, void *arg) {
  size_t batch = lo < hi ? coir_job_batch(system, hi - lo, COIR_GRAIN_MODERATE) : 1;
  return coir_job_parallel_for_chunked(system, lo, hi, batch, body, arg);
}
static inline struct coir_counter *coir_job_parallel_for_chunked_with_hint(struct coir_job_system *system, size_t lo,
                                                                           size_t hi, enum coir_grain grain,
                                                                           coir_range_fn body, void *arg) {
  size_t batch = lo < hi ? coir_job_batch(system, hi - lo, grain) : 1;
  return coir_job_parallel_for_chunked(system, lo, hi, batch, body, arg);
}
/* `parts` 0: 4 for each worker. */
static inline struct coir_counter *coir_job_parallel_for_partitioned(struct coir_job_system *system, size_t lo,
                                                                     size_t hi, size_t parts, coir_index_fn body,
                                                                     void *arg) {
  size_t batch = lo < hi ? coir_job_batch_of(system, hi - lo, parts) : 1;
  return coir_job_parallel_for(system, lo, hi, batch, body, arg);
}

/* ---- Raw fibers ------------------------------------------------------------------------------------------------ */

/* A function on a stack of its own, which can stop in the middle and go on later: a coroutine, within a fiber of Coir
 * or a job. Nothing is queued: resuming and yielding switch stacks, and do nothing else. To every other call what runs
 * there is the fiber that has resumed it: so it may wait, which suspends that fiber altogether, and go on on another
 * thread; it may resume others, and spawn. `struct coir_gen` (coir.h) has a fiber of its own, passes cancellation on,
 * and can be resumed on plain threads, at five times the cost. */
struct coir_raw_fiber; /* opaque */

/* What coir_raw_fiber_resume returns. */
enum coir_raw_result {
  COIR_RAW_COMPLETE = 0, /* the function has returned */
  COIR_RAW_YIELDED = 1,  /* it has called coir_raw_fiber_yield */
  COIR_RAW_FAILED = 2,   /* it has called coir_job_fail, and goes no further than here: the fiber does not fail */
};

/* Makes one, free, that belongs to no system. `stack_bytes`: 16 KiB to 1 GiB; 0: 64 KiB. Returns 0; -EINVAL; -ENOMEM.
 * Any thread. */
COIR_API int coir_raw_fiber_create(struct coir_raw_fiber **out, size_t stack_bytes);

/* Frees it. What has yielded never goes on; what its frames hold is not released. One that runs, or has resumed another
 * that runs, is fatal. NULL does nothing. Any thread. */
COIR_API void coir_raw_fiber_destroy(struct coir_raw_fiber *fiber);

/* Runs fn(arg) on it, when it is free; or goes on with what has yielded, whatever `fn` and `arg` are then, which any
 * fiber may do. When the fiber that has resumed it is dropped with its runtime, it is free again.
 *
 * Returns one of the above; after COMPLETE and FAILED it is free. -EBUSY: it runs, or has resumed another that runs;
 * -EINVAL for NULL, or when it is free and `fn` is NULL; -ENOTSUP on a plain thread. */
COIR_API int coir_raw_fiber_resume(struct coir_raw_fiber *fiber, coir_task_fn fn, void *arg);

/* Goes back to who has resumed it; returns when it is resumed again. Scopes, shields and holds that it has begun since
 * then must have ended, here and when the function returns, and so must forks, parallel loops, coir_once_do and
 * coir_flight_do here; else, and when the caller is on no raw fiber, it prints a message and aborts. */
COIR_API void coir_raw_fiber_yield(void);

/* The one on which the caller is, the innermost if there are several; NULL: none. */
COIR_API struct coir_raw_fiber *coir_raw_fiber_current(void);

/* Free ones with stacks of one size. Any thread, several at once. */
struct coir_fiber_pool; /* opaque */

/* Makes a pool, and `count` of them in it. `stack_bytes` and results as for coir_raw_fiber_create. */
COIR_API int coir_fiber_pool_create(struct coir_fiber_pool **out, size_t count, size_t stack_bytes);

/* Makes `n` more. Returns 0; -EINVAL for NULL; -ENOMEM, and those that could be made are in it. */
COIR_API int coir_fiber_pool_grow(struct coir_fiber_pool *pool, size_t n);

/* Takes the one that was put back last, or makes one when it is empty. NULL: memory is short. */
COIR_API struct coir_raw_fiber *coir_fiber_pool_get(struct coir_fiber_pool *pool);

/* Puts one back, as if it were destroyed first when it has yielded; and destroys it when its stack has another size.
 * One that runs is fatal. NULL does nothing. */
COIR_API void coir_fiber_pool_put(struct coir_fiber_pool *pool, struct coir_raw_fiber *fiber);

/* How many are in it; whether there are none. */
COIR_API size_t coir_fiber_pool_length(struct coir_fiber_pool *pool);
COIR_API bool coir_fiber_pool_is_empty(struct coir_fiber_pool *pool);

/* Frees it and those that are in it; others stay. NULL does nothing. */
COIR_API void coir_fiber_pool_destroy(struct coir_fiber_pool *pool);

/* ---- Looking at a system --------------------------------------------------------------------------------------- */

/* Since the system was made. Each is exact when all are idle. */
struct coir_job_metrics {
  uint64_t jobs_completed, jobs_failed;
  uint64_t local_queue_pushes, local_queue_pops;       /* workers' own queues */
  uint64_t global_injector_pushes, global_injector_pops; /* from outside, or by priority; jobs that are queued
                                                           there by one call are one */
  uint64_t worker_steals_success, worker_steals_failed; /* tries to take from another worker */
  uint64_t worker_steals_retry;                         /* of the failed: somebody else was quicker */
  uint64_t jobs_stolen;
  double elapsed_seconds;
  double jobs_per_second;
  int64_t local_queue_depth, global_queue_depth; /* pushes - pops */
};

/* Returns 0; -ENOTSUP when the system was made without metrics; -EINVAL. Any thread. */
COIR_API int coir_job_system_metrics(struct coir_job_system *system, struct coir_job_metrics *out);

/* Writes what ran where and when, since the system was made, as a JSON array of complete events of Chrome's trace
 * format, which Perfetto reads too: name, ph "X", ts and dur in us, pid 1, tid the worker. A job that waits by
 * coir_job_wait, or yields, is an event for each time that it ran; other waits lie within one. Blocks the thread for
 * the file. Returns 0; -ENOTSUP when the system was made without trace; -EINVAL; what open(2) or write(2) say. */
COIR_API int coir_job_system_export_trace(struct coir_job_system *system, const char *path);

/* The machine as far as this process may use it: its affinity mask, and its quota of CPUs. */
struct coir_topology; /* opaque */
COIR_API struct coir_topology *coir_topology_detect(void); /* NULL: memory is short */
COIR_API void coir_topology_destroy(struct coir_topology *topology); /* NULL does nothing */
COIR_API int coir_topology_cpus(const struct coir_topology *topology);  /* CPUs in the mask */
COIR_API int coir_topology_cores(const struct coir_topology *topology); /* physical cores among them */
COIR_API int coir_topology_nodes(const struct coir_topology *topology); /* of memory, with CPUs among them */
COIR_API int coir_topology_usable(const struct coir_topology *topology); /* what the quota leaves of cpus; 1 or more */
/* What the system calls the i-th CPU; and the number of its node, its core, its last-level cache, from 0, as others
 * have the same. -EINVAL: there is no such. */
COIR_API int coir_topology_cpu(const struct coir_topology *topology, int i);
COIR_API int coir_topology_node_of(const struct coir_topology *topology, int i);
COIR_API int coir_topology_core_of(const struct coir_topology *topology, int i);
COIR_API int coir_topology_cache_of(const struct coir_topology *topology, int i);
/* Stores which CPUs share a core with the i-th, itself among them, as the system calls them, and returns how many. At
 * most `max` are stored. */
COIR_API int coir_topology_siblings(const struct coir_topology *topology, int i, int *out, int max);
/* Which CPU worker w would run on, as the system calls it; -1 for COIR_PIN_NONE; -EINVAL. `tier` may be NULL: of
 * COIR_PIN_TIERED_SPILLOVER 0 to 2, else 0. Those that share a CPU with a former worker are of the last. */
COIR_API int coir_topology_place(const struct coir_topology *topology, enum coir_pinning pinning, int worker,
                                 int *tier);

#ifdef __cplusplus
}
#endif
#endif
