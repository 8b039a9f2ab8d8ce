/* The machine as far as the process may use it: CPUs, cores, caches, nodes of memory; and on which CPU a worker runs.
 *
 * It is read from sysfs, below a folder that tests replace by one of their own. Any file may be missing there (in
 * containers, on virtual machines, on other architectures), or say what makes no sense. So each fact has something to
 * fall back on, and reading never fails but for want of memory:
 *
 *   fact    from                                        else
 *   CPUs    the affinity mask, without what is offline  the mask; CPUs 0 to n-1 where that is not known either
 *   core    thread_siblings_list                        the same core_id and physical_package_id; a core of its own
 *   cache   shared_cpu_list of the highest level        one for all of which nothing is known
 *   node    cpulist of each node that is online         the same
 *
 * A list that does not name the CPU whose file it is says nothing. A cache below level 3 that one core has for itself
 * is none that could be shared: what lies behind it is what cores share. The first CPU of a core tells for all others
 * in its lists, so a large machine is read in about as many files as it has cores.
 *
 * Pinning is worked out once: for each strategy there is a list of CPUs, on which worker w gets entry w, and from the
 * start again at its end. Numbers of cores, caches and nodes are given in the order of CPUs, so the first CPU's cache
 * is 0; a CPU's `rank` is how many of its core come before it. The lists go by rank first, which is why siblings come
 * last, and where the cache matters by cache next.
 *
 * Rejected: the order of CPU numbers as a hint of what are siblings (it differs from machine to machine); a list of
 * the folder (a few reads that fail cost less). */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"
#include "topology.h"

#define TOPOLOGY_TEXT 4096 /* the longest list that is understood */
#define TOPOLOGY_CACHES 10 /* files of caches to look at, for each CPU */
#define TOPOLOGY_SHARED 3  /* the level from which on caches are taken as they are */
#define TOPOLOGY_PINNINGS (COIR_PIN_TIERED_SPILLOVER + 1)
#define TOPOLOGY_TIER_LAST 2

struct coir__cpu {
  int id; /* what the system calls it */
  int core, cache, node;
  int rank;
  int core_id, package;         /* as the system numbers them, where there was no list of siblings; else -1 */
  int place[TOPOLOGY_PINNINGS]; /* entry of that pinning's list: index of a CPU */
};

struct coir_topology {
  size_t bytes; /* of this */
  int cpus, cores, caches, nodes, usable;
  int places[TOPOLOGY_PINNINGS]; /* lengths of the lists */
  struct coir__cpus mask;        /* all of them */
  struct coir__cpu cpu[];        /* by id */
};

/* What reading needs beside; on the heap, since the caller may be a fiber with a small stack. */
struct topology_reader {
  const char *root;
  struct coir__cpus list, best;
  char path[512], text[TOPOLOGY_TEXT];
};

/* ---- Sets of CPUs ---------------------------------------------------------------------------------------------- */

static bool cpus_has(const struct coir__cpus *cpus, int id) {
  return cpus->bits[id / COIR__CPUS_WORD] >> (id % COIR__CPUS_WORD) & 1;
}

static void cpus_add(struct coir__cpus *cpus, int id) {
  cpus->bits[id / COIR__CPUS_WORD] |= 1UL << (id % COIR__CPUS_WORD);
}

static int cpus_count(const struct coir__cpus *cpus) {
  int n = 0;
  for (int id = 0; id < COIR__CPUS_MAX; id++) n += cpus_has(cpus, id);
  return n;
}

/* Reads one number at *at. -1: there is none, or it is out of bounds. */
static int read_id(const char **at) {
  int id = -1;
  for (; **at >= '0' && **at <= '9'; ++*at) {
    id = (id < 0 ? 0 : id * 10) + (**at - '0');
    if (id >= COIR__CPUS_MAX) return -1;
  }
  return id;
}

/* Reads "0-3,8,10-11". False: it is something else. */
static bool cpus_parse(struct coir__cpus *out, const char *at) {
  *out = (struct coir__cpus){0};
  while (*at && *at != '\n') {
    int first = read_id(&at), last = first;
    if (*at == '-') {
      at++;
      last = read_id(&at);
    }
    if (first < 0 || last < first) return false;
    for (int id = first; id <= last; id++) cpus_add(out, id);
    if (*at == ',' && at[1] >= '0' && at[1] <= '9') at++;
    else if (*at && *at != '\n') return false;
  }
  return true;
}

