/* Scopes: fibers that live and end together.
 *
 * Goal: whoever opens a scope can rely on it that, once it is closed, nothing of it runs any more; and that a
 * cancellation reaches everybody inside, once each, however deep and wide the tree is, and leaves those alone who come
 * later to clean up.
 *
 * Why it is hard: while a cancellation goes through the tree, fibers end, scopes are opened and closed, and other
 * cancellations are under way, from above and from below. Only one lock may be held at a time, and none while somebody
 * is woken. There is no stack for recursion and no memory for a list.
 *
 * Design. A scope has a list of its fibers and one of the scopes that were opened inside it; its lock guards both. It
 * is empty when both are, and no cancellation is passing through. The opener waits for that in coir_scope_close, and
 * whoever makes it empty wakes it: giving back the lock is the last that anybody inside does to a scope, so the opener
 * may free it.
 *
 * A cancellation is counted first, in a count of the whole process. Scopes note the count when they are opened, so the
 * cancellation knows which ones were there before: it passes over the others. It then goes through the tree twice, from
 * each scope to the first below it, or else to the next beside it, or up. The first time it notes in each scope that it
 * is cancelled, so that none of them takes new fibers; the second time it tells the fibers. So nobody has been told
 * anything before every scope has been cancelled that he is inside of, or has opened; what he opens afterwards is for
 * cleaning up. A scope is pinned from the first visit to the end of the second: it stays in its parent's list, and so
 * the way back is always there. Any number of cancellations can be under way in one tree without knowing of each other,
 * and a fiber that is inside of two cancelled scopes is told twice.
 *
 * Fibers are told some at a time: the lock is held while they are asked and claimed, because a fiber whose end waits
 * for the lock is still there; and given back before those that were claimed are woken, because they cannot end before
 * that. Where it stopped in the list is known to the scope (scope_cursor), and moves on when that fiber ends.
 *
 * The opener is told by the scope that is cancelled itself, not by those inside of it: there it is one of the fibers,
 * or has opened an outer scope as well. What it has not noticed when it closes the scope is void (wait.c).
 *
 * Closing. The opener waits openly while the scope is not cancelled: when somebody cancels the opener, the scope is
 * cancelled. From then on its wait is shielded, and what is asked of it is for the next wait. Whoever cancels the scope
 * has the opener begin its wait anew. When the cause came from outside of the scope, the opener is told of the same
 * cause, and learns of it by what coir_scope_close returns: so what is pending then is taken as delivered.
 *
 * The end of a fiber comes in two parts: it leaves the list and reports its status, while it still is a fiber; and it
 * is counted out when nothing of it is left. A failure cancels the scope in the first part.
 *
 * Deadlines are alarms (timer.c) of the worker on which the scope was opened, or of the keeper for plain threads. One
 * thread at a time arms it; a deadline that is brought forward meanwhile is seen to by that one.
 *
 * When a runtime drops its fibers, openers vanish without closing. Their scopes become orphans: they are cancelled, and
 * the last that leaves frees them. That may be a fiber of another runtime, when the opener's is gone; so the memory of
 * scopes does not come from the runtime's allocator.
 *
 * Rejected: a list of the scopes that are still to be told, linked through them (two cancellations that meet have to
 * share it: the later one returns before it has told anybody); one lock per tree (holds up everybody while a large one
 * is cancelled); marks instead of pins (a scope that closes takes the way back with it).
 *
 * I1: the opener is inside the parent: as one of its fibers, or because it opened that as well. So the parent outlives
 *     the scope, unless both are orphans; then the scope is in its list.
 * I2: reason is set once, under the lock. A fiber that is linked after that, because whoever spawns it looked before,
 *     is cancelled like the others: by the cancellation that has still to come to it, or at once.
 * I3: pins are raised under the parent's lock, or by who is inside; a scope that is pinned stays in its parent's list.
 * I4: nobody frees a scope but its opener, or of an orphan the one who set is_dying. */
#include "internal.h"

#ifdef COIR_HARD
#define SCOPE_BATCH 2
#else
#define SCOPE_BATCH 64 /* fibers that are told under the lock at a time */
#endif

