/* soak_httpd SERVER SECONDS CONNECTIONS: opens and drops connections to examples/httpd at random, and looks whether
 * the server gives everything back.
 *
 * CONNECTIONS fibers each connect, do something of what clients do (send nothing, half a request, a whole one,
 * several, one that takes the server long; read the answer or not), and drop the connection at any point, by an
 * orderly close or a reset; again and again, for SECONDS. A first round of a tenth of the time warms the server up.
 * Afterwards the server must have no connection but the one that asks, no descriptor more than after the warm-up, as
 * much memory from malloc as then, and resident, but for what malloc keeps of bursts, no fiber left over; and it must
 * end in order on SIGTERM. The seed is printed, and SOAK_SEED sets it. */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "coir.h"
#include "coir_io.h"
#include "sanitizers.h"

#define ALLOCATED_SLACK ((long)4 << 20) /* records of stacks, of which there are as many as at the peak */
#define RSS_SLACK ((long)16 << 20)      /* free lists, whose length depends on the peak */
#define SETTLE_MS 20000

static uint64_t seed;
static int port;
static _Atomic(uint64_t) opened, answered, refused;

/* xorshift64 (Marsaglia, 2003). */
static uint64_t random_next(uint64_t *state) {
  *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
  return *state;
}

static pid_t server_pid;

static void check(bool ok, const char *what, long value) {
  if (ok) return;
  fprintf(stderr, "soak_httpd: %s (%ld)\n", what, value);
  if (server_pid > 0) kill(server_pid, SIGKILL);
  exit(1);
}

/* ---- Clients --------------------------------------------------------------------------------------------------- */

static int dial(void) {
  struct sockaddr_in addr = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return fd;
  int rc = coir_connect(fd, (struct sockaddr *)&addr, sizeof addr, coir_after(COIR_SEC(5)));
  if (rc == 0) return fd;
  coir_close(fd);
  return rc;
}

static void drop(int fd, uint64_t dice) {
  struct linger reset = {.l_onoff = 1};
  if (dice % 2) setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  coir_close(fd);
}

static void be_a_client(int fd, uint64_t *dice) {
  static const char *const texts[] = {
      "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /stats HTTP/1.1\r\nHost: a\r\n\r\nGET / HT",
      "GET /sleep?ms=200 HTTP/1.1\r\nHost: a\r\n\r\n",
      "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nonly so much",
      "GET / HT",
      "",
      "this is no HTTP\r\n\r\n",
  };
  char answer[512];
  for (uint64_t i = random_next(dice) % 3 + 1; i > 0; i--) {
    const char *text = texts[random_next(dice) % (sizeof texts / sizeof *texts)];
    size_t bytes = strlen(text);
    if (bytes && coir_write_full(fd, text, bytes, coir_after(COIR_SEC(2))) < 0) return;
    if (random_next(dice) % 2 == 0) continue;
    int64_t deadline = coir_after(COIR_US(random_next(dice) % 20000));
    if (coir_recv(fd, answer, sizeof answer, 0, deadline) > 0) atomic_fetch_add(&answered, 1);
  }
}

/* What one fiber does until the time is over. */
struct client {
  uint64_t number;
  int64_t until;
};

static int run_client(void *arg) {
  const struct client *self = arg;
  uint64_t dice = seed ^ (self->number + 1) * UINT64_C(0x9e3779b97f4a7c15);
  while (coir_now() < self->until) {
    int fd = dial();
    if (fd < 0) {
      atomic_fetch_add(&refused, 1);
      if (coir_sleep(COIR_MS(random_next(&dice) % 50))) break;
      continue;
    }
    atomic_fetch_add(&opened, 1);
    be_a_client(fd, &dice);
    if (random_next(&dice) % 4 == 0) coir_sleep(COIR_US(random_next(&dice) % 50000));
    drop(fd, random_next(&dice));
    coir_yield();
  }
  return 0;
}

static void run_clients(long count, int64_t ns) {
  struct coir_scope *scope;
  struct client *clients = calloc((size_t)count, sizeof *clients);
  check(clients && coir_scope_open(&scope, 0, COIR_NEVER) == 0, "no memory", 0);
  for (long i = 0; i < count; i++) {
    clients[i] = (struct client){.number = (uint64_t)i, .until = coir_after(ns)};
    check(coir_scope_spawn(scope, run_client, &clients[i], NULL, NULL) == 0, "cannot spawn", i);
  }
  int rc = coir_scope_close(scope);
  check(rc == 0, "the clients failed", rc);
  free(clients);
}

/* ---- What the server says -------------------------------------------------------------------------------------- */

struct facts {
  long connections, fibers, rss, allocated, fds; /* rss: without what malloc keeps */
};

