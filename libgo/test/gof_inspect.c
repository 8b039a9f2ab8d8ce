/* The list of fibers and the dump: what they say, while nobody and while everybody is busy. */
#include "gof_test.h"

#include <fcntl.h>

static _Atomic(int) stop;

static gof_info list[512];

/* Looks for the fiber `id`. */
static const gof_info *find(uint64_t id) {
  size_t n = gof_list(list, 512);
  for (size_t i = 0; i < n; i++)
    if (list[i].id == id) return &list[i];
  return NULL;
}

static void naps_until_stop(void *arg) {
  (void)arg;
  while (!atomic_load(&stop)) gof_sleep_ms(1);
}

/* ---- Numbers and counts ------------------------------------------------------------------------------------------ */

static void goes_at_once(void *arg) { (void)arg; }

static int by_id(const void *a, const void *b) {
  uint64_t x = ((const gof_info *)a)->id, y = ((const gof_info *)b)->id;
  return (x > y) - (x < y);
}

static void the_list_counts_those_alive(void) {
  CHECK_EQ(gof_list(NULL, 0), 0);
  CHECK_EQ(gof_list(NULL, 99), 0);
  CHECK_EQ(gof_list(list, 512), 0);
  for (int i = 0; i < 100; i++) go(goes_at_once, NULL);
  CHECK_EQ(gof_list(NULL, 0), 100);
  CHECK_EQ(gof_list(NULL, 7), 100);
  memset(list, 0x5a, sizeof list);
  CHECK_EQ(gof_list(list, 0), 0);
  CHECK_EQ(gof_list(list, 7), 7);
  CHECK_EQ(list[7].id, 0x5a5a5a5a5a5a5a5a);
  CHECK_EQ(gof_list(list, 100), 100);
  CHECK_EQ(list[100].id, 0x5a5a5a5a5a5a5a5a);
  CHECK_EQ(gof_list(list, 512), 100);
  gof_run();
  CHECK_EQ(gof_list(NULL, 0), 0);
  CHECK_EQ(gof_list(list, 512), 0);
}

static void ids_start_at_1_and_increase(void) {
  uint64_t highest = 0;
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 50; i++) {
      go(goes_at_once, NULL);
      CHECK_EQ(gof_list(list, 512), i + 1);
      qsort(list, (size_t)i + 1, sizeof *list, by_id);
      CHECK(list[i].id > highest); /* the newest */
      for (int n = 1; n <= i; n++) CHECK(list[n].id > list[n - 1].id);
      if (highest == 0) CHECK_EQ(list[i].id, 1);
      highest = list[i].id;
    }
    gof_run();
  }
}

static void it_knows_its_id(void *arg) {
  uint64_t id = coir_fiber_id(NULL);
  const gof_info *info = find(id);
  CHECK(info != NULL);
  (void)arg;
}

