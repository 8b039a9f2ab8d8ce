/* Descriptors: who waits for which, and who is to be woken by an event.
 *
 * Goal: a call on a ready descriptor costs its system call and nothing else; one that waits costs no system call of its
 * own in the steady state; no readiness is lost; and a number that was closed and stands for something new never mixes
 * the two.
 *
 * Why it is hard: the kernel reports edges. One that is overlooked does not come again, and it may come between a
 * system call that found nothing and the moment at which the fiber waits. Numbers are reused at once, while events and
 * calls of the former life may still be under way.
 *
 * Design. A record for every number that a descriptor of this process can have, in one reserved table, committed as it
 * is touched, never given back: so a late party may always look. A descriptor is watched once, for everything, by the
 * poller of the worker on which somebody first has to wait for it.
 *
 * Readiness. Each direction has a bit "dry" in the record's word, which also counts events.
 *   call    enter: count itself in, which reads the word; system call; leave: when it found nothing, set dry if the
 *           word has counted no event since. Then wait, if it is dry.
 *   wait    under the lock: if it is not dry after all, try again; else link a clause and suspend.
 *   event   count it, and clear dry; under the lock claim whoever waits for that direction; then wake them.
 * An event that comes before leave's compare-and-swap makes it leave the bit alone; one that comes later clears it, and
 * then finds the clause or is found by the waiter. So dry with nobody coming to clear it means that the kernel
 * has had nothing since the last look, and it will report an edge. The converse does not hold: a bit that is clear
 * promises nothing, and a wake may be spurious. Calls try again.
 *
 * Short transfers. TCP with edges: a read or write that was shorter than asked has drained or filled the socket
 * (epoll(7)), so it leaves the direction dry without a further call that says EAGAIN. What breaks this rule is
 * announced by an event first or along with the data (end of stream, reset, urgent data), so once such an event was
 * seen the rule is off for that life. Only adopted descriptors are trusted so: of others we do not even know that they
 * are still the same file.
 *
 * Everyone who waits for a direction is woken, not one: a fiber that was woken may be cancelled or stop reading, and
 * would have to hand the wake on; several readers of one descriptor are rare, and a herd costs each one system call.
 *
 * Not adopted. Anybody may close the number by close(2) and get it back for something else. So such a call always tries
 * the system call, and before each wait and after it asks the kernel whether the number still stands for the file that
 * is watched. For a socket that is the number by which the kernel knows it, which the record keeps. Where it differs or
 * there is none, as with pipes, we have the kernel watch the descriptor again: that reports what is ready now; where it
 * was not watched any more it fails, and changes nothing. Then the number stands for another file, and whoever waits
 * for the old one gets -EBADF. What was adopted may be disowned again. From then on all this holds for it, and those
 * who wait already are left alone, as if they had just begun to.
 *
 * Other runtimes. The poller that watches a descriptor is looked at only while its runtime runs. So a fiber of another
 * runtime, which is free to wait for the same descriptor, has its own poller watch it as well, at every wait; and the
 * former one again, so that this one registration tells of all who wait whether they wait for the file that the number
 * stands for. Plain threads count as one more runtime: they wait like fibers, and one service thread, started when the
 * first of them has to wait, looks after their poller. So coir_close reaches them, too.
 *
 * The check. Of a close(2) under those who wait no event tells. So while anybody waits for what is not adopted, the
 * keeper (keeper.c) looks at these descriptors once a second: it has each watched again, as above. That makes the
 * kernel report what is ready, which wakes a worker for nothing. So a socket at which nobody has begun to wait since it
 * was found right is only asked for its number. For others the full look mends what that number cannot tell: that the
 * file was another one for a moment, just when it was registered or when a call found nothing. A look that finds nobody
 * lets the check fade, a second one ends it. Who waits links its clause and, a light fence later, looks whether the
 * check is on; the keeper lets it fade and, a heavy fence later, looks at all clauses once more. So at least one of
 * them notices.
 *
 * Lives. The word counts lives, and a call that finds itself in another one than it began in returns -EBADF. coir_close
 * begins a new life, waits until every thread has left its system call on the number (none of these block), tells those
 * who wait, and only then closes: so no call ever reaches into the next life. Calls that begin before close(2) has
 * returned wait for that, since they could be neither of the old life nor of the new one. Tags carry a generation, so
 * that an event of a former life does nothing.
 *
 * Calls that block. What a thread of the pool does with a file may last for as long as a disk, and coir_close does not
 * wait for that. But the kernel looks the number up only when the system call begins, and the thread may be held up
 * between its look at the life and that. So these calls are on a list, and coir_close waits until each of its number
 * is over, or sleeps in the kernel in a call on that number, as /proc tells.
 *
 * Rejected: registering per wait with EPOLLONESHOT (a system call per wait); a lock around call and wait (a system call
 * under a spin lock); a hash table instead of the table (a miss and a lock per call); poll(2) for plain threads
 * (coir_close could not end it); to look at the open file by fstat(2) in the check (it may block, and files of some
 * kinds share one inode); to see by EPOLL_CTL_ADD whether a file is watched (if not, it is then, and others who look at
 * the same moment are told so; to take it out again takes it out for who has begun to wait for it meanwhile); for calls
 * that block, to make a copy of the descriptor (to close that gives up the process's locks on the file), or to leave
 * something in its place until they are over (the program may put its own there by dup2(2), which we would close then).
 *
 * I1: a clause is linked only while its direction is dry and a running poller watches the descriptor.
 * I2: dry is set only by a call that found nothing, with no event since before its system call.
 * I3: while a number is counted as in use (COIR__FD_USERS) coir_close does not close it.
 * I4: the last registration that a poller holds carries the record's generation, or its maker is about to make it anew.
 * I5: while a clause is linked the record names a poller that watches the file which is waited for (or which did, until
 *     close(2) came): the answer of that one holds for all who wait.
 *
 * Lock order: a record's lock is taken with no other held, and none is taken under it. */
