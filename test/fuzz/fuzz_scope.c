/* Scopes beside a sequential model: opening, closing, spawning, failing, cancelling, deadlines, shields, values.
 *
 * A conductor reads the input. It tells actors, which are fibers, to do something, one at a time, and cancels fibers
 * and scopes itself, several in a row if the input says so, before anybody runs. Actors that have nothing to do yield.
 * The model keeps who is inside of which scope, which cancellations each has not noticed yet, and what each call that
 * waits is going to return. Deadlines differ, and the clock is moved from one to the next: so there is one order in
 * which they come.
 *
 * What is known of cancellation (coir.h): it is delivered once to each that is inside; what comes again before it was
 * noticed is the same; what a scope asks of its own opener is over when it is closed; a shield puts it off. */
#include "fuzz.h"

enum { ACTORS = 7, ROOTS = 2, SCOPES = 8, KEYS = 2, NOBODY = -1 };

enum job { REST, OPEN, CLOSE, SPAWN, SLEEP, WAIT, WATCH, SHIELD, UNSHIELD, SET, LOOK, END };

enum state { IDLE, WAITS, CLOSES };

static struct scope {
  struct coir_scope *real; /* NULL: a place that is free */
  int opener, parent;
  uint32_t depth, live;
  unsigned flags;
  int reason, failure;
  bool is_from_outside, is_closing;
  int64_t deadline;
  void *values[KEYS];
} scopes[SCOPES];

static struct actor {
  struct coir_fiber *fiber; /* NULL: a place that is free */
  int home;                 /* the scope that it was spawned into */
  int scope;                /* its innermost */
  enum job job;
  uint32_t choice; /* what the job is about */
  int64_t deadline;
  int status;
  enum state state;
  int watched; /* WAITS: for the cancellation of this scope, too */
  int shields;
  bool is_asked;       /* a cancellation that it has not noticed */
  uint32_t body_depth; /* one by a scope that it has opened, of this depth; 0: none */
  bool is_torn;        /* CLOSES, and was cancelled: it goes on to cancel the scope */
  int decided;
  bool has_ended;
} actors[ACTORS];

static const int keys[KEYS];
static struct coir_event never;
static int64_t deadlines_given;
static bool is_late;   /* the clock has moved, and nobody has looked at it since */
static int late_scope; /* then: whose deadline has come, or NOBODY */

/* ---- The model ------------------------------------------------------------------------------------------------- */

static bool is_inside(int s, int outer) {
  while (s != NOBODY && s != outer) s = scopes[s].parent;
  return s == outer;
}

static bool has_pending(const struct actor *a) { return a->is_asked || a->body_depth; }

static void forget(struct actor *a) {
  a->is_asked = false;
  a->body_depth = 0;
}

static void decide(struct actor *a, int rc) {
  a->state = IDLE;
  a->decided = rc;
}

/* It has been told; the number of a depth is its own opener's. */
static void model_tell(struct actor *a, uint32_t depth) {
  if (depth == 0) a->is_asked = true;
  else if (!a->body_depth || depth < a->body_depth) a->body_depth = depth;
  if (a->shields) return;
  if (a->state == WAITS) decide(a, -ECANCELED);
  if (a->state == CLOSES && !scopes[a->scope].reason) a->is_torn = true;
}

static void model_turn(int s, int reason, bool is_from_outside) {
  scopes[s].reason = reason;
  scopes[s].is_from_outside = is_from_outside;
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].state == WAITS && actors[i].watched == s) decide(&actors[i], 0);
}

static void model_cancel(int root, int reason, bool is_from_outside) {
  if (scopes[root].reason) return;
  model_turn(root, reason, is_from_outside);
  for (int s = 0; s < SCOPES; s++)
    if (scopes[s].real && s != root && is_inside(s, root) && !scopes[s].reason) model_turn(s, -ECANCELED, true);
  if (!scopes[root].is_closing) model_tell(&actors[scopes[root].opener], scopes[root].depth);
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].fiber && !actors[i].has_ended && actors[i].home != NOBODY && is_inside(actors[i].home, root))
      model_tell(&actors[i], 0);
}

