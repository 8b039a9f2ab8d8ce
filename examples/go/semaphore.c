/* semaphore.c: semaphore.Weighted: jobs of different sizes share ten places. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "coir.h"

enum { PLACES = 10, JOBS = 30 };

static struct coir_sem places;
static _Atomic(int) used, most, finished;

static int job(void *arg) {
  int size = 1 + (int)(intptr_t)arg % 5;
  int rc = coir_sem_acquire(&places, size, COIR_NEVER);
  if (rc != 0) return rc;
  int now = atomic_fetch_add(&used, size) + size, before = atomic_load(&most);
  while (before < now && !atomic_compare_exchange_weak(&most, &before, now)) {}
  coir_sleep(COIR_MS(1));
  atomic_fetch_sub(&used, size);
  coir_sem_release(&places, size);
  atomic_fetch_add(&finished, 1);
  return 0;
}

static int first(void *arg) {
  struct coir_scope *scope;
  (void)arg;
  coir_sem_init(&places, PLACES);
  if (coir_sem_acquire(&places, PLACES, COIR_NEVER) != 0) return 1;
  printf("try: %s\n", coir_sem_acquire(&places, 1, 0) == 0 ? "true" : "false");
  printf("with a timeout: %s\n",
         coir_sem_acquire(&places, 1, coir_after(COIR_MS(2))) == -ETIMEDOUT ? "late" : "in time");
  coir_sem_release(&places, PLACES);

  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  for (intptr_t i = 0; i < JOBS; i++) coir_scope_spawn(scope, job, (void *)i, NULL, NULL);
  if (coir_scope_close(scope) != 0) return 1;
  printf("%d jobs, never more than %d places: %s\n", atomic_load(&finished), PLACES,
         atomic_load(&most) <= PLACES ? "true" : "false");
  return 0;
}

int main(void) { return coir_run(first, NULL); }
