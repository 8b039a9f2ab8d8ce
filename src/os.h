/* What the core needs of the operating system; one file per system implements it (os/linux.c).
 *
 * errno occurs only behind this contract: every function here returns 0 or more, or a negative errno code. The
 * pointers are not NULL and sizes are multiples of coir__os_page(), unless a line says otherwise. */
#ifndef COIR_SRC_OS_H
#define COIR_SRC_OS_H

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "types.h"

#if defined(COIR_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

/* For what uses errno: not inlined, so that its address does not live longer than the call. */
#define COIR_LEAF __attribute__((noinline))

size_t coir__os_page(void);

/* Reserves address space: private, anonymous, readable and writable, not accounted (NORESERVE), no huge pages unless
 * `huge`. Aligned to `align` (a power of two, or 0 for a page). NULL when there is none. Gives it back. */
void *coir__os_reserve(size_t bytes, size_t align, bool huge);
void coir__os_release(void *memory, size_t bytes);

/* Returns pages to the system; they read as zero afterwards (MADV_DONTNEED). */
void coir__os_discard(void *memory, size_t bytes);

/* Which of the pages have been written to, as far as the system tells: sets out[i] to 0 where page i has not been. */
void coir__os_touched(void *memory, size_t bytes, unsigned char *out);

/* Makes one page inaccessible: cheaply within one mapping (MADV_GUARD_INSTALL; -EINVAL where the kernel has it not),
 * or by mprotect, which splits the mapping (-ENOMEM at the limit of mappings). */
int coir__os_guard_install(void *page);
int coir__os_guard_protect(void *page);

/* Monotonic clock in ns; of a simulated runtime, on a thread that carries its worker, the simulated one. */
int64_t coir__os_now(void);
int64_t coir__os_real_now(void);
typedef int64_t (*coir__clock)(void);
extern _Atomic(coir__clock) coir__os_clock; /* (a) what the former is instead, once there are such runtimes; or NULL */
static inline bool coir__os_is_simulated(void) { return atm_load_rlx(&coir__os_clock) != NULL; } /* for who made one */

/* Sleeps while *word == value, at most until `deadline` (absolute; COIR_NEVER: no limit). Returns 0 when woken or
 * when the word differs, -ETIMEDOUT, -EINTR. Wakes one sleeper. Private futexes. */
int coir__os_futex_wait(_Atomic(uint32_t) *word, uint32_t value, int64_t deadline);
void coir__os_futex_wake(_Atomic(uint32_t) *word, int count);

#if defined(COIR_TSAN)
/* ThreadSanitizer's contexts of fibers. No signal comes between begin and end: one that came after the thread's last
 * call of what TSan knows, and before a switch, would have to wait until the fiber goes on, which may wait for that
 * very signal; one that comes while a context is made or destroyed comes in that. */
uint64_t coir__os_tsan_begin(void);
void coir__os_tsan_end(uint64_t mask);
void *coir__os_tsan_create(void);
void coir__os_tsan_destroy(void *context);

/* The calling thread has the context `to` from here on; the stack is the same. Inline: it is left in another context
 * than it was entered in, which TSan counts. */
COIR_INLINE void coir__os_tsan_switch(void *to) {
  uint64_t mask = coir__os_tsan_begin();
  __tsan_switch_to_fiber(to, 0);
  coir__os_tsan_end(mask);
}
#endif

/* CPUs, by the numbers that the system has for them. */
#define COIR__CPUS_MAX 8192 /* no kernel has more */
#define COIR__CPUS_WORD (8 * (int)sizeof(long))
struct coir__cpus {
  unsigned long bits[COIR__CPUS_MAX / (8 * sizeof(long))];
};

/* Those that this process may use, as its affinity mask says. Where the calling thread may run. */
int coir__os_cpus_get(struct coir__cpus *out);
int coir__os_cpus_set(const struct coir__cpus *cpus);

/* How many CPUs this process may use: that mask, and the cgroup's quota rounded up (v1 and v2); at least 1. */
int coir__os_cpu_count(void);

