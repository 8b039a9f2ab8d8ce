/* What libcsp tells of itself: counts, the dump, the trace. */
#include "csp_process.h"

#include <inttypes.h>

/* ---- The number of goroutines ---------------------------------------------------------------------------------- */

static void parks(void *ch) { csp_gochan_recv(ch, NULL); }

static void sleeps_long(void *started) {
  csp_sync_waitgroup_done(started);
  csp_hangup((uint64_t)COIR_SEC(1000));
}

static int parked_now(void) {
  struct coir_fiber_info list[64];
  int parked = 0;
  size_t n = coir_runtime_list(csp_runtime(), list, 64);
  for (size_t i = 0; i < n && i < 64; i++) parked += list[i].state == COIR_FIBER_WAITING;
  return parked;
}

static void each_is_counted(void) {
  csp_gochan_t *gate = csp_gochan_new(0);
  CHECK_EQ(runtime_num_goroutines(), 0);
  for (int i = 1; i <= 40; i++) {
    CHECK(csp_proc_create(i % 4, parks, gate));
    CHECK_EQ(runtime_num_goroutines(), i);
  }
  WAIT_FOR(parked_now() == 40);
  CHECK_EQ(runtime_num_goroutines(), 40);
  for (int left = 39; left >= 0; left--) {
    CHECK(csp_gochan_send(gate, NULL));
    WAIT_FOR(runtime_num_goroutines() == left);
  }
  csp_scheduler_stop();
  CHECK_EQ(runtime_num_goroutines(), 0);
  go(parks, gate);
  CHECK_EQ(runtime_num_goroutines(), 1);
  csp_gochan_close(gate);
  csp_scheduler_stop();
  csp_gochan_free(gate);
}

/* One counts itself, those that it has created and that have not begun, and those that sleep. */
static void counts_from_inside(void *done) {
  csp_sync_waitgroup_t started = {{0}};
  CHECK_EQ(runtime_num_goroutines(), 1);
  csp_sync_waitgroup_add(&started, 5);
  for (int i = 1; i <= 5; i++) {
    go(sleeps_long, &started);
    CHECK_EQ(runtime_num_goroutines(), 1 + i);
  }
  csp_sync_waitgroup_wait(&started);
  CHECK_EQ(runtime_num_goroutines(), 6);
  csp_sync_waitgroup_done(done);
}

static void inside_it_is_counted_too(void) {
  csp_sync_waitgroup_t done = {{0}};
  csp_sync_waitgroup_add(&done, 1);
  go(counts_from_inside, &done);
  csp_sync_waitgroup_wait(&done);
  WAIT_FOR(runtime_num_goroutines() == 5);
}

static void nothing(void *arg) { (void)arg; }

static void *kept[64]; /* until the end of the process */
static int kept_count;

static void keep(void *p) {
  CHECK(p != NULL && kept_count < 64);
  kept[kept_count++] = p;
}

static void makes_timers(csp_timer_duration_t ns) {
  for (int i = 0; i < 5; i++) {
    keep(csp_time_after(ns));
    keep(csp_ticker_new(ns));
    keep(csp_timer_call_after(ns, nothing, NULL));
    keep(csp_context_with_timeout(NULL, ns));
  }
}

static void makes_timers_inside(void *done) {
  makes_timers(csp_timer_hour);
  CHECK_EQ(runtime_num_goroutines(), 1);
  csp_sync_waitgroup_done(done);
}

/* Nor other fibers of Coir. */
static int waits_long(void *arg) {
  (void)arg;
  return coir_sleep(COIR_SEC(1000));
}

static void what_is_no_goroutine(void) {
  csp_sync_waitgroup_t done = {{0}};
  makes_timers(csp_timer_hour);
  CHECK_EQ(runtime_num_goroutines(), 0);
  csp_sync_waitgroup_add(&done, 1);
  go(makes_timers_inside, &done);
  csp_sync_waitgroup_wait(&done);
  until_no_goroutine();
  CHECK_EQ(coir_runtime_start(coir_runtime_default()), 0);
  CHECK_EQ(coir_go(waits_long, NULL), 0);
  csp_hangup((uint64_t)COIR_MS(5));
  CHECK_EQ(runtime_num_goroutines(), 0);
  makes_timers(COIR_MS(1)); /* the calls are goroutines, and end; the contexts' deadlines are none as they come */
  for (int64_t end = csp_timer_now() + COIR_MS(20); csp_timer_now() < end;) CHECK(runtime_num_goroutines() <= 5);
  until_no_goroutine();
}

