/* What the process does once, before Coir is used first, was not tried again when it failed: after one failure of
 * pthread_key_create no thread ever got a record. And that pthread_atfork had failed was not noticed: a child of fork
 * took its parent's runtimes and signals for its own. */
#include "harness.h"

#include <signal.h>

#include "coir_io.h"

static _Atomic(int) fail_key, fail_atfork; /* which call fails, from 1; 0: none */

/* The linker sends the library's calls here (--wrap). */
int __real_pthread_key_create(pthread_key_t *key, void (*end)(void *));
int __wrap_pthread_key_create(pthread_key_t *key, void (*end)(void *));
int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

int __wrap_pthread_key_create(pthread_key_t *key, void (*end)(void *)) {
  return atomic_fetch_sub(&fail_key, 1) == 1 ? EAGAIN : __real_pthread_key_create(key, end);
}

int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
  return atomic_fetch_sub(&fail_atfork, 1) == 1 ? ENOMEM : __real_pthread_atfork(prepare, parent, child);
}

static int nothing(void *arg) {
  (void)arg;
  return 7;
}

static struct coir_runtime *create_again(void) {
  struct coir_config config = {.size = sizeof config, .workers = 2};
  struct coir_runtime *rt;
  int status = 0;
  CHECK_EQ(coir_runtime_create(&rt, &config), -ENOMEM);
  CHECK_EQ(coir_runtime_create(&rt, &config), 0);
  CHECK_EQ(coir_runtime_run(rt, nothing, NULL, &status), 0);
  CHECK_EQ(status, 7);
  return rt;
}

static void without_key(void) {
  fail_key = 1;
  CHECK_EQ(coir_runtime_destroy(create_again()), 0);
}

/* Its handlers are there: the child knows that the runtime is its parent's. */
static void without_handler(int which) {
  int status = -1;
  fail_atfork = which;
  struct coir_runtime *rt = create_again();
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) _exit(coir_runtime_run(rt, nothing, NULL, NULL) == -ENOTSUP ? 0 : 1);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void without_first_handler(void) { without_handler(1); }  /* of the records of threads */
static void without_second_handler(void) { without_handler(2); } /* of the runtimes */

static void without_handler_of_signals(void) {
  struct coir_signals *s;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  CHECK_EQ(coir_sleep(COIR_US(1)), 0); /* this thread has its record */
  fail_atfork = 1;
  CHECK_EQ(coir_signals_open(&s, &set), -ENOMEM);
  CHECK_EQ(coir_signals_open(&s, &set), 0);
  coir_signals_close(s);
}

static void it_is_tried_again(void **state) {
  (void)state;
  static void (*const cases[])(void) = {without_key, without_first_handler, without_second_handler,
                                        without_handler_of_signals};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) CHECK_EQ(in_child_process(cases[i], NULL, 0), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(it_is_tried_again)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
