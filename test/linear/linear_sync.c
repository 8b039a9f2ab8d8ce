/* Histories of locks and friends are linearizable, with deadlines, and with cancellation where it says so: mutex and
 * rwlock around a number, semaphore, event, wait group, counter.
 *
 * usage: linear_sync [rounds] [seed] */
#include "coir_job.h"
#include "history.h"

enum { CLIENTS = 6, CALLS = 16, PERMITS = 3 };

enum what { ADD, READ, ACQUIRE, RELEASE, SET, RESET, IS_SET, WAIT, DONE, COUNT, IS_COMPLETE };

static const char *name(int what) {
  static const char *const names[] = {"add",    "read", "acquire", "release", "set",        "reset",
                                      "is set", "wait", "done",    "count",   "is complete"};
  return names[what];
}

static struct {
  struct client clients[CLIENTS];
  struct gate gate;
  struct coir_mutex mutex;
  struct coir_rwlock rwlock;
  struct coir_sem sem;
  struct coir_event event;
  struct coir_wait_group group;
  struct coir_counter counter;
  int64_t number, copy; /* under the mutex, or the rwlock: always the same */
} all;

/* ---- A number under a lock ------------------------------------------------------------------------------------- */

static bool step_number(void *state, const struct linear_op *op) {
  int64_t *v = state;
  if (op->what == READ) return op->result == *v;
  return op->result == (*v)++;
}

/* With the lock held: looks, lets others in if they can come, and writes. */
static int64_t add_held(struct client *c) {
  int64_t was = all.number;
  CHECK_EQ(all.copy, was);
  dawdle(c);
  all.number = was + 1;
  dawdle(c);
  all.copy = was + 1;
  return was;
}

static void call_mutex(struct client *c) {
  int64_t began = history_tick();
  if (coir_mutex_lock(&all.mutex, draw_deadline(c)) != 0) return;
  int64_t was = add_held(c);
  coir_mutex_unlock(&all.mutex);
  note(c, began, ADD, 0, was);
}

static void call_rwlock(struct client *c) {
  bool reads = draw(c, 3);
  int64_t deadline = draw_deadline(c), began = history_tick(), was;
  if (reads) {
    if (coir_rwlock_read(&all.rwlock, deadline) != 0) return;
    was = all.number;
    dawdle(c);
    CHECK_EQ(all.copy, was);
    coir_rwlock_read_unlock(&all.rwlock);
  } else {
    if (coir_rwlock_write(&all.rwlock, deadline) != 0) return;
    was = add_held(c);
    coir_rwlock_write_unlock(&all.rwlock);
  }
  note(c, began, reads ? READ : ADD, 0, was);
}

/* ---- A semaphore ----------------------------------------------------------------------------------------------- */

/* Who comes to nothing may have stood behind somebody who waits for more. */
static bool step_sem(void *state, const struct linear_op *op) {
  int64_t *permits = state;
  if (op->what == RELEASE) {
    *permits += op->arg;
    return true;
  }
  if (op->result == -ETIMEDOUT || op->result == -ECANCELED) return true;
  *permits -= op->arg;
  return op->result == 0 && *permits >= 0;
}

/* One permit at a time, and nobody gives up waiting: then who need not wait does not come to nothing. */
static bool step_sem_of_one(void *state, const struct linear_op *op) {
  if (op->result == -ETIMEDOUT) return *(int64_t *)state == 0;
  return step_sem(state, op);
}

static void use_sem(struct client *c, int64_t permits, int64_t deadline) {
  int64_t began = history_tick();
  int rc = coir_sem_acquire(&all.sem, permits, deadline);
  note(c, began, ACQUIRE, permits, rc);
  if (rc) return;
  dawdle(c);
  began = history_tick();
  coir_sem_release(&all.sem, permits);
  note(c, began, RELEASE, permits, 0);
}

static void call_sem(struct client *c) { use_sem(c, (int64_t)draw(c, PERMITS) + 1, draw_deadline(c)); }
static void call_sem_of_one(struct client *c) { use_sem(c, 1, draw(c, 2) ? 0 : COIR_NEVER); }

/* ---- An event -------------------------------------------------------------------------------------------------- */

static bool step_event(void *state, const struct linear_op *op) {
  int64_t *is_set = state;
  switch (op->what) {
  case SET: *is_set = 1; return true;
  case RESET: *is_set = 0; return true;
  case IS_SET: return op->result == *is_set;
  default: return op->result == -ECANCELED || op->result == (*is_set ? 0 : -ETIMEDOUT);
  }
}

static void call_event(struct client *c) {
  static const enum what whats[] = {SET, RESET, RESET, IS_SET, WAIT, WAIT};
  enum what what = whats[draw(c, sizeof whats / sizeof *whats)];
  int64_t deadline = draw(c, 2) ? 0 : coir_after(COIR_US(draw(c, 200))), began = history_tick(), result = 0;
  switch (what) {
  case SET: coir_event_set(&all.event); break;
  case RESET: coir_event_reset(&all.event); break;
  case IS_SET: result = coir_event_is_set(&all.event); break;
  default: result = coir_event_wait(&all.event, deadline);
  }
  note(c, began, what, 0, result);
}

/* ---- A wait group and a counter: clients add and take away what they have added ---------------------------------- */

