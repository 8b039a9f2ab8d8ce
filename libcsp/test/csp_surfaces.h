/* csp_surfaces.h: the interfaces that CspSurfacesTest uses side by side, each behind the same few functions, in a
 * source of its own: their headers need not get on with each other. */
#ifndef CSP_SURFACES_H
#define CSP_SURFACES_H

#include <stdbool.h>

struct surface {
  const char *name;
  void (*begin)(void);                             /* starts what runs its fibers */
  void (*end)(void);                               /* waits until all of them have ended, and stops that */
  void (*start)(void (*fn)(void *arg), void *arg); /* one more fiber */
  bool (*send)(void *channel, void *value);        /* by its own call; false: the channel is closed */
  bool (*recv)(void *channel, void **value);
  void (*yield)(void);
};

extern const struct surface gof_surface, coir_surface;

#endif