static void model_close_if_empty(int s) {
  struct scope *scope = &scopes[s];
  struct actor *a = &actors[scope->opener];
  if (scope->live || !scope->is_closing || a->is_torn) return;
  if (a->body_depth >= scope->depth) a->body_depth = 0;
  if (scope->is_from_outside && !a->shields) forget(a);
  decide(a, scope->reason ? scope->reason : scope->failure);
  a->scope = scope->parent;
  scope->real = NULL;
}

/* A closing opener that was cancelled runs. */
static void model_tear(struct actor *a) {
  struct scope *s = &scopes[a->scope];
  a->is_torn = false;
  forget(a);
  if (!s->reason) model_cancel(a->scope, -ECANCELED, true);
  else if (!s->is_from_outside) a->is_asked = true; /* something else came first */
  model_close_if_empty(a->scope);
}

static void model_close(struct actor *a) {
  struct scope *s = &scopes[a->scope];
  s->is_closing = true;
  a->state = CLOSES;
  if (s->live && !s->reason && !a->shields && has_pending(a)) model_tear(a);
  else model_close_if_empty(a->scope);
}

static void model_end(struct actor *a) {
  int home = a->home;
  a->has_ended = true;
  if (home == NOBODY) return;
  struct scope *s = &scopes[home];
  if (a->status < 0 && !s->reason) {
    if (s->flags & COIR_SCOPE_KEEP_GOING) s->failure = s->failure ? s->failure : a->status;
    else model_cancel(home, a->status, false);
  }
  s->live--;
  model_close_if_empty(home);
}

/* A call that waits for its deadline. */
static void model_wait(struct actor *a, int rc_when_late, bool cancels_when_late) {
  bool is_over = a->deadline <= fuzz_now, is_canceled = has_pending(a) && !a->shields;
  if (is_canceled && (!is_over || cancels_when_late)) {
    forget(a);
    a->decided = -ECANCELED;
  } else if (is_over) {
    a->decided = rc_when_late;
  } else {
    a->state = WAITS;
  }
}

static int64_t model_deadline(int s) {
  int64_t soonest = COIR_NEVER;
  for (; s != NOBODY; s = scopes[s].parent) soonest = sooner_of(soonest, scopes[s].deadline);
  return soonest;
}

/* The next time at which something is to happen; the scope of which it is the deadline, or NOBODY. */
static int64_t model_next(int *scope) {
  int64_t next = COIR_NEVER;
  *scope = NOBODY;
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].state == WAITS) next = sooner_of(next, actors[i].deadline);
  for (int s = 0; s < SCOPES; s++) {
    if (!scopes[s].real || scopes[s].reason || scopes[s].deadline > next) continue;
    next = scopes[s].deadline;
    *scope = s;
  }
  return next;
}

static void model_expire(void) {
  is_late = false;
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].state == WAITS && actors[i].deadline <= fuzz_now)
      decide(&actors[i], actors[i].job == SLEEP ? 0 : -ETIMEDOUT);
  for (int s = 0; s < SCOPES; s++)
    if (scopes[s].real && scopes[s].deadline <= fuzz_now) model_cancel(s, -ETIMEDOUT, false);
}

/* ---- Actors ---------------------------------------------------------------------------------------------------- */

static int run_actor(void *arg);

static void open_scope(struct actor *a) {
  int s = 0;
  while (s < SCOPES && scopes[s].real) s++;
  if (s == SCOPES) return;
  unsigned flags = a->choice & 1 ? COIR_SCOPE_KEEP_GOING : 0;
  bool is_nested = a->scope != NOBODY && &actors[scopes[a->scope].opener] == a;
  scopes[s] = (struct scope){.opener = (int)(a - actors),
                             .parent = a->scope,
                             .depth = is_nested ? scopes[a->scope].depth + 1 : 1,
                             .flags = flags,
                             .deadline = a->deadline};
  CHECK_EQ(coir_scope_open(&scopes[s].real, flags, a->deadline), 0);
  a->scope = s;
  if (a->deadline <= fuzz_now) model_cancel(s, -ETIMEDOUT, false);
}

