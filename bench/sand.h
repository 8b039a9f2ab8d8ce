/* Falling sand, for Coir's, the serial, and oneTBB's program of sand_*: C that is C++, too.
 *
 * A grid of 1000 x 1000 cells, 1 wide, from x = -500 and y = 0. A step: while there is room, 2000 grains appear; the
 * grid is cleared; the cells of all grains are marked; each grain is moved. The last three are loops whose iterations
 * may run in any order: moving writes nothing but the grain, so the outcome is that of a serial run, bit by bit. There
 * are no walls, as the first clearing would remove them.
 *
 * A grain falls; on the floor it comes to rest. One whose next cell is another one and taken slides one cell down to
 * the left or to the right, or stops. Heavy grains also compute 200 sines and cosines in each step. */
#ifndef SAND_H
#define SAND_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SAND_SIDE 1000
#define SAND_CELLS ((size_t)SAND_SIDE * SAND_SIDE)
#define SAND_SPAWNED 2000

struct grain {
  float x, y, vx, vy;
  bool is_active;
};

struct sand {
  struct grain *grains;
  size_t count, capacity;
  bool *grid; /* accessed by many at once: relaxed */
  uint64_t seed;
  bool is_heavy;
};

/* What the questions are. */
struct sand_kind {
  const char *question;
  size_t capacity;
  bool is_full; /* all grains are there from the start */
  bool is_heavy;
  bool is_long; /* not for --quick */
  int steps;
};
static const struct sand_kind sand_kinds[] = {
    {"sand_100k", 100000, false, false, false, 120},
    {"sand_1m", 1000000, true, false, false, 10},
    {"sand_heavy", 100000, false, true, false, 10},
    {"sand_heavy_1m", 1000000, true, true, true, 1},
};

/* The kind of that question, or NULL. */
static inline const struct sand_kind *sand_kind_of(const char *question) {
  for (size_t i = 0; i < sizeof sand_kinds / sizeof sand_kinds[0]; i++) {
    if (strcmp(sand_kinds[i].question, question) == 0) return &sand_kinds[i];
  }
  return NULL;
}

/* From `low` up to `high` (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014). */
static inline float sand_random(struct sand *sand, float low, float high) {
  uint64_t z = sand->seed += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return low + (high - low) * ((float)((z ^ (z >> 31)) >> 40) * (1.0f / 16777216.0f));
}

static inline void sand_spawn(struct sand *sand, size_t count) {
  for (; count > 0 && sand->count < sand->capacity; count--) {
    struct grain *grain = &sand->grains[sand->count++];
    grain->x = sand_random(sand, -100, 100);
    grain->y = sand_random(sand, 800, 950);
    grain->vx = sand_random(sand, -10, 10);
    grain->vy = sand_random(sand, -10, 0);
    grain->is_active = true;
  }
}

/* Returns false when memory is short. */
static inline bool sand_init(struct sand *sand, const struct sand_kind *kind) {
  sand->grains = (struct grain *)malloc(kind->capacity * sizeof *sand->grains);
  sand->grid = (bool *)malloc(SAND_CELLS);
  sand->count = 0;
  sand->capacity = kind->capacity;
  sand->seed = 1;
  sand->is_heavy = kind->is_heavy;
  if (!sand->grains || !sand->grid) return false;
  memset((void *)sand->grid, 1, SAND_CELLS); /* so that its pages are there */
  if (kind->is_full) sand_spawn(sand, kind->capacity);
  return true;
}

static inline void sand_free(struct sand *sand) {
  free(sand->grains);
  free(sand->grid);
}

/* The cell's number, or -1 for what is outside. */
static inline long sand_cell(float x, float y) {
  long column = (long)(x + 500), row = (long)y;
  return column >= 0 && column < SAND_SIDE && row >= 0 && row < SAND_SIDE ? row * SAND_SIDE + column : -1;
}

static inline bool sand_is_taken(const struct sand *sand, long cell) {
  return __atomic_load_n(&sand->grid[cell], __ATOMIC_RELAXED);
}

