/* A connection of examples/httpd.c, whose socket is the input.
 *
 * The source of the server is a part of this one: what it asks of sockets and clocks is answered here. The same bytes
 * are sent twice: in pieces as large as they fit, to a socket that takes all that it is given; and in pieces as the
 * input says, to one that takes a little at a time, or nothing yet. The answers must be the same, but for dates; and
 * they must be well-formed answers to no more than the requests that there were. A third time the socket breaks. If the
 * input is made of whole requests, each is also sent on a connection of its own, and must be answered just so. */
#define _GNU_SOURCE 1
#include "fuzz.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "coir_io.h"

static ssize_t fed_recv(int fd, void *to, size_t bytes, int flags, int64_t deadline);
static ssize_t fed_send(int fd, const void *from, size_t bytes, int flags, int64_t deadline);
static ssize_t fed_read(int fd, void *to, size_t bytes, int64_t deadline);
static int fed_poll(int fd, int events, int64_t deadline);
static int fed_sleep(int64_t ns);
static int64_t fed_now(void);
static int fed_nanosleep(const struct timespec *span, struct timespec *left);

#define coir_recv fed_recv
#define coir_send fed_send
#define coir_read fed_read
#define coir_poll fed_poll
#define coir_sleep fed_sleep
#define coir_now fed_now
#define nanosleep fed_nanosleep
#define main httpd_main
int httpd_main(int argc, char **argv);
#include "../../examples/httpd.c"
#undef main
#undef coir_now

enum { IN_MAX = 1 << 16, OUT_MAX = 1 << 20, REQUESTS_MAX = 1 << 14 };

static char bytes_in[IN_MAX];
static size_t bytes_in_count;
static struct coir_event never;

/* How the socket behaves. */
static struct {
  const uint8_t *sizes; /* of pieces; NULL: as large as they fit */
  size_t sizes_count, size_next;
  size_t at, end;   /* what is received next; where the client stops */
  bool ends_late;   /* the client says nothing more, and does not close */
  size_t breaks_at; /* after so many bytes were sent */
  size_t out_count;
  char *out;
} socket_now;

static char outs[2][OUT_MAX];

/* ---- The socket and the clock ---------------------------------------------------------------------------------- */

static size_t piece(size_t most) {
  if (!socket_now.sizes_count) return most;
  size_t size = socket_now.sizes[socket_now.size_next++ % socket_now.sizes_count] % 64;
  return size < most ? size : most;
}

static ssize_t fed_recv(int fd, void *to, size_t bytes, int flags, int64_t deadline) {
  (void)fd, (void)deadline;
  if (flags & MSG_PEEK) return -ETIMEDOUT;
  size_t left = socket_now.end - socket_now.at, n = piece(left < bytes ? left : bytes);
  if (left == 0) return socket_now.ends_late ? -ETIMEDOUT : 0;
  if (n == 0) n = 1;
  memcpy(to, bytes_in + socket_now.at, n);
  socket_now.at += n;
  return (ssize_t)n;
}

static ssize_t fed_send(int fd, const void *from, size_t bytes, int flags, int64_t deadline) {
  (void)fd, (void)flags;
  CHECK(bytes > 0 && bytes <= BUFFER_BYTES);
  size_t n = piece(bytes);
  if (n == 0 && deadline == 0) return -ETIMEDOUT;
  if (n == 0) n = 1;
  if (socket_now.out_count + n > socket_now.breaks_at) return -EPIPE;
  CHECK(socket_now.out_count + n <= OUT_MAX);
  memcpy(socket_now.out + socket_now.out_count, from, n);
  socket_now.out_count += n;
  return (ssize_t)n;
}

static ssize_t fed_read(int fd, void *to, size_t bytes, int64_t deadline) {
  (void)fd, (void)to, (void)bytes, (void)deadline;
  return 0;
}

/* Who watches the client, until nobody wants to know any more. */
static int fed_poll(int fd, int events, int64_t deadline) {
  (void)fd, (void)events;
  return deadline == COIR_NEVER ? coir_event_wait(&never, COIR_NEVER) : COIR_READABLE;
}

static int fed_sleep(int64_t ns) {
  coir_yield();
  fuzz_now += ns;
  return 0;
}

/* Time passes for who looks at the clock. */
static int64_t fed_now(void) { return fuzz_now += COIR_MS(10); }

static int fed_nanosleep(const struct timespec *span, struct timespec *left) {
  (void)left;
  fuzz_now += span->tv_sec * COIR_SEC(1) + span->tv_nsec;
  return 0;
}

/* ---- Inputs ---------------------------------------------------------------------------------------------------- */

