/* Very many goroutines, and a system that has no more memory or threads to give. */
#include "csp_process.h"

#include <sys/resource.h>

static _Atomic(int) count;

static void adds_one(void *arg) {
  (void)arg;
  atomic_fetch_add(&count, 1);
}

static void parks(void *ch) { csp_gochan_recv(ch, NULL); }

/* ---- Many ------------------------------------------------------------------------------------------------------ */

static int mappings_now(void) {
  int n = 0;
  FILE *f = fopen("/proc/self/maps", "r");
  CHECK(f != NULL);
  for (int c; (c = getc(f)) != EOF;) n += c == '\n';
  fclose(f);
  return n;
}

static int mappings_max(void) {
  int n = 0;
  FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
  CHECK(f != NULL);
  CHECK_EQ(fscanf(f, "%d", &n), 1);
  fclose(f);
  return n;
}

/* Parked all at once, on a channel. Memory is what keeps larger stacks from being used at once: a page of each. */
static void many_at_once(int stack_id) {
  csp_gochan_t *gate = csp_gochan_new(0);
  int n = IS_SANITIZED ? 2000 : 100000, before = mappings_now();
  for (int i = 0; i < n; i++) CHECK(csp_proc_create(stack_id, parks, gate) != NULL);
  CHECK_EQ(runtime_num_goroutines(), n);
  struct coir_stats stats = {0};
  WAIT_FOR((coir_runtime_get_stats(csp_runtime(), &stats), stats.parks >= (uint64_t)n));
  CHECK_EQ(runtime_num_goroutines(), n);
  if (!IS_SANITIZED) { /* no mapping for each */
    CHECK(mappings_now() < mappings_max());
    CHECK(mappings_now() - before < n / 2);
  }
  csp_gochan_close(gate);
  csp_scheduler_stop();
  CHECK_EQ(runtime_num_goroutines(), 0);
  csp_gochan_free(gate);
}

static void many_small_ones_at_once(void) { many_at_once(0); }
static void many_large_ones_at_once(void) { many_at_once(3); }

static void is_awaited(void *wg) {
  adds_one(NULL);
  csp_sync_waitgroup_done(wg);
}

static void many_one_after_the_other(void) {
  csp_sync_waitgroup_t wg;
  int n = rounds(100000);
  csp_sync_waitgroup_init(&wg);
  for (int i = 0; i < n; i++) {
    csp_sync_waitgroup_add(&wg, 1);
    go(is_awaited, &wg);
  }
  csp_sync_waitgroup_wait(&wg);
  CHECK_EQ(count, n);
  until_no_goroutine();
}

/* ---- Limits of the system -------------------------------------------------------------------------------------- */

static size_t address_space_now(void) {
  size_t pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  CHECK(f != NULL);
  CHECK_EQ(fscanf(f, "%zu", &pages), 1);
  fclose(f);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void limit_address_space(size_t more) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_AS, &limit), 0);
  limit.rlim_cur = more ? address_space_now() + more : limit.rlim_max;
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
}

#define WORKERS_KEEP 512 /* ended goroutines, that no other thread can have */

/* Address space runs out: that is told, those that run go on, and when there is room again new ones start. */
static void short_of_address_space(void) {
  if (IS_SANITIZED) return; /* they take address space for themselves */
  csp_gochan_t *gate = csp_gochan_new(0);
  int made = 0;
  csp_scheduler_init(0);
  struct coir_stats stats = {0};
  WAIT_FOR((coir_runtime_get_stats(csp_runtime(), &stats), stats.workers_idle == stats.workers));
  limit_address_space((size_t)200 << 20);
  errno = 0;
  while (csp_proc_create(3, parks, gate)) CHECK(++made < 5000000);
  CHECK_EQ(errno, ENOMEM);
  CHECK(made > 0);
  for (int i = 0; i < 10; i++) CHECK(csp_proc_create(3, parks, gate) == NULL || ++made > 0);
  CHECK_EQ(runtime_num_goroutines(), made);
  csp_gochan_close(gate);
  until_no_goroutine();
  /* What the former ones leave is in the hands of the workers first: if they were few, there is none for us. */
  int again = csp_proc_create(3, adds_one, NULL) != NULL;
  CHECK(again || made <= WORKERS_KEEP * stats.workers);
  limit_address_space(0);
  for (int i = 0; i < 200; i++) CHECK(csp_proc_create(3, adds_one, NULL) != NULL);
  csp_scheduler_stop();
  CHECK_EQ(count, 200 + again);
  csp_gochan_free(gate);
}

static void no_room_for_workers(void) {
  set_workers(8);
  limit_address_space((size_t)1 << 20);
  errno = 0;
  CHECK(csp_proc_create(0, adds_one, NULL) == NULL);
  CHECK(errno == EAGAIN || errno == ENOMEM);
  errno = 0;
  CHECK(csp_runtime() == NULL && errno != 0);
  CHECK_EQ(runtime_num_workers(), 0);
  CHECK_EQ(runtime_num_goroutines(), 0);
  csp_scheduler_init(3);
  csp_scheduler_stop();
  limit_address_space(0);
  go(adds_one, NULL);
  csp_scheduler_stop();
  CHECK_EQ(count, 1);
  CHECK(runtime_num_workers() > 0);
}

static void starting_may_fail_and_be_tried_again(void) {
  char text[1024];
  if (IS_SANITIZED) return;
  int status = in_child_process(no_room_for_workers, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
  CHECK_EQ(count_in(text, "csp: csp_scheduler_init: "), 1);
  CHECK_EQ(count_in(text, "\n"), 1);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(many_small_ones_at_once),
      CASE(many_large_ones_at_once),
      CASE(many_one_after_the_other),
      CASE(short_of_address_space),
      CASE(starting_may_fail_and_be_tried_again),
  };
  return RUN_CASES(argc, argv, cases);
}
