/* Who looks for work, and who sleeps (src/idle.c): where there is something to run nobody sleeps without limit. */
#include "stand.h"

static int runs[STAND_FIBERS];
static int64_t announced_at, found_at;

/* Worker 0 has work, and announces it; worker 1 is about to sleep without limit, as after long idleness; worker 2
 * watches. */
static void setup(void) {
  stand_setup(3);
  for (int i = 0; i < 3; i++) stand_carry(i, i, NULL);
  stand_workers[0].current = &stand_fibers[7];
  stand_workers[1].was_brief = stand_workers[1].was_long = stand_workers[1].retired = true;
  stand_workers[1].slept = true;
  atm_store_rlx(&stand_runtime.watching, 1);
  stand_workers[2].is_watcher = true;
}

static struct coir_fiber *find(struct coir__worker *w) {
  coir__inbox_take(w);
  struct coir_fiber *f = coir__runq_pop(w);
  if (!f) f = coir__lane_get(w, 1);
  if (!f && !atm_load_rlx(&w->has_pinned)) f = coir__lane_get(w, COIR__LANE_PAUSED);
  if (!f && coir__idle_search_begin(w)) f = coir__idle_steal(w);
  return f;
}

/* The worker's loop, until it has something. */
static void idle_until_found(struct coir__worker *w) {
  struct coir_fiber *f;
  for (int rounds = 0; !(f = find(w)); rounds++) {
    if (rounds > 20) ex_fail("it finds nothing, and does not sleep");
    coir__idle_sleep(w);
  }
  found_at = ex_now();
  coir__idle_end(w);
  runs[stand_index(f)]++;
}

/* Two fibers in the ring of a worker that is busy. */
static void announces(int me) {
  struct coir__worker *w = &stand_workers[me];
  if (me == 1) {
    idle_until_found(w);
    return;
  }
  for (int i = 0; i < 3; i++) coir__runq_push(w, &stand_fibers[i]);
  coir__idle_notify(w, true);
}

/* From a thread that carries nothing, by the lane. */
static void from_outside(int me) {
  if (me == 1) {
    idle_until_found(&stand_workers[1]);
    return;
  }
  coir__lane_put(&stand_runtime, &stand_fibers[0]);
  coir__idle_notify_outside(&stand_runtime);
  announced_at = ex_now();
}

/* To the worker itself, by its inbox. */
static void by_inbox(int me) {
  if (me == 1) {
    idle_until_found(&stand_workers[1]);
    return;
  }
  coir__inbox_send(&stand_workers[1], &stand_fibers[0]);
  coir__idle_wake(&stand_workers[1]);
  announced_at = ex_now();
}

/* A fiber is paused, and the worker that sleeps may take it. Worker 0 may not, and does what `end` says with its
 * search. */
static void paused_beside(int me, void (*end)(struct coir__worker *w)) {
  if (me == 0) {
    coir__lane_put_in(&stand_runtime, &stand_fibers[0], COIR__LANE_PAUSED, false);
    coir__idle_notify_outside(&stand_runtime);
  } else if (me == 1) {
    idle_until_found(&stand_workers[1]);
    coir__idle_wake(&stand_workers[0]);
  } else end(&stand_workers[0]);
}
static void paused_beside_one_that_sleeps(int me) { paused_beside(me, coir__idle_sleep); }
static void paused_beside_one_that_finds(int me) { paused_beside(me, coir__idle_end); }

static void pinned(void) {
  setup();
  struct coir__worker *w = &stand_workers[0];
  atm_store_rlx(&w->has_pinned, 1);
  w->was_brief = w->was_long = w->retired = true;
  w->searching = 1;
  atm_store_rlx(&stand_runtime.searching, 1);
}

static void check(void) { EX_CHECK(runs[0] + runs[1] + runs[2] == 1); }

/* The first sleep after some work is brief, and without the heavy fence. Those two do not wait for it to be over. */
static void briefly(void) {
  setup();
  stand_workers[1].was_brief = stand_workers[1].was_long = stand_workers[1].retired = false;
}
static void check_prompt(void) {
  check();
  EX_CHECK(found_at <= announced_at);
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"announces", 2, setup, announces, check, 2, 2},
      {"from_outside", 2, setup, from_outside, check, 3, 3},
      {"by_inbox", 2, setup, by_inbox, check, 3, 3},
      {"from_outside_briefly", 2, briefly, from_outside, check_prompt, 3, 3},
      {"by_inbox_briefly", 2, briefly, by_inbox, check_prompt, 3, 3},
      {"paused_beside_one_that_sleeps", 3, pinned, paused_beside_one_that_sleeps, check, 2, 2},
      {"paused_beside_one_that_finds", 3, pinned, paused_beside_one_that_finds, check, 2, 2},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
