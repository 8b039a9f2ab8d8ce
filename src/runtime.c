/* Runtimes: making, running, starting, stopping, destroying.
 *
 * Phases: OFF -> RUN (coir_runtime_run: until no fiber is left) or SERVE (coir_runtime_start: until
 * coir_runtime_stop) -> HALT (workers leave their loops) -> OFF. Who changes a phase holds `control`, except that in
 * RUN the worker that finds no fiber left sets HALT.
 *
 * The end is noticed at the idle edge: a fiber that ends only counts itself; a worker that then finds nothing to do
 * adds up (coir__live). So the last to go idle after the last end sees zero. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define STOP_ROUNDS 4

static pthread_mutex_t runtimes_lock = PTHREAD_MUTEX_INITIALIZER;
static struct coir_runtime *runtimes;                            /* (l) runtimes_lock */
static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER; /* before runtimes_lock */
static _Atomic(struct coir_runtime *) default_runtime;           /* (a) written under default_lock */
static struct coir_config default_config;                        /* (l) default_lock */
static _Atomic(int) runtimes_on;                                 /* (a) whose phase is not OFF */

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

void *coir__alloc(struct coir_runtime *rt, size_t bytes) {
  if (COIR_UNLIKELY(coir__os_is_simulated()) && coir__sim_fails()) return NULL;
  if (!rt || !rt->config.alloc) return calloc(1, bytes);
  void *p = rt->config.alloc(bytes, rt->config.alloc_arg);
  return p ? memset(p, 0, bytes) : NULL;
}

void coir__free(struct coir_runtime *rt, void *memory, size_t bytes) {
  if (!memory) return;
  if (!rt || !rt->config.alloc) free(memory);
  else rt->config.free(memory, bytes, rt->config.alloc_arg);
}

/* ---- fork: the child's runtimes are dead ----------------------------------------------------------------------- */

static uint32_t in_before_fork;            /* (l) runtimes_lock */
static _Atomic(uint32_t) process_is_ready; /* coir__os_once: the handlers of fork are there */

/* Who forks holds locks, so it is not to be paused meanwhile; and inside it is not. */
static void before_fork(void) {
  uint32_t was = coir__go_in();
  pthread_mutex_lock(&default_lock);
  pthread_mutex_lock(&runtimes_lock);
  coir__stack_fork_prepare();
  in_before_fork = was;
}

static void after_fork(void) {
  uint32_t was = in_before_fork;
  coir__stack_fork_done();
  pthread_mutex_unlock(&runtimes_lock);
  pthread_mutex_unlock(&default_lock);
  coir__go_out(&was);
}

/* The child has one thread, and none of the workers. What it inherited cannot be used or even freed; forget it. */
static void in_child(void) {
  coir__os_once_done(&process_is_ready);
  for (struct coir_runtime *rt = runtimes; rt; rt = rt->next) atm_store_rlx(&rt->forked, 1);
  runtimes = NULL;
  atm_store_rlx(&default_runtime, NULL);
  atm_store_rlx(&runtimes_on, 0);
  struct coir__thread *t = coir__thread_peek();
  if (t) {
    atm_store_rlx(&t->worker, NULL);
    t->away = NULL;
  }
  coir__idle_fork_child();
  coir__os_look_fork_child();
  coir__os_pause_fork_child();
#if defined(COIR_TRACE)
  coir__trace_fork_child();
#endif
  coir__poll_fork_child();
  coir__block_fork_child();
  coir__bias_fork_child();
  coir__raw_fork_child();
  coir__keeper_fork_child(); /* its own handler may have been registered while this fork was on its way */
  after_fork();
}

/* The handlers of what comes later are called first: nobody may wait for its turn in before_fork() with the lock of the
 * threads' records. */
static int make_process_ready(void) {
  coir__os_fence_init();
  if (!coir__thread_get()) return -ENOMEM;
  return -pthread_atfork(before_fork, after_fork, in_child);
}

