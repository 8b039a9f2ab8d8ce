/* Backtraces of fibers that wait.
 *
 * Goal: where each waiting fiber stands, while all of them go on: nobody is stopped, and nothing is added to the path
 * of a switch. Why it is hard: (1) a fiber may be woken while its stack is read, and run over it; it may end, and its
 * descriptor and its stack be another fiber's by then; (2) how to get from a frame to its caller is written in tables
 * that the compiler made, not on the stack, and a stack that was torn must not lead astray whoever follows them;
 * (3) libraries are loaded and unloaded, tables and all.
 *
 * Design.
 * (1) Copy first, then ask whether the copy is good. A fiber stands still as long as its claim word is the open word of
 *     the wait that it is parked in. Numbers of waits only grow, also from one life of a descriptor to the next
 *     (wait.c). So: look that it is parked, copy, and look at the claim word again: if it is the same, nobody has
 *     claimed the wait, so nobody has run on the stack. Between copy and second look stands a heavy fence: who runs on
 *     the stack came by a claim, and if a write of his was copied, that claim shows in the second look. It pairs with
 *     the light fences and the locks of the queues (runq.h, runq.c): each fiber passes one of them between the claim of
 *     its wait and its next step. (A pinned fiber may pass none. That matters only where light fences are real ones,
 *     for want of membarrier, and on processors that reorder stores: a wrong backtrace is then conceivable.)
 *     Reading cannot fault: the memory of a stack stays mapped as long as its runtime lives; guards lie below it, and
 *     what is given back to the system reads as zeros. A stack pointer that was read in a bad moment does not count
 *     unless it points into the stack.
 * (2) The rest works on the copy. Each frame's return address leads to the description of its function (.eh_frame, by
 *     the index in .eh_frame_hdr), a program in a small language (DWARF 5, 6.4, and the Linux Standard Base on
 *     .eh_frame) that says where the frame begins and where the caller's registers are. Every read of the stack is
 *     checked against the bounds of the copy, every read of a table against those of its segment; whatever does not
 *     fit ends the backtrace.
 * (3) One frame at a time, inside a callback of dl_iterate_phdr, whose lock keeps libraries from being unloaded. What
 *     runs there is bounded, waits for nothing and calls nobody.
 *
 * The bottom of a fiber's stack says that it has no caller (arch/). The first frames are those of the library: the
 * function that switched away, and those of the call that waits. Instructions that sign return addresses are taken into
 * account by removing the signature.
 *
 * Rejected: process_vm_readv on the own process, which reports a fault instead of raising it: there is none to fear,
 * and sandboxes refuse it, or end the process for it. Claiming the wait meanwhile: a waker would have to be held up.
 * Frame pointers: libraries are built without. The unwinder of the C compiler: it unwinds the stack that it runs on.
 *
 * I1: nothing of a copy is used before its fiber was seen to have stood still.
 * I2: a row, whose expressions lie in the tables, is used only inside the callback that made it. */
#include <string.h>

#include "internal.h"

#define FRAMES_MAX 64
#define COPY_MAX ((size_t)64 << 10) /* the innermost part of a stack */
#define REMEMBERED_MAX 8            /* rows that a program may put aside at a time; compilers need one or two */
#define OPERANDS_MAX 16
#define REGISTERS COIR__CTX_REGISTERS

/* How a register of the caller is found. */
enum rule_kind {
  RULE_SAME = 0,      /* it has not been touched */
  RULE_UNDEFINED,     /* it is lost; of the return address: there is no caller */
  RULE_SAVED_AT,      /* in memory, `value` bytes from where the frame begins */
  RULE_BEGIN_PLUS,    /* where the frame begins, plus `value` */
  RULE_REGISTER_PLUS, /* in register `number`; for the begin of the frame: plus `value` */
  RULE_SAVED_AT_EXPR, /* in memory, at the address that the expression at `value` says */
  RULE_EXPR,          /* what the expression at `value` says, `number` bytes of it */
};

struct rule {
  int64_t value;
  uint16_t number;
  uint8_t kind; /* enum rule_kind */
};

/* What holds at one instruction of a function. */
struct row {
  struct rule begin; /* of the frame: where the stack pointer was before the call (the CFA) */
  struct rule registers[REGISTERS];
};

