/* http.c: net/http in small: handlers, a time limit for each request, Shutdown. ../httpd.c is a real server. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coir.h"
#include "coir_io.h"

static char port[8]; /* the server's, in digits */

/* ---- Server ------------------------------------------------------------------------------------------------------ */

struct request {
  const char *path;
  int status; /* the answer */
  const char *body;
};

static void handle(struct request *r) {
  r->status = 200;
  if (strcmp(r->path, "/hello") == 0) {
    r->body = "hello, world";
  } else if (strcmp(r->path, "/slow") == 0) {
    r->body = coir_sleep(COIR_SEC(3600)) == 0 ? "at last" : "";
  } else {
    r->status = 404;
    r->body = "no such page";
  }
}

/* Gives the handler 100 ms: what it waits for then returns -ECANCELED, and the client is told. */
static void handle_in_time(struct request *r) {
  struct coir_scope *scope;
  if (coir_scope_open(&scope, 0, coir_after(COIR_MS(100))) != 0) {
    r->status = 500, r->body = "out of memory";
    return;
  }
  handle(r);
  if (coir_scope_close(scope) == -ETIMEDOUT) r->status = 503, r->body = "too slow";
}

/* Reads the head of a request. Returns false when none came. */
static bool read_head(int fd, char *buf, size_t room) {
  size_t got = 0;
  buf[0] = 0;
  while (!strstr(buf, "\r\n\r\n") && got + 1 < room) {
    ssize_t n = coir_read(fd, buf + got, room - 1 - got, coir_after(COIR_SEC(5)));
    if (n <= 0) return false;
    got += (size_t)n;
    buf[got] = 0;
  }
  return true;
}

static int serve(void *arg) {
  int fd = (int)(intptr_t)arg;
  char head[1024], path[256], answer[512];
  if (read_head(fd, head, sizeof head) && sscanf(head, "GET %255s HTTP/1.", path) == 1) {
    struct request r = {.path = path};
    handle_in_time(&r);
    int n = snprintf(answer, sizeof answer, "HTTP/1.0 %d -\r\nContent-Length: %zu\r\n\r\n%s", r.status, strlen(r.body),
                     r.body);
    coir_write_full(fd, answer, (size_t)n, coir_after(COIR_SEC(5)));
  }
  coir_close(fd);
  return 0;
}

/* Accepts until the listener is closed, and waits until every request has been answered. */
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

/* ---- Client ------------------------------------------------------------------------------------------------------ */

struct get {
  const char *path;
  int status;
  char body[256];
};

static int get(void *arg) {
  struct get *g = arg;
  char text[1024];
  int64_t deadline = coir_after(COIR_SEC(5)); /* for all calls together */
  int fd = coir_tcp_connect("127.0.0.1", port, deadline);
  if (fd < 0) return fd;
  int bytes = snprintf(text, sizeof text, "GET %s HTTP/1.0\r\n\r\n", g->path);
  ssize_t n = coir_write_full(fd, text, (size_t)bytes, deadline);
  if (n == bytes) n = coir_read_full(fd, text, sizeof text - 1, deadline); /* to the end of the stream */
  coir_close(fd);
  if (n < 0) return (int)n;
  text[n] = 0;
  const char *body = strstr(text, "\r\n\r\n");
  if (sscanf(text, "HTTP/1.%*c %d", &g->status) == 1 && body) snprintf(g->body, sizeof g->body, "%s", body + 4);
  return 0;
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
  struct get gets[] = {{.path = "/hello"}, {.path = "/slow"}, {.path = "/missing"}};
  struct coir_fiber *server;
  struct coir_scope *scope;
  int listener = open_listener();
  (void)arg;
  if (listener < 0 || coir_spawn(accept_loop, (void *)(intptr_t)listener, NULL, &server) != 0) return 1;
  if (coir_scope_open(&scope, 0, COIR_NEVER) != 0) return 1;
  for (int i = 0; i < 3; i++) coir_scope_spawn(scope, get, &gets[i], NULL, NULL); /* all at once */
  int rc = coir_scope_close(scope);
  for (int i = 0; i < 3; i++) printf("GET %s: %d %s\n", gets[i].path, gets[i].status, gets[i].body);
  coir_close(listener); /* ends accept_loop, which lets requests in progress end */
  coir_join(server, NULL, COIR_NEVER);
  printf("shut down\n");
  return rc;
}

int main(void) { return coir_run(first, NULL); }
