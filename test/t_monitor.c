/* Fibers that block their thread or compute hold nobody up: what "Calls that block" in coir.h says about the monitor,
 * for those beside them. What the stuck fiber itself is meanwhile: t_monitor_fiber.c. Reports, limits, stops, processes
 * and signals: t_monitor_edge.c. */
#include "stuck.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "coir_io.h"

/* ---- Ways to be stuck ------------------------------------------------------------------------------------------ */

static int set_after_wait(void *f) {
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0); /* a timer of the worker that the hog holds up */
  return raise_flag(f);
}

ON_FIBER_OF(an_endless_loop) {
  flag is_over = 0;
  go_beside(set_after_wait, &is_over);
  while (!atomic_load_explicit(&is_over, memory_order_acquire)) continue;
}

struct crowd {
  _Atomic(int) in;
  int size;
};

/* Returns when all are there, so each of them needs a thread. */
static int compute_for_all(void *arg) {
  struct crowd *c = arg;
  atomic_fetch_add(&c->in, 1);
  SPIN_UNTIL(atomic_load(&c->in) == c->size);
  return 0;
}

ON_FIBER_OF(hogs_in_a_row, .busy_us = 1000) {
  struct crowd c = {.size = workers() + 5};
  struct coir_fiber *hogs[64 + 5];
  for (int i = 0; i < c.size; i++) hogs[i] = spawn(compute_for_all, &c);
  for (int i = 0; i < c.size; i++) CHECK_EQ(join(hogs[i]), 0);
  CHECK(handoffs() >= 5);
}

static int give_later(void *p) {
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0);
  return give_a_byte(p);
}

ON_FIBER_OF(a_read_from_a_pipe) {
  for (int i = 0; i < 20; i++) {
    struct pipe_pair p;
    pipe_open(&p);
    struct coir_fiber *f = beside(give_later, &p);
    take_byte(&p);
    CHECK_EQ(join(f), 0);
    pipe_close(&p);
  }
  CHECK(handoffs() >= 20);
}

ON_FIBER_OF(usleep_in_a_loop) {
  flag is_over = 0;
  go_beside(set_after_wait, &is_over);
  SPIN_UNTIL(usleep(300) == 0 && is_up(&is_over));
}

static int unlock_file(void *arg) {
  CHECK_EQ(coir_sleep(COIR_MS(5)), 0);
  CHECK_EQ(flock(*(int *)arg, LOCK_UN), 0);
  return 0;
}

static int lock_and_unlock(void *path) {
  int held = open(path, O_RDWR), wanted = open(path, O_RDWR);
  CHECK(held >= 0 && wanted >= 0);
  CHECK_EQ(flock(held, LOCK_EX), 0);
  struct coir_fiber *unlocker = beside(unlock_file, &held);
  CHECK_EQ(flock(wanted, LOCK_EX), 0);
  CHECK_EQ(join(unlocker), 0);
  close(wanted);
  close(held);
  return 0;
}

static void a_lock_of_a_file(void) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/t_monitor.%d", (int)getpid());
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(run(lock_and_unlock, path), 0);
  unlink(path);
  close(fd);
}

struct thread_lock {
  pthread_mutex_t mutex;
  flag is_held, may_go;
};

static void *hold_lock(void *arg) {
  struct thread_lock *l = arg;
  pthread_mutex_lock(&l->mutex);
  atomic_store(&l->is_held, 1);
  WAIT_FOR(is_up(&l->may_go));
  pthread_mutex_unlock(&l->mutex);
  return NULL;
}

