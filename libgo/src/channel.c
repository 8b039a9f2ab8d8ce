/* Channels: one of Coir's, with a pointer as value, references, and the waiters that are registered with it.
 *
 * A call holds a reference of its own while it runs. A sender has something left to do once its value is sent, to tell
 * the waiters; and the receiver of that value may give up the last reference but the sender's. */
#include "context.h"
#include "internal.h"

/* ---- References ------------------------------------------------------------------------------------------------ */

GoChannel *go_channel_create(size_t capacity) {
  GoChannel *c = calloc(1, sizeof *c);
  if (c) c->chan = coir_chan_create(sizeof(void *), capacity);
  if (!c || !c->chan) {
    free(c);
    errno = ENOMEM;
    return NULL;
  }
  c->is_rendezvous = capacity == 0;
  atomic_init(&c->refs, 1);
  pthread_mutex_init(&c->lock, NULL);
  return c;
}

GoChannel *go_channel_ref(GoChannel *chan) {
  if (chan) atomic_fetch_add_explicit(&chan->refs, 1, memory_order_relaxed); /* the caller's own keeps it alive */
  return chan;
}

void go_channel_unref(GoChannel *chan) {
  /* Release: what each did to it comes before its end; acquire, for the last: after what all did. */
  if (!chan || atomic_fetch_sub_explicit(&chan->refs, 1, memory_order_acq_rel) != 1) return;
  go__channel_drop_waiters(chan);
  coir_chan_unref(chan->chan);
  pthread_mutex_destroy(&chan->lock);
  free(chan);
}

void go_channel_free(GoChannel *chan) { go_channel_unref(chan); }

/* ---- Sending and receiving ------------------------------------------------------------------------------------- */

void go__channel_begin_send(GoChannel *chan) {
  go_channel_ref(chan);
  if (!chan->is_rendezvous) return;
  atomic_fetch_add_explicit(&chan->senders, 1, memory_order_relaxed); /* go__channel_notify orders it */
  go__channel_notify(chan);
}

void go__channel_end_send(GoChannel *chan, bool is_sent) {
  if (chan->is_rendezvous) atomic_fetch_sub_explicit(&chan->senders, 1, memory_order_relaxed);
  else if (is_sent) go__channel_notify(chan);
  go_channel_unref(chan);
}

int go_channel_send(GoChannel *chan, void *value) {
  if (!chan) return go__fail(EINVAL);
  go__channel_begin_send(chan);
  int rc = coir_chan_send(chan->chan, &value, COIR_NEVER);
  go__channel_end_send(chan, rc == 0);
  return rc ? go__fail(-rc) : 0;
}

int go_channel_try_send(GoChannel *chan, void *value) {
  if (!chan) return go__fail(EINVAL);
  go_channel_ref(chan);
  int rc = coir_chan_send(chan->chan, &value, 0);
  if (rc == 0 && !chan->is_rendezvous) go__channel_notify(chan);
  go_channel_unref(chan);
  return rc ? go__fail(rc == -ETIMEDOUT ? EAGAIN : -rc) : 0;
}

static int receive(GoChannel *chan, void **out, int64_t deadline) {
  if (out) *out = NULL;
  if (!chan) return -EINVAL;
  go_channel_ref(chan);
  int rc = coir_chan_recv(chan->chan, out, deadline);
  go_channel_unref(chan);
  return rc;
}

int go_channel_receive(GoChannel *chan, void **out) {
  int rc = receive(chan, out, COIR_NEVER);
  return rc ? go__fail(-rc) : 0;
}

int go_channel_try_receive(GoChannel *chan, void **out) {
  int rc = receive(chan, out, 0);
  return rc ? go__fail(rc == -ETIMEDOUT ? EAGAIN : -rc) : 0;
}

/* ---- With a context -------------------------------------------------------------------------------------------- */

/* Does what `arm` says unless the context is cancelled first. Returns 0 or a negative errno. */
static int unless_canceled(struct coir_arm arm, GoContext *context) {
  struct coir_arm arms[2] = {arm, coir_arm_recv(context->done->chan, NULL)};
  go_context_ref(context); /* who cancels it may give it up then */
  int rc = go_context_is_canceled(context) ? 1 : coir_select(arms, 2, COIR_NEVER);
  int result = rc == 0 ? arms[0].result : rc == 1 ? -go__context_reason(context) : rc;
  go_context_unref(context);
  return result;
}

int go_channel_send_with_context(GoChannel *chan, void *value, GoContext *context) {
  if (!chan) return go__fail(EINVAL);
  if (!context) return go_channel_send(chan, value);
  go__channel_begin_send(chan);
  int rc = unless_canceled(coir_arm_send(chan->chan, &value), context);
  go__channel_end_send(chan, rc == 0);
  return rc ? go__fail(-rc) : 0;
}

int go_channel_receive_with_context(GoChannel *chan, void **out, GoContext *context) {
  if (!chan || !context) return go_channel_receive(chan, out);
  if (out) *out = NULL;
  go_channel_ref(chan);
  int rc = unless_canceled(coir_arm_recv(chan->chan, out), context);
  go_channel_unref(chan);
  return rc ? go__fail(-rc) : 0;
}

/* ---- Closing, and what can be asked ---------------------------------------------------------------------------- */

void go_channel_close(GoChannel *chan) {
  if (!chan) return;
  go_channel_ref(chan);
  coir_chan_close(chan->chan);
  go__channel_notify(chan);
  go_channel_unref(chan);
}

int go_channel_is_closed(const GoChannel *chan) { return !chan || coir_chan_is_closed(chan->chan); }

size_t go_channel_get_depth(const GoChannel *chan) { return chan ? coir_chan_length(chan->chan) : 0; }

int go_channel_has_data(const GoChannel *chan) { return go_channel_get_depth(chan) > 0; }

int go_channel_has_space(const GoChannel *chan) {
  return !go_channel_is_closed(chan) && coir_chan_length(chan->chan) < coir_chan_capacity(chan->chan);
}
