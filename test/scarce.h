/* Memory and threads that run out when a test wants it: for programs that are linked with --wrap=malloc, =calloc,
 * =aligned_alloc and =pthread_create. */
#ifndef COIR_TEST_SCARCE_H
#define COIR_TEST_SCARCE_H

#include "harness.h"

#include <limits.h>

/* The linker sends the program's calls here (--wrap). Allocations of this thread fail when this many have been made. No
 * fiber waits while this is less than INT_MAX. */
static _Thread_local int allocations = INT_MAX;
static _Thread_local int threads = INT_MAX; /* the same for the threads that it makes */

static bool fails(int *left) { return *left != INT_MAX && (*left)-- <= 0; }

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

void *__wrap_malloc(size_t bytes) { return fails(&allocations) ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t n, size_t bytes) { return fails(&allocations) ? NULL : __real_calloc(n, bytes); }
void *__wrap_aligned_alloc(size_t align, size_t bytes) {
  return fails(&allocations) ? NULL : __real_aligned_alloc(align, bytes);
}
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
  return fails(&threads) ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}

/* Evaluates `call` with no allocation, with one, and so on, until it is true; before that it sets errno to ENOMEM. */
#define UNTIL_IT_HAS_ENOUGH(least, call)  \
  do {                                    \
    int tries = 0;                        \
    for (bool enough = false;; tries++) { \
      errno = 0;                          \
      allocations = tries;                \
      enough = (call);                    \
      int error = errno;                  \
      allocations = INT_MAX;              \
      if (enough) break;                  \
      CHECK_EQ(error, ENOMEM);            \
    }                                     \
    CHECK(tries >= (least));              \
  } while (0)

#endif
