/* What a thread is doing, as /proc tells it: os.h for Linux.
 *
 * A file has to be opened for that, and a descriptor takes the lowest number that is free. Programs that close a
 * descriptor and make another one of that number count on nobody else doing so meanwhile. So the files are read by a
 * thread that shares no descriptors with the rest of the process: it has left their table, and has an empty one. It
 * starts no threads, which would get that one too. One for the process, for as long as somebody may want to ask.
 *
 * While it leaves the table it has copies of what is in there. Who closes a descriptor in that moment, by close(2),
 * does not close the file: the other end of a pipe is told some microseconds late, and a write to it may still succeed.
 * So coir__os_look_start returns only when that is over: a runtime with a monitor starts its fibers after it. Threads
 * that run meanwhile may meet copies, as they may while anybody makes a child process. No system call avoids that: a
 * table is made only as the copy of another one (clone, unshare, close_range; exec, where it is shared), and the least
 * that Linux copies are the lowest 64 descriptors, even where close_range is told to close all of them. And /proc is
 * read through nothing but a descriptor. One that io_uring opens outside the table would do, but needs Linux 6.5 and a
 * system that allows io_uring. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define UNSHARE_FILES 2 /* CLOSE_RANGE_UNSHARE of linux/close_range.h, Linux 5.9 */
#define LOOK_WAITS COIR_MS(2)
#define LOOK_WAITS_LONG COIR_MS(20) /* where much depends on it */

static struct {
  pthread_mutex_t mutex; /* one asks at a time */
  int users;             /* (l) mutex: it is there while that is not 0 */
  pthread_t thread;      /* (l) mutex */
  _Atomic(uint32_t) is_over; /* (a) it is to end */
  _Atomic(uint32_t) asked, answered; /* (a) numbers of questions; futex words */
  _Atomic(uint32_t) is_blind;        /* (a) it cannot: the system does not let it leave the table */
  _Atomic(uint32_t) has_left;        /* (a) the table, or has tried to; a futex word */
  int tid;                           /* of the question */
  const char *what;
  char text[256]; /* the answer */
} looker = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ThreadSanitizer knows one table of descriptors for the process. It would take a number of this thread's for the
 * program's, and report a race with who uses that one, so it is not told: these calls it does not intercept. */
static void looker_read(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/%s", looker.tid, looker.what);
  long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  long n = fd >= 0 ? syscall(SYS_read, fd, looker.text, sizeof looker.text - 1) : -1;
  if (fd >= 0) syscall(SYS_close, fd);
  looker.text[n > 0 ? n : 0] = '\0';
  COIR_WRITTEN(looker.text, n > 0 ? n : 0);
}

static void *looker_main(void *unused) {
  coir__os_thread_prompt();
  bool is_blind = syscall(SYS_close_range, 0, UINT_MAX, UNSHARE_FILES) != 0;
  atm_store_rlx(&looker.is_blind, is_blind);
  atm_store_rel(&looker.has_left, 1); /* pairs with the acquire in coir__os_look_start() */
  coir__os_futex_wake(&looker.has_left, 1);
  for (uint32_t done = atm_load_acq(&looker.answered);;) {
    uint32_t asked = atm_load_acq(&looker.asked);
    if (atm_load_acq(&looker.is_over)) return unused;
    if (asked == done) {
      coir__os_futex_wait(&looker.asked, done, COIR_NEVER);
      continue;
    }
    looker.text[0] = '\0';
    if (!is_blind) looker_read();
    atm_store_rel(&looker.answered, done = asked); /* pairs with the acquire in looker_await() */
    coir__os_futex_wake(&looker.answered, 1);
  }
}

/* Whether so many questions have been answered by then. */
static bool looker_await(uint32_t number, int64_t limit) {
  uint32_t seen;
  while ((seen = atm_load_acq(&looker.answered)) != number && coir__os_now() < limit)
    coir__os_futex_wait(&looker.answered, seen, limit);
  return seen == number;
}

