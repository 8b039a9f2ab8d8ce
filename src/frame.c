/* Bump allocators: memory that is given out by moving a mark, and taken back all at once.
 *
 * A frame is one block, a paged frame a list of pages, each of which is such a block. Blocks begin at a multiple of the
 * largest alignment that can be asked for, so that aligning the mark aligns the address; and they come from the
 * allocator, so that checkers of memory see their bounds.
 *
 * When a page has no room left the next one is taken, and its rest is lost until the reset; looking through older pages
 * for a gap would make the cost of an allocation depend on how many there are. */
#include "coir_job.h"
#include "internal.h"

#define BLOCK_ALIGN ((size_t)16)       /* when none is asked for */
#define BLOCK_ALIGN_MAX ((size_t)4096) /* a power of two */
#define PAGED_FRAME_MIN ((size_t)64 << 10)

/* A block: this head, and behind it its memory. */
struct coir_frame {
  struct coir_frame *next; /* of a page: the next one, which is empty */
  char *memory;
  size_t capacity, used;
};

struct coir_paged_frame {
  size_t page_bytes;
  struct coir_frame *first, *current; /* those behind `current` are empty */
};

struct coir_frame *coir_frame_create(size_t capacity) {
  size_t head = sizeof(struct coir_frame) + BLOCK_ALIGN_MAX - 1;
  if (capacity > PTRDIFF_MAX - head) return NULL;
  struct coir_frame *frame = coir__alloc(NULL, head + capacity);
  if (!frame) return NULL;
  frame->memory = (char *)(((uintptr_t)(frame + 1) + BLOCK_ALIGN_MAX - 1) & ~(uintptr_t)(BLOCK_ALIGN_MAX - 1));
  frame->capacity = capacity;
  return frame;
}

void coir_frame_destroy(struct coir_frame *frame) {
  if (frame) coir__free(NULL, frame, sizeof *frame + BLOCK_ALIGN_MAX - 1 + frame->capacity);
}

/* 0: there is no such alignment. */
static size_t frame_alignment(size_t align) {
  if (align == 0) return BLOCK_ALIGN;
  return align <= BLOCK_ALIGN_MAX && (align & (align - 1)) == 0 ? align : 0;
}

static void *frame_bump(struct coir_frame *frame, size_t bytes, size_t align) {
  size_t at = (frame->used + align - 1) & ~(align - 1); /* cannot overflow: no object is as large as that */
  if (at > frame->capacity || bytes > frame->capacity - at) return NULL;
  frame->used = at + bytes;
  return frame->memory + at;
}

void *coir_frame_alloc(struct coir_frame *frame, size_t bytes, size_t align) {
  size_t to = frame_alignment(align);
  return frame && to ? frame_bump(frame, bytes, to) : NULL;
}

void coir_frame_reset(struct coir_frame *frame) {
  if (frame) frame->used = 0;
}

size_t coir_frame_used(const struct coir_frame *frame) { return frame ? frame->used : 0; }
size_t coir_frame_capacity(const struct coir_frame *frame) { return frame ? frame->capacity : 0; }

struct coir_paged_frame *coir_paged_frame_create(size_t page_bytes) {
  if (page_bytes < PAGED_FRAME_MIN) page_bytes = PAGED_FRAME_MIN;
  struct coir_paged_frame *frame = coir__alloc(NULL, sizeof *frame);
  if (!frame) return NULL;
  frame->page_bytes = page_bytes;
  frame->first = frame->current = coir_frame_create(page_bytes);
  if (frame->first) return frame;
  coir__free(NULL, frame, sizeof *frame);
  return NULL;
}

void coir_paged_frame_destroy(struct coir_paged_frame *frame) {
  if (!frame) return;
  for (struct coir_frame *page = frame->first, *next; page; page = next) {
    next = page->next;
    coir_frame_destroy(page);
  }
  coir__free(NULL, frame, sizeof *frame);
}

void *coir_paged_frame_alloc(struct coir_paged_frame *frame, size_t bytes, size_t align) {
  size_t to = frame_alignment(align);
  if (!frame || !to || bytes > frame->page_bytes) return NULL;
  struct coir_frame *page = frame->current;
  void *memory = frame_bump(page, bytes, to);
  if (memory) return memory;
  if (!page->next) page->next = coir_frame_create(frame->page_bytes);
  if (!page->next) return NULL;
  frame->current = page->next;
  return frame_bump(frame->current, bytes, to);
}

void coir_paged_frame_reset(struct coir_paged_frame *frame) {
  if (!frame) return;
  for (struct coir_frame *page = frame->first; page; page = page->next) coir_frame_reset(page);
  frame->current = frame->first;
}

size_t coir_paged_frame_used(const struct coir_paged_frame *frame) {
  size_t bytes = 0;
  for (const struct coir_frame *page = frame ? frame->first : NULL; page; page = page->next) bytes += page->used;
  return bytes;
}

size_t coir_paged_frame_capacity(const struct coir_paged_frame *frame) {
  size_t bytes = 0;
  for (const struct coir_frame *page = frame ? frame->first : NULL; page; page = page->next) bytes += page->capacity;
  return bytes;
}
