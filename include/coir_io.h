/* coir_io.h: input and output that suspends the fiber, not the thread; names, signals and child processes likewise.
 *
 * Each call does what the system call of the same name does, on any kind of descriptor, with three differences: it
 * returns a negative errno code instead of setting errno; where the system call would block, the fiber waits and its
 * worker goes on with others; and it takes a deadline (coir.h says how deadlines read). On a plain thread the thread
 * blocks instead. EINTR is never returned: the call goes on.
 *
 * Every call tries first and waits only when the descriptor is not ready, so a call that finds data does not suspend.
 * To keep such a fiber from holding its worker for ever, every 64th call in a row that found data lets others run.
 *
 * Errors that every call knows, beside those of the system call itself:
 *   -EBADF      the descriptor is negative, not open, or was closed (coir_close) while the call waited
 *   -ETIMEDOUT  the deadline passed; with a deadline of 0: it would have had to wait
 *   -ECANCELED  the fiber was cancelled. Nothing was transferred, except where a call below says otherwise. A
 *               cancellation that is pending when the call begins is noticed when the call would have to wait.
 *   -ENOMEM     no memory to watch the descriptor; -ENOSPC, the kernel's limit of watched descriptors is reached;
 *               -EMFILE, -ENFILE: no descriptor for the first wait of a plain thread; -EAGAIN: no thread for a file
 *   -ENOTSUP    it would have to wait on a runtime that is the parent's (fork)
 *
 * Blocking mode. Sockets are used without regard to it. Pipes, terminals and other pollable descriptors are switched to
 * O_NONBLOCK on first use and stay so, and so are the sockets that coir_accept and coir_connect are called on, and
 * whatever is adopted. Regular files, block devices and directories are never "not ready", and yet the disk may have to
 * be waited for. What coir_pread reads and lies in the page cache is taken at once. Else the call is made by the kernel
 * (coir_pread and coir_pwrite: io_uring, aio) or by a thread of a small pool, while the fiber waits; a deadline is
 * checked only before that (so with 0 it is -ETIMEDOUT), and a cancellation does not end it.
 *
 * Closing. Close what a fiber or a thread may be waiting on with coir_close: waiters then get -EBADF at once, and no
 * call that began before reaches what gets the number next. After a plain close(2) of a descriptor that nobody waits
 * on, its number can be used again at once, too. A waiter of a descriptor that was closed by plain close(2) under it
 * gets -EBADF within 3 s: while anybody waits on descriptors that are not adopted, they are looked at now and then.
 * And the other end of a socket or pipe that was closed by close(2) may learn of it up to 1 s late, by a chance of
 * about 1 in 10 000 on a busy one: Linux (since 6.10; seen with 6.18) keeps a file that epoll_wait looks at until the
 * call returns, for which workers that sleep in it return once a second. After coir_close there is no such delay.
 *
 * SIGPIPE. Writing to a socket or a pipe whose reader is gone returns -EPIPE without the signal, whose disposition
 * stays what the program made of it. */
#ifndef COIR_IO_H
#define COIR_IO_H

#include <sys/select.h> /* sigset_t */
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "coir.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads up to `bytes` bytes. Returns how many, 0 at the end of the stream, or an error. */
COIR_API ssize_t coir_read(int fd, void *buf, size_t bytes, int64_t deadline);
COIR_API ssize_t coir_readv(int fd, const struct iovec *iov, int iov_count, int64_t deadline);

/* Writes up to `bytes` bytes, at least one. Returns how many, or an error. */
COIR_API ssize_t coir_write(int fd, const void *buf, size_t bytes, int64_t deadline);
COIR_API ssize_t coir_writev(int fd, const struct iovec *iov, int iov_count, int64_t deadline);

/* The same at `offset` of a file, wherever the descriptor stands, and that stays so. Fewer bytes than asked for are
 * transferred at the end of the file, and where an error or the deadline came after a part; the next call meets the
 * error again. -ESPIPE on what has no offsets; -EINVAL for a negative one. */
COIR_API ssize_t coir_pread(int fd, void *buf, size_t bytes, off_t offset, int64_t deadline);
COIR_API ssize_t coir_pwrite(int fd, const void *buf, size_t bytes, off_t offset, int64_t deadline);

/* Reads exactly `bytes` bytes. Returns `bytes`; less at the end of the stream; an error when nothing was read before
 * it. An error after some bytes is not lost: they are counted now, and the next call meets the error again. (Where the
 * descriptor is not adopted, the reset of a connection reads as the end of the stream then, as the kernel has it.) */
