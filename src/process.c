/* Child processes: started by posix_spawn, waited for by pidfd.
 *
 * A pidfd stands for one process and no other, however numbers are reused, and becomes readable when it ends: so
 * waiting for a child is waiting for a descriptor, like everything in poll.c. Nobody handles SIGCHLD, and no thread
 * waits.
 *
 * Starting blocks its thread until the child has become another program (the disk may be slow), so it runs on the pool
 * of block.c. What the child gets as descriptors 0 to 2 has numbers from 3 on in the parent, so that none of them is
 * overwritten before it is used.
 *
 * The status is taken from the kernel once, under the lock, by whoever comes first, and kept. From then on the number
 * may belong to somebody else; so signals are sent under the same lock, and not any more then.
 *
 * A child that still runs when its record is destroyed must be waited for by somebody, or it stays a zombie for as long
 * as we live. Its record joins the orphans, and who starts or destroys another process looks after them.
 * Rejected: a fiber that waits for it (it would keep its runtime running). */
#include "coir_io.h"
#include "internal.h"

#define STDIO_COUNT 3
#define FIRST_PLAIN_FD 3 /* the numbers below are what a child gets */
#define TRACER_NS COIR_MS(1)

struct coir_process {
  pid_t pid;                        /* (c) */
  int pidfd;                        /* (c) */
  bool leads_group;                 /* (c) */
  struct coir__lock lock;           /* guards the three below, and that a signal goes to nobody else */
  bool is_over;                     /* (l) the kernel knows it no more */
  int status;                       /* (l) then: as of waitpid(2) */
  int error;                        /* (l) then: 0, or why there is no status */
  _Atomic(int) pipes[STDIO_COUNT];  /* (a) our ends; -1: none */
  struct coir_process *next_orphan; /* by who pushes it on the list, or takes it off */
};

static _Atomic(struct coir_process *) orphans; /* (a) only pushed to, and taken as a whole */

/* ---- Ends ------------------------------------------------------------------------------------------------------ */

/* Takes the status if there is one. Returns 0; -EAGAIN: it runs; -ECHILD: there will be none. */
static int process_settle(struct coir_process *p, int *status) {
  COIR_INSIDE; /* who holds the lock is not to be paused */
  coir__lock(&p->lock);
  if (!p->is_over) {
    int rc = coir__sys_reap(p->pidfd, &p->status);
    p->is_over = rc != 0;
    p->error = rc < 0 ? rc : 0;
  }
  int rc = p->is_over ? p->error : -EAGAIN;
  if (rc == 0 && status) *status = p->status;
  coir__unlock(&p->lock);
  return rc;
}

static void orphan_push(struct coir_process *p) {
  struct coir_process *first = atm_load_rlx(&orphans);
  do p->next_orphan = first;
  while (!atm_cas_ar(&orphans, &first, p)); /* release: next_orphan; pairs with the exchange in orphans_sweep */
}

/* Frees those that have ended. No lock: one that another thread holds while the process forks would stay held in the
 * child, where this finds that they are not its own. */
static void orphans_sweep(void) {
  struct coir_process *p = atm_load_rlx(&orphans) ? atm_xchg_ar(&orphans, NULL) : NULL;
  while (p) {
    struct coir_process *next = p->next_orphan;
    if (process_settle(p, NULL) == -EAGAIN) orphan_push(p);
    else {
      coir_close(p->pidfd);
      coir__free(NULL, p, sizeof *p);
    }
    p = next;
  }
}

int coir_process_wait(struct coir_process *process, int *status, int64_t deadline) {
  if (!process) return -EINVAL;
  for (bool again = false;; again = true) {
    int rc = process_settle(process, status);
    if (rc != -EAGAIN) return rc;
    if (again) {
      /* It has ended, but a tracer, such as a debugger, is told first. */
      int64_t now = coir_now();
      if (deadline <= now) return -ETIMEDOUT;
      rc = coir_sleep_until(deadline - now < TRACER_NS ? deadline : now + TRACER_NS);
    } else rc = coir_poll(process->pidfd, COIR_READABLE, deadline);
    if (rc < 0) return rc;
  }
}

int coir_process_kill(struct coir_process *process, int signo) {
  COIR_INSIDE;
  if (!process) return -EINVAL;
  coir__lock(&process->lock);
  int rc = -ESRCH;
  if (!process->is_over && process->leads_group) rc = coir__sys_kill(-process->pid, -1, signo);
  else if (!process->is_over) rc = coir__sys_kill(process->pid, process->pidfd, signo);
  coir__unlock(&process->lock);
  return rc;
}

pid_t coir_process_pid(const struct coir_process *process) { return process ? process->pid : -EINVAL; }
int coir_process_pidfd(const struct coir_process *process) { return process ? process->pidfd : -1; }

/* ---- Pipes ----------------------------------------------------------------------------------------------------- */

int coir_process_fd(const struct coir_process *process, int which) {
  if (!process || which < 0 || which >= STDIO_COUNT) return -EINVAL;
  int fd = atm_load_rlx(&process->pipes[which]);
  return fd < 0 ? -EBADF : fd;
}

int coir_process_close_fd(struct coir_process *process, int which) {
  if (!process || which < 0 || which >= STDIO_COUNT) return -EINVAL;
  int fd = atm_xchg_ar(&process->pipes[which], -1);
  return fd < 0 ? -EBADF : coir_close(fd);
}

