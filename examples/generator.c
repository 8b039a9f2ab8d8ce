/* generator.c: two trees are walked at the same time, and what they hold is merged in order.
 *
 * A walk is a plain recursive function that yields each key from wherever it is. Without generators one of the two
 * would have to keep a stack of its own by hand. */
#include <stdio.h>
#include <stdlib.h>

#include "coir.h"

struct node {
  struct node *left, *right;
  long key;
};

static void insert(struct node **at, struct node *n) {
  while (*at) at = n->key < (*at)->key ? &(*at)->left : &(*at)->right;
  *at = n;
}

/* A tree of the multiples of `step` up to `limit`, put in in a jumble. */
static struct node *plant(struct node *nodes, long step, long limit) {
  struct node *root = NULL;
  long count = limit / step;
  for (long i = 0; i < count; i++) {
    nodes[i].key = (1 + (i * 7) % count) * step; /* 7 and `count` have no common factor */
    insert(&root, &nodes[i]);
  }
  return root;
}

/* Yields every key below `n` in order. Returns below 0 when nobody wants more. */
static int walk(const struct node *n) {
  int rc = n->left ? walk(n->left) : 0;
  if (rc == 0) rc = coir_gen_yield((void *)n->key, NULL);
  if (rc == 0 && n->right) rc = walk(n->right);
  return rc;
}

static int walk_tree(void *root) { return walk(root); }

/* The next key of a walk, or one past all keys when it is over. */
static long next(struct coir_gen *gen) {
  void *key = NULL;
  return coir_gen_resume(gen, NULL, &key) == 0 ? (long)key : 1000;
}

static int first(void *arg) {
  static struct node nodes[2][100];
  struct coir_gen *threes, *fives;
  long both = 0, in_both = 0;
  (void)arg;
  if (coir_gen_create(&threes, walk_tree, plant(nodes[0], 3, 60), NULL)) return 1;
  if (coir_gen_create(&fives, walk_tree, plant(nodes[1], 5, 60), NULL)) return 1;
  for (long a = next(threes), b = next(fives); a < 60 || b < 60; both++) {
    long least = a < b ? a : b;
    printf("%ld ", least);
    in_both += a == b;
    if (a == least) a = next(threes);
    if (b == least) b = next(fives);
  }
  printf("\n%ld numbers below 60, %ld of them in both trees\n", both, in_both);
  coir_gen_destroy(threes); /* both still hold 60 in their hands: they are told to stop */
  coir_gen_destroy(fives);
  return 0;
}

int main(void) { return coir_run(first, NULL) != 0; }
