/* Fork and join, and loops: each part runs once, wherever it runs; what parts may do; who may call. */
#include <malloc.h>
#include <sys/socket.h>

#include "coir_io.h"
#include "jobs.h"
#include "stuck.h"

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

struct fib {
  int n;
  uint64_t value;
};

static void fib(void *arg) {
  struct fib *f = arg;
  if (f->n < 2) {
    f->value = (uint64_t)f->n;
    return;
  }
  struct fib a = {f->n - 1, 0}, b = {f->n - 2, 0};
  CHECK_EQ(coir_fork2(fib, &a, fib, &b), 0);
  f->value = a.value + b.value;
}

static void fib_job(struct coir_job *job, void *arg) {
  (void)job;
  fib(arg);
}

static int fib_fiber(void *arg) {
  fib(arg);
  return 0;
}

WITH_JOBS(fibonacci_everywhere) {
  struct fib f = {IS_SANITIZED ? 14 : 22, 0}, g = f, h = f, i = f;
  struct coir_fiber *fiber = NULL;
  finish(coir_job_run(jobs, fib_job, &f));
  CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), fib_fiber, &g, NULL, &fiber), 0);
  join(fiber);
  fib(&h); /* on a plain thread */
  run(fib_fiber, &i);
  CHECK_EQ(f.value, IS_SANITIZED ? 377 : 17711);
  CHECK(g.value == f.value && h.value == f.value && i.value == f.value);
}

/* What two sides of a fork know of each other. */
struct sides {
  tally a_begun, b_begun, a_done, b_done;
  struct coir_chan *chan;
  int a_worker, b_worker;
};

static void a_until_b_has_begun(void *arg) {
  struct sides *s = arg;
  atomic_store(&s->a_begun, 1);
  SPIN_UNTIL(s->b_begun);
  atomic_store(&s->a_done, 1);
}

static void b_takes_its_time(void *arg) {
  struct sides *s = arg;
  atomic_store(&s->b_begun, 1);
  CHECK(!s->b_done);
  (void)coir_sleep(COIR_MS(2));
  atomic_store(&s->b_done, 1);
}

static void forks_at_once(struct coir_job *job, void *n) {
  struct sides s = {0};
  CHECK_EQ(coir_fork2(a_until_b_has_begun, &s, b_takes_its_time, &s), 0);
  CHECK(s.a_done && s.b_done);
  counts(job, n);
}

/* An idle worker takes the other side, also from one that does nothing but compute. */
static void sides_run_at_once(void) {
  if (thread_count() < 2) return;
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.monitor = COIR_OFF});
  tally n = 0;
  for (int i = 0; i < 50; i++) finish(coir_job_run(jobs, forks_at_once, &n));
  CHECK_EQ(n, 50);
  end_jobs(jobs, 0);
}

static void a_talks(void *arg) {
  struct sides *s = arg;
  for (int i = 0, v; i < 10; i++) {
    CHECK_EQ(coir_chan_send(s->chan, &i, COIR_NEVER), 0);
    CHECK_EQ(coir_chan_recv(s->chan, &v, COIR_NEVER), 0);
    CHECK_EQ(v, -i);
  }
  atomic_store(&s->a_done, 1);
}

static void b_replies(void *arg) {
  struct sides *s = arg;
  for (int i = 0, v; i < 10; i++) {
    CHECK_EQ(coir_chan_recv(s->chan, &v, COIR_NEVER), 0);
    CHECK_EQ(v, i);
    v = -v;
    CHECK_EQ(coir_chan_send(s->chan, &v, COIR_NEVER), 0);
  }
  atomic_store(&s->b_done, 1);
}

static void talks(struct coir_job *job, void *n) {
  struct sides s = {.chan = coir_chan_create(sizeof(int), 0)};
  CHECK_EQ(coir_fork2(a_talks, &s, b_replies, &s), 0);
  CHECK(s.a_done && s.b_done);
  CHECK_EQ(coir_fork2(b_replies, &s, a_talks, &s), 0);
  coir_chan_unref(s.chan);
  counts(job, n);
}

/* A side that waits lets its worker go on with the other, so they may wait for each other; also where there is one. */
WITH_JOBS(sides_wait_for_each_other) {
  tally n = 0;
  struct coir_job_desc list[20];
  for (int i = 0; i < 20; i++) list[i] = (struct coir_job_desc){.fn = talks, .arg = &n};
  finish(coir_job_run_many(jobs, list, 20));
  CHECK_EQ(n, 20);
}

struct deep {
  int left;
  tally *leaves;
  bool is_waiting;
};

static void is_leaf(void *arg) {
  struct deep *d = arg;
  if (d->is_waiting && d->left % 64 == 0) (void)coir_sleep(COIR_US(10));
  atomic_fetch_add(d->leaves, 1);
}

static void goes_down(void *arg) {
  struct deep *d = arg, next = {d->left - 1, d->leaves, d->is_waiting};
  if (d->left == 0) {
    if (d->is_waiting) (void)coir_sleep(COIR_MS(1));
    return;
  }
  if (d->left % 2) CHECK_EQ(coir_fork2(goes_down, &next, is_leaf, d), 0);
  else CHECK_EQ(coir_fork2(is_leaf, d, goes_down, &next), 0);
}

