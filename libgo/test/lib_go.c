/* go.h: starting functions; and the headers all together. */
#include "lib_test.h"

static _Atomic(int) on_fibers, on_threads;

static void notes_where(void) { atomic_fetch_add(gof_in_fiber() ? &on_fibers : &on_threads, 1); }

static void *on_either(void *arg) {
  CHECK_EQ((intptr_t)arg, 5);
  notes_where();
  return arg;
}

static void on_one_fiber(void *arg) {
  on_either(arg);
  CHECK(gof_in_fiber());
}

static void counts(int fibers, int threads) {
  WAIT_FOR(go_get_active_count() == 0);
  CHECK_EQ(atomic_exchange(&on_fibers, 0), fibers);
  CHECK_EQ(atomic_exchange(&on_threads, 0), threads);
}

ON_BOTH(each_runs_where_it_should) {
  for (int i = 0; i < 10; i++) CHECK_EQ(go(on_either, number(5)), 0);
  counts(0, 10);
  for (int i = 0; i < 10; i++) CHECK_EQ(go_fiber(on_one_fiber, number(5), (size_t)i << 14), 0);
  counts(10, 0);
  CHECK_EQ(go_fiber_default(on_one_fiber, number(5)), 0);
  counts(1, 0);
  for (int i = 0; i < 10; i++) CHECK_EQ(go_fiber_compat(on_either, number(5)), 0);
  if (gof_in_fiber()) counts(10, 0);
  else counts(0, 10);
}

ON_BOTH(what_cannot_be_started) {
  FAILS(go(NULL, NULL), EINVAL);
  FAILS(go_fiber(NULL, NULL, 0), EINVAL);
  FAILS(go_fiber_default(NULL, NULL), EINVAL);
  FAILS(go_fiber_compat(NULL, NULL), EINVAL);
  FAILS(go_fiber(on_one_fiber, NULL, SIZE_MAX), EINVAL);
  CHECK_EQ(go_get_active_count(), 0);
}

static void before_run(void **state) {
  (void)state;
  for (int i = 0; i < 100; i++) CHECK_EQ(go_fiber_default(on_one_fiber, number(5)), 0);
  CHECK_EQ(go_get_active_count(), 100);
  gof_run();
  CHECK_EQ(go_get_active_count(), 0);
  counts(100, 0);
}

static void *leaves_early(void *arg) {
  notes_where();
  pthread_exit(arg);
}

static void a_thread_that_exits_has_ended(void **state) {
  (void)state;
  for (int i = 0; i < 10; i++) CHECK_EQ(go(leaves_early, NULL), 0);
  counts(0, 10);
}

/* The example in go.h, all in one. */
static void says_done(void *c) { CHECK_EQ(go_channel_send(c, "done"), 0); }

static void the_example(void **state) {
  void *text;
  (void)state;
  GoChannel *c = go_channel_create(0);
  CHECK_EQ(gof_start_background(0), 0);
  CHECK_EQ(go_fiber_default(says_done, c), 0);
  CHECK_EQ(go_channel_receive(c, &text), 0);
  CHECK(!strcmp(text, "done"));
  go_channel_free(c);
  CHECK_EQ(gof_join_background(), 0);
}

/* ---- All together: a server with clients, a deadline, and a clean end ------------------------------------------ */

struct server {
  GoChannel *requests;
  GoContext *context;
  GoWaitGroup clients, workers;
  LongAdder *served;
};

struct request {
  intptr_t question;
  GoChannel *answer;
};

static void *thinks(void *request) { return number(((struct request *)request)->question * 2); }

static void serves(void *arg) {
  struct server *s = arg;
  void *v;
  while (go_channel_receive_with_context(s->requests, &v, s->context) == 0) {
    struct request *r = v;
    go_channel_send(r->answer, r->question % 16 ? thinks(r) : go_blocking_submit(thinks, r));
    go_long_adder_increment(s->served);
  }
  go_wait_group_done(&s->workers);
}

static void asks(void *arg) {
  struct server *s = arg;
  for (intptr_t i = 0; i < 100; i++) {
    struct request r = {.question = i, .answer = go_channel_create(1)};
    void *answer = NULL;
    GoSelectCase cases[] = {{GO_SELECT_SEND, s->requests, &r, NULL}, {GO_SELECT_RECEIVE, s->context->done, NULL, NULL}};
    CHECK_EQ(go_select(cases, 2), 0);
    CHECK_EQ(go_channel_receive(r.answer, &answer), 0);
    CHECK_EQ((intptr_t)answer, 2 * i);
    go_channel_free(r.answer);
  }
  go_wait_group_done(&s->clients);
}

ON_BOTH(all_together) {
  CancelContextResult r = go_context_with_cancel(NULL);
  struct server s = {.requests = go_channel_create(3), .context = r.context, .served = go_long_adder_create()};
  go_wait_group_init(&s.clients);
  go_wait_group_init(&s.workers);
  go_wait_group_add(&s.clients, 12);
  go_wait_group_add(&s.workers, 6);
  for (int i = 0; i < 6; i++) start(i % 2, serves, &s);
  for (int i = 0; i < 12; i++) start(i % 2, asks, &s);
  CHECK_EQ(go_wait_group_wait(&s.clients), 0);
  r.cancel(r.context);
  CHECK_EQ(go_wait_group_wait(&s.workers), 0);
  CHECK_EQ(go_long_adder_sum(s.served), 1200);
  until_idle();
  go_context_free(r.context);
  go_channel_free(s.requests);
  go_long_adder_destroy(s.served);
  go_blocking_executor_shutdown();
}

