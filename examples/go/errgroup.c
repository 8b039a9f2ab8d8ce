/* errgroup.c: errgroup: the first error cancels the others, and is what the group returns. */
#include <errno.h>
#include <stdio.h>

#include "coir.h"

struct fetch {
  const char *page;
  int64_t takes; /* ns */
  int fails;     /* 0, or how */
  bool was_cancelled;
};

static int fetch(void *arg) {
  struct fetch *f = arg;
  int rc = coir_sleep(f->takes); /* any call that waits */
  f->was_cancelled = rc == -ECANCELED;
  return rc != 0 ? rc : f->fails;
}

static int fetch_all(struct fetch *fetches, int count) {
  struct coir_scope *scope;
  int rc = coir_scope_open(&scope, 0, COIR_NEVER);
  if (rc != 0) return rc;
  for (int i = 0; i < count; i++) coir_scope_spawn(scope, fetch, &fetches[i], NULL, NULL);
  return coir_scope_close(scope);
}

static int first(void *arg) {
  struct fetch good[] = {{"a", COIR_MS(1), 0, false}, {"b", COIR_MS(2), 0, false}, {"c", COIR_MS(3), 0, false}};
  struct fetch bad[] = {
      {"a", COIR_SEC(3600), 0, false}, {"b", COIR_MS(2), -ENOENT, false}, {"c", COIR_SEC(3600), 0, false}};
  (void)arg;
  printf("good: %s\n", fetch_all(good, 3) == 0 ? "all three" : "an error");
  printf("bad: %s\n", fetch_all(bad, 3) == -ENOENT ? "no such page" : "all three");
  for (int i = 0; i < 3; i++) printf("%s cancelled: %s\n", bad[i].page, bad[i].was_cancelled ? "true" : "false");
  return 0;
}

int main(void) { return coir_run(first, NULL); }
