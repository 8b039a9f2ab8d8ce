/* Select: one wait with many clauses.
 *
 * First a look at every arm: of those that are ready one is drawn and done at once. If none is, a clause for each arm
 * is linked into its object, under that object's lock alone, and the fiber waits. Whoever comes to any of the objects
 * claims the wait there, like any other; what the claim word says is the arm that was chosen.
 *
 * Between the look and the link an arm may have become ready. Then nobody will come for it, so the wait must not
 * begin: it is abandoned (which undoes the links, unless somebody has claimed it by then: that is as good), and the
 * look begins anew. So a select only ever takes from others while it does not offer itself to others, and two of them
 * can neither claim each other at once nor wait for each other's locks; and every round that is repeated is one in
 * which somebody else got on.
 *
 * The draw is made while looking: the kth arm that is found ready takes the place of the former choice with
 * probability 1/k, so in the end each has the same (reservoir sampling; Vitter, 1985). If the arm that was drawn is
 * not ready any more when it comes to doing it, the look begins anew. All that an arm needs is in the arm: nothing is
 * allocated, however many.
 *
 * Descriptors. An arm whose number was closed by close(2) under it is done with -EBADF, and never about the next file
 * under that number. So who comes back from a wait asks whether each descriptor that it has waited for is still the
 * same (poll.c; what is adopted costs nothing), and only then looks at the arms again, or links them.
 *
 * Rejected: locking all objects in the order of their addresses, as Go does (needs a sort, and holds up every channel
 * of a large select); claiming both parties (two words cannot be claimed at once). */
#include "poller.h"

#include "internal.h"

/* What struct coir_arm.reserved is. */
struct COIR__OVERLAY arm_state {
  union {
    struct coir__clause clause;
    struct coir__chan_clause chan;
    struct coir__fd_clause fd;
  };
  struct coir__fd *d; /* of an arm that waits for a descriptor: its record and life */
  uint64_t life;
  uint32_t generation; /* the record's when it was linked last */
  bool was_linked;     /* in this call */
};

_Static_assert(sizeof(struct arm_state) <= sizeof((struct coir_arm *)0)->reserved, "the state of an arm fits");

static inline struct arm_state *state_of_arm(struct coir_arm *arm) { return (struct arm_state *)arm->reserved; }

/* One select in progress. */
struct choice {
  struct coir_arm *arms;
  size_t count;
  int64_t deadline; /* of the call */
  int64_t limit;    /* the earliest of that and of the arms' */
  bool has_deadlines, has_fds;
};

/* ---- Objects that are ready or not, and have a queue ----------------------------------------------------------- */

static struct coir__waitq *queue_of(const struct coir_arm *arm) {
  switch (arm->kind) {
  case COIR_ARM_FIBER: return &((struct coir_fiber *)arm->object)->exit;
  case COIR_ARM_WAIT_GROUP: return coir__wait_group_queue(arm->object);
  case COIR_ARM_EVENT: return coir__event_queue(arm->object);
  default: return coir__scope_canceled_queue(arm->object);
  }
}

/* The queue's lock is held. */
static bool is_ready(const struct coir_arm *arm) {
  switch (arm->kind) {
  case COIR_ARM_FIBER: return atm_load_acq(&((struct coir_fiber *)arm->object)->ended) & COIR__ENDED;
  case COIR_ARM_WAIT_GROUP: return coir__wait_group_is_zero_locked(arm->object);
  case COIR_ARM_EVENT: return coir__event_is_set_locked(arm->object);
  default: return coir__scope_is_canceled_locked(arm->object);
  }
}

/* Links the arm unless it is ready. */
static bool link_object(struct coir__worker *w, struct coir_arm *arm, struct coir__wait *wait) {
  struct coir__waitq *q = queue_of(arm);
  coir__bias_lock(w, &q->lock);
  bool ready = is_ready(arm);
  if (!ready) coir__wait_add(wait, &state_of_arm(arm)->clause, q);
  coir__bias_unlock(w, &q->lock);
  return !ready;
}

static bool look_at_object(struct coir__worker *w, struct coir_arm *arm) {
  struct coir__waitq *q = queue_of(arm);
  coir__bias_lock(w, &q->lock);
  bool ready = is_ready(arm);
  coir__bias_unlock(w, &q->lock);
  return ready;
}

/* ---- Channels and descriptors ---------------------------------------------------------------------------------- */

static bool look_at_fd(struct coir_arm *arm) {
  struct arm_state *s = state_of_arm(arm);
  if (COIR_LIKELY(s->d != NULL)) arm->result = coir__fd_look(s->d, arm->fd, s->life, (uint32_t)arm->events);
  return arm->result != 0;
}

/* Links the arm, which is watched, unless it is ready, or the number stands for another file than when it was linked
 * before. */
