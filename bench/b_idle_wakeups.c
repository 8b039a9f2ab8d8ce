/* idle_wakeups: how often an idle runtime with 10 000 parked fibers wakes up in a second.
 *
 * The figure is the number of context switches, voluntary and not, of all threads of the process, from
 * /proc/<pid>/task/<tid>/status. To look is to wake up, so another process looks: it is forked before the runtime
 * starts, is told the pid, waits until everything has calmed down, looks, looks again a second later, and sends the
 * difference. The first fiber waits for that answer in coir_read; it is the one descriptor that is watched, and it is
 * adopted: for others the keeper's thread would look once a second whether they have been closed. The monitor's thread
 * is there, as it is by default, and has to rest like all others. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "coir_io.h"
#include "parked.h"

#define FIBERS 10000L

static int to_observer[2], from_observer[2]; /* pipes */

static void sleep_ns(long ns) {
  nanosleep(&(struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}, NULL);
}

static long switches_of_thread(const char *path) {
  FILE *file = fopen(path, "r");
  char line[256];
  long sum = 0, n;
  if (!file) bench_die("%s: %s", path, strerror(errno));
  while (fgets(line, sizeof line, file)) {
    if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1) sum += n;
    if (sscanf(line, "nonvoluntary_ctxt_switches: %ld", &n) == 1) sum += n;
  }
  fclose(file);
  return sum;
}

static long switches_of_process(pid_t pid) {
  char path[512];
  snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
  DIR *dir = opendir(path);
  if (!dir) bench_die("%s: %s", path, strerror(errno));
  long sum = 0;
  for (struct dirent *entry; (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/proc/%ld/task/%s/status", (long)pid, entry->d_name);
    sum += switches_of_thread(path);
  }
  closedir(dir);
  return sum;
}

/* Serves until the last process that could ask has gone. */
static void observe(void) {
  pid_t pid;
  close(to_observer[1]);
  while (read(to_observer[0], &pid, sizeof pid) == sizeof pid) {
    sleep_ns(500000000);
    double before = (double)switches_of_process(pid);
    sleep_ns(1000000000);
    double switches = (double)switches_of_process(pid) - before;
    if (write(from_observer[1], &switches, sizeof switches) != sizeof switches) bench_die("write: %s", strerror(errno));
  }
  _exit(0);
}

static void run(const struct bench *b, double *values) {
  (void)b;
  struct crowd crowd;
  crowd_init(&crowd, FIBERS);
  crowd_park(&crowd);
  bench_check("coir_adopt", coir_adopt(from_observer[0]));
  pid_t pid = getpid();
  if (write(to_observer[1], &pid, sizeof pid) != sizeof pid) bench_die("write: %s", strerror(errno));
  ssize_t got = coir_read_full(from_observer[0], &values[0], sizeof values[0], COIR_NEVER);
  if (got != sizeof values[0]) bench_die("coir_read_full: %ld", (long)got);
  crowd_fini(&crowd);
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "idle_wakeups", .metrics = {{NULL, "wake-ups/s", "lower"}}, .run = run, .is_fresh = true};
  if (pipe(to_observer) != 0 || pipe(from_observer) != 0) bench_die("pipe: %s", strerror(errno));
  pid_t pid = fork();
  if (pid < 0) bench_die("fork: %s", strerror(errno));
  if (pid == 0) observe();
  close(to_observer[0]);
  close(from_observer[1]); /* so that its end is noticed */
  return bench_main(argc, argv, &b);
}