static void goes_down_job(struct coir_job *job, void *arg) {
  (void)job;
  goes_down(arg);
}

/* With the innermost asleep, all that is still to be done is out for everybody to take. */
WITH_JOBS(forks_ten_thousand_deep, .stack_bytes = 16 << 20) {
  int depth = IS_SANITIZED ? 1000 : 10000;
  for (int i = 0; i < 4; i++) {
    tally leaves = 0;
    struct deep d = {depth, &leaves, i % 2};
    finish(coir_job_run(jobs, goes_down_job, &d));
    CHECK_EQ(leaves, depth);
  }
}

/* A side that waits, yields, blocks or computes may come back on another worker, or beside all of them. */
static void side_of_some_kind(void *arg) {
  struct fib f = {8, 0};
  switch ((intptr_t)arg) {
  case 0: (void)coir_sleep(COIR_US(20)); break;
  case 1: coir_yield(); break;
  case 2: fib(&f); break;
  case 3: block_until_taken(); break;
  case 4: compute_until_taken(); break; /* a second: jobs are expected to compute */
  default:
    if (coir_block_enter() == 0) usleep(20);
    fib(&f);
    coir_block_leave();
  }
  fib(&f);
  CHECK_EQ(f.value, 21);
}

static void forks_all_kinds(struct coir_job *job, void *n) {
  static const intptr_t kinds[] = {0, 1, 2, 3, 5};
  for (int i = 0; i < 25; i++) {
    CHECK_EQ(coir_fork2(side_of_some_kind, (void *)kinds[i % 5], side_of_some_kind, (void *)kinds[i / 5]), 0);
    counts(job, n);
  }
}

static void forks_and_computes(struct coir_job *job, void *n) {
  CHECK_EQ(coir_fork2(side_of_some_kind, (void *)4, side_of_some_kind, (void *)0), 0);
  CHECK_EQ(coir_fork2(side_of_some_kind, (void *)0, side_of_some_kind, (void *)4), 0);
  counts(job, n);
}

WITH_JOBS(sides_of_all_kinds) {
  tally n = 0;
  struct coir_job_desc list[4] = {{.fn = forks_and_computes, .arg = &n}};
  for (int i = 1; i < 4; i++) list[i] = (struct coir_job_desc){.fn = forks_all_kinds, .arg = &n};
  finish(coir_job_run_many(jobs, list, 4));
  CHECK_EQ(n, 76);
}

static tally spawned;

static void spawns_and_waits(void *arg) {
  struct coir_job_system *system = coir_job_system_current();
  CHECK(system == arg);
  finish(coir_job_run(system, counts, &spawned));
  struct coir_job_desc list[3] = {
      {.fn = counts, .arg = &spawned}, {.fn = counts, .arg = &spawned}, {.fn = counts, .arg = &spawned}};
  CHECK_EQ(coir_job_submit(system, list, 3, NULL), 0);
  flag is_raised = 0;
  join(spawn(raise_flag, &is_raised));
  CHECK(is_up(&is_raised));
}

static void spawns_in_sides(struct coir_job *job, void *arg) {
  (void)job;
  for (int i = 0; i < 25; i++) {
    int before = spawned;
    CHECK_EQ(coir_fork2(spawns_and_waits, arg, spawns_and_waits, arg), 0);
    WAIT_FOR(spawned == before + 8);
  }
}

WITH_JOBS(sides_spawn_jobs_and_fibers) { finish(coir_job_run(jobs, spawns_in_sides, jobs)); }

/* Nothing is allocated, no fiber made, for what nobody takes. */
static void forks_for_nothing(struct coir_job *job, void *arg) {
  struct fib f = {18, 0};
  (void)job;
  fib(&f);
  if (IS_SANITIZED) return;
  struct coir_stats before = stats_of(arg);
  size_t bytes = mallinfo2().uordblks;
  fib(&f);
  CHECK_EQ(mallinfo2().uordblks, bytes);
  CHECK_EQ(stats_of(arg).fibers_spawned, before.fibers_spawned);
  CHECK_EQ(stats_of(arg).switches, before.switches);
}

/* Without the monitor, which would make a thread if this one did not get the CPU for a while. */
WITH_JOBS(forks_need_no_memory, .threads = 1, .monitor = COIR_OFF) {
  tally n = 0;
  finish(coir_job_run(jobs, counts, &n)); /* what this thread needs has been made then */
  finish(coir_job_run(jobs, forks_for_nothing, coir_job_system_runtime(jobs)));
}

/* ---- Loops: each index once -------------------------------------------------------------------------------------- */

#define INDICES 20000
static _Atomic(uint8_t) seen[INDICES];
static tally seen_count;

struct shape {
  size_t lo, hi, grain;
};

static void sees(size_t i, void *arg) {
  const struct shape *s = arg;
  CHECK(i >= s->lo && i < s->hi);
  CHECK_EQ(atomic_fetch_add_explicit(&seen[i - s->lo], 1, memory_order_relaxed), 0);
}