int coir__forks_init(void) { return coir__os_once(&process_is_ready, make_process_ready); }

/* ---- Making and freeing ---------------------------------------------------------------------------------------- */

static void set_tuning(struct coir__tuned *to, const struct coir_tuning *t) {
  atm_store_rlx(&to->steal, t->steal > 0);
  atm_store_rlx(&to->steal_min_live, t->steal_min_live < 0 ? 0 : t->steal_min_live);
  atm_store_rlx(&to->steal_min_victim, t->steal_min_victim < 1 ? 1 : t->steal_min_victim);
  atm_store_rlx(&to->affinity, t->affinity > 0);
  atm_store_rlx(&to->rebalance, t->rebalance > 0);
  atm_store_rlx(&to->rebalance_threshold, t->rebalance_threshold < 1 ? 1 : t->rebalance_threshold);
  atm_store_rlx(&to->rebalance_interval_ms, t->rebalance_interval_ms < 1 ? 1 : t->rebalance_interval_ms);
}

void coir_runtime_set_tuning(struct coir_runtime *runtime, const struct coir_tuning *tuning) {
  COIR_INSIDE;
  if (!runtime || !tuning) return;
  int interval = atm_load_rlx(&runtime->tuned.rebalance_interval_ms);
  set_tuning(&runtime->tuned, tuning);
  if (interval != atm_load_rlx(&runtime->tuned.rebalance_interval_ms)) atm_store_rlx(&runtime->rebalance_at, 0);
  if (!atm_load_acq(&runtime->forked)) coir__idle_attention(runtime); /* who sleeps may have more to do now */
}

void coir_runtime_get_tuning(const struct coir_runtime *runtime, struct coir_tuning *out) {
  if (!runtime || !out) return;
  const struct coir__tuned *t = &runtime->tuned;
  *out = (struct coir_tuning){
      .steal = atm_load_rlx(&t->steal),
      .steal_min_live = atm_load_rlx(&t->steal_min_live),
      .steal_min_victim = atm_load_rlx(&t->steal_min_victim),
      .affinity = atm_load_rlx(&t->affinity),
      .rebalance = atm_load_rlx(&t->rebalance),
      .rebalance_threshold = atm_load_rlx(&t->rebalance_threshold),
      .rebalance_interval_ms = atm_load_rlx(&t->rebalance_interval_ms),
  };
}

static void release(struct coir_runtime *rt) {
  while (atm_load_acq(&rt->visitors)) coir__os_thread_yield(); /* pairs with the releases in fiber.c and wait.c */
  coir__slabs_destroy(rt);
  coir__sim_destroy(rt);
  coir__monitor_destroy(rt);
  for (int i = 0; rt->workers && i < rt->worker_count; i++) coir__worker_destroy(rt->workers[i]);
  int pollers = rt->poller_count ? rt->poller_count : rt->worker_count;
  for (int i = 0; rt->pollers && i < pollers; i++) coir__poller_destroy(rt->pollers[i]);
  coir__depot_destroy(rt);
  coir__free(rt, rt->workers, (size_t)rt->worker_count * sizeof *rt->workers);
  coir__free(rt, rt->pollers, (size_t)pollers * sizeof *rt->pollers);
  coir__free(rt, rt->posts, (size_t)pollers * sizeof *rt->posts);
  pthread_mutex_destroy(&rt->control);
  pthread_cond_destroy(&rt->ended);
  struct coir_config c = rt->config; /* the hook outlives what it gave */
  if (c.alloc) c.free(rt->memory, sizeof *rt + COIR__LINE, c.alloc_arg);
  else free(rt->memory);
}

static struct coir_runtime *runtime_alloc(const struct coir_config *c) {
  size_t bytes = sizeof(struct coir_runtime) + COIR__LINE;
  void *memory = c->alloc ? c->alloc(bytes, c->alloc_arg) : malloc(bytes);
  if (!memory) return NULL;
  struct coir_runtime *rt = coir__line_up(memset(memory, 0, bytes));
  rt->memory = memory;
  rt->config = *c;
  return rt;
}