COIR_API ssize_t coir_read_full(int fd, void *buf, size_t bytes, int64_t deadline);

/* Writes all `bytes` bytes. Returns `bytes`; fewer when an error or the deadline came after a part was written (the
 * next call meets the error again); the error when nothing was written. */
COIR_API ssize_t coir_write_full(int fd, const void *buf, size_t bytes, int64_t deadline);

/* Like recv, recvfrom, recvmsg, send, sendto, sendmsg. MSG_DONTWAIT in `flags` has no meaning (use deadline 0);
 * MSG_WAITALL is not honoured (use coir_read_full). -ENOTSOCK on what is not a socket. */
COIR_API ssize_t coir_recv(int fd, void *buf, size_t bytes, int flags, int64_t deadline);
COIR_API ssize_t coir_recvfrom(int fd, void *buf, size_t bytes, int flags, struct sockaddr *addr, socklen_t *addr_bytes,
                               int64_t deadline);
COIR_API ssize_t coir_recvmsg(int fd, struct msghdr *msg, int flags, int64_t deadline);
COIR_API ssize_t coir_send(int fd, const void *buf, size_t bytes, int flags, int64_t deadline);
COIR_API ssize_t coir_sendto(int fd, const void *buf, size_t bytes, int flags, const struct sockaddr *addr,
                             socklen_t addr_bytes, int64_t deadline);
COIR_API ssize_t coir_sendmsg(int fd, const struct msghdr *msg, int flags, int64_t deadline);

/* Makes a socket that is non-blocking, close-on-exec and adopted (see coir_adopt). Returns the descriptor or an
 * error. */
COIR_API int coir_socket(int domain, int type, int protocol);

/* Accepts a connection; `addr` and `addr_bytes` may be NULL. The new socket is non-blocking, close-on-exec and adopted.
 * A connection that was reset before it was accepted is skipped. Returns the descriptor or an error (-EMFILE and
 * -ENFILE among them: the connection stays in the backlog). */
COIR_API int coir_accept(int fd, struct sockaddr *addr, socklen_t *addr_bytes, int64_t deadline);

/* Connects `fd`. Returns 0, or an error: -ECONNREFUSED and the like from the network. After -ETIMEDOUT or -ECANCELED
 * the attempt may still be under way in the kernel: close the socket. Where the backlog of a unix socket is full it
 * tries again every few milliseconds, and so do datagrams to a unix socket that are sent by name. */
COIR_API int coir_connect(int fd, const struct sockaddr *addr, socklen_t addr_bytes, int64_t deadline);

/* Events of coir_poll. */
#define COIR_READABLE 1
#define COIR_WRITABLE 2

/* Waits until `fd` is readable or writable, as `events` asks; hang-up and error count as both.
 * Returns the events that hold (a subset of `events`, not 0), or an error; -EINVAL when `events` is 0 or has other
 * bits. Regular files are always ready. */
COIR_API int coir_poll(int fd, int events, int64_t deadline);

/* Closes `fd`. Whoever waits on it gets -EBADF, at once, even where close(2) itself blocks the thread (SO_LINGER, a
 * file on another machine). Does not wait for the kernel's own work on it. Returns 0, -EBADF, or what close(2) reported
 * (the descriptor is gone all the same). */
COIR_API int coir_close(int fd);

/* Promises that `fd` will be closed by coir_close and by nothing else. In return its waits cost one system call less.
 * coir_socket and coir_accept have promised for what they return. Returns 0 or -EBADF, -ENOMEM; what
 * fstat(2) says of a file that is out of reach.
 *
 * A TCP socket that is adopted is taken to be empty after a read that returned less than it asked for. That holds for
 * bytes; with kernel TLS, whose records of other types end a read early, use coir_recvmsg with room for control
 * data. */
COIR_API int coir_adopt(int fd);

/* Takes that promise back: from now on the descriptor may be closed by close(2), or be handed to somebody who does. Who
 * waits on it goes on waiting. Returns as coir_adopt. */
COIR_API int coir_disown(int fd);

/* ---- Names ----------------------------------------------------------------------------------------------------- */

struct addrinfo; /* <netdb.h> */

