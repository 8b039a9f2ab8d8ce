/* Pollers: every number of them, with and without partitions and affinity, moves every byte; and where a fiber goes on
 * whose descriptor became ready. */
#include "gof_io_common.h"

/* ---- Traffic ----------------------------------------------------------------------------------------------------- */

enum { PAIRS = 64 };

#define STREAM_BYTES ((size_t)(IS_SANITIZED ? 20000 : 100000))

static _Atomic(uint64_t) sent, echoed, received;

static unsigned char stream_byte(unsigned seed, size_t i) { return (unsigned char)((i + seed) * 31 + (i >> 8)); }

struct client {
  int fds[2];
  unsigned seed;
  struct task writer, reader, server;
};

/* Writes pieces of all sizes, and says that it is done. */
static void task_talk(void *arg) {
  struct client *c = arg;
  unsigned char buf[6000];
  uint64_t rng = rng_seed(c->seed);
  for (size_t done = 0; done < STREAM_BYTES;) {
    size_t n = rng_next(&rng) % (rng_next(&rng) % 4 ? 200 : sizeof buf) + 1;
    if (n > STREAM_BYTES - done) n = STREAM_BYTES - done;
    for (size_t i = 0; i < n; i++) buf[i] = stream_byte(c->seed, done + i);
    CHECK_EQ(gof_write(c->fds[0], buf, n), n);
    done += n;
    atomic_fetch_add(&sent, n);
    if (rng_next(&rng) % 16 == 0) gof_yield();
    if (rng_next(&rng) % 64 == 0) gof_sleep_ms(1);
  }
  CHECK_EQ(shutdown(c->fds[0], SHUT_WR), 0);
}

static void task_echo(void *arg) {
  struct client *c = arg;
  char buf[1024];
  for (ssize_t n; (n = gof_read(c->fds[1], buf, sizeof buf)) != 0;) {
    CHECK_SOME(n);
    CHECK_EQ(gof_write(c->fds[1], buf, (size_t)n), n);
    atomic_fetch_add(&echoed, (uint64_t)n);
  }
  CHECK_EQ(shutdown(c->fds[1], SHUT_WR), 0);
}

static void task_listen(void *arg) {
  struct client *c = arg;
  unsigned char buf[2000];
  size_t sum = 0;
  for (ssize_t n; (n = gof_read(c->fds[0], buf, sizeof buf)) != 0; sum += (size_t)n) {
    CHECK_SOME(n);
    for (ssize_t i = 0; i < n; i++) CHECK(buf[i] == stream_byte(c->seed, sum + (size_t)i));
  }
  CHECK_EQ(sum, STREAM_BYTES);
  atomic_fetch_add(&received, sum);
}

