/* csp_sched.h: giving way, sleeping, and blocking. */
#ifndef CSP_SCHED_H
#define CSP_SCHED_H

#include "csp_api.h"

CSP_BEGIN_DECLS

/* Lets every other goroutine that is ready on this worker run first. On a plain thread: sched_yield. */
CSP_API void csp_sched_yield(void);
CSP_API void csp_yield(void); /* the same */

/* Sleeps for `ns` nanoseconds, never less; 0 returns at once. */
CSP_API void csp_sched_hangup(uint64_t ns);
CSP_API void csp_hangup(uint64_t ns); /* the same */

/* Runs statements that may block the thread for long (a system call that libcsp does not know, a foreign lock).
 * Another thread goes on with all that this worker has to do; so it costs some microseconds, and what is over sooner
 * does not need it. Without it that happens after a millisecond. Inside, the goroutine is like a plain thread, which
 * calls of libcsp block. It does not leave the braces by return, goto or longjmp. When there are very many already
 * (coir_config.spares_max) the worker is held up after all.
 *
 *     csp_block(rc = flock(fd, LOCK_EX); saved = errno); */
#define csp_sched_block(...) \
  do { \
    csp_block_enter(); \
    { \
      __VA_ARGS__; \
    } \
    csp_block_leave(); \
  } while (0)
#define csp_block(...) csp_sched_block(__VA_ARGS__)

/* The two ends of csp_block, for other languages. */
CSP_API void csp_block_enter(void);
CSP_API void csp_block_leave(void);

/* Starts fn(arg) as a goroutine with a stack of 64 KiB: csp_proc_create(0, fn, arg). */
struct csp_proc;
CSP_API struct csp_proc *csp_go(void (*fn)(void *arg), void *arg);

/* Runs calls[i].fn(calls[i].arg) for all i < n side by side, each in a goroutine of its own, and returns when all have
 * ended. What could not be started (memory is short) is run by the caller itself. */
typedef struct {
  void (*fn)(void *arg);
  void *arg;
} csp_call_t;
CSP_API void csp_sync_all(const csp_call_t *calls, size_t n);

CSP_END_DECLS

#ifdef __cplusplus
#include <new>
#include <type_traits>
#include <utility>

/* Starts a call as a goroutine: csp_async(f(a, b)). What it names is copied. An exception that leaves it ends the
 * program (std::terminate). Throws std::bad_alloc when it cannot be started. */
template <class F> static inline void csp_async_lambda(F &&f) {
  using Body = typename std::decay<F>::type;
  Body *body = new Body(std::forward<F>(f));
  void (*run)(void *) = [](void *p) noexcept {
    Body *b = static_cast<Body *>(p);
    (*b)();
    delete b;
  };
  if (!csp_go(run, body)) {
    delete body;
    throw std::bad_alloc();
  }
}
#define csp_async(...) csp_async_lambda([=]() mutable { (void)(__VA_ARGS__); })
#endif
#endif
