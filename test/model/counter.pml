/* Model: a counter (src/counter.c), whose memory goes as soon as somebody may let it go.
 *
 * Modelled: DECS threads that count down, some by more than 1, of which the last wakes (coir__counter_sub,
 * counter_wake); WAITERS that wait, and end that by being woken, by their deadline, or by finding the counter complete
 * (coir_counter_wait with counter_leave, and the claim of a clause and its unlinking from wait.c); or that look now and
 * then (coir_counter_is_complete). Without REFS the counter is in the memory of a single waiter, who lets it go when a
 * wait or a look has said that it is complete, and who uses it again once, after its deadline: adds to it, and starts
 * one more who counts that down. With REFS it was made: each waiter has a reference, which it gives up at any time that
 * it does not wait; whoever gives up the last of anything frees it. With OWNED it is somebody else's than the single
 * waiter's, who has no deadline, and is in its call by then: the owner lets it go when a look has said that it is
 * complete; or, with REFS, gives up the only reference at any time.
 *
 * Memory: sequentially consistent. The word changes by locked instructions, the list under the lock; giving back the
 * lock is a plain store, which a processor may keep back, but not behind the locked instruction that follows.
 *
 * Not modelled: how a lock leans to a worker, parking (who has claimed a clause wakes its waiter by one step), the
 * number of failures.
 * Bounds: one counter, DECS that count down. How often a waiter's deadline passes and it waits again is unbounded.
 *
 * What must hold: nobody touches the counter when it is gone (touch), nor a clause when its wait is over (take_waiter);
 * each wait that was claimed is woken once, by who claimed it (wake_waiter); who is woken, or sees it complete, does so
 * after the last has counted down (complete); at the end the counter has been freed, once. Nobody waits for ever.
 *
 * Mutations, each of which must be found (run.sh):
 *   MUTATE_CLEAR    the bit is cleared before the waiters are taken off the queue
 *   MUTATE_UNLOCK   the lock is given back after the bit is cleared
 *   MUTATE_WAKE     the waiters are woken before the bit is cleared
 *   MUTATE_LOOK     who counts down reads the word afresh instead of looking at what it left
 *   MUTATE_MARK     a waiter marks the counter without looking whether it is zero by now
 *   MUTATE_STORE    a waiter marks it with a plain store
 *   MUTATE_BIT      complete is what has no value, whatever the bit says (OWNED)
 *   MUTATE_LINK     a waiter whose deadline has passed does not unlink its clause
 *   MUTATE_CLAIM    the waker wakes whom it could not claim, too
 *   MUTATE_LEAVE    a waiter whose deadline has passed leaves the mark behind
 *   MUTATE_STAY     it does not wait for who is about to complete the counter
 *   MUTATE_ZERO     it takes away the mark of that one
 *   MUTATE_OTHERS   it takes away the mark of waiters that stay (REFS)
 *   MUTATE_FREE     who clears the bit does not see to the memory (OWNED, REFS) */
#ifndef DECS
#define DECS 2
#endif
#if defined REFS && !defined OWNED
#ifndef WAITERS
#define WAITERS 2
#endif
#define OWNERS WAITERS
#else
#define WAITERS 1
#define OWNERS 1
#endif

/* The word: each part in a variable of its own, that change together, in one step. */
byte value;
bit waited;
byte refs = OWNERS;

bit lock;
bit linked[WAITERS]; /* q.list: whose clause is in it. The order does not matter, as all are taken */

/* Of the waiters. */
mtype = { IDLE, OPEN, CLAIMED, TIMEOUT };
mtype state[WAITERS] = IDLE; /* the claim word */
byte woken[WAITERS];

/* What only the model knows. */
bit is_gone;
byte left; /* of the value: what has not been counted down */
byte ended;
bit is_used_again;
bit is_waiting; /* somebody has begun to, or need not (OWNED) */

#define touch() assert(!is_gone)
#define acquire() atomic { !lock -> touch(); lock = 1 }
#define release() atomic { touch(); lock = 0 }
#ifdef MUTATE_BIT
#define is_complete (value == 0)
#else
#define is_complete (value == 0 && !waited)
#endif
#if WAITERS > 1
#define is_empty (!linked[0] && !linked[1])
#else
#define is_empty (!linked[0])
#endif

inline complete() {
  assert(left == 0)
}

inline let_go() {
  atomic { touch(); is_gone = 1 }
}

inline wake_waiter(i) {
  assert(state[i] == CLAIMED && woken[i] == 0);
  woken[i] = 1
}

/* coir__waitlist_take_all(): one after the other; a clause that cannot be claimed is unlinked all the same. */
inline take_waiter(i) {
  atomic {
    touch();
    if
    :: linked[i] ->
      assert(state[i] != IDLE); /* its frame is there */
      linked[i] = 0;
      if
      :: state[i] == OPEN -> state[i] = CLAIMED; all[i] = 1
#ifdef MUTATE_CLAIM
      :: state[i] != OPEN -> all[i] = 1
#else
      :: state[i] != OPEN
#endif
      fi
    :: else
    fi
  }
}

inline take_all() {
  take_waiter(0);
#if WAITERS > 1
  take_waiter(1)
#endif
}

