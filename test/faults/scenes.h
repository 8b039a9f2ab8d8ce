/* What scenes share. */
#ifndef COIR_TEST_SCENES_H
#define COIR_TEST_SCENES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coir.h"
#include "faults.h"

#define SOON coir_after(COIR_SEC(IS_SANITIZED ? 60 : 15)) /* what comes later does not come */

/* What the headers say. */
#define OF_CREATE -ENOMEM, -EMFILE, -ENFILE, -ENOSPC
#define OF_START -ENOMEM, -EAGAIN
#define OF_WAIT_FD -ENOMEM, -ENOSPC, -EMFILE, -ENFILE, -EAGAIN

/* The first error. */
static inline int first_of(int rc, int next) { return rc < 0 ? rc : next < 0 ? next : 0; }

/* Plays fn(arg) as the first fiber of a runtime, which gets some tries: what is examined is what the fiber does. */
static inline int play_on(struct coir_config config, coir_fn fn, void *arg) {
  struct coir_runtime *rt = NULL;
  int status = -1, rc = 0;
  config.size = sizeof config;
  if (!config.workers) config.workers = 2;
  rc = MAY(coir_runtime_create(&rt, &config), OF_CREATE);
  if (rc < 0) {
    CHECK(rt == NULL);
    return rc;
  }
  rc = MAY(coir_runtime_run(rt, fn, arg, &status), OF_START);
  MUST(coir_runtime_destroy(rt));
  return rc < 0 ? rc : status;
}

/* Starts one more thread, which waits for a moment at which the system lets it. */
static inline pthread_t thread_start(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, fn, arg) == 0);
  return thread;
}

/* Joins it, if there is one. Returns its status. */
static inline int join_soon(struct coir_fiber *f) {
  struct coir_result result = {.status = -1};
  if (!f) return 0;
  MUST(coir_join(f, &result, SOON));
  return result.status;
}

/* Whether there is a record of the calling thread. Without one it cannot wait. */
static inline int record_make(void) {
  int key = MAY(coir_key_create(NULL), -EAGAIN), rc = MAY(coir_local_set(key, &key), -ENOMEM);
  MUST(coir_key_delete(key));
  return rc;
}

/* On a disk, in $TMPDIR. */
static inline int file_without_name(void) {
  char name[300];
  const char *folder = getenv("TMPDIR");
  snprintf(name, sizeof name, "%s/faults-%d", folder ? folder : "/var/tmp", (int)getpid());
  int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && unlink(name) == 0);
  return fd;
}

#endif
