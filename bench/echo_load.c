/* The load of the questions echo_* and spinner_p99: a client of a TCP echo server, which measures how long answers
 * take. One thread and one epoll, nothing of Coir; every byte that comes back is checked.
 *
 *     echo_load --port P --connections N [--warm-ms N] [--ms N] [--paced-ms N] [--rate N] [--spin-port P]
 *
 * Closed loop, for --ms after --warm-ms: each connection has one message of 64 bytes under way and sends the next when
 * it is back. So the server is as busy as it can be, and the rate is the figure; a server that stalls is sent less.
 *
 * Paced, for --paced-ms: --rate messages per second in all, evenly spread, each due at a time that is fixed beforehand
 * whatever the server does. An answer's time is counted from when its message was due, not from when it could be sent.
 * So a stall is in the time of each message that fell due meanwhile, which a closed loop leaves out. The rate is the
 * same for all servers, well below what they can do: here the times are the figure.
 *
 * With --spin-port, three times --paced-ms instead: while nobody computes (calm); while a process of ours computes,
 * which takes a core from everybody (other); and while the server is made to compute by connecting to that port
 * (spin). Of the last two only messages count that were due GRACE_NS after the computing began.
 *
 * Prints one line of JSON: an object per phase. Messages without an answer at the end of a paced phase are counted in
 * "unanswered", and with their age among the times. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hdr.h"

enum {
  MESSAGE_BYTES = 64,
  EVENTS_MAX = 1024,
  CONNECT_S = 5, /* a server that does not take connections for so long gets no more of them */
};

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)
#define DRAIN_NS (3 * NS_PER_S)
/* To take notice of one that computes: 2 ms, and the quantum of 10 ms that is granted to everybody. */
#define GRACE_NS (12 * NS_PER_MS)

struct conn {
  int fd;
  bool is_busy;     /* a message is under way */
  size_t bytes;     /* of the answer that have come */
  uint64_t message; /* counts messages */
  int64_t since;    /* from when the answer's time counts */
  long due, done;   /* messages of the paced phase that were due, that were answered */
  uint64_t answer[2 * MESSAGE_BYTES / sizeof(uint64_t)];
};

static struct {
  int port, spin_port;
  long connections, warm_ms, ms, paced_ms, rate;
} options = {.connections = 1, .warm_ms = 200, .rate = 10000};

static struct {
  struct conn *conns;
  long connections; /* that there are */
  int epoll, timer;
  bool is_closed_loop; /* an answer is followed by the next message */
  bool is_paced;
  int64_t start_ns, period_ns; /* of the timetable; message n is due at start_ns + n * period_ns */
  int64_t count_from_ns;       /* answers to messages that were due before are not counted */
  struct hdr *times;           /* NULL: nothing is counted */
} load;

