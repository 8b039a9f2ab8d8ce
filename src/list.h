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

static inline void coir__list_push_first(struct coir__list *l, struct coir_fiber *f) {
  f->next = l->head;
  if (!l->head) l->tail = f;
  l->head = f;
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

/* Wherever it stands. False: it is not in the list. */
static inline bool coir__list_remove(struct coir__list *l, const struct coir_fiber *f) {
  struct coir_fiber *before = NULL, *at = l->head;
  while (at && at != f) before = at, at = at->next;
  if (!at) return false;
  if (before) before->next = at->next;
  else l->head = at->next;
  if (l->tail == at) l->tail = before;
  l->count--;
  return true;
}

#endif