struct coir__backtrace {
  struct coir__ctx_registers at; /* of the frame that is looked at; 0 for those that are not known */
  struct coir__ctx_registers begin; /* of the innermost frame, if that was not found by its context */
  bool is_exact;                 /* at.pc is the instruction itself, and not the one behind a call */
  struct row row, first;         /* of the frame; first: as the function begins */
  uint32_t remembered_count;
  struct row remembered[REMEMBERED_MAX];
  size_t count;
  void *frames[FRAMES_MAX];
  uintptr_t sp;  /* the context */
  uintptr_t low; /* where the copied part begins, and how long it is */
  size_t bytes;
  _Alignas(16) char copy[COPY_MAX];
};

/* ---- The copy -------------------------------------------------------------------------------------------------- */

struct coir__backtrace *coir__backtrace_create(void) {
  return coir__alloc(NULL, sizeof(struct coir__backtrace)); /* not on a stack, which may be small */
}

void coir__backtrace_destroy(struct coir__backtrace *b) { coir__free(NULL, b, sizeof *b); }

uint64_t coir__backtrace_begin(const struct coir_fiber *f) {
  /* Acquire: what the fiber did before it was parked. Pairs with the release in coir__wait_commit. */
  uint64_t parked = atm_load_acq(&f->waiter.parked), word = atm_load_acq(&f->waiter.word);
  uint64_t code = word & COIR__CODE_MASK;
  bool waits = code >= COIR__CODE_OPEN && code <= COIR__CODE_BOUND && (word & ~COIR__CODE_MASK) == parked;
  return waits ? word : 0;
}

/* Word by word: a copy by the C library would be looked at by AddressSanitizer. */
static PEEKS void copy_words(uint64_t *to, const uint64_t *from, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] = PEEK(from[i]);
}

/* What lies above `sp`, and a little of what is below. */
static PEEKS bool copy_from(struct coir__backtrace *b, const struct coir__stack *s, uintptr_t sp) {
  if (!s) return false;
  uintptr_t low = (uintptr_t)PEEK(s->low), top = (uintptr_t)PEEK(s->top), bytes = PEEK(s->bytes);
  if (sp % sizeof(uint64_t) || sp < low || sp >= top || top - low > bytes) return false;
  b->sp = sp;
  b->low = sp - low <= COIR__CTX_BELOW ? low : sp - COIR__CTX_BELOW;
  b->bytes = top - b->low < COPY_MAX ? top - b->low : COPY_MAX;
  copy_words((uint64_t *)b->copy, (const uint64_t *)b->low, b->bytes / sizeof(uint64_t));
  return true;
}

static PEEKS bool copy_parked(struct coir__backtrace *b, const struct coir_fiber *f) {
  return copy_from(b, PEEK(f->stack), (uintptr_t)PEEK(f->sp));
}

bool coir__backtrace_copy(struct coir__backtrace *b, const struct coir_fiber *f, uint64_t wait) {
  b->is_exact = false; /* a stopped context continues behind a jump */
  if (!copy_parked(b, f)) return false;
  coir__fence_heavy(); /* the copy before the look; see the head of this file */
  return atm_load_rlx(&f->waiter.word) == wait;
}

PEEKS bool coir__backtrace_copy_at(struct coir__backtrace *b, const struct coir_fiber *f,
                                   const struct coir__ctx_registers *at) {
  if (!copy_from(b, PEEK(f->stack), at->r[COIR__CTX_SP])) return false;
  b->begin = *at;
  b->is_exact = true;
  return true;
}

/* Reads a word of up to 8 bytes from the stack. False: it was not copied. */
static bool copy_read(const struct coir__backtrace *b, uintptr_t at, size_t bytes, uint64_t *out) {
  uint64_t word = 0;
  if (at < b->low || b->bytes < bytes || at - b->low > b->bytes - bytes) return false;
  memcpy(&word, b->copy + (at - b->low), bytes);
  *out = word;
  return true;
}

/* ---- Reading tables -------------------------------------------------------------------------------------------- */

/* What is left of a table. Who reads past its end gets zeros, and it is bad. */
struct table {
  const uint8_t *at, *end;
  bool is_bad;
};

