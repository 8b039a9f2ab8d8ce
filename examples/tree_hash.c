/* tree_hash.c: one hash for all files of a tree, as fast as disks and CPUs allow.
 *
 * A directory is a job, and so is a file; all are counted by one counter, so whoever waits for it waits for the whole
 * tree, however it branches. Jobs that are queued cost 64 bytes, and a job that reads is a fiber only while it waits
 * for the disk. How many files are open at once is bounded before their jobs are made, by a semaphore: then it is the
 * directories that wait, and neither descriptors nor stacks run out on a tree of a million files.
 *
 * A file's hash is SHA-256 of what it holds, as sha256sum prints it (--list). The hash of the tree is the sum of
 * SHA-256(hash, path, 0), each taken as four numbers of 64 bits: no order matters. So two trees are told apart where
 * files were changed, moved or lost by accident; who wants to forge one can. Links and what is neither file nor
 * directory are left out. */
#define _GNU_SOURCE 1 /* preadv2 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"
#include "coir_job.h"
#include "options.h"

enum { HASH_BYTES = 32, PIECE_BYTES = 64 << 10 };

struct tree {
  struct coir_counter *pending; /* directories and files; NULL: this is the serial run */
  struct coir_sem places;       /* for files that are open */
  EVP_MD *sha256;
  size_t root_bytes; /* paths are relative to the root: so much is left out in front */
  bool is_listed;
  /* Sums. Relaxed: they are read when the counter is zero, which orders them. */
  _Atomic(uint64_t) hash[HASH_BYTES / sizeof(uint64_t)];
  _Atomic(uint64_t) files, bytes, unreadable;
};

/* A directory or a file, to be freed by whoever has hashed it. */
struct entry {
  struct tree *tree;
  char path[];
};

static struct entry *entry_of(struct tree *tree, const char *folder, const char *name) {
  size_t a = strlen(folder), b = strlen(name);
  struct entry *e = malloc(sizeof *e + a + b + 2);
  if (!e) return NULL;
  e->tree = tree;
  memcpy(e->path, folder, a);
  e->path[a] = '/';
  memcpy(e->path + a + (b != 0), name, b + 1); /* no name: the root, which is `folder` itself */
  return e;
}

static void count_in(_Atomic(uint64_t) *sum, uint64_t n) { atomic_fetch_add_explicit(sum, n, memory_order_relaxed); }
static uint64_t total(const _Atomic(uint64_t) *sum) { return atomic_load_explicit(sum, memory_order_relaxed); }

/* ---- A file ------------------------------------------------------------------------------------------------------ */

static void combine(struct tree *t, EVP_MD_CTX *context, const unsigned char *hash, const char *path) {
  unsigned char with_path[HASH_BYTES];
  uint64_t words[HASH_BYTES / sizeof(uint64_t)];
  EVP_DigestInit_ex(context, t->sha256, NULL);
  EVP_DigestUpdate(context, hash, HASH_BYTES);
  EVP_DigestUpdate(context, path, strlen(path) + 1);
  EVP_DigestFinal_ex(context, with_path, NULL);
  memcpy(words, with_path, sizeof words);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) count_in(&t->hash[i], words[i]);
}

static void list(const unsigned char *hash, const char *path) {
  char hex[2 * HASH_BYTES + 1];
  for (int i = 0; i < HASH_BYTES; i++) sprintf(hex + 2 * i, "%02x", hash[i]);
  printf("%s  %s\n", hex, path);
}

/* What the page cache has is copied at once. Else coir_read has a thread of its pool read it, and the job waits, so
 * that the worker goes on with others while the disk is busy; on a plain thread it blocks. */
static ssize_t read_piece(int fd, void *piece) {
  struct iovec iov = {piece, PIECE_BYTES};
  ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT); /* -1: where the descriptor is; not every file system knows it */
  /* Linux 5.9 and 5.10 may say 0 before the end (preadv2(2), Bugs). */
  return n > 0 ? n : coir_read(fd, piece, PIECE_BYTES, COIR_NEVER);
}

/* Returns 0 or an error. */
static int hash_open_file(struct tree *t, int fd, const char *path) {
  unsigned char hash[HASH_BYTES];
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  void *piece = malloc(PIECE_BYTES); /* not on the stack: a job has 64 KiB of that */
  ssize_t n = context && piece && EVP_DigestInit_ex(context, t->sha256, NULL) ? 1 : -ENOMEM;
  while (n > 0 && (n = read_piece(fd, piece)) > 0) {
    EVP_DigestUpdate(context, piece, (size_t)n);
    count_in(&t->bytes, (uint64_t)n);
  }
  if (n == 0) {
    const char *relative = path + t->root_bytes;
    EVP_DigestFinal_ex(context, hash, NULL);
    combine(t, context, hash, relative);
    if (t->is_listed) list(hash, relative);
    count_in(&t->files, 1);
  }
  free(piece);
  EVP_MD_CTX_free(context);
  return (int)n;
}

static int hash_file(struct tree *t, const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return -errno;
  int rc = hash_open_file(t, fd, path);
  coir_close(fd);
  return rc;
}

/* Tells of what could not be read. */
static void complain(struct tree *t, const char *path, int rc) {
  fprintf(stderr, "tree_hash: %s: %s\n", path, strerror(-rc));
  count_in(&t->unreadable, 1);
}

static void file_job(struct coir_job *job, void *entry) {
  struct entry *e = entry;
  (void)job;
  int rc = hash_file(e->tree, e->path);
  coir_sem_release(&e->tree->places, 1);
  if (rc != 0) complain(e->tree, e->path, rc);
  free(e);
}

