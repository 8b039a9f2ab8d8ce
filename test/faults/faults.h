/* What the parts of the fault tests share: README.md. */
#ifndef COIR_TEST_FAULTS_H
#define COIR_TEST_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

#include "../sanitizers.h"

/* Kinds of calls, with what they may fail by, according to their man pages. Left out are errors of the arguments, which
 * the library has in its hand, and those that would mean that the kernel breaks its word: an eventfd cannot refuse to
 * be written to, and what epoll has said to be ready is. */
#define FAULT_KINDS(X)                                                      \
  X(malloc, ENOMEM)                                                         \
  X(calloc, ENOMEM)                                                         \
  X(aligned_alloc, ENOMEM)                                                  \
  X(strdup, ENOMEM)                                                         \
  X(mmap, ENOMEM, EAGAIN)                                                   \
  X(munmap, ENOMEM)                                                         \
  X(madvise, ENOMEM, EAGAIN, EINVAL)                                        \
  X(mprotect, ENOMEM)                                                       \
  X(mincore, ENOMEM, EAGAIN)                                                \
  X(pthread_create, EAGAIN)                                                 \
  X(pthread_attr_init, ENOMEM)                                              \
  X(pthread_getattr_np, ENOMEM)                                             \
  X(pthread_key_create, EAGAIN, ENOMEM)                                     \
  X(pthread_setspecific, ENOMEM)                                            \
  X(pthread_atfork, ENOMEM)                                                 \
  X(pthread_setname_np, EMFILE)                                             \
  X(pthread_cond_wait, FAULT_SPURIOUS)                                      \
  X(pthread_cond_timedwait, FAULT_SPURIOUS)                                 \
  X(sigaltstack, ENOMEM, EPERM)                                             \
  X(sigtimedwait, EINTR)                                                    \
  X(sched_getaffinity, EINVAL, EPERM)                                       \
  X(sched_setaffinity, EINVAL, EPERM)                                       \
  X(prctl, EINVAL, EPERM)                                                   \
  X(clock_of_thread, EINVAL)                                                \
  X(open, EMFILE, ENFILE, ENOENT, EACCES, EINTR, ENOMEM)                    \
  X(close, EINTR, EIO)                                                      \
  X(read, EINTR, EIO, FAULT_SHORT)                                          \
  X(readv, EINTR, EIO, FAULT_SHORT)                                         \
  X(write, EINTR, ENOSPC, EIO, FAULT_SHORT)                                 \
  X(writev, EINTR, ENOSPC, EIO)                                             \
  X(pread, EINTR, EIO, FAULT_SHORT)                                         \
  X(pwrite, EINTR, ENOSPC, EIO, FAULT_SHORT)                                \
  X(preadv2, EINTR, EAGAIN, EOPNOTSUPP, ENOSYS, EPERM, EIO)                 \
  X(pwritev2, EINTR, EOPNOTSUPP, ENOSYS, EPERM, ENOMEM)                     \
  X(fstat, ENOMEM, EIO)                                                     \
  X(stat, ENOENT, ENOMEM, EACCES)                                           \
  X(access, ENOMEM)                                                         \
  X(dup, EMFILE)                                                            \
  X(fopen, EMFILE, ENOENT, ENOMEM)                                          \
  X(getline, ENOMEM, EIO)                                                   \
  X(opendir, EMFILE, ENFILE, ENOENT, ENOMEM)                                \
  X(readdir, EIO)                                                           \
  X(pipe2, EMFILE, ENFILE)                                                  \
  X(eventfd, EMFILE, ENFILE, ENOMEM)                                        \
  X(signalfd, EMFILE, ENFILE, ENOMEM)                                       \
  X(epoll_create1, EMFILE, ENFILE, ENOMEM)                                  \
  X(epoll_add, ENOMEM, ENOSPC)                                              \
  X(epoll_wait, EINTR)                                                      \
  X(epoll_pwait2, EINTR, ENOSYS, EPERM)                                     \
  X(poll, EINTR, ENOMEM)                                                    \
  X(socket, EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES)                        \
  X(accept4, EINTR, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM)   \
  X(connect, EINTR, ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL)               \
  X(getsockopt, ENOPROTOOPT)                                                \
  X(recvfrom, EINTR, ECONNRESET, ENOMEM)                                    \
  X(sendto, EINTR, ECONNRESET, ENOBUFS, FAULT_SHORT)                        \
  X(recvmsg, EINTR, ECONNRESET, ENOMEM)                                     \
  X(sendmsg, EINTR, ECONNRESET, ENOBUFS)                                    \
  X(getaddrinfo, FAULT_EAI_MEMORY, FAULT_EAI_AGAIN, FAULT_EAI_FAIL, EMFILE) \
  X(futex_wait, EINTR, EAGAIN, FAULT_SPURIOUS)                              \
  X(membarrier_query, ENOSYS, EPERM)                                        \
  X(membarrier_register, ENOSYS, EPERM)                                     \
  X(membarrier, ENOMEM)                                                     \
  X(sched_setattr, EPERM, EINVAL, ENOSYS)                                   \
  X(sched_getattr, EPERM, EINVAL, ENOSYS)                                   \
  X(io_uring_setup, ENOSYS, EPERM, ENOMEM, EMFILE, EINVAL)                  \
  X(io_uring_enter, EINTR, EAGAIN, EBUSY, ENOMEM, EPERM)                    \
  X(io_setup, EAGAIN, ENOMEM, ENOSYS)                                       \
  X(io_submit, EAGAIN, EINVAL, ENOSYS, EPERM)                               \
  X(close_range, EMFILE, ENOMEM, ENOSYS)                                    \
  X(tgsigqueueinfo, EAGAIN, EPERM)                                          \
  X(pidfd_open, EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM)                      \
  X(pidfd_send_signal, EPERM, ENOSYS)                                       \
  X(kill, EPERM)                                                            \
  X(waitid, ECHILD)                                                         \
  X(waitpid, EINTR)                                                         \
  X(posix_spawnp, EAGAIN, ENOMEM)                                           \
  X(posix_spawn_file_actions, ENOMEM)                                       \
  X(posix_spawnattr_init, ENOMEM)

