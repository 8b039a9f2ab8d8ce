/* The signal that pauses a thread: os.h for Linux.
 *
 * Ours carry the address of a word of this file (rt_tgsigqueueinfo), which no other sender knows; so they are told from
 * the program's own signals of the same number, which go on to the handler that was there before. Ours stays installed
 * once it is: to take it away while a signal may be under way is not possible. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "os.h"

static char pause_mark;
/* What was there before, or NULL: nothing of ours was. Never freed, since a handler may be reading it. */
struct previous {
  struct sigaction action;
  struct previous *older; /* what was there before ours was there the last time */
};
static _Atomic(struct previous *) pause_previous[COIR__SIGNALS];
static struct coir__lock pause_lock;

static bool is_ignored_by_default(int signo) {
  return signo == SIGURG || signo == SIGCHLD || signo == SIGWINCH || signo == SIGCONT;
}

static void call_previous(const struct sigaction *previous, int signo, siginfo_t *info, void *context) {
  if (previous->sa_flags & SA_SIGINFO) {
    previous->sa_sigaction(signo, info, context);
  } else if (previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN) {
    previous->sa_handler(signo);
  } else if (previous->sa_handler == SIG_DFL && !is_ignored_by_default(signo)) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigemptyset(&action.sa_mask);
    sigaction(signo, &action, NULL);
    raise(signo); /* it comes when this handler has returned */
  }
}

static const struct previous *oldest(const struct previous *previous) {
  while (previous->older) previous = previous->older;
  return previous;
}

/* What the signal would have done without us. One that was set over ours, before ours was set again, may pass the
 * signal on to what it has found, which is us: then it is the turn of what was there before that. `is_passed_on`: we
 * have been called by a handler, and not by the system. On a thread that Coir does not know of that is passed on to the
 * first of all, so that it comes to an end. */
static void pause_chain(int signo, siginfo_t *info, void *context, bool is_passed_on) {
  struct coir__pause_chain nowhere = {NULL, 0}, *here = coir__pause_chain_here();
  const struct previous *previous = atm_load_acq(&pause_previous[signo]); /* the release is in pause_install() */
  if (is_passed_on && !here) previous = oldest(previous);
  if (!here) here = &nowhere;
  struct coir__pause_chain outer = *here;
  if (is_passed_on && outer.now && outer.signo == signo) previous = ((const struct previous *)outer.now)->older;
  if (!previous) return;
  *here = (struct coir__pause_chain){previous, signo};
  call_previous(&previous->action, signo, info, context);
  *here = outer;
}

/* Not inlined, so that the address of errno does not live longer than the call. */
static __attribute__((noinline)) int pause_errno(const int *set) {
  __asm__ volatile("" ::: "memory");
  return set ? errno = *set : errno;
}

/* By DWARF's numbers. */
static void registers_of(const void *context, struct coir__ctx_registers *out) {
  const mcontext_t *m = &((const ucontext_t *)context)->uc_mcontext;
  memset(out, 0, sizeof *out);
#if defined(__x86_64__)
  static const uint8_t order[] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  for (size_t i = 0; i < sizeof order; i++) out->r[i] = (uintptr_t)m->gregs[order[i]];
  out->pc = (uintptr_t)m->gregs[REG_RIP];
#elif defined(__aarch64__)
  for (size_t i = 0; i < 31; i++) out->r[i] = m->regs[i];
  out->r[COIR__CTX_SP] = m->sp;
  out->pc = m->pc;
#else
  (void)m;
#endif
}

static void pause_handler(int signo, siginfo_t *info, void *context) {
  int saved = pause_errno(NULL);
  bool is_ours = info->si_code == SI_QUEUE && info->si_value.sival_ptr == &pause_mark;
  struct coir__ctx_registers at;
  if (is_ours) {
#if defined(COIR_TSAN) /* it delivers signals late, with the registers of the moment at which they came */
    ucontext_t now;
    if (getcontext(&now) == 0) context = &now;
#endif
    registers_of(context, &at);
    coir__pause_signal_came(&at);
  } else {
    /* The system puts what it tells right above the frame of who it calls. */
    const void *frame = __builtin_dwarf_cfa();
    pause_chain(signo, info, context, frame != context && frame != info);
  }
  pause_errno(&saved);
}

static bool is_fault(int signo) {
  return signo == SIGSEGV || signo == SIGBUS || signo == SIGFPE || signo == SIGILL || signo == SIGTRAP ||
         signo == SIGABRT || signo == SIGSYS;
}

/* The lock is held, and what is set now is not ours. */
static int pause_install(int signo) {
  struct previous *previous = malloc(sizeof *previous);
  struct sigaction action = {.sa_sigaction = pause_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  if (!previous) return -ENOMEM;
  if (sigaction(signo, NULL, &previous->action) != 0) {
    free(previous);
    return -EINVAL;
  }
  action.sa_mask = previous->action.sa_mask;
  previous->older = atm_load_rlx(&pause_previous[signo]);
  atm_store_rel(&pause_previous[signo], previous); /* before the handler may be called */
  return sigaction(signo, &action, NULL) == 0 ? 0 : -EINVAL; /* of SIGKILL and SIGSTOP */
}

int coir__os_pause_signal_init(int signo) {
  if (signo < 1 || signo >= COIR__SIGNALS || is_fault(signo)) return -EINVAL;
  int rc = 0, saved = errno;
  coir__lock(&pause_lock);
  if (!coir__os_pause_signal_is_ours(signo)) rc = pause_install(signo);
  coir__unlock(&pause_lock);
  errno = saved;
  return rc;
}

/* Whoever held the lock is not in this process. What it was doing can be done anew. */
void coir__os_pause_fork_child(void) { pause_lock = (struct coir__lock){0}; }

bool coir__os_pause_signal_open(int signo) {
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, signo);
  return pthread_sigmask(SIG_UNBLOCK, &set, &old) == 0 && sigismember(&old, signo) == 1;
}

void coir__os_pause_signal_close(int signo) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signo);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void coir__os_pause_signal_send(int tid, int signo) {
  int saved = errno;
  if (!coir__os_pause_signal_is_ours(signo)) return; /* whoever has set it would be in for a surprise */
  siginfo_t info;
  memset(&info, 0, sizeof info);
  info.si_signo = signo;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = &pause_mark;
  syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signo, &info); /* when it fails another is sent: coir__preempt_remind */
  errno = saved;
}

bool coir__os_pause_signal_is_ours(int signo) {
  struct sigaction now;
  int saved = errno;
  bool is_set = sigaction(signo, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO);
  bool is_ours = is_set && now.sa_sigaction == pause_handler;
  errno = saved;
  return is_ours;
}
