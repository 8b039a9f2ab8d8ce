/* Stops a thread in the midst of a call of the library: where it comes to a page of an object that the test has closed.
 * The object lies across two pages, so that others may go on with the other part of it.
 *
 * Not with ThreadSanitizer, which holds a lock of its own while it looks at a word. */
#ifndef COIR_TEST_PAGES_H
#define COIR_TEST_PAGES_H

#include "processes.h"

#include <sched.h>
#include <sys/mman.h>

static struct {
  size_t bytes;         /* of a page */
  char *first, *second; /* one behind the other */
  bool (*passes)(void); /* whether who comes to a closed page now goes on when that is open; NULL: nobody */
  _Atomic(int) stops;   /* how often somebody has come to one */
  _Atomic(int) let_go;  /* the first so many go on */
} pages;

static void stop_here(int signo, siginfo_t *info, void *context) {
  (void)context;
  bool is_ours = (uintptr_t)info->si_addr - (uintptr_t)pages.first < 2 * pages.bytes;
  bool passes = pages.passes && pages.passes();
  if (!is_ours) {
    signal(signo, SIG_DFL);
    return;
  }
  int number = atomic_fetch_add(&pages.stops, 1) + 1;
  do sched_yield();
  while (!passes && atomic_load(&pages.let_go) < number);
}

/* Makes both, open and zeroed. Returns where an object begins of which so many bytes are in the first. */
static inline void *make_pages(size_t bytes_in_first) {
  struct sigaction action = {.sa_sigaction = stop_here, .sa_flags = SA_SIGINFO};
  pages.bytes = (size_t)sysconf(_SC_PAGESIZE);
  pages.first = mmap(NULL, 2 * pages.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages.first != MAP_FAILED);
  pages.second = pages.first + pages.bytes;
  CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
  CHECK_EQ(sigaction(SIGBUS, &action, NULL), 0);
  return pages.second - bytes_in_first;
}

static inline void open_page(char *page) { CHECK_EQ(mprotect(page, pages.bytes, PROT_READ | PROT_WRITE), 0); }
static inline void close_page(char *page) { CHECK_EQ(mprotect(page, pages.bytes, PROT_NONE), 0); }

#endif
