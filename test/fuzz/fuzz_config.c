/* The configuration of a runtime: any struct, with any text in any COIR_* variable, becomes values in range, or -EINVAL
 * where coir.h says so; and what is not understood is reported, once for each variable.
 *
 * The table below says once more, independently of src/config.c, what docs/configuration.md says. */
#include "fuzz.h"

#include "internal.h"

enum kind { NUMBER, BYTES, SWITCH, WORD };

#define FIELD(name) offsetof(struct coir_config, name)
static const struct field {
  const char *variable;
  size_t at;
  enum kind kind;
  int64_t standard, min, max;
  const char *words[5];
} fields[] = {
    {"COIR_WORKERS", FIELD(workers), NUMBER, -1, 1, 64, {0}}, /* by default as many as there are CPUs */
    {"COIR_STACK_BYTES", FIELD(stack_bytes), BYTES, 262144, 16384, 1073741824, {0}},
    {"COIR_STACK_CACHE_MAX", FIELD(stack_cache_max), NUMBER, 64, 2, 1048576, {0}},
    {"COIR_STACK_KEEP_BYTES", FIELD(stack_keep_bytes), BYTES, 65536, 4096, 1073741824, {0}},
    {"COIR_GUARD", FIELD(guard), WORD, 0, 0, 3, {"auto", "madvise", "mprotect", "canary"}},
    {"COIR_GUARDS_MAX", FIELD(guards_max), NUMBER, 16384, 1, 1073741824, {0}},
    {"COIR_POLLERS", FIELD(pollers), NUMBER, 0, 0, 64, {0}},
    {"COIR_POLL_PARTITION", FIELD(poll_partition), SWITCH, 1, 0, 1, {0}},
    {"COIR_STEAL", FIELD(steal), SWITCH, 1, 0, 1, {0}},
    {"COIR_STEAL_MIN_LIVE", FIELD(steal_min_live), NUMBER, 0, 0, 1073741824, {0}},
    {"COIR_STEAL_MIN_VICTIM", FIELD(steal_min_victim), NUMBER, 1, 1, 1073741824, {0}},
    {"COIR_AFFINITY", FIELD(affinity), SWITCH, 0, 0, 1, {0}},
    {"COIR_REBALANCE", FIELD(rebalance), SWITCH, 0, 0, 1, {0}},
    {"COIR_REBALANCE_THRESHOLD", FIELD(rebalance_threshold), NUMBER, 4, 1, 1073741824, {0}},
    {"COIR_REBALANCE_INTERVAL_MS", FIELD(rebalance_interval_ms), NUMBER, 10, 1, 1073741824, {0}},
    {"COIR_SPARES_MAX", FIELD(spares_max), NUMBER, 256, 1, 16384, {0}},
    {"COIR_MONITOR", FIELD(monitor), SWITCH, 1, 0, 1, {0}},
    {"COIR_BLOCKED_US", FIELD(blocked_us), NUMBER, 1000, 50, 1000000, {0}},
    {"COIR_BUSY_US", FIELD(busy_us), NUMBER, 10000, 50, 1000000, {0}},
    {"COIR_PREEMPT", FIELD(preempt), SWITCH, 0, 0, 1, {0}},
    {"COIR_QUANTUM_US", FIELD(quantum_us), NUMBER, 10000, 50, 1000000, {0}},
    {"COIR_PREEMPT_SIGNAL", FIELD(preempt_signal), NUMBER, SIGURG, 1, 64, {0}},
    {"COIR_MIGRATE", FIELD(migrate), SWITCH, 0, 0, 1, {0}},
    {"COIR_IO_URING", FIELD(io_uring), SWITCH, 1, 0, 1, {0}},
    {"COIR_SIM_SEED", FIELD(sim_seed), NUMBER, 0, 0, 1073741824, {0}},
    {"COIR_SIM_FAULTS", FIELD(sim_faults), NUMBER, 0, 0, 1000, {0}},
    {"COIR_SIM_LOG", FIELD(sim_log), NUMBER, 0, 0, 2, {0}},
    {"COIR_DEADLOCK", FIELD(deadlock), WORD, 0, 0, 2, {"report", "abort", "ignore"}},
};
enum { FIELDS = sizeof fields / sizeof *fields, TEXT_MAX = 48 };

