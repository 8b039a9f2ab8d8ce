/* context.h: cancellation that reaches everything below.
 *
 * A context is cancelled by a call, by its deadline, or with its parent. Its done channel is then closed: so any number
 * of goroutines may select on it together with whatever they wait for. A context carries no values. */
#ifndef CSP_CONTEXT_H
#define CSP_CONTEXT_H

#include "chan.h"
#include "csp_api.h"
#include "timer.h"

CSP_BEGIN_DECLS

typedef struct csp_context csp_context_t; /* opaque */

/* The root: never cancelled, its done channel never closes. One for the whole process; freeing it does nothing. NULL:
 * memory is short (errno ENOMEM). */
CSP_API csp_context_t *csp_context_background(void);

/* Makes a context below `parent` (NULL: the root). When the parent is cancelled already, so is the new one. The caller
 * frees it by csp_context_free. NULL: memory is short (errno ENOMEM). */
CSP_API csp_context_t *csp_context_with_cancel(csp_context_t *parent);

/* The same, and it is cancelled at the time `when` of csp_timer_now, or in `ns` nanoseconds: at once when that has
 * passed. NULL with errno ENOMEM, or EAGAIN (no workers could be started). Between csp_scheduler_stop and the next call
 * that starts the workers no deadline comes. */
CSP_API csp_context_t *csp_context_with_deadline(csp_context_t *parent, csp_timer_time_t when);
CSP_API csp_context_t *csp_context_with_timeout(csp_context_t *parent, csp_timer_duration_t ns);

/* Cancels the context and all below it: when it returns, all their done channels are closed. Does nothing when that has
 * happened, for NULL, and for the root. Any number may call it at once. Whoever it lets go may free the context. */
CSP_API void csp_context_cancel(csp_context_t *ctx);

/* Returns the done channel, closed when the context is cancelled; nothing is ever sent on it. It lives as long as the
 * context, whose it is: not to be freed. NULL for NULL. */
CSP_API csp_gochan_t *csp_context_done(csp_context_t *ctx);

/* Why it was cancelled: ECANCELED, or ETIMEDOUT when its own deadline or one above it came first; 0 while it is not. */
CSP_API int csp_context_err(csp_context_t *ctx);

/* Frees a context that the caller does not use any more; contexts below it stay as they are, and are still cancelled
 * at its deadline and with those above it. It does not cancel: what waits on its done channel must be gone. NULL does
 * nothing. */
CSP_API void csp_context_free(csp_context_t *ctx);

CSP_END_DECLS
#endif
