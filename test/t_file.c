/* Reading and writing files: from the page cache, by io_uring and by the pool of threads; what refusals of io_uring,
 * closing, cancellation and fork make of it. */
#include "processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "coir_io.h"

#define BLOCK 4096
#define BLOCKS 256
#define WORDS (BLOCK / sizeof(uint64_t))
#define LONG COIR_NEVER

enum way { CACHED, DIRECT };

/* What stands in the word `at` of file `number`. */
static uint64_t word_of(uint64_t number, uint64_t at) { return number << 48 | at; }

/* A file of `blocks` blocks in $TMPDIR that has no name, and what it holds is on the disk alone. */
static int make_file(uint64_t number, uint64_t blocks, enum way way) {
  char name[300], path[64];
  const char *folder = getenv("TMPDIR");
  snprintf(name, sizeof name, "%s/t_file-%d", folder ? folder : "/var/tmp", (int)getpid());
  int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(unlink(name), 0);
  for (uint64_t b = 0; b < blocks; b++) {
    uint64_t words[WORDS];
    for (uint64_t i = 0; i < WORDS; i++) words[i] = word_of(number, b * WORDS + i);
    CHECK_EQ(write(fd, words, BLOCK), BLOCK);
  }
  CHECK_EQ(fsync(fd), 0);
  CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  if (way == CACHED) return fd;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int direct = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
  if (direct < 0) return fd; /* the file system does not know it */
  close(fd);
  return direct;
}

static void *aligned(size_t bytes) {
  void *memory = NULL;
  CHECK_EQ(posix_memalign(&memory, BLOCK, bytes), 0);
  return memory;
}

/* Whether one of our descriptors is an io_uring. */
static bool has_ring(void) {
  bool found = false;
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir != NULL);
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    char to[64] = "";
    if (readlinkat(dirfd(dir), e->d_name, to, sizeof to - 1) > 0 && strstr(to, "io_uring")) found = true;
  }
  closedir(dir);
  return found;
}

/* Whether one of our threads has that name. */
static bool has_thread(const char *name) {
  bool found = false;
  DIR *dir = opendir("/proc/self/task");
  CHECK(dir != NULL);
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    char path[300], is[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
    FILE *file = e->d_name[0] == '.' ? NULL : fopen(path, "r");
    if (file && fscanf(file, "%31s", is) == 1 && !strcmp(is, name)) found = true;
    if (file) fclose(file);
  }
  closedir(dir);
  return found;
}

/* Whether the system lets us have one. */
static bool may_have_ring(void) {
  struct io_uring_params params = {.flags = 0};
  int fd = (int)syscall(SYS_io_uring_setup, 4, &params);
  if (fd >= 0) close(fd);
  const char *off = getenv("COIR_IO_URING");
  return fd >= 0 && !(off && !strcmp(off, "0"));
}

/* On a fiber: has the ring started, where there may be one. */
static void await_ring(void) {
  char c = 0;
  int fd = make_file(1, 1, CACHED);
  if (may_have_ring()) WAIT_FOR(coir_pwrite(fd, &c, 1, 0, LONG) == 1 && has_ring());
  CHECK_EQ(coir_pwrite(fd, &c, 1, 0, LONG), 1);
  CHECK_EQ(coir_close(fd), 0);
}

/* Runs it in a child process, which has no runtime yet. */
static void in_child(int (*fn)(void)) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) _exit(fn());
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip();
  CHECK_EQ(status, 0);
}

/* ---- Many at once ---------------------------------------------------------------------------------------------- */

struct job {
  int fd, times;
  uint64_t seed, number, first; /* its own blocks begin with `first` */
};