static bool step_count(void *state, const struct linear_op *op) {
  int64_t *count = state;
  switch (op->what) {
  case ADD: *count += op->arg; return true;
  case DONE: return *count > 0 && (--*count == 0) == op->result;
  case COUNT: return op->result == *count;
  case IS_COMPLETE: return op->result == (*count == 0);
  default: return op->result == -ECANCELED || op->result == (*count ? -ETIMEDOUT : 0);
  }
}

static bool step_group(void *state, const struct linear_op *op) {
  if (op->what != DONE) return step_count(state, op);
  return --*(int64_t *)state >= 0;
}

static void call_group(struct client *c) {
  int64_t *mine = c->arg, deadline = draw(c, 2) ? 0 : coir_after(COIR_US(draw(c, 200)));
  enum what what = draw(c, 4) == 0 ? COUNT : draw(c, 3) == 0 ? WAIT : mine[c->number] > 0 && draw(c, 3) ? DONE : ADD;
  int64_t began = history_tick(), result = 0;
  if (what == ADD) mine[c->number]++;
  if (what == DONE) mine[c->number]--;
  switch (what) {
  case ADD: coir_wait_group_add(&all.group, 1); break;
  case DONE: coir_wait_group_done(&all.group); break;
  case COUNT: result = coir_wait_group_count(&all.group); break;
  default: result = coir_wait_group_wait(&all.group, deadline);
  }
  note(c, began, what, what == ADD, result);
}

/* Each begins with one, and adds only as long as it has one: what is complete stays so. Nor does it ever have more than
 * there is room for to note that it gives them back. */
static void call_counter(struct client *c) {
  int64_t *mine = c->arg, deadline = draw_deadline(c);
  bool has = mine[c->number] > 0, has_many = mine[c->number] >= OPS_MAX / 4;
  enum what what = draw(c, 4) == 0 ? IS_COMPLETE : !has ? WAIT : draw(c, 4) == 0 && !has_many ? ADD : DONE;
  if (has && what == IS_COMPLETE && draw(c, 2)) what = WAIT, deadline = 0;
  int64_t began = history_tick(), result = 0, added = (int64_t)draw(c, 2) + 1;
  if (what == ADD) mine[c->number] += added;
  if (what == DONE) mine[c->number]--;
  switch (what) {
  case ADD: coir_counter_add(&all.counter, (uint64_t)added); break;
  case DONE: result = coir_counter_done(&all.counter); break;
  case IS_COMPLETE: result = coir_counter_is_complete(&all.counter); break;
  default: result = coir_counter_wait(&all.counter, deadline);
  }
  note(c, began, what, what == ADD ? added : 0, result);
}

/* What it has left, so that others who wait without a deadline come to an end. */
static void end_counter(struct client *c) {
  for (int64_t *mine = c->arg; mine[c->number] > 0; mine[c->number]--) {
    int64_t began = history_tick();
    note(c, began, DONE, 0, coir_counter_done(&all.counter));
  }
}

/* ---- Rounds ---------------------------------------------------------------------------------------------------- */

static const struct kind {
  void (*call)(struct client *c);
  void (*end)(struct client *c);
  bool (*step)(void *state, const struct linear_op *op);
  int64_t initial;
  bool can_be_canceled;
} kinds[] = {
    {call_mutex, NULL, step_number, 0, true},
    {call_rwlock, NULL, step_number, 0, true},
    {call_sem, NULL, step_sem, PERMITS, true},
    {call_sem_of_one, NULL, step_sem_of_one, 1, false},
    {call_event, NULL, step_event, 0, true},
    {call_group, NULL, step_group, 0, true},
    {call_counter, end_counter, step_count, CLIENTS, true},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static const struct kind *kind;
static uint64_t rounds_wanted, seed, calls[KINDS];

static int run_client(void *arg) {
  struct client *c = arg;
  bool cancels = kind->can_be_canceled && seed % 2;
  meet(&all.gate);
  for (int i = 0; i < CALLS && c->count < OPS_MAX / 2; i++) {
    kind->call(c);
    if (cancels && draw(c, 8) == 0) (void)coir_cancel(all.clients[draw(c, CLIENTS)].fiber);
    dawdle(c);
  }
  if (kind->end) kind->end(c);
  return 0;
}

static void run_round(int which) {
  int64_t mine[CLIENTS];
  kind = &kinds[which];
  memset(&all, 0, sizeof all);
  for (int i = 0; i < CLIENTS; i++) mine[i] = kind->call == call_counter;
  coir_sem_init(&all.sem, kind->initial);
  coir_counter_init(&all.counter, CLIENTS);
  clients_init(all.clients, CLIENTS, seed, mine);
  gate_init(&all.gate, CLIENTS);
  for (int i = 0; i < CLIENTS; i++) start(&all.clients[i], run_client);
  finish(all.clients, CLIENTS);
  struct linear_object object = {sizeof kind->initial, &kind->initial, kind->step, name};
  CHECK_EQ(history_check(&object, all.clients, CLIENTS, NULL, 0, stderr), LINEAR_YES);
  for (int i = 0; i < CLIENTS; i++) calls[which] += all.clients[i].count;
}

static int run_rounds(void *arg) {
  (void)arg;
  for (uint64_t i = 0; i < rounds_wanted; i++, seed++) run_round((int)(i % KINDS));
  return 0;
}

int main(int argc, char **argv) {
  rounds_wanted = (uint64_t)rounds(2100);
  read_arguments(argc, argv, &rounds_wanted, &seed);
  int rc = run(run_rounds, NULL);
  for (int i = 0; i < KINDS; i++) printf("%llu ", (unsigned long long)calls[i]);
  printf("calls\n");
  return rc;
}
