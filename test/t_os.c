/* The operating system's part (os/linux.c): memory, guards, futex, fences, threads, and the record of a thread. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

#define ODD_ERRNO 4321 /* what errno must still be after everything that a fiber may call */

static pthread_t start(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  assert_int_equal(coir__os_thread_start(&thread, "t_os", fn, arg), 0);
  return thread;
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

static void reserve_aligns_and_reads_zero(void **state) {
  (void)state;
  size_t page = coir__os_page();
  static const size_t aligns[] = {0, 4096, 65536, 2 << 20, 1 << 30};
  for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
    size_t bytes = 5 * page;
    errno = ODD_ERRNO;
    char *memory = coir__os_reserve(bytes, aligns[i], i == 3);
    assert_int_equal(errno, ODD_ERRNO);
    assert_non_null(memory);
    assert_true(((uintptr_t)memory & (aligns[i] ? aligns[i] - 1 : page - 1)) == 0);
    for (size_t at = 0; at < bytes; at += page) {
      assert_int_equal(memory[at], 0);
      memory[at] = 1;
    }
    errno = ODD_ERRNO;
    coir__os_discard(memory + page, page);
    assert_int_equal(errno, ODD_ERRNO);
    assert_int_equal(memory[0], 1);
    assert_int_equal(memory[page], 0);
    coir__os_release(memory, bytes);
  }
}

static void reserve_fails_quietly(void **state) {
  (void)state;
  errno = ODD_ERRNO;
  assert_null(coir__os_reserve((size_t)1 << 60, 0, false));
  assert_null(coir__os_reserve(SIZE_MAX - coir__os_page() + 1, 2 << 20, false));
  assert_int_equal(errno, ODD_ERRNO);
}

/* Whether touching `at` ends a child process by SIGSEGV. */
static bool is_guarded(volatile char *at) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    signal(SIGSEGV, SIG_DFL);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    *at = 1;
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void guards_guard(void **state) {
  (void)state;
  size_t page = coir__os_page();
  char *memory = coir__os_reserve(8 * page, 0, false);
  assert_non_null(memory);
  memset(memory, 1, 8 * page);
  errno = ODD_ERRNO;
  int rc = coir__os_guard_install(memory + page);
  assert_true(rc == 0 || rc == -EINVAL);
  assert_int_equal(coir__os_guard_protect(memory + 5 * page), 0);
  assert_int_equal(coir__os_guard_protect(NULL), -ENOMEM);
  assert_int_equal(errno, ODD_ERRNO);
  print_message("guards by madvise: %s\n", rc == 0 ? "yes" : "no");
  assert_int_equal(is_guarded(memory + page), rc == 0);
  assert_true(is_guarded(memory + 5 * page));
  assert_false(is_guarded(memory));
  assert_false(is_guarded(memory + 2 * page));
  assert_false(is_guarded(memory + 6 * page));
  /* A guard outlives the discarding of what is around it. */
  coir__os_discard(memory, 3 * page);
  assert_int_equal(is_guarded(memory + page), rc == 0);
  coir__os_release(memory, 8 * page);
}

/* ---- Clock, CPUs ----------------------------------------------------------------------------------------------- */

static void clock_does_not_go_back(void **state) {
  (void)state;
  int64_t last = coir__os_now();
  assert_true(last > 0);
  for (int i = 0; i < 10000; i++) {
    int64_t now = coir__os_now();
    assert_true(now >= last);
    last = now;
  }
}

static void cpu_count_is_sane(void **state) {
  (void)state;
  errno = ODD_ERRNO;
  int cpus = coir__os_cpu_count();
  assert_int_equal(errno, ODD_ERRNO);
  assert_in_range(cpus, 1, sysconf(_SC_NPROCESSORS_CONF));
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) != 0) skip();
  int first = 0;
  while (!CPU_ISSET(first, &all)) first++;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
  assert_int_equal(coir__os_cpu_count(), 1);
  assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
  assert_int_equal(coir__os_cpu_count(), cpus);
}

