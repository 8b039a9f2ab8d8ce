/* httpd.c: an HTTP/1.1 server with one fiber per connection.
 *
 * The code reads as if every connection had a thread of its own: receive, parse, answer, in a loop, with deadlines.
 * Handlers run inside the parser's callbacks and may wait there (GET /sleep does); the parser simply stays on the
 * fiber's stack.
 *
 * What makes it fast is what it does not do. A request costs one coir_recv and one coir_send, however many requests
 * came in one piece; nothing is allocated, formatted or locked for it; the clock is read once. The answer to GET / is
 * made once a second, with its date, and copied.
 *
 * What makes many idle connections cheap: buffers belong to a connection only while it is active. After HOT_MS
 * without a request it gives them back and waits by coir_poll, with nothing but its fiber.
 *
 * Scopes. The server is a scope, and every connection, a fiber in it, opens one of its own, with a deadline: whatever
 * is done for a connection ends with it. A handler that waits runs in one more scope, with the time that a handler
 * may take and a fiber that watches the connection: when the client resets it, what is done for it is cancelled.
 *
 * Slow clients. A request must be complete header_ms after its first byte, or it is answered by 408. A connection
 * without a request is closed silently after idle_ms. A client that takes nothing of an answer for write_ms is cut
 * off. A handler that waits for more than handler_ms is cancelled, and answered by 504; a connection is closed after
 * life_ms.
 *
 * Stopping. The first fiber waits for SIGTERM or SIGINT, then closes the listener. Requests in progress are finished,
 * each answer says "Connection: close", idle connections are closed. What is left after grace_ms is cancelled, by the
 * deadline of the server's scope. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <http_parser.h>
#include <inttypes.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"

enum {
  HEAD_MAX = 16 << 10, /* bytes of a request's head; more: 431 */
  BODY_MAX = 1 << 20,  /* bytes of a request's body; more: 413 */
  TARGET_MAX = 512,    /* bytes of a request's target; more: 414 */
  SLEEP_MAX_MS = 60000,
  BUFFER_BYTES = 4096,
  STACK_BYTES = 32 << 10,
  BACKLOG = 4096,
  HOT_MS = 500,     /* buffers are kept this long for the next request */
  BACKOFF_MS = 10,  /* between two tries to accept when descriptors, memory or places are short */
  LINGER_MS = 1000, /* how long to read on after an answer that the client may not have expected */
  WORKERS_MAX = 64,
};

/* ---- Options ---------------------------------------------------------------------------------------------------- */

static int port = 8080, workers, conns_max = 65536, idle_ms = 60000, header_ms = 10000, write_ms = 10000,
           handler_ms = 30000, life_ms = 3600000, grace_ms = 5000, preempt;

static const struct number {
  const char *name;
  int *value, min, max;
  const char *help;
} numbers[] = {
    {"port", &port, 0, 65535, "where to listen on 127.0.0.1; 0: any free port"},
    {"workers", &workers, 0, WORKERS_MAX, "threads that run fibers; 0: one per CPU"},
    {"max-conns", &conns_max, 1, 1 << 24, "connections at a time; more wait in the backlog"},
    {"idle-ms", &idle_ms, 1, 1 << 30, "a connection without a request is closed after this long"},
    {"header-ms", &header_ms, 1, 1 << 30, "a request must be complete this long after its first byte"},
    {"write-ms", &write_ms, 1, 1 << 30, "a client must take some of its answer within this time"},
    {"handler-ms", &handler_ms, 1, 1 << 30, "a handler that waits may take this long"},
    {"life-ms", &life_ms, 1, 1 << 30, "a connection is closed after this long, whatever it does"},
    {"grace-ms", &grace_ms, 0, 1 << 30, "on SIGTERM, requests in progress may take this long"},
    {"preempt", &preempt, 0, 1, "1: a handler that computes is paused for others; 0: it keeps its worker"},
};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

/* ---- The server's state ----------------------------------------------------------------------------------------- */

struct buffers {
  char in[BUFFER_BYTES], out[BUFFER_BYTES];
};

