/* echo.c: an echo server and its clients in one program, over loopback.
 *
 * Sequential code on both sides: no callbacks, no states, no event loop to be seen. usage: echo [CLIENTS [ROUNDS]] */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "coir.h"
#include "coir_io.h"

static int clients = 100, rounds = 100;
static struct sockaddr_in address = {.sin_family = AF_INET}; /* the server's; port 0 becomes a free one */

/* One connection of the server: sends back what it receives, until the client says that it is done. */
static int serve(void *arg) {
  int fd = (int)(intptr_t)arg;
  char buf[512];
  ssize_t n;
  while ((n = coir_recv(fd, buf, sizeof buf, 0, coir_after(COIR_SEC(10)))) > 0) {
    if (coir_write_full(fd, buf, (size_t)n, coir_after(COIR_SEC(10))) != n) break;
  }
  coir_close(fd);
  return (int)n;
}

/* Accepts until the listener is closed: coir_accept then returns -EBADF. Who finds no descriptor free is left waiting
 * for a while. */
static int listen_loop(void *arg) {
  int listener = *(int *)arg, fd;
  for (;;) {
    fd = coir_accept(listener, NULL, NULL, COIR_NEVER);
    if (fd == -EMFILE || fd == -ENFILE) {
      if (coir_sleep(COIR_MS(1)) != 0) return -ECANCELED;
    } else if (fd < 0) {
      return fd == -EBADF ? 0 : fd;
    } else if (coir_go(serve, (void *)(intptr_t)fd) != 0) {
      coir_close(fd);
    }
  }
}

/* One client. Returns how many messages came back as they were sent, or an error. */
static int client(void *arg) {
  int number = (int)(intptr_t)arg, good = 0;
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return fd;
  int rc = coir_connect(fd, (struct sockaddr *)&address, sizeof address, coir_after(COIR_SEC(10)));
  for (int i = 0; rc == 0 && i < rounds; i++) {
    char sent[64], got[64];
    size_t bytes = (size_t)snprintf(sent, sizeof sent, "client %d, message %d", number, i);
    rc = coir_write_full(fd, sent, bytes, coir_after(COIR_SEC(10))) == (ssize_t)bytes ? 0 : -EIO;
    if (rc == 0 && coir_read_full(fd, got, bytes, coir_after(COIR_SEC(10))) != (ssize_t)bytes) rc = -EIO;
    if (rc == 0 && memcmp(sent, got, bytes) == 0) good++;
  }
  coir_close(fd);
  return rc == 0 ? good : rc;
}

static int open_listener(void) {
  socklen_t bytes = sizeof address;
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0 ||
                  getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)) {
    perror("echo");
    return -1;
  }
  return fd;
}

static int first(void *arg) {
  struct coir_fiber *server = NULL, **fibers = calloc((size_t)clients, sizeof(struct coir_fiber *));
  int listener = open_listener(), good = 0;
  int64_t start = coir_now();
  (void)arg;
  if (!fibers || listener < 0 || coir_spawn(listen_loop, &listener, NULL, &server) != 0) return 1;
  for (int i = 0; i < clients; i++) coir_spawn(client, (void *)(intptr_t)i, NULL, &fibers[i]);
  for (int i = 0; i < clients; i++) {
    struct coir_result result;
    if (fibers[i] && coir_join(fibers[i], &result, COIR_NEVER) == 0 && result.status > 0) good += result.status;
  }
  double seconds = (double)(coir_now() - start) / 1e9;
  coir_close(listener); /* ends listen_loop */
  coir_join(server, NULL, COIR_NEVER);
  free(fibers);
  printf("%d clients, %d of %d messages echoed, %.0f per second\n", clients, good, clients * rounds, good / seconds);
  return good != clients * rounds;
}

/* Each connection takes two: both of its ends are here. */
static void allow_descriptors(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv) {
  if (argc > 1) clients = atoi(argv[1]);
  if (argc > 2) rounds = atoi(argv[2]);
  allow_descriptors();
  return clients < 1 || rounds < 1 ? 2 : coir_run(first, NULL) != 0;
}
