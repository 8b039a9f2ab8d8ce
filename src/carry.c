/* Threads carry workers. A fiber that is about to block its thread gives the worker away, and goes on alone.
 *
 * Goal: while a call of the fiber holds its thread up in the kernel, all else that its worker has to do goes on:
 * queues, timers, poller, inbox. And the call is made on the thread on which the fiber runs, with the thread-locals
 * and locks that are its own there, as ordinary code expects.
 *
 * Design. A worker is not its thread (types.h), and depends on nothing that is its thread's. In coir_block_enter the
 * fiber stays on its thread, which gives the worker to a spare one, or to a new one, and is a plain thread from then
 * on: whatever the fiber calls meanwhile is as from a plain thread. In coir_block_leave it leaves the thread for
 * good, as if it yielded: it goes home to the thread's own stack, where the worker's loop finds that it has lost the
 * worker, queues the fiber from outside, and becomes a spare.
 *
 *   a thread       has                                          becomes
 *   carries        worker, no fiber away                        away (enter), over (HALT)
 *   is away        no worker, `away`: its stack is the fiber's  spare (leave)
 *   is spare       neither; in rt->spares                       carries (another one's enter), over (HALT; long unused)
 *
 * Every worker is carried by exactly one thread while its runtime runs: it is handed from one to the other under its
 * heir's `heir_to`, by release and acquire. So at the end each is put to rest by one thread, whichever that is, and
 * all threads are joined: those that were made for the workers, and the extra ones, which are in a list. The thread
 * that called coir_runtime_run has no other way: when it has lost worker 0 it waits as a spare until the end.
 *
 * Pinned fibers count on their thread. So a worker that has ever been given one keeps its thread.
 *
 * Rejected: a pool of threads that makes the call (it has other thread-locals, and the fiber's frames are used by two
 * threads); taking the worker back when the call was short (a race for what a queue does as well). */
#include "internal.h"

#define SPARE_KEEPS COIR_SEC(1) /* an extra thread that nobody needed for so long goes */

/* An extra thread. Freed by itself when it goes, else by who joins it. */
struct coir__extra {
  struct coir__extra *next;
  pthread_t pthread;
  struct coir__worker *worker; /* that it begins with */
};

/* rt->spare_lock is held. False: somebody is about to join it. */
static bool extra_unlink(struct coir_runtime *rt, struct coir__extra *e) {
  struct coir__extra **at = &rt->extras;
  while (*at && *at != e) at = &(*at)->next;
  if (!*at) return false;
  *at = e->next;
  rt->extra_count--;
  return true;
}

/* ---- Spares ---------------------------------------------------------------------------------------------------- */

static void hand(struct coir__thread *heir, struct coir__worker *w) {
  atm_store_rel(&heir->heir_to, w); /* all that was done with it; pairs with the acquire in spare_wait() */
  atm_add_sc(&heir->futex, 1);
  coir__os_futex_wake(&heir->futex, 1);
}

static struct coir__thread *spare_take(struct coir_runtime *rt) {
  coir__lock(&rt->spare_lock);
  struct coir__thread *t = rt->spares;
  if (t) rt->spares = t->next_spare;
  coir__unlock(&rt->spare_lock);
  return t;
}

/* Takes a thread out of the spares; an extra one that goes by itself takes care that nobody joins it. False: it is
 * being handed a worker. */
static bool spare_quit(struct coir_runtime *rt, struct coir__thread *t, struct coir__extra *goes) {
  coir__lock(&rt->spare_lock);
  struct coir__thread **at = &rt->spares;
  while (*at && *at != t) at = &(*at)->next_spare;
  bool found = *at != NULL, is_alone = false;
  if (found) *at = t->next_spare;
  if (found && goes) is_alone = extra_unlink(rt, goes);
  coir__unlock(&rt->spare_lock);
  if (is_alone) {
    pthread_detach(goes->pthread);
    coir__free(NULL, goes, sizeof *goes);
  }
  return found;
}

/* Waits for a worker. `self`: NULL unless it is an extra thread. NULL: it is over, and `self` may be gone. */
static struct coir__worker *spare_wait(struct coir_runtime *rt, struct coir__thread *t, struct coir__extra *self) {
  int64_t deadline = self ? coir__os_now() + SPARE_KEEPS : COIR_NEVER;
  atm_store_rlx(&t->heir_to, NULL);
  coir__lock(&rt->spare_lock);
  t->next_spare = rt->spares;
  rt->spares = t;
  coir__unlock(&rt->spare_lock);
  for (bool is_late = false;;) {
    uint32_t seen = atm_load_acq(&t->futex);
    struct coir__worker *w = atm_load_acq(&t->heir_to);
    if (w) return w;
    /* The phase after we joined the spares; coir__carry_halt goes through them after it has changed. */
    bool is_over = atm_load_sc(&rt->phase) == COIR__PHASE_HALT;
    if ((is_over || is_late) && spare_quit(rt, t, is_over ? NULL : self)) return NULL;
    is_late = coir__os_futex_wait(&t->futex, seen, deadline) == -ETIMEDOUT;
  }
}

void coir__carry_halt(struct coir_runtime *rt) {
  coir__lock(&rt->spare_lock);
  for (struct coir__thread *t = rt->spares; t; t = t->next_spare) {
    atm_add_sc(&t->futex, 1);
    coir__os_futex_wake(&t->futex, 1);
  }
  coir__unlock(&rt->spare_lock);
}

/* ---- Carrying -------------------------------------------------------------------------------------------------- */

