/* Loops whose results depend on every register that they compute in: vectors of each width that the CPU has, and the
 * floating point of long double (on x86-64, the stack of the x87). They call nothing, so that they spend their time in
 * the registers. Who changes one under them changes the result. For C and C++. */
#ifndef COIR_TEST_REGISTERS_H
#define COIR_TEST_REGISTERS_H

#include <stdint.h>
#include <string.h>

/* Eight vectors of `bytes` bytes, each of which goes into two of the others. The comparison makes a mask, which has a
 * register of its own with AVX-512. */
#define REGISTERS_LOOP(name, bytes, how)                                             \
  how static __attribute__((noinline)) uint64_t name(uint64_t seed, int turns) {     \
    typedef uint64_t vec __attribute__((vector_size(bytes)));                        \
    enum { LANES = (bytes) / 8 };                                                    \
    uint64_t lanes[LANES], sum = 0;                                                  \
    for (int i = 0; i < LANES; i++) lanes[i] = seed += UINT64_C(0x9e3779b97f4a7c15); \
    vec a, b, c, d, e, f, g, h;                                                      \
    memcpy(&a, lanes, sizeof a);                                                     \
    b = a + 1, c = a ^ 2, d = a + 3, e = a ^ 4, f = a + 5, g = a ^ 6, h = a + 7;     \
    for (int i = 0; i < turns; i++) {                                                \
      a += b ^ (c << 13);                                                            \
      b ^= (vec)(c > d) & a;                                                         \
      c += d ^ (e >> 7);                                                             \
      d ^= e + (f << 17);                                                            \
      e += f ^ (g >> 11);                                                            \
      f ^= (vec)(g > h) & e;                                                         \
      g += h ^ (a << 5);                                                             \
      h ^= a + (b >> 3);                                                             \
    }                                                                                \
    a ^= b ^ c ^ d ^ e ^ f ^ g ^ h;                                                  \
    memcpy(lanes, &a, sizeof a);                                                     \
    for (int i = 0; i < LANES; i++) sum = (sum << 7 | sum >> 57) ^ lanes[i];         \
    return sum;                                                                      \
  }

REGISTERS_LOOP(registers_vector_16, 16, )
#if defined(__x86_64__)
REGISTERS_LOOP(registers_vector_32, 32, __attribute__((target("avx2"))))
REGISTERS_LOOP(registers_vector_64, 64, __attribute__((target("avx512f"))))
#endif

/* Six logistic maps (May, 1976): what is changed in the last bit of one soon shows in the first. */
static __attribute__((noinline)) uint64_t registers_long_double(uint64_t seed, int turns) {
  long double a = ((long double)(seed % 1000) + 1) / 1002, b = a / 2, c = a / 3, d = a / 5, e = a / 7, f = a / 11;
  uint64_t bits = 0;
  for (int i = 0; i < turns; i++) {
    a *= 3.99L * (1 - a), b *= 3.98L * (1 - b), c *= 3.97L * (1 - c);
    d *= 3.96L * (1 - d), e *= 3.95L * (1 - e), f *= 3.94L * (1 - f);
  }
  a += b + c + d + e + f;
  memcpy(&bits, &a, sizeof bits); /* the x87's whole mantissa */
  return bits;
}

/* General registers, with as many live as there are. */
static __attribute__((noinline)) uint64_t registers_general(uint64_t seed, int turns) {
  uint64_t a = seed, b = a + 1, c = a ^ 2, d = a + 3, e = a ^ 4, f = a + 5, g = a ^ 6, h = a + 7, i = a ^ 8, j = a + 9;
  for (int n = 0; n < turns; n++) {
    a += b ^ (c << 13), b ^= c + (d >> 7), c += d ^ (e << 17), d ^= e + (f >> 11), e += f ^ (g << 5);
    f ^= g + (h >> 3), g += h ^ (i << 9), h ^= i + (j >> 23), i += j ^ (a << 21), j ^= a + (b >> 19);
  }
  return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ i ^ j;
}

enum { REGISTERS_KINDS = 5 };

/* Runs loop `kind`; where the CPU has no such registers, that of the smallest vectors. */
static inline uint64_t registers_run(int kind, uint64_t seed, int turns) {
  switch (kind) {
  case 0: return registers_general(seed, turns);
  case 1: return registers_long_double(seed, turns);
#if defined(__x86_64__)
  case 2:
    if (__builtin_cpu_supports("avx2")) return registers_vector_32(seed, turns);
    break;
  case 3:
    if (__builtin_cpu_supports("avx512f")) return registers_vector_64(seed, turns);
    break;
#endif
  default: break;
  }
  return registers_vector_16(seed, turns);
}

#endif
