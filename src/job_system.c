/* Job systems: making them and shutting them down, what can be asked of them, and memory for a frame.
 *
 * A system is a runtime of its own, and beside each of its workers a set of books (job.h) that only that worker writes:
 * free records, numbers, a frame allocator, events of the trace. One set more is for all threads that carry none of its
 * workers, under the system's lock: those from outside, and those whose worker was taken away from them.
 *
 * Shutting down waits for the runtime's last fiber. A plain thread does so itself. A fiber is suspended, and a thread
 * of the pool (block.c) waits in its place; when deadline or cancellation end the fiber's wait, that thread goes on. So
 * the system stays as long as there are such visitors. */
#include <stdio.h>
#include <string.h>

#include "job.h"

#define FRAME_BYTES_MIN ((size_t)64 << 10)
#define FRAME_BYTES_MAX ((size_t)1 << 30)
#define JOB_FRAME_ALIGN_MAX 4096
#define BUSY_US 1000000 /* jobs compute: another thread beside them would only share their processor */
#define VISITORS_NAP COIR_US(50)
#define POOL_MAX ((size_t)1 << 20) /* of coir_config.stack_cache_max */

/* ---- Configuration --------------------------------------------------------------------------------------------- */

int coir_job_config_preset(struct coir_job_config *out, enum coir_job_preset preset) {
  static const struct {
    size_t stack_kib, initial, target, frame_kib;
    enum coir_pinning pinning;
  } presets[] = {
      [COIR_JOBS_GAMING] = {256, 64, 512, 2048, COIR_PIN_AVOID_SMT},
      [COIR_JOBS_THROUGHPUT] = {512, 32, 256, 1024, COIR_PIN_NONE},
      [COIR_JOBS_DATA_PROCESSING] = {512, 32, 256, 1024, COIR_PIN_TIERED_SPILLOVER},
      [COIR_JOBS_LOW_LATENCY] = {128, 8, 64, 512, COIR_PIN_AVOID_SMT},
      [COIR_JOBS_STRICT_TOPOLOGY] = {512, 16, 128, 1024, COIR_PIN_LINEAR},
  };
  if (!out || (unsigned)preset >= sizeof presets / sizeof presets[0]) return -EINVAL;
  *out = (struct coir_job_config){
      .stack_bytes = presets[preset].stack_kib << 10,
      .initial_pool_size = presets[preset].initial,
      .target_pool_size = presets[preset].target,
      .frame_bytes = presets[preset].frame_kib << 10,
      .pinning = presets[preset].pinning,
  };
  return 0;
}

static int switch_or(int given, int standard) { return given ? given : standard; }

static bool switches_exist(const struct coir_job_config *c) {
  const int switches[] = {c->enable_yielding, c->prefetch_pages, c->metrics, c->trace, c->monitor};
  for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++)
    if (switches[i] < COIR_OFF || switches[i] > COIR_ON) return false;
  return true;
}

/* Every default but those that the runtime fills in: workers, and the monitor. Switches become COIR_ON or COIR_OFF. */
static int job_config_fill(struct coir_job_config *out, const struct coir_job_config *in) {
  struct coir_job_config c = {0};
  if (in) {
    size_t size = in->size ? in->size : sizeof c;
    if (size > sizeof c || size < offsetof(struct coir_job_config, stack_bytes)) return -EINVAL;
    memcpy(&c, in, size);
  }
  if (c.threads < 0 || c.threads > COIR__WORKERS_MAX) return -EINVAL;
  if (c.stack_bytes && coir__stack_class(c.stack_bytes) < 0) return -EINVAL;
  if (c.max_pooled_fibers > POOL_MAX || c.initial_pool_size > POOL_MAX || c.target_pool_size > POOL_MAX) return -EINVAL;
  if (c.frame_bytes > FRAME_BYTES_MAX || (unsigned)c.pinning > COIR_PIN_TIERED_SPILLOVER) return -EINVAL;
  if (!switches_exist(&c)) return -EINVAL;
  if (!c.stack_bytes) c.stack_bytes = 64 << 10;
  if (!c.max_pooled_fibers) c.max_pooled_fibers = 32;
  if (c.frame_bytes < FRAME_BYTES_MIN) c.frame_bytes = FRAME_BYTES_MIN;
  c.enable_yielding = switch_or(c.enable_yielding, COIR_ON);
  c.prefetch_pages = switch_or(c.prefetch_pages, COIR_OFF);
  c.metrics = switch_or(c.metrics, COIR_OFF);
  c.trace = switch_or(c.trace, COIR_OFF);
  c.size = sizeof c;
  *out = c;
  return 0;
}

