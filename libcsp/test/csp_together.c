/* libcsp and go_fiber in one program: each has workers of its own, and a channel of one is a channel of the other. The
 * other half is csp_together_gof.c: the headers of the two are not meant for one file. */
#include "csp_together.h"

#include <csp.h>

static void add_one(void *chans) {
  struct together *t = (struct together *)chans;
  bool ok;
  for (intptr_t value; value = (intptr_t)csp_gochan_recv((csp_gochan_t *)t->requests, &ok), ok;)
    csp_gochan_send((csp_gochan_t *)t->answers, (void *)(value + 1));
  csp_gochan_close((csp_gochan_t *)t->answers);
}

int main(void) {
  struct together t = {csp_gochan_new(0), csp_gochan_new(0), 0};
  if (!csp_proc_create(0, add_one, &t)) return 1;
  gof_half(&t);
  int64_t expected = (int64_t)TOGETHER * (TOGETHER + 1) / 2 + TOGETHER;
  if (t.sum != expected) return fprintf(stderr, "the sum is %d, not %d\n", (int)t.sum, (int)expected), 1;
  bool ok = true;
  if (csp_gochan_recv((csp_gochan_t *)t.answers, &ok) || ok) return fprintf(stderr, "not closed\n"), 1;
  csp_scheduler_stop();
  csp_gochan_free((csp_gochan_t *)t.requests);
  csp_gochan_free((csp_gochan_t *)t.answers);
  return 0;
}
