/* csp_pingpong: chan_pingpong by libcsp: a value goes to another goroutine and comes back, over two unbuffered
 * channels.
 *
 * Two goroutines, whatever the number of workers, and the scheduler decides where they run.
 *
 * Per operation: wall time / round trips. */
#include "goroutine.h"

#define ROUND_TRIPS 2000000L

struct game {
  csp_gochan_t *ping, *pong;
  long round_trips;
  int64_t elapsed_ns;
};

static void answer(void *arg) {
  struct game *game = arg;
  for (long i = game->round_trips; i > 0; i--) goroutine_send(game->pong, goroutine_recv(game->ping) + 1);
}

static void serve(void *arg) {
  struct game *game = arg;
  long sum = 0;
  goroutine_create(answer, game);
  int64_t start_ns = coir_now();
  for (long i = 0; i < game->round_trips; i++) {
    goroutine_send(game->ping, i);
    sum += goroutine_recv(game->pong);
  }
  game->elapsed_ns = coir_now() - start_ns;
  bench_equal("sum", sum, bench_sum(game->round_trips));
}

static void run(const struct bench *b, double *values) {
  struct game game = {.ping = goroutine_chan(0), .pong = goroutine_chan(0), .round_trips = bench_count(b, ROUND_TRIPS)};
  goroutines_start(b);
  goroutine_run(serve, &game);
  values[0] = (double)game.elapsed_ns / (double)game.round_trips;
  csp_gochan_free(game.ping);
  csp_gochan_free(game.pong);
}

int main(int argc, char **argv) {
  struct bench b = {.question = "csp_pingpong", .metrics = {{NULL, "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
