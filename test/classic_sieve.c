/* classic_sieve.c: the prime sieve, a chain of channels.
 *
 * One fiber sends 2, 3, 4 and so on without end. What comes out at the far end of the chain is a prime, and each prime
 * becomes one more filter there, which lets through what it does not divide. When enough primes have come out, the
 * scope is cancelled: every fiber of the chain gets -ECANCELED from its channel, and returns. */
#include "harness.h"

enum { PRIMES = 500, LAST_PRIME = 3571 };

struct filter {
  COIR_CHAN(int) in;
  COIR_CHAN(int) out;
  int prime;
};

static int generate(void *arg) {
  COIR_CHAN(int) out = arg;
  int rc = 0;
  for (int i = 2; rc == 0; i++) rc = COIR_SEND(out, &i, COIR_NEVER);
  CHECK_EQ(rc, -ECANCELED);
  return 0;
}

static int filter(void *arg) {
  const struct filter *f = arg;
  int i, rc;
  while ((rc = COIR_RECV(f->in, &i, COIR_NEVER)) == 0) {
    if (i % f->prime != 0 && (rc = COIR_SEND(f->out, &i, COIR_NEVER)) != 0) break;
  }
  CHECK_EQ(rc, -ECANCELED);
  return 0;
}

static bool is_prime(int n) {
  for (int i = 2; i * i <= n; i++)
    if (n % i == 0) return false;
  return n > 1;
}

static int sieve(void *arg) {
  static struct filter filters[PRIMES];
  int count = rounds(PRIMES), before = 1;
  struct coir_scope *scope;
  COIR_CHAN(int) end = COIR_CHAN_CREATE(int, 0);
  (void)arg;
  CHECK_EQ(coir_scope_open(&scope, 0, COIR_NEVER), 0);
  CHECK_EQ(coir_scope_spawn(scope, generate, end, NULL, NULL), 0);
  for (int n = 0; n < count; n++) {
    struct filter *f = &filters[n];
    f->in = end;
    f->out = end = COIR_CHAN_CREATE(int, 0);
    CHECK_EQ(COIR_RECV(f->in, &f->prime, COIR_NEVER), 0);
    CHECK_EQ(coir_scope_spawn(scope, filter, f, NULL, NULL), 0);
  }
  coir_scope_cancel(scope, 0);
  CHECK_EQ(coir_scope_close(scope), -ECANCELED);
  for (int n = 0; n < count; n++) {
    for (int i = before + 1; i <= filters[n].prime; i++) CHECK_EQ(is_prime(i), i == filters[n].prime);
    before = filters[n].prime;
    coir_chan_unref(COIR_CHAN_RAW(filters[n].in));
  }
  if (count == PRIMES) CHECK_EQ(before, LAST_PRIME);
  coir_chan_unref(COIR_CHAN_RAW(end));
  return 0;
}

static void test_sieve(void **state) {
  (void)state;
  CHECK_EQ(run(sieve, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sieve)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
