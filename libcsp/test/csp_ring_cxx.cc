// Typed rings in C++: all calls compile and work, items are converted as arguments are, in a lambda, too.
#include "csp.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#define CHECK(x)                                                             \
  do {                                                                       \
    if (!(x)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      std::abort();                                                          \
    }                                                                        \
  } while (0)

struct Item {
  int id;
  char text[7];
};

csp_chan_declare(ss, Item, items);
csp_chan_define(ss, Item, items);
csp_chan_declare(sm, const char *, texts);
csp_chan_define(sm, const char *, texts);
csp_chan_declare(ms, double, numbers);
csp_chan_define(ms, double, numbers);
csp_chan_declare(mm, std::size_t, counts);
csp_chan_define(mm, std::size_t, counts);

namespace {

void items_and_texts() {
  csp_chan_t(items) *c = csp_chan_new(items)(1);
  Item item = {1, "one"}, list[2] = {};
  CHECK(csp_chan_try_push(c, item));
  csp_chan_push(c, {2, "two"});
  CHECK(!csp_chan_try_push(c, {3, "three"}));
  CHECK(csp_chan_try_pop(c, &item) && item.id == 1);
  csp_chan_pop(c, &item);
  CHECK(item.id == 2 && item.text[0] == 't');
  CHECK(!csp_chan_try_pop(c, &item));
  CHECK(csp_chan_try_pushm(c, &item, 1) && !csp_chan_try_pushm(c, list, 2));
  CHECK(csp_chan_try_popm(c, list, 2) == 1 && list[0].id == 2);
  csp_chan_pushm(c, list, 2);
  csp_chan_popm(c, list, 2);
  csp_chan_destroy(c);

  csp_chan_t(texts) *t = csp_chan_new(texts)(0);
  const char *text = nullptr;
  csp_chan_push(t, "text");
  csp_chan_pop(t, &text);
  CHECK(text && text[0] == 't');
  csp_chan_push(t, nullptr);
  csp_chan_pop(t, &text);
  CHECK(!text);
  csp_chan_destroy(t);

  csp_chan_t(numbers) *n = csp_chan_new(numbers)(2);
  double number = 0;
  csp_chan_push(n, 7);
  CHECK(csp_chan_try_pop(n, &number) && number == 7.0);
  csp_chan_destroy(n);
  CHECK(!csp_chan_new(numbers)(64));
}

const std::size_t items_each = 2000, batch = 5;

void produces(void *arg) {
  auto *c = static_cast<csp_chan_t(counts) *>(arg);
  for (std::size_t i = 1; i <= items_each; i += batch) {
    std::size_t list[batch];
    for (std::size_t k = 0; k < batch; k++) list[k] = i + k;
    if (i % 2) {
      csp_chan_pushm(c, list, batch);
      continue;
    }
    for (std::size_t n : list) csp_chan_push(c, n);
  }
}

struct Total {
  csp_chan_t(counts) * c;
  std::size_t sum;
};

void *consumes(void *arg) {
  auto *total = static_cast<Total *>(arg);
  std::size_t list[batch] = {};
  for (std::size_t i = 0; i < items_each; i += batch) {
    csp_chan_popm(total->c, list, batch);
    for (std::size_t n : list) total->sum += n;
  }
  return nullptr;
}

// Two goroutines push, and two threads pop.
void goroutines_and_threads() {
  csp_chan_t(counts) *c = csp_chan_new(counts)(3);
  Total totals[2] = {{c, 0}, {c, 0}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    CHECK(csp_proc_create(0, produces, c));
    CHECK(pthread_create(&threads[i], nullptr, consumes, &totals[i]) == 0);
  }
  for (pthread_t thread : threads) CHECK(pthread_join(thread, nullptr) == 0);
  CHECK(totals[0].sum + totals[1].sum == items_each * (items_each + 1));
  CHECK(csp_chan_try_popm(c, &totals[0].sum, 1) == 0);
  csp_scheduler_stop(); // they may have yet to return
  csp_chan_destroy(c);
}

} // namespace

int main() {
  items_and_texts();
  goroutines_and_threads();
  return 0;
}
