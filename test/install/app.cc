// A user's program in C++: every header, and a fiber that joins another.
// HEADERS is filled in by run.sh with one #include per installed header.
#include HEADERS

#include <cstdio>

static int child(void *arg) {
  coir_set_value(arg);
  return 42;
}

static int first(void *arg) {
  coir_fiber *fiber = nullptr;
  coir_result result = {};
  if (coir_spawn(child, arg, nullptr, &fiber) != 0) return 1;
  if (coir_join(fiber, &result, COIR_NEVER) != 0) return 2;
  return result.status == 42 && result.value == arg ? 0 : 3;
}

int main() {
  int word = 0;
  int rc = coir_run(first, &word);
  if (rc != 0) std::fprintf(stderr, "coir_run returned %d\n", rc);
  return rc != 0;
}
