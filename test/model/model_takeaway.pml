/* Model: a worker is taken away from its thread (src/carry.c), against every way into the library and out of it.
 *
 * Modelled: one worker, its THREADS, two fibers, the monitor. A thread's loop picks a fiber; the fiber makes calls that
 * never wait, calls that wait (and switch to the other fiber, or to the loop), and with the switches below it ends,
 * makes calls inside of calls (NESTED), holds its worker (HOLDS), and gives it up and comes back (BLOCKS:
 * coir_block_enter and coir_block_leave). The monitor looks at `in`, finds an heir or none, tries the thread's lock,
 * clears the worker, fences, looks again, and puts back or separates. A thread without its worker goes on alone, comes
 * home, queues its fiber, becomes a spare, and an heir again. The runtime halts at any moment, or when the last fiber
 * has ended.
 *
 * Memory: x86-TSO (Owens, Sarkar, Sewell 2009). Each thread has a first-in-first-out buffer in which its writes of `in`
 * wait for memory to take them; a locked instruction waits until it is empty; the heavy fence empties the buffers of
 * all threads, one after the other. The thread's other writes are made under a lock, and the monitor's have nothing to
 * overtake until it fences by itself, so they need no buffer. What is used between `in` = 1 and `in` = 0 is one step at
 * most, so MUTATE_LEAVE shows what becomes of a processor that lets the last write overtake it.
 *
 * Not modelled: which fiber is picked (any that is queued may be), sleeping and waking (a thread that waits for
 * something goes on when it is there), calls of the library's own helpers, more than one worker, memory that is weaker
 * than TSO.
 * Bounds: THREADS 2 or 3, BUFFER entries. All else is unbounded: each run covers every state that can be reached.
 *
 * What must hold: at most one thread uses the worker at a time, it carries it, and runs the current fiber of it
 * (inside, begin_use); who finds no worker is away with his fiber, and two looks in one call find the same; a held
 * worker is not taken; a fiber is on one thread, and queued once, or neither (on, put); all come to their end, and the
 * worker is put to rest once. No thread waits for ever: such a state is an invalid end state, which Spin looks for.
 *
 * Mutations, each of which must be found (run.sh):
 *   MUTATE_FENCE    the monitor fences only itself
 *   MUTATE_VERDICT  a thread that finds no worker waits until nobody owns it, and reads: the next attempt may be on
 *   MUTATE_OWNER    nobody owns a thread while its worker changes
 *   MUTATE_LEAVE    `in` is cleared before the last use of the worker
 *   MUTATE_AWAY     the fiber is away before the heir is certain
 *   MUTATE_SPARE    a thread begins to carry without being inside
 *
 * Source of the method: Holzmann, "The Model Checker SPIN", IEEE Transactions on Software Engineering 23(5), 1997. */
#ifndef THREADS
#define THREADS 2
#endif
#ifndef BUFFER
#define BUFFER 2
#endif
#define FIBERS 2
#define NONE 7

/* Of the threads. */
bit worker[THREADS]; /* thread.worker is not NULL */
bit owner[THREADS];  /* thread.owner is held */
byte away[THREADS] = NONE;
bit is_taken[THREADS];
bit in[THREADS] = 1; /* thread.in, in memory */
chan buffer[THREADS] = [BUFFER] of { bit }; /* what was written to it and is not there yet */
bit is_spare[THREADS]; /* in rt->spares */
bit is_heir[THREADS];  /* thread.heir_to is not NULL */

/* Of the worker, and of the runtime. */
byte carrier = NONE; /* worker.thread */
byte current = NONE; /* worker.current */
bit halt;

/* Of the fibers. */
bit queued[FIBERS];
bit holds[FIBERS];
bit ends[FIBERS]; /* it is at its end, and waits for a worker to be ended by */
byte left = FIBERS;

/* What only the model knows. */
byte inside = NONE; /* who uses the worker */
byte on[FIBERS] = NONE; /* on which thread the fiber's stack is in use */
bit at_rest;
byte gone;

#define set_in(v) buffer[me]!v
#define fenced empty(buffer[me])