/* A connection; on the stack of its fiber. */
struct conn {
  int fd;
  int64_t now;           /* the clock when the fiber last came back from waiting */
  int64_t idle_until;    /* when to give up waiting for a request */
  int64_t due;           /* when the request that has begun must be complete */
  int64_t life_until;    /* when it must be over */
  struct buffers *b;     /* NULL while it is cold */
  size_t out_bytes;      /* answers that wait in b->out */
  bool in_request;       /* a request has begun and is not complete */
  bool is_head;          /* the request in progress wants no body */
  bool is_closing;       /* no further request is taken */
  bool is_broken;        /* nothing can be sent any more */
  bool has_unread;       /* closing, although the client may still be sending */
  _Atomic(bool) is_idle; /* read by run_close_idle */
  http_parser parser;
  uint64_t body_bytes;
  size_t target_bytes;
  char target[TARGET_MAX + 1];
  struct conn *next, **link; /* under server.lock */
};

/* Each worker counts for itself, so that counting does not send a cache line to and fro. */
struct counts {
  _Alignas(64) _Atomic(uint64_t) requests;
};

static struct {
  int listener;
  int64_t started;
  _Atomic(bool) is_stopping;
  struct coir_scope *scope; /* of all connections */
  _Atomic(int) conns;       /* accepted and not closed yet */
  _Atomic(int) cut_off;     /* of those: ended because the time of grace was over */
  _Atomic(uint64_t) accepted;
  pthread_mutex_t lock; /* held for a few instructions, never across a call that may wait */
  struct conn *first;
  struct counts counts[WORKERS_MAX];
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_stopping(void) { return atomic_load_explicit(&server.is_stopping, memory_order_relaxed); }

static void enroll(struct conn *c) {
  pthread_mutex_lock(&server.lock);
  c->next = server.first;
  c->link = &server.first;
  if (c->next) c->next->link = &c->next;
  server.first = c;
  pthread_mutex_unlock(&server.lock);
}

static void strike_off(struct conn *c) {
  pthread_mutex_lock(&server.lock);
  *c->link = c->next;
  if (c->next) c->next->link = c->link;
  pthread_mutex_unlock(&server.lock);
}

/* ---- The date, and the answer to GET / -------------------------------------------------------------------------- */

#define HELLO "Hello, World!"

struct page {
  char date[32];
  size_t bytes;
  char text[224];
};

/* Readers take the newest page without a lock. Its slot is not written again for PAGES - 1 seconds, and no reader waits
 * between taking a page and copying it. */
enum { PAGES = 32 };
static struct {
  _Atomic(int64_t) due; /* when the newest page is out of date */
  atomic_flag is_busy;  /* somebody makes the next one */
  _Atomic(uint32_t) newest;
  struct page slots[PAGES];
} pages = {.is_busy = ATOMIC_FLAG_INIT};

static void make_page(int64_t now) {
  struct timespec wall;
  struct tm tm;
  char date[sizeof pages.slots->date];
  uint32_t next = atomic_load_explicit(&pages.newest, memory_order_relaxed) + 1;
  struct page *p = &pages.slots[next % PAGES];
  clock_gettime(CLOCK_REALTIME, &wall);
  strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&wall.tv_sec, &tm));
  memcpy(p->date, date, sizeof date);
  p->bytes = (size_t)snprintf(p->text, sizeof p->text,
                              "HTTP/1.1 200 OK\r\nServer: coir\r\nDate: %s\r\nContent-Type: text/plain\r\n"
                              "Content-Length: %zu\r\n\r\n" HELLO,
                              date, sizeof HELLO - 1);
  atomic_store_explicit(&pages.newest, next, memory_order_release);
  atomic_store_explicit(&pages.due, now + COIR_SEC(1) - wall.tv_nsec, memory_order_relaxed);
}

/* Returns the page of this second; whoever comes first in a second makes it. So an idle server does nothing at all. */
static const struct page *page_at(int64_t now) {
  if (now >= atomic_load_explicit(&pages.due, memory_order_relaxed) &&
      !atomic_flag_test_and_set_explicit(&pages.is_busy, memory_order_acquire)) {
    make_page(now);
    atomic_flag_clear_explicit(&pages.is_busy, memory_order_release);
  }
  return &pages.slots[atomic_load_explicit(&pages.newest, memory_order_acquire) % PAGES];
}

