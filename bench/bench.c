/* The frame of the benchmark programs; bench.h says what it does. */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hdr.h"

#define RUNS_DEFAULT 5
#define RUNS_MAX 1000

static const char *question = "bench";

void bench_die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "%s: ", question);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  _exit(1); /* not exit: in a child, the handlers are the parent's */
}

long bench_count(const struct bench *b, long full) { return b->quick ? full / 5 : full; }

struct coir_fiber *bench_spawn(coir_fn fn, void *arg, const struct coir_attr *attr) {
  struct coir_fiber *fiber;
  bench_check("coir_spawn", coir_spawn(fn, arg, attr, &fiber));
  return fiber;
}

void bench_join(struct coir_fiber *fiber) { bench_check("coir_join", coir_join(fiber, NULL, COIR_NEVER)); }

void bench_equal(const char *what, long value, long expected) {
  if (value != expected) bench_die("%s: %ld, not %ld", what, value, expected);
}

void *bench_alloc(size_t bytes) {
  void *memory = malloc(bytes);
  if (!memory) bench_die("out of memory");
  /* Not zeros: the compiler would make that a calloc, which touches nothing. */
  return memset(memory, 0x5a, bytes);
}

/* ---- Facts from /proc
 * ---------------------------------------------------------------------------------------------- */

/* Finds "<key>...: <value>" in a file of such lines and copies the value. Returns whether it was there. */
static bool find_line(const char *path, const char *key, char *value, size_t bytes) {
  FILE *file = fopen(path, "r");
  char line[512];
  bool found = false;
  while (file && !found && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
    char *text = colon + 1 + strspn(colon + 1, " \t");
    text[strcspn(text, "\n")] = 0;
    snprintf(value, bytes, "%s", text);
    found = true;
  }
  if (file) fclose(file);
  return found;
}

static double kilobytes(const char *path, const char *key) {
  char value[64];
  if (!find_line(path, key, value, sizeof value)) bench_die("%s has no %s", path, key);
  return strtod(value, NULL) * 1024;
}

/* The roll-up walks the page tables and is exact; the counters of /proc/self/status may lag by some hundred pages. */
double bench_rss_bytes(void) { return kilobytes("/proc/self/smaps_rollup", "Rss"); }

double bench_page_table_bytes(void) { return kilobytes("/proc/self/status", "VmPTE"); }

/* ---- Output
 * -------------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(const double *sorted, int count) {
  return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

static void print_machine(void) {
  struct utsname names;
  char cpu[256];
  uname(&names);
  if (!find_line("/proc/cpuinfo", "model name", cpu, sizeof cpu)) snprintf(cpu, sizeof cpu, "%s", names.machine);
  for (char *c = cpu; *c; c++) {
    if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = ' ';
  }
  printf("\"machine\":{\"cpu\":\"%s\",", cpu);
  printf("\"cores\":%ld,\"kernel\":\"%s\"}", sysconf(_SC_NPROCESSORS_ONLN), names.release);
}

/* Up to the last percentile that so few values can tell from their maximum. */
static void print_histogram(const struct hdr *h) {
  static const double percents[] = {50, 75, 90, 99, 99.9, 99.99};
  const char *comma = "";
  printf("\"histogram\":[");
  for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
    if ((100 - percents[i]) / 100 * (double)h->count < 1) break;
    printf("%s[%g,%.6g]", comma, percents[i], (double)hdr_percentile(h, percents[i]) / 1e3);
    comma = ",";
  }
  printf("],");
}

/* `sorted`: the figures of all runs, in order. */
static void print_line(const struct bench *b, int m, const double *sorted) {
  const struct bench_metric *metric = &b->metrics[m];
  printf("{\"question\":\"%s\",", b->question);
  if (metric->name) printf("\"metric\":\"%s\",", metric->name);
  printf("\"impl\":\"%s\",\"workers\":%d,\"value\":%.6g,", b->impls[m] ? b->impls[m] : "coir", b->workers,
         median(sorted, b->runs));
  printf("\"unit\":\"%s\",\"better\":\"%s\",\"runs\":%d,", metric->unit, metric->better, b->runs);
  printf("\"min\":%.6g,\"median\":%.6g,\"max\":%.6g,", sorted[0], median(sorted, b->runs), sorted[b->runs - 1]);
  if (b->quick) printf("\"quick\":true,");
  if (b->has_histogram && !metric->name) print_histogram(b->histogram);
  print_machine();
  printf("}\n");
}

/* ---- Processes
 * ----------------------------------------------------------------------------------------------------- */

