// sand_100k, sand_1m, sand_heavy, sand_heavy_1m (--as): grains of sand fall and pile up; as b_sand.c.
#include "bench.hpp"

#include "../../sand.h"

using Range = tbb::blocked_range<size_t>;

static void step(sand &s) {
  sand_spawn(&s, SAND_SPAWNED);
  tbb::parallel_for(Range(0, SAND_CELLS), [&](const Range &range) { sand_clear(&s, range.begin(), range.end()); });
  tbb::parallel_for(Range(0, s.count), [&](const Range &range) { sand_mark(&s, range.begin(), range.end()); });
  tbb::parallel_for(Range(0, s.count), [&](const Range &range) { sand_move(&s, range.begin(), range.end()); });
}

static void run(const peer *p, double *values) {
  const sand_kind *kind = sand_kind_of(p->question);
  static uint64_t expected;
  sand s;
  values[0] = NAN;
  if (kind->is_long && p->quick) return;
  if (!expected) expected = sand_expected(kind);
  if (!sand_init(&s, kind)) peer_die("out of memory");
  Threads threads(p);
  int64_t start = peer_now();
  for (int i = 0; i < kind->steps; i++) step(s);
  values[0] = peer_each(start, 1) / 1e6;
  peer_check("grains", sand_checksum(&s), expected);
  sand_free(&s);
}

int main(int argc, char **argv) {
  const char *name = peer_option(&argc, argv, "--as");
  if (!name || !sand_kind_of(name)) peer_die("--as QUESTION is needed");
  return measure(argc, argv, name, {{"", "ms"}}, run);
}
