/* chan_pingpong: a value goes to another fiber and comes back, over two unbuffered channels.
 *
 * Two fibers, whatever the number of workers, and the scheduler decides where they run. With two workers there is a
 * second figure, "across": the two are pinned to different workers, so that every value has to cross.
 *
 * Per operation: wall time / round trips. */
#include <math.h>

#include "bench.h"

#define ROUND_TRIPS 2000000L
#define ROUND_TRIPS_ACROSS 20000L

struct game {
  struct coir_chan *ping, *pong;
  long round_trips;
  int64_t elapsed_ns;
};

static int answer(void *arg) {
  struct game *game = arg;
  for (long i = game->round_trips; i > 0; i--) bench_send(game->pong, bench_recv(game->ping) + 1);
  return 0;
}

static int serve(void *arg) {
  struct game *game = arg;
  long sum = 0;
  int64_t start_ns = coir_now();
  for (long i = 0; i < game->round_trips; i++) {
    bench_send(game->ping, i);
    sum += bench_recv(game->pong);
  }
  game->elapsed_ns = coir_now() - start_ns;
  bench_equal("sum", sum, bench_sum(game->round_trips));
  return 0;
}

static double play(long round_trips, bool is_across) {
  struct game game = {.ping = bench_chan(0), .pong = bench_chan(0), .round_trips = round_trips};
  struct coir_attr here = {.worker = COIR_WORKER(0), .pinned = true};
  struct coir_attr there = {.worker = COIR_WORKER(1), .pinned = true};
  struct coir_fiber *answerer = bench_spawn(answer, &game, is_across ? &there : NULL);
  struct coir_fiber *server = bench_spawn(serve, &game, is_across ? &here : NULL);
  bench_join(server);
  bench_join(answerer);
  coir_chan_unref(game.ping);
  coir_chan_unref(game.pong);
  return (double)game.elapsed_ns / (double)round_trips;
}

static void run(const struct bench *b, double *values) {
  values[0] = play(bench_count(b, ROUND_TRIPS), false);
  values[1] = b->workers > 1 ? play(bench_count(b, ROUND_TRIPS_ACROSS), true) : NAN;
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "chan_pingpong", .metrics = {{NULL, "ns", "lower"}, {"across", "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
