/* echo_*: io_uring without any runtime above it. A ring per thread; each socket has one receive that goes on by itself
 * (multishot) into buffers that the ring chooses from, and what came is sent from the buffer it came in. So a message
 * costs no system call of its own: the sends are submitted, and completions awaited, by one call for as many messages
 * as there are.
 *
 * The main thread accepts, and hands the connections to the rings over pipes. (Each ring could accept by itself, again
 * by one request that goes on; but then one of two rings may get nearly all connections, and accepting is not what is
 * measured.)
 *
 * Needs Linux 6.1. */
#include <liburing.h>
#include <pthread.h>
#include <sys/mman.h>

#include "../echo.h"

enum {
  ENTRIES = 4096,      /* of the submission ring */
  COMPLETIONS = 16384, /* as many as connections, and more */
  BUFFERS = 16384,     /* a power of two */
  BUFFER_BYTES = 512,
  GROUP = 0,
};

enum op { OP_MAIL, OP_RECV, OP_SEND };

struct ring {
  struct io_uring uring;
  struct io_uring_buf_ring *buffers;
  char *memory; /* of the buffers */
  int pipe[2];
  int mail; /* a connection that has come over the pipe */
};

static struct ring rings[ECHO_WORKERS_MAX];

static int check(const char *what, int rc) {
  if (rc < 0) echo_die(what, -rc);
  return rc;
}

static struct io_uring_sqe *next_sqe(struct ring *r) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
  if (sqe) return sqe;
  check("io_uring_submit", io_uring_submit(&r->uring));
  sqe = io_uring_get_sqe(&r->uring);
  if (!sqe) echo_die("io_uring_get_sqe", EBUSY);
  return sqe;
}

/* Sets what tells a completion from others: what was done, on which socket, with which buffer. */
static void set_data(struct io_uring_sqe *sqe, enum op op, int fd, unsigned buffer) {
  sqe->user_data = (uint64_t)op << 56 | (uint64_t)buffer << 32 | (uint32_t)fd;
}

static void await_mail(struct ring *r) {
  struct io_uring_sqe *sqe = next_sqe(r);
  io_uring_prep_read(sqe, r->pipe[0], &r->mail, sizeof r->mail, 0);
  set_data(sqe, OP_MAIL, 0, 0);
}

static void start_recv(struct ring *r, int fd) {
  struct io_uring_sqe *sqe = next_sqe(r);
  io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = GROUP;
  set_data(sqe, OP_RECV, fd, 0);
}

static void give_back(struct ring *r, unsigned buffer) {
  io_uring_buf_ring_add(r->buffers, r->memory + (size_t)buffer * BUFFER_BYTES, BUFFER_BYTES, (unsigned short)buffer,
                        io_uring_buf_ring_mask(BUFFERS), 0);
  io_uring_buf_ring_advance(r->buffers, 1);
}

static void on_recv(struct ring *r, const struct io_uring_cqe *cqe, int fd) {
  bool goes_on = cqe->flags & IORING_CQE_F_MORE;
  if (cqe->res > 0) {
    unsigned buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    struct io_uring_sqe *sqe = next_sqe(r);
    io_uring_prep_send(sqe, fd, r->memory + (size_t)buffer * BUFFER_BYTES, (size_t)cqe->res,
                       MSG_NOSIGNAL | MSG_WAITALL);
    set_data(sqe, OP_SEND, fd, buffer);
  }
  if (goes_on) return;
  /* It also ends when there is no buffer left: sends that are under way will give some back. */
  if (cqe->res > 0 || cqe->res == -ENOBUFS) start_recv(r, fd);
  else close(fd);
}

static void on_completion(struct ring *r, const struct io_uring_cqe *cqe) {
  enum op op = cqe->user_data >> 56;
  int fd = (int)(uint32_t)cqe->user_data;
  if (op == OP_RECV) {
    on_recv(r, cqe, fd);
  } else if (op == OP_SEND) {
    give_back(r, cqe->user_data >> 32 & 0xffff); /* a send that failed has its socket's receive fail, too */
  } else {
    check("read", cqe->res);
    start_recv(r, r->mail);
    await_mail(r);
  }
}

static void set_up(struct ring *r) {
  struct io_uring_params params = {.flags =
                                       IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
                                   .cq_entries = COMPLETIONS};
  check("io_uring_queue_init", io_uring_queue_init_params(ENTRIES, &r->uring, &params));
  size_t ring_bytes = BUFFERS * sizeof(struct io_uring_buf), bytes = ring_bytes + (size_t)BUFFERS * BUFFER_BYTES;
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) echo_die("mmap", errno);
  r->buffers = (struct io_uring_buf_ring *)memory;
  r->memory = memory + ring_bytes;
  struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)memory, .ring_entries = BUFFERS, .bgid = GROUP};
  check("io_uring_register_buf_ring", io_uring_register_buf_ring(&r->uring, &reg, 0));
  io_uring_buf_ring_init(r->buffers);
  for (unsigned i = 0; i < BUFFERS; i++) give_back(r, i);
}

/* The ring belongs to the thread that makes it. */
static void *run_ring(void *arg) {
  struct ring *r = arg;
  set_up(r);
  await_mail(r);
  for (int rc; (rc = io_uring_submit_and_wait(&r->uring, 1)) >= 0 || rc == -EINTR;) {
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&r->uring, head, cqe) {
      on_completion(r, cqe);
      seen++;
    }
    io_uring_cq_advance(&r->uring, seen);
  }
  echo_die("io_uring_submit_and_wait", EIO);
}

static void give(int worker, int fd) { echo_check("write", (int)write(rings[worker].pipe[1], &fd, sizeof fd)); }

int main(int argc, char **argv) {
  struct echo_options o = echo_parse(argc, argv);
  pthread_t thread;
  for (int i = 0; i < o.workers; i++) {
    echo_check("pipe", pipe(rings[i].pipe));
    if (pthread_create(&thread, NULL, run_ring, &rings[i]) != 0) echo_die("pthread_create", EAGAIN);
  }
  echo_accept(echo_listen(o.port), 0, o.workers, give);
}
