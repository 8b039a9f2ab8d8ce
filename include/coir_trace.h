/* coir_trace.h: to be told of what the scheduler does, switch by switch.
 *
 * The hooks exist in builds with the CMake option COIR_TRACE only (COIR_TRACE=1 for who compiles src/coir.c), since to
 * ask whether there is one would cost each switch as much as its own work. In such a build fibers do not switch to each
 * other directly: every switch goes through the scheduler, on the thread's own stack, and that is where hooks run. */
#ifndef COIR_TRACE_H
#define COIR_TRACE_H

#include "coir.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a hook is told. Each may be NULL. Hooks run on the threads of all workers at once; they must not wait, and must
 * not call anything of Coir that may. */
struct coir_trace_hooks {
  /* A worker goes from one fiber to another, by their numbers (coir_fiber_id); 0 is the scheduler itself. */
  void (*on_switch)(uint64_t from, uint64_t to, void *arg);
  /* The fiber `id` begins to wait, and goes on after waiting: of each pair in this order, and while it is switched away
   * from. For a descriptor, `fd` and what it waits for there (COIR_READABLE, COIR_WRITABLE of coir_io.h); for anything
   * else -1 and 0. */
  void (*on_wait)(uint64_t id, int fd, int events, void *arg);
  void (*on_resume)(uint64_t id, int fd, int events, void *arg);
  void *arg;
};

/* Sets the hooks of the process, for all runtimes; copied. NULL: none. Returns 0; -ENOTSUP when the library was built
 * without COIR_TRACE; -EBUSY while a runtime runs. Any thread. */
COIR_API int coir_trace_set_hooks(const struct coir_trace_hooks *hooks);

#ifdef __cplusplus
}
#endif
#endif
