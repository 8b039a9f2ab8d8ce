/* Channels, select, events, wait groups and the ends of fibers, beside a sequential model.
 *
 * A conductor reads the input. It tells actors, which are fibers, to make a call, and makes calls of its own that do
 * not wait. On one worker nothing comes between what an actor notes in the model and the call that it then makes, so
 * the model steps in the order of what really happens, and says of each call what it must return, with which value, or
 * that it waits now and who will end that. Whoever returns when the model says that it waits, or the other way round,
 * or with something else, has found a fault.
 *
 * What the model leaves open is what coir.h leaves open: which of several ready arms is chosen. */
#include "fuzz.h"

enum { ACTORS = 5, CHANS = 3, EVENTS = 2, GROUPS = 2, MORTALS = 2, ARMS = 6, BUFFER = 3, ELEM_MAX = 24 };

static const size_t elem_bytes[CHANS] = {4, 8, ELEM_MAX};

/* ---- The model's objects, and the real ones -------------------------------------------------------------------- */

static struct channel {
  struct coir_chan *real;
  uint32_t capacity, count;
  uint32_t values[BUFFER]; /* the oldest first */
  bool is_closed;
} chans[CHANS];

static struct {
  struct coir_event real;
  bool is_set;
} events[EVENTS];

static struct {
  struct coir_wait_group real;
  int count;
} groups[GROUPS];

static struct {
  struct coir_fiber *real;
  bool is_told, has_ended;
} mortals[MORTALS];

/* What an arm stands for; object < 0: none, so that it never is ready. */
struct plan {
  enum coir_arm_kind kind;
  int object;
  uint32_t sent;
  int64_t deadline;
  bool drops;
  unsigned char value[ELEM_MAX];
};

enum state {
  IDLE,    /* not in a call, or its call has been decided */
  WAITS,   /* in its call, until somebody ends that */
  LOOKS_ON /* in a select of which a deadline has come: the arms are looked at once more when it runs */
};

static struct actor {
  struct coir_fiber *fiber;
  bool is_told, quits;
  bool is_select, is_shielded;
  struct plan arms[ARMS];
  uint32_t count;
  int64_t deadline;
  enum state state;
  uint64_t since;    /* WAITS: its turn among those that wait */
  bool is_canceled;  /* a cancellation is pending */
  int decided;       /* IDLE, in a call: what it must return; ANY_OF: one of `choices`, with `result` */
  uint32_t choices;  /* bits of arms */
  int result;        /* of the arm */
  uint32_t received; /* the value, if result is 0 and it is an arm that receives */
} actors[ACTORS];

#define ANY_OF INT32_MAX

static uint64_t turns;
static uint32_t values_sent;
static bool is_late; /* the clock has moved, and nobody has looked at it since */

/* ---- The model ------------------------------------------------------------------------------------------------- */

static bool names(const struct plan *p, enum coir_arm_kind kind, int object) {
  return p->kind == kind && p->object == object;
}

/* Bits of the arms of `a` that are of a kind, and about an object. */
static uint32_t arms_of(const struct actor *a, enum coir_arm_kind kind, int object) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < a->count; i++) bits |= (uint32_t)names(&a->arms[i], kind, object) << i;
  return bits;
}

/* Who waits longest for that; NULL: nobody. */
static struct actor *first_for(enum coir_arm_kind kind, int object) {
  struct actor *first = NULL;
  for (int i = 0; i < ACTORS; i++) {
    struct actor *a = &actors[i];
    if (a->state == WAITS && arms_of(a, kind, object) && (!first || a->since < first->since)) first = a;
  }
  return first;
}

static void decide(struct actor *a, uint32_t choices, int result) {
  a->state = IDLE;
  a->decided = ANY_OF;
  a->choices = choices;
  a->result = result;
}

static void decide_all(enum coir_arm_kind kind, int object, int result) {
  for (struct actor *a; (a = first_for(kind, object)) != NULL;) decide(a, arms_of(a, kind, object), result);
}

/* Of arms of one channel the first in the array is the first in the channel's queue. */
static uint32_t lowest(uint32_t bits) { return bits & -bits; }

