/* Histories of channels, with buffers and without, are linearizable: sends, receives, selects over two channels,
 * deadlines, cancellation and closing, by fibers of all workers.
 *
 * usage: linear_chan [rounds] [seed] */
#include "history.h"

enum { SEND, RECV, CLOSE, LENGTH, IS_CLOSED };
enum { CHANS = 2, CLIENTS = 7, CALLS = 14, BUFFER = 3 };

static const int64_t capacities[][CHANS] = {{0, 0}, {1, 1}, {BUFFER, BUFFER}, {0, 2}};

/* Which channel a call was about is in its number. */
#define ON(what, chan) ((what)*CHANS + (chan))

struct state {
  int64_t capacity, is_closed, count;
  int64_t values[BUFFER]; /* the oldest first */
  int64_t offered;        /* without a buffer: was sent, and has to be received at the same moment */
};

static bool step_send(struct state *s, const struct linear_op *op) {
  if (op->result == -EPIPE) return s->is_closed;
  if (op->result == -ETIMEDOUT) return !s->is_closed && s->count == s->capacity;
  if (op->result != 0 || s->is_closed) return false;
  if (s->capacity == 0) {
    s->offered = op->arg;
    return true;
  }
  if (s->count == s->capacity) return false;
  s->values[s->count++] = op->arg;
  return true;
}

static bool step_recv(struct state *s, const struct linear_op *op) {
  if (op->result == -EPIPE) return s->is_closed && s->count == 0;
  if (op->result == -ETIMEDOUT) return !s->is_closed && s->count == 0;
  if (s->count == 0 || op->result != s->values[0]) return false;
  memmove(s->values, s->values + 1, (size_t)--s->count * sizeof *s->values);
  s->values[s->count] = 0;
  return true;
}

static bool step(void *state, const struct linear_op *op) {
  struct state *s = state;
  if (s->offered) { /* nothing comes between */
    bool is_taken = op->what / CHANS == RECV && op->result == s->offered;
    s->offered = 0;
    return is_taken;
  }
  if (op->result == -ECANCELED) return true;
  switch (op->what / CHANS) {
  case SEND: return step_send(s, op);
  case RECV: return step_recv(s, op);
  case CLOSE: s->is_closed = 1; return true;
  case LENGTH: return op->result == s->count;
  default: return op->result == s->is_closed;
  }
}

static const char *name(int what) {
  static const char *const names[] = {"send", "receive", "close", "length", "is closed"};
  return names[what / CHANS];
}

static bool is_on(const struct linear_op *op, int chan) { return op->what % CHANS == chan; }

/* ---- The clients ----------------------------------------------------------------------------------------------- */

struct round {
  struct coir_chan *chans[CHANS];
  struct client clients[CLIENTS];
  bool cancels;
  _Atomic(int) calls;
  struct gate gate;
};

static int64_t value_of(const struct client *c, int i) { return (c->number + 1) * 1000 + i + 1; }

static void send(struct client *c, int i, int chan, int64_t deadline) {
  struct round *r = c->arg;
  int64_t value = value_of(c, i), began = history_tick();
  note(c, began, ON(SEND, chan), value, coir_chan_send(r->chans[chan], &value, deadline));
}

static void receive(struct client *c, int chan, int64_t deadline) {
  struct round *r = c->arg;
  int64_t value = 0, began = history_tick();
  int rc = coir_chan_recv(r->chans[chan], &value, deadline);
  note(c, began, ON(RECV, chan), 0, rc ? rc : value);
}

/* To receive from either, or to send to one and receive from the other. One that comes to nothing has found neither
 * ready. */
static void choose(struct client *c, int i, int64_t deadline) {
  struct round *r = c->arg;
  int64_t sent = value_of(c, i), got[CHANS] = {0};
  bool sends = draw(c, 2);
  struct coir_arm arms[CHANS] = {sends ? coir_arm_send(r->chans[0], &sent) : coir_arm_recv(r->chans[0], &got[0]),
                                 coir_arm_recv(r->chans[1], &got[1])};
  int64_t began = history_tick();
  int rc = coir_select(arms, CHANS, deadline);
  for (int k = 0; k < CHANS; k++) {
    if (rc >= 0 && rc != k) continue;
    int64_t result = rc < 0 ? rc : arms[k].result ? arms[k].result : got[k];
    note(c, began, ON(sends && k == 0 ? SEND : RECV, k), sends && k == 0 ? sent : 0, result);
  }
}

