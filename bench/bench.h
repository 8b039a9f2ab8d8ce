/* What every benchmark program shares: its arguments, its processes, statistics and its JSON lines.
 *
 * A program measures one question. It fills a struct bench and hands it to bench_main, which understands
 *
 *     b_<question> [--workers N] [--runs N] [--quick]
 *
 * (without --workers: 1 and then 2), runs the question, and prints one JSON line per worker count and metric:
 *
 *     {"question":"yield_2","impl":"coir","workers":1,"value":5.1,"unit":"ns","better":"lower","runs":5,
 *      "min":5.0,"median":5.1,"max":5.3,"machine":{"cpu":"...","cores":2,"kernel":"..."}}
 *
 * `value` is the median. A question with more than one figure names the others in "metric"; figures of another
 * configuration than the default one have another "impl"; --quick adds "quick":true. A main figure that is a time may
 * have its distribution beside it: "histogram":[[percentile,us],...], of all runs.
 *
 * Every measurement runs in a child process, so that worker counts, and runs whose subject is memory, do not see
 * what an earlier one left behind. The parent never touches Coir. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <string.h>

#include "coir.h"

#define BENCH_METRICS_MAX 16

struct hdr; /* hdr.h */

/* One figure of a question. */
struct bench_metric {
  const char *name; /* NULL for the question's main figure */
  const char *unit;
  const char *better; /* "lower" or "higher" */
};

struct bench {
  const char *question;
  struct bench_metric metrics[BENCH_METRICS_MAX]; /* ends at the first without a unit */
  const char *impls[BENCH_METRICS_MAX];           /* whose they are; NULL: "coir" */
  /* Measures once, on the first fiber of the default runtime, and stores one figure per metric; NAN where there is none
   * with so many workers. Checks what it has computed. */
  void (*run)(const struct bench *b, double *values);
  bool is_fresh; /* a process of its own for each run, and no warm-up run */
  bool is_apart; /* with is_fresh: and for each figure; `run` stores the one that `figure` says */
  bool has_histogram;
  /* Set by bench_main. */
  int workers, runs, figure;
  bool quick;
  struct hdr *histogram; /* with has_histogram: where `run` adds the times in ns that the main figure is made of */
};

/* Does all of the above; returns main's status. */
int bench_main(int argc, char **argv, struct bench *b);

/* How often to repeat what a run repeats: `full`, or a fifth of it with --quick. */
long bench_count(const struct bench *b, long full);

/* Prints "<question>: <message>" and ends the process with status 1. */
void bench_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Dies when a call of Coir has failed. */
static inline void bench_check(const char *call, int rc) {
  if (rc < 0) bench_die("%s: %s", call, strerror(-rc));
}

/* coir_spawn with a handle; dies when it fails. */
struct coir_fiber *bench_spawn(coir_fn fn, void *arg, const struct coir_attr *attr);

/* coir_join without limit; dies when it fails. */
void bench_join(struct coir_fiber *fiber);

/* coir_chan_create for values of type long; dies when it fails. */
static inline struct coir_chan *bench_chan(size_t capacity) {
  struct coir_chan *chan = coir_chan_create(sizeof(long), capacity);
  if (!chan) bench_die("coir_chan_create: out of memory");
  return chan;
}

/* coir_chan_send and coir_chan_recv of a long without limit; die when they fail. */
static inline void bench_send(struct coir_chan *chan, long value) {
  bench_check("coir_chan_send", coir_chan_send(chan, &value, COIR_NEVER));
}
static inline long bench_recv(struct coir_chan *chan) {
  long value;
  bench_check("coir_chan_recv", coir_chan_recv(chan, &value, COIR_NEVER));
  return value;
}

/* Dies unless a result is what it must be. */
void bench_equal(const char *what, long value, long expected);

/* The sum of 1 to `n`. */
static inline long bench_sum(long n) { return n * (n + 1) / 2; }

/* malloc, every page touched; dies when memory is short. */
void *bench_alloc(size_t bytes);

/* Resident memory and page tables of this process, in bytes. */
double bench_rss_bytes(void);
double bench_page_table_bytes(void);

#endif
