/* A fault that simulation finds: an update is lost when two tellers meet between two sections of a lock.
 *
 * usage: lost_update [fixed]
 *
 * Each of four tellers pays in ten times, a unit at a time. Reading and writing are each done under the lock, so no
 * sanitizer objects; but what was read may be old by the time it is written. Run like this it nearly always ends well:
 * the lock is free in between for some nanoseconds. Under `coir-sim lost_update` it fails within a few seeds, and with
 * that seed each time. */
#include <stdio.h>
#include <string.h>

#include "coir.h"

#define TELLERS 4
#define PAYMENTS 10

static struct coir_mutex lock;
static int balance;
static bool is_fixed;

static int pay_in(int amount) {
  int rc = coir_mutex_lock(&lock, COIR_NEVER);
  if (rc) return rc;
  int seen = balance;
  if (!is_fixed) {
    coir_mutex_unlock(&lock); /* the fault */
    rc = coir_mutex_lock(&lock, COIR_NEVER);
    if (rc) return rc;
  }
  balance = seen + amount;
  coir_mutex_unlock(&lock);
  return 0;
}

static int teller(void *unused) {
  (void)unused;
  for (int i = 0; i < PAYMENTS; i++) {
    int rc = pay_in(1);
    if (!rc) rc = coir_sleep(COIR_US(100)); /* the next customer */
    if (rc) return rc;
  }
  return 0;
}

static int bank(void *unused) {
  (void)unused;
  struct coir_fiber *tellers[TELLERS];
  for (int i = 0; i < TELLERS; i++) {
    int rc = coir_spawn(teller, NULL, &(struct coir_attr){.name = "teller"}, &tellers[i]);
    if (rc) return rc;
  }
  for (int i = 0; i < TELLERS; i++) {
    int rc = coir_join(tellers[i], NULL, COIR_NEVER);
    if (rc) return rc;
  }
  printf("paid in: %d, balance: %d\n", TELLERS * PAYMENTS, balance);
  return balance == TELLERS * PAYMENTS ? 0 : 1;
}

int main(int argc, char **argv) {
  is_fixed = argc > 1 && !strcmp(argv[1], "fixed");
  return coir_run(bank, NULL);
}