static int make_parts(struct coir_runtime *rt) {
  int pollers = rt->poller_count ? rt->poller_count : rt->worker_count;
  rt->workers = coir__alloc(rt, (size_t)rt->worker_count * sizeof *rt->workers);
  rt->pollers = coir__alloc(rt, (size_t)pollers * sizeof *rt->pollers);
  rt->posts = coir__alloc(rt, (size_t)pollers * sizeof *rt->posts);
  if (!rt->workers || !rt->pollers || !rt->posts) return -ENOMEM;
  int rc = coir__depot_create(rt);
  for (int i = 0; i < pollers && !rc; i++) rc = coir__poller_create(&rt->pollers[i], rt);
  for (int i = 0; i < rt->worker_count && !rc; i++) rc = coir__worker_create(rt, i);
  for (int i = 0; i < rt->worker_count && !rc; i++) rt->workers[i]->poller = rt->pollers[i % pollers];
  for (int i = 0; i < pollers && !rc; i++)
    rt->posts[i] = (struct coir__post){.poller = rt->pollers[i], .rt = rt, .index = i};
  return rc;
}

int coir_runtime_create(struct coir_runtime **out, const struct coir_config *config) {
  COIR_INSIDE;
  if (!out) return -EINVAL;
  *out = NULL;
  struct coir_config c;
  int rc = coir__forks_init();
  if (!rc) rc = coir__config_fill(&c, config);
  if (rc) return rc;
  struct coir_runtime *rt = runtime_alloc(&c);
  if (!rt) return -ENOMEM;
  pthread_mutex_init(&rt->control, NULL);
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&rt->ended, &monotonic);
  pthread_condattr_destroy(&monotonic);
  rt->worker_count = c.sim_seed ? 1 : c.workers;
  rt->poller_count = c.pollers;
  rt->is_partitioned = c.poll_partition;
  atm_store_rlx(&rt->fence_ns, 1000); /* a guess, until there are measurements */
  rt->stack_class = coir__stack_class(c.stack_bytes);
  rt->fiber_bits = (struct coir__fiber_bits){.flags = c.migrate ? COIR__FIBER_MIGRATE : 0, .worker = -1};
  set_tuning(&rt->tuned, &(struct coir_tuning){c.steal, c.steal_min_live, c.steal_min_victim, c.affinity, c.rebalance,
                                               c.rebalance_threshold, c.rebalance_interval_ms});
  if (c.preempt) rt->fiber_bits.more |= COIR__MORE_PREEMPT;
  rc = make_parts(rt);
  if (!rc && c.sim_seed) rc = coir__sim_create(rt);
  if (!rc) rc = coir__monitor_create(rt);
  if (!rc && c.preempt) rc = coir__preempt_want(rt);
  if (rc) {
    release(rt);
    return rc;
  }
  pthread_mutex_lock(&runtimes_lock);
  rt->next = runtimes;
  runtimes = rt;
  pthread_mutex_unlock(&runtimes_lock);
  *out = rt;
  return 0;
}

int coir_runtime_destroy(struct coir_runtime *runtime) {
  COIR_INSIDE;
  if (!runtime) return 0;
  if (runtime == atm_load_acq(&default_runtime)) return -EINVAL;
  if (atm_load_acq(&runtime->forked)) return -ENOTSUP;
  pthread_mutex_lock(&runtime->control);
  bool busy = atm_load_acq(&runtime->phase) != COIR__PHASE_OFF || runtime->serving;
  pthread_mutex_unlock(&runtime->control);
  if (busy) return -EBUSY;
  pthread_mutex_lock(&runtimes_lock);
  for (struct coir_runtime **at = &runtimes; *at; at = &(*at)->next)
    if (*at == runtime) {
      *at = runtime->next;
      break;
    }
  pthread_mutex_unlock(&runtimes_lock);
  coir__fibers_drop(runtime);
  release(runtime);
  return 0;
}