static int model_send(int object, uint32_t value) {
  struct channel *c = &chans[object];
  if (c->is_closed) return -EPIPE;
  struct actor *a = first_for(COIR_ARM_RECV, object);
  if (a) {
    CHECK_EQ(c->count, 0);
    a->received = value;
    decide(a, lowest(arms_of(a, COIR_ARM_RECV, object)), 0);
  } else if (c->count < c->capacity) {
    c->values[c->count++] = value;
  } else {
    return -ETIMEDOUT;
  }
  return 0;
}

static int model_recv(int object, uint32_t *value) {
  struct channel *c = &chans[object];
  struct actor *a = first_for(COIR_ARM_SEND, object);
  uint32_t arm = a ? lowest(arms_of(a, COIR_ARM_SEND, object)) : 0, sent = a ? a->arms[__builtin_ctz(arm)].sent : 0;
  if (c->count) {
    *value = c->values[0];
    memmove(c->values, c->values + 1, --c->count * sizeof *c->values);
    if (a) c->values[c->count++] = sent;
  } else if (a) {
    *value = sent;
  } else {
    return c->is_closed ? -EPIPE : -ETIMEDOUT;
  }
  if (a) decide(a, arm, 0);
  return 0;
}

static bool model_is_ready(const struct plan *p) {
  if (p->kind == COIR_ARM_DEADLINE) return p->deadline <= fuzz_now;
  if (p->kind == COIR_ARM_NONE || p->object < 0) return false;
  const struct channel *c = &chans[p->object % CHANS];
  switch (p->kind) {
  case COIR_ARM_SEND: return c->is_closed || c->count < c->capacity || first_for(COIR_ARM_RECV, p->object);
  case COIR_ARM_RECV: return c->is_closed || c->count > 0 || first_for(COIR_ARM_SEND, p->object);
  case COIR_ARM_EVENT: return events[p->object].is_set;
  case COIR_ARM_WAIT_GROUP: return groups[p->object].count == 0;
  default: return mortals[p->object].has_ended;
  }
}

static uint32_t model_ready(const struct actor *a) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < a->count; i++) bits |= (uint32_t)model_is_ready(&a->arms[i]) << i;
  return bits;
}

/* Does what an arm says that is ready. Returns the arm's result. */
static int model_do(struct actor *a, int arm) {
  const struct plan *p = &a->arms[arm];
  if (p->kind == COIR_ARM_SEND) return model_send(p->object, p->sent);
  if (p->kind == COIR_ARM_RECV) return model_recv(p->object, &a->received);
  return 0;
}

static int64_t limit_of(const struct actor *a) {
  int64_t limit = a->deadline;
  for (uint32_t i = 0; i < a->count; i++)
    if (a->arms[i].kind == COIR_ARM_DEADLINE) limit = sooner_of(limit, a->arms[i].deadline);
  return limit;
}

/* The worker is about to look at the clock. */
static void model_expire(void) {
  is_late = false;
  for (int i = 0; i < ACTORS; i++) {
    struct actor *a = &actors[i];
    if (a->state != WAITS || limit_of(a) > fuzz_now) continue;
    a->state = limit_of(a) < a->deadline ? LOOKS_ON : IDLE;
    a->decided = -ETIMEDOUT;
  }
}

static void model_cancel(struct actor *a) {
  a->is_canceled = true;
  if (a->state != WAITS || a->is_shielded) return;
  a->state = IDLE;
  a->decided = -ECANCELED;
}

/* ---- Actors ---------------------------------------------------------------------------------------------------- */

static void fill(unsigned char *to, int chan, uint32_t value) {
  for (size_t i = 0; i < elem_bytes[chan]; i++) to[i] = (unsigned char)(value >> 8 * (i % 4));
}

/* What an arm that receives has got, or nothing. */
static void check_value(const struct plan *p, bool has_received, uint32_t received) {
  unsigned char expected[ELEM_MAX];
  if (p->kind != COIR_ARM_RECV || p->object < 0 || p->drops) return;
  memset(expected, 0xee, sizeof expected);
  if (has_received) fill(expected, p->object, received);
  CHECK(memcmp(p->value, expected, ELEM_MAX) == 0);
}

static void prepare(struct plan *p) {
  memset(p->value, 0xee, sizeof p->value);
  if (p->kind == COIR_ARM_SEND && p->object >= 0) fill(p->value, p->object, p->sent = ++values_sent);
}

