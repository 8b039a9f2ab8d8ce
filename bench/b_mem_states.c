/* mem_states: resident memory of one fiber, in all, in each of the states in which many fibers may be.
 *
 *   (no name)  has run, and waits on a shallow stack: in coir_sleep_until(COIR_NEVER), as in mem_parked
 *   queued     has not run yet
 *   channel, select, sleep, io
 *              waits for a value; for a value of one of two channels or an end; for a time that is an hour ahead; for
 *              a descriptor to become readable
 *   deep       waits on a shallow stack after it has used 32 KiB of it: what of them it still has
 *   ended      has ended, and nobody has joined it
 *
 * The figure is the growth of the process divided by the fibers. What is the program's own, handles, channels and
 * descriptors, is there before; the kernel's memory for descriptors and page tables does not count as resident. Each
 * state has a process of its own. There are 50 000 fibers, but 10 000 that wait for descriptors: the fewer, the greater
 * the share of each in memory that is got in large pieces. --quick does not make it smaller. */
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "bench.h"
#include "coir_io.h"

#define FIBERS 50000L
#define FIBERS_IO 10000L /* many systems allow no more than 20 000 descriptors */
#define DEEP_BYTES (32 * 1024)

enum state { PARKED, QUEUED, CHANNEL, SELECT, SLEEP, IO, DEEP, ENDED };

static struct coir_chan *chan;
static _Atomic(long) arrived;

static void arrive(void) { atomic_fetch_add_explicit(&arrived, 1, memory_order_relaxed); }

static int parked(void *arg) {
  (void)arg;
  arrive();
  coir_sleep_until(COIR_NEVER);
  return 0;
}

static int in_channel(void *arg) {
  long value;
  (void)arg;
  arrive();
  coir_chan_recv(chan, &value, COIR_NEVER);
  return 0;
}

static int in_select(void *arg) {
  long value, other;
  (void)arg;
  arrive();
  struct coir_arm arms[2] = {coir_arm_recv(chan, &value), coir_arm_recv(chan, &other)};
  coir_select(arms, 2, COIR_NEVER);
  return 0;
}

static int in_sleep(void *arg) {
  (void)arg;
  arrive();
  coir_sleep(COIR_SEC(3600));
  return 0;
}

static int in_io(void *arg) {
  uint64_t value;
  arrive();
  coir_read((int)(intptr_t)arg, &value, sizeof value, COIR_NEVER);
  return 0;
}

static __attribute__((noinline)) void use_stack(void) {
  volatile char room[DEEP_BYTES];
  for (size_t i = 0; i < sizeof room; i += 1024) room[i] = 1;
}

static int deep(void *arg) {
  use_stack();
  return parked(arg);
}

static int ended(void *arg) {
  (void)arg;
  arrive();
  return 0;
}

static const coir_fn functions[] = {parked, ended, in_channel, in_select, in_sleep, in_io, deep, ended};

/* What the runtime makes once for the state, it makes here. */
static void warm_up(enum state state, void *arg) {
  struct coir_fiber *fiber = bench_spawn(functions[state], arg, NULL);
  while (atomic_load(&arrived) < 1) coir_yield();
  coir_sleep(COIR_MS(1));
  coir_cancel(fiber);
  bench_join(fiber);
  atomic_store(&arrived, 0);
}

static int spin(void *arg) {
  arrive();
  while (!atomic_load_explicit((_Atomic(bool) *)arg, memory_order_relaxed)) {}
  return 0;
}

/* So that nobody runs what is to stay queued. */
static void occupy_others(const struct bench *b, _Atomic(bool) *is_over) {
  for (int i = 0; i < b->workers; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i), .pinned = true};
    if (i != coir_worker_index()) coir_detach(bench_spawn(spin, is_over, &attr));
  }
  while (atomic_load(&arrived) < b->workers - 1) {}
  atomic_store(&arrived, 0);
}

static void run(const struct bench *b, double *values) {
  static _Atomic(bool) is_over;
  enum state state = (enum state)b->figure;
  long count = state == IO ? FIBERS_IO : FIBERS;
  struct coir_fiber **fibers = bench_alloc((size_t)count * sizeof(struct coir_fiber *));
  intptr_t *fds = bench_alloc((size_t)count * sizeof *fds);
  chan = bench_chan(0);
  for (long i = 0; i < count; i++) {
    fds[i] = state == IO ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
    if (state == IO && fds[i] < 0) bench_die("eventfd: %ld descriptors are needed: ulimit -n", count);
  }
  warm_up(state, (void *)fds[0]);
  if (state == QUEUED) occupy_others(b, &is_over);
  coir_hold_begin(); /* nor is this worker taken away meanwhile, on a machine that is busy */
  double rss = bench_rss_bytes();
  for (long i = 0; i < count; i++) fibers[i] = bench_spawn(functions[state], (void *)fds[i], NULL);
  while (state != QUEUED && atomic_load_explicit(&arrived, memory_order_relaxed) < count) coir_yield();
  if (state != QUEUED) coir_sleep(COIR_MS(10)); /* until the last one waits, or has ended */
  values[state] = (bench_rss_bytes() - rss) / (double)count;
  bench_equal("fibers that have begun", atomic_load(&arrived), state == QUEUED ? 0 : count);
  coir_hold_end();
  atomic_store(&is_over, true);
  for (long i = 0; i < count; i++) coir_cancel(fibers[i]);
  for (long i = 0; i < count; i++) bench_join(fibers[i]);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "mem_states",
                    .metrics = {[PARKED] = {NULL, "B", "lower"},
                                [QUEUED] = {"queued", "B", "lower"},
                                [CHANNEL] = {"channel", "B", "lower"},
                                [SELECT] = {"select", "B", "lower"},
                                [SLEEP] = {"sleep", "B", "lower"},
                                [IO] = {"io", "B", "lower"},
                                [DEEP] = {"deep", "B", "lower"},
                                [ENDED] = {"ended", "B", "lower"}},
                    .run = run,
                    .is_fresh = true,
                    .is_apart = true};
  return bench_main(argc, argv, &b);
}
