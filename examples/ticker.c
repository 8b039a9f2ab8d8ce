/* ticker.c: a job that reports its progress at a steady pace, under the eyes of a watchdog.
 *
 * usage: ticker [STEPS] */
#include <stdio.h>
#include <stdlib.h>

#include "coir.h"

struct job {
  int steps;
  _Atomic(int) done;
  struct coir_ticker *ticker;
  struct coir_timer *watchdog;
};

/* Runs on a fiber of its own if a step takes a second. */
static int bark(void *arg) {
  const struct job *job = arg;
  printf("step %d takes its time\n", job->done + 1);
  return 0;
}

static int work(void *arg) {
  struct job *job = arg;
  for (; job->done < job->steps; job->done++) {
    coir_timer_start(job->watchdog, coir_after(COIR_SEC(1)), 0); /* anew for every step */
    coir_sleep(COIR_MS(5));
  }
  printf("watchdog stopped in time: %s\n", coir_timer_stop(job->watchdog) == 1 ? "yes" : "no");
  coir_ticker_stop(job->ticker);
  coir_chan_close(COIR_CHAN_RAW(coir_ticker_chan(job->ticker))); /* a ticker never closes its channel: we do */
  return 0;
}

/* One line per tick. When printing takes longer than a period, ticks are dropped, not queued. */
static int report(void *arg) {
  const struct job *job = arg;
  COIR_CHAN(int64_t) ticks = coir_ticker_chan(job->ticker);
  int64_t start = coir_now(), now;
  while (COIR_RECV(ticks, &now, COIR_NEVER) == 0)
    printf("after %lld ms: %d of %d\n", (long long)(now - start) / 1000000, job->done, job->steps);
  return 0;
}

static int first(void *arg) {
  struct job job = {.steps = *(int *)arg};
  struct coir_fiber *worker, *reporter;
  int64_t when;
  if (coir_ticker_create(&job.ticker, COIR_MS(20))) return 1;
  if (coir_timer_create(&job.watchdog, bark, &job)) return 1;
  COIR_CHAN(int64_t) limit = coir_timer_chan(coir_after(COIR_SEC(30)));
  if (!limit || coir_spawn(report, &job, NULL, &reporter) || coir_spawn(work, &job, NULL, &worker)) return 1;
  coir_join(worker, NULL, COIR_NEVER);
  coir_join(reporter, NULL, COIR_NEVER);
  bool is_late = COIR_RECV(limit, &when, 0) == 0;
  printf("%d steps done, %s\n", job.done, is_late ? "too late" : "within the time limit");
  coir_chan_unref(COIR_CHAN_RAW(limit));
  coir_timer_destroy(job.watchdog);
  coir_ticker_destroy(job.ticker);
  return 0;
}

int main(int argc, char **argv) {
  int steps = argc > 1 ? atoi(argv[1]) : 20;
  return coir_run(first, &steps) != 0;
}
