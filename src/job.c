/* Jobs: records that become fibers when a worker comes to them.
 *
 * Goal: a job that never waits costs a cache line while it is queued and a call when it runs; one that waits is a
 * fiber like any other.
 *
 * A job from a job goes to its worker's deque as a tagged pointer to its record (types.h: struct coir__lean). A
 * worker that takes one binds a fiber to it, whose function is carrier_main: it runs the job, and then whatever jobs
 * are newest in the deque, one after the other, on the same fiber and stack, as long as nothing else wants the worker
 * (coir__runq_pop_job). When a job waits, its carrier waits with it, and the worker binds another for the next.
 *
 * Counting down is a locked instruction on a line that all workers want. A carrier puts it off while the jobs that it
 * runs are of one counter: that cannot become zero before the one that runs has ended, so nobody waits longer for
 * that.
 *
 * Jobs with a priority, a place, or a scope are fibers from the start, as are single ones from outside. Many from
 * outside are one fiber, which spreads them out where it comes to run.
 *
 * Records come from slabs, and free ones are kept in magazines, as descriptors are (slab.c): two at each worker, the
 * others in the system's depot. A free one keeps `lean`. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "job.h"

#define JOBS_SLAB_MIN ((size_t)64 << 10)
#define JOBS_SLAB_MAX ((size_t)4 << 20)
#define JOBS_SLAB_HUGE ((size_t)2 << 20)
#define SPREAD_LOOK 1024
#define JOBS_AHEAD 6 /* records to fetch ahead: another worker may have used them last */

/* What runs jobs, in the frame of its fiber; and what their functions get. */
struct coir_job {
  struct coir__nest nest;
  jmp_buf jump;
  struct coir__job *record; /* that runs, or is next; NULL: there are no more */
  struct coir_job_system *system;
  struct coir_counter *counter; /* of those that have ended and have not been counted down yet */
  uint64_t ended, failed;       /* how many these are, and how many of them have failed */
  int64_t began;                /* with trace: when it was begun, or last went on */
};

struct coir__job_slab {
  struct coir__job_slab *next;
  size_t bytes;
  struct coir__job jobs[];
};

/* ---- Records --------------------------------------------------------------------------------------------------- */

static struct coir_fiber *job_bind(struct coir__worker *w, struct coir__lean *lean);

/* system->lock is held, but not while the system is asked. */
static bool job_slab_add(struct coir_job_system *system) {
  size_t bytes = system->slabs ? system->slabs->bytes * 2 : JOBS_SLAB_MIN;
  if (bytes > JOBS_SLAB_MAX) bytes = JOBS_SLAB_MAX;
  coir__unlock(&system->lock);
  struct coir__job_slab *slab = coir__os_reserve(bytes, bytes, bytes >= JOBS_SLAB_HUGE);
  coir__lock(&system->lock);
  if (system->fresh != system->fresh_end) { /* somebody else was faster */
    if (slab) coir__os_release(slab, bytes);
    return true;
  }
  if (!slab) return false;
  slab->next = system->slabs;
  slab->bytes = bytes;
  system->slabs = slab;
  system->fresh = slab->jobs;
  system->fresh_end = slab->jobs + (bytes - sizeof *slab) / sizeof slab->jobs[0];
  return true;
}

/* Fills an empty magazine with fresh records. The lock is held. */
static void fill_fresh(struct coir_job_system *system, struct coir__job_magazine *m) {
  while (m->count < COIR__JOB_MAGAZINE) {
    if (system->fresh == system->fresh_end && !job_slab_add(system)) return;
    system->fresh->lean.bind = job_bind;
    m->jobs[m->count++] = system->fresh++;
  }
}

static struct coir__job_magazine *magazine_pop(struct coir__job_magazine **list) {
  struct coir__job_magazine *m = *list;
  if (m) *list = m->next;
  return m;
}

static void magazine_push(struct coir__job_magazine **list, struct coir__job_magazine *m) {
  if (!m) return;
  m->next = *list;
  *list = m;
}

/* The magazine of `b` is empty, or with `wants_room` full: puts the other one in its place, or one of the depot. False:
 * memory is short. */
