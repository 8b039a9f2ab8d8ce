/* C programs under fire: libc, its locks, threads' locks, registers, and Coir's own calls (fire.h). */
#include "fire.h"

#include <dlfcn.h>
#include <locale.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "registers.h"

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

#define BLOCKS 32
#define BLOCK_MAX 20000

struct block {
  unsigned char *at;
  size_t bytes;
  unsigned char pattern;
};

static struct block blocks[FIRE_HOGS_MAX][BLOCKS];
static COIR_CHAN(struct block) exchange; /* so that blocks are freed by other threads than those that made them */

static void fill(struct block *b) { memset(b->at, b->pattern, b->bytes); }

static void check_filled(const struct block *b, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) FIRE_CHECK(b->at[i] == b->pattern);
}

static void block_make(struct fire_hog *hog, struct block *b) {
  size_t bytes = fire_random(hog) % (fire_random(hog) % 8 ? 512 : BLOCK_MAX) + 1;
  uint64_t how = fire_random(hog) % 4;
  b->bytes = bytes;
  b->pattern = (unsigned char)fire_random(hog);
  if (how == 0) {
    b->at = (unsigned char *)calloc(1, bytes);
    for (size_t i = 0; i < bytes; i++) FIRE_CHECK(b->at[i] == 0);
  } else if (how == 1) {
    void *at = NULL;
    FIRE_CHECK(posix_memalign(&at, 256, bytes) == 0 && (uintptr_t)at % 256 == 0);
    b->at = (unsigned char *)at;
  } else {
    b->at = (unsigned char *)malloc(bytes);
  }
  FIRE_CHECK(b->at);
  fill(b);
}

static void memory(struct fire_hog *hog) {
  for (int i = 0; i < 100; i++) {
    struct block *b = &blocks[hog->number][fire_random(hog) % BLOCKS];
    uint64_t what = fire_random(hog) % 8;
    if (!b->at) {
      block_make(hog, b);
    } else if (what < 3) {
      check_filled(b, b->bytes);
      free(b->at);
      b->at = NULL;
    } else if (what < 6) {
      size_t bytes = fire_random(hog) % BLOCK_MAX + 1;
      b->at = (unsigned char *)realloc(b->at, bytes);
      FIRE_CHECK(b->at);
      check_filled(b, bytes < b->bytes ? bytes : b->bytes);
      b->bytes = bytes;
      fill(b);
    } else if (what == 6) {
      if (COIR_SEND(exchange, b, 0) == 0) b->at = NULL;
    } else {
      struct block other;
      if (COIR_RECV(exchange, &other, 0)) continue;
      check_filled(&other, other.bytes);
      free(other.at);
    }
  }
}

static void memory_end(void) {
  struct block b;
  while (COIR_RECV(exchange, &b, 0) == 0) {
    check_filled(&b, b.bytes);
    free(b.at);
  }
  for (int i = 0; i < FIRE_HOGS_MAX; i++) {
    for (int j = 0; j < BLOCKS; j++) {
      if (blocks[i][j].at) check_filled(&blocks[i][j], blocks[i][j].bytes);
      free(blocks[i][j].at);
    }
  }
  COIR_CHAN_UNREF(exchange);
}

/* ---- Text ------------------------------------------------------------------------------------------------------ */

static FILE *lines; /* to the reader below */
static uint64_t lines_written, lines_read;

static uint64_t line_sum(int number, uint64_t value) { return (value + (uint64_t)number) * UINT64_C(2654435761); }

static void output(struct fire_hog *hog) {
  for (int i = 0; i < 20; i++) {
    uint64_t value = fire_random(hog);
    int n = fprintf(lines, "%d %llu %-40s %.3f %llu\n", hog->number, (unsigned long long)value, "words in between",
                    (double)(value % 1000) / 8, (unsigned long long)line_sum(hog->number, value));
    FIRE_CHECK(n > 0);
    __atomic_fetch_add(&lines_written, 1, __ATOMIC_RELAXED);
  }
}

/* On a thread of its own: every line arrives whole. */
static void *read_lines(void *file) {
  char line[256];
  while (fgets(line, sizeof line, (FILE *)file)) {
    int number, end = 0;
    unsigned long long value, sum;
    double eighth;
    FIRE_CHECK(sscanf(line, "%d %llu words in between %lf %llu%n", &number, &value, &eighth, &sum, &end) == 4);
    FIRE_CHECK(line[end] == '\n' && sum == line_sum(number, value) && eighth == (double)(value % 1000) / 8);
    lines_read++;
  }
  return NULL;
}

