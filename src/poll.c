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
 * the system call, and before each wait it has the kernel watch the descriptor again, which reports what is ready now;
 * if it turns out that it was not watched any more, the number stands for another file, and whoever waits for the old
 * one gets -EBADF.
 *
 * Other runtimes. The poller that watches a descriptor is looked at only while its runtime runs. So a fiber of another
 * runtime, which is free to wait for the same descriptor, has its own poller watch it as well, at every wait. Plain
 * threads count as one more runtime: they wait like fibers, and one service thread, started when the first of them has
 * to wait, looks after their poller. So coir_close reaches them, too.
 *
 * Lives. The word counts lives, and a call that finds itself in another one than it began in returns -EBADF. coir_close
 * begins a new life, waits until every thread has left its system call on the number (none of these block), and only
 * then closes: so no call ever reaches into the next life. Calls that begin before close(2) has returned wait for that,
 * since they could be neither of the old life nor of the new one. Tags carry a generation, so that an event of a former
 * life does nothing.
 *
 * Rejected: registering per wait with EPOLLONESHOT (a system call per wait); a lock around call and wait (a system call
 * under a spin lock); a hash table instead of the table (a miss and a lock per call); poll(2) for plain threads
 * (coir_close could not end it).
 *
 * I1: a clause is linked only while its direction is dry and a running poller watches the descriptor.
 * I2: dry is set only by a call that found nothing, with no event since before its system call.
 * I3: while a number is counted as in use (COIR__FD_USERS) coir_close does not close it.
 * I4: the last registration that a poller holds carries the record's generation, or its maker is about to make it anew.
 *
 * Lock order: a record's lock is taken with no other held, and none is taken under it. */
#include "poll.h"

#include "internal.h"

#define BOTH (COIR__POLL_IN | COIR__POLL_OUT)
#define QUIESCE_SPINS 64

struct coir__fd *coir__fds;
_Atomic(uint32_t) coir__fd_count;

static pthread_mutex_t setup = PTHREAD_MUTEX_INITIALIZER; /* never held across a wait */
static _Atomic(uint32_t) fd_top;                          /* (a) no record from here on has had a poller */
static struct coir__poller *service;                      /* (l) setup: the poller of plain threads */

/* ---- The table ------------------------------------------------------------------------------------------------- */

static int table_init(void) {
  int rc = 0;
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
  *error = coir__sys_kind(fd) < 0 ? -EBADF : -ENOMEM;
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

void coir__poll_event(uint64_t tag, uint32_t events) {
  struct coir__worker *w = coir__carried();
  /* Acquire: the table's address, as in coir__fd_find. */
  if ((uint32_t)tag >= atm_load_acq(&coir__fd_count)) return;
  struct coir__fd *d = &coir__fds[(uint32_t)tag];
  struct coir__clause *woken = NULL;
  coir__bias_lock(w, &d->q.lock);
  if (d->generation == (uint32_t)(tag >> 32)) {
    word_change(d, events & BOTH, events & COIR__POLL_HUP, 0);
    woken = claim_all(d, events & BOTH, false);
  }
  coir__bias_unlock(w, &d->q.lock);
  coir__wake_all(w, woken);
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

/* What one attempt to have it watched is about. */
struct attempt {
  struct coir__poller *poller;
  struct coir_runtime *rt;
  uint32_t generation;
  bool is_home;  /* the record is to say that this poller watches it */
  bool is_again; /* the record says so already */
};

/* Decides who is to watch it, and counts the caller in. Returns 1; 0 when it is watched for good; -EBADF. */
static int attempt_begin(struct coir__fd *d, int fd, uint64_t life, struct attempt *a, struct coir__poller *mine) {
  struct coir__worker *w = coir__carried();
  int rc = 1;
  coir__bias_lock(w, &d->q.lock);
  uint64_t word = atm_load_acq(&d->word);
  if ((word ^ life) & COIR__FD_LIFE) rc = -EBADF;
  else if (is_armed(d, word, a->rt)) rc = 0;
  else {
    if (!d->poller) {
      d->poller = mine;
      d->rt = a->rt;
      d->is_watched = false;
      uint32_t top = atm_load_rlx(&fd_top);
      while (top <= (uint32_t)fd && !atm_cas_sc(&fd_top, &top, (uint32_t)fd + 1)) {}
    }
    a->is_home = d->rt == a->rt;
    a->is_again = a->is_home && d->is_watched;
    a->poller = a->is_home ? d->poller : mine;
    a->generation = d->generation;
    coir__fd_enter(d);
  }
  coir__bias_unlock(w, &d->q.lock);
  return rc;
}

/* Writes down what became of it, and counts the caller out. Returns 1 to try again, or what coir__fd_wait will. */
static int attempt_end(struct coir__fd *d, const struct attempt *a, int rc) {
  struct coir__worker *w = coir__carried();
  struct coir__clause *woken = NULL;
  coir__bias_lock(w, &d->q.lock);
  if (d->generation != a->generation) rc = 1; /* our tag may have overwritten a newer one (I4) */
  else if (a->is_home && rc == 0) {
    d->poller = a->poller;
    d->rt = a->rt;
    d->is_watched = true;
  } else if (a->is_home && a->is_again && rc == -ENOENT) {
    /* It was watched and is not: the file is gone, and the number stands for another one. */
    d->generation++;
    d->poller = NULL;
    d->is_watched = false;
    woken = claim_all(d, BOTH, true);
    rc = 1;
  } else if (a->is_home && !d->is_watched && d->poller == a->poller) d->poller = NULL;
  coir__bias_unlock(w, &d->q.lock);
  coir__fd_leave(d, 0, 0);
  coir__wake_all(w, woken);
  return rc;
}

/* Has a poller of the caller's runtime watch it. Returns 0 or what coir__fd_wait will. */
int coir__fd_watch(struct coir__fd *d, int fd, uint64_t life) {
  struct coir__worker *w = coir__self();
  struct coir__poller *mine = w ? w->poller : NULL;
  struct attempt a = {.rt = w ? w->rt : NULL};
  int rc = w ? 0 : service_get(&mine);
  if (rc) return rc;
  do {
    if ((rc = attempt_begin(d, fd, life, &a, mine)) <= 0) return rc;
    uint64_t tag = (uint64_t)a.generation << 32 | (uint32_t)fd;
    rc = a.is_again || !a.is_home ? coir__poller_rewatch(a.poller, fd, tag) : -ENOENT;
    if (rc == -ENOENT && !a.is_again) rc = coir__poller_watch(a.poller, fd, tag);
    rc = attempt_end(d, &a, rc);
  } while (rc > 0);
  return rc;
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
  else if (COIR_UNLIKELY(!armed && !is_armed(d, word, w ? w->rt : NULL))) rc = COIR__FD_UNARMED;
  if (rc != COIR__FD_HELD) coir__bias_unlock(w, &d->q.lock);
  return rc;
}

void coir__fd_link(struct coir__worker *w, struct coir__fd *d, struct coir__wait *wait, struct coir__fd_clause *fc,
                   uint32_t events) {
  fc->events = events;
  fc->closed = false;
  coir__wait_add(wait, &fc->clause, &d->q);
  coir__bias_unlock(w, &d->q.lock);
}

/* Links the clause and suspends, if that is in order. Returns COIR__FD_UNARMED, or as coir__fd_wait. */
static int park(struct coir__fd *d, int fd, uint64_t life, uint32_t events, enum coir__reason reason, int64_t deadline,
                bool armed) {
  struct coir__worker *w = coir__self();
  struct coir__wait wait;
  struct coir__fd_clause fc;
  int rc = coir__fd_hold(w, d, life, events, armed);
  if (COIR_UNLIKELY(rc != COIR__FD_HELD)) return rc;
  coir__wait_begin_on(w, &wait, reason, (uint64_t)fd, deadline);
  coir__fd_link(w, d, &wait, &fc, events);
  uint32_t code = coir__wait(&wait);
  if (COIR_UNLIKELY(code != COIR__CODE_CLAUSE)) return coir__wait_result(code);
  return fc.closed ? -EBADF : 0;
}

int coir__fd_wait(struct coir__fd *d, int fd, uint64_t life, uint32_t events, enum coir__reason reason,
                  int64_t deadline) {
  int rc = COIR__FD_UNARMED;
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
  return claim_all(d, BOTH, true);
}

void coir__fd_renew(struct coir__fd *d, uint64_t bits) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  struct coir__clause *woken = life_begin(d, bits);
  coir__bias_unlock(w, &d->q.lock);
  coir__wake_all(w, woken);
}

void coir__fd_adopt(struct coir__fd *d, uint64_t bits) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  word_change(d, COIR__FD_USER - 1, bits, 0);
  d->is_watched = false; /* what is watched under this number may be a file that is long gone */
  d->kept = 0;
  struct coir__clause *woken = claim_all(d, BOTH, false);
  coir__bias_unlock(w, &d->q.lock);
  coir__wake_all(w, woken);
}