static void a_deadline_is_no_goroutine(void) {
  csp_scheduler_init(0);
  for (int i = 0; i < rounds(300); i++) {
    csp_context_t *ctx = csp_context_with_timeout(NULL, COIR_US(50));
    int64_t end = csp_timer_now() + COIR_US(100);
    while (csp_timer_now() < end) CHECK_EQ(runtime_num_goroutines(), 0);
    csp_gochan_recv(csp_context_done(ctx), NULL);
    CHECK_EQ(runtime_num_goroutines(), 0);
    csp_context_free(ctx);
  }
}

static void workers_are_counted(void) {
  const char *text = getenv("COIR_WORKERS");
  if (!text) set_workers(2);
  CHECK_EQ(runtime_num_workers(), text ? atoi(text) : 2);
  csp_scheduler_stop();
  CHECK_EQ(runtime_num_workers(), text ? atoi(text) : 2);
}

/* Counts and lists while goroutines come and go. */
static _Atomic(bool) enough;

static void comes_and_goes(void *depth) {
  csp_yield();
  if ((intptr_t)depth > 0) go(comes_and_goes, number((intptr_t)depth - 1));
}

static void *keeps_some_alive(void *arg) {
  for (int i = 0; i < 1000 && !atomic_load(&enough); i++) {
    go(comes_and_goes, number(20));
    while (runtime_num_goroutines() > 50) usleep(100);
  }
  return arg;
}

static void counting_while_they_come_and_go(void) {
  pthread_t thread;
  csp_context_free(csp_context_with_timeout(NULL, csp_timer_hour)); /* so that each has to be looked at */
  CHECK_EQ(pthread_create(&thread, NULL, keeps_some_alive, NULL), 0);
  for (int i = 0; i < rounds(2000); i++) {
    int n = runtime_num_goroutines();
    CHECK(n >= 0 && n < 1000);
  }
  atomic_store(&enough, true);
  pthread_join(thread, NULL);
  until_no_goroutine();
}

/* ---- The dump -------------------------------------------------------------------------------------------------- */

#define TEXT_BYTES ((size_t)1 << 20)

static int threads_before; /* the latest dump */

/* What runtime_dump prints on stdout, in front of which something is in stdio's buffer. */
static char *dump(void) {
  char *text = calloc(1, TEXT_BYTES);
  FILE *file = tmpfile();
  CHECK(text && file);
  fflush(stdout);
  int saved = dup(STDOUT_FILENO);
  CHECK(saved >= 0 && dup2(fileno(file), STDOUT_FILENO) >= 0);
  printf("before\n");
  threads_before = threads_now();
  runtime_dump();
  ssize_t n = pread(fileno(file), text, TEXT_BYTES - 1, 0); /* it is there, not in a buffer */
  CHECK(n > 7 && dup2(saved, STDOUT_FILENO) >= 0);
  close(saved);
  fclose(file);
  CHECK(!strncmp(text, "before\n", 7));
  memmove(text, text + 7, (size_t)n - 6);
  return text;
}

static bool is_between(int n, int a, int b) { return a < b ? a <= n && n <= b : b <= n && n <= a; }

/* The lines that come first, exactly; returns what follows. A thread may have begun or ended beside the dump. */
static const char *check_head(const char *text, int goroutines) {
  char head[256];
  int threads = 0, threads_after = threads_now();
  snprintf(head, sizeof head, "Runtime Stats:\n  Goroutines: %d\n  Workers:    %d\n  Threads:    ", goroutines,
           runtime_num_workers());
  CHECK(!strncmp(text, head, strlen(head)));
  text += strlen(head);
  CHECK_EQ(sscanf(text, "%d", &threads), 1);
  CHECK(is_between(threads, threads_before, threads_after));
  for (int i = 3; i < DUMP_LINES; i++, text++) CHECK((text = strchr(text, '\n')) != NULL);
  return text;
}

static void the_dump_of_nothing(void) {
  csp_scheduler_init(2);
  char *text = dump();
  CHECK(*check_head(text, 0) == 0);
  CHECK_EQ(count_in(text, "\n"), DUMP_LINES);
  CHECK(strstr(text, "\n  Spares:     0\n  Hand-offs:  0\n  Preempted:  0\n  Stalls:     0, longest 0 us\n"));
  free(text);
}

static void waits_for_a_byte(void *fd) {
  char c;
  CHECK_EQ(csp_read((int)(intptr_t)fd, &c, 1), 1);
}

static _Atomic(bool) runs, released;

static void computes(void *arg) {
  (void)arg;
  atomic_store(&runs, true);
  SPIN_UNTIL(atomic_load(&released));
}

