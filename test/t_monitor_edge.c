/* The monitor and the rest of the world: what it reports and counts, limits of threads, runtimes that stop, deadlocks,
 * processes and signals, and that it rests when there is nothing to see to. */
#include "stuck.h"

#include <inttypes.h>
#include <sched.h>
#include <sys/resource.h>

static void compute_for(int64_t ns) {
  int64_t end = coir_now() + ns;
  SPIN_UNTIL(coir_now() >= end);
}

/* ---- Reports and counters -------------------------------------------------------------------------------------- */

/* Whether the address lies in code that is mapped. */
static bool is_code(void *address) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[512], mode[5];
  uintptr_t begin, end, at = (uintptr_t)address;
  bool is_found = false;
  CHECK(maps);
  while (!is_found && fgets(line, sizeof line, maps))
    is_found = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &begin, &end, mode) == 3 && begin <= at && at < end &&
               mode[2] == 'x';
  fclose(maps);
  return is_found;
}

static void check_report(const struct report *r) {
  const struct coir_stall *s = &r->stall;
#ifdef COIR_HARD
  int64_t bound = COIR_US(50);
#else
  int64_t bound = s->kind == COIR_STALL_BUSY ? COIR_MS(10) : COIR_MS(1);
#endif
  CHECK(s->runtime == coir_runtime_current());
  CHECK(!strcmp(r->name, "culprit"));
  CHECK_EQ(s->worker, 0);
  CHECK(s->ns >= bound - COIR_US(100));
  CHECK(s->ns < COIR_SEC(20));
  CHECK(!s->is_preempted);
  for (size_t i = 0; i < s->frame_count; i++) CHECK(is_code(r->frames[i]));
}

static int give_after_a_while(void *p) {
  CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
  return give_a_byte(p);
}

static void block_a_while(void) {
  struct pipe_pair p;
  pipe_open(&p);
  go_beside(give_after_a_while, &p);
  take_byte(&p);
  pipe_close(&p);
}

/* A thread that computes but gets no time looks blocked, and one that did something before it blocked may look busy to
 * a monitor that gets no time, and a new thread may be late: so each kind has several tries. */
static void until_reported(void (*be_stuck)(void), enum coir_stall_kind kind) {
  for (int i = 0; i < 100; i++) {
    struct report r;
    forget_reports();
    coir_yield();
    be_stuck();
    WAIT_FOR(report_of(coir_fiber_id(NULL), &r));
    check_report(&r);
    if (r.stall.kind == kind && r.stall.is_handed_off) return;
  }
  CHECK(!"it was reported as what it was");
}

ON_FIBER_OF(says_what_it_found, .workers = 1, .blocked_us = 1000, .busy_us = 10000, .preempt = COIR_OFF,
            .on_stall = note_stall) {
  coir_set_name("culprit");
  until_reported(block_a_while, COIR_STALL_BLOCKED);
  until_reported(compute_until_taken, COIR_STALL_BUSY);
}

static flag reported;

ON_FIBER_OF(counters, .workers = 1, .blocked_us = 1000, .preempt = COIR_OFF, .on_stall = note_stall,
            .on_stall_arg = &reported) {
  struct coir_runtime *rt = coir_runtime_current();
  CHECK_EQ(stats_of(rt).handoffs, 0);
  CHECK_EQ(stats_of(rt).stalls, 0);
  CHECK_EQ(stats_of(rt).spares, 0);
  for (int i = 0; i < 10; i++) {
    block_until_taken();
    CHECK(stats_of(rt).handoffs > (uint64_t)i);
    CHECK(stats_of(rt).spares >= 1);
    coir_yield();
  }
  WAIT_FOR(stats_of(rt).stalls >= 10);
  WAIT_FOR(stats_of(rt).stalls == (uint64_t)atomic_load(&reported));
  CHECK_EQ(stats_of(rt).preemptions, 0);
  CHECK_EQ(stats_of(rt).workers, 1);
  int64_t longest = 0;
  for (int i = 0; i < report_count; i++)
    if (reports[i].stall.ns > longest) longest = reports[i].stall.ns;
  CHECK(stats_of(rt).longest_stall_ns >= longest - COIR_US(100));
  CHECK(stats_of(rt).longest_stall_ns < COIR_SEC(20));
}

