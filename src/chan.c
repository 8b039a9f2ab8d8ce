/* Channels.
 *
 * A channel is a ring of values, a list of receivers that wait and a list of senders that wait, all under one lock. A
 * call that need not wait holds the lock for a few instructions, takes or leaves a value, and is done. One that finds
 * a partner waiting claims it (wait.c), copies the value straight from the sender's memory to the receiver's, and
 * wakes it: so a value is copied once if somebody waits for it, and twice if it goes through the buffer.
 *
 * What a waiting party gets is in its clause: where its value lies or is to go, and what its call shall return. The
 * winner of the claim fills that in before it gives the lock back and wakes; a clause whose claim fails is none of
 * our business, and left out.
 *
 * The lock leans towards the worker whose fibers use the channel (bias.c). With it, two fibers of one worker exchange
 * a value with one locked instruction, the claim, and a switch.
 *
 * Rejected: a lock-free ring (closing, cancelling and handing over in order need the lock anyway, and it costs
 * nothing where it matters); handing the worker straight to the receiver (the sender has more to send as a rule, and
 * the next slot of the run queue runs the receiver as soon as it waits).
 *
 * Giving back the lock is the last that a call does to the channel, if it has exchanged a value: the partner may free
 * it.
 *
 * I1: while receivers wait the ring is empty; while senders wait it is full. (Claims that fail apart.)
 * I2: a value is in exactly one place: a sender's memory, the ring, or a receiver's memory whose call returns 0.
 * I3: after the channel was closed nobody waits, and the ring only empties. */
#include <string.h>

#include "wait.h"

/* In the public calls, where most of it folds away. */
#define ALWAYS_INLINE inline __attribute__((always_inline))

struct coir_chan {
  struct coir__bias lock;                      /* guards all of this */
  _Atomic(uint32_t) closed;                    /* (a) written under lock */
  struct coir__waitlist receivers, senders;    /* (l) struct coir__chan_clause */
  _Atomic(size_t) count;                       /* (a) written under lock: values in the ring */
  size_t head;                                 /* (l) the oldest */
  size_t capacity, elem_bytes;                 /* (c) */
  _Atomic(uint64_t) refs;                      /* (a) */
  void (*fini)(struct coir_chan *, void *arg); /* (c) see coir__chan_set_fini */
  void *fini_arg;                              /* (c) */
  _Alignas(16) char ring[];
};

/* ---- Values ---------------------------------------------------------------------------------------------------- */

/* Pointers and numbers are what most channels carry: a copy of a known size is two instructions. */
static inline void chan_copy(const struct coir_chan *c, void *to, const void *from) {
  if (COIR_LIKELY(c->elem_bytes == 8)) memcpy(to, from, 8);
  else if (c->elem_bytes) memcpy(to, from, c->elem_bytes);
}

static inline void ring_put(struct coir_chan *c, const void *value) {
  size_t count = atm_load_rlx(&c->count), i = c->head + count;
  if (i >= c->capacity) i -= c->capacity;
  chan_copy(c, c->ring + i * c->elem_bytes, value);
  atm_store_rlx(&c->count, count + 1);
}

static inline void ring_get(struct coir_chan *c, void *value) {
  if (value) chan_copy(c, value, c->ring + c->head * c->elem_bytes);
  if (++c->head == c->capacity) c->head = 0;
  atm_store_rlx(&c->count, atm_load_rlx(&c->count) - 1);
}

/* Claims the first that waits; NULL: nobody does. */
static inline struct coir__chan_clause *partner_of(struct coir__waitlist *list) {
  if (COIR_LIKELY(coir__waitlist_is_empty(list))) return NULL;
  struct coir__chan_clause *p = (struct coir__chan_clause *)coir__waitlist_take(list);
  if (p) p->result = 0;
  return p;
}

/* ---- Sending and receiving without waiting --------------------------------------------------------------------- */

/* Each is called with the lock held; `leans`: as its owner. On 0 or -EPIPE it has given it back; on -EAGAIN the call
 * would have to wait, and the lock is still held. */

static ALWAYS_INLINE void let_go(struct coir__worker *w, struct coir_chan *c, bool leans) {
  if (leans) coir__bias_leave(w);
  else coir__bias_unlock(w, &c->lock);
}

static ALWAYS_INLINE int send_now(struct coir__worker *w, struct coir_chan *c, const void *value, bool leans) {
  if (COIR_UNLIKELY(atm_load_rlx(&c->closed))) {
    let_go(w, c, leans);
    return -EPIPE;
  }
  struct coir__chan_clause *receiver = partner_of(&c->receivers);
  if (receiver) {
    if (receiver->slot) chan_copy(c, receiver->slot, value);
    struct coir__waiter *waiter = receiver->clause.waiter;
    uint64_t open = receiver->clause.open;
    let_go(w, c, leans);
    coir__wake_quick(w, waiter, open);
    return 0;
  }
  if (atm_load_rlx(&c->count) == c->capacity) return -EAGAIN;
  ring_put(c, value);
  let_go(w, c, leans);
  return 0;
}