/* Little-endian, as both architectures are. */
static uint64_t table_take(struct table *t, size_t bytes) {
  uint64_t value = 0;
  if ((size_t)(t->end - t->at) < bytes) t->is_bad = true;
  if (t->is_bad) return 0;
  memcpy(&value, t->at, bytes);
  t->at += bytes;
  return value;
}

static int64_t table_signed(struct table *t, size_t bytes) {
  unsigned shift = 64 - 8 * (unsigned)bytes;
  return (int64_t)(table_take(t, bytes) << shift) >> shift;
}

static void table_skip(struct table *t, uint64_t bytes) {
  if ((uint64_t)(t->end - t->at) < bytes) t->is_bad = true;
  else t->at += bytes;
}

/* Numbers of any length, seven bits to a byte (LEB128). */
static uint64_t table_number(struct table *t) {
  uint64_t value = 0, byte;
  unsigned shift = 0;
  do {
    byte = table_take(t, 1);
    if (shift < 64) value |= (byte & 0x7f) << shift;
    shift += 7;
  } while (byte & 0x80);
  return value;
}

static int64_t table_signed_number(struct table *t) {
  const uint8_t *from = t->at;
  uint64_t value = table_number(t);
  size_t bits = 7 * (size_t)(t->at - from);
  bool is_negative = !t->is_bad && (t->at[-1] & 0x40);
  return (int64_t)(is_negative && bits < 64 ? value | UINT64_MAX << bits : value);
}

/* Of the encodings of a pointer (DW_EH_PE_*): the form, and what it counts from: nothing, or its own place. */
static uintptr_t table_pointer(struct table *t, uint8_t encoding) {
  uintptr_t base = (encoding & 0x70) == 0x10 ? (uintptr_t)t->at : 0;
  if ((encoding & 0x70) > 0x10) t->is_bad = true;
  switch (encoding & 0x0f) {
  case 0x01: return base + table_number(t);
  case 0x02: return base + table_take(t, 2);
  case 0x03: return base + table_take(t, 4);
  case 0x00:
  case 0x04:
  case 0x0c: return base + table_take(t, 8);
  case 0x09: return base + (uintptr_t)table_signed_number(t);
  case 0x0a: return base + (uintptr_t)table_signed(t, 2);
  case 0x0b: return base + (uintptr_t)table_signed(t, 4);
  default: t->is_bad = true; return 0;
  }
}

/* What the functions of one source file have in common (a CIE), and the description of one function (an FDE). */
struct common {
  uint64_t code_unit;
  int64_t data_unit;
  uint64_t return_register;
  uint8_t encoding; /* of addresses of code */
  bool is_sized;    /* descriptions carry the size of what is for others */
  bool is_signal;   /* a frame that the kernel made: it stands at an instruction, not behind a call */
  struct table program;
};

struct description {
  struct common common;
  uintptr_t begin, bytes; /* of the code */
  struct table program;
};

/* An entry of .eh_frame at `at`, without its length. */
static struct table entry_at(const struct coir__module *m, const uint8_t *at) {
  struct table t = {at, m->high, at < m->low || at >= m->high};
  uint64_t bytes = table_take(&t, 4);
  if (t.is_bad || bytes == 0 || bytes == 0xffffffff || bytes > (size_t)(t.end - t.at)) t.is_bad = true;
  else t.end = t.at + bytes;
  return t;
}

static bool read_common(const struct coir__module *m, const uint8_t *at, struct common *out) {
  struct table t = entry_at(m, at);
  uint64_t zero = table_take(&t, 4), version = table_take(&t, 1);
  const uint8_t *letters = t.at;
  while (table_take(&t, 1)) {}
  *out = (struct common){.code_unit = table_number(&t)};
  out->data_unit = table_signed_number(&t);
  out->return_register = version == 1 ? table_take(&t, 1) : table_number(&t);
  if (t.is_bad || zero || (version != 1 && version != 3)) return false;
  const uint8_t *end = t.at;
  if (*letters == 'z') {
    out->is_sized = true;
    uint64_t bytes = table_number(&t);
    end = t.at;
    if (t.is_bad || bytes > (size_t)(t.end - t.at)) return false;
    end += bytes;
    letters++;
  }
  for (; *letters && !t.is_bad; letters++) {
    switch (*letters) {
    case 'R': out->encoding = (uint8_t)table_take(&t, 1); break;
    case 'L': table_take(&t, 1); break;
    case 'P': table_pointer(&t, table_take(&t, 1) & 0x0f); break;
    case 'S': out->is_signal = true; break;
    case 'B': /* signs return addresses with the second key */
    case 'G': /* tags its frame */ break;
    default: return false;
    }
  }
  out->program = (struct table){out->is_sized ? end : t.at, t.end, t.is_bad};
  return !t.is_bad;
}

