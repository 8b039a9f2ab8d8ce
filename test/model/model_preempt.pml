/* Model: a fiber is paused with its thread, and goes on there when its turn has come (src/preempt.c).
 *
 * Modelled: THREADS that carry WORKERS, or are spare; two fibers; the monitor. The monitor takes a worker from a thread
 * that is outside, at any moment, and then pauses the fiber, or does not. The entry of a paused fiber lies in one
 * queue, out of which any worker takes it (so it is stolen all the time). Who takes it gives its worker to the fiber's
 * thread and becomes a spare. The handler comes as often as it likes while the fiber is queued, late or never. With the
 * switches: calls that never wait (CALLS), coir_block_enter and coir_block_leave (BLOCKS), and a pthread mutex that
 * each fiber wants once and may hold while it is paused (MUTEX). The monitor pauses whom it finds to run alone, later,
 * too; and it opens a valve while there is no spare for a worker that is stuck: then those that are paused go on beside
 * the workers. The runtime halts at any moment, and then they do, too.
 *
 * Not modelled: how a worker is taken, which is one step here (model_takeaway.pml has the rest of that, and the
 * processor's buffers: here memory is sequentially consistent, and what matters is done under thread.owner); the order
 * of the queue; the end of a fiber, which is a call that waits and queues nothing. The system's futex: a sleeper sleeps
 * if nobody has woken it since it looked.
 * Bounds: THREADS, WORKERS; TAKES limits how often the monitor takes. Without it each run covers every state.
 *
 * What must hold: a fiber is on one thread, that carries the worker which the fiber uses (begin_use); it is queued
 * once, and not lost (put, init: at the end each is in the queue); the worker is put to rest once; within one call a
 * thread has the same worker, or none and the same fiber; who sleeps wakes, and who is paused with the mutex goes on:
 * else there is an invalid end state, which Spin looks for.
 *
 * Mutations, each of which must be found (run.sh):
 *   MUTATE_GRANT    who gives its worker is not the owner of the thread that gets it, which is taken from again at once
 *   MUTATE_ORDER    the thread is told that it is away before it is told that it is paused
 *   MUTATE_LOOK     what comes into the library while it is queued does not sleep there
 *   MUTATE_SLEEP    the handler looks, and then reads the futex
 *   MUTATE_HALT     who is about to sleep does not look whether the runtime halts
 *   MUTATE_DROP     who drops an entry when the runtime halts does not tell the thread
 *   MUTATE_BACK     who goes on alone leaves his entry where it is
 *   MUTATE_AWAY     who gave its worker remembers the fiber that was away with it before (takes three threads)
 *   MUTATE_VALVE    there is no valve (with MUTEX)
 *   MUTATE_INSIDE   the valve does not let those out that sleep inside of a call (with MUTEX, CALLS)
 *   MUTATE_LOOSE    who runs alone is marked as paused before it is certain that it is outside
 *
 * Source of the method: Holzmann, "The Model Checker SPIN", IEEE Transactions on Software Engineering 23(5), 1997. */
#ifndef THREADS
#define THREADS 2
#endif
#ifndef WORKERS
#define WORKERS 1
#endif
#define FIBERS 2
#define NONE 7

/* Of the threads. */
byte worker[THREADS] = NONE;
bit owner[THREADS];
bit in[THREADS] = 1;
byte away[THREADS] = NONE;
bit is_taken[THREADS];
bit paused[THREADS];
bit asleep[THREADS]; /* on its futex */
bit is_spare[THREADS];
byte heir_to[THREADS] = NONE;

/* Of the workers, and of the runtime. */
byte carrier[WORKERS] = NONE;
byte current[WORKERS] = NONE;
bit halt;
bit valve; /* rt->valve: the handler does not sleep */

/* Of the fibers. */
bit queued[FIBERS];
bit sp[FIBERS] = 1;        /* fiber.sp is not NULL, or it is new */
byte bound[FIBERS] = NONE; /* stack.thread */

