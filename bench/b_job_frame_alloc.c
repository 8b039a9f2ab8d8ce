/* job_frame_alloc: a job takes 1000 to 10^6 objects of 64 bytes from the frame allocator of its worker, and fills them;
 * then the frame ends. The peer does so with malloc.
 *
 * Per operation: the job's wall time / objects, without the frame's end. */
#include "jobs.h"

struct object {
  struct object *next;
  long number;
  void *rest[6];
};

struct frame {
  long objects;
  int64_t taken_ns;
};

static void fill_frame(struct coir_job *job, void *arg) {
  struct frame *frame = arg;
  struct object *last = NULL;
  long sum = 0;
  int64_t start_ns = coir_now();
  for (long i = 0; i < frame->objects; i++) {
    struct object *object = coir_job_frame_alloc(job, sizeof *object, 0);
    if (!object) bench_die("coir_job_frame_alloc: out of memory");
    *object = (struct object){.next = last, .number = i};
    last = object;
  }
  frame->taken_ns += coir_now() - start_ns;
  for (; last; last = last->next) sum += last->number;
  bench_equal("sum", sum, bench_sum(frame->objects - 1));
}

static double measure(const struct bench *b, struct coir_job_system *jobs, long objects) {
  struct frame frame = {.objects = objects};
  long times = bench_times(b, 1000000, objects);
  for (long i = 0; i < times; i++) {
    bench_job(jobs, fill_frame, &frame);
    coir_job_system_start_frame(jobs);
  }
  return (double)frame.taken_ns / ((double)times * (double)objects);
}

static void run(const struct bench *b, double *values) {
  static struct coir_job_system *jobs;
  if (!jobs) {
    struct coir_job_config config;
    bench_check("coir_job_config_preset", coir_job_config_preset(&config, COIR_JOBS_THROUGHPUT));
    jobs = bench_jobs(b, &config);
  }
  for (long i = 0, objects = 1000000; i < 4; i++, objects /= 10) values[i] = measure(b, jobs, objects);
}

int main(int argc, char **argv) {
  struct bench b = {
      .question = "job_frame_alloc",
      .metrics = {{NULL, "ns", "lower"}, {"100k", "ns", "lower"}, {"10k", "ns", "lower"}, {"1k", "ns", "lower"}},
      .run = run};
  return bench_main(argc, argv, &b);
}
