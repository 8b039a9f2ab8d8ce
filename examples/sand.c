/* sand.c: grains of sand fall, pile up, and are painted into a PNG file every few steps.
 *
 * A step is three loops over the same arrays, one after the other: clear the grid, mark the cells where grains are,
 * move each grain. coir_parallel_phases runs them; nobody says how the work is to be cut, since workers split what they
 * have when others are out of work. The last loop reads the grid, and writes the grain that it is at; so the outcome
 * does not depend on the order, and --check holds it to a serial run, bit by bit.
 *
 * Pictures are jobs of their own, counted by one counter: they are compressed and written while the sand goes on
 * falling. A semaphore keeps them to a few at a time; who waits for it is the simulation, which is a job, too, so its
 * worker meanwhile helps with the pictures. */
#include <errno.h>
#include <inttypes.h>
#include <png.h>
#include <stdatomic.h>

#include "coir.h"
#include "coir_job.h"
#include "options.h"

enum {
  SIDE = 1000,      /* cells of the grid, which are 1 wide; x goes from -SIDE / 2, y upwards from 0 */
  SPAWNED = 2000,   /* grains that are new in each step, until there are enough */
  PICTURES_MAX = 4, /* that wait to be written */
};
static const float gravity = -20.0f, dt = 0.016f;

struct grain {
  float x, y, vx, vy;
};

struct world {
  struct grain *grains;
  size_t count, capacity;
  _Atomic(bool) *taken; /* SIDE * SIDE cells */
};

static int capacity = 100000, steps = 600, every = 100, threads;
static const char *prefix = "sand";

/* ---- The sand ---------------------------------------------------------------------------------------------------- */