/* What only the model knows. */
byte inside[WORKERS] = NONE; /* who uses the worker */
byte on[FIBERS] = NONE;      /* on which thread the fiber's stack is in use */
bit at_rest[WORKERS];
byte gone;
#ifdef TAKES
byte takes_left = TAKES;
#define may_take (takes_left > 0)
#else
#define may_take true
#endif
#ifdef MUTEX
byte holder = NONE;
bit has_held[FIBERS];
#endif

#define wake(t) asleep[t] = 0
#define lock(t) !owner[t] -> owner[t] = 1
#define unlock(t) owner[t] = 0

inline begin_use() {
  assert(inside[w] == NONE && carrier[w] == me && current[w] == f && on[f] == me);
  inside[w] = me
}

inline put(g) {
  assert(!queued[g]);
  queued[g] = 1
}

inline find_heir() {
  if
  :: is_spare[0] -> is_spare[0] = 0; h = 0
  :: !is_spare[0] && is_spare[1] -> is_spare[1] = 0; h = 1
#if THREADS > 2
  :: !is_spare[0] && !is_spare[1] -> is_spare[2] = 0; h = 2
#endif
  fi
}
#if THREADS > 2
#define has_heir (is_spare[0] || is_spare[1] || is_spare[2])
#else
#define has_heir (is_spare[0] || is_spare[1])
#endif

/* Those that are paused. */
#define wake_paused(t) \
  if \
  :: paused[t] -> wake(t) \
  :: else \
  fi
#define wake_all() wake_paused(0); wake_paused(1); wake_paused(THREADS - 1)

/* What a sleeper looks for, and the way out of the lane. */
#ifdef MUTATE_INSIDE
#define is_let_out halt
#elif defined MUTATE_HALT
#define is_let_out valve
#else
#define is_let_out (valve || halt)
#endif
#define may_take_back (is_let_out && !owner[me] && queued[away[me]])
#define may_sleep (!is_let_out || (!owner[me] && !queued[away[me]]))
#ifdef MUTATE_BACK
#define take_back paused[me] = 0
#else
#define take_back queued[away[me]] = 0; paused[me] = 0
#endif

/* The handler and coir__preempt_sleep(). While the valve is open the handler returns, and goes on to be queued; who
 * sleeps inside must not get a worker in the middle of its call, and takes its entry back, if that is still there. */
inline sleep_paused(in_handler) {
  do
  :: atomic { !paused[me] || (in_handler && valve) -> break }
  :: atomic { paused[me] && !(in_handler && valve) && may_take_back -> take_back }
#ifdef MUTATE_SLEEP
  :: paused[me] && !(in_handler && valve) && may_sleep -> asleep[me] = 1; !asleep[me]
#else
  :: atomic { paused[me] && !(in_handler && valve) && may_sleep -> asleep[me] = 1 } !asleep[me]
#endif
  od
}

/* coir__carried() */
inline look() {
#ifdef MUTATE_LOOK
  atomic { worker[me] != NONE || !owner[me] -> w = worker[me] }
#else
  do
  :: atomic { worker[me] != NONE -> w = worker[me]; break }
  :: atomic { worker[me] == NONE && !owner[me] && !paused[me] -> break }
  :: atomic { worker[me] == NONE && !owner[me] && paused[me] } sleep_paused(0)
  od
#endif
}

