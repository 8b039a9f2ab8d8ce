/* What the echo servers in C share: their arguments, and a listener whose connections are dealt out in turns, so that
 * two loops get the same number of them.
 *
 *     echo --port P --workers N [--hogs N] [--blockers N] [--spin-port P]
 *
 * Threads beside the server: --hogs compute all the time, --blockers sleep for a second again and again; each
 * connection to --spin-port makes one compute for a second. Servers whose loops have no place for such work leave these
 * options out. */
#ifndef PEERS_ECHO_H
#define PEERS_ECHO_H

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  ECHO_BYTES = 4096, /* of a buffer */
  ECHO_WORKERS_MAX = 64,
  ECHO_BACKLOG = 16384,
};

struct echo_options {
  int port, workers, hogs, blockers, spin_port;
};

static inline _Noreturn void echo_die(const char *what, int error) {
  fprintf(stderr, "echo: %s: %s\n", what, strerror(error));
  exit(1);
}

/* Dies when a call has failed that sets errno. */
static inline int echo_check(const char *what, int rc) {
  if (rc < 0) echo_die(what, errno);
  return rc;
}

static inline struct echo_options echo_parse(int argc, char **argv) {
  static const struct option known[] = {
      {"port", required_argument, NULL, 'p'},      {"workers", required_argument, NULL, 'w'},
      {"hogs", required_argument, NULL, 'h'},      {"blockers", required_argument, NULL, 'b'},
      {"spin-port", required_argument, NULL, 's'}, {0}};
  struct echo_options o = {.workers = 1};
  for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;) {
    int value = name == '?' ? -1 : atoi(optarg);
    if (value < 0) echo_die("arguments", EINVAL);
    *(name == 'p'   ? &o.port
      : name == 'w' ? &o.workers
      : name == 'h' ? &o.hogs
      : name == 'b' ? &o.blockers
                    : &o.spin_port) = value;
  }
  if (o.port == 0 || o.workers == 0 || o.workers > ECHO_WORKERS_MAX) echo_die("arguments", EINVAL);
  return o;
}

static inline int echo_listen(int port) {
  int on = 1, fd = echo_check("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct sockaddr_in addr = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
  echo_check("bind", bind(fd, (struct sockaddr *)&addr, sizeof addr));
  echo_check("listen", listen(fd, ECHO_BACKLOG));
  return fd;
}

/* Accepts for ever, in the calling thread. `flags` as for accept4. */
static inline void echo_accept(int listener, int flags, int workers, void (*give)(int worker, int fd)) {
  for (int next = 0;; next = (next + 1) % workers) {
    int fd = accept4(listener, NULL, NULL, flags | SOCK_CLOEXEC);
    if (fd >= 0) give(next, fd);
    else if (errno != ECONNABORTED && errno != EINTR) echo_die("accept4", errno);
  }
}

#endif
