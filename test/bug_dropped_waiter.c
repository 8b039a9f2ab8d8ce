/* A fiber that is dropped (COIR_STOP_ABANDON) was taken out of the queue in which it waited, and nothing else. So whom
 * it had kept out stayed out: those behind a large wish for permits, or behind a writer; and a mutex, a lock or permits
 * that it had just been given were lost with it. The counter that it waited for kept its mark. Who waited for the
 * function that it ran in coir_once_do or coir_flight_do waited for ever, and who came to that flight later read its
 * frame. A job system that it was shutting down could not be destroyed. And where what it waited for lay in the frame
 * of another fiber, which was dropped before it, its lock was looked for there. */
#include "jobs.h"

#include <sys/mman.h>

#include "job.h"

#define SOON COIR_SEC(20)

static struct coir_runtime *rt;
static struct coir_sem sem;
static struct coir_rwlock rwlock;
static struct coir_mutex mutex;
static tally is_in, is_over;

/* How many fibers wait for `what`, and whether there are others. */
static int wait_for(const char *what, int *others) {
  struct coir_fiber_info list[16];
  int waiting = 0, n = (int)coir_runtime_list(rt, list, 16);
  for (int i = 0; i < n; i++) waiting += list[i].state == COIR_FIBER_WAITING && !strcmp(list[i].waits_for, what);
  *others = n - waiting;
  return waiting;
}
static bool one_waits_for(const char *what) {
  int others;
  return wait_for(what, &others) == 1 && !others;
}
static bool one_is_woken(void) {
  struct coir_fiber_info info = {.state = COIR_FIBER_WAITING};
  return coir_runtime_list(rt, &info, 1) == 1 && info.state == COIR_FIBER_READY;
}

/* On a runtime of its own a fiber waits for `what`. */
static void begin_with(struct coir_config config, coir_fn fn, const char *what) {
  rt = make_runtime(config);
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_spawn(rt, fn, NULL, NULL, NULL), 0);
  WAIT_FOR(one_waits_for(what));
}
static void begin(coir_fn fn, const char *what) { begin_with((struct coir_config){.workers = 1}, fn, what); }

/* From here on it may be woken, and does not run: nobody carries the worker. */
static void halt(void) {
  CHECK_EQ(coir_runtime_halt(rt), 0);
  WAIT_FOR(!atomic_load(&rt->workers[0]->thread));
}