/* What is no error number. */
enum {
  FAULT_SHORT = 1001, /* a part of it is transferred */
  FAULT_SPURIOUS,     /* a wait returns though nobody has ended it */
  FAULT_EAI_MEMORY,
  FAULT_EAI_AGAIN,
  FAULT_EAI_FAIL,
};

#define FAULT_ENUM(name, ...) FAULT_##name,
enum fault_kind { FAULT_KINDS(FAULT_ENUM) FAULT_KIND_COUNT };
#undef FAULT_ENUM

/* ---- Which call fails (calls.c) -------------------------------------------------------------------------------- */

/* From now on call number `nth` of the kind, from 1, fails by `error`; 0: none. Calls are counted anew. */
void fault_arm(enum fault_kind kind, int nth, int error);
void fault_disarm(void);

int fault_count(enum fault_kind kind);     /* calls since it was armed, of this process and its forks */
bool fault_has_come(void);                 /* the call has been made, and has failed */
int fault_injected(enum fault_kind *kind); /* the error that it was to fail by */

/* From now on the kernel is an old one, or a sandbox hides what is new. */
void fault_age(bool is_old);

/* ---- What the library holds (calls.c) -------------------------------------------------------------------------- */

#define FAULT_SITES_MAX 512

/* Blocks of memory, or descriptors, that one place in the code has taken and nobody has given back. */
struct fault_holding {
  void *site; /* where the call returns to */
  int count;
};

struct fault_holdings {
  struct fault_holding sites[FAULT_SITES_MAX]; /* in no order; those not used are zero */
  long mapped_bytes;
};

void fault_holdings_get(struct fault_holdings *out);
void *fault_site_of_records(void); /* where the library takes aligned blocks: of records of threads, which it keeps */

/* ---- Scenes (scenes_*.c) --------------------------------------------------------------------------------------- */

/* Uses a part of the library and gives everything back. Returns 0, or the error of the call that said that it had
 * failed. It may be called again, in the same process. */
struct fault_scene {
  const char *name;
  int (*play)(void);
};

extern const struct fault_scene fault_scenes_core[], fault_scenes_io[], fault_scenes_job[], fault_scenes_planted[];

/* Returns rc if it is none of an error, or one of `codes`, which is what the documentation of the call says; else the
 * scene is over, and has failed. */
int fault_outcome(const char *call, long rc, const int *codes, const char *file, int line);
#define OF_CALL 1 /* among the codes: what the system said to the call of the same purpose */
#define MAY(call, ...) fault_outcome(#call, (call), (const int[]){__VA_ARGS__, 0}, __FILE__, __LINE__)

/* The same for a call that has no way to fail. */
#define MUST(call) (void)fault_outcome(#call, (call), (const int[]){0}, __FILE__, __LINE__)

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      abort();                                                          \
    }                                                                   \
  } while (0)

#endif