/* ---- Sending ---------------------------------------------------------------------------------------------------- */

static void break_off(struct conn *c) {
  c->is_broken = c->is_closing = true;
  c->out_bytes = 0;
}

/* Sends what waits in the buffer. Most of the time the socket takes it at once: then no clock is read. */
static void flush(struct conn *c) {
  size_t sent = 0;
  int64_t deadline = 0;
  while (sent < c->out_bytes) {
    ssize_t n = coir_send(c->fd, c->b->out + sent, c->out_bytes - sent, 0, deadline);
    if (n < 0 && (n != -ETIMEDOUT || deadline != 0)) {
      break_off(c);
      return;
    }
    if (n > 0) sent += (size_t)n;
    if (sent < c->out_bytes) deadline = coir_after(COIR_MS(write_ms));
  }
  c->out_bytes = 0;
  if (deadline != 0) c->now = coir_now();
}

/* Makes room for `bytes` more, at most BUFFER_BYTES, which may wait. Returns false when nothing can be sent any more.
 */
static bool make_room(struct conn *c, size_t bytes) {
  if (c->out_bytes + bytes > BUFFER_BYTES) flush(c);
  return !c->is_broken;
}

/* Adds to what will be sent. */
static void put(struct conn *c, const char *data, size_t bytes) {
  if (!make_room(c, bytes)) return;
  memcpy(c->b->out + c->out_bytes, data, bytes);
  c->out_bytes += bytes;
}

/* Answers the request. `headers`: more header lines, or "". */
static void answer(struct conn *c, int status, const char *headers, const char *type, const char *body, size_t bytes) {
  char head[512];
  const char *connection = "";
  if (is_stopping()) c->is_closing = true; /* it may have begun to stop while a handler waited */
  if (c->is_closing) connection = "Connection: close\r\n";
  else if (c->parser.http_minor == 0) connection = "Connection: keep-alive\r\n"; /* HTTP/1.0 has to be told */
  int n = snprintf(head, sizeof head,
                   "HTTP/1.1 %d %s\r\nServer: coir\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n",
                   status, http_status_str((enum http_status)status), page_at(c->now)->date, type, bytes, headers,
                   connection);
  put(c, head, (size_t)n);
  if (!c->is_head) put(c, body, bytes);
}

static void answer_status(struct conn *c, int status, const char *headers) {
  char body[64];
  int n = snprintf(body, sizeof body, "%d %s\n", status, http_status_str((enum http_status)status));
  answer(c, status, headers, "text/plain", body, (size_t)n);
}

/* Answers with an error after which the connection cannot go on. Returns what makes the parser stop. */
static int refuse(struct conn *c, int status) {
  c->is_closing = c->has_unread = true;
  answer_status(c, status, "");
  return -1;
}

/* ---- Handlers --------------------------------------------------------------------------------------------------- */

/* GET / */
static void handle_hello(struct conn *c, const char *query) {
  (void)query;
  if (!c->is_head && !c->is_closing && c->parser.http_minor == 1) {
    if (!make_room(c, sizeof pages.slots->text)) return;
    const struct page *p = page_at(c->now); /* from here to its copy, nothing may wait */
    put(c, p->text, p->bytes);
  } else {
    answer(c, 200, "", "text/plain", HELLO, sizeof HELLO - 1);
  }
}

/* In the scope of a handler that waits: fails when the connection has been reset, which cancels the handler. A client
 * that has only ended its own half still wants its answer. */
static int watch_client(void *arg) {
  struct conn *c = arg;
  char byte;
  int rc = coir_poll(c->fd, COIR_READABLE, COIR_NEVER);
  if (rc < 0) return rc;
  ssize_t n = coir_recv(c->fd, &byte, 1, MSG_PEEK, 0);
  return n < 0 && n != -ETIMEDOUT ? (int)n : 0;
}

/* What a handler does that waits: in a scope, with a deadline, and not for longer than the client does. Returns 0, or
 * why it was cancelled. */
