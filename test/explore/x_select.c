/* Select (src/select.c): one arm happens, and wholly; nobody is left waiting who could meet. */
#include "stand.h"

static struct coir_chan *a, *b;
static int chosen[EX_THREADS_MAX];
static uint64_t got[EX_THREADS_MAX];

static void threads(void) {
  stand_setup(3);
  a = coir_chan_create(sizeof(uint64_t), 0);
  b = coir_chan_create(sizeof(uint64_t), 0);
  EX_CHECK(a && b);
}
static void fibers(void) {
  threads();
  for (int i = 0; i < 3; i++) stand_carry(i, i, &stand_fibers[i]);
}

static int choose(struct coir_arm first, struct coir_arm second) {
  struct coir_arm arms[2] = {first, second};
  return coir_select(arms, 2, COIR_NEVER);
}

/* Each wants to give the other something, or to be given it: one of the two exchanges takes place. */
static void face_to_face(int me) {
  uint64_t mine = (uint64_t)me + 1;
  if (me == 0) chosen[0] = choose(coir_arm_recv(a, &got[0]), coir_arm_send(b, &mine));
  else chosen[1] = choose(coir_arm_send(a, &mine), coir_arm_recv(b, &got[1]));
}
static void check_faces(void) {
  EX_CHECK(chosen[0] == chosen[1]);
  EX_CHECK(chosen[0] == 0 ? got[0] == 2 && got[1] == 0 : got[0] == 0 && got[1] == 1);
}

/* Both senders get on: what is not chosen the first time is there the second time. */
static void from_two(int me) {
  uint64_t value = (uint64_t)me;
  if (me == 0) {
    chosen[0] = choose(coir_arm_recv(a, &got[0]), coir_arm_recv(b, &got[0]));
    EX_CHECK(got[0] == (uint64_t)chosen[0] + 1);
    EX_CHECK(coir_chan_recv(chosen[0] ? a : b, &got[0], COIR_NEVER) == 0);
    EX_CHECK(got[0] == 2 - (uint64_t)chosen[0]);
  } else {
    EX_CHECK(coir_chan_send(me == 1 ? a : b, &value, COIR_NEVER) == 0);
  }
}
static void check_nothing(void) {}

/* Cancelled, or given a value that is nowhere else. */
static void one_or_closed(int me) {
  uint64_t value = 5;
  if (me == 0) chosen[0] = choose(coir_arm_recv(a, &got[0]), coir_arm_recv(b, &got[0]));
  else if (me == 1) chosen[1] = coir_chan_send(a, &value, 0);
  else coir_chan_close(b);
}
static void check_closed(void) {
  EX_CHECK(chosen[0] == 0 ? got[0] == 5 && chosen[1] == 0 : chosen[0] == 1 && chosen[1] != 0);
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"face_to_face", 2, threads, face_to_face, check_faces, 2, 2},
      {"from_two", 3, threads, from_two, check_nothing, 1, 1},
      {"one_or_closed", 3, threads, one_or_closed, check_closed, 2, 1},
      {"fibers_face_to_face", 2, fibers, face_to_face, check_faces, 2, 2},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
