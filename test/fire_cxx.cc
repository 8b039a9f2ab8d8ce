// C++ programs under fire: exceptions, containers, streams and their memory (fire.h).
#include "fire.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "registers.h"

namespace {

std::atomic<long> made, destroyed;

struct Guard {
  Guard() { made++; }
  Guard(const Guard &) = delete;
  ~Guard() { destroyed++; }
};

struct Failure : std::runtime_error {
  Failure(const std::string &what, uint64_t value) : std::runtime_error(what), value(value) {}
  uint64_t value;
};

[[gnu::noinline]] void fails(int depth, uint64_t value) {
  Guard guard;
  std::string local(static_cast<size_t>(depth % 40), 'x'); // has to be destroyed, too
  if (depth == 0) throw Failure("at the bottom: " + std::to_string(value), value);
  fails(depth - 1, value);
  FIRE_CHECK(local.empty()); // not reached
}

[[gnu::noinline]] void fails_again(int depth, uint64_t value) {
  try {
    fails(depth, value);
  } catch (Failure &failure) {
    Guard guard;
    fire_compute(500);
    if (failure.value % 2) throw;
    throw std::out_of_range(failure.what());
  }
}

void exceptions(fire_hog *hog) {
  for (int i = 0; i < 10; i++) {
    uint64_t value = fire_random(hog);
    bool caught = false;
    int depth = static_cast<int>(fire_random(hog) % 30);
    try {
      fails_again(depth, value);
    } catch (const Failure &failure) {
      caught = failure.value == value && value % 2;
    } catch (const std::out_of_range &error) {
      caught = error.what() == "at the bottom: " + std::to_string(value) && value % 2 == 0;
    }
    FIRE_CHECK(caught && std::uncaught_exceptions() == 0);
  }
}

/* Unwinds frames that have waited, on whatever threads. */
[[gnu::noinline]] void waits_and_fails(int depth, uint64_t value) {
  Guard guard;
  if (depth % 3 == 0) coir_yield();
  fire_compute(1000);
  if (depth == 0) throw value;
  waits_and_fails(depth - 1, value);
}

void exceptions_across_waits(fire_hog *hog) {
  uint64_t value = fire_random(hog), caught = 0;
  try {
    waits_and_fails(10, value);
  } catch (uint64_t v) {
    caught = v;
  }
  FIRE_CHECK(caught == value);
}

void strings(fire_hog *hog) {
  std::string text;
  std::vector<std::string> words;
  for (int i = 0; i < 100; i++) words.push_back(std::to_string(fire_random(hog)));
  for (const std::string &word : words) text += word + "/";
  size_t at = 0;
  for (const std::string &word : words) {
    FIRE_CHECK(text.compare(at, word.size(), word) == 0 && text[at + word.size()] == '/');
    at += word.size() + 1;
  }
  FIRE_CHECK(at == text.size());
}

void containers(fire_hog *hog) {
  std::map<uint64_t, std::string> tree;
  std::unordered_map<uint64_t, uint64_t> table;
  for (int i = 0; i < 100; i++) {
    uint64_t key = fire_random(hog) % 64;
    tree[key] = std::to_string(key);
    table[key] = key * key;
    if (i % 3 == 0) tree.erase(fire_random(hog) % 64);
  }
  uint64_t last = 0;
  for (const auto &entry : tree) {
    FIRE_CHECK(entry.first >= last && entry.second == std::to_string(entry.first));
    last = entry.first;
  }
  for (const auto &entry : table) FIRE_CHECK(entry.second == entry.first * entry.first);
}

void streams(fire_hog *hog) {
  for (int i = 0; i < 10; i++) {
    uint64_t value = fire_random(hog), read = 0;
    double half = static_cast<double>(value % 100000) / 2, read_half = 0;
    std::ostringstream out;
    out << std::hex << value << ' ' << std::dec << std::fixed << half << ' ' << "word";
    std::istringstream in(out.str());
    std::string word;
    in >> std::hex >> read >> std::dec >> read_half >> word;
    FIRE_CHECK(in && read == value && read_half == half && word == "word");
  }
}

struct Shape {
  virtual ~Shape() = default;
  virtual double area() const = 0;
};
struct Square : Shape {
  explicit Square(double side) : side(side) {}
  double area() const override { return side * side; }
  double side;
};
struct Strip : Shape {
  explicit Strip(double length) : length(length) {}
  double area() const override { return length; }
  double length;
};

void objects(fire_hog *hog) {
  std::vector<std::shared_ptr<Shape>> shapes;
  std::vector<std::function<double()>> calls;
  double sum = 0;
  for (int i = 0; i < 50; i++) {
    double size = static_cast<double>(fire_random(hog) % 100);
    if (i % 2) shapes.push_back(std::make_shared<Square>(size));
    else shapes.push_back(std::make_shared<Strip>(size));
    sum += i % 2 ? size * size : size;
    calls.push_back([shape = shapes.back()] { return shape->area(); });
  }
  for (int i = 0; i < 50; i++) {
    FIRE_CHECK((dynamic_cast<Square *>(shapes[static_cast<size_t>(i)].get()) != nullptr) == (i % 2 == 1));
    sum -= calls[static_cast<size_t>(i)]();
  }
  FIRE_CHECK(sum == 0);
}

std::mutex counter_lock;
uint64_t counter;
std::atomic<uint64_t> counted;
thread_local std::string thread_word;

[[gnu::noinline]] std::string &word_of_thread() {
  __asm__ volatile("" ::: "memory");
  return thread_word;
}

void locks(fire_hog *hog) {
  for (int i = 0; i < 20; i++) {
    std::string mine = std::to_string(hog->number);
    {
      std::lock_guard<std::mutex> guard(counter_lock);
      uint64_t was = counter;
      word_of_thread() = mine;
      fire_compute(300);
      counter = was + 1;
    }
    FIRE_CHECK(word_of_thread() == mine); // as long as nothing waits
    counted++;
  }
}

void sorting(fire_hog *hog) {
  std::vector<std::string> words;
  for (int i = 0; i < 200; i++) words.push_back(std::to_string(fire_random(hog)));
  std::sort(words.begin(), words.end());
  FIRE_CHECK(std::is_sorted(words.begin(), words.end()));
}

uint64_t sums[REGISTERS_KINDS];

void registers(fire_hog *hog) {
  int kind = static_cast<int>(fire_random(hog) % REGISTERS_KINDS);
  FIRE_CHECK(registers_run(kind, 7, 30000) == sums[kind]);
}

COIR_CHAN(std::string *) parcels;

// Made on one thread, destroyed on another.
void channels(fire_hog *hog) {
  for (int i = 0; i < 10; i++) {
    auto *parcel = new std::string(fire_random(hog) % 200, static_cast<char>('a' + i));
    std::string *other = nullptr;
    if (COIR_SEND(parcels, &parcel, coir_after(COIR_MS(1)))) delete parcel;
    if (COIR_RECV(parcels, &other, coir_after(COIR_US(100)))) continue;
    FIRE_CHECK(std::all_of(other->begin(), other->end(), [other](char c) { return c == other->front(); }));
    delete other;
  }
}

} // namespace

int main(int argc, char **argv) {
  static const fire_act acts[] = {
      {"exceptions", exceptions}, {"exceptions across waits", exceptions_across_waits},
      {"strings", strings},       {"containers", containers},
      {"streams", streams},       {"objects", objects},
      {"locks", locks},           {"sorting", sorting},
      {"registers", registers},   {"channels", channels},
  };
  for (int i = 0; i < REGISTERS_KINDS; i++) sums[i] = registers_run(i, 7, 30000);
  parcels = COIR_CHAN_CREATE(std::string *, 16);
  FIRE_CHECK(parcels != nullptr);
  int rc = fire_main(argc, argv, acts, sizeof acts / sizeof *acts);
  for (std::string *parcel; COIR_RECV(parcels, &parcel, 0) == 0;) delete parcel;
  COIR_CHAN_UNREF(parcels);
  FIRE_CHECK(counter == counted && made == destroyed && made > 0);
  return rc;
}
