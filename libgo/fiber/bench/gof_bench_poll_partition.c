/* gof_bench_poll_partition: messages over many socket pairs at once; to see what pollers, partition, affinity and the
 * rebalancer do (GOF_NPOLLERS, GOF_POLL_PARTITION, GOF_AFFINITY, GOF_REBALANCE).
 *
 *     gof_bench_poll_partition [-conns 64] [-duration_ms 1000] [-msg_size 64] [-stats 0]
 *
 * Each connection is a pair of stream sockets (AF_UNIX) with two fibers: one writes a message and yields, again and
 * again, the other one reads messages. One more fiber sleeps for `duration_ms`, says that it is over, and shuts all
 * sockets down, which ends those that wait. Figure: messages read in full, per second of the time from when the first
 * fiber begins to when the last one ends.
 *
 * With "-stats 1", or GOF_BENCH_STATS=1 in the environment, the scheduler's statistics follow, "name=value" lines. */
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gof_bench.h"

#define USAGE "[-conns 64] [-duration_ms 1000] [-msg_size 64] [-stats 0]"
#define CONNS_MAX 1000000u
#define DURATION_MS_MAX 1000000000u
#define MSG_SIZE_MAX 1000000000u

struct load {
  struct bench_watch watch;
  uint64_t conns, duration_ms, msg_size;
  char *message; /* what all writers write */
  struct pair *pairs;
  _Atomic(bool) is_over;
  _Atomic(uint64_t) messages;
};

struct pair {
  struct load *load;
  int writer_fd, reader_fd;
};

static bool is_over(struct load *load) { return atomic_load_explicit(&load->is_over, memory_order_relaxed); }

static void writer(void *arg) {
  struct pair *pair = arg;
  struct load *load = pair->load;
  bench_begin(&load->watch);
  while (!is_over(load)) {
    if (gof_write(pair->writer_fd, load->message, load->msg_size) < 0) {
      if (!is_over(load)) bench_die("gof_write", errno);
      break;
    }
    gof_yield();
  }
  bench_end(&load->watch);
}

static void reader(void *arg) {
  struct pair *pair = arg;
  struct load *load = pair->load;
  bench_begin(&load->watch);
  char *message = malloc(load->msg_size);
  if (!message) bench_die("malloc", ENOMEM);
  uint64_t messages = 0;
  size_t have = 0;
  while (!is_over(load)) {
    ssize_t n = gof_read(pair->reader_fd, message + have, load->msg_size - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (!is_over(load)) bench_die("gof_read", n < 0 ? errno : ECONNRESET);
      break;
    }
    have += (size_t)n;
    if (have < load->msg_size) continue;
    messages++;
    have = 0;
  }
  free(message);
  atomic_fetch_add(&load->messages, messages);
  bench_end(&load->watch);
}

static void stopper(void *arg) {
  struct load *load = arg;
  bench_begin(&load->watch);
  gof_sleep_ms(load->duration_ms);
  atomic_store(&load->is_over, true);
  for (uint64_t i = 0; i < load->conns; i++) {
    shutdown(load->pairs[i].writer_fd, SHUT_RDWR);
    shutdown(load->pairs[i].reader_fd, SHUT_RDWR);
  }
  bench_end(&load->watch);
}

static void open_pairs(struct load *load) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit); /* if it is refused, socketpair says so */
  }
  load->message = malloc(load->msg_size);
  load->pairs = malloc(load->conns * sizeof *load->pairs);
  if (!load->message || !load->pairs) bench_die("malloc", ENOMEM);
  memset(load->message, 'x', load->msg_size);
  for (uint64_t i = 0; i < load->conns; i++) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) bench_die("socketpair", errno);
    load->pairs[i] = (struct pair){.load = load, .writer_fd = ends[0], .reader_fd = ends[1]};
  }
}

static void close_pairs(struct load *load) {
  for (uint64_t i = 0; i < load->conns; i++) {
    close(load->pairs[i].writer_fd);
    close(load->pairs[i].reader_fd);
  }
  free(load->pairs);
  free(load->message);
}

static void print_stats(void) {
  gof_sched_stats s;
  gof_counters c;
  gof_get_stats(&s);
  gof_get_counters(&c);
  printf("nworkers=%d\nnpollers=%d\n", s.nworkers, gof_get_npollers());
  printf("enable_steal=%d\nsteal_min_live=%d\nsteal_min_victim=%d\n", s.enable_steal, s.steal_min_live,
         s.steal_min_victim);
  printf("affinity_enable=%d\n", s.affinity_enable);
  printf("rebalance_enable=%d\nrebalance_threshold=%d\nrebalance_interval_ms=%d\n", s.rebalance_enable,
         s.rebalance_threshold, s.rebalance_interval_ms);
  printf("live_fibers=%" PRIu64 "\n", s.live_fibers);
  printf("steals_attempted=%" PRIu64 "\nsteals_success=%" PRIu64 "\n", s.steals_attempted, s.steals_success);
  printf("inject_enqueues=%" PRIu64 "\ninject_drains=%" PRIu64 "\n", s.inject_enqueues, s.inject_drains);
  printf("rebalances_attempted=%" PRIu64 "\nrebalances_migrated=%" PRIu64 "\n", s.rebalances_attempted,
         s.rebalances_migrated);
  printf("switches=%" PRIu64 "\nparks=%" PRIu64 "\nunparks=%" PRIu64 "\n", c.switches, c.parks, c.unparks);
}

int main(int argc, char **argv) {
  struct load load = {.conns = 64, .duration_ms = 1000, .msg_size = 64};
  const char *env = getenv("GOF_BENCH_STATS");
  uint64_t stats = env && strcmp(env, "1") == 0;
  const struct {
    const char *name;
    uint64_t min, max, *value;
  } flags[] = {{"-conns", 1, CONNS_MAX, &load.conns},
               {"-duration_ms", 1, DURATION_MS_MAX, &load.duration_ms},
               {"-msg_size", 1, MSG_SIZE_MAX, &load.msg_size},
               {"-stats", 0, 1, &stats}};
  for (int i = 1; i < argc; i += 2) {
    size_t f = 0;
    while (f < sizeof flags / sizeof *flags && strcmp(argv[i], flags[f].name) != 0) f++;
    if (f == sizeof flags / sizeof *flags || i + 1 == argc ||
        !bench_number(argv[i + 1], flags[f].min, flags[f].max, flags[f].value)) {
      bench_usage(argv[0], USAGE);
    }
  }
  load.watch.left = 2 * load.conns + 1;
  open_pairs(&load);
  gof_init(0);
  bench_spawn(stopper, &load);
  for (uint64_t i = 0; i < load.conns; i++) {
    bench_spawn(writer, &load.pairs[i]);
    bench_spawn(reader, &load.pairs[i]);
  }
  gof_run();
  double seconds = bench_seconds(&load.watch);
  printf("bench_poll_partition: conns=%d msg_size=%zu duration_ms=%d\n", (int)load.conns, (size_t)load.msg_size,
         (int)load.duration_ms);
  printf("  total_msgs=%zu elapsed_ms=%ld msgs_per_sec=%.2f\n", (size_t)load.messages, (long)(seconds * 1e3),
         (double)load.messages / seconds);
  if (stats) print_stats();
  close_pairs(&load);
  return 0;
}
