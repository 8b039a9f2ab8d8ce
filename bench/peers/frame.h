/* The frame of peers that are written in C and C++: the same arguments, statistics and JSON lines as bench/bench.h.
 *
 * Every worker count is measured in a process of its own. */
#ifndef PEERS_FRAME_H
#define PEERS_FRAME_H

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../hdr.h"

#define PEER_METRICS_MAX 12
#define PEER_RUNS_MAX 1000

struct peer_metric {
  const char *name, *unit; /* the main figure has no name; lower is better in all of them */
};

struct peer {
  const char *impl, *question;
  struct peer_metric metrics[PEER_METRICS_MAX];         /* ends at the first without a unit */
  void (*run)(const struct peer *peer, double *values); /* measures once; NAN: not with so many workers */
  struct hdr *histogram; /* NULL, or where `run` adds the times in ns that the main figure is made of */
  /* Set by peer_main. */
  int workers, runs;
  bool quick;
};

static inline void peer_die(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

/* Ends the program when what it computed is wrong. */
static inline void peer_check(const char *what, uint64_t value, uint64_t expected) {
  if (value == expected) return;
  fprintf(stderr, "%s: %llu, not %llu\n", what, (unsigned long long)value, (unsigned long long)expected);
  exit(1);
}

static inline long peer_count(const struct peer *peer, long full) { return peer->quick ? full / 5 : full; }

/* How often to do what has `size` parts, for `full` parts in all, or a fifth of them with --quick. */
static inline long peer_times(const struct peer *peer, long full, long size) {
  long times = peer_count(peer, full) / size;
  return times > 0 ? times : 1;
}

static inline int64_t peer_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline double peer_each(int64_t start_ns, long n) { return (double)(peer_now() - start_ns) / (double)n; }

static int peer_compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts them, and returns the one at `part` of their number. */
static inline double peer_quantile(double *values, long count, double part) {
  qsort(values, (size_t)count, sizeof *values, peer_compare);
  return values[(long)((double)count * part)];
}

static void peer_print_machine(void) {
  struct utsname names;
  char line[512], cpu[256] = "";
  FILE *info = fopen("/proc/cpuinfo", "r");
  uname(&names);
  while (info && !*cpu && fgets(line, sizeof line, info)) {
    if (strncmp(line, "model name", 10) == 0) sscanf(line, "%*[^:]: %255[^\n\"\\]", cpu);
  }
  if (info) fclose(info);
  printf("\"machine\":{\"cpu\":\"%s\",\"cores\":%ld,\"kernel\":\"%s\"}}\n", *cpu ? cpu : names.machine,
         sysconf(_SC_NPROCESSORS_ONLN), names.release);
}

/* Up to the last percentile that so few values can tell from their maximum. */
static void peer_print_histogram(const struct hdr *h) {
  static const double percents[] = {50, 75, 90, 99, 99.9, 99.99};
  printf("\"histogram\":[");
  for (int i = 0; i < 6 && (100 - percents[i]) / 100 * (double)h->count >= 1; i++) {
    printf("%s[%g,%.6g]", i ? "," : "", percents[i], (double)hdr_percentile(h, percents[i]) / 1e3);
  }
  printf("],");
}

static void peer_report(const struct peer *peer, int m, double *values) {
  int n = peer->runs;
  if (isnan(values[0])) return;
  qsort(values, (size_t)n, sizeof *values, peer_compare);
  double median = (values[(n - 1) / 2] + values[n / 2]) / 2;
  printf("{\"question\":\"%s\",", peer->question);
  if (*peer->metrics[m].name) printf("\"metric\":\"%s\",", peer->metrics[m].name);
  printf("\"impl\":\"%s\",\"workers\":%d,\"value\":%.6g,", peer->impl, peer->workers, median);
  printf("\"unit\":\"%s\",\"better\":\"lower\",\"runs\":%d,", peer->metrics[m].unit, n);
  printf("\"min\":%.6g,\"median\":%.6g,\"max\":%.6g,", values[0], median, values[n - 1]);
  if (peer->quick) printf("\"quick\":true,");
  if (peer->histogram && !*peer->metrics[m].name) peer_print_histogram(peer->histogram);
  peer_print_machine();
}

static void peer_measure(const struct peer *peer) {
  static double samples[PEER_METRICS_MAX][PEER_RUNS_MAX];
  double values[PEER_METRICS_MAX] = {0};
  if (peer->histogram) hdr_init(peer->histogram);
  peer->run(peer, values); /* warm-up */
  if (peer->histogram) hdr_init(peer->histogram);
  for (int i = 0; i < peer->runs; i++) {
    peer->run(peer, values);
    for (int m = 0; m < PEER_METRICS_MAX; m++) samples[m][i] = values[m];
  }
  for (int m = 0; m < PEER_METRICS_MAX && peer->metrics[m].unit; m++) peer_report(peer, m, samples[m]);
  fflush(stdout);
}

static void peer_measure_in_child(struct peer *peer, int workers) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    peer->workers = workers;
    peer_measure(peer);
    _exit(0);
  }
  int status;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) peer_die("the measuring process has failed");
}

/* Takes the value of `--name` out of the arguments, or returns NULL. */
static inline const char *peer_option(int *argc, char **argv, const char *name) {
  for (int i = 1; i + 1 < *argc; i++) {
    if (strcmp(argv[i], name) != 0) continue;
    const char *value = argv[i + 1];
    memmove(argv + i, argv + i + 2, (size_t)(*argc - i - 1) * sizeof *argv);
    *argc -= 2;
    return value;
  }
  return NULL;
}

/* Measures what the command line asks for; returns main's status. */
static int peer_main(int argc, char **argv, struct peer *peer) {
  const char *workers = peer_option(&argc, argv, "--workers"), *runs = peer_option(&argc, argv, "--runs");
  peer->runs = runs ? atoi(runs) : 5;
  peer->quick = argc == 2 && strcmp(argv[1], "--quick") == 0;
  if (argc > 1 + peer->quick || peer->runs < 1 || peer->runs > PEER_RUNS_MAX || (workers && atoi(workers) < 1)) {
    peer_die("usage: PROGRAM [--workers N] [--runs N] [--quick]");
  }
  if (workers) {
    peer_measure_in_child(peer, atoi(workers));
    return 0;
  }
  for (int n = 1; n <= 2; n++) peer_measure_in_child(peer, n);
  return 0;
}

#endif
