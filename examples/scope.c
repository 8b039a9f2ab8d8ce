/* scope.c: a page is put together from three services, which are asked at the same time.
 *
 * The scope owns the three fibers that ask: whatever happens, none of them is left when the page is done or given up.
 * It has one deadline for all of them, and the first error cancels the others: a call that waits, such as coir_read,
 * then returns -ECANCELED, and the fiber cleans up after itself and ends. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "coir.h"
#include "coir_io.h"

/* A service that lives in this program, too, for the demonstration. */
struct service {
  const char *name, *answer;
  int64_t takes; /* until it answers, in ns */
  int fd;        /* its end of the line */
};

static int serve(void *arg) {
  struct service *s = arg;
  char request[32];
  if (coir_read(s->fd, request, sizeof request, coir_after(COIR_SEC(1))) > 0 &&
      coir_poll(s->fd, COIR_READABLE, coir_after(s->takes)) == -ETIMEDOUT) /* else the caller has hung up */
    coir_write(s->fd, s->answer, strlen(s->answer), COIR_NEVER);
  coir_close(s->fd);
  return 0;
}

/* Stands for coir_connect. */
static int dial(struct service *s) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return -EIO;
  coir_adopt(fds[0]);
  coir_adopt(fds[1]);
  s->fd = fds[1];
  coir_go(serve, s);
  return fds[0];
}

struct fetch {
  struct service *service;
  char answer[32];
  int result;
};

/* No deadline anywhere in here: the scope's counts. */
static int ask(struct fetch *f, int fd) {
  int rc = (int)coir_write(fd, "GET", 3, COIR_NEVER);
  if (rc > 0) rc = (int)coir_read(fd, f->answer, sizeof f->answer - 1, COIR_NEVER);
  if (rc < 0) return rc;
  return rc == 0 || strcmp(f->answer, "error") == 0 ? -EPROTO : 0;
}

static int fetch(void *arg) {
  struct fetch *f = arg;
  int fd = dial(f->service);
  if (fd < 0) return fd;
  f->result = ask(f, fd);
  coir_close(fd); /* also when it was cancelled */
  return f->result;
}

static void show(struct service *services, int64_t deadline) {
  struct fetch fetches[3];
  struct coir_scope *scope;
  memset(fetches, 0, sizeof fetches);
  int rc = coir_scope_open(&scope, 0, deadline);
  if (rc != 0) return;
  for (int i = 0; i < 3; i++) {
    fetches[i].service = &services[i];
    fetches[i].result = -ECANCELED;
    coir_scope_spawn(scope, fetch, &fetches[i], NULL, NULL);
  }
  rc = coir_scope_close(scope); /* they write into our frame: none of them is left after this */
  printf("%s:", rc == 0 ? "page" : rc == -ETIMEDOUT ? "too slow" : "failed");
  for (int i = 0; i < 3; i++)
    printf(" %s %s%s", services[i].name,
           fetches[i].result == 0            ? fetches[i].answer
           : fetches[i].result == -ECANCELED ? "given up"
                                             : "broken",
           i < 2 ? "," : "\n");
}

static int first(void *arg) {
  static struct service well[] = {
      {"price", "42", COIR_MS(3), -1}, {"stock", "7", COIR_MS(1), -1}, {"stars", "3.9", COIR_MS(2), -1}};
  static struct service bad[] = {
      {"price", "42", COIR_SEC(60), -1}, {"stock", "error", COIR_MS(1), -1}, {"stars", "3.9", COIR_SEC(60), -1}};
  static struct service slow[] = {
      {"price", "42", COIR_MS(1), -1}, {"stock", "7", COIR_SEC(60), -1}, {"stars", "3.9", COIR_MS(1), -1}};
  (void)arg;
  show(well, coir_after(COIR_SEC(5)));
  show(bad, coir_after(COIR_SEC(5)));
  show(slow, coir_after(COIR_MS(200)));
  return 0;
}

int main(void) { return coir_run(first, NULL); }
