// C++ on fibers: the headers compile, exceptions stay on their fiber, what nobody catches ends the process.
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
  std::puts("t_cxx: passed");
  return 0;
}
