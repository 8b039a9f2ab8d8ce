/* Contexts.
 *
 * Below the background, which is never cancelled, there are many trees; each has one lock, that of its root, under
 * which contexts join it, leave it, and are cancelled with all that is below. A child is a user of its parent, so
 * parents and root outlive it. The list of children does not count: a context leaves it at its end.
 *
 * A cancelled context takes no children: what is made below it is cancelled from the start, and not in its list. So
 * below a cancelled context everything is cancelled, and need not be looked at again.
 *
 * A deadline is a timer that runs csp__context_expire on a fiber. It counts for all that is below, so it is only called
 * off when the context is cancelled or the last user has gone: the handle may be freed before the children. Hence two
 * counts. The fiber holds a reference from the timer's start on, and is no user; whoever stops the timer before it
 * fires gives that reference up instead. */
#include "context.h"

#include <stdlib.h>

#include "csp_internal.h"

struct csp_context {
  struct coir_chan *done;     /* (c) constant */
  _Atomic(size_t) users;      /* (a) atomic: the handle, and the children */
  _Atomic(size_t) refs;       /* (a) what keeps it in memory: its users as one, its timer, who cancels it just now */
  _Atomic(int) reason;        /* (a) written under the tree's lock: 0, or ECANCELED or ETIMEDOUT */
  struct csp_context *parent; /* (c) whose user it is; NULL: the background */
  struct csp_context *root;   /* (c) of the tree */
  int64_t deadline;           /* (c) the soonest of its own and those above it */
  struct coir_timer *timer;   /* (c) for its own, if that is the soonest; NULL */
  struct coir_mutex lock;     /* the root's: guards the tree */
  struct csp_context *child;  /* (l) the first; NULL */
  struct csp_context *next;   /* (l) its sibling */
  struct csp_context **link;  /* (l) what points to it in its parent's list; NULL: it is not there */
};

_Atomic(bool) csp__has_deadlines;

static struct csp_context background = {.deadline = COIR_NEVER};

