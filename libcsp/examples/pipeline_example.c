/* pipeline_example.c: the sieve of primes, a goroutine for each prime found, in a row; and how such a row is ended.
 *
 * Each stage receives from the one before. When main has enough it cancels, which whoever waits to send finds out; a
 * stage that has ended closes its channel, and so the next one, which waits to receive, ends, too. */
#include <csp.h>

enum { PRIMES = 25 };

typedef struct {
  csp_context_t *ctx;
  csp_sync_waitgroup_t *wg;
  csp_gochan_t *in, *out;
  intptr_t prime;
} stage_t;

/* False: it was cancelled. */
static bool pass_on(stage_t *s, intptr_t number) {
  csp_select_case_t cases[] = {
      {.ch = csp_context_done(s->ctx), .op = CSP_RECV},
      {.ch = s->out, .op = CSP_SEND, .val = (void **)number},
  };
  return csp_select(cases, 2) == 1;
}

static void end(stage_t *s) {
  csp_gochan_close(s->out);
  csp_sync_waitgroup_done(s->wg);
}

static void count(void *arg) {
  stage_t *s = (stage_t *)arg;
  for (intptr_t number = 2; pass_on(s, number);) number++;
  end(s);
}

static void filter(void *arg) {
  stage_t *s = (stage_t *)arg;
  bool ok = true;
  while (ok) {
    intptr_t number = (intptr_t)csp_gochan_recv(s->in, &ok);
    if (ok && number % s->prime != 0) ok = pass_on(s, number);
  }
  end(s);
}

static void start(stage_t *s, void (*fn)(void *)) {
  s->out = csp_gochan_new(0);
  csp_sync_waitgroup_add(s->wg, 1);
  if (!s->out || !csp_proc_create(0, fn, s)) {
    perror("pipeline_example");
    exit(1);
  }
}

int main(void) {
  stage_t stages[PRIMES];
  csp_sync_waitgroup_t wg;
  csp_sync_waitgroup_init(&wg);
  csp_context_t *ctx = csp_context_with_cancel(NULL);
  stages[0] = (stage_t){ctx, &wg, NULL, NULL, 0};
  start(&stages[0], count);
  for (int i = 0;; i++) {
    intptr_t prime = (intptr_t)csp_gochan_recv(stages[i].out, NULL);
    printf("%d%s", (int)prime, i < PRIMES - 1 ? " " : "\n");
    if (i == PRIMES - 1) break;
    stages[i + 1] = (stage_t){ctx, &wg, stages[i].out, NULL, prime};
    start(&stages[i + 1], filter);
  }
  csp_context_cancel(ctx);
  csp_sync_waitgroup_wait(&wg);
  printf("the %d stages have ended\n", PRIMES);
  for (int i = 0; i < PRIMES; i++) csp_gochan_free(stages[i].out);
  csp_context_free(ctx);
  return 0;
}
