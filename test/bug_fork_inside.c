/* A fork while other threads were in the middle of something that belongs to the process, and not to a runtime: in the
 * child it stayed as it was for ever. Stacks of raw fibers, and new regions of any stacks, were behind locks that
 * nobody was left to give back. Numbers of descriptors on which another thread was in a call, or which it was about to
 * close, could never be closed, or used, again. Where that was the first use of all, even the handlers of forks were
 * not there yet. */
#include "processes.h"

#include <fcntl.h>

#include "coir_io.h"
#include "coir_job.h"

#define FORKS 200
#define THREADS 3

static _Atomic(bool) is_over;

static void make_raw(void) {
  struct coir_raw_fiber *raw;
  CHECK_EQ(coir_raw_fiber_create(&raw, 0), 0);
  coir_raw_fiber_destroy(raw);
}

static void make_runtime_of_one(void) {
  CHECK_EQ(coir_runtime_destroy(make_runtime((struct coir_config){.workers = 1})), 0);
}

static void read_nothing(void) {
  int fds[2];
  char byte;
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(coir_adopt(fds[0]), 0);
  (void)coir_read(fds[0], &byte, 1, coir_after(COIR_US(1)));
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
}

static void read_file(void) {
  char bytes[64];
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(coir_pread(fd, bytes, sizeof bytes, 0, COIR_NEVER), sizeof bytes);
  CHECK_EQ(coir_close(fd), 0);
}

/* ---- The first use --------------------------------------------------------------------------------------------- */

/* Who uses something first stops for a moment where it asks for memory, or a thread, for the n-th time: then there is a
 * fork. */
static __thread bool is_first;
static int stops_at, asked;
static _Atomic(bool) has_stopped, has_forked, is_done;

void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

static void maybe_stop(void) {
  if (!is_first || ++asked != stops_at) return;
  has_stopped = true;
  for (int i = 0; i < 20 && !has_forked; i++) usleep(500); /* a fork may have to wait for what is held here */
}

void *__wrap_calloc(size_t n, size_t bytes) {
  maybe_stop();
  return __real_calloc(n, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
  maybe_stop();
  return __real_aligned_alloc(alignment, bytes);
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset) {
  maybe_stop();
  return __real_mmap(at, bytes, prot, flags, fd, offset);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
  maybe_stop();
  return __real_pthread_create(thread, attr, fn, arg);
}

static void *uses_it_first(void *use) {
  is_first = true;
  ((void (*)(void))use)();
  is_done = true;
  return NULL;
}

/* In a process that has used nothing yet. Exits with 1 when there is no n-th time. */
static void forks_at_first_use(void (*use)(void), int n) {
  pthread_t thread;
  int status = 0;
  stops_at = n;
  CHECK_EQ(pthread_create(&thread, NULL, uses_it_first, (void *)use), 0);
  while (!has_stopped && !is_done) usleep(100);
  if (!has_stopped) _exit(1);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(10);
    use();
    _exit(0);
  }
  has_forked = true;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  _exit(0);
}

static void first_use_of(void (*use)(void)) {
  for (int n = 1, status = 0; !status; n++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) forks_at_first_use(use, n);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    if (status) CHECK(n > 1);
  }
}

static void wait_for_nothing(void) { /* where nobody knows whose the descriptor is */
  int fds[2];
  char byte;
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(coir_read(fds[0], &byte, 1, coir_after(COIR_MS(2))), -ETIMEDOUT);
  CHECK(close(fds[0]) == 0 && close(fds[1]) == 0);
}

static void use_default(void) { CHECK(coir_runtime_default()); }

static void run_nothing(void) {
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

/* ---- Any use ---------------------------------------------------------------------------------------------------- */

static void *uses_it(void *use) {
  while (!is_over) ((void (*)(void))use)();
  return NULL;
}

/* Others use it again and again; each child does so, too. */
static void forks_while(void (*use)(void)) {
  pthread_t threads[THREADS];
  use();
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, uses_it, (void *)use), 0);
  for (int i = 0; i < FORKS; i++) {
    int status = 0;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      alarm(20);
      use();
      _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
  }
  is_over = true;
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static void stacks_of_raw_fibers(void) { forks_while(make_raw); }
static void descriptors(void) { forks_while(read_nothing); }
static void files(void) { forks_while(read_file); }
static void runtimes(void) { forks_while(make_runtime_of_one); }
static void first_default(void) { first_use_of(use_default); }
static void first_raw_fiber(void) { first_use_of(make_raw); }
static void first_wait(void) { first_use_of(wait_for_nothing); }
static void first_run(void) { first_use_of(run_nothing); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(stacks_of_raw_fibers), CASE(runtimes),        CASE(descriptors), CASE(files),
      CASE(first_default),        CASE(first_raw_fiber), CASE(first_wait),  CASE(first_run),
  };
  if (IS_SANITIZED) return 77; /* their own locks do not survive a fork */
  return run_cases(cases, sizeof cases / sizeof *cases, argc, argv);
}
