/* The hooks of coir_trace.h, on a core that was built with COIR_TRACE.
 *
 * The hooks of this program keep one record per fiber and one word per thread, and hold each call to what came before.
 * The records are plain memory: under ThreadSanitizer that two calls of one fiber are in order is checked, too. */
#include "harness.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "coir_io.h"
#include "coir_trace.h"

#define LONG coir_after(COIR_SEC(20))

/* ---- What the hooks see ---------------------------------------------------------------------------------------- */

enum stage { FRESH = 0, RUNS, AWAY, WAITS, WOKEN };

/* A fiber, by its number. */
struct life {
  enum stage stage;
  int fd, events;           /* of its last wait */
  uint64_t waits, resumes;  /* how many there were */
  bool is_told;             /* what its waits are for is known beforehand: */
  int told_fd, told_events; /* this */
  _Atomic(uint64_t) parked; /* waits, for others to see */
};

#define LIVES_MAX (1 << 20)
static struct life lives[LIVES_MAX];
static _Atomic(uint64_t) switches, waits, resumes;
static _Thread_local uint64_t running; /* the fiber that this thread is in; hooks run on its own stack */

static struct life *life_of(uint64_t id) {
  CHECK(id > 0 && id < LIVES_MAX);
  return &lives[id];
}

static void saw_switch(uint64_t from, uint64_t to, void *arg) {
  CHECK(arg == lives);
  CHECK((from == 0) != (to == 0));
  CHECK_EQ(from, running);
  struct life *l = life_of(from + to);
  if (to) {
    CHECK(l->stage == FRESH || l->stage == AWAY || l->stage == WOKEN);
    l->stage = RUNS;
    atomic_fetch_add(&switches, 1);
  } else {
    CHECK_EQ(l->stage, RUNS);
    l->stage = AWAY;
  }
  running = to;
}

static void saw_wait(uint64_t id, int fd, int events, void *arg) {
  struct life *l = life_of(id);
  CHECK(arg == lives);
  CHECK_EQ(running, 0);
  CHECK_EQ(l->stage, AWAY);
  CHECK_EQ(l->waits, l->resumes);
  CHECK((fd == -1) == (events == 0) && !(events & ~(COIR_READABLE | COIR_WRITABLE)));
  if (l->is_told) {
    CHECK_EQ(fd, l->told_fd);
    CHECK_EQ(events, l->told_events);
  }
  l->stage = WAITS;
  l->fd = fd;
  l->events = events;
  l->waits++;
  atomic_fetch_add(&waits, 1);
  atomic_store(&l->parked, l->waits);
}

static void saw_resume(uint64_t id, int fd, int events, void *arg) {
  struct life *l = life_of(id);
  CHECK(arg == lives);
  CHECK_EQ(running, 0);
  CHECK_EQ(l->stage, WAITS);
  CHECK_EQ(fd, l->fd);
  CHECK_EQ(events, l->events);
  l->stage = WOKEN;
  l->resumes++;
  CHECK_EQ(l->waits, l->resumes);
  atomic_fetch_add(&resumes, 1);
}

static void begin(void) {
  const struct coir_trace_hooks hooks = {saw_switch, saw_wait, saw_resume, lives};
  CHECK_EQ(coir_trace_set_hooks(&hooks), 0);
  atomic_store(&switches, 0);
  atomic_store(&waits, 0);
  atomic_store(&resumes, 0);
}

/* Nothing runs any more; every fiber has ended. */
static void end(void) {
  CHECK_EQ(running, 0);
  CHECK_EQ(waits, resumes);
  CHECK_EQ(coir_trace_set_hooks(NULL), 0);
}

/* The calling fiber's waits from now on are for this. */
static struct life *tell(int fd, int events) {
  struct life *l = life_of(coir_fiber_id(NULL));
  l->is_told = true;
  l->told_fd = fd;
  l->told_events = events;
  return l;
}

static void await_wait_of(const struct coir_fiber *f) {
  struct life *l = life_of(coir_fiber_id(f));
  WAIT_FOR(atomic_load(&l->parked) > 0);
}

/* ---- Much of everything ---------------------------------------------------------------------------------------- */

struct pair {
  struct coir_chan *to, *from;
  int fds[2];
};

static int sends(void *arg) {
  struct pair *p = arg;
  for (int i = 0; i < rounds(500); i++) {
    CHECK_EQ(coir_chan_send(p->to, &i, COIR_NEVER), 0);
    CHECK_EQ(coir_chan_recv(p->from, &i, COIR_NEVER), 0);
  }
  return 0;
}

