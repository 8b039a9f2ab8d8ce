/* generator.c: iter.Pull: values one at a time from code that runs as if it had nothing else to do. */
#include <stdio.h>

#include "coir.h"

static int fibonacci(void *arg) {
  (void)arg;
  for (intptr_t a = 0, b = 1; coir_gen_yield((void *)a, NULL) == 0;) {
    intptr_t next = a + b;
    a = b;
    b = next;
  }
  printf("fibonacci is told to stop\n");
  return 0;
}

struct tree {
  int value;
  const struct tree *left, *right;
};

/* Yields from any depth of the recursion. Returns false when the walk is to stop. */
static bool walk(const struct tree *tree) {
  return !tree || (walk(tree->left) && coir_gen_yield((void *)&tree->value, NULL) == 0 && walk(tree->right));
}

static int walk_tree(void *tree) {
  walk(tree);
  return 0;
}

/* Whether two trees hold the same values in the same order, whatever their shapes. */
static bool same(const struct tree *a, const struct tree *b) {
  struct coir_gen *one = NULL, *other = NULL;
  void *x, *y;
  bool is_same = false;
  if (coir_gen_create(&one, walk_tree, (void *)a, NULL) == 0 &&
      coir_gen_create(&other, walk_tree, (void *)b, NULL) == 0) {
    int rc, other_rc;
    do {
      rc = coir_gen_resume(one, NULL, &x);
      other_rc = coir_gen_resume(other, NULL, &y);
    } while (rc == 0 && other_rc == 0 && *(int *)x == *(int *)y);
    is_same = rc == 1 && other_rc == 1; /* both have ended */
  }
  coir_gen_destroy(one);
  coir_gen_destroy(other);
  return is_same;
}

static int first(void *arg) {
  static const struct tree t1 = {1, NULL, NULL}, t3 = {3, NULL, NULL}, t4 = {4, NULL, NULL}, t12 = {2, &t1, NULL};
  static const struct tree wide = {2, &t1, &t3}, deep = {3, &t12, NULL}, odd = {2, &t1, &t4};
  struct coir_gen *gen;
  void *value;
  (void)arg;
  if (coir_gen_create(&gen, fibonacci, NULL, NULL) != 0) return 1;
  for (int i = 0; i < 10 && coir_gen_resume(gen, NULL, &value) == 0; i++) printf("%d\n", (int)(intptr_t)value);
  coir_gen_destroy(gen);
  printf("the same: %s\n", same(&wide, &deep) ? "true" : "false");
  printf("the same: %s\n", same(&wide, &odd) ? "true" : "false");
  return 0;
}

int main(void) { return coir_run(first, NULL); }
