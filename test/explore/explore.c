/* Who goes on, and which way has been gone already. See explore.h.
 *
 * Each thread of a case has a stack of its own, on the one real thread. Everything that is left open is a choice, by
 * number; 0 is what goes without saying: the thread that runs goes on, a load returns what is newest. A way is the list
 * of its choices. The next way has the last choice that has an alternative changed, and what follows is open again: so
 * all are gone, depth first, with no memory of them but that list.
 *
 * Each way begins with the memory of the program as it was: its variables are put back from a copy, and what ex_alloc
 * gave is given again. So everything has the same address each time. What is the explorer's own lies elsewhere.
 *
 * A word that only one thread has ever used is no step. Which these are comes out meanwhile; then all begins anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "inside.h"

#define STACK_BYTES ((size_t)256 << 10)
#define ARENA_BYTES ((size_t)8 << 20)
#define TRAIL_MAX 65536
#define STEPS_MAX 20000 /* in one run */
#define ACCESSES_MAX 1000000 /* in one run; those that are no steps, and those of setup and check, count, too */
#define RUNS_MAX 100000000
#define NEVER INT64_MAX

enum state { READY, SPINS, SLEEPS, AWAITS, DONE };

struct thread {
  enum state state;
  bool is_begun, is_late; /* late: its deadline has come */
  const void *word;       /* SLEEPS: on what; AWAITS: for which event */
  int64_t deadline;
  uint64_t saw, spins;    /* SPINS: what had been stored; how often it has */
  ucontext_t start;
  jmp_buf at;
};

struct choice {
  uint16_t made, options;
};

static struct explorer {
  const struct ex_case *c;
  struct thread threads[EX_THREADS_MAX];
  int me; /* -1: none */
  bool is_running, is_failed, is_traced;
  int preemptions, old_values; /* left */
  uint64_t stores, steps, accesses, runs, steps_most;
  int64_t now;
  jmp_buf home;
  ucontext_t unused;
  struct choice trail[TRAIL_MAX];
  int trail_end, trail_at;
  bool is_random;
  int deeper; /* added to the bounds of each case */
  uint64_t rng;
  void *pc;
  char why[512];
  char *copy; /* of the program's variables */
  char *arena;
  size_t arena_used;
  char *stacks;
} *x;

extern char __data_start, _end; /* by the linker: the program's variables */

static void *map(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p != MAP_FAILED) return p;
  perror("explore: mmap");
  exit(2);
}

int ex_me(void) { return x->me; }
int64_t ex_now(void) { return x->now; }
bool ex_access(void *pc) {
  if (!x) return false;
  x->pc = pc;
  if (++x->accesses > ACCESSES_MAX) ex_fail("no end after %d accesses", ACCESSES_MAX);
  return x->is_running;
}
void ex_stored(void) { x->stores++; }

void *ex_alloc(size_t bytes) {
  bytes = (bytes + 127) & ~(size_t)127;
  if (bytes > ARENA_BYTES - x->arena_used) ex_fail("no memory for %zu bytes", bytes);
  x->arena_used += bytes;
  return x->arena + x->arena_used - bytes;
}

void ex_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(x->why, sizeof x->why, format, args);
  va_end(args);
  x->is_failed = true;
  x->is_running = false;
  _longjmp(x->home, 1);
}

/* ---- Traces ---------------------------------------------------------------------------------------------------- */

static void print_place(const void *pc) {
  char command[256], line[256] = "?\n";
  snprintf(command, sizeof command, "addr2line -s -f -p -e /proc/%d/exe %#zx", (int)getpid(), (size_t)pc - 1);
  FILE *f = popen(command, "r");
  if (f && !fgets(line, sizeof line, f)) line[0] = '\n', line[1] = 0;
  if (f) pclose(f);
  fprintf(stderr, "  %s", line);
}