/* How far one cancellation has come in the list of fibers; in its frame. */
struct scope_cursor {
  struct scope_cursor *next;
  struct coir_fiber *at; /* to be told next */
};

struct scope_value {
  struct scope_value *next; /* (c) */
  const void *key;          /* (c) */
  void *_Atomic value;      /* (a) */
};

struct coir_scope {
  struct coir__waitq watchers;           /* who waits for its cancellation. Its lock guards all that says (l) */
  struct coir__waitlist closer;          /* (l) the opener while it waits in coir_scope_close */
  _Atomic(struct coir__waiter *) opener; /* (a) written under lock; NULL: an orphan's */
  struct coir_scope *parent;             /* (c) what was the opener's innermost scope; or NULL */
  struct coir_scope *subs;               /* (l) opened inside it, latest first */
  struct coir_scope *next, *prev;        /* (l) of the parent: its subs */
  struct coir_fiber *fibers;             /* (l) spawned into it, latest first */
  struct scope_cursor *cursors;          /* (l) in fibers */
  uint64_t live;                         /* (l) fibers of which something is left */
  _Atomic(uint32_t) pins;                /* (a) see I3; lowered under the lock */
  uint32_t flags;                        /* (c) COIR_SCOPE_* */
  uint32_t depth;                        /* (c) how many scopes the opener has open, with this one */
  _Atomic(int) reason;                   /* (a) written under lock; 0: not cancelled */
  int failure;                           /* (l) the first that cancelled nothing */
  bool is_from_outside;                  /* (l) cancelled together with its opener */
  bool is_told;                          /* (l) a cancellation has begun to tell its fibers */
  bool is_closing;                       /* (l) the opener is in coir_scope_close */
  bool is_arming;                        /* (l) somebody sees to the alarm */
  bool is_orphan, is_dying;              /* (l) */
  uint64_t born;                         /* (c) cancellations that had been counted when it was opened */
  _Atomic(int64_t) deadline;             /* (a) written under lock */
  struct coir__worker *worker;           /* (c) keeps the alarm; NULL: the keeper does */
  struct coir__alarm alarm;
  struct scope_value *_Atomic values; /* (a) only ever prepended, under lock */
};

static _Atomic(uint64_t) scope_cancels; /* (a) cancellations so far */

static inline void scope_lock(struct coir__worker *w, struct coir_scope *s) { coir__bias_lock(w, &s->watchers.lock); }
static inline void scope_unlock(struct coir__worker *w, struct coir_scope *s) {
  coir__bias_unlock(w, &s->watchers.lock);
}

/* Acquire: what whoever cancelled it did before. Pairs with the release in scope_turn. */
static inline int scope_reason(const struct coir_scope *s) { return atm_load_acq(&s->reason); }

/* ---- Leaving: who is the last, and what becomes of an orphan --------------------------------------------------- */

/* The lock is held. Relaxed: a pin that is raised meanwhile is found by scope_unlink. */
static inline bool scope_is_empty(struct coir_scope *s) { return !s->live && !s->subs && !atm_load_rlx(&s->pins); }

/* Takes it out of its parent's list (which gets a pin, if wanted). False: it has been pinned since it was empty. */
static bool scope_unlink(struct coir__worker *w, struct coir_scope *s, bool pins_parent) {
  struct coir_scope *p = s->parent;
  if (!p) return true;
  scope_lock(w, p);
  bool is_free = !atm_load_rlx(&s->pins); /* I3: nobody raises it now */
  if (is_free) {
    if (s->prev) s->prev->next = s->next;
    else p->subs = s->next;
    if (s->next) s->next->prev = s->prev;
    if (pins_parent) atm_add_rlx(&p->pins, 1);
  }
  scope_unlock(w, p);
  if (!is_free) return false;
  scope_lock(w, s); /* whoever lowered the pins is about to give the lock back */
  scope_unlock(w, s);
  return true;
}

static void scope_free(struct coir_scope *s) {
  for (struct scope_value *next, *v = atm_load_rlx(&s->values); v; v = next) {
    next = v->next;
    coir__free(NULL, v, sizeof *v);
  }
  coir__free(NULL, s, sizeof *s);
}

