/* What can be foretold, with any number of workers: fibers spawned before a run start on worker 0, which the calling
 * thread carries, in the order in which they were spawned; while fewer live than the threshold for stealing all of them
 * do; the first one always does. So two that yield alternate strictly. */
#include "gof_test.h"

#define NOTES_MAX 4096

static struct note {
  int who, worker;
  pthread_t thread;
} notes[NOTES_MAX];
static _Atomic(int) note_count;

static void note(int who) {
  int i = atomic_fetch_add(&note_count, 1);
  CHECK(i < NOTES_MAX);
  notes[i] = (struct note){who, coir_worker_index(), pthread_self()};
}

static void notes_start(void *who) { note((int)(intptr_t)who); }

/* Runs `n` fibers. */
static void run_many(gof_fn fn, int n) {
  atomic_store(&note_count, 0);
  for (intptr_t i = 0; i < n; i++) go(fn, number(i));
  CHECK_EQ(note_count, 0);
  gof_run();
}

/* All of what was noted came from worker 0, on this thread, and in turn. */
static void all_in_turn(int fibers, int notes_each) {
  CHECK_EQ(note_count, fibers * notes_each);
  for (int i = 0; i < fibers * notes_each; i++) {
    CHECK_EQ(notes[i].who, i % fibers);
    CHECK_EQ(notes[i].worker, 0);
    CHECK(pthread_equal(notes[i].thread, pthread_self()));
  }
}

/* ---- Threads that keep all CPUs busy ----------------------------------------------------------------------------- */

static _Atomic(int) burning;
static pthread_t burners[4];

static void *burns(void *arg) {
  while (atomic_load(&burning)) {}
  return arg;
}

static void burn(void) {
  atomic_store(&burning, 1);
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&burners[i], NULL, burns, NULL), 0);
}

static void burn_out(void) {
  atomic_store(&burning, 0);
  for (int i = 0; i < 4; i++) pthread_join(burners[i], NULL);
}

/* ---- The order of starting --------------------------------------------------------------------------------------- */

static void few_start_in_order(void) {
  for (int i = 0; i < 100; i++) {
    run_many(notes_start, 3);
    all_in_turn(3, 1);
  }
  CHECK_EQ(stats_now().steals_success, 0);
}

static void many_start_in_order_below_the_threshold(void) {
  set_env("GOF_STEAL_MIN_LIVE", "1000");
  for (int i = 0; i < 30; i++) {
    run_many(notes_start, 500);
    all_in_turn(500, 1);
  }
  CHECK_EQ(stats_now().steals_attempted, 0);
}

static void they_do_without_stealing(void) {
  set_env("GOF_WORKSTEAL", "0");
  for (int i = 0; i < 30; i++) {
    run_many(notes_start, 500);
    all_in_turn(500, 1);
  }
}

/* The first of 100, most of which may be stolen. Between its start and its note the system may take its thread away and
 * run others. */
static void run_a_hundred(bool before_all_others, int repeat) {
  for (int i = 0, late = 0; i < repeat; i++) {
    int at = 0;
    run_many(notes_start, 100);
    CHECK_EQ(note_count, 100);
    while (at < 100 && notes[at].who != 0) at++;
    CHECK_EQ(notes[at].worker, 0);
    CHECK(pthread_equal(notes[at].thread, pthread_self()));
    late += at > 0;
    CHECK(!before_all_others || late <= 1 + repeat / 50);
  }
}

static void the_first_starts_on_this_thread(void) {
  set_workers(8);
  run_a_hundred(false, 300);
}

static void it_does_with_eager_thieves(void) {
  set_workers(8);
  set_env("GOF_STEAL_MIN_LIVE", "0");
  set_env("GOF_STEAL_MIN_VICTIM", "2");
  run_a_hundred(false, 300);
}

static void it_does_while_threads_are_busy(void) {
  need_workers(4);
  burn();
  run_a_hundred(false, 20);
  burn_out();
}

static void the_first_starts_first(void) { run_a_hundred(true, 300); }

static void it_starts_first_with_8_workers(void) {
  set_workers(8);
  run_a_hundred(true, 300);
}

static void it_starts_first_while_threads_are_busy(void) {
  need_workers(4);
  burn();
  run_a_hundred(true, 20);
  burn_out();
}

/* Behind a fiber that computes, too, the oldest in the queue waits for its own worker, whoever takes the others. */
static int home;

static void starts_at_home(void *who) {
  if (!who) CHECK_EQ(coir_worker_index(), home);
  note((int)(intptr_t)who);
}

