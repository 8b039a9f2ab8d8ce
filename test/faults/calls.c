/* The system as the library sees it here: each of its calls comes to a function of this file, by the name (CMakeLists
 * renames them in a copy of the library), and is counted, fails when its turn has come, or goes on to the system.
 *
 * No locks: a thread may be paused by the library wherever it is. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "faults.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

/* ---- Which call fails ------------------------------------------------------------------------------------------ */

/* Shared with the forks of the process. */
static struct {
  _Atomic(bool) is_armed, has_come;
  enum fault_kind kind;
  int nth, error;
  _Atomic(int) counts[FAULT_KIND_COUNT];
} * armed;

void fault_arm(enum fault_kind kind, int nth, int error) {
  if (!armed) armed = mmap(NULL, sizeof *armed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (armed == MAP_FAILED) abort();
  memset(armed, 0, sizeof *armed);
  armed->kind = kind;
  armed->nth = nth;
  armed->error = error;
  atomic_store(&armed->is_armed, true);
}

void fault_disarm(void) { atomic_store(&armed->is_armed, false); }
int fault_count(enum fault_kind kind) { return atomic_load(&armed->counts[kind]); }
bool fault_has_come(void) { return armed && atomic_load(&armed->has_come); }

int fault_injected(enum fault_kind *kind) {
  *kind = armed->kind;
  return armed->error;
}

static _Atomic(bool) kernel_is_old;

void fault_age(bool is_old) { atomic_store(&kernel_is_old, is_old); }

/* What the call is to fail by; 0: nothing. */
static int fault(enum fault_kind kind) {
  if (!armed || !atomic_load(&armed->is_armed)) return 0;
  int n = atomic_fetch_add(&armed->counts[kind], 1) + 1;
  if (kind != armed->kind || n != armed->nth) return 0;
  atomic_store(&armed->has_come, true);
  return armed->error;
}

/* ---- What the library holds ------------------------------------------------------------------------------------ */

#define THINGS 65536 /* a power of two */
#define GONE ((uintptr_t)1)

/* Addresses of blocks, or numbers of descriptors and one more, with their sites. */
struct things {
  _Atomic(uintptr_t) key[THINGS];
  void *_Atomic site[THINGS];
};

static struct things blocks, descriptors;
static _Atomic(long) mapped_bytes;

static size_t first_place(uintptr_t key) { return (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 40) & (THINGS - 1); }

static void thing_taken(struct things *t, uintptr_t key, void *site) {
  for (size_t i = first_place(key), tries = 0; tries < THINGS; i = (i + 1) & (THINGS - 1), tries++) {
    uintptr_t free = 0, gone = GONE;
    if (!atomic_compare_exchange_strong(&t->key[i], &free, key) &&
        !atomic_compare_exchange_strong(&t->key[i], &gone, key))
      continue;
    atomic_store(&t->site[i], site);
    return;
  }
  fprintf(stderr, "faults: the library holds too much\n");
  abort();
}

/* What is not known was not taken by the library itself. */
static void thing_given(struct things *t, uintptr_t key) {
  for (size_t i = first_place(key), tries = 0; tries < THINGS; i = (i + 1) & (THINGS - 1), tries++) {
    uintptr_t seen = atomic_load(&t->key[i]);
    if (seen == 0) return;
    if (seen != key) continue;
    atomic_store(&t->site[i], NULL);
    atomic_store(&t->key[i], GONE);
    return;
  }
}

static void add_holding(struct fault_holdings *out, void *site) {
  for (int i = 0; i < FAULT_SITES_MAX; i++) {
    if (out->sites[i].site && out->sites[i].site != site) continue;
    out->sites[i].site = site;
    out->sites[i].count++;
    return;
  }
  abort();
}

static void add_holdings(struct fault_holdings *out, struct things *t) {
  for (size_t i = 0; i < THINGS; i++) {
    void *site = atomic_load(&t->key[i]) > GONE ? atomic_load(&t->site[i]) : NULL;
    if (site) add_holding(out, site);
  }
}

void fault_holdings_get(struct fault_holdings *out) {
  memset(out, 0, sizeof *out);
  add_holdings(out, &blocks);
  add_holdings(out, &descriptors);
  out->mapped_bytes = atomic_load(&mapped_bytes);
}

static void *block_taken(void *block, void *site) {
  if (block) thing_taken(&blocks, (uintptr_t)block, site);
  return block;
}

static int descriptor_taken(int fd, void *site) {
  if (fd >= 0) thing_taken(&descriptors, (uintptr_t)fd + 2, site);
  return fd;
}

#define SITE __builtin_return_address(0)

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

#define FAULTY(type, name, parameters) \
  type faulty_##name parameters;       \
  type faulty_##name parameters
#define OR_FAIL(kind, failed) \
  do {                        \
    int error_ = fault(kind); \
    if (error_) {             \
      errno = error_;         \
      return failed;          \
    }                         \
  } while (0)
/* Sets errno and returns `failed`; or goes on. */
#define BY_ERRNO(type, name, parameters, arguments, failed) \
  FAULTY(type, name, parameters) {                          \
    OR_FAIL(FAULT_##name, failed);                          \
    return name arguments;                                  \
  }
/* The same with a descriptor as the result. */
#define TAKES_FD(name, parameters, arguments)      \
  FAULTY(int, name, parameters) {                  \
    OR_FAIL(FAULT_##name, -1);                     \
    return descriptor_taken(name arguments, SITE); \
  }
/* Returns the error. */
#define BY_RESULT(name, kind, parameters, arguments) \
  FAULTY(int, name, parameters) {                    \
    int error = fault(kind);                         \
    return error ? error : name arguments;           \
  }

/* ---- Memory */

FAULTY(void *, malloc, (size_t bytes)) {
  OR_FAIL(FAULT_malloc, NULL);
  return block_taken(malloc(bytes), SITE);
}

FAULTY(void *, calloc, (size_t n, size_t bytes)) {
  OR_FAIL(FAULT_calloc, NULL);
  return block_taken(calloc(n, bytes), SITE);
}

static void *_Atomic site_of_records;

void *fault_site_of_records(void) { return atomic_load(&site_of_records); }

FAULTY(void *, aligned_alloc, (size_t align, size_t bytes)) {
  OR_FAIL(FAULT_aligned_alloc, NULL);
  atomic_store(&site_of_records, SITE);
  return block_taken(aligned_alloc(align, bytes), SITE);
}

FAULTY(char *, strdup, (const char *text)) {
  OR_FAIL(FAULT_strdup, NULL);
  return block_taken(strdup(text), SITE);
}

FAULTY(void, free, (void *memory)) {
  if (memory) thing_given(&blocks, (uintptr_t)memory);
  free(memory);
}

static long whole_pages(size_t bytes) {
  long page = sysconf(_SC_PAGESIZE);
  return ((long)bytes + page - 1) / page * page;
}

FAULTY(void *, mmap, (void *at, size_t bytes, int prot, int flags, int fd, off_t offset)) {
  OR_FAIL(FAULT_mmap, MAP_FAILED);
  void *memory = mmap(at, bytes, prot, flags, fd, offset);
  if (memory != MAP_FAILED) atomic_fetch_add(&mapped_bytes, whole_pages(bytes));
  return memory;
}

/* Where it fails, the system keeps the memory: that is no leak of the library's. */
FAULTY(int, munmap, (void *memory, size_t bytes)) {
  atomic_fetch_sub(&mapped_bytes, whole_pages(bytes));
  OR_FAIL(FAULT_munmap, -1);
  return munmap(memory, bytes);
}

FAULTY(int, madvise, (void *memory, size_t bytes, int advice)) {
  OR_FAIL(FAULT_madvise, -1);
  if (advice > MADV_DONTNEED_LOCKED && atomic_load(&kernel_is_old)) {
    errno = EINVAL;
    return -1;
  }
  return madvise(memory, bytes, advice);
}

BY_ERRNO(int, mprotect, (void *memory, size_t bytes, int prot), (memory, bytes, prot), -1)
BY_ERRNO(int, mincore, (void *memory, size_t bytes, unsigned char *out), (memory, bytes, out), -1)

/* ---- Threads, signals, the processor */

BY_RESULT(pthread_create, FAULT_pthread_create,
          (pthread_t * out, const pthread_attr_t *attr, void *(*fn)(void *), void *arg), (out, attr, fn, arg))
BY_RESULT(pthread_attr_init, FAULT_pthread_attr_init, (pthread_attr_t * attr), (attr))
BY_RESULT(pthread_getattr_np, FAULT_pthread_getattr_np, (pthread_t thread, pthread_attr_t *attr), (thread, attr))
BY_RESULT(pthread_key_create, FAULT_pthread_key_create, (pthread_key_t * key, void (*end)(void *)), (key, end))
BY_RESULT(pthread_atfork, FAULT_pthread_atfork, (void (*prepare)(void), void (*parent)(void), void (*child)(void)),
          (prepare, parent, child))
BY_RESULT(pthread_setname_np, FAULT_pthread_setname_np, (pthread_t thread, const char *name), (thread, name))

/* To set it to nothing takes no memory. */
FAULTY(int, pthread_setspecific, (pthread_key_t key, const void *value)) {
  int error = value ? fault(FAULT_pthread_setspecific) : 0;
  return error ? error : pthread_setspecific(key, value);
}

FAULTY(int, pthread_cond_wait, (pthread_cond_t * cond, pthread_mutex_t *mutex)) {
  return fault(FAULT_pthread_cond_wait) ? 0 : pthread_cond_wait(cond, mutex);
}

FAULTY(int, pthread_cond_timedwait, (pthread_cond_t * cond, pthread_mutex_t *mutex, const struct timespec *at)) {
  return fault(FAULT_pthread_cond_timedwait) ? 0 : pthread_cond_timedwait(cond, mutex, at);
}

FAULTY(int, sigaltstack, (const stack_t *set, stack_t *old)) {
  if (set && !(set->ss_flags & SS_DISABLE)) OR_FAIL(FAULT_sigaltstack, -1);
  return sigaltstack(set, old);
}

BY_ERRNO(int, sigtimedwait, (const sigset_t *set, siginfo_t *info, const struct timespec *limit), (set, info, limit),
         -1)
BY_ERRNO(int, sched_getaffinity, (pid_t pid, size_t bytes, cpu_set_t *set), (pid, bytes, set), -1)
BY_ERRNO(int, sched_setaffinity, (pid_t pid, size_t bytes, const cpu_set_t *set), (pid, bytes, set), -1)

FAULTY(int, prctl, (int op, ...)) {
  va_list list;
  unsigned long a[4];
  va_start(list, op);
  for (int i = 0; i < 4; i++) a[i] = va_arg(list, unsigned long);
  va_end(list);
  OR_FAIL(FAULT_prctl, -1);
  return prctl(op, a[0], a[1], a[2], a[3]);
}

/* The time itself can always be told, that of a thread only while it is there. */
FAULTY(int, clock_gettime, (clockid_t clock, struct timespec *out)) {
  if (clock < 0) OR_FAIL(FAULT_clock_of_thread, -1);
  return clock_gettime(clock, out);
}

/* ---- Files */

FAULTY(int, open, (const char *path, int flags, ...)) {
  va_list list;
  va_start(list, flags);
  mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
  va_end(list);
  OR_FAIL(FAULT_open, -1);
  return descriptor_taken(open(path, flags, mode), SITE);
}

/* Linux closes it whatever it says. */
FAULTY(int, close, (int fd)) {
  thing_given(&descriptors, (uintptr_t)fd + 2);
  int rc = close(fd), error = fault(FAULT_close);
  if (rc == 0 && error) {
    errno = error;
    rc = -1;
  }
  return rc;
}

static mode_t type_of(int fd) {
  struct stat st;
  int saved = errno;
  mode_t type = fstat(fd, &st) == 0 ? st.st_mode & S_IFMT : 0;
  errno = saved;
  return type;
}

/* What a transfer of `bytes` from or to `fd` is to fail by: what can happen there. */
static int fault_of_transfer(enum fault_kind kind, int fd, size_t bytes) {
  bool is_input = kind == FAULT_read || kind == FAULT_readv || kind == FAULT_pread;
  mode_t type = type_of(fd);
  enum fault_kind armed_kind;
  int error = armed ? fault_injected(&armed_kind) : 0;
  bool is_file = type == S_IFREG, is_stream = is_file || type == S_IFSOCK;
  if (error == EINTR && !is_stream) return 0;
  if ((error == EIO || error == ENOSPC) && !is_file) return 0;
  if (error == FAULT_SHORT && is_input && !is_file) return 0; /* a socket gives what it has */
  if (error == FAULT_SHORT && (!is_stream || bytes < 2 || (is_file && fcntl(fd, F_GETFL) & O_DIRECT))) return 0;
  return fault(kind);
}

#define TRANSFER(name, parameters, arguments, fewer)        \
  FAULTY(ssize_t, name, parameters) {                       \
    int error = fault_of_transfer(FAULT_##name, fd, bytes); \
    if (error == FAULT_SHORT) return name fewer;            \
    if (!error) return name arguments;                      \
    errno = error;                                          \
    return -1;                                              \
  }
TRANSFER(read, (int fd, void *buf, size_t bytes), (fd, buf, bytes), (fd, buf, 1))
TRANSFER(write, (int fd, const void *buf, size_t bytes), (fd, buf, bytes), (fd, buf, 1))
TRANSFER(pread, (int fd, void *buf, size_t bytes, off_t at), (fd, buf, bytes, at), (fd, buf, 1, at))
TRANSFER(pwrite, (int fd, const void *buf, size_t bytes, off_t at), (fd, buf, bytes, at), (fd, buf, 1, at))

static ssize_t read_one(int fd, const struct iovec *iov) { return read(fd, iov->iov_base, 1); }

FAULTY(ssize_t, readv, (int fd, const struct iovec *iov, int n)) {
  int error = fault_of_transfer(FAULT_readv, fd, iov->iov_len);
  if (error == FAULT_SHORT) return read_one(fd, iov);
  if (!error) return readv(fd, iov, n);
  errno = error;
  return -1;
}

FAULTY(ssize_t, writev, (int fd, const struct iovec *iov, int n)) {
  int error = fault_of_transfer(FAULT_writev, fd, iov->iov_len);
  if (!error) return writev(fd, iov, n);
  errno = error;
  return -1;
}

BY_ERRNO(ssize_t, preadv2, (int fd, const struct iovec *iov, int n, off_t at, int flags), (fd, iov, n, at, flags), -1)
/* Files may lie elsewhere; what the kernel has made up itself is always at hand. */
FAULTY(int, fstat, (int fd, struct stat *out)) {
  int rc = fstat(fd, out);
  if (rc == 0 && S_ISREG(out->st_mode)) OR_FAIL(FAULT_fstat, -1);
  return rc;
}

BY_ERRNO(int, stat, (const char *path, struct stat *out), (path, out), -1)
BY_ERRNO(int, access, (const char *path, int mode), (path, mode), -1)
BY_ERRNO(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL)
BY_ERRNO(ssize_t, getline, (char **line, size_t *room, FILE *file), (line, room, file), -1)
/* What the headers of glibc make of the former where they inline it. */
FAULTY(ssize_t, __getdelim, (char **line, size_t *room, int end, FILE *file)) {
  OR_FAIL(FAULT_getline, -1);
  return getdelim(line, room, end, file);
}
BY_ERRNO(DIR *, opendir, (const char *path), (path), NULL)
BY_ERRNO(struct dirent *, readdir, (DIR * dir), (dir), NULL)

FAULTY(int, fcntl, (int fd, int op, ...)) {
  va_list list;
  va_start(list, op);
  long arg = va_arg(list, long);
  va_end(list);
  if (op != F_DUPFD_CLOEXEC) return fcntl(fd, op, arg);
  OR_FAIL(FAULT_dup, -1);
  return descriptor_taken(fcntl(fd, op, arg), SITE);
}

/* ---- Descriptors */

FAULTY(int, pipe2, (int fds[2], int flags)) {
  OR_FAIL(FAULT_pipe2, -1);
  int rc = pipe2(fds, flags);
  if (rc == 0) descriptor_taken(fds[0], SITE), descriptor_taken(fds[1], SITE);
  return rc;
}

TAKES_FD(eventfd, (unsigned value, int flags), (value, flags))
TAKES_FD(signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags))
TAKES_FD(epoll_create1, (int flags), (flags))
TAKES_FD(socket, (int domain, int type, int protocol), (domain, type, protocol))
TAKES_FD(accept4, (int fd, struct sockaddr *addr, socklen_t *bytes, int flags), (fd, addr, bytes, flags))

FAULTY(int, epoll_ctl, (int epoll, int op, int fd, struct epoll_event *event)) {
  if (op == EPOLL_CTL_ADD) OR_FAIL(FAULT_epoll_add, -1);
  return epoll_ctl(epoll, op, fd, event);
}

BY_ERRNO(int, epoll_wait, (int epoll, struct epoll_event *events, int n, int ms), (epoll, events, n, ms), -1)
BY_ERRNO(int, poll, (struct pollfd * fds, nfds_t n, int ms), (fds, n, ms), -1)

/* Interrupted, it goes on in the background. */
FAULTY(int, connect, (int fd, const struct sockaddr *addr, socklen_t bytes)) {
  int error = fault(FAULT_connect);
  if (error == EINTR) (void)connect(fd, addr, bytes);
  if (!error) return connect(fd, addr, bytes);
  errno = error;
  return -1;
}

FAULTY(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *bytes)) {
  if (name != SO_ERROR) OR_FAIL(FAULT_getsockopt, -1);
  return getsockopt(fd, level, name, value, bytes);
}

TRANSFER(recvfrom, (int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes),
         (fd, buf, bytes, flags, addr, addr_bytes), (fd, buf, 1, flags, addr, addr_bytes))
TRANSFER(sendto, (int fd, const void *buf, size_t bytes, int flags, const struct sockaddr *addr, socklen_t addr_bytes),
         (fd, buf, bytes, flags, addr, addr_bytes), (fd, buf, 1, flags, addr, addr_bytes))
BY_ERRNO(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags), -1)
BY_ERRNO(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags), -1)