static void sees_range(size_t lo, size_t hi, void *arg) {
  const struct shape *s = arg;
  CHECK(lo >= s->lo && lo < hi && hi <= s->hi);
  if (s->grain) {
    CHECK_EQ((lo - s->lo) % s->grain, 0);
    CHECK(hi - lo == s->grain || (hi == s->hi && hi - lo < s->grain));
  }
  for (size_t i = lo; i < hi; i++) sees(i, arg);
}

static void sees_element(void *elem, void *arg) {
  (void)arg;
  *(uint32_t *)elem += 1;
}

static void check_seen(const struct shape *s) {
  size_t n = s->lo < s->hi ? s->hi - s->lo : 0;
  for (size_t i = 0; i < INDICES; i++) {
    CHECK_EQ(seen[i], i < n);
    atomic_store_explicit(&seen[i], 0, memory_order_relaxed);
  }
}

static void loop_over(struct coir_job_system *system, struct shape s) {
  if (s.grain == 0) {
    CHECK_EQ(coir_parallel_for(system, s.lo, s.hi, sees, &s), 0);
    check_seen(&s);
  }
  CHECK_EQ(coir_parallel_range(system, s.lo, s.hi, s.grain, sees_range, &s), 0);
  check_seen(&s);
}

static const struct shape shapes[] = {
    {0, 0, 0},
    {5, 5, 3},
    {2, 2, 0},
    {SIZE_MAX, SIZE_MAX, 0},
    {0, 1, 0},
    {0, 1, 1},
    {0, 1, 100},
    {7, 9, 1},
    {0, INDICES, 0},
    {0, INDICES, 1},
    {0, INDICES, 7},
    {3, INDICES, 1000},
    {0, INDICES, INDICES},
    {0, 1000, SIZE_MAX},
    {0, 1001, 10},
    {0, 999, 10},
    {1, 1024, 64},
    {SIZE_MAX - 5000, SIZE_MAX, 0},
    {SIZE_MAX - 5000, SIZE_MAX, 1},
    {SIZE_MAX - 5000, SIZE_MAX, 77},
    {SIZE_MAX - 5000, SIZE_MAX, 4999},
    {SIZE_MAX - 5000, SIZE_MAX, SIZE_MAX},
    {SIZE_MAX - 1, SIZE_MAX, 0},
    {SIZE_MAX, SIZE_MAX, 5},
    {SIZE_MAX / 2 - 100, SIZE_MAX / 2 + 100, 3},
};

static void loops_of_all_shapes(struct coir_job *job, void *system) {
  uint64_t rng = rng_seed((uint64_t)thread_count());
  (void)job;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) loop_over(system, shapes[i]);
  for (int i = 0; i < rounds(200); i++) {
    size_t lo = rng_next(&rng) % 2 ? rng_next(&rng) % 100 : SIZE_MAX - 4000 - rng_next(&rng) % 100;
    loop_over(system, (struct shape){lo, lo + rng_next(&rng) % 3000, rng_next(&rng) % 3 ? rng_next(&rng) % 300 : 0});
  }
}

WITH_JOBS(each_index_once) {
  finish(coir_job_run(jobs, loops_of_all_shapes, NULL));
  finish(coir_job_run(jobs, loops_of_all_shapes, jobs));
}

static int loops_on_a_fiber(void *system) {
  loops_of_all_shapes(NULL, system);
  return 0;
}

WITH_JOBS(each_index_once_for_callers_outside) {
  loops_of_all_shapes(NULL, jobs); /* a plain thread */
  loops_of_all_shapes(NULL, NULL); /* in the caller alone */
  run(loops_on_a_fiber, jobs);     /* a fiber of another runtime */
  run(loops_on_a_fiber, NULL);     /* and in that one */
}

/* Ranges whose ends no size_t can go beyond; the bodies are not as long as that. */
static struct shape huge_seen[16];

static void sees_huge(size_t lo, size_t hi, void *arg) {
  (void)arg;
  int at = atomic_fetch_add(&seen_count, 1);
  CHECK(at < 16);
  huge_seen[at] = (struct shape){lo, hi, 0};
}

static void check_huge(int n, size_t lo, size_t hi, size_t grain) {
  CHECK_EQ(seen_count, n);
  for (int i = 0; i < n; i++) {
    size_t from = huge_seen[i].lo;
    CHECK_EQ((from - lo) % grain, 0);
    CHECK_EQ(huge_seen[i].hi, hi - from > grain ? from + grain : hi);
    for (int j = 0; j < i; j++) CHECK(huge_seen[j].lo != from);
  }
  atomic_store(&seen_count, 0);
}