static ALWAYS_INLINE int recv_now(struct coir__worker *w, struct coir_chan *c, void *value, bool leans) {
  struct coir__chan_clause *sender = NULL;
  int rc = 0;
  if (atm_load_rlx(&c->count)) {
    ring_get(c, value);
    if ((sender = partner_of(&c->senders))) ring_put(c, sender->slot);
  } else if ((sender = partner_of(&c->senders))) {
    if (value) chan_copy(c, value, sender->slot);
  } else if (atm_load_rlx(&c->closed)) rc = -EPIPE;
  else return -EAGAIN;
  if (!sender) {
    let_go(w, c, leans);
    return rc;
  }
  struct coir__waiter *waiter = sender->clause.waiter;
  uint64_t open = sender->clause.open;
  let_go(w, c, leans);
  coir__wake_quick(w, waiter, open);
  return 0;
}

int coir__chan_try_send(struct coir__worker *w, struct coir_chan *c, const void *value) {
  coir__bias_lock(w, &c->lock);
  int rc = send_now(w, c, value, false);
  if (rc == -EAGAIN) coir__bias_unlock(w, &c->lock);
  return rc;
}

int coir__chan_try_recv(struct coir__worker *w, struct coir_chan *c, void *value) {
  coir__bias_lock(w, &c->lock);
  int rc = recv_now(w, c, value, false);
  if (rc == -EAGAIN) coir__bias_unlock(w, &c->lock);
  return rc;
}

size_t coir__chan_elem_bytes(const struct coir_chan *c) { return c->elem_bytes; }

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

/* In both the lock is held, and given back. */

static int wait_somehow(struct coir__worker *w, struct coir_chan *c, struct coir__waitlist *list, void *slot,
                        enum coir__reason reason, int64_t deadline) {
  if (deadline <= 0 || (deadline != COIR_NEVER && deadline <= coir__os_now())) {
    coir__bias_unlock(w, &c->lock);
    coir__breathe(w);
    return -ETIMEDOUT;
  }
  struct coir__wait wait;
  struct coir__chan_clause clause = {.slot = slot};
  coir__wait_begin_on(w && w->current ? w : NULL, &wait, reason, (uint64_t)(uintptr_t)c, deadline);
  coir__wait_add_to(&wait, &clause.clause, list, &c->lock);
  coir__bias_unlock(w, &c->lock);
  uint32_t code = coir__wait(&wait);
  return code >= COIR__CODE_CLAUSE ? clause.result : coir__wait_result(code);
}

/* The same for a fiber without a deadline, in fewer steps. */
static ALWAYS_INLINE int wait_for_partner(struct coir__worker *w, struct coir_chan *c, struct coir__waitlist *list,
                                          void *slot, enum coir__reason reason, bool leans) {
  struct coir__wait wait;
  struct coir__chan_clause clause;
  clause.slot = slot;
  coir__wait_open(w, &wait, reason, (uint64_t)(uintptr_t)c, COIR_NEVER, COIR__CODE_OPEN);
  coir__wait_add_to(&wait, &clause.clause, list, &c->lock);
  let_go(w, c, leans);
  uint32_t code = coir__wait_quick(w, &wait);
  return COIR_LIKELY(code >= COIR__CODE_CLAUSE) ? clause.result : coir__wait_result(code);
}

/* ---- The calls ------------------------------------------------------------------------------------------------- */

/* Each in two forms, for the compiler to fold: that of a fiber to whose worker the lock leans, and that of the rest. */

static ALWAYS_INLINE int send_held(struct coir__worker *w, struct coir_chan *c, const void *value, int64_t deadline,
                                   bool leans) {
  int rc = send_now(w, c, value, leans);
  if (rc != -EAGAIN) return rc;
  void *slot = (void *)(uintptr_t)value;
  if (COIR_UNLIKELY(!leans || deadline != COIR_NEVER))
    return wait_somehow(w, c, &c->senders, slot, COIR__REASON_SEND, deadline);
  return wait_for_partner(w, c, &c->senders, slot, COIR__REASON_SEND, leans);
}

static ALWAYS_INLINE int recv_held(struct coir__worker *w, struct coir_chan *c, void *value, int64_t deadline,
                                   bool leans) {
  int rc = recv_now(w, c, value, leans);
  if (rc != -EAGAIN) return rc;
  if (COIR_UNLIKELY(!leans || deadline != COIR_NEVER))
    return wait_somehow(w, c, &c->receivers, value, COIR__REASON_RECV, deadline);
  return wait_for_partner(w, c, &c->receivers, value, COIR__REASON_RECV, leans);
}

static __attribute__((noinline)) int send_plainly(struct coir__worker *w, struct coir_chan *c, const void *value,
                                                  int64_t deadline) {
  coir__bias_lock(w, &c->lock);
  return send_held(w, c, value, deadline, false);
}

static __attribute__((noinline)) int recv_plainly(struct coir__worker *w, struct coir_chan *c, void *value,
                                                  int64_t deadline) {
  coir__bias_lock(w, &c->lock);
  return recv_held(w, c, value, deadline, false);
}

