/* Tests of names (coir_io.h): what each error means, and that a look-up which nobody waits for any more leaves nothing
 * behind. The resolver of the C library is wrapped (--wrap), so that it can be slow, and count. */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>

#include "coir_io.h"

static _Atomic(int) calls, running, most_running, found, freed; /* of names, not of digits */
static _Atomic(int) release;                                    /* what looks up "slow" waits for this */

int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out);
void __real_freeaddrinfo(struct addrinfo *list);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out);
void __wrap_freeaddrinfo(struct addrinfo *list);

static void append_address(struct addrinfo **list, const char *digits, const char *service) {
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
  while (*list) list = &(*list)->ai_next;
  CHECK_EQ(__real_getaddrinfo(digits, service, &hints, list), 0);
}

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
  bool is_numeric = hints && (hints->ai_flags & AI_NUMERICHOST);
  int rc = 0, now = 0, most;
  if (!is_numeric) {
    atomic_fetch_add(&calls, 1);
    now = atomic_fetch_add(&running, 1) + 1;
    most = most_running;
    while (most < now && !atomic_compare_exchange_weak(&most_running, &most, now)) {}
    if (node && strncmp(node, "slow", 4) == 0)
      while (!release) usleep(200);
  }
  *out = NULL;
  if (!is_numeric && node && strcmp(node, "two.test") == 0) {
    append_address(out, "127.0.0.2", service);
    append_address(out, "127.0.0.1", service);
  } else if (!is_numeric && node && strncmp(node, "error.", 6) == 0) {
    rc = atoi(node + 6);
    if (rc == EAI_SYSTEM) errno = EHOSTDOWN;
  } else
    rc = __real_getaddrinfo(!is_numeric && node && !strncmp(node, "slow", 4) ? "127.0.0.1" : node, service, hints, out);
  if (rc == 0) atomic_fetch_add(&found, 1);
  if (!is_numeric) atomic_fetch_sub(&running, 1);
  return rc;
}

void __wrap_freeaddrinfo(struct addrinfo *list) {
  atomic_fetch_add(&freed, 1);
  while (list) { /* ours may be joined of several */
    struct addrinfo *next = list->ai_next;
    list->ai_next = NULL;
    __real_freeaddrinfo(list);
    list = next;
  }
}

static int port_of(const struct addrinfo *a) {
  return ntohs(a->ai_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_port
                                        : ((const struct sockaddr_in *)(const void *)a->ai_addr)->sin_port);
}

static int lookup(const char *node, const char *service, const struct addrinfo *hints, int64_t deadline) {
  struct addrinfo *list = (struct addrinfo *)1;
  int rc = coir_getaddrinfo(node, service, hints, &list, deadline);
  CHECK((rc == 0) == (list != NULL));
  if (rc == 0) freeaddrinfo(list);
  return rc;
}

/* ---- Digits ---------------------------------------------------------------------------------------------------- */

static int digits(void *arg) {
  (void)arg;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
  char text[INET6_ADDRSTRLEN];
  int before = calls;
  CHECK_EQ(coir_getaddrinfo("192.0.2.7", "8080", &hints, &list, 0), 0);
  CHECK_EQ(list->ai_family, AF_INET);
  CHECK_EQ(port_of(list), 8080);
  inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)list->ai_addr)->sin_addr, text, sizeof text);
  CHECK(strcmp(text, "192.0.2.7") == 0);
  freeaddrinfo(list);
  CHECK_EQ(coir_getaddrinfo("2001:db8::1", NULL, &hints, &list, 0), 0);
  CHECK_EQ(list->ai_family, AF_INET6);
  freeaddrinfo(list);
  hints.ai_flags = AI_PASSIVE;
  CHECK_EQ(coir_getaddrinfo(NULL, "80", &hints, &list, 0), 0);
  CHECK_EQ(port_of(list), 80);
  freeaddrinfo(list);
  CHECK_EQ(lookup("127.0.0.1", "1", NULL, 0), 0);
  CHECK_EQ(calls, before);
  CHECK_EQ(lookup("localhost", "80", NULL, 0), -ETIMEDOUT); /* no digits, no time */
  CHECK_EQ(calls, before);
  CHECK_EQ(coir_getaddrinfo("127.0.0.1", "1", NULL, NULL, 0), -EINVAL);
  return 5;
}

static int on_small_stack(void *arg) {
  struct coir_fiber *f = spawn_with((struct coir_attr){.stack_bytes = (size_t)16 << 10}, digits, arg);
  return join(f);
}

static void digits_need_no_thread(void **state) {
  (void)state;
  CHECK_EQ(run(digits, NULL), 5);
  CHECK_EQ(digits(NULL), 5);
  if (!IS_SANITIZED) CHECK_EQ(run(on_small_stack, NULL), 5);
  CHECK_EQ(found, freed);
}

/* ---- Names ----------------------------------------------------------------------------------------------------- */