ON_FIBER_OF(is_off_when_asked, .workers = 1, .monitor = COIR_OFF, .on_stall = note_stall, .on_stall_arg = &reported) {
  static flag is_taken; /* it may be raised when this is over */
  go_beside(raise_flag, &is_taken);
  usleep(30000);
  compute_for(COIR_MS(30));
  CHECK(!is_up(&is_taken));
  CHECK_EQ(handoffs(), 0);
  CHECK_EQ(stats_of(coir_runtime_current()).stalls, 0);
  CHECK_EQ(atomic_load(&reported), 0);
  WAIT_FOR(is_up(&is_taken));
}

/* ---- How many threads ------------------------------------------------------------------------------------------ */

struct group {
  struct pipe_pair pipe;
  _Atomic(int) in;
};

static int sit_in_read(void *arg) {
  struct group *g = arg;
  atomic_fetch_add(&g->in, 1);
  take_byte(&g->pipe);
  return 7;
}

#define GROUP 20

ON_FIBER_OF(threads_come_and_go) {
  struct coir_runtime *rt = coir_runtime_current();
  struct group g = {.in = 0};
  struct coir_fiber *fibers[GROUP];
  pipe_open(&g.pipe);
  for (int i = 0; i < GROUP; i++) fibers[i] = spawn(sit_in_read, &g);
  WAIT_FOR(atomic_load(&g.in) == GROUP);
  CHECK((int)stats_of(rt).spares + workers() >= GROUP + 1); /* and a thread for each, and for this one */
  CHECK(threads() >= GROUP + 1);
  for (int i = 0; i < GROUP; i++) give_byte(&g.pipe);
  for (int i = 0; i < GROUP; i++) CHECK_EQ(join(fibers[i]), 7);
  WAIT_FOR((int)stats_of(rt).spares <= workers());
  pipe_close(&g.pipe);
}

#define BLOCKERS 4

static struct group few;

static bool is_one_held_up(void) {
  bool is_found = false;
  pthread_mutex_lock(&reports_lock);
  for (int i = 0; i < report_count; i++) is_found |= !reports[i].stall.is_handed_off;
  pthread_mutex_unlock(&reports_lock);
  return is_found;
}

/* Lets all go on when one is held up, and some have got a thread, if any should. */
static void *give_when_short(void *runtime) {
  WAIT_FOR(is_one_held_up() && (!runtime || stats_of(runtime).handoffs));
  intptr_t n = threads();
  for (int i = 0; i < BLOCKERS; i++) give_byte(&few.pipe);
  return (void *)n;
}

static int block_when_short(void *threads_before) {
  struct coir_fiber *fibers[BLOCKERS];
  pthread_t thread;
  void *n;
  pipe_open(&few.pipe);
  CHECK_EQ(pthread_create(&thread, NULL, give_when_short, coir_runtime_current()), 0);
  for (int i = 0; i < BLOCKERS; i++) fibers[i] = spawn(sit_in_read, &few);
  for (int i = 0; i < BLOCKERS; i++) CHECK_EQ(join(fibers[i]), 7);
  CHECK_EQ(pthread_join(thread, &n), 0);
  CHECK((intptr_t)n <= *(int *)threads_before + 5); /* the giver, the two of the monitor, a poller's, and the one */
  CHECK(handoffs() >= 1);
  CHECK(stats_of(coir_runtime_current()).spares <= 1);
  compute_until_taken(); /* there is one again */
  pipe_close(&few.pipe);
  return 0;
}

static void threads_have_a_limit(void) {
  int before = threads();
  struct coir_config config = {.workers = 1, .spares_max = 1, .on_stall = note_stall};
  CHECK_EQ(run_with(config, block_when_short, &before), 0);
}

static void *take_a_byte(void *pipe) {
  take_byte(pipe);
  return NULL;
}

/* Sees to it that no thread can be made. False: this user is above such limits. */
static bool refuse_threads(struct rlimit *old) {
  struct pipe_pair p;
  pthread_t thread;
  CHECK_EQ(getrlimit(RLIMIT_NPROC, old), 0);
  struct rlimit low = {.rlim_cur = 1, .rlim_max = old->rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_NPROC, &low), 0);
  pipe_open(&p);
  bool is_refused = pthread_create(&thread, NULL, take_a_byte, &p) != 0;
  give_byte(&p);
  if (!is_refused) pthread_join(thread, NULL);
  pipe_close(&p);
  return is_refused;
}

