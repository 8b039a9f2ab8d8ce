/* The trace hooks: a program's own take the place of those that do nothing; they are called in builds with
 * GOF_ENABLE_TRACING, and never in others. */
#include "gof_test.h"

#ifndef GOF_ENABLE_TRACING
#define GOF_ENABLE_TRACING 0
#endif

#define IDS 64

static _Atomic(int) switches, from_scheduler, wrong_ids, blocks, unblocks, reads, writes, wrong_events;
static _Atomic(int) entered[IDS], left[IDS];

void gof_trace_on_switch(uint64_t old_id, uint64_t new_id) {
  switches++;
  from_scheduler += old_id == 0;
  if (old_id >= IDS || new_id >= IDS || old_id == new_id) {
    wrong_ids++;
    return;
  }
  left[old_id]++;
  entered[new_id]++;
}

static void count_event(int fd, int ev) {
  if (fd == -1) wrong_events += ev != 0;
  else if (ev == 1) reads++;
  else if (ev == 2) writes++;
  else wrong_events++;
}

void gof_trace_on_block(int fd, int ev) {
  blocks++;
  count_event(fd, ev);
}

void gof_trace_on_unblock(int fd, int ev) {
  unblocks++;
  count_event(fd, ev);
}

#define EACH 10

static void yields_and_sleeps(void *arg) {
  (void)arg;
  for (int i = 0; i < EACH; i++) {
    gof_yield();
    gof_sleep_ms(1);
  }
}

static void each_switch_and_wait_is_told(void) {
  for (int i = 0; i < 8; i++) go(yields_and_sleeps, NULL);
  gof_run();
  CHECK_EQ(wrong_ids, 0);
  CHECK_EQ(wrong_events, 0);
  if (!GOF_ENABLE_TRACING) {
    CHECK_EQ(switches + blocks + unblocks, 0);
    return;
  }
  CHECK(blocks == 8 * EACH && unblocks == 8 * EACH);
  CHECK(reads == 0 && writes == 0);
  CHECK(from_scheduler > 0);
  for (int id = 1; id <= 8; id++) {
    CHECK_EQ(entered[id], left[id]);
    CHECK(entered[id] >= EACH + 1);
  }
}

static int fds[2];

static void reads_one(void *arg) {
  char c;
  (void)arg;
  CHECK_EQ(gof_read(fds[0], &c, 1), 1);
}

static void writes_one(void *arg) {
  (void)arg;
  gof_sleep_ms(5);
  CHECK_EQ(gof_write(fds[1], "x", 1), 1);
}

static void waits_for_descriptors_are_told(void) {
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  go(reads_one, NULL);
  go(writes_one, NULL);
  gof_run();
  CHECK_EQ(wrong_events, 0);
  CHECK_EQ(reads, GOF_ENABLE_TRACING ? 2 : 0); /* it began to wait, and went on */
  CHECK_EQ(writes, 0);
  CHECK_EQ(blocks, unblocks);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(each_switch_and_wait_is_told),
      CASE(waits_for_descriptors_are_told),
  };
  return RUN_CASES(argc, argv, cases);
}
