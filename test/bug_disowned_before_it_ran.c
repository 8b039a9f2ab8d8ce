/* A reader that an adoption had woken, and that ran only after the descriptor had been disowned again, was told that it
 * was closed. So was one whose descriptor was adopted already, and then adopted once more. */
#include <sys/socket.h>

#include "coir_io.h"
#include "harness.h"

static int reads(void *fd) {
  char c;
  ssize_t n = coir_read(*(int *)fd, &c, 1, coir_after(COIR_SEC(20)));
  return n == 1 ? c : (int)n;
}

static int adopts_and_disowns(void *is_adopted) {
  int fds[2];
  struct coir_fiber *reader;
  struct coir_result result;
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  CHECK_EQ(coir_spawn(reads, &fds[0], NULL, &reader), 0);
  for (int i = 0; i < 3; i++) {
    if (is_adopted) CHECK_EQ(coir_adopt(fds[0]), 0);
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0); /* it waits */
    CHECK_EQ(coir_adopt(fds[0]), 0);
    CHECK_EQ(coir_disown(fds[0]), 0); /* it has not run meanwhile: there is one worker */
  }
  CHECK_EQ(coir_write(fds[1], "x", 1, COIR_NEVER), 1);
  CHECK_EQ(coir_join(reader, &result, COIR_NEVER), 0);
  CHECK_EQ(result.status, 'x');
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  return 0;
}

static void the_reader_goes_on(void *is_adopted) {
  struct coir_config config = {.workers = 1, .monitor = COIR_OFF};
  struct coir_runtime *rt;
  int status = -1;
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK_EQ(coir_runtime_run(rt, adopts_and_disowns, is_adopted, &status), 0);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void when_it_is_adopted(void **state) {
  (void)state;
  the_reader_goes_on(NULL);
}

static void when_it_is_adopted_once_more(void **state) { the_reader_goes_on(state); }

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(when_it_is_adopted),
                                     cmocka_unit_test(when_it_is_adopted_once_more)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