/* ---- Futex ----------------------------------------------------------------------------------------------------- */

static _Atomic(uint32_t) word;

static void futex_returns_when_the_word_differs(void **state) {
  (void)state;
  atm_store_sc(&word, 1);
  errno = ODD_ERRNO;
  assert_int_equal(coir__os_futex_wait(&word, 0, COIR_NEVER), 0);
  assert_int_equal(errno, ODD_ERRNO);
}

static void futex_times_out_and_not_early(void **state) {
  (void)state;
  atm_store_sc(&word, 0);
  static const int64_t spans[] = {COIR_MS(5), 0, -COIR_SEC(1)};
  for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
    int64_t deadline = coir__os_now() + spans[i];
    errno = ODD_ERRNO;
    assert_int_equal(coir__os_futex_wait(&word, 0, deadline), -ETIMEDOUT);
    assert_int_equal(errno, ODD_ERRNO);
    assert_true(coir__os_now() >= deadline);
  }
  assert_int_equal(coir__os_futex_wait(&word, 0, 0), -ETIMEDOUT);
  assert_int_equal(coir__os_futex_wait(&word, 0, INT64_MIN), -ETIMEDOUT);
}

static void *wake_later(void *arg) {
  (void)arg;
  int64_t until = coir__os_now() + COIR_MS(10);
  while (coir__os_now() < until) coir__os_thread_yield();
  atm_store_sc(&word, 1);
  errno = ODD_ERRNO;
  coir__os_futex_wake(&word, 1);
  return (void *)(intptr_t)errno;
}

static void futex_wakes(void **state) {
  (void)state;
  static const int64_t limits[] = {COIR_NEVER, COIR_SEC(60)};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    atm_store_sc(&word, 0);
    pthread_t thread = start(wake_later, NULL);
    int64_t deadline = limits[i] == COIR_NEVER ? COIR_NEVER : coir__os_now() + limits[i];
    while (atm_load_sc(&word) == 0) assert_int_equal(coir__os_futex_wait(&word, 0, deadline), 0);
    void *error;
    pthread_join(thread, &error);
    assert_int_equal((intptr_t)error, ODD_ERRNO);
  }
}

/* ---- Locks and fences ------------------------------------------------------------------------------------------ */

#define LOCKERS 4
#ifdef COIR_SANITIZED
#define LOCK_ROUNDS 20000
#define DUEL_ROUNDS 2000
#else
#define LOCK_ROUNDS 200000
#define DUEL_ROUNDS 20000
#endif

static struct coir__lock lock;
static long locked_count;

static void *locker(void *arg) {
  for (int i = 0; i < LOCK_ROUNDS; i++) {
    coir__lock(&lock);
    long seen = locked_count;
    if (i % 4096 == 0) coir__os_thread_yield(); /* a holder that is preempted */
    locked_count = seen + 1;
    coir__unlock(&lock);
  }
  return arg;
}

static void lock_excludes(void **state) {
  (void)state;
  pthread_t threads[LOCKERS];
  locked_count = 0;
  for (int i = 0; i < LOCKERS; i++) threads[i] = start(locker, NULL);
  for (int i = 0; i < LOCKERS; i++) pthread_join(threads[i], NULL);
  assert_int_equal(locked_count, LOCKERS * LOCK_ROUNDS);
  assert_true(coir__lock_try(&lock));
  assert_false(coir__lock_try(&lock));
  coir__unlock(&lock);
}

/* Two parties that each write one word and then read the other's: with a light fence on the one side and a heavy one
 * on the other, never do both miss. */
static _Alignas(64) _Atomic(uint32_t) hot_word;
static _Alignas(64) _Atomic(uint32_t) rare_word;
static _Alignas(64) _Atomic(uint32_t) hot_round;
static _Alignas(64) _Atomic(uint32_t) hot_saw;