static void close_scope(struct actor *a) {
  struct coir_scope *real = scopes[a->scope].real;
  model_close(a);
  int rc = coir_scope_close(real);
  CHECK_EQ(a->state, IDLE);
  CHECK_EQ(rc, a->decided);
}

/* Into its innermost scope, by name or not, or into any other that it is inside of. */
static void spawn(struct actor *a) {
  int i = ROOTS, s = a->scope;
  while (i < ACTORS && actors[i].fiber) i++;
  if (i == ACTORS) return;
  for (uint32_t up = a->choice / 4 % 4; up > 0 && s != NOBODY && scopes[s].parent != NOBODY; up--) s = scopes[s].parent;
  bool by_name = s != a->scope || a->choice & 1;
  int expected = s == NOBODY ? -EINVAL : scopes[s].reason ? -ECANCELED : 0;
  struct coir_fiber *fiber;
  int rc = coir_scope_spawn(by_name && s != NOBODY ? scopes[s].real : NULL, run_actor, &actors[i], NULL, &fiber);
  CHECK_EQ(rc, expected);
  if (rc) return;
  actors[i] = (struct actor){.fiber = fiber, .home = s, .scope = s, .watched = NOBODY};
  scopes[s].live++;
}

static int call(struct actor *a) {
  if (a->job == SLEEP) return coir_sleep_until(a->deadline);
  if (a->job == WAIT) return coir_event_wait(&never, a->deadline);
  struct coir_arm arms[] = {coir_arm_event(&never), coir_arm_scope(scopes[a->watched].real)};
  int rc = coir_select(arms, 2, a->deadline);
  return rc == 1 ? 0 : rc;
}

static void wait_for_something(struct actor *a) {
  a->watched = a->job == WATCH ? a->scope : NOBODY;
  bool is_ready = a->watched != NOBODY && scopes[a->watched].reason;
  a->decided = 0;
  if (!is_ready) model_wait(a, a->job == SLEEP ? 0 : -ETIMEDOUT, a->job == SLEEP);
  bool waits = a->state == WAITS;
  int rc = call(a);
  CHECK(a->state == IDLE);
  CHECK_EQ(rc, a->decided);
  if (waits && rc == -ECANCELED) forget(a); /* what was asked for meanwhile is the same */
  a->watched = NOBODY;
}

static void set_value(struct actor *a) {
  uint32_t key = a->choice % KEYS;
  if (a->scope == NOBODY) return;
  scopes[a->scope].values[key] = (void *)(uintptr_t)(a->choice + 1);
  CHECK_EQ(coir_scope_set(scopes[a->scope].real, &keys[key], scopes[a->scope].values[key]), 0);
}

static void look(struct actor *a) {
  int s = a->scope;
  CHECK(coir_scope_current() == (s == NOBODY ? NULL : scopes[s].real));
  CHECK_EQ(coir_scope_reason(NULL), s == NOBODY ? 0 : scopes[s].reason);
  CHECK_EQ(coir_scope_deadline(NULL), model_deadline(s));
  for (int key = 0; key < KEYS; key++) {
    int at = s;
    while (at != NOBODY && !scopes[at].values[key]) at = scopes[at].parent;
    CHECK(coir_scope_get(&keys[key]) == (at == NOBODY ? NULL : scopes[at].values[key]));
  }
}

static void perform(struct actor *a) {
  switch (a->job) {
  case OPEN: open_scope(a); break;
  case CLOSE: close_scope(a); break;
  case SPAWN: spawn(a); break;
  case SLEEP:
  case WAIT:
  case WATCH: wait_for_something(a); break;
  case SHIELD:
    coir_shield_begin();
    a->shields++;
    break;
  case UNSHIELD:
    coir_shield_end();
    a->shields--;
    break;
  case SET: set_value(a); break;
  default: look(a); break;
  }
}

static int run_actor(void *arg) {
  struct actor *a = arg;
  for (;;) {
    while (a->job == REST) coir_yield();
    if (a->job == END) break;
    perform(a);
    a->job = REST;
  }
  a->job = REST;
  model_end(a);
  return a->status;
}