/* ---- The default runtime --------------------------------------------------------------------------------------- */

int coir_configure(const struct coir_config *config) {
  struct coir_config filled;
  if (!config || coir__config_fill(&filled, config)) return -EINVAL;
  int rc = -EBUSY;
  pthread_mutex_lock(&default_lock);
  if (!atm_load_rlx(&default_runtime)) {
    /* As it was given, not as filled in: a switch that is off would look like one that was left alone. */
    memset(&default_config, 0, sizeof default_config);
    memcpy(&default_config, config, config->size ? config->size : sizeof default_config);
    default_config.size = sizeof default_config;
    rc = 0;
  }
  pthread_mutex_unlock(&default_lock);
  return rc;
}

struct coir_runtime *coir_runtime_default(void) {
  struct coir_runtime *rt = atm_load_acq(&default_runtime);
  if (COIR_LIKELY(rt != NULL)) return rt;
  if (coir__forks_init() != 0) return NULL; /* before the lock is held for long */
  pthread_mutex_lock(&default_lock);
  rt = atm_load_acq(&default_runtime);
  if (!rt && coir_runtime_create(&rt, default_config.size ? &default_config : NULL) == 0)
    atm_store_rel(&default_runtime, rt); /* pairs with the acquire above */
  pthread_mutex_unlock(&default_lock);
  return rt;
}

int coir_run(coir_fn fn, void *arg) {
  if (!fn) return -EINVAL;
  struct coir_runtime *rt = coir_runtime_default();
  if (!rt) return -ENOMEM;
  int status = 0, rc = coir_runtime_run(rt, fn, arg, &status);
  return rc ? rc : status;
}

/* ---- Running --------------------------------------------------------------------------------------------------- */

/* Threads are made first and held back, so that when one cannot be made no fiber has run. */
void coir__runtime_wait_for_go(struct coir_runtime *rt) {
  while (atm_load_acq(&rt->phase) == COIR__PHASE_STARTING)
    coir__os_futex_wait(&rt->phase, COIR__PHASE_STARTING, COIR_NEVER);
}

/* Nobody else changes it from OFF, or to OFF. */
static void set_phase(struct coir_runtime *rt, enum coir__phase phase) {
  bool was_off = atm_load_rlx(&rt->phase) == COIR__PHASE_OFF, is_off = phase == COIR__PHASE_OFF;
  bool counts = was_off != is_off && !atm_load_rlx(&rt->forked);
  if (counts && !is_off) atm_add_sc(&runtimes_on, 1); /* before any of its threads does something, and below after */
  atm_store_sc(&rt->phase, (uint32_t)phase);
  if (counts && is_off) atm_sub_sc(&runtimes_on, 1);
  coir__os_futex_wake(&rt->phase, 1 << 30);
}

static void *worker_thread(void *worker) {
  struct coir__worker *w = worker;
  coir__runtime_wait_for_go(w->rt);
  coir__carry(w, true);
  return NULL;
}

static void *poller_thread(void *arg) {
  struct coir__post *post = arg;
  coir__runtime_wait_for_go(post->rt);
  coir__idle_mind(post);
  return NULL;
}

/* The monitor and its helper first: they make threads. */
static void join_threads(struct coir_runtime *rt, int first, int workers, int pollers) {
  coir__monitor_join(rt);
  for (int i = first; i < workers; i++) pthread_join(rt->workers[i]->pthread, NULL);
  coir__carry_join(rt);
  for (int i = 0; i < pollers; i++) pthread_join(rt->posts[i].pthread, NULL);
}

static int start_poller(struct coir_runtime *rt, int i) {
  struct coir__post *post = &rt->posts[i];
  atm_store_rlx(&post->bell, COIR__BELL_NAPS);
  return coir__os_thread_start(&post->pthread, "coir-poller", poller_thread, post);
}

void coir__runtime_let_threads_end(struct coir_runtime *rt) { set_phase(rt, COIR__PHASE_HALT); }

