/* gof_call_cost: what go_fiber's calls (libgo/fiber.h) cost more than Coir's own, on the same runtime.
 *
 * A fiber of go_fiber's runtime, which runs in the background, does both in turns, A B B A ...: yield: two fibers yield
 * to each other; send, recv: fill a channel with room for 128 and empty it again, so that neither waits; spawn: start
 * 256 fibers, and let them run to their end. Stealing is off, so other workers do not meddle.
 *
 * Per operation: the median of (time of a turn of gof_ calls - time of a turn of coir_ calls) / calls of a turn. Below
 * zero is noise, or the luck of how the loops came to lie. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "libgo/fiber.h"
#include "libgo/fiber_chan.h"

#define TURNS 100 /* of each kind; even */
#define YIELDS_PER_TURN 20000L
#define ROOM 128
#define FILLS_PER_TURN 100
#define SPAWNS_PER_TURN 256

enum { YIELD, SEND, RECV, SPAWN, COSTS };

/* What one turn took: ns per call. */
struct turn {
  double ns[COSTS];
};

static gof_chan_t *gof_chan;
static struct coir_chan *coir_chan;
static long ran; /* fibers that have ended; all of them are on one worker */

/* ---- Coir's turn ----------------------------------------------------------------------------------------------- */

static int coir_partner(void *arg) {
  (void)arg;
  for (long i = YIELDS_PER_TURN; i > 0; i--) coir_yield();
  return 0;
}

static int coir_nothing(void *arg) {
  (void)arg;
  ran++;
  return 0;
}

static void coir_turn(struct turn *turn) {
  int64_t start_ns = coir_now(), filled_ns, send_ns = 0, recv_ns = 0;
  bench_check("coir_spawn", coir_spawn(coir_partner, NULL, NULL, NULL));
  for (long i = YIELDS_PER_TURN; i > 0; i--) coir_yield();
  turn->ns[YIELD] = (double)(coir_now() - start_ns) / (2 * YIELDS_PER_TURN);
  coir_yield(); /* the partner ends */

  for (int fill = 0; fill < FILLS_PER_TURN; fill++) {
    void *value = NULL;
    start_ns = coir_now();
    for (int i = 0; i < ROOM; i++) bench_check("coir_chan_send", coir_chan_send(coir_chan, &value, COIR_NEVER));
    filled_ns = coir_now();
    for (int i = 0; i < ROOM; i++) bench_check("coir_chan_recv", coir_chan_recv(coir_chan, &value, COIR_NEVER));
    send_ns += filled_ns - start_ns;
    recv_ns += coir_now() - filled_ns;
  }
  turn->ns[SEND] = (double)send_ns / (FILLS_PER_TURN * ROOM);
  turn->ns[RECV] = (double)recv_ns / (FILLS_PER_TURN * ROOM);

  start_ns = coir_now();
  for (int i = 0; i < SPAWNS_PER_TURN; i++) bench_check("coir_spawn", coir_spawn(coir_nothing, NULL, NULL, NULL));
  coir_yield();
  turn->ns[SPAWN] = (double)(coir_now() - start_ns) / SPAWNS_PER_TURN;
}

/* ---- go_fiber's: the same -------------------------------------------------------------------------------------- */

static void gof_partner(void *arg) {
  (void)arg;
  for (long i = YIELDS_PER_TURN; i > 0; i--) gof_yield();
}

static void gof_nothing(void *arg) {
  (void)arg;
  ran++;
}

static void gof_check(const char *call, bool is_good) {
  if (!is_good) bench_die("%s: %s", call, strerror(errno));
}

static void gof_turn(struct turn *turn) {
  int64_t start_ns = coir_now(), filled_ns, send_ns = 0, recv_ns = 0;
  gof_check("gof_spawn", gof_spawn(gof_partner, NULL, 0));
  for (long i = YIELDS_PER_TURN; i > 0; i--) gof_yield();
  turn->ns[YIELD] = (double)(coir_now() - start_ns) / (2 * YIELDS_PER_TURN);
  gof_yield();

  for (int fill = 0; fill < FILLS_PER_TURN; fill++) {
    void *value = NULL;
    start_ns = coir_now();
    for (int i = 0; i < ROOM; i++) gof_check("gof_chan_send", gof_chan_send(gof_chan, value) == 0);
    filled_ns = coir_now();
    for (int i = 0; i < ROOM; i++) gof_check("gof_chan_recv", gof_chan_recv(gof_chan, &value) == 0);
    send_ns += filled_ns - start_ns;
    recv_ns += coir_now() - filled_ns;
  }
  turn->ns[SEND] = (double)send_ns / (FILLS_PER_TURN * ROOM);
  turn->ns[RECV] = (double)recv_ns / (FILLS_PER_TURN * ROOM);

  start_ns = coir_now();
  for (int i = 0; i < SPAWNS_PER_TURN; i++) gof_check("gof_spawn", gof_spawn(gof_nothing, NULL, 0));
  gof_yield();
  turn->ns[SPAWN] = (double)(coir_now() - start_ns) / SPAWNS_PER_TURN;
}

/* ---- Both ------------------------------------------------------------------------------------------------------ */

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

static void measure(void *arg) {
  struct task *task = arg;
  double more[COSTS][TURNS];
  ran = 0;
  for (int t = 0; t < task->turns; t++) {
    struct turn own, theirs;
    if (t % 2) gof_turn(&theirs);
    coir_turn(&own);
    if (t % 2 == 0) gof_turn(&theirs);
    for (int c = 0; c < COSTS; c++) more[c][t] = theirs.ns[c] - own.ns[c];
  }
  bench_equal("fibers that ran", ran, 2 * SPAWNS_PER_TURN * task->turns);
  for (int c = 0; c < COSTS; c++) {
    qsort(more[c], task->turns, sizeof more[c][0], compare);
    task->values[c] = more[c][task->turns / 2];
  }
  coir_event_set(&task->is_done);
}

/* Starts go_fiber's runtime, the first time. */
static void start(const struct bench *b) {
  char workers[16];
  if (gof_chan) return;
  snprintf(workers, sizeof workers, "%d", b->workers);
  setenv("GOF_NWORKERS", workers, 1);
  setenv("GOF_WORKSTEAL", "0", 1);
  gof_check("gof_start_background", gof_start_background(0) == 0);
  gof_chan = gof_chan_make(ROOM);
  coir_chan = coir_chan_create(sizeof(void *), ROOM);
  gof_check("gof_chan_make, coir_chan_create", gof_chan && coir_chan);
}

static void run(const struct bench *b, double *values) {
  struct task task = {.values = values, .turns = bench_count(b, TURNS)};
  start(b);
  gof_check("gof_spawn", gof_spawn(measure, &task, 0));
  bench_check("coir_event_wait", coir_event_wait(&task.is_done, COIR_NEVER));
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "gof_call_cost",
      .metrics = {{"yield", "ns", "lower"}, {"send", "ns", "lower"}, {"recv", "ns", "lower"}, {"spawn", "ns", "lower"}},
      .run = run};
  return bench_main(argc, argv, &b);
}
