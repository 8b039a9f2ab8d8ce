/* chan.h: channels of pointers, and select. For channels of other types see csp_ring.h, which this includes.
 *
 * A channel holds up to its capacity of values; with capacity 0 a send completes when a receiver takes the value.
 * Values, waiting senders and waiting receivers are each served first come, first served. Any pointer can be sent, NULL
 * too, and what is no pointer by a cast through uintptr_t. What a sender wrote before it sent is visible to whoever
 * receives. A csp_gochan_t is a struct coir_chan of coir.h whose values are of pointer size: both libraries' calls, and
 * those of go_fiber, may be used on it. A fiber of Coir's that is cancelled while it sends or receives is told what a
 * closed channel would tell it, and has sent or received nothing. */
#ifndef CSP_CHAN_H
#define CSP_CHAN_H

#include <errno.h>

#include "csp_api.h"
#include "csp_ring.h"

CSP_BEGIN_DECLS

typedef struct csp_gochan csp_gochan_t; /* opaque */

/* Makes a channel with room for `cap` values. NULL: memory is short (errno ENOMEM). It lives until csp_gochan_free. */
CSP_API csp_gochan_t *csp_gochan_new(size_t cap);

/* Frees a channel, which nobody may use any more, and what it still buffers. NULL does nothing. */
CSP_API void csp_gochan_free(csp_gochan_t *ch);

/* Sends `val`. Waits while the buffer is full and no receiver waits; for ever when `ch` is NULL. Returns true when it
 * was buffered or received; false when the channel is closed, or was closed while it waited: then it was not sent. */
CSP_API bool csp_gochan_send(csp_gochan_t *ch, void *val);

/* Receives the oldest value. Waits while there is none; for ever when `ch` is NULL. `*ok` (`ok` may be NULL) becomes
 * true; when the channel is closed and empty false, and the result is NULL. */
CSP_API void *csp_gochan_recv(csp_gochan_t *ch, bool *ok);

/* Closes the channel: no more sends; what is buffered can still be received. Who waits is let go. Closing twice does
 * nothing, and so does NULL. */
CSP_API void csp_gochan_close(csp_gochan_t *ch);

/* Sends if that needs no waiting. False: it would have to wait, or the channel is closed, or NULL. */
CSP_API bool csp_gochan_try_send(csp_gochan_t *ch, void *val);

/* Receives if that needs no waiting. Returns true when there was a value, which is stored in `*val`, with `*ok` true;
 * true, too, when the channel is closed and empty: `*val` becomes NULL and `*ok` false. False: it would have to wait,
 * or `ch` is NULL; then nothing is stored. `val` and `ok` may be NULL. */
CSP_API bool csp_gochan_try_recv(csp_gochan_t *ch, void **val, bool *ok);

/* How many values are buffered just now; for how many there is room. NULL: 0. */
CSP_API size_t csp_gochan_len(const csp_gochan_t *ch);
CSP_API size_t csp_gochan_cap(const csp_gochan_t *ch);

/* C compilers that optimise make these four a part of their caller: so they cost hardly more than the core's (bench:
 * csp_call_cost). Else, and when their address is taken, they are functions of the library. The two that they call are
 * not for programs; these return 0 or a negative error, and `deadline` is INT64_MAX to wait, 0 not to. */
#if defined(CSP__INLINE) || (defined(__GNUC__) && defined(__OPTIMIZE__) && !defined(__cplusplus))
#ifndef CSP__INLINE
#define CSP__INLINE extern __inline__ __attribute__((__gnu_inline__, __always_inline__))
#endif
CSP_API int csp__gochan_send(csp_gochan_t *ch, void *const *val, int64_t deadline);
CSP_API int csp__gochan_recv(csp_gochan_t *ch, void **val, int64_t deadline);

CSP__INLINE bool csp_gochan_send(csp_gochan_t *ch, void *val) { return csp__gochan_send(ch, &val, INT64_MAX) == 0; }

