/* classic_series.c: power series as streams, after M. Douglas McIlroy's "Squinting at Power Series" (1990).
 *
 * A series is a channel that carries its coefficients, exact rational numbers, from that of x^0 on. An operation is a
 * fiber that reads series and writes one. A function that is defined by itself, such as e^x = 1 + integral of e^x, is a
 * loop of channels: the integral knows its first coefficient without reading anything, and that starts the loop.
 *
 * Each fiber makes as many coefficients as it is told to, and ends. A channel has room for all that are ever wanted, so
 * nobody waits for a reader that wants no more. A series has one writer and one reader, with a reference each. */
#include "harness.h"

enum { TERMS = 16, IN_MAX = 2, OUT_MAX = 3 };

/* ---- Rational numbers ------------------------------------------------------------------------------------------- */

__extension__ typedef __int128 wide;

struct ratio {
  int64_t num, den; /* in lowest terms, den > 0 */
};

static struct ratio ratio(wide num, wide den) {
  wide a = num < 0 ? -num : num, b = den;
  while (b != 0) {
    wide rest = a % b;
    a = b, b = rest;
  }
  num /= a, den /= a;
  CHECK(den > 0 && den <= INT64_MAX && num <= INT64_MAX && num >= -INT64_MAX);
  return (struct ratio){(int64_t)num, (int64_t)den};
}

static struct ratio sum(struct ratio a, struct ratio b) {
  return ratio((wide)a.num * b.den + (wide)b.num * a.den, (wide)a.den * b.den);
}

static struct ratio product(struct ratio a, struct ratio b) { return ratio((wide)a.num * b.num, (wide)a.den * b.den); }

/* ---- Fibers that make series ------------------------------------------------------------------------------------ */

typedef COIR_CHAN(struct ratio) series;

struct op {
  int terms; /* coefficients to make */
  series in[IN_MAX], out[OUT_MAX];
  struct ratio number;
};

static series series_make(void) {
  series s = COIR_CHAN_CREATE(struct ratio, TERMS);
  CHECK(s != NULL);
  coir_chan_ref(COIR_CHAN_RAW(s)); /* one for the writer, one for the reader */
  return s;
}

static struct ratio get(series s) {
  struct ratio r;
  CHECK_EQ(COIR_RECV(s, &r, COIR_NEVER), 0);
  return r;
}

static void put(series s, struct ratio r) { CHECK_EQ(COIR_SEND(s, &r, COIR_NEVER), 0); }

/* Starts fn on a copy of `op`; makes the output unless it is given. Returns the output. */
static series start(coir_fn fn, struct op op) {
  struct op *copy = malloc(sizeof *copy);
  CHECK(copy != NULL);
  if (!op.out[0]) op.out[0] = series_make();
  *copy = op;
  CHECK_EQ(coir_go(fn, copy), 0);
  return op.out[0];
}

static int op_end(struct op *op) {
  for (int i = 0; i < IN_MAX; i++) coir_chan_unref(COIR_CHAN_RAW(op->in[i]));
  for (int i = 0; i < OUT_MAX; i++) coir_chan_unref(COIR_CHAN_RAW(op->out[i]));
  free(op);
  return 0;
}

static int run_split(void *arg) {
  struct op *op = arg;
  for (int n = 0; n < op->terms; n++) {
    struct ratio r = get(op->in[0]);
    for (int i = 0; i < OUT_MAX; i++)
      if (op->out[i]) put(op->out[i], r);
  }
  return op_end(op);
}

static int run_add(void *arg) {
  struct op *op = arg;
  for (int n = 0; n < op->terms; n++) {
    struct ratio a = get(op->in[0]);
    put(op->out[0], sum(a, get(op->in[1])));
  }
  return op_end(op);
}

static int run_scale(void *arg) {
  struct op *op = arg;
  for (int n = 0; n < op->terms; n++) put(op->out[0], product(op->number, get(op->in[0])));
  return op_end(op);
}

static int run_shift(void *arg) {
  struct op *op = arg;
  for (int n = 0; n < op->terms; n++) put(op->out[0], n == 0 ? op->number : get(op->in[0]));
  return op_end(op);
}

static int run_integral(void *arg) {
  struct op *op = arg;
  for (int n = 0; n < op->terms; n++) put(op->out[0], n == 0 ? op->number : product(ratio(1, n), get(op->in[0])));
  return op_end(op);
}

static int run_multiply(void *arg);

/* Copies `f` to two or three readers; `c` may be NULL. */
static void split(int terms, series f, series a, series b, series c) {
  start(run_split, (struct op){terms, {f}, {a, b, c}, {0, 1}});
}
static series add(int terms, series f, series g) { return start(run_add, (struct op){terms, {f, g}, {0}, {0, 1}}); }
static series scale(int terms, struct ratio k, series f) { return start(run_scale, (struct op){terms, {f}, {0}, k}); }
static series multiply(int terms, series f, series g) {
  return start(run_multiply, (struct op){terms, {f, g}, {0}, {0, 1}});
}

/* k + x f, and k + the integral of f: both have their first coefficient before they read one. */
static series shift(int terms, struct ratio k, series f) { return start(run_shift, (struct op){terms, {f}, {0}, k}); }
static series integral(int terms, struct ratio k, series f) {
  return start(run_integral, (struct op){terms, {f}, {0}, k});
}