/* Looks up `node` and `service` as getaddrinfo does; either may be NULL, and so may `hints`. All three are copied. The
 * caller gives `*out` up by freeaddrinfo; on error it is NULL.
 *
 * Addresses and port numbers in digits are answered at once. Names are looked up on the pool of threads that serves
 * files, at most 16 at a time, while the fiber waits; on a plain thread with COIR_NEVER, on that thread. When the
 * deadline comes first, or the fiber is cancelled, the look-up goes on there and what it finds is freed there. With a
 * deadline of 0 only digits are understood.
 *
 * Returns 0, or:
 *   -ENOENT           no such name, or it has no such address (EAI_NONAME, EAI_NODATA, EAI_ADDRFAMILY)
 *   -EAGAIN           no name server answered: try again later (EAI_AGAIN); or no thread could be made
 *   -EIO              the name server failed (EAI_FAIL)
 *   -EPROTONOSUPPORT  no such service for this type of socket (EAI_SERVICE)
 *   -ESOCKTNOSUPPORT  hints->ai_socktype (EAI_SOCKTYPE); -EAFNOSUPPORT: hints->ai_family (EAI_FAMILY)
 *   -EINVAL           hints->ai_flags (EAI_BADFLAGS); `out` is NULL
 *   -ENOMEM, -EOVERFLOW (EAI_MEMORY, EAI_OVERFLOW); what the system said (EAI_SYSTEM); -ETIMEDOUT, -ECANCELED */
COIR_API int coir_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                              struct addrinfo **out, int64_t deadline);

/* Connects to a TCP service: looks the names up and tries one address after the other, each for its share of the time
 * that is left. Returns the socket, which is as coir_socket makes them; else an error of coir_getaddrinfo, or that of
 * the last address. */
COIR_API int coir_tcp_connect(const char *node, const char *service, int64_t deadline);

/* ---- Signals --------------------------------------------------------------------------------------------------- */

/* Signals come through a channel, as values, to be received or selected with anything else.
 *
 *     sigset_t set;
 *     sigemptyset(&set), sigaddset(&set, SIGINT), sigaddset(&set, SIGTERM);
 *     coir_signals_open(&signals, &set);
 *     COIR_RECV(coir_signals_chan(signals), &info, COIR_NEVER);
 *     coir_signals_close(signals);
 *
 * From open to close the signal does not do what it would do otherwise, to the process or by a handler that was set;
 * afterwards it does again. Nothing has to be blocked or unblocked for this: threads that block the signal, and threads
 * that do not, may be mixed as they come. What is meant are signals to the process (kill, sigqueue, the terminal,
 * timers, SIGCHLD); one that is directed at a thread (raise, pthread_kill) waits for as long as that thread blocks it,
 * and Coir's own threads block all.
 *
 * As ever with signals, one that comes again before it was taken notice of may be told once only (those from SIGRTMIN
 * on are each told). Those that come close upon each other may be told in another order, as several threads may be at
 * it; not those of one kind that every thread of the program blocks. System calls of threads that a signal meets go on
 * (SA_RESTART) where they can. */
struct coir_siginfo {
  int signo;   /* SIGINT, ... */
  int code;    /* as si_code in sigaction(2): SI_USER, SI_QUEUE, CLD_EXITED, ... */
  pid_t pid;   /* who sent it, or the child that SIGCHLD tells of; 0 when the kernel did */
  uid_t uid;   /* that one's user */
  int status;  /* of SIGCHLD: the child's exit status, or the signal that changed it */
  void *value; /* what sigqueue(3) or a timer gave along; NULL */
};

struct coir_signals; /* opaque */

/* Begins to receive the signals of `set`. Several may be open for the same signal; each gets all of them.
 *
 * A fiber does the work: on the runtime of the caller, of a plain thread on the default one. It keeps that running
 * until coir_signals_close; signals that come while the runtime does not run are kept, up to some hundreds.
 *
 * Returns 0; -EINVAL for NULL, an empty set, and for signals that cannot be caught (SIGKILL, SIGSTOP) or that tell the
 * thread of its own failure and would come again at once if it went on: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP,
 * SIGSYS, SIGABRT. -EAGAIN when 64 are open; -EMFILE, -ENFILE (it takes three descriptors); -ENOMEM. Does not wait. */
COIR_API int coir_signals_open(struct coir_signals **out, const sigset_t *set);

/* The channel, with room for 64; its reference belongs to `signals`, so it lives until coir_signals_close unless the
 * caller takes another one. Who may be in a call on it when others close holds one of its own. */
COIR_API COIR_CHAN(struct coir_siginfo) coir_signals_chan(const struct coir_signals *signals);

/* How many signals were dropped so far because the channel was full. */
COIR_API uint64_t coir_signals_dropped(const struct coir_signals *signals);

/* Ends it: the channel is closed, so that readers get what it holds and then -EPIPE, and where this was the last for a
 * signal, what was set before holds again (unless somebody has set something else since). NULL does nothing. Does not
 * wait. */
