/* echo_*: the floor. A loop per thread on an epoll of its own, level-triggered: wait, and for each socket that is ready
 * one recv and one send. The main thread accepts, and deals the connections out. */
#include <pthread.h>
#include <sys/epoll.h>

#include "../echo.h"

enum { EVENTS_MAX = 512 };

static int loops[ECHO_WORKERS_MAX];

/* What the socket does not take at once, which a client with one short message under way never sees, is sent by
 * waiting. */
static void send_all(int fd, const char *data, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);
    if (n < 0) {
      close(fd);
      return;
    }
    data += n;
    bytes -= (size_t)n;
  }
}

static void serve(int fd) {
  char buffer[ECHO_BYTES];
  ssize_t bytes = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
  if (bytes > 0) send_all(fd, buffer, (size_t)bytes);
  else if (bytes == 0 || errno != EAGAIN) close(fd);
}

static void *run_loop(void *arg) {
  struct epoll_event events[EVENTS_MAX];
  int epoll = *(int *)arg, n;
  while ((n = epoll_wait(epoll, events, EVENTS_MAX, -1)) >= 0 || errno == EINTR) {
    for (int i = 0; i < n; i++) serve(events[i].data.fd);
  }
  echo_die("epoll_wait", errno);
}

static void give(int worker, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  echo_check("epoll_ctl", epoll_ctl(loops[worker], EPOLL_CTL_ADD, fd, &event));
}

int main(int argc, char **argv) {
  struct echo_options o = echo_parse(argc, argv);
  pthread_t thread;
  for (int i = 0; i < o.workers; i++) {
    loops[i] = echo_check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
    if (pthread_create(&thread, NULL, run_loop, &loops[i]) != 0) echo_die("pthread_create", EAGAIN);
  }
  echo_accept(echo_listen(o.port), 0, o.workers, give);
}
