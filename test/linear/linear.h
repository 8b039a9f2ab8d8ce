/* A checker of linearizability, and the recording of histories.
 *
 * A history is a set of calls, each with the times at which it began and ended, and what it returned. It is
 * linearizable if every call can be given one moment between its two times, such that an object that did them one
 * after the other in that order would have returned the same (Herlihy and Wing, 1990).
 *
 * The search is that of Wing and Gong (1993): what began before anything that is left ended may come first. Lowe (2017)
 * adds the memory of what was tried: the same calls done, with the same state, need no second look. Histories of
 * objects that have nothing to do with each other are checked one by one: that is what makes them short. */
#ifndef COIR_TEST_LINEAR_H
#define COIR_TEST_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LINEAR_VALUES_MAX 16

struct linear_op {
  int64_t began, ended; /* of one clock; what ended at the time at which another began overlaps it */
  int client;
  int what;
  int64_t arg;
  int64_t result;
  int64_t values[LINEAR_VALUES_MAX]; /* for results that are many */
};

/* An object that does one call after the other. */
struct linear_object {
  size_t state_bytes;
  const void *initial; /* NULL: zeroes */
  /* Does `op` to the state. False: in this state it would not have returned what it did; the state then is anything. */
  bool (*step)(void *state, const struct linear_op *op);
  const char *(*name)(int what); /* for print */
};

enum linear_verdict { LINEAR_NO, LINEAR_YES, LINEAR_TOO_LONG };

/* Checks a history. `out` (may be NULL): where to print one that is not linearizable, with the order that came
 * farthest. LINEAR_TOO_LONG: more than 2^24 steps were not enough. */
enum linear_verdict linear_check(const struct linear_object *object, const struct linear_op *ops, size_t count,
                                 FILE *out);

#endif
