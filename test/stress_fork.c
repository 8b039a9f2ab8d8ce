/* Forks, by a plain thread and by fibers, at any moment of everything that Coir does: the child, which has one thread
 * and nothing of the parent's runtimes, can use the library anew, whoever was inside it; and the parent goes on.
 *
 * usage: stress_fork [seconds] [seed] */
#include "processes.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "coir_io.h"
#include "coir_job.h"

#define CHILD_SECONDS 20

static _Atomic(bool) is_over;
static _Atomic(uint64_t) seed, rounds_done, forks;
static struct coir_job_system *jobs;

/* ---- A little of everything, by parent and child ---------------------------------------------------------------- */

static int status_of(void *arg) { return (int)(intptr_t)arg; }
static void touches(void *arg) { ++*(int *)arg; }
static void nothing(void *arg) { (void)arg; }
static int yields_one(void *arg) { return coir_gen_yield(arg, NULL); }
static int counts_one(void *arg) { return atomic_fetch_add((_Atomic(int) *)arg, 1), 0; }
static int waits(void *arg) { return coir_sleep(COIR_SEC(1000)) == -ECANCELED ? 0 : *(int *)arg; }
static int sends(void *chan) { return coir_chan_send(chan, &(int){5}, COIR_NEVER); }

static void use_channel(void) {
  struct coir_chan *chan = coir_chan_create(sizeof(int), 0);
  int value = 0;
  CHECK(chan);
  struct coir_fiber *f = spawn(sends, chan);
  CHECK_EQ(coir_chan_recv(chan, &value, COIR_NEVER), 0);
  CHECK_EQ(value, 5);
  CHECK_EQ(join(f), 0);
  coir_chan_unref(chan);
}

static void use_raw(void) {
  struct coir_raw_fiber *raw;
  int turns = 0;
  CHECK_EQ(coir_raw_fiber_create(&raw, 0), 0);
  CHECK_EQ(coir_raw_fiber_resume(raw, touches, &turns), COIR_RAW_COMPLETE);
  coir_raw_fiber_destroy(raw);
  CHECK_EQ(turns, 1);
}

static void use_generator(void) {
  struct coir_gen *gen;
  void *value;
  CHECK_EQ(coir_gen_create(&gen, yields_one, &gen, NULL), 0);
  CHECK_EQ(coir_gen_resume(gen, NULL, &value), 0);
  CHECK(value == &gen);
  CHECK_EQ(coir_gen_destroy(gen), 0);
}

static void use_timer(void) {
  struct coir_timer *timer;
  _Atomic(int) fired = 0;
  CHECK_EQ(coir_timer_create(&timer, counts_one, &fired), 0);
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_US(10)), 0), 0);
  WAIT_FOR(fired);
  coir_timer_destroy(timer);
}

static void use_time(void) {
  COIR_CHAN(int64_t) chan = coir_timer_chan(coir_after(COIR_US(10)));
  int64_t now;
  CHECK(chan);
  CHECK_EQ(COIR_RECV(chan, &now, COIR_NEVER), 0);
  coir_chan_unref(COIR_CHAN_RAW(chan));
}

static void use_scope(void) {
  struct coir_scope *scope;
  CHECK_EQ(coir_scope_open(&scope, 0, coir_after(COIR_US(50))), 0);
  int rc = coir_scope_spawn(scope, waits, &(int){1}, NULL, NULL);
  CHECK(rc == 0 || rc == -ECANCELED);
  CHECK_EQ(coir_scope_close(scope), -ETIMEDOUT);
}