static bool read_description(const struct coir__module *m, const uint8_t *at, struct description *out) {
  struct table t = entry_at(m, at);
  const uint8_t *from = t.at;
  uint64_t back = table_take(&t, 4);
  if (t.is_bad || back == 0 || back > (size_t)(from - m->low)) return false;
  if (!read_common(m, from - back, &out->common)) return false;
  out->begin = table_pointer(&t, out->common.encoding);
  out->bytes = table_pointer(&t, out->common.encoding & 0x0f);
  if (out->common.is_sized) table_skip(&t, table_number(&t));
  out->program = t;
  return !t.is_bad;
}

/* The description that may be that of `pc`, by the index of .eh_frame_hdr: pairs of code and description, sorted, as
 * distances from the index. NULL: none, or an index of another form, which linkers do not make. */
static const uint8_t *index_find(const struct coir__module *m, uintptr_t pc) {
  struct table t = {m->index, m->index_end, false};
  uint8_t version = (uint8_t)table_take(&t, 1), of_frames = (uint8_t)table_take(&t, 1);
  uint8_t of_count = (uint8_t)table_take(&t, 1), of_pairs = (uint8_t)table_take(&t, 1);
  if (t.is_bad || version != 1 || of_pairs != 0x3b) return NULL;
  table_pointer(&t, of_frames);
  uint64_t high = table_pointer(&t, of_count), low = 0;
  if (t.is_bad || high > (size_t)(t.end - t.at) / 8) return NULL;
  const uint8_t *pairs = t.at;
  while (low < high) { /* in the end low is how many begin at or before pc */
    uint64_t middle = low + (high - low) / 2;
    int32_t distance;
    memcpy(&distance, pairs + 8 * middle, 4);
    if ((uintptr_t)m->index + (uintptr_t)(intptr_t)distance <= pc) low = middle + 1;
    else high = middle;
  }
  if (low == 0) return NULL;
  int32_t distance;
  memcpy(&distance, pairs + 8 * (low - 1) + 4, 4);
  return m->index + distance;
}

/* ---- Programs: from the begin of a function to the row of an instruction ---------------------------------------- */

/* Instructions (DW_CFA_*). Three have their first operand in the lower bits of their own byte. */
enum {
  CFA_ADVANCE_SHORT = 0x40,
  CFA_OFFSET_SHORT = 0x80,
  CFA_RESTORE_SHORT = 0xc0,
  CFA_NOP = 0x00,
  CFA_SET_LOC = 0x01,
  CFA_ADVANCE_1 = 0x02,
  CFA_ADVANCE_2 = 0x03,
  CFA_ADVANCE_4 = 0x04,
  CFA_OFFSET = 0x05,
  CFA_RESTORE = 0x06,
  CFA_UNDEFINED = 0x07,
  CFA_SAME_VALUE = 0x08,
  CFA_REGISTER = 0x09,
  CFA_REMEMBER_STATE = 0x0a,
  CFA_RESTORE_STATE = 0x0b,
  CFA_DEF_CFA = 0x0c,
  CFA_DEF_CFA_REGISTER = 0x0d,
  CFA_DEF_CFA_OFFSET = 0x0e,
  CFA_DEF_CFA_EXPRESSION = 0x0f,
  CFA_EXPRESSION = 0x10,
  CFA_OFFSET_SF = 0x11,
  CFA_DEF_CFA_SF = 0x12,
  CFA_DEF_CFA_OFFSET_SF = 0x13,
  CFA_VAL_OFFSET = 0x14,
  CFA_VAL_OFFSET_SF = 0x15,
  CFA_VAL_EXPRESSION = 0x16,
  CFA_AARCH64_NEGATE_RA_STATE_WITH_PC = 0x2c,
  CFA_AARCH64_NEGATE_RA_STATE = 0x2d,
  CFA_GNU_ARGS_SIZE = 0x2e,
  CFA_GNU_NEGATIVE_OFFSET = 0x2f,
};