static bool __attribute__((noinline)) magazine_change(struct coir_job_system *system, struct coir__job_books *b,
                                                     bool wants_room) {
  struct coir__job_magazine *other = b->other;
  b->other = b->loaded;
  b->loaded = other;
  if (other && (wants_room ? other->count < COIR__JOB_MAGAZINE : other->count > 0)) return true;
  coir__lock(&system->lock);
  struct coir__job_magazine *m = magazine_pop(wants_room ? &system->empty : &system->full);
  if (!m && !wants_room) m = magazine_pop(&system->empty);
  coir__unlock(&system->lock);
  if (!m && !(m = coir__alloc(NULL, sizeof *m))) return false;
  b->loaded = m;
  coir__lock(&system->lock);
  magazine_push(wants_room ? &system->full : &system->empty, other);
  if (!wants_room && m->count == 0) fill_fresh(system, m);
  coir__unlock(&system->lock);
  return wants_room || m->count > 0;
}

static inline struct coir__job *pop_free(struct coir_job_system *system, struct coir__job_books *b) {
  struct coir__job_magazine *m = b->loaded;
  if (COIR_UNLIKELY(!m || m->count == 0)) {
    if (!magazine_change(system, b, false)) return NULL;
    m = b->loaded;
  }
  struct coir__job *job = m->jobs[--m->count];
  if (COIR_LIKELY(m->count >= JOBS_AHEAD)) __builtin_prefetch(m->jobs[m->count - JOBS_AHEAD], 1);
  return job;
}

/* One for which there is no magazine is lost until the system goes. */
static inline void push_free(struct coir_job_system *system, struct coir__job_books *b, struct coir__job *job) {
  struct coir__job_magazine *m = b->loaded;
  if (COIR_UNLIKELY(!m || m->count == COIR__JOB_MAGAZINE)) {
    if (!magazine_change(system, b, true)) return;
    m = b->loaded;
  }
  m->jobs[m->count++] = job;
}

static inline bool is_own(const struct coir_job_system *system, const struct coir__worker *w) {
  return w && w->rt == system->rt;
}

static struct coir__job *job_take(struct coir_job_system *system, struct coir__worker *w) {
  if (COIR_LIKELY(is_own(system, w))) return pop_free(system, &system->books[w->index]);
  coir__lock(&system->shared_lock);
  struct coir__job *job = pop_free(system, coir__job_books_of(system, NULL));
  coir__unlock(&system->shared_lock);
  return job;
}

static void job_give(struct coir_job_system *system, struct coir__worker *w, struct coir__job *job) {
  if (COIR_LIKELY(is_own(system, w))) {
    push_free(system, &system->books[w->index], job);
    return;
  }
  coir__lock(&system->shared_lock);
  push_free(system, coir__job_books_of(system, NULL), job);
  coir__unlock(&system->shared_lock);
}

void coir__job_records_fini(struct coir_job_system *system) {
  for (struct coir__job_slab *next, *slab = system->slabs; slab; slab = next) {
    next = slab->next;
    coir__os_release(slab, slab->bytes);
  }
  for (int i = 0; i <= system->config.threads; i++) {
    magazine_push(&system->empty, system->books[i].loaded);
    magazine_push(&system->empty, system->books[i].other);
  }
  for (struct coir__job_magazine *m; (m = magazine_pop(&system->full)) || (m = magazine_pop(&system->empty));)
    coir__free(NULL, m, sizeof *m);
}

/* ---- Running --------------------------------------------------------------------------------------------------- */

static struct coir_fiber *job_entry(struct coir__job *job) {
  return (struct coir_fiber *)((uintptr_t)job | COIR__LEAN_JOB);
}

static inline bool is_traced(const struct coir_job *c) { return COIR_UNLIKELY(c->system->config.trace == COIR_ON); }

static void trace_slice(struct coir_job *c, struct coir__worker *w) {
  int64_t now = coir__os_now();
  coir__job_trace_add(c->system, w, c->record->name, (int)w->index, c->began, now);
  c->began = now;
}

/* Counts down what has been put off. */
static void job_settle(struct coir_job *c, struct coir__worker *w) {
  if (c->counter) coir__counter_sub(w, c->counter, c->ended, c->failed);
  c->counter = NULL;
  c->ended = c->failed = 0;
}

/* Whether the fiber is like a new one: what is only for it, or what a job left behind, must not meet the next job. */
static inline bool may_be_reused(const struct coir_fiber *f) {
  bool is_plain = !(f->b.flags & COIR__FIBER_SPECIAL) && !(f->b.more & (COIR__MORE_KIN | COIR__MORE_LOCALS));
  return is_plain && !(f->waiter.shield | f->waiter.holds | atm_load_rlx(&f->waiter.cancel));
}

