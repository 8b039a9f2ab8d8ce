/* close(2) blocks where a socket is to linger (SO_LINGER) and has not got rid of what it is to send, whatever its mode.
 * coir_close called it as what does not block, so its worker could not be taken away from it: no other fiber of that
 * worker went on. And it told those who wait for the descriptor only afterwards. */
#include "parked.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "coir_io.h"

#define LINGER_SECONDS 3
#define LATE COIR_SEC(1)

static _Atomic(bool) is_over;

/* The longest time that it did not come to run. */
static int ticks(void *longest) {
  for (int64_t now, last = coir_now(); !atomic_load(&is_over); last = now) {
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    now = coir_now();
    if (now - last > *(int64_t *)longest) *(int64_t *)longest = now - last;
  }
  return 0;
}

struct reader {
  int fd;
  _Atomic(int64_t) over_at;
};

static int reads(void *arg) {
  struct reader *r = arg;
  char c;
  CHECK_EQ(coir_read(r->fd, &c, 1, COIR_NEVER), -EBADF);
  atomic_store(&r->over_at, coir_now());
  return 0;
}

static void make_tcp(int fds[2]) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof addr;
  int listener = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
  CHECK_EQ(listen(listener, 1), 0);
  CHECK_EQ(getsockname(listener, (struct sockaddr *)&addr, &bytes), 0);
  fds[0] = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(coir_connect(fds[0], (struct sockaddr *)&addr, sizeof addr, coir_after(COIR_SEC(20))), 0);
  fds[1] = coir_accept(listener, NULL, NULL, coir_after(COIR_SEC(20)));
  CHECK(fds[1] >= 0);
  CHECK_EQ(coir_close(listener), 0);
}

/* Returns for how long it blocked. */
static int64_t close_one_that_lingers(void) {
  static char data[1 << 16];
  struct linger linger = {.l_onoff = 1, .l_linger = LINGER_SECONDS};
  int fds[2];
  int64_t longest = 0;
  make_tcp(fds);
  while (coir_write(fds[0], data, sizeof data, 0) > 0) {}
  CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
  struct reader reader = {.fd = fds[0]};
  struct coir_fiber *f = spawn(reads, &reader), *ticker;
  until_parked(1);
  ticker = spawn(ticks, &longest);
  int64_t begun_at = coir_now();
  CHECK_EQ(coir_close(fds[0]), 0);
  int64_t ns = coir_now() - begun_at;
  atomic_store(&is_over, true);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(join(ticker), 0);
  CHECK(atomic_load(&reader.over_at) - begun_at < LATE);
  CHECK(longest < LATE);
  CHECK_EQ(coir_close(fds[1]), 0);
  return ns;
}

static int body(void *unused) {
  (void)unused;
  int64_t ns = close_one_that_lingers();
  if (ns < COIR_SEC(LINGER_SECONDS) / 2) print_message("it did not linger here: %lld ns\n", (long long)ns);
  return 0;
}

static void others_go_on_and_waiters_are_told(void **state) {
  (void)state;
  CHECK_EQ(run_with((struct coir_config){.workers = 1}, body, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(others_go_on_and_waiters_are_told)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
