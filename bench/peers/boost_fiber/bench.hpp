// The frame of the Boost.Fiber programs: the same arguments, statistics and JSON lines as bench/bench.h.
//
// One worker is a thread with Boost's default scheduler, round_robin. Several are threads with work_stealing. Its threads
// sleep when they find no work, which is faster for nearly all questions, but then wake only for fibers of their own; a
// program that has work for all of them from the start (is_spinning) lets them look for it without a pause.
#pragma once
#include <signal.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/fiber/all.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace fibers = boost::fibers;
using Values = std::vector<double>;

[[noreturn]] inline void die(const std::string &message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(1);
}

// Ends the program when what it computed is wrong.
inline void check(const char *what, long value, long expected) {
  if (value != expected) die(std::string(what) + ": " + std::to_string(value) + ", not " + std::to_string(expected));
}

// Runs from when it is made.
class Stopwatch {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

public:
  // Time of each of `n` operations until now, in nanoseconds.
  double each(long n) const {
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / double(n);
  }
};

// The threads that run fibers: this one and others.
class Workers {
  fibers::mutex mutex;
  fibers::condition_variable_any ended;
  bool is_over = false;
  std::vector<std::thread> others;

public:
  Workers(int count, bool is_spinning) {
    auto schedule = [=] {
      if (count > 1) fibers::use_scheduling_algorithm<fibers::algo::work_stealing>(count, !is_spinning);
    };
    for (int i = 1; i < count; i++) {
      others.emplace_back([=] {
        schedule();
        std::unique_lock<fibers::mutex> lock(mutex);
        ended.wait(lock, [this] { return is_over; });
      });
    }
    schedule(); // waits for the others
  }

  ~Workers() {
    {
      std::unique_lock<fibers::mutex> lock(mutex);
      is_over = true;
    }
    ended.notify_all();
    for (auto &other : others) other.join();
  }
};

// Opens for all who wait at it, at once, when all of them have come.
class Gate {
  std::atomic<long> missing;
  std::atomic<bool> is_open{false};

public:
  explicit Gate(long count) : missing(count) {}

  void pass() {
    missing--;
    while (!is_open) boost::this_fiber::yield();
  }

  // Waits until all have come, and opens it.
  Stopwatch open() {
    while (missing > 0) boost::this_fiber::yield();
    Stopwatch watch;
    is_open = true;
    return watch;
  }
};

struct Metric {
  std::string name, unit; // the main figure has no name; lower is better in all of them
};

struct Bench {
  std::string question;
  std::vector<Metric> metrics;
  Values (*run)(const Bench &b); // measures once, on a fiber: a figure per metric; NAN: not with so many workers
  bool is_spinning = false;
  long fibers = 0; // what --fibers says
  int workers = 0, runs = 5;
  bool is_quick = false;

  long count(long full) const { return is_quick ? full / 5 : full; }

  int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
      std::string arg = argv[i];
      long value = i + 1 < argc ? std::atol(argv[i + 1]) : 0;
      if (arg == "--quick") {
        is_quick = true;
        continue;
      }
      if (arg == "--workers" && value > 0) workers = int(value);
      else if (arg == "--runs" && value > 0) runs = int(value);
      else if (arg == "--fibers" && value > 0) fibers = value;
      else die("usage: " + std::string(argv[0]) + " [--workers N] [--runs N] [--fibers N] [--quick]");
      i++;
    }
    std::vector<int> counts{1, 2};
    if (workers > 0) counts = {workers};
    for (int n : counts) measure_in_child(n);
    return 0;
  }

private:
  // In a process of its own: the number of threads that steal from each other is fixed once per process.
  void measure_in_child(int n) {
    pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      workers = n;
      measure();
      std::exit(0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) die(name() + ": failed");
  }

  void measure() {
    Workers threads(workers, is_spinning);
    std::vector<Values> samples(metrics.size());
    boost::fibers::fiber measuring([&] {
      run(*this); // warm-up
      for (int i = 0; i < runs; i++) {
        Values values = run(*this);
        for (size_t m = 0; m < metrics.size(); m++) samples[m].push_back(values[m]);
      }
    });
    measuring.join();
    for (size_t m = 0; m < metrics.size(); m++) {
      if (!std::isnan(samples[m][0])) report(metrics[m], samples[m]);
    }
  }

  std::string name() const { return fibers ? question + std::to_string(fibers) : question; }

  void report(const Metric &metric, Values values) const {
    std::sort(values.begin(), values.end());
    size_t n = values.size();
    double median = (values[(n - 1) / 2] + values[n / 2]) / 2;
    std::printf("{\"question\":\"%s\",", name().c_str());
    if (!metric.name.empty()) std::printf("\"metric\":\"%s\",", metric.name.c_str());
    std::printf("\"impl\":\"boost_fiber\",\"workers\":%d,\"value\":%.6g,\"unit\":\"%s\",\"better\":\"lower\",", workers,
                median, metric.unit.c_str());
    std::printf("\"runs\":%zu,\"min\":%.6g,\"median\":%.6g,\"max\":%.6g,", n, values[0], median, values[n - 1]);
    if (is_quick) std::printf("\"quick\":true,");
    struct utsname names;
    uname(&names);
    std::printf("\"machine\":{\"cpu\":\"%s\",\"cores\":%ld,\"kernel\":\"%s\"}}\n", cpu(names.machine).c_str(),
                sysconf(_SC_NPROCESSORS_ONLN), names.release);
    std::fflush(stdout);
  }

  static std::string cpu(const std::string &otherwise) {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
      if (line.rfind("model name", 0) == 0) return line.substr(line.find(": ") + 2);
    }
    return otherwise;
  }
};
