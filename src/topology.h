/* What the job layer asks of topology.c, beside coir_job.h. */
#ifndef COIR_SRC_TOPOLOGY_H
#define COIR_SRC_TOPOLOGY_H

#include "coir_job.h"
#include "os.h"

/* The machine that the sysfs below `root` tells of (/sys/devices/system), as far as the CPUs in `mask` go; at least one
 * is in it. NULL: memory is short. */
struct coir_topology *coir__topology_read(const char *root, const struct coir__cpus *mask, int usable);

/* Puts the calling thread on the CPU that coir_topology_place tells; with COIR_PIN_NONE on all of them. What fails, or
 * does not exist, leaves it where it is. */
void coir__topology_pin(const struct coir_topology *t, enum coir_pinning pinning, int worker);

#endif
