/* A fork while other threads were in the middle of something that belongs to the process, and not to a runtime: in the
 * child it stayed as it was for ever. Stacks of raw fibers, and new regions of any stacks, were behind locks that
 * nobody was left to give back. Numbers of descriptors on which another thread was in a call, or which it was about to
 * close, could never be closed, or used, again. */
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

/* The first use of all is under way: in many processes, for it is brief. */
static void *uses_default(void *arg) {
  CHECK(coir_runtime_default());
  return arg;
}

static void forks_at_first_use(void) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, uses_default, NULL), 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(10);
    uses_default(NULL);
    _exit(0);
  }
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void first_use(void) {
  for (int i = 0; i < FORKS; i++) {
    int status = 0;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      forks_at_first_use();
      _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
  }
}

static void stacks_of_raw_fibers(void) { forks_while(make_raw); }
static void descriptors(void) { forks_while(read_nothing); }
static void files(void) { forks_while(read_file); }
static void runtimes(void) { forks_while(make_runtime_of_one); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(stacks_of_raw_fibers), CASE(runtimes), CASE(descriptors), CASE(files), CASE(first_use),
  };
  if (IS_SANITIZED) return 77; /* their own locks do not survive a fork */
  return run_cases(cases, sizeof cases / sizeof *cases, argc, argv);
}