static void ids_are_those_of_coir(void) {
  go(it_knows_its_id, NULL);
  gof_run();
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

static const char *own_name(void) {
  const gof_info *info = find(coir_fiber_id(NULL));
  CHECK(info != NULL);
  return info->name;
}

static void __attribute__((noinline)) set_from_the_stack(int n) {
  char name[32];
  snprintf(name, sizeof name, "number %d", n);
  gof_set_name(name);
  memset(name, 'x', sizeof name);
  __asm__ volatile("" : : "r"(name) : "memory");
}

static void has_names(void *arg) {
  char want[32];
  CHECK(own_name() == NULL);
  for (int i = 0; i < 20; i++) {
    set_from_the_stack((int)(intptr_t)arg * 100 + i);
    gof_yield();
    snprintf(want, sizeof want, "number %d", (int)(intptr_t)arg * 100 + i);
    CHECK(!strcmp(own_name(), want));
  }
  gof_set_name("a name that is far longer than it may be");
  CHECK(!strcmp(own_name(), "a name that is far long"));
  gof_set_name("12345678901234567890123");
  CHECK(!strcmp(own_name(), "12345678901234567890123"));
  gof_set_name("");
  CHECK(own_name() == NULL);
  gof_set_name("again");
  CHECK(!strcmp(own_name(), "again"));
  gof_set_name(NULL);
  CHECK(own_name() == NULL);
}

/* `list` is of all fibers here: they take turns, and only between yields. */
static void names_are_copied(void) {
  set_workers(1);
  for (intptr_t i = 1; i <= 5; i++) go(has_names, number(i));
  gof_run();
  gof_set_name("plain threads have none");
}

static _Atomic(const char *) kept;

static void names_itself_twice(void *arg) {
  (void)arg;
  gof_set_name("first");
  CHECK(!strcmp(own_name(), "first"));
  const char *name = own_name();
  gof_set_name("second");
  CHECK(!strcmp(name, "first")); /* the list's names are its own */
  gof_sleep_ms(1);
  CHECK(!strcmp(name, "first"));
  kept = name;
  go(goes_at_once, NULL);
  gof_yield();
  CHECK(!strcmp(kept, "first"));
}

static void a_lists_names_stay(void) {
  go(names_itself_twice, NULL);
  gof_run();
}

static void naps_by_name(void *name) {
  gof_set_name(name);
  naps_until_stop(NULL);
}

/* Names outlive their fibers, until the same thread lists again. */
static void names_outlive_their_fibers(void) {
  gof_info mine[1];
  CHECK_EQ(gof_start_background(0), 0);
  go(naps_by_name, "short-lived");
  WAIT_FOR(gof_list(mine, 1) == 1 && mine[0].name);
  atomic_store(&stop, 1);
  WAIT_FOR(gof_list(NULL, 0) == 0);
  CHECK(!strcmp(mine[0].name, "short-lived"));
  CHECK_EQ(gof_join_background(), 0);
}

/* ---- States, stacks, times --------------------------------------------------------------------------------------- */

static gof_chan_t *chan;

static void waits_for_value(void *arg) { CHECK_EQ(gof_chan_recv(chan, arg), 0); }

static void states_are_seen(void *arg) {
  (void)arg;
  uint64_t me = coir_fiber_id(NULL);
  CHECK_EQ(state_of(me), GOF_STATE_RUNNABLE);
  go(naps_until_stop, NULL);
  go(waits_for_value, NULL);
  CHECK_EQ(state_of(me + 1), GOF_STATE_RUNNABLE);
  CHECK_EQ(state_of(me + 2), GOF_STATE_RUNNABLE);
  while (state_of(me + 2) != GOF_STATE_BLOCKED) gof_yield();
  bool blocked = false;
  for (int i = 0; i < 1000000 && !blocked; i++) {
    blocked = state_of(me + 1) == GOF_STATE_BLOCKED;
    gof_yield();
  }
  CHECK(blocked);
  CHECK_EQ(gof_chan_send(chan, NULL), 0);
  atomic_store(&stop, 1);
  while (gof_list(NULL, 0) > 1) gof_yield();
  CHECK_EQ(state_of(me + 1), GOF_STATE_FINISHED);
}

static void states(void) {
  chan = gof_chan_make(0);
  go(states_are_seen, NULL);
  gof_run();
  gof_chan_free(chan);
}

static _Atomic(int) seen;

static void __attribute__((noinline)) uses_100_kb(void) {
  char block[100000];
  memset(block, 1, sizeof block);
  __asm__ volatile("" : : "r"(block) : "memory");
  while (!atomic_load(&seen)) gof_sleep_ms(1);
  __asm__ volatile("" : : "r"(block) : "memory");
}

static void uses_much_then_little(void *arg) {
  uses_100_kb();
  naps_until_stop(arg);
}

static void *looks_at_stacks(void *arg) {
  uint64_t id = (uint64_t)(uintptr_t)arg;
  WAIT_FOR(state_of(id) == GOF_STATE_BLOCKED);
  const gof_info *info = find(id);
  CHECK_EQ(info->stack_size, 256 << 10);
  CHECK(info->stack_used > 100000 && info->stack_used <= info->stack_size);
  atomic_store(&seen, 1);
  WAIT_FOR((info = find(id)) && info->stack_used < 50000);
  CHECK(info->stack_used >= 4096);
  atomic_store(&stop, 1);
  return NULL;
}

static void the_use_of_stacks(void) {
  pthread_t t;
  if (IS_SANITIZED) return; /* their fake stacks are elsewhere */
  go(uses_much_then_little, NULL);
  go(naps_until_stop, NULL);
  CHECK_EQ(gof_list(list, 512), 2);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(list[i].stack_used, 0);
    CHECK_EQ(list[i].stack_size, 256 << 10);
    CHECK_EQ(list[i].last_run_ns, 0);
    CHECK_EQ(list[i].state, GOF_STATE_RUNNABLE);
  }
  CHECK_EQ(pthread_create(&t, NULL, looks_at_stacks, number(1)), 0);
  gof_run();
  pthread_join(t, NULL);
}

