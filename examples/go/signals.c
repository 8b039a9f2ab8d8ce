/* signals.c: signal.Notify: a server that reloads on one signal and stops on another. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"

/* The server: works until it is cancelled. */
static int serve(void *arg) {
  (void)arg;
  while (coir_sleep(COIR_MS(1)) == 0) {}
  printf("the server cleans up\n");
  return 0;
}

static int first(void *arg) {
  struct coir_signals *signals;
  struct coir_siginfo info;
  struct coir_scope *scope;
  sigset_t set;
  (void)arg;
  sigemptyset(&set);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGTERM);
  if (coir_signals_open(&signals, &set) != 0) return 1;
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  coir_scope_spawn(scope, serve, NULL, NULL, NULL);

  kill(getpid(), SIGHUP); /* as somebody else would */
  while (COIR_RECV(coir_signals_chan(signals), &info, COIR_NEVER) == 0 && info.signo == SIGHUP) {
    printf("reload\n");
    kill(getpid(), SIGTERM);
  }
  printf("stop, on signal %d\n", info.signo);
  coir_scope_cancel(scope, 0);
  coir_scope_close(scope);
  coir_signals_close(signals);
  return 0;
}

int main(void) { return coir_run(first, NULL); }