/* What a simulated runtime does not have, whatever was asked for. */
static bool is_real(const struct field *f) {
  static const size_t real[] = {FIELD(pollers), FIELD(steal),   FIELD(affinity), FIELD(rebalance),
                                FIELD(migrate), FIELD(monitor), FIELD(preempt),  FIELD(io_uring)};
  for (size_t i = 0; i < sizeof real / sizeof *real; i++)
    if (f->at == real[i]) return true;
  return false;
}

static int64_t get(const struct coir_config *c, const struct field *f) {
  const char *at = (const char *)c + f->at;
  if (f->kind != BYTES) return *(const int *)at;
  size_t v = *(const size_t *)at;
  return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

static void put(struct coir_config *c, const struct field *f, uint64_t value) {
  char *at = (char *)c + f->at;
  if (f->kind == BYTES) *(size_t *)at = value;
  else *(int *)at = (int)value;
}

static int64_t into_range(const struct field *f, int64_t v) { return v < f->min ? f->min : v > f->max ? f->max : v; }

/* ---- What a text means ----------------------------------------------------------------------------------------- */

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A decimal number, perhaps with blanks and a sign before it; one that is too large is as large as it gets. */
static bool means_number(const char *text, int64_t *out) {
  while (is_blank(*text)) text++;
  bool is_negative = *text == '-';
  if (*text == '-' || *text == '+') text++;
  if (!*text) return false;
  int64_t v = 0;
  for (; *text; text++) {
    if (*text < '0' || *text > '9') return false;
    if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *text - '0', &v)) v = INT64_MAX / 10 * 10;
    if (v > INT64_C(1) << 40) v = INT64_C(1) << 40; /* beyond every range */
  }
  *out = is_negative ? -v : v;
  return true;
}

static bool means(const struct field *f, const char *text, int64_t *out) {
  if (f->kind != WORD) return means_number(text, out);
  for (int i = 0; f->words[i]; i++)
    if (strcmp(text, f->words[i]) == 0) return *out = i, true;
  return false;
}

/* ---- Inputs ---------------------------------------------------------------------------------------------------- */

/* Texts that are nearly right are made more often than chance would. */
static void take_text(struct input *in, char *text) {
  static const char *const seeds[] = {
      "1",    "0",      "-1",  "auto",     "canary",  "abort",    "4294967297",
      "0x10", "262144", " 7 ", "1e3",      "+5",      "report\n", "9223372036854775808",
      "64",   "65",     "--3", "mprotect", "madvise", "ignore",   "18446744073709551615"};
  uint32_t b = take(in);
  text[0] = 0;
  if (b % 4 == 0) return;
  if (b % 4 == 1) strcpy(text, seeds[below(in, sizeof seeds / sizeof *seeds)]);
  size_t n = strlen(text);
  for (uint32_t more = b % 4 == 2 ? below(in, 24) : below(in, 3); more > 0 && n + 1 < TEXT_MAX; more--) {
    uint32_t c = take(in);
    text[n++] = c & 128 ? (char)('0' + c % 10) : c & 64 ? (char)(1 + c % 63) : " +-0x.\t9"[c % 8];
  }
  text[n] = 0;
}

static uint64_t take_value(struct input *in) {
  uint32_t b = take(in);
  uint64_t v = (uint64_t)(below(in, 256) + 1) << (b / 4 % 64);
  return b % 4 == 0 ? 0 : b % 4 == 1 ? v : b % 4 == 2 ? v - 1 : -v;
}

/* ---- What must come out ---------------------------------------------------------------------------------------- */