#ifdef MUTATE_OWNER
#define lock_own fenced
#define unlock_own skip
#define is_free(t) true
#define lock_try(t) skip
#define unlock(t) skip
#else
#define lock_own atomic { fenced && !owner[me] -> owner[me] = 1 }
#define unlock_own owner[me] = 0
#define is_free(t) (!owner[t])
#define lock_try(t) owner[t] = 1
#define unlock(t) owner[t] = 0
#endif

/* coir__carried() */
inline look() {
  if
  :: worker[me] -> mine = 1
  :: !worker[me] ->
#ifdef MUTATE_VERDICT
    is_free(me);
    mine = worker[me]
#else
    atomic { fenced && is_free(me) -> mine = worker[me] } /* it locks, reads, and unlocks */
#endif
  fi
}

inline begin_use() {
  atomic {
    assert(inside == NONE && carrier == me && current == f && on[f] == me);
    inside = me
  }
}

inline end_use() {
  if
  :: mine -> inside = NONE
  :: else
  fi
}

inline put(g) {
  assert(!queued[g] && on[g] == NONE);
  queued[g] = 1
}

inline pick() {
  if
  :: queued[0] -> queued[0] = 0; f = 0
  :: queued[1] -> queued[1] = 0; f = 1
  fi
}

/* There may be none although there are spares: others took them, or a thread could not be made. */
inline find_heir() {
  if
  :: is_spare[0] -> is_spare[0] = 0; h = 0
  :: !is_spare[0] && is_spare[1] -> is_spare[1] = 0; h = 1
#if THREADS > 2
  :: !is_spare[0] && !is_spare[1] && is_spare[2] -> is_spare[2] = 0; h = 2
#endif
  :: h = NONE
  fi
}

/* Not in a section that blocks, in which it is a plain thread. */
#define is_fiber (away[me] == NONE || is_taken[me] || worker[me])

proctype thread(byte me; bit begins) {
  byte f = NONE; /* whose code it runs */
  byte h;
  bit mine; /* it found its worker */
  if
  :: begins -> goto carry
  :: else -> goto spare
  fi;

carry:
  atomic { assert(inside == NONE && !worker[me]); inside = me; carrier = me }
#ifdef MUTATE_SPARE
  atomic { fenced -> in[me] = 0 }
#endif
  worker[me] = 1;

loop:
  assert(inside == me);
  if
  :: halt -> goto rest
  :: atomic { !halt && (queued[0] || queued[1]) -> pick() }
  fi;

dispatch:
  atomic {
    assert(on[f] == NONE && inside == me && carrier == me);
    on[f] = me;
    current = f;
    mine = 1;
    if
    :: ends[f] -> goto ended
    :: else
    fi
  }

leave:
#ifdef MUTATE_LEAVE
  set_in(holds[f]);
  atomic { end_use(); mine = 0 }
#else
  atomic { nfull(buffer[me]) -> end_use(); set_in(holds[f]); mine = 0 }
#endif

  /* In the program's code. It may stay here for ever: other threads then go on alone. */
user:
  assert(on[f] == me);
  if
  :: set_in(1); /* a call that never waits */
    look();
    if
    :: mine -> begin_use()
    :: !mine -> assert(away[me] == f)
    fi;
#ifdef NESTED
    if
    :: skip
    :: /* it makes another one */
      h = mine;
      set_in(1);
      look();
      assert(mine == h);
      set_in(1)
    fi;
#endif
    goto leave
  :: is_fiber -> /* a call that waits */
    set_in(1);
    look();
    if
    :: mine ->
      begin_use();
      if
      :: atomic { on[f] = NONE; put(f); pick() }
        goto dispatch
      :: atomic { on[f] = NONE; put(f); current = NONE; f = NONE }
        goto loop
      fi
    :: !mine && is_taken[me] -> goto home
    :: !mine && !is_taken[me] -> goto leave
    fi
#ifdef ENDS
  :: !holds[f] && is_fiber ->
    set_in(1);
    look();
    ends[f] = 1;
    if
    :: mine -> begin_use(); goto ended
    :: else -> goto home
    fi
#endif
#ifdef HOLDS
  :: !holds[f] && is_fiber -> /* coir_hold_begin */
    set_in(1);
    look();
    holds[f] = 1;
    if
    :: mine -> begin_use(); goto leave
    :: else -> goto home
    fi
  :: holds[f] -> /* coir_hold_end */
    set_in(1);
    look();
    assert(mine);
    begin_use();
    holds[f] = 0;
    goto leave
#endif
#ifdef BLOCKS
  :: !holds[f] -> /* coir_block_enter */
    set_in(1);
    look();
    if
    :: mine ->
      begin_use();
      atomic { fenced -> find_heir() }
      if
      :: h == NONE -> goto leave
      :: else
      fi;
      lock_own;
      away[me] = f;
      is_taken[me] = 0;
      worker[me] = 0;
      atomic { carrier = NONE; current = NONE; inside = NONE }
      unlock_own;
      is_heir[h] = 1;
      mine = 0
    :: else -> is_taken[me] = 0
    fi;
    goto leave
  :: /* coir_block_leave */
    set_in(1);
    look();
    if
    :: mine -> begin_use(); goto leave
    :: !mine && is_taken[me] -> goto leave
    :: !mine && !is_taken[me] -> goto home
    fi
#endif
  fi;

ended:
  atomic {
    on[f] = NONE;
    current = NONE;
    ends[f] = 0;
    left--;
    f = NONE;
    if
    :: left == 0 -> halt = 1
    :: else
    fi
  }
  goto loop;

  /* It leaves the fiber's stack for its own. */
home:
  atomic { fenced; assert(away[me] == f && !worker[me]); on[f] = NONE }
  atomic { away[me] = NONE; put(f); f = NONE; is_taken[me] = 0; h = 0; mine = 0 }

spare:
  is_spare[me] = 1;
  if
  :: atomic { is_heir[me] -> is_heir[me] = 0 } goto carry
  :: atomic { halt && is_spare[me] -> is_spare[me] = 0 }
  fi;
  goto over;

rest:
  lock_own;
  away[me] = NONE;
  worker[me] = 0;
  atomic { assert(inside == me && !at_rest); inside = NONE; carrier = NONE; at_rest = 1 }
  unlock_own;

over:
  assert(!worker[me]);
  gone++
}