/* ---- The conductor --------------------------------------------------------------------------------------------- */

static bool all_are_as_modelled(void) {
  for (int i = 0; i < ACTORS; i++)
    if ((actors[i].job != REST) != (actors[i].state != IDLE)) return false;
  for (int s = 0; s < SCOPES; s++)
    if (scopes[s].real && coir_scope_reason(scopes[s].real) != scopes[s].reason) return false;
  return true;
}

/* Somebody is about to run who was woken. */
static bool is_unsettled(void) {
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].is_torn || (actors[i].job != REST && actors[i].state == IDLE)) return true;
  return is_late;
}

/* Somebody is about to cancel a scope that is around `s`; NOBODY: any. */
static bool is_to_be_torn(int s) {
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].is_torn && (s == NOBODY || (s != actors[i].scope && is_inside(s, actors[i].scope)))) return true;
  return false;
}

static void bury_the_ended(void) {
  for (int i = 0; i < ACTORS; i++) {
    struct actor *a = &actors[i];
    struct coir_result result;
    if (!a->fiber || !a->has_ended) continue;
    CHECK_EQ(coir_join(a->fiber, &result, COIR_NEVER), 0);
    CHECK_EQ(result.status, a->status);
    a->fiber = NULL;
  }
}

static void settle(void) {
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].is_torn) model_tear(&actors[i]);
  if (is_late) model_expire();
  for (int i = 0; !all_are_as_modelled(); i++) {
    CHECK(i < 20000);
    coir_yield();
  }
  for (int i = 0; i < 3; i++) coir_yield();
  CHECK(all_are_as_modelled());
  bury_the_ended();
}

/* No two are the same. */
static int64_t take_own_deadline(struct input *in) {
  int64_t deadline = take_deadline(in);
  return deadline > fuzz_now && deadline != COIR_NEVER ? deadline + ++deadlines_given : deadline;
}

static bool can(const struct actor *a, enum job job) {
  bool has_opened = a->scope != NOBODY && scopes[a->scope].opener == a - actors;
  if (job == CLOSE) return has_opened;
  if (job == UNSHIELD) return a->shields > 0;
  if (job == WATCH) return a->scope != NOBODY;
  if (job == END) return a->home != NOBODY && !has_opened && !a->shields;
  return true;
}

static void tell(struct actor *a, enum job job) {
  if (!a->fiber || a->job != REST || !can(a, job)) return;
  if (is_unsettled()) settle();
  if (!can(a, job)) return;
  a->job = job;
  settle();
}

/* The next from a place on that has nothing to do; NULL: all have. */
static struct actor *idle_from(uint32_t first) {
  for (uint32_t i = first; i < first + ACTORS; i++)
    if (actors[i % ACTORS].fiber && actors[i % ACTORS].job == REST) return &actors[i % ACTORS];
  return NULL;
}

static void take_job(struct input *in) {
  static const enum job jobs[] = {OPEN, CLOSE, SPAWN, SLEEP,  OPEN,     CLOSE, SPAWN, WAIT, END,
                                  SET,  LOOK,  SPAWN, SHIELD, UNSHIELD, WATCH, SLEEP, END};
  enum { JOBS = sizeof jobs / sizeof *jobs };
  struct actor *a = idle_from(below(in, ACTORS));
  uint32_t first = below(in, JOBS);
  if (!a) return;
  a->choice = take(in);
  a->status = a->choice % 2 ? 0 : -(int)(a->choice % 100 + 1);
  a->deadline = take_own_deadline(in);
  while (!can(a, jobs[first % JOBS])) first++;
  enum job job = jobs[first % JOBS];
  if (job != OPEN && a->deadline == COIR_NEVER) a->deadline = fuzz_now + COIR_MS(300) + ++deadlines_given;
  tell(a, job);
}

/* What is told now might be noticed before a scope is cancelled that is to be, or after: only that scope may be
 * touched, or one around it. */
static void settle_unless_about(int s) {
  if ((is_late && late_scope != NOBODY && late_scope != s) || is_to_be_torn(s)) settle();
}

