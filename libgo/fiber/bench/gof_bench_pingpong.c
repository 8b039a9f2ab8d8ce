/* gof_bench_pingpong: how fast two fibers hand a message to and fro.
 *
 *     gof_bench_pingpong [rounds=100000] [capacity=0]
 *
 * Both use one channel. Ping sends and then receives, `rounds` times; pong receives and then sends. Messages are
 * numbered, and each fiber checks that it gets those of the other, in their order. In a channel with room a fiber may
 * find its own message: it puts it back and yields. Figure: messages that have arrived per second. */
#include "gof_bench.h"
#include "libgo/fiber_chan.h"

#define ROUNDS_MAX 1000000000000u
#define CAPACITY_MAX 1000000000u

struct game {
  struct bench_watch watch;
  gof_chan_t *chan;
  uint64_t rounds;
};

static void give(struct game *game, uint64_t message) {
  if (gof_chan_send(game->chan, (void *)(uintptr_t)message) != 0) bench_die("gof_chan_send", errno);
}

/* Takes `message`, which follows the caller's own. */
static void take(struct game *game, uint64_t message) {
  void *value;
  for (;;) {
    if (gof_chan_recv(game->chan, &value) != 0) bench_die("gof_chan_recv", errno);
    if ((uintptr_t)value == message) return;
    if ((uintptr_t)value + 1 != message) bench_die("a message came out of turn", EPROTO);
    give(game, (uintptr_t)value);
    gof_yield();
  }
}

static void ping(void *arg) {
  struct game *game = arg;
  bench_begin(&game->watch);
  for (uint64_t i = 0; i < game->rounds; i++) {
    give(game, 2 * i + 1);
    take(game, 2 * i + 2);
  }
  bench_end(&game->watch);
}

static void pong(void *arg) {
  struct game *game = arg;
  bench_begin(&game->watch);
  for (uint64_t i = 0; i < game->rounds; i++) {
    take(game, 2 * i + 1);
    give(game, 2 * i + 2);
  }
  bench_end(&game->watch);
}

int main(int argc, char **argv) {
  uint64_t rounds = 100000, capacity = 0;
  if (argc > 3 || (argc > 1 && !bench_number(argv[1], 1, ROUNDS_MAX, &rounds)) ||
      (argc > 2 && !bench_number(argv[2], 0, CAPACITY_MAX, &capacity))) {
    bench_usage(argv[0], "[rounds=100000] [capacity=0]");
  }
  gof_init(0);
  struct game game = {.watch.left = 2, .chan = gof_chan_make(capacity), .rounds = rounds};
  if (!game.chan) bench_die("gof_chan_make", errno);
  bench_spawn(pong, &game); /* first, so that ping finds it waiting */
  bench_spawn(ping, &game);
  gof_run();
  gof_chan_free(game.chan);
  double seconds = bench_seconds(&game.watch);
  double messages = 2.0 * (double)rounds;
  printf("gof_bench_pingpong: rounds=%llu cap=%llu time=%.3fs msgs=%.0f (%.2f M/s)\n", (unsigned long long)rounds,
         (unsigned long long)capacity, seconds, messages, messages / seconds / 1e6);
  return 0;
}
