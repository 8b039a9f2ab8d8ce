/* singleflight.c: singleflight in front of a cache: many ask at once, one does the work. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "coir.h"

enum { CALLERS = 20 };

static struct coir_flight flight;
static _Atomic(int) loads;
static char *_Atomic cached;

/* The slow way to the answer. Whoever comes when a flight has just landed finds it in the cache. */
static int load(void *arg, void **value) {
  (void)arg;
  if (!atomic_load(&cached)) {
    atomic_fetch_add(&loads, 1);
    coir_sleep(COIR_MS(10));
    atomic_store(&cached, "a long answer");
  }
  *value = atomic_load(&cached);
  return 0;
}

static int ask(void *arg) {
  struct coir_result *answer = arg;
  int rc = coir_flight_do(&flight, "question", strlen("question"), load, NULL, answer, COIR_NEVER);
  return rc < 0 ? rc : 0; /* 1: it was this fiber that did the work */
}

static int first(void *arg) {
  struct coir_result answers[CALLERS];
  struct coir_scope *scope;
  int same = 0;
  (void)arg;
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  for (int i = 0; i < CALLERS; i++) coir_scope_spawn(scope, ask, &answers[i], NULL, NULL);
  if (coir_scope_close(scope) != 0) return 1;
  for (int i = 0; i < CALLERS; i++) same += strcmp(answers[i].value, "a long answer") == 0;
  printf("%d answers, %d load\n", same, atomic_load(&loads));
  return 0;
}

int main(void) { return coir_run(first, NULL); }
