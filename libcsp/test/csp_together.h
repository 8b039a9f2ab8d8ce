/* csp_together.h: what the two halves of CspTogetherTest share. */
#ifndef CSP_TOGETHER_H
#define CSP_TOGETHER_H

#include <stdint.h>

enum { TOGETHER = 500 };

struct together {
  void *requests, *answers;
  int64_t sum; /* of the answers */
};

/* Sends 1 to TOGETHER as requests, closes them, and adds up the answers. */
void gof_half(struct together *t);

#endif