static int answers(void *arg) {
  struct pair *p = arg;
  for (int i = 0; i < rounds(500); i++) {
    CHECK_EQ(coir_chan_recv(p->to, &i, COIR_NEVER), 0);
    CHECK_EQ(coir_chan_send(p->from, &i, COIR_NEVER), 0);
  }
  return 0;
}

static int writes(void *arg) {
  struct pair *p = arg;
  char c = 0;
  for (int i = 0; i < rounds(300); i++) {
    CHECK_EQ(coir_write(p->fds[0], &c, 1, COIR_NEVER), 1);
    CHECK_EQ(coir_read(p->fds[0], &c, 1, COIR_NEVER), 1);
  }
  return 0;
}

static int echoes(void *arg) {
  struct pair *p = arg;
  char c;
  for (int i = 0; i < rounds(300); i++) {
    CHECK_EQ(coir_read(p->fds[1], &c, 1, COIR_NEVER), 1);
    CHECK_EQ(coir_write(p->fds[1], &c, 1, COIR_NEVER), 1);
  }
  return 0;
}

static int yields(void *unused) {
  (void)unused;
  for (int i = 0; i < rounds(1000); i++) coir_yield();
  return 0;
}

static int sleeps(void *unused) {
  (void)unused;
  for (int i = 0; i < 20; i++) CHECK_EQ(coir_sleep(COIR_US(50)), 0);
  return 0;
}

static int locks(void *mutex) {
  for (int i = 0; i < rounds(300); i++) {
    CHECK_EQ(coir_mutex_lock(mutex, COIR_NEVER), 0);
    if (i % 4 == 0) coir_yield();
    coir_mutex_unlock(mutex);
  }
  return 0;
}

static int ends(void *unused) {
  (void)unused;
  return 0;
}

static int forks(void *depth) {
  intptr_t n = (intptr_t)depth;
  for (int i = 0; i < 8; i++) CHECK_EQ(coir_go(ends, NULL), 0);
  if (n == 0) return 0;
  struct coir_fiber *a = spawn(forks, (void *)(n - 1)), *b = spawn(forks, (void *)(n - 1));
  return join(a) + join(b);
}

static int counts_up(void *unused) {
  (void)unused;
  for (int i = 0; i < 50; i++) CHECK_EQ(coir_gen_yield(NULL, NULL), 0);
  return 0;
}

static int resumes_gen(void *unused) {
  (void)unused;
  struct coir_gen *gen = NULL;
  CHECK_EQ(coir_gen_create(&gen, counts_up, NULL, NULL), 0);
  while (coir_gen_resume(gen, NULL, NULL) == 0) {}
  return coir_gen_destroy(gen);
}

#define PAIRS 4

static int everything(void *unused) {
  (void)unused;
  static const struct coir_attr attrs[] = {
      {0}, {.priority = COIR_PRIORITY_HIGH}, {.priority = COIR_PRIORITY_LOW}, {.pinned = true}};
  struct pair pairs[PAIRS];
  struct coir_mutex mutex = {{0}};
  struct coir_fiber *all[PAIRS * 10];
  int n = 0;
  for (int i = 0; i < PAIRS; i++) {
    struct pair *p = &pairs[i];
    p->to = coir_chan_create(sizeof(int), (size_t)(i % 2));
    p->from = coir_chan_create(sizeof(int), 0);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->fds), 0);
    for (int k = 0; k < 2 && i % 2; k++) CHECK_EQ(coir_adopt(p->fds[k]), 0);
    all[n++] = spawn(sends, p);
    all[n++] = spawn(answers, p);
    all[n++] = spawn(writes, p);
    all[n++] = spawn(echoes, p);
    all[n++] = spawn_with(attrs[i], yields, NULL);
    all[n++] = spawn_with(attrs[i], sleeps, NULL);
    all[n++] = spawn(locks, &mutex);
    all[n++] = spawn(locks, &mutex);
    all[n++] = spawn(forks, (void *)(intptr_t)(IS_SANITIZED ? 3 : 5));
    all[n++] = spawn(resumes_gen, NULL);
  }
  for (int i = 0; i < n; i++) CHECK_EQ(join(all[i]), 0);
  for (int i = 0; i < PAIRS; i++) {
    coir_chan_unref(pairs[i].to);
    coir_chan_unref(pairs[i].from);
    for (int k = 0; k < 2; k++) CHECK_EQ(coir_close(pairs[i].fds[k]), 0);
  }
  return 0;
}

