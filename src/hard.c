/* Hard mode: what builds with COIR_HARD do beside having tiny limits, so that tests see what is rare.
 *
 *   migration   A fiber that is woken, or has yielded in turn, goes to the lane, which its former worker passes over
 *               for a while, so that another one takes it (worker.c). Not: one that is bound, or belongs somewhere by
 *               its priority, by affinity or by a partition; and where thieves are held off.
 *   exits       At the end of a call, with a chance: the worker is taken away from the fiber, as the monitor does it
 *               whenever it likes. At the end of one that may wait, with a greater chance, a yield. Neither where
 *               there is no monitor (coir_config.monitor).
 *   poison      The page that a stack begins with, and the words of a descriptor that nobody else may look at, are
 *               overwritten when they are given back, and looked at when they are taken again: whoever has written
 *               there meanwhile did it after the end.
 *
 * Chances are drawn for each thread, from a seed (COIR_HARD_SEED); what another thread does is not in them, so that a
 * seed repeats the draws and not the schedule. A program that fails tells its seed. With 0 no chances are taken, and
 * the rest stays as it is.
 *
 * The explorer compiles the core with tiny limits alone: there each step is its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#if defined(COIR__ROUGH)

#define TAKES_ONE_IN 256
#define SWITCHES_ONE_IN 16
#define PASSES 256                          /* rounds */
#define POISON UINT64_C(0xd5d5d5d5d5d5d5d5) /* no address of a program's */
#define STACK_WORDS (4096 / sizeof(uint64_t))
#define SKIPPED 77 /* by tests that cannot run */

/* ---- Chances --------------------------------------------------------------------------------------------------- */

static pthread_once_t seed_once = PTHREAD_ONCE_INIT;
static uint32_t seed;                    /* (c) 0: nothing is left to chance */
static _Atomic(uint32_t) threads_seeded; /* (a) */

void coir__hard_tell_seed(void) {
  char text[64];
  int n = snprintf(text, sizeof text, "coir: COIR_HARD_SEED=%u\n", seed);
  coir__os_complain(text, (size_t)n);
}

static void tell_at_exit(int status, void *unused) {
  (void)unused;
  if (status != 0 && status != SKIPPED) coir__hard_tell_seed();
}

static void seed_init(void) {
  const char *text = getenv("COIR_HARD_SEED");
  seed = text ? (uint32_t)strtoul(text, NULL, 10) : (uint32_t)(coir__os_real_now() >> 10) | 1;
#if defined(__GLIBC__)
  on_exit(tell_at_exit, NULL);
#else
  (void)tell_at_exit;
#endif
}

bool coir__hard_chance(struct coir__thread *t, uint32_t one_in) {
  if (COIR_UNLIKELY(t->hard == 0)) {
    pthread_once(&seed_once, seed_init);
    if (seed == 0) return false;
    t->hard = (seed + (atm_add_rlx(&threads_seeded, 1) + 1) * 0x9e3779b9) | 1;
  }
  t->hard ^= t->hard << 13, t->hard ^= t->hard >> 17, t->hard ^= t->hard << 5; /* xorshift32 (Marsaglia, 2003) */
  return (t->hard >> 8) % one_in == 0;
}

/* ---- Exits ----------------------------------------------------------------------------------------------------- */

/* Without a monitor nothing of the kind is to be expected by the program. */
static bool is_due(struct coir__thread *t, uint32_t one_in) {
  const struct coir__worker *w = atm_load_rlx(&t->worker);
  return w && w->rt->config.monitor == COIR_ON && coir__hard_chance(t, one_in);
}

void coir__hard_left(struct coir__thread *t) {
  if (is_due(t, TAKES_ONE_IN)) coir__carry_lose(t);
}

void coir__hard_leave_waiting(const bool *may_switch) {
  struct coir__thread *t = coir__thread_peek();
  if (*may_switch && t && !atm_load_rlx(&t->in) && is_due(t, SWITCHES_ONE_IN)) (void)coir_yield();
}

/* Where thieves are not held off. */
bool coir__hard_migrates(const struct coir__worker *w) {
  const struct coir_runtime *rt = w->rt;
  if (rt->worker_count == 1 || (rt->is_partitioned && rt->poller_count)) return false;
  if (!atm_load_rlx(&rt->tuned.steal) || atm_load_rlx(&rt->tuned.affinity)) return false;
  return atm_load_rlx(&rt->tuned.steal_min_live) == 0 && atm_load_rlx(&rt->tuned.steal_min_victim) < 2;
}

void coir__hard_migrate(struct coir__worker *w, struct coir_fiber *f) {
  coir__lane_put(w->rt, f);
  coir__idle_notify(w, true);
}

/* Not for ever: the others may be busy for long. */
struct coir_fiber *coir__hard_pass_over(struct coir__worker *w, struct coir_fiber *f) {
  bool is_ours = f && f->b.worker == (int16_t)w->index && !(f->b.flags & COIR__FIBER_SPECIAL);
  if (!is_ours || !coir__hard_migrates(w) || w->rounds % PASSES == 0) return f;
  coir__hard_migrate(w, f);
  coir__os_thread_yield();
  return NULL;
}

/* ---- Poison ---------------------------------------------------------------------------------------------------- */

static uint64_t *stack_words(const struct coir__stack *s) { return (uint64_t *)(s->low + s->bytes) - STACK_WORDS; }

void coir__hard_poison_stack(struct coir__stack *s) {
  for (uint64_t *word = stack_words(s), *end = word + STACK_WORDS; word < end; word++) *word = POISON;
}

/* All poison, or all zero: the system has had it back, or it is new. */
void coir__hard_check_stack(struct coir__stack *s) {
  const uint64_t *word = stack_words(s);
  uint64_t was = word[0];
  bool is_whole = was == POISON || was == 0;
  for (size_t i = 1; i < STACK_WORDS; i++) is_whole &= word[i] == was;
  COIR_CHECK(is_whole, "nobody writes to the stack of a fiber that has ended");
}

/* Words which only its owner looks at. Those of the kin and the value count only with their flags. */
static const size_t own_words[] = {offsetof(struct coir_fiber, sp),   offsetof(struct coir_fiber, arg),
                                   offsetof(struct coir_fiber, next), offsetof(struct coir_fiber, wait),
                                   offsetof(struct coir_fiber, kin),  offsetof(struct coir_fiber, scope),
                                   offsetof(struct coir_fiber, value)};
#define OWN_WORDS (sizeof own_words / sizeof own_words[0])

static uint64_t *word_of(struct coir_fiber *f, size_t i) { return (uint64_t *)((char *)f + own_words[i]); }

void coir__hard_poison_fiber(struct coir_fiber *f) {
  uint64_t poison = POISON;
  for (size_t i = 0; i < OWN_WORDS; i++) memcpy(word_of(f, i), &poison, sizeof poison);
}

void coir__hard_check_fiber(struct coir_fiber *f) {
  bool is_new = f->sp == NULL, is_whole = true;
  uint64_t expected = is_new ? 0 : POISON;
  for (size_t i = 0; i < OWN_WORDS; i++) is_whole &= memcmp(word_of(f, i), &expected, sizeof expected) == 0;
  COIR_CHECK(is_whole, "nobody writes to the descriptor of a fiber that has ended");
  f->wait = NULL;
}

#endif
