/* Scenes of coir_job.h and coir_sort.h, raw fibers and generators. */
#include "scenes.h"

#include "coir_job.h"
#include "coir_sort.h"

/* ---- Jobs ------------------------------------------------------------------------------------------------------ */

static _Atomic(int) jobs_run;

static void counts_one(struct coir_job *job, void *arg) {
  (void)job, (void)arg;
  atomic_fetch_add(&jobs_run, 1);
}

static void spawns_and_waits(struct coir_job *job, void *out) {
  struct coir_counter *all = coir_counter_create(0);
  int rc = all ? 0 : MAY(-ENOMEM, -ENOMEM);
  for (int i = 0; i < 20 && all; i++) rc = first_of(rc, MAY(coir_job_spawn_with(job, all, counts_one, NULL), -ENOMEM));
  if (all) MUST(coir_job_wait(job, all));
  coir_counter_unref(all);
  if (!coir_job_frame_alloc(job, 100000, 64)) rc = first_of(rc, MAY(-ENOMEM, -ENOMEM));
  *(int *)out = rc;
}

static int with_system(struct coir_job_config config, int (*fn)(struct coir_job_system *jobs)) {
  struct coir_job_system *jobs = NULL;
  config.threads = 2;
  int rc = MAY(coir_job_system_create(&jobs, &config), OF_CREATE, -EAGAIN);
  CHECK((rc == 0) == (jobs != NULL));
  if (rc < 0) return rc;
  rc = fn(jobs);
  MUST(coir_job_system_shutdown(jobs, SOON));
  coir_job_system_destroy(jobs);
  return rc;
}

static int submits(struct coir_job_system *jobs) {
  struct coir_job_desc desc[8] = {{.fn = NULL}};
  struct coir_counter *counter = NULL;
  int inside = 0, copied = 5;
  for (int i = 0; i < 8; i++)
    desc[i] = (struct coir_job_desc){.fn = counts_one, .priority = (enum coir_priority)(i % 3 - 1)};
  desc[7].arg = &copied;
  desc[7].copy_bytes = sizeof copied;
  int rc = MAY(coir_job_submit(jobs, desc, 8, &counter), -ENOMEM);
  CHECK((rc == 0) == (counter != NULL));
  if (counter) MUST(coir_counter_wait(counter, SOON));
  coir_counter_unref(counter);
  counter = coir_job_run(jobs, spawns_and_waits, &inside);
  if (!counter) rc = first_of(rc, MAY(-ENOMEM, -ENOMEM));
  else MUST(coir_counter_wait(counter, SOON));
  coir_counter_unref(counter);
  return first_of(rc, inside);
}

static int traces(struct coir_job_system *jobs) {
  int rc = submits(jobs);
  struct coir_job_metrics metrics;
  MUST(coir_job_system_metrics(jobs, &metrics));
  char path[300];
  const char *folder = getenv("TMPDIR");
  snprintf(path, sizeof path, "%s/faults-%d.json", folder ? folder : "/tmp", (int)getpid());
  int written = MAY(coir_job_system_export_trace(jobs, path), -ENOMEM, OF_CALL);
  (void)unlink(path);
  return first_of(rc, written);
}

static int jobs_plain(void) { return with_system((struct coir_job_config){.initial_pool_size = 2}, submits); }

static int jobs_traced(void) {
  return with_system((struct coir_job_config){.metrics = COIR_ON, .trace = COIR_ON, .pinning = COIR_PIN_LINEAR},
                     traces);
}

/* ---- Loops ----------------------------------------------------------------------------------------------------- */

static void adds_i(size_t i, void *sum) { atomic_fetch_add((_Atomic(long) *)sum, (long)i); }

static void adds_range(size_t lo, size_t hi, void *value, void *arg) {
  (void)arg;
  for (size_t i = lo; i < hi; i++) *(long *)value += (long)i;
}

static void adds_value(void *left, const void *right, void *arg) {
  (void)arg;
  *(long *)left += *(const long *)right;
}

static void sees_before(size_t lo, size_t hi, const void *before, void *arg) {
  (void)hi, (void)arg;
  CHECK(*(const long *)before == (long)(lo * (lo - 1) / 2) || lo == 0);
}

static int compares(const void *a, const void *b, void *arg) {
  (void)arg;
  int x = *(const int *)a, y = *(const int *)b;
  return (x > y) - (x < y);
}

static void counts_forked(void *n) { atomic_fetch_add((_Atomic(long) *)n, 1); }

static int sorts(struct coir_job_system *jobs) {
  enum { COUNT = 20000 };
  int *list = malloc(COUNT * sizeof *list), rc = 0;
  double *numbers = malloc(COUNT * sizeof *numbers);
  CHECK(list && numbers);
  for (int i = 0; i < COUNT; i++) list[i] = (int)((unsigned)i * 7919u % COUNT), numbers[i] = list[i];
  rc = MAY(coir_parallel_sort(jobs, list, COUNT, sizeof *list, compares, NULL), -ENOMEM);
  int rc2 = MAY(coir_parallel_sort_f64(jobs, numbers, COUNT), -ENOMEM);
  for (int i = 1; i < COUNT; i++) CHECK((rc || list[i - 1] <= list[i]) && (rc2 || numbers[i - 1] <= numbers[i]));
  free(list);
  free(numbers);
  return first_of(rc, rc2);
}

