/* Several who use one descriptor at once, and ends of waits that come at the same moment. */
#include "gof_io_common.h"

/* ---- Both directions --------------------------------------------------------------------------------------------- */

static char big[16 << 20]; /* more than any buffer grows to */

/* Reads so much, and more. */
static void drain(int fd, size_t bytes) {
  static char buf[1 << 16];
  for (ssize_t n; bytes > 0; bytes -= (size_t)n) CHECK_SOME(n = gof_read(fd, buf, sizeof buf));
}

/* One waits to read and one to write. The event of either leaves the other waiting, and reaches it later. */
static void both_directions_at_once(enum place helper) {
  for (int i = 0; i < 8; i++) {
    int fds[2], is_tcp = i & 1, read_first = i & 2;
    size_t bytes = is_tcp ? sizeof big : 1 << 20;
    struct task reader, writer;
    make_pair(is_tcp ? TCP : SOCKETPAIR, fds);
    struct read_task r = {.fd = fds[0]};
    struct write_task w = {.fd = fds[0], .data = big, .bytes = bytes};
    start(i & 4 ? &reader : &writer, helper, i & 4 ? task_read : task_write, i & 4 ? (void *)&r : (void *)&w);
    let_them_wait();
    start(i & 4 ? &writer : &reader, helper, i & 4 ? task_write : task_read, i & 4 ? (void *)&w : (void *)&r);
    let_them_wait();
    CHECK(!atomic_load(&reader.is_done) && !atomic_load(&writer.is_done));
    if (read_first) {
      CHECK_EQ(gof_write(fds[1], "in", 2), 2);
      finish(&reader);
      CHECK(!atomic_load(&writer.is_done));
      drain(fds[1], bytes);
      finish(&writer);
    } else {
      drain(fds[1], bytes);
      finish(&writer);
      CHECK(!atomic_load(&reader.is_done));
      CHECK_EQ(gof_write(fds[1], "in", 2), 2);
      finish(&reader);
    }
    CHECK_EQ(r.result, 2);
    CHECK_EQ(w.result, bytes);
    close_pair(fds);
  }
}

/* The same, again and again: a stream each way between two ends, with a reader and a writer at each. */
struct end {
  int fd;
  size_t bytes;
  unsigned seed;
};

static unsigned char stream_byte(unsigned seed, size_t i) { return (unsigned char)((i + seed) * 31 + (i >> 8)); }

static void task_send_stream(void *arg) {
  struct end *e = arg;
  unsigned char buf[3000];
  for (size_t done = 0; done < e->bytes;) {
    size_t n = done % 2999 + 1;
    if (n > e->bytes - done) n = e->bytes - done;
    for (size_t i = 0; i < n; i++) buf[i] = stream_byte(e->seed, done + i);
    CHECK_EQ(gof_write(e->fd, buf, n), n);
    done += n;
  }
}

static void task_receive_stream(void *arg) {
  struct end *e = arg;
  unsigned char buf[2000];
  ssize_t n;
  for (size_t done = 0; done < e->bytes; done += (size_t)n) {
    CHECK_SOME(n = gof_read(e->fd, buf, sizeof buf));
    for (ssize_t i = 0; i < n; i++) CHECK(buf[i] == stream_byte(e->seed, done + (size_t)i));
  }
}