/* Those that set the rule of a register: the kind of rule, and what follows the register's number. */
enum operand {
  OPERAND_NONE,
  OPERAND_NUMBER,
  OPERAND_UNITS,
  OPERAND_SIGNED_UNITS,
  OPERAND_NEGATIVE_UNITS,
  OPERAND_BLOCK
};
static const struct {
  uint8_t is_one, kind, operand;
} rule_setters[CFA_GNU_NEGATIVE_OFFSET + 1] = {
    [CFA_OFFSET] = {1, RULE_SAVED_AT, OPERAND_UNITS},
    [CFA_OFFSET_SF] = {1, RULE_SAVED_AT, OPERAND_SIGNED_UNITS},
    [CFA_GNU_NEGATIVE_OFFSET] = {1, RULE_SAVED_AT, OPERAND_NEGATIVE_UNITS},
    [CFA_VAL_OFFSET] = {1, RULE_BEGIN_PLUS, OPERAND_UNITS},
    [CFA_VAL_OFFSET_SF] = {1, RULE_BEGIN_PLUS, OPERAND_SIGNED_UNITS},
    [CFA_UNDEFINED] = {1, RULE_UNDEFINED, OPERAND_NONE},
    [CFA_SAME_VALUE] = {1, RULE_SAME, OPERAND_NONE},
    [CFA_REGISTER] = {1, RULE_REGISTER_PLUS, OPERAND_NUMBER},
    [CFA_EXPRESSION] = {1, RULE_SAVED_AT_EXPR, OPERAND_BLOCK},
    [CFA_VAL_EXPRESSION] = {1, RULE_EXPR, OPERAND_BLOCK},
};

/* The rule's kind, and the operand that follows. */
static struct rule table_rule(struct table *t, const struct common *c, uint8_t kind, enum operand operand) {
  struct rule rule = {.kind = kind};
  uint64_t n;
  switch (operand) {
  case OPERAND_NONE: break;
  case OPERAND_NUMBER: rule.number = (uint16_t)table_number(t); break;
  case OPERAND_UNITS: rule.value = (int64_t)(table_number(t) * (uint64_t)c->data_unit); break;
  case OPERAND_SIGNED_UNITS: rule.value = (int64_t)((uint64_t)table_signed_number(t) * (uint64_t)c->data_unit); break;
  case OPERAND_NEGATIVE_UNITS: rule.value = (int64_t)(-table_number(t) * (uint64_t)c->data_unit); break;
  case OPERAND_BLOCK:
    n = table_number(t);
    if (n > UINT16_MAX) t->is_bad = true;
    rule.number = (uint16_t)n;
    rule.value = (int64_t)(intptr_t)t->at;
    table_skip(t, n);
    break;
  }
  return rule;
}

static bool set_rule(struct coir__backtrace *b, uint64_t number, struct rule rule) {
  if (number < REGISTERS) b->row.registers[number] = rule;
  return true; /* of the others, as those for vectors, no backtrace depends on */
}

static bool restore_rule(struct coir__backtrace *b, uint64_t number) {
  return set_rule(b, number, number < REGISTERS ? b->first.registers[number] : (struct rule){0});
}

/* Where the frame begins: at an expression, or at a register plus so many bytes, of which either may be set alone. */
static bool run_begin_rule(struct coir__backtrace *b, const struct common *c, struct table *t, uint8_t op) {
  struct rule *begin = &b->row.begin;
  if (op == CFA_DEF_CFA_EXPRESSION) {
    *begin = table_rule(t, c, RULE_EXPR, OPERAND_BLOCK);
    return true;
  }
  if (op == CFA_DEF_CFA || op == CFA_DEF_CFA_SF) begin->kind = RULE_REGISTER_PLUS;
  if (begin->kind != RULE_REGISTER_PLUS) return false;
  if (op != CFA_DEF_CFA_OFFSET && op != CFA_DEF_CFA_OFFSET_SF) begin->number = (uint16_t)table_number(t);
  if (op == CFA_DEF_CFA || op == CFA_DEF_CFA_OFFSET) begin->value = (int64_t)table_number(t);
  else if (op != CFA_DEF_CFA_REGISTER) begin->value = table_rule(t, c, 0, OPERAND_SIGNED_UNITS).value;
  return true;
}

