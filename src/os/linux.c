/* os.h for Linux: memory, clock, futex, threads, membarrier, and the record of the calling thread.
 *
 * errno. User code on fibers relies on its own errno, and a fiber may come back on another thread, so nothing here
 * leaves a trace in it: each function that can touch errno puts it back as it was and returns a negative code. The
 * address of errno must not be kept across a switch either (libc declares its accessor const, so a compiler may);
 * therefore it is read and written by two functions that are never inlined, even when the whole program is optimized
 * at link time.
 *
 * Membarrier. coir__fence_heavy is MEMBARRIER_CMD_PRIVATE_EXPEDITED. The process registers for it once, before the
 * first runtime or the first record of a thread exists, so coir__fence_asymmetric is constant wherever it is read.
 * The kernel keeps the registration with the address space: a forked child has it too. COIR_NO_MEMBARRIER=1 in the
 * environment leaves it out, so that the fallback can be tested: both fences are full ones then.
 *
 * Records of threads (struct coir__thread) are never freed, because a late party may still look at the claim word of
 * a wait that is over, or knock once more at its futex. A thread that ends gives its record to a process-wide list,
 * from which the next new thread takes it. The claim word keeps its number, so that an old open word never comes
 * back.
 *
 * Rejected: reading the record with pthread_getspecific (a call of 2 ns on every public function, where the thread-
 * local costs two loads); the general-dynamic model of thread-locals (a call as well, and its address may be kept
 * across a switch). The price of the initial-exec model is eight bytes of the static block, which a dlopen'ed library
 * may use too. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "coir.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

#define LOCK_SPINS_MAX 100
#define THREAD_STACK_BYTES ((size_t)512 << 10) /* beside thread-locals and signal frames; fibers do not run on it */
#define COMPLAIN_TRIES_MAX 50
#define PROMPT_SLICE 100000 /* ns: the least that there is */

/* Neither inlined nor looked into by the compiler's analysis of other functions. */
#if defined(__has_attribute)
#if __has_attribute(noipa)
#define OPAQUE __attribute__((noinline, noipa))
#endif
#endif
#ifndef OPAQUE
#define OPAQUE __attribute__((noinline))
#endif

static OPAQUE int errno_get(void) {
  __asm__ volatile("" ::: "memory");
  return errno;
}

static OPAQUE void errno_set(int value) {
  __asm__ volatile("" ::: "memory");
  errno = value;
}

/* Takes the error of the call that just failed, puts errno back to `saved`, returns the error as a negative code. */
static int errno_take(int saved) {
  int rc = -errno_get();
  errno_set(saved);
  return rc;
}