static void spawns_and_computes(void *n) {
  home = coir_worker_index();
  for (intptr_t i = 0; i < (intptr_t)n; i++) go(starts_at_home, number(i));
  spin_for(COIR_MS(1));
}

static void the_oldest_waits_for_its_worker(void) {
  set_workers(8);
  set_env("GOF_STEAL_MIN_LIVE", "0");
  set_env("GOF_STEAL_MIN_VICTIM", "2");
  for (int i = 0; i < 200; i++) {
    atomic_store(&note_count, 0);
    go(spawns_and_computes, number(1 + i % 6));
    gof_run();
    CHECK_EQ(note_count, 1 + i % 6);
  }
}

static void *runs_three(void *arg) {
  run_many(notes_start, 3);
  all_in_turn(3, 1);
  return arg;
}

/* Worker 0 goes from thread to thread. */
static void on_whatever_thread_runs(void) {
  for (int i = 0; i < 20; i++) {
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, runs_three, NULL), 0);
    pthread_join(t, NULL);
    runs_three(NULL);
  }
}

/* ---- Alternation ------------------------------------------------------------------------------------------------- */

static void notes_and_yields(void *who) {
  for (int i = 0; i < 50; i++) {
    note((int)(intptr_t)who);
    gof_yield();
  }
}

static void alternate(int fibers, int repeat) {
  for (int i = 0; i < repeat; i++) {
    run_many(notes_and_yields, fibers);
    all_in_turn(fibers, 50);
  }
}

static void two_alternate(void) {
  alternate(2, 100);
  CHECK_EQ(stats_now().steals_success, 0);
}

static void two_alternate_with_8_workers(void) {
  set_workers(8);
  alternate(2, 100);
}

static void two_alternate_while_threads_are_busy(void) {
  need_workers(8);
  burn();
  alternate(2, 20);
  burn_out();
}

static void three_take_turns(void) { alternate(3, 100); }

static void many_take_turns_below_the_threshold(void) {
  set_env("GOF_STEAL_MIN_LIVE", "41");
  alternate(40, 20);
}

static void parent(void *arg) {
  (void)arg;
  go(notes_and_yields, number(0));
  go(notes_and_yields, number(1));
}

/* Spawned by a fiber, too: it goes to the end of the queue of that fiber's worker, and nobody takes it away. */
static void two_children_alternate(void) {
  for (int i = 0; i < 100; i++) {
    atomic_store(&note_count, 0);
    go(parent, NULL);
    gof_run();
    all_in_turn(2, 50);
  }
}

/* Long yields, so that the pace of the rounds changes, and the watchers have time to look. */
static void notes_and_yields_slowly(void *who) {
  for (int i = 0; i < 50; i++) {
    note((int)(intptr_t)who);
    spin_for(COIR_US(i % 10 ? 5 : 400));
    gof_yield();
  }
}

static void slow_ones_alternate(void) {
  need_workers(4);
  for (int i = 0; i < 5; i++) {
    run_many(notes_and_yields_slowly, 2);
    all_in_turn(2, 50);
    run_many(notes_and_yields_slowly, 3);
    all_in_turn(3, 50);
  }
}

static void with_pollers_too(void) {
  need_workers(4);
  set_env("GOF_NPOLLERS", "2");
  alternate(2, 50);
  run_a_hundred(false, 50);
}

/* Where the default of stealing is off, nothing leaves its worker, however many live. */
static void many_take_turns_without_stealing(void) {
  need_workers(4);
  set_env("GOF_WORKSTEAL", "0");
  alternate(60, 10);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(few_start_in_order),
      CASE(many_start_in_order_below_the_threshold),
      CASE(they_do_without_stealing),
      CASE(the_first_starts_on_this_thread),
      CASE(it_does_with_eager_thieves),
      CASE(it_does_while_threads_are_busy),
      CASE(the_first_starts_first),
      CASE(it_starts_first_with_8_workers),
      CASE(it_starts_first_while_threads_are_busy),
      CASE(the_oldest_waits_for_its_worker),
      CASE(on_whatever_thread_runs),
      CASE(two_alternate),
      CASE(two_alternate_with_8_workers),
      CASE(two_alternate_while_threads_are_busy),
      CASE(three_take_turns),
      CASE(many_take_turns_below_the_threshold),
      CASE(two_children_alternate),
      CASE(slow_ones_alternate),
      CASE(with_pollers_too),
      CASE(many_take_turns_without_stealing),
  };
  return RUN_CASES(argc, argv, cases);
}
