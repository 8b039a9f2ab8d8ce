/* context.h: trees of contexts, cancelling, deadlines. */
#include "context.h"

#include <limits.h>

#include "csp_waiting.h"

static csp_context_t *below(csp_context_t *parent) {
  csp_context_t *c = csp_context_with_cancel(parent);
  CHECK(c && csp_context_done(c));
  return c;
}

static csp_context_t *timed(csp_context_t *parent, int64_t ns) {
  csp_context_t *c = csp_context_with_timeout(parent, ns);
  CHECK(c && csp_context_done(c));
  return c;
}

/* As it is from now on: cancelled, for this reason. */
static void is_over(csp_context_t *c, int reason) {
  void *val = number(1);
  bool ok = true;
  CHECK(csp_gochan_try_recv(csp_context_done(c), &val, &ok));
  CHECK(!ok && !val);
  CHECK_EQ(csp_context_err(c), reason);
}

static void is_active(csp_context_t *c) {
  CHECK(!csp_gochan_try_recv(csp_context_done(c), NULL, NULL));
  CHECK_EQ(csp_context_err(c), 0);
}

static void wait_for_done(csp_context_t *c) {
  bool ok = true;
  CHECK(!csp_gochan_recv(csp_context_done(c), &ok));
  CHECK(!ok);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------------ */

static csp_context_t *seen[8];

static void looks_at_the_background(void *place) {
  *(csp_context_t **)place = csp_context_background();
  is_active(*(csp_context_t **)place);
}

/* Made by many at once. */
static void one_background(void) {
  for (int i = 0; i < 8; i++) start(i % 2 == 0, looks_at_the_background, &seen[i]);
  until_idle();
  for (int i = 0; i < 8; i++) CHECK(seen[i] && seen[i] == csp_context_background());
}

ON_BOTH(the_background_is_never_cancelled) {
  csp_context_t *b = csp_context_background(), *c = below(b);
  csp_context_cancel(b);
  csp_context_free(b);
  csp_context_free(b);
  is_active(b);
  is_active(c);
  csp_context_cancel(c);
  is_active(b);
  csp_context_free(c);
}

ON_BOTH(no_context) {
  CHECK(!csp_context_done(NULL));
  CHECK_EQ(csp_context_err(NULL), 0);
  csp_context_cancel(NULL);
  csp_context_free(NULL);
}

ON_BOTH(cancelling_twice_is_cancelling_once) {
  csp_context_t *c = below(NULL);
  is_active(c);
  for (int i = 0; i < 3; i++) {
    csp_context_cancel(c);
    is_over(c, ECANCELED);
    wait_for_done(c);
  }
  csp_context_free(c);
}

ON_BOTH(below_a_cancelled_context_all_are_cancelled) {
  csp_context_t *c = below(NULL);
  csp_context_cancel(c);
  csp_context_t *made[] = {below(c), timed(c, COIR_SEC(60)), timed(c, -1), csp_context_with_deadline(c, 0)};
  for (int i = 0; i < 4; i++) {
    is_over(made[i], ECANCELED);
    csp_context_cancel(made[i]);
    csp_context_t *lower = below(made[i]);
    is_over(lower, ECANCELED);
    csp_context_free(made[i]);
    csp_context_free(lower);
  }
  csp_context_free(c);
}

struct watch {
  csp_context_t *c;
  csp_gochan_t *quiet; /* on which nothing ever comes */
};

static void receives_done(void *arg) {
  struct watch *w = arg;
  wait_for_done(w->c);
  is_over(w->c, ECANCELED);
}

static void selects_done(void *arg) {
  struct watch *w = arg;
  void *val = number(1);
  bool ok = true;
  csp_select_case_t cases[] = {{w->quiet, CSP_RECV, NULL}, {csp_context_done(w->c), CSP_RECV, &val}};
  CHECK_EQ(csp_select_ok(cases, 2, &ok), 1);
  CHECK(!ok && !val);
  is_over(w->c, ECANCELED);
}

ON_BOTH(all_who_wait_go_on) {
  csp_context_t *top = below(NULL), *low = below(top);
  csp_gochan_t *quiet = csp_gochan_new(0);
  struct watch watches[] = {{top, quiet}, {low, quiet}};
  for (int i = 0; i < 40; i++) start(i % 5 == 0, i % 3 ? selects_done : receives_done, &watches[i % 2]);
  pause_ns(COIR_MS(5));
  CHECK_EQ(atomic_load(&active), 40);
  csp_context_cancel(top);
  until_idle();
  csp_gochan_free(quiet);
  csp_context_free(low);
  csp_context_free(top);
}

struct let_go {
  csp_context_t *top, *low;
  bool on_low;
};

static void frees_both(void *arg) {
  struct let_go *g = arg;
  wait_for_done(g->on_low ? g->low : g->top);
  csp_context_free(g->top);
  csp_context_free(g->low);
  free(g);
}

/* While csp_context_cancel is still at it. */
ON_BOTH(who_is_let_go_may_free_it) {
  for (int i = 0; i < rounds(1000); i++) {
    struct let_go *g = malloc(sizeof *g);
    CHECK(g);
    *g = (struct let_go){.top = i % 5 ? below(NULL) : timed(NULL, COIR_SEC(60)), .on_low = i % 2};
    csp_context_t *top = g->top;
    g->low = i % 3 ? below(top) : timed(top, COIR_SEC(30));
    start(i % 16 == 0, frees_both, g);
    for (int pauses = i % 4; pauses-- > 0;) give_way();
    csp_context_cancel(top);
    if (i % 64 == 0) until_idle();
  }
  until_idle();
}

/* ---- Trees ----------------------------------------------------------------------------------------------------- */

enum { TREE = 3 * 3 * 3 };

static int parent_of(int i) { return i / 3 ? i / 3 : 1; } /* 1 is the root */

static bool is_below(int i, int top) {
  while (i > top && i > 1) i = parent_of(i);
  return i == top;
}

/* Looked at without waiting: all is done when csp_context_cancel returns. */
ON_BOTH(a_cancelled_context_takes_those_below_and_no_others) {
  for (int top = 1; top < TREE; top++) {
    csp_context_t *tree[TREE];
    for (int i = 1; i < TREE; i++) tree[i] = below(i == 1 ? NULL : tree[parent_of(i)]);
    csp_context_cancel(tree[top]);
    for (int i = 1; i < TREE; i++)
      if (is_below(i, top)) is_over(tree[i], ECANCELED);
      else is_active(tree[i]);
    csp_context_cancel(tree[1]);
    for (int i = 1; i < TREE; i++) is_over(tree[i], ECANCELED);
    for (int i = 1; i < TREE; i++) csp_context_free(tree[top % 2 ? i : TREE - i]);
  }
}

ON_BOTH(children_outlive_the_handles_above) {
  csp_context_t *top = below(NULL), *middle = below(top), *low = below(middle);
  csp_context_free(middle);
  is_active(low);
  csp_context_cancel(top);
  is_over(low, ECANCELED);
  csp_context_free(top);
  csp_context_free(low);

  top = below(NULL), middle = below(top), low = below(middle);
  csp_context_free(top);
  is_active(low);
  csp_context_cancel(middle);
  is_over(low, ECANCELED);
  csp_context_free(middle);
  csp_context_t *more = below(low);
  csp_context_free(low);
  is_over(more, ECANCELED);
  csp_context_free(more);
}

enum freeing { FIRST_TO_LAST, LAST_TO_FIRST, ANY_ORDER, ORDERS };

static void free_all(csp_context_t **all, int n, enum freeing order) {
  uint64_t seed = rng_seed((uint64_t)n);
  for (int i = n - 1; order == ANY_ORDER && i > 0; i--) {
    int j = (int)(rng_next(&seed) >> 20 & INT_MAX) % (i + 1);
    csp_context_t *c = all[i];
    all[i] = all[j];
    all[j] = c;
  }
  for (int i = 0; i < n; i++) csp_context_free(all[order == LAST_TO_FIRST ? n - 1 - i : i]);
}

/* A chain, or one with many children; cancelled or not. */
static void large(bool is_chain) {
  enum { LARGE = 10000 };
  csp_context_t **all = malloc(LARGE * sizeof *all);
  CHECK(all);
  for (int turn = 0; turn < 2 * ORDERS; turn++) {
    for (int i = 0; i < LARGE; i++) all[i] = below(i == 0 ? NULL : all[is_chain ? i - 1 : 0]);
    if (turn % 2) csp_context_cancel(all[0]);
    for (int i = 0; i < LARGE; i++) CHECK_EQ(csp_context_err(all[i]), turn % 2 ? ECANCELED : 0);
    csp_context_cancel(all[LARGE / 2]); /* with what is below it */
    is_over(all[is_chain ? LARGE - 1 : LARGE / 2], ECANCELED);
    CHECK_EQ(csp_context_err(all[LARGE / 2 - 1]), turn % 2 ? ECANCELED : 0);
    free_all(all, LARGE, (enum freeing)(turn / 2));
  }
  free(all);
}

ON_BOTH(deep_trees) { large(true); }

ON_BOTH(broad_trees) { large(false); }

/* ---- Deadlines ------------------------------------------------------------------------------------------------- */

ON_BOTH(deadlines_are_never_early) {
  for (int64_t ns = 1000; ns < COIR_MS(60); ns *= 3) {
    int64_t begin = csp_timer_now();
    csp_context_t *c = ns % 2 ? timed(NULL, ns) : csp_context_with_deadline(NULL, begin + ns);
    wait_for_done(c);
    int64_t took = csp_timer_now() - begin;
    CHECK(took >= ns && took < ns + LATE);
    is_over(c, ETIMEDOUT);
    csp_context_cancel(c);
    is_over(c, ETIMEDOUT); /* the first reason stays */
    csp_context_t *low = below(c);
    is_over(low, ETIMEDOUT);
    csp_context_free(c);
    csp_context_free(low);
  }
}

ON_BOTH(deadlines_that_have_passed) {
  static const int64_t ns[] = {0, -1, -COIR_SEC(1), INT64_MIN};
  csp_context_t *parent = below(NULL);
  for (int i = 0; i < 4; i++) {
    csp_context_t *c = timed(parent, ns[i]);
    is_over(c, ETIMEDOUT);
    csp_context_free(c);
    c = csp_context_with_deadline(parent, ns[i]);
    is_over(c, ETIMEDOUT);
    csp_context_free(c);
  }
  is_active(parent);
  csp_context_free(parent);
}

ON_BOTH(a_deadline_that_never_comes) {
  csp_context_t *c = timed(NULL, INT64_MAX), *d = csp_context_with_deadline(c, INT64_MAX),
                *e = timed(d, COIR_SEC(1000));
  is_active(e);
  csp_context_cancel(c);
  is_over(e, ECANCELED);
  csp_context_free(c);
  csp_context_free(d);
  csp_context_free(e);
}

ON_BOTH(the_soonest_deadline_counts) {
  csp_context_t *soon = timed(NULL, COIR_MS(20)), *far = timed(soon, COIR_SEC(100)), *low = below(far);
  wait_for_done(low);
  is_over(low, ETIMEDOUT);
  is_over(far, ETIMEDOUT);
  is_over(soon, ETIMEDOUT);
  csp_context_free(soon);
  csp_context_free(far);
  csp_context_free(low);

  far = timed(NULL, COIR_SEC(100)), soon = timed(far, COIR_MS(20)), low = below(soon);
  wait_for_done(low);
  is_over(low, ETIMEDOUT);
  is_over(soon, ETIMEDOUT);
  is_active(far);
  csp_context_free(far);
  csp_context_free(low);
  csp_context_free(soon);
}

/* The deadline of a context counts for those below it, whether or not somebody still has its handle. */
ON_BOTH(a_deadline_outlives_the_handle) {
  csp_context_t *soon = timed(NULL, COIR_MS(20)), *far = timed(soon, COIR_SEC(100)), *low = below(far);
  csp_context_free(soon);
  csp_context_free(far);
  wait_for_done(low);
  is_over(low, ETIMEDOUT);
  csp_context_free(low);

  soon = timed(NULL, COIR_MS(20)), low = below(soon);
  csp_context_free(soon);
  csp_context_free(low); /* with the last user it goes, too */
}

ON_BOTH(cancelled_before_its_deadline) {
  int64_t deadline = coir_after(COIR_MS(20));
  csp_context_t *parent = below(NULL), *a = csp_context_with_deadline(parent, deadline),
                *b = csp_context_with_deadline(parent, deadline);
  csp_context_cancel(a);
  csp_context_cancel(parent);
  bool is_early = csp_timer_now() < deadline;
  int reasons[] = {csp_context_err(a), csp_context_err(b)};
  CHECK(!is_early || (reasons[0] == ECANCELED && reasons[1] == ECANCELED));
  WAIT_FOR(csp_timer_now() > deadline + COIR_MS(5));
  is_over(a, reasons[0]);
  is_over(b, reasons[1]);
  csp_context_free(a);
  csp_context_free(b);
  csp_context_free(parent);
}

ON_BOTH(freed_before_its_deadline) {
  for (int i = 0; i < rounds(1000); i++) csp_context_free(timed(NULL, COIR_MS(i % 4) + 1000));
  pause_ns(COIR_MS(5));
}

/* Just as it comes: one reason, and no other later. */
static void cancels(void *context) {
  csp_context_cancel(context);
  CHECK(csp_context_err(context));
}

ON_BOTH(cancelled_and_freed_as_the_deadline_comes) {
  uint64_t seed = rng_seed(7);
  int reasons[2] = {0};
  for (int i = 0; i < rounds(1000); i++) {
    int64_t ns = (int64_t)(rng_next(&seed) >> 20) % 100000;
    csp_context_t *c = timed(NULL, ns + 1), *low = below(c);
    if (i % 4 == 0) start(i % 8 == 0, cancels, c);
    stroll(ns);
    if (i % 3) cancels(low);
    if (i % 2) cancels(c);
    until_idle();
    int err = csp_context_err(c);
    CHECK(err == 0 || err == ECANCELED || err == ETIMEDOUT);
    if (err) reasons[err == ETIMEDOUT]++;
    csp_context_free(i % 5 ? c : low);
    csp_context_free(i % 5 ? low : c);
  }
  CHECK(reasons[0] + reasons[1] > 0);
}

/* ---- Goroutines that are none ---------------------------------------------------------------------------------- */

static void receives(void *chan) { csp_gochan_recv(chan, NULL); }

static void deadlines_are_no_goroutines(void) {
  enum { N = 400 };
  static csp_context_t *all[N];
  csp_gochan_t *chan = csp_gochan_new(0);
  for (int goroutines = 0; goroutines < 3; goroutines++) {
    for (int i = 0; i < N; i++) all[i] = timed(i % 3 ? all[0] : NULL, COIR_MS(10) + i % 100 * COIR_US(300));
    int over = 0;
    for (int looks = 0; over < N; looks++) {
      CHECK_EQ(runtime_num_goroutines(), goroutines);
      for (int i = over = 0; i < N; i++) over += csp_context_err(all[i]) != 0;
      if (looks % 16 == 0) pause_ns(COIR_US(50));
    }
    for (int i = 0; i < N; i++) csp_context_free(all[i]);
    CHECK_EQ(runtime_num_goroutines(), goroutines);
    start(false, receives, chan);
  }
  csp_gochan_close(chan);
  until_idle();
  csp_gochan_free(chan);
}

/* ---- All at once ----------------------------------------------------------------------------------------------- */

enum { SHARED = 16 };

struct crowd {
  csp_context_t *shared[SHARED]; /* the first is the root */
  _Atomic(int) next;
};

/* Makes contexts below the shared ones, and below its own, cancels some, and frees its own. */
static void is_busy(void *arg) {
  struct crowd *crowd = arg;
  uint64_t seed = rng_seed((uint64_t)atomic_fetch_add(&crowd->next, 1) + 1);
  csp_context_t *own[8] = {0};
  for (int i = 0; i < rounds(600); i++) {
    uint64_t dice = rng_next(&seed) >> 20;
    csp_context_t **place = &own[dice % 8], *parent = own[dice / 8 % 8];
    if (!parent || dice / 64 % 2) parent = crowd->shared[dice / 128 % SHARED];
    bool was_over = csp_context_err(parent) != 0;
    csp_context_t *c = dice / 2048 % 4 ? below(parent) : timed(parent, (int64_t)(dice / 8192 % 100) * 1000);
    if (was_over) CHECK(csp_context_err(c));
    csp_context_free(*place);
    *place = c;
    if (dice >> 24 & 1) csp_context_cancel(c);
    if (dice >> 24 & 1) CHECK(csp_context_err(c));
    if ((dice >> 25) % 200 == 0) csp_context_cancel(parent);
    if ((dice >> 25) % 32 == 0) give_way();
  }
  for (int i = 0; i < 8; i++) csp_context_free(own[i]);
}

static void waits_for_root(void *arg) {
  struct watch w = {((struct crowd *)arg)->shared[0], NULL};
  selects_done(&w);
}

ON_BOTH(all_at_once) {
  for (int turn = 0; turn < 3; turn++) {
    struct crowd crowd = {.next = 0};
    csp_context_t *root = crowd.shared[0] = below(NULL);
    for (int i = 1; i < SHARED; i++) crowd.shared[i] = below(crowd.shared[(i - 1) / 2]);
    for (int i = 0; i < 12; i++) start(i % 4 == 0, is_busy, &crowd);
    for (int i = 0; i < 8; i++) start(i % 4 == 0, waits_for_root, &crowd);
    pause_ns(COIR_MS(1));
    for (int i = SHARED - 1; i > 0; i -= 3) start(i % 2 == 0, cancels, crowd.shared[i]);
    csp_context_cancel(root);
    for (int i = 0; i < SHARED; i++) CHECK(csp_context_err(crowd.shared[i]));
    until_idle();
    for (int i = 0; i < SHARED; i++) is_over(crowd.shared[i], ECANCELED);
    free_all(crowd.shared, SHARED, (enum freeing)turn);
  }
}

/* ---- Without freeing ------------------------------------------------------------------------------------------- */

static csp_context_t *kept[300]; /* so that a search for leaks finds them */

static void frees_nothing(void *unused) {
  (void)unused;
  for (int i = 0; i < 300; i++) {
    kept[i] = i % 2 ? timed(i % 3 ? kept[i / 3] : NULL, COIR_US(i * 20)) : below(kept[i / 4]);
    if (i % 5 == 0) csp_context_cancel(kept[i]);
  }
  pause_ns(COIR_MS(3));
  exit(0); /* some deadlines have come, some are coming, some will not */
}

static void exits(void) {
  go(frees_nothing, NULL);
  pause_ns(LATE);
  CHECK(!"ended");
}

static void programs_may_free_nothing(void) { in_child(exits); }

/* Deadlines need workers, and come late when these have been stopped. */
static void deadlines_after_a_stop(void) {
  int64_t deadline = coir_after(COIR_MS(50));
  csp_context_t *c = csp_context_with_deadline(NULL, deadline), *never = timed(NULL, COIR_SEC(1000));
  csp_scheduler_stop();
  bool is_early = csp_timer_now() < deadline;
  WAIT_FOR(csp_timer_now() > deadline + COIR_MS(10));
  CHECK(!is_early || csp_context_err(c) == 0);
  csp_context_t *other = timed(NULL, COIR_MS(1)); /* starts them again */
  wait_for_done(c);
  wait_for_done(other);
  csp_scheduler_stop();
  csp_context_cancel(never);
  is_over(never, ECANCELED);
  csp_context_free(never);
  csp_context_free(other);
  csp_context_free(c);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(one_background),
      CASE(the_background_is_never_cancelled),
      CASE(no_context),
      CASE(cancelling_twice_is_cancelling_once),
      CASE(below_a_cancelled_context_all_are_cancelled),
      CASE(all_who_wait_go_on),
      CASE(who_is_let_go_may_free_it),
      CASE(a_cancelled_context_takes_those_below_and_no_others),
      CASE(children_outlive_the_handles_above),
      CASE(deep_trees),
      CASE(broad_trees),
      CASE(deadlines_are_never_early),
      CASE(deadlines_that_have_passed),
      CASE(a_deadline_that_never_comes),
      CASE(the_soonest_deadline_counts),
      CASE(a_deadline_outlives_the_handle),
      CASE(cancelled_before_its_deadline),
      CASE(freed_before_its_deadline),
      CASE(cancelled_and_freed_as_the_deadline_comes),
      CASE(deadlines_are_no_goroutines),
      CASE(all_at_once),
      CASE(programs_may_free_nothing),
      CASE(deadlines_after_a_stop),
  };
  return RUN_CASES(argc, argv, cases);
}
