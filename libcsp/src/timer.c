/* Time in libcsp: channels that tell the time, tickers, and calls at a time. All are Coir's timers, which are no fibers
 * before they come. */
#include "timer.h"

#include <stdlib.h>

#include "csp_internal.h"

csp_timer_time_t csp_timer_now(void) { return coir_now(); }

csp_gochan_t *csp_time_after(csp_timer_duration_t ns) {
  _Static_assert(sizeof(void *) == sizeof(int64_t), "a time is sent where a pointer is received");
  struct coir_chan *c = COIR_CHAN_RAW(coir_timer_chan(coir_after(ns)));
  if (!c) csp__fail(-ENOMEM);
  return (csp_gochan_t *)c;
}

/* ---- Tickers --------------------------------------------------------------------------------------------------- */

csp_ticker_t *csp_ticker_new(csp_timer_duration_t ns) {
  struct coir_ticker *inner = NULL;
  csp_ticker_t *t = malloc(sizeof *t);
  int rc = t ? coir_ticker_create(&inner, ns) : -ENOMEM;
  if (rc) {
    free(t);
    csp__fail(rc);
    return NULL;
  }
  *t = (csp_ticker_t){(csp_gochan_t *)COIR_CHAN_RAW(coir_ticker_chan(inner)), inner};
  return t;
}

void csp_ticker_stop(csp_ticker_t *ticker) {
  if (ticker) coir_ticker_stop(ticker->reserved);
}

void csp_ticker_free(csp_ticker_t *ticker) {
  if (ticker) coir_ticker_destroy(ticker->reserved);
  free(ticker);
}

/* ---- Calls at a time ------------------------------------------------------------------------------------------- */

/* A csp_timer_t is a struct coir_timer. */
csp_timer_t *csp_timer_call_at(csp_timer_time_t when, void (*fn)(void *arg), void *arg) {
  struct coir_timer *t = NULL;
  struct coir_runtime *rt = csp__runtime();
  if (!rt) return NULL;
  /* Through a type without parameters: so compilers see that it is meant. What it returns is of no account. */
  int rc = coir_runtime_timer_create(rt, &t, (coir_fn)(void (*)(void))fn, arg);
  if (rc == 0) rc = coir_timer_start(t, when > 0 ? when : 0, 0);
  if (rc < 0) csp__fail(rc);
  return (csp_timer_t *)t;
}

csp_timer_t *csp_timer_call_after(csp_timer_duration_t ns, void (*fn)(void *arg), void *arg) {
  return csp_timer_call_at(coir_after(ns), fn, arg);
}

bool csp_timer_cancel(csp_timer_t *timer) { return timer && coir_timer_stop((struct coir_timer *)timer) == 1; }

void csp_timer_free(csp_timer_t *timer) { coir_timer_destroy((struct coir_timer *)timer); }
