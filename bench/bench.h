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
 * `value` is the median. A question with more than one figure names the others in "metric"; --quick adds
 * "quick":true.
 *
 * Every measurement runs in a child process, so that worker counts, and runs whose subject is memory, do not see
 * what an earlier one left behind. The parent never touches Coir. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>

#include "coir.h"

#define BENCH_METRICS_MAX 4

/* One figure of a question. */
struct bench_metric {
  const char *name; /* NULL for the question's main figure */
  const char *unit;
  const char *better; /* "lower" or "higher" */
};

struct bench {
  const char *question;
  struct bench_metric metrics[BENCH_METRICS_MAX]; /* ends at the first without a unit */
  /* Measures once, on the first fiber of the default runtime, and stores one figure per metric. */
  void (*run)(const struct bench *b, double *values);
  bool is_fresh; /* a process of its own for each run, and no warm-up run */
  /* Set by bench_main. */
  int workers, runs;
  bool quick;
};

/* Does all of the above; returns main's status. */
int bench_main(int argc, char **argv, struct bench *b);

/* How often to repeat what a run repeats: `full`, or a fifth of it with --quick. */
long bench_count(const struct bench *b, long full);

/* Prints "<question>: <message>" and ends the process with status 1. */
void bench_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* coir_spawn with a handle; dies when it fails. */
struct coir_fiber *bench_spawn(coir_fn fn, void *arg, const struct coir_attr *attr);

/* coir_join without limit; dies when it fails. */
void bench_join(struct coir_fiber *fiber);

/* malloc, every page touched; dies when memory is short. */
void *bench_alloc(size_t bytes);

/* Resident memory and page tables of this process, in bytes. */
double bench_rss_bytes(void);
double bench_page_table_bytes(void);

#endif
