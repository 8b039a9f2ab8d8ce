/* A fork while the keeper, or a worker, was in the function of an alarm left in the child that the alarm was running.
 * But there nobody ran it. Who cancelled it, because it closed an inherited scope or stopped a timer, waited for
 * ever.
 *
 * A fork while another thread was inside a worker's wheel left its lock taken in the child. Who stopped, destroyed or
 * started a timer or a ticker of that runtime there waited for ever. Where it was the keeper's wheel, the child had a
 * fresh one, out of which inherited alarms were taken when they were cancelled: it held fewer than none. */
#include "processes.h"

#include "internal.h"

static struct coir__alarm alarm_of_keeper, others[2];
static _Atomic(int) is_in, may_go;
static struct coir_timer *timer;
static struct coir_ticker *ticker;

static void in_child(int (*fn)(void)) {
  pid_t pid = fork();
  int status = -1;
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(10);
    _exit(fn());
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
}

/* ---- It was running -------------------------------------------------------------------------------------------- */

static int64_t takes_long(struct coir__alarm *a, struct coir__worker *w, int64_t now) {
  (void)a, (void)w, (void)now;
  atomic_store(&is_in, 1);
  SPIN_UNTIL(atomic_load(&may_go));
  return COIR_NEVER;
}

static int cancel_it(void) { return coir__alarm_cancel(&alarm_of_keeper); }

static void nobody_rings_in_the_child(void) {
  CHECK_EQ(coir__keeper_start(), 0);
  alarm_of_keeper.run = takes_long;
  coir__keeper_arm(&alarm_of_keeper, coir_now());
  SPIN_UNTIL(atomic_load(&is_in));
  in_child(cancel_it);
  atomic_store(&may_go, 1);
  CHECK(!coir__alarm_cancel(&alarm_of_keeper)); /* here it has come */
}

/* ---- It was armed, and somebody was inside the wheel ------------------------------------------------------------ */

static int nothing(void *unused) {
  (void)unused;
  return 0;
}

static int make_ticker(void *unused) {
  (void)unused;
  return coir_ticker_create(&ticker, COIR_SEC(1000));
}

static int use_what_was_inherited(void) {
  if (coir_timer_stop(timer) != 0) return 1; /* there is none to prevent here */
  if (coir_timer_start(timer, coir_after(COIR_SEC(1000)), 0) != 0) return 2;
  if (coir_timer_start(timer, coir_after(COIR_SEC(1000)), COIR_SEC(1)) != 0) return 3;
  coir_timer_destroy(timer);
  if (coir_ticker_reset(ticker, COIR_SEC(1000)) != 0) return 4;
  coir_ticker_stop(ticker);
  coir_ticker_destroy(ticker);
  return 0;
}

static void the_childs_timers_have_no_wheel(void) {
  int status = -1;
  struct coir_runtime *rt = make_runtime((struct coir_config){.workers = 1});
  CHECK_EQ(coir_runtime_timer_create(rt, &timer, nothing, NULL), 0);
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_SEC(1000)), 0), 0);
  CHECK_EQ(coir_runtime_run(rt, make_ticker, NULL, &status), 0);
  CHECK_EQ(status, 0);
  struct coir__bias *lock = &rt->workers[0]->timers.lock;
  coir__bias_lock(NULL, lock); /* as another thread might */
  in_child(use_what_was_inherited);
  coir__bias_unlock(NULL, lock);
  CHECK_EQ(coir_timer_stop(timer), 1); /* here it was armed */
  coir_timer_destroy(timer);
  coir_ticker_destroy(ticker);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static int cancel_others(void) {
  for (int i = 0; i < 2; i++)
    if (coir__alarm_cancel(&others[i])) return 1 + i;
  return coir__keeper_is_idle() ? 0 : 3;
}

static void the_childs_keeper_has_none(void) {
  CHECK_EQ(coir__keeper_start(), 0);
  for (int i = 0; i < 2; i++) coir__keeper_arm(&others[i], coir_after(COIR_SEC(1000)));
  struct coir__bias *lock = &atm_load_rlx(&others[0].timer.home)->lock;
  coir__bias_lock(NULL, lock);
  in_child(cancel_others);
  coir__bias_unlock(NULL, lock);
  for (int i = 0; i < 2; i++) CHECK(coir__alarm_cancel(&others[i]));
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(nobody_rings_in_the_child), CASE(the_childs_timers_have_no_wheel),
                                     CASE(the_childs_keeper_has_none)};
  return RUN_CASES(argc, argv, cases);
}
