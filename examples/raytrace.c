/* raytrace.c: a picture of spheres that mirror each other, one parallel loop over its pixels, written as a PNG file.
 *
 * A pixel of the sky costs next to nothing, one between two mirrors a lot, and nobody knows beforehand which is which.
 * The loop has no grain: a worker that is busy splits what it has left when another is out of work. Then the picture is
 * made again by one thread, and the file is read back; the exit status says whether all three agree in every pixel. */
#include <errno.h>
#include <math.h>
#include <png.h>

#include "coir.h"
#include "coir_job.h"
#include "options.h"

enum { SPHERES = 40, DEPTH_MAX = 5 };

struct vec {
  float x, y, z;
};
struct sphere {
  struct vec centre, colour;
  float radius, mirror;
};
struct scene {
  struct sphere spheres[SPHERES];
  struct vec light; /* the direction towards it */
  int width, height, samples;
};
struct picture {
  const struct scene *scene;
  unsigned char *rgb;
};

static struct vec vec(float x, float y, float z) { return (struct vec){x, y, z}; }
static struct vec add(struct vec a, struct vec b) { return vec(a.x + b.x, a.y + b.y, a.z + b.z); }
static struct vec scaled(struct vec a, float by) { return vec(a.x * by, a.y * by, a.z * by); }
static struct vec sub(struct vec a, struct vec b) { return add(a, scaled(b, -1)); }
static struct vec times(struct vec a, struct vec b) { return vec(a.x * b.x, a.y * b.y, a.z * b.z); }
static float dot(struct vec a, struct vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static struct vec unit(struct vec a) { return scaled(a, 1 / sqrtf(dot(a, a))); }
static struct vec mix(struct vec a, struct vec b, float part) { return add(scaled(a, 1 - part), scaled(b, part)); }

/* ---- Light ------------------------------------------------------------------------------------------------------- */

/* How far the sphere is along the ray; INFINITY when it is missed. `to` is a unit vector. */
static float distance(const struct sphere *s, struct vec from, struct vec to) {
  struct vec o = sub(from, s->centre);
  float b = dot(o, to), d = b * b - dot(o, o) + s->radius * s->radius;
  if (d < 0) return INFINITY;
  float near = -b - sqrtf(d), far = -b + sqrtf(d);
  return near > 1e-3f ? near : far > 1e-3f ? far : INFINITY;
}

static const struct sphere *nearest(const struct scene *scene, struct vec from, struct vec to, float *at) {
  const struct sphere *found = NULL;
  *at = INFINITY;
  for (int i = 0; i < SPHERES; i++) {
    float d = distance(&scene->spheres[i], from, to);
    if (d < *at) *at = d, found = &scene->spheres[i];
  }
  return found;
}

static bool is_lit(const struct scene *scene, struct vec at) {
  for (int i = 0; i < SPHERES; i++)
    if (distance(&scene->spheres[i], at, scene->light) < INFINITY) return false;
  return true;
}

/* The colour that is seen along a ray. */
static struct vec look(const struct scene *scene, struct vec from, struct vec to, int depth) {
  float at;
  const struct sphere *s = nearest(scene, from, to, &at);
  float floor_at = to.y < -1e-4f ? -from.y / to.y : INFINITY; /* the ground is y = 0 */
  bool is_floor = floor_at < at && floor_at < 60;
  if (!is_floor && !s) return mix(vec(0.95f, 0.9f, 0.8f), vec(0.25f, 0.45f, 0.8f), to.y > 0 ? sqrtf(to.y) : 0);

  struct vec point = add(from, scaled(to, is_floor ? floor_at : at));
  struct vec normal = is_floor ? vec(0, 1, 0) : unit(sub(point, s->centre));
  bool is_dark = is_floor && (((int)floorf(point.x) + (int)floorf(point.z)) & 1) != 0;
  struct vec colour = is_floor ? (is_dark ? vec(0.25f, 0.25f, 0.3f) : vec(0.8f, 0.8f, 0.75f)) : s->colour;
  point = add(point, scaled(normal, 1e-3f)); /* clear of the surface that it is on */
  float shine = dot(normal, scene->light);
  float light = 0.2f + (shine > 0 && is_lit(scene, point) ? 0.8f * shine : 0);
  struct vec seen = scaled(colour, light);
  float mirror = is_floor ? 0.1f : s->mirror;
  if (mirror == 0 || depth == DEPTH_MAX) return seen;
  struct vec bounced = sub(to, scaled(normal, 2 * dot(to, normal)));
  return mix(seen, times(look(scene, point, bounced, depth + 1), mix(colour, vec(1, 1, 1), 0.5f)), mirror);
}

static unsigned char byte_of(float light) {
  return (unsigned char)(255 * sqrtf(light < 0 ? 0 : light > 1 ? 1 : light));
}

/* Not inlined: the serial run is to round as the parallel one does, wherever the compiler may fuse operations. */
static __attribute__((noinline)) void shade(const struct scene *s, size_t pixel, unsigned char *rgb) {
  int x = (int)(pixel % (size_t)s->width), y = (int)(pixel / (size_t)s->width), n = s->samples;
  struct vec eye = vec(0, 2.2f, -9), sum = vec(0, 0, 0);
  for (int i = 0; i < n * n; i++) {
    float across = (float)x + ((float)(i % n) + 0.5f) / (float)n - (float)s->width / 2;
    float up = (float)s->height / 2 - (float)y - ((float)(i / n) + 0.5f) / (float)n;
    sum = add(sum, look(s, eye, unit(vec(across, up - 0.12f * (float)s->height, 1.1f * (float)s->height)), 0));
  }
  sum = scaled(sum, 1 / (float)(n * n));
  rgb[0] = byte_of(sum.x), rgb[1] = byte_of(sum.y), rgb[2] = byte_of(sum.z);
}

static void shade_pixels(size_t lo, size_t hi, void *picture) {
  struct picture *p = picture;
  for (size_t i = lo; i < hi; i++) shade(p->scene, i, p->rgb + 3 * i);
}

/* ---- The scene, and files ---------------------------------------------------------------------------------------- */

static void set_up(struct scene *scene) {
  uint32_t seed = 7;
  scene->light = unit(vec(-0.5f, 0.8f, -0.6f));
  for (int i = 0; i < SPHERES; i++) {
    float r[6];
    for (int k = 0; k < 6; k++) r[k] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / (float)(1 << 24);
    struct sphere *s = &scene->spheres[i];
    s->radius = i < 3 ? 1.3f : 0.15f + 0.35f * r[0];
    s->centre =
        i < 3 ? vec(2.9f * (float)(i - 1), 1.3f, i == 1 ? 1.5f : 0) : vec(14 * r[1] - 7, s->radius, 14 * r[2] - 5);
    s->colour = vec(0.3f + 0.7f * r[3], 0.3f + 0.7f * r[4], 0.3f + 0.7f * r[5]);
    s->mirror = i == 1 ? 0.9f : i % 3 == 0 ? 0.5f : 0.05f;
  }
}

/* The file's pixels are those of the picture. */
static bool is_in_file(const char *path, const struct picture *p) {
  size_t bytes = (size_t)p->scene->width * (size_t)p->scene->height * 3;
  unsigned char *rgb = malloc(bytes);
  png_image image = {.version = PNG_IMAGE_VERSION};
  bool is_same = false;
  if (rgb && png_image_begin_read_from_file(&image, path)) {
    image.format = PNG_FORMAT_RGB;
    is_same = (int)image.width == p->scene->width && (int)image.height == p->scene->height &&
              png_image_finish_read(&image, NULL, rgb, 0, NULL) && memcmp(rgb, p->rgb, bytes) == 0;
    png_image_free(&image);
  }
  free(rgb);
  return is_same;
}

static int report(struct picture *parallel, struct picture *serial, const char *path, int64_t parallel_ns) {
  const struct scene *scene = parallel->scene;
  size_t pixels = (size_t)scene->width * (size_t)scene->height;
  int64_t begin = coir_now();
  png_image image = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB};
  image.width = (png_uint_32)scene->width, image.height = (png_uint_32)scene->height;
  if (!png_image_write_to_file(&image, path, 0, parallel->rgb, 0, NULL)) {
    fprintf(stderr, "raytrace: %s: %s\n", path, image.message);
    return 1;
  }
  int64_t written = coir_now();
  shade_pixels(0, pixels, serial);
  int64_t serial_ns = coir_now() - written;
  bool is_same = memcmp(parallel->rgb, serial->rgb, 3 * pixels) == 0, is_read = is_in_file(path, serial);
  printf("%s: %dx%d\nparallel %.1f ms, serial %.1f ms (%.2f times), file %.1f ms\n", path, scene->width, scene->height,
         (double)parallel_ns / 1e6, (double)serial_ns / 1e6, (double)serial_ns / (double)parallel_ns,
         (double)(written - begin) / 1e6);
  printf("compared with the serial run: %s; in the file: %s\n", is_same ? "the same" : "DIFFERENT",
         is_read ? "the same" : "DIFFERENT");
  return !is_same || !is_read;
}

