/* select_example.c: one select that receives or sends, whichever can go on.
 *
 * It is run twice. First somebody sends on ch1, and nobody receives from ch2; then it is the other way round. */
#include <csp.h>

static csp_gochan_t *ch1, *ch2, *report;

static void sends_on_ch1(void *text) { csp_gochan_send(ch1, text); }

static void receives_from_ch2(void *unused) {
  (void)unused;
  csp_gochan_send(report, csp_gochan_recv(ch2, NULL));
}

static int select_once(void **received, char *sent) {
  void *v1 = NULL;
  char *v2 = sent;

  /* clang-format off */
  csp_select_case_t cases[2];
  cases[0] = (csp_select_case_t){ .ch = ch1, .op = CSP_RECV, .val = &v1 };
  cases[1] = (csp_select_case_t){ .ch = ch2, .op = CSP_SEND, .val = (void**)v2 };

  int chosen = csp_select(cases, 2);
  /* clang-format on */

  *received = v1;
  return chosen;
}

int main(void) {
  static char one[] = "one", two[] = "two";
  void *received;
  ch1 = csp_gochan_new(0);
  ch2 = csp_gochan_new(0);
  report = csp_gochan_new(1);

  csp_proc_create(0, sends_on_ch1, one);
  printf("case %d, ", select_once(&received, two));
  printf("received \"%s\"\n", (char *)received);

  csp_proc_create(0, receives_from_ch2, NULL);
  printf("case %d, ", select_once(&received, two));
  printf("the other one has \"%s\"\n", (char *)csp_gochan_recv(report, NULL));
  return 0;
}
