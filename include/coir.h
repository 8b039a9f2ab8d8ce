/* coir.h: fibers, time, channels, select, locks, scopes, generators, timers and runtimes.
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
 *   - The first such call of a plain thread makes a record of it. Without memory for that it prints a message and
 *     aborts. coir_local_set and coir_scope_open make one, too, and return -ENOMEM then.
 *   - A fiber may go on on another thread after any waiting call, and after nothing else. Do not keep the address of a
 *     thread-local, a locked pthread mutex, or what pthread_self() said across one (docs/tls.md). errno itself is kept
 *     per fiber:
 *     the fiber finds its own again after waiting. But compilers keep errno's address, too, within one function: read
 *     it before waiting, or in a function of its own.
 *   - Only calls that docs/processes.md lists may be made from a signal handler.
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
  size_t stack_bytes; /* 0: the runtime's stack_bytes; at least 16 KiB, at most 1 GiB; rounded up to 16 KiB
                         times a power of two */
  enum coir_priority priority; /* high runs before normal before low; none starves */
  enum coir_order order;       /* ignored when `worker` is given or the priority is not normal */
  uint32_t worker;             /* COIR_WORKER(i): start on worker i and nowhere else */
  bool pinned;                 /* never leave the worker it starts on (for legacy code that keeps thread-locals) */
  bool detached; /* nobody will join it: with `out`, what is stored there may only be compared (with coir_current) */
  bool is_void;  /* `fn` is a void (*)(void *), cast to coir_fn: its status is 0 */
  int preempt;   /* enum coir_switch: COIR_ON, it is paused when it has computed for a quantum and others could run;
                    COIR_OFF, it is not; 0: as coir_config.preempt says (docs/blocking.md) */
};

/* Starts a fiber that runs fn(arg).
 *
 * `attr` may be NULL. With `out` the fiber's handle is stored there, and it must be given up by exactly one coir_join
 * or coir_detach; with `out` NULL the fiber is detached from the start. From a fiber the new one belongs to the same
 * runtime; from a plain thread to the default runtime, whose workers pick it up when they run (it may be spawned
 * before).
 *
 * Returns 0; -EINVAL for a NULL `fn`, a stack size out of range, a priority, order or switch that does not exist, or a
 * worker that the runtime does not have; -ENOTSUP when it is to be preempted, and coir_config.preempt_signal cannot be
 * caught; -ENOMEM. On error nothing was started and `*out` is NULL. Does not wait; the fiber does not run inside the
 * call. What the caller wrote before is visible to the fiber. */
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
 * is not released. Called on a plain thread, or in what coir_once_do or coir_flight_do runs, it prints a message and
 * aborts. */
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

/* Returns the number of the worker that runs the calling fiber, from 0; -1 on a plain thread. Of a fiber whose worker
 * has been taken away (see coir_block_enter): of the one that it had, which may be running another fiber by now. Unless
 * the fiber is pinned it may change at every wait, and, with preemption, anywhere but between coir_hold_begin and
 * coir_hold_end. */
COIR_API int coir_worker_index(void);

/* Returns the runtime of the calling fiber; on a plain thread NULL. */
COIR_API struct coir_runtime *coir_runtime_current(void);

/* ---- Channels -------------------------------------------------------------------------------------------------- */

/* A channel carries values of one size from senders to receivers, in order: values, waiting senders and waiting
 * receivers are each served first come, first served. It holds up to `capacity` values; with capacity 0 a send
 * completes when a receiver takes the value from the sender's hands. Fibers of any runtime and plain threads may use
 * one channel together.
 *
 * A channel is reference-counted: coir_chan_create gives the caller one reference, coir_chan_ref one more, and
 * whoever holds one gives it up by coir_chan_unref; the last frees the channel and what it still buffers. Every call
 * on a channel needs a reference that stays held until the call returns; it may be somebody else's, such as the
 * parent's who waits for its children. A send no longer needs it once its value has been received: so whoever receives
 * the last value may give up the last reference. A select needs those of all its arms until it returns.
 *
 * What a sender wrote before the send is visible to whoever receives the value. */
struct coir_chan; /* opaque */

/* Makes a channel for values of `elem_bytes` bytes (0 is allowed: a channel that only signals) with room for
 * `capacity` of them. Returns it with one reference; NULL when memory is short or the size cannot be represented. Does
 * not wait. */
COIR_API struct coir_chan *coir_chan_create(size_t elem_bytes, size_t capacity);

/* Takes one more reference, and returns `chan`. NULL does nothing. */
COIR_API struct coir_chan *coir_chan_ref(struct coir_chan *chan);

/* Gives up a reference. NULL does nothing. Whoever gives up the last must see to it that nobody uses the channel. */
COIR_API void coir_chan_unref(struct coir_chan *chan);

/* Sends the value at `value` (elem_bytes bytes, copied before the call returns).
 *
 * Waits while the buffer is full and no receiver waits. Returns 0 when a receiver or the buffer has the value; after
 * an error nothing was sent: -EPIPE, the channel is closed, or was closed while the call waited; -ETIMEDOUT, also
 * with a deadline of 0 when it would have had to wait; -ECANCELED; -EINVAL for a NULL channel, and for a NULL value
 * unless elem_bytes is 0. */
COIR_API int coir_chan_send(struct coir_chan *chan, const void *value, int64_t deadline);

/* Receives the oldest value into `value` (elem_bytes bytes); `value` NULL drops it.
 *
 * Waits while there is none. Returns 0; -EPIPE when the channel is closed and everything that was sent before has been
 * received; -ETIMEDOUT, also with a deadline of 0 when it would have had to wait; -ECANCELED; -EINVAL for NULL. After
 * an error nothing was taken, and `*value` is as it was. */
COIR_API int coir_chan_recv(struct coir_chan *chan, void *value, int64_t deadline);

/* Closes the channel: sends fail from now on, waiting senders return -EPIPE and keep their values, buffered values
 * can still be received, and then receivers get -EPIPE. Closing twice does nothing, and so does NULL. Does not wait. */
COIR_API void coir_chan_close(struct coir_chan *chan);

/* How many values are buffered just now, how many there is room for, and whether it has been closed. NULL: 0, false. */
COIR_API size_t coir_chan_length(const struct coir_chan *chan);
COIR_API size_t coir_chan_capacity(const struct coir_chan *chan);
COIR_API bool coir_chan_is_closed(const struct coir_chan *chan);