static void streams_cross(enum place helper) {
  for (int kind = 0; kind < KINDS; kind += TCP) {
    int fds[2], small = 4096;
    struct task t[4];
    make_pair((enum kind)kind, fds);
    for (int i = 0; i < 2; i++) CHECK_EQ(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    struct end there = {fds[0], (size_t)rounds(3000000), 1}, back = {fds[1], there.bytes, 100};
    struct end at_0 = {fds[0], back.bytes, back.seed}, at_1 = {fds[1], there.bytes, there.seed};
    start(&t[0], helper, task_send_stream, &there);
    start(&t[1], helper, task_send_stream, &back);
    start(&t[2], helper, task_receive_stream, &at_0);
    start(&t[3], helper, task_receive_stream, &at_1);
    for (int i = 0; i < 4; i++) finish(&t[i]);
    close_pair(fds);
  }
}

/* ---- Two of a kind ----------------------------------------------------------------------------------------------- */

/* As many bytes as there are readers, who all wait for one each, in one write: nobody may sleep on. */
static void each_reader_gets_its_byte(enum place helper) {
  for (int i = 0; i < rounds(300); i++) {
    enum { MAX = 4 };
    int fds[2], n = 2 + i % (MAX - 1);
    struct task t[MAX];
    struct read_task r[MAX];
    make_pair((enum kind)(i % KINDS), fds);
    for (int k = 0; k < n; k++) {
      r[k] = (struct read_task){.fd = fds[0], .bytes = 1};
      start(&t[k], k == 1 && i % 5 == 0 ? THREAD : helper, task_read, &r[k]);
    }
    if (i % 3) let_them_wait();
    CHECK_EQ(gof_write(fds[1], "abcd", (size_t)n), n);
    int seen = 0;
    for (int k = 0; k < n; k++) {
      finish(&t[k]);
      if (r[k].result < 0) CHECK_EQ(r[k].error, 0);
      CHECK_EQ(r[k].result, 1);
      seen |= 1 << (r[k].buf[0] - 'a');
    }
    CHECK_EQ(seen, (1 << n) - 1);
    if (i % KINDS == TCP) close_reset(fds[0]);
    else close_fd(fds[0]);
    close_fd(fds[1]);
  }
}

/* Reads to the end, and counts the bytes by their values. */
struct counter {
  int fd;
  size_t count[256];
};

static void task_count(void *arg) {
  struct counter *c = arg;
  unsigned char buf[7];
  for (ssize_t n; (n = gof_read(c->fd, buf, sizeof buf)) != 0;) {
    CHECK_SOME(n);
    for (ssize_t i = 0; i < n; i++) c->count[buf[i]]++;
  }
}

/* Each byte reaches one of them, and all hear of the end. */
static void readers_share_a_stream(enum place helper) {
  for (int kind = 0; kind < KINDS; kind++) {
    enum { READERS = 3 };
    int fds[2], n = rounds(20000);
    struct task t[READERS];
    struct counter c[READERS];
    make_pair((enum kind)kind, fds);
    for (int i = 0; i < READERS; i++) {
      c[i] = (struct counter){.fd = fds[0]};
      start(&t[i], i ? helper : THREAD, task_count, &c[i]);
    }
    for (int i = 0; i < n; i++) {
      unsigned char buf[3] = {(unsigned char)i, (unsigned char)(i + 85), (unsigned char)(i + 170)};
      CHECK_EQ(gof_write(fds[1], buf, 3), 3);
      if (i % 50 == 0) gof_sleep_ms(0);
      if (i % 2000 == 0) gof_sleep_ms(1); /* they all wait again */
    }
    close_fd(fds[1]);
    size_t expected[256] = {0};
    for (int i = 0; i < n; i++)
      for (int k = 0; k < 3; k++) expected[(unsigned char)(i + 85 * k)]++;
    for (int i = 0; i < READERS; i++) finish(&t[i]);
    for (int i = 0; i < 256; i++) CHECK_EQ(c[0].count[i] + c[1].count[i] + c[2].count[i], expected[i]);
    close_fd(fds[0]);
  }
}

/* Writers of one descriptor who wait for room all get it; what each wrote is there. */
static void writers_share_a_stream(enum place helper) {
  static char data[3][1 << 18];
  for (int kind = 0; kind < KINDS; kind++) {
    int fds[2];
    size_t count[3] = {0};
    struct task t[3];
    struct write_task w[3];
    char buf[5000];
    make_pair((enum kind)kind, fds);
    for (int i = 0; i < 3; i++) {
      memset(data[i], 'a' + i, sizeof data[i]);
      w[i] = (struct write_task){.fd = fds[1], .data = data[i], .bytes = sizeof data[i]};
      start(&t[i], helper, task_write, &w[i]);
    }
    let_them_wait();
    for (size_t sum = 0; sum < sizeof data;) {
      ssize_t n = gof_read(fds[0], buf, sizeof buf);
      CHECK_SOME(n);
      sum += (size_t)n;
      for (ssize_t i = 0; i < n; i++) count[buf[i] - 'a']++;
    }
    for (int i = 0; i < 3; i++) {
      finish(&t[i]);
      CHECK_EQ(w[i].result, sizeof data[i]);
      CHECK_EQ(count[i], sizeof data[i]);
    }
    close_pair(fds);
  }
}

static void each_acceptor_gets_its_connection(enum place helper) {
  struct sockaddr_in addr;
  int listener = make_listener(&addr, 16);
  for (int i = 0; i < rounds(100); i++) {
    enum { N = 3 };
    int fds[N];
    struct task t[N];
    struct accept_task a[N];
    for (int k = 0; k < N; k++) {
      a[k] = (struct accept_task){.fd = listener, .timeout_ms = k ? -1 : 20000};
      start(&t[k], k == 1 && i % 5 == 0 ? THREAD : helper, task_accept, &a[k]);
    }
    if (i % 3) let_them_wait();
    for (int k = 0; k < N; k++) {
      fds[k] = tcp_socket();
      CHECK_EQ(gof_connect(fds[k], (struct sockaddr *)&addr, sizeof addr, -1), 0);
    }
    for (int k = 0; k < N; k++) {
      finish(&t[k]);
      CHECK(a[k].result >= 0);
      close_reset(a[k].result);
      close_fd(fds[k]);
    }
  }
  close_fd(listener);
}

/* ---- Timeouts against connections -------------------------------------------------------------------------------- */

enum { LANES = 20 }; /* at once, so that many rounds take little time */

/* A listener, where one accepts with a limit of a millisecond and one connects every millisecond. */
struct lane {
  int listener, rounds, accepted, timeouts;
  struct sockaddr_in addr;
  unsigned char seen[1 << 12]; /* by the number of the connection */
};

static void take(struct lane *l, int fd) {
  int number = -1;
  CHECK_EQ(gof_read(fd, &number, sizeof number), sizeof number);
  CHECK(number >= 0 && number < l->rounds);
  CHECK_EQ(l->seen[number]++, 0);
  l->accepted++;
  close_reset(fd);
}

static void task_accept_impatiently(void *arg) {
  struct lane *l = arg;
  while (l->accepted < l->rounds) {
    errno = 0;
    int fd = gof_accept(l->listener, NULL, NULL, 1), error = errno;
    if (fd >= 0) take(l, fd);
    else {
      CHECK_EQ(fd, -1);
      CHECK_EQ(error, ETIMEDOUT);
      l->timeouts++;
    }
  }
}

static void task_connect_regularly(void *arg) {
  struct lane *l = arg;
  uint64_t rng = rng_seed((uint64_t)l->listener);
  for (int i = 0; i < l->rounds; i++) {
    char c;
    gof_sleep_ms(1);
    spin_for((int64_t)(rng_next(&rng) % 8) * COIR_US(10)); /* now before the other's limit, now after it */
    int fd = tcp_socket();
    CHECK_EQ(gof_connect(fd, (struct sockaddr *)&l->addr, sizeof l->addr, -1), 0);
    CHECK_EQ(gof_write(fd, &i, sizeof i), sizeof i);
    ssize_t n = gof_read(fd, &c, 1); /* until the other has closed it */
    CHECK(n == 0 || (n == -1 && errno == ECONNRESET));
    close_fd(fd);
  }
}

static void timeouts_lose_no_connection(enum place helper) {
  static struct lane lanes[LANES];
  static struct task t[LANES][2];
  int total = rounds(10000), open = descriptors_now(), timeouts = 0;
  for (int i = 0; i < LANES; i++) {
    struct lane *l = &lanes[i];
    *l = (struct lane){.rounds = total / LANES};
    l->listener = make_listener(&l->addr, 16);
    start(&t[i][0], helper, task_accept_impatiently, l);
    start(&t[i][1], i % 4 ? helper : THREAD, task_connect_regularly, l);
  }
  for (int i = 0; i < LANES; i++) {
    struct lane *l = &lanes[i];
    for (int k = 0; k < 2; k++) finish(&t[i][k]);
    CHECK_EQ(l->accepted, l->rounds);
    CHECK_FAILS(gof_accept(l->listener, NULL, NULL, 0), ETIMEDOUT);
    close_fd(l->listener);
    timeouts += l->timeouts;
  }
  CHECK_EQ(descriptors_now(), open);
  CHECK(timeouts > total / 100); /* else it was no race */
}

/* ---- Wakes that come while one is about to wait ------------------------------------------------------------------ */

static void task_pong(void *arg) {
  int fd = *(int *)arg;
  char c;
  for (ssize_t n; (n = gof_read(fd, &c, 1)) != 0;) {
    CHECK_EQ(n, 1);
    CHECK_EQ(gof_write(fd, &c, 1), 1);
  }
}

static void no_wake_is_lost(enum place helper) {
  enum { PAIRS = 8 };
  int fds[PAIRS][2];
  struct task t[PAIRS];
  uint64_t rng = rng_seed(7);
  for (int i = 0; i < PAIRS; i++) {
    make_pair(i % 2 ? SOCKETPAIR : TCP, fds[i]);
    start(&t[i], helper, task_pong, &fds[i][1]);
  }
  for (int i = 0; i < rounds(3000); i++) {
    char c = (char)i, d;
    int k = (int)(rng_next(&rng) % PAIRS);
    CHECK_EQ(gof_write(fds[k][0], &c, 1), 1);
    if (rng_next(&rng) % 3 == 0) spin_for((int64_t)(rng_next(&rng) % 20) * 1000);
    CHECK_EQ(gof_read(fds[k][0], &d, 1), 1);
    CHECK_EQ(d, c);
  }
  for (int i = 0; i < PAIRS; i++) {
    CHECK_EQ(shutdown(fds[i][0], SHUT_WR), 0);
    finish(&t[i]);
    close_pair(fds[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      EVERYWHERE(both_directions_at_once),
      EVERYWHERE(streams_cross),
      EVERYWHERE(each_reader_gets_its_byte),
      EVERYWHERE(readers_share_a_stream),
      EVERYWHERE(writers_share_a_stream),
      EVERYWHERE(each_acceptor_gets_its_connection),
      SCENE(timeouts_lose_no_connection, FIBER, FIBER),
      SCENE(timeouts_lose_no_connection, THREAD, FIBER),
      EVERYWHERE(no_wake_is_lost),
  };
  return cmocka_run_group_tests(tests, warm_up, NULL);
}