static bool link_fd(struct coir__worker *w, struct coir_arm *arm, struct coir__wait *wait) {
  struct arm_state *s = state_of_arm(arm);
  if (coir__fd_hold(w, s->d, s->life, (uint32_t)arm->events, true) != COIR__FD_HELD) return false;
  if (COIR_UNLIKELY(s->was_linked) && !coir__fd_may_go_on(s->d, s->generation)) {
    coir__bias_unlock(w, &s->d->q.lock);
    return false;
  }
  s->was_linked = true;
  s->generation = s->d->generation;
  coir__fd_link(w, s->d, wait, &s->fd, (uint32_t)arm->events);
  return true;
}

/* The life of the descriptor that the whole call is about. May wait for a close to end. */
static void begin_fd(struct coir_arm *arm) {
  struct arm_state *s = state_of_arm(arm);
  s->was_linked = false;
  s->d = coir__fd_find(arm->fd, &arm->result);
  if (s->d) s->life = coir__fd_begin(s->d) & COIR__FD_LIFE;
}

/* What has been waited for may have been closed by close(2) meanwhile, and the number may stand for another file. */
static int fd_still_same(struct coir_arm *arm) {
  struct arm_state *s = state_of_arm(arm);
  return s->was_linked ? coir__fd_still_same(s->d, arm->fd, s->generation) : 0;
}

/* ---- The look -------------------------------------------------------------------------------------------------- */

static inline bool has_object(const struct coir_arm *arm) { return arm->object != NULL; }

/* Whether the arm is ready, or, for a channel, looks like it. */
static inline bool look_at(struct coir__worker *w, struct coir_arm *arm, int64_t now) {
  switch (arm->kind) {
  case COIR_ARM_NONE: return false;
  case COIR_ARM_SEND: return has_object(arm) && coir__chan_may_be_ready(arm->object, true);
  case COIR_ARM_RECV: return has_object(arm) && coir__chan_may_be_ready(arm->object, false);
  case COIR_ARM_FD: return look_at_fd(arm);
  case COIR_ARM_DEADLINE: return arm->deadline <= now;
  default: return has_object(arm) && look_at_object(w, arm);
  }
}

/* Does what a ready arm says. False: it is not ready after all. */
static bool take_arm(struct coir__worker *w, struct coir_arm *arm) {
  switch (arm->kind) {
  case COIR_ARM_SEND: arm->result = coir__chan_try_send(w, arm->object, arm->value); break;
  case COIR_ARM_RECV: arm->result = coir__chan_try_recv(w, arm->object, arm->value); break;
  case COIR_ARM_FD: break; /* the look has set it */
  default: arm->result = 0;
  }
  return arm->result != -EAGAIN;
}

/* Uniform in 0..n-1, but for a part in 2^32: Lemire's multiplication (2019) without the rejection. */
static inline uint32_t below(uint32_t *rng, uint32_t n) {
  uint32_t x = *rng;
  x ^= x << 13, x ^= x >> 17, x ^= x << 5; /* xorshift32 (Marsaglia, 2003) */
  *rng = x;
  return (uint32_t)((uint64_t)x * n >> 32);
}

/* Draws one of the arms that are ready, and does it. Returns it; -1: none is. */
static inline int look_at_all(struct choice *ch, struct coir__worker *w, uint32_t *rng) {
  int64_t now = ch->has_deadlines ? coir__os_now() : 0;
  for (;;) {
    uint32_t found = 0;
    int drawn = -1;
    for (size_t i = 0; i < ch->count; i++)
      if (look_at(w, &ch->arms[i], now) && (++found == 1 || below(rng, found) == 0)) drawn = (int)i;
    if (drawn < 0 || take_arm(w, &ch->arms[drawn])) return drawn;
  }
}

/* ---- The wait -------------------------------------------------------------------------------------------------- */

static bool link_arm(struct coir__worker *w, struct coir_arm *arm, struct coir__wait *wait) {
  switch (arm->kind) {
  case COIR_ARM_NONE:
  case COIR_ARM_DEADLINE: return true;
  case COIR_ARM_SEND:
  case COIR_ARM_RECV:
    if (!has_object(arm)) return true;
    state_of_arm(arm)->chan.slot = arm->value;
    return coir__chan_link(w, arm->object, wait, &state_of_arm(arm)->chan, arm->kind == COIR_ARM_SEND);
  case COIR_ARM_FD: return link_fd(w, arm, wait);
  default: return !has_object(arm) || link_object(w, arm, wait);
  }
}

/* Has the descriptors watched. Returns an arm for which that is impossible, or -1. */
static int watch_fds(struct choice *ch) {
  for (size_t i = 0; i < ch->count; i++) {
    struct coir_arm *arm = &ch->arms[i];
    if (arm->kind != COIR_ARM_FD) continue;
    struct arm_state *s = state_of_arm(arm);
    arm->result = coir__fd_watch(s->d, arm->fd, s->life);
    if (arm->result) return (int)i;
  }
  return -1;
}