/* ---- Making and freeing ---------------------------------------------------------------------------------------- */

static void pin_thread(int worker, void *arg) {
  const struct coir_job_system *system = arg;
  coir__topology_pin(system->topology, system->config.pinning, worker);
}

static int runtime_make(struct coir_job_system *system) {
  struct coir_job_config *c = &system->config;
  size_t kept = c->target_pool_size > c->max_pooled_fibers ? c->target_pool_size : c->max_pooled_fibers;
  struct coir_config config = {
      .size = sizeof config,
      .workers = c->threads,
      .stack_bytes = c->stack_bytes,
      .stack_cache_max = (int)kept,
      .monitor = c->monitor,
      .on_thread = c->pinning == COIR_PIN_NONE ? NULL : pin_thread,
      .on_thread_arg = system,
      .busy_us = BUSY_US,
  };
  int rc = coir_runtime_create(&system->rt, &config);
  if (rc) return rc;
  system->rt->jobs = system;
  c->threads = system->rt->worker_count;
  c->monitor = switch_or(system->rt->config.monitor, COIR_OFF);
  return 0;
}

static int books_make(struct coir_job_system *system) {
  size_t n = (size_t)system->config.threads + 1;
  system->books_memory = coir__alloc(NULL, n * sizeof *system->books + COIR__LINE);
  if (!system->books_memory) return -ENOMEM;
  system->books = coir__line_up(system->books_memory);
  return 0;
}

/* Fills the worker's pool of stacks. Nobody carries it yet, so what is its owner's is ours. */
static int pool_fill(const struct coir_job_system *system, struct coir__worker *w) {
  struct coir__stack *made = NULL;
  size_t n = 0;
  for (; n < system->config.initial_pool_size; n++) {
    struct coir__stack *s = coir__stack_take(w, w->rt->stack_class);
    if (!s) break;
    if (system->config.prefetch_pages == COIR_ON) *(volatile char *)(s->top - 1) = 0; /* where a fiber begins */
    s->next = made;
    made = s;
  }
  while (made) {
    struct coir__stack *s = made;
    made = s->next;
    coir__stack_give(w, s);
  }
  return n == system->config.initial_pool_size ? 0 : -ENOMEM;
}

static int system_make(struct coir_job_system *system) {
  if (system->config.pinning != COIR_PIN_NONE && !(system->topology = coir_topology_detect())) return -ENOMEM;
  int rc = runtime_make(system);
  if (!rc) rc = books_make(system);
  for (int i = 0; !rc && i < system->config.threads; i++) rc = pool_fill(system, system->rt->workers[i]);
  return rc ? rc : coir_runtime_start(system->rt);
}

static void extras_free(struct coir__job_books *books);

/* It does not run. The runtime first: what is left of its fibers may have to do with the rest. */
static void system_free(struct coir_job_system *system) {
  if (system->rt) coir_runtime_destroy(system->rt);
  if (system->books) coir__job_records_fini(system);
  for (int i = 0; system->books && i <= system->config.threads; i++) {
    coir_paged_frame_destroy(system->books[i].frame);
    extras_free(&system->books[i]);
  }
  coir__job_trace_fini(system);
  coir_topology_destroy(system->topology);
  coir__free(NULL, system->books_memory, 0);
  coir__free(NULL, system, sizeof *system);
}