static void die(const char *what) {
  fprintf(stderr, "echo_load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void check(const char *what, long rc) {
  if (rc < 0) die(what);
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* ---- Messages --------------------------------------------------------------------------------------------------- */

/* What a message holds: it differs from all others in each of its words. */
static void compose(const struct conn *c, uint64_t text[MESSAGE_BYTES / sizeof(uint64_t)]) {
  uint64_t word = (c->message << 24 | (uint64_t)(c - load.conns)) * UINT64_C(0x9e3779b97f4a7c15);
  for (size_t i = 0; i < MESSAGE_BYTES / sizeof *text; i++) text[i] = word ^ (word >> 29) * (2 * i + 1);
}

static void ask(struct conn *c, int64_t since) {
  uint64_t text[MESSAGE_BYTES / sizeof(uint64_t)];
  c->message++;
  c->bytes = 0;
  c->since = since;
  c->is_busy = true;
  compose(c, text);
  if (send(c->fd, text, MESSAGE_BYTES, MSG_NOSIGNAL) != MESSAGE_BYTES) die("send");
}

static int64_t due_ns(const struct conn *c, long n) {
  return load.start_ns + (n * load.connections + (c - load.conns)) * load.period_ns;
}

static void count(const struct conn *c, int64_t now) {
  if (load.times && c->since >= load.count_from_ns) hdr_record(load.times, (uint64_t)(now - c->since));
}

/* Reads what has come; when the answer is complete, goes on with the next message. */
static void take(struct conn *c) {
  uint64_t text[MESSAGE_BYTES / sizeof(uint64_t)];
  ssize_t bytes = recv(c->fd, (char *)c->answer + c->bytes, sizeof c->answer - c->bytes, MSG_DONTWAIT);
  if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return;
  check("recv", bytes);
  c->bytes += (size_t)bytes;
  compose(c, text);
  errno = EPROTO;
  if (bytes == 0) die("the server closed a connection");
  if (!c->is_busy || c->bytes > MESSAGE_BYTES) die("more came back than was sent");
  if (c->bytes < MESSAGE_BYTES) return;
  if (memcmp(c->answer, text, MESSAGE_BYTES) != 0) die("what came back is not what was sent");
  int64_t now = now_ns();
  count(c, now);
  c->is_busy = false;
  c->done++;
  if (load.is_closed_loop) ask(c, now);
  else if (load.is_paced && c->done < c->due) ask(c, due_ns(c, c->done));
}

/* ---- Phases ----------------------------------------------------------------------------------------------------- */

/* Waits for answers until `until`, and takes those that are there. */
static void await(int64_t until) {
  struct epoll_event events[EVENTS_MAX];
  struct itimerspec at = {.it_value = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S}};
  uint64_t expirations;
  check("timerfd_settime", timerfd_settime(load.timer, TFD_TIMER_ABSTIME, &at, NULL));
  int n = epoll_wait(load.epoll, events, EVENTS_MAX, -1);
  if (n < 0 && errno != EINTR) die("epoll_wait");
  for (int i = 0; i < n; i++) {
    if (events[i].data.ptr) take(events[i].data.ptr);
    else if (read(load.timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) die("read");
  }
}

static bool is_any_busy(void) {
  for (long i = 0; i < load.connections; i++) {
    if (load.conns[i].is_busy) return true;
  }
  return false;
}

/* Lets what is under way come back. Returns how many messages have not. */
static long drain(void) {
  int64_t until = now_ns() + DRAIN_NS;
  long unanswered = 0;
  while (is_any_busy() && now_ns() < until) await(until);
  for (long i = 0; i < load.connections; i++) unanswered += load.conns[i].is_busy;
  return unanswered;
}

/* Returns for how many seconds it counted. */
static double run_closed_loop(struct hdr *times) {
  int64_t start = now_ns(), from = start + options.warm_ms * NS_PER_MS, until = from + options.ms * NS_PER_MS;
  hdr_init(times);
  load.is_closed_loop = true;
  for (long i = 0; i < load.connections; i++) ask(&load.conns[i], now_ns());
  while (now_ns() < from) await(from);
  from = now_ns();
  load.times = times;
  load.count_from_ns = 0;
  while (now_ns() < until) await(until);
  double seconds = (double)(now_ns() - from) / 1e9;
  load.times = NULL;
  load.is_closed_loop = false;
  return seconds;
}

/* Returns how many messages have not been answered. */
static long run_paced(struct hdr *times, int64_t grace_ns) {
  long n = 0, messages = options.rate * options.paced_ms / 1000, unanswered = 0;
  hdr_init(times);
  for (long i = 0; i < load.connections; i++) load.conns[i].due = load.conns[i].done = 0;
  load.is_paced = true;
  load.period_ns = NS_PER_S / options.rate;
  load.start_ns = now_ns() + NS_PER_MS;
  load.count_from_ns = load.start_ns + grace_ns;
  load.times = times;
  while (n < messages) {
    int64_t now = now_ns(), due = load.start_ns + n * load.period_ns;
    if (due > now) {
      await(due);
      continue;
    }
    struct conn *c = &load.conns[n++ % load.connections];
    c->due++;
    if (!c->is_busy) ask(c, due);
    if (n % 64 == 0) await(now); /* answers are not to wait for a client that is behind with its questions */
  }
  drain();
  int64_t now = now_ns();
  for (long i = 0; i < load.connections; i++) {
    struct conn *c = &load.conns[i];
    for (; c->done < c->due; c->done++, unanswered++) {
      c->since = due_ns(c, c->done);
      count(c, now);
    }
  }
  load.times = NULL;
  load.is_paced = false;
  return unanswered;
}

/* ---- Connections ------------------------------------------------------------------------------------------------ */

/* Returns the socket, or -1 when the server does not take it. */
static int connect_to(int port) {
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in addr = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval limit = {.tv_sec = CONNECT_S};
  check("socket", fd);
  check("setsockopt", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
  check("setsockopt", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
  if (connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0) return fd;
  if (errno != EINPROGRESS && errno != EAGAIN && errno != ETIMEDOUT) die("connect");
  close(fd);
  return -1;
}

static void connect_all(void) {
  load.conns = calloc((size_t)options.connections, sizeof *load.conns);
  if (!load.conns) die("calloc");
  check("epoll_create1", load.epoll = epoll_create1(EPOLL_CLOEXEC));
  check("timerfd_create", load.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  struct epoll_event event = {.events = EPOLLIN};
  check("epoll_ctl", epoll_ctl(load.epoll, EPOLL_CTL_ADD, load.timer, &event));
  for (; load.connections < options.connections; load.connections++) {
    struct conn *c = &load.conns[load.connections];
    c->fd = connect_to(options.port);
    if (c->fd < 0) break;
    event.data.ptr = c;
    check("epoll_ctl", epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->fd, &event));
  }
  if (load.connections == 0) die("connect");
}

/* ---- Figures ---------------------------------------------------------------------------------------------------- */

static double to_us(uint64_t ns) { return (double)ns / 1e3; }

/* The histogram's points get denser towards the tail: ten for each further nine of the percentile. */
static void print_times(const struct hdr *times) {
  static const double percents[] = {50, 90, 99, 99.9, 99.99};
  for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
    printf("\"p%g\":%.2f,", percents[i], to_us(hdr_percentile(times, percents[i])));
  }
  printf("\"max\":%.2f,\"histogram\":[", to_us(times->max));
  for (double rest = 1; rest * (double)times->count >= 1; rest *= 0.79432823472428150) {
    printf("[%.8g,%.2f],", 100 - 100 * rest, to_us(hdr_percentile(times, 100 - 100 * rest)));
  }
  printf("[100,%.2f]]", to_us(times->max));
}

static void print_phase(const char *name, const struct hdr *times, double seconds, long unanswered) {
  static const char *comma = "";
  printf("%s\"%s\":{\"messages\":%llu,\"rate\":%.1f,\"unanswered\":%ld,", comma, name, (unsigned long long)times->count,
         (double)times->count / seconds, unanswered);
  print_times(times);
  printf("}");
  comma = ",";
}

static void print_paced(const char *name, struct hdr *times, int64_t grace_ns) {
  long unanswered = run_paced(times, grace_ns);
  print_phase(name, times, (double)options.paced_ms / 1e3 - (double)grace_ns / 1e9, unanswered);
}

/* Computes in a process of its own, for as long as a paced phase. */
static pid_t start_spinning(void) {
  int64_t until = now_ns() + options.paced_ms * NS_PER_MS;
  pid_t child = fork();
  check("fork", child);
  if (child != 0) return child;
  while (now_ns() < until) {}
  _exit(0);
}

static void run_beside_spinners(struct hdr *times) {
  print_paced("calm", times, GRACE_NS);
  pid_t child = start_spinning();
  print_paced("other", times, GRACE_NS);
  check("waitpid", waitpid(child, NULL, 0));
  int spinner = connect_to(options.spin_port);
  check("connect", spinner);
  print_paced("spin", times, GRACE_NS);
  close(spinner);
}

static void parse_options(int argc, char **argv) {
  static const struct option known[] = {
      {"port", required_argument, NULL, 'p'},      {"connections", required_argument, NULL, 'c'},
      {"warm-ms", required_argument, NULL, 'w'},   {"ms", required_argument, NULL, 'm'},
      {"paced-ms", required_argument, NULL, 'd'},  {"rate", required_argument, NULL, 'r'},
      {"spin-port", required_argument, NULL, 's'}, {0}};
  for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;) {
    long value = name == '?' ? -1 : atol(optarg);
    if (name == 'p') options.port = (int)value;
    else if (name == 'c') options.connections = value;
    else if (name == 'w') options.warm_ms = value;
    else if (name == 'm') options.ms = value;
    else if (name == 'd') options.paced_ms = value;
    else if (name == 'r') options.rate = value;
    else if (name == 's') options.spin_port = (int)value;
    errno = EINVAL;
    if (value < 0) die("arguments");
  }
  errno = EINVAL;
  if (options.port == 0 || options.connections == 0 || options.rate == 0) die("arguments");
}

int main(int argc, char **argv) {
  static struct hdr times;
  parse_options(argc, argv);
  connect_all();
  printf("{\"connections\":%ld,", load.connections);
  if (options.ms > 0) {
    double seconds = run_closed_loop(&times);
    long unanswered = drain();
    print_phase("closed", &times, seconds, unanswered);
    errno = ETIMEDOUT;
    if (unanswered > 0 && options.paced_ms > 0) die("nothing is paced while messages are under way");
  }
  if (options.spin_port > 0) run_beside_spinners(&times);
  else if (options.paced_ms > 0) print_paced("paced", &times, 0);
  printf("}\n");
  return 0;
}