static int read_blocks(void *arg) {
  struct job *job = arg;
  uint64_t *words = aligned(2 * BLOCK), rng = rng_seed(job->seed);
  for (int i = 0; i < job->times; i++) {
    uint64_t b = rng_next(&rng) % (BLOCKS - 1), count = 1 + rng_next(&rng) % 2;
    CHECK_EQ(coir_pread(job->fd, words, count * BLOCK, (off_t)(b * BLOCK), LONG), count * BLOCK);
    for (uint64_t w = 0; w < count * WORDS; w++) CHECK_EQ(words[w], word_of(job->number, b * WORDS + w));
    if (i % 8 == 0) (void)posix_fadvise(job->fd, 0, 0, POSIX_FADV_DONTNEED);
  }
  free(words);
  return 0;
}

static int write_blocks(void *arg) {
  struct job *job = arg;
  uint64_t *words = aligned(BLOCK);
  for (int i = 0; i < job->times; i++) {
    uint64_t b = job->first + (uint64_t)i % 4, number = job->seed + (uint64_t)i;
    for (uint64_t w = 0; w < WORDS; w++) words[w] = word_of(number, b * WORDS + w);
    CHECK_EQ(coir_pwrite(job->fd, words, BLOCK, (off_t)(b * BLOCK), LONG), BLOCK);
    memset(words, 0, BLOCK);
    CHECK_EQ(coir_pread(job->fd, words, BLOCK, (off_t)(b * BLOCK), LONG), BLOCK);
    for (uint64_t w = 0; w < WORDS; w++) CHECK_EQ(words[w], word_of(number, b * WORDS + w));
  }
  free(words);
  return 0;
}

/* `count` fibers at one file: more than may be under way at once, where it is more than 128. */
static void many(coir_fn fn, enum way way, int count, int times) {
  struct job jobs[300];
  struct coir_fiber *fibers[300];
  int fd = make_file(7, BLOCKS, way);
  for (int i = 0; i < count; i++) {
    jobs[i] =
        (struct job){.fd = fd, .times = times, .seed = (uint64_t)i + 1, .number = 7, .first = (uint64_t)i * 4 % BLOCKS};
    fibers[i] = spawn(fn, &jobs[i]);
  }
  for (int i = 0; i < count; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(coir_close(fd), 0);
}

static int many_body(void *unused) {
  await_ring();
  many(read_blocks, CACHED, 16, rounds(40));
  many(read_blocks, DIRECT, 16, rounds(40));
  many(read_blocks, DIRECT, 300, rounds(10));
  many(write_blocks, CACHED, 16, rounds(20));
  many(write_blocks, DIRECT, 64, rounds(20));
  (void)unused;
  return 0;
}

static void many_files_at_once(void **state) {
  (void)state;
  CHECK_EQ(run(many_body, NULL), 0);
}

/* ---- One call -------------------------------------------------------------------------------------------------- */

/* The call does what the system call does. */
static void same_as_pread(int fd, void *buf, size_t bytes, off_t offset) {
  ssize_t n = pread(fd, buf, bytes, offset);
  CHECK_EQ(coir_pread(fd, buf, bytes, offset, LONG), n < 0 ? -errno : n);
}

static void same_as_pwrite(int fd, const void *buf, size_t bytes, off_t offset) {
  ssize_t n = pwrite(fd, buf, bytes, offset);
  CHECK_EQ(coir_pwrite(fd, buf, bytes, offset, LONG), n < 0 ? -errno : n);
}

/* At the end, behind it, across it; misaligned, into no memory, from no file. */
static void odd_reads(enum way way) {
  char *buf = aligned(4 * BLOCK);
  int fd = make_file(3, 3, CACHED), pipes[2];
  CHECK_EQ(ftruncate(fd, 2 * BLOCK + 100), 0);
  if (way == DIRECT) CHECK_EQ(fcntl(fd, F_SETFL, O_DIRECT), 0);
  for (int adopted = 0; adopted < 2; adopted++) {
    same_as_pread(fd, buf, BLOCK, 2 * BLOCK);
    same_as_pread(fd, buf, 4 * BLOCK, 0);
    same_as_pread(fd, buf, BLOCK, 2 * BLOCK + 100);
    same_as_pread(fd, buf, BLOCK, 16 * BLOCK);
    same_as_pread(fd, buf, BLOCK, -1);
    same_as_pread(fd, buf, 0, 0);
    same_as_pread(fd, buf + 1, 511, 1);
    same_as_pread(fd, (char *)8, BLOCK, 0);
    CHECK_EQ(coir_adopt(fd), 0);
  }
  CHECK_EQ(coir_close(fd), 0);
  CHECK_EQ(coir_pread(fd, buf, BLOCK, 0, LONG), -EBADF);
  CHECK_EQ(coir_pread(-1, buf, BLOCK, 0, LONG), -EBADF);
  fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  same_as_pread(fd, buf, BLOCK, 0);
  same_as_pwrite(fd, buf, BLOCK, 0);
  CHECK_EQ(coir_close(fd), 0);
  fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
  same_as_pread(fd, buf, BLOCK, BLOCK);
  same_as_pwrite(fd, buf, BLOCK, BLOCK);
  CHECK_EQ(coir_close(fd), 0);
  CHECK_EQ(pipe(pipes), 0);
  same_as_pread(pipes[0], buf, 1, 0);
  same_as_pwrite(pipes[1], buf, 1, 0);
  close(pipes[0]);
  close(pipes[1]);
  free(buf);
}

static void odd_writes(void) {
  char *buf = aligned(BLOCK);
  int fd = make_file(3, 1, CACHED), reader = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  memset(buf, 7, BLOCK);
  same_as_pwrite(fd, buf, 0, 0);
  same_as_pwrite(fd, buf, 10, 5 * BLOCK); /* leaves a hole */
  same_as_pread(fd, buf, BLOCK, 4 * BLOCK);
  CHECK_EQ(buf[0], 0);
  same_as_pwrite(fd, buf, 10, -1);
  same_as_pwrite(fd, (char *)8, BLOCK, 0);
  same_as_pwrite(reader, buf, 10, 0);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0); /* where it stands is as it was */
  close(fd);
  close(reader);
  free(buf);
}