static void all_have_used_some(void *arg) {
  (void)arg;
  for (int i = 0; i < 50; i++) {
    size_t n = gof_list(list, 512);
    for (size_t k = 0; k < n; k++) {
      CHECK(list[k].stack_used <= list[k].stack_size);
      if (list[k].last_run_ns) CHECK(list[k].stack_used >= 4096);
    }
    gof_sleep_ms(1);
  }
  atomic_store(&stop, 1);
}

static void who_has_run_has_used_some(void) {
  for (int i = 0; i < 20; i++) go(naps_until_stop, NULL);
  go(all_have_used_some, NULL);
  gof_run();
}

#define GRAIN COIR_MS(2) /* the time of a dispatch is known to a millisecond or so */

static void times_itself(void *arg) {
  uint64_t id = coir_fiber_id(NULL);
  (void)arg;
  for (int i = 0; i < 5; i++) {
    int64_t before = coir_now();
    gof_sleep_ms(10);
    int64_t after = coir_now();
    const gof_info *info = find(id);
    CHECK(info != NULL);
    CHECK((int64_t)info->last_run_ns >= before + COIR_MS(10) - GRAIN);
    CHECK((int64_t)info->last_run_ns <= after + GRAIN);
  }
}

static void the_last_run_is_timed(void) {
  go(times_itself, NULL);
  gof_run();
}

/* Of a fiber that waits: when it ran last, not now. */
static void *looks_at_times(void *arg) {
  const gof_info *info;
  WAIT_FOR((info = find(1)) && info->state == GOF_STATE_BLOCKED);
  uint64_t ran = info->last_run_ns;
  CHECK(ran >= *(uint64_t *)arg - (uint64_t)GRAIN && (int64_t)ran <= coir_now() + GRAIN);
  (void)coir_sleep(COIR_MS(20));
  CHECK_EQ((info = find(1))->state, GOF_STATE_BLOCKED);
  CHECK_EQ(info->last_run_ns, ran);
  CHECK_EQ(gof_chan_send(chan, NULL), 0);
  return NULL;
}

static void the_last_run_stays_while_it_waits(void) {
  pthread_t t;
  uint64_t begin = (uint64_t)coir_now();
  chan = gof_chan_make(0);
  go(waits_for_value, NULL);
  CHECK_EQ(pthread_create(&t, NULL, looks_at_times, &begin), 0);
  gof_run();
  pthread_join(t, NULL);
  gof_chan_free(chan);
}

/* ---- While all are busy ------------------------------------------------------------------------------------------ */

static void lives_shortly(void *arg) {
  char name[16];
  snprintf(name, sizeof name, "short %d", (int)(intptr_t)arg);
  gof_set_name(name);
  if ((intptr_t)arg % 3 == 0) gof_yield();
  if ((intptr_t)arg % 7 == 0) gof_sleep_ms(1);
}

static void churns(void *arg) {
  for (intptr_t i = (intptr_t)arg; !atomic_load(&stop); i++) {
    if (gof_list(NULL, 0) < 200) go(lives_shortly, number(i));
    gof_yield();
  }
}

static void check_list(gof_info *mine) {
  size_t n = gof_list(mine, 512);
  CHECK(n >= 1 && n <= 260);
  for (size_t i = 0; i < n; i++) {
    CHECK(mine[i].id >= 1);
    CHECK(mine[i].state >= GOF_STATE_RUNNABLE && mine[i].state <= GOF_STATE_FINISHED);
    CHECK(mine[i].stack_used <= mine[i].stack_size);
    CHECK(mine[i].stack_size == 256 << 10);
    CHECK((int64_t)mine[i].last_run_ns <= coir_now() + GRAIN);
    CHECK(!mine[i].name || !strncmp(mine[i].name, "short ", 6) || !strcmp(mine[i].name, "lister"));
  }
  qsort(mine, n, sizeof *mine, by_id);
  for (size_t i = 1; i < n; i++) CHECK(mine[i].id > mine[i - 1].id);
}

