/* Coir's server for the questions echo_* and spinner_p99: a fiber per connection, which reads and writes as if it had a
 * thread of its own.
 *
 *     echo_coir --port P [--workers N] [--hogs N] [--blockers N] [--spin-port P]
 *
 * Beside them, --hogs fibers compute all the time, and --blockers sit in nanosleep(2) for a second again and again, of
 * which the runtime is not told. Each connection to --spin-port makes a fiber compute for a second. A server that
 * expects fibers to compute turns preemption on, so it is on with --hogs and --spin-port. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coir.h"
#include "coir_io.h"

enum { BUFFER_BYTES = 4096, STACK_BYTES = 32 << 10, BACKLOG = 16384 };

static struct { int port, workers, hogs, blockers, spin_port; } options;

static void die(const char *what, int error) {
  fprintf(stderr, "echo_coir: %s: %s\n", what, strerror(error));
  exit(1);
}

static int serve(void *arg) {
  char buffer[BUFFER_BYTES];
  int fd = (int)(intptr_t)arg;
  for (ssize_t bytes; (bytes = coir_recv(fd, buffer, sizeof buffer, 0, COIR_NEVER)) > 0;) {
    if (coir_write_full(fd, buffer, (size_t)bytes, COIR_NEVER) != bytes) break;
  }
  return coir_close(fd);
}

static int spin(void *arg) {
  int64_t until = coir_after(COIR_SEC(1));
  while (coir_now() < until) {}
  return coir_close((int)(intptr_t)arg);
}

static int run_hog(void *arg) {
  for (volatile uint64_t sum = 0;; sum = sum + 1) {}
  return arg != NULL;
}

static int run_blocker(void *arg) {
  for (;;) {
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    coir_yield();
  }
  return arg != NULL;
}

static void start(coir_fn fn, void *arg, size_t stack_bytes) {
  struct coir_attr attr = {.stack_bytes = stack_bytes, .detached = true};
  int rc = coir_spawn(fn, arg, &attr, NULL);
  if (rc != 0) die("coir_spawn", -rc);
}

static int listen_on(int port) {
  int on = 1, fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in addr = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0) die("coir_socket", -fd);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
  if (bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0) die("bind", errno);
  if (listen(fd, BACKLOG) != 0) die("listen", errno);
  return fd;
}

/* A fiber for each connection, for ever. */
static void accept_for(int listener, coir_fn fn) {
  for (int fd; (fd = coir_accept(listener, NULL, NULL, COIR_NEVER)) >= 0;) start(fn, (void *)(intptr_t)fd, STACK_BYTES);
}

static int run_spin_port(void *arg) {
  accept_for((int)(intptr_t)arg, spin);
  return 0;
}

static int run_server(void *arg) {
  (void)arg;
  for (int i = 0; i < options.hogs; i++) start(run_hog, NULL, 0);
  for (int i = 0; i < options.blockers; i++) start(run_blocker, NULL, 0);
  if (options.spin_port > 0) start(run_spin_port, (void *)(intptr_t)listen_on(options.spin_port), 0);
  accept_for(listen_on(options.port), serve);
  return -EBADF;
}

int main(int argc, char **argv) {
  static const struct option known[] = {
      {"port", required_argument, &options.port, 0},           {"workers", required_argument, &options.workers, 0},
      {"hogs", required_argument, &options.hogs, 0},           {"blockers", required_argument, &options.blockers, 0},
      {"spin-port", required_argument, &options.spin_port, 0}, {0}};
  for (int which, name; (name = getopt_long(argc, argv, "", known, &which)) != -1;) {
    if (name == '?') return 2;
    *known[which].flag = atoi(optarg);
  }
  struct coir_config config = {.size = sizeof config, .workers = options.workers};
  if (options.hogs > 0 || options.spin_port > 0) config.preempt = COIR_ON;
  int rc = coir_configure(&config);
  if (rc == 0) rc = coir_run(run_server, NULL);
  die("coir_run", -rc);
}