/* The mutex is held. False: no answer in that time; one may be empty. */
static bool looker_ask(int tid, const char *what, int64_t ns) {
  uint32_t before = atm_load_rlx(&looker.asked);
  int64_t limit = coir__os_now() + ns;
  if (!looker.users || !looker_await(before, limit)) return false; /* it is still at an older one */
  looker.tid = tid;
  looker.what = what;
  atm_store_rel(&looker.asked, before + 1); /* pairs with the acquire in looker_main() */
  coir__os_futex_wake(&looker.asked, 1);
  return looker_await(before + 1, limit);
}

/* Copies what /proc says of the thread; nothing when it says nothing, or takes longer than that. */
static void look_at_thread(int tid, const char *what, int64_t ns, char *text, size_t bytes) {
  pthread_mutex_lock(&looker.mutex);
  bool is_known = looker_ask(tid, what, ns);
  snprintf(text, bytes, "%s", is_known ? looker.text : "");
  pthread_mutex_unlock(&looker.mutex);
}

int coir__os_look_start(void) {
  int rc = 0;
  pthread_mutex_lock(&looker.mutex);
  if (looker.users == 0) {
    atm_store_rlx(&looker.is_over, 0);
    atm_store_rlx(&looker.has_left, 0);
    rc = coir__os_thread_start(&looker.thread, "coir-look", looker_main, NULL);
    while (!rc && !atm_load_acq(&looker.has_left)) coir__os_futex_wait(&looker.has_left, 0, COIR_NEVER);
  }
  if (!rc) looker.users++;
  pthread_mutex_unlock(&looker.mutex);
  return rc;
}

void coir__os_look_stop(void) {
  pthread_mutex_lock(&looker.mutex);
  if (looker.users > 0 && --looker.users == 0) {
    atm_store_rel(&looker.is_over, 1);
    atm_add_sc(&looker.asked, 1); /* a question that nobody answers */
    coir__os_futex_wake(&looker.asked, 1);
    pthread_join(looker.thread, NULL);
    atm_store_rlx(&looker.answered, atm_load_rlx(&looker.asked));
  }
  pthread_mutex_unlock(&looker.mutex);
}

void coir__os_look_fork_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  looker.mutex = fresh; /* whoever held it is not in this process, and neither is the thread */
  looker.users = 0;
  atm_store_rlx(&looker.asked, 0);
  atm_store_rlx(&looker.answered, 0);
}

/* "number (name) state ...": the name may hold anything. */
int coir__os_thread_waits(int tid) {
  char text[256];
  if (atm_load_rlx(&looker.is_blind)) return 1;
  look_at_thread(tid, "stat", LOOK_WAITS, text, sizeof text);
  const char *name_end = strrchr(text, ')');
  if (!name_end) return -EAGAIN;
  return strchr("SDTt", name_end[2] ? name_end[2] : 'R') != NULL;
}

/* "number a1 a2 a3 a4 a5 a6 sp pc", "-1 sp pc", or "running". */
int coir__os_thread_sleeps_on(int tid, int fd) {
  char text[256];
  look_at_thread(tid, "syscall", LOOK_WAITS_LONG, text, sizeof text);
  if (text[0] == '\0') return -1;
  const char *argument = strchr(text, ' ');
  return argument && text[0] != '-' && (int)strtoull(argument, NULL, 16) == fd;
}

bool coir__os_thread_where(int tid, struct coir__ctx_registers *at) {
  char text[256];
  look_at_thread(tid, "syscall", LOOK_WAITS, text, sizeof text);
  char *pc = strrchr(text, ' ');
  if (!pc) return false;
  *pc = '\0';
  const char *sp = strrchr(text, ' ');
  memset(at, 0, sizeof *at);
  at->pc = (uintptr_t)strtoull(pc + 1, NULL, 16);
  at->r[COIR__CTX_SP] = sp ? (uintptr_t)strtoull(sp + 1, NULL, 16) : 0;
  return at->pc && at->r[COIR__CTX_SP];
}
