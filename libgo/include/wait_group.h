/* wait_group.h: a counter on which to wait for zero. Conventions: go.h.
 *
 * Plain memory of the caller's, which must stay in place while it is used. It may be freed as soon as
 * go_wait_group_wait has returned and nobody else waits. What was done before a go_wait_group_done is visible to those
 * that it releases. */
#ifndef LIBGO_WAIT_GROUP_H
#define LIBGO_WAIT_GROUP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct GoWaitGroup {
  uint64_t reserved[4]; /* all zero is a count of zero */
} GoWaitGroup;

/* Sets the count of a group that nobody uses to zero. */
void go_wait_group_init(GoWaitGroup *group);

/* Adds `n`, which may be negative. At zero all who wait are released. A count below zero aborts with a message that
 * says "negative WaitGroup counter". */
void go_wait_group_add(GoWaitGroup *group, int n);

/* Adds -1. */
void go_wait_group_done(GoWaitGroup *group);

/* Waits until the count is, or was, zero. Returns 0; -1 and errno ECANCELED. */
int go_wait_group_wait(GoWaitGroup *group);

/* Ends the use of a group on which nobody waits. Nothing is left of it to free, so this call may be left out. */
void go_wait_group_destroy(GoWaitGroup *group);

#ifdef __cplusplus
}
#endif
#endif