/* The fiber is made to look new. */
static inline void renew(struct coir__worker *w, struct coir_fiber *f, const char *name) {
  *w->errno_location = 0;
  f->b.flags &= (uint8_t)~COIR__FIBER_VALUED;
  if (COIR_UNLIKELY(name || (f->b.flags & COIR__FIBER_NAMED))) coir_set_name(name);
}

/* The job has ended: its counter, its record; and what the carrier runs next, if anything. */
static void job_ended(struct coir_job *c, bool has_failed) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  COIR_CHECK(w, "a job ends where it runs: the child of a fork must call exec or _exit, a blocking section be left");
  struct coir__job *job = c->record;
  struct coir__job_books *b = &c->system->books[w->index];
  if (is_traced(c)) trace_slice(c, w);
  atm_bump(&b->completed, 1);
  if (COIR_UNLIKELY(has_failed)) {
    atm_bump(&b->failed, 1);
    (void)coir__thrown_take(w->thrown); /* whose handlers it has left */
  }
  struct coir_counter *counter = job->counter;
  if (COIR_UNLIKELY(job->copy)) coir__free(NULL, job->copy, 0);
  push_free(c->system, b, job);
  if (counter != c->counter) job_settle(c, w);
  c->counter = counter;
  c->ended++;
  c->failed += has_failed;
  struct coir__job *next = may_be_reused(w->current) ? (struct coir__job *)coir__runq_pop_job(w) : NULL;
  if (next && next->counter != counter) job_settle(c, w);
  /* Whom that has woken goes first. There is room: it has just been taken out. */
  bool is_woken = coir__runq_has_next(w) || w->bound.head || atm_load_rlx(&w->attention);
  if (next && is_woken && coir__runq_push_lean(w, job_entry(next))) {
    next = NULL;
    coir__idle_notify(w, true);
  }
  if (!next) job_settle(c, w);
  c->record = next;
  if (!next) return;
  atm_bump(&b->pops, 1);
  /* Release: as in the end of a fiber (fiber.c): each job counts as one, and this carrier for its last. */
  atm_store_rel(&w->counts.ended, atm_load_rlx(&w->counts.ended) + 1);
  renew(w, w->current, c->record->name);
}

static void carrier_begin(struct coir_job *c) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  c->system = w->rt->jobs;
  c->nest = (struct coir__nest){.boundary = &c->jump, .here = &w->current->stack->nest};
  c->began = is_traced(c) ? coir__os_now() : 0;
  w->current->stack->nest = &c->nest;
}

static int carrier_main(void *record) {
  struct coir_job c;
  c.record = record;
  c.counter = NULL;
  c.ended = c.failed = 0;
  carrier_begin(&c);
  if (_setjmp(c.jump)) job_ended(&c, true); /* here again when one fails */
  while (c.record) {
    c.record->fn(&c, c.record->arg);
    job_ended(&c, false);
  }
  *c.nest.here = NULL;
  return 0;
}

static struct coir_fiber *job_bind(struct coir__worker *w, struct coir__lean *lean) {
  struct coir__job *job = (struct coir__job *)lean;
  struct coir_attr attr = {.name = job->name};
  struct coir_fiber *f;
  if (coir__fiber_prepare(w->rt, w, carrier_main, job, job->name ? &attr : NULL, &f, true) == 0) {
    atm_bump(&w->rt->jobs->books[w->index].pops, 1);
    return f; /* it was counted as spawned when it was queued */
  }
  bool is_back = coir__runq_push_lean(w, job_entry(job)); /* there is room: it has just been taken out */
  COIR_CHECK(is_back, "no memory for a fiber");
  return NULL;
}

void coir__nest_fail(void) {
  for (;;) {
    uint32_t was = coir__go_in();
    struct coir__nest **here = coir__nest_here(), *nest = *here;
    struct coir__debt *owes = *coir__owes_here(coir__caller_on(NULL));
    coir__go_out(&was);
    COIR_CHECK(nest, "coir_job_fail is called in a job, a fork or a parallel loop");
    COIR_CHECK(!nest->boundary || owes == nest->owes, "what runs in coir_once_do or coir_flight_do does not fail");
    if (nest->boundary) longjmp(*nest->boundary, 1);
    coir__fork_abandon(nest);
    *here = nest->outer;
  }
}

