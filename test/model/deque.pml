/* Model: the deque of a worker (src/runq.h, src/runq.c), its owner against thieves of both kinds.
 *
 * Modelled: coir__runq_push_lean and the growth of the storage from 2 slots to 4; coir__deque_take_newest, as deque_pop
 * calls it (with its way out to the oldest while thieves are inside), and as a fork does that looks for its own record
 * (also when thieves have taken that: at bottom - 1 there may be nothing); coir__runq_pop_aged; and THIEVES of which
 * each takes one (deque_steal), or is inside and takes many (thief_enter, take_jobs, thief_leave), again and again. How
 * many of what stands there are jobs, and whether a thief gives up, is left open. With ONE or MANY all thieves are of
 * that kind.
 *
 * Memory: x86-TSO (Owens, Sarkar, Sewell 2009), as in model_takeaway.pml. The owner's writes of bottom, slots and
 * the pointer to them wait in a first-in-first-out buffer; what it reads of its own is what it wrote last. Its
 * compare-and-swap waits until the buffer is empty. The heavy fence empties it. Thieves write here by locked
 * instructions only. With WEAK any write may stay behind while others overtake it, except releases and writes to the
 * same place; that is about what other processors may do here, as thieves read in order by acquires. With REAL there is
 * no asymmetric fence: the owner's light fence empties its buffer, the heavy one does nothing to others.
 *
 * Not modelled: the ring and the next slot, which share thieves with the deque; what thieves put into deques
 * of their own.
 * Bounds: TOTAL entries are pushed in all; BUFFER writes wait. How often anybody tries is unbounded.
 *
 * What must hold: each entry is taken once (take); who takes an entry got it out of a slot that still has it (take);
 * when all have been pushed and the owner finds nothing, all have been taken. And nobody waits for ever.
 *
 * At the ring thieves wait until the owner is outside (busy). Here they need not: an owner that saw no thieves had
 * lowered bottom before that look, so a thief whose fence came later sees it lowered.
 *
 * Mutations, each of which must be found (run.sh):
 *   MUTATE_HEAVY    thieves fence only themselves
 *   MUTATE_LIGHT    the owner looks at thieves and top before it writes bottom
 *   MUTATE_INSIDE   the owner takes the newest while thieves are inside
 *   MUTATE_ENTER    a thief reads bottom, counts itself among thieves, and does not read it again
 *   MUTATE_LAST     the owner takes the last one with a plain store of top
 *   MUTATE_RESTORE  bottom stays lowered when the newest was not to be had
 *   MUTATE_SLOT     push writes bottom before the slot
 *   MUTATE_ROOM     push takes the deque to be full with one more in it than fits
 *   MUTATE_RING     a thief looks up the storage before it reads bottom
 *   MUTATE_COPY     the larger storage is published before what was in the smaller one is copied
 *   MUTATE_RELEASE  push writes bottom with no order (WEAK)
 *   MUTATE_LATE     a thief reads the slot after its compare-and-swap */
#ifndef THIEVES
#define THIEVES 1
#endif
#ifndef TOTAL
#define TOTAL 4
#endif
#ifndef BUFFER
#define BUFFER 3
#endif
#define BASE 2 /* where top and bottom begin; the indices only grow */

/* In memory. */
byte thieves;
byte top = BASE;
byte bottom = BASE;
bit is_large; /* what q.deque points to */
byte small[2];
byte large[4];

mtype = { BOTTOM, DEQUE, SMALL, LARGE };
chan buffer = [BUFFER] of { bit, mtype, byte, byte }; /* whether it is a release, where, and what */
#ifdef WEAK
mtype late; /* the write that stays behind; 0: none */
byte late_at, late_v;
#endif

/* What only the model knows. */
byte content[4]; /* by index modulo 4: what the owner has put there */
byte taken;      /* a bit for each entry */
bit is_over;

#ifdef WEAK
#define fenced (late == 0 && empty(buffer))
#define may_overtake (late == 0 || !(buffer?[0, eval(late), eval(late_at), _] || buffer?[1, _, _, _]))
#define deliver_late() what = late; at = late_at; v = late_v; late = 0; late_at = 0; late_v = 0; deliver()
#else
#define fenced empty(buffer)
#define may_overtake true
#endif
#define write(what, at, v) buffer!0, what, at, v
#define write_release(what, at, v) buffer!1, what, at, v
#ifdef MUTATE_RELEASE
#define write_pushed write
#else
#define write_pushed write_release
#endif

