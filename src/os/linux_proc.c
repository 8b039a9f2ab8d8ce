/* os.h for Linux: signals, child processes, and the resolver of the C library.
 *
 * The handler of signals is the only code of ours that runs at any moment on any thread. It takes no lock, allocates
 * nothing, and leaves errno alone. It also runs where it is nobody's business: in the child of a fork that has not come
 * so far as to put the dispositions back, and of a vfork, which shares our memory. There the signal is meant for the
 * child, so it gets what it would get without us.
 *
 * errno is as it was before: each function puts it back, and none that touches it is inlined. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coir_io.h"
#include "os.h"

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424 /* these two are the same on every architecture */
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#define BY_PIDFD ((idtype_t)3) /* P_PIDFD, an enumerator where the headers have it at all */

#define STDIO_COUNT 3

/* What a call returned, or its error; errno becomes what it was. */
static inline int outcome(int rc, int saved) {
  if (rc < 0) rc = -errno;
  errno = saved;
  return rc;
}

COIR_LEAF int coir__sys_pipe(int fds[2]) {
  int saved = errno;
  return outcome(pipe2(fds, O_CLOEXEC), saved);
}

COIR_LEAF int coir__sys_dup_from(int fd, int least) {
  int saved = errno;
  return outcome(fcntl(fd, F_DUPFD_CLOEXEC, least), saved);
}

/* ---- Signals --------------------------------------------------------------------------------------------------- */

static struct sigaction signal_previous[COIR__SIGNALS]; /* what was set before; (c) while we catch the signal */
static _Atomic(pid_t) catcher;                          /* (a) the process that catches them */

/* The members that mean something depend on how the signal was sent. */
static void siginfo_fill(struct coir_siginfo *out, pid_t pid, uid_t uid, int status, void *value) {
  int code = out->code;
  bool is_child = out->signo == SIGCHLD && code > 0 && code != SI_KERNEL;
  if (is_child) out->status = status;
  if (is_child || code == SI_USER || code == SI_TKILL || code == SI_QUEUE || code == SI_MESGQ) {
    out->pid = pid;
    out->uid = uid;
  }
  if (code == SI_QUEUE || code == SI_MESGQ || code == SI_TIMER) out->value = value;
}

static void on_signal(int signo, siginfo_t *info, void *context) {
  (void)context;
  int saved = errno;
  if (getpid() == atm_load_rlx(&catcher)) {
    struct coir_siginfo out;
    memset(&out, 0, sizeof out); /* padding, too: it goes through a pipe */
    out.signo = signo;
    out.code = info->si_code;
    siginfo_fill(&out, info->si_pid, info->si_uid, info->si_status, info->si_value.sival_ptr);
    coir__signal_came(&out);
  } else {
    sigaction(signo, &signal_previous[signo], NULL);
    kill(getpid(), signo);
  }
  errno = saved;
}

static bool is_ours(const struct sigaction *action) {
  return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_signal;
}

void coir__sys_signal_catch(int signo) {
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  sigfillset(&action.sa_mask); /* one after the other: an alternate stack is small */
  atm_store_rlx(&catcher, getpid());
  sigaction(signo, &action, &signal_previous[signo]);
  /* Somebody had set his own over ours, and put ours back when we were gone. */
  if (is_ours(&signal_previous[signo])) signal_previous[signo] = (struct sigaction){.sa_handler = SIG_DFL};
}

void coir__sys_signal_release(int signo) {
  struct sigaction now;
  if (sigaction(signo, NULL, &now) == 0 && is_ours(&now)) sigaction(signo, &signal_previous[signo], NULL);
}

COIR_LEAF int coir__sys_signalfd(const sigset_t *set) {
  int saved = errno;
  return outcome(signalfd(-1, set, SFD_NONBLOCK | SFD_CLOEXEC), saved);
}

COIR_LEAF int coir__sys_signal_read(int fd, struct coir_siginfo *out) {
  int saved = errno;
  struct signalfd_siginfo raw;
  int rc = outcome((int)read(fd, &raw, sizeof raw), saved);
  if (rc < 0) return rc;
  memset(out, 0, sizeof *out);
  out->signo = (int)raw.ssi_signo;
  out->code = raw.ssi_code;
  siginfo_fill(out, (pid_t)raw.ssi_pid, (uid_t)raw.ssi_uid, raw.ssi_status, (void *)(uintptr_t)raw.ssi_ptr);
  return 0;
}

