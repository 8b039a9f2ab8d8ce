/* In which order jobs run, and on which worker. Without the monitor, so that a job that is held holds its worker. */
#include "jobs.h"

static int order[1000];
static tally order_count;

static void note(int what) {
  int at = atomic_fetch_add(&order_count, 1);
  if (at < 1000) order[at] = what;
}

static void notes(struct coir_job *job, void *what) {
  (void)job;
  note((int)(intptr_t)what);
}

/* How often the next is larger. */
static int ascents(int n) {
  int count = 0;
  for (int i = 1; i < n; i++) count += order[i] > order[i - 1];
  return count;
}

/* Of all pairs, how many are the wrong way round: what should be later is the larger number. */
static int inversions(int n) {
  int count = 0;
  for (int i = 0; i < n; i++)
    for (int j = i + 1; j < n; j++) count += order[i] > order[j];
  return count;
}

#define ON_ONE(name) WITH_JOBS(name, .threads = 1, .monitor = COIR_OFF)

/* ---- Queues ------------------------------------------------------------------------------------------------------ */

ON_ONE(from_outside_first_come_first_served) {
  struct gate gate = {0};
  struct coir_counter *held = hold(jobs, &gate), *done[100];
  for (intptr_t i = 0; i < 100; i++) done[i] = coir_job_run(jobs, notes, (void *)i);
  let_go(&gate, held);
  for (int i = 0; i < 100; i++) finish(done[i]);
  for (int i = 0; i < 100; i++) CHECK_EQ(order[i], i);
}

ON_ONE(many_from_outside_run_in_their_order) {
  struct coir_job_desc list[100];
  for (intptr_t i = 0; i < 100; i++) list[i] = (struct coir_job_desc){.fn = notes, .arg = (void *)i};
  finish(coir_job_run_many(jobs, list, 100));
  CHECK_EQ(order[0], 0);
  CHECK(ascents(100) >= 80); /* now and then, after some milliseconds, one that has waited for long is taken first */
}

static void spawns_a_hundred(struct coir_job *job, void *counter) {
  for (intptr_t i = 0; i < 100; i++) CHECK_EQ(coir_job_spawn_with(job, counter, notes, (void *)i), 0);
}

ON_ONE(a_jobs_own_are_run_newest_first) {
  struct coir_counter *all = coir_counter_create(0);
  finish(coir_job_run(jobs, spawns_a_hundred, all));
  finish(all);
  CHECK_EQ(order[0], 99);
  CHECK(ascents(100) <= 20);
}

static void spawns_and_keeps_on(struct coir_job *job, void *counter) {
  spawns_a_hundred(job, counter);
  SPIN_UNTIL(order_count == 100);
}

/* Others take the oldest, also from a worker that computes; so they run about in the order in which they were made. */
static void others_take_the_oldest(void) {
  if (thread_count() < 2) return;
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 2, .monitor = COIR_OFF});
  for (int round = 0; round < 20; round++) {
    struct coir_counter *all = coir_counter_create(0);
    atomic_store(&order_count, 0);
    finish(coir_job_run(jobs, spawns_and_keeps_on, all));
    finish(all);
    CHECK_EQ(order[0], 0);
    CHECK(inversions(100) < 100 * 99 / 4);
  }
  end_jobs(jobs, 0);
}

static void spawns_and_yields(struct coir_job *job, void *counter) {
  for (intptr_t i = 1; i <= 3; i++) CHECK_EQ(coir_job_spawn_with(job, counter, notes, (void *)i), 0);
  coir_job_yield(job);
  note(4);
}

/* A job that yields goes behind everything that is ready; but for a turn now and then, so that none starves. */
ON_ONE(a_yield_lets_all_others_run) {
  int last = 0;
  for (int round = 0; round < 50; round++) {
    struct coir_counter *all = coir_counter_create(0);
    atomic_store(&order_count, 0);
    finish(coir_job_run(jobs, spawns_and_yields, all));
    finish(all);
    CHECK_EQ(order_count, 4);
    last += order[3] == 4;
  }
  CHECK(last >= 25);
}

