/* channels.c: make, send, receive, range, close, comma-ok, len and cap; a channel in a message. */
#include <stdio.h>

#include "coir.h"

static int count(void *arg) {
  COIR_CHAN(int) out = arg;
  int rc = 0;
  for (int i = 1; i <= 3 && rc == 0; i++) rc = COIR_SEND(out, &i, COIR_NEVER);
  coir_chan_close(COIR_CHAN_RAW(out));
  return rc;
}

/* A question, with the channel for its answer. */
struct question {
  int a, b;
  COIR_CHAN(int) answer;
};

static int add(void *arg) {
  COIR_CHAN(struct question) questions = arg;
  struct question q;
  int rc = 0;
  while (rc == 0 && COIR_RECV(questions, &q, COIR_NEVER) == 0) {
    int sum = q.a + q.b;
    rc = COIR_SEND(q.answer, &sum, COIR_NEVER);
  }
  return rc;
}

static int first(void *arg) {
  struct coir_scope *scope;
  int v = 0;
  (void)arg;
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;

  COIR_CHAN(int) numbers = COIR_CHAN_CREATE(int, 0);
  coir_scope_spawn(scope, count, numbers, NULL, NULL);
  while (COIR_RECV(numbers, &v, COIR_NEVER) == 0) printf("got %d\n", v);
  bool ok = COIR_RECV(numbers, &v, COIR_NEVER) == 0;
  printf("ok: %s\n", ok ? "true" : "false");

  COIR_CHAN(const char *) words = COIR_CHAN_CREATE(const char *, 3);
  const char *word = "warp";
  COIR_SEND(words, &word, COIR_NEVER);
  word = "weft";
  COIR_SEND(words, &word, COIR_NEVER);
  printf("%zu of %zu\n", coir_chan_length(COIR_CHAN_RAW(words)), coir_chan_capacity(COIR_CHAN_RAW(words)));
  coir_chan_close(COIR_CHAN_RAW(words));
  while (COIR_RECV(words, &word, COIR_NEVER) == 0) printf("%s\n", word);

  COIR_CHAN(struct question) questions = COIR_CHAN_CREATE(struct question, 0);
  struct question q = {20, 22, COIR_CHAN_CREATE(int, 1)};
  coir_scope_spawn(scope, add, questions, NULL, NULL);
  COIR_SEND(questions, &q, COIR_NEVER);
  COIR_RECV(q.answer, &v, COIR_NEVER);
  printf("%d + %d = %d\n", q.a, q.b, v);
  coir_chan_close(COIR_CHAN_RAW(questions));

  coir_scope_close(scope); /* nobody uses the channels any more */
  coir_chan_unref(COIR_CHAN_RAW(numbers));
  coir_chan_unref(COIR_CHAN_RAW(words));
  coir_chan_unref(COIR_CHAN_RAW(questions));
  coir_chan_unref(COIR_CHAN_RAW(q.answer));
  return 0;
}

int main(void) { return coir_run(first, NULL); }
