/* Simulated runtimes: one order of events of all that a program may have, chosen by a seed, and the same each time.
 *
 * Goal: what goes wrong once in a million runs is found by trying seeds, and happens again whenever it is looked at.
 * Why it is hard: what happens when depends on threads, on the clock, and on the kernel. None of them can be told what
 * to do, so none may be asked: not when somebody runs, nor whether its time has come.
 *
 * Design. There is one worker, and no monitor, so nothing moves but what that worker runs. It differs from others in
 * four places, and a runtime that is not simulated pays for each of them no more than a look at a word that it has at
 * hand:
 *   next    fibers do not pick each other: each time one is left, the loop moves everything that is ready to a list of
 *           its own, and draws one of it
 *   pass    the word that says whether a thread is inside the library (carry.c) has another value for outside; who
 *           finds that as it comes in or goes out may yield first. So every call is a point at which others run, as if
 *           they ran on another processor, those that never wait among them
 *   clock   it goes on by a little with each step, and each look at it; when nobody is ready, by as much as it is to
 *           the next deadline. So an hour of sleep takes no time, and who looks at the clock in a loop gets through
 *   rest    instead of sleeping; it may end before its time. Where descriptors are waited for, the kernel is asked
 *           first; calls on the pool are waited for before each step. So neither comes at a moment that is up to chance
 *
 * Calls on descriptors ask here what they meet: short transfers, delays, interrupted system calls, errors; and waits
 * for descriptors are told of, so that an event may come that tells nothing.
 *
 * What is drawn also depends on the seed as a whole: how often calls are points, how long steps are, and whether, for
 * stretches, a part of the fibers does not get on (a coarse form of priorities with change points: Burckhardt, Kothari,
 * Musuvathi, Nagarakatte, "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010). Random orders
 * without it rarely keep somebody waiting for long, and many faults need just that.
 *
 * Not simulated: threads that the program starts, other processes, what the kernel does of itself (TCP has timers).
 * What they do arrives when it does, and then no two runs need be the same.
 *
 * Rejected: a virtual poller (a program's descriptors are the kernel's, who knows more about them than a model does; as
 * what it reports only makes fibers ready, and who of these is first is drawn, its order does not matter);
 * instrumentation of the program, so that fibers may change at each access of memory (coir_sim_point lets the compiler
 * do it: docs/simulation.md).
 *
 * I1: all that is ready is on `ready` when one is drawn, but for what the deque holds, which is drawn, too.
 * I2: nothing that is drawn depends on an address, a descriptor, or a clock.
 * Bounds: READY_MAX fibers are drawn from; what is beyond queues until there is room. */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"
#include "runq.h"

#define READY_MAX ((size_t)1 << 24)
#define START COIR_SEC(3600)   /* what the clock says at first: an hour, so that what lies before is positive */
#define LOOK_STEP_NS 100       /* what a look at the clock takes at most */
#define CALL_WAITS COIR_SEC(5) /* for a call on the pool; one that takes longer comes when it comes */
#define CALL_NAP COIR_US(20)
#define GRACE_NS COIR_MS(2)      /* for the kernel to bring what others send */
#define DELIVERY_NS COIR_MS(100) /* and what has been sent here since: on a busy machine TCP takes its time */
#define STARVED_ONE_IN 4         /* of the fibers, in a stretch in which some do not get on */
#define STRETCH_MAX 512          /* steps */
#define DELAY_MAX COIR_MS(1)     /* of a call on a descriptor, and of a timer */
#define REST_MAX COIR_SEC(4)     /* of one that ends before its time */
#define ROW_MAX 16               /* disturbances, one after the other */

struct coir__sim {
  uint64_t state; /* of the generator */
  uint64_t seed;
  _Atomic(int64_t) now; /* (a) written by the worker */
  _Atomic(int) away;    /* (a) fibers between coir_block_enter and coir_block_leave */
  uint64_t steps, signature;
  uint64_t passes;                /* one call in so many lets others run */
  uint64_t step_ns;               /* what a step takes at most */
  bool starves;                   /* there are stretches in which some do not get on */
  uint64_t stretch, stretch_ends; /* its number; the step at which it ends */
  uint64_t first_id;              /* of its first fiber: numbers count through all runtimes */
  struct coir_fiber **ready;
  size_t count;
  uint64_t disturbances;              /* one system call, or wait for a descriptor, in so many begins a row; 0: none */
  uint64_t calls_row, waits_row;      /* so many more are disturbed */
  uint64_t interrupted, told_in_vain; /* so many have been */
  int in_vain;                        /* a descriptor of which an event is to tell, for nothing; -1: of none */
  int hung;                           /* so many calls on the pool have taken too long to be waited for */
  bool has_sent;                      /* a call on a descriptor has been made since the clock was moved on */
};