/* Runs fn once, and adds what the runtime has counted. */
static void run_counted(struct coir_config config, coir_fn fn, struct coir_stats *sum) {
  config.monitor = COIR_OFF; /* what is told of one worker comes from one thread */
  struct coir_runtime *rt = make_runtime(config);
  struct coir_stats stats;
  int status = -1;
  CHECK_EQ(coir_runtime_run(rt, fn, NULL, &status), 0);
  CHECK_EQ(status, 0);
  coir_runtime_get_stats(rt, &stats);
  sum->switches += stats.switches;
  sum->parks += stats.parks;
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void check_everything(struct coir_config config) {
  struct coir_stats sum = {0};
  begin();
  run_counted(config, everything, &sum);
  CHECK(waits > 1000 / (IS_SANITIZED ? 10 : 1));
  CHECK_EQ(waits, sum.parks);
  CHECK_EQ(switches, sum.switches);
  end();
}

static void every_fiber_and_every_thread_is_told_of_in_order(void **state) {
  (void)state;
  check_everything((struct coir_config){0});
}

static void also_when_fibers_go_to_another_worker_each_time(void **state) {
  (void)state;
  check_everything((struct coir_config){.migrate = 1});
}

static void also_with_pollers_of_their_own(void **state) {
  (void)state;
  check_everything((struct coir_config){.pollers = 1});
}

static void *runs_everything(void *arg) {
  run_counted((struct coir_config){0}, everything, arg);
  return NULL;
}

static void two_runtimes_call_the_same_hooks(void **state) {
  (void)state;
  struct coir_stats a = {0}, b = {0};
  pthread_t other;
  begin();
  CHECK_EQ(pthread_create(&other, NULL, runs_everything, &a), 0);
  runs_everything(&b);
  CHECK_EQ(pthread_join(other, NULL), 0);
  CHECK_EQ(waits, a.parks + b.parks);
  CHECK_EQ(switches, a.switches + b.switches);
  end();
}

/* ---- What a fiber waits for ------------------------------------------------------------------------------------ */

/* Something to wait for: how, and what brings it about. The first of a pair of descriptors is waited for. */
struct kind {
  coir_fn waits;
  void (*make)(int fds[2]);
  void (*bring)(int fds[2]);
  int events; /* 0: it is no wait for a descriptor */
};

static void make_pair(int fds[2]) { CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0); }

static void make_reader(int fds[2]) { CHECK_EQ(pipe2(fds, O_CLOEXEC), 0); }