ON_FIBER_OF(a_lock_of_threads) {
  struct thread_lock l = {.mutex = PTHREAD_MUTEX_INITIALIZER};
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, hold_lock, &l), 0);
  WAIT_FOR(is_up(&l.is_held));
  go_beside(set_after_wait, &l.may_go);
  CHECK_EQ(pthread_mutex_lock(&l.mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&l.mutex), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* Whoever is told of a stall may wake others. */
static int wait_for_event(void *event) { return coir_event_wait(event, COIR_NEVER); }

static void end_stall(const struct coir_stall *stall, void *event) {
  CHECK(coir_current() == NULL);
  CHECK(stats_of(stall->runtime).stalls >= 1);
  coir_event_set(event);
}

static struct coir_event stall_seen;

ON_FIBER_OF(a_report_wakes_others, .on_stall = end_stall, .on_stall_arg = &stall_seen) {
  struct coir_fiber *f = beside(wait_for_event, &stall_seen);
  block_until_taken();
  SPIN_UNTIL(coir_event_is_set(&stall_seen));
  CHECK_EQ(join(f), 0);
}

/* ---- A page that is slow to come ------------------------------------------------------------------------------- */

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1 /* since Linux 5.11 */
#endif

struct slow_page {
  int fd;
  char *memory;
  size_t bytes;
};

static bool slow_page_open(struct slow_page *p) {
  p->bytes = (size_t)sysconf(_SC_PAGESIZE);
  p->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (p->fd < 0) p->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK); /* before that */
  struct uffdio_api api = {.api = UFFD_API};
  if (p->fd < 0 || ioctl(p->fd, UFFDIO_API, &api)) return false;
  p->memory = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(p->memory != MAP_FAILED);
  struct uffdio_register range = {.range = {(uintptr_t)p->memory, p->bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  CHECK_EQ(ioctl(p->fd, UFFDIO_REGISTER, &range), 0);
  return true;
}

static int bring_page(void *arg) {
  struct slow_page *p = arg;
  struct uffd_msg message = {0};
  char *page = malloc(p->bytes);
  CHECK(page);
  WAIT_FOR(read(p->fd, &message, sizeof message) == sizeof message);
  CHECK_EQ(message.event, UFFD_EVENT_PAGEFAULT);
  CHECK_EQ(coir_sleep(COIR_MS(2)), 0);
  memset(page, 'p', p->bytes);
  struct uffdio_copy copy = {.dst = (uintptr_t)p->memory, .src = (uintptr_t)page, .len = p->bytes};
  CHECK_EQ(ioctl(p->fd, UFFDIO_COPY, &copy), 0);
  free(page);
  return 0;
}

ON_FIBER_OF(a_page_that_is_slow) {
  struct slow_page p;
  if (!slow_page_open(&p)) {
    printf("skipped: no userfaultfd here: %s\n", strerror(errno));
    return;
  }
  struct coir_fiber *f = beside(bring_page, &p);
  CHECK_EQ(*(volatile char *)p.memory, 'p');
  CHECK_EQ(join(f), 0);
  munmap(p.memory, p.bytes);
  close(p.fd);
}

/* ---- How long the others wait ---------------------------------------------------------------------------------- */

#define PAIRS 4
#define SAMPLES_MAX 4096
#define NAP COIR_MS(300)

struct echo {
  struct coir_chan *there[PAIRS], *back[PAIRS];
  _Atomic(int) pairs, asking;   /* fibers that have begun to answer, and to ask */
  _Atomic(int) sleepers, awake; /* fibers that have begun to sleep in the kernel, and that have done so */
  _Atomic(int) samples;
  int workers;
  int64_t late[SAMPLES_MAX];
};

static int answer(void *arg) {
  struct echo *e = arg;
  int i = atomic_fetch_add(&e->pairs, 1), v;
  while (coir_chan_recv(e->there[i], &v, COIR_NEVER) == 0) CHECK_EQ(coir_chan_send(e->back[i], &v, COIR_NEVER), 0);
  return 0;
}

/* A round is a wait for a timer and one for an answer. It counts if somebody slept meanwhile. */
static int ask(void *arg) {
  struct echo *e = arg;
  int i = atomic_fetch_add(&e->asking, 1);
  while (atomic_load(&e->awake) < e->workers) {
    int64_t began = coir_now();
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    CHECK_EQ(coir_chan_send(e->there[i], &i, COIR_NEVER), 0);
    CHECK_EQ(coir_chan_recv(e->back[i], &i, COIR_NEVER), 0);
    if (atomic_load(&e->sleepers) == 0) continue;
    int n = atomic_fetch_add(&e->samples, 1);
    if (n < SAMPLES_MAX) e->late[n] = coir_now() - began - COIR_MS(1);
  }
  coir_chan_close(e->there[i]);
  return 0;
}

static int sleep_in_kernel(void *arg) {
  struct echo *e = arg;
  struct timespec nap = {.tv_nsec = NAP};
  atomic_fetch_add(&e->sleepers, 1);
  nanosleep(&nap, NULL);
  atomic_fetch_add(&e->awake, 1);
  return 0;
}

static int sleep_as_fiber(void *arg) {
  struct echo *e = arg;
  atomic_fetch_add(&e->sleepers, 1);
  CHECK_EQ(coir_sleep(NAP), 0);
  atomic_fetch_add(&e->awake, 1);
  return 0;
}

static int order_of_times(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* How late 99 of 100 rounds are at most, while a fiber of each worker sleeps. */
static int64_t late_while_others(coir_fn sleep) {
  struct echo *e = calloc(1, sizeof *e);
  struct coir_fiber *fibers[2 * PAIRS + 64];
  int n = 0;
  CHECK(e);
  e->workers = workers();
  for (int i = 0; i < PAIRS; i++) {
    e->there[i] = coir_chan_create(sizeof(int), 0);
    e->back[i] = coir_chan_create(sizeof(int), 0);
    fibers[n++] = spawn(answer, e);
  }
  for (int i = 0; i < PAIRS; i++) fibers[n++] = spawn(ask, e);
  WAIT_FOR(atomic_load(&e->pairs) == PAIRS && atomic_load(&e->asking) == PAIRS);
  for (int i = 0; i < e->workers; i++) fibers[n++] = spawn_with((struct coir_attr){.worker = COIR_WORKER(i)}, sleep, e);
  while (n > 0) CHECK_EQ(join(fibers[--n]), 0);
  size_t samples = (size_t)atomic_load(&e->samples);
  CHECK(samples > 0 && samples <= SAMPLES_MAX);
  qsort(e->late, samples, sizeof *e->late, order_of_times);
  int64_t late = e->late[samples * 99 / 100];
  for (int i = 0; i < PAIRS; i++) {
    coir_chan_unref(e->there[i]);
    coir_chan_unref(e->back[i]);
  }
  free(e);
  return late;
}

/* Others use this machine, too: so it is the best of a few, against what is so without those that block. If echoes were
 * held up, it would be by NAP in every try. */
ON_FIBER_OF(others_hardly_wait) {
  int64_t best = COIR_NEVER;
  for (int i = 0; i < 5 && best > COIR_MS(50); i++) {
    int64_t as_ever = late_while_others(sleep_as_fiber), late = late_while_others(sleep_in_kernel) - 2 * as_ever;
    if (late < best) best = late;
  }
  CHECK(best <= COIR_MS(50));
}

/* ---- What a stuck worker has to do is done --------------------------------------------------------------------- */

/* A runtime, and a fiber on each of its workers that sits in read(2). */
struct jam {
  struct coir_runtime *rt;
  struct pipe_pair pipe;
  _Atomic(int) in;
  int workers;
};

static int sit_in_read(void *arg) {
  struct jam *j = arg;
  atomic_fetch_add(&j->in, 1);
  take_byte(&j->pipe);
  return 0;
}

static void jam_begin(struct jam *j) {
  *j = (struct jam){.rt = make_runtime((struct coir_config){0})};
  j->workers = stats_of(j->rt).workers;
  pipe_open(&j->pipe);
  CHECK_EQ(coir_runtime_start(j->rt), 0);
}

static void go_on_worker(struct jam *j, int i, coir_fn fn, void *arg) {
  struct coir_attr attr = {.worker = COIR_WORKER(i)};
  CHECK_EQ(coir_runtime_spawn(j->rt, fn, arg, &attr, NULL), 0);
}

static void jam_workers(struct jam *j) {
  for (int i = 0; i < j->workers; i++) go_on_worker(j, i, sit_in_read, j);
  WAIT_FOR(atomic_load(&j->in) == j->workers);
}

static void jam_end(struct jam *j) {
  CHECK(stats_of(j->rt).handoffs >= 1);
  for (int i = 0; i < j->workers; i++) give_byte(&j->pipe);
  CHECK_EQ(coir_runtime_stop(j->rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(j->rt), 0);
  pipe_close(&j->pipe);
}

static void targeted_spawns_are_served(void) {
  struct jam j;
  flag ran[64] = {0};
  jam_begin(&j);
  jam_workers(&j);
  for (int i = 0; i < j.workers; i++) go_on_worker(&j, i, raise_flag, &ran[i]);
  for (int i = 0; i < j.workers; i++) WAIT_FOR(is_up(&ran[i]));
  CHECK(stats_of(j.rt).handoffs >= (uint64_t)j.workers);
  jam_end(&j);
}

static flag ticks_end;

static int tick(void *count) {
  while (!is_up(&ticks_end)) {
    CHECK_EQ(coir_sleep(COIR_MS(1)), 0);
    atomic_fetch_add((flag *)count, 1);
  }
  return 0;
}

static void timers_are_served(void) {
  struct jam j;
  flag count[64] = {0}, fired = 0;
  struct coir_timer *timer;
  jam_begin(&j);
  for (int i = 0; i < j.workers; i++) go_on_worker(&j, i, tick, &count[i]);
  for (int i = 0; i < j.workers; i++) WAIT_FOR(atomic_load(&count[i]));
  jam_workers(&j);
  for (int i = 0; i < j.workers; i++) { /* timers alone make the worker go on */
    int before = atomic_load(&count[i]);
    WAIT_FOR(atomic_load(&count[i]) >= before + 5);
  }
  CHECK_EQ(coir_runtime_timer_create(j.rt, &timer, raise_flag, &fired), 0);
  CHECK_EQ(coir_timer_start(timer, coir_after(COIR_MS(5)), 0), 0);
  WAIT_FOR(is_up(&fired));
  atomic_store(&ticks_end, 1);
  jam_end(&j);
  coir_timer_destroy(timer);
}

struct reader {
  int fds[2];
  flag is_in, got;
};

static int read_socket(void *arg) {
  struct reader *r = arg;
  char c;
  atomic_store(&r->is_in, 1);
  CHECK_EQ(coir_read(r->fds[0], &c, 1, COIR_NEVER), 1);
  atomic_store(&r->got, c);
  return 0;
}

static void descriptors_are_served(void) {
  struct jam j;
  struct reader readers[64] = {0};
  jam_begin(&j);
  for (int i = 0; i < j.workers; i++) {
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, readers[i].fds), 0);
    go_on_worker(&j, i, read_socket, &readers[i]);
  }
  for (int i = 0; i < j.workers; i++) WAIT_FOR(is_up(&readers[i].is_in));
  jam_workers(&j);
  for (int i = 0; i < j.workers; i++) CHECK_EQ(write(readers[i].fds[1], "d", 1), 1);
  for (int i = 0; i < j.workers; i++) WAIT_FOR(atomic_load(&readers[i].got) == 'd');
  jam_end(&j);
  for (int i = 0; i < j.workers; i++) CHECK_EQ(coir_close(readers[i].fds[0]) | close(readers[i].fds[1]), 0);
}

struct relay {
  struct coir_chan *in, *out;
};

static int pass_on(void *arg) {
  struct relay *r = arg;
  int v;
  while (coir_chan_recv(r->in, &v, COIR_NEVER) == 0) CHECK_EQ(coir_chan_send(r->out, &v, COIR_NEVER), 0);
  return 0;
}

static void wakes_from_outside_are_served(void) {
  struct jam j;
  struct relay r = {coir_chan_create(sizeof(int), 0), coir_chan_create(sizeof(int), 0)};
  int v;
  jam_begin(&j);
  for (int i = 0; i < j.workers; i++) go_on_worker(&j, i, pass_on, &r);
  jam_workers(&j);
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(coir_chan_send(r.in, &i, coir_after(COIR_SEC(20))), 0);
    CHECK_EQ(coir_chan_recv(r.out, &v, coir_after(COIR_SEC(20))), 0);
    CHECK_EQ(v, i);
  }
  coir_chan_close(r.in);
  jam_end(&j);
  coir_chan_unref(r.in);
  coir_chan_unref(r.out);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {
      CASE(an_endless_loop),
      CASE(hogs_in_a_row),
      CASE(a_read_from_a_pipe),
      CASE(usleep_in_a_loop),
      CASE(a_lock_of_a_file),
      CASE(a_lock_of_threads),
      CASE(a_report_wakes_others),
      CASE(a_page_that_is_slow),
      CASE(others_hardly_wait),
      CASE(targeted_spawns_are_served),
      CASE(timers_are_served),
      CASE(descriptors_are_served),
      CASE(wakes_from_outside_are_served),
  };
  return RUN_CASES(argc, argv, cases);
}
