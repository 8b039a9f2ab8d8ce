/* First-in-first-out list of fibers by coir_fiber.next. Whoever owns the list, or holds its lock, may call these. */
#ifndef COIR_SRC_LIST_H
#define COIR_SRC_LIST_H

#include "types.h"

static inline void coir__list_push(struct coir__list *l, struct coir_fiber *f) {
  f->next = NULL;
  if (l->tail) l->tail->next = f;
  else l->head = f;
  l->tail = f;
  l->count++;
}

static inline struct coir_fiber *coir__list_pop(struct coir__list *l) {
  struct coir_fiber *f = l->head;
  if (!f) return NULL;
  l->head = f->next;
  if (!l->head) l->tail = NULL;
  l->count--;
  return f;
}

#endif