void ex_trace(const char *what, const void *word, int bytes, uint64_t value, const char *note) {
  if (!x->is_traced) return;
  fprintf(stderr, "  T%d %-7s %#zx", x->me, what, (size_t)word);
  if (bytes) fprintf(stderr, " %#llx", (unsigned long long)value);
  fprintf(stderr, "%s%s", *note ? " " : "", note);
  print_place(x->pc);
}

/* ---- Choices --------------------------------------------------------------------------------------------------- */

static uint32_t random_below(uint32_t n) {
  x->rng ^= x->rng << 13, x->rng ^= x->rng >> 7, x->rng ^= x->rng << 17; /* xorshift64 (Marsaglia, 2003) */
  return (uint32_t)(x->rng >> 20) % n;
}

int ex_choose(int options, const char *what) {
  if (options <= 1) return 0;
  if (x->trail_at == TRAIL_MAX) ex_fail("more than %d choices", TRAIL_MAX);
  struct choice *c = &x->trail[x->trail_at];
  if (x->trail_at == x->trail_end) {
    *c = (struct choice){.options = (uint16_t)options};
    if (x->is_random && random_below(4) == 0) c->made = (uint16_t)random_below((uint32_t)options);
    x->trail_end++;
  }
  x->trail_at++;
  if (c->options != options) {
    fprintf(stderr, "explore: %s: a case that does not repeat itself: %d ways (%s), and %d before\n", x->c->name,
            options, what, c->options);
    exit(2);
  }
  return c->made;
}

/* The list of choices of the next way. False: there is none left. */
static bool next_way(void) {
  while (x->trail_end > 0 && x->trail[x->trail_end - 1].made + 1 == x->trail[x->trail_end - 1].options) x->trail_end--;
  if (x->trail_end == 0) return false;
  x->trail[x->trail_end - 1].made++;
  return true;
}

bool ex_may_be_old(void) { return x->old_values > 0; }
void ex_was_old(void) { x->old_values--; }

/* ---- Threads --------------------------------------------------------------------------------------------------- */

static void go_to(int next);
static int next_thread(void);

static void thread_main(void) {
  x->c->thread(x->me);
  x->threads[x->me].state = DONE;
  ex_trace("ends", NULL, 0, 0, "");
  bool any = false;
  for (int i = 0; i < x->c->threads; i++) any |= x->threads[i].state != DONE;
  if (any) go_to(next_thread());
  _longjmp(x->home, 2);
}

static void go_to(int next) {
  struct thread *from = x->me >= 0 ? &x->threads[x->me] : NULL, *to = &x->threads[next];
  if (next == x->me) {
    to->state = READY;
    return;
  }
  if (from && _setjmp(from->at)) return;
  x->me = next;
  to->state = READY;
  if (to->is_begun) _longjmp(to->at, 1);
  to->is_begun = true;
  getcontext(&to->start);
  to->start.uc_stack.ss_sp = x->stacks + (size_t)next * STACK_BYTES;
  to->start.uc_stack.ss_size = STACK_BYTES;
  makecontext(&to->start, thread_main, 0);
  setcontext(&to->start);
}

static bool sees_something_new(const struct thread *t) { return t->state == SPINS && t->saw != x->stores; }

static void let_deadline_come(struct thread *t) {
  if (x->now < t->deadline) x->now = t->deadline;
  t->is_late = true;
}

/* Nobody can go on as it is: who has spun least does so once more, or a deadline comes. */
static int next_of_the_stuck(void) {
  int spins = -1, first = -1;
  for (int i = 0; i < x->c->threads; i++) {
    const struct thread *t = &x->threads[i];
    if (t->state == SPINS && (spins < 0 || t->spins < x->threads[spins].spins)) spins = i;
    bool has_deadline = t->state == SLEEPS && t->deadline != NEVER;
    if (has_deadline && (first < 0 || t->deadline < x->threads[first].deadline)) first = i;
  }
  if (spins >= 0) return spins;
  if (first >= 0) {
    let_deadline_come(&x->threads[first]);
    return first;
  }
  ex_fail("nobody can go on: all that are left wait");
}