static int sleep_for_client(struct conn *c, int64_t ns) {
  struct coir_scope *scope;
  struct coir_attr attr = {.name = "watch", .stack_bytes = STACK_BYTES};
  int rc = coir_scope_open(&scope, 0, coir_after(COIR_MS(handler_ms)));
  if (rc != 0) return rc;
  rc = coir_scope_spawn(scope, watch_client, c, &attr, NULL);
  if (rc == 0) rc = coir_sleep(ns);
  int done = rc == 0;
  if (done) coir_scope_cancel(scope, 0); /* the watch is over */
  int reason = coir_scope_close(scope);
  return done ? 0 : reason != 0 ? reason : rc;
}

/* Reads "ms=N" for GET /sleep and the like. Returns -1, and has answered, when it is not that. */
static long read_ms(struct conn *c, const char *query) {
  char *end = NULL;
  long ms = strncmp(query, "ms=", 3) == 0 ? strtol(query + 3, &end, 10) : -1;
  if (end && end != query + 3 && *end == '\0' && ms >= 0 && ms <= SLEEP_MAX_MS) return ms;
  answer_status(c, 400, "");
  return -1;
}

/* GET /sleep?ms=N: what a slow database looks like. Only this fiber waits. */
static void handle_sleep(struct conn *c, const char *query) {
  char body[64];
  long ms = read_ms(c, query);
  if (ms < 0) return;
  flush(c); /* earlier answers need not wait for this one */
  int rc = sleep_for_client(c, COIR_MS(ms));
  c->now = coir_now();
  if (rc == -ETIMEDOUT) {
    answer_status(c, 504, "");
    return;
  }
  if (rc != 0) {
    break_off(c);
    return;
  }
  int n = snprintf(body, sizeof body, "slept %ld ms\n", ms);
  answer(c, 200, "", "text/plain", body, (size_t)n);
}

/* GET /spin?ms=N: what a handler looks like that computes. It keeps its worker, unless the server may preempt. */
static void handle_spin(struct conn *c, const char *query) {
  long ms = read_ms(c, query);
  if (ms < 0) return;
  flush(c);
  int64_t until = coir_after(COIR_MS(ms));
  while ((c->now = coir_now()) < until) {}
  answer(c, 200, "", "text/plain", "done\n", 5);
}

/* GET /block?ms=N: what a handler looks like that calls a library which blocks the thread. The monitor finds it. */
static void handle_block(struct conn *c, const char *query) {
  long ms = read_ms(c, query);
  if (ms < 0) return;
  flush(c);
  int64_t until = coir_after(COIR_MS(ms));
  while ((c->now = coir_now()) < until) { /* a signal may end it early */
    int64_t left = until - c->now;
    nanosleep(&(struct timespec){.tv_sec = left / COIR_SEC(1), .tv_nsec = left % COIR_SEC(1)}, NULL);
  }
  answer(c, 200, "", "text/plain", "done\n", 5);
}

/* POST /upload: counts the bytes of the body. */
static void handle_upload(struct conn *c, const char *query) {
  char body[64];
  (void)query;
  int n = snprintf(body, sizeof body, "%" PRIu64 " bytes\n", c->body_bytes);
  answer(c, 200, "", "text/plain", body, (size_t)n);
}

static uint64_t requests_served(void) {
  uint64_t sum = 0;
  for (int i = 0; i < WORKERS_MAX; i++) sum += atomic_load_explicit(&server.counts[i].requests, memory_order_relaxed);
  return sum;
}