#include "poller.h"

#include "internal.h"

#define BOTH (COIR__POLL_IN | COIR__POLL_OUT)
#define FRAME_LINES 12 /* of a fiber that waits in a call of this library, and of its caller */
#define QUIESCE_SPINS 64
#define CHECK_NS COIR_SEC(1)
#define BLOCKER_SPINS 100 /* before we ask the system what a thread does */
#define BLOCKER_PAUSE COIR_US(200)
#define BLOCKER_TRIES 250 /* in a row in which it does not say */
#define CHECK_SLICE COIR_MS(1) /* of work in a row; then a pause */
#define CHECK_PAUSE COIR_US(250)
#define CHECK_STEP 32 /* records between looks at the clock */
#define FORK_PAGES 1024 /* of the table, at a time */

struct coir__fd *coir__fds;
_Atomic(uint32_t) coir__fd_count;

static pthread_mutex_t setup = PTHREAD_MUTEX_INITIALIZER; /* never held across a wait */
static _Atomic(uint32_t) fd_top;                          /* (a) no record from here on has had a poller */
static struct coir__poller *service;                      /* (l) setup: the poller of plain threads */
static _Atomic(uint32_t) poll_forks;                      /* coir__os_at_fork */

/* ---- The table ------------------------------------------------------------------------------------------------- */

static int table_init(void) {
  int rc = coir__os_at_fork(&poll_forks, coir__poll_fork_child);
  if (rc) return rc;
  pthread_mutex_lock(&setup);
  if (atm_load_rlx(&coir__fd_count) == 0) {
    size_t page = coir__os_page(), bytes = (size_t)coir__sys_fd_limit() * sizeof(struct coir__fd);
    bytes = (bytes + page - 1) & ~(page - 1);
    coir__fds = coir__os_reserve(bytes, 0, false);
    /* Release: the table's address. Pairs with the acquire in coir__fd_find. */
    if (coir__fds) atm_store_rel(&coir__fd_count, (uint32_t)(bytes / sizeof(struct coir__fd)));
    else rc = -ENOMEM;
  }
  pthread_mutex_unlock(&setup);
  return rc;
}

struct coir__fd *coir__fd_find_slow(int fd, int *error) {
  *error = -EBADF;
  if (fd < 0) return NULL;
  if (atm_load_acq(&coir__fd_count) == 0 && (*error = table_init()) != 0) return NULL;
  if ((uint32_t)fd < atm_load_acq(&coir__fd_count)) return &coir__fds[fd];
  int kind = coir__sys_kind(fd);
  *error = kind < 0 ? kind : -ENOMEM;
  return NULL;
}

/* ---- Words ----------------------------------------------------------------------------------------------------- */

/* The word after one more event. */
static inline uint64_t counted(uint64_t word) {
  return (word & ~COIR__FD_EVENTS) | ((word + COIR__FD_EVENT) & COIR__FD_EVENTS);
}

/* Counts an event, clears and sets bits. Release: pairs with the acquire in coir__fd_enter and of looks at the word. */
static void word_change(struct coir__fd *d, uint64_t clear, uint64_t set, uint64_t add) {
  uint64_t old = atm_load_rlx(&d->word), next;
  do next = ((counted(old) & ~clear) | set) + add;
  while (!atm_cas_ar(&d->word, &old, next));
}

/* Waits until close(2) has returned. Until then the number means neither the old file nor a new one: a call that began
 * now might wait for a file that is about to go, and nobody would tell it. */
uint64_t coir__fd_settle(struct coir__fd *d) {
  for (;;) {
    uint64_t word = atm_load_acq(&d->word); /* acquire: as in coir__fd_begin */
    if (!(word & COIR__FD_CLOSING)) return word;
    coir_yield();
  }
}

/* Waits until nobody is inside a system call on the number. None of them blocks, so this is over soon. */
static void quiesce(struct coir__fd *d) {
  /* Acquire: pairs with the release in coir__fd_leave. */
  for (int spins = 0; atm_load_acq(&d->word) & COIR__FD_USERS; spins++) {
    if (spins < QUIESCE_SPINS) coir__pause();
    else coir__os_thread_yield();
  }
}

