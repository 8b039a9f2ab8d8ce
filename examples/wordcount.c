/* wordcount.c: counts the words of files, each file by a fiber of its own; a sequential count checks the result.
 *
 * Reading a file may block, and there is no such thing as a file that is "not ready". So coir_read hands the call to a
 * small pool of threads while the fiber waits, and the worker counts words of another file meanwhile.
 * usage: wordcount [FILE]...          without arguments: some files of Coir itself */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"

#ifndef SOURCES /* the build says where Coir's sources are */
#define SOURCES "."
#endif

struct count {
  const char *path;
  long lines, words, bytes;
  bool in_word;
};

static void count_piece(struct count *c, const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    bool is_space = isspace((unsigned char)text[i]) != 0;
    c->lines += text[i] == '\n';
    c->words += c->in_word && is_space;
    c->in_word = !is_space;
  }
  c->bytes += (long)bytes;
}

/* The same code serves both counts: on a fiber coir_read lets others run, on a plain thread it simply blocks. */
static int count_file(void *arg) {
  struct count *c = arg;
  char piece[16384]; /* a fiber's stack is 256 KiB unless it is told otherwise */
  ssize_t n;
  int fd = open(c->path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 1;
  while ((n = coir_read(fd, piece, sizeof piece, COIR_NEVER)) > 0) count_piece(c, piece, (size_t)n);
  c->words += c->in_word;
  coir_close(fd);
  return n == 0 ? 0 : 1;
}

struct work {
  char **paths;
  int files, failed;
  long words;
};

static int count_in_parallel(void *arg) {
  struct work *w = arg;
  struct count *counts = calloc((size_t)w->files, sizeof *counts);
  struct coir_fiber **fibers = calloc((size_t)w->files, sizeof(struct coir_fiber *));
  if (!counts || !fibers) return 1;
  for (int i = 0; i < w->files; i++) {
    counts[i].path = w->paths[i];
    coir_spawn(count_file, &counts[i], NULL, &fibers[i]);
  }
  for (int i = 0; i < w->files; i++) {
    struct coir_result result = {.status = 1};
    if (fibers[i]) coir_join(fibers[i], &result, COIR_NEVER); /* what the fiber wrote is visible from here on */
    w->failed += result.status != 0;
    w->words += counts[i].words;
    printf("%7ld %7ld %8ld %s%s\n", counts[i].lines, counts[i].words, counts[i].bytes, counts[i].path,
           result.status != 0 ? " (cannot be read)" : "");
  }
  free(fibers);
  free(counts);
  return 0;
}

int main(int argc, char **argv) {
  static char *defaults[] = {SOURCES "/include/coir.h", SOURCES "/include/coir_io.h", SOURCES "/LICENSE",
                             SOURCES "/CMakeLists.txt", SOURCES "/Makefile"};
  struct work w = {argv + 1, argc - 1, 0, 0};
  long sequential = 0;
  if (w.files == 0) w = (struct work){defaults, sizeof defaults / sizeof *defaults, 0, 0};
  if (coir_run(count_in_parallel, &w) != 0) return 1;
  for (int i = 0; i < w.files; i++) {
    struct count c = {.path = w.paths[i]};
    count_file(&c); /* here, on the main thread */
    sequential += c.words;
  }
  printf("parallel: %ld words, sequential: %ld words, %s\n", w.words, sequential,
         w.words == sequential ? "the same" : "DIFFERENT");
  return w.failed != 0 || w.words != sequential;
}