/* Memory in use, in bytes; 0 when the system does not tell. */
static uint64_t resident_bytes(void) {
  char text[128] = "";
  unsigned long pages_all = 0, pages_resident = 0;
  int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  coir_read(fd, text, sizeof text - 1, COIR_NEVER); /* a file: a pool thread reads it, the worker goes on with others */
  coir_close(fd);
  if (sscanf(text, "%lu %lu", &pages_all, &pages_resident) != 2) return 0;
  return (uint64_t)pages_resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What the program has from malloc, and what malloc keeps for later, as of a burst that is over; 0 where it does not
 * tell. */
struct heap {
  uint64_t allocated, kept;
};
static struct heap heap_bytes(void) {
  struct heap heap = {0};
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  struct mallinfo2 all = mallinfo2();
  heap = (struct heap){.allocated = all.uordblks + all.hblkhd, .kept = all.fordblks};
#endif
  return heap;
}

static int print_stats(char *out, size_t bytes, struct coir_runtime *rt) {
  static const char *const guards[] = {"auto", "madvise", "mprotect", "canary"};
  struct coir_stats s;
  struct heap heap = heap_bytes();
  coir_runtime_get_stats(rt, &s);
  return snprintf(
      out, bytes,
      "{\"requests\":%" PRIu64 ",\"connections\":%d,\"accepted\":%" PRIu64 ",\"uptime_ms\":%" PRId64
      ",\"rss_bytes\":%" PRIu64 ",\"allocated_bytes\":%" PRIu64 ",\"kept_bytes\":%" PRIu64
      ",\"workers\":%d,\"workers_idle\":%d,\"pollers\":%d,\"guard\":\"%s\",\"fibers_live\":%" PRIu64
      ",\"fibers_spawned\":%" PRIu64 ",\"switches\":%" PRIu64 ",\"parks\":%" PRIu64 ",\"wakes\":%" PRIu64
      ",\"steals_attempted\":%" PRIu64 ",\"steals\":%" PRIu64 ",\"injected\":%" PRIu64 ",\"injected_taken\":%" PRIu64
      ",\"rebalances_attempted\":%" PRIu64 ",\"rebalanced\":%" PRIu64 ",\"sleeps\":%" PRIu64 ",\"polls\":%" PRIu64
      ",\"io_events\":%" PRIu64 ",\"timers_fired\":%" PRIu64 ",\"stacks_live\":%" PRIu64 ",\"stacks_cached\":%" PRIu64
      ",\"stack_bytes_reserved\":%" PRIu64 ",\"stacks_unguarded\":%" PRIu64 "}\n",
      requests_served(), atomic_load(&server.conns), atomic_load(&server.accepted),
      (coir_now() - server.started) / COIR_MS(1), resident_bytes(), heap.allocated, heap.kept, s.workers,
      s.workers_idle, s.pollers, guards[s.guard], s.fibers_live, s.fibers_spawned, s.switches, s.parks, s.wakes,
      s.steals_attempted, s.steals, s.injected, s.injected_taken, s.rebalances_attempted, s.rebalanced, s.sleeps,
      s.polls, s.io_events, s.timers_fired, s.stacks_live, s.stacks_cached, s.stack_bytes_reserved, s.stacks_unguarded);
}

/* GET /stats */
static void handle_stats(struct conn *c, const char *query) {
  char body[1536];
  (void)query;
  int n = print_stats(body, sizeof body, coir_runtime_current());
  answer(c, 200, "", "application/json", body, (size_t)n);
}

#define METHOD(name) (UINT64_C(1) << HTTP_##name)
static const struct route {
  const char *path;
  uint64_t methods;
  const char *allow;
  void (*handle)(struct conn *c, const char *query);
} routes[] = {
    {"/", METHOD(GET) | METHOD(HEAD), "Allow: GET, HEAD\r\n", handle_hello},
    {"/stats", METHOD(GET) | METHOD(HEAD), "Allow: GET, HEAD\r\n", handle_stats},
    {"/sleep", METHOD(GET) | METHOD(HEAD), "Allow: GET, HEAD\r\n", handle_sleep},
    {"/spin", METHOD(GET) | METHOD(HEAD), "Allow: GET, HEAD\r\n", handle_spin},
    {"/block", METHOD(GET) | METHOD(HEAD), "Allow: GET, HEAD\r\n", handle_block},
    {"/upload", METHOD(POST) | METHOD(PUT), "Allow: POST, PUT\r\n", handle_upload},
};

/* Points `path` at what a route is named after, and returns the query, "" when there is none. */
static const char *split_target(struct conn *c, char **path) {
  *path = c->target;
  if (c->target[0] != '/') { /* as sent to a proxy: http://host/path */
    struct http_parser_url url;
    http_parser_url_init(&url);
    if (http_parser_parse_url(c->target, c->target_bytes, 0, &url) == 0) {
      if (url.field_set & 1 << UF_PATH) *path = c->target + url.field_data[UF_PATH].off;
      else strcpy(*path, "/");
    }
  }
  (*path)[strcspn(*path, "#")] = '\0';
  char *query = strchr(*path, '?');
  if (!query) return "";
  *query = '\0';
  return query + 1;
}

static void dispatch(struct conn *c) {
  char *path;
  const char *query = split_target(c, &path);
  for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
    if (strcmp(path, routes[i].path) != 0) continue;
    if (routes[i].methods >> c->parser.method & 1) routes[i].handle(c, query);
    else answer_status(c, 405, routes[i].allow);
    return;
  }
  answer_status(c, 404, "");
}