/* ---- Calls that block ------------------------------------------------------------------------------------------ */

static struct {
  _Atomic(uint32_t) count; /* (a) how many there are, or are about to be */
  struct coir__lock lock;
  struct coir__fd_blocker *first; /* (l) */
} blockers;

void coir__fd_block_begin(struct coir__fd *d, struct coir__fd_blocker *b) {
  const struct coir__thread *t = coir__thread_get();
  *b = (struct coir__fd_blocker){.d = d, .tid = t ? atm_load_rlx(&t->tid) : 0};
  /* Sequentially consistent: before the look at the life; blockers_await() does it the other way round. */
  atm_add_sc(&blockers.count, 1);
  coir__lock(&blockers.lock);
  b->next = blockers.first;
  blockers.first = b;
  coir__unlock(&blockers.lock);
}

void coir__fd_block_end(struct coir__fd_blocker *b) {
  coir__lock(&blockers.lock);
  struct coir__fd_blocker **at = &blockers.first;
  while (*at != b) at = &(*at)->next;
  *at = b->next;
  coir__unlock(&blockers.lock);
  atm_sub_rel(&blockers.count, 1); /* its system call is over; pairs with the acquire in blockers_await() */
}

/* The thread of a call on that number of which nobody knows yet that it sleeps in its system call; -1: there is none.
 * `asleep`: of that thread it is known now. */
static int blocker_next(const struct coir__fd *d, int asleep) {
  int tid = -1;
  coir__lock(&blockers.lock);
  for (struct coir__fd_blocker *b = blockers.first; b; b = b->next) {
    if (b->d == d && b->tid == asleep) b->is_asleep = true;
    if (b->d == d && !b->is_asleep) tid = b->tid;
  }
  coir__unlock(&blockers.lock);
  return tid;
}

/* Waits until every call on the number that may block is over, or sleeps in its system call: then the kernel has looked
 * the number up. The life is another one, so who has not made its system call yet makes none any more, or is about to.
 * Where the system does not say what threads do it gives up after a while. */
static void blockers_await(const struct coir__fd *d, int fd) {
  static _Atomic(uint32_t) never; /* nobody wakes a pause */
  atm_fence_sc();                 /* the life, before the look at who is there; pairs with coir__fd_block_begin() */
  if (COIR_LIKELY(atm_load_acq(&blockers.count) == 0)) return; /* acquire: pairs with the release of who was the last */
  int tid = blocker_next(d, -1), unknown = 0;
  for (int spins = 0; tid >= 0 && spins < BLOCKER_SPINS; spins++) {
    coir__os_thread_yield();
    tid = blocker_next(d, -1);
  }
  if (tid < 0 || coir__os_look_start() != 0) return;
  while (tid >= 0 && unknown < BLOCKER_TRIES) {
    int sleeps = coir__os_thread_sleeps_on(tid, fd);
    unknown = sleeps < 0 ? unknown + 1 : 0;
    if (sleeps <= 0) COIR_OUTSIDE_STAYING(coir__os_futex_wait(&never, 0, coir__os_real_now() + BLOCKER_PAUSE));
    tid = blocker_next(d, sleeps > 0 ? tid : -1);
  }
  coir__os_look_stop();
}

/* ---- Waking ---------------------------------------------------------------------------------------------------- */

/* Claims everybody who waits for one of `events`; the lock is held. Returns them by next, in order of arrival. */
static struct coir__clause *claim_all(struct coir__fd *d, uint32_t events, bool closed) {
  struct coir__clause *woken = NULL, **end = &woken;
  for (struct coir__clause *c = d->q.list.first, *next; c; c = next) {
    struct coir__fd_clause *fc = (struct coir__fd_clause *)c;
    next = c->next;
    if (!(fc->events & events) || !coir__claim(c)) continue;
    coir__clause_unlink(c);
    fc->closed = closed;
    c->next = NULL;
    *end = c;
    end = &c->next;
  }
  return woken;
}

/* Fetches the records, and the clauses of those who wait. Of many connections most have left the caches since they were
 * used last, and they would be waited for one by one. Who waits may change meanwhile: then it was for nothing. */
static PEEKS void fetch_records(const struct coir__poll_ready *ready, int count, uint32_t known) {
  for (int i = 0; i < count; i++)
    if ((uint32_t)ready[i].tag < known) __builtin_prefetch(&coir__fds[(uint32_t)ready[i].tag], 1);
  for (int i = 0; i < count; i++)
    if ((uint32_t)ready[i].tag < known) __builtin_prefetch(PEEK(coir__fds[(uint32_t)ready[i].tag].q.list.first), 1);
}

/* Fetches the frames that the fiber returns through. It is claimed, and not woken yet. */
static PEEKS void fetch_frames(const struct coir__waiter *waiter) {
  if (waiter->is_thread) return;
  const char *sp = PEEK(((const struct coir_fiber *)waiter)->sp);
  for (int i = 0; i < FRAME_LINES; i++) __builtin_prefetch(sp + (size_t)i * COIR__LINE, 1);
}

