/* context.h: trees of contexts, which carry cancellation and deadlines. Conventions: go.h.
 *
 *     CancelContextResult r = go_context_with_cancel(go_context_background());
 *     ... start work that looks at r.context ...
 *     r.cancel(r.context);
 *     go_context_free(r.context);
 *
 * A context is cancelled by its cancel function, by its deadline, and with its parent; once, for the first of these,
 * and for ever. Contexts are counted by references, and a child holds one to its parent: so a parent's handle may be
 * given up while there are children, and what cancels the parent's own parent still reaches them. A call that has begun
 * has one of its own until it returns: whoever is let go by the cancelling may give up the last reference but that. */
#ifndef LIBGO_CONTEXT_H
#define LIBGO_CONTEXT_H

#include <time.h>

#include "channel.h"
#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Made by the calls below only; there is more behind this member. */
typedef struct GoContext {
  GoChannel *done; /* closed when the context is cancelled, and so ready to receive from. Do not change, send, close */
} GoContext;

/* Cancels the context that it came with; the argument is a pointer to that. Again, or with NULL, it does nothing. When
 * it returns, the context and everything below it are cancelled. Does not wait. */
typedef void (*CancelFunc)(void *context);

typedef struct CancelContextResult {
  GoContext *context; /* NULL when memory is short */
  CancelFunc cancel;  /* never NULL */
} CancelContextResult;

/* The root of all contexts: is never cancelled. The same one each time, which needs no references: _ref, _unref and
 * _free do nothing to it. When there is no memory even for that, it says so on stderr and aborts. */
GoContext *go_context_background(void);

/* Makes a context below `parent` (NULL: below go_context_background()), with one reference. When the parent is
 * cancelled already so is the new one. `context` is NULL on error, with errno ENOMEM. */
CancelContextResult go_context_with_cancel(GoContext *parent);

/* The same, and it is cancelled when CLOCK_REALTIME reaches `deadline`: at once, when it has. A parent's earlier
 * deadline counts before it. How far off the deadline is gets found out now: if the clock is set meanwhile, it does not
 * move. Returns NULL and errno: ENOMEM, EAGAIN (no thread to keep the time), EINVAL (tv_nsec is not in
 * 0..999999999). */
GoContext *go_with_deadline(GoContext *parent, struct timespec deadline);

GoContext *go_context_ref(GoContext *context);
void go_context_unref(GoContext *context);

/* The same as go_context_unref. Does not cancel. */
void go_context_free(GoContext *context);

/* Waits until the context is cancelled. Returns 0, at once for NULL; -1 and errno ECANCELED: the caller was cancelled
 * by coir_cancel, not the context. */
int go_context_wait(GoContext *context);

/* Whether it has been cancelled; 1 for NULL. `context` is a GoContext. */
int go_context_is_canceled(const void *context);

/* The channel `done`; NULL for NULL. It lives as long as the context; who wants it for longer takes a reference. */
GoChannel *go_context_done(const GoContext *context);

/* Why it was cancelled, as a new error that the caller frees (free_error): code ECANCELED, "context canceled", or code
 * ETIMEDOUT, "context deadline exceeded". NULL while it is not cancelled, for NULL, and when memory is short. */
Error *go_context_err(const GoContext *context);

#ifdef __cplusplus
}
#endif
#endif
