/* select.c: default, a timeout, several receives, nil channels, a send beside a receive. */
#include <errno.h>
#include <stdio.h>

#include "coir.h"

struct range {
  COIR_CHAN(int) out;
  int from, to;
};

static int count(void *arg) {
  const struct range *range = arg;
  int rc = 0;
  for (int i = range->from; i <= range->to && rc == 0; i++) rc = COIR_SEND(range->out, &i, COIR_NEVER);
  coir_chan_close(COIR_CHAN_RAW(range->out));
  return rc;
}

/* Adds up two channels until both are closed. One that is closed becomes NULL: its arm is never ready again. */
static int add_up(COIR_CHAN(int) a, COIR_CHAN(int) b) {
  int v = 0, w = 0, sum = 0;
  while (a || b) {
    struct coir_arm arms[] = {coir_arm_recv(COIR_CHAN_RAW(a), &v), coir_arm_recv(COIR_CHAN_RAW(b), &w)};
    int i = coir_select(arms, 2, COIR_NEVER);
    if (i < 0) return i;
    bool ok = arms[i].result == 0;
    if (i == 0 && !ok) a = NULL;
    else if (i == 0) sum += v;
    else if (!ok) b = NULL;
    else sum += w;
  }
  return sum;
}

struct taker {
  COIR_CHAN(int) in;
  struct coir_event quit;
};

static int take_five(void *arg) {
  struct taker *taker = arg;
  int v;
  for (int i = 0; i < 5 && COIR_RECV(taker->in, &v, COIR_NEVER) == 0; i++) printf("took %d\n", v);
  coir_event_set(&taker->quit);
  return 0;
}

/* Sends powers of two until told to quit. */
static void double_up(struct taker *taker) {
  int x = 1;
  struct coir_arm arms[] = {coir_arm_send(COIR_CHAN_RAW(taker->in), &x), coir_arm_event(&taker->quit)};
  while (coir_select(arms, 2, COIR_NEVER) == 0) x *= 2;
  printf("quit\n");
}

static int first(void *arg) {
  struct range ranges[] = {{COIR_CHAN_CREATE(int, 0), 1, 10}, {COIR_CHAN_CREATE(int, 0), 100, 110}};
  struct taker taker = {COIR_CHAN_CREATE(int, 0), {{0}}};
  struct coir_scope *scope;
  int v = 0;
  (void)arg;
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;

  if (COIR_RECV(taker.in, &v, 0) == -ETIMEDOUT) printf("nothing yet\n"); /* deadline 0: a select with default */
  if (COIR_RECV(taker.in, &v, coir_after(COIR_MS(5))) == -ETIMEDOUT) printf("timed out\n");

  for (int i = 0; i < 2; i++) coir_scope_spawn(scope, count, &ranges[i], NULL, NULL);
  printf("the sum is %d\n", add_up(ranges[0].out, ranges[1].out));

  coir_scope_spawn(scope, take_five, &taker, NULL, NULL);
  double_up(&taker);

  coir_scope_close(scope);
  for (int i = 0; i < 2; i++) coir_chan_unref(COIR_CHAN_RAW(ranges[i].out));
  coir_chan_unref(COIR_CHAN_RAW(taker.in));
  return 0;
}

int main(void) { return coir_run(first, NULL); }