/* Reads a small file, and ends what it stores with a zero. Returns the length; -EFBIG: there is no room for that. */
ssize_t coir__os_read_text(const char *path, char *out, size_t bytes);

/* Calls init(), which returns 0 or an error, unless such a call has returned 0 before; what failed is tried again by
 * the next who comes. Others wait meanwhile. In the child of a fork, what a thread of the parent was in the midst of
 * begins anew. `state` is zero at first. Returns 0 or what init() has returned. */
int coir__os_once(_Atomic(uint32_t) *state, int (*init)(void));

/* It is done: for a handler of fork that init() has registered as its last step. Who is called has been. */
void coir__os_once_done(_Atomic(uint32_t) *state);

/* Has child() called in the children of forks, from the first time on. Returns 0 or -ENOMEM. No lock that forking
 * takes, or that the child would miss, may be held. */
int coir__os_at_fork(_Atomic(uint32_t) *state, void (*child)(void));

/* Starts a thread that has its record (coir__thread_get), with a stack of 512 KiB and every signal blocked that a
 * program may want on its own threads (all but the synchronous ones and SIGPROF); `name` shows in ps, cut to 15
 * bytes. Returns 0, -ENOMEM or -EAGAIN. */
int coir__os_thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg);
void coir__os_thread_yield(void);

/* How late the system may end a sleep of the calling thread, in ns, to save wake-ups: sets it, and returns what it was.
 * Where that cannot be told it is left alone: -1, which then sets nothing. */
long coir__os_timer_slack(long ns);

/* Processor time of the thread with that number, in ns; -1: it cannot be told. */
int64_t coir__os_thread_cpu(int tid);

/* The calling thread runs seldom and shortly, and wants to do so soon when its time has come. */
void coir__os_thread_prompt(void);

/* How many threads the process has that were not started by coir__os_thread_start; -1: cannot be told. */
int coir__os_other_threads(void);

/* Registers membarrier once per process and sets coir__fence_asymmetric. Any thread, repeatedly. */
void coir__os_fence_init(void);

/* Bounds of the calling thread's own stack. */
void coir__os_stack_bounds(const void **low, size_t *bytes);

/* Writes all of `text` to fd 2, retrying; for messages before an abort, and from signal handlers. */
void coir__os_complain(const char *text, size_t bytes);

/* ---- Loaded code (os/linux_unwind.c) --------------------------------------------------------------------------- */

/* The tables for unwinding that a module (the program, a library) brings along: their index (.eh_frame_hdr), and the
 * bounds of the segment in which it lies. */
struct coir__module {
  const uint8_t *index, *index_end, *low, *high;
};

/* Calls visit(module, arg) with the module that holds `pc`, unless there is none or it has no tables; it is not
 * unloaded meanwhile. The loader's lock is held: `visit` must be short, and neither wait nor call user code. Returns
 * what it returned, else false. */
bool coir__os_module_visit(uintptr_t pc, bool (*visit)(const struct coir__module *module, void *arg), void *arg);

/* ---- The calling thread ---------------------------------------------------------------------------------------- */

/* The record of the calling thread, or NULL when Coir does not know it yet. The only reader of a thread-local in the
 * core.
 *
 * It is never cached across a switch: the read is a volatile instruction (x86-64, aarch64), or a call that the
 * compiler cannot see into, so it is made again each time (TLS pitfalls: docs/tls.md). */
