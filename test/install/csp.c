/* A user's program with goroutines. Exit status 0: all of it held. CSP_HEADER says how the header is found. */
#ifndef CSP_HEADER
#define CSP_HEADER <csp.h>
#endif
#include CSP_HEADER

static void doubles(void *arg) {
  csp_gochan_t **chans = (csp_gochan_t **)arg;
  intptr_t value = (intptr_t)csp_gochan_recv(chans[0], NULL);
  csp_hangup(2 * csp_timer_millisecond);
  csp_gochan_send(chans[1], (void *)(2 * value));
}

int main(void) {
  csp_gochan_t *chans[] = {csp_gochan_new(0), csp_gochan_new(1)};
  csp_timer_time_t before = csp_timer_now();
  void *value = NULL;
  if (!csp_proc_create(0, doubles, chans)) return 1;
  csp_gochan_send(chans[0], (void *)(intptr_t)21);
  csp_select_case_t cases[] = {{.ch = chans[1], .op = CSP_RECV, .val = &value}};
  if (csp_select(cases, 1) != 0 || (intptr_t)value != 42) return 2;
  return csp_timer_now() - before < 2 * csp_timer_millisecond ? 3 : 0;
}
