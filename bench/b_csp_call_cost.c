/* csp_call_cost: what libcsp's channels and select cost compared with Coir's own, on the same runtime.
 *
 * A goroutine does both in turns, A B B A ...: pingpong: a pointer goes to another goroutine and comes back, over two
 * channels without a buffer; buffered: fill a channel with room for 128 and empty it again, so that nobody waits; try:
 * the same by calls that never wait; select: the same by selects of two arms, of which one is ready, and which are made
 * anew each time. Stealing is off, so other workers do not meddle.
 *
 * The median of (time of a turn of csp_ calls / time of a turn of coir_ calls). A few hundredths are noise, or the luck
 * of how the loops came to lie. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "chan.h"
#include "scheduler.h"

#define TURNS 100 /* of each kind; even */
#define ROUND_TRIPS 10000L
#define ROOM 128
#define FILLS 100

enum { PINGPONG, BUFFERED, TRY, SELECT, RATIOS };

/* Both libraries use the same ones. */
static csp_gochan_t *ping, *pong, *full, *idle;

static struct coir_chan *raw(csp_gochan_t *ch) { return (struct coir_chan *)ch; }

static void check(const char *call, bool is_good) {
  if (!is_good) bench_die("%s did not do what it must", call);
}

/* ---- Coir's turns ---------------------------------------------------------------------------------------------- */

static void coir_partner(void *arg) {
  void *v = arg;
  for (long i = ROUND_TRIPS; i > 0; i--) {
    bench_check("coir_chan_recv", coir_chan_recv(raw(ping), &v, COIR_NEVER));
    bench_check("coir_chan_send", coir_chan_send(raw(pong), &v, COIR_NEVER));
  }
}

static void coir_pingpong(void) {
  void *v = &v;
  check("csp_proc_create", csp_proc_create(0, coir_partner, NULL));
  for (long i = ROUND_TRIPS; i > 0; i--) {
    bench_check("coir_chan_send", coir_chan_send(raw(ping), &v, COIR_NEVER));
    bench_check("coir_chan_recv", coir_chan_recv(raw(pong), &v, COIR_NEVER));
  }
}

static void coir_fill(int64_t deadline) {
  void *v = NULL;
  for (int i = 0; i < ROOM; i++) bench_check("coir_chan_send", coir_chan_send(raw(full), &v, deadline));
  for (int i = 0; i < ROOM; i++) bench_check("coir_chan_recv", coir_chan_recv(raw(full), &v, deadline));
}

static void coir_buffered(void) {
  for (int i = 0; i < FILLS; i++) coir_fill(COIR_NEVER);
}

static void coir_try(void) {
  for (int i = 0; i < FILLS; i++) coir_fill(0);
}

static void coir_selects(void) {
  void *v = NULL;
  for (int i = 0; i < FILLS * ROOM * 2; i++) {
    bool sends = i / ROOM % 2 == 0;
    struct coir_arm first = sends ? coir_arm_send(raw(full), &v) : coir_arm_recv(raw(full), &v);
    struct coir_arm arms[2] = {first, coir_arm_recv(raw(idle), &v)};
    check("coir_select", coir_select(arms, 2, COIR_NEVER) == 0);
  }
}

/* ---- libcsp's: the same ---------------------------------------------------------------------------------------- */

static void csp_partner(void *arg) {
  (void)arg;
  for (long i = ROUND_TRIPS; i > 0; i--) {
    bool ok;
    void *v = csp_gochan_recv(ping, &ok);
    check("csp_gochan_recv", ok);
    check("csp_gochan_send", csp_gochan_send(pong, v));
  }
}

static void csp_pingpong(void) {
  void *v = &v;
  check("csp_proc_create", csp_proc_create(0, csp_partner, NULL));
  for (long i = ROUND_TRIPS; i > 0; i--) {
    bool ok;
    check("csp_gochan_send", csp_gochan_send(ping, v));
    v = csp_gochan_recv(pong, &ok);
    check("csp_gochan_recv", ok);
  }
}

static void csp_buffered(void) {
  for (int fill = 0; fill < FILLS; fill++) {
    void *v = NULL;
    for (int i = 0; i < ROOM; i++) check("csp_gochan_send", csp_gochan_send(full, v));
    for (int i = 0; i < ROOM; i++) {
      bool ok;
      v = csp_gochan_recv(full, &ok);
      check("csp_gochan_recv", ok);
    }
  }
}

static void csp_try(void) {
  for (int fill = 0; fill < FILLS; fill++) {
    void *v = NULL;
    for (int i = 0; i < ROOM; i++) check("csp_gochan_try_send", csp_gochan_try_send(full, v));
    for (int i = 0; i < ROOM; i++) check("csp_gochan_try_recv", csp_gochan_try_recv(full, &v, NULL));
  }
}

static void csp_selects(void) {
  void *v = NULL;
  for (int i = 0; i < FILLS * ROOM * 2; i++) {
    bool sends = i / ROOM % 2 == 0;
    csp_select_case_t cases[2] = {{.ch = full, .op = sends ? CSP_SEND : CSP_RECV, .val = sends ? (void **)v : &v},
                                  {.ch = idle, .op = CSP_RECV, .val = &v}};
    check("csp_select", csp_select(cases, 2) == 0);
  }
}

/* ---- Both ------------------------------------------------------------------------------------------------------ */

static void (*const turns[RATIOS][2])(void) = {
    [PINGPONG] = {coir_pingpong, csp_pingpong},
    [BUFFERED] = {coir_buffered, csp_buffered},
    [TRY] = {coir_try, csp_try},
    [SELECT] = {coir_selects, csp_selects},
};

/* A run: what to measure, and who waits for it. */
struct task {
  double *values;
  long turns;
  struct coir_event is_done;
};

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double time_of(void (*turn)(void)) {
  int64_t start_ns = coir_now();
  turn();
  return (double)(coir_now() - start_ns);
}

static void measure(void *arg) {
  struct task *task = arg;
  double ratios[TURNS];
  for (int r = 0; r < RATIOS; r++) {
    for (int t = 0; t < task->turns; t++) {
      int first = t % 2;
      double ns[2];
      ns[first] = time_of(turns[r][first]);
      ns[!first] = time_of(turns[r][!first]);
      ratios[t] = ns[1] / ns[0];
    }
    qsort(ratios, task->turns, sizeof ratios[0], compare);
    task->values[r] = ratios[task->turns / 2];
  }
  coir_event_set(&task->is_done);
}

/* Starts libcsp's runtime, the first time. */
static void start(const struct bench *b) {
  char workers[16];
  if (ping) return;
  snprintf(workers, sizeof workers, "%d", b->workers);
  setenv("COIR_WORKERS", workers, 1);
  setenv("COIR_STEAL", "0", 1);
  ping = csp_gochan_new(0);
  pong = csp_gochan_new(0);
  full = csp_gochan_new(ROOM);
  idle = csp_gochan_new(0);
  check("csp_gochan_new", ping && pong && full && idle);
}

static void run(const struct bench *b, double *values) {
  struct task task = {.values = values, .turns = bench_count(b, TURNS)};
  start(b);
  check("csp_proc_create", csp_proc_create(3, measure, &task));
  bench_check("coir_event_wait", coir_event_wait(&task.is_done, COIR_NEVER));
}

int main(int argc, char **argv) {
  struct bench b = {.question = "csp_call_cost",
                    .metrics = {{"pingpong", "x", "lower"},
                                {"buffered", "x", "lower"},
                                {"try", "x", "lower"},
                                {"select", "x", "lower"}},
                    .run = run};
  return bench_main(argc, argv, &b);
}
