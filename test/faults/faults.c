/* Every call of the library fails once, in turn: README.md.
 *
 * A case is a scene, played in a process of its own with one call failing, and then played again with none: the first
 * time it has to succeed or to report an error that the failed call may report; the second time it has to succeed,
 * since nothing that failed once is lost for good. What the library holds afterwards must be no more, place by place,
 * than when nothing failed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "faults.h"

#define LIMIT_MS (IS_SANITIZED ? 120000 : 30000) /* for a case: other programs may be in the way */
#define SETTLE_MS (IS_SANITIZED ? 20000 : 5000)  /* until threads that are about to end have */
#define PLANTED_MS (IS_SANITIZED ? 800 : 200)
#define REFERENCES 3
#define CODES_MAX 8
#define EXIT_LEAK 3

/* Descriptions of regions of stacks stay: there is a page more once more than eight were there at a time. In hard mode
 * that is a matter of chance. */
#ifdef COIR_HARD
#define MAPPED_BY_CHANCE sysconf(_SC_PAGESIZE)
#else
#define MAPPED_BY_CHANCE 0
#endif

static const struct {
  const char *name;
  int errors[CODES_MAX];
  const char *error_names; /* the same, as they are written */
} kinds[] = {
#define KIND(name, ...) {#name, {__VA_ARGS__}, #__VA_ARGS__},
    FAULT_KINDS(KIND)
#undef KIND
};

/* What a process that plays tells the one that has started it. */
static struct report {
  int rc; /* of the scene, the first time */
  bool has_come;
  int counts[FAULT_KIND_COUNT];
  struct fault_holdings holdings;
} * report;

static struct fault_holdings reference; /* the most that there was when nothing failed */
static bool is_planted;                 /* the scene is expected to fail */

/* The name of error number i of the kind. */
static const char *error_name(enum fault_kind kind, int i) {
  static char name[32];
  const char *from = kinds[kind].error_names;
  for (; i > 0; i--) from = strchr(from, ',') + 2;
  if (strncmp(from, "FAULT_", 6) == 0) from += 6;
  snprintf(name, sizeof name, "%.*s", (int)strcspn(from, ","), from);
  return name;
}

static void *shared_memory(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) abort();
  return memory;
}

/* ---- Outcomes -------------------------------------------------------------------------------------------------- */

/* What the system said may be passed on, but that a signal came in between. */
static bool is_of_call(long rc) {
  enum fault_kind kind;
  int error = fault_injected(&kind);
  return rc == -error && error != EINTR && error < FAULT_SHORT;
}

int fault_outcome(const char *call, long rc, const int *codes, const char *file, int line) {
  if (rc >= 0) return (int)rc;
  bool is_listed = false;
  for (int i = 0; codes[i]; i++) is_listed |= codes[i] == OF_CALL ? is_of_call(rc) : codes[i] == rc;
  if (is_listed && fault_has_come()) return (int)rc;
  fprintf(stderr, "%s:%d: %s is %ld (%s), %s\n", file, line, call, rc, strerror((int)-rc),
          fault_has_come() ? "which its documentation does not say" : "though nothing has failed");
  abort();
}

/* ---- Holdings -------------------------------------------------------------------------------------------------- */

static int count_at(const struct fault_holdings *h, void *site) {
  for (int i = 0; i < FAULT_SITES_MAX; i++)
    if (h->sites[i].site == site) return h->sites[i].count;
  return 0;
}

static void at_least(struct fault_holdings *to, const struct fault_holdings *from) {
  for (int i = 0; i < FAULT_SITES_MAX && from->sites[i].site; i++)
    for (int k = 0; k < FAULT_SITES_MAX; k++) {
      if (to->sites[k].site && to->sites[k].site != from->sites[i].site) continue;
      to->sites[k].site = from->sites[i].site;
      if (to->sites[k].count < from->sites[i].count) to->sites[k].count = from->sites[i].count;
      break;
    }
  if (to->mapped_bytes < from->mapped_bytes) to->mapped_bytes = from->mapped_bytes;
}

/* Records of threads, which stay: there are as many as there were threads at a time, which is a matter of chance. */
static bool is_left_open(void *site) { return site == fault_site_of_records(); }

static bool is_too_much(const struct fault_holdings *h, bool tells) {
  bool any = false;
  for (int i = 0; i < FAULT_SITES_MAX && h->sites[i].site; i++) {
    int more = h->sites[i].count - count_at(&reference, h->sites[i].site);
    if (more <= 0 || is_left_open(h->sites[i].site)) continue;
    any = true;
    Dl_info info;
    const char *name = dladdr(h->sites[i].site, &info) && info.dli_sname ? info.dli_sname : "?";
    uintptr_t base = dladdr(h->sites[i].site, &info) ? (uintptr_t)info.dli_fbase : 0;
    if (tells)
      fprintf(stderr, "not given back: %d taken at %s (%#lx)\n", more, name,
              (unsigned long)((uintptr_t)h->sites[i].site - base));
  }
  long more = h->mapped_bytes - reference.mapped_bytes - MAPPED_BY_CHANCE;
  if (more > 0 && tells) fprintf(stderr, "not given back: %ld bytes of mappings\n", more);
  return any || more > 0;
}

