/* build_graph.c: a small make. It reads a file of targets, dependencies and commands, and runs what is needed, as much
 * at once as the dependencies allow.
 *
 * A target is a job. It begins when the last of what it depends on has ended: each knows how many it waits for, and who
 * takes the last one away spawns it. So nobody polls and no list of ready targets is kept; one counter, which counts
 * all that is queued or runs, tells when there is nothing left. A job that runs a command waits for the child, and a
 * place for one before that (-j); meanwhile its worker goes on with other targets. So two threads will do for -j 100.
 *
 * Each run checks itself: every target's job has run once, and after those of all that it depends on. */
#include <errno.h>
#include <search.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "coir.h"
#include "coir_io.h"
#include "coir_job.h"
#include "options.h"

static const char usage[] =
    "usage: build_graph [OPTION...] [TARGET]     makes TARGET, or the first one of the file\n"
    "\n"
    "The file is a makefile with rules only:\n"
    "\n"
    "    # a comment; a line that ends in a backslash goes on in the next\n"
    "    TARGET... : DEPENDENCY...\n"
    "    <tab>COMMAND            $@ the target, $< the first dependency, $^ all of them, $$ a dollar;\n"
    "                            @COMMAND is not shown, -COMMAND may fail\n"
    "    .PHONY : TARGET...      is no file, so it is always made\n"
    "\n"
    "A target is made when it is no file, or older than a dependency, or one of these was made. Each command is run\n"
    "by sh; what it prints comes in one piece when it has ended. 0: done. 2: something failed. 1: the file is wrong.\n"
    "There are no variables, no patterns and no built-in rules.\n";

struct node {
  const char *name;
  int line;              /* of its rule; 0: it has none */
  const char **commands; /* as they stand in the file */
  struct node **needs, **users;
  size_t command_count, need_count, user_count;
  bool is_phony;
  char colour;                 /* of the walk: 0 not yet, 1 on the path, 2 done */
  _Atomic(size_t) waits_for;   /* so many of `needs` have not ended */
  _Atomic(bool) is_doomed;     /* one of them has failed. Relaxed: waits_for orders it */
  bool is_made, has_failed;    /* commands were run; one of them failed, or it was not made for another's failure */
  int64_t time;                /* of the file, in ns; -1: there is none */
  uint64_t runs, begun, ended; /* how often the job has run, and when: by the graph's clock */
};

struct graph {
  const char *path;
  void *names; /* tree of nodes, for tsearch */
  struct node *first;
  struct node **order; /* what is to be made, dependencies first */
  size_t order_count;
  struct coir_job_system *jobs;
  struct coir_counter left; /* jobs that are queued or run */
  struct coir_sem places;   /* for commands, or simulated ones */
  _Atomic(bool) is_stopped; /* something has failed: begin nothing more. Relaxed: it may be noticed late */
  _Atomic(uint64_t) clock;  /* counts beginnings and ends; relaxed, since waits_for orders those that matter */
  _Atomic(uint64_t) made, failures;
};

static const char *file = "Makefile", *trace;
static int at_once, threads, simulated_us = -1, generated;
static bool is_dry, keeps_going;

/* ---- Memory: what the graph consists of lives until the program ends --------------------------------------------- */

static void *must(void *memory) {
  if (memory) return memory;
  fprintf(stderr, "build_graph: out of memory\n");
  exit(1);
}

/* Makes room for one more in an array that doubles. */
static void *grown(void *array, size_t count, size_t bytes) {
  bool is_full = (count & (count - 1)) == 0; /* 0, 1, 2, 4, ... */
  return is_full ? must(realloc(array, (count ? 2 * count : 1) * bytes)) : array;
}

static void push(struct node ***array, size_t *count, struct node *node) {
  *array = grown(*array, *count, sizeof **array);
  (*array)[(*count)++] = node;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static __attribute__((noreturn, format(printf, 3, 4))) void wrong(const struct graph *g, int line, const char *what,
                                                                  ...) {
  va_list more;
  va_start(more, what);
  fprintf(stderr, "build_graph: %s:%d: ", g->path, line);
  vfprintf(stderr, what, more);
  fprintf(stderr, "\n");
  exit(1);
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const struct node *)a)->name, ((const struct node *)b)->name);
}

static struct node *node_of(struct graph *g, const char *name) {
  struct node key = {.name = name};
  struct node **found = tfind(&key, &g->names, compare_names);
  if (found) return *found;
  struct node *n = must(calloc(1, sizeof *n));
  n->name = must(strdup(name));
  n->time = -1;
  must(tsearch(n, &g->names, compare_names));
  return n;
}

