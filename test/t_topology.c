/* The machine: made-up ones, below a folder of the test's, and the one that it runs on. */
#include "harness.h"

#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <sys/stat.h>

#include "topology.h"

/* ---- Made-up machines ------------------------------------------------------------------------------------------ */

static char root[64];

static void machine_begin(void) {
  size_t length = strlen(strcpy(root, "/tmp/coir-topology-"));
  memset(root + length, 'X', 6); /* for mkdtemp */
  root[length + 6] = '\0';
  CHECK(mkdtemp(root));
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st, (void)type, (void)at;
  return remove(path);
}

static void machine_end(void) { CHECK_EQ(nftw(root, drop, 16, FTW_DEPTH | FTW_PHYS), 0); }

static void put_bytes(const char *text, size_t bytes, const char *name) {
  char path[256];
  CHECK(snprintf(path, sizeof path, "%s/%s", root, name) < (int)sizeof path);
  for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')) != NULL; *at++ = '/') {
    *at = '\0';
    CHECK(mkdir(path, 0700) == 0 || errno == EEXIST);
  }
  FILE *file = fopen(path, "w");
  CHECK(file);
  CHECK_EQ(fwrite(text, 1, bytes, file), bytes);
  CHECK_EQ(fclose(file), 0);
}

/* Writes the file with that name, of the format. */
static __attribute__((format(printf, 2, 3))) void put(const char *text, const char *format, ...) {
  char name[128];
  va_list args;
  va_start(args, format);
  vsnprintf(name, sizeof name, format, args);
  va_end(args);
  put_bytes(text, strlen(text), name);
}

static void put_siblings(int id, const char *list) { put(list, "cpu/cpu%d/topology/thread_siblings_list", id); }

static void put_core(int id, const char *core, const char *package) {
  put(core, "cpu/cpu%d/topology/core_id", id);
  put(package, "cpu/cpu%d/topology/physical_package_id", id);
}

static void put_cache(int id, int index, const char *level, const char *list) {
  put(level, "cpu/cpu%d/cache/index%d/level", id, index);
  put(list, "cpu/cpu%d/cache/index%d/shared_cpu_list", id, index);
}

/* Ends with -1. */
static struct coir__cpus mask_of(const int *ids) {
  struct coir__cpus mask = {{0}};
  for (; *ids >= 0; ids++) mask.bits[*ids / COIR__CPUS_WORD] |= 1UL << (*ids % COIR__CPUS_WORD);
  return mask;
}

static struct coir__cpus mask_range(int first, int last) {
  struct coir__cpus mask = {{0}};
  for (int i = first; i <= last; i++) mask.bits[i / COIR__CPUS_WORD] |= 1UL << (i % COIR__CPUS_WORD);
  return mask;
}

/* ---- What is true of every machine ------------------------------------------------------------------------------ */

/* Which of `n` numbers fact(t, i) gives: all from 0 on. Returns n. */
static int numbers_are_dense(const struct coir_topology *t, int (*fact)(const struct coir_topology *t, int i)) {
  int n = 0;
  for (int i = 0; i < coir_topology_cpus(t); i++) {
    int here = fact(t, i);
    CHECK(here >= 0 && here <= n); /* given in the order of CPUs */
    if (here == n) n++;
  }
  return n;
}

static int index_of(const struct coir_topology *t, int id) {
  for (int i = 0; i < coir_topology_cpus(t); i++)
    if (coir_topology_cpu(t, i) == id) return i;
  return -1;
}

static void siblings_are_sane(const struct coir_topology *t, int i) {
  int out[64], n = coir_topology_siblings(t, i, out, 64), same = 0;
  CHECK(n >= 1 && n <= 64);
  for (int j = 0; j < coir_topology_cpus(t); j++) same += coir_topology_core_of(t, j) == coir_topology_core_of(t, i);
  CHECK_EQ(n, same);
  bool has_self = false;
  for (int j = 0; j < n; j++) {
    int k = index_of(t, out[j]);
    CHECK(k >= 0 && coir_topology_core_of(t, k) == coir_topology_core_of(t, i));
    CHECK(j == 0 || out[j] > out[j - 1]);
    has_self |= k == i;
  }
  CHECK(has_self);
}

