/* Signals as values of a channel.
 *
 * Goal: whoever asks for a signal gets it, whatever the other threads of the process block or do not block.
 *
 * Why it is hard: a signal to the process is given to any one thread that does not block it. signalfd(2) sees only
 * what stays pending, so where a single thread (of a library, say) has the signal unblocked, that thread takes it,
 * and by default the process is gone. A handler, in turn, runs only where some thread does not block the signal; a
 * program that blocks it in main, before it makes threads, has none. And what a handler may do is next to nothing.
 *
 * Design: both. The handler covers the case that some thread does not block the signal, a signalfd the one that all
 * do; the kernel gives a signal to one of them. The handler writes a record to the pipe of each opener; a fiber (the
 * pump of the bell) reads the pipe and sends on the channel. A second one (the pump of the pending) reads the signalfd,
 * and does what the handler would have done. So nobody has to set masks up, and there is no thread for it.
 *
 * Which openers want a signal is a bit mask per signal, so that the handler walks no list. It counts itself in, looks
 * at the mask again, and writes; who closes clears the bit, and waits until nobody is counted in: so a record never
 * reaches a number that was closed. Both use sequentially consistent accesses, so at least one sees the other.
 *
 * Openers are slots of a table, not heap objects: the handler may look at any time, and pumps may be dropped with their
 * runtime wherever they wait. They own nothing. A slot counts lives; a pump whose life is over ends. The numbers of its
 * descriptors may stand for something else by then, so it waits with the lives that they had (poll.c).
 *
 * Refused: SIGKILL and SIGSTOP, which nobody can catch, and those by which a thread is told of its own failure: a
 * handler that returns from one of them meets it again, for ever.
 *
 * Rejected: signalfd alone (see above); blocking the signal in the calling thread (which is a worker, and does nothing
 * for the others); a thread that does not block it (a thread); sending on the channel from the handler (it locks).
 *
 * I1: we catch a signal while a bit of its mask is set.   I2: a bit is set only while its slot's pipe is open.
 *
 * Lock order: `signals_lock` first. It is not held across a wait. The handler takes no lock. */
#include <signal.h>

#include "coir_io.h"
#include "internal.h"

#define OPENERS_MAX 64
#define SIGNALS_ROOM 64
#define PUMP_BURST 64 /* signals that a pump handles before it lets others run */
#define PUMP_RETRY_NS COIR_MS(10)

/* A descriptor that a pump reads, with the life that its number had. */
struct source {
  int fd;
  uint64_t life;
};

/* bell: a pipe, from the handler. pending: a signalfd. */
enum { BELL, PENDING, SOURCES };

struct coir_signals {
  _Atomic(uint32_t) users;   /* (a) handlers that are about to write to `ring` */
  _Atomic(uint64_t) dropped; /* (a) */
  uint32_t life;             /* (l) signals_lock: counts ends */
  bool is_taken;             /* (l) signals_lock: from coir_signals_open to coir_signals_close */
  bool is_live;              /* (l) signals_lock: signals are received */
  int ring;                  /* (c) while a bit of it is set: the end of the pipe to write to */
  struct source sources[SOURCES];
  struct coir_chan *chan; /* (c) while it is taken */
  sigset_t set;           /* (c) while it is live */
};

static struct coir_signals openers[OPENERS_MAX];
static _Atomic(uint64_t) wanted[COIR__SIGNALS]; /* (a) written under signals_lock: bit i: openers[i] wants it */
static pthread_mutex_t signals_lock = PTHREAD_MUTEX_INITIALIZER; /* never held across a wait */
static _Atomic(uint32_t) signals_once;                           /* coir__os_once: the handlers of fork are there */