static void cancel_actor(struct actor *a) {
  settle_unless_about(NOBODY);
  if (a->state == CLOSES && is_unsettled()) settle();
  if (!a->fiber) return;
  CHECK_EQ(coir_cancel(a->fiber), 0);
  model_tell(a, 0);
}

static void cancel_scope(int s, uint32_t choice) {
  settle_unless_about(s);
  if (!scopes[s].real) return;
  int reason = choice % 2 ? 0 : -(int)(choice % 100 + 1);
  coir_scope_cancel(scopes[s].real, reason);
  model_cancel(s, reason ? reason : -ECANCELED, false);
}

static void shorten(int s, int64_t deadline) {
  settle_unless_about(s);
  if (!scopes[s].real) return;
  coir_scope_shorten(scopes[s].real, deadline);
  if (deadline >= scopes[s].deadline) return;
  scopes[s].deadline = deadline;
  if (deadline <= fuzz_now) model_cancel(s, -ETIMEDOUT, false);
}

/* From one event to the next. */
static void advance(int64_t until) {
  for (int64_t next; settle(), (next = model_next(&late_scope)) <= until;) {
    fuzz_now = next > fuzz_now ? next : fuzz_now;
    is_late = true;
  }
  fuzz_now = until;
  settle();
}

/* To the next event, of which nobody has been told when this returns. */
static void come_to_next(void) {
  settle();
  int64_t next = model_next(&late_scope);
  if (next == COIR_NEVER || next <= fuzz_now) return;
  fuzz_now = next;
  is_late = true;
}

/* The next from a place on that is alive; there always is one. */
static struct actor *living_from(uint32_t i) {
  while (!actors[i % ACTORS].fiber) i++;
  return &actors[i % ACTORS];
}

/* The next from a place on that is open, or any. */
static int open_from(uint32_t first) {
  for (uint32_t i = first; i < first + SCOPES; i++)
    if (scopes[i % SCOPES].real) return (int)(i % SCOPES);
  return 0;
}

static void step(struct input *in) {
  uint32_t b = take(in);
  switch (b % 16) {
  case 0:
  case 1: cancel_actor(living_from(below(in, ACTORS))); break;
  case 2:
  case 3: cancel_scope(open_from(below(in, SCOPES)), take(in)); break;
  case 4: shorten(open_from(below(in, SCOPES)), take_own_deadline(in)); break;
  case 5: advance(fuzz_now + COIR_MS(below(in, 64))); break;
  case 6: come_to_next(); break;
  case 7: settle(); break;
  default: take_job(in); break;
  }
}

/* Everybody comes to an end, from the inside to the outside. */
static void tear_down(void) {
  advance(fuzz_now + COIR_SEC(1));
  settle();
  for (bool goes_on = true; goes_on;) {
    goes_on = false;
    for (int i = 0; i < ACTORS; i++) {
      struct actor *a = &actors[i];
      a->status = 0;
      while (a->fiber && a->job == REST && a->shields) tell(a, UNSHIELD);
      tell(a, CLOSE);
      tell(a, END);
      goes_on |= a->fiber && a->home != NOBODY;
    }
  }
  for (int i = 0; i < ROOTS; i++) {
    while (actors[i].scope != NOBODY) tell(&actors[i], CLOSE);
    actors[i].job = END;
    settle();
  }
  for (int s = 0; s < SCOPES; s++) CHECK(!scopes[s].real);
}

static int conduct(void *arg) {
  struct input *in = arg;
  memset(scopes, 0, sizeof scopes);
  memset(actors, 0, sizeof actors);
  deadlines_given = 0;
  for (int i = 0; i < ROOTS; i++) {
    actors[i] = (struct actor){.home = NOBODY, .scope = NOBODY, .watched = NOBODY};
    CHECK_EQ(coir_spawn(run_actor, &actors[i], NULL, &actors[i].fiber), 0);
  }
  while (!is_over(in)) step(in);
  tear_down();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  struct input in = {data, data + bytes};
  run_alone(conduct, &in);
  return 0;
}