inline wake_all() {
  do
  :: atomic { all[0] -> all[0] = 0; wake_waiter(0) }
#if WAITERS > 1
  :: atomic { !all[0] && all[1] -> all[1] = 0; wake_waiter(1) }
  :: !all[0] && !all[1] -> break
#else
  :: !all[0] -> break
#endif
  od
}

/* The last touch. In the same step it turns out whether that was the last of everything. */
inline clear() {
  atomic {
    touch();
    waited = 0;
#ifndef MUTATE_FREE
    was_last = value == 0 && refs == 0
#endif
  }
}

proctype counts_down(byte n) {
  bit all[WAITERS];
  bit is_zero, is_waited, was_last;
  atomic {
    touch();
    assert(value >= n);
    value = value - n;
    left = left - n;
    is_zero = value == 0;
    is_waited = waited;
    was_last = is_zero && !waited && refs == 0
  }
#ifdef MUTATE_LOOK
  atomic { touch(); is_zero = value == 0; is_waited = waited }
#endif
  if
  :: is_zero && is_waited ->
    acquire();
#ifdef MUTATE_CLEAR
    clear();
#endif
    take_all();
#ifdef MUTATE_WAKE
    wake_all();
#endif
#ifdef MUTATE_UNLOCK
    clear();
    release();
#else
    release();
#ifndef MUTATE_CLEAR
    clear();
#endif
#endif
  :: else
  fi;
  if
  :: was_last -> let_go()
  :: else
  fi;
  wake_all();
  ended++
}

/* counter_leave(). Who counts down does so before the compare-and-swap or after it. */
inline leave() {
  acquire();
  atomic {
    touch();
#ifdef MUTATE_OTHERS
    is_last = 1;
#else
    is_last = is_empty;
#endif
    if
#ifdef MUTATE_ZERO
    :: is_last -> waited = 0
#else
    :: is_last && value != 0 -> waited = 0
#endif
    :: else
    fi
  }
  release();
#ifndef MUTATE_STAY
  if
  :: is_last -> atomic { !(value == 0 && waited) -> touch(); is_last = 0 }
  :: else
  fi
#endif
}

inline use_again() {
#ifndef REFS
  if
  :: atomic { !is_used_again -> touch(); is_used_again = 1; value++; left++; run counts_down(1) }
  :: true
  fi
#else
  skip
#endif
}

proctype waits(byte me) {
  bit is_marked, is_timed, is_last;
#ifdef MUTATE_STORE
  byte seen;
#endif

again:
  if
  :: atomic { is_complete -> touch(); complete(); goto over } /* coir_counter_is_complete, or the loop of a wait */
  :: atomic { !is_complete -> touch() }
#if defined REFS && !defined OWNED
  :: goto over /* it does not want to wait any longer */
#endif
  fi;
  acquire();
#ifdef MUTATE_MARK
  atomic { touch(); waited = 1; is_marked = 1 }
#elif defined MUTATE_STORE
  atomic { touch(); seen = value }
  atomic {
    touch();
    if
    :: seen != 0 -> value = seen; waited = 1; is_marked = 1; seen = 0
    :: else
    fi
  }
#else
  atomic {
    touch();
    if
    :: value != 0 -> waited = 1; is_marked = 1
    :: else
    fi
  }
#endif
  if
  :: !is_marked -> release(); goto again
  :: else
  fi;
  atomic {
    touch();
    linked[me] = 1;
    state[me] = OPEN;
    is_marked = 0;
    is_waiting = 1;
    if
    :: is_timed = 0
#ifndef OWNED
    :: is_timed = 1
#endif
    fi
  }
  release();
  if
  :: atomic { woken[me] -> woken[me] = 0; assert(state[me] == CLAIMED && !linked[me]); state[me] = IDLE; complete() }
    goto over
  :: atomic { is_timed && state[me] == OPEN -> state[me] = TIMEOUT }
#ifndef MUTATE_LINK
    acquire();
    linked[me] = 0;
    release();
#endif
    atomic { assert(!woken[me]); state[me] = IDLE }
#ifndef MUTATE_LEAVE
    leave();
#endif
    use_again();
    goto again
  fi;

over:
#ifdef OWNED
  is_waiting = 1;
#elif defined REFS
  atomic { touch(); refs--; is_marked = value == 0 && !waited && refs == 0 }
  if
  :: is_marked -> let_go()
  :: else
  fi;
#else
  let_go();
#endif
  ended++
}

#ifdef OWNED
proctype owns() {
#ifdef REFS
  bit was_last;
  is_waiting;
  atomic { touch(); refs--; was_last = value == 0 && !waited && refs == 0 }
  if
  :: was_last -> let_go()
  :: else
  fi;
#else
  is_waiting;
  atomic { is_complete -> touch(); complete() }
  let_go();
#endif
  ended++
}
#define OTHERS 1
#else
#define OTHERS 0
#endif

init {
  atomic {
    value = DECS + 1;
    left = DECS + 1;
    run counts_down(2);
    run counts_down(1);
#if DECS > 2
    run counts_down(1);
#endif
    run waits(0);
#if WAITERS > 1
    run waits(1);
#endif
#ifdef OWNED
    run owns()
#endif
  }
  ended == DECS + WAITERS + OTHERS + is_used_again;
  assert(is_gone && left == 0)
}