/* Typed channels: the same calls, and the compiler sees to it that the values are of the channel's type.
 *
 *     COIR_CHAN(int) c = COIR_CHAN_CREATE(int, 16);
 *     int v = 42;
 *     COIR_SEND(c, &v, COIR_NEVER);
 *     COIR_RECV(c, &v, COIR_NEVER);
 *     COIR_CHAN_UNREF(c);
 *
 * COIR_CHAN(T) is a type, the same wherever it is written for the same T, for variables, parameters and members. It is
 * as large as a pointer and NULL is no channel. COIR_SEND takes a T * or const T *, COIR_RECV a T *; anything else is
 * an error. `T` is any complete type without a qualifier of its own. Each argument is evaluated once. */
#define COIR__CHAN_TAG 29539 /* the bound of an array that nobody makes: tells these pointers from all others */
#ifdef __cplusplus
} /* extern "C" */
template <class T> using coir__chan_of = T *(*)[COIR__CHAN_TAG];
#define COIR_CHAN(T) coir__chan_of<T>
#define COIR_CHAN_RAW(c) (coir__chan_raw(c))
#define COIR_CHAN_CREATE(T, capacity) (reinterpret_cast<coir__chan_of<T>>(coir_chan_create(sizeof(T), (capacity))))
template <class T> static inline struct coir_chan *coir__chan_raw(T *(*c)[COIR__CHAN_TAG]) {
  return reinterpret_cast<struct coir_chan *>(c);
}
/* T is deduced from both, so a pointer that would only convert, to a base class say, is an error. */
template <class T> static inline int coir__chan_send(T *(*c)[COIR__CHAN_TAG], const T *v, int64_t deadline) {
  return coir_chan_send(coir__chan_raw(c), v, deadline);
}
template <class T> static inline int coir__chan_recv(T *(*c)[COIR__CHAN_TAG], T *v, int64_t deadline) {
  return coir_chan_recv(coir__chan_raw(c), v, deadline);
}
template <class T> static inline const void *coir__chan_from(T *(*)[COIR__CHAN_TAG], const T *v) { return v; }
template <class T> static inline void *coir__chan_to(T *(*)[COIR__CHAN_TAG], T *v) { return v; }
#define COIR_SEND(c, value, deadline) (coir__chan_send((c), (value), (deadline)))
#define COIR_RECV(c, value, deadline) (coir__chan_recv((c), (value), (deadline)))
#define COIR__FROM(c, value) coir__chan_from((c), (value))
#define COIR__TO(c, value) coir__chan_to((c), (value))
extern "C" {
#else
#define COIR_CHAN(T) __typeof__(__typeof__(T) *(*)[COIR__CHAN_TAG])
#define COIR__ELEM(c) __typeof__(***(c))
/* A pointer comparison of other types than these does not compile: the first is no typed channel, the second not its
 * element's. */
#define COIR_CHAN_RAW(c) ((struct coir_chan *)(void *)_Generic((c), COIR_CHAN(COIR__ELEM(c)) : (c)))
#define COIR_CHAN_CREATE(T, capacity) ((COIR_CHAN(T))(void *)coir_chan_create(sizeof(T), (capacity)))
#define COIR__FROM(c, value) _Generic((value), COIR__ELEM(c) * : (value), const __typeof__(COIR__ELEM(c)) * : (value))
#define COIR__TO(c, value) _Generic((value), COIR__ELEM(c) * : (value))
#define COIR_SEND(c, value, deadline) (coir_chan_send(COIR_CHAN_RAW(c), COIR__FROM(c, value), (deadline)))
#define COIR_RECV(c, value, deadline) (coir_chan_recv(COIR_CHAN_RAW(c), COIR__TO(c, value), (deadline)))
#endif
#define COIR_CHAN_CLOSE(c) (coir_chan_close(COIR_CHAN_RAW(c)))
#define COIR_CHAN_UNREF(c) (coir_chan_unref(COIR_CHAN_RAW(c)))

/* ---- Select: wait for the first of many things ----------------------------------------------------------------- */

/* What one arm of a select waits for. An arm whose object is NULL (or of kind NONE) is never ready. */
enum coir_arm_kind {
  COIR_ARM_NONE = 0,
  COIR_ARM_SEND,       /* `object`: a channel; `value`: what to send. Ready when sent, or the channel is closed */
  COIR_ARM_RECV,       /* `object`: a channel; `value`: where to, or NULL. Ready when received, or closed and empty */
  COIR_ARM_FD,         /* `fd` is ready for one of `events` (COIR_READABLE, COIR_WRITABLE; coir_io.h) */
  COIR_ARM_FIBER,      /* `object`: a fiber's handle. Ready when it has ended: joining it will not wait */
  COIR_ARM_WAIT_GROUP, /* `object`: a wait group. Ready when its count is zero */
  COIR_ARM_EVENT,      /* `object`: an event. Ready when it is set */
  COIR_ARM_SCOPE,      /* `object`: a scope. Ready when it has been cancelled */
  COIR_ARM_DEADLINE,   /* `deadline` has come */
};

/* One arm. Fill it by one of the functions below; an array of arms may be used again and again. Its memory is the
 * caller's and must stay in place during the call. */
struct coir_arm {
  enum coir_arm_kind kind;
  int result; /* set for the arm that was chosen; see coir_select */
  void *object;
  void *value;
  int64_t deadline;
  int fd, events;
  uint64_t reserved[14]; /* the library's, during the call */
};

/* Leaves `reserved` alone, which costs time. */
static inline struct coir_arm coir__arm(enum coir_arm_kind kind, void *object, void *value, int64_t deadline, int fd,
                                        int events) {
  struct coir_arm arm;
  arm.kind = kind;
  arm.result = 0;
  arm.object = object;
  arm.value = value;
  arm.deadline = deadline;
  arm.fd = fd;
  arm.events = events;
  return arm;
}
static inline struct coir_arm coir_arm_send(struct coir_chan *chan, const void *value) {
  return coir__arm(COIR_ARM_SEND, chan, (void *)(uintptr_t)value, 0, -1, 0);
}
static inline struct coir_arm coir_arm_recv(struct coir_chan *chan, void *value) {
  return coir__arm(COIR_ARM_RECV, chan, value, 0, -1, 0);
}
/* The same for typed channels, checked as COIR_SEND and COIR_RECV are. */
#define COIR_SEND_ARM(c, value) (coir_arm_send(COIR_CHAN_RAW(c), COIR__FROM(c, value)))
#define COIR_RECV_ARM(c, value) (coir_arm_recv(COIR_CHAN_RAW(c), COIR__TO(c, value)))

static inline struct coir_arm coir_arm_fd(int fd, int events) {
  return coir__arm(COIR_ARM_FD, NULL, NULL, 0, fd, events);
}
static inline struct coir_arm coir_arm_fiber(struct coir_fiber *fiber) {
  return coir__arm(COIR_ARM_FIBER, fiber, NULL, 0, -1, 0);
}
static inline struct coir_arm coir_arm_deadline(int64_t deadline) {
  return coir__arm(COIR_ARM_DEADLINE, NULL, NULL, deadline, -1, 0);
}
struct coir_wait_group;
struct coir_event;
struct coir_scope;
static inline struct coir_arm coir_arm_wait_group(struct coir_wait_group *group) {
  return coir__arm(COIR_ARM_WAIT_GROUP, group, NULL, 0, -1, 0);
}
static inline struct coir_arm coir_arm_event(struct coir_event *event) {
  return coir__arm(COIR_ARM_EVENT, event, NULL, 0, -1, 0);
}
static inline struct coir_arm coir_arm_scope(struct coir_scope *scope) {
  return coir__arm(COIR_ARM_SCOPE, scope, NULL, 0, -1, 0);
}

/* Waits until one of `count` arms is ready, does what it says, and returns its index. Exactly one arm takes effect.
 *
 * When several are ready, each of them is chosen with the same probability. The same channel may stand in several
 * arms, for sending and for receiving; a select never meets itself. `deadline` 0 makes it a select with a default:
 * when nothing is ready it returns -ETIMEDOUT at once.
 *
 * The chosen arm's `result` is 0; for a channel that is closed -EPIPE (nothing was sent or received); for a descriptor
 * the events that it is ready for, or an error as coir_poll returns it.
 *
 * Returns the index; -ETIMEDOUT when `deadline` came first; -ECANCELED; -EINVAL for a kind that does not exist, for
 * events that do not, a NULL value to send, or more than COIR_ARMS_MAX arms; then no arm has had an effect. With no arm
 * that can ever be ready it waits for the deadline. */
#define COIR_ARMS_MAX 1000000
COIR_API int coir_select(struct coir_arm *arms, size_t count, int64_t deadline);

/* ---- Locks and friends ----------------------------------------------------------------------------------------- */

/* All of these are plain memory of the caller's, ready for use when zeroed, and need no clean-up; their fields are
 * the library's. They must stay where they are while somebody uses them, and may be freed as soon as nobody waits or
 * is inside a call, in particular by the waiter that a call has just released. Fibers of any runtime and plain threads
 * may use them together. What was written before an unlock, release, signal, set, done or the end of a once is visible
 * to whoever it lets go on.
 *
 * A call that waits returns 0, or, the object being as if it had not been called: -ETIMEDOUT, also with a deadline of
 * 0 when it would have had to wait; -ECANCELED. Whoever was chosen to go on never gets one of these instead. */
#define COIR_MUST_CHECK __attribute__((warn_unused_result))

/* A mutex. Fair to those who wait long, else whoever comes first gets it: a waiter that has been passed over for a
 * millisecond is handed the mutex. Who has locked it must unlock it. */
struct coir_mutex {
  uint64_t reserved[6];
};

/* Locks. Returns as above; -EDEADLK when the caller holds it already. */
COIR_API COIR_MUST_CHECK int coir_mutex_lock(struct coir_mutex *mutex, int64_t deadline);

/* Unlocks. Aborts with a message when the caller does not hold it. Does not wait. */
COIR_API void coir_mutex_unlock(struct coir_mutex *mutex);

/* A lock for many readers or one writer, in order of arrival: a reader waits behind a writer that came before it. So a
 * thread or fiber that holds it for reading must not ask for it again: it would wait for the writer, and that for
 * it. */
struct coir_rwlock {
  uint64_t reserved[6];
};

/* For reading, for writing. Return as above; -EDEADLK when the caller holds it for writing already. */
COIR_API COIR_MUST_CHECK int coir_rwlock_read(struct coir_rwlock *lock, int64_t deadline);
COIR_API COIR_MUST_CHECK int coir_rwlock_write(struct coir_rwlock *lock, int64_t deadline);

/* Give it back. Abort with a message when nobody reads, or when the caller is not the writer. */
COIR_API void coir_rwlock_read_unlock(struct coir_rwlock *lock);
COIR_API void coir_rwlock_write_unlock(struct coir_rwlock *lock);

/* A condition variable. */
struct coir_cond {
  uint64_t reserved[4];
};

/* Unlocks `mutex`, which the caller holds, waits for a signal, and locks it again, however it ends. Nothing gets lost
 * between the unlock and the wait. Returns 0 for a signal; -ETIMEDOUT; -ECANCELED: then it has taken no signal. Check
 * the condition again after each return: another may have been faster. Aborts when the caller does not hold it. */
COIR_API int coir_cond_wait(struct coir_cond *cond, struct coir_mutex *mutex, int64_t deadline);

/* Wakes the one that has waited longest, or all that wait. With or without the mutex held. Do not wait. */
COIR_API void coir_cond_signal(struct coir_cond *cond);
COIR_API void coir_cond_broadcast(struct coir_cond *cond);

/* A counting semaphore; zeroed it has no permits. First come, first served, whatever the numbers. */
struct coir_sem {
  uint64_t reserved[4];
};

/* Gives a semaphore that nobody uses yet `permits` permits; >= 0. */
COIR_API void coir_sem_init(struct coir_sem *sem, int64_t permits);

/* Takes `permits` at once. Returns as above; -EINVAL when `permits` is negative. */
COIR_API COIR_MUST_CHECK int coir_sem_acquire(struct coir_sem *sem, int64_t permits, int64_t deadline);

/* Gives `permits` back, or new ones. Aborts with a message when that is negative or the sum cannot be represented. */
COIR_API void coir_sem_release(struct coir_sem *sem, int64_t permits);

/* A wait group: a counter on which to wait for zero. */
struct coir_wait_group {
  uint64_t reserved[4];
};

/* Adds `n`, which may be negative. At zero, all who wait are released: those that wait at that moment, whatever is
 * added after it. A count below zero aborts with a message that says "negative WaitGroup counter". */
COIR_API void coir_wait_group_add(struct coir_wait_group *group, int64_t n);
COIR_API void coir_wait_group_done(struct coir_wait_group *group); /* add -1 */
COIR_API int64_t coir_wait_group_count(const struct coir_wait_group *group);

/* Waits until the count is, or was, zero. */
COIR_API int coir_wait_group_wait(struct coir_wait_group *group, int64_t deadline);

/* An event: is set or not, until it is reset. */
struct coir_event {
  uint64_t reserved[4];
};
COIR_API void coir_event_set(struct coir_event *event); /* releases all who wait */
COIR_API void coir_event_reset(struct coir_event *event);
COIR_API bool coir_event_is_set(const struct coir_event *event);
COIR_API int coir_event_wait(struct coir_event *event, int64_t deadline);

/* Something that is done once. */
struct coir_once {
  uint64_t reserved[4];
};

/* Runs fn(arg) if nobody has; else waits until whoever runs it has done so, or runs it, too, if that is a fiber that is
 * dropped in the midst of it. Returns as above (the caller that runs it always returns 0); -EDEADLK when called from
 * within `fn`. */
COIR_API int coir_once_do(struct coir_once *once, void (*fn)(void *arg), void *arg, int64_t deadline);

/* A barrier: nobody passes before all parties have come; then it is ready for the next round. Zeroed it is for one. */
struct coir_barrier {
  uint64_t reserved[5];
};

/* Prepares a barrier that nobody uses yet for `parties` >= 1. */
COIR_API void coir_barrier_init(struct coir_barrier *barrier, int parties);

/* Waits for the others. Returns 1 to the last that comes and 0 to the others; -ETIMEDOUT, -ECANCELED: then the caller
 * has not come, and the round still lacks it. */
COIR_API int coir_barrier_wait(struct coir_barrier *barrier, int64_t deadline);

/* Single flight: of those who ask for the same thing at the same time one does the work, for all. */
struct coir_flight {
  uint64_t reserved[72];
};

/* Does fn(arg, &result->value), whose return value becomes result->status, unless somebody is doing so for the same
 * key (`key_bytes` bytes, which are the caller's and stay in place until it returns): then waits for that one's result.
 * `result` is not NULL. What comes after it has ended begins anew. Where the fiber that does it is dropped, by
 * COIR_STOP_ABANDON for instance, result->status is -ECANCELED.
 *
 * Returns 1 when the caller ran `fn`; 0 when it has another's result; -ETIMEDOUT, -ECANCELED (that of a caller that
 * waits; the work goes on for the others); -EDEADLK when called for the key from within its own `fn`. */
COIR_API int coir_flight_do(struct coir_flight *flight, const void *key, size_t key_bytes,
                            int (*fn)(void *arg, void **value), void *arg, struct coir_result *result,
                            int64_t deadline);

/* ---- Scopes: fibers that live and end together ----------------------------------------------------------------- */

/* A scope owns the fibers that are spawned into it: closing it waits for all of them, so none outlives it. It carries
 * cancellation, a deadline, and values, from the outside to the inside.
 *
 *     struct coir_scope *scope;
 *     int rc = coir_scope_open(&scope, 0, coir_after(COIR_SEC(5)));
 *     if (rc) return rc;
 *     coir_scope_spawn(scope, fetch, &a, NULL, NULL);
 *     coir_scope_spawn(scope, fetch, &b, NULL, NULL);
 *     return coir_scope_close(scope);         waits for both; the first error cancels the other and is returned
 *
 * Inside a scope are the fibers that were spawned into it, the code of its opener between open and close, and every
 * scope that these open meanwhile, with their fibers. A scope is opened and closed by the same fiber (or plain
 * thread), innermost first; a fiber that ends with a scope open aborts with a message.
 *
 * Cancellation. Cancelling a scope cancels everything inside it: the waiting call that a fiber is in, or else the next
 * one that it makes, returns -ECANCELED, once for each cancellation; after that waiting calls wait as usual, so that
 * clean-up code may wait. (So does coir_cancel for one fiber.) What was asked for more than once before the fiber
 * noticed is delivered once. So look at what waiting calls return: who throws a -ECANCELED away waits on at the next. A
 * cancelled scope takes no more fibers; scopes that are opened inside it later, for
 * clean-up, are not cancelled. A cancellation of which the opener has not taken notice when it closes the scope is over
 * with it.
 *
 * A scope is cancelled by coir_scope_cancel; by its deadline; by the first of its fibers that fails (unless it was
 * opened with COIR_SCOPE_KEEP_GOING); with a scope that it is inside of; and when its opener is cancelled while it
 * waits in coir_scope_close. Only the first cause counts.
 *
 * Cancelling is cooperative and takes time for each fiber inside, but no stack: trees of scopes may be deep. */
struct coir_scope; /* opaque */

#define COIR_SCOPE_KEEP_GOING 1u /* flag of coir_scope_open: a fiber that fails does not cancel the others */

/* Opens a scope inside the caller's current one, if there is one. When `deadline` comes it is cancelled; that of an
 * outer scope counts for all that is inside it, so a scope can only shorten it. COIR_NEVER: none of its own.
 *
 * Returns 0; -ENOMEM; -EINVAL for an unknown flag. Does not wait. */
COIR_API int coir_scope_open(struct coir_scope **out, unsigned flags, int64_t deadline);

/* Waits until all fibers of the scope have ended, and frees it. It always waits to the end: when the caller is
 * cancelled meanwhile, the scope is.
 *
 * Returns why it was cancelled: the first failure's status (below zero); -ETIMEDOUT for the deadline; -ECANCELED for
 * other causes; or 0, if it was not. With COIR_SCOPE_KEEP_GOING a failure that cancelled nothing is returned as well.
 * Aborts with a message unless `scope` is the caller's innermost. */
COIR_API int coir_scope_close(struct coir_scope *scope);

/* Spawns a fiber into `scope` (NULL: the caller's current one); else as coir_spawn. A fiber has failed when its status
 * is below zero and the scope was not cancelled before. With `out` its handle must be joined or detached as well (not
 * with attr->detached); that may be after the scope was closed.
 *
 * Returns as coir_spawn does; -ECANCELED when the scope is cancelled, and -EINVAL when there is none. Who calls it
 * is inside the scope, or knows otherwise that it is open. The fiber runs on the caller's runtime; of a plain thread,
 * on the default one. */
COIR_API int coir_scope_spawn(struct coir_scope *scope, coir_fn fn, void *arg, const struct coir_attr *attr,
                              struct coir_fiber **out);

/* Cancels `scope` and everything inside it; does nothing when that has happened. `reason` (below zero) is what
 * coir_scope_close will return; 0 means -ECANCELED. Does not wait. Any thread that knows the scope to be open. */
COIR_API void coir_scope_cancel(struct coir_scope *scope, int reason);

/* Why `scope` (NULL: the caller's current one) was cancelled, as coir_scope_close will return it; 0: it is not. */
COIR_API int coir_scope_reason(const struct coir_scope *scope);

/* Brings the scope's deadline forward to `deadline`; a later one than it has changes nothing. Any thread that knows the
 * scope to be open. */
COIR_API void coir_scope_shorten(struct coir_scope *scope, int64_t deadline);

/* The soonest deadline of `scope` (NULL: the caller's current one) and those that it is inside of; COIR_NEVER. */
COIR_API int64_t coir_scope_deadline(const struct coir_scope *scope);

/* The innermost scope that the caller is in: the last that it opened, or the one that it was spawned into; or NULL.
 * What fibers that were spawned without a scope run in is NULL at first. */
COIR_API struct coir_scope *coir_scope_current(void);

/* Sets a value in `scope` under `key`, an address that serves as a name. It is seen by everybody inside, unless an
 * inner scope has set another one. Returns 0; -ENOMEM; -EINVAL for a NULL scope or key. */
COIR_API int coir_scope_set(struct coir_scope *scope, const void *key, void *value);

/* The value of the innermost scope around the caller that has one under `key`; NULL. */
COIR_API void *coir_scope_get(const void *key);

/* Between begin and end no waiting call of the calling fiber (or plain thread) is cancelled: what is asked for
 * meanwhile is delivered by the first waiting call after it. Pairs may be nested. An end without begin aborts. */
COIR_API void coir_shield_begin(void);
COIR_API void coir_shield_end(void);

/* ---- Generators: fibers that run when they are asked ----------------------------------------------------------- */

/* A generator is a fiber that runs only while somebody resumes it, and gives its resumer a value each time it yields.
 *
 *     static int count(void *n) {
 *       for (intptr_t i = 0; i < (intptr_t)n; i++) coir_gen_yield((void *)i, NULL);
 *       return 0;
 *     }
 *     coir_gen_create(&gen, count, (void *)3, NULL);
 *     while (coir_gen_resume(gen, NULL, &value) == 0) use(value);
 *     coir_gen_destroy(gen);
 *
 * Its function may make any waiting call, and resume other generators: while it waits its resumer waits, and that
 * one's resumer. It may be resumed from fibers of any worker and runtime and from plain threads, by one at a time. A
 * generator that nobody resumes does not keep its runtime running. */
struct coir_gen; /* opaque */

enum coir_gen_state { COIR_GEN_NEW = 0, COIR_GEN_RUNNING, COIR_GEN_YIELDED, COIR_GEN_FINISHED };

/* Makes a generator that will run fn(arg) on the caller's runtime (of a plain thread: the default one). It is a fiber
 * from its first resume on. `attr` as for coir_spawn, copied. Returns 0; -EINVAL as coir_spawn; -ENOMEM. */
COIR_API int coir_gen_create(struct coir_gen **out, coir_fn fn, void *arg, const struct coir_attr *attr);

/* Runs the generator until it yields or ends. `in` is what its pending coir_gen_yield delivers (ignored the first
 * time); `out` (may be NULL) receives what it yields, or the value that it ended with (coir_set_value, else NULL).
 *
 * Returns 0 when it has yielded; 1 when it has ended; -ESRCH when it had ended before; -EBUSY when another one resumes
 * it just now; -EDEADLK when the caller is the generator, or is being resumed by it; -ENOTSUP in the child of a fork,
 * when its runtime is the parent's; -EINVAL; -ENOMEM (the
 * first time). Not cancelled itself: a cancellation of the caller is handed on to the generator, whose waiting call
 * returns -ECANCELED; one that it has not noticed when it yields or ends is the caller's again. */
COIR_API int coir_gen_resume(struct coir_gen *gen, void *in, void **out);

/* Gives `value` to the resumer and waits for the next resume, whose `in` is stored in `*in` (may be NULL).
 *
 * Returns 0; -ECANCELED when the generator is being destroyed: it should clean up and return; -EPERM when the caller
 * is no generator. */
COIR_API int coir_gen_yield(void *value, void **in);

COIR_API enum coir_gen_state coir_gen_state(const struct coir_gen *gen);

/* How an ended generator ended; returns 0, or -EBUSY when it has not. */
COIR_API int coir_gen_result(const struct coir_gen *gen, struct coir_result *out);

/* Frees a generator. One that has yielded is resumed, its coir_gen_yield returns -ECANCELED, now and ever after, and
 * the call waits until it has ended. NULL does nothing. Returns 0; -EBUSY when somebody resumes it just now; -EDEADLK
 * as coir_gen_resume. */
COIR_API int coir_gen_destroy(struct coir_gen *gen);

/* ---- Timers and tickers ---------------------------------------------------------------------------------------- */

/* A timer runs a function on a fiber of its own when its time has come, once or periodically. It belongs to the
 * runtime of the caller that made it (of a plain thread: the default one), fires only while that runs, and does not
 * keep it running. In the child of a fork it is stopped, and one of a runtime of the parent's never fires. */
struct coir_timer; /* opaque */

/* Makes a timer, not started, that will spawn fn(arg) detached. Returns 0; -EINVAL for NULL; -ENOMEM. */
COIR_API int coir_timer_create(struct coir_timer **out, coir_fn fn, void *arg);

/* The same, belonging to `runtime` (NULL: the default one), from any thread or any fiber. */
COIR_API int coir_runtime_timer_create(struct coir_runtime *runtime, struct coir_timer **out, coir_fn fn, void *arg);

/* Starts the timer, or starts it anew: it fires at `deadline` (one that has passed: at once), and then every `period`
 * ns, unless that is 0. Periods that nobody had time for are left out. While memory for the fiber is short, it tries
 * again every millisecond.
 *
 * Returns 1 when it was started and had not fired: that firing will not come; 0 when not: it had never been started,
 * or been stopped, or its last firing has happened (the function runs, has run, or is about to). -EINVAL for a negative
 * period. Does not wait. Any thread. */
COIR_API int coir_timer_start(struct coir_timer *timer, int64_t deadline, int64_t period);

/* Stops the timer. Returns as coir_timer_start does; 1 also for a periodic one: it will not fire again. Does not wait
 * for the function. Any thread. */
COIR_API int coir_timer_stop(struct coir_timer *timer);

/* Stops and frees it. NULL does nothing. */
COIR_API void coir_timer_destroy(struct coir_timer *timer);

/* Returns a channel that receives the time (coir_now()) once, when `deadline` has come; NULL when memory is short. The
 * caller gives it up by coir_chan_unref, before or after; the timer is then gone as well. */
COIR_API COIR_CHAN(int64_t) coir_timer_chan(int64_t deadline);

/* A ticker sends the time on a channel with room for one, every `period` ns; when the reader is late, ticks are
 * dropped. */
struct coir_ticker; /* opaque */

/* Makes a ticker that runs at once. Returns 0; -EINVAL for a period below 1; -ENOMEM. */
COIR_API int coir_ticker_create(struct coir_ticker **out, int64_t period);

/* Its channel; the ticker's own reference, so it lives until coir_ticker_destroy unless the caller takes another. */
COIR_API COIR_CHAN(int64_t) coir_ticker_chan(const struct coir_ticker *ticker);

/* Changes the period; the next tick comes after a whole new one. Starts a stopped ticker again. Returns 0; -EINVAL. */
COIR_API int coir_ticker_reset(struct coir_ticker *ticker, int64_t period);

/* No tick is sent from now on. Does not close the channel, and what it holds stays there. */
COIR_API void coir_ticker_stop(struct coir_ticker *ticker);

/* Stops it, and gives up its reference to the channel. NULL does nothing. */
COIR_API void coir_ticker_destroy(struct coir_ticker *ticker);

/* ---- Calls that block ------------------------------------------------------------------------------------------ */

/* A fiber whose thread is blocked by a call that Coir knows nothing of (a lock of another library, flock, a driver), or
 * that computes for long, would hold up its worker with everything that queues there. A monitor sees to that: after a
 * while (coir_config.blocked_us, busy_us), and if the worker could do something else, it takes the worker away, and
 * another thread goes on with it. The fiber stays on its thread and goes on there, beside the workers, so thread-locals
 * and locks of the thread are what they were; at its next call that may wait it queues like any other. Calls that do
 * not wait work meanwhile as ever, and the fiber remains who it is.
 *
 * So fibers may run at the same time also where there is one worker: data that several of them use need a lock. With
 * preemption (coir_config.preempt, coir_attr.preempt) a fiber that computes for a quantum is paused instead, by a
 * signal, with its thread and whatever it holds, until its turn comes again. docs/blocking.md says what is safe, and
 * what it costs.
 *
 * For calls that are known to block there is this pair, which gives the worker away at once:
 *
 *     coir_block_enter();
 *     rc = flock(fd, LOCK_EX);
 *     saved = errno;
 *     coir_block_leave();
 *
 * coir_block_enter gives the worker to another thread, a spare one or a new one, which goes on with all that it has
 * to do. The fiber stays on its thread, so thread-locals and locks of the thread are what they were. Until
 * coir_block_leave it is no fiber in the eyes of Coir: calls that wait block the thread, coir_current() is NULL, a
 * cancellation has to wait. What it spawns or makes belongs to its runtime all the same, which it cannot stop.
 * coir_block_leave is a wait: the fiber goes on, maybe on another thread, when its turn comes. So nothing that belongs
 * to the thread may be held across it, and errno is kept.
 *
 * Each enter is followed by one leave, of the same fiber; pairs may be nested. On a plain thread they do nothing.
 * They cost about as much as two switches of threads, so they are not for calls that are over in a few microseconds.
 *
 * Returns 0; when the worker could not be given away the fiber goes on as before, and whatever it does holds it up:
 * -EAGAIN, there are coir_config.spares_max threads, or none could be made; -EBUSY, pinned fibers were started on
 * this worker, which therefore keeps its thread until the runtime has stopped. */
COIR_API int coir_block_enter(void);
COIR_API void coir_block_leave(void);

/* Runs fn(arg) between the two. Returns as coir_block_enter; `fn` has run in any case. */
COIR_API int coir_block(void (*fn)(void *arg), void *arg);

/* Between the two the calling fiber keeps its worker: nobody takes it away, and the fiber is not paused. For short
 * sections that count on being the only ones on their worker, as those that use data per coir_worker_index() do, and
 * for locks that everybody wants. Who blocks or computes inside holds the worker up. Pairs may be nested, up to 255
 * deep; an end without begin aborts. Waiting inside is allowed: then others run on the worker as always, and the fiber
 * may go on on another one. coir_hold_begin is a wait if the worker has been taken away before; coir_hold_end is none.
 * On a plain thread both do nothing. */
COIR_API void coir_hold_begin(void);
COIR_API void coir_hold_end(void);

enum coir_stall_kind {
  COIR_STALL_BLOCKED, /* its thread has not run: it waits in the kernel */
  COIR_STALL_BUSY,    /* it computes */
};

/* A fiber held its worker up for longer than coir_config says, as the monitor found it: told once for each such time
 * (and once more if the worker could be taken away only later),
 * also when it was paused. Everything is valid during the call only. */
struct coir_stall {
  struct coir_runtime *runtime;
  uint64_t id;      /* the fiber's */
  const char *name; /* "" when it has none */
  int worker;       /* that it held up */
  enum coir_stall_kind kind;
  int64_t ns;          /* for how long so far, give or take a millisecond */
  bool is_handed_off;  /* the worker goes on on another thread; else it has to wait: no thread was to be had so far, or
                          pinned fibers were started on it */
  bool is_preempted;   /* and the fiber is being paused */
  void *const *frames; /* where it stands: the first is the place itself, the others are where those further out go on
                          (as for coir_visit_fn). A thread that computes is asked, by coir_config.preempt_signal */
  size_t frame_count;  /* 0 when it went on meanwhile, or the system does not say */
};

/* Is told of a stall, on a thread of its own and no fiber, one after the other. It may block and wait; but that thread
 * also makes the threads that workers go on on, which have to wait for it, and a runtime that stops waits for it, too.
 * So it should be short, and must not stop, start or destroy the runtime. Stalls that come while 64 wait to be told
 * are only counted. */
typedef void (*coir_stall_fn)(const struct coir_stall *stall, void *arg);

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

/* A deadlock: every fiber that is left waits for another fiber or thread, and nobody could wake one: no deadline,
 * descriptor or blocking call is pending, no timer is started, no other runtime runs, and every thread of the process
 * that is not Coir's waits in Coir itself, without a deadline and for no descriptor; coir_runtime_stop waits so, too.
 * Looked for while a runtime runs, be it in coir_runtime_run or because of coir_runtime_start, when all workers have
 * gone to sleep. */
enum coir_deadlock {
  COIR_DEADLOCK_REPORT = 0, /* print every fiber with what it waits for and since when; cancel all fibers, at every wait
                               that they make from now on, and let them end; then coir_runtime_run returns -EDEADLK,
                               and a runtime that was started is as new (fibers that are spawned before that are
                               cancelled, too). Plain threads are listed, and wait on */
  COIR_DEADLOCK_ABORT,      /* print the same and abort */
  COIR_DEADLOCK_IGNORE,     /* go on waiting */
};

/* Is told of a deadlock, on the thread of a worker and no fiber: it must not wait, and may wake fibers (by
 * coir_cancel, coir_chan_close, coir_event_set, ...) or spawn some. Returns true when it has dealt with it, so that the
 * runtime goes on; it is not called again before some fiber, or one of the plain threads that wait, has run. */
typedef bool (*coir_deadlock_fn)(struct coir_runtime *runtime, void *arg);

/* Configuration of a runtime. Zero in a field is its default. Each field is also read from an environment variable,
 * which counts where the field is zero: COIR_ and the field's name in capitals (COIR_WORKERS=4). Switches read 1 and
 * 0. A variable that does not parse is reported on stderr and ignored. Values outside their range are brought to the
 * nearest end, except in these fields themselves: a negative number, a stack_bytes, guard or deadlock out of range is
 * -EINVAL. */
struct coir_config {
  size_t size;             /* sizeof(struct coir_config); 0 is taken as this header's */
  int workers;             /* 1..64; default: CPUs that this process may use (affinity mask, cgroup quota) */
  size_t stack_bytes;      /* of a fiber; default 256 KiB, committed page by page as it is used; 16 KiB..1 GiB */
  int stack_cache_max;     /* finished stacks kept per worker before they go to the shared depot; default 64 */
  size_t stack_keep_bytes; /* what an unused stack may keep committed; deeper use is returned; default 64 KiB */
  enum coir_guard guard;   /* default AUTO; the variable takes auto, madvise, mprotect, canary */
  int guards_max;          /* guard mappings that COIR_GUARD_MPROTECT may use; default 16384 */
  int pollers;             /* 0: a poller for each worker (default). 1..64, at most `workers`: so many, each with a
                              thread that looks after it when no worker has the time (docs/scheduling.md) */
  int poll_partition;      /* switch; with pollers: worker w belongs to poller w % pollers, and what becomes ready
                              there goes to one of its workers; off: all look at all of them; default on */
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
  enum coir_deadlock deadlock;  /* what to do about a deadlock; the variable takes report, abort, ignore */
  coir_deadlock_fn on_deadlock; /* NULL: none; no variable. Called before that is done */
  void *on_deadlock_arg;
  int spares_max; /* threads beside the workers', for fibers that block or compute; made when they are needed; default
                     256. With so many in use a fiber that blocks holds its worker up */
  int monitor;    /* switch; a thread that takes workers away from fibers that block or compute, when these could do
                     something else; default on */
  int blocked_us; /* after so long with its thread blocked; default 1000; 50 to 10^6 */
  int busy_us;    /* after so long of computing without a call that waits; default 10000; 50 to 10^6 */
  int preempt;    /* switch; fibers that compute for quantum_us are paused when others could run, so that no more than
                     `workers` compute at a time; coir_attr.preempt counts before it. Needs the monitor, and a thread
                     for each of them: with spares_max in use they run on. Default off */
  int quantum_us; /* default 10000; 50 to 10^6 */
  int preempt_signal;     /* which pauses a thread; default SIGURG. What the program has set for it before goes on to be
                         called for signals that are not Coir's. 1 to 64, not SIGKILL, SIGSTOP, or a fault's: with
                         `preempt` or `on_stall` that is -EINVAL */
  coir_stall_fn on_stall; /* NULL: none; no variable */
  void *on_stall_arg;
  /* NULL: none; no variable. Called on each thread that Coir has started when it is about to run fibers for worker
   * `worker`: as the runtime starts, and when the worker goes on on another thread (docs/blocking.md), which may have
   * run fibers for another one before. To put threads on CPUs, or to name them. Not on the thread that called
   * coir_runtime_run. A paused fiber that goes on with another worker stays on its thread: that is told of when the
   * fiber waits, or ends. It must be short, since the worker waits for it; it is not on a fiber, and must not wait. */
  void (*on_thread)(int worker, void *arg);
  void *on_thread_arg;
  int io_uring;   /* switch; files are read and written by io_uring and aio, where the system lets us; off: by threads;
                   default on */
  int sim_seed;   /* not 0: the runtime is simulated, in an order that this number chooses (coir_sim_point); default 0.
                     It has one worker, whatever `workers` says, which only bounds coir_attr.worker then; and neither
                     monitor nor pausing, stealing, io_uring */
  int sim_faults; /* then: of a thousand calls of fibers so many fail that might: memory is short, or a connection is
                     lost; default 0 */
  int sim_log;    /* then: 1: a line at the end of a run, on stderr; 2: one for each step as well; default 0 */
};

/* Runs fn(arg) as the first fiber of the default runtime, with the calling thread as worker 0, and returns when that
 * fiber and every other fiber of the runtime has ended.
 *
 * Returns what `fn` returned, or gave to coir_exit (so an error of the runtime itself, listed next, and one of `fn`
 * look alike: use coir_runtime_run to tell them apart); -EINVAL for NULL; -EBUSY when the default runtime is running
 * already or the caller is a fiber; -ENOMEM, -EAGAIN when threads or memory are short; -EDEADLK when its fibers were in
 * a deadlock (enum coir_deadlock). May be called again afterwards. */
COIR_API int coir_run(coir_fn fn, void *arg);

/* Sets the configuration of the default runtime, which is made by its first use. Returns 0; -EBUSY when it exists
 * already; -EINVAL. `config` is copied. */
COIR_API int coir_configure(const struct coir_config *config);

/* Returns the default runtime, made on first use; NULL when memory is short. It lives until the process ends. */
COIR_API struct coir_runtime *coir_runtime_default(void);

/* Makes a runtime. Its workers do not run yet. `config` may be NULL and is copied.
 *
 * Returns 0 and the runtime in `*out`; -EINVAL for a bad field; -ENOMEM; -EMFILE, -ENFILE when descriptors are short;
 * -ENOSPC, the kernel's limit of watched descriptors is reached.
 * Several runtimes may exist and run at once; fibers of one may join, cancel and wake fibers of another. */
COIR_API int coir_runtime_create(struct coir_runtime **out, const struct coir_config *config);

/* Runs fn(arg) as a fiber of `runtime`, the calling thread being worker 0, until it and every other fiber has ended.
 *
 * `status` (may be NULL) receives what `fn` returned, or gave to coir_exit; -ECANCELED when it was dropped after a
 * deadlock. `fn` may be NULL: then this runs what was spawned before, and returns at once when that is nothing. Returns
 * 0; -EINVAL; -EBUSY when the runtime runs already or the caller is a fiber; -EAGAIN when a thread cannot be made;
 * -ENOMEM; on these errors no fiber has run. -EDEADLK: it has, but its fibers were in a deadlock (enum coir_deadlock)
 * and have been cancelled. May be repeated. */
COIR_API int coir_runtime_run(struct coir_runtime *runtime, coir_fn fn, void *arg, int *status);

/* Starts the workers as threads in the background; the caller goes on. They stay, idle or not, until coir_runtime_stop.
 * Returns 0; -EBUSY when it runs already; -EAGAIN, -ENOMEM (nothing is left running); -EINVAL. */
COIR_API int coir_runtime_start(struct coir_runtime *runtime);

enum coir_stop {
  COIR_STOP_DRAIN = 0, /* wait until every fiber has ended by itself, and for a moment no other is there */
  COIR_STOP_CANCEL,    /* cancel every fiber, at every wait that it makes from now on, and wait until all have ended */
  COIR_STOP_ABANDON,   /* let running fibers reach their next suspension, and calls on pool threads their end, then
                          drop all fibers where they are: their memory is reclaimed, their clean-up code does not run,
                          joiners get the status -ECANCELED. The deadline has no meaning. */
};

/* Stops a runtime that coir_runtime_start started, and waits for its threads. It can be started again. Fibers that
 * other threads spawn while it stops may have to wait for that, some of them in the midst of their function. Where
 * these overlap without a gap there is no moment without a fiber: have such threads end first, or give a deadline.
 *
 * Returns 0; -ETIMEDOUT when fibers were left at `deadline` (it then runs on, except that cancellation stays asked
 * for); -EINVAL when it was not started by coir_runtime_start; -EDEADLK when called by one of its own fibers. */
COIR_API int coir_runtime_stop(struct coir_runtime *runtime, enum coir_stop how, int64_t deadline);

/* Asks the workers of a runtime that coir_runtime_start started to stop where they are: running fibers go on to their
 * next suspension, and no other fiber runs. A coir_runtime_stop that waits, or that comes next, goes on as with
 * COIR_STOP_ABANDON. Does not wait; any thread, and any fiber. Returns 0; -EINVAL when it was not started by
 * coir_runtime_start. */
COIR_API int coir_runtime_halt(struct coir_runtime *runtime);

/* Frees a runtime that does not run, with everything that it holds; fibers that never ran to their end are dropped.
 * NULL does nothing. Returns 0; -EBUSY while it runs; -EINVAL for the default runtime. No handle of its fibers may be
 * used afterwards, and no call on one may be under way. */
COIR_API int coir_runtime_destroy(struct coir_runtime *runtime);

/* Like coir_spawn, into `runtime` (NULL: the default one), from any thread or any fiber. */
COIR_API int coir_runtime_spawn(struct coir_runtime *runtime, coir_fn fn, void *arg, const struct coir_attr *attr,
                                struct coir_fiber **out);

/* What can be changed while a runtime runs. Values are brought into range as coir_config says; a switch is
 * 0 or 1, and COIR_OFF is 0. */
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
  uint64_t steal_hits;       /* of steals_attempted: those that moved at least one fiber */
  uint64_t rebalance_hits;   /* of rebalances_attempted: the same */
  uint64_t fibers_dropped;   /* by COIR_STOP_ABANDON, or after a deadlock */
  uint64_t handoffs;         /* workers given to another thread: by coir_block_enter, and by the monitor */
  uint64_t stalls;           /* fibers that the monitor found to hold up their worker */
  uint64_t preemptions;      /* fibers paused */
  uint64_t spares;           /* threads beside the workers' now, in use or not */
  int64_t longest_stall_ns;  /* for how long a worker was held up at worst, until it was taken away, or until it was
                                found that it could not be */
};
COIR_API void coir_runtime_get_stats(struct coir_runtime *runtime, struct coir_stats *out);