static void notes_and_yields(struct coir_job *job, void *me) {
  for (int i = 0; i < 100; i++) {
    notes(job, me);
    coir_job_yield(job);
  }
}

static void spawns_two_that_yield(struct coir_job *job, void *arg) {
  struct coir_job_desc two[] = {{.fn = notes_and_yields, .arg = (void *)0}, {.fn = notes_and_yields, .arg = (void *)1}};
  (void)arg;
  finish(coir_job_spawn_many(job, two, 2));
}

ON_ONE(two_that_yield_alternate_strictly) {
  for (int round = 0; round < 20; round++) {
    atomic_store(&order_count, 0);
    finish(coir_job_run(jobs, spawns_two_that_yield, NULL));
    CHECK_EQ(order_count, 200);
    int repeats = 0;
    for (int i = 1; i < 200; i++) repeats += order[i] == order[i - 1];
    CHECK(repeats <= 2); /* before the second has begun, and after one has ended */
  }
}

/* A job that spawns its successor, again and again, does not keep its worker from what came from outside or woke up. */
static tally chain_stops;

static void goes_on_for_ever(struct coir_job *job, void *arg) {
  if (!chain_stops) CHECK_EQ(coir_job_spawn_detached(job, goes_on_for_ever, arg), 0);
}

static void sleeps_thrice(struct coir_job *job, void *n) {
  for (int i = 0; i < 3; i++) (void)coir_sleep(COIR_US(100));
  counts(job, n);
}

ON_ONE(a_chain_does_not_keep_others_out) {
  tally n = 0;
  for (int i = 0; i < 4; i++)
    CHECK_EQ(coir_job_submit(jobs, &(struct coir_job_desc){.fn = goes_on_for_ever}, 1, NULL), 0);
  struct coir_counter *sleeper = coir_job_run(jobs, sleeps_thrice, &n),
                      *yielder = coir_job_run(jobs, notes_and_yields, NULL);
  finish(coir_job_run(jobs, counts, &n));
  finish(sleeper);
  finish(yielder);
  atomic_store(&chain_stops, 1);
  CHECK_EQ(n, 2);
}

/* ---- Priorities -------------------------------------------------------------------------------------------------- */

/* Whichever was submitted first; but for one turn in 64, so that low does not starve. */
ON_ONE(high_before_low) {
  int in_order = 0;
  for (int round = 0; round < 20; round++) {
    struct gate gate = {0};
    atomic_store(&order_count, 0);
    struct coir_counter *held = hold(jobs, &gate);
    struct coir_counter *low = coir_job_run_priority(jobs, COIR_PRIORITY_LOW, notes, (void *)2);
    struct coir_counter *high = coir_job_run_priority(jobs, COIR_PRIORITY_HIGH, notes, (void *)1);
    let_go(&gate, held);
    finish(low);
    finish(high);
    CHECK_EQ(order[0] + order[1], 3);
    in_order += order[0] == 1;
  }
  CHECK(in_order >= 17);
}

ON_ONE(high_before_normal_before_low) {
  struct gate gate = {0};
  struct coir_counter *held = hold(jobs, &gate), *done[30];
  for (int i = 0; i < 30; i++) {
    int priority = i % 3 - 1; /* what is later in the order is the larger number */
    done[i] = coir_job_run_priority(jobs, (enum coir_priority)priority, notes, (void *)(intptr_t)-priority);
  }
  let_go(&gate, held);
  for (int i = 0; i < 30; i++) finish(done[i]);
  CHECK(inversions(30) <= 40); /* of 300 pairs of different priority; ageing lets a few through */
}

/* The same from a job, which submits them all before any can run. */
static void submits_by_priority(struct coir_job *job, void *counter) {
  struct coir_counter *all = counter;
  for (int i = 0; i < 30; i++) {
    int priority = i % 3 - 1;
    struct coir_job_desc one = {
        .fn = notes, .arg = (void *)(intptr_t)-priority, .priority = (enum coir_priority)priority};
    CHECK_EQ(coir_job_submit(coir_job_system_of(job), &one, 1, &all), 0);
  }
}

