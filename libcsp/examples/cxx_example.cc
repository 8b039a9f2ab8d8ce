// cxx_example.cc: libcsp from C++17. Channels and contexts that free themselves, goroutines that are lambdas,
// exceptions inside a goroutine, and a select.
//
// An exception is the goroutine's own, and goes up its frames also when it was suspended in some of them. It has to be
// caught in the goroutine that it is thrown in (std::terminate is called otherwise). In a catch block, and in a
// destructor that an exception runs, a goroutine must not wait: the list of exceptions under way belongs to the thread.
// So take out of a handler what is needed, and wait behind it.
#include <csp.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// What frees a channel or a context, for std::unique_ptr.
struct Free {
  void operator()(csp_gochan_t *ch) const { csp_gochan_free(ch); }
  void operator()(csp_context_t *ctx) const { csp_context_free(ctx); }
};

// A channel of values that are moved.
template <class T> class Chan {
public:
  explicit Chan(size_t capacity = 0) : ch(csp_gochan_new(capacity)) {
    if (!ch) throw std::bad_alloc();
  }
  ~Chan() {
    close();
    for (T value; receive(value);) {}
  }
  bool send(T value) {
    auto moved = std::make_unique<T>(std::move(value));
    bool sent = csp_gochan_send(ch.get(), moved.get());
    if (sent) moved.release(); // the receiver's now
    return sent;
  }
  bool receive(T &value) {
    bool ok = false;
    return take(csp_gochan_recv(ch.get(), &ok), value) && ok;
  }
  void close() { csp_gochan_close(ch.get()); }
  csp_gochan_t *get() const { return ch.get(); }
  // Takes what a select has received; false for NULL.
  static bool take(void *received, T &value) {
    std::unique_ptr<T> owned(static_cast<T *>(received));
    if (owned) value = std::move(*owned);
    return owned != nullptr;
  }

private:
  std::unique_ptr<csp_gochan_t, Free> ch;
};

// Waits at its end for all that was started by go(). So in a goroutine no exception may pass through its block.
class Group {
public:
  Group() { csp_sync_waitgroup_init(&wg); }
  ~Group() { csp_sync_waitgroup_wait(&wg); }
  template <class F> void go(F fn) {
    csp_sync_waitgroup_add(&wg, 1);
    try {
      csp_async(run(fn, &wg));
    } catch (...) {
      csp_sync_waitgroup_done(&wg);
      throw;
    }
  }

private:
  template <class F> static void run(F &fn, csp_sync_waitgroup_t *wg) {
    fn();
    csp_sync_waitgroup_done(wg);
  }
  csp_sync_waitgroup_t wg;
};

// Suspended in every one of its frames before it throws.
int depth_of(int number) {
  csp_yield();
  if (number < 0) throw std::out_of_range("a negative number");
  return number == 0 ? 0 : 1 + depth_of(number / 2);
}

std::string describe(int number) {
  try {
    return std::to_string(number) + " has " + std::to_string(depth_of(number)) + " digits in base 2";
  } catch (const std::exception &error) {
    return std::to_string(number) + ": " + error.what();
  }
}

void describe_some() {
  const std::vector<int> numbers = {1, 10, -1, 1000, 1000000};
  std::vector<std::string> lines(numbers.size());
  {
    Group group;
    for (size_t i = 0; i < numbers.size(); i++)
      group.go([&lines, i, number = numbers[i]] { lines[i] = describe(number); });
  }
  for (const std::string &line : lines) printf("%s\n", line.c_str());
}

// Sends words until the context is cancelled.
void chatter(csp_context_t *ctx, csp_gochan_t *words) {
  for (int n = 1;; n++) {
    auto word = std::make_unique<std::string>("word " + std::to_string(n));
    csp_select_case_t cases[] = {
        {csp_context_done(ctx), CSP_RECV, nullptr},
        {words, CSP_SEND, reinterpret_cast<void **>(word.get())},
    };
    if (csp_select(cases, 2) != 1) return; // and the word is freed
    word.release();
  }
}

void listen_for_a_while() {
  std::unique_ptr<csp_context_t, Free> ctx(csp_context_with_cancel(nullptr));
  Chan<std::string> words;
  {
    Group group;
    group.go([&] { chatter(ctx.get(), words.get()); });
    std::string word;
    for (int i = 0; i < 3 && words.receive(word); i++) printf("heard %s\n", word.c_str());
    csp_context_cancel(ctx.get());
  }
  printf("cancelled\n");
}

// What comes first: a value that never comes, or the end of the time.
void give_up() {
  std::unique_ptr<csp_context_t, Free> ctx(csp_context_with_timeout(nullptr, 5 * csp_timer_millisecond));
  Chan<std::string> words;
  void *received = nullptr;
  csp_select_case_t cases[] = {
      {words.get(), CSP_RECV, &received},
      {csp_context_done(ctx.get()), CSP_RECV, nullptr},
  };
  int chosen = csp_select(cases, 2);
  printf("case %d: %s\n", chosen, csp_context_err(ctx.get()) == ETIMEDOUT ? "the time is over" : "a word");
}

} // namespace

int main() {
  describe_some();
  listen_for_a_while();
  give_up();
  return 0;
}