/* The first `length` workers have a CPU each, and then it begins again. */
static void places_are_sane(const struct coir_topology *t, enum coir_pinning pinning, int length) {
  int last = 0, tier = 9;
  for (int w = 0; w < 2 * length; w++) {
    int id = coir_topology_place(t, pinning, w, &tier);
    CHECK(index_of(t, id) >= 0);
    CHECK(tier >= last && tier <= (pinning == COIR_PIN_TIERED_SPILLOVER ? 2 : 0));
    last = tier;
    CHECK_EQ(coir_topology_place(t, pinning, w, NULL), id);
    for (int v = 0; v < w && w < length; v++) CHECK(coir_topology_place(t, pinning, v, NULL) != id);
    if (w >= length) CHECK_EQ(coir_topology_place(t, pinning, w - length, NULL), id);
  }
}

static void is_sane(const struct coir_topology *t) {
  CHECK(t);
  int n = coir_topology_cpus(t), in_first_cache = 0;
  CHECK(n >= 1);
  CHECK(coir_topology_usable(t) >= 1 && coir_topology_usable(t) <= n);
  CHECK_EQ(numbers_are_dense(t, coir_topology_core_of), coir_topology_cores(t));
  CHECK_EQ(numbers_are_dense(t, coir_topology_node_of), coir_topology_nodes(t));
  numbers_are_dense(t, coir_topology_cache_of);
  for (int i = 0; i < n; i++) {
    CHECK(i == 0 || coir_topology_cpu(t, i) > coir_topology_cpu(t, i - 1));
    in_first_cache += coir_topology_cache_of(t, i) == 0;
    siblings_are_sane(t, i);
  }
  places_are_sane(t, COIR_PIN_LINEAR, n);
  places_are_sane(t, COIR_PIN_AVOID_SMT, n);
  places_are_sane(t, COIR_PIN_CCD_ISOLATION, in_first_cache);
  places_are_sane(t, COIR_PIN_TIERED_SPILLOVER, n);
}

static struct coir_topology *read_machine(struct coir__cpus mask, int usable) {
  struct coir_topology *t = coir__topology_read(root, &mask, usable);
  is_sane(t);
  return t;
}

/* `ids` ends with -1, and so many workers are looked at. */
static void places_are(const struct coir_topology *t, enum coir_pinning pinning, const int *ids) {
  for (int w = 0; ids[w] >= 0; w++) CHECK_EQ(coir_topology_place(t, pinning, w, NULL), ids[w]);
}

static void counts_are(const struct coir_topology *t, int cpus, int cores, int caches, int nodes) {
  CHECK_EQ(coir_topology_cpus(t), cpus);
  CHECK_EQ(coir_topology_cores(t), cores);
  CHECK_EQ(numbers_are_dense(t, coir_topology_cache_of), caches);
  CHECK_EQ(coir_topology_nodes(t), nodes);
}

/* ---- A server: 2 sockets x 2 caches x 4 cores x 2 siblings ------------------------------------------------------- */

/* CPUs 0 to 15 are the first of each core, 16 to 31 the second. */
static void put_server(void) {
  char list[64];
  for (int id = 0; id < 32; id++) {
    int core = id % 16, cache = core / 4 * 4;
    snprintf(list, sizeof list, "%d,%d\n", core, core + 16);
    put_siblings(id, list);
    put_cache(id, 0, "1\n", list);
    put_cache(id, 1, "1\n", list);
    put_cache(id, 2, "2\n", list);
    snprintf(list, sizeof list, "%d-%d,%d-%d\n", cache, cache + 3, cache + 16, cache + 19);
    put_cache(id, 3, "3\n", list);
  }
  put("0-31\n", "cpu/online");
  put("0-1\n", "node/online");
  put("0-7,16-23\n", "node/node0/cpulist");
  put("8-15,24-31\n", "node/node1/cpulist");
}

