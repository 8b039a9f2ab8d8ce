/* Runs a fuzz program without libFuzzer.
 *
 * usage: fuzz_x [--seconds N] [--seed S] [--runs N]     inputs made of the seeds S, S + 1, ... (default: by the time)
 *        fuzz_x FILE...                                 these inputs
 *
 * When an input fails its seed is printed: --seed S --runs 1 does it again, and --save FILE writes it to a file. */
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <unistd.h>

#include "fuzz.h"

enum { BYTES_MAX = 512 };

static uint64_t seed;
static const char *save;

static void say_seed(int number) {
  char text[96];
  int n = snprintf(text, sizeof text, "the input of --seed %llu --runs 1 failed\n", (unsigned long long)seed);
  ssize_t written = write(2, text, (size_t)n);
  (void)written;
  signal(number, SIG_DFL);
  raise(number);
}

/* Splitmix64 (Steele, Lea, Flood, 2014): seeds that follow each other give numbers that have nothing in common. */
static uint64_t next(uint64_t *state) {
  uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

static size_t make(uint8_t *data) {
  uint64_t state = seed;
  size_t bytes = next(&state) % BYTES_MAX;
  for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)(next(&state) >> 24);
  return bytes;
}

/* On the heap, with nothing behind it, so that reading past its end is found. */
static void run_one(const uint8_t *data, size_t bytes) {
  uint8_t *copy = malloc(bytes + !bytes);
  CHECK(copy);
  memcpy(copy, data, bytes);
  LLVMFuzzerTestOneInput(copy, bytes);
  free(copy);
}

static void run_file(const char *path) {
  static uint8_t data[1 << 20];
  FILE *file = fopen(path, "rb");
  CHECK(file);
  size_t bytes = fread(data, 1, sizeof data, file);
  fclose(file);
  run_one(data, bytes);
}

static void write_file(const char *path, const uint8_t *data, size_t bytes) {
  FILE *file = fopen(path, "wb");
  CHECK(file && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
}

/* By gettimeofday: the other clock stands still. */
static double seconds_now(void) {
  struct timeval tv;
  gettimeofday(&tv, NULL);
  return (double)tv.tv_sec + (double)tv.tv_usec / 1e6;
}

static void run_seeds(double seconds, uint64_t runs) {
  uint8_t data[BYTES_MAX];
  double end = seconds_now() + seconds;
  uint64_t first = seed, done = 0;
  for (; done < runs && (done % 16 || seconds_now() < end); done++, seed++) {
    size_t bytes = make(data);
    if (save) write_file(save, data, bytes);
    run_one(data, bytes);
  }
  printf("%llu inputs, from --seed %llu\n", (unsigned long long)done, (unsigned long long)first);
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"seconds", required_argument, NULL, 't'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"runs", required_argument, NULL, 'r'},
                                          {"save", required_argument, NULL, 'w'},
                                          {0}};
  double seconds = 1e9;
  uint64_t runs = UINT64_MAX;
  seed = (uint64_t)(seconds_now() * 1e6);
  for (int kind; (kind = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (kind == 't') seconds = strtod(optarg, NULL);
    else if (kind == 's') seed = strtoull(optarg, NULL, 10);
    else if (kind == 'r') runs = strtoull(optarg, NULL, 10);
    else if (kind == 'w') save = optarg;
    else return 2;
  }
  if (optind < argc) {
    for (int i = optind; i < argc; i++) run_file(argv[i]);
    return 0;
  }
  signal(SIGABRT, say_seed);
  run_seeds(seconds, runs);
  return 0;
}