/* ---- Child processes ------------------------------------------------------------------------------------------- */

extern char **environ;

/* What the child does to its descriptors before it becomes another program. Returns 0 or an error number. */
static int add_actions(posix_spawn_file_actions_t *actions, const struct coir__spawn *s) {
  int error = 0;
  for (int i = 0; i < STDIO_COUNT && error == 0; i++) {
    int fd = s->fds[i];
    if (fd == COIR__SPAWN_NULL) error = posix_spawn_file_actions_addopen(actions, i, "/dev/null", O_RDWR, 0);
    else if (fd == COIR__SPAWN_STDOUT) error = posix_spawn_file_actions_adddup2(actions, STDOUT_FILENO, i);
    else if (fd != COIR__SPAWN_INHERIT) error = posix_spawn_file_actions_adddup2(actions, fd, i);
  }
  if (error == 0 && s->dir) error = posix_spawn_file_actions_addchdir_np(actions, s->dir);
  return error;
}

static int set_attributes(posix_spawnattr_t *attr, const struct coir__spawn *s) {
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | (s->leads_group ? POSIX_SPAWN_SETPGROUP : 0);
  int error = posix_spawnattr_setflags(attr, (short)flags);
  if (error == 0) error = posix_spawnattr_setsigmask(attr, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(attr, &all);
  return error; /* the process group is 0 from the beginning: a new one */
}

COIR_LEAF pid_t coir__sys_spawn(const struct coir__spawn *s) {
  int saved = errno;
  pid_t pid = 0;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  int error = posix_spawn_file_actions_init(&actions);
  if (error == 0) {
    error = posix_spawnattr_init(&attr);
    if (error == 0) {
      error = add_actions(&actions, s);
      if (error == 0) error = set_attributes(&attr, s);
      if (error == 0) error = posix_spawnp(&pid, s->path, &actions, &attr, s->argv, s->envp ? s->envp : environ);
      posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&actions);
  }
  errno = saved;
  return error ? -error : pid;
}

COIR_LEAF int coir__sys_pidfd_open(pid_t pid) {
  int saved = errno;
  return outcome((int)syscall(SYS_pidfd_open, pid, 0), saved);
}

COIR_LEAF int coir__sys_kill(pid_t pid, int pidfd, int signo) {
  int saved = errno;
  int rc = pidfd < 0 ? kill(pid, signo) : (int)syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0);
  return outcome(rc, saved);
}

COIR_LEAF int coir__sys_reap(int pidfd, int *status) {
  int saved = errno;
  siginfo_t info = {.si_pid = 0};
  int rc = outcome(waitid(BY_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG), saved);
  if (rc < 0 || info.si_pid == 0) return rc;
  int code = info.si_code;
  *status = code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status | (code == CLD_DUMPED ? 0x80 : 0);
  return 1;
}

COIR_LEAF void coir__sys_end_child(pid_t pid) {
  int saved = errno, status;
  kill(pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  errno = saved;
}

/* ---- Names ----------------------------------------------------------------------------------------------------- */

/* By itself, because compilers keep errno's address within a function (docs/tls.md). */
static COIR_LEAF int ask_resolver(const char *node, const char *service, const struct addrinfo *hints,
                                  struct addrinfo **out, int *system) {
  int saved = errno, rc = getaddrinfo(node, service, hints, out);
  *system = errno;
  errno = saved;
  return rc;
}

int coir__sys_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
  int system = 0, rc = ask_resolver(node, service, hints, out, &system);
  if (rc != 0) *out = NULL;
  switch (rc) {
  case 0: return 0;
  case EAI_NONAME:
#ifdef EAI_NODATA
  case EAI_NODATA:
  case EAI_ADDRFAMILY:
#endif
    return -ENOENT;
  case EAI_AGAIN: return -EAGAIN;
  case EAI_SERVICE: return -EPROTONOSUPPORT;
  case EAI_SOCKTYPE: return -ESOCKTNOSUPPORT;
  case EAI_FAMILY: return -EAFNOSUPPORT;
  case EAI_BADFLAGS: return -EINVAL;
  case EAI_MEMORY: return -ENOMEM;
  case EAI_OVERFLOW: return -EOVERFLOW;
  case EAI_SYSTEM: return system > 0 ? -system : -EIO;
  default: return -EIO;
  }
}
