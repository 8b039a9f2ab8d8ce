/* Contexts.
 *
 * Below the background, which is never cancelled, there are many trees; each has one lock, that of its root, under
 * which contexts join it, leave it, and are cancelled with all that is below. A child holds a reference to its parent,
 * so parents and root outlive it. The list of children holds no references: a context leaves it at its end.
 *
 * A cancelled context takes no children: what is made below it is cancelled from the start, and not in its list. So
 * below a cancelled context everything is cancelled, and need not be looked at again.
 *
 * Lock order: the clock (clock.c), when a deadline comes; then a tree; then a channel. So alarms are set and unset with
 * no tree locked. An alarm holds no reference either: it is unset before its context is freed.
 *
 * Calls of Coir that do not wait leave the thread to no other fiber, so they may be made with a tree locked. But in a
 * simulated runtime every call may let others run, and the first of them that wanted the same lock would block the
 * thread for ever. There whoever has locked a tree holds its worker. */
#include "context.h"

#include <stdio.h>

#include "internal.h"

struct context {
  GoContext base;         /* first */
  _Atomic(size_t) refs;   /* (a) atomic */
  _Atomic(int) reason;    /* (a) written under the tree's lock: 0, or ECANCELED or ETIMEDOUT */
  struct context *parent; /* (c) constant; a reference; NULL: the background */
  struct context *root;   /* (c) of the tree */
  int64_t deadline;       /* (c) the soonest of its own and those above it */
  struct go__alarm alarm; /* for its own */
  pthread_mutex_t lock;   /* the root's: guards the tree; never held across a wait */
  struct context *child;  /* (l) the first; NULL */
  struct context *next;   /* (l) its sibling */
  struct context **link;  /* (l) what points to it in its parent's list; NULL: it is not there */
};

static struct context background = {.deadline = COIR_NEVER};

static void background_make(void) {
  background.base.done = go_channel_create(0);
  if (background.base.done) return;
  fprintf(stderr, "go_context_background: no memory\n");
  abort();
}

GoContext *go_context_background(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, background_make);
  return &background.base;
}

static void tree_lock(struct context *root) {
  if (coir_sim_seed()) coir_hold_begin();
  pthread_mutex_lock(&root->lock);
}

static void tree_unlock(struct context *root) {
  pthread_mutex_unlock(&root->lock);
  if (coir_sim_seed()) coir_hold_end();
}

/* ---- Cancelling ------------------------------------------------------------------------------------------------ */

/* The tree's lock is held. Returns whether it was not cancelled before. */
static bool end_one(struct context *c, int reason) {
  if (atomic_load_explicit(&c->reason, memory_order_relaxed)) return false; /* the lock orders it */
  /* Release: pairs with the acquire in go__context_reason. */
  atomic_store_explicit(&c->reason, reason, memory_order_release);
  go_channel_close(c->base.done);
  return true;
}

/* In the order of the tree, from parents to children, without recursion: trees may be deep. */
static void cancel(struct context *c, int reason) {
  tree_lock(c->root);
  for (struct context *at = c; at;) {
    if (end_one(at, reason) && at->child) {
      at = at->child;
      continue;
    }
    while (at != c && !at->next) at = at->parent;
    at = at == c ? NULL : at->next;
  }
  tree_unlock(c->root);
}

static void cancel_by_user(void *context) {
  if (!context || context == &background) return;
  go_context_ref(context); /* who is let go may free it */
  cancel(context, ECANCELED);
  go_context_unref(context);
}

static void cancel_by_deadline(struct go__alarm *alarm) {
  cancel((struct context *)((char *)alarm - offsetof(struct context, alarm)), ETIMEDOUT);
}

/* ---- Making and freeing ---------------------------------------------------------------------------------------- */

/* Puts a new one into its parent's tree; when that is cancelled, so is the new one. */
static void join(struct context *c, struct context *parent) {
  c->parent = parent;
  c->root = parent->root;
  go_context_ref(&parent->base);
  tree_lock(c->root);
  int reason = atomic_load_explicit(&parent->reason, memory_order_relaxed); /* the lock orders it */
  if (reason) {
    end_one(c, reason);
  } else {
    c->next = parent->child;
    if (c->next) c->next->link = &c->next;
    c->link = &parent->child;
    parent->child = c;
  }
  tree_unlock(c->root);
}

