/* error.h: errors as objects, with a code and a message. Conventions: go.h. Nothing here waits. */
#ifndef LIBGO_ERROR_H
#define LIBGO_ERROR_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Error {
  int code;
  char *message; /* the error's own; freed with it */
} Error;

/* Makes an error; `format` and what follows as for printf. The caller frees it by free_error. Returns NULL and errno:
 * EINVAL (format is NULL), ENOMEM. */
Error *new_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* NULL does nothing. */
void free_error(Error *error);

/* Prints "Error [code]: message" and a newline to stderr. NULL prints nothing. */
void print_error(const Error *error);

/* Whether it is an error: anything but NULL. */
bool is_error(const Error *error);

#ifdef __cplusplus
}
#endif
#endif