/* In each list those come first after which a connection goes on at once. */
static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "CONNECT", "DELETE"};
static const char *const targets[] = {"/", "/upload",     "/nowhere",   "/#/sleep",     "http://a/upload?b",
                                      "*", "/sleep?ms=7", "/spin?ms=3", "/block?ms=20", "/sleep?ms=x"};
static const char *const versions[] = {"1.1", "1.0", "2.0", "1.9"};
static const char *const headers[] = {"Host: x", "Connection: keep-alive", "Expect: 100-continue", "Connection: close",
                                      "Connection: Upgrade\r\nUpgrade: h2c"};
static const char *const bodies[] = {"\r\n",
                                     "Content-Length: 5\r\n\r\nhello",
                                     "Content-Length: 0\r\n\r\n",
                                     "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                                     "Content-Length: 5\r\n\r\nGET /",
                                     "Content-Length: 9999999\r\n\r\n"};
static const char *const tokens[] = {"\r\n",
                                     "\r\n\r\n",
                                     "GET ",
                                     " HTTP/1.1",
                                     ": ",
                                     "\n",
                                     "0",
                                     "5",
                                     "?",
                                     "Content-Length: ",
                                     "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"};

/* One of the first `tame` of a list; now and then one of all. */
#define ONE_OF(in, list, tame) pick(in, list, tame, sizeof(list) / sizeof *(list))
static const char *pick(struct input *in, const char *const *list, uint32_t tame, uint32_t all) {
  uint32_t b = take(in);
  return list[b < 240 ? b % tame : b % all];
}

static void append(const void *from, size_t bytes) {
  if (bytes > IN_MAX - bytes_in_count) bytes = IN_MAX - bytes_in_count;
  memcpy(bytes_in + bytes_in_count, from, bytes);
  bytes_in_count += bytes;
}

static void append_text(const char *text) { append(text, strlen(text)); }

/* The requests of an input that is made of whole ones only. */
static struct {
  size_t count;
  size_t begins[REQUESTS_MAX + 1];
  bool is_head[REQUESTS_MAX];
  size_t plain; /* of those: how many there are before the first that asks for another protocol */
} requests;

static void append_request(struct input *in) {
  const char *method = ONE_OF(in, methods, 4);
  requests.is_head[requests.count] = method == methods[1];
  requests.begins[requests.count++] = bytes_in_count;
  append_text(method);
  append_text(" ");
  append_text(ONE_OF(in, targets, 5));
  append_text(" HTTP/");
  append_text(ONE_OF(in, versions, 1));
  append_text("\r\n");
  bool is_plain = true;
  for (uint32_t n = below(in, 4); n > 1; n--) {
    const char *header = ONE_OF(in, headers, 3);
    is_plain = is_plain && header != headers[4];
    append_text(header);
    append_text("\r\n");
  }
  if (is_plain && requests.plain == requests.count - 1) requests.plain++;
  append_text(ONE_OF(in, bodies, 5));
}

/* As it is; or requests, most of which are right, with something else between them now and then. Returns whether they
 * are requests alone. */
static bool take_bytes(struct input *in, bool as_it_is, bool may_be_wrong) {
  bytes_in_count = requests.count = requests.plain = 0;
  if (as_it_is) append(in->at, (size_t)(in->end - in->at));
  bool are_alone = !as_it_is;
  while (!as_it_is && !is_over(in) && requests.count < REQUESTS_MAX) {
    uint32_t b = may_be_wrong ? take(in) : 0;
    if (b < 240) append_request(in);
    else if (b < 250) append_text(tokens[below(in, sizeof tokens / sizeof *tokens)]);
    else append(&(char){(char)take(in)}, 1);
    are_alone = are_alone && b < 240;
  }
  requests.begins[requests.count] = bytes_in_count;
  return are_alone && bytes_in_count < IN_MAX;
}

/* ---- Answers --------------------------------------------------------------------------------------------------- */

static size_t begun, headers_seen;

static int on_begin(http_parser *p) {
  (void)p;
  begun++;
  return 0;
}

/* A length without a body is what HEAD is answered by: it looks like the next answer, where the body should be. */
static int on_headers(http_parser *p) {
  const char *rest = p->data;
  headers_seen++;
  return strncmp(rest, "HTTP/1.1 ", 9) == 0 || *rest == 0;
}