static void hand_on(struct coir__worker *w, const struct coir__poll_ready *ready) {
  struct coir__fd *d = &coir__fds[(uint32_t)ready->tag];
  struct coir__clause *woken = NULL;
  coir__bias_lock(w, &d->q.lock);
  if (d->generation == (uint32_t)(ready->tag >> 32)) {
    word_change(d, ready->events & BOTH, ready->events & COIR__POLL_HUP, 0);
    woken = claim_all(d, ready->events & BOTH, false);
  }
  coir__bias_unlock(w, &d->q.lock);
  if (woken) fetch_frames(woken->waiter);
  coir__wake_all(w, woken);
}

void coir__poll_events(const struct coir__poll_ready *ready, int count) {
  struct coir__worker *w = coir__carried();
  uint32_t known = atm_load_acq(&coir__fd_count); /* acquire: the table's address, as in coir__fd_find */
  if (count > 1) fetch_records(ready, count, known);
  for (int i = 0; i < count; i++)
    if ((uint32_t)ready[i].tag < known) hand_on(w, &ready[i]);
}

void coir__poll_in_vain(int fd) {
  struct coir__worker *w = coir__carried();
  struct coir__fd *d = &coir__fds[fd];
  struct coir__poll_ready ready = {.events = BOTH};
  coir__bias_lock(w, &d->q.lock);
  ready.tag = (uint64_t)d->generation << 32 | (uint32_t)fd;
  coir__bias_unlock(w, &d->q.lock);
  hand_on(w, &ready);
}

/* ---- The pollers ----------------------------------------------------------------------------------------------- */

static void *serve(void *poller) {
  for (;;) coir__poller_wait(poller, COIR_NEVER);
  return NULL;
}

/* The poller of plain threads, and the thread that looks after it; made once. */
static int service_get(struct coir__poller **out) {
  int rc = 0;
  pthread_mutex_lock(&setup);
  if (!service) {
    struct coir__poller *p;
    pthread_t thread;
    if ((rc = coir__poller_create(&p, NULL)) == 0) {
      if ((rc = coir__os_thread_start(&thread, "coir-io", serve, p)) == 0) {
        pthread_detach(thread);
        service = p;
      } else {
        coir__poller_destroy(p);
        rc = -ENOMEM;
      }
    }
  }
  *out = service;
  pthread_mutex_unlock(&setup);
  return rc;
}

/* Whether the caller's runtime has a poller that watches it for good; the lock is held. */
static inline bool is_armed(const struct coir__fd *d, uint64_t word, const struct coir_runtime *rt) {
  return (word & COIR__FD_ADOPTED) && d->is_watched && d->rt == rt;
}

/* Relaxed: adopted and disowned under the lock, which is held; without it a hint. */
static inline bool is_adopted(const struct coir__fd *d) { return atm_load_rlx(&d->word) & COIR__FD_ADOPTED; }

/* What one attempt to have it watched is about. */
struct attempt {
  struct coir__poller *home; /* the poller that the record names */
  struct coir__poller *mine; /* that of the caller's runtime, where it is another one; or NULL */
  struct coir_runtime *rt;   /* the caller's */
  uint32_t generation;
  bool is_home;  /* that poller is of the caller's runtime; else it is pinned */
  bool is_again; /* it watches the descriptor already, as far as we know */
  bool is_sure;  /* and we know that it does: no need to ask */
  bool is_check; /* the caller does not want to wait */
  bool is_woken; /* but has waited and wants to go on, or adopts it */
  bool asks;     /* for `file`: it may be a socket that may have been closed by close(2) */
  uint32_t file; /* coir__sys_socket_id; of an earlier moment than that at which it is watched */
};

/* The lock is held. */
static void attempt_open(struct coir__fd *d, struct attempt *a) {
  a->home = d->poller;
  a->is_home = !a->is_check && d->rt == a->rt;
  a->is_again = d->is_watched;
  a->is_sure = a->is_again && is_adopted(d);
  a->asks = !is_adopted(d) && (!a->is_again || atm_load_rlx(&d->file) || (a->is_check && !a->is_woken));
  a->generation = d->generation;
  if (!a->is_home) coir__poller_pin(a->home); /* it exists while the record names it (coir__poll_forget) */
  coir__fd_enter(d);
}

/* Whether the caller's runtime has a poller that watches the socket a->file; the lock is held. */
static inline bool is_as_known(const struct coir__fd *d, const struct attempt *a) {
  return a->file && atm_load_rlx(&d->file) == a->file && d->is_watched && d->rt == a->rt;
}

/* Decides who is to watch it, and counts the caller in. Returns 1; 0 when it is watched, and the file is the same for
 * all that a->file tells; -EBADF. */
