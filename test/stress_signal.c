/* Signals as a channel (coir_io.h): opened and closed, so that what the signals do changes all the time, while they
 * arrive as fast as another thread can send them; and one by one, while fibers come and go.
 *
 * qemu 7.2 cannot do the former: it looks once at what a signal does, to see whether it is ignored, and once more for
 * where to go, which is address 1, SIG_IGN, then. */
#include "harness.h"

#include <semaphore.h>
#include <signal.h>

#include "coir_io.h"

static sigset_t both(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGRTMIN);
  return set;
}

static void *storm(void *stop) {
  sigset_t set = both();
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  while (!atomic_load((_Atomic(int) *)stop)) {
    kill(getpid(), SIGUSR1);
    union sigval v = {.sival_int = 1};
    sigqueue(getpid(), SIGRTMIN, v); /* may fail: so many may be queued */
  }
  return NULL;
}

static int open_and_close(void *arg) {
  for (int i = 0; i < rounds(200); i++) {
    sigset_t set = both();
    struct coir_signals *s = NULL;
    CHECK_EQ(coir_signals_open(&s, &set), 0);
    struct coir_siginfo info;
    for (int k = 0; k < i % 4; k++) {
      int rc = COIR_RECV(coir_signals_chan(s), &info, coir_after(COIR_US(200)));
      CHECK(rc == 0 || rc == -ETIMEDOUT);
      if (rc == 0) CHECK(info.signo == SIGUSR1 || info.signo == SIGRTMIN);
    }
    coir_signals_close(s);
  }
  (void)arg;
  return 0;
}

static int under_storm(void *arg) {
  _Atomic(int) stop = 0;
  pthread_t thread;
  struct coir_fiber *f[4];
  CHECK_EQ(pthread_create(&thread, NULL, storm, &stop), 0);
  for (int i = 0; i < 4; i++) f[i] = spawn(open_and_close, NULL);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(f[i]), 0);
  stop = 1;
  pthread_join(thread, NULL);
  (void)arg;
  return 5;
}

static void opening_and_closing_in_a_storm(void **state) {
  (void)state;
  signal(SIGUSR1, SIG_IGN);
  signal(SIGRTMIN, SIG_IGN);
  int fds = fd_count();
  CHECK_EQ(run(under_storm, NULL), 5);
  CHECK_EQ(fd_count(), fds);
  signal(SIGUSR1, SIG_DFL);
  signal(SIGRTMIN, SIG_DFL);
}

/* ---- None is lost ------------------------------------------------------------------------------------------------ */

static sem_t asked;
static _Atomic(bool) over;

/* Sends one for each time that it is asked to, a moment later. */
static void *sender(void *arg) {
  sigset_t set = both();
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  uint64_t seed = rng_seed(1);
  for (int i = 0;; i++) {
    while (sem_wait(&asked)) {}
    if (atomic_load(&over)) return arg;
    if (rng_next(&seed) % 2) usleep((useconds_t)(rng_next(&seed) % 1000));
    CHECK_EQ(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = i}), 0);
  }
}

static int comes_and_goes(void *arg) {
  (void)arg;
  return coir_sleep(COIR_US(100));
}

static int waits_and_works(void *arg) {
  uint64_t seed = rng_seed((uintptr_t)arg);
  while (!atomic_load(&over)) {
    if (rng_next(&seed) % 4) (void)coir_sleep(COIR_US(rng_next(&seed) % 500));
    else coir_yield();
  }
  return 0;
}

/* In what the thread that takes the signal happens to be: ThreadSanitizer keeps it with the fiber that runs, which had
 * to wait for it, or ended. */
static int receives_each(void *arg) {
  struct coir_fiber *f[4];
  sigset_t set = both();
  struct coir_signals *s = NULL;
  CHECK_EQ(coir_signals_open(&s, &set), 0);
  for (uintptr_t i = 0; i < 4; i++) f[i] = spawn(waits_and_works, (void *)(i + 1));
  for (int i = 0; i < 1500; i++) {
    struct coir_siginfo info;
    sem_post(&asked);
    for (int k = 0; k < i % 5; k++) coir_go(comes_and_goes, NULL);
    CHECK_EQ(COIR_RECV(coir_signals_chan(s), &info, coir_after(COIR_SEC(10))), 0);
    CHECK_EQ((int)(intptr_t)info.value, i);
  }
  atomic_store(&over, true);
  for (int i = 0; i < 4; i++) CHECK_EQ(join(f[i]), 0);
  coir_signals_close(s);
  (void)arg;
  return 5;
}

static void each_arrives(void **state) {
  (void)state;
  pthread_t thread;
  CHECK_EQ(sem_init(&asked, 0, 0), 0);
  CHECK_EQ(pthread_create(&thread, NULL, sender, NULL), 0);
  CHECK_EQ(run(receives_each, NULL), 5);
  sem_post(&asked);
  pthread_join(thread, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(opening_and_closing_in_a_storm),
      cmocka_unit_test(each_arrives),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
