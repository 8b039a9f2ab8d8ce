/* What the questions about libcsp share: work that runs in a goroutine, as Go's main does. */
#ifndef BENCH_GOROUTINE_H
#define BENCH_GOROUTINE_H

#include "bench.h"
#include "chan.h"
#include "runtime.h"
#include "scheduler.h"
#include "sync.h"

/* Starts libcsp's workers, the first time: as many as are to be measured. */
static inline void goroutines_start(const struct bench *b) {
  csp_scheduler_init(b->workers);
  bench_equal("workers", runtime_num_workers(), b->workers);
}

/* csp_proc_create with the smallest stack; dies when it fails. */
static inline void goroutine_create(void (*fn)(void *arg), void *arg) {
  if (__builtin_expect(!csp_proc_create(0, fn, arg), 0)) bench_die("csp_proc_create failed");
}

struct goroutine_call {
  void (*fn)(void *arg);
  void *arg;
  csp_sync_waitgroup_t ended;
};

static inline void goroutine_call(void *arg) {
  struct goroutine_call *call = arg;
  call->fn(call->arg);
  csp_sync_waitgroup_done(&call->ended);
}

/* Runs fn(arg) in a goroutine and waits for its end. The caller is none: nobody else runs meanwhile. */
static inline void goroutine_run(void (*fn)(void *arg), void *arg) {
  struct goroutine_call call = {.fn = fn, .arg = arg};
  csp_sync_waitgroup_add(&call.ended, 1);
  goroutine_create(goroutine_call, &call);
  csp_sync_waitgroup_wait(&call.ended);
}

/* csp_gochan_new; dies when it fails. */
static inline csp_gochan_t *goroutine_chan(size_t capacity) {
  csp_gochan_t *chan = csp_gochan_new(capacity);
  if (!chan) bench_die("csp_gochan_new: out of memory");
  return chan;
}

/* csp_gochan_send and csp_gochan_recv of a number; die when the channel is closed. */
static inline void goroutine_send(csp_gochan_t *chan, long value) {
  if (!csp_gochan_send(chan, (void *)value)) bench_die("csp_gochan_send: the channel is closed");
}
static inline long goroutine_recv(csp_gochan_t *chan) {
  bool ok;
  void *value = csp_gochan_recv(chan, &ok);
  if (!ok) bench_die("csp_gochan_recv: the channel is closed");
  return (long)value;
}

/* How many goroutines were ever started. */
static inline long goroutines_started(void) {
  struct coir_stats stats;
  coir_runtime_get_stats(csp_runtime(), &stats);
  return (long)stats.fibers_spawned;
}

#endif