/* ---- Playing --------------------------------------------------------------------------------------------------- */

static void nap_ms(int ms) { poll(NULL, 0, ms); }

static void play(const struct fault_scene *scene, enum fault_kind kind, int nth, int error) {
  fault_arm(kind, nth, error);
  report->rc = scene->play();
  for (int k = 0; k < FAULT_KIND_COUNT; k++) report->counts[k] = fault_count((enum fault_kind)k);
  report->has_come = fault_has_come();
  fault_disarm();
  if (report->rc && !report->has_come) {
    fprintf(stderr, "the scene returns %d though nothing has failed\n", report->rc);
    _exit(1);
  }
  int rc = scene->play();
  if (rc) {
    fprintf(stderr, "played again, with nothing failing, the scene returns %d\n", rc);
    _exit(1);
  }
  if (!nth) nap_ms(30); /* what is about to be given back is not to be taken for what stays */
  fault_holdings_get(&report->holdings);
  for (int ms = 0; nth && ms < (is_planted ? PLANTED_MS : SETTLE_MS) && is_too_much(&report->holdings, false);
       ms += 10) {
    nap_ms(10);
    fault_holdings_get(&report->holdings);
  }
  _exit(nth && is_too_much(&report->holdings, true) ? EXIT_LEAK : 0);
}

/* In a process of its own; `which`: of the errors of the kind. Returns 0 if it went well; else says why not. */
static int play_case(const struct fault_scene *scene, enum fault_kind kind, int nth, int which) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0) {
    perror("fork");
    exit(1);
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    play(scene, kind, nth, kinds[kind].errors[which]);
  }
  int status = 0, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  struct pollfd end = {.fd = pidfd, .events = POLLIN};
  bool is_over = poll(&end, 1, is_planted ? 15 * PLANTED_MS : LIMIT_MS) == 1;
  if (!is_over) kill(pid, SIGKILL);
  close(pidfd);
  waitpid(pid, &status, 0);
  if (status == 0) return 0;
  printf("%s %s: %s:%s:%s:%d ", is_planted ? "found" : "FAILED", scene->name, scene->name, kinds[kind].name,
         nth ? error_name(kind, which) : "none", nth);
  if (!is_over) printf("hangs\n");
  else if (WIFSIGNALED(status)) printf("ends by signal %d\n", WTERMSIG(status));
  else printf("%s\n", WEXITSTATUS(status) == EXIT_LEAK ? "leaks" : "fails");
  return 1;
}

/* ---- Cases ----------------------------------------------------------------------------------------------------- */

/* What is asked for. */
static struct {
  const char *scene, *kind, *error;
  int nth;               /* 0: all */
  unsigned every, start; /* one case of so many */
  unsigned jobs, job;    /* processes that share them; which of these */
} asked = {.every = 1, .jobs = 1};

/* Of all processes that play cases at the same time. */
static struct sums {
  _Atomic(unsigned) cases, played, tolerated, reported, failed;
  _Atomic(unsigned) unmet; /* among the tolerated: so many calls were not made this time */
  _Atomic(bool) has_kind[FAULT_KIND_COUNT];
} * sums;

static bool is_named(const char *wanted, const char *name) { return !wanted || strcmp(wanted, name) == 0; }

/* Of calls that are alike, fewer and fewer. */
static int next_after(int n) { return n + 1 + n / 6; }

/* From what the case is and nothing else: processes that share the cases may each have counted other calls, and a
 * number from counting would leave cases to each other. */
static unsigned number_of(const struct fault_scene *scene, enum fault_kind kind, int which, int nth) {
  unsigned number = 0;
  for (const char *c = scene->name; *c; c++) number = number * 31 + (unsigned char)*c;
  return ((number * 31 + (unsigned)kind) * 31 + (unsigned)which) * 31 + (unsigned)nth;
}

static void play_nth(const struct fault_scene *scene, enum fault_kind kind, int which, int nth) {
  unsigned number = number_of(scene, kind, which, nth);
  if (number / asked.every % asked.jobs != asked.job) return;
  sums->cases++;
  if (number % asked.every != asked.start) return;
  sums->played++;
  bool has_failed = play_case(scene, kind, nth, which);
  sums->failed += has_failed;
  sums->tolerated += !has_failed && report->rc == 0;
  sums->unmet += !has_failed && !report->has_come;
  sums->reported += !has_failed && report->rc != 0;
}