static void leave(struct context *c) {
  tree_lock(c->root);
  if (c->link) *c->link = c->next;
  if (c->next) c->next->link = c->link;
  tree_unlock(c->root);
}

static struct context *context_make(GoContext *parent) {
  struct context *c = calloc(1, sizeof *c);
  if (c) c->base.done = go_channel_create(0);
  if (!c || !c->base.done) {
    free(c);
    errno = ENOMEM;
    return NULL;
  }
  atomic_init(&c->refs, 1);
  pthread_mutex_init(&c->lock, NULL);
  c->root = c;
  c->deadline = COIR_NEVER;
  if (!parent || parent == &background.base) return c;
  c->deadline = ((struct context *)parent)->deadline;
  join(c, (struct context *)parent);
  return c;
}

GoContext *go_context_ref(GoContext *context) {
  struct context *c = (struct context *)context;
  if (c && c != &background) atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed); /* the caller has one */
  return context;
}

void go_context_unref(GoContext *context) {
  struct context *c = (struct context *)context;
  /* Acquire and release: all uses come before the end. */
  while (c && c != &background && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1) {
    struct context *parent = c->parent;
    if (parent) leave(c);
    if (c->alarm.fire) go__alarm_unset(&c->alarm);
    go_channel_unref(c->base.done);
    pthread_mutex_destroy(&c->lock);
    free(c);
    c = parent;
  }
}

void go_context_free(GoContext *context) { go_context_unref(context); }

CancelContextResult go_context_with_cancel(GoContext *parent) {
  struct context *c = context_make(parent);
  return (CancelContextResult){.context = c ? &c->base : NULL, .cancel = cancel_by_user};
}

/* ---- Deadlines ------------------------------------------------------------------------------------------------- */

#define FAR (COIR_NEVER / COIR_SEC(1) - 1) /* seconds */

/* The time on the clock (clock.c) at which CLOCK_REALTIME will be `t`. */
static int64_t monotonic(struct timespec t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t.tv_sec > now.tv_sec + FAR) return COIR_NEVER;
  if (t.tv_sec < now.tv_sec) return 0;
  return go__clock_after(COIR_SEC(t.tv_sec - now.tv_sec) + t.tv_nsec - now.tv_nsec);
}

GoContext *go_with_deadline(GoContext *parent, struct timespec deadline) {
  if (deadline.tv_nsec < 0 || deadline.tv_nsec > 999999999) {
    errno = EINVAL;
    return NULL;
  }
  struct context *c = context_make(parent);
  int64_t due = monotonic(deadline);
  if (!c || due >= c->deadline) return c ? &c->base : NULL; /* an alarm above it comes first, or none is needed */
  c->deadline = due;
  c->alarm = (struct go__alarm){.fire = cancel_by_deadline, .due = due};
  if (due <= go__clock_now()) {
    cancel(c, ETIMEDOUT);
    return &c->base;
  }
  int rc = go__alarm_set(&c->alarm);
  if (rc == 0) return &c->base;
  go_context_unref(&c->base);
  errno = -rc;
  return NULL;
}

/* ---- What can be asked ----------------------------------------------------------------------------------------- */

int go__context_reason(const GoContext *context) {
  /* Acquire: pairs with the release in end_one; what the canceller did before is visible. */
  return atomic_load_explicit(&((const struct context *)context)->reason, memory_order_acquire);
}

int go_context_is_canceled(const void *context) { return !context || go__context_reason(context) != 0; }

int go_context_wait(GoContext *context) {
  if (!context) return 0;
  go_context_ref(context);
  int rc = coir_chan_recv(context->done->chan, NULL, COIR_NEVER);
  go_context_unref(context);
  return rc == -EPIPE ? 0 : go__fail(-rc);
}

GoChannel *go_context_done(const GoContext *context) { return context ? context->done : NULL; }

Error *go_context_err(const GoContext *context) {
  int reason = context ? go__context_reason(context) : 0;
  if (!reason) return NULL;
  return new_error(reason, "%s", reason == ETIMEDOUT ? "context deadline exceeded" : "context canceled");
}