/* A line of the listing: its number, and what it says behind that. */
static const char *next_line(const char *text, uint64_t *id, const char *what) {
  unsigned long long n = 0;
  int used = 0;
  CHECK(sscanf(text, "  goroutine %llu: %n", &n, &used) == 1 && used > 0);
  CHECK(n > *id); /* in order */
  *id = n;
  if (strncmp(text + used, what, strlen(what)) != 0) {
    fprintf(stderr, "not \"%s\": %s", what, text);
    abort();
  }
  return strchr(text, '\n') + 1;
}

static void the_dump_lists_goroutines(void) {
  csp_gochan_t *gate = csp_gochan_new(0);
  csp_sync_waitgroup_t started = {{0}};
  char what[64];
  uint64_t id = 0;
  int fds[2];
  set_workers(2);
  CHECK_EQ(pipe(fds), 0);
  csp_sync_waitgroup_add(&started, 1);
  go(parks, gate);
  go(sleeps_long, &started);
  go(waits_for_a_byte, number(fds[0]));
  csp_sync_waitgroup_wait(&started);
  WAIT_FOR(parked_now() == 3);
  csp_hangup((uint64_t)COIR_MS(30));
  go(computes, NULL);
  WAIT_FOR(atomic_load(&runs));
  char *text = dump();
  const char *at = check_head(text, 4);
  snprintf(what, sizeof what, "waits for receive 0x%" PRIxPTR " for ", (uintptr_t)gate);
  CHECK(strstr(at, " ms, worker "));
  at = next_line(at, &id, what);
  at = next_line(at, &id, "waits for sleep");
  snprintf(what, sizeof what, "waits for read 0x%x for ", (unsigned)fds[0]);
  at = next_line(at, &id, what);
  at = next_line(at, &id, "runs, worker ");
  CHECK(*at == 0);
  atomic_store(&released, true);
  CHECK_EQ(write(fds[1], "x", 1), 1);
  csp_gochan_close(gate);
  WAIT_FOR(runtime_num_goroutines() == 1);
  keep(gate); /* who received from it may still be in the call */
  free(text);
}

/* How long one waits, in milliseconds, give or take. */
static void the_dump_tells_how_long(void) {
  csp_gochan_t *gate = csp_gochan_new(0);
  long long waited = -1;
  int64_t before = csp_timer_now();
  go(parks, gate);
  WAIT_FOR(parked_now() == 1);
  csp_hangup((uint64_t)COIR_MS(60));
  char *text = dump(), *at = strstr(text, "waits for receive");
  int64_t after = csp_timer_now();
  CHECK(at && sscanf(at, "waits for receive %*x for %lld ms", &waited) == 1);
  if (waited < 55 || waited > (after - before) / COIR_MS(1) + 5) {
    fprintf(stderr, "%lld ms of %lld ns\n", waited, (long long)(after - before));
    abort();
  }
  csp_gochan_close(gate);
  csp_scheduler_stop();
  csp_gochan_free(gate);
  free(text);
}

static void ready_ones_are_called_so(void) {
  uint64_t id = 0;
#ifdef COIR_HARD /* where one that computes loses its worker soon, to the other */
  return;
#endif
  set_workers(1);
  go(computes, NULL);
  WAIT_FOR(atomic_load(&runs));
  go(nothing, NULL);
  char *text = dump();
  const char *at = check_head(text, 2);
  at = next_line(at, &id, "runs, worker 0\n");
  at = next_line(at, &id, "ready\n");
  CHECK(*at == 0);
  atomic_store(&released, true);
  csp_scheduler_stop();
  free(text);
}

static void many_are_cut_short(int n) {
  csp_gochan_t *gate = csp_gochan_new(0);
  char more[64] = "";
  uint64_t id = 0;
  for (int i = 0; i < n; i++) go(parks, gate);
  csp_hangup((uint64_t)COIR_MS(20));
  char *text = dump();
  const char *at = check_head(text, n);
  for (int i = 0; i < n && i < 1000; i++) at = next_line(at, &id, "");
  if (n > 1000) snprintf(more, sizeof more, "  and %d more\n", n - 1000);
  CHECK(!strcmp(at, more));
  csp_gochan_close(gate);
  csp_scheduler_stop();
  csp_gochan_free(gate);
  free(text);
}

static void the_dump_of_many(void) {
  many_are_cut_short(1000);
  many_are_cut_short(1001);
  many_are_cut_short(1234);
}

static void dumps(void *done) {
  runtime_dump();
  csp_sync_waitgroup_done(done);
}

