/* Model: the second side of a fork (src/fork.c), whose record lies in the frame of who forks.
 *
 * Modelled: a caller that forks ROUNDS times with its record at the same place: it puts the record into a deque, runs
 * the first side, takes the record back or waits for it, and leaves the frame (fork_begin, fork_end, fork_join,
 * fork_wait). Or the first side fails, and the frame is left by coir__fork_abandon. TAKERS others take the record out
 * of a deque at any moment: a thief, the caller's worker while the caller waits, or one to which it has moved. There is
 * memory for a fiber, or the record is put back (side_bind). They run the side, which fails or not, and say so
 * (side_main, side_done). The claim of a clause, and the way back out of a wait that is not needed any more,
 * are those of wait.c.
 *
 * Memory: sequentially consistent. What is written to the record is published by the deque on the way out, and by the
 * exchange of state on the way back; the clause by the compare-and-swap that puts it there.
 *
 * Not modelled: how the deque decides who gets the record (deque.pml: by one step here, and whether the caller finds it
 * to be the newest is left open); parking (who has claimed the clause wakes the caller by one step).
 *
 * What must hold: the second side runs once, or not at all if the first has failed (run_side, leave); nobody touches
 * the record, or the record of a later fork at the same place, when its frame is gone (touch), nor the clause when the
 * wait is over (touch_clause); a wait that was claimed is woken once, when the side is done (end_wait); the caller sees
 * whether the side has failed (leave). Nobody waits for ever.
 *
 * Mutations, each of which must be found (run.sh):
 *   MUTATE_STORE    the side looks for a clause, and then stores that it is done
 *   MUTATE_CAS      the caller looks whether it is done, and then stores its clause
 *   MUTATE_SLEEP    the caller waits although it could not leave its clause
 *   MUTATE_CLAIM    the side wakes the caller without a claim
 *   MUTATE_LATE     the side says that it has failed when it is done
 *   MUTATE_CLAUSE   the side looks at the clause when it has woken the caller
 *   MUTATE_BACK     the caller takes the record back because nobody has finished it, not out of the deque
 *   MUTATE_FAIL     who fails does not see to the record
 *   MUTATE_BIND     a record without a fiber is not put back */
#ifndef ROUNDS
#define ROUNDS 3
#endif
#ifndef TAKERS
#define TAKERS 2
#endif

mtype = { NONE, CLAUSE, DONE, IDLE, OPEN, CLAIMED };

/* The record. */
mtype state = NONE;
bit has_failed;

bit is_queued; /* it is in some deque */

/* The caller as a waiter. */
mtype word = IDLE;
byte woken;

/* What only the model knows. */
byte round;      /* which fork it is */
bit is_here;     /* the frame with the record */
bit clause_here; /* the frame with the clause */
byte runs;
bit failure;     /* of the side that has run */

#define touch(r) assert(is_here && round == r)
#define touch_clause(r) assert(clause_here && round == r)

inline run_side(r) {
  assert(is_here && round == r && runs == 0);
  runs++
}

/* Out of the frame. */
inline leave() {
  atomic {
    assert(runs == (is_failing && is_back -> 0 : 1));
    assert(is_back || has_failed == failure);
    assert(!clause_here && word == IDLE && woken == 0);
    is_here = 0;
    round++;
    runs = 0;
    failure = 0;
    is_failing = 0;
    is_back = 0
  }
}

inline end_wait() {
  atomic { woken > 0 -> woken--; assert(word == CLAIMED && state == DONE); word = IDLE; clause_here = 0 }
}

active proctype caller() {
  bit is_failing, is_back;
#ifdef MUTATE_CAS
  bit is_done;
#endif
  do
  :: round == ROUNDS -> break
  :: round < ROUNDS ->
    atomic { is_here = 1; state = NONE; has_failed = 0 }
    is_queued = 1;
    if /* the first side */
    :: is_failing = 0
    :: is_failing = 1
    fi;
#ifdef MUTATE_FAIL
    if
    :: is_failing -> atomic { is_back = 1; runs = 0 } goto gone
    :: else
    fi;
#endif
    if
#ifdef MUTATE_BACK
    :: atomic { state == NONE -> is_queued = 0; is_back = 1 }
#else
    :: atomic { is_queued -> is_queued = 0; is_back = 1 }
#endif
    :: skip
    fi;
    do
    :: is_back -> break
    :: !is_back && state == DONE -> break
    :: !is_back && state != DONE -> /* fork_wait() */
      atomic { word = OPEN; clause_here = 1 }
#ifdef MUTATE_CAS
      is_done = state == DONE;
      if
      :: !is_done -> state = CLAUSE; end_wait()
#else
      if
      :: atomic { state == NONE -> state = CLAUSE } end_wait()
#endif
      :: else ->
#ifdef MUTATE_SLEEP
        end_wait()
#else
        if /* coir__wait_retract() */
        :: atomic { word == OPEN -> word = IDLE; clause_here = 0 }
        :: word == CLAIMED -> end_wait()
        fi
#endif
      fi
    od;
    if
    :: is_back && !is_failing -> run_side(round)
    :: else
    fi;
gone:
    leave()
  od
}

active [TAKERS] proctype taker() {
  byte r;
  bit fails, is_ours;
#ifdef MUTATE_STORE
  bit is_awaited;
#endif
end:
  do
  :: atomic { is_queued -> is_queued = 0; r = round }
    if
    :: atomic { touch(r); skip } /* side_bind(): there is a fiber */
    :: atomic {
        touch(r); /* there is none */
#ifndef MUTATE_BIND
        is_queued = 1;
#endif
        goto over
      }
    fi;
    run_side(r);
    if
    :: fails = 0
    :: fails = 1
    fi;
    failure = fails;
#ifndef MUTATE_LATE
    atomic { touch(r); has_failed = fails }
#endif
    /* side_done() */
#ifdef MUTATE_STORE
    atomic { touch(r); is_awaited = state == CLAUSE }
    atomic { touch(r); state = DONE }
    if
    :: is_awaited -> is_awaited = 0; is_ours = 1
    :: else
    fi;
#else
    atomic {
      touch(r);
      if
      :: state == CLAUSE -> is_ours = 1
      :: else
      fi;
      state = DONE
    }
#endif
#ifdef MUTATE_LATE
    atomic { touch(r); has_failed = fails }
#endif
    if
    :: is_ours ->
#ifndef MUTATE_CLAIM
      atomic {
        touch_clause(r);
        if
        :: word == OPEN -> word = CLAIMED
        :: else -> is_ours = 0
        fi
      }
#endif
      if
      :: is_ours ->
#ifndef MUTATE_CLAUSE
        touch_clause(r); /* clause->waiter */
#endif
        atomic { assert(woken == 0); woken++ }
#ifdef MUTATE_CLAUSE
        touch_clause(r)
#endif
      :: else
      fi
    :: else
    fi;
over:
    atomic { r = 0; fails = 0; is_ours = 0 }
  od
}