static _Atomic(int) listers;

static void lists_often(void) {
  gof_info *mine = calloc(512, sizeof *mine);
  CHECK(mine != NULL);
  for (int i = 0; i < rounds(300); i++) {
    check_list(mine);
    gof_yield();
  }
  free(mine);
  if (atomic_fetch_sub(&listers, 1) == 1) atomic_store(&stop, 1);
}

static void *thread_lists(void *arg) {
  WAIT_FOR(gof_list(NULL, 0) > 4);
  lists_often();
  return arg;
}

static void fiber_lists(void *arg) {
  (void)arg;
  gof_set_name("lister");
  lists_often();
}

static void lists_while_all_are_busy(void) {
  pthread_t t[2];
  need_workers(4);
  listers = 3;
  for (intptr_t i = 0; i < 8; i++) go(churns, number(i));
  go(fiber_lists, NULL);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&t[i], NULL, thread_lists, NULL), 0);
  gof_run();
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
}

/* ---- The dump ---------------------------------------------------------------------------------------------------- */

static char dump[32 << 20];

/* What the pipe holds until its writers are gone. */
static size_t read_all(int fd) {
  size_t n = 0;
  ssize_t got;
  while ((got = read(fd, dump + n, sizeof dump - 512 - n)) > 0) n += (size_t)got;
  CHECK_EQ(got, 0);
  dump[n] = 0;
  return n;
}

static void *reads_all(void *fd) { return number((intptr_t)read_all((int)(intptr_t)fd)); }