/* ---- Files ----------------------------------------------------------------------------------------------------- */

/* Reads the file whose name is made of the format; NULL: it is missing, or too long. */
static __attribute__((format(printf, 2, 3))) const char *read_file(struct topology_reader *r, const char *format, ...) {
  int root = snprintf(r->path, sizeof r->path, "%s/", r->root);
  if (root >= (int)sizeof r->path) return NULL;
  size_t room = sizeof r->path - (size_t)root;
  va_list args;
  va_start(args, format);
  int length = vsnprintf(r->path + root, room, format, args);
  va_end(args);
  if (length >= (int)room || coir__os_read_text(r->path, r->text, sizeof r->text) < 0) return NULL;
  return r->text;
}

/* The text is one number, from 0. -1: it is not. */
static int parse_number(const char *text) {
  int n = text ? read_id(&text) : -1;
  return n >= 0 && (*text == '\n' || !*text) ? n : -1;
}

/* ---- Cores, caches, nodes -------------------------------------------------------------------------------------- */

/* What is to be found out of each CPU. */
enum fact { FACT_CORE, FACT_CACHE, FACT_NODE };
static int *fact_of(struct coir__cpu *c, enum fact fact) {
  return fact == FACT_CORE ? &c->core : fact == FACT_CACHE ? &c->cache : &c->node;
}

/* All in r->list, as far as they are not in one yet, are in the core, cache or node of that number. */
static void set_all(struct coir_topology *t, const struct topology_reader *r, enum fact fact, int number) {
  for (int i = 0; i < t->cpus; i++) {
    int *of = fact_of(&t->cpu[i], fact);
    if (*of < 0 && cpus_has(&r->list, t->cpu[i].id)) *of = number;
  }
}

/* r->list becomes the CPUs of the core of that CPU: those that the system names, or it alone. */
static bool read_siblings(struct topology_reader *r, int id) {
  const char *text = read_file(r, "cpu/cpu%d/topology/thread_siblings_list", id);
  bool is_known = text && cpus_parse(&r->list, text) && cpus_has(&r->list, id);
  if (is_known) return true;
  r->list = (struct coir__cpus){0};
  cpus_add(&r->list, id);
  return false;
}

static void find_cores(struct coir_topology *t, struct topology_reader *r) {
  for (int i = 0; i < t->cpus; i++) {
    struct coir__cpu *c = &t->cpu[i];
    if (c->core >= 0) continue;
    if (!read_siblings(r, c->id)) {
      c->core_id = parse_number(read_file(r, "cpu/cpu%d/topology/core_id", c->id));
      c->package = parse_number(read_file(r, "cpu/cpu%d/topology/physical_package_id", c->id));
      bool is_known = c->core_id >= 0 && c->package >= 0;
      for (int j = 0; j < i && is_known && c->core < 0; j++)
        if (t->cpu[j].core_id == c->core_id && t->cpu[j].package == c->package) c->core = t->cpu[j].core;
    }
    if (c->core < 0) set_all(t, r, FACT_CORE, t->cores++);
  }
  for (int i = 0; i < t->cpus; i++)
    for (int j = 0; j < i; j++) t->cpu[i].rank += t->cpu[j].core == t->cpu[i].core;
}

/* r->list becomes the CPUs that share the last cache of that CPU. False: that is not known. */
static bool read_cache(struct topology_reader *r, int id) {
  int best = 0;
  for (int k = 0; k < TOPOLOGY_CACHES; k++) {
    int level = parse_number(read_file(r, "cpu/cpu%d/cache/index%d/level", id, k));
    if (level <= best) continue;
    const char *text = read_file(r, "cpu/cpu%d/cache/index%d/shared_cpu_list", id, k);
    if (!text || !cpus_parse(&r->list, text) || !cpus_has(&r->list, id)) continue;
    best = level;
    r->best = r->list;
  }
  if (best >= TOPOLOGY_SHARED) r->list = r->best;
  if (best == 0 || best >= TOPOLOGY_SHARED) return best != 0;
  read_siblings(r, id);
  bool is_shared = false;
  for (int i = 0; i < COIR__CPUS_MAX && !is_shared; i++) is_shared = cpus_has(&r->best, i) && !cpus_has(&r->list, i);
  r->list = r->best;
  return is_shared;
}