static void reads_a_server(void **state) {
  (void)state;
  int tier, out[4];
  machine_begin();
  put_server();
  struct coir_topology *t = read_machine(mask_range(0, 31), 12);
  counts_are(t, 32, 16, 4, 2);
  CHECK_EQ(coir_topology_usable(t), 12);
  CHECK_EQ(coir_topology_siblings(t, 21, out, 4), 2);
  CHECK(out[0] == 5 && out[1] == 21);
  CHECK_EQ(coir_topology_cache_of(t, 21), 1);
  CHECK_EQ(coir_topology_node_of(t, 29), 1);
  for (int w = 0; w < 40; w++) {
    CHECK_EQ(coir_topology_place(t, COIR_PIN_LINEAR, w, NULL), w % 32);
    CHECK_EQ(coir_topology_place(t, COIR_PIN_AVOID_SMT, w, NULL), w % 32);
    CHECK_EQ(coir_topology_place(t, COIR_PIN_CCD_ISOLATION, w, NULL), w % 4 + (w % 8 < 4 ? 0 : 16));
    CHECK_EQ(coir_topology_place(t, COIR_PIN_TIERED_SPILLOVER, w, &tier), w % 32);
    CHECK_EQ(tier, w < 4 ? 0 : w < 16 ? 1 : 2);
  }
  coir_topology_destroy(t);
  machine_end();
}

static void reads_a_part_of_it(void **state) {
  (void)state;
  int tier;
  machine_begin();
  put_server();
  /* 17 and 18 have caches' first cores 1 and 2, of which 2 is there as well; 28 is 12's sibling, which is not. */
  struct coir_topology *t = read_machine(mask_of((const int[]){2, 5, 17, 18, 21, 28, -1}), 100);
  counts_are(t, 6, 4, 3, 2);
  CHECK_EQ(coir_topology_usable(t), 6);
  places_are(t, COIR_PIN_LINEAR, (const int[]){2, 5, 17, 18, 21, 28, 2, 5, -1});
  places_are(t, COIR_PIN_AVOID_SMT, (const int[]){2, 5, 17, 28, 18, 21, 2, -1});
  places_are(t, COIR_PIN_CCD_ISOLATION, (const int[]){2, 17, 18, 2, 17, 18, 2, -1});
  places_are(t, COIR_PIN_TIERED_SPILLOVER, (const int[]){2, 17, 5, 28, 18, 21, 2, -1});
  const int tiers[] = {0, 0, 1, 1, 2, 2, 2, 2};
  for (int w = 0; w < 8; w++) {
    coir_topology_place(t, COIR_PIN_TIERED_SPILLOVER, w, &tier);
    CHECK_EQ(tier, tiers[w]);
  }
  coir_topology_destroy(t);
  t = read_machine(mask_of((const int[]){31, -1}), 1);
  counts_are(t, 1, 1, 1, 1);
  CHECK_EQ(coir_topology_cpu(t, 0), 31);
  coir_topology_destroy(t);
  machine_end();
}

/* Sockets alternate, and siblings are neighbours: 0,1 are a core of the first, 2,3 one of the second, and so on. */
static void numbers_say_nothing(void **state) {
  (void)state;
  machine_begin();
  for (int id = 0; id < 8; id++) {
    char list[32];
    snprintf(list, sizeof list, "%d-%d\n", id & ~1, id | 1);
    put_siblings(id, list);
    put_cache(id, 3, "3\n", id / 2 % 2 ? "2-3,6-7\n" : "0-1,4-5\n");
  }
  put("0-1\n", "node/online");
  put("0-1,4-5\n", "node/node0/cpulist");
  put("2-3,6-7\n", "node/node1/cpulist");
  struct coir_topology *t = read_machine(mask_range(0, 7), 8);
  counts_are(t, 8, 4, 2, 2);
  places_are(t, COIR_PIN_AVOID_SMT, (const int[]){0, 2, 4, 6, 1, 3, 5, 7, -1});
  places_are(t, COIR_PIN_CCD_ISOLATION, (const int[]){0, 4, 1, 5, 0, -1});
  places_are(t, COIR_PIN_TIERED_SPILLOVER, (const int[]){0, 4, 2, 6, 1, 5, 3, 7, 0, -1});
  coir_topology_destroy(t);
  machine_end();
}

