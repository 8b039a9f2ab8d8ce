/* Preemption: a fiber that computes for long is paused, together with its thread, until its turn comes again.
 *
 * Goal: fibers that never wait share the workers fairly, with each other and with those that do wait; at most as many
 * run as there are workers.
 *
 * Why it is hard: such a fiber may be anywhere, in malloc, in printf, with a lock of its thread's, with its registers
 * full. Nothing of that may be seen by another fiber on the same thread; so another stack must not run there.
 *
 * Design. The worker is taken away from the fiber as from one that blocks (carry.c). But the fiber is queued as well,
 * as an entry that says "goes on on that thread": its stack is bound, and its context is NULL. And the thread gets a
 * signal, whose handler sleeps on a futex. No stack is switched: red zone, vector registers, and errno are kept as
 * for any signal, and whatever the thread holds it keeps, as when the system has taken the processor from it. When
 * the entry's turn comes, on whichever worker takes it, the thread that carries the worker gives it to the one that
 * sleeps, becomes a spare, and wakes it.
 *
 * A thread is `paused` from when its fiber is put into the lane, by the monitor, until the entry is taken out again:
 * by a worker, whose turn it then is to give itself to the thread, or by the thread itself, which goes on without
 * one. All of that happens under thread.owner.
 *
 * The signal may come late: then the thread goes on for a moment although it should not, and nothing else. It sleeps
 * only where it is outside of the library; what comes into the library while it is queued sleeps there. When the turn
 * comes before the signal, the handler finds nothing to do. If the signal found it inside, the monitor sends another.
 *
 * Its turn may come late, too: the thread is awake and gets no processor, or who is to wake it gets none. As long as it
 * has not run, the monitor leaves it the worker, and wakes it once more; but not for ever. Else it would lose its turn
 * without an instruction of its own, or be taken for one that blocks: the busier the machine, the more threads.
 *
 * A fiber that blocked, and whose worker was taken away for that, goes on beside the workers afterwards. The monitor
 * follows it, and pauses it in the same way when it has computed for a quantum.
 *
 * Paused fibers have a lane of their own, for all workers. One is taken when there is nothing else to run, and one in
 * every quantum: so what is woken does not queue behind all of them.
 *
 * Who was paused early, because it is in debt (monitor.c), goes to the front, and has what is left of its quantum.
 * Else each would have a part of one per turn, and not the same part: 1000 of them beside 1000 that do little had
 * shares with an index of unfairness of 0.07, instead of 0.01.
 *
 * Locks. What is paused may hold a lock: of malloc, of a file. Who wants it blocks its thread, its worker goes on on
 * another one, and the turn of the paused fiber comes. But that fails where no further thread is to be had, and where
 * it is the library itself that wants memory. Then a valve is opened: who sleeps in the handler wakes, and runs on
 * beside the workers, queued as it is. The monitor closes it when all workers move again. And the monitor wants
 * nothing that it might have to wait for: threads are made, and stalls told of, by a helper (monitor.c). With tracing
 * it may be the very fiber whose turn the program is told of: when that takes long, that fiber alone is let on.
 *
 * A handler of the program's for the same signal goes on to be called for signals that are not ours, which are told
 * apart by what they carry. If the program replaces ours, nothing is paused any more.
 *
 * Rejected: switching stacks in the handler (what is in malloc would be entered again); asking the fiber to yield at
 * its next call (it may make none).
 *
 * Source: "leave the kernel thread with its fiber", as in Shiina, Iwasaki, Taura, Balaji, "Lightweight Preemptive
 * User-Level Threads", PPoPP 2021. */
#include "runq.h"

#define RESEND_NS COIR_SEC(1)
#define ANSWER_NS COIR_MS(5) /* for how long who asks waits for who is asked, and the other way round */

int coir__preempt_want(const struct coir_runtime *rt) {
  return coir__os_pause_signal_init(rt->config.preempt_signal);
}

void coir__preempt_arm_thread(struct coir_runtime *rt, struct coir__thread *t) {
  t->opened_signal = coir__os_pause_signal_open(rt->config.preempt_signal) ? rt->config.preempt_signal : 0;
}

void coir__preempt_disarm_thread(const struct coir__thread *t) {
  if (t->opened_signal) coir__os_pause_signal_close(t->opened_signal);
}

/* One at a time: those for real time would queue, where a thread blocks them. One that has been lost meanwhile
 * (somebody has set another handler for a moment) is sent again after a while. */
