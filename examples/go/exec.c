/* exec.c: os/exec: pipes to a child, its exit status, and a child whose time is up (CommandContext). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "coir.h"
#include "coir_io.h"

/* Feeds `input` to a program, and prints what comes out of it. */
static int filter(char *const *argv, const char *input) {
  struct coir_process_options options = {
      .path = argv[0], .argv = argv, .io = {{.kind = COIR_STDIO_PIPE}, {.kind = COIR_STDIO_PIPE}}};
  struct coir_process *process;
  char out[256];
  int rc = coir_process_spawn(&process, &options);
  if (rc != 0) return rc;
  coir_write_full(coir_process_fd(process, 0), input, strlen(input), COIR_NEVER);
  coir_process_close_fd(process, 0);
  ssize_t n = coir_read_full(coir_process_fd(process, 1), out, sizeof out, COIR_NEVER);
  if (n > 0) printf("%.*s\n", (int)n, out);
  rc = coir_process_wait(process, NULL, COIR_NEVER);
  coir_process_destroy(process);
  return rc;
}

/* Runs a program to its end. If the caller's scope is cancelled meanwhile, kills it. Stores how it ended. */
static int run(char *const *argv, int *status) {
  struct coir_process *process;
  int rc = coir_process_spawn(&process, &(struct coir_process_options){.path = argv[0], .argv = argv});
  if (rc != 0) return rc;
  rc = coir_process_wait(process, status, COIR_NEVER);
  if (rc == -ECANCELED) {
    coir_process_kill(process, SIGKILL);
    rc = coir_process_wait(process, status, COIR_NEVER);
  }
  coir_process_destroy(process);
  return rc;
}

static int first(void *arg) {
  struct coir_scope *scope;
  int status = 0;
  (void)arg;
  if (filter((char *[]){"tr", "a-z", "A-Z", NULL}, "a warp and a weft") != 0) return 1;

  if (run((char *[]){"sh", "-c", "exit 3", NULL}, &status) != 0) return 1;
  printf("exit status %d\n", WEXITSTATUS(status));

  if (coir_scope_open(&scope, 0, coir_after(COIR_MS(20))) != 0) return 1;
  int rc = run((char *[]){"sleep", "3600", NULL}, &status);
  coir_scope_close(scope);
  printf("killed: %s\n", rc == 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? "true" : "false");

  rc = run((char *[]){"no-such-program", NULL}, &status);
  printf("not found: %s\n", rc == -ENOENT ? "true" : "false");
  return 0;
}

int main(void) { return coir_run(first, NULL); }
