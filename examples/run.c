/* run.c: runs a command with a deadline, as timeout(1) does, streams what it prints, and says how it ended.
 *
 * One select waits for all that can happen: the child's end, the deadline, and the signals by which somebody asks us to
 * stop, which are handed on to the child. There is no thread for it and no signal handler.
 * usage: run [SECONDS COMMAND [ARGUMENT...]] */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "coir.h"
#include "coir_io.h"

#define GRACE COIR_SEC(1) /* from asking it to end to ending it, and for what it may have left on the pipe */

struct job {
  int64_t limit;
  struct coir_process_options options;
  bool timed_out;
};

/* Prints what the child prints, both of its outputs in one, until it has closed them. Our own output is shared with
 * others, so it stays as it is: blocking. */
static int stream(void *process) {
  char buf[4096];
  ssize_t n;
  while ((n = coir_read(coir_process_fd(process, 1), buf, sizeof buf, COIR_NEVER)) > 0) {
    fwrite(buf, 1, (size_t)n, stdout);
    fflush(stdout);
  }
  return (int)n;
}

/* Waits for the end of the child, and brings it about when it is time. */
static void attend(struct job *job, struct coir_process *process, struct coir_signals *signals) {
  struct coir_siginfo info;
  int64_t limit = coir_after(job->limit);
  for (;;) {
    struct coir_arm arms[] = {coir_arm_process(process),
                              coir_arm_recv(COIR_CHAN_RAW(coir_signals_chan(signals)), &info),
                              coir_arm_deadline(limit)};
    switch (coir_select(arms, sizeof arms / sizeof *arms, COIR_NEVER)) {
    case 1: /* ^C, or kill */
      printf("run: signal %d\n", info.signo);
      coir_process_kill(process, info.signo);
      limit = coir_after(GRACE);
      break;
    case 2: /* ask first, then insist */
      coir_process_kill(process, job->timed_out ? SIGKILL : SIGTERM);
      job->timed_out = true;
      limit = coir_after(GRACE);
      break;
    default: return;
    }
  }
}

static int report(const struct job *job, int status) {
  const char *when = job->timed_out ? "at the deadline" : "by itself";
  if (WIFSIGNALED(status)) printf("run: it ended %s, by signal %d\n", when, WTERMSIG(status));
  else printf("run: it ended %s, with status %d\n", when, WEXITSTATUS(status));
  return job->timed_out ? 124 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int first(void *arg) {
  struct job *job = arg;
  struct coir_signals *signals;
  struct coir_process *process;
  struct coir_fiber *reader;
  int status = 0;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  int rc = coir_signals_open(&signals, &set);
  if (rc < 0) return rc;
  rc = coir_process_spawn(&process, &job->options);
  if (rc < 0) {
    coir_signals_close(signals);
    return rc;
  }
  rc = coir_spawn(stream, process, NULL, &reader);
  if (rc < 0) coir_process_kill(process, SIGKILL);
  attend(job, process, signals);
  coir_process_wait(process, &status, COIR_NEVER); /* it has ended, so this does not wait */
  if (rc == 0 && coir_join(reader, NULL, coir_after(GRACE)) == -ETIMEDOUT) {
    coir_cancel(reader); /* something that it started holds the pipe open */
    coir_join(reader, NULL, COIR_NEVER);
  }
  if (rc == 0) rc = report(job, status);
  coir_process_destroy(process);
  coir_signals_close(signals); /* the runtime runs until then */
  return rc;
}

int main(int argc, char **argv) {
  static char *demo[] = {(char *)"sh", (char *)"-c", (char *)"echo one; sleep 0.1; echo two; sleep 100; echo three",
                         NULL};
  bool is_demo = argc < 3;
  struct job job = {.limit = is_demo ? COIR_MS(500) : (int64_t)(atof(argv[1]) * 1e9)};
  job.options.argv = is_demo ? demo : argv + 2;
  job.options.path = job.options.argv[0];
  job.options.io[1].kind = COIR_STDIO_PIPE;
  job.options.io[2].kind = COIR_STDIO_STDOUT;
  job.options.flags = COIR_PROCESS_GROUP; /* what the command starts goes with it */
  int rc = coir_run(first, &job);
  if (rc < 0) fprintf(stderr, "run: cannot start %s: error %d\n", job.options.path, -rc);
  if (is_demo) return rc != 124;
  return rc < 0 ? 127 : rc;
}