WITH_JOBS(huge_ranges) {
  const struct {
    struct shape s;
    int n;
  } cases[] = {{{0, SIZE_MAX, SIZE_MAX / 4}, 5}, {{0, SIZE_MAX, SIZE_MAX}, 1},     {{0, SIZE_MAX, SIZE_MAX - 1}, 2},
               {{1, SIZE_MAX, SIZE_MAX / 2}, 2}, {{0, SIZE_MAX - 1, SIZE_MAX}, 1}, {{3, SIZE_MAX, SIZE_MAX / 7}, 7},
               {{SIZE_MAX - 9, SIZE_MAX, 5}, 2}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct shape s = cases[i].s;
    CHECK_EQ(coir_parallel_range(jobs, s.lo, s.hi, s.grain, sees_huge, NULL), 0);
    check_huge(cases[i].n, s.lo, s.hi, s.grain);
    finish(coir_job_parallel_for_chunked(jobs, s.lo, s.hi, s.grain, sees_huge, NULL));
    check_huge(cases[i].n, s.lo, s.hi, s.grain);
  }
}

WITH_JOBS(each_element_once) {
  static uint32_t array[INDICES];
  static const size_t counts_of[] = {0, 1, 2, 3, 100, 4097, INDICES};
  for (uint32_t k = 0; k < sizeof counts_of / sizeof *counts_of; k++) {
    size_t n = counts_of[k];
    memset(array, 0, sizeof array);
    CHECK_EQ(coir_parallel_each(jobs, array, n, sizeof array[0], sees_element, NULL), 0);
    CHECK_EQ(coir_parallel_each(jobs, array, n / 2, 2 * sizeof array[0], sees_element, NULL), 0);
    for (size_t i = 0; i < INDICES; i++) CHECK_EQ(array[i], (i < n) + (i < n / 2 * 2 && i % 2 == 0));
  }
}

WITH_JOBS(loops_that_cannot_be) {
  const struct coir_monoid none = {.bytes = 8}, *missing = NULL;
  uint64_t out;
  CHECK_EQ(coir_parallel_for(jobs, 0, 10, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_parallel_for(jobs, 5, 4, sees, NULL), -EINVAL);
  CHECK(coir_job_parallel_for(jobs, 5, 4, 1, sees, NULL) == NULL);
  CHECK_EQ(coir_parallel_range(jobs, 0, 10, 0, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_parallel_each(jobs, &out, 10, 1, NULL, NULL), -EINVAL);
  CHECK_EQ(coir_parallel_reduce(jobs, 0, 10, 0, missing, NULL, &out), -EINVAL);
  CHECK_EQ(coir_parallel_reduce(jobs, 0, 10, 0, &none, NULL, &out), -EINVAL);
  CHECK_EQ(coir_parallel_scan(jobs, 0, 10, missing, NULL, NULL, &out), -EINVAL);
  CHECK_EQ(coir_parallel_phases(jobs, NULL, 3), -EINVAL);
  CHECK_EQ(coir_parallel_phases(jobs, NULL, 0), 0);
}

/* ---- What bodies may do ------------------------------------------------------------------------------------------ */

static void inner_body(size_t i, void *arg) {
  (void)i;
  if (i % 16 == 0) coir_yield();
  atomic_fetch_add((tally *)arg, 1);
}

static void middle_body(size_t lo, size_t hi, void *arg) {
  for (size_t i = lo; i < hi; i++) CHECK_EQ(coir_parallel_for(NULL, 0, i % 20, inner_body, arg), 0);
}

static void outer_body(size_t i, void *arg) {
  (void)i;
  CHECK_EQ(coir_parallel_range(NULL, 0, 20, i % 4, middle_body, arg), 0);
}

WITH_JOBS(loops_in_loops) {
  tally n = 0;
  CHECK_EQ(coir_parallel_for(jobs, 0, 40, outer_body, &n), 0);
  CHECK_EQ(n, 40 * 190);
}

static void waits_somehow(size_t i, void *arg) {
  tally *n = arg;
  if (i % 3 == 0) coir_yield();
  else if (i % 3 == 1) (void)coir_sleep(COIR_US(i % 50));
  else finish(coir_job_run(coir_job_system_current(), counts, n));
  atomic_fetch_add(n, 1);
}

static void loops_and_waits(struct coir_job *job, void *n) {
  (void)job;
  CHECK_EQ(coir_parallel_for(NULL, 0, 300, waits_somehow, n), 0);
}

WITH_JOBS(bodies_wait) {
  tally n = 0;
  struct coir_job_desc list[3] = {
      {.fn = loops_and_waits, .arg = &n}, {.fn = loops_and_waits, .arg = &n}, {.fn = loops_and_waits, .arg = &n}};
  finish(coir_job_run_many(jobs, list, 3));
  CHECK_EQ(n, 1200);
}

/* Each body but the last waits for the next one's token, so all but one wait at once. */
static struct coir_chan *tokens[101];

static void passes_token(size_t lo, size_t hi, void *arg) {
  int v = 0;
  CHECK_EQ(hi, lo + 1);
  CHECK_EQ(coir_chan_recv(tokens[lo + 1], &v, COIR_NEVER), 0);
  v++;
  CHECK_EQ(coir_chan_send(tokens[lo], &v, COIR_NEVER), 0);
  atomic_fetch_add((tally *)arg, 1);
}

WITH_JOBS(bodies_wait_for_each_other) {
  tally n = 0;
  for (int i = 0; i <= 100; i++) tokens[i] = coir_chan_create(sizeof(int), 1);
  for (int i = 0; i < 2; i++) {
    int v = 0;
    CHECK_EQ(coir_chan_send(tokens[100], &v, COIR_NEVER), 0);
    if (i) finish(coir_job_parallel_for_chunked(jobs, 0, 100, 1, passes_token, &n));
    else CHECK_EQ(coir_parallel_range(jobs, 0, 100, 1, passes_token, &n), 0);
    CHECK_EQ(coir_chan_recv(tokens[0], &v, COIR_NEVER), 0);
    CHECK_EQ(v, 100);
  }
  CHECK_EQ(n, 200);
  for (int i = 0; i <= 100; i++) coir_chan_unref(tokens[i]);
}

/* Bodies that wait from the start for what is no body of the loop wait at the same time. */
static tally all_begun;

static void waits_for_all(size_t i, void *event) {
  (void)i;
  atomic_fetch_add(&all_begun, 1);
  CHECK_EQ(coir_event_wait(event, COIR_NEVER), 0);
}

static void *sets_when_all_have_begun(void *event) {
  WAIT_FOR(all_begun == 500);
  coir_event_set(event);
  return NULL;
}

WITH_JOBS(bodies_wait_at_the_same_time) {
  struct coir_event event = {{0}};
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, sets_when_all_have_begun, &event), 0);
  CHECK_EQ(coir_parallel_for(jobs, 0, 500, waits_for_all, &event), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static int sockets[64][2];

static void echoes(struct coir_job *job, void *arg) {
  char c;
  (void)job;
  while (coir_read((int)(intptr_t)arg, &c, 1, COIR_NEVER) == 1)
    CHECK_EQ(coir_write((int)(intptr_t)arg, &c, 1, COIR_NEVER), 1);
}

static void talks_by_socket(size_t i, void *arg) {
  char out[8], in[8];
  memset(out, (int)i, sizeof out);
  CHECK_EQ(coir_write_full(sockets[i][0], out, sizeof out, COIR_NEVER), sizeof out);
  CHECK_EQ(coir_read_full(sockets[i][0], in, sizeof in, COIR_NEVER), sizeof in);
  CHECK(!memcmp(in, out, sizeof in));
  atomic_fetch_add((tally *)arg, 1);
}

WITH_JOBS(bodies_use_sockets) {
  tally n = 0;
  struct coir_job_desc list[64] = {0};
  for (int i = 0; i < 64; i++) {
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets[i]), 0);
    list[i] = (struct coir_job_desc){.fn = echoes, .arg = (void *)(intptr_t)sockets[i][1]};
  }
  struct coir_counter *echoing = coir_job_run_many(jobs, list, 64);
  CHECK_EQ(coir_parallel_for(jobs, 0, 64, talks_by_socket, &n), 0);
  CHECK_EQ(n, 64);
  finish(coir_job_parallel_for(jobs, 0, 64, 1, talks_by_socket, &n));
  CHECK_EQ(n, 128);
  for (int i = 0; i < 64; i++) close(sockets[i][0]);
  finish(echoing);
  for (int i = 0; i < 64; i++) close(sockets[i][1]);
}

