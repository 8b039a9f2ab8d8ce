/* cond.c: Cond: a queue that waits when it is empty or full. */
#include <stdio.h>

#include "coir.h"

enum { ROOM = 4, ITEMS = 1000, PRODUCERS = 3 };

struct queue {
  struct coir_mutex mutex;
  struct coir_cond not_empty, not_full;
  int items[ROOM], head, count;
};

static int put(struct queue *q, int item) {
  int rc = coir_mutex_lock(&q->mutex, COIR_NEVER);
  if (rc != 0) return rc;
  while (rc == 0 && q->count == ROOM) rc = coir_cond_wait(&q->not_full, &q->mutex, COIR_NEVER);
  if (rc == 0) {
    q->items[(q->head + q->count++) % ROOM] = item;
    coir_cond_signal(&q->not_empty);
  }
  coir_mutex_unlock(&q->mutex);
  return rc;
}

static int take(struct queue *q, int *item) {
  int rc = coir_mutex_lock(&q->mutex, COIR_NEVER);
  if (rc != 0) return rc;
  while (rc == 0 && q->count == 0) rc = coir_cond_wait(&q->not_empty, &q->mutex, COIR_NEVER);
  if (rc == 0) {
    *item = q->items[q->head];
    q->head = (q->head + 1) % ROOM;
    q->count--;
    coir_cond_signal(&q->not_full);
  }
  coir_mutex_unlock(&q->mutex);
  return rc;
}

static int produce(void *arg) {
  int rc = 0;
  for (int i = 1; i <= ITEMS && rc == 0; i++) rc = put(arg, i);
  return rc;
}

static int first(void *arg) {
  static struct queue queue;
  struct coir_scope *scope;
  long sum = 0;
  int item, rc = coir_scope_open(&scope, 0, COIR_NEVER);
  (void)arg;
  if (rc != 0) return rc;
  for (int i = 0; i < PRODUCERS; i++) coir_scope_spawn(scope, produce, &queue, NULL, NULL);
  for (int i = 0; i < PRODUCERS * ITEMS && rc == 0; i++) {
    rc = take(&queue, &item);
    if (rc == 0) sum += item;
  }
  rc = coir_scope_close(scope);
  printf("the sum is %ld, and %d are left\n", sum, queue.count);
  return rc;
}

int main(void) { return coir_run(first, NULL); }