void coir_job_fail(const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fprintf(stderr, "coir: job failed: %s\n", text);
  coir__nest_fail();
}

/* ---- Queueing -------------------------------------------------------------------------------------------------- */

/* By a worker of the system. False: no memory for the deque. */
static inline bool job_queue(struct coir__worker *w, struct coir__job_books *b, struct coir__job *job) {
  atm_bump(&w->counts.spawned, 1); /* before it can have ended: coir__live */
  if (COIR_UNLIKELY(!coir__runq_push_lean(w, job_entry(job)))) {
    atm_bump(&w->counts.spawned, UINT64_MAX);
    return false;
  }
  atm_bump(&b->pushes, 1);
  coir__idle_notify(w, true);
  return true;
}

static inline void record_fill(struct coir__job *job, coir_job_fn fn, void *arg, struct coir_counter *counter) {
  job->fn = fn;
  job->arg = arg;
  job->counter = counter;
  job->name = NULL;
  job->copy = NULL;
}

/* ---- Queueing from anywhere ------------------------------------------------------------------------------------ */

/* Jobs that are about to be queued: those with a fiber from the start, and those without. */
struct batch {
  struct coir_job_system *system;
  struct coir__worker *w; /* of the system, and the caller's; or NULL */
  size_t count;
  struct item {
    struct coir__job *job;
    struct coir_fiber *fiber; /* or NULL */
  } *items;
};

static int desc_check(const struct coir_job_system *system, const struct coir_job_desc *d, size_t n) {
  if (!d->fn || (d->copy_bytes && !d->arg) || (d->scope && n > 1)) return -EINVAL;
  if (d->priority < COIR_PRIORITY_LOW || d->priority > COIR_PRIORITY_HIGH) return -EINVAL;
  return d->worker > (uint32_t)system->rt->config.workers ? -EINVAL : 0; /* in simulation there are fewer */
}

static bool wants_fiber(const struct batch *batch, const struct coir_job_desc *d) {
  return d->priority || d->worker || d->pinned || (!batch->w && batch->count == 1);
}

/* Copies what the job is to have of its own. */
static int job_copy(struct coir__job *job, const void *bytes, size_t n) {
  job->arg = job->payload;
  if (n > sizeof job->payload) job->arg = job->copy = coir__alloc(NULL, n);
  if (!job->arg) return -ENOMEM;
  memcpy(job->arg, bytes, n);
  return 0;
}

static int item_make(struct batch *batch, struct item *item, const struct coir_job_desc *d,
                     struct coir_counter *counter) {
  struct coir__job *job = item->job = job_take(batch->system, batch->w);
  if (!job) return -ENOMEM;
  record_fill(job, d->fn, d->arg, counter);
  job->name = d->name;
  if (d->copy_bytes && job_copy(job, d->arg, d->copy_bytes)) return -ENOMEM;
  if (!wants_fiber(batch, d) || d->scope) return 0;
  struct coir_attr attr = {.name = d->name, .priority = d->priority, .worker = d->worker, .pinned = d->pinned};
  return coir__fiber_prepare(batch->system->rt, batch->w, carrier_main, job, &attr, &item->fiber, true);
}

static void batch_undo(struct batch *batch) {
  for (size_t i = 0; i < batch->count; i++) {
    struct item *item = &batch->items[i];
    if (item->fiber) coir__fiber_free(batch->w, item->fiber);
    if (!item->job) continue;
    coir__free(NULL, item->job->copy, 0);
    job_give(batch->system, batch->w, item->job);
  }
}

/* Many from outside: on a fiber of the system, which has the batch. The first is to run first. */
static int spread(void *arg) {
  struct batch *batch = arg;
  for (size_t i = batch->count; i-- > 0;) {
    for (struct coir__job *job = batch->items[i].job; job && !batch->items[i].fiber;) {
      uint32_t was = coir__go_in_to_wait_on(&batch->w, COIR_NEVER);
      bool is_queued = job_queue(batch->w, &batch->system->books[batch->w->index], job);
      coir__go_out(&was);
      if (is_queued) break;
      coir_yield(); /* no memory for the deque: until there is room in it */
    }
    if (i % SPREAD_LOOK == 0) coir__fork_breathe(coir__os_now());
  }
  coir__free(NULL, batch->items, 0);
  coir__free(NULL, batch, 0);
  return 0;
}