static int make_alt_stacks(struct coir_runtime *rt) {
  for (int i = 0; i < rt->worker_count; i++)
    if (!(rt->workers[i]->alt_stack = coir__alt_stack_make())) return -ENOMEM;
  return 0;
}

/* Those that no thread has taken. */
static void drop_alt_stacks(struct coir_runtime *rt) {
  for (int i = 0; i < rt->worker_count; i++) {
    coir__alt_stack_free(rt->workers[i]->alt_stack);
    rt->workers[i]->alt_stack = NULL;
  }
}

/* Starts the threads of workers `first`.. and of the pollers; they wait for the phase. On error none is left. */
static int start_threads(struct coir_runtime *rt, int first) {
  int rc = make_alt_stacks(rt), workers = first, pollers = 0;
  bool is_empty = coir__fibers_left(rt) == 0;
  for (int i = 0; i < rt->worker_count && is_empty; i++) atm_store_rlx(&rt->workers[i]->has_pinned, 0);
  set_phase(rt, COIR__PHASE_STARTING);
  if (!rc) rc = coir__monitor_start(rt);
  bool is_monitored = !rc;
  while (!rc && pollers < rt->poller_count && (rc = start_poller(rt, pollers)) == 0) pollers++;
  while (!rc && workers < rt->worker_count) {
    struct coir__worker *w = rt->workers[workers];
    rc = coir__os_thread_start(&w->pthread, "coir-worker", worker_thread, w);
    if (!rc) workers++;
  }
  if (!rc) return 0;
  set_phase(rt, COIR__PHASE_HALT);
  if (is_monitored) coir__monitor_dismiss(rt);
  for (int i = 0; i < pollers; i++) coir__idle_dismiss(&rt->posts[i]);
  if (is_monitored) join_threads(rt, first, workers, pollers);
  drop_alt_stacks(rt);
  set_phase(rt, COIR__PHASE_OFF);
  return rc;
}

/* Everything before worker 0 begins: threads, and the first fiber, on worker 0. */
static int run_begin(struct coir_runtime *rt, coir_fn fn, void *arg, struct coir_fiber **handle) {
  if (atm_load_acq(&rt->phase) != COIR__PHASE_OFF) return -EBUSY;
  atm_store_rlx(&rt->hosts, !coir__thread_peek()->is_own);
  int rc = start_threads(rt, 1);
  if (rc) return rc;
  if (fn) rc = coir_runtime_spawn(rt, fn, arg, &(struct coir_attr){.worker = COIR_WORKER(0)}, handle);
  /* What was spawned before starts in its order, as far as nobody steals it, and the first of it first. */
  coir__lane_to_ring(rt->workers[0]);
  atm_store_rlx(&rt->workers[0]->is_unstarted, coir__runq_length(rt->workers[0]) != 0);
  set_phase(rt, rc ? COIR__PHASE_HALT : COIR__PHASE_RUN);
  if (!rc) return 0;
  coir__monitor_dismiss(rt);
  for (int i = 0; i < rt->poller_count; i++) coir__idle_dismiss(&rt->posts[i]);
  join_threads(rt, 1, rt->worker_count, rt->poller_count);
  drop_alt_stacks(rt);
  set_phase(rt, COIR__PHASE_OFF);
  return rc;
}

/* Whether fibers were spawned or resumed from outside since the last one ended, by somebody who took it that the
 * runtime runs. The phase is off before the look; who resumes a generator of a runtime that it finds off sees to it
 * itself (gen.c), so one of the two notices. `control` is held. */
static bool has_latecomers(struct coir_runtime *rt) {
  set_phase(rt, COIR__PHASE_OFF);
  atomic_thread_fence(memory_order_seq_cst); /* pairs with the sequentially consistent count and look in gen.c */
  return coir__live(rt) != 0;
}

/* The first fiber has ended: gives up its handle, and returns its status. */
static int first_status(struct coir_fiber *first) {
  struct coir_result result;
  int rc = coir_join(first, &result, 0);
  COIR_CHECK(rc == 0, "the first fiber has ended when none is left");
  return result.status;
}

