/* context.h: trees of contexts, cancelling, deadlines. */
#include "lib_test.h"

#include <poll.h>

static void cancel(CancelContextResult r) { r.cancel(r.context); }

static CancelContextResult below(GoContext *parent) {
  CancelContextResult r = go_context_with_cancel(parent);
  CHECK(r.context && r.context->done && r.cancel);
  return r;
}

/* As it is from now on: cancelled, for this reason. */
static void is_over(GoContext *c, int code, const char *message) {
  void *v = number(1);
  CHECK(go_context_is_canceled(c));
  CHECK(go_channel_is_closed(c->done));
  CHECK(go_context_done(c) == c->done);
  FAILS(go_channel_receive(c->done, &v), EPIPE);
  CHECK_EQ(go_context_wait(c), 0);
  Error *e = go_context_err(c), *again = go_context_err(c);
  CHECK(e && again && e != again);
  CHECK_EQ(e->code, code);
  CHECK(!strcmp(e->message, message));
  free_error(e);
  free_error(again);
}

static void is_canceled(GoContext *c) { is_over(c, ECANCELED, "context canceled"); }
static void is_late(GoContext *c) { is_over(c, ETIMEDOUT, "context deadline exceeded"); }

static void is_active(GoContext *c) {
  CHECK(!go_context_is_canceled(c));
  CHECK(!go_channel_is_closed(c->done));
  CHECK(go_context_err(c) == NULL);
  FAILS(go_channel_try_receive(c->done, NULL), EAGAIN);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------------ */

ON_BOTH(the_background) {
  GoContext *b = go_context_background();
  CHECK(b && b == go_context_background());
  is_active(b);
  CHECK(go_context_ref(b) == b);
  for (int i = 0; i < 3; i++) go_context_free(b);
  go_context_unref(b);
  CancelContextResult r = below(b);
  r.cancel(b);
  r.cancel(NULL);
  is_active(b);
  is_active(r.context);
  go_context_free(r.context);
}

static void no_context(void **state) {
  (void)state;
  CHECK_EQ(go_context_is_canceled(NULL), 1);
  CHECK_EQ(go_context_wait(NULL), 0);
  CHECK(go_context_done(NULL) == NULL && go_context_err(NULL) == NULL && go_context_ref(NULL) == NULL);
  go_context_free(NULL);
  go_context_unref(NULL);
}

ON_BOTH(cancelling) {
  CancelContextResult r = below(NULL);
  is_active(r.context);
  cancel(r);
  is_canceled(r.context);
  cancel(r);
  is_canceled(r.context);
  CancelContextResult child = below(r.context);
  is_canceled(child.context);
  cancel(child);
  GoContext *timed = go_with_deadline(r.context, real_time_after(COIR_SEC(60)));
  is_canceled(timed);
  go_context_free(timed);
  go_context_free(child.context);
  go_context_free(r.context);
}

static void waits(void *context) {
  CHECK_EQ(go_context_wait(context), 0);
  is_canceled(context);
  go_context_free(context);
}

static void receives_done(void *context) {
  FAILS(go_channel_receive(((GoContext *)context)->done, NULL), EPIPE);
  is_canceled(context);
  go_context_free(context);
}

static void selects_done(void *context) {
  GoSelectCase done = {GO_SELECT_RECEIVE, go_context_done(context), NULL, NULL};
  CHECK_EQ(go_select(&done, 1), 0);
  is_canceled(context);
  go_context_free(context);
}

ON_BOTH(all_who_wait_go_on) {
  static void (*const ways[])(void *) = {waits, receives_done, selects_done};
  CancelContextResult r = below(NULL), child = below(r.context);
  for (int i = 0; i < 12; i++) start(i % 2, ways[i % 3], go_context_ref(i < 6 ? r.context : child.context));
  pause_ms(5);
  CHECK_EQ(go_get_active_count(), 12);
  cancel(r);
  until_idle();
  go_context_free(child.context);
  go_context_free(r.context);
}

static int waits_to_be_canceled(void *context) {
  FAILS(go_context_wait(context), ECANCELED);
  is_active(context);
  return 0;
}

ON_BOTH(coir_cancel_ends_a_wait) {
  CancelContextResult r = below(NULL);
  struct coir_fiber *f;
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), waits_to_be_canceled, r.context, NULL, &f), 0);
  pause_ms(5);
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), 0);
  go_context_free(r.context);
}

/* ---- Trees ----------------------------------------------------------------------------------------------------- */

enum { TREE = 3 * 3 * 3 };

/* The parent of i is i / 3, and 1 is the root. */
static void make_tree(CancelContextResult *tree) {
  for (int i = 1; i < TREE; i++) tree[i] = below(i == 1 ? NULL : tree[i / 3 ? i / 3 : 1].context);
}