#ifdef MUTATE_FENCE
#define drain(i) skip
#else
#define drain(i) d_step { do :: buffer[i]?in[i] :: empty(buffer[i]) -> break od }
#endif

/* coir__carry_take(), again and again. */
active proctype monitor() {
  byte t, f, h;
  do
  :: halt -> break
  :: atomic { carrier != NONE -> t = carrier }
    if
    :: in[t]
    :: !in[t] ->
      atomic { find_heir() }
      if
      :: h == NONE
      :: else ->
        if
        :: !is_free(t) -> is_spare[h] = 1
        :: atomic { is_free(t) -> lock_try(t) }
          if
          :: !worker[t] -> atomic { unlock(t); is_spare[h] = 1 }
          :: worker[t] ->
            worker[t] = 0;
            drain(0);
            drain(1);
#if THREADS > 2
            drain(2);
#endif
            if
            :: in[t] -> worker[t] = 1; unlock(t); is_spare[h] = 1
            :: !in[t] ->
              atomic { assert(inside == NONE && carrier == t && current != NONE && !holds[current]); f = current }
              away[t] = f;
              is_taken[t] = 1;
#ifdef MUTATE_AWAY
              unlock(t);
              if
              :: skip
              :: away[t] = NONE; worker[t] = 1; is_spare[h] = 1; goto again
              fi;
#endif
              atomic { current = NONE; carrier = NONE; is_heir[h] = 1 }
              unlock(t)
            fi
          fi
        fi
      fi
    fi;
again:
    atomic { t = 0; f = 0; h = 0 }
  od;
  gone++
}

/* Takes what is in the buffers, at any moment. */
active proctype memory() {
end:
  do
  :: buffer[0]?in[0]
  :: buffer[1]?in[1]
#if THREADS > 2
  :: buffer[2]?in[2]
#endif
  od
}

active proctype stop() {
  halt = 1
}

init {
  atomic {
    queued[0] = 1;
    queued[1] = 1;
    run thread(0, 1);
    run thread(1, 0);
#if THREADS > 2
    run thread(2, 0)
#endif
  }
  gone == THREADS + 1;
  assert(at_rest)
}