proctype thread(byte me; byte begins) {
  byte f = NONE, w = NONE, h;
  if
  :: begins != NONE -> w = begins; goto carry
  :: else -> goto spare
  fi;

carry:
  atomic { assert(inside[w] == NONE && worker[me] == NONE); inside[w] = me; carrier[w] = me; worker[me] = w }

loop:
  atomic {
    assert(inside[w] == me && carrier[w] == me && worker[me] == w);
    if
    :: halt -> goto rest
    :: !halt && queued[0] -> queued[0] = 0; f = 0
    :: !halt && queued[1] -> queued[1] = 0; f = 1
    fi
  }
  atomic { /* without the lock */
    if
    :: !sp[f] -> h = bound[f]
    :: sp[f] -> goto start
    fi
  }
  /* coir__preempt_resume() */
  atomic {
#ifdef MUTATE_GRANT
    !owner[h];
#else
    lock(h);
#endif
    assert(paused[h] && !sp[f] && bound[f] == h);
    if
    :: halt -> /* its thread goes on alone */
#ifndef MUTATE_DROP
      paused[h] = 0;
#endif
      wake(h); unlock(h); h = 0; f = NONE; goto loop
    :: !halt ->
      lock(me); worker[me] = NONE; carrier[w] = NONE; inside[w] = NONE; unlock(me);
#ifndef MUTATE_AWAY
      away[me] = NONE;
#endif
      assert(on[f] == h && bound[f] == h);
      current[w] = f; carrier[w] = h; worker[h] = w; bound[f] = NONE
    fi
  }
  atomic { paused[h] = 0; unlock(h); wake(h); h = 0; f = NONE; w = NONE; goto home }

start:
  atomic {
    assert(on[f] == NONE && inside[w] == me && carrier[w] == me && sp[f]);
    on[f] = me; current[w] = f; inside[w] = NONE; in[me] = 0; w = NONE
  }

  /* In the program's code. */
user:
  if
  :: paused[me] -> /* the handler */
    sleep_paused(1);
    goto user
#ifdef MUTEX
  :: atomic { holder == NONE && !has_held[f] -> holder = f; goto user }
  :: atomic { holder != NONE && holder != f && !has_held[f] -> goto locking }
  :: atomic { holder == f -> holder = NONE; has_held[f] = 1; goto user }
#endif
#ifdef CALLS
  :: worker[me] == NONE -> /* a call that never waits */
    in[me] = 1;
    look();
    atomic {
      if
      :: w == NONE -> assert(away[me] == f)
      :: else -> begin_use()
      fi
    }
    atomic {
      assert(w == worker[me] && (w != NONE || away[me] == f));
      if
      :: w == NONE
      :: else -> inside[w] = NONE
      fi;
      in[me] = 0; w = NONE; goto user
    }
#endif
#ifdef MUTEX
  :: holder != f -> /* a call that waits */
#else
  :: true ->
#endif
    in[me] = 1;
    look();
    if
    :: atomic { w == NONE && !is_taken[me] -> in[me] = 0; goto user }
    :: atomic { w == NONE && is_taken[me] -> goto leave_thread }
    :: atomic { w != NONE -> begin_use(); sp[f] = 1; on[f] = NONE; put(f); current[w] = NONE; f = NONE; goto loop }
    fi
#ifdef BLOCKS
  :: /* coir_block_enter */
    in[me] = 1;
    look();
    if
    :: atomic { w != NONE && !has_heir -> w = NONE; in[me] = 0; goto user }
    :: atomic { w != NONE && has_heir -> begin_use(); find_heir() }
      atomic {
        lock(me); away[me] = f; is_taken[me] = 0; worker[me] = NONE;
        carrier[w] = NONE; current[w] = NONE; inside[w] = NONE; unlock(me)
      }
      atomic { heir_to[h] = w; w = NONE; h = 0; in[me] = 0; goto user }
    :: atomic { w == NONE -> is_taken[me] = 0; in[me] = 0; goto user }
    fi
  :: /* coir_block_leave */
    in[me] = 1;
    look();
    if
    :: atomic { w != NONE || is_taken[me] -> w = NONE; in[me] = 0; goto user }
    :: atomic { w == NONE && !is_taken[me] -> goto leave_thread }
    fi
#endif
  fi;

#ifdef MUTEX
locking:
  if
  :: atomic { holder == NONE -> holder = f; goto user }
  :: paused[me] -> sleep_paused(1); goto locking
  fi;
#endif

  /* It leaves the fiber's stack for its own. */
leave_thread:
  atomic { assert(away[me] == f && worker[me] == NONE); on[f] = NONE; f = NONE }

home:
  atomic {
    f = away[me];
    if
    :: f == NONE -> goto becomes_spare
    :: else
    fi;
    lock(me);
    sp[f] = 1; bound[f] = NONE; away[me] = NONE;
    unlock(me)
  }
  atomic { assert(on[f] == NONE); put(f) }
becomes_spare:
  atomic { f = NONE; w = NONE; is_taken[me] = 0; is_spare[me] = 1 }

spare:
  atomic {
    if
    :: heir_to[me] != NONE -> w = heir_to[me]; heir_to[me] = NONE; goto carry
    :: halt && is_spare[me] -> is_spare[me] = 0; goto over
    fi
  }

rest:
  atomic {
    lock(me);
    assert(inside[w] == me && !at_rest[w]);
    worker[me] = NONE; inside[w] = NONE; carrier[w] = NONE; at_rest[w] = 1;
    unlock(me)
  }

over:
  assert(worker[me] == NONE && !paused[me]);
  gone++
}