/* Several at once, on goroutines with small stacks, each in one piece. */
static void dumps_do_not_mix(void) {
  char *text = calloc(1, TEXT_BYTES);
  csp_sync_waitgroup_t done = {{0}};
  csp_gochan_t *gate = csp_gochan_new(0);
  FILE *file = tmpfile();
  int n = 0, seen;
  CHECK(text && file && freopen("/dev/null", "w", stdout));
  CHECK(dup2(fileno(file), STDOUT_FILENO) >= 0);
  for (int i = 0; i < 10; i++) go(parks, gate);
  csp_sync_waitgroup_add(&done, 20);
  for (int i = 0; i < 20; i++) go(dumps, &done);
  csp_sync_waitgroup_wait(&done);
  CHECK(pread(fileno(file), text, TEXT_BYTES - 1, 0) > 0);
  for (const char *at = text; *at; n++) {
    int goroutines = -1;
    CHECK_EQ(sscanf(at, "Runtime Stats:\n Goroutines: %d\n%n", &goroutines, &seen), 1);
    CHECK(goroutines >= 11 && goroutines <= 30);
    for (int i = 0; i < DUMP_LINES; i++) at = strchr(at, '\n') + 1;
    for (int i = 0; i < goroutines; i++) {
      CHECK(!strncmp(at, "  goroutine ", 12));
      at = strchr(at, '\n') + 1;
    }
  }
  CHECK_EQ(n, 20);
  csp_gochan_close(gate);
  csp_scheduler_stop();
  csp_gochan_free(gate);
  free(text);
  fclose(file);
}

/* ---- The trace ------------------------------------------------------------------------------------------------- */

#define TRACED 20

static void gets_number(void *arg) {
  _Atomic(int) *n = arg;
  csp_yield();
  csp_hangup(1000);
  atomic_fetch_add(n, 1);
}

static void is_traced(void) {
  _Atomic(int) n = 0;
  go(gets_number, (void *)&n); /* before: it is off at first */
  csp_scheduler_stop();
  runtime_trace_enable(true);
  fprintf(stderr, "from %lld\n", (long long)csp_timer_now());
  for (int i = 0; i < TRACED; i++) CHECK(csp_proc_create(i % 4, gets_number, (void *)&n));
  csp_scheduler_stop();
  fprintf(stderr, "to %lld %d\n", (long long)csp_timer_now(), runtime_num_workers());
  runtime_trace_enable(false);
  go(gets_number, (void *)&n);
  csp_scheduler_stop();
  CHECK_EQ(n, TRACED + 2);
}

/* One line of the trace. Returns how long the line is. */
static int trace_line(const char *text, long long *at, unsigned long long *id, char *what, int *worker) {
  int used = 0;
  CHECK_EQ(sscanf(text, "csp: trace: %lld goroutine %llu %7s on worker %d%n", at, id, what, worker, &used), 4);
  CHECK(text[used] == '\n');
  return used + 1;
}

static void the_trace_tells_begin_and_end(void) {
  static char text[16384];
  unsigned long long begun[TRACED], id;
  long long from, to, time, begun_at[TRACED];
  int used = 0, workers = 0, worker, begins = 0, ends = 0;
  char what[8];
  CHECK_EQ(in_child_process(is_traced, text, sizeof text), 0);
  CHECK(strrchr(text, 't') && sscanf(strstr(text, "to "), "to %lld %d", &to, &workers) == 2);
  CHECK_EQ(sscanf(text, "from %lld%n", &from, &used), 1);
  const char *line = text + used + 1;
  for (int i = 0; i < 2 * TRACED; i++) {
    int k = 0;
    line += trace_line(line, &time, &id, what, &worker);
    CHECK(time >= from && time <= to && worker >= 0 && worker < workers);
    while (k < begins && begun[k] != id) k++;
    if (!strcmp(what, "begins")) {
      CHECK(k == begins && begins < TRACED);
      begun[k] = id;
      begun_at[begins++] = time;
    } else {
      CHECK(!strcmp(what, "ends") && k < begins && time >= begun_at[k]);
      begun[k] = 0; /* once */
      ends++;
    }
  }
  CHECK(begins == TRACED && ends == TRACED);
  CHECK(!strncmp(line, "to ", 3));
  CHECK_EQ(count_in(line, "\n"), 1);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(each_is_counted),
      CASE(inside_it_is_counted_too),
      CASE(what_is_no_goroutine),
      CASE(a_deadline_is_no_goroutine),
      CASE(workers_are_counted),
      CASE(counting_while_they_come_and_go),
      CASE(the_dump_of_nothing),
      CASE(the_dump_lists_goroutines),
      CASE(the_dump_tells_how_long),
      CASE(ready_ones_are_called_so),
      CASE(the_dump_of_many),
      CASE(dumps_do_not_mix),
      CASE(the_trace_tells_begin_and_end),
  };
  return RUN_CASES(argc, argv, cases);
}
