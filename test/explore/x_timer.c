/* Timers (src/timer.c): each fires once or is cancelled, and after it was cancelled nothing of it happens. */
#include "stand.h"

static struct coir__timers *wheel;
static struct coir__timer timer;
static struct coir__alarm alarm;
static int fired, runs, cancelled = -1, fires[2];
static bool is_gone;

static struct coir__waiter *fire(struct coir__timer *t) {
  EX_CHECK(t == &timer && !is_gone);
  fired++;
  return NULL;
}

static int64_t run(struct coir__alarm *al, struct coir__worker *w, int64_t now) {
  (void)w, (void)now;
  EX_CHECK(al == &alarm && !is_gone);
  runs++;
  return COIR_NEVER;
}

static void setup(void) {
  stand_setup(2);
  stand_carry(0, 0, NULL);
  stand_carry(1, 1, NULL);
  wheel = &stand_workers[0].timers;
  timer.fire = fire;
  timer.deadline = ex_now() + 1000;
  alarm.run = run;
}
static void armed(void) {
  setup();
  coir__timer_arm(wheel, &timer);
}
static void alarm_armed(void) {
  setup();
  coir__alarm_arm_in(wheel, &alarm, ex_now() + 1000);
}

static int fire_all(void) {
  struct coir__waiter *wake[2];
  int count;
  coir__timers_fire(wheel, ex_now() + COIR_MS(1), wake, 2, &count);
  return count;
}

static void cancel_or_fire(int me) {
  if (me == 0) {
    fires[0] = fire_all();
    return;
  }
  cancelled = coir__timer_cancel(&timer);
  is_gone = true; /* its memory is the caller's again */
  EX_CHECK(fired == !cancelled);
}
static void check_cancelled(void) { EX_CHECK(fired == !cancelled && fires[0] == fired && wheel->count == 0); }

/* Armed by another thread while its owner fires: now, or at the next look. */
static void arm_and_fire(int me) {
  if (me) coir__timer_arm(wheel, &timer);
  else fires[0] = fire_all();
}
static void check_armed(void) {
  EX_CHECK(fired == fires[0]);
  if (!fired) EX_CHECK(atm_load_rlx(&wheel->next) <= timer.deadline && fire_all() == 1 && fired == 1);
}

/* An alarm's function runs without a lock: who has cancelled it knows that it does not. */
static void cancel_or_run(int me) {
  if (me == 0) {
    (void)fire_all();
    if (wheel->alarms) coir__alarms_run(wheel, &stand_workers[0], ex_now());
    return;
  }
  cancelled = coir__alarm_cancel(&alarm);
  is_gone = true;
  EX_CHECK(runs == !cancelled);
}
static void check_run(void) { EX_CHECK(runs == !cancelled); }

/* One that comes again arms itself: at any time it is armed, runs, or is about to; and then is over. */
static int64_t run_again(struct coir__alarm *al, struct coir__worker *w, int64_t now) {
  (void)w;
  EX_CHECK(al == &alarm && !is_gone);
  return runs++ == 0 ? now + 1000 : COIR_NEVER;
}
static void alarm_armed_to_come_again(void) {
  setup();
  alarm.run = run_again;
  coir__alarm_arm_in(wheel, &alarm, ex_now() + 1000);
}
static void let_it_come(void) {
  if (fire_all() == 1) coir__alarms_run(wheel, &stand_workers[0], ex_now());
}
static void cancel_or_come_again(int me) {
  if (me == 0) {
    let_it_come();
    let_it_come();
    return;
  }
  cancelled = coir__alarm_cancel(&alarm);
  is_gone = true;
  EX_CHECK(cancelled ? runs < 2 : runs == 2);
}
static void check_again(void) {
  int before = runs;
  EX_CHECK(!alarm.timer.link && wheel->count == 0 && !wheel->alarms);
  is_gone = false;
  let_it_come();
  EX_CHECK(runs == before && (cancelled ? runs < 2 : runs == 2));
}

int main(int argc, char **argv) {
  static const struct ex_case cases[] = {
      {"cancel_or_fire", 2, armed, cancel_or_fire, check_cancelled, 4, 3},
      {"arm_and_fire", 2, setup, arm_and_fire, check_armed, 4, 3},
      {"cancel_or_run", 2, alarm_armed, cancel_or_run, check_run, 3, 3},
      {"cancel_or_come_again", 2, alarm_armed_to_come_again, cancel_or_come_again, check_again, 3, 2},
  };
  return ex_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