/* A fiber that goes on beside the workers is RUNNING; between coir_block_enter and coir_block_leave it is WAITING; one
 * that is paused is READY. */
enum coir_fiber_state { COIR_FIBER_READY = 0, COIR_FIBER_RUNNING, COIR_FIBER_WAITING, COIR_FIBER_ENDED };

/* One fiber as coir_runtime_list saw it. */
struct coir_fiber_info {
  uint64_t id;
  enum coir_fiber_state state;
  char name[32];
  const char *waits_for; /* "sleep", "join", "read", "channel", ...; "" unless WAITING; a static string */
  uint64_t waits_on;     /* what: a descriptor's number, another fiber's id, an object's address; of a select: how many
                            arms it has; 0 for none */
  int worker;            /* the worker that it ran on last; -1 when it has not run */
  size_t stack_bytes;    /* usable; before it first runs: of the stack that it will get */
  size_t stack_used;     /* as it was suspended last, a page at least; 0 before it first runs */
  coir_fn entry;
  int64_t since;  /* WAITING: since when (coir_now()), give or take a millisecond of its worker's work; else 0 */
  int64_t ran_at; /* when it was dispatched last, as exact as that; 0 before it first runs */
};

/* Stores up to `max` living fibers in `out` and returns how many live in all; `out` may be NULL when `max` is 0. The
 * list is a snapshot: fibers go on meanwhile, so what it says of one may be of several moments, but is all of that one;
 * who begins or ends meanwhile may be missing. Does not wait, does not stop anybody. Any thread. */
