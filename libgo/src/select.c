/* Select: coir_select does the waiting, and the draw among what is ready. */
#include "internal.h"

#define CASES_ON_STACK 8 /* more are allocated */

static struct coir_arm arm_of(GoSelectCase *c) {
  if (c->chan && c->op == GO_SELECT_SEND) return coir_arm_send(c->chan->chan, &c->value);
  if (c->chan && c->op == GO_SELECT_RECEIVE) return coir_arm_recv(c->chan->chan, c->recv_buf);
  return (struct coir_arm){.kind = COIR_ARM_NONE};
}

static void end_case(const GoSelectCase *c, const struct coir_arm *arm, bool is_chosen) {
  bool is_done = is_chosen && arm->result == 0;
  if (arm->kind == COIR_ARM_SEND) go__channel_end_send(c->chan, is_done);
  if (arm->kind != COIR_ARM_RECV) return;
  if (is_chosen && !is_done && c->recv_buf) *c->recv_buf = NULL;
  go_channel_unref(c->chan);
}

/* Returns an index, and in `*ok` whether it was done; or a negative errno. */
static int select_until(GoSelectCase *cases, size_t n, int64_t deadline, bool *ok) {
  struct coir_arm few[CASES_ON_STACK], *arms = few;
  size_t valid = 0;
  *ok = false;
  if (n == 0 || n > COIR_ARMS_MAX) return -EINVAL;
  if (n > CASES_ON_STACK && !(arms = malloc(n * sizeof *arms))) return -ENOMEM;
  for (size_t i = 0; i < n; i++) {
    arms[i] = arm_of(&cases[i]);
    if (arms[i].kind == COIR_ARM_SEND) go__channel_begin_send(cases[i].chan);
    else if (arms[i].kind == COIR_ARM_RECV) go_channel_ref(cases[i].chan);
    valid += arms[i].kind != COIR_ARM_NONE;
  }
  int rc = valid ? coir_select(arms, n, deadline) : -EINVAL;
  if (rc >= 0) *ok = arms[rc].result == 0;
  for (size_t i = 0; i < n; i++) end_case(&cases[i], &arms[i], rc >= 0 && (size_t)rc == i);
  if (arms != few) free(arms);
  return rc;
}

int go_select(GoSelectCase *cases, size_t n) {
  bool ok;
  int rc = select_until(cases, n, COIR_NEVER, &ok);
  return rc < 0 ? go__fail(-rc) : rc;
}

GoSelectResult go_select_timeout(GoSelectCase *cases, size_t n, uint64_t timeout_ms) {
  GoSelectResult result;
  int rc = select_until(cases, n, timeout_ms ? coir_after(go__ms(timeout_ms)) : 0, &result.ok);
  result.selected_case = rc < 0 ? go__fail(-rc) : rc;
  return result;
}