static OPAQUE void die(const char *text) {
  coir__os_complain(text, strlen(text));
  abort();
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

size_t coir__os_page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

void *coir__os_reserve(size_t bytes, size_t align, bool huge) {
  int saved = errno_get();
  size_t page = coir__os_page(), extra = align > page ? align - page : 0;
  if (bytes == 0 || bytes > SIZE_MAX - extra) return NULL;
  char *base = mmap(NULL, bytes + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    errno_set(saved);
    return NULL;
  }
  size_t head = extra ? (size_t)(-(uintptr_t)base & (align - 1)) : 0, tail = extra - head;
  if (head) munmap(base, head);
  if (tail) munmap(base + head + bytes, tail);
  /* Advice; a kernel without huge pages says EINVAL. */
  madvise(base + head, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  errno_set(saved);
  return base + head;
}

void coir__os_release(void *memory, size_t bytes) {
  int saved = errno_get();
  /* At the limit of mappings a hole cannot be cut. The pages at least go back then. */
  if (munmap(memory, bytes) != 0) madvise(memory, bytes, MADV_DONTNEED);
  errno_set(saved);
}

void coir__os_touched(void *memory, size_t bytes, unsigned char *out) {
  int saved = errno_get();
  if (mincore(memory, bytes, out) != 0) memset(out, 1, bytes / coir__os_page());
  errno_set(saved);
}

void coir__os_discard(void *memory, size_t bytes) {
  int saved = errno_get();
  /* Pages that the program has locked (mlockall) are refused; the caller is promised zeros all the same. */
  if (madvise(memory, bytes, MADV_DONTNEED) != 0 && madvise(memory, bytes, MADV_DONTNEED_LOCKED) != 0) {
    memset(memory, 0, bytes);
  }
  errno_set(saved);
}

static bool guard_works;
static pthread_once_t guard_once = PTHREAD_ONCE_INIT;

/* Asks whether the kernel really refuses access to a guarded page: emulators take any advice and do nothing. */
static void probe_guard_install(void) {
  size_t page = coir__os_page();
  char *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  /* The page is an empty path, which does not exist, unless it cannot be read. */
  if (madvise(memory, page, MADV_GUARD_INSTALL) == 0) guard_works = access(memory, F_OK) != 0 && errno_get() == EFAULT;
  munmap(memory, page);
}

int coir__os_guard_install(void *page) {
  int saved = errno_get();
  pthread_once(&guard_once, probe_guard_install);
  int rc = guard_works ? madvise(page, coir__os_page(), MADV_GUARD_INSTALL) : -EINVAL;
  if (rc == -1) return errno_take(saved);
  errno_set(saved);
  return rc;
}

int coir__os_guard_protect(void *page) {
  int saved = errno_get();
  return mprotect(page, coir__os_page(), PROT_NONE) == 0 ? 0 : errno_take(saved);
}

/* ---- Time, sleep, locks ---------------------------------------------------------------------------------------- */

_Atomic(coir__clock) coir__os_clock;

int64_t coir__os_now(void) {
  coir__clock clock = atm_load_rlx(&coir__os_clock); /* relaxed: it is code, and set before its runtime begins */
  return COIR_LIKELY(!clock) ? coir__os_real_now() : clock();
}

int64_t coir__os_real_now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int futex_wait(_Atomic(uint32_t) *word, uint32_t value, int64_t deadline) {
  int saved = errno_get();
  struct timespec ts, *limit = NULL;
  if (deadline != COIR_NEVER) {
    if (deadline < 0) deadline = 0; /* the kernel refuses negative times */
    ts = (struct timespec){.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    limit = &ts;
  }
  /* WAIT_BITSET is the one whose time is absolute, on CLOCK_MONOTONIC. */
  int op = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG;
  long rc = syscall(SYS_futex, word, op, value, limit, NULL, FUTEX_BITSET_MATCH_ANY);
  if (rc == 0) return 0;
  int error = errno_take(saved);
  return error == -EAGAIN ? 0 : error;
}

#if defined(COIR_TSAN)
/* It keeps a signal with the context in which it came until that calls something which it knows, such as an atomic
 * access. */
static COIR_LEAF void take_signals(void) {
  static _Atomic(uint32_t) known;
  (void)atm_load_rlx(&known);
}

uint64_t coir__os_tsan_begin(void) {
  uint64_t all = UINT64_MAX, mask;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, sizeof mask);
  take_signals();
  return mask;
}

void coir__os_tsan_end(uint64_t mask) { syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask); }

void *coir__os_tsan_create(void) {
  uint64_t mask = coir__os_tsan_begin();
  void *context = __tsan_create_fiber(0);
  coir__os_tsan_end(mask);
  return context;
}

void coir__os_tsan_destroy(void *context) {
  uint64_t mask = coir__os_tsan_begin();
  __tsan_destroy_fiber(context);
  coir__os_tsan_end(mask);
}

/* And not while the thread sleeps: clock_gettime is another one. */
int coir__os_futex_wait(_Atomic(uint32_t) *word, uint32_t value, int64_t deadline) {
  for (;;) {
    int64_t soon = coir__os_real_now() + COIR_MS(20);
    if (deadline <= soon) return futex_wait(word, value, deadline);
    int rc = futex_wait(word, value, soon);
    if (rc != -ETIMEDOUT) return rc;
  }
}
#else
int coir__os_futex_wait(_Atomic(uint32_t) *word, uint32_t value, int64_t deadline) {
  return futex_wait(word, value, deadline);
}
#endif

void coir__os_futex_wake(_Atomic(uint32_t) *word, int count) {
  int saved = errno_get();
  /* May fail with EFAULT: a waiter that was woken meanwhile may have returned, and its memory be gone. */
  if (syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0) < 0) errno_set(saved);
}

/* Spins shortly, then yields between tries: whoever holds the lock may have been preempted, and need this very CPU. */
void coir__lock_slow(struct coir__lock *lock) {
  for (int spins = 0;; spins++) {
    if (atm_load_rlx(&lock->held) == 0 && coir__lock_try(lock)) return;
    if (spins < LOCK_SPINS_MAX) coir__pause();
    else sched_yield();
  }
}

