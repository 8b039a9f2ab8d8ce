// Exceptions of C++ go with the fiber that is in the middle of them, to whatever thread it goes on on: out of handlers,
// and out of destructors while the stack is unwound. Beside them others are asked all the time whether they see any.
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

#include "coir.h"
#include "coir_job.h"
#include "sanitizers.h"

namespace {

#define CHECK(x)                                                             \
  do {                                                                       \
    if (!(x)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      std::abort();                                                          \
    }                                                                        \
  } while (0)

constexpr int fibers_each = 8; // of every kind
constexpr int rounds = IS_SANITIZED ? 12 : 160;

int workers() {
  const char *text = std::getenv("COIR_WORKERS");
  return text ? std::atoi(text) : 4;
}

struct Wrong : std::runtime_error {
  explicit Wrong(int value) : std::runtime_error(std::to_string(value)), number(value) {}
  int number;
};

// Of a handler that is left by a jump nobody destroys the exception.
struct MayLeak {
#if defined(__SANITIZE_ADDRESS__)
  MayLeak() { __lsan_disable(); }
  ~MayLeak() { __lsan_enable(); }
#endif
};
[[noreturn]] void throw_for_good() {
  [[maybe_unused]] MayLeak may_leak;
  throw Wrong(1);
}

// Whoever is in no handler sees none.
[[gnu::noinline]] void check_quiet() {
  CHECK(std::uncaught_exceptions() == 0);
  CHECK(std::current_exception() == nullptr);
}

[[gnu::noinline]] void check_handles(int number) {
  CHECK(std::uncaught_exceptions() == 0);
  try {
    std::rethrow_exception(std::current_exception());
  } catch (const Wrong &wrong) {
    CHECK(wrong.number == number);
  }
}

// All the ways to give the worker up: i says which.
void wait_somehow(int i) {
  switch (i % 6) {
  case 0: (void)coir_sleep(COIR_US(i % 40)); break;
  case 1: {
    coir_fiber *fiber;
    CHECK(coir_spawn([](void *) { return check_quiet(), 0; }, nullptr, nullptr, &fiber) == 0);
    CHECK(coir_join(fiber, nullptr, COIR_NEVER) == 0);
    break;
  }
  case 2:
    if (i % 4 == 0) { // long enough for the worker to be taken away, and home in the next wait
      usleep(300);
      (void)coir_sleep(COIR_US(1));
      break;
    }
    [[fallthrough]];
  case 3:
    if (i % 8 == 3) {
      CHECK(coir_block([](void *) { usleep(20); }, nullptr) == 0);
      break;
    }
    [[fallthrough]];
  default:
    for (int n = i % 5; n >= 0; n--) coir_yield();
  }
}

void handles(int value, int depth) {
  try {
    throw Wrong(value);
  } catch (const Wrong &wrong) {
    wait_somehow(value);
    check_handles(value);
    if (depth > 0) handles(value + 1, depth - 1);
    wait_somehow(value + depth);
    CHECK(wrong.number == value);
    check_handles(value);
  }
}

int waits_in_handlers(void *arg) {
  int seed = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  for (int i = 0; i < rounds; i++) {
    handles(seed + i, i % 4);
    check_quiet();
  }
  return 0;
}

int rethrows(void *arg) {
  int seed = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  for (int i = 0; i < rounds; i++) {
    bool is_caught = false;
    try {
      try {
        throw Wrong(seed + i);
      } catch (...) {
        wait_somehow(seed + i);
        throw;
      }
    } catch (const Wrong &wrong) {
      wait_somehow(i);
      CHECK(wrong.number == seed + i);
      is_caught = true;
    }
    CHECK(is_caught);
    check_quiet();
  }
  return 0;
}

// Waits while it is unwound, and throws and catches on top of that.
struct Unwound {
  int seed;
  int on_their_way;
  explicit Unwound(int s, int n) : seed(s), on_their_way(n) {}
  Unwound(const Unwound &) = delete;
  Unwound &operator=(const Unwound &) = delete;
  ~Unwound() {
    CHECK(std::uncaught_exceptions() == on_their_way);
    wait_somehow(seed);
    CHECK(std::uncaught_exceptions() == on_their_way);
    if (on_their_way > 3) return;
    try {
      Unwound inner(seed + 1, on_their_way + 1);
      throw Wrong(seed);
    } catch (const Wrong &wrong) {
      wait_somehow(seed + 2);
      CHECK(wrong.number == seed);
    }
    CHECK(std::uncaught_exceptions() == on_their_way);
  }
};

int waits_in_destructors(void *arg) {
  int seed = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  for (int i = 0; i < rounds / 4; i++) {
    bool is_caught = false;
    try {
      Unwound unwound(seed + i, 1);
      throw Wrong(i);
    } catch (const Wrong &wrong) {
      CHECK(wrong.number == i);
      is_caught = true;
    }
    CHECK(is_caught);
    check_quiet();
  }
  return 0;
}

// An exception that one fiber has thrown ends in others, which hold it at the same time.
std::exception_ptr thrown_by_another(int value) {
  struct Carried {
    int value;
    std::exception_ptr thrown;
  } carried = {value, nullptr};
  coir_fiber *fiber;
  auto fn = [](void *arg) {
    auto *c = static_cast<Carried *>(arg);
    try {
      throw Wrong(c->value);
    } catch (...) {
      wait_somehow(c->value);
      c->thrown = std::current_exception();
      wait_somehow(c->value + 1);
    }
    return 0;
  };
  CHECK(coir_spawn(fn, &carried, nullptr, &fiber) == 0);
  CHECK(coir_join(fiber, nullptr, COIR_NEVER) == 0);
  return carried.thrown;
}

int rethrows_others(void *arg) {
  int seed = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  for (int i = 0; i < rounds / 2; i++) {
    std::exception_ptr thrown = thrown_by_another(seed + i);
    check_quiet();
    try {
      try {
        std::rethrow_exception(thrown);
      } catch (const Wrong &) {
        wait_somehow(i);
        std::throw_with_nested(Wrong(-1));
      }
    } catch (const std::nested_exception &nested) {
      wait_somehow(i + 1);
      try {
        nested.rethrow_nested();
      } catch (const Wrong &wrong) {
        CHECK(wrong.number == seed + i);
      }
    }
    check_quiet();
  }
  return 0;
}

std::atomic<bool> is_over;

int watches(void *) {
  while (!is_over) {
    check_quiet();
    coir_yield();
  }
  return 0;
}

// Leaves by coir_exit, out of a handler: who comes after it on that stack has nothing of it.
int exits(void *) {
  check_quiet();
  try {
    throw_for_good();
  } catch (...) {
    coir_yield();
    coir_exit(7, nullptr);
  }
  return 0;
}

int makes_exits(void *) {
  for (int i = 0; i < rounds; i++) {
    coir_fiber *fiber;
    coir_result result;
    CHECK(coir_spawn(exits, nullptr, nullptr, &fiber) == 0);
    CHECK(coir_join(fiber, &result, COIR_NEVER) == 0);
    CHECK(result.status == 7);
  }
  return 0;
}

// A generator yields out of handlers and destructors, to one who is in a handler.
int generates(void *arg) {
  int seed = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  struct Yields {
    ~Yields() {
      CHECK(std::uncaught_exceptions() == 1);
      (void)coir_gen_yield(nullptr, nullptr);
      CHECK(std::uncaught_exceptions() == 1);
    }
  };
  for (int i = 0; i < rounds; i++) {
    check_quiet();
    try {
      Yields yields;
      throw Wrong(seed + i);
    } catch (const Wrong &) {
      (void)coir_gen_yield(nullptr, nullptr);
      check_handles(seed + i);
    }
  }
  return 0;
}

int resumes(void *arg) {
  coir_gen *gen;
  CHECK(coir_gen_create(&gen, generates, arg, nullptr) == 0);
  for (int i = 0, goes_on = 1; goes_on; i++) {
    try {
      throw Wrong(-i);
    } catch (const Wrong &) {
      goes_on = coir_gen_resume(gen, nullptr, nullptr) == 0;
      check_handles(-i);
    }
    check_quiet();
    goes_on = goes_on && coir_gen_resume(gen, nullptr, nullptr) == 0;
    check_quiet();
  }
  CHECK(coir_gen_destroy(gen) == 0);
  return 0;
}

// The same with raw fibers, which are on other stacks of the fiber that resumes them; waits suspend both.
void raw_body(void *arg) {
  int seed = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  struct Yields {
    int seed;
    ~Yields() {
      CHECK(std::uncaught_exceptions() == 1);
      coir_raw_fiber_yield();
      wait_somehow(seed);
      CHECK(std::uncaught_exceptions() == 1);
    }
  };
  for (int i = 0; i < rounds; i++) {
    check_quiet();
    try {
      Yields yields{seed + i};
      throw Wrong(seed + i);
    } catch (const Wrong &) {
      coir_raw_fiber_yield();
      wait_somehow(i);
      check_handles(seed + i);
    }
    if (i % 16 == 15) {
      try {
        throw_for_good();
      } catch (...) {
        coir_job_fail("out of a handler");
      }
    }
  }
}

void resume_elsewhere(coir_raw_fiber *raw, void *arg) {
  struct Call {
    coir_raw_fiber *raw;
    void *arg;
  } call = {raw, arg};
  auto fn = [](void *c) {
    CHECK(coir_raw_fiber_resume(static_cast<Call *>(c)->raw, raw_body, static_cast<Call *>(c)->arg) >= 0);
    check_quiet();
    return 0;
  };
  coir_fiber *fiber;
  CHECK(coir_spawn(fn, &call, nullptr, &fiber) == 0);
  CHECK(coir_join(fiber, nullptr, COIR_NEVER) == 0);
}

int resumes_raw(void *arg) {
  coir_raw_fiber *raw;
  CHECK(coir_raw_fiber_create(&raw, 0) == 0);
  for (int i = 0; i < rounds; i++) {
    try {
      throw Wrong(-i);
    } catch (const Wrong &) {
      CHECK(coir_raw_fiber_resume(raw, raw_body, arg) >= 0);
      check_handles(-i);
    }
    check_quiet();
    resume_elsewhere(raw, arg);
    check_quiet();
  }
  while (coir_raw_fiber_resume(raw, raw_body, arg) == COIR_RAW_YIELDED) {}
  coir_raw_fiber_destroy(raw);
  return 0;
}

void fails_at_three(size_t i, void *) {
  try {
    throw_for_good();
  } catch (...) {
    if (i % 2) coir_yield();
    if (i == 3) coir_job_fail("out of a handler");
  }
}

// A failure leaves the handlers of a loop's bodies by a jump, and those of who called it not.
int loops(void *arg) {
  int seed = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  for (int i = 0; i < rounds / 8; i++) {
    try {
      throw Wrong(seed);
    } catch (const Wrong &) {
      CHECK(coir_parallel_for(nullptr, 0, 8, fails_at_three, nullptr) == -ECANCELED);
      check_handles(seed);
    }
    check_quiet();
  }
  return 0;
}

// Computes for longer than a quantum in handlers, so that it is paused there.
int computes(void *) {
  for (int i = 0; i < 6; i++) {
    try {
      throw Wrong(i);
    } catch (const Wrong &wrong) {
      for (int64_t end = coir_now() + COIR_MS(2); coir_now() < end;) check_handles(i);
      wait_somehow(i);
      CHECK(wrong.number == i);
    }
    check_quiet();
  }
  return 0;
}

int all(void *) {
  static const coir_fn kinds[] = {waits_in_handlers, rethrows, waits_in_destructors, rethrows_others,
                                  makes_exits,       resumes,  resumes_raw,          loops};
  constexpr int count = static_cast<int>(sizeof kinds / sizeof *kinds) * fibers_each;
  coir_fiber *fibers[count], *hogs[2], *watchers[4];
  is_over = false;
  for (auto &fiber : watchers) CHECK(coir_spawn(watches, nullptr, nullptr, &fiber) == 0);
  for (int i = 0; i < count; i++)
    CHECK(coir_spawn(kinds[i / fibers_each], reinterpret_cast<void *>(static_cast<intptr_t>(i) * 1000), nullptr,
                     &fibers[i]) == 0);
  coir_attr attr = {};
  attr.preempt = COIR_ON;
  for (auto &fiber : hogs) CHECK(coir_spawn(computes, nullptr, &attr, &fiber) == 0);
  for (auto fiber : fibers) CHECK(coir_join(fiber, nullptr, COIR_NEVER) == 0);
  for (auto fiber : hogs) CHECK(coir_join(fiber, nullptr, COIR_NEVER) == 0);
  is_over = true;
  for (auto fiber : watchers) CHECK(coir_join(fiber, nullptr, COIR_NEVER) == 0);
  check_quiet();
  return 0;
}

void run_all(coir_config config) {
  coir_runtime *runtime;
  config.blocked_us = 100;
  config.quantum_us = 500;
  CHECK(coir_runtime_create(&runtime, &config) == 0);
  CHECK(coir_runtime_run(runtime, all, nullptr, nullptr) == 0);
  CHECK(coir_runtime_destroy(runtime) == 0);
}

// The thread's own stack is in the middle of some, too, and finds them again.
void runs_in_handler() {
  try {
    try {
      throw Wrong(1234);
    } catch (const Wrong &) {
      run_all({});
      check_handles(1234);
      coir_config config = {};
      config.migrate = COIR_ON;
      run_all(config);
      throw;
    }
  } catch (const Wrong &wrong) {
    CHECK(wrong.number == 1234);
  }
  check_quiet();
}

// What fails leaves handlers by a jump: the next job on that stack has nothing of it.
void job_fails(coir_job *, void *arg) {
  check_quiet();
  try {
    throw_for_good();
  } catch (...) {
    coir_yield();
    if (arg) coir_job_fail("out of a handler");
  }
}

void jobs_fail() {
  coir_job_system *jobs;
  coir_job_config config = {};
  config.threads = workers();
  CHECK(coir_job_system_create(&jobs, &config) == 0);
  coir_counter *done[64];
  for (intptr_t i = 0; i < 64; i++) {
    done[i] = coir_job_run(jobs, job_fails, reinterpret_cast<void *>(i % 2));
    CHECK(done[i] != nullptr);
  }
  for (auto counter : done) {
    (void)coir_counter_wait(counter, COIR_NEVER);
    coir_counter_unref(counter);
  }
  CHECK(coir_job_system_shutdown(jobs, COIR_NEVER) == 32);
  coir_job_system_destroy(jobs);
}

} // namespace

int main() {
  alarm(100);
  runs_in_handler();
  jobs_fail();
  return 0;
}
