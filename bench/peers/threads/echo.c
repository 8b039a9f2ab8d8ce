/* echo_*, spinner_p99: a thread per connection, which blocks in recv and send. The kernel schedules them, on as many
 * CPUs as there are workers; those who compute and those who sleep are threads like the others. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>

#include "../echo.h"

enum { STACK_BYTES = 64 << 10 };

static void start(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_BYTES);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  int rc = pthread_create(&thread, &attr, fn, arg);
  if (rc != 0) echo_die("pthread_create", rc);
  pthread_attr_destroy(&attr);
}

static void *serve(void *arg) {
  char buffer[ECHO_BYTES];
  int fd = (int)(intptr_t)arg;
  for (ssize_t bytes; (bytes = recv(fd, buffer, sizeof buffer, 0)) > 0;) {
    for (ssize_t sent = 0, n; sent < bytes; sent += n) {
      n = send(fd, buffer + sent, (size_t)(bytes - sent), MSG_NOSIGNAL);
      if (n < 0) n = bytes; /* the next recv meets the error, too */
    }
  }
  close(fd);
  return NULL;
}

static void give(int worker, int fd) {
  (void)worker;
  start(serve, (void *)(intptr_t)fd);
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *run_hog(void *arg) {
  for (volatile uint64_t sum = 0;; sum = sum + 1) {}
  return arg;
}

static void *run_blocker(void *arg) {
  for (;;) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
  return arg;
}

static void *spin(void *arg) {
  int64_t until = now_ns() + 1000000000;
  while (now_ns() < until) {}
  close((int)(intptr_t)arg);
  return NULL;
}

static void give_to_spinner(int worker, int fd) {
  (void)worker;
  start(spin, (void *)(intptr_t)fd);
}

static void *run_spin_port(void *arg) {
  echo_accept((int)(intptr_t)arg, 0, 1, give_to_spinner);
  return NULL;
}

int main(int argc, char **argv) {
  struct echo_options o = echo_parse(argc, argv);
  cpu_set_t allowed, chosen;
  CPU_ZERO(&chosen);
  echo_check("sched_getaffinity", sched_getaffinity(0, sizeof allowed, &allowed));
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&chosen) < o.workers; cpu++) {
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(cpu, &chosen);
  }
  echo_check("sched_setaffinity", sched_setaffinity(0, sizeof chosen, &chosen));
  for (int i = 0; i < o.hogs; i++) start(run_hog, NULL);
  for (int i = 0; i < o.blockers; i++) start(run_blocker, NULL);
  if (o.spin_port > 0) start(run_spin_port, (void *)(intptr_t)echo_listen(o.spin_port));
  echo_accept(echo_listen(o.port), 0, o.workers, give);
}