int coir_chan_send(struct coir_chan *chan, const void *value, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_INLINED_ON(w, deadline);
  if (COIR_UNLIKELY(!chan || (!value && coir__chan_elem_bytes(chan)))) return -EINVAL;
  if (COIR_UNLIKELY(!w || !w->current || !coir__bias_enter(w, &chan->lock)))
    return send_plainly(w, chan, value, deadline);
  return send_held(w, chan, value, deadline, true);
}

int coir_chan_recv(struct coir_chan *chan, void *value, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_INLINED_ON(w, deadline);
  if (COIR_UNLIKELY(!chan)) return -EINVAL;
  if (COIR_UNLIKELY(!w || !w->current || !coir__bias_enter(w, &chan->lock)))
    return recv_plainly(w, chan, value, deadline);
  return recv_held(w, chan, value, deadline, true);
}

/* ---- Select ---------------------------------------------------------------------------------------------------- */

/* Whether somebody other than `self` waits in the list, and can be claimed as it looks. */
static bool has_other(struct coir__waitlist *list, const struct coir__waiter *self) {
  for (struct coir__clause *c = atm_load_rlx(&list->first); c; c = c->next)
    if (c->waiter != self && atm_load_acq(&c->waiter->word) == c->open) return true;
  return false;
}

/* Relaxed: what happened before the caller came is seen, and the rest is looked at again under the lock. */
bool coir__chan_may_be_ready(struct coir_chan *c, bool sends) {
  size_t count = atm_load_rlx(&c->count);
  if (atm_load_rlx(&c->closed)) return true;
  if (sends) return count < c->capacity || !coir__waitlist_is_empty(&c->receivers);
  return count > 0 || !coir__waitlist_is_empty(&c->senders);
}

bool coir__chan_link(struct coir__worker *w, struct coir_chan *c, struct coir__wait *wait,
                     struct coir__chan_clause *clause, bool sends) {
  coir__bias_lock(w, &c->lock);
  size_t count = atm_load_rlx(&c->count);
  bool ready = atm_load_rlx(&c->closed) || (sends ? count < c->capacity : count > 0) ||
               has_other(sends ? &c->receivers : &c->senders, wait->self);
  if (!ready) coir__wait_add_to(wait, &clause->clause, sends ? &c->senders : &c->receivers, &c->lock);
  coir__bias_unlock(w, &c->lock);
  return !ready;
}

/* ---- The rest -------------------------------------------------------------------------------------------------- */

struct coir_chan *coir_chan_create(size_t elem_bytes, size_t capacity) {
  size_t bytes;
  if (__builtin_mul_overflow(elem_bytes, capacity, &bytes) || bytes > PTRDIFF_MAX - sizeof(struct coir_chan))
    return NULL;
  struct coir_chan *c = coir__alloc(NULL, sizeof *c + bytes);
  if (!c) return NULL;
  c->elem_bytes = elem_bytes;
  c->capacity = capacity;
  atm_store_rlx(&c->refs, 1);
  return c;
}

void coir__chan_set_fini(struct coir_chan *c, void (*fini)(struct coir_chan *c, void *arg), void *arg) {
  c->fini = fini;
  c->fini_arg = arg;
}

struct coir_chan *coir_chan_ref(struct coir_chan *chan) {
  if (chan) atm_add_rlx(&chan->refs, 1); /* relaxed: the caller has one */
  return chan;
}

void coir_chan_unref(struct coir_chan *chan) {
  COIR_INSIDE;
  if (!chan || atm_sub_sc(&chan->refs, 1) != 1) return;
  COIR_CHECK(coir__waitlist_is_empty(&chan->receivers) && coir__waitlist_is_empty(&chan->senders),
             "the last reference of a channel is given up when nobody waits on it");
  if (chan->fini) chan->fini(chan, chan->fini_arg);
  coir__free(NULL, chan, sizeof *chan + chan->capacity * chan->elem_bytes);
}

/* Claims all, to tell them that it is over. */
static struct coir__clause *dismiss(struct coir__waitlist *list) {
  struct coir__clause *all = coir__waitlist_take_all(list);
  for (struct coir__clause *c = all; c; c = c->next) ((struct coir__chan_clause *)c)->result = -EPIPE;
  return all;
}

void coir_chan_close(struct coir_chan *chan) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  if (!chan) return;
  coir__bias_lock(w, &chan->lock);
  atm_store_rlx(&chan->closed, 1);
  struct coir__clause *receivers = dismiss(&chan->receivers), *senders = dismiss(&chan->senders);
  coir__bias_unlock(w, &chan->lock);
  coir__wake_all(w, receivers);
  coir__wake_all(w, senders);
}

size_t coir_chan_length(const struct coir_chan *chan) { return chan ? atm_load_acq(&chan->count) : 0; }

size_t coir_chan_capacity(const struct coir_chan *chan) { return chan ? chan->capacity : 0; }

bool coir_chan_is_closed(const struct coir_chan *chan) { return chan && atm_load_acq(&chan->closed); }