static int attempt_begin(struct coir__fd *d, int fd, uint64_t life, struct attempt *a, struct coir__poller *mine) {
  struct coir__worker *w = coir__carried();
  int rc = 1;
  coir__bias_lock(w, &d->q.lock);
  uint64_t word = atm_load_acq(&d->word);
  if ((word ^ life) & COIR__FD_LIFE) rc = -EBADF;
  else if (is_armed(d, word, a->rt) || is_as_known(d, a)) rc = 0;
  else {
    if (!d->poller) {
      d->poller = mine;
      d->rt = a->rt;
      d->is_watched = false;
      uint32_t top = atm_load_rlx(&fd_top);
      while (top <= (uint32_t)fd && !atm_cas_sc(&fd_top, &top, (uint32_t)fd + 1)) {}
    }
    attempt_open(d, a);
    a->mine = a->is_home ? NULL : mine;
  }
  coir__bias_unlock(w, &d->q.lock);
  return rc;
}

/* It was watched and is not: the file is gone, and the number stands for none, or for another one (with -EPERM: for one
 * that is always ready). */
static inline bool is_another(int rc) { return rc == -ENOENT || rc == -EBADF || rc == -EPERM; }

static inline uint64_t tag_of(const struct attempt *a, int fd) { return (uint64_t)a->generation << 32 | (uint32_t)fd; }

/* Takes the lock. True: the generation was another one meanwhile. Then our tags may have overwritten newer ones, and we
 * make them anew, whatever we are about to do afterwards (I4). */
static bool attempt_lock(struct coir__worker *w, struct coir__fd *d, int fd, struct attempt *a) {
  for (bool is_late = false;; is_late = true) {
    coir__bias_lock(w, &d->q.lock);
    if (d->generation == a->generation) return is_late;
    a->generation = d->generation;
    coir__bias_unlock(w, &d->q.lock);
    coir__poller_rewatch(a->home, fd, tag_of(a, fd));
    if (a->mine) coir__poller_rewatch(a->mine, fd, tag_of(a, fd));
  }
}

/* Writes down what became of it, and counts the caller out. Returns 1 to try again, or what coir__fd_wait will. */
static int attempt_end(struct coir__fd *d, int fd, struct attempt *a, int rc) {
  struct coir__worker *w = coir__carried();
  struct coir__clause *woken = NULL;
  bool is_late = attempt_lock(w, d, fd, a);
  if (is_late || (rc == 0 && !a->is_home && d->poller != a->home)) rc = 1; /* the latter: it is about to go */
  else if (rc == 0) {
    d->poller = a->home;
    if (a->is_home) d->rt = a->rt;
    d->is_watched = true;
    if (a->asks || !a->is_again) atm_store_rlx(&d->file, a->file);
  } else if (a->is_again && is_another(rc)) {
    d->generation++;
    d->poller = NULL;
    d->is_watched = false;
    woken = claim_all(d, BOTH, true);
    rc = 1;
  } else if (!d->is_watched && d->poller == a->home) d->poller = NULL;
  coir__bias_unlock(w, &d->q.lock);
  coir__fd_leave(d, 0, 0);
  if (!a->is_home) coir__poller_unpin(a->home);
  coir__wake_all(w, woken);
  return rc;
}

/* Has a poller of the caller's runtime watch it, and the one that the record names. Returns 0 or what coir__fd_wait
 * will. */
int coir__fd_watch(struct coir__fd *d, int fd, uint64_t life) {
  struct coir__worker *w = coir__self();
  struct coir__poller *mine = !w ? NULL : COIR_LIKELY(!w->rt->poller_count || w->rt->is_partitioned) ? w->poller
                              : w->rt->pollers[fd % w->rt->poller_count];
  struct attempt a = {.rt = w ? w->rt : NULL};
  int rc = w ? 0 : service_get(&mine);
  if (rc) return rc;
  do {
    a.file = atm_load_rlx(&d->file) ? coir__sys_socket_id(fd) : 0; /* relaxed: a guess whether it is worth it */
    if ((rc = attempt_begin(d, fd, life, &a, mine)) <= 0) return rc;
    uint64_t tag = tag_of(&a, fd);
    a.file = a.asks ? coir__sys_socket_id(fd) : 0;
    rc = a.is_sure ? 0 : a.is_again ? coir__poller_rewatch(a.home, fd, tag) : coir__poller_watch(a.home, fd, tag);
    if (rc == 0 && a.mine && (rc = coir__poller_rewatch(a.mine, fd, tag)) == -ENOENT)
      rc = coir__poller_watch(a.mine, fd, tag);
    rc = attempt_end(d, fd, &a, rc);
  } while (rc > 0);
  return rc;
}

/* ---- The check ------------------------------------------------------------------------------------------------- */

enum { CHECK_OFF = 0, CHECK_FADES, CHECK_ON };
static _Atomic(uint32_t) check_state; /* (a) FADES, OFF: set by the keeper; ON: by who waits */
static uint32_t check_next;           /* of the keeper: the record that it looks at next */
static bool check_found;              /* of the keeper: this time somebody waits for what is not adopted */