static bool begins(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

/* Checks the line of a fiber. */
static void check_fiber_line(const char *line) {
  unsigned long long id;
  size_t bytes;
  char state[16];
  int n = 0;
  CHECK_EQ(sscanf(line, "fiber %llu [%15[a-z]]: name=%n", &id, state, &n), 2);
  CHECK(n > 0 && id >= 1);
  CHECK(!strcmp(state, "runnable") || !strcmp(state, "blocked") || !strcmp(state, "finished"));
  const char *stack = strstr(line + n, " stack=");
  CHECK(stack > line + n); /* a name, or (unnamed) */
  n = 0;
  CHECK_EQ(sscanf(stack, " stack=%zu bytes%n", &bytes, &n), 1);
  CHECK(n > 0 && !stack[n] && bytes >= 16384);
}

/* Checks one dump, and returns where the next begins. `fibers`: how many it tells of; `frames`: lines with an address
 * below them. */
static char *check_dump(char *at, int *fibers, int *frames) {
  *fibers = *frames = 0;
  for (int first = 1;; first = 0) {
    char line[512];
    char *end = memchr(at, '\n', sizeof line); /* not by strchr, which sanitizers let look at all that follows */
    CHECK(end != NULL);
    memcpy(line, at, (size_t)(end - at));
    line[end - at] = 0;
    at = end + 1;
    int total = -1, n = 0;
    if (first) {
      CHECK(!strcmp(line, "=== Fiber Stack Dump ==="));
    } else if (begins(line, "fiber ")) {
      check_fiber_line(line);
      ++*fibers;
    } else if (begins(line, "=== ")) {
      CHECK_EQ(sscanf(line, "=== Total: %d fibers ===%n", &total, &n), 1);
      CHECK(n > 0 && !line[n]);
      CHECK_EQ(total, *fibers);
      return at;
    } else {
      CHECK(*fibers > 0);
      *frames += strstr(line, "0x") != NULL;
    }
  }
}

/* A dump into a pipe, which somebody reads meanwhile. */
static int dump_now(int *frames) {
  pthread_t t;
  int fds[2], fibers;
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(pthread_create(&t, NULL, reads_all, number(fds[0])), 0);
  gof_dump_stacks(fds[1]);
  close(fds[1]);
  pthread_join(t, NULL);
  close(fds[0]);
  CHECK_EQ(*check_dump(dump, &fibers, frames), 0);
  return fibers;
}

static bool has_line(const char *line) { return strstr(dump, line) != NULL; }

static void the_dump_of_nobody(void) {
  int frames;
  CHECK_EQ(dump_now(&frames), 0);
  CHECK_EQ(frames, 0);
  gof_dump_stacks(-1);
  gof_dump_stacks(12345);
}

static void parked(void *arg) {
  gof_set_name("parked");
  waits_for_value(arg);
}

/* The lines below that of the fiber with this name, up to the next fiber's: those with an address. */
static int frames_of(const char *name) {
  char want[64];
  int n = 0;
  snprintf(want, sizeof want, "name=%s ", name);
  char *at = strstr(dump, want);
  CHECK(at != NULL);
  for (at = strchr(at, '\n') + 1; !begins(at, "fiber ") && !begins(at, "==="); at = strchr(at, '\n') + 1) {
    char *address = strstr(at, "0x");
    n += address && address < strchr(at, '\n') && strstr(at, "#") && strstr(at, "#") < address;
  }
  return n;
}

static void *dumps_and_releases(void *arg) {
  int frames;
  WAIT_FOR(blocked_count() >= 2 && state_of(1) == GOF_STATE_BLOCKED);
  CHECK_EQ(dump_now(&frames), 3);
  CHECK(has_line("fiber 1 [blocked]: name=parked stack=262144 bytes\n"));
  CHECK(has_line("fiber 3 [") && has_line("]: name=(unnamed) stack=16384 bytes\n"));
  CHECK(frames_of("parked") >= 2); /* its function, and what that called */
  atomic_store(&stop, 1);
  CHECK_EQ(gof_chan_send(chan, NULL), 0);
  return arg;
}

static void the_dump_shows_each_fiber(void) {
  pthread_t t;
  chan = gof_chan_make(0);
  go(parked, NULL);
  go(naps_by_name, "napper");
  CHECK(gof_spawn(naps_until_stop, NULL, 1) != NULL);
  int frames;
  CHECK_EQ(dump_now(&frames), 3);
  CHECK_EQ(frames, 0); /* nobody has begun */
  CHECK(has_line("fiber 1 [runnable]: name=(unnamed) stack=262144 bytes\n"));
  CHECK_EQ(pthread_create(&t, NULL, dumps_and_releases, NULL), 0);
  gof_run();
  pthread_join(t, NULL);
  gof_chan_free(chan);
}

static int pipe_for_dumps;
static _Atomic(int) dumpers;

static void *thread_dumps(void *arg) {
  for (int i = 0; i < 5; i++) gof_dump_stacks(pipe_for_dumps);
  if (atomic_fetch_sub(&dumpers, 1) == 1) {
    atomic_store(&stop, 1);
    close(pipe_for_dumps);
  }
  return arg;
}

static void fiber_dumps(void *arg) { thread_dumps(arg); }

/* `n` dumps, one after the other. */
static void check_dumps(int n, int fibers_min, int fibers_max) {
  char *at = dump;
  for (int i = 0; i < n; i++) {
    int fibers, frames;
    at = check_dump(at, &fibers, &frames);
    CHECK(fibers >= fibers_min && fibers <= fibers_max);
  }
  CHECK_EQ(*at, 0);
}

static pthread_t begin_dumps(int n) {
  pthread_t reader;
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  pipe_for_dumps = fds[1];
  dumpers = n;
  CHECK_EQ(pthread_create(&reader, NULL, reads_all, number(fds[0])), 0);
  return reader;
}

/* Of 300 fibers, so that no dump fits a pipe. */
static void dumps_are_not_mixed(void) {
  pthread_t t[4], reader = begin_dumps(4);
  for (int i = 0; i < 300; i++) go(naps_until_stop, NULL);
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, thread_dumps, NULL), 0);
  gof_run();
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  pthread_join(reader, NULL);
  check_dumps(20, 300, 300);
}

static void nor_those_of_fibers(void) {
  pthread_t t[2], reader = begin_dumps(4);
  need_workers(4);
  for (int i = 0; i < 300; i++) go(naps_until_stop, NULL);
  for (int i = 0; i < 2; i++) go(fiber_dumps, NULL);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&t[i], NULL, thread_dumps, NULL), 0);
  gof_run();
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  pthread_join(reader, NULL);
  check_dumps(20, 300, 302);
}

static void dumps_while_all_are_busy(void) {
  pthread_t t[4], reader = begin_dumps(4);
  need_workers(4);
  for (intptr_t i = 0; i < 8; i++) go(churns, number(i));
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&t[i], NULL, thread_dumps, NULL), 0);
  gof_run();
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  pthread_join(reader, NULL);
  check_dumps(20, 0, 520); /* some end, and others begin, while it looks from one to the next */
}