/* ---- Once -------------------------------------------------------------------------------------------------------- */

enum { ONCE_NOT = 0, ONCE_DONE = 1 }; /* else twice the number of the process that is at it */

/* False: it is done. True: the caller does it, and says how it went. */
static bool once_begin(_Atomic(uint32_t) *state) {
  uint32_t seen = atm_load_acq(state), ours; /* what was done; pairs with the release in once_end() */
  while (seen != ONCE_DONE) {
    if (seen != (ours = (uint32_t)getpid() << 1)) {
      if (atm_cas_ar(state, &seen, ours)) return true;
    } else {
      coir__os_futex_wait(state, seen, COIR_NEVER);
      seen = atm_load_acq(state);
    }
  }
  return false;
}

static void once_end(_Atomic(uint32_t) *state, bool is_done) {
  atm_store_rel(state, is_done ? ONCE_DONE : ONCE_NOT);
  coir__os_futex_wake(state, INT_MAX);
}

int coir__os_once(_Atomic(uint32_t) *state, int (*init)(void)) {
  if (!once_begin(state)) return 0;
  int rc = init();
  once_end(state, rc == 0);
  return rc;
}

void coir__os_once_done(_Atomic(uint32_t) *state) { atm_store_rlx(state, ONCE_DONE); } /* no other thread is there */

int coir__os_at_fork(_Atomic(uint32_t) *state, void (*child)(void)) {
  if (!once_begin(state)) return 0;
  int error = pthread_atfork(NULL, NULL, child);
  once_end(state, error == 0);
  return -error;
}

/* ---- The asymmetric fence -------------------------------------------------------------------------------------- */

bool coir__fence_asymmetric;
static pthread_once_t fence_once = PTHREAD_ONCE_INIT;

static void fence_register(void) {
  const char *off = getenv("COIR_NO_MEMBARRIER");
  if (off && strcmp(off, "1") == 0) return;
  long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  if (commands < 0 || !(commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED)) return;
  coir__fence_asymmetric = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void coir__os_fence_init(void) {
  int saved = errno_get();
  pthread_once(&fence_once, fence_register);
  errno_set(saved);
}

void coir__fence_heavy(void) {
  if (!coir__fence_asymmetric) {
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the full fence that coir__fence_light is then */
    return;
  }
  int saved = errno_get();
  while (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
    /* Some kernels allocate a mask of CPUs. Any other error means that the light fences do not hold. */
    if (errno_get() != ENOMEM) die("coir: membarrier fails although it was registered\n");
    sched_yield();
    errno_set(saved);
  }
}

/* ---- CPUs ------------------------------------------------------------------------------------------------------ */

/* Coir may have put the threads that it starts on CPUs of their own: there the main thread's mask counts. */
int coir__os_cpus_get(struct coir__cpus *out) {
  const struct coir__thread *t = coir__thread_peek();
  pid_t of = t && t->is_own ? getpid() : 0;
  int saved = errno_get();
  memset(out, 0, sizeof *out);
  int rc = sched_getaffinity(of, sizeof *out, (cpu_set_t *)out->bits) == 0 ? 0 : -errno_get();
  errno_set(saved);
  return rc;
}

int coir__os_cpus_set(const struct coir__cpus *cpus) {
  int saved = errno_get();
  int rc = sched_setaffinity(0, sizeof *cpus, (const cpu_set_t *)cpus->bits) == 0 ? 0 : -errno_get();
  errno_set(saved);
  return rc;
}

ssize_t coir__os_read_text(const char *path, char *out, size_t bytes) {
  int saved = errno_get(), fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t length = 0, n = fd < 0 ? -1 : 0;
  while (fd >= 0 && (size_t)length < bytes) {
    n = read(fd, out + length, bytes - (size_t)length);
    if (n <= 0) break;
    length += n;
  }
  ssize_t rc = n < 0 ? -errno_get() : (size_t)length == bytes ? -EFBIG : length;
  if (fd >= 0) close(fd);
  if (rc >= 0) out[rc] = '\0';
  errno_set(saved);
  return rc;
}

/* Reads up to two numbers from the file `name` in the folder `dir`; returns how many. */
static int read_numbers(const char *dir, const char *name, long long *a, long long *b) {
  char path[512], text[64];
  if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return 0;
  if (coir__os_read_text(path, text, sizeof text) < 0) return 0;
  char *end;
  *a = strtoll(text, &end, 10);
  if (end == text) return 0; /* "max" */
  char *rest = end;
  *b = strtoll(rest, &end, 10);
  return end == rest ? 1 : 2;
}

/* The CPUs that the quota of the control group in `dir` is worth, rounded up; INT_MAX when it has none. */
static int quota_cpus(const char *dir, bool is_v2) {
  long long quota = -1, period = 0, unused;
  if (is_v2) {
    if (read_numbers(dir, "cpu.max", &quota, &period) != 2) return INT_MAX;
  } else if (read_numbers(dir, "cpu.cfs_quota_us", &quota, &unused) < 1 ||
             read_numbers(dir, "cpu.cfs_period_us", &period, &unused) < 1) {
    return INT_MAX;
  }
  if (quota <= 0 || period <= 0 || quota / period >= INT_MAX) return INT_MAX;
  return (int)((quota + period - 1) / period);
}

/* The smallest quota on the way from the group `path` below the mount point `mount` up to the mount point itself. */
static int quota_walk(const char *mount, const char *path, bool is_v2) {
  char dir[448];
  size_t base = strlen(mount);
  int length = snprintf(dir, sizeof dir, "%s%s", mount, strcmp(path, "/") == 0 ? "" : path), cpus = INT_MAX;
  if (length >= (int)sizeof dir) dir[base < sizeof dir ? base : 0] = '\0';
  for (;;) {
    int here = quota_cpus(dir, is_v2);
    if (here < cpus) cpus = here;
    char *slash = strrchr(dir, '/');
    if (!slash || slash < dir + base) return cpus;
    *slash = '\0';
  }
}

static bool has_word(const char *list, const char *word) {
  size_t length = strlen(word);
  for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL) {
    if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0')) return true;
  }
  return false;
}