/* Some of them on plain threads. */
static void traffic(void) {
  static struct client clients[PAIRS];
  int small = 8192;
  for (int i = 0; i < PAIRS; i++) {
    struct client *c = &clients[i];
    make_pair(SOCKETPAIR, c->fds);
    c->seed = (unsigned)i + 1;
    for (int k = 0; k < 2; k++) CHECK_EQ(setsockopt(c->fds[k], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    start(&c->server, i % 16 == 3 ? THREAD : FIBER, task_echo, c);
    start(&c->reader, i % 16 == 7 ? THREAD : FIBER, task_listen, c);
    start(&c->writer, i % 16 == 11 ? THREAD : FIBER, task_talk, c);
  }
  gof_run();
  for (int i = 0; i < PAIRS; i++) {
    struct client *c = &clients[i];
    finish(&c->writer);
    finish(&c->server);
    finish(&c->reader);
    close_pair(c->fds);
  }
  CHECK_EQ(sent, PAIRS * STREAM_BYTES);
  CHECK_EQ(echoed, sent);
  CHECK_EQ(received, sent);
}

/* One process for each combination, since the environment is read once. */
static int npollers, partition, affinity;

static void set_pollers(void) {
  set_env_number("GOF_NPOLLERS", npollers);
  set_env_number("GOF_POLL_PARTITION", partition);
  set_env_number("GOF_AFFINITY", affinity);
}

static void check_pollers(void) {
  gof_sched_stats stats;
  gof_get_stats(&stats);
  CHECK_EQ(gof_get_npollers(), npollers < stats.nworkers ? npollers : stats.nworkers);
  CHECK_EQ(gof_get_affinity_enabled(), affinity);
}

static void traffic_case(void) {
  set_pollers();
  traffic();
  check_pollers();
}

static void migration_case(void) {
  migrate();
  traffic_case();
}

static void in_child(void (*fn)(void)) {
  static char text[1 << 14];
  int status = in_child_process(fn, text, sizeof text);
  if (status) fprintf(stderr, "%sended with status 0x%x\n", text, status);
  if (status) fprintf(stderr, "npollers %d, partition %d, affinity %d\n", npollers, partition, affinity);
  CHECK_EQ(status, 0);
}

/* Runs a case in a process for each combination. */
static void combine(void (*fn)(void), int count) {
  npollers = count;
  for (partition = 0; partition < 2; partition++)
    for (affinity = 0; affinity < 2; affinity++) in_child(fn);
}

static void traffic_with_1_poller(void) { combine(traffic_case, 1); }
static void traffic_with_2_pollers(void) { combine(traffic_case, 2); }
static void traffic_with_3_pollers(void) { combine(traffic_case, 3); }
static void traffic_with_4_pollers(void) { combine(traffic_case, 4); }
static void traffic_under_migration(void) { combine(migration_case, 3); }

/* ---- Where fibers go on ------------------------------------------------------------------------------------------ */

enum { FIBERS_PER_WORKER = 3, WAKES = IS_SANITIZED ? 5 : 20, FIBERS_MAX = 64 * FIBERS_PER_WORKER };

/* A fiber that waits again and again, and notes from where to where each wait took it. */
struct sitter {
  int fds[2];
  int same_worker, same_partition;
  _Atomic(int) wakes;
};

struct sitting {
  struct sitter sitters[FIBERS_MAX];
  int count;
  _Atomic(int) ready;
};

static struct sitting sitting;

static int sit(void *arg) {
  struct sitter *s = arg;
  atomic_fetch_add(&sitting.ready, 1);
  for (int i = 0; i < WAKES; i++) {
    char c;
    int before = coir_worker_index();
    CHECK_EQ(gof_read(s->fds[0], &c, 1), 1);
    int after = coir_worker_index();
    s->same_worker += after == before;
    s->same_partition += after % gof_get_npollers() == before % gof_get_npollers();
    atomic_fetch_add(&s->wakes, 1);
  }
  return 0;
}

/* Wakes one at a time, in any order, and leaves time in between. */
static void *wake_them(void *arg) {
  uint64_t rng = rng_seed(3);
  (void)arg;
  SPIN_UNTIL(atomic_load(&sitting.ready) == sitting.count);
  usleep(20000);
  for (int left = sitting.count * WAKES; left > 0; left--) {
    int i = (int)(rng_next(&rng) % (uint64_t)sitting.count);
    while (sitting.sitters[i].wakes == WAKES) i = (i + 1) % sitting.count;
    int wakes = sitting.sitters[i].wakes;
    CHECK_EQ(write(sitting.sitters[i].fds[1], "x", 1), 1);
    while (sitting.sitters[i].wakes == wakes) usleep(20);
    usleep((useconds_t)(rng_next(&rng) % 400));
  }
  return NULL;
}

/* Starts some fibers on each worker, and returns how many of their wakes left them where they were, in percent. */
static void sit_on_all_workers(int *same_worker, int *same_partition) {
  pthread_t waker;
  gof_sched_stats stats;
  gof_get_stats(&stats);
  sitting.count = stats.nworkers * FIBERS_PER_WORKER;
  for (int i = 0; i < sitting.count; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % stats.nworkers)};
    make_pair(SOCKETPAIR, sitting.sitters[i].fds);
    CHECK_EQ(coir_runtime_spawn(gof_runtime(), sit, &sitting.sitters[i], &attr, NULL), 0);
  }
  CHECK_EQ(pthread_create(&waker, NULL, wake_them, NULL), 0);
  gof_run();
  CHECK_EQ(pthread_join(waker, NULL), 0);
  *same_worker = *same_partition = 0;
  for (int i = 0; i < sitting.count; i++) {
    *same_worker += sitting.sitters[i].same_worker;
    *same_partition += sitting.sitters[i].same_partition;
    close_pair(sitting.sitters[i].fds);
  }
  *same_worker = *same_worker * 100 / (sitting.count * WAKES);
  *same_partition = *same_partition * 100 / (sitting.count * WAKES);
}

