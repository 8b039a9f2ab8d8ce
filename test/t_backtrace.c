/* Backtraces of fibers that wait: that they tell the truth, whatever the frames look like and however busy the fibers
 * are. Each function of a chain lies in a section of its own, whose bounds the linker knows. */
#include "harness.h"

#include <dlfcn.h>

#include "coir_io.h"

#if !defined(__x86_64__) && !defined(__aarch64__)
int main(void) { return 77; } /* what a stopped context has saved is not known there */
#else

#define FRAMES_MAX 64
#define IN(name) __attribute__((noinline, section(#name)))
#define SECTION(name) extern const char __start_##name[], __stop_##name[]
#define RANGE(name) ((struct range){__start_##name, __stop_##name})
#define KEEP(x) __asm__ volatile("" : : "r"(x) : "memory") /* behind a call: it is not the last thing to do */

struct range {
  const char *low, *high;
};

struct task {
  int (*body)(struct task *t);
  int (*wait)(struct task *t);
  size_t bytes; /* of a frame whose size is not known before */
  void *object;
  int fd;
};

/* ---- Chains of calls ------------------------------------------------------------------------------------------- */

#define CHAIN(kind, FRAME)                           \
  SECTION(code_##kind##_1);                          \
  SECTION(code_##kind##_2);                          \
  SECTION(code_##kind##_3);                          \
  IN(code_##kind##_3) int kind##_3(struct task *t);  \
  IN(code_##kind##_2) int kind##_2(struct task *t);  \
  IN(code_##kind##_1) int kind##_1(struct task *t);  \
  IN(code_##kind##_3) int kind##_3(struct task *t) { \
    FRAME;                                           \
    int rc = t->wait(t);                             \
    KEEP(frame);                                     \
    return rc;                                       \
  }                                                  \
  IN(code_##kind##_2) int kind##_2(struct task *t) { \
    FRAME;                                           \
    int rc = kind##_3(t);                            \
    KEEP(frame);                                     \
    return rc;                                       \
  }                                                  \
  IN(code_##kind##_1) int kind##_1(struct task *t) { \
    FRAME;                                           \
    int rc = kind##_2(t);                            \
    KEEP(frame);                                     \
    return rc;                                       \
  }

CHAIN(plain, const void *frame = t)
CHAIN(sized, char *frame = __builtin_alloca(t->bytes))
CHAIN(aligned, _Alignas(64) char frame[100]; KEEP(frame))
CHAIN(both, _Alignas(128) char fixed[40]; char *frame = __builtin_alloca(t->bytes); KEEP(fixed))

SECTION(code_entry);
IN(code_entry) static int entry(void *task) {
  struct task *t = task;
  int rc = t->body(t);
  KEEP(t);
  return rc;
}

enum { KINDS = 4 };
static int (*const bodies[KINDS])(struct task *t) = {plain_1, sized_1, aligned_1, both_1};

static const struct range *chain_of(int kind) {
  static struct range chains[KINDS][4];
  struct range all[KINDS][4] = {
      {RANGE(code_plain_3), RANGE(code_plain_2), RANGE(code_plain_1), RANGE(code_entry)},
      {RANGE(code_sized_3), RANGE(code_sized_2), RANGE(code_sized_1), RANGE(code_entry)},
      {RANGE(code_aligned_3), RANGE(code_aligned_2), RANGE(code_aligned_1), RANGE(code_entry)},
      {RANGE(code_both_3), RANGE(code_both_2), RANGE(code_both_1), RANGE(code_entry)},
  };
  memcpy(chains, all, sizeof all);
  return chains[kind];
}

/* ---- Ways to wait ---------------------------------------------------------------------------------------------- */

static int by_sleep(struct task *t) {
  int rc = coir_sleep(COIR_SEC(3600));
  KEEP(t);
  return rc;
}

static int by_recv(struct task *t) {
  int value, rc = coir_chan_recv(t->object, &value, COIR_NEVER);
  KEEP(t);
  return rc;
}

static int by_read(struct task *t) {
  char c;
  int rc = (int)coir_read(t->fd, &c, 1, COIR_NEVER);
  KEEP(t);
  return rc;
}

static int by_lock(struct task *t) {
  int rc = coir_mutex_lock(t->object, COIR_NEVER);
  KEEP(t);
  return rc;
}

/* ---- Looking --------------------------------------------------------------------------------------------------- */

struct look {
  uint64_t id;
  const char *waits_for;
  int seen;
  struct coir_fiber_info info;
  size_t count;
  void *frames[FRAMES_MAX];
};

static void look_at_one(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg) {
  struct look *l = arg;
  CHECK(count <= FRAMES_MAX);
  CHECK(count == 0 || info->state == COIR_FIBER_WAITING);
  if (info->id != l->id) return;
  l->seen++;
  l->info = *info;
  l->count = count;
  if (count) memcpy(l->frames, frames, count * sizeof *frames);
}

static bool has_backtrace(struct look *l) {
  l->seen = 0;
  CHECK(coir_runtime_walk(coir_runtime_current(), look_at_one, l) >= 1);
  CHECK_EQ(l->seen, 1);
  return l->count > 0 && strcmp(l->info.waits_for, l->waits_for) == 0;
}

/* The backtrace of a fiber that comes to wait for that. */
static struct look look_at(struct coir_fiber *f, const char *waits_for) {
  struct look l = {.id = coir_fiber_id(f), .waits_for = waits_for};
  WAIT_FOR(has_backtrace(&l));
  return l;
}

static bool is_in(const void *frame, struct range r) {
  return (const char *)frame > r.low && (const char *)frame <= r.high; /* behind the call */
}

static size_t index_in(void *const *frames, size_t count, struct range r) {
  size_t i = 0;
  while (i < count && !is_in(frames[i], r)) i++;
  return i;
}

static void print(const struct look *l) {
  fprintf(stderr, "fiber \"%s\" waits for %s\n", l->info.name, l->info.waits_for);
  for (size_t i = 0; i < l->count; i++) {
    Dl_info where;
    bool found = dladdr((char *)l->frames[i] - 1, &where);
    fprintf(stderr, "  #%zu %p %s\n", i, l->frames[i], found && where.dli_sname ? where.dli_sname : "?");
  }
}

/* Whether the `n` functions are there, one right after the other. */
static bool shows(const struct look *l, const struct range *chain, size_t n) {
  size_t first = index_in(l->frames, l->count, chain[0]), i = 0;
  while (i < n && first + i < l->count && is_in(l->frames[first + i], chain[i])) i++;
  if (i < n) print(l);
  return i == n;
}

#define SHOWS(look, ...) \
  shows(&(look), (const struct range[]){__VA_ARGS__}, sizeof(const struct range[]){__VA_ARGS__} / sizeof(struct range))

static void ends(struct coir_fiber *f) {
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), -ECANCELED);
}

/* ---- The truth about frames of every kind ---------------------------------------------------------------------- */

static int chains_are_shown(void *arg) {
  (void)arg;
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(coir_adopt(fds[0]), 0);
  struct coir_mutex mutex = {0};
  CHECK_EQ(coir_mutex_lock(&mutex, COIR_NEVER), 0);
  struct coir_chan *chan = coir_chan_create(sizeof(int), 0);
  CHECK(chan);
  const struct {
    int (*wait)(struct task *t);
    const char *name;
    void *object;
  } ways[] = {
      {by_sleep, "sleep", NULL}, {by_recv, "receive", chan}, {by_read, "read", NULL}, {by_lock, "mutex", &mutex}};
  for (size_t way = 0; way < sizeof ways / sizeof *ways; way++)
    for (int kind = 0; kind < KINDS; kind++) {
      struct task t = {bodies[kind], ways[way].wait, 100 + 777 * way, ways[way].object, fds[0]};
      struct coir_fiber *f = spawn(entry, &t);
      struct look l = look_at(f, ways[way].name);
      const struct range *c = chain_of(kind);
      CHECK(SHOWS(l, c[0], c[1], c[2], c[3]));
      CHECK(l.count > index_in(l.frames, l.count, c[3]) + 1); /* what called the entry is there, too */
      CHECK(l.info.entry == entry);
      ends(f);
    }
  coir_mutex_unlock(&mutex);
  coir_chan_unref(chan);
  coir_close(fds[0]);
  close(fds[1]);
  return 0;
}

static void chains_of_every_kind_are_shown(void **state) {
  (void)state;
  run(chains_are_shown, NULL);
}

static int key;
SECTION(code_compare);
IN(code_compare) static int compare(const void *a, const void *b) {
  struct task *t = coir_local_get(key);
  int rc = t->wait(t);
  KEEP(t);
  return *(const int *)a - *(const int *)b + (rc == 1);
}

static int sorts(struct task *t) {
  int numbers[] = {3, 1, 2};
  CHECK_EQ(coir_local_set(key, t), 0);
  qsort(numbers, 3, sizeof *numbers, compare);
  return numbers[0] == 1 ? -ECANCELED : 0;
}

static int sort_is_shown(void *arg) {
  (void)arg;
  CHECK((key = coir_key_create(NULL)) >= 0);
  struct task t = {.body = sorts, .wait = by_sleep};
  struct coir_fiber *f = spawn(entry, &t);
  struct look l = look_at(f, "sleep");
  size_t inner = index_in(l.frames, l.count, RANGE(code_compare)),
         outer = index_in(l.frames, l.count, RANGE(code_entry));
  if (inner + 2 >= outer || outer >= l.count) print(&l);
  CHECK(inner > 0 && inner + 2 < outer && outer < l.count); /* the C library is between the two */
  while (coir_cancel(f) == 0) coir_yield();                 /* each comparison sleeps */
  CHECK_EQ(join(f), -ECANCELED);
  CHECK_EQ(coir_key_delete(key), 0);
  return 0;
}

static void frames_of_other_libraries_are_walked_over(void **state) {
  (void)state;
  run(sort_is_shown, NULL);
}

SECTION(code_recurse);
IN(code_recurse) static int recurse(struct task *t, int depth) {
  int rc = depth ? recurse(t, depth - 1) : t->wait(t);
  KEEP(t);
  return rc;
}

static int recurses(struct task *t) { return recurse(t, 200); }

static int deep_is_cut(void *arg) {
  (void)arg;
  struct task t = {.body = recurses, .wait = by_sleep};
  struct coir_fiber *f = spawn(entry, &t);
  struct look l = look_at(f, "sleep");
  CHECK_EQ(l.count, FRAMES_MAX);
  for (size_t i = index_in(l.frames, l.count, RANGE(code_recurse)); i < FRAMES_MAX; i++)
    CHECK(is_in(l.frames[i], RANGE(code_recurse)));
  CHECK(index_in(l.frames, l.count, RANGE(code_recurse)) < FRAMES_MAX / 2);
  ends(f);
  return 0;
}

SECTION(code_large);
IN(code_large) static int large(struct task *t) {
  char frame[100 << 10];
  KEEP(frame);
  int rc = plain_1(t);
  KEEP(frame);
  return rc;
}

/* The innermost 64 KiB of a stack are looked at. */
static int large_ends(void *arg) {
  (void)arg;
  struct task t = {.body = large, .wait = by_sleep};
  struct coir_fiber *f = spawn(entry, &t);
  struct look l = look_at(f, "sleep");
  const struct range *c = chain_of(0);
  CHECK(SHOWS(l, c[0], c[1], c[2], RANGE(code_large)));
  /* Where return addresses are saved at the low end of a frame, that of this one is still within. */
  CHECK(l.count <= index_in(l.frames, l.count, RANGE(code_large)) + 2);
  ends(f);
  return 0;
}

static void long_and_large_ones_are_cut_off(void **state) {
  (void)state;
  run(deep_is_cut, NULL);
  run(large_ends, NULL);
}

/* A function without tables, and one whose tables use what compilers rarely do. */
#if defined(__x86_64__)
__asm__(".section code_no_tables, \"ax\", @progbits\n"
        "no_tables:\n"
        "  pushq %rbp\n"
        "  movq %rsp, %rbp\n"
        "  call *%rsi\n"
        "  popq %rbp\n"
        "  ret\n"
        ".section code_rare_rules, \"ax\", @progbits\n"
        "rare_rules:\n"
        "  .cfi_startproc\n"
        "  pushq %rbx\n"
        "  .cfi_def_cfa_offset 16\n"
        "  .cfi_offset %rbx, -16\n"
        "  pushq %r12\n"
        "  .cfi_def_cfa_offset 24\n"
        "  .cfi_offset %r12, -24\n"
        "  .cfi_remember_state\n"
        "  movq %rsp, %rbx\n"
        "  .cfi_def_cfa %rbx, 24\n"
        "  movq %rbp, %r12\n"
        "  .cfi_register %rbp, %r12\n"
        "  xorl %ebp, %ebp\n"
        "  subq $72, %rsp\n"
        "  andq $-64, %rsp\n"
        "  .cfi_escape 0x0f, 4, 0x73, 16, 0x38, 0x22\n" /* it begins at rbx + 16 + 8 */
        "  .cfi_escape 0x10, 3, 2, 0x40, 0x1c\n"        /* rbx is saved 16 below that */
        "  .cfi_escape 0x11, 12, 3\n"                   /* r12 24 below that */
        "  .cfi_escape 0x14, 7, 0\n"                    /* rsp was that */
        "  .cfi_escape 0x0a\n"                          /* remember, */
        "  .cfi_escape 0x07, 16\n"                      /* lose the return address, */
        "  .cfi_escape 0x0b\n"                          /* restore */
        "  .cfi_escape 0x2e, 5\n"                       /* size of arguments */
        "  call *%rsi\n"
        "  movq %rbx, %rsp\n"
        "  movq %r12, %rbp\n"
        "  .cfi_restore_state\n"
        "  popq %r12\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %r12\n"
        "  popq %rbx\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %rbx\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".text\n");
#elif defined(__aarch64__)
__asm__(".section code_no_tables, \"ax\", %progbits\n"
        "no_tables:\n"
        "  hint #34\n"
        "  stp x29, x30, [sp, #-16]!\n"
        "  mov x29, sp\n"
        "  blr x1\n"
        "  ldp x29, x30, [sp], #16\n"
        "  ret\n"
        ".section code_rare_rules, \"ax\", %progbits\n"
        "rare_rules:\n"
        "  .cfi_startproc\n"
        "  hint #34\n"
        "  stp x19, x30, [sp, #-32]!\n"
        "  .cfi_def_cfa_offset 32\n"
        "  str x20, [sp, #16]\n"
        "  .cfi_offset x20, -16\n"
        "  mov x20, sp\n"
        "  mov x19, x29\n"
        "  .cfi_register x29, x19\n"
        "  mov x29, xzr\n"
        "  sub sp, sp, #80\n"
        "  .cfi_escape 0x0f, 4, 0x84, 16, 0x40, 0x22\n" /* it begins at x20 + 16 + 16 */
        "  .cfi_escape 0x10, 19, 3, 0x08, 32, 0x1c\n"   /* x19 is saved 32 below that */
        "  .cfi_escape 0x11, 30, 3\n"                   /* x30 24 below that */
        "  .cfi_escape 0x14, 31, 0\n"                   /* sp was that */
        "  .cfi_escape 0x0a\n"                          /* remember, */
        "  .cfi_escape 0x07, 30\n"                      /* lose the return address, */
        "  .cfi_escape 0x0b\n"                          /* restore */
        "  blr x1\n"
        "  mov sp, x20\n"
        "  mov x29, x19\n"
        "  .cfi_def_cfa sp, 32\n"
        "  .cfi_same_value x29\n"
        "  ldr x20, [sp, #16]\n"
        "  ldp x19, x30, [sp], #32\n"
        "  .cfi_def_cfa_offset 0\n"
        "  .cfi_same_value x19\n"
        "  .cfi_same_value x20\n"
        "  .cfi_same_value x30\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".text\n");
#endif

int no_tables(struct task *t, int (*then)(struct task *t));
int rare_rules(struct task *t, int (*then)(struct task *t));
SECTION(code_no_tables);
SECTION(code_rare_rules);

static int through_no_tables(struct task *t) {
  int rc = no_tables(t, plain_1);
  KEEP(t);
  return rc;
}

/* Twice: what the outer one needs, the inner one has saved by its rules. */
SECTION(code_again);
IN(code_again) static int again(struct task *t) {
  int rc = rare_rules(t, plain_1);
  KEEP(rc); /* not t, for which it would save a register */
  return rc;
}

SECTION(code_through_rare);
IN(code_through_rare) static int through_rare_rules(struct task *t) {
  char *frame = __builtin_alloca(t->bytes); /* the caller's frame pointer matters */
  KEEP(frame);
  int rc = rare_rules(t, again);
  KEEP(frame);
  return rc;
}

static int assembly_is_shown(void *arg) {
  (void)arg;
  const struct range *c = chain_of(0);
  struct task t = {.body = through_no_tables, .wait = by_sleep, .bytes = 300};
  struct coir_fiber *f = spawn(entry, &t);
  struct look l = look_at(f, "sleep");
  CHECK(SHOWS(l, c[0], c[1], c[2], RANGE(code_no_tables)));
  CHECK(is_in(l.frames[l.count - 1], RANGE(code_no_tables)));
  ends(f);

  t.body = through_rare_rules;
  f = spawn(entry, &t);
  l = look_at(f, "sleep");
  CHECK(SHOWS(l, c[0], c[1], c[2], RANGE(code_rare_rules), RANGE(code_again), RANGE(code_rare_rules),
              RANGE(code_through_rare), RANGE(code_entry)));
  ends(f);
  return 0;
}

static void assembly_is_walked_over_by_its_tables(void **state) {
  (void)state;
  run(assembly_is_shown, NULL);
}

/* ---- Who has none, and who asks -------------------------------------------------------------------------------- */

static _Atomic(int) stop;

static int yields_on(void *arg) {
  (void)arg;
  while (!stop) coir_yield();
  return 0;
}

static int generates(void *arg) {
  (void)arg;
  return coir_gen_yield(NULL, NULL) < 0;
}

struct census {
  int visited, waiting, with_frames;
  uint64_t self;
};

static void count_one(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg) {
  struct census *c = arg;
  c->visited++;
  c->waiting += info->state == COIR_FIBER_WAITING;
  c->with_frames += count > 0;
  CHECK(info->state == COIR_FIBER_WAITING || count == 0);
  if (info->id == c->self) CHECK_EQ(info->state, COIR_FIBER_RUNNING);
  for (size_t i = 0; i < count; i++) CHECK(frames[i]);
}

static struct census take_census(void) {
  struct census c = {.self = coir_fiber_id(NULL)};
  CHECK_EQ(coir_runtime_walk(coir_runtime_current(), count_one, &c), c.visited);
  return c;
}

static int only_who_waits(void *arg) {
  (void)arg;
  stop = 0;
  struct task t = {plain_1, by_sleep, 0, NULL, -1};
  struct coir_fiber *f[8];
  for (int i = 0; i < 8; i++) f[i] = i < 4 ? spawn(entry, &t) : spawn(yields_on, NULL);
  struct coir_gen *gen;
  CHECK_EQ(coir_gen_create(&gen, generates, NULL, NULL), 0);
  CHECK_EQ(coir_gen_resume(gen, NULL, NULL), 0); /* waits to be resumed */
  struct census c;
  WAIT_FOR((c = take_census()).with_frames == 5);
  CHECK_EQ(c.visited, 10);
  stop = 1;
  for (int i = 4; i < 8; i++) CHECK_EQ(join(f[i]), 0);
  for (int i = 0; i < 4; i++) ends(f[i]);
  coir_gen_destroy(gen);
  return 0;
}

static void only_who_waits_has_one(void **state) {
  (void)state;
  run(only_who_waits, NULL);
}

struct slow {
  uint64_t id;
  int visited, spawned;
  _Atomic(int) ran;
};

static int runs(void *ran) {
  atomic_fetch_add((_Atomic(int) *)ran, 1);
  return 0;
}

static void visit_slowly(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg) {
  struct slow *s = arg;
  void *before[FRAMES_MAX];
  struct coir_fiber_info same = *info;
  if (count) memcpy(before, frames, count * sizeof *frames);
  s->visited++;
  if (s->spawned < 4 && coir_go(runs, &s->ran) == 0) s->spawned++;
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  coir_yield();
  CHECK(!count || memcmp(before, frames, count * sizeof *frames) == 0);
  CHECK(same.id == info->id && same.state == info->state);
  if (info->id == s->id) CHECK(count > 0);
}

static int visits_wait(void *arg) {
  (void)arg;
  struct slow *s = malloc(sizeof *s); /* the stack is small */
  CHECK(s);
  memset(s, 0, sizeof *s);
  struct task t = {plain_1, by_sleep, 0, NULL, -1};
  struct coir_fiber *f[6];
  for (int i = 0; i < 6; i++) f[i] = spawn(entry, &t);
  s->id = look_at(f[0], "sleep").id;
  CHECK(coir_runtime_walk(coir_runtime_current(), visit_slowly, s) >= 7);
  WAIT_FOR(s->ran == s->spawned);
  CHECK_EQ(s->spawned, 4);
  for (int i = 0; i < 6; i++) ends(f[i]);
  free(s);
  return 0;
}

static int on_a_small_stack(void *arg) {
  (void)arg;
  struct coir_attr attr = {.stack_bytes = IS_SANITIZED ? 128 << 10 : 16 << 10};
  CHECK_EQ(join(spawn_with(attr, visits_wait, NULL)), 0);
  return 0;
}

static void a_visit_may_wait_and_spawn(void **state) {
  (void)state;
  run(on_a_small_stack, NULL);
}

static _Atomic(bool) memory_is_short;
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes) { return memory_is_short ? NULL : __real_calloc(count, bytes); }

static void what_it_refuses(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct census c = {0};
  CHECK_EQ(coir_runtime_walk(NULL, count_one, &c), -EINVAL);
  CHECK_EQ(coir_runtime_walk(rt, NULL, &c), -EINVAL);
  CHECK_EQ(coir_runtime_walk(rt, count_one, &c), 0);
  CHECK_EQ(coir_runtime_spawn(rt, yields_on, NULL, NULL, NULL), 0); /* has not run yet */
  memory_is_short = true;
  CHECK_EQ(coir_runtime_walk(rt, count_one, &c), -ENOMEM);
  memory_is_short = false;
  CHECK_EQ(c.visited, 0);
  CHECK_EQ(coir_runtime_walk(rt, count_one, &c), 1);
  CHECK(c.visited == 1 && c.with_frames == 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int one_that_has_not_run(void *arg) {
  struct coir_fiber_info info[4];
  (void)arg;
  struct coir_fiber *f = spawn(runs, &stop);
  size_t n = coir_runtime_list(coir_runtime_current(), info, 4), page = (size_t)sysconf(_SC_PAGESIZE);
  CHECK_EQ(n, 2);
  for (size_t i = 0; i < n; i++) {
    if (info[i].id == coir_fiber_id(f)) CHECK_EQ(info[i].stack_used, 0);
    else CHECK(info[i].stack_used >= page && info[i].stack_used <= info[i].stack_bytes);
  }
  return join(f);
}

static void what_has_run_uses_a_page(void **state) {
  (void)state;
  run_with((struct coir_config){.workers = 1}, one_that_has_not_run, NULL);
}

/* ---- While all of them go on ----------------------------------------------------------------------------------- */

#define MAPS_MAX 1024
static struct range maps[MAPS_MAX]; /* what can be executed */
static size_t maps_count;

static void read_maps(void) {
  FILE *file = fopen("/proc/self/maps", "re");
  CHECK(file);
  char line[512];
  maps_count = 0;
  while (fgets(line, sizeof line, file) && maps_count < MAPS_MAX) {
    unsigned long low, high;
    char mode[8];
    if (sscanf(line, "%lx-%lx %7s", &low, &high, mode) != 3 || mode[2] != 'x') continue;
    maps[maps_count++] = (struct range){(const char *)low, (const char *)high};
  }
  fclose(file);
  CHECK(maps_count > 0);
}

static bool is_code(const void *frame) {
  for (size_t i = 0; i < maps_count; i++)
    if ((const char *)frame >= maps[i].low && (const char *)frame < maps[i].high) return true;
  return false;
}

/* A fiber of the churn is somewhere in the chain of its kind whenever it waits. It carries the kind in its name. */
static struct coir_chan *ball;

static int by_any_means(struct task *t) {
  int value = 0;
  switch (t->fd++ % 4) {
  case 0: return coir_sleep(COIR_US(30));
  case 1: return coir_chan_send(ball, &value, coir_after(COIR_US(50)));
  case 2: return coir_chan_recv(ball, &value, coir_after(COIR_US(50)));
  default: return coir_yield();
  }
}

static int churns(struct task *t) {
  int kind = coir_name(NULL)[0] - '0';
  for (int i = 0; i < 40; i++) {
    t->bytes = 16 + (size_t)(i * 40);
    bodies[kind](t);
  }
  return 0;
}

/* Many short lives, one after the other, in the same descriptors and on the same stacks. */
static int lives(void *arg) {
  int n = (int)(intptr_t)arg;
  while (!stop) {
    struct task t = {.body = churns, .wait = by_any_means, .fd = n};
    char name[] = {(char)('0' + n++ % KINDS), 0};
    join(spawn_with((struct coir_attr){.name = name}, entry, &t));
  }
  return 0;
}

struct churn {
  uint64_t visited, shown;
  void *last; /* the frame at the bottom of every stack */
};

static void check_one(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg) {
  struct churn *c = arg;
  c->visited++;
  if (!count) return;
  for (size_t i = 0; i < count; i++) CHECK(is_code(frames[i]));
  if (info->entry != entry) return;
  struct look l = {.info = *info, .count = count};
  memcpy(l.frames, frames, count * sizeof *frames);
  if (!c->last) c->last = frames[count - 1];
  const struct range *chain = chain_of(info->name[0] - '0');
  CHECK(shows(&l, chain, 3));
  CHECK(index_in(frames, count, chain[3]) < count && frames[count - 1] == c->last);
  c->shown++;
}

static void *loads_and_unloads(void *arg) {
  (void)arg;
  while (!stop) {
    void *library = dlopen("libresolv.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library) dlclose(library);
    coir_sleep(COIR_MS(1));
  }
  return NULL;
}

static void none_is_torn_while_four_workers_churn(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 4});
  struct churn c = {0};
  pthread_t loader;
  stop = 0;
  CHECK(ball = coir_chan_create(sizeof(int), 0));
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 16; i++) CHECK_EQ(coir_runtime_spawn(rt, lives, (void *)(intptr_t)i, NULL, NULL), 0);
  read_maps();
  CHECK_EQ(pthread_create(&loader, NULL, loads_and_unloads, NULL), 0);
  int64_t until = coir_after(COIR_SEC(2)), limit = coir_after(COIR_SEC(20));
  while (coir_now() < until || (c.shown < 100 && coir_now() < limit)) CHECK(coir_runtime_walk(rt, check_one, &c) >= 0);
  stop = 1;
  pthread_join(loader, NULL);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  struct coir_stats s;
  coir_runtime_get_stats(rt, &s);
  printf("visited %llu, shown %llu, parks %llu, fibers %llu\n", (unsigned long long)c.visited,
         (unsigned long long)c.shown, (unsigned long long)s.parks, (unsigned long long)s.fibers_spawned);
  CHECK(c.shown >= 100);
  CHECK(s.parks >= 200);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  coir_chan_unref(ball);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(chains_of_every_kind_are_shown),
      cmocka_unit_test(frames_of_other_libraries_are_walked_over),
      cmocka_unit_test(long_and_large_ones_are_cut_off),
      cmocka_unit_test(assembly_is_walked_over_by_its_tables),
      cmocka_unit_test(only_who_waits_has_one),
      cmocka_unit_test(a_visit_may_wait_and_spawn),
      cmocka_unit_test(what_it_refuses),
      cmocka_unit_test(what_has_run_uses_a_page),
      cmocka_unit_test(none_is_torn_while_four_workers_churn),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
