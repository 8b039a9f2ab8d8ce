/* A wait for a counter that gave up, or only looked, left the mark that says that somebody waits. So who counted down
 * went to wake somebody, which takes a moment, and nobody knew of that: meanwhile the counter was used again, and
 * waited for. Where the former waker came to the queue then, it woke that waiter, for whom nothing was done yet; where
 * it had been there before, it took away the mark under which the waiter lay there, and nobody woke that one any more.
 *
 * Here who counts down first is stopped at both places. When nobody waits it comes to neither. */
#include "jobs.h"
#include "pages.h"

#include "job.h"

static struct coir__counter *inside;
static struct coir_counter *counter;
static tally is_first_down, is_second_down, has_waited;

/* Its word is in the first page, its queue in the second. */
static void make_counter(void) {
  inside = make_pages(offsetof(struct coir__counter, failures));
  counter = (struct coir_counter *)(void *)inside;
  coir_counter_init(counter, 1);
}

static void *counts_down(void *arg) {
  CHECK(coir_counter_done(counter));
  atomic_store(&is_first_down, 1);
  return arg;
}

static void *waits(void *arg) {
  CHECK_EQ(coir_counter_wait(counter, COIR_NEVER), 0);
  CHECK(is_second_down);
  atomic_store(&has_waited, 1);
  return arg;
}

static bool is_waited_for(void) {
  coir__bias_lock(NULL, &inside->q.lock);
  bool is_linked = !coir__waitlist_is_empty(&inside->q.list);
  coir__bias_unlock(NULL, &inside->q.lock);
  return is_linked;
}

/* From where it would take the lock to where it would clear the mark. */
static void go_on_to_the_mark(void) {
  close_page(pages.first);
  open_page(pages.second);
  atomic_store(&pages.let_go, 1);
  WAIT_FOR(atomic_load(&pages.stops) == 2);
  open_page(pages.first);
}

/* `wait`: for so long is waited in vain. */
static void is_used_again(int64_t wait, bool stops_at_mark) {
  pthread_t first, waiter;
  make_counter();
  CHECK_EQ(coir_counter_wait(counter, wait ? coir_after(wait) : 0), -ETIMEDOUT);
  close_page(pages.second);
  CHECK_EQ(pthread_create(&first, NULL, counts_down, NULL), 0);
  WAIT_FOR(is_first_down || atomic_load(&pages.stops));
  coir_counter_add(counter, 1);
  if (stops_at_mark && !is_first_down) go_on_to_the_mark();
  else open_page(pages.second);
  CHECK_EQ(pthread_create(&waiter, NULL, waits, NULL), 0);
  WAIT_FOR(is_waited_for());
  atomic_store(&pages.let_go, 2);
  CHECK_EQ(pthread_join(first, NULL), 0);
  CHECK_EQ(coir_sleep(COIR_MS(20)), 0); /* would it go on? */
  atomic_store(&is_second_down, 1);
  CHECK(coir_counter_done(counter));
  WAIT_FOR(has_waited);
  CHECK_EQ(pthread_join(waiter, NULL), 0);
}

static void a_look_wakes_nobody_later(void) { is_used_again(0, false); }
static void a_look_loses_nobody_later(void) { is_used_again(0, true); }
static void a_wait_wakes_nobody_later(void) { is_used_again(COIR_US(100), false); }
static void a_wait_loses_nobody_later(void) { is_used_again(COIR_US(100), true); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(a_look_wakes_nobody_later), CASE(a_look_loses_nobody_later),
                                     CASE(a_wait_wakes_nobody_later), CASE(a_wait_loses_nobody_later)};
  return IS_TSAN ? 77 : RUN_CASES(argc, argv, cases);
}