static void send_signal(struct coir__thread *t, const struct coir_runtime *rt) {
  int64_t now = coir__os_now(), sent_at = atm_load_rlx(&t->sent_at);
  if (sent_at && now - sent_at < RESEND_NS) return;
  atm_store_rlx(&t->sent_at, now);
  coir__os_pause_signal_send(atm_load_rlx(&t->tid), rt->config.preempt_signal);
}

/* Who is paused early, because it is in debt, has the rest of its quantum before anybody else has one. */
PEEKS int64_t coir__preempt_left(const struct coir__thread *t, const struct coir_fiber *f) {
  return COIR_US(f->rt->config.quantum_us) - (t->turn_of == PEEK(f->id) ? t->turn_ns : 0);
}

static bool is_early(struct coir__thread *t, const struct coir_fiber *f, int64_t ns) {
  int64_t quantum = COIR_US(f->rt->config.quantum_us), left = coir__preempt_left(t, f) - ns;
  bool early = left >= quantum / 8;
  t->turn_of = f->id;
  t->turn_ns = early ? quantum - left : 0;
  return early;
}

void coir__preempt_pause(struct coir__thread *t, int64_t ns) {
  struct coir_fiber *f = t->away;
  struct coir_runtime *rt = f->rt;
  f->sp = NULL;
  f->stack->thread = t;
  __atomic_fetch_or(&f->b.more, COIR__MORE_PAUSED, __ATOMIC_RELAXED);
  atm_store_rel(&t->paused, COIR__PAUSED);
  coir__lane_put_in(rt, f, COIR__LANE_PAUSED, is_early(t, f, ns));
  coir__idle_notify_outside(rt);
  atm_add_rlx(&rt->preemptions, 1);
  rt->monitor_reminds = 2;
  send_signal(t, rt);
}

/* The thread, whose owner the caller is, takes its entry back. If that is not there, a worker has just taken it, and
 * waits for the owner, or tells of the turn. */
static void take_back(struct coir__thread *t) {
  struct coir_fiber *f = t->away;
  if (!coir__lane_remove(f->rt, f, COIR__LANE_PAUSED)) {
    if (atm_load_acq(&f->rt->phase) == COIR__PHASE_HALT) atm_store_rel(&t->paused, COIR__PAUSED_LET_ON);
    return; /* with HALT there is no monitor any more that would let it on (coir__preempt_let_on) */
  }
  atm_store_sc(&f->rt->monitor_follows, 1);
  __atomic_fetch_and(&f->b.more, (uint8_t)~COIR__MORE_PAUSED, __ATOMIC_RELAXED);
  atm_store_rel(&t->paused, 0);
}

/* Until it is its turn, or it is to go on for another reason. */
static void sleep_paused(struct coir__thread *t, bool in_handler) {
  struct coir_runtime *rt = __atomic_load_n(&t->away, __ATOMIC_RELAXED)->rt;
  for (;;) {
    atm_store_rlx(&t->is_parked, 1); /* each time: a handler of the program's may have slept here meanwhile */
    uint32_t seen = atm_load_acq(&t->futex);
    bool is_open = atm_load_sc(&rt->valve), is_over = atm_load_sc(&rt->phase) == COIR__PHASE_HALT;
    if (!atm_load_acq(&t->paused) || (in_handler && is_open)) break;
    if (is_open || is_over) { /* both wake those that have not seen it */
      coir__lock(&t->owner);
      if (atm_load_rlx(&t->paused)) take_back(t);
      coir__unlock(&t->owner);
    }
    uint32_t paused = atm_load_acq(&t->paused);
    if (!paused || (in_handler && paused == COIR__PAUSED_LET_ON)) break;
    coir__os_futex_wait(&t->futex, seen, COIR_NEVER);
  }
  atm_store_rlx(&t->is_parked, 0);
}

void coir__preempt_sleep(struct coir__thread *t) { sleep_paused(t, false); }

/* Somebody wants to know where it stands, and looks at its stack meanwhile. */
static void answer(struct coir__thread *t) {
  uint32_t where = COIR__ASKED_WHERE;
  int64_t limit = coir__os_now() + ANSWER_NS;
  if (!atm_cas_ar(&t->asked, &where, COIR__ASKED_STANDS)) return;
  coir__os_futex_wake(&t->asked, 1);
  uint32_t stands = COIR__ASKED_STANDS;
  while (atm_load_acq(&t->asked) == stands && coir__os_now() < limit) coir__os_futex_wait(&t->asked, stands, limit);
  atm_cas_ar(&t->asked, &stands, COIR__ASKED_NOT); /* that was long enough */
}