int coir_job_system_create(struct coir_job_system **out, const struct coir_job_config *config) {
  COIR_INSIDE;
  if (!out) return -EINVAL;
  *out = NULL;
  struct coir_job_config filled;
  int rc = job_config_fill(&filled, config);
  if (rc) return rc;
  struct coir_job_system *system = coir__alloc(NULL, sizeof *system);
  if (!system) return -ENOMEM;
  system->config = filled;
  system->created_at = coir__os_now();
  rc = system_make(system);
  if (rc) system_free(system);
  else *out = system;
  return rc;
}

JobSystem *JobSystem_Create(size_t threads) {
  struct coir_job_system *system;
  struct coir_job_config config = {.threads = threads <= COIR__WORKERS_MAX ? (int)threads : -1};
  coir_job_system_create(&system, &config);
  return system;
}

void JobSystem_Destroy(JobSystem *system) { coir_job_system_destroy(system); }

/* ---- Shutting down --------------------------------------------------------------------------------------------- */

/* A shutdown that goes on when who asked for it leaves. */
struct shutdown {
  struct coir__errand errand;
  struct coir_job_system *system;
  int64_t deadline;
  int rc;
};

static bool is_called_inside(const struct coir_job_system *system) {
  return coir_runtime_current() == system->rt || coir__away_from() == system->rt;
}

/* Waits for the last fiber and stops the threads; blocks the calling one. */
static int stop_blocking(struct coir_job_system *system, int64_t deadline) {
  int rc = coir_mutex_lock(&system->control, deadline);
  if (rc) return rc;
  if (!system->is_stopped) rc = coir_runtime_stop(system->rt, COIR_STOP_DRAIN, deadline);
  if (!rc) system->is_stopped = true;
  coir_mutex_unlock(&system->control);
  return rc;
}

static void shutdown_run(struct coir__errand *errand) {
  struct shutdown *s = (struct shutdown *)errand;
  s->rc = stop_blocking(s->system, s->deadline);
}

static void shutdown_dispose(struct coir__errand *errand) {
  struct shutdown *s = (struct shutdown *)errand;
  struct coir_job_system *system = s->system;
  coir__free(NULL, s, sizeof *s);
  atm_sub_rel(&system->visitors, 1); /* all that it did; pairs with the acquire in coir_job_system_destroy() */
}

/* The same for a fiber, which is suspended. Where no thread can be had for it, it blocks its own. */
static int stop_suspending(struct coir_job_system *system, int64_t deadline) {
  struct shutdown *s = coir__alloc(NULL, sizeof *s);
  if (!s) return stop_blocking(system, deadline);
  s->errand.fn = shutdown_run;
  s->errand.dispose = shutdown_dispose;
  s->system = system;
  s->deadline = deadline;
  atm_add_rlx(&system->visitors, 1);
  int rc = coir__block_errand(&s->errand, deadline);
  if (rc == -EAGAIN) return stop_blocking(system, deadline);
  if (rc) return rc;
  rc = s->rc;
  shutdown_dispose(&s->errand);
  return rc;
}

static uint64_t failures_of(const struct coir_job_system *system) {
  uint64_t failures = 0;
  for (int i = 0; i <= system->config.threads; i++) failures += atm_load_rlx(&system->books[i].failed);
  return failures;
}

int coir_job_system_shutdown(struct coir_job_system *system, int64_t deadline) {
  COIR_INSIDE;
  if (!system) return -EINVAL;
  if (is_called_inside(system)) return -EDEADLK;
  if (atm_load_acq(&system->rt->forked)) return -ENOTSUP;
  coir__job_gate_close(system);
  bool suspends = coir__me() && deadline > coir__os_now();
  int rc = suspends ? stop_suspending(system, deadline) : stop_blocking(system, deadline);
  if (rc) return rc;
  uint64_t failures = failures_of(system);
  return failures < INT32_MAX ? (int)failures : INT32_MAX;
}

