/* Errors as objects. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

Error *new_error(int code, const char *format, ...) {
  Error *e = format ? malloc(sizeof *e) : NULL;
  if (!e) {
    errno = format ? ENOMEM : EINVAL;
    return NULL;
  }
  va_list args;
  va_start(args, format);
  int length = vasprintf(&e->message, format, args);
  va_end(args);
  e->code = code;
  if (length >= 0) return e;
  free(e);
  errno = ENOMEM;
  return NULL;
}

void free_error(Error *error) {
  if (!error) return;
  free(error->message);
  free(error);
}

/* Hidden, that is not seen by shared libraries: cmocka has a function of this name, and would call ours. */
__attribute__((visibility("hidden"))) void print_error(const Error *error) {
  if (error) fprintf(stderr, "Error [%d]: %s\n", error->code, error->message);
}

bool is_error(const Error *error) { return error != NULL; }