/* ---- Odd machines ---------------------------------------------------------------------------------------------- */

/* Two cores of two, four of one, and two more that share no more than a cache of level 2. One core is offline: its
 * files are still there, and the mask was made before. */
static void reads_a_hybrid(void **state) {
  (void)state;
  machine_begin();
  for (int id = 0; id < 10; id++) {
    char list[32];
    if (id < 4) snprintf(list, sizeof list, "%d-%d\n", id & ~1, id | 1);
    else snprintf(list, sizeof list, "%d\n", id);
    put_siblings(id, list);
    put_cache(id, 0, "1\n", list);
    put_cache(id, 1, "2\n", id < 4 ? list : id < 8 ? "4-7\n" : "8-9\n");
    if (id < 8) put_cache(id, 2, "3\n", "0-1,4-7\n");
  }
  put("0-1,4-9\n", "cpu/online");
  put("0\n", "node/online");
  put("0-1,4-9\n", "node/node0/cpulist");
  struct coir_topology *t = read_machine(mask_range(0, 9), 10);
  counts_are(t, 8, 7, 2, 1);
  CHECK_EQ(coir_topology_usable(t), 8);
  places_are(t, COIR_PIN_LINEAR, (const int[]){0, 1, 4, 5, 6, 7, 8, 9, 0, -1});
  places_are(t, COIR_PIN_AVOID_SMT, (const int[]){0, 4, 5, 6, 7, 8, 9, 1, 0, -1});
  places_are(t, COIR_PIN_CCD_ISOLATION, (const int[]){0, 4, 5, 6, 7, 1, 0, -1});
  places_are(t, COIR_PIN_TIERED_SPILLOVER, (const int[]){0, 4, 5, 6, 7, 8, 9, 1, 0, -1});
  coir_topology_destroy(t);
  machine_end();
}

/* One cache for all is better than as many groups as cores. */
static void private_caches_are_not_shared(void **state) {
  (void)state;
  machine_begin();
  for (int id = 0; id < 4; id++) {
    const char *list = id < 2 ? "0-1\n" : "2-3\n";
    put_siblings(id, list);
    put_cache(id, 0, "1\n", list);
    put_cache(id, 1, "2\n", list);
  }
  struct coir_topology *t = read_machine(mask_range(0, 3), 4);
  counts_are(t, 4, 2, 1, 1);
  coir_topology_destroy(t);
  for (int id = 0; id < 4; id++) put_cache(id, 2, "3\n", id < 2 ? "0-1\n" : "2-3\n");
  t = read_machine(mask_range(0, 3), 4); /* but if the machine calls it the third level, it is */
  counts_are(t, 4, 2, 2, 1);
  coir_topology_destroy(t);
  machine_end();
}

static void nodes_may_have_gaps(void **state) {
  (void)state;
  machine_begin();
  put("0,2-3,8,20\n", "node/online");
  put("4-5\n", "node/node0/cpulist");
  put("\n", "node/node2/cpulist"); /* memory only */
  put("0-3\n", "node/node3/cpulist");
  put("7\n", "node/node8/cpulist"); /* 20 has no file, and 6 is in no node */
  struct coir_topology *t = read_machine(mask_range(0, 7), 8);
  counts_are(t, 8, 8, 1, 4);
  const int nodes[] = {0, 0, 0, 0, 1, 1, 2, 3};
  for (int i = 0; i < 8; i++) CHECK_EQ(coir_topology_node_of(t, i), nodes[i]);
  coir_topology_destroy(t);
  machine_end();
}