static int full_pipe[2]; /* which nobody reads */

static void fill_pipe(void) {
  static const char much[4096];
  CHECK_EQ(pipe(full_pipe), 0);
  CHECK_EQ(fcntl(full_pipe[1], F_SETFL, O_NONBLOCK), 0);
  while (write(full_pipe[1], much, sizeof much) > 0) {}
  while (write(full_pipe[1], much, 1) > 0) {}
  CHECK_EQ(errno, EAGAIN);
}

static void dumps_into(void *fd) { gof_dump_stacks((int)(intptr_t)fd); }

/* A fiber writes its dump for ever. */
static void begin_endless_dump(void) {
  fill_pipe();
  CHECK_EQ(gof_start_background(0), 0);
  go(dumps_into, number(full_pipe[1]));
  WAIT_FOR(blocked_count() == 1);
}

/* After all somebody reads. */
static void end_endless_dump(void) {
  CHECK(read(full_pipe[0], dump, sizeof dump) > 0);
  CHECK_EQ(gof_join_background(), 0);
}

static void a_dump_that_is_held_up_keeps_no_other(void) {
  int frames;
  alarm(60);
  begin_endless_dump();
  CHECK_EQ(dump_now(&frames), 1);
  int64_t begin = coir_now();
  CHECK_EQ(dump_now(&frames), 1); /* its turn is over */
  CHECK(coir_now() - begin < COIR_SEC(2));
  end_endless_dump();
  CHECK_EQ(dump_now(&frames), 0);
}

/* It is abandoned where it is; the next fibers may get what it was made of. What it held stays allocated, so leaks are
 * not looked for. */
static void nor_does_one_that_is_abandoned(void) {
  int frames, fds[2];
  alarm(60);
  begin_endless_dump();
  gof_request_stop();
  CHECK_EQ(gof_join_background(), 0);
  CHECK_EQ(pipe(fds), 0);
  CHECK_EQ(gof_start_background(0), 0);
  go(dumps_into, number(fds[1]));
  CHECK_EQ(gof_join_background(), 0);
  close(fds[1]);
  read_all(fds[0]);
  int fibers;
  CHECK_EQ(*check_dump(dump, &fibers, &frames), 0);
  CHECK_EQ(fibers, 1);
  CHECK_EQ(dump_now(&frames), 0);
  _exit(0);
}

static void dumps_in_a_child(void) {
  int fds[2], fibers, frames;
  int64_t begin = coir_now();
  CHECK_EQ(pipe(fds), 0);
  gof_dump_stacks(fds[1]);
  CHECK(coir_now() - begin < COIR_SEC(2));
  close(fds[1]);
  read_all(fds[0]);
  CHECK_EQ(*check_dump(dump, &fibers, &frames), 0);
  CHECK_EQ(fibers, 0);
}

static void nor_does_one_of_the_parent(void) {
  char text[4096];
  if (IS_SANITIZED) return; /* their own locks do not survive a fork beside other threads */
  begin_endless_dump();
  int status = in_child_process(dumps_in_a_child, text, sizeof text);
  if (status) fprintf(stderr, "%s", text);
  CHECK_EQ(status, 0);
  end_endless_dump();
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(the_list_counts_those_alive),
      CASE(ids_start_at_1_and_increase),
      CASE(ids_are_those_of_coir),
      CASE(names_are_copied),
      CASE(a_lists_names_stay),
      CASE(names_outlive_their_fibers),
      CASE(states),
      CASE(the_use_of_stacks),
      CASE(who_has_run_has_used_some),
      CASE(the_last_run_is_timed),
      CASE(the_last_run_stays_while_it_waits),
      CASE(lists_while_all_are_busy),
      CASE(the_dump_of_nobody),
      CASE(the_dump_shows_each_fiber),
      CASE(dumps_are_not_mixed),
      CASE(nor_those_of_fibers),
      CASE(dumps_while_all_are_busy),
      CASE(a_dump_that_is_held_up_keeps_no_other),
      CASE(nor_does_one_that_is_abandoned),
      CASE(nor_does_one_of_the_parent),
  };
  return RUN_CASES(argc, argv, cases);
}
