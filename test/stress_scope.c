/* Random trees of scopes, with failures, deadlines and cancellations from everywhere, every fiber accounted for.
 *
 * usage: stress_scope [seed] [seconds]
 *
 * Fibers of two runtimes and plain threads open scopes (places), spawn nodes into them, and do something at random:
 * wait a little, wait for ever, cancel or hurry a place that they are inside of (by themselves, or by a thread that
 * they ask), open a place of their own. Checked is that
 *   - a place that was closed has no node left, and why it was cancelled is something that happened to it;
 *   - no cancellation is lost: who waits for ever is inside of a place that will be cancelled, and would hang;
 *   - none is delivered twice: nobody is told more often than it was cancelled, and places around it were;
 *   - runtimes that are abandoned where they are give all memory of their scopes back. */
#include "coir_io.h"
#include "harness.h"

#define FOREVER COIR_SEC(1000)
#define DEPTH_MAX 5

static struct coir_runtime *runtimes[2];
static _Atomic(uint64_t) nodes, places, told_count, by_reason[4];
static uint64_t seed;
static int64_t until;
static const char key; /* of a value: the place */
static struct coir_chan *empty_chan;
static struct coir_event never;
static int empty_pipe[2];

/* A scope, in its opener's frame. */
struct place {
  struct place *up;
  struct coir_scope *scope;
  bool is_certain; /* will be cancelled */
  _Atomic(int) spawned, ended, failed, cancelled, dated;
};

struct node {
  struct place *in;
  uint64_t rng;
  int depth;
  _Atomic(int) refs, asked; /* asked: how often it was cancelled itself */
};

/* Somebody who does something. */
struct actor {
  uint64_t rng;
  int depth;
  struct place *in;
  struct node *node; /* NULL: a plain thread, or a fiber in no scope */
  int told, own;     /* own: places that it has opened, and that were cancelled */
  bool has_noticed;  /* it was told of a cancellation, be it by a place that it closed */
};

static uint64_t dice(struct actor *a, uint64_t n) { return rng_next(&a->rng) % n; }

static int note(struct actor *a, int rc) {
  if (rc != -ECANCELED) return rc;
  a->told++;
  a->has_noticed = true;
  atomic_fetch_add(&told_count, 1);
  return rc;
}

static void node_release(struct node *n) {
  if (atomic_fetch_sub(&n->refs, 1) == 1) free(n);
}

/* ---- The thread that cancels on behalf of others --------------------------------------------------------------- */

struct mail {
  struct mail *next;
  struct coir_scope *scope;
  int64_t deadline; /* 0: cancel it */
  struct coir_event done;
};

static pthread_mutex_t mail_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t mail_came = PTHREAD_COND_INITIALIZER;
static struct mail *mails;
static bool mail_ends;

static void *deliver_mail(void *arg) {
  (void)arg;
  pthread_mutex_lock(&mail_lock);
  for (;;) {
    struct mail *m = mails;
    if (!m && mail_ends) break;
    if (!m) {
      pthread_cond_wait(&mail_came, &mail_lock);
      continue;
    }
    mails = m->next;
    pthread_mutex_unlock(&mail_lock);
    if (m->deadline) coir_scope_shorten(m->scope, m->deadline);
    else coir_scope_cancel(m->scope, -EDOM);
    coir_event_set(&m->done);
    pthread_mutex_lock(&mail_lock);
  }
  pthread_mutex_unlock(&mail_lock);
  return NULL;
}

static void send_mail(struct mail *m) {
  pthread_mutex_lock(&mail_lock);
  m->next = mails;
  mails = m;
  pthread_cond_signal(&mail_came);
  pthread_mutex_unlock(&mail_lock);
}

/* ---- What an actor does ---------------------------------------------------------------------------------------- */

static void act(struct actor *a);
static int node_run(void *node);

static void nap(struct actor *a) {
  int64_t deadline = coir_now() + (int64_t)dice(a, 100000);
  int rc = note(a, coir_sleep_until(deadline));
  CHECK(rc == -ECANCELED || (rc == 0 && coir_now() >= deadline));
}

static void wait_for_ever(struct actor *a) {
  char c;
  int rc;
  switch (dice(a, 4)) {
  case 0: rc = coir_sleep(FOREVER); break;
  case 1: rc = coir_chan_recv(empty_chan, NULL, COIR_NEVER); break;
  case 2: rc = coir_event_wait(&never, COIR_NEVER); break;
  default: rc = (int)coir_read(empty_pipe[0], &c, 1, COIR_NEVER);
  }
  CHECK_EQ(note(a, rc), -ECANCELED);
}