/* Answer by answer, since whether there is a body is known from what comes next. */
static void check_answers(const char *out, size_t bytes) {
  static const http_parser_settings answers = {.on_message_begin = on_begin, .on_headers_complete = on_headers};
  static char text[OUT_MAX + 1];
  memcpy(text, out, bytes);
  text[bytes] = 0;
  http_parser p;
  http_parser_init(&p, HTTP_RESPONSE);
  begun = headers_seen = 0;
  for (char *at = text, *end; *at; at = end) {
    char *head_end = strstr(at, "\r\n\r\n");
    CHECK(head_end && strncmp(at, "HTTP/1.1 ", 9) == 0);
    end = head_end + 4;
    p.data = end;
    CHECK_EQ(http_parser_execute(&p, &answers, at, (size_t)(end - at)), end - at);
    CHECK_EQ(HTTP_PARSER_ERRNO(&p), HPE_OK);
    if (headers_seen != begun || p.content_length == 0 || p.content_length == UINT64_MAX) continue;
    if (*end == 0 || strncmp(end, "HTTP/1.1 ", 9) == 0) continue;
    uint64_t left = p.content_length;
    CHECK(left <= (uint64_t)(text + bytes - end));
    CHECK_EQ(http_parser_execute(&p, &answers, end, left), left);
    end += left;
  }
}

/* Dates differ. */
static void mask_dates(char *out, size_t bytes) {
  for (char *at = out; (at = memmem(at, bytes - (size_t)(at - out), "Date: ", 6)) != NULL;)
    for (at += 6; at < out + bytes && *at != '\r'; at++) *at = '-';
}

/* Serves the bytes [at, end) of the input. Returns how many bytes the answers have. */
static size_t serve_part(size_t at, size_t end, const uint8_t *sizes, size_t count, bool ends_late, size_t breaks_at,
                         char *out) {
  memset(&socket_now, 0, sizeof socket_now);
  socket_now.at = at;
  socket_now.end = end;
  socket_now.sizes = sizes;
  socket_now.sizes_count = count;
  socket_now.ends_late = ends_late;
  socket_now.breaks_at = breaks_at;
  socket_now.out = out;
  atomic_store(&server.conns, 1);
  CHECK_EQ(run_conn((void *)(intptr_t)-1), 0);
  CHECK_EQ(atomic_load(&server.conns), 0);
  CHECK(!server.first);
  mask_dates(out, socket_now.out_count);
  return socket_now.out_count;
}

static size_t serve_bytes(const uint8_t *sizes, size_t count, bool ends_late, size_t breaks_at, char *out) {
  return serve_part(0, bytes_in_count, sizes, count, ends_late, breaks_at, out);
}

/* One answer, with a body unless it is that to HEAD. */
static void check_answer(const char *out, size_t bytes, bool is_head) {
  const char *head_end = memmem(out, bytes, "\r\n\r\n", 4), *length = memmem(out, bytes, "Content-Length: ", 16);
  CHECK(head_end && length && length < head_end);
  CHECK_EQ(out + bytes - (head_end + 4), is_head ? 0 : atoi(length + 16));
}

/* The n bytes of answers are those that each request gets alone, up to one after which the connection ends. */
static void check_alone(const char *out, size_t n) {
  size_t at = 0;
  for (size_t i = 0; i < requests.plain && at < n; i++) {
    size_t m = serve_part(requests.begins[i], requests.begins[i + 1], NULL, 0, false, SIZE_MAX, outs[1]);
    check_answer(outs[1], m, requests.is_head[i]);
    CHECK(m <= n - at && memcmp(out + at, outs[1], m) == 0);
    at += m;
  }
  if (requests.plain == requests.count) CHECK_EQ(at, n);
}

static int serve_input(void *arg) {
  struct input *in = arg;
  uint32_t how = take(in), breaks_at = take(in) * 8;
  uint8_t sizes[8];
  for (int i = 0; i < 8; i++) sizes[i] = (uint8_t)take(in);
  bool are_requests = take_bytes(in, how % 8 == 7, how & 4);
  page_at(fed_now());
  size_t requests_before = (size_t)requests_served();
  size_t n = serve_bytes(NULL, 0, how & 2, SIZE_MAX, outs[0]);
  check_answers(outs[0], n);
  CHECK(begun <= (size_t)requests_served() - requests_before + 1); /* and one that refuses what is no request */
  size_t m = serve_bytes(sizes, sizeof sizes, how & 2, SIZE_MAX, outs[1]);
  bool has_stats = memmem(outs[0], n, "{\"requests\"", 11) != NULL;
  if (!has_stats) {
    CHECK_EQ(m, n);
    CHECK(memcmp(outs[0], outs[1], n) == 0);
  }
  if (are_requests) check_alone(outs[0], n);
  CHECK(serve_bytes(sizes, sizeof sizes, how & 2, breaks_at, outs[1]) <= breaks_at);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  struct input in = {data, data + bytes};
  run_alone(serve_input, &in);
  atomic_store(&pages.due, 0); /* the clock begins anew */
  return 0;
}