int main(int argc, char **argv) {
  static struct scene scene = {.width = 640, .height = 360, .samples = 2};
  const char *path = "raytrace.png";
  int threads = 0;
  const struct opt opts[] = {
      OPT_NUMBER("width", scene.width, 1, 16384, "of the picture, in pixels"),
      OPT_NUMBER("height", scene.height, 1, 16384, "likewise"),
      OPT_NUMBER("samples", scene.samples, 1, 16, "squared: rays for each pixel"),
      OPT_TEXT("out", path, "the file"),
      OPT_NUMBER("threads", threads, 0, 64, "workers; 0: one per CPU"),
  };
  opt_read(argc, argv, "usage: raytrace [OPTION...]     spheres, as a PNG file", opts, sizeof opts / sizeof *opts, 0);
  set_up(&scene);

  size_t pixels = (size_t)scene.width * (size_t)scene.height;
  struct picture parallel = {&scene, malloc(3 * pixels)}, serial = {&scene, malloc(3 * pixels)};
  struct coir_job_config config = {.threads = threads};
  struct coir_job_system *jobs = NULL;
  int rc = parallel.rgb && serial.rgb ? coir_job_system_create(&jobs, &config) : -ENOMEM;
  int64_t begin = coir_now();
  if (rc == 0) rc = coir_parallel_range(jobs, 0, pixels, 0, shade_pixels, &parallel);
  if (rc == 0) rc = report(&parallel, &serial, path, coir_now() - begin);
  if (rc < 0) fprintf(stderr, "raytrace: %s\n", strerror(-rc));
  coir_job_system_destroy(jobs);
  free(parallel.rgb);
  free(serial.rgb);
  return rc != 0;
}
