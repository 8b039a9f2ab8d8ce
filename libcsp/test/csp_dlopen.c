/* The shared library in a program that does not know of it and has threads before it comes: they load it, use it side
 * by side, close it, load it again, and end after it was closed.
 * usage: CspDlopenTest libcsp.so */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, ROUNDS = 5, GOROUTINES = 50 };

static const char *path;
static pthread_barrier_t barrier;

static void must(bool holds, const char *what) {
  if (holds) return;
  const char *error = dlerror();
  fprintf(stderr, "not true: %s: %s\n", what, error ? error : "");
  abort();
}
#define MUST(x) must(x, #x)

struct library {
  void *handle;
  void *(*proc_create)(int, void (*)(void *), void *);
  void *(*chan_new)(size_t);
  void (*chan_free)(void *);
  bool (*send)(void *, void *);
  void *(*recv)(void *, bool *);
  void (*group_add)(void *, int);
  void (*group_done)(void *);
  void (*group_wait)(void *);
};

static void load(struct library *l) {
  l->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  MUST(l->handle != NULL);
  /* POSIX wants the conversion of what dlsym returns to work. */
  MUST((*(void **)&l->proc_create = dlsym(l->handle, "csp_proc_create")) != NULL);
  MUST((*(void **)&l->chan_new = dlsym(l->handle, "csp_gochan_new")) != NULL);
  MUST((*(void **)&l->chan_free = dlsym(l->handle, "csp_gochan_free")) != NULL);
  MUST((*(void **)&l->send = dlsym(l->handle, "csp_gochan_send")) != NULL);
  MUST((*(void **)&l->recv = dlsym(l->handle, "csp_gochan_recv")) != NULL);
  MUST((*(void **)&l->group_add = dlsym(l->handle, "csp_sync_waitgroup_add")) != NULL);
  MUST((*(void **)&l->group_done = dlsym(l->handle, "csp_sync_waitgroup_done")) != NULL);
  MUST((*(void **)&l->group_wait = dlsym(l->handle, "csp_sync_waitgroup_wait")) != NULL);
}

struct work {
  const struct library *library;
  void *chan;
  uint64_t group[4]; /* a csp_sync_waitgroup_t */
};

static void goroutine(void *arg) {
  struct work *work = arg;
  work->library->send(work->chan, work);
  work->library->group_done(work->group);
}

static void use(const struct library *l) {
  struct work work = {l, l->chan_new(0), {0}};
  MUST(work.chan != NULL);
  l->group_add(work.group, GOROUTINES);
  for (int i = 0; i < GOROUTINES; i++) MUST(l->proc_create(0, goroutine, &work) != NULL);
  for (int i = 0; i < GOROUTINES; i++) MUST(l->recv(work.chan, NULL) == &work);
  l->group_wait(work.group);
  l->chan_free(work.chan);
}

static void *thread(void *unused) {
  (void)unused;
  for (int round = 0; round < ROUNDS; round++) {
    struct library library;
    pthread_barrier_wait(&barrier);
    load(&library);
    use(&library);
    pthread_barrier_wait(&barrier);
    MUST(dlclose(library.handle) == 0);
  }
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS];
  if (argc != 2) return 2;
  path = argv[1];
  MUST(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
  for (int i = 0; i < THREADS; i++) MUST(pthread_create(&threads[i], NULL, thread, NULL) == 0);
  for (int i = 0; i < THREADS; i++) MUST(pthread_join(threads[i], NULL) == 0);
  struct library library;
  load(&library);
  use(&library);
  MUST(dlclose(library.handle) == 0);
  printf("dlopen: passed\n");
  return 0;
}
