/* timers.c: Sleep, After, NewTicker, AfterFunc with Stop and Reset. */
#include <stdio.h>

#include "coir.h"

static const char *word(int rc) { return rc == 1 ? "true" : "false"; }

static int fire(void *arg) {
  coir_event_set(arg);
  return 0;
}

static int first(void *arg) {
  int64_t start = coir_now(), at;
  (void)arg;
  coir_sleep(COIR_MS(5));
  printf("slept 5 ms: %s\n", word(coir_now() - start >= COIR_MS(5)));

  COIR_CHAN(int64_t) after = coir_timer_chan(coir_after(COIR_MS(5)));
  COIR_RECV(after, &at, COIR_NEVER);
  printf("after 5 ms: %s\n", word(at - start >= COIR_MS(10)));
  coir_chan_unref(COIR_CHAN_RAW(after));

  struct coir_ticker *ticker;
  if (coir_ticker_create(&ticker, COIR_MS(2)) != 0) return 1;
  for (int i = 1; i <= 3; i++) {
    COIR_RECV(coir_ticker_chan(ticker), &at, COIR_NEVER);
    printf("tick %d\n", i);
  }
  coir_ticker_destroy(ticker);

  struct coir_event fired = {0};
  struct coir_timer *timer;
  if (coir_timer_create(&timer, fire, &fired) != 0) return 1;
  coir_timer_start(timer, coir_after(COIR_SEC(3600)), 0);
  printf("stop: %s\n", word(coir_timer_stop(timer)));
  printf("stop again: %s\n", word(coir_timer_stop(timer)));
  printf("reset: %s\n", word(coir_timer_start(timer, coir_after(COIR_SEC(3600)), 0)));
  printf("reset again: %s\n", word(coir_timer_start(timer, coir_after(COIR_MS(1)), 0)));
  coir_event_wait(&fired, COIR_NEVER);
  printf("stop when it has fired: %s\n", word(coir_timer_stop(timer)));
  coir_timer_destroy(timer);
  return 0;
}

int main(void) { return coir_run(first, NULL); }