/* ---- A directory ------------------------------------------------------------------------------------------------- */

static int walk(struct coir_job *job, struct tree *t, const char *path);

static void folder_job(struct coir_job *job, void *entry) {
  struct entry *e = entry;
  int rc = walk(job, e->tree, e->path);
  if (rc != 0) complain(e->tree, e->path, rc);
  free(e);
}

/* Hashes what is in a directory: by jobs of their own, or, without a job, here and now. */
static int begin_entry(struct coir_job *job, struct tree *t, const char *folder, const struct dirent *d) {
  struct stat status;
  struct entry *e = entry_of(t, folder, d->d_name);
  if (!e) return -ENOMEM;
  if (lstat(e->path, &status) != 0) {
    complain(t, e->path, -errno);
    free(e);
    return 0;
  }
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) {
    free(e);
    return 0;
  }
  coir_job_fn fn = S_ISDIR(status.st_mode) ? folder_job : file_job;
  int rc = fn == file_job ? coir_sem_acquire(&t->places, 1, COIR_NEVER) : 0; /* file_job gives it back */
  if (rc == 0 && job && coir_job_spawn_with(job, t->pending, fn, e) == 0) return 0;
  if (rc == 0) fn(NULL, e); /* the serial run; or there is no memory for one more job */
  else free(e);
  return rc;
}

static int walk(struct coir_job *job, struct tree *t, const char *path) {
  struct dirent **entries; /* read at once: a directory that waits for a place holds no descriptor */
  int n = scandir(path, &entries, NULL, NULL), rc = 0;
  if (n < 0) return -errno;
  for (int i = 0; i < n; i++) {
    const char *name = entries[i]->d_name;
    if (rc == 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) rc = begin_entry(job, t, path, entries[i]);
    free(entries[i]);
  }
  free(entries);
  return rc;
}

/* ---- The tree ---------------------------------------------------------------------------------------------------- */

static void print_tree(const struct tree *t, const char *how, int64_t begin) {
  double seconds = (double)(coir_now() - begin) / 1e9;
  for (size_t i = 0; i < sizeof t->hash / sizeof *t->hash; i++) printf("%016" PRIx64, total(&t->hash[i]));
  printf("  %s: %" PRIu64 " files, %" PRIu64 " bytes, %.3f s, %.0f MB/s\n", how, total(&t->files), total(&t->bytes),
         seconds, (double)total(&t->bytes) / seconds / 1e6);
}

static bool is_same(const struct tree *a, const struct tree *b) {
  bool same = total(&a->files) == total(&b->files) && total(&a->bytes) == total(&b->bytes);
  for (size_t i = 0; i < sizeof a->hash / sizeof *a->hash; i++) same = same && total(&a->hash[i]) == total(&b->hash[i]);
  return same;
}

/* Returns 0 or an error that is not about a single file. */
static int hash_in_parallel(struct coir_job_system *jobs, struct tree *t, const char *root) {
  struct entry *e = entry_of(t, root, "");
  struct coir_job_desc first = {.fn = folder_job, .arg = e};
  t->pending = coir_counter_create(0);
  int rc = e && t->pending ? coir_job_submit(jobs, &first, 1, &t->pending) : -ENOMEM;
  if (rc != 0) free(e);
  else rc = coir_counter_wait(t->pending, COIR_NEVER);
  coir_counter_unref(t->pending);
  return rc;
}

static int run(const char *root, int threads, int open_max, bool is_listed, bool is_checked) {
  struct tree parallel = {.root_bytes = strlen(root) + 1, .is_listed = is_listed},
              serial = {.root_bytes = strlen(root) + 1};
  struct coir_job_config config = {.threads = threads};
  struct coir_job_system *jobs;
  int rc = coir_job_system_create(&jobs, &config);
  if (rc != 0) return rc;
  parallel.sha256 = serial.sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL); /* here, where the stack is large */
  if (!parallel.sha256) rc = -ENOTSUP;
  coir_sem_init(&parallel.places, open_max);
  coir_sem_init(&serial.places, 1);
  int64_t begin = coir_now();
  if (rc == 0) rc = hash_in_parallel(jobs, &parallel, root);
  if (rc == 0) print_tree(&parallel, "parallel", begin);
  begin = coir_now();
  if (rc == 0 && is_checked) rc = walk(NULL, &serial, root);
  if (rc == 0 && is_checked) {
    print_tree(&serial, "serial", begin);
    printf("%s\n", is_same(&parallel, &serial) ? "the same" : "DIFFERENT");
    rc = !is_same(&parallel, &serial);
  }
  coir_job_system_destroy(jobs);
  EVP_MD_free(parallel.sha256);
  return rc != 0 ? rc : total(&parallel.unreadable) != 0;
}

int main(int argc, char **argv) {
  int threads = 0, open_max = 64;
  bool is_listed = false, is_checked = false;
  const struct opt opts[] = {
      OPT_FLAG("list", is_listed, "print each file's hash, in no order, as sha256sum does"),
      OPT_FLAG("check", is_checked, "do it again serially, and compare"),
      OPT_NUMBER("open", open_max, 1, 100000, "files that may be open at a time"),
      OPT_NUMBER("threads", threads, 0, 64, "workers; 0: one per CPU"),
  };
  int rest = opt_read(argc, argv, "usage: tree_hash [OPTION...] [DIRECTORY]     one hash for all files of a tree", opts,
                      sizeof opts / sizeof *opts, 1);
  int rc = run(rest < argc ? argv[rest] : ".", threads, open_max, is_listed, is_checked);
  if (rc < 0) fprintf(stderr, "tree_hash: %s\n", strerror(-rc));
  return rc != 0;
}