static void drop(void) {
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static struct coir__waiter *_Atomic(newest);

/* A wait begins under the lock of what is waited for: who comes there later finds it. */
static bool newest_waits(void) {
  const struct coir__waiter *waiter = atomic_load(&newest);
  uint64_t code = waiter ? atomic_load(&waiter->word) & COIR__CODE_MASK : COIR__CODE_IDLE;
  return code > COIR__CODE_IDLE && code < COIR__CODE_TIMEOUT;
}

static void announce(void) {
  COIR_INSIDE;
  atomic_store(&newest, coir__waiter_self());
}

static void *announces(void *fn) {
  announce();
  return ((void *(*)(void *))fn)(NULL);
}

static pthread_t start_thread(void *(*fn)(void *)) {
  pthread_t thread;
  atomic_store(&newest, NULL);
  CHECK_EQ(pthread_create(&thread, NULL, announces, (void *)fn), 0);
  return thread;
}

/* Until it waits. */
static pthread_t begin_thread(void *(*fn)(void *)) {
  pthread_t thread = start_thread(fn);
  WAIT_FOR(newest_waits());
  return thread;
}

static void end_thread(pthread_t thread) { CHECK_EQ(pthread_join(thread, NULL), 0); }

/* ---- Who was kept out ------------------------------------------------------------------------------------------ */

static int wants_much(void *unused) {
  (void)unused;
  return coir_sem_acquire(&sem, 5, COIR_NEVER);
}
static void *wants_one(void *unused) {
  CHECK_EQ(coir_sem_acquire(&sem, 1, coir_after(SOON)), 0);
  return unused;
}
static void small_wishes_come_through(void) {
  coir_sem_init(&sem, 1);
  begin(wants_much, "semaphore");
  pthread_t thread = begin_thread(wants_one);
  drop();
  end_thread(thread);
}

static int writes(void *unused) {
  (void)unused;
  return coir_rwlock_write(&rwlock, COIR_NEVER);
}
static void *reads(void *unused) {
  CHECK_EQ(coir_rwlock_read(&rwlock, coir_after(SOON)), 0);
  return unused;
}
static void readers_come_through(void) {
  CHECK_EQ(coir_rwlock_read(&rwlock, 0), 0);
  begin(writes, "rwlock");
  pthread_t thread = begin_thread(reads);
  drop();
  end_thread(thread);
}

/* ---- What was given -------------------------------------------------------------------------------------------- */

static void permits_are_given_back(void) {
  coir_sem_init(&sem, 0);
  begin(wants_much, "semaphore");
  halt();
  coir_sem_release(&sem, 5);
  CHECK_EQ(coir_sem_acquire(&sem, 1, 0), -ETIMEDOUT); /* given they are */
  drop();
  CHECK_EQ(coir_sem_acquire(&sem, 5, 0), 0);
}

static int reads_on_a_fiber(void *unused) {
  (void)unused;
  return coir_rwlock_read(&rwlock, COIR_NEVER);
}
static void locks_are_given_back(void) {
  CHECK_EQ(coir_rwlock_write(&rwlock, 0), 0);
  for (int i = 0; i < 2; i++) {
    begin(i ? reads_on_a_fiber : writes, "rwlock");
    halt();
    coir_rwlock_write_unlock(&rwlock);
    CHECK_EQ(coir_rwlock_write(&rwlock, 0), -ETIMEDOUT);
    drop();
    CHECK_EQ(coir_rwlock_write(&rwlock, 0), 0);
  }
}

static int locks_for_ever(void *unused) {
  (void)unused;
  for (;;) {
    CHECK_EQ(coir_mutex_lock(&mutex, COIR_NEVER), 0);
    coir_mutex_unlock(&mutex);
  }
}
static void *locks(void *unused) {
  CHECK_EQ(coir_mutex_lock(&mutex, coir_after(SOON)), 0);
  coir_mutex_unlock(&mutex);
  return unused;
}

/* Woken to try, and there is another one who waits. */
static void a_mutex_goes_to_the_next(void) {
  CHECK_EQ(coir_mutex_lock(&mutex, 0), 0);
  begin(locks_for_ever, "mutex");
  pthread_t thread = begin_thread(locks);
  halt();
  coir_mutex_unlock(&mutex);
  drop();
  end_thread(thread);
  CHECK_EQ(coir_mutex_lock(&mutex, 0), 0);
}

static int hogs(void *unused) {
  (void)unused;
  atomic_store(&is_in, 1);
  SPIN_UNTIL(is_over);
  return 0;
}

/* Passed over for longer than its patience, a waiter is made the owner. It is passed over because another fiber has its
 * worker when it is woken. */
static void a_mutex_is_given_back(void) {
  CHECK_EQ(coir_mutex_lock(&mutex, 0), 0);
  begin_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, locks_for_ever, "mutex");
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0); /* longer than its patience */
  CHECK_EQ(coir_runtime_spawn(rt, hogs, NULL, NULL, NULL), 0);
  WAIT_FOR(is_in);
  coir_mutex_unlock(&mutex);
  CHECK_EQ(coir_mutex_lock(&mutex, 0), 0);
  atomic_store(&is_over, 1);
  WAIT_FOR(one_waits_for("mutex"));
  halt();
  coir_mutex_unlock(&mutex);
  CHECK_EQ(coir_mutex_lock(&mutex, 0), -ETIMEDOUT); /* given it is */
  drop();
  CHECK_EQ(coir_mutex_lock(&mutex, 0), 0);
}

static struct coir_counter counter;

