// C++20 on jobs: the header compiles, bodies are lambdas, exceptions are caught in the job, side or body in which they
// are thrown, by whatever thread runs it, and one that is to go further is carried by hand.
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "coir_job.h"

namespace {

#define CHECK(x)                                                             \
  do {                                                                       \
    if (!(x)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      std::abort();                                                          \
    }                                                                        \
  } while (0)

coir_job_system *jobs;
std::atomic<int> destroyed;

struct Guard {
  ~Guard() { destroyed++; }
};

// Bodies that are lambdas.
template <class Body> int parallel_for(size_t lo, size_t hi, Body &&body) {
  using B = std::remove_reference_t<Body>;
  return coir_parallel_for(
      jobs, lo, hi, [](size_t i, void *arg) { (*static_cast<B *>(arg))(i); }, &body);
}

template <class A, class B> int fork2(A &&a, B &&b) {
  using A_ = std::remove_reference_t<A>;
  using B_ = std::remove_reference_t<B>;
  return coir_fork2([](void *arg) { (*static_cast<A_ *>(arg))(); }, &a, [](void *arg) { (*static_cast<B_ *>(arg))(); },
                    &b);
}

template <class Body> void run_job(Body &&body) {
  using B = std::remove_reference_t<Body>;
  coir_counter *done = coir_job_run(
      jobs, [](coir_job *job, void *arg) { (*static_cast<B *>(arg))(job); }, &body);
  CHECK(done != nullptr);
  CHECK(coir_counter_wait(done, COIR_NEVER) == 0);
  coir_counter_unref(done);
}

[[gnu::noinline]] void throws(int depth, int value) {
  Guard guard;
  if (depth == 0) throw std::runtime_error(std::to_string(value));
  throws(depth - 1, value);
}

// With a wait between the frames that are unwound, so these may be on another thread than they were.
[[gnu::noinline]] void throws_after_waits(int depth, int value) {
  Guard guard;
  if (depth % 2) coir_job_yield_now();
  else (void)coir_sleep(COIR_US(5));
  if (depth == 0) throw std::runtime_error(std::to_string(value));
  throws_after_waits(depth - 1, value);
}

void throw_and_catch(int value, bool waits) {
  std::string what;
  try {
    if (waits) throws_after_waits(4, value);
    else throws(4, value);
  } catch (const std::runtime_error &error) {
    what = error.what();
  }
  CHECK(what == std::to_string(value));
  CHECK(std::uncaught_exceptions() == 0);
  CHECK(std::current_exception() == nullptr);
}

void in_jobs() {
  destroyed = 0;
  struct Work {
    int value;
  };
  coir_counter *counter = coir_counter_create(0);
  for (int i = 0; i < 200; i++) {
    Work work{i};
    coir_job_desc desc = {};
    desc.fn = [](coir_job *job, void *arg) {
      int value = static_cast<Work *>(arg)->value;
      throw_and_catch(value, value % 3 == 0);
      coir_job_yield(job);
      throw_and_catch(-value, false);
    };
    desc.arg = &work;
    desc.copy_bytes = sizeof work;
    CHECK(coir_job_submit(jobs, &desc, 1, &counter) == 0);
  }
  CHECK(coir_counter_wait(counter, COIR_NEVER) == 0);
  coir_counter_unref(counter);
  CHECK(destroyed == 200 * 2 * 5);
}

void in_loops() {
  destroyed = 0;
  std::atomic<long> sum{0};
  auto body = [&](size_t i) {
    if (i % 8 == 0) throw_and_catch(static_cast<int>(i), i % 64 == 0);
    sum += static_cast<long>(i);
  };
  CHECK(parallel_for(0, 2000, body) == 0);
  CHECK(sum == 1999000 && destroyed == 250 * 5);
  run_job([&](coir_job *) { CHECK(parallel_for(0, 2000, body) == 0); });
  CHECK(sum == 2 * 1999000 && destroyed == 2 * 250 * 5);
}

// Each level catches what its own sides throw.
int sum_of_tree(int depth) {
  int left = 0, right = 0;
  if (depth == 0) {
    throw_and_catch(depth, false);
    return 1;
  }
  CHECK(fork2([&] { left = sum_of_tree(depth - 1); },
              [&] {
                if (depth % 3 == 0) throw_and_catch(depth, true);
                right = sum_of_tree(depth - 1);
              }) == 0);
  return left + right;
}

void in_forks() {
  int sum = 0;
  run_job([&](coir_job *) { sum = sum_of_tree(8); });
  CHECK(sum == 256);
  sum = sum_of_tree(6); // on a plain thread
  CHECK(sum == 64);
}

// Nothing may leave a body. What should is carried by the caller's variable, and thrown again outside.
void carried_out() {
  for (int round = 0; round < 20; round++) {
    std::exception_ptr first;
    std::mutex mutex; // is held for a moment, without a wait
    CHECK(parallel_for(0, 300, [&](size_t i) {
            try {
              if (i % 100 == 50) throws(3, static_cast<int>(i));
            } catch (...) {
              std::lock_guard<std::mutex> lock(mutex);
              if (!first) first = std::current_exception();
            }
          }) == 0);
    bool caught = false;
    try {
      CHECK(first != nullptr);
      std::rethrow_exception(first);
    } catch (const std::runtime_error &error) {
      caught = std::stoi(error.what()) % 100 == 50;
    }
    CHECK(caught);
  }
}

// A failure leaves frames as longjmp does; those without destructors, that is. It is no exception: nobody catches it.
void failures_are_no_exceptions() {
  std::atomic<int> caught{0}, after{0};
  auto body = [&](size_t i) {
    try {
      if (i == 10) coir_job_fail("at %zu", i);
    } catch (...) {
      caught++;
    }
    after++;
  };
  CHECK(parallel_for(0, 100, body) == -ECANCELED);
  CHECK(caught == 0 && after < 100);
  throw_and_catch(1, true);
  in_jobs();
}

void ranges_and_reductions() {
  std::vector<double> values(10000);
  std::iota(values.begin(), values.end(), 1.0);
  const double zero = 0;
  coir_monoid monoid = {};
  monoid.bytes = sizeof zero;
  monoid.identity = &zero;
  monoid.sum = [](size_t lo, size_t hi, void *value, void *arg) {
    auto &all = *static_cast<std::vector<double> *>(arg);
    *static_cast<double *>(value) +=
        std::accumulate(all.begin() + static_cast<long>(lo), all.begin() + static_cast<long>(hi), 0.0);
  };
  monoid.combine = [](void *left, const void *right, void *) {
    *static_cast<double *>(left) += *static_cast<const double *>(right);
  };
  double sum = 0;
  CHECK(coir_parallel_reduce(jobs, 0, values.size(), 0, &monoid, &values, &sum) == 0);
  CHECK(sum == 50005000.0);
  coir_counter *done = coir_job_parallel_for_auto(
      jobs, 0, values.size(),
      [](size_t i, void *arg) {
        double &value = (*static_cast<std::vector<double> *>(arg))[i];
        try {
          if (i % 1000 == 0) throw value;
          value = -value;
        } catch (double thrown) {
          value = -thrown;
        }
      },
      &values);
  CHECK(coir_counter_wait(done, COIR_NEVER) == 0);
  coir_counter_unref(done);
  CHECK(std::accumulate(values.begin(), values.end(), 0.0) == -50005000.0);
}

} // namespace

int main() {
  const char *workers = std::getenv("COIR_WORKERS");
  coir_job_config config = {};
  config.threads = workers ? std::atoi(workers) : 0;
  CHECK(coir_job_system_create(&jobs, &config) == 0);
  in_jobs();
  in_loops();
  in_forks();
  carried_out();
  failures_are_no_exceptions();
  ranges_and_reductions();
  CHECK(coir_job_system_shutdown(jobs, COIR_NEVER) == 0);
  coir_job_system_destroy(jobs);
  std::puts("t_job_cxx: passed");
  return 0;
}