/* Without the lock a hint. */
static bool has_checked_waiters(struct coir__fd *d) {
  return !coir__waitlist_is_empty(&d->q.list) && !(atm_load_rlx(&d->word) & COIR__FD_ADOPTED);
}

static bool check_begin(struct coir__fd *d, struct attempt *a) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  bool is_due = (a->is_woken || has_checked_waiters(d)) && d->is_watched;
  if (is_due) {
    atm_store_rlx(&d->is_checked, true); /* who links a clause from now on clears it */
    attempt_open(d, a);
  }
  coir__bias_unlock(w, &d->q.lock);
  return is_due;
}

/* Ends the waits for it if the number does not stand for the file any more that is watched. */
static void check_fd(struct coir__fd *d, int fd, bool is_woken) {
  struct attempt a = {.is_check = true, .is_woken = is_woken};
  int rc;
  do {
    if (!check_begin(d, &a)) return;
    a.file = a.asks ? coir__sys_socket_id(fd) : 0;
    rc = attempt_end(d, fd, &a, coir__poller_rewatch(a.home, fd, tag_of(&a, fd)));
  } while (rc > 0);
}

/* A socket at which nobody has begun to wait since it was found right needs no further look if it is still the same.
 * Relaxed: what is not so now was so a moment ago, and the next look comes. */
static void check_quickly(struct coir__fd *d, int fd) {
  uint32_t known = atm_load_rlx(&d->file);
  if (!atm_load_rlx(&d->is_checked) || !known || known != coir__sys_socket_id(fd)) check_fd(d, fd, false);
}

/* The look at all of them is over. Returns when the next one is due. */
static int64_t check_over(int64_t now) {
  uint32_t state = atm_load_rlx(&check_state);
  bool is_over = false;
  if (check_found) atm_store_rlx(&check_state, CHECK_ON); /* relaxed: only we set anything else */
  else if (state == CHECK_ON) {
    atm_store_rlx(&check_state, CHECK_FADES);
    coir__fence_heavy(); /* before the next look; pairs with the light fence in check_want() */
  } else is_over = atm_cas_sc(&check_state, &state, CHECK_OFF);
  check_next = 0;
  check_found = false;
  return is_over ? COIR_NEVER : now + CHECK_NS;
}

/* What the keeper does. Returns when it is to go on. */
static int64_t check_run(int64_t now) {
  uint32_t top = atm_load_sc(&fd_top);
  for (int64_t end = now + CHECK_SLICE; check_next < top;) {
    struct coir__fd *d = &coir__fds[check_next];
    if (has_checked_waiters(d)) {
      check_found = true;
      check_quickly(d, (int)check_next);
    }
    if (++check_next % CHECK_STEP == 0 && (now = coir__os_now()) >= end) return now + CHECK_PAUSE;
  }
  return check_over(now);
}

static void check_start(void) {
  if (atm_xchg_sc(&check_state, CHECK_ON) != CHECK_OFF) return;
  if (coir__keeper_start() == 0) coir__keeper_chore(check_run, coir__os_real_now() + CHECK_NS);
  else atm_store_rlx(&check_state, CHECK_OFF); /* who waits next tries again */
}

/* Somebody waits for what is not adopted: its clause is linked. */
static inline void check_want(void) {
  coir__fence_light(); /* pairs with the heavy fence in check_over() */
  if (COIR_UNLIKELY(atm_load_rlx(&check_state) != CHECK_ON)) check_start();
}

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

int coir__fd_look(struct coir__fd *d, int fd, uint64_t life, uint32_t events) {
  uint64_t seen = coir__fd_enter(d);
  int ready = COIR_LIKELY(!((seen ^ life) & COIR__FD_LIFE)) ? coir__sys_ready(fd, events) : -EBADF;
  if (COIR_UNLIKELY(seen & COIR__FD_KEPT) && (events & COIR__POLL_IN) && ready >= 0) ready |= COIR__POLL_IN;
  coir__fd_leave(d, seen, ready ? 0 : events);
  return ready;
}

int coir__fd_hold(struct coir__worker *w, struct coir__fd *d, uint64_t life, uint32_t events, bool armed) {
  coir__bias_lock(w, &d->q.lock);
  uint64_t word = atm_load_acq(&d->word);
  int rc = COIR__FD_HELD;
  if (COIR_UNLIKELY((word ^ life) & COIR__FD_LIFE)) rc = -EBADF;
  else if ((word & events) != events) rc = 0;
  else if (armed && COIR_UNLIKELY(!d->is_watched)) rc = 0; /* not any more: again from the beginning (I5) */
  else if (COIR_UNLIKELY(!armed && !is_armed(d, word, w ? w->rt : NULL))) rc = COIR__FD_UNARMED;
  if (rc != COIR__FD_HELD) coir__bias_unlock(w, &d->q.lock);
  return rc;
}