bool coir__preempt_ask(struct coir__thread *t, int signo) {
  uint32_t where = COIR__ASKED_WHERE;
  int64_t limit = coir__os_now() + ANSWER_NS;
  atm_store_rel(&t->asked, where);
  coir__os_pause_signal_send(atm_load_rlx(&t->tid), signo);
  while (atm_load_acq(&t->asked) == where && coir__os_now() < limit) coir__os_futex_wait(&t->asked, where, limit);
  return !atm_cas_ar(&t->asked, &where, COIR__ASKED_NOT); /* else it has been too slow, and will find that out */
}

bool coir__preempt_asked(struct coir__thread *t) {
  uint32_t stands = COIR__ASKED_STANDS;
  bool has_stood = atm_cas_ar(&t->asked, &stands, COIR__ASKED_NOT);
  coir__os_futex_wake(&t->asked, 1);
  return has_stood;
}

void coir__pause_signal_came(const struct coir__ctx_registers *at) {
  struct coir__thread *t = coir__thread_peek();
  if (!t) return;
  atm_store_rlx(&t->sent_at, 0);
  t->stands = *at;
  answer(t);
  if (!atm_load_rlx(&t->in) && atm_load_acq(&t->paused) != 0) sleep_paused(t, true);
}

struct coir__pause_chain *coir__pause_chain_here(void) {
  struct coir__thread *t = coir__thread_peek();
  return t ? &t->pause_chain : NULL;
}

#if defined(COIR_TRACE)
/* The program is told while the calling thread still has the worker, and is nobody's owner: it may wait there. */
static void tell_turn(struct coir__worker *w, struct coir__thread *t, const struct coir_fiber *f) {
  atm_store_rel(&w->tells_of, t);
  coir__unlock(&t->owner);
  coir__trace_enter(w, f);
  coir__lock(&t->owner);
  atm_store_rlx(&w->tells_of, NULL);
}

void coir__preempt_let_on(struct coir__worker *w) {
  struct coir__thread *t = atm_load_acq(&w->tells_of);
  if (!t || !coir__lock_try(&t->owner)) return;
  bool sleeps = atm_load_rlx(&w->tells_of) == t && atm_load_rlx(&t->paused) == COIR__PAUSED;
  if (sleeps) atm_store_rel(&t->paused, COIR__PAUSED_LET_ON);
  coir__unlock(&t->owner);
  if (sleeps) coir__thread_wake(t);
}
#endif

/* Its thread t, whose owner the caller is, goes on with w, and the calling one without. */
static void grant(struct coir__worker *w, struct coir__thread *t, struct coir_fiber *f) {
  coir__carry_end(w, atm_load_rlx(&w->thread));
  __atomic_fetch_and(&f->b.more, (uint8_t)~(COIR__MORE_AWAY | COIR__MORE_PAUSED), __ATOMIC_RELAXED);
  w->prev = NULL;
  w->after = COIR__AFTER_NOTHING;
  coir__worker_looked(w, coir__os_now()); /* its quantum begins */
  w->hog_at = w->looked_at;
  w->runs_hog = true;
  t->cpu_seen = coir__os_thread_cpu(atm_load_rlx(&t->tid)); /* until that moves it has not noticed (monitor.c) */
  atm_bump(&w->counts.switches, 1);
  atm_show(&w->current, f);
  atm_show(&f->ran_at, atm_load_rlx(&w->look_tick));
  if (t->tells) atm_store_rlx(&w->attention, 1); /* its loop tells, before another fiber runs there */
  coir__carry_begin(w, t);
}

/* When the runtime halts, the thread goes on alone, and queues its fiber when it comes home. */
void coir__preempt_resume(struct coir__worker **worker, struct coir_fiber *f) {
  struct coir__worker *w = *worker;
  struct coir__thread *t = f->stack->thread, *self = atm_load_rlx(&w->thread);
  coir__lock(&t->owner);
  COIR_DCHECK(atm_load_rlx(&t->paused) && t->away == f, "an entry of the lane is of one that is paused");
  bool is_over = atm_load_acq(&w->rt->phase) == COIR__PHASE_HALT, keeps = atm_load_rlx(&w->has_pinned);
  if (!is_over && keeps) { /* since a moment */
    coir__lane_put_in(w->rt, f, COIR__LANE_PAUSED, false);
    coir__unlock(&t->owner);
    coir__thread_wake(t); /* it may have looked for its entry in vain, and sleep */
    coir__idle_notify_outside(w->rt);
    return;
  }
#if defined(COIR_TRACE)
  if (!is_over) tell_turn(w, t, f);
#endif
  if (!is_over) grant(w, t, f);
  atm_store_rel(&t->paused, 0);
  coir__unlock(&t->owner);
  if (is_over) {
    coir__thread_wake(t);
    return;
  }
  self->wakes = t;
  *worker = NULL;
}

