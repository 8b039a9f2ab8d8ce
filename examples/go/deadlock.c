/* deadlock.c: all goroutines are asleep. The report, on stderr, names each fiber and what it waits for. */
#include <errno.h>
#include <stdio.h>

#include "coir.h"

static int receive(void *chan) {
  COIR_CHAN(int) c = chan;
  int v;
  return COIR_RECV(c, &v, COIR_NEVER); /* -ECANCELED, once the report is out */
}

static int first(void *arg) {
  struct coir_scope *scope;
  COIR_CHAN(int) chan = COIR_CHAN_CREATE(int, 0);
  (void)arg;
  printf("nobody will ever send\n");
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  coir_scope_spawn(scope, receive, chan, &(struct coir_attr){.name = "receiver"}, NULL);
  int rc = coir_scope_close(scope);
  coir_chan_unref(COIR_CHAN_RAW(chan));
  return rc;
}

int main(void) { return coir_run(first, NULL) == -EDEADLK ? 2 : 0; }