static bool is_refused(const struct coir_config *c) {
  size_t size = c->size ? c->size : sizeof *c;
  if (size > sizeof *c || size < FIELD(stack_bytes)) return true;
  bool has_alloc = size >= FIELD(alloc) + sizeof c->alloc && c->alloc;
  bool has_free = size >= FIELD(free) + sizeof c->free && c->free;
  if (has_alloc != has_free) return true;
  for (int i = 0; i < FIELDS; i++) {
    const struct field *f = &fields[i];
    if (f->at + (f->kind == BYTES ? sizeof(size_t) : sizeof(int)) > size || f->kind == SWITCH) continue;
    int64_t v = get(c, f);
    if (v < 0 || (f->kind == WORD && v > f->max)) return true;
    if (f->at == FIELD(stack_bytes) && v && v != into_range(f, v)) return true;
  }
  return false;
}

static int64_t expected_of(const struct field *f, const struct coir_config *c, const char *text, int *complaints) {
  size_t size = c->size ? c->size : sizeof *c;
  bool is_there = f->at + (f->kind == BYTES ? sizeof(size_t) : sizeof(int)) <= size;
  int64_t v = is_there ? get(c, f) : 0, meant;
  if (v) return f->kind == SWITCH ? v > 0 : into_range(f, v);
  if (!text[0]) return f->standard;
  if (means(f, text, &meant)) return into_range(f, meant);
  ++*complaints;
  return f->standard;
}

static void check(const struct coir_config *in, char texts[FIELDS][TEXT_MAX], const struct coir_config *out,
                  const char *said) {
  int complaints = 0, lines = 0;
  for (int i = 0; i < FIELDS; i++) {
    int64_t expected = expected_of(&fields[i], in, texts[i], &complaints), value = get(out, &fields[i]);
    if (fields[i].at == FIELD(pollers)) expected = sooner_of(expected, out->workers);
    if (out->sim_seed && is_real(&fields[i])) expected = 0;
    if (expected == -1) CHECK(value >= 1 && value <= 64);
    else CHECK_EQ(value, expected);
  }
  CHECK_EQ(out->size, sizeof *out);
  for (const char *at = said; (at = strstr(at, "is not understood and ignored\n")) != NULL; at++) lines++;
  CHECK_EQ(lines, complaints);
}

static void *some_alloc(size_t bytes, void *arg) {
  (void)arg;
  return malloc(bytes);
}

static void some_free(void *memory, size_t bytes, void *arg) {
  (void)bytes, (void)arg;
  free(memory);
}

static void take_config(struct input *in, struct coir_config *c) {
  *c = (struct coir_config){0};
  for (uint32_t n = below(in, 6); n > 0; n--) put(c, &fields[below(in, FIELDS)], take_value(in));
  uint32_t b = take(in);
  c->size = b % 8 ? b & 8 ? sizeof *c : 0 : below(in, 64) * 8; /* an older header ends between two fields */
  if (b / 16 % 8 == 0) c->alloc = some_alloc;
  if (b / 16 % 8 <= 1) c->free = some_free;
  if (b / 16 % 8 == 1) c->alloc = some_alloc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static char texts[FIELDS][TEXT_MAX];
  struct input in = {data, data + bytes};
  struct coir_config config, filled;
  char *said;
  size_t said_bytes;
  memset(texts, 0, sizeof texts);
  take_config(&in, &config);
  for (int i = 0; i < FIELDS; i++) unsetenv(fields[i].variable);
  while (!is_over(&in)) {
    int i = (int)below(&in, FIELDS);
    take_text(&in, texts[i]);
    CHECK(setenv(fields[i].variable, texts[i], 1) == 0);
  }
  FILE *was = stderr;
  FILE *heard = open_memstream(&said, &said_bytes);
  CHECK(heard);
  stderr = heard;
  int rc = coir__config_fill(&filled, &config);
  stderr = was;
  fclose(heard);
  CHECK_EQ(rc, is_refused(&config) ? -EINVAL : 0);
  if (rc == 0) check(&config, texts, &filled, said);
  free(said);
  return 0;
}
