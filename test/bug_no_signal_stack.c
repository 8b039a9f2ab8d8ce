/* A thread that carries workers needs an alternate signal stack: without one an overflow of a fiber's stack is not
 * reported, and the signal that pauses a fiber runs on that fiber's own stack, which may be too small for it. Without
 * memory for one the thread went on as if it had one. */
#include "harness.h"

#include <signal.h>
#include <sys/mman.h>

static _Atomic(size_t) signal_stack_bytes; /* as it was set up last */
static _Atomic(int) left = INT32_MAX;      /* mappings of that size that succeed */
static _Atomic(int) set_up;

/* The linker sends the library's calls here (--wrap). */
int __real_sigaltstack(const stack_t *set, stack_t *old);
int __wrap_sigaltstack(const stack_t *set, stack_t *old);
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);

int __wrap_sigaltstack(const stack_t *set, stack_t *old) {
  if (set && !(set->ss_flags & SS_DISABLE)) {
    signal_stack_bytes = set->ss_size;
    atomic_fetch_add(&set_up, 1);
  }
  return __real_sigaltstack(set, old);
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset) {
  if (bytes == signal_stack_bytes && atomic_fetch_sub(&left, 1) <= 0) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return __real_mmap(at, bytes, prot, flags, fd, offset);
}

static int nothing(void *arg) {
  (void)arg;
  return 7;
}

static int blocks(void *arg) {
  (void)arg;
  left = 0;
  int rc = coir_block_enter(); /* needs another thread */
  left = INT32_MAX;
  if (rc == 0) coir_block_leave();
  return rc;
}

static void a_thread_that_lacks_one_is_not_started(void **state) {
  (void)state;
  const stack_t none = {.ss_flags = SS_DISABLE};
  CHECK_EQ(__real_sigaltstack(&none, NULL), 0); /* a sanitizer's */
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 3, .monitor = COIR_OFF});
  int status = 0;
  CHECK_EQ(coir_runtime_run(rt, nothing, NULL, &status), 0);
  CHECK(set_up >= 1);
  for (int has = 0; has < 3; has++) {
    left = has;
    CHECK_EQ(coir_runtime_run(rt, nothing, NULL, &status), -ENOMEM);
    left = has;
    CHECK_EQ(coir_runtime_start(rt), -ENOMEM);
    left = INT32_MAX;
  }
  CHECK_EQ(coir_runtime_run(rt, blocks, NULL, &status), 0);
  CHECK_EQ(status, -EAGAIN);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_thread_that_lacks_one_is_not_started)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