/* The batch that a fiber takes over, if need be. */
static int spread_prepare(const struct batch *batch, struct coir_fiber **out, struct batch **taken) {
  *out = NULL;
  *taken = NULL;
  if (batch->w || batch->count == 1) return 0;
  *taken = coir__alloc(NULL, sizeof **taken);
  return *taken ? coir__fiber_prepare(batch->system->rt, NULL, spread, *taken, NULL, out, true) : -ENOMEM;
}

/* Whether the worker's deque has room for so many. */
static bool deque_has_room(struct coir__worker *w, size_t n) {
  uint64_t used = atm_load_rlx(&w->q.bottom) - atm_load_acq(&w->q.top);
  while (atm_load_rlx(&w->q.deque)->mask + 1 - used < n)
    if (!coir__runq_deque_grow(w)) return false;
  return true;
}

static void batch_publish(struct batch *batch, struct coir_fiber *spreader, struct batch *taken) {
  for (size_t i = 0; i < batch->count; i++) {
    struct item *item = &batch->items[i];
    if (item->fiber) coir__fiber_publish(batch->w, item->fiber, NULL);
    else if (!spreader) job_queue(batch->w, &batch->system->books[batch->w->index], item->job);
  }
  if (!spreader) return;
  *taken = *batch;
  coir__fiber_publish(NULL, spreader, NULL);
}

static int batch_submit(struct batch *batch, const struct coir_job_desc *jobs, struct coir_counter *counter) {
  struct coir_fiber *spreader = NULL;
  struct batch *taken = NULL;
  struct coir_scope *scope = jobs[0].scope;
  int rc = batch->w && !deque_has_room(batch->w, batch->count) ? -ENOMEM : 0;
  for (size_t i = 0; i < batch->count && !rc; i++) rc = item_make(batch, &batch->items[i], &jobs[i], counter);
  if (!rc && !scope) rc = spread_prepare(batch, &spreader, &taken);
  if (!rc && counter) coir_counter_add(counter, batch->count);
  if (!rc && scope) {
    struct coir_attr attr = {
        .name = jobs->name, .priority = jobs->priority, .worker = jobs->worker, .pinned = jobs->pinned};
    rc = coir__scope_spawn(batch->system->rt, batch->w, scope, carrier_main, batch->items->job, &attr, NULL);
    if (rc && counter) coir__counter_sub(batch->w, counter, 1, 0);
  } else if (!rc) {
    batch_publish(batch, spreader, taken);
  }
  if (rc) {
    batch_undo(batch);
    coir__free(NULL, taken, 0);
  }
  return rc;
}

/* From outside: whether the system still takes jobs. Then entering is to be taken down again. */
static bool gate_enter(struct coir_job_system *system) {
  atm_add_sc(&system->entering, 1); /* before the look; pairs with coir__job_gate_close */
  if (!atm_load_sc(&system->is_shut)) return true;
  atm_sub_rel(&system->entering, 1);
  return false;
}

void coir__job_gate_close(struct coir_job_system *system) {
  atm_store_sc(&system->is_shut, 1);
  while (atm_load_sc(&system->entering)) coir__os_thread_yield();
}

/* w: the caller's, if it is of the system; or NULL. */
static int submit_from(struct coir_job_system *system, struct coir__worker *w, const struct coir_job_desc *jobs,
                       size_t n, struct coir_counter **counter) {
  struct item one = {.job = NULL}, *many = NULL;
  if (n > 1 && n <= SIZE_MAX / sizeof one) many = coir__alloc(NULL, n * sizeof one);
  struct batch batch = {.system = system, .w = w, .count = n, .items = many ? many : &one};
  bool is_new = counter && !*counter;
  int rc = n > 1 && !many ? -ENOMEM : 0;
  if (is_new && !(*counter = coir_counter_create(0))) rc = -ENOMEM;
  if (!rc && n) rc = batch_submit(&batch, jobs, counter ? *counter : NULL);
  if (rc || w) coir__free(NULL, many, 0); /* else a fiber has it */
  if (rc && is_new) {
    coir_counter_unref(*counter);
    *counter = NULL;
  }
  return rc;
}