static int waits_for_jobs(void *unused) {
  (void)unused;
  return coir_counter_wait(&counter, COIR_NEVER);
}
static void a_counter_keeps_no_mark(void) {
  const struct coir__counter *inside = (const struct coir__counter *)&counter;
  coir_counter_init(&counter, 1);
  begin(waits_for_jobs, "counter");
  CHECK(atomic_load(&inside->word) & COIR__COUNTER_WAITED);
  drop();
  CHECK(!(atomic_load(&inside->word) & COIR__COUNTER_WAITED));
}

/* ---- Who waited for it to return ------------------------------------------------------------------------------- */

static struct coir_once once;
static struct coir_flight flight;

static void stays(void *unused) {
  (void)unused;
  (void)coir_sleep(COIR_SEC(1000));
}
static int does_it_once(void *unused) {
  CHECK_EQ(coir_once_do(&once, stays, unused, COIR_NEVER), 0);
  return 0;
}
static void returns(void *unused) {
  (void)unused;
  atomic_fetch_add(&is_in, 1);
}
static void *does_it_next(void *unused) {
  CHECK_EQ(coir_once_do(&once, returns, NULL, coir_after(SOON)), 0);
  CHECK_EQ(is_in, 1);
  return unused;
}
static void somebody_else_does_it(void) {
  begin(does_it_once, "sleep");
  pthread_t one = begin_thread(does_it_next), two = begin_thread(does_it_next);
  drop();
  end_thread(one);
  end_thread(two);
  CHECK_EQ(is_in, 1);
}

static int flies(void *arg, void **value) {
  *value = arg;
  if (arg) stays(arg);
  return 3;
}
static int leads(void *unused) {
  struct coir_result result;
  (void)unused;
  return coir_flight_do(&flight, "key", 3, flies, &flight, &result, COIR_NEVER);
}
static void *follows(void *unused) {
  struct coir_result result = {.status = 1, .value = &flight};
  CHECK_EQ(coir_flight_do(&flight, "key", 3, flies, NULL, &result, coir_after(SOON)), 0);
  CHECK(result.status == -ECANCELED && result.value == NULL);
  return unused;
}
static void followers_are_told(void) {
  struct coir_result result;
  begin(leads, "sleep");
  pthread_t thread = begin_thread(follows);
  drop();
  end_thread(thread);
  CHECK_EQ(coir_flight_do(&flight, "key", 3, flies, NULL, &result, COIR_NEVER), 1);
  CHECK_EQ(result.status, 3);
}

/* The flight is of a raw fiber, which the dropped one is on. */
static void leads_within(void *unused) { (void)leads(unused); }
static int resumes(void *unused) {
  struct coir_raw_fiber *raw;
  CHECK_EQ(coir_raw_fiber_create(&raw, 0), 0);
  (void)coir_raw_fiber_resume(raw, leads_within, unused);
  return 0;
}
static void so_they_are_of_one_within(void) {
  begin(resumes, "sleep");
  pthread_t thread = begin_thread(follows);
  drop();
  end_thread(thread);
}

/* ---- Systems that it was shutting down ------------------------------------------------------------------------- */

static struct coir_job_system *jobs;

static void is_long(struct coir_job *job, void *unused) {
  (void)job, (void)unused;
  atomic_store(&is_in, 1);
  while (!is_over) usleep(1000);
}
static int shuts_down(void *unused) {
  (void)unused;
  return coir_job_system_shutdown(jobs, COIR_NEVER);
}
static void *destroys(void *unused) {
  coir_job_system_destroy(jobs);
  atomic_store(&is_over, 2);
  return unused;
}

static void shut_down(bool is_given) {
  jobs = make_jobs((struct coir_job_config){.threads = 1});
  coir_counter_unref(coir_job_run(jobs, is_long, NULL));
  WAIT_FOR(is_in);
  begin(shuts_down, "blocking call");
  if (is_given) {
    halt();
    atomic_store(&is_over, 1);
    WAIT_FOR(one_is_woken());
  }
  drop();
  atomic_store(&is_over, 1);
  pthread_t thread = start_thread(destroys);
  WAIT_FOR(is_over == 2);
  end_thread(thread);
}
static void a_shutdown_goes_on_alone(void) { shut_down(false); }
static void a_shutdown_that_is_over_is_forgotten(void) { shut_down(true); }

