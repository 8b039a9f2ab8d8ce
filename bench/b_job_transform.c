/* job_transform: a tree of nodes, level by level, each from its parent, as a game's scene: 8 levels of two below each
 * node, "6x3" levels of three, "4x4" of four. One job does a tree, and waits for each level.
 *
 * Figures: wall time for a tree, in us. "coir": each level as jobs of 64 nodes; "coir adaptive": coir_parallel_for. */
#include "job_work.h"
#include "jobs.h"

#define NODES_MAX 400

static struct transform nodes[NODES_MAX];

struct scene {
  struct transforms tree;
  int level; /* that is updated now */
};

static void update(size_t i, void *arg) {
  const struct scene *scene = arg;
  transform_update(&scene->tree, scene->level, i);
}

static void by_jobs(struct coir_job *job, void *arg) {
  struct scene *scene = arg;
  for (scene->level = 1; scene->level < scene->tree.depth; scene->level++) {
    const size_t *first = &scene->tree.first[scene->level];
    struct coir_counter *counter =
        coir_job_parallel_for(coir_job_system_of(job), first[0], first[1], TRANSFORM_BATCH, update, scene);
    bench_equal("coir_job_wait", coir_job_wait(job, counter), 0);
    coir_counter_unref(counter);
  }
}

static void adaptive(struct coir_job *job, void *arg) {
  struct scene *scene = arg;
  for (scene->level = 1; scene->level < scene->tree.depth; scene->level++) {
    const size_t *first = &scene->tree.first[scene->level];
    bench_check("coir_parallel_for", coir_parallel_for(coir_job_system_of(job), first[0], first[1], update, scene));
  }
}

static double measure(const struct bench *b, struct coir_job_system *jobs, coir_job_fn fn, int depth, size_t branch) {
  struct scene scene = {.tree = {.nodes = nodes}};
  long times = bench_count(b, 2000);
  if (transforms_shape(&scene.tree, depth, branch) > NODES_MAX) bench_die("too many nodes");
  memset(nodes, 0, sizeof nodes);
  int64_t start_ns = coir_now();
  for (long i = 0; i < times; i++) bench_job(jobs, fn, &scene);
  double value = bench_each(start_ns, times) / 1e3;
  bench_equal("sum", transforms_sum(&scene.tree), transforms_expected(&scene.tree));
  return value;
}

static void run(const struct bench *b, double *values) {
  static const int depths[] = {8, 6, 4}, branches[] = {2, 3, 4};
  static struct coir_job_system *jobs;
  if (!jobs) {
    struct coir_job_config config;
    bench_check("coir_job_config_preset", coir_job_config_preset(&config, COIR_JOBS_GAMING));
    jobs = bench_jobs(b, &config);
  }
  for (int i = 0; i < 3; i++) {
    values[i] = measure(b, jobs, by_jobs, depths[i], branches[i]);
    values[3 + i] = measure(b, jobs, adaptive, depths[i], branches[i]);
  }
}

int main(int argc, char **argv) {
  struct bench b = {.question = "job_transform",
                    .metrics = {{NULL, "us", "lower"},
                                {"6x3", "us", "lower"},
                                {"4x4", "us", "lower"},
                                {NULL, "us", "lower"},
                                {"6x3", "us", "lower"},
                                {"4x4", "us", "lower"}},
                    .impls = {NULL, NULL, NULL, "coir adaptive", "coir adaptive", "coir adaptive"},
                    .run = run};
  return bench_main(argc, argv, &b);
}