static void dawdle(uint32_t steps) {
  while (steps-- > 0) __asm__ volatile("");
}

static void *duel_hot(void *arg) {
  for (uint32_t round = 1; round <= DUEL_ROUNDS; round++) {
    for (int spins = 0; atm_load_acq(&hot_round) != round; spins++) {
      if (spins > 1000) coir__os_thread_yield();
    }
    dawdle(round * 5 % 128);
    atm_store_rlx(&hot_word, round);
    coir__fence_light();
    uint32_t saw = atm_load_rlx(&rare_word);
    atm_store_rel(&hot_saw, saw == round ? 2 : 1);
  }
  return arg;
}

static void duel(void) {
  atm_store_sc(&hot_word, 0);
  atm_store_sc(&rare_word, 0);
  atm_store_sc(&hot_round, 0);
  pthread_t thread = start(duel_hot, NULL);
  int missed = 0;
  for (uint32_t round = 1; round <= DUEL_ROUNDS; round++) {
    atm_store_rlx(&hot_saw, 0);
    atm_store_rel(&hot_round, round);
    dawdle(round * 7 % 128); /* so that the two meet in every way */
    atm_store_rlx(&rare_word, round);
    coir__fence_heavy();
    bool saw = atm_load_rlx(&hot_word) == round;
    uint32_t other;
    for (int spins = 0; (other = atm_load_acq(&hot_saw)) == 0; spins++) {
      if (spins > 1000) coir__os_thread_yield();
    }
    missed += !saw && other == 1;
  }
  pthread_join(thread, NULL);
  assert_int_equal(missed, 0);
}

/* In a child, because registering is for the life of a process. Returns its exit status; `fn` returns whether all is
 * well. */
static int in_child(bool (*fn)(void)) {
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) _exit(fn() ? 0 : 1);
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool fallback_child(void) {
  setenv("COIR_NO_MEMBARRIER", "1", 1);
  coir__os_fence_init();
  if (coir__fence_asymmetric) return false;
  coir__fence_light();
  coir__fence_heavy();
  duel();
  return true;
}

/* Runs before anything in this process registers. */
static void fences_fall_back_when_told(void **state) {
  (void)state;
  assert_false(coir__fence_asymmetric);
  assert_int_equal(in_child(fallback_child), 0);
}

static void fences_pair(void **state) {
  (void)state;
  errno = ODD_ERRNO;
  coir__os_fence_init();
  coir__os_fence_init();
  coir__fence_heavy();
  assert_int_equal(errno, ODD_ERRNO);
  print_message("membarrier: %s\n", coir__fence_asymmetric ? "yes" : "no");
  duel();
}

static bool fork_child(void) {
  bool before = coir__fence_asymmetric;
  coir__os_fence_init();
  coir__fence_heavy(); /* aborts if the registration was lost */
  duel();
  return coir__fence_asymmetric == before && coir__thread_get() == coir__thread_peek() && coir__thread_peek();
}

static void child_of_fork_keeps_fence_and_record(void **state) {
  (void)state;
  coir__os_fence_init();
  struct coir__thread *mine = coir__thread_get();
  assert_non_null(mine);
  assert_int_equal(in_child(fork_child), 0);
  assert_ptr_equal(coir__thread_peek(), mine);
}

/* ---- Threads --------------------------------------------------------------------------------------------------- */

struct thread_facts {
  char name[32];
  sigset_t blocked;
  size_t stack_bytes;
  bool stack_is_mine;
};

static void *report_facts(void *arg) {
  struct thread_facts *facts = arg;
  const void *low;
  char here;
  pthread_getname_np(pthread_self(), facts->name, sizeof facts->name);
  pthread_sigmask(SIG_SETMASK, NULL, &facts->blocked);
  coir__os_stack_bounds(&low, &facts->stack_bytes);
  facts->stack_is_mine = (uintptr_t)&here - (uintptr_t)low < facts->stack_bytes;
  return NULL;
}

