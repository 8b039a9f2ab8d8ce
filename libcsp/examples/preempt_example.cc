// preempt_example.cc: goroutines that never wait, on one worker, paused in turn by LIBCSP_PREEMPT, with a program that
// sets alarms of its own.
//
// They allocate, format and throw as they like: each is paused together with its thread. What they share is atomic, or
// under a lock, as it is between threads; a std::mutex is right as long as nothing waits by libcsp under it.
#include <csp.h>

#include <atomic>
#include <csignal>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/time.h>

namespace {

std::atomic<bool> enough{false};
std::atomic<int> alarms{0};
std::mutex lock;
std::map<int, int> rounds; // of each limit; under the lock

bool isPrime(int n) {
  for (int i = 2; i * i <= n; i++)
    if (n % i == 0) throw std::domain_error(std::to_string(n) + " is a multiple of " + std::to_string(i));
  return n > 1;
}

// The same again and again, until somebody else says that it is enough.
int primesBelow(int limit) {
  for (;;) {
    std::vector<std::string> reasons;
    int primes = 0;
    for (int n = 2; n < limit; n++) {
      try {
        primes += isPrime(n);
      } catch (const std::exception &error) {
        reasons.push_back(error.what());
      }
    }
    if (primes + static_cast<int>(reasons.size()) != limit - 2) throw std::logic_error("numbers are missing");
    {
      std::lock_guard<std::mutex> held(lock);
      rounds[limit]++;
    }
    if (enough) return primes;
  }
}

void setAlarms(int us) {
  struct itimerval every = {{0, us}, {0, us}};
  setitimer(ITIMER_REAL, &every, nullptr);
}

} // namespace

int main() {
  setenv("LIBCSP_PREEMPT", "1", 1);
  setenv("LIBCSP_PRODUCTION", "0", 1);
  setenv("COIR_QUANTUM_US", "2000", 1);
  signal(SIGALRM, [](int) { alarms++; }); // before the workers are started
  setAlarms(5000);

  csp_gochan_t *results = csp_gochan_new(3);
  for (int limit : {100, 1000, 2000})
    csp_async(csp_gochan_send(results, reinterpret_cast<void *>(static_cast<intptr_t>(primesBelow(limit)))));
  csp_async([] {
    for (int i = 1; i <= 3; i++) {
      csp_hangup(20 * csp_timer_millisecond);
      printf("tick %d\n", i);
    }
    enough = true;
  }());
  intptr_t sum = 0;
  for (int i = 0; i < 3; i++) sum += reinterpret_cast<intptr_t>(csp_gochan_recv(results, nullptr));
  setAlarms(0);
  csp_scheduler_stop();
  csp_gochan_free(results);
  printf("%d primes\n", static_cast<int>(sum));
  printf("the alarms came: %s\n", alarms > 0 ? "yes" : "no");
  printf("%d have computed\n", static_cast<int>(rounds.size()));
  return 0;
}
