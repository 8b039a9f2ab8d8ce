/* Counters: how many jobs are still to end, and who waits for that.
 *
 * Goal: to count down by one locked instruction, and to leave alone a counter that lies in the frame of a waiter as
 * soon as it can see that it is complete.
 *
 * One word holds it all: whether somebody waits, the value, and how many references there are. Who takes the last of
 * the value away and finds nobody waiting is done, and does not look at the counter again. Else it takes all waiters
 * off the queue under its lock, gives that back, and clears the bit as its last touch: until then the counter does
 * not look complete to anybody. The waiters are woken after that.
 *
 * So the bit may only be there as long as somebody is in a call to wait. A waiter that gives up takes it away, if it is
 * the last and the value is not zero; if that is zero, somebody is about to complete the counter, and the waiter does
 * not leave before that. Otherwise who comes back, and uses the counter for something else, would be met by a waker
 * that belongs to the former use: its wait would end too early, or be forgotten when the bit is cleared.
 *
 * A counter that was made goes when word is 0: neither value, nor waiters, nor references. So a value keeps it alive.
 */

#include "job.h"

#define COUNT_BITS 40
#define COUNT_MAX ((UINT64_C(1) << COUNT_BITS) - 1)
#define REF_ONE (COIR__COUNTER_ONE << COUNT_BITS)
#define YIELDS 16 /* of a plain thread, before it sleeps: jobs are short, and to wake a thread takes long */
#define PENDING (REF_ONE - 1) /* value and waiters */

_Static_assert(sizeof(struct coir__counter) <= sizeof(struct coir_counter), "a counter fits");
_Static_assert(_Alignof(struct coir__counter) <= _Alignof(struct coir_counter), "a counter is aligned");

static inline uint64_t count_of(uint64_t word) { return (word & PENDING) / COIR__COUNTER_ONE; }

/* The reference of who has the memory is never given up. */
void coir_counter_init(struct coir_counter *counter, uint64_t n) {
  *counter = (struct coir_counter){{0}};
  atm_store_rlx(&((struct coir__counter *)counter)->word, REF_ONE);
  coir_counter_add(counter, n);
}

struct coir_counter *coir_counter_create(uint64_t n) {
  struct coir_counter *counter = coir__alloc(NULL, sizeof *counter);
  if (counter) coir_counter_init(counter, n);
  return counter;
}

struct coir_counter *coir_counter_ref(struct coir_counter *counter) {
  uint64_t was = counter ? atm_add_rlx(&((struct coir__counter *)counter)->word, REF_ONE) : 0;
  if (COIR_UNLIKELY(was + REF_ONE < was)) coir__fatal("coir_counter_ref: more references than can be counted");
  return counter;
}

void coir_counter_unref(struct coir_counter *counter) {
  if (!counter) return;
  /* Acquire and release: who frees it has seen what all others did with it. */
  uint64_t was = atm_sub_ar(&((struct coir__counter *)counter)->word, REF_ONE);
  if (was < REF_ONE) coir__fatal("coir_counter_unref: there is no reference left to give up");
  if (was == REF_ONE) coir__free(NULL, counter, 0);
}

void coir_counter_add(struct coir_counter *counter, uint64_t n) {
  uint64_t was = n > COUNT_MAX ? PENDING
                               : atm_add_rlx(&((struct coir__counter *)counter)->word, n * COIR__COUNTER_ONE) & PENDING;
  if (COIR_UNLIKELY(n > COUNT_MAX - count_of(was))) coir__fatal("coir_counter_add: more than can be counted");
}

/* In the waiter's frame. */
struct counter_waiter {
  struct coir__clause clause; /* first: what the queue links */
  uint64_t failures;          /* by who wakes it: the counter may be gone by then */
};

/* The value is zero, and somebody waits, or did. */
static void __attribute__((noinline)) counter_wake(struct coir__worker *w, struct coir__counter *c) {
  coir__bias_lock(w, &c->q.lock);
  struct coir__clause *all = coir__waitlist_is_empty(&c->q.list) ? NULL : coir__waitlist_take_all(&c->q.list);
  for (struct coir__clause *at = all; at; at = at->next)
    ((struct counter_waiter *)at)->failures = atm_load_rlx(&c->failures);
  coir__bias_unlock(w, &c->q.lock);
  /* Acquire and release: complete means that we are done with it. Pairs with the acquires below. */
  uint64_t was = atm_and_ar(&c->word, ~COIR__COUNTER_WAITED);
  if (was == COIR__COUNTER_WAITED) coir__free(NULL, c, 0);
  coir__wake_all(w, all);
}

