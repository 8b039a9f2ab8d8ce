// chan_pingpong: a value goes to another fiber and comes back, over two unbuffered channels; as b_chan_pingpong.c. For
// "across" the two are on threads of their own, outside of the scheduler that steals.
#include "bench.hpp"

static constexpr long round_trips = 1000000, round_trips_across = 20000;

struct Game {
  long round_trips;
  fibers::unbuffered_channel<long> ping, pong;
  double value;

  explicit Game(long round_trips) : round_trips(round_trips) {}

  void answer() {
    for (long i = 0; i < round_trips; i++) pong.push(ping.value_pop() + 1);
  }

  void serve() {
    long sum = 0;
    Stopwatch watch;
    for (long i = 0; i < round_trips; i++) {
      ping.push(i);
      sum += pong.value_pop();
    }
    value = watch.each(round_trips);
    check("sum", sum, round_trips * (round_trips + 1) / 2);
  }
};

// On two fibers, or two threads.
template <class Player> static double play(long round_trips) {
  Game game(round_trips);
  Player answerer([&] { game.answer(); }), server([&] { game.serve(); });
  server.join();
  answerer.join();
  return game.value;
}

static Values run(const Bench &b) {
  double across = b.workers > 1 ? play<std::thread>(b.count(round_trips_across)) : NAN;
  return {play<fibers::fiber>(b.count(round_trips)), across};
}

int main(int argc, char **argv) { return Bench{"chan_pingpong", {{"", "ns"}, {"across", "ns"}}, run}.main(argc, argv); }
