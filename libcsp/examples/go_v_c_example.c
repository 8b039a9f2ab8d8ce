/* go_v_c_example.c: a pool of workers that ends when it is cancelled or has no more jobs. Its twin in Go, with the same
 * output, is go_v_c_example.go.
 *
 * A job is a number in a pointer. A closed channel yields NULL, and so would a job 0: the worker below takes both for
 * the end. So jobs are counted from 1 here. Where 0 is a job, csp_select_ok tells the two apart, as `job, ok` does in
 * Go. As in Go, a worker that has a job and a cancellation before it takes either one. */
#include <csp.h>

enum { WORKERS = 3, JOBS = 9 };

typedef struct {
  csp_context_t *ctx;
  chan_recv_only(intptr_t) jobs;
  chan_send_only(intptr_t) results;
  csp_sync_waitgroup_t *wg;
} worker_args_t;

/* clang-format off */
static void worker(void *arg) {
    worker_args_t *args = (worker_args_t *)arg;
    while (1) {
        void *job_ptr = NULL;
        csp_select_case_t cases[2];
        cases[0] = (csp_select_case_t){ .ch = csp_context_done(args->ctx), .op = CSP_RECV };
        cases[1] = (csp_select_case_t){ .ch = args->jobs, .op = CSP_RECV, .val = &job_ptr };

        int chosen = csp_select(cases, 2);
        if (chosen == 0) break; // Cancelled
        if (job_ptr == NULL) break; // Closed

        intptr_t job = (intptr_t)job_ptr;
        csp_gochan_send(args->results, (void *)(job * 2));
    }
    csp_sync_waitgroup_done(args->wg);
}
/* clang-format on */

static void start(worker_args_t *args) {
  csp_sync_waitgroup_add(args->wg, WORKERS);
  for (int i = 0; i < WORKERS; i++)
    if (!csp_proc_create(0, worker, args)) {
      perror("csp_proc_create");
      exit(1);
    }
}

/* All jobs are done, and then there are no more. Who is first depends on the scheduler; what comes out does not. */
static void until_closed(void) {
  csp_sync_waitgroup_t wg;
  csp_sync_waitgroup_init(&wg);
  csp_context_t *ctx = csp_context_with_cancel(csp_context_background());
  worker_args_t args = {ctx, csp_gochan_new(JOBS), csp_gochan_new(JOBS), &wg};
  intptr_t results[JOBS + 1] = {0}, sum = 0;
  start(&args);
  for (intptr_t job = 1; job <= JOBS; job++) csp_gochan_send(args.jobs, (void *)job);
  csp_gochan_close(args.jobs);
  csp_sync_waitgroup_wait(&wg);
  csp_gochan_close(args.results);
  for (void *result; (result = csp_gochan_recv(args.results, NULL));) results[(intptr_t)result / 2] = (intptr_t)result;
  for (int job = 1; job <= JOBS; job++) {
    printf("job %d: %d\n", job, (int)results[job]);
    sum += results[job];
  }
  printf("closed: the sum of %d results is %d\n", JOBS, (int)sum);
  csp_context_free(ctx);
  csp_gochan_free(args.jobs);
  csp_gochan_free(args.results);
}

/* The jobs never end; the cancellation ends the workers. */
static void until_cancelled(void) {
  csp_sync_waitgroup_t wg;
  csp_sync_waitgroup_init(&wg);
  csp_context_t *parent = csp_context_with_cancel(csp_context_background());
  worker_args_t args = {csp_context_with_cancel(parent), csp_gochan_new(0), csp_gochan_new(1), &wg};
  start(&args);
  csp_gochan_send(args.jobs, (void *)(intptr_t)21);
  printf("a job: %d\n", (int)(intptr_t)csp_gochan_recv(args.results, NULL));
  csp_context_cancel(parent);
  csp_sync_waitgroup_wait(&wg);
  printf("cancelled: %d workers have ended\n", WORKERS);
  csp_context_free(args.ctx);
  csp_context_free(parent);
  csp_gochan_free(args.jobs);
  csp_gochan_free(args.results);
}

int main(void) {
  until_closed();
  until_cancelled();
  return 0;
}