char *coir_job_shutdown_message(int result, char *out, size_t bytes) {
  if (!out || !bytes) return out;
  if (result > 0) snprintf(out, bytes, "%d worker thread(s) panicked", result);
  else snprintf(out, bytes, "%s", !result ? "ok" : result == -ETIMEDOUT ? "shutdown timed out" : strerror(-result));
  return out;
}

void coir_job_system_destroy(struct coir_job_system *system) {
  if (!system) return;
  coir_shield_begin();
  int rc = coir_job_system_shutdown(system, COIR_NEVER);
  COIR_CHECK(rc != -EDEADLK, "a job system is not destroyed by its own jobs or fibers");
  /* Acquire: pairs with the release in shutdown_dispose(). */
  while (rc >= 0 && atm_load_acq(&system->visitors)) (void)coir_sleep(VISITORS_NAP);
  coir_shield_end();
  COIR_INSIDE;
  if (rc >= 0) system_free(system); /* else we are the child of a fork: it is the parent's, and stays */
}

/* ---- What can be asked of it ----------------------------------------------------------------------------------- */

struct coir__job_books *coir__job_books_of(struct coir_job_system *system, struct coir__worker *w) {
  return &system->books[w && w->rt == system->rt ? w->index : (uint32_t)system->config.threads];
}

struct coir_runtime *coir_job_system_runtime(struct coir_job_system *system) {
  return system ? system->rt : NULL;
}

int coir_job_system_workers(const struct coir_job_system *system) { return system ? system->config.threads : 0; }

/* Whether the fiber, which runs or is away, executes a job, or a part of one that was split off: then failures have
 * where to end on its stack. Which it leaves at any time. */
static PEEKS bool executes_job(const struct coir_fiber *f) {
  const struct coir__stack *s = PEEK(f->stack);
  return s && PEEK(s->nest);
}

/* Whether the thread, whose owner the caller is, executes a job of that runtime without a worker. */
static PEEKS bool executes_job_away(const struct coir__thread *t, const struct coir_runtime *rt) {
  const struct coir_fiber *f = atm_load_rlx(&t->worker) ? NULL : PEEK(t->away);
  return f && PEEK(f->rt) == rt && !atm_load_rlx(&t->paused) && executes_job(f);
}

static PEEKS int count_active(const struct coir_runtime *rt) {
  int active = 0;
  for (int i = 0; i < rt->worker_count; i++) {
    const struct coir_fiber *f = PEEK(rt->workers[i]->current);
    if (f && executes_job(f)) active++;
  }
  return active;
}

int coir_job_system_active(struct coir_job_system *system) {
  COIR_INSIDE;
  if (!system) return 0;
  int active = count_active(system->rt);
  for (struct coir__thread *t = coir__thread_first(); t; t = t->next) {
    if (!atm_load_rlx(&t->carries) || atm_load_rlx(&t->worker)) continue; /* most of them */
    coir__lock(&t->owner);
    if (executes_job_away(t, system->rt)) active++;
    coir__unlock(&t->owner);
  }
  return active;
}

int coir_job_system_metrics(struct coir_job_system *system, struct coir_job_metrics *out) {
  if (!system || !out) return -EINVAL;
  if (system->config.metrics != COIR_ON) return -ENOTSUP;
  struct coir_job_metrics m = {.jobs_failed = failures_of(system)};
  for (int i = 0; i <= system->config.threads; i++) {
    const struct coir__job_books *books = &system->books[i];
    m.jobs_completed += atm_load_rlx(&books->completed);
    m.local_queue_pushes += atm_load_rlx(&books->pushes);
    m.local_queue_pops += atm_load_rlx(&books->pops);
  }
  for (int i = 0; i < system->rt->worker_count; i++)
    m.worker_steals_retry += atm_load_rlx(&system->rt->workers[i]->counts.steals_lost);
  struct coir_stats stats;
  coir_runtime_get_stats(system->rt, &stats);
  m.global_injector_pushes = stats.injected;
  m.global_injector_pops = stats.injected_taken;
  m.worker_steals_success = stats.steal_hits;
  m.worker_steals_failed = stats.steals_attempted - stats.steal_hits;
  m.jobs_stolen = stats.steals;
  m.elapsed_seconds = (double)(coir__os_now() - system->created_at) / 1e9;
  m.jobs_per_second = m.elapsed_seconds > 0 ? (double)m.jobs_completed / m.elapsed_seconds : 0;
  m.local_queue_depth = (int64_t)(m.local_queue_pushes - m.local_queue_pops);
  m.global_queue_depth = (int64_t)(m.global_injector_pushes - m.global_injector_pops);
  *out = m;
  return 0;
}