/* The path of the process's own group in the hierarchy of the cpu controller (v1), or in the unified one (v2): a
 * copy, or NULL. A line of /proc/self/cgroup is "number:controllers:path"; the unified hierarchy has no controllers. */
static char *own_group(bool is_v2) {
  FILE *file = fopen("/proc/self/cgroup", "re");
  if (!file) return NULL;
  char *line = NULL, *found = NULL;
  size_t room = 0;
  while (!found && getline(&line, &room, file) > 0) {
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path) continue;
    *controllers++ = *path++ = '\0';
    if (is_v2 ? *controllers == '\0' : has_word(controllers, "cpu")) found = strdup(path);
  }
  free(line);
  fclose(file);
  return found;
}

/* Decodes the octal escapes of mountinfo (\040 is a space), in place. */
static void unescape(char *text) {
  char *to = text;
  for (const char *from = text; *from; to++) {
    if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] && from[3]) {
      *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
      from += 4;
    } else {
      *to = *from++;
    }
  }
  *to = '\0';
}

/* The quota that one line of /proc/self/mountinfo leads to, INT_MAX when it is no mount of the cpu controller. A
 * container may see a group as the root of its mount; the path of the process's group then begins with that root, or,
 * where the two cannot be matched, the mount point is the group. */
static int mount_cpus(char *line, char *const groups[2]) {
  enum { ROOT = 3, MOUNT = 4, FIXED = 6 };
  char *state = NULL, *fields[FIXED], *word = strtok_r(line, " \n", &state);
  int n = 0;
  for (; word && n < FIXED; word = strtok_r(NULL, " \n", &state)) fields[n++] = word;
  while (word && strcmp(word, "-") != 0) word = strtok_r(NULL, " \n", &state);
  const char *type = word ? strtok_r(NULL, " \n", &state) : NULL;
  const char *source = type ? strtok_r(NULL, " \n", &state) : NULL;
  const char *options = source ? strtok_r(NULL, " \n", &state) : NULL;
  if (!options || n < FIXED) return INT_MAX;
  bool is_v2 = strcmp(type, "cgroup2") == 0;
  const char *group = groups[is_v2];
  if (!group || (!is_v2 && (strcmp(type, "cgroup") != 0 || !has_word(options, "cpu")))) return INT_MAX;
  unescape(fields[MOUNT]);
  unescape(fields[ROOT]);
  const char *root = strcmp(fields[ROOT], "/") == 0 ? "" : fields[ROOT];
  size_t length = strlen(root);
  bool is_below = strncmp(group, root, length) == 0 && (group[length] == '/' || group[length] == '\0');
  return quota_walk(fields[MOUNT], is_below && strncmp(group, "/..", 3) != 0 ? group + length : "", is_v2);
}

