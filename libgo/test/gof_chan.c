/* Channels: order, room, closing, the forms that do not wait, fibers and plain threads mixed. */
#include "gof_test.h"

/* ---- One at a time ----------------------------------------------------------------------------------------------- */

static void the_forms_that_do_not_wait(void) {
  void *v = NULL;
  gof_chan_t *c = gof_chan_make(1);
  CHECK(c != NULL);
  CHECK_EQ(gof_chan_try_recv(c, &v), 0);
  CHECK_EQ(gof_chan_try_send(c, number(7)), 1);
  CHECK_EQ(gof_chan_try_send(c, number(8)), 0);
  CHECK_EQ(gof_chan_try_recv(c, &v), 1);
  CHECK(v == number(7));
  CHECK_EQ(gof_chan_try_recv(c, &v), 0);
  gof_chan_close(c);
  errno = 0;
  CHECK_EQ(gof_chan_try_send(c, NULL), -1);
  CHECK_EQ(errno, EPIPE);
  errno = 0;
  CHECK_EQ(gof_chan_try_recv(c, &v), -1);
  CHECK_EQ(errno, EPIPE);
  gof_chan_free(c);
}

#define REFUSES(call)        \
  do {                       \
    errno = 0;               \
    CHECK_EQ(call, -1);      \
    CHECK_EQ(errno, EINVAL); \
  } while (0)

static void refuses_nothing(void *arg) {
  void *v;
  REFUSES(gof_chan_send(NULL, arg));
  REFUSES(gof_chan_recv(NULL, &v));
  REFUSES(gof_chan_recv(NULL, NULL));
  REFUSES(gof_chan_try_send(NULL, arg));
  REFUSES(gof_chan_try_recv(NULL, &v));
  REFUSES(gof_chan_try_recv(NULL, NULL));
  gof_chan_close(NULL);
  gof_chan_free(NULL);
}

static void null_is_no_channel(void) {
  refuses_nothing(NULL);
  go(refuses_nothing, NULL);
  gof_run();
}

static void too_large_a_channel_is_refused(void) {
  errno = 0;
  CHECK(gof_chan_make(SIZE_MAX) == NULL);
  CHECK_EQ(errno, ENOMEM);
  errno = 0;
  CHECK(gof_chan_make(SIZE_MAX / sizeof(void *)) == NULL);
  CHECK_EQ(errno, ENOMEM);
}

static void values_can_be_dropped(void) {
  void *v = number(1);
  gof_chan_t *c = gof_chan_make(4);
  for (intptr_t i = 1; i <= 4; i++) CHECK_EQ(gof_chan_send(c, number(i)), 0);
  CHECK_EQ(gof_chan_recv(c, NULL), 0);
  CHECK_EQ(gof_chan_try_recv(c, NULL), 1);
  CHECK_EQ(gof_chan_recv(c, &v), 0);
  CHECK(v == number(3));
  gof_chan_close(c);
  CHECK_EQ(gof_chan_try_recv(c, NULL), 1);
  CHECK_EQ(gof_chan_try_recv(c, NULL), -1);
  CHECK_EQ(gof_chan_recv(c, NULL), -1);
  gof_chan_free(c);
}

static void null_is_a_value(void) {
  void *v = &v;
  gof_chan_t *c = gof_chan_make(1);
  CHECK_EQ(gof_chan_send(c, NULL), 0);
  CHECK_EQ(gof_chan_recv(c, &v), 0);
  CHECK(v == NULL);
  v = &v;
  CHECK_EQ(gof_chan_try_send(c, NULL), 1);
  CHECK_EQ(gof_chan_try_recv(c, &v), 1);
  CHECK(v == NULL);
  gof_chan_free(c);
}

static void closing_keeps_what_is_buffered(void) {
  void *v;
  gof_chan_t *c = gof_chan_make(100);
  for (intptr_t i = 0; i < 60; i++) CHECK_EQ(gof_chan_send(c, number(i)), 0);
  gof_chan_close(c);
  gof_chan_close(c);
  errno = 0;
  CHECK_EQ(gof_chan_send(c, NULL), -1);
  CHECK_EQ(errno, EPIPE);
  for (intptr_t i = 0; i < 60; i++) {
    CHECK_EQ(i % 2 ? gof_chan_try_recv(c, &v) - 1 : gof_chan_recv(c, &v), 0);
    CHECK(v == number(i));
  }
  errno = 0;
  CHECK_EQ(gof_chan_recv(c, &v), -1);
  CHECK_EQ(errno, EPIPE);
  gof_chan_close(c);
  gof_chan_free(c);
}