/* Executes an instruction that does not advance. False: it is none that is known, or makes no sense. */
static bool run_one(struct coir__backtrace *b, const struct common *c, struct table *t, uint8_t op) {
  uint8_t low = op & 0x3f;
  if ((op & 0xc0) == CFA_OFFSET_SHORT) return set_rule(b, low, table_rule(t, c, RULE_SAVED_AT, OPERAND_UNITS));
  if ((op & 0xc0) == CFA_RESTORE_SHORT) return restore_rule(b, low);
  if (op < sizeof rule_setters / sizeof *rule_setters && rule_setters[op].is_one) {
    uint64_t number = table_number(t);
    return set_rule(b, number, table_rule(t, c, rule_setters[op].kind, (enum operand)rule_setters[op].operand));
  }
  switch (op) {
  case CFA_RESTORE: return restore_rule(b, table_number(t));
  case CFA_REMEMBER_STATE:
    if (b->remembered_count == REMEMBERED_MAX) return false;
    b->remembered[b->remembered_count++] = b->row;
    return true;
  case CFA_RESTORE_STATE:
    if (b->remembered_count == 0) return false;
    b->row = b->remembered[--b->remembered_count];
    return true;
  case CFA_DEF_CFA:
  case CFA_DEF_CFA_SF:
  case CFA_DEF_CFA_REGISTER:
  case CFA_DEF_CFA_OFFSET:
  case CFA_DEF_CFA_OFFSET_SF:
  case CFA_DEF_CFA_EXPRESSION: return run_begin_rule(b, c, t, op);
  case CFA_GNU_ARGS_SIZE: table_number(t); return true;
  case CFA_NOP:
  case CFA_AARCH64_NEGATE_RA_STATE: /* signatures are removed wherever they are */
  case CFA_AARCH64_NEGATE_RA_STATE_WITH_PC: return true;
  default: return false;
  }
}

/* Executes a program whose first rows are those of `at`, up to the row of `pc`. */
static bool run_program(struct coir__backtrace *b, const struct common *c, struct table t, uintptr_t at, uintptr_t pc) {
  while (t.at < t.end && !t.is_bad && at <= pc) {
    uint8_t op = (uint8_t)table_take(&t, 1);
    if ((op & 0xc0) == CFA_ADVANCE_SHORT) at += (op & 0x3f) * c->code_unit;
    else if (op == CFA_ADVANCE_1) at += table_take(&t, 1) * c->code_unit;
    else if (op == CFA_ADVANCE_2) at += table_take(&t, 2) * c->code_unit;
    else if (op == CFA_ADVANCE_4) at += table_take(&t, 4) * c->code_unit;
    else if (op == CFA_SET_LOC) at = table_pointer(&t, c->encoding);
    else if (!run_one(b, c, &t, op)) return false;
  }
  return !t.is_bad;
}

/* ---- Expressions: a small stack machine ------------------------------------------------------------------------- */

/* Operations (DW_OP_*): those that compilers, linkers and C libraries use in these tables, and their like. */
enum {
  OP_DEREF = 0x06,
  OP_CONST_1U = 0x08, /* to 0x0f: of 1, 2, 4, 8 bytes, each unsigned and signed */
  OP_CONST_8S = 0x0f,
  OP_CONST_U = 0x10,
  OP_CONST_S = 0x11,
  OP_DUP = 0x12,
  OP_DROP = 0x13,
  OP_OVER = 0x14,
  OP_SWAP = 0x16,
  OP_AND = 0x1a,
  OP_MINUS = 0x1c,
  OP_MUL = 0x1e,
  OP_OR = 0x21,
  OP_PLUS = 0x22,
  OP_PLUS_CONST = 0x23,
  OP_SHL = 0x24,
  OP_SHR = 0x25,
  OP_SHRA = 0x26,
  OP_XOR = 0x27,
  OP_EQ = 0x29,
  OP_GE = 0x2a,
  OP_GT = 0x2b,
  OP_LE = 0x2c,
  OP_LT = 0x2d,
  OP_NE = 0x2e,
  OP_LIT_0 = 0x30,  /* to 31 */
  OP_BREG_0 = 0x70, /* to 31 */
  OP_BREG_31 = 0x8f,
  OP_BREG_X = 0x92,
  OP_DEREF_SIZE = 0x94,
  OP_NOP = 0x96,
};