struct guarded {
  struct coir_mutex mutex;
  uint64_t plain;
};

static void locks(size_t i, void *arg) {
  struct guarded *g = arg;
  CHECK_EQ(coir_mutex_lock(&g->mutex, COIR_NEVER), 0);
  uint64_t before = g->plain;
  if (i % 64 == 0) coir_yield();
  g->plain = before + 1;
  coir_mutex_unlock(&g->mutex);
}

WITH_JOBS(bodies_lock) {
  struct guarded g = {.plain = 0};
  CHECK_EQ(coir_parallel_for(jobs, 0, 5000, locks, &g), 0);
  CHECK_EQ(g.plain, 5000);
}

static void blocks_or_computes(size_t i, void *arg) {
  if (i % 40 == 7) block_until_taken();
  if (i == 23) compute_until_taken();
  atomic_fetch_add((tally *)arg, 1);
}

WITH_JOBS(bodies_block_and_compute) {
  tally n = 0;
  CHECK_EQ(coir_parallel_for(jobs, 0, 200, blocks_or_computes, &n), 0);
  CHECK_EQ(n, 200);
}

/* ---- Reduce and scan, with what does not commute ----------------------------------------------------------------- */

#define PRIME UINT64_C(1000003)

/* 2x2 matrices modulo a prime. */
struct matrix {
  uint64_t at[4];
};

static const struct matrix unity = {{1, 0, 0, 1}};

static struct matrix product(const struct matrix *a, const struct matrix *b) {
  struct matrix c;
  for (int i = 0; i < 4; i++)
    c.at[i] = (a->at[i / 2 * 2] * b->at[i % 2] + a->at[i / 2 * 2 + 1] * b->at[2 + i % 2]) % PRIME;
  return c;
}