/* ---- Drawing --------------------------------------------------------------------------------------------------- */

/* Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014. */
static uint64_t mixed(uint64_t z) {
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static uint64_t draw(struct coir__sim *s) { return mixed(s->state += UINT64_C(0x9e3779b97f4a7c15)); }

/* 0 to n - 1; n is less than 2^32. */
static uint64_t draw_below(struct coir__sim *s, uint64_t n) { return (draw(s) >> 32) * n >> 32; }

static bool draw_one_in(struct coir__sim *s, uint64_t n) { return draw_below(s, n) == 0; }

/* ---- Making ---------------------------------------------------------------------------------------------------- */

/* That of the runtime whose worker the calling thread carries; NULL: none, or it is not simulated. */
static struct coir__sim *sim_here(struct coir__worker **w) {
  struct coir__thread *t = coir__thread_peek();
  *w = t ? atm_load_acq(&t->worker) : NULL;
  return *w ? (*w)->rt->sim : NULL;
}

static int64_t now_of(const struct coir__sim *s) { return atm_load_rlx(&s->now); }

static int64_t go_on(struct coir__sim *s, int64_t ns) {
  int64_t now = now_of(s) + ns;
  atm_store_rlx(&s->now, now);
  return now;
}

/* A fiber that blocks beside the worker stays in its time. */
static int64_t sim_clock(void) {
  struct coir__worker *w;
  struct coir__sim *s = sim_here(&w);
  if (s) return go_on(s, 1 + (int64_t)draw_below(s, LOOK_STEP_NS));
  const struct coir__thread *t = w ? NULL : coir__thread_peek();
  const struct coir_fiber *away = t ? t->away : NULL;
  return away && away->rt->sim ? now_of(away->rt->sim) : coir__os_real_now();
}

int coir__sim_create(struct coir_runtime *rt) {
  struct coir__sim *s = coir__alloc(rt, sizeof *s);
  if (!s) return -ENOMEM;
  s->ready = coir__os_reserve(READY_MAX * sizeof *s->ready, 0, false);
  if (!s->ready) {
    coir__free(rt, s, sizeof *s);
    return -ENOMEM;
  }
  s->seed = (uint64_t)rt->config.sim_seed;
  s->state = mixed(s->seed);
  atm_store_rlx(&s->now, START);
  s->passes = UINT64_C(2) << draw_below(s, 6);
  s->step_ns = UINT64_C(100) << 3 * draw_below(s, 5);
  s->starves = draw_one_in(s, 2);
  s->disturbances = draw_one_in(s, 2) ? UINT64_C(2) << draw_below(s, 4) : 0;
  s->in_vain = -1;
  rt->sim = s;
  atm_store_rlx(&coir__os_clock, sim_clock); /* relaxed: as in coir__os_now */
  coir__timers_init(&rt->workers[0]->timers, START);
  return 0;
}

void coir__sim_destroy(struct coir_runtime *rt) {
  struct coir__sim *s = rt->sim;
  if (!s) return;
  rt->sim = NULL;
  coir__os_release(s->ready, READY_MAX * sizeof *s->ready);
  coir__free(rt, s, sizeof *s);
}

uint64_t coir_sim_seed(void) {
  COIR_INSIDE_ON(w);
  w = coir__self_of(w);
  return w && w->rt->sim ? w->rt->sim->seed : 0;
}

/* To come in and to go out is what it is for. */
void coir_sim_point(void) { COIR_INSIDE; }

/* ---- What to run ----------------------------------------------------------------------------------------------- */

static int calls_open(const struct coir__sim *s) { return coir__block_open() + atm_load_acq(&s->away); }

void coir__sim_away(struct coir_runtime *rt, int change) { atm_add_sc(&rt->sim->away, change); }

/* So that what comes does so between two steps, and not at any moment. */
static void wait_for_calls(struct coir__sim *s) {
  _Atomic(uint32_t) never = 0;
  int open = calls_open(s);
  if (COIR_LIKELY(open == 0 && s->hung == 0)) return;
  if (open < s->hung) s->hung = open;
  for (int64_t now, limit = coir__os_real_now() + CALL_WAITS; open > s->hung && (now = coir__os_real_now()) < limit;
       open = calls_open(s))
    coir__os_futex_wait(&never, 0, now + CALL_NAP);
  if (open > s->hung) s->hung = open;
}

static int by_id(const void *a, const void *b) {
  uint64_t x = (*(struct coir_fiber *const *)a)->id, y = (*(struct coir_fiber *const *)b)->id;
  return x < y ? -1 : x > y;
}

static struct coir_fiber *sim_take(struct coir__worker *w) {
  struct coir_fiber *f = NULL;
  for (int i = 0; !f && i < COIR__LANES; i++) f = coir__lane_get(w, i);
  if (!f) f = coir__runq_pop_fifo(w);
  return f ? f : coir__list_pop(&w->bound);
}

/* What has become ready since. In an order of its own: that of the kernel, or of who has come from outside, is not to
 * matter (I2). */
static void gather(struct coir__worker *w, struct coir__sim *s) {
  size_t before = s->count;
  coir__inbox_take(w);
  for (struct coir_fiber *f; s->count < READY_MAX && (f = sim_take(w)) != NULL;) s->ready[s->count++] = f;
  if (s->count - before > 1) qsort(s->ready + before, s->count - before, sizeof *s->ready, by_id);
  if (!s->first_id && s->count) s->first_id = s->ready[0]->id;
}

/* Whether it is one of those that do not get on in this stretch. */
static bool is_starved(const struct coir__sim *s, const struct coir_fiber *f) {
  return s->starves && mixed((f->id - s->first_id) ^ s->stretch) % STARVED_ONE_IN == 0;
}

/* Jobs and sides of forks, which have no fiber yet: by their owner, or as a thief would. NULL: no memory for one. */
static struct coir_fiber *take_lean(struct coir__worker *w, struct coir__sim *s) {
  return draw_one_in(s, 2) ? coir__runq_pop_aged(w, true) : coir__runq_pop_extra(w);
}

static struct coir_fiber *sim_choose(struct coir__worker *w, struct coir__sim *s) {
  uint64_t lean = coir__runq_length(w) != 0, n = s->count + lean, at = 0;
  if (n == 0) return NULL;
  for (int tries = 0; tries < 8; tries++) {
    at = draw_below(s, n);
    if (at == s->count || !is_starved(s, s->ready[at])) break;
  }
  if (at == s->count) return take_lean(w, s);
  struct coir_fiber *f = s->ready[at];
  s->ready[at] = s->ready[--s->count];
  return f;
}

static void say_step(const struct coir__worker *w, const struct coir__sim *s, const struct coir_fiber *f) {
  char text[160];
  int n = snprintf(text, sizeof text, "coir: simulation: step %llu at %.9f s: fiber %llu \"%s\", %zu more are ready\n",
                   (unsigned long long)s->steps, (double)(now_of(s) - START) / 1e9, (unsigned long long)f->id,
                   coir__name_of(f), s->count);
  if (w->rt->config.sim_log > 1) coir__os_complain(text, (size_t)n);
}

/* What the kernel has to tell; and maybe something that it has not. */
static void poll_here(struct coir__worker *w, struct coir__sim *s) {
  coir__idle_poll(w, w->poller, 0);
  if (s->in_vain < 0 || draw_one_in(s, 2)) return;
  coir__poll_in_vain(s->in_vain);
  s->in_vain = -1;
  s->told_in_vain++;
}

struct coir_fiber *coir__sim_next(struct coir__worker *w) {
  struct coir__sim *s = w->rt->sim;
  s->steps++;
  int64_t now = go_on(s, 1 + (int64_t)draw_below(s, s->step_ns));
  if (s->steps >= s->stretch_ends) {
    s->stretch = draw(s);
    s->stretch_ends = s->steps + 1 + draw_below(s, STRETCH_MAX);
  }
  coir__worker_looked(w, now);
  wait_for_calls(s);
  bool is_late = s->count > 0 && draw_one_in(s, 8);
  if (!is_late && atm_load_rlx(&w->timers.next) <= now) coir__worker_fire(w, now);
  bool polls = coir__poller_is_used(w->poller) && (s->count == 0 || draw_one_in(s, 2));
  if (polls) poll_here(w, s);
  gather(w, s);
  w->tick = 0; /* whoever is left comes back here */
  struct coir_fiber *f = sim_choose(w, s);
  if (!f) return NULL;
  s->signature = mixed(s->signature ^ (f->id - s->first_id) ^ (uint64_t)now << 20);
  if (COIR_UNLIKELY(w->rt->config.sim_log > 1)) say_step(w, s, f);
  return f;
}

/* Sleeps for so long at most. Whether somebody is ready then. What the kernel tells of others, as when the keeper has
 * looked after descriptors, comes when it comes: with `until`, a moment of real time, it does not end the rest before,
 * and leaves no trace (I2). */
static bool rest_for(struct coir__worker *w, struct coir__sim *s, int64_t most, int64_t until) {
  int64_t now = now_of(s);
  uint64_t state = s->state;
  while (coir__idle_poll(w, w->poller, most == COIR_NEVER ? COIR_NEVER : now + most) > 0) {
    gather(w, s);
    if (s->count > 0 || atm_load_acq(&w->attention) || coir__os_real_now() >= until) break;
    s->state = state;
    atm_store_rlx(&s->now, now);
  }
  return s->count > 0;
}

/* Where only this worker can make anybody ready, it skips what lies between. Else others are given their time: threads
 * of the program, calls that took too long, and, for a moment, the kernel. */
void coir__sim_rest(struct coir__worker *w) {
  struct coir__sim *s = w->rt->sim;
  int64_t next = atm_load_rlx(&w->timers.next), start = coir__os_real_now(), most = COIR_NEVER;
  bool is_shared = atm_load_acq(&w->rt->phase) == COIR__PHASE_SERVE || s->hung > 0;
  if (next != COIR_NEVER && is_shared) most = next - now_of(s);
  else if (next != COIR_NEVER) most = !coir__poller_is_used(w->poller) ? 0 : s->has_sent ? DELIVERY_NS : GRACE_NS;
  bool is_ready = most > 0 && rest_for(w, s, most, is_shared || most == COIR_NEVER ? 0 : start + most);
  if (is_shared) go_on(s, coir__os_real_now() - start);
  if (is_ready || is_shared || next == COIR_NEVER || atm_load_acq(&w->attention)) return;
  s->has_sent = false;
  int64_t left = next - now_of(s);
  if (left > 0 && draw_one_in(s, 4)) left = (int64_t)draw_below(s, left < REST_MAX ? (uint64_t)left : REST_MAX);
  if (left > 0) go_on(s, left);
  if (draw_one_in(s, 4)) go_on(s, (int64_t)draw_below(s, DELAY_MAX));
}

/* Who is still ready queues where those look who drop fibers, and the next run. */
void coir__sim_over(struct coir__worker *w) {
  struct coir__sim *s = w->rt->sim;
  char text[200];
  while (s->count > 0) coir__lane_put(w->rt, s->ready[--s->count]);
  if (w->rt->config.sim_log < 1) return;
  int n = snprintf(text, sizeof text,
                   "coir: simulation: seed %llu: %llu steps, %.9f s, calls interrupted: %llu, events in vain: %llu, "
                   "signature %016llx\n",
                   (unsigned long long)s->seed, (unsigned long long)s->steps, (double)(now_of(s) - START) / 1e9,
                   (unsigned long long)s->interrupted, (unsigned long long)s->told_in_vain,
                   (unsigned long long)s->signature);
  coir__os_complain(text, (size_t)n);
}

/* ---- What the calls of a fiber meet ---------------------------------------------------------------------------- */

void coir__sim_pass(void) {
  struct coir__worker *w;
  struct coir__sim *s = sim_here(&w);
  if (!s || !w->current || !draw_one_in(s, s->passes)) return;
  atm_store_rlx(&atm_load_rlx(&w->thread)->in, 1);
  coir__breathe_now(w->current);
}

bool coir__sim_fails(void) {
  struct coir__worker *w;
  struct coir__sim *s = sim_here(&w);
  uint64_t faults = s && w->current ? (uint64_t)w->rt->config.sim_faults : 0;
  return faults > 0 && draw_below(s, 1000) < faults;
}

/* In rows: who gets through one may not get through many. */
static bool is_disturbed(struct coir__sim *s, uint64_t *row) {
  if (*row == 0 && s->disturbances > 0 && draw_one_in(s, s->disturbances)) *row = 1 + draw_below(s, ROW_MAX);
  if (*row == 0) return false;
  --*row;
  return true;
}

bool coir__sim_interrupts(void) {
  struct coir__worker *w;
  struct coir__sim *s = sim_here(&w);
  if (!s || !w->current || !is_disturbed(s, &s->calls_row)) return false;
  s->interrupted++;
  return true;
}

void coir__sim_waits(int fd) {
  struct coir__worker *w;
  struct coir__sim *s = sim_here(&w);
  if (s && w->current && s->in_vain < 0 && is_disturbed(s, &s->waits_row)) s->in_vain = fd;
}

int coir__sim_transfer(int fd, size_t *bytes, int error, int64_t deadline) {
  struct coir__worker *w;
  struct coir__sim *s = sim_here(&w);
  if (!s || !w->current) return 0;
  s->has_sent = true;
  if (coir__sim_fails()) return error;
  if (bytes && *bytes > 1 && draw_one_in(s, 4) && coir__sys_is_stream(fd)) {
    size_t most = *bytes - 1 < UINT32_MAX ? *bytes - 1 : UINT32_MAX;
    *bytes = 1 + draw_below(s, most);
  }
  if (!draw_one_in(s, 8)) return 0;
  int64_t until = now_of(s) + (int64_t)draw_below(s, DELAY_MAX);
  return until < deadline ? coir_sleep_until(until) : 0;
}