static void play_faults(const struct fault_scene *scene, enum fault_kind kind, int which, int count) {
  if (asked.nth) play_nth(scene, kind, which, asked.nth);
  for (int n = 1; n <= count && !asked.nth; n = next_after(n)) play_nth(scene, kind, which, n);
  sums->has_kind[kind] |= count > 0;
}

static void play_scene(const struct fault_scene *scene) {
  int counts[FAULT_KIND_COUNT] = {0};
  memset(&reference, 0, sizeof reference);
  for (int i = 0; i < REFERENCES; i++) {
    if (play_case(scene, FAULT_malloc, 0, 0) != 0) {
      sums->failed += !is_planted; /* what is planted shows only when a call fails */
      return;
    }
    at_least(&reference, &report->holdings);
    for (int k = 0; k < FAULT_KIND_COUNT; k++)
      if (counts[k] < report->counts[k]) counts[k] = report->counts[k];
  }
  for (int k = 0; k < FAULT_KIND_COUNT; k++)
    for (int i = 0; i < CODES_MAX && kinds[k].errors[i] && is_named(asked.kind, kinds[k].name); i++)
      if (is_named(asked.error, error_name((enum fault_kind)k, i)))
        play_faults(scene, (enum fault_kind)k, i, counts[k]);
}

static void play_scenes(const struct fault_scene *scenes) {
  for (const struct fault_scene *s = scenes; s->name; s++)
    if (is_named(asked.scene, s->name)) play_scene(s);
}

/* Scenes with a fault of their own, each of which must be found. */
static int find_planted(void) {
  int missed = 0;
  report = shared_memory(sizeof *report);
  is_planted = true;
  for (const struct fault_scene *s = fault_scenes_planted; s->name; s++) {
    unsigned failed = sums->failed;
    play_scene(s);
    if (sums->failed == failed) printf("MISSED %s\n", s->name);
    missed += sums->failed == failed;
  }
  return missed != 0;
}

static int usage(void) {
  fprintf(stderr, "usage: faults [--jobs J] [--every N [--start S]] [SCENE[:KIND[:ERROR[:NTH]]]] | --planted\n");
  return 2;
}

static void ask_for(char *text) {
  asked.scene = strtok(text, ":");
  asked.kind = strtok(NULL, ":");
  asked.error = strtok(NULL, ":");
  const char *nth = strtok(NULL, ":");
  asked.nth = nth ? atoi(nth) : 0;
}

static void print_sums(void) {
  int used = 0;
  for (int k = 0; k < FAULT_KIND_COUNT; k++) used += sums->has_kind[k];
  printf("%u of %u cases, with %d of %d kinds of calls: %u failed, %u were tolerated (%u not met), %u reported\n",
         sums->played, sums->cases, used, FAULT_KIND_COUNT, sums->failed, sums->tolerated, sums->unmet, sums->reported);
  for (int k = 0; k < FAULT_KIND_COUNT && !asked.scene; k++)
    if (!sums->has_kind[k]) printf("no scene calls %s\n", kinds[k].name);
}

/* One of the processes that share the cases. */
static void play_share(void) {
  report = shared_memory(sizeof *report); /* its own */
  play_scenes(fault_scenes_core);
  play_scenes(fault_scenes_io);
  play_scenes(fault_scenes_job);
}

static void play_shares(void) {
  for (asked.job = 1; asked.job < asked.jobs; asked.job++) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    play_share();
    exit(0);
  }
  asked.job = 0;
  play_share();
  for (int status; wait(&status) > 0;)
    if (status) sums->failed++;
}

static bool read_arguments(char **arg) {
  bool is_planting = false;
  asked.start = (unsigned)time(NULL);
  for (; *arg; arg++) {
    if (strcmp(*arg, "--planted") == 0) is_planting = true;
    else if (strcmp(*arg, "--jobs") == 0 && arg[1]) asked.jobs = (unsigned)atoi(*++arg);
    else if (strcmp(*arg, "--every") == 0 && arg[1]) asked.every = (unsigned)atoi(*++arg);
    else if (strcmp(*arg, "--start") == 0 && arg[1]) asked.start = (unsigned)atoi(*++arg);
    else if (**arg != '-') ask_for(*arg);
    else asked.every = 0;
  }
  if (asked.every == 0 || asked.jobs == 0) exit(usage());
  asked.start %= asked.every;
  return is_planting;
}

int main(int argc, char **argv) {
  (void)argc;
  setvbuf(stdout, NULL, _IOLBF, 0);
  bool is_planting = read_arguments(argv + 1);
  sums = shared_memory(sizeof *sums);
  if (is_planting) return find_planted();
  printf("--every %u --start %u\n", asked.every, asked.start);
  play_shares();
  print_sums();
  return sums->failed != 0 || sums->played == 0;
}