static struct matrix matrix_of(size_t i) {
  return (struct matrix){{(i * 7 + 1) % PRIME, (i + 3) % PRIME, (i * i) % PRIME, (i * 5 + 2) % PRIME}};
}

static void multiplies(size_t lo, size_t hi, void *value, void *arg) {
  struct matrix *m = value;
  CHECK(lo < hi);
  CHECK((uintptr_t)value % 16 == 0);
  for (size_t i = lo; i < hi; i++) {
    struct matrix next = matrix_of(i);
    if (arg && i % 97 == 0) coir_yield();
    *m = product(m, &next);
  }
}

static void combines(void *left, const void *right, void *arg) {
  struct matrix *m = left;
  (void)arg;
  *m = product(m, right);
}

static const struct coir_monoid matrices = {sizeof(struct matrix), &unity, multiplies, combines};

static void check_reduce(struct coir_job_system *system, struct shape s, void *arg) {
  struct matrix serial = unity, found = {{9, 9, 9, 9}};
  for (size_t i = s.lo; i < s.hi; i++) {
    struct matrix next = matrix_of(i);
    serial = product(&serial, &next);
  }
  CHECK_EQ(coir_parallel_reduce(system, s.lo, s.hi, s.grain, &matrices, arg, &found), 0);
  CHECK(!memcmp(&serial, &found, sizeof found));
}

static void reduces(struct coir_job *job, void *system) {
  uint64_t rng = rng_seed(3);
  (void)job;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_reduce(system, shapes[i], NULL);
  for (int i = 0; i < rounds(100); i++) {
    size_t lo = rng_next(&rng) % 1000;
    check_reduce(system, (struct shape){lo, lo + rng_next(&rng) % 3000, rng_next(&rng) % 3 * (rng_next(&rng) % 200)},
                 system);
  }
}

WITH_JOBS(reduces_in_order) {
  finish(coir_job_run(jobs, reduces, NULL));
  reduces(NULL, jobs);
  reduces(NULL, NULL);
}

/* Text, in a value of the largest size. */
struct text {
  char letters[248];
  uint64_t length;
};

static void writes(size_t lo, size_t hi, void *value, void *arg) {
  struct text *t = value;
  (void)arg;
  for (size_t i = lo; i < hi; i++) t->letters[t->length++] = (char)('a' + i % 26);
}

static void appends(void *left, const void *right, void *arg) {
  struct text *t = left;
  const struct text *more = right;
  (void)arg;
  CHECK(t->length + more->length <= sizeof t->letters);
  memcpy(t->letters + t->length, more->letters, more->length);
  t->length += more->length;
}

static void check_text(const struct text *t, size_t n) {
  CHECK_EQ(t->length, n);
  for (size_t i = 0; i < n; i++) CHECK_EQ(t->letters[i], 'a' + i % 26);
}

static const struct text no_text;
static const struct coir_monoid texts = {sizeof(struct text), &no_text, writes, appends};

WITH_JOBS(reduces_text) {
  for (size_t n = 0; n <= sizeof no_text.letters; n += 31)
    for (size_t grain = 0; grain < 9; grain += 4) {
      struct text t = {.length = 99};
      CHECK_EQ(coir_parallel_reduce(jobs, 0, n, grain, &texts, NULL, &t), 0);
      check_text(&t, n);
    }
  const struct coir_monoid too_large = {257, &no_text, writes, appends};
  struct text t;
  CHECK_EQ(coir_parallel_reduce(jobs, 0, 10, 0, &too_large, NULL, &t), -EINVAL);
}

static void adds_reciprocals(size_t lo, size_t hi, void *value, void *arg) {
  (void)arg;
  for (size_t i = lo; i < hi; i++) *(double *)value += 1.0 / (double)(i + 1);
}

static void adds_double(void *left, const void *right, void *arg) {
  (void)arg;
  *(double *)left += *(const double *)right;
}

/* With a grain the ranges are the same each time, and so is what is added to what: not a bit differs. */
WITH_JOBS(a_grain_makes_sums_repeatable) {
  const double zero = 0;
  const struct coir_monoid doubles = {sizeof zero, &zero, adds_reciprocals, adds_double};
  double first = 0, again = 0;
  CHECK_EQ(coir_parallel_reduce(jobs, 0, 100001, 64, &doubles, NULL, &first), 0);
  CHECK(first > 12.09 && first < 12.10);
  for (int i = 0; i < 30; i++) {
    CHECK_EQ(coir_parallel_reduce(i % 3 ? jobs : NULL, 0, 100001, 64, &doubles, NULL, &again), 0);
    CHECK(!memcmp(&first, &again, sizeof first));
  }
}

static struct matrix before_each[INDICES];

static void checks_before(size_t lo, size_t hi, const void *before, void *arg) {
  struct matrix m = *(const struct matrix *)before;
  struct shape *s = arg;
  CHECK(lo >= s->lo && lo < hi && hi <= s->hi);
  for (size_t i = lo; i < hi; i++) {
    struct matrix next = matrix_of(i);
    CHECK_EQ(atomic_fetch_add_explicit(&seen[i - s->lo], 1, memory_order_relaxed), 0);
    before_each[i - s->lo] = m;
    m = product(&m, &next);
  }
}

