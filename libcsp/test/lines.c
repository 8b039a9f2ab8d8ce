/* lines.c: a program for lines.sh, which compiles it in many ways: goroutines, select, contexts, timers, a mutex, over
 * several workers, with frames that hold buffers over waits (where stack protectors put a word to check). */
#include <csp.h>

enum { SENDERS = 8, RECEIVERS = 4, VALUES = 200, DEPTH = 12 };

static csp_gochan_t *values, *ended;
static csp_context_t *ctx;
static csp_sync_mutex_t mutex;
static csp_sync_waitgroup_t group;
static intptr_t sum;

static void must(bool holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "lines: not true: %s\n", what);
  abort();
}
#define MUST(x) must(x, #x)

static void start(void (*fn)(void *), intptr_t number) {
  csp_sync_waitgroup_add(&group, 1);
  MUST(csp_proc_create(0, fn, (void *)number) != NULL);
}

/* A row of frames, each with a buffer, suspended in each of them on the way down and up. */
static int descend(int depth, int number) {
  char text[64];
  snprintf(text, sizeof text, "%d of %d", depth, number);
  csp_yield();
  int below = depth > 0 ? descend(depth - 1, number) : 0;
  csp_yield();
  int a = -1, b = -1;
  MUST(sscanf(text, "%d of %d", &a, &b) == 2 && a == depth && b == number);
  return below + 1;
}

static void send_values(void *arg) {
  int number = (int)(intptr_t)arg;
  MUST(descend(DEPTH, number) == DEPTH + 1);
  for (intptr_t i = 1; i <= VALUES; i++) {
    char text[32];
    snprintf(text, sizeof text, "%d", (int)i);
    csp_select_case_t cases[] = {
        {.ch = csp_context_done(ctx), .op = CSP_RECV},
        {.ch = values, .op = CSP_SEND, .val = (void **)i},
    };
    MUST(csp_select(cases, 2) == 1 && atoi(text) == i);
  }
  csp_sync_waitgroup_done(&group);
}

static void receive_values(void *unused) {
  (void)unused;
  for (;;) {
    void *value = NULL, *done = NULL;
    int chosen;
    SELECT_START
    RECV_CASE(values, &value)
    RECV_CASE(csp_context_done(ctx), &done)
    SELECT_END(chosen)
    if (chosen == 1) break;
    csp_sync_mutex_lock(&mutex);
    intptr_t before = sum;
    if (before % 7 == 0) csp_yield();
    sum = before + (intptr_t)value;
    csp_sync_mutex_unlock(&mutex);
  }
  csp_gochan_send(ended, NULL);
}

static void tell_time(void *arg) {
  csp_timer_time_t before = csp_timer_now();
  csp_hangup((uint64_t)csp_timer_millisecond);
  csp_gochan_t *limit = csp_time_after(csp_timer_millisecond);
  intptr_t when = (intptr_t)csp_gochan_recv(limit, NULL);
  MUST(when >= before + 2 * csp_timer_millisecond);
  csp_gochan_free(limit);
  csp_ticker_t *ticker = csp_ticker_new(csp_timer_millisecond);
  for (int i = 0; i < 3; i++) MUST(csp_gochan_recv(ticker->ch, NULL) != NULL);
  csp_ticker_free(ticker);
  csp_block(usleep(100 * (useconds_t)((intptr_t)arg + 1)));
  csp_sync_waitgroup_done(&group);
}

static void times_out(void *unused) {
  (void)unused;
  csp_context_t *soon = csp_context_with_timeout(ctx, csp_timer_millisecond);
  bool ok = true;
  MUST(csp_gochan_recv(csp_context_done(soon), &ok) == NULL && !ok && csp_context_err(soon) == ETIMEDOUT);
  csp_context_free(soon);
  csp_sync_waitgroup_done(&group);
}

int main(void) {
  setenv("LIBCSP_PRODUCTION", "1", 1);
  setenv("COIR_MIGRATE", "1", 0); /* every wait changes the thread, where there are several */
  csp_scheduler_init(4);
  values = csp_gochan_new(0);
  ended = csp_gochan_new(RECEIVERS);
  ctx = csp_context_with_cancel(csp_context_background());
  csp_sync_waitgroup_init(&group);
  csp_sync_mutex_init(&mutex);
  for (int i = 0; i < RECEIVERS; i++) MUST(csp_proc_create(1, receive_values, NULL) != NULL);
  for (int i = 0; i < SENDERS; i++) start(send_values, i);
  for (int i = 0; i < 3; i++) start(tell_time, i);
  start(times_out, 0);
  csp_sync_waitgroup_wait(&group);
  csp_context_cancel(ctx);
  for (int i = 0; i < RECEIVERS; i++) csp_gochan_recv(ended, NULL);
  MUST(sum == SENDERS * VALUES * (VALUES + 1) / 2);
  printf("lines: passed\n");
  return 0;
}