/* The fiber has left this thread: it may go on wherever there is time for it. */
static void queue_away(struct coir__thread *t) {
  struct coir_fiber *f = t->away;
  t->away = NULL;
  coir__ready(NULL, f);
}

static void carry(struct coir__worker *w, struct coir__extra *self) {
  struct coir_runtime *rt = w->rt;
  struct coir__thread *t = coir__thread_get();
  COIR_CHECK(t, "no memory for the record of a thread");
  long slack = coir__os_timer_slack(1); /* deadlines are met as well as the clock allows, and not 50 us later */
  coir__overflow_arm_thread(t);
  coir__switch_prepare_thread(t);
  while (w && !coir__worker_loop(w, t)) {
    queue_away(t);
    w = spare_wait(rt, t, self);
  }
  coir__overflow_disarm_thread(t);
  coir__os_timer_slack(slack);
}

void coir__carry(struct coir__worker *w) { carry(w, NULL); }

/* Not inlined: pthread_self() has no place in a function that goes on to run fibers (docs/tls.md). */
static __attribute__((noinline)) void extra_link(struct coir_runtime *rt, struct coir__extra *e) {
  e->pthread = pthread_self();
  coir__lock(&rt->spare_lock);
  e->next = rt->extras;
  rt->extras = e;
  coir__unlock(&rt->spare_lock);
}

static void *extra_main(void *extra) {
  struct coir__extra *e = extra;
  extra_link(e->worker->rt, e);
  carry(e->worker, e);
  return NULL;
}

/* Has a new thread carry the worker. False: there are enough, or none could be made. */
static bool extra_make(struct coir__worker *w) {
  struct coir_runtime *rt = w->rt;
  struct coir__extra *e = coir__alloc(NULL, sizeof *e);
  if (!e) return false;
  e->worker = w;
  coir__lock(&rt->spare_lock);
  bool is_room = rt->extra_count < rt->config.spares_max;
  rt->extra_count += is_room;
  coir__unlock(&rt->spare_lock);
  pthread_t unused;
  if (is_room && coir__os_thread_start(&unused, "coir-spare", extra_main, e) == 0) return true;
  coir__lock(&rt->spare_lock);
  rt->extra_count -= is_room;
  coir__unlock(&rt->spare_lock);
  coir__free(NULL, e, sizeof *e);
  return false;
}

/* One that was counted may not be in the list yet. */
void coir__carry_join(struct coir_runtime *rt) {
  for (;;) {
    coir__lock(&rt->spare_lock);
    int count = rt->extra_count;
    struct coir__extra *e = rt->extras;
    if (e) extra_unlink(rt, e);
    coir__unlock(&rt->spare_lock);
    if (count == 0) return;
    if (!e) coir__os_thread_yield();
    else {
      pthread_join(e->pthread, NULL);
      coir__free(NULL, e, sizeof *e);
    }
  }
}

/* ---- Calls that block ------------------------------------------------------------------------------------------ */

static bool has_heir(struct coir__worker *w) {
  struct coir__thread *heir = spare_take(w->rt);
  if (!heir) return extra_make(w);
  hand(heir, w);
  return true;
}

struct coir_runtime *coir__away_from(void) {
  struct coir__thread *t = coir__thread_peek();
  struct coir_runtime *rt = t && t->away ? t->away->rt : NULL;
  return rt && !atm_load_acq(&rt->forked) ? rt : NULL;
}

struct coir_runtime *coir__caller_runtime(struct coir__worker *w) {
  struct coir_runtime *away = w ? NULL : coir__away_from();
  return w ? w->rt : away ? away : coir_runtime_default();
}

int coir_block_enter(void) {
  struct coir__thread *t = coir__thread_peek();
  struct coir__worker *w = t ? t->worker : NULL;
  if (t && t->away) t->away_depth++;
  if (!w || !w->current) return 0;
  if (atm_load_rlx(&w->has_pinned)) return -EBUSY;
  struct coir_fiber *f = w->current;
  atm_store_rlx(&f->waits_on, COIR__REASON_BLOCK);
  atm_store_rlx(&f->since, w->looked_at);
  f->b.more |= COIR__MORE_AWAY;
  atm_show(&f->b.worker, (int16_t)w->index);
  t->away = f;
  t->away_depth = 0;
  t->worker = NULL;
  w->thread = NULL;
#if defined(COIR_TRACE)
  w->left = f->id;
#endif
  atm_show(&w->current, NULL);
  atm_bump(&w->counts.handoffs, 1);
  if (COIR_LIKELY(has_heir(w))) return 0;
  /* Nobody has seen it without us. */
  atm_store_rlx(&w->counts.handoffs, atm_load_rlx(&w->counts.handoffs) - 1);
#if defined(COIR_TRACE)
  w->left = 0;
#endif
  atm_show(&w->current, f);
  w->thread = t;
  t->worker = w;
  t->away = NULL;
  f->b.more &= (uint8_t)~COIR__MORE_AWAY;
  return -EAGAIN;
}

void coir_block_leave(void) {
  struct coir__thread *t = coir__thread_peek();
  if (!t || !t->away) return;
  struct coir_fiber *f = t->away;
  if (t->away_depth) t->away_depth--;
  else if (atm_load_acq(&f->rt->forked)) t->away = NULL; /* nobody is left to go on with */
  else {
    f->b.more &= (uint8_t)~COIR__MORE_AWAY;
    coir__switch_home(t, f);
  }
}

int coir_block(void (*fn)(void *arg), void *arg) {
  int rc = coir_block_enter();
  fn(arg);
  coir_block_leave();
  return rc;
}