/* Those of which nothing is known are together. */
static void find_caches(struct coir_topology *t, struct topology_reader *r) {
  int rest = -1;
  for (int i = 0; i < t->cpus; i++) {
    struct coir__cpu *c = &t->cpu[i];
    if (c->cache >= 0) continue;
    if (read_cache(r, c->id)) set_all(t, r, FACT_CACHE, t->caches++);
    else c->cache = rest >= 0 ? rest : (rest = t->caches++);
  }
}

/* Numbers go by the first CPU, not by what the system calls the nodes: some have no CPU. In between a node has the
 * system's number, plus COIR__CPUS_MAX. */
static void find_nodes(struct coir_topology *t, struct topology_reader *r) {
  struct coir__cpus nodes = {0};
  int rest = -1;
  const char *text = read_file(r, "node/online");
  if (!text || !cpus_parse(&nodes, text)) nodes = (struct coir__cpus){0};
  for (int n = 0; n < COIR__CPUS_MAX; n++) {
    if (!cpus_has(&nodes, n)) continue;
    text = read_file(r, "node/node%d/cpulist", n);
    if (text && cpus_parse(&r->list, text)) set_all(t, r, FACT_NODE, COIR__CPUS_MAX + n);
  }
  for (int i = 0; i < t->cpus; i++) {
    int system = t->cpu[i].node;
    if (system < 0) t->cpu[i].node = rest >= 0 ? rest : (rest = t->nodes++);
    if (system < COIR__CPUS_MAX) continue;
    for (int j = i; j < t->cpus; j++)
      if (t->cpu[j].node == system) t->cpu[j].node = t->nodes;
    t->nodes++;
  }
}

/* ---- Pinning --------------------------------------------------------------------------------------------------- */

/* Appends the CPUs of that rank to the list; with `cache` not negative those of that cache only. */
static void list_cpus(struct coir_topology *t, enum coir_pinning pinning, int rank, int cache) {
  for (int i = 0; i < t->cpus; i++) {
    const struct coir__cpu *c = &t->cpu[i];
    if (c->rank == rank && (cache < 0 || c->cache == cache)) t->cpu[t->places[pinning]++].place[pinning] = i;
  }
}

static void make_lists(struct coir_topology *t) {
  t->places[COIR_PIN_LINEAR] = t->cpus;
  for (int i = 0; i < t->cpus; i++) t->cpu[i].place[COIR_PIN_LINEAR] = i;
  for (int rank = 0; t->places[COIR_PIN_AVOID_SMT] < t->cpus; rank++) {
    list_cpus(t, COIR_PIN_AVOID_SMT, rank, -1);
    list_cpus(t, COIR_PIN_CCD_ISOLATION, rank, 0);
    for (int cache = 0; cache < t->caches; cache++) list_cpus(t, COIR_PIN_TIERED_SPILLOVER, rank, cache);
  }
}

/* NULL: there is no such pinning, or worker; or it is NONE. */
static const struct coir__cpu *pinned_cpu(const struct coir_topology *t, enum coir_pinning pinning, int worker) {
  if (!t || (unsigned)pinning >= TOPOLOGY_PINNINGS || pinning == COIR_PIN_NONE || worker < 0) return NULL;
  return &t->cpu[t->cpu[worker % t->places[pinning]].place[pinning]];
}

int coir_topology_place(const struct coir_topology *topology, enum coir_pinning pinning, int worker, int *tier) {
  if (tier) *tier = 0;
  if (topology && pinning == COIR_PIN_NONE && worker >= 0) return -1;
  const struct coir__cpu *c = pinned_cpu(topology, pinning, worker);
  if (!c) return -EINVAL;
  /* Those that share a CPU with another worker come last. */
  bool is_last = worker >= topology->cpus || c->rank > 0;
  if (tier && pinning == COIR_PIN_TIERED_SPILLOVER) *tier = is_last ? TOPOLOGY_TIER_LAST : c->cache != 0;
  return c->id;
}

void coir__topology_pin(const struct coir_topology *t, enum coir_pinning pinning, int worker) {
  struct coir__cpus one = {0};
  const struct coir__cpu *c = pinned_cpu(t, pinning, worker);
  if (c) cpus_add(&one, c->id);
  if (t) (void)coir__os_cpus_set(c ? &one : &t->mask);
}