static bool is_below(int i, int top) {
  while (i > top && i > 1) i = i / 3 ? i / 3 : 1;
  return i == top;
}

ON_BOTH(a_cancelled_context_takes_those_below_and_no_others) {
  for (int top = 1; top < TREE; top++) {
    CancelContextResult tree[TREE];
    make_tree(tree);
    cancel(tree[top]);
    for (int i = 1; i < TREE; i++) (is_below(i, top) ? is_canceled : is_active)(tree[i].context);
    cancel(tree[1]);
    for (int i = 1; i < TREE; i++) is_canceled(tree[i].context);
    for (int i = 1; i < TREE; i++) go_context_free(tree[top % 2 ? i : TREE - i].context);
  }
}

ON_BOTH(children_outlive_the_handles_above) {
  CancelContextResult top = below(NULL), middle = below(top.context), low = below(middle.context);
  go_context_free(middle.context);
  is_active(low.context);
  cancel(top);
  go_context_free(top.context);
  is_canceled(low.context);
  go_context_free(low.context);

  top = below(NULL), middle = below(top.context), low = below(middle.context);
  go_context_free(top.context);
  cancel(middle);
  is_canceled(low.context);
  go_context_free(middle.context);
  CancelContextResult more = below(low.context);
  go_context_free(low.context);
  is_canceled(more.context);
  go_context_free(more.context);
}

ON_BOTH(freeing_cancels_nothing) {
  CancelContextResult top = below(NULL), low = below(top.context);
  go_context_free(top.context);
  is_active(low.context);
  cancel(low);
  go_context_free(low.context);
}

ON_BOTH(deep_trees) {
  int depth = rounds(100000);
  CancelContextResult top = below(NULL), at = top;
  for (int i = 0; i < depth; i++) {
    CancelContextResult next = below(at.context);
    if (i) go_context_free(at.context);
    at = next;
  }
  is_active(at.context);
  cancel(top);
  is_canceled(at.context);
  go_context_free(top.context);
  go_context_free(at.context); /* frees all of them */
}

/* ---- Deadlines ------------------------------------------------------------------------------------------------- */

ON_BOTH(deadlines_are_kept) {
  for (int ms = 1; ms < 60; ms += 19) {
    int64_t begin = coir_now();
    GoContext *c = go_with_deadline(go_context_background(), real_time_after(COIR_MS(ms)));
    CHECK(c);
    CHECK_EQ(go_context_wait(c), 0);
    int64_t took = coir_now() - begin;
    CHECK(took >= COIR_MS(ms) - COIR_MS(1) && took < LATE); /* the two clocks are not read at once */
    is_late(c);
    go_context_free(c);
  }
}

ON_BOTH(deadlines_that_have_passed) {
  static const int64_t ago[] = {0, 1, COIR_MS(1), COIR_SEC(1), COIR_SEC(1000000000)};
  CancelContextResult parent = below(NULL);
  for (size_t i = 0; i < sizeof ago / sizeof *ago; i++) {
    GoContext *c = go_with_deadline(parent.context, real_time_after(-ago[i]));
    is_late(c);
    CancelContextResult child = below(c);
    is_late(child.context);
    go_context_free(c);
    go_context_free(child.context);
  }
  is_active(parent.context);
  go_context_free(parent.context);
}

static void odd_deadlines(void **state) {
  (void)state;
  GoContext *c = go_with_deadline(NULL, (struct timespec){.tv_sec = INT64_MAX});
  is_active(c);
  go_context_free(c);
  c = go_with_deadline(NULL, (struct timespec){.tv_sec = INT64_MAX / COIR_SEC(1)});
  is_active(c);
  go_context_free(c);
  c = go_with_deadline(NULL, (struct timespec){.tv_sec = INT64_MIN});
  is_late(c);
  go_context_free(c);
  errno = 0;
  CHECK(go_with_deadline(NULL, (struct timespec){.tv_nsec = -1}) == NULL);
  CHECK_EQ(errno, EINVAL);
  CHECK(go_with_deadline(NULL, (struct timespec){.tv_nsec = 1000000000}) == NULL);
}

ON_BOTH(the_soonest_deadline_counts) {
  GoContext *soon = go_with_deadline(NULL, real_time_after(COIR_MS(20)));
  GoContext *far = go_with_deadline(soon, real_time_after(COIR_SEC(100)));
  GoContext *between = go_with_deadline(far, real_time_after(COIR_SEC(50)));
  CancelContextResult low = below(between);
  go_context_free(soon);
  go_context_free(far);
  CHECK_EQ(go_context_wait(low.context), 0);
  is_late(low.context);
  is_late(between);
  go_context_free(between);
  go_context_free(low.context);

  far = go_with_deadline(NULL, real_time_after(COIR_SEC(100)));
  soon = go_with_deadline(far, real_time_after(COIR_MS(20)));
  low = below(soon);
  CHECK_EQ(go_context_wait(low.context), 0);
  is_late(low.context);
  is_late(soon);
  is_active(far);
  go_context_free(far);
  go_context_free(soon);
  go_context_free(low.context);
}