#if defined(__x86_64__) && !defined(COIR_PORTABLE_TLS)
extern __thread struct coir__thread *coir__tls __attribute__((tls_model("initial-exec")));
static inline struct coir__thread *coir__thread_peek(void) {
  struct coir__thread *t;
  __asm__ volatile("movq coir__tls@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(t));
  return t;
}
#elif defined(__aarch64__) && !defined(COIR_PORTABLE_TLS)
extern __thread struct coir__thread *coir__tls __attribute__((tls_model("initial-exec")));
static inline struct coir__thread *coir__thread_peek(void) {
  struct coir__thread *t;
  uintptr_t base;
  __asm__ volatile(
      "mrs %1, tpidr_el0\n\tadrp %0, :gottprel:coir__tls\n\tldr %0, [%0, #:gottprel_lo12:coir__tls]\n\tldr %0, [%1, %0]"
      : "=&r"(t), "=&r"(base));
  return t;
}
#else
struct coir__thread *coir__thread_peek(void);
#endif

/* The same, but makes a record when there is none; NULL only when memory is short. The record goes back when the
 * thread ends (a pthread key's destructor), which runs the destructors of its fiber-local values through
 * coir__thread_ended. */
struct coir__thread *coir__thread_get(void);

/* All records that were ever made, by next; NULL: none. */
struct coir__thread *coir__thread_first(void);

/* The calling thread, which Coir has not started and which is no worker, is going to sleep until some fiber or other
 * thread wakes it, and does nothing else until it says that it is over: for those who look for deadlocks. `what` goes
 * to its `asleep`. */
void coir__thread_sleep_begin(struct coir__thread *t, uint64_t what);
void coir__thread_sleep_end(struct coir__thread *t);
/* How many such threads there are, in the lower bits; above them, how many times one began to be one. */
#define COIR__SLEEPERS_BITS 24
#define COIR__SLEEPERS_MASK ((UINT64_C(1) << COIR__SLEEPERS_BITS) - 1)
uint64_t coir__thread_sleepers(void);

/* Called on a thread that ends, with its record, before that is given back. Set by fiber.c. */
extern void (*coir__thread_ended)(struct coir__thread *thread);

/* ---- What a thread is doing (os/linux_look.c) ------------------------------------------------------------------- */

/* The three below are of use between start and stop, which are counted; a fork ends it. 0, -ENOMEM, -EAGAIN. */
int coir__os_look_start(void);
void coir__os_look_stop(void);
void coir__os_look_fork_child(void);
/* Whether that thread waits in the kernel, and not only for a processor: 1, also where that can never be told; or 0.
 * -EAGAIN: it took too long to find out. Takes some microseconds, at most a few milliseconds. */
int coir__os_thread_waits(int tid);
/* Whether that thread waits in a system call whose first argument is `fd`: 1; 0: it does not; -1: it cannot be told. */
int coir__os_thread_sleeps_on(int tid, int fd);
/* Where that thread waits in the kernel: pc and the stack pointer; the others are not known. False: it does not. */
bool coir__os_thread_where(int tid, struct coir__ctx_registers *at);

/* ---- The signal that pauses a thread (os/linux_pause.c) -------------------------------------------------------- */

/* Has `signo` call coir__pause_signal_came, on the alternate signal stack of the thread that it meets, when it was sent
 * by coir__os_pause_signal_send; else what was set for it before. Once per number; it stays so. Returns 0, or -EINVAL:
 * there is no such signal, or it cannot be caught. */
int coir__os_pause_signal_init(int signo);
void coir__os_pause_fork_child(void);
struct coir__pause_chain *coir__pause_chain_here(void); /* of the calling thread; NULL: it has no record (preempt.c) */
/* Lets it through to the calling thread. Returns whether it was blocked; _close blocks it again. */
bool coir__os_pause_signal_open(int signo);
void coir__os_pause_signal_close(int signo);
void coir__os_pause_signal_send(int tid, int signo);
bool coir__os_pause_signal_is_ours(int signo);                      /* nobody has set something else since */
void coir__pause_signal_came(const struct coir__ctx_registers *at); /* preempt.c; `at`: where the thread stands */

/* ---- Descriptors (os/linux_io.c) ------------------------------------------------------------------------------- */

/* What a descriptor is, as far as waiting is concerned. */
enum coir__kind {
  COIR__KIND_SOCKET, /* each call can be told not to block */
  COIR__KIND_PIPE,   /* pipes and FIFOs: never block once they are O_NONBLOCK; writing may raise SIGPIPE */
  COIR__KIND_OTHER,  /* terminals, eventfds and the like: never block once they are O_NONBLOCK */
  COIR__KIND_FILE,   /* regular files, block devices, directories: always ready, and block all the same */
};

/* One attempt of the system call of that name. Sockets: never blocks, never raises SIGPIPE, whatever the descriptor's
 * blocking mode; -EAGAIN where it would have to wait. read to writev: as the descriptor's mode says. */
ssize_t coir__sys_recv(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes);
ssize_t coir__sys_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t coir__sys_send(int fd, const void *buf, size_t bytes, int flags, const struct sockaddr *addr,
                       socklen_t addr_bytes);
ssize_t coir__sys_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t coir__sys_read(int fd, void *buf, size_t bytes);
ssize_t coir__sys_readv(int fd, const struct iovec *iov, int iov_count);
ssize_t coir__sys_write(int fd, const void *buf, size_t bytes);
ssize_t coir__sys_writev(int fd, const struct iovec *iov, int iov_count);

ssize_t coir__sys_pread(int fd, void *buf, size_t bytes, off_t offset);
ssize_t coir__sys_pwrite(int fd, const void *buf, size_t bytes, off_t offset);

/* Reads from a file what can be had without waiting, because the page cache has it; at `offset`, or with -1 where the
 * descriptor stands. Less than asked for says nothing, but 0 is the end of the file. -EAGAIN where there is something
 * to wait for, and also where it cannot be told. */
ssize_t coir__sys_read_cached(int fd, void *buf, size_t bytes, off_t offset);

/* coir__sys_writev to a pipe or FIFO, without SIGPIPE, whose disposition is left alone. */
ssize_t coir__sys_pipe_writev(int fd, const struct iovec *iov, int iov_count);

/* What they make is non-blocking and close-on-exec. accept and connect block unless `fd` is O_NONBLOCK. */
int coir__sys_socket(int domain, int type, int protocol);
int coir__sys_accept(int fd, struct sockaddr *addr, socklen_t *addr_bytes);
int coir__sys_connect(int fd, const struct sockaddr *addr, socklen_t addr_bytes);

int coir__sys_create(const char *path);       /* a file to write to, empty, made if it is not there; close-on-exec */
int coir__sys_close(int fd);                  /* never -EINTR: the descriptor is gone all the same */
int coir__sys_kind(int fd);                   /* enum coir__kind, or an error */
int coir__sys_is_tcp(int fd);                 /* 1: a stream socket of TCP over IPv4 or IPv6; 0 */
int coir__sys_is_stream(int fd);              /* 1: a stream socket, or a pipe: bytes without boundaries; 0 */
int coir__sys_set_nonblock(int fd);           /* 0, or -EBADF; a look only where it is set already */
int coir__sys_pending_error(int fd);          /* takes SO_ERROR: 0, or the error as a negative code */
int coir__sys_ready(int fd, uint32_t events); /* which of `events` (COIR__POLL_IN, _OUT) hold now, or -EBADF */
uint32_t coir__sys_socket_id(int fd);         /* no other socket has it for long; 0: none, or not a socket */
int coir__sys_fd_limit(void);                 /* numbers of descriptors in this process can never reach this */

/* ---- io_uring (os/linux_uring.c) ------------------------------------------------------------------------------- */

/* A ring is used by the thread that has made it, but for coir__uring_ring. What an operation names, and the record
 * itself, must stay until that is taken back out. */
struct coir__uring;
struct coir__uring_op {
  int fd;
  bool is_write;
  void *buf;
  size_t bytes; /* of more than COIR__URING_BYTES_MAX a part is transferred */
  off_t offset;
  ssize_t result; /* once it is taken out */
};
#define COIR__URING_BYTES_MAX 0x7ffff000u /* as for pread(2) */

/* Makes one for so many operations, a power of two, that are pushed before they are submitted; twice as many may be
 * under way. 0; -ENOSYS, -EPERM and others: the system does not let us. */
int coir__uring_create(struct coir__uring **out, uint32_t entries);
bool coir__uring_is_used(void); /* there has been one: the kernel may have added threads to the process */
void coir__uring_push(struct coir__uring *u, struct coir__uring_op *op);
/* Has the system begin all that was pushed. Returns 0, or an error. *left: so many, the last ones, it has not taken. */
int coir__uring_submit(struct coir__uring *u, uint32_t *left);
/* One that is done, or NULL. */
struct coir__uring_op *coir__uring_take(struct coir__uring *u);
/* Waits until one is done, or until coir__uring_ring, which any thread may call; it may also return earlier. Nothing is
 * pushed. 0 or an error. */
int coir__uring_wait(struct coir__uring *u);
void coir__uring_ring(struct coir__uring *u);
/* fork, in the child: the ring is the parent's, and gone. */
void coir__uring_fork_child(struct coir__uring *u);

/* ---- Asynchronous reads and writes with O_DIRECT (os/linux_aio.c) ---------------------------------------------- */

struct coir__aio {
  uint64_t context;
  int bell;
};
struct coir__aio_op {
  uint64_t block[8]; /* the kernel's record */
};

bool coir__sys_is_direct(int fd); /* opened with O_DIRECT */

/* Room for so many under way. 0; -ENOSYS, -EPERM, -EAGAIN and others: the system does not let us. */
int coir__aio_create(struct coir__aio *out, uint32_t count);
/* Any thread. 0: it is under way, and `op` must stay until it is taken out. Else an error: -EAGAIN: no room. */
int coir__aio_submit(const struct coir__aio *a, struct coir__aio_op *op, const struct coir__uring_op *what);
/* One thread: waits until one may be done; one that is done, and how, -EAGAIN among them: it would have waited for more
 * than the disk; or NULL. */
void coir__aio_wait(const struct coir__aio *a);
struct coir__aio_op *coir__aio_take(const struct coir__aio *a, ssize_t *result);
/* fork, in the child: it is the parent's. */
void coir__aio_fork_child(const struct coir__aio *a);

/* ---- Signals, child processes, names (os/linux_proc.c) --------------------------------------------------------- */

struct addrinfo;
struct coir_siginfo;

int coir__sys_pipe(int fds[2]);            /* close-on-exec and blocking; from the one to read from */
int coir__sys_dup_from(int fd, int least); /* a copy, close-on-exec, with a number from `least` on */

/* Numbers of signals lie below. */
#define COIR__SIGNALS 65

/* From now on every `signo` that meets a thread of this process is handed to coir__signal_came, in a signal handler:
 * instead of what was set before, which coir__sys_signal_release puts back, unless somebody has set something else. */
void coir__sys_signal_catch(int signo);
void coir__sys_signal_release(int signo);
void coir__signal_came(const struct coir_siginfo *info); /* signal.c */

/* A descriptor, non-blocking, that gives out signals which are pending because every thread blocks them. Takes one: 0,
 * or -EAGAIN. */
int coir__sys_signalfd(const sigset_t *set);
int coir__sys_signal_read(int fd, struct coir_siginfo *out);

/* A child to be started: as in coir_process_options, but the descriptors that it gets as 0, 1 and 2 are numbers from 3
 * on, or one of these. */
enum { COIR__SPAWN_INHERIT = -1, COIR__SPAWN_NULL = -2, COIR__SPAWN_STDOUT = -3 };
struct coir__spawn {
  const char *path;
  char *const *argv, *const *envp; /* envp may be NULL */
  const char *dir;                 /* may be NULL */
  int fds[3];
  bool leads_group;
};
pid_t coir__sys_spawn(const struct coir__spawn *s); /* blocks until it is loaded. Its number, or an error */
int coir__sys_pidfd_open(pid_t pid);
int coir__sys_kill(pid_t pid, int pidfd, int signo); /* by `pidfd`; if that is negative, by `pid` as kill(2) does */
int coir__sys_reap(int pidfd, int *status);          /* 1: it has ended, and is no more; 0: it runs; -ECHILD */
void coir__sys_end_child(pid_t pid);                 /* kills it and waits for its end; blocks */

/* May block for long. 0, or an error as coir_getaddrinfo returns it; *out is NULL then. */
int coir__sys_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out);

#endif