static int names(void *arg) {
  (void)arg;
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
  int before = calls;
  int64_t deadline = coir_after(COIR_SEC(20));
  CHECK_EQ(coir_getaddrinfo("localhost", "80", &hints, &list, deadline), 0);
  CHECK_EQ(ntohl(((struct sockaddr_in *)(void *)list->ai_addr)->sin_addr.s_addr) >> 24, 127);
  freeaddrinfo(list);
  CHECK_EQ(calls, before + 1);
  return 5;
}

static int errors(void *arg) {
  (void)arg;
  static const struct {
    int eai, expected;
  } table[] = {{EAI_NONAME, -ENOENT},
               {EAI_NODATA, -ENOENT},
               {EAI_ADDRFAMILY, -ENOENT},
               {EAI_AGAIN, -EAGAIN},
               {EAI_FAIL, -EIO},
               {EAI_SERVICE, -EPROTONOSUPPORT},
               {EAI_SOCKTYPE, -ESOCKTNOSUPPORT},
               {EAI_FAMILY, -EAFNOSUPPORT},
               {EAI_BADFLAGS, -EINVAL},
               {EAI_MEMORY, -ENOMEM},
               {EAI_OVERFLOW, -EOVERFLOW},
               {EAI_SYSTEM, -EHOSTDOWN},
               {-12345, -EIO}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    char node[32];
    snprintf(node, sizeof node, "error.%d", table[i].eai);
    CHECK_EQ(lookup(node, NULL, NULL, coir_after(COIR_SEC(20))), table[i].expected);
    CHECK_EQ(lookup(node, NULL, NULL, COIR_NEVER), table[i].expected);
  }
  /* The C library's own answers, as far as they need no name server. */
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
  CHECK_EQ(lookup("127.0.0.1", "no digits", &hints, COIR_NEVER), -ENOENT);
  hints = (struct addrinfo){.ai_socktype = SOCK_STREAM};
  CHECK_EQ(lookup("127.0.0.1", "no-such-service", &hints, COIR_NEVER), -EPROTONOSUPPORT);
  hints = (struct addrinfo){.ai_family = 12345};
  CHECK_EQ(lookup("127.0.0.1", "80", &hints, COIR_NEVER), -EAFNOSUPPORT);
  hints = (struct addrinfo){.ai_flags = 1 << 30};
  CHECK_EQ(lookup("127.0.0.1", "80", &hints, COIR_NEVER), -EINVAL);
  CHECK_EQ(lookup(NULL, NULL, NULL, COIR_NEVER), -ENOENT);
  return 5;
}

static void names_and_errors(void **state) {
  (void)state;
  CHECK_EQ(run(names, NULL), 5);
  CHECK_EQ(names(NULL), 5); /* on a plain thread */
  CHECK_EQ(run(errors, NULL), 5);
  CHECK_EQ(errors(NULL), 5);
  CHECK_EQ(found, freed);
}

/* ---- Leaving --------------------------------------------------------------------------------------------------- */

static int look_up_slowly(void *arg) { return lookup("slow", "80", NULL, *(int64_t *)arg); }

static int leaves(void *arg) {
  (void)arg;
  int64_t deadline = coir_after(COIR_MS(5)), never = COIR_NEVER;
  release = 0;
  CHECK_EQ(look_up_slowly(&deadline), -ETIMEDOUT);
  CHECK(coir_now() >= deadline);
  struct coir_fiber *f = spawn(look_up_slowly, &never);
  coir_sleep(COIR_MS(2));
  CHECK_EQ(coir_cancel(f), 0);
  CHECK_EQ(join(f), -ECANCELED);
  release = 1;
  WAIT_FOR(running == 0 && found == freed);
  CHECK_EQ(look_up_slowly(&never), 0);
  return 5;
}

static void who_leaves_leaves_nothing(void **state) {
  (void)state;
  CHECK_EQ(run(leaves, NULL), 5);
  int64_t deadline = coir_after(COIR_MS(5)); /* a plain thread may leave as well */
  release = 0;
  CHECK_EQ(look_up_slowly(&deadline), -ETIMEDOUT);
  release = 1;
  WAIT_FOR(running == 0 && found == freed);
}

/* The answer and the deadline, or the answer and a cancellation, come at the same moment. */
static int races(void *arg) {
  uint64_t rng = rng_seed(3);
  (void)arg;
  release = 1;
  for (int i = 0; i < rounds(1000); i++) {
    int64_t deadline = coir_after((int64_t)(rng_next(&rng) % 60000));
    int rc = lookup("localhost", "80", NULL, deadline);
    CHECK(rc == 0 || rc == -ETIMEDOUT);
    int64_t never = COIR_NEVER;
    struct coir_fiber *f = spawn(look_up_slowly, &never);
    if (rng_next(&rng) % 2) coir_sleep((int64_t)(rng_next(&rng) % 60000));
    coir_cancel(f);
    rc = join(f);
    CHECK(rc == 0 || rc == -ECANCELED);
  }
  WAIT_FOR(running == 0 && found == freed);
  return 5;
}

