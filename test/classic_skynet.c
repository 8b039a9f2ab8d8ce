/* classic_skynet.c: a tree of fibers that adds up.
 *
 * Each fiber that stands for more than one number spawns ten, which send it their sums. Spawned last in, first out, the
 * tree is walked depth first, so that of the many fibers few live at a time. */
#include "harness.h"

enum { FANOUT = 10, LEAVES = IS_SANITIZED ? 1000 : 100000, STACK_BYTES = 32 << 10 };

struct node {
  COIR_CHAN(int64_t) up; /* the node's own reference */
  int64_t first, count;
};

static int skynet(void *arg);

static void spawn_node(struct node *node) {
  struct coir_attr attr = {.order = COIR_ORDER_LIFO, .stack_bytes = IS_SANITIZED ? 0 : STACK_BYTES};
  coir_chan_ref(COIR_CHAN_RAW(node->up));
  CHECK_EQ(coir_spawn(skynet, node, &attr, NULL), 0);
}

/* The parent's frame holds the node until the sum has been sent, and no longer. */
static int skynet(void *arg) {
  struct node me = *(struct node *)arg, children[FANOUT];
  int64_t sum = me.first, part;
  if (me.count > 1) {
    COIR_CHAN(int64_t) sums = COIR_CHAN_CREATE(int64_t, 0);
    CHECK(sums != NULL);
    sum = 0;
    for (int i = 0; i < FANOUT; i++) {
      children[i] = (struct node){sums, me.first + i * (me.count / FANOUT), me.count / FANOUT};
      spawn_node(&children[i]);
    }
    for (int i = 0; i < FANOUT; i++) {
      CHECK_EQ(COIR_RECV(sums, &part, COIR_NEVER), 0);
      sum += part;
    }
    coir_chan_unref(COIR_CHAN_RAW(sums));
  }
  CHECK_EQ(COIR_SEND(me.up, &sum, COIR_NEVER), 0);
  coir_chan_unref(COIR_CHAN_RAW(me.up));
  return 0;
}

static int first(void *arg) {
  struct node root = {COIR_CHAN_CREATE(int64_t, 0), 0, LEAVES};
  int64_t sum;
  (void)arg;
  spawn_node(&root);
  CHECK_EQ(COIR_RECV(root.up, &sum, COIR_NEVER), 0);
  CHECK_EQ(sum, (int64_t)LEAVES * (LEAVES - 1) / 2);
  coir_chan_unref(COIR_CHAN_RAW(root.up));
  return 0;
}

static void test_skynet(void **state) {
  (void)state;
  CHECK_EQ(run(first, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_skynet)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
