/* file_randread: what bench/b_file_randread.c measures, with pread on 16 threads, on so many CPUs. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

#include "../frame.h"

#define READERS 16
#define BLOCK 4096
#define WORDS (BLOCK / sizeof(uint64_t))
#define BLOCKS UINT64_C(65536)
#define DIRECT_READS 64000
#define CACHED_READS 640000

struct reader {
  int fd;
  long reads;
  uint64_t rng, *block;
  pthread_t thread;
};

static void *read_blocks(void *arg) {
  struct reader *r = arg;
  for (long i = 0; i < r->reads; i++) {
    r->rng ^= r->rng << 13, r->rng ^= r->rng >> 7, r->rng ^= r->rng << 17;
    uint64_t number = r->rng % BLOCKS;
    peer_check("bytes read", (uint64_t)pread(r->fd, r->block, BLOCK, (off_t)(number * BLOCK)), BLOCK);
    peer_check("the first word of the block", r->block[0], number);
    peer_check("the last word of the block", r->block[WORDS - 1], number);
  }
  return NULL;
}

static double measure(int fd, long reads) {
  static uint64_t blocks[READERS][WORDS] __attribute__((aligned(BLOCK)));
  struct reader readers[READERS];
  int64_t start = peer_now();
  for (int i = 0; i < READERS; i++) {
    uint64_t rng = (uint64_t)start * (2 * (uint64_t)i + 1) | 1;
    readers[i] = (struct reader){.fd = fd, .reads = reads / READERS, .rng = rng, .block = blocks[i]};
    if (pthread_create(&readers[i].thread, NULL, read_blocks, &readers[i]) != 0) peer_die("pthread_create");
  }
  for (int i = 0; i < READERS; i++) pthread_join(readers[i].thread, NULL);
  return peer_each(start, reads / READERS * READERS);
}

/* The file, and the same with O_DIRECT, which may be negative. */
static void make_file(int *cached, int *direct) {
  char name[1024], path[64];
  const char *folder = getenv("TMPDIR");
  snprintf(name, sizeof name, "%s/coir-bench-%d", folder ? folder : "/var/tmp", (int)getpid());
  *cached = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (*cached < 0 || unlink(name) != 0) peer_die(name);
  for (uint64_t number = 0; number < BLOCKS; number++) {
    uint64_t words[WORDS];
    for (size_t i = 0; i < WORDS; i++) words[i] = number;
    if (write(*cached, words, BLOCK) != BLOCK) peer_die(name);
  }
  if (fsync(*cached) != 0) peer_die(name);
  snprintf(path, sizeof path, "/proc/self/fd/%d", *cached);
  *direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

/* The threads run on the first `count` of the CPUs that we may use. */
static void use_cpus(int count) {
  cpu_set_t all, some;
  CPU_ZERO(&some);
  if (sched_getaffinity(0, sizeof all, &all) != 0) peer_die("sched_getaffinity");
  for (int cpu = 0; cpu < CPU_SETSIZE && count > 0; cpu++) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_SET(cpu, &some);
    count--;
  }
  if (sched_setaffinity(0, sizeof some, &some) != 0) peer_die("sched_setaffinity");
}

static void run(const struct peer *peer, double *values) {
  static int cached = -1, direct = -1;
  if (cached < 0) {
    make_file(&cached, &direct);
    use_cpus(peer->workers);
  }
  values[0] = direct < 0 ? NAN : measure(direct, peer_count(peer, DIRECT_READS));
  values[1] = measure(cached, peer_count(peer, CACHED_READS));
}

int main(int argc, char **argv) {
  struct peer peer = {
      .impl = "threads", .question = "file_randread", .metrics = {{"", "ns"}, {"cached", "ns"}}, .run = run};
  return peer_main(argc, argv, &peer);
}
