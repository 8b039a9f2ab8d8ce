/* Starting functions on threads and fibers.
 *
 * The child of a fork has none of them, and counts anew. The thread or fiber that forked goes on there in the midst of
 * its function: that has been counted in the parent, so its end is not counted in the child. */
#include "go.h"

#include "internal.h"

/* What is to run, one of the two. */
struct start {
  void *(*thread_fn)(void *);
  void (*fiber_fn)(void *);
  void *arg;
  uintptr_t generation; /* in which it counts */
};

static _Atomic(int) active;
static uintptr_t generation; /* of processes: changes in the child of a fork, while that has one thread */
static bool forks;           /* constant: forget_in_child is there */

static void forget_in_child(void) {
  generation++;
  atomic_store_explicit(&active, 0, memory_order_relaxed);
}

/* Before main: so that no fork comes before it. */
static __attribute__((constructor)) void prepare_for_forks(void) {
  forks = pthread_atfork(NULL, NULL, forget_in_child) == 0;
}

static void ended(void *began_in) {
  if ((uintptr_t)began_in != generation) return;
  /* Release: who reads that it has ended sees what it did. Pairs with the acquire in go_get_active_count. */
  atomic_fetch_sub_explicit(&active, 1, memory_order_release);
}

static void run(void *arg) {
  struct start s = *(struct start *)arg;
  free(arg);
  if (s.fiber_fn) s.fiber_fn(s.arg);
  else s.thread_fn(s.arg);
}

static void run_on_fiber(void *arg) {
  uintptr_t began_in = ((struct start *)arg)->generation;
  run(arg);
  ended((void *)began_in);
}

static void *run_on_thread(void *arg) {
  uintptr_t began_in = ((struct start *)arg)->generation;
  pthread_cleanup_push(ended, (void *)began_in); /* also by pthread_exit */
  run(arg);
  pthread_cleanup_pop(1);
  return NULL;
}

/* NULL and errno. Counts what it returns as active. */
static struct start *prepare(void *(*thread_fn)(void *), void (*fiber_fn)(void *), void *arg) {
  bool is_one = thread_fn || fiber_fn;
  struct start *s = is_one && forks ? malloc(sizeof *s) : NULL;
  if (!s) {
    errno = is_one ? ENOMEM : EINVAL;
    return NULL;
  }
  *s = (struct start){thread_fn, fiber_fn, arg, generation};
  atomic_fetch_add_explicit(&active, 1, memory_order_relaxed);
  return s;
}

/* Starts nothing after all. `rc`: 0, or an error number. */
static int finish(struct start *s, int rc) {
  if (rc == 0) return 0;
  ended((void *)s->generation);
  free(s);
  return go__fail(rc);
}

int go(void *(*fn)(void *), void *arg) {
  pthread_attr_t attr;
  pthread_t thread;
  struct start *s = prepare(fn, NULL, arg);
  if (!s) return -1;
  int rc = pthread_attr_init(&attr);
  if (rc) return finish(s, rc);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  rc = pthread_create(&thread, &attr, run_on_thread, s);
  pthread_attr_destroy(&attr);
  return finish(s, rc);
}

static int start_fiber(struct start *s, size_t stack_bytes) {
  return s ? finish(s, gof_spawn(run_on_fiber, s, stack_bytes) ? 0 : errno) : -1;
}

int go_fiber(void (*fn)(void *), void *arg, size_t stack_bytes) {
  return start_fiber(prepare(NULL, fn, arg), stack_bytes);
}

int go_fiber_default(void (*fn)(void *), void *arg) { return go_fiber(fn, arg, 0); }

int go_fiber_compat(void *(*fn)(void *), void *arg) {
  return gof_in_fiber() ? start_fiber(prepare(fn, NULL, arg), 0) : go(fn, arg);
}

int go_get_active_count(void) {
  return atomic_load_explicit(&active, memory_order_acquire); /* pairs with the release in ended */
}
