/* The explorer: runs a few threads of a case, step by step on one real thread, in every order that matters, and with
 * every value that their loads may return.
 *
 * The sources of the core are compiled as they are, with the compiler's instrumentation for ThreadSanitizer; but what
 * that calls is the explorer (hooks.c), which so hears of each access to memory. An atomic access is a step: before
 * it any other thread may go on. What a load returns is chosen, too: the memory (memory.c) keeps what was stored, and
 * a thread sees at least what it has to by the rules of C11. So a fence that is missing, or an order that is too
 * weak, shows as a value that is too old; and ordinary accesses that are not ordered show as a race.
 *
 * A case is run again and again, each time differently (explore.c): all ways there are with at most so many
 * preemptions and old values; or, where that is too much, ways chosen at random from a seed that is told.
 *
 * Sources: stateless search with bounded preemptions: Musuvathi and Qadeer, "Iterative Context Bounding for
 * Systematic Testing of Multithreaded Programs", PLDI 2007; memory as histories of stores with views: Kang, Hur,
 * Lahav, Vafeiadis, Dreyer, "A Promising Semantics for Relaxed-Memory Concurrency", POPL 2017 (without promises: no
 * load sees a store that comes later); races by clocks: Flanagan and Freund, "FastTrack", PLDI 2009. */
#ifndef COIR_TEST_EXPLORE_H
#define COIR_TEST_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EX_THREADS_MAX 4

struct ex_case {
  const char *name;
  int threads;            /* 1 to EX_THREADS_MAX */
  void (*setup)(void);    /* alone, before */
  void (*thread)(int me); /* each of them; me from 0 */
  void (*check)(void);    /* alone, when all have returned */
  int preemptions;        /* at most so many; a thread that waits or is done may always be followed by another */
  int old_values;         /* at most so many loads return what has been overwritten */
};

/* Runs the case that the arguments name, or all: [--deeper N] [--random N] [--seed S] [CASE]. --deeper: with so many
 * more preemptions and old values. Returns 0, or 1 when a case failed: then how is printed, step by step. */
int ex_main(int argc, char **argv, const struct ex_case *cases, int count);

/* For cases, and for what stands in for the system. */

/* The case fails, and this way of running it ends here. */
void ex_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
#define EX_CHECK(holds) \
  do { \
    if (!(holds)) ex_fail("%s:%d: %s", __FILE_NAME__, __LINE__, #holds); \
  } while (0)
#ifndef __FILE_NAME__
#define __FILE_NAME__ __FILE__
#endif

int ex_me(void); /* the thread that runs; -1: setup or check */

/* The thread has nothing to do until another one has stored something. Others go first. */
void ex_spin(void);

/* Something between threads that is not under test: who waits goes on once it was posted, and sees what was done
 * before. Counts: so many posts let so many pass. Part of the case's memory, zeroed. */
struct ex_event {
  int posts;
  void *seen; /* views that came with them */
};
void ex_post(struct ex_event *event);
void ex_await(struct ex_event *event);
bool ex_take(struct ex_event *event); /* without waiting */

/* Zeroed memory until this run of the case is over; always the same one. */
void *ex_alloc(size_t bytes);

/* Sleeps while the word has that value, like a futex; `deadline` in ns, or INT64_MAX. False: it has come. */
bool ex_sleep(_Atomic(uint32_t) *word, uint32_t value, int64_t deadline);
void ex_wake(_Atomic(uint32_t) *word, int count);
int64_t ex_now(void); /* a clock that stands still but for deadlines */

/* Every thread executes a full fence (membarrier). */
void ex_fence_all(void);

#endif