FAULTY(int, getaddrinfo, (const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)) {
  if (hints && hints->ai_flags & AI_NUMERICHOST) return getaddrinfo(node, service, hints, out);
  int error = fault(FAULT_getaddrinfo);
  switch (error) {
  case 0: return getaddrinfo(node, service, hints, out);
  case FAULT_EAI_MEMORY: return EAI_MEMORY;
  case FAULT_EAI_AGAIN: return EAI_AGAIN;
  case FAULT_EAI_FAIL: return EAI_FAIL;
  default: errno = error; return EAI_SYSTEM;
  }
}

/* ---- Processes */

BY_ERRNO(int, kill, (pid_t pid, int signo), (pid, signo), -1)
BY_ERRNO(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), -1)

/* Somebody else has waited for it. */
FAULTY(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options)) {
  int rc = waitid(type, id, info, options);
  if (rc == 0 && info->si_pid) OR_FAIL(FAULT_waitid, -1);
  return rc;
}

BY_RESULT(posix_spawnp, FAULT_posix_spawnp,
          (pid_t * pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
           char *const argv[], char *const envp[]),
          (pid, path, actions, attr, argv, envp))
BY_RESULT(posix_spawn_file_actions_init, FAULT_posix_spawn_file_actions, (posix_spawn_file_actions_t * actions),
          (actions))
