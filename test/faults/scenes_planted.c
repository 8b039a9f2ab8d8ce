/* Scenes that do it wrong when a call fails, in every way that is looked for. They call as the library does. */
#include "scenes.h"

void *faulty_malloc(size_t bytes);
void faulty_free(void *memory);
int faulty_eventfd(unsigned value, int flags);
int faulty_close(int fd);
void *faulty_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int faulty_munmap(void *memory, size_t bytes);

#include <sys/eventfd.h>
#include <sys/mman.h>

static int leaks_block(void) {
  void *first = faulty_malloc(10), *second = faulty_malloc(10);
  if (first && !second) return -ENOMEM;
  faulty_free(first);
  faulty_free(second);
  return first ? 0 : -ENOMEM;
}

static int leaks_descriptor(void) {
  int fd = faulty_eventfd(0, EFD_CLOEXEC);
  void *memory = faulty_malloc(10);
  faulty_free(memory);
  if (!memory) return -ENOMEM;
  if (fd < 0) return -EMFILE;
  faulty_close(fd);
  return 0;
}

static int leaks_mapping(void) {
  char *memory = faulty_mmap(NULL, 16384, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int fd = faulty_eventfd(0, EFD_CLOEXEC);
  if (fd < 0) return -EMFILE;
  faulty_close(fd);
  if (memory == MAP_FAILED) return -ENOMEM;
  faulty_munmap(memory, 16384);
  return 0;
}

static int hangs(void) {
  void *memory = faulty_malloc(10);
  while (!memory) pause();
  faulty_free(memory);
  return 0;
}

static int crashes(void) {
  char *memory = faulty_malloc(10);
  *(volatile char *)memory = 1;
  faulty_free(memory);
  return 0;
}

static int says_something_else(void) {
  void *memory = faulty_malloc(10);
  int rc = MAY(memory ? 0 : -EINVAL, -ENOMEM);
  faulty_free(memory);
  return rc;
}

static int is_lost_for_good(void) {
  static bool has_failed;
  void *memory = faulty_malloc(10);
  has_failed |= !memory;
  faulty_free(memory);
  return has_failed ? -ENOMEM : 0;
}

const struct fault_scene fault_scenes_planted[] = {
    {"leaks_block", leaks_block},
    {"leaks_descriptor", leaks_descriptor},
    {"leaks_mapping", leaks_mapping},
    {"hangs", hangs},
    {"crashes", crashes},
    {"says_something_else", says_something_else},
    {"is_lost_for_good", is_lost_for_good},
    {NULL, NULL},
};