static int next_thread(void) {
  int ways[2 * EX_THREADS_MAX], n = 0;
  bool stays = x->me >= 0 && x->threads[x->me].state == READY;
  if (stays) ways[n++] = x->me;
  for (int i = 0; i < x->c->threads && (!stays || x->preemptions > 0); i++) {
    const struct thread *t = &x->threads[i];
    if (i != x->me && (t->state == READY || sees_something_new(t))) ways[n++] = i;
    else if (i == x->me && !stays && sees_something_new(t)) ways[n++] = i;
  }
  if (n == 0) return next_of_the_stuck();
  for (int i = 0; i < x->c->threads && x->preemptions > 0; i++)
    if (x->threads[i].state == SLEEPS && x->threads[i].deadline != NEVER) ways[n++] = i;
  int next = ways[ex_choose(n, "who goes on")];
  if (x->threads[next].state == SLEEPS) let_deadline_come(&x->threads[next]);
  if (next != x->me && (stays || x->threads[next].is_late)) x->preemptions--;
  return next;
}

void ex_step(const void *word) {
  if (++x->steps > STEPS_MAX) ex_fail("no end after %d steps", STEPS_MAX);
  if (memory_is_shared(word)) go_to(next_thread());
}

void ex_spin(void) {
  if (!x->is_running) return;
  struct thread *t = &x->threads[x->me];
  if (++x->steps > STEPS_MAX) ex_fail("no end after %d steps", STEPS_MAX);
  t->state = SPINS;
  t->saw = x->stores;
  t->spins++;
  go_to(next_thread());
}

/* ---- What stands in for the system ----------------------------------------------------------------------------- */

bool ex_sleep(_Atomic(uint32_t) *word, uint32_t value, int64_t deadline) {
  if (!x->is_running) ex_fail("somebody sleeps where nobody can wake it");
  struct thread *t = &x->threads[x->me];
  ex_step(word);
  memory_fence(SEQ_CST); /* the kernel looks under a lock of its own */
  if ((uint32_t)memory_latest(word, 4) != value) return true;
  if (deadline <= x->now) return false;
  t->state = SLEEPS;
  t->word = word;
  t->deadline = deadline;
  t->is_late = false;
  ex_trace("sleeps", word, 4, value, "");
  go_to(next_thread());
  bool is_late = t->is_late;
  t->is_late = false;
  return !is_late;
}

void ex_wake(_Atomic(uint32_t) *word, int count) {
  if (!x->is_running) return;
  ex_step(word);
  memory_fence(SEQ_CST);
  ex_trace("wakes", word, 0, 0, "");
  for (int i = 0; i < x->c->threads && count > 0; i++) {
    struct thread *t = &x->threads[i];
    if (t->state != SLEEPS || t->word != word) continue;
    t->state = READY;
    count--;
  }
}

void ex_fence_all(void) {
  if (!x->is_running) return;
  memory_fence_all();
  ex_trace("fences", NULL, 0, 0, "everybody");
}

void ex_post(struct ex_event *event) {
  event->posts++;
  if (!x->is_running) return;
  if (!event->seen) event->seen = memory_view();
  memory_hand(event->seen);
  x->stores++;
  for (int i = 0; i < x->c->threads; i++)
    if (x->threads[i].state == AWAITS && x->threads[i].word == event) x->threads[i].state = READY;
}

bool ex_take(struct ex_event *event) {
  if (event->posts == 0) return false;
  event->posts--;
  if (x->is_running && event->seen) memory_learn(event->seen);
  return true;
}

void ex_await(struct ex_event *event) {
  while (!ex_take(event)) {
    x->threads[x->me].state = AWAITS;
    x->threads[x->me].word = event;
    go_to(next_thread());
  }
}