static bool is_tried;

/* The monitor may have taken something before for a call that blocks, such as the making of a thread: then one is there
 * already, and it is not tried. */
static int block_without_threads(void *unused) {
  struct rlimit limit;
  pthread_t giver;
  flag is_taken = 0;
  (void)unused;
  CHECK_EQ(coir_sleep(COIR_MS(20)), 0); /* the library's own threads are there */
  pipe_open(&few.pipe);
  CHECK_EQ(pthread_create(&giver, NULL, give_when_short, NULL), 0);
  is_tried = !refuse_threads(&limit);
  if (is_tried) {
    printf("skipped: this user may make threads beyond RLIMIT_NPROC\n");
    note_stall(&(struct coir_stall){.name = "", .is_handed_off = false}, NULL);
  } else if (stats_of(coir_runtime_current()).spares) {
    CHECK_EQ(setrlimit(RLIMIT_NPROC, &limit), 0);
    note_stall(&(struct coir_stall){.name = "", .is_handed_off = false}, NULL);
  } else {
    is_tried = true;
    go_beside(raise_flag, &is_taken);
    take_byte(&few.pipe);
    CHECK(!is_up(&is_taken));
    CHECK_EQ(handoffs(), 0);
    CHECK_EQ(setrlimit(RLIMIT_NPROC, &limit), 0);
    SPIN_UNTIL(is_up(&is_taken)); /* now there are some again */
    CHECK(handoffs() >= 1);
  }
  CHECK_EQ(pthread_join(giver, NULL), 0);
  pipe_close(&few.pipe);
  return 0;
}

static void threads_run_out(void) {
  if (geteuid() == 0) { /* for whom there is no limit */
    CHECK_EQ(setresuid(65534, 65534, 65534), 0);
    prctl(PR_SET_DUMPABLE, 1); /* for the leak sanitizer */
  }
  struct coir_config config = {.workers = 1, .on_stall = note_stall};
  for (int i = 0; i < 20 && !is_tried; i++) {
    forget_reports();
    CHECK_EQ(run_with(config, block_without_threads, NULL), 0);
  }
  CHECK(is_tried);
}

static int tid_of(void *unused) {
  (void)unused;
  return tid();
}

static int block_until_reported(void *unused) {
  static flag is_taken; /* it may be raised when this is over */
  struct report r;
  (void)unused;
  uint64_t before = handoffs();
  go_beside(raise_flag, &is_taken);
  SPIN_UNTIL(usleep(1000) == 0 && report_of(coir_fiber_id(NULL), &r));
  CHECK(!r.stall.is_handed_off);
  CHECK_EQ(r.stall.worker, workers() - 1);
  compute_for(COIR_MS(30));
  CHECK(!is_up(&is_taken));
  CHECK_EQ(handoffs(), before);
  return 0;
}

ON_FIBER_OF(pinned_fibers_keep_their_thread, .on_stall = note_stall) {
  struct coir_attr last = {.worker = COIR_WORKER(workers() - 1)}, pinned = last;
  pinned.pinned = true;
  int before = join(spawn_with(pinned, tid_of, NULL));
  CHECK_EQ(join(spawn_with(last, block_until_reported, NULL)), 0);
  CHECK_EQ(join(spawn_with(pinned, tid_of, NULL)), before);
}

#define MANY 1000
#define SPARES 24

static _Atomic(int) most_threads;

static int block_often(void *unused) {
  (void)unused;
  for (int i = 0; i < 5; i++) {
    usleep(2000);
    coir_yield();
  }
  return 1;
}

static int look_at_threads(void *is_over) {
  while (!is_up(is_over)) {
    int n = threads();
    if (n > atomic_load(&most_threads)) atomic_store(&most_threads, n);
    CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
  }
  return 0;
}

static int block_by_the_thousand(void *unused) {
  static struct coir_fiber *fibers[MANY];
  flag is_over = 0;
  int n = 0, count = rounds(MANY);
  (void)unused;
  struct coir_fiber *looker = spawn(look_at_threads, &is_over);
  for (int i = 0; i < count; i++) fibers[i] = spawn(block_often, NULL);
  for (int i = 0; i < count; i++) n += join(fibers[i]);
  atomic_store(&is_over, 1);
  CHECK_EQ(join(looker), 0);
  CHECK_EQ(n, count);
  CHECK(handoffs() >= 1);
  return 0;
}