/* Without stealing a fiber never leaves the partition of the poller that its worker belongs to. */
static void partition_case(void) {
  int same_worker, same_partition;
  set_pollers();
  set_env("GOF_WORKSTEAL", "0");
  sit_on_all_workers(&same_worker, &same_partition);
  CHECK_EQ(same_partition, 100);
  if (affinity) CHECK_EQ(same_worker, 100);
}

static void fibers_stay_in_their_partition(void) {
  partition = 1;
  for (npollers = 2; npollers <= 4; npollers++)
    for (affinity = 0; affinity < 2; affinity++) in_child(partition_case);
}

/* A descriptor belongs to the poller of the worker that waited for it first. Who waits for it elsewhere afterwards goes
 * on on a worker of that poller; unless the event comes before it has left its own. */
static int shared_fds[2], strays;

static int read_shared(void *arg) {
  char c;
  (void)arg;
  CHECK_EQ(gof_read(shared_fds[0], &c, 1), 1);
  strays += coir_worker_index() % gof_get_npollers() != 0;
  return 0;
}

static int is_waited_for(int fd) {
  struct coir_fiber_info info[8];
  size_t n = coir_runtime_list(gof_runtime(), info, 8);
  for (size_t i = 0; i < n && i < 8; i++)
    if (info[i].waits_for && !strcmp(info[i].waits_for, "read") && info[i].waits_on == (uint64_t)fd) return 1;
  return 0;
}

static void write_shared(void *arg) {
  (void)arg;
  WAIT_FOR(is_waited_for(shared_fds[0]));
  let_them_wait();
  CHECK_EQ(gof_write(shared_fds[1], "x", 1), 1);
}

static int visit_shared(void *arg) {
  int workers = *(int *)arg;
  for (int i = 0; i < 3 * workers; i++) {
    struct coir_attr attr = {.worker = COIR_WORKER(i % workers)};
    struct task writer;
    struct coir_fiber *f = spawn_with(attr, read_shared, NULL);
    start(&writer, THREAD, write_shared, NULL);
    CHECK_EQ(join(f), 0);
    finish(&writer);
  }
  return 0;
}

static void shared_case(void) {
  gof_sched_stats stats;
  set_pollers();
  set_env("GOF_WORKSTEAL", "0");
  gof_get_stats(&stats);
  make_pair(SOCKETPAIR, shared_fds);
  CHECK_EQ(coir_runtime_spawn(gof_runtime(), visit_shared, &stats.nworkers, NULL, NULL), 0);
  gof_run();
  CHECK(strays <= 1);
}

static void descriptors_stay_with_their_poller(void) {
  partition = 1;
  for (npollers = 2; npollers <= 4; npollers++)
    for (affinity = 0; affinity < 2; affinity++) in_child(shared_case);
}

/* With affinity it goes back to its worker, though others may steal it. */
static void affinity_case(void) {
  int same_worker, same_partition;
  set_pollers();
  sit_on_all_workers(&same_worker, &same_partition);
  if (same_worker <= 90) fprintf(stderr, "%d %% of wakes on the same worker\n", same_worker);
  CHECK(same_worker > 90);
}

static void fibers_go_back_to_their_worker(void) {
  affinity = 1;
  for (npollers = 1; npollers <= 4; npollers *= 2)
    for (partition = 0; partition < 2; partition++) in_child(affinity_case);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(traffic_with_1_poller),
      CASE(traffic_with_2_pollers),
      CASE(traffic_with_3_pollers),
      CASE(traffic_with_4_pollers),
      CASE(traffic_under_migration),
      CASE(fibers_stay_in_their_partition),
      CASE(descriptors_stay_with_their_poller),
      CASE(fibers_go_back_to_their_worker),
  };
  return RUN_CASES(argc, argv, cases);
}