/* Whether the thread's fiber is paused, of that runtime; then the caller is the thread's owner. */
static bool own_paused(struct coir__thread *t, const struct coir_runtime *rt) {
  if (atm_load_acq(&t->paused) != COIR__PAUSED) return false;
  coir__lock(&t->owner);
  if (atm_load_rlx(&t->paused) == COIR__PAUSED && t->away->rt == rt) return true;
  coir__unlock(&t->owner);
  return false;
}

/* Workers with pinned fibers keep their threads, and take nobody who is paused. */
bool coir__preempt_has_takers(struct coir_runtime *rt) {
  for (int i = 0; i < rt->worker_count; i++)
    if (!atm_load_rlx(&rt->workers[i]->has_pinned)) return true;
  return false;
}

/* Wakes all of them. False: there is none. */
static bool wake_paused(struct coir_runtime *rt) {
  bool any = false;
  for (struct coir__thread *t = coir__thread_first(); t; t = t->next) {
    if (!own_paused(t, rt)) continue;
    coir__unlock(&t->owner);
    coir__thread_wake(t);
    any = true;
  }
  return any;
}

void coir__preempt_halt(struct coir_runtime *rt) { wake_paused(rt); }

bool coir__preempt_open(struct coir_runtime *rt) {
  if (atm_load_rlx(&rt->valve)) return false;
  atm_store_sc(&rt->valve, 1);
  return wake_paused(rt);
}

void coir__preempt_close(struct coir_runtime *rt) {
  if (!atm_load_rlx(&rt->valve)) return;
  atm_store_sc(&rt->valve, 0);
  rt->monitor_reminds = 1;
}

bool coir__preempt_remind(struct coir_runtime *rt) {
  bool any = false;
  if (atm_load_rlx(&rt->valve)) return false;
  for (struct coir__thread *t = coir__thread_first(); t; t = t->next) {
    if (atm_load_rlx(&t->is_parked) || !own_paused(t, rt)) continue;
    send_signal(t, rt);
    coir__unlock(&t->owner);
    any = true;
  }
  return any;
}

/* Whether the thread, whose owner the caller is, runs a fiber of that runtime alone that may be paused. */
static PEEKS bool is_loose(const struct coir__thread *t, const struct coir_runtime *rt) {
  const struct coir_fiber *f = atm_load_rlx(&t->worker) ? NULL : t->away;
  return f && f->rt == rt && t->is_taken && (PEEK(f->b.more) & COIR__MORE_PREEMPT) && !atm_load_rlx(&t->paused);
}

/* As coir__carry_take, but there is no worker to take: that it has none the thread finds as it comes in, and then it
 * looks at `paused` as its own owner. */
static void pause_loose(struct coir__thread *t) {
  coir__fence_heavy(); /* pairs with the light fence in coir__go_in_on */
  if (!atm_load_acq(&t->in)) coir__preempt_pause(t, COIR_US(t->away->rt->config.quantum_us));
}

bool coir__preempt_follow(struct coir_runtime *rt) {
  bool any = false, is_ours = coir__os_pause_signal_is_ours(rt->config.preempt_signal);
  if (!coir__preempt_has_takers(rt)) return false;
  for (struct coir__thread *t = coir__thread_first(); t; t = t->next) {
    if (!coir__lock_try(&t->owner)) {
      any |= atm_load_rlx(&t->carries) != 0; /* it may be at home in a call: next time */
      continue;
    }
    if (is_loose(t, rt)) {
      any = true;
      int64_t cpu = coir__os_thread_cpu(atm_load_rlx(&t->tid));
      if (!t->cpu_seen) t->cpu_seen = cpu;
      /* Else they would go on, and hold a worker up each time that it is their turn. The signal may come back. */
      else if (is_ours && cpu - t->cpu_seen >= COIR_US(rt->config.quantum_us)) pause_loose(t);
    }
    coir__unlock(&t->owner);
  }
  return any;
}
