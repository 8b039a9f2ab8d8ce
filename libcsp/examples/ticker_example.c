/* ticker_example.c: time that comes by channels. Three ticks, then silence until a time limit; the select is the macro
 * form, the names are the short ones. */
#include <csp.h>

int main(void) {
  csp_timer_time_t begin = csp_timer_now(), last = begin;
  csp_ticker_t *ticker = ticker_new(2 * csp_timer_millisecond);
  bool in_order = true;
  for (int i = 1; i <= 3; i++) {
    csp_timer_time_t tick = (csp_timer_time_t)(intptr_t)chan_recv(ticker->ch, NULL);
    in_order = in_order && tick > last && tick - begin >= 2 * i * csp_timer_millisecond;
    last = tick;
    printf("tick %d\n", i);
  }
  ticker_stop(ticker);
  csp_gochan_try_recv(ticker->ch, NULL, NULL); /* the one that was sent meanwhile, perhaps */

  chan_t *limit = time_after(20 * csp_timer_millisecond);
  void *tick, *when;
  int chosen;
  SELECT_START
  RECV_CASE(ticker->ch, &tick)
  RECV_CASE(limit, &when)
  SELECT_END(chosen)
  printf("%s, in order: %s\n", chosen == 1 ? "no more ticks" : "a tick after the end", in_order ? "yes" : "no");

  csp_ticker_free(ticker);
  csp_gochan_free(limit);
  return 0;
}
