/* A descriptor that is not adopted may be closed by close(2) under who waits for it, while the file lives on under
 * another number, and its events still come. Who was woken by one asked whether the number still stood for its file
 * only if it had begun to wait when the descriptor was not adopted, or not watched yet; and never in a select. A reader
 * of what was adopted and disowned since got what the next file under the number had. A select reported that the next
 * file was ready, or went on to wait for that one, instead of returning EBADF. */
#include "parked.h"

#include <sys/socket.h>

#include "coir_io.h"

#define LONG coir_after(COIR_SEC(20))

enum kind { SOCKETS, PIPES };

static void make_pair(enum kind kind, int fds[2]) {
  CHECK_EQ(kind == PIPES ? pipe(fds) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

static void close_all(int count, const int *fds) {
  for (int i = 0; i < count; i++) CHECK_EQ(close(fds[i]), 0);
}

/* ---- What was adopted ------------------------------------------------------------------------------------------ */

struct reader {
  int fd;
  _Atomic(ssize_t) first;
  ssize_t second;
};

static int reads_twice(void *arg) {
  struct reader *r = arg;
  char buf[16];
  r->first = coir_read(r->fd, buf, sizeof buf, LONG);
  r->second = coir_read(r->fd, buf, sizeof buf, LONG);
  return 0;
}

static void disown_under(enum kind kind) {
  int old[2], new[2];
  char buf[16];
  make_pair(kind, old);
  make_pair(kind, new);
  CHECK_EQ(write(new[1], "new", 3), 3);
  CHECK_EQ(coir_adopt(old[0]), 0);
  struct reader r = {.fd = old[0]};
  struct coir_fiber *f = spawn(reads_twice, &r);
  until_parked(1);
  CHECK_EQ(write(old[1], "x", 1), 1);
  WAIT_FOR(r.first != 0);
  CHECK_EQ(r.first, 1);
  until_parked(1);
  int spare = dup(old[0]);
  CHECK_EQ(coir_disown(old[0]), 0);
  CHECK_EQ(dup2(new[0], old[0]), old[0]);
  CHECK_EQ(write(old[1], "old", 3), 3);
  CHECK_EQ(join(f), 0);
  CHECK_EQ(r.second, -EBADF);
  CHECK_EQ(read(new[0], buf, sizeof buf), 3);
  close_all(5, (int[]){old[0], old[1], new[0], new[1], spare});
}

ON_FIBER(a_reader_of_what_was_disowned) {
  disown_under(SOCKETS);
  disown_under(PIPES);
}

/* ---- Select ---------------------------------------------------------------------------------------------------- */

struct chooser {
  struct coir_arm arms[2];
  size_t count;
  int chosen;
};

static int selects(void *arg) {
  struct chooser *c = arg;
  c->chosen = coir_select(c->arms, c->count, coir_after(COIR_SEC(2)));
  return 0;
}

static void expect_lost(struct coir_fiber *f, const struct chooser *c) {
  CHECK_EQ(join(f), 0);
  CHECK_EQ(c->chosen, 0);
  CHECK_EQ(c->arms[0].result, -EBADF);
}

/* The former file has something to read, and the next one, too, if it `is_ready`. */
static void change_under(enum kind kind, bool is_ready) {
  int old[2], new[2];
  make_pair(kind, old);
  make_pair(kind, new);
  if (is_ready) CHECK_EQ(write(new[1], "new", 3), 3);
  struct chooser c = {.arms = {coir_arm_fd(old[0], COIR_READABLE)}, .count = 1};
  struct coir_fiber *f = spawn(selects, &c);
  until_parked(1);
  int spare = dup(old[0]);
  CHECK_EQ(dup2(new[0], old[0]), old[0]);
  CHECK_EQ(write(old[1], "old", 3), 3);
  expect_lost(f, &c);
  close_all(5, (int[]){old[0], old[1], new[0], new[1], spare});
}

ON_FIBER(a_select_whose_file_has_an_event) {
  for (int i = 0; i < 4; i++) change_under(i % 2 ? PIPES : SOCKETS, i / 2);
}

/* Nothing happens to the former file, but the select looks at its arms anew: an adoption wakes all who wait. */
static void change_beside(enum kind kind, bool is_ready) {
  int old[2], new[2], other[2];
  make_pair(kind, old);
  make_pair(kind, new);
  make_pair(kind, other);
  if (is_ready) CHECK_EQ(write(new[1], "new", 3), 3);
  struct chooser c = {.arms = {coir_arm_fd(old[0], COIR_READABLE), coir_arm_fd(other[0], COIR_READABLE)}, .count = 2};
  struct coir_fiber *f = spawn(selects, &c);
  until_parked(1);
  int spare = dup(old[0]);
  CHECK_EQ(dup2(new[0], old[0]), old[0]);
  CHECK_EQ(coir_adopt(other[0]), 0);
  expect_lost(f, &c);
  CHECK_EQ(coir_close(other[0]), 0);
  close_all(6, (int[]){old[0], old[1], new[0], new[1], other[1], spare});
}

ON_FIBER(a_select_that_another_arm_has_woken) {
  for (int i = 0; i < 4; i++) change_beside(i % 2 ? PIPES : SOCKETS, i / 2);
}

/* Whatever happens to the promise meanwhile: it is the same file. */
ON_FIBER(a_select_whose_file_stays) {
  for (int i = 0; i < 2; i++) {
    int fds[2];
    make_pair(SOCKETS, fds);
    if (i) CHECK_EQ(coir_adopt(fds[0]), 0);
    struct chooser c = {.arms = {coir_arm_fd(fds[0], COIR_READABLE)}, .count = 1};
    struct coir_fiber *f = spawn(selects, &c);
    until_parked(1);
    for (int k = 0; k < 3; k++) {
      CHECK_EQ(coir_adopt(fds[0]), 0);
      until_parked(1);
    }
    CHECK_EQ(coir_disown(fds[0]), 0);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    CHECK_EQ(join(f), 0);
    CHECK_EQ(c.chosen, 0);
    CHECK_EQ(c.arms[0].result, COIR_READABLE);
    close_all(2, fds);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_reader_of_what_was_disowned),
      cmocka_unit_test(a_select_whose_file_has_an_event),
      cmocka_unit_test(a_select_that_another_arm_has_woken),
      cmocka_unit_test(a_select_whose_file_stays),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
