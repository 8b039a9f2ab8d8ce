/* COIR_STOP_ABANDON dropped fibers whose read of a file was running on a thread of the pool. That thread went on in the
 * fiber's frame, on a stack that was another's by then, or unmapped: the process aborted or crashed. Such a call is
 * waited for. */
#include "harness.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "coir_io.h"

#define BLOCK_BYTES (2 << 20)
#define BLOCKS (IS_SANITIZED ? 50 : 1000)

static char block[BLOCK_BYTES];
static char last; /* the last byte of the file, read last of all */
static int file;
static _Atomic(int) returned;

/* One call that takes long and needs no memory: a file with nothing in it, read into the same block again and again. */
static int reads(void *arg) {
  (void)arg;
  struct iovec iov[1001];
  for (int i = 0; i < BLOCKS; i++) iov[i] = (struct iovec){.iov_base = block, .iov_len = sizeof block};
  iov[BLOCKS] = (struct iovec){.iov_base = &last, .iov_len = 1};
  CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
  CHECK_EQ(coir_readv(file, iov, BLOCKS + 1, COIR_NEVER), (ssize_t)BLOCKS * BLOCK_BYTES + 1);
  atomic_fetch_add(&returned, 1);
  return 0;
}

static int yields(void *arg) {
  (void)arg;
  volatile char frame[8192]; /* over what a dropped fiber left on this stack */
  for (size_t i = 0; i < sizeof frame; i++) frame[i] = (char)0x5a;
  coir_yield();
  return frame[0];
}

static bool is_reading(struct coir_runtime *rt) {
  struct coir_fiber_info info;
  return coir_runtime_list(rt, &info, 1) == 1 && info.state == COIR_FIBER_WAITING;
}

static void a_call_on_the_pool_is_waited_for(void **state) {
  (void)state;
  file = memfd_create("bug_drop_shielded", MFD_CLOEXEC);
  CHECK(file >= 0);
  CHECK_EQ(pwrite(file, "x", 1, (off_t)BLOCKS * BLOCK_BYTES), 1);
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 2});
  for (int i = 0; i < 2; i++) {
    last = 0;
    atomic_store(&returned, 0);
    CHECK_EQ(coir_runtime_start(rt), 0);
    CHECK_EQ(coir_runtime_spawn(rt, reads, NULL, NULL, NULL), 0);
    WAIT_FOR(is_reading(rt) || atomic_load(&returned));
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
    CHECK_EQ(last, 'x'); /* or else the pool is at it still */
    CHECK_EQ(coir_runtime_list(rt, NULL, 0), 0);
    CHECK_EQ(coir_runtime_start(rt), 0);
    for (int k = 0; k < 10; k++) CHECK_EQ(coir_runtime_spawn(rt, yields, NULL, NULL, NULL), 0);
    CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  close(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_call_on_the_pool_is_waited_for)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
