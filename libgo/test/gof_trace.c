/* The trace hooks of go_fiber, in a build with GOF_ENABLE_TRACING: this program's own are called in place of the weak
 * ones. */
#include "harness.h"

#include <sys/socket.h>

#include "libgo/fiber.h"
#include "libgo/fiber_chan.h"

#define EVENTS_MAX 4096

enum kind { SWITCH, BLOCK, UNBLOCK };

static struct event {
  enum kind kind;
  int64_t a, b; /* the ids, or descriptor and events */
  pthread_t thread;
  void *stack; /* where the hook ran */
} events[EVENTS_MAX];
static _Atomic(int) event_count;

static void __attribute__((noinline)) note(enum kind kind, int64_t a, int64_t b) {
  int i = atomic_fetch_add(&event_count, 1);
  CHECK(i < EVENTS_MAX);
  events[i] = (struct event){kind, a, b, pthread_self(), __builtin_frame_address(0)};
}

void gof_trace_on_switch(uint64_t old_id, uint64_t new_id) { note(SWITCH, (int64_t)old_id, (int64_t)new_id); }
void gof_trace_on_block(int fd, int ev) { note(BLOCK, fd, ev); }
void gof_trace_on_unblock(int fd, int ev) { note(UNBLOCK, fd, ev); }

static int setup(void **state) {
  (void)state;
  atomic_store(&event_count, 0);
  return 0;
}

static int count(enum kind kind, int64_t a, int64_t b) {
  int n = 0;
  for (int i = 0; i < atomic_load(&event_count); i++)
    n += events[i].kind == kind && events[i].a == a && events[i].b == b;
  return n;
}

static void yield_twice(void *arg) {
  (void)arg;
  gof_yield();
  gof_yield();
}

/* On each thread the scheduler and a fiber take turns: each fiber that is entered is left there, by the next switch. */
static void switches_alternate(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) CHECK(gof_spawn(yield_twice, NULL, 0) != NULL);
  gof_run();
  int n = atomic_load(&event_count), to = 0;
  for (int i = 0; i < n; i++) {
    CHECK_EQ(events[i].kind, SWITCH);
    CHECK((events[i].a == 0) != (events[i].b == 0));
    if (events[i].b == 0) continue;
    CHECK(i + 1 < n);
    int j = i + 1;
    while (j < n && !pthread_equal(events[j].thread, events[i].thread)) j++;
    CHECK(j < n);
    CHECK_EQ(events[j].a, events[i].b);
    to++;
  }
  CHECK_EQ(to, 9);
}

static int pair[2];
static gof_chan_t *chan;

static void reader(void *arg) {
  char c;
  (void)arg;
  CHECK_EQ(gof_read(pair[0], &c, 1), 1);
  CHECK_EQ(gof_chan_send(chan, NULL), 0);
}

static void writer(void *arg) {
  (void)arg;
  gof_sleep_ms(5);
  CHECK_EQ(gof_write(pair[1], "x", 1), 1);
  CHECK_EQ(gof_chan_recv(chan, NULL), 0);
}

static void blocks_are_told(void **state) {
  (void)state;
  chan = gof_chan_make(0);
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  CHECK(gof_spawn(reader, NULL, 0) != NULL);
  CHECK(gof_spawn(writer, NULL, 0) != NULL);
  gof_run();
  CHECK_EQ(count(BLOCK, pair[0], 1), 1);
  CHECK_EQ(count(UNBLOCK, pair[0], 1), 1);
  CHECK_EQ(count(BLOCK, -1, 0), 2); /* the sleep, and one of the two at the channel */
  CHECK_EQ(count(UNBLOCK, -1, 0), 2);
  for (int i = 0; i < atomic_load(&event_count); i++)
    for (int j = i; events[i].kind == UNBLOCK && events[i].a == pair[0] && j < atomic_load(&event_count); j++)
      CHECK(events[j].kind != BLOCK || events[j].a != pair[0]);
  gof_chan_free(chan);
  close(pair[0]);
  close(pair[1]);
}

static char *low, *high;

static void show_stack(void *arg) {
  (void)arg;
  char *here = __builtin_frame_address(0);
  low = here - (60 << 10);
  high = here + 4096;
  gof_sleep_ms(1);
}

static void hooks_run_on_the_stack_of_the_thread(void **state) {
  (void)state;
  CHECK(gof_spawn(show_stack, NULL, 64 << 10) != NULL);
  gof_run();
  CHECK(atomic_load(&event_count) >= 4);
  for (int i = 0; i < atomic_load(&event_count); i++)
    CHECK((const char *)events[i].stack < low || (const char *)events[i].stack > high);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(switches_alternate, setup),
      cmocka_unit_test_setup(blocks_are_told, setup),
      cmocka_unit_test_setup(hooks_run_on_the_stack_of_the_thread, setup),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
