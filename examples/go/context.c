/* context.c: WithCancel, WithTimeout, WithValue, Done and Err. */
#include <errno.h>
#include <stdio.h>

#include "coir.h"

static const char user_key; /* its address is the key */

/* Called from deep inside; nobody hands it the user. */
static const char *user(void) {
  const char *name = coir_scope_get(&user_key);
  return name ? name : "nobody";
}

static int greet(void *arg) {
  struct coir_scope *inner;
  (void)arg;
  printf("user: %s\n", user());
  if (coir_scope_open(&inner, 0, COIR_NEVER) != 0) return 1;
  coir_scope_set(inner, &user_key, "root");
  printf("user: %s\n", user());
  coir_scope_close(inner);
  printf("user: %s\n", user());
  return 0;
}

/* A loop that is to end when its scope is cancelled: in Go, case <-ctx.Done(). Here a waiting call says so. */
static int poll_for_ever(void *arg) {
  int *polls = arg, rc;
  do {
    ++*polls;
    rc = coir_sleep(COIR_MS(1));
  } while (rc == 0);
  return rc;
}

static int with_cancel(void) {
  struct coir_scope *scope;
  int polls[2] = {0};
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  for (int i = 0; i < 2; i++) coir_scope_spawn(scope, poll_for_ever, &polls[i], NULL, NULL);
  coir_sleep(COIR_MS(10));
  printf("before: %s\n", coir_scope_reason(scope) == 0 ? "running" : "cancelled");
  coir_scope_cancel(scope, 0);
  int rc = coir_scope_close(scope);
  printf("after: %s, polled: %s\n", rc == -ECANCELED ? "cancelled" : "running",
         polls[0] > 0 && polls[1] > 0 ? "true" : "false");
  return 0;
}

static int with_timeout(void) {
  struct coir_scope *outer, *inner;
  COIR_CHAN(int) never = COIR_CHAN_CREATE(int, 0);
  int v;
  if (coir_scope_open(&outer, 0, coir_after(COIR_MS(10))) != 0) return 1;
  if (coir_scope_open(&inner, 0, coir_after(COIR_SEC(3600))) != 0) return 1;
  printf("inner deadline within a minute: %s\n",
         coir_scope_deadline(inner) < coir_after(COIR_SEC(60)) ? "true" : "false");
  int rc = COIR_RECV(never, &v, COIR_NEVER);
  printf("receive: %s\n", rc == -ECANCELED ? "gave up" : "a value");
  coir_scope_close(inner);
  rc = coir_scope_close(outer);
  printf("reason: %s\n", rc == -ETIMEDOUT ? "deadline exceeded" : "cancelled");
  coir_chan_unref(COIR_CHAN_RAW(never));
  return 0;
}

static int first(void *arg) {
  struct coir_scope *scope;
  (void)arg;
  printf("user: %s\n", user());
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  coir_scope_set(scope, &user_key, "ada");
  coir_scope_spawn(scope, greet, NULL, NULL, NULL);
  coir_scope_close(scope);
  return with_cancel() || with_timeout();
}

int main(void) { return coir_run(first, NULL); }
