/* echo.c: net.Listen, Accept, Dial, deadlines and Close: a server that shouts back, and its clients. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "coir.h"
#include "coir_io.h"

enum { CLIENTS = 5 };

static char port[8]; /* the server's, in digits */

static int serve(void *arg) {
  int fd = (int)(intptr_t)arg;
  char buf[256];
  ssize_t n;
  while ((n = coir_read(fd, buf, sizeof buf, coir_after(COIR_SEC(5)))) > 0) {
    for (ssize_t i = 0; i < n; i++) buf[i] = (char)toupper((unsigned char)buf[i]);
    if (coir_write_full(fd, buf, (size_t)n, coir_after(COIR_SEC(5))) != n) break;
  }
  coir_close(fd);
  return 0;
}

/* Accepts until the listener is closed. A scope waits for the connections that are still served then. */
static int accept_loop(void *arg) {
  int listener = (int)(intptr_t)arg, fd;
  struct coir_scope *conns;
  int rc = coir_scope_open(&conns, COIR_SCOPE_KEEP_GOING, COIR_NEVER);
  if (rc != 0) return rc;
  while ((fd = coir_accept(listener, NULL, NULL, COIR_NEVER)) >= 0) {
    if (coir_scope_spawn(conns, serve, (void *)(intptr_t)fd, NULL, NULL) != 0) coir_close(fd);
  }
  return coir_scope_close(conns);
}

struct client {
  int number;
  char reply[64];
};

static int talk(void *arg) {
  struct client *client = arg;
  int64_t deadline = coir_after(COIR_SEC(5)); /* for all calls together */
  int fd = coir_tcp_connect("127.0.0.1", port, deadline);
  if (fd < 0) return fd;
  char text[64];
  size_t bytes = (size_t)snprintf(text, sizeof text, "hello from %d", client->number);
  ssize_t n = coir_write_full(fd, text, bytes, deadline);
  if (n >= 0) n = coir_read_full(fd, client->reply, bytes, deadline);
  coir_close(fd);
  return n < 0 ? (int)n : 0;
}

static int open_listener(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof address;
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &bytes) != 0) {
    perror("listener");
    return -1;
  }
  snprintf(port, sizeof port, "%u", ntohs(address.sin_port));
  return fd;
}

static int first(void *arg) {
  struct client clients[CLIENTS] = {{0}};
  struct coir_fiber *server;
  struct coir_scope *scope;
  int listener = open_listener();
  (void)arg;
  if (listener < 0 || coir_spawn(accept_loop, (void *)(intptr_t)listener, NULL, &server) != 0) return 1;
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  for (int i = 0; i < CLIENTS; i++) {
    clients[i].number = i;
    coir_scope_spawn(scope, talk, &clients[i], NULL, NULL);
  }
  int rc = coir_scope_close(scope);
  coir_close(listener); /* ends accept_loop */
  coir_join(server, NULL, COIR_NEVER);
  for (int i = 0; i < CLIENTS; i++) printf("%s\n", clients[i].reply);
  printf("the server has stopped\n");
  return rc;
}

int main(void) { return coir_run(first, NULL); }
