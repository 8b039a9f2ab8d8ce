/* Whoever is ready gets its turn, whatever the others do, with any number of workers. */
#include "gof_test.h"

static _Atomic(int) stop;
static int64_t patience; /* when those that press give up */

static bool goes_on(void) { return !atomic_load(&stop) && coir_now() < patience; }

static void stops(void *arg) {
  (void)arg;
  atomic_store(&stop, 1);
}

/* Runs what was spawned; somebody among it must have got its turn before the others lost patience. */
static void run_patiently(void) {
  patience = coir_after(COIR_SEC(5));
  gof_run();
  CHECK_EQ(stop, 1);
  CHECK(coir_now() < patience);
}

static void yields(void *arg) {
  (void)arg;
  while (goes_on()) gof_yield();
}

static void yields_slowly(void *arg) {
  (void)arg;
  while (goes_on()) {
    spin_for(COIR_US(200));
    gof_yield();
  }
}

static void sleeps_and_stops(void *n) {
  for (intptr_t i = 0; i < (intptr_t)n; i++) gof_sleep_ms(1);
  stops(NULL);
}

static void yielders_let_sleepers_wake(void) {
  for (int i = 0; i < 20; i++) go(i % 5 ? yields : yields_slowly, NULL);
  go(sleeps_and_stops, number(20));
  run_patiently();
}

static void a_lone_yielder_lets_a_sleeper_wake(void) {
  go(yields, NULL);
  go(sleeps_and_stops, number(5));
  run_patiently();
}

static void spawns_who_stops(void *arg) {
  (void)arg;
  for (int i = 0; i < 10; i++) gof_yield();
  go(stops, NULL);
}

static void yielders_let_new_ones_start(void) {
  for (int i = 0; i < 20; i++) go(yields, NULL);
  go(spawns_who_stops, NULL);
  run_patiently();
}

static void *thread_spawns_who_stops(void *arg) {
  (void)arg;
  (void)coir_sleep(COIR_MS(5));
  go(stops, NULL);
  return NULL;
}

static void yielders_let_foreign_ones_start(void) {
  pthread_t t;
  for (int i = 0; i < 20; i++) go(yields, NULL);
  CHECK_EQ(pthread_create(&t, NULL, thread_spawns_who_stops, NULL), 0);
  run_patiently();
  pthread_join(t, NULL);
}

/* ---- Those that wake each other ---------------------------------------------------------------------------------- */

static gof_chan_t *chan;

static void sends(void *arg) {
  (void)arg;
  while (goes_on())
    if (gof_chan_send(chan, NULL) != 0) return;
  gof_chan_close(chan);
}

static void receives(void *arg) {
  (void)arg;
  while (gof_chan_recv(chan, NULL) == 0) {}
}

static void *thread_stops(void *arg) {
  (void)arg;
  (void)coir_sleep(COIR_MS(5));
  stops(NULL);
  return NULL;
}

static void talk(size_t room, gof_fn third) {
  chan = gof_chan_make(room);
  stop = 0;
  for (int i = 0; i < 2; i++) {
    go(sends, NULL);
    go(receives, NULL);
  }
  go(third, number(3));
  run_patiently();
  gof_chan_free(chan);
}

static void talkers_let_others_run(void) {
  for (size_t room = 0; room < 3; room++) {
    talk(room, spawns_who_stops);
    talk(room, sleeps_and_stops);
  }
}

/* Asks again and again for what never comes. */
static void polls(void *sends) {
  gof_chan_t *own = gof_chan_make(1);
  if (sends) CHECK_EQ(gof_chan_try_send(own, NULL), 1);
  while (goes_on()) CHECK_EQ(sends ? gof_chan_try_send(own, NULL) : gof_chan_try_recv(own, NULL), 0);
  gof_chan_free(own);
}

static void who_polls_lets_others_run(void) {
  for (intptr_t i = 0; i < 8; i++) go(polls, number(i % 2));
  go(spawns_who_stops, NULL);
  run_patiently();
  stop = 0;
  for (intptr_t i = 0; i < 8; i++) go(polls, number(i % 2));
  go(sleeps_and_stops, number(5));
  run_patiently();
}

/* The channel is kept full by plain threads, and never runs dry. */
static void *thread_sends(void *arg) {
  (void)arg;
  while (gof_chan_send(chan, NULL) == 0) {}
  return NULL;
}

static void receives_till_stop(void *arg) {
  (void)arg;
  while (goes_on()) CHECK_EQ(gof_chan_recv(chan, NULL), 0);
  gof_chan_close(chan);
}