struct operands {
  size_t count;
  uint64_t values[OPERANDS_MAX];
};

static bool operands_push(struct operands *o, uint64_t value) {
  if (o->count == OPERANDS_MAX) return false;
  o->values[o->count++] = value;
  return true;
}

/* Replaces the two topmost operands. */
static bool operands_combine(struct operands *o, uint8_t op) {
  if (o->count < 2) return false;
  uint64_t y = o->values[--o->count], *x = &o->values[o->count - 1];
  int64_t sx = (int64_t)*x, sy = (int64_t)y;
  switch (op) {
  case OP_AND: *x &= y; return true;
  case OP_MINUS: *x -= y; return true;
  case OP_MUL: *x *= y; return true;
  case OP_OR: *x |= y; return true;
  case OP_PLUS: *x += y; return true;
  case OP_SHL: *x = y < 64 ? *x << y : 0; return true;
  case OP_SHR: *x = y < 64 ? *x >> y : 0; return true;
  case OP_SHRA: *x = (uint64_t)(sx >> (y < 64 ? y : 63)); return true;
  case OP_XOR: *x ^= y; return true;
  case OP_EQ: *x = sx == sy; return true;
  case OP_GE: *x = sx >= sy; return true;
  case OP_GT: *x = sx > sy; return true;
  case OP_LE: *x = sx <= sy; return true;
  case OP_LT: *x = sx < sy; return true;
  case OP_NE: *x = sx != sy; return true;
  default: return false;
  }
}

static bool operands_deref(const struct coir__backtrace *b, struct operands *o, uint64_t bytes) {
  if (o->count == 0 || bytes == 0 || bytes > 8) return false;
  return copy_read(b, o->values[o->count - 1], bytes, &o->values[o->count - 1]);
}

static bool operands_register(const struct coir__backtrace *b, struct operands *o, uint64_t number, int64_t offset) {
  return number < REGISTERS && operands_push(o, b->at.r[number] + (uint64_t)offset);
}

static bool operate(const struct coir__backtrace *b, struct operands *o, struct table *t, uint8_t op) {
  size_t n = o->count;
  if (op >= OP_LIT_0 && op < OP_LIT_0 + 32) return operands_push(o, op - OP_LIT_0);
  if (op >= OP_BREG_0 && op <= OP_BREG_31) return operands_register(b, o, op - OP_BREG_0, table_signed_number(t));
  if (op >= OP_CONST_1U && op <= OP_CONST_8S) {
    size_t bytes = (size_t)1 << (op - OP_CONST_1U) / 2;
    return operands_push(o, op & 1 ? (uint64_t)table_signed(t, bytes) : table_take(t, bytes));
  }
  switch (op) {
  case OP_DEREF: return operands_deref(b, o, 8);
  case OP_DEREF_SIZE: return operands_deref(b, o, table_take(t, 1));
  case OP_CONST_U: return operands_push(o, table_number(t));
  case OP_CONST_S: return operands_push(o, (uint64_t)table_signed_number(t));
  case OP_DUP: return n >= 1 && operands_push(o, o->values[n - 1]);
  case OP_DROP: return n >= 1 && (o->count--, true);
  case OP_OVER: return n >= 2 && operands_push(o, o->values[n - 2]);
  case OP_SWAP: {
    if (n < 2) return false;
    uint64_t top = o->values[n - 1];
    o->values[n - 1] = o->values[n - 2];
    o->values[n - 2] = top;
    return true;
  }
  case OP_PLUS_CONST: return operands_push(o, table_number(t)) && operands_combine(o, OP_PLUS);
  case OP_BREG_X: {
    uint64_t number = table_number(t);
    return operands_register(b, o, number, table_signed_number(t));
  }
  case OP_NOP: return true;
  default: return operands_combine(o, op);
  }
}

/* What the expression of `rule` says, begun with `operands`. */
static bool evaluate(const struct coir__backtrace *b, const struct rule *rule, struct operands operands,
                     uint64_t *out) {
  const uint8_t *from = (const uint8_t *)(intptr_t)rule->value;
  struct table t = {from, from + rule->number, false};
  while (t.at < t.end) {
    uint8_t op = (uint8_t)table_take(&t, 1);
    if (!operate(b, &operands, &t, op) || t.is_bad) return false;
  }
  if (operands.count == 0) return false;
  *out = operands.values[operands.count - 1];
  return true;
}

