/* csp_internal.h: what the files of libcsp share. */
#ifndef CSP_INTERNAL_H
#define CSP_INTERNAL_H

#include <errno.h>
#include <stdatomic.h>

#include "coir.h"
#include "csp_api.h"

/* Sets errno from a negative code. */
void csp__fail(int64_t rc);

/* Prints "csp: " and the message on stderr; the second aborts then. */
void csp__say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void csp__die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The runtime, started if it was not; NULL with errno set. */
struct coir_runtime *csp__runtime(void);

/* The runtime if one was made, running or not; else NULL. */
struct coir_runtime *csp__runtime_or_null(void);

/* What the runtime is doing, as text of `*bytes` bytes with a 0 behind; the caller frees it. NULL: memory is short. */
char *csp__dump_text(struct coir_runtime *rt, size_t *bytes);

/* How a goroutine is to be started so that its beginning and end are told: takes `fn` and `arg`, and returns what to
 * start instead, with `*arg_out`, which it has allocated. NULL: memory is short, with errno. */
coir_fn csp__trace_wrap(void (*fn)(void *arg), void *arg, void **arg_out);
extern _Atomic(bool) csp__traces; /* runtime_trace_enable */

/* The function that contexts run at their deadline: no goroutine in the eyes of runtime_num_goroutines. */
int csp__context_expire(void *context);
extern _Atomic(bool) csp__has_deadlines; /* some context has, or had, one */

#endif