static struct node *node_make(struct actor *a, struct place *p, int refs) {
  struct node *n = calloc(1, sizeof *n);
  CHECK(n);
  n->in = p;
  n->rng = rng_seed(rng_next(&a->rng));
  n->depth = a->depth + 1;
  n->refs = refs;
  return n;
}

static void node_into(struct place *p, struct node *n, struct coir_fiber **out) {
  atomic_fetch_add(&p->spawned, 1);
  int rc = coir_scope_spawn(p->scope, node_run, n, NULL, out);
  if (rc == 0) return;
  CHECK_EQ(rc, -ECANCELED);
  CHECK(coir_scope_reason(p->scope) != 0);
  atomic_fetch_sub(&p->spawned, 1);
  if (out) CHECK(*out == NULL);
  node_release(n);
  if (out) node_release(n);
}

static int spawns_for(void *node) {
  struct node *n = node;
  node_into(n->in, n, NULL);
  return 0;
}

/* A node of another runtime. */
static void node_elsewhere(struct actor *a, struct place *p) {
  struct coir_fiber *f = NULL;
  struct coir_runtime *rt = runtimes[coir_runtime_current() == runtimes[0]];
  CHECK_EQ(coir_runtime_spawn(rt, spawns_for, node_make(a, p, 1), NULL, &f), 0);
  while (note(a, coir_join(f, NULL, COIR_NEVER)) != 0) {}
}

/* A place that it is inside of, or NULL. */
static struct place *some_place(struct actor *a) {
  struct place *p = a->in;
  while (p && p->up && dice(a, 3) == 0) p = p->up;
  return p;
}

static void interfere(struct actor *a) {
  struct place *p = some_place(a);
  if (!p) return;
  int64_t deadline = dice(a, 2) ? coir_now() + (int64_t)dice(a, 1000000) - 100000 : 0;
  atomic_fetch_add(deadline ? &p->dated : &p->cancelled, 1);
  if (dice(a, 3)) {
    if (deadline) coir_scope_shorten(p->scope, deadline);
    else coir_scope_cancel(p->scope, -EDOM);
    return;
  }
  struct mail m = {.scope = p->scope, .deadline = deadline};
  send_mail(&m);
  coir_shield_begin(); /* the letter is in our frame */
  CHECK_EQ(coir_event_wait(&m.done, COIR_NEVER), 0);
  coir_shield_end();
}

/* Checks why it was cancelled against what has happened to it. */
static void check_closed(const struct place *p, int rc) {
  CHECK_EQ(p->spawned, p->ended);
  if (rc == 0) CHECK_EQ(p->failed, 0);
  else if (rc == -EIO) CHECK(p->failed > 0);
  else if (rc == -EDOM) CHECK(p->cancelled > 0);
  else if (rc == -ETIMEDOUT) CHECK(p->dated > 0);
  else CHECK_EQ(rc, -ECANCELED);
  atomic_fetch_add(&by_reason[rc == 0 ? 0 : rc == -EIO ? 1 : rc == -ECANCELED ? 2 : 3], 1);
}

#define HANDLES_MAX 2

/* Opens a place, with nodes in it. `deadline` as of coir_scope_open. */
static int stay(struct actor *a, int64_t deadline) {
  struct place p = {.up = a->in, .dated = deadline != COIR_NEVER};
  struct coir_fiber *handles[HANDLES_MAX] = {0};
  struct node *known[HANDLES_MAX];
  bool had_noticed = a->has_noticed;
  p.is_certain = p.dated || (!had_noticed && p.up && p.up->is_certain);
  atomic_fetch_add(&places, 1);
  CHECK_EQ(coir_scope_open(&p.scope, dice(a, 4) == 0 ? COIR_SCOPE_KEEP_GOING : 0, deadline), 0);
  CHECK_EQ(coir_scope_set(p.scope, &key, &p), 0);
  a->in = &p;
  a->depth++;
  for (uint64_t i = dice(a, 5); i > 0; i--) node_into(&p, node_make(a, &p, 1), NULL);
  for (int i = 0; i < HANDLES_MAX && dice(a, 2); i++) {
    known[i] = node_make(a, &p, 2);
    node_into(&p, known[i], &handles[i]);
  }
  if (dice(a, 8) == 0) node_elsewhere(a, &p);
  act(a);
  for (int i = 0; i < HANDLES_MAX; i++) {
    if (!handles[i] || dice(a, 2)) continue;
    atomic_fetch_add(&known[i]->asked, 1);
    int rc = coir_cancel(handles[i]);
    CHECK(rc == 0 || rc == -ESRCH);
  }
  /* Told in the body: hand it on. */
  if (a->has_noticed && !had_noticed && atomic_fetch_add(&p.cancelled, 1) >= 0) coir_scope_cancel(p.scope, -EDOM);
  CHECK(coir_scope_current() == p.scope && coir_scope_get(&key) == &p);
  int rc = coir_scope_close(p.scope);
  check_closed(&p, rc);
  a->in = p.up;
  a->depth--;
  a->own += rc < 0;
  a->has_noticed |= rc < 0;
  for (int i = 0; i < HANDLES_MAX; i++) {
    if (!handles[i]) continue;
    if (i) CHECK_EQ(coir_join(handles[i], NULL, 0), 0);
    else coir_detach(handles[i]);
    node_release(known[i]);
  }
  return rc;
}