/* ---- Parsing ---------------------------------------------------------------------------------------------------- */

static struct conn *conn_of(http_parser *p) { return p->data; }

static int on_message_begin(http_parser *p) {
  struct conn *c = conn_of(p);
  c->in_request = true;
  c->due = c->now + COIR_MS(header_ms);
  c->target_bytes = 0;
  c->body_bytes = 0;
  return 0;
}

static int on_url(http_parser *p, const char *at, size_t bytes) {
  struct conn *c = conn_of(p);
  if (c->target_bytes + bytes > TARGET_MAX) return refuse(c, 414);
  memcpy(c->target + c->target_bytes, at, bytes);
  c->target_bytes += bytes;
  return 0;
}

static int on_headers_complete(http_parser *p) {
  conn_of(p)->is_head = p->method == HTTP_HEAD; /* before, the method is a guess */
  if (p->http_major != 1) return refuse(conn_of(p), 505);
  if (p->content_length != UINT64_MAX && p->content_length > BODY_MAX) return refuse(conn_of(p), 413);
  return 0;
}

static int on_body(http_parser *p, const char *at, size_t bytes) {
  struct conn *c = conn_of(p);
  (void)at;
  c->body_bytes += bytes;
  return c->body_bytes > BODY_MAX ? refuse(c, 413) : 0;
}

static int on_message_complete(http_parser *p) {
  struct conn *c = conn_of(p);
  int worker = coir_worker_index();
  c->in_request = false;
  c->target[c->target_bytes] = '\0';
  /* After CONNECT the client speaks another protocol. */
  c->is_closing = !http_should_keep_alive(p) || p->method == HTTP_CONNECT || is_stopping();
  atomic_fetch_add_explicit(&server.counts[worker].requests, 1, memory_order_relaxed);
  dispatch(c);
  c->is_head = false;
  c->idle_until = c->now + COIR_MS(idle_ms);
  return c->is_closing ? -1 : 0;
}

static const http_parser_settings settings = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* Feeds input to the parser, whose callbacks answer. */
static void parse(struct conn *c, size_t bytes) {
  size_t used = 0;
  /* More than one turn is only needed behind a request to upgrade the protocol, where the parser stops: we do not. */
  while (used < bytes && !c->is_closing) {
    used += http_parser_execute(&c->parser, &settings, c->b->in + used, bytes - used);
    enum http_errno error = HTTP_PARSER_ERRNO(&c->parser);
    if (error != HPE_OK && !c->is_closing) refuse(c, error == HPE_HEADER_OVERFLOW ? 431 : 400);
  }
  if (used < bytes) c->has_unread = true;
}

/* ---- Connections ------------------------------------------------------------------------------------------------ */

/* Waits for the first bytes of a request, without buffers when that takes long. */
static ssize_t await_request(struct conn *c) {
  if (c->b) {
    int64_t hot_until = c->now + COIR_MS(HOT_MS);
    bool is_last = hot_until >= c->idle_until;
    ssize_t n = coir_recv(c->fd, c->b->in, BUFFER_BYTES, 0, is_last ? c->idle_until : hot_until);
    if (n != -ETIMEDOUT || is_last) return n;
    free(c->b);
    c->b = NULL;
  }
  int rc = coir_poll(c->fd, COIR_READABLE, c->idle_until);
  if (rc < 0) return rc;
  c->b = malloc(sizeof *c->b);
  if (!c->b) return -ENOMEM;
  return coir_recv(c->fd, c->b->in, BUFFER_BYTES, 0, c->idle_until);
}