/* The usual case of a job that spawns one. */
static inline int spawn_one(struct coir_job_system *system, coir_job_fn fn, void *arg, struct coir_counter *counter) {
  COIR_INSIDE_ON(w);
  if (COIR_UNLIKELY(!fn)) return -EINVAL;
  if (COIR_UNLIKELY(!is_own(system, w))) { /* its worker has been taken away, or given */
    struct coir_job_desc desc = {.fn = fn, .arg = arg};
    return submit_from(system, NULL, &desc, 1, counter ? &counter : NULL);
  }
  struct coir__job_books *b = &system->books[w->index];
  struct coir__job *job = pop_free(system, b);
  if (COIR_UNLIKELY(!job)) return -ENOMEM;
  record_fill(job, fn, arg, counter);
  if (counter) coir_counter_add(counter, 1);
  if (COIR_LIKELY(job_queue(w, b, job))) return 0;
  push_free(system, b, job);
  if (counter) coir__counter_sub(w, counter, 1, 0);
  return -ENOMEM;
}

int coir_job_spawn_with(struct coir_job *job, struct coir_counter *counter, coir_job_fn fn, void *arg) {
  return job && counter ? spawn_one(job->system, fn, arg, counter) : -EINVAL;
}

int coir_job_spawn_detached(struct coir_job *job, coir_job_fn fn, void *arg) {
  return job ? spawn_one(job->system, fn, arg, NULL) : -EINVAL;
}

struct coir_counter *coir_job_spawn(struct coir_job *job, coir_job_fn fn, void *arg) {
  struct coir_counter *counter = job && fn ? coir_counter_create(0) : NULL;
  if (!counter || spawn_one(job->system, fn, arg, counter) == 0) return counter;
  coir_counter_unref(counter);
  return NULL;
}

int coir_job_submit(struct coir_job_system *system, const struct coir_job_desc *jobs, size_t n,
                    struct coir_counter **counter) {
  COIR_INSIDE_ON(w);
  if (!system || (!jobs && n)) return -EINVAL;
  if (atm_load_acq(&system->rt->forked)) return -ENOTSUP;
  for (size_t i = 0; i < n; i++)
    if (desc_check(system, &jobs[i], n)) return -EINVAL;
  bool is_inside = is_own(system, w) && w->current;
  const struct coir_fiber *me = coir__me();
  /* Whose own end shutdown waits for. */
  bool is_member = is_inside || (me && me->rt == system->rt) || coir__away_from() == system->rt;
  if (!is_member && !gate_enter(system)) return -ESHUTDOWN;
  int rc = submit_from(system, is_inside ? w : NULL, jobs, n, counter);
  if (!is_member) atm_sub_rel(&system->entering, 1);
  return rc;
}

static struct coir_counter *submit_new(struct coir_job_system *system, const struct coir_job_desc *jobs, size_t n) {
  struct coir_counter *counter = NULL;
  return coir_job_submit(system, jobs, n, &counter) == 0 ? counter : NULL;
}

struct coir_counter *coir_job_run(struct coir_job_system *system, coir_job_fn fn, void *arg) {
  return submit_new(system, &(struct coir_job_desc){.fn = fn, .arg = arg}, 1);
}

struct coir_counter *coir_job_run_priority(struct coir_job_system *system, enum coir_priority priority,
                                           coir_job_fn fn, void *arg) {
  return submit_new(system, &(struct coir_job_desc){.fn = fn, .arg = arg, .priority = priority}, 1);
}

struct coir_counter *coir_job_run_copy(struct coir_job_system *system, coir_job_fn fn, const void *payload,
                                       size_t bytes) {
  struct coir_job_desc desc = {.fn = fn, .arg = (void *)(uintptr_t)payload, .copy_bytes = bytes};
  return submit_new(system, &desc, 1);
}

struct coir_counter *coir_job_run_many(struct coir_job_system *system, const struct coir_job_desc *jobs, size_t n) {
  return submit_new(system, jobs, n);
}

struct coir_counter *coir_job_spawn_many(struct coir_job *job, const struct coir_job_desc *jobs, size_t n) {
  return job ? submit_new(job->system, jobs, n) : NULL;
}

/* ---- Parts ----------------------------------------------------------------------------------------------------- */

struct part_start {
  coir_job_fn fn;
  void *arg;
  uint64_t payload;
};

/* From here on the job is as those that are split off. */
static void start_part(struct coir_job *job, void *start) {
  const struct part_start *p = start;
  struct coir__job *record = job->record;
  record->fn = p->fn;
  record->arg = p->arg;
  record->payload[0] = p->payload;
  record->fn(job, record->arg);
}