enum ran { RAN_OUT, RAN_LATECOMERS, RAN_DEADLOCK };

/* Runs until no fiber is left, with the calling thread as worker 0, all threads having begun. With latecomers it is to
 * be called again. With RAN_OUT it is off, and may be destroyed at any moment: so the handle has been given up. */
static enum ran run_on(struct coir_runtime *rt, struct coir_fiber **handle, int *status) {
  coir__carry(rt->workers[0], false);
  join_threads(rt, 1, rt->worker_count, rt->poller_count);
  if (atm_load_acq(&rt->deadlocked)) return RAN_DEADLOCK;
  if (*handle) *status = first_status(*handle);
  *handle = NULL;
  pthread_mutex_lock(&rt->control);
  bool again = has_latecomers(rt) && start_threads(rt, 1) == 0;
  if (again) set_phase(rt, COIR__PHASE_RUN);
  pthread_mutex_unlock(&rt->control);
  return again ? RAN_LATECOMERS : RAN_OUT;
}

/* What stood still behind a shield is dropped, and it is as new. */
static void end_deadlock(struct coir_runtime *rt, struct coir_fiber *handle, int *status) {
  coir__fibers_drop(rt);
  if (handle) *status = first_status(handle);
  atm_store_rlx(&rt->deadlocked, 0);
  atm_store_rlx(&rt->cancel_all, 0);
  set_phase(rt, COIR__PHASE_OFF); /* last: see run_on() */
}

int coir_runtime_run(struct coir_runtime *runtime, coir_fn fn, void *arg, int *status) {
  if (!runtime) return -EINVAL;
  COIR_INSIDE;
  if (coir__me() || coir__away_from()) return -EBUSY;
  if (atm_load_acq(&runtime->forked)) return -ENOTSUP;
  if (!coir__thread_get()) return -ENOMEM;
  struct coir_fiber *handle = NULL;
  pthread_mutex_lock(&runtime->control);
  int rc = run_begin(runtime, fn, arg, &handle), first = 0;
  pthread_mutex_unlock(&runtime->control);
  if (rc) return rc;
  enum ran ran;
  while ((ran = run_on(runtime, &handle, &first)) == RAN_LATECOMERS) {}
  if (ran == RAN_DEADLOCK) end_deadlock(runtime, handle, &first);
  if (status) *status = first;
  return ran == RAN_DEADLOCK ? -EDEADLK : 0;
}

int coir_runtime_start(struct coir_runtime *runtime) {
  COIR_INSIDE;
  if (!runtime) return -EINVAL;
  if (atm_load_acq(&runtime->forked)) return -ENOTSUP;
  pthread_mutex_lock(&runtime->control);
  int rc = atm_load_acq(&runtime->phase) == COIR__PHASE_OFF ? start_threads(runtime, 0) : -EBUSY;
  if (!rc) {
    atm_store_rlx(&runtime->hosts, 0);
    runtime->serving = true;
    set_phase(runtime, COIR__PHASE_SERVE);
  }
  pthread_mutex_unlock(&runtime->control);
  return rc;
}

int coir__runtimes_on(void) { return atm_load_sc(&runtimes_on); }

/* No fiber is left, as it seems, of a runtime that serves. Who waits for that is told; and after a deadlock it is as
 * new then. */
static void serves_nobody(struct coir_runtime *rt) {
  pthread_mutex_lock(&rt->control);
  bool is_true = coir__live(rt) == 0;
  if (is_true && atm_load_acq(&rt->watched)) {
    rt->drained = true;
    pthread_cond_broadcast(&rt->ended);
  } else if (is_true && atm_load_acq(&rt->deadlocked) && !rt->stopping) {
    atm_store_rlx(&rt->cancel_all, 0);
    atm_store_rel(&rt->deadlocked, 0); /* pairs with the acquire in look_and_act() */
  }
  pthread_mutex_unlock(&rt->control);
}