static void use_descriptors(void) {
  char bytes[4] = "";
  int fds[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  CHECK_EQ(coir_read(fds[0], bytes, 1, coir_after(COIR_US(50))), -ETIMEDOUT);
  CHECK_EQ(coir_write(fds[1], "yes", 4, COIR_NEVER), 4);
  CHECK_EQ(coir_read_full(fds[0], bytes, 4, COIR_NEVER), 4);
  CHECK_EQ(strcmp(bytes, "yes"), 0);
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
}

static void use_file(void) {
  char bytes[512];
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(coir_pread(fd, bytes, sizeof bytes, 64, COIR_NEVER), sizeof bytes);
  CHECK_EQ(coir_close(fd), 0);
}

static void use_signals(void) {
  struct coir_signals *s;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  CHECK_EQ(coir_signals_open(&s, &set), 0);
  coir_signals_close(s);
}

static void use_locals(void) {
  int key = coir_key_create(NULL);
  CHECK(key >= 0);
  CHECK_EQ(coir_local_set(key, &key), 0);
  CHECK(coir_local_get(key) == &key);
  CHECK_EQ(coir_key_delete(key), 0);
}

static void use_block(void) {
  int rc = coir_block(nothing, NULL);
  CHECK(rc == 0 || rc == -EAGAIN);
}

static void use_spawn(void) { CHECK_EQ(join(spawn(status_of, (void *)3)), 3); }
static void use_loop(void) { CHECK_EQ(coir_fork2(nothing, NULL, nothing, NULL), 0); }
static void (*const uses[])(void) = {use_channel,     use_raw,  use_generator, use_timer,  use_scope,
                                     use_descriptors, use_file, use_signals,   use_locals, use_block,
                                     use_spawn,       use_loop, use_time};
#define USES (sizeof uses / sizeof *uses)

/* ---- The parent -------------------------------------------------------------------------------------------------- */

static int uses_all(void *arg) {
  uint64_t rng = rng_seed(atomic_fetch_add(&seed, 1));
  (void)arg;
  for (; !is_over; atomic_fetch_add(&rounds_done, 1)) {
    uses[rng_next(&rng) % USES]();
    coir_yield();
  }
  return 0;
}

static void counts_job(struct coir_job *job, void *count) {
  (void)job;
  atomic_fetch_add((_Atomic(int) *)count, 1);
}

/* From plain threads: wheels, pools and records of the process. */
static void *uses_as_thread(void *arg) {
  while (!is_over) {
    _Atomic(int) ran = 0;
    struct coir_counter *done = coir_job_run(jobs, counts_job, &ran);
    CHECK(done);
    CHECK_EQ(coir_counter_wait(done, COIR_NEVER), 0);
    coir_counter_unref(done);
    CHECK_EQ(ran, 1);
    use_time();
    use_locals();
  }
  return arg;
}

/* ---- The child --------------------------------------------------------------------------------------------------- */

static int uses_each(void *arg) {
  for (size_t i = 0; i < USES; i++) uses[i]();
  return (int)(intptr_t)arg;
}

static void in_child(void) {
  alarm(CHILD_SECONDS);
  CHECK_EQ(coir_run(uses_each, (void *)3), 3);
  CHECK_EQ(run(uses_each, (void *)4), 4);
  _exit(0);
}

static void fork_once(void) {
  int status = 0;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) in_child();
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  if (status) fprintf(stderr, "a child has ended with %#x\n", (unsigned)status);
  CHECK_EQ(status, 0);
  atomic_fetch_add(&forks, 1);
}

static int forks_on_fiber(void *arg) {
  (void)arg;
  for (; !is_over; (void)coir_sleep(COIR_MS(1))) fork_once();
  return 0;
}

static void *forks_on_thread(void *arg) {
  for (; !is_over; usleep(300)) fork_once();
  return arg;
}

#define FIBERS 12
static int all(void *arg) {
  struct coir_fiber *f[FIBERS + 1];
  pthread_t threads[3];
  CHECK_EQ(pthread_create(&threads[0], NULL, forks_on_thread, NULL), 0);
  for (int i = 1; i < 3; i++) CHECK_EQ(pthread_create(&threads[i], NULL, uses_as_thread, NULL), 0);
  for (int i = 0; i < FIBERS; i++) f[i] = spawn(uses_all, NULL);
  f[FIBERS] = spawn(forks_on_fiber, NULL);
  CHECK_EQ(coir_sleep(*(int64_t *)arg), 0);
  is_over = true;
  for (int i = 0; i <= FIBERS; i++) CHECK_EQ(join(f[i]), 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  return 0;
}

int main(int argc, char **argv) {
  int64_t ns = COIR_SEC(argc > 1 ? atoi(argv[1]) : 2);
  if (IS_SANITIZED) return 77; /* their own threads and locks do not survive a fork */
  seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
  printf("seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  CHECK_EQ(coir_job_system_create(&jobs, &(struct coir_job_config){.threads = 2}), 0);
  CHECK_EQ(run(all, &ns), 0);
  coir_job_system_destroy(jobs);
  printf("%llu forks, %llu rounds\n", (unsigned long long)forks, (unsigned long long)rounds_done);
  CHECK(forks >= 2 && rounds_done > 0);
  return 0;
}
