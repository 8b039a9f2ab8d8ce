/* wake_1m: a million fibers that wait are woken, each by itself, and wait again.
 *
 * Every fiber waits for a semaphore of its own. One fiber releases all of them, one after the other, lets those that it
 * has woken run after each thousand, and waits until each has been through. That is a round; what the fibers need to
 * exist is park_1m's question and not in it. Their stacks and descriptors are in no cache.
 *
 * Per operation: wall time of a round / fibers. One process per run. With --quick there are a fifth of the fibers. */
#include <stdatomic.h>
#include <stdlib.h>

#include "bench.h"

#define FIBERS 1000000L
#define ROUNDS 3
#define BATCH 1000

struct sitter {
  struct coir_sem gate;
  long rounds; /* that it has been woken for */
};

static _Atomic(long) seated;

static int sit(void *arg) {
  struct sitter *sitter = arg;
  for (;;) {
    atomic_fetch_add_explicit(&seated, 1, memory_order_release); /* pairs with the acquire in await */
    bench_check("coir_sem_acquire", coir_sem_acquire(&sitter->gate, 1, COIR_NEVER));
    if (++sitter->rounds > ROUNDS) return 0;
  }
}

static void await(long count) {
  while (atomic_load_explicit(&seated, memory_order_acquire) < count) coir_yield();
}

static void wake_all(struct sitter *sitters, long count) {
  for (long i = 0; i < count; i++) {
    coir_sem_release(&sitters[i].gate, 1);
    if (i % BATCH == 0) coir_yield();
  }
}

static void run(const struct bench *b, double *values) {
  long count = bench_count(b, FIBERS);
  struct sitter *sitters = bench_alloc((size_t)count * sizeof *sitters);
  struct coir_fiber **fibers = bench_alloc((size_t)count * sizeof *fibers);
  for (long i = 0; i < count; i++) {
    sitters[i] = (struct sitter){0};
    fibers[i] = bench_spawn(sit, &sitters[i], NULL);
  }
  await(count);
  int64_t start_ns = coir_now();
  for (int round = 1; round <= ROUNDS; round++) {
    wake_all(sitters, count);
    await((round + 1) * count);
  }
  values[0] = (double)(coir_now() - start_ns) / ROUNDS / (double)count;
  wake_all(sitters, count);
  for (long i = 0; i < count; i++) {
    bench_join(fibers[i]);
    bench_equal("rounds", sitters[i].rounds, ROUNDS + 1);
  }
  free(fibers);
  free(sitters);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "wake_1m", .metrics = {{NULL, "ns", "lower"}}, .run = run, .is_fresh = true};
  return bench_main(argc, argv, &b);
}