void coir__fd_link(struct coir__worker *w, struct coir__fd *d, struct coir__wait *wait, struct coir__fd_clause *fc,
                   uint32_t events) {
  fc->events = events;
  fc->closed = false;
  coir__wait_add(wait, &fc->clause, &d->q);
  bool needs_check = !is_adopted(d);
  if (needs_check) atm_store_rlx(&d->is_checked, false);
  coir__bias_unlock(w, &d->q.lock);
  if (needs_check) check_want();
}

bool coir__fd_may_go_on(const struct coir__fd *d, uint32_t generation) {
  return is_adopted(d) || d->generation == generation;
}

/* By who was woken: does the number still stand for the file that it waited for? An event of a file that lives on under
 * another number must not lead it to the next file under this one. What is adopted is never closed behind our back; it
 * may have been adopted when the wait began, and not be so any more. Returns 0 or -EBADF. */
int coir__fd_still_same(struct coir__fd *d, int fd, uint32_t generation) {
  if (COIR_LIKELY(is_adopted(d))) return 0; /* who disowned it before the event came did so before the claim */
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  bool is_same = coir__fd_may_go_on(d, generation), asks = is_same && !is_adopted(d) && d->is_watched;
  uint32_t known = atm_load_rlx(&d->file);
  coir__bias_unlock(w, &d->q.lock);
  if (asks && (!known || known != coir__sys_socket_id(fd))) {
    check_fd(d, fd, true);
    coir__bias_lock(w, &d->q.lock);
    is_same = coir__fd_may_go_on(d, generation);
    coir__bias_unlock(w, &d->q.lock);
  }
  return is_same ? 0 : -EBADF;
}

/* Links the clause and suspends, if that is in order. Returns COIR__FD_UNARMED, or as coir__fd_wait. */
static int park(struct coir__fd *d, int fd, uint64_t life, uint32_t events, enum coir__reason reason, int64_t deadline,
                bool armed) {
  struct coir__worker *w = coir__self();
  struct coir__wait wait;
  struct coir__fd_clause fc;
  int rc = coir__fd_hold(w, d, life, events, armed);
  if (COIR_UNLIKELY(rc != COIR__FD_HELD)) return rc;
  uint32_t generation = d->generation;
  coir__wait_begin_on(w, &wait, reason, (uint64_t)fd, deadline);
  coir__fd_link(w, d, &wait, &fc, events);
  uint32_t code = coir__wait(&wait);
  if (COIR_UNLIKELY(code != COIR__CODE_CLAUSE)) return coir__wait_result(code);
  if (COIR_UNLIKELY(fc.closed)) return -EBADF;
  return coir__fd_still_same(d, fd, generation);
}

int coir__fd_wait(struct coir__fd *d, int fd, uint64_t life, uint32_t events, enum coir__reason reason,
                  int64_t deadline) {
  int rc = COIR__FD_UNARMED;
  if (COIR_UNLIKELY(coir__os_is_simulated())) coir__sim_waits(fd);
  if (atm_load_acq(&d->word) & COIR__FD_ADOPTED) rc = park(d, fd, life, events, reason, deadline, false);
  if (rc <= 0) return rc;
  rc = coir__fd_watch(d, fd, life);
  return rc ? rc : park(d, fd, life, events, reason, deadline, true);
}

/* ---- Lives ----------------------------------------------------------------------------------------------------- */

/* The lock is held. */
static struct coir__clause *life_begin(struct coir__fd *d, uint64_t bits) {
  word_change(d, COIR__FD_USER - 1, bits, COIR__FD_LIFE_ONE);
  d->generation++;
  d->poller = NULL;
  d->rt = NULL;
  d->is_watched = false;
  d->kept = 0;
  atm_store_rlx(&d->file, 0);
  return claim_all(d, BOTH, true);
}

void coir__fd_renew(struct coir__fd *d, uint64_t bits) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  struct coir__clause *woken = life_begin(d, bits);
  coir__bias_unlock(w, &d->q.lock);
  coir__wake_all(w, woken);
}

void coir__fd_adopt(struct coir__fd *d, int fd, uint64_t bits) {
  struct coir__worker *w = coir__carried();
  /* Who waits, or has waited, for a file that is gone must not look at this one; adopted before or not. */
  check_fd(d, fd, true);
  coir__bias_lock(w, &d->q.lock);
  bool stays = d->is_watched; /* and for those who have waited it is the same */
  /* A hang-up of which the poller has told already it will not tell again. */
  word_change(d, (COIR__FD_USER - 1) & ~(stays ? COIR__FD_HUP : 0), bits, 0);
  if (!stays) d->generation++; /* a poller that the record does not name may watch a file that is long gone */
  d->kept = 0;
  struct coir__clause *woken = claim_all(d, BOTH, false);
  coir__bias_unlock(w, &d->q.lock);
  coir__wake_all(w, woken);
}

/* Who waits is left alone: it may not look again, since the number may stand for another file by then. The direction
 * stays dry (I1). */
