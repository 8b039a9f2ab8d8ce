/* Which sanitizers a test is built with, by gcc or clang: 1 or 0. They make everything slower, keep what was freed, and
 * ThreadSanitizer has a thread of its own and holds signals back. */
#ifndef COIR_TEST_SANITIZERS_H
#define COIR_TEST_SANITIZERS_H

#ifdef __has_feature
#define SANITIZERS_HAVE(x) __has_feature(x)
#else
#define SANITIZERS_HAVE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || SANITIZERS_HAVE(thread_sanitizer)
#define IS_TSAN 1
#else
#define IS_TSAN 0
#endif
#if IS_TSAN || defined(__SANITIZE_ADDRESS__) || SANITIZERS_HAVE(address_sanitizer)
#define IS_SANITIZED 1
#else
#define IS_SANITIZED 0
#endif

#endif
