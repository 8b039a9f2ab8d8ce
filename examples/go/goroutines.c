/* goroutines.c: the go statement, WaitGroup, GOMAXPROCS, NumGoroutine and Gosched. */
#include <stdatomic.h>
#include <stdio.h>

#include "coir.h"

struct job {
  struct coir_event *start;
  struct coir_wait_group *group;
  int number, square;
};

static int work(void *arg) {
  struct job *job = arg;
  coir_event_wait(job->start, COIR_NEVER);
  job->square = job->number * job->number;
  coir_wait_group_done(job->group);
  return 0;
}

static int set_flag(void *arg) {
  atomic_store((atomic_bool *)arg, true);
  return 0;
}

static int first(void *arg) {
  struct coir_stats stats;
  struct coir_event start = {0};
  struct coir_wait_group group = {0};
  struct job jobs[5];
  static atomic_bool flag;
  (void)arg;
  coir_runtime_get_stats(coir_runtime_current(), &stats);
  printf("processors: %d\n", stats.workers);

  for (int i = 0; i < 5; i++) {
    jobs[i] = (struct job){&start, &group, i, 0};
    coir_wait_group_add(&group, 1);
    if (coir_go(work, &jobs[i]) != 0) return 1;
  }
  printf("running: %zu\n", coir_runtime_list(coir_runtime_current(), NULL, 0));
  coir_event_set(&start);
  coir_wait_group_wait(&group, COIR_NEVER);
  printf("squares:");
  for (int i = 0; i < 5; i++) printf(" %d", jobs[i].square);
  printf("\n");

  if (coir_go(set_flag, &flag) != 0) return 1;
  while (!atomic_load(&flag)) coir_yield();
  printf("the flag is set\n");
  return 0;
}

int main(void) {
  coir_configure(&(struct coir_config){.workers = 2});
  return coir_run(first, NULL);
}
