/* Channels (src/chan.c): each value that was sent is received once, by one, whatever else happens. */
#include "stand.h"

static struct coir_chan *chan;
static int sent[16], received[16], sends_failed, receives_failed; /* by value */

static void threads(size_t capacity) {
  stand_setup(3);
  chan = coir_chan_create(sizeof(uint64_t), capacity);
  EX_CHECK(chan);
}

/* On fibers of three workers; the lock leans towards the first. */
static void fibers(size_t capacity) {
  threads(capacity);
  for (int i = 0; i < 3; i++) stand_carry(i, i, &stand_fibers[i]);
}
static void unbuffered(void) { threads(0); }
static void buffered(void) { threads(1); }
static void fibers_unbuffered(void) { fibers(0); }
static void fibers_buffered(void) { fibers(1); }

/* Each thread has counters of its own, so that the checks order nothing. */
static int outcome[EX_THREADS_MAX][4], outcomes[EX_THREADS_MAX];
static uint64_t got[EX_THREADS_MAX][4];

static void give(uint64_t value, int64_t deadline) {
  int me = ex_me(), i = outcomes[me]++;
  got[me][i] = value;
  outcome[me][i] = coir_chan_send(chan, &value, deadline);
}
static void receive(int64_t deadline) {
  int me = ex_me(), i = outcomes[me]++;
  outcome[me][i] = coir_chan_recv(chan, &got[me][i], deadline);
}

static void count(uint32_t senders) {
  for (int t = 0; t < EX_THREADS_MAX; t++) {
    for (int i = 0; i < outcomes[t]; i++) {
      bool is_sender = senders >> t & 1;
      if (outcome[t][i] == 0) (is_sender ? sent : received)[got[t][i]]++;
      else (*(is_sender ? &sends_failed : &receives_failed))++;
    }
  }
}
static void check_all(uint32_t senders) {
  uint64_t value;
  count(senders);
  while (coir_chan_recv(chan, &value, 0) == 0) received[value]++; /* what is left */
  for (int i = 0; i < 16; i++)
    if (sent[i] != received[i]) ex_fail("value %d was sent %d times and received %d times", i, sent[i], received[i]);
}
static void check_two_senders(void) {
  check_all(6);
  EX_CHECK(sends_failed == 0 && receives_failed == 0);
}
static void check_senders(void) { check_all(6); }
static void check_one_sender(void) {
  check_all(2);
  EX_CHECK(sends_failed == 0 && receives_failed == 0);
}

static void two_senders(int me) {
  if (me) {
    give((uint64_t)me, COIR_NEVER);
    return;
  }
  receive(COIR_NEVER);
  receive(COIR_NEVER);
}

static void two_each(int me) {
  for (uint64_t i = 0; i < 2; i++)
    if (me) give(1 + i, COIR_NEVER);
    else receive(COIR_NEVER);
}

/* Who closes ends what cannot end otherwise. */
static void closes(int me) {
  if (me == 0) {
    receive(COIR_NEVER);
    receive(COIR_NEVER);
  } else if (me == 1) {
    give(1, COIR_NEVER);
  } else {
    outcomes[me] = 0;
    coir_chan_close(chan);
  }
}
static void check_closes(void) {
  check_all(2);
  EX_CHECK(receives_failed >= 1 && received[1] + sends_failed == 1);
}

/* A deadline against a value: it is received, or still the sender's. */
static void in_time(int me) {
  if (me == 0) receive(ex_now() + 1000);
  else give(1, me == 1 ? ex_now() + 1000 : 0);
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"unbuffered", 3, unbuffered, two_senders, check_two_senders, 2, 1},
      {"buffered", 2, buffered, two_each, check_one_sender, 3, 2},
      {"closes", 3, unbuffered, closes, check_closes, 2, 1},
      {"in_time", 2, unbuffered, in_time, check_senders, 3, 2},
      {"fibers_unbuffered", 3, fibers_unbuffered, two_senders, check_two_senders, 2, 1},
      {"fibers_buffered", 2, fibers_buffered, two_each, check_one_sender, 3, 2},
      {"fibers_close", 3, fibers_unbuffered, closes, check_closes, 2, 1},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
