/* Loops in parallel, by fork and join.
 *
 * Goal: a loop costs what it would cost in sequence, unless others are out of work; and nobody has to say how large a
 * piece is to be.
 *
 * A piece is run from its lower end, some blocks at a time. In between its worker looks whether its own deque is
 * empty, that is, whether the last half that it offered has been taken; if so, it offers the upper half of what is
 * left, by coir_fork2. So a loop is split as often as others come for work, and about the logarithm of its length
 * more. Without a grain a block is one index, and as many are run at a time as take about PIECE_NS. What is left is
 * on offer, too, while these run: nobody gets to it before the upper half is taken, unless a body waits; then the
 * worker takes it itself, so that a thousand bodies that wait for I/O wait at the same time. Every now and then who
 * sleeps is told of what lies there, and the worker sees to its timers, its poller, and other fibers. (Tzannes,
 * Caragea, Barua, Vishkin, "Lazy Binary-Splitting", PPoPP 2010; there the number is given.) */
#include <string.h>

#include "job.h"

#define PIECE_NS COIR_US(10)
#define STEP_GROWTH 4 /* of the number of blocks at a time, at most */
#define STEP_SHARE 8  /* and they are no more than this part of the rest, less with many workers */
#define MONOID_MAX 256
#define SCAN_BYTES 8192 /* in the frame of a scan */

/* One loop; its blocks are counted from 0, and block k begins at lo + k * grain. */
struct loop {
  size_t lo, hi, grain;
  bool is_adaptive; /* several blocks at a time */
  size_t share;     /* what part of the rest that may be */
  coir_range_fn body;
  void *arg;
};

struct piece {
  const struct loop *loop;
  size_t from, to; /* blocks */
  size_t step;     /* blocks at a time */
};

static size_t block_count(const struct loop *l) {
  size_t length = l->hi - l->lo;
  return length / l->grain + (length % l->grain != 0);
}

static size_t block_end(const struct loop *l, size_t block) {
  return l->hi - l->lo - (block - 1) * l->grain <= l->grain ? l->hi : l->lo + block * l->grain;
}

/* By how long the last `step` blocks took. */
static size_t next_step(size_t step, int64_t took, size_t left, size_t share) {
  size_t most = left / share + 1; /* what comes may take much longer than what was */
  if (took > 2 * PIECE_NS) step = step > 1 ? step / 2 : 1;
  else if (took * STEP_GROWTH < PIECE_NS) step *= STEP_GROWTH;
  else if (took * 2 < PIECE_NS) step *= 2;
  return step < most ? step : most;
}

static void piece_run(void *piece);

/* The next blocks of a piece. What is left of it is on offer meanwhile, for the case that a body waits. Returns false
 * when somebody has taken that, and done it. */
static bool piece_step(struct piece *p) {
  const struct loop *l = p->loop;
  struct coir__fork fork;
  size_t from = p->from, end = p->to - from > p->step ? from + p->step : p->to;
  p->from = end;
  bool is_offered = end < p->to && coir__fork_begin(&fork, piece_run, p);
  l->body(l->lo + from * l->grain, block_end(l, end), l->arg);
  return !is_offered || coir__fork_end(&fork);
}

static void piece_run(void *piece) {
  struct piece *p = piece;
  int64_t now = coir__os_now();
  p->step = 1; /* here it may be another thing than where it was found out */
  while (p->from < p->to) {
    if (p->to - p->from > 1 && coir__fork_is_wanted()) {
      struct piece upper = *p;
      upper.from = p->to = p->from + (p->to - p->from) / 2;
      coir_fork2(piece_run, p, piece_run, &upper);
      return;
    }
    if (!piece_step(p)) return;
    int64_t then = now;
    now = coir__os_now();
    if (p->loop->is_adaptive) p->step = next_step(p->step, now - then, p->to - p->from, p->loop->share);
    if (now - then > PIECE_NS / STEP_GROWTH) coir__fork_breathe(now);
  }
}

static void loop_run(void *loop) {
  const struct loop *l = loop;
  piece_run(&(struct piece){.loop = l, .to = block_count(l), .step = 1});
}

