/* What stands in for the system, and for what is not under test, and what cases build upon. Instrumented. */
#ifndef COIR_TEST_EXPLORE_STAND_H
#define COIR_TEST_EXPLORE_STAND_H

#include "explore.h"

#include "wait.h"

/* A runtime that does not run, with its workers; each thread of the case has a record. */
#define STAND_WORKERS 4
#define STAND_FIBERS 8
extern struct coir_runtime stand_runtime;
extern struct coir__worker stand_workers[STAND_WORKERS];
extern struct coir_fiber stand_fibers[STAND_FIBERS];
extern struct coir__thread stand_threads[EX_THREADS_MAX];

void stand_setup(int workers);

/* The thread carries that worker, which runs that fiber, or none. In setup. */
void stand_carry(int thread, int worker, struct coir_fiber *fiber);

/* How often the fiber has been made ready, and has not gone on yet; posted by coir__ready. */
extern struct ex_event stand_ready[STAND_FIBERS];
int stand_index(const struct coir_fiber *fiber);

/* How often the fiber has been suspended; whether it is off its stack just now. */
extern int stand_parks[STAND_FIBERS];
extern bool stand_is_off[STAND_FIBERS];

/* Instead of coir__wait_commit by the thread that suspends it: another one does it when it hears of it. NULL: not. */
extern struct ex_event *stand_left[STAND_FIBERS];

#endif
