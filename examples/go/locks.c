/* locks.c: Mutex, RWMutex, Once and atomics. */
#include <stdatomic.h>
#include <stdio.h>

#include "coir.h"

enum { FIBERS = 8, ROUNDS = 1000 };

static struct {
  struct coir_once once;
  struct coir_mutex mutex;
  int count; /* under `mutex` */
  struct coir_rwlock lock;
  int price, stock; /* under `lock`; always the same */
  _Atomic(int) looks, torn;
} shop;

static void open_shop(void *arg) {
  (void)arg;
  printf("the shop opens\n");
}

static int customer(void *arg) {
  (void)arg;
  coir_once_do(&shop.once, open_shop, NULL, COIR_NEVER);
  for (int i = 0; i < ROUNDS; i++) {
    int rc = coir_mutex_lock(&shop.mutex, COIR_NEVER);
    if (rc != 0) return rc; /* -ECANCELED, were this fiber cancelled */
    shop.count++;
    coir_mutex_unlock(&shop.mutex);

    if (i % 10 == 0) {
      rc = coir_rwlock_write(&shop.lock, COIR_NEVER);
      if (rc != 0) return rc;
      shop.price++;
      shop.stock++;
      coir_rwlock_write_unlock(&shop.lock);
    } else {
      rc = coir_rwlock_read(&shop.lock, COIR_NEVER);
      if (rc != 0) return rc;
      atomic_fetch_add(&shop.looks, 1);
      if (shop.price != shop.stock) atomic_fetch_add(&shop.torn, 1);
      coir_rwlock_read_unlock(&shop.lock);
    }
  }
  return 0;
}

static int first(void *arg) {
  struct coir_scope *scope;
  (void)arg;
  int rc = coir_scope_open(&scope, 0, COIR_NEVER);
  if (rc != 0) return rc;
  for (int i = 0; i < FIBERS; i++) coir_scope_spawn(scope, customer, NULL, NULL, NULL);
  rc = coir_scope_close(scope);
  printf("count %d, price %d, looks %d, torn %d\n", shop.count, shop.price, shop.looks, shop.torn);
  return rc;
}

int main(void) { return coir_run(first, NULL); }