void coir__fd_disown(struct coir__fd *d) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  word_change(d, COIR__FD_ADOPTED | COIR__FD_TCP | COIR__FD_PIPE | COIR__FD_FILE | COIR__FD_KEPT, 0, 0);
  d->kept = 0; /* the reader that would get it might be one of the next file's */
  bool has_waiters = has_checked_waiters(d);
  coir__bias_unlock(w, &d->q.lock);
  if (has_waiters) check_want();
}

uint64_t coir__fd_retire(struct coir__fd *d, int fd) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  struct coir__poller *p = d->poller;
  if (p) coir__poller_pin(p); /* it may be another runtime's; it exists while the record names it (coir__poll_forget) */
  struct coir__clause *woken = life_begin(d, COIR__FD_CLOSING);
  uint64_t life = atm_load_rlx(&d->word) & COIR__FD_LIFE; /* relaxed: lives change under the lock */
  coir__bias_unlock(w, &d->q.lock);
  quiesce(d);
  if (p) {
    coir__poller_unwatch(p, fd); /* close(2) does not, when the file lives on under another number */
    coir__poller_unpin(p);
  }
  coir__wake_all(w, woken); /* close(2) may take its time */
  blockers_await(d, fd);
  return life;
}

void coir__fd_retired(struct coir__fd *d, uint64_t life) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  uint64_t word = atm_load_rlx(&d->word);
  /* If the number was taken again meanwhile, that has begun a further life. */
  if (!((word ^ life) & COIR__FD_LIFE)) word_change(d, COIR__FD_CLOSING, 0, 0);
  coir__bias_unlock(w, &d->q.lock);
}

void coir__fd_keep(struct coir__fd *d, uint64_t life, int error) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  uint64_t word = atm_load_acq(&d->word);
  if ((word & COIR__FD_ADOPTED) && !((word ^ life) & COIR__FD_LIFE)) {
    d->kept = error;
    word_change(d, COIR__POLL_IN, COIR__FD_KEPT, 0);
  }
  coir__bias_unlock(w, &d->q.lock);
}

int coir__fd_take_kept(struct coir__fd *d) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  int error = d->kept;
  d->kept = 0;
  word_change(d, COIR__FD_KEPT, 0, 0);
  coir__bias_unlock(w, &d->q.lock);
  return error;
}

/* ---- The ends of pollers --------------------------------------------------------------------------------------- */

void coir__poll_forget(struct coir__poller *p) {
  struct coir__worker *w = coir__carried();
  uint32_t top = atm_load_sc(&fd_top);
  for (uint32_t fd = 0; fd < top; fd++) {
    struct coir__fd *d = &coir__fds[fd];
    struct coir__clause *woken = NULL;
    coir__bias_lock(w, &d->q.lock);
    bool is_named = d->poller == p;
    coir__bias_unlock(w, &d->q.lock);
    if (!is_named) continue;
    check_fd(d, (int)fd, false); /* afterwards nobody could tell */
    coir__bias_lock(w, &d->q.lock);
    if (d->poller == p) {
      d->poller = NULL;
      d->rt = NULL;
      d->is_watched = false;
      woken = claim_all(d, BOTH, false); /* of other runtimes: they choose another one (I5) */
    }
    coir__bias_unlock(w, &d->q.lock);
    coir__wake_all(w, woken);
  }
}

/* As if nobody had ever waited: who was in a call on it, or about to close it, is not in this process. */
static void record_forget(struct coir__fd *d) {
  uint64_t life = (atm_load_rlx(&d->word) + COIR__FD_LIFE_ONE) & COIR__FD_LIFE;
  d->q = (struct coir__waitq){0};
  d->poller = NULL;
  d->rt = NULL;
  d->is_watched = false;
  d->kept = 0;
  atm_store_rlx(&d->file, 0);
  atm_store_rlx(&d->word, life);
}

/* Those that were ever used. To read the others would make the system map pages for them, one by one. */
static void records_forget(void) {
  unsigned char touched[FORK_PAGES];
  size_t page = coir__os_page(), each = page / sizeof(struct coir__fd);
  size_t count = atm_load_acq(&coir__fd_count), top = atm_load_sc(&fd_top);
  for (size_t first = 0; first < count; first += FORK_PAGES * each) {
    size_t pages = (count - first + each - 1) / each;
    if (pages > FORK_PAGES) pages = FORK_PAGES;
    coir__os_touched(&coir__fds[first], pages * page, touched);
    for (size_t fd = first; fd < count && fd < first + pages * each; fd++) {
      if (!touched[(fd - first) / each] && fd >= top) fd += each - 1;
      else if (fd < top || atm_load_rlx(&coir__fds[fd].word)) record_forget(&coir__fds[fd]);
    }
  }
}

void coir__poll_fork_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  setup = fresh; /* whoever held it, or a record's lock, is not in this process */
  service = NULL;
  atm_store_rlx(&check_state, CHECK_OFF);
  check_next = 0;
  check_found = false;
  atm_store_rlx(&blockers.count, 0);
  coir__unlock(&blockers.lock);
  blockers.first = NULL;
  coir__poller_fork_child();
  records_forget();
}