static void threads_have_name_mask_and_stack(void **state) {
  (void)state;
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  struct thread_facts facts;
  memset(&facts, 0, sizeof facts);
  pthread_t thread;
  errno = ODD_ERRNO;
  assert_int_equal(coir__os_thread_start(&thread, "a name that is too long", report_facts, &facts), 0);
  assert_int_equal(errno, ODD_ERRNO);
  pthread_join(thread, NULL);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  for (int i = 1; i < 32; i++) assert_int_equal(sigismember(&before, i), sigismember(&after, i));
  assert_string_equal(facts.name, "a name that is ");
  static const int kept[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) assert_false(sigismember(&facts.blocked, kept[i]));
  static const int blocked[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM, SIGPIPE, SIGWINCH};
  for (size_t i = 0; i < sizeof blocked / sizeof *blocked; i++) assert_true(sigismember(&facts.blocked, blocked[i]));
  assert_true(facts.stack_bytes >= (size_t)256 << 10);
#if !defined(COIR_ASAN)
  assert_true(facts.stack_is_mine); /* with AddressSanitizer `here` may lie on a stack of its own */
#endif
}

/* A library with many thread-locals must not eat up the stack of a thread. */
static __thread char big_local[900 << 10];

static void *use_big_local_and_stack(void *arg) {
  volatile char deep[200 << 10];
  for (size_t i = 0; i < sizeof deep; i += 4096) deep[i] = 1;
  for (size_t i = 0; i < sizeof big_local; i += 4096) ((volatile char *)big_local)[i] = deep[i % sizeof deep];
  return arg;
}

static void threads_have_room_beside_big_locals(void **state) {
  (void)state;
  int mark;
  void *back;
  pthread_join(start(use_big_local_and_stack, &mark), &back);
  assert_ptr_equal(back, &mark);
}

static void complaint_goes_to_stderr(void **state) {
  (void)state;
  int ends[2], saved = dup(STDERR_FILENO);
  assert_int_equal(pipe(ends), 0);
  dup2(ends[1], STDERR_FILENO);
  errno = ODD_ERRNO;
  coir__os_complain("coir: hello\n", 12);
  int error = errno;
  dup2(saved, STDERR_FILENO);
  char text[32] = {0};
  assert_int_equal(read(ends[0], text, sizeof text), 12);
  assert_string_equal(text, "coir: hello\n");
  assert_int_equal(error, ODD_ERRNO);
  close(saved);
  close(ends[0]);
  close(ends[1]);
}

/* ---- Records --------------------------------------------------------------------------------------------------- */

static _Atomic(uint32_t) ended_count;
static struct coir__thread *ended_last;

static void count_ended(struct coir__thread *t) {
  assert_ptr_equal(coir__thread_peek(), t); /* the hook still finds the record */
  ended_last = t;
  atm_add_sc(&ended_count, 1);
}

static void *get_record(void *arg) {
  struct coir__thread **out = arg;
  if (!coir__thread_peek() || !coir__thread_peek()->is_own) abort(); /* Coir has started it */
  errno = ODD_ERRNO;
  struct coir__thread *t = coir__thread_get();
  if (errno != ODD_ERRNO || !t || coir__thread_get() != t || coir__thread_peek() != t) abort();
  if (t->errno_location != &errno || !t->waiter.is_thread || t->worker || t->locals || t->alt_stack) abort();
  if (atm_load_rlx(&t->waiter.cancel) != 0 || atm_load_rlx(&t->waits_on) != 0) abort();
  atm_add_rlx(&t->waiter.word, COIR__CODE_MASK + 1); /* a wait */
  atm_store_rlx(&t->waiter.cancel, 1);
  atm_store_rlx(&t->waits_on, 99);
  *out = t;
  return NULL;
}

