/* Defects that a sanitizer has to find though they are on fibers, which wait and move between workers meanwhile: what
 * Coir tells the sanitizers does not make them blind.
 * usage: defects CASE     sound: nothing is wrong; CTest wants each case reported, and sound not (CMakeLists.txt) */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coir.h"

#define HIDE(p) __asm__ volatile("" : "+r"(p)) /* from the compiler */
#define MANY 32

/* A store, so that the load before it is not idle for an emulator, either. */
static void use(int value) {
  volatile int seen = value;
  (void)seen;
}
static int *volatile kept;

/* Others run, on this stack's thread and elsewhere. */
static void others_run(void) {
  coir_yield();
  coir_sleep(COIR_MS(1));
}

static int nothing_wrong(void *arg) {
  (void)arg;
  int here[8] = {0};
  int *p = malloc(8 * sizeof *p);
  for (int i = 0; p && i < 8; i++) {
    p[i] = i;
    others_run();
    here[i] = p[i];
  }
  use(here[7]);
  free(p);
  return 0;
}

static int heap_overflow(void *arg) {
  (void)arg;
  char *p = malloc(16), *end = p + 16;
  HIDE(end);
  others_run();
  use(*end);
  free(p);
  return 0;
}

static int use_after_free(void *arg) {
  (void)arg;
  int *p = malloc(16), *after = p;
  HIDE(after);
  free(p);
  others_run();
  use(*after);
  return 0;
}

static int stack_overflow(void *arg) {
  (void)arg;
  char buffer[16] = {0}, *end = buffer + 16;
  HIDE(end);
  others_run();
  use(*end);
  return 0;
}

static __attribute__((noinline)) void leave_address(void) {
  int gone[16] = {1};
  int *p = gone;
  HIDE(p);
  others_run();
  kept = p;
}

static int use_after_return(void *arg) {
  (void)arg;
  leave_address();
  others_run();
  use(*kept);
  return 0;
}

static int leak(void *arg) {
  (void)arg;
  char *p = malloc(1234);
  HIDE(p);
  others_run();
  memset(p, 1, 1234);
  return 0;
}

static int uninitialised(void *arg) {
  (void)arg;
  int *p = malloc(16);
  HIDE(p);
  others_run();
  if (p[3]) puts("it happens to be set");
  free(p);
  return 0;
}

static int on_stack(void *arg) {
  (void)arg;
  volatile int here[16];
  here[0] = 0;
  others_run();
  if (here[9]) puts("it happens to be set");
  return 0;
}

static int undefined(void *arg) {
  (void)arg;
  int big = INT32_MAX;
  HIDE(big);
  others_run();
  use(big + 1);
  return 0;
}

/* Two fibers that run at the same time, each on a worker. */
static int shared;
static atomic_int racing;

static int racer(void *arg) {
  (void)arg;
  atomic_fetch_add_explicit(&racing, 1, memory_order_relaxed);
  while (atomic_load_explicit(&racing, memory_order_relaxed) < 2) continue;
  for (int i = 0; i < 1000; i++) shared++;
  return 0;
}

static int race(void *arg) {
  struct coir_fiber *a = NULL, *b = NULL;
  (void)arg;
  if (coir_spawn(racer, NULL, NULL, &a) || coir_spawn(racer, NULL, NULL, &b)) return 1;
  return coir_join(a, NULL, COIR_NEVER) | coir_join(b, NULL, COIR_NEVER);
}

/* Not a defect: fibers wait when the program ends, and what only their stacks point to is no leak. */
static int holds(void *arg) {
  char *p = malloc(4321);
  (void)arg;
  if (p) *p = 1;
  coir_sleep(COIR_SEC(1000));
  use(*p);
  free(p);
  return 0;
}

static int parked(void *arg) {
  (void)arg;
  for (int i = 0; i < MANY; i++)
    if (coir_spawn(holds, NULL, NULL, NULL)) return 1;
  coir_sleep(COIR_MS(50));
  exit(0);
}

static const struct {
  const char *name;
  coir_fn fn;
} cases[] = {
    {"sound", nothing_wrong},
    {"heap_overflow", heap_overflow},
    {"use_after_free", use_after_free},
    {"stack_overflow", stack_overflow},
    {"use_after_return", use_after_return},
    {"leak", leak},
    {"uninitialised", uninitialised},
    {"on_stack", on_stack},
    {"undefined", undefined},
    {"race", race},
    {"parked", parked},
};

/* Some run beside the defect, and stacks have been used before. */
static int first(void *fn) {
  struct coir_fiber *f[MANY];
  struct coir_result result = {0};
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < MANY; i++)
      if (coir_spawn(round && i == MANY / 2 ? *(coir_fn *)fn : nothing_wrong, NULL, NULL, &f[i])) return 1;
    for (int i = 0; i < MANY; i++)
      if (coir_join(f[i], &result, COIR_NEVER) || result.status) return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    coir_fn fn = cases[i].fn;
    if (argc == 2 && strcmp(argv[1], cases[i].name) == 0) return coir_run(first, &fn);
  }
  fprintf(stderr, "usage: defects CASE\n");
  return 2;
}