static void a_thousand_block(void) {
  int threads_before = threads(), descriptors_before = fd_count();
  struct coir_config config = {.workers = 2, .spares_max = SPARES, .blocked_us = 200};
  CHECK_EQ(run_with(config, block_by_the_thousand, NULL), 0);
  CHECK(atomic_load(&most_threads) > threads_before + 1);
  CHECK(atomic_load(&most_threads) <= threads_before + SPARES + 5); /* a worker, the two of the monitor, pollers' */
  CHECK_EQ(fd_count(), descriptors_before);
  WAIT_FOR(threads() == threads_before);
}

/* ---- Runtimes that run, stop, and are more than one ------------------------------------------------------------ */

static int lose_worker_0(void *arg) {
  mark_set((int)(intptr_t)arg);
  block_until_taken();
  CHECK_EQ(mark_get(), (intptr_t)arg);
  coir_yield();
  compute_until_taken();
  return (int)(intptr_t)arg;
}

/* The thread that called coir_runtime_run loses worker 0, and returns all the same. */
static void a_run_ends(void) {
  struct coir_runtime *rt = make_runtime((struct coir_config){.busy_us = 1000});
  int here = tid(), before = threads();
  for (int i = 1; i <= rounds(50); i++) {
    int status = 0;
    CHECK_EQ(coir_runtime_run(rt, lose_worker_0, (void *)(intptr_t)i, &status), 0);
    CHECK_EQ(status, i);
    CHECK_EQ(tid(), here);
  }
  CHECK(stats_of(rt).handoffs >= (uint64_t)rounds(50) * 2);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  WAIT_FOR(threads() == before);
}

/* A hog that is away when its runtime stops, and ends soon after. */
struct stopped {
  struct coir_runtime *rt;
  flag is_in, may_go, came_back;
  bool waits;
  int rc;
};

static int hog_then_wait(void *arg) {
  struct stopped *s = arg;
  compute_until_taken();
  raise_flag(&s->is_in);
  SPIN_UNTIL(is_up(&s->may_go));
  if (s->waits) s->rc = coir_sleep(COIR_MS(1));
  raise_flag(&s->came_back);
  return 0;
}

static void *let_go_soon(void *arg) {
  usleep(20000);
  raise_flag(&((struct stopped *)arg)->may_go);
  return NULL;
}

static void stop_while_computing(enum coir_stop how, bool halts, bool waits, int comes_back, int rc) {
  struct stopped s = {.rt = make_runtime((struct coir_config){0}), .waits = waits, .rc = 1};
  pthread_t thread;
  CHECK_EQ(coir_runtime_start(s.rt), 0);
  CHECK_EQ(coir_runtime_spawn(s.rt, hog_then_wait, &s, NULL, NULL), 0);
  WAIT_FOR(is_up(&s.is_in));
  CHECK_EQ(pthread_create(&thread, NULL, let_go_soon, &s), 0);
  if (halts) CHECK_EQ(coir_runtime_halt(s.rt), 0);
  CHECK_EQ(coir_runtime_stop(s.rt, how, COIR_NEVER), 0);
  CHECK(is_up(&s.may_go));
  CHECK_EQ(atomic_load(&s.came_back), comes_back);
  CHECK_EQ(s.rc, rc);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK(stats_of(s.rt).handoffs >= 1);
  CHECK_EQ(coir_runtime_list(s.rt, NULL, 0), 0);
  CHECK_EQ(coir_runtime_destroy(s.rt), 0);
}

static void a_stop_waits(void) {
  int before = threads();
  for (int i = 0; i < 5; i++) {
    stop_while_computing(COIR_STOP_DRAIN, false, true, 1, 0);
    stop_while_computing(COIR_STOP_CANCEL, false, true, 1, -ECANCELED);
    stop_while_computing(COIR_STOP_ABANDON, false, true, 0, 1); /* it comes no further than to its wait */
    stop_while_computing(COIR_STOP_ABANDON, true, true, 0, 1);
    stop_while_computing(COIR_STOP_DRAIN, true, true, 0, 1);
    stop_while_computing(COIR_STOP_ABANDON, false, false, 1, 1); /* nor than to its end */
  }
  WAIT_FOR(threads() == before);
}

struct side {
  struct coir_event mine, *others;
};