static void sums_for_scan(size_t lo, size_t hi, void *value, void *arg) {
  (void)arg;
  multiplies(lo, hi, value, NULL);
}

static void check_scan(struct coir_job_system *system, size_t lo, size_t hi, bool is_total_wanted) {
  const struct coir_monoid monoid = {sizeof(struct matrix), &unity, sums_for_scan, combines};
  struct shape s = {lo, hi, 0};
  struct matrix m = unity, total = {{9, 9, 9, 9}};
  CHECK_EQ(coir_parallel_scan(system, lo, hi, &monoid, checks_before, &s, is_total_wanted ? &total : NULL), 0);
  check_seen(&s);
  for (size_t i = lo; i < hi; i++) {
    struct matrix next = matrix_of(i);
    CHECK(!memcmp(&before_each[i - lo], &m, sizeof m));
    m = product(&m, &next);
  }
  if (is_total_wanted) CHECK(!memcmp(&total, &m, sizeof m));
}

static void scans(struct coir_job *job, void *system) {
  uint64_t rng = rng_seed(4);
  (void)job;
  for (size_t n = 0; n < 20; n++) check_scan(system, 5, 5 + n, n % 2);
  check_scan(system, 0, INDICES, true);
  check_scan(system, 9, 9, true);
  check_scan(system, SIZE_MAX - 1000, SIZE_MAX, true);
  for (int i = 0; i < rounds(50); i++) {
    size_t lo = rng_next(&rng) % 1000;
    check_scan(system, lo, lo + rng_next(&rng) % 5000, i % 2);
  }
}

WITH_JOBS(scans_in_order) {
  finish(coir_job_run(jobs, scans, NULL));
  scans(NULL, jobs);
  scans(NULL, NULL);
}

/* ---- Phases ------------------------------------------------------------------------------------------------------ */

enum { PHASES = 20, WIDTH = 500 };
static uint32_t layers[PHASES + 1][WIDTH]; /* plain: each phase reads what the former has written anywhere */

static void next_layer(size_t lo, size_t hi, void *arg) {
  int phase = (int)(intptr_t)arg;
  for (size_t i = lo; i < hi; i++) {
    uint32_t left = layers[phase][(i + WIDTH - 1) % WIDTH], right = layers[phase][(i + 1) % WIDTH];
    layers[phase + 1][i] = left * 3 + right + 1;
  }
}

static void check_layers(void) {
  uint32_t now[WIDTH], next[WIDTH];
  for (uint32_t i = 0; i < WIDTH; i++) now[i] = i;
  for (int phase = 0; phase < PHASES; phase++) {
    for (int i = 0; i < WIDTH; i++) next[i] = now[(i + WIDTH - 1) % WIDTH] * 3 + now[(i + 1) % WIDTH] + 1;
    memcpy(now, next, sizeof now);
  }
  CHECK(!memcmp(now, layers[PHASES], sizeof now));
}

WITH_JOBS(phases_come_one_after_the_other) {
  struct coir_phase phases[2 * PHASES];
  for (int i = 0; i < PHASES; i++) {
    phases[2 * i] = (struct coir_phase){0, WIDTH, (size_t)(i % 3 * 7), next_layer, (void *)(intptr_t)i};
    phases[2 * i + 1] = (struct coir_phase){5, 5, 0, next_layer, NULL}; /* of nothing */
  }
  for (int round = 0; round < rounds(50); round++) {
    memset(layers, 0, sizeof layers);
    for (uint32_t i = 0; i < WIDTH; i++) layers[0][i] = i;
    CHECK_EQ(coir_parallel_phases(round % 2 ? jobs : NULL, phases, 2 * PHASES), 0);
    check_layers();
  }
}

/* ---- Who calls --------------------------------------------------------------------------------------------------- */

static struct coir_runtime *runtime_expected;

static void checks_runtime(size_t i, void *arg) {
  (void)i;
  CHECK(coir_runtime_current() == runtime_expected);
  atomic_fetch_add((tally *)arg, 1);
}

static void loops_elsewhere(struct coir_job *job, void *arg) {
  struct coir_job_system *other = ((void **)arg)[0];
  CHECK(coir_job_system_of(job) != other);
  CHECK_EQ(coir_parallel_for(other, 0, 500, checks_runtime, ((void **)arg)[1]), 0);
  CHECK(coir_job_system_current() != other);
}

WITH_JOBS(jobs_of_one_system_call_loops_of_another) {
  struct coir_job_system *other = make_jobs((struct coir_job_config){.threads = 2});
  tally n = 0;
  void *args[] = {other, &n};
  struct coir_job_desc list[8];
  runtime_expected = coir_job_system_runtime(other);
  for (int i = 0; i < 8; i++) list[i] = (struct coir_job_desc){.fn = loops_elsewhere, .arg = args};
  finish(coir_job_run_many(jobs, list, 8));
  CHECK_EQ(n, 4000);
  end_jobs(other, 0);
}

