/* classic_chameneos.c: creatures that meet in pairs and change their colour.
 *
 * A creature enters the mall through a channel. The mall takes in two at a time; each learns whom it met, and both take
 * the colour that neither has, or keep theirs when they are of one. After the last meeting the door is closed, which
 * is how the others learn that it is over. Every meeting counts for two. */
#include "harness.h"

enum colour { BLUE, RED, YELLOW };
enum { MEETINGS = 6000, CREATURES_MAX = 10 };

struct greeting {
  int partner;
  enum colour colour; /* the partner's */
};

struct creature {
  int number;
  enum colour colour;
  COIR_CHAN(struct creature *) door;
  COIR_CHAN(struct greeting) hand;
  int meetings, meetings_with_itself;
};

static enum colour complement(enum colour a, enum colour b) {
  return a == b ? a : (enum colour)(BLUE + RED + YELLOW - a - b);
}

static int live(void *arg) {
  struct creature *me = arg;
  struct greeting met;
  int rc;
  while ((rc = COIR_SEND(me->door, &me, COIR_NEVER)) == 0) {
    CHECK_EQ(COIR_RECV(me->hand, &met, COIR_NEVER), 0);
    me->colour = complement(me->colour, met.colour);
    me->meetings++;
    if (met.partner == me->number) me->meetings_with_itself++;
  }
  CHECK_EQ(rc, -EPIPE);
  return 0;
}

/* Lets pairs meet, `meetings` times. */
static void mall(COIR_CHAN(struct creature *) door, int meetings) {
  for (int i = 0; i < meetings; i++) {
    struct creature *a, *b;
    CHECK_EQ(COIR_RECV(door, &a, COIR_NEVER), 0);
    CHECK_EQ(COIR_RECV(door, &b, COIR_NEVER), 0);
    struct greeting from_a = {a->number, a->colour}, from_b = {b->number, b->colour};
    CHECK_EQ(COIR_SEND(a->hand, &from_b, COIR_NEVER), 0);
    CHECK_EQ(COIR_SEND(b->hand, &from_a, COIR_NEVER), 0);
  }
  coir_chan_close(COIR_CHAN_RAW(door));
}

/* Writes the digits of `n` as words, a space before each. */
static const char *spell(int n, char *text) {
  static const char *const words[] = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"};
  char digits[16];
  snprintf(digits, sizeof digits, "%d", n);
  *text = 0;
  for (const char *d = digits; *d; d++) strcat(strcat(text, " "), words[*d - '0']);
  return text;
}

struct game {
  int count;
  enum colour colours[CREATURES_MAX];
};

static int play(void *arg) {
  const struct game *game = arg;
  struct creature creatures[CREATURES_MAX];
  struct coir_fiber *fibers[CREATURES_MAX];
  COIR_CHAN(struct creature *) door = COIR_CHAN_CREATE(struct creature *, 0);
  int sum = 0;
  char text[64];
  for (int i = 0; i < game->count; i++) {
    creatures[i] = (struct creature){i, game->colours[i], door, COIR_CHAN_CREATE(struct greeting, 0), 0, 0};
    fibers[i] = spawn(live, &creatures[i]);
  }
  mall(door, rounds(MEETINGS));
  for (int i = 0; i < game->count; i++) {
    CHECK_EQ(join(fibers[i]), 0);
    CHECK_EQ(creatures[i].meetings_with_itself, 0);
    sum += creatures[i].meetings;
    coir_chan_unref(COIR_CHAN_RAW(creatures[i].hand));
  }
  CHECK_EQ(sum, 2 * rounds(MEETINGS));
  CHECK_EQ(strcmp(spell(sum, text), IS_SANITIZED ? " one two zero zero" : " one two zero zero zero"), 0);
  coir_chan_unref(COIR_CHAN_RAW(door));
  return 0;
}

static void test_three(void **state) {
  struct game game = {3, {BLUE, RED, YELLOW}};
  (void)state;
  CHECK_EQ(run(play, &game), 0);
}

static void test_ten(void **state) {
  struct game game = {10, {BLUE, RED, YELLOW, RED, YELLOW, BLUE, RED, YELLOW, RED, BLUE}};
  (void)state;
  CHECK_EQ(run(play, &game), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_three), cmocka_unit_test(test_ten)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