static void look(struct client *c, int chan) {
  struct round *r = c->arg;
  int64_t began = history_tick();
  if (draw(c, 2)) note(c, began, ON(LENGTH, chan), 0, (int64_t)coir_chan_length(r->chans[chan]));
  else note(c, began, ON(IS_CLOSED, chan), 0, coir_chan_is_closed(r->chans[chan]));
}

static void call(struct client *c, int i) {
  int chan = (int)draw(c, CHANS);
  int64_t deadline = draw_deadline(c);
  uint64_t how = draw(c, 8);
  if (how == 0) look(c, chan);
  else if (how < 3) choose(c, i, deadline);
  else if (c->number % 2) send(c, i, chan, deadline);
  else receive(c, chan, deadline);
}

static int run_client(void *arg) {
  struct client *c = arg;
  struct round *r = c->arg;
  meet(&r->gate);
  for (int i = 0; i < CALLS && c->count + CHANS <= OPS_MAX; i++) {
    call(c, i);
    atomic_fetch_add(&r->calls, 1);
    dawdle(c);
  }
  return 0;
}

static void close_one(struct client *c, int chan) {
  struct round *r = c->arg;
  int64_t began = history_tick();
  coir_chan_close(r->chans[chan]);
  note(c, began, ON(CLOSE, chan), 0, 0);
}

/* Closes, sooner or later, so that everybody comes to an end; before that it may cancel others. */
static int run_closer(void *arg) {
  struct client *c = arg;
  struct round *r = c->arg;
  meet(&r->gate);
  int enough = (int)draw(c, (CLIENTS - 1) * CALLS);
  for (int left = 100; left > 0 && atomic_load(&r->calls) < enough; left--) {
    struct client *other = &r->clients[1 + draw(c, CLIENTS - 1)];
    if (r->cancels && draw(c, 8) == 0) (void)coir_cancel(other->fiber);
    dawdle(c);
  }
  for (int i = 0; i < CHANS; i++) {
    close_one(c, i);
    dawdle(c);
  }
  return 0;
}

static uint64_t rounds_wanted, seed, done, ended_by[4];

/* What the calls came to: a run in which nothing happens checks nothing. */
static void tally(const struct client *c) {
  for (size_t i = 0; i < c->count; i++, done++) {
    int64_t result = c->ops[i].result;
    ended_by[result == -EPIPE ? 1 : result == -ETIMEDOUT ? 2 : result == -ECANCELED ? 3 : 0]++;
  }
}

static void run_round(uint64_t number, size_t which) {
  static struct round r;
  clients_init(r.clients, CLIENTS, number, &r);
  r.cancels = number / 4 % 2;
  for (int i = 0; i < CHANS; i++) r.chans[i] = coir_chan_create(sizeof(int64_t), (size_t)capacities[which][i]);
  atomic_store(&r.calls, 0);
  gate_init(&r.gate, CLIENTS);
  for (int i = CLIENTS - 1; i >= 0; i--) start(&r.clients[i], i ? run_client : run_closer);
  finish(r.clients, CLIENTS);
  for (int i = 0; i < CHANS; i++) {
    struct state initial = {.capacity = capacities[which][i]};
    struct linear_object object = {sizeof initial, &initial, step, name};
    CHECK_EQ(history_check(&object, r.clients, CLIENTS, is_on, i, stderr), LINEAR_YES);
    coir_chan_unref(r.chans[i]);
  }
  for (int i = 0; i < CLIENTS; i++) tally(&r.clients[i]);
}

static int run_rounds(void *arg) {
  (void)arg;
  for (uint64_t i = 0; i < rounds_wanted; i++) run_round(seed + i, i % (sizeof capacities / sizeof *capacities));
  return 0;
}

int main(int argc, char **argv) {
  rounds_wanted = (uint64_t)rounds(1600);
  read_arguments(argc, argv, &rounds_wanted, &seed);
  int rc = run(run_rounds, NULL);
  printf("%llu calls; closed %llu, timed out %llu, cancelled %llu\n", (unsigned long long)done,
         (unsigned long long)ended_by[1], (unsigned long long)ended_by[2], (unsigned long long)ended_by[3]);
  return rc;
}