inline deliver() {
  if
  :: what == BOTTOM -> bottom = v
  :: what == DEQUE -> is_large = v
  :: what == SMALL -> small[at] = v
  :: what == LARGE -> large[at] = v
  fi
}

#ifdef REAL
#define light_fence fenced
#define heavy_fence() skip
#else
#define light_fence skip
#ifdef MUTATE_HEAVY
#define heavy_fence() skip
#else
inline heavy_fence() {
  d_step {
#ifdef WEAK
    if
    :: late != 0 -> deliver_late()
    :: else
    fi;
#endif
    do
    :: buffer?_, what, at, v -> deliver()
    :: empty(buffer) -> break
    od;
    what = 0;
    at = 0;
    v = 0
  }
}
#endif
#endif

/* Whoever has got `entry` out of the slot of index i, at the moment from which it is theirs. */
inline take(i, entry) {
  assert(entry == content[(i) & 3] && entry != 0 && !((taken >> entry) & 1));
  taken = taken | (1 << entry)
}

/* ---- The owner ------------------------------------------------------------------------------------------------- */

inline set_slot(i, entry) {
  if
  :: grown -> write(LARGE, (i) & 3, entry)
  :: else -> write(SMALL, (i) & 1, entry)
  fi
}

/* ring_grow(): all slots are copied; the one that has become free since is copied as 0. */
inline grow() {
  atomic { t = top }
#ifdef MUTATE_COPY
  write_release(DEQUE, 0, 1);
#endif
  write(LARGE, t & 3, content[t & 3]);
  if
  :: t + 1 < b -> write(LARGE, (t + 1) & 3, content[(t + 1) & 3])
  :: else -> write(LARGE, (t + 1) & 3, 0)
  fi;
#ifndef MUTATE_COPY
  write_release(DEQUE, 0, 1);
#endif
  grown = 1;
  t = 0
}

#ifdef MUTATE_ROOM
#define capacity (grown -> 4 : 3)
#else
#define capacity (grown -> 4 : 2)
#endif

inline push() {
  if
  :: atomic { b - top >= capacity && !grown } grow()
  :: atomic { b - top < capacity }
  fi;
#ifdef MUTATE_SLOT
  write_release(BOTTOM, 0, b + 1);
  atomic { nfull(buffer) -> pushed++; content[b & 3] = pushed; set_slot(b, pushed); b++ }
#else
  atomic { nfull(buffer) -> pushed++; content[b & 3] = pushed; set_slot(b, pushed) }
  atomic { nfull(buffer) -> write_pushed(BOTTOM, 0, b + 1); b++ }
#endif
}

/* coir__deque_take_newest(b - 1): `ours` says what it returns. */
inline take_newest() {
#ifdef MUTATE_LIGHT
  is_alone = thieves == 0;
  t = top;
#endif
  write(BOTTOM, 0, b - 1);
  light_fence;
#ifdef MUTATE_INSIDE
  is_alone = 1;
#elif !defined MUTATE_LIGHT
  is_alone = thieves == 0;
#endif
  if
  :: !is_alone
  :: is_alone ->
    atomic {
#ifndef MUTATE_LIGHT
      t = top;
#endif
      if
      :: b - 1 > t -> ours = 1; take(b - 1, content[(b - 1) & 3])
      :: b - 1 == t -> is_last = 1
      :: b - 1 < t
      fi
    }
    if
    :: is_last ->
#ifdef MUTATE_LAST
      atomic { ours = 1; take(t, content[t & 3]); top = t + 1 }
#else
      atomic {
        fenced;
        if
        :: top == t -> ours = 1; take(t, content[t & 3]); top = t + 1
        :: else
        fi
      }
#endif
    :: else
    fi
  fi;
  if
  :: !ours || is_last ->
#ifdef MUTATE_RESTORE
    b--
#else
    write(BOTTOM, 0, b)
#endif
  :: else -> b--
  fi;
  atomic { is_alone = 0; is_last = 0; t = 0 }
}

/* deque_take_oldest(), by the owner. */
inline take_oldest() {
  atomic {
    fenced;
    if
    :: top == oldest -> take(oldest, content[oldest & 3]); top = oldest + 1
    :: else
    fi
  }
}