CSP__INLINE void *csp_gochan_recv(csp_gochan_t *ch, bool *ok) {
  void *val;
  int rc = csp__gochan_recv(ch, &val, INT64_MAX);
  if (ok) *ok = rc == 0;
  return rc == 0 ? val : NULL;
}

CSP__INLINE bool csp_gochan_try_send(csp_gochan_t *ch, void *val) { return csp__gochan_send(ch, &val, 0) == 0; }

CSP__INLINE bool csp_gochan_try_recv(csp_gochan_t *ch, void **val, bool *ok) {
  void *taken;
  int rc = csp__gochan_recv(ch, &taken, 0);
  if (rc != 0 && rc != -EPIPE) return false;
  if (val) *val = rc == 0 ? taken : NULL;
  if (ok) *ok = rc == 0;
  return true;
}
#endif

/* The type of a channel on which a function only sends, or only receives. `T` tells the reader what the pointers point
 * to; the compiler does not look. */
#define chan_send_only(T) csp_gochan_t *
#define chan_recv_only(T) csp_gochan_t *

/* ---- Select ---------------------------------------------------------------------------------------------------- */

typedef enum { CSP_RECV = 0, CSP_SEND = 1, CSP_DEFAULT = 2 } csp_select_op_t;

/* One case. Fields that are left out of an initialiser are NULL, which is right for `val` of a CSP_RECV that does not
 * want the value. For a CSP_DEFAULT only `op` counts. */
typedef struct {
  csp_gochan_t *ch;   /* NULL: the case is never ready */
  csp_select_op_t op;
  void **val; /* CSP_RECV: where to store what was received, NULL if the channel is closed and empty; may be NULL.
                 CSP_SEND: the value itself, cast to void ** */
} csp_select_case_t;

/* Waits until one of `n` cases can go on, does it, and returns its index. Of several that can, each is chosen with the
 * same probability. A CSP_DEFAULT (the first, if there are more) is chosen if no other can go on at once. Receiving
 * from a channel that is closed and empty, and sending on a closed one, can go on: nothing is received or sent. The
 * same channel may stand in several cases, for sending and receiving; a select never meets itself. With no case that
 * could ever be ready it waits for ever.
 *
 * Returns -1, and no case has had an effect, with errno EINVAL for an operation that does not exist or `n` out of range
 * (0 to 1 000 000); ENOMEM (only with more than 32 cases); ECANCELED when the caller is a fiber of Coir's that was
 * cancelled. */
CSP_API int csp_select(csp_select_case_t *cases, int n);

/* The same; `*ok` (`ok` may be NULL) becomes false when the case that was chosen found its channel closed, true
 * otherwise. */
CSP_API int csp_select_ok(csp_select_case_t *cases, int n, bool *ok);

/* The same without an array; at most 32 cases. No semicolons are needed between them. `idx` is an int of the caller's.
 *
 *     SELECT_START
 *     RECV_CASE(jobs, &job)
 *     SEND_CASE(results, result)
 *     DEFAULT_CASE
 *     SELECT_END(idx)
 */
#define CSP_SELECT_MAX 32
typedef struct {
  csp_select_case_t cases[CSP_SELECT_MAX];
  int n;
} csp_select_list_t;
/* Adds a case; aborts with a message when there are CSP_SELECT_MAX. */
CSP_API void csp_select_add(csp_select_list_t *list, csp_gochan_t *ch, csp_select_op_t op, void **val);

#define SELECT_START \
  { \
    csp_select_list_t csp_select_list_; \
    csp_select_list_.n = 0;
#define RECV_CASE(chan, where) csp_select_add(&csp_select_list_, (chan), CSP_RECV, (void **)(where));
#define SEND_CASE(chan, value) csp_select_add(&csp_select_list_, (chan), CSP_SEND, (void **)(uintptr_t)(value));
#define DEFAULT_CASE csp_select_add(&csp_select_list_, NULL, CSP_DEFAULT, NULL);
#define SELECT_END(idx) \
  (idx) = csp_select(csp_select_list_.cases, csp_select_list_.n); \
  }

CSP_END_DECLS
#endif