/* Where the descriptor stands: only a part is in the page cache, or more than is copied at once. */
static void reads_in_a_row(void) {
  uint64_t *words = aligned(BLOCKS * BLOCK), at = 0;
  int fd = make_file(5, BLOCKS, CACHED);
  CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
  CHECK_EQ(pread(fd, words, BLOCK, BLOCK), BLOCK); /* is there now */
  static const size_t sizes[] = {3 * BLOCK, 100 * BLOCK, 2 * BLOCK, BLOCKS * BLOCK};
  for (int i = 0; i < 4; i++) {
    size_t left = BLOCKS * BLOCK - at * sizeof *words, bytes = sizes[i] < left ? sizes[i] : left;
    CHECK_EQ(coir_read(fd, words, sizes[i], LONG), bytes);
    for (uint64_t w = 0; w < bytes / sizeof *words; w++, at++) CHECK_EQ(words[w], word_of(5, at));
  }
  CHECK_EQ(coir_read(fd, words, BLOCK, LONG), 0);
  CHECK_EQ(coir_close(fd), 0);
  free(words);
}

/* What can be had at once can be had with no time left. */
static void deadlines(void) {
  uint64_t *words = aligned(BLOCK);
  int fd = make_file(5, 4, DIRECT);
  if (fcntl(fd, F_GETFL) & O_DIRECT) CHECK_EQ(coir_pread(fd, words, BLOCK, 0, 0), -ETIMEDOUT);
  CHECK_EQ(coir_pwrite(fd, words, BLOCK, 0, coir_now()), -ETIMEDOUT);
  for (int i = 0; i < 100; i++) { /* it passes before the call begins, or is of no account any more */
    ssize_t n = coir_pread(fd, words, BLOCK, BLOCK, coir_after(COIR_US(i)));
    CHECK(n == BLOCK || n == -ETIMEDOUT);
    if (n == BLOCK) CHECK_EQ(words[9], word_of(5, WORDS + 9));
  }
  CHECK_EQ(coir_pread(fd, words, BLOCK, BLOCK, LONG), BLOCK);
  CHECK_EQ(coir_close(fd), 0);
  free(words);
}