/* What is in it goes with it. */
static void a_full_channel_can_be_freed(void) {
  for (int i = 0; i < 100; i++) {
    gof_chan_t *c = gof_chan_make(8);
    for (intptr_t n = 0; n < 8; n++) CHECK_EQ(gof_chan_try_send(c, number(n)), 1);
    gof_chan_free(c);
  }
}

/* ---- Fibers that wait -------------------------------------------------------------------------------------------- */

static gof_chan_t *chan;
static _Atomic(int) sent, received;
static void *taken[64];

static void sends_and_notes(void *value) {
  CHECK_EQ(gof_chan_send(chan, value), 0);
  atomic_fetch_add(&sent, 1);
}

static void takes_later(void *arg) {
  void *v = NULL;
  (void)arg;
  while (blocked_count() < 1) gof_yield();
  for (int i = 0; i < 20; i++) gof_yield();
  CHECK_EQ(sent, 0);
  CHECK_EQ(gof_chan_recv(chan, &v), 0);
  CHECK(v == number(5));
  while (!atomic_load(&sent)) gof_yield();
}

static void without_room_a_send_ends_when_taken(void) {
  chan = gof_chan_make(0);
  CHECK_EQ(gof_chan_try_send(chan, number(1)), 0);
  CHECK_EQ(gof_chan_try_recv(chan, NULL), 0);
  go(sends_and_notes, number(5));
  go(takes_later, NULL);
  gof_run();
  CHECK_EQ(sent, 1);
  gof_chan_free(chan);
}

static void receives_and_notes(void *place) {
  CHECK_EQ(gof_chan_recv(chan, place), 0);
  atomic_fetch_add(&received, 1);
}

/* Trying meets who waits on the other side. */
static void tries(void *arg) {
  void *v = NULL;
  (void)arg;
  go(receives_and_notes, &taken[0]);
  while (blocked_count() < 1) gof_yield();
  CHECK_EQ(gof_chan_try_send(chan, number(11)), 1);
  CHECK_EQ(gof_chan_try_send(chan, number(12)), 0);
  while (!atomic_load(&received)) gof_yield();
  CHECK(taken[0] == number(11));
  go(sends_and_notes, number(13));
  while (blocked_count() < 1) gof_yield();
  CHECK_EQ(gof_chan_try_recv(chan, &v), 1);
  CHECK(v == number(13));
  CHECK_EQ(gof_chan_try_recv(chan, &v), 0);
}

static void trying_meets_who_waits(void) {
  chan = gof_chan_make(0);
  go(tries, NULL);
  gof_run();
  CHECK_EQ(sent, 1);
  gof_chan_free(chan);
}

/* Starts `n` fibers of which each waits before the next begins. */
static void queue_up(gof_fn fn, int n) {
  for (int i = 0; i < n; i++) {
    go(fn, number(i));
    while (blocked_count() < i + 1) gof_yield();
  }
}

static void takes_in_turn(void *arg) { CHECK_EQ(gof_chan_recv(chan, &taken[(intptr_t)arg]), 0); }

static void serves_receivers(void *arg) {
  (void)arg;
  queue_up(takes_in_turn, 20);
  for (intptr_t i = 0; i < 20; i++) CHECK_EQ(gof_chan_send(chan, number(100 + i)), 0);
}

static void who_receives_first_is_served_first(void) {
  chan = gof_chan_make(3);
  go(serves_receivers, NULL);
  gof_run();
  for (intptr_t i = 0; i < 20; i++) CHECK(taken[i] == number(100 + i));
  gof_chan_free(chan);
}

static void serves_senders(void *arg) {
  (void)arg;
  for (intptr_t i = 0; i < 3; i++) CHECK_EQ(gof_chan_try_send(chan, number(100 + i)), 1);
  queue_up(sends_and_notes, 20);
  for (intptr_t i = 0; i < 23; i++) {
    void *v;
    CHECK_EQ(gof_chan_recv(chan, &v), 0);
    CHECK(v == number(i < 3 ? 100 + i : i - 3));
  }
}

static void who_sends_first_is_served_first(void) {
  chan = gof_chan_make(3);
  go(serves_senders, NULL);
  gof_run();
  CHECK_EQ(sent, 20);
  gof_chan_free(chan);
}

static _Atomic(int) refused;

static void is_refused(void *receives) {
  void *v;
  errno = 0;
  CHECK_EQ(receives ? gof_chan_recv(chan, &v) : gof_chan_send(chan, number(1)), -1);
  CHECK_EQ(errno, EPIPE);
  atomic_fetch_add(&refused, 1);
}

