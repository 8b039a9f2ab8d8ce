/* Descriptors: registering, waiting, reading and writing, on goroutines and on plain threads, on sockets and on pipes,
 * registered or not. */
#include "csp_process.h"

#include <fcntl.h>
#include <sys/socket.h>

enum kind { PIPE, STREAM, KINDS }; /* both: [0] is read, [1] is written */

static void make_pair(enum kind kind, int *fds) {
  CHECK_EQ(kind == PIPE ? pipe(fds) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

static void close_pair(int *fds) {
  for (int i = 0; i < 2; i++)
    if (fds[i] >= 0) CHECK_EQ(close(fds[i]), 0);
}

static bool is_nonblocking(int fd) { return fcntl(fd, F_GETFL) & O_NONBLOCK; }

/* The call returns -1 and sets errno. */
#define FAILS(call, code)    \
  do {                       \
    errno = 0;               \
    CHECK_EQ((call), -1);    \
    CHECK_EQ(errno, (code)); \
  } while (0)

/* Writes until it would block. */
static size_t fill(int fd) {
  static const char zeros[4096];
  size_t n = 0;
  int flags = fcntl(fd, F_GETFL);
  CHECK_EQ(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
  for (ssize_t put; (put = write(fd, zeros, sizeof zeros)) > 0;) n += (size_t)put;
  for (ssize_t put; (put = write(fd, zeros, 1)) > 0;) n += (size_t)put;
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(fcntl(fd, F_SETFL, flags), 0);
  return n;
}

static void drain(int fd, size_t bytes) {
  char buf[4096];
  while (bytes) {
    ssize_t got = read(fd, buf, bytes < sizeof buf ? bytes : sizeof buf);
    CHECK(got > 0);
    bytes -= (size_t)got;
  }
}

/* A number that is no descriptor, and none soon. */
static int no_descriptor(void) {
  int fd = dup(0), high = fcntl(fd, F_DUPFD, 500);
  CHECK(fd >= 0 && high >= 500);
  close(fd);
  close(high);
  return high;
}

/* ---- Registering ----------------------------------------------------------------------------------------------- */

ON_BOTH(registering) {
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    make_pair((enum kind)kind, fds);
    for (int i = 0; i < 2; i++) {
      CHECK(!is_nonblocking(fds[i]));
      CHECK(csp_netpoll_register(fds[i]) && is_nonblocking(fds[i]));
      CHECK(csp_netpoll_register(fds[i]) && is_nonblocking(fds[i]));
      CHECK(csp_netpoll_unregister(fds[i]) && is_nonblocking(fds[i]));
      CHECK(csp_netpoll_unregister(fds[i]));
    }
    CHECK_EQ(fcntl(fds[0], F_GETFL) & O_ACCMODE, kind == PIPE ? O_RDONLY : O_RDWR); /* what else it is stays */
    close_pair(fds);
  }
  int bad[] = {-1, INT32_MIN, INT32_MAX, no_descriptor()};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    errno = 0;
    CHECK(!csp_netpoll_register(bad[i]) && errno == EBADF);
    errno = 0;
    CHECK(!csp_netpoll_unregister(bad[i]) && errno == EBADF);
  }
}

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

ON_BOTH(a_wait_times_out) {
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    make_pair((enum kind)kind, fds);
    for (int round = 0; round < 4; round++) {
      int64_t ns = round % 2 ? COIR_MS(3) : 1, before = csp_timer_now();
      if (round == 2) CHECK(csp_netpoll_register(fds[0]));
      CHECK_EQ(csp_netpoll_wait_read(fds[0], ns), csp_netpoll_timeout);
      CHECK(csp_timer_now() - before >= ns);
    }
    size_t filled = fill(fds[1]);
    for (int round = 0; round < 4; round++) {
      int64_t ns = round % 2 ? COIR_MS(3) : 1, before = csp_timer_now();
      if (round == 2) CHECK(csp_netpoll_register(fds[1]));
      CHECK_EQ(csp_netpoll_wait_write(fds[1], ns), csp_netpoll_timeout);
      CHECK(csp_timer_now() - before >= ns);
    }
    drain(fds[0], filled);
    close_pair(fds);
  }
}