/* With F = f + x F' and G = g + x G', the product is f g + x (f G' + g F' + x F' G'): one number, and then the terms of
 * a sum in which the product of the tails is one more fiber like this one. */
static int run_multiply(void *arg) {
  struct op *op = arg;
  int rest = op->terms - 1;
  if (rest < 0) return op_end(op);
  struct ratio f = get(op->in[0]), g = get(op->in[1]);
  put(op->out[0], product(f, g));
  if (rest > 0) {
    series f1 = series_make(), f2 = series_make(), g1 = series_make(), g2 = series_make();
    split(rest, op->in[0], f1, f2, NULL);
    split(rest, op->in[1], g1, g2, NULL);
    series cross = add(rest, scale(rest, f, g1), scale(rest, g, f1));
    series tails = shift(rest, ratio(0, 1), multiply(rest - 1, f2, g2));
    start(run_add, (struct op){rest, {cross, tails}, {op->out[0]}, {0, 1}});
    free(op); /* its series have gone to others */
    return 0;
  }
  return op_end(op);
}

/* ---- Functions -------------------------------------------------------------------------------------------------- */

/* e^(k x) = 1 + the integral of k e^(k x) */
static series exponential(struct ratio k) {
  series out = series_make(), back = series_make();
  split(TERMS, integral(TERMS, ratio(1, 1), scale(TERMS - 1, k, back)), out, back, NULL);
  return out;
}

/* tan x = the integral of 1 + (tan x)^2 = x + the integral of (tan x)^2 */
static series tangent(void) {
  series out = series_make(), a = series_make(), b = series_make(), x = series_make();
  for (int n = 0; n < TERMS; n++) put(x, ratio(n == 1, 1));
  coir_chan_unref(COIR_CHAN_RAW(x)); /* as its writer */
  series square = integral(TERMS, ratio(0, 1), multiply(TERMS - 1, a, b));
  split(TERMS, add(TERMS, x, square), out, a, b);
  return out;
}

/* sin x = the integral of cos x, cos x = 1 + the integral of -sin x: one loop through both. Each comes twice. */
static void sine_and_cosine(series sine[2], series cosine[2]) {
  series to_sine = series_make(), to_cosine = series_make();
  for (int i = 0; i < 2; i++) sine[i] = series_make(), cosine[i] = series_make();
  split(TERMS, integral(TERMS, ratio(0, 1), to_sine), sine[0], sine[1], to_cosine);
  split(TERMS, integral(TERMS, ratio(1, 1), scale(TERMS - 1, ratio(-1, 1), to_cosine)), cosine[0], cosine[1], to_sine);
}

/* ---- Checks ----------------------------------------------------------------------------------------------------- */

static void check_next(series s, struct ratio expected) {
  struct ratio r = get(s);
  CHECK_EQ(r.num, expected.num);
  CHECK_EQ(r.den, expected.den);
}

static int check_exponential(void *arg) {
  series s = exponential(ratio(1, 1)), twice = exponential(ratio(2, 1));
  wide factorial = 1, power = 1;
  (void)arg;
  for (int n = 0; n < TERMS; n++) {
    check_next(s, ratio(1, factorial));
    check_next(twice, ratio(power, factorial));
    factorial *= n + 1;
    power *= 2;
  }
  coir_chan_unref(COIR_CHAN_RAW(s));
  coir_chan_unref(COIR_CHAN_RAW(twice));
  return 0;
}

static int check_tangent(void *arg) {
  static const struct ratio known[TERMS] = {
      {0, 1}, {1, 1},     {0, 1}, {1, 3},         {0, 1}, {2, 15},          {0, 1}, {17, 315},
      {0, 1}, {62, 2835}, {0, 1}, {1382, 155925}, {0, 1}, {21844, 6081075}, {0, 1}, {929569, 638512875}};
  series s = tangent();
  (void)arg;
  for (int n = 0; n < TERMS; n++) check_next(s, known[n]);
  coir_chan_unref(COIR_CHAN_RAW(s));
  return 0;
}

/* e^x e^-x = 1 and (sin x)^2 + (cos x)^2 = 1, coefficient by coefficient. */
static int check_identities(void *arg) {
  series sine[2], cosine[2];
  sine_and_cosine(sine, cosine);
  series a = multiply(TERMS, exponential(ratio(1, 1)), exponential(ratio(-1, 1)));
  series b = add(TERMS, multiply(TERMS, sine[0], sine[1]), multiply(TERMS, cosine[0], cosine[1]));
  (void)arg;
  for (int n = 0; n < TERMS; n++) {
    check_next(a, ratio(n == 0, 1));
    check_next(b, ratio(n == 0, 1));
  }
  coir_chan_unref(COIR_CHAN_RAW(a));
  coir_chan_unref(COIR_CHAN_RAW(b));
  return 0;
}

static void test_exponential(void **state) {
  (void)state;
  CHECK_EQ(run(check_exponential, NULL), 0);
}

static void test_tangent(void **state) {
  (void)state;
  CHECK_EQ(run(check_tangent, NULL), 0);
}

static void test_identities(void **state) {
  (void)state;
  CHECK_EQ(run(check_identities, NULL), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_exponential), cmocka_unit_test(test_tangent),
                                     cmocka_unit_test(test_identities)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
