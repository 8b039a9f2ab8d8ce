/* Tickers: alarms (clock.c) that send. */
#include "ticker.h"

#include "internal.h"

struct ticker {
  Ticker base; /* first */
  struct go__alarm alarm;
};

static void tick(struct go__alarm *alarm) {
  struct ticker *t = (struct ticker *)((char *)alarm - offsetof(struct ticker, alarm));
  go_channel_try_send(t->base.c, NULL); /* a full channel keeps what it has */
}

Ticker *create_ticker(size_t ms) {
  struct ticker *t = ms ? calloc(1, sizeof *t) : NULL;
  int rc = ms ? -ENOMEM : -EINVAL;
  if (t) t->base.c = go_channel_create(1);
  if (t && t->base.c) {
    int64_t period = go__ms(ms);
    t->alarm = (struct go__alarm){.fire = tick, .due = go__clock_after(period), .period = period};
    rc = go__alarm_set(&t->alarm);
    if (rc == 0) return &t->base;
    go_channel_unref(t->base.c);
  }
  free(t);
  errno = -rc;
  return NULL;
}

void stop_ticker(Ticker *ticker) {
  if (!ticker) return;
  go__alarm_unset(&((struct ticker *)ticker)->alarm);
  go_channel_close(ticker->c);
  go_channel_unref(ticker->c);
  free(ticker);
}
