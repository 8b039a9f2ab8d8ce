/* Run queues (src/runq.c): whatever thieves and the owner do, each fiber is taken once. */
#include "stand.h"

#define NONE (-1)

static int takes[STAND_FIBERS];  /* by whom; for the checker */
static int taken[EX_THREADS_MAX][STAND_FIBERS], taken_count[EX_THREADS_MAX];

static void took(struct coir_fiber *f) {
  if (f) taken[ex_me()][taken_count[ex_me()]++] = stand_index(f);
}

/* Nobody is inside any more: what is left in the queues, and what was taken, is everything, once. */
static void check_once(int fibers) {
  for (int t = 0; t < EX_THREADS_MAX; t++)
    for (int i = 0; i < taken_count[t]; i++) takes[taken[t][i]]++;
  for (int i = 0; i < fibers; i++)
    if (takes[i] > 1) ex_fail("fiber %d was taken %d times", i, takes[i]); /* the queues may be beyond emptying now */
  for (int w = 0; w < STAND_WORKERS && stand_workers[w].rt; w++)
    for (struct coir_fiber *f; (f = coir__runq_pop(&stand_workers[w])) != NULL;) takes[stand_index(f)]++;
  for (int i = 0; i < fibers; i++)
    if (takes[i] != 1) ex_fail("fiber %d was taken %d times", i, takes[i]);
}
static void check_three(void) { check_once(3); }
static void check_four(void) { check_once(4); }
static void check_two(void) { check_once(2); }

/* What the fiber's maker wrote is there for who takes it. */
static struct coir_fiber *make(int i) {
  stand_fibers[i].arg = &stand_fibers[i];
  return &stand_fibers[i];
}
static void use(struct coir_fiber *f) {
  if (f) EX_CHECK(f->arg == f);
  took(f);
}

static void setup(void) {
  stand_setup(3);
  for (int i = 0; i < 3; i++) stand_carry(i, i, NULL);
}

static void steal(bool lone) { use(coir__runq_steal(&stand_workers[ex_me()], &stand_workers[0], lone)); }

/* ---- The ring -------------------------------------------------------------------------------------------------- */

static void pushes_and_pops(int me) {
  struct coir__worker *w = &stand_workers[0];
  if (me) {
    steal(false);
    return;
  }
  for (int i = 0; i < 3; i++) coir__runq_push(w, make(i));
  for (int i = 0; i < 3; i++) use(coir__runq_pop(w));
}

static void three_queued(void) {
  setup();
  for (int i = 0; i < 3; i++) coir__runq_push(&stand_workers[0], make(i));
}

/* Two thieves at once, one of whom may take the oldest, while the owner pops. */
static void two_thieves(int me) {
  if (me) steal(me == 2);
  else
    for (int i = 0; i < 2; i++) use(coir__runq_pop(&stand_workers[0]));
}

/* As coir_yield does it: takes the oldest, and goes to the end. */
static void yields(int me) {
  struct coir__worker *w = &stand_workers[0];
  if (me) {
    steal(me == 2);
    return;
  }
  uint64_t head;
  for (int i = 0; i < 2; i++) {
    struct coir_fiber *f = coir__runq_oldest(w, &head);
    if (!f) {
      coir__runq_leave(w);
      continue;
    }
    coir__runq_take_oldest(w, head);
    EX_CHECK(f->arg == f);
    coir__runq_push_after_take(w, f);
  }
}

/* ---- The next slot --------------------------------------------------------------------------------------------- */

static void one_next(void) {
  setup();
  coir__runq_push_next(&stand_workers[0], make(0));
}

static void next_is_taken(int me) {
  struct coir__worker *w = &stand_workers[0];
  if (me) {
    steal(true);
    return;
  }
  coir__runq_push_next(w, make(1)); /* the former one queues */
  use(coir__runq_pop(w));
  use(coir__runq_pop(w));
}

/* ---- The deque ------------------------------------------------------------------------------------------------- */

static void deque_of_three(int me) {
  struct coir__worker *w = &stand_workers[0];
  if (me) {
    steal(false);
    return;
  }
  for (int i = 0; i < 3; i++) coir__runq_push_lifo(w, make(i));
  for (int i = 0; i < 3; i++) use(coir__runq_pop(w));
}

/* Jobs are taken many at a time. */
static struct coir__lean jobs[4];
static struct coir_fiber *fiber_of(struct coir__worker *w, struct coir__lean *lean) {
  (void)w;
  return &stand_fibers[lean - jobs];
}

static void push_job(int i) {
  jobs[i].bind = fiber_of;
  make(i);
  EX_CHECK(coir__runq_push_lean(&stand_workers[0], (void *)((uintptr_t)&jobs[i] | COIR__LEAN_JOB)));
}

static void four_jobs(void) {
  setup();
  for (int i = 0; i < 4; i++) push_job(i);
}

static void jobs_are_taken(int me) {
  struct coir__worker *w = &stand_workers[0];
  if (me) {
    steal(false);
    return;
  }
  for (int i = 0; i < 3; i++) {
    struct coir__lean *job = coir__runq_pop_job(w);
    use(job ? fiber_of(w, job) : coir__runq_pop(w));
  }
}

static void pushes_jobs(int me) {
  if (me == 0)
    for (int i = 0; i < 4; i++) push_job(i);
  jobs_are_taken(me);
}

/* ---- The inbox ------------------------------------------------------------------------------------------------- */

static void inbox(int me) {
  struct coir__worker *w = &stand_workers[0];
  if (me) {
    coir__inbox_send(w, make(me - 1));
    return;
  }
  for (int i = 0; i < 2; i++) {
    coir__inbox_take(w);
    use(coir__runq_pop(w));
  }
}
static void check_inbox(void) {
  coir__inbox_take(&stand_workers[0]);
  check_once(2);
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"ring", 2, setup, pushes_and_pops, check_three, 3, 2},
      {"two_thieves", 3, three_queued, two_thieves, check_three, 2, 1},
      {"yields", 3, three_queued, yields, check_three, 2, 1},
      {"next_slot", 2, one_next, next_is_taken, check_two, 3, 3},
      {"deque", 2, setup, deque_of_three, check_three, 3, 3},
      {"jobs", 2, four_jobs, jobs_are_taken, check_four, 2, 2},
      {"jobs_two_thieves", 3, four_jobs, jobs_are_taken, check_four, 1, 1},
      {"jobs_pushed", 2, setup, pushes_jobs, check_four, 2, 2},
      {"inbox", 3, setup, inbox, check_inbox, 3, 3},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
