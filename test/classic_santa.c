/* classic_santa.c: Santa Claus sleeps until his nine reindeer or three of his ten elves want him.
 *
 * All nine reindeer together pull the sleigh. Elves come in threes; who else wants help waits until they have gone.
 * When both groups stand at the door, the reindeer go first.
 *
 * Places in a group are a semaphore. Who takes the last place knocks, by a channel, which is what Santa selects on. Two
 * barriers, with Santa as one of the parties, hold the group together: nobody begins before all are there, and nobody
 * leaves before the work is done. */
#include "harness.h"

enum { REINDEER = 9, ELVES = 10, ELVES_AT_ONCE = 3, YEARS = 300, CONSULTATIONS = 300 };

struct group {
  int size;
  struct coir_sem places;
  _Atomic(int) present;
  int members[REINDEER]; /* those who are present */
  COIR_CHAN(int) door;
  struct coir_barrier begin, end;
  int served[ELVES]; /* how often Santa has met each member; his own */
};

static struct group reindeer, elves;

struct member {
  struct group *group;
  int number;
};

static void open_group(struct group *g, int size) {
  memset(g, 0, sizeof *g);
  g->size = size;
  g->door = COIR_CHAN_CREATE(int, 0);
  coir_sem_init(&g->places, size);
  coir_barrier_init(&g->begin, size + 1);
  coir_barrier_init(&g->end, size + 1);
}

/* The life of a reindeer or an elf, until the scope is cancelled. */
static int member(void *arg) {
  const struct member *me = arg;
  struct group *g = me->group;
  while (coir_sem_acquire(&g->places, 1, COIR_NEVER) == 0) {
    int place = atomic_fetch_add_explicit(&g->present, 1, memory_order_relaxed); /* the barrier publishes the rest */
    CHECK(place < g->size);
    g->members[place] = me->number;
    if (place == g->size - 1 && COIR_SEND(g->door, &place, COIR_NEVER) != 0) break;
    if (coir_barrier_wait(&g->begin, COIR_NEVER) < 0) break;
    if (coir_barrier_wait(&g->end, COIR_NEVER) < 0) break;
    if (coir_sleep(COIR_US(me->number)) < 0) break;
  }
  return 0;
}

/* Santa works with a group that has knocked. */
static void serve(struct group *g) {
  unsigned seen = 0;
  CHECK(coir_barrier_wait(&g->begin, COIR_NEVER) >= 0);
  CHECK_EQ(atomic_load_explicit(&g->present, memory_order_relaxed), g->size); /* relaxed: published by the barrier */
  for (int i = 0; i < g->size; i++) {
    CHECK((seen & 1u << g->members[i]) == 0); /* nobody is there twice */
    seen |= 1u << g->members[i];
    g->served[g->members[i]]++;
  }
  atomic_store_explicit(&g->present, 0, memory_order_relaxed); /* the semaphore publishes it to the next group */
  CHECK(coir_barrier_wait(&g->end, COIR_NEVER) >= 0);
  coir_sem_release(&g->places, g->size);
}

/* Sleeps until a group knocks. Returns it; the reindeer, if both have. */
static struct group *knock(void) {
  int place;
  int rc = COIR_RECV(reindeer.door, &place, 0);
  if (rc == 0) return &reindeer;
  CHECK_EQ(rc, -ETIMEDOUT);
  struct coir_arm arms[] = {coir_arm_recv(COIR_CHAN_RAW(reindeer.door), &place),
                            coir_arm_recv(COIR_CHAN_RAW(elves.door), &place)};
  int i = coir_select(arms, 2, COIR_NEVER);
  CHECK(i == 0 || i == 1);
  CHECK_EQ(arms[i].result, 0);
  return i == 0 ? &reindeer : &elves;
}

static int santa(void *arg) {
  struct member members[REINDEER + ELVES];
  struct coir_scope *scope;
  int years = 0, consultations = 0, sum = 0;
  (void)arg;
  open_group(&reindeer, REINDEER);
  open_group(&elves, ELVES_AT_ONCE);
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  for (int i = 0; i < REINDEER + ELVES; i++) {
    members[i] = i < REINDEER ? (struct member){&reindeer, i} : (struct member){&elves, i - REINDEER};
    CHECK_EQ(coir_scope_spawn(scope, member, &members[i], NULL, NULL), 0);
  }
  while (years < rounds(YEARS) || consultations < rounds(CONSULTATIONS)) {
    struct group *g = knock();
    serve(g);
    (*(g == &reindeer ? &years : &consultations))++;
  }
  coir_scope_cancel(scope, 0);
  CHECK_EQ(coir_scope_close(scope), -ECANCELED);
  for (int i = 0; i < REINDEER; i++) CHECK_EQ(reindeer.served[i], years);
  for (int i = 0; i < ELVES; i++) sum += elves.served[i];
  CHECK_EQ(sum, ELVES_AT_ONCE * consultations);
  coir_chan_unref(COIR_CHAN_RAW(reindeer.door));
  coir_chan_unref(COIR_CHAN_RAW(elves.door));
  return 0;
}

static void test_santa(void **state) {
  (void)state;
  CHECK_EQ(run(santa, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_santa)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
