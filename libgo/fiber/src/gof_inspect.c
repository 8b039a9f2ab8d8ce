/* Looking inside: fibers, their stacks, statistics. */
#include "gof_internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Statistics ------------------------------------------------------------------------------------------------ */

void gof_get_stats(gof_sched_stats *out) {
  if (!out) return;
  struct coir_runtime *rt = gof__runtime(0);
  struct coir_stats s;
  struct coir_tuning t;
  coir_runtime_get_stats(rt, &s);
  coir_runtime_get_tuning(rt, &t);
  *out = (gof_sched_stats){
      .nworkers = s.workers,
      .enable_steal = t.steal,
      .affinity_enable = t.affinity,
      .steal_min_live = t.steal_min_live,
      .steal_min_victim = t.steal_min_victim,
      .live_fibers = s.fibers_live,
      /* Coir moves many at a time. Here a try is about one fiber: those that got nothing, and one for each that came.
       */
      .steals_attempted = s.steals_attempted - s.steal_hits + s.steals,
      .steals_success = s.steals,
      .inject_enqueues = s.injected,
      .inject_drains = s.injected_taken,
      .rebalance_enable = t.rebalance,
      .rebalance_threshold = t.rebalance_threshold,
      .rebalance_interval_ms = t.rebalance_interval_ms,
      .rebalances_attempted = s.rebalances_attempted - s.rebalance_hits + s.rebalanced,
      .rebalances_migrated = s.rebalanced,
  };
}

void gof_get_counters(gof_counters *out) {
  if (!out) return;
  struct coir_stats s;
  coir_runtime_get_stats(gof__runtime(0), &s);
  *out = (gof_counters){.switches = s.switches, .parks = s.parks, .unparks = s.wakes};
}

/* ---- The list -------------------------------------------------------------------------------------------------- */

typedef char name_text[sizeof((struct coir_fiber_info *)0)->name];

static pthread_once_t names_once = PTHREAD_ONCE_INIT;
static int names_key;

static void names_make_key(void) { names_key = coir_key_create(free); }

/* Room for the names of the caller's list, which stay until its next one; NULL when there is none. */
static name_text *names_room(size_t count) {
  pthread_once(&names_once, names_make_key);
  if (names_key < 0) return NULL;
  free(coir_local_get(names_key));
  name_text *names = malloc((count ? count : 1) * sizeof *names);
  if (coir_local_set(names_key, names) == 0) return names;
  free(names);
  return NULL;
}

static int state_of(const struct coir_fiber_info *info) {
  switch (info->state) {
  case COIR_FIBER_WAITING: return GOF_STATE_BLOCKED;
  case COIR_FIBER_ENDED: return GOF_STATE_FINISHED;
  default: return GOF_STATE_RUNNABLE;
  }
}

size_t gof_list(gof_info *out, size_t max) {
  struct coir_runtime *rt = gof__runtime(0);
  size_t live = coir_runtime_list(rt, NULL, 0);
  if (!out) return live;
  if (max > live) max = live; /* whoever comes now may be missing */
  struct coir_fiber_info *list = malloc((max ? max : 1) * sizeof *list);
  if (!list) return 0;
  size_t n = coir_runtime_list(rt, list, max);
  if (n > max) n = max;
  name_text *names = names_room(n);
  for (size_t i = 0; i < n; i++) {
    const struct coir_fiber_info *info = &list[i];
    bool has_name = names && info->name[0];
    if (has_name) memcpy(names[i], info->name, sizeof names[i]);
    out[i] = (gof_info){
        .id = info->id,
        .name = has_name ? names[i] : NULL,
        .stack_size = info->stack_bytes,
        .stack_used = info->stack_used,
        .state = state_of(info),
        .last_run_ns = (uint64_t)info->ran_at,
    };
  }
  free(list);
  return n;
}

void gof_set_name(const char *name) { coir_set_name(name); }

/* ---- The dump -------------------------------------------------------------------------------------------------- */

static void dump_frame(FILE *text, size_t i, void *frame) {
  Dl_info where;
  fprintf(text, "    #%zu %p", i, frame);
  /* A frame is where a call returns to: one less lies in the call, also where that was the last of its function. */
  if (dladdr((char *)frame - 1, &where) && where.dli_fname) {
    if (where.dli_sname) fprintf(text, " %s+0x%zx", where.dli_sname, (size_t)((char *)frame - (char *)where.dli_saddr));
    fprintf(text, " (%s+0x%zx)", where.dli_fname, (size_t)((char *)frame - (char *)where.dli_fbase));
  }
  fputc('\n', text);
}

static void dump_fiber(const struct coir_fiber_info *info, void *const *frames, size_t count, void *arg) {
  static const char *const states[] = {"runnable", "blocked", "finished"};
  FILE *text = arg;
  fprintf(text, "fiber %llu [%s]: name=%s stack=%zu bytes\n", (unsigned long long)info->id, states[state_of(info)],
          info->name[0] ? info->name : "(unnamed)", info->stack_bytes);
  if (info->state == COIR_FIBER_WAITING)
    fprintf(text, "    waits for %s 0x%llx for %lld ms, ran on worker %d\n", info->waits_for,
            (unsigned long long)info->waits_on, (long long)((coir_now() - info->since) / COIR_MS(1)), info->worker);
  for (size_t i = 0; i < count; i++) dump_frame(text, i, frames[i]);
}

char *gof__dump_text(struct coir_runtime *rt, size_t *bytes) {
  char *buf = NULL;
  FILE *text = open_memstream(&buf, bytes);
  if (!text) return NULL;
  fputs("=== Fiber Stack Dump ===\n", text);
  int64_t n = coir_runtime_walk(rt, dump_fiber, text);
  fprintf(text, "=== Total: %lld fibers ===\n", (long long)(n < 0 ? 0 : n));
  if (fclose(text) == 0) return buf;
  free(buf);
  return NULL;
}

/* Those who write take turns. Who is at it may wait for ever to write, and may be abandoned meanwhile, so this is no
 * lock: whoever finds the same one at it for too long goes ahead, and its turn is over. */
#define PATIENCE COIR_SEC(3)

static _Atomic(uint64_t) writer; /* whose turn it is, by number; 0: nobody's */

static uint64_t turn_begin(void) {
  static _Atomic(uint64_t) numbers;
  uint64_t me = atomic_fetch_add(&numbers, 1) + 1, seen = 0;
  for (int64_t since = 0;;) {
    uint64_t other = 0;
    if (atomic_compare_exchange_strong(&writer, &other, me)) return me;
    if (other != seen) {
      seen = other;
      since = coir_now();
    } else if (coir_now() - since > PATIENCE && atomic_compare_exchange_strong(&writer, &other, me)) {
      return me;
    }
    coir_shield_begin(); /* what asks a fiber to stop does not stop this */
    coir_sleep(COIR_MS(1));
    coir_shield_end();
  }
}

/* Unless another one has gone ahead. */
static void turn_end(uint64_t me) { atomic_compare_exchange_strong(&writer, &me, 0); }

void gof__turns_fork_child(void) { atomic_store(&writer, 0); }

void gof_dump_stacks(int fd) {
  size_t bytes = 0;
  char *text = gof__dump_text(gof__runtime(0), &bytes);
  if (!text) return;
  uint64_t turn = turn_begin();
  gof_write(fd, text, bytes);
  turn_end(turn);
  free(text);
}