/* Whatever the time: it is there. */
static const int64_t times[] = {0, -1, INT64_MIN, 1, COIR_MS(1), INT64_MAX};
enum { TIMES = sizeof times / sizeof *times };

ON_BOTH(what_is_ready_is_available) {
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    make_pair((enum kind)kind, fds);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    for (int i = 0; i < TIMES; i++) {
      CHECK_EQ(csp_netpoll_wait_read(fds[0], times[i]), csp_netpoll_avail);
      CHECK_EQ(csp_netpoll_wait_write(fds[1], times[i]), csp_netpoll_avail);
    }
    close_pair(fds);
  }
}

struct later {
  int fd;
  size_t bytes; /* to be read; 0: write one */
  int64_t after;
  csp_sync_waitgroup_t *wg;
};

static void acts_later(void *arg) {
  struct later *l = arg;
  csp_hangup((uint64_t)l->after);
  if (l->bytes) drain(l->fd, l->bytes);
  else CHECK_EQ(write(l->fd, "x", 1), 1);
  csp_sync_waitgroup_done(l->wg);
}

/* 0 and less wait without limit, and a long time ends as early as it may. */
ON_BOTH(a_wait_ends_when_ready) {
  for (int kind = 0; kind < KINDS; kind++)
    for (int i = 0; i < TIMES; i++) {
      int fds[2];
      csp_sync_waitgroup_t wg = {{0}};
      int64_t ns = times[i] > 0 ? COIR_SEC(1000) : times[i];
      make_pair((enum kind)kind, fds);
      struct later writes = {fds[1], 0, COIR_MS(2), &wg};
      csp_sync_waitgroup_add(&wg, 2);
      go(acts_later, &writes);
      CHECK_EQ(csp_netpoll_wait_read(fds[0], ns), csp_netpoll_avail);
      drain(fds[0], 1);
      struct later reads = {fds[0], fill(fds[1]), COIR_MS(2), &wg};
      go(acts_later, &reads);
      CHECK_EQ(csp_netpoll_wait_write(fds[1], ns), csp_netpoll_avail);
      csp_sync_waitgroup_wait(&wg);
      close_pair(fds);
    }
}

/* An error, a hang-up and a descriptor that is none: a call will not block, but say what it is. */
ON_BOTH(errors_are_available) {
  int fds[2], none = no_descriptor();
  char c;
  for (int kind = 0; kind < KINDS; kind++)
    for (int end = 0; end < 2; end++) {
      make_pair((enum kind)kind, fds);
      CHECK_EQ(close(fds[!end]), 0);
      for (int i = 0; i < TIMES; i++) {
        if (end == 0) CHECK_EQ(csp_netpoll_wait_read(fds[0], times[i]), csp_netpoll_avail);
        else CHECK_EQ(csp_netpoll_wait_write(fds[1], times[i]), csp_netpoll_avail);
      }
      if (end == 0) CHECK_EQ(csp_read(fds[0], &c, 1), 0);
      else FAILS(csp_write(fds[1], "x", 1), EPIPE);
      CHECK_EQ(close(fds[end]), 0);
    }
  for (int i = 0; i < TIMES; i++) {
    CHECK_EQ(csp_netpoll_wait_read(none, times[i]), csp_netpoll_avail);
    CHECK_EQ(csp_netpoll_wait_write(none, times[i]), csp_netpoll_avail);
    CHECK_EQ(csp_netpoll_wait_read(-1, times[i]), csp_netpoll_avail);
  }
}

static void closes_later(void *arg) {
  struct later *l = arg;
  csp_hangup((uint64_t)l->after);
  CHECK_EQ(close(l->fd), 0);
  csp_sync_waitgroup_done(l->wg);
}

ON_BOTH(a_hang_up_ends_a_wait) {
  for (int kind = 0; kind < KINDS; kind++)
    for (int end = 0; end < 2; end++) {
      int fds[2];
      csp_sync_waitgroup_t wg = {{0}};
      make_pair((enum kind)kind, fds);
      if (end == 1) fill(fds[1]);
      struct later closes = {fds[!end], 0, COIR_MS(2), &wg};
      csp_sync_waitgroup_add(&wg, 1);
      go(closes_later, &closes);
      if (end == 0) CHECK_EQ(csp_netpoll_wait_read(fds[0], 0), csp_netpoll_avail);
      else CHECK_EQ(csp_netpoll_wait_write(fds[1], 0), csp_netpoll_avail);
      csp_sync_waitgroup_wait(&wg);
      CHECK_EQ(close(fds[end]), 0);
    }
}