/* Frees an orphan that is empty. Returns its parent, with a pin for the caller to give up; or NULL. */
static struct coir_scope *scope_bury(struct coir__worker *w, struct coir_scope *s) {
  while (!scope_unlink(w, s, true)) {
    scope_lock(w, s);
    bool is_pinned = atm_load_rlx(&s->pins) != 0;
    if (is_pinned) s->is_dying = false; /* who lowers it sees to the rest */
    scope_unlock(w, s);
    if (is_pinned) return NULL;
  }
  struct coir_scope *p = s->parent;
  scope_free(s);
  return p;
}

/* Something inside is gone. The lock is held, and given back: the scope may be gone, too, afterwards. */
static void scope_left(struct coir__worker *w, struct coir_scope *s) {
  for (;;) {
    bool is_empty = scope_is_empty(s), dies = is_empty && s->is_orphan && !s->is_dying;
    struct coir__clause *closer = is_empty ? coir__waitlist_take(&s->closer) : NULL;
    if (dies) s->is_dying = true;
    scope_unlock(w, s);
    if (closer) coir__wake_on(w, closer->waiter);
    if (!dies || !(s = scope_bury(w, s))) return;
    scope_lock(w, s);
    atm_sub_rlx(&s->pins, 1);
  }
}

static void scope_unpin(struct coir__worker *w, struct coir_scope *s) {
  scope_lock(w, s);
  atm_sub_rlx(&s->pins, 1);
  scope_left(w, s);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------------ */

/* Makes it a cancelled one. The lock is held; returns whom to wake when it has been given back. */
static struct coir__clause *scope_turn(struct coir_scope *s, int reason, bool is_from_outside) {
  s->is_from_outside = is_from_outside;
  atm_store_rel(&s->reason, reason); /* pairs with the acquire in scope_reason */
  struct coir__clause *watchers = coir__waitlist_take_all(&s->watchers.list);
  struct coir__clause *closer = coir__waitlist_take(&s->closer); /* goes on waiting, shielded */
  if (!closer) return watchers;
  closer->next = watchers;
  return closer;
}

/* The next scope inside `root` that was there when the cancellation `number` was counted; NULL: that was the last. The
 * first time each is pinned when it is entered, the second time that is given up when it is left. */
static struct coir_scope *scope_next(struct coir__worker *w, const struct coir_scope *root, struct coir_scope *s,
                                     uint64_t number, bool is_first_time) {
  scope_lock(w, s);
  struct coir_scope *to = s->subs;
  while (to && to->born >= number) to = to->next;
  if (to && is_first_time) atm_add_rlx(&to->pins, 1);
  scope_unlock(w, s);
  while (!to && s != root) {
    struct coir_scope *from = s;
    s = s->parent;
    scope_lock(w, s);
    to = from->next; /* older, so it was there as well */
    if (to && is_first_time) atm_add_rlx(&to->pins, 1);
    scope_unlock(w, s);
    if (!is_first_time) scope_unpin(w, from);
  }
  return to;
}

/* Delivers what was asked of those in `told`; keeps, and counts, those that are to be woken. */
static uint32_t scope_claim(const struct coir_scope *s, struct coir__waiter **told, uint32_t count) {
  const struct coir__waiter *opener = atm_load_rlx(&s->opener);
  uint32_t running = 0, claimed = 0;
  for (uint32_t i = 0; i < count; i++) running += !coir__waiter_is_parked(told[i]);
  bool (*claim)(struct coir__waiter *, uint32_t) = coir__cancel_claim_alone;
  if (running > 1) {
    coir__fence_heavy();
    claim = coir__cancel_claim;
  }
  for (uint32_t i = 0; i < count; i++)
    if (claim(told[i], told[i] == opener ? COIR__CANCEL_BODY(s->depth) : COIR__CANCEL_ONCE)) told[claimed++] = told[i];
  return claimed;
}

/* Tells the scope's own fibers; and its opener, if the scope is what was cancelled. */
static void scope_tell(struct coir__worker *w, struct coir_scope *s, bool is_root) {
  struct coir__waiter *told[SCOPE_BATCH];
  uint32_t count = 0;
  scope_lock(w, s);
  struct scope_cursor cursor = {.next = s->cursors, .at = s->fibers}, **link = &s->cursors;
  s->cursors = &cursor;
  s->is_told = true;
  struct coir__waiter *opener = atm_load_rlx(&s->opener);
  if (is_root && opener && !s->is_closing) {
    coir__cancel_ask(opener, COIR__CANCEL_BODY(s->depth));
    told[count++] = opener;
  }
  for (;;) {
    for (struct coir_fiber *f; count < SCOPE_BATCH && (f = cursor.at) != NULL; cursor.at = f->sibling_next) {
      coir__cancel_ask(&f->waiter, COIR__CANCEL_ONCE);
      told[count++] = &f->waiter;
    }
    count = scope_claim(s, told, count);
    bool is_done = !cursor.at;
    if (is_done) {
      while (*link != &cursor) link = &(*link)->next;
      *link = cursor.next;
    }
    scope_unlock(w, s);
    while (count > 0) coir__wake_on(w, told[--count]);
    if (is_done) return;
    scope_lock(w, s);
  }
}

/* Cancels it and everything inside, unless that has happened. The lock is held, and given back. */
static void scope_cancel(struct coir__worker *w, struct coir_scope *root, int reason, bool is_from_outside) {
  if (scope_reason(root)) {
    scope_unlock(w, root);
    return;
  }
  /* Counted before anybody can know of it. Relaxed: who opens a scope later has been told, or has the lock after us. */
  uint64_t number = atm_add_rlx(&scope_cancels, 1) + 1;
  struct coir__clause *woken = scope_turn(root, reason, is_from_outside);
  atm_add_rlx(&root->pins, 1);
  scope_unlock(w, root);
  coir__wake_all(w, woken);
  struct coir_scope *s = root;
  while ((s = scope_next(w, root, s, number, true)) != NULL) {
    scope_lock(w, s);
    woken = scope_reason(s) ? NULL : scope_turn(s, -ECANCELED, true);
    scope_unlock(w, s);
    coir__wake_all(w, woken);
  }
  s = root;
  do scope_tell(w, s, s == root);
  while ((s = scope_next(w, root, s, number, false)) != NULL);
  scope_unpin(w, root);
}

void coir_scope_cancel(struct coir_scope *scope, int reason) {
  COIR_INSIDE_ON(w);
  if (!scope || scope_reason(scope)) return;
  scope_lock(w, scope);
  scope_cancel(w, scope, reason < 0 ? reason : -ECANCELED, false);
}

struct coir__waitq *coir__scope_canceled_queue(struct coir_scope *scope) {
  return &scope->watchers;
}
bool coir__scope_is_canceled_locked(const struct coir_scope *scope) { return scope_reason(scope) != 0; }

/* ---- Deadlines ------------------------------------------------------------------------------------------------- */

static int64_t scope_deadline_came(struct coir__alarm *alarm, struct coir__worker *w, int64_t now) {
  struct coir_scope *s = (struct coir_scope *)((char *)alarm - offsetof(struct coir_scope, alarm));
  (void)now;
  scope_lock(w, s);
  scope_cancel(w, s, -ETIMEDOUT, false);
  return COIR_NEVER;
}

/* By the one who has set is_arming. */
static void scope_arm(struct coir_scope *s, int64_t deadline) {
  s->alarm.run = scope_deadline_came;
  if (s->worker) coir__alarm_arm(s->worker, &s->alarm, deadline);
  else coir__keeper_arm(&s->alarm, deadline);
}

void coir_scope_shorten(struct coir_scope *scope, int64_t deadline) {
  COIR_INSIDE_ON(w);
  if (!scope || deadline >= atm_load_rlx(&scope->deadline)) return;
  bool has_passed = deadline <= coir__os_now();
  bool is_lost = !scope->worker && coir__keeper_start() != 0; /* nobody can keep it: better now than never */
  scope_lock(w, scope);
  bool is_sooner = deadline < atm_load_rlx(&scope->deadline);
  if (is_sooner) atm_store_rlx(&scope->deadline, deadline);
  if (has_passed || is_lost) {
    scope_cancel(w, scope, has_passed ? -ETIMEDOUT : -ENOMEM, false);
    return;
  }
  bool goes_on = is_sooner && !scope_reason(scope) && !scope->is_arming && !scope->is_orphan;
  if (goes_on) {
    scope->is_arming = true;
    atm_add_rlx(&scope->pins, 1);
  }
  scope_unlock(w, scope);
  if (!goes_on) return; /* whoever is arming it will find that there is a sooner one */
  do {
    coir__alarm_cancel(&scope->alarm);
    deadline = atm_load_rlx(&scope->deadline);
    scope_arm(scope, deadline);
    scope_lock(w, scope);
    goes_on = deadline != atm_load_rlx(&scope->deadline);
    if (!goes_on) scope->is_arming = false; /* an orphan's alarm is taken back by who waits for this */
    scope_unlock(w, scope);
  } while (goes_on);
  scope_unpin(w, scope);
}

int64_t coir_scope_deadline(const struct coir_scope *scope) {
  COIR_INSIDE;
  int64_t soonest = COIR_NEVER;
  if (!scope) scope = coir_scope_current();
  for (; scope; scope = scope->parent) {
    int64_t deadline = atm_load_rlx(&scope->deadline);
    if (deadline < soonest) soonest = deadline;
  }
  return soonest;
}

/* ---- Opening and closing --------------------------------------------------------------------------------------- */

/* Where somebody keeps its innermost scope. A fiber has had, or is about to have, one. */
static struct coir_scope **scope_place(struct coir__waiter *self) {
  return self->is_thread ? &coir__waiter_thread(self)->scope : &coir__waiter_fiber(self)->scope;
}

struct coir_scope *coir_scope_current(void) {
  COIR_INSIDE;
  const struct coir_fiber *f = coir__me();
  if (f) return coir__has_kin(f) ? f->scope : NULL;
  struct coir__thread *t = coir__thread_peek();
  return t ? t->scope : NULL;
}

/* Links it into its parent's list. */
static void scope_link(struct coir__worker *w, struct coir_scope *s) {
  struct coir_scope *p = s->parent;
  if (!p) return;
  scope_lock(w, p);
  s->born = atm_load_rlx(&scope_cancels);
  s->next = p->subs;
  if (s->next) s->next->prev = s;
  p->subs = s;
  scope_unlock(w, p);
}

int coir_scope_open(struct coir_scope **out, unsigned flags, int64_t deadline) {
  COIR_INSIDE;
  if (!out) return -EINVAL;
  *out = NULL;
  if (flags & ~COIR_SCOPE_KEEP_GOING) return -EINVAL;
  struct coir__worker *w = coir__self();
  struct coir__waiter *self = coir__waiter_self();
  if (!self || (!w && deadline != COIR_NEVER && coir__keeper_start() != 0)) return -ENOMEM;
  struct coir_fiber *f = coir__me();
  if (f) coir__fiber_kin(f);
  struct coir_scope **place = scope_place(self), *parent = *place;
  uint32_t depth = parent && atm_load_rlx(&parent->opener) == self ? parent->depth + 1 : 1;
  struct coir_scope *s = depth <= COIR__CANCEL_DEPTH_MAX ? coir__alloc(NULL, sizeof *s) : NULL;
  if (!s) return -ENOMEM;
  atm_store_rlx(&s->opener, self);
  s->parent = parent;
  s->depth = depth;
  s->flags = flags;
  s->worker = w;
  atm_store_rlx(&s->deadline, COIR_NEVER);
  scope_link(coir__carried(), s);
  if (f && !f->on_end) f->on_end = coir__scope_opener_ended;
  *out = *place = s;
  coir_scope_shorten(s, deadline);
  return 0;
}

/* The opener was cancelled while it waited; that is still pending. Where something else came first, it is for the
 * opener's next wait. */
static void scope_opener_canceled(struct coir__worker *w, struct coir_scope *s) {
  scope_lock(w, s);
  if (!scope_reason(s) || s->is_from_outside) {
    coir__cancel_take_once(atm_load_rlx(&s->opener));
    scope_cancel(w, s, -ECANCELED, true);
    return;
  }
  scope_unlock(w, s);
}

/* Waits until it is empty. */
static void scope_wait(struct coir_scope *s) {
  uint64_t object = (uint64_t)(uintptr_t)s;
  for (;;) {
    struct coir__worker *w = coir__carried();
    struct coir__wait wait;
    struct coir__clause clause;
    scope_lock(w, s);
    s->is_closing = true;
    if (scope_is_empty(s)) break;
    enum coir__code code = scope_reason(s) ? COIR__CODE_SHIELDED : COIR__CODE_OPEN;
    coir__wait_begin_as(coir__self(), &wait, COIR__REASON_SCOPE, object, code);
    coir__wait_add_to(&wait, &clause, &s->closer, &s->watchers.lock);
    scope_unlock(w, s);
    coir__cancel_keep(true);
    uint32_t ended = coir__wait(&wait);
    coir__cancel_keep(false);
    if (ended == COIR__CODE_CANCELED) scope_opener_canceled(coir__carried(), s);
  }
  scope_unlock(coir__carried(), s);
}

int coir_scope_close(struct coir_scope *scope) {
  COIR_INSIDE_TO_WAIT(COIR_NEVER);
  struct coir__waiter *self = coir__waiter_self();
  if (!scope || coir_scope_current() != scope || atm_load_rlx(&scope->opener) != self)
    coir__fatal("coir_scope_close: the scope is not the caller's innermost one");
  do {
    scope_wait(scope);
    coir__alarm_cancel(&scope->alarm);
  } while (!scope_unlink(coir__carried(), scope, false));
  coir__cancel_body_over(self, scope->depth);
  if (scope->is_from_outside) coir__cancel_take(self);
  int reason = scope_reason(scope), rc = reason ? reason : scope->failure;
  *scope_place(self) = scope->parent;
  scope_free(scope);
  return rc;
}

int coir_scope_reason(const struct coir_scope *scope) {
  COIR_INSIDE;
  if (!scope) scope = coir_scope_current();
  return scope ? scope_reason(scope) : 0;
}

/* ---- Fibers ---------------------------------------------------------------------------------------------------- */

/* The first part of a fiber's end: see the head. By the fiber, or by who drops it. */
static void scope_fiber_ends(struct coir_fiber *f) {
  struct coir_scope *s = f->kin;
  struct coir__worker *w = coir__carried();
  coir__scope_opener_ended(f);
  scope_lock(w, s);
  struct coir_fiber *next = f->sibling_next, *prev = f->sibling_prev;
  for (struct scope_cursor *c = s->cursors; c; c = c->next)
    if (c->at == f) c->at = next;
  if (prev) prev->sibling_next = next;
  else s->fibers = next;
  if (next) next->sibling_prev = prev;
  bool has_failed = f->status < 0 && !scope_reason(s);
  if (has_failed && !(s->flags & COIR_SCOPE_KEEP_GOING)) {
    scope_cancel(w, s, f->status, false);
    return;
  }
  if (has_failed && !s->failure) s->failure = f->status;
  scope_unlock(w, s);
}

/* The second part. */
static void scope_fiber_gone(void *scope) {
  struct coir_scope *s = scope;
  struct coir__worker *w = coir__carried();
  scope_lock(w, s);
  s->live--;
  scope_left(w, s);
}

int coir__scope_spawn(struct coir_runtime *rt, struct coir__worker *w, struct coir_scope *scope, coir_fn fn, void *arg,
                      const struct coir_attr *attr, struct coir_fiber **out) {
  if (scope_reason(scope)) return -ECANCELED;
  struct coir__worker *carried = coir__carried();
  struct coir_fiber *f;
  int rc = coir__fiber_prepare(rt, w, fn, arg, attr, &f, !out || (attr && attr->detached));
  if (rc) return rc;
  coir__fiber_kin(f);
  f->on_end = scope_fiber_ends;
  f->on_ended = scope_fiber_gone;
  f->kin = f->scope = scope;
  f->sibling_prev = NULL;
  scope_lock(carried, scope);
  f->sibling_next = scope->fibers;
  if (f->sibling_next) f->sibling_next->sibling_prev = f;
  scope->fibers = f;
  scope->live++;
  if (COIR_UNLIKELY(scope->is_told)) coir__cancel_ask(&f->waiter, COIR__CANCEL_ONCE); /* just now: see I2 */
  scope_unlock(carried, scope);
  if (out) *out = f;
  coir__fiber_publish(w, f, attr);
  return 0;
}

int coir_scope_spawn(struct coir_scope *scope, coir_fn fn, void *arg, const struct coir_attr *attr,
                     struct coir_fiber **out) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  if (out) *out = NULL;
  if (!scope) scope = coir_scope_current();
  return scope ? coir__scope_spawn(coir__caller_runtime(w), w, scope, fn, arg, attr, out) : -EINVAL;
}

