/* file_randread: 16 fibers, each of which reads blocks of 4 KiB from random places of one file of 256 MiB in a loop: so
 * 16 reads are in flight. Time per read, in all.
 *
 * The main figure is with O_DIRECT: every read waits for the disk. "cached": the page cache holds the whole file. The
 * file is made anew in $TMPDIR (/var/tmp), and has no name while it is used. Each block holds its number, which is
 * checked. Where the file system does not know O_DIRECT there is no main figure. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* O_DIRECT */
#endif
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"
#include "coir_io.h"

#define READERS 16
#define BLOCK 4096
#define WORDS (BLOCK / (long)sizeof(long))
#define BLOCKS (65536L)
#define DIRECT_READS 64000
#define CACHED_READS 640000

struct reader {
  int fd;
  long reads;
  uint64_t rng;
  long *block; /* aligned, as O_DIRECT needs it */
};

static int reader(void *arg) {
  struct reader *r = arg;
  for (long i = 0; i < r->reads; i++) {
    r->rng ^= r->rng << 13, r->rng ^= r->rng >> 7, r->rng ^= r->rng << 17;
    long number = (long)(r->rng % BLOCKS);
    ssize_t n = coir_pread(r->fd, r->block, BLOCK, number * BLOCK, COIR_NEVER);
    bench_check("coir_pread", (int)n);
    bench_equal("bytes read", n, BLOCK);
    bench_equal("the first word of the block", r->block[0], number);
    bench_equal("the last word of the block", r->block[WORDS - 1], number);
  }
  return 0;
}

/* Time per read. */
static double measure(int fd, long reads) {
  static long blocks[READERS][WORDS] __attribute__((aligned(BLOCK)));
  struct reader readers[READERS];
  struct coir_fiber *fibers[READERS];
  int64_t start = coir_now();
  for (int i = 0; i < READERS; i++) {
    uint64_t rng = (uint64_t)start * (2 * (uint64_t)i + 1) | 1;
    readers[i] = (struct reader){.fd = fd, .reads = reads / READERS, .rng = rng, .block = blocks[i]};
    fibers[i] = bench_spawn(reader, &readers[i], NULL);
  }
  for (int i = 0; i < READERS; i++) bench_join(fibers[i]);
  return (double)(coir_now() - start) / (double)(reads / READERS * READERS);
}

/* The file, and the same with O_DIRECT, which may be negative. */
static void make_file(int *cached, int *direct) {
  char name[1024], path[64];
  const char *folder = getenv("TMPDIR");
  snprintf(name, sizeof name, "%s/coir-bench-%d", folder ? folder : "/var/tmp", (int)getpid());
  *cached = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (*cached < 0 || unlink(name) != 0) bench_die("%s: %s", name, strerror(errno));
  for (long number = 0; number < BLOCKS; number++) {
    long words[WORDS];
    for (long i = 0; i < WORDS; i++) words[i] = number;
    if (write(*cached, words, BLOCK) != BLOCK) bench_die("%s: %s", name, strerror(errno));
  }
  if (fsync(*cached) != 0) bench_die("%s: %s", name, strerror(errno));
  snprintf(path, sizeof path, "/proc/self/fd/%d", *cached);
  *direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

static void run(const struct bench *b, double *values) {
  static int cached = -1, direct = -1;
  if (cached < 0) make_file(&cached, &direct);
  values[0] = direct < 0 ? NAN : measure(direct, bench_count(b, DIRECT_READS));
  values[1] = measure(cached, bench_count(b, CACHED_READS));
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "file_randread", .metrics = {{NULL, "ns", "lower"}, {"cached", "ns", "lower"}}, .run = run};
  return bench_main(argc, argv, &b);
}
