/* Wait groups: those of Coir. */
#include "wait_group.h"

#include "internal.h"

_Static_assert(sizeof(GoWaitGroup) >= sizeof(struct coir_wait_group), "a wait group fits");
_Static_assert(_Alignof(GoWaitGroup) >= _Alignof(struct coir_wait_group), "a wait group is aligned");

static struct coir_wait_group *raw(GoWaitGroup *group) { return (struct coir_wait_group *)group; }

void go_wait_group_init(GoWaitGroup *group) { *group = (GoWaitGroup){{0}}; }
void go_wait_group_add(GoWaitGroup *group, int n) { coir_wait_group_add(raw(group), n); }
void go_wait_group_done(GoWaitGroup *group) { coir_wait_group_done(raw(group)); }

int go_wait_group_wait(GoWaitGroup *group) {
  int rc = coir_wait_group_wait(raw(group), COIR_NEVER);
  return rc ? go__fail(-rc) : 0;
}

void go_wait_group_destroy(GoWaitGroup *group) { (void)group; }
