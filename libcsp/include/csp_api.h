/* csp_api.h: what all headers of libcsp share. Programs need not include it.
 *
 * Conventions of these headers: goroutines and plain threads may make every call, unless it says otherwise; a call that
 * waits suspends a goroutine, and blocks a plain thread. A goroutine may go on on another thread after a wait. Times
 * are in nanoseconds. Where a call fails with a reason, the reason is in errno; a function that waits should read it in
 * another function, for compilers keep errno's address, which is the former thread's. Misuse that cannot be answered
 * prints a line that begins with "csp: " or "coir: " on stderr and aborts. Nothing may be called from a signal
 * handler. */
#ifndef CSP_API_H
#define CSP_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CSP_API __attribute__((visibility("default")))
#else
#define CSP_API
#endif

#ifdef __cplusplus
#define CSP_BEGIN_DECLS extern "C" {
#define CSP_END_DECLS }
#else
#define CSP_BEGIN_DECLS
#define CSP_END_DECLS
#endif

#endif