static void large_numbers_are_fine(void **state) {
  (void)state;
  machine_begin();
  put_siblings(1000, "1000,8191\n");
  put_cache(63, 0, "3\n", "63-64,8191\n");
  put_cache(1000, 0, "4\n", "65-8191\n");
  struct coir_topology *t = read_machine(mask_of((const int[]){63, 64, 1000, 8191, -1}), 4);
  counts_are(t, 4, 3, 2, 1);
  places_are(t, COIR_PIN_AVOID_SMT, (const int[]){63, 64, 1000, 8191, -1});
  places_are(t, COIR_PIN_CCD_ISOLATION, (const int[]){63, 64, 8191, 63, -1});
  coir_topology_destroy(t);
  t = read_machine(mask_range(0, 1023), 4);
  counts_are(t, 1024, 1024, 3, 1);
  coir_topology_destroy(t);
  machine_end();
}

/* ---- Files that are missing, or wrong -------------------------------------------------------------------------- */

static void nothing_is_told(void **state) {
  (void)state;
  machine_begin();
  struct coir_topology *t = read_machine(mask_of((const int[]){0, 3, 7, -1}), 2);
  counts_are(t, 3, 3, 1, 1);
  places_are(t, COIR_PIN_CCD_ISOLATION, (const int[]){0, 3, 7, 0, -1});
  coir_topology_destroy(t);
  machine_end();
  t = read_machine(mask_range(0, 3), 2); /* there is not even the folder */
  counts_are(t, 4, 4, 1, 1);
  coir_topology_destroy(t);
}

static void cores_have_numbers(void **state) {
  (void)state;
  machine_begin();
  for (int id = 0; id < 8; id++) put_core(id, id % 2 ? "1\n" : "0\n", id < 4 ? "0\n" : "7\n");
  put_core(3, "-1\n", "0\n");
  put_core(7, "1\n", "-1\n");
  struct coir_topology *t = read_machine(mask_range(0, 8), 9);
  /* 0 and 2; 1; 3 alone; 4 and 6; 5; 7 and 8 alone */
  counts_are(t, 9, 7, 1, 1);
  CHECK_EQ(coir_topology_core_of(t, 2), 0);
  CHECK_EQ(coir_topology_core_of(t, 6), coir_topology_core_of(t, 4));
  coir_topology_destroy(t);
  machine_end();
}

/* Each of these in every file: as if there were none. */
static void garbage_says_nothing(void **state) {
  (void)state;
  static char nines[100], longest[5000];
  memset(nines, '9', sizeof nines - 1);
  for (size_t i = 0; i + 1 < sizeof longest; i += 2) memcpy(longest + i, "1,", 2);
  memcpy(longest + sizeof longest - 4, ",0-3", 4); /* would be a list, if it were not so long */
  const char *const texts[] = {"",       "\n",      "abc\n",   "-1\n", "3-1\n", "0-\n",  "0-8192\n",
                               "1,,2\n", ",\n",     "0-3,",    " 0\n", "0 1\n", "0x0\n", "0;3\n",
                               "5000\n", "0-3,x\n", "0-3\1\n", nines,  "0--3\n"};
  for (size_t i = 0; i <= sizeof texts / sizeof texts[0]; i++) {
    bool is_last = i == sizeof texts / sizeof texts[0];
    const char *text = is_last ? longest : texts[i];
    size_t bytes = is_last ? sizeof longest : strlen(text);
    char name[64];
    machine_begin();
    put_bytes(text, bytes, "cpu/online");
    put_bytes(text, bytes, "node/online");
    for (int id = 0; id < 4; id++) {
      const char *const files[] = {"topology/thread_siblings_list", "topology/core_id", "topology/physical_package_id",
                                   "cache/index0/level", "cache/index0/shared_cpu_list"};
      for (int f = 0; f < 5; f++) {
        snprintf(name, sizeof name, "cpu/cpu%d/%s", id, files[f]);
        put_bytes(text, bytes, name);
      }
    }
    struct coir_topology *t = read_machine(mask_range(0, 3), 4);
    bool is_number = bytes == 5 && memcmp(text, "5000\n", bytes) == 0; /* of a core, and no list of siblings */
    counts_are(t, 4, is_number ? 1 : 4, 1, 1);
    coir_topology_destroy(t);
    machine_end();
  }
}

