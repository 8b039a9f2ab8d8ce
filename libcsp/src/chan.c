/* Channels and select of libcsp: those of Coir, with a pointer as value. A csp_gochan_t is a struct coir_chan. */
#define CSP__INLINE /* here the calls that compilers inline elsewhere become functions */
#include "chan.h"

#include <stdlib.h>

#include "csp_internal.h"

static struct coir_chan *raw(const csp_gochan_t *ch) { return (struct coir_chan *)(uintptr_t)ch; }

csp_gochan_t *csp_gochan_new(size_t cap) {
  struct coir_chan *c = coir_chan_create(sizeof(void *), cap);
  if (!c) csp__fail(-ENOMEM);
  return (csp_gochan_t *)c;
}

void csp_gochan_free(csp_gochan_t *ch) { coir_chan_unref(raw(ch)); }

void csp_gochan_close(csp_gochan_t *ch) { coir_chan_close(raw(ch)); }

/* What is asked of no channel never comes: only a fiber that is cancelled returns, and who does not want to wait. */
static __attribute__((noinline, cold)) int ask_nobody(int64_t deadline) {
  coir_select(NULL, 0, deadline);
  return -EINVAL;
}

/* All that these need is a jump. */

int csp__gochan_send(csp_gochan_t *ch, void *const *val, int64_t deadline) {
  return __builtin_expect(!ch, 0) ? ask_nobody(deadline) : coir_chan_send(raw(ch), val, deadline);
}

int csp__gochan_recv(csp_gochan_t *ch, void **val, int64_t deadline) {
  return __builtin_expect(!ch, 0) ? ask_nobody(deadline) : coir_chan_recv(raw(ch), val, deadline);
}

size_t csp_gochan_len(const csp_gochan_t *ch) { return coir_chan_length(raw(ch)); }
size_t csp_gochan_cap(const csp_gochan_t *ch) { return coir_chan_capacity(raw(ch)); }

/* ---- Select ---------------------------------------------------------------------------------------------------- */

/* One case's arm, of which only the fields are set that count for its kind. False: there is no such operation. */
static inline bool arm_set(struct coir_arm *arm, csp_select_case_t *c) {
  arm->object = c->op == CSP_DEFAULT ? NULL : c->ch; /* without an object it is never ready */
  arm->kind = c->op == CSP_SEND ? COIR_ARM_SEND : COIR_ARM_RECV;
  arm->value = c->op == CSP_SEND ? (void *)&c->val : c->val; /* the value to send is `val` itself */
  return (unsigned)c->op <= CSP_DEFAULT;
}

/* Returns the index of the case, or a negative code. `ok` may be NULL. */
static inline int choose(csp_select_case_t *cases, struct coir_arm *arms, int n, bool *ok) {
  int fallback = -1;
  for (int i = 0; i < n; i++) {
    if (!arm_set(&arms[i], &cases[i])) return -EINVAL;
    if (cases[i].op == CSP_DEFAULT && fallback < 0) fallback = i;
  }
  int chosen = coir_select(arms, (size_t)n, fallback < 0 ? COIR_NEVER : 0);
  if (chosen == -ETIMEDOUT) return fallback;
  if (chosen >= 0 && arms[chosen].result != 0) {
    if (ok) *ok = false;
    if (cases[chosen].op == CSP_RECV && cases[chosen].val) *cases[chosen].val = NULL;
  }
  return chosen;
}

/* The arms of 32 cases are more than a page of stack, which a goroutine that waits for two or three of them need not
 * keep. */
#define FEW 8

static __attribute__((noinline)) int choose_of_some(csp_select_case_t *cases, int n, bool *ok) {
  struct coir_arm arms[CSP_SELECT_MAX];
  return choose(cases, arms, n, ok);
}

static __attribute__((noinline)) int choose_of_many(csp_select_case_t *cases, int n, bool *ok) {
  if (n < 0 || n > COIR_ARMS_MAX) return -EINVAL;
  struct coir_arm *arms = malloc((size_t)n * sizeof *arms);
  int rc = arms ? choose(cases, arms, n, ok) : -ENOMEM;
  free(arms);
  return rc;
}

int csp_select_ok(csp_select_case_t *cases, int n, bool *ok) {
  struct coir_arm few[FEW];
  int rc;
  if (ok) *ok = true;
  if (__builtin_expect((unsigned)n <= FEW, 1)) rc = choose(cases, few, n, ok);
  else rc = (unsigned)n <= CSP_SELECT_MAX ? choose_of_some(cases, n, ok) : choose_of_many(cases, n, ok);
  if (__builtin_expect(rc >= 0, 1)) return rc;
  csp__fail(rc);
  return -1;
}

int csp_select(csp_select_case_t *cases, int n) { return csp_select_ok(cases, n, NULL); }

void csp_select_add(csp_select_list_t *list, csp_gochan_t *ch, csp_select_op_t op, void **val) {
  if (list->n >= CSP_SELECT_MAX) csp__die("a select of more than %d cases; csp_select takes more", CSP_SELECT_MAX);
  list->cases[list->n++] = (csp_select_case_t){.ch = ch, .op = op, .val = val};
}
