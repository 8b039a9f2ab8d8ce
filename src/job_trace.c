/* The trace of a job system: what ran where and when, and the file that shows it.
 *
 * Events go into chunks, which are never changed or given back while the system lives. Each worker fills one of its
 * own; those who carry no worker share one, under the system's lock. A chunk's count is published after the event that
 * it counts, and chunks are linked into one list, newest first; so who writes the file walks them while jobs go on, and
 * finds each event whole or not at all. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "job.h"

#define TRACE_BUFFER_BYTES ((size_t)16 << 10)
#ifdef COIR_HARD
#define TRACE_EVENTS_MAX 3
#else
#define TRACE_EVENTS_MAX 511
#endif

struct trace_event {
  const char *name; /* or NULL */
  int64_t begin, end;
  int32_t worker;
};

struct coir__job_events {
  struct coir__job_events *next;
  _Atomic(uint32_t) count; /* (a) written by who appends */
  struct trace_event events[TRACE_EVENTS_MAX];
};

/* ---- Taking down ----------------------------------------------------------------------------------------------- */

/* False: the books have no chunk, or a full one. */
static bool trace_append(struct coir__job_books *books, const struct trace_event *event) {
  struct coir__job_events *chunk = books->events;
  uint32_t count = chunk ? atm_load_rlx(&chunk->count) : TRACE_EVENTS_MAX;
  if (count == TRACE_EVENTS_MAX) return false;
  chunk->events[count] = *event;
  atm_store_rel(&chunk->count, count + 1); /* the event; pairs with the acquire in trace_write_chunk() */
  return true;
}

/* Gives the books a new chunk. Two threads that share them may both do so; then one chunk stays as it is. */
static bool trace_grow(struct coir_job_system *system, struct coir__job_books *books) {
  struct coir__job_events *chunk = coir__alloc(NULL, sizeof *chunk);
  if (!chunk) return false;
  coir__lock(&system->lock);
  chunk->next = atm_load_rlx(&system->events);
  books->events = chunk;
  atm_store_rel(&system->events, chunk); /* its link; pairs with the acquire in coir_job_system_export_trace() */
  coir__unlock(&system->lock);
  return true;
}

void coir__job_trace_add(struct coir_job_system *system, struct coir__worker *w, const char *name, int index,
                         int64_t begin, int64_t end) {
  struct coir__job_books *books = coir__job_books_of(system, w);
  struct trace_event event = {.name = name, .begin = begin, .end = end, .worker = index};
  bool is_shared = coir__job_books_are_shared(system, books), is_done;
  do {
    if (is_shared) coir__lock(&system->lock);
    is_done = trace_append(books, &event);
    if (is_shared) coir__unlock(&system->lock);
  } while (!is_done && trace_grow(system, books));
}

void coir__job_trace_fini(struct coir_job_system *system) {
  for (struct coir__job_events *next, *chunk = atm_load_rlx(&system->events); chunk; chunk = next) {
    next = chunk->next;
    coir__free(NULL, chunk, sizeof *chunk);
  }
  atm_store_rlx(&system->events, NULL);
}

/* ---- The file -------------------------------------------------------------------------------------------------- */

/* What is on its way to the file. After an error nothing more is written. */
struct trace_writer {
  int fd, rc;
  size_t used;
  char *buffer; /* TRACE_BUFFER_BYTES */
};

static void trace_flush(struct trace_writer *out) {
  for (size_t at = 0; at < out->used && !out->rc;) {
    ssize_t n;
    COIR_OUTSIDE_STAYING(n = coir__sys_write(out->fd, out->buffer + at, out->used - at));
    if (n > 0) at += (size_t)n;
    else if (n != -EINTR) out->rc = (int)n;
  }
  out->used = 0;
}

/* Where `bytes` more may be written: far less than the buffer holds. */
static char *trace_room(struct trace_writer *out, size_t bytes) {
  if (out->used + bytes > TRACE_BUFFER_BYTES) trace_flush(out);
  return out->buffer + out->used;
}

