/* Handlers of signals, at any moment of threads that carry workers: they may call what docs/processes.md lists, and
 * whatever they interrupt goes on as if nothing had happened.
 *
 * Each thread of a worker gets a signal of its own again and again, by a timer that runs against whatever else has a
 * rhythm. Meanwhile fibers do of everything a little, and count what they pass on. */
#include "processes.h"

#include <sys/syscall.h>

#include "coir_job.h"

#define SIGNO SIGUSR2
#define EVERY_NS 70000
#define TIMERS_MAX 256
#define TEST_NS (IS_SANITIZED ? COIR_MS(1500) : COIR_MS(1000))
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* ---- What the handler looks at ----------------------------------------------------------------------------------- */

#define OF_EACH 3 /* fibers of most kinds */
static struct coir_chan *chan;
static _Atomic(struct coir_gen *) gen;
static struct coir_counter counter;
static struct coir_fiber_pool *fibers;
static struct coir_runtime *runtime;
static struct coir_job_system *jobs;
static _Atomic(uint64_t) handled, wrong;
static _Atomic(bool) is_closed; /* there is nothing to look at any more */
static _Atomic(int) inside;

/* All of the list. */
static bool looks_right(int64_t before) {
  struct coir_tuning tuning;
  coir_runtime_get_tuning(runtime, &tuning);
  bool chan_is_right = coir_chan_length(chan) <= coir_chan_capacity(chan) && !coir_chan_is_closed(chan);
  bool counter_is_right = coir_counter_value(&counter) <= 1 && coir_counter_failures(&counter) == 0;
  (void)coir_counter_is_complete(&counter);
  struct coir_gen *g = gen;
  bool gen_is_right = !g || (coir_gen_state(g) >= COIR_GEN_NEW && coir_gen_state(g) <= COIR_GEN_FINISHED);
  bool fibers_are_right = coir_fiber_pool_length(fibers) <= OF_EACH;
  (void)coir_fiber_pool_is_empty(fibers);
  bool rest_is_right = coir_job_system_workers(jobs) == 1 && tuning.steal == COIR_ON;
  bool time_is_right = coir_now() >= before && coir_after(COIR_MS(1)) > before;
  return chan_is_right && counter_is_right && gen_is_right && fibers_are_right && rest_is_right && time_is_right &&
         !strcmp(coir_version(), COIR_VERSION);
}

static void handler(int signo) {
  int saved = errno;
  (void)signo;
  errno = ENOTTY;
  atomic_fetch_add(&inside, 1);
  if (!is_closed && (!looks_right(coir_now()) || errno != ENOTTY)) atomic_fetch_add(&wrong, 1);
  atomic_fetch_sub(&inside, 1);
  atomic_fetch_add(&handled, 1);
  errno = saved;
}

/* ---- A signal for each thread ------------------------------------------------------------------------------------ */

static timer_t timers[TIMERS_MAX];
static _Atomic(int) timer_count;

/* on_thread: a thread may come here more than once. */
static void arm_thread(int worker, void *arg) {
  static __thread bool is_armed;
  (void)worker, (void)arg;
  int i = is_armed ? TIMERS_MAX : atomic_fetch_add(&timer_count, 1);
  if (i >= TIMERS_MAX) return;
  is_armed = true;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNO};
  event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
  struct itimerspec often = {.it_interval.tv_nsec = EVERY_NS + i, .it_value.tv_nsec = EVERY_NS};
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGNO);
  CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timers[i]), 0);
  CHECK_EQ(timer_settime(timers[i], 0, &often, NULL), 0);
  CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
}

/* ---- What is interrupted ----------------------------------------------------------------------------------------- */

static _Atomic(bool) is_over;
static _Atomic(uint64_t) sent, received;
static struct coir_mutex mutex;
static uint64_t under_mutex;
static _Atomic(uint64_t) ops;

static int sends(void *arg) {
  uint64_t n = 0;
  (void)arg;
  for (; !is_over; n++) CHECK_EQ(coir_chan_send(chan, &n, COIR_NEVER), 0);
  atomic_fetch_add(&sent, n);
  return 0;
}

static int receives(void *arg) {
  uint64_t value;
  (void)arg;
  for (int rc = 0; rc != -ETIMEDOUT || !is_over;) {
    rc = coir_chan_recv(chan, &value, coir_after(COIR_MS(50)));
    if (rc == 0) atomic_fetch_add(&received, 1);
  }
  return 0;
}