/* Before the arms are looked at anew: one whose descriptor has been closed by close(2) since it was linked; or -EAGAIN.
 * What the number stands for by now is not what the call is about. */
static int find_lost_fd(struct choice *ch) {
  for (size_t i = 0; ch->has_fds && i < ch->count; i++) {
    struct coir_arm *arm = &ch->arms[i];
    if (arm->kind == COIR_ARM_FD && (arm->result = fd_still_same(arm)) != 0) return (int)i;
  }
  return -EAGAIN;
}

/* What the claim means for the call: an arm, -ETIMEDOUT, -ECANCELED; -EAGAIN: look again. */
static int chosen_by(struct choice *ch, uint32_t code) {
  if (code == COIR__CODE_CANCELED) return -ECANCELED;
  if (code == COIR__CODE_TIMEOUT) return ch->limit < ch->deadline ? -EAGAIN : -ETIMEDOUT; /* a deadline arm is ready */
  int i = (int)(code - COIR__CODE_CLAUSE);
  struct coir_arm *arm = &ch->arms[i];
  struct arm_state *s = state_of_arm(arm);
  switch (arm->kind) {
  case COIR_ARM_SEND:
  case COIR_ARM_RECV: arm->result = s->chan.result; return i;
  case COIR_ARM_FD:
    /* An event may have been for another reader, or for nothing. */
    arm->result = s->fd.closed ? -EBADF : fd_still_same(arm);
    if (arm->result == 0) arm->result = coir__fd_look(s->d, arm->fd, s->life, (uint32_t)arm->events);
    return arm->result ? i : -EAGAIN;
  default: arm->result = 0; return i;
  }
}

/* Waits until an arm is claimed, the deadline, or cancellation. Returns as chosen_by() does. */
static int wait_for_any(struct choice *ch, struct coir__worker *w) {
  struct coir__wait wait;
  if (ch->has_fds) {
    int i = watch_fds(ch);
    if (i >= 0) return i;
    w = coir__self(); /* watching may have waited for a close to end */
  }
  coir__wait_begin_on(w, &wait, ch->has_fds ? COIR__REASON_SELECT_IO : COIR__REASON_SELECT, ch->count, ch->limit);
  for (size_t i = 0; i < ch->count; i++) {
    wait.count = (uint32_t)i; /* the clause's code is to name the arm */
    if (COIR_LIKELY(link_arm(w, &ch->arms[i], &wait))) continue;
    uint32_t code = coir__wait_retract(&wait);
    return code == COIR__CODE_IDLE ? -EAGAIN : chosen_by(ch, code);
  }
  return chosen_by(ch, coir__wait(&wait));
}

/* ---- The call -------------------------------------------------------------------------------------------------- */

static int check(struct choice *ch) {
  if (ch->count > COIR_ARMS_MAX) return -EINVAL;
  ch->limit = ch->deadline;
  for (size_t i = 0; i < ch->count; i++) {
    const struct coir_arm *arm = &ch->arms[i];
    if ((unsigned)arm->kind > COIR_ARM_DEADLINE) return -EINVAL;
    if (arm->kind == COIR_ARM_DEADLINE) {
      ch->has_deadlines = true;
      if (arm->deadline < ch->limit) ch->limit = arm->deadline;
    } else if (arm->kind == COIR_ARM_SEND) {
      if (COIR_UNLIKELY(!arm->value) && has_object(arm) && coir__chan_elem_bytes(arm->object)) return -EINVAL;
    } else if (arm->kind == COIR_ARM_FD) {
      ch->has_fds = true;
      if (arm->events == 0 || (arm->events & ~(COIR__POLL_IN | COIR__POLL_OUT))) return -EINVAL;
    }
  }
  for (size_t i = 0; ch->has_fds && i < ch->count; i++)
    if (ch->arms[i].kind == COIR_ARM_FD) begin_fd(&ch->arms[i]);
  return 0;
}

int coir_select(struct coir_arm *arms, size_t count, int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  struct choice ch = {.arms = arms, .count = count, .deadline = deadline};
  int rc = check(&ch);
  if (rc) return rc;
  for (;;) {
    struct coir__worker *w = coir__self();
    struct coir__thread *t = w ? NULL : coir__thread_get();
    COIR_CHECK(w || t, "no memory for the record of a thread");
    rc = look_at_all(&ch, w, w ? &w->rng : &t->rng);
    if (rc >= 0) return rc;
    if (COIR_UNLIKELY(deadline != COIR_NEVER) && (deadline <= 0 || deadline <= coir__os_now())) {
      coir__breathe(w);
      return -ETIMEDOUT;
    }
    rc = wait_for_any(&ch, w);
    if (COIR_UNLIKELY(rc == -EAGAIN)) rc = find_lost_fd(&ch);
    if (COIR_LIKELY(rc != -EAGAIN)) return rc;
  }
}