ON_BOTH(files_are_always_available) {
  int fd = open("/proc/self/exe", O_RDONLY);
  char elf[4];
  CHECK(fd >= 0);
  CHECK_EQ(csp_netpoll_wait_read(fd, 1), csp_netpoll_avail);
  CHECK_EQ(csp_read(fd, elf, 4), 4);
  CHECK(!memcmp(elf, "\177ELF", 4));
  close(fd);
}

/* A waiter of a descriptor that is closed under it is not left behind. */
static void waits_and_notes(void *arg) {
  struct later *l = arg;
  CHECK_EQ(csp_netpoll_wait_read(l->fd, 0), csp_netpoll_avail);
  csp_sync_waitgroup_done(l->wg);
}

static void a_close_under_a_waiter_is_noticed(void) {
  int fds[2];
  csp_sync_waitgroup_t wg = {{0}};
  make_pair(STREAM, fds);
  struct later waits = {fds[0], 0, 0, &wg};
  csp_sync_waitgroup_add(&wg, 1);
  go(waits_and_notes, &waits);
  csp_hangup((uint64_t)COIR_MS(20));
  int64_t before = csp_timer_now();
  CHECK_EQ(close(fds[0]), 0);
  csp_sync_waitgroup_wait(&wg);
  CHECK(csp_timer_now() - before < COIR_SEC(15)); /* 3 s, and what a busy machine adds */
  close(fds[1]);
}

/* ---- Reading and writing --------------------------------------------------------------------------------------- */

ON_BOTH(one_call_that_succeeds) {
  for (int kind = 0; kind < KINDS; kind++)
    for (int registered = 0; registered < 2; registered++) {
      int fds[2];
      char buf[16];
      make_pair((enum kind)kind, fds);
      if (registered) CHECK(csp_netpoll_register(fds[0]) && csp_netpoll_register(fds[1]));
      CHECK_EQ(csp_write(fds[1], "hello", 5), 5);
      CHECK_EQ(csp_read(fds[0], buf, sizeof buf), 5); /* less than asked for is returned as it is */
      CHECK(!memcmp(buf, "hello", 5));
      CHECK_EQ(csp_write(fds[1], "hello", 5), 5);
      CHECK_EQ(csp_read(fds[0], buf, 3), 3);
      CHECK_EQ(csp_read(fds[0], buf, 3), 2);
      CHECK_EQ(csp_read(fds[0], buf, 0), 0);
      size_t filled = fill(fds[1]);
      if (kind == PIPE) { /* a write of more than there is room for is cut short, and not repeated */
        char big[8192] = {0};
        drain(fds[0], 4096);
        CHECK_EQ(csp_write(fds[1], big, sizeof big), 4096);
      }
      drain(fds[0], filled);
      close_pair(fds);
    }
}

ON_BOTH(would_block_waits) {
  for (int kind = 0; kind < KINDS; kind++)
    for (int registered = 0; registered < 2; registered++) {
      int fds[2];
      char c = 0;
      csp_sync_waitgroup_t wg = {{0}};
      make_pair((enum kind)kind, fds);
      if (registered) CHECK(csp_netpoll_register(fds[0]) && csp_netpoll_register(fds[1]));
      struct later writes = {fds[1], 0, COIR_MS(2), &wg};
      csp_sync_waitgroup_add(&wg, 2);
      go(acts_later, &writes);
      CHECK_EQ(csp_read(fds[0], &c, 1), 1);
      CHECK_EQ(c, 'x');
      struct later reads = {fds[0], fill(fds[1]), COIR_MS(2), &wg};
      go(acts_later, &reads);
      CHECK_EQ(csp_write(fds[1], "y", 1), 1);
      csp_sync_waitgroup_wait(&wg);
      CHECK_EQ(csp_read(fds[0], &c, 1), 1);
      CHECK_EQ(c, 'y');
      close_pair(fds);
    }
}

