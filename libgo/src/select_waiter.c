/* Flags that channels raise, and the channels' lists of them.
 *
 * None may be missed: who registers adds the waiter and then looks whether there is something to receive; who puts
 * something in does that and then looks for waiters. Both change `watchers` by a read-modify-write, the one by one, the
 * other by nothing, so one of them comes second there and sees all that the first did before: the waiter, or what was
 * put in. */
#include "internal.h"

struct waiter {
  GoSelectWaiter base; /* first */
  _Atomic(size_t) refs;
};

struct go__watch {
  struct go__watch *next;
  GoSelectWaiter *waiter; /* a reference */
};

GoSelectWaiter *go_select_waiter_create(void) {
  struct waiter *w = calloc(1, sizeof *w);
  if (!w) {
    errno = ENOMEM;
    return NULL;
  }
  atomic_init(&w->refs, 1);
  return &w->base;
}

GoSelectWaiter *go_select_waiter_ref(GoSelectWaiter *waiter) {
  if (waiter) atomic_fetch_add_explicit(&((struct waiter *)waiter)->refs, 1, memory_order_relaxed); /* caller has one */
  return waiter;
}

void go_select_waiter_unref(GoSelectWaiter *waiter) {
  struct waiter *w = (struct waiter *)waiter;
  /* Acquire and release: all uses come before the end. */
  if (w && atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) == 1) free(w);
}

/* The link to the waiter's entry, or to the list's end. The lock is held. */
static struct go__watch **find(GoChannel *chan, const GoSelectWaiter *waiter) {
  struct go__watch **link = &chan->watches;
  while (*link && (*link)->waiter != waiter) link = &(*link)->next;
  return link;
}

int go_channel_register_select_waiter(GoChannel *chan, GoSelectWaiter *waiter) {
  if (!chan || !waiter) return go__fail(EINVAL);
  struct go__watch *watch = malloc(sizeof *watch);
  if (!watch) return go__fail(ENOMEM);
  pthread_mutex_lock(&chan->lock);
  struct go__watch **link = find(chan, waiter);
  if (!*link) {
    *watch = (struct go__watch){.waiter = go_select_waiter_ref(waiter)};
    *link = watch;
    watch = NULL;
  }
  /* Acquire, and release: see above; pairs with the one in go__channel_notify. */
  atomic_fetch_add_explicit(&chan->watchers, watch ? 0 : 1, memory_order_acq_rel);
  pthread_mutex_unlock(&chan->lock);
  free(watch);
  if (go_channel_is_closed(chan) || go_channel_has_data(chan) ||
      atomic_load_explicit(&chan->senders, memory_order_relaxed) > 0) /* ordered by the same pair */
    atomic_store(&waiter->signaled, 1);
  return 0;
}

int go_channel_unregister_select_waiter(GoChannel *chan, GoSelectWaiter *waiter) {
  if (!chan || !waiter) return go__fail(EINVAL);
  pthread_mutex_lock(&chan->lock);
  struct go__watch **link = find(chan, waiter), *watch = *link;
  if (watch) {
    *link = watch->next;
    atomic_fetch_sub_explicit(&chan->watchers, 1, memory_order_relaxed); /* who looks in vain finds it gone */
  }
  pthread_mutex_unlock(&chan->lock);
  if (!watch) return go__fail(ENOENT);
  free(watch);
  go_select_waiter_unref(waiter);
  return 0;
}

void go__channel_notify(GoChannel *chan) {
  /* Acquire, and release: see above; pairs with the one in go_channel_register_select_waiter. */
  if (atomic_fetch_add_explicit(&chan->watchers, 0, memory_order_acq_rel) == 0) return;
  pthread_mutex_lock(&chan->lock);
  for (struct go__watch *w = chan->watches; w; w = w->next) atomic_store(&w->waiter->signaled, 1);
  pthread_mutex_unlock(&chan->lock);
}

void go__channel_drop_waiters(GoChannel *chan) {
  for (struct go__watch *w; (w = chan->watches) != NULL; free(w)) {
    chan->watches = w->next;
    go_select_waiter_unref(w->waiter);
  }
}
