/* What the parts of the explorer know of each other. Compiled without instrumentation. */
#ifndef COIR_TEST_EXPLORE_INSIDE_H
#define COIR_TEST_EXPLORE_INSIDE_H

#include "explore.h"

#define LOCATIONS_MAX 512 /* words that are accessed atomically, in one run */

/* What a thread knows, or a store hands on: of each word the oldest store that may still be read; of each thread up to
 * which of its steps all has happened before. */
struct view {
  uint16_t at[LOCATIONS_MAX];
  uint32_t clock[EX_THREADS_MAX];
};

/* memory.c */
enum order { RELAXED = 0, CONSUME, ACQUIRE, RELEASE, ACQ_REL, SEQ_CST };
typedef uint64_t (*update_fn)(uint64_t old, uint64_t operand);
void memory_begin(int threads); /* a new run: nothing has been stored since setup */
uint64_t memory_load(void *word, int bytes, enum order order);
void memory_store(void *word, int bytes, uint64_t value, enum order order);
/* Reads the latest, and stores update(it, operand). Returns the former. */
uint64_t memory_update(void *word, int bytes, update_fn update, uint64_t operand, enum order order);
/* Compare and swap. Returns what was found. */
uint64_t memory_swap(void *word, int bytes, uint64_t expected, uint64_t desired, enum order order, enum order failed);
void memory_fence(enum order order);
void memory_fence_all(void);
void memory_plain(const void *from, size_t bytes, bool is_write);
uint64_t memory_latest(const void *word, int bytes); /* without a step */
void memory_hand(struct view *to);                   /* what the running thread knows is added to `to` */
void memory_learn(const struct view *from);
struct view *memory_view(void); /* an empty one */
bool memory_is_shared(const void *word); /* more than one thread has used it in some run of this case */
void memory_forget_shared(void);
bool memory_found_shared(void); /* this run, which is over, has found more of them: from now on they count */

/* explore.c */
bool ex_access(void *pc); /* each access, and where it stands in the code. False: the case does not run; setup, check */
int ex_choose(int options, const char *what); /* 0 is what goes without saying */
bool ex_may_be_old(void);                      /* may a load return a value that is not the newest? */
void ex_was_old(void);                        /* it has: that counts */
void ex_step(const void *word);               /* before each atomic access: others may go first */
void ex_stored(void);                         /* somebody has stored something: who spins looks again */
void ex_trace(const char *what, const void *word, int bytes, uint64_t value, const char *note);

#endif