static void act(struct actor *a) {
  for (uint64_t steps = dice(a, 5); steps > 0; steps--) {
    switch (dice(a, 12)) {
    case 0:
    case 1: coir_yield(); break;
    case 2:
    case 3: nap(a); break;
    case 4:
    case 5:
      if (a->in && a->in->is_certain && !a->has_noticed) wait_for_ever(a);
      break;
    case 6:
      coir_shield_begin();
      CHECK_EQ(coir_sleep((int64_t)dice(a, 50000)), 0);
      coir_shield_end();
      break;
    case 7: interfere(a); break;
    case 8:
      if (!a->node || dice(a, 2)) break;
      atomic_fetch_add(&a->node->asked, 1);
      CHECK_EQ(coir_cancel(coir_current()), 0);
      break;
    default:
      if (a->depth >= DEPTH_MAX) break;
      (void)stay(a, dice(a, 3) ? COIR_NEVER : coir_now() + (int64_t)dice(a, 2000000) - 100000);
    }
  }
}

static int node_run(void *arg) {
  struct node *n = arg;
  struct place *p = n->in;
  struct actor a = {.rng = n->rng, .depth = n->depth, .in = p, .node = n};
  atomic_fetch_add(&nodes, 1);
  CHECK(coir_scope_current() == p->scope && coir_scope_get(&key) == p);
  act(&a);
  CHECK(coir_scope_current() == p->scope && a.in == p);
  int around = 0;
  for (const struct place *q = p; q; q = q->up) around += coir_scope_reason(q->scope) != 0;
  CHECK(a.told <= atomic_load(&n->asked) + around + a.own);
  int status = dice(&a, 6) == 0 ? -EIO : a.has_noticed && dice(&a, 2) ? -ECANCELED : 0;
  if (status < 0) atomic_fetch_add(&p->failed, 1);
  node_release(n);
  atomic_fetch_add(&p->ended, 1);
  return status;
}

/* ---- Who begins ------------------------------------------------------------------------------------------------ */

static void begin(uint64_t rng) {
  struct actor a = {.rng = rng};
  while (coir_now() < until) {
    a.has_noticed = false;
    stay(&a, coir_now() + (int64_t)dice(&a, 3000000));
    CHECK(a.told <= a.own);
    CHECK(coir_scope_current() == NULL);
  }
}

static int begins_on_fiber(void *i) {
  begin(rng_seed(seed + (uint64_t)(intptr_t)i));
  return 0;
}

static _Atomic(int) threads_left = 2;

static void *begins_on_thread(void *i) {
  begins_on_fiber(i);
  atomic_fetch_sub(&threads_left, 1);
  return NULL;
}

static int all_fibers(void *arg) {
  struct coir_fiber *f[6];
  (void)arg;
  for (intptr_t i = 0; i < 6; i++)
    CHECK_EQ(coir_runtime_spawn(runtimes[i % 2], begins_on_fiber, (void *)i, NULL, &f[i]), 0);
  for (int i = 0; i < 6; i++) CHECK_EQ(join(f[i]), 0);
  WAIT_FOR(atomic_load(&threads_left) == 0); /* they spawn here */
  return 0;
}

/* ---- Abandoned where they are ---------------------------------------------------------------------------------- */

static _Atomic(int64_t) allocated;

static void *counts_alloc(size_t bytes, void *arg) {
  (void)arg;
  atomic_fetch_add(&allocated, (int64_t)bytes);
  return malloc(bytes);
}
static void counts_free(void *memory, size_t bytes, void *arg) {
  (void)arg;
  atomic_fetch_sub(&allocated, (int64_t)bytes);
  free(memory);
}

