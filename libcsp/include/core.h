/* core.h: what programs name that make main's thread the scheduler's. */
#ifndef CSP_CORE_H
#define CSP_CORE_H

#include "csp_api.h"

CSP_BEGIN_DECLS

typedef struct csp_core csp_core_t; /* opaque */

/* NULL on every thread: something to give to csp_core_run. */
#ifdef __cplusplus
extern CSP_API __thread csp_core_t *csp_this_core;
#else
extern CSP_API _Thread_local csp_core_t *csp_this_core;
#endif

/* Never returns: the caller waits while the workers, started if they were not, run the goroutines. `data` is not
 * looked at. */
CSP_API void *csp_core_run(void *data);

CSP_END_DECLS
#endif