ON_BOTH(what_comes_first_is_the_reason) {
  bool was_first = false;
  while (!was_first) {
    CancelContextResult top = below(NULL);
    int64_t due = coir_now() + COIR_MS(20);
    GoContext *c = go_with_deadline(top.context, real_time_after(COIR_MS(20)));
    cancel(top);
    was_first = coir_now() < due; /* else this thread was held up for too long */
    if (was_first) is_canceled(c);
    CHECK_EQ(coir_sleep_until(due + COIR_MS(10)), 0);
    if (was_first) is_canceled(c);
    go_context_free(c);
    go_context_free(top.context);
  }
}

/* Many deadlines at once, in no order, half of them given up before. */
ON_BOTH(many_deadlines) {
  enum { N = 400 };
  GoContext *contexts[N];
  int64_t due[N];
  uint64_t rng = rng_seed(7);
  for (int i = 0; i < N; i++) {
    int64_t in = COIR_US(1000 + (int64_t)(rng_next(&rng) % 60000));
    due[i] = coir_now() + in;
    contexts[i] = go_with_deadline(i % 5 || !i ? NULL : contexts[i / 2], real_time_after(in));
    CHECK(contexts[i]);
  }
  for (int i = 0; i < N; i++) contexts[i] = go_context_ref(contexts[i]);
  for (int i = 0; i < N; i++) go_context_free(contexts[i]);
  for (int i = 1; i < N; i += 2) go_context_free(contexts[i]);
  for (int i = 0; i < N; i += 2) {
    if (i % 5 && go_context_is_canceled(contexts[i])) CHECK(coir_now() > due[i] - COIR_MS(1));
    CHECK_EQ(go_context_wait(contexts[i]), 0);
    if (i % 5) CHECK(coir_now() > due[i] - COIR_MS(1) && coir_now() < due[i] + LATE);
    is_late(contexts[i]);
    go_context_free(contexts[i]);
  }
}

/* ---- Races ----------------------------------------------------------------------------------------------------- */

struct grove {
  CancelContextResult top;
  _Atomic(int) is_cut; /* the cancel has returned */
};

static void plants(void *arg) {
  struct grove *g = arg;
  for (int i = 0; i < 200; i++) {
    bool was_cut = atomic_load(&g->is_cut);
    CancelContextResult a = below(g->top.context), b = below(a.context);
    GoContext *c = i % 4 ? go_context_ref(b.context) : go_with_deadline(b.context, real_time_after(COIR_US(50 * i)));
    if (was_cut) CHECK(go_context_is_canceled(a.context) && go_context_is_canceled(c));
    if (i % 3 == 0) cancel(a);
    if (i % 3 == 0) CHECK(go_context_is_canceled(a.context) && go_context_is_canceled(b.context));
    if (i % 7 == 0) coir_yield();
    bool is_cut = atomic_load(&g->is_cut);
    go_context_free(a.context);
    if (is_cut) is_over(b.context, ECANCELED, "context canceled");
    go_context_free(b.context);
    go_context_free(c);
  }
}

static void cuts(void *arg) {
  struct grove *g = arg;
  coir_sleep(COIR_US(200));
  cancel(g->top);
  atomic_store(&g->is_cut, 1);
  is_canceled(g->top.context);
}

ON_BOTH(trees_grow_while_they_are_cut) {
  for (int turn = 0; turn < rounds(40); turn++) {
    struct grove g = {.top = below(NULL)};
    for (int i = 0; i < 4; i++) start(i % 2, plants, &g);
    for (int i = 0; i < 2; i++) start(i % 2, cuts, &g);
    until_idle();
    go_context_free(g.top.context);
  }
}

/* A deadline comes while the context is given up. */
ON_BOTH(deadlines_meet_the_end) {
  for (int i = 0; i < rounds(1000); i++) {
    CancelContextResult top = below(NULL);
    GoContext *c = go_with_deadline(i % 2 ? top.context : NULL, real_time_after(COIR_US(i % 200)));
    CancelContextResult low = below(c);
    go_context_free(c);
    if (i % 3) coir_sleep(COIR_US(i % 170));
    if (i % 5 == 0) cancel(low);
    go_context_free(low.context);
    go_context_free(top.context);
  }
}

/* ---- The last reference ------------------------------------------------------------------------------------------ */

static _Atomic(GoContext *) handed; /* with the only reference */

void __real_coir_chan_close(struct coir_chan *chan);
void __wrap_coir_chan_close(struct coir_chan *chan);