static void read_rule(struct graph *g, char *text, int line, struct node ***targets, size_t *target_count) {
  char *colon = strchr(text, ':'), *rest = NULL;
  bool is_list_of_phonies = false;
  if (strpbrk(text, "%$=")) wrong(g, line, "variables and patterns are not understood");
  if (!colon) wrong(g, line, "a rule needs a ':'");
  *colon = '\0';
  *target_count = 0;
  for (char *name = strtok_r(text, " ", &rest); name; name = strtok_r(NULL, " ", &rest)) {
    if (strcmp(name, ".PHONY") == 0) {
      is_list_of_phonies = true;
      continue;
    }
    struct node *n = node_of(g, name);
    if (n->line == 0) n->line = line;
    if (!g->first) g->first = n;
    push(targets, target_count, n);
  }
  if (*target_count == 0 && !is_list_of_phonies) wrong(g, line, "no target before the ':'");
  for (char *name = strtok_r(colon + 1, " ", &rest); name; name = strtok_r(NULL, " ", &rest)) {
    if (strchr(name, ':')) wrong(g, line, "a second ':', in '%s'", name);
    struct node *need = node_of(g, name);
    need->is_phony |= is_list_of_phonies;
    for (size_t i = 0; i < *target_count; i++) push(&(*targets)[i]->needs, &(*targets)[i]->need_count, need);
  }
}

static void read_command(struct graph *g, const char *text, int line, struct node **targets, size_t target_count) {
  if (target_count == 0) wrong(g, line, "a command without a target");
  for (const char *p = text; (p = strchr(p, '$')) != NULL; p += 2) {
    if (!p[1] || !strchr("@<^$", p[1])) wrong(g, line, "'%s': only $@, $<, $^ and $$ are understood", p);
  }
  const char *command = must(strdup(text));
  for (size_t i = 0; i < target_count; i++) {
    struct node *n = targets[i];
    n->commands = grown(n->commands, n->command_count, sizeof *n->commands);
    n->commands[n->command_count++] = command;
  }
}

/* Reads one line, with those that it goes on in; without its newline. Returns its number, 0 at the end. */
static int read_line(FILE *in, char **line, size_t *room, int *number) {
  char *more = NULL;
  size_t more_room = 0, length = 0;
  int first = *number + 1;
  for (ssize_t n; (n = getline(&more, &more_room, in)) > 0;) {
    ++*number;
    if (more[n - 1] == '\n') more[--n] = '\0';
    if (*room < length + (size_t)n + 1) *line = must(realloc(*line, *room = 2 * (length + (size_t)n + 1)));
    memcpy(*line + length, more, (size_t)n + 1);
    length += (size_t)n;
    if (length == 0 || (*line)[length - 1] != '\\') break;
    (*line)[length - 1] = ' ';
  }
  free(more);
  return *number >= first ? first : 0;
}

static void read_graph(struct graph *g, FILE *in) {
  char *line = NULL;
  size_t room = 0, target_count = 0;
  struct node **targets = NULL;
  int number = 0;
  for (int first; (first = read_line(in, &line, &room, &number)) != 0;) {
    if (line[0] == '\t') {
      read_command(g, line + 1 + strspn(line + 1, " \t"), first, targets, target_count);
      continue;
    }
    line[strcspn(line, "#")] = '\0';
    for (char *p = line; *p; p++) *p = *p == '\t' || *p == '\r' ? ' ' : *p;
    if (line[strspn(line, " ")] == '\0') continue;
    free(targets);
    targets = NULL;
    read_rule(g, line, first, &targets, &target_count);
  }
  free(targets);
  free(line);
}

/* ---- What is to be made ------------------------------------------------------------------------------------------ */

struct step {
  struct node *node;
  size_t next; /* of its needs */
};

static void report_cycle(const struct graph *g, const struct step *path, size_t depth, const struct node *again) {
  size_t i = depth;
  while (path[i - 1].node != again) i--;
  fprintf(stderr, "build_graph: %s:%d: a cycle: ", g->path, again->line);
  for (; i <= depth; i++) fprintf(stderr, "%s -> ", path[i - 1].node->name);
  fprintf(stderr, "%s\n", again->name);
  exit(1);
}

static int64_t time_of(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 ? COIR_SEC(status.st_mtim.tv_sec) + status.st_mtim.tv_nsec : -1;
}