static int cgroup_cpus(void) {
  FILE *file = fopen("/proc/self/mountinfo", "re");
  if (!file) return INT_MAX;
  char *groups[2] = {own_group(false), own_group(true)}, *line = NULL;
  size_t room = 0;
  int cpus = INT_MAX;
  while (getline(&line, &room, file) > 0) {
    int here = mount_cpus(line, groups);
    if (here < cpus) cpus = here;
  }
  free(line);
  free(groups[0]);
  free(groups[1]);
  fclose(file);
  return cpus;
}

int coir__os_cpu_count(void) {
  struct coir__cpus all;
  int saved = errno_get(), cpus = 0, quota = cgroup_cpus();
  if (coir__os_cpus_get(&all) == 0) cpus = CPU_COUNT_S(sizeof all, (cpu_set_t *)all.bits);
  if (cpus < 1) cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (quota < cpus) cpus = quota;
  errno_set(saved);
  return cpus < 1 ? 1 : cpus;
}

/* ---- Threads --------------------------------------------------------------------------------------------------- */

/* What a new thread is to do; it frees this. */
struct start {
  void *(*fn)(void *);
  void *arg;
  char name[16]; /* what the kernel keeps of a name */
  bool moves;    /* who starts it may be bound to a CPU, which is not meant for this one */
  struct coir__cpus cpus;
  struct coir__thread *record; /* made before, so that the thread cannot lack it */
};

static int record_init(void);
static struct coir__thread *record_take(void);
static void record_give(struct coir__thread *t);
static bool record_tie(struct coir__thread *t);
static void record_end(void *record);
static _Atomic(uint32_t) record_once;

static _Atomic(int) threads_begun, threads_over; /* (a) of those that are started here */

static void *thread_main(void *arg) {
  struct start start = *(struct start *)arg;
  free(arg);
  if (start.moves) coir__os_cpus_set(&start.cpus);
  atm_add_sc(&threads_begun, 1);
  bool is_tied = record_tie(start.record);
  start.record->is_own = true;
  pthread_setname_np(pthread_self(), start.name);
  void *result = start.fn(start.arg);
  atm_add_sc(&threads_over, 1);
  if (!is_tied) record_end(start.record);
  return result;
}

/* The kernel works for an io_uring in threads that it adds to the process, "iou-wrk-123" or "iou-sqp-123". */
static bool is_of_kernel(const char *tid) {
  char path[64], name[16] = "";
  snprintf(path, sizeof path, "/proc/self/task/%.16s/comm", tid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t n = read(fd, name, sizeof name - 1);
  close(fd);
  return n > 4 && strncmp(name, "iou-", 4) == 0;
}

static int threads_by_name(void) {
  DIR *all = opendir("/proc/self/task");
  int count = 0;
  if (!all) return -1;
  for (struct dirent *each; (each = readdir(all)) != NULL;)
    if (each->d_name[0] != '.' && !is_of_kernel(each->d_name)) count++;
  closedir(all);
  return count;
}

/* The kernel counts a directory for each thread among the links of their parent. -1: it cannot be told. */
static int threads_of_process(void) {
  struct stat st;
  int saved = errno_get(), all = -1;
  if (coir__uring_is_used()) all = threads_by_name();
  else if (stat("/proc/self/task", &st) == 0 && st.st_nlink >= 3) all = (int)st.st_nlink - 2;
  errno_set(saved);
  return all;
}

#if defined(COIR_TSAN)
static int threads_at_fork;
static bool is_tsan_lost; /* in a child that was forked among threads: how many threads of its own it has */
#endif

/* One that begins or ends while we look would make the sum wrong. */
int coir__os_other_threads(void) {
  int begun = atm_load_sc(&threads_begun), over = atm_load_sc(&threads_over), all = threads_of_process();
#if defined(COIR_TSAN)
  if (is_tsan_lost) return -1;
  if (all > 1) all--; /* it starts a thread of its own along with the first of the program */
#endif
  if (atm_load_sc(&threads_begun) != begun || atm_load_sc(&threads_over) != over) return -1;
  return all < begun - over ? -1 : all - (begun - over);
}

/* A short slice: by it the scheduler (EEVDF, Linux 6.12) finds the deadline of one that wakes. Older ones ignore it,
 * and where it is refused nothing is lost but promptness. What else the thread has from the program stays: its nice
 * value, or another policy, which has no such slices. */
void coir__os_thread_prompt(void) {
  struct { /* struct sched_attr, as its first version has it */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attr = {.size = 48};
  int saved = errno_get();
  if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) == 0 && attr.policy == SCHED_OTHER) {
    attr.runtime = PROMPT_SLICE;
    syscall(SYS_sched_setattr, 0, &attr, 0);
  }
  errno_set(saved);
  coir__os_timer_slack(1);
}

