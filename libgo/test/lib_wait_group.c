/* wait_group.h. */
#include "lib_test.h"

struct work {
  GoWaitGroup group;
  int done[64]; /* not atomic: the group orders it */
  _Atomic(int) next, released;
};

static void works(void *arg) {
  struct work *w = arg;
  int i = atomic_fetch_add(&w->next, 1);
  if (i % 3 == 0) coir_sleep(COIR_US(100));
  w->done[i] = 1;
  go_wait_group_done(&w->group);
}

static void waits(void *arg) {
  struct work *w = arg;
  CHECK_EQ(go_wait_group_wait(&w->group), 0);
  for (int i = 0; i < 64; i++) CHECK_EQ(w->done[i], 1);
  atomic_fetch_add(&w->released, 1);
}

ON_BOTH(all_wait_for_all) {
  for (int turn = 0; turn < rounds(50); turn++) {
    struct work w = {.next = 0};
    go_wait_group_init(&w.group);
    go_wait_group_add(&w.group, 64);
    for (int i = 0; i < 4; i++) start(i % 2, waits, &w);
    for (int i = 0; i < 64; i++) start(i % 8 == 0, works, &w);
    waits(&w);
    WAIT_FOR(w.released == 5);
    until_idle();
    go_wait_group_destroy(&w.group);
  }
}

ON_BOTH(zero_is_not_waited_for) {
  GoWaitGroup zeroed = {{0}}, g;
  CHECK_EQ(go_wait_group_wait(&zeroed), 0);
  memset(&g, 0xee, sizeof g);
  go_wait_group_init(&g);
  CHECK_EQ(go_wait_group_wait(&g), 0);
  for (int i = 0; i < 3; i++) {
    go_wait_group_add(&g, 5);
    go_wait_group_add(&g, -4);
    go_wait_group_add(&g, 0);
    go_wait_group_done(&g);
    CHECK_EQ(go_wait_group_wait(&g), 0);
  }
  go_wait_group_destroy(&g);
}

static void does(void *group) { go_wait_group_done(group); }

ON_BOTH(it_may_be_freed_after_the_wait) {
  for (int i = 0; i < rounds(2000); i++) {
    GoWaitGroup *g = malloc(sizeof *g);
    CHECK(g);
    go_wait_group_init(g);
    go_wait_group_add(g, 2);
    start(i % 4 == 0, does, g);
    start(false, does, g);
    CHECK_EQ(go_wait_group_wait(g), 0);
    memset(g, 0xee, sizeof *g);
    free(g);
  }
}

static int waits_to_be_canceled(void *group) {
  FAILS(go_wait_group_wait(group), ECANCELED);
  return 0;
}

ON_BOTH(coir_cancel_ends_a_wait) {
  GoWaitGroup g;
  struct coir_fiber *f;
  go_wait_group_init(&g);
  go_wait_group_add(&g, 1);
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), waits_to_be_canceled, &g, NULL, &f), 0);
  pause_ms(5);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
}

static void goes_below_zero(void) {
  GoWaitGroup g;
  go_wait_group_init(&g);
  go_wait_group_add(&g, 1);
  go_wait_group_done(&g);
  go_wait_group_done(&g);
}

static void below_zero_aborts(void **state) {
  char text[4096];
  (void)state;
  int status = in_child_process(goes_below_zero, text, sizeof text);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(text, "negative WaitGroup counter"));
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(below_zero_aborts), /* first: a fork before there are threads */
      cmocka_unit_test(zero_is_not_waited_for),
      cmocka_unit_test(all_wait_for_all),
      cmocka_unit_test(it_may_be_freed_after_the_wait),
      cmocka_unit_test(coir_cancel_ends_a_wait),
  };
  return RUN_TESTS(argc, argv, tests);
}