/* ---- Making and asking ----------------------------------------------------------------------------------------- */

/* Unless none would be left, as where the folder is another machine's. */
static void drop_offline(struct coir__cpus *cpus, struct topology_reader *r) {
  const char *text = read_file(r, "cpu/online");
  unsigned long any = 0;
  if (!text || !cpus_parse(&r->list, text)) return;
  for (size_t i = 0; i < sizeof cpus->bits / sizeof cpus->bits[0]; i++) any |= r->list.bits[i] &= cpus->bits[i];
  if (any) *cpus = r->list;
}

static struct coir_topology *topology_alloc(const struct coir__cpus *mask, int usable) {
  int cpus = cpus_count(mask);
  size_t bytes = sizeof(struct coir_topology) + (size_t)cpus * sizeof(struct coir__cpu);
  struct coir_topology *t = coir__alloc(NULL, bytes);
  if (!t) return NULL;
  t->bytes = bytes;
  t->mask = *mask;
  t->usable = usable < cpus ? usable : cpus;
  for (int id = 0; id < COIR__CPUS_MAX; id++)
    if (cpus_has(mask, id))
      t->cpu[t->cpus++] =
          (struct coir__cpu){.id = id, .core = -1, .cache = -1, .node = -1, .core_id = -1, .package = -1};
  return t;
}

struct coir_topology *coir__topology_read(const char *root, const struct coir__cpus *mask, int usable) {
  struct topology_reader *r = coir__alloc(NULL, sizeof *r);
  if (!r) return NULL;
  r->root = root;
  struct coir__cpus cpus = *mask;
  drop_offline(&cpus, r);
  struct coir_topology *t = topology_alloc(&cpus, usable);
  if (t) {
    find_cores(t, r);
    find_caches(t, r);
    find_nodes(t, r);
    make_lists(t);
  }
  coir__free(NULL, r, sizeof *r);
  return t;
}

struct coir_topology *coir_topology_detect(void) {
  struct coir__cpus mask;
  int usable = coir__os_cpu_count();
  if (coir__os_cpus_get(&mask) != 0) { /* as many as there are */
    mask = (struct coir__cpus){0};
    for (int id = 0; id < usable && id < COIR__CPUS_MAX; id++) cpus_add(&mask, id);
  }
  return coir__topology_read("/sys/devices/system", &mask, usable);
}

void coir_topology_destroy(struct coir_topology *topology) {
  if (topology) coir__free(NULL, topology, topology->bytes);
}

int coir_topology_cpus(const struct coir_topology *topology) { return topology ? topology->cpus : -EINVAL; }
int coir_topology_cores(const struct coir_topology *topology) { return topology ? topology->cores : -EINVAL; }
int coir_topology_nodes(const struct coir_topology *topology) { return topology ? topology->nodes : -EINVAL; }
int coir_topology_usable(const struct coir_topology *topology) { return topology ? topology->usable : -EINVAL; }

static const struct coir__cpu *cpu_of(const struct coir_topology *t, int i) {
  return t && i >= 0 && i < t->cpus ? &t->cpu[i] : NULL;
}

int coir_topology_cpu(const struct coir_topology *topology, int i) {
  const struct coir__cpu *c = cpu_of(topology, i);
  return c ? c->id : -EINVAL;
}

int coir_topology_node_of(const struct coir_topology *topology, int i) {
  const struct coir__cpu *c = cpu_of(topology, i);
  return c ? c->node : -EINVAL;
}

int coir_topology_core_of(const struct coir_topology *topology, int i) {
  const struct coir__cpu *c = cpu_of(topology, i);
  return c ? c->core : -EINVAL;
}

int coir_topology_cache_of(const struct coir_topology *topology, int i) {
  const struct coir__cpu *c = cpu_of(topology, i);
  return c ? c->cache : -EINVAL;
}

int coir_topology_siblings(const struct coir_topology *topology, int i, int *out, int max) {
  const struct coir__cpu *c = cpu_of(topology, i);
  int n = 0;
  if (!c || (!out && max > 0)) return -EINVAL;
  for (int j = 0; j < topology->cpus; j++) {
    if (topology->cpu[j].core != c->core) continue;
    if (n < max) out[n] = topology->cpu[j].id;
    n++;
  }
  return n;
}