/* The linker sends the library's calls here (--wrap). Who is let go is quick. */
void __wrap_coir_chan_close(struct coir_chan *chan) {
  __real_coir_chan_close(chan);
  SPIN_UNTIL(!atomic_load(&handed));
}

static void *frees_when_canceled(void *context) {
  CHECK_EQ(go_context_wait(context), 0);
  go_context_free(context);
  atomic_store(&handed, NULL);
  return NULL;
}

/* It is another one's, who gives it up as soon as the context is cancelled. */
static void who_cancels_needs_no_reference(void **state) {
  (void)state;
  for (int i = 0; i < 20; i++) {
    pthread_t thread;
    CancelContextResult r = below(NULL);
    atomic_store(&handed, r.context);
    CHECK_EQ(pthread_create(&thread, NULL, frees_when_canceled, r.context), 0);
    cancel(r);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
}

static void receives_until_canceled(void *context) {
  GoChannel *c = go_channel_create(0);
  FAILS(go_channel_receive_with_context(c, NULL, context), ECANCELED);
  go_channel_free(c);
}

/* A call that waits has one of its own. */
ON_BOTH(who_waits_needs_no_reference) {
  for (int i = 0; i < 20; i++) {
    CancelContextResult r = below(NULL);
    CHECK_EQ(go_fiber_default(receives_until_canceled, r.context), 0);
    WAIT_FOR(waiting_for("select") == 1);
    cancel(r);
    go_context_free(r.context);
    until_idle();
  }
}

/* ---- In simulation ----------------------------------------------------------------------------------------------- */

static void cancels_below(void *root) {
  for (int i = 0; i < 200; i++) {
    CancelContextResult r = below(root);
    cancel(r);
    is_canceled(r.context);
    go_context_free(r.context);
  }
}

static void two_share_a_root(void) {
  CancelContextResult root = below(NULL);
  for (int i = 0; i < 2; i++) CHECK(gof_spawn(cancels_below, root.context, 0));
  gof_run();
  is_active(root.context);
  go_context_free(root.context);
}

/* Every call is a point at which others run, on the same thread. */
static void a_tree_in_simulation(void **state) {
  (void)state;
  in_simulations(two_share_a_root);
}

static int64_t real_now(void) {
  struct timespec t;
  CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &t), 0);
  return COIR_SEC(t.tv_sec) + t.tv_nsec;
}

static void keeps_real_time(void *unused) {
  int64_t begin = real_now();
  (void)unused;
  GoContext *far = go_with_deadline(NULL, real_time_after(COIR_SEC(60)));
  GoContext *soon = go_with_deadline(far, real_time_after(COIR_MS(5)));
  Ticker *t = create_ticker(5);
  CHECK(far && soon && t);
  CHECK_EQ(poll(NULL, 0, 20), 0);
  is_active(far);
  CHECK_EQ(go_context_wait(soon), 0);
  is_late(soon);
  for (int i = 1; i <= 3; i++) {
    CHECK_EQ(go_channel_receive(t->c, NULL), 0);
    CHECK(real_now() - begin >= COIR_MS(5) * i);
  }
  is_active(far);
  CHECK(real_now() - begin < LATE);
  stop_ticker(t);
  go_context_free(soon);
  go_context_free(far);
}

static void one_keeps_real_time(void) {
  CHECK(gof_spawn(keeps_real_time, NULL, 0));
  gof_run();
}

/* The clock of a simulation is another one; that of contexts is not. */
static void deadlines_in_simulation(void **state) {
  (void)state;
  in_simulations(one_keeps_real_time);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_tree_in_simulation), /* first: forks before there are threads */
      cmocka_unit_test(deadlines_in_simulation),
      cmocka_unit_test(the_background),
      cmocka_unit_test(no_context),
      cmocka_unit_test(cancelling),
      cmocka_unit_test(all_who_wait_go_on),
      cmocka_unit_test(coir_cancel_ends_a_wait),
      cmocka_unit_test(a_cancelled_context_takes_those_below_and_no_others),
      cmocka_unit_test(children_outlive_the_handles_above),
      cmocka_unit_test(freeing_cancels_nothing),
      cmocka_unit_test(deep_trees),
      cmocka_unit_test(deadlines_are_kept),
      cmocka_unit_test(deadlines_that_have_passed),
      cmocka_unit_test(odd_deadlines),
      cmocka_unit_test(the_soonest_deadline_counts),
      cmocka_unit_test(what_comes_first_is_the_reason),
      cmocka_unit_test(many_deadlines),
      cmocka_unit_test(trees_grow_while_they_are_cut),
      cmocka_unit_test(deadlines_meet_the_end),
      cmocka_unit_test(who_cancels_needs_no_reference),
      cmocka_unit_test(who_waits_needs_no_reference),
  };
  return RUN_TESTS(argc, argv, tests);
}
