/* The trace hooks: weak, so that a program's own take their place. */
#include "gof_internal.h"

__attribute__((weak)) void gof_trace_on_switch(uint64_t old_id, uint64_t new_id) { (void)old_id, (void)new_id; }
__attribute__((weak)) void gof_trace_on_block(int fd, int ev) { (void)fd, (void)ev; }
__attribute__((weak)) void gof_trace_on_unblock(int fd, int ev) { (void)fd, (void)ev; }

#if defined(GOF_ENABLE_TRACING) || defined(GOF_DEBUG)

#include <stdlib.h>
#include <string.h>

#include "coir_io.h"
#include "coir_trace.h"

_Static_assert(COIR_READABLE == 1 && COIR_WRITABLE == 2, "the bits of ev");

static void on_switch(uint64_t from, uint64_t to, void *arg) {
  (void)arg;
  GOF_LOG("switch: %llu -> %llu", (unsigned long long)from, (unsigned long long)to);
#ifdef GOF_ENABLE_TRACING
  gof_trace_on_switch(from, to);
#endif
}

static void on_wait(uint64_t id, int fd, int events, void *arg) {
  (void)id, (void)arg;
  GOF_LOG("block: fiber %llu, fd %d, ev %d", (unsigned long long)id, fd, events);
#ifdef GOF_ENABLE_TRACING
  gof_trace_on_block(fd, events);
#endif
}

static void on_resume(uint64_t id, int fd, int events, void *arg) {
  (void)id, (void)arg;
  GOF_LOG("unblock: fiber %llu, fd %d, ev %d", (unsigned long long)id, fd, events);
#ifdef GOF_ENABLE_TRACING
  gof_trace_on_unblock(fd, events);
#endif
}

void gof__trace_begin(void) {
  const struct coir_trace_hooks hooks = {.on_switch = on_switch, .on_wait = on_wait, .on_resume = on_resume};
  int rc = coir_trace_set_hooks(&hooks);
  if (rc) gof__say("no trace hooks: %s", strerror(-rc));
}

#else

void gof__trace_begin(void) {}

#endif
