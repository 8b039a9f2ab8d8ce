/* A worker that had taken a job out of a deque, and got no memory for a fiber to run it, put the job back and went to
 * sleep, since it looks at everybody's queues but its own: for good, with jobs in its deque, also when memory was
 * there again. */
#include "jobs.h"

#include <sys/mman.h>

#define JOBS (IS_TSAN ? 1000 : 8000)
#define ENOUGH (IS_TSAN ? 200 : 1000) /* of them begin before memory is short */

static _Atomic(bool) is_short;
static tally refused, begun;
static struct coir_counter *gate;

/* The linker sends the library's calls here (--wrap). Descriptors come from mappings that are to be cut to their
 * alignment: twice a power of two, less a page. Those of stacks are not: a fiber without a stack waits otherwise. */
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset) {
  size_t whole = bytes + (size_t)sysconf(_SC_PAGESIZE);
  if (fd >= 0 || whole & (whole - 1) || !atomic_load(&is_short)) return __real_mmap(at, bytes, prot, flags, fd, offset);
  atomic_fetch_add(&refused, 1);
  errno = ENOMEM;
  return MAP_FAILED;
}

static void waits(struct coir_job *job, void *arg) {
  (void)arg;
  if (atomic_fetch_add(&begun, 1) == ENOUGH) atomic_store(&is_short, true);
  CHECK_EQ(coir_job_wait(job, gate), 0);
}

static void spawns_them(struct coir_job *job, void *all) {
  for (int i = 0, rc; i < JOBS; i += rc == 0) {
    rc = coir_job_spawn_with(job, all, waits, NULL);
    CHECK(rc == 0 || rc == -ENOMEM);
    if (rc) CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  }
}

static void they_begin_when_there_is_memory_again(void) {
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.stack_bytes = 16 << 10, .monitor = COIR_OFF});
  struct coir_counter *all = coir_counter_create(0);
  gate = coir_counter_create(1);
  struct coir_counter *spawner = coir_job_run(jobs, spawns_them, all);
  WAIT_FOR(atomic_load(&refused));
  CHECK_EQ(coir_sleep(COIR_MS(100)), 0); /* until who can sleep sleeps */
  CHECK(begun < JOBS);
  atomic_store(&is_short, false);
  WAIT_FOR(atomic_load(&begun) == JOBS); /* though nobody wakes anybody */
  coir_counter_done(gate);
  finish(spawner);
  finish(all);
  coir_counter_unref(gate);
  end_jobs(jobs, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(they_begin_when_there_is_memory_again)};
  return RUN_CASES(argc, argv, cases);
}
