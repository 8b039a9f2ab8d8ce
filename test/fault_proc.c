/* The n-th allocation fails, for n = 1, 2, ... while signals, a child process and a name are dealt with: those of the
 * runtime, by its hook, and those of the library itself (--wrap). Each failure is told by a clear code; no descriptor,
 * no child and no memory stays behind. */
#include "harness.h"

#include <netdb.h>
#include <signal.h>

#include "coir_io.h"

static _Atomic(long) blocks;
static _Atomic(int) countdown, failed;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

static bool fails_now(void) {
  if (atomic_fetch_sub(&countdown, 1) != 1) return false;
  atomic_fetch_add(&failed, 1);
  return true;
}

void *__wrap_malloc(size_t bytes) { return fails_now() ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails_now() ? NULL : __real_calloc(count, bytes); }

static void *hook_alloc(size_t bytes, void *arg) {
  (void)arg;
  if (fails_now()) return NULL;
  atomic_fetch_add(&blocks, 1);
  return __real_malloc(bytes);
}

static void hook_free(void *memory, size_t bytes, void *arg) {
  (void)arg;
  (void)bytes;
  atomic_fetch_sub(&blocks, 1);
  free(memory);
}

static bool is_shortage(int rc) { return rc == -ENOMEM || rc == -EAGAIN; }

static int signals(void) {
  struct coir_signals *s;
  struct coir_siginfo info;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, NULL); /* ThreadSanitizer holds it back where it is not */
  int rc = coir_signals_open(&s, &set);
  CHECK((rc == 0) == (s != NULL));
  if (rc) return rc;
  kill(getpid(), SIGUSR1);
  CHECK_EQ(COIR_RECV(coir_signals_chan(s), &info, coir_after(COIR_SEC(20))), 0);
  coir_signals_close(s);
  return 0;
}

static int process(void) {
  const struct coir_stdio pipe_end = {COIR_STDIO_PIPE, 0};
  struct coir_process_options options = {.path = "true", .io = {pipe_end, pipe_end, pipe_end}};
  struct coir_process *p;
  int rc = coir_process_spawn(&p, &options), status = -1;
  CHECK((rc == 0) == (p != NULL));
  if (rc) return rc;
  CHECK_EQ(coir_process_wait(p, &status, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(status, 0);
  coir_process_destroy(p);
  return 0;
}

static int name(void) {
  const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  struct addrinfo *list;
  int rc = coir_getaddrinfo("localhost", "80", &hints, &list, coir_after(COIR_SEC(20)));
  CHECK((rc == 0) == (list != NULL));
  if (rc == 0) freeaddrinfo(list);
  return rc;
}

/* Each is tried until it succeeds, which is the second time at the latest. */
static int try_all(void *n) {
  static int (*const what[])(void) = {signals, process, name};
  int fds = fd_count(), begun = failed;
  countdown = (int)(intptr_t)n;
  for (size_t i = 0; i < sizeof what / sizeof *what; i++)
    for (int rc; (rc = what[i]()) != 0;) CHECK(is_shortage(rc) && failed > begun);
  bool spared = countdown > 0;
  countdown = 0;
  CHECK_EQ(fd_count(), fds);
  CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
  return spared;
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  struct coir_config config = {.size = sizeof config, .workers = 2, .alloc = hook_alloc, .free = hook_free};
  bool spared = false;
  int n = 0;
  while (!spared) {
    n++;
    countdown = 0;
    spared = run_with(config, try_all, (void *)(intptr_t)n);
    CHECK_EQ(blocks, 0);
  }
  CHECK(n > 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