static struct loop loop_of(size_t lo, size_t hi, size_t grain, coir_range_fn body, void *arg) {
  return (struct loop){lo, hi, grain ? grain : 1, !grain, STEP_SHARE, body, arg};
}

int coir_parallel_range(struct coir_job_system *system, size_t lo, size_t hi, size_t grain, coir_range_fn body,
                        void *arg) {
  struct loop l = loop_of(lo, hi, grain, body, arg);
  if (!body || lo > hi) return -EINVAL;
  return lo < hi ? coir__job_call(system, loop_run, &l) : 0;
}

/* ---- Index by index, element by element ------------------------------------------------------------------------ */

struct indexed {
  coir_index_fn body;
  void *arg;
};
static void run_indices(size_t lo, size_t hi, void *indexed) {
  const struct indexed *x = indexed;
  for (size_t i = lo; i < hi; i++) x->body(i, x->arg);
}

int coir_parallel_for(struct coir_job_system *system, size_t lo, size_t hi, coir_index_fn body, void *arg) {
  return body ? coir_parallel_range(system, lo, hi, 0, run_indices, &(struct indexed){body, arg}) : -EINVAL;
}

struct elements {
  char *base;
  size_t bytes;
  coir_elem_fn body;
  void *arg;
};
static void run_elements(size_t lo, size_t hi, void *elements) {
  const struct elements *e = elements;
  for (size_t i = lo; i < hi; i++) e->body(e->base + i * e->bytes, e->arg);
}

int coir_parallel_each(struct coir_job_system *system, void *base, size_t count, size_t elem_bytes, coir_elem_fn body,
                       void *arg) {
  if (!body || (!base && count) || (elem_bytes && count > SIZE_MAX / elem_bytes)) return -EINVAL;
  return coir_parallel_range(system, 0, count, 0, run_elements, &(struct elements){base, elem_bytes, body, arg});
}

struct phases {
  const struct coir_phase *first;
  size_t count;
};
static void run_phases(void *phases) {
  const struct phases *p = phases;
  for (size_t i = 0; i < p->count; i++) {
    const struct coir_phase *phase = &p->first[i];
    struct loop l = loop_of(phase->lo, phase->hi, phase->grain, phase->body, phase->arg);
    if (phase->lo < phase->hi) loop_run(&l);
  }
}

int coir_parallel_phases(struct coir_job_system *system, const struct coir_phase *phases, size_t n) {
  if (!phases && n) return -EINVAL;
  for (size_t i = 0; i < n; i++)
    if (!phases[i].body || phases[i].lo > phases[i].hi) return -EINVAL;
  return coir__job_call(system, run_phases, &(struct phases){phases, n});
}

/* ---- Reduce ---------------------------------------------------------------------------------------------------- */

struct value {
  _Alignas(16) char bytes[MONOID_MAX];
};

struct reduction {
  struct loop loop; /* without a body */
  const struct coir_monoid *monoid;
};

/* What lies in blocks from..to; the value begins as nothing. */
struct part {
  const struct reduction *r;
  size_t from, to, step;
  struct value value;
};

static void part_begin(struct part *part, const struct reduction *r, size_t from, size_t to, size_t step) {
  part->r = r;
  part->from = from;
  part->to = to;
  part->step = step;
  memcpy(part->value.bytes, r->monoid->identity, r->monoid->bytes);
}

static void part_sum(struct part *p, size_t end) {
  const struct loop *l = &p->r->loop;
  p->r->monoid->sum(l->lo + p->from * l->grain, block_end(l, end), p->value.bytes, l->arg);
  p->from = end;
}

/* Cuts off the upper half, runs both, and adds that up. Apart, so that only who splits pays for the room. */
static void __attribute__((noinline)) part_split(struct part *p, coir_task_fn run) {
  struct part upper;
  size_t middle = p->from + (p->to - p->from) / 2;
  part_begin(&upper, p->r, middle, p->to, p->step);
  p->to = middle;
  coir_fork2(run, p, run, &upper);
  p->r->monoid->combine(p->value.bytes, upper.value.bytes, p->r->loop.arg);
}

/* The tree of blocks is always the same. */
static void run_tree(void *part) {
  struct part *p = part;
  if (p->to - p->from > 1) part_split(p, run_tree);
  else part_sum(p, p->to);
}

