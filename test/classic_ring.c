/* classic_ring.c: 503 fibers in a ring pass a token, which counts down.
 *
 * Fiber 1 gets the token first. Who holds it when it is at zero is the answer; the number is known beforehand. */
#include "harness.h"

enum { FIBERS = 503 };

struct place {
  int number;
  COIR_CHAN(int) from;
  COIR_CHAN(int) to;
  COIR_CHAN(int) answer;
};

static int pass_on(void *arg) {
  const struct place *me = arg;
  int token, rc;
  while ((rc = COIR_RECV(me->from, &token, COIR_NEVER)) == 0) {
    if (token == 0) {
      CHECK_EQ(COIR_SEND(me->answer, &me->number, COIR_NEVER), 0);
      continue;
    }
    token--;
    CHECK_EQ(COIR_SEND(me->to, &token, COIR_NEVER), 0);
  }
  CHECK_EQ(rc, -EPIPE);
  return 0;
}

static int ring(void *arg) {
  static struct place places[FIBERS];
  static struct coir_fiber *fibers[FIBERS];
  const int tokens[] = {0, 1, FIBERS - 1, FIBERS, 1000, rounds(100000)};
  COIR_CHAN(int) answer = COIR_CHAN_CREATE(int, 0);
  (void)arg;
  for (int i = 0; i < FIBERS; i++) places[i] = (struct place){i + 1, COIR_CHAN_CREATE(int, 0), NULL, answer};
  for (int i = 0; i < FIBERS; i++) {
    places[i].to = places[(i + 1) % FIBERS].from;
    fibers[i] = spawn(pass_on, &places[i]);
  }
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    int number;
    CHECK_EQ(COIR_SEND(places[0].from, &tokens[i], COIR_NEVER), 0);
    CHECK_EQ(COIR_RECV(answer, &number, COIR_NEVER), 0);
    CHECK_EQ(number, tokens[i] % FIBERS + 1);
    if (tokens[i] == 1000) CHECK_EQ(number, 498);
  }
  for (int i = 0; i < FIBERS; i++) coir_chan_close(COIR_CHAN_RAW(places[i].from));
  for (int i = 0; i < FIBERS; i++) CHECK_EQ(join(fibers[i]), 0);
  for (int i = 0; i < FIBERS; i++) coir_chan_unref(COIR_CHAN_RAW(places[i].from));
  coir_chan_unref(COIR_CHAN_RAW(answer));
  return 0;
}

static void test_ring(void **state) {
  (void)state;
  CHECK_EQ(run(ring, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ring)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