/* ---- Frames ---------------------------------------------------------------------------------------------------- */

static struct coir_sem *_Atomic(lent);

static int lends(void *unused) {
  struct coir_sem mine;
  coir_sem_init(&mine, 0);
  atomic_store(&lent, &mine);
  (void)unused;
  return coir_sleep(COIR_SEC(1000));
}
static int borrows(void *unused) {
  (void)unused;
  WAIT_FOR(atomic_load(&lent));
  return coir_sem_acquire(atomic_load(&lent), 1, COIR_NEVER);
}
static bool all_borrow(void) {
  int lender;
  return wait_for("semaphore", &lender) == 8 && lender == 1;
}
static void frames_stay_until_all_are_out(void) {
  rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 9; i++)
    CHECK_EQ(coir_runtime_spawn(rt, i == 4 ? lends : borrows, NULL, NULL, NULL), 0);
  WAIT_FOR(all_borrow());
  drop();
}

/* ---- Who waits for whom ---------------------------------------------------------------------------------------- */

/* What has let it go may be gone when it is dropped: here who counts down is the last to use the counter. */
static struct coir_counter *mapped;

static int waits_for_mapped(void *unused) {
  (void)unused;
  return coir_counter_wait(mapped, COIR_NEVER);
}
static void what_let_it_go_is_not_touched(void) {
  mapped = mmap(NULL, sizeof *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(mapped != MAP_FAILED);
  coir_counter_init(mapped, 1);
  begin(waits_for_mapped, "counter");
  halt();
  CHECK(coir_counter_done(mapped));
  CHECK_EQ(munmap(mapped, sizeof *mapped), 0);
  drop();
}

/* A fiber calls a loop of other workers, who work on its frame, and one of those waits for the end of another fiber
 * that is to be dropped. Each of these two comes first once, if that goes by the order in which they were made. */
static struct coir_fiber *_Atomic(joined);

static void joins(size_t i, void *unused) {
  struct coir_result result;
  (void)i, (void)unused;
  WAIT_FOR(atomic_load(&joined));
  announce();
  CHECK_EQ(coir_join(atomic_load(&joined), &result, COIR_NEVER), 0);
  CHECK_EQ(result.status, -ECANCELED);
}
static int loops(void *unused) { return coir_parallel_for(jobs, 0, 1, joins, unused); }
static int sleeps(void *unused) {
  stays(unused);
  return 0;
}
static void joiners_are_told_in_time(void) {
  jobs = make_jobs((struct coir_job_config){.threads = 1});
  for (int i = 0; i < 2; i++) {
    struct coir_fiber *f;
    atomic_store(&newest, NULL);
    atomic_store(&joined, NULL);
    rt = make_runtime((struct coir_config){.workers = 1});
    CHECK_EQ(coir_runtime_start(rt), 0);
    if (i) CHECK_EQ(coir_runtime_spawn(rt, loops, NULL, NULL, NULL), 0);
    CHECK_EQ(coir_runtime_spawn(rt, sleeps, NULL, NULL, &f), 0);
    if (!i) CHECK_EQ(coir_runtime_spawn(rt, loops, NULL, NULL, NULL), 0);
    atomic_store(&joined, f);
    WAIT_FOR(newest_waits());
    drop();
  }
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(small_wishes_come_through),
                                     CASE(readers_come_through),
                                     CASE(permits_are_given_back),
                                     CASE(locks_are_given_back),
                                     CASE(a_mutex_goes_to_the_next),
                                     CASE(a_mutex_is_given_back),
                                     CASE(a_counter_keeps_no_mark),
                                     CASE(somebody_else_does_it),
                                     CASE(followers_are_told),
                                     CASE(so_they_are_of_one_within),
                                     CASE(a_shutdown_goes_on_alone),
                                     CASE(a_shutdown_that_is_over_is_forgotten),
                                     CASE(frames_stay_until_all_are_out),
                                     CASE(what_let_it_go_is_not_touched),
                                     CASE(joiners_are_told_in_time)};
  return RUN_CASES(argc, argv, cases);
}