COIR_API size_t coir_runtime_list(struct coir_runtime *runtime, struct coir_fiber_info *out, size_t max);

/* Is told of one living fiber. `frames`: where it stands, innermost first, as addresses to continue at; `count` of
 * them, 0 unless it waits, or when it went on meanwhile. Both are valid during the call. */
typedef void (*coir_visit_fn)(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg);

/* Calls visit(..., arg) for each living fiber, with its backtrace. As coir_runtime_list, fibers go on meanwhile; no
 * lock is held during `visit`, which may wait. Frames come from the tables for unwinding (.eh_frame) that compilers
 * make on the systems where Coir runs; code without them ends a backtrace. Returns how many fibers were visited;
 * -EINVAL; -ENOMEM. Any thread. */
COIR_API int64_t coir_runtime_walk(struct coir_runtime *runtime, coir_visit_fn visit, void *arg);

/* ---- Simulation ------------------------------------------------------------------------------------------------- */

/* With coir_config.sim_seed, or the variable COIR_SIM_SEED, the fibers of a runtime run one at a time, in an order that
 * this number chooses, on a clock of their own that does not go on while somebody is ready. The same program with the
 * same number runs in the same order again; another number, another order. What coir-sim does, and what it cannot:
 * docs/simulation.md.
 *
 * Every call of the library, by a fiber, is a point at which others may run then, as they might have on another
 * processor; and so is this one, which does nothing else. It goes where the program touches what fibers share, without
 * a call of the library nearby; compilers can be told to put it everywhere. May suspend, in a simulated runtime only;
 * not while the fiber holds its worker. Elsewhere it does nothing, in a few ns. Any thread. */
COIR_API void coir_sim_point(void);

/* Returns coir_config.sim_seed of the calling fiber's runtime: for what the program draws itself. 0: it is not
 * simulated, or the caller is no fiber. */
COIR_API uint64_t coir_sim_seed(void);

#ifdef __cplusplus
}
#endif
#endif