static const int signals_refused[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

/* ---- From the signal to the pipes ------------------------------------------------------------------------------ */

/* In a signal handler, or by a pump. A pipe that is full loses it; otherwise writing cannot fail, nor split it. */
void coir__signal_came(const struct coir_siginfo *info) {
  if (info->signo <= 0 || info->signo >= COIR__SIGNALS) return;
  struct coir__thread *t = coir__thread_peek();
  uint32_t was = t ? atm_load_rlx(&t->in) : 0;
  if (t) atm_store_rlx(&t->in, 1); /* others wait for us: not to be paused meanwhile */
  _Atomic(uint64_t) *mask = &wanted[info->signo];
  for (uint64_t left = atm_load_sc(mask); left; left &= left - 1) {
    int i = __builtin_ctzll(left);
    atm_add_sc(&openers[i].users, 1); /* before the second look; signals_unhook() does it the other way round */
    if ((atm_load_sc(mask) >> i & 1) && coir__sys_write(openers[i].ring, info, sizeof *info) < 0)
      atm_add_rlx(&openers[i].dropped, 1);
    atm_sub_rel(&openers[i].users, 1); /* we are done with `ring`; pairs with the acquire in signals_unhook() */
  }
  if (t) atm_store_rel(&t->in, was);
}

/* From here on signals of the set are received; signals_lock is held. */
static void signals_hook(struct coir_signals *s) {
  for (int signo = 1; signo < COIR__SIGNALS; signo++) {
    if (sigismember(&s->set, signo) != 1) continue;
    bool is_first = atm_load_rlx(&wanted[signo]) == 0;
    atm_or_sc(&wanted[signo], UINT64_C(1) << (s - openers)); /* publishes `ring` */
    if (is_first) coir__sys_signal_catch(signo);
  }
}

/* And from here on none; signals_lock is held. */
static void signals_unhook(struct coir_signals *s) {
  for (int signo = 1; signo < COIR__SIGNALS; signo++) {
    if (sigismember(&s->set, signo) != 1) continue;
    uint64_t bit = UINT64_C(1) << (s - openers);
    if (atm_and_sc(&wanted[signo], ~bit) == bit) coir__sys_signal_release(signo);
  }
  /* Handlers that saw the bit. They wait for nothing. Acquire: pairs with the release in coir__signal_came. */
  while (atm_load_sc(&s->users)) coir__os_thread_yield();
}

/* ---- From the pipe to the channel ------------------------------------------------------------------------------ */

/* What a pump is started with, packed into a pointer, since there is nobody who could own it. */
static void *duty_pack(const struct coir_signals *s, int which) {
  return (void *)((uintptr_t)s->life << 8 | (uintptr_t)(s - openers) << 1 | (uintptr_t)which);
}

/* What it then works for. */
struct duty {
  struct coir_signals *s;
  uint32_t life;
  int which;
  struct source source;
};

static bool duty_begin(struct duty *duty, void *packed) {
  uintptr_t bits = (uintptr_t)packed;
  duty->which = (int)(bits & 1);
  duty->s = &openers[bits >> 1 & (OPENERS_MAX - 1)];
  duty->life = (uint32_t)(bits >> 8);
  pthread_mutex_lock(&signals_lock);
  bool is_mine = duty->s->life == duty->life;
  duty->source = duty->s->sources[duty->which];
  pthread_mutex_unlock(&signals_lock);
  return is_mine;
}

static int duty_attempt(const struct duty *duty, struct coir_siginfo *info) {
  if (duty->which == PENDING) return coir__sys_signal_read(duty->source.fd, info);
  ssize_t n = coir__sys_read(duty->source.fd, info, sizeof *info);
  return n < 0 ? (int)n : 0;
}

/* Waits for the next signal. Returns 0; -EBADF: it is over; -ECANCELED: the runtime stops. */
static int duty_next(const struct duty *duty, struct coir_siginfo *info) {
  COIR_INSIDE_TO_WAIT(COIR_NEVER);
  int fd = duty->source.fd, rc;
  uint64_t life = duty->source.life;
  struct coir__fd *d = coir__fd_find(fd, &rc);
  for (;;) {
    uint64_t seen = coir__fd_enter(d);
    rc = (seen ^ life) & COIR__FD_LIFE ? -EBADF : duty_attempt(duty, info);
    coir__fd_leave(d, seen, rc == -EAGAIN ? COIR__POLL_IN : 0);
    if (rc == -EINTR) continue;
    if (rc == -EAGAIN) rc = coir__fd_wait(d, fd, life, COIR__POLL_IN, COIR__REASON_READ, COIR_NEVER);
    else return rc;
    if (rc == -EBADF || rc == -ECANCELED) return rc;
    /* No memory to watch it, or the like: look again now and then, rather than to lose signals. */
    if (rc < 0 && (rc = coir_sleep(PUMP_RETRY_NS)) < 0) return rc;
  }
}

/* Sends it on the channel if there is room. The pump's turn to yield: the reader may just not have had its own. */
static void duty_deliver(const struct duty *duty, const struct coir_siginfo *info) {
  struct coir_signals *s = duty->s;
  pthread_mutex_lock(&signals_lock);
  struct coir_chan *chan = s->life == duty->life ? coir_chan_ref(s->chan) : NULL;
  pthread_mutex_unlock(&signals_lock);
  if (!chan) return;
  int rc = coir_chan_send(chan, info, 0);
  if (rc == -ETIMEDOUT) {
    coir_yield();
    rc = coir_chan_send(chan, info, 0);
  }
  if (rc == -ETIMEDOUT) atm_add_rlx(&s->dropped, 1);
  coir_chan_unref(chan);
}

/* Signals are received no more; signals_lock is held. */
static void opener_end(struct coir_signals *s) {
  if (!s->is_live) return;
  signals_unhook(s);
  s->is_live = false;
  s->life++;
  for (int i = 0; i < SOURCES; i++) coir_close(s->sources[i].fd); /* wakes the pumps */
  coir__sys_close(s->ring);
  coir_chan_close(s->chan);
}

static int pump(void *packed) {
  struct duty duty;
  struct coir_siginfo info;
  int rc = duty_begin(&duty, packed) ? 0 : -EBADF;
  for (uint32_t count = 1; rc == 0 && (rc = duty_next(&duty, &info)) == 0; count++) {
    if (duty.which == BELL) duty_deliver(&duty, &info);
    else coir__signal_came(&info);
    if (count % PUMP_BURST == 0) coir_yield();
  }
  if (rc != -ECANCELED) return 0;
  pthread_mutex_lock(&signals_lock);
  if (duty.s->life == duty.life) opener_end(duty.s); /* who reads the channel is told */
  pthread_mutex_unlock(&signals_lock);
  return 0;
}

/* ---- Opening and closing --------------------------------------------------------------------------------------- */

/* In a forked child: signals are its own again, and the descriptors are copies. */
static uint32_t in_before_fork_of_signals; /* (l) signals_lock */

static void signals_fork_child(void) {
  coir__os_once_done(&signals_once);
  for (int signo = 1; signo < COIR__SIGNALS; signo++)
    if (atm_xchg_sc(&wanted[signo], 0)) coir__sys_signal_release(signo);
  for (int i = 0; i < OPENERS_MAX; i++) {
    struct coir_signals *s = &openers[i];
    if (s->is_live) {
      for (int k = 0; k < SOURCES; k++) coir__sys_close(s->sources[k].fd);
      coir__sys_close(s->ring);
      s->life++;
    }
    s->is_live = s->is_taken = false;
    atm_store_rlx(&s->users, 0); /* those handlers run in the parent */
  }
  pthread_mutex_unlock(&signals_lock);
  coir__go_out(&in_before_fork_of_signals);
}

/* Who holds the lock is not to be paused meanwhile (preempt.c). */
static void signals_fork_prepare(void) {
  uint32_t was = coir__go_in();
  pthread_mutex_lock(&signals_lock);
  in_before_fork_of_signals = was;
}

static void signals_fork_parent(void) {
  uint32_t was = in_before_fork_of_signals;
  pthread_mutex_unlock(&signals_lock);
  coir__go_out(&was);
}

static int signals_fork_register(void) {
  return -pthread_atfork(signals_fork_prepare, signals_fork_parent, signals_fork_child);
}

static bool is_acceptable(const sigset_t *set) {
  for (size_t i = 0; i < sizeof signals_refused / sizeof *signals_refused; i++)
    if (sigismember(set, signals_refused[i]) == 1) return false;
  for (int signo = 1; signo < COIR__SIGNALS; signo++)
    if (sigismember(set, signo) == 1) return true;
  return false;
}

/* Takes a free slot; signals_lock is held. */
static struct coir_signals *opener_take(void) {
  for (int i = 0; i < OPENERS_MAX; i++) {
    if (openers[i].is_taken) continue;
    openers[i].is_taken = true;
    return &openers[i];
  }
  return NULL;
}

static int source_open(struct source *source, int fd) {
  COIR_INSIDE;
  int rc = fd < 0 ? fd : coir_adopt(fd);
  if (rc < 0) {
    if (fd >= 0) coir__sys_close(fd);
    return rc;
  }
  struct coir__fd *d = coir__fd_find(fd, &rc);
  *source = (struct source){.fd = fd, .life = coir__fd_begin(d) & COIR__FD_LIFE};
  return 0;
}

/* The pipe and the signalfd. On error none is left. */
static int opener_open(struct coir_signals *s) {
  int fds[2], rc = coir__sys_pipe(fds);
  if (rc < 0) return rc;
  s->ring = fds[1];
  rc = coir__sys_set_nonblock(s->ring);
  if (rc == 0) rc = source_open(&s->sources[BELL], fds[0]);
  else coir__sys_close(fds[0]);
  if (rc == 0) {
    rc = source_open(&s->sources[PENDING], coir__sys_signalfd(&s->set));
    if (rc == 0) return 0;
    coir_close(s->sources[BELL].fd);
  }
  coir__sys_close(s->ring);
  return rc;
}

/* Everything but the slot itself; signals_lock is held. */
static int opener_begin(struct coir_signals *s) {
  atm_store_rlx(&s->dropped, 0);
  s->chan = coir_chan_create(sizeof(struct coir_siginfo), SIGNALS_ROOM);
  if (!s->chan) return -ENOMEM;
  int rc = opener_open(s);
  if (rc == 0) {
    s->is_live = true;
    signals_hook(s);
    return 0;
  }
  coir_chan_unref(s->chan);
  s->chan = NULL;
  return rc;
}

int coir_signals_open(struct coir_signals **out, const sigset_t *set) {
  if (!out) return -EINVAL;
  *out = NULL;
  if (!set || !is_acceptable(set)) return -EINVAL;
  static const struct coir_attr names[SOURCES] = {{.name = "signals"}, {.name = "signals pending"}};
  int rc = coir__os_once(&signals_once, signals_fork_register);
  if (rc) return rc;
  pthread_mutex_lock(&signals_lock);
  struct coir_signals *s = opener_take();
  void *duties[SOURCES];
  rc = -EAGAIN;
  if (s) {
    s->set = *set;
    rc = opener_begin(s);
    if (rc < 0) s->is_taken = false;
    for (int i = 0; i < SOURCES; i++) duties[i] = duty_pack(s, i);
  }
  pthread_mutex_unlock(&signals_lock);
  if (rc < 0) return rc;
  for (int i = 0; rc == 0 && i < SOURCES; i++) rc = coir_spawn(pump, duties[i], &names[i], NULL);
  if (rc == 0) *out = s;
  else coir_signals_close(s);
  return rc;
}

COIR_CHAN(struct coir_siginfo) coir_signals_chan(const struct coir_signals *signals) {
  return (COIR_CHAN(struct coir_siginfo))(void *)(signals ? signals->chan : NULL);
}

uint64_t coir_signals_dropped(const struct coir_signals *signals) {
  return signals ? atm_load_rlx(&signals->dropped) : 0;
}

void coir_signals_close(struct coir_signals *signals) {
  if (!signals) return;
  pthread_mutex_lock(&signals_lock);
  opener_end(signals);
  struct coir_chan *chan = signals->chan;
  signals->chan = NULL;
  signals->is_taken = false;
  pthread_mutex_unlock(&signals_lock);
  coir_chan_unref(chan);
}
