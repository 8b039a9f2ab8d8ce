/* runtime.h: what is going on. */
#ifndef CSP_RUNTIME_H
#define CSP_RUNTIME_H

#include "csp_api.h"

CSP_BEGIN_DECLS

/* How many goroutines there are that have been created and have not ended; 0 before the first. */
CSP_API int runtime_num_goroutines(void);

/* How many workers there are; they are started if they were not. 0 when they cannot be. */
CSP_API int runtime_num_workers(void);

/* Prints on stdout, in one piece:
 *
 *     Runtime Stats:
 *       Goroutines: 2
 *       Workers:    4
 *       Threads:    9
 *       Spares:     2
 *       Hand-offs:  31
 *       Preempted:  12
 *       Stalls:     14, longest 10214 us
 *       goroutine 17: waits for receive 0x55d0c8a3f2a0 for 1250 ms, worker 3
 *       goroutine 18: ready, worker 0
 *
 * Threads are those of the process. Spares: those among them that are there because goroutines block or compute, in use
 * or not; at most COIR_SPARES_MAX. Hand-offs: how often a worker was given to another thread. Preempted: how often a
 * goroutine was paused. Stalls: how often one held up its worker for too long, and for how long at most. Of very many
 * goroutines the first thousand are listed, and a line "  and N more" follows. Workers are started if they were not. */
CSP_API void runtime_dump(void);

/* While it is on, of each goroutine that csp_proc_create starts its begin and its end are told on stderr, a line each,
 * with the time (csp_timer_now), the goroutine's number and the worker. Costs an allocation for each goroutine; off at
 * first. */
CSP_API void runtime_trace_enable(bool on);

CSP_END_DECLS
#endif