ON_BOTH(errors_come_in_errno) {
  int fds[2], none = no_descriptor();
  char c;
  FAILS(csp_read(none, &c, 1), EBADF);
  FAILS(csp_write(none, "x", 1), EBADF);
  FAILS(csp_read(-1, &c, 1), EBADF);
  FAILS(csp_write(-1, "x", 1), EBADF);
  CHECK_EQ(pipe(fds), 0);
  FAILS(csp_read(fds[1], &c, 1), EBADF);
  FAILS(csp_write(fds[0], "x", 1), EBADF);
  CHECK_EQ(write(fds[1], "x", 1), 1);
  FAILS(csp_read(fds[0], (void *)1, 1), EFAULT);
  close_pair(fds);
  int dir = open("/", O_RDONLY | O_DIRECTORY);
  FAILS(csp_read(dir, &c, 1), EISDIR);
  close(dir);
}

/* errno is the goroutine's own, and is found where the goroutine has gone on. */
static void fails_and_moves(void *wg) {
  int fds[2], none = no_descriptor() + 1;
  char c;
  make_pair(PIPE, fds);
  for (int i = 0; i < rounds(200); i++) {
    FAILS(csp_read(fds[1], &c, 1), EBADF);
    csp_yield();
    CHECK_EQ(errno, EBADF);
    FAILS(csp_write(none, "x", 1), EBADF);
    CHECK_EQ(csp_netpoll_wait_read(fds[0], 1000), csp_netpoll_timeout);
    errno = i;
    csp_hangup(1000);
    CHECK_EQ(errno, i);
  }
  close_pair(fds);
  csp_sync_waitgroup_done(wg);
}

static void errno_goes_along(void) {
  csp_sync_waitgroup_t wg = {{0}};
  need_workers(3);
  set_env("COIR_MIGRATE", "1"); /* on another worker after each wait */
  csp_sync_waitgroup_add(&wg, 8);
  for (int i = 0; i < 8; i++) go(fails_and_moves, &wg);
  csp_sync_waitgroup_wait(&wg);
}

/* EPIPE comes without SIGPIPE, which would end this process; what the program made of the signal stays so. */
ON_BOTH(no_signal_with_epipe) {
  struct sigaction act;
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    make_pair((enum kind)kind, fds);
    close(fds[0]);
    for (int i = 0; i < 3; i++) FAILS(csp_write(fds[1], "x", 1), EPIPE);
    close(fds[1]);
  }
  CHECK_EQ(sigaction(SIGPIPE, NULL, &act), 0);
  CHECK(act.sa_handler == SIG_DFL);
}

/* ---- Signals on plain threads ---------------------------------------------------------------------------------- */

static _Atomic(int) signals;
static _Atomic(bool) enough;

static void on_signal(int signo) {
  (void)signo;
  atomic_fetch_add(&signals, 1);
}

static void *pesters(void *thread) {
  while (!atomic_load(&enough)) {
    CHECK_EQ(pthread_kill(*(pthread_t *)thread, SIGUSR1), 0);
    usleep(200);
  }
  return NULL;
}

static void eintr_never_comes(void) {
  struct sigaction act = {.sa_handler = on_signal};
  pthread_t main_thread = pthread_self(), thread;
  csp_sync_waitgroup_t wg = {{0}};
  int fds[2];
  char c;
  CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
  CHECK_EQ(pthread_create(&thread, NULL, pesters, &main_thread), 0);
  for (int kind = 0; kind < KINDS; kind++) {
    make_pair((enum kind)kind, fds);
    for (int i = 0; i < 10; i++) {
      struct later writes = {fds[1], 0, COIR_MS(3), &wg};
      csp_sync_waitgroup_add(&wg, 1);
      go(acts_later, &writes);
      if (i % 2) CHECK_EQ(csp_netpoll_wait_read(fds[0], 0), csp_netpoll_avail);
      CHECK_EQ(csp_read(fds[0], &c, 1), 1);
      csp_sync_waitgroup_wait(&wg);
      int64_t before = csp_timer_now();
      CHECK_EQ(csp_netpoll_wait_read(fds[0], COIR_MS(2)), csp_netpoll_timeout);
      CHECK(csp_timer_now() - before >= COIR_MS(2));
    }
    struct later reads = {fds[0], fill(fds[1]), COIR_MS(5), &wg};
    csp_sync_waitgroup_add(&wg, 1);
    go(acts_later, &reads);
    CHECK_EQ(csp_write(fds[1], "y", 1), 1);
    csp_sync_waitgroup_wait(&wg);
    close_pair(fds);
  }
  atomic_store(&enough, true);
  pthread_join(thread, NULL);
  CHECK(signals > 5);
}

