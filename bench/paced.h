/* Pairs of fibers that keep a timetable, to see who holds them up.
 *
 * Of each pair one asks and the other answers, over two unbuffered channels, once in every period. When each question
 * is due is fixed beforehand, with all pairs spread evenly over the period. A round trip is counted from when it was
 * due until the answer is there: who is held up asks late, and that is in it, for each question that fell due
 * meanwhile. So a stall cannot hide by keeping the questions from being asked, and their number is the same whoever
 * stalls. How late timers are is in it as well. */
#ifndef BENCH_PACED_H
#define BENCH_PACED_H

#include <stdlib.h>

#include "bench.h"

struct paced {
  long pairs, rounds; /* of each pair */
  int64_t period_ns, start_ns;
  /* Set by paced_start. */
  int64_t *trips_ns; /* in the order of their due times */
  struct paced_pair *each;
};

struct paced_pair {
  const struct paced *all;
  long index;
  struct coir_chan *question, *answer;
  struct coir_fiber *asker, *answerer;
};

static inline long paced_count(const struct paced *p) { return p->pairs * p->rounds; }

/* When the question `n` of all is due: pair 0 asks first, then pair 1, ... */
static inline int64_t paced_due(const struct paced *p, long n) {
  return p->start_ns + n / p->pairs * p->period_ns + n % p->pairs * p->period_ns / p->pairs;
}

static int paced_answer(void *arg) {
  const struct paced_pair *pair = arg;
  for (long i = pair->all->rounds; i > 0; i--) bench_send(pair->answer, bench_recv(pair->question) + 1);
  return 0;
}

static int paced_ask(void *arg) {
  const struct paced_pair *pair = arg;
  for (long n = pair->index; n < paced_count(pair->all); n += pair->all->pairs) {
    int64_t due = paced_due(pair->all, n);
    if (coir_now() < due) bench_check("coir_sleep_until", coir_sleep_until(due));
    bench_send(pair->question, n);
    bench_equal("answer", bench_recv(pair->answer), n + 1);
    pair->all->trips_ns[n] = coir_now() - due;
  }
  return 0;
}

/* Spawns the pairs. */
static inline void paced_start(struct paced *p) {
  p->trips_ns = bench_alloc(paced_count(p) * sizeof p->trips_ns[0]);
  p->each = bench_alloc(p->pairs * sizeof p->each[0]);
  for (long i = 0; i < p->pairs; i++) {
    struct paced_pair *pair = &p->each[i];
    *pair = (struct paced_pair){.all = p, .index = i, .question = bench_chan(0), .answer = bench_chan(0)};
    pair->answerer = bench_spawn(paced_answer, pair, NULL);
    pair->asker = bench_spawn(paced_ask, pair, NULL);
  }
}

static inline int paced_compare(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* Waits for their ends. */
static inline void paced_join(struct paced *p) {
  for (long i = 0; i < p->pairs; i++) {
    bench_join(p->each[i].asker);
    bench_join(p->each[i].answerer);
    coir_chan_unref(p->each[i].question);
    coir_chan_unref(p->each[i].answer);
  }
  free(p->each);
}

/* How long the round trips took that were due `skip_ns` after the start or later: the longest of the shortest `part`
 * of them, in nanoseconds. */
static inline double paced_percentile(const struct paced *p, int64_t skip_ns, double part) {
  long first = 0, count = paced_count(p);
  while (first < count - 1 && paced_due(p, first) < p->start_ns + skip_ns) first++;
  count -= first;
  int64_t *sorted = bench_alloc(count * sizeof sorted[0]);
  memcpy(sorted, p->trips_ns + first, count * sizeof sorted[0]);
  qsort(sorted, count, sizeof sorted[0], paced_compare);
  long rank = (long)(part * (double)count);
  double ns = (double)sorted[rank < count ? rank : count - 1];
  free(sorted);
  return ns;
}

static inline void paced_fini(struct paced *p) { free(p->trips_ns); }

#endif