BY_RESULT(posix_spawn_file_actions_addopen, FAULT_posix_spawn_file_actions,
          (posix_spawn_file_actions_t * actions, int fd, const char *path, int flags, mode_t mode),
          (actions, fd, path, flags, mode))
BY_RESULT(posix_spawn_file_actions_adddup2, FAULT_posix_spawn_file_actions,
          (posix_spawn_file_actions_t * actions, int fd, int to), (actions, fd, to))
BY_RESULT(posix_spawn_file_actions_addchdir_np, FAULT_posix_spawn_file_actions,
          (posix_spawn_file_actions_t * actions, const char *path), (actions, path))
BY_RESULT(posix_spawnattr_init, FAULT_posix_spawnattr_init, (posix_spawnattr_t * attr), (attr))

/* ---- System calls by number */

enum { SURE = -1, UNKNOWN = -2 };

static int kind_of_futex(long op) {
  return (op & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET || (op & FUTEX_CMD_MASK) == FUTEX_WAIT ? FAULT_futex_wait : SURE;
}

static int kind_of_membarrier(long op) {
  return op == MEMBARRIER_CMD_QUERY                        ? FAULT_membarrier_query
         : op == MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED ? FAULT_membarrier_register
                                                           : FAULT_membarrier;
}

static int kind_of_number(long number, long b) {
  switch (number) {
  case SYS_futex: return kind_of_futex(b);
  case SYS_gettid:
  case SYS_rt_sigprocmask: /* with ThreadSanitizer */
  case SYS_io_destroy:
  case SYS_epoll_ctl: return SURE;
  case SYS_recvfrom: return FAULT_recvfrom;
  case SYS_sendto: return FAULT_sendto;
  case SYS_sched_setattr: return FAULT_sched_setattr;
  case SYS_sched_getattr: return FAULT_sched_getattr;
  case SYS_pwritev2: return FAULT_pwritev2;
  case SYS_io_setup: return FAULT_io_setup;
  case SYS_io_submit: return FAULT_io_submit;
  case SYS_rt_tgsigqueueinfo: return FAULT_tgsigqueueinfo;
  case 424: return FAULT_pidfd_send_signal;
  case 425: return FAULT_io_uring_setup;
  case 426: return FAULT_io_uring_enter;
  case 434: return FAULT_pidfd_open;
  case 436: return FAULT_close_range;
  case 441: return FAULT_epoll_pwait2;
  default: return UNKNOWN;
  }
}

/* Linux 5.4 has none of these. */
static int refusal_of_old(int kind) {
  switch (kind) {
  case FAULT_pwritev2: return EOPNOTSUPP; /* its flag */
  case FAULT_io_uring_setup:
  case FAULT_epoll_pwait2:
  case FAULT_close_range: return ENOSYS;
  default: return 0;
  }
}

FAULTY(long, syscall, (long number, long a, long b, long c, long d, long e, long f)) {
  switch (number) { /* by number, but no other calls */
  case SYS_openat: return faulty_open((const char *)b, (int)c);
  case SYS_read: return faulty_read((int)a, (void *)b, (size_t)c);
  case SYS_close: return faulty_close((int)a);
  default: break;
  }
  int kind = number == SYS_membarrier ? kind_of_membarrier(a) : kind_of_number(number, b), error = 0;
  if (kind == UNKNOWN) {
    fprintf(stderr, "faults: the library makes system call %ld, of which calls.c does not know how it fails\n", number);
    abort();
  }
  if (kind == FAULT_recvfrom || kind == FAULT_sendto)
    error = fault_of_transfer((enum fault_kind)kind, (int)a, (size_t)c);
  else if (kind != SURE) error = fault((enum fault_kind)kind);
  if (!error && atomic_load(&kernel_is_old)) error = refusal_of_old(kind);
  if (error == FAULT_SPURIOUS) return 0;
  if (error == FAULT_SHORT) return syscall(number, a, b, 1L, d, e, f);
  if (error) {
    errno = error;
    return -1;
  }
  long rc = syscall(number, a, b, c, d, e, f);
  if (number == 425 || number == 434) descriptor_taken((int)rc, SITE);
  return rc;
}