/* Its opener is no more; it has been taken off the opener's list. */
static void scope_orphan(struct coir__worker *w, struct coir_scope *s) {
  scope_lock(w, s);
  atm_store_rlx(&s->opener, NULL);
  s->is_orphan = true;
  atm_add_rlx(&s->pins, 1);
  while (s->is_arming) { /* with a worker, it may be, that goes when we return */
    scope_unlock(w, s);
    coir__os_thread_yield();
    scope_lock(w, s);
  }
  scope_unlock(w, s);
  coir__alarm_cancel(&s->alarm);
  scope_lock(w, s);
  scope_cancel(w, s, -ECANCELED, true);
  scope_unpin(w, s);
}

void coir__scope_opener_ended(struct coir_fiber *f) {
  for (struct coir_scope *s; (s = f->scope) != NULL && atm_load_rlx(&s->opener) == &f->waiter;) {
    if (coir_current() == f) coir__fatal("a fiber ends with a scope open");
    f->scope = s->parent;
    scope_orphan(coir__carried(), s);
  }
}

/* ---- Values ---------------------------------------------------------------------------------------------------- */

static struct scope_value *scope_find(const struct coir_scope *s, const void *key) {
  /* Acquire: what the value says. Pairs with the release in scope_add. */
  struct scope_value *v = atm_load_acq(&s->values);
  while (v && v->key != key) v = v->next;
  return v;
}