/* Two systems whose loops run in each other's bodies. */
static struct coir_job_system *pair[2];

static void goes_back_and_forth(size_t i, void *arg) {
  int depth = (int)(intptr_t)arg;
  if (depth == 0) return (void)atomic_fetch_add(&seen_count, 1);
  CHECK_EQ(coir_parallel_for(pair[depth % 2], 0, 2 + i % 2, goes_back_and_forth, (void *)(intptr_t)(depth - 1)), 0);
}

static int serial_back_and_forth(size_t i, int depth) {
  int sum = 0;
  if (depth == 0) return 1;
  for (size_t j = 0; j < 2 + i % 2; j++) sum += serial_back_and_forth(j, depth - 1);
  return sum;
}

WITH_JOBS(loops_go_back_and_forth_between_systems) {
  pair[0] = jobs;
  pair[1] = make_jobs((struct coir_job_config){0});
  atomic_store(&seen_count, 0);
  goes_back_and_forth(1, (void *)6);
  CHECK_EQ(seen_count, serial_back_and_forth(1, 6));
  end_jobs(pair[1], 0);
}

static void *loops_on_a_thread(void *system) {
  tally n = 0;
  for (int i = 0; i < rounds(100); i++) CHECK_EQ(coir_parallel_for(system, 0, 100, inner_body, &n), 0);
  CHECK_EQ(n, 100 * rounds(100));
  return NULL;
}

WITH_JOBS(many_threads_call_at_once) {
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) CHECK_EQ(pthread_create(&threads[i], NULL, loops_on_a_thread, i % 4 ? jobs : NULL), 0);
  for (int i = 0; i < 8; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static pthread_t caller;

static void runs_on_caller(size_t i, void *arg) {
  (void)i;
  CHECK(pthread_equal(pthread_self(), caller));
  CHECK(coir_current() == NULL);
  ++*(int *)arg;
}

static void a_thread_without_a_system_is_alone(void) {
  int n = 0;
  caller = pthread_self();
  CHECK_EQ(coir_parallel_for(NULL, 0, 1000, runs_on_caller, &n), 0);
  CHECK_EQ(n, 1000);
}

static void never_waits(size_t i, void *arg) {
  (void)i;
  coir_yield();
  atomic_fetch_add((tally *)arg, 1);
}

static int loops_though_cancelled(void *system) {
  tally n = 0;
  CHECK_EQ(coir_cancel(coir_current()), 0);
  CHECK_EQ(coir_parallel_for(system, 0, 1000, never_waits, &n), 0);
  CHECK_EQ(n, 1000);
  CHECK_EQ(coir_sleep(COIR_US(1)), -ECANCELED);
  CHECK_EQ(coir_sleep(COIR_US(1)), 0);
  return 0;
}

WITH_JOBS(loops_are_not_cancelled) {
  struct coir_fiber *f = NULL;
  run(loops_though_cancelled, jobs);
  run(loops_though_cancelled, NULL);
  CHECK_EQ(coir_runtime_spawn(coir_job_system_runtime(jobs), loops_though_cancelled, NULL, NULL, &f), 0);
  join(f);
}

/* What one has offered is done by others while it computes, up to what it has left for itself. */
static tally short_done;

static void long_or_short(size_t i, void *arg) {
  (void)arg;
  if (i == 0) SPIN_UNTIL(short_done >= 500);
  else atomic_fetch_add(&short_done, 1);
}

static void others_go_on_beside_one_that_computes(void) {
  if (thread_count() < 2) return;
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.monitor = COIR_OFF});
  for (int i = 0; i < 20; i++) {
    atomic_store(&short_done, 0);
    CHECK_EQ(coir_parallel_for(jobs, 0, 1001, long_or_short, NULL), 0);
  }
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(fibonacci_everywhere),
      CASE(sides_run_at_once),
      CASE(sides_wait_for_each_other),
      CASE(forks_ten_thousand_deep),
      CASE(sides_of_all_kinds),
      CASE(sides_spawn_jobs_and_fibers),
      CASE(forks_need_no_memory),
      CASE(each_index_once),
      CASE(each_index_once_for_callers_outside),
      CASE(huge_ranges),
      CASE(each_element_once),
      CASE(loops_that_cannot_be),
      CASE(loops_in_loops),
      CASE(bodies_wait),
      CASE(bodies_wait_for_each_other),
      CASE(bodies_wait_at_the_same_time),
      CASE(bodies_use_sockets),
      CASE(bodies_lock),
      CASE(bodies_block_and_compute),
      CASE(reduces_in_order),
      CASE(reduces_text),
      CASE(a_grain_makes_sums_repeatable),
      CASE(scans_in_order),
      CASE(phases_come_one_after_the_other),
      CASE(jobs_of_one_system_call_loops_of_another),
      CASE(loops_go_back_and_forth_between_systems),
      CASE(many_threads_call_at_once),
      CASE(a_thread_without_a_system_is_alone),
      CASE(loops_are_not_cancelled),
      CASE(others_go_on_beside_one_that_computes),
  };
  return RUN_CASES(argc, argv, cases);
}