static int one_body(void *unused) {
  (void)unused;
  for (int i = 0; i < 2; i++) { /* before and after there is a ring */
    odd_reads(CACHED);
    odd_reads(DIRECT);
    odd_writes();
    reads_in_a_row();
    deadlines();
    await_ring();
  }
  return 0;
}

static void one_call(void **state) {
  (void)state;
  CHECK_EQ(run(one_body, NULL), 0);
}

static void plain_threads(void **state) {
  uint64_t words[WORDS];
  int fd = make_file(9, 2, CACHED);
  CHECK_EQ(coir_pread(fd, words, BLOCK, BLOCK, LONG), BLOCK);
  CHECK_EQ(words[1], word_of(9, WORDS + 1));
  CHECK_EQ(coir_pwrite(fd, words, BLOCK, 0, LONG), BLOCK);
  CHECK_EQ(coir_pread(fd, words, BLOCK, 0, 0), BLOCK); /* it has just been written */
  CHECK_EQ(words[1], word_of(9, WORDS + 1));
  CHECK_EQ(coir_close(fd), 0);
  (void)state;
}

/* What the page cache has needs neither a thread nor a ring. */
static int cached_body(void *unused) {
  uint64_t words[WORDS];
  int fd = make_file(9, 2, CACHED);
  for (int i = 0; i < 1000; i++) {
    CHECK_EQ(pread(fd, words, BLOCK, BLOCK), BLOCK);
    ssize_t n = coir_pread(fd, words, BLOCK, BLOCK, 0);
    if (n == -ETIMEDOUT) continue; /* it has left the cache since, or the file system cannot tell */
    CHECK_EQ(n, BLOCK);
    CHECK_EQ(coir_close(fd), 0);
    CHECK(!has_ring());
    return 0;
  }
  (void)unused;
  return 77;
}
static int cached_child(void) { return run(cached_body, NULL); }
static void cached_needs_nobody(void **state) {
  (void)state;
  in_child(cached_child);
}

/* ---- Cancellation, closing ------------------------------------------------------------------------------------- */

static _Atomic(int) begun, is_over;