bool coir__runtime_idle(struct coir_runtime *rt, bool deep) {
  uint32_t phase = atm_load_acq(&rt->phase);
  if (phase == COIR__PHASE_RUN) {
    if (coir__live(rt) != 0) return deep && coir__deadlock_look(rt);
    coir__worker_halt(rt);
  } else if (phase == COIR__PHASE_SERVE) {
    bool is_asked = atm_load_acq(&rt->watched) || atm_load_acq(&rt->deadlocked);
    if (is_asked && coir__live(rt) == 0) serves_nobody(rt);
    return deep && coir__deadlock_look(rt);
  }
  return false;
}

void coir__runtime_thread_sleeps(void) {
  if (coir__idle_runtimes() == 0) return;
  pthread_mutex_lock(&runtimes_lock); /* they stay meanwhile */
  for (struct coir_runtime *rt = runtimes; rt; rt = rt->next) {
    enum coir__deadlock_chance chance = coir__deadlock_chance(rt);
    if (chance == COIR__DEADLOCK_NEAR) coir__idle_wake(rt->workers[0]);
    if (chance == COIR__DEADLOCK_LATER) coir__monitor_rouse(rt);
  }
  pthread_mutex_unlock(&runtimes_lock);
}

bool coir__runtime_hold(struct coir_runtime *rt) {
  if (atm_load_sc(&rt->phase) != COIR__PHASE_OFF) return false; /* it runs, or will look again: has_latecomers() */
  pthread_mutex_lock(&rt->control);
  bool is_off = atm_load_acq(&rt->phase) == COIR__PHASE_OFF && !rt->serving;
  if (!is_off) pthread_mutex_unlock(&rt->control);
  return is_off;
}

void coir__runtime_let_go(struct coir_runtime *rt) { pthread_mutex_unlock(&rt->control); }

/* ---- Stopping -------------------------------------------------------------------------------------------------- */

void coir__runtime_cancel_all(struct coir_runtime *rt) {
  atm_store_sc(&rt->cancel_all, 1);
  coir__fence_heavy(); /* pairs with the light fence in fiber_init: a fiber that we do not find finds the flag */
  for (struct coir__slab *slab = atm_load_acq(&rt->slabs); slab; slab = slab->next)
    for (uint32_t i = 0; i < slab->count; i++) {
      struct coir_fiber *f = &slab->fibers[i];
      if (atm_load_acq(&f->entry) && !(atm_load_acq(&f->ended) & COIR__ENDED))
        coir__cancel(&f->waiter, COIR__CANCEL_ALWAYS);
    }
}

/* The calling thread is going to wait for the end of all fibers, without limit: its record, if that may be a deadlock.
 */
static struct coir__thread *stop_sleep_begin(struct coir_runtime *rt) {
  struct coir__thread *t = coir__thread_get();
  if (!t || t->is_own || atm_load_rlx(&t->worker)) return NULL;
  atm_store_rlx(&t->waits_on, (uint64_t)(uintptr_t)rt << 8 | COIR__REASON_STOP);
  coir__thread_sleep_begin(t, COIR__ASLEEP_STOP);
  return t;
}

/* Waits once for the news that no fiber is left. */
static bool wait_for_news(struct coir_runtime *rt, int64_t deadline) {
  struct timespec at = {.tv_sec = (time_t)(deadline / COIR_SEC(1)), .tv_nsec = (long)(deadline % COIR_SEC(1))};
  int rc;
  if (deadline != COIR_NEVER) COIR_OUTSIDE_STAYING(rc = pthread_cond_timedwait(&rt->ended, &rt->control, &at));
  else COIR_OUTSIDE_STAYING(rc = pthread_cond_wait(&rt->ended, &rt->control));
  return rc == 0;
}

/* Whether there was a moment, since somebody waits for it, at which no fiber was left. `control` is held. */
static bool is_drained(struct coir_runtime *rt) { return rt->drained || coir__live(rt) == 0; }