static void answers_race_with_leaving(void **state) {
  (void)state;
  CHECK_EQ(run(races, NULL), 5);
}

/* Look-ups that hang leave threads for files, and are not more than so many. */
static int crowd(void *arg) {
  (void)arg;
  enum { N = 40, AT_ONCE = 16 };
  struct coir_fiber *f[N];
  int64_t never = COIR_NEVER;
  char c;
  release = most_running = 0;
  int before = calls, fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  for (int i = 0; i < N; i++) f[i] = spawn(look_up_slowly, &never);
  WAIT_FOR(running == AT_ONCE);
  CHECK_EQ(coir_read(file, &c, 1, COIR_NEVER), 1);
  coir_sleep(COIR_MS(2));
  CHECK_EQ(running, AT_ONCE);
  CHECK_EQ(coir_cancel(f[N - 1]), 0); /* it waits in line, or is being looked up */
  CHECK_EQ(join(f[N - 1]), -ECANCELED);
  release = 1;
  for (int i = 0; i < N - 1; i++) CHECK_EQ(join(f[i]), 0);
  WAIT_FOR(running == 0 && found == freed);
  CHECK_EQ(most_running, AT_ONCE);
  CHECK(calls <= before + N);
  close(fd);
  close(file);
  return 5;
}

static void a_crowd_of_lookups(void **state) {
  (void)state;
  CHECK_EQ(run(crowd, NULL), 5);
}

/* ---- Connecting ------------------------------------------------------------------------------------------------ */

static int listen_on(const char *address, int port, int backlog) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  CHECK_EQ(inet_pton(AF_INET, address, &in.sin_addr), 1);
  int fd = coir_socket(AF_INET, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  if (bind(fd, (struct sockaddr *)&in, sizeof in) != 0 || listen(fd, backlog) != 0) {
    coir_close(fd);
    return -1;
  }
  return fd;
}

static const char *port_text(int fd) {
  static char text[16];
  struct sockaddr_in in;
  socklen_t bytes = sizeof in;
  CHECK_EQ(getsockname(fd, (struct sockaddr *)&in, &bytes), 0);
  snprintf(text, sizeof text, "%d", ntohs(in.sin_port));
  return text;
}

static int connects(void *arg) {
  (void)arg;
  int listener = listen_on("127.0.0.1", 0, 16), fd, peer;
  const char *port = port_text(listener);
  int64_t deadline = coir_after(COIR_SEC(20));
  static const char *const nodes[] = {"127.0.0.1", "two.test"}; /* of two, nobody listens on the first */
  for (int i = 0; i < 2; i++) {
    fd = coir_tcp_connect(nodes[i], port, deadline);
    CHECK(fd >= 0);
    peer = coir_accept(listener, NULL, NULL, deadline);
    CHECK_EQ(coir_write(peer, "x", 1, deadline), 1);
    char c;
    CHECK_EQ(coir_read(fd, &c, 1, deadline), 1);
    coir_close(fd);
    coir_close(peer);
  }
  CHECK_EQ(coir_tcp_connect("error.-2", port, deadline), -ENOENT);
  coir_close(listener);
  CHECK_EQ(coir_tcp_connect("127.0.0.1", port, deadline), -ECONNREFUSED);
  CHECK_EQ(coir_tcp_connect("two.test", port, deadline), -ECONNREFUSED);
  return 5;
}

/* The first address does not answer, since its backlog is full: the second one has its share of the time left. */
static int shares(void *arg) {
  (void)arg;
  int listener = listen_on("127.0.0.1", 0, 16), deaf = -1, full[64], count = 0;
  const char *port = port_text(listener);
  deaf = listen_on("127.0.0.2", atoi(port), 0);
  CHECK(deaf >= 0);
  do full[count] = coir_tcp_connect("127.0.0.2", port, coir_after(COIR_MS(50)));
  while (full[count] >= 0 && ++count < 64);
  CHECK(count < 64);
  int fd = coir_tcp_connect("two.test", port, coir_after(COIR_MS(600)));
  CHECK(fd >= 0);
  coir_close(fd);
  coir_close(listener);
  for (int i = 0; i < count; i++) coir_close(full[i]);
  coir_close(deaf);
  return 5;
}

static void tcp_connect_tries_each_address(void **state) {
  (void)state;
  CHECK_EQ(run(connects, NULL), 5);
  CHECK_EQ(run(shares, NULL), 5);
  CHECK_EQ(found, freed);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(digits_need_no_thread),     cmocka_unit_test(names_and_errors),
      cmocka_unit_test(who_leaves_leaves_nothing), cmocka_unit_test(answers_race_with_leaving),
      cmocka_unit_test(a_crowd_of_lookups),        cmocka_unit_test(tcp_connect_tries_each_address),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