struct coir__retired coir__fd_retire(struct coir__fd *d, int fd) {
  struct coir__worker *w = coir__carried();
  struct coir__retired r;
  coir__bias_lock(w, &d->q.lock);
  struct coir__poller *p = d->poller;
  if (p) coir__poller_pin(p); /* it may be another runtime's; it exists while the record names it (coir__poll_forget) */
  r.woken = life_begin(d, COIR__FD_CLOSING);
  r.life = atm_load_rlx(&d->word) & COIR__FD_LIFE; /* relaxed: lives change under the lock */
  coir__bias_unlock(w, &d->q.lock);
  quiesce(d);
  if (p) {
    coir__poller_unwatch(p, fd); /* close(2) does not, when the file lives on under another number */
    coir__poller_unpin(p);
  }
  return r;
}

void coir__fd_retired(struct coir__fd *d, struct coir__retired r) {
  struct coir__worker *w = coir__carried();
  coir__bias_lock(w, &d->q.lock);
  uint64_t word = atm_load_rlx(&d->word);
  /* If the number was taken again meanwhile, that has begun a further life. */
  if (!((word ^ r.life) & COIR__FD_LIFE)) word_change(d, COIR__FD_CLOSING, 0, 0);
  coir__bias_unlock(w, &d->q.lock);
  coir__wake_all(w, r.woken);
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
    coir__bias_lock(w, &d->q.lock);
    if (d->poller == p) {
      d->poller = NULL;
      d->rt = NULL;
      d->is_watched = false;
    }
    coir__bias_unlock(w, &d->q.lock);
  }
}

void coir__poll_fork_child(void) {
  static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
  setup = fresh; /* whoever held it, or a record's lock, is not in this process */
  service = NULL;
  coir__poller_fork_child();
  uint32_t top = atm_load_sc(&fd_top);
  for (uint32_t fd = 0; fd < top; fd++) {
    struct coir__fd *d = &coir__fds[fd];
    uint64_t life = (atm_load_rlx(&d->word) + COIR__FD_LIFE_ONE) & COIR__FD_LIFE;
    d->q = (struct coir__waitq){0};
    d->poller = NULL;
    d->rt = NULL;
    d->is_watched = false;
    d->kept = 0;
    atm_store_rlx(&d->word, life);
  }
}