/* What a child measures, and where its figures go: BENCH_METRICS_MAX doubles per run. */
struct batch {
  const struct bench *b;
  int runs;
  int out;
};

static int measure(void *arg) {
  const struct batch *s = arg;
  double values[BENCH_METRICS_MAX] = {0};
  if (!s->b->is_fresh) s->b->run(s->b, values); /* warms caches, pools and the branch predictor */
  if (s->b->has_histogram && !s->b->is_fresh) hdr_init(s->b->histogram);
  for (int i = 0; i < s->runs; i++) {
    s->b->run(s->b, values);
    if (write(s->out, values, sizeof values) != sizeof values) bench_die("write: %s", strerror(errno));
  }
  return 0;
}

static void child_main(const struct batch *s) {
  struct coir_config config = {.size = sizeof config, .workers = s->b->workers};
  bench_check("coir_configure", coir_configure(&config));
  bench_check("coir_run", coir_run(measure, (void *)s));
  _exit(0);
}

/* Measures `runs` times in one child process. */
static void measure_in_child(const struct bench *b, int runs, double (*samples)[BENCH_METRICS_MAX]) {
  int ends[2];
  if (pipe(ends) != 0) bench_die("pipe: %s", strerror(errno));
  pid_t pid = fork();
  if (pid < 0) bench_die("fork: %s", strerror(errno));
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever gives up on this program means the measurement */
    close(ends[0]);
    child_main(&(struct batch){.b = b, .runs = runs, .out = ends[1]});
  }
  close(ends[1]);
  int got = 0;
  while (got < runs && read(ends[0], samples[got], sizeof samples[got]) == sizeof samples[got]) got++;
  close(ends[0]);
  int status;
  if (waitpid(pid, &status, 0) != pid) bench_die("waitpid: %s", strerror(errno));
  if (WIFSIGNALED(status)) bench_die("workers %d: ended by signal %d", b->workers, WTERMSIG(status));
  if (status != 0 || got < runs) bench_die("workers %d: it failed after %d of %d runs", b->workers, got, runs);
}

/* The figures of one run, each from a process of its own. */
static void measure_apart(const struct bench *b, double *sample) {
  double values[BENCH_METRICS_MAX];
  struct bench one = *b;
  for (one.figure = 0; one.figure < BENCH_METRICS_MAX && b->metrics[one.figure].unit; one.figure++) {
    measure_in_child(&one, 1, &values);
    sample[one.figure] = values[one.figure];
  }
}

static void measure_workers(const struct bench *b) {
  double samples[RUNS_MAX][BENCH_METRICS_MAX];
  if (b->has_histogram) hdr_init(b->histogram);
  if (b->is_fresh) {
    for (int i = 0; i < b->runs; i++) {
      if (b->is_apart) measure_apart(b, samples[i]);
      else measure_in_child(b, 1, samples + i);
    }
  } else {
    measure_in_child(b, b->runs, samples);
  }
  for (int m = 0; m < BENCH_METRICS_MAX && b->metrics[m].unit; m++) {
    double sorted[RUNS_MAX];
    for (int i = 0; i < b->runs; i++) sorted[i] = samples[i][m];
    qsort(sorted, b->runs, sizeof sorted[0], compare);
    if (!isnan(sorted[0])) print_line(b, m, sorted);
  }
  fflush(stdout);
}

/* ---- Arguments
 * ----------------------------------------------------------------------------------------------------- */

static int parse_count(const char *text, int max) {
  char *end;
  long n = text ? strtol(text, &end, 10) : 0;
  if (n < 1 || n > max || *end) bench_die("a number from 1 to %d is needed, not '%s'", max, text ? text : "");
  return (int)n;
}

int bench_main(int argc, char **argv, struct bench *b) {
  question = b->question;
  b->runs = RUNS_DEFAULT;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--workers") == 0) b->workers = parse_count(argv[++i], 64);
    else if (strcmp(argv[i], "--runs") == 0) b->runs = parse_count(argv[++i], RUNS_MAX);
    else if (strcmp(argv[i], "--quick") == 0) b->quick = true;
    else bench_die("usage: %s [--workers N] [--runs N] [--quick]", argv[0]);
  }
  if (b->has_histogram) { /* shared: the processes that measure write it, and this one reads it */
    b->histogram = mmap(NULL, sizeof *b->histogram, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->histogram == MAP_FAILED) bench_die("mmap: %s", strerror(errno));
  }
  if (b->workers) {
    measure_workers(b);
    return 0;
  }
  for (b->workers = 1; b->workers <= 2; b->workers++) measure_workers(b);
  return 0;
}
