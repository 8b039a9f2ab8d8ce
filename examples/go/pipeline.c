/* pipeline.c: stages joined by channels, fanned out and merged, and stopped from the far end. */
#include <stdio.h>

#include "coir.h"

enum { SQUARERS = 3 };

struct stage {
  COIR_CHAN(long) in;
  COIR_CHAN(long) out;
};

/* 1, 2, 3 ... for ever, or until the scope is cancelled. */
static int generate(void *arg) {
  const struct stage *stage = arg;
  int rc = 0;
  for (long i = 1; rc == 0; i++) rc = COIR_SEND(stage->out, &i, COIR_NEVER);
  return rc;
}

static int square(void *arg) {
  const struct stage *stage = arg;
  long v;
  int rc;
  while ((rc = COIR_RECV(stage->in, &v, COIR_NEVER)) == 0) {
    v *= v;
    rc = COIR_SEND(stage->out, &v, COIR_NEVER);
    if (rc != 0) break;
  }
  return rc;
}

/* Several fibers write to one channel: that is all that merging takes. */
static int first(void *arg) {
  struct stage source = {NULL, COIR_CHAN_CREATE(long, 0)};
  struct stage squares = {source.out, COIR_CHAN_CREATE(long, 8)};
  struct coir_scope *scope;
  long v = 0, odd = 0, even = 0;
  bool seen[11] = {false};
  (void)arg;
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  coir_scope_spawn(scope, generate, &source, NULL, NULL);
  for (int i = 0; i < SQUARERS; i++) coir_scope_spawn(scope, square, &squares, NULL, NULL);
  while (odd + even < 10 && COIR_RECV(squares.out, &v, COIR_NEVER) == 0) {
    for (long i = 1; i <= 10; i++) {
      if (v != i * i || seen[i]) continue;
      seen[i] = true;
      (*(i % 2 ? &odd : &even))++;
    }
  }
  coir_scope_cancel(scope, 0); /* whoever waits for a receiver, or for a number, is let go */
  coir_scope_close(scope);
  printf("of the first ten squares %ld are odd and %ld even\n", odd, even);
  printf("all stages have ended\n");
  coir_chan_unref(COIR_CHAN_RAW(source.out));
  coir_chan_unref(COIR_CHAN_RAW(squares.out));
  return 0;
}

int main(void) { return coir_run(first, NULL); }
