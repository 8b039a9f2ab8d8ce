/* Fiber-local values: an array of COIR_KEYS_MAX pointers per fiber (or plain thread), made on first use. */
#include "internal.h"

#define DESTROY_ROUNDS 4

/* No lock: one that another thread holds while the process forks would stay held in the child. */
enum { FREE, CHANGING, USED };

static struct {
  _Atomic(uint32_t) used; /* (a) FREE, CHANGING: by whoever made it so, USED */
  _Atomic(uint32_t) life; /* counts its deletions: values stored in a former life do not count */
  void (*_Atomic destroy)(void *);
} keys[COIR_KEYS_MAX];

static bool key_is_valid(int key) { return key >= 0 && key < COIR_KEYS_MAX && atm_load_acq(&keys[key].used) == USED; }

int coir_key_create(void (*destroy)(void *value)) {
  atm_show(&coir__thread_ended, coir__locals_thread_ended); /* before a thread has a value; always the same */
  for (int i = 0; i < COIR_KEYS_MAX; i++) {
    uint32_t free = FREE;
    if (!atm_cas_ar(&keys[i].used, &free, CHANGING)) continue; /* pairs with the release in coir_key_delete */
    atomic_store_explicit(&keys[i].destroy, destroy, memory_order_release); /* pairs with coir__locals_destroy */
    atm_store_rel(&keys[i].used, USED); /* destroy before it; pairs with key_is_valid */
    return i;
  }
  return -EAGAIN;
}

int coir_key_delete(int key) {
  uint32_t used = USED;
  if (!key_is_valid(key) || !atm_cas_ar(&keys[key].used, &used, CHANGING)) return -EINVAL;
  atm_add_rlx(&keys[key].life, 1);
  atm_store_rel(&keys[key].used, FREE); /* the new life before it; pairs with coir_key_create */
  return 0;
}

/* Where the caller keeps its values; NULL when memory is short. A plain thread's belong to no runtime. */
static struct coir__local **locals_of_caller(struct coir_runtime **rt) {
  struct coir_fiber *f = coir__me();
  *rt = f ? f->rt : NULL;
  if (f) return &f->locals;
  struct coir__thread *t = coir__thread_get();
  return t ? &t->locals : NULL;
}

int coir_local_set(int key, void *value) {
  COIR_INSIDE;
  if (!key_is_valid(key)) return -EINVAL;
  struct coir_runtime *rt;
  struct coir__local **where = locals_of_caller(&rt);
  if (!where) return -ENOMEM;
  if (!*where) *where = coir__alloc(rt, COIR_KEYS_MAX * sizeof **where);
  if (!*where) return -ENOMEM;
  if (rt) coir__me()->b.more |= COIR__MORE_LOCALS;
  (*where)[key] = (struct coir__local){.value = value, .life = atm_load_rlx(&keys[key].life)};
  return 0;
}

void *coir_local_get(int key) {
  COIR_INSIDE;
  if (!key_is_valid(key)) return NULL;
  struct coir_runtime *rt;
  struct coir__local **where = locals_of_caller(&rt);
  if (!where || !*where) return NULL;
  struct coir__local *l = &(*where)[key];
  return l->life == atm_load_rlx(&keys[key].life) ? l->value : NULL;
}

/* A destructor may store values anew; they get DESTROY_ROUNDS chances, as with pthread_key_create. */
void coir__locals_destroy(struct coir__local *locals) {
  bool again = true;
  for (int round = 0; again && round < DESTROY_ROUNDS; round++) {
    again = false;
    for (int i = 0; i < COIR_KEYS_MAX; i++) {
      void *value = locals[i].value;
      locals[i].value = NULL;
      if (!value) continue;
      /* Before the look at the life: who finds the destructor of the key's next life finds that life, too. */
      void (*destroy)(void *) = atomic_load_explicit(&keys[i].destroy, memory_order_acquire);
      if (!destroy || !key_is_valid(i) || locals[i].life != atm_load_rlx(&keys[i].life)) continue;
      COIR_OUTSIDE(destroy(value));
      again = true;
    }
  }
}

void coir__locals_free(struct coir_runtime *rt, struct coir__local *locals) {
  if (locals) coir__free(rt, locals, COIR_KEYS_MAX * sizeof *locals);
}

/* Called by a plain thread that ends. */
void coir__locals_thread_ended(struct coir__thread *t) {
  if (!t->locals) return;
  coir__locals_destroy(t->locals);
  coir__locals_free(NULL, t->locals);
  t->locals = NULL;
}