static void folders_are_no_files(void **state) {
  (void)state;
  machine_begin();
  put("", "cpu/online/x");
  put("", "cpu/cpu0/topology/thread_siblings_list/x");
  put("", "cpu/cpu0/cache/index0/level/x");
  struct coir_topology *t = read_machine(mask_range(0, 1), 2);
  counts_are(t, 2, 2, 1, 1);
  coir_topology_destroy(t);
  machine_end();
}

/* Whatever is in the files: what comes of it is sane. */
static void random_machines_are_sane(void **state) {
  (void)state;
  uint64_t rng = rng_seed(11);
  for (int round = 0; round < 40; round++) {
    machine_begin();
    for (int id = 0; id < 12; id++) {
      char list[64];
      int at = 0;
      for (int j = 0; j < 12; j++)
        if (j == id || rng_next(&rng) % 4 == 0)
          at += snprintf(list + at, sizeof list - (size_t)at, "%s%d", at ? "," : "", j);
      if (rng_next(&rng) % 3) put_siblings(id, list);
      if (rng_next(&rng) % 3) put_core(id, rng_next(&rng) % 2 ? "0" : "1", rng_next(&rng) % 3 ? "0" : "1");
      for (int k = 0; k < 3; k++)
        if (rng_next(&rng) % 2) put_cache(id, k, rng_next(&rng) % 2 ? "2" : "3", rng_next(&rng) % 2 ? list : "2-9");
      if (rng_next(&rng) % 3 == 0) put(list, "node/node%d/cpulist", id);
    }
    if (round % 2) put("0-11", "node/online");
    struct coir_topology *t = read_machine(mask_range((int)(rng_next(&rng) % 6), 11), 3);
    coir_topology_destroy(t);
    machine_end();
  }
}

/* ---- This machine ---------------------------------------------------------------------------------------------- */

static void detects_this_machine(void **state) {
  (void)state;
  struct coir_topology *t = coir_topology_detect();
  cpu_set_t all;
  is_sane(t);
  if (sched_getaffinity(0, sizeof all, &all) == 0) {
    CHECK_EQ(coir_topology_cpus(t), CPU_COUNT(&all));
    for (int i = 0; i < coir_topology_cpus(t); i++) CHECK(CPU_ISSET(coir_topology_cpu(t, i), &all));
  }
  CHECK_EQ(coir_topology_usable(t), coir__os_cpu_count());
  coir_topology_destroy(t);
}

static void arguments_are_checked(void **state) {
  (void)state;
  machine_begin();
  put_server();
  struct coir_topology *t = read_machine(mask_range(0, 31), 32);
  int out[1] = {-7}, tier = 9;
  CHECK_EQ(coir_topology_siblings(t, 0, out, 1), 2);
  CHECK_EQ(out[0], 0);
  CHECK_EQ(coir_topology_siblings(t, 0, NULL, 0), 2);
  CHECK_EQ(coir_topology_place(t, COIR_PIN_NONE, 3, &tier), -1);
  CHECK_EQ(tier, 0);
  CHECK_EQ(coir_topology_place(t, COIR_PIN_LINEAR, -1, NULL), -EINVAL);
  CHECK_EQ(coir_topology_place(t, COIR_PIN_NONE, -1, NULL), -EINVAL);
  CHECK_EQ(coir_topology_place(t, (enum coir_pinning)5, 0, NULL), -EINVAL);
  CHECK_EQ(coir_topology_place(t, (enum coir_pinning)(-1), 0, NULL), -EINVAL);
  CHECK_EQ(coir_topology_place(NULL, COIR_PIN_NONE, 0, NULL), -EINVAL);
  CHECK_EQ(coir_topology_place(t, COIR_PIN_LINEAR, INT32_MAX, NULL), 31);
  for (int i = -1; i <= 32; i += 33) {
    CHECK_EQ(coir_topology_cpu(t, i), -EINVAL);
    CHECK_EQ(coir_topology_node_of(t, i), -EINVAL);
    CHECK_EQ(coir_topology_core_of(t, i), -EINVAL);
    CHECK_EQ(coir_topology_cache_of(t, i), -EINVAL);
    CHECK_EQ(coir_topology_siblings(t, i, out, 1), -EINVAL);
  }
  CHECK_EQ(coir_topology_cpus(NULL), -EINVAL);
  coir_topology_destroy(t);
  coir_topology_destroy(NULL);
  machine_end();
}

