/* In the child of a fork a generator of a runtime that ran in the parent waited for workers that were not there, when
 * it was resumed or destroyed. And a spawn into such a runtime left what it should have cleared. */
#include "processes.h"

static int yields_twice(void *arg) {
  int rc = coir_gen_yield(arg, NULL);
  if (rc) return rc;
  return coir_gen_yield(arg, NULL);
}

static void in_child(struct coir_gen *yielded, struct coir_gen *fresh, struct coir_runtime *rt) {
  struct coir_fiber *f = (struct coir_fiber *)rt;
  void *out;
  alarm(20);
  CHECK_EQ(coir_gen_resume(yielded, NULL, &out), -ENOTSUP);
  CHECK_EQ(coir_gen_resume(fresh, NULL, &out), -ENOTSUP);
  CHECK_EQ(coir_gen_destroy(yielded), 0);
  CHECK_EQ(coir_gen_destroy(fresh), 0);
  CHECK_EQ(coir_runtime_spawn(rt, yields_twice, NULL, NULL, &f), -ENOTSUP);
  CHECK(!f);
  _exit(0);
}

static void they_are_refused(void) {
  struct coir_gen *yielded, *fresh;
  int status = -1;
  void *out;
  struct coir_runtime *rt = coir_runtime_default(); /* of plain threads' generators; the child's is another one */
  CHECK_EQ(coir_runtime_start(rt), 0);
  CHECK_EQ(coir_gen_create(&yielded, yields_twice, NULL, NULL), 0);
  CHECK_EQ(coir_gen_create(&fresh, yields_twice, NULL, NULL), 0);
  CHECK_EQ(coir_gen_resume(yielded, NULL, &out), 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) in_child(yielded, fresh, rt);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(coir_gen_resume(yielded, NULL, &out), 0);
  CHECK_EQ(coir_gen_destroy(yielded), 0);
  CHECK_EQ(coir_gen_destroy(fresh), 0);
  CHECK_EQ(coir_runtime_stop(rt, COIR_STOP_DRAIN, COIR_NEVER), 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest cases[] = {CASE(they_are_refused)};
  return RUN_CASES(argc, argv, cases);
}