static int meet_when_taken(void *arg) {
  struct side *s = arg;
  for (int i = 0; i < 10; i++) {
    (i % 2 ? block_until_taken : compute_until_taken)();
    coir_event_set(s->others);
    CHECK_EQ(coir_event_wait(&s->mine, coir_after(COIR_SEC(20))), 0);
  }
  return 0;
}

static void two_runtimes(void) {
  struct side sides[2] = {0};
  struct coir_runtime *rt[2];
  int before = threads();
  for (int round = 0; round < 3; round++) {
    sides[0].others = &sides[1].mine;
    sides[1].others = &sides[0].mine;
    for (int i = 0; i < 2; i++) {
      rt[i] = make_runtime((struct coir_config){.busy_us = 1000});
      CHECK_EQ(coir_runtime_start(rt[i]), 0);
      CHECK_EQ(coir_runtime_spawn(rt[i], meet_when_taken, &sides[i], NULL, NULL), 0);
    }
    for (int i = 0; i < 2; i++) {
      CHECK_EQ(coir_runtime_stop(rt[i], COIR_STOP_DRAIN, COIR_NEVER), 0);
      CHECK(stats_of(rt[i]).handoffs >= 1);
    }
    for (int i = 0; i < 2; i++) CHECK_EQ(coir_runtime_destroy(rt[i]), 0);
    WAIT_FOR(threads() == before);
  }
}

/* ---- Deadlocks ------------------------------------------------------------------------------------------------- */

static struct coir_chan *chan;
static _Atomic(int) deadlocks;

static bool end_deadlock(struct coir_runtime *rt, void *unused) {
  (void)rt, (void)unused;
  atomic_fetch_add(&deadlocks, 1);
  coir_chan_close(chan);
  return true;
}

static int wait_for_value(void *unused) {
  int v = 0, rc = coir_chan_recv(chan, &v, COIR_NEVER);
  (void)unused;
  return rc ? rc : v;
}

static int be_away_then_deadlock(void *unused) {
  (void)unused;
  struct coir_fiber *f = spawn(wait_for_value, NULL);
  compute_until_taken();
  compute_for(COIR_MS(50)); /* all others wait for this one meanwhile */
  usleep(50000);
  CHECK_EQ(atomic_load(&deadlocks), 0);
  CHECK_EQ(coir_chan_send(chan, &(int){3}, coir_after(COIR_SEC(20))), 0);
  CHECK_EQ(join(f), 3);
  CHECK_EQ(wait_for_value(NULL), -EPIPE); /* and now there is one */
  CHECK_EQ(atomic_load(&deadlocks), 1);
  return 0;
}

static void a_hog_is_no_deadlock(void) {
  chan = coir_chan_create(sizeof(int), 0);
  CHECK_EQ(run_with((struct coir_config){.on_deadlock = end_deadlock}, be_away_then_deadlock, NULL), 0);
  coir_chan_unref(chan);
}

/* ---- Processes and signals ------------------------------------------------------------------------------------- */

static void expect_child(pid_t pid, int code) {
  int status = -1;
  CHECK(pid > 0);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), code);
}

static int fork_when_taken(void *unused) {
  (void)unused;
  compute_until_taken();
  pid_t pid = fork();
  if (pid == 0) _exit(7);
  expect_child(pid, 7);
  pid = fork();
  if (pid == 0) {
    execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
    _exit(127);
  }
  expect_child(pid, 5);
  return 0;
}

ON_FIBER_OF(forks) {
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(join(spawn(fork_when_taken, NULL)), 0);
    compute_until_taken(); /* the monitor is still there */
    coir_yield();
  }
}

static int tick(void *arg) {
  while (!is_up(arg)) CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  return 0;
}

static pid_t stopper;