static int loops(struct coir_job_system *jobs) {
  const long zero = 0;
  const struct coir_monoid sums = {.bytes = sizeof zero, .identity = &zero, .sum = adds_range, .combine = adds_value};
  _Atomic(long) sum = 0;
  long out = 0;
  int rc = MAY(coir_parallel_for(jobs, 0, 1000, adds_i, &sum), -ENOMEM);
  CHECK(rc < 0 || sum == 499500);
  int rc2 = MAY(coir_parallel_reduce(jobs, 0, 1000, 16, &sums, NULL, &out), -ENOMEM);
  CHECK(rc2 < 0 || out == 499500);
  int rc3 = MAY(coir_parallel_scan(jobs, 0, 1000, &sums, sees_before, NULL, &out), -ENOMEM);
  CHECK(rc3 < 0 || out == 499500);
  sum = 0;
  MUST(coir_fork2(counts_forked, &sum, counts_forked, &sum)); /* on this thread */
  CHECK(sum == 2);
  return first_of(first_of(rc, rc2), first_of(rc3, sorts(jobs)));
}

static int parallel(void) { return with_system((struct coir_job_config){.size = 0}, loops); }

static int topology(void) {
  struct coir_topology *t = coir_topology_detect();
  if (!t) return MAY(-ENOMEM, -ENOMEM);
  CHECK(coir_topology_cpus(t) >= 1 && coir_topology_usable(t) >= 1 && coir_topology_cores(t) >= 1);
  coir_topology_destroy(t);
  struct coir_paged_frame *frame = coir_paged_frame_create(1 << 16);
  if (!frame) return MAY(-ENOMEM, -ENOMEM);
  for (int i = 0; i < 4; i++)
    if (!coir_paged_frame_alloc(frame, 50000, 0)) CHECK(fault_has_come());
  coir_paged_frame_destroy(frame);
  return 0;
}

/* ---- Coroutines ------------------------------------------------------------------------------------------------ */

static void yields_raw(void *arg) {
  (void)arg;
  coir_raw_fiber_yield();
  MUST(coir_sleep(COIR_US(20)));
}

static int uses_raw(void *arg) {
  (void)arg;
  struct coir_fiber_pool *pool = NULL;
  struct coir_raw_fiber *raw = NULL;
  int rc = MAY(coir_raw_fiber_create(&raw, 0), -ENOMEM), pooled;
  if (rc == 0) {
    CHECK(coir_raw_fiber_resume(raw, yields_raw, NULL) == COIR_RAW_YIELDED);
    CHECK(coir_raw_fiber_resume(raw, NULL, NULL) == COIR_RAW_COMPLETE);
    coir_raw_fiber_destroy(raw);
  }
  pooled = MAY(coir_fiber_pool_create(&pool, 3, 32 << 10), -ENOMEM);
  if (pooled == 0) {
    pooled = MAY(coir_fiber_pool_grow(pool, 3), -ENOMEM);
    struct coir_raw_fiber *got[8];
    for (int i = 0; i < 8; i++)
      if ((got[i] = coir_fiber_pool_get(pool)) == NULL) pooled = first_of(pooled, MAY(-ENOMEM, -ENOMEM));
    for (int i = 0; i < 8; i++) coir_fiber_pool_put(pool, got[i]);
    coir_fiber_pool_destroy(pool);
  }
  return first_of(rc, pooled);
}

static int raw_fibers(void) { return play_on((struct coir_config){.workers = 1}, uses_raw, NULL); }

static int yields_three(void *arg) {
  int rc = 0;
  for (int i = 0; i < 3 && rc == 0; i++) rc = coir_gen_yield(arg, NULL); /* until it is destroyed, it may be */
  return rc;
}

static int uses_generators(void *arg) {
  int rc = 0;
  for (int i = 0; i < 3; i++) {
    struct coir_gen *gen = NULL;
    void *value = NULL;
    int made = MAY(coir_gen_create(&gen, yields_three, &rc, NULL), -ENOMEM), resumed = 0;
    while (made == 0 && (resumed = MAY(coir_gen_resume(gen, NULL, &value), -ENOMEM)) == 0) CHECK(value == &rc);
    if (resumed < 0) CHECK(coir_gen_resume(gen, NULL, &value) == 0 && value == &rc);
    if (made == 0) (void)coir_gen_destroy(gen);
    rc = first_of(rc, first_of(made, resumed < 0 ? resumed : 0));
  }
  (void)arg;
  return rc;
}

static int generators(void) { return play_on((struct coir_config){.workers = 1}, uses_generators, NULL); }

const struct fault_scene fault_scenes_job[] = {
    {"jobs", jobs_plain},       {"jobs_traced", jobs_traced}, {"parallel", parallel}, {"topology", topology},
    {"raw_fibers", raw_fibers}, {"generators", generators},   {NULL, NULL},
};