static void conversions(struct fire_hog *hog) {
  for (int i = 0; i < 50; i++) {
    char text[128], *end, *rest = NULL;
    double value = (double)(int64_t)fire_random(hog) / 4096;
    snprintf(text, sizeof text, "%.17g,%lld;%s", value, (long long)i, "tail");
    FIRE_CHECK(strtod(text, &end) == value && *end == ',');
    char *first = strtok_r(text, ",", &rest), *second = strtok_r(NULL, ";", &rest), *third = strtok_r(NULL, "", &rest);
    FIRE_CHECK(first && second && third && atoll(second) == i && strcmp(third, "tail") == 0);
  }
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Enough of it that qsort allocates. */
static void sorting(struct fire_hog *hog) {
  uint32_t values[600], sum = 0;
  for (int i = 0; i < 600; i++) sum += values[i] = (uint32_t)fire_random(hog);
  qsort(values, 600, sizeof *values, by_value);
  for (int i = 0; i < 600; i++) sum -= values[i];
  for (int i = 1; i < 600; i++) FIRE_CHECK(values[i - 1] <= values[i]);
  FIRE_CHECK(sum == 0);
}

static void locales(struct fire_hog *hog) {
  static const char *const names[] = {"C", "POSIX", "C.UTF-8"};
  char text[64];
  for (int i = 0; i < 5; i++) {
    locale_t mine = newlocale(LC_ALL_MASK, names[fire_random(hog) % 3], (locale_t)0);
    if (!mine) mine = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* a system without C.UTF-8 */
    FIRE_CHECK(mine);
    locale_t before = uselocale(mine);
    snprintf(text, sizeof text, "%.2f %d", 1234.5, i);
    fire_compute(2000);
    FIRE_CHECK(text[4] == '.' && strlen(text) == 9);
    FIRE_CHECK(uselocale(before) == mine); /* what was set for the thread is this fiber's still */
    freelocale(mine);
  }
}

#define VARIABLES 16

static pthread_mutex_t env_lock = PTHREAD_MUTEX_INITIALIZER;

static void variable(char *text, int i) { snprintf(text, 32, "FIRE_VARIABLE_%d", i); }

/* libc itself reads the environment without this lock, so nothing is added to it. */
static void environment(struct fire_hog *hog) {
  for (int i = 0; i < 10; i++) {
    char name[32], value[32];
    variable(name, (int)(fire_random(hog) % VARIABLES));
    snprintf(value, sizeof value, "value %d", (int)(fire_random(hog) % 64)); /* libc keeps them all */
    FIRE_CHECK(pthread_mutex_lock(&env_lock) == 0);
    FIRE_CHECK(setenv(name, value, 1) == 0);
    const char *found = getenv(name);
    FIRE_CHECK(found && strcmp(found, value) == 0);
    FIRE_CHECK(pthread_mutex_unlock(&env_lock) == 0);
  }
}

static void calendar(struct fire_hog *hog) {
  for (int i = 0; i < 20; i++) {
    time_t t = (time_t)(fire_random(hog) % 2000000000);
    struct tm tm;
    char text[64];
    FIRE_CHECK(localtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%d", &tm) == 10);
    FIRE_CHECK(mktime(&tm) == t);
    FIRE_CHECK(strlen(strerror(EAGAIN)) > 0);
  }
}

/* ---- The thread, its locks and registers ----------------------------------------------------------------------- */

static pthread_mutex_t counter_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t table_lock = PTHREAD_RWLOCK_INITIALIZER;
static uint64_t counter, counted, table[8];

static void thread_locks(struct fire_hog *hog) {
  for (int i = 0; i < 20; i++) {
    FIRE_CHECK(pthread_mutex_lock(&counter_lock) == 0);
    uint64_t was = counter;
    fire_compute(300);
    counter = was + 1;
    FIRE_CHECK(pthread_mutex_unlock(&counter_lock) == 0);
    __atomic_fetch_add(&counted, 1, __ATOMIC_RELAXED);
    if (fire_random(hog) % 4 == 0) {
      FIRE_CHECK(pthread_rwlock_wrlock(&table_lock) == 0);
      for (int j = 0; j < 8; j++) table[j]++, fire_compute(50);
    } else {
      FIRE_CHECK(pthread_rwlock_rdlock(&table_lock) == 0);
      for (int j = 0; j < 8; j++) FIRE_CHECK(table[j] == table[0]);
    }
    FIRE_CHECK(pthread_rwlock_unlock(&table_lock) == 0);
  }
}

static _Thread_local int thread_mark;

static __attribute__((noinline)) int *mark_of_thread(void) {
  __asm__ volatile("" ::: "memory");
  return &thread_mark;
}

/* Nobody else uses the thread until the fiber waits. */
static void thread_locals(struct fire_hog *hog) {
  int *mark = mark_of_thread();
  for (int i = 0; i < 50; i++) {
    FIRE_CHECK(*mark == 0);
    *mark = hog->number + 1;
    errno = hog->number;
    fire_compute(3000);
    FIRE_CHECK(mark_of_thread() == mark && *mark == hog->number + 1 && errno == hog->number);
    *mark = 0;
  }
}

static uint64_t sums[REGISTERS_KINDS][4];

static void registers(struct fire_hog *hog) {
  int kind = (int)(fire_random(hog) % REGISTERS_KINDS), seed = (int)(fire_random(hog) % 4);
  FIRE_CHECK(registers_run(kind, (uint64_t)seed, 30000) == sums[kind][seed]);
}

static void libraries(struct fire_hog *hog) {
  static const char *const names[] = {"libm.so.6", "libutil.so.1", "libresolv.so.2", "libdl.so.2"};
  void *library = dlopen(names[fire_random(hog) % 4], RTLD_NOW | RTLD_LOCAL);
  void *math = dlopen("libm.so.6", RTLD_LAZY);
  FIRE_CHECK(math);
  double (*floor_of)(double);
  *(void **)&floor_of = dlsym(math, "floor");
  FIRE_CHECK(floor_of && floor_of(2.5) == 2);
  FIRE_CHECK(dlsym(math, "no_such_function") == NULL && dlerror() != NULL);
  FIRE_CHECK(dlclose(math) == 0);
  if (library) FIRE_CHECK(dlclose(library) == 0);
}

/* A call that a signal meets goes on, or says so. */
static void kernel(struct fire_hog *hog) {
  int fds[2];
  char c = 0;
  FIRE_CHECK(pipe(fds) == 0);
  for (int i = 0; i < 5; i++) {
    char sent = (char)fire_random(hog);
    FIRE_CHECK(write(fds[1], &sent, 1) == 1);
    FIRE_CHECK(read(fds[0], &c, 1) == 1 && c == sent);
  }
  int rc = poll(&(struct pollfd){.fd = fds[0], .events = POLLIN}, 1, (int)(fire_random(hog) % 3));
  FIRE_CHECK(rc == 0 || (rc < 0 && errno == EINTR));
  FIRE_CHECK(close(fds[0]) == 0 && close(fds[1]) == 0);
}

/* ---- Coir ------------------------------------------------------------------------------------------------------ */

#define TOKENS 8

static COIR_CHAN(uint64_t) tokens;
static struct coir_mutex mutex;
static uint64_t guarded, guards;
static uint64_t slots[64];
static uint64_t slots_added;

static void channels(struct fire_hog *hog) {
  uint64_t token;
  for (int i = 0; i < 10; i++) {
    if (COIR_RECV(tokens, &token, coir_after(COIR_MS(5)))) continue;
    fire_compute((int)(fire_random(hog) % 5000));
    FIRE_CHECK(COIR_SEND(tokens, &token, COIR_NEVER) == 0);
  }
}

static void mutexes(struct fire_hog *hog) {
  for (int i = 0; i < 10; i++) {
    FIRE_CHECK(coir_mutex_lock(&mutex, COIR_NEVER) == 0);
    uint64_t was = guarded;
    fire_compute((int)(fire_random(hog) % 3000));
    guarded = was + 1;
    coir_mutex_unlock(&mutex);
    __atomic_fetch_add(&guards, 1, __ATOMIC_RELAXED);
  }
}

static void holds(struct fire_hog *hog) {
  for (int i = 0; i < 10; i++) {
    coir_hold_begin();
    int mine = coir_worker_index();
    FIRE_CHECK(mine >= 0 && mine < 64);
    uint64_t was = slots[mine];
    fire_compute((int)(fire_random(hog) % 10000));
    slots[mine] = was + 1;
    FIRE_CHECK(coir_worker_index() == mine);
    coir_hold_end();
    __atomic_fetch_add(&slots_added, 1, __ATOMIC_RELAXED);
  }
}

static int child(void *arg) {
  fire_compute(5000);
  *(int *)arg += 1;
  coir_yield();
  return *(int *)arg;
}

static void spawns(struct fire_hog *hog) {
  struct coir_fiber *fibers[4];
  struct coir_result result;
  int values[4];
  for (int i = 0; i < 4; i++) {
    values[i] = (int)(fire_random(hog) % 1000);
    FIRE_CHECK(coir_spawn(child, &values[i], NULL, &fibers[i]) == 0);
  }
  for (int i = 0; i < 4; i++) {
    FIRE_CHECK(coir_join(fibers[i], &result, COIR_NEVER) == 0);
    FIRE_CHECK(result.status == values[i]);
  }
}

static void waits(struct fire_hog *hog) {
  struct coir_fiber *self = coir_current();
  FIRE_CHECK(self && coir_fiber_id(NULL) == coir_fiber_id(self));
  FIRE_CHECK(coir_sleep(COIR_US(fire_random(hog) % 500)) == 0);
  FIRE_CHECK(coir_yield() == 0);
  FIRE_CHECK(coir_current() == self);
}

static void blocks_on_purpose(struct fire_hog *hog) {
  int rc = coir_block_enter();
  FIRE_CHECK(rc == 0 || rc == -EAGAIN);
  usleep((useconds_t)(fire_random(hog) % 300));
  coir_block_leave();
}

static int echoes(void *fd) {
  char buf[64];
  ssize_t n;
  while ((n = coir_read((int)(intptr_t)fd, buf, sizeof buf, COIR_NEVER)) > 0)
    FIRE_CHECK(coir_write_full((int)(intptr_t)fd, buf, (size_t)n, COIR_NEVER) == n);
  return n < 0;
}

static void sockets(struct fire_hog *hog) {
  int fds[2];
  char out[64], in[64];
  struct coir_fiber *fiber;
  struct coir_result result;
  FIRE_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  FIRE_CHECK(coir_spawn(echoes, (void *)(intptr_t)fds[1], NULL, &fiber) == 0);
  for (int i = 0; i < 10; i++) {
    memset(out, (int)(fire_random(hog) % 256), sizeof out);
    FIRE_CHECK(coir_write_full(fds[0], out, sizeof out, COIR_NEVER) == (ssize_t)sizeof out);
    FIRE_CHECK(coir_read_full(fds[0], in, sizeof in, COIR_NEVER) == (ssize_t)sizeof in);
    FIRE_CHECK(memcmp(in, out, sizeof in) == 0);
  }
  FIRE_CHECK(coir_close(fds[0]) == 0);
  FIRE_CHECK(coir_join(fiber, &result, COIR_NEVER) == 0 && result.status == 0);
  FIRE_CHECK(coir_close(fds[1]) == 0);
}

static void computing(struct fire_hog *hog) { fire_compute((int)(fire_random(hog) % 1000000)); }

/* ---- All of it ------------------------------------------------------------------------------------------------- */

/* The last two are not for ThreadSanitizer, which does not know of the locks of the loader and of locales. */
static const struct fire_act acts[] = {
    {"memory", memory},
    {"output", output},
    {"conversions", conversions},
    {"sorting", sorting},
    {"environment", environment},
    {"calendar", calendar},
    {"locks", thread_locks},
    {"thread-locals", thread_locals},
    {"registers", registers},
    {"kernel", kernel},
    {"channels", channels},
    {"mutexes", mutexes},
    {"holds", holds},
    {"spawns", spawns},
    {"waits", waits},
    {"blocking calls", blocks_on_purpose},
    {"sockets", sockets},
    {"computing", computing},
    {"locales", locales},
    {"libraries", libraries},
};

int main(int argc, char **argv) {
  int fds[2];
  pthread_t reader;
  uint64_t token, sum = 0;
  exchange = COIR_CHAN_CREATE(struct block, 64);
  tokens = COIR_CHAN_CREATE(uint64_t, TOKENS);
  FIRE_CHECK(exchange && tokens && pipe(fds) == 0);
  for (token = 1; token <= TOKENS; token++) FIRE_CHECK(COIR_SEND(tokens, &token, 0) == 0);
  for (int i = 0; i < REGISTERS_KINDS; i++)
    for (int j = 0; j < 4; j++) sums[i][j] = registers_run(i, (uint64_t)j, 30000);
  if (IS_TSAN) FIRE_CHECK(setenv("TZ", "UTC", 1) == 0); /* else libc reads it under a lock that nobody sees */
  for (int i = 0; i < VARIABLES; i++) {
    char name[32];
    variable(name, i);
    FIRE_CHECK(setenv(name, "", 1) == 0);
  }
  tzset();
  FILE *input = fdopen(fds[0], "r");
  lines = fdopen(fds[1], "w");
  FIRE_CHECK(input && lines && pthread_create(&reader, NULL, read_lines, input) == 0);

  int rc = fire_main(argc, argv, acts, (int)(sizeof acts / sizeof *acts) - 2 * IS_TSAN);

  FIRE_CHECK(fclose(lines) == 0 && pthread_join(reader, NULL) == 0 && fclose(input) == 0);
  FIRE_CHECK(lines_read == lines_written && lines_read > 0);
  FIRE_CHECK(counter == counted && guarded == guards);
  while (COIR_RECV(tokens, &token, 0) == 0) sum += token;
  FIRE_CHECK(sum == TOKENS * (TOKENS + 1) / 2);
  COIR_CHAN_UNREF(tokens);
  for (int i = 0; i < 64; i++) slots_added -= slots[i];
  FIRE_CHECK(slots_added == 0);
  memory_end();
  return rc;
}