/* On the way in: it must be a file, or have a rule. */
static void enter(struct graph *g, struct step *path, size_t depth, struct node *n) {
  path[depth] = (struct step){n, 0};
  n->colour = 1;
  n->time = n->is_phony || simulated_us >= 0 ? -1 : time_of(n->name);
  if (n->line != 0 || n->time >= 0) return;
  if (depth == 0) fprintf(stderr, "build_graph: %s: there is no rule for '%s'\n", g->path, n->name);
  else
    fprintf(stderr, "build_graph: %s:%d: there is no rule for '%s', which '%s' depends on\n", g->path,
            path[depth - 1].node->line, n->name, path[depth - 1].node->name);
  exit(1);
}

/* Walks depth first from the goal, without recursion: chains may be long. On the way out what depends on what is known
 * in both directions, and dependencies stand before what needs them. */
static void sort_graph(struct graph *g, struct node *goal) {
  struct step *path = grown(NULL, 0, sizeof *path);
  size_t depth = 0;
  enter(g, path, depth++, goal);
  while (depth > 0) {
    struct step *top = &path[depth - 1];
    if (top->next < top->node->need_count) {
      struct node *need = top->node->needs[top->next++];
      if (need->colour == 1) report_cycle(g, path, depth, need);
      if (need->colour == 2) continue;
      path = grown(path, depth, sizeof *path);
      enter(g, path, depth++, need);
      continue;
    }
    struct node *n = top->node;
    for (size_t i = 0; i < n->need_count; i++) push(&n->needs[i]->users, &n->needs[i]->user_count, n);
    atomic_init(&n->waits_for, n->need_count);
    n->colour = 2;
    push(&g->order, &g->order_count, n);
    depth--;
  }
  free(path);
}

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

/* The command with $@ and the like replaced; to be freed. */
static char *expand(const struct node *n, const char *command) {
  char *text;
  size_t bytes;
  FILE *out = must(open_memstream(&text, &bytes));
  for (const char *p = command; *p; p++) {
    if (*p != '$') {
      fputc(*p, out);
      continue;
    }
    switch (*++p) {
    case '@': fputs(n->name, out); break;
    case '<': fputs(n->need_count ? n->needs[0]->name : "", out); break;
    case '^':
      for (size_t i = 0; i < n->need_count; i++) fprintf(out, "%s%s", i ? " " : "", n->needs[i]->name);
      break;
    default: fputc('$', out);
    }
  }
  if (fclose(out) != 0) must(NULL);
  return text;
}

/* Runs a command and collects what it prints in `out`. Returns its status as waitpid has it, or an error. */
static int run_command(char *command, FILE *out) {
  char *argv[] = {(char *)"sh", (char *)"-c", command, NULL}, piece[4096];
  struct coir_process_options options = {.path = "sh", .argv = argv};
  struct coir_process *process;
  int status = 0;
  ssize_t n;
  options.io[0].kind = COIR_STDIO_NULL;
  options.io[1].kind = COIR_STDIO_PIPE;
  options.io[2].kind = COIR_STDIO_STDOUT;
  int rc = coir_process_spawn(&process, &options);
  if (rc < 0) return rc;
  while ((n = coir_read(coir_process_fd(process, 1), piece, sizeof piece, COIR_NEVER)) > 0) {
    fwrite(piece, 1, (size_t)n, out);
  }
  rc = coir_process_wait(process, &status, COIR_NEVER);
  coir_process_destroy(process);
  return rc < 0 ? rc : status;
}

static void complain(struct graph *g, const struct node *n, int status, FILE *out) {
  fprintf(out, "build_graph: %s:%d: '%s': ", g->path, n->line, n->name);
  if (status < 0) fprintf(out, "cannot be run: %s\n", strerror(-status));
  else if (WIFSIGNALED(status)) fprintf(out, "ended by signal %d\n", WTERMSIG(status));
  else fprintf(out, "ended with status %d\n", WEXITSTATUS(status));
}

/* One line of a recipe. Returns whether the next may follow. */
static bool do_line(struct graph *g, struct node *n, const char *line) {
  bool is_silent = false, may_fail = false;
  for (; *line == '@' || *line == '-'; line++) {
    is_silent |= *line == '@';
    may_fail |= *line == '-';
  }
  char *command = expand(n, line), *text;
  size_t bytes;
  FILE *out = must(open_memstream(&text, &bytes));
  if (!is_silent || is_dry) fprintf(out, "%s\n", command);
  int status = is_dry ? 0 : run_command(command, out);
  if (status != 0 && !may_fail) complain(g, n, status, out);
  if (fclose(out) != 0) must(NULL);
  fwrite(text, 1, bytes, stdout); /* in one piece, whatever others print */
  fflush(stdout);
  free(text);
  free(command);
  return status == 0 || may_fail;
}