csp_context_t *csp_context_background(void) {
  struct coir_chan *none = NULL;
  if (__atomic_load_n(&background.done, __ATOMIC_ACQUIRE)) return &background; /* pairs with the exchange below */
  struct coir_chan *done = coir_chan_create(sizeof(void *), 0);
  if (!done) {
    csp__fail(-ENOMEM);
    return NULL;
  }
  if (!__atomic_compare_exchange_n(&background.done, &none, done, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    coir_chan_unref(done); /* another was faster */
  return &background;
}

/* What asks a fiber to stop does not stop these calls. */
static void tree_lock(struct csp_context *root) {
  coir_shield_begin();
  int rc = coir_mutex_lock(&root->lock, COIR_NEVER);
  (void)rc; /* neither cancelled nor too late, and nobody locks it twice */
}

static void tree_unlock(struct csp_context *root) {
  coir_mutex_unlock(&root->lock);
  coir_shield_end();
}

/* ---- Cancelling ------------------------------------------------------------------------------------------------ */

/* The tree's lock is held. Returns whether it was not cancelled before. */
static bool end_one(struct csp_context *c, int reason) {
  if (atomic_load_explicit(&c->reason, memory_order_relaxed)) return false; /* the lock orders it */
  /* Release: pairs with the acquire in csp_context_err. */
  atomic_store_explicit(&c->reason, reason, memory_order_release);
  coir_chan_close(c->done);
  return true;
}

/* The tree's lock is held. */
static void leave(struct csp_context *c) {
  if (!c->link) return;
  *c->link = c->next;
  if (c->next) c->next->link = c->link;
  c->link = NULL;
}

/* In the order of the tree, from parents to children, without recursion: trees may be deep. */
static void cancel(struct csp_context *c, int reason) {
  tree_lock(c->root);
  for (struct csp_context *at = c; at;) {
    if (end_one(at, reason) && at->child) {
      at = at->child;
      continue;
    }
    while (at != c && !at->next) at = at->parent;
    at = at == c ? NULL : at->next;
  }
  leave(c); /* nobody needs to come by again, though many may be made, cancelled and never freed below one that stays */
  tree_unlock(c->root);
}

/* ---- Making and freeing ---------------------------------------------------------------------------------------- */

/* Joins the parent's tree; or is cancelled as the parent is. */
static void join(struct csp_context *c) {
  struct csp_context *parent = c->parent;
  tree_lock(c->root);
  int reason = atomic_load_explicit(&parent->reason, memory_order_relaxed);
  if (reason) end_one(c, reason);
  else {
    c->next = parent->child;
    if (c->next) c->next->link = &c->next;
    c->link = &parent->child;
    parent->child = c;
  }
  tree_unlock(c->root);
}

/* Gives up a reference. When that was the last, returns the parent, for the caller to release; else NULL. */
static struct csp_context *put(struct csp_context *c) {
  /* Release and acquire: what others did with it is over before it is freed. */
  if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return NULL;
  struct csp_context *parent = c->parent;
  if (parent) {
    tree_lock(c->root);
    leave(c);
    tree_unlock(c->root);
  }
  coir_timer_destroy(c->timer);
  coir_chan_unref(c->done);
  free(c);
  return parent;
}

/* The caller has another reference. */
static void timer_stop(struct csp_context *c) {
  if (c->timer && coir_timer_stop(c->timer) == 1) put(c); /* that of what will not come */
}

/* Gives up a user, and those of parents that end with it; without recursion. NULL does nothing. */
static void release(struct csp_context *c) {
  /* Release and acquire: nobody goes on to use what the last user leaves. */
  while (c && atomic_fetch_sub_explicit(&c->users, 1, memory_order_acq_rel) == 1) {
    timer_stop(c);
    c = put(c);
  }
}

int csp__context_expire(void *context) {
  cancel(context, ETIMEDOUT);
  release(put(context));
  return 0;
}

/* Not inlined, so that errno is that of the thread that asks now. */
static __attribute__((noinline)) int timer_start(struct csp_context *c) {
  struct coir_runtime *rt = csp__runtime();
  if (!rt) return -errno;
  int rc = coir_runtime_timer_create(rt, &c->timer, csp__context_expire, c);
  if (rc) return rc;
  atomic_store_explicit(&csp__has_deadlines, true, memory_order_relaxed);
  atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
  coir_timer_start(c->timer, c->deadline, 0);
  return 0;
}

static struct csp_context *make(struct csp_context *parent, int64_t deadline) {
  struct csp_context *c = calloc(1, sizeof *c);
  if (c) c->done = coir_chan_create(sizeof(void *), 0);
  if (!c || !c->done) {
    free(c);
    return NULL;
  }
  if (parent == &background) parent = NULL;
  atomic_init(&c->users, 1);
  atomic_init(&c->refs, 1);
  c->parent = parent;
  c->root = parent ? parent->root : c;
  c->deadline = parent && parent->deadline < deadline ? parent->deadline : deadline;
  if (parent) {
    atomic_fetch_add_explicit(&parent->users, 1, memory_order_relaxed); /* the caller uses it: it is not about to go */
    join(c);
  }
  return c;
}

csp_context_t *csp_context_with_deadline(csp_context_t *parent, csp_timer_time_t when) {
  struct csp_context *c = make(parent, when);
  if (!c) {
    csp__fail(-ENOMEM);
    return NULL;
  }
  bool is_own = c->deadline < (c->parent ? c->parent->deadline : COIR_NEVER); /* else one above comes first */
  if (is_own && when <= coir_now()) cancel(c, ETIMEDOUT);
  else if (is_own && !csp_context_err(c)) {
    int rc = timer_start(c);
    if (rc) {
      release(c);
      csp__fail(rc);
      return NULL;
    }
  }
  return c;
}

csp_context_t *csp_context_with_timeout(csp_context_t *parent, csp_timer_duration_t ns) {
  return csp_context_with_deadline(parent, coir_after(ns));
}

csp_context_t *csp_context_with_cancel(csp_context_t *parent) { return csp_context_with_deadline(parent, COIR_NEVER); }

void csp_context_cancel(csp_context_t *ctx) {
  if (!ctx || ctx == &background) return;
  atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed); /* who is let go may free it */
  cancel(ctx, ECANCELED);
  timer_stop(ctx);
  release(put(ctx));
}

csp_gochan_t *csp_context_done(csp_context_t *ctx) { return ctx ? (csp_gochan_t *)ctx->done : NULL; }

/* Acquire: pairs with the release in end_one. */
int csp_context_err(csp_context_t *ctx) { return ctx ? atomic_load_explicit(&ctx->reason, memory_order_acquire) : 0; }

void csp_context_free(csp_context_t *ctx) {
  if (ctx != &background) release(ctx);
}
