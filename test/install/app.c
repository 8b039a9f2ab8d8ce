/* A user's program: one fiber starts another, joins it and checks what it left. Exit status 0: all of it held. */
#include <coir.h>
#include <coir_io.h>
#include <stdio.h>
#include <string.h>

static int child(void *arg) {
  int64_t before = coir_now();
  if (coir_sleep(COIR_MS(2)) != 0 || coir_now() - before < COIR_MS(2)) return -1;
  coir_set_value(arg);
  return 42;
}

static int first(void *arg) {
  struct coir_fiber *fiber = NULL;
  struct coir_result result = {0, NULL};
  if (coir_spawn(child, arg, NULL, &fiber) != 0) return 1;
  if (coir_yield() != 0) return 2;
  if (coir_join(fiber, &result, COIR_NEVER) != 0) return 3;
  if (result.status != 42 || result.value != arg) return 4;
  if (coir_close(-1) == 0) return 5;
  return 0;
}

int main(void) {
  int word = 0;
  if (strcmp(coir_version(), COIR_VERSION) != 0) {
    fprintf(stderr, "the header is %s, the library is %s\n", COIR_VERSION, coir_version());
    return 1;
  }
  int rc = coir_run(first, &word);
  if (rc != 0) fprintf(stderr, "coir_run returned %d\n", rc);
  return rc != 0;
}