static void closes_when_blocked(void *n) {
  while (blocked_count() < (intptr_t)n) gof_yield();
  gof_chan_close(chan);
}

static void closing_wakes_receivers(void) {
  for (size_t room = 0; room < 3; room++) {
    refused = 0;
    chan = gof_chan_make(room);
    for (int i = 0; i < 50; i++) go(is_refused, number(1));
    go(closes_when_blocked, number(50));
    gof_run();
    CHECK_EQ(refused, 50);
    gof_chan_free(chan);
  }
}

static void closing_wakes_senders_who_keep_their_values(void) {
  for (size_t room = 0; room < 3; room++) {
    void *v;
    refused = 0;
    chan = gof_chan_make(room);
    for (size_t i = 0; i < room; i++) CHECK_EQ(gof_chan_send(chan, number(2)), 0);
    for (int i = 0; i < 50; i++) go(is_refused, NULL);
    go(closes_when_blocked, number(50));
    gof_run();
    CHECK_EQ(refused, 50);
    for (size_t i = 0; i < room; i++) {
      CHECK_EQ(gof_chan_recv(chan, &v), 0);
      CHECK(v == number(2));
    }
    CHECK_EQ(gof_chan_recv(chan, &v), -1);
    gof_chan_free(chan);
  }
}

/* ---- Ping-pong, rings -------------------------------------------------------------------------------------------- */

#define ROUNDS (IS_SANITIZED ? 500 : 5000)

static void ping(void *arg) {
  void *v;
  (void)arg;
  for (intptr_t i = 0; i < ROUNDS; i++) {
    CHECK_EQ(gof_chan_send(chan, number(i)), 0);
    CHECK_EQ(gof_chan_recv(chan, &v), 0);
    CHECK(v == number(-i));
  }
}

static void pong(void *arg) {
  void *v;
  (void)arg;
  for (intptr_t i = 0; i < ROUNDS; i++) {
    CHECK_EQ(gof_chan_recv(chan, &v), 0);
    CHECK(v == number(i));
    CHECK_EQ(gof_chan_send(chan, number(-i)), 0);
  }
}

/* Both use the same channel, without room: what one sends only the other can take. */
static void ping_pong_over_one_channel(void) {
  chan = gof_chan_make(0);
  go(ping, NULL);
  go(pong, NULL);
  gof_run();
  gof_chan_free(chan);
}

static void ping_pong_on_any_thread(void) {
  migrate();
  ping_pong_over_one_channel();
}

#define RING 100
static gof_chan_t *ring[RING + 1];

static void passes_on(void *place) {
  gof_chan_t **at = place;
  void *v;
  while (gof_chan_recv(at[0], &v) == 0) CHECK_EQ(gof_chan_send(at[1], number((intptr_t)v + 1)), 0);
  gof_chan_close(at[1]);
}

static void feeds(void *n) {
  for (intptr_t i = 0; i < (intptr_t)n; i++) CHECK_EQ(gof_chan_send(ring[0], number(i)), 0);
  gof_chan_close(ring[0]);
}

static void drains(void *n) {
  void *v;
  for (intptr_t i = 0; i < (intptr_t)n; i++) {
    CHECK_EQ(gof_chan_recv(ring[RING], &v), 0);
    CHECK(v == number(i + RING));
  }
  CHECK_EQ(gof_chan_recv(ring[RING], &v), -1);
}

static void a_pipeline_keeps_the_order(void) {
  for (int i = 0; i <= RING; i++) CHECK((ring[i] = gof_chan_make((size_t)i % 3)) != NULL);
  go(drains, number(50));
  for (int i = 0; i < RING; i++) go(passes_on, &ring[i]);
  go(feeds, number(50));
  gof_run();
  for (int i = 0; i <= RING; i++) gof_chan_free(ring[i]);
}

/* ---- Plain threads ----------------------------------------------------------------------------------------------- */

static void *thread_sends(void *n) {
  for (intptr_t i = 0; i < (intptr_t)n; i++) CHECK_EQ(gof_chan_send(chan, number(i)), 0);
  gof_chan_close(chan);
  return NULL;
}

static void receives_in_order(void *n) {
  void *v;
  for (intptr_t i = 0; i < (intptr_t)n; i++) {
    CHECK_EQ(gof_chan_recv(chan, &v), 0);
    CHECK(v == number(i));
  }
  CHECK_EQ(gof_chan_recv(chan, &v), -1);
  atomic_fetch_add(&received, 1);
}

static void *thread_receives(void *n) {
  receives_in_order(n);
  return NULL;
}

