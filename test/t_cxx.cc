// C++ on fibers: the headers compile, exceptions stay on their fiber, what nobody catches ends the process, channels
// have types.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include "coir.h"
#include "coir_io.h"

namespace {

#define CHECK(x)                                                             \
  do {                                                                       \
    if (!(x)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      std::abort();                                                          \
    }                                                                        \
  } while (0)

int destroyed;

struct Guard {
  ~Guard() { __atomic_fetch_add(&destroyed, 1, __ATOMIC_RELAXED); }
};

[[gnu::noinline]] void throws(int depth, int value) {
  Guard guard;
  if (depth == 0) throw std::runtime_error(std::to_string(value));
  throws(depth - 1, value);
}

// Thrown and caught inside one fiber, and waits in between, but not inside a handler.
int throws_and_catches(void *arg) {
  int value = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  for (int i = 0; i < 20; i++) {
    bool caught = false;
    std::string what;
    try {
      coir_yield();
      throws(5, value + i);
    } catch (const std::runtime_error &error) {
      caught = true;
      what = error.what();
    }
    CHECK(caught && what == std::to_string(value + i));
    if (i % 4 == 0) coir_sleep(COIR_US(20));
    else coir_yield();
    CHECK(std::uncaught_exceptions() == 0);
  }
  return value;
}

int unwinds_across_waits(void *) {
  // Frames that were suspended are unwound later.
  struct Nested {
    static void go(int depth) {
      Guard guard;
      coir_yield();
      if (depth == 0) throw depth;
      go(depth - 1);
    }
  };
  try {
    Nested::go(10);
  } catch (int) {
    return 0;
  }
  return 1;
}

int all(void *) {
  coir_fiber *fibers[32];
  for (intptr_t i = 0; i < 32; i++)
    CHECK(coir_spawn(throws_and_catches, reinterpret_cast<void *>(i * 1000), nullptr, &fibers[i]) == 0);
  for (int i = 0; i < 32; i++) {
    coir_result result;
    CHECK(coir_join(fibers[i], &result, COIR_NEVER) == 0);
    CHECK(result.status == i * 1000);
  }
  CHECK(destroyed == 32 * 20 * 6);
  destroyed = 0;
  coir_fiber *fiber;
  coir_attr attr = {};
  attr.name = "nested";
  CHECK(coir_spawn(unwinds_across_waits, nullptr, &attr, &fiber) == 0);
  coir_result result;
  CHECK(coir_join(fiber, &result, COIR_NEVER) == 0);
  CHECK(result.status == 0 && destroyed == 11);
  return 0;
}

// Channels, as C++ code would have them: in templates, in classes, of classes.
template <class T> struct Channel {
  COIR_CHAN(T) chan;
  explicit Channel(size_t capacity) : chan(COIR_CHAN_CREATE(T, capacity)) { CHECK(chan != nullptr); }
  Channel(const Channel &) = delete;
  Channel &operator=(const Channel &) = delete;
  ~Channel() { coir_chan_unref(COIR_CHAN_RAW(chan)); }
  int send(const T &value, int64_t deadline = COIR_NEVER) { return COIR_SEND(chan, &value, deadline); }
  int receive(T &value, int64_t deadline = COIR_NEVER) { return COIR_RECV(chan, &value, deadline); }
};

struct Point {
  double x, y;
};

struct Pipes {
  Channel<int> numbers{0};
  Channel<Point> points{3};
  Channel<const char *> names{1};
};

int fills_pipes(void *arg) {
  Pipes &pipes = *static_cast<Pipes *>(arg);
  for (int i = 0; i < 100; i++) {
    CHECK(pipes.numbers.send(i) == 0);
    CHECK(pipes.points.send({i + 0.5, i * 2.0}) == 0);
    const char *name = i % 2 ? "odd" : "even";
    CHECK(COIR_SEND(pipes.names.chan, &name, COIR_NEVER) == 0);
  }
  coir_chan_close(COIR_CHAN_RAW(pipes.numbers.chan));
  return 0;
}

COIR_CHAN(int) counted(COIR_CHAN(int) chan, int *count) { return ++*count, chan; }

int typed_channels(void *) {
  Pipes pipes;
  coir_fiber *fiber;
  CHECK(coir_spawn(fills_pipes, &pipes, nullptr, &fiber) == 0);
  for (int i = 0; i < 100; i++) {
    int number;
    Point point;
    const char *name;
    CHECK(pipes.numbers.receive(number) == 0 && number == i);
    coir_arm arms[] = {coir_arm_recv(COIR_CHAN_RAW(pipes.points.chan), &point), coir_arm_deadline(COIR_NEVER)};
    CHECK(coir_select(arms, 2, COIR_NEVER) == 0 && arms[0].result == 0);
    CHECK(point.x == i + 0.5 && point.y == i * 2.0);
    CHECK(COIR_RECV(pipes.names.chan, &name, COIR_NEVER) == 0 && std::string(name) == (i % 2 ? "odd" : "even"));
  }
  int number = 7, evaluated = 0;
  CHECK(pipes.numbers.receive(number) == -EPIPE && number == 7);
  CHECK(COIR_SEND(counted(pipes.numbers.chan, &evaluated), &number, (evaluated += 10, 0)) == -EPIPE);
  CHECK(evaluated == 11);
  CHECK(coir_join(fiber, nullptr, COIR_NEVER) == 0);
  COIR_CHAN(int) none = nullptr;
  CHECK(sizeof none == sizeof(void *));
  CHECK(COIR_SEND(none, &number, 0) == -EINVAL && COIR_RECV(none, &number, 0) == -EINVAL);
  return 0;
}

int uncaught(void *) {
  throws(3, 1);
  return 0;
}

void terminated() {
  static const char text[] = "terminated\n";
  if (write(1, text, sizeof text - 1) < 0) _exit(3);
  _exit(42);
}

void uncaught_terminates() {
  int fds[2];
  CHECK(pipe(fds) == 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    dup2(fds[1], 1);
    std::set_terminate(terminated);
    alarm(20);
    coir_run(uncaught, nullptr);
    _exit(0);
  }
  close(fds[1]);
  char text[64] = {};
  ssize_t n = read(fds[0], text, sizeof text - 1);
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid);
  close(fds[0]);
  CHECK(n > 0 && std::string(text) == "terminated\n");
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

} // namespace

int main() {
  uncaught_terminates();
  CHECK(coir_run(all, nullptr) == 0);
  destroyed = 0;
  CHECK(coir_run(all, nullptr) == 0);
  CHECK(coir_run(typed_channels, nullptr) == 0);
  std::puts("t_cxx: passed");
  return 0;
}