active proctype owner() {
  byte b = BASE; /* bottom, as the owner knows it */
  byte pushed, t, oldest;
  bit grown, ours, is_alone, is_last;
  do
  :: pushed < TOTAL && (b - top < 4 || !grown) -> push()
  :: /* deque_pop() */
    atomic {
      oldest = top;
      if
      :: b == oldest && pushed == TOTAL -> break
      :: b == oldest && pushed < TOTAL -> oldest = 0
      :: b != oldest
      fi
    }
    if
    :: oldest != 0 ->
      take_newest();
      if
      :: !ours && thieves != 0 -> take_oldest()
      :: !ours && thieves == 0
      :: ours
      fi
    :: else
    fi;
    atomic { oldest = 0; ours = 0 }
  :: pushed > 0 -> /* coir__runq_take_lean() */
    take_newest();
    ours = 0
  :: /* coir__runq_pop_aged() */
    atomic { top < b -> oldest = top }
    take_oldest();
    oldest = 0
  od;
  assert(taken == (1 << (TOTAL + 1)) - 2);
  is_over = 1
}

/* ---- Thieves --------------------------------------------------------------------------------------------------- */

inline read_slot(i, entry) {
  if
  :: theirs -> entry = large[(i) & 3]
  :: else -> entry = small[(i) & 1]
  fi
}

#ifdef MUTATE_RING
#define early_ring theirs = is_large
#define ring skip
#else
#define early_ring skip
#define ring theirs = is_large
#endif

active [THIEVES] proctype thief() {
  mtype what;
  byte at, v; /* of the fence */
  byte t, n, left;
  byte batch[2];
  bit theirs; /* the storage that it looks into */
  do
  :: is_over -> break
#ifndef MANY
  :: /* deque_steal() */
    early_ring;
    t = top;
    heavy_fence();
    atomic { left = (bottom > t -> bottom - t : 0) }
    if
    :: left == 0
    :: left != 0 ->
      ring;
#ifdef MUTATE_LATE
      atomic {
        if
        :: top == t -> left = content[t & 3]; taken = taken | (1 << left); top = t + 1
        :: else -> left = 0
        fi
      }
      atomic {
        read_slot(t, batch[0]);
        assert(left == 0 || batch[0] == left)
      }
#else
      atomic { read_slot(t, batch[0]) }
      atomic {
        if
        :: top == t -> take(t, batch[0]); top = t + 1
        :: else
        fi
      }
#endif
    fi;
    atomic { t = 0; left = 0; theirs = 0; batch[0] = 0 }
#endif
#ifndef ONE
  :: /* thief_enter() */
#ifdef MUTATE_ENTER
    n = bottom;
#endif
    thieves++;
    heavy_fence();
    early_ring;
    /* take_jobs() */
    t = top;
#ifdef MUTATE_ENTER
    atomic { left = (n > t -> n - t : 0); n = 0 }
#else
    atomic { left = (bottom > t -> bottom - t : 0) }
#endif
    if
    :: left == 0
    :: left != 0 ->
      ring;
      if
      :: n = 1
      :: left > 2 -> n = 2
      fi;
      atomic { read_slot(t, batch[0]) }
      if
      :: n == 2 -> atomic { read_slot(t + 1, batch[1]) }
      :: else
      fi;
      atomic {
        if
        :: top == t ->
          take(t, batch[0]);
          if
          :: n == 2 -> take(t + 1, batch[1])
          :: else
          fi;
          top = t + n
        :: else
        fi
      }
    fi;
leave:
    atomic { thieves--; t = 0; n = 0; left = 0; theirs = 0; batch[0] = 0; batch[1] = 0 }
#endif
  od
}

/* Takes what is in the buffer, at any moment. */
active proctype memory() {
  mtype what;
  byte at, v;
end:
  do
  :: d_step { nempty(buffer) && may_overtake -> buffer?_, what, at, v; deliver(); what = 0; at = 0; v = 0 }
#ifdef WEAK
  :: d_step { late == 0 && nempty(buffer) -> buffer?_, late, late_at, late_v }
  :: d_step { late != 0 -> deliver_late(); what = 0; at = 0; v = 0 }
#endif
  od
}