static size_t workers_of(const struct coir_job_system *system) { return system ? (size_t)system->config.threads : 1; }

size_t coir_job_batch(const struct coir_job_system *system, size_t length, enum coir_grain grain) {
  static const size_t for_each[] = {
      [COIR_GRAIN_TRIVIAL] = 2, [COIR_GRAIN_LIGHT] = 4, [COIR_GRAIN_MODERATE] = 8, [COIR_GRAIN_HEAVY] = 16};
  bool exists = (unsigned)grain < sizeof for_each / sizeof for_each[0];
  size_t batch = length / (workers_of(system) * for_each[exists ? grain : COIR_GRAIN_LIGHT]);
  return batch ? batch : 1;
}

size_t coir_job_batch_of(const struct coir_job_system *system, size_t length, size_t parts) {
  if (!parts) parts = 4 * workers_of(system);
  size_t batch = length / parts + (length % parts != 0);
  return batch ? batch : 1;
}

/* ---- Memory for a frame ---------------------------------------------------------------------------------------- */

/* At the beginning of what comes from the heap. */
struct coir__job_extra {
  struct coir__job_extra *next;
};

/* Nobody else uses the books' list. */
static void extras_free(struct coir__job_books *books) {
  for (struct coir__job_extra *next, *extra = books->extras; extra; extra = next) {
    next = extra->next;
    coir__free(NULL, extra, 0);
  }
  books->extras = NULL;
}

static void *frame_alloc_extra(struct coir_job_system *system, struct coir__job_books *books, size_t bytes,
                               size_t align) {
  size_t more = sizeof(struct coir__job_extra) + align - 1;
  struct coir__job_extra *extra = bytes <= SIZE_MAX - more ? coir__alloc(NULL, bytes + more) : NULL;
  if (!extra) return NULL;
  bool is_shared = coir__job_books_are_shared(system, books);
  if (is_shared) coir__lock(&system->lock);
  extra->next = books->extras;
  books->extras = extra;
  if (is_shared) coir__unlock(&system->lock);
  return (void *)(((uintptr_t)extra + more) & ~(uintptr_t)(align - 1));
}

/* The shared books have no frame: memory is not asked for under a lock. */
void *coir_job_frame_alloc(struct coir_job *job, size_t bytes, size_t align) {
  COIR_INSIDE_ON(w);
  struct coir_job_system *system = coir_job_system_of(job);
  if (!align) align = 16;
  if (!system || (align & (align - 1)) || align > JOB_FRAME_ALIGN_MAX) return NULL;
  struct coir__job_books *books = coir__job_books_of(system, w);
  if (COIR_UNLIKELY(!books->frame) && !coir__job_books_are_shared(system, books))
    books->frame = coir_paged_frame_create(system->config.frame_bytes);
  void *memory = books->frame ? coir_paged_frame_alloc(books->frame, bytes, align) : NULL;
  return COIR_LIKELY(memory != NULL) ? memory : frame_alloc_extra(system, books, bytes, align);
}

/* Nobody asks for more meanwhile, so the books are ours. */
void coir_job_system_start_frame(struct coir_job_system *system) {
  COIR_INSIDE;
  for (int i = 0; system && i <= system->config.threads; i++) {
    struct coir__job_books *books = &system->books[i];
    if (books->frame) coir_paged_frame_reset(books->frame);
    extras_free(books);
  }
}
