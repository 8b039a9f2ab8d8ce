/* echo_*: libuv, a loop per thread. What is read is tried to be sent at once, without a request, as programs that are
 * tuned do; only what the socket does not take is queued. The main thread accepts, and hands the connections to the
 * loops over pipes. */
#include <pthread.h>
#include <uv.h>

#include "../echo.h"

struct loop {
  uv_loop_t uv;
  uv_poll_t mailbox;
  int fds[2];              /* of the pipe */
  char buffer[ECHO_BYTES]; /* what is read is used up before the loop reads again */
};

struct request {
  uv_write_t uv;
  char data[];
};

static struct loop loops[ECHO_WORKERS_MAX];

static void check(const char *what, int rc) {
  if (rc < 0) echo_die(what, -rc);
}

static void on_closed(uv_handle_t *handle) { free(handle); }

static void on_written(uv_write_t *write, int status) {
  if (status < 0 && status != UV_ECANCELED) uv_close((uv_handle_t *)write->handle, on_closed);
  free(write);
}

static void queue(uv_stream_t *stream, const char *data, size_t bytes) {
  struct request *request = malloc(sizeof *request + bytes);
  if (!request) echo_die("malloc", ENOMEM);
  memcpy(request->data, data, bytes);
  uv_buf_t buf = uv_buf_init(request->data, (unsigned)bytes);
  check("uv_write", uv_write(&request->uv, stream, &buf, 1, on_written));
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  struct loop *loop = handle->loop->data;
  (void)suggested;
  *buf = uv_buf_init(loop->buffer, sizeof loop->buffer);
}

static void on_read(uv_stream_t *stream, ssize_t bytes, const uv_buf_t *buf) {
  if (bytes < 0) uv_close((uv_handle_t *)stream, on_closed);
  if (bytes <= 0) return;
  uv_buf_t out = uv_buf_init(buf->base, (unsigned)bytes);
  int sent = uv_try_write(stream, &out, 1);
  if (sent < 0 && sent != UV_EAGAIN) uv_close((uv_handle_t *)stream, on_closed);
  else if (sent < bytes) queue(stream, buf->base + (sent < 0 ? 0 : sent), (size_t)(bytes - (sent < 0 ? 0 : sent)));
}

static void on_mail(uv_poll_t *mailbox, int status, int events) {
  struct loop *loop = mailbox->loop->data;
  int fd;
  (void)events;
  check("uv_poll", status);
  while (read(loop->fds[0], &fd, sizeof fd) == sizeof fd) {
    uv_tcp_t *tcp = malloc(sizeof *tcp);
    if (!tcp) echo_die("malloc", ENOMEM);
    check("uv_tcp_init", uv_tcp_init(&loop->uv, tcp));
    check("uv_tcp_open", uv_tcp_open(tcp, fd));
    check("uv_read_start", uv_read_start((uv_stream_t *)tcp, on_alloc, on_read));
  }
}

static void *run_loop(void *arg) {
  struct loop *loop = arg;
  uv_run(&loop->uv, UV_RUN_DEFAULT);
  return NULL;
}

static void give(int worker, int fd) { echo_check("write", (int)write(loops[worker].fds[1], &fd, sizeof fd)); }

int main(int argc, char **argv) {
  struct echo_options o = echo_parse(argc, argv);
  pthread_t thread;
  for (int i = 0; i < o.workers; i++) {
    struct loop *loop = &loops[i];
    check("uv_loop_init", uv_loop_init(&loop->uv));
    loop->uv.data = loop;
    check("uv_pipe", uv_pipe(loop->fds, UV_NONBLOCK_PIPE, 0));
    check("uv_poll_init", uv_poll_init(&loop->uv, &loop->mailbox, loop->fds[0]));
    check("uv_poll_start", uv_poll_start(&loop->mailbox, UV_READABLE, on_mail));
    if (pthread_create(&thread, NULL, run_loop, loop) != 0) echo_die("pthread_create", EAGAIN);
  }
  echo_accept(echo_listen(o.port), SOCK_NONBLOCK, o.workers, give);
}