static void fill(int fd) {
  static const char zeros[4096];
  int flags = fcntl(fd, F_GETFL);
  CHECK_EQ(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
  while (write(fd, zeros, sizeof zeros) > 0) {}
  while (write(fd, zeros, 1) > 0) {}
  CHECK_EQ(fcntl(fd, F_SETFL, flags), 0);
}

static void make_full_pair(int fds[2]) {
  make_pair(fds);
  fill(fds[0]);
}

static void make_writer(int fds[2]) {
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  fds[0] = ends[1];
  fds[1] = ends[0];
  fill(fds[0]);
}

static struct sockaddr_in address;

static int make_listener(int backlog) {
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  socklen_t bytes = sizeof address;
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  CHECK(fd >= 0);
  CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
  CHECK_EQ(listen(fd, backlog), 0);
  CHECK_EQ(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
  return fd;
}

static void make_service(int fds[2]) {
  fds[0] = make_listener(1);
  fds[1] = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK(fds[1] >= 0);
}

static void bring_client(int fds[2]) {
  CHECK_EQ(coir_connect(fds[1], (struct sockaddr *)&address, sizeof address, LONG), 0);
}

static void bring_byte(int fds[2]) { CHECK_EQ(coir_write(fds[1], "x", 1, LONG), 1); }

static void drain(int fds[2]) {
  char buf[4096];
  while (coir_read(fds[1], buf, sizeof buf, 0) > 0) {}
}

static int reads_fd(void *arg) {
  char c;
  return coir_read(*(int *)arg, &c, 1, LONG) == 1 ? 0 : -1;
}

static int writes_fd(void *arg) { return coir_write(*(int *)arg, "x", 1, LONG) == 1 ? 0 : -1; }

static int accepts(void *arg) {
  int fd = coir_accept(*(int *)arg, NULL, NULL, LONG);
  return fd < 0 ? fd : coir_close(fd);
}

static int polls_readable(void *arg) { return coir_poll(*(int *)arg, COIR_READABLE, LONG) > 0 ? 0 : -1; }

static int polls_writable(void *arg) { return coir_poll(*(int *)arg, COIR_WRITABLE, LONG) > 0 ? 0 : -1; }

static int polls_both(void *arg) {
  return coir_poll(*(int *)arg, COIR_READABLE | COIR_WRITABLE, LONG) == COIR_WRITABLE ? 0 : -1;
}

static int selects_fd(void *arg) {
  struct coir_arm arm = coir_arm_fd(*(int *)arg, COIR_READABLE);
  return coir_select(&arm, 1, LONG);
}

/* Runs on a fiber that is told of. */
struct told {
  const struct kind *kind;
  int *fds;
};

static int told(void *arg) {
  const struct told *t = arg;
  int events = t->kind->events;
  tell(events ? t->fds[0] : -1, events);
  return t->kind->waits(t->fds);
}

static const struct kind kinds[] = {
    {reads_fd, make_reader, bring_byte, COIR_READABLE},
    {reads_fd, make_pair, bring_byte, COIR_READABLE},
    {writes_fd, make_writer, drain, COIR_WRITABLE},
    {writes_fd, make_full_pair, drain, COIR_WRITABLE},
    {accepts, make_service, bring_client, COIR_READABLE},
    {polls_readable, make_reader, bring_byte, COIR_READABLE},
    {polls_readable, make_pair, bring_byte, COIR_READABLE},
    {polls_writable, make_writer, drain, COIR_WRITABLE},
    {polls_both, make_full_pair, drain, COIR_READABLE | COIR_WRITABLE},
    {selects_fd, make_reader, bring_byte, 0},
};

static int descriptors(void *unused) {
  (void)unused;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    for (int adopted = 0; adopted < 2; adopted++) {
      int fds[2];
      kinds[i].make(fds);
      for (int k = 0; k < 2 && adopted; k++) CHECK_EQ(coir_adopt(fds[k]), 0);
      struct told t = {&kinds[i], fds};
      struct coir_fiber *f = spawn(told, &t);
      await_wait_of(f);
      kinds[i].bring(fds);
      CHECK_EQ(join(f), 0);
      for (int k = 0; k < 2; k++) CHECK_EQ(coir_close(fds[k]), 0);
    }
  }
  return 0;
}

static void waits_for_descriptors_are_named(void **state) {
  (void)state;
  begin();
  CHECK_EQ(run(descriptors, NULL), 0);
  end();
}

/* To a listener whose backlog becomes full; the calling fiber's only waits. */
static int connects(void *unused) {
  enum { MAX = 16 };
  int fds[MAX], listener = make_listener(0), n = 0;
  bool has_waited = false;
  (void)unused;
  while (n < MAX && !has_waited) {
    CHECK((fds[n] = coir_socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    struct life *l = tell(fds[n], COIR_WRITABLE);
    uint64_t before = l->waits;
    int rc = coir_connect(fds[n++], (struct sockaddr *)&address, sizeof address, coir_after(COIR_MS(20)));
    CHECK(rc == 0 || rc == -ETIMEDOUT);
    has_waited = rc == -ETIMEDOUT && l->waits > before; /* or it took longer to get there */
  }
  CHECK(has_waited);
  while (n > 0) CHECK_EQ(coir_close(fds[--n]), 0);
  return coir_close(listener);
}

static void connecting_waits_until_it_can_write(void **state) {
  (void)state;
  begin();
  CHECK_EQ(run(connects, NULL), 0);
  end();
}

/* Each waits for no descriptor; unless what it waits for has come, because it took long to get there. */
static int sleeps_once(void *unused) {
  (void)unused;
  return coir_sleep(COIR_MS(1));
}

static int receives_late(void *unused) {
  (void)unused;
  struct coir_chan *c = coir_chan_create(1, 0);
  int rc = coir_chan_recv(c, NULL, coir_after(COIR_MS(1)));
  coir_chan_unref(c);
  return rc == -ETIMEDOUT ? 0 : -1;
}

static int sends_late(void *unused) {
  (void)unused;
  struct coir_chan *c = coir_chan_create(1, 0);
  int rc = coir_chan_send(c, "x", coir_after(COIR_MS(1)));
  coir_chan_unref(c);
  return rc == -ETIMEDOUT ? 0 : -1;
}

static int joins(void *unused) {
  (void)unused;
  return join(spawn(sleeps_once, NULL));
}

static int waits_for_event(void *unused) {
  (void)unused;
  struct coir_event event = {{0}};
  return coir_event_wait(&event, coir_after(COIR_MS(1))) == -ETIMEDOUT ? 0 : -1;
}

static int reads_file(void *unused) {
  (void)unused;
  char c;
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(coir_read(fd, &c, 1, COIR_NEVER), 1); /* on the pool of threads */
  return coir_close(fd);
}

static int for_nothing(void *fn) {
  struct life *l = tell(-1, 0);
  int rc = 0;
  for (int i = 0; i < 100 && !rc && !l->waits; i++) rc = (*(coir_fn *)fn)(NULL);
  CHECK(l->waits > 0);
  return rc;
}

static int others(void *unused) {
  static coir_fn fns[] = {sleeps_once, receives_late, sends_late, joins, waits_for_event, reads_file, resumes_gen};
  (void)unused;
  for (size_t i = 0; i < sizeof fns / sizeof *fns; i++) CHECK_EQ(join(spawn(for_nothing, &fns[i])), 0);
  return 0;
}

static void other_waits_name_no_descriptor(void **state) {
  (void)state;
  begin();
  CHECK_EQ(run(others, NULL), 0);
  end();
}

/* ---- Ends ------------------------------------------------------------------------------------------------------ */

#define DROPPED 20

static _Atomic(int) is_over, ready;

static int waits_for_ever(void *event) {
  CHECK_EQ(coir_sleep(COIR_US(50)), 0);
  atomic_fetch_add(&ready, 1);
  (void)coir_event_wait(event, COIR_NEVER);
  CHECK(false);
  return 0;
}

static void who_is_dropped_does_not_resume(void **state) {
  (void)state;
  static struct coir_event event;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  struct coir_fiber *fibers[DROPPED];
  atomic_store(&ready, 0);
  begin();
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < DROPPED; i++) CHECK_EQ(coir_runtime_spawn(rt, waits_for_ever, &event, NULL, &fibers[i]), 0);
  WAIT_FOR(atomic_load(&ready) == DROPPED && waits == resumes + DROPPED);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, COIR_NEVER), 0);
  CHECK_EQ(waits, resumes + DROPPED);
  for (int i = 0; i < DROPPED; i++) {
    struct coir_result result;
    CHECK_EQ(life_of(coir_fiber_id(fibers[i]))->stage, WAITS);
    CHECK_EQ(coir_join(fibers[i], &result, 0), 0);
    CHECK_EQ(result.status, -ECANCELED);
  }
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  CHECK_EQ(coir_trace_set_hooks(NULL), 0);
}