static void fiber_sends(void *n) { thread_sends(n); }

static void a_plain_thread_feeds_fibers(void) {
  pthread_t t;
  for (size_t room = 0; room < 2; room++) {
    chan = gof_chan_make(room);
    go(receives_in_order, number(500));
    CHECK_EQ(pthread_create(&t, NULL, thread_sends, number(500)), 0);
    gof_run();
    pthread_join(t, NULL);
    gof_chan_free(chan);
  }
  CHECK_EQ(received, 2);
  CHECK_EQ(stats_now().inject_enqueues, stats_now().inject_drains);
}

static void fibers_feed_a_plain_thread(void) {
  pthread_t t;
  for (size_t room = 0; room < 2; room++) {
    chan = gof_chan_make(room);
    CHECK_EQ(pthread_create(&t, NULL, thread_receives, number(500)), 0);
    go(fiber_sends, number(500));
    gof_run();
    pthread_join(t, NULL);
    gof_chan_free(chan);
  }
  CHECK_EQ(received, 2);
}

/* Without a runtime that runs, or fibers at all. */
static void plain_threads_among_themselves(void) {
  pthread_t t;
  chan = gof_chan_make(0);
  CHECK_EQ(pthread_create(&t, NULL, thread_receives, number(500)), 0);
  thread_sends(number(500));
  pthread_join(t, NULL);
  gof_chan_free(chan);
}

/* The plain thread is blocked, not busy. */
static void *thread_receives_one(void *arg) {
  CHECK_EQ(gof_chan_recv(chan, arg), 0);
  return NULL;
}

static void sends_after_100_ms(void *value) {
  gof_sleep_ms(100);
  CHECK_EQ(gof_chan_send(chan, value), 0);
}

static void a_plain_thread_is_blocked_meanwhile(void) {
  pthread_t t;
  void *v = NULL;
  chan = gof_chan_make(0);
  int64_t cpu = cpu_now();
  CHECK_EQ(pthread_create(&t, NULL, thread_receives_one, &v), 0);
  go(sends_after_100_ms, number(3));
  gof_run();
  pthread_join(t, NULL);
  CHECK(v == number(3));
  CHECK(cpu_now() - cpu < COIR_MS(60));
  gof_chan_free(chan);
}

static void to_and_from_background_mode(void) {
  void *v;
  chan = gof_chan_make(0);
  gof_chan_t *back = ring[1] = gof_chan_make(2);
  ring[0] = chan;
  CHECK_EQ(gof_start_background(0), 0);
  go(passes_on, &ring[0]);
  for (intptr_t i = 0; i < 300; i++) {
    CHECK_EQ(gof_chan_send(chan, number(i)), 0);
    CHECK_EQ(gof_chan_recv(back, &v), 0);
    CHECK(v == number(i + 1));
  }
  gof_chan_close(chan);
  CHECK_EQ(gof_chan_recv(back, &v), -1);
  CHECK_EQ(gof_join_background(), 0);
  gof_chan_free(chan);
  gof_chan_free(back);
}

/* ---- Conservation ------------------------------------------------------------------------------------------------ */

/* Many send, many receive, fibers and threads: each value arrives once, and those of one sender in order. */
#define ACTORS 8
#define VALUES (IS_SANITIZED ? 200 : 1000)

static _Atomic(int) senders_left, actors_left;
static _Atomic(unsigned char) arrived[ACTORS][1000];

static void produces(void *arg) {
  intptr_t self = (intptr_t)arg;
  for (intptr_t i = 0; i < VALUES; i++) {
    void *v = number(self * 1000 + i);
    if (i % 3 || gof_chan_try_send(chan, v) != 1) CHECK_EQ(gof_chan_send(chan, v), 0);
    if (i % 50 == self) gof_yield();
  }
  if (atomic_fetch_sub(&senders_left, 1) == 1) gof_chan_close(chan);
  atomic_fetch_sub(&actors_left, 1);
}

static void consumes(void *arg) {
  intptr_t last[ACTORS];
  for (int i = 0; i < ACTORS; i++) last[i] = -1;
  for (intptr_t n = (intptr_t)arg;; n++) {
    void *v;
    int rc = n % 3 ? -2 : gof_chan_try_recv(chan, &v);
    if (rc <= 0 && gof_chan_recv(chan, &v) != 0) break;
    intptr_t from = (intptr_t)v / 1000, i = (intptr_t)v % 1000;
    CHECK(from >= 0 && from < ACTORS && i < VALUES);
    CHECK(i > last[from]);
    last[from] = i;
    CHECK_EQ(atomic_fetch_add(&arrived[from][i], 1), 0);
    if (n % 50 == 7) gof_yield();
  }
  atomic_fetch_sub(&actors_left, 1);
}

