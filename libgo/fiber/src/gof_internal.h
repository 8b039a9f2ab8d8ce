/* What the files of go_fiber share. */
#ifndef GOF_INTERNAL_H
#define GOF_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define GOF_KEEP_ERRNO 1 /* errno is named in functions of their own only, which do not wait */

#include <stdbool.h>

#include "coir.h"
#include "libgo/fiber.h"

/* Sets errno to -rc and returns -1. */
int gof__fail(int64_t rc);

/* The runtime, made with `default_stack_bytes` if there is none. */
struct coir_runtime *gof__runtime(size_t default_stack_bytes);

/* Called once, before the runtime is made. */
void gof__trace_begin(void);

/* All living fibers as text, which the caller frees; NULL when memory is short. Does not wait. */
char *gof__dump_text(struct coir_runtime *rt, size_t *bytes);

/* The child of a fork has none of those who were writing a dump. */
void gof__turns_fork_child(void);

/* Prints "gof: ..." to stderr, as one write. */
void gof__say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef GOF_DEBUG
#define GOF_LOG(...) gof__say(__VA_ARGS__)
#else
#define GOF_LOG(...) ((void)0)
#endif

#endif