/* ---- Races ----------------------------------------------------------------------------------------------------- */

/* A plain thread makes the descriptor ready just as the reader, which has found nothing, begins to wait: earlier and
 * later by some instructions from round to round. A wake-up that is lost hangs. */
struct race {
  int fds[2];
  int rounds;
  bool waits;         /* by csp_netpoll_wait_read */
  _Atomic(int) ready; /* the round in which the reader is about to read */
  csp_sync_waitgroup_t *wg;
};

static void *writes_just_then(void *arg) {
  struct race *r = arg;
  uint64_t rng = rng_seed(7);
  for (int i = 1; i <= r->rounds; i++) {
    while (atomic_load(&r->ready) != i) {}
    for (uint64_t n = rng_next(&rng) % 2000; n > 0; n--) __asm__ volatile("");
    CHECK_EQ(write(r->fds[1], "x", 1), 1);
  }
  return NULL;
}

static void reads_just_then(void *arg) {
  struct race *r = arg;
  char c;
  for (int i = 1; i <= r->rounds; i++) {
    atomic_store(&r->ready, i);
    if (r->waits) {
      while (read(r->fds[0], &c, 1) != 1) {
        CHECK_EQ(errno, EAGAIN);
        CHECK_EQ(csp_netpoll_wait_read(r->fds[0], i % 2 ? 0 : COIR_SEC(1000)), csp_netpoll_avail);
      }
    } else CHECK_EQ(csp_read(r->fds[0], &c, 1), 1);
  }
  csp_sync_waitgroup_done(r->wg);
}

ON_BOTH(no_wake_up_is_lost) {
  for (int kind = 0; kind < KINDS; kind++)
    for (int waits = 0; waits < 2; waits++) {
      csp_sync_waitgroup_t wg = {{0}};
      struct race r = {.rounds = rounds(1500), .waits = waits, .wg = &wg};
      pthread_t thread;
      make_pair((enum kind)kind, r.fds);
      if (waits) CHECK(csp_netpoll_register(r.fds[0]));
      csp_sync_waitgroup_add(&wg, 1);
      CHECK_EQ(pthread_create(&thread, NULL, writes_just_then, &r), 0);
      reads_just_then(&r);
      csp_block(pthread_join(thread, NULL));
      close_pair(r.fds);
    }
}

/* Readers and a writer that fills up: both directions wait by turns. */
struct flow {
  int fds[2];
  size_t bytes;
  csp_sync_waitgroup_t *wg;
};

static void pours(void *arg) {
  struct flow *f = arg;
  unsigned char buf[3000];
  for (size_t at = 0; at < f->bytes;) {
    size_t n = f->bytes - at < sizeof buf ? f->bytes - at : sizeof buf;
    for (size_t i = 0; i < n; i++) buf[i] = (unsigned char)((at + i) * 7);
    ssize_t put = csp_write(f->fds[1], buf, n);
    CHECK(put > 0 && (size_t)put <= n);
    at += (size_t)put;
  }
  CHECK_EQ(close(f->fds[1]), 0);
  csp_sync_waitgroup_done(f->wg);
}

static void gulps(void *arg) {
  struct flow *f = arg;
  unsigned char buf[5000];
  size_t at = 0;
  for (ssize_t got; (got = csp_read(f->fds[0], buf, 1 + at % sizeof buf)) != 0; at += (size_t)got) {
    CHECK(got > 0);
    for (size_t i = 0; i < (size_t)got; i++) CHECK_EQ(buf[i], (unsigned char)((at + i) * 7));
  }
  CHECK_EQ(at, f->bytes);
  csp_sync_waitgroup_done(f->wg);
}

