// job_transform: a tree of nodes, level by level, each from its parent; as b_job_transform.c.
#include "bench.hpp"

static void update(const transforms &tree) {
  for (int level = 1; level < tree.depth; level++) {
    tbb::parallel_for(tbb::blocked_range<size_t>(tree.first[level], tree.first[level + 1], TRANSFORM_BATCH),
                      [&](const auto &range) {
                        for (size_t i = range.begin(); i < range.end(); i++) transform_update(&tree, level, i);
                      });
  }
}

static double measure_shape(const peer *p, int depth, size_t branch) {
  transforms tree;
  std::vector<transform, tbb::cache_aligned_allocator<transform>> nodes(transforms_shape(&tree, depth, branch));
  tree.nodes = nodes.data();
  long times = peer_count(p, 2000);
  int64_t start = peer_now();
  for (long t = 0; t < times; t++) update(tree);
  double value = peer_each(start, times) / 1e3;
  peer_check("sum", uint64_t(transforms_sum(&tree)), uint64_t(transforms_expected(&tree)));
  return value;
}

static void run(const peer *p, double *values) {
  Threads threads(p);
  values[0] = measure_shape(p, 8, 2);
  values[1] = measure_shape(p, 6, 3);
  values[2] = measure_shape(p, 4, 4);
}

int main(int argc, char **argv) {
  return measure(argc, argv, "job_transform", {{"", "us"}, {"6x3", "us"}, {"4x4", "us"}}, run);
}
