/* hello.c: three fibers greet, in turns, on one or many threads.
 *
 * The smallest program that shows the whole life of a fiber: spawn it, let it wait, join it, read what it returned. */
#include <stdio.h>

#include "coir.h"

/* A fiber is a function that takes a pointer and returns a status. */
static int greet(void *arg) {
  const char *name = arg;
  int said = 0;
  for (int i = 0; i < 3; i++) {
    printf("hello from %s\n", name);
    said++;
    coir_sleep(COIR_MS(10)); /* only this fiber sleeps; the thread goes on with the others */
  }
  return said; /* whoever joins gets this */
}

/* The first fiber. When it and all others have ended, coir_run returns. */
static int first(void *arg) {
  static char *const names[] = {"Ada", "Barbara", "Grace"};
  struct coir_fiber *fibers[3];
  int said = 0;
  (void)arg;
  for (int i = 0; i < 3; i++) {
    int rc = coir_spawn(greet, names[i], NULL, &fibers[i]); /* NULL: default stack, priority and order */
    if (rc != 0) return rc;                                 /* errors are negative errno codes */
  }
  for (int i = 0; i < 3; i++) {
    struct coir_result result;
    coir_join(fibers[i], &result, COIR_NEVER); /* waits for the end, and gives the handle back */
    said += result.status;
  }
  printf("%d greetings, Coir %s\n", said, coir_version());
  return said == 9 ? 0 : 1;
}

int main(void) { return coir_run(first, NULL) != 0; }