/* A number from lo to hi that depends on nothing but n. */
static float random_between(uint64_t n, float lo, float hi) {
  n += UINT64_C(0x9e3779b97f4a7c15);
  n = (n ^ n >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  n = (n ^ n >> 27) * UINT64_C(0x94d049bb133111eb);
  return lo + (hi - lo) * (float)((n ^ n >> 31) >> 40) / (float)(1 << 24);
}

static void spawn_grains(struct world *w) {
  size_t end = w->count + SPAWNED < w->capacity ? w->count + SPAWNED : w->capacity;
  for (uint64_t i = w->count; i < end; i++) {
    w->grains[i] = (struct grain){random_between(4 * i, -100, 100), random_between(4 * i + 1, 800, 950),
                                  random_between(4 * i + 2, -10, 10), random_between(4 * i + 3, -10, 0)};
  }
  w->count = end;
}

/* The cell at (column, row), or -1 outside of the grid. */
static int cell_at(int column, int row) {
  return column >= 0 && column < SIDE && row >= 0 && row < SIDE ? row * SIDE + column : -1;
}
static int column_of(float x) { return (int)(x + SIDE / 2); }
static int cell_of(float x, float y) { return cell_at(column_of(x), (int)y); }

/* Relaxed, here and below: one phase writes, the next reads, and they are ordered. In a phase all write the same. */
static bool is_free(const struct world *w, int cell) {
  return cell >= 0 && !atomic_load_explicit(&w->taken[cell], memory_order_relaxed);
}

/* Not inlined: the serial run is to round as the parallel one does, wherever the compiler may fuse operations. */
static __attribute__((noinline)) void move(const struct world *w, struct grain *g) {
  g->vy += gravity * dt;
  float x = g->x + g->vx * dt, y = g->y + g->vy * dt;
  if (y <= 0) { /* on the ground */
    g->y = 0, g->vy = 0, g->vx *= 0.5f;
    return;
  }
  int next = cell_of(x, y);
  if (next < 0) { /* at the side, or above */
    g->x = x < -400 ? -400 : x > 400 ? 400 : x;
    g->y = y;
  } else if (next == cell_of(g->x, g->y) || is_free(w, next)) {
    g->x = x, g->y = y;
  } else { /* taken: slide down to one side, or stay */
    int column = column_of(g->x), row = (int)g->y;
    bool left = is_free(w, cell_at(column - 1, row - 1)), right = is_free(w, cell_at(column + 1, row - 1));
    if (left || right) {
      g->x += left && (row % 2 == 0 || !right) ? -1 : 1;
      g->y -= 1, g->vx *= 0.8f;
    } else {
      g->vx = g->vy = 0;
    }
  }
}

static void clear_cells(size_t lo, size_t hi, void *world) {
  struct world *w = world;
  for (size_t i = lo; i < hi; i++) atomic_store_explicit(&w->taken[i], false, memory_order_relaxed);
}

static void mark_cells(size_t lo, size_t hi, void *world) {
  struct world *w = world;
  for (size_t i = lo; i < hi; i++) {
    int cell = cell_of(w->grains[i].x, w->grains[i].y);
    if (cell >= 0) atomic_store_explicit(&w->taken[cell], true, memory_order_relaxed);
  }
}

static void move_grains(size_t lo, size_t hi, void *world) {
  struct world *w = world;
  for (size_t i = lo; i < hi; i++) move(w, &w->grains[i]);
}

static int step(struct world *w, bool is_serial) {
  spawn_grains(w);
  struct coir_phase phases[] = {
      {0, SIDE * SIDE, 0, clear_cells, w},
      {0, w->count, 0, mark_cells, w},
      {0, w->count, 0, move_grains, w},
  };
  size_t n = sizeof phases / sizeof *phases;
  if (!is_serial) return coir_parallel_phases(NULL, phases, n); /* NULL: the workers of the job that calls */
  for (size_t i = 0; i < n; i++) phases[i].body(phases[i].lo, phases[i].hi, phases[i].arg);
  return 0;
}

static bool make_world(struct world *w) {
  *w = (struct world){.capacity = (size_t)capacity};
  w->grains = calloc(w->capacity, sizeof *w->grains);
  w->taken = calloc(SIDE * SIDE, sizeof *w->taken);
  return w->grains && w->taken;
}

static void free_world(struct world *w) {
  free(w->grains);
  free((void *)w->taken);
}

/* ---- Pictures ---------------------------------------------------------------------------------------------------- */

struct picture {
  struct coir_sem *places;
  int step;
  unsigned char rgb[SIDE][SIDE][3];
};

static void paint(struct picture *p, const struct world *w) {
  static const unsigned char colours[][3] = {
      {237, 201, 120}, {222, 170, 90}, {201, 140, 76}, {240, 220, 160}, {180, 112, 70}};
  memset(p->rgb, 24, sizeof p->rgb);
  for (size_t i = 0; i < w->count; i++) {
    int cell = cell_of(w->grains[i].x, w->grains[i].y);
    if (cell < 0) continue;
    memcpy(p->rgb[SIDE - 1 - cell / SIDE][cell % SIDE], colours[i / (5 * SPAWNED) % (sizeof colours / 3)], 3);
  }
}

static void write_picture(struct coir_job *job, void *picture) {
  struct picture *p = picture;
  char path[4096];
  png_image image = {.version = PNG_IMAGE_VERSION, .width = SIDE, .height = SIDE, .format = PNG_FORMAT_RGB};
  (void)job;
  snprintf(path, sizeof path, "%s-%05d.png", prefix, p->step);
  bool is_written = png_image_write_to_file(&image, path, 0, p->rgb, 0, NULL) != 0;
  coir_sem_release(p->places, 1);
  free(p);
  if (!is_written) coir_job_fail("%s: %s", path, image.message); /* what this job held it has given back */
}

/* ---- The run ----------------------------------------------------------------------------------------------------- */

static void simulate(struct coir_job *job, void *world) {
  struct world *w = world;
  struct coir_counter pictures;
  struct coir_sem places;
  int rc = 0;
  coir_counter_init(&pictures, 0);
  coir_sem_init(&places, PICTURES_MAX);
  for (int i = 1; i <= steps && rc == 0; i++) {
    rc = step(w, false);
    if (rc != 0 || every == 0 || i % every != 0) continue;
    rc = coir_sem_acquire(&places, 1, COIR_NEVER);
    if (rc != 0) break;
    struct picture *p = malloc(sizeof *p);
    if (p) {
      p->places = &places, p->step = i;
      paint(p, w);
      rc = coir_job_spawn_with(job, &pictures, write_picture, p);
      if (rc != 0) free(p);
    } else {
      rc = -ENOMEM;
    }
  }
  int failed = coir_job_wait(job, &pictures); /* they use this frame */
  if (rc != 0) coir_job_fail("the simulation: %s", strerror(-rc));
  if (failed != 0) coir_job_fail("%d pictures could not be written", failed);
}

static uint64_t checksum(const struct world *w) {
  uint64_t sum = w->count, bits[2];
  for (size_t i = 0; i < w->count; i++) {
    memcpy(bits, &w->grains[i], sizeof bits);
    sum = (sum ^ bits[0]) * UINT64_C(0x100000001b3);
    sum = (sum ^ bits[1]) * UINT64_C(0x100000001b3);
  }
  return sum;
}

static int compare_with_serial(const struct world *parallel) {
  struct world w;
  int64_t begin = coir_now();
  if (!make_world(&w)) return 1;
  for (int i = 0; i < steps; i++) step(&w, true);
  bool is_same = checksum(&w) == checksum(parallel);
  printf("serial: %.1f ms, %s\n", (double)(coir_now() - begin) / 1e6, is_same ? "the same" : "DIFFERENT");
  free_world(&w);
  return !is_same;
}

int main(int argc, char **argv) {
  bool is_checked = false;
  const struct opt opts[] = {
      OPT_NUMBER("grains", capacity, 1, 10000000, "how many there will be"),
      OPT_NUMBER("steps", steps, 1, 1000000, "of 16 ms each"),
      OPT_NUMBER("every", every, 0, 1000000, "a picture after so many steps; 0: none"),
      OPT_TEXT("out", prefix, "pictures are TEXT-00100.png and so on"),
      OPT_NUMBER("threads", threads, 0, 64, "workers; 0: one per CPU"),
      OPT_FLAG("check", is_checked, "do it again serially, and compare"),
  };
  opt_read(argc, argv, "usage: sand [OPTION...]     sand falls, and is painted", opts, sizeof opts / sizeof *opts, 0);

  struct coir_job_config config = {.threads = threads};
  struct coir_job_system *jobs;
  struct world w;
  int rc = make_world(&w) ? coir_job_system_create(&jobs, &config) : -ENOMEM;
  if (rc != 0) {
    fprintf(stderr, "sand: %s\n", strerror(-rc));
    return 1;
  }
  int64_t begin = coir_now();
  struct coir_counter *done = coir_job_run(jobs, simulate, &w);
  rc = done ? coir_counter_wait(done, COIR_NEVER) : -ENOMEM;
  coir_counter_unref(done);
  printf("%zu grains, %d steps, %d workers: %.1f ms, checksum %016" PRIx64 "\n", w.count, steps,
         coir_job_system_workers(jobs), (double)(coir_now() - begin) / 1e6, checksum(&w));
  coir_job_system_destroy(jobs);
  if (rc == 0 && is_checked) rc = compare_with_serial(&w);
  free_world(&w);
  return rc != 0;
}