/* ---- At rest --------------------------------------------------------------------------------------------------- */

static int64_t cpu_time(void) {
  struct timespec t;
  CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
  return COIR_SEC(t.tv_sec) + t.tv_nsec;
}

static void waits_in_a_way(void *arg) {
  struct server *s = arg;
  static _Atomic(int) way;
  GoSelectCase receive = {GO_SELECT_RECEIVE, s->requests, NULL, NULL};
  switch (atomic_fetch_add(&way, 1) % 10 / 2) { /* each on a fiber and on a thread */
  case 0: go_channel_receive(s->requests, NULL); break;
  case 1: go_select_timeout(&receive, 1, 100000); break;
  case 2: go_channel_receive_with_context(s->requests, NULL, s->context); break;
  case 3: go_context_wait(s->context); break;
  default: go_wait_group_wait(&s->workers);
  }
}

ON_BOTH(what_waits_does_not_compute) {
  struct server s = {.requests = go_channel_create(0)};
  GoContext *far = go_with_deadline(NULL, real_time_after(COIR_SEC(99)));
  CancelContextResult r = go_context_with_cancel(far);
  Ticker *t = create_ticker(50);
  s.context = r.context;
  go_wait_group_add(&s.workers, 1);
  CHECK_EQ(go_blocking_executor_init(0), 0);
  for (int i = 0; i < 20; i++) start(i % 2, waits_in_a_way, &s);
  pause_ms(20);
  int64_t begin = cpu_time();
  FAILS(go_fiber_block_until((uint64_t)coir_after(COIR_MS(300))), ETIMEDOUT);
  CHECK(cpu_time() - begin < COIR_MS(100));
  go_channel_close(s.requests);
  r.cancel(r.context);
  go_wait_group_done(&s.workers);
  until_idle();
  stop_ticker(t);
  go_blocking_executor_shutdown();
  go_channel_free(s.requests);
  go_context_free(r.context);
  go_context_free(far);
}

/* ---- The child of a fork --------------------------------------------------------------------------------------- */

static void *answers(void *arg) { return arg; }

static void uses_executor(void *unused) {
  (void)unused;
  CHECK_EQ(go_blocking_executor_init(1), 0);
  CHECK(go_blocking_submit(answers, number(1)) == number(1));
  go_blocking_executor_shutdown();
}

static void begins_anew(void) {
  CHECK_EQ(go_get_active_count(), 0);
  GoContext *c = go_with_deadline(NULL, real_time_after(COIR_MS(5)));
  Ticker *t = create_ticker(1);
  CHECK(c && t);
  CHECK_EQ(go_context_wait(c), 0);
  CHECK_EQ(go_channel_receive(t->c, NULL), 0);
  stop_ticker(t);
  go_context_free(c);
  CHECK_EQ(go_fiber_default(uses_executor, NULL), 0);
  CHECK_EQ(go_get_active_count(), 1);
  gof_run();
  CHECK_EQ(go(answers, NULL), 0);
  until_idle();
  FAILS(go_fiber_block_until(0), ETIMEDOUT);
  exit(0);
}

static void *naps_until(void *told) {
  WAIT_FOR(*(_Atomic(bool) *)told);
  return NULL;
}

static void a_child_begins_anew(void **state) {
  (void)state;
  if (IS_SANITIZED) skip();        /* they do not bear threads in the child of a process that has some */
  Ticker *t = create_ticker(1000); /* so that the clock has begun */
  _Atomic(bool) told = false;
  CHECK_EQ(go_blocking_executor_init(2), 0);
  CHECK_EQ(go(naps_until, &told), 0);
  in_child(begins_anew);
  CHECK_EQ(go_get_active_count(), 1);
  atomic_store(&told, true);
  until_idle();
  go_blocking_executor_shutdown();
  stop_ticker(t);
}

static void tells_the_count(void) { _exit(go_get_active_count() == 0 ? 0 : 1); }

static void *forks(void *status) {
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(20);
    CHECK_EQ(atexit(tells_the_count), 0);
    return NULL; /* the only thread ends, and so does the process */
  }
  CHECK_EQ(waitpid(pid, status, 0), pid);
  return NULL;
}

static void who_forked_is_not_counted_in_the_child(void **state) {
  int status = -1;
  (void)state;
  if (IS_SANITIZED) skip(); /* as above */
  CHECK_EQ(go(forks, &status), 0);
  until_idle();
  CHECK_EQ(status, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(before_run),
      cmocka_unit_test(each_runs_where_it_should),
      cmocka_unit_test(what_cannot_be_started),
      cmocka_unit_test(a_thread_that_exits_has_ended),
      cmocka_unit_test(the_example),
      cmocka_unit_test(all_together),
      cmocka_unit_test(what_waits_does_not_compute),
      cmocka_unit_test(a_child_begins_anew),
      cmocka_unit_test(who_forked_is_not_counted_in_the_child),
  };
  return RUN_TESTS(argc, argv, tests);
}