/* Nothing reaches the buffer after the call has returned. */
static int read_until_over(void *arg) {
  int fd = *(const int *)arg;
  bool is_direct = fcntl(fd, F_GETFL) & O_DIRECT;
  uint64_t *words = aligned(BLOCK);
  for (uint64_t b = 0; !is_over; b = (b + 1) % BLOCKS) {
    if (!is_direct) (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    begun++;
    CHECK_EQ(coir_pread(fd, words, BLOCK, (off_t)(b * BLOCK), LONG), BLOCK);
    CHECK_EQ(words[0], word_of(2, b * WORDS));
    memset(words, 0x55, BLOCK);
    (void)coir_sleep(COIR_US(10)); /* takes the cancellation, once */
    for (uint64_t w = 0; w < WORDS; w++) CHECK_EQ(words[w], UINT64_C(0x5555555555555555));
  }
  free(words);
  return 0;
}

static int cancel_body(void *unused) {
  await_ring();
  int fds[] = {make_file(2, BLOCKS, DIRECT), make_file(2, BLOCKS, CACHED)};
  for (int round = 0; round < rounds(20); round++) {
    struct coir_scope *scope;
    begun = is_over = 0;
    CHECK_EQ(coir_scope_open(&scope, 0, round % 2 ? coir_after(COIR_MS(2)) : COIR_NEVER), 0);
    for (int i = 0; i < 32; i++) CHECK_EQ(coir_scope_spawn(scope, read_until_over, &fds[i % 2], NULL, NULL), 0);
    int seen = 32 + round * 5;
    for (int64_t end = coir_after(COIR_SEC(20)); begun < seen && coir_now() < end;) coir_yield();
    CHECK(begun >= seen);
    if (round % 2 == 0) coir_scope_cancel(scope, -EINTR);
    for (int i = 0; i < 100; i++) coir_yield();
    is_over = 1;
    int rc = coir_scope_close(scope);
    CHECK(round % 2 ? rc == -ETIMEDOUT || rc == 0 : rc == -EINTR);
  }
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  (void)unused;
  return 0;
}

static void cancellation_waits_for_the_kernel(void **state) {
  (void)state;
  CHECK_EQ(run(cancel_body, NULL), 0);
}

struct old_call {
  int fd;
  bool writes;
  ssize_t n;
  uint64_t *words;
};

static int call_old(void *arg) {
  struct old_call *c = arg;
  begun++; /* with one worker that nobody takes away nothing comes between this and the call */
  c->n = c->writes ? coir_pwrite(c->fd, c->words, BLOCK, 0, LONG) : coir_pread(c->fd, c->words, BLOCK, 0, LONG);
  return 0;
}

/* More have begun than may be under way when the number is closed and becomes another file's. */
static void close_under(bool writes, uint64_t *all) {
  enum { COUNT = 300 };
  struct old_call calls[COUNT];
  struct coir_fiber *fibers[COUNT];
  enum way way = writes ? CACHED : DIRECT;
  int fd = make_file(1, 1, way), other = make_file(2, 1, way);
  uint64_t found[WORDS];
  begun = 0;
  memset(all, 0, COUNT * BLOCK);
  for (int i = 0; i < COUNT; i++) {
    calls[i] = (struct old_call){.fd = fd, .writes = writes, .words = all + (size_t)i * WORDS};
    fibers[i] = spawn(call_old, &calls[i]);
  }
  while (begun < COUNT) coir_yield();
  CHECK_EQ(coir_close(fd), 0);
  CHECK_EQ(dup2(other, fd), fd);
  for (int i = 0; i < COUNT; i++) {
    CHECK_EQ(join(fibers[i]), 0);
    CHECK(calls[i].n == BLOCK || calls[i].n == -EBADF);
    if (!writes && calls[i].n == BLOCK) CHECK_EQ(calls[i].words[5], word_of(1, 5));
  }
  CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
  CHECK_EQ(pread(fd, found, BLOCK, 0), BLOCK);
  CHECK_EQ(found[5], word_of(2, 5));
  CHECK_EQ(coir_close(fd), 0);
  CHECK_EQ(coir_close(other), 0);
}

static int close_body(void *unused) {
  (void)unused;
  await_ring();
  if (!has_ring()) return 0; /* the pool does not promise as much */
  uint64_t *all = aligned(300 * BLOCK);
  for (int round = 0; round < rounds(40); round++) close_under(round % 2, all);
  free(all);
  return 0;
}

static void closing_keeps_files_apart(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1, .monitor = COIR_OFF}, close_body, NULL), 0);
}

/* ---- Where there is no ring ------------------------------------------------------------------------------------ */

static int small_body(void *unused) {
  many(read_blocks, DIRECT, 16, rounds(10));
  many(write_blocks, CACHED, 16, rounds(10));
  (void)unused;
  return has_ring() || has_thread("coir-direct");
}

static int off_by_variable(void) {
  setenv("COIR_IO_URING", "0", 1);
  return run(small_body, NULL);
}
static int off_by_field(void) { return run_with((struct coir_config){.io_uring = COIR_OFF}, small_body, NULL); }

/* From now on this system call fails, on all threads. */
static int refuse(int call, int error) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

