/* classic_barber.c: a barber, and a waiting room with few chairs.
 *
 * The waiting room is a channel with room for as many customers as there are chairs. Who finds no chair goes away: a
 * send with deadline 0. The barber sleeps while the channel is empty, and goes home when it is closed, after having
 * served everybody who still sits there. */
#include "harness.h"

enum { CHAIRS = 3, CUSTOMERS = 20, VISITS = 200 };

struct customer {
  COIR_CHAN(struct customer *) room;
  struct coir_event is_done;
  int cuts; /* the barber's, until is_done is set */
  int served, turned_away;
};

static int barber(void *arg) {
  COIR_CHAN(struct customer *) room = arg;
  struct customer *customer;
  int cuts = 0, rc;
  while ((rc = COIR_RECV(room, &customer, COIR_NEVER)) == 0) {
    CHECK(coir_chan_length(COIR_CHAN_RAW(room)) <= CHAIRS);
    if (++cuts % 8 == 0) coir_sleep(COIR_US(20)); /* somebody with long hair */
    customer->cuts++;
    coir_event_set(&customer->is_done);
  }
  CHECK_EQ(rc, -EPIPE);
  return cuts;
}

static int visit(void *arg) {
  struct customer *me = arg;
  for (int i = 0; i < rounds(VISITS); i++) {
    int rc = COIR_SEND(me->room, &me, 0);
    if (rc == 0) {
      CHECK_EQ(coir_event_wait(&me->is_done, COIR_NEVER), 0);
      coir_event_reset(&me->is_done);
      CHECK_EQ(me->cuts, ++me->served);
    } else {
      CHECK_EQ(rc, -ETIMEDOUT);
      me->turned_away++;
      coir_yield(); /* a walk round the block */
    }
  }
  return 0;
}

static int shop(void *arg) {
  static struct customer customers[CUSTOMERS];
  struct coir_fiber *fibers[CUSTOMERS];
  COIR_CHAN(struct customer *) room = COIR_CHAN_CREATE(struct customer *, CHAIRS);
  struct coir_fiber *at_work = spawn(barber, room);
  int served = 0;
  (void)arg;
  for (int i = 0; i < CUSTOMERS; i++) {
    customers[i] = (struct customer){.room = room};
    fibers[i] = spawn(visit, &customers[i]);
  }
  for (int i = 0; i < CUSTOMERS; i++) {
    CHECK_EQ(join(fibers[i]), 0);
    CHECK_EQ(customers[i].served + customers[i].turned_away, rounds(VISITS));
    served += customers[i].served;
  }
  coir_chan_close(COIR_CHAN_RAW(room));
  CHECK_EQ(join(at_work), served);
  CHECK(served >= CHAIRS);
  coir_chan_unref(COIR_CHAN_RAW(room));
  return 0;
}

static void test_barber(void **state) {
  (void)state;
  CHECK_EQ(run(shop, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_barber)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