static struct coir_arm arm_of(struct plan *p) {
  struct coir_chan *chan = p->object < 0 ? NULL : chans[p->object % CHANS].real;
  switch (p->kind) {
  case COIR_ARM_SEND: return coir_arm_send(chan, p->value);
  case COIR_ARM_RECV: return coir_arm_recv(chan, p->drops ? NULL : p->value);
  case COIR_ARM_EVENT: return coir_arm_event(p->object < 0 ? NULL : &events[p->object].real);
  case COIR_ARM_WAIT_GROUP: return coir_arm_wait_group(p->object < 0 ? NULL : &groups[p->object].real);
  case COIR_ARM_FIBER: return coir_arm_fiber(p->object < 0 ? NULL : mortals[p->object].real);
  case COIR_ARM_DEADLINE: return coir_arm_deadline(p->deadline);
  default: return (struct coir_arm){.kind = COIR_ARM_NONE};
  }
}

/* Makes the call. Returns what it returned, or for a select and for what an arm of it would say: the arm. */
static int call(struct actor *a, int *result) {
  struct plan *p = &a->arms[0];
  if (a->is_select) {
    struct coir_arm arms[ARMS];
    for (uint32_t i = 0; i < a->count; i++) arms[i] = arm_of(&a->arms[i]);
    int rc = coir_select(arms, a->count, a->deadline);
    if (rc >= 0) *result = arms[rc].result;
    return rc;
  }
  switch (p->kind) {
  case COIR_ARM_SEND: *result = coir_chan_send(chans[p->object].real, p->value, a->deadline); break;
  case COIR_ARM_RECV: *result = coir_chan_recv(chans[p->object].real, p->drops ? NULL : p->value, a->deadline); break;
  case COIR_ARM_EVENT: *result = coir_event_wait(&events[p->object].real, a->deadline); break;
  default: *result = coir_wait_group_wait(&groups[p->object].real, a->deadline);
  }
  return *result == 0 || *result == -EPIPE ? 0 : *result;
}

static void begin(struct actor *a) {
  a->choices = model_ready(a);
  if (a->choices) return;
  a->decided = -ETIMEDOUT;
  if (a->deadline <= fuzz_now) return;
  a->decided = -ECANCELED;
  if (a->is_canceled && !a->is_shielded) {
    a->is_canceled = false;
    return;
  }
  a->state = WAITS;
  a->since = ++turns;
}

/* It has not waited, or has looked once more: the arm is done only now. */
static void check_chosen(struct actor *a, uint32_t ready, int rc, int result) {
  CHECK(rc >= 0 && (ready >> rc & 1));
  CHECK_EQ(result, model_do(a, rc));
}

static void perform(struct actor *a) {
  int result = 0;
  for (uint32_t i = 0; i < a->count; i++) prepare(&a->arms[i]);
  begin(a);
  bool waits = a->state == WAITS, is_ready = a->choices != 0;
  if (a->is_shielded) coir_shield_begin();
  int rc = call(a, &result);
  if (a->is_shielded) coir_shield_end();
  CHECK(a->state != WAITS);
  if (is_ready) {
    check_chosen(a, a->choices, rc, result);
  } else if (a->state == LOOKS_ON) {
    a->state = IDLE;
    check_chosen(a, model_ready(a), rc, result);
  } else if (a->decided == ANY_OF) {
    CHECK(rc >= 0 && (a->choices >> rc & 1));
    CHECK_EQ(result, a->result);
  } else {
    CHECK_EQ(rc, a->decided);
    if (waits && rc == -ECANCELED) a->is_canceled = false; /* what was asked for meanwhile is the same */
  }
  for (uint32_t i = 0; i < a->count; i++) check_value(&a->arms[i], (int)i == rc && result == 0, a->received);
}

static int run_actor(void *arg) {
  struct actor *a = arg;
  while (!a->quits) {
    while (!a->is_told && !a->quits) coir_yield();
    if (a->is_told) perform(a);
    a->is_told = false;
  }
  return 0;
}

static int run_mortal(void *arg) {
  int i = (int)(intptr_t)arg;
  while (!mortals[i].is_told) coir_yield();
  mortals[i].has_ended = true;
  decide_all(COIR_ARM_FIBER, i, 0);
  return i;
}

/* ---- The conductor --------------------------------------------------------------------------------------------- */

static bool all_are_as_modelled(void) {
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].is_told != (actors[i].state == WAITS)) return false;
  for (int i = 0; i < MORTALS; i++)
    if (mortals[i].is_told && !mortals[i].has_ended) return false;
  return true;
}