ON_ONE(priorities_from_a_job) {
  struct coir_counter *all = coir_counter_create(0);
  finish(coir_job_run(jobs, submits_by_priority, all));
  finish(all);
  CHECK_EQ(order_count, 30);
  CHECK(inversions(30) <= 40);
}

struct load {
  struct coir_job_system *jobs;
  enum coir_priority priority;
  tally stops, ran, queued;
};

/* Keeps as many of its kind queued as there were at first. */
static void renews_itself(struct coir_job *job, void *arg) {
  struct load *load = arg;
  (void)job;
  atomic_fetch_add(&load->ran, 1);
  spin_for(2000);
  struct coir_job_desc again = {.fn = renews_itself, .arg = load, .priority = load->priority};
  if (load->stops) atomic_fetch_sub(&load->queued, 1);
  else CHECK_EQ(coir_job_submit(load->jobs, &again, 1, NULL), 0);
}

static void put_load(struct load *load, struct coir_job_system *jobs, enum coir_priority priority) {
  *load = (struct load){.jobs = jobs, .priority = priority, .queued = 4 * coir_job_system_workers(jobs)};
  for (int i = load->queued; i > 0; i--) {
    struct coir_job_desc one = {.fn = renews_itself, .arg = load, .priority = priority};
    CHECK_EQ(coir_job_submit(jobs, &one, 1, NULL), 0);
  }
  WAIT_FOR(load->ran > 100);
}

static void stop_load(struct load *load) {
  atomic_store(&load->stops, 1);
  WAIT_FOR(load->queued == 0);
}

struct seen {
  struct load *load;
  tally ran_before, ran_at; /* of the load: when it was submitted, and when it ran */
};

static void sees_load(struct coir_job *job, void *arg) {
  struct seen *seen = arg;
  (void)job;
  atomic_store(&seen->ran_at, seen->load->ran);
}

/* How many of the load were run between the submission of one of `priority` and its start. */
static int passed_over(struct load *load, enum coir_priority priority) {
  struct seen seen = {.load = load, .ran_before = load->ran};
  struct coir_counter *done = coir_job_run_priority(load->jobs, priority, sees_load, &seen);
  CHECK_EQ(coir_counter_wait(done, coir_after(COIR_SEC(20))), 0);
  coir_counter_unref(done);
  return seen.ran_at - seen.ran_before;
}

/* However much of a higher priority there always is, the others age, and have their turn. */
static void nobody_starves(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.monitor = COIR_OFF});
  const enum coir_priority above[] = {COIR_PRIORITY_NORMAL, COIR_PRIORITY_HIGH, COIR_PRIORITY_HIGH},
                           below[] = {COIR_PRIORITY_LOW, COIR_PRIORITY_LOW, COIR_PRIORITY_NORMAL};
  for (int i = 0; i < 3; i++) {
    struct load load;
    put_load(&load, jobs, above[i]);
    for (int j = 0; j < 10; j++) CHECK(passed_over(&load, below[i]) >= 0);
    stop_load(&load);
  }
  end_jobs(jobs, 0);
}