/* Computes, in place of a command. */
static void simulate(void) {
  for (int64_t end = coir_after(COIR_US(simulated_us)); coir_now() < end;) {}
}

static bool is_needed(const struct node *n) {
  bool is_older = n->time < 0;
  for (size_t i = 0; i < n->need_count; i++) is_older |= n->needs[i]->is_made || n->needs[i]->time > n->time;
  return is_older;
}

/* Makes a target. Returns whether it is as it should be. */
static bool make(struct graph *g, struct node *n) {
  bool is_good = true;
  if (!is_needed(n)) return true;
  if (coir_sem_acquire(&g->places, 1, COIR_NEVER) != 0) return false;
  if (simulated_us >= 0) simulate();
  else
    for (size_t i = 0; i < n->command_count && is_good; i++) is_good = do_line(g, n, n->commands[i]);
  coir_sem_release(&g->places, 1);
  n->is_made = true;
  if (n->command_count > 0) atomic_fetch_add_explicit(&g->made, 1, memory_order_relaxed);
  return is_good;
}

/* ---- The run ----------------------------------------------------------------------------------------------------- */

static struct graph the_graph; /* of all jobs */

static void make_job(struct coir_job *job, void *node) {
  struct graph *g = &the_graph;
  struct node *n = node;
  n->runs++;
  n->begun = atomic_fetch_add_explicit(&g->clock, 1, memory_order_relaxed);
  bool is_skipped = atomic_load_explicit(&n->is_doomed, memory_order_relaxed) ||
                    atomic_load_explicit(&g->is_stopped, memory_order_relaxed);
  n->has_failed = is_skipped || !make(g, n);
  if (n->has_failed && !is_skipped) {
    atomic_fetch_add_explicit(&g->failures, 1, memory_order_relaxed);
    if (!keeps_going) atomic_store_explicit(&g->is_stopped, true, memory_order_relaxed);
  }
  n->ended = atomic_fetch_add_explicit(&g->clock, 1, memory_order_relaxed);
  for (size_t i = 0; i < n->user_count; i++) {
    struct node *user = n->users[i];
    if (n->has_failed) atomic_store_explicit(&user->is_doomed, true, memory_order_relaxed);
    /* Releases what this job has written, and acquires what the others have that the user waited for: all of it is
     * visible to the user's job. */
    if (atomic_fetch_sub_explicit(&user->waits_for, 1, memory_order_acq_rel) > 1) continue;
    struct coir_job_desc next = {.fn = make_job, .arg = user, .name = user->name};
    struct coir_counter *left = &g->left;
    if (coir_job_submit(coir_job_system_of(job), &next, 1, &left) != 0) must(NULL);
  }
}

/* Queues what waits for nothing; the rest comes of it. Which these are is found out before the first of them runs. */
static int run_graph(struct graph *g) {
  struct coir_job_desc *ready = must(calloc(g->order_count, sizeof *ready));
  struct coir_counter *left = &g->left;
  size_t count = 0;
  for (size_t i = 0; i < g->order_count; i++) {
    struct node *n = g->order[i];
    if (n->need_count == 0) ready[count++] = (struct coir_job_desc){.fn = make_job, .arg = n, .name = n->name};
  }
  coir_counter_init(&g->left, 0);
  coir_sem_init(&g->places, at_once > 0 ? at_once : coir_job_system_workers(g->jobs));
  int rc = coir_job_submit(g->jobs, ready, count, &left);
  if (rc == 0) rc = coir_counter_wait(&g->left, COIR_NEVER);
  free(ready);
  return rc;
}

/* Every job has run once, and after those that it depends on. */
static bool is_in_order(const struct graph *g) {
  bool is_good = true;
  for (size_t i = 0; i < g->order_count; i++) {
    const struct node *n = g->order[i];
    bool is_late = true;
    for (size_t k = 0; k < n->need_count; k++) is_late &= n->needs[k]->ended < n->begun;
    if (n->runs == 1 && is_late) continue;
    fprintf(stderr, "build_graph: '%s' has been run %d times%s\n", n->name, (int)n->runs,
            is_late ? "" : ", and before something that it depends on");
    is_good = false;
  }
  return is_good;
}