/* Lets the actors run until each of them waits, or has nothing to do. Who returns from a wait without a reason says so
 * itself, in the turns after that. */
static void settle(void) {
  if (is_late) model_expire();
  for (int i = 0; !all_are_as_modelled(); i++) {
    CHECK(i < 20000);
    coir_yield();
  }
  for (int i = 0; i < 3; i++) coir_yield();
  for (int i = 0; i < CHANS; i++) {
    CHECK_EQ(coir_chan_length(chans[i].real), chans[i].count);
    CHECK_EQ(coir_chan_is_closed(chans[i].real), chans[i].is_closed);
  }
}

static int take_object(struct input *in, int count) {
  uint32_t b = take(in);
  return b < 8 ? -1 : (int)(b % (uint32_t)count);
}

static struct plan take_plan(struct input *in) {
  static const enum coir_arm_kind kinds[] = {
      COIR_ARM_SEND,  COIR_ARM_RECV,       COIR_ARM_SEND,       COIR_ARM_RECV,  COIR_ARM_SEND,     COIR_ARM_RECV,
      COIR_ARM_EVENT, COIR_ARM_WAIT_GROUP, COIR_ARM_WAIT_GROUP, COIR_ARM_FIBER, COIR_ARM_DEADLINE, COIR_ARM_NONE};
  struct plan p = {.kind = kinds[below(in, sizeof kinds / sizeof *kinds)]};
  switch (p.kind) {
  case COIR_ARM_SEND: p.object = take_object(in, CHANS); break;
  case COIR_ARM_RECV:
    p.object = take_object(in, CHANS);
    p.drops = one_in(in, 8);
    break;
  case COIR_ARM_EVENT: p.object = take_object(in, EVENTS); break;
  case COIR_ARM_WAIT_GROUP: p.object = take_object(in, GROUPS); break;
  case COIR_ARM_FIBER: p.object = take_object(in, MORTALS); break;
  case COIR_ARM_DEADLINE: p.deadline = take_deadline(in); break;
  default: break;
  }
  return p;
}

static bool can_be_a_call(const struct plan *p) {
  return p->object >= 0 && (p->kind == COIR_ARM_SEND || p->kind == COIR_ARM_RECV || p->kind == COIR_ARM_EVENT ||
                            p->kind == COIR_ARM_WAIT_GROUP);
}

/* Tells an actor that has nothing to do what to do next. What waits behind a shield has an end. */
static void tell(struct input *in, struct actor *a) {
  if (a->is_told) return;
  if (is_late) settle(); /* else it might run before the clock is looked at */
  a->count = below(in, ARMS + 1);
  a->deadline = take_deadline(in);
  a->is_shielded = one_in(in, 5);
  if (a->is_shielded) a->deadline = sooner_of(a->deadline, fuzz_now + COIR_MS(200));
  for (uint32_t i = 0; i < a->count; i++) a->arms[i] = take_plan(in);
  a->is_select = a->count != 1 || !can_be_a_call(&a->arms[0]) || one_in(in, 3);
  a->is_told = true;
}

/* Without waiting; by the conductor. */
static void try_to_send(int object) {
  unsigned char value[ELEM_MAX];
  uint32_t number = ++values_sent;
  fill(value, object, number);
  bool would_wait =
      !chans[object].is_closed && chans[object].count == chans[object].capacity && !first_for(COIR_ARM_RECV, object);
  if (would_wait) settle(); /* one that fails may give way to others */
  int expected = model_send(object, number);
  CHECK_EQ(coir_chan_send(chans[object].real, value, 0), expected);
}

static void try_to_receive(int object) {
  struct plan p = {.kind = COIR_ARM_RECV, .object = object};
  uint32_t number = 0;
  if (!model_is_ready(&p)) settle();
  int expected = model_recv(object, &number);
  prepare(&p);
  CHECK_EQ(coir_chan_recv(chans[object].real, p.value, 0), expected);
  check_value(&p, expected == 0, number);
}

/* Receivers that wait are told first; a select that also sends is one of them. */
static void close_chan(int object) {
  chans[object].is_closed = true;
  for (struct actor *a; (a = first_for(COIR_ARM_RECV, object)) != NULL;)
    decide(a, arms_of(a, COIR_ARM_RECV, object) | arms_of(a, COIR_ARM_SEND, object), -EPIPE);
  decide_all(COIR_ARM_SEND, object, -EPIPE);
  coir_chan_close(chans[object].real);
}