COIR_API void coir_signals_close(struct coir_signals *signals);

/* ---- Child processes ------------------------------------------------------------------------------------------- */

/* A child process. Starting it, waiting for it and talking to it suspend the fiber only; there is neither a thread per
 * child nor a handler of SIGCHLD. SIGCHLD must not be ignored, though, and nobody else may wait for all children
 * (wait, waitpid(-1)): the child's status would be gone. */
struct coir_process; /* opaque */

/* What descriptor 0, 1 or 2 of a child is. */
enum coir_stdio_kind {
  COIR_STDIO_INHERIT = 0, /* the caller's of the same number */
  COIR_STDIO_NULL,        /* /dev/null */
  COIR_STDIO_PIPE,        /* a new pipe, whose other end is coir_process_fd */
  COIR_STDIO_FD,          /* `fd`, which stays the caller's; mind that O_NONBLOCK is shared with the child */
  COIR_STDIO_STDOUT,      /* of descriptor 2: what descriptor 1 is */
};
struct coir_stdio {
  enum coir_stdio_kind kind;
  int fd;
};

#define COIR_PROCESS_GROUP 1u /* it leads a process group of its own, and coir_process_kill reaches the whole group */

/* How to start a child. All zero but `path` is a good default. */
struct coir_process_options {
  const char *path;        /* the program; without a slash it is looked for in the caller's PATH */
  char *const *argv;       /* its arguments from argv[0] on, ended by NULL; NULL: `path` alone */
  char *const *envp;       /* its environment, ended by NULL; NULL: the caller's */
  const char *dir;         /* where it starts, also what a relative `path` is relative to; NULL: the caller's */
  struct coir_stdio io[3]; /* its descriptors 0, 1, 2; of the others it gets those that are not close-on-exec */
  unsigned flags;          /* COIR_PROCESS_GROUP */
};

/* Starts a child. It begins with no signal blocked and all of them at their defaults.
 *
 * Returns 0; what kept it from starting, such as -ENOENT (program or directory), -EACCES, -ENOEXEC, -E2BIG; -EINVAL
 * for a NULL path, flags or kinds that do not exist; -EBADF for a bad `fd`; -EMFILE, -ENFILE; -EAGAIN, -ENOMEM. After
 * an error there is no child, though one may have run for a moment when descriptors were short. -ECHILD: SIGCHLD is
 * ignored. The fiber waits until the program is loaded; it is not cancelled. */
COIR_API int coir_process_spawn(struct coir_process **out, const struct coir_process_options *options);

/* Our end of the child's descriptor `which` (0, 1, 2), if that is a pipe: to write to for 0, to read from for the
 * others. Adopted, so it is closed by coir_process_close_fd or coir_process_destroy. -EBADF when there is none. */
COIR_API int coir_process_fd(const struct coir_process *process, int which);

/* Closes our end: for 0 the child reads the end of the file. Returns 0; -EBADF when there is none. */
COIR_API int coir_process_close_fd(struct coir_process *process, int which);

/* Its number, which stays its own until it has been waited for. */
COIR_API pid_t coir_process_pid(const struct coir_process *process);

/* A descriptor that is readable from when the child has ended; for reading it is of no use. Belongs to `process`. */
COIR_API int coir_process_pidfd(const struct coir_process *process);

/* An arm of coir_select that is ready when the child has ended: coir_process_wait will not wait. */
static inline struct coir_arm coir_arm_process(const struct coir_process *process) {
  return coir_arm_fd(coir_process_pidfd(process), COIR_READABLE);
}

/* Waits until the child has ended, and stores how in `*status` (may be NULL), for WIFEXITED, WEXITSTATUS, WIFSIGNALED
 * and WTERMSIG of <sys/wait.h>. Any number may wait, and ask again.
 *
 * Returns 0; -ETIMEDOUT, -ECANCELED: it runs on; -ECHILD when somebody else has waited for it; or as coir_poll. */
COIR_API int coir_process_wait(struct coir_process *process, int *status, int64_t deadline);

/* Sends it a signal. Never reaches another process that got the number. Returns 0; -ESRCH when it has ended and been
 * waited for; -EPERM; -EINVAL. */
COIR_API int coir_process_kill(struct coir_process *process, int signo);

/* Forgets the child and closes what belongs to `process`, on which nobody may be in a call. NULL does nothing. A child
 * that still runs goes on; when it has ended, the next coir_process_spawn or _destroy removes what is left of it. */
COIR_API void coir_process_destroy(struct coir_process *process);

#ifdef __cplusplus
}
#endif
#endif