static void run_lazily(void *part) {
  struct part *p = part;
  int64_t now = coir__os_now();
  p->step = 1;
  while (p->from < p->to) {
    if (p->to - p->from > 1 && coir__fork_is_wanted()) {
      part_split(p, run_lazily);
      return;
    }
    part_sum(p, p->to - p->from > p->step ? p->from + p->step : p->to);
    int64_t then = now;
    now = coir__os_now();
    p->step = next_step(p->step, now - then, p->to - p->from, p->r->loop.share);
    if (now - then > PIECE_NS / STEP_GROWTH) coir__fork_breathe(now);
  }
}

static void run_part(void *part) {
  struct part *p = part;
  if (p->r->loop.is_adaptive) run_lazily(p);
  else run_tree(p);
}

static bool monoid_is_valid(const struct coir_monoid *m) {
  return m && m->identity && m->sum && m->combine && m->bytes > 0 && m->bytes <= MONOID_MAX;
}

int coir_parallel_reduce(struct coir_job_system *system, size_t lo, size_t hi, size_t grain,
                         const struct coir_monoid *monoid, void *arg, void *out) {
  if (!monoid_is_valid(monoid) || !out || lo > hi) return -EINVAL;
  struct reduction r = {loop_of(lo, hi, grain, NULL, arg), monoid};
  struct part whole_range;
  part_begin(&whole_range, &r, 0, block_count(&r.loop), 1);
  int rc = lo < hi ? coir__job_call(system, run_part, &whole_range) : 0;
  if (rc == 0) memcpy(out, whole_range.value.bytes, monoid->bytes);
  return rc;
}

/* ---- Scan ------------------------------------------------------------------------------------------------------ */

struct scan {
  size_t lo, hi, grain; /* of a block */
  const struct coir_monoid *monoid;
  void (*apply)(size_t lo, size_t hi, const void *before, void *arg);
  void *arg;
  char *values; /* of blocks: first what is in each, then what is before it; and the whole at the end */
  size_t stride;
};

static char *value_at(const struct scan *s, size_t lo) { return s->values + (lo - s->lo) / s->grain * s->stride; }

static void sum_block(size_t lo, size_t hi, void *scan) {
  const struct scan *s = scan;
  s->monoid->sum(lo, hi, value_at(s, lo), s->arg);
}

static void apply_block(size_t lo, size_t hi, void *scan) {
  const struct scan *s = scan;
  s->apply(lo, hi, value_at(s, lo), s->arg);
}

/* Sums of blocks to sums of what is before them. */
static void shift_sums(struct scan *s, size_t blocks) {
  struct value sum, next;
  memcpy(sum.bytes, s->monoid->identity, s->monoid->bytes);
  for (size_t i = 0; i < blocks; i++) {
    char *value = s->values + i * s->stride;
    memcpy(next.bytes, sum.bytes, s->monoid->bytes);
    s->monoid->combine(next.bytes, value, s->arg);
    memcpy(value, sum.bytes, s->monoid->bytes);
    memcpy(sum.bytes, next.bytes, s->monoid->bytes);
  }
  memcpy(s->values + blocks * s->stride, sum.bytes, s->monoid->bytes);
}

static void run_scan(void *scan) {
  struct scan *s = scan;
  struct loop sums = loop_of(s->lo, s->hi, s->grain, sum_block, s), applies = sums;
  size_t blocks = block_count(&sums);
  for (size_t i = 0; i < blocks; i++) memcpy(s->values + i * s->stride, s->monoid->identity, s->monoid->bytes);
  applies.body = apply_block;
  loop_run(&sums);
  shift_sums(s, blocks);
  loop_run(&applies);
}