/* Waits for input. Returns the number of bytes; 0 or an error when there will be none. */
static ssize_t await_input(struct conn *c) {
  ssize_t n;
  if (c->in_request) {
    n = coir_recv(c->fd, c->b->in, BUFFER_BYTES, 0, c->due);
  } else {
    atomic_store_explicit(&c->is_idle, true, memory_order_relaxed);
    n = await_request(c);
    atomic_store_explicit(&c->is_idle, false, memory_order_relaxed);
  }
  c->now = coir_now();
  return n;
}

static void serve(struct conn *c) {
  while (!c->is_closing && c->now < c->life_until && (c->in_request || !is_stopping())) {
    ssize_t n = await_input(c);
    if (n > 0) {
      parse(c, (size_t)n);
    } else {
      if (n == -ETIMEDOUT && c->in_request) refuse(c, 408);
      c->is_closing = true;
    }
    flush(c);
  }
}

/* Closing a socket with unread input makes the kernel reset the connection, and the client may never see the answer. So
 * say that this was all, and read on for a while. */
static void linger(struct conn *c) {
  int64_t deadline = coir_after(COIR_MS(LINGER_MS));
  if (shutdown(c->fd, SHUT_WR) != 0) return;
  while (coir_recv(c->fd, c->b->in, BUFFER_BYTES, 0, deadline) > 0 && coir_now() < deadline) {}
}

/* The fiber of a connection. */
static int run_conn(void *arg) {
  struct conn c = {.fd = (int)(intptr_t)arg, .now = coir_now()};
  struct coir_scope *scope;
  c.idle_until = c.now + COIR_MS(idle_ms);
  c.life_until = c.now + COIR_MS(life_ms);
  if (coir_scope_open(&scope, 0, c.life_until) == 0) {
    http_parser_init(&c.parser, HTTP_REQUEST);
    c.parser.data = &c;
    enroll(&c);
    serve(&c);
    if (c.has_unread && !c.is_broken) linger(&c);
    strike_off(&c);
    coir_scope_close(scope);
  }
  free(c.b);
  coir_close(c.fd);
  if (coir_scope_reason(server.scope) != 0) atomic_fetch_add(&server.cut_off, 1);
  atomic_fetch_sub(&server.conns, 1);
  return 0;
}

static void start_conn(int fd) {
  struct coir_attr attr = {.name = "connection", .stack_bytes = STACK_BYTES};
  atomic_fetch_add(&server.conns, 1);
  atomic_fetch_add(&server.accepted, 1);
  if (coir_scope_spawn(server.scope, run_conn, (void *)(intptr_t)fd, &attr, NULL) != 0) {
    coir_close(fd);
    atomic_fetch_sub(&server.conns, 1);
  }
}

/* The fiber that accepts connections, until the listener is closed. */
static int run_accept(void *arg) {
  (void)arg;
  while (!is_stopping()) {
    int fd = atomic_load(&server.conns) < conns_max ? coir_accept(server.listener, NULL, NULL, COIR_NEVER) : -EMFILE;
    if (fd >= 0) start_conn(fd);
    else if (fd == -EBADF || fd == -ECANCELED) break;
    else coir_sleep(COIR_MS(BACKOFF_MS)); /* descriptors or memory are short: connections wait in the backlog */
  }
  return 0;
}

/* ---- Start and stop --------------------------------------------------------------------------------------------- */

/* Ends the input of idle connections until none is left. Input that had arrived before is still read and answered. */
static int run_close_idle(void *arg) {
  (void)arg;
  while (atomic_load(&server.conns) > 0) {
    pthread_mutex_lock(&server.lock);
    for (struct conn *c = server.first; c; c = c->next) {
      if (atomic_load_explicit(&c->is_idle, memory_order_relaxed)) shutdown(c->fd, SHUT_RD);
    }
    pthread_mutex_unlock(&server.lock);
    if (coir_sleep(COIR_MS(10)) != 0) break;
  }
  return 0;
}

static int listen_on(int at) {
  int on = 1;
  struct sockaddr_in addr = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)at), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t addr_bytes = sizeof addr;
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return fd;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
  if (bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, BACKLOG) != 0 ||
      getsockname(fd, (struct sockaddr *)&addr, &addr_bytes) != 0) {
    int error = errno;
    coir_close(fd);
    return -error;
  }
  port = ntohs(addr.sin_port);
  return fd;
}