static void record_is_per_thread_and_used_again(void **state) {
  (void)state;
  coir__thread_ended = count_ended;
  atm_store_sc(&ended_count, 0);
  struct coir__thread *mine = coir__thread_get(), *first = NULL, *second = NULL;
  assert_ptr_equal(coir__thread_peek(), mine);
  pthread_join(start(get_record, &first), NULL);
  assert_int_equal(ended_count, 1);
  assert_ptr_equal(ended_last, first);
  assert_ptr_not_equal(first, mine);
  uint64_t used = atm_load_rlx(&first->waiter.word);
  pthread_join(start(get_record, &second), NULL);
  assert_ptr_equal(second, first);
  assert_true(atm_load_rlx(&second->waiter.word) == used + COIR__CODE_MASK + 1); /* goes on counting */
  assert_int_equal(ended_count, 2);
  assert_ptr_equal(coir__thread_peek(), mine);
  coir__thread_ended = NULL;
}

static pthread_key_t late_key;
static struct coir__thread *late_record;

static void late_destructor(void *value) {
  (void)value;
  late_record = coir__thread_get();
}

static void *use_late_key(void *arg) {
  struct coir__thread **out = arg;
  *out = coir__thread_get();
  pthread_setspecific(late_key, out);
  return NULL;
}

/* Other destructors may still call Coir after the record was given back; they get one, and it goes back as well. */
static void destructors_may_use_records(void **state) {
  (void)state;
  assert_int_equal(pthread_key_create(&late_key, late_destructor), 0);
  coir__thread_ended = count_ended;
  atm_store_sc(&ended_count, 0);
  struct coir__thread *record = NULL, *again = NULL;
  pthread_join(start(use_late_key, &record), NULL);
  assert_non_null(late_record);
  assert_true(ended_count >= 1);
  pthread_join(start(get_record, &again), NULL);
  assert_ptr_equal(again, late_record);
  coir__thread_ended = NULL;
  pthread_key_delete(late_key);
}

#define CROWD 16

static void *crowd_member(void *arg) {
  struct coir__thread *t = coir__thread_get();
  for (int i = 0; i < 2000; i++) {
    if (coir__thread_peek() != t) abort();
    if (i % 100 == 0) coir__os_thread_yield();
  }
  atm_add_sc((_Atomic(uint32_t) *)arg, 1);
  while (atm_load_sc((_Atomic(uint32_t) *)arg) < CROWD) coir__os_thread_yield(); /* all hold theirs at a time */
  return t;
}

static void records_of_living_threads_differ(void **state) {
  (void)state;
  pthread_t threads[CROWD];
  void *records[CROWD];
  _Atomic(uint32_t) ready = 0;
  for (int i = 0; i < CROWD; i++) threads[i] = start(crowd_member, &ready);
  for (int i = 0; i < CROWD; i++) pthread_join(threads[i], &records[i]);
  for (int i = 0; i < CROWD; i++) {
    for (int j = 0; j < i; j++) assert_ptr_not_equal(records[i], records[j]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fences_fall_back_when_told),
      cmocka_unit_test(reserve_aligns_and_reads_zero),
      cmocka_unit_test(reserve_fails_quietly),
      cmocka_unit_test(guards_guard),
      cmocka_unit_test(clock_does_not_go_back),
      cmocka_unit_test(cpu_count_is_sane),
      cmocka_unit_test(futex_returns_when_the_word_differs),
      cmocka_unit_test(futex_times_out_and_not_early),
      cmocka_unit_test(futex_wakes),
      cmocka_unit_test(lock_excludes),
      cmocka_unit_test(fences_pair),
      cmocka_unit_test(child_of_fork_keeps_fence_and_record),
      cmocka_unit_test(threads_have_name_mask_and_stack),
      cmocka_unit_test(threads_have_room_beside_big_locals),
      cmocka_unit_test(complaint_goes_to_stderr),
      cmocka_unit_test(record_is_per_thread_and_used_again),
      cmocka_unit_test(destructors_may_use_records),
      cmocka_unit_test(records_of_living_threads_differ),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
