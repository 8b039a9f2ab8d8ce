/* libcsp, go_fiber and Coir itself in one program: goroutines, fibers of the other two and plain threads pass values to
 * each other through one channel, share a mutex and a wait group, and start each other; each of the three starts and
 * stops as it likes. */
#include "csp_surfaces.h"

#include "csp_process.h"

/* ---- The other two surfaces ------------------------------------------------------------------------------------ */

static void csp_begin(void) { csp_scheduler_init(0); }
static void csp_end(void) { csp_scheduler_stop(); }
static bool csp_send(void *channel, void *value) { return csp_gochan_send(channel, value); }

static bool csp_recv(void *channel, void **value) {
  bool ok;
  *value = csp_gochan_recv(channel, &ok);
  return ok;
}

static const struct surface csp_surface = {"libcsp", csp_begin, csp_end, go, csp_send, csp_recv, csp_yield};

/* Plain threads use libcsp's calls. */
static _Atomic(int) threads_left;

struct thread {
  void (*fn)(void *arg);
  void *arg;
};

static void *thread_main(void *p) {
  struct thread t = *(struct thread *)p;
  free(p);
  t.fn(t.arg);
  atomic_fetch_sub(&threads_left, 1);
  return NULL;
}

static void thread_begin(void) {}
static void thread_end(void) { WAIT_FOR(threads_left == 0); }

static void thread_start(void (*fn)(void *arg), void *arg) {
  struct thread *t = malloc(sizeof *t);
  pthread_t thread;
  CHECK(t != NULL);
  *t = (struct thread){fn, arg};
  atomic_fetch_add(&threads_left, 1);
  CHECK_EQ(pthread_create(&thread, NULL, thread_main, t), 0);
  CHECK_EQ(pthread_detach(thread), 0);
}

static const struct surface thread_surface = {"threads", thread_begin, thread_end, thread_start,
                                              csp_send,  csp_recv,     csp_yield};

static const struct surface *const surfaces[] = {&csp_surface, &gof_surface, &coir_surface, &thread_surface};
enum { SURFACES = sizeof surfaces / sizeof *surfaces };

static void begin_all(void) {
  for (int i = 0; i < SURFACES; i++) surfaces[i]->begin();
}

static void end_all(void) {
  for (int i = 0; i < SURFACES; i++) surfaces[i]->end();
}

/* ---- Values ---------------------------------------------------------------------------------------------------- */

/* One task: some of the values through one channel, in one direction. */
struct traffic {
  const struct surface *surface;
  void *channel;
  intptr_t from, to;
  _Atomic(int) *seen; /* by value; NULL: they come in order */
  csp_sync_waitgroup_t *wg;
};

static void sends_values(void *arg) {
  struct traffic *t = arg;
  for (intptr_t v = t->from; v < t->to; v++) {
    CHECK(t->surface->send(t->channel, number(v)));
    if (v % 97 == 0) t->surface->yield();
  }
  csp_sync_waitgroup_done(t->wg);
}

static void receives_values(void *arg) {
  struct traffic *t = arg;
  void *v = NULL;
  for (intptr_t want = t->from; t->surface->recv(t->channel, &v); want++) {
    if (t->seen) atomic_fetch_add(&t->seen[(intptr_t)v], 1);
    else CHECK_EQ((intptr_t)v, want);
    if ((intptr_t)v % 89 == 0) t->surface->yield();
    if (!t->seen && want == t->to - 1) break;
  }
  csp_sync_waitgroup_done(t->wg);
}

/* From each to each, there and back, in order. */
static void from_each_to_each(void) {
  int n = rounds(500);
  begin_all();
  for (int a = 0; a < SURFACES; a++)
    for (int b = 0; b < SURFACES; b++)
      for (size_t capacity = 0; capacity <= 8; capacity += 4) {
        csp_sync_waitgroup_t wg = {{0}};
        csp_gochan_t *ch = csp_gochan_new(capacity);
        struct traffic out = {surfaces[a], ch, 0, n, NULL, &wg}, in = {surfaces[b], ch, 0, n, NULL, &wg};
        csp_sync_waitgroup_add(&wg, 2);
        surfaces[a]->start(sends_values, &out);
        surfaces[b]->start(receives_values, &in);
        csp_sync_waitgroup_wait(&wg);
        csp_gochan_free(ch);
      }
  end_all();
}