static void *thread_produces(void *arg) {
  produces(arg);
  return NULL;
}

static void *thread_consumes(void *arg) {
  consumes(arg);
  return NULL;
}

/* Every `threads`-th actor is a plain thread; 0: none. */
static void conserve(size_t room, int threads) {
  pthread_t t[2 * ACTORS];
  int n = 0;
  memset((void *)arrived, 0, sizeof arrived);
  senders_left = ACTORS;
  actors_left = 2 * ACTORS;
  chan = gof_chan_make(room);
  for (intptr_t i = 0; i < ACTORS; i++) {
    bool plain = threads && i % threads == 0;
    if (plain) CHECK_EQ(pthread_create(&t[n++], NULL, thread_produces, number(i)), 0);
    else go(produces, number(i));
    if (plain) CHECK_EQ(pthread_create(&t[n++], NULL, thread_consumes, number(i)), 0);
    else go(consumes, number(i));
  }
  gof_run();
  for (int i = 0; i < n; i++) pthread_join(t[i], NULL);
  CHECK_EQ(actors_left, 0);
  for (int s = 0; s < ACTORS; s++)
    for (int i = 0; i < VALUES; i++) CHECK_EQ(arrived[s][i], 1);
  gof_chan_free(chan);
}

static void each_value_arrives_once(void) {
  static const size_t rooms[] = {0, 1, 3, 64};
  for (size_t i = 0; i < 4; i++) conserve(rooms[i], 0);
}

static void each_value_arrives_once_with_threads(void) {
  static const size_t rooms[] = {0, 1, 64};
  for (size_t i = 0; i < 3; i++) conserve(rooms[i], 4);
  conserve(1, 1);
}

static void each_value_arrives_once_on_any_thread(void) {
  migrate();
  conserve(0, 0);
  conserve(3, 4);
}

/* Closed while many send: what was accepted arrives, and nothing else. */
static _Atomic(int64_t) accepted_sum, arrived_sum;

static void sends_until_closed(void *arg) {
  for (intptr_t i = 1; gof_chan_send(chan, number(i)) == 0; i++) atomic_fetch_add(&accepted_sum, i);
  (void)arg;
}

static void receives_until_closed(void *arg) {
  void *v;
  while (gof_chan_recv(chan, &v) == 0) atomic_fetch_add(&arrived_sum, (intptr_t)v);
  (void)arg;
}

static void closes_soon(void *arg) {
  for (intptr_t i = 0; i < (intptr_t)arg; i++) gof_yield();
  gof_chan_close(chan);
  gof_chan_close(chan);
}

static void closing_loses_nothing(void) {
  for (int round = 0; round < (IS_SANITIZED ? 20 : 100); round++) {
    accepted_sum = arrived_sum = 0;
    chan = gof_chan_make((size_t)round % 4);
    for (int i = 0; i < 4; i++) {
      go(sends_until_closed, NULL);
      go(receives_until_closed, NULL);
    }
    go(closes_soon, number(round % 23));
    gof_run();
    CHECK_EQ(accepted_sum, arrived_sum);
    gof_chan_free(chan);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(the_forms_that_do_not_wait),
      CASE(null_is_no_channel),
      CASE(too_large_a_channel_is_refused),
      CASE(values_can_be_dropped),
      CASE(null_is_a_value),
      CASE(closing_keeps_what_is_buffered),
      CASE(a_full_channel_can_be_freed),
      CASE(without_room_a_send_ends_when_taken),
      CASE(trying_meets_who_waits),
      CASE(who_receives_first_is_served_first),
      CASE(who_sends_first_is_served_first),
      CASE(closing_wakes_receivers),
      CASE(closing_wakes_senders_who_keep_their_values),
      CASE(ping_pong_over_one_channel),
      CASE(ping_pong_on_any_thread),
      CASE(a_pipeline_keeps_the_order),
      CASE(a_plain_thread_feeds_fibers),
      CASE(fibers_feed_a_plain_thread),
      CASE(plain_threads_among_themselves),
      CASE(a_plain_thread_is_blocked_meanwhile),
      CASE(to_and_from_background_mode),
      CASE(each_value_arrives_once),
      CASE(each_value_arrives_once_with_threads),
      CASE(each_value_arrives_once_on_any_thread),
      CASE(closing_loses_nothing),
  };
  return RUN_CASES(argc, argv, cases);
}
