/* The clock: one thread, made with the first alarm, that does things when their time has come, whether or not any
 * runtime runs. It sleeps until the soonest alarm is due, or, when there is none, until there is.
 *
 * The alarms are a pairing heap (Fredman, Sedgewick, Sleator and Tarjan, 1986) by the time when they are due: setting
 * one takes constant time and no memory, unsetting or firing one O(log n) amortised. What an alarm does is done under
 * the clock's lock; so whoever has unset it may free it.
 *
 * It goes by real time, as a thread does. coir_now() is another time on the fibers of a simulated runtime; so what is
 * due is found out by go__clock_now(), whoever asks.
 *
 * Lock order: the clock before what the alarms lock. */
#include <signal.h>
#include <time.h>

#include "internal.h"

struct go_clock {
  pthread_mutex_t lock; /* never held across a wait. Guards the rest */
  bool is_running;
  struct go__alarm *first;
  struct coir_event sooner; /* wakes the thread: `first` may have become sooner */
};

static struct go_clock the_clock = {.lock = PTHREAD_MUTEX_INITIALIZER};
static bool forks; /* constant: forget_in_child is there */

/* That of coir_now() on a plain thread. */
int64_t go__clock_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return COIR_SEC(t.tv_sec) + t.tv_nsec;
}

int64_t go__clock_after(int64_t ns) {
  int64_t now = go__clock_now();
  return ns <= 0 ? now : ns > COIR_NEVER - now ? COIR_NEVER : now + ns;
}

/* ---- The heap -------------------------------------------------------------------------------------------------- */

/* Makes one heap of two, whose roots have no siblings. Either may be NULL. */
static struct go__alarm *meld(struct go__alarm *a, struct go__alarm *b) {
  if (!a || !b) return a ? a : b;
  if (b->due < a->due) {
    struct go__alarm *swap = a;
    a = b, b = swap;
  }
  b->prev = a;
  b->next = a->child;
  if (b->next) b->next->prev = b;
  a->child = b;
  return a;
}

static struct go__alarm *alone(struct go__alarm *a) {
  if (a) a->next = a->prev = NULL;
  return a;
}

/* Makes one heap of a list of siblings: in pairs from the left, then all of them from the right. */
static struct go__alarm *meld_all(struct go__alarm *list) {
  struct go__alarm *pairs = NULL, *heap = NULL;
  while (list) {
    struct go__alarm *a = list, *b = a->next;
    list = b ? b->next : NULL;
    a = meld(alone(a), alone(b));
    a->next = pairs;
    pairs = a;
  }
  while (pairs) {
    struct go__alarm *a = pairs;
    pairs = a->next;
    heap = meld(heap, alone(a));
  }
  return heap;
}

static void heap_put(struct go__alarm *a) {
  a->child = NULL;
  a->is_set = true;
  the_clock.first = meld(the_clock.first, alone(a));
}

static void heap_take(struct go__alarm *a) {
  struct go__alarm *below = meld_all(a->child);
  if (a == the_clock.first) {
    the_clock.first = below;
  } else {
    if (a->prev->child == a) a->prev->child = a->next;
    else a->prev->next = a->next;
    if (a->next) a->next->prev = a->prev;
    the_clock.first = meld(the_clock.first, below);
  }
  a->is_set = false;
}

/* ---- The thread ------------------------------------------------------------------------------------------------ */

static void fire(struct go__alarm *a, int64_t now) {
  heap_take(a);
  if (a->period) {
    a->due += (now - a->due) / a->period * a->period; /* the last one that is over */
    a->due = a->due > COIR_NEVER - a->period ? COIR_NEVER : a->due + a->period;
    heap_put(a);
  }
  a->fire(a);
}

static void *clock_thread(void *unused) {
  pthread_mutex_lock(&the_clock.lock);
  for (;;) {
    int64_t now = go__clock_now(), due = the_clock.first ? the_clock.first->due : COIR_NEVER;
    if (due <= now) {
      fire(the_clock.first, now);
      continue;
    }
    coir_event_reset(&the_clock.sooner); /* what was set before is known; what comes is set after it */
    pthread_mutex_unlock(&the_clock.lock);
    (void)coir_event_wait(&the_clock.sooner, due); /* whatever has come, the loop finds out */
    pthread_mutex_lock(&the_clock.lock);
  }
  return unused;
}

/* The child of a fork has no such thread, and what others were doing to the heap will never be done. */
static void forget_in_child(void) { the_clock = (struct go_clock){.lock = PTHREAD_MUTEX_INITIALIZER}; }

/* Before main: so that there is no moment at which a fork finds the lock held, and no handler. */
static __attribute__((constructor)) void prepare_for_forks(void) {
  forks = pthread_atfork(NULL, NULL, forget_in_child) == 0;
}

/* The lock is held. Signals are for the program's own threads. */
static int start(void) {
  sigset_t all, before;
  pthread_attr_t attr;
  pthread_t thread;
  if (!forks) return -ENOMEM;
  int rc = pthread_attr_init(&attr);
  if (rc) return -rc;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  rc = pthread_create(&thread, &attr, clock_thread, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  the_clock.is_running = rc == 0;
  return -rc;
}

int go__alarm_set(struct go__alarm *alarm) {
  pthread_mutex_lock(&the_clock.lock);
  int rc = the_clock.is_running ? 0 : start();
  if (rc == 0) heap_put(alarm);
  bool is_soonest = the_clock.first == alarm;
  pthread_mutex_unlock(&the_clock.lock);
  if (rc == 0 && is_soonest) coir_event_set(&the_clock.sooner);
  return rc;
}

void go__alarm_unset(struct go__alarm *alarm) {
  pthread_mutex_lock(&the_clock.lock);
  if (alarm->is_set) heap_take(alarm);
  pthread_mutex_unlock(&the_clock.lock);
}