/* ---- The pace -------------------------------------------------------------------------------------------------- */

static int plays(void *arg) {
  struct pair *p = arg;
  for (int i = 0; !atomic_load(&is_over); i++) {
    CHECK_EQ(coir_chan_send(p->to, &i, COIR_NEVER), 0);
    CHECK_EQ(coir_chan_recv(p->from, &i, COIR_NEVER), 0);
  }
  coir_chan_close(p->to);
  return 0;
}

static int plays_back(void *arg) {
  struct pair *p = arg;
  int i;
  while (coir_chan_recv(p->to, &i, COIR_NEVER) == 0) CHECK_EQ(coir_chan_send(p->from, &i, COIR_NEVER), 0);
  return 0;
}

static int yields_on(void *unused) {
  (void)unused;
  while (!atomic_load(&is_over)) coir_yield();
  return 0;
}

static int is_ready(void *unused) {
  (void)unused;
  atomic_fetch_add(&ready, 1);
  return 0;
}

/* While two fibers wake each other for ever, and two yield, everybody else has his turn. */
static int crowd(void *unused) {
  (void)unused;
  static const struct coir_attr low = {.priority = COIR_PRIORITY_LOW}, high = {.priority = COIR_PRIORITY_HIGH};
  struct pair p = {.to = coir_chan_create(sizeof(int), 0), .from = coir_chan_create(sizeof(int), 0)};
  struct coir_fiber *busy[] = {spawn(plays, &p), spawn(plays_back, &p), spawn(yields_on, NULL), spawn(yields_on, NULL)};
  char c;
  make_pair(p.fds);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    struct coir_fiber *f[] = {spawn_with(low, is_ready, NULL), spawn_with(high, is_ready, NULL), spawn(is_ready, NULL),
                              spawn(reads_fd, &p.fds[0])};
    CHECK_EQ(coir_write(p.fds[1], "x", 1, COIR_NEVER), 1);
    for (int k = 0; k < 4; k++) CHECK_EQ(join(f[k]), 0);
  }
  CHECK_EQ(coir_read(p.fds[0], &c, 1, 0), -ETIMEDOUT);
  atomic_store(&is_over, 1);
  for (int k = 0; k < 4; k++) CHECK_EQ(join(busy[k]), 0);
  CHECK_EQ(atomic_load(&ready), 15);
  for (int k = 0; k < 2; k++) CHECK_EQ(coir_close(p.fds[k]), 0);
  coir_chan_unref(p.to);
  coir_chan_unref(p.from);
  return 0;
}

