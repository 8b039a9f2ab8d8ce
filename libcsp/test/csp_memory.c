/* Contexts, channels that tell the time, tickers and calls when memory or threads are short: each says so, and nothing
 * is leaked. */
#include "csp_waiting.h"
#include "scarce.h"

/* The call is NULL, for want of threads. */
#define HAS_NO_THREADS(call) \
  do {                       \
    threads = 0;             \
    errno = 0;               \
    CHECK((call) == NULL);   \
    CHECK_EQ(errno, EAGAIN); \
    threads = INT_MAX;       \
  } while (0)

static void sets(void *flag) { atomic_store((_Atomic(bool) *)flag, true); }

static void objects(void) {
  csp_context_t *c, *d;
  csp_gochan_t *ch;
  csp_ticker_t *t;
  csp_timer_t *call;
  static _Atomic(bool) called;
  csp_hangup(1); /* what Coir keeps of a thread that waits is not made as it is short of memory */
  UNTIL_IT_HAS_ENOUGH(1, csp_context_background() != NULL);
  UNTIL_IT_HAS_ENOUGH(2, (c = csp_context_with_cancel(NULL)) != NULL);
  UNTIL_IT_HAS_ENOUGH(3, (d = csp_context_with_timeout(c, COIR_SEC(100))) != NULL); /* starts the workers */
  UNTIL_IT_HAS_ENOUGH(2, (ch = csp_time_after(COIR_SEC(100))) != NULL);
  UNTIL_IT_HAS_ENOUGH(3, (t = csp_ticker_new(COIR_SEC(100))) != NULL);
  UNTIL_IT_HAS_ENOUGH(1, (call = csp_timer_call_after(0, sets, &called)) != NULL);
  WAIT_FOR(atomic_load(&called));
  csp_context_cancel(c); /* those that could not be made are not in its tree */
  CHECK_EQ(csp_context_err(d), ECANCELED);
  csp_timer_free(call);
  csp_ticker_free(t);
  csp_gochan_free(ch);
  csp_context_free(d);
  csp_context_free(c);
}

static void threads_for_a_deadline(void) {
  csp_context_t *c = csp_context_with_cancel(NULL), *d;
  HAS_NO_THREADS(csp_context_with_timeout(c, COIR_SEC(100)));
  CHECK((d = csp_context_with_timeout(c, COIR_MS(1))) != NULL);
  csp_gochan_recv(csp_context_done(d), NULL);
  csp_context_free(c);
  csp_context_free(d);
}

static void threads_for_a_call(void) {
  static _Atomic(bool) called;
  HAS_NO_THREADS(csp_timer_call_after(0, sets, &called));
  csp_timer_t *call = csp_timer_call_after(0, sets, &called);
  CHECK(call);
  WAIT_FOR(atomic_load(&called));
  csp_timer_free(call);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(objects), CASE(threads_for_a_deadline), CASE(threads_for_a_call)};
  return RUN_CASES(argc, argv, cases);
}