bool coir__counter_sub(struct coir__worker *w, struct coir_counter *counter, uint64_t n, uint64_t failures) {
  struct coir__counter *c = (struct coir__counter *)counter;
  if (COIR_UNLIKELY(failures)) atm_add_rlx(&c->failures, failures);
  /* Release: what the jobs did; acquire: what the others did, for who frees it. Pairs with the acquires of waiters. */
  uint64_t was = atm_sub_ar(&c->word, n * COIR__COUNTER_ONE);
  uint64_t left = was - n * COIR__COUNTER_ONE;
  if (COIR_UNLIKELY(count_of(was) < n)) coir__fatal("coir_counter_done: the counter is zero already");
  if (count_of(left)) return false;
  if (left & COIR__COUNTER_WAITED) counter_wake(w, c);
  else if (left == 0) coir__free(NULL, c, 0);
  return true;
}

bool coir_counter_done(struct coir_counter *counter) {
  COIR_INSIDE_ON(w);
  return coir__counter_sub(w, counter, 1, 0);
}

static uint64_t counter_word(const struct coir_counter *counter) {
  /* Acquire: what the jobs did before it was zero. Pairs with the release in coir__counter_sub. */
  return atm_load_acq(&((const struct coir__counter *)counter)->word);
}

/* One that is zero, and not complete yet, does not look so: zero is exact. */
uint64_t coir_counter_value(const struct coir_counter *counter) {
  uint64_t word = counter_word(counter) & PENDING;
  return word == COIR__COUNTER_WAITED ? 1 : count_of(word);
}
bool coir_counter_is_complete(const struct coir_counter *counter) { return (counter_word(counter) & PENDING) == 0; }
uint64_t coir_counter_failures(const struct coir_counter *counter) {
  return atm_load_acq(&((const struct coir__counter *)counter)->failures);
}

void coir_counter_reset(struct coir_counter *counter, uint64_t n) {
  struct coir__counter *c = (struct coir__counter *)counter;
  atm_and_ar(&c->word, ~PENDING);
  atm_store_rlx(&c->failures, 0);
  coir_counter_add(counter, n);
}

/* Under the lock. True: it is marked as waited for, and not zero. Else it is zero, and perhaps being completed. */
static bool mark_waited(struct coir__counter *c) {
  uint64_t word = atm_load_acq(&c->word);
  while (count_of(word))
    if (atm_cas_ar(&c->word, &word, word | COIR__COUNTER_WAITED)) return true;
  return false;
}

/* See the head. Who was let go, and is dropped, is of no account. */
static void counter_leave(struct coir__waitq *q, struct coir__clause *unused, bool given) {
  struct coir__counter *c = (struct coir__counter *)((char *)q - offsetof(struct coir__counter, q));
  struct coir__worker *w = coir__carried();
  (void)unused;
  if (given) return;
  coir__bias_lock(w, &c->q.lock);
  bool is_last = coir__waitlist_is_empty(&c->q.list);
  uint64_t word = atm_load_acq(&c->word);
  while (is_last && count_of(word) && !atm_cas_ar(&c->word, &word, word & ~COIR__COUNTER_WAITED)) {}
  coir__bias_unlock(w, &c->q.lock);
  /* Acquire: it is not touched any more. Pairs with the release in counter_wake(). */
  while (is_last && (atm_load_acq(&c->word) & PENDING) == COIR__COUNTER_WAITED) coir__os_thread_yield();
}

static int as_result(uint64_t failures) { return failures > INT32_MAX ? INT32_MAX : (int)failures; }

void coir__counter_wait_bound(struct coir_counter *counter) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  struct coir__counter *c = (struct coir__counter *)counter;
  struct coir__wait wait;
  struct counter_waiter me;
  while (!coir_counter_is_complete(counter)) {
    coir__wait_begin_bound(&wait, COIR__REASON_COUNTER, (uint64_t)(uintptr_t)c);
    coir__bias_lock(w, &c->q.lock);
    bool is_linked = mark_waited(c);
    if (is_linked) coir__wait_add(&wait, &me.clause, &c->q);
    coir__bias_unlock(w, &c->q.lock);
    if (is_linked) coir__wait(&wait);
    else coir__wait_retract(&wait);
    w = coir__carried();
    if (!is_linked) coir__os_thread_yield(); /* as below */
  }
}

int coir_counter_wait(struct coir_counter *counter, int64_t deadline) {
  COIR_INSIDE_TO_WAIT_ON(w, deadline);
  struct coir__counter *c = (struct coir__counter *)counter;
  struct counter_waiter me = {.failures = 0};
  if (COIR_UNLIKELY(!counter)) return -EINVAL;
  for (int i = 0; !w && deadline > 0 && i < YIELDS && !coir_counter_is_complete(counter); i++) coir__os_thread_yield();
  while (!coir_counter_is_complete(counter)) {
    if (deadline <= 0) return -ETIMEDOUT;
    coir__bias_lock(w, &c->q.lock);
    if (mark_waited(c)) {
      int rc = coir__waitq_wait(w, &c->q, &me.clause, COIR__REASON_COUNTER, deadline, counter_leave);
      return rc ? rc : as_result(me.failures);
    }
    coir__bias_unlock(w, &c->q.lock);
    coir__os_thread_yield(); /* somebody is about to complete it */
  }
  return as_result(coir_counter_failures(counter));
}