/* ---- Pinning --------------------------------------------------------------------------------------------------- */

static void is_on(int id) {
  cpu_set_t set;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  CHECK_EQ(CPU_COUNT(&set), 1);
  CHECK(CPU_ISSET(id, &set));
}

/* On a thread of its own. */
static void *pin_this_thread(void *topology) {
  const struct coir_topology *t = topology;
  cpu_set_t before, after;
  errno = EXDEV;
  CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  for (int w = 0; w < 4; w++) {
    coir__topology_pin(t, COIR_PIN_LINEAR, w);
    is_on(coir_topology_place(t, COIR_PIN_LINEAR, w, NULL));
  }
  coir__topology_pin(NULL, COIR_PIN_LINEAR, 0);
  coir__topology_pin(t, COIR_PIN_NONE, 0);
  CHECK_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  CHECK(CPU_EQUAL(&before, &after));
  struct coir__cpus elsewhere = mask_of((const int[]){8000, -1}); /* no such CPU: nothing changes */
  struct coir_topology *other = coir__topology_read("/", &elsewhere, 1);
  coir__topology_pin(other, COIR_PIN_LINEAR, 0);
  CHECK_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  CHECK(CPU_EQUAL(&before, &after));
  CHECK_EQ(errno, EXDEV);
  coir_topology_destroy(other);
  return NULL;
}

static void pins_the_calling_thread(void **state) {
  (void)state;
  struct coir_topology *t = coir_topology_detect();
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, pin_this_thread, t), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  coir_topology_destroy(t);
}

static void pin_worker(int worker, void *topology) { coir__topology_pin(topology, COIR_PIN_LINEAR, worker); }

/* A thread of Coir's that is on one CPU is no measure for the process. */
static int look_from_a_worker(void *topology) {
  is_on(coir_topology_place(topology, COIR_PIN_LINEAR, coir_worker_index(), NULL));
  struct coir_topology *t = coir_topology_detect();
  is_sane(t);
  CHECK_EQ(coir_topology_cpus(t), coir_topology_cpus(topology));
  CHECK_EQ(coir_topology_usable(t), coir_topology_usable(topology));
  coir_topology_destroy(t);
  return 0;
}

static void workers_can_be_pinned(void **state) {
  (void)state;
  struct coir_topology *t = coir_topology_detect();
  struct coir_runtime *rt =
      make_runtime((struct coir_config){.workers = 3, .on_thread = pin_worker, .on_thread_arg = t});
  CHECK_EQ(coir_runtime_start(rt), 0);
  for (int i = 0; i < 3; i++) {
    struct coir_fiber *f = NULL;
    struct coir_attr attr = {.worker = COIR_WORKER(i), .pinned = true};
    CHECK_EQ(coir_runtime_spawn(rt, look_from_a_worker, t, &attr, &f), 0);
    CHECK_EQ(join(f), 0);
  }
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
  CHECK_EQ(coir_runtime_destroy(rt), 0);
  coir_topology_destroy(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_a_server),
      cmocka_unit_test(reads_a_part_of_it),
      cmocka_unit_test(numbers_say_nothing),
      cmocka_unit_test(reads_a_hybrid),
      cmocka_unit_test(private_caches_are_not_shared),
      cmocka_unit_test(nodes_may_have_gaps),
      cmocka_unit_test(large_numbers_are_fine),
      cmocka_unit_test(nothing_is_told),
      cmocka_unit_test(cores_have_numbers),
      cmocka_unit_test(garbage_says_nothing),
      cmocka_unit_test(folders_are_no_files),
      cmocka_unit_test(random_machines_are_sane),
      cmocka_unit_test(detects_this_machine),
      cmocka_unit_test(arguments_are_checked),
      cmocka_unit_test(pins_the_calling_thread),
      cmocka_unit_test(workers_can_be_pinned),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
