/* For tests of fibers that hold up their worker.
 *
 * A fiber is known to have lost its worker when a fiber that may only start there has run meanwhile, so no test has to
 * guess from the time how far the monitor is. How many workers there are makes no difference. */
#ifndef COIR_TEST_STUCK_H
#define COIR_TEST_STUCK_H

#include "processes.h"

#include <sys/syscall.h>

/* A case whose body runs on a fiber of a runtime of its own: ON_FIBER_OF(name, .workers = 1) { ... } */
#define ON_FIBER_OF(name, ...)                                                                             \
  static void name##_body(void);                                                                           \
  static int name##_fiber(void *_) {                                                                       \
    (void)_;                                                                                               \
    name##_body();                                                                                         \
    return 0;                                                                                              \
  }                                                                                                        \
  static void name(void) { CHECK_EQ(run_with((struct coir_config){__VA_ARGS__}, name##_fiber, NULL), 0); } \
  static void name##_body(void)

static inline struct coir_stats stats_of(struct coir_runtime *rt) {
  struct coir_stats stats;
  coir_runtime_get_stats(rt, &stats);
  return stats;
}
static inline uint64_t handoffs(void) { return stats_of(coir_runtime_current()).handoffs; }
static inline int workers(void) { return stats_of(coir_runtime_current()).workers; }

/* ---- Threads --------------------------------------------------------------------------------------------------- */

static inline int tid(void) { return (int)syscall(SYS_gettid); }

static inline int threads(void) {
  DIR *dir = opendir("/proc/self/task");
  int n = -2; /* . and .. */
  CHECK(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static _Thread_local int thread_mark;

static __attribute__((noinline, unused)) void mark_set(int v) {
  __asm__ volatile("");
  thread_mark = v;
}
static __attribute__((noinline, unused)) int mark_get(void) {
  __asm__ volatile("");
  return thread_mark;
}
static __attribute__((noinline, unused)) void errno_set(int v) {
  __asm__ volatile("");
  errno = v;
}
static __attribute__((noinline, unused)) int errno_get(void) {
  __asm__ volatile("");
  return errno;
}

/* ---- Pipes in blocking mode, which only read(2) and write(2) know ---------------------------------------------- */

struct pipe_pair {
  int fds[2];
};

static inline void pipe_open(struct pipe_pair *p) { CHECK_EQ(pipe(p->fds), 0); }

static inline void pipe_close(struct pipe_pair *p) {
  close(p->fds[0]);
  close(p->fds[1]);
}

static inline void take_byte(struct pipe_pair *p) {
  char c;
  CHECK_EQ(read(p->fds[0], &c, 1), 1);
}

static inline void give_byte(struct pipe_pair *p) { CHECK_EQ(write(p->fds[1], "x", 1), 1); }

static inline int give_a_byte(void *p) {
  give_byte(p);
  return 0;
}

/* ---- Flags ----------------------------------------------------------------------------------------------------- */

typedef _Atomic(int) flag;

static inline int raise_flag(void *f) {
  atomic_store((flag *)f, 1);
  return 0;
}
static inline bool is_up(flag *f) { return atomic_load(f) != 0; }

/* ---- Being stuck ----------------------------------------------------------------------------------------------- */

/* Spawns a fiber that starts on the caller's worker and nowhere else. */
static inline struct coir_fiber *beside(coir_fn fn, void *arg) {
  return spawn_with((struct coir_attr){.worker = COIR_WORKER(coir_worker_index())}, fn, arg);
}

static inline void go_beside(coir_fn fn, void *arg) { coir_detach(beside(fn, arg)); }

/* Blocks in the kernel, or computes, until somebody else goes on with the caller's worker. */
static inline void block_until_taken(void) {
  struct pipe_pair p;
  pipe_open(&p);
  go_beside(give_a_byte, &p);
  take_byte(&p);
  pipe_close(&p);
}

static inline void compute_until_taken(void) {
  flag is_taken = 0;
  go_beside(raise_flag, &is_taken);
  SPIN_UNTIL(is_up(&is_taken));
}

/* ---- Reports --------------------------------------------------------------------------------------------------- */

enum { REPORTS_MAX = 256, REPORT_FRAMES_MAX = 64 };

/* What on_stall was told, copied. */
struct report {
  struct coir_stall stall;
  char name[32];
  void *frames[REPORT_FRAMES_MAX];
};

static pthread_mutex_t reports_lock = PTHREAD_MUTEX_INITIALIZER;
static struct report reports[REPORTS_MAX];
static int report_count;

static inline void note_stall(const struct coir_stall *stall, void *arg) {
  pthread_mutex_lock(&reports_lock);
  if (report_count < REPORTS_MAX) {
    struct report *r = &reports[report_count++];
    r->stall = *stall;
    snprintf(r->name, sizeof r->name, "%s", stall->name);
    if (r->stall.frame_count > REPORT_FRAMES_MAX) r->stall.frame_count = REPORT_FRAMES_MAX;
    for (size_t i = 0; i < r->stall.frame_count; i++) r->frames[i] = stall->frames[i];
  }
  pthread_mutex_unlock(&reports_lock);
  if (arg) atomic_fetch_add((flag *)arg, 1);
}

/* The first report on the fiber with this id. False: there is none. */
static inline bool report_of(uint64_t id, struct report *out) {
  bool is_found = false;
  pthread_mutex_lock(&reports_lock);
  for (int i = 0; i < report_count && !is_found; i++) {
    is_found = reports[i].stall.id == id;
    if (is_found) *out = reports[i];
  }
  pthread_mutex_unlock(&reports_lock);
  return is_found;
}

static inline void forget_reports(void) {
  pthread_mutex_lock(&reports_lock);
  report_count = 0;
  pthread_mutex_unlock(&reports_lock);
}

#endif
