/* Configuration: one table says for each field of struct coir_config its environment variable, default and range. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum kind { INT, SIZE, SWITCH, GUARD, DEADLOCK };

static const struct field {
  const char *variable;
  size_t offset;
  enum kind kind;
  int64_t standard, min, max;
} fields[] = {
    {"COIR_WORKERS", offsetof(struct coir_config, workers), INT, 0, 1, COIR__WORKERS_MAX},
    {"COIR_STACK_BYTES", offsetof(struct coir_config, stack_bytes), SIZE, 256 << 10, 16 << 10, 1 << 30},
    {"COIR_STACK_CACHE_MAX", offsetof(struct coir_config, stack_cache_max), INT, 64, 2, 1 << 20},
    {"COIR_STACK_KEEP_BYTES", offsetof(struct coir_config, stack_keep_bytes), SIZE, 64 << 10, 4096, 1 << 30},
    {"COIR_GUARD", offsetof(struct coir_config, guard), GUARD, COIR_GUARD_AUTO, COIR_GUARD_AUTO, COIR_GUARD_CANARY},
    {"COIR_GUARDS_MAX", offsetof(struct coir_config, guards_max), INT, 16384, 1, 1 << 30},
    {"COIR_POLLERS", offsetof(struct coir_config, pollers), INT, 0, 0, COIR__WORKERS_MAX},
    {"COIR_POLL_PARTITION", offsetof(struct coir_config, poll_partition), SWITCH, 1, 0, 1},
    {"COIR_STEAL", offsetof(struct coir_config, steal), SWITCH, 1, 0, 1},
    {"COIR_STEAL_MIN_LIVE", offsetof(struct coir_config, steal_min_live), INT, 0, 0, 1 << 30},
    {"COIR_STEAL_MIN_VICTIM", offsetof(struct coir_config, steal_min_victim), INT, 1, 1, 1 << 30},
    {"COIR_AFFINITY", offsetof(struct coir_config, affinity), SWITCH, 0, 0, 1},
    {"COIR_REBALANCE", offsetof(struct coir_config, rebalance), SWITCH, 0, 0, 1},
    {"COIR_REBALANCE_THRESHOLD", offsetof(struct coir_config, rebalance_threshold), INT, 4, 1, 1 << 30},
    {"COIR_REBALANCE_INTERVAL_MS", offsetof(struct coir_config, rebalance_interval_ms), INT, 10, 1, 1 << 30},
    {"COIR_SPARES_MAX", offsetof(struct coir_config, spares_max), INT, 256, 1, 1 << 14},
    {"COIR_MONITOR", offsetof(struct coir_config, monitor), SWITCH, 1, 0, 1},
    {"COIR_BLOCKED_US", offsetof(struct coir_config, blocked_us), INT, 1000, 50, 1000000},
    {"COIR_BUSY_US", offsetof(struct coir_config, busy_us), INT, 10000, 50, 1000000},
    {"COIR_PREEMPT", offsetof(struct coir_config, preempt), SWITCH, 0, 0, 1},
    {"COIR_QUANTUM_US", offsetof(struct coir_config, quantum_us), INT, 10000, 50, 1000000},
    {"COIR_PREEMPT_SIGNAL", offsetof(struct coir_config, preempt_signal), INT, SIGURG, 1, 64},
    {"COIR_MIGRATE", offsetof(struct coir_config, migrate), SWITCH, 0, 0, 1},
    {"COIR_IO_URING", offsetof(struct coir_config, io_uring), SWITCH, 1, 0, 1},
    {"COIR_SIM_SEED", offsetof(struct coir_config, sim_seed), INT, 0, 0, 1 << 30},
    {"COIR_SIM_FAULTS", offsetof(struct coir_config, sim_faults), INT, 0, 0, 1000},
    {"COIR_SIM_LOG", offsetof(struct coir_config, sim_log), INT, 0, 0, 2},
    {"COIR_DEADLOCK", offsetof(struct coir_config, deadlock), DEADLOCK, 0, 0, COIR_DEADLOCK_IGNORE},
};

static const char *const guards[] = {"auto", "madvise", "mprotect", "canary", NULL};
static const char *const deadlocks[] = {"report", "abort", "ignore", NULL};

static int64_t clamp(int64_t v, int64_t min, int64_t max) { return v < min ? min : v > max ? max : v; }

/* Reads the variable's text. False: it does not parse. */
static bool parse(const struct field *f, const char *text, int64_t *out) {
  if (f->kind == GUARD || f->kind == DEADLOCK) {
    const char *const *words = f->kind == GUARD ? guards : deadlocks;
    for (int i = 0; words[i]; i++)
      if (!strcmp(text, words[i])) {
        *out = i;
        return true;
      }
    return false;
  }
  char *end;
  long long v = strtoll(text, &end, 10);
  *out = v;
  return end != text && !*end;
}

/* The variable's value, or the default. */
static int64_t from_environment(const struct field *f) {
  const char *text = getenv(f->variable);
  int64_t v;
  if (!text || !*text) return f->standard;
  if (parse(f, text, &v)) return clamp(v, f->min, f->max);
  fprintf(stderr, "coir: %s=%s is not understood and ignored\n", f->variable, text);
  return f->standard;
}

static int64_t load(const struct coir_config *c, const struct field *f) {
  const char *at = (const char *)c + f->offset;
  if (f->kind == SIZE) {
    size_t v = *(const size_t *)at;
    return v > INT64_MAX ? INT64_MAX : (int64_t)v;
  }
  return *(const int *)at;
}

static void store(struct coir_config *c, const struct field *f, int64_t v) {
  char *at = (char *)c + f->offset;
  if (f->kind == SIZE) *(size_t *)at = (size_t)v;
  else *(int *)at = (int)v;
}

/* Brings a given value into range; a switch becomes 0 or 1. */
static int64_t given(const struct field *f, int64_t v) {
  if (f->kind == SWITCH) return v > 0;
  return clamp(v, f->min, f->max);
}

int coir__config_fill(struct coir_config *out, const struct coir_config *in) {
  struct coir_config c = {0};
  if (in) {
    size_t size = in->size ? in->size : sizeof c;
    if (size > sizeof c || size < offsetof(struct coir_config, stack_bytes)) return -EINVAL;
    memcpy(&c, in, size);
  }
  if (!c.alloc != !c.free) return -EINVAL;
  if ((int)c.guard < 0 || c.guard > COIR_GUARD_CANARY) return -EINVAL;
  if ((int)c.deadlock < 0 || c.deadlock > COIR_DEADLOCK_IGNORE) return -EINVAL;
  if (c.stack_bytes && coir__stack_class(c.stack_bytes) < 0) return -EINVAL;
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    int64_t v = load(&c, &fields[i]);
    if (v < 0 && fields[i].kind != SWITCH) return -EINVAL;
    store(&c, &fields[i], v ? given(&fields[i], v) : from_environment(&fields[i]));
  }
  if (!c.workers) c.workers = (int)clamp(coir__os_cpu_count(), 1, COIR__WORKERS_MAX);
  if (c.pollers > c.workers) c.pollers = c.workers;
  if (c.sim_seed) c.pollers = c.steal = c.affinity = c.rebalance = c.migrate = c.monitor = c.preempt = c.io_uring = 0;
  c.size = sizeof c;
  *out = c;
  return 0;
}
