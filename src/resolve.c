/* Names: getaddrinfo, on the pool of block.c, with a deadline.
 *
 * The C library's resolver blocks, and cannot be told to stop. So a look-up is an errand: its record holds copies of
 * all that was asked, and whoever is through with it last frees it, together with what it found. Only digits are
 * understood right away, by the caller: that asks nobody. */
#include <netdb.h>
#include <string.h>

#include "coir_io.h"
#include "internal.h"

struct lookup {
  struct coir__errand errand;
  size_t bytes; /* of the record */
  const char *node, *serv;
  const struct addrinfo *hints; /* NULL, or &hints_copy */
  struct addrinfo hints_copy;
  struct addrinfo *found;
  int rc;
  char text[]; /* node and service */
};

static void lookup_run(struct coir__errand *e) {
  struct lookup *l = (struct lookup *)e;
  l->rc = coir__sys_getaddrinfo(l->node, l->serv, l->hints, &l->found);
}

static void lookup_dispose(struct coir__errand *e) {
  struct lookup *l = (struct lookup *)e;
  if (l->found) freeaddrinfo(l->found);
  coir__free(NULL, l, l->bytes);
}

static size_t size_of(const char *text) { return text ? strlen(text) + 1 : 0; }

static struct lookup *lookup_create(const char *node, const char *serv, const struct addrinfo *hints) {
  size_t node_bytes = size_of(node), service_bytes = size_of(serv);
  size_t bytes = sizeof(struct lookup) + node_bytes + service_bytes;
  struct lookup *l = coir__alloc(NULL, bytes);
  if (!l) return NULL;
  l->errand.fn = lookup_run;
  l->errand.dispose = lookup_dispose;
  l->bytes = bytes;
  if (node) l->node = memcpy(l->text, node, node_bytes);
  if (serv) l->serv = memcpy(l->text + node_bytes, serv, service_bytes);
  if (hints) {
    l->hints_copy = *hints;
    l->hints = &l->hints_copy;
  }
  return l;
}

/* Whether both are digits, or absent; then *out is the answer. */
static bool is_numeric(const char *node, const char *serv, const struct addrinfo *hints, struct addrinfo **out) {
  struct addrinfo numeric = {.ai_family = AF_UNSPEC, .ai_flags = AI_V4MAPPED | AI_ADDRCONFIG};
  if (hints) numeric = *hints; /* the flags above are what no hints stand for */
  numeric.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
  return coir__sys_getaddrinfo(node, serv, &numeric, out) == 0;
}

int coir_getaddrinfo(const char *node, const char *serv, const struct addrinfo *hints, struct addrinfo **out,
                     int64_t deadline) {
  COIR_INSIDE_TO_WAIT(deadline);
  if (!out) return -EINVAL;
  *out = NULL;
  if (is_numeric(node, serv, hints, out)) return 0;
  if (deadline == COIR_NEVER && !coir__self()) return coir__sys_getaddrinfo(node, serv, hints, out);
  if (deadline <= coir__os_now()) return -ETIMEDOUT;
  struct lookup *l = lookup_create(node, serv, hints);
  if (!l) return -ENOMEM;
  int rc = coir__block_errand(&l->errand, deadline);
  if (rc < 0) return rc;
  rc = l->rc;
  *out = l->found;
  l->found = NULL;
  lookup_dispose(&l->errand);
  return rc;
}

/* ---- Connecting ------------------------------------------------------------------------------------------------ */

static int connect_to(const struct addrinfo *address, int64_t deadline) {
  int fd = coir_socket(address->ai_family, address->ai_socktype, address->ai_protocol);
  if (fd < 0) return fd;
  int rc = coir_connect(fd, address->ai_addr, address->ai_addrlen, deadline);
  if (rc == 0) return fd;
  coir_close(fd);
  return rc;
}

/* The end of the share of one in `left` who go one after the other until `deadline`. */
static int64_t share_of(int64_t deadline, int left) {
  int64_t now = coir__os_now();
  return deadline == COIR_NEVER || deadline <= now ? deadline : now + (deadline - now) / left;
}

int coir_tcp_connect(const char *node, const char *serv, int64_t deadline) {
  static const struct addrinfo hints = {
      .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP, .ai_flags = AI_ADDRCONFIG};
  struct addrinfo *found;
  int rc = coir_getaddrinfo(node, serv, &hints, &found, deadline), left = 0;
  if (rc < 0) return rc;
  for (const struct addrinfo *a = found; a; a = a->ai_next) left++;
  rc = -ENOENT;
  for (const struct addrinfo *a = found; a; a = a->ai_next) {
    rc = connect_to(a, share_of(deadline, left--));
    if (rc >= 0 || rc == -ECANCELED) break;
  }
  freeaddrinfo(found);
  return rc;
}