/* What pthread_getcpuclockid makes of a thread, of its number: linux/posix-timers.h. */
int64_t coir__os_thread_cpu(int tid) {
  enum { SCHED = 2, PER_THREAD = 4 };
  clockid_t clock = (clockid_t)(~(unsigned)tid << 3 | PER_THREAD | SCHED);
  struct timespec ts;
  int saved = errno_get();
  if (clock_gettime(clock, &ts) == 0) return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
  errno_set(saved);
  return -1;
}

static int add_tls_bytes(struct dl_phdr_info *info, size_t bytes, void *sum) {
  (void)bytes;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *header = &info->dlpi_phdr[i];
    if (header->p_type == PT_TLS) *(size_t *)sum += header->p_memsz + header->p_align;
  }
  return 0;
}

static _Atomic(size_t) tls_bytes; /* (a) as it was last found out */
static bool is_forked;            /* (c) but in the child of a fork, which sets it before it does anything else */

/* glibc lays the thread-locals of all libraries into the thread's stack, and a signal frame with AVX-512 takes
 * kilobytes, so both come on top. The child of a fork does not ask: some thread that it has not may have been in the
 * loader, whose lock is then held for good. */
static size_t thread_stack_bytes(void) {
  size_t tls = 0, page = coir__os_page();
  long least = sysconf(_SC_THREAD_STACK_MIN);
  if (!is_forked) dl_iterate_phdr(add_tls_bytes, &tls);
  if (tls) atm_store_rlx(&tls_bytes, tls);
  else tls = atm_load_rlx(&tls_bytes);
  size_t bytes = THREAD_STACK_BYTES + tls + (least > 0 ? (size_t)least : (size_t)PTHREAD_STACK_MIN);
  return (bytes + page - 1) / page * page;
}

long coir__os_timer_slack(long ns) {
  int saved = errno_get();
  long old = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
  if (old >= 0 && ns >= 0) prctl(PR_SET_TIMERSLACK, ns, 0, 0, 0); /* in a sandbox it may be refused */
  errno_set(saved);
  return old;
}

static struct start *start_make(const char *name, void *(*fn)(void *), void *arg) {
  if (coir__os_once(&record_once, record_init) != 0) return NULL; /* a forked child counts anew, also for that */
  struct start *start = malloc(sizeof *start);
  if (!start) return NULL;
  *start = (struct start){.fn = fn, .arg = arg, .record = record_take()};
  if (!start->record) {
    free(start);
    return NULL;
  }
  snprintf(start->name, sizeof start->name, "%s", name);
  const struct coir__thread *self = coir__thread_peek();
  start->moves = self && self->is_own && coir__os_cpus_get(&start->cpus) == 0;
  return start;
}

int coir__os_thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg) {
  int saved = errno_get();
  struct start *start = start_make(name, fn, arg);
  if (!start) {
    errno_set(saved);
    return -ENOMEM;
  }
  pthread_attr_t attr;
  int error = pthread_attr_init(&attr);
  if (error == 0) {
    static const int kept[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigset_t mask, old;
    sigfillset(&mask);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) sigdelset(&mask, kept[i]);
    pthread_attr_setstacksize(&attr, thread_stack_bytes());
    /* The new thread inherits the mask: no signal finds it before it has blocked them itself. */
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    error = pthread_create(out, &attr, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
  }
  if (error != 0) {
    record_give(start->record);
    free(start);
  }
  errno_set(saved);
  return -error;
}

void coir__os_thread_yield(void) { sched_yield(); }

void coir__os_stack_bounds(const void **low, size_t *bytes) {
  int saved = errno_get();
  pthread_attr_t attr;
  void *base = NULL;
  size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attr) == 0) {
    if (pthread_attr_getstack(&attr, &base, &size) != 0) base = NULL, size = 0;
    pthread_attr_destroy(&attr);
  }
  *low = base;
  *bytes = size;
  errno_set(saved);
}

