/* What libcsp tells of itself: counts, the dump, the trace. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "csp_internal.h"
#include "runtime.h"

#define LISTED_MAX 1000
#define LINE_MAX_BYTES 160

_Atomic(bool) csp__traces;

/* ---- Counts ---------------------------------------------------------------------------------------------------- */

/* Lists all fibers. The caller frees `*out`, NULL when memory is short; then it is as if there were none. */
static size_t list(struct coir_runtime *rt, struct coir_fiber_info **out) {
  size_t max = coir_runtime_list(rt, NULL, 0) + 64; /* some may come meanwhile */
  *out = malloc(max * sizeof **out);
  size_t n = *out ? coir_runtime_list(rt, *out, max) : 0;
  return n < max ? n : max;
}

static bool is_goroutine(const struct coir_fiber_info *info) { return info->entry != csp__context_expire; }

static size_t count(struct coir_runtime *rt) {
  struct coir_fiber_info *all;
  size_t n = coir_runtime_list(rt, NULL, 0);
  /* After the look, which acquires what came before a fiber that it has seen: so none of them was a deadline's. */
  if (!atomic_load_explicit(&csp__has_deadlines, memory_order_relaxed)) return n;
  n = 0;
  for (size_t i = list(rt, &all); i-- > 0;) n += is_goroutine(&all[i]);
  free(all);
  return n;
}

int runtime_num_goroutines(void) {
  struct coir_runtime *rt = csp__runtime_or_null();
  return rt ? (int)count(rt) : 0;
}

int runtime_num_workers(void) {
  struct coir_stats stats = {0};
  struct coir_runtime *rt = csp__runtime();
  if (rt) coir_runtime_get_stats(rt, &stats);
  return stats.workers;
}

/* ---- The dump -------------------------------------------------------------------------------------------------- */

/* From the line "Threads:" of the kernel's account of the process; 0 when it gives none. */
static int threads(void) {
  char line[128];
  int n = 0;
  FILE *f = fopen("/proc/self/status", "re");
  while (f && fgets(line, sizeof line, f) && sscanf(line, "Threads: %d", &n) != 1) {}
  if (f) fclose(f);
  return n;
}

static void print_head(FILE *f, const struct coir_stats *stats, size_t goroutines) {
  fprintf(f, "Runtime Stats:\n  Goroutines: %zu\n  Workers:    %d\n  Threads:    %d\n", goroutines, stats->workers,
          threads());
  fprintf(f, "  Spares:     %" PRIu64 "\n  Hand-offs:  %" PRIu64 "\n  Preempted:  %" PRIu64 "\n", stats->spares,
          stats->handoffs, stats->preemptions);
  fprintf(f, "  Stalls:     %" PRIu64 ", longest %" PRId64 " us\n", stats->stalls,
          stats->longest_stall_ns / COIR_US(1));
}

static void print_goroutine(FILE *f, const struct coir_fiber_info *info, int64_t now) {
  fprintf(f, "  goroutine %" PRIu64 ": ", info->id);
  if (info->state == COIR_FIBER_RUNNING) fprintf(f, "runs");
  else if (info->state == COIR_FIBER_READY) fprintf(f, "ready");
  else {
    fprintf(f, "waits for %s", info->waits_for);
    if (info->waits_on) fprintf(f, " 0x%" PRIx64, info->waits_on);
    fprintf(f, " for %" PRId64 " ms", info->since && info->since < now ? (now - info->since) / COIR_MS(1) : 0);
  }
  if (info->worker >= 0) fprintf(f, ", worker %d", info->worker);
  fprintf(f, "\n");
}

static int by_id(const void *a, const void *b) {
  const struct coir_fiber_info *x = a, *y = b;
  return x->id < y->id ? -1 : x->id > y->id;
}

static void print_all(FILE *f, struct coir_runtime *rt) {
  struct coir_stats stats;
  struct coir_fiber_info *all;
  size_t n = list(rt, &all), goroutines = 0, listed = 0;
  int64_t now = coir_now();
  coir_runtime_get_stats(rt, &stats);
  for (size_t i = 0; i < n; i++) goroutines += is_goroutine(&all[i]);
  print_head(f, &stats, goroutines);
  if (n) qsort(all, n, sizeof *all, by_id);
  for (size_t i = 0; i < n && listed < LISTED_MAX; i++) {
    if (!is_goroutine(&all[i])) continue;
    print_goroutine(f, &all[i], now);
    listed++;
  }
  if (goroutines > listed) fprintf(f, "  and %zu more\n", goroutines - listed);
  free(all);
}

char *csp__dump_text(struct coir_runtime *rt, size_t *bytes) {
  char *text = NULL;
  FILE *f = open_memstream(&text, bytes);
  if (!f) return NULL;
  print_all(f, rt);
  if (fclose(f) == 0) return text;
  free(text);
  return NULL;
}

void runtime_dump(void) {
  struct coir_runtime *rt = csp__runtime();
  size_t bytes;
  char *text = rt ? csp__dump_text(rt, &bytes) : NULL;
  if (!text) return;
  fwrite(text, 1, bytes, stdout);
  fflush(stdout);
  free(text);
}

/* ---- The trace ------------------------------------------------------------------------------------------------- */

struct traced {
  void (*fn)(void *arg);
  void *arg;
};

static void tell(const char *what) {
  char line[LINE_MAX_BYTES];
  int n = snprintf(line, sizeof line, "csp: trace: %" PRId64 " goroutine %" PRIu64 " %s on worker %d\n", coir_now(),
                   coir_fiber_id(NULL), what, coir_worker_index());
  ssize_t written = write(STDERR_FILENO, line, (size_t)n);
  (void)written; /* nobody is left to tell */
}

static void traced_run(void *p) {
  struct traced t = *(struct traced *)p;
  free(p);
  tell("begins");
  t.fn(t.arg);
  tell("ends");
}

coir_fn csp__trace_wrap(void (*fn)(void *arg), void *arg, void **arg_out) {
  struct traced *t = malloc(sizeof *t);
  if (!t) {
    csp__fail(-ENOMEM);
    return NULL;
  }
  *t = (struct traced){fn, arg};
  *arg_out = t;
  return (coir_fn)(void (*)(void))traced_run;
}

void runtime_trace_enable(bool on) { atomic_store_explicit(&csp__traces, on, memory_order_relaxed); }
