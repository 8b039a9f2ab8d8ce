/* Who cancelled a periodic timer or a ticker looked twice: under the wheel's lock whether it was armed, and then,
 * without the lock, whether its function ran. In between it could be armed again, and cease to run: so it was taken for
 * over while it was armed. A timer that had been stopped went on; one that was destroyed was freed in the midst of the
 * wheel.
 *
 * Here the function goes on, arms, and is through, just when the other one comes to look whether it runs. */
#include "pages.h"

#include "internal.h"

static struct coir__timers wheel;
static struct coir__alarm *it;
static _Atomic(int) may_cancel, runs;

/* With the lock held there is nothing to wait for: nobody arms it meanwhile. */
static bool holds_the_lock(void) { return coir__bias_is_held(&wheel.lock); }

static int64_t comes_again(struct coir__alarm *alarm, struct coir__worker *w, int64_t now) {
  (void)alarm, (void)w;
  if (atomic_fetch_add(&runs, 1) > 0) return COIR_NEVER;
  close_page(pages.second);
  atomic_store(&may_cancel, 1);
  SPIN_UNTIL(atomic_load(&pages.stops) > 0);
  open_page(pages.second);
  return now + COIR_MS(1);
}

static void *cancels(void *was_armed) {
  SPIN_UNTIL(atomic_load(&may_cancel));
  *(bool *)was_armed = coir__alarm_cancel(it);
  return NULL;
}

/* What the worker of the wheel does now and then. Returns how many have come. */
static int look(int64_t now) {
  int come;
  CHECK_EQ(coir__timers_fire(&wheel, now, NULL, 8, &come), 0);
  if (come) coir__alarms_run(&wheel, NULL, now);
  return come;
}

static void it_is_over_when_it_is_cancelled(void) {
  pthread_t thread;
  bool was_armed = false;
  it = make_pages(offsetof(struct coir__alarm, running));
  pages.passes = holds_the_lock;
  it->run = comes_again;
  coir__timers_init(&wheel, 0);
  coir__alarm_arm_in(&wheel, it, COIR_MS(1));
  CHECK_EQ(pthread_create(&thread, NULL, cancels, &was_armed), 0);
  CHECK_EQ(look(COIR_MS(1)), 1);
  atomic_store(&pages.let_go, 1);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(runs, 1);
  CHECK(!it->timer.link);
  CHECK_EQ(wheel.count, 0);
  CHECK(was_armed); /* the second time was prevented */
  CHECK_EQ(look(COIR_SEC(1)), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(it_is_over_when_it_is_cancelled)};
  return IS_TSAN ? 77 : RUN_CASES(argc, argv, cases);
}