int coir_parallel_scan(struct coir_job_system *system, size_t lo, size_t hi, const struct coir_monoid *monoid,
                       void (*apply)(size_t lo, size_t hi, const void *before, void *arg), void *arg, void *out) {
  if (!monoid_is_valid(monoid) || !apply || lo > hi) return -EINVAL;
  _Alignas(16) char values[SCAN_BYTES];
  struct scan s = {lo, hi, 1, monoid, apply, arg, values, (monoid->bytes + 15) / 16 * 16};
  struct coir_runtime *rt = system ? coir_job_system_runtime(system) : coir_runtime_current();
  size_t length = hi - lo, blocks = rt ? 4 * (size_t)rt->worker_count : 1;
  if (blocks > SCAN_BYTES / s.stride - 1) blocks = SCAN_BYTES / s.stride - 1; /* and one for the whole */
  if (blocks > length) blocks = length;
  if (blocks) s.grain = length / blocks + (length % blocks != 0);
  int rc = length ? coir__job_call(system, run_scan, &s) : 0;
  if (rc || !out) return rc;
  memcpy(out, length ? values + (length / s.grain + (length % s.grain != 0)) * s.stride : monoid->identity,
         monoid->bytes);
  return 0;
}

/* ---- Loops as jobs --------------------------------------------------------------------------------------------- */

/* A loop whose blocks are jobs. The first job has all of them: each job gives the upper half of what it has away until
 * one is left, which it runs. On the heap until the last block has ended. */
struct job_loop {
  struct loop loop;
  struct indexed indexed; /* what the loop's body calls, if it goes by indices */
  _Atomic(size_t) left;   /* (a) blocks that have not ended */
};

struct block {
  struct job_loop *l;
  size_t index;
};
static void run_block(void *block) {
  const struct block *b = block;
  const struct loop *l = &b->l->loop;
  l->body(l->lo + b->index * l->grain, block_end(l, b->index + 1), l->arg);
}

/* Returns 0, or -ECANCELED when the block failed. The loop may be gone. */
static int block_job(struct job_loop *l, size_t index) {
  int rc = coir__guarded(run_block, &(struct block){l, index});
  if (atm_sub_ar(&l->left, 1) == 1) coir__free(NULL, l, 0); /* who frees it has seen that all others are done with it */
  return rc;
}

static void loop_jobs(struct coir_job *job, struct job_loop *l, uint32_t from, uint32_t to) {
  while (to - from > 1) {
    uint32_t middle = from + (to - from) / 2;
    if (coir__job_split(job, (uint64_t)to << 32 | middle) == 0) {
      to = middle;
      continue;
    }
    to--; /* memory is short: here and now */
    coir__job_count_down(job, block_job(l, to) != 0);
  }
  if (block_job(l, from)) coir__nest_fail();
}

static void loop_job(struct coir_job *job, void *l) {
  uint64_t part = coir__job_payload(job);
  loop_jobs(job, l, (uint32_t)part, (uint32_t)(part >> 32));
}

static struct coir_counter *loop_submit(struct coir_job_system *system, struct loop loop, coir_index_fn body) {
  struct job_loop *l = NULL;
  size_t blocks = loop.lo < loop.hi ? block_count(&loop) : 0;
  if (!system || loop.lo > loop.hi || blocks > UINT32_MAX) return NULL;
  struct coir_counter *counter = coir_counter_create(blocks ? blocks - 1 : 0);
  if (counter && blocks) l = coir__alloc(NULL, sizeof *l);
  if (!counter || !blocks) return counter;
  int rc = l ? 0 : -ENOMEM;
  if (l) {
    *l = (struct job_loop){.loop = loop, .indexed = {body, loop.arg}};
    if (body) l->loop.arg = &l->indexed;
    atm_store_rlx(&l->left, blocks);
    rc = coir__job_submit_part(system, loop_job, l, (uint64_t)blocks << 32, counter);
  }
  if (!rc) return counter;
  coir__free(NULL, l, 0);
  coir_counter_reset(counter, 0);
  coir_counter_unref(counter);
  return NULL;
}

struct coir_counter *coir_job_parallel_for(struct coir_job_system *system, size_t lo, size_t hi, size_t batch,
                                           coir_index_fn body, void *arg) {
  return body ? loop_submit(system, loop_of(lo, hi, batch ? batch : 1, run_indices, arg), body) : NULL;
}

struct coir_counter *coir_job_parallel_for_chunked(struct coir_job_system *system, size_t lo, size_t hi, size_t batch,
                                                   coir_range_fn body, void *arg) {
  return body ? loop_submit(system, loop_of(lo, hi, batch ? batch : 1, body, arg), NULL) : NULL;
}
