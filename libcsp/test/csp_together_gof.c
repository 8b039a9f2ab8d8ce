/* The half of CspTogetherTest that knows go_fiber only. */
#include "csp_together.h"

#include "libgo/fiber.h"
#include "libgo/fiber_chan.h"

static void ask(void *arg) {
  struct together *t = arg;
  for (intptr_t i = 1; i <= TOGETHER; i++) gof_chan_send(t->requests, (void *)i);
  gof_chan_close(t->requests);
}

static void add_up(void *arg) {
  struct together *t = arg;
  for (void *value; gof_chan_recv(t->answers, &value) == 0;) t->sum += (intptr_t)value;
}

void gof_half(struct together *t) {
  gof_spawn(ask, t, 0);
  gof_spawn(add_up, t, 0);
  gof_run();
}
