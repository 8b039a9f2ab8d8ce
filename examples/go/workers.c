/* workers.c: a pool of workers that take jobs from a channel and send results to another. */
#include <stdio.h>

#include "coir.h"

enum { WORKERS = 3, JOBS = 12 };

struct result {
  int job, value;
};

struct pool {
  COIR_CHAN(int) jobs;
  COIR_CHAN(struct result) results;
};

static int work(void *arg) {
  struct pool *pool = arg;
  int job, rc = 0;
  while (rc == 0 && COIR_RECV(pool->jobs, &job, COIR_NEVER) == 0) {
    struct result result = {job, job * job};
    rc = coir_sleep(COIR_US(100) * (job % 4));
    if (rc == 0) rc = COIR_SEND(pool->results, &result, COIR_NEVER);
  }
  return rc;
}

/* Closes the results when nobody sends any more. */
static int run_pool(void *arg) {
  struct pool *pool = arg;
  struct coir_scope *scope;
  int rc = coir_scope_open(&scope, 0, COIR_NEVER);
  if (rc != 0) return rc;
  for (int i = 0; i < WORKERS; i++) coir_scope_spawn(scope, work, pool, NULL, NULL);
  rc = coir_scope_close(scope);
  coir_chan_close(COIR_CHAN_RAW(pool->results));
  return rc;
}

static int first(void *arg) {
  struct pool pool = {COIR_CHAN_CREATE(int, JOBS), COIR_CHAN_CREATE(struct result, 0)};
  struct coir_fiber *fiber;
  struct result result;
  int values[JOBS] = {0};
  (void)arg;
  if (coir_spawn(run_pool, &pool, NULL, &fiber) != 0) return 1;
  for (int i = 0; i < JOBS; i++) COIR_SEND(pool.jobs, &i, COIR_NEVER);
  coir_chan_close(COIR_CHAN_RAW(pool.jobs));
  while (COIR_RECV(pool.results, &result, COIR_NEVER) == 0) values[result.job] = result.value;
  coir_join(fiber, NULL, COIR_NEVER);
  for (int i = 0; i < JOBS; i++) printf("job %d: %d\n", i, values[i]);
  coir_chan_unref(COIR_CHAN_RAW(pool.jobs));
  coir_chan_unref(COIR_CHAN_RAW(pool.results));
  return 0;
}

int main(void) { return coir_run(first, NULL); }