static void nobody_starves(void **state) {
  (void)state;
  struct coir_stats sum = {0};
  atomic_store(&is_over, 0);
  atomic_store(&ready, 0);
  begin();
  run_counted((struct coir_config){0}, crowd, &sum);
  CHECK_EQ(switches, sum.switches);
  end();
}

/* ---- Setting them ---------------------------------------------------------------------------------------------- */

static int is_busy(void *unused) {
  const struct coir_trace_hooks none = {0};
  (void)unused;
  CHECK_EQ(coir_trace_set_hooks(&none), -EBUSY);
  CHECK_EQ(coir_trace_set_hooks(NULL), -EBUSY);
  return for_nothing(&(coir_fn){sleeps_once});
}

static void not_while_a_runtime_runs(void **state) {
  (void)state;
  struct coir_runtime *rt = make_runtime((struct coir_config){0});
  begin();
  CHECK_EQ(run(is_busy, NULL), 0);
  CHECK(waits > 0); /* they are as they were */
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_trace_set_hooks(NULL), -EBUSY);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  end();
  CHECK_EQ(coir_runtime_destroy(rt), 0);
}

static void none_is_called_once_they_are_gone(void **state) {
  (void)state;
  begin();
  CHECK_EQ(coir_trace_set_hooks(NULL), 0);
  CHECK_EQ(run(forks, (void *)3), 0);
  CHECK_EQ(switches + waits + resumes, 0);
}

static void counts_wait(uint64_t id, int fd, int events, void *arg) {
  CHECK(id > 0 && fd == -1 && events == 0);
  atomic_fetch_add((_Atomic(uint64_t) *)arg, 1);
}

static void each_may_be_missing(void **state) {
  (void)state;
  _Atomic(uint64_t) n = 0;
  struct coir_trace_hooks hooks = {.on_wait = counts_wait, .arg = &n};
  struct coir_stats sum = {0};
  CHECK_EQ(coir_trace_set_hooks(&hooks), 0);
  memset(&hooks, 0, sizeof hooks); /* it was copied */
  run_counted((struct coir_config){0}, joins, &sum);
  CHECK_EQ(n, sum.parks);
  hooks = (struct coir_trace_hooks){.on_resume = counts_wait, .arg = &n};
  CHECK_EQ(coir_trace_set_hooks(&hooks), 0);
  run_counted((struct coir_config){0}, joins, &sum);
  CHECK_EQ(n, sum.parks);
  CHECK_EQ(coir_trace_set_hooks(NULL), 0);
}

static void waits_of_plain_threads_are_not_told(void **state) {
  (void)state;
  begin();
  CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
  CHECK_EQ(receives_late(NULL), 0);
  CHECK_EQ(switches + waits + resumes, 0);
  end();
}

int main(int argc, char **argv) {
#ifdef COIR_HARD /* where workers change their threads all the time, which are what the hooks here are told by */
  setenv("COIR_MONITOR", "0", 0);
#endif
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_fiber_and_every_thread_is_told_of_in_order),
      cmocka_unit_test(also_when_fibers_go_to_another_worker_each_time),
      cmocka_unit_test(also_with_pollers_of_their_own),
      cmocka_unit_test(two_runtimes_call_the_same_hooks),
      cmocka_unit_test(waits_for_descriptors_are_named),
      cmocka_unit_test(connecting_waits_until_it_can_write),
      cmocka_unit_test(other_waits_name_no_descriptor),
      cmocka_unit_test(who_is_dropped_does_not_resume),
      cmocka_unit_test(nobody_starves),
      cmocka_unit_test(not_while_a_runtime_runs),
      cmocka_unit_test(none_is_called_once_they_are_gone),
      cmocka_unit_test(each_may_be_missing),
      cmocka_unit_test(waits_of_plain_threads_are_not_told),
  };
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