int coir__job_submit_part(struct coir_job_system *system, coir_job_fn fn, void *arg, uint64_t payload,
                          struct coir_counter *counter) {
  struct part_start start = {fn, arg, payload};
  struct coir_job_desc desc = {.fn = start_part, .arg = &start, .copy_bytes = sizeof start};
  return coir_job_submit(system, &desc, 1, &counter);
}

int coir__job_split(struct coir_job *job, uint64_t payload) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  COIR_CHECK(w, "the child of a fork must call exec or _exit");
  const struct coir__job *record = job->record;
  struct coir__job_books *b = &job->system->books[w->index];
  struct coir__job *part = pop_free(job->system, b);
  if (!part) return -ENOMEM;
  record_fill(part, record->fn, record->arg, record->counter);
  part->payload[0] = payload;
  part->name = record->name;
  if (job_queue(w, b, part)) return 0;
  push_free(job->system, b, part);
  return -ENOMEM;
}

uint64_t coir__job_payload(const struct coir_job *job) { return job->record->payload[0]; }

void coir__job_count_down(struct coir_job *job, bool has_failed) {
  COIR_INSIDE_ON(w);
  coir__counter_sub(w, job->record->counter, 1, has_failed);
}

/* ---- In a job -------------------------------------------------------------------------------------------------- */

struct coir_job_system *coir_job_system_of(const struct coir_job *job) { return job ? job->system : NULL; }

struct coir_job_system *coir_job_system_current(void) {
  COIR_INSIDE;
  const struct coir_fiber *f = coir__me();
  return f ? f->rt->jobs : NULL;
}

/* Around what may suspend a job: with trace it is an event for each time that it runs. */
static void pause_trace(struct coir_job *job) {
  COIR_INSIDE_TO_WAIT_ON(w, COIR_NEVER);
  if (w && job && is_traced(job)) trace_slice(job, w); /* none in a section of coir_block_enter */
}
static void resume_trace(struct coir_job *job) {
  if (job && is_traced(job)) job->began = coir__os_now();
}

int coir_job_wait(struct coir_job *job, struct coir_counter *counter) {
  pause_trace(job);
  int rc = coir_counter_wait(counter, COIR_NEVER);
  resume_trace(job);
  return rc;
}

int coir_job_wait_yielding(struct coir_job *job, struct coir_counter *counter) {
  if (!counter) return -EINVAL;
  if (job && job->system->config.enable_yielding == COIR_OFF) return coir_job_wait(job, counter);
  while (!coir_counter_is_complete(counter)) job ? coir_job_yield(job) : coir_job_yield_now();
  return coir_counter_wait(counter, 0);
}

static void yield_in(const struct coir_job_system *system) {
  if (system && system->config.enable_yielding == COIR_OFF) coir__os_thread_yield();
  else coir_yield();
}

void coir_job_yield(struct coir_job *job) {
  if (!job) return;
  if (COIR_UNLIKELY(is_traced(job))) pause_trace(job);
  yield_in(job->system);
  if (COIR_UNLIKELY(is_traced(job))) resume_trace(job);
}

void coir_job_yield_now(void) { yield_in(coir_job_system_current()); }

/* ---- Calls into a system --------------------------------------------------------------------------------------- */

/* In the caller's frame. */
struct system_call {
  coir_task_fn fn;
  void *arg;
  int rc;
};

static void run_system_call(struct coir_job *job, void *arg) {
  (void)job;
  struct system_call *call = arg;
  call->rc = coir__guarded(call->fn, call->arg);
}

static int call_elsewhere(struct coir_job_system *system, coir_task_fn fn, void *arg) {
  struct system_call call = {.fn = fn, .arg = arg};
  struct coir_counter in_frame, *counter = &in_frame;
  coir_counter_init(counter, 0);
  int rc = coir_job_submit(system, &(struct coir_job_desc){.fn = run_system_call, .arg = &call}, 1, &counter);
  if (rc) return rc;
  coir__counter_wait_bound(counter);
  return call.rc;
}

int coir__job_call(struct coir_job_system *system, coir_task_fn fn, void *arg) {
  uint32_t was = coir__go_in();
  const struct coir_fiber *me = coir__me();
  bool is_here = !system || (me && me->rt == system->rt), is_nested = *coir__nest_here() != NULL;
  coir__go_out(&was);
  int rc = 0;
  if (!is_here) rc = call_elsewhere(system, fn, arg);
  else if (is_nested) fn(arg);
  else return coir__guarded(fn, arg);
  if (rc == -ECANCELED && is_nested) coir__nest_fail();
  return rc;
}