static int lingers(void *arg) {
  uint64_t rng = rng_seed((uint64_t)(uintptr_t)arg + 1);
  for (;;) {
    struct coir_scope *s;
    uint64_t x = rng_next(&rng);
    CHECK_EQ(coir_scope_open(&s, 0, x % 2 ? COIR_NEVER : coir_after((int64_t)(x % 500000))), 0);
    for (x /= 2; x % 4; x /= 4) (void)coir_scope_spawn(s, lingers, (void *)(uintptr_t)rng_next(&rng), NULL, NULL);
    if (coir_scope_set(s, &key, s) != 0 || x % 3 == 0) coir_yield();
    if (x % 5 < 2) (void)coir_sleep((int64_t)(x % 300000));
    if (x % 7 == 0) coir_scope_cancel(s, 0);
    if (coir_scope_close(s) != 0 || x % 11 < 4) return x % 13 ? 0 : -EIO;
  }
}

static void *abandons(void *arg) {
  uint64_t rng = rng_seed(seed + (uint64_t)(intptr_t)arg);
  while (coir_now() < until) {
    struct coir_runtime *rt = make_runtime(
        (struct coir_config){.alloc = counts_alloc, .free = counts_free, .workers = 1 + (int)(rng_next(&rng) % 3)});
    for (int i = 0; i < 2; i++) {
      CHECK_EQ(coir_runtime_start(rt), 0);
      for (int j = 0; j < 3; j++)
        CHECK_EQ(coir_runtime_spawn(rt, lingers, (void *)(uintptr_t)rng_next(&rng), NULL, NULL), 0);
      coir_sleep((int64_t)(rng_next(&rng) % 700000));
      CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_ABANDON, 0), 0);
    }
    CHECK_EQ(coir_runtime_destroy(rt), 0);
    CHECK_EQ(allocated, 0);
  }
  return NULL;
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
  double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
  fprintf(stderr, "stress_scope %llu %g\n", (unsigned long long)seed, seconds);
  until = coir_after((int64_t)(seconds * 1e9));
  struct coir_config config = {.size = sizeof config,
                               .migrate = seed % 8 == 1 ? COIR_ON : COIR_DEFAULT,
                               .affinity = seed % 8 == 2 ? COIR_ON : COIR_DEFAULT,
                               .pollers = seed % 8 == 3,
                               .steal = seed % 8 == 4 ? COIR_OFF : COIR_DEFAULT};
  CHECK_EQ(coir_configure(&config), 0);
  runtimes[0] = make_runtime(config);
  runtimes[1] = coir_runtime_default();
  CHECK(runtimes[1] != NULL);
  CHECK_EQ(coir_runtime_start(runtimes[1]), 0);
  CHECK((empty_chan = coir_chan_create(0, 0)) != NULL);
  CHECK_EQ(pipe(empty_pipe), 0);
  pthread_t threads[4];
  for (intptr_t i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL,
                            i < 2    ? begins_on_thread
                            : i == 2 ? abandons
                                     : deliver_mail,
                            (void *)(i + 100)),
             0);
  CHECK_EQ(coir_runtime_run(runtimes[0], all_fibers, NULL, NULL), 0);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  pthread_mutex_lock(&mail_lock);
  mail_ends = true;
  pthread_cond_signal(&mail_came);
  pthread_mutex_unlock(&mail_lock);
  pthread_join(threads[3], NULL);
  CHECK_EQ(coir_runtime_stop(runtimes[1], COIR_STOP_DRAIN, COIR_NEVER), 0);
  for (int i = 0; i < 2; i++) {
    struct coir_stats s;
    coir_runtime_get_stats(runtimes[i], &s);
    CHECK_EQ(s.fibers_live, 0);
    CHECK_EQ(s.parks, s.wakes);
  }
  CHECK_EQ(coir_runtime_destroy(runtimes[0]), 0);
  coir_chan_unref(empty_chan);
  coir_close(empty_pipe[0]);
  coir_close(empty_pipe[1]);
  fprintf(stderr,
          "%llu places (%llu closed well, %llu failed, %llu cancelled, %llu otherwise), %llu nodes, told %llu\n",
          (unsigned long long)places, (unsigned long long)by_reason[0], (unsigned long long)by_reason[1],
          (unsigned long long)by_reason[2], (unsigned long long)by_reason[3], (unsigned long long)nodes,
          (unsigned long long)told_count);
  return 0;
}