/* Waits for a signal that asks to stop. From then on such a signal ends the process at once. */
static int await_signal(void) {
  sigset_t set;
  struct coir_signals *signals;
  struct coir_siginfo info = {0};
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  int rc = coir_signals_open(&signals, &set);
  if (rc != 0) return rc;
  printf("listening on 127.0.0.1:%d\n", port);
  fflush(stdout);
  rc = COIR_RECV(coir_signals_chan(signals), &info, COIR_NEVER);
  coir_signals_close(signals);
  if (rc == 0) fprintf(stderr, "httpd: signal %d: finishing requests in progress\n", info.signo);
  return rc;
}

/* Stops, in order and within the time of grace. */
static int drain(void) {
  atomic_store(&server.is_stopping, true);
  coir_close(server.listener); /* the fiber that accepts gets -EBADF */
  coir_scope_spawn(server.scope, run_close_idle, NULL, NULL, NULL);
  coir_scope_shorten(server.scope, coir_after(COIR_MS(grace_ms)));
  int rc = coir_scope_close(server.scope);
  if (rc != -ETIMEDOUT) return rc;
  fprintf(stderr, "httpd: %d connections are cut off\n", atomic_load(&server.cut_off));
  return 0;
}

/* The first fiber. */
static int run_server(void *arg) {
  char stats[1536];
  (void)arg;
  server.started = coir_now();
  page_at(server.started); /* from here on there always is one */
  server.listener = listen_on(port);
  if (server.listener < 0) return server.listener;
  int rc = coir_scope_open(&server.scope, COIR_SCOPE_KEEP_GOING, COIR_NEVER);
  if (rc != 0) return rc;
  rc = coir_scope_spawn(server.scope, run_accept, NULL, NULL, NULL);
  if (rc == 0) rc = await_signal();
  int drained = drain();
  print_stats(stats, sizeof stats, coir_runtime_current());
  fprintf(stderr, "httpd: stopped; %s", stats);
  return rc != 0 ? rc : drained;
}

static void usage(FILE *out) {
  fprintf(out, "usage: httpd [option]...      an HTTP/1.1 server on fibers\n");
  for (size_t i = 0; i < NUMBERS; i++) {
    fprintf(out, "  --%-10s N  %s (%d)\n", numbers[i].name, numbers[i].help, *numbers[i].value);
  }
  fprintf(out,
          "  --help          this list\nroutes: /  /stats  /sleep?ms=N  /spin?ms=N  /block?ms=N  /upload (POST)\n");
}

/* Reads the command line. Returns -1 to go on, or the exit status. */
static int read_options(int argc, char **argv) {
  struct option options[NUMBERS + 2] = {[NUMBERS] = {"help", no_argument, NULL, 'h'}};
  for (size_t i = 0; i < NUMBERS; i++) options[i] = (struct option){numbers[i].name, required_argument, NULL, 'n'};
  for (int which, kind; (kind = getopt_long(argc, argv, "h", options, &which)) != -1;) {
    if (kind != 'n') {
      usage(kind == 'h' ? stdout : stderr);
      return kind == 'h' ? 0 : 2;
    }
    char *end;
    long value = strtol(optarg, &end, 10);
    if (end == optarg || *end != '\0' || value < numbers[which].min || value > numbers[which].max) {
      fprintf(stderr, "httpd: --%s takes a number from %d to %d, not '%s'\n", numbers[which].name, numbers[which].min,
              numbers[which].max, optarg);
      return 2;
    }
    *numbers[which].value = (int)value;
  }
  if (optind < argc) {
    fprintf(stderr, "httpd: what is '%s'?\n", argv[optind]);
    return 2;
  }
  return -1;
}

int main(int argc, char **argv) {
  struct rlimit files;
  int rc = read_options(argc, argv);
  if (rc >= 0) return rc;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  http_parser_set_max_header_size(HEAD_MAX);
  struct coir_config config = {.size = sizeof config, .workers = workers, .preempt = preempt ? COIR_ON : 0};
  coir_configure(&config);
  rc = coir_run(run_server, NULL);
  if (rc != 0) fprintf(stderr, "httpd: %s\n", strerror(-rc));
  return rc != 0;
}