static int yields_values(void *arg) {
  for (intptr_t i = 0; coir_gen_yield((void *)i, NULL) == 0; i++) {}
  return (int)(intptr_t)arg;
}

static int resumes(void *arg) {
  void *value;
  (void)arg;
  for (intptr_t i = 0; !is_over; i++) {
    CHECK_EQ(coir_gen_resume(gen, NULL, &value), 0);
    CHECK_EQ((intptr_t)value, i);
    if (i % 64 == 0) coir_yield();
  }
  return 0;
}

static int ends(void *arg) { return (int)(intptr_t)arg; }
static void ends_block(void *arg) { (void)arg; }
static void touches(void *arg) { ++*(int *)arg; }

static int of_everything(void *arg) {
  uint64_t rng = rng_seed((uint64_t)(intptr_t)arg), done = 0;
  for (; !is_over; done++) {
    int turns = 0;
    CHECK_EQ(coir_mutex_lock(&mutex, COIR_NEVER), 0);
    under_mutex++;
    coir_mutex_unlock(&mutex);
    if (rng_next(&rng) % 8 == 0) CHECK_EQ(join(spawn(ends, (void *)5)), 5);
    if (rng_next(&rng) % 8 == 0) (void)coir_sleep(COIR_US(rng_next(&rng) % 50));
    if (rng_next(&rng) % 64 == 0) usleep(100);
    if (rng_next(&rng) % 32 == 0) (void)coir_block(ends_block, NULL);
    struct coir_raw_fiber *raw = coir_fiber_pool_get(fibers);
    CHECK_EQ(coir_raw_fiber_resume(raw, touches, &turns), COIR_RAW_COMPLETE);
    coir_fiber_pool_put(fibers, raw);
    CHECK_EQ(turns, 1);
    if (rng_next(&rng) % 8) coir_yield();
  }
  atomic_fetch_add(&ops, done);
  return 0;
}

static int all(void *arg) {
  static const coir_fn kinds[] = {sends, receives, of_everything};
  struct coir_fiber *f[3 * OF_EACH + 1];
  int n = 0;
  struct coir_gen *created;
  CHECK_EQ(coir_gen_create(&created, yields_values, NULL, NULL), 0);
  gen = created;
  for (int i = 0; i < 3 * OF_EACH; i++) f[n++] = spawn(kinds[i % 3], (void *)(intptr_t)i);
  f[n++] = spawn(resumes, arg);
  CHECK_EQ(coir_sleep_until(*(int64_t *)arg), 0);
  is_over = true;
  for (int i = 0; i < n; i++) CHECK_EQ(join(f[i]), 0);
  return 0;
}

int main(void) {
  struct coir_fiber *f;
  alarm(100);
  signal(SIGNO, handler);
  CHECK_EQ(coir_job_system_create(&jobs, &(struct coir_job_config){.threads = 1}), 0);
  CHECK(chan = coir_chan_create(sizeof(uint64_t), 2));
  CHECK_EQ(coir_fiber_pool_create(&fibers, 0, 0), 0);
  coir_counter_init(&counter, 1);
  runtime = make_runtime((struct coir_config){.on_thread = arm_thread, .blocked_us = 100});
  CHECK_EQ(coir_runtime_start(runtime), 0);
  int64_t end = coir_after(TEST_NS);
  CHECK_EQ(coir_runtime_spawn(runtime, all, &end, NULL, &f), 0);
  CHECK_EQ(join(f), 0);
  for (int i = 0; i < timer_count && i < TIMERS_MAX; i++) CHECK_EQ(timer_delete(timers[i]), 0);
  is_closed = true; /* signals may be on their way */
  WAIT_FOR(inside == 0);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  CHECK_EQ(coir_runtime_stop(runtime, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(runtime), 0);
  coir_fiber_pool_destroy(fibers);
  coir_chan_unref(chan);
  coir_job_system_destroy(jobs);
  printf("%llu signals; %llu values, %llu rounds\n", (unsigned long long)handled, (unsigned long long)received,
         (unsigned long long)ops);
  CHECK_EQ(wrong, 0);
  CHECK_EQ(received, sent);
  CHECK_EQ(under_mutex, ops);
  CHECK(handled >= (IS_TSAN ? 1 : 500)); /* TSan holds most of them back */
  return 0;
}
