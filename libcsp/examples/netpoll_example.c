/* netpoll_example.c: a server that echoes, and its clients, over loopback; a goroutine for each connection. The calls
 * of the sockets are those of the system: csp_netpoll_register makes a descriptor non-blocking, csp_netpoll_wait_*
 * suspends the goroutine until it is ready, csp_read and csp_write do both at once. */
#include <csp.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { CLIENTS = 20, MESSAGES = 50, BYTES = 32 };

static struct sockaddr_in address;
static csp_sync_waitgroup_t clients;
static _Atomic(int) right;

static void must(bool holds, const char *what) {
  if (holds) return;
  perror(what);
  exit(1);
}

static bool write_all(int fd, const char *data, size_t n) {
  while (n > 0) {
    ssize_t done = csp_write(fd, data, n);
    if (done < 0) return false;
    data += done;
    n -= (size_t)done;
  }
  return true;
}

static bool read_all(int fd, char *data, size_t n) {
  while (n > 0) {
    ssize_t done = csp_read(fd, data, n);
    if (done <= 0) return false;
    data += done;
    n -= (size_t)done;
  }
  return true;
}

static void echo(void *arg) {
  int fd = (int)(intptr_t)arg;
  char data[256];
  for (ssize_t n; (n = csp_read(fd, data, sizeof data)) > 0;)
    if (!write_all(fd, data, (size_t)n)) break;
  csp_netpoll_unregister(fd);
  close(fd);
}

/* A connection; -1 when there is none after all. In a function of its own, since it looks at errno: in the loop below
 * the compiler could keep errno's address over the wait, and afterwards it would be the errno of another thread. */
static __attribute__((noinline)) int accept_one(int listener) {
  int fd = accept(listener, NULL, NULL);
  must(fd >= 0 ? csp_netpoll_register(fd) : errno == EAGAIN || errno == ECONNABORTED, "accept");
  return fd;
}

static void serve(void *arg) {
  int listener = (int)(intptr_t)arg;
  for (;;) {
    csp_netpoll_wait_read(listener, 0);
    int fd = accept_one(listener);
    if (fd < 0) continue;
    must(csp_proc_create(0, echo, (void *)(intptr_t)fd) != NULL, "csp_proc_create");
  }
}

static int dial(void) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), error = 0;
  socklen_t size = sizeof error;
  must(fd >= 0 && csp_netpoll_register(fd), "socket");
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  must(errno == EINPROGRESS, "connect");
  must(csp_netpoll_wait_write(fd, 20 * csp_timer_second) == csp_netpoll_avail, "connect");
  must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0, "connect");
  return fd;
}

static void client(void *arg) {
  int fd = dial();
  for (int i = 0; i < MESSAGES; i++) {
    char sent[BYTES] = {0}, received[BYTES];
    snprintf(sent, sizeof sent, "message %d of client %d", i, (int)(intptr_t)arg);
    if (write_all(fd, sent, BYTES) && read_all(fd, received, BYTES) && !memcmp(sent, received, BYTES))
      atomic_add(&right, 1);
  }
  close(fd);
  csp_sync_waitgroup_done(&clients);
}

int main(void) {
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  must(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 64) == 0, "listen");
  must(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
  must(csp_netpoll_register(listener), "csp_netpoll_register");
  must(csp_proc_create(0, serve, (void *)(intptr_t)listener) != NULL, "csp_proc_create");

  csp_sync_waitgroup_init(&clients);
  csp_sync_waitgroup_add(&clients, CLIENTS);
  for (intptr_t i = 0; i < CLIENTS; i++) must(csp_proc_create(0, client, (void *)i) != NULL, "csp_proc_create");
  csp_sync_waitgroup_wait(&clients);
  printf("%d of %d messages came back\n", atomic_load(&right), CLIENTS * MESSAGES);
  return 0; /* and with it the server ends */
}
