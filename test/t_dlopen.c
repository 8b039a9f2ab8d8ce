/* libcoir.so in a program that is not linked to it: loaded, used, closed, and loaded again; by several threads at once;
 * closed while a runtime runs. The library stays (nodelete), since threads that end call back into it.
 *
 * usage: t_dlopen LIBCOIR.SO. coir.h is here for its types; nothing of it is called by name. */
#include "harness.h"

#include <dlfcn.h>

static const char *path;

/* What is used of it, found anew each time. */
struct library {
  void *handle;
  int (*run)(coir_fn, void *);
  int (*spawn)(coir_fn, void *, const struct coir_attr *, struct coir_fiber **);
  int (*join)(struct coir_fiber *, struct coir_result *, int64_t);
  int (*sleep)(int64_t);
  int (*yield)(void);
  int (*create)(struct coir_runtime **, const struct coir_config *);
  int (*start)(struct coir_runtime *);
  int (*spawn_in)(struct coir_runtime *, coir_fn, void *, const struct coir_attr *, struct coir_fiber **);
  int (*stop)(struct coir_runtime *, enum coir_stop, int64_t);
  int (*destroy)(struct coir_runtime *);
};

static struct library library_open(void) {
  struct library l = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
  if (!l.handle) fprintf(stderr, "%s\n", dlerror());
  CHECK(l.handle);
  static const char *const names[] = {
      "coir_run",          "coir_spawn",          "coir_join",          "coir_sleep",
      "coir_yield",        "coir_runtime_create", "coir_runtime_start", "coir_runtime_spawn",
      "coir_runtime_stop", "coir_runtime_destroy"};
  void **functions = (void **)&l.run;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) CHECK(functions[i] = dlsym(l.handle, names[i]));
  return l;
}

static void library_close(const struct library *l) {
  CHECK_EQ(dlclose(l->handle), 0);
  void *still = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  CHECK(still);
  CHECK_EQ(dlclose(still), 0);
}

/* ---- What is done with it ---------------------------------------------------------------------------------------- */

static int naps(void *library) {
  const struct library *l = library;
  for (int i = 0; i < 10; i++) CHECK_EQ(i % 3 ? l->yield() : l->sleep(COIR_US(50)), 0);
  return 7;
}

static int naps_of_many(void *library) {
  const struct library *l = library;
  struct coir_fiber *f[20];
  struct coir_result result;
  for (int i = 0; i < 20; i++) CHECK_EQ(l->spawn(naps, library, NULL, &f[i]), 0);
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(l->join(f[i], &result, COIR_NEVER), 0);
    CHECK_EQ(result.status, 7);
  }
  return 0;
}

static void opened_and_closed(void **state) {
  (void)state;
  for (int i = 0; i < 5; i++) {
    struct library l = library_open();
    CHECK_EQ(l.run(naps_of_many, &l), 0);
    library_close(&l);
  }
}

/* A runtime of its own for each; the thread's record goes when the thread does, the library being closed by then. */
static void *opens_and_closes(void *arg) {
  for (int i = 0; i < 20; i++) {
    struct library l = library_open();
    struct coir_runtime *rt;
    struct coir_fiber *f;
    CHECK_EQ(l.sleep(COIR_US(20)), 0); /* as a plain thread */
    CHECK_EQ(l.create(&rt, NULL), 0);
    CHECK_EQ(l.start(rt), 0);
    CHECK_EQ(l.spawn_in(rt, naps_of_many, &l, NULL, &f), 0);
    CHECK_EQ(l.join(f, NULL, COIR_NEVER), 0);
    CHECK_EQ(l.stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(l.destroy(rt), 0);
    library_close(&l);
  }
  return arg;
}

static void by_several_threads(void **state) {
  pthread_t threads[3];
  (void)state;
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_create(&threads[i], NULL, opens_and_closes, NULL), 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static void closed_while_it_runs(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) {
    struct library l = library_open();
    struct coir_runtime *rt;
    struct coir_fiber *f;
    CHECK_EQ(l.create(&rt, NULL), 0);
    CHECK_EQ(l.start(rt), 0);
    CHECK_EQ(l.spawn_in(rt, naps_of_many, &l, NULL, &f), 0);
    library_close(&l);
    CHECK_EQ(l.join(f, NULL, COIR_NEVER), 0);
    struct library again = library_open();
    CHECK(again.run == l.run); /* the same copy, whose runtime goes on */
    CHECK_EQ(again.spawn_in(rt, naps_of_many, &again, NULL, &f), 0);
    library_close(&again);
    CHECK_EQ(l.join(f, NULL, COIR_NEVER), 0);
    CHECK_EQ(l.stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
    CHECK_EQ(l.destroy(rt), 0);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(opened_and_closed),
      cmocka_unit_test(by_several_threads),
      cmocka_unit_test(closed_while_it_runs),
  };
  if (argc < 2) return 2;
  path = argv[1];
  alarm(60);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