/* The number from 3 on that the child's descriptor is copied from, made for it if `is_ours`. */
struct child_end {
  int fd;
  bool is_ours;
};

static void child_ends_close(struct child_end *ends) {
  for (int i = 0; i < STDIO_COUNT; i++)
    if (ends[i].is_ours) coir__sys_close(ends[i].fd);
}

/* Sees to it that it is from 3 on. Returns 0, or an error: then it is none. */
static int child_end_lift(struct child_end *end) {
  if (end->fd >= FIRST_PLAIN_FD) return 0;
  int fd = coir__sys_dup_from(end->fd, FIRST_PLAIN_FD);
  if (end->is_ours) coir__sys_close(end->fd);
  *end = (struct child_end){.fd = fd, .is_ours = fd >= 0};
  return fd < 0 ? fd : 0;
}

static int child_pipe_open(struct coir_process *p, int which, struct child_end *end) {
  int fds[2], rc = coir__sys_pipe(fds);
  if (rc < 0) return rc;
  int mine = which == 0; /* we write to its input */
  *end = (struct child_end){.fd = fds[!mine], .is_ours = true};
  rc = coir_adopt(fds[mine]);
  if (rc < 0) coir__sys_close(fds[mine]);
  else atm_store_rlx(&p->pipes[which], fds[mine]);
  int lifted = child_end_lift(end);
  return rc < 0 ? rc : lifted;
}

static int child_end_open(struct coir_process *p, int which, const struct coir_stdio *io, struct child_end *end) {
  switch (io->kind) {
  case COIR_STDIO_INHERIT: end->fd = COIR__SPAWN_INHERIT; return 0;
  case COIR_STDIO_NULL: end->fd = COIR__SPAWN_NULL; return 0;
  case COIR_STDIO_PIPE: return child_pipe_open(p, which, end);
  case COIR_STDIO_FD: end->fd = io->fd; return io->fd < 0 ? -EBADF : child_end_lift(end);
  case COIR_STDIO_STDOUT: end->fd = COIR__SPAWN_STDOUT; return which == 2 ? 0 : -EINVAL;
  }
  return -EINVAL;
}

/* ---- Starting -------------------------------------------------------------------------------------------------- */

struct child_call {
  struct coir_process *p;
  const struct coir__spawn *spawn;
  int rc;
};

/* On a thread of the pool. */
static void child_start(void *arg) {
  struct child_call *call = arg;
  struct coir_process *p = call->p;
  pid_t pid = coir__sys_spawn(call->spawn);
  int rc = pid, fd = -1;
  if (pid > 0) rc = fd = coir__sys_pidfd_open(pid);
  if (fd >= 0) rc = coir_adopt(fd);
  if (rc >= 0) {
    p->pid = pid;
    p->pidfd = fd;
  } else {
    if (fd >= 0) coir__sys_close(fd);
    if (pid > 0) coir__sys_end_child(pid);
    if (pid > 0 && rc == -ESRCH) rc = -ECHILD; /* gone before we could look: nobody had to wait for it */
  }
  call->rc = rc < 0 ? rc : 0;
}

static void process_free(struct coir_process *p) {
  for (int i = 0; i < STDIO_COUNT; i++) coir_process_close_fd(p, i);
  coir__free(NULL, p, sizeof *p);
}

static int process_start(struct coir_process *p, const struct coir_process_options *options) {
  char *const argv[] = {(char *)(uintptr_t)options->path, NULL};
  struct coir__spawn spawn = {.path = options->path,
                              .argv = options->argv ? options->argv : argv,
                              .envp = options->envp,
                              .dir = options->dir,
                              .leads_group = p->leads_group};
  struct child_end ends[STDIO_COUNT] = {{.is_ours = false}};
  int rc = 0;
  for (int i = 0; i < STDIO_COUNT && rc == 0; i++) {
    rc = child_end_open(p, i, &options->io[i], &ends[i]);
    spawn.fds[i] = ends[i].fd;
  }
  if (rc == 0) {
    struct child_call call = {.p = p, .spawn = &spawn};
    rc = coir__block_call(child_start, &call, 0);
    if (rc == 0) rc = call.rc;
  }
  child_ends_close(ends);
  return rc;
}

int coir_process_spawn(struct coir_process **out, const struct coir_process_options *options) {
  if (!out) return -EINVAL;
  *out = NULL;
  if (!options || !options->path || (options->flags & ~COIR_PROCESS_GROUP)) return -EINVAL;
  orphans_sweep();
  struct coir_process *p = coir__alloc(NULL, sizeof *p);
  if (!p) return -ENOMEM;
  p->leads_group = options->flags & COIR_PROCESS_GROUP;
  for (int i = 0; i < STDIO_COUNT; i++) atm_store_rlx(&p->pipes[i], -1);
  int rc = process_start(p, options);
  if (rc == 0) *out = p;
  else process_free(p);
  return rc;
}

void coir_process_destroy(struct coir_process *process) {
  COIR_INSIDE;
  if (!process) return;
  for (int i = 0; i < STDIO_COUNT; i++) coir_process_close_fd(process, i);
  orphan_push(process);
  orphans_sweep();
}