void coir__os_complain(const char *text, size_t bytes) {
  int saved = errno_get();
  for (int tries = 0; bytes > 0 && tries < COMPLAIN_TRIES_MAX; tries++) {
    ssize_t n = write(STDERR_FILENO, text, bytes);
    if (n > 0) {
      text += n;
      bytes -= (size_t)n;
    } else if (n < 0 && errno_get() == EAGAIN) {
      struct pollfd full = {.fd = STDERR_FILENO, .events = POLLOUT};
      poll(&full, 1, 100);
    } else if (n < 0 && errno_get() != EINTR) {
      break;
    }
  }
  errno_set(saved);
}

/* ---- The calling thread ---------------------------------------------------------------------------------------- */

/* "used": only assembly names it, which an optimizer at link time does not see. */
__thread struct coir__thread *coir__tls __attribute__((tls_model("initial-exec"), used));

void (*coir__thread_ended)(struct coir__thread *thread);

static struct coir__lock records_lock;
static struct coir__thread *records_free;      /* (l) records_lock */
static _Atomic(struct coir__thread *) records; /* (a) only ever prepended, under records_lock */
static _Atomic(uint64_t) sleepers;             /* (a) coir__thread_sleepers */
static pthread_key_t record_key;
static bool has_record_key;

#if defined(COIR_PORTABLE_TLS) || !(defined(__x86_64__) || defined(__aarch64__))
OPAQUE struct coir__thread *coir__thread_peek(void) {
  __asm__ volatile("" ::: "memory");
  return coir__tls;
}
#endif

/* Ordered against coir__thread_peek, whose assembly says nothing about memory. */
static OPAQUE void tls_set(struct coir__thread *t) {
  coir__tls = t;
  __asm__ volatile("" ::: "memory");
}

static void record_give(struct coir__thread *t) {
  coir__lock(&records_lock);
  t->next_free = records_free;
  records_free = t;
  coir__unlock(&records_lock);
}

/* The C++ runtime's, if the program had one when it was loaded. */
extern struct coir__thrown *__cxa_get_globals(void) __attribute__((weak));
static struct coir__thrown *thrown_location(void) {
  static struct coir__thrown none;
  return __cxa_get_globals ? __cxa_get_globals() : &none;
}

/* A record for a thread. A used one keeps its claim word and its futex: file head. */
static struct coir__thread *record_take(void) {
  coir__lock(&records_lock);
  struct coir__thread *t = records_free;
  if (t) records_free = t->next_free;
  coir__unlock(&records_lock);
  if (!t) {
    size_t bytes = (sizeof *t + COIR__LINE - 1) / COIR__LINE * COIR__LINE; /* no two threads share a line */
    t = aligned_alloc(COIR__LINE, bytes);
    if (!t) return NULL;
    memset(t, 0, bytes);
    t->waiter.is_thread = 1;
    t->rng = (uint32_t)((uintptr_t)t / COIR__LINE) | 1; /* never 0 */
    coir__lock(&records_lock);
    t->next = atm_load_rlx(&records);
    atm_store_rel(&records, t); /* all of it; pairs with the acquire in coir__thread_first */
    coir__unlock(&records_lock);
  }
  return t;
}

/* The record becomes that of the calling thread. False: there is no memory to have its end told. */
static bool record_tie(struct coir__thread *t) {
  atm_store_rlx(&t->tid, (int)syscall(SYS_gettid));
  t->errno_location = &errno;
  t->thrown = thrown_location();
  atm_store_rlx(&t->in, 0);
  atm_store_rlx(&t->sent_at, 0); /* of a signal that met its former thread's end */
  tls_set(t);
  return pthread_setspecific(record_key, t) == 0;
}

/* At the end of a thread. The hook still finds the record; a later destructor that calls Coir makes a new one, whose
 * turn comes in the next round of destructors. */