/* Says how it went. Returns the exit status. */
static int report(const struct graph *g, int64_t ns) {
  uint64_t failures = atomic_load_explicit(&g->failures, memory_order_relaxed);
  bool is_good = is_in_order(g);
  for (size_t i = 0; i < g->order_count && failures != 0 && keeps_going; i++) {
    const struct node *n = g->order[i];
    if (atomic_load_explicit(&n->is_doomed, memory_order_relaxed)) {
      fprintf(stderr, "build_graph: '%s' is not made, for what failed before it\n", n->name);
    }
  }
  if (simulated_us >= 0 && is_good) {
    printf("%zu targets, each once and after what it depends on: %.1f ms on %d workers\n", g->order_count,
           (double)ns / 1e6, coir_job_system_workers(g->jobs));
  } else if (failures == 0 && atomic_load_explicit(&g->made, memory_order_relaxed) == 0) {
    printf("build_graph: nothing is to be done for '%s'\n", g->order[g->order_count - 1]->name);
  }
  return failures != 0 || !is_good ? 2 : 0;
}

/* ---- A graph to try ---------------------------------------------------------------------------------------------- */

/* Writes a graph of `count` targets, each of which depends on up to three that come later, not too far off. The first
 * depends on all that nobody else does. */
static void generate(int count) {
  enum { REACH = 500, NEEDS = 3 };
  int(*needs)[NEEDS] = must(calloc((size_t)count, sizeof *needs)); /* 0: none */
  bool *is_used = must(calloc((size_t)count, sizeof *is_used));
  uint32_t seed = 1;
  for (int i = 1; i < count; i++) {
    for (int k = 0; k < NEEDS; k++) {
      seed = seed * 1664525u + 1013904223u;
      int need = i + 1 + (int)((seed >> 8) % REACH);
      if (need < count) is_used[needs[i][k] = need] = true;
    }
  }
  printf("# %d targets\n.PHONY: all\nall:", count);
  for (int i = 1; i < count; i++)
    if (!is_used[i]) printf(" t%d", i);
  for (int i = 1; i < count; i++) {
    printf("\n\t@echo $@\nt%d:", i);
    for (int k = 0; k < NEEDS; k++)
      if (needs[i][k]) printf(" t%d", needs[i][k]);
  }
  printf("\n\t@echo $@\n");
  free(is_used);
  free(needs);
}

int main(int argc, char **argv) {
  struct graph *g = &the_graph;
  const struct opt opts[] = {
      OPT_TEXT("f", file, "the file; -: standard input"),
      OPT_NUMBER("j", at_once, 0, 100000, "commands at a time; 0: one per worker"),
      OPT_FLAG("k", keeps_going, "after a failure make what does not depend on it; else begin nothing more"),
      OPT_FLAG("n", is_dry, "print commands, do not run them"),
      OPT_NUMBER("threads", threads, 0, 64, "workers; 0: one per CPU"),
      OPT_TEXT("trace", trace, "write what ran when to this file, for https://ui.perfetto.dev"),
      OPT_NUMBER("simulate", simulated_us, -1, 1000000, "in place of commands compute, for so many us; -1: no"),
      OPT_NUMBER("generate", generated, 0, 10000000, "print a graph of so many targets, to be tried with --simulate"),
  };
  int rest = opt_read(argc, argv, usage, opts, sizeof opts / sizeof *opts, 1);
  if (generated > 0) {
    generate(generated);
    return 0;
  }
  FILE *in = strcmp(file, "-") == 0 ? stdin : fopen(file, "re");
  if (!in) {
    fprintf(stderr, "build_graph: %s: %s\n", file, strerror(errno));
    return 1;
  }
  g->path = in == stdin ? "standard input" : file;
  read_graph(g, in);
  if (in != stdin) fclose(in);
  struct node *goal = rest < argc ? node_of(g, argv[rest]) : g->first;
  if (!goal) {
    fprintf(stderr, "build_graph: %s: there is no target\n", g->path);
    return 1;
  }
  sort_graph(g, goal);
  struct coir_job_config config = {.threads = threads, .trace = trace ? COIR_ON : 0};
  int rc = coir_job_system_create(&g->jobs, &config);
  int64_t begin = coir_now();
  if (rc == 0) rc = run_graph(g);
  int64_t ns = coir_now() - begin;
  if (rc == 0 && trace) rc = coir_job_system_export_trace(g->jobs, trace);
  if (rc != 0) fprintf(stderr, "build_graph: %s\n", strerror(-rc));
  int status = rc != 0 ? 2 : report(g, ns);
  coir_job_system_destroy(g->jobs);
  return status;
}
