/* The smallest program, as those who use the interface write it: strict C11, and nothing but the repository's root to
 * find the header. */
#include "libgo/fiber/include/libgo/fiber.h"
#include <stdio.h>

static int said;

static void hello(void *arg) {
  (void)arg;
  said += printf("hello from fiber!\n") > 0;
}

int main(void) {
  gof_init(0);
  gof_spawn(hello, NULL, 0);
  gof_run();
  return said == 1 ? 0 : 1;
}