static void record_end(void *record) {
  struct coir__thread *t = record;
  tls_set(t);
  void (*ended)(struct coir__thread *) = __atomic_load_n(&coir__thread_ended, __ATOMIC_RELAXED); /* always the same */
  if (ended) ended(t);
  tls_set(NULL);
  pthread_setspecific(record_key, NULL);
  atm_store_rlx(&t->waiter.cancel, 0); /* nobody else names this thread any more */
  atm_store_rlx(&t->waits_on, 0);
  t->waiter.shield = 0;
  t->is_own = false;
  if (t->scope) die("coir: a thread ends with a scope open\n");
  atm_store_rlx(&t->worker, NULL);
  atm_show(&t->away, NULL);
  t->idle_sp = NULL;
  t->errno_location = NULL;
  t->thrown = NULL;
  t->locals = NULL;
  t->tsan = NULL;
  t->asan_low = NULL;
  t->asan_bytes = 0;
  t->alt_stack = NULL;
  record_give(t);
}

/* A child forked while another thread held the list would wait for ever. */
static uint32_t in_before_fork_of_records; /* (l) records_lock */

/* Who holds the lock is not to be paused meanwhile (preempt.c). */
static void fork_prepare(void) {
  struct coir__thread *t = coir__thread_peek();
  uint32_t was = t ? atm_load_rlx(&t->in) : 0;
  if (t) atm_store_sc(&t->in, 1);
  coir__lock(&records_lock);
  in_before_fork_of_records = was;
#if defined(COIR_TSAN)
  threads_at_fork = threads_of_process();
#endif
}
static void fork_done(void) {
  struct coir__thread *t = coir__thread_peek();
  uint32_t was = in_before_fork_of_records;
  coir__unlock(&records_lock);
  if (t) atm_store_rel(&t->in, was);
}

/* The child has one thread, and that is its own affair. */
static void fork_child(void) {
  is_forked = true;
  coir__os_once_done(&record_once);
  for (struct coir__thread *t = atm_load_rlx(&records); t; t = t->next) {
    atm_store_rlx(&t->asleep, 0);
    atm_store_rlx(&t->paused, 0);
    atm_store_rlx(&t->asked, COIR__ASKED_NOT);
    atm_store_rlx(&t->sent_at, 0);
    atm_store_rlx(&t->owner.held, 0); /* whoever held it is not in this process */
  }
  atm_and_sc(&sleepers, ~COIR__SLEEPERS_MASK);
  atm_store_rlx(&threads_begun, 0);
  atm_store_rlx(&threads_over, 0);
#if defined(COIR_TSAN)
  is_tsan_lost = threads_at_fork > 2; /* with its own */
#endif
  struct coir__thread *t = coir__thread_peek();
  if (t) {
    t->is_own = false;
    atm_store_rlx(&t->tid, (int)syscall(SYS_gettid));
  }
  fork_done();
}

static int record_init(void) {
  coir__os_fence_init();
  int error = has_record_key ? 0 : pthread_key_create(&record_key, record_end);
  if (error) return -error;
  has_record_key = true;
  return -pthread_atfork(fork_prepare, fork_done, fork_child);
}

struct coir__thread *coir__thread_get(void) {
  struct coir__thread *t = coir__thread_peek();
  if (COIR_LIKELY(t != NULL)) return t;
  int saved = errno_get();
  if (coir__os_once(&record_once, record_init) == 0) t = record_take();
  if (t && !record_tie(t)) {
    tls_set(NULL);
    record_give(t);
    t = NULL;
  }
  errno_set(saved);
  return t;
}

struct coir__thread *coir__thread_first(void) {
  return atm_load_acq(&records);
}

void coir__thread_sleep_begin(struct coir__thread *t, uint64_t what) {
  atm_store_rlx(&t->since, coir__os_now());
  atm_store_rel(&t->asleep, what); /* and all that it did before; pairs with the acquire in look_at_threads() */
  /* Sequentially consistent: counted before the look at the workers; they go to sleep before they look at this. */
  atm_add_sc(&sleepers, (UINT64_C(1) << COIR__SLEEPERS_BITS) + 1);
}

void coir__thread_sleep_end(struct coir__thread *t) {
  atm_sub_sc(&sleepers, 1);
  atm_store_rel(&t->asleep, 0);
}

uint64_t coir__thread_sleepers(void) { return atm_load_sc(&sleepers); }
