/* coir_runtime_run looked at the runtime, and gave up the handle of its first fiber, when that was off already. Who
 * waits for its end by coir_runtime_destroy, which says -EBUSY until then, may have freed it: so the last that the run
 * does with it is to give back its lock. Here the other thread is let in at each lock that the run gives back. */
#include "processes.h"

int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);

static __thread bool is_runner;
static struct coir_runtime *rt;
static _Atomic(bool) has_run, is_gone;
static _Atomic(int) asked, answered;

/* Who has another lock that destroying takes is not waited for. */
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex) {
  int rc = __real_pthread_mutex_unlock(mutex);
  if (!is_runner || !has_run || is_gone) return rc;
  int question = ++asked;
  for (int i = 0; i < 2000 && answered < question; i++) usleep(100);
  return rc;
}

static void *destroys(void *arg) {
  while (!is_gone) {
    int question = asked;
    if (question > answered) {
      is_gone = coir_runtime_destroy(rt) == 0;
      answered = question;
    }
    usleep(50);
  }
  return arg;
}

static int first(void *arg) {
  has_run = true;
  return *(int *)arg;
}

static void destroyed_as_soon_as_it_is_off(void) {
  for (int i = 0; i < 10; i++) {
    pthread_t thread;
    int status = -1;
    has_run = is_gone = false;
    asked = answered = 0;
    rt = make_runtime((struct coir_config){.workers = 2});
    CHECK_EQ(pthread_create(&thread, NULL, destroys, NULL), 0);
    is_runner = true;
    CHECK_EQ(coir_runtime_run(rt, first, &i, &status), 0);
    is_runner = false;
    CHECK_EQ(status, i);
    CHECK(is_gone);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(destroyed_as_soon_as_it_is_off)};
  return RUN_CASES(argc, argv, cases);
}
