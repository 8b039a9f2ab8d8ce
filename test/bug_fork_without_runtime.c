/* A process that never made a runtime waits on plain threads with the help of threads of Coir's: one that looks after
 * descriptors, the keeper, and the pool that looks names up. A child of fork has none of them, but only the first
 * runtime registered what tells it so. Without one, who waited in the child waited for threads that were not there. */
#include <netdb.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "processes.h"

#include "coir_io.h"

#define LONG coir_after(COIR_SEC(20))

struct reader {
  int fd;
  ssize_t result;
};

static void *read_byte(void *arg) {
  struct reader *r = arg;
  char c;
  r->result = coir_read(r->fd, &c, 1, LONG);
  return NULL;
}

/* What a thread that reads `fd` gets, while this one first sends it something, or closes it under it. */
static ssize_t read_while(int fd, int to_send, int to_close) {
  pthread_t thread;
  struct reader r = {.fd = fd};
  CHECK_EQ(pthread_create(&thread, NULL, read_byte, &r), 0);
  coir_sleep(COIR_MS(20));
  if (to_send >= 0) CHECK_EQ(coir_write(to_send, "x", 1, LONG), 1);
  if (to_close >= 0) CHECK_EQ(syscall(SYS_close, to_close), 0); /* ThreadSanitizer is not to see it: it is a race */
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return r.result;
}

/* Does everything that needs such threads; then a child of this process does. */
static void wait_and_fork(int fds[2], int generations) {
  struct addrinfo *found;
  CHECK_EQ(read_while(fds[0], fds[1], -1), 1);
  int copy = dup(fds[0]), status = -1;
  CHECK_EQ(read_while(copy, -1, copy), -EBADF);
  int rc = coir_getaddrinfo("localhost", NULL, NULL, &found, LONG); /* whether there is such a name does not matter */
  CHECK(rc != -ETIMEDOUT);
  if (rc == 0) freeaddrinfo(found);
  if (generations == 0) return;
  wait_for_others();
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(60);
    wait_and_fork(fds, generations - 1);
    _exit(0);
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
}

static void children_wait_like_their_parents(void **state) {
  (void)state;
  int fds[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  wait_and_fork(fds, 2);
  CHECK_EQ(read_while(fds[0], fds[1], -1), 1);
  close(fds[0]);
  close(fds[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(children_wait_like_their_parents)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