static void a_flood_lets_others_run(void) {
  pthread_t t;
  chan = gof_chan_make(64);
  CHECK_EQ(pthread_create(&t, NULL, thread_sends, NULL), 0);
  go(receives_till_stop, NULL);
  go(sleeps_and_stops, number(3));
  run_patiently();
  pthread_join(t, NULL);
  gof_chan_free(chan);
}

/* ---- Those that spawn -------------------------------------------------------------------------------------------- */

static void goes_at_once(void *arg) { (void)arg; }

static void spawns_for_ever(void *arg) {
  (void)arg;
  while (goes_on()) {
    for (int i = 0; i < 10; i++) go(goes_at_once, NULL);
    gof_yield();
  }
}

/* Each is replaced by two others until there are many; then by one. */
static _Atomic(int) generation;

static void begets(void *arg) {
  (void)arg;
  if (!goes_on()) return;
  go(begets, NULL);
  if (atomic_fetch_add(&generation, 1) < 100) go(begets, NULL);
}

static void spawners_let_others_run(void) {
  go(spawns_for_ever, NULL);
  go(spawns_for_ever, NULL);
  go(sleeps_and_stops, number(10));
  run_patiently();
  stop = 0;
  go(begets, NULL);
  go(sleeps_and_stops, number(10));
  run_patiently();
}

/* ---- Those that compute ------------------------------------------------------------------------------------------ */

#define QUEUED 60
static _Atomic(int) done;

static void does(void *arg) {
  (void)arg;
  atomic_fetch_add(&done, 1);
}

/* By the thresholds two of those queued behind it have to wait for it: fewer than three are not stolen from. */
static void hogs(void *arg) {
  (void)arg;
  for (int i = 0; i < QUEUED; i++) go(does, NULL);
  SPIN_UNTIL(atomic_load(&done) >= QUEUED - 2);
}

static void a_hogs_queue_is_run_by_others(void) {
  if (worker_count() == 1) return;
  go(hogs, NULL);
  gof_run();
  CHECK_EQ(done, QUEUED);
}

static void hogs_for_a_while(void *arg) {
  (void)arg;
  for (int i = 0; i < 5; i++) {
    spin_for(COIR_MS(2));
    gof_yield();
  }
}

static void hogs_let_others_run(void) {
  for (int i = 0; i < 8; i++) go(hogs_for_a_while, NULL);
  go(sleeps_and_stops, number(3));
  run_patiently();
}

/* ---- Fair shares ------------------------------------------------------------------------------------------------- */

static _Atomic(long) turns[10];

static void counts_turns(void *place) {
  while (goes_on()) {
    atomic_fetch_add((_Atomic(long) *)place, 1);
    gof_yield();
  }
}

static void each_yielder_gets_its_turns(void) {
  for (int i = 0; i < 10; i++) go(counts_turns, &turns[i]);
  go(sleeps_and_stops, number(30));
  run_patiently();
  long least = turns[0], most = turns[0];
  for (int i = 1; i < 10; i++) {
    if (turns[i] < least) least = turns[i];
    if (turns[i] > most) most = turns[i];
  }
  CHECK(least > 0);
  if (worker_count() == 1) CHECK(most - least <= 1);
}

static _Atomic(int) naps;

static void naps_often(void *arg) {
  (void)arg;
  for (int i = 0; i < 20; i++) {
    gof_sleep_ms(1);
    atomic_fetch_add(&naps, 1);
  }
  if (atomic_load(&naps) == 20 * 20) stops(NULL);
}

static void sleepers_go_on_among_yielders(void) {
  for (int i = 0; i < 20; i++) {
    go(yields, NULL);
    go(naps_often, NULL);
  }
  run_patiently();
}

static void a_plain_threads_store_is_seen(void) {
  pthread_t t;
  for (int i = 0; i < 5; i++) go(yields, NULL);
  CHECK_EQ(pthread_create(&t, NULL, thread_stops, NULL), 0);
  run_patiently();
  pthread_join(t, NULL);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(yielders_let_sleepers_wake),    CASE(a_lone_yielder_lets_a_sleeper_wake),
      CASE(yielders_let_new_ones_start),   CASE(yielders_let_foreign_ones_start),
      CASE(talkers_let_others_run),        CASE(who_polls_lets_others_run),
      CASE(a_flood_lets_others_run),       CASE(spawners_let_others_run),
      CASE(a_hogs_queue_is_run_by_others), CASE(hogs_let_others_run),
      CASE(each_yielder_gets_its_turns),   CASE(sleepers_go_on_among_yielders),
      CASE(a_plain_threads_store_is_seen),
  };
  return RUN_CASES(argc, argv, cases);
}