/* Sets a value, by making `fresh` a part of the scope if there is none under the key. Returns whether it was. */
static bool scope_add(struct coir_scope *s, struct scope_value *fresh, const void *key, void *value) {
  struct coir__worker *w = coir__carried();
  scope_lock(w, s);
  struct scope_value *v = scope_find(s, key);
  if (v) {
    atm_store_rel(&v->value, value); /* pairs with the acquire in coir_scope_get */
  } else if (fresh) {
    fresh->next = atm_load_rlx(&s->values);
    atm_store_rel(&s->values, fresh); /* pairs with the acquire in scope_find */
  }
  scope_unlock(w, s);
  return !v && fresh;
}

int coir_scope_set(struct coir_scope *scope, const void *key, void *value) {
  COIR_INSIDE;
  if (!scope || !key) return -EINVAL;
  struct scope_value *fresh = NULL;
  if (!scope_find(scope, key)) { /* it stays if it is there */
    fresh = coir__alloc(NULL, sizeof *fresh);
    if (!fresh) return -ENOMEM;
    fresh->key = key;
    atm_store_rlx(&fresh->value, value);
  }
  if (!scope_add(scope, fresh, key, value)) coir__free(NULL, fresh, sizeof *fresh);
  return 0;
}

void *coir_scope_get(const void *key) {
  COIR_INSIDE;
  for (const struct coir_scope *s = coir_scope_current(); s; s = s->parent) {
    struct scope_value *v = scope_find(s, key);
    if (v) return atm_load_acq(&v->value); /* pairs with the release in scope_add */
  }
  return NULL;
}