static int refused(int error) {
  if (refuse(SYS_io_uring_setup, error) != 0 || refuse(SYS_io_setup, error) != 0) return 77;
  return run(small_body, NULL);
}
static int off_by_sandbox(void) { return refused(EPERM); }
static int off_by_old_kernel(void) { return refused(ENOSYS); }

static void no_ring(void **state) {
  (void)state;
  in_child(off_by_variable);
  in_child(off_by_field);
  in_child(off_by_sandbox);
  in_child(off_by_old_kernel);
}

/* Both ways work, and then they do not any more, while much is under way. */
static int later_body(void *unused) {
  int fds[] = {make_file(2, BLOCKS, DIRECT), make_file(2, BLOCKS, CACHED)};
  struct coir_fiber *fibers[40];
  (void)unused;
  await_ring();
  if (!has_ring()) return 77;
  begun = is_over = 0;
  for (int i = 0; i < 40; i++) fibers[i] = spawn(read_until_over, &fds[i % 2]);
  WAIT_FOR(begun > 200);
  if (refuse(SYS_io_uring_enter, EPERM) != 0 || refuse(SYS_io_submit, EPERM) != 0) _exit(77);
  int seen = begun;
  WAIT_FOR(begun > seen + 400);
  is_over = 1;
  for (int i = 0; i < 40; i++) CHECK_EQ(join(fibers[i]), 0);
  many(write_blocks, CACHED, 16, 10);
  many(write_blocks, DIRECT, 16, 10);
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  return 0;
}
static int later_child(void) { return run(later_body, NULL); }
static void refused_later(void **state) {
  (void)state;
  in_child(later_child);
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

/* The kernel refuses more than a few at a time, and says that this will pass: those that did not fit into what it has
 * handed back were asked for no more. */
static int crowd_body(void *unused) {
  enum { MANY = 400 };
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 100, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  struct coir_fiber *fibers[MANY];
  struct job jobs[MANY];
  (void)unused;
  await_ring();
  if (!has_ring() || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 77;
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) return 77;
  int fd = make_file(5, BLOCKS, CACHED);
  for (int i = 0; i < MANY; i++) {
    jobs[i] = (struct job){.fd = fd, .times = 1, .seed = (uint64_t)i + 1, .number = 5};
    fibers[i] = spawn(read_blocks, &jobs[i]);
  }
  for (int i = 0; i < MANY; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(coir_close(fd), 0);
  return 0;
}
static int crowd_child(void) { return run(crowd_body, NULL); }
static void a_crowd_is_refused(void **state) {
  (void)state;
  in_child(crowd_child);
}

/* The threads that the kernel adds for a ring are none that could end anybody's wait. */
static int deadlock_body(void *unused) {
  static struct coir_event never;
  char byte = 1;
  (void)unused;
  await_ring();
  int fd = make_file(6, 1, CACHED);
  for (int i = 0; i < 50; i++) CHECK_EQ(coir_pwrite(fd, &byte, 1, i, LONG), 1);
  return coir_event_wait(&never, COIR_NEVER);
}
static int deadlock_child(void) {
  alarm(30);
  return coir_runtime_run(make_runtime((struct coir_config){0}), deadlock_body, NULL, NULL) == -EDEADLK ? 0 : 1;
}
static void deadlocks_are_seen(void **state) {
  (void)state;
  if (IS_TSAN) skip(); /* how many threads are its own is not known in a forked child */
  in_child(deadlock_child);
}

/* Where a file may not grow the kernel sends a signal to the thread that asks, which must not be the program's. */
static int limit_body(void *unused) {
  struct rlimit limit = {.rlim_cur = BLOCK, .rlim_max = BLOCK};
  char *block = aligned(BLOCK);
  int fds[] = {make_file(7, 1, DIRECT), make_file(7, 1, CACHED)};
  (void)unused;
  memset(block, 1, BLOCK);
  await_ring();
  CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(coir_pwrite(fds[i], block, BLOCK, 0, LONG), BLOCK);
    CHECK_EQ(coir_pwrite(fds[i], block, BLOCK, BLOCK, LONG), -EFBIG);
  }
  free(block);
  return 0;
}
static int limit_child(void) { return run(limit_body, NULL); }
static void files_that_may_not_grow(void **state) {
  (void)state;
  in_child(limit_child);
}

/* Fibers that read from one position get whole records, though the page cache has but a part of each. */
#define RECORD (3 * WORDS)

static int read_records(void *arg) {
  int fd = *(int *)arg;
  uint64_t *words = aligned(RECORD * sizeof *words);
  for (ssize_t n; (n = coir_read(fd, words, RECORD * sizeof *words, LONG)) != 0;) {
    CHECK_EQ(n, RECORD * sizeof *words);
    for (uint64_t w = 0; w < RECORD; w++) CHECK_EQ(words[w], words[0] + w);
  }
  free(words);
  return 0;
}

static int records_body(void *unused) {
  struct coir_fiber *fibers[8];
  uint64_t byte;
  (void)unused;
  int fd = make_file(8, BLOCKS / 3 * 3, CACHED);
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  for (int b = 0; b < BLOCKS / 3; b++) CHECK_EQ(pread(fd, &byte, 8, (off_t)b * 3 * BLOCK), 8);
  for (int i = 0; i < 8; i++) fibers[i] = spawn(read_records, &fd);
  for (int i = 0; i < 8; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(coir_close(fd), 0);
  return 0;
}
static void records_are_whole(void **state) {
  (void)state;
  CHECK_EQ(run(records_body, NULL), 0);
}

static int fork_body(void *unused) {
  await_ring();
  many(write_blocks, DIRECT, 16, 5);
  (void)unused;
  return 0;
}

static int fork_under_way(void *unused) {
  int fds[] = {make_file(2, BLOCKS, DIRECT), make_file(2, BLOCKS, CACHED)};
  struct coir_fiber *fibers[20];
  await_ring();
  begun = is_over = 0;
  for (int i = 0; i < 20; i++) fibers[i] = spawn(read_until_over, &fds[i % 2]);
  for (int round = 0; round < 5; round++) {
    int seen = begun, status = -1;
    WAIT_FOR(begun > seen + 50);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) { /* the runtime is the parent's, and so is the ring */
      uint64_t words[WORDS];
      int other = make_file(8, 1, CACHED);
      _exit(coir_pread(other, words, BLOCK, 0, LONG) != BLOCK || words[3] != word_of(8, 3));
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
  }
  is_over = 1;
  for (int i = 0; i < 20; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(coir_close(fds[0]), 0);
  CHECK_EQ(coir_close(fds[1]), 0);
  (void)unused;
  return 0;
}

static int runs_again(void) { return run(fork_body, NULL); }
static int forks_again(void) {
  int rc = run(fork_body, NULL);
  in_child(runs_again);
  return rc | run(fork_body, NULL);
}

static void forks(void **state) {
  (void)state;
  CHECK_EQ(run(fork_body, NULL), 0);
  in_child(forks_again);
  CHECK_EQ(run(fork_under_way, NULL), 0);
  CHECK_EQ(run(fork_body, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(cached_needs_nobody), /* before there is a ring that a child might inherit */
      cmocka_unit_test(no_ring),
      cmocka_unit_test(refused_later),
      cmocka_unit_test(a_crowd_is_refused),
      cmocka_unit_test(deadlocks_are_seen),
      cmocka_unit_test(files_that_may_not_grow),
      cmocka_unit_test(records_are_whole),
      cmocka_unit_test(plain_threads),
      cmocka_unit_test(one_call),
      cmocka_unit_test(many_files_at_once),
      cmocka_unit_test(cancellation_waits_for_the_kernel),
      cmocka_unit_test(closing_keeps_files_apart),
      cmocka_unit_test(forks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