/* Waits, with `control` held, for a moment at which no fiber is left. It counts also if it is over before we look: else
 * threads outside that go on spawning could keep us here for ever. */
static int wait_for_last(struct coir_runtime *rt, int64_t deadline) {
  int rc = 0;
  struct coir__thread *sleeper = deadline == COIR_NEVER ? stop_sleep_begin(rt) : NULL;
  int64_t limit = sleeper ? coir__os_now() + COIR__SLEEPER_LOOKS : deadline;
  rt->drained = false;
  atm_store_sc(&rt->watched, 1);
  coir__idle_attention(rt); /* who is idle already adds up once more */
  while (!rc && !rt->halted && !is_drained(rt)) {
    if (wait_for_news(rt, limit)) continue;
    if (limit == deadline) rc = is_drained(rt) ? 0 : -ETIMEDOUT;
    else coir__runtime_thread_sleeps();
    limit = deadline;
  }
  if (sleeper) coir__thread_sleep_end(sleeper);
  atm_store_sc(&rt->watched, 0);
  return rt->halted ? 0 : rc;
}

/* Halts the threads when the time has come; `control` is held, but not while they leave. Who spawned meanwhile is not
 * left behind, unless there is no end of it. */
static int stop_threads(struct coir_runtime *rt, enum coir_stop how, int64_t deadline) {
  for (int round = 1;; round++) {
    int rc = how == COIR_STOP_ABANDON ? 0 : wait_for_last(rt, deadline);
    if (rc) return rc;
    pthread_mutex_unlock(&rt->control);
    coir__worker_halt(rt);
    COIR_OUTSIDE_STAYING(join_threads(rt, 0, rt->worker_count, rt->poller_count));
    pthread_mutex_lock(&rt->control);
    if (how == COIR_STOP_ABANDON || rt->halted) {
      pthread_mutex_unlock(&rt->control);
      coir__fibers_drop(rt);
      pthread_mutex_lock(&rt->control);
      has_latecomers(rt); /* they stay for the next start */
      return 0;
    }
    if (!has_latecomers(rt) || round == STOP_ROUNDS || start_threads(rt, 0) != 0) return 0;
    set_phase(rt, COIR__PHASE_SERVE);
  }
}

int coir_runtime_halt(struct coir_runtime *runtime) {
  COIR_INSIDE;
  if (!runtime) return -EINVAL;
  if (atm_load_acq(&runtime->forked)) return -ENOTSUP;
  pthread_mutex_lock(&runtime->control);
  int rc = runtime->serving ? 0 : -EINVAL;
  if (!rc) {
    runtime->halted = true;
    if (atm_load_acq(&runtime->phase) == COIR__PHASE_SERVE) coir__worker_halt(runtime);
    pthread_cond_broadcast(&runtime->ended);
  }
  pthread_mutex_unlock(&runtime->control);
  return rc;
}

int coir_runtime_stop(struct coir_runtime *runtime, enum coir_stop how, int64_t deadline) {
  if (!runtime || (unsigned)how > COIR_STOP_ABANDON) return -EINVAL;
  COIR_INSIDE;
  if (coir_runtime_current() == runtime || coir__away_from() == runtime) return -EDEADLK;
  if (atm_load_acq(&runtime->forked)) return -ENOTSUP;
  pthread_mutex_lock(&runtime->control);
  int rc = runtime->serving && !runtime->stopping ? 0 : -EINVAL;
  if (!rc) {
    runtime->stopping = true;
    if (how == COIR_STOP_CANCEL) coir__runtime_cancel_all(runtime);
    rc = stop_threads(runtime, how, deadline < 0 ? 0 : deadline);
    runtime->stopping = false;
  }
  if (!rc) {
    atm_store_rlx(&runtime->cancel_all, 0);
    atm_store_rlx(&runtime->deadlocked, 0);
    runtime->serving = runtime->halted = false;
  }
  pthread_mutex_unlock(&runtime->control);
  return rc;
}