/* ---- From a frame to its caller --------------------------------------------------------------------------------- */

/* Removes a signature from a return address. */
static uintptr_t without_signature(uintptr_t pc) {
#if defined(__aarch64__)
  register uintptr_t x30 __asm__("x30") = pc;
  __asm__("hint #7" : "+r"(x30)); /* xpaclri */
  return x30;
#else
  return pc;
#endif
}

static bool find_begin(const struct coir__backtrace *b, uint64_t *out) {
  const struct rule *rule = &b->row.begin;
  if (rule->kind == RULE_EXPR) return evaluate(b, rule, (struct operands){0}, out);
  if (rule->kind != RULE_REGISTER_PLUS || rule->number >= REGISTERS) return false;
  *out = b->at.r[rule->number] + (uintptr_t)rule->value;
  return true;
}

/* A register of the caller. 0: it is not known. */
static uint64_t find_register(const struct coir__backtrace *b, size_t number, uint64_t begin) {
  const struct rule *rule = &b->row.registers[number];
  uint64_t value = 0;
  switch (rule->kind) {
  case RULE_SAME: return number == COIR__CTX_SP ? begin : b->at.r[number];
  case RULE_SAVED_AT: return copy_read(b, begin + (uintptr_t)rule->value, 8, &value) ? value : 0;
  case RULE_BEGIN_PLUS: return begin + (uintptr_t)rule->value;
  case RULE_REGISTER_PLUS: return rule->number < REGISTERS ? b->at.r[rule->number] : 0;
  case RULE_EXPR:
  case RULE_SAVED_AT_EXPR:
    if (!evaluate(b, rule, (struct operands){1, {begin}}, &value)) return 0;
    return rule->kind == RULE_EXPR || copy_read(b, value, 8, &value) ? value : 0;
  default: return 0;
  }
}

/* Makes b->at the caller's. False: there is none, or it cannot be found. */
static bool to_caller(const struct coir__module *m, void *backtrace) {
  struct coir__backtrace *b = backtrace;
  struct description d;
  uintptr_t pc = b->at.pc - !b->is_exact; /* a call may be the last of its function */
  uint64_t begin;
  const uint8_t *at = index_find(m, pc);
  if (!at || !read_description(m, at, &d) || pc - d.begin >= d.bytes) return false;
  memset(&b->row, 0, sizeof b->row);
  memset(&b->first, 0, sizeof b->first);
  b->remembered_count = 0;
  if (!run_program(b, &d.common, d.common.program, 0, UINTPTR_MAX)) return false;
  b->first = b->row;
  if (!run_program(b, &d.common, d.program, d.begin, pc)) return false;
  uint64_t return_register = d.common.return_register;
  if (return_register >= REGISTERS || b->row.registers[return_register].kind == RULE_UNDEFINED) return false;
  if (!find_begin(b, &begin) || begin < b->at.r[COIR__CTX_SP]) return false;
  struct coir__ctx_registers caller;
  for (size_t i = 0; i < REGISTERS; i++) caller.r[i] = find_register(b, i, begin);
  caller.pc = without_signature(caller.r[return_register]);
  if (caller.pc == 0 || (caller.pc == b->at.pc && begin == b->at.r[COIR__CTX_SP])) return false;
  b->at = caller;
  b->is_exact = d.common.is_signal;
  return true;
}

size_t coir__backtrace_unwind(struct coir__backtrace *b, void *const **frames) {
  *frames = b->frames;
  b->count = 0;
  memset(&b->at, 0, sizeof b->at);
  size_t below = b->sp - b->low;
  if (b->is_exact) b->at = b->begin;
  else if (!coir__ctx_peek(b->copy + below, b->bytes - below, b->sp, &b->at)) return 0;
  if (b->at.pc == 0) return 0;
  do b->frames[b->count++] = (void *)b->at.pc;
  while (b->count < FRAMES_MAX && coir__os_module_visit(b->at.pc - !b->is_exact, to_caller, b));
  return b->count;
}
