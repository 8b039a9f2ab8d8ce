/* Locks that lean (src/bias.c): one at a time is inside, and who comes later sees what was done. */
#include "stand.h"

static struct coir__bias lock;
static int inside, total;

static void setup(void) {
  stand_setup(3);
  for (int i = 0; i < 3; i++) stand_carry(i, i, NULL);
}

/* It leans towards the first already. */
static void leaning(void) {
  setup();
  atm_store_rlx(&lock.owner, (uint16_t)stand_workers[0].bias);
}

static void add(struct coir__worker *w) {
  coir__bias_lock(w, &lock);
  EX_CHECK(inside++ == 0);
  total++;
  inside--;
  coir__bias_unlock(w, &lock);
}

static void adds_twice(int me) {
  add(&stand_workers[me]);
  if (me == 0) add(&stand_workers[me]);
}
static void check(void) { EX_CHECK(total >= 3); }

/* Often enough for it to lean towards one, and then towards the other. */
static void adds_often(int me) {
  for (int i = 0; i < 3; i++) add(&stand_workers[me]);
}

/* The quick way in. */
static void enters(int me) {
  struct coir__worker *w = &stand_workers[me];
  if (me == 0 && coir__bias_enter(w, &lock)) {
    EX_CHECK(inside++ == 0);
    inside--;
    coir__bias_leave(w);
  }
  add(w);
  add(w);
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"leaning", 3, leaning, adds_twice, check, 2, 2},
      {"often", 2, setup, adds_often, check, 2, 2},
      {"enters", 2, leaning, enters, check, 3, 3},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