/* All at once through one channel: each of 100 000 values is received once. */
static void nothing_is_lost_or_doubled(void) {
  enum { SENDERS = 3 * SURFACES };
  int each = rounds(100000) / SENDERS, n = each * SENDERS;
  csp_sync_waitgroup_t sending = {{0}}, receiving = {{0}};
  csp_gochan_t *ch = csp_gochan_new(5);
  _Atomic(int) *seen = calloc((size_t)n, sizeof *seen);
  struct traffic out[SENDERS], in[SENDERS];
  CHECK(seen != NULL);
  begin_all();
  csp_sync_waitgroup_add(&sending, SENDERS);
  csp_sync_waitgroup_add(&receiving, SENDERS);
  for (int i = 0; i < SENDERS; i++) {
    const struct surface *s = surfaces[i % SURFACES];
    in[i] = (struct traffic){.surface = s, .channel = ch, .seen = seen, .wg = &receiving};
    out[i] = (struct traffic){.surface = s, .channel = ch, .from = i * each, .to = (i + 1) * each, .wg = &sending};
    s->start(receives_values, &in[i]);
    s->start(sends_values, &out[i]);
  }
  csp_sync_waitgroup_wait(&sending);
  csp_gochan_close(ch);
  csp_sync_waitgroup_wait(&receiving);
  for (int i = 0; i < n; i++) CHECK_EQ(seen[i], 1);
  end_all();
  csp_gochan_free(ch);
  free((void *)seen);
}

/* Each sends and receives by turns, so that values go both ways through the channel. */
static void trades_values(void *arg) {
  struct traffic *t = arg;
  for (intptr_t i = t->from; i < t->to; i++) {
    void *v = NULL;
    CHECK(t->surface->send(t->channel, number(i)));
    CHECK(t->surface->recv(t->channel, &v));
    atomic_fetch_add(&t->seen[(intptr_t)v], 1);
  }
  csp_sync_waitgroup_done(t->wg);
}

static void both_ways_at_once(void) {
  enum { TRADERS = 2 * SURFACES };
  int each = rounds(16000) / TRADERS, n = each * TRADERS;
  csp_sync_waitgroup_t wg = {{0}};
  csp_gochan_t *ch = csp_gochan_new(TRADERS); /* room for what all have sent and not received */
  _Atomic(int) *seen = calloc((size_t)n, sizeof *seen);
  struct traffic traders[TRADERS];
  CHECK(seen != NULL);
  begin_all();
  csp_sync_waitgroup_add(&wg, TRADERS);
  for (int i = 0; i < TRADERS; i++) {
    const struct surface *s = surfaces[i % SURFACES];
    traders[i] = (struct traffic){s, ch, i * each, (i + 1) * each, seen, &wg};
    s->start(trades_values, &traders[i]);
  }
  csp_sync_waitgroup_wait(&wg);
  CHECK_EQ(csp_gochan_len(ch), 0);
  for (int i = 0; i < n; i++) CHECK_EQ(seen[i], 1);
  end_all();
  csp_gochan_free(ch);
  free((void *)seen);
}

/* ---- What they share ------------------------------------------------------------------------------------------- */

struct shared {
  csp_sync_mutex_t mutex;
  csp_sync_waitgroup_t all, turn;
  int64_t count; /* under the mutex */
  int rounds, inside;
};

static void counts_under_mutex(void *arg) {
  struct shared *s = arg;
  for (int i = 0; i < s->rounds; i++) {
    csp_sync_mutex_lock(&s->mutex);
    CHECK_EQ(s->inside++, 0);
    if (i % 16 == 0) csp_yield();
    if (i % 64 == 0) csp_hangup(10000);
    s->count++;
    s->inside--;
    csp_sync_mutex_unlock(&s->mutex);
  }
  csp_sync_waitgroup_done(&s->turn);
  csp_sync_waitgroup_wait(&s->turn); /* all wait for all */
  CHECK_EQ(s->count, 2 * SURFACES * s->rounds);
  csp_sync_waitgroup_done(&s->all);
}

static void a_mutex_and_a_wait_group(void) {
  struct shared s = {.rounds = rounds(640)};
  begin_all();
  csp_sync_waitgroup_add(&s.all, 2 * SURFACES);
  csp_sync_waitgroup_add(&s.turn, 2 * SURFACES);
  for (int i = 0; i < 2 * SURFACES; i++) surfaces[i % SURFACES]->start(counts_under_mutex, &s);
  csp_sync_waitgroup_wait(&s.all);
  CHECK_EQ(s.count, 2 * SURFACES * s.rounds);
  end_all();
}

/* libcsp's waits suspend whatever makes them: one thread is enough for a fiber that waits and the one it waits for. */
struct handover {
  csp_gochan_t *there, *back;
};

static void waits_first(void *arg) {
  struct handover *h = arg;
  csp_select_case_t cases[] = {{.ch = h->there, .op = CSP_RECV}, {.ch = NULL, .op = CSP_RECV}};
  CHECK_EQ(csp_select(cases, 2), 0);
  CHECK(csp_gochan_send(h->back, number(2)));
}

