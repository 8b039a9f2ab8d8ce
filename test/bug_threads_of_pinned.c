/* Threads inherit the CPU of who makes them. Those that Coir made where a worker was that has a CPU of its own stayed
 * on that one: the pool for calls that block, a second system's workers, its monitor. */
#include "jobs.h"

#include <netdb.h>
#include <sched.h>

#include "coir_io.h"

static int cpus_here(void) {
  cpu_set_t set;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  return CPU_COUNT(&set);
}

static void look(struct coir_job *job, void *cpus) {
  (void)job;
  atomic_store((tally *)cpus, cpus_here());
}

/* How many threads of that name there are, and the fewest CPUs that one of them has. */
static int named(const char *wanted, int *fewest) {
  DIR *dir = opendir("/proc/self/task");
  int count = 0;
  CHECK(dir);
  *fewest = INT32_MAX;
  for (const struct dirent *entry; (entry = readdir(dir));) {
    char path[300], name[32] = "";
    FILE *file;
    cpu_set_t set;
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
    if (entry->d_name[0] == '.' || !(file = fopen(path, "r"))) continue;
    bool is_meant = fgets(name, sizeof name, file) && !strncmp(name, wanted, strlen(wanted));
    fclose(file);
    if (!is_meant || sched_getaffinity(atoi(entry->d_name), sizeof set, &set)) continue;
    count++;
    if (CPU_COUNT(&set) < *fewest) *fewest = CPU_COUNT(&set);
  }
  closedir(dir);
  return count;
}

/* One that begins goes to its CPUs before it gets its name. */
static void each_has(const char *name, int count, int cpus) {
  int fewest;
  WAIT_FOR(named(name, &fewest) == count);
  CHECK_EQ(fewest, cpus);
}

static void makes_a_system(struct coir_job *job, void *all) {
  tally seen = 0;
  (void)job;
  CHECK_EQ(cpus_here(), 1);
  struct coir_job_system *second = make_jobs((struct coir_job_config){.threads = 2});
  finish(coir_job_run(second, look, &seen));
  CHECK_EQ(seen, *(int *)all);
  each_has("coir-monitor", 2, *(int *)all);
  end_jobs(second, 0);
}

static void uses_the_pool(struct coir_job *job, void *all) {
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  struct addrinfo *info = NULL;
  (void)job;
  CHECK_EQ(cpus_here(), 1);
  CHECK_EQ(coir_getaddrinfo("localhost", NULL, &hints, &info, COIR_NEVER), 0);
  freeaddrinfo(info);
  each_has("coir-block", 1, *(int *)all);
}

/* `fn`: a job of a system whose workers have a CPU each. */
static void pinned(coir_job_fn fn) {
  int all = cpus_here();
  if (all < 2) return; /* then there is nothing to inherit */
  struct coir_job_system *jobs = make_jobs((struct coir_job_config){.threads = 2, .pinning = COIR_PIN_LINEAR});
  finish(coir_job_run(jobs, fn, &all));
  end_jobs(jobs, 0);
}

static void a_second_system_has_all_cpus(void) { pinned(makes_a_system); }
static void the_pool_has_all_cpus(void) { pinned(uses_the_pool); }

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(a_second_system_has_all_cpus), CASE(the_pool_has_all_cpus)};
  return RUN_CASES(argc, argv, cases);
}
