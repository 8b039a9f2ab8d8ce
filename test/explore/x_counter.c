/* Counters (src/counter.c): who waits goes on when it is zero, whoever gives up meanwhile; then nobody touches it. */
#include "stand.h"

#include "job.h"

static struct coir_counter counter;
static struct ex_event is_used_again;
static bool is_down[EX_THREADS_MAX], is_last_used;
static int result[EX_THREADS_MAX];

/* Two fibers, on two workers; another worker runs none. */
static void setup(void) {
  stand_setup(3);
  for (int i = 0; i < 3; i++) stand_carry(i, i, i < 2 ? &stand_fibers[i] : NULL);
  coir_counter_init(&counter, 1);
}

static void count_down(void) {
  is_down[ex_me()] = true;
  (void)coir_counter_done(&counter); /* it may have been added to */
}

/* Whoever touches it later, or has not been done with it, is in a race. */
static void let_it_go(void) {
  for (size_t i = 0; i < sizeof counter.opaque / sizeof counter.opaque[0]; i++) counter.opaque[i] = UINT64_MAX;
}

/* Who has given up uses it again, and waits for that. */
static void gives_up(int me) {
  if (me == 1) {
    count_down();
  } else if (me == 2) {
    coir__cancel(&stand_fibers[0].waiter, COIR__CANCEL_ONCE);
    ex_await(&is_used_again);
    if (!is_last_used) count_down();
  } else {
    result[0] = coir_counter_wait(&counter, COIR_NEVER);
    is_last_used = result[0] == 0;
    if (!is_last_used) coir_counter_add(&counter, 1);
    ex_post(&is_used_again);
    if (!is_last_used) EX_CHECK(result[0] == -ECANCELED && coir_counter_wait(&counter, COIR_NEVER) == 0);
    EX_CHECK(is_down[1] && (is_down[2] || is_last_used));
    let_it_go();
  }
}
static void check_nothing(void) {}

/* The mark stays for who waits on. */
static void others_wait(int me) {
  if (me == 2) {
    coir__cancel(&stand_fibers[0].waiter, COIR__CANCEL_ONCE);
    count_down();
    return;
  }
  result[me] = coir_counter_wait(&counter, COIR_NEVER);
  EX_CHECK(result[me] || is_down[2]);
}
static void check_others(void) {
  EX_CHECK(result[1] == 0 && (result[0] == 0 || result[0] == -ECANCELED));
  EX_CHECK(coir_counter_is_complete(&counter));
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"gives_up", 3, setup, gives_up, check_nothing, 2, 1},
      {"others_wait", 3, setup, others_wait, check_others, 2, 0},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