static void hands_over(void *arg) {
  struct handover *h = arg;
  csp_yield();
  csp_hangup((uint64_t)COIR_MS(1));
  CHECK(csp_gochan_send(h->there, number(1)));
}

static void waits_suspend_fibers_of_all(void) {
  set_workers(1);
  set_env("GOF_NWORKERS", "1");
  begin_all();
  for (int i = 0; i < SURFACES; i++) {
    struct handover h = {csp_gochan_new(0), csp_gochan_new(0)};
    for (int k = 0; k < 20; k++) {
      surfaces[i]->start(waits_first, &h);
      surfaces[i]->start(hands_over, &h);
      CHECK(csp_gochan_recv(h.back, NULL) == number(2));
    }
    surfaces[i]->end(); /* before they are freed: who hands over may still be in the call */
    surfaces[i]->begin();
    csp_gochan_free(h.there);
    csp_gochan_free(h.back);
  }
  end_all();
}

/* ---- Starting each other --------------------------------------------------------------------------------------- */

static _Atomic(int) started;

static void starts_others(void *arg) {
  intptr_t depth = (intptr_t)arg;
  atomic_fetch_add(&started, 1);
  if (depth > 0)
    for (int i = 0; i < SURFACES; i++) surfaces[i]->start(starts_others, number(depth - 1));
}

static void all_start_all(void) {
  begin_all();
  for (int i = 0; i < SURFACES; i++) surfaces[i]->start(starts_others, number(4));
  WAIT_FOR(started == 4 * (1 + 4 + 16 + 64 + 256));
  end_all();
  CHECK_EQ(runtime_num_goroutines(), 0);
}

/* Each counts its own alone. */
static void waits_for_gate(void *gate) { csp_gochan_recv(gate, NULL); }

static void only_goroutines_are_counted(void) {
  csp_gochan_t *gate = csp_gochan_new(0);
  begin_all();
  for (int i = 0; i < SURFACES; i++)
    for (int k = 0; k < 3; k++) surfaces[i]->start(waits_for_gate, gate);
  csp_hangup((uint64_t)COIR_MS(5));
  CHECK_EQ(runtime_num_goroutines(), 3);
  csp_gochan_close(gate);
  end_all();
  csp_gochan_free(gate);
}

/* ---- Starting and stopping ------------------------------------------------------------------------------------- */

static void adds_one(void *arg) {
  (void)arg;
  csp_yield();
  csp_hangup(1000);
  atomic_fetch_add(&started, 1);
}

static void run_some_on(const struct surface *s) {
  int before = atomic_load(&started);
  for (int i = 0; i < 10; i++) s->start(adds_one, NULL);
  WAIT_FOR(started == before + 10);
}

/* In each order, and those that are left go on. */
static void each_stops_alone(void) {
  static const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  int before = threads_now();
  for (size_t i = 0; i < 2 * sizeof orders / sizeof *orders; i++) {
    const int *stop = orders[i % 6], *begin = orders[i * 5 % 6];
    for (int k = 0; k < 3; k++) {
      surfaces[begin[k]]->begin();
      for (int l = 0; l <= k; l++) run_some_on(surfaces[begin[l]]);
    }
    for (int k = 0; k < 3; k++) {
      for (int l = k; l < 3; l++) run_some_on(surfaces[stop[l]]);
      int all = atomic_load(&started) + 10;
      for (int n = 0; n < 10; n++) surfaces[stop[k]]->start(adds_one, NULL);
      surfaces[stop[k]]->end();
      CHECK_EQ(started, all);
    }
  }
  WAIT_FOR(threads_now() <= before + 1); /* a thread that keeps time for all may stay */
}

/* One of another kind may stop the scheduler. */
static void stops_it(void *wg) {
  csp_scheduler_stop();
  csp_sync_waitgroup_done(wg);
}

static void others_stop_the_scheduler(void) {
  csp_sync_waitgroup_t wg = {{0}};
  begin_all();
  for (int i = 1; i < SURFACES; i++) {
    int before = atomic_load(&started);
    for (int k = 0; k < 10; k++) go(adds_one, NULL);
    csp_sync_waitgroup_add(&wg, 1);
    surfaces[i]->start(stops_it, &wg);
    csp_sync_waitgroup_wait(&wg);
    CHECK_EQ(started, before + 10);
  }
  end_all();
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(from_each_to_each),           CASE(nothing_is_lost_or_doubled),
      CASE(both_ways_at_once),           CASE(a_mutex_and_a_wait_group),
      CASE(waits_suspend_fibers_of_all), CASE(all_start_all),
      CASE(only_goroutines_are_counted), CASE(each_stops_alone),
      CASE(others_stop_the_scheduler),
  };
  return RUN_CASES(argc, argv, cases);
}