static long number_after(const char *text, const char *key) {
  const char *at = strstr(text, key);
  return at ? strtol(at + strlen(key), NULL, 10) : -1;
}

static long count_fds(pid_t pid) {
  char path[64];
  struct stat st;
  long n = 0;
  for (int fd = 0; fd < 65536; fd++) {
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    n += lstat(path, &st) == 0;
  }
  return n;
}

static struct facts ask(pid_t pid) {
  static const char request[] = "GET /stats HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  char text[4096] = "";
  struct facts f = {-1, -1, -1, -1, -1};
  int fd = dial();
  if (fd < 0) return f;
  if (coir_write_full(fd, request, sizeof request - 1, coir_after(COIR_SEC(5))) > 0 &&
      coir_read_full(fd, text, sizeof text - 1, coir_after(COIR_SEC(5))) > 0) {
    f.connections = number_after(text, "\"connections\":");
    f.fibers = number_after(text, "\"fibers_live\":");
    f.rss = number_after(text, "\"rss_bytes\":") - number_after(text, "\"kept_bytes\":");
    f.allocated = number_after(text, "\"allocated_bytes\":");
    f.fds = count_fds(pid) - 1; /* without the connection that asks, which may be closed already */
  }
  coir_close(fd);
  return f;
}

/* Waits until only the one that asks is connected. */
static struct facts settle(pid_t pid, const char *when) {
  struct facts f = ask(pid);
  for (int64_t end = coir_after(COIR_MS(SETTLE_MS)); (f.connections != 1 || f.fibers > 5) && coir_now() < end;
       f = ask(pid))
    coir_sleep(COIR_MS(50));
  printf("%s: %ld connections, %ld fibers, %ld descriptors, %.1f MB allocated, %.1f MB resident\n", when, f.connections,
         f.fibers, f.fds, (double)f.allocated / 1e6, (double)f.rss / 1e6);
  check(f.connections == 1, "connections are left", f.connections);
  check(f.fibers <= 5, "fibers are left", f.fibers);
  return f;
}

/* ---- The run --------------------------------------------------------------------------------------------------- */

static struct coir_process *start_server(char *path) {
  struct coir_process *server;
  char *argv[] = {path, "--port", "0", "--header-ms", "500", NULL};
  struct coir_process_options options = {.path = path, .argv = argv, .io = {[1] = {.kind = COIR_STDIO_PIPE}}};
  int rc = coir_process_spawn(&server, &options);
  check(rc == 0, "the server does not start", rc);
  server_pid = coir_process_pid(server);
  char line[128] = "";
  ssize_t n = coir_read(coir_process_fd(server, 1), line, sizeof line - 1, coir_after(COIR_SEC(10)));
  port = (int)number_after(line, "127.0.0.1:");
  check(n > 0 && port > 0, "the server does not listen", (long)n);
  return server;
}

static char **args;

static int run(void *arg) {
  (void)arg;
  long seconds = atol(args[2]), connections = atol(args[3]);
  struct coir_process *server = start_server(args[1]);
  pid_t pid = server_pid;
  run_clients(connections, COIR_SEC(seconds) / 10 + COIR_MS(300));
  struct facts before = settle(pid, "after warming up");
  run_clients(connections, COIR_SEC(seconds));
  struct facts after = settle(pid, "after the run");
  printf("%lu opened, %lu answers read, %lu refused\n", (unsigned long)opened, (unsigned long)answered,
         (unsigned long)refused);
  check(opened > (uint64_t)connections, "too few were opened", (long)opened);
  check(after.fds <= before.fds + 1, "descriptors are left", after.fds - before.fds);
  check(before.allocated >= 0, "the server does not say what is allocated", before.allocated);
  check(after.allocated <= before.allocated + ALLOCATED_SLACK, "memory is left", after.allocated - before.allocated);
  check(IS_SANITIZED || after.rss <= before.rss + RSS_SLACK, "too much is resident", after.rss - before.rss);
  int status = -1;
  coir_process_kill(server, SIGTERM);
  int rc = coir_process_wait(server, &status, coir_after(COIR_SEC(20)));
  check(rc == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the server does not end in order", status);
  coir_process_destroy(server);
  return 0;
}

int main(int argc, char **argv) {
  struct rlimit files;
  if (argc != 4) {
    fprintf(stderr, "usage: soak_httpd SERVER SECONDS CONNECTIONS\n");
    return 2;
  }
  args = argv;
  seed = getenv("SOAK_SEED") ? strtoull(getenv("SOAK_SEED"), NULL, 0) : (uint64_t)coir_now() | 1;
  printf("SOAK_SEED=%llu\n", (unsigned long long)seed);
  signal(SIGPIPE, SIG_IGN);
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  return coir_run(run, NULL);
}
