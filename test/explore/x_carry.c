/* Taking a worker away (src/carry.c), and pausing (src/preempt.c): one thread at a time uses a worker, and none is
 * lost. Thread 0 runs a fiber that comes into the library and goes; thread 1 is the monitor; thread 2 is a spare. */
#include "stand.h"

#define WORKER (&stand_workers[0])
#define FIBER (&stand_fibers[0])

static struct ex_event over; /* the monitor is done */
static enum coir__taken taken = COIR__TAKEN_INSIDE;
static int was_inside, was_outside, inherited, has_worker_at_end;

static void setup(void) {
  stand_setup(1);
  stand_carry(0, 0, FIBER);
  FIBER->b.more |= COIR__MORE_PREEMPT;
  static struct coir__stack stack;
  FIBER->stack = &stack;
  stand_runtime.config.quantum_us = 10000;
  for (int i = 0; i < 3; i++) atm_store_rlx(&stand_threads[i].carries, 1);
  atm_store_rlx(&stand_threads[0].in, 0); /* in the program's own code */
  stand_runtime.spares = &stand_threads[2];
  stand_threads[2].next_spare = NULL;
}

/* What only who carries it may do. */
static void use(struct coir__worker *w) { w->rounds++; }

static void comes_and_goes(void) {
  struct coir__worker *w;
  uint32_t was = coir__go_in_on(&w, true);
  if (w) {
    EX_CHECK(w == WORKER);
    use(w);
    was_inside++;
  } else {
    was_outside++;
  }
  coir__go_out(&was);
}

static PEEKS void look(struct coir__worker *w) {
  w->watch.current = PEEK(w->current);
  w->watch.tick = PEEK(w->tick);
  w->watch.looked_at = PEEK(w->looked_at);
}

static void take(bool pauses) {
  look(WORKER);
  for (int i = 0; i < 2 && taken != COIR__TAKEN; i++) taken = coir__carry_take(WORKER, pauses, ex_now());
  ex_post(&over);
  coir__thread_wake(&stand_threads[2]);
}

/* As spare_wait() does. */
static struct coir__worker *inherit(void) {
  struct coir__thread *t = &stand_threads[2];
  for (;;) {
    uint32_t seen = atm_load_acq(&t->futex);
    struct coir__worker *w = atm_load_acq(&t->heir_to);
    if (w) return w;
    if (ex_take(&over)) return atm_load_acq(&t->heir_to); /* it may have been given before */
    ex_sleep(&t->futex, seen, COIR_NEVER);
  }
}

/* Thread 2 goes on with the worker, if it was taken. */
static struct coir__worker *go_on(void) {
  struct coir__worker *w = inherit();
  if (!w) return NULL;
  inherited++;
  atm_store_rlx(&stand_threads[2].in, 1);
  coir__carry_begin(w, &stand_threads[2]);
  use(w);
  return w;
}

static void taken_away(int me) {
  if (me == 0) {
    comes_and_goes();
    comes_and_goes();
  } else if (me == 1) {
    take(false);
  } else {
    (void)go_on();
  }
}
static void check_taken(void) {
  EX_CHECK(inherited == (taken == COIR__TAKEN));
  EX_CHECK(was_inside + was_outside == 2);
  if (!inherited) EX_CHECK(was_outside == 0); /* what was put back is found */
  EX_CHECK(WORKER->rounds == (uint32_t)(was_inside + inherited));
  EX_CHECK(atm_load_rlx(&WORKER->thread) == &stand_threads[inherited ? 2 : 0]);
}

/* The signal that says so may come at any time while the thread is outside: thread 0 plays its handler. */
static void signal_comes(void) {
  struct coir__ctx_registers at = {0};
  coir__pause_signal_came(&at);
}

static void paused(int me) {
  if (me == 0) {
    comes_and_goes();
    signal_comes();
    comes_and_goes();
    struct coir__worker *w;
    uint32_t was = coir__go_in_on(&w, true);
    has_worker_at_end = w != NULL;
    if (w) use(w);
    coir__go_out(&was);
  } else if (me == 1) {
    take(true);
  } else {
    struct coir__worker *w = go_on();
    if (!w) return;
    struct coir_fiber *f = coir__lane_get(w, COIR__LANE_PAUSED);
    EX_CHECK(f == FIBER);
    coir__preempt_resume(&w, f);
    EX_CHECK(!w);
    if (stand_threads[2].wakes) coir__thread_wake(stand_threads[2].wakes);
  }
}
static void check_paused(void) {
  EX_CHECK(inherited == (taken == COIR__TAKEN));
  EX_CHECK(has_worker_at_end);
  EX_CHECK(WORKER->current == FIBER && atm_load_rlx(&WORKER->thread) == &stand_threads[0]);
  EX_CHECK(WORKER->rounds == (uint32_t)(was_inside + inherited + 1));
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"taken_away", 3, setup, taken_away, check_taken, 2, 2},
      {"paused", 3, setup, paused, check_paused, 2, 1},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
