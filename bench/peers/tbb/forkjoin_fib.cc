// forkjoin_fib: fib(27) by its definition, each call an invocation of two in parallel; as b_forkjoin_fib.c.
#include "bench.hpp"

static long fib(long n) {
  if (n < 2) return n;
  long a, b;
  tbb::parallel_invoke([&] { a = fib(n - 1); }, [&] { b = fib(n - 2); });
  return a + b;
}

static void run(const peer *p, double *values) {
  Threads threads(p);
  long times = peer_count(p, 50);
  int64_t start = peer_now();
  for (long i = 0; i < times; i++) peer_check("fib", uint64_t(fib(FIB_N)), FIB_OF_N);
  values[0] = peer_each(start, times * FIB_CALLS);
}

int main(int argc, char **argv) { return measure(argc, argv, "forkjoin_fib", {{"", "ns"}}, run); }
