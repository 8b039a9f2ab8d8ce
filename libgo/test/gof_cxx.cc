// C++ on fibers: the headers compile, before those of the library; exceptions stay on their fiber; what nobody catches
// ends the process; errno is the fiber's.
#include "libgo/fiber.h"
#include "libgo/fiber_chan.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "coir.h"

namespace {

#define CHECK(x)                                                             \
  do {                                                                       \
    if (!(x)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      std::abort();                                                          \
    }                                                                        \
  } while (0)

void *number(intptr_t n) { return reinterpret_cast<void *>(n); }

int destroyed, finished;

struct Guard {
  ~Guard() { __atomic_fetch_add(&destroyed, 1, __ATOMIC_RELAXED); }
};

[[gnu::noinline]] void throws(int depth, intptr_t value) {
  Guard guard;
  if (depth == 0) throw std::runtime_error(std::to_string(value));
  throws(depth - 1, value);
}

// Thrown and caught inside one fiber, with waits in between, but not inside a handler.
void throws_and_catches(void *arg) {
  intptr_t value = reinterpret_cast<intptr_t>(arg);
  for (int i = 0; i < 20; i++) {
    std::string what;
    try {
      gof_yield();
      throws(5, value + i);
    } catch (const std::exception &error) {
      what = error.what();
    }
    CHECK(what == std::to_string(value + i));
    if (i % 4 == 0) gof_sleep_ms(1);
    else gof_yield();
    CHECK(std::uncaught_exceptions() == 0 && !std::current_exception());
  }
  __atomic_fetch_add(&finished, 1, __ATOMIC_RELAXED);
}

// Frames that were suspended are unwound later, on another thread perhaps.
void goes_down(int depth) {
  Guard guard;
  gof_yield();
  if (depth == 0) throw depth;
  goes_down(depth - 1);
}

void unwinds_across_waits(void *) {
  try {
    goes_down(10);
  } catch (int depth) {
    CHECK(depth == 0);
    __atomic_fetch_add(&finished, 1, __ATOMIC_RELAXED);
  }
}

// An exception taken out of one fiber can be thrown in another. It is let go of here first: ThreadSanitizer does not
// see
// the library count those who hold it.
gof_chan_t *chan;

void hands_over(void *) {
  std::exception_ptr *caught = nullptr;
  try {
    throws(3, 77);
  } catch (...) {
    caught = new std::exception_ptr(std::current_exception());
  }
  CHECK(caught && gof_chan_send(chan, caught) == 0);
}

void throws_again(void *) {
  void *value;
  CHECK(gof_chan_recv(chan, &value) == 0);
  std::unique_ptr<std::exception_ptr> caught(static_cast<std::exception_ptr *>(value));
  try {
    gof_yield();
    std::rethrow_exception(*caught);
  } catch (const std::runtime_error &error) {
    CHECK(std::string(error.what()) == "77");
    __atomic_fetch_add(&finished, 1, __ATOMIC_RELAXED);
  }
}

// The library's own inline functions that name errno were compiled with the fiber's.
void converts(void *arg) {
  intptr_t value = reinterpret_cast<intptr_t>(arg);
  for (int i = 0; i < 50; i++) {
    errno = 4711;
    CHECK(std::stol(std::to_string(value)) == value);
    CHECK(errno == 4711);
    gof_yield();
    CHECK(errno == 4711);
    bool refused = false;
    try {
      std::stoi("99999999999999999999");
    } catch (const std::out_of_range &) {
      refused = true;
    }
    CHECK(refused);
    errno = 0;
    CHECK(gof_spawn(nullptr, nullptr, 0) == nullptr && errno == EINVAL);
  }
  __atomic_fetch_add(&finished, 1, __ATOMIC_RELAXED);
}

void all() {
  destroyed = finished = 0;
  for (intptr_t i = 0; i < 32; i++) CHECK(gof_spawn(throws_and_catches, number(i * 1000), 0) != nullptr);
  gof_run();
  CHECK(finished == 32 && destroyed == 32 * 20 * 6);
  destroyed = finished = 0;
  for (int i = 0; i < 8; i++) CHECK(gof_spawn(unwinds_across_waits, nullptr, 0) != nullptr);
  gof_run();
  CHECK(finished == 8 && destroyed == 8 * 11);
  finished = 0;
  chan = gof_chan_make(1);
  CHECK(gof_spawn(throws_again, nullptr, 0) != nullptr && gof_spawn(hands_over, nullptr, 0) != nullptr);
  gof_run();
  CHECK(finished == 1);
  gof_chan_free(chan);
  finished = 0;
  for (intptr_t i = 0; i < 8; i++) CHECK(gof_spawn(converts, number(i * 1000), 0) != nullptr);
  gof_run();
  CHECK(finished == 8);
}

void all_migrating() {
  setenv("COIR_MIGRATE", "1", 1);
  setenv("GOF_NWORKERS", "4", 1);
  all();
}

void uncaught(void *) {
  gof_yield();
  throws(3, 1);
}

void terminated() {
  static const char text[] = "terminated\n";
  if (write(1, text, sizeof text - 1) < 0) _exit(3);
  _exit(42);
}

void lets_one_through() {
  std::set_terminate(terminated);
  CHECK(gof_spawn(uncaught, nullptr, 0) != nullptr);
  gof_run();
}

// Runs fn() in a process of its own. Returns its status; what it writes to stdout goes to `text`.
int in_child(void (*fn)(), std::string *text) {
  int fds[2], status = 0;
  CHECK(pipe(fds) == 0);
  std::fflush(nullptr);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    dup2(fds[1], 1);
    close(fds[0]);
    close(fds[1]);
    alarm(60);
    fn();
    std::exit(0);
  }
  close(fds[1]);
  for (char c; read(fds[0], &c, 1) == 1;) *text += c;
  close(fds[0]);
  CHECK(waitpid(pid, &status, 0) == pid);
  return status;
}

} // namespace

int main() {
  std::string text;
  CHECK(in_child(all, &text) == 0);
  CHECK(in_child(all_migrating, &text) == 0);
  CHECK(text.empty());
  int status = in_child(lets_one_through, &text);
  CHECK(text == "terminated\n");
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
  std::puts("gof_cxx: passed");
  return 0;
}