static int go_on_and_on(void *unused) {
  int status = -1;
  flag is_over = 0;
  (void)unused;
  struct coir_fiber *ticker = spawn(tick, &is_over);
  while (waitpid(stopper, &status, WNOHANG) == 0) {
    block_until_taken();
    coir_yield();
    compute_until_taken();
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  atomic_store(&is_over, 1);
  return join(ticker);
}

static void stops_and_continues(void) {
  pid_t parent = getpid();
  stopper = fork();
  CHECK(stopper >= 0);
  if (stopper == 0) {
    int failures = 0;
    for (int i = 0; i < 3 && getppid() == parent; i++) {
      usleep(30000);
      failures += kill(parent, SIGSTOP) != 0;
      usleep(200000);
      failures += kill(parent, SIGCONT) != 0;
    }
    _exit(failures);
  }
  CHECK_EQ(run(go_on_and_on, NULL), 0);
}

static int compute_for_all(void *arg) {
  struct group *g = arg;
  atomic_fetch_add(&g->in, 1);
  SPIN_UNTIL(atomic_load(&g->in) == BLOCKERS);
  return 0;
}

static int hogs_and_blockers(void *unused) {
  struct group g = {.in = 0};
  struct coir_fiber *fibers[BLOCKERS];
  (void)unused;
  for (int i = 0; i < BLOCKERS; i++) fibers[i] = spawn(compute_for_all, &g);
  block_until_taken();
  for (int i = 0; i < BLOCKERS; i++) CHECK_EQ(join(fibers[i]), 0);
  compute_until_taken();
  return 0;
}

static void one_cpu_will_do(void) {
  cpu_set_t mine, one;
  int cpu = 0;
  CHECK_EQ(sched_getaffinity(0, sizeof mine, &mine), 0);
  while (!CPU_ISSET(cpu, &mine)) cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  CHECK_EQ(run(hogs_and_blockers, NULL), 0);
}

/* ---- Rest ------------------------------------------------------------------------------------------------------ */

static int first_thread; /* not the runtime's */

/* How often the runtime's threads went to sleep so far. */
static long times_slept(void) {
  DIR *dir = opendir("/proc/self/task");
  long sum = 0;
  CHECK(dir);
  for (struct dirent *e; (e = readdir(dir));) {
    char path[300], line[128];
    int id = atoi(e->d_name);
    if (id == 0 || id == first_thread) continue;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", id);
    FILE *status = fopen(path, "r");
    if (!status) continue; /* it has ended */
    while (fgets(line, sizeof line, status))
      if (!strncmp(line, "voluntary_ctxt_switches:", 24)) sum += atol(line + 24);
    fclose(status);
  }
  closedir(dir);
  return sum;
}

static int be_stuck_often(void *times) {
  for (int i = 0; i < 3; i++) {
    block_until_taken();
    coir_yield();
    compute_until_taken();
    coir_yield();
  }
  atomic_fetch_add((flag *)times, 1);
  return 0;
}

#define IDLE 200

static int idle_away(void *arg) {
  struct group *g = arg;
  if (atomic_fetch_add(&g->in, 1) % 2) (void)coir_sleep(COIR_SEC(3600));
  else (void)coir_chan_recv(chan, NULL, COIR_NEVER);
  return 0;
}

/* When things have settled, which takes as long as the machine is busy with other programs, nobody wakes; but with
 * ThreadSanitizer, for its signals. */
static void rests_when_idle(void) {
  struct group g = {.in = 0};
  flag were_stuck = 0;
  first_thread = tid();
  chan = coir_chan_create(sizeof(int), 0);
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < IDLE; i++) CHECK_EQ(coir_runtime_spawn(rt, idle_away, &g, NULL, NULL), 0);
  for (int round = 0; round < 2; round++) {
    CHECK_EQ(coir_runtime_spawn(rt, be_stuck_often, &were_stuck, NULL, NULL), 0);
    WAIT_FOR(atomic_load(&g.in) == IDLE && atomic_load(&were_stuck) == round + 1);
    bool is_quiet = false;
    for (int i = 0; i < (IS_TSAN ? 1 : 15) && !is_quiet; i++) {
      long before = times_slept();
      usleep(1200000);
      is_quiet = times_slept() == before;
    }
    CHECK(is_quiet || IS_TSAN);
  }
  CHECK(stats_of(rt).handoffs >= 2);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_CANCEL, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  coir_chan_unref(chan);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(says_what_it_found),
      CASE(counters),
      CASE(is_off_when_asked),
      CASE(threads_come_and_go),
      CASE(threads_have_a_limit),
      CASE(threads_run_out),
      CASE(pinned_fibers_keep_their_thread),
      CASE(a_thousand_block),
      CASE(a_run_ends),
      CASE(a_stop_waits),
      CASE(two_runtimes),
      CASE(a_hog_is_no_deadlock),
      CASE(forks),
      CASE(stops_and_continues),
      CASE(one_cpu_will_do),
      CASE(rests_when_idle),
  };
  return RUN_CASES(argc, argv, cases);
}