static void set_event(int i, bool is_set) {
  events[i].is_set = is_set;
  if (is_set) decide_all(COIR_ARM_EVENT, i, 0);
  if (is_set) coir_event_set(&events[i].real);
  else coir_event_reset(&events[i].real);
}

static void add_to_group(int i, int n) {
  if (groups[i].count + n < 0) n = -groups[i].count;
  groups[i].count += n;
  if (groups[i].count == 0) decide_all(COIR_ARM_WAIT_GROUP, i, 0);
  coir_wait_group_add(&groups[i].real, n);
  CHECK_EQ(coir_wait_group_count(&groups[i].real), groups[i].count);
}

static void cancel(struct actor *a) {
  model_cancel(a);
  CHECK_EQ(coir_cancel(a->fiber), 0);
}

static void end_mortal(int i) {
  if (is_late) settle(); /* as above */
  mortals[i].is_told = true;
}

/* What comes next finds the clock changed, and nobody told. */
static void advance(int64_t ns) {
  settle();
  fuzz_now += ns;
  is_late = true;
}

static void step(struct input *in) {
  uint32_t b = take(in);
  switch (b % 16) {
  case 0: try_to_send((int)below(in, CHANS)); break;
  case 1: try_to_receive((int)below(in, CHANS)); break;
  case 2: cancel(&actors[below(in, ACTORS)]); break;
  case 3: set_event((int)below(in, EVENTS), b & 16); break;
  case 4: add_to_group((int)below(in, GROUPS), b & 16 ? (int)(b / 64) + 1 : -(int)(b / 64) - 1); break;
  case 5: advance(b & 16 ? COIR_MS(below(in, 64)) : COIR_US(take(in))); break;
  case 6:
    if (b & 32) close_chan((int)below(in, CHANS));
    break;
  case 7:
    if (b & 16) end_mortal((int)below(in, MORTALS));
    break;
  case 8:
  case 9:
  case 10: settle(); break;
  default: tell(in, &actors[below(in, ACTORS)]); break;
  }
}

static void set_up(struct input *in) {
  for (int i = 0; i < CHANS; i++) {
    chans[i] = (struct channel){.capacity = below(in, BUFFER + 1)};
    chans[i].real = coir_chan_create(elem_bytes[i], chans[i].capacity);
    CHECK(chans[i].real);
  }
  memset(events, 0, sizeof events);
  memset(groups, 0, sizeof groups);
  memset(mortals, 0, sizeof mortals);
  memset(actors, 0, sizeof actors);
  for (int i = 0; i < ACTORS; i++) CHECK_EQ(coir_spawn(run_actor, &actors[i], NULL, &actors[i].fiber), 0);
  for (int i = 0; i < MORTALS; i++) CHECK_EQ(coir_spawn(run_mortal, (void *)(intptr_t)i, NULL, &mortals[i].real), 0);
}

/* Everybody comes to an end: objects become ready, or are cancelled, or their time comes. */
static void tear_down(void) {
  settle();
  for (int i = 0; i < CHANS; i++) close_chan(i);
  for (int i = 0; i < ACTORS; i++) cancel(&actors[i]);
  advance(COIR_SEC(1));
  for (int i = 0; i < ACTORS; i++) actors[i].quits = true;
  for (int i = 0; i < MORTALS; i++) end_mortal(i);
  settle();
  for (int i = 0; i < ACTORS; i++) CHECK_EQ(actors[i].state, IDLE);
  for (int i = 0; i < ACTORS; i++) CHECK_EQ(coir_join(actors[i].fiber, NULL, COIR_NEVER), 0);
  for (int i = 0; i < MORTALS; i++) {
    struct coir_result result;
    CHECK_EQ(coir_join(mortals[i].real, &result, COIR_NEVER), 0);
    CHECK_EQ(result.status, i);
  }
  for (int i = 0; i < CHANS; i++) coir_chan_unref(chans[i].real);
}

static int conduct(void *arg) {
  struct input *in = arg;
  set_up(in);
  while (!is_over(in)) step(in);
  tear_down();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  struct input in = {data, data + bytes};
  run_alone(conduct, &in);
  return 0;
}
