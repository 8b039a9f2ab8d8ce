/* The n-th allocation fails, for n = 1, 2, ... while channels, scopes, generators, timers and tickers are used: those
 * of the runtime, by its hook, and those of the library itself (--wrap). Each failure is told by a clear code, what
 * was begun is undone, and nothing stays behind. */
#include "harness.h"

static _Atomic(long) blocks;
static _Atomic(int) countdown, failed, fired;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void __wrap_free(void *memory);

static bool fails_now(void) {
  if (atomic_fetch_sub(&countdown, 1) != 1) return false;
  atomic_fetch_add(&failed, 1);
  return true;
}

static void *counted(void *memory) {
  if (memory) atomic_fetch_add(&blocks, 1);
  return memory;
}

void *__wrap_malloc(size_t bytes) { return fails_now() ? NULL : counted(__real_malloc(bytes)); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails_now() ? NULL : counted(__real_calloc(count, bytes)); }

void __wrap_free(void *memory) {
  if (memory) atomic_fetch_sub(&blocks, 1);
  __real_free(memory);
}

static void *hook_alloc(size_t bytes, void *arg) {
  (void)arg;
  return malloc(bytes);
}

static void hook_free(void *memory, size_t bytes, void *arg) {
  (void)arg, (void)bytes;
  free(memory);
}

static int channel(void) {
  int value = 1, got = 0;
  COIR_CHAN(int) c = COIR_CHAN_CREATE(int, 3);
  if (!c) return -ENOMEM;
  struct coir_arm arms[2] = {COIR_SEND_ARM(c, &value), COIR_RECV_ARM(c, &got)};
  CHECK_EQ(coir_select(arms, 2, COIR_NEVER), 0);
  CHECK_EQ(COIR_RECV(c, &got, 0), 0);
  CHECK_EQ(got, 1);
  COIR_CHAN_UNREF(c);
  return 0;
}

static int child(void *arg) {
  *(int *)arg += 1;
  return coir_sleep(COIR_US(10));
}

/* A scope in a scope, each with a deadline, a value and a child; what cannot be had leaves the rest in order. */
static int scopes(void) {
  static const char key = 0;
  struct coir_scope *outer, *inner;
  int ran = 0, wanted = 0;
  int rc = coir_scope_open(&outer, 0, coir_after(COIR_SEC(20)));
  if (rc) return rc;
  rc = coir_scope_set(outer, &key, &ran);
  CHECK(rc ? coir_scope_get(&key) == NULL : coir_scope_get(&key) == &ran);
  int rc2 = coir_scope_open(&inner, 0, coir_after(COIR_SEC(20)));
  if (rc2 == 0) {
    int rc3 = coir_scope_spawn(inner, child, &ran, &(struct coir_attr){.pinned = true}, NULL);
    if (rc3 == 0) wanted++;
    CHECK_EQ(coir_scope_close(inner), 0);
    CHECK_EQ(ran, wanted);
    if (rc == 0) rc = rc3;
  }
  CHECK_EQ(coir_scope_close(outer), 0);
  return rc ? rc : rc2;
}

static int yields_twice(void *arg) { return coir_gen_yield(arg, NULL) || coir_gen_yield(arg, NULL); }

static int generator(void) {
  struct coir_gen *gen;
  void *value = NULL;
  int here, rc = coir_gen_create(&gen, yields_twice, &here, NULL);
  if (rc) return rc;
  while ((rc = coir_gen_resume(gen, NULL, &value)) == 0) CHECK(value == &here);
  CHECK_EQ(coir_gen_destroy(gen), 0);
  return rc == 1 ? 0 : rc;
}

static int fires(void *arg) {
  (void)arg;
  fired++;
  return 0;
}

static int timers(void) {
  struct coir_timer *timer;
  struct coir_ticker *ticker;
  int64_t at;
  int rc = coir_timer_create(&timer, fires, NULL);
  if (rc) return rc;
  int before = fired;
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_US(100)), 0), 0);
  WAIT_FOR(fired == before + 1); /* however often it has to try */
  coir_timer_destroy(timer);
  rc = coir_ticker_create(&ticker, COIR_US(200));
  if (rc) return rc;
  CHECK_EQ(COIR_RECV(coir_ticker_chan(ticker), &at, coir_after(COIR_SEC(20))), 0);
  coir_ticker_destroy(ticker);
  COIR_CHAN(int64_t) c = coir_timer_chan(coir_after(COIR_US(100)));
  if (!c) return -ENOMEM;
  CHECK_EQ(COIR_RECV(c, &at, coir_after(COIR_SEC(20))), 0);
  COIR_CHAN_UNREF(c);
  return 0;
}

/* Each is tried until it succeeds, which is the second time at the latest. */
static int try_all(void *n) {
  static int (*const what[])(void) = {channel, scopes, generator, timers};
  int begun = failed;
  countdown = (int)(intptr_t)n;
  for (size_t i = 0; i < sizeof what / sizeof *what; i++)
    for (int rc; (rc = what[i]()) != 0;) CHECK(rc == -ENOMEM && failed > begun);
  bool spared = countdown > 0;
  countdown = 0;
  return spared;
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  struct coir_config config = {.size = sizeof config, .workers = 2, .alloc = hook_alloc, .free = hook_free};
  bool spared = false;
  int n = 0;
  run_with(config, try_all, (void *)(intptr_t)0); /* what is made once, such as the records of threads */
  while (!spared) {
    long held = blocks;
    n++;
    spared = run_with(config, try_all, (void *)(intptr_t)n);
    CHECK_EQ(blocks, held);
  }
  CHECK(n > 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
