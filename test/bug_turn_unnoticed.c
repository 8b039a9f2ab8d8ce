/* The turn of a paused fiber was counted from when its thread was given the worker, whether that thread ran or not.
 *
 * Where it got no processor, because the machine was busy, it was paused again at the end of its quantum, before an
 * instruction of its own: it went to the end of the queue, and the turn was lost. And where who gave it the worker was
 * held up before waking it, it was found asleep, and taken for one that blocks: its worker was taken away, and it ran
 * beside the workers. So a busy machine became busier. */
#include "hogs.h"

#include <sched.h>

#include "internal.h"

#define HOGS 4

static _Atomic(bool) stop, spins;
static _Atomic(int) begun, runs; /* how many hogs have begun; the one that ran last */
static _Atomic(uint64_t) turns;  /* how often another one ran than before */

/* Gets a processor only when nobody else wants it. */
static int be_meek(void *number) {
  const struct sched_param none = {0};
  atomic_fetch_add(&begun, 1);
  CHECK_EQ(sched_setscheduler(0, SCHED_IDLE, &none), 0);
  while (!atomic_load(&stop))
    if (atomic_exchange(&runs, (int)(intptr_t)number) != (int)(intptr_t)number) atomic_fetch_add(&turns, 1);
  return 0;
}

static void *spin(void *unused) {
  while (atomic_load(&spins)) hog_compute(1000);
  return unused;
}

static int meek_hogs(void *lost) {
  struct coir_fiber *fibers[HOGS];
  pthread_t thread;
  for (int i = 0; i < HOGS; i++) fibers[i] = spawn(be_meek, (void *)(intptr_t)(i + 1));
  WAIT_FOR(atomic_load(&begun) == HOGS);
  atomic_store(&spins, true);
  CHECK_EQ(pthread_create(&thread, NULL, spin, NULL), 0);
  int64_t begin = coir_now();
  uint64_t pauses = stats_here().preemptions, were = atomic_load(&turns);
  CHECK_EQ(coir_sleep(COIR_SEC(1)), 0);
  pauses = stats_here().preemptions - pauses;
  int64_t took = coir_now() - begin;
  *(double *)lost = ((double)pauses - (double)(atomic_load(&turns) - were)) / ((double)took / 1e9);
  atomic_store(&stop, true);
  atomic_store(&spins, false);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  for (int i = 0; i < HOGS; i++) CHECK_EQ(join(fibers[i]), 0);
  return 0;
}

/* All on one processor. One that has not run is waited for, for 60 ms; so about 16 turns are lost in a second.
 * In hard mode a quantum is so short that some more are. It was 300 and 1500. */
static void without_a_processor(void) {
  if (!PAUSES_ARE_SURE) return;
  cpu_set_t set;
  double lost = 0;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  for (int i = 0, n = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &set) && n++) CPU_CLR(i, &set);
  CHECK_EQ(sched_setaffinity(0, sizeof set, &set), 0);
  CHECK_EQ(run_with((struct coir_config)PREEMPTIVE(1, 2000), meek_hogs, &lost), 0);
  CHECK(lost <= 100);
}

/* ---- Woken late ------------------------------------------------------------------------------------------------ */

#define DELAYS 20

static struct hog hogs[HOGS];
static _Atomic(int) asked, held, blocked;

static void on_stall(const struct coir_stall *stall, void *unused) {
  (void)unused;
  if (stall->kind == COIR_STALL_BLOCKED && !strcmp(stall->name, "hog")) atomic_fetch_add(&blocked, 1);
}

/* A thread that has just come to a worker; it is going to give it to a paused one. */
static void on_thread(int worker, void *unused) {
  (void)worker, (void)unused;
  if (atomic_load(&begun) < HOGS || atomic_load(&stop)) return;
  int number = atomic_fetch_add(&asked, 1) + 1;
  while (atomic_load(&held) < number && !atomic_load(&stop)) sched_yield();
}

/* It becomes a spare before it wakes that one: so it is held up there. */
static void *hold_spares(void *runtime) {
  struct coir_runtime *rt = runtime;
  for (int i = 1; i <= DELAYS; i++) {
    SPIN_UNTIL(atomic_load(&asked) >= i);
    coir__lock(&rt->spare_lock);
    atomic_store(&held, i);
    usleep(5000);
    coir__unlock(&rt->spare_lock);
  }
  atomic_store(&stop, true);
  return NULL;
}

static int hog_noted(void *h) {
  atomic_fetch_add(&begun, 1);
  return hog_run(h);
}

static int hogs_beside(void *unused) {
  (void)unused;
  struct coir_fiber *fibers[HOGS];
  pthread_t thread;
  for (int i = 0; i < HOGS; i++) {
    hogs[i].stop = &stop;
    fibers[i] = spawn_with((struct coir_attr){.name = "hog"}, hog_noted, &hogs[i]);
  }
  CHECK_EQ(pthread_create(&thread, NULL, hold_spares, coir_runtime_current()), 0);
  for (int i = 0; i < HOGS; i++) CHECK_EQ(join(fibers[i]), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 0;
}

static void woken_late(void) {
  if (!PAUSES_ARE_SURE) return;
  struct coir_config config = PREEMPTIVE(1, 2000);
  config.blocked_us = 1000;
  config.on_thread = on_thread;
  config.on_stall = on_stall;
  CHECK_EQ(run_with(config, hogs_beside, NULL), 0);
  CHECK(atomic_load(&blocked) < DELAYS / 2); /* some may wait for a page of their stack */
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(without_a_processor), CASE(woken_late)};
  return RUN_CASES(argc, argv, cases);
}