static void *pours_on_thread(void *flow) {
  pours(flow);
  return NULL;
}

static void nothing_is_lost_or_doubled(void) {
  csp_sync_waitgroup_t wg = {{0}};
  struct flow flows[8];
  for (int i = 0; i < 8; i++) {
    pthread_t thread;
    flows[i] = (struct flow){.bytes = (size_t)rounds(1 << 20), .wg = &wg};
    make_pair((enum kind)(i % KINDS), flows[i].fds);
    csp_sync_waitgroup_add(&wg, 2);
    if (i % 4 < 2) go(pours, &flows[i]);
    else CHECK_EQ(pthread_create(&thread, NULL, pours_on_thread, &flows[i]) || pthread_detach(thread), 0);
    go(gulps, &flows[i]);
  }
  csp_sync_waitgroup_wait(&wg);
  for (int i = 0; i < 8; i++) close(flows[i].fds[0]);
}

/* ---- Many ------------------------------------------------------------------------------------------------------ */

#define PAIRS 200

struct conversation {
  int fds[2], id, turns;
  csp_sync_waitgroup_t *wg;
};

static void echoes(void *arg) {
  struct conversation *c = arg;
  char buf[64];
  for (ssize_t got; (got = csp_read(c->fds[0], buf, sizeof buf)) > 0;) {
    if (c->id % 5 == 0) csp_yield();
    CHECK_EQ(csp_write(c->fds[0], buf, (size_t)got), got);
  }
  CHECK_EQ(close(c->fds[0]), 0);
  csp_sync_waitgroup_done(c->wg);
}

static void talks(void *arg) {
  struct conversation *c = arg;
  for (int i = 0; i < c->turns; i++) {
    char out[64], in[64];
    int n = snprintf(out, sizeof out, "%d says %d", c->id, i);
    CHECK_EQ(csp_write(c->fds[1], out, (size_t)n), n);
    if (c->id % 3 == 0) CHECK_EQ(csp_netpoll_wait_read(c->fds[1], COIR_SEC(1000)), csp_netpoll_avail);
    for (ssize_t at = 0, got; at < n; at += got) CHECK((got = csp_read(c->fds[1], in + at, (size_t)(n - at))) > 0);
    CHECK(!memcmp(in, out, (size_t)n));
    if (c->id % 7 == 0) csp_hangup(20000);
  }
  CHECK_EQ(close(c->fds[1]), 0);
  csp_sync_waitgroup_done(c->wg);
}

static void computes(void *stop) {
  while (!atomic_load((_Atomic(bool) *)stop)) csp_yield();
}

static void many_echo(void) {
  static struct conversation all[PAIRS];
  csp_sync_waitgroup_t wg = {{0}};
  csp_sync_waitgroup_add(&wg, 2 * PAIRS);
  go(computes, (void *)&enough);
  for (int i = 0; i < PAIRS; i++) {
    all[i] = (struct conversation){.id = i, .turns = rounds(40), .wg = &wg};
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, all[i].fds), 0);
    if (i % 2) CHECK(csp_netpoll_register(all[i].fds[0]) && csp_netpoll_register(all[i].fds[1]));
    CHECK(csp_proc_create(i % 3, echoes, &all[i]));
    CHECK(csp_proc_create(i % 2, talks, &all[i]));
  }
  csp_sync_waitgroup_wait(&wg);
  atomic_store(&enough, true);
  until_no_goroutine();
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(registering),
      CASE(a_wait_times_out),
      CASE(what_is_ready_is_available),
      CASE(a_wait_ends_when_ready),
      CASE(errors_are_available),
      CASE(a_hang_up_ends_a_wait),
      CASE(files_are_always_available),
      CASE(a_close_under_a_waiter_is_noticed),
      CASE(one_call_that_succeeds),
      CASE(would_block_waits),
      CASE(errors_come_in_errno),
      CASE(errno_goes_along),
      CASE(no_signal_with_epipe),
      CASE(eintr_never_comes),
      CASE(no_wake_up_is_lost),
      CASE(nothing_is_lost_or_doubled),
      CASE(many_echo),
  };
  return RUN_CASES(argc, argv, cases);
}