/* ---- One way, and all of them ---------------------------------------------------------------------------------- */

static void put_memory_back(void) {
  memcpy(&__data_start, x->copy, (size_t)(&_end - &__data_start));
  memset(x->arena, 0, x->arena_used);
  x->arena_used = 0;
}

/* Returns whether it went well. */
static bool go_one_way(void) {
  const struct ex_case *c = x->c;
  put_memory_back();
  x->me = -1;
  x->is_failed = false;
  x->trail_at = 0;
  x->preemptions = c->preemptions + x->deeper;
  x->old_values = c->old_values + x->deeper;
  x->stores = x->steps = x->accesses = 0;
  x->now = 1000000000;
  memset(x->threads, 0, sizeof x->threads);
  if (_setjmp(x->home) == 0) {
    c->setup();
    memory_begin(c->threads);
    x->is_running = true;
    go_to(next_thread());
  }
  x->is_running = false;
  x->me = -1;
  if (!x->is_failed && _setjmp(x->home) == 0) c->check();
  if (x->steps > x->steps_most) x->steps_most = x->steps;
  x->runs++;
  return !x->is_failed;
}

static void tell_failure(void) {
  fprintf(stderr, "\n%s: FAILED: %s\n  after %llu ways\n", x->c->name, x->why, (unsigned long long)x->runs);
  x->trail_end = x->trail_at;
  x->is_traced = true;
  (void)go_one_way();
  x->is_traced = false;
  fprintf(stderr, "  %s\n", x->why);
}

static bool explore(uint64_t random_runs) {
  x->runs = x->steps_most = 0;
  x->trail_end = 0;
  x->is_random = random_runs > 0;
  memory_forget_shared();
  for (;;) {
    if (!go_one_way()) {
      tell_failure();
      return false;
    }
    bool is_to_begin_anew = memory_found_shared();
    if (x->is_random) {
      x->trail_end = 0;
      if (x->runs == random_runs) break;
    } else if (is_to_begin_anew) {
      x->trail_end = 0;
    } else if (!next_way()) {
      break;
    } else if (x->runs == RUNS_MAX) {
      fprintf(stderr, "%s: not all of it: more than %d ways\n", x->c->name, RUNS_MAX);
      return false;
    }
  }
  printf("%-32s %8llu ways%s, at most %llu steps, %d preemptions, %d old values\n", x->c->name,
         (unsigned long long)x->runs, x->is_random ? " at random" : "", (unsigned long long)x->steps_most,
         x->c->preemptions + x->deeper, x->c->old_values + x->deeper);
  return true;
}

int ex_main(int argc, char **argv, const struct ex_case *cases, int count) {
  uint64_t random_runs = 0, seed = 0x9e3779b97f4a7c15;
  const char *wanted = NULL;
  bool any = false, all_well = true;
  x = map(sizeof *x);
  x->arena = map(ARENA_BYTES);
  x->stacks = map(EX_THREADS_MAX * STACK_BYTES);
  x->copy = map((size_t)(&_end - &__data_start));
  memory_begin(0);
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--random") == 0 && i + 1 < argc) random_runs = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--deeper") == 0 && i + 1 < argc) x->deeper = atoi(argv[++i]);
    else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) seed = strtoull(argv[++i], NULL, 10) | 1;
    else wanted = argv[i];
  }
  memcpy(x->copy, &__data_start, (size_t)(&_end - &__data_start));
  x->rng = seed;
  if (random_runs) printf("seed %llu\n", (unsigned long long)seed);
  for (int i = 0; i < count; i++) {
    if (wanted && strcmp(wanted, cases[i].name) != 0) continue;
    any = true;
    x->c = &cases[i];
    all_well &= explore(random_runs);
    fflush(stdout);
  }
  if (!any) fprintf(stderr, "explore: no case is named %s\n", wanted);
  return any && all_well ? 0 : 1;
}