static inline bool sand_is_free(const struct sand *sand, float x, float y) {
  long cell = y >= 0 ? sand_cell(x, y) : -1;
  return cell >= 0 && !sand_is_taken(sand, cell);
}

/* The way down is taken: goes down to the left or to the right, or stays. */
static inline void sand_slide(const struct sand *sand, struct grain *grain) {
  bool left = sand_is_free(sand, grain->x - 1, grain->y - 1), right = sand_is_free(sand, grain->x + 1, grain->y - 1);
  if (!left && !right) {
    grain->vx = grain->vy = 0;
    return;
  }
  grain->x += left && ((long)grain->y % 2 == 0 || !right) ? -1.0f : 1.0f;
  grain->y -= 1;
  grain->vx *= 0.8f;
}

static inline void sand_fall(const struct sand *sand, struct grain *grain) {
  grain->vy += -20.0f * 0.016f;
  float x = grain->x + grain->vx * 0.016f, y = grain->y + grain->vy * 0.016f;
  if (y <= 0) {
    grain->y = grain->vy = 0;
    grain->vx *= 0.5f;
    return;
  }
  long next = sand_cell(x, y);
  if (next < 0) {
    grain->x = x < -400 ? -400 : x > 400 ? 400 : x;
    grain->y = y;
  } else if (next != sand_cell(grain->x, grain->y) && sand_is_taken(sand, next)) {
    sand_slide(sand, grain);
  } else {
    grain->x = x;
    grain->y = y;
  }
}

/* ---- The three loops ---- */

static inline void sand_clear(struct sand *sand, size_t lo, size_t hi) {
  for (size_t i = lo; i < hi; i++) __atomic_store_n(&sand->grid[i], false, __ATOMIC_RELAXED);
}

static inline void sand_mark(struct sand *sand, size_t lo, size_t hi) {
  for (size_t i = lo; i < hi; i++) {
    const struct grain *grain = &sand->grains[i];
    long cell = grain->is_active ? sand_cell(grain->x, grain->y) : -1;
    if (cell >= 0) __atomic_store_n(&sand->grid[cell], true, __ATOMIC_RELAXED);
  }
}

static inline void sand_move(struct sand *sand, size_t lo, size_t hi) {
  for (size_t i = lo; i < hi; i++) {
    struct grain *grain = &sand->grains[i];
    if (!grain->is_active) continue;
    sand_fall(sand, grain);
    if (!sand->is_heavy) continue;
    float v = grain->vx;
    for (int k = 0; k < 200; k++) v = sinf(v) + cosf(v);
    grain->vx += v * 1e-6f;
  }
}

/* One step without any threads. */
static inline void sand_step_serial(struct sand *sand) {
  sand_spawn(sand, SAND_SPAWNED);
  sand_clear(sand, 0, SAND_CELLS);
  sand_mark(sand, 0, sand->count);
  sand_move(sand, 0, sand->count);
}

/* Of the numbers of all grains, as bits. */
static inline uint64_t sand_checksum(const struct sand *sand) {
  uint64_t sum = 0;
  for (size_t i = 0; i < sand->count; i++) {
    float numbers[4] = {sand->grains[i].x, sand->grains[i].y, sand->grains[i].vx, sand->grains[i].vy};
    uint32_t bits[4];
    memcpy(bits, numbers, sizeof bits);
    uint64_t own = 0;
    for (int k = 0; k < 4; k++) own = own * 1000003 + bits[k];
    sum += own * (2 * i + 1);
  }
  return sum;
}

/* What a serial run comes to. */
static inline uint64_t sand_expected(const struct sand_kind *kind) {
  struct sand sand;
  if (!sand_init(&sand, kind)) return 0;
  for (int i = 0; i < kind->steps; i++) sand_step_serial(&sand);
  uint64_t sum = sand_checksum(&sand);
  sand_free(&sand);
  return sum;
}

#endif