static void trace_put(struct trace_writer *out, const char *text, size_t bytes) {
  memcpy(trace_room(out, bytes), text, bytes);
  out->used += bytes;
}

/* How many bytes the character of UTF-8 has that begins here; 0: it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *c) {
  if (c[0] < 0x80) return 1;
  size_t n = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2;
  if (c[0] < 0xc2 || c[0] > 0xf4) return 0;
  for (size_t i = 1; i < n; i++)
    if ((c[i] & 0xc0) != 0x80) return 0;
  bool is_overlong = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xf0 && c[1] < 0x90);
  bool is_surrogate = c[0] == 0xed && c[1] >= 0xa0, is_beyond = c[0] == 0xf4 && c[1] >= 0x90;
  return is_overlong || is_surrogate || is_beyond ? 0 : n;
}

/* As JSON wants a string to be, without its quotes. */
static void trace_put_name(struct trace_writer *out, const char *name) {
  const unsigned char *c = (const unsigned char *)name;
  while (*c) {
    size_t n = utf8_length(c);
    char code[8];
    if (n == 0) trace_put(out, "\\ufffd", 6);
    else if (*c == '"' || *c == '\\') trace_put(out, (const char[]){'\\', (char)*c}, 2);
    else if (*c >= 0x20) trace_put(out, (const char *)c, n);
    else trace_put(out, code, (size_t)snprintf(code, sizeof code, "\\u%04x", *c));
    c += n ? n : 1;
  }
}

/* Nanoseconds as microseconds, by way of whole numbers: a decimal point is not the same everywhere. */
#define TRACE_US "%" PRId64 ".%03d"
#define TRACE_US_OF(ns) (ns) / 1000, (int)((ns) % 1000)

static void trace_put_event(struct trace_writer *out, const struct trace_event *event, int64_t origin, bool is_first) {
  trace_put(out, is_first ? "\n" : ",\n", is_first ? 1 : 2);
  trace_put(out, "{\"name\":\"", 9);
  trace_put_name(out, event->name ? event->name : "job");
  char text[160];
  int n = snprintf(text, sizeof text, "\",\"ph\":\"X\",\"ts\":" TRACE_US ",\"dur\":" TRACE_US ",\"pid\":1,\"tid\":%d}",
                   TRACE_US_OF(event->begin - origin), TRACE_US_OF(event->end - event->begin), (int)event->worker);
  trace_put(out, text, (size_t)n);
}

static bool trace_write_chunk(struct trace_writer *out, const struct coir__job_events *chunk, int64_t origin,
                              bool is_first) {
  uint32_t count = atm_load_acq(&chunk->count); /* pairs with the release in trace_append() */
  for (uint32_t i = 0; i < count && !out->rc; i++) trace_put_event(out, &chunk->events[i], origin, is_first && !i);
  return is_first && count == 0;
}

int coir_job_system_export_trace(struct coir_job_system *system, const char *path) {
  COIR_INSIDE;
  if (!system || !path) return -EINVAL;
  if (system->config.trace != COIR_ON) return -ENOTSUP;
  struct trace_writer out = {.buffer = coir__alloc(NULL, TRACE_BUFFER_BYTES)};
  if (!out.buffer) return -ENOMEM;
  COIR_OUTSIDE_STAYING(out.fd = coir__sys_create(path));
  if (out.fd < 0) out.rc = out.fd;
  bool is_first = true;
  trace_put(&out, "[", 1);
  /* Acquire: pairs with the release in trace_grow(). */
  for (const struct coir__job_events *c = atm_load_acq(&system->events); c && !out.rc; c = c->next)
    is_first = trace_write_chunk(&out, c, system->created_at, is_first);
  trace_put(&out, "\n]\n", 3);
  trace_flush(&out);
  int closed = 0;
  if (out.fd >= 0) COIR_OUTSIDE_STAYING(closed = coir__sys_close(out.fd));
  coir__free(NULL, out.buffer, TRACE_BUFFER_BYTES);
  return out.rc ? out.rc : closed;
}