#define is_outside(i) (carrier[i] != NONE && !in[carrier[i]])
#define can_take(i) (is_outside(i) && !owner[carrier[i]] && worker[carrier[i]] == i && has_heir && may_take)
#define is_loose(t) (worker[t] == NONE && away[t] != NONE && is_taken[t] && !paused[t] && !in[t] && !owner[t])

/* coir__carry_take(), again and again; the valve; and those that run alone. */
active proctype monitor() {
  byte t, f, h, w;
  do
  :: halt -> break
  :: atomic {
      if
      :: can_take(0) -> w = 0
#if WORKERS > 1
      :: can_take(1) -> w = 1
#endif
      fi;
#ifdef TAKES
      takes_left--;
#endif
      t = carrier[w]; f = current[w]; find_heir();
      assert(inside[w] == NONE && f != NONE && on[f] == t && !paused[t]);
      lock(t);
      worker[t] = NONE; away[t] = f; is_taken[t] = 1; current[w] = NONE; carrier[w] = NONE;
#ifdef MUTATE_ORDER
      unlock(t)
#endif
    }
    if
    :: skip
    :: atomic { sp[f] = 0; bound[f] = t; paused[t] = 1 }
#if WORKERS > 1
      put(f)
#else
      atomic { put(f); heir_to[h] = w; goto unlocks }
#endif
    fi;
    heir_to[h] = w;
unlocks:
    atomic { unlock(t); t = 0; f = 0; h = 0; w = 0 }
#ifndef MUTATE_VALVE
  :: atomic { !valve && !has_heir && is_outside(0) -> valve = 1; wake_all() }
  :: valve && (has_heir || !is_outside(0)) -> valve = 0
#endif
  :: /* one that runs alone is paused after all */
    atomic {
      if
      :: is_loose(0) -> t = 0
      :: is_loose(1) -> t = 1
#if THREADS > 2
      :: is_loose(2) -> t = 2
#endif
      fi;
      f = away[t];
      assert(on[f] == t);
      lock(t)
    }
#ifdef MUTATE_LOOSE
    paused[t] = 1;
    if
    :: in[t] -> h = 1
    :: !in[t]
    fi;
    paused[t] = 0;
#else
    h = in[t];
#endif
    atomic {
      if
      :: h
      :: else -> sp[f] = 0; bound[f] = t; paused[t] = 1; put(f)
      fi;
      unlock(t); t = 0; f = 0; h = 0
    }
  od;
  gone++
}

active proctype stop() {
#ifdef MUTEX
  has_held[0] && has_held[1];
#endif
  halt = 1;
  atomic { wake_all() }
}

init {
  atomic {
    queued[0] = 1;
    queued[1] = 1;
    run thread(0, 0);
#if WORKERS > 1
    run thread(1, 1);
#else
    run thread(1, NONE);
    is_spare[1] = 1;
#endif
#if THREADS > 2
    run thread(2, NONE);
    is_spare[2] = 1
#endif
  }
  gone == THREADS + 1;
  assert(at_rest[0] && at_rest[WORKERS - 1] && queued[0] && queued[1])
}