/* Under a load of normal ones a high one is sooner than a low one, by the median. */
static int by_size(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

ON_ONE(high_is_sooner_than_low_under_load) {
  struct load load;
  int high[21], low[21];
  put_load(&load, jobs, COIR_PRIORITY_NORMAL);
  for (int i = 0; i < 21; i++) {
    high[i] = passed_over(&load, COIR_PRIORITY_HIGH);
    low[i] = passed_over(&load, COIR_PRIORITY_LOW);
  }
  stop_load(&load);
  qsort(high, 21, sizeof high[0], by_size);
  qsort(low, 21, sizeof low[0], by_size);
  CHECK(high[10] < low[10]);
}

/* ---- Places ------------------------------------------------------------------------------------------------------ */

struct place {
  int worker; /* where it is to start; -1: wherever it likes */
  bool stays;
  tally wrong;
};

static void checks_place(struct coir_job *job, void *arg) {
  struct place *p = arg;
  int at = coir_worker_index();
  tally n = 0;
  if (p->worker >= 0 && at != p->worker) atomic_fetch_add(&p->wrong, 1);
  for (int i = 0; p->stays && i < 20; i++) {
    if (i % 5 == 4) (void)coir_sleep(COIR_US(30));
    else if (i % 5 == 3) finish(coir_job_spawn(job, counts, &n));
    else coir_job_yield(job);
    if (coir_worker_index() != at) atomic_fetch_add(&p->wrong, 1);
  }
}

static struct coir_counter *submit_places(struct coir_job_system *jobs, struct place *places, int n) {
  struct coir_job_desc list[200] = {0};
  struct coir_counter *counter = NULL;
  for (int i = 0; i < n; i++) {
    int worker = i % 3 == 2 ? -1 : i % coir_job_system_workers(jobs);
    places[i] = (struct place){.worker = worker, .stays = i % 3 != 1};
    list[i] = (struct coir_job_desc){.fn = checks_place,
                                     .arg = &places[i],
                                     .pinned = places[i].stays,
                                     .worker = worker < 0 ? COIR_WORKER_ANY : COIR_WORKER(worker)};
  }
  CHECK_EQ(coir_job_submit(jobs, list, (size_t)n, &counter), 0);
  return counter;
}

static void submits_places(struct coir_job *job, void *places) {
  finish(submit_places(coir_job_system_of(job), places, 200));
}

/* In hard mode a fiber may lose its worker between its own beginning, which is where it was told, and the job's. */
WITH_JOBS(jobs_run_where_they_are_told, .monitor = STRICT_MONITOR) {
  static struct place places[200];
  for (int round = 0; round < rounds(20); round++) {
    if (round % 2) finish(submit_places(jobs, places, 200));
    else finish(coir_job_run(jobs, submits_places, places));
    for (int i = 0; i < 200; i++) CHECK_EQ(places[i].wrong, 0);
  }
}

/* Work that one job makes is done by all, though it is not even: a tenth of it takes ten times as long. */
static tally done_by[64];

static void works(struct coir_job *job, void *ns) {
  (void)job;
  spin_for((intptr_t)ns);
  atomic_fetch_add(&done_by[coir_worker_index()], 1);
}

static tally balanced;

static void spawns_and_waits_spinning(struct coir_job *job, void *counter) {
  for (intptr_t i = 0; i < 500; i++)
    CHECK_EQ(coir_job_spawn_with(job, counter, works, (void *)(i % 10 ? (intptr_t)1000 : (intptr_t)10000)), 0);
  SPIN_UNTIL(coir_counter_is_complete(counter));
  CHECK_EQ(done_by[coir_worker_index()], 0);
  counts(job, &balanced);
}

static void others_do_the_work_of_one_that_is_busy(void) {
  if (thread_count() < 2) return;
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.monitor = COIR_OFF});
  struct coir_counter *all = coir_counter_create(0);
  finish(coir_job_run(jobs, spawns_and_waits_spinning, all));
  finish(all);
  int sum = 0;
  for (int i = 0; i < 64; i++) sum += done_by[i];
  CHECK_EQ(sum, 500);
  CHECK_EQ(balanced, 1);
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(from_outside_first_come_first_served),
      CASE(many_from_outside_run_in_their_order),
      CASE(a_jobs_own_are_run_newest_first),
      CASE(others_take_the_oldest),
      CASE(a_yield_lets_all_others_run),
      CASE(two_that_yield_alternate_strictly),
      CASE(a_chain_does_not_keep_others_out),
      CASE(high_before_low),
      CASE(high_before_normal_before_low),
      CASE(priorities_from_a_job),
      CASE(nobody_starves),
      CASE(high_is_sooner_than_low_under_load),
      CASE(jobs_run_where_they_are_told),
      CASE(others_do_the_work_of_one_that_is_busy),
  };
  return RUN_CASES(argc, argv, cases);
}
